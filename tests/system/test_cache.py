"""The cache: RFC 9111 for a shared cache, one fetch for many, purges, poisoning, its memory, what kills it."""
import os
import random
import re
import signal
import threading
import time

import pytest

import caching
import lib
from caching import (LATER, MB, Origin, admin, after, answers, cache_conf, content, crowd, date, fetched, figure, figures, fill,
                     hit, holders, in_turn, post_purge, purge, raw, said, says, stop_reading)
from lib import CLOSE, RST, SLOW, TIMEOUT, Client, chunks, eventually, reply, request, toml_file

pytestmark = pytest.mark.skipif(not caching.supported(), reason="this warp has no cache")
MINUTE = "Cache-Control: max-age=60"


@pytest.fixture
def cached(warp, backend):
    """cached(*routes, workers=, size=, KEY OF [cache]=...) -> a warp with a cache, and its origin."""
    def start(*routes, origin=None, **kw):
        o = origin or Origin(backend)
        w = warp(toml_file(cache_conf(o, *routes, **kw)))
        w.o = o
        return w, o
    return start


# ---- what is fresh ------------------------------------------------------------------

FRESH = [  # fields, served from the cache at once, and after more than a second
    ((MINUTE,), 1, 1),
    (("Cache-Control: s-maxage=60, max-age=0",), 1, 1),
    (("Cache-Control: max-age=60, s-maxage=0",), 0, 0),
    (("Cache-Control: s-maxage=2, max-age=60", "Age: 1"), None, 0),
    (("Cache-Control: max-age=1",), None, 0),
    (("Cache-Control: MAX-AGE=60",), 1, 1),
    (("Cache-Control: public", "Cache-Control: max-age=60"), 1, 1),
    (("Cache-Control: foo=\"max-age=0\", max-age=60",), 1, 1),
    (("Cache-Control: foo=bar,, ,max-age=60",), 1, 1),
    (("Cache-Control: max-age=99999999999999999999",), 1, 1),
    (("Cache-Control: max-age=0",), 0, 0),
    (("Cache-Control: max-age=-1",), 0, 0),
    (("Cache-Control: max-age=abc",), 0, 0),
    (("Cache-Control: xmax-age=60",), 0, 0),
    (("Cache-Control: public",), 0, 0),
    ((), 0, 0),
    (("Last-Modified: " + date(-864000),), 0, 0),
    (("Expires: @60", "Date: @0"), 1, 1),
    (("Expires: @1", "Date: @0"), None, 0),
    (("Expires: @0", "Date: @0"), 0, 0),
    (("Expires: @-60", "Date: @0"), 0, 0),
    (("Expires: 0",), 0, 0),
    (("Expires: soon",), 0, 0),
    (("Expires: @60", "Date: @0", "Cache-Control: max-age=0"), 0, 0),
    (("Expires: @-60", "Date: @0", MINUTE), 1, 1),
    (("Cache-Control: max-age=60", "Age: 30"), 1, 1),
    (("Cache-Control: max-age=60", "Age: 59"), None, 0),
    (("Cache-Control: max-age=60", "Age: 60"), 0, 0),
    (("Cache-Control: max-age=60", "Age: 99999999999999999999"), 0, 0),
    (("Cache-Control: max-age=60", "Date: @-100"), 0, 0),
    (("Cache-Control: max-age=60", "Date: @100"), 1, 1),
    (("Cache-Control: no-store, max-age=60",), 0, 0),
    (("Cache-Control: max-age=60, No-Store",), 0, 0),
    (("Cache-Control: private, max-age=60",), 0, 0),
    (("Cache-Control: no-cache, max-age=60",), 0, 0),
    (("Cache-Control: immutable, max-age=60",), 1, 1),
    ((MINUTE, "Set-Cookie: a=b"), 0, 0),
    (("Cache-Control: public, s-maxage=60", "Set-Cookie: a=b"), 0, 0),
    ((MINUTE, "Vary: *"), 0, 0),
    ((MINUTE, "Vary: Accept, *"), 0, 0),
    (("CDN-Cache-Control: max-age=60", "Cache-Control: no-store"), 1, 1),
    (("CDN-Cache-Control: no-store", MINUTE), 0, 0),
    (("CDN-Cache-Control: private", MINUTE), 0, 0),
    (("CDN-Cache-Control: max-age=0", MINUTE), 0, 0),
    (("CDN-Cache-Control: max-age=1", MINUTE), None, 0),
    (("CDN-Cache-Control: max-age=60", "Expires: @-60"), 1, 1),
]


def test_freshness(cached):
    w, o = cached()
    for i, (fields, _, _) in enumerate(FRESH):
        made = [re.sub(r"@(-?\d+)", lambda m: date(int(m[1])), f) for f in fields]
        o.page("/%d" % i, says(*made))
        first = w.ask("/%d" % i)
        assert fetched(first) and first.text == "/%d 1" % i
    wrong = []
    for when in (1, 2):
        for i, row in enumerate(FRESH):
            n = o.count("/%d" % i)
            m = w.ask("/%d" % i)
            from_cache = o.count("/%d" % i) == n
            assert from_cache == (said(m) in ("HIT", "STALE"))
            if row[when] is not None and (hit(m) is not bool(row[when])):
                wrong.append(("later" if when == 2 else "at once", row[0], said(m)))
            if when == 1 and fetched(m) and row[1]:
                wrong.append(("fetched", row[0]))
        if when == 1:
            time.sleep(LATER)
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("status, cacheable", [
    ("200 OK", 1), ("203 X", 1), ("204 No Content", 1), ("301 Moved", 1), ("308 Moved", 1), ("404 Not Found", 1), ("410 Gone", 1),
    ("206 Partial Content", 0), ("304 Not Modified", 0)])
def test_statuses(cached, status, cacheable):
    w, o = cached()
    more = ["Content-Range: bytes 0-3/10"] if status[:3] == "206" else ["Location: /y"] if status[:2] == "30" else []
    o.page("/x", says(MINUTE, *more, status=status))
    first = w.ask("/x")
    m = w.ask("/x")
    assert first.status == m.status == int(status[:3]) and hit(m) is bool(cacheable)
    if cacheable:
        assert m.body == first.body and m.get("location") == first.get("location") and o.count("/x") == 1
        assert status[:3] != "204" or not m.has("content-length") and not m.has("transfer-encoding")


def test_default_ttl(cached):
    w, o = cached(default_ttl_secs=60)
    pages = {"/plain": says(), "/cookie": says("Set-Cookie: a=b"), "/no-store": says("Cache-Control: no-store"),
             "/private": says("Cache-Control: private"), "/no-cache": says("Cache-Control: no-cache"),
             "/expired": says("Expires: 0"), "/0": says("Cache-Control: max-age=0"), "/302": says("Location: /", status="302 Found"),
             "/500": says(status="500 Oh"), "/503": says(status="503 Oh"), "/400": says(status="400 Bad"),
             "/431": says(status="431 Big"), "/vary": says("Vary: *"), "/auth": says()}
    for path, page in pages.items():
        o.page(path, page)
        for _ in range(2):
            w.ask(path, *(["Authorization: Basic eDp5"] if path == "/auth" else []))
    assert {p for p in pages if o.count(p) == 1} == {"/plain"}


# ---- Age, Date, and which fields are kept -----------------------------------------------

def test_age_is_made_and_added_up(cached):
    w, o = cached()
    o.page("/new", says(MINUTE, "Date: " + date()))
    o.page("/old", says(MINUTE, "Age: 30"))
    o.page("/late", says(MINUTE, "Date: " + date(-20)))
    o.page("/chunked", says(MINUTE, chunked=True))
    for t in ("/new", "/old", "/late", "/chunked"):
        assert w.ask(t).all("age") == (["30"] if t == "/old" else []), "who asked the origin has no Age but its own"
    assert len(w.ask("/old").all("age")) == 1
    time.sleep(LATER)
    for t, least in (("/new", 1), ("/old", 31), ("/late", 21)):
        m = w.ask(t)
        assert hit(m) and len(m.all("age")) == 1 and least <= int(m.get("age")) <= least + 2 * SLOW + 1, (t, m.all("age"))


def test_fields_of_a_hit(cached):
    """What is kept: all, in order, Date too; what is of one connection, and what warp says itself, is not."""
    w, o = cached()
    when = date(-3)
    o.page("/x", says(MINUTE, "Date: " + when, "Link: <a>", "Link: <b>", "Content-Type: text/x", "Content-Encoding: br",
                      "X-Empty: ", "ETag: \"e\"", "Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=1",
                      "Proxy-Authenticate: Basic", "Upgrade: foo", "X-Cache: HIT"))
    first, m = w.ask("/x"), w.ask("/x")
    assert fetched(first) and hit(m) and len(m.all("x-cache")) == 1
    assert m.get("date") == when and m.all("link") == ["<a>", "<b>"] and m.get("content-type") == "text/x"
    assert m.get("content-encoding") == "br" and m.all("x-empty") == [""] and m.get("etag") == '"e"'
    assert not [n for n in ("x-hop", "keep-alive", "proxy-authenticate", "upgrade") if m.has(n)]
    assert "X-Hop" not in str(m.fields)
    skip = {"age", "x-cache", "connection"}
    kept = lambda m: [(n, v) for n, v in m.fields if n.lower() not in skip]
    assert sorted(kept(first)) == sorted(kept(m))


