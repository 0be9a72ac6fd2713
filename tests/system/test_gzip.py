"""Compression: of what, for whom, and that what comes out is what went in, at once, in bounded memory.

One warp (`site`) has an application below /app/, which says anything; files below /static/; the same application on a
route that says gzip = false, below /plain/. "choice:" marks what could as well be decided otherwise."""
import os
import random
import socket
import threading
import time
import zlib

import pytest

import lib
import tls as tls_tools
from content import MB, App, Tree, bounded, descriptors, facts, gunzip, gz, plain
from lib import CLOSE, REQ, SLOW, TIMEOUT, Client, Warp, chunks, conf, eventually, reply, request

GZIP = "Accept-Encoding: gzip"
TYPES = ["text/html", "text/plain", "application/json", "text/event-stream"]
WORDS = [("%s%s" % (a, b)).encode() for a in ("re", "un", "pre", "con", "de", "in", "ex", "") for b in
         ("gard", "der", "sist", "vert", "tain", "form", "side", "mit", "press", "ceive")]


def text(n, seed=1):
    """n bytes of words, as compressible as prose; the same again and again after so many."""
    r = random.Random(seed)
    once = b" ".join(r.choice(WORDS) + (b"\n" if r.random() < 0.1 else b"") for _ in range(min(n, 150_000) // 5 + 1))
    return (once * (n // len(once) + 1))[:n]


BODY = text(5000)


def on(*routes, types=TYPES, level=6, least=1000, **kw):
    """A configuration that compresses."""
    middleware = {"gzip_compression_enabled": True, "gzip_min_bytes": least, "gzip_level": level}
    if types is not None:
        middleware["gzip_types"] = types
    return conf(*routes, middleware=middleware, **kw)


class Site:
    def __init__(self, dir, tree, pki):
        self.tree, self.app, self.https, self.ctx = tree, App(), lib.free_port(), tls_tools.context(None)
        config = on(dict(path_prefix="/static/", strip_prefix=True, static_dir=tree.root), dict(path_prefix="/plain/", strip_prefix=True, gzip=False, upstream="app"),
                    dict(path_prefix="/app/"), app=self.app, server={"max_connections": 4000})
        self.w = Warp(tls_tools.site(self.https, pki.cert("a.example"), conf=config, tls={"redirect": False}), (), dir)

    def client(self, scheme="http", **kw):
        return self.w.client(**kw) if scheme == "http" else tls_tools.Client(self.https, self.ctx, **kw)

    def ask(self, raw, *fields, scheme="http", prefix="", **kw):
        """What a client gets when the application says raw."""
        with self.client(scheme) as c:
            return c.ask(prefix + self.app.says(raw), *fields, **kw)


@pytest.fixture(scope="module")
def tree():
    t = Tree()
    t.write("root/long.txt", text(100_000))
    t.write("root/short.txt", b"short")
    t.write("root/pic.png", text(5000))
    t.write("root/big.txt", text(3 * MB))
    t.write("root/near.txt", BODY)
    t.write("root/near.txt.gz", gz(BODY))
    yield t
    t.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory, tree, pki):
    s = Site(tmp_path_factory.mktemp("site"), tree, pki)
    workers = s.w.children()
    yield s
    assert s.w.children() == workers, "a worker went away:\n" + s.w.stderr
    s.w.stop()
    s.app.close()


@pytest.fixture(params=["http", "https"])
def scheme(request):
    return request.param


def html(*fields, body=BODY, **kw):
    return reply(body, "Content-Type: text/html", *fields, **kw)


def chunked(*pieces, fields=("Content-Type: text/html",), **kw):
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + "".join(f + "\r\n" for f in fields).encode() + b"\r\n" + chunks(*[p for p in pieces if p], **kw)


def closing(body, *fields):
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n" + "".join(f + "\r\n" for f in fields).encode() + b"\r\n" + body


def varies(m):
    """Whether caches are told once that Accept-Encoding matters."""
    return m.tokens("Vary").count("accept-encoding") == 1


# ---- what comes ---------------------------------------------------------------------------

@pytest.mark.promise("S2-81")
def test_compressed(site, scheme):
    m = site.ask(html('ETag: "tag"', "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT", "Accept-Ranges: bytes", "X-App: yes", "Set-Cookie: a=1"), GZIP, scheme=scheme)
    assert m.status == 200 and m.all("Content-Encoding") == ["gzip"] and gunzip(m.body) == BODY
    assert len(m.body) < len(BODY) // 2
    assert varies(m) and m.get("ETag") == 'W/"tag"', "another representation: equal in meaning, not in bytes"
    assert m.get("Content-Type") == "text/html" and m.get("X-App") == "yes" and m.get("Set-Cookie") == "a=1"
    assert m.get("Last-Modified") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert not m.has("Accept-Ranges"), "ranges are of the plain one"
    assert m.framing in ("chunked", "length")


ACCEPT = [           # Accept-Encoding, whether gzip comes: True, False, None for either (choice)
    ("gzip", True), ("GZip", True), ("x-gzip", None), ("gzip, deflate, br, zstd", True), ("br, gzip", True), ("deflate, gzip;q=1.0, *;q=0.5", True), ("gzip;q=0.5", True), ("gzip;q=0.001", True),
    ("gzip ;q=1", True), ("gzip; q=1", True), ("gzip;Q=1", True), ("*", True), ("*;q=0.1", True), ("identity, gzip", True), ("identity;q=0.5, gzip;q=0.5", True), ("gzip;q=1.000", True),
    (" , ,gzip,", True), ("identity;q=0, gzip", True), ("identity;q=0.1, gzip;q=0.5", True),
    ("gzip;q=0", False), ("gzip;q=0.0", False), ("gzip;q=0.000", False), ("gzip ; q=0", False), ("*;q=0", False), ("gzip;q=0, *", False), ("br", False), ("deflate", False), ("identity", False), ("", False),
    ("gzipped", False), ("xgzip", False), ("brgzip, de", False), ("gz", False), ("identity;q=1, gzip;q=0.5", False), ("identity, *;q=0", False),
    ("gzip;q=2", None), ("gzip;q=-1", None), ("gzip;q=", None), ("gzip;q=abc", None), ("gzip;q=0.0001", None), ("gzip;level=9", None), ("gzip;q=0;x=1", None), ("*;q=0, gzip", True), ("gzip;q=0, gzip", None),
    ("identity;q=0", None), ("gzip" + ";x=y" * 500, None), ("," * 2000 + "gzip", None),
]


@pytest.mark.parametrize("accept, want", ACCEPT, ids=[a[0][:40] or "empty" for a in ACCEPT])
def test_who_gets_it(site, accept, want):
    m = site.ask(html('ETag: "tag"'), "Accept-Encoding: " + accept)
    assert m.status == 200 and plain(m) == BODY and varies(m)
    if want is not None:
        assert m.has("Content-Encoding") == want
    assert m.get("ETag") == ('W/"tag"' if m.has("Content-Encoding") else '"tag"'), "what is not touched keeps its tag"
    if not m.has("Content-Encoding"):
        assert m.framing == "length"


def test_who_does_not_ask(site, scheme):
    m = site.ask(html(), scheme=scheme)
    assert m.body == BODY and varies(m) and m.framing == "length"


def test_accept_in_two_lines(site):
    assert site.ask(html(), "Accept-Encoding: br", GZIP).has("Content-Encoding")
    assert not site.ask(html(), "Accept-Encoding: br", "Accept-Encoding: gzip;q=0").has("Content-Encoding")


LEFT_ALONE = {       # an answer, and whether it varies (None: choice)
    "a type that is not listed": (reply(BODY, "Content-Type: image/png"), False),
    "no type": (reply(BODY), False),
    "a type that begins like one": (reply(BODY, "Content-Type: text/htmlx"), False),
    "too small": (html(body=BODY[:999]), None),
    "nothing": (html(body=b""), None),
    "gzip already": (html("Content-Encoding: gzip", body=gz(BODY)), None),
    "brotli already": (html("Content-Encoding: br"), None),
    "no-transform": (html("Cache-Control: public, no-transform"), None),
    "No-Transform among others": (html("Cache-Control: public", "Cache-Control: max-age=5,No-Transform"), None),
    "a part": (html("Content-Range: bytes 0-4999/10000", status="206 Partial Content"), None),
    "no content": (b"HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n", None),
    "not modified": (b'HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\nETag: "tag"\r\n\r\n', None),
}


@pytest.mark.parametrize("why", LEFT_ALONE)
def test_left_alone(site, why):
    raw, vary = LEFT_ALONE[why]
    with site.client() as c:
        m = c.ask(site.app.says(raw), GZIP)
        assert m.status == int(raw[9:12]) and m.body == raw.partition(b"\r\n\r\n")[2]
        assert m.all("Content-Encoding") == [v for v in ("gzip", "br") if b"Content-Encoding: " + v.encode() in raw]
        assert m.framing == ("none" if m.status in (204, 304) else "length")
        assert m.get("ETag") in (None, '"tag"', 'W/"tag"')
        assert vary is None or varies(m) == vary
        assert c.ask(site.app.says(html()), GZIP).has("Content-Encoding"), "the next one is not"


def test_client_wants_no_transformation(site):
    """RFC 9111 5.2.1.6. Choice: many ignore it."""
    assert plain(site.ask(html(), GZIP, "Cache-Control: no-transform")) == BODY


@pytest.mark.parametrize("kind", ["text/html;charset=utf-8", "text/html; charset=utf-8", "TEXT/HTML", "Text/Html ; x", "text/plain", "application/json", "application/json; v=1"])
def test_types(site, kind):
    m = site.ask(reply(BODY, "Content-Type: " + kind), GZIP)
    assert m.has("Content-Encoding") and gunzip(m.body) == BODY and m.get("Content-Type") == kind


@pytest.mark.parametrize("kind, want", [("text/html", True), ("text/css", True), ("application/javascript", True), ("text/javascript", True), ("application/json", True), ("image/svg+xml", True),
                                        ("text/plain", True), ("application/xml", True), ("image/png", False), ("image/jpeg", False), ("video/mp4", False), ("application/zip", False), ("font/woff2", False),
                                        ("application/octet-stream", False), ("text/event-stream", None), ("application/wasm", None), ("application/grpc", False)])
def test_types_unless_said(by_default, kind, want):
    """What everybody compresses, and what nobody does."""
    w, app = by_default
    m = w.ask(app.says(reply(BODY, "Content-Type: " + kind)), GZIP)
    assert plain(m) == BODY and (want is None or m.has("Content-Encoding") == want)


@pytest.fixture(scope="module")
def by_default(tmp_path_factory):
    app = App()
    w = Warp(conf(app=app, middleware={"gzip_compression_enabled": True}), (), tmp_path_factory.mktemp("default"))
    yield w, app
    w.stop()
    app.close()


def test_smallest(site, by_default):
    for n, want in ((999, False), (1000, True), (1001, True)):
        assert site.ask(html(body=BODY[:n]), GZIP).has("Content-Encoding") == want
    w, app = by_default
    for n, want in ((1023, False), (1024, True)):
        assert w.ask(app.says(html(body=BODY[:n])), GZIP).has("Content-Encoding") == want


@pytest.mark.parametrize("said, want", [(["Vary: Cookie"], {"cookie", "accept-encoding"}), (["Vary: Accept-Encoding"], {"accept-encoding"}), (["Vary: cookie, ACCEPT-ENCODING"], {"cookie", "accept-encoding"}),
                                        (["Vary: Cookie", "Vary: Origin"], {"cookie", "origin", "accept-encoding"}), (["Vary: *"], None), (["Vary: Accept-Encoding-X"], {"accept-encoding-x", "accept-encoding"})])
@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_vary(site, said, want, accept):
    m = site.ask(html(*said), "Accept-Encoding: " + accept)
    got = m.tokens("Vary")
    assert set(got) == want and len(got) == len(set(got)) if want else "*" in got


@pytest.mark.parametrize("said, want", [('ETag: "a"', 'W/"a"'), ('ETag: W/"a"', 'W/"a"'), ('ETag: ""', 'W/""'), ("X-None: 1", None)])
def test_tags(site, said, want):
    assert site.ask(html(said), GZIP).get("ETag") == want


def test_tag_comes_back(warp, backend):
    """What the application is asked for with the weak tag, it compares weakly: 304."""
    got = []

    def app(c):
        while True:
            got.append(c.request().get("If-None-Match"))
            c.send(b'HTTP/1.1 304 Not Modified\r\nETag: "tag"\r\n\r\n' if got[-1] else html('ETag: "tag"'))
    w = warp(on(app=backend([app])))
    with w.client() as c:
        tag = c.ask("/", GZIP).get("ETag")
        m = c.ask("/", GZIP, "If-None-Match: " + tag)
        assert m.status == 304 and m.get("ETag") in ('"tag"', 'W/"tag"') and not m.body and not m.has("Content-Encoding")
        assert got == [None, 'W/"tag"']
        assert gunzip(c.ask("/", GZIP).body) == BODY


@pytest.mark.parametrize("raw", [html('ETag: "tag"'), html(body=BODY[:10]), chunked(BODY), closing(BODY), reply(BODY, "Content-Type: image/png"), html("Content-Encoding: br")],
                         ids=["length", "small", "chunked", "close", "png", "br"])
@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_head_says_what_get_would(site, scheme, raw, accept):
    target = site.app.says(raw)
    framing = ("content-length", "transfer-encoding")
    with site.client(scheme) as c:
        get = c.ask(target, "Accept-Encoding: " + accept)
    with site.client(scheme) as c:
        head = c.ask(target, "Accept-Encoding: " + accept, method="HEAD")
        assert facts(head, *framing) == facts(get, *framing)
        if head.has("Content-Length"):
            assert head.get("Content-Length") == get.get("Content-Length", "?"), "the length of what does not come would be wrong"
        if "close" not in head.tokens("Connection"):
            assert c.ask(site.app.says(reply("next"))).text == "next"


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "404 Not Found", "403 Forbidden", "500 Oops", "503 Busy", "299 Odd"])
def test_statuses(site, status):
    m = site.ask(html(status=status), GZIP)
    assert m.status == int(status[:3]) and plain(m) == BODY
    if status in ("200 OK", "404 Not Found"):                    # choice: the others
        assert m.has("Content-Encoding")


def test_methods(site):
    m = site.ask(html(), GZIP, method="POST", body=b"x" * 1000)
    assert plain(m) == BODY


@pytest.mark.parametrize("raw", [html(), chunked(BODY), closing(BODY)], ids=["length", "chunked", "close"])
def test_http_1_0(site, scheme, raw):
    """Choice: compressed or not. No chunks, and the end is seen."""
    for fields in ((GZIP,), (GZIP, "Connection: keep-alive")):
        with site.client(scheme) as c:
            m = c.ask(site.app.says(raw), *fields, version="1.0")
            assert plain(m) == BODY and m.framing in ("length", "close")


def test_route_says_no(site):
    m = site.ask(html('ETag: "tag"'), GZIP, prefix="/plain")
    assert m.body == BODY and m.get("ETag") == '"tag"' and not m.has("Vary")


@pytest.mark.parametrize("middleware, route, want", [({}, {}, False), ({"gzip_compression_enabled": False}, {}, False), ({"gzip_compression_enabled": False}, {"gzip": True}, True), ({}, {"gzip": True}, True),
                                                     ({"gzip_compression_enabled": True}, {"gzip": False}, False), ({"gzip_compression_enabled": True}, {"gzip": True}, True)])
@pytest.mark.promise("S2-81")
def test_on_and_off(warp, tree, middleware, route, want):
    """The route's word, else that of [middleware], else no."""
    app = App()
    w = warp(conf(dict(path_prefix="/static/", strip_prefix=True, static_dir=tree.root, **route), dict(path_prefix="/", upstream="app", **route), middleware=middleware, app=app))
    for target in (app.says(html('ETag: "tag"')), "/static/long.txt"):
        m = w.ask(target, GZIP)
        assert m.status == 200 and m.has("Content-Encoding") == want and m.get("ETag").startswith("W/") == want and varies(m) == want
    app.close()


@pytest.mark.parametrize("vary", ["Origin", "Origin, accept-encoding"])
def test_vary_of_the_route(warp, tree, vary):
    """CORS needs a Vary of the route's own, which caches do not pay for with bytes that they cannot read."""
    app = App()
    own = {"gzip": True, "add_response_headers": [{"name": "Vary", "value": vary}]}
    w = warp(conf(dict(path_prefix="/near/", strip_prefix=True, static_dir=tree.root, **{**own, "gzip": False}),
                  dict(path_prefix="/static/", strip_prefix=True, static_dir=tree.root, **own), dict(path_prefix="/", upstream="app", **own), app=app))
    for target in (app.says(html("Vary: Cookie")), "/static/long.txt", "/near/near.txt"):
        for m in w.ask(target, GZIP), w.ask(target):
            assert sorted(m.tokens("Vary")) == ["accept-encoding", "origin"], target
    assert w.ask("/static/pic.png").tokens("Vary") == vary.lower().split(", ")
    w = warp(conf(dict(own, remove_response_headers=["Vary"]), app=app))
    assert w.ask(app.says(html("Vary: Cookie"))).tokens("Vary") == vary.lower().split(", ")
    app.close()


def test_the_app_may_do_it(site):
    """Accept-Encoding reaches the application; what it has coded passes, and is not coded twice."""
    m = site.ask(html("Content-Encoding: gzip", 'ETag: "own"', "Vary: Accept-Encoding", body=gz(BODY)), "Accept-Encoding: gzip, br")
    assert gunzip(m.body) == BODY and m.get("ETag") == '"own"' and varies(m)
    assert site.app.last.get("Accept-Encoding") in ("gzip, br", None)


# ---- files -----------------------------------------------------------------------------------

def test_files(site, scheme):
    with site.client(scheme) as c:
        want = site.tree.read("root/long.txt")
        m, p = c.ask("/static/long.txt", GZIP), c.ask("/static/long.txt")
        assert gunzip(m.body) == want == p.body
        assert varies(m) and varies(p) and m.get("ETag") == "W/" + p.get("ETag") and m.get("Last-Modified") == p.get("Last-Modified")
        assert len(m.body) < len(want) // 2
        for name in ("short.txt", "pic.png"):
            q = c.ask("/static/" + name, GZIP)
            assert not q.has("Content-Encoding") and q.body == site.tree.read("root/" + name) and not q.get("ETag").startswith("W/")


def test_neighbour_is_taken(site):
    m = site.w.ask("/static/near.txt", GZIP)
    assert m.body == site.tree.read("root/near.txt.gz"), "as it is on the disk, not made anew"
    assert m.get("ETag").startswith('"') and m.framing == "length"


def test_conditions_of_files(site):
    with site.client() as c:
        weak, strong = c.ask("/static/long.txt", GZIP).get("ETag"), c.ask("/static/long.txt").get("ETag")
        for tag in (weak, strong):
            m = c.ask("/static/long.txt", GZIP, "If-None-Match: " + tag)
            assert m.status == 304 and varies(m) and m.get("ETag") in (weak, strong) and not m.has("Content-Encoding")
            assert c.ask("/static/long.txt", "If-None-Match: " + tag).status == 304
        assert c.ask("/static/long.txt", GZIP, "If-Modified-Since: " + c.ask("/static/long.txt").get("Last-Modified")).status == 304


def test_conditions_that_fail_of_files(site):
    weak = site.w.ask("/static/long.txt", GZIP).get("ETag")
    assert site.w.ask("/static/long.txt", GZIP, "If-Match: " + weak).status == 412, "weak tags match nothing strongly"
    assert gunzip(site.w.ask("/static/long.txt", GZIP, 'If-None-Match: "x"').body) == site.tree.read("root/long.txt")


def test_ranges_of_files(site):
    """Ranges are of the plain one, under its strong tag."""
    want = site.tree.read("root/long.txt")
    weak, strong = site.w.ask("/static/long.txt", GZIP).get("ETag"), site.w.ask("/static/long.txt").get("ETag")
    m = site.w.ask("/static/long.txt", GZIP, "Range: bytes=10-19")
    assert (m.status, m.body, m.get("ETag")) == (206, want[10:20], strong) and not m.has("Content-Encoding")
    m = site.w.ask("/static/long.txt", GZIP, "Range: bytes=10-19,50000-50009")
    assert m.status == 206 and m.get("Content-Type").startswith("multipart/byteranges") and not m.has("Content-Encoding")
    m = site.w.ask("/static/long.txt", GZIP, "Range: bytes=10-19", "If-Range: " + weak)
    assert m.status == 200 and plain(m) == want
    assert site.w.ask("/static/long.txt", GZIP, "Range: bytes=10-19", "If-Range: " + strong).status == 206


# ---- byte for byte -------------------------------------------------------------------------------

def odd_bodies():
    """What finds mistakes in a deflate: windows, runs, codes of every length."""
    r = random.Random(7)
    yield "zeros", bytes(300_000)
    yield "random", r.randbytes(300_000)
    yield "every byte", bytes(range(256)) * 40
    yield "a run of each length", b"".join(bytes([n % 251]) * n for n in range(1, 600))
    yield "runs of 257 to 260", b"".join(b"a" * n + b"b" for n in (257, 258, 259, 260, 516, 517, 518)) * 20
    for d in (32766, 32767, 32768, 32769, 16384, 65535, 65536):
        block = r.randbytes(400)
        yield "distance %d" % d, block + bytes(r.choices(b"xyz", k=d - 400)) + block + block[:200]
    yield "two symbols", bytes(r.choices(b"ab", k=100_000))
    yield "one symbol", b"a" * 100_000
    fib = [1, 1]
    while sum(fib) < 200_000:
        fib.append(fib[-1] + fib[-2])
    skewed = bytearray(b"".join(bytes([i]) * n for i, n in enumerate(fib)))
    r.shuffle(skewed)
    yield "codes longer than 15 bits", bytes(skewed)
    yield "random, then text, then random", r.randbytes(20_000) + text(50_000) + r.randbytes(20_000)
    yield "lines that differ a little", b"".join(b"2023-11-14 22:13:%02d host-%d GET /path/%d 200\n" % (i % 60, i % 7, i) for i in range(5000))
    yield "three bytes", (b"abc" * 400) + b"ab"


ODD = dict(odd_bodies())


@pytest.mark.parametrize("name", ODD)
def test_byte_for_byte(site, name):
    body = ODD[name]
    with site.client() as c:
        m = c.ask(site.app.says(html(body=body)), GZIP)
        assert plain(m) == body and m.has("Content-Encoding")
        assert len(m.body) < len(body) * 1.01 + 100, "what does not compress does not grow"
        r = random.Random(3)
        pieces, rest = [], body
        while rest:
            n = r.choice((1, 2, 3, 10, 257, 4095, 4096, 16384, 16385, 40000))
            pieces.append(rest[:n])
            rest = rest[n:]
        m = c.ask(site.app.says(chunked(*pieces)), GZIP)
        assert plain(m) == body


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 257, 258, 259, 4095, 4096, 4097, 16383, 16384, 16385, 32767, 32768, 32769, 65535, 65536, 65537, 200_000])
def test_sizes(site, scheme, n):
    """Every way to frame it."""
    body = text(n + 10, n)[:n]
    with site.client(scheme) as c:
        for raw in (chunked(body), html(body=body), chunked(*[body[i:i + 1000] for i in range(0, n, 1000)]), closing(body)):
            assert plain(c.ask(site.app.says(raw), GZIP)) == body


