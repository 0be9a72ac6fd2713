"""What HTTP makes of TLS: what backends are told, HSTS, the redirect to https, hosts that a connection
was not made for, certificates in status, dashboard and metrics, and `warp -e`."""
import re
import ssl
import time

import pytest

from lib import REQ, conf, free_port, reply, request
from lib import Client as Plain

HSTS = "strict-transport-security"
OK = {"routes": [{"path_prefix": "/", "respond": {"status": 200, "body": "ok"}}]}


@pytest.fixture
def cert(pki):
    return pki.cert("a.example", "*.a.example")


# ---- what backends are told -------------------------------------------------

@pytest.mark.parametrize("over", ["https", "http"])
def test_forwarded(https, backend, cert, over):
    b = backend()
    w = https(cert, conf=conf(app=b, middleware={"forwarded": True}), tls={"redirect": False})
    port = w.https if over == "https" else w.port
    with (w.tls() if over == "https" else w.client()) as c:
        assert c.ask("/x", "X-Forwarded-Proto: ftp", "X-Forwarded-Port: 7", "Forwarded: proto=ftp").status == 200
    assert b.last.all("x-forwarded-proto") == [over]
    assert b.last.all("x-forwarded-port") == [str(port)]
    assert b.last.all("forwarded") == ["for=127.0.0.1;host=a.example;proto=" + over]


def test_a_trusted_proxy_is_believed(https, backend, cert):
    """It has the client's own connection: what that was wins."""
    b = backend()
    w = https(cert, conf=conf(app=b, server={"trusted_proxies": ["127.0.0.1"]}), tls={"redirect": False})
    with w.tls() as c:
        assert c.ask("/", "X-Forwarded-Proto: http", "X-Forwarded-Port: 80").status == 200
        assert b.last.all("x-forwarded-proto") == ["http"] and b.last.all("x-forwarded-port") == ["80"]
        assert c.ask("/").status == 200 and b.last.all("x-forwarded-proto") == ["https"]


SPELLINGS = ["X-Client-Cert-Subject", "x-client-cert-subject", "X_Client_Cert_Subject", "X-Client_Cert-Subject"]


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_no_client_says_who_it_is(https, backend, cert, trusted):
    """Not by any spelling that some server folds, over TLS or not, from a trusted proxy or not."""
    b = backend()
    w = https(cert, conf=conf(app=b, server={"trusted_proxies": trusted}), tls={"redirect": False})
    for c in (w.tls(), w.client()):
        with c:
            assert c.ask("/", *[s + ": CN=admin" for s in SPELLINGS], "Connection: x-client-cert-subject").status == 200
        assert not [n for n, _ in b.last.fields if "subject" in n.lower()], b.last.fields


def test_subject_and_a_route_that_says_it_itself(https, backend, pki, cert):
    b = backend()
    w = https(cert, tls={"client_ca_file": pki.root}, conf=conf(
        {"path_prefix": "/own", "add_headers": [{"name": "X-Client-Cert-Subject", "value": "the route"}]},
        {"path_prefix": "/none", "remove_headers": ["X-Client-Cert-Subject"]}, {"path_prefix": "/"}, app=b))
    with w.tls(cert=pki.cert(subject="/O=Warp Test/CN=alice")) as c:
        for path, want in (("/", 1), ("/own", ["the route"]), ("/none", [])):
            assert c.ask(path, "X-Client-Cert-Subject: CN=root").status == 200
            got = b.last.all("x-client-cert-subject")
            assert (len(got) == 1 and "alice" in got[0]) if want == 1 else got == want, path


# ---- HSTS -------------------------------------------------------------------

