"""Processes: start and stop, workers, reload, upgrade, daemon, readiness, sockets, privileges, resolver."""
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import threading
import time

import pytest

import lib
from lib import CLOSE, REQ, SLOW, TIMEOUT, WAIT, Client, clean_env, complete, conf, eventually, free_port, reply

R = '[[routes]]\nrespond = { status = 200, body = "%s" }\n'
OK = R % "ok"
BINARY = lib.WARP

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def says(body, **server):
    """A configuration that answers everything with body."""
    return "[server]\n" + "".join("%s = %s\n" % (k, lib.toml(v)) for k, v in server.items()) + R % body


def refused(port):
    try:
        lib.connect(port).close()
        return False
    except ConnectionError:  # refused; or reset, when it is being closed
        return True


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def status_of(pid, key):
    with open("/proc/%d/status" % pid) as f:
        return re.search(r"(?m)^%s:[ \t]*(.*)$" % key, f.read())[1].split()


def links_of(pid):
    """What its descriptors are; one that is closed meanwhile is none."""
    out = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            out.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    return out


def sockets_of(pid):
    """Inode of every socket a process holds, but its end of the pair with the master."""
    return [x for x in links_of(pid) if x.startswith("socket:")]


def reload(w, text=None, good=True):
    """HUP, waited for; text: the new configuration."""
    if text is not None:
        w.write(text)
    pattern = r"reloaded, generation" if good else r"going on with the old configuration"
    before = len(re.findall(pattern, w.stderr))
    w.signal(signal.SIGHUP)
    eventually(lambda: len(re.findall(pattern, w.stderr)) > before, "reload: " + w.stderr[-500:])


def slow(body=b"end"):
    """A backend's script whose answer waits in the middle, and the event that lets it go on."""
    go = threading.Event()
    return [REQ, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nbegin" % (5 + len(body)), WAIT(go), body], go


@contextlib.contextmanager
def half_answered(w, backend, go):
    """A client in the middle of an answer; afterwards it must get all of it."""
    with w.client() as c:
        c.send(lib.request("/slow"))
        m = c.head(TIMEOUT)
        assert c.exactly(5, TIMEOUT) == b"begin" and m.status == 200
        yield c
        go.set()
        assert c.exactly(3, TIMEOUT) == b"end"


class Load(threading.Thread):
    """Asks over and over, one connection each, until it is stopped; failures are kept."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.failed, self.bodies, self.over = port, [], [], threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            try:
                with Client(self.port) as c:
                    self.bodies.append(c.ask("/", "Connection: close").text)
            except (OSError, AssertionError, EOFError, TimeoutError) as e:
                self.failed.append(repr(e))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join(TIMEOUT)


# ---- start and stop -------------------------------------------------------------

@pytest.mark.parametrize("sig", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_stop(warp, sig):
    w = warp(OK)
    children = w.children()
    assert w.ask().text == "ok" and len(children) == 1
    begin = time.monotonic()
    w.stop(getattr(signal, sig))
    assert time.monotonic() - begin < 1 * SLOW and refused(w.port)
    assert not any(alive(p) for p in children)


def test_stop_is_quick_and_cuts(warp, backend):
    script, go = slow()
    b = backend(script)
    w = warp(conf(app=b))
    with w.client() as c:
        c.send(lib.request("/"))
        c.head(TIMEOUT)
        begin = time.monotonic()
        w.stop()
        assert time.monotonic() - begin < 2 * SLOW, "TERM does not wait for answers"
        go.set()


def test_master_dies_workers_follow(warp):
    w = warp(says("ok", worker_threads=2))
    children = w.children()
    os.kill(w.pid, signal.SIGKILL)
    eventually(lambda: not any(alive(p) for p in children), "workers leave")
    w.wait()


START_FAILS = {
    "an address in use": ("[server]\nlisten = [\"127.0.0.1:{busy}\"]\n" + OK, 3, r"{busy}.*another program"),
    "a name to listen on": ("[server]\nlisten = [\"localhost:{free}\"]\n" + OK, None, "localhost"),
    "an address that is not ours": ("[server]\nlisten = [\"192.0.2.1:{free}\"]\n" + OK, 3, "192.0.2.1"),
    "a unix socket in no directory": ("[server]\nlisten = [\"unix:{dir}/none/s\"]\n" + OK, 3, "directory"),
    "a log in no directory": ("[log]\nerror = \"{dir}/none/log\"\n" + OK, 4, "none/log"),
    "a user that is not there": ("[server]\nuser = \"nosuchuser\"\n" + OK, 4, "nosuchuser"),
    "a descriptor that is no socket": ("[server]\nlisten = [\"fd://0\"]\n" + OK, 3, "descriptor 0"),
}


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "-d"])
@pytest.mark.parametrize("reason", START_FAILS)
def test_start_fails(run, tmp_path, reason, daemon):
    """The exit status is true, with -d as well, and nothing stays behind."""
    text, status, message = START_FAILS[reason]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        names = {"busy": s.getsockname()[1], "free": free_port(), "dir": tmp_path}
        text = complete(re.sub(r"\{(\w+)\}", lambda m: str(names[m[1]]), text), free_port())
        p = run("-c", "warp.toml", *["-d"] * daemon, "-p", "pid", conf=text)
    assert p.returncode in ([status] if status else [1, 3]), p.stderr
    assert re.search(re.sub(r"\{(\w+)\}", lambda m: str(names[m[1]]), message), p.stderr), p.stderr
    assert not (tmp_path / "pid").exists()


def test_standard_descriptors_closed(run, tmp_path):
    """No socket becomes descriptor 0, 1 or 2."""
    port = free_port()
    (tmp_path / "warp.toml").write_text(complete(OK, port))
    p = subprocess.Popen(["/bin/sh", "-c", 'exec "%s" -c warp.toml <&- >&- 2>&-' % lib.WARP], cwd=tmp_path, env=clean_env())
    try:
        eventually(lambda: not refused(port))
        for fd in "012":
            assert os.readlink("/proc/%d/fd/%s" % (p.pid, fd)) == "/dev/null"
    finally:
        p.terminate()
        assert p.wait(TIMEOUT) == 0


# ---- workers --------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 3])
def test_killed_worker_is_replaced(warp, workers):
    """P: at once, or after a moment when it died young; the log says how it died."""
    w = warp(says("ok", worker_threads=workers))
    for _ in range(2):
        victim = w.children()[0]
        os.kill(victim, signal.SIGKILL)
        begin = time.monotonic()
        eventually(lambda: len(set(w.children()) - {victim}) == workers)
        assert time.monotonic() - begin < 1 * SLOW
        assert w.ask().text == "ok"
        w.wait_stderr(r"worker %d died of signal 9 \(Killed\)" % victim)


def test_all_workers_killed_at_once(warp):
    w = warp(says("ok", worker_threads=4))
    for pid in w.children():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len([p for p in w.children() if alive(p)]) == 4)
    assert w.ask().text == "ok"


def test_worker_ignores_the_masters_signals(warp):
    """Ctrl-C reaches the whole group: the master decides."""
    w = warp(OK)
    child, = w.children()
    for s in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(child, s)
    assert w.ask().text == "ok" and w.children() == [child]


def test_children_hold_nothing_of_the_master(warp):
    """The listener, and no end of another worker's pair."""
    w = warp(says("ok", worker_threads=3))
    master = set(sockets_of(w.pid))
    for pid in w.children():
        mine = set(sockets_of(pid))
        assert len(mine & master) == 1, "the listener is all they share"


def test_descriptors_do_not_grow(warp):
    w = warp(OK)
    reload(w)
    eventually(lambda: len(w.children()) == 1)
    before = len(os.listdir("/proc/%d/fd" % w.pid))
    for _ in range(5):
        reload(w)
        w.signal(signal.SIGUSR1)
    eventually(lambda: len(w.children()) == 1)
    eventually(lambda: len(os.listdir("/proc/%d/fd" % w.pid)) == before, "descriptors as before")


# ---- reload ---------------------------------------------------------------------

def test_reload(warp):
    w = warp(says("old"))
    first = w.children()
    reload(w, says("new", worker_threads=2))
    assert w.ask().text == "new"
    eventually(lambda: len(w.children()) == 2 and not set(w.children()) & set(first), "the old worker left")
    for i in range(3, 6):
        reload(w, says("v%d" % i))
        assert w.ask().text == "v%d" % i


@pytest.mark.parametrize("quiet", (False, True), ids=("fresh", "parked"))
def test_who_was_told_to_leave_takes_nobody(warp, quiet):
    """Also when the word and a client are there at once."""
    w = warp(says("old"))
    with Client(w.port) as c:  # so many turns that what is quiet is no longer polled; at least the accepting is over
        assert [c.ask().text for _ in range(2000 if quiet else 3)][-1] == "old"
    old = w.children()
    for pid in old:
        lib.freeze(pid)
    reload(w, says("new"))
    new = set(w.children()) - set(old)
    for pid in new:
        lib.freeze(pid)
    with Client(w.port) as c:
        c.send(lib.request())
        for pid in old:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: not set(w.children()) & set(old), "the old one left")
        for pid in new:
            os.kill(pid, signal.SIGCONT)
        assert c.response().text == "new"


