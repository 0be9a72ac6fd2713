"""The FastRouter's data path, keys and mappings, held against a real uwsgi --fastrouter where specs/uwsgi.md says M."""
import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time

import pytest

import lib
import supervised
import uwsgi
from lib import CLOSE, FIN, HEAD, REQ, SLOW, TIMEOUT, Client, eventually, free_port
from test_uwsgi import nginx
from uwsgi import ANSWER, block, body_of, both, packet, refused

promise = pytest.mark.promise


def TAKE(n):
    """A step: waits for n bytes."""
    def step(c):
        c.exactly(n)
    return step


def REST(c):
    c.rest()


# ---- section 3: the data path --------------------------------------------------

ODD = [("HTTP_HOST", "a.example"), ("EMPTY", ""), ("NUL", b"\0\x80\xff"), ("TWICE", "1"), ("TWICE", "2"), ("REQUEST_METHOD", "PUT"),
       ("CONTENT_LENGTH", "5"), ("LAST", "")]
# Not HTTP at all: an answer is never parsed.
RAW = b"any\0 bytes \xff\n" * 500


@both
@promise("S1-22", "S1-45")
def test_a_packet_goes_through_byte_for_byte(router, node):
    n = node(ANSWER(RAW))
    r = router(to=[n.address])
    assert r.ask(ODD, b"hello", modifier1=9, modifier2=7) == RAW
    got = n.request()
    assert got.block == block(ODD)
    assert got.body == b"hello"
    assert (got.modifier1, got.modifier2) == (0, 0)


@both
@promise("S1-22")
@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 7, 64])
def test_any_fragmentation(router, node, pieces):
    n = node()
    r = router(to=[n.address])
    assert body_of(r.ask(ODD, b"hello", pieces=pieces)) == "n0 a.example 5"
    assert n.request().raw == packet(ODD)


@both
@promise("S1-22")
def test_the_largest_block(router, node):
    """65535 bytes of vars, and a value of NULs."""
    n = node()
    r = router(to=[n.address], buffer_size=70000)
    vars = [("HTTP_HOST", "a"), ("X", b"\0" * (65535 - 2 - 9 - 2 - 1 - 2 - 1 - 2))]
    assert len(block(vars)) == 65535
    assert body_of(r.ask(vars)) == "n0 a 0"
    assert n.request().block == block(vars)


@both
@promise("S1-43")
def test_a_body_is_streamed(router, node):
    """The node has the packet before the body begins, and each piece before the next is sent."""
    n = node([HEAD, TAKE(3), TAKE(4), b"done", FIN])
    r = router(to=[n.address])
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "CONTENT_LENGTH": 7}))
        eventually(lambda: n.conn().requests, "head")
        c.send(b"abc")
        eventually(lambda: n.conn().raw.endswith(b"abc"), "the first piece")
        c.send(b"defg")
        assert c.rest(TIMEOUT) == b"done"


@both
@promise("S1-43")
def test_bytes_both_ways_without_a_length(router, node):
    """As a websocket would: what follows the packet is nobody's business."""
    def parrot(c):
        c.begin()
        while c.buf or c.fill():
            c.sock.sendall(c.buf.upper())
            c.buf = b""
    n = node([parrot])
    r = router(to=[n.address])
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "HTTP_UPGRADE": "websocket"}))
        for word in (b"hello", b"again", b"x" * 30000):
            c.send(word)
            assert c.exactly(len(word), TIMEOUT) == word.upper()


@both
@promise("S1-43")
def test_bytes_behind_the_content_length_pass_too(router, node):
    n = node([HEAD, TAKE(8), b"ok", FIN])
    assert router(to=[n.address]).ask({"HTTP_HOST": "a", "CONTENT_LENGTH": 3}, b"abcdefgh") == b"ok"


@both
@promise("S1-22")
def test_a_large_answer_and_a_large_body(router, node):
    answer, body = os.urandom(3000000), os.urandom(2000000)
    n = node(ANSWER(answer))
    r = router(to=[n.address])
    assert r.ask({"HTTP_HOST": "a", "CONTENT_LENGTH": len(body)}, body) == answer
    assert n.request().body == body


@promise("S1-22")
def test_both_directions_at_once(router, node):
    """A node that writes while it reads, a client that reads late: neither waits for the other (B)."""
    size = 3000000

    def busy(c):
        c.begin()
        t = threading.Thread(target=lambda: c.sock.sendall(b"a" * size), daemon=True)
        t.start()
        c.exactly(size)
        t.join(TIMEOUT)
        c.sock.shutdown(socket.SHUT_RDWR)
    n = node([busy])
    r = router(to=[n.address])
    with r.client() as c:
        c.sock.sendall(packet({"HTTP_HOST": "a"}))
        t = threading.Thread(target=lambda: c.sock.sendall(b"b" * size), daemon=True)
        t.start()
        assert c.exactly(size, 2 * TIMEOUT) == b"a" * size
        t.join(TIMEOUT)
        assert not t.is_alive()


@promise("S1-22")
def test_a_client_that_half_closes_gets_its_answer(router, node):
    n = node([REQ, REST, b"after the half close", FIN])
    r = router(to=[n.address])
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a"})).fin()
        assert c.rest(TIMEOUT) == b"after the half close"


@promise("S1-22")
@pytest.mark.parametrize("unix", [None, True])
def test_an_answer_before_the_body_was_read_arrives(router, node, unix):
    """413 and close, with a reset behind it as much of the body was never read (B)."""
    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    n = node([HEAD, early, CLOSE], unix=unix)
    r = router(to=[n.address])
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "CONTENT_LENGTH": 5000000}))
        c.send(b"x" * 1000)
        got = b""
        with contextlib.suppress(ConnectionError):
            got = c.rest(TIMEOUT)
        assert (got or c.buf) == early


@both
@promise("S1-22")
def test_a_client_that_goes_ends_the_exchange(router, node):
    n = node([HEAD, REST])
    r = router(to=[n.address])
    c = r.client()
    c.send(packet({"HTTP_HOST": "a"}))
    eventually(lambda: n.conns and n.conns[0].requests, "head")
    c.rst()
    assert n.conn().closed.wait(TIMEOUT)


@both
@promise("S1-22")
@pytest.mark.parametrize("bad", [
    packet(b"\x09\0HTTP_HOST\x01\0a\x05\0ab"),                         # a name beyond the block
    packet(b"\x09\0HTTP_HOST\xff\xffa"),                               # a value beyond it
    packet(b"\x09\0HTTP_HOST\x01\0a" + b"\0\0\x01\0x"),                # an empty name
    packet(b"\x09\0HTTP_HOST\x01\0a" + b"\x01\0x"),                    # no value
    packet(b"\x09\0HTTP_HOST\x01\0a" + b"\x01"),                       # half a length
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * 22000,               # not uwsgi
    packet(b""),
], ids=["name", "value", "empty", "no-value", "half", "http", "nothing"])
def test_blocks_that_do_not_add_up(router, node, bad):
    """They end the connection, and no node hears of them."""
    n = node()
    r = router(to=[n.address])
    with r.client() as c:
        c.send(bad)
        with contextlib.suppress(ConnectionError):
            c.gather(1 << 30, TIMEOUT)
        assert refused(c.buf)
    if r.real and n.conns:
        pytest.skip("uWSGI takes it")
    assert not n.conns
    assert r.route("a") == "n0 a 0"


