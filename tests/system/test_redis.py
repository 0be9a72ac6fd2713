"""The second level of the cache: a real redis-server, killed, stalled and full; and one that lies."""
import time

import pytest

import caching
import lib
from caching import LATER, MB, Origin, admin, answers, cache_conf, content, crowd, date, hit, post_purge, purge, said, says
from lib import CLOSE, SLOW, TIMEOUT, eventually, toml_file
from stores import Redis

pytestmark = [pytest.mark.skipif(not caching.supported("redis_url = \"redis://127.0.0.1:1\""), reason="this warp has no second level"),
              pytest.mark.skipif(not Redis.program, reason="no redis-server")]
MINUTE = "Cache-Control: max-age=60"


@pytest.fixture
def redis(tmp_path):
    """redis(*arguments, unix=) -> a Redis."""
    made = []

    def start(*args, **kw):
        dir = tmp_path / ("redis%d" % len(made))
        dir.mkdir()
        made.append(Redis(dir, *args, **kw))
        return made[-1]
    yield start
    for r in made:
        r.close()


@pytest.fixture
def cached(warp, backend):
    """cached(redis_url=, ...) -> a warp and its origin; origin=: that of another."""
    def start(*routes, origin=None, **kw):
        o = origin or Origin(backend)
        return warp(toml_file(cache_conf(o, *routes, **kw))), o
    return start


def stored(r, n=1):
    """Waits until there is so much: it is filled behind the responses."""
    eventually(lambda: len(r.keys()) >= n, "%d keys" % n)


@pytest.mark.promise("S2-79")
def test_survives_a_restart(cached, redis):
    r = redis()
    w, o = cached(redis_url=r.url)
    for i in range(10):
        o.page("/%d" % i, says(MINUTE, "X-F: %d" % i, 'ETag: "%d"' % i, body=content(i)))
        w.ask("/%d" % i)
    stored(r, 10)
    w.stop()
    time.sleep(LATER)
    w, _ = cached(redis_url=r.url, origin=o)
    eventually(lambda: "is used" in w.stderr, "redis")
    for i in range(10):
        for _ in range(2):
            m = w.ask("/%d" % i)
            assert hit(m) and m.body == content(i) and m.get("x-f") == str(i) and m.get("etag") == '"%d"' % i
            assert int(m.get("age")) >= 1, "it goes on ageing"
        assert o.count("/%d" % i) == 1


@pytest.mark.promise("S2-79")
def test_shared_by_two(cached, redis):
    r = redis()
    a, o = cached(redis_url=r.url)
    b, _ = cached(redis_url=r.url, origin=o, workers=2)
    o.page("/x", says(MINUTE))
    assert a.ask("/x").text == "/x 1"
    stored(r)
    assert {m.text for m in answers(crowd(b, 20, "/x"))} == {"/x 1"} and o.count("/x") == 1


def test_what_goes_there(cached, redis):
    """What may be shared, for as long as it is fresh."""
    r = redis()
    w, o = cached(redis_url=r.url, max_object_bytes=100000)
    o.page("/minute", says(MINUTE))
    o.page("/second", says("Cache-Control: max-age=1"))
    for t, page in {"/private": says("Cache-Control: private, max-age=60"), "/no-store": says("Cache-Control: no-store"), "/none": says(),
                    "/cookie": says(MINUTE, "Set-Cookie: a=b"), "/big": says(MINUTE, body=b"x" * 200000)}.items():
        o.page(t, page)
        w.ask(t)
    w.ask("/auth", "Authorization: Basic eDp5")
    w.ask("/post", method="POST", body=b"")
    w.ask("/minute")
    w.ask("/second")
    stored(r)
    time.sleep(0.2)
    keys = r.keys("*")
    assert all(k.startswith(b"warp:") for k in keys)
    assert all(-1 != r("TTL", k) <= 60 for k in keys), "none stays for ever"
    for t in ("private", "no-store", "none", "cookie", "big", "auth", "post"):
        assert not [k for k in keys if t.encode() in k], t
    assert [k for k in keys if b"minute" in k]


