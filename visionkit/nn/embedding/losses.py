"""Losses over unit vectors and their classes, each a function of all vectors of a batch.

Every one is computed in float32, whatever autocast says, and without reading anything back from the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "batch_hard_triplet_loss",
    "contrastive_loss",
    "margin_logits",
    "margin_softmax_loss",
    "squared_distances",
    "supervised_contrastive_loss",
]

_TINY = 1e-12  # below it a squared distance has no useful root: its gradient would be infinite


def squared_distances(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the squared L2 distances of unit vectors `(N, D)` and `(M, D)`: `(N, M)`, at least 0."""
    return (2 - 2 * vectors @ others.T).clamp(min=0)


def batch_hard_triplet_loss(vectors: Tensor, labels: Tensor, *, margin: float = 0.2) -> Tensor:
    """Return the batch-hard triplet loss (Hermans et al., "In Defense of the Triplet Loss", 2017).

    Each vector with another of its class and one of another class is an anchor, against the farthest of its
    own and the nearest of the others: `max(0, d_positive - d_negative + margin)`, in L2 distances.

    Args:
        vectors: `(N, D)` of length 1.
        labels: `(N,)` whole numbers.
        margin: How much nearer the farthest of the same class shall be.

    Returns:
        The mean over the anchors, a float32 scalar; 0 without an anchor.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        distances = _distances(vectors.float())
        same, other = _pairs(labels)
        hardest = distances.masked_fill(~same, -1).amax(1)
        nearest = distances.masked_fill(~other, 3).amin(1)  # unit vectors are 2 apart at most
        return _mean(F.relu(hardest - nearest + margin), same.any(1) & other.any(1))


def contrastive_loss(vectors: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return the contrastive loss (Hadsell, Chopra & LeCun, CVPR 2006).

    The mean of `d²` over the pairs of one class, plus the mean of `max(0, margin - d)²` over those of two: by
    the plain mean over all pairs the few of one class would count for little.

    Args:
        vectors: `(N, D)` of length 1.
        labels: `(N,)` whole numbers.
        margin: L2 distance from which on two classes are far enough apart.

    Returns:
        A float32 scalar; a kind of pair that does not occur adds 0.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.float()
        same, other = _pairs(labels)
        apart = F.relu(margin - _distances(vectors)).square()
        return _mean(squared_distances(vectors, vectors), same) + _mean(apart, other)


def supervised_contrastive_loss(vectors: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return the supervised contrastive loss, L_out (Khosla et al., NeurIPS 2020).

    Args:
        vectors: `(N, D)` of length 1.
        labels: `(N,)` whole numbers.
        temperature: Cosines are divided by it.

    Returns:
        The mean over the vectors that have another of their class, a float32 scalar; 0 without one.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.float()
        same, _ = _pairs(labels)
        itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        logits = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
        # A row of the only vector has no finite logit; its log-sum would be NaN.
        log_probs = logits - logits.masked_fill(itself & (len(vectors) == 1), 0).logsumexp(1, keepdim=True)
        log_probs = log_probs.masked_fill(~same, 0)
        counts = same.sum(1)
        return _mean(-log_probs.sum(1) / counts.clamp(min=1), counts > 0)


def margin_logits(cosines: Tensor, labels: Tensor, *, margin: float, scale: float, angular: bool) -> Tensor:
    """Return logits in which the true class is made harder by a margin.

    Args:
        cosines: `(N, C)` of vectors and classes.
        labels: `(N,)` the true classes.
        margin: Radians for `angular`, else of the cosine.
        scale: Factor of the logits.
        angular: ArcFace, `cos(a + margin)` (Deng et al., CVPR 2019), which beyond `pi - margin` goes on as
            `cos(a) - margin sin(margin)` so that it falls all the way; else CosFace, `cos(a) - margin` (Wang
            et al., CVPR 2018).

    Returns:
        `(N, C)`.
    """
    true = cosines.gather(1, labels[:, None])  # (N, 1)
    if angular:
        sines = (1 - true.square()).clamp(min=_TINY).sqrt()
        harder = true * math.cos(margin) - sines * math.sin(margin)
        harder = torch.where(true >= -math.cos(margin), harder, true - margin * math.sin(margin))
    else:
        harder = true - margin
    return scale * cosines.scatter(1, labels[:, None], harder)


def margin_softmax_loss(
    vectors: Tensor, weight: Tensor, labels: Tensor, *, margin: float, scale: float, angular: bool
) -> Tensor:
    """Return the cross-entropy of `margin_logits` against one learnt vector a class.

    Args:
        vectors: `(N, D)` of length 1.
        weight: `(C, D)`, one vector a class, of any length.
        labels: `(N,)` whole numbers below C.
        margin: See `margin_logits`.
        scale: See `margin_logits`.
        angular: ArcFace, else CosFace.

    Returns:
        The mean over the vectors, a float32 scalar.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        cosines = vectors.float() @ F.normalize(weight.float(), dim=1).T
        return F.cross_entropy(
            margin_logits(cosines, labels, margin=margin, scale=scale, angular=angular), labels
        )


def _distances(vectors: Tensor) -> Tensor:
    return squared_distances(vectors, vectors).clamp(min=_TINY).sqrt()


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pairs are of one class, without each with itself, and which of two: `(N, N)` each."""
    equal = labels[:, None] == labels[None]
    return equal & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~equal


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values; 0, with a gradient of 0, where there are none."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)
