"""forward_auth: another server decides who may pass."""
import json
import os
import signal
import threading
import time

import pytest

from lib import BODY, CLOSE, Client, HEAD, REQ, SLOW, SWITCH, UPGRADE, WAIT, Blackhole, chunks, conf, eventually, free_port, reply, request, toml_file

COPY = ["Remote-User", "Remote-Groups"]
OK = reply(b"", "Remote-User: ann", "Remote-Groups: a,b", "X-Other: no", "Set-Cookie: s=1")
LOGIN = reply(b"please log in", "Location: https://auth.example/?rd=x", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", status="302 Found")


class Guard:
    """An authenticator: lets pass whoever has the cookie `ok`, else says what it is told to."""

    def __init__(self, backend, no=LOGIN, yes=OK, **kw):
        self.no, self.yes = no, yes

        def answer(c):
            while True:
                r = c.request()
                c.send(self.yes if "ok" in r.get("Cookie", "") else self.no)
        self.b = backend([answer], name="guard", **kw)

    @property
    def conf(self):
        return self.b.conf

    @property
    def asked(self):
        return self.b.requests


@pytest.fixture
def guard(backend):
    return lambda *a, **kw: Guard(backend, *a, **kw)


def guarded(warp, g, b, *routes, auth=None, server=None, **kw):
    fa = {"upstream": "guard", "path": "/verify?x=1", "copy_headers": COPY, "timeout_secs": 6 * SLOW, **(auth or {})}
    routes = routes or ({"path_prefix": "/"},)
    return warp(toml_file(conf(*({**r, "forward_auth": fa} for r in routes), app=b, guard=g, server=server, **kw)))


OKAY = "Cookie: x=y; ok=1"


def test_what_the_authenticator_is_asked(warp, guard, backend):
    g, b = guard(), backend()
    w = guarded(warp, g, b)
    m = w.ask("/a%20b?q=1", OKAY, "Authorization: Bearer t", "If-None-Match: \"x\"", "Range: bytes=0-1", "X-Original-URL: https://evil/",
        "X_Original_URL: https://evil/", "X-Forwarded-Uri: /evil", "X-Forwarded-For: 1.2.3.4", "Remote-User: root", "remote_user: root", method="POST", body=b"hello")
    assert m.status == 200
    r = g.asked[0]
    assert (r.method, r.target) == ("GET", "/verify?x=1") and r.body == b""
    assert {n: r.get("X-" + n) for n in ("Forwarded-Method", "Forwarded-Proto", "Forwarded-Host", "Forwarded-Uri", "Forwarded-For", "Original-URL", "Original-Method")} == {
        "Forwarded-Method": "POST", "Forwarded-Proto": "http", "Forwarded-Host": "a.example", "Forwarded-Uri": "/a%20b?q=1",
        "Forwarded-For": "127.0.0.1", "Original-URL": "http://a.example/a%20b?q=1", "Original-Method": "POST"}
    assert r.get("Cookie") == "x=y; ok=1" and r.get("Authorization") == "Bearer t"
    for name in ("Content-Length", "Transfer-Encoding", "If-None-Match", "Range", "X_Original_URL", "Remote-User", "remote_user", "Expect"):
        assert not r.has(name), name
    r = b.last
    assert (r.method, r.target, r.body) == ("POST", "/a%20b?q=1", b"hello")
    assert r.all("Remote-User") == ["ann"] and r.all("Remote-Groups") == ["a,b"] and not r.has("remote_user") and not r.has("X-Other")
    assert r.get("Range") == "bytes=0-1" and not r.has("X-Forwarded-Uri")


def test_fields_it_does_not_say_are_removed_all_the_same(warp, guard, backend):
    g, b = guard(yes=reply(b"")), backend()
    w = guarded(warp, g, b)
    for name in ("Remote-User", "REMOTE-USER", "Remote_User", "remote-groups"):
        assert w.ask("/", OKAY, name + ": root").status == 200
        assert not any(f.lower().replace("_", "-").startswith("remote-") for f, _ in b.last.fields), name


@pytest.mark.parametrize("reason, no", [("login", LOGIN), ("401", reply(b"no", "WWW-Authenticate: Bearer", status="401 Unauthorized")),
    ("403 chunked", b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"go ", b"away")),
    ("500", reply(b"oops", status="500 Oops")), ("304", b"HTTP/1.1 304 Not Modified\r\n\r\n")])
