"""System tests: a real warp between small clients and backends.

    WARP=./warp-debug pytest tests/system     another binary (default: /warp of the tree)
    SLOW=3                                    factor on every deadline (4 by itself under a sanitizer)
    SAMPLE="5 files gzip"                     of long tables in these files every fifth row

Fixtures
  warp(conf, *args, env=, ready=, port=, dir=, preexec_fn=, pass_fds=) -> lib.Warp
      starts `warp -c FILE -n FD ARGS` in the test's own directory and returns once
      FD said it is ready (ready=False: at once). conf is a text or a dict
      (lib.conf makes one); None: no -c. In a text, and in args, @PORT@ and @DIR@
      are replaced; a text without listen/http_port in [server] gets
      listen = ["127.0.0.1:@PORT@"], one without [admin] gets listen = "off".
      .port .addr .dir .file .pid .stderr .stdout .children() .rss() .path(name)
      .ask(target, *header_lines, method=, host=, body=) -> lib.Message, one connection
      .client() -> lib.Client      .wait_stderr(regex)  .wait_stdout(regex)
      .write(conf) (then .signal(SIGHUP))   .signal(n)
      .stop(sig=SIGTERM, status=0)  .wait() -> exit status
      Every warp is stopped at the end of its test: exit status 0, nothing that
      holds its stderr left alive, no sanitizer report, or the test fails.
  backend(*scripts, name=, unix=, host=, port=) -> lib.Backend
      a threaded raw server. Connection i runs script i, later ones the last; a
      script is a list of bytes (sent) and steps (REQ, HEAD, BODY, CLOSE, FIN, RST,
      ECHO, WAIT(event), any callable(conn)). No script: ECHO, which answers
      'NAME METHOD TARGET BODYLENGTH'. unix=True: a socket in the test's directory.
      .requests .last .request(i) .conn(i) .conns[i].closed .conf .port
  check(text, *args) -> CompletedProcess
      runs `warp -t -c FILE ARGS`; (run: any arguments, to their end).
  run(*args, conf=None, env=None) -> CompletedProcess
      runs warp in the test's directory until it ends; conf: text of warp.toml there.
  syslog -> lib.Syslog: warps of this test have a /dev/log of their own. Read only by .wait(regex);
      .fill(): it takes nothing more until .drain(). Needs root and mount namespaces.
  everybodys_dir -> str, a directory for a warp of another user; lib.for_everybody(FILE)
      is a copy that such a one can run.
  blackhole -> lib.Blackhole, an address where connects hang.
  pki -> tls.Pki: authorities and certificates, made once a session when first asked for.
  https(*certs, conf=, server=, tls=, **kw) -> lib.Warp with an https listener besides (tls.site);
      .https its port, .tls(name=, ca=, ciphers=, ...) -> tls.Client (verifies with pki.root unless
      ca=None is said), .site(*certs, ...) the text for another configuration at the same port.
  tls_backend(*scripts, cert=, ca=, ...) -> tls.Backend
  node(*scripts, name=, unix=, ...) -> uwsgi.Node, a backend that reads uwsgi packets.
  router(cache=, more=, **options of [fastrouter]) -> uwsgi.Warp, or with the mark uwsgi.both a real
      uwsgi --fastrouter (uwsgi.Uwsgi) as well: what is so marked must be the same for both.
  instance(app, *args, at=, plugins=) -> uwsgi.Program, a real uWSGI instance.
A test that takes longer than its limit fails: @pytest.mark.limit(seconds), 20 by default.
What it shows of tests/promises.txt: @pytest.mark.promise("S2-63", ...); tests/promises reads it in the results.
"""
import collections
import os
import signal
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lib  # noqa: E402
import tls as tls_tools  # noqa: E402
import uwsgi as uwsgi_tools  # noqa: E402

LIMIT = 20
LONG = 8               # rows of a table of which a sample is taken: fewer are few
# Taken up first: who begins a file of minutes last waits for it alone.
FIRST = ("testssl", "tls", "supervisor2", "acme", "supervisor")


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): upper bound for the test, times SLOW")
    config.addinivalue_line("markers", "promise(number, ...): of tests/promises.txt, which the test shows")


def promised(items):
    """Each result says which promises its test shows."""
    with open(os.path.join(lib.ROOT, "tests", "promises.txt")) as f:
        known = {line.split()[0] for line in f}
    for i in items:
        numbers = [n for mark in i.iter_markers("promise") for n in mark.args]
        if not known.issuperset(numbers):
            raise pytest.UsageError("%s: no such promise: %s" % (i.nodeid, ", ".join(set(numbers) - known)))
        i.user_properties += [("promise", n) for n in numbers]


def pytest_sessionstart(session):
    if not os.access(lib.WARP, os.X_OK) and not session.config.option.collectonly:
        pytest.exit("no warp at %s (make, or set WARP)" % lib.WARP, 2)


