"""Nothing in a worker or in the master waits for somebody else: not for whoever reads the log, not for a file
that turns out to be a pipe, not for a password's hash, not for one client's pile of requests, not for a new binary."""
import base64
import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import statistics
import threading
import time
import tty

import pytest

import lib
from lib import SANITIZED, SLOW, TIMEOUT, Client, complete, conf, eventually, free_port, freeze, request, run_warp, toml_file
from supervised import alive, fleet, gone, kill, proc, proc_that, sh, verb, wait_state

OK = {"respond": {"status": 200, "body": "ok"}}
STAMP = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+\[\d+\] (error|warn|info|debug): |.*: warning: |talks: ")
LOST = re.compile(rb"(?i)\d+ (\S+ )*lines?\b.*(lost|dropped|missing)|(lost|dropped) \d+ .*lines?")


# ---- a log that nobody reads ----------------------------------------------------

class Stderr:
    """What warp gets as its stderr: a pipe of 4 KB, a small socket or a terminal. Others hold it too. Nobody reads it
    until .read(); .fill(): it takes nothing more."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "pipe":
            self.r, self.w = os.pipe()
            fcntl.fcntl(self.w, 1031, 4096)                    # F_SETPIPE_SZ
            self.own = os.open("/proc/self/fd/%d" % self.w, os.O_WRONLY | os.O_NONBLOCK)
        elif kind == "socket":
            a, b = socket.socketpair()
            b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.r, self.w = a.detach(), b.detach()
            self.own = socket.socket(fileno=os.dup(self.w))
        else:
            self.r, self.w = pty.openpty()
            tty.setraw(self.w)
            self.own = os.open(os.ttyname(self.w), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self.got = b""

    def use(self):
        os.dup2(self.w, 2)

    def put(self, n):
        """Writes lines of n bytes until nothing more goes in; whether anything did."""
        line, any = b"#" * (n - 1) + b"\n", False
        with contextlib.suppress(BlockingIOError):
            while self.own.send(line, socket.MSG_DONTWAIT) if self.kind == "socket" else os.write(self.own, line):
                any = True
        return any

    def fill(self):
        eventually(lambda: not any([self.put(4096), self.put(1)]), "it is full")   # a terminal's buffers move on

    def read(self):
        """All so far, without the filling; some of it, where more comes all the time."""
        for _ in range(32):
            if not select.select([self.r], [], [], 0)[0]:
                break
            self.got += os.read(self.r, 1 << 16)
        return re.sub(rb"(?m)^#*\n|^#+", b"", self.got)

    def blocks_others(self):
        return not fcntl.fcntl(self.w, fcntl.F_GETFL) & os.O_NONBLOCK

    def close(self):
        for fd in (self.r, self.w):
            os.close(fd)
        self.own.close() if self.kind == "socket" else os.close(self.own)


@pytest.fixture(params=["pipe", "socket", "terminal"])
def err(request):
    e = Stderr(request.param)
    yield e
    e.close()


def proxied(port, header="PROXY UNKNOWN\r\n"):
    with Client(port) as c:
        return c.send(header).ask()


def test_log_that_nobody_reads(warp, err):
    """A dead upstream, refused clients, reloads: all is served and done meanwhile. Lines that were lost are counted
    and said once it flows again; no line is torn; others who hold that pipe find it as it was."""
    text = lambda body: conf({"path_prefix": "/dead", "upstream": "gone"}, {"respond": {"status": 200, "body": body}},
                             server={"worker_threads": 1, "proxy_protocol": True}, log={"level": "debug"},
                             gone={"host": "127.0.0.1", "port": free_port()})
    w = warp(text("old"), preexec_fn=err.use)
    err.fill()
    for _ in range(60):
        with Client(w.port) as c:
            assert c.send("PROXY UNKNOWN\r\n").ask("/dead").status in (502, 503)
    assert proxied(w.port).text == "old"
    w.write(text("new"))
    w.signal(signal.SIGHUP)
    eventually(lambda: proxied(w.port).text == "new", "the master reloads")
    w.signal(signal.SIGUSR1)
    for _ in range(1200):                                      # a line for each
        with Client(w.port) as c:
            c.send("no header\r\n").fin()
    assert err.blocks_others(), "those who share it did not ask for O_NONBLOCK"

    def flows():
        with Client(w.port) as c:
            c.send("no header\r\n").fin()
        return LOST.search(err.read())
    eventually(flows, "how many lines were lost")
    eventually(lambda: flows() and re.search(rb"(?m)no PROXY header.*\n\Z", err.read()), "and it flows again")
    torn = [x for x in err.read().replace(b"\r", b"").split(b"\n")[:-1] if not STAMP.match(x)]
    # a terminal may take part of a line when it is full, and the other process's line comes in between
    assert len(torn) <= (err.kind == "terminal"), torn[:5]
    err.fill()
    w.stop()                                                   # TERM, with nobody to say goodbye to


def ticks(pid):
    """Of the processor, so far."""
    with open("/proc/%d/stat" % pid) as f:
        return sum(map(int, f.read().rpartition(")")[2].split()[11:13]))


@pytest.mark.parametrize("reader", ["none", "gone", "full disk"])
def test_access_log_that_waits_costs_nothing(warp, reader):
    """Lines that cannot be written now are tried again when it makes sense, not in every turn."""
    r, out = os.pipe()
    fcntl.fcntl(out, 1031, 4096)                               # F_SETPIPE_SZ
    w = warp(conf(OK, server={"worker_threads": 1}, log={"access": "/dev/full" if reader == "full disk" else "stdout"}),
             preexec_fn=lambda: os.dup2(out, 1))
    os.close(out)
    if reader == "gone":
        os.close(r)
    with Client(w.port) as c:
        for _ in range(150):
            c.ask()
        before = ticks(w.children()[0])
        for _ in range(20):
            c.ask()
            time.sleep(0.05)                                   # a second of an idle worker
        assert ticks(w.children()[0]) - before < 15
    if reader != "gone":
        os.close(r)


def test_start_and_upgrade_with_a_full_log(warp, err):
    """What -t says of the configuration, at the start and to the new binary, waits for nobody either."""
    err.fill()
    w = warp(conf({"path_prefix": "/a"}, {"path_prefix": "/"}, {"path_prefix": "/never"}, gone={"host": "127.0.0.1", "port": 1}),
             preexec_fn=err.use)                               # there are warnings
    assert w.ask().status == 502
    old = w.children()
    w.signal(signal.SIGUSR2)
    eventually(lambda: w.children() and not set(old) & set(w.children()), "new workers", 2 * TIMEOUT)
    assert w.ask().status == 502


def test_output_of_a_process_that_nobody_reads(warp, err):
    """The program may wait, the master does not: it reloads, answers and stops. Later every line is whole."""
    talks = sh("exec yes " + "y" * 3000)
    w = warp(fleet(None, {"talks": talks}), preexec_fn=err.use)
    proc_that(w, lambda p: p["state"] == "up" and p["lines"], "talks")
    err.fill()
    pid = proc(w, "talks")["pid"]
    w.write(fleet(None, {"talks": talks, "second": sh("exec sleep 60")}))
    assert verb(w, "reload").returncode == 0
    proc_that(w, lambda p: p["state"] == "up", "second")
    kill(pid)
    proc_that(w, lambda p: p["state"] == "up" and p["pid"] not in (0, pid), "talks")
    seen = len(err.read())
    eventually(lambda: len(err.read()) > seen + 20000, "it goes on")
    lines = err.read().replace(b"\r", b"").split(b"\n")[:-1]
    torn = [x for x in lines if not STAMP.match(x)]
    assert not torn, torn[:3]
    assert sum(x == b"talks: " + b"y" * 3000 for x in lines) > 5
    err.fill()
    w.stop()


@pytest.mark.parametrize("what", ["error", "access", "process"])
def test_syslog_that_nobody_reads(warp, syslog, what):
    """A syslog daemon that hangs costs lines, nothing else; what is lost is said when it takes lines again."""
    keys = {"error": {"error": "syslog"}, "access": {"access": "syslog"}, "process": {}}[what]
    text = lambda body: fleet(None, {"talks": sh("exec yes word", log="syslog")} if what == "process" else {"a": sh("exec sleep 60")},
                              server={"proxy_protocol": True, "worker_threads": 1},
                              more="body = %s\n" % lib.toml(body) + "[log]\nlevel = \"debug\"\n" + "".join(
                                  "%s = \"%s\"\n" % x for x in keys.items())).replace(', body = "ok"', "").replace(
                                  'respond = { "status" = 200, "body" = "ok" }\nbody = %s\n' % lib.toml(body),
                                  "respond = { status = 200, body = %s }\n" % lib.toml(body))
    w = warp(text("old"))
    syslog.fill()
    for i in range(700):
        with Client(w.port) as c:
            if what == "error":
                c.send("no header\r\n").fin()
            else:
                assert c.send("PROXY UNKNOWN\r\n").ask("/%d" % i).status == 200
    w.write(text("new"))
    w.signal(signal.SIGHUP)
    eventually(lambda: proxied(w.port).text == "new", "the master reloads")
    syslog.drain()

    def flows():
        with Client(w.port) as c:
            c.send("no header\r\n").fin()
        with Client(w.port) as c:
            c.send("PROXY UNKNOWN\r\n").ask("/again")
        return any(re.search({"error": b"no PROXY", "access": b"/again", "process": b"word"}[what], x) for x in syslog.drain())
    eventually(flows, "it flows again")
    if what == "error":
        eventually(lambda: flows() and any(LOST.search(x) for x in syslog.lines), "how many lines were lost")
    syslog.fill()
    w.stop()


def test_notify_socket_that_nobody_reads(warp, tmp_path):
    """systemd is told what happens when it listens; a reload does not wait for that."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        w = warp(conf(OK), env={"NOTIFY_SOCKET": path})
        lib.fill_socket(path)
        w.write(conf({"respond": {"status": 200, "body": "new"}}))
        w.signal(signal.SIGHUP)
        eventually(lambda: w.ask().text == "new", "the master reloads")
        w.stop()