@both
@promise("S1-49")
def test_the_timeout_counts_from_accept(router, node, tmp_path):
    """On a unix socket, as uWSGI accepts TCP only when bytes are there."""
    n = node()
    r = router(to=[n.address], timeout=1, listen=[str(tmp_path / "r.sock")])
    start = time.monotonic()
    with r.client() as silent, r.client() as half:
        half.send(packet({"HTTP_HOST": "a"})[:9])
        for c in (silent, half):
            with contextlib.suppress(ConnectionError):
                c.gather(1 << 30, TIMEOUT)
            assert refused(c.buf)
    assert 0.5 < time.monotonic() - start < 4 * SLOW
    assert not n.conns


@both
@promise("S1-49")
@pytest.mark.parametrize("who", ["client", "node"])
def test_the_timeout_starts_again_with_every_byte(router, node, who):
    """Drops from one side for longer than the timeout; then silence."""
    def drops(send):
        for _ in range(6):
            time.sleep(0.4)
            send(b"y")
    n = node([HEAD, (lambda c: drops(c.send)) if who == "node" else TAKE(6), b"z", REST])
    r = router(to=[n.address], timeout=2)
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a"}))
        if who == "client":
            drops(c.send)
        assert c.until(b"z", TIMEOUT) == (b"yyyyyyz" if who == "node" else b"z")
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            c.gather(1 << 30, TIMEOUT)
        assert c.buf == b"" and 0.5 < time.monotonic() - start < 4 * SLOW


# ---- listeners ------------------------------------------------------------------

@both
@promise("S1-23")
def test_listeners_tcp_unix_abstract(router, node, tmp_path):
    name = "@warp-test-%d-%s" % (os.getpid(), tmp_path.name)
    n = node()
    r = router(to=[n.address], listen=["127.0.0.1:%d" % free_port(), str(tmp_path / "r.sock"), name], up=False)
    if r.real:
        r.proc.up(*r.listen[:2])
        r.listen[2] += "\0"                                # uWSGI's own spelling of an abstract name
    for at in range(3):
        assert body_of(r.ask({"HTTP_HOST": "a"}, at=at)) == "n0 a 0"


@promise("S1-23")
def test_an_abstract_name_in_both_spellings(router, node, tmp_path):
    """@name as everybody binds it, and with uWSGI's NUL behind it."""
    name = "@warp-test-%d-%s" % (os.getpid(), tmp_path.name)
    n = node()
    r = router(to=[n.address], listen=[name])
    assert body_of(r.ask({"HTTP_HOST": "a"})) == "n0 a 0"
    r.listen.append(name + "\0")
    assert body_of(r.ask({"HTTP_HOST": "a"}, at=1)) == "n0 a 0"


@promise("S1-23")
@pytest.mark.parametrize("nul", ["", "\0"])
def test_an_abstract_node_in_both_spellings(router, node, tmp_path, nul):
    name = "@warp-test-node-%d-%s" % (os.getpid(), tmp_path.name)
    n = node(unix=name + nul)
    r = router(to=[name])
    for _ in range(3):
        assert r.route("a") == "n0 a 0"


@both
@promise("S1-24")
def test_no_mapping_routes_nothing(router):
    """The most useless FastRouter in the world runs and refuses."""
    r = router(listen=["127.0.0.1:%d" % free_port(), "127.0.0.1:%d" % free_port()])
    for at in (0, 1, 0):
        assert refused(r.ask({"HTTP_HOST": "a"}, at=at))


def test_a_stale_unix_socket_is_replaced(router, node, tmp_path):
    path = str(tmp_path / "r.sock")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
    n = node()
    r = router(to=[n.address], listen=[path], chmod_socket="666")
    assert r.route("a") == "n0 a 0"
    assert os.stat(path).st_mode & 0o777 == 0o666


# ---- section 4: the key -----------------------------------------------------------

KEYS = [
    ([("UWSGI_FASTROUTER_KEY", "one"), ("HTTP_HOST", "two"), ("SERVER_NAME", "three")], "one"),
    ([("SERVER_NAME", "three"), ("HTTP_HOST", "two"), ("UWSGI_FASTROUTER_KEY", "one")], "one"),
    ([("HTTP_HOST", "two"), ("UWSGI_FASTROUTER_KEY", "one")], "one"),
    ([("SERVER_NAME", "three"), ("HTTP_HOST", "two")], "two"),
    ([("HTTP_HOST", "two"), ("SERVER_NAME", "three")], "two"),
    ([("SERVER_NAME", "three")], "three"),
    ([("X", "one")], None),
    ([("HTTP_HOST", "one"), ("HTTP_HOST", "two")], "two"),
    ([("SERVER_NAME", "three"), ("SERVER_NAME", "two")], "three"),
    ([("HTTP_HOST", "x" * 255), ("SERVER_NAME", "three")], "long"),
    ([("HTTP_HOST", "x" * 256), ("SERVER_NAME", "three")], "three"),
    ([("UWSGI_FASTROUTER_KEY", "x" * 300), ("HTTP_HOST", "two")], "two"),
    ([("HTTP_HOST", "two:80")], "port"),
    ([("HTTP_HOST", "two:81")], None),
    ([("HTTP_HOST", ""), ("SERVER_NAME", "three")], "three"),
    ([("SERVER_NAME", ""), ("SERVER_NAME", "")], None),
]
LENIENT = [([("UWSGI_FASTROUTER_KEY", ""), ("HTTP_HOST", "two")], "two"), ([("SERVER_NAME", "three"), ("HTTP_HOST", "")], "three"),
           ([("HTTP_HOST", "TWO")], "two")]


@pytest.fixture
def known(router, node):
    """A router whose map has a node of its own for each of these keys: the answer is its name."""
    keys = {"one": "one", "two": "two", "three": "three", "x" * 255: "long", "two:80": "port"}
    nodes = {k: node(name=v) for k, v in keys.items()}
    return router(cache={k: n.address for k, n in nodes.items()})


def check_keys(r, table):
    got = [body_of(r.ask(vars)).split(" ")[0] or None for vars, _ in table]
    assert got == [want for _, want in table]


@both
@promise("S1-47", "S1-27", "S1-28")
def test_the_key(known):
    check_keys(known, KEYS)


@promise("S1-47")
def test_the_key_where_uwsgi_is_worse(known):
    check_keys(known, LENIENT)


# ---- section 5: the ways of mapping -------------------------------------------------

