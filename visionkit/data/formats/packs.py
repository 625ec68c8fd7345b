"""Packs as data sets: on this machine, or at an address."""

from __future__ import annotations

from pathlib import Path

from visionkit.data.formats.options import OpenOptions
from visionkit.data.formats.source import Source
from visionkit.data.pack.reader import check_pack, open_pack
from visionkit.data.pack.stream import check_stream, open_stream

__all__ = ["read_pack", "read_stream"]

_FIELDS: dict[str, tuple[str, ...]] = {
    "classification": ("label",),
    "detection": ("boxes",),
    "segmentation": ("mask",),
    "captioning": ("captions",),
    "keypoints": ("boxes", "keypoints"),
}


def read_pack(path: Path, task: str, options: OpenOptions) -> Source:
    """Read a pack on this machine.

    Args:
        path: Its folder.
        task: What it is read for.
        options: What the caller knows of it.
    """
    fields = _fields(task, options)
    return Source(lambda max_dropped: open_pack(path, fields=fields), lambda left_out: check_pack(path))


def read_stream(address: str, task: str, options: OpenOptions) -> Source:
    """Read a pack at an address.

    Args:
        address: Of its folder.
        task: What it is read for.
        options: What the caller knows of it, with the folder that shards are fetched into.

    Raises:
        InputError: There is no such folder.
    """
    config, fields = options.stream, _fields(task, options)
    given: dict[str, int] = {"max_bytes": round(config.max_gb * 1e9), "window": config.window}
    folder = config.folder(address)
    return Source(
        lambda max_dropped: open_stream(address, folder, **given, fields=fields),
        lambda left_out: check_stream(address, folder, **given),
    )


def _fields(task: str, options: OpenOptions) -> tuple[str, ...]:
    """Return what the samples of a pack must have; it is checked whatever they have."""
    if options.check:
        return ()
    return (*_FIELDS[task], "masks") if task == "detection" and options.masks else _FIELDS[task]
