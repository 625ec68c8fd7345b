"""The server of `visionkit watch`: for this machine, only read, and nothing outside of the run folders."""

from __future__ import annotations

import errno
import json
import re
import threading
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from visionkit import __version__
from visionkit.errors import InputError
from visionkit.files import local_path
from visionkit.printable import printable
from visionkit.watch.drawing import Drawing
from visionkit.watch.run_folder import RunFolder, all_runs

__all__ = ["WatchServer"]

ADDRESS = "127.0.0.1"
_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/watch.css": ("watch.css", "text/css; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "/curves.js": ("curves.js", "text/javascript; charset=utf-8"),
    "/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
}
# What a run writes for people to look at. Nothing else of its folder is sent.
_FILE = re.compile(
    r"/file/([0-9a-f]{12})/(figures/(?:train-batch|val-worst|val-random|(?:watch|val)/[0-9]{1,6})\.png)"
)
_LAYER = re.compile(r"/layers/([0-9a-f]{12})/([0-9]+-[0-9]+\.png)")
_PREDICTIONS = re.compile(r"/api/predictions/([0-9a-f]{12})")
_MAX_FILE = 64 * 2**20
_MAX_RUNS = 200
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class WatchServer:
    """Shows runs at an address of this machine; other machines cannot reach it.

    Args:
        folders: Run folders, or folders that hold runs or will hold some.
        port: The port; 0 takes a free one.

    Attributes:
        drawing: The drawing process.
        address: Where a browser finds the page.

    Raises:
        InputError: A folder is not there, the port is outside its limits, taken or not allowed.
    """

    def __init__(self, folders: Sequence[str | Path], *, port: int = 0) -> None:
        self._folders = [_existing(local_path(folder, "a run folder")) for folder in folders]
        self._runs: dict[str, RunFolder] = {}
        self._lock = threading.Lock()
        if not 0 <= port <= 65535:
            raise InputError(f"Expected --port to be 0 to 65535 (0 takes a free one), but got {port}.")
        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), _Handler)
        except OSError as error:
            why = {errno.EADDRINUSE: "is taken by another program", errno.EACCES: "needs more rights"}
            reason = why.get(error.errno or 0, f"cannot be used ({error.strerror})")
            raise InputError(f"Port {port} {reason}. Give another --port; 0 takes a free one.") from error
        self._server.daemon_threads = True
        self._server.watch = self  # type: ignore[attr-defined]
        self.drawing = Drawing()
        self.port = int(self._server.server_address[1])
        self.address = f"http://{ADDRESS}:{self.port}/"

    def serve(self) -> None:
        """Answer until `close` is called from another thread, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.25)

    def close(self) -> None:
        """Stop answering, and end the drawing process."""
        self._server.shutdown()
        self.release()

    def release(self) -> None:
        """Give the port back and end the drawing process, once `serve` has ended."""
        self._server.server_close()
        self.drawing.close()

    def runs(self) -> list[RunFolder]:
        """Look for runs again, and return them all in order."""
        folders = all_runs(self._folders)[:_MAX_RUNS]
        with self._lock:
            known = {run.folder: run for run in self._runs.values()}
            made = [known.get(folder) or RunFolder(folder) for folder in folders]
            self._runs = {run.key: run for run in made}
        return made

    def run(self, key: str) -> RunFolder | None:
        """Return a run by its key, None if there is none.

        Args:
            key: The key.
        """
        return self._runs.get(key)

    def state(self, known: Sequence[str], looked: Sequence[str]) -> dict[str, Any]:
        """Return what the page shows now, without what it has already.

        Args:
            known: "key:generation:count" for each run of which the page has rows.
            looked: Keys of the runs whose layers the page shows.
        """
        counts = {}
        for text in known:
            key, _, rest = text.partition(":")
            generation, _, count = rest.partition(":")
            if generation.isdigit() and count.isdigit():
                counts[key] = (int(generation), int(count))
        runs = self.runs()
        with self._lock:  # one reader of a run's table at a time
            listing = [run.describe() | {"curves": run.curves(*counts.get(run.key, (-1, 0)))} for run in runs]
        names = Counter(run.folder.name for run in runs)
        for run, shown in zip(runs, listing, strict=True):
            if names[run.folder.name] > 1:  # of several comparisons
                shown["name"] = printable(f"{run.folder.parent.name}/{run.folder.name}")
            shown["layers"] = self.drawing.look(run) if run.key in looked else None
        return {"version": __version__, "folders": [str(folder) for folder in self._folders], "runs": listing}


def _existing(folder: Path) -> Path:
    if not folder.exists():
        raise InputError(
            f"{folder} does not exist. Give run folders or the --out of a recipe; an empty folder in which a "
            "run will begin is fine too."
        )
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give run folders or the --out of a recipe.")
    return folder.resolve()


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the page, the state, and images that runs have written."""

    protocol_version = "HTTP/1.1"
    server_version = "visionkit"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        watch: WatchServer = self.server.watch  # type: ignore[attr-defined]
        # A page elsewhere whose name was pointed at this machine (DNS rebinding) sends that name.
        if self.headers.get("Host") not in (f"{ADDRESS}:{watch.port}", f"localhost:{watch.port}"):
            self._refuse(HTTPStatus.FORBIDDEN, f"Expected the address {watch.address}.")
            return
        parts = urlsplit(self.path)
        try:
            self._answer(watch, parts.path, parse_qs(parts.query))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def parse_request(self) -> bool:
        """Read the head of a request, and refuse all but GET and HEAD."""
        if not super().parse_request():
            return False
        if self.command in ("GET", "HEAD"):
            return True
        self.close_connection = True
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This server is only read: GET and HEAD.")
        return False

    def _answer(self, watch: WatchServer, path: str, query: dict[str, list[str]]) -> None:
        if path in _STATIC:
            name, kind = _STATIC[path]
            content = files("visionkit.watch").joinpath("static", name).read_bytes()
            self._send(content, kind)
        elif path == "/api/state":
            self._send_json(watch.state(query.get("known", []), query.get("look", [])))
        elif match := _PREDICTIONS.fullmatch(path):
            run = watch.run(match[1])
            self._send_json(run.predictions()) if run else self._missing()
        elif match := _LAYER.fullmatch(path):
            png = watch.drawing.png(match[1], match[2])
            self._send(png, "image/png") if png is not None else self._missing()
        elif match := _FILE.fullmatch(path):
            image = _image_of(watch.run(match[1]), match[2])
            self._send(image, "image/png") if image is not None else self._missing()
        else:
            self._missing()

    def _missing(self) -> None:
        self._refuse(HTTPStatus.NOT_FOUND, "There is nothing at this address.")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._send((text + "\n").encode(), "text/plain; charset=utf-8", status)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the command's."""


def _image_of(run: RunFolder | None, name: str) -> bytes | None:
    """Return an image that lies in a run's folder; a link that leads out of it is not followed."""
    if run is None:
        return None
    path = run.folder / name
    try:
        inside = path.resolve().is_relative_to(run.folder.resolve())
        if inside and path.is_file() and path.stat().st_size <= _MAX_FILE:
            return path.read_bytes()
    except OSError:  # being replaced
        return None
    return None
