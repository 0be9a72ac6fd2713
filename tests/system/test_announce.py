"""subscribe_to: programs are announced to uWSGI's subscription servers while they are ready."""
import signal
import socket
import time

import pytest

import lib
import uwsgi
from lib import SLOW, TIMEOUT, eventually, free_port
import supervised
from supervised import app, fleet

pytestmark = pytest.mark.limit(60)


class Server:
    """A subscription server that only listens: what came, as (leaves, {name: value})."""

    def __init__(self, port=0):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", port))
        self.port = self.sock.getsockname()[1]
        self.address = "127.0.0.1:%d" % self.port

    def next(self, timeout=2 * TIMEOUT):
        self.sock.settimeout(timeout)
        got = self.sock.recv(5000)
        assert got[0] == 224 and int.from_bytes(got[1:3], "little") == len(got) - 4
        return got[3] != 0, dict(uwsgi.unblock(got[4:]))


@pytest.fixture
def server():
    s = Server()
    yield s
    s.sock.close()


def test_ready_again_and_gone(warp, server, tmp_path):
    """At once and after a second, with the port that warp chose; a mapping file's keys; withdrawn when warp stops."""
    (tmp_path / "mappings.txt").write_text("# keys\n\nunbit.it\r\nuwsgi.it:8000,5")
    w = warp(fleet(app("web", "port={port}", subscribe_to=[server.address + ":example.com,7", server.address + ":@mappings.txt"])), dir=tmp_path)
    start, rounds = time.monotonic(), []
    for i in range(6):
        leaves, vars = server.next()
        assert not leaves
        rounds.append((vars["key"], vars.get("modifier1", "0"), vars["address"]))
    assert time.monotonic() - start < 6 * SLOW, "the second round follows soon"
    assert [r[:2] for r in rounds] == 2 * [("example.com", "7"), ("unbit.it", "0"), ("uwsgi.it:8000", "5")]
    host, port = rounds[0][2].split(":")
    assert host == "127.0.0.1" and {r[2] for r in rounds} == {rounds[0][2]}
    with lib.Client(int(port)) as c:
        assert c.ask("/").status == 200
    w.stop()
    assert sorted(server.next()[1]["key"] for _ in range(3)) == ["example.com", "unbit.it", "uwsgi.it:8000"]


def test_a_program_that_dies_is_withdrawn(warp, server, tmp_path):
    w = warp(fleet(app("web", "port={port}", subscribe_to=server.address + ":k")), dir=tmp_path)
    assert server.next()[0] is False
    supervised.kill(supervised.proc(w, "web")["pid"])
    assert eventually(lambda: server.next()[0], "it leaves")
    assert eventually(lambda: not server.next()[0], "it is back")


def test_requests_of_those_who_were_told_are_finished(warp, server, tmp_path):
    """Another router has sent one there just before it leaves; that is not counted among warp's own."""
    w = warp(fleet(app("web", "port={port}", "slow=0.5", replicas=2, subscribe_to=server.address + ":k")), dir=tmp_path)
    supervised.running(w)
    host, port = server.next()[1]["address"].split(":")
    with lib.Client(int(port)) as c:
        c.send(lib.request("/"))
        supervised.verb(w, "restart", "web")
        assert c.response().status == 200
    assert any(server.next()[0] for _ in range(20)), "it has left"


def test_an_address_of_ones_own(warp, server, tmp_path):
    """A process without an upstream; a shared socket."""
    port = free_port()
    warp(fleet(processes={"a": app("a", shared_sockets=[0], subscribe_to=["10.1.2.3:99=%s:k" % server.address, "=0=%s:l=m" % server.address])},
               more='[[shared_sockets]]\nlisten = "127.0.0.1:%d"\n' % port), dir=tmp_path)
    assert {(v["key"], v["address"]) for v in (server.next()[1], server.next()[1])} == {("k", "10.1.2.3:99"), ("l=m", "127.0.0.1:%d" % port)}


def test_an_upgrade_withdraws_nothing(warp, server, tmp_path):
    w = warp(fleet(app("web", "port={port}", subscribe_to=server.address + ":k")), dir=tmp_path)
    server.next(), server.next()
    w.signal(signal.SIGUSR2)
    leaves, vars = server.next()
    assert not leaves and vars["key"] == "k"
