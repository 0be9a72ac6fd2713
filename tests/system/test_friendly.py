"""What warp says when something does not fit: which field, which condition, who holds the lock."""
import os
import re
import shutil
import subprocess

import pytest

from lib import HEAD, REQ, ROOT, Client, conf, eventually, free_port, reply, request, toml_file, clean_env, WARP
from supervised import alive, fleet, instances

# ---- -e ------------------------------------------------------------------------------------

CONDITIONS = {
    "host": ('host = "api.example.com"', r'host is "www\.example\.com", wanted "api\.example\.com"'),
    "wild host": ('host = "*.example.org"', r'host is "www\.example\.com", wanted "\*\.example\.org"'),
    "prefix": ('path_prefix = "/api"', r'path is "/shop/1", wanted "/api'),
    "exact": ('path_exact = "/shop"', r'path is "/shop/1", wanted "/shop"'),
    "regex": ('path_regex = "^/x[0-9]$"', r'path is "/shop/1", wanted .*\^/x\[0-9\]\$'),
    "method": ('methods = ["POST", "PUT"]', r'method is "GET", wanted .*POST.*PUT'),
    "header": ('header = { name = "X-A", value = "yes" }', r'(?i)x-a.* is "no", wanted "yes"'),
    "header that is not there": ('header = { name = "X-B", value = "*" }', r'(?i)x-b'),
    "cookie": ('cookie = { name = "beta", value = "1" }', r'cookie beta is not there, wanted "1"'),
    "query": ('query = { name = "q", value = "2" }', r'q.*"1".*wanted "2"|q.*wanted "2"'),
    "client": ('client = ["10.0.0.0/8"]', r'client is "?192\.0\.2\.7"?, wanted .*10\.0\.0\.0/8'),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_explain_shows_what_it_compared(run, case):
    text, words = CONDITIONS[case]
    text = "[[routes]]\n%s\nrespond = { status = 200 }\n[[routes]]\nrespond = { status = 404 }\n" % text
    p = run("-c", "warp.toml", "-e", "GET http://www.example.com:8080/shop/1?q=1", "-H", "X-A: no", "-a", "192.0.2.7", conf=text)
    first = [t for t in p.stdout.split("\n") if t.startswith("route 1")]
    assert p.returncode == 0 and first and "no: " in first[0] and re.search(words, first[0]), p.stdout
    assert re.search(r"route 2 .*taken", p.stdout)


# ---- a head that is refused names the field and the reason -----------------------------------

FIELDS = [b"X-%d: 1\r\n" % i for i in range(257)]
BAD = {
    "a blank before the colon": (b"X-Odd : 1\r\n", "X-Odd"),
    "no colon": (b"X-Odd\r\n", "X-Odd"),
    "no name": (b": 1\r\n", "name"),
    "a byte in a name": (b"X-O\xffdd: 1\r\n", "X-O"),
    "a control byte in a value": (b"X-Odd: a\x01b\r\n", "X-Odd"),
    "NUL in a value": (b"X-Odd: a\0b\r\n", "X-Odd"),
    "too many": (b"".join(FIELDS), "256"),
}
FRAMES = {
    "two ways to end": (b"Transfer-Encoding: chunked\r\n", "Transfer-Encoding"),
    "two lengths": (b"Content-Length: 1\r\n", "Content-Length"),
    "a length that is none": (b"Content-Length: x\r\n", "Content-Length"),
}


@pytest.mark.parametrize("case", {**BAD, **FRAMES})
def test_malformed_answer(warp, backend, case):
    """In the log and, where errors are shown, in the page: the field, and what is wrong with it."""
    lines, words = {**BAD, **FRAMES}[case]
    b = backend([REQ, b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n"])
    w = warp(conf(server={"show_errors": True}, app={"on": b, "max_fails": 0, "retries": 0}))
    m = w.ask()
    assert m.status == 502
    said = w.wait_stderr(r"(?m)^.*127\.0\.0\.1:%d.*$" % b.port)
    said = said if isinstance(said, str) else said[0]
    assert words in said, said
    assert ("malformed" in said) == (case != "too many"), said
    assert "\n" not in said.strip() and not re.search(r"[\x00-\x08\x0e-\x1f\x7f]", said), "and it forges nothing"


@pytest.mark.parametrize("case", {**BAD, **FRAMES})
def test_malformed_probe(warp, backend, case):
    """A health check judges as traffic does, and says the same."""
    lines, words = {**BAD, **FRAMES}[case]
    b = backend([REQ, b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n"])
    w = warp(toml_file(conf(app={"on": b})) + "[upstreams.app.health]\npath = \"/\"\ninterval_secs = 0.05\nunhealthy_threshold = 1\n")
    said = w.wait_stderr(r"(?m)^.*127\.0\.0\.1:%d.*$" % b.port)
    said = said if isinstance(said, str) else said[0]
    assert words in said, said


@pytest.mark.parametrize("case", BAD)
def test_malformed_request(warp, case):
    """Clients are told, where errors are shown."""
    lines, words = BAD[case]
    w = warp(conf({"respond": {"status": 200}}, server={"show_errors": True, "max_header_bytes": 65536}))
    with w.client() as c:
        m = c.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n").response()
    assert m.status == (431 if case == "too many" else 400)
    assert words in m.text, m.text
    assert ("malformed" in m.text) == (case != "too many"), m.text


@pytest.mark.parametrize("head, status", [
    (b"HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400), (b"\r\nHEAD / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    pytest.param(b"HEAD /%s HTTP/1.1\r\n\r\n" % (b"x" * 20000), 414, id="too long"), (b"HEAD / HTTP/1.1\r\nHost: a\r\n", 408),
])
def test_refused_head_has_no_body(warp, head, status):
    """RFC 9110 9.3.2: whatever the head's fault is, its client takes what follows for the next answer."""
    w = warp(conf({"respond": {"status": 200}}, server={"header_timeout_secs": 0.3}))
    with w.client() as c:
        m = c.send(head).head()
        assert m.status == status and int(m.get("Content-Length")) > 0
        assert c.closed() == "eof"


def test_malformed_first_line(warp, backend):
    """What is no HTTP/1 at all is called so, not a malformed field."""
    b = backend([REQ, b"SSH-2.0-OpenSSH_9.2\r\n"])
    w = warp(conf(app={"on": b, "max_fails": 0, "retries": 0}))
    assert w.ask().status == 502
    w.wait_stderr("no HTTP|status line")


# ---- probe and proxy have one judgement ----------------------------------------------------------

def health_of(warp, b, pad, limit):
    server = {"max_header_bytes": limit} if limit else {}
    w = warp(toml_file(conf(server=server, admin={"listen": ["@DIR@/admin"]}, app={"on": b, "max_fails": 0})) +
             '[upstreams.app.health]\npath = "/health"\ninterval_secs = 0.02\nunhealthy_threshold = 1\nhealthy_threshold = 1\n')
    eventually(lambda: sum(r.target == "/health" for r in b.requests) >= 3, "probes")
    return w


def answering(pad):
    fields = ["X-%d: %s" % (i, "x" * 1000) for i in range(pad // 1000)]

    def serve(c):
        while True:
            c.request()
            c.send(reply("ok", *fields))
    return serve


@pytest.mark.parametrize("pad,limit", [(9000, None), (14000, None), (40000, 65536)])
def test_long_head_is_healthy(warp, backend, pad, limit):
    """What traffic takes is no reason to be down."""
    b = backend([answering(pad)])
    w = health_of(warp, b, pad, limit)
    assert w.ask().status == 200
    assert instances(w, "app")[0]["state"] == "up", w.stderr
    assert "head of more" not in w.stderr and "too long" not in w.stderr


def test_head_too_long_is_not(warp, backend):
    """And what traffic refuses is."""
    b = backend([answering(4000)])
    w = health_of(warp, b, 4000, 2048)
    eventually(lambda: instances(w, "app")[0]["state"] != "up", "down")
    assert w.ask().status in (502, 503)


def test_interim_heads_count_one_by_one(warp, backend):
    """Traffic takes several 1xx before an answer: so do probes."""
    many = b"HTTP/1.1 103 Early Hints\r\nLink: </%s>\r\n\r\n" % (b"x" * 3000)

    def serve(c):
        while True:
            c.request()
            c.send(many * 4 + reply("ok"))
    b = backend([serve])
    w = health_of(warp, b, 0, 4096)
    with w.client() as c:
        assert c.ask().status == 200
    assert instances(w, "app")[0]["state"] == "up", w.stderr


# ---- the init script ----------------------------------------------------------------------------------

@pytest.fixture
def init(tmp_path):
    """Runs contrib/init/warp.sysv with a pid file and a configuration of its own."""
    with open(os.path.join(ROOT, "contrib/init/warp.sysv")) as f:
        text = f.read()
    port = free_port()
    with open(tmp_path / "warp.toml", "w") as f:
        f.write('[server]\nlisten = ["127.0.0.1:%d"]\n[admin]\nlisten = "off"\n[[routes]]\nrespond = { status = 200 }\n' % port)
    for name, value in (("WARP", WARP), ("CONF", tmp_path / "warp.toml"), ("PID_FILE", tmp_path / "warp.pid"), ("STOP_SECS", 3)):
        text = re.sub(r"(?m)^%s=.*$" % name, "%s=%s" % (name, value), text)
    text = text.replace("/etc/default/warp", str(tmp_path / "no-defaults"))
    script = tmp_path / "warp.sysv"
    script.write_text(text)

    def run(verb):
        return subprocess.run(["/bin/sh", str(script), verb], capture_output=True, text=True, timeout=30, env=clean_env(),
                              stdin=subprocess.DEVNULL)
    yield run
    run("stop")


def test_init_script_trusts_the_lock(init, tmp_path):
    """A pid file that was left behind, whose number is somebody else's now: not running, and nobody is killed."""
    other = subprocess.Popen(["sleep", "1000"])
    try:
        (tmp_path / "warp.pid").write_text("%d\n" % other.pid)
        assert init("status").returncode == 3
        assert init("reload").returncode != 0 and init("stop").returncode == 0
        assert other.poll() is None and alive(other.pid), "not ours to stop"
        assert init("start").returncode == 0, "and it is no reason not to start"
        pid = int((tmp_path / "warp.pid").read_text())
        assert pid != other.pid and alive(pid)
        assert init("status").returncode == 0 and init("start").returncode == 0 and init("reload").returncode == 0
        assert int((tmp_path / "warp.pid").read_text()) == pid and alive(pid)
        assert init("stop").returncode == 0
        eventually(lambda: not alive(pid), "stopped")
        assert init("status").returncode == 3
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