@both
@promise("S1-25")
def test_use_base(router, node, tmp_path):
    d = tmp_path / "sockets"
    d.mkdir()
    n = node(unix=str(d / "example.com"))
    r = router(use_base=str(d) + "/")
    assert r.route("example.com") == "n0 example.com 0"
    assert r.route("example.org") == ""
    node(unix=str(d / "example.org"))
    assert r.route("example.org") == "n1 example.org 0"    # no state: the next request finds it
    n.close()
    os.unlink(d / "example.com")
    assert r.route("example.com") == ""


@both
@promise("S1-25")
def test_use_base_is_a_prefix(router, node, tmp_path):
    node(unix=str(tmp_path / "app-x"))
    r = router(use_base=str(tmp_path / "app-"))
    assert r.route("x") == "n0 x 0"


@both
@promise("S1-26")
def test_use_pattern(router, node, tmp_path):
    (tmp_path / "example.com").mkdir()
    node(unix=str(tmp_path / "example.com" / "uwsgi.sock"))
    r = router(use_pattern=str(tmp_path) + "/%s/uwsgi.sock")
    assert r.route("example.com") == "n0 example.com 0"
    assert r.route("example.org") == ""


@promise("S1-26")
def test_use_pattern_more_than_once(router, node, tmp_path):
    (tmp_path / "a").mkdir()
    node(unix=str(tmp_path / "a" / "a-100%.sock"))
    r = router(use_pattern=str(tmp_path) + "/%s/%s-100%%.sock")
    assert r.route("a") == "n0 a 0"


@promise("S1-28", "S1-25")
def test_a_key_with_a_port_is_a_path_below_a_directory(router, node, tmp_path):
    """What begins with / is a path, whatever it has in it (B)."""
    node(unix=str(tmp_path / "example.com:8000"))
    r = router(use_base=str(tmp_path) + "/")
    assert r.route("example.com:8000") == "n0 example.com:8000 0"
    assert r.route("example.com") == ""


@promise("S1-25", "S1-26")
@pytest.mark.parametrize("way", ["use_base", "use_pattern"])
def test_a_key_does_not_climb_out(router, node, tmp_path, way):
    for d in ("in", "out", "in/sub"):
        (tmp_path / d).mkdir()
    outside, below, inside = (node(unix=str(tmp_path / p)) for p in ("out/s", "in/sub/s", "in/s"))
    r = router(**{way: str(tmp_path / "in") + ("/" if way == "use_base" else "/%s")})
    for key in ("../out/s", "/../out/s", "sub/s", "./s", "sub/../s", ".", "..", "s\0", "\0s", str(tmp_path / "out/s")):
        assert r.route(key) == "", key
    assert r.route("s") == "n2 s 0"
    assert not outside.conns and not below.conns and len(inside.conns) == 1


@both
@promise("S1-27", "S1-28", "S1-29")
def test_use_cache(router, node):
    a, b, c = node(), node(), node(unix=True)
    r = router(cache={"example.com:8000": a.address, "unbit.it": b.address + ",5", "unix": c.address, "bad": "nonsense", "empty": " "})
    assert r.node("example.com:8000") == "n0"
    assert r.node("example.com") == ""
    assert r.node("unbit.it") == "n1"
    assert b.request().modifier1 == 5 and a.request().modifier1 == 0
    assert r.node("unix") == "n2"
    for key in ("bad", "empty", "nobody"):
        assert r.node(key) == "", key


@both
@promise("S1-27")
def test_use_cache_lists_are_taken_in_turn(router, node):
    nodes = [node(), node(), node()]
    r = router(cache={"a": "|".join(n.address + m for n, m in zip(nodes, (",5", "", ",9")))})
    got = [r.node("a") for _ in range(9)]
    assert sorted(got[:3]) == ["n0", "n1", "n2"] and got[:3] * 3 == got
    assert [n.request().modifier1 for n in nodes] == [5, 0, 9]


@promise("S1-27")
def test_the_cache_table_is_read_anew(router, node):
    """A reload brings the file's table."""
    a, b = node(), node()
    r = router(cache={"x": a.address})
    assert r.node("x") == "n0"
    supervised.reload(r.warp, r.text.replace(a.address, b.address))
    eventually(lambda: r.node("x") == "n1", "the new table")


@both
@promise("S1-37")
def test_the_order_of_the_ways(router, node, tmp_path):
    """use_pattern wins over use_base, and both over to."""
    node(name="base", unix=str(tmp_path / "b-x"))
    node(name="pattern", unix=str(tmp_path / "p-x"))
    fixed = node(name="to")
    r = router(use_base=str(tmp_path / "b-"), use_pattern=str(tmp_path / "p-%s"), to=[fixed.address])
    assert r.node("x") == "pattern"
    r = router(use_base=str(tmp_path / "b-"), to=[fixed.address])
    assert r.node("x") == "base"


# ---- to, fallback, retries -----------------------------------------------------------

@both
@promise("S1-45")
def test_to_takes_its_nodes_in_turn(router, node):
    nodes = [node(), node(unix=True), node()]
    r = router(to=[n.address for n in nodes])
    got = [r.node("a") for _ in range(9)]
    assert sorted(got[:3]) == ["n0", "n1", "n2"] and got == got[:3] * 3


@both
@promise("S1-45")
def test_to_skips_who_refuses(router, node):
    """A dead node costs no request, and rests for gracetime."""
    dead = free_port()
    live = node(name="live")
    r = router(to=["127.0.0.1:%d" % dead, live.address], gracetime=2)
    assert [r.node("a") for _ in range(6)] == ["live"] * 6
    again = node(name="again", port=dead)
    eventually(lambda: r.node("a") == "again", "it is tried again after gracetime")
    assert again.conns


@both
@promise("S1-45")
def test_to_with_all_of_them_dead(router):
    r = router(to=["127.0.0.1:%d" % free_port(), "127.0.0.1:%d" % free_port()])
    for _ in range(3):
        assert refused(r.ask({"HTTP_HOST": "a"}, timeout=TIMEOUT))


@promise("S1-45")
@pytest.mark.parametrize("how", ["gone", "stale"])
def test_a_unix_node_that_is_dead_costs_no_request(router, node, tmp_path, how):
    """connect() fails at once there: to be treated like any other (B)."""
    path = str(tmp_path / "dead")
    if how == "stale":
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
    n = node(name="live")
    r = router(to=[path, n.address])
    assert [r.node("a") for _ in range(6)] == ["live"] * 6


@promise("S1-45")
def test_a_modifier_behind_a_fixed_node(router, node):
    n = node()
    r = router(to=[n.address + ",5"])
    assert r.node("a") == "n0"
    assert n.request().modifier1 == 5


@both
def test_fallback(router, node):
    """The list is tried in its order once the chosen node does not take the connection."""
    last = node(name="last")
    r = router(cache={"a": "127.0.0.1:%d" % free_port()}, fallback=["127.0.0.1:%d" % free_port(), last.address])
    assert r.node("a") == "last"
    assert r.node("nobody") == ""


