"""Toward backends warp is liberal where that is safe: what small devices and CGI programs say is understood,
and goes on as strict HTTP. Requests stay strict."""
import threading
import time

import pytest

from lib import (CLOSE, ECHO, REQ, TIMEOUT, WAIT, chunks, conf, eventually, reply, request)

# ---- bare LF in heads ---------------------------------------------------------------

LF_HEADS = {
    "every line": b"HTTP/1.1 200 OK\nContent-Length: 2\nX-A: b\n\nok",
    "the status line": b"HTTP/1.1 200 OK\nContent-Length: 2\r\nX-A: b\r\n\r\nok",
    "a field": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\n\r\nok",
    "a field before another": b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\r\nok",
    "the last line": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\nok",
    "no reason": b"HTTP/1.1 200\nX-A: b\nContent-Length: 2\n\nok",
    "chunks": b"HTTP/1.1 200 OK\nX-A: b\nTransfer-Encoding: chunked\n\n" + chunks(b"o", b"k"),
    "until it closes": b"HTTP/1.0 200 OK\nX-A: b\n\nok",
    "dropped fields between": b"HTTP/1.1 200 OK\nX-A: b\nConnection: close, x-b\nX-B: c\nContent-Length: 2\n\nok",
    "a 100 before it": b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok",
    "a 103 before it": b"HTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok",
}


