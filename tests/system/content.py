"""What the tests of files, X-Sendfile and gzip share: a tree of files with a secret beside it, a hundred ways to ask
for the secret, readers of multipart/byteranges and gzip, and how much memory and how many descriptors are in use."""
import email.policy
import gzip
import os
import re
import shutil
import socket
import tempfile
import zlib

from lib import SANITIZED, TIMEOUT, Backend

MB = 1 << 20
SECRET = b"SECRET-which-is-outside"
TEXT = b"0123456789abcdefghijklmnopqrstuvwxyz\r\nline\n" * 24          # 1000 bytes and a few, with line ends
TEXT = TEXT[:1000]
PAST = 1_700_000_000                       # Tue, 14 Nov 2023 22:13:20 GMT: a strong date
LAST_MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"


class Tree:
    """A directory that everybody may read, with `root` to serve and secrets around it."""

    def __init__(self):
        self.base = tempfile.mkdtemp(prefix="warp-test-", dir="/tmp")
        os.chmod(self.base, 0o755)
        self.root = self.dir("root")
        self.write("secret.txt", SECRET)
        self.write("root-sibling/secret.txt", SECRET)
        self.write("rootsecret.txt", SECRET)

    def path(self, name):
        """Where NAME is, below the base: 'root/a.txt'. Bytes stay bytes."""
        return os.path.join(os.fsencode(self.base), name) if isinstance(name, bytes) else os.path.join(self.base, name)

    def dir(self, name):
        os.makedirs(self.path(name), 0o755, exist_ok=True)
        return self.path(name)

    def write(self, name, data=b"", mtime=PAST):
        """A new file, put in place by rename."""
        p = self.path(name)
        os.makedirs(os.path.dirname(p), 0o755, exist_ok=True)
        tmp = self.path(".new")
        with open(tmp, "wb") as f:
            f.write(data)
        if mtime is not None:
            os.utime(tmp, (mtime, mtime))
        os.rename(tmp, p)
        return p

    def link(self, name, to):
        p = self.path(name)
        os.makedirs(os.path.dirname(p), 0o755, exist_ok=True)
        os.symlink(to, p)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def close(self):
        shutil.rmtree(self.base, ignore_errors=True)


class App(Backend):
    """Answers /app/N with what was registered as N: without its body where HEAD asks; and closes where it says so."""

    def __init__(self, **kw):
        self.said = []
        super().__init__([self.answer], **kw)

    def answer(self, c):
        while True:
            m = c.request()
            raw = self.said[int(m.target.split("/")[-1].partition("?")[0])]
            head = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            c.send(head if m.method == "HEAD" else raw)
            if b"\r\nconnection: close\r\n" in head.lower():
                c.sock.shutdown(socket.SHUT_WR)
                return

    def says(self, raw):
        """The target for which the answer is raw."""
        self.said.append(raw)
        return "/app/%d" % (len(self.said) - 1)


def escapes(base):
    """Spellings of ways out of a directory at `base`/root, behind a prefix that ends in a slash."""
    ups = ["..", "%2e%2e", ".%2e", "%2E.", "..;", "..;x=1", "%252e%252e", "..%00", "..%c0%af", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae",
           "..%5c", "..\\", "..%2f", "..%252f", ".%00.", ".%0a.", "..%09", "..%20", ". .", "...", "....", "%u002e%u002e"]
    out = []
    for up in ups:
        for slash in ("/", "//", "/./", "%2f", "\\", "%5c"):
            out += [up + slash + "secret.txt", "sub/" + (up + slash) * 2 + "secret.txt"]
        out += [(up + "/") * 12 + "etc/passwd", "sub/" + up + "/root-sibling/secret.txt", "..." + up + "/secret.txt", up]
    out += ["/" + base + "/secret.txt", "%2f" + base + "/secret.txt", "\\" + base + "/secret.txt", "/etc/passwd", "%2fetc%2fpasswd",
            "./" * 40 + "../secret.txt", "sub/../" * 20 + "../secret.txt", "a.txt/../../secret.txt", "missing/../../secret.txt",
            "..", "../", "../rootsecret.txt", "%2e%2e%2frootsecret.txt", "%00../secret.txt", "a.txt%00../../secret.txt", "secret.txt%00.txt",
            "../root/../secret.txt", "../root-sibling/secret.txt", "..%2froot-sibling%2fsecret.txt", "~root/secret.txt", "file:///etc/passwd",
            "C:/../../secret.txt", "sub/..%2f..%2fsecret.txt", "//..//..//secret.txt", "/%5c../secret.txt", "?/../../secret.txt",
            "a.txt?/../../../secret.txt", "#/../../secret.txt", "sub/%2e%2e%2f%2e%2e/secret.txt", "sub/.%2e/%2e./secret.txt"]
    return list(dict.fromkeys(out))


