"""The supervisor: every key of a process, what its children get and leave behind, restarts that
nobody notices. (log = "syslog" is not tested: it needs a syslog daemon at /dev/log.)"""
import collections
import os
import pwd
import re
import select
import signal
import socket
import sys
import threading
import time

import pytest

import lib
from lib import SLOW, TIMEOUT, eventually, free_port, request, toml_file
from supervised import (APP, Load, alive, app, fleet, gone, instances, journal, kill, proc, proc_that, procs, quiet, reload, remove, running, sh,
                        status, touch, upgrade, verb, wait_state, workers)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PORT, SOCKET = "port={port}", "socket={socket}"


def order(w, *events):
    """The journal has these, 'NAME WHAT' each, in this order."""
    have = ["%s %s" % (e.name, e.what) for e in journal(w)]
    at = [have.index(e) if e in have else None for e in events]
    assert None not in at and at == sorted(at), "wanted %s in %s" % (events, have)


def started(w, n, name="web"):
    """The nth start of a program, waited for."""
    got = lambda: [e for e in journal(w, "start") if e.name == name]
    return eventually(lambda: len(got()) >= n and got(), "%d starts of %s" % (n, name), 2 * TIMEOUT)[n - 1]


def pids(w, name="web"):
    return sorted(p["pid"] for n, p in procs(w).items() if n.split(".")[0] == name)


def text_of(w, name):
    try:
        with open(w.path(name)) as f:
            return f.read()
    except FileNotFoundError:
        return ""


# ---- order ----------------------------------------------------------------------

@pytest.mark.promise("S2-76")
def test_start_order_and_its_reverse(warp):
    """What is depended on is ready before, and stops after; the file's order says nothing."""
    w = warp(fleet(app("web", PORT, depends_on=["cache", "db"]), {
        "cache": app("cache", depends_on=["db"]), "db": app("db")}))
    assert w.ask().text.startswith("web ")
    wait_state(w, "up")
    w.wait_stderr(r"(?s)db is ready.*cache is ready.*web is ready")
    eventually(lambda: len(journal(w, "start")) == 3)
    w.stop()
    order(w, "web end", "cache signal15", "cache end", "db signal15")


def test_depends_on_waits_for_ready(warp):
    """web starts when its dependency listens, not when it merely runs."""
    text = fleet(app("web", PORT, "bind_if=bind"), {"late": app("late", depends_on=["web"])})
    w = warp(text)
    started(w, 1)
    wait_state(w, "starting")
    p = wait_state(w, "waiting", "late")
    assert "web" in p["why"] and p["pid"] in (0, None), p
    assert not [e for e in journal(w) if e.name == "late"]
    touch(w, "bind")
    wait_state(w, "up", "late")
    eventually(lambda: len(journal(w, "start")) == 2)
    order(w, "web listen", "late start")


def test_oneshot_before_what_depends_on_it(warp):
    w = warp(fleet(app("web", PORT, depends_on=["migrate"]), {
        "migrate": app("migrate", "exit=0", "after=0.3", oneshot=True)}))
    assert w.ask().text.startswith("web ")
    begin, = [e for e in journal(w, "start") if e.name == "migrate"]
    assert started(w, 1).ns - begin.ns >= 0.3e9, "after its end"
    assert proc(w, "migrate")["state"] == "done"
    reload(w)
    w.ask()
    assert len([e for e in journal(w, "start") if e.name == "migrate"]) == 1, "once"


def test_oneshot_that_fails_is_tried_again(warp):
    w = warp(fleet(app("web", PORT, depends_on=["migrate"]), {
        "migrate": sh("echo try >>tries; [ $(wc -l <tries) -ge 3 ]", oneshot=True, restart="on_failure")}))
    assert w.ask().text.startswith("web ")
    assert text_of(w, "tries") == "try\n" * 3
    assert proc(w, "migrate")["state"] == "done"


def test_oneshot_that_fails_for_good(warp):
    w = warp(fleet(app("web", PORT, depends_on=["migrate"]), {
        "migrate": sh("echo no such table >&2; exit 4", oneshot=True, restart="never")}, hold_secs=0.3))
    p = wait_state(w, "failed", "migrate")
    assert re.search(r"\b4\b", p["why"]), p
    assert "migrate" in wait_state(w, "waiting")["why"]
    assert w.ask().status == 503 and not journal(w)
    w.wait_stderr("migrate.*no such table")


def test_cycle_is_named(check):
    p = check(fleet(None, {"a": app("a", depends_on=["c"]), "b": app("b", depends_on=["a"]), "c": app("c", depends_on=["b"])}))
    assert p.returncode == 1 and re.search(r"(a -> c -> b -> a|c -> b -> a -> c|b -> a -> c -> b)", p.stderr), p.stderr


# ---- what it is started with -------------------------------------------------------

def infos(w, n):
    """/info of n replicas, by INDEX."""
    got = {}

    def all_of_them():
        i = w.ask("/info").json
        got[i["env"].get("INDEX")] = i
        return len(got) >= n
    eventually(all_of_them, "%d replicas" % n)
    return [got[k] for k in sorted(got)]


@pytest.mark.parametrize("kind", ["chosen ports", "chosen sockets", "ports", "sockets"])
def test_replicas(warp, kind):
    """{index} from 0, {port} and {socket}, in args and in env; kept over restarts."""
    base = free_port()
    word = SOCKET if "socket" in kind else PORT
    where = {"ports": {"host": "127.0.0.1", "port": base}, "sockets": {"socket": "@DIR@/s{index}"}}.get(kind, {})
    env = {"INDEX": "{index}", "WHERE": word, "BOTH": "<{index}{index}>"}
    w = warp(fleet(app("web", word, "{index}:x", replicas=3, env=env), **where))
    got = infos(w, 3)
    addresses = [g["argv"][2].partition("=")[2] for g in got]
    assert len(set(addresses)) == 3
    for i, g in enumerate(got):
        assert g["argv"][3] == "%d:x" % i and g["env"]["BOTH"] == "<%d%d>" % (i, i)
        assert g["env"]["WHERE"] == g["argv"][2]
    if kind == "ports":
        assert addresses == [str(base + i) for i in range(3)]
    elif kind == "sockets":
        assert addresses == [w.path("s%d" % i) for i in range(3)]
    for a in addresses if "socket" in kind else ():
        assert os.stat(a)
    assert sorted(procs(w)) == ["web.%d" % i for i in range(3)] or sorted(procs(w)) == ["web.%d" % i for i in range(1, 4)]
    assert pids(w) == sorted(g["pid"] for g in got)
    kill(got[1]["pid"])
    eventually(lambda: len(pids(w)) == 3 and got[1]["pid"] not in pids(w))
    again = eventually(lambda: next((g for g in infos(w, 3) if g["env"]["INDEX"] == "1" and g["pid"] != got[1]["pid"]), None))
    assert again["argv"] == got[1]["argv"], "the address is kept over restarts"


