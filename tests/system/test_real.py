"""Real applications behind warp: Django under gunicorn, websockets under daphne and
uvicorn, nginx, node; asked by curl and by the websockets library."""
import asyncio
import contextlib
import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from lib import SLOW, TIMEOUT, Client, conf, connect, eventually, free_port

DJANGO = '''
import hashlib, time
from django.conf import settings
settings.configure(SECRET_KEY="x", DATA_UPLOAD_MAX_MEMORY_SIZE=None, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_X_FORWARDED_HOST=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import re_path
def hello(r):
    answer = JsonResponse({"path": r.path, "q": r.GET.dict(), "uri": r.build_absolute_uri(), "ip": r.META.get("HTTP_X_REAL_IP"), "cookie": r.COOKIES, "secure": r.is_secure()})
    answer.set_cookie("a", "1"); answer.set_cookie("b", "2")
    return answer
def upload(r):
    return HttpResponse(hashlib.sha256(r.body).hexdigest())
def stream(r):
    return StreamingHttpResponse("line %d\\n" % i for i in range(1000))
urlpatterns = [re_path("^hello", hello), re_path("^upload$", upload), re_path("^stream$", stream), re_path("^go$", lambda r: HttpResponseRedirect("/hello")), re_path("^boom$", lambda r: 1 / 0)]
application = get_wsgi_application()
'''
ASGI = '''
async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
        await send({"type": "websocket.send", "text": scope["path"] + " " + str(dict(scope["headers"]).get(b"x-real-ip", b"").decode())})
        while (m := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": m.get("text"), "bytes": m.get("bytes")} if m.get("text") is not None else {"type": "websocket.send", "bytes": m["bytes"]})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"asgi " + scope["path"].encode()})
'''
NODE = '''
const http = require("http"), clients = []; let n = 0;
http.createServer((req, res) => {
  if (req.url === "/events") { res.writeHead(200, {"Content-Type": "text/event-stream"}); res.flushHeaders(); clients.push(res); req.on("close", () => clients.splice(clients.indexOf(res), 1)); }
  else if (req.url === "/tick") { n++; clients.forEach(c => c.write(`id: ${n}\\ndata: tick ${n}\\n\\n`)); res.end(String(clients.length)); }
  else res.end("node " + req.url);
}).listen(+process.argv[2], "127.0.0.1");
'''
NGINX = '''
daemon off; worker_processes 1; pid %(d)s/nginx.pid; error_log stderr; %(user)s
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %(d)s/b; proxy_temp_path %(d)s/p; fastcgi_temp_path %(d)s/f; uwsgi_temp_path %(d)s/u; scgi_temp_path %(d)s/s;
  types { text/plain txt; } default_type application/octet-stream; gzip on; gzip_types text/plain; gzip_min_length 100; keepalive_timeout 1s; keepalive_requests 7;
  server { listen 127.0.0.1:%(port)d; root %(d)s/www; location = /empty { return 204; } location /put/ { client_max_body_size 100m; dav_methods PUT DELETE; } }
}
'''


@contextlib.contextmanager
def server(addr, cmd, **kw):
    """Runs cmd until the block ends; entered once addr accepts."""
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, **kw)
    out = []
    threading.Thread(target=lambda: out.extend(p.stdout), daemon=True).start()

    def up():
        assert p.poll() is None, "%s ended: %s" % (cmd[0], b"".join(out).decode())
        with contextlib.suppress(OSError):
            connect(addr).close()
            return True
    try:
        eventually(up, cmd[0], 15 * SLOW)
        yield p
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGTERM)
        try:
            p.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait(5)


def need(program):
    return shutil.which(program) or pytest.skip("no " + program)


@pytest.fixture(scope="module")
def apps(tmp_path_factory):
    d = tmp_path_factory.mktemp("apps")
    for name, text in (("site_wsgi.py", DJANGO), ("site_asgi.py", ASGI), ("sse.js", NODE)):
        (d / name).write_text(text)
    return d


@pytest.fixture(scope="module")
def gunicorn(apps):
    sock = str(apps / "gunicorn.sock")
    with server(sock, [sys.executable, need("gunicorn"), "-b", "unix:" + sock, "--threads", "4", "--keep-alive", "5",
            "site_wsgi"], cwd=apps):
        yield sock


@pytest.fixture(scope="module")
def daphne(apps):
    port = free_port()
    with server(port, [sys.executable, need("daphne"), "-b", "127.0.0.1", "-p", str(port), "site_asgi:application"], cwd=apps):
        yield port


@pytest.fixture(scope="module")
def uvicorn(apps):
    pytest.importorskip("uvicorn")
    port = free_port()
    with server(port, [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "site_asgi:application"],
            cwd=apps):
        yield port


@pytest.fixture(scope="module")
def node(apps):
    port = free_port()
    with server(port, [need("node"), "sse.js", str(port)], cwd=apps):
        yield port


