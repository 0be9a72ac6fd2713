"""Certificates by ACME, from a real pebble: the first one, renewal, restart, and a CA that is down, refuses, is slow
or forgetful."""
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

import acme
import lib

pytestmark = [
    pytest.mark.skipif(not shutil.which("pebble"), reason="no pebble"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl"),
]


@pytest.fixture
def ca(tmp_path):
    """ca(**options) -> a pebble whose http-01 looks at ca.http, tls-alpn-01 at ca.https: warp's ports."""
    made = []

    def make(**kw):
        http, https = lib.free_port(), lib.free_port()
        p = acme.Pebble(tmp_path, http_port=http, tls_port=https, **kw)
        p.http, p.https = http, https
        made.append(p)
        return p
    yield make
    for p in made:
        p.__exit__()


def conf(ca, *domains, http=True, tls=""):
    return """
[server]
listen = [%s"https://127.0.0.1:%d"]
[tls]
enabled = true
domains = [%s]
acme_directory = "@DIR@/acme"
acme_url = "%s"
acme_ca_file = "%s"
%s
[[routes]]
respond = { status = 200, body = "hello" }
""" % ('"127.0.0.1:%d", ' % ca.http if http else "", ca.https, ", ".join('"%s"' % d for d in domains or ["a.example"]),
       ca.url, ca.ca_file, tls)


def first(ca, name="a.example", root=None, timeout=None):
    """Waits until name is served with a certificate of the CA's."""
    root = root or ca.root()

    def look():
        cert = acme.served(ca.https, name, root)
        if not cert:
            time.sleep(0.1)  # each look is a line in warp's log
        return cert
    return lib.eventually(look, "a certificate for " + name, timeout)


def serial(ca, name="a.example"):
    return (acme.served(ca.https, name, ca.root()) or {}).get("serialNumber")


def mode(path):
    return os.stat(path).st_mode & 0o777


@pytest.mark.promise("S2-78")
def test_first(ca, warp):
    """Before it https answers with a certificate of its own, http serves; then the CA's, verified."""
    p = ca()
    w = warp(conf(p), port=p.http)
    assert w.ask("/", host="a.example").status in (200, 308)
    cert = first(p)
    assert acme.names(cert) == ["a.example"]
    pem, key = w.path("acme/a.example.pem"), w.path("acme/account.key")
    assert mode(w.path("acme")) == 0o700 and mode(pem) == 0o600 and mode(key) == 0o600
    with open(pem) as f:
        text = f.read()
    assert text.index("PRIVATE KEY") < text.index("BEGIN CERTIFICATE")
    assert sorted(os.listdir(w.path("acme"))) == ["a.example.pem", "account.key"]
    assert p.orders() == 1
    assert re.search(r"info: new certificate for a\.example, by Pebble", w.stderr)
    assert " error: " not in w.stderr
    # what was laid out for the CA is gone
    assert w.ask("/.well-known/acme-challenge/x", host="a.example").status != 500


def test_several_names(ca, warp):
    p = ca()
    w = warp(conf(p, "a.example", "B.example", "www.a.example"), port=p.http)
    for name in ("a.example", "b.example", "www.a.example"):
        assert acme.names(first(p, name)) == ["a.example", "b.example", "www.a.example"]
    assert p.orders() == 1 and os.path.exists(w.path("acme/a.example.pem"))


@pytest.mark.promise("S2-78")
def test_restart(ca, warp, tmp_path):
    """The file is used again: no second order."""
    p = ca()
    w = warp(conf(p), port=p.http)
    one = first(p)["serialNumber"]
    w.stop()
    again = warp(conf(p), port=p.http, dir=w.dir)
    assert serial(p) == one
    again.wait_stderr("ready")
    again.stop()
    assert p.orders() == 1 and p.count("POST /sign-me-up") == 1


def test_reload(ca, warp):
    """A reload keeps the certificate; other names get another one, and the old file stays."""
    p = ca()
    w = warp(conf(p), port=p.http)
    one = first(p)["serialNumber"]
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded, generation 2")
    assert serial(p) == one
    w.write(conf(p, "b.example", "a.example"))
    w.signal(signal.SIGHUP)
    assert acme.names(first(p, "b.example")) == ["a.example", "b.example"]
    assert p.orders() == 2
    assert {"a.example.pem", "b.example.pem", "account.key"} == set(os.listdir(w.path("acme")))


@pytest.mark.limit(90)
@pytest.mark.limit(90)
def test_one_more_name(ca, warp):
    """What there is stays in use until there is better: for a name more, a lost file, and over a reload of either."""
    p = ca()
    w = warp(conf(p), port=p.http)
    one = first(p)["serialNumber"]
    p.dns.missing.add("b.example")
    w.write(conf(p, "a.example", "b.example"))
    w.signal(signal.SIGHUP)
    w.wait_stderr("no certificate for a.example")
    assert serial(p) == one
    assert w.ask("/", host="a.example").status == 308 and w.ask("/", host="b.example").status == 200
    os.unlink(w.path("acme/a.example.pem"))
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded, generation 3")
    assert serial(p) == one
    p.dns.missing.clear()
    assert acme.names(first(p, "b.example", timeout=60)) == ["a.example", "b.example"]
    assert serial(p) != one


@pytest.mark.limit(60)
def test_renewal(ca, warp):
    """A third of 21 s before its end it is replaced, and connections stay."""
    p = ca(validity=21)
    w = warp(conf(p), port=p.http)
    one = first(p)["serialNumber"]
    with w.client() as c:
        assert c.ask("/", host="x.example").status in (200, 308)
        began = time.monotonic()
        lib.eventually(lambda: serial(p) not in (one, None), "another certificate", 40)
        assert time.monotonic() - began > 5
        assert c.ask("/", host="x.example").status in (200, 308)
    assert p.orders() == 2 and p.count("POST /sign-me-up") == 2


@pytest.mark.limit(60)
def test_down_then_up(ca, warp):
    p = ca(start=False)
    w = warp(conf(p), port=p.http)
    line = w.wait_stderr(r"error: no certificate for a\.example: .*cannot be reached: Connection refused; .*next try in (\d+) s")
    assert 5 <= int(line[1]) <= 7
    p.start()
    first(p, timeout=30)
    assert p.orders() == 1


@pytest.mark.limit(60)
def test_name_does_not_exist(ca, warp):
    p = ca()
    p.dns.missing.add("b.example")
    w = warp(conf(p, "a.example", "b.example"), port=p.http)
    w.wait_stderr(r"error: no certificate for a\.example and 1 more: b\.example: the CA says: .*b\.example.*; .*next try in")
    assert acme.served(p.https, "a.example", p.root()) is None
    p.dns.missing.clear()
    assert acme.names(first(p, "b.example", timeout=30)) == ["a.example", "b.example"]


def test_nonces_refused(ca, warp):
    p = ca(env={"PEBBLE_WFE_NONCEREJECT": "30"})
    w = warp(conf(p, "a.example", "b.example"), port=p.http)
    first(p, timeout=20)
    assert p.orders() >= 1 and " error: " not in w.stderr


def test_authorizations_reused(ca, warp):
    p = ca(env={"PEBBLE_AUTHZREUSE": "100"})
    w = warp(conf(p), port=p.http)
    first(p)
    w.write(conf(p, "a.example", "b.example"))
    w.signal(signal.SIGHUP)
    lib.eventually(lambda: "b.example" in acme.names(first(p)), "both names")
    assert len(re.findall(r"info: a\.example: proving it", w.stderr)) == 1


@pytest.mark.limit(40)
def test_slow_validation(ca, warp):
    p = ca(env={"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "4"})
    w = warp(conf(p, "a.example", "b.example"), port=p.http)
    first(p, timeout=30)
    assert p.orders() == 1 and " error: " not in w.stderr


def test_long_chain(ca, warp):
    p = ca(env={"PEBBLE_CHAIN_LENGTH": "3"})
    w = warp(conf(p), port=p.http)
    first(p)
    with open(w.path("acme/a.example.pem")) as f:
        assert f.read().count("BEGIN CERTIFICATE") > 3 and " warn: " not in w.stderr.replace("run as root", "")


EAB = {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}


def test_eab(ca, warp):
    p = ca(eab=EAB)
    w = warp(conf(p, tls='acme_email = "op@a.example"\nacme_eab = { kid = "kid-1", hmac = "%s" }' % EAB["kid-1"]), port=p.http)
    first(p)
    assert " error: " not in w.stderr


def test_eab_missing(ca, warp):
    p = ca(eab=EAB)
    w = warp(conf(p), port=p.http)
    w.wait_stderr(r"error: no certificate for a\.example: the CA serves only customers that it knows; set tls\.acme_eab")
    assert p.count("POST /sign-me-up") == 0


def test_eab_wrong(ca, warp):
    p = ca(eab=EAB)
    w = warp(conf(p, tls='acme_eab = { kid = "kid-1", hmac = "AAAA" }'), port=p.http)
    w.wait_stderr(r"error: no certificate for a\.example: the CA says: .*\(\w+\)")


def test_tls_alpn(ca, warp):
    """Without any http listener the proof is in the handshake."""
    p = ca()
    w = warp(conf(p, "a.example", "b.example", http=False), port=p.https)
    assert acme.names(first(p, "b.example")) == ["a.example", "b.example"]
    w.wait_stderr(r"info: a\.example: proving it with tls-alpn-01")
    assert p.orders() == 1


def test_unknown_ca(ca, warp, tmp_path):
    """A CA whose own certificate nobody vouches for gets no word from us."""
    p = ca()
    other = acme.Pebble(tmp_path / "other", http_port=1, start=False)
    other.dns.close()
    text = conf(p).replace(p.ca_file, other.ca_file)
    w = warp(text, port=p.http)
    w.wait_stderr(r"error: no certificate for a\.example: 127\.0\.0\.1 fails the TLS handshake: .*not trusted.*acme_ca_file")
    assert p.orders() == 0


@pytest.mark.limit(60)
def test_directory_is_not_writable(ca, warp, tmp_path):
    """A clear line, the CA is not bothered; once it can be written all goes on."""
    p = ca()
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    w = warp(conf(p).replace("@DIR@/acme", "%s/acme" % blocked), port=p.http)
    w.wait_stderr(r"error: no certificate for a\.example: cannot make .*blocked.*: Not a directory; see tls\.acme_directory")
    assert p.orders() == 0
    blocked.unlink()
    first(p, timeout=30)
    assert mode(blocked / "acme") == 0o700


def test_not_a_directory_url(ca, warp):
    p = ca()
    w = warp(conf(p).replace(p.url, p.url.replace("/dir", "/nothing")), port=p.http)
    w.wait_stderr(r"error: no certificate for a\.example: .*status 404.*; tls\.acme_url must be")


@pytest.mark.limit(40)
def test_stop_during_a_job(ca, warp):
    """The helper leaves with the master, at once; what it was told to prove is not proved any more."""
    p = ca(env={"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "15"})
    w = warp(conf(p), port=p.http)
    w.wait_stderr("proving it with http-01")
    w.stop(timeout=5 * lib.SLOW)


def test_reload_during_a_job(ca, warp):
    """Other names end the job that runs; without names nothing is asked any more."""
    p = ca(env={"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "5"})
    w = warp(conf(p), port=p.http)
    w.wait_stderr("a.example: proving it with http-01")
    w.write(conf(p, "b.example"))
    w.signal(signal.SIGHUP)
    w.wait_stderr("b.example: proving it with http-01")
    w.write("[[routes]]\nrespond = { status = 200 }\n")
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded, generation 3")
    lib.eventually(lambda: len(w.children()) == 1, "only the worker is left")


@pytest.mark.limit(60)
def test_helper_dies(ca, warp):
    p = ca(env={"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "3"})
    w = warp(conf(p), port=p.http)
    pid = int(w.wait_stderr(r"acme\[(\d+)\] info: a\.example: proving")[1])
    os.kill(pid, signal.SIGKILL)
    w.wait_stderr(r"error: no certificate for a\.example: the helper died")
    first(p, timeout=40)


@pytest.mark.limit(40)
def test_upgrade_during_a_job(ca, warp):
    """The next binary begins it again."""
    p = ca(env={"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "3"})
    w = warp(conf(p), port=p.http)
    w.wait_stderr("proving it with http-01")
    w.signal(signal.SIGUSR2)
    w.wait_stderr(r"(?s)upgrade: starting.*proving it with http-01")
    first(p, timeout=30)
    assert p.orders() == 2


@pytest.mark.limit(60)
def test_certificate_cannot_be_written(ca, warp):
    """It is kept until it can: the CA is not asked for another one."""
    p = ca()
    w = warp(conf(p), port=p.http, preexec_fn=lambda: os.makedirs("acme/a.example.pem/x"))
    w.wait_stderr(r"error: no certificate for a\.example: cannot write .*/a\.example\.pem: Is a directory; .*kept in memory")
    shutil.rmtree(w.path("acme/a.example.pem"))
    first(p, timeout=30)
    assert p.orders() == 1 and p.count("Issued certificate") == 1


def test_account_key_is_none(ca, warp):
    """A file that holds something else is not touched."""
    p = ca()

    def put():
        os.mkdir("acme")
        with open("acme/account.key", "w") as f:
            f.write("my diary")
    w = warp(conf(p), port=p.http, preexec_fn=put)
    w.wait_stderr(r"error: no certificate for a\.example: .*/account\.key holds no key of P-256 \(PEM\)")
    with open(w.path("acme/account.key")) as f:
        assert f.read() == "my diary"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_unprivileged(ca, warp):
    """The helper is nobody, the files are the master's."""
    p = ca(env={"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "2"})
    w = warp(conf(p).replace("[server]", '[server]\nuser = "nobody"'), port=p.http)
    pid = w.wait_stderr(r"acme\[(\d+)\] info: a\.example: proving")[1]
    with open("/proc/%s/status" % pid) as f:
        uids = re.search(r"(?m)^Uid:\s+(.*)$", f.read())[1].split()
    assert "0" not in uids
    opened = {os.readlink("/proc/%s/fd/%s" % (pid, n)) for n in os.listdir("/proc/%s/fd" % pid)}
    assert not [o for o in opened if "acme" in o or "memfd" in o], opened
    first(p, timeout=20)
    assert os.stat(w.path("acme/a.example.pem")).st_uid == 0


def test_other_ca(ca, warp, tmp_path):
    """Whoever has tried with one CA and goes on to another gets a certificate of that at once."""
    p = ca()
    w = warp(conf(p), port=p.http)
    first(p)
    with acme.Front(p) as front:
        w.write(conf(p).replace(p.url, front.url))
        w.signal(signal.SIGHUP)
        w.wait_stderr(r"(?s)new certificate for a\.example.*new certificate for a\.example")
        assert ("GET", "/dir", None) in front.asked and p.orders() == 2
        w.signal(signal.SIGHUP)
        w.wait_stderr("reloaded, generation 3")
        w.stop()
    assert p.orders() == 2


def ari_id(pem):
    """As RFC 9773 4.1 makes it."""
    text = subprocess.run(["openssl", "x509", "-in", pem, "-noout", "-serial", "-ext", "authorityKeyIdentifier"],
                          check=True, capture_output=True, text=True).stdout
    serial = bytes.fromhex(re.search(r"serial=(\w+)", text)[1])
    key = bytes.fromhex(re.search(r"(?:keyid:|\s)((?:[0-9A-F]{2}:){19}[0-9A-F]{2})", text)[1].replace(":", ""))
    return acme.b64url(key) + "." + acme.b64url(b"\0" * (serial[0] >> 7) + serial)


@pytest.mark.limit(40)
def test_renewal_info_and_rate_limit(ca, warp):
    """The CA suggests a window that is over: renewed at once, `replaces` says which one; a rate limit is obeyed."""
    p = ca()
    with acme.Front(p) as front:
        w = warp(conf(p).replace(p.url, front.url), port=p.http)
        first(p)
        w.stop()
        front.directory.update(renewalInfo=front.place("/renewal"), newOrder=front.place("/order"))
        front.answers["/renewal"] = (200, {"Retry-After": "3600"}, {
            "suggestedWindow": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T01:00:00.5+01:00"}})
        front.answers["/order"] = (429, {"Retry-After": "4000"}, {
            "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\n certificates already"})
        again = warp(conf(p).replace(p.url, front.url), port=p.http, dir=w.dir)
        line = again.wait_stderr(r"error: no certificate for a\.example: the CA says: too many  certificates already "
                                 r"\(rateLimited\); .*; next try in (\d+) s, the present one stays in use")
        assert int(line[1]) == 4000
        id = ari_id(w.path("acme/a.example.pem"))
        assert ("GET", "/renewal/" + id, None) in front.asked
        assert [x[2] for x in front.asked if x[1] == "/order"] == [
            {"identifiers": [{"type": "dns", "value": "a.example"}], "replaces": id}]
        assert serial(p)


BAD = {
    "500": ((500, {}, {}), r"the CA answers for its directory with status 500"),
    "a problem": ((503, {"Retry-After": "77"}, {"type": "urn:ietf:params:acme:error:serverInternal", "detail": "at lunch"}),
                  r"the CA says: at lunch \(serverInternal\); .*next try in 77 s"),
    "no JSON": ((200, {}, "hello"), r"answers for its directory with status 200 and nothing that can be used"),
    "no URLs": ((200, {}, {"newNonce": 1}), r"nothing that can be used"),
    "http URL": ((200, {}, {"newNonce": "http://127.0.0.1/n", "newAccount": "http://127.0.0.1/a", "newOrder": "http://x/"}),
                 r"names 'http://127\.0\.0\.1/n' as the place to go on, which is no https URL"),
    "no HTTP": (b"220 mail.example ESMTP\r\n\r\n", r"127\.0\.0\.1 does not speak HTTP"),
    "cut short": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", r"127\.0\.0\.1 .*: it closed the connection"),
    "nothing": (b"", r"127\.0\.0\.1 does not answer: it closed the connection"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", r"does not say how long its answer is"),
    "bad chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", r"answers with malformed chunks"),
    "too long": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300000, r"answers with more than 262144 bytes"),
    "a long head": (b"HTTP/1.1 200 OK\r\n" + b"X-Y: %s\r\n" % (b"z" * 300000), r"answers with more than 262144 bytes"),
}


@pytest.mark.parametrize("why", BAD)
def test_bad_answers(ca, warp, why):
    p = ca()
    answer, line = BAD[why]
    with acme.Front(p) as front:
        front.answers["/dir"] = answer
        w = warp(conf(p).replace(p.url, front.url), port=p.http)
        w.wait_stderr(r"error: no certificate for a\.example: .*" + line)
        w.stop()
