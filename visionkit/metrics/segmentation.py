"""Scores of class maps over a data set, from one table of pixel counts.

The functional core turns class maps into integer counts and counts into scores; the shell `SegmentationMeter`
keeps the running counts on the device and adds them over processes with one all-reduce. Counts are int64, so
the scores are the same for any order of images, any batch size and any number of processes.

mIoU is the data set's: intersections and unions are summed over every pixel of every image before they are
divided (Everingham et al., "The Pascal Visual Object Classes Challenge", 2015), not averaged over images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionkit.distributed import all_reduce
from visionkit.errors import InputError, expected
from visionkit.metrics.boundary import boundary_counts

__all__ = ["SegmentationMeter", "SegmentationScores", "confusion_counts", "segmentation_scores"]


@dataclass(frozen=True)
class SegmentationScores:
    """The scores of one evaluation; NaN where nothing was there to be scored.

    Args:
        miou: Mean of `iou` over the classes that are in the truth or in a prediction.
        iou: Intersection over union of each class; NaN for a class that is in neither.
        pixel_accuracy: Share of the counted pixels whose class is right.
        mean_accuracy: Mean over the classes of the truth of the share of their pixels that is right.
        boundary_f: Mean over classes of the F score of boundary pixels; NaN if boundaries were not counted.
    """

    miou: float
    iou: tuple[float, ...]
    pixel_accuracy: float
    mean_accuracy: float
    boundary_f: float

    def named(self, classes: Sequence[str] | None = None) -> dict[str, float]:
        """Return what there is by name, without NaN: `miou`, `pixel_accuracy`, ..., `iou/<class>`.

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
        values |= {f"iou/{name}": value for name, value in zip(names, self.iou, strict=True)}
        return {name: value for name, value in values.items() if value == value}


def confusion_counts(
    predictions: Tensor, truths: Tensor, *, num_classes: int, ignore_index: int | None = None
) -> Tensor:
    """Count the pixels of every pair (true class, predicted class).

    Args:
        predictions: Class maps, any shape, integers in `0 .. num_classes - 1`.
        truths: Class maps of the same shape.
        num_classes: Number of classes C.
        ignore_index: Pixels with this truth are not counted.

    Returns:
        `(C, C)` int64; row: true class, column: predicted class.

    Raises:
        InputError: The shapes differ, or a value is neither a class nor `ignore_index`.
    """
    if predictions.shape != truths.shape:
        raise InputError(
            expected(
                "the predicted map's shape", f"the truth's {tuple(truths.shape)}", tuple(predictions.shape)
            )
        )
    if truths.numel() == 0:
        return torch.zeros(num_classes, num_classes, dtype=torch.int64, device=truths.device)
    rows, ignored_row = _rows(truths, num_classes, ignore_index)
    bound = max(num_classes - 1, ignored_row)
    _check_range("predictions", predictions, num_classes - 1, num_classes, ignore_index)
    _check_range("masks", rows, bound, num_classes, ignore_index)
    # The narrowest type that holds every pair: the work is bound by memory, and bincount takes any integer.
    small = torch.int16 if (bound + 1) * num_classes <= 2**15 else torch.int64
    pairs = rows.to(small).mul(num_classes).add_(predictions.to(small)).reshape(-1)
    table = torch.bincount(pairs, minlength=(bound + 1) * num_classes).view(bound + 1, num_classes)
    strangers = [
        row for row in range(num_classes, bound + 1) if row != ignored_row and bool(table[row].any())
    ]
    if strangers:
        raise InputError(_outside("masks", strangers, num_classes, ignore_index))
    if 0 <= ignored_row < num_classes:
        table[ignored_row] = 0
    return table[:num_classes]


def segmentation_scores(confusion: Tensor, boundary: Tensor | None = None) -> SegmentationScores:
    """Turn counts into scores.

    Args:
        confusion: `(C, C)` counts of `confusion_counts`, summed over the data set.
        boundary: `(C, 4)` counts of `boundary_counts`, summed over the data set.
    """
    counts = confusion.double().cpu()
    hits, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou = hits / (truth + predicted - hits)  # 0 / 0 is NaN: the class is in neither
    return SegmentationScores(
        miou=float(iou.nanmean()),
        iou=tuple(iou.tolist()),
        pixel_accuracy=float(hits.sum() / counts.sum()),
        mean_accuracy=float((hits / truth).nanmean()),
        boundary_f=float("nan") if boundary is None else _boundary_f(boundary.double().cpu()),
    )


