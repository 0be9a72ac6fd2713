#!/usr/bin/python3
"""The fleet in figures: fleet.py [--quick]

    WARP=../../warp ./fleet.py           about two minutes
    ./fleet.py --quick                   a fifth of everything

Errors that clients see (every status but 200, every broken connection, every short body) while
replicas restart one by one, one of three instances is killed, warp reloads and upgrades itself;
time from a death to the next answer; the share each instance gets, for each strategy. The
clients are four threads on kept connections, the program is tests/system/app.py. Exit status 1
if a client saw an error.
"""
import collections
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "system"))
import lib  # noqa: E402
import supervised as sup  # noqa: E402
from lib import Client, eventually  # noqa: E402

QUICK = "--quick" in sys.argv
SCALE = 5 if QUICK else 1
STRATEGIES = ("round_robin", "weighted", "least_conn", "random", "random_two", "ip_hash", "uri_hash", "header_hash",
              "cookie", "least_time", "first")
SLOW_MS = 10           # of the third instance, in the last column
CLIENTS = 4


@contextlib.contextmanager
def running(conf):
    """A warp with that configuration, all of its processes up."""
    with tempfile.TemporaryDirectory(prefix="warp-fleet-") as d:
        w = lib.Warp(conf, (), d)
        try:
            eventually(lambda: all(p["state"] == "up" for p in sup.procs(w).values()), "up", 20 * lib.SLOW)
            yield w
        finally:
            w.stop(timeout=60)


def three(**keys):
    return sup.fleet(sup.app("web", "port={port}", replicas=3, log="null", **keys), server={"worker_threads": 2})


def row(what, load, n, extra=""):
    print("%-52s %7d requests  %d errors%s" % ("%d %s" % (n, what), load.n, len(load.errors), extra), flush=True)
    for e in load.errors[:3]:
        print("    " + e)
    return len(load.errors)


def under_load(w, step, n, requests):
    """step n times, and then until so many requests were answered."""
    load = sup.Load(w.port, threads=CLIENTS)
    for t in load.threads:
        t.start()
    eventually(lambda: load.n > 100 or load.errors, "load", 20)
    for i in range(n):
        step(i)
    eventually(lambda: load.n >= requests or load.errors, "%d requests" % requests, 120)
    load.over.set()
    for t in load.threads:
        t.join(60)
    sup.quiet(w)
    return load


