"""The dashboard in a real browser: headless Chromium, driven by chromedriver.

SHOTS=DIR keeps screenshots there: light and dark, wide and narrow."""
import http.server
import json
import os
import shutil
import threading
import urllib.parse

import pytest

from lib import TIMEOUT, Client, conf, eventually, free_port, toml_file

selenium = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [pytest.mark.limit(60), pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium")]
SHOTS = os.environ.get("SHOTS")
TOKEN = "t0ken"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    o = selenium.ChromeOptions()
    for a in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
              "--disable-background-networking", "--user-data-dir=%s" % tmp_path_factory.mktemp("chrome")):
        o.add_argument(a)
    o.binary_location = shutil.which("chromium")
    o.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    d = selenium.Chrome(service=Service(shutil.which("chromedriver")), options=o)
    d.set_page_load_timeout(30)
    yield d
    d.quit()


@pytest.fixture
def page(chrome):
    """The browser, emptied: nothing logged, nothing remembered."""
    chrome.get("data:,")
    chrome.get_log("browser")
    chrome.get_log("performance")
    yield chrome
    bad = [x["message"] for x in chrome.get_log("browser") if x["level"] == "SEVERE" and "401" not in x["message"]
           and "409" not in x["message"] and "REFUSED" not in x["message"]]
    assert not bad, "the page's script or its policy failed"


def text(d, what):
    if not d.find_elements(By.CSS_SELECTOR, what):
        return ""  # not loaded yet
    return d.find_element(By.CSS_SELECTOR, what).text


def live(d):
    eventually(lambda: text(d, "#link") == "live", "live", 3 * TIMEOUT)


def look(d, width, height, dark=False):
    d.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                      {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    d.execute_cdp_cmd("Emulation.setEmulatedMedia",
                      {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})


def shoot(d, name):
    if SHOTS:
        h = d.execute_script("return document.documentElement.scrollHeight")
        w = d.execute_script("return innerWidth")
        d.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                          {"width": w, "height": max(h, 740), "deviceScaleFactor": 1, "mobile": w < 600})
        d.save_screenshot(os.path.join(SHOTS, name + ".png"))


@pytest.fixture
def tcp(warp, backend):
    """A warp whose admin listens on TCP with a token, with a busy and a dead upstream."""
    port = free_port()
    w = warp(conf({"path_prefix": "/dead", "upstream": "dead"}, {"path_prefix": "/"},
                  app={"on": [backend(), backend()]}, dead={"host": "127.0.0.1", "port": free_port()},
                  server={"admin_token": "other"}, admin={"listen": ["127.0.0.1:%d" % port], "token": TOKEN, "expose": "/warp"}))
    w.page = "http://127.0.0.1:%d/" % port
    w.exposed = "http://127.0.0.1:%d/warp" % w.port
    for i in range(7):
        assert w.ask("/%d" % i).status == 200
    assert w.ask("/dead").status == 502
    return w


def unlock(d, url, token=TOKEN):
    d.get(url)
    eventually(lambda: d.find_element(By.ID, "ask").is_displayed(), "asks for the token", 3 * TIMEOUT)
    field = d.find_element(By.ID, "token")
    field.send_keys(token, Keys.ENTER)
    live(d)


def test_token_is_asked_for_once(page, tcp):
    page.get(tcp.page)
    eventually(lambda: "token" in text(page, "#why"), "why it asks", 3 * TIMEOUT)
    assert text(page, "#link") == "locked" and not page.find_element(By.ID, "main").is_displayed()
    page.find_element(By.ID, "token").send_keys("wrong", Keys.ENTER)
    eventually(lambda: page.execute_script("return sessionStorage.getItem('warp')") == "wrong")
    assert not page.find_element(By.ID, "main").is_displayed()
    page.find_element(By.ID, "token").send_keys(TOKEN, Keys.ENTER)
    live(page)
    page.refresh()
    live(page)
    assert not page.find_element(By.ID, "ask").is_displayed()


def test_shows_what_status_says(page, tcp):
    unlock(page, tcp.page)
    ups = text(page, "#ups")
    assert "app" in ups and "round_robin" in ups and "dead" in ups and "7 answers" not in ups
    assert "4 answers" in ups and "3 answers" in ups and "1 failed" in ups
    routes = text(page, "#routes")
    assert "path_prefix=/dead" in routes and "upstream app" in routes and "admin endpoints" in routes
    assert text(page, "#procs") == text(page, "#certs") == "none"
    assert len(page.find_elements(By.CSS_SELECTOR, "#workers .row")) == 1
    before = text(page, "#ups")
    for _ in range(4):
        tcp.ask("/more")
    eventually(lambda: "6 answers" in text(page, "#ups") or "5 answers" in text(page, "#ups"), "polls", 3 * TIMEOUT)
    assert before != text(page, "#ups")


