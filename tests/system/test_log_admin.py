"""The access log and the admin socket: what an operator sees of warp."""
import base64
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time

import pytest

from lib import RST, REQ, TIMEOUT, Client, chunks, conf, eventually, free_port, read, reply, request, toml_file

SOCK = "@DIR@/admin.sock"
COMBINED = re.compile(r'(?P<client>\S+) - (?P<user>\S+) \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] '
                      r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"')


class Admin:
    """The admin socket of a warp: one request on a connection of its own."""

    def __init__(self, addr):
        self.addr = addr

    def ask(self, target, *fields, method="GET"):
        with Client(self.addr) as c:
            return c.ask(target, *fields, method=method)

    def status(self):
        m = self.ask("/status")
        assert (m.status, m.get("content-type")) == (200, "application/json")
        return m.json

    def metrics(self):
        return samples(self.ask("/metrics").text)


def admin_of(w):
    return Admin(w.path("admin.sock"))


def logged(*routes, format=None, access="@DIR@/access.log", **kw):
    """A configuration with an access log and an admin socket."""
    log = {"access": access, **({"format": format} if format else {})}
    return conf(*routes, log=log, admin={"listen": [SOCK]}, **kw)


def start(warp, c, *args, **kw):
    """warp with c, a dict in which @DIR@ is still to be replaced."""
    return warp(toml_file(c), *args, **kw)


def lines(w, n=1, name="access.log"):
    """The first n lines of the log, waited for; none is torn."""
    def read():
        try:
            with open(w.path(name), "rb") as f:
                text = f.read()
        except FileNotFoundError:
            return []
        got = text.split(b"\n")
        return got[:-1] if len(got) > n else None
    got = eventually(read, "%d lines in %s" % (n, name))
    return [g.decode("utf-8") for g in got]


# ---- the access log ---------------------------------------------------------------

def test_combined(warp, backend):
    b = backend([REQ, reply(b"hello", "Content-Type: text/plain")])
    w = start(warp, logged(app=b, format="combined"))
    assert w.ask("/a?b=1", "Referer: http://r/x", 'User-Agent: a"b\\c', "Authorization: Basic "
                 + base64.b64encode(b"anna:pw").decode(), method="POST", body=b"xyz").status == 200
    m = COMBINED.fullmatch(lines(w)[0])
    assert m, lines(w)
    assert m["client"] == "127.0.0.1" and m["user"] == "anna" and m["request"] == "POST /a?b=1 HTTP/1.1"
    assert (m["status"], m["bytes"], m["referer"], m["agent"]) == ("200", "5", "http://r/x", r"a\x22b\x5Cc")
    assert abs(time.mktime(time.strptime(m["time"][:20], "%d/%b/%Y:%H:%M:%S")) - time.time()) < 60, "local time"


def test_json(warp, backend):
    b = backend([REQ, b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"abc", b"defg")])
    w = start(warp, logged(app=b, format="json"))
    m = w.ask("/x?y", "Referer: r\xc3\xa9", "User-Agent: \xff\x09", host="shop.example")
    assert m.status == 201
    got = json.loads(lines(w)[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", got.pop("time"))
    assert 0 <= got.pop("upstream_secs") <= got.pop("secs") < TIMEOUT
    assert got.pop("request_id") == b.last.get("x-request-id")
    assert got == {"client": "127.0.0.1", "method": "GET", "uri": "/x?y", "host": "shop.example", "status": 201,
                   "bytes": 7, "upstream": "app", "instance": "127.0.0.1:%d" % b.port, "referer": "ré",
                   "user_agent": "\xff", "protocol": "HTTP/1.1"}


@pytest.mark.parametrize("format, want", [
    ("$status $bytes", "200 2"), ("$method $uri", "GET /p"), ("$http_x_some_field!", "a b!"), ("$http_none", "-"),
    ("$upstream $instance", "- -"), ("$route", "the route"), ("<$referer>", "<->"), ("$client", "127.0.0.1")])
@pytest.mark.promise("S2-73")
def test_pattern(warp, format, want):
    w = start(warp, logged({"respond": {"status": 200, "body": "ok"}, "description": "the route"}, format=format))
    assert w.ask("/p", "X-Some-Field: a b").status == 200
    assert lines(w) == [want]


def test_pattern_that_is_json(warp):
    """Whatever a value is, a pattern that begins as JSON does makes JSON."""
    w = start(warp, logged({"respond": {"status": 200}, "description": 'the "one"'}, format='{"s":$status,"a":"$http_x","r":"{route}","n":"$referer","u":$upstream_secs}'))
    assert w.ask("/", 'X: a"b\\c\t\xe9').status == 200
    assert json.loads(lines(w)[0]) == {"s": 200, "a": 'a"b\\c\t\xe9', "r": 'the "one"', "n": "-", "u": None}


@pytest.mark.promise("S2-81")
def test_off_unless_asked(warp, backend):
    w = warp(conf(app=backend()))
    assert w.ask().status == 200
    w.stop()
    assert w.stdout == ""


@pytest.mark.promise("S2-81")
def test_log_requests_and_stdout(warp, backend):
    w = warp(conf(app=backend(), middleware={"log_requests": True}))
    assert w.ask("/one").status == 200
    assert w.wait_stdout(r'^127\.0\.0\.1 - - \[.*\] "GET /one HTTP/1\.1" 200 ')


def test_every_ending_is_a_line(warp, backend):
    """Refused, gone, cut, without a backend: each is logged with its status."""
    b = backend([REQ, RST], [REQ, lambda c: c.closed.wait(TIMEOUT) and None])
    dead = {"host": "127.0.0.1", "port": free_port()}
    w = start(warp, logged({"path_prefix": "/dead", "upstream": "dead"}, {"path_prefix": "/"}, format="json",
                           app={"on": b, "retries": 0, "keepalive": 0}, dead=dead))
    with w.client() as c:
        assert c.send("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n").response().status == 400
    assert w.ask("/dead").status == 502
    assert w.ask("/rst", method="POST", body=b"x").status == 502
    with w.client() as c:
        c.send(request("/gone"))
        b.request(1)
        c.rst()
    with w.client() as c:
        c.send(b"nonsense\r\n\r\n")
        assert c.response().status == 400
    got = [json.loads(x) for x in lines(w, 5)]
    assert sorted(x["status"] for x in got) == [400, 400, 499, 502, 502]
    gone = next(x for x in got if x["status"] == 499)
    assert gone["uri"] == "/gone" and gone["upstream"] == "app"
    refused = [x for x in got if x["status"] == 400]
    assert all(not x.keys() & {"method", "uri", "host", "protocol"} for x in refused), "what was no head has no parts"


def test_hostile_values_stay_one_line(warp, backend):
    w = start(warp, logged(app=backend(), format="json"))
    bad = ['"', "\\", "\x7f", "\xc3\xa9", "\xc3", "\xff\xfe", "\xed\xa0\x80", "\\u0000", "</script>", "'"]
    for v in bad:
        assert w.ask("/", "User-Agent: x" + v).status in (200, 400), v
    got = lines(w, len(bad))
    assert len(got) == len(bad) and all(isinstance(json.loads(x), dict) for x in got)
    assert json.loads(got[3])["user_agent"] == "xé"


def test_trusted_client_is_logged(warp, backend):
    w = start(warp, logged(app=backend(), format="$client", server={"trusted_proxies": ["127.0.0.0/8"]}))
    w.ask("/", "X-Forwarded-For: 203.0.113.7")
    w.ask("/", "X-Forwarded-For: 2001:db8::1")
    assert lines(w, 2) == ["203.0.113.7", "2001:db8::1"]


def test_written_when_warp_stops(warp, backend):
    for sig in (signal.SIGTERM, signal.SIGQUIT):
        w = start(warp, logged(app=backend(), format="$uri"))
        for i in range(3):
            assert w.ask("/%d" % i).status == 200
        w.stop(sig)
        with open(w.path("access.log")) as f:
            assert f.read() == "/0\n/1\n/2\n", "lines that waited are not lost"


def test_reopen(warp, backend):
    w = start(warp, logged(app=backend(), format="$uri"))
    w.ask("/before")
    lines(w)
    os.rename(w.path("access.log"), w.path("old.log"))
    w.signal(signal.SIGUSR1)
    w.wait_stderr("logs reopened")
    eventually(lambda: os.path.exists(w.path("access.log")))

    def moved():
        w.ask("/after")
        return os.path.getsize(w.path("access.log"))
    eventually(moved, "lines in the new file")
    assert set(lines(w)) == {"/after"}


def open_files(pid):
    return [os.readlink("/proc/%s/fd/%s" % (pid, n)) for n in os.listdir("/proc/%s/fd" % pid)]


@pytest.mark.parametrize("who, text", [("resolver", '[upstreams.a]\nhost = "no-such-host.invalid"\nport = 1\n'),
                                       ("postgres", '[postgres]\nurl = "postgres://a@127.0.0.1:@PORT@1/a"\n')],
                         ids=["resolver", "postgres"])
def test_helpers_of_a_reload_have_its_log(warp, tmp_path, who, text):
    """They are started before it is committed."""
    text = text.replace("@PORT@1", str(free_port())) + '[[routes]]\nrespond = { status = 200, body = "ok" }\n'
    w = warp(text + '[log]\nerror = "@DIR@/a.log"\n')
    w.write(text + '[log]\nerror = "@DIR@/b.log"\n')
    w.signal(signal.SIGHUP)
    m = eventually(lambda: re.search(r" %s\[(\d+)\] warn: " % who, read(w.path("b.log"))), "its words in the new file", 2 * TIMEOUT)
    eventually(lambda: not any(f.endswith("/a.log") for f in open_files(m[1])), "the old file is nobody's")


def test_reload_changes_the_format(warp, backend):
    b = backend()
    w = start(warp, logged(app=b, format="$uri"))
    w.ask("/before")
    w.write(toml_file(logged(app=b, format="$method $uri")))
    assert admin_of(w).ask("/reload", method="POST").status == 200

    def changed():
        w.ask("/after")  # a worker of before may still take it
        return "GET /after" in lines(w)
    eventually(changed)
    assert set(lines(w)) <= {"/before", "/after", "GET /after"}


@pytest.mark.limit(40)
def test_workers_do_not_tear_lines(warp):
    """Several workers on one pipe, lines of every length: each whole, each once."""
    n, w = 400, warp(conf({"respond": {"status": 200}}, server={"worker_threads": 4},
                          log={"access": "stdout", "format": "json"}))
    for k in range(8):
        with w.client() as c:
            for i in range(n // 8):
                assert c.ask("/%d/%s" % (k * (n // 8) + i, "x" * (i * 37 % 3000))).status == 200
    w.stop()
    got = [json.loads(x)["uri"].split("/")[1] for x in w.stdout.splitlines()]
    assert sorted(map(int, got)) == list(range(n))


@pytest.mark.limit(40)
def test_slow_reader_never_stops_warp(warp, tmp_path):
    """A log that nobody reads: requests go on, lines are dropped, counted and said."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDWR | os.O_NONBLOCK)
    w = start(warp, logged({"respond": {"status": 200}}, access=str(tmp_path / "log"), format="$uri",
                           server={"worker_threads": 2}))
    asked = 0
    while admin_of(w).metrics()["warp_log_dropped_total"] == 0:
        with w.client() as c:
            for _ in range(20):
                assert c.ask("/%d/%s" % (asked, "x" * 3000)).status == 200
                asked += 1
        assert asked < 3000
    w.wait_stderr("access log: .*lines lost")
    got = []

    def read():
        try:
            got.append(os.read(reader, 1 << 20))
        except BlockingIOError:
            return admin_of(w).ask("/health").status == 200 and b"/last" in b"".join(got)
        w.ask("/last/" + "x" * 3000)
    eventually(read, "the rest, once it is read again")
    w.stop()
    os.close(reader)
    text = b"".join(got)
    seen = [x.split(b"/") for x in text.split(b"\n")[:-1]]
    assert text.endswith(b"\n") and all(len(x[2]) == 3000 for x in seen), "no line is torn"
    numbers = [x[1] for x in seen if x[1] != b"last"]
    assert len(set(numbers)) == len(numbers) > 20, "each once"


def test_long_target_fits_in_a_pipe(warp):
    w = warp(conf({"respond": {"status": 200}}, log={"access": "stdout", "format": "json"}))
    assert w.ask("/" + "%22" * 4000).status == 200
    got = json.loads(w.wait_stdout(r"^\{.*\}$")[0])
    assert got["uri"].startswith("/%22%22") and len(got["uri"]) < 4096 and got["status"] == 200


# ---- who may ask ----------------------------------------------------------------------

def test_unix_socket_is_private(warp):
    w = start(warp, logged({"respond": {"status": 200}}))
    st = os.stat(w.path("admin.sock"))
    assert stat.S_ISSOCK(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o600
    a = admin_of(w)
    assert a.ask("/health").text == "ok\n"
    assert a.ask("/health", "X-Admin-Token: whatever").status == 200


@pytest.mark.parametrize("fields, status", [
    ([], 401), (["X-Admin-Token: t0ken"], 200), (["Authorization: Bearer t0ken"], 200),
    (["X-Admin-Token: t0keN"], 401), (["X-Admin-Token:"], 401), (["Authorization: Bearer"], 401),
    (["Authorization: Basic t0ken"], 401), (["X-Admin-Token: t0kent0ken"], 401)])
def test_token(warp, fields, status):
    port = free_port()
    w = warp(conf({"respond": {"status": 200}}, admin={"listen": ["127.0.0.1:%d" % port], "token": "t0ken"}))
    for target in ("/health", "/status", "/nope"):
        got = Admin(port).ask(target, *fields)
        assert got.status == (404 if (target, status) == ("/nope", 200) else status), target
    if status == 401:
        assert got.get("www-authenticate", "").startswith("Bearer")
        assert "/metrics" not in got.text, "nothing is learned without the token"
        assert Admin(port).ask("/stop", *fields, method="POST").status == 401
        assert w.ask("/").status == 200


def test_no_token_no_tcp(warp):
    port = free_port()
    warp(conf({"respond": {"status": 200}}, admin={"listen": ["127.0.0.1:%d" % port]}))
    for fields in ([], ["X-Admin-Token:"], ["X-Admin-Token: x"], ["Authorization: Bearer "]):
        got = Admin(port).ask("/status", *fields)
        assert got.status == 403 and "admin.token" in got.text


def test_only_a_socket_file_needs_no_token(warp):
    """An inherited descriptor may be TCP; an abstract socket has no mode that guards it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port, name = s.getsockname()[1], "@warp-test-%d" % os.getpid()
        warp(conf({"respond": {"status": 200}}, admin={"listen": ["fd://%d" % s.fileno(), name]}),
             pass_fds=[s.fileno()])
        assert Admin(port).ask("/health").status == 403
        assert Admin(name).ask("/health").status == 403


# ---- what is there ---------------------------------------------------------------------

@pytest.mark.parametrize("method, target, status, allow", [
    ("GET", "/", 200, None), ("HEAD", "/status", 200, None), ("GET", "/nope", 404, None), ("GET", "/status/", 404, None),
    ("POST", "/status", 405, "GET, HEAD"), ("DELETE", "/health", 405, "GET, HEAD"), ("GET", "/reload", 405, "POST"),
    ("GET", "/restart/app", 405, "POST"), ("POST", "/restart/app", 404, None), ("POST", "/purge/x", 404, None)])
def test_endpoints(warp, method, target, status, allow):
    w = start(warp, logged({"respond": {"status": 200}}))
    got = admin_of(w).ask(target, method=method)
    assert got.status == status and got.get("allow") == allow
    if status == 404 and method == "GET":
        assert all(x in got.text for x in ("/status", "/metrics", "/health", "/config", "/reload"))
    if target == "/purge/x":
        assert got.text == "there is no cache; see cache.size_bytes\n"


def test_requests_of_the_admin_are_not_counted_or_routed(warp):
    w = start(warp, logged({"respond": {"status": 200}}, format="$uri"))
    for _ in range(3):
        assert admin_of(w).status()["requests"] == 0
    assert w.ask("/status").body == b"", "the route answers"
    assert lines(w) == ["/status"]


@pytest.fixture
def busy(warp, backend):
    """A warp that has seen: 3 answers of a, 2 of dead's 502, a 404, a 499."""
    a, dead = backend(name="a"), {"host": "127.0.0.1", "port": free_port()}
    hang = backend([REQ, lambda c: c.closed.wait(TIMEOUT) and None])
    w = start(warp, logged({"path_prefix": "/dead", "upstream": "dead"}, {"path_prefix": "/hang", "upstream": "hang"},
                           {"path_prefix": "/404", "respond": {"status": 404, "body": "four"}},
                           {"path_prefix": "/", "upstream": "app", "description": 'say "hi"'},
                           app=a, dead=dead, hang=hang, server={"worker_threads": 2}))
    for t in ("/", "/x", "/dead", "/dead/", "/404"):
        w.ask(t)
    assert w.ask("/", method="POST", body=b"12345").status == 200
    with w.client() as c:
        c.send(request("/hang"))
        hang.request(0)
        c.rst()
    w.a, w.dead, w.admin = a, dead, admin_of(w)
    eventually(lambda: w.admin.status()["requests"] == 7, "7 requests")
    return w


def test_status_json(busy):
    s = busy.admin.status()
    assert s["pid"] == busy.pid and s["generation"] == 1 and s["reloads"] == 0 and 0 <= s["uptime_secs"] < 60
    assert s["codes"] == {"aborted": 1, "1xx": 0, "2xx": 3, "3xx": 0, "4xx": 1, "5xx": 2}
    assert len(s["workers"]) == 2 and sum(x["requests"] for x in s["workers"]) == 7
    assert {x["pid"] for x in s["workers"]} <= set(busy.children()) and {x["state"] for x in s["workers"]} == {"ready"}
    assert s["bytes_in"] == 5 and s["bytes_out"] > 4 and s["accepted"] >= 7
    assert [x["kind"] for x in s["listeners"]] == ["http", "admin"]
    app, dead, hang = (u["instances"][0] for u in s["upstreams"])
    assert [u["name"] for u in s["upstreams"]] == ["app", "dead", "hang"] and s["upstreams"][0]["strategy"] == "round_robin"
    assert app["address"] == "127.0.0.1:%d" % busy.a.port and app["state"] == "up" and app["why"] == ""
    assert (app["requests"], app["failures"], app["in_flight"]) == (3, 0, 0) and app["latency_ms"] > 0
    assert (dead["requests"], dead["failures"]) == (0, 2) and dead["codes"]["none"] == 2
    assert hang["in_flight"] == 0 and hang["failures"] == 0, "the client left: not the backend's failure"
    assert len(s["routes"]) == 4 and s["routes"][0]["match"] == "path_prefix=/dead"
    assert s["routes"][0]["action"] == "upstream dead" and 'say "hi"' in s["routes"][3]["action"]
    assert all(r["line"] > 0 for r in s["routes"])


def test_status_text(busy):
    """Blocks of aligned columns: as many cells in each line as in the head."""
    m = busy.admin.ask("/status?format=text")
    assert m.get("content-type") == "text/plain; charset=utf-8"
    blocks = [b.splitlines() for b in m.text.rstrip("\n").split("\n\n")]
    tables = {}
    for head, *rows in blocks:
        assert all(len(r.split()) == len(head.split()) for r in rows), m.text
        tables[head.split()[0]] = [dict(zip(head.split(), r.split())) for r in rows]
    assert tables["VERSION"][0]["REQUESTS"] == "7" and tables["VERSION"][0]["PID"] == str(busy.pid)
    assert len(tables["WORKER"]) == 2
    assert [(i["UPSTREAM"], i["STANDING"], i["FAILURES"]) for i in tables["UPSTREAM"]] == [
        ("app", "up", "0"), ("dead", "up", "2"), ("hang", "up", "0")]


def test_breaker_and_names_show_why(warp, backend):
    b = backend()
    bad = {"host": "127.0.0.1", "port": free_port()}
    w = start(warp, logged({"path_prefix": "/n", "upstream": "names"}, {"path_prefix": "/"}, app={
        "on": [b, bad], "max_fails": 1, "fail_timeout_secs": 60},
        names={"host": "no-such-host.invalid", "port": 80}))
    for _ in range(4):
        assert w.ask("/").status == 200
    app, names = admin_of(w).status()["upstreams"]
    good, failing = app["instances"]
    assert good["state"] == "up" and failing["state"] == "failing"
    assert re.fullmatch(r"1 failure, tried again in \d+ s", failing["why"])
    assert names["instances"][0]["state"] == "unresolved" and "resolve" in names["instances"][0]["why"]
    up = {k: v for k, v in admin_of(w).metrics().items() if k.startswith("warp_instance_up")}
    assert sorted(up.values()) == [0, 0, 1]


# ---- /metrics ---------------------------------------------------------------------------

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)')


def samples(text):
    """Samples of the text format 0.0.4, as strictly as promtool reads it: {name{labels}: value}."""
    assert text.endswith("\n")
    out, types, helped, family, closed = {}, {}, set(), None, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, help = line[7:].split(" ", 1)
            assert name not in helped and help, line
            helped.add(name)
            continue
        if line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert kind in ("counter", "gauge", "histogram") and name in helped and name not in types
            assert (kind == "counter") == name.endswith("_total"), "%s is a %s" % (name, kind)
            types[name], family = kind, name
            assert name not in closed, "samples of one family stand together"
            closed.add(name)
            continue
        m = SAMPLE.fullmatch(line)
        assert m, line
        base = re.sub("_(bucket|sum|count)$", "", m[1]) if types[family] == "histogram" else m[1]
        assert base == family, "%s below TYPE %s" % (m[1], family)
        key = m[1] + (m[2] or "")
        assert key not in out, "twice: " + key
        out[key] = float(m[3])
    return out


def test_metrics(busy):
    m = busy.admin.ask("/metrics")
    assert m.get("content-type").startswith("text/plain; version=0.0.4")
    s = samples(m.text)
    assert {k[26:-2]: v for k, v in s.items() if k.startswith("warp_requests_total")} == {
        "aborted": 1, "1xx": 0, "2xx": 3, "3xx": 0, "4xx": 1, "5xx": 2}
    b = [(float(re.search('le="(.*)"', k)[1]), v) for k, v in s.items() if k.startswith("warp_request_seconds_bucket")]
    assert b == sorted(b) and b[-1][0] == float("inf") and [v for _, v in b] == sorted(v for _, v in b), "cumulative"
    assert b[-1][1] == s["warp_request_seconds_count"] == 7 and s["warp_request_seconds_sum"] > 0
    inst = '{upstream="%s",instance="127.0.0.1:%d"}'
    assert s["warp_instance_requests_total" + inst % ("app", busy.a.port)] == 3
    assert s["warp_instance_failures_total" + inst % ("dead", busy.dead["port"])] == 2
    assert s["warp_instance_in_flight" + inst % ("app", busy.a.port)] == 0
    assert s["warp_instance_up" + inst % ("app", busy.a.port)] == 1
    assert s['warp_workers{state="ready"}'] == 2 and s["warp_reloads_total"] == 0 and s["warp_log_dropped_total"] == 0
    assert s["warp_received_bytes_total"] == 5 and s["warp_sent_bytes_total"] > 4
    assert abs(s["warp_start_time_seconds"] - time.time()) < 60
    assert [k for k in s if k.startswith("warp_build_info{version=")]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is a second opinion: metrics() here is as strict")
def test_promtool(busy):
    p = subprocess.run(["promtool", "check", "metrics"], input=busy.admin.ask("/metrics").body, capture_output=True)
    assert p.returncode == 0, p.stdout + p.stderr


@pytest.mark.limit(40)
def test_counters_never_go_back(busy):
    """A reload and a killed worker take nothing away."""
    before = busy.admin.metrics()
    assert busy.admin.ask("/reload", method="POST").status == 200
    eventually(lambda: len(busy.admin.status()["workers"]) == 2, "the old workers left")
    after = busy.admin.metrics()
    assert after["warp_reloads_total"] == 1 and busy.admin.status()["generation"] == 2
    os.kill(busy.admin.status()["workers"][0]["pid"], signal.SIGKILL)
    busy.wait_stderr("died of signal 9")
    eventually(lambda: [x["state"] for x in busy.admin.status()["workers"]] == ["ready"] * 2, "a new worker")
    last = busy.admin.metrics()
    for k in before:
        if re.search(r"_total|_bucket|_sum|_count", k) and not re.search("cpu_seconds|route_hits", k):  # of who is there now
            assert before[k] <= after[k] <= last[k], k
    assert last["warp_request_seconds_count"] == 7
    eventually(lambda: busy.admin.metrics()["warp_connections"] == 1, "only who asks, nobody of the killed worker")


# ---- the configuration and the verbs ------------------------------------------------------

def test_config_masks_secrets(warp, backend):
    port = free_port()
    secrets = {"admin_token": "aaa-s3cret"}
    w = warp(conf({"require_auth": True, "path_prefix": "/a"},
                  {"basic_auth": {"anna": "bbb-s3cret"}, "add_headers": [{"name": "Authorization", "value": "ccc-s3cret"}]},
                  app=backend(), server=secrets, admin={"listen": ["127.0.0.1:%d" % port], "token": "ddd-s3cret"}))
    m = Admin(port).ask("/config", "X-Admin-Token: ddd-s3cret")
    assert m.status == 200 and m.get("content-type") == "application/json"
    assert "s3cret" not in m.text and "anna" in m.text
    assert m.json["server"]["admin_token"]["value"] == "***" and m.json["file"] == w.file
    for t in ("/status", "/status?format=text", "/metrics"):
        assert "s3cret" not in Admin(port).ask(t, "X-Admin-Token: ddd-s3cret").text


def test_reload_by_admin(warp, backend):
    b = backend()
    w = start(warp, logged(app=b))
    w.write("[server]\nnonsense = 1\n[admin]\nlisten = \"%s\"\n" % w.path("admin.sock"))
    m = admin_of(w).ask("/reload", method="POST")
    assert m.status == 409 and "nonsense" in m.text, "why, in the answer"
    assert w.ask("/").status == 200, "the old one goes on"
    w.write(toml_file(logged({"respond": {"status": 204}}, app=b)))
    m = admin_of(w).ask("/reload", method="POST")
    assert (m.status, m.text) == (200, "ok\n")
    eventually(lambda: w.ask("/").status == 204, "answers of the new one; the old may still take a few")


@pytest.mark.parametrize("verb", ["quit", "stop"])
def test_end_by_admin(warp, verb):
    w = start(warp, logged({"respond": {"status": 200}}))
    m = admin_of(w).ask("/" + verb, method="POST")
    assert (m.status, m.text) == (200, "ok\n")
    assert w.wait() == 0


def test_command_line_verbs(warp, run):
    w = start(warp, logged({"respond": {"status": 200}}))
    p = run("-s", "status", "-c", w.file)
    assert p.returncode == 0 and p.stdout.startswith("VERSION ") and str(w.pid) in p.stdout
    p = run("-s", "reload", "-c", w.file)
    assert p.returncode == 0 and p.stdout == "ok\n"
    p = run("-s", "restart", "app", "-c", w.file)
    assert p.returncode == 4 and "warp: no process 'app'" in p.stderr
    p = run("-s", "stop", "-c", w.file)
    assert p.returncode == 0
    assert w.wait() == 0


def test_admin_keeps_connections_and_pipelines(warp):
    w = start(warp, logged({"respond": {"status": 200}}))
    with Client(w.path("admin.sock")) as c:
        c.send(request("/health") + request("/metrics") + request("/health"))
        got = [c.response() for _ in range(3)]
    assert [m.status for m in got] == [200] * 3 and got[0].text == got[2].text == "ok\n"
    assert samples(got[1].text)["warp_connections"] >= 1


@pytest.mark.limit(40)
def test_status_of_many(warp):
    """Thousands of routes and hundreds of instances: bounded, and still good JSON."""
    routes = [{"path_prefix": "/r%d" % i, "respond": {"status": 200}} for i in range(3000)]
    inst = [{"host": "127.0.0.1", "port": 20000 + i} for i in range(300)]
    w = start(warp, logged(*routes, {"path_prefix": "/", "upstream": "app"}, app=inst))
    s = admin_of(w).status()
    assert len(s["routes"]) == 1000 and s["routes_not_shown"] == 2001 and len(s["upstreams"][0]["instances"]) == 300
    assert len([k for k in admin_of(w).metrics() if k.startswith("warp_instance_up")]) == 300
