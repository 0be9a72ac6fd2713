"""Who may, how much, how fast; and what the refusals look like."""
import base64
import json
import os
import threading

import pytest

from lib import TIMEOUT, Client, chunks, conf, eventually, request

TOKEN = "s3cret-t0ken"


# ---- require_auth ---------------------------------------------------------------

@pytest.mark.parametrize("reason, fields, status", [
    ("the token", ["X-Admin-Token: " + TOKEN], 200), ("name in any case", ["x-admin-token: " + TOKEN], 200),
    ("none", [], 401), ("empty", ["X-Admin-Token:"], 401), ("wrong", ["X-Admin-Token: nope"], 401),
    ("a prefix of it", ["X-Admin-Token: " + TOKEN[:-1]], 401), ("longer", ["X-Admin-Token: " + TOKEN + "x"], 401),
    ("twice, one wrong", ["X-Admin-Token: nope", "X-Admin-Token: " + TOKEN], 401),
        ("elsewhere", ["Authorization: Bearer " + TOKEN], 401)])
@pytest.mark.parametrize("where", ["file", "environment"])
@pytest.mark.promise("S2-74")
def test_require_auth(warp, backend, reason, fields, status, where):
    b = backend()
    server, env = ({"admin_token": TOKEN}, {}) if where == "file" else ({}, {"WARPDRIVE_ADMIN_TOKEN": TOKEN})
    w = warp(conf({"path_prefix": "/adm", "require_auth": True}, {"path_prefix": "/"}, app=b, server=server), env=env)
    assert w.ask("/adm/x", *fields).status == status, reason
    assert len(b.requests) == (status == 200), "a refused request never reaches the app"
    if status == 200:
        assert not b.last.has("X-Admin-Token"), "the token is not forwarded"
    assert w.ask("/open").status == 200


@pytest.mark.promise("S2-74")
def test_require_auth_without_token(warp, backend, check):
    c = conf({"require_auth": True}, app=backend())
    w = warp(c)
    assert [w.ask("/", *f).status for f in ([], ["X-Admin-Token:"], ["X-Admin-Token: x"])] == [401, 401, 401]
    w.wait_stderr("(?i)warn.*(require_auth|admin_token)|(require_auth|admin_token).*warn")


