"""static_dir routes: what is served, under which conditions and ranges, and what is never served.

One warp (`site`, with an http and an https listener and one worker) answers most of it. Where CONFIG.md is silent the
expectation is nginx's, or RFC 9110's where nginx departs from it; "choice:" marks what could as well be decided otherwise."""
import contextlib
import html.parser
import os
import random
import re
import signal
import socket
import stat
import threading
import time
import urllib.parse

import pytest

import lib
import tls as tls_tools
from content import (LAST_MODIFIED, MB, PAST, SECRET, TEXT, Tree, answers, bounded, descriptors, escapes, facts, gz, parts, to_the_end)
from lib import SLOW, TIMEOUT, Client, Warp, conf, eventually, request

AS_NOBODY = {"user": "nobody"} if os.geteuid() == 0 else {}           # root may read everything
SOON = 2 * SLOW                      # a change on the disk is seen within this
REFUSED = (403, 404)
BINARY = random.Random(1).randbytes(1000)


def statics(tree):
    """Routes to the same root, in several ways."""
    root = tree.root
    return [
        dict(path_prefix="/static/", strip_prefix=True, static_dir=root, cache_control="public, max-age=60"),
        dict(path_prefix="/list/", strip_prefix=True, static_dir=root + "/list", listing=True),
        dict(path_prefix="/spa/", strip_prefix=True, static_dir=root + "/spa", fallback="/index.html"),
        dict(path_prefix="/tree/", static_dir=tree.path("trees"), add_response_headers=[{"name": "X-Added", "value": "yes"}],
             remove_response_headers=["Last-Modified"]),
        dict(path_prefix="/guarded/", strip_prefix=True, static_dir=root, basic_auth={"u": "p"}),
        dict(path_prefix="/off", strip_prefix=True, static_dir=root),      # no slash behind it: not a way to root-sibling
        dict(path_prefix="/", static_dir=root),
    ]


NAMES = {                # name on the disk: how it is asked for
    b"a b.txt": "/names/a%20b.txt",
    b"plus+plus.txt": "/names/plus+plus.txt",
    b"100%.txt": "/names/100%25.txt",
    b"%41.txt": "/names/%2541.txt",
    b"%2F.txt": "/names/%252F.txt",
    b"semi;colon.txt": "/names/semi;colon.txt",
    b"what?.txt": "/names/what%3F.txt",
    b"hash#.txt": "/names/hash%23.txt",
    b"amp&<b>'\".txt": "/names/amp&%3Cb%3E'%22.txt",
    "gr\u00fc\u00df-\u2603.txt".encode(): "/names/gr%C3%BC%C3%9F-%E2%98%83.txt",
    b"latin-\xfc.txt": "/names/latin-%FC.txt",
    b"back\\slash.txt": "/names/back%5Cslash.txt",
    b"new\nline.txt": "/names/new%0Aline.txt",
    b"a..b": "/names/a..b",
    b"~tilde": "/names/~tilde",
    b"java:script.txt": "/names/java:script.txt",
    b"n" * 255: "/names/" + "n" * 255,
}


def plant(t):
    """The files of the site."""
    t.write("root/index.html", b"<p>root index</p>")
    t.write("root/a.txt", TEXT)
    t.write("root/binary.bin", BINARY)
    t.write("root/empty.txt", b"")
    t.write("root/big.bin", bytes(range(256)) * (24 * MB // 256))
    t.write("root/sub/b.txt", b"in sub")
    t.write("root/with/index.html", b"<p>with</p>")
    t.write("root/evil.example/x.txt", b"x")
    t.write("root/evil.example/index.html", b"not evil")
    t.write("root/\\evil.example/x.txt", b"x")
    t.write("root/noindex/index.html/x.txt", b"an index that is a directory")
    t.write("root/types/x.json", b"{}")
    t.write("trees/tree/deep/file.txt", b"no prefix was stripped")
    for name, _ in NAMES.items():
        t.write(b"root/names/" + name, b"name " + name)
        t.write(b"root/list/odd/" + name, b"name " + name)
    for name, data in (("b.txt", b"b" * 777), ("a.txt", b"a"), ("C.txt", b"c" * 3), ("zdir/x", b"x"), ("adir/x", b"x"), (".hidden", SECRET),
                       ("indexed/index.html", b"<p>an index</p>"), ("empty/.keep", SECRET)):
        t.write("root/list/" + name, data)
    t.write("root/spa/index.html", b"<p>app</p>")
    t.write("root/spa/app.js", b"js")
    t.write("root/spa/assets/x.css", b"css")
    # neighbours
    for name, codings in (("both.js", "gz br"), ("onlygz.css", "gz"), ("onlybr.svg", "br"), ("none.js", "")):
        t.write("root/pre/" + name, b"plain " + TEXT)
        if "gz" in codings:
            t.write("root/pre/%s.gz" % name, gz(b"plain " + TEXT))
        if "br" in codings:
            t.write("root/pre/%s.br" % name, b"brotli, or so we say")
    t.write("root/pre/dirgz.js", b"plain " + TEXT)
    t.dir("root/pre/dirgz.js.gz")
    t.write("root/pre/linkgz.js", b"plain " + TEXT)
    t.link("root/pre/linkgz.js.gz", t.path("secret.txt"))
    # dot files
    for name in (".hidden", ".git/config", "sub/.env", ".well-known/.secret", ".well-known-not/x", "..dots", "...", ".htaccess"):
        t.write("root/" + name, SECRET)
    t.write("root/.well-known/acme/token.txt", b"well known")
    # links
    t.link("root/links/file", "target.txt")
    t.write("root/links/target.txt", b"target")
    t.link("root/links/up", "../sub/b.txt")
    t.link("root/links/dir", "../sub")
    t.link("root/links/chain", "file")
    t.link("root/links/dangling", "nothing")
    t.link("root/links/loop", "loop")
    t.link("root/links/out", "../../secret.txt")
    t.link("root/links/outabs", t.path("secret.txt"))
    t.link("root/links/outdir", "../..")
    t.link("root/links/outdirabs", t.base)
    t.link("root/links/outchain", "outdir/secret.txt")
    t.link("root/links/slash", "/")
    t.link("root/links/self", "/proc/self/environ")
    t.link("root/links/zero", "/dev/zero")
    t.link("root/links/inabs", t.path("root/links/target.txt"))
    t.link("root/links/andback", "../../root/links/target.txt")
    # what is no file
    os.mkfifo(t.path("root/fifo"))
    s = socket.socket(socket.AF_UNIX)
    s.bind(t.path("root/socket"))
    s.close()
    t.dir("root/dir.txt")
    for name, mode in (("closed.txt", 0), ("closeddir/x.txt", 0)):
        t.write("root/" + name, SECRET)
    os.chmod(t.path("root/closed.txt"), 0)
    os.chmod(t.path("root/closeddir"), 0)


class Site:
    """A warp with an https listener besides; .ask(target, *fields, scheme=, ...)."""

    def __init__(self, dir, tree, pki, config, **server):
        self.tree, self.https, self.ctx = tree, lib.free_port(), tls_tools.context(None)
        self.w = Warp(tls_tools.site(self.https, pki.cert("a.example"), conf=config, server={**AS_NOBODY, **server}, tls={"redirect": False}), (), dir)

    def client(self, scheme="http", **kw):
        return self.w.client(**kw) if scheme == "http" else tls_tools.Client(self.https, self.ctx, **kw)

    def ask(self, target, *fields, scheme="http", **kw):
        with self.client(scheme) as c:
            return c.ask(target, *fields, **kw)


@pytest.fixture(scope="module")
def tree():
    t = Tree()
    plant(t)
    yield t
    os.chmod(t.path("root/closeddir"), 0o755)
    t.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory, tree, pki):
    s = Site(tmp_path_factory.mktemp("site"), tree, pki, conf(*statics(tree)))
    workers = s.w.children()
    yield s
    assert s.w.children() == workers, "a worker went away:\n" + s.w.stderr
    s.w.stop()


@pytest.fixture(params=["http", "https"])
def scheme(request):
    return request.param


# ---- what a file says of itself -----------------------------------------------------

def test_get(site, scheme):
    m = site.ask("/static/a.txt", scheme=scheme)
    assert (m.status, m.body, m.framing) == (200, TEXT, "length")
    assert m.get("Content-Type").startswith("text/plain")
    assert m.get("Last-Modified") == LAST_MODIFIED
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', m.get("ETag")), "strong and quoted"
    assert m.get("Accept-Ranges") == "bytes"
    assert m.all("Cache-Control") == ["public, max-age=60"]
    assert not m.has("Content-Encoding") and not m.has("Content-Range")
    assert len(m.all("Date")) == 1


def test_no_cache_control_unless_said(site):
    assert not site.ask("/a.txt").has("Cache-Control")


@pytest.mark.parametrize("target", ["/static/a.txt", "/static/empty.txt", "/static/with/", "/list/", "/static/missing", "/static/sub",
                                    "/spa/where/ever", "/static/pre/both.js", "/static/big.bin"])
def test_head_is_get_without_body(site, scheme, target):
    fields = ("Accept-Encoding: gzip",)
    with site.client(scheme) as c:
        get, head = c.ask(target, *fields), c.ask(target, *fields, method="HEAD")
        framing = ("transfer-encoding",) if get.framing == "chunked" else ()
        assert (get.status, facts(get, *framing)) == (head.status, facts(head, *framing))
        assert c.ask("/static/sub/b.txt").text == "in sub", "and nothing of a body behind it"


def test_empty_file(site, scheme):
    with site.client(scheme) as c:
        m = c.ask("/static/empty.txt")
        assert (m.status, m.body, m.get("Content-Length")) == (200, b"", "0") and m.has("ETag") and m.has("Last-Modified")
        assert c.ask("/static/a.txt").body == TEXT


TYPES = {        # choice: the charset of text; utf-8 or none, never another
    "html": "text/html", "htm": "text/html", "css": "text/css", "txt": "text/plain", "json": "application/json", "svg": "image/svg+xml",
    "js": ("text/javascript", "application/javascript"), "mjs": ("text/javascript", "application/javascript"), "xml": ("text/xml", "application/xml"),
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif",
    "ico": ("image/x-icon", "image/vnd.microsoft.icon"), "woff": ("font/woff", "application/font-woff"), "woff2": "font/woff2", "pdf": "application/pdf",
    "wasm": "application/wasm", "mp4": "video/mp4", "webm": "video/webm", "mp3": "audio/mpeg", "zip": "application/zip",
    "gz": ("application/gzip", "application/x-gzip", "application/octet-stream"), "unknown": "application/octet-stream", "": "application/octet-stream",
    "HTML": "text/html", "tar.css": "text/css", "html.unknown": "application/octet-stream",
}


def test_types(site, tree):
    got = {}
    for ext, want in TYPES.items():
        name = "x." + ext if ext else "noext"
        tree.write("root/types/" + name, b"x")
        kind, _, param = site.ask("/static/types/" + name).get("Content-Type", "").partition(";")
        if kind not in (want if isinstance(want, tuple) else (want,)) or param.strip().lower() not in ("", "charset=utf-8"):
            got[ext] = kind + param
    assert not got
    tree.write("root/html", b"x")
    assert site.ask("/static/html").get("Content-Type") == "application/octet-stream", "a name is no extension"


def test_dotted_directory_is_no_extension(site, tree):
    tree.write("root/dir.html/noext", b"x")
    assert site.ask("/static/dir.html/noext").get("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize("target, status, text", [
    ("/", 200, "<p>root index</p>"), ("/static/", 200, "<p>root index</p>"), ("/with/", 200, "<p>with</p>"), ("/static/with/?a=b", 200, "<p>with</p>"),
    ("/static/with/index.html", 200, "<p>with</p>"), ("/tree/deep/file.txt", 200, "no prefix was stripped"), ("/off/a.txt", 200, TEXT.decode()),
    ("/static//sub///b.txt", 200, "in sub"), ("/static/./sub/../sub/b.txt", 200, "in sub"), ("/static/%73ub/b.txt", 200, "in sub"),
    ("http://a.example/static/sub/b.txt", 200, "in sub"), ("/static/sub/b.txt?v=1&x=../..", 200, "in sub"), ("/static/sub/b.txt?", 200, "in sub"),
    ("/missing", 404, None), ("/static/missing/x", 404, None), ("/static/a.txt/", 404, None), ("/static/a.txt/x", 404, None), ("/static/A.txt", 404, None),
    ("/static/with/index.html/", 404, None), ("/static/" + "n" * 255, 404, None), ("/static/" + "n" * 256, 404, None), ("/static/" + "n" * 5000, 404, None),
    ("/static/" + "d/" * 2100 + "x", 404, None), ("/static/" + "sub/../" * 600 + "a.txt", 200, TEXT.decode()),
])
def test_names_to_files(site, target, status, text):
    m = site.ask(target)
    # choice: a path too long to be one may be refused as such
    assert m.status == status or len(target) > 4000 and m.status in (400, 414), m
    assert text is None or m.text == text


