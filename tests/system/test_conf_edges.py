"""What the text of a configuration shows is said at -t, truthfully, and without its secrets."""
import json
import os
import re

import pytest

import tls as tls_tools
from lib import SANITIZED, Client, eventually, free_port
from supervised import fleet

OK = "respond = { status = 200 }\n"
R = "[[routes]]\n"
UP = '[upstreams.a]\nhost = "127.0.0.1"\nport = 9\n'
HEAD = '[server]\nhttp_port = 8080\n[admin]\nlisten = "off"\n'


def said(p, level):
    """The texts of that level, each with the line it quotes."""
    return re.findall(r"(?m)^warp\.toml(?::[\d:]+)?: %s: (.*)$" % level, p.stdout + p.stderr)


def wrong(p):
    """Errors and warnings, without what the host is to blame for."""
    return [t for t in said(p, "error") + said(p, "warning") if "run as root" not in t]


# ---- conditions that cannot match -------------------------------------------------------

CANNOT = {
    "a URL as host": ('host = "http://x"\n', "host"),
    "a URL with a port": ('host = "https://a.example:8443"\n', "host"),
    "a host with a path": ('host = "a.example/x"\n', "host"),
    "a star inside a prefix": ('path_prefix = "/a/*/b"\n', r"\*"),
    "two stars": ('path_prefix = "/a*b*"\n', r"\*"),
    "a star at the end of an exact path": ('path_exact = "/a/*"\n', r"\*"),
    "an expression that begins elsewhere": ('path_regex = "^api"\n', "begin with '/'"),
    "a value that no field has": ('header = { name = "X-A", value = " x" }\n', "X-A|blank|space|header"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_conditions_that_cannot_match(check, case):
    """An error, or a warning: never silence."""
    text, words = CANNOT[case]
    got = wrong(check(HEAD + R + text + OK))
    assert any(re.search(words, t) for t in got), got


@pytest.mark.parametrize("text", ['host = "a.example:8080"\n', 'host = "*.a.example"\n', 'host = "*"\n', 'path_prefix = "/ws*"\n',
                                  'host = "[::1]"\n', 'header = { name = "X-A", value = "*" }\n'])
def test_conditions_that_can(check, text):
    assert not wrong(check(HEAD + R + text + OK))


@pytest.mark.parametrize("name", ["bücher.example", "Bücher.Example", "例え.jp", "*.münchen.example", "bücher.example:8080"])
def test_hosts_in_other_letters(check, run, name):
    """Clients ask for the A-label: the condition is taken as that."""
    text = HEAD + R + 'host = "%s"\n' % name + OK
    assert not said(check(text), "error")
    ascii_name = name.lower().partition(":")[0].replace("*", "www").encode("idna").decode()
    p = run("-c", "warp.toml", "-e", "GET http://%s/" % ascii_name, conf=text)
    assert "taken" in p.stdout, p.stdout + p.stderr


@pytest.mark.skipif(SANITIZED, reason="glibc, which debug builds use, knows small letters of ASCII alone without a locale")
@pytest.mark.parametrize("name, is_plain", [("\u212aelvin.example", "kelvin.example"), ("\u0130x.example", None)])
def test_hosts_whose_letters_become_plain(run, name, is_plain):
    """The Kelvin sign is a k: such a label needs no prefix, and one that has it is never asked for."""
    text = HEAD + R + 'host = "%s"\n' % name + OK
    p = run("-c", "warp.toml", "-e", "GET http://%s/" % (is_plain or "ix.example"), conf=text)
    assert "taken" in p.stdout, p.stdout + p.stderr


# ---- what goes out as it stands ----------------------------------------------------------

LITERAL = {
    "redirect, no expression": ('redirect = "https://new.example/$1"\n', r"\$1 needs path_regex"),
    "added, misspelt": ('upstream = "a"\nadd_headers = [{ name = "X-Host", value = "{hots}" }]\n', r"\{hots\}.*\{host\}"),
    "added, inside": ('upstream = "a"\nadd_headers = [{ name = "X-A", value = "a {cilent}, b" }]\n', r"\{cilent\}.*\{client\}"),
    "added, of the request": ('upstream = "a"\nadd_headers = [{ name = "X-A", value = "{headers.X-B}" }]\n', r"\{headers\.X-B\}.*\{header"),
    "added, a group": ('path_regex = "^/(a)"\nupstream = "a"\nadd_headers = [{ name = "X-A", value = "$2" }]\n', r"\$2: path_regex has 1 group"),
    "added, in another case": ('upstream = "a"\nadd_headers = [{ name = "X-A", value = "{Host}" }]\n', r"\{Host\}.*\{host\}"),
    "added, no expression": ('upstream = "a"\nadd_headers = [{ name = "X-A", value = "$1" }]\n', r"\$1 needs path_regex"),
    "added, as in nginx": ('upstream = "a"\nadd_headers = [{ name = "X-A", value = "$remote_addr" }]\n', r"\$remote_addr.*\{client\}"),
    "redirect, as in nginx": ('redirect = "https://new.example$request_uri"\n', r"\$request_uri.*\{uri\}"),
    "added to the answer": (OK + 'add_response_headers = [{ name = "X-A", value = "{request-id}" }]\n', r"\{request-id\}.*\{request_id\}"),
}


@pytest.mark.parametrize("case", LITERAL)
def test_what_only_looks_like_a_variable(check, case):
    text, words = LITERAL[case]
    p = check(HEAD + (UP if 'upstream = "a"' in text else "") + R + text)
    assert p.returncode == 0, p.stderr
    assert any(re.search(words, t) for t in said(p, "warning")), said(p, "warning")


@pytest.mark.parametrize("text", ['redirect = "https://{host}{uri}"\n', 'redirect = "https://a.example/?price=$"\n',
                                  OK + 'add_response_headers = [{ name = "Report-To", value = "{\\"a\\": {\\"host\\": 1}}" }]\n',
                                  OK + 'add_response_headers = [{ name = "X-Price", value = "US$ 5, $x" }]\n'])
def test_braces_that_are_none(check, text):
    assert not wrong(check(HEAD + R + text))


# ---- values ------------------------------------------------------------------------------

HASH = "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr"


@pytest.mark.parametrize("value", [HASH, "{PLAIN}x", "{x-odd}abc", "$y$j9T$x$xxxxxxxx", "$2y$05$c4WoMPo3SXsafkva.HHa6u"])
def test_basic_auth_of_an_unknown_form(check, value):
    """Else the hash itself would be the password."""
    p = check(HEAD + R + OK + 'basic_auth = { ann = "%s" }\n' % value)
    assert p.returncode == 1 and any("basic_auth" in t for t in said(p, "error")), p.stderr


def test_basic_auth_of_an_unknown_form_from_elsewhere(run, tmp_path):
    """And so where it comes from the environment or a file; a brace alone makes no form."""
    text = HEAD + R + OK + 'basic_auth = { ann = "%s" }\n'
    (tmp_path / "pw").write_text(HASH + "\n")
    (tmp_path / "pw").chmod(0o600)
    for where in ("env:PW", "file:pw"):
        assert run("-t", "-c", "warp.toml", conf=text % where, env={"PW": HASH}).returncode == 1, where
    assert run("-t", "-c", "warp.toml", conf=text % "a{SSHA}b").returncode == 0


@pytest.mark.parametrize("host", ["a b", "http://x", "a/b", "a@b", "", "a.example:http", "[::1"])
def test_added_host_must_be_one(check, host):
    p = check(HEAD + UP + R + 'upstream = "a"\nadd_headers = [{ name = "host", value = "%s" }]\n' % host)
    assert p.returncode == 1 and any(re.search("(?i)host", t) for t in said(p, "error")), p.stderr


@pytest.mark.parametrize("host", ["a.example", "a.example:80", "[::1]:8080", "10.0.0.1", "under_score.example"])
def test_added_host_that_is_one(check, host):
    assert check(HEAD + UP + R + 'upstream = "a"\nadd_headers = [{ name = "Host", value = "%s" }]\n' % host).returncode == 0


@pytest.mark.parametrize("where,mode", [("env", "0o660"), ("env", "0660"), ("env", "660"), ("file", '"0o660"'), ("file", '"0660"'),
                                        ("file", "0o660")])
def test_socket_mode(warp, where, mode):
    """The form that the error names is one."""
    env, key = ({"WARPDRIVE_SOCKET_MODE": mode}, "") if where == "env" else ({}, "socket_mode = %s\n" % mode)
    w = warp('[server]\n%slisten = ["127.0.0.1:@PORT@", "unix:@DIR@/s"]\n' % key + R + OK, env=env)
    assert os.stat(w.path("s")).st_mode & 0o777 == 0o660


@pytest.mark.parametrize("mode", ["0o999", "0o", "0x1f", "0o1777", "-1", "u=rw"])
def test_socket_mode_that_is_none(run, mode):
    p = run("-t", "-c", "warp.toml", conf=HEAD + R + OK, env={"WARPDRIVE_SOCKET_MODE": mode})
    assert p.returncode == 1 and "WARPDRIVE_SOCKET_MODE" in p.stderr


@pytest.mark.parametrize("text,key", [(R + OK + "basic_auth = {}\n", "basic_auth"), (UP + "instances = []\n", "instances"),
                                      ("[tls]\ncerts = []\n" + R + OK, "certs")])
def test_errors_do_not_contradict_themselves(check, text, key):
    """Never `expected a table, got a table`."""
    got = [t for t in said(check(HEAD + text), "error") if key in t]
    assert got and not re.search(r"expected (a (?:table|list)).*got \1(?! o)", got[0]), got
    assert re.search("(?i)empty|at least|none|no user", got[0]), got


# ---- tls ----------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["cert", "certs"])
def test_tls_is_on_with_certificates(warp, pki, how):
    """Without `enabled`."""
    c, port = pki.cert("a.example"), free_port()
    pair = 'cert = "%s"\nkey = "%s"\n' % (c.cert, c.key)
    w = warp('[server]\nlisten = ["127.0.0.1:@PORT@"]\nhttps_listen = ["127.0.0.1:%d"]\n%s%s' % (
        port, "[tls]\n" + pair if how == "cert" else "[[tls.certs]]\n" + pair, R + 'respond = { status = 200, body = "ok" }\n'))
    with tls_tools.Client(port, tls_tools.context(pki.root), "a.example") as tc:
        assert tc.ask().text == "ok"
    assert "not bound" not in w.stderr


def test_tls_is_on_with_domains(check):
    p = check('[server]\nhttps_port = 8443\n[tls]\ndomains = ["a.example"]\n[admin]\nlisten = "off"\n' + R + OK)
    assert p.returncode == 0 and not any("not bound" in t or "enabled" in t for t in wrong(p)), p.stderr


@pytest.mark.parametrize("env", [{}, {"WARPDRIVE_TLS_ENABLED": "false"}])
def test_tls_that_is_said_to_be_off(run, pki, env):
    c = pki.cert("a.example")
    p = run("-t", "-c", "warp.toml", env=env, conf='[server]\nhttps_port = 8443\n[tls]\n%scert = "%s"\nkey = "%s"\n' % (
        "" if env else "enabled = false\n", c.cert, c.key) + R + OK)
    assert p.returncode == 0 and any("not bound" in t for t in said(p, "warning")), p.stderr


def test_tls_table_alone_is_off(check):
    """Neither certificate nor domain: nothing was switched on."""
    p = check('[server]\nhttps_port = 8443\n[tls]\nhsts_secs = 5\n' + R + OK)
    assert p.returncode == 0 and any("not bound" in t for t in said(p, "warning")), p.stderr


@pytest.mark.parametrize("tls", ['domains = ["*.a.example"]\n', 'domains = ["a b"]\n', "domains = 5\n", "cert = 5\n", 'cert = ""\n',
                                 'key = "/x"\n'])
@pytest.mark.parametrize("on", ["enabled = true\n", ""])
def test_one_error_draws_no_untrue_warnings(check, tls, on):
    """After what is wrong with its names or certificates nobody is told that TLS has none, or is off."""
    if not on and tls.startswith("key"):
        return                                             # a key alone switches nothing on
    p = check('[server]\nhttps_port = 8443\n[tls]\n' + on + tls + R + OK)
    assert p.returncode == 1 and len(said(p, "error")) == 1, p.stderr
    assert not [t for t in wrong(p) if re.search("not bound|not served|not enabled|neither", t)], p.stderr


# ---- secrets ------------------------------------------------------------------------------

SECRET = "Zx9-s3cr3t"
SHOWN = {
    "a secret that others can read": ('[server]\nadmin_token = "%s"\n' + R + OK, "readable by others", 0),
    "of one kind with others in a line": ('server = { admin_token = "%s", http_port = 80 }\n' + R + OK, "readable by others", 0),
    "a password in plain text": ("[server]\n" + R + OK + 'basic_auth = { ann = "%s" }\n', "plain text", 0),
    "something else is wrong in its line": ('server = { admin_token = "%s", htpp_port = 80 }\n' + R + OK, "htpp_port", 1),
    "the text does not end": ('[server]\nadmin_token = "%s\n' + R + OK, "error", 1),
    "something stands behind it": ('[server]\nadmin_token = "%s" x\n' + R + OK, "error", 1),
    "it is no text": ("[server]\nadmin_token = [\"%s\"]\n" + R + OK, "admin_token", 1),
    "a dotted key": ('server.admin_token = "%s"\n' + R + OK, "readable by others", 0),
    "a list of headers": (UP + R + 'upstream = "a"\nadd_headers = [{ name = "Authorization", value = "%s" }, { nam = "x" }]\n',
                          "nam", 1),
    "the environment of a process": ('[processes.p]\ncommand = "true"\nenv = { PW = "%s", X = [1] }\n' + R + OK, "env", 1),
    "behind a sign that starts no comment": ('admin = { listen = ["unix:/x/a#b"], token = "%s", bogus = 1 }\n' + R + OK, "bogus", 1),
    "an admin token": ('[admin]\nlisten = "off"\ntoken = "%s" # mine\n' + R + OK, "readable by others", 0),
}


@pytest.mark.parametrize("case", SHOWN)
def test_check_does_not_show_secrets(check, tmp_path, case):
    """-t quotes lines, but not what is secret in them."""
    text, words, status = SHOWN[case]
    old = os.umask(0o022)
    try:
        p = check(text % SECRET)
    finally:
        os.umask(old)
    out = p.stdout + p.stderr
    assert p.returncode == status and words in out, out
    assert SECRET not in out, out


@pytest.mark.parametrize("url, secret", [("redis://127.0.0.1:6379/1", False), ("unix:/run/redis.sock", False),
                                         ("redis://:pw@127.0.0.1", True), ("redis://ann:pw@127.0.0.1", True)])
def test_url_without_a_password_is_no_secret(check, url, secret):
    old = os.umask(0o022)
    try:
        p = check('[cache]\nsize_bytes = 1000000\nredis_url = "%s"\n' % url + R + OK)
    finally:
        os.umask(old)
    assert p.returncode == 0 and ("readable by others" in p.stderr) == secret, p.stderr


def test_check_shows_names_in_one_line(check):
    p = check(HEAD + R + OK + '[processes."a\\nerror: b"]\ncommand = "true"\n')
    assert p.returncode == 1 and "\nerror: b" not in p.stderr, p.stderr


def test_check_shows_other_lines(check):
    """What is no secret is quoted as it stands."""
    p = check(HEAD + R + OK + "wrong_key = 'this here'\n")
    assert "wrong_key = 'this here'" in p.stdout + p.stderr


def test_secrets_in_config(warp):
    """/config: values of added headers are as secret as passwords, names are not."""
    w = warp(UP + R + 'upstream = "a"\nadd_headers = [{ name = "X-Api-Key", value = "%s" }, { name = "Authorization", value = "%s" }]\n'
             'basic_auth = { ann = "%s" }\n[admin]\nlisten = ["@DIR@/admin"]\n' % (SECRET, SECRET, SECRET))
    with Client(w.path("admin")) as c:
        m = c.ask("/config")
    assert SECRET not in m.text, m.text
    added = json.dumps(m.json["routes"][0]["add_headers"])
    assert "X-Api-Key" in added and "***" in added


def test_secrets_among_routes(check):
    """The compiled routes of -t have none either."""
    p = check(HEAD + UP + R + 'upstream = "a"\nadd_headers = [{ name = "X-Api-Key", value = "%s" }]\n' % SECRET)
    assert p.returncode == 0 and SECRET not in p.stdout + p.stderr


# ---- the environment ------------------------------------------------------------------------

def test_one_variable_sets_one_key(run):
    """No two keys of -D have the same variable."""
    p = run("-D")
    names = re.findall(r"\bWARPDRIVE_[A-Z0-9_]+", p.stdout)
    assert len(names) > 50 and "WARPDRIVE_ADMIN_API_TOKEN" in names
    assert not {n for n in names if names.count(n) > 1}


def test_both_tokens_from_the_environment(warp, backend):
    """WARPDRIVE_ADMIN_TOKEN is server.admin_token, WARPDRIVE_ADMIN_API_TOKEN is admin.token, neither is both."""
    admin = free_port()
    w = warp('[admin]\nlisten = ["127.0.0.1:%d"]\n' % admin + R + "require_auth = true\n" + OK,
             env={"WARPDRIVE_ADMIN_TOKEN": "server-one", "WARPDRIVE_ADMIN_API_TOKEN": "admin-one"})
    for port, good, bad in ((w.port, "server-one", "admin-one"), (admin, "admin-one", "server-one")):
        for token, status in ((good, 200), (bad, 401)):
            with Client(port) as c:
                assert c.ask("/health", "X-Admin-Token: " + token).status == status, (port, token)


def test_simple_mode_exposes_admin(warp, backend):
    """admin.expose holds without a file too: the token is warp's to see, not the backend's."""
    b = backend()
    w = warp(None, "-l", "127.0.0.1:@PORT@", "-u", "127.0.0.1:%d" % b.port,
             env={"WARPDRIVE_ADMIN_EXPOSE": "/warp", "WARPDRIVE_ADMIN_TOKEN": "t0ken", "WARPDRIVE_ADMIN_LISTEN": "off"})
    m = w.ask("/warp/status", "X-Admin-Token: t0ken")
    assert m.status == 200 and "upstreams" in m.json
    assert w.ask("/warp/status").status == 401
    assert w.ask("/other").text.startswith("app GET /other")
    assert [r.target for r in b.requests] == ["/other"]


# ---- files that processes are given ----------------------------------------------------------

def test_bad_line_of_an_envfile(warp, tmp_path):
    """It is left out with a warning that names it; what is good counts, the process runs."""
    (tmp_path / "vars").write_text("GOOD=1\nthis is none\nALSO=2\n9X=3\nLAST=4\n")
    script = 'echo "$GOOD$ALSO$LAST" >@DIR@/out.new; mv @DIR@/out.new @DIR@/out; exec sleep 1000'
    w = warp(fleet(processes={"p": {"command": "/bin/sh", "args": ["-c", script], "envfile": str(tmp_path / "vars")}}))
    w.wait_stderr(r"(?m)warn\w*: .*vars:2: ")
    assert eventually(lambda: os.path.exists(w.path("out")) and open(w.path("out")).read(), "it runs") == "124\n"


# ---- programs that cannot run -----------------------------------------------------------------

@pytest.mark.parametrize("line,names", [("#!/bin/sh\r", "/bin/sh"), ("#!/no/such/interpreter -x", "/no/such/interpreter"),
                                        ("#! /usr/bin/nope", "/usr/bin/nope")])
def test_interpreter_that_is_missing(run, tmp_path, line, names):
    """The script is there: what is not is said."""
    (tmp_path / "tool").write_text(line + "\nexit 0\n", newline="")
    (tmp_path / "tool").chmod(0o755)
    p = run("-l", "127.0.0.1:%d" % free_port(), "--", "./tool", env={"WARPDRIVE_ADMIN_LISTEN": "off"})
    assert p.returncode == 127, p.stderr
    said = [t for t in p.stderr.split("\n") if "interpreter" in t]
    assert said and names in said[0], p.stderr
    assert line[-1] != "\r" or re.search(r"CR|\\r|line end", said[0]), said[0]


def test_program_that_is_missing(run):
    p = run("-l", "127.0.0.1:%d" % free_port(), "--", "./no-such", env={"WARPDRIVE_ADMIN_LISTEN": "off"})
    assert p.returncode == 127 and "./no-such" in p.stderr and "interpreter" not in p.stderr
