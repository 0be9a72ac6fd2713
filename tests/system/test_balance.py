"""Balancing, seen from outside: who gets the next request, by every strategy; sticky clients; backups; two workers;
and idle connections that are given up before their backend closes them."""
import collections
import re
import socket
import threading
import time

import pytest

from lib import REQ, SLOW, TIMEOUT, WAIT, conf, eventually, free_port, reply, request, run_warp

NAMES = "abc"


def three(backend, *scripts):
    return [backend(*scripts, name=n) for n in NAMES]


def instances(backends, *extra):
    """Their addresses, with what extra says of the first, the second, ..."""
    return [dict(b.conf, **(extra[i] if i < len(extra) else {})) for i, b in enumerate(backends)]


def up(strategy, backends, *extra, **keys):
    return dict(keys, strategy=strategy, instances=instances(backends, *extra))


def name(m):
    assert m.status == 200, m
    return m.text.split(" ")[0]


def served(w, n, *fields, target="/"):
    """Letters of who answered n requests on one connection."""
    with w.client() as c:
        return "".join(name(c.ask(target, *fields)) for _ in range(n))


def shares(text):
    count = collections.Counter(text)
    return tuple(count[n] for n in NAMES)


# ---- turns and chance -----------------------------------------------------------

@pytest.mark.promise("S2-61")
def test_round_robin_is_cyclic(warp, backend):
    w = warp(conf(app=three(backend)))
    assert served(w, 12) == "abc" * 4


def test_weights(warp, backend):
    """In any run of five: exactly."""
    w = warp(conf(app=up("round_robin", three(backend), {"weight": 3})))
    got = served(w, 30)
    assert all(shares(got[i:i + 5]) == (3, 1, 1) for i in range(25)), got


# reason: strategy, weight of a, bounds of a's share of 300 (5 standard deviations around 100 and 180)
CHANCE = {
    "random": ("random", 1, 59, 141),
    "random, by weight": ("random", 3, 137, 223),
    "weighted": ("weighted", 3, 137, 223),
    "random_two": ("random_two", 1, 59, 141),
    "random_two, by weight": ("random_two", 3, 137, 223),
}


@pytest.mark.parametrize("reason", CHANCE)
@pytest.mark.promise("S2-61")
def test_chance(warp, backend, reason):
    strategy, weight, least, most = CHANCE[reason]
    w = warp(conf(app=up(strategy, three(backend), {"weight": weight})))
    got = served(w, 300)
    a, b, c = shares(got)
    assert least <= a <= most and b > 0 and c > 0, (reason, a, b, c)
    assert got[:150] != "abc" * 50 and len(set(got[i:i + 3] for i in range(0, 300, 3))) > 3, "no pattern"


# ---- the least ------------------------------------------------------------------

class Gates:
    """Requests that wait at the backend until their target, or all, are let through."""

    def __init__(self):
        self.open, self.news = set(), threading.Condition()

    def let(self, target):
        with self.news:
            self.open.add(target)
            self.news.notify_all()

    def script(self, c):
        while True:
            m = c.request()
            with self.news:
                assert self.news.wait_for(lambda: self.open & {m.target, "all"}, 4 * TIMEOUT)
            c.send(reply("%s %s" % (c.backend.name, m.target)))


class Crowd:
    """Clients with one request each, to gated backends."""

    def __init__(self, w, backends):
        self.w, self.backends, self.clients = w, backends, []

    def counts(self):
        return tuple(len(b.requests) for b in self.backends)

    def add(self):
        """One more request; how many each backend has had when it is there."""
        self.clients.append(self.w.client().send(request("/%d" % len(self.clients))))
        eventually(lambda: sum(self.counts()) == len(self.clients), "request %d" % len(self.clients))
        return self.counts()

    def close(self):
        for c in self.clients:
            c.close()


@pytest.mark.promise("S2-61")
def test_least_conn_levels(warp, backend):
    """Requests that stay pile up evenly; where one has ended, the next one goes."""
    gates = Gates()
    bs = three(backend, [gates.script])
    crowd = Crowd(warp(conf(app=up("least_conn", bs))), bs)
    try:
        for n in (1, 2, 3):
            counts = [crowd.add() for _ in range(3)]
            assert counts[-1] == (n, n, n), counts
        first = bs[1].requests[0].target
        gates.let(first)
        assert name(crowd.clients[int(first[1:])].response()) == "b"
        assert crowd.add() == (3, 4, 3), "b has the fewest now"
        assert sorted(crowd.add()) == [3, 4, 4], "all were level"
    finally:
        gates.let("all")
        crowd.close()


