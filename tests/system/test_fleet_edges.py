"""The fleet at its edges: whom a broken connection is blamed on, reloads and upgrades at bad moments, names that move,
what programs inherit and where they listen."""
import ctypes
import os
import pwd
import re
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time

import pytest

import lib
from lib import CLOSE, ECHO, REQ, RST, SLOW, WAIT, conf, eventually, free_port, read, reply, request, toml_file
from supervised import (APP, alive, app, fleet, gone, instances, journal, kill, proc, procs, reload, remove, running, sh, touch, upgrade,
                        verb, wait_state)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PORT, SOCKET = "port={port}", "socket={socket}"
ADMIN = {"listen": ["@DIR@/admin"]}


@pytest.fixture
def place():
    """A directory that every user can reach and write to."""
    path = tempfile.mkdtemp(prefix="warp-fleet-", dir="/tmp")
    os.chmod(path, 0o777)
    yield path
    shutil.rmtree(path)


# ---- blame --------------------------------------------------------------------------

@pytest.mark.parametrize("how", [CLOSE, RST], ids=["closed", "reset"])
def test_kept_connection_that_closes_under_a_post(warp, backend, how):
    """Not sent again, and the client hears of it; but the instance has done nothing wrong: backends close idle
    connections at any time."""
    a = backend([REQ, reply("a"), REQ, how], name="a")
    b = backend(name="b")
    w = warp(toml_file(conf(app={"strategy": "first", "max_fails": 3, "fail_timeout_secs": 60, "on": [a, b]}, admin=ADMIN)))
    for _ in range(4):
        assert w.ask().text == "a"
        assert w.ask(method="POST", body=b"x").status == 502
    i = instances(w, "app")[0]
    assert (i["state"], i["failures"]) == ("up", 0)
    assert not b.requests and sum(m.method == "POST" for m in a.requests) == 4, "none was sent twice"


def test_idle_life_recovers(warp, backend):
    """A backend that once closed early and does not any more: its connections are kept longer again."""
    keep = [0.55]

    def serve(c):
        while c.buf or select.select([c.sock], [], [], keep[0])[0]:
            c.request()
            c.send(reply("ok"))
        c.sock.shutdown(socket.SHUT_RDWR)
    b = backend([serve])
    w = warp(toml_file(conf(app=b, admin=ADMIN)))
    life = lambda: instances(w, "app")[0]["idle_life_ms"]
    for i in range(2):
        w.ask()
        assert b.conn(i).closed.wait(lib.TIMEOUT)
    was = eventually(life, "it is learned")
    keep[0] = 60
    reload(w)
    due = [0]

    def longer():
        if time.monotonic() > due[0]:
            w.ask()
            due[0] = time.monotonic() + was / 1000 * 1.1
        return life() == 0 or life() > was * 5 / 4
    eventually(longer, "longer than %d ms" % was, 12 * SLOW)


def test_each_upstream_has_its_own_lines(warp):
    """One that fails over and over does not hide why another one failed."""
    ports = {"noisy": free_port(), "quiet": free_port()}
    c = conf(*[{"path_prefix": "/" + n, "upstream": n} for n in ports],
             **{n: {"instances": [{"host": "127.0.0.1", "port": p}]} for n, p in ports.items()})
    w = warp(toml_file(c))
    with w.client() as a:
        for i in range(60):
            if not a.is_open(0):
                break
            a.ask("/noisy")
    for _ in range(20):
        w.ask("/noisy")
    w.ask("/quiet")
    w.wait_stderr(r"warn: upstream quiet: 127\.0\.0\.1:%d .*refused" % ports["quiet"])
    assert len(re.findall("upstream noisy: 127", w.stderr)) < 40, "still limited"


# ---- reload and upgrade at bad moments -----------------------------------------------------

@pytest.mark.parametrize("how", ["done", "failed", "oneshot", "oneshot failed", "backoff"])
def test_one_that_has_ended_and_changed_runs_again(warp, how):
    """What the operator has mended is tried at the reload; what he has not touched is not."""
    bad = how in ("failed", "oneshot failed", "backoff")
    keys = {"oneshot": True} if "oneshot" in how else {}
    keys.update({"restart": "always", "backoff_secs": 600, "backoff_max_secs": 600} if how == "backoff" else {"restart": "never"})
    text = lambda word: toml_file({"admin": ADMIN, "processes": {"web": sh("echo %s >>ran; exit %d" % (word, bad), **keys)},
                                   "routes": [{"respond": {"status": 200}}]})
    w = warp(text("one"))
    wait_state(w, "backoff" if how == "backoff" else "failed" if bad else "done")
    reload(w)
    reload(w, text("two"))
    eventually(lambda: read(w.path("ran")).endswith("two\n"), "it runs as it is said now: %s" % proc(w))
    assert read(w.path("ran")) == "one\ntwo\n"


