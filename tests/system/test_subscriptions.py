"""Nodes that come and go: the subscription server, cheap mode, signatures, the announcing side, statistics, the cache
protocol; held against a real uwsgi where specs/uwsgi.md says M, with real instances as nodes."""
import contextlib
import hmac
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import lib
import supervised
import uwsgi
from lib import CLOSE, FIN, HEAD, REQ, SLOW, TIMEOUT, Client, eventually, free_port, reply
from uwsgi import ANSWER, announce, block, body_of, both, cache, datagram, packet, refused, send, talk

promise = pytest.mark.promise
UDP = {"subscription_server": True}


# ---- announce, re-announce, leave --------------------------------------------------

@both
@promise("S1-31", "S1-32", "S1-33")
def test_announced_nodes_get_requests(router, node):
    a, b = node(), node(unix=True)
    r = router(**UDP)
    assert r.node("example.com") == ""
    r.subscribe("example.com", a)
    r.subscribe("unbit.it", b, modifier1=5, modifier2=3)
    r.subscribe("uwsgi.it:8000", b)
    assert [r.node(k) for k in ("example.com", "unbit.it", "uwsgi.it:8000", "uwsgi.it")] == ["n0", "n1", "n1", ""]
    assert [(p.modifier1, p.modifier2) for p in (a.request(), b.request(0), b.request(1))] == [(0, 0), (5, 3), (0, 0)]


@both
@promise("S1-31")
def test_several_servers(router, node, tmp_path):
    """UDP and unix datagrams into one table."""
    path, port = str(tmp_path / "sub"), free_port()
    a, b = node(), node()
    r = router(subscription_server=[path, "127.0.0.1:%d" % port])
    r.subscribe("a", a)
    r.subscription = "127.0.0.1:%d" % port
    r.subscribe("a", b)
    assert {r.node("a") for _ in range(4)} == {"n0", "n1"}


@both
@promise("S1-31")
def test_what_a_datagram_need_not_have(router, node):
    """Any modifier1, any length in its header, names nobody knows, in any order."""
    n = node()
    r = router(**UDP)
    body = datagram("x", n.address)[4:]
    for i, head in enumerate((struct.pack("<BHB", 7, len(body), 0), struct.pack("<BHB", 224, 0, 0), struct.pack("<BHB", 224, 65535, 0))):
        key = b"k%d" % i
        send(r.subscription, head + block([("address", n.address), ("surprise", "x" * 300), ("key", key), ("load", "7")]))
        eventually(lambda: r.node(key.decode()) == "n0", "key %d" % i)


@both
@promise("S1-31")
def test_announced_again_is_one_node(router, node):
    n = node()
    r = router(**UDP)
    r.subscribe("a", n, load=1, cores=2, weight=3)
    for load in (2, 3, 4):
        r.announce("a", n, load=load, cores=8, weight=5)
    eventually(lambda: r.stats()["subscriptions"][0]["nodes"][0]["load"] == 4, "the new load")
    (it,) = r.stats()["subscriptions"][0]["nodes"]
    assert (it["name"], it["cores"], it["weight"]) == (n.address, 8, 5)


@both
@promise("S1-34")
def test_silence_beyond_the_tolerance(router, node):
    a, b = node(), node()
    r = router(subscription_tolerance=1, **UDP)
    r.subscribe("a", a, b)
    stop = threading.Event()

    def alive():
        while not stop.wait(0.3):
            r.announce("a", a)
    t = threading.Thread(target=alive)
    t.start()
    try:
        start = time.monotonic()
        assert r.node("a")
        eventually(lambda: {r.node("a") for _ in range(4)} == {"n0"}, "the silent one is gone")
        assert 0.5 < time.monotonic() - start < 4 * SLOW
    finally:
        stop.set()
        t.join()
    eventually(lambda: r.node("a") == "", "the key is gone with its last node")
    r.subscribe("a", b)
    assert r.node("a") == "n1"


@both
@promise("S1-34")
@pytest.mark.parametrize("leave", [1, 2, 255])
def test_unsubscribed_nodes_get_no_request(router, node, leave):
    a, b = node(), node()
    r = router(**UDP)
    r.subscribe("a", a, b)
    r.announce("a", a, leave=leave)
    r.left("a", a)
    assert {r.node("a") for _ in range(4)} == {"n1"}
    r.announce("a", b, leave=True)
    r.left("a", b)
    assert r.node("a") == ""


@both
@promise("S1-34")
def test_requests_in_flight_finish(router, node):
    go = threading.Event()
    n = node([REQ, lib.WAIT(go), b"finished", FIN])
    r = router(**UDP)
    r.subscribe("a", n)
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a"}))
        n.request()
        r.announce("a", n, leave=True)
        r.left("a", n)
        assert r.node("a") == ""
        go.set()
        assert c.rest(TIMEOUT) == b"finished"


@both
@promise("S1-34")
def test_a_dead_node_costs_no_request(router, node):
    """Refused: the request goes to another, the node is out until it announces again."""
    a, b = node(), node()
    r = router(**UDP)
    r.subscribe("a", a, b)
    a.close()
    port = a.port
    assert [r.node("a") for _ in range(6)] == ["n1"] * 6
    node(name="again", port=port)
    r.subscribe("a", "127.0.0.1:%d" % port)
    assert {r.node("a") for _ in range(6)} == {"again", "n1"}


@promise("S1-34")
@pytest.mark.parametrize("kind", ["unix", "left"])
def test_a_dead_node_costs_no_request_either(router, node, tmp_path, kind):
    """A unix socket refuses at once (B); a node that left comes back, dead, as instances do it when they are stopped."""
    b = node(name="live")
    r = router(**UDP)
    dead = str(tmp_path / "dead") if kind == "unix" else "127.0.0.1:%d" % free_port()
    r.subscribe("a", b)
    if kind == "left":
        r.announce("a", dead, leave=True)
    r.subscribe("a", dead)
    assert [r.node("a") for _ in range(8)] == ["live"] * 8
    r.left("a", dead)


@promise("S1-34")
def test_a_reset_in_the_middle_marks_nobody(router, node):
    n = node([HEAD, lib.RST], [uwsgi.NAME])
    r = router(**UDP)
    r.subscribe("a", n)
    r.route("a")
    assert r.keys()["a"] == [n.address] and r.node("a") == "n0"


# ---- lookup, balance ----------------------------------------------------------------

