#!/usr/bin/env python3
"""The public HTTP cache test suite (http-tests/cache-tests) against caches, side by side.

    ./cachesuite.py --get build                   clones the suite into build/cache-tests; warp, nginx, varnish: those there are
    ./cachesuite.py /tmp/cache-tests              a checkout that is there
    CACHE_TESTS=DIR ./cachesuite.py -p warp       warp alone
    ./cachesuite.py -p warp -v                    every test that did not pass, of every kind
    ./cachesuite.py -p warp -i stale-503          one test (or several), with what went over the wire
    ./cachesuite.py -p warp --passed 141 --failed 4   exit status 1 below, or above

None of the suite is in this repository. --get takes it from GitHub, or whatever CACHE_TESTS_GIT says, at the
commit that README.md's table was made with, and, where there is an npm, `undici`, which its four `interim`
tests want. (The suite's own npm package is years older than RFC 9111.) Needs node 18 or later.

A test's kinds: required (the specification says so), optimal (a good cache does), check (yes or no, neither is
wrong). Its results: pass, fail; setup (something else than what is tested went wrong before), depends (a test
that it depends on did not pass: nothing can be said). All proxies run at one time, each over its own connections.
Standard library; everything listens on 127.0.0.1.
"""
import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "bench"))
import procs                                                    # noqa: E402

KINDS = ("required", "optimal", "check")
RESULTS = ("pass", "fail", "setup", "depends")
SOURCE, COMMIT = "https://github.com/http-tests/cache-tests", "b55b8bda3dbb8c927c04e85bd8d496a8caa3e4ba"
UNDICI = "undici@7"

DRIVER = """
import { pathToFileURL } from 'node:url'
const [dir, base, chunk, ids] = JSON.parse(process.argv.at(-1))
const at = p => import(pathToFileURL(`${dir}/${p}`))
const { runTests, getResults } = await at('test-engine/client/runner.mjs')
let suites = (await at('tests/index.mjs')).default
const facts = suites.flatMap(s => s.tests.map(t => ({ id: t.id, suite: s.name, name: t.name,
  kind: t.kind || 'required', depends: t.depends_on || [], browser: !!t.browser_only })))
if (ids.length) {
  suites = suites.map(s => ({ ...s, tests: s.tests.filter(t => ids.includes(t.id)) }))
  suites.forEach(s => s.tests.forEach(t => { t.dump = true }))
}
if (base) await runTests(suites, false, base, chunk)
console.log('\\nRESULT ' + JSON.stringify({ facts, results: base ? getResults() : {} }))
process.exit(0)
"""

NGINX = """daemon off; worker_processes 1; pid %(dir)s/pid; error_log %(dir)s/error.log;
events { worker_connections 1000; }
http {
    access_log off;
    client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f;
    uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s;
    proxy_cache_path %(dir)s/cache levels=1:2 keys_zone=c:8m max_size=100m inactive=600m;
    upstream origin { server 127.0.0.1:%(origin)d; keepalive 64; }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_cache c; proxy_cache_revalidate on;
        }
    }
}
"""

VARNISH = 'vcl 4.1;\nbackend default { .host = "127.0.0.1"; .port = "%(origin)d"; }\n'

WARP = """[server]
listen = ["127.0.0.1:%(port)d"]
%(cache)s
[upstreams.origin]
host = "127.0.0.1"
port = %(origin)d
[[routes]]
path_prefix = "/"
upstream = "origin"
[log]
access = "off"
[admin]
listen = "off"
"""
WARP_CACHE = '[cache]\nsize_bytes = 67108864\nstale_secs = 60'   # in case of errors; the tests of must-revalidate need it


