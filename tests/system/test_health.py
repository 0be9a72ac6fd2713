"""Active health checks: who is asked what, what counts as well, who hears of it.

What is seen of them: the backends' side of each probe, the lines about what went down and
came up again, and which instance gets the requests."""
import os
import queue
import re
import signal
import socket
import threading
import time

import pytest

from lib import CLOSE, FIN, RST, SLOW, TIMEOUT, conf, connect, eventually, free_port, reply

INTERVAL = 0.05
OK, BAD = reply("fine"), reply("no", status="500 Oh")


def is_probe(m):
    return (m.get("User-Agent") or "").endswith("(health)")


class Gate:
    """A backend that answers requests at once, with its name, and probes as told: each waits
    for the next of .answers (put by say) unless .always is set."""

    def __init__(self, backend, always=None, **kw):
        self.always, self.answers, self.arrived, self.probes = always, queue.Queue(), queue.Queue(), []
        self.times, self.served = [], 0
        self.b = backend([self.serve], **kw)
        self.conf, self.port = self.b.conf, self.b.port

    def serve(self, c):
        while True:
            m = c.request()
            if not is_probe(m):
                self.served += 1
                c.send(reply(self.b.name))
                continue
            self.times.append(time.monotonic())
            self.probes.append(m)
            self.arrived.put(m)
            try:
                answer = self.always or self.answers.get(timeout=4 * TIMEOUT)
            except queue.Empty:
                raise EOFError from None
            return answer

    def arrives(self):
        """Waits for the next probe; those before it have been counted by then."""
        try:
            return self.arrived.get(timeout=TIMEOUT)
        except queue.Empty:
            raise AssertionError("no probe came") from None

    def say(self, *answers):
        """The answers to as many probes, each of which is waited for."""
        for a in answers:
            self.arrives()
            self.answers.put(a)

    def more(self, n=1):
        """Waits for n more probes."""
        n += len(self.probes)
        eventually(lambda: len(self.probes) >= n, "%d probes" % n)


def health(**kw):
    kw = dict({"interval_secs": INTERVAL, "timeout_secs": 2 * TIMEOUT, "jitter": False, "path": "/up"}, **kw)
    return {k: v for k, v in kw.items() if v is not None}


def site(on, keys=None, server=None, **kw):
    """A configuration with one upstream; kw: keys of its health section."""
    return conf(server=server, app={"on": on, "health": health(**kw), **(keys or {})})


def shares(w, n=6):
    """Who answers n requests."""
    return {w.ask("/x").text for _ in range(n)}


def verdicts(w):
    return re.findall(r"is (down|up again)", w.stderr)


# ---- counting -------------------------------------------------------------------

@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.promise("S2-63")
def test_down_after_three_up_after_two(warp, backend, unix):
    """Not one earlier, not one later; the requests go elsewhere, and come back."""
    a, b = Gate(backend, name="a", unix=unix), Gate(backend, OK, name="b", unix=unix)
    w = warp(site([a, b]))
    a.say(BAD, BAD)
    a.arrives()
    assert verdicts(w) == [] and shares(w) == {"a", "b"}, "two failures"
    a.answers.put(BAD)
    w.wait_stderr(r"worker\[\d+\] warn: upstream app: \S+ is down: status 500 \(3 of 3\)$")
    assert shares(w) == {"b"}, "three failures"
    a.say(OK)
    a.arrives()
    assert verdicts(w) == ["down"] and shares(w) == {"b"}, "one pass"
    a.answers.put(OK)
    w.wait_stderr(r"info: upstream app: \S+ is up again$")
    assert shares(w) == {"a", "b"}, "two passes"


def test_counted_in_a_row(warp, backend):
    """A pass between the failures, or a failure between the passes, starts the count over."""
    a, b = Gate(backend, name="a"), Gate(backend, OK, name="b")
    w = warp(site([a, b]))
    a.say(BAD, BAD, OK, BAD, BAD, OK, BAD, BAD)
    a.arrives()
    assert verdicts(w) == [], "never three in a row"
    a.answers.put(BAD)
    w.wait_stderr("is down")
    a.say(OK, BAD, OK, BAD, OK)
    a.arrives()
    assert verdicts(w) == ["down"], "never two in a row"
    a.answers.put(OK)
    w.wait_stderr("is up again")


