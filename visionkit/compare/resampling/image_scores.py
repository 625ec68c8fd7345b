"""What each image added to the scores of a run: files written at an evaluation, read by a comparison."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.compare.resampling.weighted_scores import weighted_scores
from visionkit.files import write_atomic

__all__ = ["ImageScores", "read_image_scores", "write_image_scores"]

MAX_BYTES = 2**30


@dataclass(frozen=True)
class ImageScores:
    """The rows of one evaluation.

    Args:
        ids: The name of each image.
        groups: The group of each image, of those that were held out together; the image itself without.
        columns: By name: those of `visionkit.compare.resampling.weighted_scores`.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    @property
    def grouped(self) -> bool:
        """Return whether a group has more than one image."""
        return len(set(self.groups)) < len(self.groups)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Return the scores of the images as they are, by name without a split."""
        ones = np.ones((1, len(self.ids)), dtype=np.int64)
        return {name: float(value[0]) for name, value in weighted_scores(self.columns, ones).items()}


def write_image_scores(path: str | Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write "ids", "groups" where images have some, and the columns, atomically, as NumPy's `.npz`.

    Args:
        path: The file; its folder must exist.
        columns: By name.

    Raises:
        OSError: It cannot be written.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]

    write_atomic(path, write)


def read_image_scores(folder: str | Path, split: str) -> ImageScores | str:
    """Return the rows of a run's split, or a sentence on why there are none; no code in the file is run.

    Args:
        folder: The run's folder.
        split: "val" or "test".
    """
    path = Path(folder) / "predictions" / f"{split}-scores.npz"
    if not path.is_file():
        return f"there is no {path.name}"
    if path.stat().st_size > MAX_BYTES:
        return f"{path.name} is larger than {MAX_BYTES >> 20} MiB"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        ids = tuple(map(str, columns.pop("ids")))
        groups = tuple(map(str, columns.pop("groups", ids)))
        rows = ImageScores(ids, groups, columns)
        if not ids or len(groups) != len(ids) or not rows.scores:
            return f"{path.name} holds no rows"
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, EOFError) as error:
        return f"{path.name} cannot be read ({type(error).__name__}: {error})"
    return rows
