"""What the tests of the cache share: an origin server that counts, configurations with a cache, crowds.

    o = Origin(backend)                 a lib.Backend that answers by path:
    o.page("/x", says("Cache-Control: max-age=60"))       body: 'TARGET N', N counts the requests for TARGET
    o.count("/x"), o.asked("/x"), o.pages, o.down()
"""
import collections
import os
import random
import re
import threading
import time
from email.utils import formatdate

import lib
from lib import TIMEOUT, Client, chunks, eventually, reply, request

LATER = 1.2            # seconds: what was fresh for one more is stale after that, however it counts
MB = 1 << 20


def date(ahead=0):
    return formatdate(time.time() + ahead, usegmt=True)


def says(*fields, body=None, status="200 OK", version="1.1", chunked=False, trailers=(), fields304=None):
    """A page: body, or 'TARGET N'; a function of (request, n) may make it. With an ETag or Last-Modified among its
    fields, conditions that hold are answered with a 304, which has fields304 or the same."""
    named = dict(f.split(": ", 1) for f in fields if ": " in f)

    def page(c, m, n):
        same = named.get("ETag") and m.get("if-none-match") == named["ETag"] or not m.has("if-none-match") and \
            named.get("Last-Modified") and m.get("if-modified-since") == named["Last-Modified"]
        if same:
            return c.send("\r\n".join(["HTTP/1.1 304 Not Modified", *(fields if fields304 is None else fields304), "", ""])
                          .encode("latin-1"))
        got = body(m, n) if callable(body) else "%s %d" % (m.target, n) if body is None else body
        got = got.encode("latin-1") if isinstance(got, str) else got
        head_only = m.method == "HEAD"
        if chunked:
            head = "\r\n".join(["HTTP/1.1 " + status, "Transfer-Encoding: chunked", *fields, "", ""]).encode("latin-1")
            half = len(got) // 2
            c.send(head + (b"" if head_only else chunks(*filter(None, (got[:half], got[half:])), trailers=trailers)))
        elif status[:3] in ("204", "304"):
            c.send("\r\n".join(["HTTP/1.1 " + status, *fields, "", ""]).encode("latin-1"))
        else:
            out = reply(got, *fields, status=status, version=version)
            c.send(out[:len(out) - len(got)] if head_only else out)
            if version == "1.0":
                lib.FIN(c)
    return page


def raw(*pieces, last=lib.FIN):
    """A page of bytes and events: it waits for the events, and ends with what last does to the connection."""
    def page(c, m, n):
        for p in pieces:
            if isinstance(p, threading.Event):
                p.wait(4 * TIMEOUT)
            else:
                c.send(p)
        if last:
            last(c)
            raise EOFError
    return page


def after(event, page):
    """The page, once the event has come."""
    def waits(c, m, n):
        event.wait(4 * TIMEOUT)
        page(c, m, n)
    return waits


def in_turn(*pages):
    """The first page for the first request, and so on; the last stays."""
    return lambda c, m, n: pages[min(n, len(pages)) - 1](c, m, n)


def content(target, size=None):
    """Bytes that only this target has; their number too, unless it is given."""
    r = random.Random(str(target))
    return r.randbytes(r.randrange(500, 60000) if size is None else size)


class Origin:
    """Pages by target, or by its path; others say 'TARGET N' and are fresh for a minute."""

    def __init__(self, backend, **kw):
        self.pages, self.lock, self.counts = {}, threading.Lock(), collections.Counter()
        self.default = says("Cache-Control: max-age=60")
        self.backend = backend([self._serve], **kw)

    conf = property(lambda self: self.backend.conf)

    def _serve(self, c):
        while True:
            m = c.request()
            with self.lock:
                self.counts[m.target] += 1
                n = self.counts[m.target]
            page = self.pages.get(m.target) or self.pages.get(m.target.partition("?")[0]) or self.default
            page(c, m, n)

    def page(self, target, page):
        self.pages[target] = page

    def count(self, target):
        return self.counts[target]

    def asked(self, target):
        return [m for m in self.backend.requests if m.target == target]

    def wait(self, target, n=1):
        eventually(lambda: self.counts[target] >= n, "request %d for %s" % (n, target))

    def down(self):
        self.backend.close()