@both
@promise("S1-34")
def test_dotsplit(router, node):
    keys = ["www.unbit.it", ".unbit.it", ".it", ".a.b.c.d.e"]
    r = router(subscription_dotsplit=True, **UDP)
    for k in keys:
        r.subscribe(k, node(name=k))
    ask = {"www.unbit.it": "www.unbit.it", "x.unbit.it": ".unbit.it", "unbit.it": ".it", "x.y.unbit.it": ".unbit.it", "it": "",
           "x.a.b.c.d.e": ".a.b.c.d.e", "z.y.x.w.a.b.c.d.e": ".a.b.c.d.e", "6.5.4.3.2.a.b.c.d.e": ""}
    assert {k: r.node(k) for k in ask} == ask


@both
@promise("S1-34")
def test_the_fallback_key(router, node):
    a, b = node(), node()
    r = router(subscription_fallback_key="other", **UDP)
    r.subscribe("a", a)
    assert r.node("nobody") == ""
    r.subscribe("other", b)
    assert (r.node("a"), r.node("nobody")) == ("n0", "n1")


@both
@promise("S1-34")
def test_fallback_on_no_key(router, node):
    a, last = node(), node(name="last")
    r = router(fallback=[last.address], fallback_on_no_key=True, **UDP)
    r.subscribe("a", a)
    assert (r.node("a"), r.node("nobody")) == ("n0", "last")


@both
@promise("S1-34")
@pytest.mark.parametrize("algo", [None, "wrr"])
def test_weights(router, node, algo):
    """1:3, in every four."""
    a, b = node(), node()
    r = router(subscription_algo=algo, **UDP)
    r.subscribe("a", a, weight=1)
    r.subscribe("a", b, weight=3)
    got = [r.node("a") for _ in range(40)]
    assert (got.count("n0"), got.count("n1")) == (10, 30)
    assert all(got[i:i + 4].count("n0") == 1 for i in range(4, 36, 4))


@both
@promise("S1-34")
@pytest.mark.parametrize("algo, weights, first", [("lrc", (1, 1), (2, 2)), ("wlrc", (1, 3), (1, 3))])
def test_least_requests_in_flight(router, node, algo, weights, first):
    """Four requests that stay: where they are."""
    go = threading.Event()
    nodes = [node([REQ, lib.WAIT(go), b"x", FIN]) for _ in weights]
    r = router(subscription_algo=algo, **UDP)
    for n, w in zip(nodes, weights):
        r.subscribe("a", n, weight=w)
    with contextlib.ExitStack() as stack:
        clients = []
        for i in range(4):
            clients.append(stack.enter_context(r.client()))
            clients[-1].send(packet({"HTTP_HOST": "a"}))
            eventually(lambda: sum(len(n.requests) for n in nodes) == i + 1, "request %d" % i)
        got = tuple(len(n.requests) for n in nodes)
        go.set()
        if r.real:
            assert all(got)                                # its search for the least has holes (B)
        else:
            assert got == first


@promise("S1-34")
def test_what_the_next_version_announces(router, node):
    """backup: a level above 0 only when all below are dead. algo: of this key."""
    a, b = node(), node()
    r = router(**UDP)
    r.subscribe("a", a)
    r.subscribe("a", b, backup=1)
    assert [r.node("a") for _ in range(4)] == ["n0"] * 4
    r.announce("a", a, leave=True)
    r.left("a", a)
    assert [r.node("a") for _ in range(4)] == ["n1"] * 4
    c, d = node(), node()
    for n in (c, d):
        r.subscribe("h", n, algo="iphash")
    assert len({r.node("h") for _ in range(6)}) == 1


@promise("S1-34")
def test_names_and_ipv6(router, node):
    a, b = node(), node(host="::1")
    r = router(subscription_server=["127.0.0.1:%d" % free_port(), "[::1]:%d" % free_port()])
    r.announce("a", "localhost:%d" % a.port)
    send(r.options["subscription_server"][1], datagram("b", "[::1]:%d" % b.port))
    eventually(lambda: {"a", "b"} <= set(r.keys()), "both")
    assert (r.node("a"), r.node("b")) == ("n0", "n1")


@both
@promise("S1-31")
def test_the_acknowledgement(router, node, tmp_path):
    """One datagram for a new node, none for one that is known."""
    path = str(tmp_path / "ack")
    n = node()
    r = router(**UDP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(TIMEOUT)
        r.announce("a", n, notify=path)
        assert s.recv(1000) == b"[subscription ack] a => new node: " + n.address.encode()
        r.announce("a", n, notify=path)
        r.announce("b", n, notify=path)
        assert s.recv(1000).startswith(b"[subscription ack] b")


# ---- hostile datagrams -----------------------------------------------------------------

def crooked(addr):
    ok = [("key", "evil"), ("address", addr)]
    return {
        "nothing": b"", "one byte": b"\xe0", "half a header": b"\xe0\0", "a header": packet(b"", 224), "no key": packet([("address", addr)], 224),
        "no address": packet([("key", "evil")], 224), "empty key": packet([("key", ""), ("address", addr)], 224),
        "empty address": packet([("key", "evil"), ("address", "")], 224), "cut": packet(ok, 224)[:-3],
        "a length beyond": packet(block(ok) + b"\xff\xff", 224), "a value beyond": packet(block(ok) + b"\1\0x\xff\xffy", 224),
        "a value missing": packet(block(ok) + b"\1\0x", 224),
    }


# uWSGI takes what it read before the fault, and an empty key.
LENIENT = ("no key", "empty key", "empty address", "a length beyond", "a value beyond", "a value missing", "cut")


@both
@promise("S1-31")
def test_datagrams_that_do_not_add_up(router, node):
    n = node()
    r = router(**UDP)
    for name, data in crooked(n.address).items():
        if not (r.real and name in LENIENT):
            send(r.subscription, data)
    r.subscribe("good", n)
    assert set(r.keys()) == {"good"} and r.node("evil") == "" and r.node("good") == "n0"


@promise("S1-31")
@pytest.mark.parametrize("key, address", [
    ("k" * 256, None), ("k" * 3000, None), ("evil", "a" * 256), ("evil", "nonsense"), ("evil", "127.0.0.1:0"), ("evil", "127.0.0.1:99999"),
    ("evil", "127.0.0.1:"), ("evil", "/" + "x" * 200), ("evil", "a\0b:80"), ("evil", "bad name:80"),
])
def test_datagrams_of_malice(router, node, key, address):
    """A key of more than 255 bytes writes over a table of uWSGI; an address that is none, its requests."""
    n = node()
    r = router(**UDP)
    r.announce(key, address or n.address)
    r.subscribe("good", n)
    assert r.node("good") == "n0"
    assert r.node(key) == "" and r.stats()["subscriptions"][0]["key"] == "good"


@promise("S1-31")
def test_what_is_printed_of_a_key_is_escaped(router, node):
    """In the statistics, in the log."""
    n = node()
    r = router(**UDP)
    key = 'a"b\\c\nforged: line\x1b[31m'
    r.announce(key, n)
    eventually(lambda: key in r.keys(), "the key, unharmed")
    assert r.node(key) == "n0"
    assert "\nforged" not in r.log() and "\x1b" not in r.log()


@promise("S1-31")
def test_a_flood_of_datagrams_costs_no_memory(router, node):
    """100,000 of keys that nobody has: the table is bounded, those that were there stay."""
    n = node()
    r = router(**UDP)
    r.subscribe("good", n)
    to = uwsgi.where(r.subscription)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        send_some = lambda a, b: [s.sendto(datagram("flood%d" % i, "127.0.0.1:1"), to) for i in range(a, b)]
        send_some(0, 20000)
        r.subscribe("good", n)
        before = r.warp.rss()
        send_some(20000, 100000)
        assert r.node("good") == "n0"
    assert lib.SANITIZED or r.warp.rss() < before + 2000000


# ---- signed ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs of keys: (private, public) files."""
    d = tmp_path_factory.mktemp("keys")
    out = []
    for n in "ab":
        private, public = d / (n + ".pem"), d / (n + ".pub")
        subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True, timeout=60)
        subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True, timeout=60)
        out.append((str(private), public.read_text()))
    return out


