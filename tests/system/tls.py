"""What tests of TLS need: an authority of their own with certificates of every kind, a raw client
and a scripted backend that speak TLS and know a clean end from a cut, and the openssl command.

A close without close_notify is an error here, never an end: see Client.closed and Conn.end."""
import collections
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

import lib
from lib import TIMEOUT

Cert = collections.namedtuple("Cert", "cert key leaf")       # files: the chain, its key, the leaf alone

KEYS = {
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "p521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
}
CA_CONF = """[ca]
default_ca = d
[d]
database = %(d)s/index.txt
new_certs_dir = %(d)s
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
preserve = yes
copy_extensions = none
[any]
commonName = supplied
organizationName = optional
[req]
distinguished_name = dn
[dn]
"""
# One cipher with forward secrecy for each kind of key; the first of each is what is measured.
ECDSA = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-GCM-SHA384"]
RSA = ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES256-GCM-SHA384"]


def openssl(*args, input=b"", ok=True, timeout=None):
    """Runs it; what it wrote, both streams together."""
    p = subprocess.run(["openssl", *map(str, args)], input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=timeout or 2 * TIMEOUT)
    out = p.stdout.decode("utf-8", "replace")
    assert not ok or p.returncode == 0, "openssl %s:\n%s" % (" ".join(map(str, args)), out)
    return out


class Pki:
    """Authorities and what they signed, in one directory; each is made when first asked for."""

    def __init__(self, dir):
        self.dir, self.made, self.n = str(dir), {}, 0
        open(self.path("index.txt"), "w").close()
        self.conf = self.write("ca.conf", CA_CONF % {"d": self.dir})

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    @property
    def root(self):
        """The file of the authority that everybody here trusts."""
        return self.ca("root").cert

    def _key(self, name, kind):
        openssl("genpkey", *KEYS[kind], "-out", self.path(name))
        os.chmod(self.path(name), 0o600)
        return self.path(name)

    def _sign(self, name, key, subject, ext, by, since, days):
        """The file of a certificate; by: a Cert, None: it signs itself."""
        stamp = lambda d: time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + d * 86400))
        csr, out = self.path(name + ".csr"), self.path(name + ".leaf.pem")
        openssl("req", "-new", "-config", self.conf, "-key", key, "-subj", subject, "-out", csr)
        self.write(name + ".ext", ext)
        who = ["-cert", by.leaf, "-keyfile", by.key] if by else ["-selfsign", "-keyfile", key]
        openssl("ca", "-batch", "-notext", "-config", self.conf, *who, "-in", csr, "-out", out, "-extfile",
                self.path(name + ".ext"), "-startdate", stamp(since), "-enddate", stamp(since + days))
        return out

    def ca(self, name="root", by=None, key="p256"):
        """An authority: by itself, or signed by the one named."""
        if name not in self.made:
            boss = self.ca(by) if by else None
            k = self._key("ca-%s.key" % name, key)
            leaf = self._sign("ca-" + name, k, "/O=Warp Test/CN=%s authority" % name,
                              "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n"
                              "subjectKeyIdentifier = hash\n", boss, -30, 3650)
            self.made[name] = Cert(leaf, k, leaf)
        return self.made[name]

    def cert(self, *names, key="p256", by="root", since=-1, days=30, whole=True, subject=None, n=0):
        """A certificate for these DNS names, with its key. by: 'root', 'root/middle' (an intermediate, which is
        in the file unless whole is False), 'self', or any other name: an authority nobody knows. n: another such one."""
        want = (names, key, by, since, days, whole, subject, n)
        if want in self.made:
            return self.made[want]
        self.n += 1
        base = "c%d" % self.n
        k = self._key(base + ".key", key)
        alt = ", ".join(("IP:" if re.fullmatch(r"[\d.]+|.*:.*", x) else "DNS:") + x for x in names)
        ext = "basicConstraints = CA:FALSE\nauthorityKeyIdentifier = keyid\n" + ("subjectAltName = %s\n" % alt if alt else "")
        root, _, middle = by.partition("/")
        boss = None if by == "self" else self.ca(middle, root) if middle else self.ca(root)
        leaf = self._sign(base, k, subject or "/O=Warp Test/CN=%s" % (names[0] if names else base), ext, boss, since, days)
        chain = open(leaf).read() + (open(boss.leaf).read() if middle and whole else "")
        self.made[want] = Cert(self.write(base + ".pem", chain), k, leaf)
        return self.made[want]

    def key_as(self, cert, form):
        """The file of the same key in another form: pkcs8, traditional (SEC1 or PKCS#1), params (SEC1 behind its
        parameters), encrypted."""
        out = cert.key + "." + form
        if not os.path.exists(out):
            if form == "params":
                text = openssl("ecparam", "-name", "prime256v1") + openssl("ec", "-in", cert.key).replace("read EC key\n", "")
                self.write(os.path.basename(out), text.replace("writing EC key\n", ""))
            else:
                openssl("pkey", "-in", cert.key, "-out", out, *{
                    "pkcs8": [], "traditional": ["-traditional"], "encrypted": ["-aes128", "-passout", "pass:x"]}[form])
            os.chmod(out, 0o600)
        return out


