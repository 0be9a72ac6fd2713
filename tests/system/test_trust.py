"""Whose word counts: fields that only a trusted proxy may say, RFC 7239's Forwarded, secrets that stay
secret, guards that no spelling and no shortage slips past."""
import base64
import json
import os
import re
import resource
import signal

import pytest

from lib import SANITIZED, Client, conf, eventually, free_port, toml_file

TRUST = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
SECRET = "s3cret-W0rd"

# ---- what a stranger says of himself ----------------------------------------------

VOUCHED = ["X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Port",
           "X-Forwarded-Protocol", "x-forwarded-by", "X-Client-Cert-Verify", "X-Client-Cert-Issuer-DN", "X-CLIENT-CERT-SUBJECT",
           "X_Forwarded_Ssl", "X-Forwarded_Prefix", "X_FORWARDED-SERVER", "x_client_cert_verify", "X-Client_Cert-Serial",
           "X_Real-IP", "X_Forwarded_" + "Long_" * 14]
INNOCENT = ["X-Forwarder", "X-Forwarded", "X-Client-Certainty", "X_Other", "X-Real-IPs"]


@pytest.mark.parametrize("added", [True, False], ids=["forward_headers", "none added"])
def test_strangers_vouch_for_nothing(warp, backend, added):
    """Every X-Forwarded-*, X-Client-Cert-* and what a backend could take for one; nothing else."""
    b = backend()
    w = warp(conf(app=b, middleware={"forward_headers": added}))
    assert w.ask("/", *[n + ": forged" for n in VOUCHED + INNOCENT]).status == 200
    assert [n for n in VOUCHED if "forged" in b.last.all(n)] == []
    assert [n for n in INNOCENT if b.last.get(n) != "forged"] == [], "and what nobody vouches for passes"


def test_a_trusted_proxys_words_pass(warp, backend):
    b = backend()
    w = warp(conf(app=b, server=TRUST))
    said = {"X-Forwarded-Ssl": "on", "X-Forwarded-Prefix": "/app", "X-Forwarded-Server": "edge", "X-Forwarded-Port": "443"}
    w.ask("/", *["%s: %s" % f for f in said.items()])
    assert {n: b.last.get(n) for n in said} == said


def test_a_long_twin_of_what_the_route_sets(warp, backend):
    """add_headers and remove_headers guard names of any length."""
    name = "X-" + "Tenant-" * 12 + "Id"
    b = backend()
    w = warp(conf({"add_headers": [{"name": name, "value": "mine"}]}, app=b))
    w.ask("/", name.replace("-", "_") + ": forged")
    assert b.last.get(name) == "mine" and not b.last.has(name.replace("-", "_"))


# ---- Forwarded of a trusted proxy; RFC 7239 -----------------------------------------

# reason: fields, then X-Real-IP, X-Forwarded-Proto and X-Forwarded-Host at the backend (None: warp's own view)
OWN = ("127.0.0.1", "http", "a.example")
FORWARDED = {
    "all three": (["Forwarded: for=1.2.3.4;proto=https;host=www.example"], ("1.2.3.4", "https", "www.example")),
    "names in any case, quotes, blanks": (['forwarded: Host="www.example:8443" ; PROTO="https"; For="1.2.3.4:5555"'],
        ("1.2.3.4", "https", "www.example:8443")),
    "v6 with a port": (['Forwarded: for="[2001:db8::1]:4711"'], ("2001:db8::1", "http", "a.example")),
    "the last that is not trusted, and what it came by": (
        ["Forwarded: for=6.6.6.6;proto=http, for=1.2.3.4;proto=https;host=www.example, for=10.9.8.7;proto=http;host=inner"],
        ("1.2.3.4", "https", "www.example")),
    "several lines are one list": (["Forwarded: for=6.6.6.6", "Forwarded: for=1.2.3.4;proto=https, for=10.9.8.7"],
        ("1.2.3.4", "https", "a.example")),
    "a comma in quotes parts nothing": (['Forwarded: for=1.2.3.4;ext="x, for=8.8.8.8"'], ("1.2.3.4", "http", "a.example")),
    "nor does a semicolon, nor an escaped quote": (
        [r'Forwarded: for=1.2.3.4;ext="a;\", for=8.8.8.8;proto=ftp";proto=https'], ("1.2.3.4", "https", "a.example")),
    "a hidden one is nobody's address": (["Forwarded: for=1.2.3.4, for=_hidden"], ("127.0.0.1", "http", "a.example")),
    "nor is unknown": (["Forwarded: for=unknown;proto=https"], ("127.0.0.1", "https", "a.example")),
    "X-Forwarded-For wins": (["Forwarded: for=1.2.3.4", "X-Forwarded-For: 5.6.7.8"], ("5.6.7.8", "http", "a.example")),
}


