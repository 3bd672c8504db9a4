"""A stand-in for the parts of the Hugging Face hub's HTTP API that an upload uses."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Keeps repositories in memory.

    Attributes:
        files: content by ``OWNER/NAME`` and path.
        private: whether each repository is private.
        token: the token that is accepted.
        commits: number of commits by repository.
        failing: status of every answer, to play a hub that is down.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: dict[str, int] = {}
        self.token, self.failing = "hf_good", 0
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.failing:
            return self._answer(self.server.failing, {"error": "down"})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        parts = self.path.strip("/").split("/")
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        repository, action = "/".join(parts[2:4]), parts[4]
        if repository not in self.server.files:
            return self._answer(404, {"error": "Repository not found"})
        if action == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self._answer(200, {"files": files})
        assert action == "commit", self.path
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.files[repository][line["value"]["path"]] = content
        self.server.commits[repository] = self.server.commits.get(repository, 0) + 1
        commit = "0" * 40
        address = f"{self.server.address}/{repository}/commit/{commit}"
        return self._answer(200, {"commitUrl": address, "commitOid": commit})

    def _create(self, wanted: dict) -> None:
        repository = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        exists = repository in self.server.files
        self.server.files.setdefault(repository, {})
        if not exists:
            self.server.private[repository] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self._answer(409 if exists else 200, {"url": f"{self.server.address}/{repository}"})

    def _answer(self, status: int, values: dict) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
