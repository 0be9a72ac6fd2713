"""Tools of the system tests: a strict HTTP/1.1 reader, a raw client, a scripted
backend and a warp process. Standard library only; everything waits for an event
with a deadline, nothing sleeps for luck. conftest.py has the fixtures."""
import atexit
import collections
import functools
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from signal import SIGKILL, SIGTERM

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WARP = os.path.abspath(os.environ.get("WARP") or os.path.join(ROOT, "warp"))


def sanitized():
    """Whether WARP carries a sanitizer: it is slower then, and memory figures mean nothing."""
    try:
        with open(WARP, "rb") as f:
            return b"__asan_init" in f.read()
    except OSError:
        return False


SANITIZED = sanitized()
# The machine may be busy: every wait below is an upper bound, multiplied by this.
SLOW = float(os.environ.get("SLOW") or (4 if SANITIZED else 1))
TIMEOUT = 6 * SLOW
REPORTS = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|UndefinedBehaviorSanitizer|MemorySanitizer|"
                     r"==\d+==ERROR|Assertion .* failed|stack smashing|double free")


def freeze(pid):
    """SIGSTOP, and until it has got through to every thread: on another CPU it may run on for a moment."""
    os.kill(pid, signal.SIGSTOP)

    def still():
        states = set()
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/stat" % (pid, task)) as f:
                states.add(f.read().rpartition(")")[2].split()[0])
        return states == {"T"}
    eventually(still, "%d stands still" % pid)


@functools.lru_cache(None)
def for_everybody(path):
    """A copy of this file that other users can run, wherever the checkout is; kept until the end."""
    dir = tempfile.mkdtemp(prefix="warp-test-", dir="/tmp")
    atexit.register(shutil.rmtree, dir, ignore_errors=True)
    os.chmod(dir, 0o755)
    copy = shutil.copy2(path, dir)
    os.chmod(copy, 0o755)
    return copy


def needs_mounts():
    """Skips the test that calls it where nothing can be mounted for it alone: without root, and in a plain chroot."""
    import pytest
    if os.geteuid() != 0 or subprocess.run(["unshare", "-n", "-m", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("needs root, network and mount namespaces")


def eventually(probe, what="condition", timeout=None):
    """Polls probe() until it is true (returned) or the deadline fails the test."""
    end = time.monotonic() + (timeout or TIMEOUT)
    while not (got := probe()):
        assert time.monotonic() < end, "not within %.1f s: %s" % (timeout or TIMEOUT, what)
        time.sleep(0.01)
    return got


# ---- addresses --------------------------------------------------------------

_taken = set()
# Below those of outgoing connections, without those that warp chooses itself; a process of pytest-xdist has every
# so many of them for its own.
_PORTS = [p for p in (*range(11000, 20000), *range(30000, 32000)) if p % int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
          == int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])]