@both
@promise("S1-22")
def test_a_node_that_hangs_is_no_reason_to_try_another(router, node):
    """Only until the first byte has gone out."""
    bad, good = node([HEAD, CLOSE]), node()
    r = router(to=[bad.address, good.address])
    assert sorted(r.node("a") for _ in range(2)) == ["", "n1"]
    assert len(bad.conns) == 1


# ---- post-buffering -----------------------------------------------------------------

@both
@promise("S1-44")
@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 300000])
def test_post_buffering(router, node, size):
    """The node is not even connected to before the body is whole."""
    n = node()
    r = router(to=[n.address], post_buffering=8192)
    body = os.urandom(size)
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "CONTENT_LENGTH": size}) + body[:-1])
        assert c.is_open(0.15) and not n.conns
        c.send(body[-1:])
        assert body_of(c.rest(TIMEOUT)) == "n0 a %d" % size
    assert n.request().body == body


def open_files(pid):
    out = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            out.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    return out


@promise("S1-44")
@pytest.mark.parametrize("size, on_disk, dir", [(8192, False, None), (20000, True, None), (20000, True, "spool")])
def test_post_buffering_beyond_n_is_on_disk(router, node, tmp_path, size, on_disk, dir):
    """An unlinked temporary file, and none for what fits into memory."""
    n = node()
    if dir:
        (tmp_path / dir).mkdir()
    r = router(to=[n.address], post_buffering=8192, **({"post_buffering_dir": str(tmp_path / dir)} if dir else {}))
    files = lambda: [f for p in r.warp.children() for f in open_files(p)
                     if f.endswith("(deleted)") and f.startswith(str(tmp_path / dir) + "/" if dir else "/tmp/")]
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "CONTENT_LENGTH": size}) + b"x" * (size - 1))
        if on_disk:
            eventually(files, "a temporary file")
            assert not dir or not os.listdir(tmp_path / dir)
        else:
            assert c.is_open(0.15) and not files()
        c.send(b"x")
        assert body_of(c.rest(TIMEOUT)) == "n0 a %d" % size
    eventually(lambda: not files(), "the file is closed")


@both
@promise("S1-44")
def test_ten_slow_uploads_hold_no_worker(router, node):
    n = node()
    r = router(to=[n.address], post_buffering=4096)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(r.client()) for _ in range(10)]
        for c in clients:
            c.send(packet({"HTTP_HOST": "slow", "CONTENT_LENGTH": 10000}) + b"x" * 5000)
        assert r.route("quick") == "n0 quick 0"
        assert len(n.conns) == 1
        for c in clients:
            c.send(b"x" * 5000)
        for c in clients:
            assert body_of(c.rest(TIMEOUT)) == "n0 slow 10000"


@both
@promise("S1-44", "S1-49")
def test_a_body_that_stops_coming_is_never_seen(router, node):
    n = node()
    r = router(to=[n.address], post_buffering=4096, timeout=1)
    with r.client() as c:
        c.send(packet({"HTTP_HOST": "a", "CONTENT_LENGTH": 100}) + b"x" * 50)
        with contextlib.suppress(ConnectionError):
            c.gather(1 << 30, TIMEOUT)
        assert refused(c.buf) or c.buf.startswith(b"HTTP/1.1 408 ")
    assert not n.conns


@promise("S1-44")
def test_a_buffered_body_goes_to_another_node_when_one_is_dead(router, node):
    n = node()
    r = router(to=["127.0.0.1:%d" % free_port(), n.address], post_buffering=4096)
    body = os.urandom(20000)
    for _ in range(2):
        assert body_of(r.ask({"HTTP_HOST": "a", "CONTENT_LENGTH": len(body)}, body)) == "n0 a 20000"
    assert [n.request(i).body for i in range(2)] == [body] * 2


@both
@promise("S1-46")
def test_post_buffering_leaves_requests_without_a_body_alone(router, node):
    n = node()
    r = router(to=[n.address], post_buffering=4096)
    for vars in ({"HTTP_HOST": "a"}, {"HTTP_HOST": "a", "CONTENT_LENGTH": ""}, {"HTTP_HOST": "a", "CONTENT_LENGTH": "0"}):
        assert body_of(r.ask(vars)) == "n0 a 0"


# ---- configuration ------------------------------------------------------------------

OPTIONS = '''
[fastrouter]
listen = ["127.0.0.1:1", "/tmp/x.sock", "@foobar", "=0"]
processes = 1
use_cache = "mine"
use_pattern = "/tmp/%s.sock"
use_base = "/tmp/"
use_code_string = "0:mapper.py:get"
to = ["127.0.0.1:2", "/tmp/y.sock,5"]
gracetime = 3
fallback = ["127.0.0.1:3"]
fallback_on_no_key = true
subscription_server = ["127.0.0.1:4", "/tmp/sub.sock"]
subscription_slot = true
subscription_fallback_key = "k"
resubscribe = ["127.0.0.1:5"]
resubscribe_bind = "127.0.0.1:6"
cheap = true
events = 64
timeout = 60
post_buffering = 8192
post_buffering_dir = "/tmp"
buffer_size = 4096
quiet = true
stats = "127.0.0.1:7"
stats_http = true
stats_minified = true
harakiri = 30
uid = "root"
gid = "root"
subscription_tolerance = 17
subscription_algo = "wlrc"
subscription_dotsplit = true
subscriptions_sign_check = "SHA256:/tmp"
subscriptions_sign_check_tolerance = 86400
subscriptions_sign_skip_uid = [0]
subscriptions_use_credentials = true
subscriptions_credentials_check = ["/tmp/"]
backlog = 100
chmod_socket = "666"
fd_passing = true
cache_listen = ["127.0.0.1:8"]
[fastrouter.cache]
"example.com:8000" = "127.0.0.1:4040"
"unbit.it" = "127.0.0.1:4040,5|127.0.0.1:4041"
[[shared_sockets]]
listen = "127.0.0.1:9"
'''


@promise("S1-48", "S1-51")
def test_every_option_is_taken(check, tmp_path):
    (tmp_path / "mapper.py").write_text("def get(key): pass\n")
    p = check(OPTIONS)
    assert p.returncode == 0, p.stderr
    assert "127.0.0.1:1" in p.stdout


