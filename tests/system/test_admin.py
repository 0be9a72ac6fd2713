"""The admin endpoints of the fleet: status, metrics, the configuration with its origins,
verbs that take a name, and the same below a path of a normal listener."""
import contextlib
import json
import os
import re
import signal

import pytest

from lib import Client, conf, eventually, free_port, request
from test_log_admin import Admin, admin_of, logged, start


def tables(text):
    """The tables of `-s status`: {first word of the head: [rows]}; as many cells in a row as in its head."""
    out = {}
    for block in text.rstrip("\n").split("\n\n"):
        head, *rows = [x.split() for x in block.splitlines()]
        assert all(len(r) == len(head) for r in rows), block
        out[head[0]] = [dict(zip(head, r)) for r in rows]
    return out


@pytest.fixture
def two(warp, backend):
    """A warp with an upstream of two: one on TCP, one on a unix socket."""
    a, b = backend(name="a"), backend(name="b", unix=True)
    w = start(warp, logged({"path_prefix": "/x", "upstream": "app"}, {"path_exact": "/old", "redirect": "/new"},
                           {"path_prefix": "/", "upstream": "app"}, server={"worker_threads": 2},
                           app={"on": [a, b], "hold_secs": 2.5}))
    w.a, w.b, w.admin = "127.0.0.1:%d" % a.port, "unix:" + b.unix, admin_of(w)
    return w


# ---- status -------------------------------------------------------------------------

def test_status_of_an_instance(two):
    for _ in range(4):
        assert two.ask("/").status == 200
    up = eventually(lambda: (u := two.admin.status()["upstreams"][0]) and not sum(
        i["in_flight"] for i in u["instances"]) and u, "nothing in flight")
    assert (up["name"], up["strategy"], up["hold_secs"], up["maintenance"]) == ("app", "round_robin", 2.5, None)
    a, b = up["instances"]
    assert a["address"] == two.a and b["address"] == two.b and [a["index"], b["index"]] == [0, 1]
    for i in (a, b):
        assert i["state"] == "up" and i["why"] == "" and i["drained"] is False and i["backup"] is False
        assert i["weight"] == 1 and i["max_connections"] == 0 and i["run"] == "none" and i["idle_life_ms"] >= 0
        assert i["in_flight"] == 0 and i["average_ms"] >= 0 and "health" not in i, "nobody checks it"
    assert a["requests"] + b["requests"] == 4
    assert a["codes"]["2xx"] + b["codes"]["2xx"] == 4
    s = two.admin.status()
    assert s["processes"] == [] and s["certificates"] == []


def test_what_warp_itself_uses(two):
    s = two.admin.status()
    for p in [s] + s["workers"]:
        with open("/proc/%d/statm" % p["pid"]) as f:
            rss = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert rss / 2 < p["rss_bytes"] < rss * 2 and 0 <= p["cpu_secs"] < 60
    m = two.admin.metrics()
    assert m['warp_resident_memory_bytes{role="master",slot=""}'] > 1e5
    assert len([k for k in m if k.startswith("warp_cpu_seconds_total")]) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_chroot_sees_usage_and_no_way_out(warp, tmp_path):
    """A worker in a chroot still knows what it uses; its descriptor of /proc leads nowhere else."""
    jail = tmp_path / "jail"
    jail.mkdir()
    w = start(warp, logged({"respond": {"status": 200}}, server={"chroot": str(jail), "user": "nobody"}))
    s = admin_of(w).status()
    worker = s["workers"][0]["pid"]
    assert os.readlink("/proc/%d/root" % worker) == str(jail)
    if s["rss_bytes"] is None:
        pytest.skip("no open_tree here: nothing is known in a chroot")
    assert s["rss_bytes"] > 1e5 and s["workers"][0]["rss_bytes"] > 1e5
    kinds = []
    for n in os.listdir("/proc/%d/fd" % worker):
        with contextlib.suppress(FileNotFoundError):  # one that was closed meanwhile
            kinds.append(os.readlink("/proc/%d/fd/%s" % (worker, n)))
    assert "/proc" not in kinds, "a detached mount: its name is not a path from the root"


def test_hits_of_routes(two):
    for t in ("/x1", "/x2", "/old", "/y", "/old", "/x3"):
        two.ask(t)
    assert [r["hits"] for r in two.admin.status()["routes"]] == [3, 2, 1]
    m = two.admin.metrics()
    assert [v for k, v in m.items() if k.startswith("warp_route_hits_total")] == [3, 2, 1]
    assert [int(r["HITS"]) for r in tables(two.admin.ask("/status?format=text").text)["ROUTE"]] == [3, 2, 1]


