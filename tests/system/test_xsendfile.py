"""X-Sendfile and X-Accel-Redirect: the application says which file, warp sends it."""
import os
import socket
import threading
import time

import pytest

import lib
from content import LAST_MODIFIED, MB, SECRET, TEXT, App, Tree, answers, bounded, escapes, plain, to_the_end
from lib import BODY, HEAD, SLOW, TIMEOUT, Client, Warp, chunks, conf, reply, request

BOTH = ["X-Sendfile", "X-Accel-Redirect"]
REFUSED = (403, 404)                         # choice: nginx says 404 of what is not there, 403 of what is closed


class Site:
    def __init__(self, dir, tree, **middleware):
        self.tree, self.app = tree, App()
        root = {"x_sendfile_enabled": True, "x_sendfile_root": tree.root, **middleware}
        self.w = Warp(conf(dict(path_prefix="/app/"), middleware={k: v for k, v in root.items() if v is not None}, app=self.app), (), dir)

    def ask(self, how, path, *fields, said=(), body=b"ignored", status="200 OK", **kw):
        """What a client gets when the application says this. fields are the client's."""
        path = path if isinstance(path, str) else path.decode("latin-1")
        target = self.app.says(reply(body, "%s: %s" % (how, path), *said, status=status))
        return self.w.ask(target, *fields, **kw)


