"""Processes in the configuration, as `warp -t` judges and shows them; `-- CMD` on the command line."""
import os
import re

import pytest

A = '[processes.a]\ncommand = "/bin/sleep 1"\n'                     # a process that is right
SPLIT = '[processes.a]\ncommand = %s\n'
U = '[upstreams.web]\n%s[upstreams.web.process]\ncommand = "/bin/sleep 1"\n'
CHOSEN, PORT, SOCKET = U % "", U % 'host = "127.0.0.1"\nport = 3000\n', U % 'socket = "/run/web.sock"\n'
HEALTH = '[upstreams.web.health]\npath = "/"\n'


def place_of(text, part):
    """line:column of part in text, from 1."""
    before = text[:text.index(part)]
    return "%d:%d" % (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def said(p, level):
    """The complaints of one level, without those that every root and every lone upstream gets."""
    return [line for line in p.stderr.splitlines() if re.search(r": %s: " % level, line)
            and "workers run as root" not in line and "no route uses" not in line]


# reason: text
GOOD = {
    "one": A,
    "Fujin's form": '[processes]\na = { command = "/bin/true" }\nb = { command = "/bin/true", replicas = 2 }\n',
    "a command of its own and arguments": '[processes.a]\ncommand = "/bin/sleep"\nargs = ["1"]\n',
    "no arguments": '[processes.a]\ncommand = "/bin/true"\nargs = []\n',
    "every kind of env": A + 'env = { A = "x", B = 5, C = true, D = 1.5, _E9 = "" }\n',
    "dotted env": A + 'env.A = "x"\nenv.B = "y"\n',
    "dir": A + 'dir = "/"\n',
    "user and group": A + 'user = "root"\ngroup = "root"\n',
    "replicas": A + "replicas = 256\n",
    "depends_on": A + '[processes.b]\ncommand = "/bin/true"\ndepends_on = ["a"]\n',
    "depends_on an upstream": CHOSEN + A + 'depends_on = ["web"]\n',
    "depends_on nothing": A + "depends_on = []\n",
    "restart": A + 'restart = "always"\n',
    "restart on_failure": A + 'restart = "on_failure"\n',
    "restart never": A + 'restart = "never"\n',
    "backoff": A + "backoff_secs = 0.001\nbackoff_max_secs = 86400\n",
    "backoff above the preset maximum": A + "backoff_secs = 100\n",
    "stop_signal": A + 'stop_signal = "SIGINT"\n',
    "stop_signal as a number": A + "stop_signal = 2\n",
    "stop_timeout_secs": A + "stop_timeout_secs = 0.5\n",
    "ready listen": PORT + 'ready = "listen"\n',
    "ready health": PORT + 'ready = "health"\n' + HEALTH,
    "ready exec": PORT + 'ready = "exec"\n',
    "ready_timeout_secs": PORT + "ready_timeout_secs = 1\n",
    "log prefix": A + 'log = "prefix"\n',
    "log syslog": A + 'log = "syslog"\n',
    "log null": A + 'log = "null"\n',
    "log file": A + 'log = "logs/a.log"\n',
    "log file whose name is near a word": A + 'log = "./sysloq"\n',
    "limits": A + "limits = { nofile = 1, as_bytes = 1, core = 0 }\n",
    "limits as a section": A + "[processes.a.limits]\nnofile = 65536\n",
    "oneshot": A + "oneshot = true\n",
    "oneshot, tried once": A + 'oneshot = true\nrestart = "never"\n',
    "start_on boot": A + 'start_on = "boot"\n',
    "start_on request": PORT + 'start_on = "request"\nidle_stop_secs = 60\n',
    "idle_stop_secs off": A + "idle_stop_secs = 0\n",
    "{index} without an upstream": SPLIT % '"/bin/sleep {index}"' + "replicas = 2\n",
    "other braces": SPLIT % '"/bin/sleep {other} {}"',
    "an upstream and a process of one name": '[upstreams.a]\nhost = "127.0.0.1"\nport = 1\n' + A,
    "a name with a dot": A + '[processes."a.1"]\ncommand = "/bin/true"\n',
}


@pytest.mark.parametrize("reason", GOOD)
def test_good(check, reason):
    p = check(GOOD[reason])
    assert p.returncode == 0, p.stderr
    assert not said(p, "error") and not said(p, "warning"), p.stderr
    assert "\nprocess " in p.stdout


# reason: text, the part that the place points at, the message
BAD = {
    "no command": ("[processes.a]\nreplicas = 1\n", "a]", "processes.a: command is missing"),
    "no command of an upstream's": ("[upstreams.web]\nprocess.replicas = 1\n", "process.", "upstreams.web.process: command is missing"),
    "an empty command": (SPLIT % '""', '""', "processes.a.command: names no program"),
    "a command of blanks": (SPLIT % '"  "', '"  "', "processes.a.command: names no program"),
    "an empty program": (SPLIT % "\"'' x\"", "\"''", "processes.a.command: names no program"),
    "an open quote": (SPLIT % '"echo \'a"', '"echo', "processes.a.command: the ' at character 6 of it is never closed"),
    "an open double quote": (SPLIT % "'a \"b'", "'a", 'processes.a.command: the " at character 3 of it is never closed'),
    "a last backslash": (SPLIT % "'a \\'", "'a", "processes.a.command: the \\ at character 3 of it has nothing behind it"),
    "a command that is a list": (SPLIT % '["a"]', '["a"]', "processes.a.command: expected a text, got a list"),
    "args that are a text": (A + 'args = "x"\n', '"x"', "processes.a.args: expected a list of texts, got the text \"x\""),
    "a NUL in args": (A + 'args = ["a\\u0000b"]\n', '"a\\u', "processes.a.args: a text cannot hold a NUL here"),
    "env that is a list": (A + 'env = ["A=1"]\n', "[\"A", "processes.a.env: expected a table of NAME = value, got a list"),
    "env: a list": (A + "env = { B = [1] }\n", "[1]", "processes.a.env: B: expected a text, a number, true or false, got a list"),
    "env: deeper": (A + "env.B.C = 1\n", None, "processes.a.env: B: expected a text, a number, true or false, got a table"),
    "env: a date": (A + "env = { B = 1979-05-27 }\n", "1979", "processes.a.env: B: expected a text, a number, true or false"),
    "env: a name": (A + 'env = { "A-B" = "x" }\n', '"x"', "processes.a.env: 'A-B' is no name of a variable"),
    "env: a digit first": (A + 'env = { 1A = "x" }\n', '"x"', "processes.a.env: '1A' is no name of a variable"),
    "env: from nowhere": (A + 'env = { B = "env:WARP_HAS_NO_SUCH" }\n', '"env:', "processes.a.env: the environment has no WARP_HAS_NO_SUCH"),
    "env: no such file": (A + 'env = { B = "file:/nonexistent" }\n', '"file:', "processes.a.env: cannot read /nonexistent: No such file"),
    "an empty envfile": (A + 'envfile = ""\n', '""', "processes.a.envfile: must not be empty"),
    "an empty user": (A + 'user = ""\n', '""', "processes.a.user: must not be empty"),
    "an empty group": (A + 'group = ""\n', '""', "processes.a.group: must not be empty"),
    "no replicas": (A + "replicas = 0\n", "0\n", "processes.a.replicas: expected a number from 1 to 256, got 0"),
    "many replicas": (A + "replicas = 257\n", "257", "processes.a.replicas: expected a number from 1 to 256, got 257"),
    "many replicas together": (A + 'replicas = 200\n[processes.b]\ncommand = "/bin/true"\nreplicas = 100\n', "a]",
        "300 processes with their replicas, at most 256 fit"),
    "depends_on nobody": (A + 'depends_on = ["database"]\n', '["database"]', "processes.a.depends_on: there is no process 'database'\n"),
    "depends_on, misspelt": (A + '[processes.web]\ncommand = "/bin/true"\n[processes.b]\ncommand = "/bin/true"\ndepends_on = ["wbe"]\n',
        '["wbe"]', "processes.b.depends_on: there is no process 'wbe', did you mean 'web'?"),
    "depends_on a plain upstream": ('[upstreams.u]\nsocket = "/u"\n' + A + 'depends_on = ["u"]\n', '["u"]',
        "processes.a.depends_on: upstream u has no process"),
    "depends_on itself": (A + 'depends_on = ["a"]\n', '["a"]', "processes.a.depends_on: a cycle: a -> a\n"),
    "a cycle": (A + 'depends_on = ["b"]\n[processes.b]\ncommand = "/bin/true"\ndepends_on = ["a"]\n', '["b"]',
        "processes.a.depends_on: a cycle: a -> b -> a\n"),
    "a cycle through an upstream": (A + 'depends_on = ["web"]\n' + CHOSEN + 'depends_on = ["a"]\n', '["web"]',
        "processes.a.depends_on: a cycle: a -> web -> a\n"),
    "depends_on what starts by request": (PORT + 'start_on = "request"\n' + A + 'depends_on = ["web"]\n', '["web"]',
        "processes.a.depends_on: web is started by a request, so this one would wait for one"),
    "restart": (A + 'restart = "allways"\n', '"allways"',
        'processes.a.restart: expected one of always on_failure never, got the text "allways", did you mean \'always\'?'),
    "restart as a switch": (A + "restart = true\n", "true", "processes.a.restart: expected one of always on_failure never, got true"),
    "backoff_secs": (A + "backoff_secs = 0\n", "0\n", "processes.a.backoff_secs: expected a number of seconds from 0.001 to 86400, got 0"),
    "backoff_max_secs": (A + "backoff_secs = 5\nbackoff_max_secs = 2.5\n", "2.5", "processes.a.backoff_max_secs: 2.5 is less than backoff_secs, which is 5"),
    "stop_signal": (A + 'stop_signal = "TREM"\n', '"TREM"',
        "processes.a.stop_signal: expected a signal such as TERM, INT, QUIT, HUP or USR1, or a number from 1 to "),
    "stop_signal, misspelt": (A + 'stop_signal = "SIGTREM"\n', '"SIGTREM"', "did you mean 'TERM'?"),
    "stop_signal 0": (A + "stop_signal = 0\n", "0\n", "processes.a.stop_signal: expected a signal such as"),
    "stop_signal beyond": (A + "stop_signal = 1000\n", "1000", "processes.a.stop_signal: expected a signal such as"),
    "stop_signal as a list": (A + "stop_signal = []\n", "[]", "processes.a.stop_signal: expected a signal such as"),
    "stop_timeout_secs": (A + "stop_timeout_secs = -1\n", "-1", "processes.a.stop_timeout_secs: expected a number of seconds"),
    "ready": (PORT + 'ready = "port"\n', '"port"', "upstreams.web.process.ready: expected one of listen health exec"),
    "ready health without checks": (PORT + 'ready = "health"\n', '"health"', 'upstreams.web.process.ready: "health" needs [upstreams.web.health]'),
    "ready_timeout_secs": (PORT + 'ready_timeout_secs = "1m"\n', '"1m"', "upstreams.web.process.ready_timeout_secs: expected a number of seconds"),
    "an empty log": (A + 'log = ""\n', '""', "processes.a.log: expected prefix, syslog, null or a file"),
    "log, misspelt": (A + 'log = "prefx"\n', '"prefx"',
        "processes.a.log: expected prefix, syslog, null or a file (./prefx for one of that name), got \"prefx\", did you mean 'prefix'?"),
    "log by another key's word": (A + 'log = "stderr"\n', '"stderr"', "processes.a.log: expected prefix, syslog, null or a file"),
    "limits": (A + "limits = 5\n", "5\n", "processes.a.limits: expected a table, got 5"),
    "limits: unknown": (A + "limits = { nofiles = 5 }\n", "nofiles", "unknown key 'nofiles' in processes.a.limits, did you mean 'nofile'?"),
    "limits: none at all": (A + "limits = { nofile = 0 }\n", "0 }", "processes.a.limits.nofile: expected a number of at least 1, got 0"),
    "oneshot": (A + "oneshot = 1\n", "1\n", "processes.a.oneshot: expected true or false, got 1"),
    "oneshot, for ever": (A + 'oneshot = true\nrestart = "always"\n', '"always"',
        'processes.a.restart: oneshot is run to success once: expected "on_failure" or "never"'),
    "oneshot, often": (A + "oneshot = true\nreplicas = 2\n", "2\n", "processes.a.replicas: oneshot and 2 replicas exclude each other"),
    "oneshot, by request": (A + 'oneshot = true\nstart_on = "request"\n', '"request"',
        'processes.a.start_on: oneshot and start_on = "request" exclude each other'),
    "oneshot of an upstream": (PORT + "oneshot = true\n", "true", "upstreams.web.process.oneshot: what serves an upstream goes on running"),
    "start_on": (PORT + 'start_on = "never"\n', '"never"', "upstreams.web.process.start_on: expected one of boot request"),
    "start_on request without an upstream": (A + 'start_on = "request"\n', '"request"', "processes.a.start_on: no request can start it: it serves no upstream"),
    "idle_stop_secs": (PORT + "idle_stop_secs = 5\n", "5\n", 'upstreams.web.process.idle_stop_secs: needs start_on = "request"'),
    "subscribe_to": (A + 'subscribe_to = ["x"]\n', '["x"]', "processes.a.subscribe_to: x: expected IP:PORT:KEY"),
    "an unknown key": (A + 'comand = "x"\n', "comand", "unknown key 'comand' in processes.a, did you mean 'command'?"),
    "an unknown key of an upstream's": (PORT + "replica = 2\n", "replica ", "unknown key 'replica' in upstreams.web.process, did you mean 'replicas'?"),
    "no table": ('[processes]\na = "x"\n', "a =", "processes.a: expected a table, got the text \"x\""),
    "no table of an upstream's": ('[upstreams.web]\nprocess = "x"\n', '"x"', "upstreams.web.process: expected a table, got the text \"x\""),
    "a list": ('[[processes]]\ncommand = "x"\n', "processes", "expected [processes.NAME], got a list"),
    "a number": ("processes = 1\n", "processes", "expected a section [processes.NAME]"),
    "a name with a blank": ('[processes."a b"]\ncommand = "/bin/true"\n', '"a b"', "a name cannot be empty or hold blanks, quotes or slashes"),
    "a long name": ("[processes.%s]\ncommand = '/bin/true'\n" % ("a" * 57), "aaa", "a name has at most 56 bytes"),
    "one name twice": (CHOSEN + '[processes.web]\ncommand = "/bin/true"\n', "web]\ncommand = \"/bin/true\"",
        "processes.web: the process of upstream web has that name"),
    "the name of a replica": (A + 'replicas = 2\n[processes."a.1"]\ncommand = "/bin/true"\n', '"a.1"', "processes.a.1: a replica of a has that name"),
    "replicas of a url": (U % 'url = "http://127.0.0.1:1"\n' + "replicas = 2\n", "2\n",
        "upstreams.web.process.replicas: 2 replicas cannot share one url; give host and port (and it is port + 0 to 1), "
        "a socket with {index} in it, or no address: warp chooses"),
    "replicas of a socket": (SOCKET + "replicas = 2\n", "2\n",
        "upstreams.web.process.replicas: 2 replicas cannot share one socket; put {index} into its name, or give no address: warp chooses"),
    "replicas beyond the last port": (PORT.replace("3000", "65535") + "replicas = 2\n", "port", "upstreams.web: 2 replicas from port 65535 on: the last port is 65535"),
    "replicas and other instances": (U % 'instances = [{ socket = "/a" }, { socket = "/b" }]\n' + "replicas = 3\n", "3\n",
        "upstreams.web.process.replicas: 3 replicas and 2 instances: say as many instances as replicas, or no instances at all"),
    "{port} without an upstream": (SPLIT % '"/bin/echo {port}"', '"/bin', "processes.a.command: {port}: it serves no upstream, so there is no address"),
    "{socket} without an upstream": (A + 'args = ["{socket}"]\n', '["{socket}"]', "processes.a.args: {socket}: it serves no upstream"),
    "{port} of a socket": (SOCKET + 'env = { P = "{port}" }\n', "{ P", "upstreams.web.process.env: {port}: its instance is the unix socket unix:/run/web.sock, {socket} is its path"),
    "{socket} of a port": (PORT + 'args = ["{socket}"]\n', '["{socket}"]', "upstreams.web.process.args: {socket}: its instance is 127.0.0.1:3000, {port} is its port"),
    "both chosen": (CHOSEN + 'args = ["{socket}", "{port}"]\n', '["{socket}', "upstreams.web.process.args: {port}: with {socket} warp chooses a unix socket, which has no port"),
    "{socket} of several": (U % 'instances = [{ socket = "/a" }, { socket = "/b" }]\n' + 'args = ["{socket}"]\n', '["{socket}"]',
        "upstreams.web.process.args: {socket}: its upstream has 2 instances; write out which one is meant"),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad(check, reason):
    """exit 1, one error, at its place, with these words."""
    text, part, message = BAD[reason]
    p = check(text)
    assert p.returncode == 1, "%s: %s" % (reason, p.stdout + p.stderr)
    errors = said(p, "error")
    assert len(errors) == 1, errors
    assert message in errors[0] + "\n"
    if part:
        assert errors[0].startswith("warp.toml:%s: error: " % place_of(text, part)), errors[0]


# reason: text, the part that the place points at, the message
WARNINGS = {
    "no such program in PATH": (SPLIT % '"warp-no-such-program x"', '"warp', "processes.a.command: this host has no program warp-no-such-program"),
    "no such program": (SPLIT % '"/nonexistent/x"', '"/non', "processes.a.command: this host has no program /nonexistent/x"),
    "no such program in dir": (SPLIT % '"./sleep 1"' + 'dir = "/usr"\n', '"./', "processes.a.command: this host has no program ./sleep in /usr"),
    "a directory is no program": (SPLIT % '"/usr"', '"/usr"', "processes.a.command: this host has no program /usr"),
    "a file that cannot be run": (SPLIT % '"/etc/passwd"', '"/etc', "processes.a.command: this host has no program /etc/passwd"),
    "no such program in its own PATH": (SPLIT % '"sleep 1"' + 'env.PATH = "/nonexistent"\n', '"sleep', "processes.a.command: this host has no program sleep"),
    "no such user": (A + 'user = "warp-no-such-user"\n', '"warp', "processes.a.user: this host has no user warp-no-such-user"),
    "no such group": (A + 'group = "warp-no-such-group"\n', '"warp', "processes.a.group: this host has no group warp-no-such-group"),
    "no such dir": (A + 'dir = "/nonexistent"\n', '"/non', "processes.a.dir: this host has no directory /nonexistent"),
    "a file as dir": (A + 'dir = "/etc/passwd"\n', '"/etc', "processes.a.dir: this host has no directory /etc/passwd"),
    "no such envfile": (A + 'envfile = "/nonexistent"\n', '"/non', "processes.a.envfile: cannot read /nonexistent: No such file or directory"),
    "meant for a shell": (SPLIT % '"/bin/echo a | cat"', '"/bin', "processes.a.command: no shell is run, so '|' is passed on as it stands; "
        'command = "sh" with args = ["-c", ...] runs one'),
    "a variable": (SPLIT % '"/bin/echo $PORT"', '"/bin', "processes.a.command: no shell is run, so '$PORT' is passed on as it stands"),
}


@pytest.mark.parametrize("reason", WARNINGS)
def test_warnings(check, reason):
    """What this host lacks is no error: exit 0."""
    text, part, message = WARNINGS[reason]
    p = check(text)
    assert p.returncode == 0, p.stderr
    warnings = said(p, "warning")
    assert len(warnings) == 1 and message in warnings[0], warnings
    assert warnings[0].startswith("warp.toml:%s: warning: " % place_of(text, part)), warnings[0]


def test_program_in_dir(check, tmp_path):
    """A command with a slash is looked for from dir, one without in PATH; a relative PATH from dir too."""
    bin = tmp_path / "app" / "bin"
    bin.mkdir(parents=True)
    (bin / "serve").write_text("#!/bin/sh\n")
    os.chmod(bin / "serve", 0o755)
    for text in ('command = "bin/serve"\ndir = "app"\n', 'command = "app/bin/serve"\n',
                 'command = "serve"\nenv.PATH = "%s:/bin"\n' % bin, 'command = "serve"\nenv.PATH = "/bin:bin"\ndir = "app"\n'):
        p = check("[processes.a]\n" + text)
        assert p.returncode == 0 and not said(p, "warning"), p.stderr
    assert said(check('[processes.a]\ncommand = "bin/serve"\n'), "warning")


def test_envfile(check, tmp_path):
    """Read as a hint already by -t: a bad line is told with its number."""
    text = A + 'envfile = ".env.prod"\n'
    (tmp_path / ".env.prod").write_text('# comment\nexport A="b c"\nC=d\n')
    assert not said(check(text), "warning")
    (tmp_path / ".env.prod").write_text("A=1\n\nwhat is this\n")
    p = check(text)
    assert p.returncode == 0
    assert "processes.a.envfile: %s/.env.prod:3: expected NAME=value" % tmp_path in said(p, "warning")[0]


def test_secrets_in_env(check, tmp_path):
    (tmp_path / "key").write_text("s3cret\n")
    p = check(A + 'env = { A = "env:MY_KEY", B = "file:key" }\n', env={"MY_KEY": "other"})
    assert p.returncode == 0, p.stderr
    assert "s3cret" not in p.stdout + p.stderr and "other" not in p.stdout + p.stderr


SHOWN = """[server]
listen = ["127.0.0.1:18080"]
[upstreams.web]
socket = "run/web.{index}.sock"
[upstreams.web.process]
command = "/bin/sleep {socket} 'a b'"
replicas = 2
depends_on = ["db", "migrate"]
[upstreams.api.process]
command = "/bin/sleep"
args = ["1"]
start_on = "request"
idle_stop_secs = 2.5
[upstreams.ws]
process.command = "/bin/sleep --socket={socket}"
[processes]
db = { command = "/bin/sleep 1", restart = "on_failure" }
migrate = { command = "/bin/true", oneshot = true, depends_on = ["db"] }
[[routes]]
path_prefix = "/api"
upstream = "api"
[[routes]]
path_prefix = "/ws"
upstream = "ws"
[[routes]]
upstream = "web"
"""


def test_shown(check, tmp_path):
    """In start order, with what each serves."""
    p = check(SHOWN)
    assert p.returncode == 0 and not said(p, "warning"), p.stderr
    at = p.stdout.index("process ")
    assert p.stdout[at:p.stdout.index("memory:")].splitlines() == [
        "process db (line 17): 1 replica, restart on_failure, ready exec; /bin/sleep 1",
        "process migrate (line 18): 1 replica, restart on_failure, ready exec, oneshot, after db; /bin/true",
        "process web (line 5): 2 replicas, restart always, ready listen, after db, migrate; /bin/sleep {socket} 'a b'",
        "    web.0 serves unix:%s/run/web.0.sock" % tmp_path,
        "    web.1 serves unix:%s/run/web.1.sock" % tmp_path,
        "process api (line 9): 1 replica, restart always, ready listen, start on request, stop after 2.5 s idle; /bin/sleep 1",
        "    api serves a port that warp chooses",
        "process ws (line 15): 1 replica, restart always, ready listen; /bin/sleep --socket={socket}",
        "    ws serves a unix socket that warp chooses",
    ]


# Texts of the seeds, as they stand there.
SEEDS = {
    "Fujin": ("""[processes]
# WSGI server for regular HTTP
web = { command = ".venv/bin/gunicorn myapp.wsgi:application --bind unix:/run/myapp/gunicorn.sock" }

# ASGI server for WebSockets
asgi = { command = ".venv/bin/daphne -b 127.0.0.1 -p 8001 myapp.asgi:application" }

# Background workers
worker = { command = ".venv/bin/myapp worker", replicas = 2 }
""", ["web", "asgi", "worker"]),
    "WarpDrive: supervise multiple upstream processes": ("""[upstreams.rails]
socket = "/tmp/puma.sock"
process.command = "bundle"
process.args = ["exec", "puma", "-b", "unix:///tmp/puma.sock"]
process.env = { RAILS_ENV = "production" }

[upstreams.cable]
socket = "/tmp/anycable.sock"
process.command = "anycable-go"
process.args = ["--port", "3001"]

[upstreams.sidekiq_web]
host = "127.0.0.1"
port = 7080
process.command = "bundle"
process.args = ["exec", "sidekiq-web", "-p", "7080"]
""", ["rails", "cable", "sidekiq_web"]),
    "WarpDrive: the real-world example's upstreams": ("""[upstreams.rails]
strategy = "round_robin"
process.command = "bundle"
process.args = ["exec", "puma", "-w", "3", "-b", "unix:///tmp/puma.sock"]
process.env = { RAILS_ENV = "production", PORT = "3000" }

[[upstreams.rails.instances]]
socket = "/tmp/puma.0.sock"

[[upstreams.rails.instances]]
socket = "/tmp/puma.1.sock"

[[upstreams.rails.instances]]
socket = "/tmp/puma.2.sock"

# ActionCable server (separate process for WebSocket connections)
[upstreams.cable]
host = "127.0.0.1"
port = 3001
process.command = "bundle"
process.args = ["exec", "puma", "-p", "3001", "cable/config.ru"]
process.env = { RAILS_ENV = "production" }

[upstreams.cable.health]
path = "/health"
interval_secs = 5

[[routes]]
host = "example.com"
path_prefix = "/cable"
upstream = "cable"

[[routes]]
upstream = "rails"
""", ["rails", "cable"]),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.promise("S2-77")
def test_seeds(check, seed):
    text, names = SEEDS[seed]
    p = check(text)
    assert p.returncode == 0 and not said(p, "error"), p.stderr
    assert re.findall(r"^process (\S+)", p.stdout, re.M) == names


# ---- -- CMD ---------------------------------------------------------------------

def test_wrap_shown(run):
    p = run("-t", "-l", "127.0.0.1:18080", "--", "/bin/sleep", "-t", "--", "a b")
    assert p.returncode == 0, p.stderr
    assert "listen 127.0.0.1:18080\n" in p.stdout
    assert "process app: 1 replica, restart always, ready listen; /bin/sleep -t -- 'a b'\n" in p.stdout
    assert "    app serves a port that warp chooses\n" in p.stdout


def test_wrap_defaults(run):
    p = run("-t", "--", "/bin/sleep")
    assert p.returncode == 0 and "listen :8080\n" in p.stdout, p.stdout + p.stderr


def test_wrap_target(run):
    p = run("-t", "-u", ":3000", "--", "/bin/sleep", "{port}")
    assert p.returncode == 0 and "    app serves 127.0.0.1:3000\n" in p.stdout, p.stderr
    p = run("-t", "-u", "/tmp/a.sock", "--", "/bin/sleep", "{socket}")
    assert p.returncode == 0 and "    app serves unix:/tmp/a.sock\n" in p.stdout, p.stderr
    p = run("-t", "--", "/bin/sleep", "{socket}")
    assert p.returncode == 0 and "    app serves a unix socket that warp chooses\n" in p.stdout, p.stderr


def test_wrap_environment(run):
    """The command wins over WARPDRIVE_CONFIG; WARPDRIVE_TARGET_* is as good as -u."""
    p = run("-t", "--", "/bin/sleep", env={"WARPDRIVE_CONFIG": "/nonexistent.toml"})
    assert p.returncode == 0, p.stderr
    p = run("-t", "--", "/bin/sleep", env={"WARPDRIVE_TARGET_PORT": "3001"})
    assert "    app serves 127.0.0.1:3001\n" in p.stdout, p.stderr


def test_wrap_explained(run):
    p = run("-e", "GET http://a.example/x", "--", "/bin/sleep")
    assert p.returncode == 0 and "upstream app" in p.stdout, p.stdout + p.stderr


@pytest.mark.parametrize("args, status, message", [
    (["--"], 2, "-- needs the command to run behind it"),
    (["-l", ":80", "--"], 2, "-- needs the command to run behind it"),
    (["-c", "x.toml", "--", "/bin/true"], 2, "-c and --: a configuration says itself what to run"),
    (["-t", "-u", "/tmp/a.sock", "--", "/bin/sleep", "{port}"], 1, "{port}: its instance is the unix socket unix:/tmp/a.sock"),
    (["-t", "--", "/bin/sleep", "{port}", "{socket}"], 1, "{port}: with {socket} warp chooses a unix socket"),
    (["-t", "-u", "nonsense", "--", "/bin/sleep"], 1, "nonsense"),
    (["-t", "-l", "nonsense", "--", "/bin/sleep"], 1, "nonsense"),
    (["-t", "--", ""], 2, "-- needs the command to run behind it"),
])
def test_wrap_bad(run, args, status, message):
    p = run(*args)
    assert p.returncode == status and message in p.stderr, p.stderr


def test_wrap_in_help(run):
    assert re.search(r"-- CMD ARG", run("-h").stdout)
