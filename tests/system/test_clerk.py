"""The clerk of a FastRouter: announcements, signatures, caches, figures; and that neither a
reload, an upgrade, its own death nor a flood loses or adds anything."""
import contextlib
import hmac
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import lib

CONF = """
[fastrouter]
listen = "@DIR@/router"
subscription_server = "127.0.0.1:%(sub)d"
stats = "@DIR@/stats"
%(more)s
"""


def packet(pairs, modifier1=224, modifier2=0):
    body = b""
    for name, value in pairs:
        for s in (name, value):
            s = s if isinstance(s, bytes) else str(s).encode()
            body += struct.pack("<H", len(s)) + s
    return struct.pack("<BHB", modifier1, len(body), modifier2) + body


def node(key, address, leaves=False, **more):
    return packet([("key", key), ("address", address)] + list(more.items()), modifier2=int(leaves))


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Router:
    def __init__(self, warp, more="", sub=None, **kw):
        self.sub = sub or free_port()
        self.warp = warp(CONF % {"sub": self.sub, "more": more % {"sub": self.sub}}, **kw)
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.out.connect(("127.0.0.1", self.sub))

    def say(self, *args, **more):
        self.out.send(node(*args, **more))

    def stats(self, name="stats"):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.warp.path(name))
            return json.loads(b"".join(iter(lambda: s.recv(65536), b"")))

    def nodes(self, key):
        """By address."""
        for k in self.stats()["subscriptions"]:
            if k["key"] == key:
                return {n["name"]: n for n in k["nodes"]}
        return {}

    def wait(self, key, addresses, seconds=10):
        lib.eventually(lambda: set(self.nodes(key)) == set(addresses), "%s => %s" % (key, addresses), seconds)

    def clerk(self):
        for pid in self.warp.children():
            with contextlib.suppress(FileNotFoundError):           # it has just ended
                fds = ["/proc/%d/fd/%s" % (pid, fd) for fd in os.listdir("/proc/%d/fd" % pid)]
                if any(os.readlink(fd) == self.inode() for fd in fds if os.path.islink(fd)):
                    return pid
        return None

    def inode(self):
        with open("/proc/net/udp") as f:
            for line in f:
                at = line.split()
                if at[1].endswith(":%04X" % self.sub):
                    return "socket:[%s]" % at[9]


@pytest.fixture
def router(warp):
    return lambda more="", **kw: Router(warp, more, **kw)


def test_announced(router):
    r = router()
    ack = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ack.bind(r.warp.path("ack"))
    ack.settimeout(10)
    r.say("example.com", "127.0.0.1:3031", modifier1=5, modifier2=6, cores=4, load=2, weight=3, notify=r.warp.path("ack"))
    assert ack.recv(1000) == b"[subscription ack] example.com => new node: 127.0.0.1:3031"
    n = r.nodes("example.com")["127.0.0.1:3031"]
    assert (n["modifier1"], n["modifier2"], n["cores"], n["load"], n["weight"], n["death_mark"]) == (5, 6, 4, 2, 3, 0)
    assert abs(n["last_check"] - time.time()) < 5
    r.say("example.com", "127.0.0.1:3031", modifier1=7, notify=r.warp.path("ack"))  # known: no second one
    r.say("example.com", "/tmp/other")
    r.wait("example.com", ["127.0.0.1:3031", "/tmp/other"])
    assert r.nodes("example.com")["127.0.0.1:3031"]["modifier1"] == 7
    r.say("example.com", "/tmp/other", leaves=True)
    r.wait("example.com", ["127.0.0.1:3031"])
    ack.settimeout(0.1)
    with pytest.raises(socket.timeout):
        ack.recv(1000)


def test_figures(router):
    r = router('to = ["127.0.0.1:9"]\nstats_http = true\ncheap = true')
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(r.warp.path("stats"))
    s.send(b"GET / HTTP/1.0\r\n\r\n")
    head, body = b"".join(iter(lambda: s.recv(65536), b"")).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.0 200 OK\r\n") and b"Access-Control-Allow-Origin: *" in head
    assert list(json.loads(body)) == ["version", "pid", "uid", "gid", "cwd", "active_sessions", "fastrouter",
                                      "static_nodes", "subscriptions", "cheap"]
    assert json.loads(body)["pid"] == r.warp.pid and json.loads(body)["cheap"] == 1


