"""Metrics of single-label and multi-label classification, and of regression.

`update` reads nothing back from the device. `compute` does one collective (multi-label precision needs the
scores themselves: two more) and one copy to the host, and gives the same values on every process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.scores import average_precision, calibration_error, f1_scores

__all__ = ["MultiLabelScores", "RegressionScores", "SingleLabelScores"]

_MAX_CONFUSION = 2048  # above so many classes the confusion matrix (8 bytes a cell) is not counted
_BINS = 15


class _LossMetric(ScoreMetric):
    """A metric of images that also gives the mean of their losses, where it gets losses."""

    loss: Tensor
    loss_count: Tensor
    count: Tensor

    def image_rows(self, preds: Tensor, target: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Return what each image of a batch adds to the scores: columns with a row an image.

        A score is the mean of the column "mean.SCORE" where there is one.

        Args:
            preds: As `update` takes them.
            target: Likewise.
            losses: `(B,)`.
        """
        return {"mean.loss": losses.float()}

    def _add_losses(self, losses: Tensor | None) -> None:
        if losses is not None:
            self.loss.add_(losses.to(self.loss.dtype).sum())
            self.loss_count.add_(len(losses))

    def _mean_loss(self, totals: dict[str, Tensor]) -> dict[str, float]:
        losses = totals["loss_count"].item()
        return {"loss": totals["loss"].item() / losses} if losses else {}