@pytest.mark.promise("S2-75")
def test_env(warp, tmp_path):
    """env over envfile over warp's own; PORT for whom warp chose one; nothing that was meant for warp."""
    (tmp_path / "vars").write_text("# a comment\nA=file\nB='of the file'\n\n; another\nD=$A\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        w = warp(fleet(app("web", PORT, env={"A": "env", "N": 7, "P": "{port}"}, envfile=str(tmp_path / "vars"))),
                 env={"A": "own", "B": "own", "OWN": "own", "NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "1",
                      "LISTEN_PID": "1"})
        env = w.ask("/info").json["env"]
        w.stop()
    assert {k: env[k] for k in "ABDN"} == {"A": "env", "B": "of the file", "D": "$A", "N": "7"}
    assert env["OWN"] == "own" and env["PORT"] == env["P"]
    assert not [k for k in env if k.startswith(("LISTEN_", "NOTIFY_"))]


@pytest.mark.parametrize("dir", [None, "sub", "absolute"])
def test_dir(warp, tmp_path, dir):
    """The configuration's directory, unless said; relative to it."""
    d = tmp_path / "w"
    (d / "sub").mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    keys = {} if dir is None else {"dir": str(other) if dir == "absolute" else dir}
    w = warp(fleet(app("web", PORT, **keys)), dir=d)
    assert w.ask("/info").json["cwd"] == str({None: d, "sub": d / "sub", "absolute": other}[dir])


@pytest.mark.promise("S2-75")
def test_command_forms(warp, tmp_path):
    """Words as a shell would split them, no shell; a slash is relative to dir, no slash is looked for in PATH."""
    d = tmp_path / "w"
    (d / "sub").mkdir(parents=True)
    (d / "sub" / "here").write_text("#!/bin/sh\necho I am $0 $#\n")
    (d / "sub" / "here").chmod(0o755)
    w = warp(fleet(None, {
        "split": {"command": "printf '<%s>\\n' 'a b' \"c\\\"d\" $HOME *", "restart": "never"},
        "own": {"command": "./here 'x y'", "dir": "sub", "restart": "never"},
        "none": {"command": "./none", "restart": "never"}, "nowhere": {"command": "no-such-program", "restart": "never"}}), dir=d)
    for line in ("<a b>", '<c"d>', r"<\$HOME>", r"<\*>"):
        w.wait_stderr("split.*" + line)
    w.wait_stderr("own.*I am ./here 1")
    for n in ("none", "nowhere"):
        p = wait_state(w, "failed", n)
        assert "127" in p["why"] and "No such file" in p["lines"][-1], p
        w.wait_stderr("%s.*(No such file|not found)" % n)
    assert w.ask().text == "ok", "a program that is missing fails that process alone"


@root_only
@pytest.mark.parametrize("keys, uid, gid", [({"user": "nobody"}, "nobody", None), ({"user": "nobody", "group": "daemon"}, "nobody", "daemon")])
def test_user_and_group(warp, keys, uid, gid):
    """Its groups too; warp's own workers are others."""
    import grp
    w = warp(fleet(None, {"who": sh("id -u; id -g; echo groups=$(id -G)=", dir="/", restart="never", **keys)}))
    user = pwd.getpwnam(uid)
    group = grp.getgrnam(gid).gr_gid if gid else user.pw_gid
    wait_state(w, "done", "who")
    m = w.wait_stderr(r"(?s)who.*\b%d\n.*who.*\b%d\n.*groups=([\d ]*)=" % (user.pw_uid, group))
    assert "0" not in m[1].split(), "none of root's groups"


@root_only
def test_user_who_is_not_there(warp):
    """It fails that process, and says so; warp runs."""
    w = warp(fleet(None, {"who": sh("id", user="nosuchuser"), "other": app("other")}))
    wait_state(w, "up", "other")
    p = proc_that(w, lambda p: p["state"] in ("failed", "backoff"), "who")
    assert "nosuchuser" in p["why"], p
    w.wait_stderr("who.*nosuchuser")
    assert w.ask().text == "ok"


def test_limits(warp):
    w = warp(fleet(None, {"see": {"command": "/bin/cat", "args": ["/proc/self/limits"], "restart": "never", "log": "@DIR@/out",
                                  "limits": {"nofile": 77, "as_bytes": 200000000, "core": 0}},
                          "plain": {"command": "/bin/cat /proc/self/limits", "restart": "never", "log": "@DIR@/plain"}}))
    wait_state(w, "done", "see")
    wait_state(w, "done", "plain")
    limit = lambda text, name: re.search(r"(?m)^%s +(\S+) +(\S+)" % name, text).groups()
    text = text_of(w, "out")
    assert limit(text, "Max open files") == ("77", "77")
    assert limit(text, "Max address space") == ("200000000", "200000000")
    assert limit(text, "Max core file size") == ("0", "0")
    with open("/proc/self/limits") as f:
        ours = f.read()
    assert limit(text_of(w, "plain"), "Max open files") == limit(ours, "Max open files"), "not what warp raised for itself"


def warps_own_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH, signal.SIGALRM})
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def test_clean_start(warp):
    """Descriptors 0, 1, 2 and no other; own process group; no signal blocked or ignored; somebody of warp's its parent."""
    w = warp(fleet(None, {
        "fds": {"command": "/bin/ls -l /proc/self/fd", "restart": "never", "log": "@DIR@/fds"},
        "sig": {"command": "/bin/cat /proc/self/status", "restart": "never", "log": "@DIR@/sig"},
        "stat": {"command": "/bin/cat /proc/self/stat", "restart": "never", "log": "@DIR@/stat"}}),
        preexec_fn=warps_own_signals)
    for n in ("fds", "sig", "stat"):
        wait_state(w, "done", n)
    fds = dict(re.findall(r"(\d+) -> (.*)", text_of(w, "fds")))
    assert [f for f, to in fds.items() if not to.startswith("/proc/")] == ["0", "1", "2"], fds
    assert fds["0"] == "/dev/null"
    field = lambda k: int(re.search(r"(?m)^%s:\s*(\w+)" % k, text_of(w, "sig"))[1], 16)
    assert (field("SigBlk"), field("SigIgn"), field("SigPnd")) == (0, 0, 0)
    pid, rest = text_of(w, "stat").split(" (", 1)
    ppid, pgrp = rest.rsplit(") ", 1)[1].split()[1:3]
    assert int(ppid) > 1 and pgrp == pid