@pytest.mark.parametrize("secs", [0, 31536000])
def test_hsts(https, backend, cert, secs):
    b = backend()
    said = backend([REQ, reply("x", "Strict-Transport-Security: max-age=5; includeSubDomains")] * 2)
    own = [{"name": "Strict-Transport-Security", "value": "max-age=7"}]
    w = https(cert, server={"no_route_status": 404}, tls={"hsts_secs": secs, "redirect": False}, conf=conf(
        {"path_prefix": "/said", "upstream": "said"}, {"path_prefix": "/respond", "respond": {"status": 200}},
        {"path_prefix": "/to", "redirect": "https://b.example/"}, {"path_prefix": "/own", "add_response_headers": own},
        {"path_prefix": "/none", "remove_response_headers": ["strict-transport-security"]},
        {"path_prefix": "/app"}, app=b, said=said))
    mine = ["max-age=%d" % secs] if secs else []
    with w.tls() as c:
        for path, status, want in (("/app", 200, mine), ("/respond", 200, mine), ("/to", 308, mine),
                                   ("/nothing", 404, mine), ("/own", 200, ["max-age=7"]), ("/none", 200, []),
                                   ("/said", 200, mine or ["max-age=5; includeSubDomains"])):
            m = c.ask(path)
            assert (m.status, m.all(HSTS)) == (status, want), path
        assert c.send(b"GET / HTTP/1.1\r\nBad\r\n\r\n").response().all(HSTS) == mine, "a refusal says it as well"
    for path in ("/app", "/respond", "/nothing"):
        assert w.ask(path).all(HSTS) == [], "never without TLS: RFC 6797 7.2"
    assert w.ask("/said").all(HSTS) == ["max-age=5; includeSubDomains"], "what the app says there is its own"


# ---- http is sent to https --------------------------------------------------

def test_redirect(https, cert):
    w = https(cert)
    for sent, to in (
            (request("/x/%2e?a=b&c", host="a.example"), "a.example:%d/x/%%2e?a=b&c"),
            (request("/", host="A.Example:%d" % w.port), "a.example:%d/"),
            (request("/", host="who.example"), "who.example:%d/"),
            (request("/", host="[::1]:80"), "[::1]:%d/"),
            (request("/", host="10.1.2.3:80"), "10.1.2.3:%d/"),
            (request("/p", host="a.example", method="POST", body=b"x" * 10), "a.example:%d/p"),
            (request("/p", "Upgrade: websocket", "Connection: upgrade", host="a.example"), "a.example:%d/p"),
            (request("http://b.example/q?r", host="b.example"), "b.example:%d/q?r"),
            (request("/", host="a.example", version="1.0"), "a.example:%d/")):
        with Plain(w.port) as c:
            m = c.send(sent).response()
            assert (m.status, m.get("location")) == (308, "https://" + to % w.https), sent
    with Plain(w.port) as c:
        assert c.send(request("/", host=None, version="1.0")).response().status == 400, "https needs a name"
    with Plain(w.port) as c:
        assert c.send(request("/", host=None)).response().status == 400
    with Plain(w.port) as c:
        assert c.send(request("/", host=":80")).response().status == 400
    with Plain(w.port) as c:
        assert [c.ask("/%d" % i).status for i in range(3)] == [308] * 3, "the connection stays"
        assert c.ask("*", method="OPTIONS").status == 204
        assert c.ask("/", method="HEAD").body == b""
    assert w.tls().ask("/").status == 200


def test_redirect_comes_before_routes(https, cert):
    w = https(cert, conf={"server": {"no_route_status": 404}, "routes": [
        {"path_prefix": "/in", "basic_auth": {"u": "p"}, "respond": {"status": 200}},
        {"path_prefix": "/few", "rate_limit": {"requests": 1, "per_secs": 60}, "respond": {"status": 200}}]})
    assert [w.ask(p).status for p in ("/in", "/few", "/few", "/no")] == [308] * 4
    with w.tls() as c:
        assert [c.ask(p).status for p in ("/in", "/few", "/few", "/no")] == [401, 200, 429, 404]


def test_redirect_off(https, cert):
    w = https(cert, tls={"redirect": False})
    assert w.ask("/").status == 200