# ---- files that are pipes ---------------------------------------------------------

# key: the file's name, the configuration that names it; what it must not be is a FIFO
SLEEP = {"command": "/bin/sleep", "args": ["60"]}
FIFOS = {
    "envfile": ("env", conf(OK, server={}), {"processes": {"p": {**SLEEP, "envfile": "@DIR@/env"}}}),
    "envfile of an upstream": ("env", conf(OK), {"upstreams": {"u": {"process": {**SLEEP, "envfile": "@DIR@/env"}}}}),
    "file: of server.admin_token": ("token", conf(OK, server={"admin_token": "file:@DIR@/token"}), {}),
    "file: of a password": ("token", conf({**OK, "basic_auth": {"u": "file:@DIR@/token"}}), {}),
    "file: of a field": ("token", conf({"add_headers": [{"name": "X-A", "value": "file:@DIR@/token"}]},
                                       u={"host": "127.0.0.1", "port": 1}), {}),
    "log.access": ("log", conf(OK, log={"access": "@DIR@/log"}), {}),
    "log.error": ("log", conf(OK, log={"error": "@DIR@/log"}), {}),
    "log of a process": ("log", conf(OK), {"processes": {"p": {**SLEEP, "log": "@DIR@/log"}}}),
    "error page": ("503.html", conf(OK, server={"error_dir": "@DIR@"}), {}),
    "maintenance": ("down", conf(u={"host": "127.0.0.1", "port": 1, "maintenance": "@DIR@/down"}), {}),
    "tls.cert": ("cert", conf(OK), {"tls": {"enabled": True, "cert": "@DIR@/cert", "key": "@DIR@/cert"}}),
    "tls.client_ca_file": ("ca", conf(OK), {"tls": {"enabled": True, "cert": "CERT", "key": "KEY", "client_ca_file": "@DIR@/ca"}}),
    "ca_file": ("ca", conf(u={"url": "https://127.0.0.1:1", "tls": {"ca_file": "@DIR@/ca"}}), {}),
}


