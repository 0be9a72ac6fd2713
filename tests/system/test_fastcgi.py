"""FastCGI: a real php-fpm, and a peer that frames its records as it likes."""
import contextlib
import glob
import hashlib
import os
import shutil
import socket
import struct
import time

import pytest

import lib
import supervised
import uwsgi
from test_files import AS_NOBODY
from lib import CLOSE, FIN, HEAD, REQ, SLOW, TIMEOUT, ProtocolError, chunks, conf, eventually, request

# FastCGI specification, section 8.
BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = 1, 2, 3, 4, 5, 6, 7
KEEP_CONN, COMPLETE, CANT_MPX, OVERLOADED = 1, 0, 1, 2


# ---- a peer that reads every record ------------------------------------------------

def record(kind, data=b"", id=1, pad=0):
    return struct.pack(">BBHHBB", 1, kind, id, len(data), pad, 0) + data + b"\0" * pad


def end(status=COMPLETE, code=0, id=1):
    return record(END, struct.pack(">IB3x", code, status), id)


def out(text, id=1, size=65535, pad=0):
    """An answer on stdout in records of so many bytes, with their end."""
    return b"".join(record(STDOUT, text[i:i + size], id, pad) for i in range(0, len(text), size)) + record(STDOUT, b"", id) + end(id=id)


def params(data):
    """The pairs of a stream of PARAMS; lengths of one byte or four (section 3.4)."""
    got, at = [], 0

    def length():
        nonlocal at
        n = data[at]
        if n > 127:
            n = struct.unpack_from(">I", data, at)[0] & 0x7fffffff
            at += 3
        at += 1
        return n
    while at < len(data):
        n, v = length(), length()
        if at + n + v > len(data):
            raise ProtocolError("a pair beyond the stream")
        got.append((data[at:at + n].decode("latin-1"), data[at + n:at + n + v].decode("latin-1")))
        at += n + v
    return got


class Call(uwsgi.Packet):
    def __init__(self, id, flags, vars):
        self.id, self.flags, self.vars, self.body = id, flags, vars, b""
        self.modifier1 = self.modifier2 = 0


class PhpConn(lib.Conn):
    """A connection of a FastCGI application."""

    def record(self):
        version, kind, id, n, pad, _ = struct.unpack(">BBHHBB", self.exactly(8))
        if version != 1:
            raise ProtocolError("version %d" % version)
        return kind, id, self.exactly(n + pad)[:n]

    def stream(self, want, id):
        data = []
        while True:
            kind, i, piece = self.record()
            if (kind, i) != (want, id):
                raise ProtocolError("record %d of request %d, wanted %d of %d" % (kind, i, want, id))
            if not piece:
                return b"".join(data)
            data.append(piece)

    def head(self, timeout=None):
        kind, id, data = self.record()
        role, flags = struct.unpack(">HB5x", data)
        if kind != BEGIN or role != 1 or not id:
            raise ProtocolError("record %d role %d id %d" % (kind, role, id))
        return Call(id, flags, params(self.stream(PARAMS, id)))

    def body(self, m, method=None, timeout=None):
        m.body = self.stream(STDIN, m.id)
        if m.get("CONTENT_LENGTH", "") not in ("", str(len(m.body))):
            raise ProtocolError("CONTENT_LENGTH %s, and %d bytes" % (m.get("CONTENT_LENGTH"), len(m.body)))
        return m


def OK(c):
    """Answers requests as long as the connection is kept."""
    while True:
        p = c.request()
        body = b"" if p.get("REQUEST_METHOD") == "HEAD" else b"%s %d" % (p.get("SCRIPT_NAME", "").encode(), len(p.body))
        c.send(out(b"Content-Type: text/plain\r\n\r\n" + body, p.id))
        if not p.flags & KEEP_CONN:
            c.sock.shutdown(socket.SHUT_RDWR)
            return


class Php(uwsgi.Node):
    kind = PhpConn

    def __init__(self, *scripts, **kw):
        super().__init__(*(scripts or ([OK],)), **kw)

    @property
    def conf(self):
        return {**super(uwsgi.Node, self).conf, "protocol": "fastcgi", "root": "/srv/www"}


@pytest.fixture
def php(tmp_path):
    made = []

    def make(*scripts, **kw):
        made.append(Php(*scripts, **kw))
        return made[-1]
    yield make
    for p in made:
        p.close()