@pytest.fixture
def guarded(router, keys, tmp_path):
    """A router that wants signatures, and knows the first key for a and test.it:8000."""
    def make(digest="SHA256", **more):
        d = tmp_path / "pub"
        d.mkdir()
        for name in ("a", "b", "test.it_8000"):
            (d / (name + ".pem")).write_text(keys[0][1])
        return router(subscriptions_sign_check="%s:%s" % (digest, d), **{**UDP, **more})
    return make


@both
@promise("S1-31")
@pytest.mark.parametrize("digest", ["SHA1", "SHA256", "SHA512"])
def test_signed_subscriptions(guarded, node, keys, digest):
    n = node()
    r = guarded(digest)
    sign = (digest, keys[0][0])
    for key in ("a", "test.it:8000"):
        r.subscribe(key, n, sign=sign, modifier1=5, cores=1, load=0, weight=1)
        assert r.node(key) == "n0"
    assert n.last.modifier1 == 5


@both
@promise("S1-31")
def test_unsigned_or_badly_signed_is_refused(guarded, node, keys):
    n = node()
    r = guarded()
    good = ("SHA256", keys[0][0])
    now = int(time.time())
    whole = datagram("a", n.address, sign=good)
    for data in (datagram("a", n.address), datagram("a", n.address, unix=now),                # not at all
                 datagram("a", n.address, sign=("SHA256", keys[1][0])),                       # by another
                 datagram("a", n.address, sign=("SHA1", keys[0][0])),                         # of another digest
                 datagram("nokey", n.address, sign=good),                                     # no public key for it
                 datagram("a", n.address, sign=good, unix=now - 86400 - 60),                  # too old
                 whole.replace(block({"key": "a"}), block({"key": "b"})),                     # of another key
                 whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-200]):
        send(r.subscription, data)
    r.subscribe("test.it:8000", n, sign=good)
    assert set(r.keys()) == {"test.it:8000"} and r.node("a") == ""


@both
@promise("S1-31")
def test_the_age_that_is_allowed(guarded, node, keys):
    n = node()
    r = guarded(subscriptions_sign_check_tolerance=100)
    sign, now = ("SHA256", keys[0][0]), int(time.time())
    r.announce("a", n, sign=sign, unix=now - 200)
    r.subscribe("b", n, sign=sign, unix=now - 50)
    assert set(r.keys()) == {"b"}


@both
@promise("S1-31")
def test_a_replayed_subscription_changes_nothing(guarded, node, keys):
    """A known node must count up."""
    n = node()
    r = guarded()
    sign, now = ("SHA256", keys[0][0]), int(time.time())
    r.subscribe("a", n, sign=sign, unix=now, load=1)
    for unix in (now, now - 1):
        r.announce("a", n, sign=sign, unix=unix, load=9)
    r.announce("a", n, sign=sign, unix=now + 1, load=2)
    eventually(lambda: r.stats()["subscriptions"][0]["nodes"][0]["load"] == 2, "the newer one counts")
    r.announce("a", n, sign=sign, unix=now, load=9)
    if not r.real:                                         # it compares with the first one only (B)
        r.announce("a", n, sign=sign, unix=now + 1, load=9)
    r.subscribe("test.it:8000", n, sign=sign)
    assert next(s for s in r.stats()["subscriptions"] if s["key"] == "a")["nodes"][0]["load"] == 2


@promise("S1-31")
def test_the_two_clocks_of_a_signed_node(guarded, node, keys):
    """s and u, the highest of each kind, live longer than the node: a sniffed packet revives nobody, an unsigned one
    removes nobody, an instance restarted within the second is back."""
    n = node()
    r = guarded()
    sign, now = ("SHA256", keys[0][0]), int(time.time()) - 100
    there = lambda: bool(r.keys().get("a"))
    beat = iter(range(now + 1000, now + 2000))

    def settle():
        r.subscribe("test.it:8000", n, sign=sign, unix=next(beat), load=next(beat))
        load = next(beat)
        r.announce("test.it:8000", n, sign=sign, unix=load, load=load)
        eventually(lambda: any(x["load"] == load for s in r.stats()["subscriptions"] for x in s["nodes"]), "all taken")
    send(r.subscription, old := datagram("a", n.address, sign=sign, unix=now))
    send(r.subscription, datagram("a", n.address, leave=True))                                 # unsigned
    send(r.subscription, datagram("a", n.address, leave=True, sign=("SHA256", keys[1][0])))
    send(r.subscription, datagram("a", n.address, leave=True, sign=sign, unix=now))            # not after s
    settle()
    assert there()
    send(r.subscription, gone := datagram("a", n.address, leave=True, sign=sign, unix=now + 11))
    settle()
    assert not there()
    send(r.subscription, old)                                                                  # sniffed
    send(r.subscription, datagram("a", n.address, sign=sign, unix=now + 9))                    # older than it left
    settle()
    assert not there()
    send(r.subscription, datagram("a", n.address, sign=sign, unix=now + 10))                   # u - 1: restarted at once
    settle()
    assert there()
    send(r.subscription, gone)                                                                 # replayed
    settle()
    assert there()


