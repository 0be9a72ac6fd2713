"""[tls] of the configuration: what -t says of keys and certificates, and files that change while
warp runs. Certificates are made anew by the openssl command."""
import os
import re
import shutil
import socket
import ssl
import subprocess
from signal import SIGHUP

import pytest

import lib

R = '[[routes]]\nrespond = { body = "hi" }\n'
ON = "[server]\nhttps_port = 24443\n[tls]\nenabled = true\n"
WATCH = 5  # CERTS_WATCH_SECS


def openssl(*args, dir):
    subprocess.run(["openssl", *map(str, args)], cwd=dir, check=True, capture_output=True, timeout=60)


def make(dir, name, *names, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), days=30, more=()):
    """NAME.pem and NAME.key: a certificate for names, signed by itself."""
    alt = ",".join("DNS:" + n for n in names)
    openssl("req", "-x509", "-newkey", *key, "-nodes", "-keyout", name + ".key", "-out", name + ".pem", "-days", days,
            "-subj", "/O=Test/CN=" + names[0], "-addext", "subjectAltName=" + alt, *more, dir=dir)
    os.chmod(os.path.join(dir, name + ".key"), 0o600)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("certs"))
    make(d, "a", "a.example", "*.w.example")
    make(d, "b", "b.example")
    make(d, "twin", "a.example")
    make(d, "rsa", "a.example", key=("rsa:2048",))
    make(d, "big", "big.example", key=("rsa:4096",))
    make(d, "weak", "weak.example", key=("rsa:1024",))
    openssl("genpkey", "-algorithm", "ed25519", "-out", "ed.key", dir=d)
    openssl("pkcs8", "-topk8", "-in", "a.key", "-out", "locked.key", "-passout", "pass:x", dir=d)
    openssl("x509", "-in", "a.pem", "-outform", "der", "-out", "a.der", dir=d)
    with open(d + "/both.pem", "w") as f:
        f.write(open(d + "/a.key").read() + open(d + "/a.pem").read())
    with open(d + "/cut.pem", "w") as f:
        f.write(open(d + "/a.pem").read()[:300])
    with open(d + "/unordered.pem", "w") as f:
        f.write(open(d + "/a.pem").read() + open(d + "/b.pem").read())
    shutil.copy(d + "/a.key", d + "/open.key")
    os.chmod(d + "/both.pem", 0o600)
    os.chmod(d + "/open.key", 0o644)
    return d


def pair(cert, key=None):
    return ON + 'cert = "@D@/%s"\n' % cert + ('key = "@D@/%s"\n' % key if key else "")