# ---- what it is told ------------------------------------------------------------------

@pytest.mark.parametrize("target, script, info, filename", [
    ("/index.php", "/index.php", "", "/srv/www/index.php"),
    ("/", "/index.php", "", "/srv/www/index.php"),
    ("/blog/?x", "/index.php", "", "/srv/www/index.php"),  # as far as warp can see there is no other
    ("/index.php/a/b?x=1", "/index.php", "/a/b", "/srv/www/index.php"),
    ("/a%20b.php/c%2Fd", "/a b.php", "/c/d", "/srv/www/a b.php"),
    ("/a.php.php/x", "/a.php.php", "/x", "/srv/www/a.php.php"),
    ("/a.phpx/b.php", "/a.phpx/b.php", "", "/srv/www/a.phpx/b.php"),
])
def test_script_and_path(warp, php, target, script, info, filename):
    p = php()
    w = warp(conf(app=p))
    assert w.ask(target).status == 200
    v = p.last.dict
    assert (v["SCRIPT_NAME"], v.get("PATH_INFO", ""), v["SCRIPT_FILENAME"]) == (script, info, filename)
    assert v["REQUEST_URI"] == target and v["QUERY_STRING"] == target.partition("?")[2]


def test_the_vars_php_wants(warp, php):
    p = php()
    w = warp(conf(app={"on": p, "params": {"APP_ENV": "test"}}))
    with w.client() as c:
        c.send(request("/x.php", "Content-Type: a/b", "X-A: 1", "X-A: 2", "X_B: 1", "Proxy: x", method="POST", body=b"hello"))
        assert c.response().text == "/x.php 5"
        port = c.sock.getsockname()[1]
    v = p.last.dict
    want = {"GATEWAY_INTERFACE": "CGI/1.1", "DOCUMENT_ROOT": "/srv/www", "REQUEST_METHOD": "POST", "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": "a/b", "CONTENT_LENGTH": "5", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": str(port), "SERVER_NAME": "a.example",
            "SERVER_PORT": str(w.port), "HTTP_HOST": "a.example", "HTTP_X_A": "1, 2", "REDIRECT_STATUS": "200", "APP_ENV": "test"}
    assert {n: v.get(n) for n in want} == want
    assert v["SERVER_SOFTWARE"] and "HTTP_PROXY" not in v and "HTTP_X_B" not in v and "HTTPS" not in v


def test_remote_user(warp, php):
    """RFC 3875 4.1.11: who has shown a password, not who says a name."""
    p = php()
    w = warp(conf({"path_prefix": "/in", "basic_auth": {"ada": "lovelace"}}, {"path_prefix": "/"}, app=p))
    for target, user in (("/in", "ada"), ("/", None)):
        assert w.ask(target, "Authorization: Basic YWRhOmxvdmVsYWNl", "Remote-User: eve").status == 200
        assert p.last.dict.get("REMOTE_USER") == user


def test_index(warp, php):
    p = php()
    w = warp(conf(app={"on": p, "index": "start.php"}))
    assert w.ask("/").text == "/start.php 0"


@pytest.mark.parametrize("target", ["/../x.php", "/a/../../x.php", "/%2e%2e/x.php", "/..%2fx.php", "/a%00.php", "/a%00/b.php"])
def test_the_script_is_below_the_root(warp, php, target):
    p = php()
    w = warp(conf(app=p))
    m = w.ask(target)
    for q in p.requests:
        assert ".." not in q.get("SCRIPT_FILENAME").split("/") and "\0" not in q.get("SCRIPT_FILENAME")
        assert q.get("SCRIPT_FILENAME").startswith("/srv/www/")
    assert m.status in (200, 400, 403, 404)


@pytest.mark.parametrize("protocol", ["fastcgi", "uwsgi"])
@pytest.mark.parametrize("target", ["/admin%2Farea/x.php", "/admin%2farea%2Fx.php", "/%2Fadmin/area/x.php", "/x%2F/admin/area/y.php/..%5c.."])
def test_an_encoded_slash_slips_past_no_route(warp, php, node, protocol, target):
    """The application sees it as a slash: the path must not be one of another route's."""
    p = php() if protocol == "fastcgi" else node()
    w = warp(conf({"path_prefix": "/admin/area", "upstream": "app", "require_auth": True}, {"path_prefix": "/", "upstream": "app"},
                  app=p, server={"admin_token": "0123456789abcdef"}))
    assert w.ask("/admin/area/x.php").status == 401
    assert w.ask(target).status in (400, 401) and not p.requests
    assert w.ask("/a%2Fb.php/c%2Fd").status == 200