@pytest.fixture(scope="module")
def nginx(apps):
    port = free_port()
    (apps / "www" / "put").mkdir(parents=True)
    (apps / "www" / "a.txt").write_text("all work and no play\n" * 20000)
    (apps / "www" / "raw.bin").write_bytes(os.urandom(5000000))
    (apps / "nginx.conf").write_text(NGINX % {"d": apps, "port": port, "user": "user root;" if os.getuid() == 0 else ""})
    with server(port, [need("nginx"), "-p", str(apps), "-c", str(apps / "nginx.conf")]):
        yield port


# The whole configuration of a Django site with websockets: ten lines (the tests add a port).
SITE = """[upstreams.django]
socket = "{sock}"
[upstreams.channels]
host = "127.0.0.1"
port = {port}
[[routes]]
path_prefix = "/ws"
upstream = "channels"
[[routes]]
upstream = "django"
"""


@pytest.fixture
def site(warp, gunicorn, daphne):
    assert SITE.count("\n") == 10
    return warp(SITE.format(sock=gunicorn, port=daphne))


def curl(w, path, *args, ok=True):
    p = subprocess.run([need("curl"), "-sS", "--max-time", str(int(2 * TIMEOUT)), *args, "http://127.0.0.1:%d%s" % (w.port,
        path)], capture_output=True)
    assert not ok or p.returncode == 0, p.stderr
    return p.stdout


def test_django(site):
    m = site.ask("/hello/x?a=b%20c", "Cookie: s=1; t=2", host="www.example.com")
    got = m.json
    assert got == {"path": "/hello/x", "q": {"a": "b c"}, "uri": "http://www.example.com/hello/x?a=b%20c", "ip": "127.0.0.1",
           "cookie": {"s": "1", "t": "2"}, "secure": False}
    assert len(m.all("Set-Cookie")) == 2
    with site.client() as c:
        assert c.ask("/stream").text == "".join("line %d\n" % i for i in range(1000))
        assert c.ask("/go").get("Location") == "/hello"
        assert c.ask("/boom").status == 500, "the app's own error"
        assert c.ask("/none").status == 404
        assert c.ask("/hello", method="HEAD").status == 200
        for n in (0, 1, 70000, 2000000):
            body = os.urandom(n)
            assert c.ask("/upload", method="POST", body=body).text == hashlib.sha256(body).hexdigest()


def test_django_after_head(site):
    """gunicorn sends Django's body even to HEAD; no later request may suffer."""
    with site.client() as c:
        for _ in range(100):
            assert c.ask("/hello", method="HEAD").status == 200
            assert c.ask("/upload", method="POST", body=b"x").status == 200


def test_django_by_curl(site, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3000000))
    want = hashlib.sha256(big.read_bytes()).hexdigest().encode()
    assert curl(site, "/upload", "--data-binary", "@%s" % big) == want, "curl asks for 100-continue by itself"
    assert curl(site, "/upload", "-T", str(big), "-X", "POST", "-H", "Transfer-Encoding: chunked") in (want,
           hashlib.sha256(b"").hexdigest().encode()), "chunked"
    assert curl(site, "/go", "-L").startswith(b'{"path": "/hello"')
    assert curl(site, "/stream", "--http1.0").endswith(b"line 999\n")
    assert b"500" in curl(site, "/boom", "-i").split(b"\r\n")[0]


def test_gunicorn_with_buffered_requests(warp, gunicorn):
    """buffer_request gives a WSGI server, which cannot read chunks, its whole body with a length."""
    w = warp(conf({"buffer_request": 1000}, app={"socket": gunicorn}))
    with w.client() as c:
        from lib import chunks, request
        body = os.urandom(100000)
        c.send(request("/upload", "Transfer-Encoding: chunked", method="POST") + chunks(body[:30000], body[30000:]))
        assert c.response().text == hashlib.sha256(body).hexdigest()


async def websocket_talk(w, path, between=None):
    import websockets
    async with websockets.connect("ws://127.0.0.1:%d%s" % (w.port, path), max_size=None, subprotocols=["chat"],
            compression=None) as ws:
        assert ws.subprotocol == "chat"
        assert await asyncio.wait_for(ws.recv(), TIMEOUT) == "%s 127.0.0.1" % path
        for m in ("hello", "ünïcode", b"\0\1\2", "x" * 300000, os.urandom(1000000)):
            await ws.send(m)
            assert await asyncio.wait_for(ws.recv(), TIMEOUT) == m
        await asyncio.wait_for(await ws.ping(), TIMEOUT)
        if between:
            await between()
            await ws.send("after")
            assert await asyncio.wait_for(ws.recv(), TIMEOUT) == "after"


def test_websocket_daphne(site):
    asyncio.run(websocket_talk(site, "/ws/room"))
    assert site.ask("/ws").text == "asgi /ws", "plain HTTP on the same route"
    assert site.ask("/hello").status == 200


