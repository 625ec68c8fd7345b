"""Metrics of class maps over a data set, from one table of pixel counts.

The functional core turns class maps into integer counts and counts into scores; `SegmentationMetric` keeps
the counts on the device and adds them over processes with one all-reduce. Counts are int64, so the scores
are the same for any order of images, any batch size and any number of processes.

mIoU is the data set's: intersections and unions are summed over every pixel of every image before they are
divided (Everingham et al., "The Pascal Visual Object Classes Challenge", 2015), not averaged over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.boundary import boundary_counts

__all__ = ["SegmentationMetric", "SegmentationScores", "confusion_counts", "segmentation_scores"]


@dataclass(frozen=True)
class SegmentationScores:
    """The scores of one evaluation; NaN where there was nothing to score.

    Args:
        miou: Mean of `iou` over the classes that are in the targets or in a prediction.
        iou: Intersection over union of each class; NaN for a class that is in neither.
        pixel_accuracy: Fraction of the counted pixels whose class is right.
        mean_accuracy: Mean over the classes of the targets of the fraction of their pixels that is right.
        boundary_f: Mean over classes of the F score of boundary pixels; NaN if boundaries were not counted.
    """

    miou: float
    iou: tuple[float, ...]
    pixel_accuracy: float
    mean_accuracy: float
    boundary_f: float

    def all_named(self, classes: Sequence[str] | None = None) -> dict[str, float]:
        """Return every score by name, NaN too: `miou`, `pixel_accuracy`, ..., `iou/<class>`.

        Args:
            classes: Names of the classes; their numbers if not given.
        """
        names = [str(index) for index in range(len(self.iou))] if classes is None else list(classes)
        values = {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "boundary_f": self.boundary_f,
        }
        return values | {f"iou/{name}": value for name, value in zip(names, self.iou, strict=True)}

    def named(self, classes: Sequence[str] | None = None) -> dict[str, float]:
        """Return `all_named` without NaN."""
        return {name: value for name, value in self.all_named(classes).items() if value == value}


def confusion_counts(
    preds: Tensor, target: Tensor, *, num_classes: int, ignore_index: int | None = None
) -> Tensor:
    """Count the pixels of every pair (true class, predicted class).

    Args:
        preds: Class maps, any shape, integers in `0 .. num_classes - 1`.
        target: Class maps of the same shape.
        num_classes: Number of classes C.
        ignore_index: Pixels with this target are not counted.

    Returns:
        `(C, C)` int64; row: true class, column: predicted class.

    Raises:
        InputError: The shapes differ, or a value is neither a class nor `ignore_index`.
    """
    if preds.shape != target.shape:
        shapes = f"the truth's {tuple(target.shape)}", tuple(preds.shape)
        raise InputError(expected("the predicted map's shape", *shapes))
    if target.numel() == 0:
        return torch.zeros(num_classes, num_classes, dtype=torch.int64, device=target.device)
    rows, ignored_row = _table_rows(target, num_classes, ignore_index)
    bound = max(num_classes - 1, ignored_row)
    _check_range("predictions", preds, num_classes - 1, num_classes, ignore_index)
    _check_range("masks", rows, bound, num_classes, ignore_index)
    # The narrowest type that holds every pair: the work is bound by memory, and bincount takes any integer.
    narrow = torch.int16 if (bound + 1) * num_classes <= 2**15 else torch.int64
    pairs = rows.to(narrow).mul(num_classes).add_(preds.to(narrow)).reshape(-1)
    table = torch.bincount(pairs, minlength=(bound + 1) * num_classes).view(bound + 1, num_classes)
    unknown = [row for row in range(num_classes, bound + 1) if row != ignored_row and bool(table[row].any())]
    if unknown:
        raise InputError(_outside("masks", unknown, num_classes, ignore_index))
    if 0 <= ignored_row < num_classes:
        table[ignored_row] = 0
    return table[:num_classes]


def segmentation_scores(confusion: Tensor, boundary: Tensor | None = None) -> SegmentationScores:
    """Turn counts into scores.

    Args:
        confusion: `(C, C)` counts of `confusion_counts`, summed over the data set.
        boundary: `(C, 4)` counts of `boundary_counts`, summed over the data set.
    """
    counts = confusion.cpu().double()
    correct, target, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou = correct / (target + predicted - correct)  # 0 / 0 is NaN: the class is in neither
    return SegmentationScores(
        miou=float(iou.nanmean()),
        iou=tuple(iou.tolist()),
        pixel_accuracy=float(correct.sum() / counts.sum()),
        mean_accuracy=float((correct / target).nanmean()),
        boundary_f=float("nan") if boundary is None else _boundary_f(boundary.cpu().double()),
    )


class SegmentationMetric(ScoreMetric):
    """miou, pixel_accuracy, mean_accuracy, iou/<class> and, with a tolerance, boundary_f.

    `compute` gives NaN for what could not be scored, such as a class that no image has; `result` gives the
    same as `SegmentationScores`.

    Args:
        num_classes: Number of classes C.
        ignore_index: Pixels with this target are not counted.
        boundary_tolerance: How far apart, as a fraction of the image's diagonal, two boundary pixels may be
            and still match; 0 counts no boundaries.
        class_names: Names of the classes; their numbers if not given.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.
    """

    monitor = ("miou", "max")
    confmat: Tensor
    boundary: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = 255,
        boundary_tolerance: float = 0.0,
        class_names: Sequence[str] | None = None,
        score: str | None = None,
        **kwargs: Any,
    ) -> None:
        labels = [str(i) for i in range(num_classes)] if class_names is None else list(class_names)
        names = ["miou", "pixel_accuracy", "mean_accuracy"]
        names += (["boundary_f"] if boundary_tolerance > 0 else []) + [f"iou/{label}" for label in labels]
        super().__init__(names, score=score, **kwargs)
        if len(labels) != num_classes:
            raise InputError(expected("class_names", f"{num_classes} names", len(labels)))
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.boundary_tolerance = boundary_tolerance
        self.labels = labels
        shapes: dict[str, tuple[int, ...]] = {"confmat": (num_classes, num_classes)}
        if boundary_tolerance > 0:
            shapes["boundary"] = (num_classes, 4)
        self._add_sums(shapes, torch.int64)
        self._result = segmentation_scores(self.confmat)

    @torch.no_grad()
    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add images.

        Args:
            preds: `(H, W)` or `(B, H, W)` class maps, or logits with the classes in front of `(H, W)`.
            target: Class maps `(H, W)` or `(B, H, W)`.

        Raises:
            InputError: As `confusion_counts`.
        """
        if preds.is_floating_point() and preds.ndim == target.ndim + 1:
            preds = preds.argmax(dim=-3)
        classes, ignore = self.num_classes, self.ignore_index
        self.confmat += confusion_counts(preds, target, num_classes=classes, ignore_index=ignore)
        if self.boundary_tolerance <= 0:
            return
        size = target.shape[-2:]
        for pred_map, target_map in zip(preds.reshape(-1, *size), target.reshape(-1, *size)):
            self.boundary += boundary_counts(
                pred_map,
                target_map,
                num_classes=classes,
                ignore_index=ignore,
                tolerance=self.boundary_tolerance,
            )

    @torch.no_grad()
    def image_rows(self, preds: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the pixels of each class `(B, C)` in each image: "intersection", "target", "predicted".

        Args:
            preds: `(B, H, W)` class maps.
            target: Likewise.

        Raises:
            InputError: As `confusion_counts`.
        """
        counts = torch.stack([
            confusion_counts(*maps, num_classes=self.num_classes, ignore_index=self.ignore_index)
            for maps in zip(preds, target, strict=True)
        ])  # fmt: skip  # (B, C, C)
        return {
            "intersection": counts.diagonal(dim1=1, dim2=2),
            "target": counts.sum(2),
            "predicted": counts.sum(1),
        }

    def result(self) -> SegmentationScores:
        """Return the scores over all processes as one object; every process must call it."""
        self.compute_floats()
        return self._result

    def _scores(self) -> dict[str, float]:
        totals = self._totals()
        self._result = segmentation_scores(totals["confmat"], totals.get("boundary"))
        values = self._result.all_named(self.labels)
        return {name: values[name] for name in self.names}


def _table_rows(target: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, int]:
    """Return the target as table rows, and the row of the ignored pixels (-1: none)."""
    if ignore_index is None:
        return target, -1
    if 0 <= ignore_index <= 255:
        return target, ignore_index
    ignored = target == ignore_index
    if bool((target == num_classes).any()):
        raise InputError(_outside("masks", [num_classes], num_classes, ignore_index))
    return torch.where(ignored, num_classes, target), num_classes


def _check_range(
    what: str, values: Tensor, max_value: int, num_classes: int, ignore_index: int | None
) -> None:
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high > max_value:
        outside = sorted({value for value in (low, high) if not 0 <= value <= max_value})
        raise InputError(_outside(what, outside, num_classes, ignore_index))


def _outside(what: str, values: Sequence[int], num_classes: int, ignore_index: int | None) -> str:
    valid = f"classes 0 to {num_classes - 1}"
    if ignore_index is not None and what == "masks":
        valid += f" or the ignored value {ignore_index}"
    fix = "Map the values in the label map file, or set ignore_index." if what == "masks" else ""
    return expected(what, valid, list(values), fix=fix)


def _boundary_f(counts: Tensor) -> float:
    predicted, predicted_matches, target, target_matches = counts.unbind(1)  # each (C,)
    # F of precision p/P and recall t/T, written without the two divisions that may be by zero.
    numerator = 2 * predicted_matches * target_matches
    denominator = predicted_matches * target + target_matches * predicted
    score = torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0)
    present = (predicted + target) > 0
    return float(score[present].mean()) if bool(present.any()) else float("nan")
