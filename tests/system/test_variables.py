"""Variables in texts: what a configuration may say of the request in a redirect, a path, a field, a body, an error
page or the log; and what no value can do there."""
import json
import re

import pytest

from lib import REQ, conf, reply, request
from test_auth_limits import basic
from test_tls import people                                   # noqa: F401: a fixture
from tls import openssl

EVERY = ["host", "path", "query", "uri", "scheme", "port", "method", "client", "client_port", "request_id", "route",
         "upstream", "instance", "header.X-One", "cookie.b", "query.two", "tls.version", "tls.subject", "time"]


def text(names):
    return "\n".join("%s=[{%s}]" % (n, n) for n in names)


def parse(body):
    return dict(re.findall(r"(?m)^([a-z_.A-Z-]+)=\[(.*)\]$", body))


def test_every_variable(warp):
    w = warp(conf({"description": "the route", "respond": {"status": 200, "body": text(EVERY)}}))
    with w.client() as c:
        m = c.ask("/p%20q/../r?one=1&two=b%20c&two=3", "X-One: 1st", "X-One: 2nd", "Cookie: a=1; b=\"two\"", host="Shop.Example:8080", method="PUT")
        port = c.sock.getsockname()[1]
    got = parse(m.text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", got.pop("time"))
    assert re.fullmatch("[0-9a-f]{32}", got.pop("request_id"))
    assert got == {"host": "shop.example", "path": "/p%20q/../r", "query": "one=1&two=b%20c&two=3", "uri": "/p%20q/../r?one=1&two=b%20c&two=3",
                   "scheme": "http", "port": str(w.port), "method": "PUT", "client": "127.0.0.1", "client_port": str(port), "route": "the route",
                   "upstream": "", "instance": "", "header.X-One": "1st", "cookie.b": "two", "query.two": "b%20c", "tls.version": "", "tls.subject": ""}


def test_absent_values_are_empty(warp):
    w = warp(conf({"respond": {"status": 200, "body": text(["query", "header.X-One", "cookie.b", "query.two"])}}))
    assert parse(w.ask("/a?two").text) == {"query": "two", "header.X-One": "", "cookie.b": "", "query.two": ""}
    assert parse(w.ask("http://a.example?two=2").text)["query.two"] == "2"


def test_toward_the_upstream(warp, backend):
    b = backend()
    w = warp(conf({"path_regex": "^/shop/([a-z]+)/(.*)$", "add_headers": [
        {"name": "X-Who", "value": "{client} {method} {scheme}"}, {"name": "X-Group", "value": "$1"}, {"name": "X-Instance", "value": "{upstream} {instance}"},
        {"name": "X-None", "value": "{header.X-Absent}"}, {"name": "X-Plain", "value": "{ a }"}, {"name": "Host", "value": "{query.t}.example"}]}, app=b))
    assert w.ask("/shop/cars/1%2F2?t=north", "X-None: forged", "X-Who: forged").status == 200
    f = b.last
    assert (f.get("X-Who"), f.get("X-Group"), f.get("X-Plain")) == ("127.0.0.1 GET http", "cars", "{ a }")
    assert f.get("X-Instance") == "app 127.0.0.1:%d" % b.port and f.all("Host") == ["north.example"]
    assert not f.has("X-None"), "a field without value is not sent, and the client's own is gone"


@pytest.mark.parametrize("how", ["basic_auth", "basic_auth_file"])
def test_the_user(warp, backend, tmp_path, how):
    """Who has shown a password, toward the upstream; a claim that nobody has checked is for the log alone."""
    b = backend()
    (tmp_path / "users").write_text("ada:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n")  # 123456
    add = {"add_headers": [{"name": "X-User", "value": "{user}"}]}
    w = warp(conf({"path_prefix": "/in", how: {"ada": "123456"} if how == "basic_auth" else str(tmp_path / "users"), **add},
                  {"path_prefix": "/", **add}, app=b, log={"access": "stdout", "format": "{path} $user"}))
    with w.client() as c:
        for _ in range(2):
            assert c.ask("/in", basic("ada:123456"), "X-User: eve").status == 200 and b.last.get("X-User") == "ada"
            assert c.ask("/out", basic("eve:123456"), "X-User: eve").status == 200 and not b.last.has("X-User")
    assert w.ask("/in", basic("ada:wrong")).status == 401 and len(b.requests) == 4
    w.wait_stdout("/in ada\n/out eve\n")


def test_a_user_who_is_refused(warp, backend):
    """What nobody has checked is not in an answer either."""
    w = warp(conf({"path_prefix": "/", "basic_auth": {"ada": "123456"}, "add_response_headers": [{"name": "X-User", "value": "{user}"}]},
                  app=backend()))
    m = w.ask("/", basic("ada:wrong"))
    assert m.status == 401 and not m.has("X-User")
    assert w.ask("/", basic("ada:123456")).get("X-User") == "ada"


def test_toward_the_client(warp, backend):
    b = backend()
    w = warp(conf({"add_response_headers": [{"name": "X-Request-Id", "value": "{request_id}"}, {"name": "X-Was", "value": "{header.X-Asked}"},
                                             {"name": "X-Served-By", "value": "{upstream}/{instance}"}]}, app=b))
    with w.client() as c:
        m = c.ask("/", "X-Asked: one")
        assert m.get("X-Request-Id") == b.last.get("X-Request-Id") and m.get("X-Was") == "one"
        assert m.get("X-Served-By") == "app/127.0.0.1:%d" % b.port
        assert not c.ask("/").has("X-Was")


def test_rewrite(warp, backend):
    b = backend()
    w = warp(conf({"path_prefix": "/a", "rewrite": "/t/{host}/{query.v}/x"}, {"path_exact": "/b", "rewrite": "/v1{path}"},
                  {"path_regex": "^/c/(.*)$", "rewrite": "/{method}/$1"}, app=b))
    with w.client() as c:
        for sent, want in (("/a/b%3B?v=1", "/t/a.example/1/x/b%3B?v=1"), ("/a?v=p/q%2e", "/t/a.example/p%2Fq%2e/x?v=p/q%2e"), ("/a?v=a%20b", "/t/a.example/a%20b/x?v=a%20b"),
                           ("/x/../b?y", "/v1/b?y"), ("/c/d%3B//e", "/GET/d%3B//e")):
            assert c.ask(sent).status == 200 and b.last.target == want, (sent, b.last.target)
        n = len(b.requests)
        for dots in ("..", "%2e%2E", ".", ".%2e"):
            assert c.ask("/a/b?v=" + dots).status == 400, "no value leads to another directory"
        assert len(b.requests) == n


# reason: redirect (and path_regex), and what comes of which request; None: 400
REDIRECTS = {
    "groups": (dict(path_regex="^/old/([^/]*)/(.*)$", redirect="https://new.example/$2?was=$1"), {"/old/a/b%20c": "https://new.example/b%20c?was=a"}),
    "to the www": (dict(redirect="{scheme}://www.{host}{uri}"), {"/x?y": "http://www.a.example/x?y", "http://a.example/x?y=1": "http://www.a.example/x?y=1"}),
    "a path of two slashes": (dict(redirect="{path}"), {"//evil.example/x": "/evil.example/x", "/\\evil.example": "/evil.example", "/a//b": "/a//b"}),
    "a group of them": (dict(path_regex="^/to(.*)$", redirect="$1"), {"/to//evil.example": "/evil.example", "/to/\\evil.example": "/evil.example",
        "/tohttps://evil.example": "/https://evil.example", "/to": "", "/to/a": "/a"}),
    "behind a slash": (dict(path_regex="^/to(.*)$", redirect="/$1"), {"/to//evil.example": "/evil.example", "/toa": "/a", "/to/\\/evil.example": "/evil.example"}),
    "a parameter": (dict(redirect="{query.next}"), {"/?next=https://evil.example": "/https://evil.example", "/?next=//evil.example": "/evil.example",
        "/?next=/a?b": "/a?b", "/?next=javascript:x": "/javascript:x"}),
    "behind an empty one": (dict(redirect="/{query.lang}/{query.p}"), {"/?p=evil.example": "/evil.example", "/?lang=de&p=a": "/de/a"}),
    "the end of a host": (dict(path_regex="^/x(.*)$", redirect="https://new.example$1"), {"/x/a": "https://new.example/a", "/x": "https://new.example",
        "/x.evil.example": None, "/x@evil.example": None, "/x:1@evil.example": None, "/x%2eevil.example": None, "/x\\.evil.example": None}),
    "the name of a host": (dict(path_regex="^/([^/]*)", redirect="https://$1.new.example/"), {"/north": "https://north.new.example/",
        "/evil.example%2F": None, "/evil.example?": "https://evil.example.new.example/", "/evil.example%23": None, "/a@b": None}),
    "a whole host": (dict(path_regex="^/(.*)$", redirect="https://$1/"), {"/evil.example": None}),
    "a scheme": (dict(redirect="https:{path}"), {"/evil.example": None, "//evil.example": None}),
}


def test_redirect(warp):
    """One warp for all; `a.example` in a row is the host of that route."""
    hosts = {reason: "h%d.example" % i for i, reason in enumerate(REDIRECTS)}
    w = warp(conf(*(dict(keys, host=hosts[reason]) for reason, (keys, rows) in REDIRECTS.items())))
    wrong = []
    with w.client() as c:
        for reason, (keys, rows) in REDIRECTS.items():
            for sent, want in rows.items():
                sent, want = sent.replace("//a.example", "//" + hosts[reason]), want and want.replace("www.a.example", "www." + hosts[reason])
                m = c.ask(sent, host=hosts[reason])
                if (m.status, m.get("Location")) != ((308, want) if want is not None else (400, None)):
                    wrong.append((reason, sent, m.status, m.get("Location")))
    assert not wrong


EVIL = "\"><script>alert('1')</script>&amp;\\"


BODIES = {"text/html; charset=utf-8": "&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;amp;\\", "image/svg+xml": None,
          "application/json": json.dumps(EVIL)[1:-1], "application/problem+json": None, "text/plain": EVIL, "Text/HTML": None,
          "Application/JSON": None, "": None}


@pytest.mark.parametrize("trusted, said, scheme", [
    (True, "X-Forwarded-Proto: https", "https"), (True, "Forwarded: for=192.0.2.1;proto=https", "https"), (True, "X-Forwarded-Proto: http", "http"),
    (False, "X-Forwarded-Proto: https", "http"), (True, "X-None: 1", "http")])
def test_scheme_of_the_client(warp, trusted, said, scheme):
    """Behind a trusted proxy it is the one that the client spoke with that."""
    w = warp(conf({"redirect": "{scheme}://new.example{uri}"}, server={"trusted_proxies": ["127.0.0.1"] if trusted else ["192.0.2.7"]},
                  log={"access": "stdout", "format": "$scheme"}))
    assert w.ask("/x", said).get("Location") == scheme + "://new.example/x"
    w.wait_stdout(scheme + "\n")


def test_bodies_are_escaped_as_their_type_asks(warp):
    w = warp(conf(*({"path_exact": "/%d" % i, "respond": {"status": 200, "body": "{\"v\": \"{header.X-V}\"}", "content_type": kind}}
                    for i, kind in enumerate(BODIES))))
    with w.client() as c:
        for i, (kind, want) in enumerate(BODIES.items()):
            m = c.ask("/%d" % i, "X-V: " + EVIL)
            assert m.get("Content-Length") == str(len(m.body)) and (m.get("Content-Type") or "") == kind
            if want:
                assert m.text == "{\"v\": \"%s\"}" % want
            if "json" in kind.lower():
                assert json.loads(m.text) == {"v": EVIL}
            elif kind != "text/plain":
                assert "<" not in m.text, "%s: what has no type may be taken for HTML" % kind


def test_error_pages(warp, tmp_path):
    (tmp_path / "404.html").write_text("<style>a{host}</style>{ x }<p>{path} {header.X-V} {request_id}</p>")
    (tmp_path / "404.json").write_text('{"path":"{path}","v":"{header.X-V}","id":"{request_id}"}')
    w = warp(conf({"path_exact": "/a", "respond": {"status": 200}}, server={"error_dir": str(tmp_path), "no_route_status": 404}))
    with w.client() as c:
        m = c.ask("/x<b>", "X-V: " + EVIL, "Accept: text/html")
        assert m.status == 404 and re.fullmatch(r"<style>aa.example</style>\{ x \}<p>/x&lt;b&gt; &quot;&gt;&lt;script.*amp;amp;\\ [0-9a-f]{32}</p>", m.text), m.text
        m = c.ask("/x<b>", "X-V: " + EVIL, "Accept: application/json")
        assert json.loads(m.text) == {"path": "/x<b>", "v": EVIL, "id": json.loads(m.text)["id"]}
        assert c.ask("/x", "X-V: " + "x" * 9000, "Accept: text/html").text.count("x") > 9000, "however long a value is"
        assert c.ask("/x", method="HEAD").status == 404


def test_no_value_ends_a_line(warp, backend):
    b = backend()
    w = warp(conf({"add_headers": [{"name": "X-A", "value": "<{header.X-V}>"}, {"name": "X-B", "value": "<{query.v}>"}],
                   "add_response_headers": [{"name": "X-A", "value": "<{header.X-V}>"}]}, app=b))
    for value in ("a\tb", "\xff\xfe", "%0d%0aX-Forged: 1", "a\x7f", "a\rX-Forged: 1"):
        with w.client() as c:
            c.send(request("/?v=%0d%0aX-Forged:1", "X-V: " + value))
            m = c.response()
        if m.status == 400:                                   # no value that a head can have
            continue
        assert m.status == 200 and not b.last.has("X-Forged") and not m.has("X-Forged")
        for got in (b.last.get("X-A"), b.last.get("X-B"), m.get("X-A")):
            assert got.startswith("<") and got.endswith(">") and not re.search("[\x00-\x1f\x7f]", got), (value, got)
    assert len(b.requests) >= 3


def test_with_what_others_made_of_it(warp, backend, tmp_path):
    """A rewrite with variables is mapped back; a page stands in for an upstream's error and keeps its fields."""
    (tmp_path / "426.html").write_text("{path}: {upstream}")
    moved = [REQ, reply(b"", "Location: http://a.example/v1/b/c", status="302 Found")]
    b = backend([*moved, *moved, REQ, reply(b"no", "Upgrade: foo/2", "Connection: upgrade", status="426 Upgrade Required")])
    w = warp(conf({"path_exact": "/b", "rewrite": "/v1{path}", "map_back": True}, {"path_prefix": "/t", "rewrite": "/{method}", "map_back": True},
                  {"path_prefix": "/", "intercept_errors": True, "add_response_headers": [{"name": "X-V", "value": "{header.X-V}"}]},
                  app=b, server={"error_dir": str(tmp_path)}))
    with w.client() as c:
        assert c.ask("/b").status == 302 and b.last.target == "/v1/b"
        assert c.ask("/t/x").status == 302 and b.last.target == "/GET/x"
        m = c.ask("/c", "X-V: " + "v" * 50)
        assert (m.status, m.text, m.get("Upgrade"), m.get("X-V")) == (426, "/c: app", "foo/2", "v" * 50)


def test_log(warp, backend):
    """Both spellings; values are escaped as they always were, and what has none is a dash."""
    w = warp(conf({"path_prefix": "/"}, app=backend(), log={
        "access": "stdout", "format": "{\"who\":\"{client}\"} $path {query.a} {header.X-V} $http_x_v {scheme} {tls.subject}"}))
    assert w.ask("/p?a=1%22", "X-V: a\"\xe4").status == 200
    w.wait_stdout(re.escape(r'{"who":"127.0.0.1"} /p 1%22 a\x22\xE4 a\x22\xE4 http -') + "\n")


TLS = ["tls.version", "tls.subject", "tls.issuer", "tls.serial", "tls.fingerprint", "scheme", "port"]


@pytest.mark.parametrize("who", ["good", "middle"])
def test_certificate(https, pki, people, who):                # noqa: F811
    w = https(pki.cert("a.example"), conf=conf({"respond": {"status": 200, "body": text(TLS)}}), tls={"client_ca_file": pki.root, "client_verify": "optional"})
    said = dict(x.split("=", 1) for x in openssl("x509", "-in", people[who].leaf, "-noout", "-nameopt", "RFC2253", "-subject", "-issuer", "-serial",
                                                 "-fingerprint", "-sha256").strip().split("\n"))
    with w.tls(cert=people[who]) as c:
        got = parse(c.ask().text)
    assert got["tls.subject"] == said["subject"] and got["tls.issuer"] == said["issuer"] and got["tls.serial"] == said["serial"]
    assert got["tls.fingerprint"] == said["sha256 Fingerprint"].replace(":", "").lower()
    assert (got["tls.version"], got["scheme"], got["port"]) == ("TLSv1.2", "https", str(w.https))
    with w.tls() as c:
        got = parse(c.ask().text)
    assert got == {**{n: "" for n in TLS}, "tls.version": "TLSv1.2", "scheme": "https", "port": str(w.https)}, "nobody was shown"


def test_not_cached_by_what_the_url_does_not_say(warp, backend):
    """Else one client would get what another was answered."""
    b = backend([REQ, reply(b"ok", "Cache-Control: max-age=60")] * 4)
    w = warp({**conf({"rewrite": "/of/{cookie.user}"}, app=b), "cache": {"size_bytes": 1000000}})
    for user in ("ann", "bob", "ann"):
        assert w.ask("/x", "Cookie: user=" + user).status == 200 and b.last.target == "/of/" + user
    assert "nothing is cached" in w.stderr


def test_explained(run, tmp_path):
    text = """[upstreams.app]
url = "http://127.0.0.1:1"
[[routes]]
path_regex = "^/a/(.*)$"
redirect = "https://{host}/$1"
[[routes]]
upstream = "app"
rewrite = "/{query.t}"
add_headers = [{ name = "X-A", value = "{client} {instance} {request_id}" }]
add_response_headers = [{ name = "X-B", value = "{method} {header.X}" }]
"""
    say = lambda *q: run("-c", "warp.toml", "-e", *q, conf=text).stdout
    assert "redirect 308 to https://h.example/x" in say("GET http://h.example/a/x")
    said = say("PUT http://h.example/b?t=1", "-H", "X: y")
    assert "PUT /1?t=1 HTTP/1.1" in said and "X-A: 127.0.0.1 127.0.0.1:1 (made for each request)" in said and "response gets X-B: PUT y" in said, said


def test_doubts(check, tmp_path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "502.html").write_text("<p>{requst_id}</p>")
    p = check('[server]\nerror_dir = "%s"\n[[routes]]\nredirect = "https://{hots}/$1"\n[[routes]]\nrespond = { body = "{name} {} {\\"host\\": 1} {x y}" }\n' % (tmp_path / "e"))
    assert p.returncode == 0, p.stderr
    said = p.stdout + p.stderr
    assert "unknown variable '{hots}', did you mean '{host}'?" in said and "$1 needs path_regex" in said
    assert "502.html: unknown variable '{requst_id}', did you mean '{request_id}'?" in said
    assert not re.search(r"\{name\}|\{x y\}|\{\"host", "".join(re.findall("(?m)^.*warning.*$", said)))