# ---- clients ----------------------------------------------------------------

def context(ca=None, cert=None, ciphers=None, alpn=None, version=None, curve=None, tickets=False):
    """How a client speaks. ca: a file to verify with, None: anybody is believed; cert: a Cert; version: the only one."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = bool(ca)
    c.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if ca:
        c.load_verify_locations(ca)
    c.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if not tickets:
        c.options |= ssl.OP_NO_TICKET
    c.maximum_version = c.minimum_version = version or ssl.TLSVersion.TLSv1_2
    if ciphers:
        c.set_ciphers(ciphers)
    if alpn:
        c.set_alpn_protocols(alpn)
    if curve:
        c.set_ecdh_curve(curve)
    if cert:
        c.load_cert_chain(cert.cert, cert.key)
    return c


class Client(lib.Client):
    """A raw client connection with TLS on it. name: SNI, and who is wanted; None: neither is said nor checked."""

    def __init__(self, port, ctx, name="a.example", session=None, rcvbuf=None, timeout=None):
        super().__init__(port, timeout, rcvbuf)
        try:
            self.sock = ctx.wrap_socket(self.sock, server_hostname=name, session=session, suppress_ragged_eofs=False)
        except BaseException:
            self.sock.close()
            raise

    @property
    def cipher(self):
        return self.sock.cipher()[0]

    @property
    def resumed(self):
        return self.sock.session_reused

    @property
    def serial(self):
        """Of the certificate that was shown; only where it is verified."""
        return self.sock.getpeercert()["serialNumber"]

    def closed(self, timeout=None):
        """Waits for the end; says how: 'eof' (close_notify), 'cut' (without), 'reset', or the alert's name."""
        try:
            return super().closed(timeout)
        except ssl.SSLEOFError:
            return "cut"
        except ssl.SSLError as e:
            return e.reason

    def is_open(self, wait=0.1):
        return not self.sock.pending() and super().is_open(wait)

    def bye(self):
        """close_notify, and the server's answer to it."""
        self.sock.settimeout(TIMEOUT)
        self.sock = self.sock.unwrap()


def hello(ctx=None, name="a.example"):
    """The bytes of a ClientHello, as one record."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = (ctx or context()).wrap_bio(into, out, server_hostname=name)
    try:
        o.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def records(sock, timeout=None):
    """Reads raw TLS records until the peer closes: list of (type, bytes); how it ended is the last one's type."""
    got, buf = [], b""
    sock.settimeout(timeout or TIMEOUT)
    while True:
        try:
            more = sock.recv(65536)
        except ConnectionError:
            return got + [("reset", buf)]
        if not more:
            return got + [("eof", buf)]
        buf += more
        while len(buf) >= 5 and len(buf) >= (n := 5 + struct.unpack(">H", buf[3:5])[0]):
            got.append((buf[0], buf[5:n]))
            buf = buf[n:]


ALERTS = {10: "unexpected_message", 40: "handshake_failure", 50: "decode_error", 70: "protocol_version",
          80: "internal_error", 100: "no_renegotiation", 112: "unrecognized_name"}


def s_client(port, *args, name="a.example", input=b"", ok=None):
    """`openssl s_client` until its input ends: all it wrote. ok: whether there must be a handshake."""
    sni = ["-servername", name] if name else ["-noservername"]
    try:
        out = openssl("s_client", "-connect", "127.0.0.1:%d" % port, *sni, *args, input=input, ok=False)
    except subprocess.TimeoutExpired as e:
        raise AssertionError("s_client hangs:\n%s" % (e.stdout or b"").decode("utf-8", "replace")) from None
    assert ok is None or shaken(out) == ok, out
    return out


