"""Power cuts: whatever warp writes to keep is there whole, or as it was, whenever the power goes. warp is killed before
each system call of such a write, then starts again from what is left; and the calls are seen to be in the order that
outlives a cut: the bytes are on the disk before the name is, and then the name.

With WHOLE: at each call of a certificate's write as well, else at a few."""
import collections
import os
import re
import shutil

import pytest

import acme
import lib
from lib import SANITIZED, WARP, eventually, run_warp
from test_acme import ca, conf, first

WHOLE = bool(os.environ.get("WHOLE"))
NAMES = ("", "account.key", "account.key.new", "a.example.pem", "a.example.pem.new")

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"), reason="no strace"),
    pytest.mark.skipif(not shutil.which("pebble"), reason="no pebble"),
    pytest.mark.skipif(SANITIZED, reason="its leak checker is no friend of strace"),
]


class Cut:
    """warp under strace, which sees only what is done to these paths."""

    def __init__(self, dir, monkeypatch, paths):
        self.dir, self.monkeypatch, self.log = dir, monkeypatch, os.path.join(dir, "calls")
        self.paths = " ".join("-P '%s'" % p for p in paths)

    def tool(self, *inject):
        """The command to take for warp: it is killed before the k-th call of that name."""
        path = os.path.join(self.dir, "cut")
        with open(path, "w") as f:
            f.write("#!/bin/sh\nexec strace -qq -D -o '%s' %s %s '%s' \"$@\"\n" % (self.log, self.paths, " ".join(
                "-e inject=%s:signal=KILL:when=%d" % i for i in inject), WARP))
        os.chmod(path, 0o755)
        self.monkeypatch.setattr(lib, "WARP", path)

    def calls(self, text):
        """Calls from the first with text in it, each as (name, which of that name, line)."""
        counts, out = collections.Counter(), []
        with open(self.log) as f:
            for line in f:
                if m := re.match(r"(\w+)\(", line):
                    counts[m[1]] += 1
                    if out or text in line:
                        out.append((m[1], counts[m[1]], line))
        return out


def ordered(calls, name):
    """What was done to write name: whole in a file of its own, on the disk, then renamed, and that is on the disk."""
    words = [c[0] for c in calls]
    at = words.index("rename")
    assert '%s.new"' % name in calls[at][2] and calls[at][2].rstrip().endswith("= 0")
    before = words[:at]
    assert before.index("write") < len(before) - 1 - before[::-1].index("fsync"), before
    assert "fsync" in words[at:], words


@pytest.fixture
def cut(tmp_path, monkeypatch):
    dir = tmp_path / "cut"
    dir.mkdir()
    return Cut(str(dir), monkeypatch, [os.path.join(str(dir), "acme", n).rstrip("/") for n in NAMES])


DEAD = """
[server]
listen = ["https://127.0.0.1:@PORT@"]
[tls]
enabled = true
domains = ["a.example"]
acme_directory = "@DIR@/acme"
acme_url = "https://127.0.0.1:1/dir"
[[routes]]
respond = { status = 200, body = "hello" }
"""


def whole(path, mark):
    with open(path) as f:
        text = f.read()
    return text.count("-----BEGIN") == text.count("-----END") > 0 and mark in text


@pytest.mark.limit(60)
def test_account_key(warp, cut):
    """The account's key: at every call."""
    key = os.path.join(cut.dir, "acme", "account.key")
    cut.tool()
    w = warp(DEAD, dir=cut.dir)
    w.wait_stderr("account.key made")
    w.stop()
    calls = cut.calls("mkdir(")
    ordered(calls, "account.key")
    assert len(calls) > 12 and whole(key, "PRIVATE KEY")
    for name, k, line in calls:
        shutil.rmtree(os.path.join(cut.dir, "acme"))
        cut.tool((name, k))
        w = warp(DEAD, dir=cut.dir, ready=False)
        assert w.wait() == -9, line
        made = os.path.exists(key)
        text = open(key).read() if made else None
        assert not made or whole(key, "PRIVATE KEY"), line
        cut.tool()
        w = warp(DEAD, dir=cut.dir)
        w.wait_stderr("asking https" if made else "account.key made")
        w.stop()
        assert whole(key, "PRIVATE KEY") and text in (None, open(key).read()), line
        assert os.listdir(os.path.join(cut.dir, "acme")) == ["account.key"], line


@pytest.mark.limit(300 if WHOLE else 40)
def test_certificate(ca, warp, cut):
    """The certificate with its key: at every call, or at those that matter."""
    p = ca()
    pem = os.path.join(cut.dir, "acme", "a.example.pem")
    cut.tool()
    for again in range(2): # the second time the account's key is there, as it is below
        w = warp(conf(p), port=p.http, dir=cut.dir)
        first(p)
        w.stop()
        if not again:
            os.unlink(pem)
    calls = cut.calls("a.example.pem.new")
    calls = calls[:[c[0] for c in calls].index("rename") + 6]
    ordered(calls, "a.example.pem")
    matter = [c for c in calls if WHOLE or c[0] in ("write", "rename") or c == calls[-2]]
    for name, k, line in matter:
        os.unlink(pem)
        cut.tool((name, k))
        w = warp(conf(p), port=p.http, dir=cut.dir, ready=False)
        assert w.wait(30) == -9, line
        made = os.path.exists(pem)
        assert not made or whole(pem, "PRIVATE KEY"), line
        before = p.orders()
        cut.tool()
        w = warp(conf(p), port=p.http, dir=cut.dir)
        first(p)
        w.stop()
        assert p.orders() - before == (not made), line
        assert sorted(os.listdir(os.path.join(cut.dir, "acme"))) == ["a.example.pem", "account.key"], line


def test_pid_file(warp, tmp_path, monkeypatch):
    """The pid file is written in place, as the lock on it has to stay: empty or whole, and never in the way."""
    dir = tmp_path / "pid"
    dir.mkdir()
    path = str(dir / "warp.pid")
    cut = Cut(str(dir), monkeypatch, [path, str(dir)])
    cut.tool()
    w = warp('[[routes]]\nrespond = { status = 200, body = "x" }\n', "-p", path, dir=str(dir))
    pid = w.pid
    assert open(path).read() == "%d\n" % pid
    w.stop()
    calls = cut.calls("")
    calls = calls[:[c[0] for c in calls].index("pwrite64") + 2] # then it stops, in peace
    for name, k, line in calls:
        cut.tool((name, k))
        w = warp(None, "-c", w.file, "-p", path, dir=str(dir), ready=False)
        assert w.wait() == -9, line
        left = open(path).read() if os.path.exists(path) else ""
        assert left in ("", "%d\n" % w.pid), (line, left)
        cut.tool()
        w = warp(None, "-c", w.file, "-p", path, dir=str(dir))
        assert open(path).read() == "%d\n" % w.pid
        w.stop()