@pytest.mark.parametrize("second", ["same", "other"])
def test_second_reload_in_the_middle_of_a_roll(warp, second):
    """Replicas that run as it is said now are left alone; the roll goes on, to what was said last."""
    text = lambda v: fleet(app("web", PORT, "bind_if=go{index}", replicas=3, env={"V": v}))
    w = warp(text("one"), ready=True)
    go = ["go%d" % i for i in range(3)]
    touch(w, *go)
    old = running(w)
    for name in go[1:]:
        remove(w, name)
    reload(w, text("two"))
    eventually(lambda: len(journal(w, "start")) == 5, "one done, one on its way, one to come")
    last = "two" if second == "same" else "three"
    reload(w, text(last))
    touch(w, *go[1:])

    def environ(pid):
        with open("/proc/%d/environ" % pid, "rb") as f:
            return ("V=" + last).encode() in f.read().split(b"\0")

    def rolled():
        now = [p for p in procs(w).values() if p["state"] == "up" and p["pid"]]
        return len(now) == 3 and not {p["pid"] for p in now} & set(old) and all(environ(p["pid"]) for p in now)
    eventually(rolled, "all run as was said last: %s" % procs(w), 3 * lib.TIMEOUT)
    if second == "same":
        assert len(journal(w, "start")) == 6, "each was started once more: %s" % journal(w, "start")


@root_only
def test_upgrade_while_one_of_another_user_starts(warp, place):
    """Its socket is opened to the workers all the same."""
    shutil.copy(APP, place + "/app.py")
    w = warp(fleet({"command": sys.executable, "args": ["-SE", place + "/app.py", "web", SOCKET, "bind_if=go", "journal=/dev/null"],
                    "user": "daemon", "dir": place}, server={"user": "nobody"}, hold_secs=1))
    wait_state(w, "starting")
    upgrade(w)
    open(place + "/go", "w").close()
    wait_state(w, "up")
    assert w.ask().status == 200


@root_only
@pytest.mark.parametrize("group", (None, "65534"))
def test_user_by_number(warp, place, group):
    """Whether or not the number has an account: it has that account's groups, home and name."""
    w = warp(fleet(None, {"p": {"command": "sh -c 'id -u >who; id -G >>who; echo $USER >>who; exec sleep 60'", "dir": place,
                                "user": "65534", **({"group": group} if group else {})}}))
    wait_state(w, "up", "p")
    eventually(lambda: read(place + "/who").count("\n") == 3, lambda: w.stderr[-500:])
    assert read(place + "/who") == "65534\n65534\n%s\n" % pwd.getpwuid(65534).pw_name
    assert "no user" not in w.stderr


@pytest.mark.parametrize("word", [PORT, SOCKET], ids=["port", "socket"])
def test_chosen_place_that_a_stranger_takes(warp, word):
    """While it does not run somebody else binds what warp has chosen for it: warp says so, and chooses anew."""
    w = warp(fleet(app("web", word, backoff_secs=0.5, backoff_max_secs=1)))
    w.ask()
    taken = next(i for i in instances(w))["address"]
    kill(wait_state(w, "up")["pid"])
    wait_state(w, "backoff")
    with socket.socket(socket.AF_INET if word == PORT else socket.AF_UNIX) as stranger:
        if word == PORT:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", int(taken.rpartition(":")[2])))
        else:
            path = taken.partition(":")[2]
            if os.path.exists(path):
                os.unlink(path)
            stranger.bind(path)
        stranger.listen(5)
        wait_state(w, "up")
        assert w.ask().text.startswith("web ")
    assert w.stderr.count("another program is at") == 1


@pytest.mark.skipif(not shutil.which("uwsgi"), reason="no uwsgi")
@pytest.mark.parametrize("text", ["README", "contrib/examples/uwsgi.toml"])
def test_uwsgi_as_it_is_recommended_ends_when_told(warp, tmp_path, text):
    """TERM alone would make it load the application once more, until it is killed."""
    command, = re.findall(r'command = "(uwsgi [^"]*)"', read(os.path.join(lib.ROOT, text)))
    (tmp_path / "app.py").write_text("def application(env, start):\n    start('200 OK', [])\n    return [b'ok']\n")
    (tmp_path / "app.ini").write_text("[uwsgi]\nplugin = python3\nmodule = app:application\nmaster = true\n")
    w = warp(fleet({"command": command, "dir": str(tmp_path), "stop_timeout_secs": 5 * SLOW}, protocol="uwsgi", socket="@DIR@/s"))
    assert w.ask().text == "ok"
    verb(w, "restart", "web")
    assert w.ask().text == "ok"
    verb(w, "stop", "web")
    assert "binary reloading" not in w.stderr