@pytest.mark.parametrize("name", NAMES, ids=lambda n: n[:20].decode("latin-1").encode("unicode_escape").decode())
def test_odd_names(site, name):
    m = site.ask(NAMES[name])
    assert (m.status, m.body) == (200, b"name " + name)


def test_names_as_they_come(site):
    """Bytes above 127 in the request line, as curl sends them."""
    for name in ("gr\u00fc\u00df-\u2603.txt".encode(), b"latin-\xfc.txt"):
        m = site.ask("/names/" + name.decode("latin-1"))
        assert m.status == 400 or m.body == b"name " + name     # choice: refused, or the file


def test_no_name_is_decoded_twice(site):
    assert site.ask("/names/%2541.txt").body == b"name %41.txt"
    assert site.ask("/names/A.txt").status == 404
    assert site.ask("/names%2Fa%20b.txt").status in (400, 404) or site.ask("/names%2Fa%20b.txt").body == b"name a b.txt"


@pytest.mark.parametrize("target", ["/static/a.txt%00", "/static/a.txt%00.html", "/static/%", "/static/%zz", "/static/%0", "/static/a.txt%"])
def test_malformed(site, target):
    assert site.ask(target).status in (400, 404)


def test_routes_own_fields(site):
    m = site.ask("/tree/deep/file.txt")
    assert m.all("X-Added") == ["yes"] and not m.has("Last-Modified") and m.has("ETag")
    assert site.ask("/guarded/a.txt").status == 401
    assert site.ask("/guarded/a.txt", "Authorization: Basic dTpw").body == TEXT


# ---- index, fallback, directories ---------------------------------------------------------

@pytest.mark.parametrize("target", ["/static/sub/", "/static/noindex/", "/static/types/"])
def test_directory_without_index(site, target):
    assert site.ask(target).status in REFUSED                # choice: nginx says 403, Caddy 404


@pytest.mark.parametrize("target, body", [
    ("/spa/", b"<p>app</p>"), ("/spa/app.js", b"js"), ("/spa/deep/link", b"<p>app</p>"), ("/spa/missing.js", b"<p>app</p>"), ("/spa/users/7?tab=1", b"<p>app</p>"),
    ("/spa/assets/x.css", b"css"), ("/spa/app.js/x", b"<p>app</p>"), ("/spa/" + "n" * 300, b"<p>app</p>"), ("/spa/index.html", b"<p>app</p>"),
])
def test_fallback(site, scheme, target, body):
    m = site.ask(target, scheme=scheme)
    assert (m.status, m.body) == (200, body)
    if body.startswith(b"<p>"):
        assert m.get("Content-Type").startswith("text/html")
        assert site.ask(target, "If-None-Match: " + m.get("ETag")).status == 304


def test_fallback_is_no_way_around(site):
    assert site.ask("/spa/x", method="POST", body=b"x").status in (404, 405)
    assert SECRET not in site.ask("/spa/.hidden").raw + site.ask("/spa/.hidden").body
    m = site.ask("/spa/assets")
    assert m.status == 308 and m.get("Location").endswith("/spa/assets/")
    assert site.ask("/spa/assets/").status in (200, *REFUSED)          # choice: the application, or no listing


def test_fallback_that_is_missing(warp, tree):
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root, fallback="/not/there.html")))
    assert w.ask("/a.txt").body == TEXT
    assert w.ask("/missing").status == 404


def located(m, target, host="a.example"):
    """Where a browser goes with this Location: (host, path, query). It takes \\ for /, and drops tabs and line ends."""
    loc = m.get("Location")
    assert re.fullmatch(r"[!-~]+", loc), loc
    base = "http://%s%s" % (host, "/x" if "://" in target or target.startswith(("//", "/\\")) else target)
    u = urllib.parse.urlsplit(urllib.parse.urljoin(base, re.sub(r"[\t\r\n]", "", loc).replace("\\", "/")))
    return u.hostname, u.path, u.query


@pytest.mark.parametrize("target, path, query", [
    ("/static/sub", "/static/sub/", ""), ("/static/sub?a=b&c=%2F", "/static/sub/", "a=b&c=%2F"), ("/sub", "/sub/", ""), ("/sub?next=//evil.example", "/sub/", "next=//evil.example"),
    ("/static/with?x=?y", "/static/with/", "x=?y"), ("/list/zdir", "/list/zdir/", ""), ("/tree/deep", "/tree/deep/", ""), ("/off/sub?q", "/off/sub/", "q"),
    ("/static/names?a%0d%0aX-Evil:%201", "/static/names/", "a%0d%0aX-Evil:%201"), ("/static/.well-known/acme", "/static/.well-known/acme/", ""),
])
def test_directory_gets_its_slash(site, scheme, target, path, query):
    for method in ("GET", "HEAD"):
        m = site.ask(target, scheme=scheme, method=method)
        assert m.status == 308 and not m.has("X-Evil")
        assert located(m, target) == ("a.example", path, query)


@pytest.mark.parametrize("target", [
    "//evil.example", "///evil.example", "////evil.example", "/./evil.example", "/.//evil.example", "//./evil.example", "/x/..//evil.example", "/sub/..//evil.example",
    "//evil.example/%2e", "//evil.example/.", "//evil.example/sub/..", "/\\evil.example", "/\\/evil.example", "\\\\evil.example", "/%5cevil.example", "/%5Cevil.example",
    "/%5c%5cevil.example", "/%2fevil.example", "/%2f%2fevil.example", "/%2F/evil.example", "/%09/evil.example", "/%0a/evil.example", "/%0d%0a/evil.example",
    "/static//evil.example", "/static/%2fevil.example", "/static/..//evil.example", "/static/../evil.example", "/off//evil.example", "/off/../%5cevil.example",
    "/off%5cevil.example", "/.%2f/evil.example", "http://a.example//evil.example", "http://a.example/\\evil.example", "/%20/evil.example", "/;/evil.example", "//evil.example?x", "//evil.example%2f..",
    "/evil.example//", "//evil.example/..//evil.example", "//user@evil.example", "//evil.example:80",
])
def test_no_open_redirect(site, target):
    with site.client() as c:
        c.send(b"GET " + target.encode() + b" HTTP/1.1\r\nHost: a.example\r\n\r\n")
        m = c.response()
    assert m.status < 500
    if m.has("Location"):
        assert m.status == 308 and located(m, target)[0] == "a.example", m.get("Location")
        assert re.match(r"/[^/\\]|http://a\.example/", m.get("Location")), m.get("Location")


def test_redirect_does_not_trust_the_host(site):
    """Whatever Host says comes back at most as it came, encoded or not at all."""
    m = site.ask("/sub", host="evil.example:99")
    assert m.status == 308 and located(m, "/sub", "evil.example:99")[:2] == ("evil.example", "/sub/")