@pytest.mark.parametrize("reason", FORWARDED)
def test_forwarded_is_read(warp, backend, reason):
    fields, want = FORWARDED[reason]
    b = backend()
    w = warp(conf({"client": [want[0] + ("/128" if ":" in want[0] else "/32")]}, app=b, server=TRUST))
    assert w.ask("/", *fields).status == 200, "%s: the condition `client` sees it" % reason
    got = tuple(b.last.get(n) for n in ("X-Real-IP", "X-Forwarded-Proto", "X-Forwarded-Host"))
    assert got == want, reason
    assert b.last.get("X-Forwarded-For").endswith("127.0.0.1" if "X-" not in fields[-1] else "5.6.7.8, 127.0.0.1")


@pytest.mark.parametrize("value", ['for="', 'for=1.2.3.4;proto="https', ';;;', 'for', 'proto=ht tp', 'host="a b";for="[::1"', ","])
def test_a_broken_forwarded_is_no_word(warp, backend, value):
    """Nothing of what cannot be read is believed, nothing of it forges a field, and the request passes."""
    b = backend()
    w = warp(conf(app=b, server=TRUST))
    assert w.ask("/", "Forwarded: " + value).status == 200
    assert tuple(b.last.get(n) for n in ("X-Real-IP", "X-Forwarded-Proto", "X-Forwarded-Host")) == OWN


def test_a_strangers_forwarded_is_not_read(warp, backend):
    b = backend()
    w = warp(conf(app=b, server={"trusted_proxies": ["10.0.0.0/8"]}))
    w.ask("/", "Forwarded: for=10.0.0.1;proto=https;host=evil.example")
    assert tuple(b.last.get(n) for n in ("X-Real-IP", "X-Forwarded-Proto", "X-Forwarded-Host")) == OWN
    assert not b.last.has("Forwarded")


# reason: fields of a trusted proxy that has no Forwarded, what is sent
SAYS_X = {
    "all three": (["X-Forwarded-For: 6.6.6.6, 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: www.example"],
        "for=1.2.3.4;host=www.example;proto=https, for=127.0.0.1;host=a.example;proto=http"),
    "no address": (["X-Forwarded-Proto: https"], "for=127.0.0.1;host=a.example;proto=https"),
    "what would forge": (["X-Forwarded-For: 1.2.3.4", 'X-Forwarded-Host: a";for=6.6.6.6', "X-Forwarded-Proto: https, for=6.6.6.6"],
        "for=1.2.3.4, for=127.0.0.1;host=a.example;proto=http"),
    "what would push the rest out": (["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: " + "a" * 1000, "X-Forwarded-Proto: " + "b" * 1000],
        "for=1.2.3.4, for=127.0.0.1;host=a.example;proto=http"),
    "as long as can be": (["X-Forwarded-For: 2001:db8:1111:2222:3333:4444:5555:6666", "X-Forwarded-Host: " + "a" * 251 + ":443",
        "X-Forwarded-Proto: " + "b" * 255], 'for="[2001:db8:1111:2222:3333:4444:5555:6666]";host="%s:443";proto=%s, for=127.0.0.1;host=a.example;proto=http'
        % ("a" * 251, "b" * 255)),
}


@pytest.mark.parametrize("reason", SAYS_X)
def test_forwarded_says_what_x_forwarded_does(warp, backend, reason):
    """Who reads Forwarded learns of the same client as who reads X-Forwarded-For."""
    fields, want = SAYS_X[reason]
    b = backend()
    w = warp(conf(app=b, middleware={"forwarded": True}, server=TRUST))
    assert w.ask("/", *fields).status == 200
    assert b.last.get("Forwarded") == want


def test_forwarded_proto_ends_the_way_to_https(https, pki, backend):
    """A trusted proxy that says by Forwarded that its client came by https is not sent there again."""
    w = https(pki.cert("a.example"), conf=conf(app=backend()), server=TRUST)
    assert w.ask().status == 308
    assert w.ask("/", "Forwarded: for=1.2.3.4;proto=https").status == 200


# ---- one variable, one secret ---------------------------------------------------------

def test_admin_tokens_have_two_variables(warp):
    port = free_port()
    w = warp(toml_file(conf({"require_auth": True, "respond": {"status": 200}}, admin={"listen": ["127.0.0.1:%d" % port]})),
             env={"WARPDRIVE_ADMIN_TOKEN": "routes-t0ken", "WARPDRIVE_ADMIN_API_TOKEN": "api-t0ken"})
    def status(port, token):
        with Client(port) as c:
            return c.ask("/health", "X-Admin-Token: " + token).status
    assert [status(port, t) for t in ("api-t0ken", "routes-t0ken")] == [200, 401]
    assert [status(w.port, t) for t in ("routes-t0ken", "api-t0ken")] == [200, 401]


