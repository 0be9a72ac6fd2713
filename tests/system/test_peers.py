"""What other servers' own suites and real clients found: upgrades with content, PROXY headers of both families,
answers that break at once, alerts that say what is wrong, redirects and fields that look like variables."""
import re
import socket
import ssl
import struct
import threading
import time

import pytest

import tls
from lib import (CLOSE, ECHO, HEAD, REQ, TIMEOUT, WAIT, Client, chunks, conf, eventually, free_port, reply, request, toml_file)

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")

# ---- an upgrade with a length or a body; RFC 9110 7.8 ------------------------------------


def tunnel(c):
    """Switches, then sends back what comes, in capitals."""
    c.send(SWITCH)
    while True:
        data, c.buf = c.buf, b""
        if data:
            c.send(data.upper())
        if not c.fill():
            return


# reason: method, framing fields and the body as the client sends it, the content
BODIES = {
    "Content-Length: 0": ("GET", ["Content-Length: 0"], b"", b""),
    "a POST of nothing": ("POST", ["Content-Length: 0"], b"", b""),
    "JSON": ("POST", ["Content-Type: application/json", "Content-Length: 11"], b'{"Tty":true}'[:11], b'{"Tty":true}'[:11]),
    "chunks": ("POST", ["Transfer-Encoding: chunked"], chunks(b"he", b"llo"), b"hello"),
    "no chunks": ("POST", ["Transfer-Encoding: chunked"], chunks(), b""),
    "much": ("POST", ["Content-Length: 300000"], b"x" * 300000, b"x" * 300000),
}


@pytest.mark.parametrize("kept", [False, True], ids=["", "buffer_request"])
@pytest.mark.parametrize("reason", BODIES)
def test_upgrade_with_content(warp, backend, reason, kept):
    """Java's WebSocket says Content-Length: 0, `docker exec` and `kubectl exec` send JSON: first the content, then the tunnel."""
    method, fields, raw, body = BODIES[reason]
    b = backend([REQ, tunnel], [ECHO])
    w = warp(conf({"buffer_request": 1000} if kept else {}, app=b))
    with w.client() as c:
        c.send(request("/exec", *UPGRADE, *fields, method=method) + raw)
        m = c.response()
        assert m.status == 101 and m.get("Upgrade") == "tcp" and "upgrade" in m.tokens("Connection")
        assert b.last.body == body and b.last.get("Upgrade") == "tcp" and "upgrade" in b.last.tokens("Connection")
        assert c.send(b"ls").exactly(2, TIMEOUT) == b"LS"
        assert c.send(b"-la\0").exactly(4, TIMEOUT) == b"-LA\0"
    assert b.conns[0].closed.wait(TIMEOUT)


@pytest.mark.parametrize("early", [False, True], ids=["after the content", "before it"])
def test_upgrade_answered_before_the_content_is_whole(warp, backend, early):
    """The tunnel begins behind the content, whenever the backend says yes; nothing is lost or turned round."""
    got = threading.Event()
    b = backend([HEAD, *([SWITCH] if early else []), lambda c: (c.exactly(10), got.set()) and None, *([] if early else [SWITCH]),
                 lambda c: c.send(c.exactly(4).upper())])
    with warp(conf(app=b)).client() as c:
        c.send(request("/", *UPGRADE, "Content-Length: 10", method="POST") + b"01234")
        if early:
            eventually(lambda: b.conn().requests, "the head")
        c.send(b"56789")
        assert c.response().status == 101 and got.wait(TIMEOUT)
        assert c.send(b"data").exactly(4, TIMEOUT) == b"DATA"


def test_upgrade_with_content_refused(warp, backend):
    """What stands behind the content is a request, and no tunnel's data; the connection stays."""
    b = backend([REQ, reply("no", status="403 Forbidden"), ECHO])
    with warp(conf(app=b)).client() as c:
        c.send(request("/", *UPGRADE, "Content-Length: 2", method="POST") + b"{}" + request("/next", "X-Forwarded-For: 1.2.3.4"))
        assert c.response().status == 403
        assert c.response().text == "app GET /next 0"
    assert b.last.get("X-Forwarded-For") == "127.0.0.1"