def shaken(out):
    """Whether s_client got through a handshake."""
    return not re.search(r"Cipher is \(NONE\)|no peer certificate available", out) and "Cipher is " in out


def fact(out, what):
    """A line of s_client's summary: what it says behind 'what'."""
    m = re.search(r"(?m)^\s*%s\s*(?:is|:|,)?\s*(.*?)\s*$" % what, out)
    assert m, "no %r in:\n%s" % (what, out)
    return m[1]


def serial(cert):
    """Of a Cert's leaf, as Client.serial says it."""
    return openssl("x509", "-in", cert.leaf, "-noout", "-serial").strip().partition("=")[2]


# ---- backend ----------------------------------------------------------------

class Polite(ssl.SSLSocket):
    """Answers a close_notify with its own: OpenSSL forgets the session of a connection that ends otherwise."""

    def recv(self, *args):
        got = super().recv(*args)
        if not got:
            try:
                self.unwrap()
            except (OSError, ValueError):
                pass
        return got


class Backend(lib.Backend):
    """lib.Backend over TLS. cert: whom it is; ca: a file, client certificates by it are required; want: only asked
    for; tls13: speaks nothing else; before: called with the bare socket of each connection. The handshakes that
    failed are in .failed, in words; each connection's .shaken is the socket after its handshake."""

    def __init__(self, *scripts, cert, ca=None, tls13=False, before=None, **kw):
        c = self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        c.load_cert_chain(cert.cert, cert.key)
        c.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        c.minimum_version = ssl.TLSVersion.TLSv1_3 if tls13 else ssl.TLSVersion.TLSv1_2
        c.set_alpn_protocols(["http/1.1"])
        c.sslsocket_class = Polite
        if ca:
            c.load_verify_locations(ca)
            c.verify_mode = ssl.CERT_REQUIRED
        self.sni, self.failed, self.reused, self.before = [], [], [], before
        c.sni_callback = lambda sock, name, ctx: self.sni.append(name)
        super().__init__(*scripts, **kw)

    @property
    def conf(self):
        return {"url": "https://127.0.0.1:%d" % self.port}

    def _run(self, c):
        c.shaken = None
        try:
            if self.before:
                self.before(c)
            c.sock.settimeout(4 * TIMEOUT)
            c.sock = c.shaken = self.ctx.wrap_socket(c.sock, server_side=True, suppress_ragged_eofs=False)
            c.sock.settimeout(None)
            self.reused.append(c.sock.session_reused)
        except OSError as e:
            self.failed.append(str(e))
            c.closed.set()
            c.sock.close()
            return
        super()._run(c)


def BYE(c):
    """A step: the clean end, close_notify first."""
    try:
        c.sock.unwrap().close()
    except OSError:
        c.sock.close()


def CUT(c):
    """A step: the end without a word of TLS."""
    raw = socket.socket(fileno=c.sock.detach())
    raw.shutdown(socket.SHUT_RDWR)
    raw.close()


# ---- configuration ----------------------------------------------------------

def site(port, *certs, conf=None, server=None, tls=None):
    """conf (of lib.conf) with an https listener at port. The first certificate is tls.cert, the others tls.certs."""
    out = dict(conf or {"routes": [{"path_prefix": "/", "respond": {"status": 200, "body": "ok"}}]})
    out["server"] = {"https_listen": ["127.0.0.1:%d" % port], **out.get("server", {}), **(server or {})}
    out["tls"] = {"enabled": True, **({"cert": certs[0].cert, "key": certs[0].key} if certs else {}), **(tls or {})}
    if certs[1:]:
        out["tls.certs"] = [{"cert": c.cert, "key": c.key} for c in certs[1:]]
    return out


def pss(pid):
    """Memory of one process, bytes."""
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return int(re.search(r"(?m)^Pss:\s+(\d+) kB", f.read())[1]) * 1024


def sockets(pid):
    """How many sockets a process holds."""
    n = 0
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            n += os.readlink("/proc/%d/fd/%s" % (pid, fd)).startswith("socket:")
        except OSError:
            pass
    return n


def readable(sock, wait):
    return bool(select.select([sock], [], [], wait)[0])


class Loop:
    """An asyncio loop on a thread, for servers of the websockets library."""

    def __init__(self):
        import asyncio
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coro):
        import asyncio
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result(4 * TIMEOUT)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIMEOUT)
