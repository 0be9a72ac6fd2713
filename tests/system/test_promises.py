"""What WarpDrive's document promises, from its own configuration text: seeds/warpdrive.md. Only addresses and long times
in it are put elsewhere (put), and what it leaves out is added behind it."""
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest

import acme
import lib
import tls as tls_tools
from lib import ECHO, REQ, SANITIZED, SWITCH, TIMEOUT, UPGRADE, WAIT, Client, chunks, conf, eventually, free_port, reply, request, toml_file
from supervised import alive, gone, instances, kill, status, wait_state

promise = pytest.mark.promise
with open(os.path.join(lib.ROOT, "tests/seeds/warpdrive.md")) as seed:
    DOCUMENT = seed.read()


def block(heading, kind="toml"):
    """The first block of that kind below a heading."""
    return re.search(r"(?ms)^#+ %s\n.*?^```%s\n(.*?)^```" % (re.escape(heading), kind), DOCUMENT)[1]


def put(text, **at):
    """text with something else where these words are, in one go; each is there."""
    assert all(old in text for old in at), at
    return re.sub("|".join(map(re.escape, at)), lambda m: str(at[m[0]]), text)


def at(text, *backends):
    """text with the hosts and ports of its upstreams, in order, being those of backends."""
    places = iter(backends)
    text, n = re.subn(r'(?m)^host = "127\.0\.0\.1"\nport = \d+', lambda _: 'host = "127.0.0.1"\nport = %d' % next(places).port, text)
    assert n == len(backends)
    return text


def below(text, backend):
    """text with an upstream for each name that its routes have: backends by that name."""
    made = {name: backend(name=name) for name in dict.fromkeys(re.findall(r'(?m)^upstream = "(.*)"', text))}
    return text + toml_file({"upstreams": {name: b.conf for name, b in made.items()}}), made


def to_all(text):
    """text with a route that sends everything to its first upstream."""
    return text + '[[routes]]\nupstream = "%s"\n' % re.search(r"(?m)^\[upstreams\.(\w+)\]", text)[1]


def who(w, *asked):
    """Of each answer its text; of one that is none of a backend's the status."""
    got = [w.ask(*q) if isinstance(q, tuple) else w.ask(q) for q in asked]
    return [m.text if m.status == 200 else m.status for m in got]


def cpu_ns(pid):
    """What the process has used; its CPU clock as clock_getcpuclockid(3) makes it."""
    return time.clock_gettime_ns(~pid << 3 | 2)


# ---- one upstream -------------------------------------------------------------------------------

def exported(port):
    """What the document's commands export; the program they start is warp."""
    lines = block("Mode 1: Simple (Current - Env Vars Only)", "bash").splitlines()
    assert lines.pop() == "warpdrive"
    env = dict(line.removeprefix("export ").split("=") for line in lines)
    assert env.pop("WARPDRIVE_TARGET_PORT") == "3000"
    return {**env, "WARPDRIVE_TARGET_PORT": str(port), "WARPDRIVE_ADMIN_LISTEN": "off"}


@promise("S2-53", "S2-86", "S2-87")
def test_simple_mode(warp, backend):
    """Whatever is asked of whom goes there."""
    port = free_port()
    w = warp(None, env={**exported(backend().port), "WARPDRIVE_HTTP_PORT": str(port)}, port=port)
    assert who(w, "/", "/a/b?c") == ["app GET / 0", "app GET /a/b?c 0"]
    assert w.ask("/x", method="POST", host="other.example", body=b"abc").text == "app POST /x 3"
    assert os.listdir(w.dir) == [], "no file is needed"


@promise("S2-54")
def test_the_file_turns_routes_on(warp, backend, tmp_path):
    """Named by WARPDRIVE_CONFIG it counts, though the variables of simple mode are there as well."""
    port, routed = free_port(), backend(name="routed")
    text, _ = below(block("2. Exact Path Matching"), backend)
    file = tmp_path / "warpdrive.toml"
    file.write_text(lib.complete(text, port))
    env = {**exported(routed.port), "WARPDRIVE_HTTP_PORT": str(port)}
    w = warp(None, env=env, port=port)
    assert who(w, "/health", "/other") == ["routed GET /health 0", "routed GET /other 0"]
    w.stop()
    del env["WARPDRIVE_HTTP_PORT"]
    w = warp(None, env={**env, "WARPDRIVE_CONFIG": str(file)}, port=port)
    assert who(w, "/health", "/other") == ["health_check GET /health 0", 502]