def test_another_at_the_same_port_while_old_workers_are_busy(warp):
    """The old program makes way in time for those who wait for the new one, and is no stranger in the log."""
    port = free_port()
    text = fleet(app("web", "port=%d" % port), host="127.0.0.1", port=port, hold_secs=8, server={"shutdown_timeout_secs": 60})
    w = warp(text)
    assert w.ask().status == 200
    old = wait_state(w, "up")["pid"]
    with w.client() as c:
        c.send(request("/wait"))
        eventually(lambda: journal(w, "waiting"), "a request is in flight")
        reload(w, re.sub(r"\bweb\b", "site", text))
        m = w.ask("/", timeout=20 * SLOW)
        assert m.status == 200 and int(m.text.split()[1]) != old, m.text
    assert "another program" not in w.stderr


def test_another_at_the_same_port_where_nobody_waits(warp):
    """Requests are not held there: those in flight at the old program are answered."""
    port = free_port()
    text = fleet(app("web", "port=%d" % port, stop_signal="KILL"), host="127.0.0.1", port=port, hold_secs=0)
    w = warp(text)
    eventually(lambda: w.ask().status == 200, "it serves")
    with w.client() as c:
        c.send(request("/wait"))
        eventually(lambda: journal(w, "waiting"), "a request is in flight")
        reload(w, re.sub(r"\bweb\b", "site", text))
        wait_state(w, "backoff", "site")
        time.sleep(0.5)
        open(w.path("go"), "w").close()
        assert c.response().status == 200
    wait_state(w, "up", "site")


def test_logs_reopened_during_a_reload(warp):
    """HUP and USR1 come together: the new workers write to the new file."""
    text = lambda name: toml_file({"log": {"access": "@DIR@/" + name, "format": "$uri"}, "routes": [{"respond": {"status": 200}}]})
    w = warp(text("old.log"))
    w.ask("/before")
    w.write(text("new.log"))
    lib.freeze(w.pid)
    for sig in (signal.SIGHUP, signal.SIGUSR1, signal.SIGCONT):
        w.signal(sig)
    w.wait_stderr("logs reopened")
    w.wait_stderr("reloaded, generation 2")
    for i in range(5):                     # whatever the worker was told has come by then
        w.ask("/after%d" % i)
    eventually(lambda: "/after4" in read(w.path("old.log")) + read(w.path("new.log")))
    assert "/after4" in read(w.path("new.log"))


# ---- what programs inherit -----------------------------------------------------------

def test_programs_have_the_limits_warp_was_started_with(warp):
    """warp raises its own, for its connections; a program that scans all descriptors must not pay for it."""
    limits = (256, 512) if os.geteuid() == 0 else (256, 4096)
    w = warp(fleet(None, {"web": sh("echo $(ulimit -Sn) $(ulimit -Hn) >>seen; exec sleep 987")}, server={"max_connections": 1000}),
             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits))
    want = "%d %d\n" % limits
    eventually(lambda: read(w.path("seen")).count("\n") == 1)
    assert read(w.path("seen")) == want
    verb(w, "restart", "web")
    eventually(lambda: read(w.path("seen")).count("\n") == 2)
    upgrade(w)
    verb(w, "restart", "web")
    eventually(lambda: read(w.path("seen")).count("\n") == 3)
    assert read(w.path("seen")) == 3 * want


def test_children_from_before_warp(warp, tmp_path, monkeypatch):
    """`something & exec warp`: what warp did not start is not its to end."""
    script = tmp_path / "start"
    script.write_text("#!/bin/sh\nsleep 987 </dev/null >/dev/null 2>&1 &\necho $! >%s\nexec %s \"$@\"\n" % (tmp_path / "pid", lib.WARP))
    script.chmod(0o755)
    monkeypatch.setattr(lib, "WARP", str(script))
    w = warp(fleet(app("web", PORT)))
    stranger = int(read(tmp_path / "pid"))
    try:
        kids = list(map(int, w.ask("/fork?4").text.split()))
        w.stop()
        gone(kids, "its own program's")
        assert alive(stranger)
    finally:
        if alive(stranger):
            kill(stranger)


@root_only
@pytest.mark.parametrize("log", ["prefix", "file"])
def test_output_by_name_with_another_user(warp, place, log):
    """Programs that open /dev/stdout and /dev/stderr can, though the pipe was made by root."""
    file = place + "/log"
    w = warp(fleet(None, {"web": sh("echo one >/dev/stdout; echo two >/dev/stderr; echo three; exec sleep 987", user="nobody", dir="/",
                                    log="prefix" if log == "prefix" else file)}))
    said = lambda: w.stderr if log == "prefix" else read(file)
    eventually(lambda: "three" in said())
    assert "one" in said() and "two" in said(), said()


# ---- where programs listen ------------------------------------------------------------