def test_silence(router):
    r = router("subscription_tolerance = 1")
    r.say("k", "127.0.0.1:1")
    r.wait("k", ["127.0.0.1:1"])
    for _ in range(5):
        time.sleep(0.5)
        r.say("k", "127.0.0.1:1")
    assert r.nodes("k")
    r.wait("k", [])
    r.warp.wait_stderr(r"k => marking 127.0.0.1:1 as failed \(no announce received in 1 seconds\)")


def test_credentials_by_udp(router):
    r = router('subscriptions_use_credentials = true\nsubscriptions_credentials_check = ["@DIR@/vassals/"]')
    # over UDP nobody is known
    r.say("mine", "/tmp/x")
    r.warp.wait_stderr("mine => /tmp/x: announcement refused")


def test_credentials(warp):
    w = warp('[fastrouter]\nlisten = "@DIR@/router"\nsubscription_server = "@DIR@/sub"\nstats = "@DIR@/stats"\n'
             'subscriptions_use_credentials = true\nsubscriptions_credentials_check = ["@DIR@/vassals/"]\n')
    os.mkdir(w.path("vassals"))
    open(w.path("vassals/mine"), "w").close()
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(w.path("sub"))
    r = Router.__new__(Router)
    r.warp = w
    s.send(node("mine", "/tmp/x"))
    s.send(node("other", "/tmp/x"))
    r.wait("mine", ["/tmp/x"])
    n = r.nodes("mine")["/tmp/x"]
    assert (n["pid"], n["uid"], n["gid"]) == (os.getpid(), os.getuid(), os.getgid())
    w.wait_stderr("other => /tmp/x: announcement refused")
    assert not r.nodes("other")
    if os.getuid() == 0:
        os.chown(w.path("vassals/mine"), 1, 1)
        s.send(node("mine", "/tmp/y"))
        w.wait_stderr("mine => /tmp/y: announcement refused")


