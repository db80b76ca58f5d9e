"""A local server of the OpenAI protocol whose replies are scripted by a test."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

KEY = "sk-very-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Replies with what `script(number, request)` returns: a reply's text, or (status, headers, body in bytes)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.lock = script, threading.Lock()
        self.requests, self.headers, self.times, self.busy, self.busiest = [], [], [], 0, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append({"path": self.path, **request})
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
            number = len(server.requests) - 1
        try:
            answer = server.script(number, request)
            if answer is not None:
                self.answer(*(answer if isinstance(answer, tuple) else (200, {}, reply(answer))))
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def reply(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def serve(monkeypatch):
    """A function that starts a server; all servers are stopped after the test."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    servers = []

    def start(script):
        servers.append(Server(script if callable(script) else lambda number, request: script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
