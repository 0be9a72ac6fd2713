"""Requests that wait for an instance: until it is up, until it has a place; and the
maintenance file. A backend that is away is a port nobody listens on."""
import os
import pwd
import re
import resource
import select
import signal
import socket
import sys
import threading
import time

import pytest

from lib import (BODY, CLOSE, ECHO, HEAD, REQ, ROOT, RST, SWITCH, TIMEOUT, UPGRADE, WARP, Backend, Client, conf, eventually,
                 free_port, reply, request, toml_file)
from test_log_admin import SOCK, admin_of, lines

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LONG = 20          # hold_secs where nobody is to be given up
PONG = {"path_prefix": "/pong", "respond": {"status": 200, "body": "pong"}}


def held(port, *routes, hold=LONG, instance=None, log=None, server=None, more=None, **upstream):
    """A configuration with one upstream `app` on that port, and what others need to look inside."""
    at = dict(instance or {}, host="127.0.0.1", port=port)
    app = {"strategy": "round_robin", "hold_secs": hold, "instances": [at], **upstream}
    routes = list(routes) + [PONG, {"path_prefix": "/"}]
    return toml_file(conf(*routes, app=app, admin={"listen": [SOCK]}, server=server,
                          log={"access": "@DIR@/access.log", "format": "$status $uri", **(log or {})}, **(more or {})))


def settled(w):
    """warp has seen all that was sent before this: one worker takes events in turns."""
    assert w.ask("/pong").text == "pong"


def wait(w, *requests):
    """A client for each of the requests, waiting in this order."""
    got = []
    for r in requests:
        got.append(w.client().send(r))
        settled(w)
    return got


def status(w):
    s = admin_of(w).status()
    return s["connections"], sum(i["in_flight"] for u in s["upstreams"] for i in u["instances"])


class Crowd:
    """A step of a backend: how many requests are here at one time. Each stays until it is let go."""

    def __init__(self, open=False):
        self.lock = threading.Lock()
        self.now = self.peak = self.seen = 0
        self.places = threading.Semaphore(0)
        self.open = open

    def go(self, n=1):
        for _ in range(n):
            self.places.release()

    def __call__(self, c):
        while True:
            m = c.request()
            with self.lock:
                self.now += 1
                self.seen += 1
                self.peak = max(self.peak, self.now)
            if not self.open:
                assert self.places.acquire(timeout=4 * TIMEOUT)
            with self.lock:
                self.now -= 1
            c.send(reply("app " + m.target))


def held_max():
    """What WARP was compiled with."""
    if "tiny" in os.path.basename(WARP):
        return 4
    with open(os.path.join(ROOT, "config.h")) as f:
        return int(re.search(r"#define HELD_MAX +(\d+)", f.read())[1])


HELD_MAX = held_max()


# ---- until it is up -----------------------------------------------------------------

@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_late_backend(warp, backend, method):
    port = free_port()
    w = warp(held(port))
    body = b"x" * 10 if method == "POST" else None
    c, = wait(w, request("/late", method=method, body=body))
    assert c.is_open()
    b = backend(port=port)
    m = c.response(method)
    assert m.status == 200 and m.text == ("" if method == "HEAD" else "app %s /late %d" % (method, len(body or b"")))
    assert len(b.requests) == 1 and status(w)[1] == 0
    assert c.ask("/again").text == "app GET /again 0", "the connection is as good as before"


def test_late_socket(warp, tmp_path, backend):
    path = str(tmp_path / "late.sock")
    w = warp(toml_file(conf(app={"socket": path, "hold_secs": LONG})))
    with w.client() as c:
        c.send(request("/"))
        w.wait_stderr("No such file")
        backend(unix=path)
        assert c.response().text == "app GET / 0"


@pytest.mark.parametrize("late", [0, 1])
def test_open_breakers_do_not_delay(warp, backend, late):
    """Who waits tries those that are left out as well, whichever comes back."""
    ports = [free_port(), free_port()]
    w = warp(held(0, instances=[{"host": "127.0.0.1", "port": p} for p in ports], max_fails=1, fail_timeout_secs=300))
    c, = wait(w, request("/"))
    w.wait_stderr("(?s)left out.*left out")
    assert c.is_open()
    backend(port=ports[late])
    assert c.response().text == "app GET / 0"
    assert c.ask().text == "app GET / 0"


