"""An exported graph against its task, on the same images: the largest difference of each output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from visionkit.errors import RunError
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.tasks.captioning.generate import generate
from visionkit.tasks.hooks import TaskHooks

__all__ = ["BOX_TOLERANCE", "TOLERANCE", "check_graph", "compare", "reference"]

TOLERANCE = 1e-4  # of values; where the largest is above 1, of that
BOX_TOLERANCE = 1e-3  # pixels

Outputs = Mapping[str, Tensor]


def reference(task: TaskHooks, images: Tensor) -> dict[str, Any]:
    """Return what a task itself gives, under the names of its graph's outputs; lists for detections.

    A segmenter, a detector and a keypoint regressor see the image once, without the other views that they may
    be set to; a captioner takes the likeliest word each time.

    Args:
        task: In evaluation mode, on the CPU.
        images: `(B, C, H, W)` float in [0, 1].
    """
    with torch.inference_mode(), _one_view(task):
        if isinstance(task, Classifier):
            values = task(images).float()
            if task.target == "regression":
                return {"values": values}
            return {"probabilities": values.softmax(1) if task.target == "single" else values.sigmoid()}
        if isinstance(task, Embedder):
            return {"vectors": task(images)}
        if isinstance(task, KeypointRegressor):
            size = images.new_tensor([images.shape[-1], images.shape[-2]])
            predictions = task.predict_step(images)
            points = {"points": torch.stack([each.points for each in predictions]) / size}
            scores = [each.scores for each in predictions if each.scores is not None]
            return points | ({"scores": torch.stack(scores)} if scores else {})
        if isinstance(task, Segmenter):
            return {"logits": task(images).float()}
        if isinstance(task, Captioner):
            grid, _ = task.grid(task.backbone(task.normalize(images)))
            decoding = dataclasses.replace(task.decoding, beams=1, groups=1, n_best=1, block_trigrams=False)
            decoded = generate(task.decoder, grid, task.special_tokens, decoding)
            return {"tokens": decoded.tokens[:, 0], "log_prob": decoded.scores[:, 0]}
        if isinstance(task, Detector):
            detections = task(list(images))
            return {name: [one[name] for one in detections] for name in ("boxes", "scores", "labels")}
    raise TypeError(type(task).__name__)


@contextmanager
def _one_view(task: TaskHooks) -> Iterator[None]:
    """See images once, as the graph does, without the further views of a task."""
    views = {name: getattr(task, name) for name in ("tta_flip", "tta_sizes") if hasattr(task, name)}
    for name, value in views.items():
        setattr(task, name, type(value)())
    try:
        yield
    finally:
        for name, value in views.items():
            setattr(task, name, value)


def compare(expected: Mapping[str, Any], outputs: Outputs) -> dict[str, float]:
    """Return the largest difference of each output: absolute, or of the largest value where that is above 1.

    Those of boxes are in pixels; tokens, labels and detections without a counterpart count as infinite.

    Args:
        expected: See `reference`.
        outputs: Of the graph, for the same images.
    """
    if "boxes" in expected:
        return _compare_detections(expected, outputs)
    if "tokens" in expected:
        ours, theirs = outputs["tokens"], expected["tokens"]
        length = theirs.shape[1]
        same = ours.shape[1] >= length and bool((ours[:, :length] == theirs).all())
        tokens = 0.0 if same and not bool(ours[:, length:].any()) else float("inf")
        return {"tokens": tokens, "log_prob": _distance(expected["log_prob"], outputs["log_prob"])}
    return {name: _distance(value, outputs[name]) for name, value in expected.items()}


def _distance(expected: Tensor, given: Tensor) -> float:
    if expected.shape != given.shape or not bool(given.isfinite().all()):
        return float("inf")
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    return float((expected - given).abs().max()) / scale if expected.numel() else 0.0


def _compare_detections(expected: Mapping[str, Any], outputs: Outputs) -> dict[str, float]:
    """Match each detection with the nearest of its label among those of the same score.

    Of equal scores the order may differ. Detections at the end of a full list, whose scores are those of the
    cut, may be others.
    """
    worst = {"boxes": 0.0, "scores": 0.0, "labels": 0.0}
    for row, count in enumerate(outputs["count"].tolist()):
        boxes, scores, labels = (outputs[name][row, :count] for name in ("boxes", "scores", "labels"))
        want = [expected[name][row] for name in ("boxes", "scores", "labels")]
        if count != len(want[0]):
            worst["labels"] = float("inf")
            continue
        if not count:
            continue
        near = (want[1][:, None] - scores[None]).abs()  # (D, D)
        apart = (want[0][:, None] - boxes[None]).abs().amax(-1)
        other = (near > TOLERANCE) | (want[2][:, None] != labels[None])
        nearest, match = apart.masked_fill(other, float("inf")).min(dim=1)
        full = count == outputs["boxes"].shape[1]
        counts = ~(full & (want[1] <= want[1][-1] + TOLERANCE)) if full else torch.ones_like(nearest) > 0
        if not bool(counts.any()):
            continue
        worst["boxes"] = max(worst["boxes"], float(nearest[counts].max()))
        rows = torch.arange(count)[counts & nearest.isfinite()]
        if len(rows):
            worst["scores"] = max(worst["scores"], float(near[rows, match[rows]].max()))
    return worst


def check_graph(
    run: Callable[[Tensor], Outputs], task: TaskHooks, batches: Sequence[Tensor], *, what: str
) -> dict[str, Any]:
    """Compare a graph with its task on batches of images.

    Args:
        run: Gives the graph's outputs for images.
        task: In evaluation mode, on the CPU.
        batches: `(B, C, H, W)` uint8, or float in [0, 1].
        what: The graph, in a word, for errors.

    Returns:
        The sizes of the batches, the largest differences and the tolerances, as plain values.

    Raises:
        RunError: A difference is above its tolerance.
    """
    worst: dict[str, float] = {}
    for images in batches:
        floats = images.float() / 255 if images.dtype == torch.uint8 else images
        differences = compare(reference(task, floats), run(images))
        for name, value in differences.items():
            worst[name] = max(worst.get(name, 0.0), value)
            limit = BOX_TOLERANCE if name == "boxes" else TOLERANCE
            if not value <= limit:
                raise RunError(
                    f"The {what} and the task differ on {len(images)} images of {images.shape[-2]} x "
                    f"{images.shape[-1]} (height x width): {name} by {value:.3g}, where {limit:g} is allowed."
                )
    return {
        "batches": [[int(side) for side in images.shape] for images in batches],
        "largest_difference": worst,
        "tolerance": {name: BOX_TOLERANCE if name == "boxes" else TOLERANCE for name in worst},
    }