@both
@promise("S1-31")
@pytest.mark.parametrize("right", [True, False])
def test_credentials(router, node, tmp_path, right):
    """Who sent it by a unix socket: a file of the key's name must belong to him."""
    (tmp_path / "mine").mkdir()
    n = node()
    name = tmp_path / "mine" / "a"
    name.write_text("")
    if not right:
        if os.geteuid():
            pytest.skip("needs root")
        os.chown(name, 12345, 12345)
    r = router(subscription_server=str(tmp_path / "sub"), subscriptions_use_credentials=True,
               subscriptions_credentials_check=[str(tmp_path / "mine") + "/"])
    (tmp_path / "mine" / "ok").write_text("")
    for key in ("a", "nofile", "ok"):
        send(r.subscription, datagram(key, n.address), creds=True)
    eventually(lambda: "ok" in r.keys(), "one with a file")
    assert set(r.keys()) == ({"a", "ok"} if right else {"ok"})
    it = next(s for s in r.stats()["subscriptions"] if s["key"] == "ok")["nodes"][0]
    assert (it["pid"], it["uid"], it["gid"]) == (os.getpid(), os.getuid(), os.getgid())


# ---- cheap --------------------------------------------------------------------------------

@both
@promise("S1-42")
def test_cheap(router, node):
    """The sockets are there, nothing is accepted; the first node of any key wakes it, the last that goes sends it to sleep."""
    n = node()
    r = router(cheap=True, **UDP)
    assert r.stats()["cheap"] == 1
    with r.client() as waits, r.client() as other:
        waits.send(packet({"HTTP_HOST": "a"}))
        other.send(packet({"HTTP_HOST": "b"}))
        assert waits.is_open(0.3) and other.is_open(0)
        r.subscribe("a", n)
        assert body_of(waits.rest(TIMEOUT)) == "n0 a 0"
        assert refused(other.rest(TIMEOUT))                # awake, and without a node as usual
    assert r.stats()["cheap"] == 0
    r.announce("a", n, leave=True)
    r.left("a", n)
    eventually(lambda: r.stats()["cheap"] == 1, "asleep again")
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a"}))
        assert c.is_open(0.3)
        r.subscribe("a", n)
        assert body_of(c.rest(TIMEOUT)) == "n0 a 0"


@both
@promise("S1-42")
def test_cheap_leaves_requests_in_flight_alone(router, node):
    go = threading.Event()
    n = node([REQ, lib.WAIT(go), b"finished", FIN])
    r = router(cheap=True, **UDP)
    r.subscribe("a", n)
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a"}))
        n.request()
        r.announce("a", n, leave=True)
        r.left("a", n)
        go.set()
        assert c.rest(TIMEOUT) == b"finished"
    if not r.real:                                         # it stays awake then (B)
        eventually(lambda: r.stats()["cheap"] == 1, "asleep")


@promise("S1-42")
def test_cheap_in_all_workers_at_no_cpu(router, node):
    """Two workers; a node that falls silent is noticed without a request (B); asleep, clients that wait cost nothing."""
    n = node()
    r = router(cheap=True, subscription_tolerance=1, processes=2, **UDP)
    r.subscribe("a", n)
    assert r.node("a") == "n0"
    eventually(lambda: r.stats()["cheap"] == 1, "asleep without a request")

    def waits():                                           # each worker hears of it in its own time
        with r.client() as c:
            c.send(packet({"HTTP_HOST": "a"}))
            return c.is_open(0.2)
    eventually(waits, "all workers are asleep")
    pids = [r.warp.pid] + r.warp.children()
    ticks = lambda: sum(sum(map(int, lib.read("/proc/%d/stat" % p).rpartition(")")[2].split()[11:13])) for p in pids)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(r.client()) for _ in range(20)]
        for c in clients:
            c.send(packet({"HTTP_HOST": "a"}))
        before = ticks()
        assert all(c.is_open(0.05) for c in clients)
        assert ticks() - before <= 10 * SLOW
        r.subscribe("a", n)
        assert [body_of(c.rest(TIMEOUT)) for c in clients] == ["n0 a 0"] * 20


# ---- the table lives ----------------------------------------------------------------------

@promise("S1-31")
@pytest.mark.parametrize("how", ["reload", "upgrade", "worker killed"])
def test_the_table_outlives_the_workers(router, node, how):
    n = node()
    r = router(more='[admin]\nlisten = ["@DIR@/admin"]\n', **UDP)
    r.subscribe("a", n)
    r.subscribe("b", n)
    with supervised_load(r) as load:
        load.more()
        if how == "reload":
            supervised.reload(r.warp)
        elif how == "upgrade":
            supervised.upgrade(r.warp)
        else:
            load.cuts = 3
            for pid in supervised.workers(r.warp):
                supervised.kill(pid)
        load.more()
    eventually(lambda: set(r.keys()) == {"a", "b"}, "both keys")
    assert r.node("b") == "n0"


class supervised_load:
    """Clients that ask for key a all the time; .errors. cuts: so many may fail."""

    def __init__(self, r, threads=2):
        self.r, self.n, self.errors, self.cuts = r, 0, [], 0
        self.over, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        while not self.over.is_set():
            try:
                got = body_of(self.r.ask({"HTTP_HOST": "a"}))
            except (OSError, AssertionError) as e:
                got = repr(e)
            with self.lock:
                if re.match(r"n\d a 0$", got):
                    self.n += 1
                elif self.cuts:
                    self.cuts -= 1
                else:
                    self.errors.append(got)

    def more(self, n=50):
        want = self.n + n
        eventually(lambda: self.n >= want or self.errors, "%d answers more" % n, 4 * TIMEOUT)
        assert not self.errors, self.errors[:5]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for t in self.threads:
            t.join(4 * TIMEOUT)
        assert not self.errors, self.errors[:5]


@promise("S1-34")
def test_a_node_killed_under_load_costs_nothing(router, node):
    a, b = node(), node()
    r = router(processes=2, **UDP)
    r.subscribe("a", a, b)
    with supervised_load(r) as load:
        load.more()
        load.cuts = len(load.threads)                      # what waits to be accepted is reset
        with contextlib.suppress(OSError):
            a.sock.shutdown(socket.SHUT_RDWR)              # refuses from now on, without a reset of what was accepted
        a.sock.close()
        load.more(100)


@promise("S1-34")
def test_many_keys(router, node):
    """1,000 keys, three nodes each."""
    nodes = [node() for _ in range(3)]
    r = router(**UDP)
    to = uwsgi.where(r.subscription)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        def all_there():
            have = {k: len(v) for k, v in r.keys().items()}
            for i in range(1000):
                for n in nodes if have.get("key%d" % i, 0) < 3 else ():
                    s.sendto(datagram("key%d" % i, n.address), to)
            return len(have) == 1000 and set(have.values()) == {3}
        eventually(all_there, "all of them")
    for i in (0, 1, 500, 998, 999):
        assert {r.node("key%d" % i) for _ in range(3)} == {"n0", "n1", "n2"}
    assert r.node("key1000") == ""


