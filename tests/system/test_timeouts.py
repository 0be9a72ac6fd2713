"""Every timeout: it strikes in time, not before, with the right answer, and lets go of what it held."""
import os
import signal
import threading
import time

import pytest

from lib import (BODY, ECHO, HEAD, REQ, SLOW, SWITCH, TIMEOUT, UPGRADE, Client, chunks, conf, eventually, freeze, reply, request,
                 toml_file)

T = 0.5 * SLOW                   # the timeout under test
FAR = 30 * SLOW                  # the others
SERVER = {
    "header_timeout_secs": FAR,
    "body_timeout_secs": FAR,
    "keepalive_timeout_secs": FAR,
    "write_timeout_secs": FAR,
    "tunnel_timeout_secs": FAR,
}
UP = {"connect_timeout_secs": FAR, "read_timeout_secs": FAR, "write_timeout_secs": FAR}


class Stopwatch:
    """`with lasts(T):` asserts that the block took a timeout of T, no less and not much more."""

    def __init__(self, t):
        self.t = t

    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, kind, *_):
        took = time.monotonic() - self.start
        if not kind:
            assert 0.8 * self.t <= took <= self.t + 2 * SLOW, "took %.2f s, the timeout is %.2f s" % (took, self.t)


lasts = Stopwatch


def drip(c, data, pause):
    for i in range(len(data)):
        c.send(data[i:i + 1])
        time.sleep(pause)


@pytest.mark.parametrize("reason, sent", [("a head that stops", b"GET / HTTP/1.1\r\nHost: a.exa"), ("a request line that stops",
    b"GET"), ("no empty line", b"GET / HTTP/1.1\r\nHost: a\r\n")])
def test_header_timeout(warp, backend, reason, sent):
    b = backend()
    w = warp(conf(app=b, server={**SERVER, "header_timeout_secs": T}))
    with w.client() as c, lasts(T):
        m = c.send(sent).response()
        assert m.status == 408, reason
        assert c.closed()
    assert not b.conns


def test_header_timeout_is_for_the_whole_head(warp, backend):
    """Slowloris does not extend it."""
    w = warp(conf(app=backend(), server={**SERVER, "header_timeout_secs": T}))
    with w.client() as c, lasts(T):
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        while c.is_open(T / 10):
            c.send(b"x")
        assert c.response().status == 408


def test_no_byte_at_all(warp, backend):
    w = warp(conf(app=backend(), server={**SERVER, "header_timeout_secs": T, "keepalive_timeout_secs": T}))
    with w.client() as c, lasts(T):
        eventually(lambda: not c.is_open(0.05), "closed")


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_body_timeout(warp, backend, coding):
    b = backend([HEAD, BODY])
    w = warp(conf(app=b, server={**SERVER, "body_timeout_secs": T}))
    with w.client() as c, lasts(T):
        c.send(request("/", "Content-Length: 100" if coding == "length" else "Transfer-Encoding: chunked",
            method="POST") + (b"half" if coding == "length" else chunks(b"half", last=False)))
        assert c.response().status == 408
        assert c.closed()
    assert b.conn().closed.wait(TIMEOUT), "the upstream connection is let go"


def test_body_timeout_is_between_reads(warp, backend):
    w = warp(conf(app=backend(), server={**SERVER, "body_timeout_secs": T}))
    with w.client() as c:
        c.send(request("/", "Content-Length: 8", method="POST"))
        drip(c, b"12345678", T / 4)
        assert c.response().text == "app POST / 8"


@pytest.mark.parametrize("reason, before, sent", [("after an answer", True, b""), ("before the first request, by the shorter of the two",
    False, b""), ("an empty line is no head: RFC 9112 2.2", True, b"\r\n"), ("nor before the first request", False, b"\r\n\r\n")])
def test_keepalive_timeout(warp, backend, reason, before, sent):
    w = warp(conf(app=backend(), server={**SERVER, "keepalive_timeout_secs": T,
        **({} if before else {"header_timeout_secs": T})}))
    with w.client() as c:
        if before:
            c.ask()
            time.sleep(T / 2)
            c.ask()
        with lasts(T):
            c.send(sent)
            eventually(lambda: not c.is_open(0.05), reason)
            assert c.closed(), reason