def test_who_waits_at_a_listener_that_is_gone_is_served(warp):
    """However many they are: nobody else would take them."""
    port = free_port()
    w = warp(says("old", listen=["127.0.0.1:@PORT@", "127.0.0.1:%d" % port], worker_threads=1))
    with Client(w.port) as c:
        assert [c.ask().text for _ in range(3)][-1] == "old"
    old = w.children()
    for pid in old:
        lib.freeze(pid)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(port)) for _ in range(100)]
        for c in clients:
            c.send(lib.request())
        reload(w, says("new", listen=["127.0.0.1:@PORT@"], worker_threads=1))
        for pid in old:
            os.kill(pid, signal.SIGCONT)
        assert {c.response().text for c in clients} == {"old"}


BAD_RELOADS = {
    "an error in the file": ("[server]\nnope = 1\n" + OK, r"warp\.toml:3:1: .*nope"),
    "not TOML": ("[server]\n[x\n", r"warp\.toml:3:"),
    "an address in use": ("[server]\nlisten = [\"127.0.0.1:@PORT@\", \"127.0.0.1:{busy}\"]\n" + OK, "another program"),
    "workers that cannot start": ("[server]\nuser = \"nosuchuser\"\n" + OK, "nosuchuser"),
    "a log that cannot be opened": ("[log]\nerror = \"/nonexistent/log\"\n" + OK, "/nonexistent/log"),
}


@pytest.mark.parametrize("reason", BAD_RELOADS)
def test_bad_reload_changes_nothing(warp, reason):
    text, message = BAD_RELOADS[reason]
    w = warp(says("old"))
    first = w.children()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        reload(w, text.replace("{busy}", str(s.getsockname()[1])), good=False)
    w.wait_stderr(message)
    assert w.ask().text == "old"
    eventually(lambda: w.children() == first, "the old worker alone")
    reload(w, says("new"))
    assert w.ask().text == "new"


