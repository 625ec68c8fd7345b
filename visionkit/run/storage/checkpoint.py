"""Checkpoints: atomic writes, checked by SHA-256, loaded with `weights_only=True`.

A file is written to a temporary name in the same folder, flushed to the disk, entered into `manifest.json`
by its SHA-256, and only then renamed. So a file under a checkpoint's name is either complete and in the
manifest, or was damaged later and is refused. Loading never runs code: `weights_only=True` always, local
regular files only, and sizes are checked before anything is allocated.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from visionkit.backbones.weights import REFUSALS
from visionkit.errors import DataError, InputError, first_line
from visionkit.files import file_digest, local_path, write_text
from visionkit.run.storage.disk import write_file

__all__ = ["FORMAT", "AtomicCheckpointIO", "load_checkpoint", "newest_good"]

FORMAT = 1
MANIFEST = "manifest.json"
GIVE = "Give a .ckpt file that a run wrote into its folder checkpoints."
MAX_BYTES = 64 * 2**30
MAX_ENTRIES = 32  # of one file name: kills may leave some whose file was never renamed


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
        if isinstance(error, pickle.UnpicklingError):
            why = f"holds more than tensors and plain values ({first_line(error, prefer=REFUSALS)})"
            fix = "Files that may hold code are never loaded"
        else:
            why, fix = f"the file is damaged ({first_line(error).split('. ')[0]})", "It is not loaded"
        raise DataError(f"{why}. {fix}; use an earlier checkpoint.", path=file) from error
    return _check_content(loaded, file)


def newest_good(folder: str | Path, *, report: Callable[[str], object]) -> Path | None:
    """Return the newest undamaged checkpoint of a folder, or None where there is none.

    Args:
        folder: The folder of the checkpoints.
        report: Called with one line for each damaged file that is passed over.
    """
    for path in (Path(folder) / "last.ckpt", Path(folder) / "previous.ckpt"):
        if not path.exists():
            continue
        try:
            load_checkpoint(path)
        except (DataError, InputError) as error:
            report(f"Damaged checkpoint passed over: {error}")
            continue
        return path
    return None


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's `CheckpointIO` with atomic writes and `load_checkpoint`."""

    def __init__(self) -> None:
        self._last_size = 0

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` atomically; what was `last.ckpt` becomes `previous.ckpt`."""
        target = Path(path)

        def enter(part: Path) -> None:
            _enter(target, file_digest(part), part.stat().st_size)
            if target.name == "last.ckpt" and target.exists():
                target.replace(target.with_name("previous.ckpt"))

        needed = self._last_size
        write_file(target, lambda part: torch.save(checkpoint, part), needed=needed, before_rename=enter)
        self._last_size = target.stat().st_size

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
    file = local_path(path, "a checkpoint")
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
        raise DataError(f"not a checkpoint: the file begins with {head!r}. {GIVE}", path=file)
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
    digest = file_digest(file)
    if digest not in known:
        raise DataError(
            f"the file was altered since it was written: its SHA-256 {digest[:16]}... is not in "
            f"{MANIFEST}. Use an earlier checkpoint.",
            path=file,
        )


def _check_content(loaded: Any, file: Path) -> dict[str, Any]:
    if not isinstance(loaded, dict) or "state_dict" not in loaded:
        content = sorted(map(str, loaded))[:5] if isinstance(loaded, dict) else type(loaded).__name__
        raise DataError(
            f"not a checkpoint: expected the key 'state_dict', found {content}. {GIVE}", path=file
        )
    about = loaded.get("visionkit")
    written = about.get("format") if isinstance(about, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise DataError(f"format {written} is newer than this version reads ({FORMAT}); update.", path=file)
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
    path = folder / MANIFEST
    if not path.is_file() or path.stat().st_size > 2**20:
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _enter(file: Path, digest: str, size: int) -> None:
    known = _manifest(file.parent)
    known.pop(digest, None)
    known[digest] = {"file": file.name, "bytes": size}
    # The newest of this name suffice; other names stay: the best may be much older than the last.
    same = [key for key, entry in known.items() if isinstance(entry, dict) and entry["file"] == file.name]
    for key in same[:-MAX_ENTRIES]:
        del known[key]
    write_text(file.with_name(MANIFEST), json.dumps(known))