@promise("S1-51")
@pytest.mark.parametrize("line, said", [
    ("use_bass = \"/tmp/\"", "use_base"), ("timeout = \"soon\"", "timeout"), ("listen = [\"127.0.0.1:99999\"]", "listen"),
    ("to = [\"127.0.0.1:1,999\"]", "to"), ("use_code_string = \"mapper.py\"", "use_code_string"),
    ("use_code_string = \"99:mapper.py:get\"", "use_code_string"), ("subscription_algo = \"best\"", "wlrc"), ("post_buffering = -1", "post_buffering"),
    ("subscriptions_sign_check = \"SHA1\"", "subscriptions_sign_check"), ("subscriptions_sign_check = \"ROT13:/tmp\"", "ROT13"),
    ("use_pattern = \"/tmp/%d\"", "use_pattern"), ("to = [\"\"]", "to"),
])
def test_what_is_wrong_is_said(check, line, said):
    text = "[fastrouter]\n" + ("" if line.startswith("listen") else "listen = [\"127.0.0.1:1\"]\n") + line + "\n"
    p = check(text)
    assert p.returncode == 1 and said in p.stderr and re.search(r"warp\.toml:\d+:\d+: error", p.stderr), p.stderr


@promise("S1-22")
def test_two_routers_have_tables_of_their_own(warp, node):
    a, b, ports = node(), node(), (free_port(), free_port())
    warp("".join('[[fastrouter]]\nlisten = ["127.0.0.1:%d"]\nto = ["%s"]\n' % (p, n.address) for p, n in zip(ports, (a, b))))
    assert [node_of(p, "k") for p in ports * 2] == ["n0", "n1"] * 2


@promise("S1-22", "S1-45")
@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_no_error_while_everything_changes(router, node, how):
    """A stream goes on, requests go to the new node, none fails."""
    old, new = node([HEAD, TAKE(3), b"three", TAKE(3), b"six", FIN], [uwsgi.NAME], name="old"), node(name="new")
    r = router(to=[old.address], more='[admin]\nlisten = ["@DIR@/admin"]\n')
    errors, got, over = [], [], threading.Event()

    def load():
        while not over.is_set():
            try:
                got.append(r.node("k"))
            except OSError as e:
                errors.append(repr(e))
            if not got[-1]:
                errors.append("refused")
    with r.client() as stream:
        stream.send(packet({"HTTP_HOST": "a"}) + b"abc")
        assert stream.exactly(5, TIMEOUT) == b"three"
        threads = [threading.Thread(target=load) for _ in range(2)]
        for t in threads:
            t.start()
        try:
            eventually(lambda: len(got) > 20, "some load")
            r.warp.write(r.text.replace(old.address, new.address))
            r.warp.signal(signal.SIGHUP if how == "reload" else signal.SIGUSR2)
            eventually(lambda: got[-10:] == ["new"] * 10, "all go to the new one")
        finally:
            over.set()
            for t in threads:
                t.join(TIMEOUT)
        stream.send(b"def")
        assert stream.rest(TIMEOUT) == b"six"
    assert not errors, errors[:5]


@promise("S1-27")
def test_a_file_of_keys_is_watched(router, node, tmp_path):
    a, b, file = node(), node(), tmp_path / "keys"
    file.write_text("# keys\nx %s\ny %s,5\n" % (a.address, a.address))
    r = router(use_cache=True, cache_file=str(file))
    assert r.node("x") == "n0" and r.node("y") == "n0" and a.last.modifier1 == 5 and r.node("z") == ""
    (tmp_path / "new").write_text("x %s\nz %s\n" % (b.address, b.address))
    os.rename(tmp_path / "new", file)
    eventually(lambda: r.node("x") == "n1", "the new file", 2 * TIMEOUT)
    assert r.node("z") == "n1" and r.node("y") == ""


# ---- descriptor passing -----------------------------------------------------------------

def taker(take):
    """A node that receives descriptors; take: it answers on the client's socket and leaves its own connection without a byte."""
    got = []

    def run(c):
        data, fds, _, _ = socket.recv_fds(c.sock, 4, 4)
        got.extend(fds)
        while len(data) < 4 + struct.unpack_from("<H", data, 1)[0] if len(data) >= 4 else True:
            more, fds, _, _ = socket.recv_fds(c.sock, 65536, 4)
            got.extend(fds)
            data += more
            if not more:
                return
        if fds or got:
            with socket.socket(fileno=got[-1]) as client:
                if take:
                    c.sock.shutdown(socket.SHUT_RDWR)
                    client.sendall(b"from the node itself")
                    client.shutdown(socket.SHUT_WR)
                    return
        c.sock.sendall(b"through the router")
        c.sock.shutdown(socket.SHUT_RDWR)
    return got, [run]


@promise("S1-50")
@pytest.mark.parametrize("take", [True, False])
def test_a_descriptor_is_passed_to_a_unix_node(router, node, tmp_path, take):
    """It may take the client over, or answer on its connection: both are well."""
    got, script = taker(take)
    n = node(script, unix=True)
    r = router(to=[n.address], listen=[str(tmp_path / "r.sock")])
    for i in range(3):
        assert r.ask({"HTTP_HOST": "a", "REQUEST_METHOD": "GET"}) == (b"from the node itself" if take else b"through the router")
        assert len(got) == i + 1
    assert r.warp.stderr == "" or "refused" not in r.warp.stderr


@promise("S1-50")
@pytest.mark.parametrize("vars, options", [
    ({"CONTENT_LENGTH": "3"}, {}),
    ({"HTTP_TRANSFER_ENCODING": "chunked"}, {}),
    ({"HTTP_UPGRADE": "websocket"}, {}),
    ({}, {"fd_passing": False}),
], ids=["body", "chunked", "upgrade", "off"])
def test_no_descriptor_is_passed(router, node, tmp_path, vars, options):
    got, script = taker(True)
    n = node(script, unix=True)
    r = router(to=[n.address], listen=[str(tmp_path / "r.sock")], **options)
    assert r.ask({"HTTP_HOST": "a", **vars}, b"abc" if "CONTENT_LENGTH" in vars else b"") == b"through the router"
    assert not got


@promise("S1-50")
def test_no_descriptor_over_tcp(router, node):
    got, script = taker(True)
    n = node(script)
    assert router(to=[n.address]).ask({"HTTP_HOST": "a"}) == b"through the router"
    assert not got


# ---- cheap mode without subscriptions, sockets, options ------------------------------------

@both
@promise("S1-48")
def test_events_and_the_rest_are_taken(router, node):
    n = node()
    r = router(to=[n.address], events=8, buffer_size=8192, quiet=True, harakiri=30, processes=1, timeout=20)
    assert [r.node("a") for _ in range(20)] == ["n0"] * 20


@both
@promise("S1-48")
def test_more_connections_than_events(router, node):
    n = node([REQ, lambda c: n.wait(lambda: len(n.requests) >= 40, "all of them", 2 * TIMEOUT), b"ok", FIN])
    r = router(to=[n.address], events=4)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(r.client()) for _ in range(40)]
        for c in clients:
            c.send(packet({"HTTP_HOST": "a"}))
        assert [c.rest(2 * TIMEOUT) for c in clients] == [b"ok"] * 40


# ---- a function of the key -----------------------------------------------------------------

def mapper(tmp_path, text, name="mapper.py"):
    (tmp_path / name).write_text(text)
    return "0:%s:get" % (tmp_path / name)