def test_big_body(site, scheme):
    """Twenty megabytes in one go, memory bounded."""
    body = (text(MB) + random.Random(1).randbytes(MB // 4)) * 16
    with bounded(site.w, 4 * MB), site.client(scheme) as c:
        m = c.ask(site.app.says(html(body=body)), GZIP, timeout=5 * TIMEOUT)
        assert gunzip(m.body) == body


@pytest.mark.parametrize("name", ["warp.c", "man/warp.toml.5", "words", "log"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_as_small_as_zlib(site, name, framing):
    """100 KB of text at level 6: at most 5 % more than zlib -6 makes of it."""
    if name == "log":
        body = ODD["lines that differ a little"][:100_000]
    elif name == "words":
        body = text(100_000)
    else:
        with open(os.path.join(lib.ROOT, name), "rb") as f:
            body = f.read(100_000)
    pieces = [body[i:i + 16384] for i in range(0, len(body), 16384)]
    got, want = len(site.ask(html(body=body) if framing == "length" else chunked(*pieces), GZIP).body), len(zlib.compress(body, 6))
    more = 1.05 if name in ("warp.c", "man/warp.toml.5") else 1.15         # choice: made-up text is no text
    assert got < want * more + 30, "%d bytes, zlib %d: %+.1f %%" % (got, want, 100 * got / want - 100)


@pytest.mark.parametrize("level", [1, 2, 6, 9])
def test_levels(warp, level):
    app = App()
    w = warp(on(app=app, level=level))
    body = text(200_000)
    m = w.ask(app.says(html(body=body)), GZIP)
    assert gunzip(m.body) == body and len(m.body) < len(body) * 0.6
    app.close()


@pytest.mark.parametrize("keys, says", [('gzip_level = 0', "gzip_level"), ('gzip_level = 10', "gzip_level"), ('gzip_min_bytes = -1', "gzip_min_bytes"), ('gzip_types = "text/html"', "gzip_types"),
                                        ('gzip_compression_enabled = 1', "gzip_compression_enabled")])
def test_configurations_that_are_refused(check, keys, says):
    p = check('[upstreams.x]\nport = 1\n[[routes]]\nupstream = "x"\n[middleware]\n%s\n' % keys)
    assert p.returncode == 1 and says in p.stdout + p.stderr


def test_trailers(site):
    """They pass, or not, as without compression; the body is whole."""
    with site.client() as c:
        target = site.app.says(chunked(BODY, BODY, trailers=("X-Sum: 1",)))
        m, p = c.ask(target, GZIP), c.ask(target)
        assert plain(m) == BODY * 2 and m.has("Content-Encoding") and m.trailers == p.trailers


def test_one_connection(site, scheme):
    """Compressed and not, in turn, pipelined."""
    with site.client(scheme) as c:
        asked = []
        for i in range(60):
            body = text(1500 + i * 37, i)
            asked.append((site.app.says(html(body=body) if i % 3 else chunked(body[:700], body[700:])), body))
        c.send(b"".join(request(t, *([GZIP] if i % 2 else [])) for i, (t, _) in enumerate(asked)))
        for i, (_, body) in enumerate(asked):
            m = c.response()
            assert plain(m) == body and m.has("Content-Encoding") == bool(i % 2)


# ---- as it comes -----------------------------------------------------------------------------------

def decoded(c, m, until, timeout):
    """Reads chunks of answer m from c until what they hold ends like this."""
    m.coded = getattr(m, "coded", None) or zlib.decompressobj(31)
    m.seen = getattr(m, "seen", b"")
    end = time.monotonic() + timeout
    while not m.seen.endswith(until):
        left = end - time.monotonic()
        assert left > 0, "only %r" % m.seen[-100:]
        if m.has("Transfer-Encoding"):
            n = int(c.until(b"\r\n", left).split(b";")[0], 16)
            data = c.exactly(n + 2, left)[:-2]
        else:
            data = c.buf or (c.fill(left) and c.buf)
            c.buf = b""
        m.seen += m.coded.decompress(data)
    return m.seen


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_pauses_are_flushed(site, warp, backend, kind, framing, version):
    """Each event is there within 100 ms, before the next is made."""
    tick = threading.Semaphore(0)
    event = lambda i: b"data: %d %s\n\n" % (i, b"x" * (i * 300))
    total = sum(len(event(i)) for i in range(6))

    def events(c):
        head = {"chunked": b"Transfer-Encoding: chunked", "close": b"Connection: close", "length": b"Content-Length: %d" % total}[framing]
        c.send(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n" % (kind.encode(), head))
        for i in range(6):
            if not tick.acquire(timeout=TIMEOUT):
                return
            c.send(chunks(event(i), last=False) if framing == "chunked" else event(i))
        if framing == "chunked":
            c.send(chunks())
        c.sock.shutdown(socket.SHUT_WR)
    w = warp(on(app=backend([REQ, events])))
    with w.client() as c:
        c.send(request("/", GZIP, version=version))
        m = c.head(TIMEOUT)
        if not m.has("Content-Encoding"):
            assert version == "1.0", "choice"
            return
        for i in range(6):
            tick.release()
            started = time.monotonic()
            decoded(c, m, event(i), TIMEOUT)
            assert time.monotonic() - started < 0.1 * SLOW + 0.02
        rest = c.until(b"0\r\n\r\n", TIMEOUT) if m.has("Transfer-Encoding") else c.rest(TIMEOUT)
        assert len(rest) < 60


def test_many_small_pieces(warp, backend):
    """A stream that trickles costs little more than its bytes: 2000 pieces of 20 bytes that come as fast as they can."""
    pieces = [b"%019d\n" % i for i in range(2000)]
    w = warp(on(app=backend([REQ, chunked(*pieces)])))
    m = w.ask("/", GZIP)
    assert gunzip(m.body) == b"".join(pieces) and len(m.body) < 20_000


def test_slow_reader_stops_the_backend(warp, backend):
    """Back pressure through the compressor, memory bounded, and all arrives."""
    sent, n, piece = [0], 40 * MB, random.Random(5).randbytes(MB)

    def flood(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % n)
        while sent[0] < n:
            sent[0] += c.sock.send(memoryview(piece)[sent[0] % MB:])
    w = warp(on(app=backend([REQ, flood])))
    with bounded(w), Client(w.port, rcvbuf=65536) as c:
        c.send(request("/", GZIP))
        m = c.head(TIMEOUT)
        before = -1
        while sent[0] != before:
            before = sent[0]
            time.sleep(0.3)
        assert sent[0] < 25 * MB, "%d MB went" % (sent[0] >> 20)
        c.body(m, timeout=4 * TIMEOUT)
        assert gunzip(m.body) == piece * 40


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_cut_in_the_middle(warp, backend, framing):
    """What the application did not end looks to nobody as if it were whole."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    raw = head + (b"Transfer-Encoding: chunked\r\n\r\n" + chunks(BODY * 20, last=False) if framing == "chunked" else b"Content-Length: 200000\r\n\r\n" + BODY * 20)
    w = warp(on(app=backend([REQ, raw, CLOSE])))
    with w.client() as c:
        c.send(request("/", GZIP))
        with pytest.raises((EOFError, ConnectionError)):
            c.response()


def test_clients_that_go_away(site):
    """Streams that were left are given back: the next ones are compressed."""
    target, before = site.app.says(html(body=text(3 * MB))), descriptors(site.w)
    for i in range(300):
        c = Client(site.w.port, rcvbuf=4096)
        c.send(request(target, GZIP))
        if i % 3 == 0:
            c.head(TIMEOUT)
        c.rst() if i % 2 else c.close()
    eventually(lambda: descriptors(site.w) <= before + 60, "descriptors given back", 3 * TIMEOUT)
    for _ in range(20):
        m = site.ask(html(), GZIP)
        assert m.has("Content-Encoding") and gunzip(m.body) == BODY


@pytest.mark.limit(60)
def test_a_thousand_at_once(warp, backend):
    """Beyond the bound of streams answers come as they are; all are whole, and memory is bounded."""
    n, gate = 1000, threading.Event()
    first, second = text(3000, 1), text(3000, 2)

    def app(c):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6000\r\n\r\n" + first)
        gate.wait(60)
        c.send(second)
    w = warp(on(app={"on": backend([REQ, app, REQ, html()], backlog=2000), "retries": 0}, server={"max_connections": 3000}))
    clients = []
    try:
        with bounded(w, 48 * MB):
            for i in range(n):
                c = w.client()
                clients.append((c, None))
                c.send(request("/", GZIP))
            coded = 0
            for i, (c, _) in enumerate(clients):
                m = c.head(4 * TIMEOUT)
                assert m.status == 200 and varies(m)
                coded += m.has("Content-Encoding")
                clients[i] = (c, m)
            gate.set()
            for c, m in clients:
                assert plain(c.body(m, timeout=4 * TIMEOUT)) == first + second
        assert coded > 0
        print("%d of %d were compressed" % (coded, n))
    finally:
        gate.set()
        for c, _ in clients:
            c.close()
    m = w.ask("/after", GZIP)
    assert m.has("Content-Encoding"), "the bound is of those at one time"


def test_others_are_not_held_up(site):
    """While big bodies are compressed, small answers come in time."""
    target, small = site.app.says(html(body=text(8 * MB))), site.app.says(reply("small"))
    stop, errors = threading.Event(), []

    def load():
        try:
            while not stop.is_set():
                with site.client() as c:
                    assert len(c.ask(target, GZIP, timeout=4 * TIMEOUT).body)
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=load) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        took = []
        with site.client() as c:
            for _ in range(100):
                started = time.monotonic()
                assert c.ask(small).text == "small"
                took.append(time.monotonic() - started)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not errors and sorted(took)[90] < 0.25 * SLOW, sorted(took)[-10:]      # this process is busy itself


def test_two_workers(warp):
    app = App()
    w = warp(on(app=app, server={"worker_threads": 2}))
    target = app.says(html(body=text(50_000)))
    for _ in range(20):
        assert gunzip(w.ask(target, GZIP).body) == text(50_000)
    app.close()


def test_reload_in_a_stream(warp, backend):
    """A stream that has begun compressed goes on so, though the new configuration says no."""
    gate = threading.Event()

    def forever(c):
        while True:
            c.request()
            c.send(html())
    b = backend([REQ, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10000\r\n\r\n" + BODY, lib.WAIT(gate), BODY], [forever])
    w = warp(on(app=b))
    with w.client() as c:
        c.send(request("/", GZIP))
        m = c.head(TIMEOUT)
        assert m.has("Content-Encoding")
        decoded(c, m, BODY[-100:], TIMEOUT)
        w.write(conf(app=b, middleware={"gzip_compression_enabled": False}))
        w.signal(lib.signal.SIGHUP)
        eventually(lambda: not w.ask("/", GZIP).has("Content-Encoding"), "the new configuration")
        gate.set()
        assert decoded(c, m, BODY * 2, TIMEOUT) == BODY * 2
