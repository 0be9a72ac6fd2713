"""The uwsgi protocol from both sides: packets, nodes that read them, subscription datagrams, the cache protocol;
and the real programs: uwsgi (as instance, as FastRouter, as HTTP front), php-fpm, nginx.

    packet({"HTTP_HOST": "a"}, modifier1=5)     bytes; vars: a dict, or a list of pairs where names repeat
    Node(*scripts, name=, unix=, ...)           lib.Backend that reads packets; the steps REQ, HEAD, BODY, ... work.
                                                Its requests are Packets: .vars .get(name) .all(name) .block .modifier1 .body
                                                No script: NAME, which answers 'NAME KEY BODYLENGTH' and closes.
    ask(addr, vars, body=b"", pieces=None)      one request, the bytes of the answer up to the close
    datagram(key, address, leave=False, ...)    of a subscription; announce(server, ...) sends it
    cache(addr, "get", key=...)                 one command of the cache protocol, (vars, value) or None
    program(addr, cmd, ...)                     context of a running program, entered once addr accepts
"""
import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from signal import SIGKILL, SIGTERM

import pytest

import lib
from lib import SLOW, TIMEOUT, Backend, Client, Conn, ProtocolError, Wire, eventually, free_port, reply

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable

SYSTEM = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}         # mappers are of the system's Python, not of one that takes seconds to start

# Marks a test of what the specification calls M: it must hold for a real FastRouter too.
both = pytest.mark.parametrize("router", ["warp", "uwsgi"], indirect=True)


def octets(v):
    return v if isinstance(v, bytes) else str(v).encode("latin-1")


def pairs(vars):
    return list(vars.items()) if isinstance(vars, dict) else list(vars)


# ---- packets ----------------------------------------------------------------

def block(vars):
    """The vars block of a packet."""
    return b"".join(struct.pack("<H", len(x)) + x for v in pairs(vars) for x in map(octets, v))


def packet(vars, modifier1=0, modifier2=0, length=None):
    """A packet. vars: pairs, or the block itself; length: another one than the true one in the header."""
    b = vars if isinstance(vars, bytes) else block(vars)
    return struct.pack("<BHB", modifier1, len(b) if length is None else length, modifier2) + b


def unblock(b):
    """The pairs in a vars block, as text; whatever does not add up is an error."""
    out, at = [], 0

    def take(what):
        nonlocal at
        if at + 2 > len(b):
            raise ProtocolError("no room for the length of a %s at %d of %d" % (what, at, len(b)))
        n = struct.unpack_from("<H", b, at)[0]
        at += 2 + n
        if at > len(b):
            raise ProtocolError("a %s of %d bytes beyond the block" % (what, n))
        return b[at - n:at].decode("latin-1")
    while at < len(b):
        out.append((take("name"), take("value")))
        if not out[-1][0]:
            raise ProtocolError("empty name")
    return out


class Packet:
    """What a node read."""
    method = target = None

    def __init__(self, header, blk):
        self.modifier1, _, self.modifier2 = struct.unpack("<BHB", header)
        self.raw, self.block, self.vars, self.body = header + blk, blk, unblock(blk), b""

    def all(self, name):
        return [v for n, v in self.vars if n == name]

    def get(self, name, default=None):
        return (self.all(name) or [default])[-1]

    def __contains__(self, name):
        return bool(self.all(name))

    @property
    def dict(self):
        """The vars; a name that comes twice fails."""
        names = [n for n, _ in self.vars]
        assert len(names) == len(set(names)), "repeated vars: %s" % sorted(n for n in names if names.count(n) > 1)
        return dict(self.vars)

    @property
    def key(self):
        return self.get("UWSGI_FASTROUTER_KEY") or self.get("HTTP_HOST") or self.get("SERVER_NAME") or ""

    def __repr__(self):
        return "<%d/%d %s, %d bytes>" % (self.modifier1, self.modifier2, dict(self.vars), len(self.body))


class NodeConn(Conn):
    """A connection that carries a packet."""

    def head(self, timeout=None):
        header = self.exactly(4, timeout)
        return Packet(header, self.exactly(struct.unpack_from("<H", header, 1)[0], timeout))

    def body(self, p, method=None, timeout=None):
        p.body = self.exactly(int(p.get("CONTENT_LENGTH") or 0), timeout)
        return p


