#!/usr/bin/python3
"""The binaries of `make cross` at work, under qemu-user: cross.py [ARCH...]  (all there are)

Each serves system tests that wait for little: routing, headers and limits, balancing, the admin socket with its status
and reload. QEMU is slow, so deadlines are eight times what they are; a time that is measured may still be wrong.
Prints a line for each; exit status 1 if a test failed. make soak-cross calls it; needs qemu-user-static and make cross.
"""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QEMU = {"arm64": "aarch64", "armel": "arm", "armhf": "arm", "ppc64el": "ppc64le"}      # others are called the same
FILES = ("routing", "auth_limits", "balance", "admin")
# Of QEMU 7.2: SO_ERROR has the host's number of an error, which on MIPS is another one's; SIGSTOP takes its time.
NOT = "not test_show_errors and not test_many_verbs_at_once"


def main():
    archs = sys.argv[1:] or sorted(f[11:] for f in os.listdir(ROOT) if f.startswith("warp-cross."))
    bad = not archs
    if bad:
        print("no warp-cross.ARCH: make cross")
    for arch in archs:
        with tempfile.TemporaryDirectory() as d:
            os.chmod(d, 0o755)
            wrapper = os.path.join(d, "warp")
            with open(wrapper, "w") as f:
                f.write('#!/bin/sh\nexec qemu-%s-static "%s/warp-cross.%s" "$@"\n' % (QEMU.get(arch, arch), ROOT, arch))
            os.chmod(wrapper, 0o755)
            p = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-k", NOT,
                                *["tests/system/test_%s.py" % f for f in FILES]], cwd=ROOT, capture_output=True, text=True,
                               env=dict(os.environ, WARP=wrapper, SLOW="8", PYTHONDONTWRITEBYTECODE="1"))
        print("%-9s %s" % (arch, p.stdout.rstrip().rpartition("\n")[2]), flush=True)
        if p.returncode != 0:
            bad = True
            print(p.stdout + p.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(main())
