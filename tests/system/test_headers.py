"""What travels in heads: added, believed, removed, kept."""
import re

import pytest

from lib import CLOSE, ECHO, REQ, Client, Message, conf, free_port, reply

TRUST = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
OFF = None          # the field must not be there


def heads(m: Message, *names):
    return {n: m.get(n) for n in names}


# reason: [server], [middleware], fields the client sends, fields the backend must get
FORWARDING = {
    "added": ({}, {}, [], {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "a.example",
        "X-Real-IP": "127.0.0.1"}),
    "a stranger's are replaced": ({}, {}, ["X-Forwarded-For: 1.2.3.4", "x-forwarded-for: 5.6.7.8", "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil", "X-Real-IP: 1.1.1.1"], { "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "a.example", "X-Real-IP": "127.0.0.1"}),
    "a stranger's Forwarded is not passed on": ({}, {}, ["Forwarded: for=1.2.3.4"], {"Forwarded": OFF}),
    "a trusted proxy's are believed": (TRUST, {}, ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https",
        "X-Forwarded-Host: www.example", "X-Forwarded-Port: 443"], { "X-Forwarded-For": "1.2.3.4, 127.0.0.1",
        "X-Forwarded-Proto": "https", "X-Forwarded-Host": "www.example", "X-Real-IP": "1.2.3.4", "X-Forwarded-Port": "443"}),
    "the client is the last untrusted of the chain": (TRUST, {}, ["X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.9.8.7"],
        { "X-Real-IP": "1.2.3.4", "X-Forwarded-For": "6.6.6.6, 1.2.3.4, 10.9.8.7, 127.0.0.1"}),
    "a chain of several lines": (TRUST, {}, ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.2.3.4"], { "X-Real-IP": "1.2.3.4",
        "X-Forwarded-For": "6.6.6.6, 1.2.3.4, 127.0.0.1"}),
    "v6 in the chain": (TRUST, {}, ["X-Forwarded-For: 2001:db8::1"], {"X-Real-IP": "2001:db8::1",
        "X-Forwarded-For": "2001:db8::1, 127.0.0.1"}),
    "rubbish in the chain is nobody's address": (TRUST, {}, ["X-Forwarded-For: not an address"], {"X-Real-IP": "127.0.0.1"}),
    "trusted means the peer's address": ({"trusted_proxies": ["10.0.0.0/8"]}, {}, ["X-Forwarded-For: 10.0.0.1"],
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}),
    "forward_headers = false adds none": ({}, {"forward_headers": False}, [], {"X-Forwarded-For": OFF, "X-Forwarded-Proto": OFF,
        "X-Forwarded-Host": OFF, "X-Forwarded-Port": OFF, "X-Real-IP": OFF}),
    "via appended": ({}, {"via": True}, ["Via: 1.0 fred, 1.1 p.example"], {"Via": r"re:1\.0 fred, 1\.1 p\.example, 1\.1 \S+"}),
    "via of an HTTP/1.1 client": ({}, {"via": True}, [], {"Via": r"re:1\.1 \S+"}),
    "a request id is made": ({}, {}, [], {"X-Request-Id": r"re:[0-9a-zA-Z-]{8,64}"}),
    "a stranger's request id is replaced": ({}, {}, ["X-Request-Id: forged"],
        {"X-Request-Id": r"re:(?!forged)[0-9a-zA-Z-]{8,64}"}),
    "a trusted request id is kept": (TRUST, {}, ["X-Request-Id: abc-123"], {"X-Request-Id": "abc-123"}),
    "request_id = false": ({"request_id": False}, {}, [], {"X-Request-Id": OFF}),
}


@pytest.mark.parametrize("reason", FORWARDING)
@pytest.mark.promise("S2-81")
def test_forwarding(warp, backend, reason):
    server, middleware, sent, want = FORWARDING[reason]
    b = backend()
    w = warp(conf(app=b, server=server, middleware=middleware))
    assert w.ask("/", *sent).status == 200
    for name, value in want.items():
        got = ", ".join(b.last.all(name)) if b.last.has(name) else OFF
        if value is not OFF and value.startswith("re:"):
            assert got and re.fullmatch(value[3:], got), "%s: %s: %r" % (reason, name, got)
        else:
            assert got == value, "%s: %s: %r" % (reason, name, got)


def test_forwarded_port_is_the_listeners(warp, backend):
    b = backend()
    w = warp(conf(app=b))
    w.ask("/", host="a.example:%d" % w.port)
    assert b.last.get("X-Forwarded-Port") == str(w.port)
    assert b.last.get("X-Forwarded-Host") == "a.example:%d" % w.port, "X-Forwarded-Host is what the client asked for"


def parameters(value):
    """Of the last element of a Forwarded field, names in lower case."""
    last = re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', value)[-1]
    return {k.strip().lower(): v.strip().strip('"') for k, v in (p.split("=", 1) for p in last.split(";"))}


