"""server.memory_bytes: whatever clients do, a worker holds no more, healthy clients go on being served, and nothing
fails that could wait. In a cgroup where there is one to be had, else the figures of /proc alone are judged.

Without WHOLE: a crowd of a few, and a small bound. With it: 1,024 of a kind, in 16, 32 and 64 MB."""
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import tls as tls_tools
from lib import SANITIZED, SLOW, TIMEOUT, WARP, Client, conf, eventually, free_port, freeze, request, run_warp

MB = 1 << 20
WHOLE = bool(os.environ.get("WHOLE"))
MANY = 1024 if WHOLE else 200
BIG = (100 if WHOLE else 4) * MB
ROOMS = (16, 32, 64) if WHOLE else (16,)          # MB of the group
GROUPS = "/sys/fs/cgroup/memory"                  # version 1
BOUND = 8 * MB
PATIENCE = 30 if WHOLE else TIMEOUT               # a thousand at one time keep a CPU busy
REST = 400_000                                    # what a worker keeps when nobody is there


class Group:
    """A memory cgroup of so many MB; where none can be made, what the processes say is taken for it."""

    def __init__(self, mb):
        self.mb, self.dir, self.v2 = mb, None, os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        top = "/sys/fs/cgroup" if self.v2 else GROUPS
        dir = "%s/warp-test-%d-%d" % (top, os.getpid(), mb)
        if SANITIZED:
            return                                         # its shadow alone takes more
        try:
            os.mkdir(dir)
            with open(dir + ("/memory.max" if self.v2 else "/memory.limit_in_bytes"), "w") as f:
                f.write(str(mb * MB))
            self.dir = dir
        except OSError:
            pass

    def join(self):
        if self.dir:
            with open(self.dir + "/cgroup.procs", "w") as f:
                f.write("0" if self.v2 else str(os.getpid()))

    def kills(self):
        """Processes that were killed for want of memory."""
        if not self.dir:
            return 0
        with open(self.dir + ("/memory.events" if self.v2 else "/memory.oom_control")) as f:
            found = re.search(r"(?m)^oom_kill (\d+)", f.read())
        return int(found[1]) if found else 0

    def close(self):
        if self.dir:
            eventually(lambda: not open(self.dir + "/cgroup.procs").read(), "an empty group")
            os.rmdir(self.dir)


@pytest.fixture
def group(request):
    g = Group(getattr(request, "param", 16))
    yield g
    g.close()


class Source:
    """crowd.Source, running."""

    def __init__(self):
        self.proc = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), "crowd.py")], stdout=subprocess.PIPE)
        self.port = int(self.proc.stdout.readline())
        self.conf = {"host": "127.0.0.1", "port": self.port}

    @property
    def asked(self):
        """Requests that came so far."""
        with Client(self.port) as c:
            return int(c.ask("/asked").body)

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdout.close()


@pytest.fixture
def source():
    s = Source()
    yield s
    s.close()


@pytest.fixture(autouse=True)
def files():
    """Descriptors for a crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    while Crowd.there:
        Crowd.there[0].close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Clients that do their part, a little at a time."""
    there = []

    def __init__(self, port, n, first, step=None, rcvbuf=None, tls=None):
        self.socks, self.dead, self.step, self.ends = [], 0, step, False
        for _ in range(n):
            s = socket.socket()
            if rcvbuf:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            s.settimeout(TIMEOUT)
            s.connect(("127.0.0.1", port))
            s.setblocking(False)
            try:
                s.send(first)
            except OSError:
                self.dead += 1
            self.socks.append(s)
        self.there.append(self)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ends:
            for s in list(self.socks):
                try:
                    self.step(s)
                except BlockingIOError:
                    pass
                except OSError:
                    self.dead += 1
                    self.socks.remove(s)
            time.sleep(0.3)                                # 1,024 times a few microseconds

    def close(self):
        self.ends = True
        self.there.remove(self)
        self.thread.join()
        for s in self.socks:
            s.close()


def sip(s):
    s.recv(512)


def usage(w):
    """Resident bytes of warp's own processes at their highest, together; what they share counts once."""
    total = shared = 0
    for pid in [w.pid] + w.children():
        with open("/proc/%d/status" % pid) as f:
            text = f.read()
        value = lambda name: int(re.search(name + r":\s+(\d+)", text)[1]) * 1024
        total += value("VmHWM") - value("RssFile") - value("RssShmem")
        shared = max(shared, value("RssFile") + value("RssShmem"))
    return total + shared