def test_private_and_no_cache_with_fields(cached):
    """Only these fields may not be reused: they are left out, or the origin is asked. Whom they are meant for gets them."""
    w, o = cached()
    o.page("/p", says('Cache-Control: max-age=60, private="X-Me"', "X-Me: anna", "X-All: 1"))
    o.page("/n", says('Cache-Control: max-age=60, no-cache="X-Me, X-You"', "X-Me: anna", "X-You: bert", "X-All: 1"))
    o.page("/c", says('Cache-Control: max-age=60, no-cache="Set-Cookie"', "Set-Cookie: id=anna", "X-All: 1", chunked=True))
    o.page("/l", says('Cache-Control: max-age=60, no-cache="Set-Cookie"', "Set-Cookie: id=anna", "X-All: 1"))
    for t in ("/p", "/n", "/c", "/l"):
        first = w.ask(t)
        assert t in "/c/l" and first.get("set-cookie") == "id=anna" or t in "/p/n" and first.get("x-me") == "anna", t
        m = w.ask(t)
        assert fetched(first) and not m.has("set-cookie")
        assert not hit(m) or not m.has("x-me") and not m.has("x-you") and m.get("x-all") == "1"


def test_early_hints_are_not_stored(cached):
    w, o = cached()
    o.page("/x", lambda c, m, n: c.send(b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" + reply("x", MINUTE)))
    first, m = w.ask("/x"), w.ask("/x")
    assert len(first.interim) == 1 and hit(m) and not m.interim and not m.has("x-early")


# ---- bodies ------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 100, 16383, 16384, 16385, 65536, 300000, 2000000])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_bodies(cached, size, how):
    w, o = cached(size=16 * MB)
    o.page("/x", says(MINUTE, body=content("x", size), chunked=how == "chunked", trailers=("X-Trailer: 1",)))
    with w.client() as c:
        first = c.ask("/x")
        got = [c.ask("/x") for _ in range(3)]
    assert first.body == content("x", size) and o.count("/x") == 1
    for m in got:
        assert hit(m) and m.body == first.body and not m.trailers and not m.has("trailer")


def test_chunks_and_trailers_of_many_shapes(cached):
    w, o = cached()
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n" + MINUTE.encode() + b"\r\n\r\n",
                     b"1;ext=\"a\"\r\na\r\n", chunks(b"b" * 5000, b"c", trailers=["X-T: 1", "X-U: 2"]), last=None))
    assert w.ask("/x").body == (b"a" + b"b" * 5000 + b"c")
    m = w.ask("/x")
    assert hit(m) and m.body == (b"a" + b"b" * 5000 + b"c") and not m.trailers and not m.has("x-t")


def test_http_1_0_client(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, chunked=True, body=b"hello"))
    w.ask("/x")
    with w.client() as c:
        m = c.ask("/x", version="1.0")
        assert hit(m) and m.body == b"hello" and m.framing in ("length", "close") and not m.has("transfer-encoding")
    with w.client() as c:
        m = c.ask("/x", "Connection: keep-alive", version="1.0")
        assert "keep-alive" not in m.tokens("connection") or c.ask("/x", "Connection: keep-alive", version="1.0").body == b"hello"


def test_http_1_0_origin(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, version="1.0"))
    assert w.ask("/x").text == "/x 1"
    m = w.ask("/x")
    assert hit(m) and m.text == "/x 1"


def test_pipelined_and_kept(cached):
    """Hits and misses on one connection, in order."""
    w, o = cached()
    fill(w, "/a")
    with w.client() as c:
        for t in ("/a", "/m1", "/a", "/m2", "/a", "/a"):
            c.send(request(t))
        got = [c.response() for _ in range(6)]
        assert [m.text for m in got] == ["/a 1", "/m1 1", "/a 1", "/m2 1", "/a 1", "/a 1"]
        assert [hit(m) for m in got] == [True, False, True, False, True, True]
        for _ in range(200):
            assert hit(c.ask("/a"))
    assert o.count("/a") == 1


def test_tls(https, backend, pki):
    o = Origin(backend)
    size = 100000
    o.page("/x", says(MINUTE, body=lambda m, n: content(m.get("x-forwarded-proto"), size)))
    w = https(pki.cert("a.example"), conf=cache_conf(o), tls={"redirect": False})
    for _ in range(2):
        with w.tls() as c:
            m = c.ask("/x")
            assert m.body == content("https", size)
            again = c.ask("/x")
            assert hit(again) and again.body == m.body
        assert w.ask("/x").body == content("http", size), "another scheme is another key"
    assert o.count("/x") == 2


# ---- Vary ----------------------------------------------------------------------------------

def test_vary(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, "Vary: X-Lang", body=lambda m, n: m.get("x-lang", "none")))
    kinds = [["X-Lang: de"], ["X-Lang: fr"], [], ["X-Lang: d"], ["X-Lang: de, fr"]]
    for turn in range(3):
        for k in kinds:
            m = w.ask("/x", *k)
            assert m.text == (k[0][8:] if k else "none") and hit(m) is (turn > 0), (turn, k)
    assert o.count("/x") == len(kinds)
    assert hit(w.ask("/x", "x-lang: de", "X-Other: 1"))


def test_vary_on_two(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, "Vary: X-A", "vary: x-b,X-C", body=lambda m, n: " ".join(m.get(k, "-") for k in ("x-a", "x-b", "x-c"))))
    sets = [(), ("X-A: 1",), ("X-B: 1",), ("X-C: 1",), ("X-A: 1", "X-B: 1"), ("X-A: 1", "X-B: 1", "X-C: 1"), ("X-A: 11",)]
    for turn in range(2):
        for s in sets:
            m = w.ask("/x", *s)
            want = dict(f.lower().split(": ") for f in s)
            assert m.text == " ".join(want.get(k, "-") for k in ("x-a", "x-b", "x-c")) and hit(m) is (turn > 0), (turn, s)


def test_vary_that_changes(cached):
    """An answer with another Vary than the one before is not mistaken for one of the old variants."""
    w, o = cached()
    body = lambda m, n: "%s %s" % (m.get("x-a", "-"), m.get("x-b", "-"))
    o.page("/x", in_turn(says("Cache-Control: max-age=1", "Vary: X-A", body=body), says(MINUTE, "Vary: X-B", body=body)))
    assert w.ask("/x", "X-A: 1", "X-B: 1").text == "1 1"
    time.sleep(LATER)
    for b in "232":
        assert w.ask("/x", "X-A: 1", "X-B: " + b).text == "1 " + b


def test_accept_encoding_is_normalised(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, "Vary: Accept-Encoding", body=lambda m, n: "gzip" if "gzip" in m.get("accept-encoding", "") else "id"))
    same = [["gzip"], ["gzip, deflate"], ["GZIP;q=0.5"], ["deflate,gzip ; q=1.0"]]
    none = [None, ["identity"], ["gzip;q=0"], ["gzip;q=0.000, identity"]]
    for kinds, body in ((same, "gzip"), (none, "id")):
        for k in kinds:
            m = w.ask("/x", *["Accept-Encoding: " + v for v in k or []])
            assert m.text == body, k
    assert o.count("/x") == 2, [m.all("accept-encoding") for m in o.asked("/x")]


def test_many_variants_are_bounded(cached):
    """One URL with thousands of variants: right answers, and the others are not flushed."""
    w, o = cached(size=2 * MB)
    o.page("/x", says(MINUTE, "Vary: X-N", body=lambda m, n: m.get("x-n") * 200))
    hot = ["/hot%d" % i for i in range(20)]
    for _ in range(4):
        for t in hot:
            w.ask(t)
    with w.client() as c:
        for i in range(1500):
            assert c.ask("/x", "X-N: %05d" % i).text == "%05d" % i * 200
        begin = time.monotonic()
        assert c.ask("/x", "X-N: 00001").text == "00001" * 200 and time.monotonic() - begin < 0.5 * SLOW
    assert sum(hit(w.ask(t)) for t in hot) >= 15


# ---- revalidation ----------------------------------------------------------------------------

