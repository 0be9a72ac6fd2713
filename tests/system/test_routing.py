"""[[routes]]: which one is taken, and what becomes of the target."""
import pytest

from lib import conf, request


def to(name, **conditions):
    """A route that answers with its own name."""
    return dict(conditions, respond={"status": 200, "body": name})


def q(target="/", *fields, **kw):
    return (target, fields, kw)


REST = to("rest")
# reason: routes, then requests with the route that must take each (or a status)
SELECTION = {
    "exact host: any port, any case, no sub-domain": ([to("a", host="A.example")], [
        (q(host="a.example"), "a"), (q(host="A.EXAMPLE:81"), "a"), (q(host="b.example"), 502), (q(host="x.a.example"), 502),
        (q("http://a.example/", host="a.example"), "a")]),
    "wildcard host: below the domain, never the domain itself": ([to("w", host="*.example.com"), REST], [
        (q(host="www.example.com"), "w"), (q(host="WWW.Example.Com:8080"), "w"), (q(host="example.com"), "rest"),
        (q(host="evilexample.com"), "rest"), (q(host="www.example.com.evil.org"), "rest")]),
    "v6 literals are hosts": ([to("six", host="[::1]"), REST], [(q(host="[::1]:80"), "six"), (q(host="[::2]"), "rest")]),
    "path_prefix is plain text": ([to("ws", path_prefix="/ws"), to("api", path_prefix="/api/")], [
        (q("/ws"), "ws"), (q("/wsx"), "ws"), (q("/ws/1?a=/api/"), "ws"), (q("/api/"), "api"), (q("/api"), 502), (q("/API/"), 502)]),
    "path_exact: query ignored, nothing below, case matters": ([to("x", path_exact="/health"), REST], [
        (q("/health"), "x"), (q("/health?x"), "x"), (q("/health/"), "rest"), (q("/Health"), "rest"), (q("/healthy"), "rest")]),
    "path_regex is a POSIX ERE on the path": ([to("n", path_regex="^/item/[0-9]+$"), to("ext", path_regex="\\.(png|css)$"), REST], [
        (q("/item/42"), "n"), (q("/item/42?x=y"), "n"), (q("/item/4x"), "rest"), (q("/a/b.css"), "ext"), (q("/b.css?v=1"), "ext"),
        (q("/x?f=b.css"), "rest")]),
    "methods: GET includes HEAD; unknown ones can be named": ([to("get", methods=["GET"]), to("odd", methods=["PURGE", "POST"]), REST], [
        (q(), "get"), (q(method="HEAD"), 200), (q(method="PURGE"), "odd"), (q(method="POST", body=b""), "odd"), (q(method="PUT", body=b""), "rest"),
        (q(method="get"), "rest")]),
    "header: exact value, name in any case": ([to("beta", header={"name": "X-Env", "value": "beta"}), REST], [
        (q("/", "x-env: beta"), "beta"), (q("/", "X-Env: Beta"), "rest"), (q("/", "X-Env: beta2"), "rest"), (q(), "rest")]),
    "header: * is presence": ([to("has", header={"name": "Cookie", "value": "*"}), REST], [
        (q("/", "Cookie: a=b"), "has"), (q("/"), "rest")]),
    "header: every one of a list": ([to("both", header=[{"name": "A", "value": "1"}, {"name": "B", "value": "*"}]), REST], [
        (q("/", "A: 1", "B: 2"), "both"), (q("/", "A: 1"), "rest"), (q("/", "B: 1"), "rest")]),
    "query: exact after decoding, * is presence": ([to("v2", query={"name": "v", "value": "2 x"}), to("dbg", query={"name": "debug", "value": "*"}), REST], [
        (q("/?v=2%20x"), "v2"), (q("/?a=b&v=2+x&c"), "v2"), (q("/?v=2"), "rest"), (q("/?debug"), "dbg"), (q("/?debug=0"), "dbg"),
        (q("/?xdebug=1"), "rest"), (q("/?%64ebug"), "dbg"), (q("/"), "rest")]),
    "cookie: among others, in any field, * is presence": ([to("new", cookie={"name": "canary", "value": "1"}), to("old", cookie=[
        {"name": "canary", "value": "*"}, {"name": "s", "value": "x y"}]), REST], [
        (q("/", "Cookie: a=b; canary=1; c=d"), "new"), (q("/", "Cookie: a=b", "Cookie: canary=\"1\""), "new"), (q("/", "Cookie: canary=0; s=x y"), "old"),
        (q("/", "Cookie: canary=0"), "rest"), (q("/", "Cookie: xcanary=1"), "rest"), (q("/", "Cookie: Canary=1"), "rest"), (q("/"), "rest")]),
    "client: addresses of either family": ([to("other", client=["10.0.0.0/8", "::1/128"]), to("local", client=["127.0.0.0/8"])], [(q(), "local")]),
    "order: the first match wins, not the longest": ([to("short", path_prefix="/a"), to("long", path_prefix="/a/b")], [(q("/a/b"), "short")]),
    "conditions are ANDed": ([to("all", host="a.example", path_prefix="/x", methods=["POST"], query={"name": "k", "value": "1"}), REST], [
        (q("/x?k=1", method="POST", body=b""), "all"), (q("/x?k=1"), "rest"), (q("/x", method="POST", body=b""), "rest"),
        (q("/y?k=1", method="POST", body=b""), "rest"), (q("/x?k=1", method="POST", body=b"", host="b"), "rest")]),
    "a route without conditions takes all": ([to("all", description="said for the logs")], [(q("/any"), "all"), (q("/", method="DELETE"), "all")]),
    "no spelling slips past a guarded route": ([to("guard", path_prefix="/admin"), REST], [(q(t), "guard") for t in (
        "/admin", "//admin", "///admin/", "/./admin", "/x/../admin", "/%61dmin", "/%2e/admin", "/x/%2e%2e/admin", "/x/.%2E/admin",
        "/x/y/../..//admin", "/%61%64%6d%69%6e", "/admin%2fx", "/admin/../admin", "http://a.example/admin", "http://a.example//admin", "/admin?x")]),
    "what resolves elsewhere is elsewhere": ([to("guard", path_prefix="/admin"), REST], [(q(t), "rest") for t in (
        "/admin/..", "/admin/../x", "/x?/admin", "/xadmin", "/%2561dmin", "/admi", "/admin/%2e%2e/y")]),
    "above the root, or with a NUL: refused": ([REST], [(q(t), 400) for t in (
        "/..", "/../x", "/%2e%2e/x", "/a/../../x", "/a/%2e%2e/%2e%2e/x", "/%00", "/a%00b")]),
}