def test_reload_without_the_file(warp):
    w = warp(says("old"))
    os.unlink(w.file)
    reload(w, good=False)
    assert w.ask().text == "old"


def test_no_request_fails_during_reloads(warp):
    w = warp(says("v0", worker_threads=2))
    with Load(w.port) as load:
        for i in range(1, 6):
            reload(w, says("v%d" % i, worker_threads=2))
        eventually(lambda: load.bodies and load.bodies[-1] == "v5")
    assert not load.failed, load.failed[:5]


def test_reloads_in_a_burst(warp):
    """They coalesce; the last configuration is what stays."""
    w = warp(says("v0", worker_threads=2))
    for i in range(20):
        w.write(says("v%d" % i, worker_threads=2))
        w.signal(signal.SIGHUP)
    eventually(lambda: w.ask().text == "v19")
    eventually(lambda: len(w.children()) == 2)


def test_worker_that_dies_during_a_reload(warp):
    w = warp(says("old", worker_threads=2))
    victim = w.children()[0]
    w.write(says("x", user="nosuchuser"))
    w.signal(signal.SIGHUP)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len([p for p in w.children() if p != victim and alive(p)]) == 2, "its place is filled")
    assert w.ask().text == "old"


def test_reload_lets_answers_finish(warp, backend):
    script, go = slow()
    b = backend(script)
    w = warp(conf(app=b))
    with half_answered(w, b, go):
        reload(w, says("new"))
        assert w.ask().text == "new"


def test_drain_is_bounded(warp, backend):
    script, go = slow()
    w = warp(conf(app=backend(script), server={"shutdown_timeout_secs": 30}))
    old, = w.children()
    with w.client() as c:
        c.send(lib.request("/"))
        c.head(TIMEOUT)
        reload(w, says("new", shutdown_timeout_secs=0.3))
        w.wait_stderr("shutdown_timeout_secs")
        eventually(lambda: old not in w.children())
    go.set()
    assert w.ask().text == "new"


def test_reload_changes_listeners(warp):
    a, b = free_port(), free_port()
    text = '[server]\nlisten = ["127.0.0.1:@PORT@", "127.0.0.1:%d"]\n'
    w = warp(text % a + OK)
    assert not refused(a) and refused(b)
    with w.client() as kept:
        assert kept.ask().text == "ok"
        reload(w, text % b + OK)
        assert not refused(b) and not refused(w.port)
        eventually(lambda: refused(a), "the socket that was given up is closed in every process")


def test_kept_listener_keeps_its_backlog(warp):
    """The same socket goes on: a client that waits in its backlog is served by the new worker."""
    w = warp(says("old"))
    worker, = w.children()
    lib.freeze(worker)
    with w.client() as c:
        c.send(lib.request("/"))
        reload(w, says("new"))
        assert c.response().text == "new"
        os.kill(worker, signal.SIGCONT)


# ---- quit -----------------------------------------------------------------------

def test_quit_drains(warp, backend):
    script, go = slow()
    b = backend(script)
    w = warp(conf(app=b))
    with half_answered(w, b, go):
        w.signal(signal.SIGQUIT)
        eventually(lambda: refused(w.port), "no new clients")
        assert w.proc.poll() is None
    assert w.wait() == 0


def test_quit_is_bounded(warp, backend):
    script, go = slow()
    w = warp(conf(app=backend(script), server={"shutdown_timeout_secs": 0.3}))
    with w.client() as c:
        c.send(lib.request("/"))
        c.head(TIMEOUT)
        begin = time.monotonic()
        w.stop(signal.SIGQUIT)
        assert time.monotonic() - begin < 2 * SLOW
        go.set()


def test_stop_while_draining(warp, backend):
    script, go = slow()
    w = warp(conf(app=backend(script)))
    with w.client() as c:
        c.send(lib.request("/"))
        c.head(TIMEOUT)
        w.signal(signal.SIGQUIT)
        eventually(lambda: refused(w.port))
        w.stop(signal.SIGTERM)
        go.set()


# ---- logs -----------------------------------------------------------------------

def test_log_rotation(warp):
    w = warp("[server]\nworker_threads = 1\n[log]\naccess = \"@DIR@/access\"\nerror = \"@DIR@/error\"\n" + OK)
    access, error = w.path("access"), w.path("error")
    read = lambda f: open(f).read()
    w.ask("/one")
    eventually(lambda: "/one" in read(access))
    assert "ready" in read(error)
    assert stat.S_IMODE(os.stat(access).st_mode) & 0o137 == 0, "not for everyone"
    for f in (access, error):
        os.rename(f, f + ".1")
    w.signal(signal.SIGUSR1)
    eventually(lambda: os.path.exists(error) and "reopened" in read(error))
    eventually(lambda: (w.ask("/two"), "/two" in read(access))[1])
    assert "/one" in read(access + ".1") and "/one" not in read(access)
    worker, = w.children()
    held = links_of(w.pid) + links_of(worker)
    assert not [h for h in held if h.endswith(".1")], "the old files are let go"


