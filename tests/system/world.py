"""A network, /tmp, /run and /var of the test's own: ports below 1024, any address and the paths that the seed documents
name are free there, whatever else runs on this host. Warps, backends and commands that the test starts are in it."""
import contextlib
import ctypes
import os
import re
import subprocess

import lib

SEEDS = os.path.join(lib.ROOT, "tests", "seeds")
FS, NS, NET = 0x200, 0x20000, 0x40000000       # CLONE_FS, CLONE_NEWNS, CLONE_NEWNET
libc = ctypes.CDLL(None, use_errno=True)


def blocks(name, kind="toml"):
    """{line: text} of the blocks in a seed document, as they stand."""
    with open(os.path.join(SEEDS, name)) as f:
        text = f.read() + "\n"
    if name.endswith(".rst"):
        found = re.finditer(r"(?m)^\.\. code-block:: %s\n(?:    :caption:.*\n)?\n((?:    .*\n| *\n)+)" % kind, text)
        return {text[:m.start()].count("\n") + 1: re.sub(r"(?m)^    ", "", m[1]).rstrip() + "\n" for m in found}
    return {text[:m.start()].count("\n") + 1: m[1] for m in re.finditer(r"(?ms)^```%s\n(.*?)^```" % kind, text)}


def _call(f, *args):
    if f(*args):
        raise OSError(ctypes.get_errno(), f.__name__)


@contextlib.contextmanager
def world(tmp_path, *addresses):
    """Its addresses are 127.0.0.0/8, ::1 and these. What pytest and the program have in /tmp stays there."""
    lib.needs_mounts()
    cwd, old = os.getcwd(), [os.open("/proc/thread-self/ns/" + n, os.O_RDONLY) for n in ("net", "mnt")]
    kept = [os.path.dirname(lib.WARP), lib.ROOT, str(tmp_path.parent)]
    script = """set -e
mount --make-rprivate / && ip link set lo up
for a in %s; do ip addr add $a dev lo; done
mount --rbind /tmp /mnt && mount -t tmpfs none /tmp && chmod 1777 /tmp
for d in %s; do case $d in /tmp/*) mkdir -p $d && mount --bind /mnt${d#/tmp} $d;; esac; done
mount -t tmpfs none /run && mount -t tmpfs none /var
for f in passwd group; do cp /etc/$f /run/$f && mount --bind /run/$f /etc/$f; done
grep -q ^ubuntu: /etc/passwd || { echo ubuntu:x:1000:1000::/: >>/etc/passwd; echo ubuntu:x:1000: >>/etc/group; }
""" % (" ".join(addresses), " ".join(kept))
    _call(libc.unshare, NET | NS)
    try:
        subprocess.run(["sh", "-c", script], check=True, timeout=lib.TIMEOUT)
        os.chdir(cwd)
        yield
    finally:
        _call(libc.unshare, FS)            # threads of backends may share it still
        for fd in old:
            _call(libc.setns, fd, 0)
            os.close(fd)
        os.chdir(cwd)
