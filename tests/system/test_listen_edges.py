"""Addresses that warp listens on: names, one inside the other, and sockets handed over."""
import re
import signal
import socket

import pytest

from lib import Client, connect, eventually, free_port
from supervised import reload
from test_process import activated, listening, upgraded  # noqa: F401 (a fixture)

BODY = '[admin]\nlisten = "off"\n[[routes]]\nrespond = { status = 200, body = "%s" }\n'


def text(*addrs, body="ok"):
    return "[server]\nlisten = [%s]\n" % ", ".join('"%s"' % a for a in addrs) + BODY % body


def answer(addr):
    with Client(addr) as c:
        return c.ask().text


def refused(addr):
    try:
        connect(addr).close()
        return False
    except ConnectionRefusedError:
        return True


# ---- what the text shows -------------------------------------------------------------------

@pytest.mark.parametrize("name", ["localhost", "no.such.host.invalid"])
def test_names(check, warp, name):
    """A name that -t lets pass is served, one that is not is refused by -t already."""
    p = check(text("%s:18080" % name))
    if p.returncode == 1:
        assert re.search(r"warp\.toml:2:\d+: error: .*%s" % re.escape(name), p.stderr), p.stderr
    elif name == "localhost":
        w = warp(text("localhost:@PORT@"))
        assert answer(w.port) == "ok"
    else:
        assert any(name in t for t in re.findall("warning: (.*)", p.stdout + p.stderr)), "the host lacks it"


@pytest.mark.parametrize("admin", ["127.0.0.1:18080", "0.0.0.0:18080", ":18080"])
def test_one_address_for_two_things(check, admin):
    """server.listen and admin.listen: only one of them can have it."""
    p = check('[server]\nlisten = ["127.0.0.1:18080"]\n[admin]\nlisten = ["%s"]\ntoken = "t"\n[[routes]]\nrespond = { status = 200 }\n' % admin)
    if admin == "127.0.0.1:18080":
        assert p.returncode == 1 and "18080" in p.stderr, p.stderr


# ---- one inside the other ---------------------------------------------------------------------

WIDE = [(":%d", "127.0.0.1:%d"), ("127.0.0.1:%d", ":%d"), ("0.0.0.0:%d", "127.0.0.1:%d"), (":%d", "[::1]:%d"),
        (":%d", "0.0.0.0:%d"), ("[::]:%d", "0.0.0.0:%d"), (":%d", "127.0.0.1:%d", "[::1]:%d")]


@pytest.mark.parametrize("addrs", WIDE, ids=lambda a: " ".join(a).replace("%d", "P"))
def test_both_at_once(check, warp, addrs):
    """As nginx does: every address that is meant answers."""
    assert check(text(*[a % 18080 for a in addrs])).returncode == 0
    port = free_port()
    w = warp(text(*[a % port for a in addrs]), port=port)
    hosts = {"127.0.0.1", "127.0.0.2"} if "127.0.0.1:%d" not in addrs or len(addrs) > 1 else {"127.0.0.1"}
    if any(a.startswith((":", "[")) for a in addrs):
        hosts.add("::1")
    for h in hosts:
        assert answer((h, port)) == "ok", h
    reload(w)
    for h in hosts:
        assert answer((h, port)) == "ok", h
    assert "another program" not in w.stderr


@pytest.mark.parametrize("old,new", [(":%d", "127.0.0.1:%d"), ("127.0.0.1:%d", ":%d"), ("0.0.0.0:%d", "127.0.0.1:%d"),
                                     ("127.0.0.1:%d", "0.0.0.0:%d"), ("0.0.0.0:%d", ":%d")],
                         ids=lambda a: a.replace("%d", "P"))
def test_reload_from_one_to_the_other(warp, old, new):
    """One's own socket is no other program; and back again."""
    port = free_port()
    w = warp(text(old % port, body="v1"), port=port)
    assert answer(port) == "v1"
    for addr, body in ((new, "v2"), (old, "v3")):
        reload(w, text(addr % port, body=body))
        # who comes to a socket that is gone before its last worker has closed it is served by that
        eventually(lambda: answer(("127.0.0.1", port)) == body, body)
        if addr == "127.0.0.1:%d":
            eventually(lambda: refused(("127.0.0.2", port)), "only that address")
        else:
            assert answer(("127.0.0.2", port)) == body
    assert "another program" not in w.stderr


def test_reload_that_fails_leaves_what_was(warp):
    """The wider address is taken by somebody else in part: the old one goes on."""
    with socket.socket() as s:
        port = free_port()
        s.bind(("127.0.0.2", port))
        s.listen()
        w = warp(text("127.0.0.1:%d" % port, body="v1"), port=port)
        reload(w, text("0.0.0.0:%d" % port, body="v2"), good=False)
        assert answer(port) == "v1"
        assert re.search(r"0\.0\.0\.0:%d: another program" % port, w.stderr)


# ---- handed over ----------------------------------------------------------------------------------

@pytest.mark.parametrize("spelling", ["fd://3", "=3"])
def test_socket_by_number(warp, activated, spelling):  # noqa: F811
    """systemd's LISTEN_FDS and `fd://3` mean the same socket; kept over reload and upgrade."""
    a = listening()
    port, fds = a.getsockname()[1], activated(a)
    w = warp(text(spelling, body="v1"), pass_fds=fds, port=port)
    a.close()
    assert answer(port) == "v1"
    assert "of no address" not in w.stderr
    reload(w, text(spelling, body="v2"))
    assert answer(port) == "v2"
    old = w.children()
    w.signal(signal.SIGUSR2)
    upgraded(w, old)
    assert answer(port) == "v2"


def test_sockets_by_number_and_by_address(warp, activated, tmp_path):  # noqa: F811
    """Each spelling finds its own; the rest is bound, what nobody names is said and closed."""
    a, b, c, other = listening(), listening(), listening(str(tmp_path / "s")), free_port()
    stray = listening()
    fds = activated(a, b, c, stray)
    pa, pb, ps = (s.getsockname()[1] for s in (a, b, stray))
    w = warp(text("fd://4", "127.0.0.1:%d" % pa, "unix:%s" % (tmp_path / "s"), "127.0.0.1:%d" % other), pass_fds=fds, port=pa)
    for s in (a, b, c, stray):
        s.close()
    for addr in (pa, pb, str(tmp_path / "s"), other):
        assert answer(addr) == "ok", addr
    assert refused(ps)
    w.wait_stderr("LISTEN_FDS: descriptor 6")
    assert not re.search("descriptor [345]", w.stderr), w.stderr


def test_socket_by_number_for_admin(warp, activated, tmp_path):  # noqa: F811
    """admin.listen too."""
    a = listening(str(tmp_path / "admin"))
    fds = activated(a)
    w = warp('[admin]\nlisten = ["fd://3"]\n[[routes]]\nrespond = { status = 200, body = "ok" }\n', pass_fds=fds)
    a.close()
    with Client(str(tmp_path / "admin")) as c:
        assert c.ask("/health").status == 200
    assert w.ask().text == "ok" and "of no address" not in w.stderr
