"""Faults of the fleet that a review found: each test fails until its fault is mended, and keeps it mended."""
import json
import os
import signal
import socket
import sys
import threading
import time

import pytest

from lib import (REQ, RST, SLOW, TIMEOUT, WAIT, Backend, Client, conf, eventually, free_port, reply, request, run_warp,
                 toml_file)
from test_hold import Crowd, held, settled, status, wait
from test_log_admin import SOCK, admin_of, lines

PONG = {"path_prefix": "/pong", "respond": {"status": 200, "body": "pong"}}


def test_metrics_of_twins_have_labels_of_their_own(warp, backend):
    """Two samples with the same labels: Prometheus refuses the whole scrape."""
    b = backend()
    w = warp(toml_file(conf(app=[b, b], admin={"listen": [SOCK]})))
    text = admin_of(w).ask("/metrics").text
    names = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and line[0] != "#"]
    twice = sorted({n for n in names if names.count(n) > 1})
    assert not twice, twice


def test_status_is_utf8_whatever_a_process_says(warp):
    script = ("import os,time;os.write(1,b'\\xff\\xfe bad \\xc3\\n');os.write(1,b'x'*158+'\\u00e9'.encode()*10+b'\\n');"
              "os.write(1,b'\\xed\\xa0\\x80 surrogate\\n\\x00nul\\n\\x1b[31mred\\n');time.sleep(60)")
    w = warp(toml_file({"admin": {"listen": [SOCK]}}) + "[processes.noisy]\ncommand = %s\nargs = %s\nready = \"exec\"\n"
             % (json.dumps(sys.executable), json.dumps(["-c", script])))
    def said():
        m = admin_of(w).ask("/status")
        s = json.loads(m.body.decode("utf-8"))
        return s if len(s["processes"][0]["lines"]) >= 5 else None
    eventually(said)
    admin_of(w).ask("/status?format=text").body.decode("utf-8")
    admin_of(w).ask("/metrics").body.decode("utf-8")


def test_a_held_request_never_moves_to_another_upstream(warp, backend):
    """Two reloads later a worker still drains: the record of its instance is nobody else's."""
    away, other = free_port(), backend(name="other")
    w = warp(held(away, hold=60, server={"shutdown_timeout_secs": 60}))
    c, = wait(w, request("/secret"))
    for i, port in enumerate((free_port(), other.port)):
        w.write(toml_file(conf(PONG, {"path_prefix": "/"}, **{"n%d" % i: {"host": "127.0.0.1", "port": port}},
                               admin={"listen": [SOCK]}, server={"shutdown_timeout_secs": 60})))
        w.signal(signal.SIGHUP)
        w.wait_stderr("reloaded, generation %d" % (i + 2))
    time.sleep(1)
    assert [m.target for m in other.requests] == []
    assert c.is_open()


def test_half_closed_client_costs_nothing(warp, backend):
    """A client that closes without a reset while it waits: its request is not sent any more."""
    port = free_port()
    w = warp(held(port))
    for c in wait(w, *[request("/gone")] * 3):
        c.close()
    time.sleep(0.5)
    b = backend(port=port)
    assert w.ask("/now").text == "app GET /now 0"
    time.sleep(0.5)
    assert [m.target for m in b.requests] == ["/now"]


@pytest.mark.limit(60)
def test_places_are_shared_by_workers(warp, backend):
    """Two workers and one place: who waits at the worker that has not got it is served too, not starved."""
    served, failed, slow = [], [], []
    def step(c):
        while True:
            m = c.request()
            time.sleep(0.01)
            c.send(reply("ok"))
    b = backend([step])
    w = warp(held(b.port, hold=0, instance={"max_connections": 1}, server={"worker_threads": 2}, connect_timeout_secs=2))
    end = time.monotonic() + 8
    def one(k):
        c = w.client()
        while time.monotonic() < end:
            t = time.monotonic()
            m = c.ask("/%d" % k)
            slow.append(time.monotonic() - t)
            (served if m.status == 200 else failed).append(k)
    ts = [threading.Thread(target=one, args=(k,)) for k in range(8)]
    for t in ts: t.start()
    for t in ts: t.join()
    by = sorted(served.count(k) for k in range(8))
    print("served by client", by, "failed", len(failed), "slowest", max(slow))
    assert not failed and by[0] > by[-1] / 10, (by, len(failed), max(slow))