def test_long_values(warp, php):
    """Lengths of four bytes, a stream of several records."""
    p = php()
    w = warp(conf(app=p, server={"max_header_bytes": 65536}))
    fields = {"X-%d" % n: "v" * n for n in (0, 1, 126, 127, 128, 129, 255, 256, 20000, 40000)}
    assert w.ask("/x.php", *("%s: %s" % f for f in fields.items())).status == 200
    assert {n: p.last.get("HTTP_" + n.upper().replace("-", "_")) for n in fields} == fields


@pytest.mark.parametrize("size", [1, 65535, 65536, 300000])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_bodies(warp, php, size, how):
    p = php()
    w = warp(conf(app=p))
    body = os.urandom(size)
    with w.client() as c:
        c.send(request("/x.php", method="POST", body=body) if how == "length" else
               request("/x.php", "Transfer-Encoding: chunked", method="POST") + chunks(body[:7], body[7:]) if size > 7 else
               request("/x.php", "Transfer-Encoding: chunked", method="POST") + chunks(body))
        assert c.response().text == "/x.php %d" % size
    assert p.last.body == body and p.last.get("CONTENT_LENGTH") == str(size)


# ---- what it answers --------------------------------------------------------------------

TEXT = b"Status: 203 Odd\r\nX-A: 1\r\nContent-Type: text/plain\r\n\r\nhello, world"


@pytest.mark.parametrize("raw", [
    out(TEXT), out(TEXT, size=1), out(TEXT, size=7, pad=5), out(TEXT, size=3, pad=255),
    record(STDERR, b"oops\n") + out(TEXT),
    out(TEXT)[:-24] + record(STDERR, b"late\n") + record(STDOUT) + record(STDERR) + end(),
    record(STDOUT, TEXT) + end(),                          # no empty record at the end
    record(STDOUT, TEXT) + end(code=7),                    # an exit status is nobody's business
], ids=["whole", "bytes", "padded", "much-padding", "stderr", "late-stderr", "no-end", "exit"])
@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["", "bytes"])
def test_records(warp, php, raw, byte_by_byte):
    def send(c):
        c.request()
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(raw), 1 if byte_by_byte else len(raw)):
            c.sock.sendall(raw[i:i + (1 if byte_by_byte else len(raw))])
    p = php([send, FIN])
    w = warp(conf(app=p))
    with w.client() as c:
        for _ in range(2):
            m = c.ask("/x.php")
            assert (m.status, m.get("X-A"), m.body) == (203, "1", b"hello, world")
    if b"oops" in raw:
        w.wait_stderr("oops")