# ---- methods -----------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get", "QUERY"])
def test_other_methods(site, scheme, method):
    with site.client(scheme) as c:
        m = c.ask("/static/a.txt", method=method, body=b"x" * 100)
        assert m.status == 405 or method == "OPTIONS" and m.status in (200, 204) or method == "get" and m.status in (400, 501)     # choice
        assert m.status in (400, 501) or {"get", "head"} <= set(m.tokens("Allow")) <= {"get", "head", "options"}
        assert TEXT not in m.body
        if "close" not in m.tokens("Connection"):
            assert c.ask("/static/sub/b.txt").text == "in sub"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_get_with_a_body(site, framing):
    """The body of a GET is no request."""
    evil = b"GET /static/sub/b.txt HTTP/1.1\r\nHost: a.example\r\n\r\n"
    with site.client() as c:
        if framing == "length":
            c.send(request("/static/a.txt", "Content-Length: %d" % len(evil)) + evil)
        else:
            c.send(request("/static/a.txt", "Transfer-Encoding: chunked") + lib.chunks(evil))
        m = c.response()
        assert m.status == 200 and m.body == TEXT or m.status in (400, 413)
        if m.status == 200 and "close" not in m.tokens("Connection"):
            assert c.ask("/static/empty.txt").get("Content-Length") == "0"
        else:
            assert c.closed()


# ---- conditions ----------------------------------------------------------------------------

BEFORE, AFTER = "Mon, 13 Nov 2023 22:13:20 GMT", "Wed, 15 Nov 2023 22:13:20 GMT"
CONDITIONS = [      # {e}: the entity tag, {l}: Last-Modified; RFC 9110 13.2.2, in its order
    ("If-Match: the tag", ["If-Match: {e}"], 200),
    ("If-Match: any", ["If-Match: *"], 200),
    ("If-Match: in a list", ['If-Match: "x", {e}, "y"'], 200),
    ("If-Match: another", ['If-Match: "x"'], 412),
    ("If-Match: a list of others", ['If-Match: "x","y"'], 412),
    ("If-Match compares strongly", ["If-Match: W/{e}"], 412),
    ("If-Match: in two lines", ['If-Match: "x"', "If-Match: {e}"], 200),
    ("If-Match holds: If-Unmodified-Since is not looked at", ["If-Match: {e}", "If-Unmodified-Since: " + BEFORE], 200),
    ("If-Match fails whatever If-Unmodified-Since says", ['If-Match: "x"', "If-Unmodified-Since: {l}"], 412),
    ("If-Unmodified-Since: the date", ["If-Unmodified-Since: {l}"], 200),
    ("If-Unmodified-Since: later", ["If-Unmodified-Since: " + AFTER], 200),
    ("If-Unmodified-Since: before", ["If-Unmodified-Since: " + BEFORE], 412),
    ("If-Unmodified-Since: no date", ["If-Unmodified-Since: yesterday"], 200),
    ("If-None-Match: the tag", ["If-None-Match: {e}"], 304),
    ("If-None-Match compares weakly", ["If-None-Match: W/{e}"], 304),
    ("If-None-Match: any", ["If-None-Match: *"], 304),
    ("If-None-Match: in a list", ['If-None-Match: "x", W/"y" , {e}'], 304),
    ("If-None-Match: in a list without blanks, with a comma in a tag", ['If-None-Match: "a,b",{e}'], 304),
    ("If-None-Match: empty elements", ["If-None-Match: , ,{e},"], 304),
    ("If-None-Match: in two lines", ['If-None-Match: "x"', "If-None-Match: {e}"], 304),
    ("If-None-Match: another", ['If-None-Match: "x"'], 200),
    ("If-None-Match: nothing in quotes", ['If-None-Match: ""'], 200),
    ("If-None-Match: a part of the tag", ["If-None-Match: {part}"], 200),
    ("If-None-Match: the tag within another", ['If-None-Match: "x{bare}x"'], 200),
    ("If-None-Match: no tag", ["If-None-Match: bare"], 200),
    ("If-None-Match: an open quote", ['If-None-Match: "'], 200),
    ("If-Modified-Since: the date", ["If-Modified-Since: {l}"], 304),
    ("If-Modified-Since: later", ["If-Modified-Since: " + AFTER], 304),          # nginx: exact
    ("If-Modified-Since: before", ["If-Modified-Since: " + BEFORE], 200),
    ("If-Modified-Since: RFC 850", ["If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT"], 304),
    ("If-Modified-Since: asctime", ["If-Modified-Since: Tue Nov 14 22:13:20 2023"], 304),
    ("If-Modified-Since: no date", ["If-Modified-Since: 1700000000"], 200),
    ("If-Modified-Since: empty", ["If-Modified-Since:"], 200),
    ("If-Modified-Since: 30 February", ["If-Modified-Since: Thu, 30 Feb 2023 22:13:20 GMT"], (200,)),
    ("the tag wins: changed", ['If-None-Match: "x"', "If-Modified-Since: " + AFTER], 200),
    ("the tag wins: the same", ["If-None-Match: {e}", "If-Modified-Since: " + BEFORE], 304),
    ("If-Match first, then If-None-Match", ["If-Match: {e}", "If-None-Match: {e}"], 304),
    ("If-Match fails first", ['If-Match: "x"', "If-None-Match: {e}"], 412),
    ("If-Unmodified-Since fails first", ["If-Unmodified-Since: " + BEFORE, "If-None-Match: {e}"], 412),
    ("If-Unmodified-Since, then If-Modified-Since", ["If-Unmodified-Since: {l}", "If-Modified-Since: {l}"], 304),
    ("304 before the range", ["If-None-Match: {e}", "Range: bytes=0-9"], 304),
    ("412 before the range", ['If-Match: "x"', "Range: bytes=0-9"], 412),
    ("304 before 416", ["If-None-Match: {e}", "Range: bytes=9999-"], 304),
    ("a range when conditions hold", ['If-None-Match: "x"', "If-Match: {e}", "Range: bytes=0-9"], 206),
    ("If-Range: the tag", ["If-Range: {e}", "Range: bytes=0-9"], 206),
    ("If-Range: another", ['If-Range: "x"', "Range: bytes=0-9"], 200),
    ("If-Range compares strongly", ["If-Range: W/{e}", "Range: bytes=0-9"], 200),
    ("If-Range: the date", ["If-Range: {l}", "Range: bytes=0-9"], 206),
    ("If-Range: later is not the date", ["If-Range: " + AFTER, "Range: bytes=0-9"], 200),
    ("If-Range: before", ["If-Range: " + BEFORE, "Range: bytes=0-9"], 200),
    ("If-Range: rubbish", ["If-Range: rubbish", "Range: bytes=0-9"], 200),
    ("If-Range: any is none", ["If-Range: *", "Range: bytes=0-9"], 200),
    ("If-Range alone", ["If-Range: {e}"], 200),
    ("If-Range holds: 416", ["If-Range: {e}", "Range: bytes=9999-"], 416),
    ("If-Range fails: no 416", ['If-Range: "x"', "Range: bytes=9999-"], 200),
]


@pytest.mark.parametrize("fields, status", [c[1:] for c in CONDITIONS], ids=[c[0] for c in CONDITIONS])
def test_conditions(site, scheme, fields, status):
    known = site.ask("/static/a.txt")
    tag = known.get("ETag")
    fields = [f.format(e=tag, l=known.get("Last-Modified"), bare=tag[1:-1], part=tag[:-2] + '"') for f in fields]
    m, head = [site.ask("/static/a.txt", *fields, scheme=scheme, method=method) for method in ("GET", "HEAD")]
    assert m.status in (status if isinstance(status, tuple) else (status,))
    assert head.status == (200 if m.status in (206, 416) else m.status), "HEAD knows no Range (RFC 9110 14.2)"    # nginx: 206
    if m.status in (200, 206, 304):
        assert m.get("ETag") == tag and m.get("Cache-Control") == "public, max-age=60"
    if m.status == 200:
        assert m.body == TEXT
    if m.status == 304:
        assert m.get("Last-Modified", LAST_MODIFIED) == LAST_MODIFIED and not m.has("Content-Type")


def test_304_keeps_the_connection(site, scheme):
    with site.client(scheme) as c:
        tag = c.ask("/static/a.txt").get("ETag")
        for method in ("GET", "HEAD", "GET"):
            assert c.ask("/static/a.txt", "If-None-Match: " + tag, method=method).status == 304
            assert c.ask("/static/sub/b.txt").text == "in sub"


def test_conditions_of_what_is_not_there(site):
    """RFC 9110 13.2.1: without them it would be a 404 anyway."""
    for field in ("If-Match: *", 'If-Match: "x"', "If-None-Match: *", "Range: bytes=0-1", "If-Modified-Since: " + AFTER):
        assert site.ask("/static/missing", field).status == 404
        assert site.ask("/static/sub", field).status == 308


# ---- ranges ---------------------------------------------------------------------------------