@pytest.mark.limit(40)
def test_hits_begin_again_with_a_configuration(two):
    """A reload that is given up takes nothing away; one that is taken starts at 0, and so does the next."""
    hits = lambda: [r["hits"] for r in two.admin.status()["routes"]]
    two.ask("/old")
    with open(two.file) as f:
        good = f.read()
    two.write("[server]\nbad = 1\n[admin]\nlisten = \"%s\"\n" % two.path("admin.sock"))
    assert two.admin.ask("/reload", method="POST").status == 409
    two.ask("/old")
    assert hits() == [0, 2, 0]
    for _ in range(3):
        two.write(good)
        assert two.admin.ask("/reload", method="POST").status == 200
        eventually(lambda: len(two.admin.status()["workers"]) == 2, "the old workers left")
        assert hits() == [0, 0, 0]
        two.ask("/x")
        assert hits() == [1, 0, 0]
    os.kill(two.admin.status()["workers"][0]["pid"], signal.SIGKILL)
    eventually(lambda: [x["state"] for x in two.admin.status()["workers"]] == ["ready"] * 2, "a new worker")
    for _ in range(4):
        two.ask("/x")
    assert hits() == [5, 0, 0], "a new worker counts where the others do"


def test_status_tables(two, run):
    p = run("-s", "status", "-c", two.file)
    t = tables(p.stdout)
    assert p.returncode == 0 and list(t) == ["VERSION", "WORKER", "UPSTREAM", "ROUTE"]
    assert [(r["INSTANCE"], r["STANDING"], r["HEALTH"], r["WHY"]) for r in t["UPSTREAM"]] == [
        (two.a, "up", "-", "-"), (two.b, "up", "-", "-")]
    assert t["WORKER"][0]["RSS_KB"].isdigit() and [r["ACTION"] for r in t["ROUTE"]][1] == "308_/new"


def test_metrics_of_the_fleet(two):
    for _ in range(4):
        two.ask("/")
    answers = lambda m: {k: v for k, v in m.items() if k.startswith("warp_instance_answers_total") and 'code="2xx"' in k}
    # one is counted when it is on its way, which its client may see first
    m = eventually(lambda: sum(answers(m := two.admin.metrics()).values()) == 4 and m, "four are counted")
    for name in ("up", "healthy"):
        assert [v for k, v in m.items() if k.startswith("warp_instance_%s{" % name)] == [1, 1]
    for name in ("drained", "breaker"):
        assert [v for k, v in m.items() if k.startswith("warp_instance_%s{" % name)] == [0, 0]
    assert len(answers(m)) == 2 and m["warp_retries_total"] == 0
    assert len([k for k in m if k.startswith("warp_instance_answers_total")]) == 12


# ---- /config ------------------------------------------------------------------------

def test_origin_of_each_value(warp, backend):
    text = """[server]
worker_threads = 1
[admin]
listen = "@DIR@/admin.sock"
[upstreams.app]
host = "127.0.0.1"
port = %d
retries = 5
[upstreams.two]
hold_secs = 1
[[upstreams.two.instances]]
host = "127.0.0.1"
port = 81
weight = 7
[[routes]]
path_prefix = "/"
upstream = "app"
basic_auth = { anna = "s3cret" }
rate_limit = { requests = 9 }
add_headers = [{ name = "Authorization", value = "s3cret" }]
[[routes]]
path_prefix = "/two"
upstream = "two"
""" % backend().port
    w = warp(text, env={"WARPDRIVE_MAX_CONNECTIONS": "77"})
    m = admin_of(w).ask("/config")
    got = m.json
    line = lambda what: next(i for i, x in enumerate(open(w.file).read().splitlines(), 1) if x.startswith(what))
    said = lambda v, what: {"value": v, "from": "file:%d" % line(what)}
    assert got["server"]["max_connections"] == {"value": 77, "from": "env:WARPDRIVE_MAX_CONNECTIONS"}
    assert got["server"]["keepalive_requests"] == {"value": 10000, "from": "preset"}
    assert got["server"]["worker_threads"] == said(1, "worker_threads")
    assert got["upstreams"]["app"]["retries"] == said(5, "retries")
    assert got["upstreams"]["app"]["keepalive"] == {"value": 32, "from": "preset"}
    assert got["upstreams"]["two"]["instances"][0]["weight"] == said(7, "weight")
    assert got["upstreams"]["two"]["instances"][0]["backup"] == {"value": False, "from": "preset"}
    assert got["routes"][0]["rate_limit"]["requests"] == said(9, "rate_limit")
    assert got["routes"][0]["rate_limit"]["per_secs"] == {"value": 1, "from": "preset"}
    assert got["routes"][1]["path_prefix"] == said("/two", 'path_prefix = "/two"')
    assert got["routes"][0]["basic_auth"]["value"] == {"anna": "***"} and "s3cret" not in m.text