@pytest.mark.promise("S2-63")
def test_thresholds(warp, backend):
    """As the section says."""
    a = Gate(backend)
    w = warp(site(a, unhealthy_threshold=1, healthy_threshold=3))
    a.say(BAD)
    w.wait_stderr(r"is down: status 500 \(1 of 1\)")
    a.say(OK, OK)
    a.arrives()
    assert verdicts(w) == ["down"]
    a.answers.put(OK)
    w.wait_stderr("is up again")


def test_all_down(warp, backend):
    """503 with Retry-After, at once, and no instance is bothered."""
    a, b = Gate(backend, BAD, name="a"), Gate(backend, BAD, name="b")
    w = warp(site([a, b]))
    eventually(lambda: verdicts(w) == ["down", "down"], "both down")
    started = time.monotonic()
    m = w.ask("/x")
    assert m.status == 503 and int(m.get("Retry-After")) > 0
    assert time.monotonic() - started < 1 * SLOW
    assert a.served + b.served == 0


def test_the_only_one(warp, backend):
    """Other than the breaker, checks shut out the only instance."""
    a = Gate(backend, BAD)
    w = warp(site(a))
    w.wait_stderr("is down")
    assert w.ask("/x").status == 503
    a.always = OK
    w.wait_stderr("is up again")
    assert w.ask("/x").status == 200


def test_two_upstreams_with_one_address(warp, backend):
    """Different paths, different fates."""
    def serve(c):
        m = c.request()
        return reply("app") if not is_probe(m) or m.target == "/good" else BAD
    b = backend([serve])
    w = warp(conf({"path_prefix": "/bad", "upstream": "bad"}, {"path_prefix": "/", "upstream": "good"},
                  good={"on": b, "health": health(path="/good")}, bad={"on": b, "health": health(path="/bad")}))
    w.wait_stderr("upstream bad: .* is down")
    seen = len(b.requests)
    eventually(lambda: len(b.requests) > seen + 10, "more probes")
    assert w.ask("/bad").status == 503
    assert w.ask("/good").status == 200
    assert verdicts(w) == ["down"] and "upstream good" not in w.stderr


# ---- what is asked ----------------------------------------------------------------

# reason: keys of the health section, keys of the upstream, the probe's line, its Host ({p}: the port)
QUESTIONS = {
    "presets": ({}, {}, "GET /up HTTP/1.1", "127.0.0.1:{p}"),
    "query": ({"path": "/up?a=b%20c&d"}, {}, "GET /up?a=b%20c&d HTTP/1.1", "127.0.0.1:{p}"),
    "method": ({"method": "HEAD"}, {}, "HEAD /up HTTP/1.1", "127.0.0.1:{p}"),
    "method of its own": ({"method": "PING"}, {}, "PING /up HTTP/1.1", "127.0.0.1:{p}"),
    "host": ({"host": "app.example:81"}, {}, "GET /up HTTP/1.1", "app.example:81"),
}


@pytest.mark.parametrize("reason", QUESTIONS)
def test_question(warp, backend, reason):
    keys, up, line, host = QUESTIONS[reason]
    a = Gate(backend, OK)
    warp(site(a, up, **keys))
    m = a.arrives()
    assert m.line == line and m.all("Host") == [host.format(p=a.port)], reason
    assert re.fullmatch(r"warp/[\d.]+ \(health\)", m.get("User-Agent"))
    assert m.all("Connection") == ["close"] and not m.has("Content-Length") and len(m.fields) == 3
    assert a.b.conn(0).closed.wait(TIMEOUT), "the connection is closed after the answer"


def test_question_on_a_unix_socket(warp, backend):
    a = Gate(backend, OK, unix=True)
    warp(site(a))
    assert a.arrives().all("Host") == ["localhost"]


def test_other_port(warp, backend):
    """The port that is probed is not the one that serves."""
    a, p = Gate(backend, OK), Gate(backend)
    w = warp(site(a, port=p.port))
    assert p.arrives().all("Host") == ["127.0.0.1:%d" % p.port]
    p.answers.put(BAD)
    p.say(BAD, BAD)
    w.wait_stderr(r"127\.0\.0\.1:%d is down: status 500" % a.port)
    assert a.probes == []


