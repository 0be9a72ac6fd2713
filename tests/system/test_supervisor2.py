"""The supervisor under hostile circumstances: reloads, verbs and upgrades at bad moments, programs that
leave something behind, other users. Each test is one finding of a review."""
import contextlib
import os
import pwd
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import lib
from lib import SLOW, TIMEOUT, eventually, free_port, toml_file
from supervised import (APP, Load, alive, app, fleet, gone, instances, journal, kill, proc, procs, reload, remove, running, sh,
                        touch, verb, wait_state, workers)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PORT, SOCKET = "port={port}", "socket={socket}"
QUICK = {"backoff_secs": 0.05, "backoff_max_secs": 0.2}


def conf(upstreams, processes=None, server=None):
    """Upstreams by name: their keys; each is served below /NAME/."""
    c = {"server": dict(server or {}), "admin": {"listen": ["@DIR@/admin"]}}
    c["upstreams"] = {n: {**u, "process": {**QUICK, **u["process"]}} for n, u in upstreams.items()}
    if processes:
        c["processes"] = {n: {**QUICK, **p} for n, p in processes.items()}
    c["routes"] = [{"path_prefix": "/%s/" % n, "strip_prefix": True, "rewrite": "/", "upstream": n} for n in upstreams]
    for r in c["routes"]:
        del r["strip_prefix"]
    return toml_file(c)


@contextlib.contextmanager
def in_flight(w, target, method="GET"):
    """A request to /wait of app.py, answered at the end."""
    got = []
    n = len(journal(w, "waiting"))
    t = threading.Thread(target=lambda: got.append(w.ask(target, method=method, timeout=10 * TIMEOUT)), daemon=True)
    t.start()
    eventually(lambda: len(journal(w, "waiting")) > n, "a request in flight")
    try:
        yield got
    finally:
        touch(w, "go")
        t.join(2 * TIMEOUT)


