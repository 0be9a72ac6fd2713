"""TLS towards clients: handshakes, certificates, resumption, client certificates, floods; then what HTTP
must not notice of it: records, bodies, tunnels, ends that are none, memory."""
import asyncio
import hashlib
import os
import re
import resource
import signal
import socket
import ssl
import threading
import time

import pytest

import lib
import tls
from lib import (BODY, ECHO, FIN, HEAD, REQ, RST, SANITIZED, SLOW, TIMEOUT, UPGRADE, chunks, conf, connect, eventually, reply,
                 request)
from supervised import reload

MB = 1 << 20
V = ssl.TLSVersion


# ---- handshakes -----------------------------------------------------------------

@pytest.fixture(scope="module")
def both(pki):
    """An EC and an RSA certificate for one name."""
    return pki.cert("a.example"), pki.cert("a.example", key="rsa")


@pytest.mark.parametrize("suite", tls.ECDSA + tls.RSA)
def test_suites(https, both, suite):
    w = https(*both)
    with w.tls(ciphers=suite) as c:
        assert c.cipher == suite
        assert c.ask().text == "ok" and c.ask("/again").status == 200


@pytest.mark.parametrize("key, curve, offered", [
    ("rsa", "X25519", "X25519"), ("rsa", "P-256", "P-256"), ("rsa", "P-384", "P-384"), ("rsa", "P-521", "P-521"),
    ("p256", "P-256", "P-256"), ("p256", "P-256", "P-521:P-256"), ("p384", "P-384", "P-384"), ("p384", "X25519", "X25519:P-384")])
def test_curves(https, pki, key, curve, offered):
    """Of the exchange; an EC certificate's own has to be offered too."""
    w = https(pki.cert("a.example", key=key))
    out = tls.s_client(w.https, "-curves", offered, "-CAfile", pki.root, "-verify_return_error", ok=True)
    want = {"P-256": "prime256v1|P-256", "P-384": "secp384r1|P-384", "P-521": "secp521r1|P-521"}.get(curve, curve)
    assert re.search(want, tls.fact(out, "Server Temp Key"))
    assert "Verify return code: 0" in out and "Secure Renegotiation IS supported" in out
    assert "Compression: NONE" in out


def test_no_curve_in_common(https, pki):
    w = https(pki.cert("a.example", key="rsa"))
    tls.s_client(w.https, "-curves", "X448", ok=False)
    assert w.tls().ask().text == "ok"


@pytest.mark.parametrize("key", ["p256", "p384", "rsa"])
@pytest.mark.parametrize("form", ["pkcs8", "traditional"])
def test_keys(https, pki, key, form):
    cert = pki.cert("a.example", key=key)
    w = https(cert._replace(key=pki.key_as(cert, form)))
    with w.tls() as c:
        assert c.ask().text == "ok" and c.serial == tls.serial(cert)


def test_key_behind_its_parameters(https, pki):
    cert = pki.cert("a.example")
    w = https(cert._replace(key=pki.key_as(cert, "params")))
    assert w.tls().ask().text == "ok"


def test_key_and_chain_in_one_file(https, pki, tmp_path):
    """Text between the objects, CRLF, no newline at the end: as people have them."""
    cert = pki.cert("a.example", by="root/middle")
    text = "the key:\n" + open(cert.key).read() + "and the chain\n" + open(cert.cert).read()
    one = tmp_path / "one.pem"
    one.write_bytes(text.strip().replace("\n", "\r\n").encode())
    one.chmod(0o600)
    w = https(tls=dict(cert=str(one)))
    assert w.tls().ask().text == "ok"


def test_intermediate(https, pki):
    """The whole chain is sent, leaf first; without the one in between nobody can verify."""
    good, lone = pki.cert("a.example", by="root/middle"), pki.cert("a.example", by="root/middle", whole=False)
    w = https(good)
    out = tls.s_client(w.https, "-showcerts", "-CAfile", pki.root, ok=True)
    assert out.count("BEGIN CERTIFICATE") == 2 and "Verify return code: 0" in out
    w = https(lone)
    with pytest.raises(ssl.SSLCertVerificationError):
        w.tls()


@pytest.mark.promise("S2-57")
def test_https_port(warp, pki):
    cert, port = pki.cert("a.example"), lib.free_port()
    site = tls.site(port, cert, server={"https_port": port})
    del site["server"]["https_listen"]
    warp(site)
    with tls.Client(port, tls.context(pki.root)) as c:
        assert c.ask().text == "ok"


def test_listen_with_a_scheme(warp, pki):
    cert, port = pki.cert("a.example"), lib.free_port()
    site = tls.site(port, cert, server={"listen": ["127.0.0.1:@PORT@", "https://127.0.0.1:%d" % port]})
    del site["server"]["https_listen"]
    w = warp(site)
    with tls.Client(port, tls.context(pki.root)) as c:
        assert c.ask().text == "ok"
    assert w.ask().status in (200, 308)


REFUSED = {
    "TLS 1.0": ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
    "TLS 1.1": ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    "CBC": ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA256"],
    "static RSA": ["-tls1_2", "-cipher", "AES128-GCM-SHA256:AES128-SHA"],
}


@pytest.mark.parametrize("what", REFUSED)
def test_old_is_refused(https, both, what):
    w = https(*both)
    out = tls.s_client(w.https, *REFUSED[what], ok=False)
    assert re.search(r"alert (protocol version|handshake failure)|wrong version number", out), out
    assert w.tls().ask().text == "ok"


@pytest.mark.parametrize("what", REFUSED)
def test_old_is_accepted_with_legacy(https, both, what):
    w = https(*both, tls=dict(legacy=True))
    out = tls.s_client(w.https, *REFUSED[what], ok=True)
    assert tls.fact(out, "Protocol *") == {"TLS 1.0": "TLSv1", "TLS 1.1": "TLSv1.1"}.get(what, "TLSv1.2"), out
    with w.tls() as c:
        assert c.cipher in tls.ECDSA + tls.RSA, "a new client is given a new suite"