def test_rotation_that_fails_keeps_the_old_file(warp, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    w = warp("[log]\naccess = \"%s/access\"\n" % logs + OK)
    logs.rename(tmp_path / "moved")
    w.signal(signal.SIGUSR1)
    w.wait_stderr("log to .*logs/access")
    w.ask("/still")
    eventually(lambda: "/still" in (tmp_path / "moved" / "access").read_text())


def test_reload_moves_the_log(warp):
    w = warp("[log]\nerror = \"@DIR@/a\"\n" + OK)
    w.write("[log]\nerror = \"@DIR@/b\"\n" + OK)
    w.signal(signal.SIGHUP)
    eventually(lambda: os.path.exists(w.path("b")) and "reloaded" in open(w.path("b")).read())


# ---- upgrade --------------------------------------------------------------------

@pytest.fixture
def binary(tmp_path, monkeypatch):
    """A copy of warp that may be replaced; called with a path or a script's text it puts that in its place."""
    path = str(tmp_path / "warp")
    shutil.copy2(BINARY, path)
    monkeypatch.setattr(lib, "WARP", path)

    def put(what):
        if what.startswith("#!"):
            with open(path + ".new", "w") as f:
                f.write(what)
            os.chmod(path + ".new", 0o755)
        else:
            shutil.copy2(what, path + ".new")
        os.rename(path + ".new", path)
    put.path = path
    return put


def upgraded(w, old):
    """Waits until none of the old workers is left and others serve."""
    eventually(lambda: w.children() and not set(w.children()) & set(old), "new workers: " + w.stderr[-800:], 3 * TIMEOUT)


def test_upgrade(warp, binary):
    """The process, its sockets and its clients stay."""
    w = warp("[server]\nlisten = [\"127.0.0.1:@PORT@\", \"unix:@DIR@/s\"]\nworker_threads = 2\n" + R % "old", "-p", "@DIR@/pid")
    old, inode = w.children(), os.stat(w.path("s")).st_ino
    listener = set(sockets_of(w.pid)) & set(sockets_of(old[0]))
    w.write("[server]\nlisten = [\"127.0.0.1:@PORT@\", \"unix:@DIR@/s\"]\nworker_threads = 2\n" + R % "new")
    binary(BINARY)
    with Load(w.port) as load:
        w.signal(signal.SIGUSR2)
        upgraded(w, old)
        eventually(lambda: load.bodies[-1] == "new")
    assert not load.failed, load.failed[:5]
    assert open(w.path("pid")).read() == "%d\n" % w.pid and w.proc.poll() is None
    assert os.stat(w.path("s")).st_ino == inode and listener <= set(sockets_of(w.pid))
    with Client(w.path("s")) as c:
        assert c.ask().text == "new"
    for sig in (signal.SIGUSR2, signal.SIGUSR2):
        old = w.children()
        w.signal(sig)
        upgraded(w, old)
    assert w.ask().text == "new", "and again"
    reload(w, says("newer"))
    assert w.ask().text == "newer"
    w.stop()
    assert not os.path.exists(w.path("pid")) and not os.path.exists(w.path("s"))


def test_upgrade_lets_answers_finish(warp, backend, binary):
    script, go = slow()
    b = backend(script)
    w = warp(conf(app=b))
    old = w.children()
    with half_answered(w, b, go):
        w.signal(signal.SIGUSR2)
        eventually(lambda: set(w.children()) - set(old), "new workers")
        w.wait_stderr(r"(?s)ready.*ready")
    eventually(lambda: not set(w.children()) & set(old))


UPGRADE_FAILS = {
    "no program": ("", None),
    "a program that rejects": ("#!/bin/sh\nexit 1\n", None),
    "an error in the file": (None, "[server]\nnope = 1\n"),
    "an address in use": (None, "[server]\nlisten = [\"127.0.0.1:@PORT@\", \"127.0.0.1:{busy}\"]\n" + OK),
    "a log that cannot be opened": (None, "[log]\nerror = \"/nonexistent/log\"\n" + OK),
}


@pytest.mark.parametrize("reason", UPGRADE_FAILS)
def test_upgrade_refused(warp, binary, reason):
    program, text = UPGRADE_FAILS[reason]
    w = warp(says("old"))
    old = w.children()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        if program:
            binary(program)
        elif program == "":
            os.unlink(binary.path)
        if text:
            w.write(text.replace("{busy}", str(s.getsockname()[1])))
        w.signal(signal.SIGUSR2)
        w.wait_stderr("upgrade refused: .*going on: correct it, then ask again")
    assert w.ask().text == "old" and w.children() == old
    w.write(says("new"))
    binary(BINARY)
    w.signal(signal.SIGUSR2)
    upgraded(w, old)
    assert w.ask().text == "new", "a good one works afterwards"


def test_upgrade_to_a_binary_whose_workers_fail(warp, binary):
    """It passes -t and then cannot run: the old one takes over again; no client notices."""
    w = warp(says("old"))
    old = w.children()
    w.write(says("old", user="nosuchuser"))  # -t only warns of that
    with Load(w.port) as load:
        w.signal(signal.SIGUSR2)
        w.wait_stderr("upgrade failed: back to the binary before", 2 * TIMEOUT)
        w.wait_stderr(r"(?s)nosuchuser.*nosuchuser", 2 * TIMEOUT)
        time.sleep(1)
        assert w.proc.poll() is None and alive(old[0])
        w.write(says("new"))
        n = len(load.bodies)
        eventually(lambda: len(load.bodies) > n + 5)
    assert not load.failed, load.failed[:5]
    assert alive(w.pid)


# ---- -d, -p, -n, NOTIFY_SOCKET --------------------------------------------------

@contextlib.contextmanager
def daemon(tmp_path, text, *args, **kw):
    """warp -d, until it returned; yields (CompletedProcess, port, pid)."""
    port = free_port()
    (tmp_path / "warp.toml").write_text(complete(text.replace("@PORT@", str(port)), port))
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.PIPE)
    pid = None
    try:
        p = subprocess.run([lib.WARP, "-d", "-c", "warp.toml", "-p", "pid", *args], cwd=tmp_path, env=clean_env(),
                           stdin=subprocess.DEVNULL, timeout=2 * TIMEOUT, **kw)
        pid = int((tmp_path / "pid").read_text())
        yield p, port, pid
    finally:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            pid = pid or int((tmp_path / "pid").read_text())
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not pid or not alive(pid), "the daemon leaves")
    assert not (tmp_path / "pid").exists()


