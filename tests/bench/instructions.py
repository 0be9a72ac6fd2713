#!/usr/bin/python3
"""User-space instructions a proxy spends on a kept GET, counted by callgrind:
the same on any day and any machine, so that a change can be judged without noise.

    tests/bench/instructions.py            warp, nginx, HAProxy, the bare forwarder
    tests/bench/instructions.py -p warp    one of them

The figure is the difference between two runs of different length, divided by
the requests between them: starting and stopping cancel out. The kernel's part
is not in it.
"""
import argparse
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import proxies
from procs import free_port, stop

HERE = os.path.dirname(os.path.abspath(__file__))
SHORT, LONG = 500, 2500
START_SECS = 60
BODY = b"x" * 100
ANSWER = (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nServer: b\r\n"
          b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n" % len(BODY)) + BODY
HEADS = {
    "4 headers": ["User-Agent: wrk", "Accept: */*", "Accept-Encoding: gzip"],
    "a browser's 15": [
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        "Cache-Control: max-age=0", "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
        "DNT: 1", "Referer: http://example.com/", "Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin", "Sec-Fetch-User: ?1", "Upgrade-Insecure-Requests: 1",
        "Priority: u=0, i"],
}


def backend():
    """Answers each request with ANSWER; returns its port."""
    s = socket.create_server(("127.0.0.1", 0))

    def serve(c):
        have = b""
        while data := c.recv(65536):
            have += data
            n = have.count(b"\r\n\r\n")
            have = have[have.rfind(b"\r\n\r\n") + 4:] if n else have
            c.sendall(ANSWER * n)

    def accept():
        while True:
            threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return s.getsockname()[1]


def ask(port, head, n):
    """n requests on one connection."""
    c = socket.create_connection(("127.0.0.1", port))
    for _ in range(n):
        c.sendall(head)
        got = b""
        while not got.endswith(BODY):
            data = c.recv(65536)
            if not data:
                sys.exit("the connection was closed: %r" % got)
            got += data
    c.close()


def count(proxy, port, head, n):
    """Instructions of all its processes for n requests."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as d:
        os.chmod(d, 0o777)
        s = proxies.Setup(dir=d, port=free_port(), upstreams=["127.0.0.1:%d" % port])
        cmd = ["valgrind", "--tool=callgrind", "--callgrind-out-file=%s/cg.%%p" % d] + proxy.command(s)
        with open(os.path.join(d, "log"), "w+") as log:
            p = subprocess.Popen(cmd, stdout=log, stderr=log, env=dict(os.environ, WARPDRIVE_SANDBOX="off", **proxy.env), # of valgrind's own calls
                                 start_new_session=True)
            by = time.monotonic() + START_SECS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", s.port)).close()
                    break
                except OSError:
                    if p.poll() is not None or time.monotonic() > by:
                        log.seek(0)
                        sys.exit("%s does not start:\n%s" % (proxy.name, log.read()))
                    time.sleep(0.05)
            ask(s.port, head, n)
            stop(p)
        return sum(int(re.search(r"(?m)^(?:summary|totals): (\d+)", open(f).read())[1])
                   for f in glob.glob(d + "/cg.*"))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("-p", default="warp,nginx,haproxy,floor-poll", help="which, with commas")
    names = a.parse_args().p.split(",")
    os.environ.setdefault("WARP", os.path.join(HERE, "../../warp"))
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not here")
    with tempfile.TemporaryDirectory(prefix="floor-") as d:
        os.environ["BENCH_FLOOR"] = os.path.join(d, "floor")
        subprocess.run(["cc", "-O2", "-o", os.environ["BENCH_FLOOR"], HERE + "/c/floor.c"], check=True)
        known, port = proxies.load_all(), backend()
        print("%-12s" % "" + "".join("%16s" % h for h in HEADS))
        for name in names:
            if not known[name].binary():
                print("%-12s not installed" % name)
                continue
            row = []
            for lines in HEADS.values():
                head = "\r\n".join(["GET /index.html HTTP/1.1", "Host: example.com"] + lines + ["", ""]).encode()
                row.append((count(known[name], port, head, LONG) - count(known[name], port, head, SHORT))
                           / (LONG - SHORT))
            print("%-12s" % name + "".join("%16.0f" % v for v in row), flush=True)


if __name__ == "__main__":
    main()