# ---- ready ----------------------------------------------------------------------

def test_ready_listen(warp):
    """Starting until it accepts; a request that came before is answered then."""
    w = warp(fleet(app("web", PORT, "bind_if=bind"), hold_secs=30))
    wait_state(w, "starting")
    with w.client() as c:
        c.send(request())
        assert c.is_open(0.3)
        assert instances(w)[0]["state"] == "starting"
        touch(w, "bind")
        assert c.response().text.startswith("web ")
    assert wait_state(w, "up")["why"] == "" and instances(w)[0]["state"] == "up"


@pytest.mark.promise("S2-76")
def test_ready_health(warp, tmp_path):
    """Starting until its checks pass; that it listens is not enough."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "sick").touch()
    w = warp(fleet(app("web", PORT, ready="health"), hold_secs=30,
                   health={"path": "/health", "healthy_threshold": 1, "interval_secs": 0.2}), dir=tmp_path / "w")
    eventually(lambda: journal(w, "listen"))
    with w.client() as c:
        c.send(request())
        assert c.is_open(0.7)
        assert proc(w)["state"] == "starting" and instances(w)[0]["state"] in ("starting", "checking", "unhealthy")
        remove(w, "sick")
        assert c.response().text.startswith("web ")
    wait_state(w, "up")
    assert len(journal(w, "start")) == 1


def test_ready_exec(warp):
    """At once; it need not listen."""
    w = warp(fleet(app("web", PORT, "bind_if=never", ready="exec"), {"after": app("after", depends_on=["web"])}, hold_secs=0.2))
    wait_state(w, "up")
    wait_state(w, "up", "after")
    m = w.ask()
    assert m.status == 502


def test_ready_timeout(warp):
    """A program that never listens is killed and started again; status and log say why."""
    w = warp(fleet(app("web", PORT, "bind_if=never", "term=ignore", ready_timeout_secs=0.4, stop_timeout_secs=0.2), hold_secs=0.3))
    first = started(w, 1)
    second = started(w, 2)
    assert second.ns - first.ns > 0.35e9
    gone([first.pid])
    p = proc_that(w, lambda p: p["restarts"] >= 1 and p["why"])
    assert re.search("ready", p["why"]), p
    w.wait_stderr("web.*ready")
    m = w.ask()
    assert m.status == 503 and m.has("retry-after")


# ---- restart --------------------------------------------------------------------

@pytest.mark.parametrize("rule, status, again", [
    ("always", 0, True), ("always", 1, True), ("on_failure", 0, False), ("on_failure", 1, True), ("never", 0, False), ("never", 1, False)])
def test_restart(warp, rule, status, again):
    w = warp(fleet(None, {"web": app("web", "exit=%d" % status, "after=0.05", restart=rule)}))
    if again:
        started(w, 3)
        assert proc(w)["restarts"] >= 2
    else:
        p = wait_state(w, "done" if status == 0 else "failed")
        assert re.search(r"\b%d\b" % status, p["why"]), p
        assert p["restarts"] == 0 and len(journal(w, "start")) == 1


def test_backoff_doubles(warp):
    """0.1, 0.2, 0.4, then the most there may be."""
    w = warp(fleet(None, {"web": app("web", "exit=1", backoff_secs=0.1, backoff_max_secs=0.4)}))
    started(w, 6)
    at = [e.ns / 1e9 for e in journal(w, "start")]
    gaps = [b - a for a, b in zip(at, at[1:])]
    for got, want in zip(gaps, (0.1, 0.2, 0.4, 0.4, 0.4)):
        assert want * 0.95 <= got < want + SLOW, gaps
    p = wait_state(w, "backoff")
    assert re.search(r"\b1\b", p["why"]) and p["pid"] in (0, None), p


@pytest.fixture(scope="module")
def seasoned(tmp_path_factory):
    """A process that ended four times, and has been up since this module began; and one that ended twice, then after
    more than ten seconds in which it did not get ready."""
    slow = toml_file({"upstreams": {"slow": {"host": "127.0.0.1", "port": free_port(), "process": sh(
        "date +%s.%N >>slow; [ $(wc -l <slow) -gt 3 ] && exec sleep 1000; [ $(wc -l <slow) = 3 ] && sleep 10.2 && "
        "date +%s.%N >>slow", backoff_secs=0.4)}}})
    w = lib.Warp(fleet(None, {"web": sh("echo x >>ran; [ $(wc -l <ran) -gt 4 ] && exec sleep 1000", backoff_secs=0.4,
                                        backoff_max_secs=30)}, more=slow), (), tmp_path_factory.mktemp("seasoned"))
    begin = time.monotonic()
    yield w, begin
    w.stop()


def test_backoff_begins(seasoned):
    assert seasoned[0].port, "the last test of this file looks at what became of it"


def test_restart_forgets_the_old_group(warp):
    """What is left of a crashed process's group is killed before the next start."""
    w = warp(fleet(app("web", PORT)))
    kids = list(map(int, w.ask("/fork?2").text.split()))
    first = proc(w)["pid"]
    kill(first)
    started(w, 2)
    gone([k for i, k in enumerate(kids) if i % 2 == 0], "its group is gone")
    wait_state(w, "up")


# ---- stop -----------------------------------------------------------------------

def test_stop_signal(warp):
    w = warp(fleet(None, {"usr": app("usr", stop_signal="USR1"), "int": app("int", stop_signal="SIGINT")}))
    wait_state(w, "up", "usr")
    wait_state(w, "up", "int")
    eventually(lambda: len(journal(w, "start")) == 2)
    w.stop()
    order(w, "usr signal%d" % signal.SIGUSR1, "usr end")
    order(w, "int signal%d" % signal.SIGINT, "int end")


