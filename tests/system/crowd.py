"""A backend for thousands of connections, in a process of its own: test_memory runs it. Prints its port."""
import re
import resource
import selectors
import socket

SLICE = memoryview(bytes(range(256)) * 256)       # of an answer


class Source:
    """A backend for thousands of connections: GET /N answers with N bytes, GET /asked with how
    many requests came, a POST is read whole."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.selector, self.asked = selectors.DefaultSelector(), 0
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)     # of what it accepts as well
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)

    def run(self):
        while True:
            for key, events in self.selector.select():
                try:
                    self.accept() if key.data is None else self.serve(key.fileobj, key.data, events)
                except (ConnectionError, BlockingIOError) as e:
                    if key.data is not None and not isinstance(e, BlockingIOError):
                        self.drop(key.fileobj)

    def accept(self):
        for _ in range(64):
            sock, _ = self.listener.accept()
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, {"in": b"", "body": 0, "left": 0, "head": b""})

    def drop(self, sock):
        self.selector.unregister(sock)
        sock.close()

    def serve(self, sock, c, events):
        if events & selectors.EVENT_READ and not c["left"] and not c["head"]:
            data = sock.recv(65536)
            if not data:
                return self.drop(sock)
            if c["body"]:
                c["body"] -= len(data)
                if c["body"] <= 0:
                    c["body"], c["head"] = 0, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            else:
                c["in"] += data
                if b"\r\n\r\n" in c["in"]:
                    self.begin(c)
        if c["head"] or c["left"]:
            n = sock.send(c["head"] or SLICE[:min(c["left"], len(SLICE))])
            if c["head"]:
                c["head"] = c["head"][n:]
            else:
                c["left"] -= n
        self.selector.modify(sock, selectors.EVENT_WRITE if c["head"] or c["left"] else selectors.EVENT_READ, c)

    def begin(self, c):
        head, _, rest = c["in"].partition(b"\r\n\r\n")
        c["in"], self.asked = b"", self.asked + 1
        length = re.search(rb"(?i)content-length: (\d+)", head)
        n = int(length[1]) if length else 0
        if n > len(rest):
            c["body"] = n - len(rest)
        elif n:
            c["head"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        else:
            if head.startswith(b"GET /asked"):
                self.asked -= 1
                c["head"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(self.asked)), self.asked)
                return
            size = int(re.search(rb"^\w+ /[^ ]*?(\d+) ", head)[1])
            kind = b"text/plain" if b"/text" in head else b"application/octet-stream"
            c["head"] = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, size)
            c["left"] = size


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    source = Source()
    print(source.listener.getsockname()[1], flush=True)
    source.run()
