"""What others write never makes a line of its own in a log, nor does a terminal obey it, wherever lines go:
the error log, the access log, the output of processes, status and metrics."""
import base64
import re

import pytest

import tls
from lib import TIMEOUT, Client, conf
from supervised import fleet, proc_that, sh, verb

FORGED = "2026-01-01 00:00:00 warp[1] error: forged"
CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")               # a tab may stay
UNKNOWN_CA = bytes([21, 3, 3, 0, 2, 2, 48])                    # an alert, as a record


def hello_with(name):
    """A ClientHello whose server name is these bytes."""
    return tls.hello(name="x" * len(name)).replace(b"x" * len(name), name)


def break_off(port, name):
    """A handshake for that name that the client ends with an alert."""
    with Client(port) as c:
        c.send(hello_with(name)).fill(TIMEOUT)
        c.send(UNKNOWN_CA)
        while c.fill(TIMEOUT):
            pass


@pytest.mark.parametrize("name", [b"evil\n" + FORGED.encode(), b"evil\r\n<3>" + FORGED.encode(), b"evil\x1b[2Jcleared", b"evil\x7fx"],
                         ids=["newline", "priority", "escape", "delete"])
def test_server_name_in_syslog(https, pki, syslog, name):
    """A server name with control bytes is part of one line."""
    w = https(pki.cert("a.example"), conf=conf({"respond": {"status": 200}}, log={"error": "syslog"}))
    break_off(w.https, name)
    syslog.wait("evil")
    for line in syslog.lines:
        assert not CONTROL.search(line.rstrip(b"\n\0")), line
    assert not [x for x in syslog.lines if re.match(rb"(<\d+>)?(\w{3} [ \d:]+)?" + FORGED.encode(), x)]


def test_server_name_in_the_error_log(https, pki):
    """The same where lines go to stderr."""
    w = https(pki.cert("a.example"))
    break_off(w.https, b"evil\r\n" + FORGED.encode() + b"\x1b[2J\x7f")
    w.wait_stderr("evil")
    assert not re.search("(?m)^" + re.escape(FORGED), w.stderr)
    assert not CONTROL.search(w.stderr.replace("\n", "").encode())


@pytest.mark.parametrize("form", ["combined", "json", "$uri $http_x_evil $referer $user_agent"])
def test_access_log_in_syslog(warp, syslog, form):
    """Whatever a request says, it is one line."""
    w = warp(conf({"respond": {"status": 200}}, log={"access": "syslog", "format": form}))
    evil = ["User-Agent: a\tb\x80\x9b2J<3>", "X-Evil: %0a%1b\xff", "Referer: \\n\\x0a\"x", "Authorization: Basic YQpiG1s6eA=="]
    assert w.ask("/%0aevil%1b[2J?%0d", *evil).status == 200    # the user is "a\nb\x1b["
    assert w.ask("/last").status == 200
    syslog.wait("/last")
    assert len(syslog.lines) == 2, syslog.lines
    assert not any(re.search(rb"[^\x20-\x7e]", x.rstrip(b"\n\0")) for x in syslog.lines), syslog.lines


JSON = '{"t":"$time","c":"$client","m":"$method","u":"$uri","s":$status,"r":"$referer","a":"$user_agent","w":"$user"}'


@pytest.mark.parametrize("form", ["common", "combined", "json", JSON])
@pytest.mark.parametrize("byte", ["\xe9", '"'])
def test_nobody_keeps_himself_out_of_syslog(warp, syslog, form, byte):
    """Bytes that take four or six in the line are cut away until it is short enough; what warp itself knows stays."""
    w = warp(conf({"respond": {"status": 200}}, log={"access": "syslog", "format": form}))
    evil = ["User-Agent: " + byte * 100, "Referer: " + byte * 100, "Authorization: Basic " + base64.b64encode(b"\1" * 100 + b":x").decode()]
    assert w.ask("/" + '"' * 100, *evil, method="M" * 60, host="h" * 200).status == 200
    assert w.ask("/last").status == 200
    syslog.wait("/last")
    assert len(syslog.lines) == 2 and b"127.0.0.1" in syslog.lines[0], syslog.lines


OUTPUT = r"printf 'first\rover\033[2Jclear\177del\000nul\tend\n'; echo last; exec sleep 60"


@pytest.mark.parametrize("log", ["prefix", "syslog"])
def test_output_of_a_process_in_syslog(warp, syslog, log):
    """A terminal that shows the log obeys warp alone; nothing behind a NUL is hidden."""
    warp(fleet(None, {"app": sh(OUTPUT, log=log)}, more='[log]\nerror = "syslog"\n'))
    syslog.wait("last")
    line = syslog.wait("first")
    assert re.search(rb"first.over.\[2Jclear.del.nul.end", line), line
    assert not any(CONTROL.search(x.rstrip(b"\n\0")) for x in syslog.lines), syslog.lines


def test_tabs_of_a_stack_trace(warp):
    w = warp(fleet(None, {"app": sh(r"printf '\tat a.b(c.java:1)\n\t\033x\n'; exec sleep 60")}))
    w.wait_stderr("java")
    assert "app: \tat a.b(c.java:1)\n" in w.stderr
    w.wait_stderr("(?m)app: \t\\?x$")


def test_output_of_a_process_on_stderr(warp):
    w = warp(fleet(None, {"app": sh(OUTPUT)}))
    w.wait_stderr("app: last")
    assert re.search("app: first.over.\\[2Jclear.del.nul.end$", w.stderr, re.M), w.stderr
    assert not CONTROL.search(w.stderr.replace("\n", "").encode()), w.stderr


def test_status_and_metrics(warp):
    """What a process said, and names of the configuration, are cells of a table and values of JSON."""
    text = fleet(None, {"app": sh(OUTPUT.replace("exec sleep 60", "exit 3"), restart="never")}).replace(
        "[[routes]]", "[[routes]]\ndescription = \"d\\nwarp_forged 1\\u001b[2J\"")
    w = warp(text)
    p = proc_that(w, lambda p: p["state"] == "failed" and len(p["lines"]) == 2, "app")
    assert not any(CONTROL.search(x.encode()) for x in p["lines"]), p["lines"]
    assert p["lines"][0].startswith("first") and p["lines"][0].endswith("end")
    out = verb(w, "status").stdout
    assert not CONTROL.search(out.replace("\n", "").encode()) and not re.search("(?m)^(warp_forged|over)", out), out
    with Client(w.path("admin")) as c:
        m = c.ask("/metrics").text
    assert not CONTROL.search(m.replace("\n", "").encode()) and not re.search("(?m)^warp_forged", m)
    w.wait_stderr("exited with status 3")
    assert not CONTROL.search(w.stderr.replace("\n", "").encode()), w.stderr
