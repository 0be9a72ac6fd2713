"""Names are kept as they were given, and looked up anew each time: after a switch of a symlink (`current` of a deployment,
`..data` of a ConfigMap, a profile of NixOS) a reload reads the new file, a restart starts the new release, an upgrade the
new binary."""
import contextlib
import os
import shutil
import signal

import pytest

import lib
from lib import eventually, toml_file
from supervised import kill, reload, upgrade, verb, wait_state


class Releases:
    """DIR/releases/one and two, and DIR/current that leads to one of them."""

    def __init__(self, dir):
        self.dir, self.current = str(dir), os.path.join(str(dir), "current")
        for name in ("one", "two"):
            os.makedirs(self.path(name))
        self.switch("one")

    def path(self, name, *more):
        return os.path.join(self.dir, "releases", name, *more)

    def put(self, name, file, text, mode=0o644):
        with open(self.path(name, file), "w") as f:
            f.write(text)
        os.chmod(self.path(name, file), mode)

    def switch(self, name):
        """As deployments do it: never without one."""
        os.symlink("releases/" + name, self.current + ".new")
        os.rename(self.current + ".new", self.current)


@pytest.fixture
def releases(tmp_path):
    return Releases(tmp_path)


@pytest.fixture
def at(request, tmp_path):
    """at(file, *args, **how): `warp -c file` in the test's directory, stopped at the end."""
    made = request.node.warps = []

    def start(file, cwd=None, **kw):
        w = lib.Warp(None, ["-c", file], cwd or tmp_path, **kw)
        w.file = os.path.join(str(cwd or tmp_path), file)
        made.append(w)
        return w
    yield start
    for w in made:
        w.stop()


def says(word, dir, port):
    return lib.complete(toml_file({"admin": {"listen": [dir + "/admin"]}, "routes": [{"respond": {"status": 200, "body": word}}]}), port)


# ---- the configuration ------------------------------------------------------------

@pytest.mark.parametrize("how", ["absolute", "relative", "PWD"])
def test_reload_reads_the_file_of_the_new_release(at, releases, how, monkeypatch):
    """Said with its whole path, with one from the directory where warp starts, or as the shell's `cd current` has it."""
    port = lib.free_port()
    for name in ("one", "two"):
        releases.put(name, "warp.toml", says(name, releases.dir, port))
    if how == "PWD":
        w = at("warp.toml", cwd=releases.current, env={"PWD": releases.current}, port=port)
    else:
        w = at("current/warp.toml" if how == "relative" else releases.current + "/warp.toml", port=port)
    assert w.ask().text == "one"
    releases.switch("two")
    reload(w)
    assert w.ask().text == "two"
    releases.switch("one")
    upgrade_by_status(w, releases.dir)
    assert w.ask().text == "one", "USR2 reads it as well"


def upgrade_by_status(w, dir):
    w.dir, before = dir, w.dir             # the admin socket is there
    upgrade(w)
    w.dir = before


def test_reload_after_a_config_map_has_changed(at, tmp_path):
    """warp.toml -> ..data/warp.toml, and ..data is what moves."""
    port = lib.free_port()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "warp.toml").write_text(says(name, str(tmp_path), port))
    os.symlink("one", tmp_path / "..data")
    os.symlink("..data/warp.toml", tmp_path / "warp.toml")
    w = at(str(tmp_path / "warp.toml"), port=port)
    assert w.ask().text == "one"
    os.symlink("two", tmp_path / "..tmp")
    os.rename(tmp_path / "..tmp", tmp_path / "..data")
    shutil.rmtree(tmp_path / "one")
    reload(w)
    assert w.ask().text == "two"


# ---- programs -----------------------------------------------------------------------

def site(releases, port, **process):
    return lib.complete(toml_file({"admin": {"listen": [releases.dir + "/admin"]}, "routes": [{"respond": {"status": 200}}],
                                   "processes": {"web": {"backoff_secs": 0.05, **process}}}), port)