def test_upgrade_with_a_length_where_none_may_be(warp, backend):
    """websocket = false refuses it whatever its length."""
    w = warp(conf({"websocket": False}, app=backend()))
    for fields in ([], ["Content-Length: 0"]):
        assert w.ask("/", *UPGRADE, *fields).status == 426


# ---- the PROXY protocol -------------------------------------------------------------------

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def proxy(c):
    """A step: notes the PROXY header in c.proxy, as (kind, source, destination, their ports)."""
    while len(c.buf) < 16:
        c.fill()
    if not c.buf.startswith(V2):
        word, kind, *rest = c.until(b"\r\n").decode().split()
        c.proxy = (kind, *rest)
        return
    head = c.exactly(16)
    payload = c.exactly(struct.unpack("!H", head[14:])[0])
    family, n = (socket.AF_INET, 4) if head[13] == 0x11 else (socket.AF_INET6, 16)
    ips = [socket.inet_ntop(family, payload[i * n:i * n + n]) for i in (0, 1)]
    c.proxy = ({0x11: "TCP4", 0x21: "TCP6"}[head[13]], *ips, *map(str, struct.unpack("!HH", payload[2 * n:2 * n + 4])))


def test_a_v6_client_behind_v4_is_told(warp, backend):
    """Two families in one header are both written as IPv6."""
    b = backend([proxy, ECHO])
    w = warp(conf(app={"on": b, "proxy_protocol": "v1"}, server={"trusted_proxies": ["127.0.0.1"]}))
    w.ask("/", "X-Forwarded-For: 2001:db8::1")
    kind, source, to, _, port = b.conn().proxy
    assert (kind, source, port) == ("TCP6", "2001:db8::1", str(w.port))
    assert socket.inet_pton(socket.AF_INET6, to) == socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")


def test_a_v4_client_behind_v6_is_told(warp, backend):
    v6, b = free_port(), backend([proxy, ECHO])
    warp(conf(app={"on": b, "proxy_protocol": "v1"}, server={"listen": ["[::1]:%d" % v6], "trusted_proxies": ["::1"]}))
    with Client(("::1", v6)) as c:
        c.ask("/", "X-Forwarded-For: 1.2.3.4")
    assert b.conn().proxy[:3] in (("TCP6", "::ffff:1.2.3.4", "::1"), ("TCP6", "::ffff:102:304", "::1"))


CAME = {
    "TCP4": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\n", ("TCP4", "1.2.3.4", "5.6.7.8", "1111", "443")),
    "TCP6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 8443\r\n", ("TCP6", "2001:db8::1", "2001:db8::2", "1111", "8443")),
    "v2": (V2 + b"\x21\x11\0\x0c" + bytes([1, 2, 3, 4, 5, 6, 7, 8]) + struct.pack("!HH", 1111, 443),
           ("TCP4", "1.2.3.4", "5.6.7.8", "1111", "443")),
}


@pytest.mark.parametrize("out", ["v1", "v2", ""])
@pytest.mark.parametrize("kind", CAME)
def test_where_the_client_went_is_kept(warp, backend, kind, out):
    """The destination of an incoming PROXY header is what the client asked: relayed, and X-Forwarded-Port."""
    head, want = CAME[kind]
    b = backend([proxy, ECHO] if out else [ECHO])
    w = warp(conf(app={"on": b, "proxy_protocol": out} if out else b, server={"proxy_protocol": True}))
    with w.client() as c:
        c.send(head + request("/1"))
        assert c.response().status == 200 and c.ask("/2").status == 200
    assert [m.get("X-Forwarded-Port") for m in b.requests] == [want[-1]] * 2
    assert not out or {k.proxy for k in b.conns} == {want}


@pytest.mark.parametrize("head", [b"PROXY UNKNOWN\r\n", V2 + b"\x20\0\0\0"])
def test_nobody_went_nowhere(warp, backend, head):
    b = backend([proxy, ECHO])
    w = warp(conf(app={"on": b, "proxy_protocol": "v1"}, server={"proxy_protocol": True}))
    with w.client() as c:
        c.send(head + request("/1"))
        assert c.response().status == 200
        assert b.conn().proxy == ("TCP4", "127.0.0.1", "127.0.0.1", str(c.sock.getsockname()[1]), str(w.port))
    assert b.last.get("X-Forwarded-Port") == str(w.port)


