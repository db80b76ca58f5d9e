"""A local server of the Hugging Face hub's protocol that keeps what is uploaded, as `huggingface_hub` speaks it."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with whether it is private, and its files; `refusal` is a status for every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.refusal = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        repository = "/".join(self.path.split("?")[0].split("/")[2:5])
        is_known = self.path.startswith("/api/") and repository in self.server.private
        facts = {"id": repository, "private": self.server.private[repository], "sha": "0" * 40} if is_known else {}
        self._answer(facts, 200 if is_known else 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self._body()
        kind, _, rest = self.path.split("?")[0].removeprefix("/api/").partition("/")
        if kind == "repos":
            wanted = json.loads(body)
            name = f"{wanted['type']}s/{wanted['organization']}/{wanted['name']}"
            status = 409 if name in self.server.private else 200
            self.server.private.setdefault(name, wanted.get("visibility") == "private")
            self._answer({"url": f"{self.server.url}/{name.removeprefix('models/')}"}, status)
        elif kind == "validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in rest:
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self._answer({"files": files})
        else:
            name = f"{kind}/{rest.partition('/commit/')[0]}"
            lines = [json.loads(line) for line in body.splitlines()]
            self.server.files[name] = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self._answer({"commitUrl": f"{self.server.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40})

    def _body(self) -> bytes:
        if length := self.headers["Content-Length"]:
            return self.rfile.read(int(length))
        body = b""
        while size := int(self.rfile.readline(), 16):  # in chunks
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, value: object, status: int = 200) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        status = self.server.refusal or status
        data = json.dumps({"error": "no"} if self.server.refusal else value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub to which `huggingface_hub` turns, with a token for it."""
    server = Hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield server
    server.shutdown()
    server.server_close()
