"""Who the client is, by what is counted, and by which host it asked: client_ip_header, unix: and private among
trusted_proxies, the sticky cookie's attributes, hosts with `.*` and `~`, limits of connections and requests."""
import re

import pytest

from lib import ECHO, Client, conf, toml_file

CDN = {"trusted_proxies": ["127.0.0.1"], "client_ip_header": "CF-Connecting-IP"}
OWN = "127.0.0.1"

# reason: fields sent, then X-Real-IP and X-Forwarded-For at the backend
BELIEVED = {
    "the field": (["CF-Connecting-IP: 1.2.3.4"], "1.2.3.4", "1.2.3.4"),
    "in any case, of IPv6": (["cf-connecting-ip: 2001:db8::1"], "2001:db8::1", "2001:db8::1"),
    "with a port": (["CF-Connecting-IP: 1.2.3.4:5678"], "1.2.3.4", "1.2.3.4"),
    "X-Forwarded-For is continued with it, not asked": (["CF-Connecting-IP: 1.2.3.4", "X-Forwarded-For: 6.6.6.6"], "1.2.3.4",
        "6.6.6.6, 1.2.3.4"),
    "nor without it": (["X-Forwarded-For: 6.6.6.6"], OWN, "6.6.6.6, " + OWN),
    "nor is Forwarded": (["Forwarded: for=6.6.6.6"], OWN, OWN),
    "of two lines the first": (["CF-Connecting-IP: 1.2.3.4", "CF-Connecting-IP: 5.6.7.8"], "1.2.3.4", "1.2.3.4"),
    "of a list the last": (["CF-Connecting-IP: 5.6.7.8, 1.2.3.4"], "1.2.3.4", "1.2.3.4"),
    "that is not trusted": (["CF-Connecting-IP: 1.2.3.4, 127.0.0.1"], "1.2.3.4", "1.2.3.4"),
    "rubbish is nobody": (["CF-Connecting-IP: localhost"], OWN, OWN),
    "nor is nothing": (["CF-Connecting-IP:"], OWN, OWN),
    "nor all zero": (["CF-Connecting-IP: ::"], OWN, OWN),
    "nor an open bracket": (["CF-Connecting-IP: [::1"], OWN, OWN),
    "a twin is none": (["CF_Connecting_IP: 1.2.3.4"], OWN, OWN),
}


@pytest.mark.parametrize("reason", BELIEVED)
def test_client_ip_header(warp, backend, reason):
    """Of a trusted proxy: a `client` condition, the fields upstream and Forwarded are of that address."""
    sent, ip, chain = BELIEVED[reason]
    b = backend()
    w = warp(conf({"client": [ip]}, app=b, server=CDN, middleware={"forwarded": True}))
    assert w.ask("/", *sent).status == 200, "the condition `client` sees it"
    assert (b.last.get("X-Real-IP"), b.last.get("X-Forwarded-For")) == (ip, chain)
    assert re.search(r'for="?\[?%s\b' % re.escape(ip), ", ".join(b.last.all("Forwarded")))
    assert not b.last.has("CF_Connecting_IP")


def test_a_stranger_says_nothing(warp, backend, run):
    b = backend()
    c = conf(app=b, server={**CDN, "trusted_proxies": ["10.0.0.0/8"]})
    w = warp(c)
    w.ask("/", "CF-Connecting-IP: 10.0.0.1", "cf_connecting-ip: 10.0.0.1", "CF-Connecting-IPv6: ::1")
    assert b.last.get("X-Real-IP") == OWN
    assert [n for n, _ in b.last.fields if n.lower().startswith("cf")] == ["CF-Connecting-IPv6"]
    explained = ["-c", "warp.toml", "-e", "GET http://a.example/", "-H", "CF-Connecting-IP: 1.2.3.4", "-a"]
    assert "loses CF-Connecting-IP" in run(*explained, "9.9.9.9", conf=toml_file(c)).stdout
    assert "X-Real-IP: 1.2.3.4" in run(*explained, "10.1.1.1", conf=toml_file(c)).stdout


def test_it_is_the_client_everywhere(warp, backend):
    """The log, the rate limit and the PROXY header that the upstream gets."""
    b = backend([lambda c: setattr(c, "proxy", c.until(b"\r\n").decode().split()), ECHO])
    w = warp(conf({"rate_limit": {"requests": 1, "per_secs": 60}}, app={"on": b, "proxy_protocol": "v1"}, server=CDN,
        log={"access": "stdout", "format": "<$client $status>"}))
    ips = ("1.2.3.4", "1.2.3.4", "1.2.3.5")
    assert [w.ask("/", "CF-Connecting-IP: " + ip).status for ip in ips] == [200, 429, 200]
    assert [b.conn(i).proxy[2] for i in (0, 1)] == ["1.2.3.4", "1.2.3.5"]
    w.wait_stdout("<1.2.3.4 200>\n<1.2.3.4 429>\n<1.2.3.5 200>")


@pytest.mark.parametrize("trusted, unix, tcp", [(["unix:"], True, False), (["private"], False, True),
    (["private", "unix:"], True, True), (["10.0.0.0/8"], False, False)])
def test_unix_and_private(warp, backend, tmp_path, trusted, unix, tcp):
    b = backend()
    path = str(tmp_path / "in")
    w = warp(conf(app=b, server={"trusted_proxies": trusted, "listen": ["127.0.0.1:@PORT@", path]}))
    for addr, believed in ((path, unix), (w.port, tcp)):
        with Client(addr) as c:
            c.ask("/", "X-Forwarded-For: 1.2.3.4")
        assert (b.last.get("X-Real-IP") == "1.2.3.4") == believed, addr


