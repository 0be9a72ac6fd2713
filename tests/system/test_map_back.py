"""Routes that cut or rewrite paths say so in X-Forwarded-Prefix; with map_back what the upstream says of where things are
comes back as the client has them. Rows of the mapping itself: tests/unit/test_map_back.c."""
import http.server
import threading
import urllib.request

import pytest

from lib import HEAD, SWITCH, UPGRADE, conf, reply
from test_fastcgi import out, php  # noqa: F401

STRIP = {"path_prefix": "/app", "strip_prefix": True, "map_back": True}
TRUST = {"trusted_proxies": ["127.0.0.0/8"]}


def many(answer):
    """Answers every request of a connection alike; what has {at} is told where the backend is."""
    def step(c):
        while True:
            c.request()
            c.send(answer.replace(b"{at}", b"127.0.0.1:%d" % (c.backend.port or 0)))
    return [step]


# ---- what the upstream is told --------------------------------------------------------

# reason: keys of the route, target, X-Forwarded-Prefix
SENT = {
    "strip_prefix": (dict(path_prefix="/app", strip_prefix=True), "/app/x", "/app"),
    "strip_prefix, a slash at its end": (dict(path_prefix="/app/", strip_prefix=True), "/app/x", "/app"),
    "strip_prefix, an odd name": (dict(path_prefix="/a b\u00e4", strip_prefix=True), "/a%20b%c3%a4/x", "/a%20b%C3%A4"),
    "strip_prefix, nothing": (dict(path_prefix="/", strip_prefix=True), "/x", None),
    "strip_prefix, an exact path": (dict(path_exact="/app", strip_prefix=True), "/app", "/app"),
    "rewrite": (dict(path_prefix="/old", rewrite="/new"), "/old/x", "/old"),
    "an expression, stripped": (dict(path_regex="^/v[0-9]+", strip_prefix=True), "/v%31/x/y", "/v1"),
    "an expression, rewritten": (dict(path_regex="^/u/([a-z]+)/(.*)$", rewrite="/home/$1/$2"), "/u/bob/x%3Bz?q", "/u"),
    "an expression, all of it": (dict(path_regex="^/(.*)$", rewrite="/x/$1"), "/a/b", None),
    "an expression in the middle": (dict(path_regex="/v([0-9]+)/", rewrite="/api-$1/"), "//evil.example/v2/d", "/evil.example/v2"),
    "no path at all": (dict(rewrite="/one"), "/a/b", None),
    "neither": (dict(path_prefix="/app"), "/app/x", None),
    "no forward_headers": (dict(path_prefix="/app", strip_prefix=True, forward_headers=False), "/app/x", None),
    "removed": (dict(path_prefix="/app", strip_prefix=True, remove_headers=["X-Forwarded-Prefix"]), "/app/x", None),
    "replaced": (dict(path_prefix="/app", strip_prefix=True, add_headers=[{"name": "X-Forwarded-Prefix", "value": "/own"}]), "/app/x",
                 "/own"),
}


@pytest.mark.parametrize("reason", SENT)
def test_sent(warp, backend, reason):
    route, target, want = SENT[reason]
    b = backend()
    w = warp(conf(route, app=b))
    assert w.ask(target).status == 200
    assert b.last.all("x-forwarded-prefix") == ([want] if want else []), reason
    assert w.ask(target, "X-Forwarded-Prefix: /evil", "X_Forwarded_Prefix: /evil").status == 200
    assert b.last.all("x-forwarded-prefix") == ([want] if want else []), "nobody's own word is believed"
    assert not b.last.has("x_forwarded_prefix")


@pytest.mark.parametrize("said, want", [("/outer", "/outer/app"), ("/outer/", "/outer/app"), ("//evil.example", "/evil.example/app"),
                                        ("/a/../..", "/app"), ("evil", "/app"), ("/", "/app"), ("/%61 b", "/a%20b/app")])
def test_a_trusted_proxy(warp, backend, said, want):
    """What it took off itself comes first."""
    b = backend()
    w = warp(conf({"path_prefix": "/app", "strip_prefix": True}, {}, app=b, server=TRUST))
    w.ask("/app/x", "X-Forwarded-Prefix: " + said, "X_Forwarded_Prefix: /evil")
    assert not b.last.has("x_forwarded_prefix"), "a backend that reads _ as - would take both for one"
    assert b.last.all("x-forwarded-prefix") == [want]
    w.ask("/x", "X-Forwarded-Prefix: " + said)
    assert b.last.all("x-forwarded-prefix") == [said], "where nothing is cut it travels on"


# ---- what the client is told ----------------------------------------------------------

