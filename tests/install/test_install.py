"""What comes of make install, dist and deb; contrib's init scripts under the programs they are for; the completions.
What needs a host for itself gets a copy of this one, which is gone when it ends: see host."""
import glob
import os
import re
import shutil
import subprocess
import tarfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WARP = os.path.join(ROOT, "warp")
VERSION = re.search(r'#define VERSION "(.*)"', open(os.path.join(ROOT, "config.def.h")).read())[1]
LIMIT = 240

# The host's own files below what is changed, its own processes, users and loopback; / of it is $r, our tree /src there.
HOST = r"""set -e
mount -t tmpfs none "$1"; cd "$1"; mkdir up work r
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work r
mkdir -p r/src && mount --bind "$2" r/src
for d in dev run tmp; do mount -t tmpfs none r/$d; done; mount -t proc none r/proc; ln -s /proc/self/fd r/dev/fd
for f in null zero full random urandom; do touch r/dev/$f; mount --bind /dev/$f r/dev/$f; done
python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP'
exec chroot r /bin/sh -ec "$3"
"""
# says WORD...: waits until GET / has this answer, of ten seconds.
SAYS = r"""says() {
	n=0
	while ! curl -s http://127.0.0.1:80/ | grep -q "$*"; do
		n=$((n + 1)); [ $n -lt 200 ] || { echo "never said: $*"; exit 1; }
		sleep 0.05
	done
}
conf() { printf '[server]\nhttp_port = 80\n[[routes]]\nrespond = { status = 200, body = "%s" }\n' "$1" >/etc/warp.toml; }
fails() { if "$@" >/dev/null 2>&1; then echo "should fail: $*"; exit 1; fi; }
gone() { fails curl -s http://127.0.0.1:80/; }
cp /src/warp /usr/bin/warp; conf one
"""


def host(tmp_path, script):
    """Runs this in a host of its own, as root there: what it says."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("needs root and mount namespaces, which a chroot has not")
    p = subprocess.run(["unshare", "-m", "-p", "-f", "-n", "-i", "-u", "--kill-child", "sh", "-c", HOST, "sh", str(tmp_path), ROOT,
                        script], capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
    assert p.returncode == 0, p.stdout + p.stderr
    return p.stdout


def make(*words):
    p = subprocess.run(["make", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert p.returncode == 0, p.stdout + p.stderr
    return p.stdout


def files_of(dir):
    return {os.path.relpath(os.path.join(d, f), dir): oct(os.stat(os.path.join(d, f)).st_mode & 0o777)[2:]
            for d, _, names in os.walk(dir) for f in names}


# ---- make -----------------------------------------------------------------------

def test_make_install(tmp_path):
    make("install", "DESTDIR=%s" % tmp_path, "PREFIX=/usr")
    assert files_of(tmp_path) == {
        "usr/bin/warp": "755", "usr/share/man/man1/warp.1": "644", "usr/share/man/man5/warp.toml.5": "644",
        "usr/share/bash-completion/completions/warp": "644", "usr/share/zsh/site-functions/_warp": "644"}
    out = subprocess.run([str(tmp_path / "usr/bin/warp"), "-V"], capture_output=True, text=True).stdout
    assert out.startswith("warp %s\n" % VERSION)


def test_make_dist(tmp_path):
    """All that is needed to build is in it, and it says what would be built."""
    make("dist")
    with tarfile.open(os.path.join(ROOT, "warp-%s.tar.gz" % VERSION)) as t:
        t.extractall(tmp_path)
    top = tmp_path / ("warp-" + VERSION)
    assert {"Makefile", "README", "LICENSE", "warp.c", "warp.h", "config.def.h", "man", "contrib", "tests"} <= set(os.listdir(top))
    p = subprocess.run(["make", "-n", "warp"], cwd=top, capture_output=True, text=True)
    assert p.returncode == 0 and "warp.c" in p.stdout, p.stderr


def test_make_deb(tmp_path):
    """Installed, upgraded, purged: the configuration is the operator's, and secret; the user is made."""
    make("deb")
    out = host(tmp_path, SAYS + r"""
rm /etc/warp.toml /usr/bin/warp
apt() { dpkg --no-triggers --force-unsafe-io "$@" >/dev/null; }
apt -i /src/warp_*.deb
stat -c '%a %U:%G' /etc/warp.toml
getent passwd warp | cut -d: -f6,7
stat -c '%a %U' /var/lib/warp
warp -t -c /etc/warp.toml 2>&1 | grep -c 'listen :80'
mkdir /run/warp; warp -c /etc/warp.toml -d -p /run/warp.pid   # systemd makes the directory
says 'its configuration is /etc/warp.toml'
warp -s status | grep -c WORKER
ps -o user= -C warp | sort | uniq -c | tr -s ' '
echo '# mine' >>/etc/warp.toml
apt -i /src/warp_*.deb
tail -1 /etc/warp.toml
apt -P warp; fails ls /usr/bin/warp; fails ls -d /etc/warp.toml; fails ls -d /var/lib/warp; fails ls -d /var/log/warp
""")
    lines = out.split("\n")
    assert lines[:5] == ["640 root:warp", "/var/lib/warp:/usr/sbin/nologin", "750 warp", "1", "1"], out
    assert "# mine" in lines, out


