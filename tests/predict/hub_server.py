"""A small hub on the loopback address: it takes what `huggingface_hub` pushes, and gives it back."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server: Any = self.server
        server.seen.append(("POST", self.path))
        if self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            self._json({"url": f"{server.address}/user/{name}", "id": f"user/{name}", "name": f"user/{name}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                    ]
                }
            )
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"{server.address}/c/{COMMIT}"})
        else:
            self._json({"errors": [], "warnings": []})

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            server: Any = self.server
            server.seen.append(("GET", self.path))
            self._json({"id": "user/name", "sha": COMMIT, "siblings": []})
        else:
            self._file(body=True)

    def _file(self, *, body: bool) -> None:
        server: Any = self.server
        server.seen.append((self.command, self.path))
        content = server.files.get(self.path.rpartition("/")[2].partition("?")[0])
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hash(content) & 0xFFFFFFFF:08x}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _json(self, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[Any]:
    """A hub with `address`, the `files` that were pushed to it, and the requests that it has `seen`."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.address, server.files, server.seen = f"http://127.0.0.1:{server.server_address[1]}", {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