ANSWER = reply("ok", "Location: http://{at}/login?to=/x", "Content-Location: /x", "Refresh: 5; url=/r", "Set-Cookie: a=1; Path=/; Secure",
               "Set-Cookie: b=2; Domain=127.0.0.1; Path=/b", "X-Location: /x", "Link: </x>", status="302 Found")
MAPPED = [("Location", "http://site.example/app/login?to=/x"), ("Content-Location", "/app/x"), ("Refresh", "5; url=/app/r"),
          ("Set-Cookie", "a=1; Path=/app; Secure"), ("Set-Cookie", "b=2; Domain=site.example; Path=/app/b"), ("X-Location", "/x"),
          ("Link", "</x>")]
NAMES = {n.lower() for n, _ in MAPPED}


def where(m):
    return [f for f in m.fields if f[0].lower() in NAMES]


def test_mapped(warp, backend):
    b = backend(many(ANSWER))
    w = warp(conf(STRIP, {}, app=b))
    with w.client() as c:
        assert where(c.ask("/app/x", host="site.example")) == MAPPED
        assert where(c.ask("/app/y", host="site.example")) == MAPPED
        plain = dict(where(c.ask("/x", host="site.example")))
        assert plain["Location"] == "http://127.0.0.1:%d/login?to=/x" % b.port and plain["Content-Location"] == "/x"


@pytest.mark.parametrize("fields, location, path", [
    (["X-Forwarded-Proto: https"], "https://site.example/app/login?to=/x", "/app"),
    (["X-Forwarded-Proto: https", "X-Forwarded-Host: cdn.example:8443"], "https://cdn.example:8443/app/login?to=/x", "/app"),
    (["X-Forwarded-Prefix: /outer"], "http://site.example/outer/app/login?to=/x", "/outer/app"),
    (["X-Forwarded-Host: a, b"], "http://site.example/app/login?to=/x", "/app"),
])
def test_behind_a_trusted_proxy(warp, backend, fields, location, path):
    w = warp(conf(STRIP, app=backend(many(ANSWER)), server=TRUST))
    m = w.ask("/app/x", *fields, host="site.example")
    assert m.get("location") == location and m.all("set-cookie")[0] == "a=1; Path=%s; Secure" % path
    w = warp(conf(STRIP, app=backend(many(ANSWER))))
    assert where(w.ask("/app/x", *fields, host="site.example")) == MAPPED, "others are not believed"


def test_over_tls(https, backend, pki):
    w = https(pki.cert("a.example"), conf=conf(STRIP, app=backend(many(ANSWER))))
    with w.tls() as c:
        m = c.ask("/app/x")
        assert m.get("location").startswith("https://") and m.get("location").endswith("/app/login?to=/x")


def test_an_expression(warp, backend):
    """Each request's own prefix; what a client writes in front never becomes a host."""
    b = backend(many(reply("ok", "Location: /home/login", "Set-Cookie: a=1; Path=/home", status="302 Found")))
    w = warp(conf({"path_regex": "^/u/([a-z]+)/(.*)$", "rewrite": "/home/$2", "map_back": True},
                  {"path_regex": "/v[0-9]+/", "rewrite": "/home/", "map_back": True}, app=b))
    assert w.ask("/u/bob/x").get("location") == "/u/bob/login"
    m = w.ask("/%75/eve/x%3By")
    assert (m.get("location"), m.get("set-cookie")) == ("/u/eve/login", "a=1; Path=/u/eve")
    for t in ("//evil.example/v2/x", "/%2Fevil.example/v2/x", "/\\evil.example/v2/x", "///evil.example/v2/x"):
        got = w.ask(t).get("location") or "/"
        assert got.startswith("/") and got[1:2] not in ("/", "\\"), (t, got)


def test_host_header(warp, backend):
    """The host that the upstream is asked for is its own."""
    w = warp(conf(dict(STRIP, path_prefix="/"), app={"on": backend(many(reply("", "Location: http://real.example/x", status="301 M"))),
                                                  "host_header": "real.example"}))
    assert w.ask("/", host="site.example").get("location") == "http://site.example/x"


def test_cached(warp, backend):
    """What is stored is the upstream's word; each client gets it as it has it."""
    b = backend(many(reply("ok", "Location: http://{at}/new", "Cache-Control: max-age=100", status="301 Moved")))
    w = warp(dict(conf(STRIP, {"path_prefix": "/app", "strip_prefix": True}, app=b, server=TRUST), cache={"size_bytes": 1 << 20}))
    for fields, want in (([], "http://site.example/app/new"), (["X-Forwarded-Prefix: /o"], "http://site.example/o/app/new")):
        for _ in range(2):
            m = w.ask("/app/x", *fields, host="site.example")
            assert m.get("location") == want
    assert m.get("x-cache") == "HIT" and len(b.requests) == 1


