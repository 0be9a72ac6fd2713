"""What stands around warp in soak.py, and how it fails: servers of every kind that warp talks to, clients of every kind,
and faults of theirs and of the machine.

    a = Around(soak, directory)     starts them (real Redis and PostgreSQL where there are any)
    a.extend(conf)                  what they need in warp's configuration
    a.clients, a.faults             [(function of a Random, pause)], [function]
    a.figures()                     counts that must be the same again at the end
    a.skipped                       what could not be had here, and why

In namespaces of its own (soak.py starts itself so) it has the address 127.0.0.1:53 for a resolver that hangs, and
small file systems that fill up; on the machine itself neither is touched.
"""
import contextlib
import gzip
import hashlib
import itertools
import os
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import acme
import lib
import stores
import supervised as sup
import tls
import uwsgi
from lib import Client, ProtocolError, eventually, free_port, request

TEXT = b"all work and no play makes jack a dull boy\n" * 500
BLOB = hashlib.sha256(b"blob").digest() * 20000
SMALL = b"x" * 100
UPLOAD = b"u" * 200000          # beyond buffer_request: it goes to the disk
DISK = 2 << 20                  # bytes of each small file system
KEYS = 40                       # of what is cached
NODES = 3                       # of the FastRouter; the first one stays
MEMORY = 4 << 20                # server.memory_bytes: not much more than it must be
CERT_SECS = 90                  # of a certificate by ACME: renewed at two thirds of it, which is every minute
AUTH_SECS = 2                   # a verdict of forward_auth counts for half of it
ENDS = (OSError, EOFError, TimeoutError, ProtocolError)