def read(path):
    """The text of a file, nothing if there is none."""
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def free_port():
    """A TCP port nobody uses, v4 and v6."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if len(_taken) > len(_PORTS) // 2:
            _taken.clear()
        if port in _taken:
            continue
        try:
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                with socket.socket(family) as s:
                    if family == socket.AF_INET6:
                        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    s.bind((host, port))
        except OSError:
            continue
        _taken.add(port)
        return port


def connect(addr, timeout=None):
    """addr: a port on 127.0.0.1, (host, port), or the path of a unix socket ('@x' is abstract)."""
    if isinstance(addr, str):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout or TIMEOUT)
        s.connect("\0" + addr[1:] if addr.startswith("@") else addr)
        return s
    return socket.create_connection(("127.0.0.1", addr) if isinstance(addr, int) else addr, timeout or TIMEOUT)


# ---- messages ---------------------------------------------------------------

class ProtocolError(AssertionError):
    """The other side wrote something that is not strict HTTP/1.1."""


class Message:
    """A request or a response. fields: list of (name, value) as sent; body: decoded."""

    def __init__(self, raw, line, fields):
        self.raw, self.line, self.fields = raw, line, fields
        self.body, self.trailers, self.interim, self.framing = b"", [], [], "none"
        self.method = self.target = self.status = self.reason = None
        if line.startswith("HTTP/"):
            m = re.fullmatch(r"(HTTP/1\.[01]) (\d{3}) ([^\0-\x08\x0a-\x1f\x7f]*)", line)
            if not m:
                raise ProtocolError("status line %r" % line)
            self.version, self.status, self.reason = m[1], int(m[2]), m[3]
        else:
            m = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) (HTTP/1\.[01])", line)
            if not m:
                raise ProtocolError("request line %r" % line)
            self.method, self.target, self.version = m[1], m[2], m[3]

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name, default=None):
        return (self.all(name) or [default])[0]

    def has(self, name):
        return bool(self.all(name))

    def tokens(self, name):
        return [t.strip().lower() for v in self.all(name) for t in v.split(",") if t.strip()]

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<%s, %d bytes>" % (self.line, len(self.body))


class Wire:
    """A socket with a reader that takes nothing but strict HTTP/1.1."""

    def __init__(self, sock):
        self.sock, self.buf, self.eof = sock, b"", False

    def fill(self, timeout=None):
        """Reads once more; False at the end of the stream. Raises TimeoutError, ConnectionResetError."""
        self.sock.settimeout(timeout)
        try:
            got = self.sock.recv(65536)
        except socket.timeout:
            raise TimeoutError("nothing within %s s, have %r" % (timeout, self.buf[-200:])) from None
        self.eof = not got
        self.buf += got
        return bool(got)

    def until(self, mark, timeout=None):
        while mark not in self.buf:
            if not self.fill(timeout):
                raise EOFError("closed before %r, have %r" % (mark, self.buf[-200:]))
        head, _, self.buf = self.buf.partition(mark)
        return head + mark

    def gather(self, n, timeout=None):
        """Fills buf up to n bytes, or to the end of the stream."""
        pieces, have = [self.buf], len(self.buf)
        try:
            while have < n:
                self.buf = b""
                more = self.fill(timeout)
                pieces.append(self.buf)
                have += len(self.buf)
                if not more:
                    break
        finally:
            self.buf = b"".join(pieces) if len(pieces) > 1 else self.buf

    def exactly(self, n, timeout=None):
        self.gather(n, timeout)
        if len(self.buf) < n:
            raise EOFError("closed after %d of %d bytes" % (len(self.buf), n))
        got, self.buf = self.buf[:n], self.buf[n:]
        return got

    def rest(self, timeout=None):
        """Everything up to a clean end of the stream."""
        self.gather(float("inf"), timeout)
        got, self.buf = self.buf, b""
        return got

    def fields(self, lines):
        out = []
        for line in lines:
            m = re.fullmatch(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0-\x08\x0a-\x1f\x7f]*?)[ \t]*", line)
            if not m:
                raise ProtocolError("field line %r" % line)
            out.append((m[1].decode(), m[2].decode("latin-1")))
        return out

    def head(self, timeout=None):
        raw = self.until(b"\r\n\r\n", timeout)
        line, *lines = raw[:-4].split(b"\r\n")
        m = Message(raw, line.decode("latin-1"), self.fields(lines))
        te, cl = m.all("transfer-encoding"), m.all("content-length")
        if te and cl or len(cl) > 1 or te not in ([], ["chunked"]) or cl and not cl[0].isdigit():
            raise ProtocolError("framing %r %r" % (te, cl))
        if m.method and m.version == "HTTP/1.1" and len(m.all("host")) != 1:
            raise ProtocolError("Host %r" % m.all("host"))
        return m

    def body(self, m, method=None, timeout=None):
        """Reads the body of head m; method: of the request, when m is a response."""
        if m.status and (method in ("HEAD", "CONNECT") or m.status in (204, 304) or m.status < 200):
            return m
        if m.has("transfer-encoding"):
            m.framing, pieces = "chunked", []
            while True:
                size = self.until(b"\r\n", timeout)
                if not re.fullmatch(rb"[0-9a-fA-F]+(;[^\r\n]*)?\r\n", size):
                    raise ProtocolError("chunk size %r" % size)
                n = int(size.split(b";")[0], 16)
                if n == 0:
                    break
                piece = self.exactly(n + 2, timeout)
                if piece[-2:] != b"\r\n":
                    raise ProtocolError("chunk end %r" % piece[-2:])
                pieces.append(piece[:-2])
            m.body = b"".join(pieces)
            lines = iter(lambda: self.until(b"\r\n", timeout)[:-2], b"")
            m.trailers = self.fields(lines)
        elif m.has("content-length"):
            m.framing = "length"
            m.body = self.exactly(int(m.get("content-length")), timeout)
        elif m.status:
            m.framing = "close"
            m.body = self.rest(timeout)
        return m


def rst(sock):
    """Closes with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def request(target="/", *fields, method="GET", host="a.example", version="1.1", body=None):
    """The bytes of a request. fields: 'Name: value' lines; body adds Content-Length; host None omits Host."""
    lines = ["%s %s HTTP/%s" % (method, target, version)] + (["Host: " + host] if host is not None else []) + list(fields)
    if body is not None:
        lines.append("Content-Length: %d" % len(body))
    return "\r\n".join(lines + ["", ""]).encode("latin-1") + (body or b"")