def pytest_collection_modifyitems(config, items):
    """The files in their order; of SAMPLE's tables the rows it asks for (an odd step, as many come in pairs) and the last."""
    name = lambda i: i.path.stem[len("test_"):]
    items.sort(key=lambda i: FIRST.index(name(i)) if name(i) in FIRST else len(FIRST))
    promised(items)
    every, *files = os.environ.get("SAMPLE", "").split() or [1]
    tables = collections.defaultdict(list)
    for i in items:
        if name(i) in files and hasattr(i, "callspec"):
            tables[i.path, i.originalname].append(i)
    left = {i for rows in tables.values() if len(rows) > LONG for i in set(rows[:-1]) - set(rows[::int(every)])}
    if files: # a sanitizer has nothing to say of uWSGI's own router
        left |= {i for i in items if hasattr(i, "callspec") and i.callspec.params.get("router") == "uwsgi"}
    config.hook.pytest_deselected(items=list(left))
    items[:] = [i for i in items if i not in left]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    mark = item.get_closest_marker("limit")
    limit = (mark.args[0] if mark else LIMIT) * lib.SLOW

    def late(*_):
        raise AssertionError("longer than %g s" % limit)
    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what its warps wrote."""
    report = (yield).get_result()
    for w in getattr(item, "warps", ()):
        if report.failed and w.stderr:
            report.sections.append(("warp's stderr", w.stderr[-4000:]))


@pytest.fixture
def warp(request, tmp_path):
    started = request.node.warps = []

    def start(conf, *args, dir=None, **kw):
        if dir is None:
            dir = tmp_path / ("warp%d" % len(started))
            dir.mkdir()
        w = lib.Warp(conf, args, dir, **kw)
        started.append(w)
        return w
    yield start
    errors = []
    for w in started:
        try:
            w.stop()
        except AssertionError as e:
            errors.append(str(e))
            if w.proc.poll() is None:
                w.kill()
    assert not errors, "\n".join(errors)


@pytest.fixture
def syslog(tmp_path, monkeypatch):
    log = lib.Syslog(tmp_path)
    monkeypatch.setattr(lib, "WARP", log.program)
    yield log
    log.close()


@pytest.fixture
def everybodys_dir():
    """A directory that every user may enter and write, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="warp-test-", dir="/tmp") as d:
        os.chmod(d, 0o777)
        yield d


@pytest.fixture
def backend(tmp_path):
    made = []

    def make(*scripts, unix=None, **kw):
        if unix is True:
            unix = str(tmp_path / ("b%d.sock" % len(made)))
        b = lib.Backend(*scripts, unix=unix, **kw)
        made.append(b)
        return b
    yield make
    errors = []
    for b in made:
        try:
            b.close()
        except AssertionError as e:
            errors.append(str(e))
    assert not errors, errors


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return tls_tools.Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def https(warp, pki):
    def start(*certs, conf=None, server=None, tls=None, **kw):
        port = lib.free_port()
        site = lambda *c, **more: tls_tools.site(port, *c, **{"conf": conf, "server": server, "tls": tls, **more})
        w = warp(site(*certs), **kw)
        w.https, w.site = port, site

        def client(name="a.example", ca=pki.root, ctx=None, session=None, rcvbuf=None, **how):
            ctx = ctx or tls_tools.context(ca if name else None, **how)
            return tls_tools.Client(port, ctx, name, session, rcvbuf)
        w.tls = client
        return w
    return start


@pytest.fixture
def tls_backend(pki):
    made = []

    def make(*scripts, cert=None, **kw):
        b = tls_tools.Backend(*scripts, cert=cert or pki.cert("a.example"), **kw)
        made.append(b)
        return b
    yield make
    errors = []
    for b in made:
        try:
            b.close()
        except AssertionError as e:
            errors.append(str(e))
    assert not errors, errors


def closing(made):
    """Ends what a fixture made."""
    errors = []
    for b in made:
        try:
            b.close()
        except AssertionError as e:
            errors.append(str(e))
    assert not errors, errors


@pytest.fixture
def node(tmp_path):
    made = []

    def make(*scripts, unix=None, **kw):
        if unix is True:
            unix = str(tmp_path / ("n%d.sock" % len(made)))
        made.append(uwsgi_tools.Node(*scripts, unix=unix, **{"name": "n%d" % len(made), **kw}))
        return made[-1]
    yield make
    closing(made)


@pytest.fixture
def router(request, warp, tmp_path):
    real = []

    def make(cache=None, **options):
        how = {n: options.pop(n) for n in ("more", "up", "env") if n in options}
        if getattr(request, "param", "warp") == "warp":
            return uwsgi_tools.Warp(warp, options, cache, **how)
        dir = tmp_path / ("uwsgi%d" % len(real))
        dir.mkdir()
        real.append(uwsgi_tools.Uwsgi(dir, options, cache, **how))
        return real[-1]
    yield make
    for r in real:
        r.stop()


@pytest.fixture
def instance(tmp_path):
    made = []

    def make(app, *args, **kw):
        dir = tmp_path / ("instance%d" % len(made))
        dir.mkdir()
        made.append(uwsgi_tools.instance(dir, app, *args, **kw))
        return made[-1]
    yield make
    for p in made:
        p.stop()


@pytest.fixture
def run(tmp_path):
    def go(*args, conf=None, env=None, **kw):
        return lib.run_warp(*args, conf=conf and (str(tmp_path / "warp.toml"), conf), cwd=str(tmp_path), env=env, **kw)
    return go


@pytest.fixture
def check(run):
    return lambda text, *args, **kw: run("-t", "-c", "warp.toml", *args, conf=text, **kw)


@pytest.fixture
def blackhole():
    b = lib.Blackhole()
    yield b
    b.close()