# ---- verbs --------------------------------------------------------------------------

def test_drain_and_enable(two):
    for name in ("0", two.a, two.a.replace(":", "%3A")):
        m = two.admin.ask("/drain/app/" + name, method="POST")
        assert (m.status, m.text) == (200, "ok\n"), name
        assert [i["drained"] for i in two.admin.status()["upstreams"][0]["instances"]] == [True, False]
        assert two.admin.status()["upstreams"][0]["instances"][0]["state"] == "drained"
        assert two.admin.ask("/enable/app/" + name, method="POST").status == 200
        assert [i["state"] for i in two.admin.status()["upstreams"][0]["instances"]] == ["up", "up"]


def test_an_instance_by_any_spelling(two):
    path = two.b[len("unix:"):]
    for name in (two.b, path.replace("/", "%2F"), "unix:" + path.replace("/", "%2F"), "unix/" + path, "1"):
        assert two.admin.ask("/drain/app/" + name, method="POST").status == 200, name
        assert [i["drained"] for i in two.admin.status()["upstreams"][0]["instances"]] == [False, True], name
        two.admin.ask("/enable/app/1", method="POST")


@pytest.mark.parametrize("target, status, text", [
    ("/restart/wbe", 404, "no process 'wbe'\n"), ("/start/a%2Fb", 404, "no process 'a/b'\n"),
    ("/stop/web", 404, "no process 'web'\n"), ("/restart", 400, "restart needs a name: /restart/NAME\n"),
    ("/restart/", 400, "restart needs a name: /restart/NAME\n"), ("/stop/", 400, "stop needs a name: /stop/NAME\n"),
    ("/drain", 400, "drain needs a name: /drain/UPSTREAM/INSTANCE\n"),
    ("/drain/apq/0", 404, "no upstream 'apq', did you mean 'app'?\n"),
    ("/drain/app", 404, "upstream app: no instance ''\n"), ("/drain/app/2", 404, "upstream app: no instance '2'\n"),
    ("/drain/app/%zz", 400, "the name is malformed or too long\n"),
    ("/drain/app/a%0Ab", 400, "the name is malformed or too long\n"),
    ("/drain/app/" + "x" * 500, 400, "the name is malformed or too long\n"),
    ("/reload/x", 404, None), ("/quitx", 404, None), ("/purge/x", 404, "there is no cache; see cache.size_bytes\n")])
def test_verbs_that_cannot_be(two, target, status, text):
    m = two.admin.ask(target, method="POST")
    assert m.status == status and (text is None or m.text == text)
    assert two.admin.ask("/health").status == 200 and two.ask("/").status == 200


def test_command_line(two, run):
    tell = lambda *a: run("-s", *a, "-c", two.file)
    p = tell("drain", "app/" + two.b)
    assert (p.returncode, p.stdout) == (0, "ok\n")
    assert [r["STANDING"] for r in tables(tell("status").stdout)["UPSTREAM"]] == ["up", "drained"]
    assert tell("enable", "app/1").returncode == 0
    for args, want in ((("restart", "wbe"), "warp: no process 'wbe'\n"),
                       (("drain", "apq/0"), "warp: no upstream 'apq', did you mean 'app'?\n"),
                       (("restart",), "warp: restart needs a name: /restart/NAME\n"),
                       (("purge", "x"), "warp: there is no cache; see cache.size_bytes\n")):
        p = tell(*args)
        assert (p.returncode, p.stdout) == (4, "") and p.stderr.endswith(want), p.stderr


