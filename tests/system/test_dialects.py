"""Fujin's [webserver] and [[hosts]], BWS's [[sites]]: the documents' own configurations as they stand, at the addresses and
paths that they name (world), then each thing they promise; and the native keys that came with them."""
import collections
import glob
import os
import re
import signal
import subprocess
import threading
import tomllib

import pytest

import lib
from lib import ECHO, HEAD, REQ, SWITCH, TIMEOUT, UPGRADE, WAIT, Client, conf, eventually, free_port, reply, request
from world import blocks, world

promise = pytest.mark.promise
SIMPLE, ROUTES, WHOLE, FOUR, STRIP, ORDER, FIX_UPSTREAM, FIX_ROUTES = blocks("fujin.rst").values()
BASIC, ROUND_ROBIN, WEIGHTED, LEAST, API, POOL, MIXED, WS_ROUTE, WS = blocks("bws.md").values()
WARPDRIVE = list(blocks("warpdrive.md").values())


@pytest.fixture
def here(tmp_path):
    """The network and the paths of the documents; name the fixture before all others."""
    with world(tmp_path, "10.0.1.10", "10.0.1.11"):
        yield tmp_path


def APP(c):
    """Answers 'NAME METHOD TARGET'; a tunnel says everything back, with the name in front."""
    while True:
        m = c.request()
        if not m.has("upgrade"):
            c.send(reply("%s %s %s" % (c.backend.name, m.method, m.target) if m.method != "HEAD" else b""))
            continue
        c.send(SWITCH)
        while c.buf or c.fill():
            c.send(b"%s says %s" % (c.backend.name.encode(), c.buf))
            c.buf = b""
        return


def app(backend, port, name=None, **kw):
    return backend([APP], port=port, name=name or "b%d" % port, **kw)


def unix_app(backend, path, name="gunicorn"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return backend([APP], unix=path, name=name)


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def stands(warp, text, port=8080, dir="/run/it", option="-c", **kw):
    """A warp with text as its file, as it stands; its admin socket too is in a /run of its own."""
    os.makedirs(dir, exist_ok=True)
    return warp(None, option, write(dir + "/it.toml", text), port=port, dir=dir, **kw)


def who(w, *targets, **kw):
    """Of each answer its text; of one that is none of a backend's the status."""
    got = [w.ask(t, **kw) for t in targets]
    return [m.text if m.status == 200 else m.status for m in got]


def at(port, target="/", *fields, **kw):
    with Client(port) as c:
        return c.ask(target, *fields, **kw)


def talk(port, target, **kw):
    """What a tunnel there says to hello."""
    with Client(port) as c:
        m = c.ask(target, *UPGRADE, **kw)
        assert m.status == 101, m
        assert m.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        c.send(b"hello")
        return c.until(b"hello").decode()


# ---- Fujin ----------------------------------------------------------------------------------

@promise("S0-1", "S0-6", "S0-7", "S0-8")
def test_fujin_simple(here, warp, backend):
    write("/var/www/app/static/css/a.css", "body {}")
    b = unix_app(backend, "/run/app/gunicorn.sock")
    w = stands(warp, SIMPLE)
    assert who(w, "/", "/a/b?c=d", "/static") == ["gunicorn GET /", "gunicorn GET /a/b?c=d", "gunicorn GET /static"]
    n = len(b.requests)
    assert w.ask("/static/css/a.css").get("content-type").startswith("text/css")
    assert who(w, "/static/css/a.css", "/static/none") == ["body {}", 404], "the directory is what the prefix stands for"
    assert len(b.requests) == n, "a miss is not the application's"


@promise("S0-2", "S0-6", "S0-7", "S0-8", "S0-13", "S0-15")
def test_fujin_routes(here, warp, backend):
    write("/var/www/app/static/a.css", "body {}")
    unix_app(backend, "/run/app/gunicorn.sock"), app(backend, 8001), app(backend, 8002)
    w = stands(warp, ROUTES)
    assert who(w, "/ws", "/ws/1", "/wsx", "/api", "/api/x?y", "/", "/other", "/static/a.css", "/static/ws") == [
        "b8001 GET /ws", "b8001 GET /ws/1", "b8001 GET /wsx", "b8002 GET /api", "b8002 GET /api/x?y", "gunicorn GET /", "gunicorn GET /other",
        "body {}", 404]
    assert talk(w.port, "/ws/chat") == "b8001 says hello", "no flag is needed"


# What gunicorn, daphne, puma and the rest do, as far as it can be seen from here.
SERVE = r"""#!/usr/bin/python3
import http.server, os, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        if self.headers.get("Upgrade"):
            self.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
            self.connection.sendall(b"daphne says " + self.connection.recv(100))
            self.close_connection = True
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(("%s %s uid %d %s" % (os.path.basename(sys.argv[0]), self.path, os.getuid(), os.environ.get("STAGE"))).encode())
a = sys.argv
if a[0].startswith("/run/bin/"):
    with open("/run/started", "a") as f:
        f.write(" ".join([os.path.basename(a[0]), os.environ.get("RAILS_ENV", "-")] + a[1:]) + "\n")
    paths = ["/tmp/puma%s.sock" % i for i in ("", ".0", ".1", ".2")] if "unix:///tmp/puma.sock" in a else ["/tmp/anycable.sock"] * ("--port" in a)
    for path in paths:
        threading.Thread(target=socketserver.ThreadingUnixStreamServer(path, Handler).serve_forever).start()
    if "-p" in a:
        socketserver.ThreadingTCPServer(("127.0.0.1", int(a[a.index("-p") + 1])), Handler).serve_forever()
elif "worker" in a:
    open("workers", "a").write("%d\n" % os.getpid())
    import signal
    signal.pause()
elif "--bind" in a:
    path = a[a.index("--bind") + 1].removeprefix("unix:")
    if os.path.exists(path): os.unlink(path)
    os.umask(0)
    socketserver.ThreadingUnixStreamServer(path, Handler).serve_forever()
else:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer((a[a.index("-b") + 1], int(a[a.index("-p") + 1])), Handler).serve_forever()
"""


@promise("S0-15", "S0-17", "S0-18", "S0-19", "S0-20", "S0-21")
@pytest.mark.limit(40)
def test_fujin_whole(here, warp):
    """The whole fujin.toml: its programs are started, as its user, with its envfile, and kept running."""
    dir = "/var/apps/myapp"
    for name in ("gunicorn", "daphne", "myapp"):
        write(dir + "/.venv/bin/" + name, SERVE, 0o755)
    write(dir + "/.env.prod", "STAGE=prod\n")
    write("/var/www/myapp/static/a.css", "body {}")
    for d in (dir, "/run/myapp"):
        os.makedirs(d, exist_ok=True)
        os.chmod(d, 0o777)
    w = stands(warp, WHOLE, dir=dir)
    assert who(w, "/x", "/static/a.css", host="example.com") == ["gunicorn /x uid 1000 prod", "body {}"]
    assert who(w, "/ws/1", "/y", host="other.example") == ["daphne /ws/1 uid 1000 prod", "gunicorn /y uid 1000 prod"], "one host: any name will do"
    assert talk(w.port, "/ws") == "daphne says hello"
    pids = lambda: [int(p) for p in lib.read(dir + "/workers").split()]
    first = eventually(lambda: len(pids()) == 2 and pids(), "two workers")
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: len(pids()) == 3, "it is started again")
    p = subprocess.run([lib.WARP, "-t", "-c", w.path("it.toml")], capture_output=True, text=True, env=lib.clean_env())
    assert p.returncode == 0 and len(re.findall("are ignored", p.stderr)) == 1, p.stderr
    assert re.search(r":1:1: warning: keys of another program's, such as app, are ignored", p.stderr)


