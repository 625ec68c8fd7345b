"""What a trained embedding is scored beside: a network off the shelf, eigenimages and pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.backbones import describe_backbone
from visionkit.compare.sentences.number_text import format_statistics, percent
from visionkit.compare.statistics import seed_statistics
from visionkit.data.splits import GalleryName, Splits, WithGallery, single_labels
from visionkit.data.transforms.classification import classification_eval
from visionkit.errors import DataError, InputError, unknown_name
from visionkit.files import finite, to_plain, write_text
from visionkit.metrics import EmbeddingScores
from visionkit.predict.sources import SourceItem
from visionkit.retrieval.encoder import load_encoder
from visionkit.types import Reader

__all__ = [
    "BASELINES",
    "BaselineName",
    "Encode",
    "baseline_encoder",
    "check_baselines",
    "compared_runs",
    "embedding_scores",
    "run_encoder",
    "score_table",
    "trained_scores",
    "write_scores",
]

Encode: TypeAlias = Callable[[Reader], NDArray[np.float32]]
"""Gives the vectors `(N, D)` of the images of a reader."""

BaselineName: TypeAlias = Literal["off_the_shelf", "eigenimages", "pixels"]

BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
"""What needs no training: see `baseline_encoder`."""

PIXEL_SIDE = 64  # pixels are compared at this side, or a smaller one
COMPONENTS = 80
MAX_FITTED = 2000  # images that components are computed from: their products are 32 MB
_ROUNDING = 1e-9  # of an eigenvalue, relative to the largest
Scores: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]


def check_baselines(backbone: str) -> None:
    """Refuse a backbone that cannot be scored off the shelf, before anything is trained.

    Args:
        backbone: Its name.

    Raises:
        InputError: There is no such backbone, or it has no pretrained weights.
    """
    if not describe_backbone(backbone).pretrained:
        raise InputError(
            f"Expected a backbone with pretrained weights, to score them off the shelf, but {backbone} has "
            "none. Leave the baselines out (--retrieval.baselines false), or take another backbone."
        )


def baseline_encoder(
    name: BaselineName, train: Reader, *, backbone: str, image_size: int, device: str = "auto"
) -> Encode:
    """Return an encoder that is not trained for the task.

    Args:
        name: "off_the_shelf": the pooled features of the backbone's pretrained weights. "pixels": the pixels
            less their mean image, at 64 pixels a side at most. "eigenimages": their first 80 principal
            components, of at most 2,000 training images (of faces "eigenfaces", Turk and Pentland, 1991).
        train: The training images, of which the mean and the components are.
        backbone: A backbone's name, for "off_the_shelf".
        image_size: Side of the images in pixels.
        device: "auto", "cpu", "gpu" or "mps", for "off_the_shelf".

    Raises:
        InputError: There is no such baseline, or its backbone has no pretrained weights.
        DataError: All training images are alike, for "eigenimages".
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    if name == "off_the_shelf":
        return partial(_encode, load_encoder(backbone, image_size=image_size, device=device))
    image_size = min(image_size, PIXEL_SIDE)
    mean = _mean(train, image_size)
    if name == "pixels":
        return partial(_project, size=image_size, mean=mean, axes=None)
    rows = np.unique(np.linspace(0, len(train) - 1, min(MAX_FITTED, len(train))).astype(int))
    centred = np.stack([_pixels(train, int(row), image_size) - mean for row in rows])  # (N, P)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    # What is left of the directions in which the images do not differ is rounding.
    largest = np.flatnonzero(values > _ROUNDING * max(values[-1], 1.0))[::-1][:COMPONENTS]
    if not len(largest):
        raise DataError(f"Expected training images that differ, but all {len(rows)} are alike.")
    axes = centred.T @ vectors[:, largest]  # (P, 80), the largest first
    return partial(_project, size=image_size, mean=mean, axes=axes / np.linalg.norm(axes, axis=0))


def run_encoder(folder: str | Path, *, device: str = "auto", which: str = "best") -> Encode:
    """Return the encoder that a run trained.

    Args:
        folder: A run, see `load_encoder`.
        device: "auto", "cpu", "gpu" or "mps".
        which: "best" or "last".

    Raises:
        InputError: There is no run.
        DataError: Its checkpoint is damaged.
    """
    return partial(_encode, load_encoder(folder, device=device, which=which))