def test_revalidation(cached):
    """Stale: the origin is asked whether it is still so; its 304 makes it fresh, and changes stored fields."""
    w, o = cached()
    fields = {"/e": 'ETag: "v1"', "/w": 'ETag: W/"v1"', "/m": "Last-Modified: " + date(-9000)}
    for t, f in fields.items():
        o.page(t, in_turn(says("Cache-Control: max-age=1", f, "X-Note: old", "X-Kept: 1", body=b"body"),
                          says(MINUTE, f, "X-Note: new", fields304=[MINUTE, f, "X-Note: new"])))
        assert w.ask(t).get("x-note") == "old"
    time.sleep(LATER)
    for t, f in fields.items():
        m = w.ask(t)
        assert (m.status, m.text, m.get("x-note"), m.get("x-kept")) == (200, "body", "new", "1")
        asks = "if-modified-since" if t == "/m" else "if-none-match"
        assert o.count(t) == 2 and o.asked(t)[1].get(asks) == f.split(": ", 1)[1]
        m = w.ask(t)
        assert hit(m) and (m.text, m.get("x-note"), m.get("x-kept"), m.all("cache-control")) == ("body", "new", "1", ["max-age=60"])
        assert o.count(t) == 2 and int(m.get("age")) < 1 + 2 * SLOW


def test_revalidation_that_finds_another(cached):
    w, o = cached()
    o.page("/x", in_turn(says("Cache-Control: max-age=1", 'ETag: "1"'), says(MINUTE, 'ETag: "2"')))
    w.ask("/x")
    time.sleep(LATER)
    assert w.ask("/x").text == "/x 2"
    m = w.ask("/x")
    assert hit(m) and m.text == "/x 2" and m.get("etag") == '"2"' and o.count("/x") == 2


def test_304_does_not_touch_the_framing(cached):
    """Content-Length, Content-Encoding and the like of a 304 are not taken over."""
    w, o = cached()
    o.page("/x", in_turn(says("Cache-Control: max-age=1", 'ETag: "1"', body=b"0123456789"),
                         says(MINUTE, 'ETag: "1"', fields304=[MINUTE, 'ETag: "1"', "Content-Length: 3", "X-New: 1"])))
    w.ask("/x")
    time.sleep(LATER)
    with w.client() as c:
        for _ in range(3):
            m = c.ask("/x")
            assert m.body == b"0123456789" and m.get("x-new") == "1"


@pytest.mark.parametrize("how", ["private", "no-store"])
def test_304_that_may_not_be_stored(cached, how):
    """It is for whoever asked, and changes nothing of what is stored. RFC 9111 5.2.2.5, 5.2.2.7."""
    w, o = cached()
    same = 'ETag: "1"'
    o.page("/x", in_turn(says("Cache-Control: max-age=1", same, "X-Me: nobody", body="x"),
                         says(same, fields304=["Cache-Control: " + how, same, "X-Me: anna"]),
                         says(same, fields304=[same])))
    w.ask("/x")
    time.sleep(LATER)
    m = w.ask("/x")
    assert (m.text, m.get("x-me"), m.get("cache-control")) == ("x", "anna", how)
    m = w.ask("/x")
    assert (m.text, m.get("x-me"), m.get("cache-control")) == ("x", "nobody", "max-age=1") and o.count("/x") == 3


def test_no_cache_is_stored_but_validated(cached):
    w, o = cached()
    o.page("/x", says("Cache-Control: no-cache", 'ETag: "1"', body=b"same"))
    for _ in range(3):
        assert w.ask("/x").text == "same"
    assert o.count("/x") == 3


CONDITIONS = [  # of the client, and the status of a fresh hit with ETag "v1" and Last-Modified @-100
    ('If-None-Match: "v1"', 304), ('If-None-Match: W/"v1"', 304), ('If-None-Match: "v0", "v1"', 304), ("If-None-Match: *", 304),
    ('If-None-Match: "v2"', 200), ("If-None-Match: v1x", 200), ("If-Modified-Since: @-100", 304), ("If-Modified-Since: @0", 304),
    ("If-Modified-Since: @-200", 200), ("If-Modified-Since: yesterday", 200)]


def test_conditions_of_clients(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, 'ETag: "v1"', "Last-Modified: " + date(-100), "Content-Location: /y", "Vary: X-A", "X-Z: 1",
                      "Content-Type: text/x", body=b"0123456789"))
    w.ask("/x")
    modified = w.ask("/x").get("last-modified")
    with w.client() as c:
        for field, status in CONDITIONS:
            m = c.ask("/x", field.replace("@-100", modified).replace("@0", date()).replace("@-200", date(-200)))
            assert m.status == status and hit(m), (field, m.status, said(m))
            assert m.body == (b"" if status == 304 else b"0123456789")
            if status == 304:
                assert m.get("etag") == '"v1"' and m.get("vary") == "X-A" and m.get("cache-control") == "max-age=60"
                assert m.get("content-location") == "/y" and m.has("date") and not m.has("transfer-encoding")
                assert m.get("content-length") in (None, "10")
        m = c.ask("/x", 'If-None-Match: "v2"', "If-Modified-Since: " + modified)
        assert m.status == 200, "If-None-Match goes before"
    assert o.count("/x") == 1


@pytest.mark.parametrize("field", ["Cache-Control: private", "Cache-Control: no-store", "Set-Cookie: a=b", "X-Says-Nothing: 1"])
def test_conditions_pass_by_with_the_rest(cached, field):
    """The origin judges the conditions of what cannot be stored, once that is known; what can be is stored at once."""
    w, o = cached()
    tag, since = 'ETag: "1"', date(-100)
    o.page("/e", says(field, tag))
    o.page("/m", says(field, "Last-Modified: " + since))
    for t, cond in (("/e", 'If-None-Match: "1"'), ("/m", "If-Modified-Since: " + since)):
        w.ask(t)
        assert [w.ask(t, cond).status for _ in range(3)] == [304] * 3 and o.count(t) == 4
        assert w.ask(t, cond, "Authorization: Basic eDp5").status == 304
        assert w.ask(t).text == t + " 6"
        o.page(t, says(MINUTE, tag))
        w.ask(t)
        assert hit(w.ask(t))


def test_if_match_is_the_origins_business(cached):
    """RFC 9110 13.1.1: a cache passes it on or ignores it, and never answers 412 itself."""
    w, o = cached()
    o.page("/x", says(MINUTE, 'ETag: "v1"'))
    fill(w, "/x")
    for f in ('If-Match: "v2"', "If-Unmodified-Since: " + date(-1000)):
        n = o.count("/x")
        m = w.ask("/x", f)
        assert m.status == 200 or o.count("/x") == n + 1, f


def test_conditions_on_a_miss(cached):
    """A 304 for a client's own condition is that client's; it is not stored as the page."""
    w, o = cached()
    o.page("/x", says(MINUTE, 'ETag: "v1"', body=b"whole"))
    assert w.ask("/x", 'If-None-Match: "v1"').status == 304
    m = w.ask("/x")
    assert (m.status, m.text) == (200, "whole")
    assert w.ask("/x").text == "whole"


def test_conditions_on_what_is_stale(cached):
    w, o = cached()
    o.page("/x", in_turn(says("Cache-Control: max-age=1", 'ETag: "v1"', body=b"one"), says("Cache-Control: max-age=1", 'ETag: "v1"'),
                         says(MINUTE, 'ETag: "v2"', body=b"two")))
    w.ask("/x")
    time.sleep(LATER)
    assert w.ask("/x", 'If-None-Match: "v1"').status == 304, "still so"
    time.sleep(LATER)
    m = w.ask("/x", 'If-None-Match: "v1"')
    assert (m.status, m.text) == (200, "two")
    assert w.ask("/x", 'If-None-Match: "v2"').status == 304 and w.ask("/x").text == "two"


# ---- stale -----------------------------------------------------------------------------------

def test_stale_while_revalidate(cached):
    """Served at once; one asks the origin, behind them."""
    w, o = cached(workers=2)
    go = threading.Event()
    o.page("/x", in_turn(says("Cache-Control: max-age=1, stale-while-revalidate=60", 'ETag: "1"'), after(go, says(MINUTE, 'ETag: "2"'))))
    w.ask("/x")
    time.sleep(LATER)
    begin = time.monotonic()
    got = answers(crowd(w, 20, "/x"))
    assert time.monotonic() - begin < 2 * SLOW
    assert {(said(m), m.text) for m in got} == {("STALE", "/x 1")}
    o.wait("/x", 2)
    for _ in range(5):
        assert w.ask("/x").text == "/x 1"
    assert o.count("/x") == 2
    go.set()
    eventually(lambda: w.ask("/x").text == "/x 2", "the new one")
    assert hit(w.ask("/x")) and o.count("/x") == 2


def test_stale_while_revalidate_ends(cached):
    w, o = cached()
    o.page("/x", in_turn(says("Cache-Control: max-age=1, stale-while-revalidate=1"), says(MINUTE)))
    w.ask("/x")
    time.sleep(2 * LATER)
    assert w.ask("/x").text == "/x 2", "too old for that"


