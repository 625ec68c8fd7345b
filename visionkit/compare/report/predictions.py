"""What a run wrote of its predictions, read back for the report: rows, thumbnails, who was taken for whom."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["confusion", "read_predictions", "thumbnail"]

LARGEST_FILE = 64 * 2**20
SIDE = 160


def read_predictions(folder: str | Path, name: str = "predictions/val.jsonl") -> list[dict[str, Any]]:
    """Return the rows of a predictions file that can be read; none where there is no file.

    Args:
        folder: The run's folder.
        name: Path of the file below it.
    """
    path = Path(folder) / name
    if not path.is_file() or path.stat().st_size > LARGEST_FILE:
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "id" in row:
                rows.append(row)
    return rows


def thumbnail(folder: str | Path, row: dict[str, Any]) -> bytes | None:
    """Return the image of a row as a small PNG, or None where there is none to show.

    Args:
        folder: The run's folder; a path that leads out of it is not followed.
        row: A row of the predictions file.
    """
    given = row.get("image")
    if not isinstance(given, str):
        return None
    root, path = Path(folder).resolve(), (Path(folder) / given).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > LARGEST_FILE:
        return None
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > 4096 * 4096:
                return None
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None
    # a strip of panels side by side keeps each of them as large as a single image
    panels = row.get("panels", 1)
    wide = SIDE * (panels if panels in (1, 2, 3, 4) else 1)
    image.thumbnail((wide, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def confusion(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> np.ndarray | None:
    """Count which class was taken for which.

    Args:
        rows: Rows with "truth" and "prediction", each the name of one class.
        classes: The K names.

    Returns:
        `(K, K)` int64, rows are the truth; None where the rows are not about single classes.
    """
    index = {name: position for position, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for row in rows:
        truth, guess = row.get("truth"), row.get("prediction")
        if isinstance(truth, str) and isinstance(guess, str) and truth in index and guess in index:
            counts[index[truth], index[guess]] += 1
    return counts if counts.any() else None