@pytest.mark.parametrize("version, want", [("v1", b"PROXY UNKNOWN\r\nGET /up HTTP/1.1\r\n"),
    ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /up HTTP/1.1\r\n")])
def test_proxy_protocol(warp, backend, version, want):
    """A backend that expects a PROXY header gets one from probes as well: about nobody."""
    b = backend([lambda c: c.until(b"\r\n\r\n" if c.backend.name == "v1" else b"(health)") and None, OK], name=version)
    w = warp(site(b, {"proxy_protocol": version}))
    eventually(lambda: len(b.conns) > 4, "probes")
    assert b.conn(0).raw.startswith(want)
    assert verdicts(w) == []


def test_only_connect(warp, backend):
    """Without a path nothing is said."""
    b = backend([])
    w = warp(site(b, path=None, unhealthy_threshold=1))
    eventually(lambda: len(b.conns) > 3, "probes")
    assert b.conn(0).closed.wait(TIMEOUT) and b.conn(0).raw == b""
    assert verdicts(w) == []


@pytest.mark.parametrize("path", [None, "/up"])
def test_refused(warp, backend, path):
    """Nobody listens; then somebody does."""
    port = free_port()
    w = warp(conf(app={"host": "127.0.0.1", "port": port, "health": health(path=path)}))
    w.wait_stderr(r"upstream app: 127\.0\.0\.1:%d is down: connect refused \(3 of 3\)" % port)
    backend(port=port)
    w.wait_stderr(r"upstream app: 127\.0\.0\.1:%d is up again" % port)


@pytest.mark.parametrize("path", [None, "/up"])
def test_no_socket(warp, backend, tmp_path, path):
    """No such file; then there is one, and it is left behind without listener."""
    sock = str(tmp_path / "s")
    w = warp(conf(app={"socket": sock, "health": health(path=path)}))
    w.wait_stderr(r"upstream app: unix:%s is down: connect: No such file or directory \(3 of 3\)" % sock)
    b = backend(unix=sock)
    w.wait_stderr("is up again")
    b.close()
    w.wait_stderr(r"is down: connect refused \(3 of 3\)")


def test_no_name(warp):
    w = warp(conf(app={"host": "nowhere.invalid", "port": 1, "health": health()}))
    w.wait_stderr(r"upstream app: nowhere\.invalid:1 is down: its name does not resolve \(3 of 3\)")


# ---- what it answers ----------------------------------------------------------------

# expect_status: the statuses that pass, those that do not
EXPECT = {
    None: ((200, 204, 301, 399), (400, 404, 500, 599)),
    "200-299": ((200, 299), (300, 404)),
    "204": ((204,), (200, 205)),
    204: ((204,), (200, 203)),
    ("200-299", 401): ((200, 299, 401), (300, 400, 402)),
    (200, "500-599"): ((200, 500, 599), (201, 499)),
}


@pytest.mark.parametrize("expect", EXPECT, ids=str)
def test_expect(warp, backend, expect):
    passing, failing = EXPECT[expect]
    a = Gate(backend)
    w = warp(site(a, expect_status=expect, unhealthy_threshold=1, healthy_threshold=1))
    for i, status in enumerate(failing):
        a.say(reply("", status="%d X" % status))
        a.arrives()
        assert re.findall(r"is down: status (\d+) \(1 of 1\)", w.stderr) == [str(s) for s in failing[:i + 1]], status
        a.answers.put(reply("", status="%d X" % passing[i % len(passing)]))
        eventually(lambda: w.stderr.count("is up again") == i + 1, "up with a %d" % passing[i % len(passing)])
    a.say(*(reply("", status="%d X" % s) for s in passing))
    a.arrives()
    assert w.stderr.count("is down") == len(failing), "all of %s pass" % (passing,)
    a.answers.put(OK)


def drip(c):
    """Byte by byte, without end."""
    c.send(b"HTTP/1.1 200 OK\r\nX: ")
    while not c.backend.closing:
        c.send(b"x")
        time.sleep(0.02)


BIG = b"HTTP/1.1 200 OK\r\n" + b"X: %s\r\n" % (b"y" * 4000) * 6
# reason: script behind the request, the words
FAILURES = {
    "closes": ([CLOSE], "closed without an answer"),
    "ends": ([FIN], "closed without an answer"),
    "resets": ([RST], "closed without an answer"),
    "half a head": ([b"HTTP/1.1 200 OK\r\nA: b\r\n", CLOSE], "closed within its answer"),
    "only 1xx": ([b"HTTP/1.1 100 Continue\r\n\r\n", CLOSE], "closed within its answer"),
    "another protocol": ([b"SSH-2.0-OpenSSH_9.2\r\n"], "sent no HTTP.*"),
    "HTTP/0.9": ([b"<html>hello\r\n</html>"], "sent no HTTP.*"),
    "a bad status": ([b"HTTP/1.1 2000 OK\r\n\r\n"], "sent a malformed head.*"),
    "HTTP/2": ([b"HTTP/2.0 200 OK\r\n\r\n"], "sent (a malformed head|no HTTP).*"),
    "a head without end": ([BIG], "sent a head (too long|of more than 16384 bytes).*"),
    "a head too long": ([BIG + b"\r\n"], "sent a head (too long|of more than 16384 bytes).*"),
    "1xx without end": ([b"HTTP/1.1 102 Processing\r\n\r\n" * 10000], "sent .*"),
    "hangs": ([], r"no answer in 0\.3 s"),
    "hangs in the head": ([b"HTTP/1.1 200 OK\r\n"], r"no whole answer in 0\.3 s"),
    "hangs behind 1xx": ([b"HTTP/1.1 100 Continue\r\n\r\n"], r"no whole answer in 0\.3 s"),
    "drips": ([drip], r"no whole answer in 0\.3 s"),
    "switches": ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], "status 101"),
}


