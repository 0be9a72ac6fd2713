"""Workers and helpers give up system calls (seccomp) and files (Landlock); the master and programs do not. What is refused
in detail: tests/unit/test_sandbox.c. A build with glibc (sanitizers) has no sandbox: only that this is said is tested there."""
import ctypes
import os
import shutil
import signal
import tempfile

import pytest

import lib
from lib import conf, eventually, toml_file
from supervised import reload, status, upgrade

MB = 1 << 20
HAS = lib.run_warp("-t", "-u", "127.0.0.1:1").stdout   # what -t says of this host
WHOLE = "sandbox calls and files" in HAS
CALLS = "sandbox calls" in HAS
bounded = pytest.mark.skipif(not WHOLE, reason="no Landlock here, or a build with glibc")


def fact(pid, name):
    """A line of its status; "gone" if it has ended meanwhile."""
    try:
        with open("/proc/%d/status" % pid) as f:
            return next(line.split()[1] for line in f if line.startswith(name + ":"))
    except OSError:
        return "gone"


def comm(pid):
    return fact(pid, "Name")


def everybody(tmp_path, **server):
    """A worker, each helper, and a program."""
    return dict(conf({"path_prefix": "/"}, server={"worker_threads": 2, **server}, log={"level": "debug"},
                     app={"host": "localhost", "port": 1}, web={"process": {"command": "/bin/sleep", "args": ["1000"], "ready": "exec"}}),
                admin={"listen": ["@DIR@/admin"]},
                cache={"size_bytes": MB}, postgres={"url": "postgres://nobody@localhost:1/x"},
                fastrouter={"listen": ["@DIR@/router"], "subscription_server": "@DIR@/subscribe"})


def held(w, calls):
    """All of warp's children but wardens are in the sandbox, or none is; the master and programs never."""
    inside = [p for p in w.children() if comm(p) != "warden"]
    wardens = [p for p in w.children() if comm(p) == "warden"]
    return len(inside) >= 5 and wardens and fact(w.pid, "Seccomp") == "0" and \
        all(fact(p, "Seccomp") == ("2" if calls else "0") and fact(p, "NoNewPrivs") == "1" for p in inside) and \
        all(fact(p, "Seccomp") == "0" for d in wardens for p in [d, *w.children(of=d)])


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_who_is_in_it(warp, tmp_path, mode):
    """Each worker and helper; after a reload and an upgrade as well."""
    w = warp(toml_file(everybody(tmp_path, sandbox=mode)))
    calls = CALLS and mode == "auto"
    eventually(lambda: held(w, calls), "sandboxes")
    assert ("sandbox: calls" in w.stderr) == calls
    reload(w)
    eventually(lambda: held(w, calls), "sandboxes after a reload")
    upgrade(w)
    eventually(lambda: held(w, calls), "sandboxes after an upgrade")
    assert "died of signal" not in w.stderr and "; another one follows" not in w.stderr


def test_strict(check):
    text = toml_file(conf({"respond": {"status": 200}}, server={"sandbox": "strict", "listen": ["127.0.0.1:1"]}))
    r = check(text)
    assert r.returncode == (0 if WHOLE else 1)
    assert ("sandbox calls and files" in r.stdout) if WHOLE else ("server.sandbox: strict cannot be: " in r.stderr)


@bounded
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_root_is_replaced(warp, tmp_path, mode):
    """Out of a worker's reach: another takes its place, and no request is lost."""
    root, new = tmp_path / "root", tmp_path / "new"
    for d, text in ((root, "one"), (new, "two")):
        d.mkdir()
        (d / "x.txt").write_text(text)
    w = warp(toml_file(conf({"path_prefix": "/", "static_dir": str(root)}, server={"sandbox": mode})))
    before = w.children()
    with w.client() as kept:
        assert kept.ask("/x.txt").text == "one"
        os.rename(root, tmp_path / "old")
        os.rename(new, root)
        eventually(lambda: w.ask("/x.txt").text == "two", "the new files")
        assert kept.ask("/x.txt").status == 200
    assert (w.children() == before) == (mode == "off")
    eventually(lambda: len(w.children()) == 1, "only the new worker")


@bounded
def test_maintenance_directory_is_replaced(warp, backend, tmp_path):
    d = tmp_path / "flags"
    d.mkdir()
    w = warp(toml_file(conf({"path_prefix": "/"}, app={"on": backend(), "maintenance": str(d / "down.txt")})))
    assert w.ask().status == 200
    shutil.rmtree(d)
    d.mkdir()
    (d / "down.txt").write_text("back soon")
    eventually(lambda: w.ask().text == "back soon", "the text of the file")
    os.unlink(d / "down.txt")
    eventually(lambda: w.ask().status == 200, "its end")


def humble():
    """A root that is let in no further than others, as in a container with cap_drop: all."""
    for cap in (1, 2):                                    # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, cap, 0, 0, 0)         # PR_CAPBSET_DROP


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone has what is dropped here")
def test_directories_that_only_the_user_may_see(warp, backend):
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        d = os.path.join(top, "private", "root")
        os.makedirs(d)
        for name in ("x.txt", "down.txt"):
            with open(os.path.join(d, name), "w") as f:
                f.write(name)
        shutil.chown(os.path.dirname(d), "nobody")
        os.chmod(os.path.dirname(d), 0o700)
        w = warp(toml_file(conf({"path_prefix": "/files/", "static_dir": d, "strip_prefix": True}, {"path_prefix": "/"},
                                server={"user": "nobody"}, app={"on": backend(), "maintenance": d + "/down.txt"})), preexec_fn=humble)
        before = w.children()
        for path, text in (("/", "down.txt"), ("/files/x.txt", "x.txt")):
            assert w.ask(path).text == text
        assert w.children() == before, "and no other worker"


def test_what_workers_open(warp, backend, tmp_path):
    """Long bodies, files, logs that are opened anew: all within."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "big.bin").write_bytes(b"b" * 3 * MB)
    b = backend()
    w = warp(toml_file(conf({"path_prefix": "/files", "static_dir": str(root), "strip_prefix": True},
                            {"path_prefix": "/", "buffer_request": 4096}, app=b, log={"access": "@DIR@/access.log"},
                            admin={"listen": ["@DIR@/admin"]})))
    assert w.ask("/up", method="POST", body=b"x" * 3 * MB).text.endswith(str(3 * MB))
    assert len(w.ask("/files/big.bin").body) == 3 * MB
    os.rename(w.path("access.log"), w.path("access.old"))
    w.signal(signal.SIGUSR1)
    w.wait_stderr("logs reopened")
    eventually(lambda: w.ask("/files/big.bin").status == 200 and os.path.getsize(w.path("access.log")) > 0, "lines in the new log")


def test_status_says_it_and_what_is_used(warp):
    """A master that hangs is not waited for."""
    w = warp(toml_file(conf({"respond": {"status": 200}}, admin={"listen": ["@DIR@/admin"]})))
    ask = lambda: status(w)
    s = ask()
    assert (s["sandbox"] == "calls and files") == WHOLE
    assert s["rss_bytes"] > 0 and all(x["rss_bytes"] > 0 for x in s["workers"])
    w.signal(signal.SIGSTOP)
    try:
        assert ask()["workers"]
    finally:
        w.signal(signal.SIGCONT)