def reply(body=b"ok", *fields, status="200 OK", version="1.1"):
    """The bytes of a response with a Content-Length."""
    body = body.encode() if isinstance(body, str) else body
    lines = ["HTTP/%s %s" % (version, status), "Content-Length: %d" % len(body)] + list(fields) + ["", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunks(*pieces, last=True, trailers=()):
    """Pieces as chunks; last adds the end and the trailers ('Name: value')."""
    out = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)
    return out + (b"0\r\n" + "".join(t + "\r\n" for t in trailers).encode() + b"\r\n" if last else b"")


# a websocket handshake, and its answer
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


class Client(Wire):
    """A raw client connection."""

    def __init__(self, addr, timeout=None, rcvbuf=None):
        if rcvbuf:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            s.settimeout(timeout or TIMEOUT)
            s.connect(("127.0.0.1", addr))
        else:
            s = connect(addr, timeout)
        if s.family != socket.AF_UNIX:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.settimeout(TIMEOUT)
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def interim(self, timeout=None):
        """The next 1xx."""
        m = self.head(timeout or TIMEOUT)
        assert m.status < 200, "wanted a 1xx, got %r" % m
        return m

    def response(self, method="GET", timeout=None):
        """The next final response with its body; 1xx before it are in .interim."""
        timeout, interim = timeout or TIMEOUT, []
        while (m := self.head(timeout)).status < 200 and m.status != 101:
            interim.append(m)
        m.interim = interim
        return m if m.status == 101 else self.body(m, method, timeout)

    def ask(self, target="/", *fields, method="GET", timeout=None, **kw):
        """One request on this connection, its response."""
        self.send(request(target, *fields, method=method, **kw))
        return self.response(method, timeout)

    def closed(self, timeout=None):
        """Waits for the other side to close; says how ('eof', 'reset'), fails on any further byte."""
        try:
            more = self.buf or self.fill(timeout or TIMEOUT)
        except ConnectionError:
            return "reset"
        except TimeoutError:
            raise AssertionError("still open") from None
        assert not more, "more bytes: %r" % self.buf[:300]
        return "eof"

    def is_open(self, wait=0.1):
        """Whether neither bytes nor the end came within wait."""
        return not self.buf and not select.select([self.sock], [], [], wait)[0]

    def fin(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def rst(self):
        rst(self.sock)

    def close(self):
        self.sock.close()


# ---- backend ----------------------------------------------------------------

class Conn(Wire):
    """One connection a Backend got. closed is set when the peer closed; end says how."""

    def __init__(self, sock, backend, index):
        super().__init__(sock)
        self.backend, self.index = backend, index
        self.raw, self.requests = b"", []
        self.closed, self.end = threading.Event(), None

    def fill(self, timeout=None):
        before = len(self.buf)
        try:
            more = super().fill(timeout)
        except ConnectionError:
            self.end = "reset"
            self.closed.set()
            raise
        if self.backend.record:
            self.raw += self.buf[before:]
        if not more:
            self.end = self.end or "eof"
            self.closed.set()
        return more

    def send(self, data):
        self.sock.sendall(data)

    def request(self):
        """The next whole request; raises EOFError when none comes any more."""
        return self.finish(self.begin())

    def begin(self):
        m = self.head()
        self.requests.append(m)
        return m

    def finish(self, m=None):
        m = self.body(m or self.requests[-1])
        with self.backend.news:
            self.backend.requests.append(m)
            self.backend.news.notify_all()
        return m

    @property
    def last(self):
        return self.requests[-1]


# Steps of a script: bytes are sent; a callable gets the Conn, and what it returns is sent.
def REQ(c): c.request()                                   # wait for a whole request
def HEAD(c): c.begin()                                    # wait for a head ...
def BODY(c): c.finish()                                   # ... and for its body
def CLOSE(c): c.sock.close()
def FIN(c): c.sock.shutdown(socket.SHUT_WR)
def RST(c): rst(c.sock)


def ECHO(c):
    """Answers every further request with 'NAME METHOD TARGET BODYLENGTH'."""
    while True:
        m = c.request()
        c.send(reply("%s %s %s %d" % (c.backend.name, m.method, m.target, len(m.body)) if m.method != "HEAD" else b""))


def WAIT(event, timeout=None):
    """A step that waits for a threading.Event."""
    def step(c):
        if not event.wait(timeout or 4 * TIMEOUT):
            raise TimeoutError("event")
    return step


class Backend:
    """A server on a thread. Connection i runs scripts[i], further ones the last; none: ECHO.
    After its script a connection is read until the peer closes it. What is not strict HTTP
    is noted in .errors, which close() raises: no test passes with a sloppy request upstream."""
    kind = Conn

    def __init__(self, *scripts, name="app", unix=None, host="127.0.0.1", port=None, record=True, backlog=128, rcvbuf=None):
        self.scripts, self.name, self.record = scripts or ([ECHO],), name, record
        self.conns, self.requests, self.errors = [], [], []
        self.news = threading.Condition()
        self.unix, self.host = unix, host
        if unix:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind("\0" + unix[1:] if unix.startswith("@") else unix)
        else:
            self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if rcvbuf:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            self.sock.bind((host, port or free_port()))
        self.port = None if unix else self.sock.getsockname()[1]
        self.sock.listen(backlog)
        self.closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def conf(self):
        """Its address as keys of an upstream or instance."""
        return {"socket": self.unix} if self.unix else {"host": self.host, "port": self.port}

    @property
    def last(self):
        return self.requests[-1]

    def _accept(self):
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            with self.news:
                c = self.kind(sock, self, len(self.conns))
                self.conns.append(c)
                self.news.notify_all()
            threading.Thread(target=self._run, args=(c,), daemon=True).start()

    def _run(self, c):
        try:
            for step in self.scripts[min(c.index, len(self.scripts) - 1)]:
                out = step(c) if callable(step) else step
                if out:
                    c.send(out)
            c.rest()
        except ProtocolError as e:
            if not self.closing:
                self.errors.append("connection %d: %s" % (c.index, e))
        except (EOFError, OSError, ValueError):
            pass
        finally:
            c.closed.set()
            try:
                c.sock.close()
            except OSError:
                pass

    def wait(self, probe, what="news", timeout=None):
        """Waits until probe() is true; woken by connections and requests."""
        with self.news:
            assert self.news.wait_for(probe, timeout or TIMEOUT), "%s: no %s" % (self.name, what)

    def conn(self, i=0):
        """Connection i, waited for."""
        self.wait(lambda: len(self.conns) > i, "connection %d" % i)
        return self.conns[i]

    def request(self, i=0):
        """Request i (in order of completion), waited for."""
        self.wait(lambda: len(self.requests) > i, "request %d" % i)
        return self.requests[i]

    def close(self):
        self.closing = True
        for s in [self.sock] + [c.sock for c in self.conns]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        assert not self.errors, "not strict HTTP at the backend: %s" % self.errors


class Blackhole:
    """A TCP address that accepts no connection and refuses none: SYNs are dropped."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", free_port()))
        self.sock.listen(0)
        self.port = self.sock.getsockname()[1]
        self.fill = []
        for _ in range(3):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.port))
            self.fill.append(s)
        eventually(lambda: select.select([self.sock], [], [], 0)[0], "full accept queue")

    conf = property(lambda self: {"host": "127.0.0.1", "port": self.port})

    def close(self):
        for s in self.fill + [self.sock]:
            s.close()


def fill_socket(path):
    """Datagrams for this socket, until nothing more goes in, whoever sends."""
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect(path)
            try:
                for n in range(1 << 16):
                    s.send(b"filler", socket.MSG_DONTWAIT)
            except BlockingIOError:
                if n == 0:
                    return


class Syslog:
    """The other end of /dev/log for those who run .program, a warp that sees a /dev of its own. It reads only
    when it is asked to, as a syslog daemon that hangs."""
    DEV = "null zero full random urandom tty"
    SCRIPT = """#!/bin/sh
exec unshare -m sh -c 'mkdir -p %(d)s && mount -t tmpfs none %(d)s || exit 7
for f in %(dev)s; do touch %(d)s/$f && mount --bind /dev/$f %(d)s/$f; done
ln -s /proc/self/fd %(d)s/fd; ln -s /proc/self/fd/1 %(d)s/stdout; ln -s /proc/self/fd/2 %(d)s/stderr; ln -s %(sock)s %(d)s/log
mount --rbind %(d)s /dev && exec %(warp)s "$@"' sh "$@"
"""

    def __init__(self, dir):
        needs_mounts()
        self.lines, self.sock = [], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path, self.program = os.path.join(dir, "syslog"), os.path.join(dir, "warp-with-syslog")
        self.sock.bind(self.path)
        os.chmod(self.path, 0o666)
        with open(self.program, "w") as f:
            f.write(self.SCRIPT % {"d": os.path.join(dir, "dev"), "dev": self.DEV, "sock": self.path, "warp": WARP})
        os.chmod(self.program, 0o755)

    def fill(self):
        fill_socket(self.path)

    def drain(self):
        """Takes what there is; the lines so far, as bytes."""
        while True:
            try:
                got = self.sock.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return self.lines
            if got != b"filler":
                self.lines.append(got)

    def wait(self, pattern, timeout=None):
        """The first line that matches."""
        return eventually(lambda: next((x for x in self.drain() if re.search(pattern.encode(), x)), None),
                          "%r in %s" % (pattern, self.lines[-20:]), timeout)

    def close(self):
        self.sock.close()


# ---- configuration ----------------------------------------------------------

def toml(v):
    """A value as TOML."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(map(toml, v)) + "]"
    if isinstance(v, dict):
        return "{ " + ", ".join("%s = %s" % (json.dumps(k), toml(x)) for k, x in v.items()) + " }"
    return json.dumps(v) if isinstance(v, str) else str(v)


