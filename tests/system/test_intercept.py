"""intercept_errors: warp's page instead of what the upstream says with a status. What the answer tells the client stays,
what it tells of its body goes; both connections are left as they should be."""
import pytest

from lib import CLOSE, HEAD, REQ, TIMEOUT, chunks, conf, eventually, reply, request
from test_fastcgi import out, php  # noqa: F401
from uwsgi import ANSWER

SAID = ["Retry-After: 7", 'WWW-Authenticate: Basic realm="x"', "WWW-Authenticate: Bearer", "Set-Cookie: a=1", "Set-Cookie: b=2",
        "Allow: GET", "Cache-Control: no-store", "Vary: Accept", "Access-Control-Allow-Origin: *"]
LOST = ["Server: app", "X-Powered-By: app", "ETag: \"1\"", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Language: de",
        "Accept-Ranges: bytes", "Content-Type: text/app", "Access: x"]
NO = reply("the app's", *SAID, *LOST, status="503 Go Away")


def many(answer):
    """Answers every request of a connection alike."""
    def step(c):
        while True:
            c.request()
            c.send(answer)
    return [step]


@pytest.fixture
def pages(tmp_path):
    d = tmp_path / "errors"
    d.mkdir()
    (d / "503.html").write_text("<h1>soon</h1>")
    (d / "404.html").write_text("<h1>not here</h1>")
    (d / "404.json").write_text('{"own": true}')
    return {"error_dir": str(d)}


def test_the_page(warp, backend, pages):
    b = backend(many(NO))
    w = warp(conf({"intercept_errors": True}, app=b, server=pages))
    with w.client() as c:
        for _ in range(2):
            m = c.ask()
            assert (m.status, m.reason, m.text, m.get("content-type")) == (503, "Service Unavailable", "<h1>soon</h1>",
                                                                         "text/html; charset=utf-8")
            assert [l for l in SAID if l.partition(": ")[2] not in m.all(l.partition(":")[0])] == []
            assert [n for n in ("server", "x-powered-by", "etag", "last-modified", "content-language", "accept-ranges", "access")
                    if m.has(n)] == []
    assert len(b.conns) == 1, "the upstream's connection goes on, too"