def test_intercepted(warp, backend):
    """Cookies that an error sets are mapped as well."""
    w = warp(conf(dict(STRIP, intercept_errors=404), app=backend(many(reply("no", "Set-Cookie: a=1; Path=/", status="404 No")))))
    m = w.ask("/app/x")
    assert m.get("set-cookie") == "a=1; Path=/app" and "404 Not Found" in m.text


def test_forward_auth(warp, backend):
    """Who refuses is not the upstream: its answer goes out as it is, also with a status that is intercepted."""
    no = reply("log in", "Location: /login", "Set-Cookie: sso=1; Path=/", status="401 Unauthorized")
    w = warp(conf(dict(STRIP, intercept_errors=401, forward_auth={"upstream": "auth", "path": "/check"}), app=backend(name="app"),
                  auth=backend(many(no))))
    m = w.ask("/app/x")
    assert (m.status, m.text, m.get("location"), m.get("set-cookie")) == (401, "log in", "/login", "sso=1; Path=/")


def test_sendfile(warp, backend, tmp_path):
    (tmp_path / "f.txt").write_text("a file")
    b = backend(many(reply("", "X-Sendfile: f.txt", "Content-Location: /f", "Set-Cookie: a=1; Path=/")))
    w = warp(conf(STRIP, app=b, middleware={"x_sendfile_enabled": True, "x_sendfile_root": str(tmp_path)}))
    m = w.ask("/app/x")
    assert (m.text, m.get("content-location"), m.get("set-cookie")) == ("a file", "/app/f", "a=1; Path=/app")


def test_upgrade(warp, backend):
    switch = SWITCH.replace(b"\r\nConn", b"\r\nSet-Cookie: a=1; Path=/\r\nConn", 1)
    w = warp(conf(STRIP, app=backend([HEAD, switch])))
    with w.client() as c:
        assert c.ask("/app/ws", *UPGRADE).get("set-cookie") == "a=1; Path=/app"


def test_fastcgi(warp, php):
    p = php(many(out(b"Status: 302 Found\r\nLocation: /login\r\nSet-Cookie: a=1; path=/\r\n\r\n")))
    w = warp(conf(STRIP, app=p))
    m = w.ask("/app/x")
    assert (m.status, m.get("location"), m.get("set-cookie")) == (302, "/app/login", "a=1; path=/app")
    assert p.last.get("HTTP_X_FORWARDED_PREFIX") == "/app" and p.last.get("REQUEST_URI") == "/app/x"


def test_many_long_ones(warp, backend):
    """A head that grows beyond what it was: all of it is mapped."""
    cookies = ["Set-Cookie: c%d=%s; Path=/%s" % (i, "v" * 50, "p" * 20) for i in range(120)]
    w = warp(conf(dict(STRIP, path_prefix="/" + "a" * 100), app=backend(many(reply("ok", *cookies)))))
    m = w.ask("/" + "a" * 100)
    assert m.all("set-cookie") == ["c%d=%s; Path=/%s/%s" % (i, "v" * 50, "a" * 100, "p" * 20) for i in range(120)]


# ---- a real program -------------------------------------------------------------------

@pytest.fixture
def real(tmp_path):
    """Python's own file server, which redirects to a slash by path, and knows nothing of prefixes."""
    (tmp_path / "www" / "dir").mkdir(parents=True)
    (tmp_path / "www" / "dir" / "index.html").write_text("the page")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a, **kw):
            super().__init__(*a, directory=str(tmp_path / "www"), **kw)

        def log_message(self, *a):
            pass
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield {"host": "127.0.0.1", "port": s.server_port}
    s.shutdown()
    s.server_close()


def test_a_real_server_below_a_prefix(warp, real):
    w = warp(conf(dict(STRIP, path_prefix="/files"), app=real))
    with urllib.request.urlopen("http://127.0.0.1:%d/files/dir" % w.port, timeout=20) as r:
        assert r.read() == b"the page" and r.url == "http://127.0.0.1:%d/files/dir/" % w.port


@pytest.mark.parametrize("action", ['redirect = "/x"', 'static_dir = "."', "respond = { status = 204 }"])
@pytest.mark.parametrize("key", ["map_back", "intercept_errors"])
def test_only_upstreams(check, action, key):
    r = check("[[routes]]\n%s\n%s = true\n" % (action, key))
    assert r.returncode == 1 and key + " belongs to upstream" in r.stdout + r.stderr


def test_said(check):
    r = check('[upstreams.app]\nurl = "http://127.0.0.1:1"\n[[routes]]\npath_prefix = "/a"\nupstream = "app"\nmap_back = true\nstrip_prefix = true\n')
    assert r.returncode == 0 and "-> upstream app, strip_prefix, map_back\n" in r.stdout