@both
@promise("S1-37")
def test_use_code_string(router, node, tmp_path):
    """bytes in and out, as uWSGI with Python 3 has it; state is kept; None, an empty text and an exception: no route."""
    n = node()
    r = router(use_code_string=mapper(tmp_path, '''
calls = []
def get(key):
    key = key if isinstance(key, bytes) else key.encode()
    calls.append(key)
    if key == b"none": return None
    if key == b"empty": return b""
    if key == b"boom": 1 / 0
    if key == b"third" and len(calls) < 5: return None
    return b"%s,5"
''' % n.address))
    assert [r.node(k) for k in ("a", "none", "empty", "boom", "third", "a")] == ["n0", "", "", "", "n0", "n0"]
    assert n.request().modifier1 == 5


@promise("S1-37")
def test_the_manuals_mapper_runs_as_it_stands(router, node, tmp_path):
    """str in, str out (B)."""
    n = node()
    r = router(use_code_string=mapper(tmp_path, "\ndef get(key):\n    return '%s'\n" % n.address))
    assert r.node("example.com") == "n0" and r.node("whatever") == "n0"


MEGAMAPPER = '''
domains = {}
domains['example.com'] = {'nodes': ('127.0.0.1:3031', '192.168.0.100:3032'), 'node': 0}
domains['unbit.it'] = {'nodes': ('127.0.0.1:3035,5', '192.168.0.100:3035,5'), 'node': 0}

DEFAULT_NODE = '192.168.0.1:1717'

def get(key):
    if key not in domains:
        return DEFAULT_NODE

    # get the node to forward requests to
    nodes = domains[key]['nodes']
    current_node = domains[key]['node']
    value = nodes[current_node]

    # round robin :P
    next_node = current_node + 1
    if next_node >= len(nodes):
        next_node = 0

    domains[key]['node'] = next_node

    return value
'''


@promise("S1-38")
def test_the_manuals_megamapper(router, node, tmp_path):
    """Lists by domain, in turn; others to the default node."""
    nodes = [node(name=x) for x in "abcde"]
    text = MEGAMAPPER
    for was, n in zip(("127.0.0.1:3031", "192.168.0.100:3032", "127.0.0.1:3035", "192.168.0.100:3035", "192.168.0.1:1717"), nodes):
        text = text.replace(was, n.address)
    r = router(use_code_string=mapper(tmp_path, text))
    assert {r.node("example.com") for _ in range(8)} == {"a", "b"}
    assert {r.node("unbit.it") for _ in range(8)} == {"c", "d"} and nodes[2].last.modifier1 == 5
    assert r.node("nobody") == "e" and nodes[4].last.modifier1 == 0


@promise("S1-37")
def test_the_mapper_is_found_where_warp_was_started(warp, node, tmp_path):
    n = node()
    d = tmp_path / "started"
    d.mkdir()
    mapper(d, "def get(key):\n    return '%s'\n" % n.address)
    r = uwsgi.Warp(lambda text, **kw: warp(text, dir=d, **kw), {"use_code_string": "0:mapper.py:get"})
    assert r.node("a") == "n0"


@promise("S1-37")
def test_a_retry_asks_the_mapper_again(router, node, tmp_path):
    n = node()
    r = router(use_code_string=mapper(tmp_path, '''
calls = 0
def get(key):
    global calls
    calls += 1
    return '127.0.0.1:%d' if calls == 1 else '%s'
''' % (free_port(), n.address)))
    assert r.node("a") == "n0"


@promise("S1-39", "S1-37")
def test_a_mapper_that_hangs_stalls_nobody(router, node, tmp_path):
    """Streams go on, keys that are known are answered, HTTP is served; who waits gets the fallback; it is started anew."""
    n, last = node([HEAD, TAKE(3), b"three", TAKE(3), b"six", FIN], [uwsgi.NAME]), node(name="last")
    flag = tmp_path / "hung"
    r = router(use_code_string=mapper(tmp_path, '''
import os, time
def get(key):
    if key == "hang" and not os.path.exists(%r):
        open(%r, "w").close()
        time.sleep(1000)
    return %r
''' % (str(flag), str(flag), n.address)), fallback=[last.address], fallback_on_no_key=True,
        more='[[routes]]\nrespond = { status = 200, body = "http" }\n')
    with r.client() as stream, r.client() as hangs:
        stream.send(packet({"HTTP_HOST": "known"}) + b"abc")
        assert stream.exactly(5, TIMEOUT) == b"three"
        assert r.node("known") == "n0"
        hangs.send(packet({"HTTP_HOST": "hang"}))
        eventually(flag.exists, "the mapper hangs")
        assert hangs.is_open(0.05)
        stream.send(b"def")
        assert stream.rest(TIMEOUT) == b"six"
        assert r.warp.ask("/").text == "http"
        assert body_of(hangs.rest(4 * TIMEOUT)).startswith("last")
    eventually(lambda: r.node("other") == "n0", "it runs again", 2 * TIMEOUT)
    assert r.node("hang") == "n0"


@promise("S1-37")
def test_a_mapper_that_dies_is_started_again(router, node, tmp_path):
    n = node()
    r = router(use_code_string=mapper(tmp_path, '''
import os
def get(key):
    if key == "die":
        os._exit(1)
    print("this is not an answer")
    return '%s'
''' % n.address))
    assert r.node("a") == "n0"
    assert r.node("die") == ""
    eventually(lambda: r.node("b") == "n0", "it runs again", 2 * TIMEOUT)


@promise("S1-37")
def test_a_mapper_that_does_not_load(router, node, tmp_path):
    """Said in the log; the FastRouter runs and refuses."""
    r = router(use_code_string=mapper(tmp_path, "def got(key):\n    syntax error\n"))
    assert r.node("a") == ""
    r.wait_log("mapper.py|SyntaxError")


@promise("S1-37")
def test_use_program(router, node, tmp_path):
    """One key a line in, one address a line out, in whatever language."""
    n = node()
    (tmp_path / "map.sh").write_text('while read -r k; do case $k in a) echo "%s,5";; *) echo;; esac; done\n' % n.address)
    r = router(use_program="/bin/sh %s" % (tmp_path / "map.sh"))
    assert r.node("a") == "n0" and n.last.modifier1 == 5
    assert r.node("b") == ""


@promise("S1-37")
@pytest.mark.parametrize("key", ["a\nb", "\n", "a\r\nb", "\0", "\xff\xfe", "x" * 255, "a b"])
def test_keys_do_not_break_the_talk_with_the_mapper(router, node, tmp_path, key):
    """Each answer belongs to its own key, whatever came before."""
    yes, no = node(name="yes"), node(name="no")
    (tmp_path / "map.sh").write_text('while read -r k; do case $k in good*) echo %s;; *) echo %s;; esac; done\n' % (yes.address, no.address))
    r = router(use_program="/bin/sh %s" % (tmp_path / "map.sh"))
    for i in range(3):
        assert r.route(key).split(" ")[0] in ("", "no")
        assert r.node("good%d" % i) == "yes"
        assert r.node("bad%d" % i) == "no"