def cache_conf(o, *routes, workers=1, server=None, size=8 * MB, cache=True, **keys):
    """A configuration as dict: everything to the origin, by way of a cache with these keys."""
    keys.setdefault("max_object_bytes", min(size // 2, 4 * MB))
    return {**lib.conf(*routes, server={"worker_threads": workers, **(server or {})}, admin={"listen": ["@DIR@/admin.sock"]},
                       app={"on": o}),
            **({"cache": {"size_bytes": size, **keys}} if cache else {})}


def supported(keys="", more=""):
    """Whether this warp has a cache, and knows these keys of it, and these sections."""
    text = "[cache]\nsize_bytes = 1048576\nmax_object_bytes = 65536\n%s\n%s[[routes]]\nrespond = { status = 200, body = \"\" }\n" % (keys, more)
    try:
        with open(lib.WARP, "rb") as f:
            if b"X-Cache" not in f.read():
                return False
    except OSError:
        return False
    return "not in this build" not in lib.run_warp("-t", "-c", "/dev/stdin", input=text).stderr


def said(m):
    """What X-Cache says."""
    got = m.all("x-cache")
    assert len(got) <= 1 and all(g in ("HIT", "MISS", "STALE", "BYPASS") for g in got), got
    return got[0] if got else None


def hit(m):
    return said(m) == "HIT"


def fetched(m):
    """It is the origin's answer to this request."""
    return said(m) in ("MISS", "BYPASS", None)


def fill(w, *targets, **kw):
    """Puts these into the cache."""
    for t in targets:
        m = w.ask(t, **kw)
        assert fetched(m), (t, said(m))
        eventually(lambda: hit(w.ask(t, **kw)), "a hit of %s" % t)


def crowd(w, n, target="/", *fields, **kw):
    """n clients that have sent their request."""
    clients = [w.client() for _ in range(n)]
    for c in clients:
        c.send(request(target, *fields, **kw))
    return clients


def answers(clients, timeout=None):
    """What they get, all of it within the time."""
    end, got = time.monotonic() + (timeout or TIMEOUT), []
    for c in clients:
        got.append(c.response(timeout=max(0.05, end - time.monotonic())))
        c.close()
    return got


def stop_reading(w, target, rcvbuf=2048, **kw):
    """A client that has asked, and reads nothing."""
    c = Client(w.port, rcvbuf=rcvbuf)
    c.send(request(target, **kw))
    return c


def holders(w, conns):
    """The workers that hold the other ends of connections, None for those that are not accepted yet."""
    with open("/proc/net/tcp") as f:
        lines = [x.split() for x in f.readlines()[1:]]
    inodes = {(x[1][-5:], x[2][-5:]): x[9] for x in lines if x[9] != "0"}
    pids = {}
    for pid in w.children():
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                link = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            except OSError:
                continue
            if link.startswith("socket:"):
                pids[link[8:-1]] = pid
    ends = [tuple(":%04X" % x[1] for x in (c.sock.getpeername(), c.sock.getsockname())) for c in conns]
    return [pids.get(inodes.get(e)) for e in ends]


def purge(w, what):
    """`warp -s purge WHAT`."""
    p = lib.run_warp("-s", "purge", what, "-c", w.file, cwd=w.dir)
    assert p.returncode == 0, p.stderr
    return p.stdout


def post_purge(w, what):
    """POST /purge/WHAT at the admin socket."""
    with Client(w.path("admin.sock")) as c:
        return c.ask("/purge/" + what, method="POST")


def admin(w, target):
    with Client(w.path("admin.sock")) as c:
        return c.ask(target)


def figures(w):
    """The numbers below `cache` in /status: {name: number}, nested names joined by a dot."""
    def flat(v, at=""):
        for k, x in v.items():
            if isinstance(x, dict):
                yield from flat(x, at + k + ".")
            elif isinstance(x, (int, float)) and not isinstance(x, bool):
                yield at + k, x
    return dict(flat(admin(w, "/status").json["cache"]))


def figure(w, pattern):
    """The only one whose name matches."""
    got = {k: v for k, v in figures(w).items() if re.search(pattern, k)}
    assert got, "no %r in %s" % (pattern, figures(w))
    return next(iter(got.values()))