@promise("S0-16", "S0-6")
def test_fujin_four_services(here, warp, backend):
    for port in (8000, 8001, 8002, 8003):
        app(backend, port)
    w = stands(warp, FOUR)
    assert who(w, "/api/users/1", "/api/orders", "/api/payments?x", "/", "/api") == [
        "b8001 GET /api/users/1", "b8002 GET /api/orders", "b8003 GET /api/payments?x", "b8000 GET /", "b8000 GET /api"]


@promise("S0-11", "S0-14")
def test_fujin_strip_path(here, warp, backend):
    app(backend, 8001)
    w = stands(warp, STRIP)
    assert who(w, "/api/v1/users?a=%20b", "/api/v1", "/api/v1?x", "/other") == ["b8001 GET /users?a=%20b", "b8001 GET /", "b8001 GET /?x", 502]
    w.stop()
    for text in (STRIP.replace("strip_path = true", "strip_path = false"), STRIP.replace("strip_path = true", "")):
        w = stands(warp, text)
        assert who(w, "/api/v1/users") == ["b8001 GET /api/v1/users"]
        w.stop()


@promise("S0-12")
def test_fujin_order(here, warp, backend):
    app(backend, 8000), app(backend, 8001)
    w = stands(warp, ORDER)
    assert who(w, "/api/admin/x", "/api/x") == ["b8001 GET /api/admin/x", "b8000 GET /api/x"]
    w.stop()
    head, wrong = ORDER.split("# ✗ Wrong")
    w = stands(warp, re.sub(r"(?m)^# ?", "", wrong.partition("\n")[2]))
    assert who(w, "/api/admin/x", "/api/x") == ["b8000 GET /api/admin/x", "b8000 GET /api/x"], "never put in another order"
    assert "this route is never reached" in w.stderr


@promise("S0-5")
@pytest.mark.parametrize("text", [FIX_UPSTREAM, FIX_ROUTES])
def test_fujin_corrections(here, warp, backend, text):
    app(backend, 8000)
    assert who(stands(warp, text), "/", "/x") == ["b8000 GET /", "b8000 GET /x"]


ROUTE = '[[webserver.routes]]\npath = "/"\nupstream = "localhost:1"\n'
REFUSED = {
    "both": ('[webserver]\nupstream = "localhost:1"\n' + ROUTE, "1:2", "Webserver cannot have both 'upstream' and 'routes' configured"),
    "neither": ("[webserver]\n", "1:2", "Webserver must have either 'upstream' or 'routes' configured"),
    "statics alone": ('[webserver]\nstatics = { "/s/*" = "s" }\n', "1:2", "Webserver must have either 'upstream' or 'routes' configured"),
    "no path": (ROUTE + '[[webserver.routes]]\nupstream = "localhost:1"\n', "4:13", "webserver.routes 2: path is missing"),
    "no slash": (ROUTE.replace('"/"', '"api"'), "2:8", "webserver.routes 1.path: a path starts with '/', got the text \"api\""),
    "no upstream": ('[[webserver.routes]]\npath = "/"\n', "1:13", "webserver.routes 1: upstream is missing"),
    "no address": (ROUTE.replace("localhost:1", "localhost"), "3:1", "upstreams.localhost: localhost: expected host:port, :port, [v6]:port, unix:/path or @name"),
}