def fifo_conf(name, pki):
    file, base, more = FIFOS[name]
    c = {k: v for k, v in base.items() if v or k != "upstreams"}
    for k, v in more.items():
        if k == "tls" and "CERT" in v.values():
            pair = pki.cert("a.example")
            v = {x: {"CERT": pair.cert, "KEY": pair.key}.get(y, y) for x, y in v.items()}
        c[k] = {**c.get(k, {}), **v}
    if "tls" in c:
        c["server"] = {**c.get("server", {}), "https_listen": ["127.0.0.1:%d" % free_port()], "listen": ["127.0.0.1:@PORT@"]}
    return file, c


@pytest.mark.parametrize("name", FIFOS)
def test_fifo_where_a_file_should_be(warp, pki, tmp_path, name):
    """-t, the start and a reload go on or refuse it, with words that name it; none of them waits for a writer or a reader."""
    file, c = fifo_conf(name, pki)
    dir, quiet = tmp_path / "w", name in ("maintenance", "log of a process")     # opened later, if at all
    dir.mkdir()
    os.mkfifo(dir / file)
    port, f = free_port(), dir / "t.toml"
    f.write_text(complete(toml_file(c).replace("@PORT@", str(port)).replace("@DIR@", str(dir)), port))
    p = run_warp("-t", "-c", str(f), cwd=str(dir), timeout=TIMEOUT)
    assert quiet or "log." in name or str(dir / file) in p.stdout + p.stderr, p.stdout + p.stderr
    refused = p.returncode != 0

    w = warp(c, dir=str(dir), ready=False)
    eventually(lambda: "ready" in w.stderr or w.proc.poll() is not None, "it runs or says why not: " + w.stderr)
    if w.proc.poll() is None:
        assert not refused
        w.stop()
    else:
        assert w.wait() in (1, 4)
    assert quiet or str(dir / file) in w.stderr, w.stderr

    dir = tmp_path / "r"
    dir.mkdir()
    w = warp(conf(OK), dir=str(dir))
    os.mkfifo(dir / file)
    w.write(c if "listen" in c.get("server", {}) else {**c, "server": {**c.get("server", {}), "listen": ["127.0.0.1:@PORT@"]}})
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded, generation|going on with the old configuration")
    assert w.ask().status in (200, 401, 502, 503)
    w.signal(signal.SIGUSR1)
    w.wait_stderr("logs reopened|" + re.escape(str(dir / file)))