def test_stale_if_error(cached):
    """500 to 504 and an origin that does not answer; other answers are passed, and after its time the error is."""
    w, o = cached()
    for s in (500, 502, 503, 504, 404, 429):
        o.page("/%d" % s, in_turn(says("Cache-Control: max-age=1, stale-if-error=60"), says(status="%d Oh" % s)))
    o.page("/cut", in_turn(says("Cache-Control: max-age=1, stale-if-error=60"), raw(b"", last=CLOSE)))
    o.page("/garbage", in_turn(says("Cache-Control: max-age=1, stale-if-error=60"), raw(b"nonsense\r\n\r\n")))
    o.page("/plain", in_turn(says("Cache-Control: max-age=1", 'ETag: "1"'), says(status="500 Oh")))
    o.page("/short", in_turn(says("Cache-Control: max-age=1, stale-if-error=1"), says(status="500 Oh")))
    o.page("/must", in_turn(says("Cache-Control: max-age=1, stale-if-error=60, must-revalidate"), says(status="500 Oh")))
    targets = list(o.pages)
    for t in targets:
        w.ask(t)
    time.sleep(2 * LATER)
    got = {t: w.ask(t) for t in targets}
    for t in ("/500", "/502", "/503", "/504", "/cut", "/garbage"):
        assert (got[t].status, got[t].text, said(got[t])) == (200, t + " 1", "STALE"), (t, got[t], got[t].text)
    assert [got[t].status for t in ("/404", "/429", "/plain", "/short")] == [404, 429, 500, 500]
    assert got["/must"].status >= 500


def test_origin_is_down(cached):
    """stale-if-error and stale_secs; not for must-revalidate, proxy-revalidate, s-maxage and no-cache."""
    w, o = cached(stale_secs=60)
    rows = {"/sie": "max-age=1, stale-if-error=60", "/plain": "max-age=1", "/must": "max-age=1, must-revalidate",
            "/proxy": "max-age=1, proxy-revalidate", "/s": "s-maxage=1", "/no-cache": "no-cache", "/fresh": "max-age=60, must-revalidate"}
    for t, cc in rows.items():
        o.page(t, says("Cache-Control: " + cc, 'ETag: "1"'))
        w.ask(t)
    o.down()
    time.sleep(LATER)
    got = {t: w.ask(t) for t in rows}
    assert hit(got["/fresh"])
    for t in ("/sie", "/plain"):
        assert (said(got[t]), got[t].text, got[t].status) == ("STALE", t + " 1", 200), t
    for t in ("/must", "/proxy", "/s", "/no-cache"):
        assert got[t].status in (502, 503, 504) and said(got[t]) not in ("HIT", "STALE"), t


def test_no_stale_unless_allowed(cached):
    w, o = cached(stale_secs=0)
    o.page("/x", says("Cache-Control: max-age=1", 'ETag: "1"'))
    w.ask("/x")
    o.down()
    time.sleep(LATER)
    assert w.ask("/x").status in (502, 503, 504)


# ---- requests that go by ---------------------------------------------------------------------

def test_no_store_of_a_request(cached):
    """Its answer is not stored."""
    w, o = cached()
    w.ask("/x", "Cache-Control: no-store")
    m = w.ask("/x")
    assert not hit(m) and m.text == "/x 2"


@pytest.mark.parametrize("fields, stored", [
    ((MINUTE,), False), (("Cache-Control: public, max-age=60",), True), (("Cache-Control: s-maxage=60",), True),
    (("Cache-Control: must-revalidate, max-age=60",), True), (("Expires: " + date(600),), False)])
def test_authorization(cached, fields, stored):
    """RFC 9111 3.5"""
    w, o = cached()
    o.page("/x", says(*fields, body=lambda m, n: "%s %d" % (m.get("authorization", "nobody"), n)))
    auth = "Authorization: Basic YTpi"
    assert w.ask("/x", auth).text == "Basic YTpi 1"
    m = w.ask("/x")
    assert hit(m) is stored and m.text == ("Basic YTpi 1" if stored else "nobody 2")


def test_authorization_in_a_crowd(cached):
    """Who waits for one fetch never gets what was made for another user."""
    w, o = cached()
    go = threading.Event()
    o.page("/x", after(go, says(MINUTE, body=lambda m, n: m.get("authorization", "nobody"))))
    clients = [w.client().send(request("/x", *(["Authorization: user%d" % i] if i % 3 else []))) for i in range(12)]
    o.wait("/x")
    threading.Timer(0.2, go.set).start()
    for i, m in enumerate(answers(clients)):
        assert m.text == ("user%d" % i if i % 3 else "nobody") or (i % 3 and m.text == "nobody")


def test_set_cookie_in_a_crowd(cached):
    """Each gets a cookie of its own."""
    w, o = cached()
    go = threading.Event()

    def page(c, m, n):
        go.wait(TIMEOUT)
        c.send(reply("x", MINUTE, "Set-Cookie: id=%d" % n))
    o.page("/x", page)
    clients = crowd(w, 12, "/x")
    o.wait("/x")
    threading.Timer(0.2, go.set).start()
    assert len({m.get("set-cookie") for m in answers(clients)}) == 12
    assert not hit(w.ask("/x"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
def test_unsafe_methods_invalidate(cached, method):
    w, o = cached(workers=2)
    fill(w, "/x", "/y")
    assert not hit(w.ask("/x", method=method, body=b""))
    got = [w.ask("/x") for _ in range(6)]
    assert all(int(m.text.split()[1]) > 2 for m in got), "none from before"
    assert hit(w.ask("/y"))


def test_what_does_not_invalidate(cached):
    w, o = cached()
    for t, status in (("/500", "500 No"), ("/404", "404 No"), ("/403", "403 No")):
        o.page(t, in_turn(says(MINUTE), says(status=status)))
        fill(w, t)
        assert w.ask(t, method="POST", body=b"").status == int(status[:3])
        assert hit(w.ask(t)), status
    fill(w, "/safe")
    for m in ("OPTIONS", "HEAD"):
        w.ask("/safe", method=m)
        assert hit(w.ask("/safe")), m


def test_location_invalidates(cached):
    """Location and Content-Location of a successful unsafe request too, of the same host alone."""
    w, o = cached()
    pages = ("/loc", "/cloc", "/abs", "/rel/x", "/other", "/kept", "/q?a=1")
    fill(w, *pages)
    fill(w, "/other", host="b.example")
    o.page("/p1", says("Location: /loc", "Content-Location: /cloc", status="201 Created"))
    o.page("/p2", says("Location: http://a.example/abs"))
    o.page("/p3", says("Location: http://b.example/other"))
    o.page("/rel/p4", says("Location: x"))
    o.page("/p5", says("Content-Location: /q?a=1"))
    for t in ("/p1", "/p2", "/p3", "/rel/p4", "/p5"):
        w.ask(t, method="POST", body=b"")
    assert [t for t in pages if hit(w.ask(t))] == ["/other", "/kept"]
    assert hit(w.ask("/other", host="b.example"))


def test_head(cached):
    """From what GET stored; never the other way round."""
    w, o = cached()
    fill(w, "/x")
    m = w.ask("/x", method="HEAD")
    assert hit(m) and m.get("content-length") == "4" and m.body == b""
    with w.client() as c:
        assert hit(c.ask("/x", method="HEAD")) and c.ask("/x").text == "/x 1"
    m = w.ask("/new", method="HEAD")
    assert m.status == 200 and not hit(m)
    for _ in range(2):
        m = w.ask("/new")
        assert m.status == 200 and m.text.startswith("/new ")
    assert w.ask("/x", 'If-None-Match: *', method="HEAD").status == 304


def test_other_methods_go_by(cached):
    w, o = cached()
    for method in ("POST", "PUT", "OPTIONS", "FOO"):
        for n in (1, 2):
            m = w.ask("/" + method, method=method, body=b"x")
            assert fetched(m) and m.text.endswith(str(n)) and said(m) in ("BYPASS", None)


# ---- ranges ----------------------------------------------------------------------------------

RANGES = [("bytes=0-3", "0123", "bytes 0-3/10"), ("bytes=8-", "89", "bytes 8-9/10"), ("bytes=-3", "789", "bytes 7-9/10"),
          ("bytes=9-100", "9", "bytes 9-9/10"), ("bytes=-100", "0123456789", "bytes 0-9/10")]


def test_ranges_from_whole_entries(cached):
    w, o = cached()
    o.page("/x", says(MINUTE, 'ETag: "v1"', "Last-Modified: " + date(-5000), "Content-Type: text/x", body=b"0123456789"))
    fill(w, "/x")
    with w.client() as c:
        for value, want, of in RANGES:
            m = c.ask("/x", "Range: " + value)
            assert (m.status, m.text, m.get("content-range"), m.get("etag")) == (206, want, of, '"v1"') and hit(m), value
        m = c.ask("/x", "Range: bytes=20-")
        assert m.status == 416 and m.get("content-range") == "bytes */10"
        for value in ("bytes=x", "lines=1-2", "bytes=3-1"):
            m = c.ask("/x", "Range: " + value)
            assert (m.status, m.text) == (200, "0123456789"), value
        m = c.ask("/x", "Range: bytes=0-1,8-9")
        assert m.status == 200 and m.text == "0123456789" or m.status == 206 and re.fullmatch(
            r"(?s).*bytes 0-1/10\r\n.*01\r\n--.*bytes 8-9/10\r\n.*89\r\n--.*--\r\n", m.text)
        assert c.ask("/x", "Range: bytes=0-3", 'If-Range: "v1"').status == 206
        assert c.ask("/x", "Range: bytes=0-3", 'If-Range: "v2"').status == 200
        assert c.ask("/x", "Range: bytes=0-3", 'If-Range: W/"v1"').status == 200
        m = c.ask("/x", "Range: bytes=0-3", 'If-None-Match: "v1"')
        assert m.status == 304
        m = c.ask("/x", "Range: bytes=0-3", method="HEAD")
        assert m.status == 200 and m.get("content-length") == "10"
    assert o.count("/x") == 1


def test_range_on_a_miss(cached):
    """A part is never taken for the whole."""
    w, o = cached()

    def page(c, m, n):
        if m.get("range") == "bytes=2-4":
            return c.send(reply("234", MINUTE, "Content-Range: bytes 2-4/10", status="206 Partial Content"))
        c.send(reply("0123456789", MINUTE))
    o.page("/x", page)
    for _ in range(2):
        m = w.ask("/x", "Range: bytes=2-4")
        assert (m.status, m.text) in ((206, "234"), (200, "0123456789"))
    for _ in range(2):
        m = w.ask("/x")
        assert (m.status, m.text) == (200, "0123456789")
    m = w.ask("/x", "Range: bytes=2-4")
    assert (m.status, m.text) == (206, "234") and hit(m)


def test_range_while_it_arrives(cached):
    w, o = cached()
    go = threading.Event()
    body = content("r", 200000)
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n" + MINUTE.encode() + b"\r\n\r\n" + body[:100000], go, body[100000:],
                     last=None))
    first = w.client().send(request("/x"))
    o.wait("/x")
    first.head(TIMEOUT)
    part = w.client().send(request("/x", "Range: bytes=150000-150099"))
    time.sleep(0.1)
    go.set()
    m = part.response()
    assert (m.status, m.body) in ((206, body[150000:150100]), (200, body))