# ---- an answer that breaks before the client has any of it ----------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r\nzz\r\n", b"f" * 20 + b"\r\n", b"0\r\nbad trailer\r\n\r\n",
                                   b"-1\r\n", b"\r\n"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_head_and_broken_chunk_at_once(warp, backend, chunk, method):
    """Nothing had reached the client: it gets an error that is whole, and keeps its connection."""
    b = backend([REQ, CHUNKED + chunk], [ECHO])
    with warp(conf(app=b)).client() as c:
        m = c.ask(method=method, **({"body": b"x"} if method == "POST" else {}))
        assert m.status == 502 and "Transfer-Encoding" not in dict(m.fields)
        assert c.ask("/2").text == "app GET /2 0"
    assert b.conns[0].closed.wait(TIMEOUT) and len(b.requests) == 2, "a broken answer is no reason to ask twice"


def test_a_broken_chunk_later_cuts_it(warp, backend):
    """Once the head went, the answer has no proper end."""
    go = threading.Event()
    b = backend([REQ, CHUNKED, WAIT(go), b"zz\r\n"])
    with warp(conf(app=b)).client() as c:
        c.send(request("/"))
        assert c.head(TIMEOUT).status == 200
        go.set()
        assert c.closed()


def test_it_is_blamed_and_counted_as_an_error(warp, backend):
    b = backend([REQ, CHUNKED + b"zz\r\n"])
    w = warp(conf(app=b, admin={"listen": ["@DIR@/a.sock"]}))
    assert w.ask().status == 502
    w.wait_stderr(r"malformed (body|chunk)")
    with Client(w.path("a.sock")) as a:
        text = a.ask("/metrics").text
    assert not re.search(r'code="2xx"[^}]*\} [1-9]', text), "no 2xx was given or taken"


# ---- alerts that say what is wrong ---------------------------------------------------------

def alert_of(w, ctx, name="a.example"):
    """The alert that a ClientHello gets; None: it got on."""
    with socket.create_connection(("127.0.0.1", w.https), TIMEOUT) as s:
        s.sendall(tls.hello(ctx, name))
        kind, body = tls.records(s)[0] if ctx else (0, b"")
    return tls.ALERTS.get(body[1], body[1]) if kind == 21 else None


@pytest.mark.parametrize("offer", [["h2"], ["h2", "spdy/1"], ["http/1.0"], ["acme-tls/1"]])
def test_an_alpn_without_http11(https, pki, backend, offer):
    """RFC 7301 3.2: who speaks nothing that warp speaks is told no_application_protocol."""
    w = https(pki.cert("a.example"), conf=conf(app=backend()))
    assert alert_of(w, tls.context(alpn=offer)) == 120
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        w.tls(alpn=offer)
    for good in (["h2", "http/1.1"], None):
        with w.tls(alpn=good) as c:
            assert c.ask().status == 200


def test_a_name_that_is_not_served(https, pki, backend):
    """RFC 6066 3: strict_sni answers unrecognized_name, as a fatal alert."""
    w = https(pki.cert("a.example"), conf=conf(app=backend()), tls={"strict_sni": True})
    assert alert_of(w, tls.context(), "nobody.example") == "unrecognized_name"
    with w.tls() as c:
        assert c.ask().status == 200
    with pytest.raises(ssl.SSLError, match="(?i)handshake.failure"):
        w.tls(ciphers="ECDHE-RSA-AES128-GCM-SHA256")     # a served name, yet no suite in common


# ---- requests ---------------------------------------------------------------------------------

def test_absolute_form_with_an_empty_host(warp, backend):
    """RFC 9112 3.2.2: the target's authority counts, whatever Host says."""
    b = backend()
    w = warp(conf({"host": "a.example"}, {"respond": {"status": 404}}, app=b))
    assert w.ask("http://a.example/x", "Host:", host=None).status == 200
    assert b.last.all("Host") == ["a.example"]