@pytest.fixture(scope="module")
def tree():
    t = Tree()
    t.write("root/a.txt", TEXT)
    t.write("root/sub/b.bin", b"in sub")
    t.write("root/empty.txt", b"")
    t.write("root/page.html", b"<p>page</p>")
    t.write("root/a b.txt", b"blank")
    t.write("root/gr\u00fc\u00df.txt", b"umlaut")
    t.write("root/100%.txt", b"percent")
    t.write("root/big.bin", bytes(range(256)) * (24 * MB // 256))
    t.link("root/in", "sub/b.bin")
    t.link("root/out", "../secret.txt")
    t.link("root/outabs", t.path("secret.txt"))
    t.link("root/outdir", "..")
    os.mkfifo(t.path("root/fifo"))
    s = socket.socket(socket.AF_UNIX)
    s.bind(t.path("root/socket"))
    s.close()
    yield t
    t.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory, tree):
    s = Site(tmp_path_factory.mktemp("site"), tree)
    yield s
    s.w.stop()
    s.app.close()


@pytest.fixture
def app():
    a = App()
    yield a
    a.close()


def sending(tree, *routes, **kw):
    """A configuration that obeys X-Sendfile below the root."""
    return conf(*routes, middleware={"x_sendfile_enabled": True, "x_sendfile_root": tree.root, **kw.pop("middleware", {})}, **kw)


# ---- the file instead of the body ------------------------------------------------------

@pytest.mark.parametrize("how, path", [
    ("X-Sendfile", "{root}/a.txt"), ("X-Sendfile", "a.txt"), ("X-Sendfile", "{root}//a.txt"),
    ("X-Accel-Redirect", "/a.txt"), ("X-Accel-Redirect", "/sub/../a.txt"), ("X-Accel-Redirect", "/a.txt?download=1"), ("x-sendfile", "a.txt"), ("X-SENDFILE", "a.txt"),
])
@pytest.mark.promise("S2-81")
def test_sent(site, how, path):
    said = ["Content-Type: application/x-app; v=1", 'Content-Disposition: attachment; filename="r.txt"', "Set-Cookie: a=1", "Set-Cookie: b=2", "X-App: yes",
            "Cache-Control: private", "Expires: Thu, 01 Jan 2099 00:00:00 GMT", "Vary: Cookie"]
    m = site.ask(how, path.format(root=site.tree.root), said=said)
    assert (m.status, m.body, m.framing) == (200, TEXT, "length")
    for f in said:
        name, _, value = f.partition(": ")
        assert value in m.all(name) and len(m.all(name)) == len([x for x in said if x.startswith(name + ":")])
    assert not any(m.has(h) for h in BOTH)
    assert m.get("Last-Modified") == LAST_MODIFIED and m.get("ETag") and m.get("Accept-Ranges") == "bytes"


def test_types(site):
    """The application's; the file's if it says none."""
    assert site.ask("X-Sendfile", "page.html", said=["Content-Type: text/plain"]).get("Content-Type") == "text/plain"
    assert site.ask("X-Sendfile", "page.html").get("Content-Type").startswith("text/html")
    assert site.ask("X-Accel-Redirect", "/sub/b.bin").get("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize("path", ["./a.txt", "{root}/sub/../a.txt", "sub/../a.txt", "{root}/./a.txt"])
def test_detours(site, path):
    """Choice: what is inside but is said the long way may be refused."""
    m = site.ask("X-Sendfile", path.format(root=site.tree.root))
    assert (m.status, m.body) == (200, TEXT) or m.status in REFUSED


@pytest.mark.parametrize("how, path, text", [
    ("X-Sendfile", "a b.txt", "blank"), ("X-Sendfile", "gr\u00fc\u00df.txt".encode(), "umlaut"), ("X-Sendfile", "in", "in sub"), ("X-Sendfile", "empty.txt", ""),
    # X-Accel-Redirect is a URI, as with nginx; X-Sendfile is a path. Choice: decoded as well, as lighttpd does; then "100%.txt" is none
    ("X-Accel-Redirect", "/a%20b.txt", "blank"), ("X-Accel-Redirect", "/gr%C3%BC%C3%9F.txt", "umlaut"), ("X-Accel-Redirect", "/100%25.txt", "percent"),
    ("X-Accel-Redirect", "/gr\u00fc\u00df.txt".encode(), "umlaut"), ("X-Sendfile", "100%.txt", "percent"),
])
def test_names(site, how, path, text):
    m = site.ask(how, path)
    assert (m.status, m.text) == (200, text)


@pytest.mark.parametrize("field", ["X-Sendfile: a.txt", "X-Accel-Redirect: /a.txt"])
@pytest.mark.parametrize("body", ["none", "length", "chunked", "big"])
def test_body_is_dropped(site, field, body):
    """Whatever the application says besides, however it frames it."""
    target = site.app.says({"none": reply(b"", field), "length": reply(b"x" * 1000, field), "big": reply(b"x" * 3 * MB, field),
                            "chunked": b"HTTP/1.1 200 OK\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\n" % field.encode() + chunks(b"x" * 5000, b"y")}[body])
    with site.w.client() as c:
        for _ in range(3):
            m = c.ask(target)
            assert m.body == TEXT and m.framing == "length"


@pytest.mark.parametrize("field", ["X-Sendfile: a.txt", "X-Accel-Redirect: /a.txt"])
def test_body_that_ends_with_the_connection(warp, backend, tree, field):
    w = warp(sending(tree, app=backend([lib.REQ, b"HTTP/1.1 200 OK\r\nConnection: close\r\n%s\r\n\r\nsome" % field.encode(), lib.CLOSE])))
    with w.client() as c:
        for _ in range(3):
            m = c.ask("/")
            assert m.body == TEXT and m.framing == "length"


def test_body_that_does_not_end(warp, backend, tree):
    """Nobody waits for what is thrown away."""
    gate = threading.Event()
    w = warp(sending(tree, app=backend([lib.REQ, b"HTTP/1.1 200 OK\r\nX-Sendfile: a.txt\r\nContent-Length: 100000\r\n\r\nsome", lib.WAIT(gate)])))
    started = time.monotonic()
    assert w.ask("/").body == TEXT
    assert time.monotonic() - started < 3 * SLOW
    gate.set()


@pytest.mark.parametrize("how, path", [("X-Sendfile", "a.txt"), ("X-Accel-Redirect", "/a.txt")])
def test_head(site, how, path):
    m = site.ask(how, path, method="HEAD", said=["X-App: yes"])
    assert (m.status, m.get("Content-Length"), m.get("X-App")) == (200, "1000", "yes")
    assert not any(m.has(h) for h in BOTH)


def test_post(site):
    """The answer to a POST may be a file; ranges are of GET alone."""
    m = site.ask("X-Sendfile", "a.txt", "Range: bytes=0-1", method="POST", body=b"ignored")
    assert m.status == 200 and m.body == TEXT


def test_http_1_0(site):
    m = site.ask("X-Sendfile", "a.txt", version="1.0")
    assert m.body == TEXT and m.get("Content-Length") == "1000"


@pytest.mark.parametrize("status", ["201 Created", "404 Not Found", "403 Forbidden", "500 Oops"])
def test_status_stays(site, status):
    """Choice: an error page from a file stays an error (Apache), nginx makes it 200. Ranges and conditions are of 200."""
    for field in ((), ("Range: bytes=0-1",), ("If-Modified-Since: " + LAST_MODIFIED,)):
        m = site.ask("X-Sendfile", "a.txt", *field, status=status)
        assert m.status == int(status[:3]) and m.body == TEXT


def test_without_a_body(site):
    """304 and 204 have none, whatever they name."""
    with site.w.client() as c:
        for status in ("304 Not Modified", "204 No Content"):
            target = site.app.says(b"HTTP/1.1 %s\r\nX-Sendfile: a.txt\r\n\r\n" % status.encode())
            m = c.ask(target)
            assert m.status == int(status[:3]) and not m.has("X-Sendfile")
            assert c.ask(site.app.says(reply("next"))).text == "next"


# ---- ranges and conditions ------------------------------------------------------------------

@pytest.mark.parametrize("ranges, want", [("bytes=0-0", [(0, 0)]), ("bytes=-10", [(990, 999)]), ("bytes=500-", [(500, 999)]), ("bytes=0-1,5-6", [(0, 1), (5, 6)]),
                                          ("bytes=1000-", 416), ("items=0-1", 200)])
@pytest.mark.parametrize("how, path", [("X-Sendfile", "a.txt"), ("X-Accel-Redirect", "/a.txt")])
def test_ranges(site, how, path, ranges, want):
    m = site.ask(how, path, "Range: " + ranges, said=["Content-Type: application/x-app", "X-App: yes"])
    answers(m, TEXT, want)
    if m.status != 416:
        assert m.get("X-App") == "yes"


@pytest.mark.parametrize("fields, status", [
    (["If-None-Match: {e}"], 304), (["If-None-Match: *"], 304), (['If-None-Match: "x"'], 200), (['If-Match: "x"'], 412), (["If-Match: {e}"], 200), (["If-Modified-Since: {l}"], 304),
    (["If-Unmodified-Since: Mon, 13 Nov 2023 22:13:20 GMT"], 412), (["If-Range: {e}", "Range: bytes=0-9"], 206), (['If-Range: "x"', "Range: bytes=0-9"], 200), (["If-Range: {l}", "Range: bytes=0-9"], 206),
])
@pytest.mark.parametrize("said", [[], ['ETag: "app"'], ["Last-Modified: Sun, 01 Jan 2023 00:00:00 GMT"]], ids=["the file's", "an ETag of the app", "a Last-Modified of the app"])
def test_conditions(site, fields, status, said):
    """Of the validators that the client was told, whoever made them: the application's stay (choice), and there is one of each."""
    known = site.ask("X-Sendfile", "a.txt", said=said)
    assert len(known.all("ETag")) == len(known.all("Last-Modified")) == 1
    fields = [f.format(e=known.get("ETag"), l=known.get("Last-Modified")) for f in fields]
    if "Last-Modified: Sun, 01 Jan 2023 00:00:00 GMT" in said and "If-Unmodified-Since" in fields[0] and known.get("Last-Modified") != LAST_MODIFIED:
        status = 200                                  # the application's date is before it
    m = site.ask("X-Sendfile", "a.txt", *fields, said=said + ["Set-Cookie: a=1", "Cache-Control: private"])
    assert m.status == status and not m.has("X-Sendfile")
    if status == 304:
        assert m.get("ETag") == known.get("ETag") and m.get("Cache-Control") == "private"


# ---- what is not sent ---------------------------------------------------------------------------

@pytest.mark.parametrize("how", BOTH)
def test_no_way_out(site, tree, how):
    paths = escapes(tree.base) + ["/" + e for e in escapes(tree.base)] + [tree.root + "/" + e for e in escapes(tree.base)] + [
        tree.base + "/secret.txt", tree.root + "secret.txt", tree.root + "/../secret.txt", tree.root + "/../rootsecret.txt", tree.root + "-sibling/secret.txt", "/etc/passwd", "out", "/out",
        "outabs", "/outabs", "outdir/secret.txt", "/outdir/secret.txt", tree.root + "/outdir/secret.txt", "//" + tree.base + "/secret.txt", "file://" + tree.base + "/secret.txt",
        "http://127.0.0.1/", tree.base + "/./secret.txt", tree.root + "/./../secret.txt", "/proc/self/environ", "/dev/zero", "~/secret.txt", "\t/etc/passwd", "{path}", "$uri"]
    bad = []
    with site.w.client() as c:
        for path in paths:
            target = site.app.says(reply(b"ignored", "%s: %s" % (how, path)))
            try:
                m = c.ask(target)
            except (EOFError, ConnectionError) as e:
                bad.append((path, e))
                m = None
            inside = "?" in path and m and m.body == TEXT             # behind it is a query
            if m and not inside and (SECRET in m.body or b"root:" in m.body or m.status not in (400, 403, 404, 500, 502) or any(m.has(h) for h in BOTH)):
                bad.append((path, m))
            if m is None or "close" in m.tokens("Connection"):
                c.close()
                c.__init__(site.w.port)
    assert not bad
    assert site.ask("X-Sendfile", "a.txt").body == TEXT, "and the upstream is no worse for it"


@pytest.mark.parametrize("path", ["missing.txt", "sub", "sub/", "/", "fifo", "socket", "a.txt/", "a.txt/x", "n" * 300, "{root}", "{root}/", "{root}/missing.txt", "out"])
def test_what_is_not_there(site, path):
    path = path.format(root=site.tree.root)
    started = time.monotonic()
    for how in BOTH:
        m = site.ask(how, path if how == "X-Sendfile" or path.startswith("/") else "/" + path, body=b"app's own body")
        assert m.status in REFUSED and b"app's own" not in m.body and not any(m.has(h) for h in BOTH)
    assert time.monotonic() - started < 2 * SLOW
    assert site.ask("X-Sendfile", "a.txt").body == TEXT


def test_empty(site):
    """A field without a value names no file."""
    for how in BOTH:
        m = site.ask(how, "")
        assert (m.status, m.body) == (200, b"ignored") or m.status in REFUSED      # choice
        assert not m.has(how)


def test_twice(site):
    m = site.ask("X-Sendfile", "a.txt", said=["X-Sendfile: sub/b.bin"])
    assert m.body in (TEXT, b"in sub") or m.status in (*REFUSED, 502)              # choice; never both
    m = site.ask("X-Sendfile", "a.txt", said=["X-Accel-Redirect: /sub/b.bin"])
    assert m.body in (TEXT, b"in sub") or m.status in (*REFUSED, 502)
    assert not any(m.has(h) for h in BOTH)


def test_clients_cannot_say_it(site):
    """In a request it is a field like others."""
    target = site.app.says(reply("app"))
    for how in BOTH:
        m = site.w.ask(target, how + ": " + "a.txt")
        assert m.text == "app" and not m.has(how)


@pytest.mark.parametrize("middleware", [{}, {"x_sendfile_enabled": False}, {"x_sendfile_enabled": False, "x_sendfile_root": "ROOT"}])
@pytest.mark.promise("S2-81")
def test_off(warp, app, tree, middleware):
    """What the application means for a proxy does not reach clients, and is not obeyed."""
    middleware = {k: tree.root if v == "ROOT" else v for k, v in middleware.items()}
    w = warp(conf(app=app, middleware=middleware))
    for how in BOTH:
        m = w.ask(app.says(reply("app's own", "%s: %s/a.txt" % (how, tree.root), "X-App: yes")))
        assert (m.status, m.text, m.get("X-App")) == (200, "app's own", "yes") and not m.has(how)


def test_without_a_root(warp, check, app, tree):
    """Nothing is sent, and -t says so."""
    text = conf(app=app, middleware={"x_sendfile_enabled": True})
    p = check(lib.complete(lib.toml_file(text), 8080))
    assert p.returncode == 0 and "x_sendfile_root" in p.stdout + p.stderr
    w = warp(text)
    for how in BOTH:
        m = w.ask(app.says(reply("app's own", "%s: %s/a.txt" % (how, tree.root))))
        assert TEXT not in m.body and not m.has(how) and m.status in (200, 403, 404, 500)


# ---- upstream and client --------------------------------------------------------------------------

def test_upstream_is_free_at_once(warp, app, tree):
    """The only connection to the application is given back before a slow client has its file."""
    w = warp(sending(tree, app={"on": [dict(app.conf, max_connections=1)], "keepalive": 1}))
    target, other = app.says(reply(b"ignored", "X-Sendfile: big.bin")), app.says(reply("other"))
    slow = []
    try:
        for _ in range(5):
            c = Client(w.port, rcvbuf=16384)
            slow.append(c)
            c.send(request(target))
            n = int(c.head(TIMEOUT).get("Content-Length"))
            assert n == 24 * MB
            assert w.ask(other).text == "other"
        assert len(app.conns) == 1, "one connection for all of them"
        got, cut = to_the_end(slow[0], n)
        assert not cut and got == tree.read("root/big.bin")
    finally:
        for c in slow:
            c.close()
    

def test_memory_is_bounded(site):
    target = site.app.says(reply(b"ignored", "X-Accel-Redirect: /big.bin"))
    with bounded(site.w):
        slow = [Client(site.w.port, rcvbuf=16384).send(request(target)) for _ in range(10)]
        for c in slow:
            assert c.head(TIMEOUT).status == 200
        for c in slow:
            c.close()
    assert site.ask("X-Sendfile", "a.txt").body == TEXT


def test_one_connection_for_many(site):
    target = site.app.says(reply(b"ignored", "X-Sendfile: a.txt"))
    with site.w.client() as c:
        for _ in range(10):
            c.send(request(target) * 30)
            for _ in range(30):
                assert c.response().body == TEXT


@pytest.mark.parametrize("field, status", [('If-Match: "other"', 412), ("Range: bytes=99999999-", 416)])
def test_connection_stays_without_the_file(warp, app, tree, field, status):
    """What the client's conditions refuse costs no connection to the application."""
    w = warp(sending(tree, app={"on": [dict(app.conf, max_connections=1)], "keepalive": 1}))
    target = app.says(reply(b"ignored", "X-Sendfile: a.txt"))
    before = len(app.conns)
    for _ in range(5):
        assert w.ask(target, field).status == status
    assert w.ask(target).body == TEXT
    assert len(app.conns) == before + 1


def test_early_answer(warp, backend, tree):
    """The file of an application that has not read the whole request."""
    w = warp(sending(tree, app=backend([HEAD, reply(b"", "X-Sendfile: a.txt"), BODY])))
    with w.client() as c:
        c.send(request("/", "Content-Length: 200000", method="POST") + b"x" * 1000)
        assert c.response().body == TEXT


def test_missing_files_are_no_failures(warp, app, tree):
    """The breaker does not count them."""
    other = App()
    w = warp(sending(tree, app={"on": [app, other], "max_fails": 2}))
    for a in (app, other):
        a.says(reply(b"", "X-Sendfile: missing"))
        a.says(reply("fine"))
    for _ in range(10):
        assert w.ask("/app/0").status in REFUSED
    assert len(app.requests) + len(other.requests) == 10, "not asked again"
    for _ in range(4):
        assert w.ask("/app/1").text == "fine"
    assert len(app.requests) >= 6 and len(other.requests) >= 6
    other.close()


def test_over_tls(https, pki, app, tree):
    w = https(pki.cert("a.example"), conf=sending(tree, app=app), tls={"redirect": False})
    target = app.says(reply(b"ignored", "X-Sendfile: big.bin"))
    with w.tls(ca=None) as c:
        assert c.ask(target).body == tree.read("root/big.bin")
        assert c.ask(target, "Range: bytes=1000000-1000009").body == tree.read("root/big.bin")[1000000:1000010]


def test_with_gzip(warp, app, tree):
    """Coded as any other answer, or not; what the application has coded stays as it is."""
    tree.write("root/long.txt", TEXT * 20)
    w = warp(sending(tree, app=app, middleware={"gzip_compression_enabled": True, "gzip_types": ["text/plain"]}))
    m = w.ask(app.says(reply(b"ignored", "X-Sendfile: long.txt", "Content-Type: text/plain")), "Accept-Encoding: gzip")
    assert plain(m) == TEXT * 20 and "accept-encoding" in m.tokens("Vary")
    m = w.ask(app.says(reply(b"ignored", "X-Sendfile: long.txt", "Content-Type: text/plain", "Content-Encoding: br")), "Accept-Encoding: gzip, br")
    assert m.body == TEXT * 20 and m.all("Content-Encoding") == ["br"]
    m = w.ask(app.says(reply(b"ignored", "X-Sendfile: long.txt", "Content-Type: text/plain")), "Accept-Encoding: gzip", "Range: bytes=0-9")
    assert m.status == 206 and m.body == TEXT[:10] and not m.has("Content-Encoding")


def test_log_of_what_cannot_be_sent(warp, app, tree):
    w = warp(sending(tree, app=app))
    assert w.ask(app.says(reply(b"ignored", "X-Accel-Redirect: /no such.txt"))).status == 404
    w.wait_stderr("upstream app wants /no such.txt sent, which cannot be: No such file or directory; see x_sendfile_root")


def test_log(warp, app, tree):
    w = warp(sending(tree, app=app, log={"access": "stdout", "format": "common"}))
    w.ask(app.says(reply(b"ignored", "X-Sendfile: a.txt")))
    w.wait_stdout(r'"GET /app/0 HTTP/1.1" 200 1000\b')