def test_deb_with_systemd(tmp_path):
    """What the package's scripts ask of a systemctl as old as Debian 11's: started, upgraded in place, and started again
    when it comes back after a removal; masked, it stays as it is."""
    out = host(tmp_path, r"""
mkdir -p /run/systemd/system /s; cp /src/contrib/debian/p* /s
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
[ "$1" = -q ] && shift || [ "$*" = "--system daemon-reload" ] || [ "$1" = show ] || echo "$@"
case $1 in
is-active) [ -e /s/active ] ;;
is-enabled) [ -e /s/enabled ] ;;
show) [ "$*" = "show -p MainPID --value warp.service" ] && cat /s/pid ;;
enable) [ ! -e /s/masked ] && : >/s/enabled ;;
start) : >/s/active ;;
stop) rm -f /s/active ;;
--system | disable) ;;
*) exit 1 ;;
esac
END
sh -c 'trap "echo told; exit" USR2; echo $$ >/s/pid; while :; do sleep 0.05; done' & master=$!
until [ -s /s/pid ]; do sleep 0.05; done
/s/postinst configure
/s/prerm upgrade 0.2; /s/postinst configure 0.1; wait $master
echo removed; /s/prerm remove; /s/postrm remove
echo back; /s/postinst configure 0.1
rm -f /s/active /s/enabled; : >/s/masked
echo masked; /s/postinst configure
""")
    assert out.split("\n")[:-1] == ["enable warp.service", "start warp.service", "told", "removed", "stop warp.service",
                                    "back", "start warp.service", "masked", "enable warp.service"], out


# ---- scripts --------------------------------------------------------------------