@promise("S2-56")
@pytest.mark.parametrize("how, says", [("missing", "No such file"), ("directory", "(?i)directory"), ("cut", r"broken\.toml:\d+:\d+: error"),
                                       ("type", r"broken\.toml:\d+:13: error: .*eighty")])
def test_a_file_that_is_none_stops_the_start(run, tmp_path, how, says):
    text = block("Mode 2: Advanced (TOML Config)")
    bad = {"cut": text[:text.index("3001")], "type": put(text, **{"8080": '"eighty"'})}.get(how)
    path = tmp_path / "broken.toml"
    if bad:
        path.write_text(bad)
    elif how == "directory":
        path.mkdir()
    p = run(env={"WARPDRIVE_CONFIG": str(path), "WARPDRIVE_TARGET_HOST": "127.0.0.1", "WARPDRIVE_TARGET_PORT": "1"})
    assert p.returncode == 1 and re.search(says, p.stderr), p.stderr


# ---- upstreams ----------------------------------------------------------------------------------

@promise("S2-58", "S2-62")
def test_tcp(warp, backend):
    """Its only instance is balanced as several are: counted, with what is in flight."""
    held = threading.Event()
    b = backend([REQ, WAIT(held), reply("let go"), ECHO])
    w = warp(to_all(at(block("1. TCP Socket (host:port)"), b)) + '[admin]\nlisten = ["@DIR@/admin"]\n')
    with w.client() as c:
        c.send(request("/held"))
        b.conn(0)
        eventually(lambda: [i["in_flight"] for i in instances(w, "api")] == [1])
        held.set()
        assert c.response().text == "let go"
    assert who(w, "/x") == ["app GET /x 0"]
    only, = instances(w, "api")
    assert only["address"] == "127.0.0.1:%d" % b.port and only["codes"]["2xx"] == 2


@promise("S2-59")
def test_unix_socket(warp, backend):
    b = backend(unix=True)
    w = warp(to_all(put(block("2. Unix Domain Socket (faster than TCP)"), **{"/tmp/puma.sock": b.unix})))
    assert who(w, "/x") == ["app GET /x 0"]


def held_or_echo(c):
    """Does not answer /held."""
    while True:
        m = c.request()
        if m.target != "/held":
            c.send(reply(c.backend.name))


# What each of the strategies in the block's comment makes of 24 requests, one after the other, while /held is in flight.
STRATEGIES = {
    "round_robin": lambda held, got: got in ("abc" * 8, "bca" * 8, "cab" * 8),
    "least_conn": lambda held, got: set(got) == set("abc") - {held},
    "random": lambda held, got: len(set(got)) > 1 and got[:3] * 8 != got,
    "ip_hash": lambda held, got: set(got) == {held},
}


@promise("S2-60", "S2-61")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pool(warp, backend, tmp_path, strategy):
    """Three sockets, and one client: even; not to the busy one; anywhere; to the same node."""
    text = block("3. Load Balanced Pool")
    assert re.findall(r'"(\w+)"', text.partition("[[")[0]) == list(STRATEGIES)
    made = [backend([held_or_echo], name=name, unix=str(tmp_path / ("puma.%d.sock" % i))) for i, name in enumerate("abc")]
    w = warp(to_all(put(text, **{"/tmp/": "%s/" % tmp_path, 'strategy = "round_robin"': 'strategy = "%s"' % strategy})))
    with w.client() as c:
        c.send(request("/held"))
        held, = eventually(lambda: [b.name for b in made if b.requests])
        got = "".join(who(w, *["/"] * 24))
        assert STRATEGIES[strategy](held, got), (held, got)


@promise("S2-60")
def test_pool_of_tcp(warp, backend, tmp_path):
    """An instance has host and port as well as a socket."""
    a, b, c = backend(name="a", unix=True), backend(name="b"), backend(name="c", unix=True)
    text = put(block("3. Load Balanced Pool"), **{"/tmp/puma.0.sock": a.unix, "/tmp/puma.2.sock": c.unix,
                                                  'socket = "/tmp/puma.1.sock"': 'host = "127.0.0.1"\nport = %d' % b.port})
    assert "".join(t[0] for t in who(warp(to_all(text)), *["/"] * 6)) == "abcabc"


@promise("S2-62")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategy_of_one(warp, backend, strategy):
    w = warp(conf(app={"on": backend(), "strategy": strategy}))
    assert who(w, "/1", "/2") == ["app GET /1 0", "app GET /2 0"]