def test_no_variable_sets_two_keys(run):
    names = re.findall(r"\bWARPDRIVE_[A-Z0-9_]+", run("-D").stdout)
    assert len(names) > 40 and sorted(n for n in set(names) if names.count(n) > 1) == []


# ---- secrets never appear ---------------------------------------------------------------

SECRETS = {
    "a token that others can read": 'server.admin_token = "%s"\n',
    "the other one": 'admin.token = "%s"\nadmin.listen = ["127.0.0.1:1"]\n',
    "a password as text": '[[routes]]\nbasic_auth = { ann = "%s" }\nrespond = { status = 200 }\n',
    "a line that is no TOML": '[server]\nadmin_token = "%s" oops\n',
    "a string without end": '[server]\nadmin_token = "%s\n',
    "a mistake beside it": '[[routes]]\nrespond = { status = 200 }\nbasic_auth = { ann = "%s", bob = 5 }\n',
    "a mistake within it": '[server]\nadmin_token = ["%s"]\n',
    "a field for the upstream": '[[routes]]\nupstream = "app"\nadd_headers = [{ name = "X-Api-Key", value = "%s", x = 1 }]\n',
}


@pytest.mark.parametrize("reason", SECRETS)
def test_check_shows_no_secret(check, tmp_path, reason):
    """The place is said, what stands there is not."""
    os.umask(0o022)
    p = check(SECRETS[reason] % SECRET + '[upstreams.app]\nurl = "127.0.0.1:1"\n')
    out = p.stdout + p.stderr
    assert SECRET not in out, reason
    assert re.search(r"warp\.toml:\d+:\d+: (error|warning)", out), "there is something to say"


def test_config_shows_no_values_of_fields(warp, backend):
    """add_headers carries keys to backends under any name; names are shown, values are not."""
    add = lambda name: [{"name": name, "value": SECRET}]
    c = conf({"add_headers": add("X-Api-Key"), "add_response_headers": add("X-Cdn-Secret")}, app=backend(), admin={
        "listen": ["@DIR@/a.sock"]})
    w = warp(toml_file(c))
    with Client(w.path("a.sock")) as a:
        text = a.ask("/config").text
    json.loads(text)
    assert SECRET not in text and "X-Api-Key" in text and "X-Cdn-Secret" in text


# ---- the simple modes ---------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["-u", "--"])
def test_expose_in_both_simple_modes(warp, backend, mode):
    """admin.expose of the environment: warp answers there itself, and the token never goes to the backend."""
    port, b = free_port(), backend()
    wrapped = ["--", "sleep", "100"] if mode == "--" else []
    args = ["-l", "127.0.0.1:%d" % port, "-u", "127.0.0.1:%d" % (free_port() if wrapped else b.port)] + wrapped
    w = warp(None, *args, port=port, ready=not wrapped, env={"WARPDRIVE_ADMIN_EXPOSE": "/warp", "WARPDRIVE_ADMIN_TOKEN": SECRET,
        "WARPDRIVE_ADMIN_LISTEN": "off"})

    def health():
        try:
            return w.ask("/warp/health", "X-Admin-Token: " + SECRET)
        except OSError:
            return None
    m = eventually(health, "an answer")
    assert m.status == 200 and not b.requests
    assert w.ask("/warp/health").status == 401
    if wrapped:
        w.stop(status=143)                                 # 128 + SIGTERM: as the program's


# ---- guards ---------------------------------------------------------------------------------

@pytest.mark.parametrize("target", [
    "/public/..;/x", "/public/..%3b/x", "/public/..%3B/x", "/public/%2e%2e;/x", "/public/..;a=b/x", "/public/a/..;/..;/x",
    "/public/.;/../x", "/.;/x", "/public/..;%2Fx", "/public/..;\\x"])
def test_path_parameters_hide_no_dots(warp, backend, target):
    """Servers that know path parameters (Tomcat) take `..;` for `..`."""
    guard, public = backend(name="guard"), backend(name="public")
    w = warp(conf({"path_prefix": "/x", "upstream": "guard", "require_auth": True}, {"upstream": "public"}, guard=guard,
                  public=public, server={"admin_token": SECRET}))
    assert w.ask(target).status in (400, 401), target
    assert not public.requests and not guard.requests