def test_all_in_order(warp, backend):
    """With one place the backend sees them as they came, those that came later last."""
    port, n = free_port(), min(20, HELD_MAX)
    w = warp(held(port, instance={"max_connections": 1}))
    clients = wait(w, *(request("/%d" % i) for i in range(n)))
    crowd = Crowd(open=True)
    b = backend([crowd], port=port)
    for i, c in enumerate(clients):
        assert c.response().text == "app /%d" % i
    assert [m.target for m in b.requests] == ["/%d" % i for i in range(n)]
    assert crowd.peak == 1 and status(w)[1] == 0


def test_many_at_once(warp, backend):
    port, n = free_port(), min(200, HELD_MAX)
    w = warp(held(port))
    clients = [w.client().send(request("/%d" % i)) for i in range(n)]
    settled(w)
    b = backend(port=port, backlog=1024)
    for i, c in enumerate(clients):
        assert c.response().text == "app GET /%d 0" % i
        c.close()
    assert len(b.requests) == n and status(w)[1] == 0


def test_pipelined(warp, backend):
    port = free_port()
    w = warp(held(port))
    c, = wait(w, request("/1") + request("/2", method="POST", body=b"abc") + request("/3"))
    backend(port=port)
    assert [c.response().text for _ in range(3)] == ["app GET /1 0", "app POST /2 3", "app GET /3 0"]


