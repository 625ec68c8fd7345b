"""Losses of semantic segmentation, and weighted sums of them by name.

Every function takes logits `(B, C, H, W)` and masks `(B, H, W)`, leaves out the ignored pixels, and computes
in float32. One logit a pixel (C = 1) is the binary case: the logits become the pair (0, z), whose softmax is
the sigmoid, and the region losses (Dice, Tversky, Lovász) look at the foreground only. A batch without any
counted pixel gives zero with zero gradients, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.distributed import widest_float
from visionkit.errors import InputError, unknown_name
from visionkit.nn.segmentation.lovasz import jaccard_slopes

__all__ = [
    "SegmentationLoss",
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "lovasz_loss",
    "ohem_loss",
    "parse_terms",
    "tversky_loss",
]

_TINY = 1e-12


def cross_entropy_loss(
    logits: Tensor, masks: Tensor, *, ignore_index: int = 255, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of the counted pixels, weighted by the class of the truth.

    Args:
        logits: `(B, C, H, W)`.
        masks: `(B, H, W)` int64.
        ignore_index: Pixels with this class are left out.
        class_weights: `(C,)`; a pixel counts with the weight of its true class. One logit: (background,
            foreground).
    """
    losses, weights = _pixel_cross_entropy(_pair(logits), masks, ignore_index, class_weights)
    return losses.sum() / weights.sum().clamp(min=_TINY)


def ohem_loss(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    threshold: float = 0.7,
    keep: float = 0.0625,
) -> Tensor:
    """Return the cross-entropy of the hard pixels only (OHEM, Shrivastava et al., 2016).

    Args:
        logits: `(B, C, H, W)`.
        masks: `(B, H, W)` int64.
        ignore_index: Pixels with this class are left out.
        class_weights: As in `cross_entropy_loss`.
        threshold: A pixel is hard if its true class has less probability than this.
        keep: At least this fraction of the batch's pixels, the hardest, counts.
    """
    logits = _pair(logits)
    losses, weights = _pixel_cross_entropy(logits, masks, ignore_index, class_weights)
    counted = masks != ignore_index
    with torch.no_grad():
        truth = masks.masked_fill(~counted, 0)[:, None]  # (B, 1, H, W)
        probability = logits.softmax(1).gather(1, truth)[:, 0].masked_fill(~counted, torch.inf)
        count = max(1, round(keep * probability.numel()))
        bound = probability.flatten().kthvalue(count).values.clamp(min=threshold)
        hard = (probability <= bound) & counted
    return (losses * hard).sum() / (weights * hard).sum().clamp(min=_TINY)


