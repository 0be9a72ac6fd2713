"""Purges by PostgreSQL's NOTIFY: a real server, stopped, restarted, and one that lies."""
import os
import struct
import tempfile
import threading
import time

import pytest

import caching
import lib
from caching import Origin, admin, cache_conf, fill, hit, in_turn, raw, says
from lib import SLOW, TIMEOUT, eventually, toml_file
from stores import Postgres, Redis

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


@pytest.mark.parametrize("role", ["trusty", "plain", "md5", "scram"])
def test_authentication(cached, pg, role):
    w, o = cached(pg.url(role))
    listening(pg)
    fill(w, "/x")
    pg.notify(CHANNEL, "/x")
    purged(w, o, "/x")
    assert "pw" not in w.stderr and ":pw@" not in admin(w, "/config").text


@pytest.mark.parametrize("role", ["plain", "md5", "scram"])
def test_wrong_password(cached, pg, role):
    """Said in the log, without it; warp serves on."""
    w, o = cached(pg.url(role, "wr0ng"))
    fill(w, "/x")
    w.wait_stderr(r"28P01|28000|password authentication failed", 3 * TIMEOUT)
    assert "wr0ng" not in w.stderr and hit(w.ask("/x"))


def test_password_from_the_environment(warp, backend, pg):
    o = Origin(backend)
    warp(toml_file({**cache_conf(o), "postgres": {"url": "env:PG_URL", "channel": CHANNEL}}), env={"PG_URL": pg.url("scram")})
    listening(pg)


def test_unix_socket(cached, pg):
    w, o = cached("postgres://super@%s/postgres" % pg.dir.replace("/", "%2F") if pg.port == 5432 else
                  "postgres://super@%s:%d/postgres" % (pg.dir.replace("/", "%2F"), pg.port))
    listening(pg)
    fill(w, "/x")
    pg.notify(CHANNEL, "/x")
    purged(w, o, "/x")


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_tls(cached, pg, mode):
    w, o = cached(pg.url("scram", more="?sslmode=" + mode))
    listening(pg)
    ssl = pg.sql("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'warp'").split()
    assert ssl == ["f" if mode == "disable" else "t"]


@pytest.mark.parametrize("channel", ["warp_cache", "Mixed Case", 'a"b', "wörp"])
def test_channel_is_quoted(cached, pg, channel):
    w, o = cached(pg.url(), channel=channel)
    listening(pg)
    fill(w, "/x")
    pg.notify(channel + "_other", "/x")
    pg.notify(channel, "/none")
    assert hit(w.ask("/x"))
    pg.notify(channel, "/x")
    purged(w, o, "/x")


@pytest.mark.parametrize("payload", ["", " ", "/", "//", "/*/*", "**", "nonsense", "/'quoted\"", "/\u00e9", "/%zz", "/%00", "http://", "\\", "/" + "x" * 7990,
                                     "x" * 7990])
def test_odd_payloads(cached, pg, payload):
    """None of them is a reason to stop listening."""
    w, o = cached(pg.url())
    listening(pg)
    fill(w, "/x")
    pg.notify(CHANNEL, payload)
    if payload != "**":
        time.sleep(0.1)
        assert hit(w.ask("/x"))
    pg.notify(CHANNEL, "/x")
    purged(w, o, "/x")


@pytest.mark.limit(60)
def test_twenty_thousand_in_one_transaction(cached, pg):
    w, o = cached(pg.url())
    listening(pg)
    fill(w, "/x", "/last")
    pg.sql("SELECT count(pg_notify('%s', '/p/' || i)) FROM generate_series(1, 20000) i; SELECT pg_notify('%s', '/last')" % (CHANNEL, CHANNEL))
    purged(w, o, "/last")
    assert hit(w.ask("/x"))


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


@pytest.mark.parametrize("how", ["terminated", "fast", "immediate"])
@pytest.mark.parametrize("on_reconnect", ["purge", "keep"])
def test_connection_lost(cached, pg, how, on_reconnect):
    """It serves on, listens again, and drops what it has unless told otherwise: bells may have been missed."""
    w, o = cached(pg.url(), on_reconnect=on_reconnect)
    listening(pg)
    fill(w, "/x")
    old = pg.listeners()
    if how == "terminated":
        pg.sql("SELECT pg_terminate_backend(%d)" % old[0])
    else:
        pg.stop(how)
        assert hit(w.ask("/x"))
        pg.start()
    eventually(lambda: (now := pg.listeners()) and now != old, "it listens again", 3 * TIMEOUT)
    if on_reconnect == "purge":
        eventually(lambda: not hit(w.ask("/x")) or o.count("/x") > 1, "dropped")
    else:
        time.sleep(0.2)
        assert hit(w.ask("/x")) and o.count("/x") == 1
    fill(w, "/y")
    pg.notify(CHANNEL, "/y")
    purged(w, o, "/y")