@promise("S0-3", "S0-4", "S0-9", "S0-10")
@pytest.mark.parametrize("why", REFUSED)
def test_fujin_refused(run, why):
    text, place, words = REFUSED[why]
    for args in ("-t", "-c", "warp.toml"), ("-c", "warp.toml"):
        p = run(*args, conf=text)
        assert p.returncode == 1
        assert ("warp.toml:%s: error: %s\n" % (place, words)) in p.stderr, p.stderr


@promise("S0-20", "S0-21")
def test_fujin_hosts(warp, backend):
    """Several hosts, or other routes in the file, and the site takes only its own."""
    text = '[webserver]\nupstream = "127.0.0.1:%d"\nstatics = { "/s/" = "." }\n' % backend().port
    one, two = '[[hosts]]\ndomain_name = "a.example"\n', '[[hosts]]\ndomain_name = "b.example"\n'
    w = warp(text + one)
    assert [who(w, "/", host=h) for h in ("a.example", "x.example")] == [["app GET / 0"], ["app GET / 0"]]
    w.write(text + one + two)
    w.signal(signal.SIGHUP)
    eventually(lambda: w.ask(host="x.example").status == 502, "the new configuration")
    for host in ("a.example", "b.example:81"):
        assert who(w, "/", "/s/none", host=host) == ["app GET / 0", 404]
    w.write(text + one + '[[routes]]\nrespond = { body = "rest" }\n')
    w.signal(signal.SIGHUP)
    eventually(lambda: who(w, "/", host="b.example") == ["rest"], "the new configuration")
    assert who(w, "/", host="a.example") == ["app GET / 0"]


@promise("S0-20")
def test_fujin_domains(check):
    """Where TLS is served without certificates, the domains get them."""
    text = '[webserver]\nupstream = "127.0.0.1:1"\n[[hosts]]\ndomain_name = "a.example"\n[[hosts]]\ndomain_name = "b.example"\n'
    p = check(text + "[server]\nhttps_port = 8443\n[tls]\nacme_ca_file = \"ca.pem\"\nacme_directory = \"acme\"\n")
    assert "ca.pem" in p.stderr, "it will ask for them: " + p.stderr
    p = check(text)
    assert p.returncode == 0 and "TLS" not in p.stdout


def test_fujin_and_environment(warp, backend):
    """A scalar key of a section, as all others; and the name of an upstream does for an address."""
    a, b = backend(name="a"), backend(name="b")
    text = '[webserver]\nupstream = "app"\n[upstreams.app]\nhost = "127.0.0.1"\nport = %d\n' % a.port
    assert who(warp(text), "/") == ["a GET / 0"]
    assert who(warp(text, env={"WARPDRIVE_WEBSERVER_UPSTREAM": "127.0.0.1:%d" % b.port}), "/") == ["b GET / 0"]


# ---- BWS ------------------------------------------------------------------------------------

def bws(warp, text, port=8080, **kw):
    return stands(warp, text, port, option="--config", **kw)


def sites(*all):
    """[[sites]] of dicts: their own keys, with pools {name: [backends]}, routes {path: pool}, and the text of what else is in
    their proxy."""
    out = []
    for s in all:
        s = dict(s)
        pools, routes, rest = s.pop("pools", {}), s.pop("routes", {}), s.pop("rest", "")
        out.append("[[sites]]\n" + "".join("%s = %s\n" % (k, lib.toml(v)) for k, v in s.items()))
        for name, backends in pools.items():
            out += ['[[sites.proxy.upstreams]]\nname = "%s"\nurl = "http://127.0.0.1:%d"\n' % (name, b.port) for b in backends]
        for path, pool in routes.items():
            path, _, more = path.partition(" ")
            out.append('[[sites.proxy.routes]]\npath = "%s"\nupstream = "%s"\n%s' % (path, pool, more and more + "\n"))
        out.append(rest)
    return "".join(out)


@promise("S3-90", "S3-92", "S3-93", "S3-95", "S3-97", "S3-101", "S3-102", "S3-103", "S3-104", "S3-105", "S3-119")
def test_bws_basic(here, warp, backend):
    b = app(backend, 3001), app(backend, 3002)
    w = bws(warp, BASIC)
    got = collections.Counter(who(w, "/api/x")[0] for _ in range(20))
    assert got == {"b3001 GET /api/x": 10, "b3002 GET /api/x": 10}, "by turns, whatever the weights"
    w.ask("/api/x", "X-Internal-Header: secret", "X-Kept: yes", "X-Forwarded-For: 6.6.6.6", host="proxy.localhost")
    got, = [m for x in b for m in x.requests if m.has("x-kept")]
    assert {n: got.get(n) for n in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Powered-By", "X-Kept",
                                    "Host")} == {
        "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "proxy.localhost",
        "Forwarded": "for=127.0.0.1;host=proxy.localhost;proto=http", "X-Powered-By": "BWS", "X-Kept": "yes", "Host": "proxy.localhost"}
    assert not got.has("X-Internal-Header")
    assert w.ask("/api/health").json == {"status": "ok"}
    assert [w.ask(t).status for t in ("/", "/other", "/api")] == [404] * 3, "nothing else is there"


@promise("S3-96")
@pytest.mark.parametrize("text", [ROUND_ROBIN, WEIGHTED, LEAST])
def test_bws_methods_alone(here, warp, text):
    """What shows a method alone is a configuration too: of a site without routes."""
    w = bws(warp, text)
    assert w.ask("/api/health").get("content-type") == "application/json"
    assert w.ask("/").status == 404


TO_ALL = '\n[[sites.proxy.routes]]\npath = "/"\nupstream = "backend-pool"\n'


