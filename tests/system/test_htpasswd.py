"""basic_auth_file: what htpasswd writes, and what happens when it is written again."""
import base64
import os
import re
import shutil
import subprocess
import threading

import pytest

from lib import TIMEOUT, conf, eventually, toml_file
from test_blocking import took

SHA1 = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="                # password
SHA1_OTHER = "{SHA}aAtxBsxfFXz2T1gcZ4Y2fkTpnD4="
BCRYPT = "$2y$04$UMo.mGH.xMW2EtWiVNc2iOyEqZ.Q0vZASPD7gTDekOgexi4AobkCO"
GUARDED = {"basic_auth_file": "@DIR@/users", "respond": {"status": 200, "body": "in"}}
HTPASSWD = shutil.which("htpasswd")


def basic(user, password):
    return "Authorization: Basic " + base64.b64encode((user + ":" + password).encode()).decode()


def put(path, text):
    """As htpasswd and editors do: a new file in the place of the old."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


@pytest.fixture
def guarded(warp, tmp_path):
    """A warp whose file of users is this text; .put() writes another."""
    def start(text, *routes, **kw):
        d = tmp_path / "guarded"
        d.mkdir()
        put(str(d / "users"), text)
        w = warp(toml_file(conf(*routes or [GUARDED], **kw)), dir=str(d))
        w.put = lambda text: put(str(d / "users"), text)
        w.ok = lambda user, password="password": w.ask("/", basic(user, password)).status == 200
        return w
    return start


# reason: how htpasswd is called
@pytest.mark.skipif(not HTPASSWD, reason="needs apache2-utils")
@pytest.mark.parametrize("flags", [["-m"], ["-s"], ["-B", "-C", "5"], ["-2"], ["-5"]], ids=lambda f: f[0])
def test_what_htpasswd_writes(guarded, tmp_path, flags):
    p = subprocess.run([HTPASSWD, "-nb", *flags, "ann", "pass word"], capture_output=True, text=True, timeout=TIMEOUT)
    if p.returncode:
        pytest.skip("this htpasswd has no " + flags[0])
    w = guarded(p.stdout)
    assert w.ok("ann", "pass word") and w.ok("ann", "pass word"), p.stdout
    assert not w.ok("ann", "pass wor") and not w.ok("bob", "pass word") and not w.ok("ann", p.stdout.split(":", 1)[1].strip())
    m = w.ask()
    assert m.status == 401 and m.get("WWW-Authenticate").startswith("Basic realm=")


@pytest.mark.skipif(not HTPASSWD, reason="needs apache2-utils")
def test_htpasswd_changes_it_in_place(guarded):
    w = guarded("ann:%s\n" % SHA1)
    users = os.path.join(w.dir, "users")
    subprocess.run([HTPASSWD, "-bB", "-C", "4", users, "bob", "secret"], check=True, capture_output=True, timeout=TIMEOUT)
    eventually(lambda: w.ok("bob", "secret"), "bob may")
    assert w.ok("ann")
    subprocess.run([HTPASSWD, "-D", users, "ann"], check=True, capture_output=True, timeout=TIMEOUT)
    eventually(lambda: not w.ok("ann"), "ann may no more, though her password was good before")
    assert w.ok("bob", "secret")


@pytest.mark.parametrize("workers", [1, 3])
def test_reloaded_by_every_worker(guarded, workers):
    w = guarded("ann:%s\n" % SHA1, server={"worker_threads": workers})
    assert w.ok("ann") and not w.ok("bob")
    with w.client() as c:
        assert c.ask("/", basic("ann", "password")).status == 200
        w.put("bob:%s\n# ann:%s\n" % (BCRYPT, SHA1))
        w.wait_stderr("users have changed: 1 in .*/users")
        eventually(lambda: [w.ok("ann") for _ in range(12)] == [False] * 12, "no worker lets ann in")
        assert [w.ok("bob") for _ in range(6)] == [True] * 6
        assert c.ask("/", basic("bob", "password")).status == 200, "the connection stays"


def test_a_broken_file_keeps_the_old(guarded):
    w = guarded("ann:%s\n" % SHA1)
    path = os.path.join(w.dir, "users")
    for broken, why in (("ann:%s\nbob:plain\n" % SHA1_OTHER, r"users:2: this kind of hash"), ("\n\nann\n", r"users:3: expected user:hash")):
        w.put(broken)
        w.wait_stderr(why)
        assert w.ok("ann")
    os.unlink(path)
    w.wait_stderr("No such file")
    assert w.ok("ann")
    w.put("bob:%s\n" % SHA1)
    eventually(lambda: w.ok("bob"), "the next good one counts")
    assert not w.ok("ann")
    assert len(re.findall("cannot be used", w.stderr)) == 3, "each is said once"


def test_an_empty_file_lets_nobody_in(guarded, check):
    w = guarded("ann:%s\n" % SHA1)
    assert w.ok("ann")
    w.put("")
    eventually(lambda: not w.ok("ann"), "nobody may")
    assert w.ask().status == 401
    w.put("ann:%s\n" % SHA1)
    eventually(lambda: w.ok("ann"), "ann may again")


def test_one_file_of_two_routes(guarded):
    w = guarded("ann:%s\n" % SHA1, dict(GUARDED, path_prefix="/a"), {"path_prefix": "/open", "respond": {"status": 204}}, dict(GUARDED))
    assert [w.ask(t).status for t in ("/a", "/b", "/open")] == [401, 401, 204]
    w.put("bob:%s\n" % SHA1)
    eventually(lambda: w.ok("bob"), "bob may")
    assert w.ask("/a", basic("bob", "password")).status == 200


def test_reload_and_a_worker_that_dies(guarded):
    """A worker that is started later has the users of now."""
    w = guarded("ann:%s\n" % SHA1, server={"worker_threads": 1})
    w.put("bob:%s\n" % SHA1)
    eventually(lambda: w.ok("bob"), "bob may")
    old, = w.children()
    os.kill(old, 9)
    eventually(lambda: w.children() and w.children() != [old], "another worker")
    assert w.ok("bob") and not w.ok("ann")


@pytest.mark.parametrize("text, why", [("ann:secret\n", "users:1: this kind of hash"), ("ann:rqXexS6ZhobKA\n", "users:1: this kind of hash"),
    ("# x\nann\n", "users:2: expected user:hash"), (None, "users: No such file")])
def test_a_wrong_file_is_an_error(check, tmp_path, text, why):
    if text is not None:
        (tmp_path / "users").write_text(text)
    p = check(toml_file(conf(dict(GUARDED, basic_auth_file="users"))))
    assert p.returncode == 1 and re.search(r"error: routes.basic_auth_file: .*" + why, p.stdout + p.stderr), p.stdout + p.stderr
    assert "secret" not in p.stdout + p.stderr


def test_check_warns_and_counts(check, tmp_path):
    (tmp_path / "users").write_text("ann:%s\nbob:%s\n" % (SHA1, BCRYPT.replace("$04$", "$14$")))
    p = check(toml_file(conf(dict(GUARDED, basic_auth_file="users"))))
    assert p.returncode == 0 and re.search("warning: .*bob: a slow hash", p.stdout + p.stderr), p.stdout + p.stderr
    (tmp_path / "users").write_text("")
    p = check(toml_file(conf(dict(GUARDED, basic_auth_file="users"))))
    assert p.returncode == 0 and "names nobody" in p.stdout + p.stderr
    p = check(toml_file(conf(dict(GUARDED, basic_auth_file="users", basic_auth={"a": SHA1}))))
    assert p.returncode == 1 and "exclude each other" in p.stdout + p.stderr


def test_bcrypt_costs_others_nothing(warp):
    """Guesses at a slow hash; who wants something else waits for a turn of it, not for the hash."""
    slow = BCRYPT.replace("$04$", "$09$")
    w = warp(conf({"path_prefix": "/guarded", "basic_auth": {"ann": slow}, "respond": {"status": 200}}, {"respond": {"status": 200}},
        server={"worker_threads": 1}))
    with w.client() as c:
        one = took(lambda: c.ask("/guarded", basic("ann", "x"), timeout=10 * TIMEOUT))[0]
        guess = threading.Thread(target=lambda: [w.ask("/guarded", basic("ann", "wrong%d" % i), timeout=10 * TIMEOUT) for i in range(3)])
        guess.start()
        waits = []
        while guess.is_alive():
            waits.append(took(c.ask)[0])
        guess.join()
    waits.sort()
    assert len(waits) > 5 and waits[len(waits) // 2] < one / 4, "a hash takes %.0f ms, others wait %.0f ms" % (1e3 * one, 1e3 * waits[len(waits) // 2])


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_root_reads_no_file_for_others(guarded, tmp_path):
    """A link by another user, in a directory of that user, does not lead root to a file of root's."""
    d = tmp_path / "theirs"
    d.mkdir()
    os.chmod(tmp_path, 0o755)
    os.chown(d, 65534, 65534)
    (tmp_path / "roots").write_text("root:%s\n" % SHA1)
    users = str(d / "users")
    put(users, "ann:%s\n" % SHA1)
    os.chown(users, 65534, 65534)
    w = guarded("", dict(GUARDED, basic_auth_file=users))
    assert w.ok("ann")
    os.unlink(users)
    os.symlink(str(tmp_path / "roots"), users)
    os.chown(users, 65534, 65534, follow_symlinks=False)
    w.wait_stderr("another user can change this path")
    assert w.ok("ann") and not w.ok("root")
