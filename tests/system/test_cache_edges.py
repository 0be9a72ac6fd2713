"""The cache, seen by a hostile eye: loops, entries half there, what one client's request does to another's."""
import json
import os
import random
import threading
import time

import pytest

import caching
import lib
from caching import (LATER, MB, Origin, admin, after, answers, cache_conf, content, crowd, eventually, fetched, figure, figures, fill,
                     hit, in_turn, purge, raw, said, says)
from lib import CLOSE, RST, SLOW, TIMEOUT, Client, chunks, reply, request, toml_file

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


def ticks(pid):
    """CPU time of a process, in seconds."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- entries that are found, but not good, while they are filled --------------------

@pytest.mark.parametrize("fields", [("Cache-Control: no-cache", 'ETag: "a"'), ("Cache-Control: max-age=0", 'ETag: "a"'),
                                    ("Cache-Control: max-age=1",)], ids=["no-cache", "max-age=0", "too old by now"])
@pytest.mark.parametrize("how", ["length", "chunks"])
def test_what_arrives_is_not_fresh(cached, fields, how):
    """A second client finds the head of an entry that is being filled and that it may not have: it waits or goes
    alone, but the worker does not go round in circles."""
    w, o = cached()
    go = threading.Event()
    first, second = content("a", 5000), content("b", 5000)
    framing = "Content-Length: 10000" if how == "length" else "Transfer-Encoding: chunked"
    head = "\r\n".join(["HTTP/1.1 200 OK", framing, *fields, "", ""]).encode()
    cut = lambda b, last: b if how == "length" else chunks(b, last=last)
    o.page("/x", in_turn(raw(head + cut(first, False), go, cut(second, True), last=None), says(MINUTE, body="anew")))
    with w.client() as a, w.client() as b:
        a.send(request("/x"))
        a.gather(1, TIMEOUT)
        time.sleep(LATER)
        b.send(request("/x"))
        time.sleep(0.3)
        assert w.ask("/other", timeout=TIMEOUT).status == 200  # the worker lives
        was = ticks(w.children()[0])
        time.sleep(0.5)
        assert ticks(w.children()[0]) - was < 0.3
        go.set()
        assert a.response().body == first + second
        assert b.response(timeout=2 * TIMEOUT).status == 200


@pytest.mark.parametrize("fields", [(MINUTE,), ("Cache-Control: no-cache",)], ids=["fresh", "not"])
def test_what_arrives_instead_of_what_is_stale(cached, fields):
    """The same where an older entry is there, which is found first."""
    w, o = cached()
    go = threading.Event()
    body = content("new", 10000)
    head = "\r\n".join(["HTTP/1.1 200 OK", 'ETag: "b"', "Content-Length: 10000", *fields, "", ""]).encode()
    o.page("/x", in_turn(says("Cache-Control: max-age=1", 'ETag: "a"', body="old"), raw(head + body[:5000], go, body[5000:], last=None),
                         says(MINUTE, body="anew")))
    fill(w, "/x")
    time.sleep(LATER)
    with w.client() as a, w.client() as b:
        a.send(request("/x"))
        a.gather(1, TIMEOUT)
        b.send(request("/x"))
        time.sleep(0.3)
        assert w.ask("/other", timeout=TIMEOUT).status == 200
        go.set()
        assert a.response().body == body
        m = b.response(timeout=2 * TIMEOUT)
        assert m.body == (body if fields[0] == MINUTE else b"anew")
        assert o.count("/x") == (2 if fields[0] == MINUTE else 3)


# ---- revalidation in the background --------------------------------------------------

@pytest.mark.parametrize("how", ["HEAD", "Range"])
def test_refresh_by_a_request_that_is_no_plain_get(cached, how):
    """What asks anew about a stale entry stores a whole answer, whatever the request was that found it stale."""
    w, o = cached()
    o.page("/x", says("Cache-Control: max-age=1, stale-while-revalidate=60", body="0123456789"))
    fill(w, "/x")
    time.sleep(LATER)
    m = w.ask("/x", method="HEAD") if how == "HEAD" else w.ask("/x", "Range: bytes=2-3")
    assert said(m) == "STALE"
    if how == "HEAD":
        time.sleep(0.3)
        assert said(w.ask("/x")) == "STALE"
    o.wait("/x", 2)
    eventually(lambda: said(w.ask("/x")) == "HIT", "it is fresh again")
    m = w.ask("/x")
    assert hit(m) and m.body == b"0123456789", m.raw
    assert [m.method for m in o.asked("/x")] == ["GET", "GET"]


def test_checks_of_an_entry_that_is_gone(cached):
    """A request that waited asks without the validators of an entry it no longer has: else its client gets a 304."""
    w, o = cached()
    go = threading.Event()
    o.page("/x", in_turn(says("Cache-Control: max-age=1", 'ETag: "a"', body="one"),
                         after(go, raw(reply("two", "Cache-Control: no-store"), last=None)),
                         says("Cache-Control: max-age=1", 'ETag: "a"', body="one")))
    fill(w, "/x")
    time.sleep(LATER)
    two = crowd(w, 1, "/x")
    o.wait("/x", 2)
    two += crowd(w, 1, "/x")
    time.sleep(0.3)
    purge(w, "/x")
    go.set()
    got = answers(two)
    assert [m.status for m in got] == [200, 200], [m.line for m in got]


def test_head_of_what_arrives_in_chunks(warp, backend):
    """HEAD finds an entry whose length nobody knows yet, where answers are compressed."""
    o = Origin(backend)
    go = threading.Event()
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n" +
                     chunks(b"a" * 5000, last=False), go, chunks(b"b"), last=None))
    conf = cache_conf(o)
    conf["middleware"] = {"gzip_compression_enabled": True}
    w = warp(toml_file(conf))
    with w.client() as a:
        a.send(request("/x"))
        a.gather(1000, TIMEOUT)
        m = w.ask("/x", "Accept-Encoding: gzip", method="HEAD")
        assert m.status == 200 and hit(m) and not m.has("content-length") and m.get("content-encoding") == "gzip"
        go.set()
        assert a.response().body == b"a" * 5000 + b"b"


# ---- fields ---------------------------------------------------------------------------

@pytest.mark.parametrize("n", [253, 254, 255, 256])
@pytest.mark.parametrize("how", ["length", "chunks"])
def test_heads_with_as_many_fields_as_there_may_be(cached, n, how):
    w, o = cached(server={"max_header_bytes": 32768})
    o.page("/x", says(MINUTE, "Date: " + caching.date(), *("X-%d: y" % i for i in range(n - 3)), body="0123456789", chunked=how == "chunks"))
    for i in range(3):
        m = w.ask("/x")
        assert m.status == 200 and m.body == b"0123456789"
        m = w.ask("/x", "Range: bytes=0-1")
        assert m.status in (200, 206)


def test_vary_on_what_warp_says(cached):
    """The upstream tells apart what warp told it of the client: answers are not for others."""
    w, o = cached(server={"trusted_proxies": ["127.0.0.0/8"]})
    for name in ("X-Forwarded-For", "X-Real-IP"):
        o.page("/" + name, says(MINUTE, "Vary: " + name, body=lambda m, n: "for " + m.get("x-real-ip")))
        assert w.ask("/" + name, "X-Forwarded-For: 192.0.2.1").body == b"for 192.0.2.1"
        assert w.ask("/" + name, "X-Forwarded-For: 192.0.2.2").body == b"for 192.0.2.2"


# ---- who shares an entry ----------------------------------------------------------------

def test_routes_that_ask_otherwise(warp, backend):
    """Two routes to one upstream that ask it different things about the same URL do not share answers."""
    o = Origin(backend)
    o.page("/x", says(MINUTE, body=lambda m, n: "for %s" % m.get("x-group", "all")))
    o.page("/beta/x", says(MINUTE, body="beta"))
    w = warp(toml_file(cache_conf(o, {"header": {"name": "X-Staff", "value": "1"}, "upstream": "app", "add_headers": [
        {"name": "X-Group", "value": "staff"}]}, {"header": {"name": "X-Beta", "value": "1"}, "path_prefix": "/", "rewrite": "/beta/",
        "upstream": "app"}, {"upstream": "app"})))
    for _ in range(2):
        assert w.ask("/x", "X-Staff: 1").body == b"for staff"
        assert w.ask("/x").body == b"for all"
        assert w.ask("/x", "X-Beta: 1").body == b"beta"


# ---- X-Sendfile ---------------------------------------------------------------------------

def test_sendfile_lets_the_others_go(warp, backend, tmp_path):
    """A file that the upstream names is not stored: who asks for it too does not wait until it is sent."""
    big = content("file", 8 * MB)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "big").write_bytes(big)
    o = Origin(backend)
    o.page("/x", says(MINUTE, "X-Sendfile: big", body=""))
    conf = cache_conf(o)
    conf["middleware"] = {"x_sendfile_enabled": True, "x_sendfile_root": str(tmp_path / "root")}
    w = warp(toml_file(conf))
    slow = Client(w.port, rcvbuf=2048)
    slow.send(request("/x"))
    slow.gather(1, TIMEOUT)
    start = time.monotonic()
    assert w.ask("/x").body == big
    assert time.monotonic() - start < 3 * SLOW
    slow.close()


# ---- clients that leave -----------------------------------------------------------------

def test_requests_that_were_left_are_in_the_log(warp, backend):
    o = Origin(backend)
    go = threading.Event()
    o.page("/x", after(go, says(MINUTE)))
    conf = cache_conf(o)
    conf["middleware"] = {"log_requests": True}
    conf["log"] = {"format": "json"}
    w = warp(toml_file(conf))
    c = w.client()
    c.send(request("/x"))
    o.wait("/x")
    lib.rst(c.sock)
    w.wait_stdout(r'"/x".*499|499.*"/x"')
    go.set()


def test_fetches_leave_room_for_clients(cached):
    """Who asks for much that is slow and leaves at once does not take all connections to upstreams."""
    w, o = cached(server={"max_connections": 8})
    go = threading.Event()
    for i in range(60):
        o.page("/slow/%d" % i, after(go, says(MINUTE)))
    for i in range(60):
        c = w.client()
        c.send(request("/slow/%d" % i))
        eventually(lambda: o.count("/slow/%d" % i) or w.ask("/free/%d" % random.getrandbits(60)).status != 200, "it is asked")
        lib.rst(c.sock)
    try:
        assert w.ask("/more").status == 200
    finally:
        go.set()


def test_read_timeout_is_not_waited_for_twice(cached):
    """An upstream that falls silent amid a body: who reads it from the cache sees it cut after one timeout."""
    w, o = cached({"upstream": "app", "read_timeout_secs": 1})
    go = threading.Event()
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"a" * 1000, last=False),
                     go, last=None))
    with w.client() as a, w.client() as b:
        a.send(request("/x"))
        a.gather(1000, TIMEOUT)
        b.send(request("/x"))
        b.gather(1000, TIMEOUT)
        start = time.monotonic()
        for c in (a, b):
            with pytest.raises((EOFError, ConnectionError)):
                c.response(timeout=TIMEOUT)
        assert time.monotonic() - start < 1.8 * SLOW
    go.set()


def test_purge_before_the_head(cached):
    """Somebody asks anew while the purged answer is still to come: each gets the answer to its own request."""
    w, o = cached()
    first, second = threading.Event(), threading.Event()
    o.page("/x", in_turn(after(first, says(MINUTE, body="the old one")), after(second, says(MINUTE, body="new"))))
    with w.client() as a, w.client() as b:
        a.send(request("/x"))
        o.wait("/x")
        purge(w, "/x")
        b.send(request("/x"))
        o.wait("/x", 2)
        first.set()
        assert a.response(timeout=TIMEOUT).text == "the old one"
        second.set()
        assert b.response(timeout=TIMEOUT).text == "new"
    assert hit(w.ask("/x")) and w.ask("/x").text == "new"


# ---- purges by a path of what has none -----------------------------------------------

def test_targets_without_a_path(cached):
    w, o = cached()
    for target in ("http://a.example", "http://a.example?q", "http://a.example?q=/", "/"):
        assert w.ask(target).status == 200, target
    purge(w, "/x")
    purge(w, "/*")
    assert w.ask("/").status == 200
    assert w.proc.poll() is None


# ---- 304 ------------------------------------------------------------------------------

def test_304_that_forbids_storing(cached):
    """A 304 that says private: what is stored is for nobody without being asked about, not even stale."""
    w, o = cached()
    o.page("/x", says("Cache-Control: max-age=1, stale-while-revalidate=600, stale-if-error=600", 'ETag: "a"', body="one",
                      fields304=('ETag: "a"', "Cache-Control: private, stale-while-revalidate=600, stale-if-error=600")))
    fill(w, "/x")
    time.sleep(LATER)
    assert said(w.ask("/x")) == "STALE"
    o.wait("/x", 2)
    time.sleep(0.3)
    assert said(w.ask("/x")) != "STALE"


def test_cookies_of_a_304(cached):
    """What the upstream sets while it renews is for the client whose request it was, and is not stored."""
    w, o = cached()
    o.page("/x", says("Cache-Control: no-cache", 'ETag: "a"', body="one",
                      fields304=('ETag: "a"', "Set-Cookie: a=1", "X-New: 1", "Set-Cookie: b=2; Path=/")))
    w.ask("/x")
    for fields, status in (((), 200), (('If-None-Match: "a"',), 304)):
        m = w.ask("/x", *fields)
        assert m.status == status and hit(m) and m.all("set-cookie") == ["a=1", "b=2; Path=/"] and m.get("x-new") == "1"
    o.page("/x", says("Cache-Control: max-age=60", 'ETag: "a"', fields304=("Cache-Control: max-age=60",)))
    w.ask("/x")
    m = w.ask("/x")
    assert hit(m) and not m.has("set-cookie") and m.get("x-new") == "1"


@pytest.mark.parametrize("chunked", [False, True])
def test_lines_of_a_miss(warp, backend, chunked):
    """A miss, which the cache fetches and gives on, has what warp adds to an answer: the cookie of the instance, and Via."""
    o = Origin(backend)
    o.page("/x", says(MINUTE, chunked=chunked))
    conf = cache_conf(o)
    conf["upstreams"]["app"]["strategy"] = "cookie"
    conf["middleware"] = {"via": True}
    w = warp(toml_file(conf))
    miss, stored = w.ask("/x"), w.ask("/x")
    assert said(miss) == "MISS" and miss.get("via") == "1.1 warp" and miss.get("set-cookie").startswith("warp_instance=")
    assert hit(stored) and stored.get("via") == "1.1 warp" and not stored.has("set-cookie")


def test_purge_says_how_many(cached):
    w, o = cached()
    fill(w, "/a", "/a?1", "/b")
    assert [purge(w, t) for t in ("/a", "/a", "*", "*")] == ["ok, %d purged\n" % n for n in (2, 0, 1, 0)]


# ---- reloads -----------------------------------------------------------------------------

@pytest.mark.limit(40)
def test_reader_of_what_a_third_generation_fetches(cached):
    """A worker of two reloads ago fills an entry: those of today read it to its end."""
    w, o = cached()
    go = threading.Event()
    body = content("x", 200000)
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 200000\r\n\r\n" + body[:1000], go, body[1000:], last=None))
    hold, end = [], threading.Event()
    o.page("/long", after(end, says("Cache-Control: no-store")))  # keeps the workers of all
    long = []
    for i in range(4):
        long += crowd(w, 1, "/long")
        c = w.client()
        c.send(request("/x"))
        c.gather(500, TIMEOUT)
        hold.append(c)
        was = set(w.children())
        w.signal(lib.signal.SIGHUP)
        eventually(lambda: set(w.children()) - was, "a new worker")
        eventually(lambda: w.ask("/ready").status == 200 and len(w.children()) > len(was), "it serves")
        time.sleep(0.3)
    go.set()
    for i, c in enumerate(hold):
        assert c.response(timeout=TIMEOUT).body == body, i
        c.close()
    assert o.count("/x") == 1
    end.set()
    assert all(m.status == 200 for m in answers(long))


# ---- a stale answer at hand -------------------------------------------------------------

def test_stale_answer_does_not_wait_for_an_instance(cached):
    """Nothing can be asked, but there is what may be sent instead: nobody waits hold_secs for it."""
    w, o = cached(stale_secs=60)
    o.page("/x", says("Cache-Control: max-age=1", body="old"))
    fill(w, "/x")
    o.down()
    time.sleep(LATER)
    for _ in range(8):
        start = time.monotonic()
        m = w.ask("/x")
        assert said(m) == "STALE" and m.body == b"old"
        assert time.monotonic() - start < 0.5 * SLOW


# ---- bodies whose length nobody knows ----------------------------------------------------

def test_stalled_first_client_of_chunks(cached):
    """The first client of a page in chunks reads nothing: who asks for it too gets it all the same."""
    w, o = cached()
    body = content("x", 3 * MB)
    o.page("/x", says(MINUTE, body=body, chunked=True))
    slow = Client(w.port, rcvbuf=2048)
    slow.send(request("/x"))
    slow.gather(1, TIMEOUT)
    start = time.monotonic()
    assert w.ask("/x").body == body
    assert time.monotonic() - start < 3 * SLOW
    slow.close()


def test_chunks_that_are_more_than_the_cache(cached):
    """Two clients of one endless page: the second one gets all of it, too."""
    w, o = cached(size=MB)
    body = content("x", 4 * MB)
    go = threading.Event()

    def page(c, m, n):
        c.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(body[:1000], last=False))
        go.wait(TIMEOUT)
        c.send(chunks(*(body[i:i + 10000] for i in range(1000, len(body), 10000))))
    o.page("/x", page)
    with w.client() as a, w.client() as b:
        a.send(request("/x"))
        a.gather(1000, TIMEOUT)
        b.send(request("/x"))
        b.gather(1000, 0.5 * TIMEOUT)
        go.set()
        got = {}
        t = threading.Thread(target=lambda: got.update(a=a.response(timeout=TIMEOUT)))
        t.start()
        assert b.response(timeout=TIMEOUT).body == body
        t.join()
        assert got["a"].body == body


def test_chunks_too_large_are_known(cached):
    """What was too large is not waited for, nor stored in part, the next time."""
    w, o = cached(max_object_bytes=10000)
    go = threading.Event()
    big = says(MINUTE, body=content("x", 50000), chunked=True)
    o.page("/x", in_turn(big, after(go, big)))
    assert w.ask("/x").body == content("x", 50000)
    clients = crowd(w, 3, "/x")
    o.wait("/x", 4)
    go.set()
    assert [m.body for m in answers(clients)] == 3 * [content("x", 50000)]
    assert o.count("/x") == 4


@pytest.mark.parametrize("body", [b"zz\r\n", b"5\r\nhelloX"], ids=["no size", "no end"])
def test_malformed_first_chunk(cached, body):
    """Nothing of it was sent yet: an error is."""
    w, o = cached()
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
    assert w.ask("/x").status == 502 and w.ask("/other").status == 200


# ---- what the client sees, and the log ------------------------------------------------------

def test_gzip_and_conditions(warp, backend):
    """Hits that are compressed: tags, Vary once, 304 for the weak tag with the same fields."""
    o = Origin(backend)
    o.page("/x", says(MINUTE, 'ETag: "a"', "Content-Type: text/plain", "Vary: Accept-Encoding", body="z" * 5000))
    conf = cache_conf(o)
    conf["middleware"] = {"gzip_compression_enabled": True, "via": True}
    w = warp(toml_file(conf))
    fill(w, "/x")
    w.ask("/x", "Accept-Encoding: gzip")                # a variant of its own
    for fields in ("Accept-Encoding: gzip",), ():
        m = w.ask("/x", *fields)
        assert hit(m) and m.tokens("vary") == ["accept-encoding"]
        assert m.get("etag") == ('W/"a"' if fields else '"a"')
        assert len(m.all("content-length")) + len(m.all("transfer-encoding")) == 1
        n = w.ask("/x", "If-None-Match: " + m.get("etag"), *fields)
        assert n.status == 304 and n.tokens("vary") == ["accept-encoding"] and not n.has("content-encoding")
        assert n.get("etag") == m.get("etag")
        assert w.ask("/x", "If-None-Match: " + m.get("etag"), *fields, method="HEAD").status == 304
    m = w.ask("/x", "Accept-Encoding: gzip", "Range: bytes=0-9")
    assert m.status == 206 and not m.has("content-encoding") and m.body == b"z" * 10


def test_pipeline_of_hits(cached):
    w, o = cached()
    for i in range(5):
        fill(w, "/%d" % i)
    with w.client() as c:
        c.send(b"".join(request("/%d" % (i % 5)) for i in range(200)))
        for i in range(200):
            m = c.response()
            assert hit(m) and m.text == "/%d 1" % (i % 5)


def test_reader_of_a_silent_fetch_costs_nothing(cached):
    w, o = cached()
    go = threading.Event()
    body = content("x", 300000)
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 300000\r\n\r\n" + body[:150000], go, body[150000:], last=None))
    clients = crowd(w, 20, "/x")
    slow = [Client(w.port, rcvbuf=2048) for _ in range(5)]
    for c in slow:
        c.send(request("/x"))
    for c in clients:
        c.gather(100000, TIMEOUT)
    time.sleep(0.3)
    was = ticks(w.children()[0])
    time.sleep(1)
    assert ticks(w.children()[0]) - was < 0.1
    go.set()
    assert all(m.body == body for m in answers(clients))
    for c in slow:
        c.close()


def test_in_flight_is_nothing_in_the_end(warp, backend):
    """Ghosts and fetches give back the places of an instance."""
    o = Origin(backend)
    conf = cache_conf(o, workers=2)
    conf["upstreams"]["app"] = {"hold_secs": 5, "instances": [{**o.conf, "max_connections": 4}]}
    w = warp(toml_file(conf))
    go = threading.Event()
    for i in range(4):
        o.page("/s/%d" % i, after(go, says(MINUTE)))
        c = w.client()
        c.send(request("/s/%d" % i))
        o.wait("/s/%d" % i)
        lib.rst(c.sock) if i % 2 else c.close()
    with w.client() as c:
        c.send(request("/waits"))
        time.sleep(0.3)
        assert o.count("/waits") == 0
        go.set()
        assert c.response(timeout=TIMEOUT).status == 200
    state = lambda: admin(w, "/status").json["upstreams"][0]["instances"][0]
    eventually(lambda: state()["in_flight"] == 0, "nothing is in flight")
    for i in range(4):
        assert hit(w.ask("/s/%d" % i))


def test_log_of_hits(warp, backend):
    o = Origin(backend)
    conf = cache_conf(o)
    conf["middleware"] = {"log_requests": True}
    conf["log"] = {"format": "json"}
    w = warp(toml_file(conf))
    w.ask("/x"), w.ask("/x", "Range: bytes=0-1"), w.ask("/x", "If-None-Match: *"), w.ask("/x", method="HEAD")
    w.wait_stdout(r'(?s)(.*"/x"){4}')
    lines = [json.loads(x) for x in w.stdout.splitlines() if x.startswith("{")]
    assert [x["status"] for x in lines] == [200, 206, 304, 200], lines
    assert [x.get("upstream") for x in lines] == ["app"] * 4, lines
    assert all(x["request_id"] for x in lines) and len({x["request_id"] for x in lines}) == 4


def test_expect_and_http_1_0(cached):
    w, o = cached()
    fill(w, "/x")
    with w.client() as c:
        c.send(request("/x", "Expect: 100-continue"))
        m = c.response()
        assert m.status == 200
        c.send(request("/x", version="1.0"))
        m = c.response()
        assert m.body == b"/x 1" and m.get("connection") == "close"
        assert not c.fill(TIMEOUT)
    with w.client() as c:
        for _ in range(3):
            c.send(request("/x", "Connection: keep-alive", version="1.0"))
            assert hit(c.response())


def test_idle_stop_waits_for_a_fetch(cached):
    """A rolling restart or drain of the instance lets a fetch without client end."""
    w, o = cached()
    go = threading.Event()
    body = content("x", 100000)
    o.page("/x", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100000\r\n\r\n" + body[:1000], go, body[1000:], last=None))
    c = w.client()
    c.send(request("/x"))
    c.gather(500, TIMEOUT)
    c.close()
    state = lambda: admin(w, "/status").json["upstreams"][0]["instances"][0]
    time.sleep(0.2)
    assert state()["in_flight"] == 1
    was = w.children()
    w.signal(lib.signal.SIGHUP)
    eventually(lambda: set(w.children()) - set(was), "a new worker")
    time.sleep(0.5)
    assert set(was) & set(w.children()), "it drains"
    assert w.ask("/y").status == 200
    go.set()
    eventually(lambda: not set(was) & set(w.children()), "it has drained")
    assert hit(w.ask("/x"))
    eventually(lambda: state()["in_flight"] == 0, "nothing is in flight")