@promise("S2-63")
@pytest.mark.parametrize("keys", ["all", "path and interval"])
def test_health(warp, backend, keys):
    """Not before the third failure, not before the second pass."""
    sick, probes = [], []

    def serve(c):
        while True:
            m = c.request()
            if m.target == "/health":
                probes.append(m)
            c.send(reply("no", status="500 Sick") if sick and m.target == "/health" else reply("served"))
    text = put(block("4. With Health Checks"), **{"interval_secs = 10": "interval_secs = 0.05\njitter = false"})
    if keys != "all":
        text = re.sub(r"(?m)^(timeout_secs|\w+_threshold) .*\n", "", text)
    w = warp(to_all(at(text, backend([serve]))))
    eventually(lambda: len(probes) >= 2, "probes")
    assert who(w, "/") == ["served"]
    sick.append(True)
    w.wait_stderr(r"is down: status 500 \(3 of 3\)")
    assert w.ask().status == 503
    before = len(probes)
    sick.clear()
    w.wait_stderr("is up again")
    assert len(probes) >= before + 2 and who(w, "/") == ["served"]


# ---- routes -------------------------------------------------------------------------------------

def rules(numbers, heading, *rows):
    """heading: (what is asked, who answers what; or the status)."""
    return pytest.param(heading, rows, marks=promise(*numbers), id=heading)


def q(target="/", *fields, **kw):
    return target, fields, kw


@pytest.mark.parametrize("heading, rows", [
    rules(["S2-64", "S2-65", "S2-67", "S2-68"], "1. Path Prefix Matching", (q("/api/v1/users"), "api_v1 GET /api/v1/users 0"), (q("/api/v1"), "api_v1 GET /api/v1 0"),
          (q("/api/v2?x"), "api_v2 GET /api/v2?x 0"), (q("/api/v3"), 502), (q("/API/v1"), 502), (q("/x/api/v1"), 502)),
    rules(["S2-65", "S2-67"], "2. Exact Path Matching", (q("/health"), "health_check GET /health 0"), (q("/health?x"), "health_check GET /health?x 0"),
          (q("/health/"), 502), (q("/healthy"), 502), (q("/Health"), 502)),
    rules(["S2-65", "S2-67"], "3. Regex Matching", (q("/users/42/posts"), "posts_service GET /users/42/posts 0"), (q("/users/7/posts/new"), "posts_service GET /users/7/posts/new 0"),
          (q("/users/x/posts"), 502), (q("/v1/users/42/posts"), 502), (q("/users/42/Posts"), 502)),
    rules(["S2-52", "S2-66"], "4. Host-Based Routing (Multi-Tenant)", (q("/cable", host="api.example.com"), "api GET /cable 0"), (q("/cable/x", host="www.example.com"), "cable GET /cable/x 0"),
          (q("/x", host="www.example.com:8080"), "rails GET /x 0"), (q("/cable", host="example.com"), 502)),
    rules(["S2-66"], "5. Method-Based Routing", (q("/admin"), "admin_readonly GET /admin 0"), (q("/admin", method="POST", body=b"x"), "admin_readonly POST /admin 1"),
          (q("/admin", method="PUT", body=b"x"), "admin_writable PUT /admin 1"), (q("/admin", method="DELETE"), "admin_writable DELETE /admin 0"),
          (q("/admin", method="PATCH", body=b""), 502), (q("/x"), 502)),
    rules(["S2-66"], "6. Header-Based Routing", (q("/", "X-API-Version: v2"), "api_v2 GET / 0"), (q("/", "x-api-version: v1"), "api_v1 GET / 0"),
          (q("/", "X-API-Version: v3"), 502), (q("/"), 502)),
    rules(["S2-69"], "Path Rewriting", (q("/old-api/users"), "api GET /new-api/users 0"), (q("/old-api?x=/old-api"), "api GET /new-api?x=/old-api 0"), (q("/new-api"), 502)),
    rules(["S2-70"], "Strip Prefix", (q("/sidekiq/jobs"), "sidekiq GET /jobs 0"), (q("/sidekiq"), "sidekiq GET / 0"), (q("/sidekiq?x"), "sidekiq GET /?x 0")),
])
def test_rules(warp, backend, heading, rows):
    text, _ = below(block(heading), backend)
    w = warp(text)
    for (target, fields, kw), want in rows:
        m = w.ask(target, *fields, **kw)
        assert (m.text if isinstance(want, str) else m.status) == want, (target, fields, kw, m.status, m.text[:80])


