"""A child never outlives warp, whatever becomes of warp; and whom a program leaves behind is not in the way of its next
start, not in this warp nor in the next one."""
import contextlib
import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import lib
from lib import TIMEOUT, eventually, free_port
from supervised import alive, app, fleet, gone, kill, proc, procs, sh, upgrade, verb, wait_state, workers

pytestmark = pytest.mark.limit(30)
# Sleeps longer than any test, and is found by a number that no other process has.
MARK = "987.%d" % os.getpid()
SLEEP = "sleep " + MARK
PIDS = "sh -c 'echo $$ >>pids; exec %s'" % SLEEP
# Whom each leaves when it dies; all that stay write down their pids.
LEGACIES = {
    "direct": "exec " + PIDS,
    "shell": "%s & echo $$ >>pids; wait" % PIDS,
    "ignores TERM": "trap '' TERM; %s & wait" % PIDS,
    "setsid": "setsid %s & wait" % PIDS,
    "lonely": "(setsid %s &); exec %s" % (PIDS, SLEEP),
    "clean environment": "(env -i PATH=$PATH setsid %s &); exec %s" % (PIDS.replace("exec sleep", "exec env -i sleep"), SLEEP),
}
AS_NOBODY = "exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'echo $$ >&3; exec %s' 3>>pids" % SLEEP
HOLDER = r"""
import json, os, signal, socket, sys, time
how, port = sys.argv[1], int(sys.argv[2])
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", port))
s.listen(16)
s.set_inheritable(True)
if os.fork() == 0:                      # a worker of its own session, whose parent does not wait for it
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("pids", "a") as f:
        f.write("%d\n" % os.getpid())
    if how == "clean":
        os.execve("/bin/sleep", ["sleep", sys.argv[3]], {})
    time.sleep(987)
while True:
    c, _ = s.accept()
    if c.recv(65536):
        b = b"%d" % os.getpid()
        c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(b), b))
    c.close()
"""


def holder(how="plain", **keys):
    return {"command": sys.executable, "args": ["-SE", "-c", HOLDER, how, "{port}", MARK], **keys}


def left(w, n):
    """The pids that the programs wrote down, once there are n."""
    def read():
        try:
            with open(w.path("pids")) as f:
                got = [int(p) for p in f.read().split()]
        except FileNotFoundError:
            got = []
        return got if len(got) >= n else None
    return eventually(read, "%d pids" % n)


def is_ours(pid):
    with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as f:
        return MARK.encode() in f.read()
    return False


@pytest.fixture(autouse=True)
def swept():
    """Whatever happens, nothing of the test stays."""
    yield
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if is_ours(pid) and alive(pid):
            with contextlib.suppress(OSError):
                kill(pid)


def die(w, *also):
    """kill -9, as the OOM killer does; also: in one breath."""
    for pid in also:
        lib.freeze(pid)
    for pid in (w.pid, *also):
        kill(pid)
    w.proc.wait(TIMEOUT)
    w.stopped = True


def helpers(w):
    """Children of warp that are neither its workers nor its programs."""
    known = set(workers(w)) | {p["pid"] for p in procs(w).values()}
    return [p for p in w.children() if p not in known and not is_ours(p)]


def everything():
    """Processes that leave somebody behind, and how many pids they write."""
    scripts = dict(LEGACIES, **({"setpriv": AS_NOBODY} if os.geteuid() == 0 and shutil.which("setpriv") else {}))
    return {re.sub(r"\W", "-", k): sh(s) for k, s in scripts.items()}, len(scripts) + 1


@pytest.mark.parametrize("when", ["at once", "after USR2", "after reload"])
def test_nothing_outlives_a_killed_master(warp, when):
    """Children of children, of their own session, whose parent left, with another user or another environment."""
    programs, n = everything()
    w = warp(fleet(None, programs))
    pids = left(w, n)
    assert all(map(alive, pids))
    if when == "after USR2":
        upgrade(w)
    elif when == "after reload":
        w.signal(signal.SIGHUP)
        w.wait_stderr("reloaded, generation 2")
    mine = pids + workers(w) + [p["pid"] for p in procs(w).values()]
    die(w)
    gone(mine, "programs")


MOVED = r"""
import ctypes, os, time
os.setpgid(0, os.getppid())
ctypes.CDLL(None).prctl(1, 0)           # PR_SET_PDEATHSIG, as a change of credentials does it
open("pids", "w").write("%d\n" % os.getpid())
time.sleep(987)
"""


def test_program_that_left_its_group(warp):
    """It is in somebody else's, and nothing tells it of a death."""
    w = warp(fleet(None, {"p": {"command": sys.executable, "args": ["-SE", "-c", MOVED, MARK]}}))
    pids = left(w, 1)
    die(w)
    gone(pids, "the program")