def test_absent_at_start(cached, pg):
    pg.stop()
    w, o = cached(pg.url())
    fill(w, "/x")
    pg.start()
    listening(pg)
    fill(w, "/y")
    pg.notify(CHANNEL, "/y")
    purged(w, o, "/y")


def test_helper_is_killed(cached, pg):
    """Another takes its place; and it ends with warp."""
    w, o = cached(pg.url())
    listening(pg)
    old = pg.listeners()
    port = pg.sql("SELECT client_port FROM pg_stat_activity WHERE pid = %d" % old[0]).strip()

    class Peer:
        sock = type("S", (), {"getpeername": lambda self: ("127.0.0.1", int(port))})()
    os.kill(caching.holder(w, Peer), 9)
    eventually(lambda: (now := pg.listeners()) and now != old, "another listens", 3 * TIMEOUT)
    fill(w, "/y")
    pg.notify(CHANNEL, "/y")
    purged(w, o, "/y")
    w.stop()
    listening(pg, 0)


def test_reload(cached, pg):
    """The channel may change; no session is left over."""
    w, o = cached(pg.url())
    listening(pg)
    w.write({**cache_conf(o), "postgres": {"url": pg.url(), "channel": "other"}})
    w.signal(1)
    eventually(lambda: "other" in pg.sql("SELECT query FROM pg_stat_activity WHERE application_name = 'warp'"), "the new channel")
    listening(pg)
    fill(w, "/y")
    pg.notify("other", "/y")
    purged(w, o, "/y")
    w.write(cache_conf(o))
    w.signal(1)
    listening(pg, 0)


AUTH_OK, READY = b"R" + struct.pack("!II", 8, 0), b"Z" + struct.pack("!I", 5) + b"I"
LIES = {"nothing": b"", "garbage": b"hello, this is no database\r\n" * 10, "huge": b"R" + struct.pack("!I", 0x7fffffff), "short": b"R" + struct.pack("!I", 3),
        "zero": b"\0" * 100, "unknown auth": b"R" + struct.pack("!II", 8, 77), "impostor": AUTH_OK + READY + b"A" + struct.pack("!I", 0xffffffff),
        "sasl none": b"R" + struct.pack("!II", 9, 10) + b"\0", "no end": b"R" + struct.pack("!II", 12, 10) + b"XXXX",
        "error": b"E" + struct.pack("!I", 4 + 12) + b"SFATAL\0C57P0", "notify": AUTH_OK + READY + b"A" + struct.pack("!II", 12, 1) + b"abcd"}


@pytest.mark.parametrize("what", LIES)
def test_one_that_lies(cached, backend, what):
    """warp serves on, and does not spin."""
    b = backend([lambda c: c.fill(TIMEOUT) and None, LIES[what]])
    w, o = cached("postgres://scram:pw@127.0.0.1:%d/x?sslmode=disable" % b.port)
    fill(w, "/x")
    b.conn(0)
    time.sleep(0.5)
    assert hit(w.ask("/x")) and len(b.conns) < 5 and len(w.stderr.splitlines()) < 20


def test_impostor_without_a_signature(cached, backend):
    """Who lets everybody in knows no password: refused where one was given for SCRAM."""
    sasl = b"R" + struct.pack("!II", 8 + 15, 10) + b"SCRAM-SHA-256\0\0"
    b = backend([lambda c: c.fill(TIMEOUT) and None, sasl, lambda c: c.fill(TIMEOUT) and None, AUTH_OK + READY])
    w, o = cached("postgres://scram:pw@127.0.0.1:%d/x?sslmode=disable" % b.port)
    c = b.conn(0)
    assert c.closed.wait(2 * TIMEOUT)
    assert b"LISTEN" not in c.raw


@pytest.mark.parametrize("url", ["", "mysql://x", "postgres://h:99999/x", "postgres://h/x?sslmode=maybe"])
def test_conf_errors(check, url):
    p = check('[cache]\nsize_bytes = 1048576\n[postgres]\nurl = "%s"\nchannel = "c"\n[[routes]]\nrespond = { status = 200, body = "" }\n' % url)
    assert p.returncode == 1 and "postgres" in p.stderr


@pytest.mark.skipif(not Redis.program, reason="no redis-server")
def test_lost_notifications_and_redis(cached, pg, tmp_path):
    """What was notified meanwhile is not found in Redis either."""
    r = Redis(tmp_path)
    try:
        w, o = cached(pg.url(), redis_url=r.url)
        listening(pg)
        fill(w, "/x")
        eventually(lambda: r.keys(), "it is stored")
        pg.sql("SELECT pg_terminate_backend(%d); SELECT pg_sleep(0.2); SELECT pg_notify('%s', '/x')" % (pg.listeners()[0], CHANNEL))
        listening(pg)
        eventually(lambda: not r.keys(), "Redis is purged")
        w.ask("/x")
        assert o.count("/x") == 2
    finally:
        r.close()
