"""Scenarios of the cache: hits, memory, and a mixed run with slow readers."""

import json
import socket
import subprocess
import threading
import time

import procs

MB = 1 << 20


def hits(b):
    """1 KiB is the figure that counts: parsing, the look-up, the head; then what a body costs."""
    names, t = b.names("cache"), {"setup": {"cache": 64 * MB}}
    b.compare("s17.hit1k", "cached 1 KiB, 64 keep-alive connections, always a hit", names, conns=64, count=True, **t)
    b.compare("s17.hit1k-close", "the same, a connection per request", names, conns=64, close=True, **t)
    b.compare("s17.hit100k", "cached 100 KiB, 16 connections", names, unit="byte", conns=16, path="/100k", **t)
    b.compare("s17.miss", "1 KiB that was never asked for, 64 connections: cache and upstream", names, conns=64,
              path="/########/1k", **t)


def memory(b):
    """10,000 objects, each asked for once: whatever happens, not above what was allowed."""
    rows, out = [], {}
    for n in b.names("cache"):
        for path, size in (("1k", 8 * MB), ("16k", 8 * MB)):
            try:
                r = b.start(n, cache=size)
            except Exception as e:
                b.note("s18: %s left out: %s" % (n, e))
                break
            before = procs.memory(r.pids())
            m = b.load(r, path="/########/" + path, conns=16, requests=10000, seconds=60, memory=True, warm=0)
            out["%s.%s" % (n, path)] = {"before": before, "after": {k: m[k] for k in before}, "errors": m["errors"]}
            rows.append([n, path] + ["%.1f" % (x / MB) for x in (before["pss"], m["pss"], m["pss"] - before["pss"], size)] +
                        ["%.1f" % m["cpu_us"], m["errors"]])
            r.stop()
    b.rows("[s18] memory (Pss, MiB; pages of a cache on disk are not in it) before and after 10,000 distinct objects",
           ["", "each", "before", "after", "grown", "allowed", "CPU us/req", "errors"], rows)
    b.results["s18.memory"] = {"title": "memory under 10,000 distinct objects", "results": out}


class Stream:
    """One more load generator beside the others, at a constant rate."""

    def __init__(self, b, run, name, path, conns, rate, seconds):
        self.name = name
        cmd = [b.dir + "/loadgen", "-p", str(run.setup.port), "-U", path, "-c", str(conns), "-r", str(rate), "-d", str(seconds)]
        self.proc = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     preexec_fn=procs.pin(1))
        b.children.append(self.proc)
        if self.proc.stdout.readline().strip() != "READY":
            raise RuntimeError("load generator: " + self.proc.communicate()[1][-200:])

    def go(self):
        self.proc.stdin.write("\n")
        self.proc.stdin.flush()

    def result(self):
        m = json.loads(self.proc.stdout.readline())
        self.proc.stdin.close()
        self.proc.wait(30)
        m["errors"] = sum(m[k] for k in ("err_connect", "err_eof", "err_partial", "err_timeout", "s4xx", "s5xx", "sother",
                                         "unfinished"))
        return m


class Slow:
    """Clients that take 4 KB of a large answer a tenth of a second, and ask again at its end."""

    def __init__(self, port, paths):
        self.stop, self.socks = threading.Event(), []
        for p in paths:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", port))
            s.sendall(b"GET %s HTTP/1.1\r\nHost: bench.test\r\n\r\n" % p.encode())
            s.settimeout(5)
            self.socks.append(s)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.wait(0.1):
            for s in self.socks:
                try:
                    s.recv(4096)
                except OSError:
                    pass

    def close(self):
        self.stop.set()
        self.thread.join()
        for s in self.socks:
            s.close()


STREAMS = (("hits", "/1k", 100, 1500), ("misses", "/########/1k", 50, 300), ("proxied", "/nocache/1k", 50, 500),
           ("files", "/files/1k", 50, 500))
SLOW = ("/1m", "/nocache/1m", "/files/1m")         # 1 % of the 250 others


def mixed(b):
    """Files, hits, misses and what is proxied, at constant rates: p99 of each without and with slow readers."""
    seconds = max(3.0, b.opt.seconds)
    rows, out = [], {}
    for n in b.names("cache"):
        files = "files" in b.all[n].features
        try:
            r = b.start(n, cache=64 * MB, files=b.static_dir if files else "")
        except Exception as e:
            b.note("s19: %s left out: %s" % (n, e))
            continue
        got = {}
        for slow in (False, True):
            b.quiet()
            here = lambda path: files or "/files/" not in path
            readers = Slow(r.setup.port, [p for p in SLOW if here(p)]) if slow else None
            time.sleep(0.2 if slow else 0)
            try:
                streams = [Stream(b, r, name, path, conns, rate, seconds) for name, path, conns, rate in STREAMS if here(path)]
                c0 = procs.cpu_snapshot(r.pids())
                for s in streams:
                    s.go()
                for s in streams:
                    got[s.name, slow] = s.result()
                cpu, _ = procs.cpu_used(c0, procs.cpu_snapshot(r.pids()))
                done = sum(m["requests"] for k, m in got.items() if k[1] == slow)
                got["all", slow] = {"cpu_us": cpu / 1000 / max(1, done), "requests": done}
            finally:
                if readers:
                    readers.close()
        for name, _, _, _ in STREAMS:
            if (name, False) in got:
                a, z = got[name, False], got[name, True]
                rows.append([n, name] + ["%.0f" % m[k] for m in (a, z) for k in ("p50", "p99", "p999")] +
                            ["%.2f" % (z["p99"] / a["p99"]) if a["p99"] else "-", a["errors"], z["errors"]])
        rows.append([n, "CPU us/req", "%.1f" % got["all", False]["cpu_us"], "", "", "%.1f" % got["all", True]["cpu_us"], "", "", "", "", ""])
        out[n] = {"%s%s" % (k[0], ".slow" if k[1] else ""): m for k, m in got.items()}
        r.stop()
    b.rows("[s19] latency in us from the due time, without and with slow readers", ["", "stream", "p50", "p99", "p99.9", "p50 slow", "p99 slow",
                                                                                  "p99.9 slow", "p99 ratio", "errors", "slow"], rows)
    b.results["s19.mixed"] = {"title": "mixed run with slow readers", "results": out}


ALL = {
    17: ("cache: hits", hits),
    18: ("cache: memory under 10,000 distinct objects", memory),
    19: ("cache: files, hits, misses, proxied, with slow readers", mixed),
}