def held(w):
    """(now, the most) that clients made the worker hold."""
    with Client(w.path("admin")) as c:
        rows = json.loads(c.ask("/status").body)["workers"]
    return sum(r["memory_bytes"] for r in rows), max(r["memory_most_bytes"] for r in rows)


def connections(w):
    """Of clients, the one who asks among them."""
    with Client(w.path("admin")) as c:
        return sum(r["connections"] for r in json.loads(c.ask("/status").body)["workers"])


def healthy(w, seconds, target="/64", size=64):
    """Requests of a client that behaves: how many were served, and the longest wait."""
    end, n, longest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        begun = time.monotonic()
        with Client(w.port) as c:
            got = c.ask(target, timeout=2 * PATIENCE)
        assert got.status == 200 and len(got.body) == size, got
        longest, n = max(longest, time.monotonic() - begun), n + 1
    return n, longest


def start(warp, group, up, bound=BOUND, text=None, server=None, **more):
    c = conf(*more.pop("routes", ()), server={"max_connections": 2 * MANY, "memory_bytes": bound, **(server or {})},
             admin={"listen": "unix:@DIR@/admin"}, app=up, **more)
    w = warp(text(c) if text else c, preexec_fn=group.join)
    return w


def check(w, group, what, bound=BOUND):
    most, used = held(w)[1], usage(w)
    print("%-28s in %2d MB: held at most %5.2f of %d MB, resident %5.1f MB" % (what, group.mb, most / MB, bound / MB, used / MB))
    assert group.kills() == 0
    assert "died" not in w.stderr and "out of memory" not in w.stderr
    assert most <= bound
    assert SANITIZED or used < group.mb * MB


rooms = pytest.mark.parametrize("group", ROOMS, indirect=True)
slow = pytest.mark.limit(200 if WHOLE else 20)


def survives(w, group, what, crowd, ends=2 * TIMEOUT, **kw):
    """With the crowd there, others are served; its own come to no harm; and it leaves nothing behind, within `ends`."""
    n, longest = healthy(w, 2)
    assert n > 0 and longest < PATIENCE, (n, longest)
    print("%d requests of others, %.2f s at most" % (n, longest))
    healthy(w, 0.5, "/%d" % (2 * MB), 2 * MB)
    assert crowd.dead == 0
    check(w, group, what, **kw)
    crowd.close()
    eventually(lambda: held(w)[0] < REST, "memory is given back", ends)


@rooms
@slow
def test_slow_readers(group, warp, source):
    """Answers of 100 MB to 1,024 who sip: what none of them takes is not read."""
    w = start(warp, group, source)
    crowd = Crowd(w.port, MANY, request("/%d" % BIG), sip, 4096)
    eventually(lambda: source.asked > MANY * 0.9, "requests are under way", 5 * TIMEOUT)
    survives(w, group, "%d slow readers" % MANY, crowd)


@rooms
@slow
@pytest.mark.parametrize("kept", ["passed on", "kept"])
def test_slow_uploads(group, warp, source, kept):
    """Requests that come byte by byte, also where they are kept until they are whole: then a file has them."""
    routes = [{"path_prefix": "/", "buffer_request": MB}] if kept == "kept" else []
    w = start(warp, group, source, routes=routes)
    head = request("/", "Content-Length: %d" % BIG, method="POST")
    crowd = Crowd(w.port, MANY, head + b"x" * 20_000, lambda s: s.send(b"x" * 700))
    eventually(lambda: held(w)[0] > MANY * 1024, "bodies come", 5 * TIMEOUT)
    survives(w, group, "%d slow uploads, %s" % (MANY, kept), crowd)


