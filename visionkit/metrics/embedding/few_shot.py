"""Few-shot episodes: new classes are told apart by the mean vectors of a few images of each."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.rng import Salt, keyed_seed

__all__ = ["episode_accuracy"]

Ints = npt.NDArray[np.int64]
EPISODES = 600
QUERIES = 15  # of each class, or as many as it has


def episode_accuracy(
    vectors: Tensor, labels: Ints, *, ways: int, shots: int, episodes: int = EPISODES
) -> float:
    """Return the mean accuracy of N-way K-shot episodes by nearest class means (Snell et al., NeurIPS 2017).

    An episode draws N classes, and of each K images whose mean is the class, and up to 15 other images, each
    of which goes to the class with the nearest mean, by the cosine. The draws are a function of the order of
    the images alone, so that every epoch and arm has the same episodes.

    Args:
        vectors: `(N, D)` of length 1, in an order that does not change.
        labels: `(N,)` classes.
        ways: Classes of an episode.
        shots: Images of each class that are known.
        episodes: How many episodes.

    Returns:
        NaN where fewer than `ways` classes have more than `shots` images.
    """
    members = _members(labels, shots)
    if len(members) < ways:
        return math.nan
    names = sorted(members)
    rows = vectors.double() if vectors.device.type != "mps" else vectors
    accuracies = []
    for number in range(episodes):
        rng = np.random.default_rng(keyed_seed(number, ways, shots, Salt.EPISODES))
        chosen = [members[names[index]] for index in rng.choice(len(names), ways, replace=False)]
        drawn = [rng.permutation(images)[: shots + QUERIES] for images in chosen]
        known = torch.from_numpy(np.stack([images[:shots] for images in drawn])).to(rows.device)
        queries = torch.from_numpy(np.concatenate([images[shots:] for images in drawn])).to(rows.device)
        truth = np.repeat(np.arange(ways), [len(images) - shots for images in drawn])
        means = F.normalize(rows[known].mean(1), dim=1)  # (ways, D)
        answers = (rows[queries] @ means.T).argmax(1).cpu().numpy()
        accuracies.append(float((answers == truth).mean()))
    return float(np.mean(accuracies))


def _members(labels: Ints, shots: int) -> dict[int, Ints]:
    return {
        int(label): np.flatnonzero(labels == label)
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True)
        if count > shots
    }
