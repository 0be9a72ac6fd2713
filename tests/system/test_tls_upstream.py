"""https:// and wss:// upstreams: verified, and what is logged when that fails; sessions, certificates of our
own, bodies, tunnels, health checks, and ends that are none."""
import asyncio
import hashlib
import os
import re
import threading

import pytest

import lib
import tls
from lib import ECHO, FIN, HEAD, REQ, RST, SWITCH, TIMEOUT, UPGRADE, chunks, conf, eventually, free_port, reply, request
from supervised import reload
from test_real import need, server
from test_tls import Stream, swallow, take

MB = 1 << 20


def to(b, pki, name="a.example", ca=True, **keys):
    """An upstream's keys: that backend, verified for name with the root that everybody trusts."""
    how = {**({"ca_file": pki.root} if ca else {}), **({"server_name": name} if name else {}), **keys.pop("tls", {})}
    return {**b.conf, "tls": how, **keys}


def told(w, b, reason, n=1):
    """The one line that names the instance and the reason."""
    line = re.compile(r"(?mi)^.*127\.0\.0\.1:%d.*(?:%s).*$" % (b.port, reason))
    eventually(lambda: line.search(w.stderr), "a line with %d and %s in:\n%s" % (b.port, reason, w.stderr[-1500:]))
    all = re.findall(r"(?m)^.*127\.0\.0\.1:%d.*$" % b.port, w.stderr)
    assert len(all) == n, "%d lines:\n%s" % (len(all), "\n".join(all))
    return all[0]


# ---- it is who it should be -----------------------------------------------------

CHAINS = {"P-256": dict(), "P-384": dict(key="p384"), "RSA": dict(key="rsa"), "intermediate": dict(by="root/middle"),
          "RSA by an intermediate": dict(by="root/middle", key="rsa")}


@pytest.mark.parametrize("kind", CHAINS)
def test_verified(warp, tls_backend, pki, kind):
    b = tls_backend(cert=pki.cert("a.example", **CHAINS[kind]))
    w = warp(conf(app=to(b, pki)))
    with w.client() as c:
        for i in range(5):
            assert c.ask("/p%d" % i).text == "app GET /p%d 0" % i
    assert len(b.conns) == 1, "one connection is kept"
    assert b.sni == ["a.example"] and not b.failed
    assert b.conns[0].shaken.version() == "TLSv1.2" and b.conns[0].shaken.cipher()[0] in tls.ECDSA + tls.RSA


@pytest.mark.parametrize("suite", tls.ECDSA + tls.RSA)
def test_suites(warp, tls_backend, pki, suite):
    b = tls_backend(cert=pki.cert("a.example", key="rsa" if "RSA" in suite.split("-")[1:2] else "p256"))
    b.ctx.set_ciphers(suite)
    w = warp(conf(app=to(b, pki)))
    assert w.ask().text == "app GET / 0" and b.conns[0].shaken.cipher()[0] == suite


def test_url_with_a_name(warp, tls_backend, pki):
    """The host is what is checked, when nothing else is said."""
    b = tls_backend(cert=pki.cert("localhost"))
    w = warp(conf(app={"url": "https://localhost:%d" % b.port, "tls": {"ca_file": pki.root}}))
    assert w.ask().text == "app GET / 0" and b.sni == ["localhost"]


def test_protocol_https(warp, tls_backend, pki):
    """host, port and protocol, instead of a url."""
    b = tls_backend()
    w = warp(conf(app={"host": "127.0.0.1", "port": b.port, "protocol": "https",
                       "tls": {"ca_file": pki.root, "server_name": "a.example"}}))
    assert w.ask().text == "app GET / 0"


def test_wildcard_and_other_names(warp, tls_backend, pki):
    b = tls_backend(cert=pki.cert("x.example", "*.a.example"))
    for name, status in (("www.a.example", 200), ("x.example", 200), ("X.Example", 200), ("a.example", 502), ("a.b.a.example", 502)):
        w = warp(conf(app=to(b, pki, name)))
        assert w.ask().status == status, name