def test_stop_timeout_kills_the_group(warp):
    w = warp(fleet(app("web", PORT, "term=ignore", stop_timeout_secs=0.5)))
    kids = list(map(int, w.ask("/fork?4").text.split()))
    pid = proc(w)["pid"]
    begin = time.monotonic()
    w.stop()
    took = time.monotonic() - begin
    assert 0.4 < took < 0.5 + 2 * SLOW, took
    assert journal(w, "signal15") and not alive(pid)
    gone(kids, "grandchildren, lonely or not")


def test_grandchildren_do_not_outlive_warp(warp):
    """A fork bomb of 50 that ignore TERM, half of them in sessions of their own."""
    w = warp(fleet(app("web", PORT, stop_timeout_secs=1)))
    kids = list(map(int, w.ask("/fork?50").text.split()))
    assert len(set(kids)) == 50 and all(map(alive, kids))
    w.stop()
    gone(kids, "grandchildren")


def test_grandchildren_of_a_process_that_is_stopped(warp):
    """Its whole group, though the process itself ends politely."""
    w = warp(fleet(app("web", PORT, stop_timeout_secs=0.5)))
    kids = list(map(int, w.ask("/fork?6").text.split()))
    verb(w, "stop", "web")
    wait_state(w, "off")
    gone(kids[0::2], "the group")


def zombies(pid):
    out = []
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        for child in f.read().split():
            try:
                with open("/proc/%s/stat" % child) as s:
                    if s.read().rsplit(") ", 1)[1][0] == "Z":
                        out.append(child)
            except FileNotFoundError:
                pass
    return out


def test_orphans_are_reaped(warp):
    """Children whose parent left come to warp, and leave no zombie."""
    w = warp(fleet(None, {"web": sh("for i in 1 2 3 4 5; do (sh -c 'echo $$ >>orphans; sleep 0.2' &) ; done; exec sleep 1000")}))
    eventually(lambda: len(text_of(w, "orphans").split()) == 5)
    orphans = list(map(int, text_of(w, "orphans").split()))
    eventually(lambda: not any(os.path.exists("/proc/%d" % p) for p in orphans), "reaped, not only dead")
    assert not zombies(w.pid)
    wait_state(w, "up")


def test_master_killed_children_follow(warp):
    """PR_SET_PDEATHSIG."""
    w = warp(fleet(app("web", PORT, replicas=2), {"other": app("other", "term=ignore")}))
    wait_state(w, "up", "other")
    w.ask()
    mine = pids(w) + pids(w, "other") + workers(w)
    assert len(mine) == 4
    kill(w.pid)
    gone(mine, "all of warp's children")
    w.wait()


# ---- logs -----------------------------------------------------------------------

CHATTY = r"""
import os, random, sys
name, rnd, out = sys.argv[1], random.Random(sys.argv[1]), b""
lines = [("[%s %05d %s]" % (name, i, name * rnd.randrange(0, 2980))).encode() for i in range(400)]
data = b"\n".join(lines) + b"\n"
while data:
    n = rnd.randrange(1, 9000)
    os.write(1, data[:n])
    data = data[n:]
"""


def test_prefixed_lines_are_whole(warp, tmp_path):
    """Two that talk at once, in pieces of any size, lines of up to 3000 bytes: each line comes once, whole, in order.
    (Into a file: a reader of a pipe that is too slow for what a program says last loses some of it.)"""
    (tmp_path / "chatty.py").write_text(CHATTY)
    talk = lambda n: {"command": sys.executable, "args": ["-SE", str(tmp_path / "chatty.py"), n], "restart": "never"}
    w = warp(fleet(None, {"alpha": talk("a"), "beta": talk("b")}, more='[log]\nerror = "@DIR@/log"\n'))
    for n in ("alpha", "beta"):
        wait_state(w, "done", n)
    log, got = text_of(w, "log"), collections.defaultdict(list)
    for prefix, name, i, text in re.findall(r"(?m)^(.*)\[([ab]) (\d{5}) ([ab]*)\]$", log):
        assert re.search({"a": "alpha", "b": "beta"}[name], prefix) and set(text) <= {name}, prefix
        got[name].append(int(i))
    assert got == {"a": list(range(400)), "b": list(range(400))}
    assert not re.search(r"(?m)^(?!.*\[[ab] \d{5} [ab]*\]$|.*its last words: ).*(aaa|bbb)", log), "no pieces"


def test_slow_reader_of_the_log(warp):
    """Nobody reads: the program waits in its write, warp serves on; when it is read again, every line is there."""
    r, wr = os.pipe()
    talk = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line $i of 4000 xxxxxxxxxxxxxxxxxxxxxxxxxxx; done; echo >over; exec sleep 1000"
    w = warp(fleet(None, {"web": sh(talk)}, more='[log]\nerror = "/proc/self/fd/%d"\n' % wr), pass_fds=(wr,))
    os.close(wr)
    wait_state(w, "up")
    for _ in range(20):
        assert w.ask().text == "ok"
    assert not os.path.exists(w.path("over")), "more than the pipes hold"
    got = b""
    while not got.count(b"of 4000 x") == 4000:
        assert select.select([r], [], [], TIMEOUT)[0], "%d lines" % got.count(b"of 4000 x")
        got += os.read(r, 65536)
    os.close(r)
    eventually(lambda: os.path.exists(w.path("over")))


def test_last_words_without_a_newline(warp):
    w = warp(fleet(None, {"web": sh("printf 'no newline'; printf 'on stderr' >&2", restart="never")}))
    wait_state(w, "done")
    w.wait_stderr("(?m)web.*(no newline|on stderr)")
    assert "on stderr" in w.stderr and "no newline" in w.stderr


def test_log_file_and_null(warp):
    """A file takes it all, and is opened anew at USR1; null takes it and says nothing."""
    w = warp(fleet(app("web", PORT, "of:web", log="@DIR@/web.log"), {"mute": app("mute", "of:mute", log="null")}))
    wait_state(w, "up", "mute")
    w.ask("/say?before")
    eventually(lambda: "before" in text_of(w, "web.log"))
    assert "of:web\n" in text_of(w, "web.log")
    os.rename(w.path("web.log"), w.path("web.log.1"))
    w.ask("/say?between")
    w.signal(signal.SIGUSR1)
    eventually(lambda: os.path.exists(w.path("web.log")), "the file is made anew")
    w.ask("/say?after")
    eventually(lambda: "after\n" in text_of(w, "web.log"))
    assert "between" in text_of(w, "web.log.1") and "after" not in text_of(w, "web.log.1")
    assert "of:mute" not in w.stderr and "of:web" not in w.stderr
    assert os.stat(w.path("web.log")).st_mode & 0o137 == 0, "not for everyone"