def test_vary(cached, redis):
    r = redis()
    w, o = cached(redis_url=r.url)
    o.page("/x", says(MINUTE, "Vary: X-Lang", body=lambda m, n: m.get("x-lang", "none")))
    langs = [["X-Lang: de"], ["X-Lang: fr"], []]
    for k in langs:
        w.ask("/x", *k)
    stored(r, 3)
    time.sleep(0.2)
    w.stop()
    w, _ = cached(redis_url=r.url, origin=o)
    eventually(lambda: "is used" in w.stderr, "redis")
    for k in langs:
        assert w.ask("/x", *k).text == (k[0][8:] if k else "none")
    assert o.count("/x") == 3


@pytest.mark.parametrize("how", ["path", "prefix", "all", "POST"])
def test_purge(cached, redis, how):
    """There as well: neither this warp after a restart nor another gets the old one."""
    r = redis()
    w, o = cached(redis_url=r.url)
    for t in ("/a/x", "/a/x?q", "/b"):
        w.ask(t)
    stored(r, 3)
    if how == "POST":
        w.ask("/a/x", method="POST", body=b"")
    else:
        purge(w, {"path": "/a/x", "prefix": "/a/*", "all": "*"}[how])
    eventually(lambda: not [k for k in r.keys() if b"/a/x" in k and b"?q" not in k], "gone")
    w.stop()
    w, _ = cached(redis_url=r.url, origin=o)
    assert int(w.ask("/a/x").text.split()[1]) >= 2
    assert hit(w.ask("/b")) is (how != "all")


# ---- what goes wrong: never an error for a client ----------------------------------------------

def asks(w, n=10, secs=3, at="/x"):
    """So many different pages, all of them right, within the time."""
    begin = time.monotonic()
    for i in range(n):
        m = w.ask("%s%d" % (at, i))
        assert m.status == 200 and m.text.startswith("%s%d " % (at, i)), m
    assert time.monotonic() - begin < secs * SLOW


def test_killed_and_back(cached, redis):
    r = redis()
    w, o = cached(redis_url=r.url, workers=2)
    asks(w)
    r.kill()
    asks(w, 30, at="/y")
    asks(w)
    r.start()
    n = iter(range(100000))
    eventually(lambda: w.ask("/z%d" % next(n)).status == 200 and r.keys(), "used again", 3 * TIMEOUT)
    assert len(w.stderr.splitlines()) < 30, "a line per change, not per request"


def test_stalled(cached, redis):
    """It accepts and says nothing: a wait of redis_timeout_ms now and then, then none."""
    r = redis()
    w, o = cached(redis_url=r.url, redis_timeout_ms=100)
    asks(w)
    r.freeze()
    try:
        asks(w, 60, 3, "/s")
        assert {m.text for m in answers(crowd(w, 50, "/crowd"))} == {"/crowd 1"}
    finally:
        r.go_on()
    asks(w, at="/t")
    eventually(lambda: w.ask("/u%d" % time.monotonic_ns()).status == 200 and [k for k in r.keys() if b"/u" in k], "used again", 3 * TIMEOUT)


def test_late_replies_are_not_mistaken(cached, redis):
    """What comes after its time belongs to nobody."""
    r = redis()
    w, o = cached(redis_url=r.url, redis_timeout_ms=50, size=1 * MB)
    for i in range(20):
        o.page("/%d" % i, says(MINUTE, body=content(i)))
        w.ask("/%d" % i)
    stored(r, 20)
    w.stop()
    w, _ = cached(redis_url=r.url, redis_timeout_ms=50, origin=o)
    for turn in range(3):
        r.freeze()
        clients = [w.client().send(lib.request("/%d" % i)) for i in range(20)]
        time.sleep(0.08)
        r.go_on()
        for i, c in enumerate(clients):
            assert c.response().body == content(i)
            c.close()
        post_purge(w, "%2Fnone")


