"""Scores of one evaluation epoch: single-label, multi-label and regression.

Each shell is fed batches and asked once: `update` reads nothing back from the device, `compute` does one
collective (the scores of multi-label precision: two more) and one copy, and gives the same values on every
process, whatever each has seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visionkit.distributed import gather_rows
from visionkit.metrics.running_sums import RunningSums
from visionkit.metrics.scores import average_precision, calibration_error, f1_scores

__all__ = ["MultiLabelScores", "RegressionScores", "SingleLabelScores"]

_MATRIX_LIMIT = 2048
"""Above so many classes the confusion matrix (8 bytes a cell) is not kept; its margins are."""


class SingleLabelScores(nn.Module):
    """top1, top5 (above five classes), macro_f1, ece and loss; and the confusion matrix.

    Macro F1 is the mean over the classes that occur or are predicted; ece has 15 bins of the largest
    probability.

    Args:
        num_classes: Number of classes.
    """

    monitor = ("top1", "max")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        shapes: dict[str, tuple[int, ...]] = {
            "loss": (),
            "count": (),
            "top5": (),
            "classes": (3, num_classes),
        }
        shapes["bins"] = (3, 15)
        if num_classes <= _MATRIX_LIMIT:
            shapes["confusion"] = (num_classes, num_classes)
        self.tally = RunningSums(shapes)
        self.confusion: Tensor | None = None

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(B, K)`.
            labels: `(B,)` int64.
            losses: `(B,)`.
        """
        probabilities = logits.float().softmax(dim=1)
        best = probabilities.topk(min(5, self.num_classes), dim=1).indices  # (B, 5)
        guess = best[:, 0]
        confidence = probabilities.gather(1, best[:, :1]).squeeze(1)
        right = guess == labels
        self.tally.add(
            loss=losses.double().sum(), count=len(labels), top5=(best == labels.unsqueeze(1)).any(dim=1).sum()
        )
        one = self.tally.sums.new_ones(len(labels))
        hits, predicted, actual = self.tally.view("classes")
        hits.index_add_(0, labels, right.to(one))
        predicted.index_add_(0, guess, one)
        actual.index_add_(0, labels, one)
        place = (confidence * 15).ceil().long().clamp(1, 15) - 1
        for total, value in zip(self.tally.view("bins"), (one, confidence.to(one), right.to(one))):
            total.index_add_(0, place, value)
        if self.num_classes <= _MATRIX_LIMIT:
            cells = self.tally.view("confusion").view(-1)
            cells.index_add_(0, labels * self.num_classes + guess, one)

    def compute(self) -> dict[str, float]:
        """Return the scores over all processes, keep `confusion` `(K, K)` (truth, prediction), start anew."""
        totals = self.tally.totals()
        self.tally.reset()
        count = totals["count"].item()
        self.confusion = totals["confusion"].long() if "confusion" in totals else None
        if not count:
            return {}
        f1 = f1_scores(*totals["classes"])
        values = {
            "loss": totals["loss"].item() / count,
            "top1": totals["classes"][0].sum().item() / count,
            "macro_f1": f1.nanmean().item(),
            "ece": calibration_error(totals["bins"]),
        }
        if self.num_classes > 5:
            values["top5"] = totals["top5"].item() / count
        return values


class MultiLabelScores(nn.Module):
    """map, micro_f1, macro_f1 (at probability 0.5) and loss; and each label's average precision.

    `map` is the mean over the labels that have positives, from all scores (nothing is binned); macro F1 is
    the mean over the labels that occur or are predicted. Where no label does, they are NaN.

    Args:
        num_classes: Number of labels.
    """

    monitor = ("map", "max")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.tally = RunningSums({"loss": (), "count": (), "classes": (3, num_classes)})
        self.average_precision: Tensor | None = None
        self.confusion: Tensor | None = None
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch: logits `(B, K)`, labels `(B, K)` 0 or 1, losses `(B,)`."""
        guess, truth = logits > 0, labels > 0.5
        self.tally.add(
            loss=losses.double().sum(),
            count=len(labels),
            classes=torch.stack([(guess & truth).sum(0), guess.sum(0), truth.sum(0)]),
        )
        self._rows.append(torch.cat([logits.float(), truth.float()], dim=1))

    def compute(self) -> dict[str, float]:
        """Return the scores over all processes, keep `average_precision` `(K,)`, start anew."""
        totals = self.tally.totals()
        empty = self.tally.sums.new_zeros((0, 2 * self.num_classes), dtype=torch.float32)
        rows = gather_rows(torch.cat([empty, *self._rows]))
        self.tally.reset()
        self._rows.clear()
        count = totals["count"].item()
        if not count:
            return {}
        scores, targets = rows.split(self.num_classes, dim=1)
        self.average_precision = average_precision(scores, targets)
        hits, predicted, actual = totals["classes"]
        total = (predicted + actual).sum().item()
        return {
            "loss": totals["loss"].item() / count,
            "map": self.average_precision.nanmean().item(),
            "micro_f1": 2 * hits.sum().item() / total if total else float("nan"),
            "macro_f1": f1_scores(hits, predicted, actual).nanmean().item(),
        }


class RegressionScores(nn.Module):
    """mae, rmse, r2 and loss, each the mean over the outputs.

    `r2` of an output whose target never changes is 1 when it is met exactly and 0 otherwise. The sums are
    float64, so it keeps nine digits while a target's mean is within a few thousand of its deviations.

    Args:
        num_classes: Number of outputs.
    """

    monitor = ("mae", "min")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        shape = (num_classes,)
        self.tally = RunningSums(
            {"loss": (), "count": (), "absolute": shape, "squared": shape, "first": shape, "second": shape}
        )
        self.confusion: Tensor | None = None

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch: outputs `(B, K)`, targets `(B, K)`, losses `(B,)`."""
        truth = labels.to(self.tally.sums)
        error = logits.to(truth) - truth
        self.tally.add(
            loss=losses.double().sum(),
            count=len(labels),
            absolute=error.abs().sum(0),
            squared=error.square().sum(0),
            first=truth.sum(0),
            second=truth.square().sum(0),
        )

    def compute(self) -> dict[str, float]:
        """Return the scores over all processes, start anew."""
        totals = self.tally.totals()
        self.tally.reset()
        count = totals["count"].item()
        if not count:
            return {}
        squared, second = totals["squared"], totals["second"]
        spread = second - totals["first"].square() / count
        flat = spread <= 1e-14 * second
        r2 = torch.where(flat, (squared == 0).double(), 1 - squared / spread)
        return {
            "loss": totals["loss"].item() / count,
            "mae": (totals["absolute"] / count).mean().item(),
            "rmse": (squared / count).sqrt().mean().item(),
            "r2": r2.mean().item() if count > 1 else float("nan"),
        }