@pytest.mark.parametrize("how", ["restart", "crash", "after USR2"])
def test_restart_starts_the_new_release(at, releases, how):
    """Command, directory and envfile are given from the configuration's directory, which is below the link."""
    port = lib.free_port()
    for name in ("one", "two"):
        releases.put(name, "warp.toml", site(releases, port, command="./app", envfile="env"))
        releases.put(name, "env", "WORD=%s\n" % name)
        releases.put(name, "app", "#!/bin/sh\necho %s $WORD $(cat file)\nexec sleep 987\n" % name, 0o755)
        releases.put(name, "file", "%s\n" % name)
    w = at(releases.current + "/warp.toml", port=port)
    w.wait_stderr("web: one one one")
    releases.switch("two")
    if how == "after USR2":
        releases.switch("one")
        upgrade(w)
        releases.switch("two")
    if how == "crash":
        os.kill(wait_state(w, "up")["pid"], signal.SIGKILL)
    else:
        verb(w, "restart", "web")
    w.wait_stderr("web: two two two")


def sleeper(w):
    for pid in sum(map(w.children, w.children()), w.children()):       # below its warden
        with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as f:
            if f.read() == b"sleep\0987\0":
                return pid
    return None


def test_wrapped_command_of_the_new_release(releases, request, tmp_path):
    """`cd current && warp -- ./app`, as the shell's PWD says it."""
    for name in ("one", "two"):
        releases.put(name, "app", "#!/bin/sh\necho I am %s\nexec sleep 987\n" % name, 0o755)
    w = lib.Warp(None, ["-l", "127.0.0.1:@PORT@", "--", "./app"], releases.current, env={"PWD": releases.current}, ready=False)
    request.node.warps = [w]
    try:
        w.wait_stderr("I am one")
        releases.switch("two")
        kill(eventually(lambda: sleeper(w), "its sleep"))
        w.wait_stderr("I am two")
    finally:
        w.proc.send_signal(signal.SIGTERM)
        w.wait()


# ---- the binary ---------------------------------------------------------------------

def exe(w):
    return os.readlink("/proc/%d/exe" % w.pid)


@pytest.mark.parametrize("called", ["path", "relative", "PATH"])
def test_upgrade_to_the_binary_of_the_new_release(warp, releases, monkeypatch, called):
    """Called by its path, by one from the directory where it started, or found in PATH; and back."""
    for name in ("one", "two"):
        shutil.copy2(lib.WARP, releases.path(name, "warp"))
    env = {}
    if called == "path":
        name = releases.current + "/warp"
    elif called == "relative":
        name = "./current/warp"
    else:
        name, env = "warp", {"PATH": releases.current + ":" + os.environ["PATH"]}
        monkeypatch.setenv("PATH", env["PATH"])
    monkeypatch.setattr(lib, "WARP", name)
    w = warp(toml_file({"admin": {"listen": ["@DIR@/admin"]}, "routes": [{"respond": {"status": 200}}]}), dir=releases.dir, env=env)
    assert exe(w) == releases.path("one", "warp")
    for to in ("two", "one"):
        releases.switch(to)
        upgrade(w)
        assert exe(w) == releases.path(to, "warp")


def test_upgrade_under_another_name_finds_itself(warp, tmp_path, monkeypatch):
    """argv[0] may be anything, and may even name another program: the binary that runs is the one that is replaced."""
    binary = str(tmp_path / "warp-binary")
    shutil.copy2(lib.WARP, binary)
    script = tmp_path / "start"
    script.write_text("#!/bin/bash\nexec -a ls %s \"$@\"\n" % binary)
    script.chmod(0o755)
    monkeypatch.setattr(lib, "WARP", str(script))
    w = warp(toml_file({"admin": {"listen": ["@DIR@/admin"]}, "routes": [{"respond": {"status": 200}}]}))
    os.rename(binary, binary + ".old")
    shutil.copy2(binary + ".old", binary)
    upgrade(w)
    assert exe(w) == binary