def test_what_is_kept_is_harmless(warp):
    """What a terminal would obey reaches neither the log nor status, pages and warp's own lines."""
    w = warp(fleet(None, {"web": sh(r"printf 'red \033[31m bell \007 end\n'; exit 3", restart="never")}))
    w.wait_stderr(r"^web: red \?\[31m bell \? end")
    p = wait_state(w, "failed")
    own = w.wait_stderr("error: process web .*status 3.*end")[0]
    for text in (p["lines"][-1], own):
        assert "red" in text and "\033" not in text and "\007" not in text


def test_how_it_ended(warp):
    """Reason and last words: in status, in the log, in the 503 page if errors are to be shown."""
    w = warp(fleet(app("web", PORT, "fail_if=bad"), server={"show_errors": True}, hold_secs=0.3, retries=0))
    w.ask()
    touch(w, "bad")
    kill(proc(w)["pid"])
    w.wait_stderr(r"web.*(signal 9|KILL|Killed)")
    w.wait_stderr("web.*bad is there")
    w.wait_stderr(r"web.*\b7\b")
    p = proc_that(w, lambda p: re.search(r"\b7\b", p["why"]))
    assert p["lines"][-1] == "bad is there" and p["restarts"] >= 1, p
    m = w.ask()
    assert m.status in (502, 503) and m.has("retry-after") and "bad is there" in m.text and re.search(r"\b7\b", m.text), m.text
    p = verb(w, "status")
    assert re.search(r"(?m)^web\s+(backoff|waiting|starting)\s.*_7_", p.stdout), p.stdout
    remove(w, "bad")
    eventually(lambda: w.ask().status == 200, "well again")


def test_errors_are_not_shown_unasked(warp):
    w = warp(fleet(sh("echo a secret >&2; exit 7"), hold_secs=0.2))
    eventually(lambda: proc(w)["restarts"] > 0)
    m = w.ask()
    assert m.status == 503 and "secret" not in m.text
    assert proc(w)["lines"][-1] == "a secret"


def test_only_the_last_lines_are_kept(warp):
    w = warp(fleet(None, {"web": sh("i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i; done; printf '%0500d\\n' 7; exec sleep 1000")}))
    lines = proc_that(w, lambda p: p["lines"] and p["lines"][-1].startswith("000"))["lines"]
    assert lines[-4:-1] == ["line 28", "line 29", "line 30"] and len(lines[-1]) <= 500


# ---- what goes wrong ---------------------------------------------------------------

@pytest.mark.promise("S2-76")
def test_killed_process_is_not_noticed(warp):
    """kill -9, five times: each request is held and answered."""
    w = warp(fleet(app("web", PORT)))
    w.ask()
    took = []
    for i in range(5):
        kill(wait_state(w, "up")["pid"])
        begin = time.monotonic()
        m = w.ask()
        took.append(time.monotonic() - begin)
        assert m.status == 200 and m.text.startswith("web ")
    assert max(took) < 1.5 * SLOW, took
    assert proc(w)["restarts"] == 5


def test_killed_under_load(warp):
    """One of three instances, again and again: no GET fails."""
    w = warp(fleet(app("web", PORT, replicas=3)))
    with Load(w.port) as load:
        load.more()
        for i in range(6):
            kill(running(w)[i % 3])
            load.more(10)
    quiet(w)


def test_request_in_flight_when_killed(warp):
    """A GET goes again to the next one; a POST that was sent is never sent twice."""
    w = warp(fleet(app("web", PORT)))
    for method, want, arrivals in (("GET", 200, 1), ("POST", 502, 3)):
        pid = wait_state(w, "up")["pid"]
        with w.client() as c:
            c.send(request("/wait", method=method, body=b"x" if method == "POST" else None))
            eventually(lambda: len(journal(w, "waiting")) == arrivals)
            kill(pid)
            if want == 200:
                touch(w, "go")
            assert c.response().status == want
        if want == 200:
            remove(w, "go")
    assert len(journal(w, "waiting")) == 3
    quiet(w)


def test_stopped_process(warp):
    """SIGSTOP: a request waits for read_timeout_secs; with checks the instance is down; CONT brings it back."""
    w = warp(fleet(app("web", PORT), read_timeout_secs=0.5, hold_secs=0.5,
                   health={"path": "/health", "interval_secs": 0.2, "timeout_secs": 0.3, "unhealthy_threshold": 2,
                           "healthy_threshold": 1}))
    w.ask()
    pid = wait_state(w, "up")["pid"]
    lib.freeze(pid)
    try:
        assert w.ask().status == 504
        eventually(lambda: instances(w)[0]["state"] != "up", "its checks fail")
        assert instances(w)[0]["why"]
    finally:
        kill(pid, signal.SIGCONT)
    eventually(lambda: instances(w)[0]["state"] == "up", "its checks pass")
    assert w.ask().status == 200 and proc(w)["pid"] == pid and proc(w)["restarts"] == 0


def test_stop_of_a_stopped_process(warp):
    """SIGSTOP does not save it from the end."""
    w = warp(fleet(app("web", PORT, stop_timeout_secs=0.5)))
    w.ask()
    pid = proc(w)["pid"]
    lib.freeze(pid)
    w.stop()
    gone([pid])


def test_accepts_and_hangs(warp):
    w = warp(fleet(app("web", PORT), read_timeout_secs=0.4))
    assert w.ask("/hang").status == 504
    assert w.ask().status == 200, "not the end of it"
    quiet(w)


def test_half_an_answer(warp):
    """What was begun is cut, never completed by something else."""
    w = warp(fleet(app("web", PORT)))
    with w.client() as c:
        c.send(request("/half"))
        m = c.head(TIMEOUT)
        assert m.status == 200
        got = b""
        try:
            while c.fill(TIMEOUT):
                pass
        except ConnectionError:
            pass
        got = c.buf
        assert len(got) < int(m.get("content-length"))
    assert w.ask().status == 200
    quiet(w)