def test_keepalive_does_not_cut_requests(warp, backend):
    """Neither a slow answer nor a slow next head is idle time."""
    go = threading.Event()
    b = backend([REQ, lambda c: go.wait(3 * T) and None, reply("late"), ECHO])
    w = warp(conf(app=b, server={**SERVER, "keepalive_timeout_secs": T}))
    with w.client() as c:
        assert c.ask().text == "late"
        c.send(b"GET / HTTP/1.1\r\n")
        time.sleep(1.5 * T)
        assert c.send(b"Host: a\r\n\r\n").response().status == 200


@pytest.mark.parametrize("where", ["upstream", "route"])
@pytest.mark.promise("S2-72")
def test_connect_timeout(warp, blackhole, where):
    keys = {"connect_timeout_secs": T}
    w = warp(conf(keys if where == "route" else {}, app={"on": blackhole, **UP, "retries": 0,
        **(keys if where == "upstream" else {})}, server=SERVER))
    with w.client() as c:
        with lasts(T):
            assert c.ask().status == 504
        assert c.is_open(), "the client connection survives"


def test_connect_timeout_fails_over(warp, backend, blackhole):
    w = warp(conf(app={"on": [blackhole, backend()], **UP, "connect_timeout_secs": T}, server=SERVER))
    assert [w.ask(method=m, body=x).status for m, x in (("GET", None), ("POST", b"x"), ("GET", None))] == [200] * 3


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("where", ["upstream", "route"])
@pytest.mark.promise("S2-72")
def test_read_timeout(warp, backend, where, method):
    keys = {"read_timeout_secs": T}
    b, other = backend([REQ]), backend([REQ])
    w = warp(conf(keys if where == "route" else {}, app={"on": [b, other], **UP, **(keys if where == "upstream" else {})},
        server=SERVER))
    with w.client() as c:
        with lasts(T):
            assert c.ask(method=method, body=b"pay" if method == "POST" else None).status == 504
    eventually(lambda: all(x.closed.is_set() for x in b.conns + other.conns), "the upstream connection is closed, not kept")
    assert len(b.requests) + len(other.requests) == 1, "a read timeout is not retried"


def test_route_overrides_upstream(warp, backend):
    go = threading.Event()
    b = backend([REQ, lambda c: go.wait(2 * T) and None, reply("late")])
    w = warp(conf({"path_prefix": "/slow", "read_timeout_secs": FAR}, {"path_prefix": "/"},
        app={"on": b, **UP, "read_timeout_secs": T}, server=SERVER))
    assert w.ask("/slow").text == "late", "longer for this route"
    assert w.ask("/").status == 504