def test_the_log_knows(warp, backend):
    """$cache is what X-Cache said; of others it is empty."""
    o = Origin(backend)
    o.page("/x", says(MINUTE))
    cf = cache_conf(o, {"path_prefix": "/x", "upstream": "app"}, {"respond": {"status": 200, "body": "own"}})
    w = warp(toml_file({**cf, "log": {"access": "stdout", "format": "[$uri $cache]"}}))
    got = [said(w.ask(t)) for t in ("/x", "/x", "/own")]
    assert got == ["MISS", "HIT", None]
    eventually(lambda: re.findall(r"\[(.*)\]", w.stdout) == ["/x MISS", "/x HIT", "/own -"], "the lines")


# ---- one fetch for many ------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_200_misses_are_one_fetch(cached, workers, how):
    """And all of them have its beginning before the origin has finished."""
    w, o = cached(workers=workers)
    start, go = threading.Event(), threading.Event()
    body = content("c", 60000)
    if how == "length":
        pieces = b"Content-Length: 60000\r\n\r\n" + body[:30000], body[30000:]
    else:
        pieces = b"Transfer-Encoding: chunked\r\n\r\n" + chunks(body[:30000], last=False), chunks(body[30000:])
    o.page("/x", raw(start, b"HTTP/1.1 200 OK\r\n" + MINUTE.encode() + b"\r\n" + pieces[0], go, pieces[1], last=None))
    clients = crowd(w, 200, "/x")
    o.wait("/x")
    time.sleep(0.3)
    start.set()
    try:
        for c in clients:
            c.until(b"\r\n\r\n", TIMEOUT)
            while len(c.buf) < 29000:
                assert c.fill(TIMEOUT)
        assert o.count("/x") == 1
    finally:
        go.set()
    for c in clients:
        while body[30000:] not in c.buf and body[-100:] not in c.buf:
            assert c.fill(TIMEOUT)
        c.close()
    m = w.ask("/x")
    assert hit(m) and m.body == body and o.count("/x") == 1


def test_crowd_before_the_head(cached):
    """Waiting for a slow origin: one request, 100 equal answers."""
    w, o = cached(workers=2)
    go = threading.Event()
    o.page("/x", after(go, says(MINUTE)))
    clients = crowd(w, 100, "/x")
    o.wait("/x")
    threading.Timer(0.3, go.set).start()
    assert {m.text for m in answers(clients)} == {"/x 1"} and o.count("/x") == 1


def test_slow_reader_does_not_slow_the_others(cached):
    w, o = cached(size=16 * MB, max_object_bytes=6 * MB)
    body = content("s", 5 * MB)
    o.page("/x", says(MINUTE, body=body))
    slow = [stop_reading(w, "/x") for _ in range(3)]
    o.wait("/x")
    begin = time.monotonic()
    got = answers(crowd(w, 5, "/x"), 4 * TIMEOUT)
    assert all(m.body == body for m in got) and time.monotonic() - begin < 5 * SLOW and o.count("/x") == 1
    assert hit(w.ask("/x"))
    for c in slow:
        assert c.response(timeout=4 * TIMEOUT).body == body, "they get all of it in the end"
        c.close()


@pytest.mark.parametrize("others", [0, 3])
def test_first_client_leaves(cached, others):
    """The fetch goes on."""
    w, o = cached()
    go = threading.Event()
    body = content("f", 100000)
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n" + MINUTE.encode() + b"\r\n\r\n" + body[:50000], go, body[50000:],
                     last=None))
    first = w.client().send(request("/x"))
    first.head(TIMEOUT)
    rest = crowd(w, others, "/x")
    for c in rest:
        c.until(b"\r\n\r\n", TIMEOUT)
    first.rst()
    time.sleep(0.1)
    go.set()
    for c in rest:
        assert c.exactly(100000, TIMEOUT) == body
    eventually(lambda: hit(w.ask("/x")), "a hit")
    assert o.count("/x") == 1 and w.ask("/x").body == body


@pytest.mark.parametrize("fields", [("Cache-Control: no-store",), ("Cache-Control: private",), (), ("Set-Cookie: a=b", MINUTE)])
def test_uncacheable_lets_them_go(cached, fields):
    """Those who wait ask for themselves, not one after the other."""
    w, o = cached(workers=2)

    def page(c, m, n):
        time.sleep(0.3)
        c.send(reply("%s" % n, *fields))
    o.page("/x", page)
    begin = time.monotonic()
    got = answers(crowd(w, 30, "/x"))
    assert len({m.text for m in got}) == 30 and o.count("/x") == 30 and time.monotonic() - begin < 3 * SLOW


@pytest.mark.parametrize("end", ["close", "garbage", "500"])
def test_fetch_that_fails(cached, end):
    """Nobody waits for ever, and no error is stored."""
    w, o = cached(workers=2)
    go = threading.Event()
    page = {"close": raw(b"", last=CLOSE), "garbage": raw(b"huh\r\n\r\n"), "500": says(status="500 Oh")}[end]
    o.page("/x", after(go, page))
    clients = crowd(w, 20, "/x")
    o.wait("/x")
    threading.Timer(0.2, go.set).start()
    assert {m.status for m in answers(clients)} <= {500, 502, 503}
    o.page("/x", says(MINUTE))
    eventually(lambda: w.ask("/x").status == 200, "an answer")