def test_head(warp, backend, pages):
    w = warp(conf({"intercept_errors": True}, app=backend(many(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\n")),
                  server=pages))
    with w.client() as c:
        for _ in range(2):
            h = c.ask(method="HEAD")
            assert (h.status, h.get("content-length"), h.get("retry-after")) == (503, "13", "7")


# reason: keys, Accept, the upstream's status, what is got
WHICH = {
    "true: there is a page": (True, "*/*", 404, "<h1>not here</h1>"),
    "true: and as JSON": (True, "application/json", 404, '{"own": true}'),
    "true: none as the client wants it": (True, "application/json", 503, "the app's"),
    "true: there is none": (True, "*/*", 500, "the app's"),
    "true: no error": (True, "*/*", 302, "the app's"),
    "false": (False, "*/*", 404, "the app's"),
    "listed": ([404], "*/*", 404, "<h1>not here</h1>"),
    "listed, built in": ([404, "500-502"], "*/*", 501, "<h1>501 Not Implemented</h1>"),
    "listed, built in, as JSON": (503, "application/json", 503, '"status":503'),
    "not listed": (["500-502"], "*/*", 404, "the app's"),
}


@pytest.mark.parametrize("reason", WHICH)
def test_which(warp, backend, pages, reason):
    keys, accept, status, want = WHICH[reason]
    w = warp(conf({"intercept_errors": keys}, app=backend(many(reply("the app's", status="%d X" % status))), server=pages))
    m = w.ask("/", "Accept: " + accept)
    assert m.status == status and want in m.text, (reason, m.text)


# reason: what the upstream sends; how many connections it sees for two requests
FRAMES = {
    "whole": (many(NO), 1),
    "chunks": (many(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n" + chunks(b"no", trailers=["x: y"])), 1),
    "no body": (many(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), 1),
    "to its end": ([REQ, b"HTTP/1.1 503 No\r\n\r\nno", CLOSE], 2),
    "endless": ([REQ, b"HTTP/1.1 503 No\r\nContent-Length: 1000000000\r\n\r\nno"], 2),
    "malformed": ([REQ, b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], 2),
    "a word before": (many(b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + NO), 1),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("reason", FRAMES)
def test_frames(warp, backend, pages, reason, version):
    script, conns = FRAMES[reason]
    b = backend(script)
    w = warp(conf({"intercept_errors": True}, app=b, server=pages))
    with w.client() as c:
        for _ in range(2):
            m = c.ask("/", "Connection: keep-alive", version=version)
            assert (m.status, m.text) == (503, "<h1>soon</h1>"), reason
    assert len(b.conns) == conns
    if conns == 2:
        assert b.conn(0).closed.wait(TIMEOUT)


def test_a_body_that_is_still_sent(warp, backend, pages):
    """The upstream answers before it has all; what is left is read off or the connection ends, nothing of it is a request."""
    b = backend([HEAD, NO])
    w = warp(conf({"intercept_errors": True}, app=b, server=pages))
    with w.client() as c:
        c.send(request("/", "Content-Length: 50", method="POST") + b"GET /smuggled HTTP/1.1\r\n")
        m = c.response()
        assert m.status == 503 and m.text == "<h1>soon</h1>" and "close" in m.tokens("connection")
    assert [len(k.requests) for k in b.conns] == [1]


def test_others_of_warp(warp, backend, pages):
    """Headers of the route are set, those of the upstream removed by it do not come back."""
    w = warp(conf({"intercept_errors": True, "add_response_headers": [{"name": "Cache-Control", "value": "max-age=1"}],
                   "remove_response_headers": ["Set-Cookie"]}, app=backend(many(NO)), server=pages))
    m = w.ask()
    assert m.all("cache-control") == ["max-age=1"] and not m.has("set-cookie") and m.text == "<h1>soon</h1>"


def test_upgrade_required(warp, backend):
    w = warp(conf({"intercept_errors": [426]}, app=backend(many(reply("no", "Upgrade: x/1", "Connection: upgrade",
                                                                      status="426 Upgrade Required")))))
    m = w.ask()
    assert m.all("upgrade") == ["x/1"] and m.tokens("connection") == ["upgrade"] and "426" in m.text


def test_behind_retries(warp, backend, pages):
    """Only the last answer is one."""
    a, b = backend(many(NO), name="a"), backend(many(NO), [REQ, reply("ok")], name="b")
    w = warp(conf({"intercept_errors": True}, app={"on": [a, b], "strategy": "first", "retry_on": 503}, server=pages))
    assert w.ask().text == "<h1>soon</h1>" and len(a.requests) == len(b.requests) == 1


def test_cache(warp, backend, pages):
    """What the upstream says is stored as it said it; who asks by a route that intercepts gets the page of it."""
    b = backend(many(reply("the app's", "Cache-Control: max-age=100", "Set-Cookie2: x", status="404 No")))
    w = warp(dict(conf({"path_prefix": "/", "header": {"name": "X-Own", "value": "*"}, "intercept_errors": True}, {}, app=b,
                       server=pages), cache={"size_bytes": 1 << 20}))
    for _ in range(2):
        m = w.ask("/own", "X-Own: 1")
        assert m.text == "<h1>not here</h1>" and m.get("cache-control") == "max-age=100"
    assert m.get("x-cache") == "HIT" and int(m.get("age")) < 100 and m.get("content-length") == "17"
    m = w.ask("/own")
    assert (m.get("x-cache"), m.text) == ("HIT", "the app's")
    assert len(b.requests) == 1


def test_cache_stands_in(warp, backend, pages):
    """stale-if-error is better than a page."""
    b = backend([REQ, reply("ok", "Cache-Control: max-age=1, stale-if-error=100"), *many(reply("bad", status="503 No"))])
    w = warp(dict(conf({"intercept_errors": True}, app=b, server=pages), cache={"size_bytes": 1 << 20}))
    assert w.ask().text == "ok"
    eventually(lambda: w.ask().get("x-cache") == "STALE")
    assert w.ask().text == "ok" and w.ask("/other").text == "<h1>soon</h1>"


def test_gzip(warp, backend, pages):
    """A page is compressed as warp's own are; what the upstream had compressed is gone."""
    w = warp(conf({"intercept_errors": True}, app=backend(many(reply(b"\x1f\x8b", "Content-Encoding: gzip", status="404 No"))),
                  server=pages))
    m = w.ask("/", "Accept-Encoding: gzip")
    assert m.text == "<h1>not here</h1>" and not m.has("content-encoding")


def test_uwsgi(warp, node, pages):
    w = warp(conf({"intercept_errors": True}, app=node(ANSWER(NO)), server=pages))
    assert [w.ask().text for _ in range(2)] == ["<h1>soon</h1>"] * 2


def test_fastcgi(warp, php, pages):
    p = php(many(out(b"Status: 404 No\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\n\r\nno")))
    w = warp(conf({"intercept_errors": True}, app={"on": p, "keepalive": 4}, server=pages))
    for _ in range(2):
        m = w.ask()
        assert (m.status, m.text, m.get("set-cookie")) == (404, "<h1>not here</h1>", "a=1")


ROUTE = '[upstreams.app]\nurl = "http://127.0.0.1:1"\n[[routes]]\nupstream = "app"\nintercept_errors = %s\n'


@pytest.mark.parametrize("value, status, said", [
    ("[200]", 1, "expected a status from 400 to 599"), ('"true"', 1, "expected a status"), ("[true]", 1, "expected a status"),
    ("true", 0, "true is nothing without server.error_dir"), ("false", 0, "-> upstream app\n"),
    ("404", 0, "-> upstream app, intercept_errors 404"), ('["500-599", 404]', 0, ", intercept_errors 500-599 404")])
def test_said(check, value, status, said):
    r = check(ROUTE % value)
    assert r.returncode == status and said in r.stdout + r.stderr
