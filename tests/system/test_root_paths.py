"""The master is root, and walks over paths that belong to others: logs, sockets, pid file, envfile, pages, run and ACME
directories. Whoever owns a directory can put there whatever he likes, at any time; root must not take it for its own."""
import ctypes
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile

import pytest

import lib
from lib import eventually, free_port, read, toml_file
from supervised import fleet, proc, reload, sh, verb, wait_state

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = pwd.getpwnam("nobody")
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


class Place:
    """Directories that everyone can reach: mine is root's, with a victim in it; theirs belongs to nobody."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="warp-paths-", dir="/tmp")
        self.mine, self.theirs = self.top + "/mine", self.top + "/theirs"
        for d in (self.mine, self.theirs):
            os.mkdir(d, 0o755)
        os.chmod(self.top, 0o755)
        os.chown(self.theirs, NOBODY.pw_uid, NOBODY.pw_gid)
        self.victim = self.mine + "/victim"
        with open(self.victim, "w") as f:
            f.write("precious\n")
        os.chmod(self.victim, 0o600)

    def lure(self, name, target=None, hard=False):
        """What lay there goes; nobody's own link leads to target."""
        path = "%s/%s" % (self.theirs, name)
        if os.path.lexists(path):
            os.rename(path, path + ".away")
        (os.link if hard else os.symlink)(target or self.victim, path)
        if not hard:
            os.lchown(path, NOBODY.pw_uid, NOBODY.pw_gid)
        return path

    def unharmed(self):
        st = os.stat(self.victim)
        with open(self.victim) as f:
            assert f.read() == "precious\n", "root wrote into another one's file"
        assert st.st_mode & 0o777 == 0o600 and st.st_uid == 0, "mode %o, owner %d" % (st.st_mode & 0o777, st.st_uid)
        assert os.listdir(self.mine) == ["victim"], "root made a file: %s" % os.listdir(self.mine)


@pytest.fixture
def place():
    p = Place()
    yield p
    shutil.rmtree(p.top)


def answered_or_ended(w):
    if w.proc.poll() is not None:
        return True
    try:
        return w.ask().status == 200
    except OSError:
        return False


# ---- logs -----------------------------------------------------------------------

def talker(place, log, **keys):
    """Says a line, more when it is told to; runs as nobody."""
    return sh("echo hello; while :; do [ -e said ] || { echo more; : >said; }; sleep 0.02; done", user="nobody",
              dir=place.theirs, log=log, **keys)


def says(place):
    """The process says one more line, and has said it."""
    said = place.theirs + "/said"
    if os.path.exists(said):
        os.unlink(said)
    eventually(lambda: os.path.exists(said), "the process says something")


@pytest.mark.parametrize("occasion", ["start", "restart", "reload", "USR1"])
def test_log_of_a_process_that_became_a_link(warp, place, occasion):
    """The application swaps its log for a link to a file of root's: nothing is written there, whenever the log is opened
    next. Its own file was served before, and one at an honest path is again."""
    log = place.theirs + "/log"
    if occasion == "start":
        place.lure("log")
    w = warp(fleet(None, {"web": talker(place, log)}))
    wait_state(w, "up")
    says(place)
    if occasion != "start":
        eventually(lambda: "hello\nmore\n" in read(log))
        place.lure("log")
        if occasion == "restart":
            verb(w, "restart", "web")
        elif occasion == "reload":
            reload(w)
        else:
            w.signal(signal.SIGUSR1)
            w.wait_stderr("logs reopened")
        says(place)
        says(place)
    verb(w, "stop", "web")                 # all it said has been passed on
    place.unharmed()
    os.unlink(log)
    verb(w, "start", "web")
    eventually(lambda: "hello\n" in read(log), "an honest log")


@pytest.mark.parametrize("how", ["dangling", "directory", "hard"])
def test_log_of_a_process_by_other_ways(warp, place, how):
    """A link to where no file is, a directory on the way that is a link, a second name of root's file."""
    log = place.theirs + "/log"
    if how == "dangling":
        place.lure("log", place.mine + "/new")
    elif how == "hard":
        place.lure("log", hard=True)
    else:
        place.lure("logs", place.mine)
        log = place.theirs + "/logs/log"
    w = warp(fleet(None, {"web": talker(place, log)}))
    wait_state(w, "up")
    says(place)
    verb(w, "stop", "web")
    place.unharmed()


def test_logs_in_directories_of_roots(warp, place):
    """Nobody else can write there: root opens the log, also through links of root's own, as distributions have them."""
    os.symlink(place.mine, place.top + "/var")
    w = warp(fleet(None, {"web": talker(place, place.top + "/var/app.log")}))
    wait_state(w, "up")
    eventually(lambda: "hello\n" in read(place.mine + "/app.log"))