@pytest.mark.parametrize("drip", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("reason", LF_HEADS)
def test_bare_lf_in_a_response_head(warp, backend, reason, drip):
    """It ends a line as CRLF does, and becomes CRLF on its way (lib's reader takes nothing else)."""
    raw = LF_HEADS[reason]
    b = backend([REQ] + ([raw[i:i + 1] for i in range(len(raw))] if drip else [raw]) + [CLOSE], [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        m = c.ask()
        assert (m.status, m.text, m.get("X-A"), m.has("X-B")) == (200, "ok", "b", False), reason
        assert c.ask("/2").text == "app GET /2 0", "and the client's connection goes on"


def test_bare_lf_status_line_alone(warp, backend):
    """The whole head is one line and an empty one."""
    b = backend([REQ, b"HTTP/1.1 204 No Content\n\n", ECHO])
    with warp(conf(app=b)).client() as c:
        assert c.ask().status == 204
        assert c.ask("/2").text == "app GET /2 0" and len(b.conns) == 1, "its end was seen: the connection is kept"


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\rX-A: b\r\n\r\n", b"HTTP/1.1 200 OK\nX-A: a\rb\n\n", b"HTTP/1.1 200 OK\n folded: x\n\n",
    b"HTTP/1.1 200 OK\nX-A: a\n b\n\n", b"HTTP/1.1 200 OK\nX-A: a\n\tb\n\n", b"HTTP/1.1 200 OK\nX-A: a\0\n\n", b"HTTP/1.1 600 OK\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 1\n\nx", b"HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2\n\nx",
    b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 1\n\nx", b"\nHTTP/1.1 200 OK\n\n", b"HTTP/1.1 200 OK\n\r\r\n",
    b"HTTP/1.1 200 OK\r\nX-A\n\n"])
def test_what_is_no_head_stays_none(warp, backend, raw):
    b = backend([REQ, raw, CLOSE])
    assert warp(conf(app=b)).ask().status == 502


@pytest.mark.parametrize("raw", [b"GET /x HTTP/1.1\nHost: a\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\n\n",
    b"GET /x HTTP/1.1\nHost: a\n\n"])
def test_requests_stay_strict(warp, backend, raw):
    """A bare LF in a request is refused, whole or in pieces."""
    b = backend()
    w = warp(conf(app=b))
    for piece in (raw, None):
        with w.client() as c:
            for p in [piece] if piece else [raw[i:i + 1] for i in range(len(raw))]:
                try:
                    c.send(p)
                except OSError:
                    break
            assert c.response().status == 400
    assert not b.requests


# ---- chunks ---------------------------------------------------------------------------

SIZES = [b"5 ", b"5   ", b"5\t", b"5;a=b ", b"5 ;a=b", b'5;a="b" \t', b"005 "]


@pytest.mark.parametrize("size", SIZES)
def test_blanks_behind_a_chunk_size_of_a_response(warp, backend, size):
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0  \r\n\r\n"
    for pieces in ([raw], [raw[i:i + 1] for i in range(len(raw))]):
        b = backend([REQ, *pieces, ECHO])
        with warp(conf(app=b)).client() as c:
            assert c.ask().text == "hello"
            assert c.ask("/2").text == "app GET /2 0" and len(b.conns) == 1


@pytest.mark.parametrize("size", [b"5 ", b"5\t", b"5;a=b ", b"0 "])
def test_of_a_request_they_are_refused(warp, backend, size):
    b = backend()
    with warp(conf(app=b)).client() as c:
        c.send(request("/", "Transfer-Encoding: chunked", method="POST") + size + b"\r\nhello\r\n0\r\n\r\n")
        assert c.response().status == 400
    assert not b.requests


@pytest.mark.parametrize("size", [b" 5", b"5 5", b"5 \r", b"0x5", b"+5", b"5,", b"5 x", b""])
def test_what_is_no_size_stays_none(warp, backend, size):
    """Nothing of it counts as an answer's end."""
    b = backend([REQ, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"])
    assert warp(conf(app=b)).ask().status == 502


# ---- what belongs to an answer ---------------------------------------------------------

@pytest.mark.parametrize("fields, close", [(["Upgrade: TLS/1.2, HTTP/1.1", "Connection: Upgrade"], False),
                                           (["Upgrade: TLS/1.2, HTTP/1.1", "Connection: close, upgrade"], False),
                                           (["Upgrade: TLS/1.2", "Upgrade: HTTP/1.1", "Connection: Upgrade"], True)])
def test_426_says_to_what(warp, backend, fields, close):
    """RFC 9110 15.5.22: an Upgrade field is part of a 426, and Connection names it (7.8)."""
    b = backend([REQ, reply("no", *fields, status="426 Upgrade Required"), CLOSE])
    with warp(conf(app=b)).client() as c:
        m = c.ask("/", *(["Connection: close"] if close else []))
        assert m.status == 426 and m.tokens("Upgrade") == ["tls/1.2", "http/1.1"]
        assert "upgrade" in m.tokens("Connection") and ("close" in m.tokens("Connection")) == close
        assert c.closed() if close else c.is_open()


def test_others_do_not(warp, backend):
    """Apache's `Upgrade: h2c` in a 200 is about its own connection."""
    b = backend([REQ, reply("x", "Upgrade: h2,h2c", "Connection: Upgrade"), ECHO])
    m = warp(conf(app=b)).ask()
    assert m.status == 200 and not m.has("Upgrade") and "upgrade" not in m.tokens("Connection")


@pytest.mark.parametrize("framing", ["Content-Length: 4", "Transfer-Encoding: chunked"])
def test_head_keeps_its_connection(warp, backend, framing):
    """An answer to HEAD ends with its head, whatever that says of a body: the connection serves again, if not at once.
    (gunicorn sends Django's body all the same, a moment later: test_upstreams and test_real ask that it answers nobody.)"""
    b = backend([REQ, b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % framing.encode(), ECHO], [ECHO])
    with warp(conf(app=b)).client() as c:
        assert c.ask(method="HEAD").status == 200
        time.sleep(0.1)                                            # HEAD_REST_MS and more
        assert c.ask("/2").text == "app GET /2 0" and len(b.conns[0].requests) > 1, "another request on it"
    assert not b.conns[0].closed.is_set() and len(b.conns) == 1


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("body", [b"oops", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
def test_a_body_to_head_is_nobodys_answer(warp, backend, late, body):
    """What a bad backend sends behind an answer without content costs it the connection, and nobody else anything."""
    go, sent = threading.Event(), threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    b = backend([REQ] + ([head, WAIT(go), body] if late else [head + body]) + [lambda c: sent.set(), ECHO], [ECHO])
    with warp(conf(app=b)).client() as c:
        assert c.ask(method="HEAD").status == 200
        go.set()
        assert sent.wait(TIMEOUT)
        assert c.ask("/2").text == "app GET /2 0"
    assert len(b.conns) == 2 and b.conns[0].closed.wait(TIMEOUT)


# ---- what warp itself makes --------------------------------------------------------------

GONE = {"remove_response_headers": ["Retry-After", "location", "WWW-Authenticate", "Via"]}


def own(value):
    return {"add_response_headers": [{"name": n, "value": value} for n in ("Retry-After", "Location", "WWW-Authenticate", "Via")]}


# reason: keys of the route, the field, its status
MADE = {
    "redirect": ({"redirect": "https://{host}{uri}"}, "Location", 308),
    "rate limit": ({"rate_limit": {"requests": 1, "per_secs": 600, "burst": 1}, "respond": {"status": 200}}, "Retry-After", 429),
    "token": ({"require_auth": True, "respond": {"status": 200}}, "WWW-Authenticate", 401),
    "password": ({"basic_auth": {"ann": "x"}, "respond": {"status": 200}}, "WWW-Authenticate", 401),
    "maintenance": ({"upstream": "down"}, "Retry-After", 503),
    "no instance": ({"upstream": "gone"}, "Retry-After", 503),
    "via": ({"upstream": "app"}, "Via", 200),
}


@pytest.mark.parametrize("reason", MADE)
@pytest.mark.parametrize("edit, want", [(GONE, []), (own("mine"), ["mine"])], ids=["remove", "add"])
def test_headers_of_warp_obey_the_route(warp, backend, tmp_path, reason, edit, want):
    """Retry-After, Location, WWW-Authenticate and Via are removed or replaced as any other."""
    keys, name, status = MADE[reason]
    (tmp_path / "notice.txt").write_text("back soon")
    b = backend()
    gone = {"socket": str(tmp_path / "none.sock"), "health": {"interval_secs": 0.05, "unhealthy_threshold": 1}}
    w = warp(conf(dict(keys, **edit), app=b, down={"on": b, "maintenance": str(tmp_path / "notice.txt")}, gone=gone,
                  middleware={"via": True}))
    m = eventually(lambda: (m := w.ask("/x")).status == status and m, "a %d" % status)
    assert m.all(name) == want


def test_via_of_a_request_obeys_too(warp, backend):
    b = backend()
    w = warp(conf({"remove_headers": ["via"]}, app=b, middleware={"via": True}))
    w.ask("/", "Via: 1.1 x")
    assert not b.last.has("Via")
