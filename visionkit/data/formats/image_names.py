"""Find the images that annotation files name in a folder that is listed once."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

__all__ = ["ImageFinder"]


class ImageFinder:
    r"""Finds the images that an annotation file names; each folder is listed once, no file is opened.

    Names are compared exactly first. Where there is no such file, these are tried in turn: `\` as the
    separator (written on Windows); a leading part that repeats the end of the folder's own path
    (`images/1.jpg` in the folder `images`); other case or another Unicode form, where one file alone fits;
    the last part alone.

    Args:
        root: The folder of the images.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._exact: dict[str, dict[str, str]] = {}
        self._loose: dict[str, dict[str, list[str]]] = {}
        self._tail = [part.casefold() for part in Path(os.path.abspath(self.root)).parts[1:]]  # noqa: PTH100

    def find(self, name: str) -> tuple[str | None, bool]:
        """Return the path from the folder to an image, None without one, and whether it was spelt otherwise.

        Args:
            name: As the annotation file has it; without `..`.
        """
        path = self._walk(PurePosixPath(name).parts, loose=False)
        if path is not None:
            return path, False
        parts = PurePosixPath(name.replace("\\", "/")).parts
        tries = [parts]
        for length in range(min(len(parts) - 1, len(self._tail)), 0, -1):
            if [part.casefold() for part in parts[:length]] == self._tail[-length:]:
                tries.append(parts[length:])
        tries += [parts[-1:]] if len(parts) > 1 else []
        for loose in (False, True):
            for each in tries:
                path = self._walk(each, loose=loose)
                if path is not None:
                    return path, True
        return None, False

    def _walk(self, parts: tuple[str, ...], *, loose: bool) -> str | None:
        if not parts or ".." in parts or parts[0] == "/":
            return None
        path = ""
        for part in parts:
            listed = self.listed(path)
            if part in listed:
                real = part
            elif loose and len(self._loosely(path).get(_key(part), ())) == 1:
                real = self._loosely(path)[_key(part)][0]
            else:
                return None
            path = f"{path}/{real}" if path else real
        return path

    def listed(self, folder: str) -> Mapping[str, str]:
        """Return the names of what lies in a folder; none if there is no such folder.

        Args:
            folder: The path from the root, "" for the root itself.
        """
        known = self._exact.get(folder)
        if known is None:
            try:
                known = {name: name for name in os.listdir(self.root / folder)}  # noqa: PTH208
            except (OSError, ValueError):
                known = {}
            self._exact[folder] = known
        return known

    def _loosely(self, folder: str) -> dict[str, list[str]]:
        known = self._loose.get(folder)
        if known is None:
            known = {}
            for name in self.listed(folder):
                known.setdefault(_key(name), []).append(name)
            self._loose[folder] = known
        return known


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