def test_certificates(page, https, pki):
    """Each with its days left, in a colour that says whether to hurry; narrow as well."""
    port = free_port()
    w = https(pki.cert("a.example", "*.a.example"), pki.cert("soon.example", since=-20, days=30),
              pki.cert("old.example", key="rsa", since=-40, days=30),
              conf=conf({"respond": {"status": 200}}, admin={"listen": ["127.0.0.1:%d" % port], "token": TOKEN}))
    for width in (1280, 360):
        look(page, width, 740)
        if width == 1280:
            unlock(page, "http://127.0.0.1:%d/" % port)
        rows = page.find_elements(By.CSS_SELECTOR, "#certs .row")
        for row, names, state, days, key in zip(rows, ("a.example, *.a.example", "soon.example", "old.example"),
                                                ("up", "", "failed"), ("days left", "days left", "expired"),
                                                ("EC 256", "EC 256", "RSA 2048"), strict=True):
            said = row.find_element(By.CSS_SELECTOR, ".state")
            assert said.get_attribute("class").split()[1:] == state.split() and days in said.text
            assert names in row.text and key in row.text and "root authority" in row.text and "until 20" in row.text
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        shoot(page, "certificates-%d" % width)
    assert w.tls().ask().status == 200


def test_talks_to_warp_alone(page, tcp):
    unlock(page, tcp.page)
    asked = []
    for e in page.get_log("performance"):
        m = json.loads(e["message"])["message"]
        if m["method"] == "Network.requestWillBeSent":
            asked.append(m["params"]["request"]["url"])
    assert asked and all(u.startswith((tcp.page, "data:")) for u in asked), asked


def test_hostile_texts_stay_text(page, backend, warp):
    port = free_port()
    w = warp(conf({"path_prefix": "/<img src=x onerror=alert(1)>", "description": "</script><script>alert(2)</script>"},
                  {"path_prefix": "/"}, app=backend(), admin={"listen": ["127.0.0.1:%d" % port], "token": TOKEN}))
    unlock(page, "http://127.0.0.1:%d/" % port)
    assert "<img src=x" in text(page, "#routes") and "</script>" in text(page, "#routes")
    assert not page.find_elements(By.TAG_NAME, "img")
    assert w.ask("/").status == 200


def test_drain_and_enable_by_keyboard(page, tcp):
    unlock(page, tcp.page)
    b = page.find_element(By.CSS_SELECTOR, "#ups button[aria-label^='Drain app/']")
    for _ in range(30):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.switch_to.active_element == b:
            break
    assert page.switch_to.active_element == b, "reached by Tab"
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
    b.send_keys(Keys.ENTER)
    eventually(lambda: text(page, "#said").endswith(": ok"), "the result is said", 3 * TIMEOUT)
    eventually(lambda: "drained" in text(page, "#ups"), "drained", 3 * TIMEOUT)
    assert page.switch_to.active_element == b and b.text == "Enable", "focus stays"
    b.send_keys(Keys.SPACE)
    eventually(lambda: "drained" not in text(page, "#ups"), "enabled", 3 * TIMEOUT)


def test_exposed(page, tcp):
    """Below a path of the normal listener; its token is server.admin_token."""
    unlock(page, tcp.exposed, "other")
    assert page.current_url == tcp.exposed + "/" and "app" in text(page, "#ups")


def test_warp_that_went_is_said(page, tcp):
    unlock(page, tcp.page)
    tcp.stop()
    eventually(lambda: text(page, "#link").startswith("no answer"), "it is gone", 3 * TIMEOUT)
    assert page.find_element(By.ID, "main").is_displayed(), "the last that was known stays"


# ---- with processes, which a stand-in adds -------------------------------------------

PROCS = [
    {"name": "web.0", "process": "web", "upstream": "app", "state": "up", "why": "", "pid": 4711, "restarts": 0,
     "since_secs": 7261.2, "uptime_secs": 7261.2, "cpu_secs": 12.31, "rss_bytes": 84_213_760,
     "lines": ["INFO:     Started server process [4711]", "INFO:     Application startup complete."]},
    {"name": "web.1", "process": "web", "upstream": "app", "state": "starting", "why": "exited with status 1 after 3 s",
     "pid": 4790, "restarts": 3, "since_secs": 2.0, "uptime_secs": 2.0, "cpu_secs": 0.4, "rss_bytes": 21_000_000,
     "lines": ["Traceback (most recent call last):", '  File "app.py", line 3, in <module>', "    import flaskk",
               "ModuleNotFoundError: No module named 'flaskk' <b>" + "x" * 300]},
    {"name": "mailer", "process": "mailer", "upstream": None, "state": "backoff", "why": "killed by signal 9, again in 4 s",
     "pid": 0, "restarts": 12, "since_secs": 26.0, "uptime_secs": 0, "cpu_secs": None, "rss_bytes": None, "lines": []}]