def test_any_other_answer_is_the_clients(warp, guard, backend, reason, no):
    g, b = guard(no=no), backend()
    w = guarded(warp, g, b)
    with w.client() as c:
        for _ in range(2):
            m = c.ask("/x")
            assert m.status == int(no.split()[1]), reason
            if reason == "login":
                assert m.get("Location") == "https://auth.example/?rd=x" and m.all("Set-Cookie") == ["a=1; Path=/", "b=2"]
                assert m.body == b"please log in"
            if reason == "403 chunked":
                assert m.body == b"go away"
        assert c.ask("/x", OKAY).status == 200
    assert len(b.requests) == 1


def test_an_answer_that_ends_with_the_connection(warp, backend):
    g, b = backend([REQ, b"HTTP/1.0 401 No\r\n\r\nno", CLOSE], name="guard"), backend()
    w = guarded(warp, g, b)
    for version in ("1.0", "1.1"):
        assert w.ask("/", version=version).body == b"no"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("keep", [True, False])
def test_versions_and_kept_connections(warp, guard, backend, version, keep):
    g, b = guard(), backend()
    w = guarded(warp, g, b)
    how = "Connection: " + ("keep-alive" if keep else "close")
    with w.client() as c:
        for fields, status in (([], 302), ([OKAY], 200), ([OKAY], 200)):
            assert c.ask("/", how, *fields, version=version).status == status
            if not keep:
                assert c.closed() == "eof"
                break
    assert all(r.version == "HTTP/1.1" for r in g.asked)
    if keep:
        assert len(g.b.conns) == 1 and len(g.asked) == 3, "its connection is kept, each request is asked about"


def test_what_the_route_does_with_its_upstreams_answers_is_not_done_with_a_refusal(warp, guard, backend):
    b = backend()
    for no in (reply(b"whole", "Location: /login", "Set-Cookie: a=b; Path=/", status="401 No"), LOGIN):
        g = guard(no=no)
        w = guarded(warp, g, b, {"path_prefix": "/app", "strip_prefix": True, "map_back": True, "intercept_errors": [401, 403]})
        m = w.ask("/app/x")
        assert (m.status, m.body, m.get("Location"), m.all("Set-Cookie")) == ((401, b"whole", "/login", ["a=b; Path=/"]) if no != LOGIN else
            (302, b"please log in", "https://auth.example/?rd=x", ["a=1; Path=/", "b=2"]))
        assert w.ask("/app/x", OKAY).status == 200 and b.last.target == "/x"


def test_a_refused_body_that_did_not_come(warp, guard, backend):
    w = guarded(warp, guard(), backend())
    with w.client() as c:
        c.send(request("/", "Content-Length: 5", method="POST"))
        m = c.response()
        assert m.status == 302 and "close" in m.tokens("Connection"), "what follows is no request"
        c.fin()
        assert c.closed() == "eof"


