"""Notifications from a real PostgreSQL: every way of logging in, TLS, and a server that is absent, killed, silent or
somebody else."""
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

import lib

BIN = max(glob.glob("/usr/lib/postgresql/*/bin"), default="", key=lambda d: int(d.split("/")[-2]))
ROOT = os.geteuid() == 0

pytestmark = pytest.mark.skipif(not BIN or not shutil.which("psql"), reason="no PostgreSQL")

HBA = """
local   all all trust
hostssl all tls_only 127.0.0.1/32 scram-sha-256
host    all trusty   127.0.0.1/32 trust
host    all clear    127.0.0.1/32 password
host    all md       127.0.0.1/32 md5
host    all scram    127.0.0.1/32 scram-sha-256
"""
PASSWORD = "p@ss:w/ö 'd%"
CODED = "p%40ss%3Aw%2F%C3%B6%20'd%25"


class Postgres:
    """A server of its own, in /tmp, as the user postgres."""

    def __init__(self, pki):
        self.dir = tempfile.mkdtemp(prefix="warp-pg-", dir="/tmp")
        self.data, self.port, self.proc = os.path.join(self.dir, "data"), lib.free_port(), None
        self.who = {"user": "postgres", "group": "postgres", "extra_groups": []} if ROOT else {}
        if ROOT:
            shutil.chown(self.dir, "postgres", "postgres")
        self.run(os.path.join(BIN, "initdb"), "-A", "trust", "--no-sync", "-U", "postgres", "-D", self.data, "-E", "UTF8",
                 "--locale=C")
        self.write("pg_hba.conf", HBA)
        self.write("postgresql.conf", lib.read(os.path.join(self.data, "postgresql.conf")) +
                   "listen_addresses = '127.0.0.1'\nfsync = off\nssl = on\n")
        cert = pki.cert("localhost")
        self.write("server.crt", lib.read(cert.cert))
        self.write("server.key", lib.read(cert.key))
        self.start()
        self.sql("CREATE ROLE trusty LOGIN; CREATE ROLE nobody LOGIN;"
                 "SET password_encryption = 'md5'; CREATE ROLE md LOGIN PASSWORD %s;"
                 "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD %s;"
                 "CREATE ROLE clear LOGIN PASSWORD %s; CREATE ROLE tls_only LOGIN PASSWORD %s;"
                 % ((self.quoted(PASSWORD),) * 4))

    @staticmethod
    def quoted(s):
        return "'%s'" % s.replace("'", "''")

    def write(self, name, content):
        path = os.path.join(self.data, name)
        with open(path, "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        os.chmod(path, 0o600)
        if ROOT:
            shutil.chown(path, "postgres", "postgres")

    def run(self, *cmd, **kw):
        return subprocess.run(cmd, check=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.dir,
                              **self.who, **kw)

    def start(self):
        def ready():
            if not self.proc or self.proc.poll() is not None: # what a killed one left may still be ending
                self.proc = subprocess.Popen([os.path.join(BIN, "postgres"), "-D", self.data, "-p", str(self.port), "-k",
                                              self.dir], stdout=self.log, stderr=self.log, **self.who)
            return self.sql("SELECT 1", ok=False)
        self.log = open(os.path.join(self.dir, "log"), "ab")
        lib.eventually(ready, "PostgreSQL", timeout=20)

    def stop(self, sig=signal.SIGQUIT):
        if self.proc:
            self.proc.send_signal(sig)
            self.proc.wait(20)
            self.log.close()
        self.proc = None

    def sql(self, text, ok=True):
        p = subprocess.run(["psql", "-X", "-q", "-h", self.dir, "-p", str(self.port), "-U", "postgres", "-At", "-v",
                            "ON_ERROR_STOP=1"], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           timeout=30)
        assert p.returncode == 0 or not ok, p.stderr.decode()
        return p.stdout.decode().strip() if p.returncode == 0 else None

    def bell(self, payload, channel="warp_cache"):
        self.sql("SELECT pg_notify(%s, %s)" % (self.quoted(channel), self.quoted(payload)))

    def url(self, user="trusty", password=None, query="sslmode=disable", database="postgres", host=None):
        return "postgres://%s%s@%s:%d/%s?%s" % (user, ":" + password if password else "", host or "127.0.0.1", self.port,
                                                database, query)

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture(scope="session")
def server(pki):
    pg = Postgres(pki)
    yield pg
    pg.close()


@pytest.fixture
def pg(server):
    """The server, running."""
    if not server.proc or server.proc.poll() is not None:
        server.start()
    return server


def conf(url, more="", top=""):
    return """
%s
[postgres]
url = "%s"
%s
[log]
level = "debug"
[admin]
listen = "unix:@DIR@/admin"
[[routes]]
respond = { status = 200, body = "hello" }
[cache]
size_bytes = 1048576
""" % (top, url, more)


def heard(w, pg, payload="/a/b"):
    pg.bell(payload)
    w.wait_stderr(r"notified: %s$" % re.escape(payload))


LISTENING = r"PostgreSQL at \S+: listening for warp_cache"


@pytest.mark.parametrize("user, query", [
    ("trusty", "sslmode=disable"), ("clear", "sslmode=disable"), ("clear", "sslmode=require"), ("md", "sslmode=disable"),
    ("md", "sslmode=prefer"), ("scram", "sslmode=disable"), ("scram", "sslmode=prefer"), ("scram", "sslmode=require"),
    ("tls_only", ""),
])
def test_roles(warp, pg, user, query):
    w = warp(conf(pg.url(user, CODED, query)))
    said = w.wait_stderr(LISTENING + "(, with TLS)?$")
    assert bool(said[1]) == (query != "sslmode=disable")
    heard(w, pg)
    w.wait_stderr(r"cache: 0 purged by PostgreSQL: /a/b$")
    assert "p%40ss" not in w.stderr and "p@ss" not in w.stderr


@pytest.mark.parametrize("url", ["postgres:///postgres?host=%s&port=%d", "postgres://%s:%d/postgres"])
def test_unix_socket_of_the_process_s_user(warp, pg, url):
    pg.sql("DROP ROLE IF EXISTS \"%s\"; CREATE ROLE \"%s\" LOGIN" % ((pwd.getpwuid(os.geteuid())[0],) * 2))
    w = warp(conf(url % (pg.dir.replace("/", "%2F"), pg.port)))
    w.wait_stderr(r"PostgreSQL at unix:/tmp/\S+: listening for warp_cache$")
    heard(w, pg)


@pytest.mark.skipif(not ROOT, reason="not root")
def test_runs_as_the_workers_user(warp, pg):
    w = warp(conf(pg.url(), top="[server]\nuser = \"nobody\"\n"))
    w.wait_stderr(LISTENING)
    uids = {open("/proc/%d/comm" % c).read(): os.stat("/proc/%d" % c).st_uid for c in w.children()}
    assert set(uids.values()) == {pwd.getpwnam("nobody").pw_uid}


@pytest.mark.parametrize("user, password, database, why", [
    ("scram", "wr0ng", "postgres", r"password authentication failed for user \"scram\" \(28P01\)"),
    ("md", "wr0ng", "postgres", r"password authentication failed for user \"md\" \(28P01\)"),
    ("clear", "wr0ng", "postgres", r"password authentication failed for user \"clear\" \(28P01\)"),
    ("scram", None, "postgres", r"it asks for a password, and postgres.url has none"),
    ("nobody", "x", "postgres", r"no pg_hba.conf entry .*\(28000\)"),
    ("trusty", None, "none", r"database \"none\" does not exist \(3D000\)"),
])
def test_refused(warp, pg, user, password, database, why):
    w = warp(conf(pg.url(user, password, database=database)))
    w.wait_stderr(r"PostgreSQL at 127.0.0.1:%d: %s; trying again$" % (pg.port, why))
    assert w.ask("/").status == 200
    time.sleep(1.5)
    assert w.stderr.count("trying again") == 1 and ":wr0ng" not in w.stderr


@pytest.mark.parametrize("query, why", [
    ("sslmode=verify-full&sslrootcert=%(ca)s", None),
    ("sslmode=verify-ca&sslrootcert=%(ca)s", None),
    ("sslmode=require&sslrootcert=%(other)s", "TLS handshake: its certificate is not trusted"),
    ("sslmode=verify-full&sslrootcert=%(other)s", "TLS handshake: its certificate is not trusted"),
])
def test_tls(warp, pg, pki, query, why):
    files = {"ca": pki.root, "other": pki.ca("other").cert}
    w = warp(conf(pg.url("tls_only", CODED, query % files, host="localhost")))
    w.wait_stderr(why or LISTENING + ", with TLS$")
    if not why:
        heard(w, pg)


def test_tls_checks_the_name(warp, pg, pki):
    w = warp(conf(pg.url("tls_only", CODED, "sslmode=verify-full&sslrootcert=%s" % pki.root)))
    w.wait_stderr("TLS handshake: its certificate is for localhost, not for 127.0.0.1")
    v = warp(conf(pg.url("tls_only", CODED, "sslmode=verify-ca&sslrootcert=%s" % pki.root)))
    v.wait_stderr(LISTENING + ", with TLS$")


def test_without_tls(warp, pg):
    pg.sql("ALTER SYSTEM SET ssl = off; SELECT pg_reload_conf()")
    try:
        lib.eventually(lambda: pg.sql("SHOW ssl") == "off")
        w = warp(conf(pg.url("scram", CODED, "sslmode=prefer")))
        w.wait_stderr(LISTENING + "$")
        v = warp(conf(pg.url("scram", CODED, "sslmode=require")))
        v.wait_stderr("it offers no TLS, which sslmode asks for; trying again")
    finally:
        pg.sql("ALTER SYSTEM RESET ssl; SELECT pg_reload_conf()")


def test_tls_13_only_falls_back(warp, pg):
    pg.sql("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.3'; SELECT pg_reload_conf()")
    try:
        lib.eventually(lambda: pg.sql("SHOW ssl_min_protocol_version") == "TLSv1.3")
        w = warp(conf(pg.url("scram", CODED, "sslmode=prefer")))
        w.wait_stderr("TLS handshake: it does not speak TLS 1.2.*; trying again without TLS")
        w.wait_stderr(LISTENING + "$")
    finally:
        pg.sql("ALTER SYSTEM RESET ssl_min_protocol_version; SELECT pg_reload_conf()")


def test_absent_at_start(warp, pg):
    pg.stop()
    w = warp(conf(pg.url()))
    w.wait_stderr("connecting: Connection refused; trying again")
    assert w.ask("/").status == 200
    pg.start()
    w.wait_stderr(LISTENING, timeout=15)
    heard(w, pg)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT])
