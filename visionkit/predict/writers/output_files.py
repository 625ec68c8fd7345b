"""Files that predictions are written into: whole at any time, whatever ends the process."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from visionkit.files import PART, flush, write_atomic

__all__ = ["GrowingFile", "encoded", "write_small"]

_LONGEST_SIDE = 65_500  # pixels, of a JPEG


class GrowingFile:
    """A file that grows by whole records; one that cannot be written completely is taken back.

    Nothing is made before the first record.

    Args:
        path: The file; its folder is made.
        hidden: Whether it has a temporary name until `close`: for a format that is not valid before its end.
    """

    def __init__(self, path: str | Path, *, hidden: bool = False) -> None:
        self.path = Path(path)
        self._at = self.path.with_name(f"{self.path.name}.{os.getpid()}{PART}") if hidden else self.path
        self._stream: BinaryIO | None = None
        self._size = 0

    def write(self, record: str) -> None:
        """Write a record at the end, as UTF-8.

        Args:
            record: The text, with its line break.

        Raises:
            OSError: The disk is full; the file ends with the record before.
        """
        stream, data, written = self._opened(), memoryview(record.encode("utf-8")), 0
        try:
            while written < len(data):
                written += stream.write(data[written:]) or 0
        except BaseException:
            with contextlib.suppress(OSError):
                stream.truncate(self._size)
                stream.seek(self._size)
            raise
        self._size += written

    def close(self) -> None:
        """Bring the file to the disk, under its own name."""
        stream = self._opened()
        if stream.closed:
            return
        os.fsync(stream.fileno())
        stream.close()
        if self._at != self.path:
            self._at.replace(self.path)
            flush(self.path.parent)

    def abort(self) -> None:
        """Close it; a temporary file is removed."""
        if self._stream is not None:
            self._stream.close()
            if self._at != self.path:
                self._at.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._at.open("wb", buffering=0)
        return self._stream


def write_small(path: Path, content: bytes) -> None:
    """Write the file of one image: complete or absent after a kill; its folder is made.

    Pillow's own writing takes no note of a disk that is full: it has to give bytes.

    Args:
        path: The file.
        content: Its bytes.
    """
    try:
        write_atomic(path, lambda part: part.write_bytes(content), durable=False)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda part: part.write_bytes(content), durable=False)


def encoded(image: Image.Image, form: str, *, quality: int = 90) -> bytes:
    """Return the bytes of an image file.

    Args:
        image: The image; a JPEG is shrunk where a side is longer than that format can have.
        form: "JPEG" or "PNG".
        quality: Of a JPEG.
    """
    stream = io.BytesIO()
    if form == "JPEG" and max(image.size) > _LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    image.save(stream, format=form, quality=quality)
    return stream.getvalue()
