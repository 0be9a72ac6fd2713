#!/usr/bin/python3
"""Servers for test_load_balance.sh and test_websocket_proxy.sh, and a WebSocket client.

    test_backend.py PORT...                  each answers with its port, and echoes over WebSocket
    test_backend.py talk PORT PATH HOST N    says hello over N WebSockets through a proxy, prints what came back

GET /hold is answered when somebody asks the same server for /release; /held says how many wait."""
import base64
import hashlib
import http.server
import os
import socket
import socketserver
import struct
import sys
import threading

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"     # RFC 6455 1.3


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()


def exactly(f, n):
    data = f.read(n)
    if len(data) < n:
        raise EOFError
    return data


def frame_read(f):
    """Opcode and payload of a frame without extensions, shorter than 64 KB. RFC 6455 5.2."""
    first, n = exactly(f, 2)
    size = n & 127
    if size == 126:
        size, = struct.unpack("!H", exactly(f, 2))
    mask = exactly(f, 4) if n & 128 else bytes(4)
    return first & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(exactly(f, size)))


def frame(opcode, data, mask=b""):
    size = bytes([len(data) | (128 if mask else 0)]) if len(data) < 126 else struct.pack("!BH", 126, len(data))
    return bytes([128 | opcode]) + size + mask + (bytes(b ^ mask[i % 4] for i, b in enumerate(data)) if mask else data)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port):
        self.port, self.held, self.go = port, 0, threading.Event()
        super().__init__(("127.0.0.1", port), Handler)

    def server_bind(self):
        """Without asking for the host's name, which may take a while."""
        socketserver.TCPServer.server_bind(self)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True                 # head and body are two writes

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.websocket()
        if self.path == "/hold":
            server.held += 1
            server.go.wait(30)
            server.held -= 1
        if self.path == "/release":
            server.go.set()
        lines = ["%d" % server.held if self.path == "/held" else "%d %s %s" % (server.port, self.command, self.path)]
        if self.path.endswith("/data"):
            lines += ["%s: %s" % h for h in self.headers.items()]
        body = "".join(line + "\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def websocket(self):
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_of(self.headers["Sec-WebSocket-Key"]))
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                opcode, data = frame_read(self.rfile)
                if opcode == 8:
                    return self.wfile.write(frame(8, data))
                self.wfile.write(frame(opcode, b"%d %s: %s" % (self.server.port, self.path.encode(), data)))
        except (EOFError, OSError):
            pass


def talk(port, path, host, n):
    """n at one time, so that a balancer has something to balance."""
    open_ones = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port), 10)
        f, key = s.makefile("rb"), base64.b64encode(os.urandom(16)).decode()
        s.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: %s\r\n\r\n" % (path, host, key)).encode())
        head = b"".join(iter(f.readline, b"\r\n")).decode()
        status = head.split()[1]
        if status == "101" and accept_of(key) not in head:
            sys.exit("the answer is to another key:\n" + head)
        open_ones.append((s, f, status))
    for s, f, status in open_ones:
        if status != "101":
            print(status)
            continue
        s.sendall(frame(1, b"hello", os.urandom(4)))
        print(frame_read(f)[1].decode())
        s.sendall(frame(8, struct.pack("!H", 1000), os.urandom(4)))
        if frame_read(f)[0] != 8:
            sys.exit("a close was not answered")


if sys.argv[1] == "talk":
    talk(int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
else:
    servers = [threading.Thread(target=Server(int(p)).serve_forever) for p in sys.argv[1:]]
    for t in servers:
        t.start()
