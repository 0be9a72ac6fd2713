"""Hosts and containers where something is missing: devices, places to write to, name servers, processes."""
import ctypes
import os
import resource
import signal
import tempfile
import time

import pytest

import lib
from lib import conf, eventually, toml_file
from supervised import fleet, sh

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000 | 0x40000
NEWNS = 0x20000
libc = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OK = {"respond": {"status": 200, "body": "ok"}}


def mounts(*what):
    """What makes a child see other things than its parent: (source, place), source None: nothing, not to be written;
    or the same as before, not to be written."""
    lib.needs_mounts()

    def mount():
        if libc.unshare(NEWNS) or libc.mount(b"none", b"/", None, MS_PRIVATE, None):
            os._exit(97)
        for source, place in what:
            kind, flags = (None, MS_BIND) if source else (b"tmpfs", MS_RDONLY)
            if libc.mount(str(source or "none").encode(), str(place).encode(), kind, flags, None):
                os._exit(98)
            if source == place and libc.mount(None, str(place).encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY, None):
                os._exit(99)
    return mount


def test_without_dev(warp):
    """No /dev/null, and nobody can make one: that is no log of ours."""
    w = warp(toml_file(conf(OK)), preexec_fn=mounts((None, "/dev")))
    assert w.ask().text == "ok"


def test_no_log_without_dev(warp):
    """A log that is off says nothing, also where there is no /dev/null to throw it into."""
    w = warp(toml_file({**conf(OK), "log": {"error": "off", "access": "off"}}), preexec_fn=mounts((None, "/dev")))
    w.signal(signal.SIGHUP)
    w.signal(signal.SIGUSR1)
    eventually(lambda: w.ask().text == "ok")
    w.stop()
    assert " info: " not in w.stderr, w.stderr


def test_a_dev_null_is_not_made(warp, tmp_path):
    """Where there is none, a plain file of that name would take what everybody throws away."""
    w = warp(toml_file(conf(OK)), preexec_fn=mounts((tmp_path, "/dev")))
    assert w.ask().text == "ok" and not os.path.exists(tmp_path / "null")


def test_a_program_without_dev(warp):
    w = warp(fleet(sh("exec sleep 100")), preexec_fn=mounts((None, "/dev")))
    w.wait_stderr(r"exited with status 127 after .*; its last words: warp: /dev/null: No such file or directory")


def test_no_place_for_sockets(warp):
    """Neither in /run nor in /tmp: nothing in / is taken for one."""
    os.makedirs("/tmp/warp-of-0", exist_ok=True)
    w = warp(fleet(sh("exec sleep 100 {socket}")), preexec_fn=mounts((None, "/run"), (None, "/tmp/warp-of-0")))
    w.wait_stderr(r"process web: no place for its socket in /run/warp/web: Read-only file system")
    assert not os.path.exists("/web")


def test_bodies_where_tmp_is_read_only(warp, backend):
    """As in a container with --read-only: they stay in memory, as where there is no /tmp."""
    b = backend()
    w = warp(toml_file(conf({"buffer_request": 1000}, app=b)), preexec_fn=mounts(("/tmp", "/tmp")))
    w.wait_stderr("request bodies stay in memory: /tmp: Read-only file system")
    assert w.ask(method="POST", body=b"x" * 100000).status == 200 and len(b.requests[0].body) == 100000


def test_no_process_left(warp, monkeypatch):
    """One for the master, a worker and a warden, none for its program."""
    monkeypatch.setattr(lib, "WARP", lib.for_everybody(lib.WARP))
    with tempfile.TemporaryDirectory(dir="/tmp") as dir:
        os.chmod(dir, 0o777)

        def few():
            os.setresuid(54321, 54321, 54321)
            resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))
        w = warp(fleet(sh("exec sleep 100")), dir=dir, preexec_fn=few)
        w.wait_stderr(r"process web: fork: Resource temporarily unavailable")
        w.stop()


def test_hosts_do_not_wait_for_servers(warp, backend, tmp_path):
    """A name in /etc/hosts is known at once, however many before it ask a server that does not answer."""
    b = backend()
    (tmp_path / "hosts").write_text("127.0.0.1 here.test\n")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    c = conf(app={"host": "here.test", "port": b.port})
    c["upstreams"] = {**{"far%d" % i: {"url": "http://far%d.test" % i} for i in range(4)}, **c["upstreams"]}
    w = warp(toml_file(c), preexec_fn=mounts((tmp_path / "hosts", "/etc/hosts"), (tmp_path / "resolv.conf", "/etc/resolv.conf")))
    began = time.monotonic()
    eventually(lambda: w.ask().status == 200, "the name in /etc/hosts")
    assert time.monotonic() - began < 4, "a name that is not there takes 5 s"