# ---- readers --------------------------------------------------------------------

def parts(m):
    """The parts of a multipart/byteranges answer: list of (first, last, length, type, bytes)."""
    kind = m.get("Content-Type")
    assert re.fullmatch(r'multipart/byteranges; ?boundary="?[0-9A-Za-z\'()+_,./:=?-]{1,70}"?', kind), kind
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    assert m.body.rstrip(b"\r\n").endswith(b"\r\n--" + boundary + b"--"), m.body[-100:]
    whole = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + m.body, policy=email.policy.compat32)
    assert whole.is_multipart() and not whole.defects, whole.defects
    out = []
    for p in whole.get_payload():
        assert not p.defects, p.defects
        r = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", p["Content-Range"])
        data = p.get_payload(decode=True)
        assert len(data) == int(r[2]) - int(r[1]) + 1, "%s and %d bytes" % (p["Content-Range"], len(data))
        out.append((int(r[1]), int(r[2]), int(r[3]), p["Content-Type"], data))
    return out


def gunzip(data):
    """What is in exactly one gzip stream with nothing behind it."""
    d = zlib.decompressobj(31)
    out = d.decompress(data)
    assert d.eof and not d.unused_data, "%d bytes: end %s, %d behind it" % (len(data), d.eof, len(d.unused_data))
    return out


def plain(m):
    """The body without its gzip coding, if there is one."""
    if not m.has("Content-Encoding"):
        return m.body
    assert m.all("Content-Encoding") == ["gzip"], m.fields
    return gunzip(m.body)


def gz(data):
    return gzip.compress(data, mtime=0)


def facts(m, *without):
    """The fields of a message but for Date and those named, sorted, to compare."""
    gone = {"date", "x-request-id", "connection", "keep-alive", *without}
    return sorted((n.lower(), v) for n, v in m.fields if n.lower() not in gone)


def answers(m, data, want):
    """Asserts that m is an answer to a range request that wants this, of data."""
    n = len(data)
    assert len(m.all("Content-Type")) <= 1 and len(m.all("Content-Range")) <= 1
    if m.status == 206 and not m.get("Content-Type").startswith("multipart/"):
        r = re.fullmatch(r"bytes (\d+)-(\d+)/%d" % n, m.get("Content-Range"))
        got = [(int(r[1]), int(r[2]))]
        assert m.body == data[got[0][0]:got[0][1] + 1]
    elif m.status == 206:
        assert not m.has("Content-Range"), "RFC 9110 15.3.7.2"
        got = [p[:2] for p in parts(m)]
        for first, last, size, kind, body in parts(m):
            assert size == n and body == data[first:last + 1] and kind
    elif m.status == 416:
        assert m.get("Content-Range") == "bytes */%d" % n
    else:
        assert m.status == 200 and m.body == data and not m.has("Content-Range")
    if isinstance(want, list):
        assert m.status == 206 and got == want
    elif want != "union":
        assert m.status in (want if isinstance(want, set) else {want})
    elif m.status == 206:                             # choice: joined, in any order, or all of it
        assert sum(b - a + 1 for a, b in got) <= 2 * n


def to_the_end(c, n):
    """The body so far as it comes: at most n bytes, and whether the connection ended before."""
    got = [c.buf]
    c.buf, left = b"", n - len(got[0])
    c.sock.settimeout(2 * TIMEOUT)
    while left > 0:
        try:
            piece = c.sock.recv(min(left, 1 << 20))
        except OSError:                   # a reset, or TLS that was cut
            piece = b""
        if not piece:
            break
        got.append(piece)
        left -= len(piece)
    return b"".join(got), left > 0


# ---- what it takes ----------------------------------------------------------------

def peak(w):
    """Highest resident memory so far of warp's processes, together."""
    total = 0
    for pid in [w.pid] + w.children():
        with open("/proc/%d/status" % pid) as f:
            found = re.search(r"VmHWM:\s+(\d+)", f.read())       # one that has ended has none
            total += int(found[1]) * 1024 if found else 0
    return total


class bounded:
    """`with bounded(w):` asserts that memory did not grow meanwhile."""

    def __init__(self, w, most=3 * MB):
        self.w, self.most, self.before = w, most, peak(w)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        grown = peak(self.w) - self.before
        assert kind or SANITIZED or grown < self.most, "memory grew by %.1f MB" % (grown / MB)


def descriptors(w):
    """How many descriptors the children of warp hold, together."""
    return sum(len(os.listdir("/proc/%d/fd" % pid)) for pid in w.children())