def test_pinned_leaf(warp, tls_backend, pki):
    """One that signed itself is believed when it is the ca_file."""
    mine, other = (pki.cert("a.example", by="self", n=n) for n in (1, 2))
    w = warp(conf(app=to(tls_backend(cert=mine), pki, tls={"ca_file": mine.leaf})))
    assert w.ask().status == 200
    w = warp(conf(app=to(tls_backend(cert=other), pki, tls={"ca_file": mine.leaf})))
    assert w.ask().status == 502


def test_ca_file_with_many(warp, tls_backend, pki, tmp_path):
    """What else is in the bundle does no harm."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("# ours\n" + open(pki.ca("other").cert).read() + open(pki.ca("more", key="rsa").cert).read() +
                      open(pki.root).read())
    w = warp(conf(app=to(tls_backend(), pki, tls={"ca_file": str(bundle)})))
    assert w.ask().status == 200


def test_address_without_a_name(warp, tls_backend, pki):
    """A certificate for some name is none for the address."""
    w = warp(conf(app=to(tls_backend(), pki, None)))
    assert w.ask().status == 502


# ---- it is not ------------------------------------------------------------------

FAILURES = {
    "expired": (lambda p: dict(cert=p.cert("a.example", since=-60, days=30)), "expired"),
    "not yet valid": (lambda p: dict(cert=p.cert("a.example", since=5)), "expired|not yet valid"),
    "wrong name": (lambda p: dict(cert=p.cert("b.example")), r"b\.example.*a\.example"),
    "no name": (lambda p: dict(cert=p.cert(subject="/O=Warp Test/CN=somebody")), r"somebody.*a\.example"),
    "unknown issuer": (lambda p: dict(cert=p.cert("a.example", by="nobody")), "not trusted.*nobody authority"),
    "signed by itself": (lambda p: dict(cert=p.cert("a.example", by="self")), "not trusted"),
    "missing intermediate": (lambda p: dict(cert=p.cert("a.example", by="root/middle", whole=False)), "not trusted.*middle authority"),
    "TLS 1.3 only": (lambda p: dict(tls13=True), r"TLS 1\.2"),
    "a client certificate is wanted": (lambda p: dict(ca=p.root), "certificate|alert|cipher suite|closed"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_failure(warp, tls_backend, pki, what):
    """502 at once, one line that says where and why; no byte of a request went there, and no second try."""
    how, reason = FAILURES[what]
    b = tls_backend(**how(pki))
    w = warp(conf(app=to(b, pki)))
    m = w.ask(timeout=TIMEOUT)
    assert m.status == 502
    told(w, b, reason)
    assert len(b.conns) == 1 and not b.requests and not b.conns[0].requests
    assert w.ask("/up", method="POST", body=b"x" * 100000).status in (502, 503)
    assert not b.requests


NO_TLS = {
    "plain HTTP": ([b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", FIN], "TLS"),
    "closes at once": ([lib.CLOSE], "closed|ended|lost"),
    "resets": ([RST], "reset|closed|lost"),
    "an alert": ([b"\x15\x03\x03\x00\x02\x02\x28", FIN], "cipher suite|alert"),
    "noise": ([os.urandom(2000), FIN], "TLS|record|handshake"),
}


@pytest.mark.parametrize("what", NO_TLS)
def test_no_tls_there(warp, backend, pki, what):
    script, reason = NO_TLS[what]

    def some(c):
        c.sock.recv(3)
    b = backend([some] + script)
    w = warp(conf(app={"url": "https://127.0.0.1:%d" % b.port, "tls": {"ca_file": pki.root, "server_name": "a.example"}}))
    assert w.ask(timeout=TIMEOUT).status == 502
    eventually(lambda: re.search(r"(?mi)^.*127\.0\.0\.1:%d.*(%s)" % (b.port, reason), w.stderr), w.stderr)


def test_handshake_that_never_ends(warp, backend, pki):
    """It counts as connecting: 504 when that time is up."""
    b = backend([lambda c: c.sock.recv(1), lib.WAIT(threading.Event(), TIMEOUT)])
    w = warp(conf(app={"url": "https://127.0.0.1:%d" % b.port, "connect_timeout_secs": 0.5, "retries": 0,
                       "tls": {"ca_file": pki.root, "server_name": "a.example"}}))
    assert w.ask(timeout=2 * TIMEOUT).status == 504
    w.wait_stderr("does not finish the TLS handshake in time")


def test_system_bundle_does_not_know_us(warp, tls_backend, pki):
    b = tls_backend()
    w = warp(conf(app=to(b, pki, ca=False)))
    assert w.ask().status == 502
    told(w, b, "not trusted.*root authority")


def test_https_backend_asked_in_plain(warp, tls_backend):
    """The other way round: a 502, no hang."""
    b = tls_backend()
    w = warp(conf(app={"host": "127.0.0.1", "port": b.port}))
    assert w.ask().status == 502


@pytest.mark.parametrize("what", ["expired", "wrong name", "unknown issuer", "signed by itself", "missing intermediate"])
def test_unverified(warp, check, tls_backend, pki, what):
    """verify = false: anybody is believed, which -t does not leave unsaid."""
    b = tls_backend(**FAILURES[what][0](pki))
    site = conf(app=to(b, pki, ca=False, tls={"verify": False}))
    assert warp(site).ask().text == "app GET / 0" and b.sni == ["a.example"]
    p = check(lib.complete(lib.toml_file(site), free_port()))
    assert p.returncode == 0 and re.search("(?i)warning.*verif", p.stdout + p.stderr), p.stdout + p.stderr


def test_retry_elsewhere(warp, tls_backend, pki):
    """An instance with a bad certificate is one that cannot be reached: the next one answers, even a POST."""
    bad, good = tls_backend(cert=pki.cert("b.example"), name="bad"), tls_backend(name="good")
    w = warp(conf(app={"on": [bad.conf, good.conf], "strategy": "first", "tls": {"ca_file": pki.root, "server_name": "a.example"}}))
    assert w.ask().text == "good GET / 0"
    assert w.ask("/up", method="POST", body=b"x" * 100000).text == "good POST /up 100000"
    assert not bad.requests and good.requests[-1].body == b"x" * 100000
    eventually(lambda: re.search(r"127\.0\.0\.1:%d.*b\.example" % bad.port, w.stderr))


# ---- certificates of our own ----------------------------------------------------

@pytest.mark.parametrize("key", ["p256", "p384", "rsa"])
def test_client_certificate(warp, tls_backend, pki, key):
    me = pki.cert(subject="/O=Warp Test/CN=warp", key=key, by="root/clients")
    b = tls_backend(ca=pki.root)
    w = warp(conf(app=to(b, pki, tls={"cert": me.cert, "key": me.key})))
    assert w.ask().text == "app GET / 0"
    assert (("commonName", "warp"),) in b.conns[0].shaken.getpeercert()["subject"]


def test_client_certificate_that_is_refused(warp, tls_backend, pki):
    me = pki.cert(subject="/O=Warp Test/CN=warp", by="nobody")
    b = tls_backend(ca=pki.root)
    w = warp(conf(app=to(b, pki, tls={"cert": me.cert, "key": me.key})))
    assert w.ask().status == 502
    told(w, b, "does not know who signed|refuses|alert|closed")
    assert not b.requests


# ---- sessions and connections ---------------------------------------------------

def test_sessions_are_reused(warp, tls_backend, pki):
    """A new connection goes on with the session of the one before."""
    b = tls_backend()
    w = warp(conf(app=to(b, pki, keepalive=0)))
    for i in range(6):
        assert w.ask("/%d" % i).status == 200
    assert len(b.reused) == 6 and b.reused[0] is False and all(b.reused[1:]), b.reused


def test_session_that_the_backend_forgot(warp, tls_backend, pki):
    """After its restart: a whole handshake, no error."""
    port = free_port()
    b = tls_backend(port=port)
    w = warp(conf(app=to(b, pki, keepalive=0)))
    assert w.ask().status == 200
    b.close()
    b = tls_backend(port=port)
    assert w.ask().status == 200 and b.reused == [False]
    assert w.ask().status == 200 and b.reused[1:] == [True]


def test_session_is_no_way_past_verification(warp, tls_backend, pki):
    """A reload that believes another authority believes no old session."""
    b = tls_backend()
    w = warp(conf(app=to(b, pki, keepalive=0)))
    assert [w.ask().status for _ in range(2)] == [200, 200]
    reload(w, lib.toml_file(conf(app=to(b, pki, keepalive=0, tls={"ca_file": pki.ca("other").cert}))))
    assert w.ask().status == 502
    reload(w, lib.toml_file(conf(app=to(b, pki, "b.example", keepalive=0))))
    assert w.ask().status == 502
    reload(w, lib.toml_file(conf(app=to(b, pki, keepalive=0))))
    assert w.ask().status == 200


def test_kept_connection_that_ends(warp, tls_backend, pki):
    """Closed while parked, cleanly or not: the next request gets a new one, and nobody notices."""
    for end in (tls.BYE, tls.CUT, RST):
        b = tls_backend([REQ, reply("one"), end], [ECHO])
        w = warp(conf(app=to(b, pki)))
        assert w.ask().text == "one"
        assert b.conn(0).closed.wait(TIMEOUT)
        assert w.ask("/again").text == "app GET /again 0"
        assert len(b.conns) == 2


def test_goodbye_to_the_backend(warp, tls_backend, pki):
    """A connection that is not kept ends with close_notify."""
    b = tls_backend()
    w = warp(conf(app=to(b, pki, keepalive=0)))
    assert w.ask().status == 200
    assert b.conn(0).closed.wait(TIMEOUT)
    assert b.conn(0).end == "eof"


@pytest.fixture(scope="module")
def nginx(pki, tmp_path_factory):
    """A real one: its port. It says what it saw."""
    d, port, c = tmp_path_factory.mktemp("nginx"), free_port(), pki.cert("a.example", by="root/middle", key="rsa")
    (d / "www").mkdir()
    (d / "www" / "big").write_bytes(os.urandom(5000000))
    temp = "".join("%s_temp_path %s/t;" % (x, d) for x in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (d / "nginx.conf").write_text("""daemon off; worker_processes 1; pid %(d)s/pid; error_log stderr; %(user)s