@pytest.mark.parametrize("reason", SELECTION)
@pytest.mark.promise("S2-64", "S2-65", "S2-66", "S2-67")
def test_selection(warp, reason):
    routes, rows = SELECTION[reason]
    w = warp(conf(*routes))
    for (target, fields, kw), want in rows:
        got = w.ask(target, *fields, **kw)
        seen = got.text if isinstance(want, str) else got.status
        assert seen == want, "%s: %s %s %s: %s %s" % (reason, target, fields, kw, got.status, got.text[:80])


def test_client_v6_and_second_listener(warp):
    """client [CIDR] on a v6 listener; the v4 one goes elsewhere."""
    from lib import Client, free_port
    v6 = free_port()
    w = warp(conf(to("six", client=["::1/128"]), to("four", client=["0.0.0.0/0"]),
                  server={"listen": ["127.0.0.1:@PORT@", "[::1]:%d" % v6]}))
    assert w.ask().text == "four"
    with Client(("::1", v6)) as c:
        assert c.ask().text == "six"


@pytest.mark.parametrize("status", [None, 404, 503, 421])
@pytest.mark.promise("S2-68")
def test_no_route_status(warp, status):
    w = warp(conf(to("x", path_exact="/x"), server={"no_route_status": status} if status else None))
    assert w.ask("/none").status == (status or 502), "no_route_status"
    with w.client() as c:
        assert [c.ask("/none").status, c.ask("/x").status] == [status or 502, 200], "and the connection stays"


# reason: keys of the route, what the client sends, what the backend must get
TARGETS = {
    "as sent, byte for byte": (dict(path_prefix="/"), [("/a%20b/./c//d?x=%41&y", "/a%20b/./c//d?x=%41&y"), ("/x/../app", "/x/../app"), ("/%7euser", "/%7euser")]),
    "strip_prefix": (dict(path_prefix="/sidekiq", strip_prefix=True), [
        ("/sidekiq/jobs", "/jobs"), ("/sidekiq/jobs?x=/sidekiq", "/jobs?x=/sidekiq"), ("/sidekiq", "/"), ("/sidekiq?a", "/?a"),
        ("/sidekiqx", "/x"), ("/sidekiq/a%20b", "/a%20b"), ("/sidekiq/a%2Fb", "/a%2Fb"), ("/sidekiq/sidekiq/x", "/sidekiq/x")]),
    "strip_prefix with a slash": (dict(path_prefix="/api/", strip_prefix=True), [("/api/v1", "/v1"), ("/api/", "/"), ("/api/?x", "/?x")]),
    "strip_prefix of another spelling": (dict(path_prefix="/api", strip_prefix=True), [
        ("/%61pi/users", "/users"), ("//api/users", "/users"), ("/x/../api/users?q=%2e", "/users?q=%2e")]),
    "rewrite of a prefix": (dict(path_prefix="/old-api", rewrite="/new-api"), [
        ("/old-api/users", "/new-api/users"), ("/old-api?x", "/new-api?x"), ("/old-api/%20", "/new-api/%20")]),
    "rewrite to the root keeps a leading slash": (dict(path_prefix="/old/", rewrite="/"), [("/old/x", "/x"), ("/old/", "/")]),
    "rewrite to nothing keeps one too": (dict(path_prefix="/old", rewrite=""), [("/old/x", "/x"), ("/old", "/"), ("/oldx", "/x")]),
    "rewrite of an exact path": (dict(path_exact="/ping", rewrite="/health/live"), [("/ping?x=1", "/health/live?x=1")]),
    "rewrite with groups": (dict(path_regex="^/item/([0-9]+)/([a-z]+)$", rewrite="/$2/by-id/$1"), [("/item/42/cars?x=1", "/cars/by-id/42?x=1")]),
    "rewrite of the match alone": (dict(path_regex="/v([0-9])/", rewrite="/api-$1/"), [("/x/v2/y", "/x/api-2/y")]),
}