def test_breaker_counts_failures_in_its_time(warp, backend):
    """CONFIG.md: this many failures in this time open it. An instance that fails every second request is left out."""
    turn = [0]
    def flaky(c):
        c.request()
        turn[0] += 1
        return reply("flaky") if turn[0] % 2 else RST(c)
    a, b = backend([flaky]), backend(name="b")
    w = warp(toml_file(conf(app={"on": [a, b], "max_fails": 3, "fail_timeout_secs": 60, "keepalive": 0, "retries": 1},
                            admin={"listen": [SOCK]})))
    for _ in range(60):
        assert w.ask().status == 200
    i = admin_of(w).status()["upstreams"][0]["instances"][0]
    assert i["failures"] <= 3 and i["state"] == "failing", (i["failures"], i["state"])


def test_one_restart_does_not_shorten_idle_lives_for_ever(warp, backend):
    """A backend that was stopped once with a single idle connection is not one that closes after 0.6 s."""
    n = [0]
    def step(c):
        n[0] += 1
        first = n[0] == 1
        c.request()
        c.send(reply("ok"))
        if first:
            time.sleep(0.7)
            c.sock.close()
            return
        while True:
            c.request()
            c.send(reply("ok"))
    b = backend([step])
    w = warp(toml_file(conf(app=b, admin={"listen": [SOCK]})))
    w.ask()
    time.sleep(1)
    for _ in range(4):
        w.ask()
        time.sleep(0.8)
    assert len(b.conns) <= 3, (len(b.conns), admin_of(w).status()["upstreams"][0]["instances"][0]["idle_life_ms"])


def test_trial_that_its_client_aborts(warp, backend):
    port, gate = free_port(), threading.Event()
    b = backend(name="b")
    w = warp(toml_file(conf(app={"instances": [{"host": "127.0.0.1", "port": port}, b.conf], "max_fails": 1,
        "fail_timeout_secs": 0.5, "retries": 1}, server={"worker_threads": 2}, admin={"listen": [SOCK]})))
    for _ in range(2):
        assert w.ask().text[0] == "b"
    a = backend([REQ, WAIT(gate), reply("a x")], name="a", port=port)
    clients = []
    def asked():
        clients.append(w.client().send(request()))
        return a.requests
    eventually(asked, "the trial")
    for c in clients:
        c.rst()
    gate.set()
    eventually(lambda: w.ask().text[0] == "a", "it comes back")
    eventually(lambda: status(w)[1] == 0)


def test_hash_is_stable(warp, backend):
    """Over a restart, in each worker, and over a reload that adds an instance only its clients move."""
    bs = [backend(name=n) for n in "abcd"]
    def cf(k, workers):
        return toml_file(conf(app={"strategy": "header_hash", "hash_header": "X-K", "on": bs[:k]},
                              server={"worker_threads": workers}, admin={"listen": [SOCK]}))
    def who(w):
        return "".join(w.ask("/", "X-K: %d" % i).text[0] for i in range(60))
    w = warp(cf(3, 3))
    one = who(w)
    assert who(w) == one
    w.stop()
    w2 = warp(cf(3, 1))
    assert who(w2) == one
    w2.write(cf(4, 2))
    w2.signal(signal.SIGHUP)
    w2.wait_stderr("reloaded")
    time.sleep(0.3)
    new = who(w2)
    assert all(x == y or y == "d" for x, y in zip(one, new)) and "d" in new