def test_other_parameters_pass(warp, backend):
    b = backend()
    w = warp(conf({"path_prefix": "/app"}, app=b))
    for t in ("/app/a;v=1/b", "/app/...;x", "/app/..a;x", "/app/.a;..", "/app/;x", "/app/a;/..b"):
        assert w.ask(t).status == 200 and b.last.target == t, t


@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs more room than this test leaves")
def test_a_guard_needs_no_memory(warp):
    """A route is chosen by path_regex even where no memory is to be had."""
    guard = {"path_regex": "^/(admin|((ab|cd|ef){60}x){20})", "respond": {"status": 403}}
    w = warp(conf(guard, {"respond": {"status": 200}}))
    pid = w.children()[0]
    with w.client() as c:
        assert c.ask("/open").status == 200
        with open("/proc/%d/statm" % pid) as f:
            most = int(f.read().split()[0]) * resource.getpagesize() + 65536     # for heads, which are given back and taken anew
        resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        assert [c.ask(t).status for t in ("/admin", "/" + ("ab" * 60 + "x") * 20, "/open")] == [403, 403, 200]


@pytest.mark.parametrize("net", ["::/0", "::/1", "::/64"])
def test_v6_networks_hold_no_v4(warp, net):
    """`client = ["::/0"]` is every IPv6 client, and no other."""
    w = warp(conf({"client": [net], "respond": {"status": 200}}, {"respond": {"status": 403}}))
    assert w.ask().status == 403


# ---- the rate limit's memory ------------------------------------------------------------------

def test_rate_limits_of_one_line_are_apart(warp):
    """Each route has its own memory, wherever it stands in the file."""
    route = '{ path_exact = "/%s", respond = { status = 200 }, rate_limit = { requests = 1, per_secs = 60 } }'
    w = warp("routes = [ %s, %s ]\n[server]\nlisten = [\"127.0.0.1:@PORT@\"]\n" % (route % "a", route % "b"))
    assert [w.ask(t).status for t in ("/a", "/b", "/a", "/b")] == [200, 200, 429, 429]


def test_rate_limit_outlives_a_reload_that_moves_lines(warp):
    """A comment above a route forgives nobody."""
    c = toml_file(conf({"path_exact": "/a", "rate_limit": {"requests": 1, "per_secs": 600}, "respond": {"status": 200}},
                       {"path_exact": "/new", "respond": {"status": 204}}))
    w = warp(c)
    assert [w.ask("/a").status for _ in range(2)] == [200, 429]
    w.write("# a comment\n\n" + c.replace("204", "205"))
    w.signal(signal.SIGHUP)
    eventually(lambda: w.ask("/new").status == 205, "the new configuration")
    assert w.ask("/a").status == 429


def test_rate_limit_takes_a_v6_network_for_one_client(warp):
    w = warp(conf({"rate_limit": {"requests": 2, "per_secs": 600}, "respond": {"status": 200}}, server=TRUST))
    ask = lambda ip: w.ask("/", "X-Forwarded-For: " + ip).status
    assert [ask("2001:db8:1:2::%x" % i) for i in range(1, 5)] == [200, 200, 429, 429], "one /64 is one client"
    assert [ask("2001:db8:1:3::1"), ask("1.2.3.4"), ask("1.2.3.5")] == [200] * 3, "its neighbour is another, so is each of v4"
    assert [ask("1.2.3.4"), ask("1.2.3.4")] == [200, 429]


# ---- passwords that are none --------------------------------------------------------------------

HASHES = {
    "{SHA} cut short": "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g", "{SSHA}": "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr",
    "{PLAIN}": "{PLAIN}password", "in small letters": "{ssha512}AAAA", "apr1 cut short": "$apr1$abc$012345678901234567890",
    "bcrypt cut short": "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRq", "yescrypt": "$y$j9T$abc$def",
}


@pytest.mark.parametrize("reason", HASHES)
def test_a_hash_is_no_password(check, reason):
    """A form that warp does not know is an error: as plain text the hash itself would open the door."""
    p = check(toml_file(conf({"basic_auth": {"ann": HASHES[reason]}, "respond": {"status": 200}})))
    assert p.returncode == 1 and re.search(r"(?i)error: .*(hash|form|scheme)", p.stdout + p.stderr), p.stdout + p.stderr


@pytest.mark.parametrize("text", ["{", "{not closed", "a{SHA}b", "}{", "{}", "{two words}x"])
def test_braces_alone_make_no_hash(warp, text):
    w = warp(conf({"basic_auth": {"ann": text}, "respond": {"status": 200}}))
    field = "Authorization: Basic " + base64.b64encode(("ann:" + text).encode()).decode()
    assert (w.ask("/", field).status, w.ask().status) == (200, 401)
