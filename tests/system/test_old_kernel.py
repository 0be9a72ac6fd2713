"""Old kernels and strict containers: what warp does without system calls that it can do without, each refused
to it and to all below it by a filter (seccomp), as Linux 3.10 (ENOSYS) or a container (EPERM) would."""
import ctypes
import errno
import os
import platform
import struct
import subprocess

import pytest

import lib
import tls
from lib import Backend
from supervised import app, fleet, kill, proc, reload, running, upgrade

# name: number on x86-64 and on arm64
CALLS = {"splice": (275, 76), "sendfile": (40, 71), "memfd_create": (319, 279), "getrandom": (318, 278),
         "close_range": (436, 436), "openat2": (437, 437), "open_tree": (428, 428), "execveat": (322, 281),
         "landlock_create_ruleset": (444, 444), "statx": (332, 291), "eventfd2": (290, 19), "epoll_create1": (291, 20),
         "fchown": (93, 55)}  # the last by systemd's @privileged
SETSOCKOPT, SO_REUSEPORT = (54, 208), 15
ARCHS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
COLUMN, ARCH = ARCHS.get(platform.machine(), (None, None))
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, RETURN, ALLOW, ERROR = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000

pytestmark = pytest.mark.skipif(COLUMN is None, reason="its numbers of system calls are not listed")


class Program(ctypes.Structure):
    _fields_ = [("n", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def refuse(names, error):
    """What makes a child do without those calls, between fork and exec; reuseport: an option of setsockopt."""
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCH), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 0)]
    for n in names:
        if n != "reuseport":
            code += [(EQUAL, 0, 1, CALLS[n][COLUMN]), (RETURN, 0, 0, ERROR | error)]
    if "reuseport" in names:
        code += [(EQUAL, 1, 0, SETSOCKOPT[COLUMN]), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 32),
                 (EQUAL, 0, 1, SO_REUSEPORT), (RETURN, 0, 0, ERROR | errno.ENOPROTOOPT)]
    code = b"".join(struct.pack("HBBI", *c) for c in code + [(RETURN, 0, 0, ALLOW)])
    text = ctypes.create_string_buffer(code)
    program = Program(len(code) // 8, ctypes.cast(text, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)

    def set_filter(keep=text):
        if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
            os._exit(99)
    return set_filter


ALONE = [(n,) for n in ("splice", "sendfile", "memfd_create", "close_range", "openat2", "landlock_create_ruleset")]
ALONE.append(("getrandom", "landlock_create_ruleset"))  # where one is not, the other is not
ALL = (*CALLS, "reuseport")


@pytest.mark.parametrize("names, error", [*((n, "ENOSYS") for n in ALONE), (ALL, "ENOSYS"), (ALL, "EPERM")],
                         ids=lambda v: v if isinstance(v, str) else "everything" if v == ALL else v[0])
def test_without(warp, pki, tmp_path, names, error):
    """Files, big bodies both ways, TLS, a program, reload and upgrade."""
    big, port, cert = os.urandom(300000), lib.free_port(), pki.cert("a.example")
    (tmp_path / "big.bin").write_bytes(big)
    os.symlink("big.bin", tmp_path / "link.bin")
    backend = Backend([lib.REQ, lib.reply(big)] * 4)
    conf = fleet(app("web", "port={port}"), server={"https_listen": ["127.0.0.1:%d" % port]}, more=(
        '[tls]\ncert = "%s"\nkey = "%s"\nredirect = false\n' % (cert.cert, cert.key))).replace("[[routes]]", """
[upstreams.big]
host = "127.0.0.1"
port = %d
[[routes]]
path_prefix = "/files/"
static_dir = "%s"
strip_prefix = true
[[routes]]
path_prefix = "/big"
upstream = "big"
buffer_request = 1000
[[routes]]""" % (backend.port, tmp_path), 1)
    w = warp(conf, preexec_fn=refuse(names, getattr(errno, error)))

    def works():
        for path in ("big", "link"):
            assert w.ask("/files/%s.bin" % path).body == big
        assert w.ask("/big", method="POST", body=big).body == big
        assert backend.last.body == big
        with tls.Client(port, tls.context(pki.root)) as c:
            assert c.ask("/").text.startswith("web ")
    works()
    kill(proc(w)["pid"])
    running(w)
    reload(w)
    works()
    upgrade(w)
    running(w)
    works()
    assert "its output" not in w.stderr, "nothing has another owner"


def test_files_of_a_chroot_are_told_of(tmp_path):
    """Without open_tree the files are out of reach there: -t says so, where the kernel can it does not."""
    (tmp_path / "w.toml").write_text('[server]\nlisten = ["127.0.0.1:1"]\nchroot = "/"\n[[routes]]\nstatic_dir = "."\n')
    said = [subprocess.run([lib.WARP, "-t", "-c", str(tmp_path / "w.toml")], capture_output=True, text=True, timeout=lib.TIMEOUT, preexec_fn=f)
            for f in (None, refuse(["open_tree"], errno.ENOSYS))]
    assert [p.returncode for p in said] == [0, 0]
    assert ["needs Linux 5.2" in p.stderr for p in said] == [False, True], said[1].stderr