@pytest.mark.limit(60)
@pytest.mark.parametrize("how", ["held", "busy"])
def test_no_descriptors_left(warp, backend, how):
    """Out of descriptors: 503 at once, nothing leaks, and it goes on when there are some again."""
    import resource
    port = free_port()
    cf = held(port, hold=0 if how == "busy" else 20, instance={"max_connections": 0}, keepalive=0, server={"max_connections": 200})
    w = warp(cf, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)))
    gate = threading.Event()
    def slow(c):
        c.request()
        gate.wait(30)
        c.send(reply("ok"))
    b = backend([slow], port=port) if how == "busy" else None
    cs = [w.client().send(request("/%d" % i)) for i in range(36)]
    time.sleep(1)
    if not b:
        b = backend([slow], port=port)
    time.sleep(1)
    gate.set()
    got = []
    for c in cs:
        try:
            got.append(c.response(timeout=10).status)
        except (EOFError, OSError) as e:
            got.append(repr(e))
        c.close()
    assert set(got) <= {200, 503} and 200 in got, got
    eventually(lambda: w.ask("/now").status == 200)
    eventually(lambda: status(w)[1] == 0)


def test_retry_after_hold_never_repeats_a_post(warp, backend):
    """Held, then lost in every way: the bytes of one POST reach backends once."""
    port, port2 = free_port(), free_port()
    w = warp(held(0, instances=[{"host": "127.0.0.1", "port": p} for p in (port, port2)], retries=5, hold=3, keepalive=0,
                  server={"worker_threads": 2}))
    cs = [w.client().send(request("/%d" % i, method="POST", body=b"x" * (i * 1000))) for i in range(20)]
    seen, lock = {}, threading.Lock()
    def odd(c):
        m = c.begin()
        with lock:
            seen[m.target] = seen.get(m.target, 0) + 1
            k = sum(seen.values())
        if k % 3 == 0:
            return RST(c)
        if k % 3 == 1:
            c.sock.close()
            return
        c.finish()
        c.send(reply("ok"))
    a, b = backend([odd], port=port), backend([odd], port=port2)
    for c in cs:
        try:
            c.response("POST", timeout=20)
        except (EOFError, OSError):
            pass
    assert max(seen.values()) == 1, seen
    eventually(lambda: status(w)[1] == 0)


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_error_page_is_whole_whatever_processes_said(warp, accept):
    what = "\\x22" if "json" in accept else "<"
    script = "import sys;sys.stderr.write('%s' * 158 + '\\n');sys.exit(3)" % what
    w = warp('[server]\nshow_errors = true\n[admin]\nlisten = ["@DIR@/admin.sock"]\n[upstreams.app]\nhold_secs = 0\n'
             '[upstreams.app.process]\ncommand = %s\nargs = %s\nreplicas = 20\nrestart = "never"\n'
             '[[routes]]\npath_prefix = "/"\nupstream = "app"\n' % (json.dumps(sys.executable), json.dumps(["-c", script])))
    eventually(lambda: all(p["lines"] and p["state"] in ("failed", "done", "off") for p in admin_of(w).status()["processes"]))
    m = w.ask("/", "Accept: " + accept)
    assert m.status in (502, 503)
    if accept == "application/json":
        assert json.loads(m.body)["status"] == m.status
    else:
        assert m.text.rstrip().endswith("</p>"), m.text[-80:]


@pytest.mark.limit(60)
def test_one_that_still_connects_does_not_hold_up_the_rest(warp, backend, blackhole):
    """Held once, then sent toward an instance that drops packets: who comes later goes to the other one at once."""
    port = free_port()
    w = warp(held(0, instances=[{"host": "127.0.0.1", "port": port}, blackhole.conf], hold=30, connect_timeout_secs=4,
                  max_fails=3, retries=0))
    first = [w.client().send(request("/first%d" % i)) for i in range(4)]
    time.sleep(5)                                           # refused here, late there: all are held
    backend(port=port)
    eventually(lambda: any(not c.is_open(0) for c in first), "one that was held is answered")
    late = []
    for _ in range(40):
        t = time.monotonic()
        with w.client() as c:
            c.send(request("/later"))
            try:
                c.response(timeout=0.5)
                late.append(time.monotonic() - t)
            except TimeoutError:
                pass                                       # this one met the blackhole itself
    late.sort()
    print(["%.3f" % x for x in late])
    assert late and late[len(late) // 2] < 0.03, (len(late), late[len(late) // 2])
