"""What PostgreSQL's NOTIFY does to the cache; how warp gets at it is in test_postgres."""
import os
import struct
import tempfile
import threading
import time

import pytest

import caching
import lib
from caching import Origin, cache_conf, fill, hit, in_turn, raw, says
from lib import TIMEOUT, eventually, toml_file
from stores import Postgres

pytestmark = [pytest.mark.skipif(not caching.supported(more="[postgres]\nurl = \"postgres://127.0.0.1:1/x\"\nchannel = \"c\"\n"),
                                 reason="this warp does not listen to PostgreSQL"),
              pytest.mark.skipif(not Postgres.there(), reason="no postgres")]
MINUTE = "Cache-Control: max-age=60"
CHANNEL = "warp_cache"


@pytest.fixture(scope="module")
def server(request, pki):
    """One for all tests of this file: setting one up takes two seconds."""
    with tempfile.TemporaryDirectory(prefix="warp-test-", dir="/tmp") as d:
        os.chmod(d, 0o777)
        cert = pki.cert("db.example")
        p = Postgres(d, cert.cert, cert.key)
        yield p
        p.close()


@pytest.fixture
def pg(server):
    if server.proc.poll() is not None:
        server.start()
    return server


@pytest.fixture
def cached(warp, backend):
    """cached(url, channel=, on_reconnect=, ...) -> a warp and its origin."""
    def start(url, channel=CHANNEL, on_reconnect=None, more=None, **kw):
        o = Origin(backend)
        keys = {"url": url, "channel": channel, **({"on_reconnect": on_reconnect} if on_reconnect else {}), **(more or {})}
        return warp(toml_file({**cache_conf(o, **kw), "postgres": keys})), o
    return start


def listening(pg, n=1):
    eventually(lambda: len(pg.listeners()) == n, "%d that listen" % n, 3 * TIMEOUT)


def purged(w, o, t, host="a.example"):
    """Waits until this is not served from the cache any more."""
    n = o.count(t)
    eventually(lambda: w.ask(t, host=host) and o.count(t) > n, "%s is gone" % t)


@pytest.mark.promise("S2-80")
def test_payloads(cached, pg):
    """A path (any host, any query), a prefix, a key, everything."""
    w, o = cached(pg.url(), workers=3)
    listening(pg)
    pages = ("/a/x", "/a/x?q", "/a/y", "/b")
    fill(w, *pages)
    fill(w, "/a/x", host="b.example")
    pg.notify(CHANNEL, "/a/x")
    purged(w, o, "/a/x")
    purged(w, o, "/a/x", host="b.example")
    purged(w, o, "/a/x?q")
    assert hit(w.ask("/a/y")) and hit(w.ask("/b"))
    pg.notify(CHANNEL, "/a/*")
    for t in pages[:3]:
        purged(w, o, t)
    assert hit(w.ask("/b"))
    pg.notify(CHANNEL, "a.example/b")
    purged(w, o, "/b")
    pg.notify(CHANNEL, "*")
    purged(w, o, "/b")


ODD = ("", " ", "/", "//", "/*/*", "nonsense", "/'quoted\"", "/\u00e9", "/%zz", "/%00", "http://", "\\", "/" + "x" * 7990,
       "x" * 7990)


def test_odd_payloads(cached, pg):
    """None of them purges what it does not name, or is a reason to stop listening."""
    w, o = cached(pg.url())
    listening(pg)
    fill(w, "/x", "/mark")
    for payload in ODD:
        pg.notify(CHANNEL, payload)
        pg.notify(CHANNEL, "/mark")
        purged(w, o, "/mark")
        assert hit(w.ask("/x")), payload[:20]
    pg.notify(CHANNEL, "**")
    pg.notify(CHANNEL, "/x")
    purged(w, o, "/x")


def test_bell_during_a_fetch(cached, pg):
    """Served, but not stored."""
    w, o = cached(pg.url())
    listening(pg)
    go = threading.Event()
    o.page("/x", in_turn(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n" + MINUTE.encode() + b"\r\n\r\nold", go, b"old", last=None),
                         says(MINUTE, body=b"new")))
    fill(w, "/mark")
    c = w.client().send(lib.request("/x"))
    c.head(TIMEOUT)
    pg.notify(CHANNEL, "/x")
    pg.notify(CHANNEL, "/mark")
    purged(w, o, "/mark")
    go.set()
    assert c.exactly(6, TIMEOUT) == b"oldold"
    assert w.ask("/x").text == "new"


@pytest.mark.parametrize("on_reconnect", ["purge", "keep"])
def test_connection_lost(cached, pg, on_reconnect):
    """It serves on, listens again, and drops what it has unless told otherwise: bells may have been missed."""
    w, o = cached(pg.url(), on_reconnect=on_reconnect)
    listening(pg)
    fill(w, "/x")
    old = pg.listeners()
    pg.sql("SELECT pg_terminate_backend(%d)" % old[0])
    eventually(lambda: (now := pg.listeners()) and now != old, "it listens again", 3 * TIMEOUT)
    if on_reconnect == "purge":
        eventually(lambda: not hit(w.ask("/x")) or o.count("/x") > 1, "dropped")
    else:
        time.sleep(0.2)
        assert hit(w.ask("/x")) and o.count("/x") == 1
    fill(w, "/y")
    pg.notify(CHANNEL, "/y")
    purged(w, o, "/y")


AUTH_OK, READY = b"R" + struct.pack("!II", 8, 0), b"Z" + struct.pack("!I", 5) + b"I"
LIES = {"nothing": b"", "garbage": b"hello, this is no database\r\n" * 10, "huge": b"R" + struct.pack("!I", 0x7fffffff),
        "endless": AUTH_OK + READY + b"A" + struct.pack("!I", 0xffffffff),
        "notify": AUTH_OK + READY + b"A" + struct.pack("!II", 12, 1) + b"abcd"}


@pytest.mark.parametrize("what", LIES)
def test_one_that_lies(cached, backend, what):
    """warp serves on, and does not spin."""
    b = backend([lambda c: c.fill(TIMEOUT) and None, LIES[what]])
    w, o = cached("postgres://scram:pw@127.0.0.1:%d/x?sslmode=disable" % b.port)
    fill(w, "/x")
    b.conn(0)
    time.sleep(0.5)
    assert hit(w.ask("/x")) and len(b.conns) < 5 and len(w.stderr.splitlines()) < 20
