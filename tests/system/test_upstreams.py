"""Upstreams: where they are, who gets the next request, what happens when one is not there."""
import os
import socket
import stat
import struct
import threading
import time

import pytest

from lib import (CLOSE, ECHO, REQ, RST, SLOW, TIMEOUT, WAIT, Backend, Client, chunks, conf, connect, eventually, free_port,
                 reply, request)


# ---- addresses ------------------------------------------------------------------

# reason: keys of the Backend, keys of the upstream ({p}: its port, {d}: directory)
ADDRESSES = {
    "host and port": ({}, {"host": "127.0.0.1", "port": "{p}"}),
    "v6 host": ({"host": "::1"}, {"host": "::1", "port": "{p}"}),
    "a name": ({}, {"host": "localhost", "port": "{p}"}),
    "a name that is v6 first": ({"host": "::1"}, {"host": "localhost", "port": "{p}"}),
    "socket": ({"unix": "{d}/s"}, {"socket": "{d}/s"}),
    "socket, unix:": ({"unix": "{d}/s"}, {"socket": "unix:{d}/s"}),
    "socket, unix//": ({"unix": "{d}/s"}, {"socket": "unix/{d}/s"}),
    "abstract socket": ({"unix": "@warp-{pid}"}, {"socket": "@warp-{pid}"}),
    "url": ({}, {"url": "http://127.0.0.1:{p}"}),
    "url with a name": ({}, {"url": "http://localhost:{p}"}),
    "url, v6": ({"host": "::1"}, {"url": "http://[::1]:{p}"}),
    "url, ws": ({}, {"url": "ws://127.0.0.1:{p}"}),
    "url without scheme": ({}, {"url": "127.0.0.1:{p}"}),
    "url, unix": ({"unix": "{d}/s"}, {"url": "unix:{d}/s"}),
}


@pytest.mark.parametrize("as_instance", [False, True])
@pytest.mark.parametrize("reason", ADDRESSES)
def test_address(warp, backend, tmp_path, reason, as_instance):
    on, keys = ADDRESSES[reason]
    if "v6 first" in reason and "::1" not in (a[4][0] for a in socket.getaddrinfo("localhost", 80)):
        pytest.skip("localhost is not ::1 here")
    fill = {"d": str(tmp_path), "pid": os.getpid() * 2 + as_instance, "p": free_port()}
    on = {k: v.format(**fill) for k, v in on.items()}
    b = backend(**on, **({} if "unix" in on else {"port": fill["p"]}))
    keys = {k: int(v.format(**fill)) if k == "port" else v.format(**fill) for k, v in keys.items()}
    w = warp(conf(app={"instances": [keys]} if as_instance else keys))
    assert w.ask("/x").text == "app GET /x 0", reason
    assert len(b.conns) == 1


def test_listeners(warp, backend, tmp_path):
    """Listeners of every kind at once; the socket file has socket_mode; a client on a unix socket has no address."""
    v6, port = free_port(), free_port()
    b = backend()
    sock, abstract = str(tmp_path / "in.sock"), "@warp-in-%d" % os.getpid()
    w = warp(conf(app=b, server={"listen": ["127.0.0.1:@PORT@", "[::1]:%d" % v6, "unix:" + sock, abstract, ":%d" % port],
        "socket_mode": "0600"}))
    for addr in (w.port, ("::1", v6), sock, abstract, port, ("::1", port)):
        with Client(addr) as c:
            assert c.ask().status == 200, addr
    assert stat.S_IMODE(os.stat(sock).st_mode) == 0o600
    assert not b.requests[2].get("X-Forwarded-For", "").startswith("127.")
    w.stop()


@pytest.mark.promise("S2-57")
def test_http_port(warp, backend):
    port = free_port()
    w = warp("[server]\nhttp_port = %d\n[upstreams.a]\nhost = '127.0.0.1'\nport = %d\n[[routes]]\nupstream = 'a'\n" % (port,
        backend().port), port=port)
    assert w.ask().status == 200
    with Client(("::1", port)) as c:
        assert c.ask().status == 200, "on every interface"


# ---- names and statuses ---------------------------------------------------------