def test_dies_while_it_answers(warp):
    """/die leaves with every request it gets: 502 at last, and the next request is served."""
    w = warp(fleet(app("web", PORT), retries=1, hold_secs=5, read_timeout_secs=5))
    m = w.ask("/die", method="POST", body=b"")
    assert m.status == 502
    m = w.ask()
    assert m.status == 200
    quiet(w)


@pytest.mark.limit(30)
def test_flapping(warp):
    """A program that vanishes behind every 40th answer: nobody who asks GET notices."""
    w = warp(fleet(app("web", PORT, "die_after=40", replicas=2, backoff_max_secs=0.1), retries=5, hold_secs=20))
    with Load(w.port, threads=2) as load:
        load.more(400)
    assert len(journal(w, "vanish")) >= 5
    quiet(w)


def test_worker_killed_in_flight(warp):
    """In-flight counts of a killed worker are given back; processes do not care."""
    w = warp(fleet(app("web", PORT), server={"worker_threads": 2}))
    w.ask()
    pid = wait_state(w, "up")["pid"]
    with w.client() as a, w.client() as b:
        for c in (a, b):
            c.send(request("/wait"))
        eventually(lambda: instances(w)[0]["in_flight"] == 2, "two in flight")
        for p in workers(w):
            kill(p)
        eventually(lambda: instances(w)[0]["in_flight"] == 0, "none in flight")
    touch(w, "go")
    assert w.ask().status == 200 and proc(w)["pid"] == pid
    quiet(w)


# ---- on request --------------------------------------------------------------------

def test_start_on_request(warp):
    """Nothing runs before; the first request is held and answered; so are those that come meanwhile."""
    w = warp(fleet(app("web", PORT, "bind_if=bind", start_on="request")))
    assert proc(w)["state"] == "off" and not journal(w)
    clients = [w.client() for _ in range(5)]
    for i, c in enumerate(clients):
        c.send(request("/%d" % i))
    started(w, 1)
    touch(w, "bind")
    for c in clients:
        assert c.response().status == 200
        c.close()
    assert len(journal(w, "start")) == 1


def test_idle_stop(warp):
    """Stopped after quiet, not while something is in flight; started again by the next request."""
    w = warp(fleet(app("web", PORT, start_on="request", idle_stop_secs=0.8)))
    assert w.ask().status == 200
    first = proc(w)["pid"]
    with w.client() as c:
        c.send(request("/wait"))
        eventually(lambda: journal(w, "waiting"))
        assert c.is_open(1.6)
        assert alive(first) and proc(w)["state"] == "up", "a request in flight keeps it"
        touch(w, "go")
        assert c.response().status == 200
    wait_state(w, "off")
    assert not alive(first) and journal(w, "end"), "politely"
    assert w.ask().status == 200
    assert proc(w)["pid"] not in (0, None, first)


def test_idle_stop_and_requests_race(warp):
    """It stops and starts all the time; no request is lost."""
    w = warp(fleet(app("web", PORT, start_on="request", idle_stop_secs=0.3)))
    for pause in (0.28, 0.3, 0.32, 0.34, 0.31, 0.4):
        assert w.ask().status == 200
        time.sleep(pause)          # not synchronisation: the moment of the stop is what is looked for
    assert w.ask().status == 200


# ---- verbs ----------------------------------------------------------------------

@pytest.mark.limit(40)
def test_restart_rolls(warp):
    """One replica after the other, each ready before the next one stops, and no error."""
    w = warp(fleet(app("web", PORT, replicas=3, env={"INDEX": "{index}"})))
    infos(w, 3)
    before = set(running(w))
    with Load(w.port) as load:
        load.more()
        for _ in range(2):
            verb(w, "restart", "web")
            load.more()
    after = set(running(w))
    assert len(after) == 3 and not before & after, "all of them, done when the verb says so"
    rolled = [e.what for e in journal(w, "signal15", "end", "listen")][3:]
    assert rolled == ["signal15", "end", "listen"] * 6, rolled
    quiet(w)


def test_restart_waits_for_what_is_in_flight(warp):
    w = warp(fleet(app("web", PORT, replicas=2)))
    eventually(lambda: all(p["state"] == "up" for p in procs(w).values()))
    with w.client() as c:
        c.send(request("/wait"))
        busy = eventually(lambda: journal(w, "waiting"))[0].pid
        t = threading.Thread(target=verb, args=(w, "restart", "web"), daemon=True)
        t.start()
        eventually(lambda: [p for p in procs(w).values() if p["state"] == "draining"] or len(journal(w, "start")) > 2)
        assert alive(busy)
        touch(w, "go")
        m = c.response()
        assert m.status == 200 and str(busy) in m.text
    t.join(60 * SLOW)
    assert not t.is_alive() and busy not in pids(w)


@pytest.mark.parametrize("word", [PORT, SOCKET], ids=["port", "socket"])
def test_blue_and_green(warp, word):
    """A single instance: the new one starts beside the old, the old one ends when the new one serves."""
    w = warp(fleet(app("web", word)))
    w.ask()
    first = wait_state(w, "up")["pid"]
    with Load(w.port) as load:
        load.more()
        for _ in range(3):
            verb(w, "restart", "web")
            load.more()
    events = [(e.what, e.pid) for e in journal(w, "start", "listen", "signal15")]
    assert proc(w)["pid"] != first
    second = next(p for what, p in events if what == "start" and p != first)
    assert events.index(("listen", second)) < events.index(("signal15", first)), "beside the old one"
    eventually(lambda: len([p for p in {e.pid for e in journal(w)} if alive(p)]) == 1, "one is left")
    quiet(w)


@pytest.mark.parametrize("word", [PORT, SOCKET], ids=["port", "socket"])
def test_a_broken_new_version_changes_nothing(warp, word):
    """The new one fails, or never gets ready: the old one goes on, the verb says what was wrong."""
    w = warp(fleet(app("web", word, "fail_if=bad", "bind_if=bind", ready_timeout_secs=2)))
    touch(w, "bind")
    w.ask()
    first = wait_state(w, "up")["pid"]
    with Load(w.port) as load:
        load.more()
        touch(w, "bad")
        p = verb(w, "restart", "web", ok=False)
        assert "bad is there" in p.stderr and re.search(r"\b7\b", p.stderr), p.stderr
        load.more()
        remove(w, "bad")
        remove(w, "bind")
        verb(w, "restart", "web", ok=False)
        load.more()
        assert proc(w)["pid"] == first and alive(first) and proc(w)["state"] == "up"
        touch(w, "bind")
        verb(w, "restart", "web")
        load.more()
    assert proc(w)["pid"] != first
    eventually(lambda: len([p for p in {e.pid for e in journal(w)} if alive(p)]) == 1, "one is left")


