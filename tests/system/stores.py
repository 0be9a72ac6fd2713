"""Real servers beside the cache: redis-server, and postgres run as a user without rights.

    r = Redis(dir, "--requirepass", "pw")     r.url, r.port; r("GET", "k"), r.keys(); r.stop(), r.start(), r.kill(),
                                              r.freeze(), r.go_on(), r.close()
    p = Postgres(dir)                         p.url(user), p.port; p.sql("SELECT 1"), p.notify("warp", "/x"),
                                              p.listeners(); p.stop("immediate"), p.start(), p.close()
"""
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time

import lib
from lib import TIMEOUT, eventually, free_port


class RespError(Exception):
    pass


class Redis:
    program = shutil.which("redis-server")

    def __init__(self, dir, *args, unix=None):
        self.dir, self.args, self.unix, self.port = str(dir), args, unix, free_port()
        self.password = args[args.index("--requirepass") + 1] if "--requirepass" in args else None
        self.proc = self.sock = None
        self.start()

    @property
    def url(self):
        return "redis://%s127.0.0.1:%d" % (":%s@" % self.password if self.password else "", self.port)

    def start(self):
        cmd = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.dir,
               "--databases", "4", *(["--unixsocket", self.unix, "--unixsocketperm", "777"] if self.unix else []), *self.args]
        self.proc = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        eventually(self._ping, "redis answers")

    def _ping(self):
        try:
            return self("PING") == b"PONG"
        except (OSError, EOFError):
            self.sock = None
            return False

    def _connect(self):
        self.sock = lib.Wire(lib.connect(self.port))
        if self.password:
            self("AUTH", self.password)

    def __call__(self, *words):
        """One command on a connection that is kept; the reply, None for nil."""
        if not self.sock:
            self._connect()
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.sock.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self._reply()

    def _reply(self):
        line = self.sock.until(b"\r\n", TIMEOUT)[:-2]
        kind, text = line[:1], line[1:]
        if kind == b"-":
            raise RespError(text.decode())
        if kind == b"$":
            return None if text == b"-1" else self.sock.exactly(int(text) + 2, TIMEOUT)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(int(text))]
        return int(text) if kind == b":" else text

    def keys(self, pattern="warp:*"):
        return sorted(self("KEYS", pattern))

    def _end(self, sig):
        self.proc.send_signal(sig)
        self.proc.wait(TIMEOUT)
        self.sock = None

    def kill(self):
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def freeze(self):
        lib.freeze(self.proc.pid)

    def go_on(self):
        self.proc.send_signal(signal.SIGCONT)

    def close(self):
        if self.proc and self.proc.poll() is None:
            self.go_on()
            self.kill()


def _newest(name):
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/" + name), key=lambda p: int(p.split("/")[4]))
    return found[-1] if found else shutil.which(name)


class Postgres:
    """Roles with the password 'pw': trusty, plain, md5, scram. Database: postgres. TLS off unless cert is given."""
    initdb, server, psql = _newest("initdb"), _newest("postgres"), _newest("psql")
    HBA = ("local all all trust\nhost all trusty 127.0.0.1/32 trust\nhost all plain 127.0.0.1/32 password\n"
           "host all md5 127.0.0.1/32 md5\nhost all scram 127.0.0.1/32 scram-sha-256\n")

    @classmethod
    def there(cls):
        return bool(cls.initdb and cls.server and cls.psql)

    def __init__(self, dir, cert=None, key=None):
        """dir: anybody may enter it (conftest's everybodys_dir). cert, key: files of PEM."""
        self.dir, self.port, self.proc = str(dir), free_port(), None
        self.data, self.tls = os.path.join(self.dir, "data"), []
        self.run([self.initdb, "-A", "trust", "-U", "super", "--no-sync", "-D", self.data, "--encoding=UTF8", "--locale=C"])
        self.put("pg_hba.conf", self.HBA)
        if cert:
            self.put("server.crt", lib.read(cert))
            self.put("server.key", lib.read(key))
            self.tls = ["-c", "ssl=on"]
        self.start()
        for role, kind in (("trusty", "md5"), ("plain", "md5"), ("md5", "md5"), ("scram", "scram-sha-256")):
            self.sql("SET password_encryption = '%s'; CREATE ROLE %s LOGIN PASSWORD 'pw'" % (kind, role))

    @staticmethod
    def _nobody():
        """postgres refuses to be root."""
        if os.geteuid() == 0:
            who = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(who.pw_gid)
            os.setuid(who.pw_uid)

    def put(self, name, text):
        path = os.path.join(self.data, name)
        with open(path, "w") as f:
            f.write(text)
        if os.geteuid() == 0:
            shutil.chown(path, "nobody")
        os.chmod(path, 0o600)

    def run(self, cmd, **kw):
        p = subprocess.run(cmd, preexec_fn=self._nobody, cwd=self.dir, capture_output=True, text=True, timeout=10 * TIMEOUT,
                           stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, **kw)
        assert p.returncode == 0, p.stderr
        return p.stdout

    def start(self, wait=True):
        log = open(os.path.join(self.dir, "log"), "a")
        self.proc = subprocess.Popen(
            [self.server, "-D", self.data, "-k", self.dir, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
             "-c", "shared_buffers=1MB", "-c", "max_connections=20", *self.tls],
            preexec_fn=self._nobody, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)
        log.close()
        if wait:
            def up():
                try:
                    return self.sql("SELECT 1") == "1\n"
                except AssertionError:
                    assert self.proc.poll() is None, lib.read(os.path.join(self.dir, "log"))
                    return False
            eventually(up, "postgres answers", 4 * TIMEOUT)

    def sql(self, text):
        return self.run([self.psql, "-h", self.dir, "-p", str(self.port), "-U", "super", "-d", "postgres", "-AtqX",
                         "-v", "ON_ERROR_STOP=1", "-c", text])

    def notify(self, channel, payload):
        self.sql("SELECT pg_notify('%s', '%s')" % (channel.replace("'", "''"), payload.replace("'", "''")))

    def listeners(self, channel="warp_cache"):
        """Process ids of the sessions whose last query was a LISTEN of that channel or a sign of life after it."""
        return [int(x) for x in self.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'warp' AND state = 'idle' "
                                         "AND (query LIKE 'LISTEN%' OR query LIKE 'SELECT 1%')").split()]

    def url(self, role="trusty", password="pw", host=None, more=""):
        return "postgres://%s:%s@%s/postgres%s" % (role, password, host or "127.0.0.1:%d" % self.port, more)

    SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def stop(self, how="fast"):
        self.proc.send_signal(self.SIGNALS[how])
        self.proc.wait(2 * TIMEOUT)

    def close(self):
        if self.proc and self.proc.poll() is None:
            try:
                self.stop("immediate")
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