def test_full(cached, redis):
    r = redis("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    w, o = cached(redis_url=r.url)
    for i in range(60):
        o.page("/%d" % i, says(MINUTE, body=content(i, 100000)))
        for _ in range(2):
            assert w.ask("/%d" % i).body == content(i, 100000)
    assert hit(w.ask("/59"))


def test_absent_at_start(cached, redis):
    r = redis()
    r.stop()
    w, o = cached(redis_url=r.url)
    asks(w, 30)
    r.start()
    eventually(lambda: w.ask("/u%d" % time.monotonic_ns()).status == 200 and r.keys(), "used", 3 * TIMEOUT)


@pytest.mark.parametrize("change", ["garbage", "cut", "longer", "flip", "list", "empty", "others"])
def test_values_that_are_not_ours(cached, redis, change):
    """Whatever does not add up is a miss."""
    r = redis()
    w, o = cached(redis_url=r.url)
    w.ask("/x")
    w.ask("/y")
    stored(r, 2)
    w.stop()
    keys = r.keys()
    values = [r("GET", k) for k in keys]
    for k, v, other in zip(keys, values, values[::-1]):
        if change == "list":
            r("DEL", k)
            r("LPUSH", k, "x")
            continue
        r("SET", k, {"garbage": b"\xff" * len(v), "cut": v[:-3], "longer": v + b"x", "flip": v[:len(v) // 2] + bytes([v[len(v) // 2] ^ 1])
                     + v[len(v) // 2 + 1:], "empty": b"", "others": other}[change], "EX", "60")
    w, _ = cached(redis_url=r.url, origin=o)
    for t in ("/x", "/y"):
        m = w.ask(t)
        assert m.status == 200 and m.text.startswith(t + " "), m.text
        assert change == "others" or m.text == t + " 2"


LIES = {"garbage": b"hello\r\n", "error": b"-ERR no\r\n" * 50, "huge": b"$2147483647\r\n", "huge list": b"*2147483647\r\n", "negative": b"$-7\r\n",
        "number": b"$12x\r\nabc", "line": b"+" + b"x" * 100000, "nested": b"*1\r\n" * 100, "too much": b"+OK\r\n" * 1000, "cut": b"$100\r\nabc",
        "loading": b"-LOADING Redis is loading the dataset in memory\r\n" * 50, "nul": b"\0" * 1000}


@pytest.mark.parametrize("what", LIES)
def test_one_that_lies(cached, backend, what):
    b = backend([lambda c: c.fill(TIMEOUT) and None, LIES[what], CLOSE] if what == "cut" else [lambda c: c.fill(TIMEOUT) and None, LIES[what]])
    w, o = cached(redis_url="redis://127.0.0.1:%d" % b.port)
    asks(w, 20, 4)
    asks(w, 20)


def test_silent(cached, blackhole, backend):
    """Nobody accepts; and one that accepts and never says a word."""
    mute = backend([lambda c: c.rest(4 * TIMEOUT) and None])
    for port in (blackhole.port, mute.port):
        w, o = cached(redis_url="redis://127.0.0.1:%d" % port)
        asks(w, 20, 3)


# ---- the address ---------------------------------------------------------------------------------

def test_password_database_and_socket(cached, redis, tmp_path):
    r = redis("--requirepass", "p w%")
    w, o = cached(redis_url="redis://:p%%20w%%25@127.0.0.1:%d/2" % r.port)
    w.ask("/x")
    r("SELECT", "2")
    stored(r)
    assert "p w%" not in w.stderr and "p%20w" not in w.stderr
    shown = admin(w, "/config").text
    assert "p%20w" not in shown and "p w" not in shown
    path = "/tmp/warp-test-redis-%d" % r.port
    r = redis(unix=path)
    w, o = cached(redis_url="unix:" + path)
    w.ask("/x")
    stored(r)


def test_wrong_password(cached, redis):
    r = redis("--requirepass", "right")
    w, o = cached(redis_url="redis://:n0tThis0ne@127.0.0.1:%d" % r.port)
    asks(w, 30)
    eventually(lambda: "redis" in w.stderr.lower(), "a line in the log")
    assert "n0tThis0ne" not in w.stderr and r.keys("*") == []


@pytest.mark.parametrize("url", ["redis://", "http://x", "redis://h:99999", "redis://h/x", "redis://h:1/99999999999"])
def test_conf_errors(check, url):
    p = check('[cache]\nsize_bytes = 1048576\nredis_url = "%s"\n[[routes]]\nrespond = { status = 200, body = "" }\n' % url)
    assert p.returncode == 1 and "redis_url" in p.stderr


def test_stale_entries(cached, redis):
    """What has outlived its freshness there is validated, not served."""
    r = redis()
    w, o = cached(redis_url=r.url, stale_secs=30)
    o.page("/x", says("Cache-Control: max-age=1", 'ETag: "1"', "Date: " + date(), body=b"same"))
    w.ask("/x")
    stored(r)
    w.stop()
    time.sleep(LATER)
    w, _ = cached(redis_url=r.url, origin=o, stale_secs=30)
    eventually(lambda: "is used" in w.stderr, "redis")
    assert w.ask("/x").text == "same" and o.count("/x") == 2