def NAME(c):
    """Answers the request with 'NAME KEY BODYLENGTH' and ends."""
    p = c.request()
    c.send(reply("%s %s %d" % (c.backend.name, p.key, len(p.body)) if p.get("REQUEST_METHOD") != "HEAD" else b""))
    c.sock.shutdown(socket.SHUT_RDWR)


def ANSWER(raw):
    """Steps: the request, these bytes, the end."""
    return [lib.REQ, raw, lib.FIN]


class Node(Backend):
    """A backend that speaks uwsgi."""
    kind = NodeConn

    def __init__(self, *scripts, **kw):
        super().__init__(*(scripts or ([NAME],)), **kw)

    @property
    def address(self):
        """As uWSGI writes it."""
        return self.unix or "%s:%d" % (self.host, self.port)

    @property
    def conf(self):
        return {"url": "uwsgi/%s" % self.unix if self.unix else "uwsgi://%s:%d" % (self.host, self.port)}


def where(addr):
    """What lib.connect takes, of a port, 'host:port', a path, '@name'."""
    if isinstance(addr, str) and ":" in addr and not addr.startswith(("/", "@")):
        host, _, port = addr.rpartition(":")
        return (host.strip("[]") or "127.0.0.1", int(port))
    return addr


def ask(addr, vars, body=b"", modifier1=0, modifier2=0, pieces=None, timeout=None):
    """One request on a connection of its own; the bytes of the answer. pieces: sent in pieces of so many bytes."""
    whole = packet(vars, modifier1, modifier2) + body
    with Client(where(addr)) as c:
        with contextlib.suppress(ConnectionError):         # an answer may come before all is sent
            for i in range(0, len(whole), pieces or len(whole)):
                c.send(whole[i:i + (pieces or len(whole))])
        with contextlib.suppress(ConnectionError):
            c.gather(float("inf"), timeout or 2 * TIMEOUT)
        return c.buf


def refused(answer):
    """Whether an answer says that there was no node: none at all, or one of warp's own."""
    return not answer or answer.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 503 ", b"HTTP/1.1 504 "))


def body_of(answer):
    """The body of an answer, as text; '' when it was refused."""
    return "" if refused(answer) else answer.partition(b"\r\n\r\n")[2].decode("latin-1")


# ---- subscriptions ------------------------------------------------------------

def datagram(key, address, leave=False, sign=None, unix=None, **vars):
    """A subscription, in the order of an instance. leave: the modifier2 of its header; sign: (digest, file of the private key)."""
    vs = [("key", key), ("address", address), *vars.items()]
    cmd = int(leave)
    if unix is None and sign:
        unix = int(time.time()) + cmd
    if unix is not None:
        vs.append(("unix", unix))
    vs = [(n, v) for n, v in vs if v is not None]
    if sign:
        vs.append(("sign", signature(block(vs), *sign)))
    return packet(vs, 224, cmd)


def signature(text, digest, key):
    p = subprocess.run(["openssl", "dgst", "-" + digest.lower(), "-sign", str(key)], input=text, capture_output=True, timeout=4 * TIMEOUT)
    assert p.returncode == 0, p.stderr
    return p.stdout


def send(server, data, src=None, creds=False):
    """A datagram to 'host:port' or a path."""
    to = where(server)
    unix = isinstance(to, str)
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM) as s:
        if src:
            s.bind(src)
        to = "\0" + to[1:] if unix and to.startswith("@") else to
        if creds:
            s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS,
                                struct.pack("iII", os.getpid(), os.getuid(), os.getgid()))], 0, to)
        else:
            s.sendto(data, to)


def announce(server, key, node, leave=False, **kw):
    send(server, datagram(key, getattr(node, "address", node), leave, **kw))


# ---- the cache protocol -------------------------------------------------------

def cache(addr, cmd, value=b"", **vars):
    """One command as uwsgi.cache_* sends it; None when the other side closed without a word, else (vars, value)."""
    value = octets(value)
    vs = [("cmd", cmd)] + [(n, vars[n]) for n in ("key",) if n in vars]
    if value:
        vs += [("size", len(value))] * 2
    vs += [(n, vars[n]) for n in ("expires", "cache") if n in vars]
    got = talk(addr, packet(vs, 111, 17) + value)
    if not got:
        return None
    head, n, kind = struct.unpack_from("<BHB", got)
    assert (head, kind) == (111, 17), got[:4]
    return dict(unblock(got[4:4 + n])), got[4 + n:]


