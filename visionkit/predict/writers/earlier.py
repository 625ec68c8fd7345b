"""Predictions that an earlier call has left in a folder: refused, or removed. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from visionkit.errors import InputError
from visionkit.files import local_path, remove_parts
from visionkit.predict.writers.formats import FORMATS

__all__ = ["check_free", "remove_earlier"]

_LINES = "predictions.jsonl"
_LONGEST_LINE = 100_000_000  # bytes


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that already has predictions.

    Args:
        folder: The folder; it need not exist.
        overwrite: Whether they may be removed.

    Raises:
        InputError: There are some, or something that is no folder stands there.
    """
    local_path(folder, "a folder to write into")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected a folder to write into, but {folder} is a file. Choose another --out.")
    names = ("errors.jsonl", *(file.split("/")[0] for each in FORMATS.values() for file in each.files))
    there = sorted({name for name in names if os.path.lexists(folder / name)})
    if there and not overwrite:
        raise InputError(
            f"Expected a folder without predictions, but {folder} has {', '.join(there)}. Choose another "
            "--out, or replace them with --overwrite."
        )


def remove_earlier(folder: Path) -> None:
    """Remove the files of earlier predictions, by the names in their predictions.jsonl, and nothing else.

    Args:
        folder: The folder of the predictions.
    """
    patterns = [file for each in FORMATS.values() for file in each.files]
    folders: set[Path] = set()
    for name in _names(folder / _LINES):
        for pattern in patterns:
            if "*" in pattern and not pattern.startswith("sheet/"):
                file = folder / pattern.replace("*", name)
                folders.add(file.parent)
                _remove(file)
    for pattern in patterns:
        if "*" not in pattern:
            _remove(folder / pattern)
    for page in (folder / "sheet").glob("[0-9]" * 4 + "*.html"):
        _remove(page)
    _remove(folder / "errors.jsonl")
    tops = [folder / pattern.split("/")[0] for pattern in patterns if "/" in pattern]
    for path in sorted({*folders, *tops}, key=lambda path: -len(path.parts)):
        while path != folder and path.is_dir():
            remove_parts(path)
            try:
                path.rmdir()
            except OSError:  # something else is in it
                break
            path = path.parent
    remove_parts(folder)


def _names(file: Path) -> Iterator[str]:
    """Yield the names of files that lie below the folder, whatever else the lines say."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            while line := stream.readline(_LONGEST_LINE):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    name = str(json.loads(line)["name"])
                    if name and "\0" not in name and not {"..", ""} & set(name.split("/")):
                        yield name
    except OSError:
        return


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