def test_log_becomes_a_fifo(warp, tmp_path):
    """At USR1 as well: the old file is written on, or nothing is; warp serves and stops."""
    w = warp(conf(OK, log={"access": "@DIR@/access", "error": "@DIR@/error"}))
    for name in ("access", "error"):
        os.unlink(w.path(name))
        os.mkfifo(w.path(name))
    w.signal(signal.SIGUSR1)
    assert w.ask().status == 200
    w.write(conf({"respond": {"status": 200, "body": "new"}}))
    w.signal(signal.SIGHUP)
    eventually(lambda: w.ask().text == "new")


def test_fifos_in_the_acme_directory(warp, tmp_path):
    """Whoever may write there stops nobody."""
    c = conf(OK, server={"http_port": 1})
    c["server"] = {"listen": ["127.0.0.1:@PORT@"], "https_listen": ["127.0.0.1:%d" % free_port()]}
    c["tls"] = {"enabled": True, "domains": ["a.example"], "acme_url": "https://127.0.0.1:1/dir", "acme_directory": "@DIR@/acme"}
    dir = tmp_path / "w"
    (dir / "acme").mkdir(parents=True, mode=0o700)
    for name in ("account.key", "a.example.pem", "a.example.key", "lock"):
        os.mkfifo(dir / "acme" / name, 0o600)
    w = warp(c, dir=str(dir), ready=False)
    w.wait_stderr("ready|error")
    w.wait_stderr("account.key|a.example.pem|acme")
    assert w.ask().status in (200, 308)
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded, generation|going on with the old configuration")


# ---- passwords ----------------------------------------------------------------------

LONG = "p" * 200


def hashed(password, kind="$6$", rounds=""):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt
    return crypt.crypt(password, kind + rounds + "saltsalt")


def basic(user, password):
    return "Authorization: Basic " + base64.b64encode((user + ":" + password).encode()).decode()


@pytest.fixture(scope="module")
def users():
    return {"good": hashed(LONG), "other": hashed("another one", "$5$")}


def guarded(users, **log):
    return conf({"path_prefix": "/guarded", "basic_auth": users, "respond": {"status": 200, "body": "in"}},
                OK, server={"worker_threads": 1}, log=log or None)


def took(ask, *args):
    t = time.monotonic()
    m = ask(*args)
    return time.monotonic() - t, m


def hash_secs(c):
    """How long one wrong password takes when nobody else is there."""
    return statistics.median(took(c.ask, "/guarded", basic("good", "%d" % i + LONG[:190]))[0] for i in range(5))