@pytest.mark.parametrize("suite", ["NULL", "aNULL", "3DES", "RC4", "PSK", "kDHE"])
def test_never(https, both, suite):
    """What legacy does not bring either."""
    w = https(*both, tls=dict(legacy=True))
    out = tls.s_client(w.https, "-tls1_2", "-cipher", suite + ":@SECLEVEL=0")
    assert not tls.shaken(out) or suite == "3DES", out


def test_tls13_client_falls_back(https, both):
    """A client that could do 1.3 as well; and no sign of a downgrade attack in the random."""
    w = https(*both)
    ctx = tls.context(None)
    ctx.maximum_version = V.MAXIMUM_SUPPORTED
    with w.tls(ctx=ctx) as c:
        assert c.sock.version() == "TLSv1.2" and c.ask().text == "ok"
    ctx.minimum_version = V.TLSv1_3
    with pytest.raises(ssl.SSLError, match="(?i)protocol.version|handshake.failure"):
        w.tls(ctx=ctx)


@pytest.mark.parametrize("offer, got", [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (None, None),
                                        (["x" * 255, "http/1.1"], "http/1.1")])
def test_alpn(https, both, offer, got):
    w = https(*both)
    with w.tls(alpn=offer) as c:
        assert c.sock.selected_alpn_protocol() == got and c.ask().text == "ok"


def test_alpn_of_curl(https, both, pki):
    """A client that would like HTTP/2 gets HTTP/1.1."""
    w = https(*both)
    import subprocess
    p = subprocess.run(["curl", "-sS", "--http2", "--cacert", pki.root, "--resolve", "a.example:%d:127.0.0.1" % w.https,
                        "-w", " %{http_version}", "https://a.example:%d/" % w.https], capture_output=True, text=True)
    assert (p.stdout, p.returncode) == ("ok 1.1", 0), p.stderr


def test_renegotiation_is_refused(https, both):
    w = https(*both)
    out = tls.s_client(w.https, "-tls1_2", input=b"R\n", ok=True)
    assert "RENEGOTIATING" in out and re.search("(?i)no.renegotiation", out), out
    assert w.tls().ask().text == "ok"


# ---- which certificate ----------------------------------------------------------

@pytest.fixture(scope="module")
def zoo(pki):
    """The first is the default."""
    return {"default": pki.cert("first.example"), "wild": pki.cert("*.a.example", n=1), "exact": pki.cert("www.a.example", n=2),
            "many": pki.cert("x.example", "y.example", "*.y.example", n=3)}


SNI = [(None, "default"), ("first.example", "default"), ("nobody.example", "default"), ("www.a.example", "exact"),
       ("WWW.a.Example", "exact"), ("shop.a.example", "wild"), ("a.example", "default"), ("b.c.a.example", "default"),
       ("x.example", "many"), ("y.example", "many"), ("z.y.example", "many"), ("z.x.example", "default"),
       ("a" * 60 + "." + "b" * 60 + "." + "c" * 60 + "." + "d" * 60, "default")]


def test_sni(https, pki, zoo):
    """Exact before wildcard, which covers one label; nobody or a stranger: the first."""
    w = https(*zoo.values())
    for name, want in SNI:
        out = tls.s_client(w.https, name=name, ok=True)
        pem = re.search("(?s)-----BEGIN CERT.*?END CERTIFICATE-----", out)[0]
        got = tls.openssl("x509", "-noout", "-serial", input=pem.encode()).strip().partition("=")[2]
        assert got == tls.serial(zoo[want]), "%s: not %s" % (name, want)


def test_sni_order_does_not_matter(https, zoo):
    """The exact one wins wherever it stands."""
    w = https(zoo["exact"], zoo["wild"], zoo["default"])
    with w.tls("www.a.example") as c:
        assert c.serial == tls.serial(zoo["exact"])
    with w.tls("foo.a.example") as c:
        assert c.serial == tls.serial(zoo["wild"])


def test_strict_sni(https, zoo):
    w = https(*zoo.values(), tls=dict(strict_sni=True))
    for name, want in SNI:
        known = want != "default" or name == "first.example"
        out = tls.s_client(w.https, name=name)
        if name:
            assert tls.shaken(out) == known, name
            assert known or "unrecognized name" in out, out
    for c in (w.tls("x.example"),):
        assert c.ask(host="x.example").text == "ok"


@pytest.mark.parametrize("order", [1, -1])
def test_ec_and_rsa_side_by_side(https, both, order):
    w = https(*both[::order])
    for suites, cert in ((tls.ECDSA, both[0]), (tls.RSA, both[1])):
        with w.tls(ciphers=":".join(suites)) as c:
            assert c.serial == tls.serial(cert) and c.cipher in suites
    with w.tls() as c:
        assert c.cipher in tls.ECDSA, "who can do both is given the quick one"


def test_nothing_in_common(https, pki):
    w = https(pki.cert("a.example"))
    for how in (dict(ciphers=tls.RSA[0]), dict(ciphers="AES128-GCM-SHA256")):
        with pytest.raises(ssl.SSLError, match="(?i)handshake.failure"):
            w.tls(**how)
    assert w.tls().ask().text == "ok"


def test_misdirected(https, zoo):
    """421 for a host that the certificate does not name, with strict_sni only."""
    w = https(*zoo.values(), tls=dict(strict_sni=True))
    with w.tls("x.example") as c:
        for host, status in (("x.example", 200), ("y.example", 200), ("Y.example:%d" % w.https, 200), ("z.y.example", 200),
                             ("www.a.example", 421), ("first.example", 421), ("nobody.example", 421), ("x.example", 200)):
            assert c.ask(host=host).status == status, host
    w = https(*zoo.values())
    with w.tls("x.example") as c:
        assert c.ask(host="first.example").status == 200


# ---- resumption -----------------------------------------------------------------

def fresh(w, ctx, **kw):
    """A session that was made by a whole handshake."""
    with w.tls(ctx=ctx, **kw) as c:
        assert not c.resumed and c.ask().status == 200
        assert c.sock.session.id
        return c.sock.session


def again(w, ctx, session, **kw):
    with w.tls(ctx=ctx, session=session, **kw) as c:
        assert c.ask().status == 200
        return c.resumed