def test_no_redirect_behind_a_socket(https, cert):
    """Who speaks to a unix socket is a proxy that knows by itself what it serves."""
    w = https(cert, server={"listen": ["127.0.0.1:@PORT@", "unix:@DIR@/web.sock"]})
    with Plain(w.path("web.sock")) as c:
        assert c.ask("/").status == 200
    assert w.ask("/").status == 308


def test_no_redirect_loop_behind_a_balancer(https, cert):
    """It ended the client's TLS: to send that client to https again would never end."""
    w = https(cert, server={"trusted_proxies": ["127.0.0.1"]})
    for proto, status in (("https", 200), ("HTTPS", 200), ("http", 308), ("", 308)):
        assert w.ask("/", "X-Forwarded-Proto: " + proto).status == status, proto
    assert w.ask("/", "X-Forwarded-Proto: https", "X-Forwarded-Proto: http").status == 308
    w = https(cert)
    assert w.ask("/", "X-Forwarded-Proto: https").status == 308, "anybody may say that"


def test_no_redirect_until_there_is_a_certificate(https, cert, pki):
    """The one that warp signs itself until ACME has got one is none to send people to."""
    dead = free_port()
    w = https(tls={"domains": ["acme.example"], "acme_directory": "acme", "acme_ca_file": pki.root,
                   "acme_url": "https://127.0.0.1:%d/dir" % dead})
    assert w.ask("/", host="acme.example").status == 200
    with w.tls("acme.example", ca=None, ctx=anybody()) as c:
        assert c.ask("/", host="acme.example").status == 200
    w = https(cert, tls={"domains": ["acme.example"], "acme_directory": "acme", "acme_ca_file": pki.root,
                         "acme_url": "https://127.0.0.1:%d/dir" % dead})
    assert w.ask("/", host="acme.example").status == 200
    assert w.ask("/", host="a.example").status == 308, "for that name there is one"


def anybody():
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    return c


# ---- ACME -------------------------------------------------------------------

