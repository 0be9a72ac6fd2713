"""Who the client is, by what is counted, and by which host it asked: client_ip_header, unix: and private among
trusted_proxies, the sticky cookie's attributes, hosts with `.*` and `~`, limits of connections and requests."""
import base64
import contextlib
import os
import re
import resource
import select
import signal
import socket
import threading
import time

import pytest

from lib import ECHO, REQ, SLOW, TIMEOUT, Client, Wire, conf, eventually, freeze, reply, request, toml_file

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
            c.ask("/", "Forwarded: for=1.2.3.4")
        chain = ["1.2.3.4"] * believed + [OWN] * (addr != path)
        assert (b.last.get("X-Forwarded-For") or "") == ", ".join(chain)


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
    said = run("-t", "-c", "warp.toml", conf=toml_file(c)).stdout
    for name, host in HOSTS[:-1]:
        assert " host=%s " % host.replace("EXAMPLE", "example") in said, name
    said = run("-e", "GET http://nobody/", "-c", "warp.toml", conf=toml_file(c)).stdout
    assert 'wanted "www.*"' in said and 'wanted "~\\.test$"' in said


def test_hosts_that_are_never_reached(check):
    """The order of the file decides, so a name behind what covers it is a warning; the other way about it is none."""
    routes = lambda hosts: "".join("[[routes]]\nhost = '%s'\nredirect = 'http://x/'\n" % h for h in hosts)
    hosts = ["~^a", "a.example", "www.*", "www.example", "*.com", "www.a.*"]
    p = check(routes(hosts))
    assert re.findall(r":(\d+):1: warning: this route is never reached", p.stderr) == ["4", "10", "16"], p.stderr
    assert "never reached" not in check(routes(reversed(hosts))).stderr


def test_a_hosts_expression_takes_no_time(warp):
    """Whatever it is and whatever is asked: no expression goes back."""
    w = warp(conf({"host": "~^(a*)*(a|aa)+$", "respond": {"status": 200}}, {"respond": {"status": 404}}))
    with w.client() as c:
        assert [c.ask("/", host="a" * 250 + end, timeout=2).status for end in ("", "b")] == [200, 404]


# ---- what a rate limit counts, and what waits -----------------------------------------

# reason: key, fields of requests and whether each passes; two pass for each that is counted
KEYS = {
    "all": ("all", [("X-Forwarded-For: 1.1.1.1", 1), ("X-Forwarded-For: 1.1.1.2", 1), ("X-Forwarded-For: 1.1.1.3", 0)]),
    "ip": ("ip", [("X-Forwarded-For: 1.1.1.1", 1)] * 2 + [("X-Forwarded-For: 1.1.1.1", 0), ("X-Forwarded-For: 1.1.1.2", 1)]),
    "a field": ("header:X-Key", [("X-Key: a", 1), ("x-key: a", 1), ("X-Key: a", 0), ("X-Key: b", 1), ("X-Key: A", 1)]),
    "whoever sends it": ("header:x-key", [("X-Key: a\r\nX-Forwarded-For: 1.1.1.%d" % i, i < 3) for i in (1, 2, 3)]),
    "without it, or empty, by address": ("header:X-Key", [("X-Key: a", 1), ("X-Key:", 1), ("X-Other: a", 1), ("X-Key:", 0),
        ("X-Forwarded-For: 1.1.1.1", 1), ("X-Key: a", 1), ("X-Key: a", 0)]),
    "a cookie": ("cookie:sid", [("Cookie: a=b; sid=1", 1), ('Cookie: sid="1"', 1), ("Cookie: a=b\r\nCookie: sid=1", 0), ("Cookie: sid=2", 1),
        ("Cookie: SID=1", 1), ("Cookie: xsid=1", 1), ("Cookie: sid=", 0)]),
}


@pytest.mark.parametrize("reason", KEYS)
def test_rate_keys(warp, reason):
    key, asked = KEYS[reason]
    w = warp(conf({"rate_limit": {"requests": 2, "per_secs": 600, "key": key}, "respond": {"status": 200}},
        server={"trusted_proxies": ["127.0.0.1"], "worker_threads": 2}))
    got = [w.ask("/", *fields.split("\r\n")).status for fields, _ in asked]
    assert got == [200 if passes else 429 for _, passes in asked], reason


def delayed(requests, per, burst, **route):
    return {"rate_limit": {"requests": requests, "per_secs": per, "burst": burst, "delay": True}, **route}


def test_delay(warp, backend):
    """The first of a burst passes, the others when they are due, in their order; one more is refused at once."""
    b = backend()
    w = warp(conf(delayed(5, 1, 4), app=b))
    cs, start = [w.client() for _ in range(5)], time.monotonic()
    for i, c in enumerate(cs):
        c.send(request("/%d" % i))
        if i == 0:
            assert c.response().status == 200
    refused = cs[4].response()
    assert refused.status == 429 and refused.has("Retry-After") and time.monotonic() < start + 0.19 * SLOW
    for i, c in enumerate(cs[1:4], 1):
        assert c.response().status == 200 and time.monotonic() >= start + 0.2 * i - 0.01, "not before its turn"
        assert time.monotonic() < start + 0.2 * i + 0.15 * SLOW, "nor long after"
    assert [m.target for m in b.requests] == ["/0", "/1", "/2", "/3"]
    assert cs[0].ask().status == 200, "and on the same connection"