@promise("S2-64", "S2-83")
@pytest.mark.parametrize("order", ["its own", "reversed"])
def test_advanced_mode(warp, backend, order):
    """As its list of behaviours says; with the general route in front it takes all."""
    text, *routes = block("Mode 2: Advanced (TOML Config)").split("[[routes]]")
    text = "[[routes]]".join([text, *(routes if order == "its own" else reversed(routes))])
    rails, cable, sidekiq = backend(name="rails"), backend(name="cable"), backend(name="sidekiq")
    w = warp(at(put(text, **{"8080": "@PORT@"}), rails, cable, sidekiq))
    assert re.findall(r"- `GET (\S+)`\W*`127\.0\.0\.1:(\S+)`", DOCUMENT) == [("/cable", "3001"), ("/sidekiq/jobs", "7080/jobs"), ("/", "3000")]
    assert who(w, "/cable", "/sidekiq/jobs", "/") == (["cable GET /cable 0", "sidekiq GET /jobs 0", "rails GET / 0"] if order == "its own" else
                                                      ["rails GET /cable 0", "rails GET /sidekiq/jobs 0", "rails GET / 0"])


@promise("S2-83")
def test_integration_test(warp, backend):
    """The document's own: two commands of a shell."""
    script = "".join(re.findall(r"(?m)^curl .*\n", DOCUMENT))
    assert script.count("curl http://localhost:8080/") == 2
    text = at(put(block("Mode 2: Advanced (TOML Config)"), **{"8080": "@PORT@"}), *(backend([REQ, reply(x + "\n")]) for x in ("Rails", "ActionCable", "Sidekiq")))
    p = subprocess.run(["sh", "-ec", put(script, **{"8080": warp(text).port})], capture_output=True, text=True, timeout=TIMEOUT)
    assert (p.returncode, p.stdout) == (0, "Rails\nActionCable\n"), p.stderr


@promise("S2-65")
def test_no_regex_but_by_its_key(warp, backend):
    """A dot in the others is a dot."""
    w = warp(conf({"path_exact": "/a.b"}, {"path_prefix": "/c.d/"}, app=backend()))
    assert who(w, "/a.b", "/c.d/e", "/axb", "/cxd/e") == ["app GET /a.b 0", "app GET /c.d/e 0", 502, 502]


@promise("S2-68")
def test_upstream_that_is_not_there(check, warp, backend):
    """At load, with the name that was meant; so nobody gets the 502 for it. For no route it is 502."""
    text = at(put(block("Mode 2: Advanced (TOML Config)"), **{"8080": "@PORT@"}), *(b := [backend() for _ in range(3)]))
    p = check(put(text, **{"@PORT@": "8080", 'upstream = "sidekiq"': 'upstream = "sidekik"'}))
    assert p.returncode == 1 and re.search(r"(?s)error.*sidekik.*sidekiq", p.stderr), p.stderr
    w = warp(text[:text.rindex("[[routes]]")])
    assert who(w, "/", "/other") == [502, 502] and not any(x.requests for x in b)


@promise("S2-71")
def test_add_headers(warp, backend):
    text, made = below(block("Add Headers"), backend)
    w = warp(text)
    assert who(w, ("/api/x", "X-Backend: forged")) == ["api GET /api/x 0"]
    got = made["api"].last
    assert got.all("X-Backend") == ["api-service"] and got.all("X-Forwarded-Prefix") == ["/api"]


@promise("S2-72")
@pytest.mark.parametrize("upstream, status", [("silent", {504}), ("full", {504}), ("refused", {502})])
def test_timeouts(warp, backend, blackhole, upstream, status):
    """Silence, an address that does not answer, and one that refuses."""
    text = put(block("Timeouts"), **{"read_timeout_secs = 120": "read_timeout_secs = 0.2", "connect_timeout_secs = 5": "connect_timeout_secs = 0.2"})
    place = {"silent": lambda: backend([REQ]).conf, "full": lambda: blackhole.conf, "refused": lambda: {"host": "127.0.0.1", "port": free_port()}}[upstream]()
    w = warp(text + toml_file({"upstreams": {"reports": place}}))
    begin = time.monotonic()
    assert w.ask("/slow-reports/1").status in status
    assert upstream == "refused" or time.monotonic() - begin >= 0.2


# ---- processes ----------------------------------------------------------------------------------