# ---- resubscribe -----------------------------------------------------------------------------

@both
@promise("S1-31")
def test_resubscribe(router, node):
    """What is announced here is announced there, as this router's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", free_port()))
        there.settimeout(TIMEOUT)
        n = node()
        r = router(resubscribe="127.0.0.1:%d" % there.getsockname()[1], **UDP)
        for leave in (False, True):
            r.announce("a", n, leave=leave, modifier1=5, modifier2=2, weight=7, load=3)
            data = there.recv(4096)
            vars = dict(uwsgi.unblock(data[4:]))
            assert (data[0], data[3]) == (224, leave)
            assert (vars["key"], vars["address"], vars["modifier1"], vars["modifier2"]) == ("a", r.listen[0], "5", "2")
            assert vars.get("weight", "0") == "0" and vars.get("load", "0") == "0" and "sign" not in vars
            if not leave:
                eventually(lambda: "a" in r.keys(), "here too")
        if isinstance(r, uwsgi.Warp):                      # its own address has come round; uWSGI never stops
            send(r.subscription, datagram("round", r.listen[0]))
            r.announce("b", n)
            assert dict(uwsgi.unblock(there.recv(4096)[4:]))["key"] == "b"


# ---- statistics ------------------------------------------------------------------------------

TOP = ["version", "pid", "uid", "gid", "cwd", "active_sessions", "fastrouter"]
NODE = ["name", "modifier1", "modifier2", "last_check", "pid", "uid", "gid", "requests", "last_requests", "tx", "rx", "cores", "load", "weight",
        "wrr", "ref", "failcnt", "death_mark"]


def djb33x(key):
    h = 5381
    for c in key.encode():
        h = ((h << 5) + h ^ c) & 0xffffffff
    return h


@both
@promise("S1-31")
def test_statistics(router, node):
    go = threading.Event()
    n = node([REQ, lib.WAIT(go), b"four", FIN])
    r = router(to=["127.0.0.1:1"], **UDP)
    r.subscribe("a", n, cores=4, load=5, weight=6, modifier1=7)
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "CONTENT_LENGTH": 3}) + b"abc")
        n.request()
        busy = r.stats()
        assert (busy["active_sessions"], busy["subscriptions"][0]["nodes"][0]["ref"]) == (1, 1)
        go.set()
        assert c.rest(TIMEOUT) == b"four"
    s = eventually(lambda: (x := r.stats())["active_sessions"] == 0 and x, "nothing in flight")
    assert list(s)[:len(TOP)] == TOP and list(s)[-1] == "cheap" and list(s)[len(TOP):-1] == ["static_nodes", "subscriptions"]
    assert s["fastrouter"][0] == r.listen[0] and r.subscription in s["fastrouter"]
    assert s["static_nodes"] == [{"name": "127.0.0.1:1", "hits": 0, "grace": 0}]
    (key,) = s["subscriptions"]
    assert list(key) == ["key", "hash", "hits", "sni_enabled", "nodes"]
    assert (key["key"], key["hits"], key["sni_enabled"]) == ("a", 1, 0) and key["hash"] == djb33x("a") % 65535
    (it,) = key["nodes"]
    assert list(it) == NODE and all(isinstance(v, int) for k, v in it.items() if k != "name")
    assert {k: it[k] for k in ("name", "modifier1", "requests", "last_requests", "tx", "cores", "load", "weight", "ref", "failcnt", "death_mark")} == {
        "name": n.address, "modifier1": 7, "requests": 1, "last_requests": 1, "tx": 4, "cores": 4, "load": 5, "weight": 6, "ref": 0,
        "failcnt": 0, "death_mark": 0}
    assert it["rx"] > 3 and abs(it["last_check"] - time.time()) < 30 * SLOW


@both
@promise("S1-31")
def test_statistics_as_http_and_by_a_unix_socket(router, tmp_path):
    r = router(stats=str(tmp_path / "stats"), stats_http=True, **UDP)
    got = talk(r.stats_at, b"GET / HTTP/1.0\r\n\r\n")
    head, _, text = got.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.0 200 OK"
    for field in (b"Connection: close", b"Access-Control-Allow-Origin: *", b"Content-Type: application/json"):
        assert field.lower() in head.lower()
    assert list(json.loads(text))[:2] == ["version", "pid"]


@promise("S1-31")
def test_the_log_has_a_line_for_each_event(router, node):
    a, b = node(), node()
    r = router(cheap=True, subscription_tolerance=1, **UDP)
    for what, do in (("new", lambda: r.subscribe("key.example", a)), ("left", lambda: r.announce("key.example", a, leave=True)),
                     ("silent", lambda: r.subscribe("key.example", b))):
        before = len(r.log())
        do()
        n = b if what == "silent" else a
        eventually(lambda: "key.example" in r.log()[before:] and n.address in r.log()[before:], what + ": " + r.log()[before:])
    eventually(lambda: r.log().count(b.address) >= 2, "the one that fell silent")


# ---- real instances ----------------------------------------------------------------------------

APP = '''
import json, os
def application(env, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [("%s %s" % (NAME, env.get("HTTP_HOST"))).encode()]
'''


def app(name):
    return "NAME = %r\n" % name + APP


VARS = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1"}


def visit(r, key):
    return body_of(r.ask({**VARS, "HTTP_HOST": key})).split(" ")[0]


@both
@promise("S1-32", "S1-33", "S1-34", "S1-35")
@pytest.mark.limit(60)
def test_real_instances_come_and_go(router, instance):
    """Several keys, several routers, a random port; one that stops leaves at once, and costs no request."""
    r, other = router(**UDP), router(**UDP)
    to = lambda *keys: sum((["--subscribe-to", "%s:%s" % (r.subscription, k)] for k in keys), [])
    a = instance(app("A"), *to("example.com", "unbit.it,0"), "--subscribe-to", "%s:%s" % (other.subscription, "example.com"), "--subscribe-freq", "1")
    b = instance(app("B"), *to("example.com"), "--subscribe-freq", "1", at=":0", up=False)
    eventually(lambda: len(r.keys().get("example.com", ())) == 2 and len(r.keys().get("unbit.it", ())) == 1, "all of them", 15 * SLOW)
    port = [n for n in r.keys()["example.com"] if n != a.address][0].rpartition(":")[2]
    assert int(port) > 0
    eventually(lambda: {visit(r, "example.com") for _ in range(4)} == {"A", "B"}, "both of them")
    assert visit(r, "unbit.it") == "A" and visit(r, "nobody") == ""
    eventually(lambda: other.keys().get("example.com") == [a.address], "the other router")
    a.signal(signal.SIGTERM)
    eventually(lambda: {visit(r, "example.com") for _ in range(4)} == {"B"}, "A has left")
    eventually(lambda: "unbit.it" not in r.keys() or visit(r, "unbit.it") == "", "its key too")


@both
@promise("S1-36", "S1-33")
@pytest.mark.limit(60)
def test_real_instance_with_a_file_of_keys(router, instance, tmp_path):
    (tmp_path / "mappings.txt").write_text("# mappings.txt\nunbit.it\nunbit.it:8000,5\n\nuwsgi.it\nprojects.unbit.it")
    r = router(**UDP)
    instance(app("A"), "--subscribe-to", "%s:@%s" % (r.subscription, tmp_path / "mappings.txt"), "--subscribe-freq", "1")
    want = {"unbit.it": 0, "unbit.it:8000": 5, "uwsgi.it": 0, "projects.unbit.it": 0}
    eventually(lambda: {s["key"]: s["nodes"][0]["modifier1"] for s in r.stats()["subscriptions"] if s["nodes"]} == want, "all of them", 15 * SLOW)
    assert visit(r, "uwsgi.it") == "A"


@both
@promise("S1-32", "S1-31")
@pytest.mark.limit(60)
def test_real_instance_that_signs(guarded, instance, keys):
    r = guarded("SHA1")
    instance(app("A"), "--subscribe-to", "%s:a,0,SHA1:%s" % (r.subscription, keys[0][0]), "--subscribe-freq", "1")
    eventually(lambda: visit(r, "a") == "A", "it is there", 15 * SLOW)


@both
@promise("S1-34")
@pytest.mark.limit(60)
def test_real_instance_with_all_it_can_say(router, instance):
    r = router(**UDP)
    at = free_port()
    instance(app("A"), "--subscribe2", "server=%s,key=k,weight=3,modifier1=0,addr=127.0.0.1:%d" % (r.subscription, at), "--subscribe-freq", "1",
             "--processes", "2", at=at)
    eventually(lambda: visit(r, "k") == "A", "it is there", 15 * SLOW)
    it = r.stats()["subscriptions"][0]["nodes"][0]
    assert (it["weight"], it["cores"]) == (3, 2)


# ---- warp as the one who announces ------------------------------------------------------------------

ANNOUNCER = '''[upstreams.app]
host = "127.0.0.1"
port = %d
protocol = "uwsgi"
[upstreams.app.process]
command = "%s"
args = ["--plugin", "python3", "--socket", "127.0.0.1:{port}", "--wsgi-file", "%s", "--master", "--die-on-term", "--disable-logging"]
subscribe_to = %s
%s
[[routes]]
upstream = "app"
'''


@pytest.mark.parametrize("router", ["warp", "uwsgi"], indirect=True)
@promise("S1-32", "S1-33", "S1-36")
@pytest.mark.limit(60)
def test_a_supervised_process_is_announced(router, warp, tmp_path):
    """To other FastRouters, with a file of keys; it leaves when it is stopped."""
    (tmp_path / "app.py").write_text(app("P"))
    (tmp_path / "mappings.txt").write_text("# keys\nb\nc:8000,5\n\nd")
    r = router(**UDP)
    to = ["%s:example.com" % r.subscription, "%s:unbit.it,5" % r.subscription, "%s:@%s" % (r.subscription, tmp_path / "mappings.txt")]
    w = warp(ANNOUNCER % (free_port(), uwsgi.need("uwsgi"), tmp_path / "app.py", lib.toml(to), '[admin]\nlisten = ["@DIR@/admin"]'))
    want = {"example.com": 0, "unbit.it": 5, "b": 0, "c:8000": 5, "d": 0}
    eventually(lambda: {s["key"]: s["nodes"][0]["modifier1"] for s in r.stats()["subscriptions"] if s["nodes"]} == want, "all of them", 15 * SLOW)
    eventually(lambda: visit(r, "example.com") == "P", "it answers", 15 * SLOW)
    supervised.verb(w, "stop", "app")
    eventually(lambda: not any(r.keys().values()), "all have left")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("link", [False, True])
def test_what_another_user_links_to_is_not_announced(warp, tmp_path, link):
    """Root would tell the lines of any file."""
    (tmp_path / "secret").write_text("key\n")
    os.mkdir(tmp_path / "theirs")
    os.chown(tmp_path / "theirs", 1234, 1234)
    if link:
        os.symlink(tmp_path / "secret", tmp_path / "theirs" / "map")
    else:
        (tmp_path / "theirs" / "map").write_text("key\n")
    os.chown(tmp_path / "theirs" / "map", 1234, 1234, follow_symlinks=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(2 * SLOW)
        warp('[processes.app]\ncommand = "sleep"\nargs = ["1000"]\nuser = "1234"\ngroup = "1234"\ndir = "/"\n'
             'subscribe_to = ["127.0.0.1:9=127.0.0.1:%d:@%s", "127.0.0.1:9=127.0.0.1:%d:last"]\n'
             % (s.getsockname()[1], tmp_path / "theirs" / "map", s.getsockname()[1]))
        assert (b"key\3\0key" in s.recv(4096)) != link


@pytest.mark.parametrize("router", ["warp", "uwsgi"], indirect=True)
@promise("S1-35")
@pytest.mark.limit(60)
def test_a_random_port_is_announced_as_bound(router, warp, tmp_path):
    """Replicas whose ports warp chose."""
    (tmp_path / "app.py").write_text(app("P"))
    r = router(**UDP)
    w = warp('[upstreams.app]\nprotocol = "uwsgi"\n[upstreams.app.process]\nreplicas = 2\ncommand = "%s"\nargs = ["--plugin", "python3", '
             '"--socket", "127.0.0.1:{port}", "--wsgi-file", "%s", "--master", "--die-on-term", "--disable-logging"]\nsubscribe_to = ["%s:k"]\n'
             '[[routes]]\nupstream = "app"\n' % (uwsgi.need("uwsgi"), tmp_path / "app.py", r.subscription))
    eventually(lambda: len(r.keys().get("k", ())) == 2, "two nodes", 15 * SLOW)
    eventually(lambda: visit(r, "k") == "P", "they answer", 15 * SLOW)
    w.stop()
    eventually(lambda: not r.keys().get("k"), "they have left")


# ---- plain HTTP backends -----------------------------------------------------------------------------

def fleet_conf(more=""):
    return '[upstreams.app]\nsubscription = "127.0.0.1:%d"\n' + more + '[[routes]]\nupstream = "app"\n[admin]\nlisten = ["@DIR@/admin"]\n'


@promise("S1-31", "S1-34")
def test_http_backends_announce_themselves(warp, backend):
    """The same datagrams, the key is the upstream's name."""
    port = free_port()
    a, b = backend(name="a"), backend(name="b")
    w = warp(fleet_conf() % port)
    at = "127.0.0.1:%d" % port
    assert w.ask("/").status in (502, 503)
    announce(at, "app", "127.0.0.1:%d" % a.port)
    eventually(lambda: w.ask("/").status == 200, "the first")
    announce(at, "app", "127.0.0.1:%d" % b.port, weight=1)
    announce(at, "other", "127.0.0.1:1")
    eventually(lambda: {w.ask("/").text.split()[0] for _ in range(4)} == {"a", "b"}, "both")
    announce(at, "app", "127.0.0.1:%d" % a.port, leave=True)
    eventually(lambda: {w.ask("/").text.split()[0] for _ in range(4)} == {"b"}, "one has left")
    supervised.reload(w)
    assert w.ask("/").text.startswith("b ")