@contextlib.contextmanager
def asked(w, *words):
    """`warp -s ...` that goes on meanwhile."""
    p = subprocess.Popen([lib.WARP, "-s", *words, "-c", w.file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield p
    finally:
        if p.poll() is None:
            p.kill()
        p.communicate()


def stays(w, secs=1.0):
    """The master lives on."""
    end = time.monotonic() + secs
    while time.monotonic() < end:
        assert w.proc.poll() is None, "the master died:\n" + w.stderr[-3000:]
        time.sleep(0.05)


@pytest.fixture
def binary(tmp_path, monkeypatch):
    path = str(tmp_path / "warp")
    shutil.copy2(lib.WARP, path)
    monkeypatch.setattr(lib, "WARP", path)
    return path


def upgrade(w):
    old = set(workers(w))
    w.signal(signal.SIGUSR2)
    eventually(lambda: (now := set(workers(w))) and not now & old, "new workers", 3 * TIMEOUT)


# ---- one that leaves --------------------------------------------------------------

@pytest.mark.parametrize("what", ["gets ready", "is late", "is idle"])
def test_leaving_one(warp, what):
    """A process is gone from the configuration, an old worker still drains: its events kill nobody."""
    web = {"process": app("web", PORT)}
    late = {"gets ready": {"process": app("late", PORT, "bind_if=bind")},
            "is late": {"process": app("late", PORT, "bind_if=bind", ready_timeout_secs=1.5 * SLOW)},
            "is idle": {"process": app("late", PORT, start_on="request", idle_stop_secs=1.5 * SLOW)}}[what]
    w = warp(conf({"web": web, "late": late}))
    wait_state(w, "up")
    if what == "is idle":
        assert w.ask("/late/").status == 200
    wait_state(w, "up" if what == "is idle" else "starting", "late")
    with in_flight(w, "/web/wait"):
        reload(w, conf({"web": web}))
        if what == "gets ready":
            touch(w, "bind")
        stays(w, 1 if what == "gets ready" else 1.7 * SLOW)


def test_removed_and_added_again(warp):
    """The old one, slow to stop, ends after the new one is up: the new one serves on."""
    web = {"process": app("web", PORT), "hold_secs": 0.3}
    slow = {"process": app("slow", PORT, "term=ignore", stop_timeout_secs=1.5), "hold_secs": 0.5}
    w = warp(conf({"web": web, "slow": slow}))
    first = wait_state(w, "up", "slow")["pid"]
    reload(w, conf({"web": web}))
    eventually(lambda: journal(w, "signal15"), "it is told to stop")
    reload(w, conf({"web": web, "slow": slow}))
    eventually(lambda: any(p["name"] == "slow" and p["state"] == "up" and p["pid"] != first
                           for p in lib.Client(w.path("admin")).ask("/status").json["processes"]), "the new one is up")
    assert w.ask("/slow/").status == 200
    gone([first])
    time.sleep(0.1)
    m = w.ask("/slow/")
    assert m.status == 200, (m.text, instances(w, "slow"))


# ---- upgrade ----------------------------------------------------------------------

@pytest.mark.limit(40)
def test_upgrade_while_a_oneshot_runs(warp, binary):
    w = warp(fleet(app("web", PORT), {"migrate": sh("sleep 3; echo done >done", oneshot=True)}))
    wait_state(w, "starting", "migrate")
    upgrade(w)
    wait_state(w, "done", "migrate")


@pytest.mark.limit(40)
def test_upgrade_while_one_backs_off(warp, binary):
    w = warp(fleet(app("web", PORT, "fail_if=broken"), {"flaky": sh("[ -e good ] || exit 1; exec sleep 1000", backoff_max_secs=2)}))
    wait_state(w, "up")
    eventually(lambda: proc(w, "flaky")["restarts"] > 4)
    wait_state(w, "backoff", "flaky")
    upgrade(w)
    touch(w, "good")
    wait_state(w, "up", "flaky")


@pytest.mark.limit(40)
def test_upgrade_within_a_line(warp, binary):
    """What was read of it is not lost."""
    w = warp(fleet(None, {"talker": sh("printf first; touch said; while ! [ -e go ]; do sleep 0.05; done; echo second; exec sleep 1000")}))
    eventually(lambda: os.path.exists(w.path("said")))
    proc(w, "talker")                                      # the master has had a turn
    upgrade(w)
    touch(w, "go")
    w.wait_stderr("^talker: second")
    assert "talker: first\n" in w.stderr


@pytest.mark.limit(40)
def test_upgrade_tells_states(warp, binary):
    """What does not run is still shown as what it is."""
    w = warp(fleet(app("web", PORT), {"good": sh("exit 0", oneshot=True), "bad": sh("exit 3", restart="never"), "off": sh("exec sleep 1000")}))
    wait_state(w, "up")
    wait_state(w, "done", "good")
    wait_state(w, "failed", "bad")
    verb(w, "stop", "off")
    before = {n: p["state"] for n, p in procs(w).items()}
    upgrade(w)
    assert {n: p["state"] for n, p in procs(w).items()} == before


@pytest.mark.limit(40)
def test_upgrade_while_a_late_one_stops(warp, binary):
    """It was not ready in time and is being stopped: it is still wanted."""
    w = warp(fleet(app("web", PORT, "bind_if=bind", "term=ignore", ready_timeout_secs=1.5, stop_timeout_secs=6)))
    wait_state(w, "stopping")
    upgrade(w)
    touch(w, "bind")
    wait_state(w, "up", timeout=15)


@pytest.mark.limit(60)
def test_upgrade_leaves_what_old_workers_need(warp, binary):
    """A process whose place was taken serves its last request through an upgrade."""
    w = warp(fleet(app("web", SOCKET, stop_signal="KILL")))
    wait_state(w, "up")
    with in_flight(w, "/wait", "POST") as got:
        verb(w, "restart", "web")
        w.signal(signal.SIGUSR2)
        w.wait_stderr(r"(?s)upgrade: starting.* ready, ", 3 * TIMEOUT)
        time.sleep(1)
    assert got and got[0].status == 200, got and got[0].text


@pytest.mark.limit(60)
def test_upgrade_that_fails_after_a_process_died(warp, binary):
    """The binary before gets back what runs now, not what ran when it left."""
    text = fleet(app("web", PORT, "fail_if=nobody"), {"short": sh("exec sleep 0.02", backoff_secs=0.001, backoff_max_secs=0.001)})
    w = warp(text)
    wait_state(w, "up")
    w.write(text.replace("[server]", "[server]\nuser = \"nosuchuser\"", 1) if "[server]" in text else "[server]\nuser = \"nosuchuser\"\n" + text)
    w.signal(signal.SIGUSR2)
    w.wait_stderr("upgrade failed: back to the binary before", 3 * TIMEOUT)
    w.write(text)
    time.sleep(3)
    n = proc(w, "short")["restarts"]
    eventually(lambda: proc(w, "short")["restarts"] > n, "it is started again and again: %s" % proc(w, "short"))


# ---- what programs leave behind -----------------------------------------------------

def test_end_with_a_daemon_that_has_children(warp):
    """A daemon in a session of its own, with a child of its own: both end with warp."""
    w = warp(fleet(None, {"odd": sh("setsid sh -c 'sleep 998 & echo $! >inner; wait' & echo $! >outer; exec sleep 997")}))
    inner = int(eventually(lambda: os.path.exists(w.path("inner")) and open(w.path("inner")).read().strip()))
    wait_state(w, "up", "odd")
    try:
        w.stop()
        gone([inner])
    finally:
        with contextlib.suppress(ProcessLookupError):
            kill(inner)


def test_end_of_one_whose_grandchild_writes_on(warp):
    """A grandchild that escaped and writes without end does not keep warp."""
    w = warp(fleet(app("web", PORT), {"odd": sh("setsid sh -c 'echo $$ >pid; exec yes' & sleep 0.5; exit 1", log="null", restart="never")}))
    pid = int(eventually(lambda: os.path.exists(w.path("pid")) and open(w.path("pid")).read().strip()))
    try:
        wait_state(w, "failed", "odd")
        w.stop()
    finally:
        with contextlib.suppress(ProcessLookupError):
            kill(pid)


# ---- verbs --------------------------------------------------------------------------

@pytest.mark.limit(60)
def test_two_restarts_while_the_first_still_drains(warp):
    """The socket of the one that serves is nobody else's."""
    w = warp(fleet(app("web", SOCKET)))
    wait_state(w, "up")
    with in_flight(w, "/wait"):
        first = journal(w, "start")[0].pid
        verb(w, "restart", "web")
        verb(w, "restart", "web")
        now = proc(w)["pid"]
        assert int(w.ask().text.split()[1]) == now
    gone([first])
    time.sleep(0.3)
    for _ in range(3):
        m = w.ask()
        assert m.status == 200 and int(m.text.split()[1]) == now, m.text


def test_two_restarts_while_the_new_one_starts(warp):
    """The first new one, slow to stop, and the second have places of their own."""
    w = warp(fleet(app("web", SOCKET, "bind_if=bind", "term=ignore", stop_timeout_secs=2)))
    touch(w, "bind")
    wait_state(w, "up")
    os.unlink(w.path("bind"))
    with asked(w, "restart", "web"):
        eventually(lambda: len(journal(w, "start")) == 2)
        with asked(w, "restart", "web") as p:
            eventually(lambda: len(journal(w, "start")) == 3)
            words = [open("/proc/%d/cmdline" % e.pid).read().split("\0") for e in journal(w, "start")[1:]]
            places = [x for v in words for x in v if x.startswith("socket=")]
            assert len(set(places)) == 2, places
            touch(w, "bind")
            assert p.wait(10) == 0
    now = proc(w)["pid"]
    time.sleep(2.5)
    for _ in range(3):
        m = w.ask()
        assert m.status == 200 and int(m.text.split()[1]) == now, m.text


def test_stop_of_one_that_is_being_stopped(warp):
    w = warp(fleet(app("web", PORT, "bind_if=bind", "term=ignore", ready_timeout_secs=0.5, stop_timeout_secs=3)))
    wait_state(w, "stopping")
    verb(w, "stop", "web")
    time.sleep(0.5)
    assert proc(w)["state"] == "off", proc(w)


def test_start_is_answered_at_once(warp):
    """Nothing else happens meanwhile."""
    w = warp(fleet(None, {"quiet": sh("exec sleep 1000")}))
    wait_state(w, "up", "quiet")
    verb(w, "stop", "quiet")
    with asked(w, "start", "quiet") as p:
        assert p.wait(5) == 0


@pytest.mark.limit(40)
def test_second_restart_of_one_that_is_ready_at_once(warp):
    w = warp(fleet(app("web", PORT, ready="exec")))
    wait_state(w, "up")
    eventually(lambda: w.ask().status == 200)
    with in_flight(w, "/wait"), asked(w, "restart", "web") as p:
        time.sleep(1)
        with asked(w, "restart", "web") as q:
            assert (p.wait(5), q.wait(5)) == (0, 0)
        time.sleep(0.5)
        assert procs(w).get("web", {}).get("state") == "up", procs(w)


def test_stop_while_an_old_one_drains(warp):
    """It is told to end like the new one, and not waited for as long as requests may take."""
    w = warp(fleet(app("web", PORT, ready="exec")))
    wait_state(w, "up")
    eventually(lambda: w.ask().status == 200)
    with w.client() as c:
        c.send(lib.request("/wait"))
        eventually(lambda: journal(w, "waiting"), "a request in flight")
        with asked(w, "restart", "web") as p:
            assert p.wait(5) == 0
        w.signal(signal.SIGTERM)
        time.sleep(0.5)  # it is told to end by then, and does when its request has
        touch(w, "go")
        assert w.wait(5) == 0


@pytest.mark.limit(40)
@pytest.mark.parametrize("replicas", [1, 2])
def test_restart_of_one_that_cannot_be_started(warp, replicas):
    """An envfile that is gone: said, and nothing waits for ever."""
    with_file = app("web", PORT, envfile="@DIR@/env", replicas=replicas)
    env = None
    text = fleet(with_file)
    w = warp(text, ready=False)
    touch(w, "env")
    running(w)
    os.unlink(w.path("env"))
    with asked(w, "restart", "web") as p:
        assert p.wait(10) != 0


@pytest.mark.limit(40)
def test_restart_and_reload_to_another_place(warp):
    """The job ends although the process it restarts has left."""
    a, b = free_port(), free_port()
    text = lambda port: fleet(app("web", "port=%d" % port, "slow=0", stop_timeout_secs=2, env={"X": "1"}), host="127.0.0.1", port=port)
    w = warp(text(a).replace('"slow=0"', '"term=ignore"'))
    wait_state(w, "up")
    with asked(w, "restart", "web") as p:
        wait_state(w, "stopping")
        reload(w, text(b))
        assert p.wait(15) is not None
        eventually(lambda: w.ask().status == 200)


@pytest.mark.limit(60)
@pytest.mark.parametrize("word", ["restart", "start"])
def test_upgrade_although_a_verb_waits(warp, binary, word):
    """One that waits for a dependency that failed does not keep the new binary away for ever."""
    w = warp(fleet(app("web", PORT), {"dep": sh("exit 1", oneshot=True, restart="never"),
                   "job": sh("exec sleep 1000", depends_on=["dep"], ready_timeout_secs=1, stop_timeout_secs=1)}, server={"shutdown_timeout_secs": 1}))
    wait_state(w, "up")
    wait_state(w, "waiting", "job")
    with asked(w, word, "job"):
        time.sleep(0.5)
        upgrade(w)


@pytest.mark.limit(60)
@pytest.mark.parametrize("ready", ["listen", "health", "exec"])
def test_the_new_one_is_checked_before_it_takes_over(warp, ready):
    """Blue/green: it accepts, but its checks fail. The old one serves until they pass; if they do not it goes on."""
    w = warp(fleet(app("web", PORT, ready=ready, ready_timeout_secs=4),
                   health={"path": "/health", "interval_secs": 0.2, "healthy_threshold": 1, "unhealthy_threshold": 100000}))
    first = wait_state(w, "up")["pid"]
    eventually(lambda: instances(w)[0]["state"] == "up", "its checks pass")
    with Load(w.port) as load:
        load.more()
        touch(w, "sick")
        p = verb(w, "restart", "web", ok=False)
        assert "503" in p.stderr and "the old one goes on" in p.stderr, p.stderr
        load.more()
        assert proc(w)["pid"] == first and instances(w)[0]["health"]["state"] == "up"
        with asked(w, "restart", "web"):
            eventually(lambda: len(journal(w, "listen")) == 3, "the third accepts")
            load.more(100)
            assert set(b.split()[1] for b in load.bodies) == {str(first)}
            remove(w, "sick")
            eventually(lambda: len(load.bodies) == 2, "the new one serves")
        load.more()
    gone([first])
    assert proc(w)["pid"] != first and instances(w)[0]["state"] == "up"


@pytest.mark.limit(60)
def test_reload_takes_the_choice_of_place_away_while_the_new_one_waits(warp):
    """Blue/green under way, and then the port is said: old and new cannot stand beside each other any more."""
    port = free_port()
    text = lambda word: fleet(app("web", word, "bind_if=go"), host="127.0.0.1", port=port)
    w = warp(text(PORT))
    touch(w, "go")
    first = wait_state(w, "up")["pid"]
    remove(w, "go")
    with asked(w, "restart", "web"):
        eventually(lambda: len(journal(w, "start")) == 2, "the new one starts")
        reload(w, text("port=%d" % port))
        touch(w, "go")
        eventually(lambda: running(w) != [first], "it was restarted", 30 * SLOW)
    assert w.ask().status == 200


@pytest.mark.limit(60)
def test_reload_takes_the_checks_away_while_the_new_one_waits(warp):
    """Blue/green under way: what it waits for is not asked for any more."""
    text = lambda **k: fleet(app("web", PORT, ready_timeout_secs=10), **k)
    w = warp(text(health={"path": "/health", "interval_secs": 0.2, "healthy_threshold": 1, "unhealthy_threshold": 100000}))
    first = wait_state(w, "up")["pid"]
    eventually(lambda: instances(w)[0]["state"] == "up", "its checks pass")
    touch(w, "sick")
    with asked(w, "restart", "web") as p:
        eventually(lambda: len(journal(w, "listen")) == 2, "the new one accepts")
        time.sleep(0.5)
        reload(w, text())
        assert p.communicate(timeout=8 * SLOW)[0] == "ok\n"
    assert running(w) != [first]


@pytest.mark.limit(60)
def test_reload_adds_a_replica_while_the_new_one_waits(warp):
    """Blue/green under way, and then there are two: the first is restarted all the same, and the verb waits for that."""
    text = lambda n: fleet(app("web", PORT, "bind_if=go", replicas=n))
    w = warp(text(1))
    touch(w, "go")
    first = wait_state(w, "up")["pid"]
    remove(w, "go")
    with asked(w, "restart", "web") as p:
        eventually(lambda: len(journal(w, "start")) == 2, "the new one starts")
        reload(w, text(2))
        time.sleep(0.5)
        touch(w, "go")
        assert p.communicate(timeout=30 * SLOW)[0] == "ok\n"
        assert not alive(first), "it was restarted"
    assert len(running(w)) == 2


def test_verb_for_a_oneshot_that_cannot_start(warp):
    """It waits for the end of what runs, not for what never comes to run."""
    w = warp(fleet(None, {"dep": sh("exec sleep 1000"), "job": sh("true", oneshot=True, ready_timeout_secs=1, stop_timeout_secs=0.1, depends_on=["dep"])},
                   server={"shutdown_timeout_secs": 0.1}))
    wait_state(w, "done", "job")
    verb(w, "stop", "dep")
    with asked(w, "start", "job") as p:
        assert "waits for dep" in p.communicate(timeout=10)[1]


@pytest.mark.parametrize("word", ["restart", "start"])
def test_verb_for_a_oneshot_waits_for_its_end(warp, word):
    """However long a migration takes: ready_timeout_secs is not for it."""
    w = warp(fleet(None, {"job": sh("echo x >>ran; [ $(wc -l <ran) = 1 ] || sleep 2", oneshot=True, ready_timeout_secs=0.1,
                                    stop_timeout_secs=0.1)}, server={"shutdown_timeout_secs": 0.1}))
    wait_state(w, "done", "job")
    assert verb(w, word, "job").stdout == "ok\n"
    assert proc(w, "job")["state"] == "done" and "after 2." in proc(w, "job")["why"]


@pytest.mark.limit(40)
@pytest.mark.parametrize("what", ["goes", "moves"])
def test_reload_while_the_new_one_waits(warp, what):
    """Blue/green: the new one waits for a dependency when a reload takes the process away, or elsewhere."""
    a, b = free_port(), free_port()
    text = lambda port: fleet(port and app("web", PORT, depends_on=["dep"]), {"dep": sh("exec sleep 1000")}, **({"host": "127.0.0.1", "port": port} if port else {}))
    w = warp(text(a))
    wait_state(w, "up")
    verb(w, "stop", "dep")
    with asked(w, "restart", "web"):
        eventually(lambda: "waiting" in [p["state"] for p in lib.Client(w.path("admin")).ask("/status").json["processes"]])
        reload(w, text(b if what == "moves" else None))
        stays(w, 0.5)
        with asked(w, "start", "dep"):
            stays(w, 1)
            if what == "moves":
                eventually(lambda: w.ask().status == 200)
                time.sleep(0.5)
                names = [p["name"] for p in lib.Client(w.path("admin")).ask("/status").json["processes"]]
                assert sorted(names) == ["dep", "web"], names


@pytest.mark.limit(40)
def test_upgrade_keeps_what_was_stopped_stopped(warp, binary):
    w = warp(fleet(app("web", PORT), {"off": sh("exec sleep 1000")}))
    wait_state(w, "up")
    wait_state(w, "up", "off")
    verb(w, "stop", "off")
    reload(w)
    assert proc(w, "off")["state"] == "off"
    upgrade(w)
    assert proc(w, "off")["state"] == "off"


@root_only
def test_tight_umask(warp):
    """The directories on the way to its socket can be passed all the same."""
    w = warp(fleet(app("web", SOCKET, "journal=/dev/null", user="daemon", dir="/"), server={"user": "nobody"}, hold_secs=1),
             preexec_fn=lambda: os.umask(0o077))
    wait_state(w, "up")
    assert w.ask().status == 200


@root_only
def test_no_place_for_its_socket(warp):
    """The second try is no better than the first: it is not started without a place."""
    w = warp(fleet(app("web", SOCKET, "<{socket}>:x", start_on="request"), hold_secs=1))
    os.makedirs("/run/warp/%d" % w.pid, 0o755, exist_ok=True)
    path = "/run/warp/%d/web" % w.pid
    with open(path, "w"):
        pass
    try:
        assert w.ask().status == 503
        w.wait_stderr("for its socket")
        time.sleep(0.5)
        assert not journal(w, "start"), w.stderr[-1000:]
    finally:
        os.unlink(path)
    eventually(lambda: w.ask().status == 200)


def test_chain_on_request(warp):
    """c needs b needs a, all asleep: one request wakes them."""
    w = warp(conf({"a": {"process": app("a", PORT, start_on="request")},
                   "b": {"process": app("b", PORT, start_on="request", depends_on=["a"])},
                   "c": {"process": app("c", PORT, start_on="request", depends_on=["b"])}}))
    t = time.monotonic()
    assert w.ask("/c/").status == 200
    assert time.monotonic() - t < TIMEOUT, "three starts, none of them waits for a deadline"


@pytest.mark.limit(40)
@pytest.mark.parametrize("was", ["asleep", "awake", "idle"])
def test_stopped_one_is_not_woken_by_requests(warp, binary, was):
    """It stays stopped, over a reload and an upgrade too, and nobody waits for it, until it is started or restarted."""
    text = fleet(app("web", PORT, start_on="request", idle_stop_secs=1 if was == "idle" else 0), hold_secs=30)
    w = warp(text)
    if was != "asleep":
        assert w.ask().status == 200
    if was == "idle":
        wait_state(w, "off")
    verb(w, "stop", "web")
    for change in (None, reload, upgrade):
        if change:
            change(w)
        assert w.ask().status == 503
        assert proc(w)["state"] == "off"
    verb(w, "restart" if was == "awake" else "start", "web")
    wait_state(w, "up")
    assert w.ask().status == 200


def test_dependency_does_not_fall_asleep(warp):
    """It is idle by itself, but one that runs depends on it."""
    w = warp(conf({"dep": {"process": app("dep", PORT, start_on="request", idle_stop_secs=0.7)},
                   "web": {"process": app("web", PORT, depends_on=["dep"], start_on="request")}}))
    assert w.ask("/web/").status == 200
    time.sleep(1.5)
    assert proc(w, "dep")["state"] == "up"


# ---- reload -------------------------------------------------------------------------

@pytest.mark.parametrize("was", ["asleep", "awake"])
def test_reload_from_request_to_boot(warp, was):
    w = warp(fleet(app("web", PORT, start_on="request", idle_stop_secs=2), hold_secs=2))
    if was == "awake":
        assert w.ask().status == 200
        wait_state(w, "up")
    reload(w, fleet(app("web", PORT), hold_secs=2))
    wait_state(w, "up")
    time.sleep(2.5)
    assert proc(w)["state"] == "up" and w.ask().status == 200, proc(w)


def test_reload_gives_it_an_idle_stop(warp):
    w = warp(fleet(app("web", PORT)))
    wait_state(w, "up")
    reload(w, fleet(app("web", PORT, start_on="request", idle_stop_secs=1)))
    eventually(lambda: proc(w)["state"] == "off", "it falls asleep")


@pytest.mark.limit(40)
def test_reload_gives_a_failing_one_an_address(warp):
    port = free_port()
    w = warp(fleet(sh("exit 1"), hold_secs=0.2))
    wait_state(w, "backoff")
    reload(w, fleet(app("web", "port=%d" % port), hold_secs=0.2, host="127.0.0.1", port=port))
    wait_state(w, "up")
    assert w.ask().status == 200


@pytest.mark.limit(40)
def test_reload_from_port_to_socket(warp):
    w = warp(fleet(app("web", PORT, replicas=2)))
    running(w)
    before = running(w)
    reload(w, fleet(app("web", SOCKET, replicas=2)))
    eventually(lambda: len([e for e in journal(w, "listen")]) >= 4, "both listen anew", 2 * TIMEOUT)
    assert not set(running(w)) & set(before)
    assert w.ask().status == 200


def test_reload_moves_the_log(warp):
    w = warp(fleet(app("web", PORT)))
    wait_state(w, "up")
    reload(w, fleet(app("web", PORT, log="@DIR@/web.log")))
    w.ask("/say?elsewhere")
    eventually(lambda: os.path.exists(w.path("web.log")) and "elsewhere" in open(w.path("web.log")).read(), "the new log")


# ---- users --------------------------------------------------------------------------

@root_only
@pytest.mark.limit(40)
def test_reload_changes_the_user_of_a_chosen_socket(warp):
    w = warp(fleet(app("web", SOCKET, "journal=/dev/null", user="nobody", dir="/"), hold_secs=1))
    wait_state(w, "up")
    reload(w, fleet(app("web", SOCKET, "journal=/dev/null", user="daemon", dir="/"), hold_secs=1))
    eventually(lambda: w.ask("/info").json["uid"] == pwd.getpwnam("daemon").pw_uid, "it runs as daemon", 10)


@root_only
@pytest.mark.limit(40)
@pytest.mark.parametrize("ready", ["listen", "health"])
def test_socket_of_another_user(warp, ready):
    """Workers who are somebody else reach it, also to check it."""
    w = warp(fleet(app("web", SOCKET, "journal=/dev/null", user="daemon", dir="/", ready=ready, ready_timeout_secs=5 * SLOW),
                   server={"user": "nobody"}, health={"path": "/health", "interval_secs": 0.2, "healthy_threshold": 1}))
    wait_state(w, "up")
    eventually(lambda: w.ask().status == 200)


# ---- addresses ----------------------------------------------------------------------

LISTEN_AT = """
import socket, sys, time, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        b = b'%d' % __import__('os').getpid()
        self.send_response(200); self.send_header('Content-Length', str(len(b))); self.end_headers(); self.wfile.write(b)
class S(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
S((sys.argv[1], int(sys.argv[2])), H).serve_forever()
"""


@pytest.mark.limit(60)
@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_restart_of_one_at_another_address(warp, host):
    """It listens at the address that the configuration says, on another port."""
    w = warp(fleet({"command": sys.executable, "args": ["-SE", "-c", LISTEN_AT, host, "{port}"], "ready_timeout_secs": 4 * SLOW}, host=host, port=free_port()))
    pid = wait_state(w, "up")["pid"]
    verb(w, "restart", "web")
    assert int(w.ask().text) == proc(w)["pid"] != pid


def test_killed_while_the_old_one_finishes(warp):
    """The new one was beside the old, who still has the configured port: it comes back where it was, at once."""
    w = warp(fleet(app("web", PORT), host="127.0.0.1", port=free_port()))
    old = wait_state(w, "up")["pid"]
    with in_flight(w, "/wait") as got:
        verb(w, "restart", "web")
        new = proc(w)["pid"]
        os.kill(new, signal.SIGKILL)
        pid = int(w.ask().text.split()[1])
        assert pid not in (old, new) and not re.search("another program", w.stderr), w.stderr
    assert got and got[0].status == 200
    gone([old])


def test_a_stranger_at_its_port(warp, backend):
    """Who answers there is not the process: it is not ready."""
    b = backend()
    w = warp(fleet(app("web", PORT), host="127.0.0.1", port=b.port, hold_secs=0.3))
    time.sleep(1)
    assert not re.search(r"process web is ready", w.stderr), w.stderr


# ---- limits, leaks, signals --------------------------------------------------------

def fds(w):
    return len(os.listdir("/proc/%d/fd" % w.pid))


def test_log_is_a_fifo(warp, tmp_path):
    """Nobody reads it."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    w = warp(fleet(app("web", PORT), {"odd": sh("while :; do echo x; sleep 0.01; done", log=path)}))
    wait_state(w, "up")


def test_log_is_a_full_pipe(warp, tmp_path):
    """/dev/stdout is a pipe that nobody empties."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    r = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    w = warp(fleet(app("web", PORT), {"odd": sh("exec yes", log=path)}))
    wait_state(w, "up", "odd")
    time.sleep(1)
    pid = proc(w)["pid"]
    kill(pid)
    eventually(lambda: w.ask().status == 200)
    try:
        eventually(lambda: proc(w)["pid"] not in (0, pid))
    finally:
        os.close(r)


def test_dev_full(warp):
    w = warp(fleet(app("web", PORT, log="/dev/full")))
    wait_state(w, "up")
    for i in range(20):
        w.ask("/say?hello")
    assert w.ask().status == 200
    w.signal(signal.SIGUSR1)
    w.ask()

@pytest.mark.parametrize("sigs", [(15, 15), (3, 15), (1, 15), (12, 15), (3, 3, 15), (2, 3, 1, 12, 10, 15)])

def test_signals(warp, binary, sigs):
    w = warp(fleet(app("web", PORT), {"o": sh("trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.05; done")}))
    for s in sigs:
        w.signal(s)
        time.sleep(0.02)
    w.stop()

@pytest.mark.parametrize("when", [0, 0.005, 0.02, 0.05, 0.1])

def test_term_during_start(warp, when):
    w = warp(fleet(app("web", PORT), {"a": sh("sleep 0.2", oneshot=True)}), ready=False)
    lib.eventually(lambda: "SigCgt" in open("/proc/%d/status" % w.pid).read())
    time.sleep(0.1 + when)
    w.signal(15)
    w.proc.wait(10)
    w.stopped = True

@pytest.mark.limit(90)

def test_upgrades_leak_nothing(warp, binary):
    w = warp(fleet(app("web", SOCKET), {"crash": sh("sleep 0.05; exit 1"), "q": sh("exec sleep 1000")}))
    wait_state(w, "up")
    upgrade(w)
    time.sleep(0.5)
    n = fds(w)
    for i in range(6):
        upgrade(w)
    eventually(lambda: fds(w) <= n + 1, "%d as before" % n)     # a few more while the one that crashes runs
    info = w.ask("/info").json
    assert info["fds"][:3] == [0, 1, 2]
    verb(w, "restart", "web")
    info = w.ask("/info").json
    assert len(info["fds"]) <= 8, info["fds"]


@root_only
def test_nproc(warp, everybodys_dir, monkeypatch):
    """Non-root with no room for processes."""
    def pre():
        os.setgid(65534)
        os.setuid(65534)
    monkeypatch.setattr(lib, "WARP", lib.for_everybody(lib.WARP))
    w = warp(fleet(app("web", PORT, "journal=/dev/null", dir="/"), hold_secs=0.3), dir=everybodys_dir, preexec_fn=pre)
    wait_state(w, "up")
    lim = lambda n: subprocess.run(["prlimit", "--pid", str(w.pid), "--nproc=%d:1000" % n], user=65534, group=65534, extra_groups=[], check=True);
    lim(1)
    kill(proc(w)["pid"])
    w.wait_stderr("fork|cannot", 3 * TIMEOUT)
    time.sleep(1)
    lim(1000)
    eventually(lambda: w.ask().status == 200)


def test_emfile(warp):
    w = warp(fleet(app("web", PORT), hold_secs=0.3))
    wait_state(w, "up")
    n = fds(w)
    resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (n - 1, 4096))
    kill(proc(w)["pid"])
    time.sleep(1)
    resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (1024, 4096))
    eventually(lambda: w.ask().status == 200)