def test_another_crowd_while_it_arrives(cached):
    """HEAD, conditions and other variants meet a fetch that is going on."""
    w, o = cached()
    go = threading.Event()
    o.page("/x", raw(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 10\r\n' + MINUTE.encode() + b"\r\n\r\n01234", go, b"56789", last=None))
    first = w.client().send(request("/x"))
    first.head(TIMEOUT)
    o.page("/x", says(MINUTE, 'ETag: "1"', body=b"0123456789"))
    cond = w.client().send(request("/x", 'If-None-Match: "1"'))
    head = w.client().send(request("/x", method="HEAD"))
    post = w.ask("/x", method="POST", body=b"x")
    assert post.status == 200
    go.set()
    assert cond.response().status == 304 and head.response("HEAD").get("content-length") == "10"
    assert first.exactly(10, TIMEOUT) == b"0123456789"


# ---- too large ---------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["length", "chunked"])
def test_max_object_bytes(cached, how):
    w, o = cached(max_object_bytes=100000)
    for size, stored in ((90000, True), (200000, False), (3000000, False)):
        t = "/%d" % size
        o.page(t, says(MINUTE, body=content(t, size), chunked=how == "chunked"))
        for _ in range(2):
            m = w.ask(t)
            assert m.body == content(t, size)
        assert hit(m) is stored, t
        assert stored or said(m) in ("BYPASS", "MISS")


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_crowd_for_what_is_too_large(cached, how):
    """It turns out while it arrives: nobody gets less than all of it."""
    w, o = cached(workers=2, max_object_bytes=100000)
    body = content("big", 400000)
    go = threading.Event()
    rest = chunks(*[body[i:i + 50000] for i in range(50000, 400000, 50000)]) if how == "chunked" else body[50000:]
    start = b"HTTP/1.1 200 OK\r\n" + MINUTE.encode() + (
        b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(body[:50000], last=False) if how == "chunked"
        else b"\r\nContent-Length: 400000\r\n\r\n" + body[:50000])
    o.page("/x", raw(start, go, rest, last=None))
    clients = crowd(w, 8, "/x")
    o.wait("/x")
    time.sleep(0.2)
    go.set()
    for m in answers(clients, 2 * TIMEOUT):
        assert m.body == body
    assert not hit(w.ask("/x"))


# ---- purge -------------------------------------------------------------------------------------

def test_purge_of_a_path(cached):
    """Every host, every query, every variant; nothing else. From the command line and by the admin socket."""
    w, o = cached(workers=3)
    o.page("/v", says(MINUTE, "Vary: X-A"))
    for how in (lambda t: purge(w, t), lambda t: post_purge(w, t.replace("/", "%2F")), lambda t: post_purge(w, t)):
        fill(w, "/a/b", "/a/b?q=1", "/a/bc", "/a", "/v")
        fill(w, "/a/b", host="b.example")
        eventually(lambda: hit(w.ask("/v", "X-A: 1")))
        before = {t: o.count(t) for t in ("/a/b", "/a/b?q=1", "/v")}
        for t in ("/a/b", "/v"):
            got = how(t)
            assert isinstance(got, str) or got.status == 200, got
        for _ in range(3):
            assert hit(w.ask("/a/bc")) and hit(w.ask("/a"))
        for t in before:
            assert int(w.ask(t).text.split()[1]) > before[t], t
        assert fetched(w.ask("/a/b", host="b.example")) and fetched(w.ask("/v", "X-A: 1"))
        purge(w, "*")


def test_purge_of_a_prefix(cached):
    w, o = cached()
    pages = ("/a/1", "/a/2?x", "/a/", "/ab", "/a", "/b*", "/b/x")
    fill(w, *pages)
    purge(w, "/a/*")
    assert [t for t in pages if hit(w.ask(t))] == ["/ab", "/a", "/b*", "/b/x"]
    purge(w, "*")
    assert not [t for t in pages if hit(w.ask(t))]


def test_purge_of_a_key(cached):
    w, o = cached()
    fill(w, "/x", "/x?q")
    fill(w, "/x", host="b.example")
    purge(w, "b.example/x")
    assert hit(w.ask("/x")) and hit(w.ask("/x?q")) and not hit(w.ask("/x", host="b.example"))
    purge(w, "http://a.example/x?q")
    assert hit(w.ask("/x")) and not hit(w.ask("/x?q"))


@pytest.mark.parametrize("what", ["/none", "/none*", "nohost/none", "/%zz", "/\xfc", "*" * 200, "/" + "x" * 2000])
def test_purge_of_nothing(cached, what):
    """What is not there is no reason to stop; what cannot be is said."""
    w, o = cached()
    fill(w, "/x")
    with Client(w.path("admin.sock")) as c:
        m = c.ask("/purge/" + "".join("%%%02X" % b for b in what.encode("latin-1")), method="POST")
    assert m.status in (200, 400, 404, 414)
    assert hit(w.ask("/x"))


def test_purge_reaches_all_workers_at_once(cached):
    """Once the verb has answered nobody gets the old one."""
    w, o = cached(workers=3)
    version = [0]
    o.page("/x", says(MINUTE, body=lambda m, n: str(version[0])))
    with Client(w.path("admin.sock")) as a:
        kept = [w.client() for _ in range(12)]
        for _ in range(10):
            for c in kept:
                assert c.ask("/x").text == str(version[0])
            version[0] += 1
            assert a.ask("/purge/%2Fx", method="POST").status == 200
            assert [c.ask("/x").text for c in kept] == [str(version[0])] * 12
        for c in kept:
            c.close()


@pytest.mark.parametrize("how", ["path", "all", "POST"])
def test_purge_during_a_fetch(cached, how):
    """It is served, but not stored."""
    w, o = cached(workers=2)
    go = threading.Event()
    o.page("/x", in_turn(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n" + MINUTE.encode() + b"\r\n\r\nold", go, b"old", last=None),
                         says(MINUTE, body=b"new")))
    clients = crowd(w, 4, "/x")
    for c in clients:
        c.head(TIMEOUT)
    if how == "POST":
        w.ask("/x", method="POST", body=b"")
    else:
        purge(w, "*" if how == "all" else "/x")
    m = w.client().send(request("/x"))
    time.sleep(0.1)
    go.set()
    for c in clients:
        assert c.exactly(6, TIMEOUT) == b"oldold"
    assert m.response().text == "new", "it has asked after the purge"
    assert w.ask("/x").text == "new"


def test_purge_without_a_cache(warp, backend):
    w = warp(toml_file(cache_conf(Origin(backend), cache=False)))
    assert post_purge(w, "%2Fx").status in (200, 400, 404, 409, 501)
    assert said(w.ask("/x")) is None and fetched(w.ask("/x"))


# ---- poisoning ---------------------------------------------------------------------------------

def reflects(*names):
    return says(MINUTE, body=lambda m, n: " ".join(v for k in names for v in m.all(k)) + " %d" % n)


@pytest.mark.parametrize("field", ["X-Forwarded-Host: evil", "X-Forwarded-Proto: evil", "X-Forwarded-Port: 666", "X-Forwarded-For: evil",
                                   "Forwarded: host=evil", "X-Real-IP: 6.6.6.6"])
def test_unkeyed_forwarding_fields(cached, field):
    """A stranger's are gone before the origin can reflect them."""
    w, o = cached()
    name, value = field.split(": ")
    o.page("/x", reflects(name))
    w.ask("/x", field)
    m = w.ask("/x")
    assert value not in m.text and "evil" not in m.text


@pytest.mark.parametrize("field", ["X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-HTTP-Method-Override: POST",
                                   "X-HTTP-Method: DELETE", "X-Method-Override: PUT", "X-Forwarded-Scheme: evil", "X-Host: evil",
                                   "X-Forwarded-Server: evil", "X-Forwarded-Prefix: /evil"])
def test_unkeyed_fields_that_change_the_answer(cached, field):
    """Frameworks obey them: what they made is not what others get."""
    w, o = cached()
    name, value = field.split(": ")
    o.page("/x", reflects(name))
    w.ask("/x", field)
    assert value not in w.ask("/x").text


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_fat_get(cached, how):
    """A GET with a body may get another answer: it is neither stored nor answered from the cache."""
    w, o = cached()
    o.page("/x", says(MINUTE, body=lambda m, n: "%s %d" % (m.text, n)))
    send = (lambda: w.ask("/x", body=b"evil")) if how == "length" else lambda: w.client().send(
        request("/x", "Transfer-Encoding: chunked") + chunks(b"evil")).response()
    assert "evil" in send().text
    assert w.ask("/x").text == " 2"
    assert hit(w.ask("/x"))
    m = send()
    assert not hit(m) and m.text == "evil 3"
    assert w.ask("/x").text == " 2" and hit(w.ask("/x", "Content-Length: 0"))


def test_deception_by_suffix(cached):
    """How a path ends is no permission."""
    w, o = cached()
    for i, t in enumerate(("/account/x.css", "/account/%2e%2e/x.js", "/account;x.css", "/account%3fx.png", "/account%00.css", "/account/x.css?y.js")):
        for cc in ("Cache-Control: private", "Cache-Control: no-store", "X-Nothing: 1"):
            o.page(t, says(cc, "Content-Type: text/html"))
            for _ in range(2):
                assert not hit(w.ask(t)), (t, cc)


def test_no_two_targets_share_an_entry(cached):
    """Each gets what the origin says to what it asked, with any host."""
    w, o = cached()
    o.default = says(MINUTE, body=lambda m, n: "%s %s" % (m.get("host"), m.target))
    targets = ["/a", "/A", "/a/", "//a", "/a?", "/a?x", "/a?X", "/a?x=1&y=2", "/a?y=2&x=1", "/%61", "/a%2Fb", "/a/b", "/a%2fb", "/a;b", "/a%3Bb",
               "/a%20b", "/a+b", "/a%3Fx", "/./a", "/b/../a", "/a%00b", "/" + "a" * 1000, "/" + "a" * 999]
    hosts = ["a.example", "b.example", "a.example:81", "a.example.", "a.exampl"]
    both = [(h, t) for h in hosts for t in targets]
    want = {x: w.ask(x[1], host=x[0], method="OPTIONS") for x in both}     # what the origin is asked; not kept
    hits = 0
    for turn in range(2):
        for x in both:
            m = w.ask(x[1], host=x[0])
            assert (m.status, m.text) == (want[x].status, want[x].text), x
            hits += hit(m)
    assert hits > len(both) // 2
    assert w.ask("/a", host="A.EXAMPLE").text.lower() == "a.example /a"
    m = w.client().send(b"GET http://b.example/abs HTTP/1.1\r\nHost: b.example\r\n\r\n").response()
    assert m.text == "b.example /abs"
    assert w.ask("/abs").text == "a.example /abs"


def test_errors_of_malformed_requests(cached):
    """What warp refuses itself, and what an origin says to a header it does not like, is nobody else's answer."""
    w, o = cached(default_ttl_secs=60)

    def picky(c, m, n):
        big = m.get("x-big")
        c.send(reply("no", *([MINUTE] if big == "fresh" else []), status=big[:3] + " No") if big and big[:3].isdigit()
               else reply("ok", MINUTE))
    o.page("/x", picky)
    for bad in (b"GET /x HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b\r\n\r\n", b"GET /x HTTP/9.1\r\nHost: a.example\r\n\r\n",
                b"GET /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: x\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a.example\r\nX: a\0b\r\n\r\n",
                b"GET /x HTTP/1.1\r\nHost: a.example/x\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a.example\r\nX: " + b"y" * 20000 + b"\r\n\r\n"):
        assert w.client().send(bad).response().status >= 400
    for status in (400, 413, 414, 416, 431, 500, 501, 503):
        assert w.ask("/x", "X-Big: %d" % status).status == status
    for _ in range(2):
        m = w.ask("/x")
        assert (m.status, m.text) == (200, "ok")


def test_range_as_poison(cached):
    """A Range that the origin chokes on: its 416 or 400 is not stored."""
    w, o = cached(default_ttl_secs=60)
    o.page("/x", lambda c, m, n: c.send(reply("no", "Content-Range: bytes */9", status="416 No") if m.has("range") else reply("ok", MINUTE)))
    w.ask("/x", "Range: bytes=99-")
    for _ in range(2):
        assert w.ask("/x").text == "ok"


def test_upgrade_is_not_a_hit(cached):
    w, o = cached()
    fill(w, "/x")
    o.page("/x", lambda c, m, n: c.send(lib.SWITCH))
    with w.client() as c:
        c.send(request("/x", *lib.UPGRADE))
        assert c.response().status == 101
    assert w.ask("/x").text == "/x 1"


# ---- routes ------------------------------------------------------------------------------------

def test_routes_with_conditions(warp, backend):
    """One URL, two upstreams by header: what one answered is not the other's."""
    a, b = Origin(backend), Origin(backend)
    a.default, b.default = says(MINUTE, body=b"app"), says(MINUTE, body=b"beta")
    w = warp(toml_file({**cache_conf(a), **lib.conf({"header": {"name": "X-Beta", "value": "1"}, "upstream": "beta"},
                                                    {"query": {"name": "beta", "value": "1"}, "upstream": "beta"}, {"upstream": "app"},
                                                    app={"on": a}, beta={"on": b})}))
    for _ in range(2):
        assert w.ask("/x").text == "app" and w.ask("/x", "X-Beta: 1").text == "beta"
        assert w.ask("/y", "X-Beta: 1").text == "beta" and w.ask("/y").text == "app"
    assert w.ask("/y?beta=1").text == "beta"
    assert hit(w.ask("/x")) and hit(w.ask("/y"))


def test_key_cache_of_a_route(cached):
    w, o = cached({"path_prefix": "/no", "cache": False}, {"path_prefix": "/yes", "cache": True}, {"path_prefix": "/"})
    for t, want in (("/no/x", False), ("/yes/x", True), ("/x", True)):
        w.ask(t)
        assert hit(w.ask(t)) is want, t


def test_who_may_not_ask_gets_no_hit(cached):
    w, o = cached({"path_prefix": "/b", "basic_auth": {"anna": "pw"}}, {"path_prefix": "/t", "require_auth": True}, {"path_prefix": "/"},
                  server={"admin_token": "open"})
    o.default = says("Cache-Control: public, max-age=60")
    for t, key in (("/b", "Authorization: Basic YW5uYTpwdw=="), ("/t", "X-Admin-Token: open")):
        for _ in range(2):
            assert w.ask(t, key).status == 200
            assert w.ask(t).status == 401


def test_rewrites_and_fields_of_a_route(cached):
    """The key is what the client asked; fields that the route adds are on hits as well, once."""
    w, o = cached({"path_prefix": "/a", "strip_prefix": True, "add_response_headers": [{"name": "X-R", "value": "a"}]},
                  {"path_prefix": "/b", "strip_prefix": True, "remove_response_headers": ["X-Gone"]}, {"path_prefix": "/"})
    o.page("/x", says(MINUTE, "X-Gone: 1", body=lambda m, n: "%d" % n))
    for _ in range(2):
        m = w.ask("/a/x")
        assert m.all("x-r") == ["a"] and m.get("x-gone") == "1"
        m = w.ask("/b/x")
        assert not m.has("x-r") and not m.has("x-gone")
    assert hit(w.ask("/a/x")) and hit(w.ask("/b/x"))


# ---- what is cut off ---------------------------------------------------------------------------

CUT = {"length": (b"Content-Length: 100\r\n\r\n" + b"x" * 60, lib.FIN), "chunk": (b"Transfer-Encoding: chunked\r\n\r\n40\r\nxxx", lib.FIN),
       "last chunk": (b"Transfer-Encoding: chunked\r\n\r\n" + chunks(b"x" * 60, last=False), lib.FIN),
       "trailers": (b"Transfer-Encoding: chunked\r\n\r\n" + chunks(b"x" * 60, last=False) + b"0\r\nX-T: 1\r\n", lib.FIN),
       "bad chunk": (b"Transfer-Encoding: chunked\r\n\r\n" + chunks(b"x" * 60, last=False) + b"zz\r\n", lib.FIN),
       "reset": (b"Content-Length: 100\r\n\r\n" + b"x" * 60, RST), "reset to the end": (b"\r\n" + b"x" * 60, RST)}


@pytest.mark.parametrize("how", CUT)
def test_truncated_is_never_stored(cached, how):
    w, o = cached()
    data, end = CUT[how]
    go = threading.Event()
    o.page("/x", in_turn(raw(b"HTTP/1.1 200 OK\r\n" + MINUTE.encode() + b"\r\n" + data, go, b"", last=end), says(MINUTE, body=b"whole")))
    clients = crowd(w, 3, "/x")
    o.wait("/x")
    time.sleep(0.1)
    go.set()
    for c in clients:
        with pytest.raises((EOFError, ConnectionError, lib.ProtocolError)):
            m = c.response()
            if m.body == b"whole" or m.status == 502:
                raise EOFError
    for _ in range(2):
        assert w.ask("/x").text == "whole"


# ---- memory ------------------------------------------------------------------------------------

def fast(c):
    """4000 bytes of content(target), as quickly as Python can."""
    while True:
        head = c.until(b"\r\n\r\n")
        body = content(head.split(b" ", 2)[1].decode(), 4000)
        c.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4000\r\n\r\n" + body)


@pytest.mark.limit(60)
@pytest.mark.promise("S2-79")
def test_memory_and_scans(warp, backend):
    """10,000 objects seen once: not more than size_bytes and 2 MB; what is asked for often stays."""
    b = backend([fast])
    w = warp(toml_file(cache_conf(b, workers=2, size=8 * MB, server={"keepalive_requests": 1000000})))
    hot = ["/hot%d" % i for i in range(100)]
    base = w.rss()
    with w.client() as c:
        for _ in range(5):
            for t in hot:
                assert c.ask(t).body == content(t, 4000)
        worst = 0
        for i in range(10000):
            m = c.ask("/scan%d" % i)
            assert i % 50 or m.body == content("/scan%d" % i, 4000)
            if i % 2500 == 2499:
                worst = max(worst, w.rss())
        hits = sum(hit(c.ask(t)) for t in hot)
    assert hits >= 80, "%d of 100 survived" % hits
    if not lib.SANITIZED:
        assert worst - base < 10 * MB, "%.1f MB" % ((worst - base) / MB)
    assert figure(w, "evict") > 0 and figure(w, r"(?<!size_)(?<!max_)(?<!object_)bytes") <= 8 * MB


def test_eviction_under_a_reader(warp, backend):
    """Who reads an entry slowly gets it whole, whatever comes and goes meanwhile."""
    o = Origin(backend)
    w = warp(toml_file(cache_conf(o, size=4 * MB, max_object_bytes=2 * MB)))
    body = content("e", 1500000)
    o.page("/big", says(MINUTE, body=body))
    fill(w, "/big")
    slow = stop_reading(w, "/big")
    slow.until(b"\r\n\r\n", TIMEOUT)
    purge(w, "/big")
    for i in range(150):
        o.page("/%d" % i, says(MINUTE, body=content(i, 50000)))
        for _ in range(2):
            assert w.ask("/%d" % i).body == content(i, 50000)
    assert slow.exactly(1500000, 2 * TIMEOUT) == body
    slow.close()
    got = w.ask("/big")
    assert got.body == body


def test_readers_that_leave(cached):
    """Hits that are broken off hold nothing."""
    w, o = cached(size=4 * MB)
    body = content("l", 1000000)
    o.page("/big", says(MINUTE, body=body))
    fill(w, "/big")
    for _ in range(100):
        c = stop_reading(w, "/big")
        c.fill(TIMEOUT)
        c.rst()
    assert w.ask("/big").body == body
    purge(w, "*")
    for i in range(4):
        o.page("/%d" % i, says(MINUTE, body=content(i, 800000)))
        w.ask("/%d" % i)
        eventually(lambda: hit(w.ask("/%d" % i)), "room for %d" % i)


@pytest.mark.parametrize("size", [65536, 256 * 1024])
def test_tiny_cache(warp, backend, check, size):
    """Too small is an error of the configuration, or it works."""
    o = Origin(backend)
    text = toml_file(cache_conf(o, size=size))
    p = check(lib.complete(text.replace("@DIR@", "/tmp"), 1))
    if p.returncode:
        return
    w = warp(text)
    for i in range(300):
        o.page("/%d" % i, says(MINUTE, body=content(i, i * 200)))
        for _ in range(2):
            assert w.ask("/%d" % i).body == content(i, i * 200)


# ---- what kills it -----------------------------------------------------------------------------

class Mix:
    """Threads that ask for URLs at random; every body must be the one of its URL. Connections may break."""

    def __init__(self, w, n=3, urls=60):
        self.w, self.urls, self.stop, self.wrong, self.good, self.hits = w, urls, threading.Event(), [], 0, 0
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(n)]

    def _run(self, seed):
        r = random.Random(seed)
        while not self.stop.is_set():
            try:
                with self.w.client() as c:
                    for _ in range(r.randrange(1, 20)):
                        t = "/%d" % r.randrange(self.urls)
                        m = c.ask(t)
                        if m.status == 200:
                            self.good += 1
                            self.hits += hit(m)
                            if m.body != content(t):
                                self.wrong.append((t, len(m.body), said(m)))
                        elif m.status not in (502, 503):
                            self.wrong.append((t, m.status))
            except (OSError, EOFError):
                pass

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join(TIMEOUT)


@pytest.mark.limit(900)
def test_killed_while_storing(cached):
    """SIGKILL of workers at any moment: never a torn body, never a lock held. KILLS=1000 for a long run."""
    w, o = cached(workers=2, size=1 * MB, max_object_bytes=200000)
    o.default = says("Cache-Control: max-age=1", 'ETag: "x"', body=lambda m, n: content(m.target))
    kills = int(os.environ.get("KILLS", 12))
    r = random.Random(7)
    with Mix(w) as mix:
        for _ in range(kills):
            victims = eventually(lambda: (c := w.children()) and len(c) >= 2 and c, "workers")
            time.sleep(r.random() * 0.15)
            try:
                os.kill(r.choice(victims), signal.SIGKILL)
            except ProcessLookupError:
                pass
        eventually(lambda: len(w.children()) == 2, "both workers", 3 * TIMEOUT)
        before = mix.good
        eventually(lambda: mix.good > before + 100, "answers afterwards", 2 * TIMEOUT)
    assert not mix.wrong, mix.wrong[:5]
    assert mix.hits > 0
    for _ in range(3):
        for t in range(60):
            assert w.ask("/%d" % t).body == content("/%d" % t)
    eventually(lambda: hit(w.ask("/1")), "a hit after it all")


def test_the_worker_that_fetches_is_killed(cached):
    """Those who wait at other workers are served all the same."""
    w, o = cached(workers=3)
    for x in ("/%d" % i for i in range(10)):
        go, began = threading.Event(), time.monotonic()
        o.page(x, in_turn(after(go, says(MINUTE)), says(MINUTE)))
        clients = crowd(w, 30, x)
        o.wait(x)
        fetches = holders(w, o.backend.conns[-1:])[0]
        eventually(lambda: all(holders(w, clients)), "all are accepted")
        while set(holders(w, clients)) == {fetches}:           # the kernel may have given all of them to one
            clients += crowd(w, 1, x)
            eventually(lambda: all(holders(w, clients)), "accepted")
            assert len(clients) < 300
        if time.monotonic() - began < 3:
            break
        go.set()                                               # a busy machine: after CACHE_WAIT_MS they ask themselves
    os.kill(fetches, signal.SIGKILL)
    served, lost = 0, 0
    for c in clients:
        try:
            served += c.response(timeout=2 * TIMEOUT).text == x + " 2"
        except (OSError, EOFError):
            lost += 1
    go.set()
    assert served + lost == len(clients) and served > 0
    assert w.ask(x).text == x + " 2"


def test_reload(cached):
    """The entries are kept or dropped, an answer under way is finished, the bound may change."""
    w, o = cached(workers=2, size=8 * MB)
    go = threading.Event()
    body = content("r", 100000)
    o.page("/slow", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n" + MINUTE.encode() + b"\r\n\r\n" + body[:50000], go, body[50000:],
                        last=None))
    for i in range(20):
        o.page("/%d" % i, says(MINUTE, body=content(i)))
        w.ask("/%d" % i)
    for turn, (size, cache) in enumerate(((8 * MB, True), (2 * MB, True), (16 * MB, True), (8 * MB, False), (8 * MB, True))):
        with w.client() as c:
            if turn == 0:
                c.send(request("/slow")).head(TIMEOUT)
            w.write(cache_conf(o, workers=2, size=size, cache=cache))
            before = set(w.children())
            w.signal(signal.SIGHUP)
            eventually(lambda: not before & set(w.children()) or w.stderr.count("reload") > turn, "reload")
            if turn == 0:
                go.set()
                assert c.exactly(100000, TIMEOUT) == body
        for _ in range(2):
            for i in range(20):
                assert w.ask("/%d" % i).body == content(i)
        eventually(lambda: said(w.ask("/1")) == ("HIT" if cache else None), "with a cache: %s" % cache)


