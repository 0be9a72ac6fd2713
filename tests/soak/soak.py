#!/usr/bin/python3
"""warp under random faults, and what is left of them: soak.py [MINUTES]  (10)

    WARP=./warp-debug soak.py 0.3     another binary
    SEED=7 soak.py                    the same faults again (their moments differ)
    SOAK_PAUSE=0.01 soak.py           clients that pause so long between requests: others use the machine too

One warp, three upstreams with programs: `rolling` (three replicas, chosen ports), `single` (blue and green,
a socket), `fixed` (one port, checked, held over restarts), and a process that serves nobody;
and around it (around.py) files, a cache with Redis and PostgreSQL, a FastRouter whose nodes come and go, TLS on both
sides, forward_auth, rate_limit that delays, request bodies on the disk, a name for the resolver, a bound of memory.
Clients ask all the time: plain ones, some that leave in the midst of an answer, some that read
slowly, some that send bodies. Meanwhile processes get kill -9 and SIGSTOP, workers are killed,
-s restart is said, the configuration changes, the binary is upgraded; and there are the faults of around.py. Every few
minutes all of that pauses, and the master is killed and started again, or may open nothing for a while.

Then the faults stop, the load stops, and it is counted: requests in flight and held, clients, descriptors of the master
and the workers, their memory, processes, helpers, sockets, what is open at the stores; and after warp's end what it left
behind. An error a good client saw counts as well, unless a worker was killed under it, had no descriptors left or closed
idle clients for a crowd, this program itself stood still (a machine with others on it), or what it asked for could not
be had (a full disk, a name that is none, a guard that says no). Prints a table of faults and the figures; exit status 1
if one of them is bad.
"""
import collections
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("SLOW", "4")        # each wait is an upper bound, and the machine is busy
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "system"))
import acme  # noqa: E402
import around  # noqa: E402
import lib  # noqa: E402
import supervised as sup  # noqa: E402
from lib import Client, ProtocolError, eventually, free_port, request  # noqa: E402

BIG = 300000           # bytes of a body, and of the answer to it
PAUSE = float(os.environ.get("SOAK_PAUSE") or 0)     # seconds between two requests: on a machine that others use too
GROWTH = 4 << 20       # bytes master and workers may have grown by, each
MASTER_SECS = 150      # between two faults of the master
FAULTS = 3             # at one time
STALL = 2              # seconds this program may be late: its clients and servers have timeouts to keep


class Warp(lib.Warp):
    """What it says for hours is in the file stderr; of it is kept here what comes last."""

    def _read_err(self):
        with open(self.path("stderr"), "ab", buffering=0) as f:
            for line in iter(self.proc.stderr.readline, b""):
                f.write(line)
                with self._news:
                    self._err = self._err[-100000:] + line.decode("utf-8", "replace")
                    self._news.notify_all()