def test_killed_helpers_change_nothing(warp):
    """Whoever sees to that may be killed as well: warp goes on, with its programs or with new ones in their place, and
    leaves nobody all the same."""
    programs, n = everything()
    w = warp(fleet(None, programs))
    left(w, n)
    was = helpers(w)
    for pid in was:
        kill(pid)
    eventually(lambda: not set(was) & set(w.children()) and len(helpers(w)) >= len(was), "its helpers are back")
    eventually(lambda: all(p["state"] == "up" and alive(p["pid"]) for p in procs(w).values()), "all programs are up")
    eventually(lambda: sum(map(alive, left(w, n))) == n, "each once: %s" % left(w, n))
    die(w)
    gone(left(w, n), "programs")


@pytest.mark.parametrize("how", ["group", "wrapped"])
def test_killed_while_it_wraps(warp, how):
    """`warp -- CMD`: the same; also when a signal takes its whole group at once."""
    w = warp(None, "-l", "127.0.0.1:@PORT@", "--", "/bin/sh", "-c", "(setsid %s &); exec %s" % (PIDS, PIDS), ready=False,
             preexec_fn=os.setsid if how == "group" else None)
    pids = left(w, 2)
    if how == "group":
        os.killpg(w.pid, signal.SIGKILL)
        w.proc.wait(TIMEOUT)
        w.stopped = True
    else:
        die(w)
    gone(pids, "programs")


# ---- the next start -----------------------------------------------------------------

def fixed(port, **keys):
    return fleet(holder(**keys), host="127.0.0.1", port=port, hold_secs=1)


def test_next_start_ends_the_old_ones(warp):
    """warp and its helpers were killed in one breath: nobody could end what ran. The next warp does, and has the port."""
    port = free_port()
    w = warp(fixed(port))
    wait_state(w, "up")
    old = left(w, 1)
    die(w, *helpers(w))
    w2 = warp(fixed(port), dir=w.dir)
    assert wait_state(w2, "up")["pid"] and w2.ask().status == 200
    gone(old, "the old warp's")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs /run/warp")