# ---- uWSGI's own spelling --------------------------------------------------------------------

@pytest.fixture(params=["warp", "uwsgi"])
def spelled(request, warp, tmp_path):
    """Starts either program with the words of uWSGI's command line, or with the text of an ini; entered once at accepts."""
    real = []

    def start(words, *at, ini=None, plugins="fastrouter"):
        words = [str(w) for w in words]
        if ini is not None:
            (tmp_path / "site.ini").write_text(ini)
        if request.param == "uwsgi":
            real.append(uwsgi.Program(uwsgi.uwsgi_cmd(*words, *(["--ini", "site.ini"] if ini is not None else ["--master"]), "--die-on-term",
                                                      plugins=plugins), cwd=str(tmp_path)))
            real[-1].up(*at)
            return real[-1]
        w = warp(None, *(["-c", str(tmp_path / "site.ini")] if ini is not None else []), *words, dir=tmp_path,
                 env=uwsgi.SYSTEM)
        return w
    yield start
    for p in real:
        p.stop()


def node_of(at, key):
    return body_of(uwsgi.ask(at, {"HTTP_HOST": key})).split(" ")[0]


@promise("S1-23", "S1-25", "S1-51", "S1-48", "S1-49")
def test_the_command_line(spelled, node, tmp_path):
    """Several listeners, use-base, and options that only want to be taken."""
    (tmp_path / "sockets").mkdir()
    node(unix=str(tmp_path / "sockets" / "example.com"))
    port, path = free_port(), str(tmp_path / "u.sock")
    spelled(["--fastrouter", "127.0.0.1:%d" % port, "--fastrouter", path, "--fastrouter-use-base", str(tmp_path / "sockets") + "/",
             "--fastrouter-events=30", "--fastrouter-timeout", "20"], port, path)
    for at in (port, path):
        assert node_of(at, "example.com") == "n0" and node_of(at, "x") == ""


@promise("S1-26", "S1-45", "S1-44", "S1-50", "S1-51", "S1-23")
def test_more_command_lines(spelled, node, tmp_path):
    a, b = node(unix=str(tmp_path / "s-a")), node()
    port = free_port()
    spelled(["--fastrouter", "127.0.0.1:%d" % port, "--fastrouter-use-pattern", str(tmp_path / "s-%s"), "--no-fd-passing", "--master"], port)
    assert node_of(port, "a") == "n0"
    port = free_port()
    spelled(["--fastrouter=127.0.0.1:%d" % port, "--fastrouter-to=%s" % b.address, "--fastrouter-to=%s" % a.address,
             "--fastrouter-post-buffering", "8192", "--fastrouter-gracetime", "3"], port)
    assert {node_of(port, "a") for _ in range(4)} == {"n0", "n1"}


@promise("S1-31", "S1-42", "S1-51")
def test_an_ini(spelled, node, tmp_path):
    """x = v, comments of both kinds, the same names."""
    n, port, sub = node(), free_port(), free_port()
    spelled([], port, ini='''
; the router
[uwsgi]
  fastrouter = 127.0.0.1:%d
# nodes announce themselves
fastrouter-subscription-server=127.0.0.1:%d
fastrouter-cheap = true
subscription-tolerance = 20
subscription-dotsplit = true
fastrouter-timeout = 30   
master = true
''' % (port, sub))
    with Client(port) as c:
        c.send(packet({"HTTP_HOST": "www.unbit.it"}))
        assert c.is_open(0.3)
        uwsgi.announce("127.0.0.1:%d" % sub, ".unbit.it", n)
        assert body_of(c.rest(2 * TIMEOUT)) == "n0 www.unbit.it 0"


@promise("S1-51")
@pytest.mark.parametrize("words, ini, hint", [
    (["--fastrouter", "127.0.0.1:0", "--fastrouter-cheep"], None, "fastrouter-cheap"),
    ([], "[uwsgi]\nfastrouter = 127.0.0.1:1\nfastrouter-use-bass = /tmp/\n", "fastrouter-use-base"),
    ([], "[uwsgi]\nfastrouter = 127.0.0.1:1\nfastrouter-timeout = soon\n", "fastrouter-timeout"),
    ([], "[uwsgi]\nfastrouter = 127.0.0.1:1\nhttp-to = x\n", "http-to"),
    ([], "[uwsgi]\nfastrouter = 127.0.0.1:1\nnonsense\n", "nonsense"),
])
def test_what_is_not_understood_is_refused_by_name(run, tmp_path, words, ini, hint):
    if ini:
        (tmp_path / "bad.ini").write_text(ini)
        words = ["-t", "-c", "bad.ini"]
    p = run(*words)
    assert p.returncode in (1, 2) and hint in p.stderr


@promise("S1-30", "S1-27", "S1-28", "S1-29", "S1-51")
@pytest.mark.limit(60)
def test_a_script_fills_the_map_first(spelled, node, tmp_path, request):
    """The manual's foobar.py; with uWSGI and Python 3 it must say bytes."""
    a, b = node(), node()
    text = '''import uwsgi
# Requests for example.com on port 8000 will go to 127.0.0.1:4040
uwsgi.cache_set("example.com:8000", "127.0.0.1:4040")
# Requests for unbit.it will go to 127.0.0.1:4040 with the modifier1 set to 5 (perl/PSGI)
uwsgi.cache_set("unbit.it", "127.0.0.1:4040,5")
'''.replace("127.0.0.1:4040\"", a.address + '"').replace("127.0.0.1:4040,5", b.address + ",5")
    if "uwsgi]" in request.node.name:
        text = text.replace('("', '(b"').replace(', "', ', b"') + "application = lambda e, s: []\n"
    (tmp_path / "foobar.py").write_text(text)
    port = free_port()
    spelled(["--fastrouter", "127.0.0.1:%d" % port, "--fastrouter-use-cache", "--cache", "100", "--file", "foobar.py"], port,
            plugins="fastrouter python3")
    eventually(lambda: node_of(port, "example.com:8000") == "n0", "the map is filled", 10 * SLOW)
    eventually(lambda: node_of(port, "unbit.it") == "n1", "the rest, too")
    assert b.last.modifier1 == 5 and node_of(port, "example.com") == ""


@promise("S1-51", "S1-37", "S1-38")
def test_use_code_string_on_the_command_line(spelled, node, tmp_path, request):
    n, port = node(), free_port()
    (tmp_path / "mapper.py").write_text("def get(key):\n    return %s'%s'\n" % ("b" if "uwsgi]" in request.node.name else "", n.address))
    spelled(["--fastrouter", "127.0.0.1:%d" % port, "--fastrouter-use-code-string", "0:mapper.py:get"], port, plugins="fastrouter python3")
    eventually(lambda: node_of(port, "a") == "n0", "it answers")