def test_require_auth_guards_every_spelling_and_a_body(warp, backend):
    b = backend()
    w = warp(conf({"path_prefix": "/adm", "require_auth": True}, {"path_prefix": "/"}, app=b, server={"admin_token": TOKEN}))
    for t in ("/%61dm", "//adm", "/x/../adm", "/./adm/y"):
        assert w.ask(t).status == 401, t
    with w.client() as c:
        c.send(request("/adm", method="POST", body=b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n"))
        assert c.response().status == 401
        assert not c.buf, "the refused body is no request"
    assert not b.requests


# ---- basic_auth -----------------------------------------------------------------


def basic(text):
    return "Authorization: Basic " + base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def users():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt
    return {"plain": "pa:ss word", "five": crypt.crypt("hunter5", "$5$saltsalt"), "six": crypt.crypt("hunter6", "$6$saltsalt"),
        "empty-salt": crypt.crypt("x y", "$5$a")}


@pytest.mark.parametrize("reason, field, status", [
    ("plain text, with a colon in it", basic("plain:pa:ss word"), 200), ("sha-256 hash", basic("five:hunter5"), 200),
        ("sha-512 hash", basic("six:hunter6"), 200),
    ("short salt", basic("empty-salt:x y"), 200), ("scheme in any case", basic("five:hunter5").replace("Basic", "bAsIc"), 200),
    ("wrong password", basic("five:hunter6"), 401), ("another one's password", basic("six:hunter5"), 401),
        ("empty password", basic("five:"), 401),
    ("unknown user", basic("nobody:x"), 401), ("user in another case", basic("Five:hunter5"), 401), ("no colon", basic("five"),
        401),
    ("not base64", "Authorization: Basic !!!!", 401), ("another scheme", "Authorization: Bearer x", 401),
        ("nothing", "X-Nothing: 1", 401)])
def test_basic_auth(warp, backend, users, reason, field, status):
    b = backend()
    w = warp(conf({"basic_auth": users}, app=b))
    with w.client() as c:
        for _ in range(2):                                     # the second time from the cache of checked passwords
            m = c.ask("/", field)
            assert m.status == status, reason
            assert (status == 401) == m.get("WWW-Authenticate", "").lower().startswith("basic realm="), reason
    assert len(b.requests) == (2 if status == 200 else 0)


def test_basic_auth_cache_is_of_the_password(warp, backend, users):
    w = warp(conf({"basic_auth": users}, app=backend()))
    assert [w.ask("/", basic("six:" + p)).status for p in ("hunter6", "hunter7", "hunter6", "hunter6x")] == [200, 401, 200, 401]


# ---- rate_limit -----------------------------------------------------------------

def statuses(c, n, *fields):
    return [c.ask("/", *fields).status for _ in range(n)]


def test_rate_limit(warp, backend):
    b = backend()
    w = warp(conf({"path_prefix": "/free"}, {"path_prefix": "/", "rate_limit": {"requests": 3, "per_secs": 60}}, app=b))
    with w.client() as c:
        got = statuses(c, 8)
        passed = got.count(200)
        assert passed in (3, 4) and got == [200] * passed + [429] * (8 - passed), "three a minute: %s" % got
        assert len(b.requests) == passed
        m = c.ask()
        assert 1 <= int(m.get("Retry-After")) <= 60
        assert c.ask("/free").status == 200, "other routes are not limited"
    with w.client() as c:
        assert c.ask().status == 429, "the limit is the client's, not the connection's"


def test_rate_limit_refills_and_bursts(warp):
    w = warp(conf({"rate_limit": {"requests": 20, "per_secs": 1, "burst": 2}, "respond": {"status": 200}}))
    with w.client() as c:
        got = statuses(c, 6)
        assert got[:2] == [200, 200] and 429 in got, "a burst of two: %s" % got
        eventually(lambda: c.ask().status == 200, "20 a second come back")


def test_rate_limit_is_per_client(warp):
    w = warp(conf({"rate_limit": {"requests": 2, "per_secs": 60, "key": "ip"}, "respond": {"status": 200}},
        server={"trusted_proxies": ["127.0.0.1"]}))
    with w.client() as c:
        for ip in ("1.1.1.1", "1.1.1.2", "2001:db8::1"):
            assert statuses(c, 2, "X-Forwarded-For: " + ip) == [200, 200], ip
            assert 429 in statuses(c, 2, "X-Forwarded-For: " + ip), ip


def test_rate_limit_of_all_workers_together(warp):
    w = warp(conf({"rate_limit": {"requests": 5, "per_secs": 60}, "respond": {"status": 200}}, server={"worker_threads": 3}))
    assert [w.ask().status for _ in range(20)].count(200) in (5, 6)


def test_rate_limits_of_two_routes_are_apart(warp):
    limit = {"requests": 1, "per_secs": 60}
    w = warp(conf({"path_exact": "/a", "rate_limit": limit, "respond": {"status": 200}},
        {"path_exact": "/b", "rate_limit": limit, "respond": {"status": 200}}))
    assert [w.ask(t).status for t in ("/a", "/b")] == [200, 200]


# ---- sizes ----------------------------------------------------------------------

# reason: limit of [server], of the route, body length, status
BODIES = [
    ("no limit", None, None, 300000, 200),
    ("0 is no limit", 0, None, 300000, 200),
    ("exactly", 1000, None, 1000, 200),
    ("one more", 1000, None, 1001, 413),
    ("none at all", 1000, None, 0, 200),
    ("the route's is lower", 5000, 1000, 1001, 413),
    ("the route's is higher", 1000, 5000, 5000, 200),
    ("and still a limit", 1000, 5000, 5001, 413),
    ("far beyond", 1000, None, 3000000, 413),
]


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("reason, server, route, n, status", BODIES)
def test_max_body_bytes(warp, backend, coding, reason, server, route, n, status):
    b = backend()
    w = warp(conf({"max_body_bytes": route} if route is not None else {}, app=b,
        server={"max_body_bytes": server} if server is not None else {}))
    body = b"x" * n
    with w.client() as c:
        def send():
            try:
                c.send(request("/", method="POST", body=body) if coding == "length" else
                       request("/", "Transfer-Encoding: chunked",
                           method="POST") + (b"" if not n else b"".join(chunks(body[i:i + 999], last=False) for i in range(0, n,
                           999))) + chunks())
            except OSError:
                pass                                           # refused in mid-body
        t = threading.Thread(target=send)
        t.start()
        m = c.response()
        assert m.status == status, reason
        t.join(TIMEOUT)
        assert not t.is_alive(), "the sender is not left hanging"
    if status == 200:
        assert m.text == "app POST / %d" % n
    else:
        assert not b.requests, "no whole request reaches the app"


def test_too_large_is_said_before_the_body(warp, backend):
    w = warp(conf(app=backend(), server={"max_body_bytes": 10}))
    with w.client() as c:
        c.send(request("/", "Content-Length: 11", "Expect: 100-continue", method="POST"))
        m = c.response()
        assert (m.status, m.interim) == (413, []), "no 100 for a body that is not wanted"


def pad(n):
    return "X-Pad: " + "p" * n


# reason: max_header_bytes, request, statuses allowed
HEADS = [
    ("fits", 2048, request("/", pad(1500)), {200}),
    ("a long field", 2048, request("/", pad(3000)), {431}),
    ("many fields", 2048, request("/", *["X-%d: %s" % (i, "v" * 40) for i in range(60)]), {431}),
    ("more fields than FIELDS_MAX", None, request("/", *["X-%d: 1" % i for i in range(400)]), {431}),
    ("a long target", None, request("/" + "t" * 20000), {414}),
    ("a long target, small limit", 2048, request("/" + "t" * 3000), {414, 431}),
    ("12 kB of fields by default", None, request("/", pad(12000)), {200}),
    ("40 kB by default", None, request("/", pad(40000)), {431}),
    ("a higher limit", 60000, request("/", pad(50000)), {200}),
    ("a long query", None, request("/?" + "q" * 8000), {200}),
]


@pytest.mark.parametrize("reason, limit, raw, want", HEADS, ids=[h[0] for h in HEADS])
def test_max_header_bytes(warp, backend, reason, limit, raw, want):
    b = backend()
    w = warp(conf(app=b, server={"max_header_bytes": limit} if limit else {}))
    with w.client() as c:
        try:
            c.send(raw)
        except OSError:
            pass
        assert c.response().status in want, reason
    assert bool(b.requests) == (want == {200})


# ---- refusals -------------------------------------------------------------------

REFUSED = [
    ("version 2", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
    ("version 3.7", b"GET / HTTP/3.7\r\nHost: a\r\n\r\n", {505}),
    ("no version", b"GET /\r\n\r\n", {400}),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", {400}),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", {400}),
    ("rubbish", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", {400}),
    ("blank before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", {400}),
    ("both framings", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    ("an unknown coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", {501}),
    ("an unknown expectation", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", {417}),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", {400}),
    ("a length that is none", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", {400}),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", {400, 405, 501}),
]


@pytest.mark.parametrize("reason, raw, want", REFUSED, ids=[r[0] for r in REFUSED])
def test_refused(warp, backend, reason, raw, want):
    b = backend()
    w = warp(conf(app=b))
    with w.client() as c:
        m = c.send(raw).response()
        assert m.status in want, "%s: %s" % (reason, m)
    assert not b.requests and not b.conns, "nothing reaches the app"
    assert w.ask().status == 200, "and the next client is served"


# reason: Accept, what Content-Type must be
PAGES = [
    ("nothing said", None, "text/html"),
    ("a browser", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
    ("curl", "*/*", "text/html"),
    ("an API client", "application/json", "application/json"),
    ("with parameters", "application/json; charset=utf-8", "application/json"),
]


@pytest.mark.parametrize("reason, accept, kind", PAGES)
def test_error_page(warp, reason, accept, kind):
    w = warp(conf({"path_exact": "/x", "respond": {"status": 200}}, server={"no_route_status": 404}))
    with w.client() as c:
        fields = ["Accept: " + accept] if accept else []
        m = c.ask("/<script>", *fields)
        assert (m.status, m.get("Content-Type").split(";")[0]) == (404, kind), reason
        assert "404" in m.text and "<script>" not in m.text
        if kind == "application/json":
            assert isinstance(json.loads(m.body), dict)
        h = c.ask("/none", *fields, method="HEAD")
        assert h.status == 404 and h.body == b"", "HEAD"
        assert c.ask("/none").status == 404


@pytest.mark.parametrize("show", [True, False])
def test_show_errors(warp, show):
    """The cause stands in a 502 page only where show_errors allows it."""
    from lib import free_port
    port = free_port()
    w = warp(conf(server={"show_errors": show}, app={"host": "127.0.0.1", "port": port}))
    for fields in ([], ["Accept: application/json"]):
        m = w.ask("/", *fields)
        assert m.status == 502
        assert ("refused" in m.text.lower()) == show
        assert show or str(port) not in m.text


def test_error_dir(warp, tmp_path):
    d = tmp_path / "errors"
    d.mkdir()
    (d / "404.html").write_text("<h1>own page</h1>")
    (d / "404.json").write_text('{"own": true}')
    (d / "502.html").write_text("<h1>back soon</h1>")
    w = warp(conf({"path_prefix": "/app"}, server={"no_route_status": 404, "error_dir": str(d)}, app={"host": "127.0.0.1",
        "port": 1}))
    with w.client() as c:
        m = c.ask("/none")
        assert (m.status, m.text, m.get("Content-Type").split(";")[0]) == (404, "<h1>own page</h1>", "text/html")
        m = c.ask("/none", "Accept: application/json")
        assert (m.status, m.json, m.get("Content-Type").split(";")[0]) == (404, {"own": True}, "application/json")
        h = c.ask("/none", method="HEAD")
        assert (h.status, h.get("Content-Length"), h.body) == (404, "17", b"")
        assert c.ask("/app").text == "<h1>back soon</h1>"
        m = c.ask("/app", "Accept: application/json")
        assert m.status == 502 and isinstance(m.json, dict), "no file for it: warp's own"
        assert c.send(b"GET / HTTP/1.1\r\n\r\n").response().status == 400


def test_error_dir_is_not_for_the_apps_errors(warp, backend, tmp_path):
    from lib import REQ, reply
    (tmp_path / "404.html").write_text("own page")
    w = warp(conf(app=backend([REQ, reply("the app's", status="404 Not Found")]), server={"error_dir": str(tmp_path)}))
    assert w.ask().text == "the app's"


def test_two_hundred_refusals_leave_nothing(warp, backend):
    """No descriptor and no connection is lost on error paths."""
    w = warp(conf({"require_auth": True, "path_prefix": "/adm"}, app=backend(), server={"admin_token": TOKEN}))
    worker = w.children()
    count = lambda: sum(len(os.listdir("/proc/%d/fd" % p)) for p in worker)
    w.ask("/none")
    before = count()
    for i in range(200):
        with Client(w.port) as c:
            c.send([b"GET / HTTP/9.9\r\n\r\n", request("/adm"), request("/none", method="POST", body=b"x" * 5000),
                b"GET / HT"][i % 4])
            if i % 4 < 3:
                c.response()
    eventually(lambda: count() <= before + 1, "descriptors given back")


# ---- max_connections -----------------------------------------------------------------

def test_clients_that_wait_are_spoken_of(warp, backend):
    """Idle ones make way, and nobody hears of it; where all are busy the log says what the others wait for, once."""
    w = warp(conf({"path_prefix": "/"}, app=backend(), server={"max_connections": 2}))
    with w.client() as a, w.client() as b:
        assert a.ask("/").status == b.ask("/").status == w.ask("/").status == 200
        assert "new clients wait" not in w.stderr
    with w.client() as a, w.client() as b:
        for c in (a, b, a, b):
            c.send(b"GET / HTTP/1.1\r\n" if c is a else b"GET ")
        w.wait_stderr("new clients wait: this worker has 2, its share of server.max_connections\n")
    assert w.ask("/").status == 200 and w.stderr.count("new clients wait") == 1