def test_resumption(https, both, pki, tmp_path):
    w = https(*both)
    file = str(tmp_path / "session")
    out = tls.s_client(w.https, "-no_ticket", "-tls1_2", "-sess_out", file, ok=True)
    assert "New, TLSv1.2" in out and len(tls.fact(out, "Session-ID")) == 64
    for _ in range(3):
        assert "Reused, TLSv1.2" in tls.s_client(w.https, "-no_ticket", "-tls1_2", "-sess_in", file, ok=True)
    ctx = tls.context(pki.root)
    session = fresh(w, ctx)
    assert all(again(w, ctx, session) for _ in range(20))


def test_resumption_keeps_the_suite(https, both, pki):
    w = https(*both)
    for suite in tls.ECDSA + tls.RSA:
        ctx = tls.context(pki.root, ciphers=suite)
        assert again(w, ctx, fresh(w, ctx)), suite


def test_unknown_session_is_a_whole_handshake(https, both, pki):
    """One of another server, of another life: new session, no error."""
    ctx = tls.context(pki.root)
    session = fresh(https(*both), ctx)
    w = https(*both)
    assert not again(w, ctx, session)
    assert not again(w, ctx, session)


def test_no_session_cache(https, both, pki):
    w = https(*both, tls=dict(session_cache=0))
    ctx = tls.context(pki.root)
    with w.tls(ctx=ctx) as c:
        session = c.sock.session
        assert c.ask().text == "ok"
    for _ in range(3):
        with w.tls(ctx=ctx, session=session) as c:
            assert not c.resumed and c.ask().text == "ok"


def test_more_sessions_than_room(https, both, pki):
    """The newest is remembered; what was forgotten is only a whole handshake."""
    w = https(*both, tls=dict(session_cache=16))
    ctx = tls.context(pki.root)
    sessions = [fresh(w, ctx) for _ in range(40)]
    assert again(w, ctx, sessions[-1])
    assert sum(again(w, ctx, s) for s in sessions) < 40


@pytest.mark.limit(60)
def test_resumption_at_any_worker(https, both, pki):
    """60 of 60, while both workers serve; and at one that never saw this client."""
    w = https(*both, server=dict(worker_threads=2))
    ctx = tls.context(pki.root)
    before = {p: tls.sockets(p) for p in w.children()}
    first = w.tls(ctx=ctx)
    first.ask()
    mine = eventually(lambda: [p for p in before if tls.sockets(p) > before[p]], "who serves it")[0]
    session = first.sock.session
    assert all(again(w, ctx, session) for _ in range(60))
    lib.freeze(mine)          # whoever comes now is served by the other
    try:
        assert all(again(w, ctx, session) for _ in range(60))
        there = [fresh(w, ctx) for _ in range(5)]
    finally:
        os.kill(mine, signal.SIGCONT)
    for other in [p for p in w.children() if p != mine]:
        lib.freeze(other)
    try:
        assert all(again(w, ctx, s) for s in there)
    finally:
        for other in [p for p in w.children() if p != mine]:
            os.kill(other, signal.SIGCONT)
    first.close()


@pytest.mark.limit(60)
def test_resumption_across_reload_and_upgrade(https, both, pki):
    w = https(*both, server=dict(worker_threads=2))
    ctx = tls.context(pki.root)
    session = fresh(w, ctx)
    reload(w)
    assert all(again(w, ctx, session) for _ in range(10)), "after HUP"
    old = set(w.children())
    w.signal(signal.SIGUSR2)
    eventually(lambda: (now := set(w.children())) and not now & old, "new workers", 3 * TIMEOUT)
    assert all(again(w, ctx, session) for _ in range(10)), "after USR2"


# ---- client certificates --------------------------------------------------------

@pytest.fixture(scope="module")
def people(pki):
    return {"good": pki.cert(subject="/O=Warp Test/CN=alice"), "rsa": pki.cert(subject="/O=Warp Test/CN=bob", key="rsa"),
            "middle": pki.cert(subject="/O=Warp Test/CN=carol", by="root/clients"),
            "stranger": pki.cert(subject="/O=Warp Test/CN=mallory", by="nobody"),
            "self": pki.cert(subject="/O=Warp Test/CN=alice", by="self"),
            "expired": pki.cert(subject="/O=Warp Test/CN=alice", since=-60, days=30),
            "future": pki.cert(subject="/O=Warp Test/CN=alice", since=10)}


GOOD, BAD = ("good", "rsa", "middle"), ("stranger", "self", "expired", "future")


@pytest.fixture
def mtls(https, backend, pki):
    """A warp that asks for client certificates, before an app: (warp, app)."""
    def make(verify, **more):
        b = backend()
        return https(pki.cert("a.example"), conf=conf(app=b), tls=dict(client_ca_file=pki.root, client_verify=verify), **more), b
    return make


def seen(b):
    """The client's subject as the app is told of it."""
    return [v for n, v in b.last.fields if n.lower().replace("_", "-") == "x-client-cert-subject"]


@pytest.mark.parametrize("verify", ["require", "optional"])
@pytest.mark.parametrize("who", GOOD)
def test_client_certificate(mtls, people, verify, who):
    w, b = mtls(verify)
    with w.tls(cert=people[who]) as c:
        assert c.ask().status == 200
        assert len(seen(b)) == 1 and re.search("CN ?= ?(alice|bob|carol)", seen(b)[0]), b.last.fields
        c.ask("/again", "X-Client-Cert-Subject: CN=root", "x-client_cert_subject: CN=root")
        assert len(seen(b)) == 1 and "root" not in seen(b)[0], "only warp says who it is"


def test_no_client_certificate_required(mtls, people):
    w, b = mtls("require")
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        w.tls().ask()
    assert not b.requests and w.tls(cert=people["good"]).ask().status == 200


@pytest.mark.parametrize("who", BAD)
def test_bad_client_certificate_required(mtls, people, who):
    w, b = mtls("require")
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        w.tls(cert=people[who]).ask()
    assert not b.requests
    w.wait_stderr({"expired": "(?i)expired", "future": "(?i)expired|not valid"}.get(who, "(?i)not trusted|unknown|issuer"))
    assert w.tls(cert=people["good"]).ask().status == 200


def test_no_client_certificate_optional(mtls):
    w, b = mtls("optional")
    with w.tls() as c:
        assert c.ask("/", "X-Client-Cert-Subject: CN=alice", "X_Client_Cert_Subject: CN=alice").status == 200
        assert seen(b) == []