@pytest.mark.parametrize("occasion", ["USR1", "reload", "start"])
@pytest.mark.parametrize("which", ["access", "error"])
def test_own_logs_in_a_directory_of_the_workers_user(warp, place, which, occasion):
    """The same for warp's own logs, in a directory that server.user owns (as /var/log/nginx once did)."""
    log = "%s/%s.log" % (place.theirs, which)
    text = toml_file({"server": {"user": "nobody"}, "log": {which: log, "level": "debug"},
                      "routes": [{"respond": {"status": 200, "body": "ok"}}]})
    if occasion == "start":
        place.lure(which + ".log", place.mine + "/new")
        w = warp(text, ready=False)        # it may refuse to start as well
        eventually(lambda: answered_or_ended(w))
        if w.proc.poll() is not None:
            w.stopped = True
    else:
        w = warp(text)
        w.ask("/before")
        eventually(lambda: read(log))
        place.lure(which + ".log", place.mine + "/new" if occasion == "reload" else None)
        w.signal(signal.SIGHUP if occasion == "reload" else signal.SIGUSR1)
        worker = w.children()
        if occasion == "reload" and which == "error":
            eventually(lambda: w.children() != worker or "given up" in w.stderr + read(log + ".away"))
        w.ask("/after")
        w.ask("/after")
    if not w.stopped:
        w.stop()
    place.unharmed()


# ---- sockets ----------------------------------------------------------------------

@pytest.mark.parametrize("lure", ["link", "hard", "socket"])
def test_mode_of_a_listener_that_is_no_more_there(warp, place, lure):
    """At a reload the socket's mode is set anew: of warp's own socket, not of what lies at its path now."""
    path = place.theirs + "/warp.sock"
    text = lambda mode: toml_file({"server": {"listen": [path, "127.0.0.1:@PORT@"], "socket_mode": mode},
                                   "routes": [{"respond": {"status": 200, "body": "ok"}}]}).replace('"%s"' % mode, mode)
    w = warp(text("0o606"))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o606
    reload(w, text("0o666"))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666, "its own is changed"
    if lure == "socket":
        other = lib.Backend(unix=place.mine + "/s")
        os.chmod(place.mine + "/s", 0o600)
        place.lure("warp.sock", place.mine + "/s", hard=True)
    else:
        place.lure("warp.sock", hard=lure == "hard")
    reload(w, text("0o606"))
    w.stop()
    if lure == "socket":
        mode = stat.S_IMODE(os.stat(place.mine + "/s").st_mode)
        other.close()
        os.unlink(place.mine + "/s")
        assert mode == 0o600
    place.unharmed()


# ---- pid file -----------------------------------------------------------------------

@pytest.mark.parametrize("how", ["link", "dangling", "hard"])
def test_pid_file_that_is_a_link(place, run, how):
    """Neither emptied nor written, nor made: the start is refused and says why."""
    path = place.lure("pid", place.mine + "/new" if how == "dangling" else None, hard=how == "hard")
    w = lib.Warp(toml_file({"routes": [{"respond": {"status": 200, "body": "ok"}}]}), ["-p", path], place.top, ready=False)
    try:
        eventually(lambda: answered_or_ended(w))
    finally:
        status = w.proc.poll()
        if status is None:
            w.stop()
        else:
            w.wait()
    place.unharmed()
    assert status is None or (status == 4 and re.search("pid", w.stderr)), w.stderr


def test_pid_file_of_somebody_else_stays(warp, place):
    """What was put in its place meanwhile is not removed at the end."""
    path = place.theirs + "/pid"
    w = warp(toml_file({"routes": [{"respond": {"status": 200, "body": "ok"}}]}), "-p", path)
    assert int(read(path)) == w.pid
    os.rename(path, path + ".away")
    with open(path, "w") as f:
        f.write("another one's\n")
    w.stop()
    assert read(path) == "another one's\n"


# ---- what root reads for others -----------------------------------------------------------

def test_envfile_that_became_a_link(warp, place):
    """The application cannot have root read a secret file of root's into its environment."""
    with open(place.victim, "w") as f:
        f.write("SECRET=topsecret\n")
    with open(place.theirs + "/env", "w") as f:
        f.write("HONEST=yes\n")
    w = warp(fleet(None, {"web": sh("env >>seen; echo ran >>seen; exec sleep 1000", user="nobody",
                                    dir=place.theirs, envfile=place.theirs + "/env")}))
    wait_state(w, "up")
    eventually(lambda: "HONEST=yes" in read(place.theirs + "/seen"))
    place.lure("env")
    verb(w, "restart", "web", ok=None)
    eventually(lambda: read(place.theirs + "/seen").count("ran\n") == 2 or proc(w)["state"] in ("backoff", "failed"))
    assert "topsecret" not in read(place.theirs + "/seen")


