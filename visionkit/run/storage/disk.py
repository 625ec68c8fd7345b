"""Writing into a run's folder, with errors that name what is in the way and what helps."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from visionkit.errors import RunError, first_line
from visionkit.files import PART, local_path, unwritable, write_atomic

__all__ = ["check_writable", "write_file"]


def write_file(
    path: str | Path,
    write: Callable[[Path], object],
    *,
    needed: int = 0,
    before_rename: Callable[[Path], object] | None = None,
) -> None:
    """Write a file atomically (`visionkit.files.write_atomic`); its folder is made.

    Args:
        path: The file.
        write: Writes the content to the path that it is given.
        needed: Bytes that have to be free before it begins.
        before_rename: Called with the temporary path once the content is on the disk.

    Raises:
        RunError: The disk is full or the folder cannot be written; the text names the path, the bytes needed
            and the bytes free. What was at `path` is untouched.
    """
    target, size = Path(path), 0

    def measured(part: Path) -> None:
        nonlocal size
        try:
            write(part)
        finally:
            size = part.stat().st_size if part.exists() else 0

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if needed > shutil.disk_usage(target.parent).free:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(target, measured, before_rename=before_rename)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise RunError(_disk_text(target, max(needed, size), error)) from error


def check_writable(folder: Path) -> None:
    """Write into a folder once, so that a refusal comes before training; what had to be made for it goes.

    Raises:
        InputError: It is an address of another machine.
        RunError: The folder cannot be made or written.
    """
    local_path(folder, "a folder")
    probe = folder / f".probe.{os.getpid()}{PART}"
    made: list[Path] = []
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"0")
        finally:
            probe.unlink(missing_ok=True)  # a full disk takes the name, and not the byte
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        with contextlib.suppress(OSError):  # somebody else wrote there meanwhile
            for path in made:
                path.rmdir()


def _disk_text(target: Path, needed: int, error: Exception) -> str:
    try:
        free: object = shutil.disk_usage(target.parent).free
    except OSError:
        free = "an unknown number of"
    return (
        f"{target} could not be written: {type(error).__name__}: {first_line(error, limit=300)} About "
        f"{needed} bytes are needed and {free} bytes are free. Free some space or choose another --out, then "
        "start the same command again."
    )