events { worker_connections 64; }
http { access_log off; %(temp)s keepalive_requests 3;
  server { listen 127.0.0.1:%(port)d ssl; root %(d)s/www; ssl_certificate %(cert)s; ssl_certificate_key %(key)s;
    ssl_session_cache shared:x:1m; ssl_protocols TLSv1.2 TLSv1.3; ssl_client_certificate %(root)s; ssl_verify_client optional;
    ssl_verify_depth 3; client_max_body_size 0;
    location = /saw { return 200 "$ssl_session_reused $ssl_server_name $ssl_protocol $ssl_cipher $ssl_client_s_dn $request_method"; } } }
""" % {"d": d, "port": port, "temp": temp, "cert": c.cert, "key": c.key, "root": pki.root,
       "user": "user root;" if os.getuid() == 0 else ""})
    with server(port, [need("nginx"), "-p", str(d), "-c", str(d / "nginx.conf")]):
        yield port, d


def test_nginx(warp, pki, nginx):
    """It closes a connection after three requests: what comes next resumes its session."""
    port, d = nginx
    me = pki.cert(subject="/O=Warp Test/CN=warp")
    w = warp(conf(app={"url": "https://127.0.0.1:%d" % port, "tls": {"ca_file": pki.root, "server_name": "a.example",
                                                                    "cert": me.cert, "key": me.key}}))
    with w.client() as c:
        saw = [c.ask("/saw").text.split(" ", 4) for _ in range(10)]
        assert {s[1] for s in saw} == {"a.example"} and {s[2] for s in saw} == {"TLSv1.2"}
        assert all("CN=warp" in s[4] for s in saw), saw
        assert [s[0] for s in saw] == ["."] * 3 + ["r"] * 7, saw
        for _ in range(5):
            assert hashlib.sha256(c.ask("/big").body).digest() == hashlib.sha256((d / "www" / "big").read_bytes()).digest()


# ---- HTTP over it ---------------------------------------------------------------

@pytest.mark.limit(60)
@pytest.mark.parametrize("client", ["plain", "tls"])
def test_big_bodies(https, tls_backend, pki, client):
    """50 MB up to a slow reader, 50 MB down by one, with checksums."""
    n, sums, up, down = 50 * MB, [], Stream(50 * MB), Stream(50 * MB)

    def send(c):
        c.begin()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
        for block in down:
            c.send(block)
    b = tls_backend([swallow(sums, 0.001)[0], send, ECHO], record=False)
    w = https(pki.cert("a.example"), conf=conf(app=to(b, pki)), tls=dict(redirect=False))
    before = w.rss()
    with (w.tls() if client == "tls" else w.client()) as c:
        c.send(request("/up", "Content-Length: %d" % n, method="POST"))
        c.sock.settimeout(4 * TIMEOUT)
        for block in up:
            c.sock.sendall(block)
        assert c.response(timeout=4 * TIMEOUT).text == "taken"
        assert sums == [up.sum.digest()]
        c.send(request("/down"))
        assert c.head(TIMEOUT).status == 200
        assert take(c, n, 0.001) == down.sum.digest()
        assert lib.SANITIZED or w.rss() - before < 3 * MB
        assert c.ask("/next").text == "app GET /next 0"


def test_chunks_both_ways(warp, tls_backend, pki):
    parts = [os.urandom(i) for i in (1, 16384, 16385, 40000, 3)]
    b = tls_backend([REQ, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(*parts), ECHO])
    w = warp(conf(app=to(b, pki)))
    with w.client() as c:
        c.send(request("/up", "Transfer-Encoding: chunked", method="POST") + chunks(*parts))
        assert c.response().body == b"".join(parts) and b.last.body == b"".join(parts)
        assert c.ask("/next").text == "app GET /next 0"


def test_answer_by_bytes(warp, tls_backend, pki):
    """Each byte in a record of its own."""
    def drip(c):
        c.request()
        c.sock.setsockopt(lib.socket.IPPROTO_TCP, lib.socket.TCP_NODELAY, 1)
        for x in reply("slow and steady", "X-Field: y"):
            c.send(bytes([x]))
    w = warp(conf(app=to(tls_backend([drip, ECHO]), pki)))
    with w.client() as c:
        assert c.ask().text == "slow and steady" and c.ask("/next").text == "app GET /next 0"


def test_events_pass_at_once(warp, tls_backend, pki):
    tick = threading.Semaphore(0)

    def events(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            assert tick.acquire(timeout=TIMEOUT)
            c.send(chunks(b"data: %d\n\n" % i, last=False))
        c.send(chunks())
    w = warp(conf(app=to(tls_backend([REQ, events]), pki)))
    with w.client() as c:
        c.send(request("/events"))
        assert c.head(TIMEOUT).status == 200
        for i in range(5):
            tick.release()
            c.until(b"data: %d\n\n" % i, TIMEOUT)


def test_upload_passes_as_it_comes(warp, tls_backend, pki):
    b = tls_backend([HEAD, lib.BODY, reply("done"), ECHO])
    w = warp(conf(app=to(b, pki)))
    with w.client() as c:
        c.send(request("/up", "Transfer-Encoding: chunked", method="POST"))
        eventually(lambda: b.conns and b.conns[0].requests, "the head upstream at once")
        for i in range(4):
            c.send(chunks(b"piece-%d" % i, last=False))
            eventually(lambda: b"piece-%d" % i in b.conns[0].raw, "piece %d" % i)
        assert c.send(chunks()).response().text == "done"


CUTS = {
    "until close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 5000, tls.CUT),
    "until close, reset": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 5000, RST),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"x" * 5000, tls.CUT),
    "length, said goodbye": (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"x" * 5000, tls.BYE),
    "chunked, said goodbye": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"x" * 5000, last=False), tls.BYE),
}


@pytest.mark.parametrize("what", CUTS)
def test_cut_answer(warp, tls_backend, pki, what):
    """No client takes half an answer for a whole one. Its body is chunked where it had no length."""
    head, end = CUTS[what]
    there = threading.Event()
    w = warp(conf(app=to(tls_backend([REQ, head, lib.WAIT(there), end]), pki)))
    with w.client() as c:
        c.send(request())
        m = c.head(TIMEOUT)
        eventually(lambda: c.buf.count(b"x") >= 5000 or not c.fill(TIMEOUT))
        there.set()
        try:
            while c.fill(TIMEOUT):
                pass
            ended = "eof"
        except ConnectionError:
            ended = "reset"
        if m.has("transfer-encoding"):
            assert not c.buf.endswith(b"0\r\n\r\n"), "the last chunk was made up"
        elif not m.has("content-length"):
            assert ended == "reset"


def test_until_close_said_goodbye(warp, tls_backend, pki):
    b = tls_backend([REQ, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 50000, tls.BYE])
    w = warp(conf(app=to(b, pki)))
    assert w.ask().body == b"x" * 50000


@pytest.mark.parametrize("version", [1, 2])
def test_proxy_protocol_goes_first(warp, tls_backend, pki, version):
    """The PROXY header is plain, before the handshake."""
    seen = []

    def line(c):
        if version == 1:
            got = b""
            while not got.endswith(b"\r\n"):
                got += c.sock.recv(1)
        else:
            got = c.sock.recv(16, lib.socket.MSG_WAITALL)
            got += c.sock.recv(int.from_bytes(got[14:16], "big"), lib.socket.MSG_WAITALL)
        seen.append(got)
    b = tls_backend(before=line)
    w = warp(conf(app=to(b, pki, proxy_protocol="v%d" % version)))
    with w.client() as c:
        assert c.ask().text == "app GET / 0"
        port = c.sock.getsockname()[1]
    if version == 1:
        assert seen[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d" % (port, w.port))
    else:
        assert seen[0].startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11") and seen[0][24:26] == port.to_bytes(2, "big")


# ---- tunnels --------------------------------------------------------------------

@pytest.fixture(scope="module")
def echo_wss(pki):
    """A real websocket server with TLS that echoes: its port."""
    websockets = pytest.importorskip("websockets")
    import ssl
    loop, port, c = tls.Loop(), free_port(), pki.cert("a.example")
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(c.cert, c.key)

    async def echo(ws):
        await ws.send("hello " + ws.path)
        async for m in ws:
            await ws.send(m)

    async def serve():
        return await websockets.serve(echo, "127.0.0.1", port, ssl=ctx, max_size=None, compression=None)
    s = loop.run(serve())
    yield port
    s.close()
    loop.run(s.wait_closed())
    loop.close()


@pytest.mark.parametrize("scheme", ["wss", "https"])
@pytest.mark.parametrize("client", ["ws", "wss"])
def test_websocket(https, pki, echo_wss, scheme, client):
    import websockets
    w = https(pki.cert("a.example"), tls=dict(redirect=False), conf=conf(app={
        "url": "%s://127.0.0.1:%d" % (scheme, echo_wss), "tls": {"ca_file": pki.root, "server_name": "a.example"}}))
    how = dict(ssl=tls.context(pki.root), server_hostname="a.example") if client == "wss" else {}

    async def talk():
        async with websockets.connect("%s://a.example:%d/ws/room" % (client, w.https if how else w.port), host="127.0.0.1",
                max_size=None, compression=None, **how) as ws:
            assert await asyncio.wait_for(ws.recv(), TIMEOUT) == "hello /ws/room"
            for m in ("hello", "ünïcode", b"\0\1\2", "x" * 300000, os.urandom(3000000)):
                await ws.send(m)
                assert await asyncio.wait_for(ws.recv(), 2 * TIMEOUT) == m
            await asyncio.wait_for(await ws.ping(), TIMEOUT)
    asyncio.run(talk())


def test_tunnel_ends(warp, tls_backend, pki):
    """Either side's goodbye ends it; what was sent before that arrives."""
    b = tls_backend([REQ, SWITCH, b"last words" * 1000, tls.BYE], [REQ, SWITCH])
    w = warp(conf(app=to(b, pki)))
    with w.client() as c:
        c.send(request("/ws", *UPGRADE))
        assert c.response().status == 101
        assert c.rest(TIMEOUT) == b"last words" * 1000
    with w.client() as c:
        c.send(request("/ws", *UPGRADE))
        assert c.response().status == 101
        c.send(b"bye")
        eventually(lambda: b.conn(1).raw.endswith(b"bye"))
    assert b.conn(1).closed.wait(TIMEOUT) and b.conn(1).end == "eof"


