"""Checkpoints: written whole or not at all, known by their digest, loaded through one safe door.

A file is written to a temporary name in the same folder, flushed to the disk, entered into `manifest.json`
by its SHA-256, and only then renamed. So whatever stands under a checkpoint's name is either complete and in
the manifest, or damaged by something else and refused. Loading never runs code: `weights_only=True` always,
local regular files only, and sizes are checked before anything is allocated.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from visionkit.errors import DataError, InputError, RunError

__all__ = ["FORMAT", "AtomicCheckpointIO", "load_checkpoint", "newest_good", "sweep", "write_atomic"]

FORMAT = 1
MANIFEST = "manifest.json"
PART = ".visionkit-part"
MAX_BYTES = 64 * 2**30
KEPT = 32  # entries of a name: kills may leave some whose file was never renamed


def load_checkpoint(path: str | Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Load a checkpoint that this library wrote; nothing in the file is executed.

    Args:
        path: A local file. If its folder holds a manifest, the file's digest must be in it.
        max_bytes: Largest file, packed or unpacked, that is read.

    Returns:
        The checkpoint: "state_dict", "hyper_parameters", "visionkit" (what the run was) and the states a
        resume needs; all tensors on the CPU.

    Raises:
        InputError: `path` is an address, or no regular file.
        DataError: The file is empty, cut, altered, not a checkpoint, too large, of a newer format, or holds
            code or non-finite weights; the text names the file.
    """
    file = _local_file(path)
    _check_container(file, max_bytes)
    _check_digest(file)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"cannot be loaded as plain tensors and values: {_first_line(error)} "
            "Files that hold code are never loaded; use an earlier checkpoint.",
            path=file,
        ) from error
    return _check_content(loaded, file)


def newest_good(folder: str | Path, *, report: Callable[[str], object]) -> Path | None:
    """Return the newest checkpoint of a folder that is sound, or None where there is none.

    Args:
        folder: The folder of the checkpoints.
        report: Called with one loud line for each damaged file that is passed over.
    """
    places = [Path(folder) / "last.ckpt", Path(folder) / "previous.ckpt"]
    for place in places:
        if not place.exists():
            continue
        try:
            load_checkpoint(place)
        except (DataError, InputError) as error:
            report(f"Damaged checkpoint passed over: {error}")
            continue
        return place
    return None


def sweep(folder: str | Path) -> int:
    """Remove temporary files that a killed run left in `folder`; return how many bytes came free."""
    freed = 0
    for part in Path(folder).glob(f"*{PART}"):
        owner = part.name.split(".")[-2]
        if owner.isdigit() and int(owner) != os.getpid() and _alive(int(owner)):
            continue
        with contextlib.suppress(FileNotFoundError):
            freed += part.stat().st_size
            part.unlink()
    return freed


def write_atomic(path: str | Path, write: Callable[[Path], None], *, needed: int = 0) -> str:
    """Write a file under a temporary name in the same folder, flush it, and rename it; return its SHA-256.

    Raises:
        RunError: The disk is full or the folder cannot be written; the text names the path, the bytes needed
            and the bytes free. What stood at `path` before is untouched.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}{PART}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise OSError(28, "No space left on device")
        write(part)
        with part.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        if target.suffix == ".ckpt":
            _enter(target, digest, part.stat().st_size)
            if target.name == "last.ckpt" and target.exists():
                target.replace(target.with_name("previous.ckpt"))
        part.replace(target)
        _fsync_folder(target.parent)
    except (OSError, RuntimeError) as error:
        size = part.stat().st_size if part.exists() else 0
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunError(_disk_text(target, max(needed, size), error)) from error
    return digest


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's door to the disk, through `write_atomic` and `load_checkpoint`."""

    def __init__(self) -> None:
        self._last_size = 0

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` whole or not at all."""
        write_atomic(path, lambda part: torch.save(checkpoint, part), needed=self._last_size)
        self._last_size = Path(path).stat().st_size

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load a checkpoint; always `weights_only`, whatever is asked."""
        return load_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint file."""
        Path(path).unlink(missing_ok=True)


def _local_file(path: str | Path) -> Path:
    if "://" in str(path):
        raise InputError(f"Expected a local file, but got the address {path!s}. Download it first.")
    file = Path(path)
    if not file.exists():
        raise InputError(f"Expected a checkpoint at {file}, but there is no such file.")
    if not file.is_file():
        raise InputError(f"Expected {file} to be a regular file.")
    return file


def _check_container(file: Path, max_bytes: int) -> None:
    size = file.stat().st_size
    if size == 0:
        raise DataError("the file is empty (0 bytes); use an earlier checkpoint.", path=file)
    if size > max_bytes:
        raise DataError(f"the file has {size} bytes, more than the limit of {max_bytes}.", path=file)
    with file.open("rb") as handle:
        head = handle.read(4)
    if head != b"PK\x03\x04":
        raise DataError(f"not a checkpoint: the file begins with {head!r}.", path=file)
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(
            f"the file is cut or damaged ({error}); use an earlier checkpoint.", path=file
        ) from error
    if unpacked > max(max_bytes, 0) or unpacked > 2 * size + 2**20:
        raise DataError(f"the file would unpack to {unpacked} bytes; it is not loaded.", path=file)


def _check_digest(file: Path) -> None:
    known = _manifest(file.parent)
    if not known:
        return
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if digest not in known:
        raise DataError(
            f"the file was altered since it was written: its SHA-256 {digest[:16]}... is not in "
            f"{MANIFEST}. Use an earlier checkpoint.",
            path=file,
        )


def _check_content(loaded: Any, file: Path) -> dict[str, Any]:
    if not isinstance(loaded, dict) or "state_dict" not in loaded:
        found = sorted(map(str, loaded))[:5] if isinstance(loaded, dict) else type(loaded).__name__
        raise DataError(f"not a checkpoint: expected the key 'state_dict', found {found}.", path=file)
    about = loaded.get("visionkit")
    made = about.get("format") if isinstance(about, dict) else None
    if isinstance(made, int) and made > FORMAT:
        raise DataError(f"format {made} is newer than this version reads ({FORMAT}); update.", path=file)
    version = str(loaded.get("pytorch-lightning_version", "0"))
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) > 2:
        raise DataError(f"written by Lightning {version}, newer than this version reads.", path=file)
    for name, value in loaded["state_dict"].items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise DataError(
                "holds values that are not finite; use an earlier checkpoint.", path=file, field=name
            )
    return loaded


def _manifest(folder: Path) -> dict[str, Any]:
    place = folder / MANIFEST
    if not place.is_file() or place.stat().st_size > 2**20:
        return {}
    try:
        loaded = json.loads(place.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _enter(target: Path, digest: str, size: int) -> None:
    known = _manifest(target.parent)
    known.pop(digest, None)
    known[digest] = {"file": target.name, "bytes": size}
    # The newest of each name suffice. The others' are kept: the best may be much older than the last.
    same = [key for key, entry in known.items() if isinstance(entry, dict) and entry["file"] == target.name]
    for key in same[:-KEPT]:
        del known[key]
    part = target.with_name(f"{MANIFEST}.{os.getpid()}{PART}")
    with part.open("w", encoding="utf-8") as handle:
        json.dump(known, handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(target.with_name(MANIFEST))


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_text(target: Path, needed: int, error: Exception) -> str:
    try:
        free: object = shutil.disk_usage(target.parent).free
    except OSError:
        free = "an unknown number of"
    return (
        f"{target} could not be written: {_first_line(error)} About {needed} bytes are needed and {free} "
        "bytes are free. Free some space or choose another --out, then start the same command again."
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else 'no message'}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
