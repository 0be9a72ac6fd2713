"""The helper of a router's mapper, as the master keeps it: one at a time, and none is left."""
import os
import signal

import lib
import uwsgi

CONF = '[fastrouter]\nlisten = "@DIR@/router"\nuse_code_string = "0:%s:get"\n'
MAPPER = "def get(key):\n    return '127.0.0.1:3031'\n"


def mappers(w):
    """pid of the helper: of the python below it."""
    below = {pid: w.children(pid) for pid in w.children()}
    return {pid: more[0] for pid, more in below.items() if more}


def runs(pid):
    try:
        with open("/proc/%d/cmdline" % pid) as f:
            return f.read() != ""  # of a zombie it is empty
    except OSError:
        return False


def one(w, but=()):
    lib.eventually(lambda: len(mappers(w)) == 1 and not set(mappers(w)) & set(but), "one mapper")
    return next(iter(mappers(w).items()))


def test_life(warp, tmp_path):
    (tmp_path / "mapper.py").write_text(MAPPER)
    w = warp(CONF % (tmp_path / "mapper.py"))
    helper, python = one(w)
    os.kill(python, signal.SIGKILL)
    w.wait_stderr("mapper .*mapper.py has ended; another one follows")
    lib.eventually(lambda: mappers(w).get(helper, python) != python, "another python")
    os.kill(helper, signal.SIGKILL)
    w.wait_stderr("the helper mapper died; another one follows")
    helper, _ = one(w, [helper])
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded")
    helper, _ = one(w, [helper])
    w.signal(signal.SIGUSR2)
    w.wait_stderr("ready(?s:.*) ready")
    _, python = one(w, [helper])
    w.stop()
    lib.eventually(lambda: not runs(python), "the end of python")


TALKER = "n = 0\n\n\ndef get(key):\n    global n\n    n += 1\n    print('asked', n, flush=True)\n"


def asked(w, log, n):
    assert uwsgi.refused(uwsgi.talk("%s/router" % w.dir, uwsgi.packet({"HTTP_HOST": "k%d" % n})))
    lib.eventually(lambda: "asked %d" % n in log.read_text(), "its words")


def test_logs_reopened(warp, tmp_path):
    """The same mapper goes on, and its words go to the new file."""
    log = tmp_path / "error.log"
    (tmp_path / "mapper.py").write_text(TALKER)
    w = warp(CONF % (tmp_path / "mapper.py") + '[log]\nerror = "%s"\n' % log)
    before = one(w)
    for n in 1, 2, 3:
        asked(w, log, n)
        log.rename(tmp_path / "old.log")
        w.signal(signal.SIGUSR1)
        lib.eventually(lambda: log.exists() and "logs reopened" in log.read_text(), "a new file")
        assert one(w) == before


def test_a_log_of_its_own_configuration(warp, tmp_path):
    (tmp_path / "mapper.py").write_text(TALKER)
    w = warp(CONF % (tmp_path / "mapper.py") + '[log]\nerror = "%s"\n' % (tmp_path / "a.log"))
    helper, _ = one(w)
    w.write(CONF % (tmp_path / "mapper.py") + '[log]\nerror = "%s"\n' % (tmp_path / "b.log"))
    w.signal(signal.SIGHUP)
    one(w, [helper])
    asked(w, tmp_path / "b.log", 1)


def test_secrets_of_the_environment(warp):
    """A mapper gets none of them, as other programs."""
    w = warp('[server]\nadmin_token = "env:HIDDEN"\n[fastrouter]\nlisten = "@DIR@/router"\n'
             """use_program = ["sh", "-c", "echo $SEEN, ${HIDDEN-nothing} >&2; exec cat"]\n""",
             env={"HIDDEN": "a-secret-of-many-bytes", "SEEN": "seen"})
    assert w.wait_stderr("seen, (.*)").group(1) == "nothing"