# ---- health ---------------------------------------------------------------------

HEALTH = dict(interval_secs=0.1, timeout_secs=2, jitter=False, unhealthy_threshold=2, healthy_threshold=1)


def test_health_check(warp, tls_backend, pki):
    """Over TLS as well, with the name; the bad instance hears no request."""
    good, bad = tls_backend(name="good"), tls_backend(cert=pki.cert("b.example"), name="bad")
    w = warp(conf(app={"on": [bad.conf, good.conf], "tls": {"ca_file": pki.root, "server_name": "a.example"},
                       "health": dict(HEALTH, path="/health")}))
    good.wait(lambda: len([r for r in good.requests if r.target == "/health"]) > 2, "checks")
    assert set(good.sni) == {"a.example"}
    eventually(lambda: re.search(r"(?m)^.*127\.0\.0\.1:%d.*b\.example.*$" % bad.port, w.stderr), "why it is down")
    eventually(lambda: re.search(r"(?mi)^.*127\.0\.0\.1:%d.*down" % bad.port, w.stderr), "that it is down: " + w.stderr)
    n = len(bad.conns)
    for i in range(10):
        assert w.ask("/%d" % i).text == "good GET /%d 0" % i
    assert not bad.requests and len(bad.conns) - n < 10


def test_health_check_all_bad(warp, tls_backend, pki):
    b = tls_backend(cert=pki.cert("a.example", since=-60, days=30))
    w = warp(conf(app=to(b, pki, health=dict(HEALTH, path="/health"))))
    eventually(lambda: w.ask().status == 503, "it is down")
    assert re.search(r"(?m)^.*127\.0\.0\.1:%d.*expired.*$" % b.port, w.stderr)
    assert not b.requests


def test_health_check_by_connecting(warp, tls_backend, pki):
    """Without a path TCP is what is tested."""
    b = tls_backend()
    w = warp(conf(app=to(b, pki, health=dict(HEALTH))))
    b.wait(lambda: len(b.conns) > 3, "checks")
    assert w.ask().text == "app GET / 0"


def test_health_check_looks_at_the_certificate(warp, tls_backend, pki):
    """Each time: it never goes on with a session, so one that expired meanwhile is seen."""
    b = tls_backend([REQ, reply("ok", "Connection: close"), tls.BYE])
    w = warp(conf(app=to(b, pki, health=dict(HEALTH, path="/health"))))
    b.wait(lambda: len(b.requests) > 4, "checks")
    assert not any(b.reused), b.reused
    bad = pki.cert("a.example", since=-60, days=30)
    b.ctx.load_cert_chain(bad.cert, bad.key)
    eventually(lambda: re.search(r"(?m)^.*127\.0\.0\.1:%d.*expired.*$" % b.port, w.stderr), "the new certificate is seen")
    assert w.ask().status == 503