def test_websocket_uvicorn(warp, uvicorn):
    w = warp(conf(app={"url": "ws://127.0.0.1:%d" % uvicorn}))
    asyncio.run(websocket_talk(w, "/any"))


def test_many_websockets(site):
    async def all_of_them():
        await asyncio.gather(*(websocket_talk(site, "/ws/%d" % i) for i in range(8)))
    asyncio.run(all_of_them())


def test_site_stays_up_across_reloads(site, gunicorn, daphne):
    """Three reloads under load: no request fails, and an open websocket goes on."""
    stop, answers = threading.Event(), []

    def ask():
        c = site.client()
        while not stop.is_set():
            try:
                m = c.ask("/hello")
                answers.append(m.status)
                if "close" not in m.tokens("connection"):
                    continue
            except (EOFError, OSError) as e:
                answers.append(e)
            c.close()
            c = site.client()

    async def reloads():
        for i in range(3):
            before, asked = set(site.children()), len(answers)
            site.write(SITE.format(sock=gunicorn, port=daphne) + 'description = "%d"\n' % i)
            site.signal(signal.SIGHUP)
            while not set(site.children()) - before or len(answers) < asked + 20:
                await asyncio.sleep(0.02)
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        asyncio.run(websocket_talk(site, "/ws/stays", reloads))
    finally:
        stop.set()
        for t in threads:
            t.join(TIMEOUT)
    assert len(answers) > 60 and set(answers) == {200}, [a for a in answers if a != 200][:5]


def test_nginx(warp, nginx, apps):
    """A backend that compresses, chunks, closes after seven requests and after a second."""
    w = warp(conf(app={"host": "127.0.0.1", "port": nginx}))
    text, raw = (apps / "www" / "a.txt").read_bytes(), (apps / "www" / "raw.bin").read_bytes()
    with w.client() as c:
        for _ in range(10):
            m = c.ask("/a.txt", "Accept-Encoding: gzip")
            assert (m.get("Content-Encoding"), m.framing) == ("gzip", "chunked")
            assert gzip.decompress(m.body) == text
            assert c.ask("/a.txt").body == text
        m = c.ask("/raw.bin")
        assert m.framing == "length" and m.body == raw
        part = c.ask("/raw.bin", "Range: bytes=100-199")
        assert (part.status, part.body, part.get("Content-Range")) == (206, raw[100:200], "bytes 100-199/5000000")
        assert c.ask("/raw.bin", "If-None-Match: " + m.get("ETag")).status == 304
        assert c.ask("/raw.bin", method="HEAD").get("Content-Length") == "5000000"
        assert c.ask("/empty").status == 204
        assert c.ask("/a.txt", version="1.0").body == text
    assert curl(w, "/a.txt", "--compressed") == text
    assert curl(w, "/raw.bin") == raw


def test_nginx_many_clients(warp, nginx, apps):
    """Its kept connections end every seven requests, in the midst of things: nobody notices."""
    w = warp(conf(app={"host": "127.0.0.1", "port": nginx}))
    text = (apps / "www" / "a.txt").read_bytes()
    bad = []

    def many():
        with w.client() as c:
            for _ in range(60):
                m = c.ask("/a.txt")
                if (m.status, m.body) != (200, text):
                    bad.append(m)
    threads = [threading.Thread(target=many) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(2 * TIMEOUT)
    assert not bad and not any(t.is_alive() for t in threads)


def test_nginx_is_gone_and_comes_back(warp, apps):
    port = free_port()
    (apps / "other").mkdir(exist_ok=True)
    (apps / "other.conf").write_text((NGINX % {"d": apps / "other", "port": port, "user": ""}).replace("location",
        "location = /up { return 200 up; } location", 1))
    w = warp(conf(app={"host": "127.0.0.1", "port": port}))
    assert w.ask("/up").status == 502
    for _ in range(2):
        with server(port, [need("nginx"), "-p", str(apps / "other"), "-c", str(apps / "other.conf")]):
            assert w.ask("/up").text == "up"
        eventually(lambda: w.ask("/up").status == 502, "gone again")


def test_node_events(warp, node):
    """Each event arrives when it is made; a client that leaves is let go."""
    w = warp(conf(app={"host": "127.0.0.1", "port": node}))
    with Client(node) as maker, w.client() as c, w.client() as second:
        for x in (c, second):
            x.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
            assert x.head(TIMEOUT).get("Content-Type") == "text/event-stream"
        for _ in range(5):
            n = maker.ask("/tick").text
            assert n == "2", "both are known to node"
            c.until(b"\n\n", TIMEOUT)
            second.until(b"\n\n", TIMEOUT)
        second.close()
        eventually(lambda: maker.ask("/tick").text == "1", "node learns that one left")
    assert w.ask("/x").text == "node /x"
