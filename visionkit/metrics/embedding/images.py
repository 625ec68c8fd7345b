"""All scores of the vectors of images: retrieval among each other, and verification of their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionkit.config import check_number, check_numbers, limits
from visionkit.distributed import widest_float
from visionkit.metrics.embedding.few_shot import episode_accuracy
from visionkit.metrics.embedding.retrieval import RetrievalScores
from visionkit.metrics.embedding.rows import ImageRows
from visionkit.metrics.embedding.verification import FARS, verification_scores
from visionkit.rng import Salt, keyed_seed

__all__ = ["EmbeddingScores", "ImagePairs", "identity_folds", "image_pairs"]

Ints = npt.NDArray[np.int64]
MAX_SAME = 100_000
MAX_OTHER = 300_000
_FOLDS = 10
_CHUNK = 20_000  # pairs whose vectors are multiplied at once


@dataclass(frozen=True)
class ImagePairs:
    """Pairs of images.

    Args:
        scores: `(N,)` their cosines.
        same: `(N,)` whether they are of one class.
        first: `(N,)` the row of the one image among those that are searched with.
        second: `(N,)` that of the other.
    """

    scores: npt.NDArray[np.float64]
    same: npt.NDArray[np.bool_]
    first: Ints
    second: Ints


class EmbeddingScores(RetrievalScores):
    """recall_at_K, map_at_r; of the pairs pair_auc, pair_eer, pair_tar_at_far_X, pair_accuracy.

    Retrieval as `RetrievalScores` has it. The pairs are all pairs of the images (without those that are of
    the gallery alone), or, where there are many,
    100,000 of one class and about 300,000 others, which the ids of the images decide: the same in every epoch
    and arm. The accuracy is over up to ten folds of classes, no class in two of them, each with as many pairs
    of one class as of two; NaN with fewer than four classes.

    Args:
        ks: The Ks.
        fars: The false accept rates X.
        ways: Classes of few-shot episodes, whose accuracy (`episode_accuracy`) is then given as
            `Nway_Kshot`; 0: none.
        shots: The Ks: known images of each class.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.

    Attributes:
        pairs: Those of the last `compute`.
    """

    def __init__(
        self,
        *,
        ks: Sequence[int] = (1, 5, 10),
        fars: Sequence[float] = FARS,
        ways: int = 0,
        shots: Sequence[int] = (1, 5),
        score: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ks=ks, **kwargs)
        check_number("ways", ways, limits(min=0), whole=True)
        self.fars, self.ways = tuple(fars), ways
        self.shots = tuple(check_numbers("shots", list(shots), limits(min=1), whole=True)) if ways else ()
        of_pairs = ["auc", "eer", *(f"tar_at_far_{far:g}" for far in fars), "accuracy"]
        episodes = [f"{ways}way_{count}shot" for count in self.shots]
        self._take_names([*self.names, *(f"pair_{name}" for name in of_pairs), *episodes], score)
        self.pairs: ImagePairs | None = None

    def _scores_of(self, rows: ImageRows) -> dict[str, float]:
        own = rows.queries
        labels = own.labels.cpu().numpy()
        first, second = image_pairs(labels)
        same = labels[first] == labels[second]
        self.pairs = ImagePairs(_cosines(own.vectors, first, second), same, first, second)
        values = verification_scores(self.pairs.scores, same, fars=self.fars)
        chosen, folds = _fold_pairs(labels, first, second)
        accuracy = verification_scores(self.pairs.scores[chosen], same[chosen], folds=folds)["accuracy"]
        named = {f"pair_{name}": value for name, value in (values | {"accuracy": accuracy}).items()}
        named |= {
            f"{self.ways}way_{count}shot": episode_accuracy(own.vectors, labels, ways=self.ways, shots=count)
            for count in self.shots
        }
        return super()._scores_of(rows) | named


def image_pairs(labels: Ints, *, max_same: int = MAX_SAME, max_other: int = MAX_OTHER) -> tuple[Ints, Ints]:
    """Return the two images of each pair, all of them where there are `max_other` or fewer, else a draw.

    Args:
        labels: `(N,)` classes.
        max_same: Pairs of one class, at most.
        max_other: Pairs of any images that are drawn beside them; those of one class among them are left out.
    """
    total = len(labels) * (len(labels) - 1) // 2
    if total <= max_other:
        return _decode(np.arange(total))
    rng = np.random.default_rng(keyed_seed(len(labels), Salt.PAIRS))
    order = np.argsort(labels, kind="stable")
    sizes = np.unique(labels, return_counts=True)[1]
    ends, starts = np.cumsum(sizes * (sizes - 1) // 2), np.cumsum(sizes) - sizes
    drawn = _draw(int(ends[-1]), max_same, rng)
    group = np.searchsorted(ends, drawn, side="right")
    first, second = _decode(drawn - (ends - sizes * (sizes - 1) // 2)[group])
    same = order[starts[group] + first], order[starts[group] + second]
    one, two = _decode(_draw(total, max_other, rng))
    other = labels[one] != labels[two]
    return np.append(same[0], one[other]), np.append(same[1], two[other])


def identity_folds(labels: Ints) -> dict[int, int]:
    """Return the fold of each class: ten of them, or fewer where that leaves each at least two classes."""
    names = np.unique(labels)
    rng = np.random.default_rng(keyed_seed(len(names), Salt.FOLDS))
    count = max(1, min(_FOLDS, len(names) // 2))
    return {int(name): index % count for index, name in enumerate(rng.permutation(names))}


def _fold_pairs(labels: Ints, first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """Return the pairs that lie within a fold of classes, as many of one class as of two, and their folds."""
    folds = identity_folds(labels)
    of_image = np.array([folds[int(label)] for label in labels])
    same = labels[first] == labels[second]
    chosen, numbers = [], []
    for fold in range(max(folds.values()) + 1):
        inside = (of_image[first] == fold) & (of_image[second] == fold)
        kinds = [np.flatnonzero(inside & same), np.flatnonzero(inside & ~same)]
        count = min(map(len, kinds))
        rng = np.random.default_rng(keyed_seed(fold, Salt.PAIRS))
        chosen += [rng.choice(kind, count, replace=False) for kind in kinds]
        numbers += [fold] * (2 * count)
    return np.concatenate(chosen), np.asarray(numbers, dtype=np.int64)


def _draw(total: int, count: int, rng: np.random.Generator) -> Ints:
    if total <= count:
        return np.arange(total)
    return np.sort(rng.choice(total, count, replace=False, shuffle=False))


def _decode(numbers: Ints) -> tuple[Ints, Ints]:
    """Return pairs `first < second` by their number: (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    second = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > numbers  # a root that was rounded up
    second += second * (second + 1) // 2 <= numbers
    return numbers - second * (second - 1) // 2, second


def _cosines(vectors: Tensor, first: Ints, second: Ints) -> npt.NDArray[np.float64]:
    rows = vectors.to(widest_float(vectors.device))
    one, two = (torch.from_numpy(index).to(vectors.device) for index in (first, second))
    parts = [(rows[a] * rows[b]).sum(1) for a, b in zip(one.split(_CHUNK), two.split(_CHUNK), strict=True)]
    made: npt.NDArray[np.float64] = (torch.cat(parts) if parts else rows[:0, 0]).cpu().double().numpy()
    return made