def test_least_conn_by_weight(warp, backend):
    gates = Gates()
    bs = three(backend, [gates.script])
    crowd = Crowd(warp(conf(app=up("least_connections", bs, {"weight": 4}, {"weight": 2}))), bs)
    try:
        counts = [crowd.add() for _ in range(14)]
        assert counts[6] == (4, 2, 1) and counts[13] == (8, 4, 2), counts
    finally:
        gates.let("all")
        crowd.close()


def test_random_two_levels(warp, backend):
    """Two of three are compared: nobody gets far ahead."""
    gates = Gates()
    bs = three(backend, [gates.script])
    crowd = Crowd(warp(conf(app=up("random_two", bs))), bs)
    try:
        for _ in range(30):
            counts = crowd.add()
            assert max(counts) - sorted(counts)[1] <= 1, "the fullest was never the better one: %s" % (counts,)
    finally:
        gates.let("all")
        crowd.close()


def test_least_time(warp, backend):
    """The slow one is asked once, and then left alone as long as the fast one does not have its hands full."""
    def slowly(c):
        while True:
            c.request()
            time.sleep(0.3)
            c.send(reply("a x"))
    a, b = backend([slowly], name="a"), backend(name="b")
    w = warp(conf(app=up("least_time", [a, b])))
    got = served(w, 12)
    assert got.count("a") == 1 and got[2:] == "b" * 10, got


def test_first(warp, backend):
    """In order: the next one only while the one before is full, or down."""
    gates = Gates()
    a, b, c = backend([gates.script], name="a"), backend(name="b"), backend(name="c")
    w = warp(conf(app=up("first", [a, b, c], {"max_connections": 1})))
    with w.client() as busy:
        busy.send(request("/slow"))
        a.request(0)
        assert served(w, 4) == "bbbb", "a is full"
        gates.let("all")
        assert name(busy.response()) == "a"
    assert served(w, 4) == "aaaa"
    a.close()
    assert served(w, 6) == "bbbbbb"


# ---- by a key -------------------------------------------------------------------

def where(w, keys, ask):
    return {k: name(ask(w, k)) for k in keys}


def by_ip(w, k):
    return w.ask("/", "X-Forwarded-For: 203.0.113.%d" % k)


def by_ip6(w, k):
    return w.ask("/", "X-Forwarded-For: 2001:db8::%x" % k)


def by_uri(w, k):
    return w.ask("/page/%d?q=1" % k, "X-User: %d" % (k * 7))


def by_query(w, k):
    return w.ask("/page?id=%d" % k)


def by_header(w, k):
    return w.ask("/%d" % (k * 7), "X-User: u%d" % k)


KEYED = {
    "ip_hash": ("ip_hash", {}, by_ip),
    "ip_hash, v6": ("ip_hash", {}, by_ip6),
    "uri_hash": ("uri_hash", {}, by_uri),
    "uri_hash, the query": ("uri_hash", {}, by_query),
    "header_hash": ("header_hash", {"hash_header": "x-user"}, by_header),
}


@pytest.mark.limit(40)
@pytest.mark.parametrize("reason", KEYED)
@pytest.mark.promise("S2-61")
def test_hash(warp, backend, reason):
    """The same key goes to the same instance, keys go everywhere, in each worker alike; when one leaves, its keys alone
    move, and they come back with it."""
    strategy, keys, ask = KEYED[reason]
    bs = three(backend)
    w = warp(conf(app=up(strategy, bs, retries=2, max_fails=1, fail_timeout_secs=0.5, **keys),
        server={"trusted_proxies": ["127.0.0.1"], "worker_threads": 2}))
    ks = range(1, 61)
    was = where(w, ks, ask)
    assert min(shares(was.values())) >= 8, was             # 20 expected; 8 is more than 3 deviations
    assert where(w, ks, ask) == was
    port = bs[1].port
    bs[1].close()
    now = where(w, ks, ask)
    assert "b" not in now.values()
    assert {k: v for k, v in now.items() if was[k] != "b"} == {k: v for k, v in was.items() if v != "b"}
    assert {now[k] for k in ks if was[k] == "b"} == {"a", "c"}, "to all the others"
    backend(name="b", port=port)
    eventually(lambda: where(w, ks, ask) == was, "everybody is back", timeout=10 * SLOW)