def test_wrong_passwords_cost_others_nothing(warp, users):
    """20 clients guess; who wants something else waits for a few of their hashes at most, not for all."""
    w, over = warp(guarded(users)), threading.Event()
    with w.client() as c:
        one = hash_secs(c)

        def guess(n):
            with w.client() as c:
                while not over.is_set():
                    m = c.ask("/guarded", basic("good", "%d" % n + LONG[:190]), timeout=10 * TIMEOUT)
                    assert m.status in (401, 503), "wrong, or too many wait"
        threads = [threading.Thread(target=guess, args=(i,)) for i in range(20)]
        for t in threads:
            t.start()
        try:
            waits = []
            end = time.monotonic() + 20 * one
            while time.monotonic() < end or len(waits) < 15:
                waits.append(took(c.ask)[0])
            median = statistics.median(waits)
        finally:
            over.set()
            for t in threads:
                t.join(10 * TIMEOUT)
        assert median < 4 * one + 0.02 * SLOW, "a hash takes %.1f ms, others wait %.1f ms" % (1e3 * one, 1e3 * median)
        assert took(c.ask, "/guarded", basic("good", LONG))[1].status == 200, "the right one comes through"


@pytest.mark.parametrize("path", ["/guarded", "/open"])
def test_pipelined_requests_take_turns(warp, users, path):
    """One client's buffer full of requests is served over several turns of the loop, the others in between."""
    w = warp(guarded(users, access="stdout", format="$uri"))
    worker, = w.children()
    with w.client() as before, w.client() as many, w.client() as behind:
        assert [c.ask().status for c in (before, many, behind)] == [200] * 3   # all are known to the worker
        freeze(worker)
        try:
            fields = [basic("good", "wrong" + LONG)] if path == "/guarded" else []
            batch = [request(path + "/%d" % i, *fields) for i in range(200)]
            while len(b"".join(batch)) > 15000:
                batch.pop()
            many.send(b"".join(batch))
            before.send(request("/before"))
            behind.send(request("/behind"))
        finally:
            os.kill(worker, signal.SIGCONT)
        assert before.response().status == behind.response().status == 200
        for _ in batch:
            assert many.response(timeout=10 * TIMEOUT).status in (200, 401)
    w.stop()
    order = w.stdout.split()
    last = order.index("%s/%d" % (path, len(batch) - 1))
    assert order.index("/before") < last and order.index("/behind") < last, "after all %d of the other" % len(batch)


def test_a_page_with_40_images_hashes_once(warp, users):
    """Good credentials are known the next time, for that hash alone; the password itself is not kept."""
    secret = "Xq7-" + "vR" * 90
    w = warp(conf({"path_prefix": "/guarded", "basic_auth": {**users, "img": hashed(secret)}, "respond": {"status": 200}},
                  {"path_prefix": "/b", "basic_auth": {"img": hashed("something else")}, "respond": {"status": 200}},
                  server={"worker_threads": 1}))
    with w.client() as c:
        one = hash_secs(c)
        field = basic("img", secret)
        assert c.ask("/guarded", field).status == 200
        page = took(lambda: [c.ask("/guarded/%d" % i, field) for i in range(40)])
        assert all(m.status == 200 for m in page[1])
        assert page[0] < 15 * one, "one hash takes %.1f ms, 40 images %.1f ms" % (1e3 * one, 1e3 * page[0])
        assert c.ask("/guarded", basic("img", secret + "x")).status == 401
        assert c.ask("/b", field).status == 401, "good for the hash it was checked against"
    if os.geteuid() == 0 and not SANITIZED:                    # which has memory without end
        assert not kept_in(w.children()[0], ("img:" + secret).encode()), "a digest is enough"


def kept_in(pid, what):
    """Whether its memory, but for the stack, holds what."""
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb") as mem:
        for line in maps:
            span, mode = line.split()[:2]
            a, b = (int(x, 16) for x in span.split("-"))
            if "w" not in mode or "[stack]" in line or b - a > 1 << 28:
                continue
            with contextlib.suppress(OSError):
                mem.seek(a)
                if what in mem.read(b - a):
                    return line
    return None