def put(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def warp_binary():
    return os.path.abspath(os.environ.get("WARP") or os.path.join(HERE, "..", "..", "warp"))


def warp(s):
    path = put(s["dir"] + "/warp.toml", WARP % dict(s, cache=os.environ.get("WARP_CACHE", WARP_CACHE)))
    r = subprocess.run([warp_binary(), "-t", "-c", path], capture_output=True, text=True, timeout=10)
    if "not supported yet" in r.stderr:
        s["note"] = "without a cache: this warp has none"
        put(path, WARP % dict(s, cache=""))
    elif r.returncode:
        raise RuntimeError(r.stderr)
    return [warp_binary(), "-c", path]


def nginx(s):
    return [shutil.which("nginx"), "-e", s["dir"] + "/error.log", "-p", s["dir"],
            "-c", put(s["dir"] + "/nginx.conf", NGINX % s)]


def varnish(s):
    return [shutil.which("varnishd"), "-F", "-n", s["dir"] + "/v", "-a", "127.0.0.1:%d" % s["port"], "-T", "none",
            "-p", "default_ttl=0", "-p", "default_grace=0", "-s", "default,64m", "-f", put(s["dir"] + "/vcl", VARNISH % s)]


PROXIES = {"warp": (warp_binary, warp), "nginx": (lambda: shutil.which("nginx"), nginx),
           "varnish": (lambda: shutil.which("varnishd"), varnish)}


class Rig:
    """One origin server, and whatever was started in front of it."""

    def __init__(self, suite):
        self.suite, self.started, self.dir = suite, [], tempfile.mkdtemp(prefix="cachesuite-")
        os.chmod(self.dir, 0o755)
        self.origin = procs.free_port()
        env = dict(os.environ, npm_config_protocol="http", npm_config_port=str(self.origin),
                   npm_config_pidfile=self.dir + "/origin.pid")
        self.start("origin", ["node", "--no-warnings", suite + "/test-engine/server/server.mjs"], self.origin, env)

    def start(self, name, cmd, port, env=None):
        log = open(self.dir + "/%s.log" % name, "w")
        p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.suite)
        self.started.append((p, log))
        end = time.monotonic() + 15
        while not procs.socket.socket().connect_ex(("127.0.0.1", port)) == 0:
            if p.poll() is not None or time.monotonic() > end:
                with open(log.name) as f:
                    raise RuntimeError("%s did not start: %s" % (name, f.read()[-500:]))
            time.sleep(0.05)

    def proxy(self, name):
        """Starts it: its address, and what is to be said of it."""
        s = {"dir": self.dir + "/" + name, "origin": self.origin, "port": procs.free_port(), "note": ""}
        os.mkdir(s["dir"])
        os.chmod(s["dir"], 0o777)
        self.start(name, PROXIES[name][1](s), s["port"])
        return "http://127.0.0.1:%d" % s["port"], s["note"]

    def run(self, base, chunk, ids, limit):
        """{"facts": [...], "results": {id: true or [kind of error, text]}}, and what was printed before."""
        arg = json.dumps([self.suite, base, chunk, ids])
        with tempfile.TemporaryFile("w+", errors="replace") as out:      # not a pipe: node would leave it half written
            subprocess.run(["node", "--no-warnings", "--input-type=module", "-e", DRIVER, "--", arg],
                           stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=limit)
            out.seek(0)
            said, mark, got = out.read().rpartition("\nRESULT ")
        if not mark:
            raise RuntimeError("the suite's client failed: %s" % got[-2000:])
        return json.loads(got), said

    def close(self):
        for p, log in reversed(self.started):
            procs.stop(p)
            log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Verdicts:
    """What came of each test of one run."""

    def __init__(self, facts, results):
        self.facts, self.results = {f["id"]: f for f in facts if not f["browser"]}, results
        self.of = {}
        for id in self.facts:
            self.of[id] = self.judge(id)

    def judge(self, id):
        if id in self.of:
            return self.of[id]
        if any(d in self.facts and self.judge(d) != "pass" for d in self.facts[id]["depends"]):
            return "depends"
        got = self.results.get(id)
        if got is True:
            return "pass"
        return "fail" if got and got[0] == "Assertion" else "setup"

    def count(self, kind):
        return collections.Counter(v for id, v in self.of.items() if self.facts[id]["kind"] == kind)

    def list(self, kinds, results):
        for id, v in self.of.items():
            f = self.facts[id]
            if f["kind"] in kinds and v in results:
                why = self.results.get(id)
                why = "" if v == "depends" else why[1] if isinstance(why, list) else str(why)
                yield "%-8s %-8s %s\n    %s: %s\n    %s" % (f["kind"], v, id, f["suite"], f["name"], why)


