"""Bodies and tunnels: they flow as they come, in bounded memory, and nobody is told a cut answer was whole."""
import hashlib
import os
import re
import threading
import time

import pytest

from lib import (BODY, CLOSE, ECHO, FIN, HEAD, REQ, RST, SANITIZED, SLOW, SWITCH, TIMEOUT, UPGRADE, WAIT, Client, chunks, conf,
                 eventually, reply, request)

MB = 1 << 20
HEAD_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GROWTH = 3 * MB                  # of all processes together, whatever passes through


def peak(w):
    """Highest resident memory so far of warp's processes, together."""
    total = 0
    for pid in [w.pid] + w.children():
        with open("/proc/%d/status" % pid) as f:
            total += int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) * 1024
    return total


class bounded:
    """`with bounded(w):` asserts that memory did not grow meanwhile."""

    def __init__(self, w):
        self.w, self.before = w, peak(w)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        grown = peak(self.w) - self.before
        assert kind or SANITIZED or grown < GROWTH, "memory grew by %.1f MB" % (grown / MB)


# ---- as it comes ----------------------------------------------------------------

@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_events_pass_at_once(warp, backend, version, framing):
    """SSE: each event arrives before the next one is made."""
    tick = threading.Semaphore(0)

    def events(c):
        framed = b"Transfer-Encoding: chunked" if framing == "chunked" else b"Connection: close"
        c.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s\r\n\r\n" % framed)
        for i in range(5):
            assert tick.acquire(timeout=TIMEOUT)
            event = b"data: %d\n\n" % i
            c.send(chunks(event, last=False) if framing == "chunked" else event)
        c.send(chunks() if framing == "chunked" else b"")
        c.sock.close()
    w = warp(conf(app=backend([REQ, events])))
    with w.client() as c:
        c.send(request("/events", version=version))
        m = c.head(TIMEOUT)
        assert m.get("Content-Type") == "text/event-stream", "the head comes before the first event"
        assert version == "1.1" or not m.has("Transfer-Encoding"), "HTTP/1.0 knows no chunks"
        for i in range(5):
            tick.release()
            assert b"data: %d\n\n" % i in c.until(b"data: %d\n\n" % i, TIMEOUT)
        rest = c.rest(TIMEOUT) if not m.has("Transfer-Encoding") else c.until(b"0\r\n\r\n", TIMEOUT)
        assert b"data" not in rest