@promise("S3-98")
@pytest.mark.parametrize("weights", [(3, 1), (3, 2)])
def test_bws_weighted(here, warp, backend, weights):
    app(backend, 3001), app(backend, 3002)
    text = WEIGHTED.replace("weight = 1", "weight = %d" % weights[1]).replace("weight = 3", "weight = %d" % weights[0])
    w, n = bws(warp, text + TO_ALL), 600
    with w.client() as c:
        got = collections.Counter(c.ask().text.split()[0] for _ in range(n))
    share = weights[0] / sum(weights)
    assert abs(got["b3001"] / n - share) < 0.1, got      # 5 standard deviations


@promise("S3-99", "S3-96")
@pytest.mark.parametrize("method", ["least_connections", "least_conn"])
def test_bws_least_connections(here, warp, backend, method):
    """The one with fewer requests now, whatever the weights; and one that has ended counts no more."""
    go = threading.Event()

    def app(c):
        while m := c.request():
            if m.target == "/api/hold":
                go.wait(TIMEOUT)
            c.send(reply(c.backend.name))
    a, b = (backend([app], port=p, name=n) for p, n in ((3001, "a"), (3002, "b")))
    w = bws(warp, BASIC.replace('method = "round_robin"', 'method = "%s"' % method))
    held = [w.client() for _ in range(3)]
    for i, c in enumerate(held):
        c.send(request("/api/hold"))
        eventually(lambda: len(a.requests) + len(b.requests) == i + 1, "a request that is held")
    busy, free = (a, b) if len(a.requests) == 2 else (b, a)
    assert (len(busy.requests), len(free.requests)) == (2, 1)
    go.set()
    assert sorted(c.response().text for c in held) == sorted([busy.name, busy.name, free.name])
    eventually(lambda: {who(w, "/api/x")[0] for _ in range(2)} == {"a", "b"}, "all have ended")


@promise("S3-89", "S3-93", "S3-113")
def test_bws_api(here, warp, backend):
    b = app(backend, 3000)
    w = bws(warp, API, 80)
    assert who(w, "/v1/users?x", "/v2/", host="api.example.com") == ["b3000 GET /v1/users?x", 404]
    assert who(w, "/v1/users", host="other.example") == ["b3000 GET /v1/users"], "the only site is the default"
    n = len(b.requests)
    assert w.ask("/v1/ws", *UPGRADE).status == 426 and len(b.requests) == n, "no websocket = true"
    assert w.ask("/api/config").json == {"sites": [{"name": "api.example.com", "hostname": "api.example.com", "port": 80}]}


@promise("S3-98", "S3-110")
def test_bws_pool(here, warp, run, backend):
    """Its route names no upstream: refused, with the one that is meant. Corrected it serves."""
    p = run("-t", "-c", "warp.toml", conf=POOL)
    assert p.returncode == 1
    assert "warp.toml:21:12: error: sites.proxy.routes.upstream: the site has no upstream \"app-servers\", did you mean 'app-server-1'?" in p.stderr
    b = backend([APP], host="10.0.1.10", port=8080, name="one")
    w = bws(warp, POOL.replace('"app-servers"', '"app-server-1"').replace("interval_seconds = 15", "interval_seconds = 0.1"), 80)
    assert who(w, "/x", host="app.example.com") == ["one GET /x"]
    b.wait(lambda: sum(m.target == "/health" for m in b.requests) > 2, "probes")


@promise("S3-112", "S3-111", "S3-93", "S3-95", "S3-121")
def test_bws_mixed(here, warp, backend):
    write("/var/www/example.com/index.html", "home")
    write("/var/www/example.com/api.html", "page")
    app(backend, 3000, "api"), app(backend, 4000, "admin")
    w = bws(warp, MIXED, 80)
    assert who(w, "/", "/api.html", "/none", "/api/users?x", "/api/", "/admin/x", "/api/health", host="example.com") == [
        "home", "page", 404, "api GET /users?x", "api GET /", "admin GET /admin/x", '{"status":"ok"}\n']
    assert w.ask("/api.html", method="POST", body=b"").status == 405


@promise("S3-113", "S3-114", "S3-115", "S3-89")
def test_bws_websocket(here, warp, backend):
    write("/run/it/static/index.html", "chat")
    b = app(backend, 3001), app(backend, 3002)
    w = bws(warp, WS)
    said = [talk(8080, "/ws/chat", host="ws.example.com") for _ in range(4)]
    assert sorted(said) == ["b3001 says hello"] * 2 + ["b3002 says hello"] * 2
    assert {m.target for x in b for m in x.requests} <= {"/"}, "stripped"
    m = b[0].requests[0] if b[0].requests else b[0].conn(0).last
    assert m.get("Sec-WebSocket-Key") == "dGhlIHNhbXBsZSBub25jZQ==" and m.get("Sec-WebSocket-Version") == "13"
    talk(8080, "/ws/notifications")
    assert "/ws/notifications" in {m.target for x in b for m in x.requests}
    assert who(w, "/", "/ws/chat/x") in (["chat", "b3001 GET /x"], ["chat", "b3002 GET /x"]), "plain requests too"


@promise("S3-113")
def test_bws_websocket_route(here, warp, run, backend):
    """The route alone names an upstream that is not there; with it, it works."""
    p = run("-t", "-c", "warp.toml", conf=WS_ROUTE)
    assert p.returncode == 1 and "upstream: the site has no upstream \"websocket_backend\"" in p.stderr
    app(backend, 3001)
    w = bws(warp, WS_ROUTE + '[[sites.proxy.upstreams]]\nname = "websocket_backend"\nurl = "http://localhost:3001"\n')
    assert talk(w.port, "/ws") == "b3001 says hello"