def hmac_signed(key, address, secret, unix, leave=False, hexadecimal=False):
    """A datagram with the secret of an upstream."""
    whole = datagram(key, address, leave, unix=unix)
    mac = hmac.new(secret, whole[4:], "sha256")
    return whole + block({"sign": mac.hexdigest() if hexadecimal else mac.digest()})


@promise("S1-31")
@pytest.mark.parametrize("hexadecimal", [False, True])
def test_http_backends_with_a_secret(warp, backend, hexadecimal):
    """Unsigned, by another secret, of another key, old, replayed: nothing happens."""
    port = free_port()
    a, b = backend(name="a"), backend(name="b")
    w = warp(fleet_conf('subscription_secret = "hush"\n') % port)
    at, now = "127.0.0.1:%d" % port, int(time.time())
    to, evil = "127.0.0.1:%d" % a.port, "127.0.0.1:%d" % b.port
    good = hmac_signed("app", to, b"hush", now, hexadecimal=hexadecimal)
    for data in (datagram("app", evil), datagram("app", evil, unix=now), hmac_signed("app", evil, b"hash", now), hmac_signed("app", evil, b"", now),
                 hmac_signed("app", evil, b"hush", now - 2 * 86400), good.replace(to.encode(), evil.encode()) if len(to) == len(evil) else b"",
                 good[:-1] + b"0"):
        send(at, data)
    send(at, good)
    eventually(lambda: w.ask("/").status == 200, "it is there")
    assert {w.ask("/").text.split()[0] for _ in range(6)} == {"a"}
    send(at, datagram("app", to, leave=True))
    send(at, hmac_signed("app", to, b"hush", now, leave=True, hexadecimal=hexadecimal))
    send(at, hmac_signed("app", evil, b"hush", now, hexadecimal=hexadecimal))
    eventually(lambda: {w.ask("/").text.split()[0] for _ in range(6)} == {"a", "b"}, "both")
    send(at, hmac_signed("app", to, b"hush", now + 2, leave=True, hexadecimal=hexadecimal))
    eventually(lambda: {w.ask("/").text.split()[0] for _ in range(6)} == {"b"}, "one has left")
    send(at, good)
    send(at, hmac_signed("app", evil, b"hush", now + 2, leave=True, hexadecimal=hexadecimal))
    eventually(lambda: w.ask("/").status == 503, "both have left")


