"""retry_on: an answer with such a status is no answer while another instance can give one. What the client gets is
one answer, the last; what a request may go through twice is said by the retry rule."""
import pytest

from lib import CLOSE, ECHO, HEAD, REQ, SWITCH, TIMEOUT, UPGRADE, Client, chunks, conf, eventually, free_port, reply, request
from test_fastcgi import out, php  # noqa: F401
from uwsgi import ANSWER

NO = reply("no", "X-From: a", "Set-Cookie: a=1", status="503 Service Unavailable")
BAD = reply("bad", status="502 Bad Gateway")


def many(answer):
    """Answers every request of a connection alike."""
    def step(c):
        while True:
            c.request()
            c.send(answer)
    return [step]


def keys(*on, **more):
    return dict({"on": list(on), "strategy": "first", "retry_on": [502, "503-504"]}, **more)


def heads(b):
    return sum(len(c.requests) for c in b.conns)


# reason: script of a, method, body, keys of the route, status, requests that b got
ROWS = {
    "a 503": (many(NO), "GET", None, {}, 200, 1),
    "a 502, and HEAD": (many(reply("", status="502 Bad Gateway")), "HEAD", None, {}, 200, 1),
    "in chunks": (many(b"HTTP/1.1 504 Late\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"no", b"no")), "GET", None, {}, 200, 1),
    "up to the end of the connection": ([REQ, b"HTTP/1.1 503 No\r\n\r\nno", CLOSE], "GET", None, {}, 200, 1),
    "by a server of HTTP/1.0": ([REQ, b"HTTP/1.0 503 No\r\nContent-Length: 2\r\n\r\nno", CLOSE], "GET", None, {}, 200, 1),
    "long": ([REQ, b"HTTP/1.1 503 No\r\nContent-Length: 9000000\r\n\r\nno"], "GET", None, {}, 200, 1),
    "without a body": (many(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), "DELETE", None, {}, 200, 1),
    "another status": (many(reply("no", status="500 Broken")), "GET", None, {}, 500, 0),
    "POST": (many(NO), "POST", b"", {}, 503, 0),
    "PUT, its body is gone": (many(NO), "PUT", b"x" * 70000, {}, 503, 0),
    "PUT, its body is kept": (many(NO), "PUT", b"x" * 70000, {"buffer_request": 1024}, 200, 1),
    "PUT of nothing": (many(NO), "PUT", b"", {}, 200, 1),
    "a 1xx has gone out": (many(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + NO), "GET", None, {}, 503, 0),
    "a body that is malformed": ([REQ, b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "GET", None, {}, 200, 1),
    "a head that is malformed": ([REQ, b"HTTP/1.1 503 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"], "GET", None, {}, 502, 0),
}


@pytest.mark.parametrize("reason", ROWS)
def test_rows(warp, backend, reason):
    script, method, body, route, want, at_b = ROWS[reason]
    a, b = backend(script, [ECHO], name="a"), backend(name="b")
    w = warp(conf(route, app=keys(a, b)))
    with w.client() as c:
        m = c.ask("/x?y", "X-Own: 1", method=method, body=body)
        assert m.status == want and heads(b) == at_b, reason
        if at_b:
            assert not m.has("x-from") and not m.has("set-cookie")
            assert method == "HEAD" or m.text == "b %s /x?y %d" % (method, len(body or b"")), reason
            assert b.last.get("x-own") == "1" and b.last.body == (body or b"")
        assert c.ask("/again", method="POST", body=b"2").status >= 200, "the client's connection goes on"


def test_the_last_answer_is_passed_on(warp, backend):
    """Each instance once, as many as retries allow; a single one is not asked twice."""
    for n, retries, asked in ((1, 2, 1), (2, 2, 2), (3, 1, 2), (5, 2, 3), (3, 0, 1)):
        on = [backend(many(reply("no %d" % i, "X-From: %d" % i, status="503 No")), name=str(i)) for i in range(n)]
        w = warp(conf(app=keys(*on, retries=retries)))
        m = w.ask()
        assert (m.status, m.text, m.all("x-from")) == (503, "no %d" % (asked - 1), [str(asked - 1)]), (n, retries)
        assert [heads(b) for b in on] == [1] * asked + [0] * (n - asked)


def test_nobody_else_is_there(warp, backend):
    """The other one is down for good, full, or refuses."""
    a = backend(many(NO), name="a")
    dead = {"host": "127.0.0.1", "port": free_port()}
    w = warp(conf(app=keys(a, dead, max_fails=1, fail_timeout_secs=600)))
    assert w.ask().status == 502, "the other try's"
    assert w.ask().status in (502, 503), "or the last resort, which is a trial"
    assert heads(a) == 2


def test_connections_are_kept(warp, backend):
    """The body is here: it is drained. Else its connection is closed, and never answers somebody else."""
    a, b = backend(many(NO), name="a"), backend(name="b")
    w = warp(conf(app=keys(a, b)))
    with w.client() as c:
        for i in range(5):
            assert c.ask("/%d" % i).text == "b GET /%d 0" % i
    assert len(a.conns) == 1 and len(b.conns) == 1 and heads(a) == 5
    late = backend([REQ, b"HTTP/1.1 503 No\r\nContent-Length: 20\r\n\r\nno"], name="a")
    w = warp(conf(app=keys(late, b)))
    assert w.ask("/late").text == "b GET /late 0"
    assert late.conn().closed.wait(TIMEOUT)


def test_counts(warp, backend):
    """As for any answer: the status counts, no failure does, the breaker stays shut."""
    a, b = backend(many(NO), name="a"), backend(name="b")
    w = warp(conf(app=keys(a, b, max_fails=1), admin={"listen": ["@DIR@/admin"]}))
    with w.client() as c:
        assert [c.ask().status for _ in range(4)] == [200] * 4
    assert heads(a) == 4, "not left out"
    with Client(w.path("admin")) as c:
        text = c.ask("/metrics").text
    assert "warp_retries_total 4" in text
    lines = [l for l in text.splitlines() if "503" in l or '"5xx"' in l]
    assert any(str(a.port) in l and l.endswith(" 4") for l in lines), lines


def test_a_client_that_waits_to_send(warp, backend):
    """Nothing of the body was sent: it goes to the next, whole."""
    a, b = backend([HEAD, NO], name="a"), backend(name="b")
    w = warp(conf(app=keys(a, b)))
    with w.client() as c:
        c.send(request("/put", "Content-Length: 5", "Expect: 100-continue", method="PUT"))
        b.conn()
        c.send(b"hello")
        assert c.response().text == "b PUT /put 5"
    assert b.last.body == b"hello"


def test_upgrade(warp, backend):
    """An upgrade is asked for with GET; it switches at the next one."""
    a, b = backend(many(NO), name="a"), backend([HEAD, SWITCH, lambda c: c.exactly(4)], name="b")
    w = warp(conf(app=keys(a, b)))
    with w.client() as c:
        assert c.ask("/ws", *UPGRADE).status == 101
        c.send(b"ping")
        assert c.exactly(4, TIMEOUT) == b"ping"


def test_http_10_stays_open(warp, backend):
    """What the refused answer's framing would have cost the client is not paid."""
    a = backend(many(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"no")), name="a")
    b = backend(name="b")
    w = warp(conf(app=keys(a, b)))
    with w.client() as c:
        for i in range(2):
            m = c.ask("/", "Connection: keep-alive", version="1.0")
            assert m.status == 200 and "keep-alive" in m.tokens("connection")


def test_uwsgi(warp, backend, node):
    a, b = node(ANSWER(NO), name="a"), node(ANSWER(reply("ok")), name="b")
    w = warp(conf(app=keys(a, b, protocol="uwsgi")))
    for _ in range(2):
        assert w.ask("/u").text == "ok"
    assert heads(a) == heads(b) == 2


@pytest.mark.parametrize("keep", [0, 4])
def test_fastcgi(warp, php, keep):
    a, b = php(many(out(b"Status: 503 No\r\nContent-Type: text/plain\r\n\r\nno"))), php()
    on = [{"host": x.host, "port": x.port} for x in (a, b)]
    w = warp(conf(app=keys(*on, protocol="fastcgi", root="/srv", keepalive=keep)))
    for i in range(2):
        assert w.ask("/u", method="PUT", body=b"").text == "/index.php 0"
    assert heads(a) == heads(b) == 2 and len(b.conns) == (1 if keep else 2)


def test_sticky(warp, backend):
    """The cookie leads to who answered."""
    a, b = backend(many(NO), name="a"), backend(name="b")
    w = warp(conf(app=keys(a, b, strategy="cookie")))
    m = w.ask()
    cookie = m.get("set-cookie").split(";")[0]
    assert m.text.startswith("b ")
    n = heads(a)
    assert w.ask("/2", "Cookie: " + cookie).text == "b GET /2 0" and heads(a) == n


def test_sticky_and_nobody_else(warp, backend):
    """The cookie of the answer that stands is as it would have been without the search for another."""
    w = warp(conf(app=keys(backend(many(NO)), strategy="cookie"), server={"trusted_proxies": ["127.0.0.1"]}))
    for proto, secure in (("https", True), ("http", False)):
        cookie = w.ask("/", "X-Forwarded-Proto: " + proto).all("set-cookie")[-1]
        assert cookie.startswith("warp_instance=") and cookie.endswith("; Secure") == secure, cookie


def test_cache(warp, backend):
    """What is stored is the answer of who gave one; where nobody does, what is stored may stand in."""
    ok = reply("ok", "Cache-Control: max-age=1, stale-if-error=600")
    a, b = backend(many(NO), name="a"), backend([REQ, ok, *many(BAD)], name="b")
    w = warp(dict(conf(app=keys(a, b)), cache={"size_bytes": 1 << 20}))
    assert w.ask("/c").text == "ok"
    assert w.ask("/c").get("x-cache") == "HIT" and heads(a) == 1
    eventually(lambda: w.ask("/c").get("x-cache") == "STALE")
    assert heads(a) == 2 and heads(b) == 2


# keys, what is said
BAD_KEYS = [
    ("retry_on = [200]", "retry_on: expected a status from 400 to 599"),
    ("retry_on = [600]", "expected a status from 400 to 599"),
    ("retry_on = 503.5", "expected a status"),
    ("retry_on = true", "expected a status"),
    ('retry_on = ["504-502"]', "expected a status"),
]


@pytest.mark.parametrize("key, said", BAD_KEYS)
def test_bad(check, key, said):
    r = check('[upstreams.app]\nurl = "http://127.0.0.1:1"\n%s\n' % key)
    assert r.returncode == 1 and said in r.stdout + r.stderr


def test_said(check):
    r = check('[upstreams.app]\nurl = "http://127.0.0.1:1"\nretry_on = ["502-504", 429]\n')
    assert r.returncode == 0 and "2 retries on 502-504 429" in r.stdout