# ---- the sticky cookie ----------------------------------------------------------------

# reason: keys, what follows Path=/; HttpOnly; (or stands before)
ATTRIBUTES = {
    "as ever": ({}, "Path=/; HttpOnly; SameSite=Lax"),
    "an age": ({"sticky_max_age_secs": 86400 * 30}, "Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax"),
    "no age": ({"sticky_max_age_secs": 0}, "Path=/; HttpOnly; SameSite=Lax"),
    "all": ({"sticky_max_age_secs": 1, "sticky_domain": ".example.com", "sticky_samesite": "Strict"},
        "Max-Age=1; Domain=.example.com; Path=/; HttpOnly; SameSite=Strict"),
    "None is Secure": ({"sticky_samesite": "None"}, "Path=/; HttpOnly; SameSite=None; Secure"),
}


@pytest.mark.parametrize("reason", ATTRIBUTES)
def test_sticky_attributes(warp, backend, reason):
    """Over http, and from a trusted proxy whose client came by https: Secure, once."""
    keys, want = ATTRIBUTES[reason]
    w = warp(conf(app={"on": [backend(), backend()], "strategy": "cookie", **keys}, server={"trusted_proxies": ["private"]}))
    assert w.ask().get("Set-Cookie").partition("; ")[2] == want
    secure = want if "Secure" in want else want + "; Secure"
    for field in ("X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4;proto=https"):
        assert w.ask("/", field).get("Set-Cookie").partition("; ")[2] == secure


def test_samesite_none_over_plain_http(check, https, pki, backend):
    """Browsers keep such a cookie by https alone: -t says so where there is none."""
    text = "%s[upstreams.app]\nurl = 'http://x:1'\nstrategy = 'cookie'\nsticky_samesite = 'None'\n[[routes]]\nupstream = 'app'\n"
    said = "4:19: warning: upstreams.app.sticky_samesite: over plain http browsers drop a cookie with None"
    assert said in check(text % "").stderr
    assert "sticky_samesite" not in check(text % "[server]\ntrusted_proxies = ['unix:']\n").stderr
    w = https(pki.cert("a.example"), conf=conf(app={"on": backend(), "strategy": "cookie", "sticky_samesite": "None"}))
    assert "sticky_samesite" not in w.stderr
    with w.tls() as c:
        assert c.ask().get("Set-Cookie").endswith("; SameSite=None; Secure")


# ---- hosts ----------------------------------------------------------------------------

# as nginx would look for them, which is how people write them
HOSTS = [("exact", "www.example.com"), ("wild", "*.example.com"), ("stem", "www.*"), ("regex", r"~^(api|m)-[0-9]+\.EXAMPLE\.(org|net)$"),
    ("part", r"~\.test$"), ("rest", "*")]
# reason: Host, the route
ASKED = {
    "exact": ("www.example.com", "exact"),
    "in capitals, with a port and a dot": ("WWW.Example.COM.:8080", "exact"),
    "below": ("a.b.example.com", "wild"),
    "a stem's": ("www.example.org", "stem"),
    "of many labels": ("WWW.example.co.uk:80", "stem"),
    "not the stem": ("www", "rest"),
    "not with a dot alone": ("www.", "rest"),
    "not inside": ("a.www.example.org", "rest"),
    "an expression's": ("api-12.example.net", "regex"),
    "in capitals": ("API-1.Example.ORG:99", "regex"),
    "which is anchored": ("x.api-1.example.org", "rest"),
    "or not": ("a.b.test", "part"),
    "an address": ("[::1]:80", "rest"),
    "none": (None, "rest"),
}


def test_hosts(warp, run):
    c = conf(*[{"host": host, "respond": {"status": 200, "body": name}} for name, host in HOSTS])
    w = warp(c)
    for reason, (host, want) in ASKED.items():
        assert w.ask("/", host=host, version="1.0" if host is None else "1.1").text == want, reason
    for name, host in HOSTS[:-1]:
        assert " host=%s " % host.replace("EXAMPLE", "example") in run("-t", "-c", "warp.toml", conf=toml_file(c)).stdout + " ", name
    said = run("-e", "GET http://nobody/", "-c", "warp.toml", conf=toml_file(c)).stdout
    assert 'wanted "www.*"' in said and 'wanted "~\\.test$"' in said


def test_hosts_that_are_never_reached(check):
    """The order of the file decides, so a name behind what covers it is a warning."""
    for first, later, warned in (("~example", "www.example.com", True), ("www.*", "www.example.com", True), ("*.com", "www.*", False),
            ("www.example.com", "~example", False), ("www.*", "www.a.*", True), ("~^a", "~^a", True)):
        p = check("".join("[[routes]]\nhost = '%s'\nredirect = 'http://x/'\n" % h for h in (first, later)))
        assert (p.returncode, "never reached" in p.stderr) == (0, warned), (first, later, p.stderr)


def test_a_hosts_expression_takes_no_time(warp):
    """Whatever it is and whatever is asked: no expression goes back."""
    w = warp(conf({"host": "~^(a*)*(a|aa)+$", "respond": {"status": 200}}, {"respond": {"status": 404}}))
    with w.client() as c:
        assert [c.ask("/", host="a" * 250 + end, timeout=2).status for end in ("", "b")] == [200, 404]