def toml_file(conf):
    """A dict of sections as TOML: tables, tables of tables ([upstreams.NAME]) and lists of tables."""
    out = []

    def table(name, t, brackets="[%s]"):
        out.append(brackets % name)
        out.extend("%s = %s" % (k, toml(v)) for k, v in t.items())

    for name, v in conf.items():
        if isinstance(v, list):
            for t in v:
                table(name, t, "[[%s]]")
        elif name == "upstreams":
            for up, t in v.items():
                table("upstreams." + up, {k: x for k, x in t.items() if k != "instances"})
                for inst in t.get("instances", ()):
                    table("upstreams.%s.instances" % up, inst, "[[%s]]")
        else:
            table(name, v)
    return "\n".join(out) + "\n"


def conf(*routes, server=None, middleware=None, log=None, admin=None, **upstreams):
    """A configuration as dict. An upstream is a Backend (or what has .conf), a list of them
    (instances), or a dict of keys (`on` in it: one of the former). Without routes everything goes to the first upstream;
    a route without an action goes there too."""
    ups = {}
    for name, u in upstreams.items():
        keys = dict(u) if isinstance(u, dict) else {"on": u}
        on = keys.pop("on", None)
        if isinstance(on, (list, tuple)):
            keys["instances"] = [dict(b) if isinstance(b, dict) else b.conf for b in on]
        elif on is not None:
            keys.update(on.conf)
        ups[name] = keys
    first = next(iter(ups), None)
    actions = {"upstream", "redirect", "respond", "static_dir"}
    routes = [dict(r) if actions & set(r) else dict(r, upstream=first) for r in routes] or (
        [{"path_prefix": "/", "upstream": first}] if first else [])
    sections = {"server": server, "middleware": middleware, "log": log, "admin": admin}
    return {**{k: v for k, v in sections.items() if v is not None}, "upstreams": ups, "routes": routes}