def summary(runs):
    """The table of all proxies."""
    columns = "".join("%8s" % r for r in RESULTS)
    print("%-10s" % "" + "   ".join(k.rjust(len(columns)) for k in KINDS))
    print("%-10s" % "" + "   ".join(columns for _ in KINDS))
    for name, v in runs.items():
        print("%-10s" % name + "   ".join("".join("%8d" % v.count(k)[r] for r in RESULTS) for k in KINDS))


def get(where, suite):
    """The suite in where/cache-tests unless there is another checkout, and undici for it."""
    def run(*cmd):
        subprocess.run(cmd, check=True, timeout=300, stdin=subprocess.DEVNULL)
    suite = suite or os.path.join(where, "cache-tests")
    if not os.path.isdir(suite):
        run("git", "clone", "--quiet", "--no-checkout", os.environ.get("CACHE_TESTS_GIT", SOURCE), suite)
    if not os.path.isdir(suite + "/test-engine"):
        run("git", "-C", suite, "-c", "advice.detachedHead=false", "checkout", "--quiet", COMMIT)
    if shutil.which("npm") and not os.path.isdir(suite + "/node_modules/undici"):
        with tempfile.TemporaryDirectory() as d:               # not in the checkout: it asks for much more
            run("npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts",
                "--no-package-lock", "--prefix", d, UNDICI)
            shutil.copytree(d + "/node_modules", suite + "/node_modules", dirs_exist_ok=True)
    return suite


def main():
    ap = argparse.ArgumentParser(description="The HTTP cache test suite against caches; see the top of this file")
    ap.add_argument("suite", nargs="?", default=os.environ.get("CACHE_TESTS"), help="checkout of http-tests/cache-tests")
    ap.add_argument("-p", "--proxies", help="names (default: all that are installed): " + ", ".join(PROXIES))
    ap.add_argument("-i", "--id", action="append", default=[], help="only this test, and show its messages")
    ap.add_argument("-v", "--verbose", action="store_true", help="list everything that did not pass")
    ap.add_argument("--get", metavar="DIR", help="get what is missing first, there")
    ap.add_argument("--chunk", type=int, default=75, help="tests at one time")
    ap.add_argument("--limit", type=float, default=300, help="seconds for a run")
    ap.add_argument("--passed", type=int, default=0, help="fewer required tests passed by warp: exit status 1")
    ap.add_argument("--failed", type=int, default=1000, help="more required tests failed by warp: exit status 1")
    ap.add_argument("--json", help="every result into this file")
    opt = ap.parse_args()
    if not shutil.which("node"):
        sys.exit("needs node")
    suite = get(opt.get, opt.suite) if opt.get else opt.suite
    suite = suite and os.path.abspath(suite)
    if not suite or not os.path.isfile(os.path.join(suite, "tests/index.mjs")):
        sys.exit("no suite at %r: name a checkout, or say --get DIR" % suite)
    names = opt.proxies.split(",") if opt.proxies else [n for n, (there, _) in PROXIES.items() if there()]

    rig, runs, errors, notes = Rig(suite), {}, [], {}

    def one(name, base):
        try:
            got, said = rig.run(base, opt.chunk, opt.id, opt.limit)
            runs[name] = Verdicts(got["facts"], got["results"])
            if opt.id:
                print("==== %s\n%s" % (name, said))
                for id in opt.id:
                    print("%s: %s" % (id, got["results"].get(id)))
        except Exception as e:
            errors.append("%s: %s" % (name, e))
    try:
        threads = []
        for n in names:
            base, notes[n] = rig.proxy(n)
            threads.append(threading.Thread(target=one, args=(n, base)))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        rig.close()
    for e in errors:
        print(e)
    if opt.id or errors:
        return 1 if errors else 0
    runs = {n: runs[n] for n in names}
    for n, v in runs.items():
        print("\n==== %s%s" % (n, notes[n] and " (%s)" % notes[n]))
        for line in v.list(KINDS if opt.verbose else ["required"], RESULTS[1:] if opt.verbose else ["fail"]):
            print(line)
    print()
    summary(runs)
    if opt.json:
        put(opt.json, json.dumps({n: {id: [v.facts[id]["kind"], r, v.results.get(id)] for id, r in v.of.items()}
                                  for n, v in runs.items()}, indent=1))
    if "warp" in runs:
        c = runs["warp"].count("required")
        return int(c["pass"] < opt.passed or c["fail"] > opt.failed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