RANGES = [           # of 1000 bytes; a list: these parts, a set: one of these statuses
    ("bytes=0-0", [(0, 0)]), ("bytes=0-999", [(0, 999)]), ("bytes=0-", [(0, 999)]), ("bytes=1-", [(1, 999)]), ("bytes=500-600", [(500, 600)]),
    ("bytes=999-", [(999, 999)]), ("bytes=999-999", [(999, 999)]), ("bytes=990-5000", [(990, 999)]), ("bytes=0-1000", [(0, 999)]),
    ("bytes=-1", [(999, 999)]), ("bytes=-10", [(990, 999)]), ("bytes=-1000", [(0, 999)]), ("bytes=-5000", [(0, 999)]), ("bytes=00000000000000000000000000-1", {206, 200, 416}),
    ("BYTES=0-9", [(0, 9)]), ("bytes=0-9,", [(0, 9)]), ("bytes=,,0-9", [(0, 9)]), ("bytes= 0-9", [(0, 9)]),
    ("bytes=1000-", 416), ("bytes=1000-1001", 416), ("bytes=99999-", 416), ("bytes=-0", 416), ("bytes=1000-,2000-3000", 416), ("bytes=-0,-0", 416),
    # choice: what is malformed may be ignored or refused (RFC 9110 14.2)
    ("bytes=5-3", {200, 416}), ("bytes=", {200, 416}), ("bytes=-", {200, 416}), ("bytes=a-b", {200, 416}), ("bytes=1-x", {200, 416}), ("bytes=0x1-2", {200, 416}),
    ("bytes=--1", {200, 416}), ("bytes=+1-2", {200, 416}), ("bytes=1", {200, 416}), ("bytes=1-2-3", {200, 416}), ("bytes=0-9;1", {200, 416}), ("bytes=5-3,0-1", {200, 416, 206}),
    ("bytes 0-9", {200}), ("bytes", {200}), ("0-9", {200}), ("items=0-9", {200}), ("bytesx=0-9", {200}), ("", {200}),
    ("bytes=0-18446744073709551615", {206, 200, 416}), ("bytes=0-18446744073709551616", {206, 200, 416}), ("bytes=18446744073709551616-18446744073709551617", {200, 416}),
    ("bytes=9223372036854775807-9223372036854775808", {200, 416}), ("bytes=-9223372036854775808", {206, 200, 416}), ("bytes=-18446744073709551617", {206, 200, 416}),
    ("bytes=4294967296-4294967297", {200, 416}), ("bytes=%s-" % ("9" * 400), {200, 416}),
    ("bytes=0-9,20-29", [(0, 9), (20, 29)]), ("bytes=0-0,-1", [(0, 0), (999, 999)]), ("bytes=0-0, 10-10 ,\t-2", [(0, 0), (10, 10), (998, 999)]),
    ("bytes=500-509,0-9", [(500, 509), (0, 9)]), ("bytes=0-9,5000-,20-29", [(0, 9), (20, 29)]), ("bytes=0-9,5000-", [(0, 9)]), ("bytes=5000-,0-9,", [(0, 9)]),
    ("bytes=0-9,10-19", "union"), ("bytes=0-9,5-14", "union"), ("bytes=0-,0-", "union"), ("bytes=-1000,0-999", "union"), ("bytes=0-499,500-,-1", "union"),
]


@pytest.mark.parametrize("ranges, want", RANGES, ids=[r[0][:40] or "empty" for r in RANGES])
@pytest.mark.parametrize("target, data", [("/static/a.txt", TEXT), ("/static/binary.bin", BINARY)], ids=["text", "binary"])
def test_ranges(site, scheme, target, data, ranges, want):
    whole = site.ask(target)
    with site.client(scheme) as c:
        m = c.ask(target, "Range: " + ranges)
        answers(m, data, want)
        if m.status == 206:
            assert m.framing == "length" and m.get("ETag") == whole.get("ETag") and m.get("Last-Modified") == LAST_MODIFIED
            if m.has("Content-Range"):
                assert m.get("Content-Type") == whole.get("Content-Type")
            else:
                assert {p[3] for p in parts(m)} == {whole.get("Content-Type")}
        assert c.ask("/static/sub/b.txt").text == "in sub"


@pytest.mark.parametrize("ranges", ["0-," * 1500 + "0-", ",".join("%d-%d" % (i, i) for i in range(0, 1000, 2)), ",".join("-%d" % i for i in range(1, 1000))],
                         ids=["the whole, many times", "every second byte", "every suffix"])
def test_many_ranges(site, ranges):
    """CVE-2011-3192: no more is sent than a few times the file."""
    m = site.ask("/static/a.txt", "Range: bytes=" + ranges)
    assert m.status in (200, 206, 416, 400, 431)
    assert len(m.body) < 300 * len(TEXT), "%d bytes" % len(m.body)
    assert site.ask("/static/a.txt").body == TEXT


def test_ranges_of_nothing(site):
    m = site.ask("/static/empty.txt", "Range: bytes=0-")
    assert m.status == 416 and m.get("Content-Range") == "bytes */0" or m.status == 200 and not m.body
    assert site.ask("/static/empty.txt", "Range: bytes=-5").status in (200, 416)


def test_range_only_of_get(site):
    m = site.ask("/static/a.txt", "Range: bytes=0-9", method="HEAD")
    assert (m.status, m.get("Content-Length")) == (200, "1000")                # nginx: 206