def test_no_instance_502_503(warp):
    """Refused: an instance was tried, 502. A name that does not resolve: none could be, 503 with Retry-After."""
    w = warp(conf({"path_prefix": "/refused", "upstream": "dead"}, {"path_prefix": "/", "upstream": "unknown"},
        dead={"host": "127.0.0.1", "port": free_port()}, unknown={"host": "no.such.host.invalid", "port": 80}))
    with w.client() as c:
        assert c.ask("/refused").status == 502
        m = c.ask("/unknown")
        assert m.status == 503 and m.has("Retry-After")
        assert c.ask("/refused", method="POST", body=b"x").status == 502, "the connection stays usable"


def test_missing_socket_is_502(warp, backend, tmp_path):
    w = warp(conf(app={"socket": str(tmp_path / "none.sock")}))
    assert w.ask().status == 502
    backend(unix=str(tmp_path / "none.sock"))
    assert w.ask().status == 200, "and served once the application is there"


BAD_ANSWERS = {
    "rubbish": b"hello\r\n\r\n",
    "closed without a byte": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "an unknown version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
    "101 without being asked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300000,
}


def test_101_has_no_length(warp, backend):
    """RFC 9110 8.6: what follows is another protocol's."""
    b = backend([REQ, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n" + 2 * b"Content-Length: 5\r\n"
                 + b"\r\nhello"])
    w = warp(conf(app=b))
    with w.client() as c:
        m = c.send(request("/", "Connection: upgrade", "Upgrade: x")).head()
        assert m.status == 101 and not m.has("Content-Length") and c.exactly(5) == b"hello"


@pytest.mark.parametrize("reason", BAD_ANSWERS)
def test_bad_answer_is_502(warp, backend, reason):
    b = backend([REQ, BAD_ANSWERS[reason], CLOSE])
    w = warp(conf(app={"on": b, "retries": 1}))
    with w.client() as c:
        assert c.ask(method="POST", body=b"x").status == 502, reason
        assert len(b.requests) == 1, "a POST goes once"
        assert c.ask("/2").status == 502, "the client's connection stays"


# ---- balance --------------------------------------------------------------------

def served(w, n, **kw):
    with w.client() as c:
        return "".join(c.ask(**kw).text.split(" ")[0] for _ in range(n))


def test_round_robin_is_even(warp, backend):
    w = warp(conf(app=[backend(name=n) for n in "abc"]))
    got = served(w, 9)
    assert sorted(got[:3]) == sorted(got[3:6]) == sorted(got[6:]) == ["a", "b", "c"], got


def test_weights_are_smooth(warp, backend):
    a, b = backend(name="a"), backend(name="b")
    w = warp(conf(app={"strategy": "round_robin", "instances": [dict(a.conf, weight=3), dict(b.conf, weight=1)]}))
    got = served(w, 16)
    assert (got.count("a"), got.count("b")) == (12, 4) and "aaaa" not in got, got


@pytest.mark.promise("S2-60")
def test_mixed_instances(warp, backend):
    w = warp(conf(app=[backend(name="t"), backend(name="u", unix=True), backend(name="6", host="::1")]))
    assert sorted(served(w, 6)) == list("66ttuu")


# ---- kept connections -----------------------------------------------------------

def test_connections_are_reused(warp, backend):
    b = backend()
    w = warp(conf(app=b))
    for i in range(5):
        w.ask("/%d" % i)
    with w.client() as c:
        for i in range(5):
            c.ask("/%d" % i, method="POST", body=b"x" * i)
    assert (len(b.conns), len(b.requests)) == (1, 10)


@pytest.mark.parametrize("keepalive, conns", [(0, 4), (1, 1)])
def test_keepalive(warp, backend, keepalive, conns):
    b = backend()
    w = warp(conf(app={"on": b, "keepalive": keepalive}))
    for _ in range(4):
        w.ask()
    assert len(b.conns) == conns
    if not keepalive:
        assert b.conns[0].closed.wait(TIMEOUT)


def test_keepalive_is_bounded(warp, backend):
    """Four at once, two may stay."""
    gate = threading.Event()
    b = backend([REQ, WAIT(gate), reply("x"), ECHO])
    w = warp(conf(app={"on": b, "keepalive": 2}))
    clients = [w.client().send(request("/")) for _ in range(4)]
    b.request(3)
    gate.set()
    assert [c.response().status for c in clients] == [200] * 4
    eventually(lambda: sum(c.closed.is_set() for c in b.conns) == 2, "two of four closed")
    for c in clients:
        c.close()