@promise("S1-34")
@pytest.mark.parametrize("how", ["reload", "upgrade", "worker killed"])
def test_http_backends_outlive_the_workers(warp, backend, how):
    port = free_port()
    b = backend(name="b")
    w = warp(fleet_conf() % port)
    announce("127.0.0.1:%d" % port, "app", "127.0.0.1:%d" % b.port)
    eventually(lambda: w.ask("/").status == 200, "it is there")
    if how == "reload":
        supervised.reload(w, fleet_conf("read_timeout_secs = 5\n") % port)
    elif how == "upgrade":
        supervised.upgrade(w)
    else:
        for pid in supervised.workers(w):
            supervised.kill(pid)

    def asked():
        with contextlib.suppress(OSError, EOFError):
            return w.ask("/").text.startswith("b ")
    eventually(asked, "it answers")
    announce("127.0.0.1:%d" % port, "app", "127.0.0.1:%d" % b.port, leave=True)
    eventually(lambda: w.ask("/").status == 503, "it has left")


@promise("S1-34")
def test_http_backends_by_weight_and_a_dead_one(warp, backend):
    port = free_port()
    at, a, b = "127.0.0.1:%d" % port, backend(name="a"), backend(name="b")
    w = warp(fleet_conf() % port)
    announce(at, "app", "127.0.0.1:%d" % a.port, weight=1)
    announce(at, "app", "127.0.0.1:%d" % b.port, weight=3)
    eventually(lambda: {w.ask("/").text.split()[0] for _ in range(4)} == {"a", "b"}, "both")
    got = [w.ask("/").text.split()[0] for _ in range(40)]
    assert (got.count("a"), got.count("b")) == (10, 30)
    a.close()
    assert {w.ask("/").text.split()[0] for _ in range(12)} == {"b"}
    announce(at, "app", "127.0.0.1:1")
    assert {w.ask("/").text.split()[0] for _ in range(12)} == {"b"}


@promise("S1-31")
def test_more_backends_than_there_is_room_for(warp, backend):
    """A flood of addresses: those that were there stay."""
    port = free_port()
    at, b = "127.0.0.1:%d" % port, backend(name="b")
    w = warp(fleet_conf() % port)
    announce(at, "app", "127.0.0.1:%d" % b.port)
    eventually(lambda: w.ask("/").status == 200, "it is there")
    for i in range(3000):
        announce(at, "app", "127.0.0.1:%d" % (20000 + i))
    assert w.ask("/").text.startswith("b ")
    assert len(supervised.instances(w, "app")) <= 16


@promise("S1-31")
@pytest.mark.parametrize("lines, said", [
    ('subscription = "127.0.0.1:1"\nhost = "a"\nport = 1', "subscription"), ('subscription = "127.0.0.1:99999"', "subscription"),
    ('subscription_secret = "x"\nhost = "a"\nport = 1', "subscription"), ('subscription = "127.0.0.1:1"\nsubscription_secret = ""', "subscription_secret"),
])
def test_what_is_wrong_of_a_subscription(check, lines, said):
    p = check("[upstreams.app]\n%s\n[[routes]]\nupstream = \"app\"\n" % lines)
    assert p.returncode == 1 and said in p.stderr, p.stderr