# A program of any name: serves where its arguments say, answers with what it was started with, and writes down
# when it starts and when it is told to end. A socket that belongs to nobody's argument is named by PLACES.
PROGRAM = r"""#!%s -SE
import http.server, json, os, re, signal, socket, socketserver, sys, threading, time
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
places = json.loads(os.environ["PLACES"]).get(" ".join([name, *words])) or [re.sub("^unix://", "", words[-1])]

def journal(what):
    with open("journal", "a") as f:
        f.write("%%s %%s %%d %%d\n" %% (" ".join([name, *words]), what, os.getpid(), time.monotonic_ns()))

def stop(*_):
    journal("told")
    os._exit(0)

class Server(http.server.ThreadingHTTPServer):
    server_bind = socketserver.TCPServer.server_bind

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    address_string = lambda self: ""
    log_message = lambda self, *_: None

    def do_GET(self):
        if self.headers.get("Upgrade"):
            self.wfile.write(%r)
            self.wfile.write(self.rfile.readline().upper())
            self.close_connection = True
            return
        said = {"name": name, "argv": sys.argv, "env": dict(os.environ), "target": self.path, "at": str(self.server.server_address),
                "pid": os.getpid(), "fields": dict(self.headers.items()), "padding": " " * 1000}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.path.startswith("/cached"):
            self.send_header("Cache-Control", "max-age=60")
        self.end_headers()
        self.wfile.write(body)

signal.signal(signal.SIGTERM, stop)
for place in places:
    if "/" in place and os.path.exists(place):
        os.unlink(place)
    Server.address_family = socket.AF_UNIX if "/" in place else socket.AF_INET
    s = Server(place if "/" in place else ("127.0.0.1", int(place)), Handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
journal("start")
while True:
    signal.pause()
""" % (sys.executable, SWITCH)