NOT_REUSED = {
    "Connection: close": reply("x", "Connection: close"),
    "HTTP/1.0": reply("x", version="1.0"),
    "no length": b"HTTP/1.1 200 OK\r\n\r\nx",
    "bytes too many": reply("x") + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
}


@pytest.mark.parametrize("reason", NOT_REUSED)
def test_not_reused(warp, backend, reason):
    b = backend([REQ, NOT_REUSED[reason]] + ([CLOSE] if reason == "no length" else []), [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        assert c.ask("/1").text == "x"
        assert c.ask("/2").text == "app GET /2 0", reason
    assert len(b.conns) == 2


def test_not_reused_after_head(warp, backend):
    """gunicorn sends a body even to HEAD, some time after the head: it must never answer the next request."""
    b = backend([REQ, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", REQ, b"a body that nobody wants", ECHO], [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        assert c.ask("/1", method="HEAD").status == 200
        assert c.ask("/2", method="POST", body=b"x").text == "app POST /2 1"


# ---- retry ----------------------------------------------------------------------

DIE, DIE_RST = [REQ, CLOSE], [REQ, RST]
PRIME = [REQ, reply("prime")]
# reason: scripts of instance a (None: nobody listens), scripts of b (None: no b), method, body, keys, answer, requests that a and b got
RETRY = {
    "GET, the first closes without answering": ([DIE], [[ECHO]], "GET", None, {}, 200, 1, 1),
    "GET, the first resets": ([DIE_RST], [[ECHO]], "GET", None, {}, 200, 1, 1),
    "HEAD, PUT, DELETE are idempotent too": ([DIE], [[ECHO]], "DELETE", None, {}, 200, 1, 1),
    "PUT without a body": ([DIE], [[ECHO]], "PUT", b"", {}, 200, 1, 1),
    "POST whose bytes went out": ([DIE], [[ECHO]], "POST", b"pay", {}, 502, 1, 0),
    "POST without a body, bytes went out": ([DIE], [[ECHO]], "POST", b"", {}, 502, 1, 0),
    "PATCH is not idempotent": ([DIE], [[ECHO]], "PATCH", b"x", {}, 502, 1, 0),
    "an unknown method is not": ([DIE], [[ECHO]], "FROB", None, {}, 502, 1, 0),
    "POST, never connected": (None, [[ECHO]], "POST", b"pay", {}, 200, 0, 1),
    "a large POST, never connected": (None, [[ECHO]], "POST", b"p" * 300000, {}, 200, 0, 1),
    "a large PUT that is gone cannot be sent again": ([DIE], [[ECHO]], "PUT", b"p" * 3000000, {}, 502, 1, 0),
    "a PUT kept by buffer_request can": ([DIE], [[ECHO]], "PUT", b"p" * 300000, {"buffer_request": 65536}, 200, 1, 1),
    "a POST kept by buffer_request still goes once": ([DIE], [[ECHO]], "POST", b"p" * 300000, {"buffer_request": 65536}, 502, 1,
        0),
    "part of an answer came": ([[REQ, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal", CLOSE]], [[ECHO]], "GET", None, {},
        "cut", 1, 0),
    "part of a head came: GET may go again": ([[REQ, b"HTTP/1.1 200 OK\r\nConte", CLOSE]], [[ECHO]], "GET", None, {},
        {200, 502}, 1, None),
    "an answer is an answer": ([[REQ, reply("no", status="503 Service Unavailable")]], [[ECHO]], "GET", None, {}, 503, 1, 0),
    "all die": ([DIE], [DIE], "GET", None, {}, 502, None, None),
    "all refuse": (None, None, "GET", None, {}, 502, None, None),
}


@pytest.mark.parametrize("reason", RETRY)
def test_retry(warp, backend, reason):
    a_does, b_does, method, body, route, want, at_a, at_b = RETRY[reason]
    a = backend(*a_does, name="a") if a_does else None
    b = backend(*b_does, name="b") if b_does else None
    dead = {"host": "127.0.0.1", "port": free_port()}
    w = warp(conf(route, app={"on": [a or dead, b or dict(dead, port=free_port())], "max_fails": 100}))
    with w.client() as c:
        try:
            m = c.ask("/pay", method=method, body=body)
            got = m.status
        except (EOFError, ConnectionError):
            got = "cut"
        except BrokenPipeError:
            got = c.response().status
    assert got in want if isinstance(want, set) else got == want, "%s: %s" % (reason, got)
    for x, n in ((a, at_a), (b, at_b)):
        if x and n is not None:
            eventually(lambda: len(x.conns) >= n)
            heads = sum(len(k.requests) for k in x.conns)
            assert heads == n, "%s: instance %s got %d requests" % (reason, x.name, heads)
    if got == 200 and method == "PUT":
        assert b.last.body == body
    if reason == "all die":
        assert len(a.conns) + len(b.conns) <= 3, "retries = 2: three tries at most"


@pytest.mark.parametrize("retries, tries", [(0, 1), (1, 2), (3, 4)])
def test_retries(warp, backend, retries, tries):
    dying = [backend(DIE, name=str(i)) for i in range(5)]
    w = warp(conf(app={"on": dying, "retries": retries, "max_fails": 100}))
    assert w.ask().status == 502
    assert sum(len(b.conns) for b in dying) == tries


# what became of the kept connection before the next request
STALE = {"closed while idle": [[*PRIME, CLOSE], [ECHO]], "reset while idle": [[*PRIME, RST], [ECHO]]}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("reason", STALE)
def test_stale_connection(warp, backend, reason, method):
    """A connection that closed while idle is noticed before it is used: even a POST is served, once."""
    b = backend(*STALE[reason])
    w = warp(conf(app={"on": b, "max_fails": 1}))
    with w.client() as c:
        assert c.ask().text == "prime"
        assert b.conn().closed.wait(TIMEOUT)
        assert c.ask("/next", method=method, body=b"x" if method == "POST" else None).status == 200, reason
    assert [r.target for r in b.requests] == ["/", "/next"]


@pytest.mark.parametrize("end", [CLOSE, RST])
@pytest.mark.parametrize("method, want, times", [("GET", 200, 2), ("PUT", 200, 2), ("POST", 502, 1)])
def test_race_with_a_kept_connection(warp, backend, method, want, times, end):
    """It closes as the request arrives: an idempotent one goes again to the same, only instance; a POST never."""
    b = backend([*PRIME, REQ, end], [ECHO])
    w = warp(conf(app={"on": b, "max_fails": 1}))
    with w.client() as c:
        c.ask()
        assert c.ask("/next", method=method, body=None if method == "GET" else b"").status == want
    assert [r.target for r in b.requests] == ["/"] + ["/next"] * times


def test_dead_instance_costs_nobody_a_request(warp, backend):
    w = warp(conf(app=[{"host": "127.0.0.1", "port": free_port()}, backend(), {"socket": "/nonexistent/s"}]))
    with w.client() as c:
        assert [c.ask(method=m, body=b"x" if m == "POST" else None).status for m in ["GET", "POST"] * 10] == [200] * 20


# ---- breaker --------------------------------------------------------------------

def test_breaker_opens_and_tries_again(warp, backend):
    """max_fails failures: no more requests for fail_timeout; then one trial."""
    t = 0.6 * SLOW
    a, b = backend(DIE, DIE, [ECHO], name="a"), backend(name="b")
    w = warp(conf(app={"on": [a, b], "max_fails": 2, "fail_timeout_secs": t}))
    start = time.monotonic()
    got = served(w, 12)
    quick = time.monotonic() - start < t
    assert got.startswith("bbbb"), got
    assert not quick or (got == "b" * 12 and len(a.conns) == 2), "open after two failures: %s, %d" % (got, len(a.conns))
    eventually(lambda: "a" in served(w, 2), "the trial request succeeds and closes it")
    assert set(served(w, 4)) == {"a", "b"}


def test_breaker_half_open_failure_opens_again(warp, backend):
    t = 0.6 * SLOW
    a, b = backend(DIE, name="a"), backend(name="b")
    w = warp(conf(app={"on": [a, b], "max_fails": 2, "fail_timeout_secs": t}))
    end = time.monotonic() + 3 * t
    while time.monotonic() < end:
        assert set(served(w, 5)) == {"b"}
        time.sleep(t / 20)
    assert 3 <= len(a.conns) <= 7, "two to open, then one trial each %.1f s: %d" % (t, len(a.conns))


def test_breaker_never_opens_for_the_only_instance(warp, backend):
    port = free_port()
    w = warp(conf(app={"host": "127.0.0.1", "port": port, "max_fails": 1, "fail_timeout_secs": 60}))
    assert [w.ask().status for _ in range(3)] == [502] * 3
    backend(port=port)
    assert w.ask().status == 200, "back at once"


def test_breaker_all_open(warp, backend):
    """When all are open, one still gets the trial: the first that is back serves at once."""
    ports = [free_port(), free_port()]
    w = warp(conf(app={"on": [{"host": "127.0.0.1", "port": p} for p in ports], "max_fails": 1, "fail_timeout_secs": 60}))
    assert {w.ask().status for _ in range(4)} <= {502, 503}
    backend(port=ports[0])
    backend(port=ports[1])
    eventually(lambda: w.ask().status == 200, "served again", 2 * SLOW)


# ---- limits of connections ------------------------------------------------------

def test_keepalive_requests(warp, backend):
    w = warp(conf(app=backend(), server={"keepalive_requests": 3}))
    with w.client() as c:
        got = [c.ask("/%d" % i) for i in range(3)]
        assert ["close" in m.tokens("connection") for m in got] == [False, False, True]
        assert c.closed()


def test_workers(warp, backend):
    b = backend()
    w = warp(conf(app=b, server={"worker_threads": 2}))
    results = []

    def many():
        with w.client() as c:
            results.extend(c.ask("/%d" % i).status for i in range(50))
    threads = [threading.Thread(target=many) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(TIMEOUT)
    assert results == [200] * 300


# ---- PROXY protocol -------------------------------------------------------------

SIG = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("1.2.3.4") + socket.inet_aton("5.6.7.8") + struct.pack("!HH", 1111, 443)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "::1") + struct.pack("!HH", 1111, 443)


def v2(command, family, payload):
    return SIG + bytes([0x20 | command, family]) + struct.pack("!H", len(payload)) + payload


# reason: what precedes the request, the client's address upstream (None: refused)
PROXY_IN = {
    "v1 TCP4": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\n", "1.2.3.4"),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::1 ::1 1111 443\r\n", "2001:db8::1"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2 TCP4": (v2(1, 0x11, V4), "1.2.3.4"),
    "v2 TCP6": (v2(1, 0x21, V6), "2001:db8::1"),
    "v2 LOCAL": (v2(0, 0, b""), "127.0.0.1"),
    "v2 with TLVs": (v2(1, 0x11, V4 + b"\x04\0\x03abc"), "1.2.3.4"),
    "none at all": (b"", None),
    "v1 of rubbish": (b"PROXY TCP4 1.2.3.4\r\n", None),
    "v1 too long": (b"PROXY TCP4 " + b"1" * 200 + b"\r\n", None),
    "v1 with a bad address": (b"PROXY TCP4 1.2.3.999 5.6.7.8 1 2\r\n", None),
    "v2 too short": (v2(1, 0x11, V4[:6]), None),
    "v2 of version 3": (SIG + b"\x31\x11\0\x0c" + V4, None),
}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("reason", PROXY_IN)
def test_proxy_protocol_in(warp, backend, reason, split):
    head, ip = PROXY_IN[reason]
    b = backend()
    w = warp(conf(app=b, server={"proxy_protocol": True}))
    with w.client() as c:
        raw = head + request("/1")
        try:
            for piece in ([raw[i:i + 1] for i in range(len(raw))] if split else [raw]):
                c.send(piece)
        except OSError:
            assert not ip
        if ip:
            assert c.response().status == 200, reason
            assert c.ask("/2").status == 200, "once a connection"
            assert [r.get("X-Forwarded-For") for r in b.requests] == [ip, ip]
        else:
            try:
                assert c.response().status == 400
            except (EOFError, ConnectionError):
                pass
            assert not b.requests, reason


def read_proxy(c):
    """A step: takes the PROXY header off the connection and notes it in c.proxy."""
    while len(c.buf) < 16 or b"\r\n" not in c.buf:
        c.fill()
    if c.buf.startswith(SIG):
        head = c.exactly(16)
        assert head[12] == 0x21, head
        payload = c.exactly(struct.unpack("!H", head[14:])[0])
        family, n = (socket.AF_INET, 4) if head[13] == 0x11 else (socket.AF_INET6, 16)
        c.proxy = (socket.inet_ntop(family, payload[:n]), socket.inet_ntop(family, payload[n:2 * n]),
            *struct.unpack("!HH", payload[2 * n:2 * n + 4]))
    else:
        word, kind, src, dst, sport, dport = c.until(b"\r\n").decode().split()
        assert word == "PROXY" and kind in ("TCP4", "TCP6")
        c.proxy = (src, dst, int(sport), int(dport))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_proxy_protocol_out(warp, backend, version):
    b = backend([read_proxy, ECHO])
    v6 = free_port()
    w = warp(conf(app={"on": b, "proxy_protocol": version}, server={"listen": ["127.0.0.1:@PORT@", "[::1]:%d" % v6]}))
    with w.client() as c:
        c.ask("/1")
        c.ask("/2")
        ip, port = c.sock.getsockname()
        assert b.conns[0].proxy == ("127.0.0.1", "127.0.0.1", port, w.port)
    with Client(("::1", v6)) as c:
        assert c.ask("/3").status == 200
        source = c.sock.getsockname()
    for conn in b.conns:
        whose = {r.target for r in conn.requests}
        assert whose <= {"/1", "/2"} or whose == {"/3"}, "a connection speaks for one client only"
    mine = next(k for k in b.conns if k.requests and k.requests[0].target == "/3")
    assert mine.proxy == ("::1", "::1", source[1], v6)


def test_proxy_protocol_through(warp, backend):
    """In and out: the client's address goes through."""
    b = backend([read_proxy, ECHO])
    w = warp(conf(app={"on": b, "proxy_protocol": "v2"}, server={"proxy_protocol": True}))
    with w.client() as c:
        c.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\n" + request("/"))
        assert c.response().status == 200
    assert b.conns[0].proxy[0::2] == ("1.2.3.4", 1111)


# ---- buffer_request -------------------------------------------------------------

# reason: bytes in memory, bytes of body
SPOOLED = [
    ("nothing", 1000, 0),
    ("all in memory", 1000, 999),
    ("exactly", 1000, 1000),
    ("one byte in the file", 1000, 1001),
    ("most in the file", 1000, 300000),
    ("everything in the file", 0, 5000),
    ("more than any buffer", 65536, 3000000),
]


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("reason, memory, n", SPOOLED)
def test_buffer_request(warp, backend, reason, memory, n, coding):
    """The upstream sees nothing until the request is whole, and then all of it."""
    b = backend()
    w = warp(conf({"buffer_request": memory}, app=b))
    body = bytes(i * 7 % 251 for i in range(min(n, 1000))) * (n // 1000 or 1)
    body += b"e" * (n - len(body))
    raw = request("/up", method="POST", body=body) if coding == "length" else request("/up", "Transfer-Encoding: chunked",
        method="POST") + (chunks(body) if body else chunks())
    with w.client() as c:
        c.send(raw[:-1])
        assert c.is_open(0.1) and not any(k.raw for k in b.conns), "not a byte upstream while the body is incomplete"
        c.send(raw[-1:])
        assert c.response().text == "app POST /up %d" % n
        assert b.last.body == body, "byte for byte"
        assert c.ask("/next").status == 200


def test_buffer_request_client_leaves(warp, backend):
    b = backend()
    w = warp(conf({"buffer_request": 10}, app=b))
    with w.client() as c:
        c.send(request("/", "Content-Length: 1000", method="POST") + b"x" * 500)
        assert c.is_open(0.1)
    assert w.ask("/next").status == 200
    assert [r.target for r in b.requests] == ["/next"]


def test_buffer_request_limit_is_first(warp, backend):
    b = backend()
    w = warp(conf({"buffer_request": 10, "max_body_bytes": 100}, app=b))
    assert w.ask(method="POST", body=b"x" * 101).status == 413
    assert not b.conns


def test_harness_backend_refuses_sloppy_requests():
    """The reader the other tests lean on: bare LF, two lengths and a missing Host are not HTTP."""
    for raw in (b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        b = Backend()
        with connect(b.port) as s:
            s.sendall(raw)
            eventually(lambda: b.errors, "noticed")
        with pytest.raises(AssertionError):
            b.close()
