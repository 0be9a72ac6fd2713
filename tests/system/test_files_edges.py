"""Edges of files, X-Sendfile and gzip that a review found: what an application says amiss, what changes beside a file
or within a tick of the clock, and what is done for nothing."""
import os
import resource
import time

import pytest

from content import MB, TEXT, App, Tree, gz, plain
from lib import SLOW, TIMEOUT, conf, eventually, reply, request

SOON = 2 * SLOW                      # a change on the disk is seen within this


@pytest.fixture(scope="module")
def tree():
    t = Tree()
    t.write("root/a.txt", TEXT)
    t.write("root/index.html", b"<p>index</p>")
    t.write("root/big.bin", bytes(range(256)) * (24 * MB // 256))
    yield t
    t.close()


@pytest.fixture
def app():
    a = App()
    yield a
    a.close()


def sending(tree, *routes, **kw):
    """A configuration that obeys X-Sendfile below the root."""
    return conf(*routes or [dict(path_prefix="/app/")],
                middleware={"x_sendfile_enabled": True, "x_sendfile_root": tree.root, **kw.pop("middleware", {})}, **kw)


# ---- what an application says beside X-Sendfile ------------------------------------------

@pytest.mark.parametrize("status, want", [("206 Partial Content", 200), ("412 Precondition Failed", 412), ("416 Range Not Satisfiable", 416)])
def test_statuses_of_ranges(warp, app, tree, status, want):
    """An application that looked at Range itself, or says so: never more than the file, and no worker lost."""
    w = warp(sending(tree, app=app))
    workers = w.children()
    target = app.says(reply(b"", "X-Sendfile: a.txt", "Content-Range: bytes 0-0/9", status=status))
    m = w.ask(target)
    assert m.status == want
    assert want != 200 or (m.body == TEXT and not m.has("Content-Range"))
    m = w.ask(target, "Range: bytes=2-4")
    assert (m.status, m.body) == (206, TEXT[2:5]) or m.status == want
    assert w.children() == workers, w.stderr


@pytest.mark.parametrize("n", [250, 254, 255])
def test_many_fields(warp, app, tree, n):
    """As many fields as a head may have, and those that warp adds."""
    w = warp(sending(tree, app=app))
    said = ["X-%d: %d" % (i, i) for i in range(n - 1)]                    # and Content-Length
    m = w.ask(app.says(reply(b"", *said, "X-Sendfile: a.txt")), "Range: bytes=0-1,5-6")
    assert m.status == 206 and all(m.has("X-%d" % i) for i in range(n - 1))
    m = w.ask(app.says(reply(b"", *said, "X-Sendfile: a.txt")))
    assert m.status == 200 and m.body == TEXT and m.get("ETag") and m.get("Content-Length") == "1000"


@pytest.mark.parametrize("fields", [("If-None-Match: *",), ("If-Match: \"other\"",), ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",)])
def test_conditions_of_what_was_done(warp, app, tree, fields):
    """The application has acted on a POST and its conditions: RFC 9110 13.1, evaluated before the action, not again."""
    w = warp(sending(tree, app=app))
    m = w.ask(app.says(reply(b"", "X-Sendfile: a.txt")), *fields, method="POST", body=b"x")
    assert (m.status, m.body) == (200, TEXT)


def test_trailers_behind_the_ignored_body(warp, app, tree):
    """Bodies that nobody wants leave nothing behind: 4000 of them."""
    w = warp(sending(tree, app=app))
    target = app.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Sendfile: a.txt\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")

    def many(n):
        with w.client() as c:
            for _ in range(n):
                m = c.ask(target)
                assert (m.status, m.body) == (200, TEXT)
    many(500)
    before = w.rss()
    many(3500)
    assert w.rss() - before < 2 * MB


def test_cached_route(warp, app, tree):
    """Where the cache is on, who asks for a file that another reads slowly does not wait for that."""
    w = warp({**sending(tree, dict(path_prefix="/app/", cache=True), app=app), "cache": {"size_bytes": 1 << 20}})
    target = app.says(reply(b"", "X-Sendfile: big.bin", "Cache-Control: max-age=60"))
    with w.client(rcvbuf=4096) as slow:
        slow.send(request(target))
        eventually(lambda: len(app.requests) == 1)
        begun = time.monotonic()
        with w.client(rcvbuf=4096) as other:
            other.send(request(target))
            assert other.head(TIMEOUT).status == 200 and time.monotonic() - begun < 1.5 * SLOW


@pytest.mark.parametrize("said", [(), ("Vary: Accept-Encoding",)])
def test_vary_of_all_answers(warp, app, tree, said):
    """What could have been compressed says so in its 304 and 206 too."""
    w = warp(sending(tree, app=app, middleware={"gzip_compression_enabled": True, "gzip_min_bytes": 10}))
    target = app.says(reply(b"", "X-Sendfile: a.txt", "Content-Type: text/plain", 'ETag: "q"', *said))
    for fields, status in ((("Accept-Encoding: gzip",), 200), ((), 200), (('If-None-Match: "q"',), 304), (("Range: bytes=0-1",), 206)):
        m = w.ask(target, *fields)
        assert m.status == status and m.all("Vary") == ["Accept-Encoding"], m.fields


@pytest.mark.parametrize("said", ["Content-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:", "Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==",
                                  "Repr-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:", "digest: md5=x"])
def test_no_gzip_of_what_has_a_digest(warp, app, said):
    """RFC 9530: it is of these bytes, and clients hold them against it."""
    w = warp(conf(dict(path_prefix="/app/"), middleware={"gzip_compression_enabled": True, "gzip_min_bytes": 10}, app=app))
    m = w.ask(app.says(reply(TEXT, "Content-Type: text/plain", said)), "Accept-Encoding: gzip")
    assert m.body == TEXT and not m.has("Content-Encoding")


# ---- what changes ----------------------------------------------------------------------

def test_neighbour_comes_later(warp, tree):
    """A deployment that compresses after it has copied."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root)))
    tree.write("root/late.css", b"plain " * 200)
    assert not w.ask("/late.css", "Accept-Encoding: gzip").has("Content-Encoding")
    tree.write("root/late.css.gz", gz(b"plain " * 200))

    def seen():
        m = w.ask("/late.css", "Accept-Encoding: gzip")
        assert plain(m) == b"plain " * 200
        return m.get("Content-Encoding") == "gzip"
    eventually(seen, timeout=2 * SOON)
    os.unlink(tree.path("root/late.css.gz"))
    eventually(lambda: not w.ask("/late.css", "Accept-Encoding: gzip").has("Content-Encoding"), timeout=2 * SOON)


def test_rewritten_within_a_tick(warp, tree):
    """A file rewritten in place, as long as before, within the tick that its time was taken from."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root)))
    stale = []
    with w.client() as c:
        for i in range(40):
            p = tree.write("root/tick-%d.txt" % i, b"old", mtime=None)
            with open(p, "r+b", buffering=0) as f:
                f.write(b"one")
                assert c.ask("/tick-%d.txt" % i).body in (b"old", b"one")
                f.seek(0)
                f.write(b"two")
        time.sleep(SOON)
        for i in range(40):
            if c.ask("/tick-%d.txt" % i).body != b"two":
                stale.append(i)
        time.sleep(SOON)
        stale = [i for i in stale if c.ask("/tick-%d.txt" % i).body != b"two"]
    assert not stale


@pytest.mark.limit(40)
def test_deleted_files_are_let_go(warp, tree):
    """What was deleted, and nobody asks for, is not kept open: its room on the disk is free."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root)))
    tree.write("root/deleted.bin", b"x" * MB)
    assert len(w.ask("/deleted.bin").body) == MB

    def kept():
        for pid in w.children():
            for fd in os.listdir("/proc/%d/fd" % pid):
                try:
                    if "deleted.bin" in os.readlink("/proc/%d/fd/%s" % (pid, fd)):
                        return True
                except FileNotFoundError:             # closed meanwhile
                    pass
        return False
    assert kept()
    os.unlink(tree.path("root/deleted.bin"))
    eventually(lambda: not kept(), timeout=15 * SLOW)


def test_out_of_descriptors(warp, tree):
    """What is known is served on; what is not is a 503, never a 404."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root)))
    worker = w.children()[-1]
    with w.client() as c:
        assert c.ask("/a.txt").status == c.ask("/big.bin", "Range: bytes=0-0").status - 6 == 200
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (5, limits[1]))
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            assert c.ask("/a.txt").body == TEXT and c.ask("/big.bin", "Range: bytes=0-1").body == b"\0\1"
            time.sleep(0.1)
        assert c.ask("/index.html").status == c.ask("/nothing").status == 503
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        eventually(lambda: c.ask("/index.html").status == 200 and c.ask("/nothing").status == 404)


# ---- names -------------------------------------------------------------------------------

@pytest.mark.parametrize("end", ["", "/"])
def test_root_with_a_slash(warp, app, tree, end):
    """As nginx's alias is written, `static_dir = "/srv/www/"`: absolute links inside and absolute X-Sendfiles are below it."""
    if not os.path.lexists(tree.path("root/inabs")):
        tree.link("root/inabs", tree.path("root/a.txt"))
    w = warp(sending(tree, dict(path_prefix="/app/"), dict(path_prefix="/", static_dir=tree.root + end), app=app,
                     middleware={"x_sendfile_root": tree.root + end}))
    assert w.ask("/a.txt").body == TEXT
    assert w.ask("/inabs").body == TEXT
    assert w.ask(app.says(reply(b"", "X-Sendfile: %s/a.txt" % tree.root))).body == TEXT


def test_prefix_without_its_slash(warp, tree):
    """The directory itself, under a prefix that is stripped: links in its index are relative to it."""
    w = warp(conf(dict(path_prefix="/docs", strip_prefix=True, static_dir=tree.root)))
    m = w.ask("/docs?q=1")
    assert m.status == 308 and m.get("Location") == "/docs/?q=1"
    assert w.ask("/docs/").body == b"<p>index</p>"


# ---- what is done for nothing -------------------------------------------------------------

def test_types_of_many_letters(warp, tree):
    tree.write("root/x.longtype", b"x")
    kind = "text/" + "x" * 70
    w = warp({**conf(dict(path_prefix="/", static_dir=tree.root)), "mime": {"longtype": kind}})
    assert w.ask("/x.longtype").get("Content-Type") in (kind, kind + "; charset=utf-8")