@pytest.mark.limit(60)
def test_many_verbs_at_once(warp, backend):
    """While the master sleeps 16 wait and the next is told so; a client that left is forgotten; all are answered."""
    w = start(warp, logged({"path_prefix": "/"}, app=[backend(), backend()]))
    addr, clients = w.path("admin.sock"), []
    os.kill(w.pid, signal.SIGSTOP)
    try:
        for i in range(16):
            c = Client(addr)
            clients.append(c.send(request("/%s/app/0" % ("drain" if i % 2 else "enable"), method="POST")))
        full = lambda: (m := Admin(addr).ask("/drain/app/1", method="POST")).status == 503 and m
        with Client(addr) as c:  # the worker has read all of them when it says that there is no room
            m = c.ask("/drain/app/1", method="POST")
        assert m.status == 503 and "too many" in m.text
        assert Admin(addr).ask("/health").status == 200, "who asks for no verb is answered"
        clients.pop(3).close()
        clients.pop(7).rst()
        assert full(), "its place is taken until the master has answered"
    finally:
        os.kill(w.pid, signal.SIGCONT)
    for c in clients:
        m = c.response("POST")
        assert (m.status, m.text) == (200, "ok\n")
        c.close()
    for _ in range(20):
        assert Admin(addr).ask("/drain/app/1", method="POST").status == 200, "every place is free again"
    s = admin_of(w).status()["upstreams"][0]["instances"]
    assert [i["drained"] for i in s] == [True, True]


@pytest.mark.parametrize("fields, status", [
    (["Origin: http://evil.example"], 403), (["Origin: null"], 403), (["Sec-Fetch-Site: cross-site"], 403),
    (["Sec-Fetch-Site: same-site"], 403), (["Sec-Fetch-Site: cross-site", "Origin: http://a.example"], 403),
    (["Origin: http://a.example:1"], 403), (["Origin: http://a.example"], 200), (["Origin: https://A.example"], 200),
    (["Sec-Fetch-Site: same-origin"], 200), (["Sec-Fetch-Site: none"], 200), ([], 200)])
def test_no_verb_from_another_site(two, fields, status):
    with Client(two.path("admin.sock")) as c:
        m = c.ask("/drain/app/0", *fields, method="POST", host="a.example")
    assert m.status == status and two.admin.status()["upstreams"][0]["instances"][0]["drained"] is (status == 200)


# ---- below a path of a normal listener ------------------------------------------------

HTML = "Accept: text/html,*/*"


@pytest.fixture
def exposed(warp, backend):
    return warp(conf(app=[backend(), backend()], server={"admin_token": "open"},
                     admin={"listen": "off", "expose": "/adm/in/"}))


def test_exposed(exposed):
    w, key = exposed, "X-Admin-Token: open"
    m = w.ask("/adm/in?x", HTML)
    assert (m.status, m.get("location")) == (308, "/adm/in/")
    m = w.ask("/adm/in/", HTML)
    assert m.status == 200 and m.get("content-type") == "text/html; charset=utf-8" and "<script>" in m.text
    for t in ("/adm/in/", "/adm/in/status", "/adm/in/metrics", "/adm/in/health", "/adm/in/config", "/adm/in/nope"):
        assert w.ask(t).status == w.ask(t, "X-Admin-Token: opem").status == 401, t
        assert w.ask(t, key).status == w.ask(t, "Authorization: Bearer open").status == (404 if "nope" in t else 200), t
    assert w.ask("/adm/in/drain/app/0", HTML, method="POST").status == 401
    assert w.ask("/adm/in/drain/app/0", key, method="POST").text == "ok\n"
    m = w.ask("/adm/in/drain/app/127.0.0.1:1", key, method="POST")
    assert m.status == 404 and "no instance" in m.text
    assert w.ask("/adm/in/status", key).json["routes"][1]["hits"] > 10
    for t in ("/adm/inner", "/adm", "/adm/i", "/status"):
        assert w.ask(t).body == ("app GET %s 0" % t).encode(), "the backend's"
    for t in ("/%61dm/in/health", "/adm//in/./health", "/x/../adm/in/health"):
        assert w.ask(t).status == 401 and w.ask(t, key).text == "ok\n", "no spelling slips past"


@pytest.mark.limit(40)
def test_exposed_with_many_and_reload(exposed):
    with exposed.client() as c:
        for _ in range(3):
            assert c.ask("/adm/in/enable/app/1", "X-Admin-Token: open", method="POST", body=b"x" * 100).text == "ok\n"
            assert c.ask("/there").status == 200
    assert exposed.ask("/adm/in/reload", "X-Admin-Token: open", method="POST").text == "ok\n"


@pytest.mark.parametrize("admin, server, want", [
    ('expose = "/a"', "", r"warp.toml:\d+:\d+: error: admin.expose: needs server.admin_token"),
    ('expose = "/"', 'admin_token = "x"', r'expected a path such as "/warp", below "/", got "/"'),
    ('expose = ""', 'admin_token = "x"', r"admin.expose: expected a path"),
    ('expose = "adm"', 'admin_token = "x"', r'got "adm"'), ('expose = "/a?b"', 'admin_token = "x"', r'got "/a\?b"'),
    ('expose = "//"', 'admin_token = "x"', r'got "//"'), ('expose = "/../x"', 'admin_token = "x"', "expected a path")])