def test_restarted(warp, pg, sig):
    w = warp(conf(pg.url()))
    w.wait_stderr(LISTENING)
    pg.stop(sig)
    w.wait_stderr("(listening: |terminating connection).*; trying again")
    pg.start()
    lib.eventually(lambda: len(re.findall(LISTENING, w.stderr)) == 2, timeout=15)
    heard(w, pg)


def test_session_terminated(warp, pg):
    w = warp(conf(pg.url()))
    w.wait_stderr(LISTENING)
    pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'warp'")
    w.wait_stderr(r"PostgreSQL at \S+: terminating connection due to administrator command \(57P01\); trying again")
    lib.eventually(lambda: len(re.findall(LISTENING, w.stderr)) == 2)
    heard(w, pg)


@pytest.mark.limit(40)
def test_twenty_thousand(warp, pg):
    w = warp(conf(pg.url()).replace('"debug"', '"info"'))
    w.wait_stderr(LISTENING)
    pg.sql("SELECT count(pg_notify('warp_cache', '/some/path/' || i)) FROM generate_series(1, 20000) i")
    admin = lambda: subprocess.run([lib.WARP, "-s", "status", "-c", w.file], stdout=subprocess.PIPE).stdout.decode()
    lib.eventually(lambda: re.search(r"listening .* 20000\b", admin()), "20000 notifications in:\n" + admin())