class SegmentationMeter(nn.Module):
    """Running counts of an evaluation, on the device of the module that holds it.

    Args:
        num_classes: Number of classes C.
        ignore_index: Pixels with this truth are not counted.
        boundary_tolerance: How far apart, as a share of the image's diagonal, two boundary pixels may be
            and still match; 0 counts no boundaries.
    """

    counts: Tensor

    def __init__(
        self, num_classes: int, *, ignore_index: int | None = 255, boundary_tolerance: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.boundary_tolerance = boundary_tolerance
        # One tensor, so that one all-reduce carries everything: (C, C) pairs, then (C, 4) boundary counts.
        # No registered buffer: `DistributedDataParallel` broadcasts those from the first process.
        self.counts = torch.zeros(num_classes, num_classes + 4, dtype=torch.int64)

    def update(self, predictions: Tensor, truths: Tensor) -> None:
        """Add images.

        Args:
            predictions: `(H, W)` or `(B, H, W)` class maps.
            truths: Class maps of the same shape.

        Raises:
            InputError: As `confusion_counts`.
        """
        classes = self.num_classes
        counts = confusion_counts(predictions, truths, num_classes=classes, ignore_index=self.ignore_index)
        self.counts[:, :classes] += counts
        if self.boundary_tolerance <= 0:
            return
        height, width = truths.shape[-2:]
        for prediction, truth in zip(predictions.view(-1, height, width), truths.view(-1, height, width)):
            self.counts[:, classes:] += boundary_counts(
                prediction,
                truth,
                num_classes=classes,
                ignore_index=self.ignore_index,
                tolerance=self.boundary_tolerance,
            )

    def reduce(self) -> SegmentationScores:
        """Return the scores over all processes; every process must call it."""
        counts = all_reduce(self.counts.clone()).cpu()
        boundary = counts[:, self.num_classes :] if self.boundary_tolerance > 0 else None
        return segmentation_scores(counts[:, : self.num_classes], boundary)

    def reset(self) -> None:
        """Forget every image."""
        self.counts.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SegmentationMeter:
        super()._apply(fn, recurse)
        self.counts = self.counts.to(fn(torch.empty(0, device=self.counts.device)).device)
        return self


def _rows(truths: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, int]:
    """Return the truths as table rows, and the row of the ignored pixels (-1: none)."""
    if ignore_index is None:
        return truths, -1
    if 0 <= ignore_index <= 255:
        return truths, ignore_index
    ignored = truths == ignore_index
    if bool((truths == num_classes).any()):
        raise InputError(_outside("masks", [num_classes], num_classes, ignore_index))
    return torch.where(ignored, num_classes, truths), num_classes


def _check_range(what: str, values: Tensor, top: int, num_classes: int, ignore_index: int | None) -> None:
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high > top:
        found = sorted({value for value in (low, high) if not 0 <= value <= top})
        raise InputError(_outside(what, found, num_classes, ignore_index))


def _outside(what: str, values: Sequence[int], num_classes: int, ignore_index: int | None) -> str:
    wanted = f"classes 0 to {num_classes - 1}"
    if ignore_index is not None and what == "masks":
        wanted += f" or the ignored value {ignore_index}"
    fix = "Map the values in the label map file, or set ignore_index." if what == "masks" else ""
    return expected(what, wanted, list(values), fix=fix)


def _boundary_f(counts: Tensor) -> float:
    predicted, predicted_hits, truth, truth_hits = counts.unbind(1)  # each (C,)
    # F of precision p/P and recall t/T, written without the two divisions that may be by zero.
    numerator = 2 * predicted_hits * truth_hits
    denominator = predicted_hits * truth + truth_hits * predicted
    score = torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0)
    seen = (predicted + truth) > 0
    return float(score[seen].mean()) if bool(seen.any()) else float("nan")