@pytest.mark.parametrize("reason", FAILURES)
def test_failure(warp, backend, reason):
    """Each has its words, and its connections are gone."""
    script, words = FAILURES[reason]
    b = backend([lambda c: c.begin() and None, *script], record=False)
    w = warp(site(b, timeout_secs=0.3 if "in 0" in words else 2 * TIMEOUT))
    w.wait_stderr(r"is down: %s \(3 of 3\)$" % words)
    eventually(lambda: b.conns[0].closed.is_set(), "the first one closed")


# reason: script behind the request
PASSES = {
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\n\r\nbody"],
    "1xx first": [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK],
    "in pieces": [b"HTTP/1.1 2", lambda c: time.sleep(0.02), b"00 OK\r\nContent-Le", lambda c: time.sleep(0.02), b"ngth: 0\r\n\r\n"],
    "a body without end": [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300000],
    "a body that is not sent": [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
    "a bad body": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
}


@pytest.mark.parametrize("reason", PASSES)
def test_pass(warp, backend, reason):
    """The head is enough; the body is not waited for."""
    b = backend([lambda c: c.begin() and None, *PASSES[reason]], record=False)
    w = warp(site(b, unhealthy_threshold=1))
    eventually(lambda: len(b.conns) > 3 and b.conns[2].closed.is_set(), "probes")
    assert verdicts(w) == []


def test_no_connection(warp, blackhole):
    w = warp(site(blackhole, timeout_secs=0.2))
    w.wait_stderr(r"is down: no connection in 0\.2 s \(3 of 3\)$")


def test_full_backlog_of_a_unix_socket(warp, tmp_path):
    """Nobody accepts: connecting neither succeeds nor fails."""
    sock = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(sock)
        s.listen(0)
        first = connect(sock)
        w = warp(conf(app={"socket": sock, "health": health(timeout_secs=0.2)}))
        w.wait_stderr(r"is down: no connection in 0\.2 s \(3 of 3\)$")
        first.close()


# ---- when ---------------------------------------------------------------------------

def test_pace(warp, backend):
    """With jitter the mean is the interval; the first comes promptly."""
    a = Gate(backend, OK)
    started = time.monotonic()
    warp(site(a, interval_secs=0.2, jitter=True))
    a.more(12)
    assert a.times[0] - started < 1.5 * SLOW
    mean = (a.times[11] - a.times[1]) / 10                # the first rest is any part of an interval
    assert 0.18 <= mean < 0.25 * SLOW


def test_one_at_a_time(warp, backend):
    """With two workers only one asks, and the next probe waits for the end of the one before."""
    a = Gate(backend)
    w = warp(site(a, server={"worker_threads": 2}, interval_secs=0.01))
    a.arrives()
    with pytest.raises(queue.Empty):
        a.arrived.get(timeout=0.5)
    for _ in range(3):
        a.answers.put(OK)
        a.arrives()
    assert len(a.b.conns) == 4 and verdicts(w) == []
    a.always = OK
    a.answers.put(OK)


def test_nothing_is_left_open(warp, backend, blackhole):
    """Probes that pass, fail, hang and are refused: as many descriptors after many as after few."""
    good, hang = Gate(backend, OK, name="good"), backend([lambda c: c.begin() and None], name="hang")
    nobody = {"host": "127.0.0.1", "port": free_port()}
    w = warp(conf({"path_prefix": "/", "upstream": "good"},
                  good={"on": [good, nobody, hang, blackhole], "health": health(timeout_secs=0.05)}))
    worker = int(re.search(r"worker\[(\d+)\]", w.wait_stderr(r"worker\[\d+\] warn: .* is down: no answer").group())[1])

    def descriptors():
        return len(os.listdir("/proc/%d/fd" % worker))
    good.more(3)
    eventually(lambda: len(verdicts(w)) == 3, "three down")
    few = descriptors()
    good.more(40)
    eventually(lambda: abs(descriptors() - few) <= 4, "as many as before")
    counts = [descriptors() for _ in range(50)]
    assert max(counts) <= few + 4, "%s, before %d" % (counts, few)     # one probe of each may run


# ---- who ----------------------------------------------------------------------------

def test_kept_over_reload(warp, backend):
    """What was down stays down, why, and how far the count was."""
    a, b = Gate(backend, name="a"), Gate(backend, OK, name="b")
    w = warp(site([a, b]))
    a.say(BAD, BAD, BAD)
    w.wait_stderr("is down")
    a.say(OK)
    a.arrives()                                              # counted: one of two
    w.write(site([a, b], {"retries": 1}))
    w.signal(signal.SIGHUP)
    a.arrives()                                              # the new worker's
    assert shares(w) == {"b"}
    assert verdicts(w) == ["down"], "no second verdict"
    a.answers.put(OK)                                        # to the old one's, which has left
    a.answers.put(OK)
    w.wait_stderr("is up again")
    assert shares(w) == {"a", "b"}


def test_section_taken_away_and_back(warp, backend):
    """Without checks no old verdict holds."""
    a = Gate(backend, BAD)
    w = warp(site(a))
    w.wait_stderr("is down")
    assert w.ask("/x").status == 503
    w.write(conf(app=a))
    w.signal(signal.SIGHUP)
    eventually(lambda: w.ask("/x").status == 200, "not checked, not shut out")
    seen = len(a.probes)
    a.always = OK
    w.write(site(a))
    w.signal(signal.SIGHUP)
    eventually(lambda: len(a.probes) > seen + 3, "checked again")
    assert w.ask("/x").status == 200 and verdicts(w) == ["down"]


def test_draining_worker_is_silent(warp, backend):
    """An old worker that finishes a request sends no more probes."""
    done = threading.Event()
    a = Gate(backend, OK, name="a")

    def slow(c):
        c.request()
        done.wait(4 * TIMEOUT)
        return OK
    b = backend([slow], name="slow")
    routes = [{"path_prefix": "/slow", "upstream": "slow"}, {"path_prefix": "/", "upstream": "app"}]
    w = warp(conf(*routes, app={"on": a, "health": health()}, slow=b))
    a.more(2)
    old = set(w.children())
    with w.client() as c:
        c.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        b.request(0)
        w.write(conf(*routes, app=a, slow=b))
        w.signal(signal.SIGHUP)
        eventually(lambda: w.ask("/x").text == "a" and set(w.children()) - old, "the new worker")
        seen = None
        for _ in range(100):                                 # the last one may be on its way
            seen, before = len(a.probes), seen
            if seen == before:
                break
            time.sleep(4 * INTERVAL)
        assert seen == before, "probes go on"
        assert old & set(w.children()), "the old worker is still there"
        done.set()
        assert c.response().status == 200


def test_checker_killed(warp, backend):
    """Another worker goes on with the count; needs the master to name it."""
    a, b = Gate(backend, BAD, name="a"), Gate(backend, OK, name="b")
    w = warp(site([a, b], server={"worker_threads": 2}))
    checker = int(w.wait_stderr(r"worker\[(\d+)\] warn: upstream app: \S+ is down")[1])
    os.kill(checker, signal.SIGKILL)
    w.wait_stderr(r"worker %d died of signal 9" % checker)
    a.more(2)
    assert shares(w) == {"b"}
    a.always = OK
    other = int(w.wait_stderr(r"worker\[(\d+)\] info: upstream app: \S+ is up again")[1])
    assert other != checker and shares(w) == {"a", "b"}
