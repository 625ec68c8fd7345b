"""Previews of embedding: neighbour sheets, the hardest pairs, and the curves of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from visionkit.data.datamodule import DataModule
from visionkit.data.keyed_dataset import KeyedDataset
from visionkit.drawing.panels import BAD, GOOD, INK, PAPER, caption_panel, join_grid, save_image
from visionkit.files import write_text
from visionkit.metrics.embedding.images import ImagePairs
from visionkit.metrics.embedding.rows import ImageRows, image_keys
from visionkit.metrics.embedding.verification import roc_points
from visionkit.run.previews.callback import Preview, is_last_validation, random_order
from visionkit.run.previews.classification import ClassPreview
from visionkit.run.previews.to_pil import to_pil
from visionkit.types import Key

__all__ = ["NeighborPreview"]

NEIGHBORS = 6
QUERIES = 8
PAIRS = 6  # of each kind
RANKS = 20  # of the curve of recall
_CURVE_POINTS = 200
_BLOCK = 512
_SIDE = 96


class NearestKind(ClassPreview):
    """Describes an image by the class of its nearest neighbour; a `PreviewKind`.

    Args:
        classes: The names, by label.
    """

    def panel(self, images: dict[str, Image.Image], row: dict[str, Any]) -> Image.Image:
        """Return the image with its class and that of its nearest neighbour below it."""
        right = row["prediction"] == row["truth"]
        lines = [(f"is {row['truth']}", None), (f"nearest: {row['prediction']} {row['cosine']:.2f}", right)]
        return caption_panel(images["image"], lines)


class NeighborPreview(Preview):
    """Writes what the last validation of an `Embedder` shows.

    Beside the training batch and the worst and some random images of `Preview` (the worst are those to which
    another class lies nearer than their own, by most): `figures/neighbors.jpg` (queries that every arm has,
    each with its nearest images), `figures/pairs.jpg` (the pairs of one class that are least alike, and those
    of two that are most), and `predictions/pairs.json` (ROC of the pairs, recall by rank).

    Args:
        folder: The run's folder.
        classes: Names of the classes, by label.
        split: What is validated, for the names of the files.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], *, split: str = "val") -> None:
        super().__init__(folder, NearestKind(classes), split=split)
        self.classes = list(classes)
        self._last = False

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note whether this is the last validation; the vectors are collected by the task's scores."""
        self._last = is_last_validation(trainer)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        """Do nothing: the vectors of one batch have no neighbours yet."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw and write, on the first process, from the vectors of all."""
        scores: Any = getattr(pl_module, "scores", None)
        data = getattr(trainer, "datamodule", None)
        images: ImageRows | None = getattr(scores, "images", None)
        if not self._last or self.problem or images is None or not trainer.is_global_zero:
            return
        if not isinstance(data, DataModule) or len(images.vectors) < 2:
            return
        with self.best_effort("Previews"):
            _Sheets(self, images, scores.pairs, data).write()