def test_forwarded(warp, backend):
    """RFC 7239: own element for the peer, v6 in brackets and quotes, a stranger's replaced, a trusted one's kept in front."""
    b = backend()
    v6 = free_port()
    c = conf(app=b, middleware={"forwarded": True}, server={"listen": ["127.0.0.1:@PORT@", "[::1]:%d" % v6],
        "trusted_proxies": ["::1"]})
    w = warp(c)
    w.ask("/", "Forwarded: for=1.2.3.4;proto=https")
    got = parameters(b.last.get("Forwarded"))
    assert (got["for"], got["proto"], got["host"]) == ("127.0.0.1", "http", "a.example")
    assert "1.2.3.4" not in b.last.get("Forwarded")
    with Client(("::1", v6)) as c6:
        c6.ask("/", "Forwarded: for=1.2.3.4;proto=https")
    assert "for=1.2.3.4" in ", ".join(b.last.all("Forwarded")), "kept"
    assert parameters(", ".join(b.last.all("Forwarded")))["for"] == "[::1]"
    assert re.search(r'for="\[::1\]"', ", ".join(b.last.all("Forwarded"))), "brackets need quotes"


def test_request_ids_differ(warp, backend):
    b = backend()
    w = warp(conf(app=b, server={"worker_threads": 2}))
    for _ in range(50):
        w.ask()
    assert len({m.get("X-Request-Id") for m in b.requests}) == 50


def test_trusted_chain_decides_the_client_condition(warp):
    w = warp(conf({"client": ["1.2.3.0/24"], "respond": {"status": 200, "body": "in"}}, {"respond": {"status": 403}},
        server=TRUST))
    assert w.ask("/", "X-Forwarded-For: 1.2.3.4").status == 200
    assert w.ask("/", "X-Forwarded-For: 1.2.3.4, 9.9.9.9").status == 403, "the last untrusted one is the client"
    assert w.ask("/").status == 403


# reason: keys of the route, request fields, fields at the backend, response fields of the backend, at the client
CHANGES = {
    "add_headers adds": ({"add_headers": [{"name": "X-A", "value": "1"}, {"name": "X-B", "value": "two words"}]}, [],
        {"X-A": ["1"], "X-B": ["two words"]}, [], {}),
    "add_headers replaces": ({"add_headers": [{"name": "x-a", "value": "1"}]}, ["X-A: forged", "X-a: again"], {"X-A": ["1"]},
        [], {}),
    "add_headers wins over what warp adds": ({"add_headers": [{"name": "X-Real-IP", "value": "9.9.9.9"}]}, [],
        {"X-Real-IP": ["9.9.9.9"]}, [], {}),
    "remove_headers": ({"remove_headers": ["Cookie", "X-Gone"]}, ["cookie: a=b", "X-Gone: 1", "X-Gone: 2", "X-Kept: 1"],
        {"Cookie": [], "X-Gone": [], "X-Kept": ["1"]}, [], {}),
    "nobody strips them by Connection": ({"add_headers": [{"name": "X-A", "value": "1"}]}, ["Connection: X-A"], {"X-A": ["1"]},
        [], {}),
    "add_response_headers adds and replaces": ({"add_response_headers": [{"name": "X-Frame-Options", "value": "DENY"},
        {"name": "Server", "value": "none"}]}, [], {}, ["Server: secret/1.0", "X-Other: 1"], {"X-Frame-Options": ["DENY"],
        "Server": ["none"], "X-Other": ["1"]}),
    "a cookie of the route's replaces no other": ({"add_response_headers": [{"name": "set-cookie", "value": "c=3"}]}, [], {},
        ["Set-Cookie: a=1", "Set-Cookie: b=2"], {"Set-Cookie": ["a=1", "b=2", "c=3"]}),
    "unless those are removed": ({"add_response_headers": [{"name": "Set-Cookie", "value": "c=3"}],
        "remove_response_headers": ["Set-Cookie"]}, [], {}, ["Set-Cookie: a=1"], {"Set-Cookie": ["c=3"]}),
    "remove_response_headers": ({"remove_response_headers": ["X-Powered-By", "server"]}, [], {},
        ["X-Powered-By: x", "Server: y", "x-powered-by: z", "ETag: w"], {"X-Powered-By": [], "Server": [], "ETag": ["w"]}),
    "all at once": ({"add_headers": [{"name": "A", "value": "1"}], "remove_headers": ["B"],
        "add_response_headers": [{"name": "C", "value": "1"}], "remove_response_headers": ["D"]}, ["A: 0", "B: 0"],
        {"A": ["1"], "B": []}, ["C: 0", "D: 0"], {"C": ["1"], "D": []}),
    "others pass in order, lines apart": ({}, ["X-L: 1", "X-L: 2", "Accept: a/b;q=0.5, */*"],
        {"X-L": ["1", "2"], "Accept": ["a/b;q=0.5, */*"]}, ["Set-Cookie: a=1", "Set-Cookie: b=2, c", "Server: own/2"],
        {"Set-Cookie": ["a=1", "b=2, c"], "Server": ["own/2"]}),
}


