#!/usr/bin/env python3
"""uwsgi on both sides, beside uWSGI's own FastRouter and nginx.

    ./uwsgi.py [SECONDS] [ROUNDS]        WARP=../../warp

Real uWSGI instances are the nodes; nginx turns wrk's HTTP into packets for the
routers. Measured is the CPU of the router alone, for each request; all take turns
in each round. The last part is memory and lookup time with 1,000 keys of 3 nodes."""

import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import procs  # noqa: E402

WARP = os.path.abspath(os.environ.get("WARP", "../../warp"))
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
APP = "def application(e, s):\n    s('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])\n    return [b'hello']\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Rig:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="uwsgi-bench-")
        self.running = []

    def file(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def start(self, *argv):
        p = subprocess.Popen(argv, cwd=self.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.running.append(p)
        return p

    def stop(self):
        for p in self.running:
            procs.stop(p)
        shutil.rmtree(self.dir)


def await_port(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit("nobody listens on %d" % port)


def load(port, seconds):
    """Requests that were answered with 2xx."""
    out = subprocess.run(["wrk", "-t1", "-c16", "-d%gs" % seconds, "-H", "Connection: close", "http://127.0.0.1:%d/x" % port],
                         capture_output=True, text=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if bad:
        sys.exit("%s answers are no 2xx:\n%s" % (bad.group(1), out))
    return int(re.search(r"(\d+) requests in", out).group(1))


def pss(pid):
    total = 0
    for p in procs.tree(pid):
        with open("/proc/%d/smaps_rollup" % p) as f:
            total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
    return total


def measure(what, ports, programs):
    """CPU in us and requests a second of each program; prints the ratio to the last one."""
    cpu = {k: [] for k in ports}
    rate = {k: [] for k in ports}
    for _ in range(ROUNDS):
        for k, port in ports.items():
            pids = procs.tree(programs[k].pid)
            before = procs.cpu_snapshot(pids)
            n = load(port, SECONDS)
            run, _wait = procs.cpu_used(before, procs.cpu_snapshot(pids))
            cpu[k].append(run / 1000 / n)
            rate[k].append(n / SECONDS)
    last = statistics.median(cpu[list(ports)[-1]])
    print(what)
    for k in ports:
        m = statistics.median(cpu[k])
        print("  %-22s %7.1f us CPU a request (%.2f)  %7.0f requests/s  Pss %6d KB" % (
            k, m, m / last, statistics.median(rate[k]), pss(programs[k].pid)))


def announcement(key, address):
    body = b"".join(struct.pack("<H", len(x)) + x for pair in ((b"key", key), (b"address", address)) for x in pair)
    return struct.pack("<BHB", 224, len(body), 0) + body


def nginx(rig, backends):
    """backends: our port -> uwsgi_pass target."""
    servers = "".join("server { listen 127.0.0.1:%d; location / { uwsgi_pass %s; include /etc/nginx/uwsgi_params; uwsgi_param HTTP_HOST $http_host; } }\n"
                      % b for b in backends.items())
    return rig.start("nginx", "-p", rig.dir, "-c", rig.file("nginx.conf", """daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path b; uwsgi_temp_path u; fastcgi_temp_path f; proxy_temp_path p; scgi_temp_path s;
%s}
""" % servers))


def main():
    rig = Rig()
    try:
        rig.file("app.py", APP)
        node, fr = free_port(), {"warp": free_port(), "uwsgi --fastrouter": free_port()}
        direct, fronts = {"warp": free_port(), "nginx uwsgi_pass": free_port()}, {k: free_port() for k in fr}
        rig.start("uwsgi", "--plugin", "python3", "--socket", "127.0.0.1:%d" % node, "--wsgi-file", "app.py", "--master",
                  "--processes", "2", "--disable-logging", "--die-on-term", "--listen", "100")
        await_port(node)
        subs = {k: free_port() for k in fr}
        routers = {
            "warp": rig.start(WARP, "-c", rig.file("fr.toml", '[server]\nhttp_port = %d\n[admin]\nlisten = "off"\n[fastrouter]\nlisten = ["127.0.0.1:%d"]\n'
                              'subscription_server = ["127.0.0.1:%d"]\nsubscription_tolerance = 3600\n' % (free_port(), fr["warp"], subs["warp"]))),
            "uwsgi --fastrouter": rig.start("uwsgi", "--plugin", "fastrouter", "--fastrouter", "127.0.0.1:%d" % fr["uwsgi --fastrouter"],
                                            "--fastrouter-subscription-server", "127.0.0.1:%d" % subs["uwsgi --fastrouter"],
                                            "--subscription-tolerance", "3600", "--master", "--die-on-term"),
        }
        for k in fr:
            await_port(fr[k])
        nginx(rig, {fronts[k]: "127.0.0.1:%d" % fr[k] for k in fr})
        both = {
            "warp": rig.start(WARP, "-c", rig.file("up.toml", '[server]\nhttp_port = %d\n[admin]\nlisten = "off"\n[upstreams.a]\nurl = "uwsgi://127.0.0.1:%d"\n'
                              '[[routes]]\nupstream = "a"\n' % (direct["warp"], node))),
        }
        other = Rig()
        try:
            both["nginx uwsgi_pass"] = nginx(other, {direct["nginx uwsgi_pass"]: "127.0.0.1:%d" % node})
            for p in list(fronts.values()) + list(direct.values()):
                await_port(p)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                for k in fr:
                    s.sendto(announcement(b"127.0.0.1:%d" % fronts[k], b"127.0.0.1:%d" % node), ("127.0.0.1", subs[k]))
                time.sleep(0.5)
                measure("one key, uwsgi in and out", fronts, routers)
                measure("HTTP in, uwsgi out", direct, both)
                for i in range(3000):
                    for k in fr:
                        s.sendto(announcement(b"k%d.example.com" % (i % 1000), b"10.0.%d.%d:3031" % (i // 250, i % 250 + 1)), ("127.0.0.1", subs[k]))
                    if i % 50 == 49:
                        time.sleep(0.02)
                time.sleep(0.5)
                measure("the same with 1,000 more keys of 3 nodes", fronts, routers)
        finally:
            other.stop()
    finally:
        rig.stop()


if __name__ == "__main__":
    main()