@pytest.fixture
def programs(tmp_path):
    """programs({command line: [places]}) -> an environment in which bundle and anycable-go are there."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("bundle", "anycable-go"):
        (bin / name).write_text(PROGRAM)
        (bin / name).chmod(0o755)

    def env(places=None, **more):
        return {"PATH": "%s:%s" % (bin, os.environ["PATH"]), "PLACES": json.dumps(places or {}), "OWN": "of warp's own", **more}
    return env


def journal(w, *what):
    return [line.rsplit(" ", 3)[:3] for line in lib.read(w.path("journal")).splitlines() if line.rsplit(" ", 3)[1] in what]


@promise("S2-75", "S2-76", "S2-77", "S2-86")
def test_processes(warp, programs, tmp_path):
    """Each upstream with its own: argv as written, env added, started again, told to end; a socket that no argument names."""
    cable, web = free_port(), free_port()
    text = put(block("Process Supervision Integration"), **{"/tmp/": "%s/" % tmp_path, '"3001"': '"%d"' % cable, "7080": web})
    text = put(text, **{"[upstreams.cable]": 'process.depends_on = ["sidekiq_web"]\n[upstreams.cable]'})
    routes = {"rails": "/rails", "cable": "/cable", "sidekiq_web": "/jobs"}
    text += toml_file({"admin": {"listen": ["@DIR@/admin"]}, "routes": [{"path_prefix": p, "upstream": u} for u, p in routes.items()]})
    w = warp(text, env=programs({"anycable-go --port %d" % cable: ["%s/anycable.sock" % tmp_path]}))
    got = {u: w.ask(p).json for u, p in routes.items()}
    assert {u: g["argv"][1:] for u, g in got.items()} == {
        "rails": ["exec", "puma", "-b", "unix://%s/puma.sock" % tmp_path], "cable": ["--port", str(cable)], "sidekiq_web": ["exec", "sidekiq-web", "-p", str(web)]}
    assert {u: g["env"].get("RAILS_ENV") for u, g in got.items()} == {"rails": "production", "cable": None, "sidekiq_web": None}
    assert {g["env"]["OWN"] for g in got.values()} == {"of warp's own"}
    for u in routes:
        wait_state(w, "up", u)
    kill(got["cable"]["pid"])
    assert w.ask("/cable").json["pid"] != got["cable"]["pid"], "started again, and the request waited for it"
    assert [w.ask(p).json["pid"] for p in ("/rails", "/jobs")] == [got["rails"]["pid"], got["sidekiq_web"]["pid"]]
    w.stop()
    ends = [e[0].split()[:3] for e in journal(w, "told")]
    assert len(ends) == 3 and ends.index(["bundle", "exec", "puma"]) < ends.index(["bundle", "exec", "sidekiq-web"]), "each, and in reverse"


@promise("S2-88")
def test_wrapped_monitored_exposed(warp, tmp_path):
    """One command is wrapped; what it does is seen in status and metrics; it is served."""
    admin = str(tmp_path / "admin")
    w = warp(None, "-l", "127.0.0.1:@PORT@", "--", sys.executable, "-SE", "-c", "import os, sys; sys.argv[1:] = ['web', 'port=' + os.environ['PORT']]; "
             "exec(open(%r).read())" % os.path.join(lib.HERE, "app.py"), env={"WARPDRIVE_ADMIN_LISTEN": admin})
    assert w.ask("/info").status == 200
    with Client(admin) as c:
        p, = c.ask("/status").json["processes"]
        text = c.ask("/metrics").text
    assert p["state"] == "up" and alive(p["pid"])
    assert re.search(r'(?m)^warp_\w+\{[^}]*"%s"[^}]*\} ' % p["name"], text), text
    kill(p["pid"])
    assert w.ask("/info").json["pid"] != p["pid"]


@promise("S2-88")
def test_benchmark_beside_nginx():
    """The stated next step: there is one, and make runs it."""
    p = subprocess.run([sys.executable, "bench.py", "--list"], cwd=os.path.join(lib.ROOT, "tests/bench"), capture_output=True, text=True, timeout=TIMEOUT)
    assert p.returncode == 0 and re.search(r"(?m)\bnginx\b", p.stdout) and re.search(r"(?m)\bwarp\b", p.stdout), p.stderr
    p = subprocess.run(["make", "-n", "bench"], cwd=lib.ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    assert "bench.py" in p.stdout, p.stderr


# ---- all of it ----------------------------------------------------------------------------------

@promise("S2-52", "S2-57", "S2-73", "S2-74", "S2-75", "S2-76", "S2-78", "S2-79", "S2-81", "S2-82", "S2-87")
@pytest.mark.limit(60)
@pytest.mark.skipif(not shutil.which("pebble"), reason="no pebble")
def test_complete_example(warp, programs, tmp_path):
    """As it stands, with a certificate of an authority by ACME, and neither Redis nor PostgreSQL at hand."""
    http, https, cable, jobs = (free_port() for _ in range(4))
    text = put(block("Complete Real-World Example"), **{
        "http_port = 80\n": "http_port = %d\n" % http, "https_port = 443\n": "https_port = %d\n" % https, "/var/lib/warpdrive/acme": "@DIR@/acme", "/tmp/": "%s/" % tmp_path,
        "3001": cable, "7080": jobs, "localhost:6379": "localhost:%d" % free_port(), "postgres://localhost/": "postgres://localhost:%d/" % free_port()})
    puma = "bundle exec puma -w 3 -b unix://%s/puma.sock" % tmp_path
    with acme.Pebble(tmp_path, http_port=http, tls_port=https) as ca:
        env = programs({puma: ["%s/puma.%d.sock" % (tmp_path, i) for i in range(3)], "bundle exec puma -p %d cable/config.ru" % cable: [str(cable)]},
                       WARPDRIVE_ADMIN_TOKEN="s3cret", WARPDRIVE_TLS_ACME_URL=ca.url, WARPDRIVE_TLS_ACME_CA_FILE=ca.ca_file)
        w = warp(text + '\n[admin]\nlisten = ["@DIR@/admin"]\n', env=env, port=http)
        for name in ("rails", "cable", "sidekiq"):
            wait_state(w, "up", name, 2 * TIMEOUT)
        for name in ("example.com", "www.example.com"):
            eventually(lambda: acme.served(https, name, ca.root()), "a certificate for " + name, 4 * TIMEOUT)
        root = tmp_path / "root.pem"
        root.write_text(ca.root())
        complete(w, https, tls_tools.context(str(root)), tmp_path)
        assert len(status(w)["workers"]) == 4
        assert [["health" in i for i in instances(w, u)] for u in ("rails", "cable", "sidekiq")] == [[False] * 3, [True], [False]]
        eventually(lambda: instances(w, "cable")[0]["health"]["passes"] > 0)
        pids = w.children()
        w.stop()
        gone(pids)
        assert sorted(e[0] for e in journal(w, "told")) == sorted(e[0] for e in journal(w, "start")) and len(journal(w, "start")) == 3


def complete(w, https, context, tmp_path):
    """What its routes and its [middleware] say."""
    def ask(target, *fields, host="example.com", **kw):
        with tls_tools.Client(https, context, host) as c:
            return c.ask(target, *fields, host=host, **kw)

    m = w.ask("/x?y", host="example.com")
    assert (m.status, m.get("Location")) == (308, "https://example.com:%d/x?y" % https)
    m = ask("/cable/x")
    assert m.json["argv"][-1] == "cable/config.ru" and m.json["target"] == "/cable/x" and m.json["env"]["RAILS_ENV"] == "production"
    with tls_tools.Client(https, context, "example.com") as c:
        assert c.send(request("/cable", *UPGRADE, host="example.com") + b"hello\n").response().status == 101
        assert c.exactly(6, TIMEOUT) == b"HELLO\n"
    for fields, want in (([], 401), (["X-Admin-Token: guess"], 401), (["X-Admin-Token: s3cret"], 200)):
        m = ask("/sidekiq/jobs", *fields)
        assert m.status == want
    assert m.json["target"] == "/jobs" and "sidekiq-web" in m.json["argv"] and "s3cret" not in str(m.json["fields"])
    places = [ask("/%d" % i).json["at"] for i in range(12)]
    assert {p: 2 <= places.count(p) <= 6 for p in places} == {"%s/puma.%d.sock" % (tmp_path, i): True for i in range(3)}, "each worker deals its own turns"
    with tls_tools.Client(https, context, "www.example.com") as c:
        fields = c.ask("/", host="www.example.com:%d" % https).json["fields"]
    assert fields["X-Forwarded-Host"] == "www.example.com" and fields["X-Forwarded-Proto"] == "https" and fields["X-Forwarded-For"] == "127.0.0.1"
    with tls_tools.Client(https, context, "example.com") as c:
        assert c.ask("/", host="other.example").status == 502
    m = ask("/", "Accept-Encoding: gzip")
    assert m.get("Content-Encoding") == "gzip"
    eventually(lambda: ask("/cached").get("X-Cache") == "HIT", "a hit, though Redis is not there")
    assert w.wait_stdout(r'"GET /sidekiq/jobs HTTP/1\.1" 401 ')


# ---- what it costs ------------------------------------------------------------------------------

@pytest.fixture
def one_cpu():
    """All that this test starts, and itself, on one CPU: where the others are makes more difference than what is measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


