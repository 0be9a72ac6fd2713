"""HTTP on one side, uwsgi on the other: what an application is told, what it may answer; real uWSGI, and nginx's
uwsgi_pass as the yardstick."""
import contextlib
import json
import os
import re
import socket
import threading

import pytest

import lib
import supervised
import uwsgi
from lib import CLOSE, FIN, HEAD, REQ, RST, SLOW, TIMEOUT, UPGRADE, WAIT, Client, chunks, conf, eventually, free_port, reply, request, toml_file
from uwsgi import ANSWER, NAME, block

promise = pytest.mark.promise("S1-22")


def asked(warp, node, *args, server=None, routes=(), middleware=None, upstream=None, **kw):
    """What the node is told of one request."""
    n = node()
    w = warp(conf(*routes, app={"on": n, **(upstream or {})}, server=server, middleware=middleware))
    m = w.ask(*args, **kw)
    assert m.status == 200, m.text
    return n.last


# ---- the vars -----------------------------------------------------------------

@promise
def test_the_vars_of_a_request(warp, node):
    n = node()
    w = warp(conf(app=n))
    with w.client() as c:
        assert c.ask("/a%20b/c?x=1&y=%2f", "User-Agent: test", "Accept: */*").status == 200
        client = c.sock.getsockname()
    v = n.last.dict
    assert n.last.modifier1 == n.last.modifier2 == 0
    want = {
        "QUERY_STRING": "x=1&y=%2f", "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_URI": "/a%20b/c?x=1&y=%2f",
        "PATH_INFO": "/a b/c", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": str(client[1]), "SERVER_PORT": str(w.port),
        "SERVER_NAME": "a.example", "HTTP_HOST": "a.example", "HTTP_USER_AGENT": "test", "HTTP_ACCEPT": "*/*",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "http",
    }
    assert {n: v.get(n) for n in want} == want
    for name in ("SCRIPT_NAME", "CONTENT_TYPE", "CONTENT_LENGTH"):
        assert not v.get(name), name
    for name in ("HTTPS", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING"):
        assert name not in v


@pytest.mark.parametrize("target, uri, path, query", [
    ("/", "/", "/", ""),
    ("/?", "/?", "/", ""),
    ("/a?b?c", "/a?b?c", "/a", "b?c"),
    ("/a%3Fb?c", "/a%3Fb?c", "/a?b", "c"),
    ("/%C3%A9%ff", "/%C3%A9%ff", "/\xc3\xa9\xff", ""),
    ("/100%25", "/100%25", "/100%", ""),
    ("/a+b", "/a+b", "/a+b", ""),
    ("/x?" + "q" * 3000, "/x?" + "q" * 3000, "/x", "q" * 3000),
    ("http://a.example/p?q", "/p?q", "/p", "q"),
    ("http://a.example?q", None, "/", "q"),
])
def test_the_target(warp, node, target, uri, path, query):
    p = asked(warp, node, target)
    assert (p.get("PATH_INFO"), p.get("QUERY_STRING")) == (path, query)
    assert uri is None or p.get("REQUEST_URI") == uri


@pytest.mark.parametrize("fields, want", [
    (["X-A: 1", "X-A: 2", "x-a: 3"], {"HTTP_X_A": "1, 2, 3"}),
    (["Cookie: a=1", "Cookie: b=2"], {"HTTP_COOKIE": "a=1; b=2"}),
    (["Accept: a", "X-B: b", "Accept: c"], {"HTTP_ACCEPT": "a, c", "HTTP_X_B": "b"}),
    (["X_Real_IP: 6.6.6.6", "X_A: 1"], {"HTTP_X_A": None, "HTTP_X_REAL_IP": "127.0.0.1"}),
    (["Proxy: http://evil/"], {"HTTP_PROXY": None}),
    (["X-Empty:"], {"HTTP_X_EMPTY": ""}),
    (["Connection: close, X-Hop", "X-Hop: 1", "TE: trailers", "Keep-Alive: 5", "Upgrade: h2c"],
     {n: None for n in ("HTTP_CONNECTION", "HTTP_X_HOP", "HTTP_TE", "HTTP_KEEP_ALIVE", "HTTP_UPGRADE")}),
    (["UWSGI-FASTROUTER-KEY: x", "Remote-Addr: 6.6.6.6", "HTTPS: on", "Content-Type: text/x"],
     {"UWSGI_FASTROUTER_KEY": None, "HTTP_UWSGI_FASTROUTER_KEY": "x", "REMOTE_ADDR": "127.0.0.1", "HTTPS": None, "HTTP_HTTPS": "on",
      "CONTENT_TYPE": "text/x", "HTTP_CONTENT_TYPE": None}),
    (["X-8: \xe9\x80"], {"HTTP_X_8": "\xe9\x80"}),
], ids=["joined", "cookie", "apart", "underscore", "proxy", "empty", "hop", "no-forging", "bytes"])
def test_headers_become_vars(warp, node, fields, want):
    v = asked(warp, node, "/", *fields).dict
    assert {n: v.get(n) for n in want} == want


def test_an_http10_request_without_a_host(warp, node):
    """SERVER_NAME and SERVER_PORT are there all the same: WSGI wants them."""
    n = node()
    w = warp(conf(app=n))
    with w.client() as c:
        c.send("GET /x HTTP/1.0\r\n\r\n")
        assert c.response().status == 200 and c.closed() == "eof"
    v = n.last.dict
    assert v["SERVER_PROTOCOL"] == "HTTP/1.0" and v["SERVER_NAME"] and v["SERVER_PORT"] == str(w.port)


def test_behind_a_trusted_proxy(warp, node):
    p = asked(warp, node, "/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", server={"trusted_proxies": ["127.0.0.0/8"]})
    assert p.get("REMOTE_ADDR") == "1.2.3.4"
    assert p.get("HTTP_X_FORWARDED_PROTO") == "https"


def test_behind_the_proxy_protocol(warp, node):
    n = node()
    w = warp(conf(app=n, server={"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}))
    with w.client() as c:
        c.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n" + request("/"))
        assert c.response().status == 200
    assert (n.last.get("REMOTE_ADDR"), n.last.get("REMOTE_PORT")) == ("1.2.3.4", "1111")


def test_over_tls(https, node, pki):
    n = node()
    w = https(pki.cert("a.example"), conf=conf(app=n))
    with w.tls() as c:
        assert c.ask("/x").status == 200
    v = n.last.dict
    assert v["HTTPS"] == "on" and v["SERVER_PORT"] == str(w.https) and v["HTTP_X_FORWARDED_PROTO"] == "https"


def test_the_stripped_prefix_is_the_script_name(warp, node):
    """So that applications build right links."""
    p = asked(warp, node, "/app/x%20y?q", routes=[{"path_prefix": "/app", "strip_prefix": True}])
    assert (p.get("SCRIPT_NAME"), p.get("PATH_INFO"), p.get("QUERY_STRING")) == ("/app", "/x y", "q")


def test_what_a_route_adds_and_removes(warp, node):
    v = asked(warp, node, "/", "X-Gone: 1", routes=[{"add_headers": [{"name": "X-Added", "value": "yes"}], "remove_headers": ["X-Gone"]}]).dict
    assert v["HTTP_X_ADDED"] == "yes" and "HTTP_X_GONE" not in v


def test_modifiers_and_params(warp, node):
    p = asked(warp, node, "/", upstream={"modifier1": 5, "modifier2": 3, "params": {"UWSGI_SCHEME": "https", "UWSGI_APPID": "x y"}})
    assert (p.modifier1, p.modifier2) == (5, 3)
    assert p.dict["UWSGI_SCHEME"] == "https" and p.dict["UWSGI_APPID"] == "x y"


@pytest.mark.parametrize("form", ["uwsgi://", "protocol", "uwsgi//", "socket"])
def test_forms_of_the_address(warp, node, form):
    n = node(unix=None if form in ("uwsgi://", "protocol") else True)
    up = {"uwsgi://": {"url": "uwsgi://127.0.0.1:%s" % n.port}, "protocol": {"host": "127.0.0.1", "port": n.port, "protocol": "uwsgi"},
          "uwsgi//": {"url": "uwsgi/%s" % n.unix}, "socket": {"socket": n.unix, "protocol": "uwsgi"}}[form]
    w = warp({"upstreams": {"app": up}, "routes": [{"upstream": "app"}]})
    assert w.ask("/").text == "n0 a.example 0"


@pytest.mark.parametrize("nul", ["", "\0"])
def test_an_abstract_instance_in_both_spellings(warp, node, tmp_path, nul):
    name = "@warp-test-up-%d-%s" % (os.getpid(), tmp_path.name)
    n = node(unix=name + nul)
    w = warp({"upstreams": {"app": {"socket": name, "protocol": "uwsgi"}, "app.health": {"interval_secs": 0.05, "unhealthy_threshold": 1}},
              "routes": [{"upstream": "app"}]})
    assert w.ask("/").text == "n0 a.example 0"
    eventually(lambda: sum(p.modifier1 == 100 for p in probes_of(n)) > 2, "probes arrive")
    assert w.ask("/").text == "n0 a.example 0"


def test_real_supervised_abstract(warp, tmp_path):
    """uWSGI binds the name with a NUL behind it: it is ready when it listens there."""
    name = "@warp-test-sup-%d-%s" % (os.getpid(), tmp_path.name)
    (tmp_path / "app.py").write_text(APP)
    words = ["--plugin", "python3", "--socket", "{socket}", "--wsgi-file", str(tmp_path / "app.py"), "--master", "--die-on-term", "--disable-logging"]
    w = warp(supervised.fleet({"command": uwsgi.need("uwsgi"), "args": words}, protocol="uwsgi", socket=name, hold_secs=20))
    assert w.ask("/x", timeout=20 * SLOW).json["PATH_INFO"] == "/x"
    supervised.wait_state(w, "up")


# ---- what does not fit ------------------------------------------------------------

@pytest.mark.parametrize("fields", [["X-A: " + "a" * 65300], ["X-%d: %s" % (i, "a" * 255) for i in range(100, 345)]], ids=["value", "block"])
def test_a_block_of_more_than_65535_bytes_is_431(warp, node, fields):
    """Though the head as such would do: names grow on the way."""
    n = node()
    w = warp(conf(app=n, server={"max_header_bytes": 65536}))
    assert len(request("/", *fields)) < 65536
    assert w.ask("/", *fields).status == 431
    assert not any(c.raw for c in n.conns)
    assert w.ask("/").status == 200


def test_a_block_just_below_arrives_whole(warp, node):
    n = node()
    w = warp(conf(app=n, server={"max_header_bytes": 65536}))
    w.ask("/")
    room = 65535 - len(n.last.block) - len(block({"HTTP_X_A": ""})) - 20
    assert w.ask("/", "X-A: " + "a" * room).status == 200
    assert n.last.get("HTTP_X_A") == "a" * room


def test_params_that_cannot_fit_are_an_error(check):
    p = check(toml_file(conf(app={"url": "uwsgi://127.0.0.1:1", "params": {"": "x"}})))
    assert p.returncode == 1 and "params" in p.stderr


@pytest.mark.parametrize("key, value", [("modifier1", 256), ("modifier1", -1), ("modifier2", 256)])
def test_a_modifier_is_a_byte(check, key, value):
    p = check(toml_file(conf(app={"url": "uwsgi://127.0.0.1:1", key: value})))
    assert p.returncode == 1 and key in p.stderr


# ---- bodies -------------------------------------------------------------------------

@promise
@pytest.mark.parametrize("pieces", [[], [b"hello"], [b"a" * 3000, b"b" * 100000, b"c" * 200000]], ids=["empty", "small", "large"])
def test_a_chunked_body_is_buffered_into_a_length(warp, node, pieces):
    n = node()
    w = warp(conf(app=n))
    whole = b"".join(pieces)
    with w.client() as c:
        c.send(request("/", "Transfer-Encoding: chunked", method="POST") + chunks(*pieces, last=False))
        assert c.is_open(0.1) and not n.conns              # nobody is bothered before all is there
        c.send(b"0\r\n\r\n")
        assert c.response().text == "n0 a.example %d" % len(whole)
    assert n.last.body == whole and n.last.get("CONTENT_LENGTH") == str(len(whole))
    assert "HTTP_TRANSFER_ENCODING" not in n.last


def test_a_body_with_a_length_is_streamed(warp, node):
    n = node([HEAD, lambda c: c.exactly(3) and None, lambda c: c.exactly(4) and None, reply("done"), FIN])
    w = warp(conf(app=n))
    with w.client() as c:
        c.send(request("/", "Content-Length: 7", "Content-Type: a/b", method="POST"))
        eventually(lambda: n.conns and n.conns[0].requests, "head")
        assert n.conns[0].last.get("CONTENT_LENGTH") == "7" and n.conns[0].last.get("CONTENT_TYPE") == "a/b"
        c.send(b"abc")
        eventually(lambda: n.conns[0].raw.endswith(b"abc"), "the first piece")
        c.send(b"defg")
        assert c.response().text == "done"


def test_buffer_request(warp, node):
    n = node()
    w = warp(conf({"buffer_request": 1000}, app=n))
    with w.client() as c:
        c.send(request("/", "Content-Length: 5000", method="POST") + b"x" * 4999)
        assert c.is_open(0.1) and not n.conns
        c.send(b"x")
        assert c.response().text == "n0 a.example 5000"


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_expect_continue_is_answered_here(warp, node, how):
    n = node()
    w = warp(conf(app=n))
    with w.client() as c:
        c.send(request("/", "Expect: 100-continue", "Content-Length: 5" if how == "length" else "Transfer-Encoding: chunked", method="POST"))
        assert c.interim().status == 100
        c.send(b"hello" if how == "length" else chunks(b"hello"))
        assert c.response().text == "n0 a.example 5"
    assert n.last.body == b"hello"


@pytest.mark.parametrize("unix", [None, True])
def test_an_early_answer_reaches_the_client(warp, node, unix):
    """The body is not read to its end, and writing it fails."""
    n = node([HEAD, reply("too big", status="413 Payload Too Large"), CLOSE], unix=unix)
    w = warp(conf(app=n))
    with w.client() as c:
        c.send(request("/", "Content-Length: 3000000", method="POST"))
        with contextlib.suppress(OSError):
            c.send(b"x" * 300000)
        m = c.response(method="POST")
        assert (m.status, m.text) == (413, "too big")


# ---- answers --------------------------------------------------------------------------

ANSWERS = {
    "http/1.1": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nok", 200, "length", b"ok"),
    "http/1.0 without a length": (b"HTTP/1.0 201 Created\r\nX-A: 1\r\n\r\nok", 201, "chunked", b"ok"),
    "another version": (b"HTTP/2.0 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok", 200, "length", b"ok"),
    "status": (b"Status: 404 Not Found\r\nX-A: 1\r\n\r\nno", 404, "chunked", b"no"),
    "status without a reason": (b"Status: 404\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno", 404, "length", b"no"),
    "status in lower case": (b"status: 500 Oh\r\nX-A: 1\r\n\r\n", 500, "chunked", b""),
    "status is not the first line": (b"X-A: 1\r\nStatus: 404 Not Found\r\n\r\nno", 404, "chunked", b"no"),
    "neither": (b"X-A: 1\r\nContent-Type: text/plain\r\n\r\nhi", 200, "chunked", b"hi"),
    "bare line feeds": (b"HTTP/1.1 202 OK\nX-A: 1\nContent-Length: 2\n\nok", 202, "length", b"ok"),
    "status and line feeds": (b"Status: 202 OK\nX-A: 1\n\nok", 202, "chunked", b"ok"),
    "neither and line feeds": (b"X-A: 1\nX-B: 2\n\n\nok\n", 200, "chunked", b"\nok\n"),
    "an empty body": (b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n", 200, "length", b""),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["", "bytes"])
def test_answers(warp, node, name, byte_by_byte):
    raw, status, framing, body = ANSWERS[name]

    def slowly(c):
        c.request()
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(raw)):
            c.sock.sendall(raw[i:i + 1])
        return b""
    n = node([slowly, FIN] if byte_by_byte else ANSWER(raw))
    w = warp(conf(app=n))
    with w.client() as c:
        for _ in range(2):                                 # the client's connection is kept, whatever the backend's
            m = c.ask("/")
            assert (m.status, m.framing, m.body, m.get("X-A")) == (status, framing, body, "1")
            assert m.version == "HTTP/1.1" and not m.has("Status")
    assert len(n.conns) == 2                               # one request on one connection


def test_headers_of_an_answer(warp, node):
    n = node(ANSWER(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
                    b"Content-Length: 2\r\n\r\nok"))
    m = warp(conf(app=n)).ask("/")
    assert m.all("Set-Cookie") == ["a=1", "b=2"]
    assert not m.has("X-Hop") and not m.has("Keep-Alive") and m.body == b"ok"


def test_an_http10_client_gets_a_close(warp, node):
    n = node(ANSWER(b"HTTP/1.0 200 OK\r\n\r\nok"))
    with warp(conf(app=n)).client() as c:
        c.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        m = c.response()
        assert m.framing == "close" and m.body == b"ok"


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", b"Status: 200\r\nContent-Length: 10\r\n\r\n"])
def test_an_answer_cut_short_is_not_padded(warp, node, raw):
    n = node(ANSWER(raw))
    with warp(conf(app=n)).client() as c:
        c.send(request("/"))
        with pytest.raises((EOFError, ConnectionError)):
            c.response()
        assert c.eof or c.buf is not None


@pytest.mark.parametrize("method, raw, status", [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200),
    ("HEAD", b"HTTP/1.0 200 OK\r\n\r\nhello", 200),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\nhello", 204),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\nhello", 304),
    ("GET", b"Status: 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204),
])
def test_a_body_where_none_may_be_is_thrown_away(warp, node, method, raw, status):
    n = node(ANSWER(raw), ANSWER(reply("next")))
    with warp(conf(app=n)).client() as c:
        m = c.ask("/", method=method)
        assert (m.status, m.body) == (status, b"")
        assert c.ask("/").text == "next"


@pytest.mark.parametrize("script", [[REQ, CLOSE], [REQ, RST], [REQ, b"\0\1\2\3" * 10, FIN], [REQ, b"HTTP/1.1 abc\r\n\r\n", FIN],
                                    [REQ, b"HTTP/1.1 200 OK\r\nX", FIN], [REQ, b"Status: abc\r\n\r\n", FIN],
                                    [REQ, b"HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n", FIN]],
                         ids=["close", "reset", "garbage", "status-line", "cut", "status", "field"])
def test_no_answer_is_502(warp, node, script):
    n = node(script)
    w = warp(conf(app=n))
    with w.client() as c:
        assert c.ask("/", method="POST", body=b"x").status == 502
    assert len(n.conns) == 1


def test_a_large_answer(warp, node):
    big = os.urandom(5000000)
    n = node(ANSWER(b"HTTP/1.0 200 OK\r\n\r\n" + big))
    w = warp(conf(app=n))
    with w.client(rcvbuf=8192) as c:
        c.send(request("/"))
        n.request()
        assert c.response(timeout=3 * TIMEOUT).body == big


# ---- like any other upstream -------------------------------------------------------------

@promise
def test_balance_and_a_dead_instance(warp, node):
    a, b = node(), node()
    dead = {"host": "127.0.0.1", "port": free_port()}
    ups = {"app": {"protocol": "uwsgi", "instances": [{"host": "127.0.0.1", "port": x.port} for x in (a, b)] + [dead]}}
    w = warp({"upstreams": ups, "routes": [{"upstream": "app"}]})
    got = [w.ask("/").text.split()[0] for _ in range(12)]
    assert set(got) == {"n0", "n1"} and abs(got.count("n0") - 6) <= 2


@pytest.mark.parametrize("method, again", [("GET", True), ("POST", False)])
def test_the_retry_rule(warp, node, method, again):
    """Closed without a byte: a GET goes to the next instance, a POST whose bytes went out does not."""
    bad, good = node([REQ, CLOSE], name="bad"), node(name="good")
    w = warp(conf(app={"on": [bad, good], "strategy": "first"}))
    m = w.ask("/", method=method, body=b"x" if method == "POST" else None)
    assert (m.status == 200 and m.text.startswith("good ")) == again and (again or m.status == 502)
    assert len(bad.conns) == 1 and len(good.conns) == again


def test_hold(warp, node):
    """A request waits for the instance to come up."""
    port = free_port()
    w = warp(conf(app={"url": "uwsgi://127.0.0.1:%d" % port, "hold_secs": 20}))
    with w.client() as c:
        c.send(request("/"))
        assert c.is_open(0.2)
        node(port=port)
        assert c.response().text == "n0 a.example 0"


def test_read_timeout(warp, node):
    n = node([REQ, lambda c: c.rest()])
    w = warp(conf(app={"on": n, "read_timeout_secs": 0.3}))
    assert w.ask("/").status == 504


def probes_of(n):
    return [p for c in n.conns for p in c.requests]


@pytest.mark.parametrize("pong", [b"\x64\0\0\x01", b""], ids=["plugin", "none"])
def test_the_health_check_is_a_ping(warp, node, pong):
    """Without a path: modifier 100. uWSGI's ping plugin answers it; who has no such plugin closes, and is alive too."""
    up = threading.Event()

    def serve(c):
        p = c.begin()
        if p.modifier1 == 100:
            if not up.is_set():
                c.rest()
            return pong
        c.finish(p)
        return reply("app")
    n = node([serve, FIN])
    up.set()
    w = warp(conf(app={"on": n, "hold_secs": 0}) | {"upstreams": {"app": n.conf, "app.health": {"interval_secs": 0.05, "timeout_secs": 0.2, "unhealthy_threshold": 2, "healthy_threshold": 1}}})
    eventually(lambda: any(p.modifier1 == 100 for p in probes_of(n)), "a ping")
    assert w.ask("/").text == "app"
    up.clear()
    eventually(lambda: w.ask("/").status == 503, "it is down")
    up.set()
    eventually(lambda: w.ask("/").status == 200, "it is up again")
    assert all(not p.block for p in probes_of(n) if p.modifier1 == 100)


def test_the_health_check_of_a_path(warp, node):
    ok = threading.Event()
    ok.set()

    def serve(c):
        p = c.request()
        probe = p.get("PATH_INFO") == "/health"
        return reply("app", status="200 OK" if ok.is_set() or not probe else "500 Oh")
    n = node([serve, FIN])
    w = warp(conf(app=n) | {"upstreams": {"app": n.conf, "app.health": {"path": "/health", "interval_secs": 0.05, "unhealthy_threshold": 2, "healthy_threshold": 1, "host": "h.example"}}})
    n.wait(lambda: n.requests, "probe")
    v = n.requests[0].dict
    assert (v["REQUEST_METHOD"], v["HTTP_HOST"], v["REQUEST_URI"]) == ("GET", "h.example", "/health") and n.requests[0].modifier1 == 0
    ok.clear()
    eventually(lambda: w.ask("/").status == 503, "it is down")
    ok.set()
    eventually(lambda: w.ask("/").status == 200, "it is up again")


def test_answers_are_cached(warp, node):
    n = node(ANSWER(b"HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello"))
    w = warp(toml_file(conf(app=n)) + "[cache]\nsize_bytes = 100000\n")
    assert [w.ask("/").get("X-Cache") for _ in range(3)] == ["MISS", "HIT", "HIT"]
    assert len(n.conns) == 1


@promise
def test_websocket_vars_and_bytes(warp, node):
    """The application does the handshake itself; then bytes pass both ways."""
    def app(c):
        c.begin()
        c.send(lib.SWITCH)
        while c.buf or c.fill():
            c.sock.sendall(c.buf.upper())
            c.buf = b""
    n = node([app])
    w = warp(conf(app=n))
    with w.client() as c:
        c.send(request("/ws", *UPGRADE, "Sec-WebSocket-Protocol: chat"))
        m = c.response()
        assert m.status == 101 and m.get("Sec-WebSocket-Accept")
        for word in (b"hello", b"y" * 100000):
            c.send(word)
            assert c.exactly(len(word), TIMEOUT) == word.upper()
    v = n.conn().last.dict
    assert v["HTTP_UPGRADE"].lower() == "websocket" and v["HTTP_CONNECTION"].lower() == "upgrade"
    assert v["HTTP_SEC_WEBSOCKET_KEY"] == "dGhlIHNhbXBsZSBub25jZQ==" and v["HTTP_SEC_WEBSOCKET_PROTOCOL"] == "chat"
    assert n.conn().closed.wait(TIMEOUT)


# ---- nginx as the yardstick ---------------------------------------------------------------

NGINX = """
daemon off; worker_processes 1; pid %(d)s/nginx.pid; error_log stderr; %(user)s
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %(d)s/b; proxy_temp_path %(d)s/p; fastcgi_temp_path %(d)s/f; uwsgi_temp_path %(d)s/u; scgi_temp_path %(d)s/s;
  server { listen 127.0.0.1:%(port)d; server_name a.example;
    location / { include %(params)s; uwsgi_pass %(pass)s; } }
}
"""
PARAMS = "/etc/nginx/uwsgi_params"


@contextlib.contextmanager
def nginx(dir, to):
    if not os.path.exists(PARAMS):
        pytest.skip("no " + PARAMS)
    port, file = free_port(), os.path.join(str(dir), "nginx.conf")
    with open(file, "w") as f:
        f.write(NGINX % {"d": dir, "port": port, "params": PARAMS, "pass": to, "user": "user root;" if os.getuid() == 0 else ""})
    p = uwsgi.Program([uwsgi.need("nginx"), "-p", str(dir), "-c", file])
    try:
        p.up(port)
        yield port
    finally:
        p.stop()


# What each server has to say for itself, or says on principle.
OWN = {"DOCUMENT_ROOT", "DOCUMENT_URI", "SERVER_PORT", "REMOTE_PORT", "REQUEST_SCHEME", "HTTP_CONNECTION", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH",
       "HTTP_TRANSFER_ENCODING"}
REQUESTS = [
    request("/"),
    request("/a%20b/../c//d?x=%20&y", "Accept: text/html", "Cookie: a=1", "User-Agent: x"),
    request("http://other.example/p?q", host="other.example"),
    request("/%C3%A9?%zz", "X-A: b", "Referer: http://x/"),
    request("/post?x", "Content-Type: application/json", method="POST", body=b"hello"),
    request("/", method="DELETE", body=b""),
    request("/x", "Transfer-Encoding: chunked", method="PUT") + chunks(b"abc", b"defgh"),
    request("/", "Authorization: Basic eDp5", "If-None-Match: \"x\"", "Range: bytes=0-1", method="HEAD"),
    request("/", host="a.example:8080"),
    request("/", "X-Empty:", "X_Under: 1", "If-Modified-Since: x"),
]


@promise
def test_the_same_vars_as_nginx(warp, node, tmp_path):
    n = node(ANSWER(b"HTTP/1.1 204 No Content\r\n\r\n"))
    w = warp(conf(app=n, middleware={"forward_headers": False}, server={"request_id": False}))
    told = []
    with nginx(tmp_path, n.address) as port:
        for raw in REQUESTS:
            for p in (port, w.port):
                with Client(p) as c:
                    c.send(raw)
                    assert c.response().status == 204, raw
            told.append([q for q in n.requests[-2:]])
    for raw, (theirs, ours) in zip(REQUESTS, told):
        a, b = ({k: v for k, v in q.vars if k not in OWN and v} for q in (theirs, ours))
        assert a.pop("SERVER_NAME") and b.pop("SERVER_NAME")
        a["HTTP_HOST"], b["HTTP_HOST"] = (v["HTTP_HOST"].partition(":")[0] for v in (a, b))    # Debian's leaves the port out
        assert a == b, raw
        assert theirs.body == ours.body


# ---- real uWSGI -------------------------------------------------------------------------------

APP = '''
import hashlib, json, time
def application(env, start):
    path = env["PATH_INFO"]
    if path == "/ws":
        import uwsgi
        uwsgi.websocket_handshake(env["HTTP_SEC_WEBSOCKET_KEY"], env.get("HTTP_ORIGIN", ""))
        while True:
            uwsgi.websocket_send(b"echo " + uwsgi.websocket_recv())
    body = env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
    if path == "/big":
        start("200 OK", [("Content-Type", "application/octet-stream")])
        return (bytes([i % 256]) * 65536 for i in range(64))
    if path == "/boom":
        1 / 0
    if path == "/404":
        start("404 Not Found", [("X-A", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        return [b"nothing here"]
    env = {k: v for k, v in env.items() if isinstance(v, str)} | {"scheme": env["wsgi.url_scheme"], "sha": hashlib.sha256(body).hexdigest()}
    text = json.dumps(env).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]
'''


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """One instance for all of them; several workers, as a websocket holds one."""
    d = tmp_path_factory.mktemp("uwsgi")
    p = uwsgi.instance(d, APP, "--processes", "3", "--buffer-size", "8192", plugins="python3 ping", at=str(d / "app.sock"))
    yield p
    p.stop()


@pytest.fixture
def site(warp, real):
    return warp(conf({"path_prefix": "/sub", "strip_prefix": True}, {}, app={"socket": real.at, "protocol": "uwsgi"}))


@promise
def test_real_environ(site):
    m = site.ask("/a%20b?q=1", "X-A: 1", "X-A: 2")
    env = m.json
    assert m.status == 200 and (env["PATH_INFO"], env["QUERY_STRING"], env["HTTP_X_A"], env["scheme"]) == ("/a b", "q=1", "1, 2", "http")
    env = site.ask("/sub/x").json
    assert (env["SCRIPT_NAME"], env["PATH_INFO"]) == ("/sub", "/x")


@promise
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_real_uploads(site, how):
    import hashlib
    body = os.urandom(1000000)
    with site.client() as c:
        if how == "length":
            c.send(request("/up", method="POST", body=body))
        else:
            c.send(request("/up", "Transfer-Encoding: chunked", method="POST") + chunks(*(body[i:i + 50000] for i in range(0, len(body), 50000))))
        assert c.response(timeout=2 * TIMEOUT).json["sha"] == hashlib.sha256(body).hexdigest()


@promise
def test_real_answers(site):
    with site.client() as c:
        big = c.ask("/big")
        assert big.status == 200 and len(big.body) == 64 * 65536 and big.framing == "chunked"
        assert c.ask("/boom").status == 502                # uWSGI closes without a byte
        m = c.ask("/404")
        assert m.status == 404 and m.all("Set-Cookie") == ["a=1", "b=2"] and m.body == b"nothing here"
        assert c.ask("/404", method="HEAD").status == 404
        assert c.ask("/").status == 200


def test_real_websocket(site):
    """A frame each way; RFC 6455 section 5."""
    with site.client() as c:
        c.send(request("/ws", *UPGRADE))
        assert c.response().status == 101
        mask, text = b"\1\2\3\4", b"hello"
        c.send(b"\x81" + bytes([0x80 | len(text)]) + mask + bytes(x ^ mask[i % 4] for i, x in enumerate(text)))
        head = c.exactly(2, TIMEOUT)
        assert head[0] in (0x81, 0x82)
        assert c.exactly(head[1], TIMEOUT) == b"echo hello"


def test_real_ping(warp, real):
    w = warp(conf(app={"socket": real.at, "protocol": "uwsgi"}) |
             {"upstreams": {"app": {"socket": real.at, "protocol": "uwsgi"}, "app.health": {"interval_secs": 0.05, "unhealthy_threshold": 1}},
              "admin": {"listen": ["@DIR@/admin"]}})
    with contextlib.suppress(AssertionError):
        w.wait_stderr("unhealthy|is down|went down", 0.5 * SLOW)
        pytest.fail("a ping that is answered is no failure:\n" + w.stderr)
    assert w.ask("/").status == 200


def test_real_too_large_for_its_buffer(site):
    """It closes without a byte: 502, and the log has the hint."""
    assert site.ask("/", "X-A: " + "a" * 9000).status == 502
    site.wait_stderr("buffer-size")


def test_real_supervised(warp, tmp_path):
    """The upstream's process is a uWSGI that warp starts, and starts again."""
    (tmp_path / "app.py").write_text(APP)
    words = ["--plugin", "python3", "--socket", "{socket}", "--wsgi-file", str(tmp_path / "app.py"), "--master", "--die-on-term", "--disable-logging"]
    w = warp(supervised.fleet({"command": uwsgi.need("uwsgi"), "args": words}, protocol="uwsgi", socket="@DIR@/app.sock", hold_secs=20))
    assert w.ask("/x", timeout=20 * SLOW).json["PATH_INFO"] == "/x"
    supervised.kill(supervised.proc(w)["pid"])
    assert w.ask("/y", timeout=20 * SLOW).json["PATH_INFO"] == "/y"