def test_fixed_address_restarts_with_held_requests(warp):
    """Where old and new cannot stand beside each other, requests wait for the new one."""
    w = warp(fleet(app("web", PORT), host="127.0.0.1", port=free_port()))
    w.ask()
    first = wait_state(w, "up")["pid"]
    with Load(w.port) as load:
        load.more()
        verb(w, "restart", "web")
        load.more()
    assert proc(w)["pid"] != first
    eventually(lambda: any(e.what == "signal15" for e in journal(w)), "the old one is told")


def test_stop_and_start(warp):
    w = warp(fleet(app("web", PORT), {"other": app("other")}, hold_secs=0.3))
    w.ask()
    pid = wait_state(w, "up")["pid"]
    verb(w, "stop", "web")
    assert wait_state(w, "off")["pid"] in (0, None) and not alive(pid)
    m = w.ask()
    assert m.status == 503 and m.has("retry-after")
    assert instances(w)[0]["state"] == "off"
    reload(w)
    assert proc(w)["state"] == "off", "a reload does not bring back what the operator stopped"
    assert proc(w, "other")["state"] == "up"
    verb(w, "start", "web")
    assert w.ask().status == 200 and wait_state(w, "up")
    verb(w, "start", "web", ok=None)
    assert len([e for e in journal(w, "start") if e.name == "web"]) == 2, "what runs is not started again"


def test_verbs_of_unknown_names(warp):
    """They say which name was meant."""
    w = warp(fleet(app("web", PORT)))
    for words in (("restart", "wbe"), ("stop", "wbe"), ("start", "wbe")):
        p = verb(w, *words, ok=False)
        assert "wbe" in p.stderr and "web" in p.stderr, p.stderr


def test_drain_and_enable(warp):
    w = warp(fleet(app("web", PORT, replicas=2, env={"INDEX": "{index}"})))
    infos(w, 2)
    eventually(lambda: all(i["state"] == "up" for i in instances(w)))
    verb(w, "drain", "web/0")
    assert instances(w)[0]["state"] == "drained"
    assert {w.ask().text.split()[2] for _ in range(10)} == {"1"}
    verb(w, "drain", "web/" + instances(w)[1]["address"])
    assert instances(w)[1]["state"] == "drained"
    verb(w, "enable", "web/" + instances(w)[0]["address"])
    assert {w.ask().text.split()[2] for _ in range(10)} == {"0"}
    verb(w, "enable", "web/1")
    eventually(lambda: len({w.ask().text for _ in range(4)}) == 2)
    assert len(journal(w, "start")) == 2, "the processes ran on"


def test_maintenance(warp):
    w = warp(fleet(app("web", PORT), maintenance="@DIR@/closed"))
    assert w.ask().status == 200
    with open(w.path("closed"), "w") as f:
        f.write("back at noon")
    eventually(lambda: w.ask().status == 503)
    assert w.ask().text == "back at noon" and proc(w)["state"] == "up"
    remove(w, "closed")
    eventually(lambda: w.ask().status == 200)


# ---- reload and upgrade ------------------------------------------------------------

def test_reload(warp):
    """Unchanged: keeps its pid. Changed: restarts, and nobody notices. Gone: stops. New: starts."""
    conf = lambda version, **more: fleet(app("web", PORT, env={"INDEX": version}), {"same": app("same"), **more})
    w = warp(conf("v1", old=app("old")))
    assert w.ask().text.endswith(" v1")
    before = {n: wait_state(w, "up", n)["pid"] for n in ("web", "same", "old")}
    with Load(w.port) as load:
        load.more()
        reload(w, conf("v1", old=app("old")))
        load.more()
        assert {n: p["pid"] for n, p in procs(w).items()} == before, "nothing has changed"
        reload(w, conf("v2", new=app("new")))
        eventually(lambda: any(b.endswith(" v2") for b in load.bodies), "the new version serves", 2 * TIMEOUT)
        load.more()
    wait_state(w, "up", "new")
    eventually(lambda: sorted(procs(w)) == ["new", "same", "web"], "the old one is forgotten")
    gone([before["old"]])
    assert wait_state(w, "up", "same")["pid"] == before["same"] and proc(w)["pid"] != before["web"]
    assert [e.name for e in journal(w, "signal15")].count("old") == 1
    eventually(lambda: w.ask().text.endswith(" v2"))


def test_reload_changes_the_number_of_replicas(warp):
    conf = lambda n: fleet(app("web", PORT, replicas=n, env={"INDEX": "{index}"}))
    w = warp(conf(2))
    infos(w, 2)
    before = set(pids(w))
    with Load(w.port) as load:
        load.more()
        reload(w, conf(4))
        eventually(lambda: len(pids(w)) == 4 and all(p["state"] == "up" for p in procs(w).values()), "four are up", 2 * TIMEOUT)
        assert before <= set(pids(w)), "the first two keep their pids"
        load.more()
        reload(w, conf(1))
        eventually(lambda: len(pids(w)) == 1, "one is left", 2 * TIMEOUT)
        load.more()
    assert set(pids(w)) <= before
    eventually(lambda: len([p for p in {e.pid for e in journal(w)} if alive(p)]) == 1)


def test_reload_that_fails_touches_no_process(warp):
    w = warp(fleet(app("web", PORT)))
    w.ask()
    pid = wait_state(w, "up")["pid"]
    reload(w, fleet(app("web", PORT, env={"NEW": "1"})) + "[nope]\n", good=False)
    assert proc(w)["pid"] == pid and w.ask().status == 200 and not journal(w, "signal15")


@pytest.mark.limit(40)
def test_upgrade(warp):
    """USR2: pids stay, they are still supervised, their words still come, no request fails."""
    w = warp(fleet(app("web", PORT, replicas=2, env={"INDEX": "{index}"}), {"other": app("other")}))
    infos(w, 2)
    wait_state(w, "up", "other")
    before = {n: p["pid"] for n, p in procs(w).items()}
    with Load(w.port) as load:
        load.more()
        for _ in range(2):
            upgrade(w)
            load.more()
        assert {n: p["pid"] for n, p in procs(w).items()} == before
        assert not journal(w, "signal15")
        w.ask("/say?after-the-upgrade")
        w.wait_stderr("web.*after-the-upgrade")
        victim = procs(w)["other"]["pid"]
        kill(victim)
        eventually(lambda: proc(w, "other")["pid"] not in (0, None, victim), "still supervised")
        w.wait_stderr("other.*(signal 9|KILL|Killed)")
        kill(min(pids(w)))
        load.more()
        verb(w, "restart", "web")
        load.more()
    everybody = pids(w) + pids(w, "other")
    w.stop()
    gone(everybody)