@pytest.mark.promise("S2-61")
def test_hash_ignores_the_rest(warp, backend):
    """One client, whatever it asks; a forwarded address that is not to be believed does not count."""
    w = warp(conf(app=up("ip_hash", three(backend))))
    assert len({name(by_ip(w, k)) for k in range(20)}) == 1
    w.stop()
    w = warp(conf(app=up("header_hash", three(backend), hash_header="X-User")))
    assert len({name(w.ask("/%d" % k)) for k in range(20)}) == 1, "without the field: one instance"


def test_hash_by_weight(warp, backend):
    w = warp(conf(app=up("uri_hash", three(backend), {"weight": 3})))
    with w.client() as c:
        got = "".join(name(c.ask("/%d" % k)) for k in range(300))
    a, b, c = shares(got)
    assert 137 <= a <= 223 and b > 20 and c > 20, (a, b, c)


# ---- sticky clients -------------------------------------------------------------

COOKIE = re.compile(r"(\w+)=([0-9a-f]{16}); Path=/; HttpOnly; SameSite=Lax")


def test_cookie(warp, backend):
    bs = three(backend)
    w = warp(conf(app=up("cookie", bs, sticky_cookie="sid"), server={"worker_threads": 2}))
    cookies = {}
    for _ in range(30):
        m = w.ask("/")
        found = COOKIE.fullmatch(m.get("Set-Cookie"))
        assert found and found[1] == "sid", m.fields
        assert cookies.setdefault(name(m), found[2]) == found[2]
    assert sorted(cookies) == list(NAMES) and len(set(cookies.values())) == 3
    for n, value in cookies.items():
        for cookie in ("sid=" + value, "a=b; sid=%s; c=d" % value, 'sid="%s"' % value):
            m = w.ask("/", "Cookie: " + cookie)
            assert name(m) == n and not m.has("Set-Cookie"), "it is there already"
        m = w.ask("/", "Cookie: x=1", "Cookie: sid=" + value)
        assert name(m) == n, "in a second field"
    for wrong in ("sid=0123456789abcdef", "sid=", "sid=x", "SID=" + cookies["a"]):
        assert w.ask("/", "Cookie: " + wrong).has("Set-Cookie"), wrong
    assert bs[0].last.get("Cookie") is not None, "the backend sees it"


def test_cookie_of_variables(warp, backend):
    """Two upstreams of one host do not take it from each other; a value that can be no name or domain sets none."""
    bs = three(backend)
    keys = {"sticky_cookie": "at_{upstream}{header.X-Tenant}", "sticky_domain": ".{host}"}
    w = warp(conf({"path_prefix": "/o", "upstream": "other"}, {"path_prefix": "/", "upstream": "app"},
                  app=up("cookie", bs, **keys), other=up("cookie", bs, **keys)))
    seen = {}
    for path, tenant, cookie in (("/", "", "at_app"), ("/o", "", "at_other"), ("/", "7", "at_app7")):
        m = w.ask(path, "X-Tenant: " + tenant, host="a.example")
        assert re.fullmatch(cookie + "=[0-9a-f]{16}; Domain=[.]a.example; Path=/; HttpOnly; SameSite=Lax", m.get("Set-Cookie"))
        seen[path, tenant] = name(m), m.get("Set-Cookie").split(";")[0]
    for _ in range(4):
        for (path, tenant), (n, cookie) in seen.items():
            m = w.ask(path, "X-Tenant: " + tenant, "Cookie: " + "; ".join(c for _, c in seen.values()), host="a.example")
            assert name(m) == n and not m.has("Set-Cookie")
    for tenant in ("a b", "x" * 300, 'a=b; Path="/"'):
        assert not w.ask("/", "X-Tenant: " + tenant, host="a.example").has("Set-Cookie")
    assert "Domain" not in w.ask("/", host="[::1]").get("Set-Cookie")


def test_cookie_moves_on(warp, backend):
    """Its instance is gone: another one, and a new cookie; after a restart of warp the old ones are still good."""
    bs = three(backend)
    c = conf(app=up("cookie", bs, max_fails=1, fail_timeout_secs=60))
    w = warp(c)
    m = w.ask("/")
    was, cookie = name(m), m.get("Set-Cookie").split(";")[0]
    assert cookie.startswith("warp_instance=")
    w.stop()
    w = warp(c)
    assert [name(w.ask("/", "Cookie: " + cookie)) for _ in range(4)] == [was] * 4
    next(b for b in bs if b.name == was).close()
    m = w.ask("/", "Cookie: " + cookie)
    assert name(m) != was
    new = m.get("Set-Cookie").split(";")[0]
    assert new != cookie
    assert [name(w.ask("/", "Cookie: " + new)) for _ in range(3)] == [name(m)] * 3


