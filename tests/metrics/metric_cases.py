"""Every metric of the library with batches for it, for the contract that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tests.metrics.detections import random_evaluation
from tests.metrics.poses import random_poses
from visionkit.metrics import (
    CaptionScores,
    CocoAP,
    EmbeddingScores,
    KeypointAP,
    KeypointScores,
    MultiLabelScores,
    RegressionScores,
    RetrievalScores,
    ScoreMetric,
    SegmentationMetric,
    SingleLabelScores,
    VerificationScores,
)

IMAGES = 9
WORDS = ("a", "red", "dog", "left", "of", "the", "café")


@dataclass(frozen=True)
class MetricCase:
    """A metric and the arguments of its `update` for nine images, each a sequence with one item an image."""

    name: str
    build: Callable[..., ScoreMetric]
    arguments: tuple[Any, ...]
    names: int  # scores

    def batch(self, *positions: int) -> tuple[Any, ...]:
        """The arguments of `update` for some of the images."""
        index = list(positions)
        return tuple(
            value[index] if isinstance(value, torch.Tensor) else [value[i] for i in index]
            for value in self.arguments
        )


def _cases() -> tuple[MetricCase, ...]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, 6, generator=rng)
    classes = torch.randint(0, 6, (IMAGES,), generator=rng)
    labels = (torch.rand(IMAGES, 6, generator=rng) < 0.4).float()
    # Halves: sums of them do not depend on the order of the images.
    losses = (cross_entropy(logits, classes, reduction="none") * 4).round() / 4
    values = torch.randint(-9, 9, (2, IMAGES, 2), generator=rng) / 4
    maps = torch.randint(0, 4, (2, IMAGES, 8, 9), generator=rng)
    maps[1, :, :2] = 255
    preds, targets, ids = random_evaluation(5, images=IMAGES, masks=True, side=96)

    def sentence() -> list[str]:
        chosen = torch.randint(0, len(WORDS), (int(torch.randint(2, 9, (), generator=rng)),), generator=rng)
        return [WORDS[i] for i in chosen]

    vectors = torch.randint(-3, 4, (IMAGES, 4), generator=rng).float() + 0.25
    people = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4])
    names = [f"image {i}" for i in range(IMAGES)]
    likeness, folds = values[0, :, 0].double(), torch.arange(IMAGES) % 3
    poses, pose_targets = random_poses(5, images=IMAGES)
    points = torch.rand(IMAGES, 3, 3, generator=rng, dtype=torch.float64) * 20
    points[:, :, 2] = torch.randint(0, 3, (IMAGES, 3), generator=rng)
    squares = torch.tensor([[0.0, 0.0, 20.0 + i, 20.0] for i in range(IMAGES)])
    captions = [sentence() for _ in range(IMAGES)]
    references = [[sentence() for _ in range(1 + i % 3)] for i in range(IMAGES)]
    return (
        MetricCase("single label", lambda **k: SingleLabelScores(6, **k), (logits, classes, losses), 5),
        MetricCase("multi label", lambda **k: MultiLabelScores(6, **k), (logits, labels, losses), 4),
        MetricCase("regression", lambda **k: RegressionScores(2, **k), (values[0], values[1], losses), 4),
        MetricCase(
            "class maps",
            lambda **k: SegmentationMetric(4, boundary_tolerance=0.1, **k),
            (maps[0], maps[1]),
            8,
        ),
        MetricCase("boxes", lambda **k: CocoAP("abcd", **k), (preds, targets, ids), 16),
        MetricCase("masks", lambda **k: CocoAP("abcd", masks=True, **k), (preds, targets, ids), 32),
        MetricCase("retrieval", lambda **k: RetrievalScores(ks=(1, 3), **k), (vectors, people), 3),
        MetricCase("pairs", lambda **k: VerificationScores(**k), (likeness, people % 2, folds), 5),
        MetricCase(
            "vectors",
            lambda **k: EmbeddingScores(fars=(0.5,), ways=2, shots=(1,), **k),
            (vectors, people, names),
            9,
        ),
        MetricCase("poses", lambda **k: KeypointAP(3, num_classes=2, **k), (poses, pose_targets, ids), 10),
        MetricCase(
            "keypoints",
            lambda **k: KeypointScores(("a", "b", "c"), edges=((0, 1),), threshold=0.5, **k),
            (points[:, :, :2] + values[0, :, None], points, squares, squares[:, 2] * 9, names),
            8,
        ),
        MetricCase("captions", lambda **k: CaptionScores(**k), (captions, references, ids), 7),
    )


CASES = _cases()


def hexes(scores: dict[str, Any]) -> dict[str, str]:
    """Scores as text that keeps every bit."""
    return {name: float(value).hex() for name, value in scores.items()}