def test_upgrade(cached):
    w, o = cached(workers=2)
    o.default = says(MINUTE, body=lambda m, n: content(m.target))
    with Mix(w, n=2) as mix:
        eventually(lambda: mix.hits > 50)
        old = set(w.children())
        w.signal(signal.SIGUSR2)
        eventually(lambda: w.children() and not set(w.children()) & old, "new workers", 3 * TIMEOUT)
        before = mix.hits
        eventually(lambda: mix.hits > before + 50, "hits afterwards")
    assert not mix.wrong, mix.wrong[:5]


# ---- figures -----------------------------------------------------------------------------------

def test_status_and_metrics(cached, run):
    w, o = cached(workers=2)
    before = figures(w)
    for _ in range(10):
        for t in ("/a", "/b"):
            w.ask(t)
    w.ask("/a", method="POST", body=b"")
    eventually(lambda: figure(w, "hit(?!_?ratio)") >= 18, "18 hits")
    assert figure(w, "miss") >= 2 and figure(w, r"byte") > 0 and figure(w, "busy") >= 0 and set(before) == set(figures(w))
    p = run("-s", "status", "-c", w.file)
    assert p.returncode == 0 and re.search(r"(?im)^CACHE", p.stdout) and re.search(r"(?i)hit", p.stdout), p.stdout
    text = admin(w, "/metrics").text
    for name in ("hit", "miss", "byte", "evict", "busy"):
        assert re.search(r"(?m)^warp_cache\w*%s\w*(\{[^}]*\})? \d" % name, text) or \
            re.search(r'(?m)^warp_cache\w*\{[^}]*%s[^}]*\} \d' % name, text), name


def test_access_log_has_hits(warp, backend):
    c = cache_conf(Origin(backend))
    w = warp(toml_file({**c, "log": {"access": "@DIR@/log", "format": "$uri $status $bytes"}}))
    for _ in range(2):
        w.ask("/x")
    eventually(lambda: lib.read(w.path("log")) == "/x 200 4\n" * 2, "two lines")


# ---- the configuration -------------------------------------------------------------------------

@pytest.mark.parametrize("text", ["size_bytes = -1", "size_bytes = \"big\"", "max_object_bytes = -5", "default_ttl_secs = -1", "stale_secs = \"x\"",
                                  "size_bits = 5"])
def test_conf_errors(check, text):
    p = check('[cache]\n%s\n[[routes]]\nrespond = { status = 200, body = "" }\n' % text)
    assert p.returncode == 1 and "cache" in p.stderr


def test_off_by_default(warp, backend):
    o = Origin(backend)
    w = warp(toml_file(cache_conf(o, cache=False)))
    for _ in range(2):
        assert said(w.ask("/x")) is None
    assert o.count("/x") == 2