class SingleLabelScores(_LossMetric):
    """top1, top5 (above five classes), macro_f1, ece and loss; and the confusion matrix.

    Macro F1 is the mean over the classes that occur or are predicted; ece has 15 bins of the largest
    probability. `confusion` is the last `compute`'s `(K, K)` int64 matrix on the host (row: target, column:
    prediction), or None above 2048 classes.

    Args:
        num_classes: Number of classes K.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.
    """

    monitor = ("top1", "max")
    top5: Tensor
    classes: Tensor
    bins: Tensor
    confmat: Tensor

    def __init__(self, num_classes: int, *, score: str | None = None, **kwargs: Any) -> None:
        names = ["loss", "top1", "macro_f1", "ece"] + (["top5"] if num_classes > 5 else [])
        super().__init__(names, score=score, **kwargs)
        self.num_classes = num_classes
        shapes: dict[str, tuple[int, ...]] = {"loss": (), "loss_count": (), "count": (), "top5": ()}
        # classes: correct, predicted, actual images of each class; bins: images, confidence, correct images.
        shapes |= {"classes": (3, num_classes), "bins": (3, _BINS)}
        if num_classes <= _MAX_CONFUSION:
            shapes["confmat"] = (num_classes, num_classes)
        self._add_sums(shapes)
        self.confusion: Tensor | None = None

    @torch.no_grad()
    def update(self, preds: Tensor, target: Tensor, losses: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: Logits `(B, K)`.
            target: Classes `(B,)` int64.
            losses: `(B,)`.
        """
        probabilities = preds.float().softmax(dim=1)
        top = probabilities.topk(min(5, self.num_classes), dim=1).indices  # (B, 5)
        predicted = top[:, 0]
        confidence = probabilities.gather(1, top[:, :1]).squeeze(1)
        correct = predicted == target
        self._add_losses(losses)
        self.count.add_(len(target))
        self.top5.add_((top == target.unsqueeze(1)).any(dim=1).sum())
        ones = self.count.new_ones(len(target))
        self.classes[0].index_add_(0, target, correct.to(ones))
        self.classes[1].index_add_(0, predicted, ones)
        self.classes[2].index_add_(0, target, ones)
        bin_index = (confidence * _BINS).ceil().long().clamp(1, _BINS) - 1
        for total, value in zip(self.bins, (ones, confidence.to(ones), correct.to(ones))):
            total.index_add_(0, bin_index, value)
        if self.num_classes <= _MAX_CONFUSION:
            self.confmat.view(-1).index_add_(0, target * self.num_classes + predicted, ones)

    @torch.no_grad()
    def image_rows(self, preds: Tensor, target: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Return loss, top1 and, above five classes, top5 of each image of a batch `(B,)`."""
        top = preds.float().softmax(dim=1).topk(min(5, self.num_classes), dim=1).indices
        right = top == target.unsqueeze(1)  # (B, 5)
        rows = super().image_rows(preds, target, losses) | {"mean.top1": right[:, 0]}
        return rows | ({"mean.top5": right.any(dim=1)} if self.num_classes > 5 else {})

    def _scores(self) -> dict[str, float]:
        totals = self._totals()
        self.confusion = totals["confmat"].long() if "confmat" in totals else None
        count = totals["count"].item()
        if not count:
            return {}
        values = self._mean_loss(totals) | {
            "top1": totals["classes"][0].sum().item() / count,
            "macro_f1": f1_scores(*totals["classes"]).nanmean().item(),
            "ece": calibration_error(totals["bins"]),
        }
        if self.num_classes > 5:
            values["top5"] = totals["top5"].item() / count
        return values


class MultiLabelScores(_LossMetric):
    """map, micro_f1, macro_f1 (at probability 0.5) and loss; and each label's average precision.

    `map` is the mean over the labels that have positives, from all scores (nothing is binned); macro F1 is
    the mean over the labels that occur or are predicted. Where no label does, they are NaN.
    `average_precision` is the last `compute`'s `(K,)` on the host.

    Args:
        num_labels: Number of labels K.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.
    """

    monitor = ("map", "max")
    classes: Tensor
    rows: list[Tensor]

    def __init__(self, num_labels: int, *, score: str | None = None, **kwargs: Any) -> None:
        super().__init__(["loss", "map", "micro_f1", "macro_f1"], score=score, **kwargs)
        self.num_labels = num_labels
        # classes: correct, predicted, actual images of each label.
        self._add_sums({"loss": (), "loss_count": (), "count": (), "classes": (3, num_labels)})
        self._add_rows("rows", 2 * num_labels, torch.float32)  # K scores, K targets
        self.average_precision: Tensor | None = None
        self.confusion: Tensor | None = None

    @torch.no_grad()
    def update(self, preds: Tensor, target: Tensor, losses: Tensor | None = None) -> None:
        """Add a batch: logits `(B, K)`, targets `(B, K)` 0 or 1, losses `(B,)`."""
        predicted, actual = preds > 0, target > 0.5
        self._add_losses(losses)
        self.count.add_(len(target))
        self.classes.add_(torch.stack([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)]))
        self.rows.append(torch.cat([preds.float(), actual.float()], dim=1))

    @torch.no_grad()
    def image_rows(self, preds: Tensor, target: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Return loss `(B,)`, "label_scores" and "label_targets" `(B, K)` of each image of a batch."""
        rows = super().image_rows(preds, target, losses)
        return rows | {"label_scores": preds.float(), "label_targets": target > 0.5}

    def _scores(self) -> dict[str, float]:
        totals = self._totals()
        count = totals["count"].item()
        if not count:
            return {}
        scores, targets = self._rows("rows").split(self.num_labels, dim=1)
        self.average_precision = average_precision(scores, targets)
        correct, predicted, actual = totals["classes"]
        total = (predicted + actual).sum().item()
        return self._mean_loss(totals) | {
            "map": self.average_precision.nanmean().item(),
            "micro_f1": 2 * correct.sum().item() / total if total else float("nan"),
            "macro_f1": f1_scores(correct, predicted, actual).nanmean().item(),
        }


class RegressionScores(_LossMetric):
    """mae, rmse, r2 and loss, each the mean over the outputs.

    `r2` of an output whose target never changes is 1 when it is met exactly and 0 otherwise. The sums are
    float64, so it keeps nine digits while a target's mean is within a few thousand of its deviations.

    Args:
        num_outputs: Number of outputs K.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.
    """

    monitor = ("mae", "min")
    sum_abs_error: Tensor
    sum_squared_error: Tensor
    sum_target: Tensor
    sum_squared_target: Tensor

    def __init__(self, num_outputs: int, *, score: str | None = None, **kwargs: Any) -> None:
        super().__init__(["loss", "mae", "rmse", "r2"], score=score, **kwargs)
        self.num_outputs = num_outputs
        sums = ("sum_abs_error", "sum_squared_error", "sum_target", "sum_squared_target")
        self._add_sums({"loss": (), "loss_count": (), "count": ()} | dict.fromkeys(sums, (num_outputs,)))
        self.confusion: Tensor | None = None

    @torch.no_grad()
    def update(self, preds: Tensor, target: Tensor, losses: Tensor | None = None) -> None:
        """Add a batch: outputs `(B, K)`, targets `(B, K)`, losses `(B,)`; for one output `(B,)` will do."""
        target = target.to(self.sum_target).reshape(-1, self.num_outputs)
        error = preds.to(target).reshape(-1, self.num_outputs) - target
        self._add_losses(losses)
        self.count.add_(len(target))
        self.sum_abs_error.add_(error.abs().sum(0))
        self.sum_squared_error.add_(error.square().sum(0))
        self.sum_target.add_(target.sum(0))
        self.sum_squared_target.add_(target.square().sum(0))

    @torch.no_grad()
    def image_rows(self, preds: Tensor, target: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Return loss and mae `(B,)` and "squared_errors" `(B, K)` of each image of a batch."""
        target = target.to(self.sum_target).reshape(-1, self.num_outputs)
        error = preds.to(target).reshape(-1, self.num_outputs) - target
        rows = super().image_rows(preds, target, losses)
        return rows | {"mean.mae": error.abs().mean(1), "squared_errors": error.square()}

    def _scores(self) -> dict[str, float]:
        totals = self._totals()
        count = totals["count"].item()
        if not count:
            return {}
        squared_error, squared_target = totals["sum_squared_error"], totals["sum_squared_target"]
        deviation = squared_target - totals["sum_target"].square() / count
        constant = deviation <= 1e-14 * squared_target
        r2 = torch.where(constant, (squared_error == 0).double(), 1 - squared_error / deviation)
        return self._mean_loss(totals) | {
            "mae": (totals["sum_abs_error"] / count).mean().item(),
            "rmse": (squared_error / count).sqrt().mean().item(),
            "r2": r2.mean().item() if count > 1 else float("nan"),
        }