def test_shellcheck():
    scripts = [f for f in glob.glob(ROOT + "/contrib/**/*", recursive=True) + glob.glob(ROOT + "/tests/packages/*") + [ROOT + "/.ci/run"]
               if os.path.isfile(f) and re.match(rb"#!/(bin/sh|sbin/openrc-run)\b", open(f, "rb").read(32))]
    assert len(scripts) > 12
    # ulimit -n is everywhere; words are meant to split; variables of rc.common and openrc-run
    p = subprocess.run(["shellcheck", "-s", "sh", "-S", "warning", "-e", "SC3045,SC2034", *scripts], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout
    p = subprocess.run(["shellcheck", "-s", "bash", ROOT + "/contrib/completion/warp.bash"], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout


def test_systemd(tmp_path):
    """The unit is right, and its exposure below 2."""
    for name in ("warp.service", "warp.socket"):
        text = open(os.path.join(ROOT, "contrib/init", name)).read()
        (tmp_path / name).write_text(text.replace("/usr/local/bin/warp", WARP))
        p = subprocess.run(["systemd-analyze", "verify", "--man=no", tmp_path / name], capture_output=True, text=True)
        assert p.returncode == 0 and not p.stderr, p.stderr
    p = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=19", "--no-pager", tmp_path / "warp.service"],
                       capture_output=True, text=True)
    assert p.returncode == 0, p.stdout


def group(*names):
    """The system calls that systemd means by names, as @file-system."""
    words = [w for n in names for w in (subprocess.run(["systemd-analyze", "syscall-filter", n], capture_output=True, text=True).stdout
                                        .split("\n", 2)[2].split() if n[0] == "@" else [n])]
    return group(*words) if any(w[0] == "@" for w in words) else set(words)


def test_systemd_calls():
    """The unit leaves to warp what it then takes from its workers itself, and how it does so."""
    left = set()
    for filter in re.findall(r"(?m)^SystemCallFilter=(.*)", open(ROOT + "/contrib/init/warp.service").read()):
        left = left - group(*filter[1:].split()) if filter[0] == "~" else left | group(*filter.split())
    wants = set(re.findall(r"\bCALL\((\w+)\)", open(ROOT + "/warp.c").read())) & group("@known")
    wants |= {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    assert len(wants) > 60 and not wants - left


def test_runit(tmp_path):
    host(tmp_path, SAYS + r"""
mkdir -p /srv/sv; cp -r /src/contrib/init/runit /srv/sv/warp
runsvdir /srv/sv & says one
conf two; sv hup /srv/sv/warp; says two
old=$(cat /srv/sv/warp/supervise/pid); sv 2 /srv/sv/warp; says two
[ "$old" = "$(cat /srv/sv/warp/supervise/pid)" ]
kill -9 "$old"; says two                               # started again
sv -w 10 down /srv/sv/warp; gone
echo '[nope]' >/etc/warp.toml; sv up /srv/sv/warp      # wrong, and stays so
until sv status /srv/sv/warp | grep -q '^down'; do sleep 0.1; done
""")


def test_s6(tmp_path):
    host(tmp_path, SAYS + r"""
mkdir -p /srv/sv; cp -r /src/contrib/init/s6 /srv/sv/warp
s6-svscan /srv/sv & until s6-svok /srv/sv/warp 2>/dev/null; do sleep 0.05; done
s6-svwait -U -t 10000 /srv/sv/warp; says one           # it said that it was ready
conf two; s6-svc -h /srv/sv/warp; says two
s6-svc -wd -T 10000 -d /srv/sv/warp; gone
echo '[nope]' >/etc/warp.toml; s6-svc -u /srv/sv/warp   # wrong, and stays so
until [ "$(s6-svstat -o up,wantedup,exitcode /srv/sv/warp)" = "false false 1" ]; do sleep 0.1; done
""")


def test_openrc(tmp_path):
    host(tmp_path, SAYS + r"""
for d in starting started stopping inactive wasinactive failed hotplugged daemons options exclusive scheduled init.d tmp; do
	mkdir -p /run/openrc/$d
done; touch /run/openrc/softlevel
cp /src/contrib/init/warp.openrc /etc/init.d/warp
run() { rc-service --nodeps warp "$@"; }
run start; says one; run status
conf two; run reload; says two
echo '[nope]' >/etc/warp.toml; fails run reload; says two  # a wrong one is refused
conf three; pid=$(cat /run/warp.pid); run upgrade; says three; [ "$pid" = "$(cat /run/warp.pid)" ]
run reopen; run restart; says three
run stop; gone; fails run status
echo '[nope]' >/etc/warp.toml; fails run start
""")


def test_sysv(tmp_path):
    host(tmp_path, SAYS + r"""
sed 's,/usr/local/,/usr/,' /src/contrib/init/warp.sysv >/etc/init.d/warp; chmod 755 /etc/init.d/warp
run() { /etc/init.d/warp "$@"; }
run start; says one; run status
conf two; run reload; says two
echo '[nope]' >/etc/warp.toml; fails run reload; says two
conf three; run upgrade; says three; run restart; says three
mv /usr/bin/warp /usr/bin/warp-1; ln -s warp-1 /usr/bin/warp
sed -i 's/^http/user = "nosuchuser"\n&/' /etc/warp.toml; run upgrade  # fails: the binary before goes on, by another name
n=0; while [ $n -lt 50 ] && grep -qx warp /proc/$(cat /run/warp.pid)/comm; do n=$((n + 1)); sleep 0.1; done
conf three; run status; says three
run stop; gone; fails run status
mkdir /srv/bin; ln -s $(ls -d /usr/bin/* | grep -v flock) /srv/bin; PATH=/srv/bin
echo $$ >/run/warp.pid; fails run status; run start; says three; run status  # of before a crash, and no flock
run stop; gone; fails run status
""")


def test_procd(tmp_path):
    """rc.common is OpenWrt's; what it would be told."""
    p = subprocess.run(["sh", "-ec", r"""procd_open_instance() { echo open; }; procd_close_instance() { echo close; }
procd_set_param() { echo "$@"; }; procd_send_signal() { echo "signal $*"; }
. "$1"; PROG=$2 CONF=$3; start_service; reload_service; echo '[nope]' >"$3"
if start_service || reload_service; then exit 1; fi""",
                        "sh", ROOT + "/contrib/init/warp.procd", WARP, tmp_path / "w.toml"], capture_output=True, text=True,
                       input=(tmp_path / "w.toml").write_text("[[routes]]\nrespond = { status = 200 }\n") and "")
    assert p.returncode == 0, p.stdout + p.stderr
    lines = p.stdout.split("\n")
    assert lines[0] == "open" and "command %s -c %s" % (WARP, tmp_path / "w.toml") in lines and "signal warp * HUP" in lines
    assert lines.count("close") == 1, "a wrong configuration starts nothing"


# ---- other packages -------------------------------------------------------------

def test_openwrt(tmp_path):
    """The feed's makefile, without what OpenWrt would add."""
    (tmp_path / "rules.mk").write_text("")
    (tmp_path / "package.mk").write_text("PKG_BUILD_DIR = %s/build\nCP = cp -r\nTAR = true\n" % tmp_path)
    args = ["make", "-s", "-f", ROOT + "/contrib/openwrt/warp/Makefile", "--eval", "prepare: ; $(Build/Prepare)",
            "--eval", "show: ; @echo $(PKG_NAME) $(PKG_VERSION)",
            "TOPDIR=%s" % tmp_path, "INCLUDE_DIR=%s" % tmp_path, "DL_DIR=/nowhere"]
    assert subprocess.run([*args, "show"], capture_output=True, text=True).stdout == "warp %s\n" % VERSION
    p = subprocess.run([*args, "prepare"], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    assert '"/var/run/warp.sock"' in (tmp_path / "build/config.h").read_text()


def test_alpine(tmp_path):
    """Its version is ours, and package() puts everything in its place."""
    shutil.copytree(ROOT + "/contrib/alpine", tmp_path / "alpine")
    p = subprocess.run(["sh", "-ec", '. "$1"; echo $pkgver; cd "$2"; package >/dev/null', "sh", "./APKBUILD", ROOT],
                       cwd=tmp_path / "alpine", env=dict(os.environ, pkgdir=str(tmp_path / "pkg")), capture_output=True, text=True)
    assert p.stdout == VERSION + "\n", p.stderr
    assert {"usr/bin/warp": "755", "etc/init.d/warp": "755", "etc/warp.toml": "640"}.items() <= files_of(tmp_path / "pkg").items()


# ---- completions ----------------------------------------------------------------

COMPLETED = [
    ("-", ["-c", "-t", "-T", "-e", "-s", "-D"]), ("-s re", ["reload", "restart"]), ("-D server.us", ["server.user"]),
    ("-D cache.size", ["cache.size_bytes"]), ("-s restart w", ["web.0"]), ("-s drain a", ["app/127.0.0.1:3000"]),
]
STATUS = """#!/bin/sh
case $1 in
-s) printf 'UPSTREAM INSTANCE STANDING\\napp 127.0.0.1:3000 up\\n\\nPROCESS STATE\\nweb.0 up\\n\\nROUTE LINE\\nweird x\\n' ;;
*) exec "%s" "$@" ;;
esac
""" % WARP


@pytest.fixture
def path(tmp_path):
    (tmp_path / "warp").write_text(STATUS)
    (tmp_path / "warp").chmod(0o755)
    return dict(os.environ, PATH="%s:%s" % (tmp_path, os.environ["PATH"]))


@pytest.mark.parametrize("line, want", COMPLETED)
def test_bash_completion(path, line, want):
    words = ["warp", *line.split()]
    p = subprocess.run(["bash", "-c", '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _warp; printf "%s\\n" "${COMPREPLY[@]}"',
                        "bash", ROOT + "/contrib/completion/warp.bash", *words], capture_output=True, text=True, env=path)
    got = p.stdout.split()
    assert not p.stderr and set(want) <= set(got) and all(w.startswith(words[-1]) for w in got), (got, p.stderr)


@pytest.mark.parametrize("line, want", COMPLETED)
def test_zsh_completion(path, tmp_path, line, want):
    """As typed at a terminal: TAB at the end of the line."""
    script = r"""zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1=; fpath=(%s $fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=0; zstyle ":completion:*" list-prompt ""; setopt no_beep; echo re""ady'
while zpty -r z got; do [[ $got == *ready* ]] && break; done
zpty -n -w z "warp %s"$'\t\t'
zpty -r -m z got '*%s*'; print -r -- "$got"   # with more to read, zsh would show no list
zpty -n -w z $'\C-U'; zpty -w z 'echo do""ne'
while zpty -r z got; do print -r -- "$got"; [[ $got == *done* ]] && break; done
zpty -d z
""" % (ROOT + "/contrib/completion", line, want[0])
    p = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, env=dict(path, TERM="dumb"), timeout=30)
    assert all(w in p.stdout for w in want), (p.stdout, p.stderr)