def test_cookie_and_the_applications_own(warp, backend):
    b = backend([REQ, reply(b"x", "Set-Cookie: own=1")])
    w = warp(conf(app={"on": b, "strategy": "cookie"}))
    assert [c.split("=")[0] for c in w.ask("/").all("Set-Cookie")] == ["own", "warp_instance"]


def test_cookie_obeys_the_route(warp, backend):
    """A route that removes Set-Cookie sets none; one that adds its own sets both."""
    app = {"on": backend(), "strategy": "cookie"}
    w = warp(conf({"path_prefix": "/no", "remove_response_headers": ["Set-Cookie"]},
                  {"path_prefix": "/own", "add_response_headers": [{"name": "Set-Cookie", "value": "own=1"}]}, app=app))
    assert w.ask("/no").all("Set-Cookie") == []
    assert [c.split("=")[0] for c in w.ask("/own").all("Set-Cookie")] == ["own", "warp_instance"]


# ---- who may be asked -----------------------------------------------------------

def test_backup(warp, backend):
    """Asked when no other can be, the same request included; not any more once one is back."""
    a, b = backend(name="a"), backend(name="b")
    w = warp(conf(app=up("round_robin", [a, b], {}, {"backup": True}, max_fails=2, fail_timeout_secs=0.5)))
    assert served(w, 5) == "aaaaa"
    port = a.port
    a.close()
    assert served(w, 6) == "bbbbbb", "no request was lost"
    w.wait_stderr("left out for 500 ms")
    backend(name="a", port=port)
    eventually(lambda: served(w, 3) == "aaa", "the first is back")


def test_trial_is_one_request(warp, backend):
    """The breaker half-open: of many requests at once one is the trial, in all workers together."""
    port, gate = free_port(), threading.Event()
    b = backend(name="b")
    w = warp(conf(app={"instances": [{"host": "127.0.0.1", "port": port}, b.conf], "max_fails": 1,
        "fail_timeout_secs": 1, "retries": 1}, server={"worker_threads": 2}))
    assert served(w, 2) == "bb"
    w.wait_stderr("left out for 1000 ms")
    a = backend([REQ, WAIT(gate), reply("a x")], name="a", port=port)
    clients = []
    try:
        def asked():
            clients.append(w.client().send(request()))
            return a.requests
        eventually(asked, "the trial")
        before = time.monotonic()
        got = served(w, 10)
        if time.monotonic() - before < 0.5:                # else another trial may be due
            assert got == "b" * 10 and len(a.requests) == 1
    finally:
        gate.set()
        for c in clients:
            c.close()


def test_two_workers_are_even(warp, backend):
    """Each deals its own turns; together they are within what the number of connections explains."""
    bs = three(backend)
    w = warp(conf(app=bs, server={"worker_threads": 2}))
    for _ in range(10):
        assert set(shares(served(w, 30))) == {10}, "one connection is one worker's"
    assert [len(b.requests) for b in bs] == [100] * 3


def test_same_address_twice(warp, backend):
    b = backend()
    w = warp(conf(app=[b, b]) | {"admin": {"listen": ["unix:@DIR@/admin.sock"]}})
    for _ in range(5):
        assert name(w.ask()) == "app"
    table = run_warp("-s", "status", "-c", w.file).stdout
    head = next(line for line in table.splitlines() if line.startswith("UPSTREAM")).split()
    rows = [line.split() for line in table.splitlines() if str(b.port) in line]
    assert [row[head.index("REQUESTS")] for row in rows] == ["3", "2"], table


def test_explain_lists_candidates(run):
    text = """[upstreams.app]
strategy = "least_conn"
[[upstreams.app.instances]]
url = "127.0.0.1:1"
weight = 5
max_connections = 7
[[upstreams.app.instances]]
url = "127.0.0.1:2"
backup = true
[[routes]]
upstream = "app"
"""
    out = run("-e", "GET /", "-c", "warp.toml", conf=text).stdout
    assert "upstream app, least_conn; candidates:\n" in out
    assert "  0 127.0.0.1:1 weight 5, at most 7 requests at one time\n" in out
    assert "  1 127.0.0.1:2 weight 1, backup\n" in out
    out = run("-t", "-c", "warp.toml", conf=text).stdout
    assert re.search("  127.0.0.1:1 +weight 5, at most 7 requests at one time\n +127.0.0.1:2 +weight 1, backup\n", out), out