@pytest.mark.parametrize("framing", ["length", "chunked", "spooled"])
def test_big_body(warp, backend, framing):
    """It is not read while its request waits, or is kept; and arrives whole, once."""
    port, n = free_port(), 3000000
    route = {"path_prefix": "/b", "buffer_request": 100000} if framing == "spooled" else {"path_prefix": "/b"}
    w = warp(held(port, route))
    data = bytes(range(256)) * (n // 256)
    c = w.client()
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # all of it does not fit on the way
    if framing == "chunked":
        raw = (request("/b", "Transfer-Encoding: chunked", method="POST")
               + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
    else:
        raw = request("/b", method="POST", body=data)
    sender = threading.Thread(target=c.send, args=(raw,), daemon=True)
    sender.start()
    w.wait_stderr("Connection refused")
    settled(w)
    if framing != "spooled":
        assert sender.is_alive(), "who waits is not read"
    b = backend(port=port)
    assert c.response("POST").text == "app POST /b %d" % len(data)
    sender.join(TIMEOUT)
    assert len(b.requests) == 1 and b.last.body == data


def test_expect(warp, backend):
    port = free_port()
    w = warp(held(port))
    c, = wait(w, request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
    assert c.is_open(), "nobody says go on before somebody can take it"
    backend([HEAD, b"HTTP/1.1 100 Continue\r\n\r\n", BODY, reply("done")], port=port)
    c.interim()
    assert c.send(b"abc").response("POST").text == "done"


def test_upgrade(warp, backend):
    port = free_port()
    w = warp(held(port))
    c, = wait(w, request("/ws", *UPGRADE))
    backend([HEAD, SWITCH, lambda c: c.send(c.exactly(5)), CLOSE], port=port)
    assert c.response().status == 101
    assert c.send(b"hello").exactly(5, TIMEOUT) == b"hello" and c.closed() == "eof"


@pytest.mark.parametrize("sig", [signal.SIGHUP, signal.SIGQUIT], ids=["reload", "drain"])
def test_a_worker_that_leaves_answers_them(warp, backend, sig):
    port = free_port()
    w = warp(held(port))
    old, = w.children()
    c, = wait(w, request("/"))
    w.signal(sig)
    if sig == signal.SIGHUP:
        eventually(lambda: len(w.children()) == 2, "a new worker beside the old")
    assert c.is_open()
    backend(port=port)
    assert c.response().text == "app GET / 0"
    c.close()
    if sig == signal.SIGHUP:
        eventually(lambda: old not in w.children(), "the end of the old one")
        assert status(w)[1] == 0
    else:
        assert w.wait() == 0


# ---- those that go, those that are given up -------------------------------------------

@pytest.mark.parametrize("leave", ["rst", "close"])
def test_client_gone(warp, backend, leave):
    """It costs nothing any more, and nobody else its turn; the log says 499."""
    port = free_port()
    w = warp(held(port, instance={"max_connections": 1}))
    a, b, c, d = wait(w, *(request("/" + x) for x in "abcd"))
    getattr(a, leave)()
    getattr(c, leave)()
    eventually(lambda: status(w) == (3, 0), "two clients and who asks")
    assert lines(w, 4)[-2:] == ["499 /a", "499 /c"] or sorted(x for x in lines(w, 4) if "499" in x) == ["499 /a", "499 /c"]
    up = backend([Crowd(open=True)], port=port)
    assert b.response().text == "app /b" and d.response().text == "app /d"
    assert [m.target for m in up.requests] == ["/b", "/d"]
    b.close()
    d.close()
    eventually(lambda: status(w) == (1, 0))


def test_all_gone(warp, backend):
    port = free_port()
    w = warp(held(port))
    for c in wait(w, *[request("/")] * 4):
        c.rst()
    eventually(lambda: status(w) == (1, 0))
    b = backend(port=port)
    assert w.ask("/now").text == "app GET /now 0"
    assert [m.target for m in b.requests] == ["/now"]


@pytest.mark.parametrize("away, status", [("refuses", 502), ("has no address", 503)])
def test_over(warp, away, status):
    """Each is given up after hold_secs, not before; 503 says when to come again."""
    if away == "refuses":
        conf_text = held(free_port(), hold=0.5, server={"show_errors": True})
    else:
        conf_text = toml_file(conf(PONG, {"path_prefix": "/"}, app={"host": "nowhere.invalid", "port": 80, "hold_secs": 0.5},
                                   server={"show_errors": True}))
    w = warp(conf_text)
    start = time.monotonic()
    c, d = wait(w, request("/"), request("/", method="POST", body=b"abc"))
    for x in (c, d):
        m = x.response()
        assert m.status == status and time.monotonic() - start >= 0.5
        assert m.get("retry-after") == ("1" if status == 503 else None)
        assert ("Connection refused" if status == 502 else "no instance can be asked") in m.text
    assert time.monotonic() - start < 0.5 + TIMEOUT
    assert c.ask("/pong").text == "pong", "the connection lives"


def test_no_hold(warp, backend):
    w = warp(held(free_port(), hold=0))
    start = time.monotonic()
    assert w.ask().status == 502
    assert time.monotonic() - start < TIMEOUT


def test_failures_are_counted_once(warp):
    """Who waits asks again and again: that is not held against the instance, nor logged."""
    w = warp(held(free_port(), hold=1))
    assert w.ask().status == 502
    up, = admin_of(w).status()["upstreams"]
    assert up["instances"][0]["failures"] == 1
    assert len(re.findall("Connection refused", w.stderr)) == 1


def test_timeout_is_504(warp, blackhole):
    w = warp(held(blackhole.port, hold=0.3, connect_timeout_secs=0.2))
    assert w.ask().status == 504


@pytest.mark.limit(60)
def test_queue_is_full(warp, backend):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = HELD_MAX
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * n + 500)), hard))
    try:
        port = free_port()
        w = warp(held(port, server={"max_connections": 2 * n + 100, "show_errors": True}))
        clients = [w.client().send(request("/0"))]
        w.wait_stderr("Connection refused")                # from here on all stand behind it
        clients += [w.client().send(request("/%d" % i)) for i in range(1, n)]
        settled(w)
        m = w.ask("/more")
        assert (m.status, m.get("retry-after")) == (503, "1") and "too many requests wait" in m.text
        assert not select.select([c.sock for c in clients[:500]], [], [], 0)[0], "those that wait go on waiting"
        clients[3].rst()
        eventually(lambda: status(w)[0] == n)
        clients[3], = wait(w, request("/instead"))
        assert w.ask("/more").status == 503, "one place, one request"
        b = backend(port=port, backlog=4096, record=False)
        for c in clients:
            assert c.response(timeout=4 * TIMEOUT).status == 200
            c.close()
        assert len(b.requests) == n
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- the retry rule ---------------------------------------------------------------------

def away(b):
    """Nobody listens there any more."""
    b.sock.shutdown(socket.SHUT_RDWR)
    b.sock.close()


def comes(backend, **kw):
    try:
        return backend(**kw)
    except OSError:
        return None        # whose place it takes is not quite gone


def test_lost_get_goes_again(warp, backend):
    """The only instance dies with the request and comes back."""
    port = free_port()
    first = backend([REQ, lambda c: away(first), RST], port=port, name="first")
    w = warp(held(port, keepalive=0))
    with w.client() as c:
        c.send(request("/"))
        first.request()
        w.wait_stderr("closed before it answered|reset")
        assert c.is_open()
        second = eventually(lambda: comes(backend, port=port, name="second"))
        assert c.response().text == "second GET / 0" and len(second.requests) == 1


