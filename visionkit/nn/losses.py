"""Classification and regression losses: one value an image, and their weighted mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["label_losses", "mixed_loss"]


def label_losses(logits: Tensor, labels: Tensor, *, kind: str, smoothing: float = 0.0) -> Tensor:
    """Return the loss of each image, without class weights.

    Args:
        logits: `(B, K)`.
        labels: `(B,)` int64 classes or soft `(B, K)` for "ce" and "bce"; `(B, K)` float for "multi"
            and "mse".
        kind: "ce": cross-entropy over classes. "bce": one binary cross-entropy a class, the labels made
            one-hot, summed over classes (ResNet strikes back, arXiv 2110.00476). "multi": binary
            cross-entropy, mean over labels. "mse": squared error, mean over outputs.
        smoothing: Label smoothing: fraction of the target spread evenly over the classes.

    Returns:
        `(B,)` float32.
    """
    logits = logits.float()
    if kind == "ce":
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    if kind == "mse":
        return (logits - labels).square().mean(dim=1)
    if kind == "bce":
        soft = labels.ndim == 2
        targets = labels if soft else torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
        targets = targets * (1 - smoothing) + smoothing / logits.shape[1]
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    targets = labels.to(logits.dtype)
    targets = targets * (1 - smoothing) + 0.5 * smoothing if smoothing else targets
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    kind: str,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    labels_b: Tensor | None = None,
    lam: Tensor | float = 1.0,
) -> Tensor:
    """Return the mean loss of a batch, optionally of mixed images (mixup, cutmix) and with class weights.

    Args:
        logits: `(B, K)`.
        labels: See `label_losses`.
        kind: See `label_losses`.
        smoothing: See `label_losses`.
        weights: `(K,)`. For classes: each image counts with its class's weight, and the mean is over the
            weights; a batch of weight 0 in all gives 0 and no gradient. For "multi": the weight of each
            label's positives.
        labels_b: The labels of the images mixed in (mixup, cutmix).
        lam: Weight of the first labels, a number or `(B,)`.

    Returns:
        A scalar, float32.
    """
    if kind in ("multi", "mse"):
        if labels_b is not None:
            fraction = lam.view(-1, *[1] * (labels.ndim - 1)) if isinstance(lam, Tensor) and lam.ndim else lam
            labels = fraction * labels + (1 - fraction) * labels_b
        if weights is None or kind == "mse":
            return label_losses(logits, labels, kind=kind, smoothing=smoothing).mean()
        targets = labels * (1 - smoothing) + 0.5 * smoothing
        return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), pos_weight=weights)

    if labels_b is None and weights is None:
        return label_losses(logits, labels, kind=kind, smoothing=smoothing).mean()

    def terms(target: Tensor) -> tuple[Tensor, Tensor]:
        losses = label_losses(logits, target, kind=kind, smoothing=smoothing)
        if weights is None:
            counts = torch.ones_like(losses)
        else:
            counts = target @ weights if target.ndim == 2 else weights[target]
        return losses * counts, counts

    losses, counts = terms(labels)
    if labels_b is not None:
        losses_b, counts_b = terms(labels_b)
        losses = lam * losses + (1 - lam) * losses_b
        counts = lam * counts + (1 - lam) * counts_b
    if weights is None:
        return losses.mean()
    # Where all weights are 0 the loss is 0: without the clamp it would be 0 / 0 = NaN.
    return losses.sum() / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny)