@promise("S3-89", "S3-90")
def test_sites_by_port_and_host(warp, backend):
    """The site of port and host; else the first one of the port; a pool is the site's, whatever its name."""
    b = {n: backend(name=n) for n in "abcd"}
    one, two = free_port(), free_port()
    site = lambda n, host, port: dict(name=n, hostname=host, port=port, pools={"pool": [b[n]]}, routes={"/": "pool"})
    w = warp("[server]\n" + 'listen = ["127.0.0.1:%d"]\n' % two + sites(
        site("a", "a.example", one), site("b", "*.example", one), site("c", "a.example", two), site("d", "d.example", one)), port=one)
    asked = [(one, h) for h in ("a.example", "A.example:80", "b.example", "d.example", "other", "x.y.example")] + [(two, "a.example"), (two, "d.example")]
    assert [at(p, host=h).text[0] for p, h in asked] == ["a", "a", "b", "d", "a", "b", "c", "c"]
    assert at(one, "/api/config").json == {"sites": [
        {"name": n, "hostname": h, "port": p} for n, h, p in (("a", "a.example", one), ("b", "*.example", one), ("c", "a.example", two), ("d", "d.example", one))]}
    with pytest.raises(OSError):
        lib.connect(("127.0.0.2", two))                      # [server] says where
    lib.connect(("127.0.0.2", one)).close()


@promise("S3-94", "S3-95", "S3-111")
def test_site_longest_path_first(warp, backend):
    p, q, r = (backend(name=n) for n in "pqr")
    port = free_port()
    w = warp(sites(dict(port=port, static_dir=".", pools={"p": [p], "q": [q], "r": [r]}, routes={
        "/api": "p", "/api/health": "q", "/api/v1/*": "q", "/api/v1/deep strip_prefix = true": "r", "/zz": "r"})), port=port)
    assert who(w, "/api/x", "/api/v1/x", "/api/v1/deep/er", "/zz/y", "/none") == [
        "p GET /api/x 0", "q GET /api/v1/x 0", "r GET /er 0", "r GET /zz/y 0", 404]
    assert who(w, "/api/health", "/api/healthy") == ["q GET /api/health 0", "q GET /api/healthy 0"], "a route that names it has it"
    assert w.ask("/api/config").json["sites"][0]["port"] == port
    assert who(w, "/api/config/x") == ["p GET /api/config/x 0"], "warp's own are exact"


@promise("S3-91")
def test_site_proxy_off(warp, tmp_path):
    port = free_port()
    text = sites(dict(port=port, static_dir=str(tmp_path), routes={"/": "not there"}, rest="[sites.proxy]\nenabled = false\n"))
    write(str(tmp_path / "a.txt"), "file")
    assert who(warp(text, port=port), "/a.txt", "/b") == ["file", 404]


@promise("S3-100")
def test_site_timeouts(warp, backend):
    go = threading.Event()
    port, b = free_port(), backend([REQ, WAIT(go)], [ECHO])
    w = warp(sites(dict(port=port, pools={"p": [b]}, routes={"/": "p"}, rest="[sites.proxy.timeout]\nread = 0.2\nwrite = 0.2\n")), port=port)
    assert w.ask().status == 504
    go.set()
    assert w.ask().status == 200


@promise("S3-100")
def test_site_write_timeout(warp, backend):
    """A backend that takes no more of a request's body is given up."""
    go = threading.Event()
    port, b = free_port(), backend([HEAD, WAIT(go)], rcvbuf=4096)
    w = warp(sites(dict(port=port, pools={"p": [b]}, routes={"/": "p"}, rest="[sites.proxy.timeout]\nwrite = 0.3\n")), port=port)
    with w.client() as c:
        threading.Thread(target=lambda: _send(c, request("/", "Content-Length: 99999999", method="POST") + bytes(8 << 20)), daemon=True).start()
        assert c.response().status == 504
    go.set()


def _send(c, data):
    try:
        c.send(data)
    except OSError:
        pass


