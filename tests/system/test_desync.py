"""What an answer leaves behind that came before its request was whole: never
bytes of a body taken for a request, never a connection that nobody waits for."""
import os
import resource
import signal
import threading
import time

import pytest

from lib import (CLOSE, ECHO, HEAD, REQ, RST, TIMEOUT, WAIT, Client, chunks, conf, eventually, freeze, reply, request)

EVIL = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
UPGRADE = ("Connection: Upgrade", "Upgrade: raw")

BODIES = {
    "too big, whole": chunks(EVIL),
    "content that looks like the end of a body": chunks(b"0\r\n\r\n" + EVIL),
    "the last line end is none": chunks(EVIL, last=False) + b"0\r\n\rX",
    "a bad size": chunks(EVIL, last=False) + b"zz\r\n",
}


@pytest.mark.parametrize("route", [
    {"max_body_bytes": 10}, {"max_body_bytes": 10, "buffer_request": 4}, {"buffer_request": 100000},
    {"respond": {"status": 403, "body": "no"}}], ids=["limit", "limit, kept", "kept", "made up"])
@pytest.mark.parametrize("reason", BODIES)
def test_refused_body_is_no_request(warp, backend, route, reason):
    b = backend()
    w = warp(conf(dict(route, path_exact="/"), {"path_prefix": "/"}, app=b))
    with w.client() as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + BODIES[reason])
        c.response()
        try:
            c.rest(1)
        except (TimeoutError, OSError):
            pass
    assert not [r for r in b.requests if "evil" in r.target], reason


PART = b"x" * 10000 + EVIL + b"y" * (20000 - len(EVIL))  # of a body of 40,000 bytes


def no_evil(b, c):
    """What was counted once must not be taken for the missing rest."""
    m = c.response()
    try:
        c.rest(1)
    except (TimeoutError, OSError):
        pass
    assert not [r for r in b.requests if "evil" in r.target]
    return m


def test_body_refused_in_the_middle(warp, backend):
    """The backend resets in the very turn in which more of the body comes."""
    leaves = threading.Event()
    b = backend([HEAD, WAIT(leaves), RST], [ECHO])
    w = warp(conf(app=b, server={"worker_threads": 1}))
    pid = w.children()[0]
    with w.client() as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n")
        eventually(lambda: b.conns and b.conns[0].requests, "the head is there")
        time.sleep(0.3)  # nothing is under way: both are visited in the turn that comes
        freeze(pid)
        c.send(PART)
        leaves.set()
        assert b.conns[0].closed.wait(TIMEOUT)
        os.kill(pid, signal.SIGCONT)
        m = no_evil(b, c)
        assert m.status == 502 and m.get("Connection") == "close"


def test_body_that_the_disk_does_not_take(warp, backend):
    b = backend()
    w = warp(conf({"buffer_request": 1000}, app=b, server={"worker_threads": 1}))
    resource.prlimit(w.children()[0], resource.RLIMIT_FSIZE, (4096, 4096))
    with w.client() as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n")
        time.sleep(0.2)  # the rest comes by itself
        c.send(PART)
        m = no_evil(b, c)
        assert m.status == 503 and m.get("Connection") == "close"
    w.wait_stderr("request body to a file in")
    with w.client() as c:
        assert c.ask("/").status == 200, "the worker goes on"


def test_kept_body_and_a_failed_upstream(warp, backend):
    """The body was whole: the next request starts where it starts."""
    b = backend([HEAD, b"rubbish\r\n\r\n", CLOSE], [ECHO])
    w = warp(conf({"buffer_request": 100}, app=b))
    with w.client() as c:
        c.send(request("/1", method="POST", body=b"p" * (100 + 65536 + 500)) +
               request("/2", "X-Pad: " + "x" * 600))
        assert c.response().status == 502
        assert c.response().text == "app GET /2 0"


def test_early_answer_does_not_spin(warp, backend):
    """The answer is all there, the client neither reads it nor stops sending."""
    b = backend([HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(*[b"x" * 60000] * 60), CLOSE])
    w = warp(conf(app=b, server={"write_timeout_secs": 2, "worker_threads": 1}))
    pid = w.children()[0]

    def ticks():
        with open("/proc/%d/stat" % pid) as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
    with Client(w.port, rcvbuf=4096) as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"u" * 1000)
        time.sleep(0.5)
        before, until = ticks(), time.monotonic() + 1
        while time.monotonic() < until:
            try:
                c.send(b"u")
            except OSError:
                break
            time.sleep(0.1)
        assert ticks() - before < 40, "a busy loop"
        assert b.conn().closed.wait(TIMEOUT)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_reset_ends_a_tunnel(warp, backend, who):
    """A peer that ignores the end of the stream does not keep it open."""
    import threading
    go = threading.Event()
    b = backend([REQ, SWITCH + b"hi"] + ([WAIT(go), RST] if who == "backend" else [WAIT(go)]))
    w = warp(conf(app=b))
    c = w.client()
    assert c.ask("/", *UPGRADE).status == 101
    assert c.exactly(2, TIMEOUT) == b"hi"
    if who == "client":
        c.rst()
        eventually(lambda: connections(w, b.port) == 0, "the backend's side closed")
        go.set()
    else:
        go.set()
        assert c.closed()
        eventually(lambda: connections(w, w.port, local=True) == 0, "the client's side closed")
        c.close()


def connections(w, port, local=False):
    """Established TCP connections of the worker to (or on) that port."""
    import os
    inodes = set()
    for pid in w.children():
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                inodes.add(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
            except OSError:
                pass
    n = 0
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        f = line.split()
        here = int(f[1 if local else 2].split(":")[1], 16)
        n += here == port and f[3] != "0A" and "socket:[%s]" % f[9] in inodes
    return n


def test_write_deadline_is_about_writing(warp, backend):
    """Who sends a byte a moment but reads nothing is not waited for for ever."""
    b = backend([HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 8000000])
    w = warp(conf(app=b, server={"write_timeout_secs": 1}))
    with Client(w.port, rcvbuf=4096) as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        until = time.monotonic() + TIMEOUT
        while not b.conns or not b.conn().closed.is_set():
            assert time.monotonic() < until, "still waiting"
            try:
                c.send(b"u")
            except OSError:
                break
            time.sleep(0.2)


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X_Real_IP", "x-request_id", "X_Set"])
def test_underscore_twins(warp, backend, name):
    b = backend()
    w = warp(conf({"add_headers": [{"name": "X-Set", "value": "by warp"}]}, app=b))
    assert w.ask("/", name + ": forged", "X_Other: kept").status == 200
    assert b.last.get(name) is None and b.last.get("X_Other") == "kept"