@pytest.mark.parametrize("script", [
    [REQ, CLOSE], [REQ, lib.RST],
    [REQ, end(OVERLOADED), FIN], [REQ, end(CANT_MPX), FIN],
    [REQ, end(), FIN],                                     # not a header
    [REQ, record(STDOUT, b"Status: 200\r\n") + end(), FIN],
    [REQ, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", FIN],
    [REQ, out(b"Status: abc\r\n\r\n"), FIN],
    [REQ, record(STDOUT, TEXT, id=9) + end(id=9), FIN],
    [REQ, b"\2" + out(TEXT)[1:], FIN],
], ids=["close", "reset", "overloaded", "multiplex", "nothing", "cut", "http", "status", "id", "version"])
def test_no_answer_is_502_or_503(warp, php, script):
    p = php(script)
    m = warp(conf(app=p)).ask("/x.php", method="POST", body=b"x")
    assert m.status in (502, 503)
    assert len(p.conns) == 1


@pytest.mark.parametrize("raw", [record(STDOUT, b"Content-Length: 10\r\n\r\nhello") + record(STDOUT) + end(),
                                 record(STDOUT, b"X-A: 1\r\n\r\nhello"),
                                 record(STDOUT, b"X-A: 1\r\n\r\nhello") + b"\1\6\0\1\xff\xff"], ids=["length", "no-end", "half-record"])
def test_an_answer_cut_short_is_seen_as_such(warp, php, raw):
    p = php([REQ, raw, FIN])
    with warp(conf(app=p)).client() as c:
        c.send(request("/x.php"))
        with pytest.raises((EOFError, ConnectionError)):
            c.response()


def test_lines_without_cr_are_cached(warp, php):
    """Scripts print such heads; what the cache keeps of one is as good as any."""
    p = php([REQ, out(b"Content-Type: text/plain\nX-Plain: 1\nCache-Control: max-age=60\n\nok")])
    w = warp({**conf(app=p), "cache": {"size_bytes": 1 << 20}})
    for word in ("MISS", "HIT"):
        m = w.ask("/a")
        assert (m.status, m.text, m.get("x-plain"), m.get("x-cache")) == (200, "ok", "1", word)


def test_connections_are_kept(warp, php):
    p = php()
    w = warp(conf(app={"on": p, "keepalive": 4}))
    with w.client() as c:
        for i in range(10):
            assert c.ask("/%d.php" % i, method="POST", body=b"x" * i).text == "/%d.php %d" % (i, i)
        assert c.ask("/h.php", method="HEAD").status == 200
        assert c.ask("/z.php").text == "/z.php 0"
    assert len(p.conns) == 1 and p.last.flags & KEEP_CONN


def test_no_keepalive(warp, php):
    p = php()
    w = warp(conf(app={"on": p, "keepalive": 0}))
    with w.client() as c:
        for _ in range(3):
            assert c.ask("/x.php").text == "/x.php 0"
    assert len(p.conns) == 3 and not p.last.flags & KEEP_CONN


@pytest.mark.parametrize("late", [False, True])
def test_what_comes_behind_the_end_closes_the_connection(warp, php, late):
    """Or the next answer would begin in the middle of a record."""
    def more(c):
        q = c.request()
        whole = b"Content-Length: 2\r\n\r\nok"
        if late:
            c.send(record(STDOUT, whole))
            time.sleep(0.2)
        c.send((b"" if late else record(STDOUT, whole)) + end() + record(STDOUT, b"")[:4])
        OK(c)
    p = php([more])
    w = warp(conf(app={"on": p, "keepalive": 4}))
    with w.client() as c:
        for i in range(3):
            assert c.ask("/%d.php" % i).text == "ok"
            time.sleep(0.2)
    assert len(p.conns) == 3


def test_a_long_content_length(warp, php, node):
    """The application is told the number that the body has, however it is written."""
    for p in php(), node():
        w = warp(conf(app=p))
        with w.client() as c:
            c.send(request("/x.php", "Content-Length: " + "5".zfill(60), method="POST") + b"hello")
            assert c.response().status == 200
        assert p.last.get("CONTENT_LENGTH") == "5" and p.last.body == b"hello"


def test_a_kept_connection_that_was_closed_costs_no_request(warp, php):
    def once(c):
        q = c.request()
        c.send(out(b"X: y\r\n\r\nok", q.id))
        c.sock.shutdown(socket.SHUT_RDWR)
    p = php([once])
    w = warp(conf(app={"on": p, "keepalive": 4}))
    with w.client() as c:
        for i in range(5):
            assert c.ask("/x.php").text == "ok"


# ---- php-fpm ---------------------------------------------------------------------------------

FPM = """
[global]
daemonize = no
error_log = %(d)s/fpm.log
[www]
%(user)s
listen = %(d)s/php.sock
pm = static
pm.max_children = 3
pm.status_path = /fpm-status
clear_env = no
request_terminate_timeout = 30
php_admin_flag[log_errors] = on
php_admin_value[error_reporting] = 32767
php_admin_flag[display_errors] = off
php_admin_value[post_max_size] = 100M
php_admin_value[upload_max_filesize] = 100M
"""
PAGES = {
    "index.php": "<?php header('Content-Type: application/json'); $b = file_get_contents('php://input');"
                 "echo json_encode(['server' => $_SERVER, 'get' => $_GET, 'post' => $_POST, 'sha' => sha1($b), 'n' => strlen($b)]);",
    "big.php": "<?php header('Content-Type: application/octet-stream'); for ($i = 0; $i < 64; $i++) echo str_repeat(chr($i), 65536);",
    "404.php": "<?php http_response_code(404); header('X-A: 1'); setcookie('a', '1'); setcookie('b', '2'); echo 'nothing here';",
    "500.php": "<?php http_response_code(500); echo 'oh';",
    "fatal.php": "<?php nonsense();",
    "log.php": "<?php error_log('the dog ate it'); echo 'logged';",
    "go.php": "<?php header('Location: /index.php');",
    "upload.php": "<?php echo $_FILES['f']['name'], ' ', $_FILES['f']['size'], ' ', sha1_file($_FILES['f']['tmp_name']), ' ', $_POST['x'];",
    "slow.php": "<?php usleep(100000); echo getmypid();",
    "pid.php": "<?php echo getmypid();",
    "sub/index.php": "<?php echo 'sub ', $_SERVER['SCRIPT_NAME'];",
    "a.txt": "plain",
}


def fpm_program():
    return next(iter(sorted(glob.glob("/usr/sbin/php-fpm*"))), None) or shutil.which("php-fpm") or pytest.skip("no php-fpm")


@pytest.fixture(scope="module")
def fpm(tmp_path_factory):
    d = tmp_path_factory.mktemp("fpm")
    for name, text in PAGES.items():
        (d / "www" / name).parent.mkdir(parents=True, exist_ok=True)
        (d / "www" / name).write_text(text)
    root = os.getuid() == 0
    (d / "fpm.conf").write_text(FPM % {"d": d, "user": "user = root\ngroup = root" if root else ""})
    p = uwsgi.Program([fpm_program(), "-F", "-n", "-y", d / "fpm.conf", *(["-R"] if root else [])], cwd=str(d))
    p.root, p.sock = str(d / "www"), str(d / "php.sock")
    try:
        p.up(p.sock)
    except AssertionError as e:
        raise AssertionError("%s\n%s" % (e, lib.read(d / "fpm.log"))) from None
    yield p
    p.stop()


def upstream(fpm, **more):
    return {"socket": fpm.sock, "protocol": "fastcgi", "root": fpm.root, **more}


@pytest.fixture
def site(warp, fpm):
    return warp(conf(app=upstream(fpm)))


def test_php_server(site, fpm):
    v = site.ask("/index.php/a%20b/c?x=1&y[]=2", "X-A: 1").json
    s = v["server"]
    assert (s["SCRIPT_NAME"], s["PATH_INFO"], s["PHP_SELF"], s["QUERY_STRING"]) == ("/index.php", "/a b/c", "/index.php/a b/c", "x=1&y[]=2")
    assert s["SCRIPT_FILENAME"] == fpm.root + "/index.php" and s["DOCUMENT_ROOT"] == fpm.root
    assert v["get"] == {"x": "1", "y": ["2"]} and s["HTTP_X_A"] == "1"
    assert (s["SERVER_NAME"], s["SERVER_PORT"], s["REMOTE_ADDR"]) == ("a.example", str(site.port), "127.0.0.1")


def test_php_index(site):
    assert site.ask("/").json["server"]["SCRIPT_NAME"] == "/index.php"
    assert site.ask("/sub/").text == "sub /sub/index.php"


def test_php_form(site):
    m = site.ask("/", "Content-Type: application/x-www-form-urlencoded", method="POST", body=b"a=1&b=x+y%21")
    assert m.json["post"] == {"a": "1", "b": "x y!"}


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_php_body(site, how):
    body = os.urandom(1000000)
    with site.client() as c:
        if how == "length":
            c.send(request("/", "Content-Type: a/b", method="POST", body=body))
        else:
            c.send(request("/", "Content-Type: a/b", "Transfer-Encoding: chunked", method="POST") +
                   chunks(*(body[i:i + 50000] for i in range(0, len(body), 50000))))
        v = c.response(timeout=2 * TIMEOUT).json
    assert (v["n"], v["sha"]) == (len(body), hashlib.sha1(body).hexdigest())


def test_php_upload(site):
    data = os.urandom(300000)
    body = (b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--B\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--B--\r\n")
    m = site.ask("/upload.php", "Content-Type: multipart/form-data; boundary=B", method="POST", body=body)
    assert m.text == "a.bin 300000 %s y" % hashlib.sha1(data).hexdigest()


def test_php_big_answer(site):
    m = site.ask("/big.php")
    assert m.body == b"".join(bytes([i]) * 65536 for i in range(64))


def test_php_statuses(site):
    with site.client() as c:
        m = c.ask("/404.php")
        assert (m.status, m.text, m.get("X-A")) == (404, "nothing here", "1")
        assert [x.split(";")[0] for x in m.all("Set-Cookie")] == ["a=1", "b=2"]
        assert c.ask("/404.php", method="HEAD").status == 404
        assert (c.ask("/500.php").status, c.ask("/fatal.php").status) == (500, 500)
        m = c.ask("/go.php")
        assert (m.status, m.get("Location")) == (302, "/index.php")
        assert c.ask("/missing.php").status == 404
        assert c.ask("/").status == 200


@pytest.mark.parametrize("page, said", [("/log.php", "the dog ate it"), ("/fatal.php", "nonsense"), ("/missing.php", "Primary script unknown")])
def test_php_errors_are_in_the_log(site, page, said):
    site.ask(page)
    site.wait_stderr(said)


def test_php_connections_are_kept(warp, fpm):
    """A child belongs to a connection: one is enough for all that come one by one."""
    w = warp(conf(app=upstream(fpm, keepalive=2)))
    assert len({w.ask("/pid.php").text for _ in range(20)}) == 1
    w = warp(conf(app=upstream(fpm, keepalive=0)))
    assert len({w.ask("/pid.php").text for _ in range(20)}) > 1


def test_php_kept_connections_starve_nobody(warp, fpm):
    """A child of php-fpm belongs to its connection: those that one worker keeps must not leave the other without."""
    w = warp(conf(app=upstream(fpm), server={"worker_threads": 2}))
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            clients = [stack.enter_context(w.client()) for _ in range(10)]
            for c in clients:
                c.send(request("/slow.php"))
            assert [c.response(timeout=2 * TIMEOUT).status for c in clients] == [200] * 10


def test_php_beside_files(warp, fpm):
    """The usual site: files as files, the rest to php."""
    w = warp(conf({"path_regex": "\\.php(/|$)", "upstream": "app"}, {"path_exact": "/", "upstream": "app"},
                  {"static_dir": fpm.root}, app=upstream(fpm)))
    assert w.ask("/a.txt").text == "plain"
    assert w.ask("/").status == 200 and w.ask("/404.php").status == 404 and w.ask("/no.txt").status == 404


def test_php_where_there_is_no_file(warp, fpm):
    """As try_files $uri $uri/ @php: files as files, but no script's text, however it is asked for."""
    w = warp(conf({"static_dir": fpm.root, "index": ["index.php"], "fallback": "@app"}, app=upstream(fpm)))
    assert w.ask("/a.txt").text == "plain"
    for target in ("/sub/", "/sub/index.php", "/sub/index%2ephp", "//sub/./index.php"):
        assert w.ask(target).text == "sub /sub/index.php", target
    assert w.ask("/sub/index.php", "Range: bytes=0-4").text == "sub /sub/index.php"
    assert w.ask("/sub?q").get("Location") == "/sub/?q"
    for target in ("/", "/pretty/link/", "/index.php/a"):
        assert w.ask(target).json["server"]["SCRIPT_NAME"] == "/index.php", target
    assert w.ask("/404.php").status == 404


@pytest.mark.parametrize("name", ["dir.php/a.php", "UPPER.PHP", "closed.php"])
def test_no_text_of_a_script(warp, php, tmp_path, name):
    """Below what looks like a script too, on disks where case is nothing, and where php may read more than warp."""
    path = tmp_path / "www" / name
    path.parent.mkdir(parents=True)
    path.write_text("<?php secret")
    path.chmod(0 if name == "closed.php" else 0o644)
    os.chmod(tmp_path, 0o755)
    w = warp(conf({"static_dir": str(tmp_path / "www"), "fallback": "@app"}, app=php(), server=AS_NOBODY))
    for more in ((), ("Range: bytes=0-3",)):
        m = w.ask("/" + name, *more)
        assert m.status == 200 and b"?" not in m.body, m.body


def test_php_supervised(warp, tmp_path):
    """php-fpm as warp's own process."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.php").write_text("<?php echo 'supervised';")
    root = os.getuid() == 0
    (tmp_path / "fpm.conf").write_text(FPM % {"d": tmp_path, "user": "user = root\ngroup = root" if root else ""})
    w = warp(supervised.fleet({"command": fpm_program(), "args": ["-F", "-n", "-y", str(tmp_path / "fpm.conf")] + (["-R"] if root else [])},
                              socket=str(tmp_path / "php.sock"), protocol="fastcgi", root=str(tmp_path / "www"), hold_secs=20))
    assert w.ask("/", timeout=20 * SLOW).text == "supervised"