@pytest.mark.parametrize("who", BAD)
def test_bad_client_certificate_optional(mtls, people, who):
    """It counts for nothing: either the handshake fails, or the app hears of nobody."""
    w, b = mtls("optional")
    try:
        with w.tls(cert=people[who]) as c:
            assert c.ask().status in (200, 400, 403, 496)
    except ssl.SSLError:
        pass
    assert not b.requests or seen(b) == []


def test_spoofed_subject(https, backend, both):
    """Dropped on a plain listener, and where no client is asked for a certificate."""
    b = backend()
    w = https(*both, conf=conf(app=b), tls=dict(redirect=False))
    for c in (w.tls(), w.client()):
        with c:
            assert c.ask("/", "X-Client-Cert-Subject: CN=alice", "X_Client_Cert_Subject: CN=a").status == 200
            assert seen(b) == []


def test_subjects_that_are_not_header_text(mtls, pki):
    """No subject breaks the request's head; quoting is whoever's, a line end is nobody's."""
    w, b = mtls("require")
    for subject in ("/O=Warp Test/CN=a\\, b\\; \"c\" <d>", "/O=W\u00e4rp/CN=\u00e9\u20ac", "/O=x/CN=a\nX-Admin: 1"):
        try:
            cert = pki.cert(subject=subject)
        except AssertionError:
            continue                        # openssl itself will not have it
        with w.tls(cert=cert) as c:
            assert c.ask().status == 200
        assert not b.last.has("X-Admin")


def test_client_certificate_by_an_intermediate(mtls, people, pki):
    """The client sends the chain; without it nothing leads to the root."""
    w, b = mtls("require")
    lone = pki.cert(subject="/O=Warp Test/CN=dave", by="root/clients", whole=False)
    with pytest.raises(ssl.SSLError):
        w.tls(cert=lone).ask()
    assert w.tls(cert=people["middle"]).ask().status == 200


def test_client_authorities_are_named(mtls):
    w, _ = mtls("optional")
    out = tls.s_client(w.https)
    assert re.search("(?s)Acceptable client certificate CA names.*root authority", out), out


def test_resumption_is_no_way_past(mtls, people, pki):
    """A session made without a certificate, or with another one, says nobody's name."""
    w, b = mtls("optional")
    nobody = tls.context(pki.root)
    session = fresh(w, nobody)
    again(w, nobody, session)
    assert seen(b) == []
    alice = tls.context(pki.root, cert=people["good"])
    session = fresh(w, alice)
    assert "alice" in seen(b)[0]
    with w.tls(ctx=alice, session=session) as c:
        c.ask("/again")
        assert c.resumed and seen(b) == [] or "alice" in seen(b)[0], "who resumes is who it was, or nobody"


def test_resumption_of_a_required_client(mtls, people, pki):
    """A resumed session carries who it was, or is not resumed at all."""
    w, b = mtls("require")
    alice = tls.context(pki.root, cert=people["good"])
    session = fresh(w, alice)
    for _ in range(3):
        assert again(w, alice, session) in (True, False)
        assert "alice" in seen(b)[0]


def test_sessions_end_with_the_rules(https, backend, both, people, pki):
    """One made before clients were asked for certificates does not lead past them after a reload."""
    b = backend()
    w = https(*both, conf=conf(app=b))
    ctx = tls.context(pki.root)
    session = fresh(w, ctx)
    reload(w, lib.toml_file(w.site(*both, tls=dict(client_ca_file=pki.root, client_verify="require"))))
    n = len(b.requests)
    with pytest.raises(ssl.SSLError):
        w.tls(ctx=ctx, session=session).ask()
    assert len(b.requests) == n
    assert w.tls(cert=people["good"]).ask().status == 200


# ---- what is no TLS -------------------------------------------------------------

@pytest.mark.parametrize("bytes", [request(), request(method="POST", body=b"x" * 100), b"HEAD / HTTP/1.0\r\n\r\n"])
def test_plain_http_gets_a_plain_400(https, both, bytes):
    w = https(*both)
    with lib.Client(w.https) as c:
        c.send(bytes)
        m = c.response(method=bytes.decode().split()[0])
        assert m.status == 400 and "close" in m.tokens("connection")
        assert c.closed() in ("eof", "reset")
    assert w.tls().ask().text == "ok"


GARBAGE = {
    "zeros": bytes(600), "noise": bytes(range(128, 256)) * 8, "sslv2": b"\x80\x2e\x01\x00\x02" + bytes(43),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n", "huge record": b"\x16\x03\x01\xff\xff" + bytes(70000), "empty records": b"\x16\x03\x01\0\0" * 400,
    "alert": b"\x15\x03\x01\0\x02\x02\x28", "data": b"\x17\x03\x03\0\x10" + bytes(16), "no version": b"\x16\x00\x00\0\x05" + bytes(5),
    "hello of 16 MB": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03" + bytes(16377),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage(https, both, what):
    w = https(*both, server=dict(header_timeout_secs=0.6))
    with connect(w.https) as s:
        try:
            s.sendall(GARBAGE[what])
        except ConnectionError:
            pass
        tls.records(s)
    assert w.tls().ask().text == "ok"


def test_broken_hellos(https, both):
    """A good hello with each byte in turn changed, and cut short: an answer or an end, and warp lives."""
    w = https(*both, server=dict(header_timeout_secs=0.5))
    good = tls.hello()
    for i in range(0, len(good), 3):
        with connect(w.https) as s:
            s.sendall(good[:i] + bytes([good[i] ^ 0x55]) + good[i + 1:])
    for i in range(1, len(good), 20):
        with connect(w.https) as s:
            s.sendall(good[:i])
            s.shutdown(socket.SHUT_WR)
            assert tls.records(s)[-1][0] in ("eof", "reset")
    assert w.tls().ask().text == "ok"


@pytest.mark.parametrize("split", [1, 5, 50])
def test_hello_in_pieces(https, both, pki, split):
    """Split over TCP segments, and the handshake message over records."""
    w = https(*both)
    good = tls.hello()
    body = good[5:]
    many = b"".join(good[:3] + len(body[i:i + split]).to_bytes(2, "big") + body[i:i + split] for i in range(0, len(body), split))
    with connect(w.https) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(many)
        first = s.recv(5)
        assert first[:1] == b"\x16", "a ServerHello, not %r" % first
    with connect(w.https) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(good), split):
            s.sendall(good[i:i + split])
        assert s.recv(1) == b"\x16"