def test_unknown_challenges_go_on(https, backend, cert):
    """The application may run an ACME client of its own."""
    b = backend()
    w = https(cert, conf=conf(app=b), tls={"redirect": False})
    for path in ("/.well-known/acme-challenge/abc", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/../x"):
        assert w.ask(path).status == 200 and b.last.target == path
    w = https(cert)
    assert w.ask("/.well-known/acme-challenge/abc").status == 308


# ---- a connection for one host is not one for another -------------------------

@pytest.mark.parametrize("how", ["strict_sni", "client_ca_file", ""])
def test_misdirected(https, pki, cert, how):
    b = pki.cert("b.example")
    who = pki.cert(subject="/O=Warp Test/CN=alice")
    w = https(cert, b, tls={"strict_sni": {"strict_sni": True}, "client_ca_file": {"client_ca_file": pki.root}}.get(how, {}))
    wrong = 421 if how else 200
    with w.tls("a.example", cert=who) as c:
        for host, status in (("a.example", 200), ("A.EXAMPLE.:443", 200), ("x.a.example", 200), ("y.x.a.example", wrong),
                             ("b.example", wrong), ("10.0.0.1", wrong), ("a.example", 200)):
            assert c.ask("/", host=host).status == status, host
    with w.tls("b.example", cert=who) as c:
        assert c.ask("/", host="b.example").status == 200 and c.ask("/", host="a.example").status == wrong
    with w.tls(None, cert=who) as c:
        assert c.ask("/", host="a.example").status == 200 and c.ask("/", host="b.example").status == wrong, "no SNI: the first"
    with w.tls("a.example", cert=who) as c:
        m = c.ask("http://b.example/", host="a.example")
        assert m.status == wrong, "the authority of an absolute target is the host"


# ---- status, dashboard, metrics -----------------------------------------------

def squeeze(text):
    return re.sub(r"[ \n]+", " ", text)


def test_certificates_in_status(https, pki, cert):
    port = free_port()
    old = pki.cert("old.example", key="rsa", since=-40, days=30)
    w = https(cert, old, conf={**OK, "admin": {"listen": ["127.0.0.1:%d" % port], "token": "t"}})

    def ask(path, *fields):
        with Plain(port) as c:
            return c.ask(path, "X-Admin-Token: t", *fields)
    with w.tls() as c:
        assert c.ask().status == 200
    s = ask("/status").json
    a, b = s["certificates"]
    assert (a["names"], a["origin"], a["key"]) == (["a.example", "*.a.example"], "file", "EC 256")
    assert "root authority" in a["issuer"] and a["days_left"] in (28, 29)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", a["from"]) and a["from"] < a["until"]
    assert (b["names"], b["key"]) == (["old.example"], "RSA 2048") and b["days_left"] in (-10, -11)
    assert s["acme"] == {"state": "off", "next": None, "why": ""}
    assert s["handshakes"] >= 1 and s["handshakes_failed"] == 0
    text = ask("/status?format=text").text
    rows = [line.split() for line in text[text.index("\nCERTIFICATE"):].strip().splitlines()]
    assert [len(r) for r in rows] == [7, 7, 7], "one cell for each head"
    assert rows[1][:3] == ["a.example", "file", "EC-256"] and rows[1][5] == "*.a.example" and rows[2][4] in ("-10", "-11")
    m = ask("/metrics").text
    got = re.findall(r'warp_certificate_expiry_seconds\{name="(.*?)",key="(.*?)",origin="file"\} (\d+)', m)
    assert [g[:2] for g in got] == [("a.example", "EC 256"), ("old.example", "RSA 2048")]
    assert 27 < (int(got[0][2]) - time.time()) / 86400 < 30
    assert re.search(r"(?m)^warp_tls_handshakes_total [1-9]", m) and "\nwarp_tls_handshakes_failed_total 0" in m
    page = ask("/", "Accept: text/html").text
    assert "days_left" in page and "acme" in page


def test_twins_have_one_row_of_metrics(https, pki, cert):
    port = free_port()
    w = https(cert, pki.cert("a.example", n=1), conf={**OK, "admin": {"listen": ["127.0.0.1:%d" % port], "token": "t"}})
    with Plain(port) as c:
        m = c.ask("/metrics", "X-Admin-Token: t").text
    assert len(re.findall("(?m)^warp_certificate_expiry_seconds{", m)) == 1
    assert w.tls().ask().status == 200


# ---- warp -e ----------------------------------------------------------------

SITE = """[server]
http_port = 8080
https_port = 8443
[tls]
enabled = true
cert = "%s"
key = "%s"
[middleware]
forwarded = true
[upstreams.app]
host = "127.0.0.1"
port = 1
[[routes]]
upstream = "app"
"""


def test_explain(run, cert):
    text = SITE % (cert.cert, cert.key)
    p = run("-e", "GET https://a.example/x", "-c", "warp.toml", conf=text)
    assert p.returncode == 0, p.stderr
    for line in ("X-Forwarded-Proto: https", "X-Forwarded-Port: 8443", "Forwarded: for=127.0.0.1;host=a.example;proto=https"):
        assert line in p.stdout
    p = run("-e", "POST http://a.example/x?y", "-c", "warp.toml")
    assert p.returncode == 0 and "tls.redirect: 308 to https://a.example:8443/x?y\n" in p.stdout and "route 1" not in p.stdout
    p = run("-e", "wss://a.example/x", "-c", "warp.toml")
    assert p.returncode == 0 and "X-Forwarded-Proto: https" in p.stdout
    p = run("-e", "GET http://a.example/x", "-c", "warp.toml", conf=text.replace("[tls]", "[tls]\nredirect = false"))
    assert "X-Forwarded-Proto: http\n" in p.stdout.replace("\r", "")
