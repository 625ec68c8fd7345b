"""A pack of random pixels, and a server of a folder on the loopback that can be told to misbehave."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionkit.data import PackSettings, image_folder, pack

__all__ = ["ShardServer", "make_pack", "shard_bytes"]


class ShardServer:
    """Serves a folder over http.

    Args:
        folder: The folder.

    Attributes:
        asked: The paths that were asked for, in order.
        sent: What is sent in place of a file, by its path: one after another, then the file; a callable
            is given the handler.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.sent: dict[str, list[Any]] = {}
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                with contextlib.suppress(ConnectionError):
                    waiting = outer.sent.get(self.path)
                    if not waiting:
                        super().do_GET()
                    elif callable(content := waiting.pop(0)):
                        content(self)
                    else:
                        self.send_response(200)
                        self.end_headers()
                        self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def shards(self) -> list[str]:
        """Return the shards that were asked for, in order."""
        return [path for path in self.asked if path.endswith(".tar")]

    @contextlib.contextmanager
    def running(self) -> Iterator[ShardServer]:
        """Serve until the block ends."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


def make_pack(root: Path, *, count: int, records: int, side: tuple[int, int] = (20, 24)) -> Path:
    """Write a folder of two classes with `count` training and 8 validation images, and its pack of pixels."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("val", 8)):
        for number in range(images):
            folder = root / "photos" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*side, 3), np.uint8)).save(folder / f"{number}.png")
    settings = PackSettings(records=records, form="raw")
    return pack(image_folder(root / "photos"), root / "pack", settings=settings)


def shard_bytes(packed: Path, shards: int) -> int:
    """Return the bytes of this many of a pack's largest shard."""
    return shards * max(file.stat().st_size for file in packed.glob("*.tar"))