@pytest.mark.parametrize("reason", TARGETS)
@pytest.mark.promise("S2-69", "S2-70")
def test_target(warp, backend, reason):
    keys, rows = TARGETS[reason]
    b = backend()
    w = warp(conf(keys, app=b))
    for sent, want in rows:
        assert w.ask(sent).status == 200, sent
        assert b.last.target == want, "%s: %s" % (reason, sent)


@pytest.mark.promise("S2-52")
def test_same_paths_to_three_apps(warp, backend):
    """The documents' own example: /cable to one, /sidekiq stripped to the second, the rest to the third."""
    cable, jobs, web = backend(name="cable"), backend(name="jobs"), backend(name="web")
    w = warp(conf({"path_prefix": "/cable", "upstream": "cable"}, {"path_prefix": "/sidekiq", "upstream": "jobs", "strip_prefix": True},
                  {"path_prefix": "/", "upstream": "web"}, cable=cable, jobs=jobs, web=web))
    assert [w.ask(t).text for t in ("/cable", "/sidekiq/jobs", "/", "/other")] == [
        "cable GET /cable 0", "jobs GET /jobs 0", "web GET / 0", "web GET /other 0"]


REDIRECTS = {
    "308 by default, {host}{uri}": ({"redirect": "https://{host}{uri}"}, "/a%20b?x=1", 308, "https://a.example/a%20b?x=1"),
    "status": ({"redirect": "/new", "status": 302}, "/old?x", 302, "/new"),
    "{path} is without the query": ({"redirect": "https://new.example{path}", "status": 301}, "/p/q?secret=1", 301, "https://new.example/p/q"),
    "nobody forges a field": ({"redirect": "https://{host}{path}"}, "/%0d%0aSet-Cookie:a=b", 308, "https://a.example/%0d%0aSet-Cookie:a=b"),
}


@pytest.mark.parametrize("reason", REDIRECTS)
def test_redirect(warp, reason):
    keys, target, status, location = REDIRECTS[reason]
    w = warp(conf(keys))
    with w.client() as c:
        for method in ("GET", "HEAD"):
            m = c.ask(target, method=method)
            assert (m.status, m.get("Location")) == (status, location), reason
        m = c.ask(target, method="POST", body=b"x" * 100)
        assert m.status == status, "with a body"
        assert c.ask(target).status == status, "and the connection stays"


def test_respond(warp):
    w = warp(conf({"path_exact": "/t", "respond": {"status": 418, "body": "short and stout\n", "content_type": "text/x-pot"}},
                  {"path_exact": "/none", "respond": {"status": 204}}, {"respond": {"status": 200, "body": '{"a": 1}', "content_type": "application/json"}}))
    with w.client() as c:
        m = c.ask("/t")
        assert (m.status, m.text, m.get("Content-Type")) == (418, "short and stout\n", "text/x-pot")
        h = c.ask("/t", method="HEAD")
        assert (h.status, h.get("Content-Length"), h.body) == (418, "16", b""), "HEAD: the same head, no body"
        n = c.ask("/none")
        assert n.status == 204 and not n.has("Content-Length") and not n.has("Transfer-Encoding"), "204 has no framing"
        assert c.ask("/j").json == {"a": 1}
        assert m.has("Date"), "an origin with a clock sends Date"


@pytest.mark.promise("S2-84")
def test_many_routes(warp):
    """A thousand routes of every kind: the right one, first and last."""
    n = 1000
    routes = [to("r%d" % i, **[{"path_prefix": "/p%d/" % i}, {"path_exact": "/p%d/" % i}, {"host": "h%d.example" % i, "path_prefix": "/"},
                               {"host": "h.example", "path_prefix": "/q%d/" % i}][i % 4]) for i in range(n)]
    w = warp(conf(*routes))
    with w.client() as c:
        for i in (0, 1, 2, 3, 4, 17, 250, 501, 502, 503, 996, 997, 998, 999):
            host = ["a", "a", "h%d.example" % i, "h.example"][i % 4]
            assert c.ask("/%s%d/" % ("q" if i % 4 == 3 else "p", i), host=host).text == "r%d" % i
        assert c.ask("/zzz/").status == 502


def test_pipelined_requests_take_their_own_routes(warp, backend):
    w = warp(conf(to("a", path_prefix="/a"), {"path_prefix": "/b"}, to("c", path_prefix="/c"), app=backend()))
    with w.client() as c:
        c.send(b"".join(request(t) for t in ("/a", "/b", "/c", "/none", "/b2")))
        assert [(m.status, m.text) for m in (c.response() for _ in range(3))] == [(200, "a"), (200, "app GET /b 0"), (200, "c")]
        assert c.response().status == 502
        assert c.response().text == "app GET /b2 0"