def test_next_start_removes_sockets_of_a_killed_one(warp):
    """Those that it chose, and no living one's."""
    w, other = [warp(fleet(app("web", "socket={socket}"))) for _ in range(2)]
    wait_state(w, "up")
    wait_state(other, "up")
    made = "/run/warp/%d" % w.pid
    die(w)
    assert os.listdir(made)
    wait_state(warp(fleet(app("web", "socket={socket}"))), "up")
    assert not os.path.exists(made)
    assert other.ask().status == 200 and os.listdir("/run/warp/%d" % other.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_next_start_of_another_user_removes_them_too(warp, monkeypatch):
    monkeypatch.setattr(lib, "WARP", lib.for_everybody(lib.WARP))
    with tempfile.TemporaryDirectory(prefix="warp-test-", dir="/tmp") as dir:
        os.chown(dir, 65534, 65534)
        text = fleet(sh("touch {socket}; echo {socket}; exec " + SLEEP, ready="exec"))
        w = warp(text, dir=dir, preexec_fn=lambda: os.setuid(65534))
        path = w.wait_stderr(r"web: (/tmp/\S+\.sock)")[1]
        eventually(lambda: os.path.exists(path))
        die(w)
        w = warp(text, dir=dir, preexec_fn=lambda: os.setuid(65534))
        w.wait_stderr(r"web: /tmp/\S+\.sock")
        assert not os.path.exists(os.path.dirname(os.path.dirname(path)))


@pytest.mark.skipif(os.geteuid() != 0 or subprocess.run(["unshare", "-p", "-f", "true"]).returncode != 0,
                    reason="needs /run/warp and pid namespaces")
def test_a_start_in_another_pid_namespace_touches_none(warp):
    """To it, as in a container that shares /run, no master of the others lives."""
    other, w = [warp(fleet(app("web", "socket={socket}"))) for _ in range(2)]
    wait_state(other, "up")
    w.stop()
    r, ready = os.pipe()
    p = subprocess.Popen(["unshare", "-p", "-f", "--kill-child", lib.WARP, "-c", w.file, "-n", str(ready)],
                         stderr=subprocess.DEVNULL, pass_fds=(ready,))
    os.close(ready)
    try:
        assert os.read(r, 16)
        eventually(lambda: w.ask().status == 200, "the one elsewhere")
        assert other.ask().status == 200 and os.listdir("/run/warp/%d/web" % other.pid)
    finally:
        os.close(r)
        for pid in other.children(p.pid):
            os.kill(pid, signal.SIGTERM)
        p.wait(TIMEOUT)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs /run/warp")
def test_an_upgrade_keeps_the_lock(warp):
    """A start elsewhere could take the directory for one that nobody has."""
    w = warp(fleet(app("web", "socket={socket}")))
    wait_state(w, "up")
    fd, over, free = os.open("/run/warp/%d" % w.pid, os.O_RDONLY), threading.Event(), []

    def look():
        while not over.is_set():
            got = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            if struct.unpack("hhqqi4x", got)[0] == fcntl.F_UNLCK:
                free.append(time.monotonic())
    t = threading.Thread(target=look)
    t.start()
    try:
        for _ in range(3):
            upgrade(w)
    finally:
        over.set()
        t.join()
        os.close(fd)
    links = [os.readlink("/proc/%d/fd/%s" % (w.pid, n)) for n in os.listdir("/proc/%d/fd" % w.pid)]
    assert not free and links.count("/run/warp/%d" % w.pid) == 1, (free, links)


def test_a_start_touches_no_living_warps(warp, run):
    """Programs of the same names, of another warp; and of this very one, which is only started twice."""
    w = warp(fixed(free_port()))
    pid = wait_state(w, "up")["pid"]
    mine = [pid] + left(w, 1)
    other = warp(fixed(free_port()))
    wait_state(other, "up")
    left(other, 1)
    p = run("-c", w.file)
    assert p.returncode == 3, p.stderr
    other.stop()
    assert all(map(alive, mine)) and proc(w)["pid"] == pid
    w.stop()
    gone(mine)


# ---- workers that keep the port ---------------------------------------------------------

@pytest.mark.parametrize("environment", ["plain", "clean"])
@pytest.mark.parametrize("end", ["killed", "restart", "after USR2"])
def test_worker_that_keeps_the_port(warp, end, environment):
    """It left its parent's session, lives on and listens: it is ended before the program is started again."""
    w = warp(fixed(free_port(), how=environment))
    old = wait_state(w, "up")["pid"]
    pids = left(w, 1)
    if end == "after USR2":
        upgrade(w)
    if end == "restart":
        verb(w, "restart", "web", ok=None)
    else:
        kill(old)
    pid = eventually(lambda: (p := proc(w))["state"] == "up" and p["pid"] != old and p["pid"], "another one is up")
    assert int(w.ask().text) == pid
    gone(pids, "the old worker")
    assert "another program" not in w.stderr


CHAIN = r"""
import os, socket, sys
for _ in range(60):
    if os.fork():
        os.wait()
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
with open("pids", "a") as f:
    f.write("%d\n" % os.getpid())
while True:
    s.accept()
"""


def test_killed_warden_of_many_generations(warp):
    """Each comes to warp, to be ended, when the one before has ended: the last one has the port."""
    w = warp(fleet({"command": sys.executable, "args": ["-SE", "-c", CHAIN, "{port}", MARK]}, host="127.0.0.1", port=free_port()))
    old, pids = wait_state(w, "up")["pid"], left(w, 1)
    for pid in helpers(w):
        kill(pid)
    eventually(lambda: (p := proc(w))["state"] == "up" and p["pid"] != old, "another one is up")
    gone(pids, "the old one")
    assert "another program" not in w.stderr


def test_new_ones_workers_stay_when_the_old_one_leaves(warp):
    """Blue and green: what the new one has started is not the old one's."""
    w = warp(fleet(holder(), host="127.0.0.1", port=free_port()))
    old = wait_state(w, "up")["pid"]
    first = left(w, 1)
    verb(w, "restart", "web")
    eventually(lambda: not alive(old), "the old one has left")
    eventually(lambda: len(procs(w)) == 1)
    gone(first, "the old one's worker")
    second = [p for p in left(w, 2) if p not in first]
    assert second and all(map(alive, second)), "the new one's worker lives"
    w.stop()
    gone(second)


@pytest.mark.parametrize("kind", ["port", "socket"])
def test_who_holds_the_place_is_named(warp, backend, kind, tmp_path):
    """A stranger is not touched; its pid and command are said, in the log and in the status."""
    b = backend() if kind == "port" else backend(unix=str(tmp_path / "s"))
    words = "port={port}" if kind == "port" else "socket={socket}"
    w = warp(fleet(app("web", words), hold_secs=0.3, **b.conf))
    w.wait_stderr(r"error: process web: .*\b%d\b" % os.getpid())
    line = w.wait_stderr(r"error: process web: .*\b%d\b.*" % os.getpid())[0]
    assert "python" in line or "pytest" in line, line
    eventually(lambda: str(os.getpid()) in proc(w)["why"], "why: %r" % proc(w)["why"])


def test_program_that_goes_into_the_background(warp):
    """As daemons do it that nobody told to stay: what became of it is said, where its own words are; else nothing is."""
    w = warp(fleet(None, {"daemon": sh("setsid %s >/dev/null 2>&1 & exit 0" % SLEEP, restart="never"), "good": sh("true; exit 0", restart="never"),
                          "loud": sh("setsid %s & yes | head -c 300000; exit 0" % SLEEP, restart="never", log="null")}))
    words = "warp: what it left running in the background was ended"
    assert wait_state(w, "done", "daemon")["lines"] == [words]
    assert wait_state(w, "done", "good")["lines"] == []
    wait_state(w, "done", "loud")
    assert "daemon: %s\n" % words in w.stderr


def test_program_that_has_not_waited_for_its_child(warp):
    """That had ended before it did: nothing was left running."""
    w = warp(fleet(None, {"p": sh("true & exec sleep 0.3", restart="never")}))
    assert wait_state(w, "done", "p")["lines"] == []