def complete(text, port):
    """text with a listener on 127.0.0.1:port and the admin socket off, unless it has its own."""
    server = re.search(r"(?m)^\[server\][^\n]*\n((?:(?!\[).*\n?)*)", text)
    listens = server and re.search(r"(?m)^\s*(listen|http_port)\s*=", server[1])
    if server and not listens:
        at = server.start(1)
        text = text[:at] + 'listen = ["127.0.0.1:%d"]\n' % port + text[at:]
    elif not server:
        text = '[server]\nlisten = ["127.0.0.1:%d"]\n' % port + text
    if not re.search(r"(?m)^\[admin\]", text):
        text += '\n[admin]\nlisten = "off"\n'
    return text


# ---- warp -------------------------------------------------------------------

def clean_env(extra=None):
    """The environment without what warp would read from it, and with extra."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WARPDRIVE_", "LISTEN_", "NOTIFY_"))}
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=99")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99")
    env.update(extra or {})
    return env


def run_warp(*args, conf=None, cwd=None, env=None, timeout=None, input=None):
    """Runs warp to its end: CompletedProcess with text in stdout, stderr. conf: (path, text) is written first."""
    if conf:
        with open(conf[0], "w") as f:
            f.write(conf[1])
    p = subprocess.run([WARP, *args], cwd=cwd, env=clean_env(env), stdin=subprocess.DEVNULL if input is None else None,
                       input=input, capture_output=True, text=True, errors="replace", timeout=timeout or 2 * TIMEOUT)
    assert not REPORTS.search(p.stderr), p.stderr
    return p


class Warp:
    """A running warp. port, addr: its (first) listener; dir: its directory; file: its configuration."""

    def __init__(self, text, args, dir, env=None, ready=True, port=None, preexec_fn=None, pass_fds=()):
        self.dir, self.port, self.stopped = str(dir), port or free_port(), False
        self.addr = ("127.0.0.1", self.port)
        self.file = os.path.join(self.dir, "warp.toml")
        cmd = [WARP]
        if text is not None:
            self.write(text)
            cmd += ["-c", self.file]
        self._err, self._out = "", b""
        self._news = threading.Condition()
        r, w = os.pipe()
        cmd += ["-n", str(w)] + [str(a).replace("@PORT@", str(self.port)).replace("@DIR@", self.dir) for a in args]
        try:
            self.proc = subprocess.Popen(cmd, cwd=self.dir, env=clean_env(env), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, pass_fds=(w, *pass_fds), preexec_fn=preexec_fn)
        finally:
            os.close(w)
        self.pid = self.proc.pid
        self._readers = [threading.Thread(target=f, daemon=True) for f in (self._read_err, self._read_out)]
        for t in self._readers:
            t.start()
        try:
            if ready:
                assert select.select([r], [], [], 2 * TIMEOUT)[0], "not ready in time:\n" + self.stderr
                assert os.read(r, 16), "ended before it was ready (%s):\n%s" % (self.proc.wait(TIMEOUT), self._ended())
        except BaseException:
            self.kill()
            self.stopped = True
            raise
        finally:
            os.close(r)

    def write(self, text):
        """Writes the configuration: a dict, or a text in which @PORT@ and @DIR@ are replaced."""
        text = toml_file(text) if isinstance(text, dict) else text
        text = complete(text.replace("@PORT@", str(self.port)).replace("@DIR@", self.dir), self.port)
        with open(self.file + ".new", "w") as f:
            f.write(text)
        os.rename(self.file + ".new", self.file)

    def _read_err(self):
        for line in iter(self.proc.stderr.readline, b""):
            with self._news:
                self._err += line.decode("utf-8", "replace")
                self._news.notify_all()

    def _read_out(self):
        for piece in iter(lambda: self.proc.stdout.read1(65536), b""):
            with self._news:
                self._out += piece
                self._news.notify_all()

    def _ended(self):
        for t, pipe in zip(self._readers, (self.proc.stderr, self.proc.stdout)):
            t.join(TIMEOUT)
            if not t.is_alive():
                pipe.close()                               # pytest keeps every item, and so every warp
        return self._err

    @property
    def stderr(self):
        return self._err

    @property
    def stdout(self):
        return self._out.decode("utf-8", "replace")

    def _wait(self, read, pattern, timeout):
        found = lambda: re.search(pattern, read(), re.M)
        with self._news:
            assert self._news.wait_for(found, timeout or TIMEOUT), "no %r in:\n%s" % (pattern, read())
            return found()

    def wait_stderr(self, pattern, timeout=None):
        """The match of pattern in what stderr held so far or will hold."""
        return self._wait(lambda: self.stderr, pattern, timeout)

    def wait_stdout(self, pattern, timeout=None):
        return self._wait(lambda: self.stdout, pattern, timeout)

    def path(self, name):
        return os.path.join(self.dir, name)

    def client(self, **kw):
        return Client(self.port, **kw)

    def ask(self, target="/", *fields, method="GET", **kw):
        """One request on a connection of its own."""
        with self.client() as c:
            return c.ask(target, *fields, method=method, **kw)

    def signal(self, sig):
        self.proc.send_signal(sig)

    def children(self, of=None):
        """Process ids of the direct children (workers, resolver, ...)."""
        try:
            with open("/proc/%d/task/%d/children" % (of or self.pid, of or self.pid)) as f:
                return [int(p) for p in f.read().split()]
        except OSError:
            return []

    def rss(self):
        """Private memory (Pss) of the master and its children, bytes."""
        total = 0
        for pid in [self.pid] + self.children():
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += int(re.search(r"(?m)^Pss:\s+(\d+) kB", f.read())[1]) * 1024
        return total

    def kill(self):
        """Kills what is left of it, by pid."""
        for pid in self.children() + [self.pid]:
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass
        self.proc.wait(TIMEOUT)

    def wait(self, timeout=None):
        """Exit status, once it and everything that holds its stderr is gone."""
        try:
            status = self.proc.wait(timeout or 2 * TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("warp did not stop:\n" + self.stderr) from None
        finally:
            self.stopped = True
        self._ended()
        assert not REPORTS.search(self._err), self._err
        assert not any(t.is_alive() for t in self._readers), "a process of warp outlived it:\n" + self._err
        return status

    def stop(self, sig=SIGTERM, status=0, timeout=None):
        """Stops it and asserts the exit status and that no sanitizer spoke."""
        if not self.stopped:
            self.proc.send_signal(sig)
            got = self.wait(timeout)
            assert got == status, "exit status %s, wanted %s:\n%s" % (got, status, self._err)
        return self