class Server:
    """Answers on threads and remembers nothing. answer(head, body) gives the bytes, and how many of them to send before a
    reset, or None. kind: lib.Conn, or uwsgi.NodeConn; ctx: of TLS; port: the one it had before."""
    backend = requests = record = None

    def __init__(self, answer, kind=lib.Conn, ctx=None, port=None):
        self.answer, self.kind, self.ctx = answer, kind, ctx
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(("127.0.0.1", port or free_port()))
        self.sock.listen(128)
        self.port, self.open, self.lock = self.sock.getsockname()[1], set(), threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def accept(self):
        while True:
            try:
                sock = self.sock.accept()[0]
            except OSError:
                return
            with self.lock:
                self.open.add(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, bare):
        sock = bare
        try:
            if self.ctx:
                bare.settimeout(20)
                sock = self.ctx.wrap_socket(bare, server_side=True, suppress_ragged_eofs=False)
                sock.settimeout(None)
            c = self.kind(sock, self, 0)
            while True:
                m = c.head()
                c.body(m)
                out, cut = self.answer(m, m.body)
                sock.sendall(out[:cut])
                if cut is not None:
                    lib.rst(sock)
                    return
                if self.kind is uwsgi.NodeConn:
                    return
        except (*ENDS, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(bare)
            with contextlib.suppress(OSError):
                sock.close()

    def close(self):
        """The end without a word: who asks is refused, who is being answered is cut."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        with self.lock:
            for s in self.open:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)


class Dns:
    """A resolver at 127.0.0.1:53. mode: answer, hang, lie (an address where nobody is), deny (no such name)."""

    def __init__(self):
        self.mode, self.sock = "answer", socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 53))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            q, who = self.sock.recvfrom(2000)
            if self.mode == "hang" or len(q) < 17:
                continue
            end = q.index(0, 12) + 5
            a = q[end - 4:end - 2] == b"\0\1" and self.mode != "deny"
            host = b"\x7f\0\0\x09" if self.mode == "lie" else b"\x7f\0\0\1"
            head = q[:2] + (b"\x81\x83" if self.mode == "deny" else b"\x81\x80") + struct.pack(">HHHH", 1, a, 0, 0)
            self.sock.sendto(head + q[12:end] + (b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 1, 4) + host) * a, who)


def cached(key):
    """The body of a key: whoever gets another one got what is another's."""
    return (b"%s " % key.encode()) * 300


class Around:
    def __init__(self, soak, directory):
        self.soak, self.dir, self.skipped = soak, directory, []
        self.soak_pause = float(os.environ.get("SOAK_PAUSE") or 0)
        self.private = bool(os.environ.get("SOAK_PRIVATE"))
        sub = lambda name: os.path.join(directory, name)
        for d in ("redis", "pg", "pki", "www", "small", "keys", "ca"):
            os.makedirs(sub(d), exist_ok=True)
        os.chmod(sub("pg"), 0o777)
        for name, content in (("a.txt", TEXT), ("b.bin", BLOB)):
            with open(sub("www/" + name), "wb") as f:
                f.write(content)
        self.redis = stores.Redis(sub("redis")) if stores.Redis.program else self.skip("Redis", "no redis-server")
        self.pg = stores.Postgres(sub("pg")) if stores.Postgres.there() else self.skip("PostgreSQL", "not installed")
        self.pki = tls.Pki(sub("pki"))
        self.cert = self.pki.cert("a.example")
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        up = self.pki.cert("up.example")
        ctx.load_cert_chain(up.cert, up.key)
        self.origin = Server(self.original)
        self.secret = Server(lambda m, b: (lib.reply(b"secret"), None), ctx=ctx)
        self.guard = Server(self.verdict)
        self.guard_mode, self.denied_at = "allow", float("inf")
        self.torn, self.torn_at = Server(self.tear), itertools.count()
        self.nodes = [Server(self.node, uwsgi.NodeConn) for _ in range(NODES)]
        self.closing = threading.Event()
        self.away = set()                        # nodes that do not announce themselves
        self.dns = Dns() if self.private else self.skip("DNS that hangs and lies", "no namespace of its own")
        if not self.private:
            self.skip("full disk", "no namespace of its own")
        self.clock = os.path.join(directory, "clock")
        with open(self.clock, "wb") as f:
            f.write(bytes(4))
        with open(lib.WARP, "rb") as f:
            movable = b"SOAK_CLOCK" in f.read() or self.skip("clock jumps", "WARP is not build/warp-clock, and the clock is everybody's")
        self.https, self.subscriptions = free_port(), free_port()
        self.ca = self.certify(sub("ca")) if shutil.which("pebble") else self.skip("ACME", "no pebble")
        self.serials = {}                        # of certificates by ACME that a client saw, and when first
        self.troubles = []                       # [from, until]: no certificate was to be had
        threading.Thread(target=self.announce, daemon=True).start()
        c = [(self.tls_client, 0.05), (self.files, 0.03), (self.cache, 0.02), (self.cache, 0.02), (self.router, 0.03),
             (self.guarded, 0.05), (self.delayed, 0.02), (self.uploads, 0.1), (self.torn_client, 0.05)]
        self.clients = c + ([(self.named, 0.1)] if self.dns else []) + ([(self.acme_client, 0.2)] if self.ca else [])
        self.faults = [self.broken, self.descriptors, self.crowd, self.hungry, self.nodes_leave, self.any_child, self.purge, self.files_change,
                       self.guard_fails] + ([self.ca_ends, self.ca_freezes, self.ca_refuses] if self.ca else []) + \
            ([self.redis_ends, self.redis_freezes] if self.redis else []) + ([self.pg_ends] if self.pg else []) + \
            ([self.full_disk, self.dns_fails] if self.private else []) + ([self.clock_jumps] if movable else [])

    def skip(self, what, why):
        self.skipped.append("%s: %s" % (what, why))

    def certify(self, directory):
        """A CA behind another directory, whose answers may be made up. It asks again for what was proved, one time in two,
        and refuses a nonce now and then."""
        ca = acme.Pebble(directory, http_port=self.soak.http, tls_port=self.https, validity=CERT_SECS,
                         env={"PEBBLE_WFE_NONCEREJECT": "10", "PEBBLE_AUTHZREUSE": "50"})
        self.front, self.roots = acme.Front(ca), ""
        self.front.directory                     # asked once; it never changes
        self.trust(ca)
        return ca

    def trust(self, ca):
        """It signs with another key after each start; what it signed before is good until it ends."""
        self.roots += ca.root()
        self.acme_ctx = tls.context(self.pki.root)
        self.acme_ctx.load_verify_locations(cadata=self.roots)

    def extend(self, c):
        """The configuration of soak.py and all of this."""
        c["server"].update({"https_listen": ["127.0.0.1:%d" % self.https], "memory_bytes": MEMORY, "max_connections": 400})
        c["tls"] = {"enabled": True, "cert": self.cert.cert, "key": self.cert.key, "redirect": False, "session_cache": 100}
        if self.ca:
            c["tls"].update({"domains": ["acme.example"], "acme_directory": os.path.join(self.dir, "keys", "acme"),
                             "acme_url": self.front.url, "acme_ca_file": self.ca.ca_file})
        c["cache"] = {"size_bytes": 1 << 20, "stale_secs": 5, **({"redis_url": self.redis.url} if self.redis else {})}
        if self.pg:
            c["postgres"] = {"url": self.pg.url(more="?sslmode=disable"), "channel": "soak"}
        c["middleware"] = {"gzip_compression_enabled": True, "log_requests": True}
        c["log"] = {"access": os.path.join(self.dir, "small", "access")}
        c["fastrouter"] = {"listen": ["@DIR@/router"], "subscription_server": ["127.0.0.1:%d" % self.subscriptions], "subscription_tolerance": 5}
        calm = {"max_fails": 0, "retries": 5, "read_timeout_secs": 15}
        at = lambda s, **kw: {"instances": [{"host": "127.0.0.1", "port": s.port}], **calm, **kw}
        c["upstreams"].update({
            "origin": at(self.origin), "guard": at(self.guard), "torn": at(self.torn),
            "secret": {"url": "https://127.0.0.1:%d" % self.secret.port, **calm,
                       "tls": {"verify": True, "ca_file": self.pki.root, "server_name": "up.example"}}})
        if self.dns:
            c["upstreams"]["named"] = {"host": "origin.soak", "port": self.origin.port, **calm, "hold_secs": 20}
        more = [{"path_prefix": "/files", "strip_prefix": True, "static_dir": os.path.join(self.dir, "www")},
                {"path_prefix": "/cached", "upstream": "origin"},
                {"path_prefix": "/guarded", "upstream": "origin", "cache": False,
                 "forward_auth": {"upstream": "guard", "path": "/verify", "copy_headers": ["Remote-User"], "timeout_secs": 10, "cache_secs": 1}},
                {"path_prefix": "/delayed", "upstream": "origin", "cache": False,
                 "rate_limit": {"requests": 20, "per_secs": 1, "burst": 20, "key": "all", "delay": True}},
                {"path_prefix": "/upload", "upstream": "origin", "cache": False, "buffer_request": 10000},
                {"path_prefix": "/torn", "upstream": "torn"}, {"path_prefix": "/secret", "upstream": "secret"}]
        c["routes"] += more + ([{"path_prefix": "/named", "upstream": "named", "cache": False}] if self.dns else [])
        return c

    # ---- servers ----

    def original(self, m, body):
        if m.target.startswith("/cached/"):
            return lib.reply(cached(m.target[8:]), "Cache-Control: max-age=1", "Content-Type: text/plain"), None
        return lib.reply(b"origin %d" % len(body)), None

    def tear(self, m, body):
        """An answer that is cut at every byte in turn, one time in two."""
        out, n = lib.reply(cached(m.target[6:]), "Cache-Control: max-age=1"), next(self.torn_at)
        self.soak.count("torn_by_the_backend", n % 2)
        return out, n // 2 % len(out) if n % 2 else None

    def verdict(self, m, body):
        out = lib.reply(b"", "Remote-User: ann", status="403 Forbidden" if self.guard_mode == "deny" else "200 OK")
        if self.guard_mode == "late":
            self.pause(3)
        return out, self.soak.random.randrange(len(out)) if self.guard_mode == "reset" else None

    @staticmethod
    def node(m, body):
        return lib.reply(b"node " + m.key.encode()), None

    def announce(self):
        """As uwsgi does it, a bit more often: each node that is there says so."""
        while not self.closing.wait(0.5):
            for i, n in enumerate(self.nodes):
                if i not in self.away:
                    with contextlib.suppress(OSError):
                        uwsgi.announce("127.0.0.1:%d" % self.subscriptions, "soak.example", n)

    # ---- clients ----

    def ask(self, what, good, *fields, port=None, make=None, excuse=(), n=20, method="GET", body=None):
        """n requests on one connection; good(answer) is what holds of each, or the error is counted."""
        with contextlib.ExitStack() as end:
            began = time.monotonic()
            try:
                c = end.enter_context(make() if make else Client(self.soak.w.port, timeout=60))
                for _ in range(n):
                    began = time.monotonic()
                    if self.soak.load_over.is_set():
                        return
                    target = what()
                    m = c.ask(target, *fields, method=method, body=body, timeout=60)
                    if not good(target, m):
                        self.soak.error(began, "%s: %d %r" % (target, m.status, m.text[:200]), *excuse, "never" if m.status == 200 else "")
                    self.soak.count("answers")
                    if "close" in m.tokens("connection"):
                        return
                    time.sleep(self.soak_pause)
            except ENDS as e:
                self.soak.error(began, "%s: %r" % (what(), e), *excuse)

    def tls_client(self, rnd):
        if not hasattr(self, "ctx"):
            self.ctx = tls.context(self.pki.root)
        self.ask(lambda: rnd.choice(("/secret/x", "/files/b.bin")), lambda t, m: m.status == 200 and m.body == (b"secret" if t[1] == "s" else BLOB),
                 make=lambda: tls.Client(self.https, self.ctx, timeout=60), n=rnd.randrange(1, 20), excuse=("clock",))

    def files(self, rnd):
        def good(t, m):
            got = gzip.decompress(m.body) if m.get("Content-Encoding") == "gzip" else m.body
            return m.status == 200 and got == (TEXT if t.endswith("txt") else BLOB)
        self.ask(lambda: rnd.choice(("/files/a.txt", "/files/b.bin")), good, "Accept-Encoding: gzip")

    def cache(self, rnd):
        self.ask(lambda: "/cached/%d" % rnd.randrange(KEYS), lambda t, m: m.status == 200 and m.body == cached(t[8:]))

    def torn_client(self, rnd):
        """A whole answer is the right one; a half one is seen to be that."""
        target = "/torn/%d" % rnd.randrange(KEYS)
        with contextlib.suppress(*ENDS), Client(self.soak.w.port, timeout=60) as c:
            m = c.ask(target, timeout=60)
            self.soak.count("torn_whole" if m.status == 200 else "torn_refused")
            if m.status == 200 and m.body != cached(target[6:]):
                self.soak.error(time.monotonic(), "%s: not its body: %r" % (target, m.body[:80]), "never")

    def router(self, rnd):
        began = time.monotonic()
        try:
            got = uwsgi.ask(self.soak.w.path("router"), {"HTTP_HOST": "soak.example", "REQUEST_METHOD": "GET"}, timeout=60)
            if uwsgi.body_of(got) != "node soak.example":
                self.soak.error(began, "fastrouter: %r" % got[:200], "nodes")
            self.soak.count("answers")
        except ENDS as e:
            self.soak.error(began, "fastrouter: %r" % e, "nodes")

    def guarded(self, rnd):
        """Once the guard has said no for as long as its yes may be kept, nobody comes in."""
        asked = []

        def what():
            asked.append(time.monotonic())
            return "/guarded"
        self.ask(what, lambda t, m: m.status == 200 and asked[-1] < self.denied_at + AUTH_SECS, excuse=("guard",))

    def acme_client(self, rnd):
        """Whoever wants the name whose certificate is by ACME gets one for it, by that CA, that is valid: unless there was
        trouble for most of the third of its time that was left for a renewal."""
        began = time.monotonic()
        try:
            with tls.Client(self.https, self.acme_ctx, "acme.example", timeout=60) as c:
                cert = c.sock.getpeercert()
                assert acme.names(cert) == ["acme.example"], cert
                self.serials.setdefault(cert["serialNumber"], began)
                self.soak.count("handshakes_by_acme")
                m = c.ask("/files/a.txt", timeout=60)
                if m.status != 200 or m.body != TEXT:
                    self.soak.error(began, "acme.example: %d %r" % (m.status, m.text[:200]))
        except ENDS as e:
            last = max(self.serials.values(), default=0)
            lost = sum(max(0, min(until, began) - max(since, last + CERT_SECS * 2 / 3)) for since, until in self.troubles)
            if "expired" in str(e) and lost > CERT_SECS / 6:
                self.soak.count("excused: acme")
            else:
                self.soak.error(began, "acme.example: %r, certificates so far: %d, the last one %.0f s ago, trouble for %.0f s" % (
                    e, len(self.serials), began - last, lost))

    def named(self, rnd):
        self.ask(lambda: "/named", lambda t, m: m.status == 200, excuse=("dns",))

    def delayed(self, rnd):
        self.ask(lambda: "/delayed", lambda t, m: m.status in (200, 429))

    def uploads(self, rnd):
        self.ask(lambda: "/upload", lambda t, m: m.status == 200 and m.body == b"origin %d" % len(UPLOAD), method="POST", body=UPLOAD,
                 excuse=("disk",))

    # ---- faults ----

    def pause(self, most):
        self.soak.faults_over.wait(self.soak.random.random() * most)

    def broken(self):
        """A configuration that does not hold: said so, and nothing changes."""
        with self.soak.conf_lock:
            good = lib.read(self.soak.w.file)
            self.soak.w.write(good + self.soak.random.choice(("[", "[[routes]]\nupstream = \"nobody\"\n", "[nonsense]\n", "[server]\nworker_threads = 3\n")))
            try:
                sup.verb(self.soak.w, "reload", ok=False)
            finally:
                self.soak.w.write(good)
        self.soak.count("broken")

    def descriptors(self):
        """A worker may open no more, or one more."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
            pid = self.soak.random.choice(sup.workers(self.soak.w))
            was = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            self.soak.hard["descriptors"] = float("inf")
            try:
                n = max(map(int, os.listdir("/proc/%d/fd" % pid))) + self.soak.random.randrange(3)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (n, was[1]))
                self.pause(2)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, was)
                self.soak.hard["descriptors"] = time.monotonic() + 1
            self.soak.count("descriptors")

    def crowd(self):
        """More clients than may come: who is idle makes way, and may be asking just then (RFC 9112, 9.3.1)."""
        self.soak.hard["crowd"] = float("inf")
        with contextlib.ExitStack() as end:
            with contextlib.suppress(OSError):
                for _ in range(900):
                    s = end.enter_context(socket.socket())
                    s.setblocking(False)
                    s.connect_ex(("127.0.0.1", self.soak.w.port))
            self.pause(2)
        self.soak.hard["crowd"] = time.monotonic()
        self.soak.count("crowds")

    def hungry(self):
        """Clients who ask for much and read nothing: more than memory_bytes allows. The others wait; who is idle makes way."""
        self.soak.hard["crowd"] = float("inf")
        with contextlib.ExitStack() as end:
            with contextlib.suppress(OSError):
                for _ in range(150):
                    s = end.enter_context(socket.socket())
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    s.settimeout(0.2)
                    s.connect(("127.0.0.1", self.soak.w.port))
                    s.sendall(request("/single/big?400000"))
            self.pause(2)
        self.soak.hard["crowd"] = time.monotonic()
        self.soak.count("hungry_crowds")

    def nodes_leave(self):
        """One node says goodbye, or dies without a word, and comes back. The first is always there."""
        i = self.soak.random.randrange(1, NODES)
        self.away.add(i)
        if self.soak.random.random() < 0.5:
            uwsgi.announce("127.0.0.1:%d" % self.subscriptions, "soak.example", self.nodes[i], leave=True)
            self.soak.count("nodes_left")
            self.pause(2)
        else:
            self.soak.hard["nodes"] = float("inf")           # an exchange with it may be cut
            self.nodes[i].close()
            self.soak.hard["nodes"] = time.monotonic() + 0.5
            self.soak.count("nodes_died")
            self.pause(6)
            self.nodes[i] = Server(self.node, uwsgi.NodeConn, port=self.nodes[i].port)
        self.away.discard(i)

    def any_child(self):
        """Any process of warp's but the master: a helper, a warden, a worker that drains; frozen, workers that serve too."""
        kill = self.soak.random.random() < 0.5
        spared = set(sup.workers(self.soak.w)) if kill else ()
        pids = [p for p in self.soak.w.children() if p not in spared]
        if not pids:
            return
        pid = self.soak.random.choice(pids)
        name = lib.read("/proc/%d/comm" % pid).strip()
        with contextlib.suppress(ProcessLookupError):
            if kill:
                sup.kill(pid)
                if name != "warden":
                    self.soak.hard["worker"] = time.monotonic() + 1
                self.soak.count("killed " + name)
            else:
                sup.kill(pid, signal.SIGSTOP)
                self.soak.count("frozen " + name)
                self.pause(2)
                sup.kill(pid, signal.SIGCONT)

    def guard_fails(self):
        """Whom forward_auth asks answers late, not whole, or no."""
        mode = self.soak.random.choice(("late", "reset", "deny"))
        self.soak.hard["guard"] = float("inf") if mode != "late" else self.soak.hard.get("guard", 0)
        self.guard_mode = mode
        self.denied_at = time.monotonic() if mode == "deny" else float("inf")
        self.pause(6)
        self.guard_mode, self.denied_at = "allow", float("inf")
        if mode != "late":
            self.soak.hard["guard"] = time.monotonic() + AUTH_SECS
        self.soak.count("guard_" + mode)

    @contextlib.contextmanager
    def trouble(self):
        """No certificate is to be had, nor until it is tried again."""
        here = [time.monotonic(), float("inf")]
        self.troubles.append(here)
        try:
            yield
        finally:
            here[1] = time.monotonic() + CERT_SECS / 9

    def ca_ends(self):
        """It comes back without a memory of accounts and orders."""
        with self.trouble():
            self.ca.stop()
            self.pause(5)
            self.ca.start()
            self.trust(self.ca)
        self.soak.count("ca_ended")

    def ca_freezes(self):
        with self.trouble():
            self.ca.proc.send_signal(signal.SIGSTOP)
            self.pause(5)
            self.ca.proc.send_signal(signal.SIGCONT)
        self.soak.count("ca_frozen")

    def ca_refuses(self):
        """Orders are refused, cut or answered with something else."""
        real = self.front.directory["newOrder"]
        self.front.answers["/order"] = self.soak.random.choice((
            (500, {}, {}), (429, {"Retry-After": "3"}, {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}),
            (201, {}, {"status": "valid"}), b"HTTP/1.1 201 Created\r\nContent-Len", b"\0" * 100, b"HTTP/1.1 103 x\r\n\r\n"))
        with self.trouble():
            self.front.directory["newOrder"] = self.front.place("/order")
            self.pause(8)
            self.front.directory["newOrder"] = real
        self.soak.count("ca_refuses")

    def purge(self):
        key = "/cached/%d" % self.soak.random.randrange(KEYS)
        if self.pg and self.pg.proc.poll() is None:
            with contextlib.suppress(AssertionError):
                self.pg.notify("soak", self.soak.random.choice((key, "/cached/*")))
        else:
            sup.verb(self.soak.w, "purge", key, ok=None)
        self.soak.count("purges")

    def files_change(self):
        """A file is replaced by its like, as a deployment does it."""
        name = os.path.join(self.dir, "www", "a.txt")
        with open(name + ".new", "wb") as f:
            f.write(TEXT)
        os.rename(name + ".new", name)
        self.soak.count("files_replaced")

    def redis_ends(self):
        self.redis.kill()
        self.pause(3)
        self.redis.start()
        self.soak.count("redis_killed")

    def redis_freezes(self):
        self.redis.freeze()
        self.pause(2)
        self.redis.go_on()
        self.soak.count("redis_frozen")

    def pg_ends(self):
        self.pg.stop(self.soak.random.choice(("fast", "immediate")))
        self.pause(3)
        self.pg.start()
        self.soak.count("postgres_ended")

    def full_disk(self):
        """Where bodies are spooled, where the access log is, and where certificates are: nothing more fits."""
        self.soak.hard["disk"] = float("inf")
        names = [os.path.join(d, "fill") for d in ("/tmp", os.path.join(self.dir, "small"), os.path.join(self.dir, "keys"))]
        try:
            for name in names:
                with open(name, "wb", buffering=0) as f, contextlib.suppress(OSError):
                    while True:
                        f.write(bytes(4096))
            with self.trouble():
                self.pause(3)
        finally:
            for name in names:
                os.unlink(name)
            os.rename(os.path.join(self.dir, "small", "access"), os.path.join(self.dir, "small", "old"))
            self.soak.w.signal(signal.SIGUSR1)
            os.unlink(os.path.join(self.dir, "small", "old"))
            self.soak.hard["disk"] = time.monotonic() + 1
        self.soak.count("disks_filled")

    def dns_fails(self):
        """The resolver hangs, says that there is no such name, or lies; longer than an answer is good for."""
        mode = self.soak.random.choice(("hang", "hang", "deny", "lie"))
        self.soak.hard["dns"] = float("inf") if mode != "hang" else self.soak.hard.get("dns", 0)
        self.dns.mode = mode
        self.pause(5)
        self.dns.mode = "answer"
        if mode != "hang":
            self.soak.hard["dns"] = time.monotonic() + 35       # DNS_TTL_SECS, and then some
        self.soak.count("dns_" + mode)

    def clock_jumps(self):
        """An hour, a day, years, either way: certificates of upstreams are not valid then, nothing else may happen."""
        self.soak.hard["clock"] = float("inf")
        for away in (self.soak.random.choice((1, -1)) * self.soak.random.choice((3600, 86400, 100000000, 600000000)), 0):
            with open(self.clock, "r+b") as f:
                f.write(struct.pack("=i", away))
            if away:
                with self.trouble():
                    self.pause(3)
        self.soak.hard["clock"] = time.monotonic() + 1
        self.soak.count("clock_jumps")

    # ---- figures ----

    def figures(self):
        """Connections at the stores, nodes, files, segments of shared memory, helpers by name."""
        got = {"helpers": sorted(lib.read("/proc/%d/comm" % p).strip() for p in self.soak.w.children()),
               "sockets": sorted(n for n in os.listdir(self.dir) if n not in ("warp.toml.new",)),
               "keys": sorted(os.listdir(os.path.join(self.dir, "keys", "acme"))) if self.ca else [],
               "run": sum(len(files) for _, _, files in os.walk("/run")) if self.private else 0,
               "tmp": sorted(os.listdir("/tmp")) if self.private else [],
               "shm": sorted(n for n in os.listdir("/dev/shm") if "PostgreSQL" not in n) if self.private else []}
        if self.redis:
            got["redis"] = self.redis("CLIENT", "LIST").count(b"addr=")
        if self.pg:
            got["listeners"] = int(self.pg.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warp'"))
        return got

    def left(self):
        """Once warp has ended."""
        found = [os.path.join(d, f) for d, _, files in os.walk("/run") for f in files] if self.private else []
        found += [self.soak.w.path(n) for n in ("admin", "router") if os.path.exists(self.soak.w.path(n))]
        return ["left behind: %s" % found] if found else []

    def close(self):
        self.closing.set()
        for s in (self.redis, self.pg, *self.nodes):
            if s:
                s.close()
        if self.ca:
            self.ca.__exit__()


def private(argv, directory):
    """The exit status of the same in namespaces of its own; None where that may not be."""
    space = ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "--net", "--kill-child"]
    if subprocess.run([*space, "true"], stderr=subprocess.DEVNULL).returncode:
        return None
    return subprocess.run([*space, *argv], env={**os.environ, "SOAK_PRIVATE": directory}).returncode


def rooms(directory):
    """In those namespaces: the loopback, a resolv.conf, a small /tmp (what is needed of the old one stays where it is), an
    empty /run, and a small place for the log."""
    run = lambda *cmd, **kw: subprocess.run(cmd, check=True, **kw)
    small = ("mount", "-t", "tmpfs", "-o", "mode=1777,size=%d" % DISK, "none")
    run("ip", "link", "set", "lo", "up")
    conf = os.path.join(directory, "resolv.conf")
    with open(conf, "w") as f:
        f.write("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
    run("mount", "--bind", conf, "/etc/resolv.conf")
    for d in ("small", "keys"):
        os.mkdir(os.path.join(directory, d))
        run(*small, os.path.join(directory, d))
    run(*small, "/run")
    kept = {d: os.open(d, os.O_RDONLY) for d in (lib.ROOT, os.path.dirname(lib.WARP), directory) if d.startswith("/tmp/")}
    run(*small, "/tmp")
    for d, fd in kept.items():
        os.makedirs(d, exist_ok=True)
        run("mount", "-c", "--rbind", "/proc/self/fd/%d" % fd, d, pass_fds=(fd,))
        os.close(fd)