LISTEN_AT = """
import socket, sys, os, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        b = b'%d' % os.getpid()
        self.send_response(200); self.send_header('Content-Length', str(len(b))); self.end_headers(); self.wfile.write(b)
    def log_message(self, *_): pass
class S(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
S((sys.argv[1], int(sys.argv[2])), H).serve_forever()
"""


def at(host, **keys):
    return {"command": sys.executable, "args": ["-SE", "-c", LISTEN_AT, host, "{port}"], **keys}


@pytest.mark.parametrize("ready", ["listen", "health"])
@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_programs_that_listen_at_localhost(warp, host, ready):
    """warp chooses the port; `localhost` is ::1 for some. Readiness, checks and traffic find it, also after an upgrade and
    a restart."""
    w = warp(fleet(at(host, ready=ready, ready_timeout_secs=3 * SLOW), hold_secs=1,
                   health={"path": "/", "interval_secs": 0.2, "healthy_threshold": 1} if ready == "health" else None))
    pid = wait_state(w, "up")["pid"]
    assert int(w.ask().text) == pid
    upgrade(w)
    assert int(w.ask().text) == pid
    verb(w, "restart", "web")
    assert int(w.ask().text) == proc(w)["pid"] != pid
    assert instances(w)[0]["failures"] == 0


# ---- names that move ------------------------------------------------------------------

class Hosts:
    """An /etc/hosts of warp's own, which can be written at any time."""

    def __init__(self, path):
        self.path = str(path)
        self.say()

    def say(self, *ips):
        with open(self.path, "w") as f:
            f.write("127.0.0.1 localhost\n" + "".join("%s moves.test\n" % ip for ip in ips))

    def mount(self):
        libc = ctypes.CDLL(None, use_errno=True)
        if (libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) or
                libc.mount(self.path.encode(), b"/etc/hosts", None, 0x1000, None)):
            raise OSError(ctypes.get_errno(), "an /etc/hosts of one's own")


@pytest.fixture
def moving(warp, backend, tmp_path):
    """moving(*ips, **keys of the upstream) -> warp, whose upstream is the name, the backends at .1 and .2, move(*ips)."""
    lib.needs_mounts()

    def start(*ips, scripts=([ECHO],), **keys):
        port, hosts = free_port(), Hosts(tmp_path / "hosts")
        one, two = (backend(*scripts, name=n, host=ip, port=port) for n, ip in (("one", "127.0.0.1"), ("two", "127.0.0.2")))
        hosts.say(*ips)
        w = warp(toml_file(conf(app={"host": "moves.test", "port": port, **keys}, admin=ADMIN)), preexec_fn=hosts.mount)

        def move(*to):
            n = len(re.findall("logs reopened", w.stderr))
            hosts.say(*to)
            w.signal(signal.SIGUSR1)       # its new resolver looks at once
            eventually(lambda: len(re.findall("logs reopened", w.stderr)) > n)
        return w, one, two, move
    return start


@root_only
def test_name_moves_under_traffic(moving):
    """Kept connections do not outlive the address: nobody is sent there any more, and they are closed."""
    w, one, two, move = moving("127.0.0.1")
    assert w.ask().text.startswith("one")
    move("127.0.0.2")
    eventually(lambda: w.ask().text.startswith("two"), "requests follow")
    assert one.conns[0].closed.wait(lib.TIMEOUT), "the idle one is closed"
    n = len(one.requests)
    assert all(w.ask().text.startswith("two") for _ in range(5)) and len(one.requests) == n


@root_only
def test_name_moves_while_a_request_runs(moving):
    """It is answered; its connection is not kept then."""
    import threading
    go = threading.Event()

    def serve(c):
        while True:
            m = c.request()
            if m.target == "/slow":
                WAIT(go)(c)
            c.send(reply(c.backend.name))
    w, one, two, move = moving("127.0.0.1", scripts=([serve],))
    with w.client() as slow:
        slow.send(request("/slow"))
        c = one.conn()
        one.wait(lambda: c.requests, "the request")
        move("127.0.0.2")
        eventually(lambda: w.ask().text == "two")
        go.set()
        assert slow.response().text == "one"
        assert c.closed.wait(lib.TIMEOUT), "not kept"
        assert slow.ask().text == "two"


@root_only
def test_connections_to_addresses_that_stay_are_kept(moving):
    """More addresses, fewer, another order: what goes to one that is still there stays open."""
    w, one, two, move = moving("127.0.0.1")
    w.ask()
    for ips in (("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1"), ("127.0.0.1",)):
        move(*ips)
        eventually(lambda: instances(w, "app")[0]["addresses"] == len(ips))
        w.ask()
    assert len(one.conns) == 1 and len(one.requests) == 4 and not one.conns[0].closed.is_set()