def talk(addr, data, timeout=None):
    """Sends and reads up to the close."""
    with Client(where(addr)) as c:
        with contextlib.suppress(ConnectionError):
            c.send(data)
            c.gather(float("inf"), timeout or 2 * TIMEOUT)
        return c.buf


# ---- real programs ------------------------------------------------------------

def need(name):
    return shutil.which(name) or pytest.skip("no " + name)


class Program:
    """A real server in a process group of its own. out: what it wrote so far."""

    def __init__(self, cmd, **kw):
        self.cmd, self.out, self.news = cmd, "", threading.Condition()
        self.proc = subprocess.Popen([str(c) for c in cmd], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     start_new_session=True, **kw)
        self.pid = self.proc.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in iter(self.proc.stdout.readline, b""):
            with self.news:
                self.out += line.decode("utf-8", "replace")
                self.news.notify_all()
        self.proc.stdout.close()

    def wait_out(self, pattern, timeout=None):
        found = lambda: re.search(pattern, self.out, re.M)
        with self.news:
            assert self.news.wait_for(found, timeout or 2 * TIMEOUT), "no %r in:\n%s" % (pattern, self.out)
            return found()

    def up(self, *addrs):
        """Waits until all of them accept."""
        for a in addrs:
            def there():
                assert self.proc.poll() is None, "%s ended:\n%s" % (self.cmd[0], self.out)
                with contextlib.suppress(OSError):
                    lib.connect(where(a)).close()
                    return True
            eventually(there, "%s listens on %s" % (self.cmd[0], a), 15 * SLOW)
        return self

    def signal(self, sig):
        self.proc.send_signal(sig)

    def killpg(self, sig=SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, sig)

    def stop(self, sig=SIGTERM):
        """Ends all of its group."""
        self.killpg(sig)
        try:
            self.proc.wait(3 * SLOW)
        except subprocess.TimeoutExpired:
            pass
        self.killpg()
        self.proc.wait(TIMEOUT)
        self.reader.join(TIMEOUT)


def uwsgi_cmd(*args, plugins="python3"):
    return [need("uwsgi"), *sum((["--plugin", p] for p in plugins.split()), []), "--disable-logging", *args]


def instance(dir, app, *args, at=None, plugins="python3", up=True, **kw):
    """A real uWSGI instance that serves the text of a WSGI application; at: port or path."""
    at = at or free_port()
    file = os.path.join(str(dir), "app-%s.py" % os.path.basename(str(at)))
    with open(file, "w") as f:
        f.write(app)
    p = Program(uwsgi_cmd("--socket", at if isinstance(at, str) else "127.0.0.1:%d" % at, "--wsgi-file", file, "--master", "--need-app",
                          "--die-on-term", *args, plugins=plugins), cwd=str(dir), **kw)
    p.at = at
    p.address = at if isinstance(at, str) else "127.0.0.1:%d" % at
    return p.up(at) if up else p


# ---- FastRouters, warp's and the real one -------------------------------------

# Options of uWSGI's core, which have no fastrouter- before their name there.
CORE = ("subscription_tolerance", "subscription_algo", "subscription_dotsplit", "subscriptions_sign_check",
        "subscriptions_sign_check_tolerance", "subscriptions_sign_skip_uid", "subscriptions_use_credentials",
        "subscriptions_credentials_check", "stats_http", "chmod_socket", "abstract_socket", "no_fd_passing", "backlog")


def spelled(options):
    """Options of [fastrouter] as uWSGI's words."""
    words = []
    for name, value in options.items():
        if value is False:
            continue
        option = "--" + ("" if name in CORE else "fastrouter-") + name.replace("_", "-")
        if name == "listen":
            option = "--fastrouter"
        for v in value if isinstance(value, (list, tuple)) else [value]:
            words += [option] if v is True and name != "quiet" else [option, str(v)]
    return words