class _Sheets:
    def __init__(
        self, preview: NeighborPreview, images: ImageRows, pairs: ImagePairs, data: DataModule
    ) -> None:
        self.preview, self.images, self.pairs = preview, images, pairs
        reader = data.eval_reader("val")
        self.plain = KeyedDataset(reader, data.eval_transform, seed=data.seed, on_error="drop")
        self.ids = [str(name) for name in _ids(reader)]
        known = dict(zip(image_keys(self.ids, len(self.ids)).tolist(), range(len(self.ids)), strict=True))
        self.index = [known.get(key, -1) for key in images.keys.tolist()]  # of each row in the reader
        self.queries = (images.roles != 1).nonzero().flatten()  # rows that are searched with
        self.others = (images.roles != 0).nonzero().flatten()  # and among
        self.read: dict[int, Image.Image] = {}

    def write(self) -> None:
        preview, figures = self.preview, self.preview.folder / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        rows, nearest = self._rows()
        of_query = self.queries.tolist()
        preview.write_rows(rows, lambda index, row: {"image": self._image(of_query[index])})
        order = sorted(range(len(rows)), key=lambda row: random_order(rows[row]["id"]))
        save_image(self._sheet(order[:QUERIES], nearest), figures / "neighbors.jpg", {"quality": 90})
        hardest = self._pairs()
        if hardest is not None:
            save_image(hardest, figures / "pairs.jpg", {"quality": 90})
        path = preview.folder / "predictions" / "pairs.json"
        write_text(path, json.dumps(self._curves()) + "\n")

    def _rows(self) -> tuple[list[dict[str, Any]], Tensor]:
        """Return a row of the predictions file for each query, and the rows of its neighbours `(Q, k)`."""
        vectors, labels = self.images.vectors, self.images.labels
        count = min(max(NEIGHBORS, RANKS), len(self.others) - int((self.images.roles < 0).any()))
        near, values, gaps = [], [], []
        for rows in self.queries.split(_BLOCK):
            cosines = vectors[rows] @ vectors[self.others].T
            cosines[rows[:, None] == self.others] = -torch.inf  # an image is no neighbour of its own
            same = labels[rows, None] == labels[self.others]
            best_other, best_own = (
                cosines.masked_fill(same, -1).amax(1),
                cosines.masked_fill(~same, -1).amax(1),
            )
            gaps.append(best_other - best_own.clamp(min=-1))
            top = cosines.topk(count, dim=1)
            near.append(self.others[top.indices])
            values.append(top.values[:, 0])
        nearest = torch.cat(near).cpu()
        name = self._name
        columns = (self.queries.tolist(), nearest[:, 0].tolist(), torch.cat(values).tolist())
        rows_of_images = [
            {
                "id": self.ids[self.index[row]] if self.index[row] >= 0 else f"image {row}",
                "truth": name(int(labels[row])),
                "prediction": name(int(labels[first])),
                "confidence": None,
                "cosine": round(cosine, 6),
                "loss": round(gap, 6),
            }
            for row, first, cosine, gap in zip(*columns, torch.cat(gaps).tolist(), strict=True)
        ]
        self.nearest = nearest
        return rows_of_images, nearest

    def _sheet(self, queries: Sequence[int], nearest: Tensor) -> Image.Image:
        """Return a line for each query: the image, and its neighbours, framed by whether they are right."""
        labels, panels = self.images.labels.tolist(), []
        vectors = self.images.vectors
        count = min(NEIGHBORS, nearest.shape[1])
        for number in queries:
            query = int(self.queries[number])
            panels.append(self._framed(query, INK, f"{self._name(labels[query])}:"))
            for other in nearest[number, :count].tolist():
                right = labels[other] == labels[query]
                text = f"{self._name(labels[other])} {float(vectors[query] @ vectors[other]):.2f}"
                panels.append(self._framed(other, GOOD if right else BAD, text, right=right))
        return join_grid(panels, columns=count + 1)

    def _pairs(self) -> Image.Image | None:
        """Return the least alike pairs of one class on the left, and the most alike of two on the right."""
        pairs, labels, of_query = self.pairs, self.images.labels.tolist(), self.queries.tolist()
        lines = []
        for same in (True, False):
            rows = np.flatnonzero(pairs.same == same)
            rows = rows[np.argsort(pairs.scores[rows] if same else -pairs.scores[rows], kind="stable")]
            lines.append(rows[:PAIRS].tolist())
        panels = []
        for left, right in zip(*lines):
            for row, right_color in ((left, GOOD), (right, BAD)):
                for image in (of_query[int(pairs.first[row])], of_query[int(pairs.second[row])]):
                    text = f"{self._name(labels[image])} {pairs.scores[row]:.2f}"
                    panels.append(self._framed(image, right_color, text))
        return join_grid(panels, columns=4) if panels else None

    def _curves(self) -> dict[str, Any]:
        labels, queries, others = (each.cpu() for each in (self.images.labels, self.queries, self.others))
        hits = labels[self.nearest] == labels[queries, None]
        counts = torch.bincount(labels[others], minlength=int(labels.max()) + 1)[labels[queries]]
        served = hits[counts > (self.images.roles[self.queries].cpu() < 0)]  # one of both is its own like
        recall = [float(served[:, :k].any(1).float().mean()) for k in range(1, served.shape[1] + 1)]
        curve: dict[str, Any] = {"recall": recall if len(served) else []}
        if self.pairs.same.any() and not self.pairs.same.all():
            far, tar = roc_points(self.pairs.scores, self.pairs.same)
            # As many points for low false accept rates, which are drawn on a logarithmic axis, as for all.
            grid = np.append(np.linspace(0, 1, _CURVE_POINTS), np.geomspace(1e-4, 1, _CURVE_POINTS))
            grid = np.unique(grid)
            rows = np.searchsorted(far, grid, side="right") - 1
            curve |= {"far": grid.round(6).tolist(), "tar": tar[rows].round(6).tolist()}
            curve["auc"] = float(np.trapezoid(tar, far))
        return curve

    def _framed(self, row: int, color: str, text: str, *, right: bool | None = None) -> Image.Image:
        image = ImageOps.expand(self._image(row), 3, fill=color)
        return caption_panel(image, [(text, right)], side=_SIDE + 6)

    def _image(self, row: int) -> Image.Image:
        """Return an image as the network sees it, small; an empty one where it cannot be read again."""
        if row not in self.read:
            index = self.index[row]
            sample = None if index < 0 else self.plain[Key(0, index)]
            self.read[row] = (
                to_pil(sample["image"], side=_SIDE)
                if isinstance(sample, dict)
                else Image.new("RGB", (_SIDE, _SIDE), PAPER)
            )
        return self.read[row]

    def _name(self, label: int) -> str:
        names = self.preview.classes
        return names[label] if 0 <= label < len(names) else f"class {label}"


def _ids(reader: Any) -> list[Any]:
    """Return the ids of a reader's samples, or of those of the readers that it joins; else their numbers."""
    ids = getattr(reader, "ids", None)
    if ids is not None:
        return list(ids)
    parts = getattr(reader, "datasets", None)
    return list(range(len(reader))) if parts is None else [name for part in parts for name in _ids(part)]
