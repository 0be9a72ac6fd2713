"""What the tests of the supervisor share: configurations with processes, what warp says
about them, load that notices every error. app.py is the program that is supervised."""
import collections
import contextlib
import os
import re
import signal
import sys
import threading

import lib
from lib import TIMEOUT, Client, ProtocolError, eventually, toml_file

APP = os.path.join(lib.HERE, "app.py")
Event = collections.namedtuple("Event", "name what pid ns")


def app(name="web", *words, **keys):
    """A process table that runs app.py, as whatever user."""
    return {"command": sys.executable, "args": ["-SE", lib.for_everybody(APP), name, *words], **keys}


def sh(script, **keys):
    """A process table that runs a shell script."""
    return {"command": "/bin/sh", "args": ["-c", script], **keys}


def fleet(process=None, processes=None, server=None, health=None, more="", **upstream):
    """A configuration: the upstream web with its process, processes without one, an admin socket, and one
    route, or one that answers 'ok'. Everything backs off quickly, so that tests need not wait."""
    quick = lambda p: {"backoff_secs": 0.05, "backoff_max_secs": 0.2, **p}
    c = {"server": dict(server or {}), "admin": {"listen": ["@DIR@/admin"]}}
    if processes:
        c["processes"] = {n: quick(p) for n, p in processes.items()}
    if process:
        c["upstreams"] = {"web": {**upstream, "process": quick(process), **({"health": health} if health else {})}}
    c["routes"] = [{"upstream": "web"} if process else {"respond": {"status": 200, "body": "ok"}}]
    return toml_file(c) + more


def status(w):
    """/status; asked again while the worker that serves it is being replaced."""
    got = []

    def ask():
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            with Client(w.path("admin")) as c:
                m = c.ask("/status")
                assert m.status == 200, m.text
                got.append(m.json)
        return got
    return eventually(ask, "an answer to /status")[0]


def procs(w):
    return {p["name"]: p for p in status(w)["processes"]}


def proc(w, name="web"):
    return procs(w)[name]


def wait_state(w, state, name="web", timeout=None):
    """That process, once it is in that state."""
    last = []

    def there():
        last[:] = [procs(w).get(name)]
        return last[0] if last[0] and last[0]["state"] == state else None
    try:
        return eventually(there, "", timeout)
    except AssertionError:
        raise AssertionError("%s is not %s but %s\n%s" % (name, state, last, w.stderr[-2000:])) from None


def proc_that(w, test, name="web"):
    """That process, once test(it) holds."""
    def there():
        p = procs(w).get(name)
        return p if p and test(p) else None
    return eventually(there, "%s as wanted: %s" % (name, procs(w).get(name)))


def instances(w, name="web"):
    return next(u for u in status(w)["upstreams"] if u["name"] == name)["instances"]


def workers(w):
    return [x["pid"] for x in status(w)["workers"]]


def quiet(w, name="web"):
    """Waits until nothing is in flight at any of the upstream's instances."""
    eventually(lambda: all(i["in_flight"] == 0 for i in instances(w, name)), "nothing in flight")


def verb(w, *words, ok=True):
    """`warp -s ...`, done when it returns; ok=False: it must say no, None: either."""
    p = lib.run_warp("-s", *words, "-c", w.file, cwd=w.dir, timeout=60 * lib.SLOW)
    assert ok is None or (p.returncode == 0) == ok, "-s %s: status %d\n%s%s" % (" ".join(words), p.returncode, p.stdout, p.stderr)
    return p


def reload(w, text=None, good=True):
    """HUP, waited for; text: the new configuration."""
    if text is not None:
        w.write(text)
    pattern = r"reloaded, generation" if good else r"going on with the old configuration"
    before = len(re.findall(pattern, w.stderr))
    w.signal(signal.SIGHUP)
    eventually(lambda: len(re.findall(pattern, w.stderr)) > before, "reload")


def running(w, name="web"):
    """Process ids of its replicas, once all of them are up."""
    def ids():
        got = [p for n, p in procs(w).items() if n.split(".")[0] == name]
        return got and all(p["state"] == "up" and alive(p["pid"]) for p in got) and sorted(p["pid"] for p in got)
    return eventually(ids, "every %s is up" % name, 3 * TIMEOUT)


def upgrade(w):
    """USR2, until none of the old workers is left."""
    old = set(workers(w))
    w.signal(signal.SIGUSR2)
    eventually(lambda: (now := set(workers(w))) and not now & old, "new workers", 3 * TIMEOUT)


def journal(w, *what, name="journal"):
    """What the programs wrote down, in order; what: only such events."""
    try:
        with open(w.path(name)) as f:
            got = [Event(n, e, int(p), int(t)) for n, e, p, t in map(str.split, f.read().splitlines())]
    except FileNotFoundError:
        got = []
    return [e for e in got if not what or e.what in what]


def touch(w, *names):
    for n in names:
        open(w.path(n), "w").close()


def remove(w, name):
    os.unlink(w.path(name))


def kill(pid, sig=signal.SIGKILL):
    """Never anything but one process: 0 would be this test and all of its own."""
    assert pid and pid > 1, "no process: %s" % pid
    os.kill(pid, sig)


def alive(pid):
    """Whether it runs; a zombie does not."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def gone(pids, what="they are gone", timeout=None):
    eventually(lambda: not any(map(alive, pids)), "%s: %s" % (what, [p for p in pids if alive(p)]), timeout)


class Load:
    """Clients that ask over and over on kept connections. errors: what was not a whole 200;
    n: answers; bodies: how often each came (the first word and the pid of app.py). cuts: so many
    answers may end too early: a program that is killed between head and body leaves half of one."""

    def __init__(self, port, threads=3, target="/", method="GET", cuts=0):
        self.port, self.target, self.method, self.cuts = port, target, method, cuts
        self.errors, self.n, self.bodies = [], 0, collections.Counter()
        self.over, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        while not self.over.is_set():
            try:
                with Client(self.port, timeout=4 * TIMEOUT) as c:
                    while not self.over.is_set():
                        m = c.ask(self.target, method=self.method, timeout=4 * TIMEOUT)
                        with self.lock:
                            self.n += 1
                            self.bodies[m.text] += 1
                        if m.status != 200:
                            self.errors.append("%d: %s" % (m.status, m.text[:300]))
                        if "close" in m.tokens("connection"):
                            break
            except (OSError, EOFError, TimeoutError, ProtocolError) as e:
                with self.lock:
                    if self.cuts > 0 and isinstance(e, EOFError):
                        self.cuts -= 1
                    else:
                        self.errors.append(repr(e))

    def more(self, n=20):
        """Waits for n further answers."""
        want = self.n + n
        eventually(lambda: self.n >= want or self.errors, "%d answers more" % n, 4 * TIMEOUT)
        assert not self.errors, self.errors[:5]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        for t in self.threads:
            t.join(4 * TIMEOUT)
        if kind is None:
            assert not any(t.is_alive() for t in self.threads)
            assert not self.errors, "%d errors in %d answers, such as %s" % (len(self.errors), self.n, self.errors[:5])
            assert self.n > 0
