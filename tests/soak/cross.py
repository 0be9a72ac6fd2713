#!/usr/bin/python3
"""The binaries of `make cross`, and warp itself, at work under qemu-user: cross.py [-s] [ARCH...]

Each serves the system tests below, topic by topic, and a table says how big it is and what came of them; exit status 1
if one failed; all that pytest said is in build/cross/ARCH.log. -s: the first test of each topic alone, by what
`contrib/cross -c` left in build/cross (tests/run).
QEMU is slow, so deadlines are eight times what they are. What the kernel would not start by itself it learns in a user
namespace of their own: nothing is registered on this machine. make soak-cross calls it; needs qemu-user-static.
"""
import collections
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOPICS = {                                                 # tests by file; the first stands for its topic
    "routes": "routing::test_target routing::test_selection routing::test_redirect routing::test_respond",
    "limits": "balance::test_cookie balance::test_hash auth_limits::test_basic_auth auth_limits::test_rate_limit "
              "auth_limits::test_max_body_bytes",
    "ws": "streaming::test_tunnel streaming::test_tunnel_early_data",
    "TLS in": "tls::test_suites tls::test_sni tls::test_keys tls::test_resumption_at_any_worker tls::test_client_certificate",
    "TLS out": "tls_upstream::test_verified tls_upstream::test_failure tls_upstream::test_websocket",
    "files": "files::test_ranges files::test_get files::test_conditions files::test_beyond_4_gb",
    "gzip": "gzip::test_compressed gzip::test_as_small_as_zlib gzip::test_byte_for_byte",
    "cache": "cache::test_purge_reaches_all_workers_at_once cache::test_freshness cache::test_200_misses_are_one_fetch",
    "uwsgi": "uwsgi::test_the_vars_of_a_request uwsgi::test_answers fastcgi::test_records fastcgi::test_bodies "
             "uwsgi::test_websocket_vars_and_bytes",
    "router": "subscriptions::test_signed_subscriptions fastrouter::test_a_packet_goes_through_byte_for_byte "
              "fastrouter::test_the_largest_block subscriptions::test_weights subscriptions::test_statistics",
    "super": "supervisor::test_replicas supervisor::test_restart supervisor::test_start_on_request "
             "supervisor::test_stop_signal supervisor::test_blue_and_green",
    "admin": "admin::test_status_of_an_instance admin::test_status_tables admin::test_metrics_of_the_fleet",
    "reload": "process::test_reload_lets_answers_finish process::test_no_request_fails_during_reloads",
    "USR2": "process::test_upgrade process::test_upgrade_lets_answers_finish process::test_upgrade_refused "
            "supervisor::test_upgrade",
}
SAMPLE = ("s390x",)                                        # big-endian
INSIDE = """
echo; read -r mapped
exec unshare -m -p -f --kill-child --mount-proc sh -c '
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && mount -t tmpfs none /run || exit 9
for rule in /usr/lib/binfmt.d/qemu-*.conf; do cat "$rule" >/proc/sys/fs/binfmt_misc/register || exit 9; done
printf %s "$I386" >/proc/sys/fs/binfmt_misc/register || exit 9
exec "$@" </dev/null' sh "$@"
"""
# Debian leaves it to the kernel, which may have been built without.
I386 = r":qemu-i386:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x03\x00::/usr/bin/qemu-i386-static:F"


def with_qemu(cmd, env):
    """Runs cmd where the kernel starts foreign programs by QEMU, and ends what it left: exit status and output."""
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        p = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "-U", "sh", "-c", INSIDE, "sh", *cmd], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, cwd=ROOT, env=dict(env, I386=I386))
        p.stdout.readline()
        for which in ("uid", "gid"):
            with open("/proc/%d/%s_map" % (p.pid, which), "w") as f:
                f.write("0 0 65536")
        said = p.communicate("mapped\n")[0]
        out.seek(0)
        return p.returncode, said + out.read()


def serve(binary, first):
    """What this binary does of the tests: {topic: [passed, failed]}, and their output."""
    topic_of, asked, sample = {}, [], "15"
    for topic, words in TOPICS.items():
        for word in words.split()[:1 if first else None]:
            name, _, test = word.partition("::")
            topic_of["tests.system.test_" + name, test] = topic
            sample += " " + name
            asked.append("tests/system/test_%s.py::%s" % (name, test))
    with tempfile.NamedTemporaryFile(suffix=".xml") as result:
        _, text = with_qemu([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--durations=12",
                             "-n", "3", "--dist", "loadfile", "--junitxml", result.name, *asked],
                            dict(os.environ, WARP=binary, SLOW="8", SAMPLE=sample if first else "", PYTHONDONTWRITEBYTECODE="1"))
        counts = collections.defaultdict(lambda: [0, 0])
        try:
            cases = list(ET.parse(result.name).iter("testcase"))
        except ET.ParseError:
            cases = []
    for case in cases:
        topic = topic_of[case.get("classname"), case.get("name").partition("[")[0]]
        bad = case.find("failure") is not None or case.find("error") is not None
        if case.find("skipped") is None:
            counts[topic][bad] += 1
    return counts, text


def binaries(first, archs):
    """[(arch, path)]"""
    if first:
        return [(a, os.path.join(ROOT, "build", "cross", "warp." + a)) for a in archs or SAMPLE]
    there = sorted(f[11:] for f in os.listdir(ROOT) if f.startswith("warp-cross."))
    return ([] if archs else [("x86_64", os.path.join(ROOT, "warp"))]) + [
        (a, os.path.join(ROOT, "warp-cross." + a)) for a in archs or there]


def main():
    first = sys.argv[1:2] == ["-s"]
    todo, bad = binaries(first, sys.argv[1 + first:]), []
    print("%-9s %5s %5s " % ("", "KB", ".xz") + " ".join("%7s" % t for t in TOPICS) + "     s", flush=True)
    for arch, path in todo:
        started = time.monotonic()
        xz = len(subprocess.run(["xz", "-9ec", path], capture_output=True, check=True).stdout)
        counts, text = serve(path, first)
        cells = [("%d" % p if p and not f else "%d/%d" % (p, p + f)) for p, f in (counts[t] for t in TOPICS)]
        print("%-9s %5d %5d " % (arch, os.path.getsize(path) // 1024, xz // 1024) + " ".join("%7s" % c for c in cells)
              + "  %4d" % (time.monotonic() - started), flush=True)
        with open(os.path.join(ROOT, "build", "cross", arch + ".log"), "w") as f:
            f.write(text)
        if any("/" in c for c in cells):
            bad.append("%s:\n%s" % (arch, text))
    print("\n".join(bad), end="")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
