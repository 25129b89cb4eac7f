"""A proxy before SQS that delays, resets, refuses, hangs, answers 503 or loses answers, and counts."""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("reset", "hang", "unavailable", "throttle", "lost", "denied")
RST = struct.pack("ii", 1, 0)
ERRORS = {
    "unavailable": (503, "ServiceUnavailable"),
    "throttle": (400, "ThrottlingException"),
    "denied": (400, "AccessDeniedException"),
}


class Proxy:
    """`fault(kind, share, actions)` sets what happens to which share of which requests; None ends it."""

    def __init__(self, target, *, port=0, delay_seconds=0.0):
        self.target = urlsplit(target)
        self.delay_seconds = delay_seconds
        self.faults = []
        self.requests = []
        self.injected = Counter()
        self._ended = threading.Event()
        self._serve(port)

    def _serve(self, port):
        handler = type("Handler", (Handler,), {"proxy": self})
        self.server = Server(("127.0.0.1", port), handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def fault(self, kind, share=1.0, actions=None):
        self._ended.clear()
        self.faults.append((kind, share, actions))

    def end_faults(self):
        self.faults = []
        self._ended.set()

    def refuse(self):
        """Take the listener away, and every connection."""
        self.server.shutdown()
        self.server.server_close()
        self.server.cut()

    def accept(self):
        self._serve(self.port)

    def between(self, start, end):
        return [action for at, action in list(self.requests) if start <= at < end]

    def pick(self, action):
        for kind, share, actions in self.faults:
            if (actions is None or action in actions) and random.random() < share:
                self.injected[kind] += 1
                return kind
        return None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, *words):
        self.open = set()
        super().__init__(*words)

    def process_request(self, request, address):
        self.open.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def cut(self):
        for connection in list(self.open):
            reset(connection)

    def handle_error(self, *_):
        """A connection that we or the worker cut is no news."""


def reset(connection):
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.proxy.requests.append((time.monotonic(), action))
        kind = self.proxy.pick(action)
        if kind in ERRORS:
            status, code = ERRORS[kind]
            self.answer(status, f'{{"__type":"com.amazonaws.sqs#{code}","message":"injected"}}'.encode(), [])
            return
        if kind == "hang":
            self.proxy._ended.wait(120)
        if kind in ("hang", "reset"):
            self.cut()
            return
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(self.proxy.target.hostname, self.proxy.target.port, timeout=60)
        try:
            self.upstream.request("POST", self.path, body, dict(self.headers))
            answer = self.upstream.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self.upstream.close()
            self.upstream = None
            self.cut()
            return
        if kind == "lost":
            self.cut()
            return
        self.answer(answer.status, data, answer.getheaders())

    def answer(self, status, data, headers):
        time.sleep(self.proxy.delay_seconds)
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def cut(self):
        reset(self.connection)
        self.close_connection = True

    def finish(self):
        if self.upstream is not None:
            self.upstream.close()
        super().finish()

    def log_message(self, *_):
        """Say nothing."""
