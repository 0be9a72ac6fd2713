"""The command line: -t, -e, -D, -V, -h, exit statuses, environment and secrets."""
import os
import re
import socket

import pytest

from lib import Client, conf, free_port, toml_file

GOOD = """[server]
listen = ["127.0.0.1:18080"]
max_connections = 200
[upstreams.app]
host = "127.0.0.1"
port = 9000
[[routes]]
path_prefix = "/api"
upstream = "app"
description = "the interface"
[[routes]]
upstream = "app"
"""


def start_of(text, part):
    """line:column of part in text, from 1."""
    before = text[:text.index(part)]
    return "%d:%d" % (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


# ---- -t -------------------------------------------------------------------------

def test_check_good(check):
    p = check(GOOD)
    assert p.returncode == 0, p.stderr
    out = p.stdout + p.stderr
    for part in ("/api", "app", "127.0.0.1:9000"):
        assert part in out, "-t shows the compiled routes and upstreams"
    assert re.search(r"(?i)memory", out), "and the memory bound"
    assert not re.search(r"(?i)\berror\b", out)


def test_check_does_not_need_the_host(check):
    """-t judges the text: a port in use and a name that does not resolve are no errors."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        p = check(GOOD.replace("18080", str(s.getsockname()[1])).replace('"127.0.0.1"\nport', '"no.such.host.invalid"\nport'))
    assert p.returncode == 0, p.stderr


def test_minimal_files(check):
    for text in ("", "[upstreams.a]\nhost = 'h'\nport = 1\n", "[[routes]]\nrespond = { status = 200 }\n"):
        assert check(text).returncode in (0, 1), "an answer, not a crash"
    assert check("[[routes]]\nrespond = { status = 200 }\n").returncode == 0


R = '[upstreams.app]\nhost = "h"\nport = 1\n[[routes]]\nupstream = "app"\n'        # a file that is right
# reason: text, the part the position must point at, what the message must hold
BAD = {
    "unknown key": ("[server]\nlisten_on = [\":1\"]\n" + R, "listen_on", "listen_on"),
    "misspelt key: did you mean": ("[server]\nmax_conections = 5\n" + R, "max_conections", "max_connections"),
    "misspelt key of a route": (R + 'path_prefx = "/x"\n', "path_prefx", "path_prefix"),
    "a key of nginx": (R + 'proxy_read_timeout = 5\n', "proxy_read_timeout", "'read_timeout_secs'"),
    "one that looks like another": (R + 'root = "/srv"\n', "root", "'static_dir'"),
    "nothing of four letters is two away": (R + 'cors = true\n', "cors", "'cors' in routes$"),
    "misspelt section": ("[sevrer]\n" + R, "sevrer", "server"),
    "wrong type: text for a number": ("[server]\nmax_connections = \"many\"\n" + R, '"many"', "(?i)integer|number"),
    "wrong type: number for a text": (R + "path_prefix = 5\n", "5\n", "(?i)string|text"),
    "wrong type: text for a list": (R + 'methods = "GET"\n', '"GET"', "(?i)array|list"),
    "wrong type: number for a switch": ("[server]\nrequest_id = 1\n" + R, "1\n", "(?i)bool|true"),
    "out of range": ("[server]\nworker_threads = 100000\n" + R, "100000", r"\d"),
    "negative": ("[server]\nheader_timeout_secs = -1\n" + R, "-1", r"\d"),
    "a bad address": ('[server]\nlisten = ["nonsense"]\n' + R, '"nonsense"', "nonsense|address|port"),
    "a port too high": ('[upstreams.app]\nhost = "h"\nport = 70000\n[[routes]]\nupstream = "app"\n', "70000", "65535"),
    "a bad CIDR": ('[server]\ntrusted_proxies = ["10.0.0.0/99"]\n' + R, '"10.0.0.0/99"', "10.0.0.0/99|address|CIDR|prefix"),
    "a bad expression": (R + 'path_regex = "("\n', '"("', r"(?i)\(|paren|regex|expression"),
    "an unknown strategy": ('[upstreams.app]\nhost = "h"\nport = 1\nstrategy = "best"\n[[routes]]\nupstream = "app"\n',
        '"best"', "round_robin"),
    "an undefined upstream, near name": (R.replace('upstream = "app"', 'upstream = "ap"'), '"ap"', "app"),
    "an upstream without an address": ("[upstreams.app]\nkeepalive = 1\n[[routes]]\nupstream = 'app'\n", "app]",
        "host|socket|url|address"),
    "two addresses": ('[upstreams.app]\nhost = "h"\nport = 1\nsocket = "/s"\n[[routes]]\nupstream = "app"\n', None,
        "socket|one of"),
    "host without port": ('[upstreams.app]\nhost = "h"\n[[routes]]\nupstream = "app"\n', None, "port"),
    "a route without an action": ("[[routes]]\npath_prefix = '/'\n", None, "upstream"),
    "two actions": (R + 'redirect = "/x"\n', None, "redirect|action"),
    "an empty token": ('[server]\nadmin_token = ""\n' + R, '""', "(?i)empty|token"),
    "a status that is none": ('[[routes]]\nrespond = { status = 99 }\n', "99", r"\d"),
    "a header name with a blank": (R + 'add_headers = [{ name = "a b", value = "c" }]\n', '"a b"', "(?i)name|token|header"),
    "a header value with a line end": (R + 'add_headers = [{ name = "a", value = "c\\r\\nd: e" }]\n', None, "(?i)value|header"),
    "a path without a slash": (R + 'path_prefix = "api"\n', '"api"', "/"),
    "TOML: no value": ("[server]\nmax_connections =\n" + R, None, "(?i)value"),
    "TOML: text without end": ('[server]\nuser = "x\n' + R, None, "(?i)string|quote|line|text"),
    "TOML: the same key twice": ("[server]\nhttp_port = 1\nhttp_port = 2\n" + R, "http_port = 2",
        "(?i)twice|again|duplicate|already|defined"),
    "files and an upstream": (R + "static_dir = '/srv'\n", None, "static_dir|exclude"),
    "a key of files without files": (R + "listing = true\n", "listing", "static_dir"),
}


@pytest.mark.parametrize("reason", BAD)
def test_check_bad(check, reason):
    """exit 1; file:line:col: error: what, the line, a caret below the place."""
    text, part, message = BAD[reason]
    p = check(text)
    assert p.returncode == 1, "%s: %s" % (reason, p.stdout + p.stderr)
    errors = re.findall(r"(?m)^\S*warp\.toml:(\d+:\d+): error: (.*)\n(    .*)\n(    [ \t]*\^)", p.stderr)
    assert errors, "%s: no position in:\n%s" % (reason, p.stderr)
    if "\t" not in p.stderr:
        for at, _, quoted, caret in errors:
            line, col = map(int, at.split(":"))
            shown, secret, _ = quoted[4:].partition(" ***")
            assert text.split("\n")[line - 1][:None if secret == "" else len(shown)] == shown, "the line itself"
            assert caret.index("^") - 4 == col - 1, "the caret is at the column"
    assert any(re.search(message, what) for _, what, _, _ in errors), "%s: %s" % (reason, errors)
    if part:
        line = start_of(text, part).split(":")[0]
        assert line in [at.split(":")[0] for at, *_ in errors], "%s: at %s, wanted line %s" % (reason, [e[0] for e in errors],
               line)


@pytest.mark.parametrize("reason", ["unknown key", "wrong type: text for a number", "out of range",
    "an undefined upstream, near name", "a bad expression"])
def test_exact_column(check, reason):
    text, part, _ = BAD[reason]
    p = check(text)
    assert "warp.toml:%s: error" % start_of(text, part) in p.stderr, p.stderr


def test_check_all_errors_at_once(check):
    text = '[server]\nmax_conections = 1\nworker_threads = "x"\n[upstreams.app]\nhost = "h"\nport = 99999\n[[routes]]\nupstream = "nope"\npath_regex = "("\n[tls]\nenabled = true\n'
    p = check(text)
    lines = [int(x) for x in re.findall(r"(?m)^\S*warp\.toml:(\d+):\d+: error", p.stderr)]
    assert p.returncode == 1 and {2, 3, 6, 8, 9} <= set(lines), p.stderr
    assert lines == sorted(lines), "in the order of the file"


WARNINGS = {
    "a route that an earlier one hides": ('[[routes]]\npath_prefix = "/"\nrespond = { status = 200 }\n[[routes]]\npath_prefix = "/x"\nrespond = { status = 200 }\n', "(?i)unreachable|never|hid"),
    "require_auth without a token": (R + "require_auth = true\n", "(?i)token"),
    "files whose path keeps its prefix": ('[[routes]]\npath_prefix = "/no/such/"\nstatic_dir = "/usr"\n', "no directory /usr/no/such/ now: without strip_prefix"),
    "a script for a page": ('[[routes]]\nstatic_dir = "/no"\nfallback = "/index.php"\n', "its text is sent; with @NAME"),
    "almost a word for a log": ('[log]\naccess = "sdtout"\n' + R, "a file of this name, did you mean 'stdout'?"),
    "a page that is not there": ('[[routes]]\nstatic_dir = "/usr"\nfallback = "/no.html"\n', "there is no such file in /usr now"),
    "a log without its directory": ('[log]\naccess = "/no/such/log"\n' + R, "there is no directory /no/such/ now"),
}


@pytest.mark.parametrize("text", ['[[routes]]\npath_prefix = "/lib/"\nstatic_dir = "/usr"\nfallback = "lib"\n',
    '[[routes]]\npath_prefix = "/no/such/"\nstatic_dir = "/usr"\nstrip_prefix = true\n', '[log]\naccess = "log"\nerror = "syslog"\n' + R])
def test_check_does_not_warn(check, text):
    assert "there is no" not in check(text).stderr


@pytest.mark.parametrize("reason", WARNINGS)
def test_check_warns(check, reason):
    text, message = WARNINGS[reason]
    p = check(text)
    out = p.stdout + p.stderr
    assert p.returncode == 0 and re.search("(?i)warning", out) and re.search(message, out), "%s: %s" % (reason, out)


def test_check_secret_readable_by_others(check, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("s\n")
    for mode, warned in ((0o644, True), (0o600, False)):
        secret.chmod(mode)
        p = check('[server]\nadmin_token = "file:%s"\n' % secret + R + "require_auth = true\n")
        assert p.returncode == 0 and bool(re.search(r"(?i)warning.*\n?.*(readable|others|mode)",
               p.stdout + p.stderr)) == warned, oct(mode)


def test_check_file_problems(run, tmp_path):
    for name, make in (("none.toml", lambda f: None), ("dir.toml", lambda f: f.mkdir()),
            ("binary.toml", lambda f: f.write_bytes(bytes(range(256)))),
            ("bom16.toml", lambda f: f.write_bytes("a=1".encode("utf-16")))):
        make(tmp_path / name)
        p = run("-t", "-c", name)
        assert p.returncode == 1 and name in p.stderr, name
        assert run("-c", name).returncode == 1, "nor does it start"


@pytest.mark.promise("S2-56")
def test_starting_with_a_bad_file(run):
    p = run("-c", "warp.toml", conf="[server]\nnope = 1\n")
    assert p.returncode == 1 and "warp.toml:2:1: error" in p.stderr


# ---- exit statuses --------------------------------------------------------------

@pytest.mark.parametrize("reason, args, status", [
    ("unknown option", ["-Q"], 2), ("option without its value", ["-c"], 2), ("a stray word", ["frobnicate"], 2),
        ("help", ["-h"], 0), ("version", ["-V"], 0), ("keys", ["-D"], 0)])
def test_exit_status(run, reason, args, status):
    p = run(*args)
    assert p.returncode == status, "%s: %s" % (reason, p.stderr)
    assert p.stderr if status else p.stdout, "something is said"


def test_nothing_to_do_is_a_usage_error(run):
    if os.path.exists("/etc/warp.toml"):
        pytest.skip("this host has a configuration")
    p = run()
    assert p.returncode == 2
    for way in ("-c", "-u", "WARPDRIVE_"):
        assert way in p.stderr, "the ways to start"


def test_cannot_bind_is_3(run):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        p = run("-c", "warp.toml", conf='[server]\nlisten = ["127.0.0.1:%d"]\n[admin]\nlisten = "off"\n[[routes]]\nrespond = { status = 200 }\n' % port)
    assert p.returncode == 3 and str(port) in p.stderr, p.stderr


def test_bad_simple_address(run):
    for args in (["-u", "nonsense"], ["-u", "127.0.0.1:99999"], ["-l", "nonsense", "-u", "127.0.0.1:1"]):
        p = run(*args)
        assert p.returncode in (1, 2) and p.stderr, args


# ---- -D, -V, -h -----------------------------------------------------------------

KEYS = """server.http_port server.listen server.worker_threads server.user server.group server.chroot server.max_connections
server.header_timeout_secs server.body_timeout_secs server.keepalive_timeout_secs server.keepalive_requests
server.write_timeout_secs server.tunnel_timeout_secs server.shutdown_timeout_secs server.max_header_bytes
server.max_body_bytes server.trusted_proxies server.proxy_protocol server.admin_token server.no_route_status
server.request_id server.socket_mode server.show_errors server.error_dir server.server_tokens keepalive
connect_timeout_secs read_timeout_secs retries max_fails fail_timeout_secs host_header strategy weight socket url
instances path_prefix path_exact path_regex methods header query client redirect respond strip_prefix rewrite
add_headers remove_headers add_response_headers remove_response_headers require_auth basic_auth rate_limit
buffer_request websocket description middleware.forward_headers middleware.forwarded middleware.via
middleware.log_requests log.access log.format log.error log.level admin.listen admin.token""".split()


def test_keys(run):
    """-D names every key with its type, default and environment name."""
    out = run("-D").stdout
    missing = [k for k in KEYS if not re.search(r"(?m)(^|[^\w])%s\b" % re.escape(k.split(".")[-1]), out)]
    assert not missing, missing
    for line, parts in ((r"^.*\bmax_connections\b.*1024.*$", ["1024", "WARPDRIVE_MAX_CONNECTIONS"]),
            (r"^.*\bno_route_status\b.*$", ["502", "WARPDRIVE_NO_ROUTE_STATUS"]), (r"^.*\bheader_timeout_secs\b.*$", ["10"])):
        m = re.search("(?m)" + line, out)
        assert m and all(p in m[0] for p in parts), (line, m and m[0])
    for env in ("WARPDRIVE_HTTP_PORT", "WARPDRIVE_LOG_LEVEL", "WARPDRIVE_MIDDLEWARE_FORWARD_HEADERS", "WARPDRIVE_ADMIN_LISTEN"):
        assert env in out, env


def test_version_and_help(run):
    assert re.search(r"warp.*\d+\.\d+", run("-V").stdout)
    out = run("-h").stdout
    for option in ("-c", "-t", "-e", "-u", "-l", "-D", "-d", "-p", "-s"):
        assert re.search(r"(?m)(^|[\s\[|])%s\b" % option, out), option
    lines = out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80, "it fits on a terminal"


def test_keys_by_a_part_of_their_names(run):
    """-D PART: of the keys, and of their variables."""
    p = run("-D", "server.user")
    assert p.returncode == 0 and [line.split()[0] for line in p.stdout.splitlines()[::2]] == ["server.user"]
    assert run("-D", "WARPDRIVE_USER").stdout == p.stdout
    p = run("-D", "no_such_key")
    assert p.returncode == 2 and "no_such_key" in p.stderr and not p.stdout


# ---- -e -------------------------------------------------------------------------

EXPLAINED = """[server]
listen = ["127.0.0.1:18080"]
[upstreams.web]
host = "127.0.0.1"
port = 9000
[upstreams.jobs]
[[upstreams.jobs.instances]]
host = "127.0.0.1"
port = 9001
[[upstreams.jobs.instances]]
socket = "/run/jobs.sock"
[[routes]]
host = "other.example"
upstream = "web"
[[routes]]
path_prefix = "/sidekiq"
methods = ["GET"]
header = { name = "X-Env", value = "beta" }
client = ["10.0.0.0/8"]
upstream = "jobs"
strip_prefix = true
add_headers = [{ name = "X-Added", value = "yes" }]
remove_headers = ["Cookie"]
[[routes]]
path_exact = "/old"
redirect = "https://{host}/new"
[[routes]]
upstream = "web"
"""


# reason: arguments, what must be said, what must not
EXPLAIN = {
    "the winner, its target, instances and fields": (["GET http://a.example/sidekiq/jobs?x=1", "-H", "X-Env: beta", "-H",
        "Cookie: a=b", "-a", "10.1.2.3"], ["/jobs?x=1", "127.0.0.1:9001", "/run/jobs.sock", "X-Added", "Cookie"], []),
    "why not: host": (["GET /sidekiq", "-H", "Host: a.example"], ["host"], []),
    "why not: method": (["POST http://a/sidekiq", "-H", "X-Env: beta", "-a", "10.1.2.3"], ["(?i)method"], []),
    "why not: header": (["GET http://a/sidekiq", "-a", "10.1.2.3"], ["(?i)header"], []),
    "why not: client": (["GET http://a/sidekiq", "-H", "X-Env: beta", "-a", "192.0.2.1"], ["(?i)client"], []),
    "a redirect": (["GET http://a.example/old"], ["https://a.example/new"], []),
    "a URL in the query": (["GET /old?next=http://b.example/x", "-H", "Host: a.example"], ["https://a.example/new"], []),
    "a query behind the host": (["GET http://a.example?x=http://b/"], ["GET /?x=http://b/ HTTP/1.1\nHost: a.example\n"], []),
    "the last one": (["GET http://a.example/x"], ["127.0.0.1:9000"], ["/run/jobs.sock"]),
}


@pytest.mark.parametrize("reason", EXPLAIN)
def test_explain(run, reason):
    (what, *more), says, says_not = EXPLAIN[reason]
    p = run("-c", "warp.toml", "-e", what, *more, conf=EXPLAINED)
    assert p.returncode == 0, p.stderr
    for s in says:
        assert re.search(s if s.startswith("(?") else re.escape(s), p.stdout), "%s: no %r in:\n%s" % (reason, s, p.stdout)
    for s in says_not:
        assert s not in p.stdout.split("\n", 1)[1], reason


def test_explain_bad(run):
    for what in ("", "GET", "nonsense\x01 /", "GET /../x"):
        p = run("-c", "warp.toml", "-e", what, conf=EXPLAINED)
        assert p.returncode >= 0 and (p.stdout or p.stderr), repr(what)
    assert run("-c", "warp.toml", "-e", "", conf=EXPLAINED).returncode != 0


# ---- simple mode and environment ------------------------------------------------

def test_simple_mode(warp, backend):
    b = backend()
    w = warp(None, "-l", "127.0.0.1:@PORT@", "-u", "127.0.0.1:%d" % b.port, env={"WARPDRIVE_ADMIN_LISTEN": "off"})
    assert w.ask("/x").text == "app GET /x 0"


def test_simple_mode_unix(warp, backend):
    b = backend(unix=True)
    w = warp(None, "-l", "127.0.0.1:@PORT@", "-u", b.unix, env={"WARPDRIVE_ADMIN_LISTEN": "off"})
    assert w.ask("/x").text == "app GET /x 0"


@pytest.mark.promise("S2-53")
def test_environment_simple_mode(warp, backend):
    port = free_port()
    w = warp(None, env={"WARPDRIVE_TARGET_HOST": "127.0.0.1", "WARPDRIVE_TARGET_PORT": str(backend().port),
        "WARPDRIVE_HTTP_PORT": str(port), "WARPDRIVE_ADMIN_LISTEN": "off"}, port=port)
    assert w.ask("/x").text == "app GET /x 0"


@pytest.mark.promise("S2-54")
def test_environment_names_the_file(warp, backend, tmp_path):
    port = free_port()
    f = tmp_path / "named.toml"
    f.write_text(toml_file({**conf(app=backend()), "server": {"listen": ["127.0.0.1:%d" % port]}, "admin": {"listen": "off"}}))
    w = warp(None, env={"WARPDRIVE_CONFIG": str(f)}, port=port)
    assert w.ask("/x").status == 200


def test_command_line_beats_environment(warp, tmp_path):
    w = warp(conf({"respond": {"status": 200, "body": "mine"}}), env={"WARPDRIVE_CONFIG": "/nonexistent.toml"})
    assert w.ask().text == "mine"


@pytest.mark.promise("S2-55")
def test_environment_wins_over_the_file(warp, backend):
    port = free_port()
    w = warp(conf({"path_exact": "/x"}, app=backend(), server={"no_route_status": 404, "keepalive_requests": 1000},
        middleware={"forward_headers": True}),
             env={"WARPDRIVE_NO_ROUTE_STATUS": "410", "WARPDRIVE_KEEPALIVE_REQUESTS": "1",
                 "WARPDRIVE_LISTEN": "127.0.0.1:%d,[::1]:%d" % (port, port), "WARPDRIVE_MIDDLEWARE_FORWARD_HEADERS": "false"},
                 port=port)
    with w.client() as c:
        m = c.ask("/none")
        assert m.status == 410 and "close" in m.tokens("connection")
    with Client(("::1", port)) as c:
        assert c.ask("/x").status == 200, "a list is comma-separated"


@pytest.mark.parametrize("name, value", [("WARPDRIVE_HTTP_PORT", "http"), ("WARPDRIVE_MAX_CONNECTIONS", "-5"),
    ("WARPDRIVE_REQUEST_ID", "maybe"), ("WARPDRIVE_TRUSTED_PROXIES", "10.0.0.0/8,x"), ("WARPDRIVE_HEADER_TIMEOUT_SECS",
    "soon")])
def test_environment_that_does_not_parse(check, name, value):
    p = check(R, env={name: value})
    assert p.returncode == 1 and name in p.stderr, "the error names the variable"


SECRETS = {
    "env:": ('"env:MY_TOKEN"', {"MY_TOKEN": "s3cret"}, None),
    "file:": ('"file:{d}/token"', {}, "s3cret\n"),
    "file: relative to the configuration": ('"file:token"', {}, "s3cret"),
    "plain": ('"s3cret"', {}, None),
}


@pytest.mark.parametrize("reason", SECRETS)
def test_secrets(warp, tmp_path, reason):
    value, env, content = SECRETS[reason]
    d = tmp_path / "conf"
    d.mkdir()
    if content:
        (d / "token").write_text(content)
        (d / "token").chmod(0o600)
    w = warp("[server]\nadmin_token = %s\n[[routes]]\nrequire_auth = true\nrespond = { status = 200 }\n" % value.format(d=d),
        env=env, dir=d)
    assert w.ask("/", "X-Admin-Token: s3cret").status == 200
    assert w.ask("/", "X-Admin-Token: " + value.strip('"')).status == (200 if reason == "plain" else 401)


@pytest.mark.parametrize("value", ["env:NOT_SET_ANYWHERE", "file:/nonexistent/token"])
def test_secret_that_is_not_there(check, value):
    p = check('[server]\nadmin_token = "%s"\n' % value + R)
    assert p.returncode == 1 and re.search(r"warp\.toml:2:\d+: error", p.stderr) and value.split(":", 1)[1] in p.stderr


def test_basic_auth_secret_from_the_environment(warp):
    w = warp('[[routes]]\nbasic_auth = { joe = "env:JOES" }\nrespond = { status = 200 }\n', env={"JOES": "pw"})
    assert w.ask("/", "Authorization: Basic am9lOnB3").status == 200