@promise("S2-84")
@pytest.mark.skipif(SANITIZED, reason="a sanitizer costs more than what is measured")
def test_choosing_a_route(warp, one_cpu):
    """The last of a hundred, and of a thousand: worker's CPU beside that of a single route, by the request."""
    made = {n: warp(conf(*[{"path_prefix": "/app%04d/" % i, "respond": {"status": 204}} for i in range(n)])) for n in (1, 100, 1000)}
    took = {n: [] for n in made}
    for _ in range(7):
        for n, w in made.items():
            raw, pid = request("/app%04d/x" % (n - 1)) * 200, w.children()[0]
            with w.client() as c:
                assert c.ask("/app%04d/x" % (n - 1)).status == 204
                begin = cpu_ns(pid)
                for _ in range(5):
                    c.send(raw)
                    for _ in range(200):
                        assert c.head(TIMEOUT).status == 204
                took[n].append((cpu_ns(pid) - begin) / 1000)
    best = {n: min(t) for n, t in took.items()}
    assert best[100] - best[1] < 1000, "%s ns" % best
    assert best[1000] - best[1] < 10 * 1000, "%s ns" % best


@promise("S2-84")
@pytest.mark.skipif(SANITIZED, reason="memory figures mean nothing under a sanitizer")
def test_memory_of_routes(warp):
    """In all processes together. The document guesses at 100 bytes for a route; warp's have thirty keys, and know where
    in the file each stands."""
    few, many = (warp(conf(*[{"path_prefix": "/app%04d/" % i} for i in range(n)], app={"host": "127.0.0.1", "port": 1})) for n in (1, 1001))
    grown = many.rss() - few.rss()
    assert grown < 2000 * 1000, "%d bytes for a route" % (grown // 1000)


def answer(s):
    """One request of each connection, as quickly as Python can; never returns."""
    try:
        while True:
            c, _ = s.accept()
            c.recv(65536)
            c.sendall(reply("ok", "Connection: close"))
            c.close()
    finally:
        os._exit(1)


@pytest.fixture
def quick_app():
    """quick_app(family, address) -> that address: of a process that answers there."""
    made = []

    def start(family, address):
        with socket.socket(family) as s:
            s.bind(address)
            s.listen(64)
            made.append(os.fork() or answer(s))
        return address
    yield start
    for pid in made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def cost(w, n=50):
    """Of a request: ns of its worker's CPU, and of the client's time."""
    pid, raw = w.children()[0], request("/")
    with w.client() as c:
        assert c.ask().text == "ok"
        begin = cpu_ns(pid), time.monotonic_ns()
        for _ in range(n):
            c.sock.sendall(raw)
            c.sock.recv(65536)
        return (cpu_ns(pid) - begin[0]) // n, (time.monotonic_ns() - begin[1]) // n


@promise("S2-85")
@pytest.mark.skipif(SANITIZED, reason="a sanitizer costs more than what is measured")
def test_unix_is_quicker(warp, one_cpu, quick_app, tmp_path):
    """A connection for each request: less of warp's CPU, and the client has its answer sooner."""
    host, port = quick_app(socket.AF_INET, ("127.0.0.1", free_port()))
    places = {"host": host, "port": port}, {"socket": quick_app(socket.AF_UNIX, str(tmp_path / "s"))}
    made = [warp(conf(app={**place, "keepalive": 0})) for place in places]
    took = [[cost(w) for w in made] for _ in range(15)]
    (tcp, tcp_clock), (unix, unix_clock) = (zip(*t) for t in zip(*took))
    assert statistics.median(unix) < 0.85 * statistics.median(tcp), (sorted(unix), sorted(tcp))
    unix_clock, tcp_clock = sorted(unix_clock), sorted(tcp_clock)
    assert unix_clock[3] < tcp_clock[3], (unix_clock, tcp_clock)          # the least may be one lucky turn's


@promise("S3-117")
@pytest.mark.skipif(SANITIZED, reason="a sanitizer costs more than what is measured")
@pytest.mark.parametrize("strategy, most", [("round_robin", 30000), ("weighted", 40000), ("least_conn", 40000)])
def test_choosing_an_instance(warp, one_cpu, quick_app, strategy, most):
    """Of two, and of 200 that are one process: at most so many ns more for a request, and 4 KB for an instance."""
    _, port = quick_app(socket.AF_INET, ("0.0.0.0", free_port()))
    few, many = (warp(conf(app={"strategy": strategy, "keepalive": 0, "on": [{"host": "127.0.0.%d" % (i + 1), "port": port} for i in range(n)]}))
                 for n in (2, 200))
    took = [[cost(w)[0] for w in (few, many)] for _ in range(15)]
    small, big = (min(t) for t in zip(*took))
    assert big - small < most, (small, big)
    assert many.rss() - few.rss() < 198 * 4000, (many.rss() - few.rss()) // 198


def lines_in(pid, pattern):
    """The numbers that pattern finds in all the memory that a process can write to."""
    found = set()
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for at, rights in (line.split()[:2] for line in maps):
            if "w" in rights:
                begin, end = (int(x, 16) for x in at.split("-"))
                mem.seek(begin)
                found |= set(map(int, re.findall(pattern, mem.read(end - begin))))
    return found


@promise("S2-86")
@pytest.mark.skipif(SANITIZED, reason="a sanitizer's shadow is too much to look through")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_zero_copy(warp, backend, framing):
    """Half of it has passed: when its length is known, by way of the kernel, but for its beginning. (What comes in chunks
    goes by way of warp: it would be seen.)"""
    n, looked = 100000, threading.Event()
    line = lambda i: b"this is line %08d of a body that is far longer than a buffer is\n" % i
    halves = [b"".join(map(line, part)) for part in (range(n // 2), range(n // 2, n))]
    if framing == "chunked":
        pieces = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(halves[0], last=False), chunks(halves[1])]
    else:
        pieces = [reply(halves[0] + halves[1])[:-len(halves[1])], halves[1]]
    w = warp(conf(app=backend([REQ, pieces[0], WAIT(looked), pieces[1]])))
    with w.client() as c:
        m = c.send(request("/")).head(TIMEOUT)
        c.gather(len(halves[0]), TIMEOUT)
        found = lines_in(w.children()[0], rb"this is line (\d{8}) of a body")
        looked.set()
        assert c.body(m, "GET", TIMEOUT).body == halves[0] + halves[1]
    assert found and (max(found) < 0.1 * n) == (framing == "length"), (len(found), min(found), max(found))