BAD = {
    "the key of another": (pair("a.pem", "b.key"), "a.pem and .*b.key do not belong together"),
    "no key": (pair("a.pem"), "a.pem holds no private key"),
    "no certificate": (pair("a.key", "a.key"), "a.key holds no certificate"),
    "DER": (pair("a.der", "a.key"), "a.der holds no certificate"),
    "cut short": (pair("cut.pem", "a.key"), "cut.pem is damaged: 'CERTIFICATE'"),
    "encrypted": (pair("a.pem", "locked.key"), "is encrypted.*decrypt it: openssl pkey -in .*locked.key"),
    "Ed25519": (pair("a.pem", "ed.key"), "ed.key cannot be used: warp knows RSA up to 4096 bits and the curves P-256"),
    "no such file": (pair("none.pem", "a.key"), "cannot read .*none.pem: No such file"),
    "the second of two": (pair("a.pem", "a.key") + '[[tls.certs]]\ncert = "@D@/b.pem"\nkey = "@D@/a.key"\n',
        "b.pem and .*a.key do not belong together"),
    "nowhere to listen": ('[tls]\nenabled = true\ncert = "@D@/both.pem"\n', "no address to serve TLS at: set server.https_port"),
    "a client CA that is none": (pair("both.pem") + 'client_ca_file = "@D@/a.key"\n', "tls.client_ca_file: .*holds no certificate"),
    "verify without CA": (pair("both.pem") + 'client_verify = "optional"\n', "client_verify: needs client_ca_file"),
    "a wildcard by ACME": (ON + 'domains = ["*.example.com"]\n', r"tls.domains: \*.example.com: a wildcard is proved by DNS"),
    "an upstream's CA": ('[upstreams.u]\nurl = "https://u"\ntls = { ca_file = "@D@/none" }\n',
        "upstreams.u.tls.ca_file: cannot read .*none: No such file"),
    "an upstream's client key": ('[upstreams.u]\nurl = "https://u"\ntls = { ca_file = "@D@/a.pem", cert = "@D@/a.pem", key = "@D@/b.key" }\n',
        "upstreams.u.tls.cert: .*do not belong together"),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad(check, made, reason):
    """exit 1, and the file with what to do about it, at the place of the key."""
    text, message = BAD[reason]
    p = check(text.replace("@D@", made) + R)
    assert p.returncode == 1, p.stdout + p.stderr
    assert re.search(r"(?m)^\S*warp\.toml:\d+:\d+: error: .*" + message, p.stderr), p.stderr


WARN = {
    "nothing": (pair("a.pem", "a.key"), None),
    "key and certificate in one file": (pair("both.pem"), None),
    "EC and RSA for one name": (pair("a.pem", "a.key") + '[[tls.certs]]\ncert = "@D@/rsa.pem"\nkey = "@D@/rsa.key"\n', None),
    "two for one name": (pair("a.pem", "a.key") + '[[tls.certs]]\ncert = "@D@/twin.pem"\nkey = "@D@/twin.key"\n',
        "a.pem and .*twin.pem are both for a.example: the first is used"),
    "slow": (pair("big.pem", "big.key"), "has 4096 bits: handshakes are slow"),
    "weak": (pair("weak.pem", "weak.key"), "has only 1024 bits"),
    "out of order": (pair("unordered.pem", "a.key"), "out of order: 'Test, a.example' was signed by 'Test, a.example', but 'Test, b.example' follows"),
    "others can read the key": (pair("a.pem", "open.key"), "open.key can be read by others; chmod 600"),
    "TLS is off": ("[server]\nhttps_port = 24443\n", "https_port: not bound, as TLS is not enabled"),
    "no certificate at all": (ON, "https_port: not bound, as .tls. has neither cert nor domains"),
    "an upstream is not verified": ('[upstreams.u]\nurl = "https://u"\ntls = { verify = false }\n', "upstreams.u.tls.verify: anybody on the way"),
    "an upstream's address": ('[upstreams.u]\nurl = "https://127.0.0.1"\ntls = { ca_file = "@D@/a.pem" }\n',
        "127.0.0.1:443 is an address, but only names"),
    "tls for http": ('[upstreams.u]\nurl = "http://u"\ntls = { verify = false }\n', "upstreams.u.tls: not used"),
}


@pytest.mark.parametrize("reason", WARN)
def test_warnings(check, made, reason):
    text, message = WARN[reason]
    p = check(text.replace("@D@", made) + R)
    said = [x for x in re.findall(r"(?m)warning: (.*)", p.stderr) if "run as root" not in x and "no route uses" not in x]
    assert p.returncode == 0, p.stderr
    assert (any(re.search(message, x) for x in said) if message else not said), p.stderr


def test_check_shows_certificates(check, made):
    p = check(pair("a.pem", "a.key").replace("@D@", made) + "[upstreams.u]\nurl = \"wss://u:8\"\n"
              'tls = { ca_file = "%s/b.pem", server_name = "b.example" }\n' % made + R)
    assert "listen https://:24443\n" in p.stdout
    assert re.search(r"certificate \S+/a.pem: a.example, \*.w.example; EC 256, by Test, a.example, until 20\d\d-\d\d-\d\d\n", p.stdout)
    assert re.search(r"https://u:8 +weight 1\n +verified by the 1 certificates in \S+/b.pem, for the name b.example\n", p.stdout)
    assert "listen :8080" not in p.stdout


def test_until_acme_has_one(check, tmp_path):
    """One signed by itself is made for the names; where state lives is looked at, but need not be there."""
    p = check(ON + 'domains = ["Www.example.com", "example.com"]\nacme_directory = "%s/none"\n' % tmp_path + R)
    assert p.returncode == 0, p.stderr
    assert "until ACME has got one: www.example.com, example.com; EC 256" in p.stdout, p.stdout


def test_environment(run, made):
    p = run("-t", "-u", "127.0.0.1:1", env={"WARPDRIVE_TLS_ENABLED": "true", "WARPDRIVE_TLS_CERT": made + "/both.pem",
        "WARPDRIVE_HTTPS_PORT": "24443"})
    assert p.returncode == 0 and "listen https://:24443" in p.stdout, p.stderr
    p = run("-t", "-u", "127.0.0.1:1", env={"WARPDRIVE_TLS_ENABLED": "true", "WARPDRIVE_TLS_CERT": made + "/none",
        "WARPDRIVE_HTTPS_PORT": "24443"})
    assert p.returncode == 1 and "cannot read" in p.stderr, p.stderr


# ---- while it runs ------------------------------------------------------------------

def shown(port, name="a.example"):
    """The certificate that warp shows to a client who asks for name, DER."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), lib.TIMEOUT) as s, c.wrap_socket(s, server_hostname=name) as t:
        return t.getpeercert(True)


def der(file):
    return ssl.PEM_cert_to_DER_cert(re.search("-----BEGIN CERT.*?END CERTIFICATE-----", open(file).read(), re.S)[0])


def move(dir, name, to):
    """NAME's files take the place of others at once."""
    for end in (".pem", ".key"):
        shutil.copy(os.path.join(dir, name + end), to + end + ".new")
        os.chmod(to + end + ".new", 0o600)
    for end in (".key", ".pem"):
        os.rename(to + end + ".new", to + end)


@pytest.fixture
def live(warp, made, tmp_path):
    port, to = lib.free_port(), str(tmp_path / "live")
    move(made, "a", to)
    w = warp('[server]\nworker_threads = 2\nhttps_listen = ["127.0.0.1:%d"]\n[tls]\nenabled = true\nredirect = false\n'
             'cert = "%s.pem"\nkey = "%s.key"\n' % (port, to, to) + R)
    w.https, w.to = port, to
    return w


def test_files_change(live, made):
    """New handshakes get the new certificate from every worker, an open connection stays, no worker is replaced."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    workers = live.children()
    with socket.create_connection(("127.0.0.1", live.https), lib.TIMEOUT) as s, c.wrap_socket(s) as t:
        assert t.getpeercert(True) == der(made + "/a.pem")
        move(made, "b", live.to)
        live.wait_stderr(r"new certificate in use: b.example, by Test, b.example, until 20", WATCH + lib.TIMEOUT)
        lib.eventually(lambda: all(shown(live.https) == der(made + "/b.pem") for _ in range(8)))
        t.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert t.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert live.children() == workers


def test_a_broken_file(live, made):
    """Said once, the old certificate stays; the next good one is taken."""
    shutil.copy(made + "/b.key", live.to + ".key")
    live.wait_stderr(r"error: certificates have changed, but cannot be used: \S*live.pem and \S*live.key do not belong", WATCH + lib.TIMEOUT)
    assert shown(live.https) == der(made + "/a.pem")
    shutil.copy(made + "/b.pem", live.to + ".pem")
    live.wait_stderr("new certificate in use: b.example", WATCH + lib.TIMEOUT)
    lib.eventually(lambda: all(shown(live.https) == der(made + "/b.pem") for _ in range(8)))
    assert live.stderr.count("error:") == 1, live.stderr


def test_reload(live, made):
    """HUP reads them as well; a broken one fails the reload."""
    move(made, "b", live.to)
    live.signal(SIGHUP)
    live.wait_stderr("reloaded, generation 2", 3 * lib.TIMEOUT)
    # an old worker that has not yet heard of it may take one more
    lib.eventually(lambda: shown(live.https) == der(made + "/b.pem"), "the new certificate")
    os.unlink(live.to + ".key")
    live.signal(SIGHUP)
    live.wait_stderr("reload: 1 error, going on", 3 * lib.TIMEOUT)
    assert shown(live.https) == der(made + "/b.pem")


def test_config_is_shown(warp, made, tmp_path):
    """/config has what was said of TLS; secrets are masked."""
    port = lib.free_port()
    w = warp('[server]\nhttps_listen = ["127.0.0.1:%d"]\n[tls]\nenabled = true\nredirect = false\n'
             'acme_eab = { kid = "k1", hmac = "c2VjcmV0" }\n[[tls.certs]]\ncert = "%s/both.pem"\n'
             '[upstreams.u]\nurl = "https://u.example"\ntls = { verify = false }\n'
             '[admin]\nlisten = "unix:@DIR@/admin"\n' % (port, made) + R)
    with lib.Client(w.path("admin")) as c:
        m = c.ask("/config")
    tls = m.json["tls"]
    assert tls["enabled"]["value"] is True and tls["session_cache"] == {"value": 2048, "from": "preset"}
    assert tls["certs"]["value"] == [{"cert": made + "/both.pem"}]
    assert tls["acme_eab"]["value"] == {"kid": "k1", "hmac": "***"}
    assert m.json["upstreams"]["u"]["tls"]["verify"]["value"] is False
    assert "c2VjcmV0" not in m.text