class Router:
    """What both have: .listen (addresses), .subscription, .stats_at, .log()."""

    def ask(self, vars, body=b"", at=0, **kw):
        return ask(self.listen[at], {"HTTP_HOST": vars} if isinstance(vars, str) else vars, body, **kw)

    def route(self, key, body=b"", **kw):
        """The answer's body for this key, '' when refused."""
        return body_of(self.ask({"HTTP_HOST": key}, body, **kw))

    def node(self, key):
        """The name of the node that answered, '' when refused."""
        return self.route(key).split(" ")[0]

    def client(self, at=0, **kw):
        return Client(where(self.listen[at]), **kw)

    def stats(self):
        return json.loads(talk(self.stats_at, b""))

    def keys(self):
        """Key -> addresses of its nodes, as the statistics have them."""
        return {s["key"]: [n["name"] for n in s["nodes"] if not n["death_mark"]] for s in self.stats().get("subscriptions", [])}

    def announce(self, key, node, **kw):
        announce(self.subscription, key, node, **kw)

    def subscribe(self, key, *nodes, **kw):
        """Announces and waits until the table has them."""
        for n in nodes:
            self.announce(key, n, **kw)
        want = [getattr(n, "address", n) for n in nodes]
        eventually(lambda: set(want) <= set(self.keys().get(key, ())), "%s at %s" % (key, want))

    def left(self, key, *nodes):
        """Waits until the table has none of these any more."""
        gone = [getattr(n, "address", n) for n in nodes]
        eventually(lambda: not set(gone) & set(self.keys().get(key, ())), "%s without %s" % (key, gone))


def complete(options, dir):
    """The addresses nobody named."""
    o = {"listen": "127.0.0.1:%d" % free_port(), **options}
    o["listen"] = [o["listen"]] if isinstance(o["listen"], str) else list(o["listen"])
    if o.get("subscription_server") is True:
        o["subscription_server"] = "127.0.0.1:%d" % free_port()
    if o.get("subscription_server"):
        o.setdefault("stats", "127.0.0.1:%d" % free_port())
    return {n: v for n, v in o.items() if v is not None}


def place(r, o):
    r.options, r.listen, r.stats_at = o, o["listen"], o.get("stats")
    s = o.get("subscription_server")
    r.subscription = s[0] if isinstance(s, (list, tuple)) else s


class Uwsgi(Router):
    """uwsgi --fastrouter. more: other words of its command line; cache: {key: 'addr'} as the seed's script fills it."""
    real = True

    def __init__(self, dir, options, cache=None, more=(), plugins="fastrouter", env=None, up=True):
        o = complete(options, dir)
        place(self, o)
        words = list(more)
        if cache is not None:
            with open(os.path.join(str(dir), "fill.py"), "w") as f:
                f.write("import uwsgi\n" + "".join("uwsgi.cache_set(%r, %r)\n" % (octets(k), octets(v)) for k, v in cache.items())
                        + "application = lambda e, s: []\n")
            plugins += " python3"
            words += ["--cache", "100", "--file", "fill.py"]
            o.setdefault("use_cache", True)
        if "use_code_string" in o:
            plugins += " python3"
        self.proc = Program(uwsgi_cmd(*spelled(o), "--die-on-term", "--master", *words, plugins=plugins), cwd=str(dir),
                            env=dict(os.environ, **(env or {})))
        if up:
            self.proc.up(*self.listen, *([self.stats_at] if self.stats_at else []))

    def log(self):
        return self.proc.out

    def wait_log(self, pattern, timeout=None):
        return self.proc.wait_out(pattern, timeout)

    def stop(self):
        self.proc.stop()


class Warp(Router):
    """warp with a [fastrouter]; more: further text of the configuration."""
    real = False

    def __init__(self, warp, options, cache=None, more="", up=True, env=None, **kw):
        o = complete(options, None)
        place(self, o)
        text = "[fastrouter]\n" + "".join("%s = %s\n" % (n, lib.toml(v)) for n, v in o.items())
        if cache is not None:
            if not o.get("use_cache"):
                text += "use_cache = true\n"
            text += "[fastrouter.cache]\n" + "".join("%s = %s\n" % (json.dumps(k), json.dumps(v)) for k, v in cache.items())
        self.text = text + more
        self.warp = warp(self.text, env={**SYSTEM, **(env or {})}, **kw)

    def log(self):
        return self.warp.stderr

    def wait_log(self, pattern, timeout=None):
        return self.warp.wait_stderr(pattern, timeout)

    def stop(self):
        self.warp.stop()