# ---- shared sockets ----------------------------------------------------------------------------

SEED_INI = '''
[uwsgi]
;create a shared socket (the webserver will connect to it)
shared-socket = 127.0.0.1:3031

; bind the fastrouter to the shared socket
fastrouter = =0
; bind an instance to the same socket
socket = =0

; having a master is always a good thing...
master = true
; our subscription server
fastrouter-subscription-server = 192.168.0.100:4040
; our app
wsgi-file = /var/www/myheavyapp.wsgi
; a bunch of processes
processes = 4
; and put the fastrouter in cheap mode
fastrouter-cheap = true
'''
APP = '''
import os
def application(env, start):
    body = env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
    start("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [("app %s %s %d" % (env.get("HTTP_HOST"), env.get("PATH_INFO"), len(body))).encode()]
'''
VARS = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1"}


def visit(at, key):
    return body_of(uwsgi.ask(at, {**VARS, "HTTP_HOST": key})).split(" ")[0]


@promise("S1-40", "S1-41", "S1-42", "S1-51")
@pytest.mark.limit(90)
def test_the_manuals_ini_with_a_local_instance(spelled, node, tmp_path):
    """Only the app answers until a node is there; then both; then only the app again."""
    port, sub = free_port(), free_port()
    (tmp_path / "heavy.wsgi").write_text(APP)
    ini = SEED_INI.replace("127.0.0.1:3031", "127.0.0.1:%d" % port).replace("192.168.0.100:4040", "127.0.0.1:%d" % sub).replace(
        "/var/www/myheavyapp.wsgi", str(tmp_path / "heavy.wsgi")) + "plugin = python3\n"
    p = spelled([], port, ini=ini)
    assert eventually(lambda: visit(port, "k") == "app", "the app", 15 * SLOW)
    assert {visit(port, "k") for _ in range(20)} == {"app"}
    pids = set()

    def at_once():
        """Whose answers they are: the kernel decides who gets a connection."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(port)) for _ in range(20)]
            for c in clients:
                c.send(packet({**VARS, "HTTP_HOST": "k"}))
            got = [c.rest(TIMEOUT) for c in clients]
        pids.update(x.partition(b"X-Pid: ")[2].split(b"\r")[0] for x in got if b"X-Pid" in x)
        return {body_of(x).split(" ")[0] for x in got}
    eventually(lambda: at_once() == {"app"} and len(pids) > 1, "several of the four processes", 10 * SLOW)
    n = node()
    uwsgi.announce("127.0.0.1:%d" % sub, "k", n)
    eventually(lambda: "n0" in at_once(), "the node answers too", 10 * SLOW)
    uwsgi.announce("127.0.0.1:%d" % sub, "k", n, leave=True)
    eventually(lambda: at_once() == {"app"}, "the app alone", 10 * SLOW)
    assert at_once() == {"app"}


@promise("S1-40")
def test_shared_sockets_without_a_local_instance(router, node):
    """Two listeners by number, one of them shared by two routers' parts."""
    ports = [free_port(), free_port()]
    n = node()
    r = router(listen=["=0", "=1"], to=[n.address],
               more="".join('[[shared_sockets]]\nlisten = "127.0.0.1:%d"\n' % p for p in ports))
    for p in ports:
        assert node_of(p, "a") == "n0"


@promise("S1-40")
@pytest.mark.limit(60)
def test_a_shared_socket_is_handed_to_a_process(router, tmp_path):
    """fd://N of a supervised uWSGI; it outlives a restart of the process."""
    port = free_port()
    (tmp_path / "app.py").write_text(APP)
    more = '''[[shared_sockets]]
listen = "127.0.0.1:%d"
[processes.app]
command = "%s"
args = ["--plugin", "python3", "--socket", "fd://{fd0}", "--wsgi-file", "%s", "--master", "--die-on-term", "--disable-logging"]
shared_sockets = [0]
[admin]
listen = ["@DIR@/admin"]
''' % (port, uwsgi.need("uwsgi"), tmp_path / "app.py")
    r = router(listen=["=0"], subscription_server=True, cheap=True, more=more)
    assert visit(port, "k") == "app"
    supervised.kill(supervised.proc(r.warp, "app")["pid"])
    assert visit(port, "k") == "app"                       # the backlog holds it meanwhile


@promise("S1-40")
def test_an_inherited_socket(warp, node):
    """fd://N as a listener."""
    n = node()
    with socket.socket() as s:
        s.bind(("127.0.0.1", free_port()))
        s.listen(10)
        r = uwsgi.Warp(warp, {"listen": ["fd://%d" % s.fileno()], "to": [n.address]}, pass_fds=(s.fileno(),))
        assert r.warp and node_of(s.getsockname()[1], "a") == "n0"


# ---- real peers on both sides ------------------------------------------------------------------

@both
@promise("S1-22")
@pytest.mark.limit(60)
@pytest.mark.parametrize("front", ["nginx", "uwsgi --http"])
def test_between_real_servers(router, instance, tmp_path, front):
    """nginx's uwsgi_pass or uWSGI's HTTP front, the router, a real instance."""
    i = instance(APP, "--processes", "2")
    r = router(to=[i.address])
    with contextlib.ExitStack() as stack:
        if front == "nginx":
            port = stack.enter_context(nginx(tmp_path, r.listen[0]))
        else:
            port = free_port()
            p = uwsgi.Program(uwsgi.uwsgi_cmd("--http", "127.0.0.1:%d" % port, "--http-to", r.listen[0], "--die-on-term", "--master", plugins="http"))
            stack.callback(p.stop)
            p.up(port)
        for n in (0, 100, 300000):
            with Client(port) as c:
                c.send(lib.request("/x", method="POST", body=b"b" * n))
                m = c.response(timeout=3 * TIMEOUT)
                assert (m.status, m.text) == (200, "app a.example /x %d" % n)


@promise("S1-22")
@pytest.mark.limit(60)
def test_http_through_the_real_router(warp, instance, tmp_path):
    """warp's HTTP side, a real FastRouter, a real instance; the key is a param."""
    i = instance(APP)
    dir = tmp_path / "r"
    dir.mkdir()
    real = uwsgi.Uwsgi(dir, {}, {"the-key": i.address})
    try:
        w = warp(lib.conf(app={"url": "uwsgi://" + real.listen[0], "params": {"UWSGI_FASTROUTER_KEY": "the-key"}}))
        assert w.ask("/x", method="POST", body=b"hello").text == "app a.example /x 5"
    finally:
        real.stop()


@promise("S1-22")
def test_the_log_has_key_and_node(router, node):
    """One line of the access log for a request."""
    n = node()
    r = router(to=[n.address], more='[log]\naccess = "stdout"\nformat = "json"\n')
    assert r.node("key.example") == "n0"
    r.warp.wait_stdout("key.example.*" + n.address.replace(".", r"\."))