@rooms
@slow
def test_handshakes(group, warp, source, pki):
    """TLS handshakes that stop halfway do not keep others out, whose handshakes come all at one time."""
    n, https, ctx = 500 if WHOLE else 100, free_port(), tls_tools.context(None)
    w = start(warp, group, source, bound=BOUND // 2, text=lambda c: tls_tools.site(https, pki.cert("a.example"), conf=c, tls={"redirect": False}))
    crowd = Crowd(https, n, tls_tools.hello()[:100], lambda s: None)
    begun = time.monotonic()
    good = []

    def one():
        with tls_tools.Client(https, ctx, timeout=4 * TIMEOUT) as c:
            good.append(c.ask("/64").status)
    threads = [threading.Thread(target=one) for _ in range(n // 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert good == [200] * (n // 5)
    print("%d handshakes beside %d that stand still: %.1f s" % (n // 5, n, time.monotonic() - begun))
    crowd.dead = 0                                                     # they make way
    survives(w, group, "%d handshakes" % n, crowd, bound=BOUND // 2)


@rooms
@slow
def test_gzip_and_cache(group, warp, source):
    """Texts, compressed and stored, for those who read slowly: as many are compressed as there is memory for."""
    w = start(warp, group, source, middleware={"gzip_compression_enabled": True},
              text=lambda c: dict(c, cache={"size_bytes": MB, "default_ttl_secs": 60, "max_object_bytes": MB // 4}))
    crowd = Crowd(w.port, MANY // 4, request("/text/%d" % BIG, "Accept-Encoding: gzip"), sip, 4096)
    eventually(lambda: source.asked > 0 and held(w)[0] > MANY // 4 * 1024, "requests are under way", 5 * TIMEOUT)
    survives(w, group, "%d with gzip and cache" % (MANY // 4), crowd)


@rooms
@slow
def test_crashing(group, warp, source, tmp_path):
    """Requests for a program that never comes up wait, and are told so in the end; the others go on."""
    bad = {"host": "127.0.0.1", "port": free_port(), "hold_secs": 60, "process": {"command": "/bin/false"}}
    w = start(warp, group, source, routes=[{"path_prefix": "/bad", "upstream": "bad"}, {"path_prefix": "/"}], bad=bad)
    crowd = Crowd(w.port, MANY, request("/bad/1"), lambda s: s.recv(1))
    eventually(lambda: held(w)[0] > MANY * 1024, "requests wait", 5 * TIMEOUT)
    survives(w, group, "%d wait for what crashes" % MANY, crowd)


@slow
def test_parts_of_heads(group, warp, source):
    """Parts of heads leave too little for any of them to go on: one does all the same, then the next."""
    least = int(re.search(r"at least (\d+)", run_warp("-t", "-c", "/dev/stdin", input="[server]\nmax_header_bytes = 4096\n"
                          "memory_bytes = 1\n[[routes]]\nrespond = { status = 200, body = \"x\" }\n").stderr)[1])
    w = start(warp, group, source, bound=least, server={"max_header_bytes": 4096, "max_connections": 1024})
    head = request("/64", "X-Long: " + "x" * 3000)
    crowd = [Client(w.port) for _ in range(500)]
    for c in crowd:
        c.send(head[:1940])                                # as much as a small block takes
    eventually(lambda: held(w)[0] > least // 2, "memory is short", 2 * TIMEOUT)
    for c in crowd:
        c.send(head[1940:])
    for c in crowd:
        assert c.response(timeout=2 * PATIENCE).status == 200
        c.close()
    check(w, group, "%d parts of heads" % len(crowd), bound=least)


@slow
def test_upstreams_without_a_word(group, warp, source):
    """Connections to upstreams whose handshake takes its time wait for memory like all else."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as silent:
        up = {"url": "https://127.0.0.1:%d" % silent.getsockname()[1], "connect_timeout_secs": 2, "tls": {"verify": False}}
        w = start(warp, group, source, routes=[{"path_prefix": "/silent", "upstream": "silent"}, {"path_prefix": "/"}], silent=up, bound=BOUND // 2)
        crowd = Crowd(w.port, MANY, b"", lambda s: s.recv(1))
        eventually(lambda: connections(w) > MANY, "all are taken", 5 * TIMEOUT)
        for pid in w.children():
            freeze(pid)
        for s in crowd.socks:
            s.send(request("/silent"))
        for pid in w.children():
            os.kill(pid, signal.SIGCONT)                   # all begin at one time
        eventually(lambda: held(w)[0] > BOUND // 4, "handshakes begin", 5 * TIMEOUT)
        # who has closed may still read: all are tried, about 50 at a time, for 2 s each
        survives(w, group, "%d upstream handshakes" % MANY, crowd, bound=BOUND // 2, ends=2 * TIMEOUT + MANY / 25)


def test_bound(run):
    """`-t` says what the bound is and of what it is made; one that is too small for any request is refused."""
    good = run_warp("-t", "-c", "/dev/stdin", input='[server]\nmemory_bytes = 8388608\n[[routes]]\nrespond = { status = 200, body = "x" }\n')
    assert re.search(r"memory: at most \d+ MB: 1 worker x \(8192 KB held for clients, .* 1024 clients x ", good.stdout), good.stdout
    bad = run_warp("-t", "-c", "/dev/stdin", input='[server]\nmemory_bytes = 8388\n[[routes]]\nrespond = { status = 200, body = "x" }\n')
    assert bad.returncode == 1 and re.search(r"2:\d+: error: .*expected at least \d+", bad.stderr), bad.stderr
