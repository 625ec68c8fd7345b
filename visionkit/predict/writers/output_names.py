"""Names for the files of each image: as the images lie below their folder, and no two alike."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from visionkit.printable import printable

__all__ = ["OutputNames", "source_root"]

_LONGEST = 160  # bytes of one name: endings and the temporary name (of 255 bytes at most) come after it
_LONGEST_PATH = 800  # bytes of a name with its folders


class OutputNames:
    r"""Gives each image the name of its files, without ending: `cats/1` for `photos/cats/1.jpg`.

    Folders below the one that holds all sources are made again. What not every file system and tool takes is
    replaced (bytes that are no UTF-8, control characters, backslashes), a very long name is cut and ends in a
    digest, and of images with one name the later ones end in -2, -3, ... (`1.png` beside `1.jpg`, too).

    Args:
        roots: The folders of the sources; names are relative to the folder that holds them all. None: names
            have no folders.

    Attributes:
        changed: How many names are not those of their images.
    """

    def __init__(self, roots: Sequence[str] = ()) -> None:
        absolute = [os.path.abspath(root) for root in roots]  # noqa: PTH100 (links stay as they are)
        self.root = os.path.commonpath(absolute) if absolute else None
        self.changed = 0
        self._used: set[bytes] = set()

    def name(self, path: str) -> str:
        """Return the name of the files of the next image, with `/` between folders.

        Args:
            path: The image's file, or what stands for it.
        """
        plain = self._relative(path)
        parts = [_portable(part) for part in Path(plain).parts]
        name = "/".join(parts)
        if len(name.encode()) > _LONGEST_PATH:
            name = _cut(parts[-1], _LONGEST // 2, plain)
        free, number = name, 1
        while _key(free) in self._used:
            number += 1
            free = f"{name}-{number}"
        self._used.add(_key(free))
        self.changed += free != plain.replace(os.sep, "/")
        return free

    def _relative(self, path: str) -> str:
        stem = os.path.splitext(path)[0]  # noqa: PTH122 (a stem of dots stays one)
        if self.root is not None:
            relative = os.path.relpath(stem, self.root)
            if Path(relative).parts[:1] != (os.pardir,):
                return relative
        return os.path.basename(stem)  # noqa: PTH119


def _portable(part: str) -> str:
    """Return a part of a path as every file system takes it."""
    clean = printable(part).replace("\\", "_")
    clean = "".join("_" if unicodedata.category(char) == "Cc" else char for char in clean)
    return _cut(clean, _LONGEST, part) if len(clean.encode()) > _LONGEST else clean


def _cut(text: str, size: int, whole: str) -> str:
    """Return the beginning of a text, and a digest of the whole."""
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:12]
    return f"{text.encode()[:size].decode(errors='ignore')}-{digest}"


def _key(name: str) -> bytes:
    """Return what two names have in common that some file system takes for one."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return hashlib.blake2b(folded.encode(), digest_size=12).digest()


def source_root(source: str) -> str:
    """Return the folder of a source: itself, that of a file, or the part of a glob before its first star.

    Args:
        source: A file, a folder or a glob.
    """
    path = Path(source)
    if path.is_dir():
        return source
    while any(char in str(path) for char in "*?[") and not path.exists():
        path = path.parent
    return str(path if path.is_dir() else path.parent)