def test_daemon(tmp_path):
    """It returns 0 once it accepts, holds no pipe of its starter, leads its own session."""
    with daemon(tmp_path, says("ok", worker_threads=2)) as (p, port, pid):
        assert p.returncode == 0
        with Client(port) as c:
            assert c.ask().text == "ok", "at once"
        assert os.getsid(pid) == pid
        for fd in "012":
            assert os.readlink("/proc/%d/fd/%s" % (pid, fd)) == "/dev/null"
        os.kill(pid, signal.SIGHUP)
        with Client(port) as c:
            assert c.ask().text == "ok"


def test_daemon_whose_output_is_a_file(tmp_path):
    """What init scripts redirect stays redirected."""
    log = tmp_path / "log"
    with open(log, "ab") as f, daemon(tmp_path, OK, stderr=f) as (p, port, pid):
        assert "ready" in log.read_text() and "reopened" not in log.read_text(), "nobody has asked for that"
        os.kill(pid, signal.SIGUSR1)
        eventually(lambda: "reopened" in log.read_text() and "ready" in log.read_text())


def test_daemon_upgrade(tmp_path, binary):
    with daemon(tmp_path, says("old")) as (p, port, pid):
        (tmp_path / "warp.toml").write_text(complete(says("new"), port))
        os.kill(pid, signal.SIGUSR2)

        def answer():
            with Client(port) as c:
                return c.ask().text
        eventually(lambda: answer() == "new")
        assert int((tmp_path / "pid").read_text()) == pid


def test_pid_file(warp, run):
    w = warp(OK, "-p", "@DIR@/pid")
    assert open(w.path("pid")).read() == "%d\n" % w.pid
    p = run("-c", w.file, "-p", w.path("pid"))
    assert p.returncode == 4 and "another warp" in p.stderr
    assert open(w.path("pid")).read() == "%d\n" % w.pid, "the loser leaves it alone"
    os.kill(w.children()[0], signal.SIGKILL)
    reload(w)
    w.stop()
    assert not os.path.exists(w.path("pid"))


def test_stale_pid_file(warp, tmp_path):
    (tmp_path / "pid").write_text("1\nand a longer line\n")
    w = warp(OK, "-p", tmp_path / "pid")
    assert (tmp_path / "pid").read_text() == "%d\n" % w.pid