def test_delay_before_the_other_guards(warp, backend):
    """What waits has its body, its password and its upgrade still before it; requests in a row wait one by one."""
    b = backend()
    w = warp(conf(delayed(20, 1, 9, basic_auth={"joe": "pw"}), app=b))
    good = "Authorization: Basic " + base64.b64encode(b"joe:pw").decode()
    with w.client() as c:
        c.send(b"".join(request("/%d" % i, good, method="POST", body=b"x" * i) for i in range(4)) + request("/no"))
        assert [c.response("POST").status for _ in range(4)] == [200] * 4
        assert c.response().status == 401
    assert [len(m.body) for m in b.requests] == [0, 1, 2, 3]


def test_who_leaves_is_not_waited_for(warp, backend):
    b = backend()
    w = warp(conf(delayed(2, 1, 9), app=b, log={"access": "stdout", "format": "$uri $status"}))
    assert w.ask("/0").status == 200
    with w.client() as gone, w.client() as cut, w.client() as stays:
        for i, c in enumerate((gone, cut, stays), 1):
            c.send(request("/%d" % i))
        gone.close()
        cut.rst()
        assert stays.response().status == 200, "in its own turn"
    w.wait_stdout("(/1 499\n/2|/2 499\n/1) 499\n/3 200")
    assert [m.target for m in b.requests] == ["/0", "/3"]


@pytest.mark.parametrize("sig, served", [(signal.SIGQUIT, True), (signal.SIGTERM, False)])
def test_those_who_wait_when_warp_stops(warp, backend, sig, served):
    b = backend()
    w = warp(conf(delayed(2, 1, 3), app=b))
    assert w.ask().status == 200
    with w.client() as c:
        c.send(request("/last"))
        assert c.is_open(0.1)
        w.signal(sig)
        if served:
            m = c.response()
            assert m.status == 200 and "close" in m.tokens("Connection")
        assert c.closed() in ("eof", "reset")
    w.wait()
    assert ("/last" in [m.target for m in b.requests]) == served


def test_a_long_delay_is_warned_of(check):
    text = "[[routes]]\nredirect = 'http://x/'\nrate_limit = { requests = %d, per_secs = 60, burst = %d, delay = %s }\n"
    said = "3:14: warning: with delay the last request of a burst waits 120 s"
    assert said in check(text % (1, 3, "true")).stderr
    p = check(text % (1, 2, "true"))
    assert "burst" not in p.stderr and ", 1 requests in 60 s (burst 2, delayed) by ip" in p.stdout


def test_at_most_so_many_wait(warp):
    """A full queue: the next one is refused as it would be without delay."""
    w = warp(conf(delayed(1, 3600, 5000, respond={"status": 200}), server={"max_connections": 2000}))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    answered = select.poll()
    with contextlib.ExitStack() as cs:
        waiting = {}
        while len(waiting) < 1300:
            c = cs.enter_context(w.client())
            waiting[c.sock.fileno()] = c.send(request())
            answered.register(c.sock, select.POLLIN)
            if len(waiting) == 1:
                assert c.response().status == 200
            elif ready := answered.poll(0 if len(waiting) < 1026 else 1000):
                break
        m = waiting[ready[0][0]].response()
        assert m.status == 429 and int(m.get("Retry-After")) >= 3600


# ---- connections of one client --------------------------------------------------------

def connect_from(w, ip):
    c = Client.__new__(Client)
    Wire.__init__(c, socket.create_connection(w.addr, TIMEOUT, (ip, 0)))
    return c


def arrive(w, n, ip="127.0.0.1"):
    """n connections from ip, each with an answered request unless it was closed: those that are open."""
    got = []
    for _ in range(n):
        c = connect_from(w, ip)
        try:
            c.send(request())
            assert c.response().status == 200
            got.append(c)
        except (EOFError, ConnectionError):
            c.close()
    return got


def leave(cs):
    for c in cs:
        c.close()
    cs.clear()


def come_again(w, n, limit, ip="127.0.0.1"):
    """Until limit of n have their places again."""
    def tried():
        got = arrive(w, n, ip)
        if len(got) != limit:
            leave(got)
        return got
    return eventually(tried, "%d places" % limit)


@pytest.mark.parametrize("workers", [1, 3])
def test_connections_of_one_client(warp, workers):
    w = warp(conf({"respond": {"status": 200}}, server={"max_connections_per_client": 4, "worker_threads": workers},
        admin={"listen": ["@DIR@/admin"]}))
    one, other = arrive(w, 9), arrive(w, 9, "127.0.0.2")
    assert (len(one), len(other)) == (4, 4), "so many, each client for itself, whichever worker has them"
    assert one[0].ask().status == 200, "those that are open stay"
    w.wait_stderr(r"warn: 127\.0\.0\.1 has 4 connections: closed; see max_connections_per_client$")
    with Client(w.path("admin")) as c:
        metrics = c.ask("/metrics").text
    assert sum(map(int, re.findall(r"^warp_per_client_refused_total\S* (\d+)$", metrics, re.M))) == 10
    leave(one)
    assert len(come_again(w, 6, 4)) == 4 and len(arrive(w, 1, "127.0.0.2")) == 0
    assert len(w.stderr.splitlines()) < 30, "lines are limited in rate"