def test_boundary_is_not_in_the_file(site, tree):
    """A file that holds the boundary seen before."""
    seen = site.ask("/static/a.txt", "Range: bytes=0-0,2-2").get("Content-Type").partition("boundary=")[2].strip('"')
    data = (b"\r\n--" + seen.encode() + b"--\r\n") * 50
    tree.write("root/hostile.txt", data)
    m = site.ask("/static/hostile.txt", "Range: bytes=0-%d,%d-" % (len(data) // 2, len(data) // 2 + 10))
    assert m.status == 206
    assert seen.encode() not in m.get("Content-Type").encode() or m.status == 200, "the boundary must differ from answer to answer, or from file to file"


def test_pieces_of_a_big_file(site, scheme, tree):
    """64 KB ranges all over a file, on one connection, as players ask for them."""
    data = tree.read("root/big.bin")
    with site.client(scheme) as c:
        for at in range(0, len(data), 1_234_567):
            m = c.ask("/static/big.bin", "Range: bytes=%d-%d" % (at, at + 65535))
            assert m.status == 206 and m.body == data[at:at + 65536]
        m = c.ask("/static/big.bin", "Range: bytes=%s" % ",".join("%d-%d" % (i * MB, i * MB + 99999) for i in range(0, 24, 3)))
        assert [p[4] == data[p[0]:p[1] + 1] for p in parts(m)] == [True] * 8


def test_beyond_4_gb(site, scheme, tree):
    """Offsets of more than 32 bits, and around 31."""
    size, marks = 5 * (1 << 30) + 8, {(1 << 31) - 4: b"two gigs", (1 << 32) - 4: b"four gig", 5 * (1 << 30): b"the end."}
    path = tree.path("root/huge.bin")
    if not os.path.exists(path):
        with open(path, "wb") as f:
            for at, text in marks.items():
                f.seek(at)
                f.write(text)
        assert os.stat(path).st_blocks < 1000, "a file with holes"
    with site.client(scheme) as c:
        m = c.ask("/static/huge.bin", method="HEAD")
        assert (m.status, m.get("Content-Length")) == (200, str(size))
        for at, text in marks.items():
            m = c.ask("/static/huge.bin", "Range: bytes=%d-%d" % (at - 2, at + 7))
            assert (m.status, m.body) == (206, b"\0\0" + text) and m.get("Content-Range") == "bytes %d-%d/%d" % (at - 2, at + 7, size)
        assert c.ask("/static/huge.bin", "Range: bytes=-8").body == b"the end."
        assert c.ask("/static/huge.bin", "Range: bytes=%d-" % size).status == 416
        m = c.ask("/static/huge.bin", "Range: bytes=0-1,%s" % ",".join("%d-%d" % (a, a + 7) for a in marks))
        assert [p[4] for p in parts(m)] == [b"\0\0", *marks.values()]
        m = c.ask("/static/huge.bin", "Range: bytes=1-,-8", method="HEAD")
        assert m.status in (200, 206)
    with site.client(scheme) as c:
        c.send(request("/static/huge.bin"))
        assert c.head(TIMEOUT).get("Content-Length") == str(size)
        assert c.exactly(MB, TIMEOUT) == bytes(MB)                    # and the client goes away in the middle
    assert site.ask("/static/a.txt").body == TEXT


# ---- neighbours ---------------------------------------------------------------------------------

CODINGS = [          # file, Accept-Encoding (None: none), the codings that may come
    ("both.js", None, {""}), ("both.js", "", {""}), ("both.js", "gzip", {"gzip"}), ("both.js", "br", {"br"}), ("both.js", "gzip, deflate, br", {"br"}),
    ("both.js", "br;q=1.0, gzip;q=0.8, *;q=0.1", {"br"}), ("both.js", "gzip;q=1, br;q=0.5", {"gzip"}), ("both.js", "gzip;q=0", {""}), ("both.js", "gzip;q=0.000, br;q=0.0", {""}),
    ("both.js", "gzip;q=0, br", {"br"}), ("both.js", "gzip ; q=0.5", {"gzip"}), ("both.js", "GZIP", {"gzip"}), ("both.js", "x-gzip", {"gzip", ""}), ("both.js", "deflate", {""}), ("both.js", "zstd", {""}),
    ("both.js", "*", {"gzip", "br", ""}), ("both.js", "*;q=0", {""}), ("both.js", "gzip, *;q=0", {"gzip"}), ("both.js", "identity", {""}), ("both.js", "identity;q=0, gzip", {"gzip"}),
    ("both.js", "identity;q=1, gzip;q=0.5", {""}), ("both.js", "identity;q=0.5, gzip;q=0.5", {"gzip"}), ("both.js", "brotli", {""}), ("both.js", "gzipped", {""}), ("both.js", "xgzip, abr", {""}),
    ("both.js", "gzip;q=0.001", {"gzip", ""}), ("both.js", "gzip;level=1;q=0", {"gzip", ""}), ("both.js", "gzip;q=2", {"gzip", "", "br"}), ("both.js", ",,gzip,", {"gzip"}),
    ("onlygz.css", "gzip", {"gzip"}), ("onlygz.css", "br", {""}), ("onlygz.css", "gzip, br", {"gzip"}), ("onlygz.css", "br, gzip;q=0.1", {"gzip", ""}), ("onlygz.css", None, {""}),
    ("onlybr.svg", "gzip", {""}), ("onlybr.svg", "gzip, br;q=0.1", {"br", ""}), ("onlybr.svg", "br", {"br"}),
    ("none.js", "gzip, br", {""}), ("dirgz.js", "gzip", {""}), ("linkgz.js", "gzip", {""}),
]
KINDS = {"both.js": "javascript", "onlygz.css": "text/css", "onlybr.svg": "image/svg+xml", "none.js": "javascript", "dirgz.js": "javascript", "linkgz.js": "javascript"}


@pytest.mark.parametrize("name, accept, want", CODINGS, ids=["%s %s" % c[:2] for c in CODINGS])
def test_neighbours(site, tree, name, accept, want):
    m = site.ask("/static/pre/" + name, *["Accept-Encoding: " + accept] if accept is not None else [])
    coding = m.get("Content-Encoding", "")
    assert m.status == 200 and coding in want
    assert m.body == tree.read("root/pre/" + name + {"": "", "gzip": ".gz", "br": ".br"}[coding])
    assert KINDS[name] in m.get("Content-Type"), "the type of what is in it"
    if name in ("both.js", "onlygz.css", "onlybr.svg"):
        assert "accept-encoding" in m.tokens("Vary"), "also when it came as it is"
    assert re.fullmatch(r'"[^"]+"', m.get("ETag")) and m.has("Last-Modified")


def test_neighbours_in_two_lines(site):
    assert site.ask("/static/pre/both.js", "Accept-Encoding: deflate", "Accept-Encoding: br").get("Content-Encoding") == "br"


def test_neighbours_are_told_apart(site):
    """Each has a tag of its own, and conditions look at the one that would be sent."""
    tags = {c: site.ask("/static/pre/both.js", "Accept-Encoding: " + c).get("ETag") for c in ("identity", "gzip", "br")}
    assert len(set(tags.values())) == 3
    for c, tag in tags.items():
        m = site.ask("/static/pre/both.js", "Accept-Encoding: " + c, "If-None-Match: " + tag)
        assert m.status == 304 and m.get("ETag") == tag and "accept-encoding" in m.tokens("Vary")
        for other in set(tags.values()) - {tag}:
            assert site.ask("/static/pre/both.js", "Accept-Encoding: " + c, "If-None-Match: " + other).status == 200
            assert site.ask("/static/pre/both.js", "Accept-Encoding: " + c, "If-Range: " + other, "Range: bytes=0-1").status == 200


def test_range_of_a_neighbour(site, tree):
    """Of the coded bytes, or of the plain ones: never of one with the fields of the other."""
    m = site.ask("/static/pre/both.js", "Accept-Encoding: gzip", "Range: bytes=10-19")
    data = tree.read("root/pre/both.js" + (".gz" if m.has("Content-Encoding") else ""))
    assert m.status == 206 and m.body == data[10:20] and m.get("Content-Range") == "bytes 10-19/%d" % len(data)


def test_neighbour_asked_for_by_name(site, tree):
    m = site.ask("/static/pre/both.js.gz", "Accept-Encoding: gzip")
    assert m.body == tree.read("root/pre/both.js.gz") and not m.has("Content-Encoding")
    assert "javascript" not in m.get("Content-Type")


# ---- listing ----------------------------------------------------------------------------------------

class Links(html.parser.HTMLParser):
    """The links of a page, [(href, text)], and its tags."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.open = [], set(), None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "a":
            self.open = [dict(attrs).get("href"), ""]
            self.links.append(self.open)
        assert not any(k.startswith("on") for k, _ in attrs)

    def handle_endtag(self, tag):
        if tag == "a":
            self.open = None

    def handle_data(self, data):
        if self.open:
            self.open[1] += data


def listing(m):
    assert m.status == 200 and re.fullmatch(r"text/html; ?charset=utf-8", m.get("Content-Type").lower())
    page = Links(m.body.decode("utf-8", "surrogateescape"))
    assert not {"script", "link", "img", "iframe", "b"} & page.tags
    assert b"SECRET" not in m.body and b".hidden" not in m.body and b"<script" not in m.body.lower()
    return [x for x in page.links if x[0] and x[0].rstrip("/") not in ("..", "../.", ".", "/list", "") and x[1] not in ("..", "../")]


def test_listing(site, scheme):
    m = site.ask("/list/", scheme=scheme)
    links = listing(m)
    names = [urllib.parse.unquote(h).removeprefix("./").removeprefix("/list/") for h, _ in links]
    assert set(names) == {"a.txt", "b.txt", "C.txt", "adir/", "zdir/", "indexed/", "empty/", "odd/"}, "a slash behind directories, no dot files"
    dirs, files = [n for n in names if n.endswith("/")], [n for n in names if not n.endswith("/")]
    in_order = lambda l: l in (sorted(l), sorted(l, key=str.lower))         # choice: of which case
    assert in_order(names) or names in (dirs + files, files + dirs) and in_order(dirs) and in_order(files)
    assert re.search(r"b\.txt.*?\b777\b", m.text, re.S), "sizes"
    assert names.index("a.txt") < names.index("b.txt")


def test_listing_of_odd_names(site):
    """Every link leads to its file, whatever the name."""
    links = listing(site.ask("/list/odd/"))
    assert len(links) == len(NAMES)
    got = set()
    for href, text in links:
        url = urllib.parse.urlsplit(urllib.parse.urljoin("http://a.example/list/odd/", href))
        assert url.hostname == "a.example" and url.scheme == "http", href
        m = site.ask(url.path)
        assert m.status == 200, href
        got.add(m.body)
    assert got == {b"name " + n for n in NAMES}


def test_listing_elsewhere(site):
    assert site.ask("/list/indexed/").text == "<p>an index</p>", "the index wins"
    assert listing(site.ask("/list/empty/")) == []
    assert site.ask("/list/zdir").status == 308
    assert site.ask("/list/missing/").status == 404
    assert site.ask("/list/.hidden").status in REFUSED
    assert site.ask("/list/a.txt/").status == 404
    assert site.ask("/static/list/").status in REFUSED, "listing is off there"
    assert listing(site.ask("/list/?C=M;O=D&x=%3Cscript%3E"))


def test_listing_reflects_nothing(site):
    m = site.ask("/list/odd/../%3Cscript%3Ealert(1)%3C/script%3E/")
    assert m.status == 404 and b"<script" not in m.body


@pytest.mark.limit(30)
def test_listing_of_many(site, scheme, tree):
    """Two thousand names, to a fast and to a slow reader."""
    if not os.path.exists(tree.path("root/list/many")):
        for i in range(2000):
            tree.write("root/list/many/file-%04d-%s.txt" % (i, "x" * 100), b"")
    want = ["file-%04d-%s.txt" % (i, "x" * 100) for i in range(2000)]
    with bounded(site.w):
        assert [urllib.parse.unquote(h).removeprefix("./") for h, _ in listing(site.ask("/list/many/", scheme=scheme))] == want
        with site.client(scheme, rcvbuf=4096) as c:
            c.send(request("/list/many/"))
            time.sleep(0.1)
            assert len(listing(c.response(timeout=3 * TIMEOUT))) == 2000


# ---- what is not served -------------------------------------------------------------------------------

@pytest.mark.parametrize("prefix", ["/static/", "/", "/off", "/off/", "/spa/", "/list/", "/tree/", "/static/sub/", "/.well-known/", "/list/odd/"])
def test_no_way_out(site, tree, prefix):
    bad, out = [], escapes(tree.base)
    assert len(out) >= 100
    with site.client() as c:
        for target in [prefix + e for e in out] + ["http://a.example" + prefix + e for e in out[:40]] + (out if prefix == "/" else []):
            if re.search(r"[\x00-\x20]", target):
                target = target.replace(" ", "%20")
            try:
                m = c.send(b"GET " + target.encode() + b" HTTP/1.1\r\nHost: a.example\r\n\r\n").response()
            except (EOFError, ConnectionError):
                m = None
            if m is None or SECRET in m.body or b"root:" in m.body or m.status not in (200, 308, 400, 403, 404) or ".." in m.get("Location", "").partition("?")[0]:
                bad.append((target, m))
            if m is None or "close" in m.tokens("Connection"):
                c.close()
                c.__init__(site.w.port)
    assert not bad
    assert site.ask("/static/a.txt").body == TEXT


LINKS = [            # choice: an absolute link, or one that leaves and comes back, may be refused though it ends inside
    ("file", "target"), ("up", "in sub"), ("dir/b.txt", "in sub"), ("chain", "target"), ("dangling", 404), ("loop", None), ("out", None), ("outabs", None), ("outdir/secret.txt", None),
    ("outdirabs/secret.txt", None), ("outchain", None), ("slash/etc/passwd", None), ("self", None), ("zero", None), ("outdir", None), ("outdir/", None), ("outdir/root/a.txt", None), ("inabs", "target?"),
    ("andback", "target?"), ("dir", 308), ("outdir/root-sibling/secret.txt", None), ("loop/x", None), ("dangling/x", 404), ("dir/../file", "target"), ("dir/../links/file", 404),
]


@pytest.mark.parametrize("name, want", LINKS, ids=[x[0] for x in LINKS])
def test_links(site, name, want):
    m = site.ask("/static/links/" + name)
    assert SECRET not in m.body and b"root:" not in m.body
    if want is None:
        assert m.status in REFUSED
    elif isinstance(want, int):
        assert m.status == want or want == 404 and m.status == 403
    elif want.endswith("?"):
        assert m.status in REFUSED or m.text == want[:-1]
    else:
        assert (m.status, m.text) == (200, want)


def test_link_swapped_under_load(site, tree):
    """A directory that becomes a link to the outside, and back, all the time: no race gets out. Each name is new to warp."""
    for where, what in (("root/swap/dir", b"inside"), ("away", SECRET)):
        one = tree.write(where + "/one", what)
        for i in range(3000):
            os.link(one, tree.path("%s/%d" % (where, i)))
    os.symlink(tree.path("away"), tree.path("root/swap/link"))
    stop = threading.Event()

    def swap():
        d = os.open(tree.path("root/swap"), os.O_RDONLY)
        while not stop.is_set():
            for a, b in (("dir", "tmp"), ("link", "dir"), ("dir", "link"), ("tmp", "dir")):
                os.rename(a, b, src_dir_fd=d, dst_dir_fd=d)
        os.close(d)
    th = threading.Thread(target=swap)
    th.start()
    try:
        with site.client() as c:
            seen = [(m.status, m.body if m.status == 200 else b"") for m in (c.ask("/static/swap/dir/%d" % i) for i in range(3000))]
    finally:
        stop.set()
        th.join()
    assert set(seen) <= {(200, b"inside"), (403, b""), (404, b"")} and (200, b"inside") in seen
    assert len(set(seen)) > 1, "no race at all"


@pytest.mark.parametrize("target", [
    "/static/.hidden", "/.hidden", "/static/%2ehidden", "/static/.git/config", "/static/.git/", "/static/.git", "/static/sub/.env", "/static/.well-known/.secret", "/static/.well-known-not/x",
    "/static/..dots", "/static/...", "/static/.htaccess", "/off/.hidden", "/static/.well-known/../.hidden", "/static/sub/..//.hidden", "/static/./.hidden", "/static//.hidden", "/static/.hidden/", "/.git%2fconfig",
    "/static/%2e%67it/config", "/list/.hidden", "/list/empty/.keep",
])
def test_dot_files(site, scheme, target):
    m = site.ask(target, scheme=scheme)
    assert m.status in (400, *REFUSED) and SECRET not in m.body


def test_well_known(site):
    assert site.ask("/static/.well-known/acme/token.txt").text == "well known"
    assert site.ask("/.well-known/acme/token.txt").text == "well known"


def test_what_is_no_file(site, tree):
    """Nobody waits for the other end of a fifo."""
    with site.client() as c:
        for name in ("fifo", "socket"):
            started = time.monotonic()
            for _ in range(3):
                assert c.ask("/static/" + name).status in REFUSED
            assert time.monotonic() - started < SLOW
        assert c.ask("/static/fifo", method="HEAD").status in REFUSED
        assert c.ask("/static/fifo/x").status in REFUSED
        assert c.ask("/static/dir.txt").status == 308
    assert stat.S_ISFIFO(os.stat(tree.path("root/fifo")).st_mode)


def test_device(site, tree):
    try:
        os.mknod(tree.path("root/device"), 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("may not make devices")
    os.chmod(tree.path("root/device"), 0o666)
    assert site.ask("/static/device").status in REFUSED


def test_closed_to_warp(site):
    assert site.ask("/static/closed.txt").status == 403
    assert site.ask("/static/closeddir/x.txt").status in REFUSED
    assert site.ask("/static/closeddir/").status in REFUSED


# ---- files that change ------------------------------------------------------------------------------------

def reader(site, scheme, target):
    """A client that has the head of a big answer and has stopped reading."""
    c = site.client(scheme, rcvbuf=16384)
    c.send(request(target))
    m = c.head(TIMEOUT)
    assert m.status == 200
    time.sleep(0.05)                       # the buffers of the kernel fill up
    return c, int(m.get("Content-Length"))


def test_shrinks(site, scheme, tree):
    """Cut to a part while it is sent: what comes is of the file, then the connection is closed."""
    data = tree.read("root/big.bin")
    name = "shrinks-%s.bin" % scheme
    path = tree.write("root/" + name, data)
    c, n = reader(site, scheme, "/static/" + name)
    with c:
        os.truncate(path, MB)
        got, cut = to_the_end(c, n)
        # Of what sendfile has put into the socket already the kernel makes zeros, or not, when the page goes.
        assert cut and got[:MB] == data[:len(got[:MB])] and all(a in (0, b) for a, b in zip(got[MB:], data[MB:]))

    def whole():
        with contextlib.suppress(EOFError, OSError):       # for a moment the old length is believed
            return site.ask("/static/" + name, scheme=scheme).body == data[:MB]
    eventually(whole, "its new length", SOON)


def test_shrinks_to_nothing(site, tree):
    tree.write("root/shrinks0.bin", bytes(24 * MB))
    c, n = reader(site, "http", "/static/shrinks0.bin")
    with c:
        os.truncate(tree.path("root/shrinks0.bin"), 0)
        got, cut = to_the_end(c, n)
        assert cut and not got.strip(b"\0")


def test_grows(site, scheme, tree):
    """Appended to while it is sent: what was promised and no more."""
    data = tree.read("root/big.bin")
    target = "/static/grows-%s.bin" % scheme
    path = tree.write("root" + target[7:], data)
    c, n = reader(site, scheme, target)
    with c, open(path, "ab") as f:
        f.write(b"more" * MB)
        f.flush()
        got, cut = to_the_end(c, n)
        assert not cut and got == data
        assert c.ask("/static/a.txt").body == TEXT
    eventually(lambda: site.ask(target, method="HEAD").get("Content-Length") == str(n + 4 * MB), "its new length", SOON)


def test_log_that_grows(site, tree):
    """Each answer has the length that it says, though the file never stands still."""
    path = tree.write("root/log.txt", b"")
    stop = threading.Event()

    def grow():
        with open(path, "ab", buffering=0) as f:
            while not stop.is_set():
                f.write(b"line\n")
    th = threading.Thread(target=grow)
    th.start()
    try:
        with site.client() as c:
            end = time.monotonic() + 1
            while time.monotonic() < end:
                time.sleep(0.0005)                     # not more than keepalive_requests
                m = c.ask("/static/log.txt")
                assert m.status == 200 and m.body.replace(b"line\n", b"") in (b"", b"l", b"li", b"lin", b"line")
    finally:
        stop.set()
        th.join()


@pytest.mark.parametrize("size", [100, 200_000, 3 * MB])
def test_replaced_under_load(site, tree, size):
    """By rename, all the time: old or new, never a mixture; and no tag ever stands for two of them."""
    stop, tags, seen = threading.Event(), {}, []
    tree.write("root/swapped.bin", b"0" * size, None)

    def replace():
        i = 0
        while not stop.is_set():
            i += 1
            tree.write("root/swapped.bin", b"%d" % (i % 10) * (size + i % 7), None)
            time.sleep(0.002)
    th = threading.Thread(target=replace)
    th.start()
    try:
        with site.client() as c:
            end = time.monotonic() + 1.5
            while (left := end - time.monotonic()) > 0 or len(set(seen)) < 2 and left > -SOON:
                time.sleep(0.0005)                     # not more than keepalive_requests
                m = c.ask("/static/swapped.bin")
                assert m.status == 200 and m.body and len(set(m.body)) == 1, "a mixture"
                first = tags.setdefault(m.get("ETag"), (m.body[:1], len(m.body)))
                assert first == (m.body[:1], len(m.body)), "one tag, two files"
                seen.append(m.body[:1])
                if len(seen) % 5 == 0 and m.get("ETag"):
                    r = c.ask("/static/swapped.bin", "If-Range: " + m.get("ETag"), "Range: bytes=50-")
                    assert r.status == 200 or r.body == m.body[50:], "If-Range joined two files"
    finally:
        stop.set()
        th.join()
    assert len(set(seen)) > 1


def test_replaced_while_sent(site, scheme, tree):
    """Who has begun gets the old one to its end."""
    data = tree.read("root/big.bin")
    name = "old-%s.bin" % scheme
    tree.write("root/" + name, data)
    c, n = reader(site, scheme, "/static/" + name)
    with c:
        tree.write("root/" + name, b"new")
        eventually(lambda: site.ask("/static/" + name).body == b"new", "the new one", SOON)
        os.unlink(tree.path("root/" + name))
        got, cut = to_the_end(c, n)
        assert not cut and got == data
        eventually(lambda: c.ask("/static/" + name).status == 404, "gone", SOON)


@pytest.mark.parametrize("how", ["rename", "in place", "touch", "in place, same size, same date", "same size", "link", "directory", "closed"])
def test_changes_are_seen(site, tree, how):
    """The cache of open files lets go of what has changed."""
    name = "root/changes-%s" % re.sub("[ ,]+", "-", how)
    tree.write(name, b"first")
    target = "/static/" + name[5:]
    with site.client() as c:
        for _ in range(20):
            m = c.ask(target)
            assert m.body == b"first"
        if how == "rename":
            tree.write(name, b"another", None)
        elif how == "in place":
            with open(tree.path(name), "wb") as f:
                f.write(b"second, longer")
        elif how.startswith("in place,"):              # rsync --inplace --times; ctime alone tells
            with open(tree.path(name), "r+b") as f:
                f.write(b"FIRST")
            os.utime(tree.path(name), (PAST, PAST))
        elif how == "touch":
            os.utime(tree.path(name), (PAST + 100, PAST + 100))
        elif how == "same size":
            tree.write(name, b"other")                 # inode alone tells
        elif how == "link":
            os.unlink(tree.path(name))
            tree.link(name, "../secret.txt")
        elif how == "directory":
            os.unlink(tree.path(name))
            tree.dir(name)
        else:
            os.chmod(tree.path(name), 0)
        old, want = m.get("ETag"), {"rename": b"another", "in place": b"second, longer", "same size": b"other"}.get(how)
        if want:                                       # choice: for a moment the old length is believed
            eventually(lambda: c.ask(target).body == want, "the change", SOON)
            assert c.ask(target).get("ETag") != old
        elif how == "touch":
            eventually(lambda: c.ask(target).get("Last-Modified") == "Tue, 14 Nov 2023 22:15:00 GMT", "another date", SOON)
            m = c.ask(target)
            assert c.ask(target, "If-None-Match: " + old).status == (304 if m.get("ETag") == old else 200)   # choice: a tag by content stays
        elif how.startswith("in place,"):
            assert c.ask(target).body in (b"first", b"FIRST")
        else:
            wanted = {"link": REFUSED, "directory": (308,), "closed": (403,)}[how]
            eventually(lambda: c.ask(target).status in wanted, "the change", SOON)         # choice: mode alone, which ctime tells


def test_appears_and_goes(site, tree):
    """What is not there is remembered no longer than what is."""
    with site.client() as c:
        for _ in range(2):
            for _ in range(5):
                assert c.ask("/static/comes/and.txt").status == 404
            tree.write("root/comes/and.txt", b"here")
            eventually(lambda: c.ask("/static/comes/and.txt").body == b"here", "there", SOON)
            os.unlink(tree.path("root/comes/and.txt"))
            os.rmdir(tree.path("root/comes"))
            eventually(lambda: c.ask("/static/comes/and.txt").status == 404, "gone", SOON)


def test_parent_is_replaced(site, tree):
    """A deployment: `current` is a link that is moved to the next release."""
    tree.write("root/releases/1/x.txt", b"one")
    tree.write("root/releases/2/x.txt", b"two")
    tree.link("root/releases/current", "1")
    with site.client() as c:
        assert c.ask("/static/releases/current/x.txt").body == b"one"
        os.symlink("2", tree.path("root/releases/new"))
        os.rename(tree.path("root/releases/new"), tree.path("root/releases/current"))
        eventually(lambda: c.ask("/static/releases/current/x.txt").body == b"two", "the next release", SOON)


# ---- many, and slow ones -------------------------------------------------------------------------------------

def test_slow_reader_is_alone(site, scheme):
    """Ten who do not read a big file hold up nobody, and no memory."""
    with bounded(site.w, 3 * MB if scheme == "http" else 6 * MB):
        slow = [reader(site, scheme, "/static/big.bin") for _ in range(10)]
        try:
            with site.client() as c:
                took = []
                for _ in range(200):
                    started = time.monotonic()
                    assert c.ask("/static/a.txt").body == TEXT
                    took.append(time.monotonic() - started)
            assert sorted(took)[190] < 0.05 * SLOW
            c, n = slow[0]
            got, cut = to_the_end(c, n)
            assert not cut and len(got) == n
        finally:
            for c, _ in slow:
                c.close()


def test_client_that_goes(site):
    before = descriptors(site.w)
    for i in range(50):
        c, _ = reader(site, "http", "/static/big.bin") if i < 5 else (site.client(), 0)
        if i >= 5:
            c.send(request("/static/big.bin"))
        c.rst() if i % 2 else c.close()
    eventually(lambda: descriptors(site.w) <= before + 5, "descriptors given back")
    assert site.ask("/static/a.txt").body == TEXT


def test_pipelined(site, scheme):
    with site.client(scheme) as c:
        ask = [("/static/a.txt", TEXT), ("/static/sub/b.txt", b"in sub"), ("/static/empty.txt", b""), ("/static/binary.bin", BINARY)]
        c.send(b"".join(request(t) for t, _ in ask * 50))
        for t, data in ask * 50:
            assert c.response().body == data


@pytest.mark.limit(40)
def test_thousands_on_one_connection(site):
    before = descriptors(site.w)
    with site.client() as c, bounded(site.w, MB):
        for _ in range(60):
            c.send(request("/static/a.txt") * 50)
            for _ in range(50):
                assert c.response().body == TEXT
    assert descriptors(site.w) <= before + 3


def test_more_files_than_are_kept_open(site, tree):
    """Two thousand of them, and as many that are not there: descriptors and memory have a bound."""
    for i in range(2000):
        tree.write("root/many/%d/%d" % (i % 10, i), b"%d" % i)
    with site.client() as c, bounded(site.w):
        for at in range(0, 2000, 50):
            c.send(b"".join(request("/static/many/%d/%d" % (i % 10, i)) + request("/static/many/none-%d-%s" % (i, "x" * 100)) for i in range(at, at + 50)))
            for i in range(at, at + 50):
                assert c.response().body == b"%d" % i
                assert c.response().status == 404
    assert descriptors(site.w) < 600


def test_http_1_0(site, scheme):
    with site.client(scheme) as c:
        m = c.ask("/static/a.txt", version="1.0", host=None)
        assert m.body == TEXT and m.framing == "length" and c.closed() == "eof"
    with site.client(scheme) as c:
        for _ in range(2):
            m = c.ask("/static/a.txt", "Connection: keep-alive", "Range: bytes=0-1,4-5", version="1.0")
            assert len(parts(m)) == 2 and "keep-alive" in m.tokens("Connection")
    m = site.ask("/list/", scheme=scheme, version="1.0")
    assert listing(m) and not m.has("Transfer-Encoding")


def test_connection_close(site, scheme):
    with site.client(scheme) as c:
        m = c.ask("/static/big.bin", "Connection: close")
        assert len(m.body) == 24 * MB and c.closed() == "eof"


# ---- other configurations ------------------------------------------------------------------------------------

def test_keys(warp, tree):
    """index as a list, dot_files, [mime], rewrite."""
    tree.write("root/htm/main.htm", b"second")
    tree.write("root/htm2/main.htm", b"second")
    tree.write("root/htm2/index.html", b"first")
    tree.write("root/mime/x.weird", b"x")
    tree.write("root/mime/x.txt", b"x")
    tree.write("root/keys/part/file.txt", b"part")
    w = warp(dict(conf(
        dict(path_prefix="/dots/", strip_prefix=True, static_dir=tree.root, dot_files=True),
        dict(path_prefix="/v1/", rewrite="/keys/", static_dir=tree.root),
        dict(path_prefix="/", static_dir=tree.root, index=["index.html", "main.htm"])), mime={"weird": "application/x-weird", "txt": "text/x-mine"}))
    assert (w.ask("/htm/").text, w.ask("/htm2/").text) == ("second", "first")
    assert w.ask("/dots/.hidden").body == SECRET and w.ask("/.hidden").status in REFUSED
    assert w.ask("/dots/../../secret.txt").status in (400, *REFUSED)
    assert w.ask("/mime/x.weird").get("Content-Type") == "application/x-weird"
    assert w.ask("/mime/x.txt").get("Content-Type").startswith("text/x-mine")
    assert w.ask("/with/index.html").get("Content-Type").startswith("text/html"), "the table stays"
    assert w.ask("/v1/part/file.txt").text == "part"


def test_relative_root(warp, tmp_path):
    """From the directory of the configuration."""
    w = warp(conf(dict(path_prefix="/", static_dir="www")))
    os.makedirs(w.path("www"))
    with open(w.path("www/x.txt"), "w") as f:
        f.write("relative")
    eventually(lambda: w.ask("/x.txt").text == "relative", "a root that came later", SOON)       # choice: or 404 until a reload


def test_root_is_replaced(warp, tree):
    """The root itself is a link that is moved: at the next reload at the latest."""
    tree.write("rel/1/x.txt", b"one")
    tree.write("rel/2/x.txt", b"two")
    tree.link("rel/current", "1")
    text = conf(dict(path_prefix="/", static_dir=tree.path("rel/current")))
    w = warp(text)
    assert w.ask("/x.txt").body == b"one"
    os.symlink("2", tree.path("rel/new"))
    os.rename(tree.path("rel/new"), tree.path("rel/current"))
    w.signal(signal.SIGHUP)
    eventually(lambda: w.ask("/x.txt").body == b"two", "the next release")


def test_root_that_is_missing(warp, check, tree):
    """-t judges the text; what the host lacks is a 404, and files of other routes are served."""
    text = conf(dict(path_prefix="/gone/", strip_prefix=True, static_dir="/nonexistent/dir"), dict(path_prefix="/", static_dir=tree.root))
    p = check(lib.complete(lib.toml_file(text), 8080))
    assert p.returncode == 0, p.stdout + p.stderr
    w = warp(text)
    assert w.ask("/gone/x").status == 404 and w.ask("/a.txt").body == TEXT


@pytest.mark.limit(30)
def test_two_workers(warp, tree):
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root), server={"worker_threads": 2}))
    tags, errors = set(), []

    def go():
        try:
            for _ in range(20):
                with w.client() as c:
                    for _ in range(5):
                        m = c.ask("/a.txt")
                        assert m.body == TEXT
                        tags.add(m.get("ETag"))
                    assert c.ask("/a.txt", "If-None-Match: " + m.get("ETag")).status == 304
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=go) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors and len(tags) == 1, "all workers say the same tag"


def test_tag_outlives_warp(warp, tree):
    tags = [warp(conf(dict(path_prefix="/", static_dir=tree.root))).ask("/a.txt").get("ETag") for _ in range(2)]
    assert tags[0] == tags[1]


def test_reload_while_a_file_is_sent(warp, tree):
    data = tree.read("root/big.bin")
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root)))
    with Client(w.port, rcvbuf=16384) as c:
        c.send(request("/big.bin"))
        n = int(c.head(TIMEOUT).get("Content-Length"))
        w.write(conf(dict(path_prefix="/", static_dir=tree.root + "/sub")))
        w.signal(signal.SIGHUP)
        eventually(lambda: w.ask("/b.txt").text == "in sub", "the new configuration")
        got, cut = to_the_end(c, n)
        assert not cut and got == data


def test_write_timeout(warp, tree):
    """Who does not read for that long is let go, and the file with him."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root), server={"write_timeout_secs": 0.5}))
    with Client(w.port, rcvbuf=16384) as c:
        c.send(request("/big.bin"))
        n = int(c.head(TIMEOUT).get("Content-Length"))
        time.sleep(1.5 * SLOW)
        got, cut = to_the_end(c, n)
        assert cut and len(got) < n


def test_quit_waits_for_the_file(warp, tree):
    """QUIT drains: who has begun gets it to its end."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root)))
    with Client(w.port, rcvbuf=16384) as c:
        c.send(request("/big.bin"))
        n = int(c.head(TIMEOUT).get("Content-Length"))
        w.signal(signal.SIGQUIT)
        time.sleep(0.2)
        got, cut = to_the_end(c, n)
        assert not cut and got == tree.read("root/big.bin")
    assert w.wait() == 0


def test_access_log(warp, tree):
    """Status and bytes as they were sent."""
    w = warp(conf(dict(path_prefix="/", static_dir=tree.root), log={"access": "stdout", "format": "common"}))
    tag = w.ask("/a.txt").get("ETag")
    w.wait_stdout(r'"GET /a.txt HTTP/1.1" 200 1000\b')
    w.ask("/a.txt", "Range: bytes=0-9")
    w.wait_stdout(r'"GET /a.txt HTTP/1.1" 206 10\b')
    w.ask("/a.txt", "If-None-Match: " + tag)
    w.wait_stdout(r'"GET /a.txt HTTP/1.1" 304 (0|-)')
    w.ask("/missing.txt")
    w.wait_stdout(r'"GET /missing.txt HTTP/1.1" 404 ')


def test_unix_listener(warp, tree):
    w = warp('[server]\nlisten = ["127.0.0.1:@PORT@", "unix:@DIR@/s"]\n[[routes]]\nstatic_dir = "%s"\n' % tree.root)
    with Client(w.path("s")) as c:
        assert c.ask("/a.txt").body == TEXT
        assert c.ask("/big.bin").body == tree.read("root/big.bin")


def test_files_and_upstreams_on_one_connection(warp, backend, tree):
    w = warp(conf(dict(path_prefix="/f/", strip_prefix=True, static_dir=tree.root), dict(path_prefix="/"), app=backend()))
    with w.client() as c:
        for _ in range(20):
            assert c.ask("/f/a.txt").body == TEXT
            assert c.ask("/x", method="POST", body=b"12345").text == "app POST /x 5"
            assert c.ask("/f/a.txt", "Range: bytes=-1").status == 206


def test_a_file_if_there_is_one_else_an_upstream(warp, backend, tree):
    """As try_files $uri @app: what is no file, nor a directory with an index, is the application's."""
    w = warp(conf(dict(path_prefix="/b/", strip_prefix=True, static_dir=tree.root, fallback="@app"),
                  dict(path_prefix="/m", strip_prefix=True, static_dir=tree.root + "/with", fallback="@app"),
                  dict(path_prefix="/l/", strip_prefix=True, static_dir=tree.root, fallback="@app", listing=True),
                  dict(path_prefix="/", static_dir=tree.root, fallback="@app", map_back=True), app=backend(), server=AS_NOBODY))
    with w.client() as c:
        for _ in range(2):
            for at in ("/b", ""):
                assert c.ask(at + "/a.txt").body == TEXT
                assert c.ask(at + "/with/").body == c.ask("/m/").body == b"<p>with</p>"
                m = c.ask(at + "/with?q")
                assert (m.status, m.get("Location")) == (308, at + "/with/?q")
                assert c.ask(at + "/a.txt", "Range: bytes=-1").status == 206
                for target in ("/none", "/none/", "/noindex", "/noindex/", "/a.txt/x", "/.env", "/sub", "/sub/", "/closeddir", "/closeddir/",
                               "/closeddir/x.txt", "/closeddir/none"):
                    assert c.ask(at + target + "?q").text == "app GET %s?q 0" % target, target
                for target in ("/closed.txt", "/fifo"):
                    assert c.ask(at + target).status == 403
                for target in ("/a.txt", "/with", "/none"):
                    assert c.ask(at + target, method="POST", body=b"12345").text == "app POST %s 5" % target
                c.send(request(at + "/none", "Transfer-Encoding: chunked", method="PUT") + b"5\r\n12345\r\n0\r\n\r\n")
                assert c.response().text == "app PUT /none 5"
            assert c.ask("/m").get("Location") == "/m/"
            assert c.ask("/l/noindex").status == 308 and "<a href" in c.ask("/l/noindex/").text
    assert re.search("files of .*/root, else upstream app", lib.run_warp("-t", "-c", w.file).stdout)


@pytest.mark.parametrize("route, says", [
    ('static_dir = "/srv"\nfallback = "@y"', "there is no .upstreams.y."), ('static_dir = "/srv"\nmap_back = true', "map_back belongs to upstream"),
    ('static_dir = "/srv"\nupstream = "x"', "static_dir|upstream"), ('static_dir = ""', "static_dir"), ('static_dir = 1', "static_dir"),
    ('redirect = "/x"\nlisting = true', "listing|static_dir"), ('static_dir = "/srv"\nfallback = "/../x"', "fallback"), ('static_dir = "/srv"\nlistings = true', "listings"),
    ('static_dir = "/srv"\nstrip_prefix = true', "strip_prefix"),
])
def test_configurations_that_are_refused(check, route, says):
    p = check('[upstreams.x]\nhost = "127.0.0.1"\nport = 1\n[[routes]]\n%s\n' % route)
    assert p.returncode == 1 and re.search(says, p.stdout + p.stderr), p.stdout + p.stderr


# the request: what -e says of it
EXPLAINED = {
    "GET http://a/f/a.txt": "the file a.txt of ", "GET http://a/f/sub/": "the file sub/index.html of ",
    "GET http://a/f/sub": "308 ", "POST http://a/f/a.txt": "405", "GET http://a/f/none": "404",
    "GET http://a/f/.env": "404", "GET http://a/spa/none": "the file index.html of ",
    "GET http://a/b/a.txt": "the file a.txt of ", "GET http://a/b/none": "upstream app", "POST http://a/b/a.txt": "upstream app", "GET http://a/b/x%2Fy": "upstream app",
    "GET http://a/list/": "the names in ", "GET http://a/f/list/": "403",
}


@pytest.mark.parametrize("what", EXPLAINED)
def test_explained(run, tmp_path, what):
    root = tmp_path / "www"
    (root / "sub").mkdir(parents=True)
    (root / "list").mkdir()
    for name in ("a.txt", ".env", "index.html", "sub/index.html"):
        (root / name).write_text(name)
    routes = "".join('[[routes]]\npath_prefix = "/%s/"\nstrip_prefix = true\nstatic_dir = "%s"\n%s\n' % (prefix, dir, more)
                     for prefix, dir, more in (("f", root, ""), ("b", root, 'fallback = "@app"'), ("spa", root, 'fallback = "/index.html"'),
                                               ("list", root / "list", "listing = true")))
    p = run("-c", "warp.toml", "-e", what, conf="[upstreams.app]\nhost = \"127.0.0.1\"\nport = 1\n" + routes)
    assert p.returncode == 0 and EXPLAINED[what] in p.stdout, p.stdout + p.stderr


@pytest.mark.parametrize("what, says", [
    (["GET /"], "asked first; the answer may be stored"), (["GET /", "-H", "Range: bytes=0-1"], "is not stored"),
    (["POST /"], "the cache is not asked; the answer is not stored"), (["GET /", "-H", "Cache-Control: no-store"], "is not stored"),
    (["GET /", "-H", "Cache-Control: only-if-cached"], "all that is asked"),
])
def test_cache_explained(run, what, says):
    text = '[cache]\nsize_bytes = 1000000\n[upstreams.a]\nhost = "127.0.0.1"\nport = 1\n[[routes]]\npath_prefix = "/"\nupstream = "a"\n'
    p = run("-c", "warp.toml", "-e", *what, conf=text)
    assert p.returncode == 0 and says in p.stdout, p.stdout + p.stderr
    assert "the cache" not in run("-c", "warp.toml", "-e", *what, conf=text.replace("1000000", "0")).stdout


R = '[[routes]]\npath_prefix = "/"\nstatic_dir = "/tmp"\n'


@pytest.mark.parametrize("conf, says", [
    (R + '[mime]\n"tar.gz" = "application/gzip"\n', "never matches"), (R + '[mime]\n"a/b" = "text/plain"\n', "never matches"),
    (R + '[middleware]\ngzip_types = ["text/html; charset=utf-8"]\n', "never matches"),
    (R + '[middleware]\ngzip_types = ["*/*"]\n', "never matches"), (R + '[middleware]\ngzip_types = ["html"]\n', "never matches"),
    (R + "cache = true\n[cache]\nsize_bytes = 1000000\n", "static_dir are not cached"),
    (R + '[middleware]\nx_sendfile_enabled = true\nx_sendfile_root = "/no/such"\n', "/no/such"),
])
def test_what_does_nothing_is_warned_of(check, conf, says):
    p = check(conf)
    assert p.returncode == 0 and re.search("warning:.*" + says, p.stdout + p.stderr), p.stdout + p.stderr


def test_what_does_something_is_not(check):
    p = check(R + 'cache = false\n[mime]\n".gz" = "application/gzip"\n[middleware]\ngzip_types = ["text/*", "*", "a/b"]\n')
    assert p.returncode == 0 and not re.search("never matches|not cached", p.stdout + p.stderr), p.stdout + p.stderr


def test_listing_says_nothing_of_what_is_outside(warp, tmp_path):
    """A link that leads out of the directory is refused; a listing does not show how big and old its end is."""
    root = tmp_path / "www"
    (root / "d").mkdir(parents=True)
    (tmp_path / "secret").write_text("x" * 7654321)
    (root / "d/here").write_text("x" * 123456)
    for name, to in (("out", tmp_path / "secret"), ("out2", "../../secret"), ("outdir", tmp_path), ("in", "here"), ("loop", "loop")):
        os.symlink(to, root / "d" / name)
    m = warp('[[routes]]\npath_prefix = "/"\nstatic_dir = "%s"\nlisting = true\n' % root).ask("/d/")
    assert [href for href, _ in listing(m)] == ["here", "in"] or [href for href, _ in listing(m)] == ["in", "here"]
    assert m.text.count("123456") == 2 and "7654321" not in m.text