def test_envfile_of_roots(warp, place):
    """In a directory of root's, readable by root alone: given to the process, as before."""
    with open(place.victim, "w") as f:
        f.write("SECRET=for you\n")
    w = warp(fleet(None, {"web": sh("env >>seen; exec sleep 1000", user="nobody", dir=place.theirs, envfile=place.victim)}))
    eventually(lambda: "SECRET=for you" in read(place.theirs + "/seen"))
    w.stop()


def test_error_page_that_is_a_link(warp, place):
    """Nobody reads root's files by way of an error page of his own; links of root's are followed."""
    os.symlink(place.victim, place.mine + "/404.html")
    text = lambda d: toml_file({"server": {"user": "nobody", "error_dir": d, "no_route_status": 404},
                                "routes": [{"path_exact": "/ok", "respond": {"status": 200}}]})
    w = warp(text(place.mine))
    assert w.ask("/", "Accept: text/html").text == "precious\n"
    place.lure("404.html")
    reload(w, text(place.theirs))
    m = w.ask("/", "Accept: text/html")
    assert m.status == 404 and "precious" not in m.text


# ---- directories of warp's own --------------------------------------------------------------

def private_run():
    """In the child: /run is its own, with a /run/warp that belongs to nobody."""
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) or
            libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755")):
        raise OSError(ctypes.get_errno(), "a /run of one's own")
    os.mkdir("/run/warp", 0o755)
    os.chown("/run/warp", NOBODY.pw_uid, NOBODY.pw_gid)


@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode != 0,
                    reason="needs mount namespaces, which a chroot has not")
def test_run_directory_of_somebody_else(warp):
    """Chosen sockets are never below a directory whose owner could swap them."""
    w = warp(fleet(sh("echo {socket}; exec sleep 1000", ready="exec")), preexec_fn=private_run)
    path = w.wait_stderr(r"web: (/\S+\.sock)")[1]
    root = "/proc/%d/root" % w.pid
    while path != "/":
        path = os.path.dirname(path)
        st = os.lstat(root + path)
        assert stat.S_ISDIR(st.st_mode) and st.st_uid == 0, "%s is of %d" % (path, st.st_uid)
        assert not st.st_mode & 0o022 or st.st_mode & stat.S_ISVTX, "%s: mode %o" % (path, st.st_mode)


ACME = """
[server]
listen = ["127.0.0.1:@PORT@", "https://127.0.0.1:%d"]
[tls]
enabled = true
domains = ["a.example"]
acme_directory = "%s"
acme_url = "https://127.0.0.1:1/dir"
[[routes]]
respond = { status = 200, body = "ok" }
"""


@pytest.mark.parametrize("lax", ["mode", "owner"])
def test_acme_directory_that_others_may_write_to(warp, place, lax):
    """One that was there before: made private, or warned of by name. Keys lie there."""
    path = place.top + "/acme"
    os.mkdir(path)
    os.chmod(path, 0o777 if lax == "mode" else 0o755)
    if lax == "owner":
        os.chown(path, NOBODY.pw_uid, -1)
    w = warp(ACME % (free_port(), path))
    w.wait_stderr("no certificate for a.example")
    st = os.stat(path)
    tight = not st.st_mode & 0o022 and st.st_uid == 0
    assert tight or re.search(r"(?m)warn.*%s" % re.escape(path), w.stderr), "mode %o, owner %d" % (st.st_mode, st.st_uid)


@pytest.mark.parametrize("name", ["account.key", "try.new", "a.example.pem"])
def test_fifo_in_the_acme_directory(warp, place, name):
    """The master does not wait for whoever may open its other end."""
    path = place.theirs + "/" + name
    os.mkfifo(path, 0o600)
    w = warp(ACME % (free_port(), place.theirs), ready=False)
    try:
        eventually(lambda: answered_or_ended(w), "it starts, or says that it cannot")
        if w.proc.poll() is None:
            w.wait_stderr("no certificate for a.example")
            w.stop()
        w.stopped = True
    finally:
        for mode in (os.O_WRONLY, os.O_RDONLY):            # let it go, so that the test can end it
            try:
                os.close(os.open(path, mode | os.O_NONBLOCK))
            except OSError:
                pass