def test_lost_post_does_not(warp, backend):
    b = backend([REQ, RST])
    w = warp(held(b.port))
    assert w.ask(method="POST", body=b"once").status == 502
    assert len(b.requests) == 1


def test_refused_post_goes_once(warp, backend):
    """None of it was sent: it may wait. Once sent it is not sent again."""
    port = free_port()
    w = warp(held(port))
    c, d = wait(w, *[request("/", method="POST", body=b"once")] * 2)
    b = backend([REQ, RST], [REQ, reply("done")], port=port)
    assert sorted([c.response().status, d.response().status]) == [200, 502]
    assert len(b.requests) == 2


def test_deadly_get_goes_no_more_than_retries(warp, backend):
    """Who kills each backend it meets is not sent for as long as it could wait."""
    b = backend([REQ, RST])
    w = warp(held(b.port, retries=2, hold=LONG))
    assert w.ask().status == 502
    assert len(b.requests) == 3


# ---- places ------------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("keepalive", [0, 8])
def test_never_more_than_places(warp, backend, workers, keepalive):
    """Whatever the workers, the backend never has more than max_connections requests."""
    crowd, places, n = Crowd(), 3, min(24, 3 + HELD_MAX)
    b = backend([crowd])
    w = warp(held(b.port, hold=0, instance={"max_connections": places}, keepalive=keepalive,
                  connect_timeout_secs=60, server={"worker_threads": workers}))
    clients = [w.client().send(request("/%d" % i)) for i in range(n)]
    for done in range(0, n, places):
        eventually(lambda: crowd.seen == min(n, done + places), "places taken again")
        assert status(w)[1] == crowd.now == min(places, n - done)
        crowd.go(places)
    for i, c in enumerate(clients):
        assert c.response().text == "app /%d" % i
    assert crowd.peak == places
    eventually(lambda: status(w)[1] == 0)


def test_two_instances(warp, backend):
    """One has no place: the other is asked. None has: who came first is first served."""
    crowds = [Crowd(), Crowd()]
    bs = [backend([c]) for c in crowds]
    w = warp(held(bs[0].port, hold=0, connect_timeout_secs=60,
                  instances=[{"host": "127.0.0.1", "port": b.port, "max_connections": 1} for b in bs]))
    a, b, c, d = wait(w, *(request("/" + x) for x in "abcd"))
    eventually(lambda: [x.now for x in crowds] == [1, 1])
    crowds[0].go()
    eventually(lambda: crowds[0].seen == 2)
    crowds[1].go()
    eventually(lambda: crowds[1].seen == 2)
    assert sorted(x.requests[1].target for x in bs) == ["/c", "/d"] and bs[0].requests[1].target == "/c"
    for x in crowds:
        x.go()
    assert [x.response().text for x in (a, b, c, d)] == ["app /a", "app /b", "app /c", "app /d"]
    assert [x.peak for x in crowds] == [1, 1]


def test_no_place_in_time(warp, backend):
    """Without hold_secs a request waits connect_timeout_secs for a place."""
    crowd = Crowd()
    b = backend([crowd])
    w = warp(held(b.port, hold=0, connect_timeout_secs=0.4, instance={"max_connections": 1},
                  server={"show_errors": True}))
    a, = wait(w, request("/a"))
    eventually(lambda: crowd.now == 1)
    start = time.monotonic()
    m = w.ask("/b")
    assert m.status == 503 and m.get("retry-after") == "1" and "all the requests they may have" in m.text
    assert 0.4 <= time.monotonic() - start < 0.4 + TIMEOUT
    crowd.go()
    assert a.response().text == "app /a"


@pytest.mark.parametrize("how", ["client", "backend", "worker"])
def test_place_comes_back(warp, backend, how):
    """However the request that has the place ends."""
    hang = threading.Event()
    b = backend([REQ, lambda c: hang.wait(4 * TIMEOUT) and None, CLOSE], [Crowd(open=True)])
    w = warp(held(b.port, hold=0, connect_timeout_secs=60, instance={"max_connections": 1}, retries=0,
                  server={"worker_threads": 2}))
    a = w.client().send(request("/a"))
    b.request()
    c = w.client()
    if how == "client":
        c.send(request("/b"))
        a.rst()
    elif how == "backend":
        c.send(request("/b"))
        hang.set()
        assert a.response().status == 502
    else:
        for pid in w.children():
            os.kill(pid, signal.SIGKILL)
        a.closed()
        c = eventually(lambda: again(w))
    assert c.response().text == "app /b"
    eventually(lambda: status(w)[1] == 0)
    hang.set()