@pytest.mark.parametrize("reason, answer", [("length", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
    ("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")])
def test_read_timeout_in_mid_body(warp, backend, reason, answer):
    w = warp(conf(app={"on": backend([REQ, answer]), **UP, "read_timeout_secs": T}, server=SERVER))
    with w.client() as c, lasts(T):
        with pytest.raises((EOFError, ConnectionError)):
            c.ask()                                            # cut off: never a clean end


def test_read_timeout_is_between_reads(warp, backend):
    def slowly(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for x in b"12345678":
            time.sleep(T / 4)
            c.send(bytes([x]))
    w = warp(conf(app={"on": backend([REQ, slowly]), **UP, "read_timeout_secs": T}, server=SERVER))
    assert w.ask().text == "12345678"


def test_read_timeout_waits_for_the_upload(warp, backend):
    """While the client still sends, upstream owes nothing."""
    w = warp(conf(app={"on": backend(), **UP, "read_timeout_secs": T}, server=SERVER))
    with w.client() as c:
        c.send(request("/", "Content-Length: 8", method="POST"))
        drip(c, b"12345678", T / 4)
        assert c.response().status == 200


def endless(c):
    """An answer without end."""
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        c.send(b"x" * 65536)


@pytest.mark.parametrize("where", ["server"])
def test_write_timeout_to_client(warp, backend, where):
    """A client that reads nothing is dropped, and what it held upstream too."""
    b = backend([REQ, endless])
    w = warp(conf(app={"on": b, **UP}, server={**SERVER, "write_timeout_secs": T}))
    with Client(w.port, rcvbuf=8192) as c:
        c.send(request("/"))
        assert b.conn().closed.wait(T + 2 * TIMEOUT), "upstream let go"


def test_slow_reader_is_not_cut(warp, backend):
    """The write timeout is between two writes: a client that reads a little now and then keeps its answer."""
    n = 3000000
    b = backend([REQ, reply(b"x" * n)])
    w = warp(conf(app={"on": b, **UP}, server={**SERVER, "write_timeout_secs": T}))
    with Client(w.port, rcvbuf=65536) as c:
        c.send(request("/"))
        end = time.monotonic() + 3 * T
        got = 0
        while time.monotonic() < end:
            got += len(c.sock.recv(150000))
            time.sleep(T / 10)
        m = c.until
        while got < n:
            piece = c.sock.recv(1 << 20)
            assert piece, "cut off after %d" % got
            got += len(piece)
        assert m


@pytest.mark.parametrize("where", ["upstream", "route"])
def test_write_timeout_to_upstream(warp, backend, where):
    b = backend([HEAD, lambda c: c.closed.wait(FAR) and None], rcvbuf=8192)
    keys = {"write_timeout_secs": T}
    w = warp(conf(keys if where == "route" else {}, app={"on": b, **UP, **(keys if where == "upstream" else {})},
        server=SERVER))
    with w.client() as c:
        def send():
            try:
                c.sock.sendall(request("/", "Content-Length: 100000000", method="POST") + b"u" * 20000000)
            except OSError:
                pass
        c.sock.settimeout(FAR)
        t = threading.Thread(target=send, daemon=True)
        t.start()
        try:
            assert c.response(timeout=T + 2 * TIMEOUT).status in (502, 504)
        except ConnectionError:
            pass                                               # a reset may overtake the answer, the body being unread
    t.join(TIMEOUT)
    assert not t.is_alive()


def test_tunnel_timeout(warp, backend):
    b = backend([REQ, SWITCH])
    w = warp(conf(app={"on": b, **UP, "read_timeout_secs": T / 4}, server={**SERVER, "tunnel_timeout_secs": T}))
    with w.client() as c:
        assert c.ask("/ws", *UPGRADE).status == 101
        for _ in range(4):                                     # one direction alone keeps it alive
            time.sleep(T / 2)
            c.send(b"ping")
        with lasts(T):
            assert c.closed()
    assert b.conn().closed.wait(TIMEOUT)
    assert b.conn().raw.endswith(b"ping" * 4)


def test_upstream_keepalive_timeout(warp, backend):
    b = backend()
    w = warp(conf(app={"on": b, **UP, "keepalive_timeout_secs": T}, server=SERVER))
    with w.client() as c:
        c.ask()
        c.ask()
        assert len(b.conns) == 1
        with lasts(T):
            assert b.conns[0].closed.wait(T + TIMEOUT), "an idle connection is given back"
        assert c.ask().status == 200 and len(b.conns) == 2


def test_fractions_of_seconds(check):
    p = check(toml_file(conf({"read_timeout_secs": 0.5}, server={"header_timeout_secs": 0.25},
                             app={"url": "http://h:1", "read_timeout_secs": 1.5})))
    assert p.returncode == 0, p.stderr


def test_late_worker_is_not_a_late_client(warp):
    """The worker stood still while many clients that are kept asked in time: each gets its answer."""
    w = warp(dict({"server": dict(SERVER, keepalive_timeout_secs=4 * T, worker_threads=1)},
                  routes=[{"path_prefix": "/", "respond": {"status": 200, "body": "hello"}}]))
    worker = w.children()[-1]
    clients = [w.client() for _ in range(150)]
    try:
        for c in clients:
            assert c.ask("/").status == 200
        freeze(worker)
        for c in clients:
            c.send(request("/"))
        time.sleep(5 * T)
        os.kill(worker, signal.SIGCONT)
        got = [c.response().status for c in clients]
        assert got == [200] * len(clients)
    finally:
        os.kill(worker, signal.SIGCONT)
        for c in clients:
            c.close()
