"""An ACME server to test against: a real pebble, and the DNS that it asks.

    with acme.Pebble(tmp_path, http_port=..., tls_port=...) as ca:
        ca.url      of its directory           ca.ca_file  who signed its own certificate
        ca.log      what it wrote so far       ca.count(regex)  of lines in it
        ca.root()   PEM of whom it signs with  ca.stop(), ca.start()
        ca.dns.missing.add("b.example")        that name does not exist from now on

    with acme.Front(ca) as front:              another directory, of the same CA: front.url
        front.directory["newOrder"] = front.place("/order")
        front.answers["/order"] = (429, {"Retry-After": "9"}, {"type": ...})    or bytes: all that is sent
        front.asked                            [(method, path, payload of the JWS or None)]
"""
import base64
import http.server
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import urllib.request

import lib

MISSING = 3  # NXDOMAIN


class Dns:
    """Answers every name with 127.0.0.1, those in `missing` with NXDOMAIN."""

    def __init__(self):
        self.missing, self.asked = set(), []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.addr = "127.0.0.1:%d" % self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                query, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            if len(query) < 17:
                return
            self.sock.sendto(self._answer(query), peer)

    def _answer(self, q):
        labels, at = [], 12
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode().lower())
            at += 1 + q[at]
        kind = struct.unpack("!H", q[at + 1:at + 3])[0]
        question, name = q[12:at + 5], ".".join(labels)
        self.asked.append(name)
        code = MISSING if name in self.missing else 0
        answer = b""
        if kind == 1 and not code:
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton("127.0.0.1")
        return q[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, bool(answer), 0, 0) + question + answer

    def close(self):
        self.sock.sendto(b"", self.sock.getsockname())  # a short one ends the thread
        self.thread.join(lib.TIMEOUT)
        self.sock.close()


class Pebble:
    """A running pebble. validity: seconds that its certificates last. env: its switches (PEBBLE_...),
    which by default neither sleep nor refuse nonces. eab: {kid: base64url of the key}."""

    def __init__(self, dir, http_port, tls_port=1, validity=7776000, env=None, eab=None, start=True):
        self.dir = os.path.join(str(dir), "pebble")
        os.makedirs(self.dir)
        self.port, self.management = lib.free_port(), lib.free_port()
        self.url = "https://127.0.0.1:%d/dir" % self.port
        self.ca_file = os.path.join(self.dir, "ca.pem")
        self.dns, self.log, self.proc = Dns(), "", None
        self.env = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0", **(env or {})}
        self._certificate()
        conf = {"listenAddress": "127.0.0.1:%d" % self.port, "managementListenAddress": "127.0.0.1:%d" % self.management,
                "certificate": self.ca_file, "privateKey": os.path.join(self.dir, "key.pem"),
                "httpPort": http_port, "tlsPort": tls_port, "certificateValidityPeriod": validity,
                "ocspResponderURL": "", "externalAccountBindingRequired": bool(eab)}
        if eab:
            conf["externalAccountMACKeys"] = eab
        with open(os.path.join(self.dir, "conf.json"), "w") as f:
            json.dump({"pebble": conf}, f)
        if start:
            self.start()

    def _certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", os.path.join(self.dir, "key.pem"), "-out", self.ca_file, "-days", "2",
                        "-subj", "/CN=pebble", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:127.0.0.1"],
                       check=True, capture_output=True)

    def start(self):
        self.proc = subprocess.Popen(["pebble", "-config", "conf.json", "-dnsserver", self.dns.addr], cwd=self.dir,
                                     env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self._read, args=(self.proc,), daemon=True)
        self.reader.start()
        lib.eventually(self._is_up, "pebble answers", 3 * lib.TIMEOUT)

    def _read(self, proc):
        for line in iter(proc.stdout.readline, b""):
            self.log += line.decode("utf-8", "replace")

    def _is_up(self):
        assert self.proc.poll() is None, "pebble ended:\n" + self.log
        try:
            socket.create_connection(("127.0.0.1", self.management), 1).close()
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def count(self, pattern):
        return len(re.findall(pattern, self.log))

    def orders(self):
        return self.count("POST /order-plz")

    def root(self):
        """Whom it signs with, as text. New at each start."""
        with urllib.request.urlopen("https://127.0.0.1:%d/roots/0" % self.management, timeout=lib.TIMEOUT,
                                    context=ssl.create_default_context(cafile=self.ca_file)) as f:
            return f.read().decode()

    def stop(self):
        if self.proc:
            self.proc.kill()
            self.proc.wait()
            self.reader.join(lib.TIMEOUT)
            self.proc.stdout.close()
            self.proc = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.dns.close()


def served(port, name, root=None, timeout=None):
    """The certificate (a dict as ssl gives it) that name is served with at port; verified against root, a PEM text.
    None: there is none that root vouches for."""
    context = ssl.create_default_context(cadata=root)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout or lib.TIMEOUT) as s, \
                context.wrap_socket(s, server_hostname=name) as t:
            return t.getpeercert()
    except ssl.SSLCertVerificationError:
        return None


def names(cert):
    return sorted(v for k, v in cert["subjectAltName"] if k == "DNS")


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def b64url_decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Front:
    """A directory of its own before a Pebble: what it names leads to pebble, or here. It is sent in chunks, with an
    interim answer before it and a trailer behind."""

    def __init__(self, ca):
        self.ca, self.asked, self.answers, front = ca, [], {}, self
        self.trust = ssl.create_default_context(cafile=ca.ca_file)
        self._directory = None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = lib.TIMEOUT

            def do_GET(self):
                front._answer(self)
            do_POST = do_HEAD = do_GET

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca.ca_file, os.path.join(ca.dir, "key.pem"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = self.place("/dir")
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def place(self, path):
        return "https://127.0.0.1:%d%s" % (self.server.server_address[1], path)

    @property
    def directory(self):
        if not self._directory:
            with urllib.request.urlopen(self.ca.url, context=self.trust, timeout=lib.TIMEOUT) as f:
                self._directory = json.load(f)
        return self._directory

    def _answer(self, h):
        body = h.rfile.read(int(h.headers.get("Content-Length", 0)))
        payload = json.loads(b64url_decode(json.loads(body)["payload"]) or b"null") if body else None
        self.asked.append((h.command, h.path, payload))
        found = self.answers.get(h.path, self.answers.get(os.path.dirname(h.path)))
        if found is None and h.path == "/dir":
            text = json.dumps(self.directory).encode()
            found = (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n%s" %
                     lib.chunks(text[:7], text[7:50], text[50:], trailers=["X-Trailer: yes"]))
        if isinstance(found, bytes):
            h.wfile.write(found)
            h.close_connection = not found.startswith(b"HTTP/1.1 103")
            return
        status, fields, text = found or (404, {}, {"type": "about:blank", "detail": "nothing here"})
        text = json.dumps(text).encode()
        h.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **fields}.items():
            h.send_header(name, value)
        h.end_headers()
        h.wfile.write(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join(lib.TIMEOUT)
        self.server.server_close()