@pytest.mark.limit(60)

def test_many_orphans(warp):
    """More than fit in one read."""
    w = warp(fleet(None, {"odd": sh("for i in $(seq 14); do setsid sh -c 'for n in $(seq 50); do sleep 900 </dev/null >/dev/null 2>&1 & "
                                    "echo $! >>kids; done'; done; touch done; exec sleep 1000")}))
    eventually(lambda: os.path.exists(w.path("done")), "", 30)
    with open(w.path("kids")) as f:
        kids = [int(k) for k in f.read().split()]
    assert len(kids) > 600
    try:
        w.stop(timeout=15)
        time.sleep(0.2)
        assert not [k for k in kids if alive(k)]
    finally:
        for k in kids:
            if alive(k) and os.path.exists("/proc/%d/cmdline" % k) and b"sleep\0900" in open("/proc/%d/cmdline" % k, "rb").read():
                kill(k)


def test_kill9_master(warp):
    w = warp(fleet(app("web", PORT, replicas=2), {"o": sh("exec sleep 1000")}))
    running(w)
    kids = w.children()
    os.kill(w.pid, 9)
    w.proc.wait(5)
    w.stopped = True
    gone(kids)


def test_stopped_child(warp):
    w = warp(fleet(app("web", PORT, stop_timeout_secs=1)))
    pid = wait_state(w, "up")["pid"]
    lib.freeze(pid)
    verb(w, "stop", "web")
    assert not alive(pid)