@promise("S1-31")
def test_a_line_of_shell_can_do_it(warp, backend):
    """printf and a UDP socket; here bash's own."""
    port = free_port()
    b = backend(name="b")
    w = warp(fleet_conf() % port)
    address = "127.0.0.1:%d" % b.port
    line = r"printf '\340\0\0\0\3\0key\3\0app\7\0address\%o\000%s' >/dev/udp/127.0.0.1/%d" % (len(address), address, port)
    subprocess.run(["bash", "-c", line], check=True, timeout=TIMEOUT)
    eventually(lambda: w.ask("/").status == 200, "it is there")


# ---- the cache protocol ----------------------------------------------------------------------------------

@pytest.fixture(params=["warp", "uwsgi"])
def store(request, router, instance):
    """The address of a cache."""
    if request.param == "uwsgi":
        return instance(APP, "--cache2", "name=default,items=100", plugins="python3 cache").address
    at = "127.0.0.1:%d" % free_port()
    router(cache={}, cache_listen=at)
    return at


@promise("S1-27")
def test_cache_commands(store):
    assert cache(store, "get", key="a") is None
    assert cache(store, "set", "one", key="a") == ({"status": "ok"}, b"")
    got = cache(store, "get", key="a")
    assert got[1] == b"one" and got[0]["status"] == "ok" and got[0]["size"] == "3" and "expires" not in got[0]
    assert cache(store, "exists", key="a")[0]["status"] == "ok" and cache(store, "exists", key="b") is None
    assert cache(store, "set", "two", key="a") is None, "it is there"
    assert cache(store, "update", "three", key="a") and cache(store, "get", key="a")[1] == b"three"
    assert cache(store, "update", "new", key="n") and cache(store, "get", key="n", cache="default")[1] == b"new"
    assert cache(store, "get", key="a", cache="other") is None
    assert cache(store, "del", key="a") and cache(store, "get", key="a") is None and cache(store, "del", key="a") is None
    assert cache(store, "clear") and cache(store, "get", key="n") is None


@promise("S1-27")
def test_cache_expiry(store):
    assert cache(store, "set", "v", key="a", expires=2)
    got = cache(store, "get", key="a")
    assert abs(int(got[0]["expires"]) - time.time() - 2) <= 1.5 and got[1] == b"v"
    assert cache(store, "set", "v", key="b", expires=3600) and cache(store, "set", "v", key="a") is None
    assert cache(store, "set", "v", key="c", expires=2 ** 32 - 1)
    eventually(lambda: cache(store, "get", key="a") is None, "it expires", 8 * SLOW)
    assert cache(store, "set", "w", key="a") and cache(store, "get", key="b") and cache(store, "get", key="c")


@promise("S1-27")
def test_cache_old_commands(store, request):
    """modifier2 0 get, 1 set, 2 delete, 5 get with a mark."""
    real = "uwsgi" in request.node.name
    array = lambda *xs: b"".join(struct.pack("<H", len(x)) + x for x in xs)
    raw = lambda b, m: packet(b, 111, m)
    talk(store, raw(array(b"k", b"value"), 1))
    assert eventually(lambda: talk(store, raw(b"k", 0))[4:] == b"value", "get")
    assert talk(store, raw(b"k", 5))[4:] == b"value"
    assert talk(store, raw(b"nobody", 0)) == b""
    if not real:                                           # whose four bytes are garbage
        assert talk(store, raw(b"k", 0))[:4] == b"\x6f\5\0\0"
        assert talk(store, raw(b"k", 5))[:4] == b"\x6f\0\0\1" and talk(store, raw(b"nobody", 5)) == b"\x6f\0\0\0"
    talk(store, raw(b"k", 2))
    assert eventually(lambda: talk(store, raw(b"k", 0)) == b"", "deleted")


@promise("S1-27")
def test_cache_limits_and_bad_packets(store, request):
    for data in (packet([("cmd", "nonsense"), ("key", "a")], 111, 17), packet([("cmd", "get")], 111, 17), packet(b"\1", 111, 17),
                 packet([("cmd", "set"), ("key", "a"), ("size", "0")], 111, 17), packet([("cmd", "set"), ("key", "a"), ("size", "70000")], 111, 17) + b"x" * 70000,
                 packet([("cmd", "set"), ("key", "k" * 3000), ("size", "1")], 111, 17) + b"x", packet([("key", "a")], 111, 17)):
        assert talk(store, data) == b""
    key, value = ("k" * 2000, "v" * 60000) if "uwsgi" in request.node.name else ("k" * 255, "127.0.0.1:4040,5|" * 100)
    assert cache(store, "set", value, key=key)             # a map of warp's has keys and lists of addresses only
    assert cache(store, "get", key=key)[1] == value.encode()


@promise("S1-27")
def test_a_cache_is_bounded(router):
    """A flood of entries is refused some day, and what is there is kept."""
    at = "127.0.0.1:%d" % free_port()
    r = router(cache={"fixed": "127.0.0.1:1"}, cache_listen=at)
    start = r.warp.rss()
    for i in range(300):
        cache(at, "set", "v" * 60000, key="k%d" % i)
    assert lib.SANITIZED or r.warp.rss() < start + 10000000
    assert cache(at, "get", key="fixed")[1] == b"127.0.0.1:1"


FILLER = '''
import uwsgi
uwsgi.cache_set(b"example.com:8000", NODE, 0, STORE)
uwsgi.cache_update(b"unbit.it", NODE + b",5", 300, STORE)
def application(env, start):
    start("200 OK", [])
    return [uwsgi.cache_get(b"example.com:8000", STORE) or b"none"]
'''


@promise("S1-27", "S1-28", "S1-29")
def test_a_real_app_fills_the_map(router, node, instance):
    """cache_set(key, value, 0, "@address") of a real uWSGI; the next request goes there."""
    at = "127.0.0.1:%d" % free_port()
    n = node()
    r = router(cache={}, cache_listen=at)
    i = instance("NODE, STORE = %r, %r\n" % (n.address.encode(), "@" + at) + FILLER)
    eventually(lambda: r.node("unbit.it") == "n0", "it is filled", 10 * SLOW)
    assert r.node("example.com:8000") == "n0" and r.node("example.com") == ""
    assert [p.modifier1 for p in n.requests][:1] == [5] and n.last.modifier1 == 0
    assert body_of(uwsgi.ask(i.address, VARS)) == n.address