def test_upload_passes_as_it_comes(warp, backend):
    """The head, then every piece, reach the app before the next is sent."""
    b = backend([HEAD, BODY, reply("done"), ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/up", "Transfer-Encoding: chunked", method="POST"))
        eventually(lambda: b.conns and b.conns[0].requests, "the head upstream at once")
        for i in range(4):
            c.send(chunks(b"piece-%d" % i, last=False))
            eventually(lambda: b"piece-%d" % i in b.conns[0].raw, "piece %d" % i)
        assert c.send(chunks()).response().text == "done"
        assert b.last.body == b"piece-0piece-1piece-2piece-3"


def test_answer_before_the_upload_ends(warp, backend):
    """An early answer reaches the client while it still sends; what is left of the body is no request."""
    b = backend([HEAD, reply("enough", "Connection: close", status="403 Forbidden"), WAIT(threading.Event(), 0.2), CLOSE],
        [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/up", "Content-Length: 100000", method="POST") + b"x" * 1000)
        m = c.response()
        assert (m.status, m.text) == (403, "enough")
    assert w.ask("/next").text == "app GET /next 0"


def test_early_answer_survives_a_big_upload(warp, backend):
    """A client that goes on sending megabytes before it looks still finds the answer: no reset on the way."""
    b = backend([HEAD, reply("enough", "Connection: close"), CLOSE], [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/up", "Transfer-Encoding: chunked", method="POST"))
        for _ in range(60):
            c.send(chunks(b"x" * 60000, last=False))
            time.sleep(0.005)
        assert c.response().text == "enough"


# ---- back pressure and size -----------------------------------------------------

@pytest.mark.limit(40)
def test_slow_reader_stops_the_backend(warp, backend):
    """A client that does not read: warp takes what its buffers hold and no more, then all arrives whole."""
    sent, n = [0], 100 * MB

    def flood(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
        while sent[0] < n:
            sent[0] += c.sock.send(bytes(65536))
    b = backend([REQ, flood])
    w = warp(conf(app=b))
    with bounded(w), Client(w.port, rcvbuf=65536) as c:
        c.send(request("/"))
        c.head(TIMEOUT)
        stalled(lambda: sent[0])
        assert sent[0] < 40 * MB, "socket buffers, not memory: %d MB went" % (sent[0] >> 20)
        got = len(c.buf)
        while got < n:
            piece = c.sock.recv(1 << 20)
            assert piece, "cut after %d" % got
            got += len(piece)
        assert got == n


def stalled(read):
    """Waits until read() has stopped moving."""
    def probe():
        before = read()
        time.sleep(0.2)
        return read() == before
    eventually(probe, "no more movement", 2 * TIMEOUT)


@pytest.mark.limit(40)
def test_slow_backend_stops_the_upload(warp, backend):
    gate = threading.Event()
    digest = hashlib.sha256()
    n = 60 * MB

    def swallow(c):
        left = n - len(c.buf)
        digest.update(c.buf)
        c.buf = b""
        while left:
            piece = c.sock.recv(1 << 20)
            left -= len(piece)
            digest.update(piece)
    b = backend([HEAD, WAIT(gate), swallow, reply("whole"), CLOSE], record=False, rcvbuf=65536)
    w = warp(conf(app=b, server={"body_timeout_secs": 60}))
    piece = os.urandom(MB)
    sent = [0]
    with bounded(w), w.client() as c:
        def upload():
            c.sock.settimeout(4 * TIMEOUT)
            for _ in range(n // MB):
                c.sock.sendall(piece)
                sent[0] += MB
        c.send(request("/", "Content-Length: %d" % n, method="PUT"))
        t = threading.Thread(target=upload, daemon=True)
        t.start()
        b.wait(lambda: b.conns)
        stalled(lambda: sent[0])
        assert sent[0] < 40 * MB, "socket buffers, not memory: %d MB went" % (sent[0] >> 20)
        gate.set()
        assert c.response(timeout=4 * TIMEOUT).text == "whole"
        t.join(TIMEOUT)
    assert digest.hexdigest() == hashlib.sha256(piece * (n // MB)).hexdigest()


@pytest.mark.limit(60)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.promise("S2-86")
def test_200_mb_both_ways(warp, backend, framing):
    """Up and down at once, byte for byte, in constant memory."""
    n = (20 if SANITIZED else 200) * MB
    piece = os.urandom(MB)

    def echo(c):                                               # sends back what comes, as it comes
        c.begin()
        c.send(HEAD_CHUNKED if framing == "chunked" else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
        if framing == "length":
            left = n
            while left:
                got = c.buf or c.sock.recv(1 << 18)
                c.buf = b""
                c.sock.sendall(got)
                left -= len(got)
        else:
            while (size := int(c.until(b"\r\n"), 16)):
                c.send(b"%x\r\n" % size + c.exactly(size + 2))
            c.send(c.until(b"\r\n") and b"0\r\n\r\n")
    b = backend([echo], record=False)
    w = warp(conf(app=b))
    want, got = hashlib.sha256(), hashlib.sha256()
    with bounded(w), w.client() as c:
        c.sock.settimeout(4 * TIMEOUT)

        def upload():
            c.sock.sendall(request("/", "Content-Length: %d" % n if framing == "length" else "Transfer-Encoding: chunked",
                method="PUT"))
            for _ in range(n // MB):
                c.sock.sendall(piece if framing == "length" else chunks(piece, last=False))
            if framing == "chunked":
                c.sock.sendall(chunks())
        t = threading.Thread(target=upload, daemon=True)
        t.start()
        for _ in range(n // MB):
            want.update(piece)
        m = c.head(TIMEOUT)
        assert m.status == 200
        left = n
        if framing == "length":
            while left:
                data = c.buf or c.sock.recv(1 << 20)
                c.buf = b""
                left -= len(data)
                assert data, "cut with %d left" % left
                got.update(data)
        else:
            while (size := int(c.until(b"\r\n", TIMEOUT), 16)):
                got.update(c.exactly(size + 2, TIMEOUT)[:-2])
                left -= size
            c.until(b"\r\n", TIMEOUT)
        t.join(TIMEOUT)
    assert left == 0 and got.digest() == want.digest()


# ---- somebody leaves ------------------------------------------------------------

def on_and_on(c):
    """More of an answer, as long as the peer takes it."""
    while True:
        c.send(b"more")
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["waiting for the answer", "in mid-answer", "in mid-upload"])
def test_client_leaves(warp, backend, how, when):
    """The upstream connection is closed, and the next request gets a fresh one. A close alone looks like
    a half-close, which is allowed to wait for its answer: it shows when warp writes."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nhalf"
    left = threading.Event()
    late = [WAIT(left), endless, on_and_on] if how == "close" else []
    b = backend({"waiting for the answer": [REQ, *late], "in mid-answer": [REQ, endless, on_and_on],
        "in mid-upload": [HEAD, BODY]}[when], [ECHO])
    w = warp(conf(app=b))
    c = w.client()
    c.send(request("/", "Content-Length: 100", method="PUT") + b"half" if when == "in mid-upload" else request("/"))
    conn = b.conn()
    eventually(lambda: conn.requests, "the request upstream")
    if when == "in mid-answer":
        c.until(b"half", TIMEOUT)
    c.rst() if how == "reset" else c.close()
    left.set()
    assert conn.closed.wait(TIMEOUT), "the upstream connection is closed"
    assert w.ask("/next").text == "app GET /next 0"
    assert len(b.conns) == 2


def test_half_closed_client_gets_its_answer(warp, backend):
    gate = threading.Event()
    w = warp(conf(app=backend([REQ, WAIT(gate), reply("late"), ECHO])))
    with w.client() as c:
        c.send(request("/")).fin()
        assert c.is_open(0.2)
        gate.set()
        assert c.response().text == "late"
        assert c.closed()


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "chunked, between chunks": HEAD_CHUNKED + b"4\r\nhalf\r\n",
    "chunked, in a chunk": HEAD_CHUNKED + b"64\r\nhalf",
    "chunked, before the last CRLF": HEAD_CHUNKED + b"4\r\nhalf\r\n0\r\n",
    "chunked, rubbish for a size": HEAD_CHUNKED + b"4\r\nhalf\r\n",
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("end", [CLOSE, RST])
@pytest.mark.parametrize("reason", CUT)
def test_upstream_gone_in_mid_body(warp, backend, reason, end, version):
    """The client sees truncation, never a clean end. HTTP/1.0 without a length: a reset says so."""
    gate = threading.Event()
    w = warp(conf(app=backend([REQ, CUT[reason], WAIT(gate), b"zz\r\n" if "rubbish" in reason else b"", end])))
    with w.client() as c:
        c.send(request("/", version=version))
        c.until(b"half", TIMEOUT)
        c.buf = b""
        gate.set()
        with pytest.raises((ConnectionError, EOFError)):
            tail = c.rest(TIMEOUT)
            assert b"\r\n0\r\n\r\n" not in tail and tail != b"0\r\n\r\n", "a clean end was made up"
            if version == "1.1" or reason == "length":
                raise EOFError                                 # incomplete by its own framing


# ---- framing --------------------------------------------------------------------

# reason: the upstream's answer (closed behind it), version of the client, framing and body the client must see
TRANSLATED = {
    "length stays length": (reply("hello"), "1.1", "length", b"hello"),
    "chunked stays chunked": (HEAD_CHUNKED + chunks(b"he", b"llo"), "1.1", "chunked", b"hello"),
    "close-delimited": (b"HTTP/1.1 200 OK\r\n\r\nhello", "1.1", None, b"hello"),
    "of an HTTP/1.0 server": (b"HTTP/1.0 200 OK\r\n\r\nhello", "1.1", None, b"hello"),
    "chunked to HTTP/1.0": (HEAD_CHUNKED + chunks(b"he", b"llo"), "1.0", "close", b"hello"),
    "length to HTTP/1.0": (reply("hello"), "1.0", "length", b"hello"),
    "empty chunked": (HEAD_CHUNKED + chunks(), "1.1", "chunked", b""),
    "chunk extensions end here": (HEAD_CHUNKED + b"5;a=\"b;c\"\r\nhello\r\n0;x\r\n\r\n", "1.1", "chunked", b"hello"),
    "one-byte chunks": (HEAD_CHUNKED + chunks(*[b"%c" % x for x in b"hello"]), "1.1", "chunked", b"hello"),
    "a big one": (HEAD_CHUNKED + chunks(b"x" * 200000), "1.1", "chunked", b"x" * 200000),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "1.1", "none", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", "1.1", "none", b""),
}


@pytest.mark.parametrize("reason", TRANSLATED)
def test_translated(warp, backend, reason):
    answer, version, framing, body = TRANSLATED[reason]
    w = warp(conf(app=backend([REQ, answer, CLOSE], [ECHO])))
    with w.client() as c:
        m = c.ask("/", version=version)
        assert m.body == body and (framing is None or m.framing == framing), "%s: %r" % (reason, m)
        if version == "1.0":
            assert c.closed()
        elif m.framing != "close":
            assert c.ask("/2").status == 200, "the connection stays in step"


def test_head_has_no_body(warp, backend):
    b = backend([REQ, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ECHO], [REQ, HEAD_CHUNKED, ECHO], [ECHO])
    w = warp(conf(app={"on": b, "keepalive": 0}))
    with w.client() as c:
        assert c.ask(method="HEAD").get("Content-Length") == "5"
        assert c.ask(method="HEAD").status == 200
        assert c.ask("/3").text == "app GET /3 0"


def test_http10_keep_alive(warp, backend):
    w = warp(conf(app=backend()))
    with w.client() as c:
        m = c.ask("/1", "Connection: keep-alive", version="1.0")
        assert "keep-alive" in m.tokens("connection")
        assert c.ask("/2", version="1.0").text == "app GET /2 0"
        assert c.closed()


@pytest.mark.parametrize("trailers", [[], ["X-Sum: abc"], ["X-A: 1", "X-B: two words"]])
def test_trailers_both_ways(warp, backend, trailers):
    b = backend([REQ, HEAD_CHUNKED.replace(b"\r\n\r\n", b"\r\nTrailer: X-Sum\r\n\r\n") + chunks(b"x", trailers=trailers), ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/", "Transfer-Encoding: chunked", "TE: trailers", method="POST") + chunks(b"up", b"load",
            trailers=trailers))
        m = c.response()
        want = [tuple(t.split(": ", 1)) for t in trailers]
        assert (m.body, m.trailers) == (b"x", want)
        assert (b.last.body, b.last.trailers) == (b"upload", want)
        assert c.ask("/2").status == 200


@pytest.mark.parametrize("trailer", ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil",
    "X-Forwarded-For: 6.6.6.6", "Connection: close"])
def test_trailers_are_no_framing(warp, backend, trailer):
    b = backend()
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/", "Transfer-Encoding: chunked", method="POST") + chunks(b"up", trailers=[trailer]))
        m = c.response()
        assert m.status in (200, 400)
        assert m.status == 400 or not b.last.trailers, "dropped or refused"


def test_pipelining_in_order(warp, backend):
    """Answers come in the order of the requests, whoever is quicker."""
    gate = threading.Event()
    slow, fast = backend([REQ, WAIT(gate), reply("slow"), ECHO], name="slow"), backend(name="fast")
    w = warp(conf({"path_prefix": "/slow", "upstream": "slow"}, {"path_prefix": "/", "upstream": "fast"}, slow=slow, fast=fast))
    with w.client() as c:
        c.send(request("/slow") + b"".join(request("/%d" % i, method="POST", body=b"x" * i) for i in range(20)))
        assert c.is_open(0.1)
        gate.set()
        assert [c.response().text for _ in range(21)] == ["slow"] + ["fast POST /%d %d" % (i, i) for i in range(20)]


def test_deep_pipeline(warp, backend):
    """More requests at once than any buffer holds."""
    w = warp(conf(app=backend()))
    n = 2000
    with w.client() as c:
        raw = b"".join(request("/%d" % i, "X-Pad: " + "p" * 100) for i in range(n))
        t = threading.Thread(target=c.sock.sendall, args=(raw,), daemon=True)
        t.start()
        for i in range(n):
            assert c.response().text == "app GET /%d 0" % i
        t.join(TIMEOUT)


def test_byte_by_byte(warp, backend):
    """Every cut of a request and of an answer is the same request and answer."""
    answer = HEAD_CHUNKED + chunks(b"hello", b"world", trailers=["X-T: 1"])
    w = warp(conf(app=backend([REQ, *[lambda c, x=bytes([x]): time.sleep(0.0005) or x for x in answer], ECHO])))
    with w.client() as c:
        for x in request("/", "Transfer-Encoding: chunked", method="POST") + chunks(b"data", b"more"):
            c.send(bytes([x]))
        m = c.response()
        assert (m.body, m.trailers) == (b"helloworld", [("X-T", "1")])


# ---- 1xx ------------------------------------------------------------------------

def test_expect_continue(warp, backend):
    """The 100 comes before the body is sent, whoever makes it."""
    def go_on(c):
        if c.last.has("expect"):
            c.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    b = backend([HEAD, go_on, BODY, reply("got it"), ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert c.interim().status == 100
        m = c.send(b"hello").response()
        assert (m.text, m.interim) == ("got it", []), "one 100, not two"
        assert b.last.body == b"hello"
        assert c.ask("/2").status == 200


def test_expect_refused_by_the_app(warp, backend):
    b = backend([HEAD, reply("no", "Connection: close", status="403 Forbidden"), WAIT(threading.Event(), 0.1), CLOSE], [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/", "Content-Length: 50", "Expect: 100-continue", method="POST"))
        assert c.response().status == 403


def test_early_hints(warp, backend):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    gate = threading.Event()
    w = warp(conf(app=backend([REQ, hints, hints, WAIT(gate), reply("page"), REQ, hints, reply("old"), ECHO])))
    with w.client() as c:
        c.send(request("/"))
        assert [c.interim().get("Link") for _ in range(2)] == ["</a.css>; rel=preload"] * 2, "relayed at once"
        gate.set()
        assert c.response().text == "page"
        m = c.ask("/", "Connection: keep-alive", version="1.0")
        assert (m.text, m.interim) == ("old", []), "HTTP/1.0 knows no 1xx"


# ---- tunnels --------------------------------------------------------------------

def tunnel_echo(c):
    """Sends back what comes; after the end of it one last word."""
    while True:
        if c.buf:
            c.send(c.buf)
            c.buf = b""
        if not c.fill():
            c.send(b"last word")
            return


@pytest.mark.parametrize("token", ["websocket", "my-protocol/2"])
@pytest.mark.parametrize("unix", [None, True])
def test_tunnel(warp, backend, token, unix):
    b = backend([REQ, SWITCH.replace(b"websocket", token.encode()), tunnel_echo, CLOSE], unix=unix)
    w = warp(conf(app=b))
    with w.client() as c:
        m = c.ask("/ws", *[u.replace("websocket", token) for u in UPGRADE])
        assert (m.status, m.get("Upgrade"), m.tokens("connection")) == (101, token,
               ["upgrade"]) and m.has("Sec-WebSocket-Accept")
        assert b.last.get("Upgrade") == token and "upgrade" in b.last.tokens("connection")
        assert b.last.has("Sec-WebSocket-Key") and b.last.get("X-Real-IP") == "127.0.0.1"
        for i in range(20):
            c.send(b"\x81\x05ping%d" % (i % 10))
            assert c.exactly(7, TIMEOUT) == b"\x81\x05ping%d" % (i % 10)
        big = os.urandom(3 * MB)
        t = threading.Thread(target=c.sock.sendall, args=(big,), daemon=True)
        t.start()
        assert c.exactly(len(big), TIMEOUT) == big
        t.join(TIMEOUT)
        c.fin()
        assert c.rest(TIMEOUT) == b"last word", "half-close is kept: the other direction still works"
    assert b.conn().closed.wait(TIMEOUT)


def test_tunnel_early_data(warp, backend):
    """What the client sends before the 101 reaches the tunnel once it is open, not before."""
    gate = threading.Event()
    b = backend([REQ, WAIT(gate), SWITCH, tunnel_echo])
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(request("/ws", *UPGRADE) + b"early")
        b.request()
        assert not b.conns[0].raw.endswith(b"early")
        gate.set()
        assert c.response().status == 101
        assert c.exactly(5, TIMEOUT) == b"early"


@pytest.mark.parametrize("who", ["client closes", "client resets", "backend closes", "backend half-closes"])
def test_tunnel_ends(warp, backend, who):
    got = []

    def half_closer(c):
        FIN(c)
        got.append(c.rest())
    b = backend([REQ, SWITCH + b"hello", *{"backend closes": [CLOSE], "backend half-closes": [half_closer]}.get(who, [])])
    w = warp(conf(app=b))
    c = w.client()
    assert c.ask("/ws", *UPGRADE).status == 101
    assert c.exactly(5, TIMEOUT) == b"hello"
    if who == "client closes":
        c.close()
    elif who == "client resets":
        c.rst()
    elif who == "backend closes":
        assert c.closed()
    else:
        assert c.closed()
        c.send(b"still there")
        c.fin()
        eventually(lambda: got == [b"still there"], "the other direction after a half-close")
    assert b.conn().closed.wait(TIMEOUT)
    c.close()


def test_tunnel_slow_reader(warp, backend):
    """Back pressure holds in tunnels too."""
    sent = [0]

    def flood(c):
        while sent[0] < 60 * MB:
            sent[0] += c.sock.send(bytes(65536))
    w = warp(conf(app=backend([REQ, SWITCH, flood, CLOSE], record=False)))
    with bounded(w), Client(w.port, rcvbuf=65536) as c:
        c.send(request("/ws", *UPGRADE))
        c.head(TIMEOUT)
        stalled(lambda: sent[0])
        assert sent[0] < 40 * MB
        got = len(c.buf)
        while (piece := c.sock.recv(1 << 20)):
            got += len(piece)
        assert got == 60 * MB


def test_upgrade_refused(warp, backend):
    """426 where the route says websocket = false; by the app: an ordinary answer."""
    b = backend([REQ, reply("no", status="400 Bad Request"), ECHO])
    w = warp(conf({"path_prefix": "/plain", "websocket": False}, {"path_prefix": "/"}, app=b))
    with w.client() as c:
        assert c.ask("/ws", *UPGRADE).status == 400
        assert c.ask("/x").text == "app GET /x 0", "HTTP goes on"
        assert c.ask("/plain", *UPGRADE).status == 426
        n = len(b.requests)
        assert c.ask("/plain").status == 200 and len(b.requests) == n + 1, "plain requests pass there"


def test_many_tunnels(warp, backend):
    w = warp(conf(app=backend([REQ, SWITCH, tunnel_echo], record=False)))
    open_ = []
    for i in range(60):
        c = w.client()
        assert c.ask("/ws", *UPGRADE).status == 101
        open_.append(c)
    for i, c in enumerate(open_):
        c.send(b"tunnel %02d" % i)
    for i, c in enumerate(open_):
        assert c.exactly(9, TIMEOUT) == b"tunnel %02d" % i
        c.close()


# ---- an idle warp ---------------------------------------------------------------

def test_waiting_costs_no_cpu(warp, backend):
    """With a stalled request, a half-closed client, a tunnel and idle clients it sleeps."""
    b = backend([REQ, SWITCH, tunnel_echo], [REQ], [REQ], [ECHO])
    w = warp(conf(app=b))
    tunnel, waiting, half = w.client(), w.client(), w.client()
    tunnel.ask("/ws", *UPGRADE)
    waiting.send(request("/"))
    b.request(1)
    half.send(request("/")).fin()
    b.request(2)
    idle = [w.client() for _ in range(20)]
    for c in idle:
        c.ask()

    def ticks():
        return sum(sum(map(int, open("/proc/%d/stat" % p).read().rsplit(")",
            1)[1].split()[11:13])) for p in [w.pid] + w.children())
    time.sleep(0.2)
    before = ticks()
    time.sleep(1.5)
    used = (ticks() - before) / os.sysconf("SC_CLK_TCK")
    assert used < 0.15 * SLOW, "%.2f s of CPU in 1.5 s of waiting" % used
    for c in idle:
        assert c.ask("/again").status == 200, "parked connections wake up"
        c.close()
    for c in (tunnel, waiting, half):
        c.close()


@pytest.mark.parametrize("seed", range(2))
def test_random_traffic(warp, backend, seed):
    """Sixteen clients, every size and framing, some leave in between: each gets its own answer, whole."""
    import random

    def mirror(c):
        while True:
            m = c.request()
            r = random.Random(m.target)
            body = m.target.encode() * r.choice([1, 10, 3000]) + m.body
            c.send(reply(body) if r.random() < 0.5 else HEAD_CHUNKED + chunks(*[body[i:i + 5000] for i in range(0, len(body),
                5000)]))
    w = warp(conf(app={"on": [backend([mirror], record=False), backend([mirror], record=False, unix=True)], "keepalive": 3}))
    problems = []

    def client(k):
        r = random.Random(seed * 100 + k)
        try:
            c = w.client()
            for i in range(25):
                target = "/%d-%d-%d" % (seed, k, i)
                body = bytes(r.randrange(1, 256) for _ in range(r.choice([0, 1, 700, 4096]))) * r.choice([1, 1, 30])
                raw = request(target, method="PUT", body=body) if r.random() < 0.5 else request(target,
                    "Transfer-Encoding: chunked", method="PUT") + (chunks(*[body[j:j + 3000] for j in range(0, len(body),
                    3000)]) if body else chunks())
                if r.random() < 0.1:
                    c.send(raw[:r.randrange(1, len(raw))])
                    c.close()
                    c = w.client()
                    continue
                c.send(raw)
                m = c.response()
                want = target.encode() * random.Random(target).choice([1, 10, 3000]) + body
                if (m.status, m.body) != (200, want):
                    problems.append("%s: %r instead of %d bytes" % (target, m, len(want)))
            c.close()
        except Exception as e:  # noqa: BLE001: a thread's failure must reach the test
            problems.append("client %d: %r" % (k, e))
    threads = [threading.Thread(target=client, args=(k,)) for k in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(3 * TIMEOUT)
    assert not problems, problems[:5]