def test_readiness_descriptor(warp):
    """-n: a newline, then the end; no child keeps it open."""
    r, wr = os.pipe()
    try:
        w = warp(says("ok", worker_threads=2), "-n", wr, pass_fds=(wr,), ready=False)
    finally:
        os.close(wr)
    with open(r, "rb") as f:
        assert f.read() == b"\n"
    assert w.ask().text == "ok"


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_notify(warp, tmp_path, binary, abstract):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = "@warp-test-%d" % os.getpid() if abstract else str(tmp_path / "notify")
    s.bind("\0" + path[1:] if abstract else path)
    s.settimeout(TIMEOUT)
    got = lambda: dict(line.split("=", 1) for line in s.recv(4096).decode().split("\n") if line)
    w = warp(OK, env={"NOTIFY_SOCKET": path})
    m = got()
    assert m["READY"] == "1" and int(m["MAINPID"]) == w.pid
    for sig in (signal.SIGHUP, signal.SIGUSR2):
        before = time.monotonic_ns() // 1000
        w.signal(sig)
        m = got()
        assert m["RELOADING"] == "1" and before <= int(m["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert got()["READY"] == "1"
    w.write("nonsense")
    w.signal(signal.SIGHUP)
    assert got()["RELOADING"] == "1" and got()["READY"] == "1", "a bad reload ends too"
    w.stop()
    assert got()["STOPPING"] == "1"
    s.close()


@pytest.fixture
def activated(tmp_path, monkeypatch):
    """Makes warp start with these sockets as LISTEN_FDS."""
    def use(*socks):
        script = tmp_path / "activate"
        script.write_text("#!/usr/bin/python3\nimport fcntl, os, sys\nfds = %r\n"
            "high = [fcntl.fcntl(f, fcntl.F_DUPFD_CLOEXEC, 100) for f in fds]\n"
            "moved = {a: str(fcntl.fcntl(int(a), fcntl.F_DUPFD, 100)) for a in sys.argv[1:] if a.isdigit()}\n"
            "for f in fds: os.close(f)\n"
            "for i, f in enumerate(high): os.dup2(f, 3 + i)\n"
            "os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))\n"
            "os.execv(%r, [%r] + [moved.get(a, a) for a in sys.argv[1:]])\n" % ([s.fileno() for s in socks], BINARY, BINARY))
        script.chmod(0o755)
        monkeypatch.setattr(lib, "WARP", str(script))
        return [s.fileno() for s in socks]
    return use


def listening(addr=None):
    s = socket.socket(socket.AF_UNIX if isinstance(addr, str) else socket.AF_INET)
    s.bind(addr or ("127.0.0.1", 0))
    s.listen()
    return s


def test_socket_activation(warp, activated, tmp_path):
    """Without a configured address the given sockets are the listeners, also after reload and upgrade."""
    a, b = listening(), listening(str(tmp_path / "s"))
    fds = activated(a, b)
    port = a.getsockname()[1]
    w = warp("[server]\nlisten = []\nworker_threads = 1\n[admin]\nlisten = 'off'\n" + R % "v1", pass_fds=fds, port=port)
    a.close()
    b.close()

    def both(body):
        for addr in (port, str(tmp_path / "s")):
            with Client(addr) as c:
                assert c.ask().text == body
        assert refused(8080), "not the preset one"
    both("v1")
    w.write("[server]\nlisten = []\n[admin]\nlisten = 'off'\n" + R % "v2")
    reload(w)
    both("v2")
    old = w.children()
    w.signal(signal.SIGUSR2)
    upgraded(w, old)
    both("v2")
    w.stop()
    assert os.path.exists(tmp_path / "s"), "not ours to remove"


def test_socket_activation_of_configured_addresses(warp, activated):
    """The given socket of a configured address is taken, the rest is bound."""
    a, stray, other = listening(), listening(), free_port()
    fds = activated(a, stray)
    port, stray_port = a.getsockname()[1], stray.getsockname()[1]
    w = warp("[server]\nlisten = [\"127.0.0.1:%d\", \"127.0.0.1:%d\"]\n" % (port, other) + OK, pass_fds=fds, port=port)
    a.close()
    stray.close()
    for p in (port, other):
        with Client(p) as c:
            assert c.ask().text == "ok"
    w.wait_stderr("LISTEN_FDS: descriptor 4")
    assert refused(stray_port)


def test_activation_for_another_process(warp):
    w = warp(OK, env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert w.ask().text == "ok"


def test_inherited_descriptor(warp):
    a = listening()
    port = a.getsockname()[1]
    text = "[server]\nlisten = [\"fd://%d\"]\n" % a.fileno()
    w = warp(text + R % "v1", pass_fds=(a.fileno(),), port=port)
    a.close()
    assert w.ask().text == "v1"
    reload(w, text + R % "v2")
    assert w.ask().text == "v2"


# ---- unix sockets ---------------------------------------------------------------

def unix(body="ok", **server):
    return says(body, listen=["unix:@DIR@/s"], **server)


def test_unix_socket(warp):
    w = warp(unix())
    with Client(w.path("s")) as c:
        assert c.ask().text == "ok"
    assert stat.S_IMODE(os.stat(w.path("s")).st_mode) == 0o660, "the preset mode"
    inode = os.stat(w.path("s")).st_ino
    reload(w, unix("new", socket_mode=0o600))
    with Client(w.path("s")) as c:
        assert c.ask().text == "new"
    assert os.stat(w.path("s")).st_ino == inode and stat.S_IMODE(os.stat(w.path("s")).st_mode) == 0o600
    reload(w, OK)
    assert not os.path.exists(w.path("s")), "given up, removed"
    reload(w, unix())
    w.stop()
    assert not os.path.exists(w.path("s"))


def test_stale_unix_socket(warp, tmp_path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(tmp_path / "s"))
    s.close()
    w = warp(says("ok", listen=["unix:%s" % (tmp_path / "s")]))
    with Client(str(tmp_path / "s")) as c:
        assert c.ask().text == "ok"


@pytest.mark.parametrize("kind", ["live", "live with a full backlog", "datagrams", "file", "directory"])
def test_unix_path_that_is_somebodys(run, tmp_path, kind):
    path, keep = str(tmp_path / "s"), []
    if kind == "file":
        (tmp_path / "s").write_text("precious")
    elif kind == "directory":
        (tmp_path / "s").mkdir()
    else:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM)
        s.bind(path)
        keep.append(s)
        if kind != "datagrams":
            s.listen(0)
        for _ in range(3 if "full" in kind else 0):
            c = socket.socket(socket.AF_UNIX)
            c.setblocking(False)
            c.connect_ex(path)
            keep.append(c)
    inode = os.stat(path).st_ino
    p = run("-c", "warp.toml", conf=complete(says("ok", listen=["unix:" + path]), 1))
    assert p.returncode == 3 and path in p.stderr, p.stderr
    assert os.stat(path).st_ino == inode
    for s in keep:
        s.close()


def test_only_its_own_socket_is_removed(warp):
    w = warp(unix())
    os.unlink(w.path("s"))
    s = listening(w.path("s"))
    w.stop()
    assert os.path.exists(w.path("s"))
    s.close()


def test_abstract_socket(warp, run):
    name = "@warp-%d-%d" % (os.getpid(), free_port())
    w = warp(says("ok", listen=[name]))
    with Client(name) as c:
        assert c.ask().text == "ok"
    assert run("-c", w.file).returncode == 3


def test_every_interface(warp):
    w = warp(says("ok", listen=[":@PORT@"]))
    for host in ("127.0.0.1", "::1"):
        with Client((host, w.port)) as c:
            assert c.ask().text == "ok"


# ---- the admin socket -----------------------------------------------------------

ADMIN = "[admin]\nlisten = \"@DIR@/admin\"\n"


def test_admin_socket_modes(warp):
    w = warp(ADMIN + OK)
    assert stat.S_IMODE(os.stat(w.path("admin")).st_mode) == 0o600
    reload(w, ADMIN + "[server]\nsocket_mode = 438\n" + OK)
    assert stat.S_IMODE(os.stat(w.path("admin")).st_mode) == 0o600, "socket_mode is not for it"


def test_explicit_admin_socket_that_is_taken(warp, run):
    w = warp(ADMIN + OK)
    text = open(w.file).read().replace(str(w.port), str(free_port()))
    p = run("-c", "warp.toml", conf=text)
    assert p.returncode == 3 and "another warp" in p.stderr
    assert run("-s", "status", "-c", w.file).returncode == 0


@root_only
def test_preset_admin_socket_that_is_taken(run, tmp_path):
    """A second warp runs without one, and says so."""
    if os.path.exists("/run/warp.sock"):
        pytest.skip("this host runs a warp")
    ports, procs = [free_port(), free_port()], []
    try:
        for port in ports:
            f = tmp_path / ("%d.toml" % port)
            f.write_text("[server]\nlisten = [\"127.0.0.1:%d\"]\n" % port + OK)
            procs.append(subprocess.Popen([lib.WARP, "-c", str(f)], stderr=subprocess.PIPE, text=True, env=clean_env()))
            eventually(lambda: not refused(port))
        assert os.path.exists("/run/warp.sock")
    finally:
        outs = []
        for p in reversed(procs):
            p.terminate()
            outs.append(p.communicate(timeout=2 * TIMEOUT)[1])
    assert [p.returncode for p in procs] == [0, 0] and "running without" in outs[0], outs
    assert not os.path.exists("/run/warp.sock")


def test_verbs(warp, run, binary):
    w = warp(ADMIN + R % "old")
    ask = lambda *verb: run("-s", *verb, "-c", w.file)
    p = ask("status")
    assert p.returncode == 0 and p.stdout.strip()
    w.write(ADMIN + R % "new")
    assert ask("reload").returncode == 0 and w.ask().text == "new", "done when it says so"
    w.write(ADMIN + "[server]\nnope = 1\n")
    p = ask("reload")
    assert p.returncode == 4 and "nope" in p.stderr and w.ask().text == "new"
    w.write(ADMIN + R % "newer")
    old = w.children()
    assert ask("upgrade").returncode == 0
    upgraded(w, old)
    assert w.ask().text == "newer"
    p = ask("frobnicate")
    assert p.returncode == 4 and p.stderr.strip()
    assert run("-c", w.file, "-s", "status").returncode == 0, "options in any order"
    assert ask("quit").returncode == 0
    assert w.wait() == 0


def test_verb_stop(warp, run):
    w = warp(ADMIN + OK)
    assert run("-s", "stop", "-c", w.file).returncode == 0
    assert w.wait() == 0


def test_verb_to_nobody(run, tmp_path):
    p = run("-s", "status", "-c", "warp.toml", conf=ADMIN.replace("@DIR@", str(tmp_path)) + OK)
    assert p.returncode == 4 and re.search("no warp listens on .*admin.*running.*No such file", p.stderr)


def test_verb_with_a_broken_file_finds_the_preset_socket(run):
    p = run("-s", "status", "-c", "warp.toml", conf="[server\n")
    assert p.returncode in (0, 4) and "warp.toml:1:" in p.stderr


# ---- privileges -----------------------------------------------------------------

@root_only
@pytest.mark.parametrize("user", ["nobody", str(pwd.getpwnam("nobody").pw_uid)], ids=["name", "number"])
def test_user(warp, user):
    nobody = pwd.getpwnam("nobody")
    w = warp(says("ok", user=user))
    assert w.ask().text == "ok"
    child, = w.children()
    assert set(status_of(child, "Uid")) == {str(nobody.pw_uid)} and set(status_of(child, "Gid")) == {str(nobody.pw_gid)}
    assert "0" not in status_of(child, "Groups"), "none of root's groups"
    assert status_of(child, "NoNewPrivs") == ["1"] and int(status_of(child, "CapEff")[0], 16) == 0
    assert set(status_of(w.pid, "Uid")) == {"0"}
    reload(w)
    assert w.ask().text == "ok"


@root_only
def test_user_and_group(warp):
    w = warp(says("ok", user="nobody", group="daemon"))
    child, = w.children()
    import grp
    assert set(status_of(child, "Gid")) == {str(grp.getgrnam("daemon").gr_gid)}


@root_only
def test_number_without_account(warp, run):
    p = run("-c", "warp.toml", conf=complete(says("ok", user="54321"), free_port()))
    assert p.returncode == 4 and "give a group" in p.stderr, "which group is not guessed"
    w = warp(says("ok", user="54321", group="54322"))
    child, = w.children()
    assert set(status_of(child, "Uid")) == {"54321"} and set(status_of(child, "Gid")) == {"54322"}
    assert status_of(child, "Groups") == []


@root_only
def test_chroot(warp, tmp_path):
    jail = tmp_path / "jail"
    jail.mkdir()
    w = warp(says("ok", user="nobody", chroot=str(jail)))
    assert w.ask().text == "ok"
    child, = w.children()
    assert os.readlink("/proc/%d/root" % child) == str(jail) and os.readlink("/proc/%d/cwd" % child) == str(jail)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: w.children() and w.children() != [child])
    assert w.ask().text == "ok"


@root_only
@pytest.mark.parametrize("after", ["start", "reload"])
def test_chroot_has_room_for_bodies(warp, backend, tmp_path, after):
    """What outgrows memory goes to a file from a chroot as well, though there is nothing in it; no descriptor of the
    worker is a directory outside, from which a way would lead out."""
    jail, body = tmp_path / "jail", os.urandom(300000)
    jail.mkdir()
    b, where = backend(), {"user": "nobody", "chroot": str(jail)}
    w = warp(conf({"buffer_request": 1000}, server=where, app=b))
    if after == "reload":
        old = w.children()
        w.write(conf({"buffer_request": 2000}, server=where, app=b))
        w.signal(signal.SIGHUP)
        eventually(lambda: w.children() and not set(w.children()) & set(old), "another worker")
    assert w.ask(method="POST", body=body).status == 200, w.stderr
    assert b.last.body == body
    child, = w.children()
    held = links_of(child)
    assert not [h for h in held if h != "/" and os.path.isdir(h)]
    assert list(jail.iterdir()) == []


def zone(hours):
    """A file of a time zone that many hours east, tzfile(5)."""
    part = b"TZif2" + bytes(15) + struct.pack(">6I", 0, 0, 0, 0, 1, 4) + struct.pack(">iBB", hours * 3600, 0, 0) + b"WRP\0"
    return part + part + b"\nWRP-%d\n" % hours


@root_only
def test_chroot_knows_the_local_time(warp, tmp_path):
    """The zone is loaded before the worker is locked in, also when the master has had nothing to say until then."""
    jail, zoneinfo = tmp_path / "jail", tmp_path / "zone"
    jail.mkdir()
    zoneinfo.write_bytes(zone(7))
    w = warp(conf({"respond": {"status": 200}}, server={"user": "nobody", "chroot": str(jail)},
                  log={"access": "@DIR@/access.log", "level": "error"}), env={"TZ": ":" + str(zoneinfo)})
    assert w.ask().status == 200
    line = eventually(lambda: open(w.path("access.log")).read())
    assert " +0700] " in line, line


@root_only
def test_without_root_the_user_cannot_change(everybodys_dir):
    """Another user: exit 4 and why; one's own name is fine."""
    nobody = pwd.getpwnam("nobody")

    def drop():
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    for user, status in (("daemon", 4), ("nobody", 0)):
        port, f = free_port(), os.path.join(everybodys_dir, user + ".toml")
        with open(f, "w") as out:
            out.write(complete(says("ok", user=user), port))
        p = subprocess.Popen([lib.for_everybody(BINARY), "-c", f], preexec_fn=drop, cwd="/", stderr=subprocess.PIPE, text=True,
                             env=clean_env())
        if status == 0:
            eventually(lambda: not refused(port))
            p.terminate()
        _, err = p.communicate(timeout=2 * TIMEOUT)
        assert p.returncode == status, err
        assert status == 0 or "root" in err


# ---- names ----------------------------------------------------------------------

def named(host, port, **server):
    return ("[server]\n" + "".join("%s = %s\n" % kv for kv in server.items()) +
            "[upstreams.app]\nhost = \"%s\"\nport = %d\n[[routes]]\nupstream = \"app\"\n" % (host, port))


def resolver(w):
    """Its pid: the child that has no listener."""
    for pid in w.children():
        if len(sockets_of(pid)) == 1:
            return pid
    return None


def test_name_resolves_before_the_first_request(warp, backend):
    b = backend()
    w = warp(named("localhost", b.port))
    assert w.ask("/x").text == "app GET /x 0"


def test_name_that_does_not_resolve(warp):
    """The start does not fail; requests get 503; it is said once."""
    begin = time.monotonic()
    w = warp(named("no.such.host.invalid", 1))
    assert time.monotonic() - begin < 3 * SLOW
    assert w.ask().status in (502, 503)
    w.wait_stderr("no.such.host.invalid does not resolve", 3 * TIMEOUT)


def test_resolver_dies_and_comes_back(warp, backend):
    b = backend()
    w = warp(named("localhost", b.port))
    first = eventually(lambda: resolver(w))
    os.kill(first, signal.SIGKILL)
    w.wait_stderr("resolver died")
    eventually(lambda: resolver(w) not in (None, first))
    assert w.ask("/x").status == 200


def test_resolver_that_cannot_be_started(warp, backend):
    """For want of descriptors: it is tried again."""
    import resource
    w = warp(named("localhost", backend().port))
    first = eventually(lambda: resolver(w))
    had = resource.prlimit(w.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (3, had[1]))
    os.kill(first, signal.SIGKILL)
    w.wait_stderr("error: resolver: ")
    resource.prlimit(w.pid, resource.RLIMIT_NOFILE, had)
    eventually(lambda: resolver(w) not in (None, first))


def test_resolver_holds_nothing_and_leaves(warp, backend):
    b = backend()
    w = warp(named("localhost", b.port))
    pid = eventually(lambda: resolver(w))
    assert len(sockets_of(pid)) == 1
    reload(w, OK)
    eventually(lambda: not alive(pid), "no names any more")
    reload(w, named("localhost", b.port))
    pid = eventually(lambda: resolver(w))
    os.kill(w.pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), "it dies with the master")
    w.wait()


# ---- limits ---------------------------------------------------------------------

def test_descriptor_limit(warp):
    """Raised to what max_connections needs; the figure is said when it cannot be."""
    import resource

    def low(hard):
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    w = warp(says("ok", max_connections=1000), preexec_fn=low(4096))
    with open("/proc/%d/limits" % w.children()[0]) as f:
        assert int(re.search(r"Max open files\s+(\d+)", f.read())[1]) >= 2064
    if os.geteuid() != 0:
        w = warp(says("ok", max_connections=1000), preexec_fn=low(512))
        w.wait_stderr("max_connections.*512")
