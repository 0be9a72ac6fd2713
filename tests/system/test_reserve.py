"""The operator's reserve: however many clients hold places, status, health and metrics answer, a new client
takes the place of one that only rests, and `warp -s` never waits for ever."""
import socket
import subprocess
import threading
import time

import pytest

import lib
from lib import REQ, SLOW, TIMEOUT, WAIT, Client, clean_env, complete, conf, free_port, reply, request, run_warp, toml_file

PLACES = 4
OK = {"respond": {"status": 200, "body": "ok"}}


def full(n=PLACES, admin="@DIR@/admin", route=OK, **more):
    return conf(route, server={"max_connections": n, "worker_threads": 1}, admin={"listen": [admin], "token": "t"}, **more)


def idle(w, n=PLACES):
    """Clients that were served and stay, oldest first."""
    clients = [w.client() for _ in range(n)]
    for c in clients:
        assert c.ask().status == 200
    return clients


def operator(w, at):
    """Everything an operator asks for is answered."""
    for path in ("/health", "/status", "/metrics"):
        with Client(at) as c:
            assert c.ask(path, "X-Admin-Token: t").status == 200, path


@pytest.mark.parametrize("how", ["idle", "slow", "busy", "waiting"])
@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_admin_answers_when_every_place_is_taken(warp, backend, how, where):
    """By clients that rest after a request, that send half a head, whose request runs, or by more than there are places."""
    done, port = threading.Event(), free_port()
    b = backend([REQ, WAIT(done), reply("done")])
    text = full(admin="127.0.0.1:%d" % port if where == "tcp" else "@DIR@/admin", **({"route": {}, "app": b} if how == "busy" else {}))
    w = warp(text)
    at = port if where == "tcp" else w.path("admin")
    clients = idle(w) if how == "idle" else [w.client() for _ in range(PLACES * (2 if how == "waiting" else 1))]
    for c in clients if how != "idle" else ():
        c.send(request() if how == "busy" else "GET / HT")
    if how == "busy":
        b.wait(lambda: len(b.conns) == PLACES, "requests")
    try:
        operator(w, at)
        p = run_warp("-s", "status", "-c", w.file, cwd=w.dir)
        assert p.returncode == 0 and p.stdout.strip(), p.stderr
    finally:
        done.set()
    if how == "busy":
        assert [c.response().text for c in clients] == ["done"] * PLACES, "nobody pays for it"


def test_admin_clients_take_no_place_of_others(warp):
    """Operators who stay connected are not counted among the clients."""
    w = warp(full())
    watching = [Client(w.path("admin")) for _ in range(2)]
    for c in watching:
        assert c.ask("/health").status == 200
    clients = idle(w)
    assert all(c.ask().status == 200 for c in clients), "all of max_connections are there"
    assert all(c.ask("/health").status == 200 for c in watching)


def test_longest_idle_client_makes_room(warp):
    """Full, and one more comes: whoever has rested longest is closed in peace; the others stay."""
    w = warp(full())
    clients = idle(w)
    assert clients[0].ask().status == 200                      # now clients[1] rests longest
    for gone in (1, 2):
        new = w.client()
        assert new.ask().status == 200, "a new client is served at once"
        assert clients[gone].closed() == "eof"
        clients.append(new)
    rest = [clients[0]] + clients[3:]
    assert all(c.ask().status == 200 for c in rest), "kept connections of the others go on"


def test_who_is_at_work_is_not_closed(warp, backend):
    """Neither a running request nor half a head nor a tunnel makes room; the one that rests does."""
    done = threading.Event()
    b = backend([REQ, WAIT(done), reply("done")])
    w = warp(conf({"path_prefix": "/work", "upstream": "app"}, OK, server={"max_connections": 3, "worker_threads": 1}, app=b))
    busy, half, resting = w.client(), w.client(), w.client()
    assert half.ask().status == 200
    half.send("GET / HT")
    busy.send(request("/work"))
    b.request()
    assert resting.ask().status == 200
    with w.client() as new:
        assert new.ask().status == 200
        assert resting.closed() == "eof"
    assert half.send("TP/1.1\r\nHost: a\r\n\r\n").response().status == 200
    done.set()
    assert busy.response().text == "done"


def test_full_of_requests_a_client_waits(warp, backend):
    """Nobody rests: the new one waits in the backlog, and gets its turn."""
    done = threading.Event()
    b = backend([REQ, WAIT(done), reply("done"), lib.ECHO])
    w = warp(conf(app=b, server={"max_connections": 2, "worker_threads": 1}))
    clients = [w.client().send(request("/%d" % i)) for i in range(2)]
    b.wait(lambda: len(b.conns) == 2, "requests")
    new = w.client().send(request("/new"))
    assert new.is_open(0.2), "no place yet"
    done.set()
    assert [c.response().text for c in clients] == ["done"] * 2
    assert new.response().text == "app GET /new 0"


# ---- warp -s ------------------------------------------------------------------------

@pytest.mark.limit(50)
def test_verb_gives_up(tmp_path):
    """A warp that does not take the connection, one that takes it and is silent, one that drips: each ends, with words."""
    began, socks, asked = time.monotonic(), [], {}
    for name in ("deaf", "silent", "drips"):
        path = str(tmp_path / name)
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(0 if name == "deaf" else 5)
        socks.append(s)
        f = tmp_path / (name + ".toml")
        f.write_text(complete(toml_file(conf(OK, admin={"listen": [path]})), 1))
        asked[name] = str(f)
    for _ in range(3):                                         # its backlog is full then
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        s.connect_ex(str(tmp_path / "deaf"))
        socks.append(s)

    def drip():
        try:
            with socks[2].accept()[0] as s:
                for b in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
                    s.send(bytes([b]))
                    time.sleep(0.2)
        except OSError:
            pass
    threading.Thread(target=drip, daemon=True).start()
    running = {n: subprocess.Popen([lib.WARP, "-s", "status", "-c", f], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=clean_env()) for n, f in asked.items()}
    try:
        for name, p in running.items():
            try:
                out, err = p.communicate(timeout=max(1, 15 + TIMEOUT - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                raise AssertionError("%s: warp -s waits after %.0f s" % (name, time.monotonic() - began)) from None
            assert p.returncode == 4 and not out, (name, out, err)
            assert str(tmp_path / name) in err and "no warp listens" not in err, "%s: says who does not answer: %s" % (name, err)
    finally:
        for p in running.values():
            if p.poll() is None:
                p.kill()
                p.communicate()
        for s in socks:
            s.close()
    assert time.monotonic() - began < 20 * SLOW