PAYLOADS = ["/it's", "/say \"hi\"", "/ümläut/日本", "*", "/p*", "host.example/x?y=1", "\\x", "/" + "a" * 7990]


def test_payloads(warp, pg):
    w = warp(conf(pg.url("scram", CODED, "sslmode=require")))
    w.wait_stderr(LISTENING)
    for p in PAYLOADS[:-1]:
        heard(w, pg, p)
    pg.bell(PAYLOADS[-1])
    w.wait_stderr("notified: /a{900}")
    pg.sql("SELECT pg_notify('warp_cache', E'/a\\x01b\\nwarp: forged')")
    w.wait_stderr(r"notified: /a\?b\?warp: forged$")
    pg.bell("")
    w.wait_stderr(r"notified: $")


def test_odd_channel(warp, pg):
    w = warp(conf(pg.url(), "channel = 'A \"b\"; é'"))
    w.wait_stderr("listening for A \"b\"; é$")
    pg.bell("/x", "A \"b\"; é")
    w.wait_stderr("notified: /x$")


def test_reload_keeps_the_connection(warp, pg):
    text = conf(pg.url())
    w = warp(text)
    w.wait_stderr(LISTENING)
    before = set(w.children())
    w.write(text.replace("hello", "hallo"))
    w.signal(signal.SIGHUP)
    lib.eventually(lambda: w.ask("/").body == b"hallo")
    lib.eventually(lambda: len(before & set(w.children())) == 1, "only the helper stays")
    assert len(re.findall(LISTENING, w.stderr)) == 1
    heard(w, pg)
    w.write(text.replace("[postgres]", "[postgres]\nchannel = \"other\""))
    w.signal(signal.SIGHUP)
    w.wait_stderr("listening for other$")
    pg.bell("/1", "other")
    w.wait_stderr("notified: /1$")
    w.write(re.sub(r"url = .*", "", text))
    w.signal(signal.SIGHUP)
    lib.eventually(lambda: pg.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warp'") == "0")


def test_helper_dies(warp, pg):
    w = warp(conf(pg.url()))
    w.wait_stderr(LISTENING)
    pid = int(w.wait_stderr(r"postgres\[(\d+)\] info: PostgreSQL")[1])
    os.kill(pid, signal.SIGKILL)
    w.wait_stderr("the helper postgres died; another one follows")
    lib.eventually(lambda: len(re.findall(LISTENING, w.stderr)) == 2)
    heard(w, pg)
    w.signal(signal.SIGUSR1)
    lib.eventually(lambda: len(re.findall(LISTENING, w.stderr)) == 3)
    heard(w, pg, "/c")
    w.stop()
    lib.eventually(lambda: pg.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warp'") == "0")


# ---- servers that are none ----

class Fake:
    """Does with each connection what act(conn, n) says, and closes it unless that says to keep it."""

    def __init__(self, act):
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port, self.conns, self.act = self.sock.getsockname()[1], [], act
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                c = self.sock.accept()[0]
            except OSError:
                return
            self.conns.append(c)
            try:
                if not self.act(c, len(self.conns)):
                    c.close()
            except OSError:
                pass

    def url(self, query="sslmode=disable", who="joe:secret"):
        return "postgres://%s@127.0.0.1:%d/x?%s" % (who, self.port, query)

    def close(self):
        self.sock.close()
        for c in self.conns:
            c.close()


@pytest.fixture
def fake():
    made = []

    def make(act):
        made.append(Fake(act))
        return made[-1]
    yield make
    for f in made:
        f.close()


def msg(type, body):
    return type + (len(body) + 4).to_bytes(4, "big") + body


def auth(code, data=b""):
    return msg(b"R", code.to_bytes(4, "big") + data)


READY = msg(b"S", b"a\0b\0") + msg(b"K", bytes(8)) + msg(b"Z", b"I")
SCRAM = auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")


def says(*pieces):
    def act(c, n):
        for p in pieces:
            c.recv(4096)
            if p is None:
                return
            c.sendall(p)
        c.recv(4096)
    return act


@pytest.mark.parametrize("query, pieces, why", [
    ("", [b"N", b"HTTP/1.1 400 Bad Request\r\n\r\n"], "it does not speak PostgreSQL's protocol"),
    ("", [b"E"], "it does not speak PostgreSQL's protocol"),
    ("", [b"SR\0\0\0\10\0\0\0\0"], "TLS handshake: "),
    ("sslmode=require", [b"N"], "it offers no TLS"),
    ("sslmode=disable", [b"R\xff\xff\xff\xff"], "it does not speak PostgreSQL's protocol"),
    ("sslmode=disable", [b"R\0\0\0\6\0\0"], "it does not speak PostgreSQL's protocol"),
    ("sslmode=disable", [READY], "it does not speak PostgreSQL's protocol"),
    ("sslmode=disable", [None], "logging in: it closed the connection"),
    ("sslmode=disable", [auth(7)], r"a kind of authentication that is not supported \(7\)"),
    ("sslmode=disable", [SCRAM, auth(0) + READY], "it breaks off the proof that it knows the password"),
    ("sslmode=disable", [SCRAM, auth(11, b"r=x,s=YQ==,i=4096")], "its proof: its nonce does not begin with ours"),
    ("sslmode=disable", [auth(12, b"v=x")], "it breaks off the proof"),
    ("sslmode=disable", [auth(10, b"OTHER\0\0")], "it offers no SCRAM-SHA-256"),
    ("sslmode=disable", [auth(10, b"SCRAM-SHA-256")], "it offers no SCRAM-SHA-256"),
    ("sslmode=disable", [auth(3), auth(3)], "it breaks off the proof"),
    ("sslmode=disable", [auth(5, b"ab"), None], "logging in: it closed the connection"),
    ("sslmode=disable", [auth(0) + READY, msg(b"E", b"C55000\0Mcannot execute LISTEN\n during recovery\0\0")],
     r"cannot execute LISTEN\? during recovery \(55000\); trying again"),
])
def test_garbage(warp, fake, query, pieces, why):
    f = fake(says(*pieces))
    w = warp(conf(f.url(query)))
    w.wait_stderr(why)
    assert w.ask("/").status == 200


def impostor(c, n):
    """Knows the protocol, but not the password."""
    c.recv(4096)
    c.sendall(SCRAM)
    nonce = re.search(rb"r=([^,]+)$", c.recv(4096))[1]
    c.sendall(auth(11, b"r=" + nonce + b"more,s=YWJjZA==,i=4096"))
    c.recv(4096)
    c.sendall(auth(12, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") + auth(0) + READY)
    c.recv(4096)


def test_impostor(warp, fake):
    w = warp(conf(fake(impostor).url()))
    w.wait_stderr("it does not know the password itself")
    assert "listening" not in w.stderr


@pytest.mark.limit(60)
def test_silent(warp, fake):
    """Accepts, and says nothing; then is ready, and silent from then on."""
    def act(c, n):
        if n == 1:
            return True
        c.recv(4096)
        c.sendall(auth(0) + READY)
        c.recv(4096)
        c.sendall(msg(b"C", b"LISTEN\0") + msg(b"A", bytes(4) + b"warp_cache\0/early\0") + msg(b"Z", b"I"))
        for b in msg(b"A", bytes(4) + b"warp_cache\0/slow\0") + msg(b"A", bytes(4) + b"other\0/no\0"):
            time.sleep(0.01)
            c.sendall(bytes([b]))
        return True
    f = fake(act)
    w = warp(conf(f.url()))
    w.wait_stderr("logging in: it takes more than 10 s; trying again", timeout=15)
    w.wait_stderr("notified: /early", timeout=15)
    w.wait_stderr("notified: /slow")
    assert "/no" not in w.stderr


def test_a_moved_log(warp, fake):
    """A reload opens it anew, for a helper that goes on as well."""
    f = fake(lambda c, n: c.recv(4096) and (c.sendall(auth(0) + READY), c.recv(4096), c.sendall(msg(b"C", b"LISTEN\0") + READY)))
    w = warp(conf(f.url()).replace("[log]", '[log]\nerror = "@DIR@/log"'))
    lib.eventually(lambda: re.search(LISTENING, lib.read(w.path("log"))), "the log")
    os.rename(w.path("log"), w.path("old"))
    w.signal(signal.SIGHUP)
    lib.eventually(lambda: re.search(LISTENING, lib.read(w.path("log"))), "the new log")


# ---- the configuration ----

@pytest.mark.parametrize("url, why", [
    ("postgres://joe:hush@/x", "a URL names its host"),
    ("joe:hush@db/x", "expected postgres://"),
    ("mysql://joe:hush@db/x", "expected postgres://"),
    ("postgres://joe:hush@db:99999/x", "port"),
    ("postgres://joe:hush@db/x?sslmode=hush", "expected sslmode"),
    ("postgres://joe:1/hush@db", "expected %25, %40"),
    ("postgres://joe:hush@db/x?sslmode=verify-full&sslrootcert=/none", "cannot read /none: No such file"),
])
def test_check(check, url, why):
    p = check(conf(url))
    text = p.stdout + p.stderr if isinstance(p.stdout, str) else (p.stdout + p.stderr).decode()
    assert p.returncode == 1 and re.search(r"warp.toml:4:7: error: postgres.url: .*" + re.escape(why), text), text
    assert "hush" not in text and "url = ***" in text.replace("url =  ***", "url = ***")


def test_config_hides_the_password(warp, fake):
    f = fake(lambda c, n: True)
    w = warp(conf(f.url(who="joe:hush")) + "[upstreams.a]\nurl = \"http://127.0.0.1:1\"\n")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(w.path("admin"))
        s.sendall(b"GET /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    assert "hush" not in text and '"url": { "value": "***"' in text and "http://127.0.0.1:1" in text


def test_secret_from_the_environment(warp, fake):
    f = fake(lambda c, n: c.recv(4096) and c.sendall(auth(7)))
    w = warp(conf("env:DB"), env={"DB": f.url()})
    w.wait_stderr("authentication that is not supported")