# ---- configurations that are wrong ----------------------------------------------

BAD = {
    "header_hash without its header": ('strategy = "header_hash"', "app.hash_header: strategy header_hash needs it"),
    "its header without header_hash": ('hash_header = "X"', "only strategy header_hash uses it, this one is round_robin"),
    "a header that is none": ('strategy = "header_hash"\nhash_header = "X:"', "expected the name of a header field, got 'X:'"),
    "a cookie without its strategy": ('sticky_cookie = "x"', "only strategy cookie uses it, this one is round_robin"),
    "its age without its strategy": ('sticky_max_age_secs = 1', "only strategy cookie uses it, this one is round_robin"),
    "its domain without it": ('strategy = "random"\nsticky_domain = "x"', "sticky_domain: only strategy cookie uses it, this one is random"),
    "a domain that is none": ('strategy = "cookie"\nsticky_domain = "a; b"', "expected a domain such as example.com, got 'a; b'"),
    "a negative age": ('strategy = "cookie"\nsticky_max_age_secs = -1', "expected a number from 0 to 2147483647, got -1"),
    "SameSite of another kind": ('strategy = "cookie"\nsticky_samesite = "lax"', "did you mean 'Lax'"),
    "a cookie that is none": ('strategy = "cookie"\nsticky_cookie = "x y"', "expected the name of a cookie, got 'x y'"),
    "a cookie that changes": ('strategy = "cookie"\nsticky_cookie = "x{instance}"', "differ from request to request"),
    "a cookie that never is one": ('strategy = "cookie"\nsticky_cookie = "x {host}"', "expected the name of a cookie, got 'x {host}'"),
    "a domain that never is one": ('strategy = "cookie"\nsticky_domain = "a;{host}"', "expected a domain such as example.com"),
    "a strategy misspelt": ('strategy = "least_con"', "did you mean 'least_conn'"),
    "backups alone": ('instances = [{ url = "x:1", backup = true }]', "every instance is a backup"),
    "a weight of 0": ('instances = [{ url = "x:1", weight = 0 }]', "weight"),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_configuration(check, reason):
    text, said = BAD[reason]
    text = "[upstreams.app]\n%s\n%s[[routes]]\nupstream = 'app'\n" % (text, "" if "instances" in text else "url = 'x:1'\n")
    p = check(text)
    assert p.returncode == 1 and said in p.stderr and re.search(r"warp\.toml:\d+:\d+: error: ", p.stderr), (reason, p.stderr)


# ---- idle connections -----------------------------------------------------------

def idle_script(secs, closed):
    """Answers requests; closes when none has come for so long, and notes that in closed."""
    def step(c):
        while True:
            c.sock.settimeout(None if not c.requests else secs)
            if not c.buf:
                try:
                    got = c.sock.recv(65536)
                except socket.timeout:
                    closed.append(c.index)
                    return c.sock.close()
                if not got:
                    c.end = "eof"
                    c.closed.set()
                    raise EOFError
                c.buf += got
            c.request()
            c.send(reply("app x"))
    return [step]


@pytest.mark.limit(40)
def test_idle_life_is_learned(warp, backend):
    """The backend closes after 1 s without a request. Twice warp sees that; from then on it is warp who closes."""
    closed = []
    b = backend(idle_script(1.0, closed))
    w = warp(conf(app=b))
    for i in (0, 1):
        assert name(w.ask()) == "app"
        eventually(lambda: closed == list(range(i + 1)), "the backend closes")
    # what was learned: 1000 ms less a tenth, rounded to a timer: 896
    for i in (2, 3):
        assert name(w.ask()) == "app"
        c = b.conn(i)
        assert c.closed.wait(10 * SLOW) and c.end == "eof", "warp closed it"
        assert closed == [0, 1], "before the backend did"
    assert len(b.conns) == 4


def test_idle_connections_are_used(warp, backend):
    """What was learned is no reason to open more connections than needed."""
    closed = []
    b = backend(idle_script(1.0, closed))
    w = warp(conf(app=b))
    w.ask()
    eventually(lambda: closed == [0], "the backend closes")
    for _ in range(10):
        assert name(w.ask()) == "app"
    assert len(b.conns) == 2