def again(w):
    """A client whose request /b a worker has got; None while there is none."""
    try:
        settled(w)
        return w.client().send(request("/b"))
    except (OSError, EOFError):
        return None


# ---- maintenance ----------------------------------------------------------------------------

def maintained(backend, tmp_path, name="down.html", **kw):
    file = tmp_path / name
    return file, toml_file(conf({"path_prefix": "/other", "respond": {"status": 200, "body": "other"}}, {"path_prefix": "/"},
                                app={"on": backend, "maintenance": str(file)}, **kw))


def put(file, data):
    new = file.with_name(file.name + ".new")
    new.write_bytes(data)
    new.rename(file)


def becomes(w, want, **kw):
    def look():
        m = w.ask(**kw)
        return m if m.status == want else None
    return eventually(look, "status %d" % want)


@pytest.mark.parametrize("name, type", [("down.html", "text/html; charset=utf-8"), ("down.json", "application/json"),
                                        ("down.txt", "text/plain; charset=utf-8"), ("down", "text/plain; charset=utf-8")])
def test_maintenance(warp, backend, tmp_path, name, type):
    b = backend()
    file, text = maintained(b, tmp_path, name)
    w = warp(text)
    assert w.ask().status == 200
    put(file, b"back soon\n")
    m = becomes(w, 503)
    assert (m.text, m.get("content-type"), m.get("retry-after")) == ("back soon\n", type, "60")
    n = len(b.requests)
    m = w.ask(method="HEAD")
    assert (m.status, m.get("content-length"), m.body) == (503, "10", b"")
    with w.client() as c:
        assert c.ask(method="POST", body=b"abc").status == 503
        assert c.ask("/", *UPGRADE).status == 503
        assert c.ask("/other").text == "other", "other routes are not concerned"
    assert len(b.requests) == n
    put(file, b"still away")
    eventually(lambda: w.ask().text == "still away")
    file.unlink()
    assert becomes(w, 200).text.startswith("app")


def test_maintenance_big_empty_and_no_file(warp, backend, tmp_path):
    file, text = maintained(backend(), tmp_path)
    data = os.urandom(70000)
    put(file, data)
    w = warp(text)
    m = w.ask()
    assert m.status == 503 and m.body == data[:65536]
    w.wait_stderr("more than 65536 bytes")
    put(file, b"")
    eventually(lambda: w.ask().body == b"")
    assert w.ask().status == 503
    file.unlink()
    file.mkdir()
    w.wait_stderr("not a file") if eventually(lambda: w.ask() and "not a file" in w.stderr) else None
    assert w.ask().status == 503
    file.rmdir()
    os.mkfifo(file)
    assert w.ask(timeout=TIMEOUT).status == 503, "a pipe without writer holds nobody up"


@root_only
def test_maintenance_in_a_chroot(warp, backend, tmp_path):
    """The directory is the one outside, as it was; the file in it may come later."""
    jail, notes = tmp_path / "jail", tmp_path / "notes"
    jail.mkdir()
    notes.mkdir()
    file, text = maintained(backend(), notes, server={"user": "nobody", "chroot": str(jail)})
    w = warp(text)
    assert w.ask().status == 200
    put(file, b"outside")
    assert becomes(w, 503).text == "outside"
    file.unlink()
    becomes(w, 200)


@root_only
def test_maintenance_of_others(warp, backend, tmp_path):
    """Directories above that the worker's user may not enter do not matter; a file it may not
    read is a maintenance without words; where it may not look there is none."""
    notes = tmp_path / "closed" / "notes"
    notes.mkdir(parents=True)
    notes.parent.chmod(0o700)
    file, text = maintained(backend(), notes, server={"user": "nobody"})
    w = warp(text)
    assert w.ask().status == 200
    put(file, b"a word")
    assert becomes(w, 503).text == "a word"
    put(file, b"secrets")
    file.chmod(0o600)
    eventually(lambda: w.ask().body == b"")
    assert w.ask().status == 503
    w.wait_stderr("only its status is shown")
    notes.chmod(0o700)
    becomes(w, 200)
    w.wait_stderr("cannot be looked for: Permission denied")