class Soak:
    def __init__(self, directory, seed):
        self.dir, self.random = directory, random.Random(seed)
        self.counts = collections.Counter()
        self.errors, self.lock = [], threading.Lock()
        self.faults_over, self.load_over = threading.Event(), threading.Event()
        self.hard = {}                     # until when an error is nobody's fault, by the reason
        self.most = 0                      # bytes that a worker held for clients
        self.conf_lock = threading.Lock()
        self.recent = collections.deque(maxlen=6)       # faults, with their times
        self.gate = threading.Semaphore(FAULTS)         # all of it: no other fault while it is held
        self.generation, self.port, self.http = 0, free_port(), free_port()
        self.born = time.monotonic()
        self.around = around.Around(self, directory)
        self.start()
        if self.around.ca:
            eventually(lambda: acme.served(self.around.https, "acme.example", self.around.ca.root()), "a certificate", 30 * lib.SLOW)

    def start(self):
        self.w = Warp(self.conf(), (), self.dir, env={"SOAK_CLOCK": self.around.clock}, port=self.http)
        self.up()

    def up(self):
        for up in ("rolling", "single", "fixed"):
            eventually(lambda: all(i["state"] == "up" for i in sup.instances(self.w, up)), up + " is up", 20 * lib.SLOW)

    def conf(self):
        """It differs from the last one: by a variable of one process, or by nothing that matters."""
        g = self.generation
        app, common = self.app, {"hold_secs": 20, "read_timeout_secs": 15, "retries": 5}
        return lib.toml_file(self.around.extend({
            "server": {"worker_threads": 2, "keepalive_timeout_secs": 20, "shutdown_timeout_secs": 5},
            "admin": {"listen": ["@DIR@/admin"]},
            "upstreams": {
                "rolling": {"process": app("rolling", "port={port}", replicas=3, env={"G": str(g // 3)}),
                            "strategy": "least_conn", **common},
                "single": {"process": app("single", "socket={socket}", env={"G": str(g // 4)}), **common},
                "fixed": {"instances": [{"host": "127.0.0.1", "port": self.port, "max_connections": 50}],
                          "process": app("fixed", "port={port}"), **common,
                          "health": {"path": "/health", "interval_secs": 0.5, "timeout_secs": 1}}},
            "processes": {"cron": app("cron")},
            "routes": [{"path_prefix": "/rolling", "strip_prefix": True, "upstream": "rolling"},
                       {"path_prefix": "/single", "strip_prefix": True, "upstream": "single"},
                       {"path_prefix": "/fixed", "strip_prefix": True, "upstream": "fixed", "description": "generation %d" % g}]}))

    @staticmethod
    def app(name, *words, **keys):
        return {**sup.app(name, *words, "journal=/dev/null", log="null"), "backoff_secs": 0.05, "backoff_max_secs": 0.3,
                "stop_timeout_secs": 2, **keys}

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n

    def error(self, began, what, *excuses):
        """An error a client saw, unless a worker it may have been at was killed meanwhile, or what excuses name. "never"
        among them: an answer that is not to what was asked."""
        with self.lock:
            reasons = [r for r in ("worker", "master", "descriptors", "crowd", "stalled", *excuses) if began - 1 <= self.hard.get(r, 0) and "never" not in excuses]
            if reasons:
                self.counts["excused: " + reasons[0]] += 1
            else:
                self.counts["errors"] += 1
                self.bad("%.1f s (since %.1f): %s; faults: %s" % (
                    time.monotonic() - self.born, began - self.born, what, ", ".join(self.recent)))

    def bad(self, what):
        """Said at once: who watches need not wait for the end."""
        self.errors.append(what)
        print("soak: seen at %s: %s" % (time.strftime("%T"), what), flush=True)

    def pulse(self):
        """Notices that nothing here ran for a while."""
        while not self.load_over.is_set():
            began = time.monotonic()
            time.sleep(0.1)
            if (late := time.monotonic() - began - 0.1) > STALL:
                self.hard["stalled"] = time.monotonic() + late       # who was in the midst of it has timeouts behind it
                self.count("stalled_seconds", int(late))

    # ---- clients ----

    def plain(self, rnd):
        """Asks on one connection, a hundred times at most."""
        with Client(self.w.port, timeout=60) as c:
            for _ in range(100):
                began = time.monotonic()
                if self.load_over.is_set():
                    return
                try:
                    up = rnd.choice(("rolling", "single", "fixed"))
                    m = c.ask("/%s/" % up, timeout=60)
                    if m.status != 200 or not m.text.startswith(up + " "):
                        self.error(began, "%s: %d %r" % (up, m.status, m.text[:200]))
                    self.count("answers")
                    if "close" in m.tokens("connection"):
                        return
                    time.sleep(PAUSE)
                except (OSError, EOFError, TimeoutError, ProtocolError) as e:
                    self.error(began, repr(e))
                    return

    def bodies(self, rnd):
        """A body and an answer that do not fit into any socket's buffer. POST: 502 is fair when its backend dies."""
        with Client(self.w.port, timeout=60) as c, contextlib.suppress(OSError, EOFError):
            m = c.ask("/rolling/", method="POST", body=b"x" * BIG, timeout=60)
            assert m.status in (200, 502, 503, 504), m
            m = c.ask("/single/big?%d" % BIG, timeout=60)
            assert m.status in (200, 502, 503, 504), m

    def aborts(self, rnd):
        """Leaves: before the request is whole, with it just sent, in the midst of the answer. By a reset where nothing
        is written any more: who only closes may have closed its half, and is owed the answer until read_timeout_secs."""
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            c = Client(self.w.port, timeout=20)
            what = rnd.randrange(4)
            up = rnd.choice(("rolling", "single", "fixed"))
            if what == 0:
                c.send(request("/%s/" % up)[:rnd.randrange(1, 30)])
            elif what == 1:
                c.send(request("/%s/hang" % up))
                time.sleep(rnd.random() * 0.05)
            elif what == 2:
                c.send(request("/%s/big?%d" % (up, 20 * BIG)))
                c.head(20)
            else:
                c.send(request("/%s/" % up, "Content-Length: 100000", method="POST") + b"x" * 1000)
            (c.rst if what == 1 else rnd.choice((c.rst, c.close)))()
            self.count("aborted")

    def slow(self, rnd):
        """Reads a large answer in small sips."""
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            with Client(self.w.port, timeout=20, rcvbuf=4096) as c:
                c.send(request("/%s/big?%d" % (rnd.choice(("rolling", "single")), BIG)))
                while not self.load_over.is_set() and c.fill(20) and len(c.buf) < BIG:
                    time.sleep(0.002)
            self.count("slow")

    def client(self, kind, seed, pause):
        rnd = random.Random(seed)
        while not self.load_over.is_set():
            try:
                kind(rnd)
            except OSError as e:          # connecting: the listener is never away
                self.error(time.monotonic(), repr(e))
            self.load_over.wait(pause)

    # ---- faults ----

    def some_process(self):
        with contextlib.suppress(OSError, EOFError, AssertionError):
            return self.random.choice([p["pid"] for p in sup.procs(self.w).values() if p["pid"]] or [None])

    def kill(self):
        if pid := self.some_process():
            with contextlib.suppress(ProcessLookupError):
                sup.kill(pid, signal.SIGKILL)
                self.count("kills")

    def freeze(self):
        if pid := self.some_process():
            with contextlib.suppress(ProcessLookupError):
                sup.kill(pid, signal.SIGSTOP)
                self.count("freezes")
                time.sleep(self.random.random() * 1.5)
                sup.kill(pid, signal.SIGCONT)

    def restart(self):
        sup.verb(self.w, "restart", self.random.choice(("rolling", "single", "fixed", "cron")), ok=None)
        self.count("restarts")

    def reload(self):
        with self.conf_lock:
            self.generation += 1
            self.w.write(self.conf())
            p = sup.verb(self.w, "reload", ok=None)
        assert p.returncode in (0, 4), p.stderr         # 4: the worker that was asked has been killed
        self.count("reloads")

    def kill_worker(self):
        pids = sup.workers(self.w)
        self.hard["worker"] = float("inf")
        with contextlib.suppress(ProcessLookupError, IndexError):
            sup.kill(self.random.choice(pids))
            self.count("worker_kills")
        self.two_workers()
        self.hard["worker"] = time.monotonic()

    def two_workers(self):
        eventually(lambda: len([x for x in sup.status(self.w)["workers"] if x["state"] == "ready"]) == 2, "two workers", 20 * lib.SLOW)

    def freeze_master(self):
        """Who is served goes on being served."""
        self.w.signal(signal.SIGSTOP)
        self.count("master_frozen")
        time.sleep(self.random.random() * 1.5)
        self.w.signal(signal.SIGCONT)

    def kill_master(self):
        """Nothing of it goes on without it, and the next one is not disturbed by what it left."""
        self.hard["master"] = float("inf")
        self.w.signal(signal.SIGKILL)
        self.w.wait(20 * lib.SLOW)
        eventually(lambda: not ours(self.dir), "what the killed master started ends", 20 * lib.SLOW)
        self.start()
        self.hard["master"] = time.monotonic()
        self.count("master_kills")

    def full_master(self):
        """It may open no descriptor more, or one, while a program and a worker end, it is told to reload, and to be upgraded."""
        limit, pid = resource.RLIMIT_NOFILE, self.w.pid
        was = resource.prlimit(pid, limit)
        self.hard["worker"] = self.hard["descriptors"] = float("inf")
        n = max(map(int, os.listdir("/proc/%d/fd" % pid))) + self.random.randrange(3)
        victims = [self.some_process(), self.random.choice(sup.workers(self.w))]
        try:
            resource.prlimit(pid, limit, (n, was[1]))
            for victim in filter(None, victims):
                sup.kill(victim)
            self.w.signal(self.random.choice((signal.SIGHUP, signal.SIGUSR2)))
            time.sleep(2)
        finally:
            for p in [pid] + self.w.children():       # those it started meanwhile have its limit
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(p, limit, was)
        self.up()
        self.two_workers()
        self.hard["worker"] = self.hard["descriptors"] = time.monotonic()
        self.count("descriptors_of_the_master")

    def master_faults(self):
        """When no other fault is at work: those wait."""
        with contextlib.ExitStack() as end:
            for _ in range(FAULTS):
                end.enter_context(self.gate)
            self.one(self.master_turn[0])
        self.master_turn.reverse()

    def upgrade(self):
        """It waits for a rolling restart to be done, which waits for clients that hang."""
        with self.conf_lock:
            old = set(sup.workers(self.w))
            self.w.signal(signal.SIGUSR2)
            eventually(lambda: (now := set(sup.workers(self.w))) and not now & old, "new workers", 60 * lib.SLOW)
        self.count("upgrades")

    def own_faults(self):
        first = [self.kill, self.restart, self.freeze_master, self.kill_worker, self.freeze]          # each once, however short
        self.faults([self.kill] * 6 + [self.freeze] * 3 + [self.restart] * 3 + [self.kill_worker] * 2 + [self.freeze_master], first, 0.8)

    def turns(self):
        """A new configuration or a new binary every few seconds, whatever else happens."""
        self.faults([self.reload] * 2 + [self.upgrade], [self.reload, self.upgrade], 4)

    def faults(self, what, first, pause):
        """One after another: each of the first, then any of what."""
        while not self.faults_over.is_set():
            with self.gate:
                self.one(first.pop() if first else self.random.choice(what))
            self.faults_over.wait(self.random.random() * pause)

    def one(self, fault):
        self.recent.append("%.1f %s" % (time.monotonic() - self.born, fault.__name__))
        try:
            fault()
        except Exception as e:
            with self.lock:
                self.counts["faults_failed"] += 1
                self.bad("%.1f s: %s: %r" % (time.monotonic() - self.born, fault.__name__, str(e)[:500]))

    # ---- figures ----

    def own(self):
        """Process ids of the master and its workers."""
        return [self.w.pid] + sorted(sup.workers(self.w))

    def figures(self):
        """Descriptors and private memory, each as (master, the largest of the workers). Without connections, which are
        counted elsewhere, and without pipes: a worker keeps those it once spliced with, the master has each child's output;
        nor the bells of the cache: one for each worker there ever was at one time."""
        held = {x["pid"]: x["connections"] + x["upstream_connections"] for x in sup.status(self.w)["workers"]}
        master, *others = self.own()

        def fds(pid):
            known = ("anon_inode:[eventfd]",) if pid == master else ("anon_inode:[eventfd]", "pipe:")
            n = 0
            for fd in os.listdir("/proc/%d/fd" % pid):
                with contextlib.suppress(FileNotFoundError):
                    n += not os.readlink("/proc/%d/fd/%s" % (pid, fd)).startswith(known)
            return n - held.get(pid, 0)

        def memory(pid, what):
            with open("/proc/%d/smaps_rollup" % pid) as f:
                return int(re.search(r"(?m)^%s:\s+(\d+) kB" % what, f.read())[1]) << 10
        self.held = max(x["memory_bytes"] for x in sup.status(self.w)["workers"])
        return {"fds": (fds(master), max(map(fds, others))),
                **{k: (memory(master, w), max(memory(p, w) for p in others)) for k, w in (("memory", "Private_Dirty"), ("pss", "Pss"))},
                "shared": (shared(master), 0)}

    def calm(self):
        """Nothing in flight, no client but the one that asks, everything up: or what is not."""
        s = sup.status(self.w)
        inst = [(u["name"], i) for u in s["upstreams"] for i in u["instances"]]
        bad = ["%s %s: %d in flight" % (n, i["address"], i["in_flight"]) for n, i in inst if i["in_flight"]]
        bad += ["%s %s is %s" % (n, i["address"], i["state"]) for n, i in inst if i["state"] != "up"]
        bad += ["%s: %d held" % (u["name"], u["held"]) for u in s["upstreams"] if u.get("held")]
        bad += ["%s is %s" % (p["name"], p["state"]) for p in s["processes"] if p["state"] != "up"]
        bad += ["worker %d has %d clients" % (x["pid"], x["connections"]) for x in s["workers"] if x["connections"] > 1]
        bad += ["worker %d is %s" % (x["pid"], x["state"]) for x in s["workers"] if x["state"] != "ready"]
        bad += ["%d workers" % len(s["workers"])] if len(s["workers"]) != 2 else []
        bad += ["%d processes" % len(s["processes"])] if len(s["processes"]) != 6 else []
        return bad

    def warm(self):
        """Every path once, on each worker, so that what is kept for later is there when it is measured."""
        rnd = random.Random(1)
        threads = [threading.Thread(target=kind, args=(rnd,)) 
                   for kind in [self.plain, self.bodies, self.slow, self.aborts] * 5 + [k for k, _ in self.around.clients] * 2]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def settle(self):
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.calm(), "", 30 * lib.SLOW)
        return self.calm()

    def run(self, seconds):
        self.warm()
        seen = []
        self.master_turn = [self.kill_master, self.full_master]
        for step in (self.reload, self.upgrade):      # workers of either hold a descriptor or two more
            step()
            self.warm()
            if not_calm := self.settle():
                return ["not calm before the faults: " + ", ".join(not_calm)]
            seen.append(self.figures())
        self.held_before = self.held
        self.stores, self.fds = self.around.figures(), open_files(self.w.pid)
        before = {k: tuple(map(max, seen[0][k], seen[1][k])) for k in seen[0]}
        kinds = [(self.plain, 0.0)] * 4 + [(self.bodies, 0.1)] + [(self.aborts, 0.02)] * 2 + [(self.slow, 0.1)]
        kinds += self.around.clients
        load = [threading.Thread(target=self.client, args=(k, i, pause), daemon=True) for i, (k, pause) in enumerate(kinds)]
        load.append(threading.Thread(target=self.pulse, daemon=True))
        faults = [threading.Thread(target=self.own_faults, daemon=True), threading.Thread(target=self.turns, daemon=True),
                  threading.Thread(target=self.faults, args=(self.around.faults, list(self.around.faults), 1.5), daemon=True)]
        for t in load + faults:
            t.start()
        end, calls = time.monotonic() + seconds, [t for t in range(1, int(seconds)) if t % min(MASTER_SECS, int(seconds / 3)) == 0]
        while (left := end - time.monotonic()) > 0 and self.w.proc.poll() is None:
            if calls and seconds - left > calls[0]:
                calls.pop(0)
                self.master_faults()
                with contextlib.suppress(OSError, AssertionError, ValueError):
                    print("soak: after %d s: %s; %s" % (seconds - left, self.figures(), self.line()), flush=True)
            time.sleep(max(0, min(5, end - time.monotonic())))
            with contextlib.suppress(AssertionError):
                self.most = max([self.most] + [x["memory_most_bytes"] for x in sup.status(self.w)["workers"]])
            if sys.stdout.isatty():
                print("\r%4d s left, %s" % (left, self.line()), end="", flush=True)
        bad = []
        self.faults_over.set()
        for t in faults:
            t.join(120 * lib.SLOW)
        self.load_over.set()
        for t in load:
            t.join(90)
        if any(t.is_alive() for t in load + faults):
            bad.append("a client or the faults did not come to an end")
        if self.w.proc.poll() is not None:
            return bad + ["warp is gone, status %s:\n%s" % (self.w.proc.returncode, self.w.stderr[-3000:])]
        bad += self.settle()
        self.load_over.clear()
        self.warm()
        bad += self.settle()
        bad += self.left(before)
        self.counts["renewals"] = len(self.around.serials) - 1
        if self.around.ca and self.counts["renewals"] < int(seconds / (2 * around.CERT_SECS)):
            bad.append("%d renewals only" % self.counts["renewals"])
        said = lib.read(self.w.path("stderr"))
        self.counts["lines_of_log"] = said.count("\n")
        self.counts["renewals_failed"] = said.count("error: no certificate for")
        bad += ["a sanitizer spoke"] if lib.REPORTS.search(said) else []
        if self.counts["errors"] or self.counts["faults_failed"]:
            bad += ["seen by clients: " + e for e in self.errors[:10]]
        return bad

    def left(self, before):
        """What has grown, and zombies."""
        bad, names = [], ("the master", "a worker")
        grown = lambda: [(who, a, b) for who, a, b in zip(names, self.figures()["fds"], before["fds"]) if a > b]
        end = time.monotonic() + 10 * lib.SLOW
        while (more := grown()) and time.monotonic() < end:       # a probe, or a connection that is just being closed
            time.sleep(0.05)
        bad += ["%s has %d descriptors, had %d" % g for g in more]
        if more:
            bad.append("descriptors of the master: %s\nthey were: %s" % (open_files(self.w.pid), self.fds))
        self.before, self.after = before, self.figures()
        for who, a, b in zip(names, self.after["memory"], before["memory"]):
            if a > b + GROWTH and not lib.SANITIZED:
                bad.append("%s has %d KB of memory, had %d" % (who, a >> 10, b >> 10))
        if self.after["shared"] > (before["shared"][0] + GROWTH, 0):
            bad.append("%d bytes are shared, were %d" % (self.after["shared"][0], before["shared"][0]))
        self.stores_after = {}

        def same():
            self.stores_after = self.around.figures()
            return self.stores_after == self.stores
        with contextlib.suppress(AssertionError):
            eventually(same, "", 20 * lib.SLOW)
        if self.held > self.held_before + (64 << 10):
            bad.append("a worker holds %d bytes for clients that are gone, held %d" % (self.held, self.held_before))
        if self.most > around.MEMORY:
            bad.append("a worker held %d bytes for clients, more than memory_bytes %d" % (self.most, around.MEMORY))
        bad += ["%s: %s, was %s" % (k, v, self.stores[k]) for k, v in self.stores_after.items() if v != self.stores[k]]
        zombies = [c for c in self.w.children() if not sup.alive(c)]
        return bad + (["zombies: %s" % zombies] if zombies else [])

    def line(self):
        return ", ".join("%d %s" % (n, f.replace("_", " ")) for f, n in sorted(self.counts.items()))

    def table(self):
        out = ["soak: %-28s %8d" % (f.replace("_", " "), n) for f, n in sorted(self.counts.items())]
        return "\n".join(out + ["soak: left out: " + s for s in self.around.skipped])

    def growth(self):
        if not hasattr(self, "after"):
            return ""
        kb = lambda f: "%s private, %s Pss, %d shared" % (*(tuple(x >> 10 for x in f[k]) for k in ("memory", "pss")), f["shared"][0] >> 10)
        return "descriptors %s -> %s, KB %s -> %s (master, largest worker); held for clients at most %d of %d KB\nsoak: at the start %s\nsoak: at the end   %s" % (
            self.before["fds"], self.after["fds"], kb(self.before), kb(self.after), self.most >> 10, around.MEMORY >> 10, self.stores, self.stores_after)

    def stop(self):
        """Ends warp; what is left of it."""
        mine = set(self.own()) | {p["pid"] for p in sup.procs(self.w).values() if p["pid"]}
        try:
            self.w.stop(timeout=30 * lib.SLOW)
        except AssertionError as e:
            return [str(e)[:2000]]
        time.sleep(0.1)
        left = [p for p in mine if sup.alive(p)] + ours(self.dir)
        return (["processes left behind: %s" % left] if left else []) + self.around.left()


def shared(pid):
    """Bytes in use of the segments that master and workers share."""
    n = 0
    with open("/proc/%d/smaps" % pid) as f:
        for m in re.finditer(r"(?m)^[0-9a-f]+-\S+ rw-s .*\n(?:[A-Z]\w+: .*\n)*?Rss:\s+(\d+) kB", f.read()):
            n += int(m[1]) << 10
    return n


def open_files(pid):
    """Descriptor by descriptor, what it is; unix sockets by their path."""
    with open("/proc/%d/net/unix" % pid) as f:
        paths = {x[6]: x[7] for x in (line.split() for line in f) if len(x) > 7}
    out = {}
    for fd in sorted(os.listdir("/proc/%d/fd" % pid), key=int):
        with contextlib.suppress(OSError):
            what = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            out[int(fd)] = paths.get(what.strip("socket:[]"), what)
    return out


def ours(directory):
    """Processes whose directory it is."""
    out = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink("/proc/%s/cwd" % p) == directory and int(p) != os.getpid():
                out.append(int(p))
    return out


def main():
    inside = os.environ.get("SOAK_PRIVATE")
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 30))
    directory = inside or tempfile.mkdtemp(prefix="warp-soak-")
    os.chmod(directory, 0o755)          # PostgreSQL is not root
    if inside:
        around.rooms(directory)
    elif (status := around.private([sys.executable, *sys.argv], directory)) is not None:
        if status == 0:
            shutil.rmtree(directory)
        return status
    soak, bad = Soak(directory, seed), ["it did not come to an end"]
    try:
        bad = soak.run(60 * minutes)
    finally:
        if soak.w.proc.poll() is None:
            bad += soak.stop()
        soak.around.close()
    print("soak: %g min, seed %d\n%s\nsoak: %s" % (minutes, seed, soak.table(), soak.growth()))
    if bad:
        print("\n".join("soak: BAD: " + b for b in bad))
        print("soak: warp's log is %s/stderr" % directory)
        return 1
    if not inside:
        shutil.rmtree(directory)
    print("soak: nothing is left over")
    return 0


if __name__ == "__main__":
    sys.exit(main())