def restarts():
    n = 10 // SCALE
    with running(three()) as w:
        load = under_load(w, lambda i: sup.verb(w, "restart", "web"), n, 10000 // SCALE)
    return row("rolling restarts of three replicas", load, n)


def blue_green():
    n = 10 // SCALE
    with running(sup.fleet(sup.app("web", "socket={socket}", log="null"))) as w:
        load = under_load(w, lambda i: sup.verb(w, "restart", "web"), n, 2000 // SCALE)
    return row("restarts of a single instance, new beside old", load, n)


def kills():
    n = 100 // SCALE
    conf = three(backoff_secs=0.05, backoff_max_secs=0.05)
    with running(conf) as w:
        load = under_load(w, lambda i: sup.kill(sup.running(w)[i % 3]), n, 10000 // SCALE)
    return row("kill -9 of one of three instances", load, n)


def reloads():
    with running(three()) as w:
        def step(i):
            if i == 3:
                sup.upgrade(w)
            else:
                sup.verb(w, "reload")
        load = under_load(w, step, 6, 5000 // SCALE)
        pids = [p["restarts"] for p in sup.procs(w).values()]
    assert pids == [0, 0, 0], "processes stay"
    return row("reloads, one binary upgrade among them", load, 6)


def answered(w):
    """Seconds until a request that is asked for over and over is answered; and how many failed."""
    begin, failed = time.monotonic(), 0
    while True:
        try:
            with Client(w.port) as c:
                m = c.ask("/")
                if m.status == 200:
                    return time.monotonic() - begin, failed
                failed += 1
        except (OSError, EOFError, lib.ProtocolError):
            failed += 1


def deaths(what, victim, conf, pause):
    n = 20 // SCALE
    took, failed = [], 0
    with running(conf) as w:
        for _ in range(n):
            time.sleep(pause)
            pid = eventually(lambda: victim(w), what)
            sup.kill(pid)
            secs, bad = answered(w)
            took.append(1000 * secs)
            failed += bad
    print("%-52s median %.0f ms, largest %.0f ms, %d requests failed" % (
        "death to serving again, %s, %d times" % (what, n), statistics.median(took), max(took), failed), flush=True)
    return failed


def program_start():
    """Milliseconds from exec to the end of a python3 that does nothing: most of what app.py needs to listen."""
    took = []
    for _ in range(20):
        begin = time.monotonic()
        subprocess.run([sys.executable, "-SE", "-c", "pass"], check=True)
        took.append(1000 * (time.monotonic() - begin))
    return statistics.median(took)


def up(w):
    p = sup.proc(w)
    return p["pid"] if p["state"] == "up" and sup.alive(p["pid"]) else None


def dead():
    bad = deaths("a worker", lambda w: next(iter(sup.workers(w)), None), sup.fleet(sup.app("web", "port={port}", log="null")), 1.1)
    bad += deaths("a process (backoff_secs 0.01)", up,
                  sup.fleet(sup.app("web", "port={port}", log="null", backoff_secs=0.01, backoff_max_secs=0.01)), 0.1)
    return bad


def shares():
    """Percent of the requests each of three instances got: equal weights, 5 : 3 : 2, and with a third that is slow."""
    n = 1000 // SCALE
    socks = {i: "@DIR@/s%s" % i for i in "abcd"}
    ups = {}
    for s in STRATEGIES:
        keys = {"strategy": s, **({"hash_header": "X-User"} if s == "header_hash" else {})}
        ups[s + "-equal"] = {**keys, "instances": [{"socket": socks[i]} for i in "abc"]}
        ups[s + "-weights"] = {**keys, "instances": [{"socket": socks[i], "weight": x} for i, x in zip("abc", (5, 3, 2))]}
        ups[s + "-slow"] = {**keys, "instances": [{"socket": socks[i]} for i in "abd"]}
    conf = lib.toml_file({
        "server": {"trusted_proxies": ["127.0.0.1/32"]}, "admin": {"listen": ["@DIR@/admin"]}, "upstreams": ups,
        "processes": {i: sup.app(i, "socket=" + socks[i], *(["slow=%g" % (SLOW_MS / 1000)] if i == "d" else []), log="null")
                      for i in "abcd"},
        "routes": [{"path_prefix": "/%s/" % u, "upstream": u} for u in ups]})
    print("\n%-14s %-18s %-18s %-18s sticks" % ("share of", "weights 1:1:1", "weights 5:3:2", "third %d ms slow" % SLOW_MS))
    with running(conf) as w:
        eventually(lambda: all(os.path.exists(w.path("s" + i)) for i in "abcd"))
        for s in STRATEGIES:
            cells, sticks = [], "-"
            for kind in ("equal", "weights", "slow"):
                got, cookies = share(w, "/%s-%s/" % (s, kind), n)
                total = sum(got.values())
                cells.append(" ".join("%4.1f" % (100 * got[i] / total) for i in ("abd" if kind == "slow" else "abc")))
                if s == "cookie" and kind == "equal":
                    sticks = "%d of %d" % cookies
            print("%-14s %-18s %-18s %-18s %s" % (s, *cells, sticks), flush=True)


def share(w, prefix, n):
    """Answers by the program's name, from clients that all differ; and of the cookies given, how many led back."""
    got, lock, back = collections.Counter(), threading.Lock(), [0, 0]

    def some(seed):
        rnd = random.Random(seed)
        with Client(w.port) as c:
            for i in range(n // CLIENTS):
                ip = "10.%d.%d.%d" % (rnd.randrange(256), rnd.randrange(256), rnd.randrange(256))
                fields = ["X-Forwarded-For: " + ip, "X-User: %d" % rnd.randrange(1 << 30)]
                m = c.ask("%s%d/%d" % (prefix, seed, i), *fields)
                assert m.status == 200, m.text
                with lock:
                    got[m.text.split()[0]] += 1
                if m.has("set-cookie") and i % 10 == 0:
                    again = c.ask(prefix, "Cookie: " + m.get("set-cookie").split(";")[0])
                    with lock:
                        back[0] += again.text == m.text
                        back[1] += 1
    threads = [threading.Thread(target=some, args=(i,)) for i in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return got, tuple(back)


def main():
    bad = restarts() + blue_green() + kills() + reloads() + dead()
    print("%-52s median %.0f ms" % ("    python3 alone, from exec to exit", program_start()))
    shares()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
