"""Files that are complete or absent, their digests, and values as JSON and YAML take them. No torch here."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from visionkit.errors import InputError, RunError

__all__ = [
    "PART",
    "WINDOWS",
    "file_digest",
    "finite",
    "flush",
    "is_address",
    "is_free",
    "local_path",
    "new_folder",
    "process_exists",
    "remove_parts",
    "to_plain",
    "unwritable",
    "write_atomic",
    "write_text",
    "writing",
]

PART = ".visionkit-part"
WINDOWS = os.name == "nt"
FULL = (errno.ENOSPC, errno.EDQUOT)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+:/")  # "s3://b/x"; of "s3:" and "b" pathlib makes "s3:/b"


def local_path(path: str | os.PathLike[str], what: str = "a file") -> Path:
    """Return a path of this machine's file system.

    Args:
        path: A path as a user gave it, or a `Path` of that.
        what: What is expected there, for the error.

    Raises:
        InputError: It is an address of another machine ("s3://bucket/run"), or longer than names can be.
    """
    text = os.fspath(path)
    try:
        os.stat(text)  # noqa: PTH116 (takes any name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"Expected {what}, but no file has so long a name: {text}.") from error
    except ValueError as error:
        raise InputError(f"Expected {what}, but no file has such a name: {text!r} ({error}).") from error
    if is_address(text):
        raise InputError(
            f"Expected {what} on this machine, but got the address {text!r}. Name a local path: what is "
            "read from elsewhere is downloaded first, what is written is copied there afterwards."
        )
    return Path(path)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the address of another file system, such as "s3://bucket/run".

    Args:
        path: A path as a user gave it, or a `Path` of that.
    """
    text = os.fspath(path)
    return bool(_ADDRESS.match(text)) and not os.path.lexists(text.partition("/")[0])


def write_atomic(
    path: str | Path,
    write: Callable[[Path], object],
    *,
    before_rename: Callable[[Path], object] | None = None,
    durable: bool = True,
) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, and rename it.

    What is at `path` is the old or the new file at any time, also after a kill or a loss of power. The
    temporary name holds the process's number: `remove_parts` finds what a killed process left.

    Args:
        path: The file; its folder must exist.
        write: Writes the content to the path that it is given.
        before_rename: Called with the temporary path once the content is on the disk.
        durable: Wait until the disk has it. Otherwise a loss of power, but no kill, may leave an empty file:
            for files by the thousand that can be made again, as the wait takes milliseconds a file.

    Raises:
        OSError: The file cannot be written; what was at `path` is untouched.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}{PART}")
    try:
        write(part)
        if durable:
            flush(part)
        if before_rename is not None:
            before_rename(part)
        part.replace(target)
        if durable:
            flush(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder whose files are at `path` once the block has ended.

    Nothing is left of it where the block fails; what a killed process left goes. A folder that is at `path`
    already keeps its other files, and holds the temporary one: it may be a file system of its own, into which
    nothing can be moved from beside it.

    Args:
        path: The folder.

    Raises:
        InputError: It is an address of another machine.
        OSError: It cannot be written.
    """
    target = local_path(path, "a folder").absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    home = target if target.is_dir() else target.parent
    for holder in {home, target.parent}:
        for left in holder.glob(f"{glob.escape(target.name)}.*{PART}"):
            owner = left.name.split(".")[-2]
            if owner.isdigit() and (int(owner) == os.getpid() or not process_exists(int(owner))):
                shutil.rmtree(left, ignore_errors=True)
    part = home / f"{target.name}.{os.getpid()}{PART}"
    try:
        part.mkdir()
        yield part
        if target.is_dir():
            for file in sorted(each for each in part.rglob("*") if not each.is_dir()):
                final = target / file.relative_to(part)
                final.parent.mkdir(parents=True, exist_ok=True)
                file.replace(final)
            shutil.rmtree(part)
        else:
            part.replace(target)
        flush(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Name the place and what helps where the system does not let the block write.

    Args:
        path: The file or the folder that the block writes.

    Raises:
        RunError: The disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(Path(path), error) from error


def unwritable(folder: Path, error: OSError) -> RunError:
    """Return the error for a folder that could not be made or written.

    Args:
        folder: The folder.
        error: What the system raised.
    """
    what = f"Expected to be able to write into {folder}, but"
    existing = next((path for path in (folder, *folder.absolute().parents) if _exists(path)), Path("/"))
    if error.errno in FULL:
        free = shutil.disk_usage(existing).free
        return RunError(
            f"{what}: {error.strerror} ({free} bytes are free). Free some space, or choose another folder."
        )
    if existing.is_file():
        return RunError(f"{what} {existing} is a file, not a folder. Choose another folder.")
    if error.errno is None:  # numpy tells how much it wrote, and not why no more
        free = shutil.disk_usage(existing).free
        return RunError(
            f"{what}: {error} ({free} bytes are free). Free some space, or choose another folder."
        )
    at = f" ({error.filename})" if error.filename else ""
    return RunError(f"{what}: {error.strerror or error}{at}. Choose another folder.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be entered
        return False


def write_text(path: str | Path, text: str, *, errors: str = "strict") -> None:
    """Write a text as UTF-8, atomically; `errors` as for `str.encode`."""
    write_atomic(path, lambda part: part.write_text(text, encoding="utf-8", errors=errors))


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if WINDOWS and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_parts(folder: str | Path, *, own: bool = True) -> int:
    """Remove the temporary files that killed processes left in `folder`; return how many bytes came free.

    Args:
        folder: The folder.
        own: Also those of this process, none of which may be in use.
    """
    freed = 0
    for part in Path(folder).glob(f"*{PART}"):
        owner = part.name.split(".")[-2]
        if owner.isdigit() and (not own or int(owner) != os.getpid()) and process_exists(int(owner)):
            continue
        with contextlib.suppress(FileNotFoundError):
            if part.is_dir() and not part.is_symlink():  # of `new_folder`
                freed += sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
                shutil.rmtree(part, ignore_errors=True)
            else:
                freed += part.stat().st_size
                part.unlink()
    return freed


def is_free(folder: Path) -> bool:
    """Return whether nothing is at a path, or a folder that is empty but for temporary files.

    Args:
        folder: The path.
    """
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(each.name.endswith(PART) for each in folder.iterdir())


def process_exists(pid: int) -> bool:
    """Return whether a process of this number runs on this machine, also one of another user.

    One that has ended, and whose parent has not taken note of it yet (a zombie), does not; Linux tells them.
    """
    if WINDOWS:  # where number 0 is Ctrl-C
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    try:
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return True
    return not facts.rpartition(")")[2].lstrip().startswith("Z")  # after the name, which may hold anything


def file_digest(
    path: str | os.PathLike[str], *, algorithm: Literal["sha256", "blake2b-128"] = "sha256"
) -> str:
    """Return the digest of a file's bytes in hexadecimal: 64 digits of SHA-256, or 32 of BLAKE2b."""
    digest = hashlib.sha256 if algorithm == "sha256" else lambda: hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:  # noqa: PTH123 (called for each image)
        return hashlib.file_digest(stream, digest).hexdigest()


def to_plain(value: Any, leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return dataclasses and mappings as dicts with text keys, lists and tuples as lists, at any depth.

    Args:
        value: Any value.
        leaf: Gives what stands in place of every other value.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name), leaf) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item, leaf) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, leaf) for item in value]
    return leaf(value)


def finite(value: Any) -> Any:
    """Return None in place of a float that is infinite or NaN, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