def test_a_killed_workers_clients_are_forgotten(warp):
    w = warp(conf({"respond": {"status": 200}}, server={"max_connections_per_client": 20, "worker_threads": 2}))
    cs = arrive(w, 40)
    assert len(cs) == 20
    for worker in w.children()[:2]:
        os.kill(worker, signal.SIGKILL)
        w.wait_stderr(r"worker %d died of signal 9" % worker)
        if lost := [c for c in cs if not c.is_open(0)]:
            break
    assert lost, "one of them had some"
    leave(come_again(w, 40, len(lost)))
    leave(cs)
    assert len(come_again(w, 40, 20)) == 20


def test_they_are_counted_through_a_reload(warp, backend):
    go = threading.Event()
    b = backend([REQ, lambda c: go.wait(TIMEOUT) and None, reply("late")])
    c = conf({"path_prefix": "/slow"}, {"path_prefix": "/", "respond": {"status": 200}}, app=b,
        server={"max_connections_per_client": 2})
    w = warp(c)
    with w.client() as slow:
        slow.send(request("/slow"))
        b.request()
        w.write(toml_file(c))
        w.signal(signal.SIGHUP)
        w.wait_stderr("reloaded, generation")
        leave(come_again(w, 5, 1))
        go.set()
        assert slow.response().text == "late"
    assert len(come_again(w, 5, 2)) == 2


def test_nobody_else_makes_way(warp):
    """A client beyond its limit costs the idle ones of others nothing, though all places are taken."""
    w = warp(conf({"respond": {"status": 200}}, server={"max_connections_per_client": 1, "max_connections": 2}))
    one, other = arrive(w, 1), arrive(w, 1, "127.0.0.2")
    assert arrive(w, 3) == [] and one[0].is_open(0.05) and other[0].is_open(0)
    assert len(arrive(w, 1, "127.0.0.3")) == 1, "who has no place yet gets one"


def test_who_is_not_counted(warp, tmp_path):
    """Trusted proxies, who speak for many, and unix sockets."""
    path = str(tmp_path / "in")
    w = warp(conf({"respond": {"status": 200}}, server={"max_connections_per_client": 1, "trusted_proxies": ["127.0.0.2"],
        "listen": ["127.0.0.1:@PORT@", path]}))
    assert len(arrive(w, 4, "127.0.0.2")) == 4
    with Client(path) as a, Client(path) as b:
        assert a.ask().status == b.ask().status == 200
    assert len(arrive(w, 4)) == 1


def test_who_is_not_counted_has_nobody_elses_place(warp):
    """One that is counted and one that is not, accepted one after the other."""
    w = warp(conf({"respond": {"status": 200}}, server={"max_connections_per_client": 1, "trusted_proxies": ["127.0.0.2"], "worker_threads": 1}))
    worker, = w.children()
    freeze(worker)
    counted, proxy = (connect_from(w, ip).send(request()) for ip in ("127.0.0.1", "127.0.0.2"))
    os.kill(worker, signal.SIGCONT)
    assert counted.response().status == proxy.response().status == 200
    proxy.ask("/", "Connection: close")
    assert proxy.closed() == "eof" and arrive(w, 3) == [], "its place is taken still"
    leave([counted, proxy])


def test_clients_by_proxy_protocol(warp):
    """Whom the PROXY header names is counted; of IPv6 a network of 64 bits is one client; who says LOCAL is not."""
    w = warp(conf({"respond": {"status": 200}}, server={"max_connections_per_client": 2, "proxy_protocol": True}))
    cs = []

    def comes(ip):
        c = w.client()
        cs.append(c)
        c.send("PROXY UNKNOWN\r\n" if ip is None else "PROXY TCP%d %s %s 1 2\r\n" % (6 if ":" in ip else 4, ip,
            "::1" if ":" in ip else "1.1.1.1")).send(request())
        try:
            return c.response().status
        except (EOFError, ConnectionError):
            return None
    nets = ["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8::2", "2001:db8:0:1::1"]
    assert [comes(ip) for ip in nets] == [200, 200, None, 200]
    assert [comes(ip) for ip in ["1.2.3.4", "1.2.3.4", "1.2.3.4", "1.2.3.5"]] == [200, 200, None, 200]
    assert [comes(None) for _ in range(4)] == [200] * 4
    leave(cs)
    eventually(lambda: comes("2001:db8::9") == 200, "when they left others have the places")


def test_connections_by_tls(https, pki, backend):
    w = https(pki.cert("a.example"), conf=conf({"respond": {"status": 200}}), server={"max_connections_per_client": 1})
    with w.tls() as c:
        assert c.ask().status == 200
        with pytest.raises((OSError, EOFError)):
            w.tls().ask()
        assert c.ask().status == 200