def test_maintenance_does_not_concern_who_waits(warp, backend, tmp_path):
    port, file = free_port(), tmp_path / "down.html"
    w = warp(held(port, maintenance=str(file)))
    c, = wait(w, request("/"))
    put(file, b"down")

    def down():
        with w.client() as probe:
            return not probe.send(request("/")).is_open() and probe.response().text == "down"
    eventually(down)
    backend(port=port)
    assert c.response().text == "app GET / 0"


# ---- the process behind it ------------------------------------------------------------------

APP = """
import os, socket, sys, time
gate = sys.argv[2]
print("waits for", gate, file=sys.stderr, flush=True)
while not os.path.exists(gate):
    time.sleep(0.01)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen(100)
while True:
    c, _ = s.accept()
    head = b""
    while b"\\r\\n\\r\\n" not in head and (got := c.recv(65536)):
        head += got
    if not head:
        continue
    if b"/hang" in head:
        os.rename(gate, gate + ".was")
        time.sleep(1000)
    body = str(os.getpid()).encode()
    c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body) + body)
    c.close()
"""


def supervised(tmp_path, hold=LONG, server=None, open=True, **process):
    """An upstream whose program listens once the gate (a file) is there. conf text, gate."""
    (tmp_path / "app.py").write_text(APP)
    gate = tmp_path / "gate"
    if open:
        gate.touch()
    args = process.pop("args", ["-u", str(tmp_path / "app.py"), "{port}", str(gate)])
    app = {"hold_secs": hold, "process": {"command": sys.executable, "args": args, "backoff_secs": 0.05, **process}}
    return toml_file(conf(PONG, {"path_prefix": "/"}, app=app, admin={"listen": [SOCK]}, server=server)), gate


def test_while_it_starts(warp, tmp_path):
    text, gate = supervised(tmp_path, open=False)
    w = warp(text)
    c, d = wait(w, request("/"), request("/", method="POST", body=b"abc"))
    assert c.is_open()
    gate.touch()
    assert c.response().text == d.response().text != ""
    assert status(w)[1] == 0


def test_killed_while_it_answers(warp, tmp_path):
    """A GET goes to the next one; a POST that it had does not."""
    text, gate = supervised(tmp_path)
    w = warp(text)
    pid = int(eventually(lambda: w.ask().text))
    c, = wait(w, request("/hang"))
    eventually(lambda: not gate.exists(), "it got the request")
    os.kill(pid, signal.SIGKILL)
    d, = wait(w, request("/"))
    assert c.is_open() and d.is_open()
    (tmp_path / "gate.was").rename(gate)
    eventually(lambda: not gate.exists(), "the next one got it too")
    pid2, = [int(p) for p in program_pids(w)]
    assert pid2 != pid
    c.rst()
    gate.touch()
    os.kill(pid2, signal.SIGKILL)
    assert int(d.response().text) not in (pid, pid2)
    with w.client() as e:
        e.send(request("/hang", method="POST", body=b""))
        eventually(lambda: not gate.exists())
        os.kill(int(*program_pids(w)), signal.SIGKILL)
        assert e.response("POST").status == 502
    eventually(lambda: status(w)[1] == 0)


def program_pids(w):
    """Of its programs, as /status says."""
    return [p["pid"] for p in admin_of(w).status()["processes"] if p["pid"]]


def test_started_by_who_asks(warp, tmp_path):
    text, gate = supervised(tmp_path, start_on="request")
    w = warp(text)
    assert program_pids(w) == []
    pid = int(w.ask().text)
    assert program_pids(w) == [pid]


def test_stopped_is_not_waited_for(warp, run, tmp_path):
    text, gate = supervised(tmp_path, server={"show_errors": True})
    w = warp(text)
    eventually(lambda: w.ask().status == 200)
    assert run("-s", "stop", "app", "-c", w.file).returncode == 0
    eventually(lambda: program_pids(w) == [])
    start = time.monotonic()
    m = w.ask()
    assert m.status == 503 and m.get("retry-after") == "1" and time.monotonic() - start < LONG / 2


def test_page_says_how_it_ended(warp, tmp_path):
    program = "import sys; print('no module <named> x', file=sys.stderr); sys.exit(3)"
    text, gate = supervised(tmp_path, hold=0.5, args=["-c", program, "{port}"], server={"show_errors": True})
    w = warp(text)
    w.wait_stderr("no module")
    m = w.ask()
    assert m.status == 503 and "process app" in m.text and "no module &lt;named&gt; x" in m.text
    assert "3" in m.text.split("process app")[1]