@pytest.mark.parametrize("reason", CHANGES)
@pytest.mark.promise("S2-71")
def test_changes(warp, backend, reason):
    keys, sent, at_backend, answered, at_client = CHANGES[reason]
    b = backend([REQ, reply("x", *answered), ECHO])
    w = warp(conf(keys, app=b))
    m = w.ask("/", *sent)
    assert {n: b.last.all(n) for n in at_backend} == at_backend, reason
    assert {n: m.all(n) for n in at_client} == at_client, reason
    assert m.text == "x"


@pytest.mark.parametrize("value, want", [(None, "a.example:81"), ("preserve", "a.example:81"), ("upstream", "127.0.0.1:{port}"),
    ("fixed.example", "fixed.example")])
def test_host_header(warp, backend, value, want):
    b = backend()
    w = warp(conf(app={"on": b, **({"host_header": value} if value else {})}))
    w.ask("/", host="a.example:81")
    assert b.last.all("Host") == [want.format(port=b.port)]
    assert b.last.get("X-Forwarded-Host") == "a.example:81", "the client's is not lost"


def test_host_header_of_unix_and_absolute_target(warp, backend):
    b = backend(unix=True)
    w = warp(conf(app={"on": b, "host_header": "upstream"}))
    assert w.ask().status == 200
    assert len(b.last.all("Host")) == 1, "some Host even where an address has none"
    b2 = backend()
    w2 = warp(conf(app=b2))
    w2.ask("http://real.example/x", host="other.example")
    assert b2.last.all("Host") == ["real.example"], "the target's authority wins, RFC 9112 3.2.2"


# reason: request fields, and what must hold of the head the backend gets
HOP_BY_HOP = {
    "Connection and what it lists": (["Connection: X-Private, keep-alive", "X-Private: 1", "X-Public: 2"],
        {"X-Private": [], "X-Public": ["2"]}),
    "several Connection lines": (["Connection: a", "Connection: B", "A: 1", "b: 1", "c: 1"], {"A": [], "B": [], "C": ["1"]}),
    "the well-known ones": (["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Upgrade: websocket"],
        {"Keep-Alive": [], "Proxy-Connection": [], "Upgrade": []}),
    "h2c is not passed through": (["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        {"Upgrade": [], "HTTP2-Settings": []}),
}
PROTECTED = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Real-IP",
    "X-Request-Id",
    "Forwarded",
    "Via",
    "Host",
]


@pytest.mark.parametrize("reason", HOP_BY_HOP)
def test_hop_by_hop(warp, backend, reason):
    sent, want = HOP_BY_HOP[reason]
    b = backend()
    w = warp(conf(app=b))
    assert w.ask("/", *sent).status == 200
    assert {n: b.last.all(n) for n in want} == want, reason
    assert not set(b.last.tokens("connection")) - {"keep-alive", "close"}


@pytest.mark.parametrize("name", PROTECTED)
def test_connection_cannot_strip(warp, backend, name):
    b = backend()
    w = warp(conf(app=b, middleware={"forwarded": True, "via": True}))
    assert w.ask("/", "Connection: close, %s" % name).status == 200
    assert b.last.has(name)


def test_connection_cannot_strip_framing(warp, backend):
    b = backend()
    w = warp(conf(app=b))
    with w.client() as c:
        assert c.ask("/", "Connection: Content-Length", method="POST", body=b"12345").text == "app POST / 5"
        assert c.ask("/2").text == "app GET /2 0"
    w.ask("/", "Connection: Cookie, Authorization", "Cookie: a", "Authorization: b")


def test_response_hop_by_hop(warp, backend):
    b = backend([REQ, reply("x", "Connection: X-Private", "X-Private: 1", "Keep-Alive: timeout=77", "Proxy-Connection: close",
        "Upgrade: h2c", "X-Public: 1"), ECHO])
    m = warp(conf(app=b)).ask()
    assert (m.all("X-Private"), m.all("Proxy-Connection"), m.all("Upgrade"), m.all("X-Public")) == ([], [], [], ["1"])
    assert "77" not in m.get("Keep-Alive", "")


def test_upstreams_connection_is_not_the_clients(warp, backend):
    b = backend([REQ, reply("x", "Connection: close"), CLOSE], [ECHO])
    w = warp(conf(app=b))
    with w.client() as c:
        m = c.ask()
        assert "close" not in m.tokens("connection")
        assert c.ask("/2").status == 200
        m = c.ask("/3", "Connection: close")
        assert "close" in m.tokens("connection") and c.closed() == "eof"
    assert all("close" not in r.tokens("connection") for r in b.requests)


@pytest.mark.parametrize("tokens", [True, False])
def test_server_tokens(warp, run, tokens):
    """warp's own answers tell its version only where server_tokens allows it; an upstream's Server is its own."""
    version = re.search(r"\d+\.\d+\S*", run("-V").stdout + run("-V").stderr)[0]
    w = warp(conf({"path_exact": "/own", "respond": {"status": 200}}, server={"server_tokens": tokens}))
    seen = w.ask("/own").get("Server", "") + w.ask("/none").get("Server", "") + w.ask("/none").text
    assert tokens or version not in seen