def test_upgrade_while_requests_wait(warp):
    """A request that is held for a process that starts is answered, whatever binary sees it get ready."""
    w = warp(fleet(app("web", PORT, "bind_if=bind"), hold_secs=30))
    wait_state(w, "starting")
    with w.client() as c:
        c.send(request())
        assert c.is_open(0.2)
        old = set(workers(w))
        w.signal(signal.SIGUSR2)
        eventually(lambda: set(workers(w)) - old and w.stderr.count(" ready, ") == 2, "new workers", 3 * TIMEOUT)
        touch(w, "bind")
        wait_state(w, "up")
        assert c.response(timeout=3 * SLOW).status == 200
    assert len(journal(w, "start")) == 1


def test_upgrade_follows_a_restart(warp):
    """What is asked for while a restart is under way happens as soon as that is done."""
    w = warp(fleet(app("web", PORT, "bind_if=bind", replicas=2)))
    touch(w, "bind")
    first = running(w)
    old = set(workers(w))
    remove(w, "bind")
    t = threading.Thread(target=verb, args=(w, "restart", "web"), kwargs={"ok": None}, daemon=True)
    t.start()
    started(w, 3)
    w.signal(signal.SIGUSR2)
    w.wait_stderr("upgrade: follows")
    touch(w, "bind")
    w.wait_stderr(r"(?s)upgrade: follows.*upgrade: starting")      # not asked by status: that would wake it
    t.join(20 * SLOW)
    eventually(lambda: (now := set(workers(w))) and not now & old, "new workers", 3 * TIMEOUT)
    assert w.ask().status == 200 and running(w) != first


def test_upgrade_asked_for_twice(warp):
    """While a restart holds it back: the first one hears how it went, the second that there is one already."""
    w = warp(fleet(None, {"slow": {"command": "sh -c 'trap : TERM; touch traps; while :; do sleep 0.1; done'", "stop_timeout_secs": 2}}))
    eventually(lambda: os.path.exists(w.path("traps")), "it hears no TERM")
    said = []
    ask = lambda *words: threading.Thread(target=lambda: said.append(verb(w, *words, ok=None)), daemon=True)
    restart, upgrade = ask("restart", "slow"), ask("upgrade")
    restart.start()
    eventually(lambda: proc(w, "slow")["state"] == "stopping")
    upgrade.start()
    w.wait_stderr("upgrade: follows")
    assert "under way" in verb(w, "upgrade", ok=False).stderr
    for t in (restart, upgrade):
        t.join(10 * SLOW)
    assert [p.returncode for p in said] == [0, 0], said


# ---- wrap -----------------------------------------------------------------------

def wrapped(warp, *command, listen="127.0.0.1:@PORT@", **kw):
    return warp(None, "-l", listen, "--", *command, **kw)


def ancestors(pid):
    while pid > 1:
        with open("/proc/%d/stat" % pid) as f:
            pid = int(f.read().rsplit(") ", 1)[1].split()[1])
        yield pid


@pytest.mark.promise("S2-88")
def test_wrap(warp):
    """PORT is given; what the program says is seen; it is started again when it ends by itself."""
    w = wrapped(warp, sys.executable, "-SE", "-c", "import os, sys; sys.argv[1:] = ['web', 'port=' + os.environ['PORT'], 'hello:x']; "
                "exec(open(%r).read())" % APP)
    m = w.ask("/info").json
    assert int(m["env"]["PORT"]) and w.pid in ancestors(m["pid"]) and m["cwd"] == w.dir
    assert "hello:x" in w.stderr
    kill(m["pid"])
    assert w.ask("/info").json["pid"] != m["pid"]
    w.stop()
    assert journal(w, "end")


@pytest.mark.parametrize("script, want", [
    ("trap 'exit 5' TERM; echo set; while :; do sleep 0.05; done", 5), ("trap 'exit 0' TERM; echo set; while :; do sleep 0.05; done", 0),
    ("echo set; exec sleep 1000", 128 + signal.SIGTERM)], ids=["5", "0", "signal"])
def test_wrap_exit_status(warp, script, want):
    w = wrapped(warp, "/bin/sh", "-c", script)
    w.wait_stderr("(?m)set$")
    w.stop(status=want)


def test_wrap_with_a_target(warp):
    port = free_port()
    w = warp(None, "-l", "127.0.0.1:@PORT@", "-u", "127.0.0.1:%d" % port, "--", sys.executable, "-SE", APP, "web", "port=%d" % port)
    assert w.ask("/info").json["env"]["PORT"] == str(port)


def test_wrap_of_nothing(run):
    p = run("--")
    assert p.returncode == 2 and "usage" in p.stderr.lower() or "command" in p.stderr.lower(), p.stderr


# ---- the end --------------------------------------------------------------------

@pytest.mark.limit(40)
def test_backoff_starts_over(seasoned):
    """Its last wait was 3.2 s; it has been up for more than ten seconds; the next one is short again."""
    w, begin = seasoned
    eventually(lambda: proc(w)["restarts"] == 4, "it has ended four times", 15 * SLOW)  # this test may run alone
    eventually(lambda: proc(w)["uptime_secs"] > 10.5, "ten seconds up", 15 * SLOW)
    kill(proc(w)["pid"])
    at = time.monotonic()
    eventually(lambda: proc(w)["restarts"] == 5 and proc(w)["pid"], "started again")
    assert 0.3 < time.monotonic() - at < min(2 * SLOW, 5)


def test_backoff_goes_on(seasoned):
    """More than ten seconds, but never ready: that is not up, the third wait is longer than the second."""
    w, begin = seasoned
    eventually(lambda: len(lib.read(w.path("slow")).split()) >= 5, "it has started a fourth time", 40 * SLOW)
    ended, again = map(float, lib.read(w.path("slow")).split()[3:5])
    assert again - ended >= 1.5