@pytest.mark.limit(60)
@pytest.mark.parametrize("n", range(3))

def test_chaos(warp, binary, n):
    """Random verbs, reloads, upgrades, kills; no sanitizer may speak, all is well in the end."""
    r = random.Random(n)
    def text():
        ups = {"web": {"process": app("web", r.choice([PORT, SOCKET]), "journal=/dev/null", replicas=r.choice([1, 1, 2]), env={"V": str(r.randrange(3))})},
               "dem": {"process": app("dem", PORT, "journal=/dev/null", start_on=r.choice(["request", "boot"]))}}
        if r.random() < 0.3: del ups["dem"]
        ps = {"dep": sh(r.choice(["exec sleep 1000", "sleep 0.2; exit 1", "trap '' TERM; while :; do sleep 0.05; done"]), stop_timeout_secs=0.3), "one": sh("sleep 0.2; exit %d" % r.randrange(2), oneshot=True)}
        if r.random() < 0.5: ups["web"]["process"]["depends_on"] = ["dep"]
        if r.random() < 0.3: ups["web"]["process"]["ready_timeout_secs"] = 0.05
        if r.random() < 0.2: ups["web"].update(host="127.0.0.1", port=free_port()); ups["web"]["process"]["args"][3] = PORT; ups["web"]["process"]["replicas"] = 1
        return conf(ups, ps, {"shutdown_timeout_secs": 1})
    w = warp(text())
    end = time.monotonic() + float(os.environ.get("CHAOS", 5))
    ps = []
    while time.monotonic() < end:
        assert w.proc.poll() is None, w.stderr[-3000:]
        what = r.randrange(10)
        if what < 3: w.write(text()); w.signal(signal.SIGHUP)
        elif what < 7: ps.append(subprocess.Popen([lib.WARP, "-s", r.choice(["restart", "start", "stop"]), r.choice(["web", "dem", "dep", "one"]), "-c", w.file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        elif what == 7: w.signal(signal.SIGUSR2)
        elif what == 8:
            kids = w.children()
            if kids:
                with contextlib.suppress(ProcessLookupError): os.kill(r.choice(kids), r.choice([9, 15]))
        else:
            with contextlib.suppress(Exception): w.ask("/dem/", timeout=0.3)
        time.sleep(r.random() * 0.3)
        while len([p for p in ps if p.poll() is None]) > 6:
            next(p for p in ps if p.poll() is None).kill(); time.sleep(0.02)
    for p in ps:
        if p.poll() is None: p.kill()
        p.wait()
    w.write(conf({"web": {"process": app("web", PORT, "journal=/dev/null", env={"V": "last"})}}, {"dep": sh("exec sleep 1000")}, {"shutdown_timeout_secs": 1}))
    w.signal(signal.SIGHUP)
    time.sleep(3)
    with asked(w, "start", "web"):
        eventually(lambda: w.ask("/web/").status == 200, "serves: " + w.stderr[-1500:], 15)
    eventually(lambda: sorted(procs(w)) in (["dep", "web"],), "procs %s" % procs(w).keys(), 15)


# ---- wrap ---------------------------------------------------------------------------

@pytest.mark.parametrize("command, want", [("nosuchcommand", 127), ("/etc/passwd", 126)])
def test_wrap_of_what_cannot_be_run(run, command, want):
    p = run("-l", "127.0.0.1:%d" % free_port(), "--", command, timeout=10)
    assert p.returncode == want
