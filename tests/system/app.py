"""A program for warp to supervise: `python3 -SE app.py NAME [WORD=VALUE]...`. It keeps a
journal in its directory, one line for each event: NAME EVENT PID NANOSECONDS.

    port=N socket=PATH   serve HTTP there; neither: only wait
    bind_if=FILE         do that only once FILE is there
    fail_if=FILE         when FILE is there at the start, say so on stderr and exit with 7
    exit=N after=SECS    leave with N, so long after the start
    die_after=N          vanish behind the Nth answer
    slow=SECS            before each answer
    term=ignore          TERM is written down, and that is all
    journal=PATH         instead of ./journal
    name:value           lines of stderr at the start

GET /            'NAME PID INDEX', INDEX being the variable of that name
    /info        what it was started with, as JSON
    /health      200, or 503 while the file `sick` is there
    /wait        answers once the file `go` is there
    /die         exits with 3, nothing answered
    /half        half an answer, then the end
    /hang        no answer at all
    /fork?N      starts N grandchildren that ignore TERM; every other one in a session of its
                 own and its parent gone; answers with their pids
    /say?TEXT    TEXT on stderr
    /big?N       N bytes
"""
import os
import signal
import socket
import sys
import threading
import time

name, words = sys.argv[1], dict(w.partition("=")[::2] for w in sys.argv[2:] if "=" in w)
journal_fd = os.open(words.get("journal", "journal"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
alive, lock, answered = set(), threading.Lock(), 0
stopping = False


class Stop(BaseException):
    pass


def journal(event):
    os.write(journal_fd, b"%s %s %d %d\n" % (name.encode(), event.encode(), os.getpid(), time.monotonic_ns()))


def until(path):
    while not os.path.exists(path):
        time.sleep(0.01)


def told(signo, _):
    journal("signal%d" % signo)
    if words.get("term") != "ignore":
        raise Stop


def info():
    import json
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return json.dumps({
        "pid": os.getpid(), "pgrp": os.getpgrp(), "ppid": os.getppid(), "argv": sys.argv, "env": dict(os.environ),
        "cwd": os.getcwd(), "fds": sorted(map(int, os.listdir("/proc/self/fd"))), "groups": os.getgroups(),
        "uid": os.getuid(), "gid": os.getgid(), "status": {k: v.strip() for k, v in status.items()}}).encode()


def grandchild(lonely):
    """Pid of a process that ignores TERM; lonely: of its own session, and nobody's child."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        if lonely:
            os.setsid()
            if os.fork():
                os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(w, b"%d\n" % os.getpid())
        os.closerange(3, 1024)          # the port is not theirs; the pipes to warp they keep
        while True:
            signal.pause()
    if lonely:
        os.waitpid(pid, 0)
    os.close(w)
    with open(r) as f:
        return int(f.readline())


def answer(conn, method, path, query):
    if "slow" in words:
        time.sleep(float(words["slow"]))
    if path == "/info":
        body, status = info(), "200 OK"
    elif path == "/health":
        body, status = b"", "503 Sick" if os.path.exists("sick") else "200 OK"
    elif path == "/big":
        body, status = b"x" * int(query), "200 OK"
    elif path == "/fork":
        body, status = " ".join(str(grandchild(i % 2)) for i in range(int(query))).encode(), "200 OK"
    else:
        if path == "/wait":
            journal("waiting")
            until("go")
        elif path == "/die":
            os._exit(3)
        elif path == "/hang":
            with lock:
                alive.discard(conn)
            threading.Event().wait()
        elif path == "/say":
            os.write(2, query.encode() + b"\n")
        body, status = ("%s %d %s" % (name, os.getpid(), os.environ.get("INDEX", ""))).encode(), "200 OK"
    head = "HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n" % (
        status, len(body) + (path == "/half"), "Connection: close\r\n" if stopping else "")
    conn.sendall(head.encode() + (b"" if method == "HEAD" else body))
    return path != "/half" and not stopping


def more(conn, buf, enough):
    while not enough(buf):
        got = conn.recv(65536)
        if not got:
            raise EOFError
        buf += got
    return buf


def serve(conn):
    global answered
    buf = b""
    try:
        while True:
            buf = more(conn, buf, lambda b: b"\r\n\r\n" in b)
            head, _, buf = buf.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines[1:])}
            n = int(fields.get("content-length", 0))
            if fields.get("transfer-encoding"):
                buf = more(conn, buf, lambda b: b"0\r\n\r\n" in b).partition(b"0\r\n\r\n")[2]
            buf = more(conn, buf, lambda b: len(b) >= n)[n:]
            method, target, _ = lines[0].split(" ")
            path, _, query = target.partition("?")
            if not answer(conn, method, path, query):
                break
            with lock:
                answered += 1
                if answered == int(words.get("die_after", 0)):
                    journal("vanish")
                    os._exit(9)
    except (EOFError, OSError):
        pass
    finally:
        conn.close()
        with lock:
            alive.discard(conn)


def main():
    global stopping
    for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT):
        signal.signal(n, told)
    s = None
    try:
        journal("start")
        for w in sys.argv[2:]:
            if "=" not in w:
                os.write(2, w.encode() + b"\n")
        if "fail_if" in words and os.path.exists(words["fail_if"]):
            os.write(2, b"%s is there\n" % words["fail_if"].encode())
            os._exit(7)
        if "bind_if" in words:
            until(words["bind_if"])
        if "socket" in words:
            s = socket.socket(socket.AF_UNIX)
            if os.path.exists(words["socket"]):
                os.unlink(words["socket"])
            s.bind(words["socket"])
        elif "port" in words:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", int(words["port"])))
        if s:
            s.listen(128)
            journal("listen")
        if "exit" in words:
            time.sleep(float(words.get("after", 0)))
            os._exit(int(words["exit"]))
        while True:
            if not s:
                signal.pause()
                continue
            conn, _ = s.accept()
            if s.family == socket.AF_INET:
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with lock:
                alive.add(conn)
            threading.Thread(target=serve, args=(conn,), daemon=True).start()
    except Stop:
        stopping = True
    if s:
        s.close()
    with lock:
        for c in alive:                 # what runs is answered, what is idle ends
            try:
                c.shutdown(socket.SHUT_RD)
            except OSError:
                pass
    end = time.monotonic() + 5
    while alive and time.monotonic() < end:
        time.sleep(0.005)
    journal("end")
    os._exit(0)


main()