def test_expose_is_checked(check, admin, server, want):
    p = check("[server]\n%s\n[admin]\n%s\n[[routes]]\nrespond = { status = 200 }\n" % (server, admin))
    assert p.returncode == 1 and re.search(want, p.stderr), p.stderr


def test_expose_is_shown(run, tmp_path):
    text = ('[server]\nadmin_token = "x"\n[admin]\nexpose = "/adm"\n[[routes]]\npath_prefix = "/"\n'
            "respond = { status = 200 }\n[[routes]]\npath_exact = \"/adm/x\"\nrespond = { status = 204 }\n")
    p = run("-t", "-c", "warp.toml", conf=text)
    assert p.returncode == 0 and "route 1 (line 4): path_exact=/adm -> 308 /adm/" in p.stdout
    assert "route 2 (line 4): path_prefix=/adm/ -> admin endpoints" in p.stdout and "never reached" in p.stderr
    p = run("-e", "GET /adm/status", "-c", "warp.toml")
    assert "route 2 (line 4): taken" in p.stdout and "token: missing or wrong: 401" in p.stdout
    p = run("-e", "GET /adm/status", "-H", "X-Admin-Token: x", "-c", "warp.toml")
    assert "token: good" in p.stdout


# ---- the page at / ----------------------------------------------------------------------

def test_page(warp):
    port = free_port()
    warp(conf({"respond": {"status": 200}}, admin={"listen": ["127.0.0.1:%d" % port], "token": "t"}))
    a = Admin(port)
    m = a.ask("/", HTML)
    assert m.status == 200 and len(m.body) < 13 * 1024 and m.get("cache-control") == "no-store"
    policy = m.get("content-security-policy")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"(src|href|action|url)\s*[=(]\s*'?(https?:)?//", m.text), "asks nobody else"
    assert "innerHTML" not in m.text and "insertAdjacent" not in m.text
    assert a.ask("/").status == 401 and a.ask("/", HTML, method="POST").status == 401
    text = a.ask("/?format=text", HTML, "X-Admin-Token: t")
    assert text.get("content-type").startswith("text/plain") and "POST /restart" in text.text
    assert a.ask("/", "X-Admin-Token: t").text == text.text


# ---- with processes ------------------------------------------------------------------

PROCESS = """[admin]
listen = "@DIR@/admin.sock"
[processes.sleeper]
command = "/bin/sh -c 'echo hello; echo world; exec sleep 1000'"
ready = "exec"
env = { PASSWORD = "s3cret" }
%s
[[routes]]
respond = { status = 200 }
"""


def test_processes(warp, run):
    w = warp(PROCESS % "")
    a = admin_of(w)
    p = eventually(lambda: (x := a.status()["processes"]) and x[0]["state"] == "up" and x[0]["lines"][1:] and
                   x[0]["rss_bytes"] and x[0], "up")  # it has none for a moment, while it becomes another program
    assert (p["name"], p["process"], p["upstream"], p["restarts"]) == ("sleeper", "sleeper", None, 0)
    assert p["lines"] == ["hello", "world"] and p["uptime_secs"] >= 0
    assert a.metrics()['warp_process_up{process="sleeper"}'] == 1
    row = tables(run("-s", "status", "-c", w.file).stdout)["PROCESS"][0]
    assert (row["PROCESS"], row["STATE"], row["PID"]) == ("sleeper", "up", str(p["pid"]))
    assert "s3cret" not in a.ask("/config").text and a.ask("/config").json["processes"]["sleeper"]["env"]["value"] == {
        "PASSWORD": "***"}
    r = run("-s", "restart", "sleper", "-c", w.file)
    assert r.returncode == 4 and r.stderr.endswith("warp: no process 'sleper', did you mean 'sleeper'?\n")
    assert run("-s", "restart", "sleeper", "-c", w.file).stdout == "ok\n"
    assert eventually(lambda: (x := a.status()["processes"][0])["pid"] not in (0, p["pid"]) and x)["state"] == "up"
    assert run("-s", "stop", "sleeper", "-c", w.file).returncode == 0
    eventually(lambda: a.status()["processes"][0]["state"] == "off", "stopped")
    assert w.ask("/").status == 200, "warp itself goes on"
    assert run("-s", "start", "sleeper", "-c", w.file).returncode == 0
    eventually(lambda: a.status()["processes"][0]["state"] == "up", "started")