class Signer:
    def __init__(self, directory, name, digest="sha256"):
        self.key, self.digest, self.dir = os.path.join(directory, name + ".private"), digest, directory
        subprocess.run(["openssl", "genrsa", "-out", self.key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", self.key, "-pubout", "-out", os.path.join(directory, name + ".pem")],
                       check=True, capture_output=True)

    def __call__(self, key, address, unix, leaves=False, damage=None):
        text = packet([("key", key), ("address", address), ("unix", int(unix))])[4:]
        sign = subprocess.run(["openssl", "dgst", "-" + self.digest, "-sign", self.key], input=text, check=True,
                              capture_output=True).stdout
        if damage is not None:
            sign = sign[:damage] + bytes([sign[damage] ^ 1]) + sign[damage + 1:]
        body = text + struct.pack("<H", 4) + b"sign" + struct.pack("<H", len(sign)) + sign
        return struct.pack("<BHB", 224, len(body), int(leaves)) + body


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512", "md5"])
def test_signed(router, tmp_path, digest):
    sign = Signer(str(tmp_path), "test.it_8000", digest)
    r = router('subscriptions_sign_check = "%s:%s"' % (digest.upper(), tmp_path))
    now = int(time.time())
    send = r.out.send
    refused = lambda address, why: r.warp.wait_stderr("test.it:8000 => %s: announcement refused, its signature: %s" % (address, why))
    r.say("test.it:8000", "/none")
    refused("/none", "it has none")
    send(sign("test.it:8000", "/wrong", now, damage=7))
    refused("/wrong", "it is wrong")
    send(sign("other", "/strange", now))
    r.warp.wait_stderr("other => /strange: announcement refused, its signature: its key is not here")
    send(sign("test.it:8000", "/old", now - 86402))
    refused("/old", "it is not new")
    good = sign("test.it:8000", "/good", now)
    send(good)
    r.wait("test.it:8000", ["/good"])
    send(good)
    refused("/good", "it is not new")
    send(sign("test.it:8000", "/good", now + 1, leaves=True))
    r.wait("test.it:8000", [])
    send(good)  # sniffed: it does not come back
    time.sleep(0.3)
    assert not r.nodes("test.it:8000")
    send(sign("test.it:8000", "/good", now + 2))
    r.wait("test.it:8000", ["/good"])


def test_resubscribed(router):
    up = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    up.bind(("127.0.0.1", 0))
    up.settimeout(10)
    r = router('resubscribe = ["127.0.0.1:%d"]' % up.getsockname()[1])
    r.say("k", "/tmp/x", modifier1=5, weight=9, cores=3)
    got = up.recv(4096)
    assert got[4:].startswith(packet([("key", "k"), ("address", r.warp.path("router")), ("modifier1", 5)])[4:]) and b"via" in got
    r.say("k", "/tmp/x", leaves=True, modifier1=5)
    assert up.recv(4096)[3] == 1


def test_routers_that_pass_on_to_each_other(router):
    """In a ring of three: what has come round is dropped, or they would not stop. A node is known where it said so, and behind it."""
    tap = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tap.bind(("127.0.0.1", 0))
    tap.settimeout(10)
    subs = [free_port() for _ in range(3)]
    ring = [router('resubscribe = ["127.0.0.1:%d", "127.0.0.1:%d"]' % (subs[(i + 1) % 3], tap.getsockname()[1]), sub=subs[i]) for i in range(3)]
    for key in ("a", "b"):
        ring[0].say(key, "/tmp/x")
        for r, where in zip(ring, ("/tmp/x", ring[0].warp.path("router"), ring[1].warp.path("router"))):
            r.wait(key, [where])
    ring[0].say("c", "/tmp/x", leaves=True)
    said = [tap.recv(4096) for _ in range(9)]
    assert sorted(d[d.index(b"key") + 5:][:1] for d in said) == [b"a"] * 3 + [b"b"] * 3 + [b"c"] * 3
    assert all(list(r.nodes(key)) == [where] for key in "ab" for r, where in zip(ring, ("/tmp/x", ring[0].warp.path("router"), ring[1].warp.path("router"))))


# ---- what must not get lost ----

def test_reload_upgrade_and_death(router):
    r = router()
    w = r.warp
    for i in range(30):
        r.say("key%d" % i, "127.0.0.1:%d" % (1000 + i))
    whole = lambda: len(r.stats()["subscriptions"])
    lib.eventually(lambda: whole() == 30)
    clerk = r.clerk()
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded")
    assert whole() == 30
    lib.eventually(lambda: r.clerk() not in (None, clerk), "another clerk")
    os.kill(r.clerk(), signal.SIGKILL)
    r.say("late", "127.0.0.1:1")  # heard by the next one
    w.wait_stderr("the helper clerk died; another one follows")
    lib.eventually(lambda: whole() == 31)
    w.signal(signal.SIGUSR2)
    w.wait_stderr("warp .* ready(?s:.*)warp .* ready")
    assert whole() == 31
    r.say("key0", "127.0.0.1:1000", leaves=True)
    r.wait("key0", [])


def test_clerk_that_hangs(router):
    r = router()
    r.say("k", "/tmp/x")
    r.wait("k", ["/tmp/x"])
    os.kill(r.clerk(), signal.SIGSTOP)
    r.say("k", "/tmp/y")
    r.warp.signal(signal.SIGHUP)
    r.wait("k", ["/tmp/x", "/tmp/y"])


@pytest.mark.limit(60)
def test_flood(router, tmp_path):
    """Hostile datagrams change nothing and cost no memory."""
    sign = Signer(str(tmp_path), "k", "sha256")
    r = router('subscriptions_sign_check = "SHA256:%s"' % tmp_path)
    now = int(time.time())
    good = sign("k", "/good", now)
    r.out.send(good)
    r.wait("k", ["/good"])
    before = r.stats()["subscriptions"]
    rows = [b"", b"\xe0", good[:-1], good + b"x", good, os.urandom(4096), b"\xe0\xff\xff\x00" + b"\xff" * 60000,
            node("k", "/evil"), node("k", "/good", leaves=True), sign("k", "/evil", now, damage=100),
            node("k" * 256, "/x"), node("k", "x" * 256), packet([("key", "k")]), packet([("address", "/x")])]
    rows += [good[:n] for n in range(0, len(good), 7)]
    for row in rows * 20:
        r.out.send(row)
    rss = lib_rss(r.clerk())
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for row in rows:
            r.out.send(row)
    lib.eventually(lambda: r.stats() is not None)
    assert r.stats()["subscriptions"] == before
    assert lib.SANITIZED or lib_rss(r.clerk()) <= rss + 200
    r.out.send(sign("k", "/good", now + 1))
    r.out.send(sign("k", "/more", now + 1))
    lib.eventually(lambda: r.out.send(sign("k", "/more", int(time.time()))) and set(r.nodes("k")) == {"/good", "/more"})


def lib_rss(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


@pytest.mark.limit(60)
def test_full_table(router):
    """More keys than there is room for: those that are there stay."""
    r = router()
    r.say("mine", "/mine")
    r.wait("mine", ["/mine"])
    for i in range(60000):
        r.say("flood%d.example.com" % i, "127.0.0.1:80")
        if i % 50 == 0:
            time.sleep(0.002)
    r.warp.wait_stderr("no room")
    assert r.nodes("mine")
    r.say("mine", "/mine", weight=5)
    lib.eventually(lambda: r.nodes("mine")["/mine"]["weight"] == 5)


# ---- caches ----

class Cache:
    def __init__(self, path):
        self.path = path

    def raw(self, data):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.path)
            s.sendall(data)
            return b"".join(iter(lambda: s.recv(65536), b""))

    def __call__(self, cmd, key=None, value=None, **more):
        pairs = [("cmd", cmd)] + ([("key", key)] if key else []) + ([("size", len(value))] * 2 if value else [])
        return self.raw(packet(pairs + list(more.items()), 111, 17) + (value or b""))


CACHE = """
use_cache = true
cache_listen = "@DIR@/cache"
cache_file = "@DIR@/map"
[fastrouter.cache]
"first.example" = "127.0.0.1:4040"
"""
OK = packet([("status", "ok")], 111, 17)


def value_of(text, **more):
    return packet([("status", "ok"), ("size", len(text))] + list(more.items()), 111, 17) + text


def test_cache(warp):
    w = warp('[fastrouter]\nlisten = "@DIR@/router"\n' + CACHE)
    c = Cache(w.path("cache"))
    assert c("get", "first.example") == value_of(b"127.0.0.1:4040")
    assert c("set", "k", b"127.0.0.1:1,5") == OK
    assert c("set", "k", b"/other") == b""
    assert c("get", "k") == value_of(b"127.0.0.1:1,5")
    assert c("update", "k", b"/other", expires=100) == OK
    assert abs(int(c("get", "k").split(b"expires\x0a\x00")[1][:10]) - time.time() - 100) < 5
    assert c("exists", "k") == OK and c("exists", "no") == b""
    assert c("del", "k") == OK and c("del", "k") == b"" and c("get", "k") == b""
    assert c("set", "k", b"/x", expires=1) == OK
    lib.eventually(lambda: c("get", "k") == b"")
    assert c("set", "k", b"/y", cache="nobody") == b"" and c("set", "k", b"/y", cache="default") == OK
    assert c("set", "big", b"x" * 65537) == b"" and c("set", "k" * 2049, b"x") == b""
    assert c("set", "big", b"x" * 65536) == OK and c("get", "big") == value_of(b"x" * 65536)
    assert c.raw(struct.pack("<BHB", 111, 1, 0) + b"k") == struct.pack("<BHB", 111, 2, 0) + b"/y"
    for bad in (b"\x00" * 4, packet([("cmd", "get")], 111, 17), packet([("cmd", "fly"), ("key", "k")], 111, 17),
                b"\x6f\xff\xff\x11" + b"x" * 5000, packet([("cmd", "get"), ("key", "k")], 111, 99)):
        assert c.raw(bad) == b""
    with socket.socket(socket.AF_UNIX) as s:  # byte by byte
        s.connect(w.path("cache"))
        for b in packet([("cmd", "get"), ("key", "k")], 111, 17):
            s.send(bytes([b]))
            time.sleep(0.001)
        assert s.recv(1000) == value_of(b"/y")
    # many that say nothing do not keep others out
    idle = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for s in idle:
        s.connect(w.path("cache"))
    assert c("get", "k") == value_of(b"/y")


def test_cache_file(warp):
    w = warp('[fastrouter]\nlisten = "@DIR@/router"\n' + CACHE)
    c = Cache(w.path("cache"))
    with open(w.path("map"), "w") as f:
        f.write("# a comment\nfile.example\t /sock \nboth  /b\r\n\nalone\n")
    lib.eventually(lambda: c("get", "file.example") == value_of(b"/sock"))
    assert c("get", "both") == value_of(b"/b") and c("get", "alone") == b""
    assert c("update", "both", b"/mine") == OK
    with open(w.path("map"), "w") as f:
        f.write("both /c\nnew /n\n")
    lib.eventually(lambda: c("get", "new") == value_of(b"/n"))
    assert c("get", "file.example") == b"" and c("get", "both") == value_of(b"/mine")
    assert c("get", "first.example") == value_of(b"127.0.0.1:4040")
    w.signal(signal.SIGHUP)
    w.wait_stderr("reloaded")
    assert c("get", "both") == value_of(b"/mine") and c("get", "new") == value_of(b"/n")


# ---- real instances ----

APP = "def application(e, r):\n    r('200 OK', [])\n    return [b'hello']\n"


@pytest.fixture
def instance(tmp_path):
    """Starts a real uwsgi."""
    started = []
    (tmp_path / "app.py").write_text(APP)

    def start(*args):
        started.append(subprocess.Popen(["uwsgi", "--plugin", "python3", "--master", "--die-on-term", *args],
                                        cwd=str(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]
    yield start
    for p in started:
        p.kill()
        p.wait()


def test_real_instance(router, instance, tmp_path):
    (tmp_path / "mappings.txt").write_text("# some\nfile.it\nfile.it:8000,5\n")
    r = router()
    to = "127.0.0.1:%d" % r.sub
    p = instance("--socket", "127.0.0.1:0", "--wsgi-file", "app.py", "--processes", "2", "--subscribe-to", to + ":example.com",
                 "--subscribe-to", to + ":unbit.it,5", "--subscribe-to", to + ":@mappings.txt")
    lib.eventually(lambda: len(r.stats()["subscriptions"]) == 4, timeout=15)
    (address, n), = r.nodes("example.com").items()
    assert n["cores"] == 2 and int(address.split(":")[1]) > 1000
    (_, n), = r.nodes("unbit.it").items()
    assert n["modifier1"] == 5
    (_, n), = r.nodes("file.it:8000").items()
    assert n["modifier1"] == 5
    p.send_signal(signal.SIGTERM)
    lib.eventually(lambda: not r.stats()["subscriptions"], timeout=15)


def test_real_signed_instance(router, instance, tmp_path):
    Signer(str(tmp_path), "signed.it")
    r = router('subscriptions_sign_check = "SHA256:%s"' % tmp_path)
    instance("--socket", "127.0.0.1:0", "--wsgi-file", "app.py", "--subscribe-to",
             "127.0.0.1:%d:signed.it,0,SHA256:%s" % (r.sub, tmp_path / "signed.it.private"))
    lib.eventually(lambda: len(r.nodes("signed.it")) == 1, timeout=15)


def test_real_cache_client(warp, instance, tmp_path):
    """cache_set(..., 'default@ADDRESS') of a real application."""
    port = free_port(socket.SOCK_STREAM)
    w = warp('[fastrouter]\nlisten = "@DIR@/router"\nuse_cache = true\ncache_listen = ["127.0.0.1:%d", "@DIR@/cache"]\n' % port)
    (tmp_path / "fill.py").write_text(
        "import uwsgi\n" + APP +
        "at = 'default@127.0.0.1:%d'\n" % port +
        "a = uwsgi.cache_set('example.com:8000', '127.0.0.1:4040', 0, at)\n"
        "b = uwsgi.cache_set('unbit.it', '127.0.0.1:4040,5', 100, at)\n"
        "c = uwsgi.cache_get('unbit.it', at)\n"
        "d = uwsgi.cache_exists('unbit.it', at), uwsgi.cache_exists('no', at)\n"
        "e = uwsgi.cache_update('gone', 'x', 0, at), uwsgi.cache_del('gone', at)\n"
        "open('result', 'w').write(repr((a, b, c, d, e)))\n")
    instance("--socket", "127.0.0.1:0", "--wsgi-file", "fill.py")
    lib.eventually(lambda: os.path.exists(str(tmp_path / "result")), timeout=15)
    lib.eventually(lambda: (tmp_path / "result").read_text())
    assert (tmp_path / "result").read_text() == "(True, True, b'127.0.0.1:4040,5', (True, None), (True, True))"
    c = Cache(w.path("cache"))
    assert c("get", "example.com:8000") == value_of(b"127.0.0.1:4040")
    assert c("get", "unbit.it").endswith(b"127.0.0.1:4040,5") and c("get", "gone") == b""


# ---- plain HTTP backends ----

def announced(secret, key, address, unix, leaves=False, text=True):
    body = packet([("key", key), ("address", address), ("unix", int(unix))])[4:]
    sign = hmac.new(secret, body, "sha256")
    body += struct.pack("<H", 4) + b"sign" + struct.pack("<H", 64 if text else 32)
    body += sign.hexdigest().encode() if text else sign.digest()
    return struct.pack("<BHB", 224, len(body), int(leaves)) + body


@pytest.mark.limit(60)
def test_backends_with_a_secret(warp, backend):
    port = free_port()
    b, c = backend(name="b"), backend(name="c")
    w = warp('[upstreams.app]\nsubscription = "127.0.0.1:%d"\nsubscription_secret = "a secret"\n[[routes]]\nupstream = "app"\n'
             % port)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(("127.0.0.1", port))
    now, at, at_c = time.time(), "127.0.0.1:%d" % b.port, "127.0.0.1:%d" % c.port
    refused = lambda why: w.wait_stderr("announcement refused, its signature: " + why)
    out.send(node("app", at))
    refused("it has none")
    out.send(announced(b"another", "app", at, now))
    refused("it is wrong")
    out.send(announced(b"a secret", "other", at, now))
    refused("no upstream of that name")
    out.send(announced(b"a secret", "app", at, now - 100000))
    refused("it is not new")
    assert w.ask("/").status in (502, 503)
    out.send(announced(b"a secret", "app", at, now))
    lib.eventually(lambda: w.ask("/").status == 200)
    assert w.ask("/").text.startswith("b ")
    out.send(announced(b"a secret", "app", at_c, now, text=False))
    lib.eventually(lambda: {w.ask("/").text[0] for _ in range(4)} == {"b", "c"})
    for sig, said in ((signal.SIGHUP, "reloaded"), (signal.SIGUSR2, "ready(?s:.*) ready")):
        w.signal(sig)
        w.wait_stderr(said)
        assert {w.ask("/").text[0] for _ in range(4)} == {"b", "c"}
    out.send(announced(b"a secret", "app", at, now + 2, leaves=True))
    lib.eventually(lambda: {w.ask("/").text[0] for _ in range(4)} == {"c"})


def test_backend_that_leaves_finishes(warp, backend):
    go = threading.Event()
    port = free_port()
    b = backend([lib.REQ, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1", lib.WAIT(go), b"2"], name="b")
    w = warp('[upstreams.app]\nsubscription = "127.0.0.1:%d"\nhold_secs = 3\n[[routes]]\nupstream = "app"\n' % port)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(("127.0.0.1", port))
    with w.client() as c:
        c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # before there is anybody
        time.sleep(0.2)
        out.send(node("app", "127.0.0.1:%d" % b.port))
        b.request()
        out.send(node("app", "127.0.0.1:%d" % b.port, leaves=True))
        w.wait_stderr("app => .* leaves")
        time.sleep(1.5)  # a sweep
        assert w.ask("/").status in (502, 503)
        go.set()
        assert c.response().body == b"12"