def embedding_scores(encode: Encode, splits: Splits, *, gallery: GalleryName = "split") -> dict[str, float]:
    """Return the `EmbeddingScores` of the test split, or of the validation split where there is none.

    Args:
        encode: Gives vectors.
        splits: A data set of one class an image.
        gallery: What the images are searched among: "split" (the others of theirs) or "train".

    Raises:
        InputError: The data set does not say one class an image.
        DataError: A vector is not finite.
    """
    queries = splits.val if splits.test is None else splits.test
    read = WithGallery(queries, splits.train) if gallery == "train" else queries
    labels = single_labels(read)
    if labels is None:
        raise InputError(f"Expected one class an image, but {splits.name} does not say the class of each.")
    apart = torch.arange(len(read)) >= len(queries) if gallery == "train" else None
    scores = EmbeddingScores()
    vectors = torch.from_numpy(encode(read))
    scores.update(vectors, torch.from_numpy(labels), getattr(read, "ids", None), apart)
    return scores.compute_floats()


def compared_runs(out: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Return the runs that the comparison in a recipe's folder is of, as `comparison.json` has them.

    Args:
        out: The folder.

    Returns:
        Runs by arm; those of another fraction of the data or another schedule are rows of their own:
        "scratch, 10% of the data, 2x".

    Raises:
        OSError: There is no comparison.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in json.loads((Path(out) / "comparison.json").read_text(encoding="utf-8"))["runs"]:
        data = "" if run["fraction"] == 1 else f", {percent(run['fraction'])} of the data"
        schedule = "" if run["schedule"] == 1 else f", {run['schedule']}x"
        rows.setdefault(f"{run['arm']}{data}{schedule}", []).append(run)
    return rows


def trained_scores(out: str | Path) -> dict[str, list[dict[str, float]]]:
    """Return the test scores of `compared_runs`; those of validation where there is no test split.

    Args:
        out: The folder of a recipe's runs.

    Raises:
        OSError: There is no comparison.
    """

    def scores(metrics: Mapping[str, float | None]) -> dict[str, float]:
        split = "test" if any(name.startswith("test/") for name in metrics) else "val"
        return {
            name.removeprefix(f"{split}/"): float(value)
            for name, value in metrics.items()
            if name.startswith(f"{split}/") and value is not None
        }

    return {name: [scores(run["metrics"]) for run in runs] for name, runs in compared_runs(out).items()}


def score_table(rows: Scores, columns: Sequence[str]) -> str:
    """Return scores as a Markdown table: the mean of each row's runs, ± their standard deviation.

    A dash stands where a run has no such score, or one that is not finite.

    Args:
        rows: By name, the scores of one or more runs each.
        columns: Names of scores.
    """

    def cell(runs: Sequence[Mapping[str, float]], column: str) -> str:
        values = [float(run.get(column, np.nan)) for run in runs]
        return format_statistics(seed_statistics(values) if np.isfinite(values).all() else None)

    lines = [f"| vectors | runs | {' | '.join(columns)} |", f"|---|---:|{'---:|' * len(columns)}"]
    for name, runs in rows.items():
        cells = [cell(runs, column) for column in columns]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_scores(out: str | Path, rows: Scores, columns: Sequence[str]) -> str:
    """Write `scores.md` and `scores.json` into a folder, and return the table.

    Args:
        out: The folder.
        rows: By name, the scores of one or more runs each.
        columns: Those of the table; the second file has all.

    Raises:
        OSError: The folder cannot be written.
    """
    table = score_table(rows, columns)
    write_text(Path(out) / "scores.md", f"{table}\n")
    plain = {name: [dict(run) for run in runs] for name, runs in rows.items()}
    write_text(Path(out) / "scores.json", json.dumps(to_plain(plain, finite), indent=1) + "\n")
    return table


def _encode(encoder: Any, reader: Reader) -> NDArray[np.float32]:
    def read(index: int) -> Tensor:
        return reader[index]["image"]

    items = [SourceItem(str(index), None, partial(read, index)) for index in range(len(reader))]
    return np.stack([result.prediction.vector.numpy() for result in encoder.stream(items)])


def _pixels(reader: Reader, index: int, size: int) -> NDArray[np.float32]:
    """Return the centre square of an image as `(3 * size * size,)` in [0, 1]."""
    sample = classification_eval(size)(reader[index], torch.Generator())
    pixels: NDArray[np.float32] = sample["image"].numpy().reshape(-1).astype(np.float32) / np.float32(255)
    return pixels


def _mean(reader: Reader, size: int) -> NDArray[np.float64]:
    """Return the mean of all images, of which one is held at a time."""
    total = np.zeros(3 * size * size)
    for index in range(len(reader)):
        total += _pixels(reader, index, size)
    return total / len(reader)


def _project(
    reader: Reader, *, size: int, mean: NDArray[Any], axes: NDArray[Any] | None
) -> NDArray[np.float32]:
    rows = []
    for index in range(len(reader)):
        row = _pixels(reader, index, size) - mean
        rows.append((row if axes is None else row @ axes).astype(np.float32))
    return np.stack(rows)
