"""Real applications that one warp runs: Django under gunicorn, websockets under daphne, Rack under puma,
node. warp chooses their ports and sockets; each is restarted under load."""
import asyncio
import sys

import pytest

from lib import SLOW, eventually
from supervised import Load, alive, gone, instances, kill, procs, quiet, reload, running, upgrade, verb, wait_state
from test_real import ASGI, DJANGO, need, websocket_talk

RACK = '''
app = lambda do |env|
  case env["PATH_INFO"]
  when "/sum" then n = env["rack.input"].read.bytes.sum
    [200, {"Content-Type" => "text/plain"}, ["puma sum #{n}"]]
  when "/events" then [200, {"Content-Type" => "text/event-stream"}, Enumerator.new { |y| 5.times { |i| y << "data: #{i}\\n\\n" } }]
  else [200, {"Content-Type" => "text/plain"}, ["puma #{env["PATH_INFO"]}"]]
  end
end
run app
'''
NODE = '''
const http = require("http");
const s = http.createServer((q, a) => a.end("node " + q.url)).listen(process.argv[2]);
process.on("SIGTERM", () => { s.close(() => process.exit(0)); s.closeIdleConnections?.(); });
'''
FLEET = """
[admin]
listen = ["@DIR@/admin"]
[upstreams.django.process]
command = "{python} {gunicorn} -b unix:{{socket}} --threads 4 --keep-alive 5 site_wsgi"
{common}
[upstreams.channels.process]
command = "{python} {daphne} -b 127.0.0.1 -p {{port}} site_asgi:application"
{common}
[upstreams.puma.process]
command = "{puma} -b unix://{{socket}} -t 1:4 config.ru"
replicas = 2
{common}
[upstreams.node.process]
command = "{node} app.js {{port}}"
replicas = 2
{common}
[[routes]]
path_prefix = "/ws"
upstream = "channels"
[[routes]]
path_prefix = "/puma"
strip_prefix = true
upstream = "puma"
[[routes]]
path_prefix = "/node"
strip_prefix = true
upstream = "node"
[[routes]]
upstream = "django"
"""
TARGETS = {"django": "/hello", "channels": "/ws/http", "puma": "/puma/x", "node": "/node/x"}


def everyone(w):
    return sorted(p["pid"] for p in procs(w).values())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One warp, six processes; the same one for all tests of this file."""
    import lib
    d = tmp_path_factory.mktemp("fleet")
    for name, text in (("site_wsgi.py", DJANGO), ("site_asgi.py", ASGI), ("config.ru", RACK), ("app.js", NODE)):
        (d / name).write_text(text)
    w = lib.Warp(FLEET.format(python=sys.executable, gunicorn=need("gunicorn"), daphne=need("daphne"), puma=need("puma"),
                              node=need("node"), common='dir = "%s"\nbackoff_secs = 0.1' % d), (), d)
    try:
        for name in ("django", "channels", "puma", "node"):
            eventually(lambda: all(i["state"] == "up" for i in instances(w, name)), "%s is up: %s" % (name, w.stderr[-1000:]), 25 * SLOW)
        mine = everyone(w)
        assert len(mine) == 6 and all(mine)
        yield w
        mine = everyone(w)
    finally:
        w.stop(timeout=30 * SLOW)
    gone(mine)


pytestmark = pytest.mark.limit(60)


def test_each_answers(site):
    m = site.ask("/hello/x?a=b%20c", host="www.example.com").json
    assert m["uri"] == "http://www.example.com/hello/x?a=b%20c" and m["ip"] == "127.0.0.1"
    assert site.ask("/ws/plain").text == "asgi /ws/plain"
    body = bytes(range(256)) * 1000
    assert site.ask("/puma/sum", method="POST", body=body).text == "puma sum %d" % sum(body)
    assert site.ask("/puma/events").text == "".join("data: %d\n\n" % i for i in range(5))
    assert site.ask("/node/y").text == "node /y"


def test_websocket_through_a_supervised_server(site):
    """And it goes on while other processes are restarted."""
    async def between():
        await asyncio.to_thread(verb, site, "restart", "node")
    asyncio.run(websocket_talk(site, "/ws/room", between))


@pytest.mark.parametrize("name", TARGETS)
def test_restart_under_load(site, name):
    """No request fails: rolling where there are two, beside each other where there is one."""
    pids_of = lambda: {p["pid"] for n, p in procs(site).items() if n.split(".")[0] == name}
    before = pids_of()
    with Load(site.port, threads=2, target=TARGETS[name]) as load:
        load.more(10)
        verb(site, "restart", name)
        load.more(10)
    eventually(lambda: not before & pids_of(), "the old ones are gone", 25 * SLOW)
    assert len(pids_of()) == len(before)
    quiet(site, name)


@pytest.mark.parametrize("name", TARGETS)
def test_kill_under_load(site, name):
    """kill -9: requests wait, or go to the other one; what was half answered is cut."""
    with Load(site.port, threads=2, target=TARGETS[name], cuts=2) as load:
        load.more(10)
        victim = running(site, name)[0]
        kill(victim)
        load.more(10)
        eventually(lambda: all(i["state"] == "up" for i in instances(site, name)), "up again", 25 * SLOW)
        load.more(10)
    eventually(lambda: not alive(victim), "it is gone")


def test_reload_and_upgrade_keep_them(site):
    """All pids stay; a websocket that is open is not cut by the reload."""
    before = everyone(site)
    with Load(site.port, threads=2, target="/hello") as load:
        async def reloaded():
            await asyncio.to_thread(reload, site)
        asyncio.run(websocket_talk(site, "/ws/stays", reloaded))
        load.more(10)
        upgrade(site)
        load.more(10)
    assert everyone(site) == before
    for name, target in TARGETS.items():
        assert site.ask(target).status == 200
        assert wait_state(site, "up", next(n for n in procs(site) if n.split(".")[0] == name))