@promise("S3-101", "S3-102", "S3-103", "S3-104", "S3-105")
def test_site_headers(warp, backend):
    """Each site's own: off here, on there; remove as a list too; the response stays as it is."""
    port, b = free_port(), backend([REQ, reply("x", "X-Secret: of the app", "X-App: 1")] * 3)
    host = lambda n, rest: dict(hostname=n, port=port, pools={"p": [b]}, routes={"/": "p"}, rest=rest)
    w = warp(sites(
        host("off", "[sites.proxy.headers]\nadd_x_forwarded = false\nadd_forwarded = false\nremove = ['X-Secret', 'Cookie']\n"
             "[sites.proxy.headers.add]\nX-A = 'one'\n\"X-B\" = 'two'\n"),
        host("on", "[sites.proxy.headers]\nadd_x_forwarded = true\nadd_forwarded = true\n[sites.proxy.headers.remove]\nX-Secret = false\nX-Kept = true\n"),
        host("silent", "")), port=port)
    seen = []
    for name in ("off", "on", "silent"):
        m = w.ask("/", "X-Secret: s", "X-Kept: k", "Cookie: c=d", "Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4", host=name)
        assert (m.get("X-Secret"), m.get("X-App")) == ("of the app", "1")
        got = b.request(len(seen))
        seen.append([got.get(n) for n in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Secret", "X-Kept", "Cookie", "X-A", "X-B")])
    assert seen == [[None, None, None, None, "k", None, "one", "two"],
                    ["127.0.0.1", "127.0.0.1", "for=127.0.0.1;host=on;proto=http", "s", None, "c=d", None, None],
                    ["127.0.0.1", "127.0.0.1", None, "s", "k", "c=d", None, None]]


@promise("S3-106", "S3-107", "S3-108")
def test_site_passes_all(warp, backend):
    """Every method; bodies whole, both ways; status and fields as they come."""
    port, big = free_port(), os.urandom(300000)

    def all(c):
        while c.request():
            c.send(reply(big, "X-App: 1", "Set-Cookie: a=b", "Set-Cookie: c=d", status="418 I'm a teapot"))
    b = backend([all])
    w = warp(sites(dict(port=port, pools={"p": [b]}, routes={"/": "p"})), port=port)
    for i, method in enumerate(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND")):
        m = w.ask("/x", method=method, body=big)
        assert (b.request(i).method, b.request(i).body) == (method, big)
        assert (m.status, m.reason, m.get("X-App"), m.all("Set-Cookie"), m.body) == (418, "I'm a teapot", "1", ["a=b", "c=d"], big)


@promise("S3-109")
def test_site_upstream_down(warp, backend):
    port, b = free_port(), backend()
    w = warp(sites(dict(port=port, pools={"up": [b], "down": [type(b)(name="gone")]}, routes={"/up": "up", "/": "down"})), port=port)
    assert who(w, "/up") == ["app GET /up 0"]
    text = sites(dict(port=port, pools={"up": [b]}, routes={"/up": "up", "/": "up"}))
    b.close()
    assert who(w, "/up", "/up") == [502, 502], text


@promise("S3-110", "S3-120")
def test_site_health_check(warp, backend):
    """Probes of the site's own pools: one that fails them gets nothing more."""
    port, well = free_port(), threading.Event()

    def app(c):
        while True:
            m = c.request()
            c.send(reply(c.backend.name, status="200 OK" if m.target != "/up" or c.backend.name == "a" or well.is_set() else "500 No"))
    a, b = (backend([app], name=n) for n in "ab")
    w = warp(sites(dict(port=port, pools={"p": [a, b]}, routes={"/": "p"}, rest='[sites.proxy.health_check]\ninterval_seconds = 0.05\npath = "/up"\n')), port=port)
    eventually(lambda: {w.ask().text for _ in range(4)} == {"a"}, "b is down")
    well.set()
    eventually(lambda: {w.ask().text for _ in range(4)} == {"a", "b"}, "b is up again")


@promise("S3-116")
def test_site_concurrent(warp, backend):
    port, b = free_port(), [backend(name="b%d" % i) for i in range(3)]
    w = warp(sites(dict(port=port, pools={"p": b}, routes={"/": "p"})), port=port)
    got, lock = collections.Counter(), threading.Lock()

    def many():
        with w.client() as c:
            for _ in range(50):
                name = c.ask("/x").text
                with lock:
                    got[name] += 1
    threads = [threading.Thread(target=many) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(TIMEOUT)
    assert got == {"b%d GET /x 0" % i: 200 for i in range(3)}


@promise("S3-117", "S3-97")
def test_site_of_many_backends(warp, backend):
    """200 of them take turns, each its own, in a few megabytes."""
    port, n = free_port(), 200
    b = backend(host="0.0.0.0")
    hosts = ["127.0.1.%d" % (i + 1) for i in range(n)]
    w = warp("[[sites]]\nport = %d\n" % port +
             "".join('[[sites.proxy.upstreams]]\nname = "p"\nurl = "http://%s:%d"\n' % (h, b.port) for h in hosts) +
             '[[sites.proxy.routes]]\npath = "/"\nupstream = "p"\n', port=port)
    with w.client() as c:
        for _ in range(2 * n):
            assert c.ask().status == 200
    assert [x.sock.getsockname()[0] for x in b.conns] == hosts, "one after the other"
    assert [len(x.requests) for x in b.conns] == [2] * n, "and then once more"
    assert lib.SANITIZED or w.rss() < 16 << 20, w.rss()


@promise("S3-115")
def test_site_https_and_wss(here, warp, pki, tls_backend):
    """https:// and wss:// are spoken as such, and verified by the system's authorities."""
    subprocess.run(["mount", "--bind", str(pki.root), "/etc/ssl/certs/ca-certificates.crt"], check=True)
    write("/run/hosts", "127.0.0.1 localhost a.example\n")
    subprocess.run(["mount", "--bind", "/run/hosts", "/etc/hosts"], check=True)
    b = tls_backend([APP], name="safe")
    for scheme in ("https", "wss"):
        w = bws(warp, '[[sites]]\nport = 8080\n[[sites.proxy.upstreams]]\nname = "s"\nurl = "%s://a.example:%d"\n'
                      '[[sites.proxy.routes]]\npath = "/"\nupstream = "s"\nwebsocket = true\n' % (scheme, b.port))
        assert who(w, "/x") == ["safe GET /x"]
        assert talk(8080, "/ws") == "safe says hello"
        w.stop()


# ---- several in one file ----------------------------------------------------------------------

def test_mixed(warp, backend):
    """In the order of the sections; native routes may name sites' upstreams, and the other way round."""
    a, b, c = (backend(name=n) for n in "abc")
    port, other = free_port(), free_port()
    text = ('[server]\nlisten = ["127.0.0.1:%d"]\n[upstreams]\nnative.url = "http://127.0.0.1:%d"\n' % (port, a.port) +
            '[[routes]]\npath_exact = "/first"\nupstream = "native"\n[[routes]]\npath_exact = "/pool"\nupstream = "pool"\n' +
            sites(dict(hostname="bws.example", port=other, pools={"pool": [b]}, routes={"/": "pool", "/native": "native"})) +
            '[webserver]\nupstream = "127.0.0.1:%d"\n[[hosts]]\ndomain_name = "fujin.example"\n' % c.port)
    w = warp(text, port=port)
    assert [at(p, t, host=h).text for p, t, h in (
        (port, "/first", "x"), (port, "/pool", "x"), (other, "/", "x"), (other, "/native", "x"), (port, "/", "fujin.example"),
        (other, "/first", "x"))] == ["a GET /first 0", "b GET /pool 0", "b GET / 0", "a GET /native 0", "c GET / 0", "a GET /first 0"]
    assert at(port, "/", host="x").status == 502
    w.write(text.replace("/native", "/moved"))
    w.signal(signal.SIGHUP)
    eventually(lambda: at(other, "/moved").text == "a GET /moved 0", "the new configuration")


def test_explain(run, tmp_path):
    """-e knows the listener by the port of the URL; -t prints the conditions."""
    for dir in "ab":
        write(str(tmp_path / dir / "y"), dir)
    text = sites(dict(hostname="a", port=8081, static_dir="a"), dict(hostname="b", port=8082, static_dir="b"))
    run("-V", conf=text)
    for port, dir in (8081, "a"), (8082, "b"):
        p = run("-e", "http://x:%d/y" % port, "-c", "warp.toml")
        assert "the file y of %s/%s\n" % (tmp_path, dir) in p.stdout, p.stdout
    assert "no: port is 8082, wanted 8081" in p.stdout
    p = run("-t", "-c", "warp.toml")
    assert "route 3 (line 4): port=8081 -> files of %s/a\n" % tmp_path in p.stdout, p.stdout


def test_route_port(warp, check):
    """The native condition; and a route for a port that nothing listens on is said."""
    one, two = free_port(), free_port()
    text = '[server]\nlisten = ["127.0.0.1:%d", "127.0.0.1:%d"]\n' % (one, two)
    route = '[[routes]]\nport = %d\nrespond = { body = "%s" }\n'
    w = warp(text + route % (two, "two") + '[[routes]]\nrespond = { body = "one" }\n', port=one)
    assert [at(p, host="x:%d" % two).text for p in (one, two)] == ["one", "two"], "the listener's, not what Host says"
    assert "nothing listens on port 1" in check(text + route % (1, "x")).stderr


def test_route_forwards(warp, backend):
    """forward_headers and forwarded of a route win over [middleware]."""
    b = backend()
    w = warp(conf({"path_prefix": "/off", "forward_headers": False, "forwarded": False}, {}, app=b, middleware={"forwarded": True}))
    w.ask("/off"), w.ask("/on")
    assert [[m.has(n) for n in ("X-Forwarded-For", "Forwarded")] for m in b.requests] == [[False, False], [True, True]]


def test_respond_with_a_page(warp):
    """A status from 400 on without a body is warp's own page, in the form that is asked for."""
    w = warp(conf({"path_prefix": "/a", "respond": {"status": 404}}, {"path_prefix": "/b", "respond": {"status": 404, "body": ""}},
                  {"respond": {"status": 200}}))
    assert "<h1>404 Not Found</h1>" in w.ask("/a").text
    assert w.ask("/a", "Accept: application/json").json["status"] == 404
    assert [(m.status, m.body) for m in (w.ask("/b"), w.ask("/c"))] == [(404, b""), (200, b"")]


# ---- in native sections -------------------------------------------------------------------------

EXAMPLES = sorted(glob.glob(os.path.join(lib.ROOT, "contrib/examples/*.toml")) + glob.glob(os.path.join(lib.ROOT, "contrib/*.toml")))
TEXTS = {os.path.basename(f): lib.read(f) for f in EXAMPLES}
TEXTS.update({"%s:%d" % (f, n): t for f in ("fujin.rst", "bws.md", "warpdrive.md") for n, t in blocks(f).items()})


def meaning(text):
    """What -t says, but for the lines of the file and the order of programs that wait for nothing."""
    return sorted(re.sub(r" \(line \d+\)", "", text).splitlines())


@pytest.mark.parametrize("name", TEXTS)
def test_native_means_the_same(run, tmp_path, name):
    """-T: every example and every seed in native sections, and that is the same."""
    for f in glob.glob(os.path.join(lib.ROOT, "contrib/examples/snakeoil*")):
        os.symlink(f, tmp_path / os.path.basename(f))
    env = {"GATEWAY_TOKEN": "x"}
    first = run("-t", "-c", "warp.toml", conf=TEXTS[name], env=env)
    p = run("-T", "-c", "warp.toml", env=env)
    assert p.returncode == first.returncode
    if p.returncode:
        assert p.stdout == "" and "error: " in p.stderr
        return
    assert not re.search(r"(?m)^\[+(webserver|hosts|sites)", p.stdout)
    again = run("-t", "-c", "warp.toml", conf=p.stdout, env=env)
    assert again.returncode == 0, again.stderr + p.stdout
    assert meaning(again.stdout) == meaning(first.stdout), p.stdout
    last = run("-T", "-c", "warp.toml", env=env)
    lines = lambda text: [re.sub(r" # warp.toml:\d+$", "", x) for x in text.splitlines()]
    assert lines(last.stdout) == lines(p.stdout), "and that is the same once more"


def test_native_origins(run):
    """Each value with its line, or its variable; presets are comments; a secret of the environment stays there."""
    text = '[server]\nhttp_port = 8080\nadmin_token = "env:T"\n[webserver]\nupstream = "localhost:1"\n[[hosts]]\nuser = "a\\"b"\n[processes]\nw = { command = "true" }\n'
    p = run("-T", "-c", "warp.toml", conf=text, env={"T": "t", "WARPDRIVE_HTTP_PORT": "81", "WARPDRIVE_ADMIN_API_TOKEN": "secret",
                                                     "WARPDRIVE_LOG_FORMAT": "json"})
    assert p.returncode == 0, p.stderr
    for line in ('http_port = 81 # WARPDRIVE_HTTP_PORT', 'admin_token = "env:T" # warp.toml:3', "# max_connections = 1024 # preset",
                 'token = "env:WARPDRIVE_ADMIN_API_TOKEN" # WARPDRIVE_ADMIN_API_TOKEN', 'format = "json" # WARPDRIVE_LOG_FORMAT',
                 '[upstreams."localhost:1"]', 'url = "localhost:1" # warp.toml:5', 'user = "a\\"b" # warp.toml:7', 'command = "true" # warp.toml:9'):
        assert line in p.stdout.splitlines(), line + "\n" + p.stdout
    assert "secret" not in p.stdout
    assert run("-T", "-u", ":1").returncode == 2, "there is no file"


# ---- WarpDrive, as it stands -------------------------------------------------------------------

@promise("S2-83")
def test_warpdrive_stands(here, warp, backend):
    app(backend, 3000), app(backend, 3001), app(backend, 7080)
    w = stands(warp, WARPDRIVE[0])
    assert who(w, "/cable", "/sidekiq/jobs", "/") == ["b3001 GET /cable", "b7080 GET /jobs", "b3000 GET /"]


def places(text):
    """{upstream: addresses} of a configuration: ports and paths."""
    ups = tomllib.loads(text).get("upstreams", {})
    return {n: [i.get("socket") or i["port"] for i in u.get("instances", [u])] for n, u in ups.items()}


@promise("S2-58", "S2-59", "S2-60", "S2-61", "S2-63")
@pytest.mark.parametrize("text", WARPDRIVE[1:5])
def test_warpdrive_upstream_stands(here, warp, backend, text):
    """An upstream alone has every request."""
    (name, where), = places(text).items()
    b = [app(backend, a, "app") if isinstance(a, int) else unix_app(backend, a, "app") for a in where]
    w = stands(warp, text)
    assert who(w, *["/x"] * 6) == ["app GET /x"] * 6
    assert [sum(m.target == "/x" for m in x.requests) for x in b] == [6 // len(b)] * len(b)


@promise("S2-68")
@pytest.mark.parametrize("text", WARPDRIVE[5:15])
def test_warpdrive_routes_alone(run, text):
    """Routes to upstreams that are not there are refused, each with its line."""
    p = run("-t", "-c", "warp.toml", conf=text)
    assert p.returncode == 1
    for i, line in enumerate(text.splitlines()):
        if m := re.match(r'upstream = "(.*)"', line):
            assert "warp.toml:%d:12: error: routes.upstream: there is no [upstreams.%s]" % (i + 1, m[1]) in p.stderr


@promise("S2-75", "S2-76", "S2-77")
@pytest.mark.limit(40)
def test_warpdrive_programs_stand(here, warp):
    """Three programs and no route: they run."""
    for name in ("bundle", "anycable-go"):
        write("/run/bin/" + name, SERVE, 0o755)
    w = stands(warp, WARPDRIVE[15], env={"PATH": "/run/bin:" + os.environ["PATH"]})
    eventually(lambda: len(lib.read("/run/started").splitlines()) == 3, "three programs")
    assert sorted(lib.read("/run/started").splitlines()) == [
        "anycable-go - --port 3001", "bundle - exec sidekiq-web -p 7080", "bundle production exec puma -b unix:///tmp/puma.sock"]
    assert w.ask().status == 502


@promise("S2-82")
@pytest.mark.limit(40)
def test_warpdrive_complete_stands(here, warp):
    """The whole example: ports 80 and 443, sockets, its programs; an ACME server, Redis and PostgreSQL that are not there."""
    write("/run/bin/bundle", SERVE, 0o755)
    w = stands(warp, WARPDRIVE[-1], 80, env={"PATH": "/run/bin:" + os.environ["PATH"], "WARPDRIVE_ADMIN_TOKEN": "secret"})
    said = "bundle %s uid 0 None"
    assert who(w, "/cable", "/x", "/sidekiq/jobs", host="example.com") == [said % "/cable", said % "/x", 401]
    assert w.ask("/sidekiq/jobs", "X-Admin-Token: secret", host="example.com").text == said % "/jobs"
    assert who(w, "/x", host="www.example.com") == [said % "/x"]
    assert at(80, host="other.example").status == 502
    assert sorted(lib.read("/run/started").splitlines()) == [
        "bundle - exec sidekiq-web -p 7080", "bundle production exec puma -p 3001 cable/config.ru",
        "bundle production exec puma -w 3 -b unix:///tmp/puma.sock"]


# ---- contrib -------------------------------------------------------------------------------------

@promise("S3-118", "S3-97", "S3-98", "S3-99")
@pytest.mark.limit(60)
@pytest.mark.parametrize("script, shows", [
    ("test_load_balance.sh", ["round_robin", "weighted", "least_connections", "X-Forwarded-For", "static"]),
    ("test_websocket_proxy.sh", ["/ws/chat", "/ws/notifications", "426"])])
def test_contrib_script(here, script, shows):
    p = subprocess.run([os.path.join(lib.ROOT, "contrib", script)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                       env=lib.clean_env({"WARP": lib.WARP}), timeout=9 * TIMEOUT)
    assert p.returncode == 0, p.stdout + p.stderr
    assert all(re.search("(?m)^ok .*" + re.escape(s), p.stdout) for s in shows), p.stdout
    assert "FAILED" not in p.stdout