class Between(http.server.BaseHTTPRequestHandler):
    """Passes everything on to the admin socket; adds processes to status, takes their verbs itself."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with Client(self.server.admin) as c:
            m = c.ask(self.path, "Accept: " + (self.headers["Accept"] or ""))
        body = m.body
        if self.path == "/status":
            s = m.json
            s["processes"] = PROCS
            body = json.dumps(s).encode()
        self.reply(m.status, m.get("content-type"), body, m.get("content-security-policy"))

    def do_POST(self):
        self.server.posted.append(urllib.parse.unquote(self.path))
        bad = self.path.startswith("/restart/mailer")
        self.reply(409 if bad else 200, "text/plain", b"mailer did not get ready: exited with status 1\n" if bad else b"ok\n")

    def reply(self, status, kind, body, policy=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def fleet(warp, backend):
    """A warp on a unix socket, and a stand-in before it that knows processes."""
    bad = {"host": "127.0.0.1", "port": free_port()}
    w = warp(toml_file(conf(
        {"host": "shop.example", "path_prefix": "/api/", "upstream": "api", "description": "the shop"},
        {"path_exact": "/old", "redirect": "https://{host}/new"}, {"path_prefix": "/", "upstream": "app"},
        app={"on": [backend(), backend()], "strategy": "round_robin", "hold_secs": 5},
        api={"on": [bad, backend(unix=True), bad | {"port": free_port()}], "max_fails": 1, "fail_timeout_secs": 60},
        server={"worker_threads": 2}, admin={"listen": ["@DIR@/admin.sock"]})))
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Between)
    s.admin, s.posted = w.path("admin.sock"), []
    threading.Thread(target=s.serve_forever, daemon=True).start()
    w.page, w.posted = "http://127.0.0.1:%d/" % s.server_address[1], s.posted
    for i in range(9):
        w.ask("/x%d" % i)
        w.ask("/api/%d" % i, host="shop.example")
    yield w
    s.shutdown()
    s.server_close()


def test_processes(page, fleet):
    look(page, 1280, 900)
    page.get(fleet.page)
    live(page)
    procs = text(page, "#procs")
    for want in ("web.0", "pid 4711", "for 2 h", "84.2 MB", "12.3 s cpu", "3 restarts", "exited with status 1 after 3 s",
                 "No module named 'flaskk' <b>", "backoff", "of upstream app"):
        assert want in procs, want
    assert len(page.find_elements(By.CSS_SELECTOR, "#procs .card")) == 2, "replicas stand together"
    page.find_element(By.CSS_SELECTOR, "button[aria-label='Restart web']").send_keys(Keys.ENTER)
    eventually(lambda: text(page, "#said") == "Restart web: ok", "said", 3 * TIMEOUT)
    page.find_element(By.CSS_SELECTOR, "button[aria-label='Restart mailer']").send_keys(Keys.ENTER)
    eventually(lambda: "did not get ready" in text(page, "#said"), "what is wrong is said", 3 * TIMEOUT)
    stop = page.find_element(By.CSS_SELECTOR, "button[aria-label='Stop web']")
    stop.send_keys(Keys.ENTER)
    page.switch_to.alert.dismiss()
    stop.send_keys(Keys.ENTER)
    page.switch_to.alert.accept()
    eventually(lambda: fleet.posted == ["/restart/web", "/restart/mailer", "/stop/web"], "asked once, not when dismissed")
    page.find_element(By.CSS_SELECTOR, "#ups button[aria-label*='unix:']").send_keys(Keys.ENTER)
    eventually(lambda: fleet.posted[-1] == "/drain/api/1", "by its place")


@pytest.mark.limit(240)
@pytest.mark.parametrize("width, height", [(1280, 900), (768, 1000), (360, 740)])
def test_fits(page, fleet, width, height):
    """Nothing wider than the window; readable in both colour schemes."""
    for dark in (False, True) if SHOTS else (width == 768,):
        look(page, width, height, dark)
        page.get(fleet.page)
        live(page)
        for k in range(12 if SHOTS else 1):  # some history for the plots
            n = text(page, "#tiles")
            for i in range(1 + 7 * k * k % 17):
                fleet.ask("/%d" % i)
            eventually(lambda: text(page, "#tiles") != n, "the next poll", 3 * TIMEOUT)
        wide = page.execute_script("""return [document.documentElement.scrollWidth, innerWidth,
            [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
            && !e.closest('pre')).map(e => e.outerHTML.slice(0, 80))]""")
        shoot(page, "%d-%s" % (width, "dark" if dark else "light"))
        assert wide[0] <= wide[1] == width and not wide[2], wide
