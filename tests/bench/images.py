"""Images for the rows: a folder of JPEGs like photographs in size, shape and bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["photo", "write_folder"]


def photo(height: int, width: int, seed: int) -> Image.Image:
    """An image with detail at several scales: about 60 kB as a JPEG of 375 x 500 at quality 92."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((5, 70.0), (24, 45.0), (90, 22.0), (width // 2, 9.0)):
        small = rng.integers(0, 256, (max(2, cells * height // width), cells, 3), dtype=np.uint8)
        grown = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(grown, np.float32) - 128) * (weight / 64)
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


def write_folder(root: Path, count: int, *, height: int = 375, width: int = 500) -> Path:
    """Write `root/{train,val}/{a,b}/*.jpg`, `count` for training and two for validation; return `root`."""
    for split, number in (("train", count), ("val", 2)):
        for index in range(number):
            folder = root / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            stream = io.BytesIO()
            photo(height, width, index).save(stream, "JPEG", quality=92)
            (folder / f"{index:04d}.jpg").write_bytes(stream.getvalue())
    return root