def focal_loss(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Return the cross-entropy with each pixel scaled by `(1 - p) ** gamma` (Lin et al., 2017).

    Args:
        logits: `(B, C, H, W)`.
        masks: `(B, H, W)` int64.
        ignore_index: Pixels with this class are left out.
        class_weights: As in `cross_entropy_loss`.
        gamma: Focusing parameter: how much easy pixels are weighted down; 0 is the cross-entropy.
    """
    logits = _pair(logits)
    losses, weights = _pixel_cross_entropy(logits, masks, ignore_index, class_weights)
    truth = masks.masked_fill(masks == ignore_index, 0)[:, None]  # (B, 1, H, W)
    probability = logits.softmax(1).gather(1, truth)[:, 0]
    # The clamp keeps the power's gradient finite for 0 < gamma < 1 where a pixel is certain.
    fade = (1.0 - probability).clamp(min=_TINY) ** gamma
    return (losses * fade).sum() / weights.sum().clamp(min=_TINY)


def tversky_loss(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Tensor:
    """Return one minus the Tversky index, averaged over the classes of the batch (Salehi et al., 2017).

    Args:
        logits: `(B, C, H, W)`.
        masks: `(B, H, W)` int64.
        ignore_index: Pixels with this class are left out.
        class_weights: `(C,)` weights of the classes in the average.
        alpha: Weight of the false positives.
        beta: Weight of the false negatives.
    """
    hits, predicted, there = _areas(logits, masks, ignore_index)  # each (C,)
    missed = alpha * (predicted - hits) + beta * (there - hits)
    return _over_classes(missed / (hits + missed).clamp(min=_TINY), there, logits, class_weights)


def dice_loss(
    logits: Tensor, masks: Tensor, *, ignore_index: int = 255, class_weights: Tensor | None = None
) -> Tensor:
    """Return one minus the soft Dice score, averaged over the classes of the batch (Milletari et al., 2016).

    Args:
        logits: `(B, C, H, W)`.
        masks: `(B, H, W)` int64.
        ignore_index: Pixels with this class are left out.
        class_weights: `(C,)` weights of the classes in the average.
    """
    return tversky_loss(
        logits, masks, ignore_index=ignore_index, class_weights=class_weights, alpha=0.5, beta=0.5
    )


def lovasz_loss(
    logits: Tensor, masks: Tensor, *, ignore_index: int = 255, class_weights: Tensor | None = None
) -> Tensor:
    """Return the Lovász extension of the Jaccard loss over the classes of the batch (Berman et al., 2018).

    Args:
        logits: `(B, C, H, W)`.
        masks: `(B, H, W)` int64.
        ignore_index: Pixels with this class are left out.
        class_weights: `(C,)` weights of the classes in the average.
    """
    probability = _pair(logits).softmax(1).movedim(1, 0).flatten(1)  # (C, N)
    counted = torch.nonzero((masks != ignore_index).flatten()).flatten()
    known = masks.flatten()[counted]
    there = torch.bincount(known, minlength=len(probability)).to(probability.dtype)
    # |truth - p| * slope is slope - p * slope where there is truth, and p * slope elsewhere.
    signed, constant = torch.zeros_like(probability), torch.zeros_like(there)
    for index in torch.nonzero(there).flatten().tolist():
        truth, guess = known == index, probability[index].detach().index_select(0, counted)
        slopes = jaccard_slopes(torch.where(truth, 1.0 - guess, guess), truth)
        signed[index].index_copy_(0, counted, torch.where(truth, -slopes, slopes))
        constant[index] = (slopes * truth).sum()
    losses = constant + (probability * signed).sum(1)
    first = 1 if logits.shape[1] == 1 else 0
    return _over_classes(losses[first:], there[first:], logits, class_weights)


Term: TypeAlias = Callable[..., Tensor]
_TERMS: dict[str, Term] = {
    "ce": cross_entropy_loss,
    "dice": dice_loss,
    "focal": focal_loss,
    "lovasz": lovasz_loss,
    "ohem": ohem_loss,
    "tversky": tversky_loss,
}


def parse_terms(text: str) -> dict[str, float]:
    """Read a weighted sum such as `"ce"`, `"ce+dice"` or `"0.5*ohem + 2*lovasz"`.

    Raises:
        InputError: A term's name is not known, is repeated, or its weight is not a positive number.
    """
    terms: dict[str, float] = {}
    for part in text.split("+"):
        weight, star, name = part.strip().rpartition("*")
        name = name.strip()
        if name not in _TERMS:
            raise unknown_name("loss term", name, _TERMS, hint='A loss reads like "ce" or "ce+0.5*dice".')
        try:
            value = float(weight) if star else 1.0
        except ValueError:
            value = float("nan")
        if not 0.0 < value < float("inf") or name in terms:
            raise InputError(
                f"Expected each loss term once, with a positive weight, but got {part.strip()!r} "
                f'in {text!r}. A loss reads like "ce" or "ce+0.5*dice".'
            )
        terms[name] = value
    return terms


class SegmentationLoss(nn.Module):
    """A weighted sum of named terms.

    Args:
        terms: A weighted sum as text (see `parse_terms`), or a mapping of term to weight. Terms: ce, dice,
            focal, lovasz, ohem, tversky.
        ignore_index: Pixels with this class are left out.
        class_weights: One weight a class; with one logit, (background, foreground).
    """

    class_weights: Tensor | None

    def __init__(
        self,
        terms: str | Mapping[str, float] = "ce",
        *,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        written = terms if isinstance(terms, str) else "+".join(f"{w!r}*{name}" for name, w in terms.items())
        self.terms = parse_terms(written)
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Return each weighted term by name; their sum is the loss."""
        return {
            name: weight
            * _TERMS[name](logits, masks, ignore_index=self.ignore_index, class_weights=self.class_weights)
            for name, weight in self.terms.items()
        }


def _pair(logits: Tensor) -> Tensor:
    """Return float32 logits with one channel a class: one logit z becomes (0, z)."""
    logits = logits.float()
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def _pixel_cross_entropy(
    logits: Tensor, masks: Tensor, ignore_index: int, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the weighted loss and the weight of each pixel, both (B, H, W), zero where ignored."""
    losses = F.cross_entropy(logits, masks, weight=class_weights, ignore_index=ignore_index, reduction="none")
    counted = masks != ignore_index
    if class_weights is None:
        return losses, counted.to(losses.dtype)
    return losses, class_weights[masks.masked_fill(~counted, 0)] * counted


def _areas(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return each class's soft intersection, its predicted area and its true one, each (C,).

    The intersection is gathered at the true class: no one-hot truth, which would be C times the work.
    """
    probability = _pair(logits).softmax(1)  # (B, C, H, W)
    counted = masks != ignore_index
    truth = masks.masked_fill(~counted, 0)
    right = probability.gather(1, truth[:, None])[:, 0] * counted  # (B, H, W)
    wide = widest_float(masks.device)
    empty = probability.new_zeros(probability.shape[1], dtype=wide)
    hits = empty.index_add(0, truth.flatten(), right.flatten().to(wide))
    there = empty.index_add(0, truth.flatten(), counted.flatten().to(wide))
    predicted = (probability * counted[:, None]).sum((0, 2, 3)).to(wide)
    first = 1 if logits.shape[1] == 1 else 0
    return hits[first:], predicted[first:], there[first:]


def _over_classes(losses: Tensor, areas: Tensor, logits: Tensor, class_weights: Tensor | None) -> Tensor:
    """Average (C,) losses over the classes that the batch's truth holds: whose area (C,) is not 0."""
    weights = (areas > 0).to(losses.dtype)
    if class_weights is not None:
        weights = weights * (class_weights[1:] if logits.shape[1] == 1 else class_weights)
    return ((losses * weights).sum() / weights.sum().clamp(min=_TINY)).float()