@pytest.mark.parametrize("value", ["identity", "Identity", "identity, chunked", "chunked, identity", "gzip, identity"])
def test_identity_is_not_implemented(warp, backend, value):
    """RFC 9112 6.1: a coding that is not understood is 501, and what follows is no request."""
    b = backend()
    with warp(conf(app=b)).client() as c:
        c.send(request("/", "Transfer-Encoding: " + value, method="POST") + b"0\r\n\r\n" + request("/evil"))
        assert c.response().status == 501
        assert c.closed()
    assert not b.requests


@pytest.mark.parametrize("fields", [["Transfer-Encoding: identity", "Content-Length: 5"], ["Transfer-Encoding: xchunked", "Content-Length: 5"],
                                    ["Transfer-Encoding: chunked, chunked"]])
def test_two_framings_stay_bad_requests(warp, backend, fields):
    with warp(conf(app=backend())).client() as c:
        c.send(request("/", *fields, method="POST") + b"hello")
        assert c.response().status == 400


def cpu_ns(pid):
    """What the process has used; its CPU clock as clock_getcpuclockid(3) makes it."""
    return time.clock_gettime_ns(~pid << 3 | 2)


@pytest.mark.parametrize("name", ["X-A", "Vary"], ids=["dropped", "kept"])
def test_connection_options_cost_little(warp, backend, name):
    """64 of them that all name 240 fields cost about what one does that names none."""
    w = warp(conf(app=backend()))
    pid, cost = w.children()[0], []
    with w.client() as c:
        for options in ("X-B", ", ".join([name] * 64)):
            raw = request("/", "Connection: " + options, *[name + ": b"] * 240)
            c.send(raw).response()
            start = cpu_ns(pid)
            for _ in range(100):
                assert c.send(raw).response().status == 200
            cost.append(cpu_ns(pid) - start)
    assert cost[1] < 4 * cost[0], "%d ns instead of %d" % tuple(x // 100 for x in reversed(cost))


# ---- answers ------------------------------------------------------------------------------------

def test_a_sticky_cookie_over_tls_is_secure(https, pki, backend):
    b = backend()
    w = https(pki.cert("a.example"), conf=conf(app={"on": [b, backend()], "strategy": "cookie"}), tls={"redirect": False})
    parts = lambda m: [p.strip().lower() for p in m.get("Set-Cookie").split(";")]
    with w.tls() as c:
        assert "secure" in parts(c.ask())
    assert "secure" not in parts(w.ask()), "a browser would not keep it"


LITERAL = {
    "a group in a redirect": (dict(path_regex="^/(.*)$", redirect="https://new.example/$2"), r"\$2"),
    "a variable in a field": (dict(respond={"status": 200}, add_response_headers=[{"name": "X-H", "value": "of ${host}"}]), r"\$\{host\}"),
    "in one for the upstream": (dict(upstream="app", add_headers=[{"name": "X-H", "value": "$remote_addr"}]), r"\$remote_addr"),
    "in a rewrite": (dict(path_prefix="/a", upstream="app", rewrite="/{hosts}"), r"\{hosts\}"),
    "in a body": (dict(respond={"status": 200, "body": "you are {clients}"}), r"\{clients\}"),
}


@pytest.mark.parametrize("reason", LITERAL)
def test_what_goes_out_literally_is_warned_of(check, backend, reason):
    keys, what = LITERAL[reason]
    p = check(toml_file(conf(keys, app=backend())))
    assert p.returncode == 0
    assert re.search(r"(?im)warning: .*" + what, p.stdout + p.stderr), p.stdout + p.stderr


@pytest.mark.parametrize("keys", [dict(redirect="https://{host}{uri}"), dict(redirect="https://new.example/$"),
    dict(path_regex="^/(.*)$", upstream="app", rewrite="/$1"), dict(upstream="app", add_headers=[{"name": "X-H", "value": '{"a": "$5.00"}'}])])
def test_what_means_nothing_is_not(check, backend, keys):
    p = check(toml_file(conf(keys, app=backend())))
    assert p.returncode == 0 and not re.search(r"(?i)warning: .*(literal|\{host\}|\$\d|variable)", p.stdout + p.stderr), p.stdout + p.stderr