def trickle(s, data, until):
    """Sends it byte by byte, as long as nothing comes back and the time has not come."""
    for b in data:
        try:
            s.sendall(bytes([b]))
        except ConnectionError:
            return
        if tls.readable(s, 0.1) or time.monotonic() > until:
            return


@pytest.mark.parametrize("how", ["silent", "half a hello", "hello", "trickle"])
def test_half_open_handshake_times_out(https, both, how):
    """header_timeout counts from accept; bytes that trickle in do not prolong it."""
    w = https(*both, server=dict(header_timeout_secs=1))
    good = tls.hello()
    started = time.monotonic()
    with connect(w.https) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(2 * TIMEOUT)
        if how in ("half a hello", "hello"):
            s.sendall(good if how == "hello" else good[:100])
        trickle(s, good * (how == "trickle"), started + 5 * SLOW)
        got = tls.records(s, 2 * TIMEOUT)
    took = time.monotonic() - started
    assert got[-1][0] in ("eof", "reset") and 0.7 < took < 1 + 2 * SLOW, took
    assert w.tls().ask().text == "ok"


@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["at once", "behind an empty line"])
def test_a_record_that_trickles_times_out(https, both, before):
    """Its bytes prolong nothing."""
    w = https(*both, server=dict(header_timeout_secs=1))
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = tls.context().wrap_bio(into, out, server_hostname="a.example")
    with connect(w.https) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                o.do_handshake()
                break
            except ssl.SSLWantReadError:
                s.sendall(out.read())
                into.write(s.recv(65536))
        o.write(before)
        s.sendall(out.read())
        started = time.monotonic()
        o.write(request("/", "X: " + "y" * 1000))
        trickle(s, out.read(), started + 5 * SLOW)
    assert time.monotonic() - started < 1 + 2 * SLOW


def test_no_request_after_the_handshake(https, both):
    """The header timeout as on a plain connection, then a clean end: 408 or nothing, and close_notify."""
    w = https(*both, server=dict(header_timeout_secs=1))
    with w.tls() as c:
        c.send(b"GET / HT")
        m = c.rest(2 * TIMEOUT)
        assert not m or m.startswith(b"HTTP/1.1 408")


@pytest.fixture
def files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.limit(60)
@pytest.mark.parametrize("hello", ["a hello each", "not a byte"])
@pytest.mark.parametrize("room", [1024, 5000])
def test_handshake_flood(https, both, files, hello, room):
    """2000 that began a handshake and stop there: a good client is served all the same, in bounded memory."""
    w = https(*both, server=dict(max_connections=room))
    with w.tls() as old:
        assert old.ask().text == "ok"
        before, flood, good = w.rss(), [], tls.hello() if hello == "a hello each" else b""
        try:
            for i in range(2000):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", w.https))
                flood.append(s)
                if i % 50 == 49:
                    assert old.ask(timeout=2 * TIMEOUT).text == "ok", "an open connection is served meanwhile"
                    for x in flood[-50:]:
                        try:
                            x.send(good)
                        except OSError:
                            pass
            started = time.monotonic()
            with w.tls() as c:
                assert c.ask().text == "ok"
            took = time.monotonic() - started
            assert took < 5 * SLOW, "a new client waits %.1f s" % took
            grown = w.rss() - before
            assert SANITIZED or grown < 24 * MB, "%.1f MB for 2000 handshakes" % (grown / MB)
        finally:
            for s in flood:
                s.close()
        assert old.ask().text == "ok"
    eventually(lambda: w.tls().ask().text == "ok")


# ---- HTTP over it ---------------------------------------------------------------

def test_keep_alive_and_pipelining(https, backend, both):
    """Many requests in one record; one byte per record; a request over many records."""
    b = backend()
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        c.send(b"".join(request("/p%d" % i, method="POST", body=b"x" * i) for i in range(20)))
        assert [c.response().text for _ in range(20)] == ["app POST /p%d %d" % (i, i) for i in range(20)]
        for byte in request("/slow", method="POST", body=b"hello"):
            c.send(bytes([byte]))
        assert c.response().text == "app POST /slow 5"
        for byte in b"".join(request("/q%d" % i) for i in range(3)):
            c.send(bytes([byte]))
        assert [c.response().text for _ in range(3)] == ["app GET /q%d 0" % i for i in range(3)]
        body = os.urandom(100000)
        raw = request("/many", "X-Long: " + "y" * 9000, method="POST", body=body)
        for i in range(0, len(raw), 777):
            c.send(raw[i:i + 777])
        assert c.response().text == "app POST /many 100000" and b.last.body == body
        c.bye()