def test_unknown_names_take_as_long(warp, users):
    """Who is a user is not to be learned from a clock."""
    w = warp(guarded(users))
    with w.client() as c:
        secs = [[took(c.ask, "/guarded", basic(user, "%d" % i + LONG[:190]))[0] for user in ("good", "nobody")] for i in range(7)]
    known, unknown = map(min, zip(*secs))
    assert 0.4 * known < unknown < 2.5 * known + 0.01, "known %.2f ms, unknown %.2f ms" % (1e3 * known, 1e3 * unknown)


@pytest.mark.parametrize("rounds, warned", [("", False), ("rounds=10000$", False), ("rounds=50000000$", True), ("rounds=999999999$", True)])
def test_rounds(check, rounds, warned):
    """A hash that takes seconds is warned of where the operator looks."""
    text = toml_file(conf({**OK, "basic_auth": {"u": "$6$" + rounds + "saltsalt$" + "a" * 86}}))
    p = check(text)
    assert p.returncode == 0, p.stderr
    assert bool(re.search("warning.*(rounds|slow|takes)", p.stderr)) == warned, p.stderr


def test_one_network_is_one_client(warp):
    """Who has one address of IPv6 has its /64: all its guesses together leave room for others."""
    users = {"me": hashed("good", rounds="rounds=100000$")}
    w = warp(conf({"basic_auth": users, "respond": {"status": 200}}, server={"worker_threads": 1, "trusted_proxies": ["127.0.0.1"]}))
    ask = lambda address, password: request("/", "X-Forwarded-For: " + address, basic("me", password))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(w.client()) for _ in range(71)]
        for i, c in enumerate(clients[:-1]):
            c.send(ask("2001:db8::%x" % i, "bad%d" % i))
        clients[-1].send(ask("2001:db8:0:1::1", "good"))
        got = [c.response(timeout=10 * TIMEOUT).status for c in clients]
    assert got[-1] == 200 and set(got[:-1]) == {401, 503}, got


# ---- a configuration by a pipe ---------------------------------------------------------

def test_configuration_that_drips(tmp_path):
    """A pipe has its time altogether, not for each byte."""
    name, over = str(tmp_path / "warp.toml"), threading.Event()
    os.mkfifo(name)

    def drip():
        with contextlib.suppress(BrokenPipeError), open(name, "w") as f:
            while not over.wait(0.1):
                f.write("#")
                f.flush()
    t = threading.Thread(target=drip)
    t.start()
    try:
        secs, p = took(lib.run_warp, "-t", "-c", name)
    finally:
        over.set()
        t.join(TIMEOUT)
    assert p.returncode == 1 and "pipe" in p.stderr, p.stderr
    assert secs < 5 * SLOW


# ---- an upgrade ---------------------------------------------------------------------

def test_upgrade_to_a_binary_that_hangs(warp, tmp_path, monkeypatch):
    """Meanwhile a dead worker is replaced, a reload is done, and TERM is obeyed; the one that hangs goes too."""
    exe = str(tmp_path / "warp")
    shutil.copy2(lib.WARP, exe)
    monkeypatch.setattr(lib, "WARP", exe)
    w = warp(fleet(None, {"p": sh("exec sleep 60")}, server={"worker_threads": 1}))
    old = wait_state(w, "up", "p")["pid"]
    worker = [p for p in w.children() if p != old]
    with open(exe + ".new", "w") as f:
        f.write("#!/bin/sh\nexec sleep 60\n")
    os.chmod(exe + ".new", 0o755)
    os.rename(exe + ".new", exe)
    w.signal(signal.SIGUSR2)
    hangs, = eventually(lambda: [p for p in w.children() if p not in worker + [old]], "the new binary is tried")
    for pid in filter(alive, worker + [old]):                  # what helped at the start may be gone
        kill(pid)
    with contextlib.closing(eventually(lambda: answers(w), "another worker")) as c:
        assert c.sock.fileno() >= 0
    proc_that(w, lambda p: p["state"] == "up" and p["pid"] not in (0, old), "p")
    assert alive(hangs), "it still hangs"
    w.stop()
    gone([hangs], "the one that hung goes too")


def answers(w):
    """A connection that was served."""
    c = Client(w.port)
    try:
        if c.ask(timeout=0.5 * SLOW).status == 200:
            return c
    except (OSError, EOFError, TimeoutError):
        pass
    c.close()
    return None
