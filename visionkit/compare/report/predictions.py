"""The predictions that a run wrote, read for the report: rows, images, precision-recall curves."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

__all__ = ["open_image", "read_curves", "read_predictions", "thumbnail"]

MAX_FILE_BYTES = 64 * 2**20
MAX_CURVES_BYTES = 16 * 2**20
SIDE = 320


def read_predictions(
    folder: str | Path, name: str = "predictions/val.jsonl", *, notes: list[str] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a predictions file that can be read; none if there is no file.

    Args:
        folder: The run's folder.
        name: Path of the file below it.
        notes: Gets a sentence on what was left out, if anything was.
    """
    path, left_out = Path(folder) / name, notes if notes is not None else []
    if not path.is_file():
        return []
    if path.stat().st_size > MAX_FILE_BYTES:
        left_out.append(f"{name} is left out: it is larger than {MAX_FILE_BYTES >> 20} MiB")
        return []
    rows, faulty = [], []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and "id" in row:
                rows.append(row)
            else:
                faulty.append(number)
    if faulty:
        left_out.append(
            f"{name}: {len(faulty)} of {len(rows) + len(faulty)} lines are left out, which are no rows (the "
            f"first is line {faulty[0]})"
        )
    return rows


def open_image(folder: str | Path, row: dict[str, Any], key: str = "image") -> Image.Image | None:
    """Return an image that a row of the predictions file names, or None if it has none that can be read.

    Args:
        folder: The run's folder; a path that leads out of it is not followed.
        row: A row of the predictions file.
        key: "image", or "truth_map" and "prediction_map", whose pixels are class numbers.
    """
    name = row.get(key)
    if not isinstance(name, str):
        return None
    root, path = Path(folder).resolve(), (Path(folder) / name).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return None
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > 4096 * 4096:
                return None
            opened.load()
            return opened.convert("RGB") if key == "image" else opened.copy()
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None


def thumbnail(image: Image.Image, side: int = SIDE) -> bytes:
    """Return an image as a small JPEG.

    Args:
        image: The image.
        side: Pixels of its longer side at most.
    """
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=84, optimize=True)
    return out.getvalue()


def read_curves(folder: str | Path) -> dict[str, Any]:
    """Return `curves` (class to 101 precisions) and `ap` (class to AP) of a run; empty where there are none.

    Args:
        folder: The run's folder.
    """
    path = Path(folder) / "predictions" / "curves.json"
    if not path.is_file() or path.stat().st_size > MAX_CURVES_BYTES:
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        curves = {str(name): [float(v) for v in values] for name, values in table["curves"].items()}
        ap = {str(name): float(value) for name, value in table["ap"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    valid = all(len(values) == 101 for values in curves.values())
    return {"curves": curves, "ap": ap} if valid and all(map(math.isfinite, ap.values())) else {}