def test_records_cut_on_the_wire(https, both):
    """Records that arrive by pieces of a few bytes, between which nothing comes."""
    w = https(*both)
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    ctx = tls.context()
    o = ctx.wrap_bio(into, out, server_hostname="a.example")
    with connect(w.https) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def pump(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    data = out.read()
                    for i in range(0, len(data), 7):
                        s.sendall(data[i:i + 7])
                        if i % 70 == 0:
                            time.sleep(0.001)
                    into.write(s.recv(3))
        pump(o.do_handshake)
        o.write(request("/a") + request("/b", "Connection: close"))
        got = b""
        try:
            while got.count(b"HTTP/1.1 200") < 2 or not got.endswith(b"ok"):
                got += pump(lambda: o.read(65536))
        except ssl.SSLZeroReturnError:
            pass
        assert got.count(b"HTTP/1.1 200") == 2


def test_100_continue(https, backend, both):
    b = backend([HEAD, b"HTTP/1.1 100 Continue\r\n\r\n", BODY, reply("taken"), ECHO])
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        c.send(request("/up", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert c.interim().status == 100
        assert c.send(b"hello").response().text == "taken"
        assert c.ask("/next").text == "app GET /next 0"


def test_head_and_no_content(https, backend, both):
    heads = {"/head": b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "/none": b"HTTP/1.1 204 No Content\r\n\r\n",
             "/same": b"HTTP/1.1 304 Not Modified\r\n\r\n", "/last": reply("whole")}

    def answer(c):
        while True:
            c.send(heads[c.request().target])
    b = backend([answer])
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        m = c.ask("/head", method="HEAD")
        assert (m.status, m.get("Content-Length"), m.body) == (200, "1234", b"")
        assert c.ask("/none").status == 204
        assert c.ask("/same").status == 304
        assert c.ask("/last").text == "whole"


def test_events_pass_at_once(https, backend, both):
    """SSE: no event waits in a record for the next one."""
    tick = threading.Semaphore(0)

    def events(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            assert tick.acquire(timeout=TIMEOUT)
            c.send(chunks(b"data: %d\n\n" % i, last=False))
        c.send(chunks())
    w = https(*both, conf=conf(app=backend([REQ, events])))
    with w.tls() as c:
        c.send(request("/events"))
        assert c.head(TIMEOUT).get("Content-Type") == "text/event-stream"
        for i in range(5):
            tick.release()
            c.until(b"data: %d\n\n" % i, TIMEOUT)
        c.until(b"0\r\n\r\n", TIMEOUT)
        assert c.is_open()


def test_upload_passes_as_it_comes(https, backend, both):
    b = backend([HEAD, BODY, reply("done"), ECHO])
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        c.send(request("/up", "Transfer-Encoding: chunked", method="POST"))
        eventually(lambda: b.conns and b.conns[0].requests, "the head upstream at once")
        for i in range(4):
            c.send(chunks(b"piece-%d" % i, last=False))
            eventually(lambda: b"piece-%d" % i in b.conns[0].raw, "piece %d" % i)
        assert c.send(chunks()).response().text == "done"


def test_answer_while_the_upload_runs(https, backend, both):
    """The answer passes although the client sends and the app does not read: one direction never waits for the other."""
    go = threading.Event()
    b = backend([HEAD, reply("enough", "Connection: close", status="403 Forbidden"), lib.WAIT(go)], rcvbuf=4096)
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        c.send(request("/up", "Content-Length: 100000000", method="POST") + bytes(20000))
        m = c.response()
        assert (m.status, m.text) == (403, "enough")
    go.set()


class Stream:
    """n pseudo-random bytes, and their checksum: every block differs."""

    def __init__(self, n, seed=os.urandom(MB)):
        self.n, self.seed, self.sum = n, seed, hashlib.sha256()

    def __iter__(self):
        for i in range(0, self.n, MB):
            block = (i.to_bytes(8, "big") + self.seed[8:])[:min(MB, self.n - i)]
            self.sum.update(block)
            yield block


def download(n):
    """A script that answers with n bytes, and the Stream it takes them from."""
    s = Stream(n)

    def step(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
        for block in s:
            c.send(block)
    return [REQ, step, ECHO], s


def take(c, n, pause=0):
    """Reads n body bytes behind c's head: their checksum."""
    got, sum = len(c.buf), hashlib.sha256(c.buf)
    c.buf, reads = b"", 0
    c.sock.settimeout(2 * TIMEOUT)
    while got < n:
        piece = c.sock.recv(min(65536, n - got))
        assert piece, "ended after %d of %d" % (got, n)
        got += len(piece)
        sum.update(piece)
        reads += 1
        if pause and reads % 64 == 0:
            time.sleep(pause)
    return sum.digest()


@pytest.mark.limit(90)
@pytest.mark.parametrize("n, rcvbuf, pause", [(200 * MB, 131072, 0.001), (8 * MB, 4096, 0.002)])
def test_big_download_by_a_slow_reader(https, backend, both, n, rcvbuf, pause):
    script, s = download(n)
    w = https(*both, conf=conf(app=backend(script, record=False)))
    before = w.rss()
    with w.tls(rcvbuf=rcvbuf) as c:
        c.send(request())
        assert c.head(TIMEOUT).status == 200
        assert take(c, n, pause) == s.sum.digest()
        assert SANITIZED or w.rss() - before < 3 * MB
        assert c.ask("/next").text == "app GET /next 0"


def swallow(sums, pause=0):
    """A script that reads a body of Content-Length slowly and notes its checksum."""
    def step(c):
        m = c.begin()
        sums.append(take(c, int(m.get("content-length")), pause))
        c.send(reply("taken"))
    return [step, ECHO]


@pytest.mark.limit(90)
@pytest.mark.parametrize("n, rcvbuf, pause", [(200 * MB, 131072, 0.001), (8 * MB, 4096, 0.002)])
def test_big_upload_to_a_slow_reader(https, backend, both, n, rcvbuf, pause):
    sums, s = [], Stream(n)
    w = https(*both, conf=conf(app=backend(swallow(sums, pause), record=False, rcvbuf=rcvbuf)))
    before = w.rss()
    with w.tls() as c:
        c.send(request("/up", "Content-Length: %d" % n, method="POST"))
        c.sock.settimeout(4 * TIMEOUT)
        for block in s:
            c.sock.sendall(block)
        assert c.response(timeout=4 * TIMEOUT).text == "taken"
        assert sums == [s.sum.digest()]
        assert SANITIZED or w.rss() - before < 3 * MB
        assert c.ask("/next").text == "app GET /next 0"


@pytest.mark.limit(60)
def test_both_ways_at_once(https, backend, both):
    """An app that answers while it reads: 20 MB each way on one connection, without a deadlock."""
    n = 20 * MB

    def echo(c):
        m = c.begin()
        left = int(m.get("content-length"))
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left:
            piece = c.buf or c.sock.recv(65536)
            c.buf = b""
            assert piece
            left -= len(piece)
            c.send(piece)
    w = https(*both, conf=conf(app=backend([echo, ECHO], record=False)))
    s = Stream(n)
    # two threads on one SSL socket would have to share a lock: sent and read by turns, and never more than fits
    with w.tls() as c:
        c.send(request("/echo", "Content-Length: %d" % n, method="POST"))
        got, sum, todo = 0, hashlib.sha256(), b"".join(s)
        at, head = 0, False
        c.sock.setblocking(False)
        end = time.monotonic() + 8 * TIMEOUT
        while got < n:
            assert time.monotonic() < end, "%d of %d sent, %d back" % (at, n, got)
            moved = False
            if at < n:
                try:
                    at += c.sock.send(todo[at:at + 16384])
                    moved = True
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    pass
            try:
                piece = c.sock.recv(65536)
                assert piece
                moved = True
                if not head:
                    c.buf += piece
                    h, mark, rest = c.buf.partition(b"\r\n\r\n")
                    head, piece = bool(mark), rest
                got += len(piece)
                sum.update(piece)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            if not moved:
                tls.select.select([c.sock], [c.sock] if at < n else [], [], 1)
        assert sum.digest() == s.sum.digest()


# ---- ends -----------------------------------------------------------------------

def test_clean_ends(https, backend, both):
    """Connection: close ends with close_notify; so does a client's goodbye."""
    w = https(*both, conf=conf(app=backend()))
    with w.tls() as c:
        assert c.ask("/", "Connection: close").status == 200
        assert c.closed() == "eof"
    with w.tls() as c:
        assert c.ask().status == 200
        c.bye()
    with w.tls() as c:
        assert c.ask(version="1.0").status == 200
        assert c.closed() == "eof"


def test_idle_end_is_clean(https, both):
    w = https(*both, server=dict(keepalive_timeout_secs=0.5))
    with w.tls() as c:
        assert c.ask().status == 200
        assert c.closed() == "eof"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("how", ["fin", "rst", "close_notify"])
def test_client_gone_in_mid_upload(https, backend, both, framing, how):
    """The app never takes it for a whole body."""
    b = backend([HEAD, BODY, reply("whole?")], [ECHO])
    w = https(*both, conf=conf(app=b))
    c = w.tls()
    c.send(request("/up", "Content-Length: 100000" if framing == "length" else "Transfer-Encoding: chunked", method="POST"))
    c.send(b"x" * 1000 if framing == "length" else chunks(b"x" * 1000, last=False))
    eventually(lambda: b"x" * 1000 in b.conn(0).raw, "what was sent")
    if how == "close_notify":
        c.sock.settimeout(0.2)
        try:
            c.sock.unwrap()
        except OSError:
            pass
        c.close()
    elif how == "fin":
        c.sock.close()
    else:
        c.rst()
    assert b.conn(0).closed.wait(2 * TIMEOUT), "the app hears of it"
    assert not b.requests
    assert w.tls().ask().text == "app GET / 0"


TRUNCATED = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000, "FIN"),
    "length, reset": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000, "RST"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"x" * 5000, last=False), "FIN"),
    "until close, reset": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 5000, "RST"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("what", TRUNCATED)
def test_backend_gone_in_mid_answer(https, backend, both, what, version):
    """The client is never told a clean end."""
    head, end = TRUNCATED[what]
    there = threading.Event()
    b = backend([REQ, head, lib.WAIT(there), RST if end == "RST" else FIN])
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        c.send(request(version=version))
        m = c.head(TIMEOUT)
        eventually(lambda: c.buf.count(b"x") >= 5000 or not c.fill(TIMEOUT))
        there.set()
        try:
            while c.fill(2 * TIMEOUT):
                pass
            clean = True
        except (ssl.SSLError, ConnectionError):
            clean = False
        ended = m.has("transfer-encoding") and c.buf.endswith(b"0\r\n\r\n")
        assert not ended and not clean, "the client takes it for whole"


def test_until_close_ends_clean(https, backend, both):
    """What ends with the connection ends with close_notify, when the app did end it."""
    b = backend([REQ, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 50000, lib.CLOSE])
    w = https(*both, conf=conf(app=b))
    for version in ("1.1", "1.0"):
        with w.tls() as c:
            assert c.ask(version=version).body == b"x" * 50000
            assert not c.eof and c.is_open() or c.eof or c.closed() == "eof"


# ---- tunnels --------------------------------------------------------------------

@pytest.fixture(scope="module")
def echo_ws():
    """A real websocket server that echoes: its port."""
    websockets = pytest.importorskip("websockets")
    loop, port = tls.Loop(), lib.free_port()

    async def echo(ws):
        await ws.send("hello " + ws.path)
        async for m in ws:
            await ws.send(m)

    async def serve():
        return await websockets.serve(echo, "127.0.0.1", port, max_size=None, compression=None)
    server = loop.run(serve())
    yield port
    server.close()
    loop.run(server.wait_closed())
    loop.close()


def test_websocket(https, both, pki, echo_ws):
    import websockets
    w = https(*both, conf=conf(app={"url": "ws://127.0.0.1:%d" % echo_ws}))

    async def talk():
        async with websockets.connect("wss://a.example:%d/ws/room" % w.https, ssl=tls.context(pki.root), host="127.0.0.1", server_hostname="a.example",
                max_size=None, compression=None) as ws:
            assert await asyncio.wait_for(ws.recv(), TIMEOUT) == "hello /ws/room"
            for m in ("hello", "ünïcode", b"\0\1\2", "x" * 300000, os.urandom(3000000)):
                await ws.send(m)
                assert await asyncio.wait_for(ws.recv(), 2 * TIMEOUT) == m
            await asyncio.wait_for(await ws.ping(), TIMEOUT)
            big = [os.urandom(100000) for _ in range(50)]
            await asyncio.gather(*(ws.send(m) for m in big))
            assert [await asyncio.wait_for(ws.recv(), TIMEOUT) for _ in big] == big
    asyncio.run(talk())
    asyncio.run(talk())


def test_tunnel_ends_both_ways(https, backend, both):
    """TLS has no half-close: one goodbye ends the tunnel, from either side, and cleanly."""
    said = threading.Event()
    b = backend([REQ, lib.SWITCH, b"first"], [REQ, lib.SWITCH, b"first", lib.WAIT(said), lib.CLOSE])
    w = https(*both, conf=conf(app=b))
    with w.tls() as c:
        c.send(request("/ws", *UPGRADE))
        assert c.response().status == 101
        c.until(b"first", TIMEOUT)
        c.bye()
    assert b.conn(0).closed.wait(TIMEOUT)
    with w.tls() as c:
        c.send(request("/ws", *UPGRADE))
        assert c.response().status == 101
        c.until(b"first", TIMEOUT)
        said.set()
        assert c.closed() == "eof"


# ---- memory ---------------------------------------------------------------------

@pytest.mark.limit(60)
@pytest.mark.skipif(SANITIZED, reason="memory figures mean nothing under a sanitizer")
@pytest.mark.parametrize("used", ["after a small answer", "after big bodies"])
def test_idle_connections_are_small(https, backend, both, files, used):
    """At most 6 KB for each that waits for its next request; and they all still work."""
    body = bytes(100000)

    def busy(c):
        if used == "after big bodies":
            assert c.ask("/up", method="POST", body=body).text == "app POST /up 100000"
        assert c.ask().status == 200
    w = https(*both, conf=conf(app=backend(record=False)))
    idle = [w.tls() for _ in range(50)]
    for c in idle:
        busy(c)
    before = w.rss()
    for _ in range(500):
        idle.append(w.tls())
        busy(idle[-1])
    each = (w.rss() - before) / 500
    for c in idle[::7]:
        busy(c)
        c.close()
    for c in idle:
        c.close()
    print("%.0f bytes for an idle connection" % each)
    assert each <= 6144, "%.0f bytes for an idle connection" % each


def test_parked_in_the_middle_of_a_record(https, both):
    """The next record's first bytes come, then nothing for a while: nothing is lost."""
    w = https(*both)
    raw = connect(w.https)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = tls.context().wrap_bio(into, out, server_hostname="a.example")
    raw.settimeout(TIMEOUT)

    def run(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                raw.sendall(out.read())
                into.write(raw.recv(65536))
    with raw:
        run(o.do_handshake)
        raw.sendall(out.read())
        for cut in (1, 4, 5, 6, 20):
            for _ in range(3):
                o.write(request())
                data = out.read()
                raw.sendall(data[:cut])
                time.sleep(0.02)
                raw.sendall(data[cut:])
                got = b""
                while not got.endswith(b"ok"):
                    got += run(lambda: o.read(65536))
                assert got.startswith(b"HTTP/1.1 200")


# ---- files that change ----------------------------------------------------------

@pytest.fixture
def swap(pki, tmp_path):
    """put(cert) -> the same two files each time, with this certificate in them."""
    cert, key = tmp_path / "site.pem", tmp_path / "site.key"

    def put(c, key_of=None):
        for to, text in ((key, open((key_of or c).key).read()), (cert, open(c.cert).read())):
            new = to.with_suffix(".new")
            new.write_text(text)
            new.chmod(0o600)
            new.rename(to)
        return tls.Cert(str(cert), str(key), c.leaf)
    return put


def shown(w):
    with w.tls() as c:
        return c.serial


@pytest.mark.limit(60)
def test_changed_files_are_noticed(https, swap, pki):
    """By themselves, without touching connections; a broken one is refused and the old one stays."""
    one, two, other = (pki.cert("a.example", n=n, key=k) for n, k in ((1, "p256"), (2, "rsa"), (3, "p256")))
    w = https(swap(one), server=dict(worker_threads=2))
    old = w.tls()
    assert old.ask().text == "ok" and old.serial == tls.serial(one)
    workers = w.children()
    swap(two)
    eventually(lambda: shown(w) == tls.serial(two), "the new certificate", 10 + TIMEOUT)
    assert {shown(w) for _ in range(10)} == {tls.serial(two)}
    assert old.ask().text == "ok" and w.children() == workers, "no connection and no worker was touched"
    before = len(w.stderr)
    swap(one, key_of=other)
    line = eventually(lambda: re.search(r"(?m)^.*site\.(pem|key).*$", w.stderr[before:]), "a line about it", 10 + TIMEOUT)[0]
    assert shown(w) == tls.serial(two) and old.ask().text == "ok", line
    open(swap(one).cert, "w").write("no certificate\n")
    eventually(lambda: len(re.findall(r"(?m)^.*site\.(?:pem|key).*$", w.stderr[before:])) > 1, "another line", 10 + TIMEOUT)
    assert shown(w) == tls.serial(two)
    swap(other)
    eventually(lambda: shown(w) == tls.serial(other), "the next good one", 10 + TIMEOUT)
    assert old.ask().text == "ok"
    old.close()


@pytest.mark.limit(40)
def test_reload_takes_new_files(https, swap, pki):
    one, two = pki.cert("a.example", n=1), pki.cert("a.example", n=2)
    w = https(swap(one))
    old = w.tls()
    old.ask()
    swap(two)
    reload(w)
    assert shown(w) == tls.serial(two)
    open(swap(two).key, "w").write("broken\n")
    reload(w, good=False)
    assert shown(w) == tls.serial(two)
    old.close()


def test_session_outlives_its_certificate(https, swap, pki):
    """Who comes back after a change resumes or is shown the new one; both are served."""
    one, two = pki.cert("a.example", n=1), pki.cert("a.example", n=2)
    w = https(swap(one))
    ctx = tls.context(pki.root)
    session = fresh(w, ctx)
    swap(two)
    reload(w)
    assert again(w, ctx, session) in (True, False)
    assert shown(w) == tls.serial(two)


def test_record_that_fits_in_part(https, both):
    """What has been decrypted but does not fit behind the part of a head that is there is read all the same."""
    w = https(*both)
    for first in range(3900, 4100, 10):
        head = b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Pad: "
        with w.tls() as c:
            c.send(head + b"p" * (first - len(head)))
            time.sleep(0.02)  # so that warp has it, and puts it away
            assert c.send(b"q" * 3000 + b"\r\n\r\n").response().status == 200, first


def test_record_by_drops(https, both):
    """Who sends a record byte by byte is idle all the same."""
    w = https(*both, server=dict(header_timeout_secs=0.6))
    raw = connect(w.https)
    with raw:
        c = tls.context().wrap_socket(raw, server_hostname="a.example", do_handshake_on_connect=True)
        s = socket.socket(fileno=os.dup(c.fileno()))
        with s:
            start = time.monotonic()
            s.sendall(b"\x17\x03\x03\x40\x00")
            with pytest.raises(OSError):
                while time.monotonic() - start < TIMEOUT:
                    s.sendall(b"x")
                    time.sleep(0.1)
            assert time.monotonic() - start < 0.6 * lib.SLOW + 2
        c.close()
