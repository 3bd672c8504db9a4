"""A small HTTP server of a folder's files that can be told to misbehave, request by request."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SLOW_PIECE = 2**16


class ShardServer(ThreadingHTTPServer):
    """Serves ``folder`` on a free port of this machine.

    Attributes:
        ranges: whether byte ranges are answered.
        tagged: whether answers carry an ETag (the file's size and time of modification).
        chunked: whether whole files come in chunks, without their length.
        pause: seconds before each 64 KiB.
        fault: from a request's number (from 1) to "" (none), "truncate" (half of the body, then the connection ends),
            "drop" (no answer), or a status as text.
        headers: sent with such a status.
        asked: path and Range of each request so far.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges, self.tagged, self.chunked, self.pause = True, True, False, 0.0
        self.fault: Callable[[int], str] = lambda number: ""
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked_for(self, name: str) -> int:
        return sum(path.endswith(name) for path, _ in self.asked)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or else each small answer waits 40 ms
    server: ShardServer

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, self.headers.get("Range")))
            fault = self.server.fault(len(self.server.asked))
        if fault == "drop":
            self.close_connection = True
            return
        if fault not in ("", "truncate"):
            self._answer(int(fault), b"", self.server.headers)
            return
        name = re.sub("^http://[^/]*", "", self.path)
        if name.startswith("/moved/"):
            self._answer(302, b"gone", {"Location": name.removeprefix("/moved")})
            return
        path = self.server.folder / name.lstrip("/").partition("?")[0]
        if not path.is_file():
            self._answer(404, b"nothing here", {})
            return
        self._send_file(path, truncate=fault == "truncate")

    def _send_file(self, path: Path, truncate: bool) -> None:
        data, stat = path.read_bytes(), path.stat()
        headers = {"ETag": f'"{stat.st_size}-{stat.st_mtime_ns}"'} if self.server.tagged else {}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        status, body = 200, data
        if found and self.server.ranges:
            first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            if first >= len(data):
                self._answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
                return
            status, body = 206, data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._answer(status, body, headers, truncate)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], truncate: bool = False) -> None:
        chunked = self.server.chunked and status == 200
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))))
        self.end_headers()
        for start in range(0, len(body) // 2 if truncate else len(body), SLOW_PIECE):
            time.sleep(self.server.pause)
            piece = body[start : min(start + SLOW_PIECE, len(body) // 2 if truncate else len(body))]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and not truncate:
            self.wfile.write(b"0\r\n\r\n")
        if truncate:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[ShardServer]:
    """Run a server of a folder in a thread."""
    with ShardServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