def test_head_request(warp, guard, backend):
    g, b = guard(), backend()
    w = guarded(warp, g, b)
    with w.client() as c:
        m = c.ask("/", method="HEAD")
        assert m.status == 302 and m.get("Location") and m.get("Content-Length") == "13"
        assert c.ask("/", OKAY, method="HEAD").status == 200
        assert c.ask("/", OKAY).status == 200
    assert [r.method for r in g.asked] == ["GET"] * 3 and [r.method for r in b.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("reason, no, kept", [("closes", b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n", False),
    ("stays", reply(b"", status="401 No"), True)])
def test_refused_head_and_the_authenticators_connection(warp, guard, backend, reason, no, kept):
    g = guard(no=no)
    w = guarded(warp, g, backend(), server={"worker_threads": 1})
    for _ in range(2):
        assert w.ask("/", method="HEAD").status == int(no.split()[1])
    assert (len(g.b.conns) == 1) == kept, reason


def test_pipelined(warp, guard, backend):
    g, b = guard(), backend()
    w = guarded(warp, g, b)
    with w.client() as c:
        c.send(b"".join(request("/%d" % i, *([OKAY] if i % 2 else [])) for i in range(6)))
        assert [c.response().status for _ in range(6)] == [302, 200] * 3
    assert [r.target for r in b.requests] == ["/1", "/3", "/5"]


@pytest.mark.parametrize("action", [{"redirect": "https://x.example{uri}"}, {"respond": {"status": 200, "body": "in"}}, {"static_dir": "@DIR@"}])
def test_every_action_is_guarded(warp, guard, backend, action):
    w = guarded(warp, guard(), backend(), {"path_prefix": "/", **action})
    with w.client() as c:
        m = c.ask("/warp.toml", OKAY)
        assert m.status == (308 if "redirect" in action else 200), action
        assert c.ask("/warp.toml").status == 302


def test_a_body_waits_unread(warp, guard, backend):
    g, b = guard(), backend()
    w = guarded(warp, g, b)
    body = b"x" * 300000
    with w.client() as c:
        assert c.ask("/", OKAY, method="POST", body=body).status == 200
        c.send(request("/c", OKAY, "Transfer-Encoding: chunked", method="PUT") + chunks(body[:70000], b"end"))
        assert c.response().status == 200
        assert c.ask("/", method="POST", body=b"small").status == 302
        assert c.ask("/", OKAY).status == 200, "a small body is skipped, the connection goes on"
    assert [r.body for r in b.requests] == [body, body[:70000] + b"end", b""]
    assert all(r.body == b"" for r in g.asked)


def test_expect_is_not_answered_before_the_decision(warp, guard, backend):
    g, b = guard(), backend([HEAD, b"HTTP/1.1 100 Continue\r\n\r\n", BODY, reply()])
    w = guarded(warp, g, b)
    head = lambda *f: request("/", "Expect: 100-continue", "Content-Length: 5", *f, method="POST")
    with w.client() as c:
        c.send(head())
        m = c.response()
        assert m.status == 302 and not m.interim
    with w.client() as c:
        c.send(head(OKAY))
        assert c.interim().status == 100
        c.send(b"hello")
        assert c.response().status == 200
    assert [r.body for r in b.requests] == [b"hello"]


def test_upgrade(warp, guard, backend):
    g = guard()

    b = backend([REQ, SWITCH, lambda c: c.exactly(4)])
    w = guarded(warp, g, b)
    with w.client() as c:
        assert c.ask("/", *UPGRADE).status == 302
        assert c.ask("/", OKAY, *UPGRADE).status == 101
        c.send(b"ping")
        assert c.exactly(4) == b"ping"
    assert b.last.get("Remote-User") == "ann"
    assert not any(r.has("Upgrade") for r in g.asked)


def test_a_dead_authenticator_is_503(warp, backend):
    b = backend()
    w = guarded(warp, {"host": "127.0.0.1", "port": free_port()}, b)
    for method in ("GET", "HEAD", "POST"):
        m = w.ask("/", OKAY, method=method)
        assert m.status == 503 and m.get("Retry-After") and not (method == "HEAD" and m.body)
    assert not b.requests


@pytest.mark.parametrize("reason, answer", [("closes", b""), ("garbage", b"garbage\r\n\r\n"), ("half a head", b"HTTP/1.1 200 OK\r\nRem"),
    ("switches", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), ("bad framing", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")])
def test_a_broken_authenticator_is_503(warp, backend, reason, answer):
    b, g = backend(), backend([REQ, answer, CLOSE], name="guard")
    w = guarded(warp, g, b)
    assert w.ask("/", OKAY).status == 503, reason
    assert w.ask("/", OKAY, "Upgrade: x", "Connection: upgrade").status == 503, reason
    assert not b.requests


@pytest.mark.parametrize("action", [{}, {"respond": {"status": 200}}, {"static_dir": "@DIR@"}])
def test_a_refusal_whose_body_is_broken(warp, backend, action):
    """Also where the route itself has no upstream."""
    b, g = backend(), backend([REQ, b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", CLOSE], name="guard")
    w = guarded(warp, g, b, {"path_prefix": "/", **action}, server={"worker_threads": 1})
    with w.client() as c:
        assert [c.ask("/", method=m).status for m in ("GET", "POST")] == [502, 502]
    assert not b.requests


@pytest.mark.parametrize("what", ["accepts no one", "says nothing", "ends no head"])
def test_a_slow_authenticator_is_503(warp, backend, what):
    b = backend()
    hole = None
    if what == "accepts no one":
        hole = g = Blackhole()
    else:
        g = backend([REQ, b"" if what == "says nothing" else b"HTTP/1.1 200 OK\r\n"], name="guard")
    try:
        w = guarded(warp, {"host": "127.0.0.1", "port": g.port} if hole else g, b, auth={"timeout_secs": 0.3})
        t = time.monotonic()
        assert w.ask("/", OKAY).status == 503
        assert time.monotonic() - t < 3 * SLOW
        assert not b.requests
    finally:
        if hole:
            hole.close()


@pytest.mark.parametrize("action", [{}, {"redirect": "https://x.example{uri}"}, {"respond": {"status": 200}}, {"static_dir": "@DIR@"}, {"remove_response_headers": ["Set-Cookie"]}])
def test_cookies_of_the_authenticator(warp, guard, backend, action):
    """A session that it renews: its cookies join the answer, where copy_headers names them."""
    mine, its = ["s=1; Path=/", "t=2"], reply(b"ok", "Set-Cookie: app=3")
    g, b = guard(yes=reply(b"", "Remote-User: ann", *("Set-Cookie: " + m for m in mine))), backend([REQ, its, REQ, its])
    for copy in (["set-cookie", "Remote-User"], ["Remote-User"]):
        w = guarded(warp, g, b, {"path_prefix": "/", **action}, auth={"copy_headers": copy, "cache_secs": 60}, server={"worker_threads": 1})
        with w.client() as c:
            for turn in range(2):
                got = c.ask("/warp.toml", OKAY).all("Set-Cookie")
                want = (mine if copy[0] == "set-cookie" and turn == 0 else []) + ([] if action else ["app=3"])
                assert sorted(got) == sorted([] if "remove_response_headers" in action else want), "each is said once"
            if not action:
                assert b.last.get("Remote-User") == "ann" and not b.last.has("Set-Cookie")
            assert c.ask("/no").all("Set-Cookie") == ([] if "remove_response_headers" in action else ["a=1; Path=/", "b=2"]), "a refusal is as it is"


def test_cookies_of_the_authenticator_are_not_stored(warp, guard, backend):
    g, b = guard(yes=reply(b"", "Set-Cookie: s=1")), backend([REQ, reply(b"x", "Cache-Control: public, max-age=600")])
    w = warp(toml_file({**conf({"forward_auth": {"upstream": "guard", "copy_headers": ["Set-Cookie"]}}, app=b, guard=g), "cache": {"size_bytes": 1 << 20}}))
    assert [w.ask("/", OKAY).all("Set-Cookie") for _ in range(2)] == [["s=1"]] * 2
    g.yes = OK
    m = w.ask("/", OKAY)
    assert m.get("X-Cache") == "HIT" and m.all("Set-Cookie") == ["s=1"]
    g.yes = reply(b"")
    m = w.ask("/", OKAY)
    assert m.get("X-Cache") == "HIT" and not m.has("Set-Cookie")


@pytest.mark.parametrize("what", ["drips its head", "accepts no one, again and again", "is held"])
def test_timeout_secs_bounds_the_whole_question(warp, backend, what):
    def drip(c):
        c.request()
        for _ in range(int(100 * SLOW)):
            c.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            time.sleep(0.05)
    b, holes = backend(), [Blackhole() for _ in range(3 if what[0] == "a" else 0)]
    g = {"on": [{"host": "127.0.0.1", "port": h.port} for h in holes], "connect_timeout_secs": 1.2 * SLOW, "retries": 9} if holes else \
        backend([drip], name="guard") if what[0] == "d" else {"host": "127.0.0.1", "port": free_port(), "hold_secs": 60}
    try:
        w = guarded(warp, g, b, auth={"timeout_secs": 1.6 * SLOW})
        t = time.monotonic()
        assert w.ask("/", OKAY).status == 503
        assert 1.5 * SLOW < time.monotonic() - t < 2.3 * SLOW
        assert not b.requests
    finally:
        for h in holes:
            h.close()


def test_time_spent_waiting_is_not_the_authenticators_fault(warp, backend):
    """Of two requests the second has its turn late: its time ends, and nobody is left out for that."""
    def slow(c):
        while True:
            c.request()
            time.sleep(0.6 * SLOW)
            c.send(OK)
    g = {"instances": [{"url": "127.0.0.1:%d" % backend([slow], name="guard").port, "max_connections": 1}]}
    w = guarded(warp, g, backend(), auth={"timeout_secs": SLOW}, server={"worker_threads": 1}, admin={"listen": ["@DIR@/admin"]})
    with w.client() as a, w.client() as b:
        for c in (a, b):
            c.send(request("/", OKAY))
        assert sorted(c.response().status for c in (a, b)) == [200, 503]
    up = next(u for u in json.loads(Client(w.path("admin")).ask("/status").body)["upstreams"] if u["name"] == "guard")
    assert up["instances"][0]["failures"] == 0


def test_interim_answers_of_the_authenticator_are_its_own(warp, guard, backend):
    g, b = guard(yes=b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK), backend()
    w = guarded(warp, g, b)
    with w.client() as c:
        m = c.ask("/", OKAY)
        assert m.status == 200 and not m.interim
    assert b.last.get("Remote-User") == "ann"


def test_several_fields_of_a_name_and_hop_by_hop(warp, guard, backend):
    g, b = guard(yes=reply(b"x" * 100000, "Remote-User: a", "remote-user: b", "Remote-Groups: g", "Connection: Remote-Groups")), backend()
    w = guarded(warp, g, b)
    for _ in range(2):
        assert w.ask("/", OKAY).status == 200
        assert b.last.all("Remote-User") == ["a", "b"] and not b.last.has("Remote-Groups")


def test_the_client_leaves_while_it_is_asked(warp, backend):
    go = threading.Event()
    g = backend([REQ, WAIT(go), OK], [REQ, OK, REQ, OK], name="guard")
    b = backend()
    w = guarded(warp, g, b, server={"worker_threads": 1}, log={"access": "stdout", "format": "$uri $status"})
    c = w.client()
    c.send(request("/left", OKAY))
    eventually(lambda: g.requests, "it is asked")
    c.rst()
    eventually(lambda: "/left 499" in w.stdout, "its end is seen")
    assert w.ask("/", OKAY).status == 200
    go.set()
    assert w.ask("/", OKAY).status == 200
    assert [r.target for r in b.requests] == ["/"] * 2


def test_cache_secs(warp, guard, backend):
    g, b = guard(), backend()
    w = guarded(warp, g, b, auth={"cache_secs": 600}, server={"worker_threads": 1})
    with w.client() as c:
        for i in range(3):
            assert c.ask("/a", OKAY, "X: 1").status == 200
            assert b.last.get("Remote-User") == "ann"
        assert len(g.asked) == 1
        n = 1
        for target, method, fields in (("/b", "GET", [OKAY, "X: 1"]), ("/a", "POST", [OKAY, "X: 1"]), ("/a", "GET", [OKAY + "2", "X: 1"]),
                ("/a", "GET", [OKAY, "X: 1", "Authorization: Basic eDp5"]), ("/a", "GET", [OKAY, "X: 2"])):
            assert c.ask(target, *fields, method=method).status == 200
            n += 1
            assert len(g.asked) == n, "anything else is asked about: %s %s %s" % (method, target, fields)
        assert [c.ask("/no").status for _ in range(2)] == [302, 302]
        assert len(g.asked) == n + 2, "a refusal is not kept"


def test_cache_secs_end(warp, guard, backend):
    g = guard()
    w = guarded(warp, g, backend(), auth={"cache_secs": 0.2}, server={"worker_threads": 1})
    assert w.ask("/", OKAY).status == 200
    eventually(lambda: w.ask("/", OKAY).status == 200 and len(g.asked) > 1, "it is asked again")


def test_what_is_kept_counts_as_memory(warp, guard, backend):
    g = guard(yes=reply(b"", "Remote-User: " + "u" * 8000))
    w = guarded(warp, g, backend(), auth={"cache_secs": 600}, server={"worker_threads": 1}, admin={"listen": ["@DIR@/admin"]})
    held = lambda: json.loads(Client(w.path("admin")).ask("/status").body)["workers"][0]["memory_bytes"]
    with w.client() as c:
        assert c.ask("/", OKAY).status == 200
        before = held()
        for i in range(60):
            assert c.ask("/%d" % i, OKAY).status == 200
        assert 40 * 8000 < held() - before < 64 * 8000, "but for those that were in each other's place"


def test_with_warps_cache(warp, guard, backend):
    """What is stored is sent to nobody whom the authenticator was not asked about; what one is answered is not another's, unless the
    backend says so."""
    def serve(c):
        while True:
            r = c.request()
            c.send(reply(os.urandom(8).hex(), "Cache-Control: %smax-age=600" % ("public, " if r.target == "/public" else "")))
    g, b = guard(), backend([serve])
    w = warp(toml_file({**conf({"forward_auth": {"upstream": "guard", "copy_headers": COPY}}, app=b, guard=g, server={"worker_threads": 1}),
        "cache": {"size_bytes": 1 << 20}}))
    first = w.ask("/public", OKAY)
    again = w.ask("/public", OKAY)
    assert again.get("X-Cache") == "HIT" and again.body == first.body
    assert w.ask("/public").status == 302, "a hit is guarded as well"
    assert w.ask("/private", OKAY).body != w.ask("/private", OKAY).body
    assert len(g.asked) == 5


def test_what_is_stored_does_not_vary_by_what_the_authenticator_says(warp, backend):
    """Public, but another for each user: the client's head does not tell them apart."""
    def decide(c):
        while True:
            c.send(reply(b"", "Remote-User: " + c.request().get("Cookie")))

    def serve(c):
        while True:
            c.send(reply(c.request().get("Remote-User"), "Cache-Control: public, max-age=600", "Vary: remote-user"))
    g, b = backend([decide], name="guard"), backend([serve])
    w = warp(toml_file({**conf({"forward_auth": {"upstream": "guard", "copy_headers": COPY}}, app=b, guard=g), "cache": {"size_bytes": 1 << 20}}))
    assert [w.ask("/", "Cookie: " + u).text for u in ("ann", "bob", "ann")] == ["ann", "bob", "ann"]


def test_behind_a_trusted_proxy(warp, guard, backend):
    """What it says of its client is passed on; where the request goes is still warp's to say."""
    g, b = guard(), backend()
    w = guarded(warp, g, b, server={"trusted_proxies": ["127.0.0.1"]})
    assert w.ask("/p", OKAY, "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: outside.example", "X-Forwarded-Uri: /evil",
        "X-Forwarded-Method: PUT", "X-Original-URL: https://evil/", "Remote-User: root").status == 200
    r = g.asked[0]
    assert [r.all("X-" + n) for n in ("Forwarded-For", "Forwarded-Proto", "Forwarded-Host", "Forwarded-Uri", "Forwarded-Method", "Original-URL")] == [
        ["1.2.3.4, 127.0.0.1"], ["https"], ["outside.example"], ["/p"], ["GET"], ["https://outside.example/p"]]
    assert b.last.all("Remote-User") == ["ann"]


# As the documents of each say: what it needs, what it answers to a session and to none, what is copied.
PROTOCOLS = {
    "authelia": ("/api/authz/forward-auth", ["X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Uri", "X-Forwarded-For"],
        reply(b"200 OK", "Remote-User: ann", "Remote-Groups: admins", "Remote-Name: Ann", "Remote-Email: a@x"), ["Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email"],
        lambda r: reply(b"<a href>Found</a>", "Location: https://auth.example/?rd=%s://%s%s&rm=%s" % tuple(r.get("X-Forwarded-" + n) for n in (
            "Proto", "Host", "Uri", "Method")), "Set-Cookie: authelia_session=x; HttpOnly", status="302 Found")),
    "authentik": ("/outpost.goauthentik.io/auth/nginx", ["X-Original-URL"],
        reply(b"", "X-authentik-username: ann", "X-authentik-groups: a|b", "X-authentik-jwt: " + "e" * 3000), ["X-authentik-username", "X-authentik-groups", "X-authentik-jwt"],
        lambda r: reply(b"", "WWW-Authenticate: Basic realm=x", status="401 Unauthorized")),
    "oauth2-proxy": ("/oauth2/auth", ["X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-Proto"],
        reply(b"", "X-Auth-Request-User: ann", "X-Auth-Request-Email: a@x", "Authorization: Bearer id", status="202 Accepted"),
        ["X-Auth-Request-User", "X-Auth-Request-Email", "Authorization"],
        lambda r: reply(b"Unauthorized", status="401 Unauthorized")),
}


@pytest.mark.parametrize("which", PROTOCOLS)
def test_protocols(warp, backend, which):
    path, needs, yes, copied, no = PROTOCOLS[which]

    def serve(c):
        while True:
            r = c.request()
            good = r.target == path and all(r.all(n) and len(r.all(n)) == 1 for n in needs)
            c.send(reply(b"what?", status="400 Bad Request") if not good else yes if "session=good" in r.get("Cookie", "") else no(r))
    g, b = backend([serve], name="guard"), backend()
    w = guarded(warp, g, b, auth={"path": path, "copy_headers": copied})
    with w.client() as c:
        m = c.ask("/dir/page?a=b", "Authorization: Bearer mine")
        assert m.status == (302 if which == "authelia" else 401)
        if which == "authelia":
            assert m.get("Location") == "https://auth.example/?rd=http://a.example/dir/page?a=b&rm=GET" and m.has("Set-Cookie")
        assert c.ask("/dir", "Cookie: session=good", "Authorization: Bearer mine").status == 200
    assert all(r.get("Authorization") == "Bearer mine" for r in g.requests), "by which it may decide, also if it sets another"
    for name in copied:
        assert b.last.all(name) == [line.split(": ", 1)[1] for line in yes.decode().split("\r\n") if line.startswith(name + ":")], name
    if "Authorization" not in copied:
        assert b.last.get("Authorization") == "Bearer mine"


def test_a_reload_while_it_is_asked(warp, backend):
    go = threading.Event()
    g, b = backend([REQ, WAIT(go), OK], name="guard"), backend()
    w = guarded(warp, g, b)
    with w.client() as c:
        c.send(request("/", OKAY))
        eventually(lambda: g.requests, "it is asked")
        w.signal(signal.SIGHUP)
        w.wait_stderr("reloaded")
        go.set()
        assert c.response().status == 200
    assert b.last.get("Remote-User") == "ann"


def test_rate_limit_and_password_once(warp, guard, backend):
    g, b = guard(), backend()
    w = guarded(warp, g, b, {"path_prefix": "/", "rate_limit": {"requests": 3, "per_secs": 600}, "basic_auth": {"a": "b"}})
    user = "Authorization: Basic YTpi"
    assert [w.ask("/", OKAY, *f).status for f in ([user], [], [user], [user])] == [200, 401, 200, 429]
    assert len(g.asked) == 2


def test_sticky_retry_and_second_authenticator(warp, guard, backend):
    """One authenticator is dead, another there: the second one is asked."""
    g, b = guard(), backend()
    w = guarded(warp, {"on": [{"host": "127.0.0.1", "port": free_port()}, g]}, b)
    assert [w.ask("/", OKAY, method=m).status for m in ("GET", "POST", "GET")] == [200] * 3
    assert len(b.requests) == 3
