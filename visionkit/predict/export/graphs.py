"""Tasks as graphs of tensors: images in, named outputs out, and nothing that depends on a batch's content."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.nn.detection.dense import DenseDetector
from visionkit.predict.export.dense_graph import DenseGraph
from visionkit.predict.export.detection_graph import RCNNGraph
from visionkit.predict.export.pixels import Pixels
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.segmentation.batch import pad_to_size

__all__ = [
    "CaptionGraph",
    "ClassificationGraph",
    "EmbeddingGraph",
    "KeypointGraph",
    "SegmentationGraph",
    "make_graph",
]


class ClassificationGraph(nn.Module):
    """A classifier: `(B, 3, H, W)` to `probabilities`, or `values`, `(B, K)`.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    def __init__(self, task: Classifier, *, uint8: bool) -> None:
        super().__init__()
        self.pixels = Pixels(task.normalize, uint8=uint8)
        self.backbone, self.head, self.target = task.backbone, task.head, task.target
        self.standardize = task.standardize
        self.outputs = ("values",) if task.target == "regression" else ("probabilities",)

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, K)` of images `(B, 3, H, W)`."""
        values: Tensor = self.head(self.backbone(self.pixels(images)))
        if self.standardize is not None:
            return self.standardize.restore(values)
        return values.softmax(1) if self.target == "single" else values.sigmoid()


class EmbeddingGraph(nn.Module):
    """An embedder: `(B, 3, H, W)` to `vectors` `(B, D)` of length 1.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    outputs = ("vectors",)

    def __init__(self, task: Embedder, *, uint8: bool) -> None:
        super().__init__()
        self.pixels = Pixels(task.normalize, uint8=uint8)
        self.backbone, self.projection = task.backbone, task.projection

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, D)` of images `(B, 3, H, W)`."""
        vectors: Tensor = self.backbone(self.pixels(images))
        return F.normalize(vectors if self.projection is None else self.projection(vectors), dim=1)


class KeypointGraph(nn.Module):
    """A keypoint regressor: `(B, 3, H, W)` to `points` `(B, K, 2)`, with heat maps also `scores` `(B, K)`.

    Points are fractions of the images' width and height.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    def __init__(self, task: KeypointRegressor, *, uint8: bool) -> None:
        super().__init__()
        self.pixels = Pixels(task.normalize, uint8=uint8)
        self.backbone, self.head = task.backbone, task.head
        self.outputs = ("points", *(("scores",) if task.head_name == "heatmap" else ()))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the points of images `(B, 3, H, W)`, and perhaps their scores."""
        size = int(images.shape[-2]), int(images.shape[-1])
        points, scores = self.head(self.backbone(self.pixels(images)), size)
        return points if scores is None else (points, scores)


class SegmentationGraph(nn.Module):
    """A segmenter: `(B, 3, H, W)` to `logits` `(B, K, H, W)`.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    outputs = ("logits",)

    def __init__(self, task: Segmenter, *, uint8: bool) -> None:
        super().__init__()
        self.pixels = Pixels(task.normalize, uint8=uint8)
        self.backbone, self.decoder = task.backbone, task.decoder
        self.fixed_size: tuple[int, int] | None = getattr(task.backbone, "fixed_size", None)

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, K, H, W)` of images `(B, 3, H, W)`."""
        height, width = images.shape[-2:]
        padded = pad_to_size(self.pixels(images), self.fixed_size)
        logits = self.decoder(self.backbone(padded))
        logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits if self.fixed_size is None else logits[..., :height, :width]


class CaptionGraph(nn.Module):
    """A captioner that decodes greedily: `(B, 3, H, W)` to `tokens` `(B, T)` and `log_prob` `(B,)`.

    Every image gets `decoding.max_length` steps, laid out one after another; padding follows the end of a
    sentence. Cores that attend also give `attention` `(B, T, h, w)`.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    never: Tensor
    bad: Tensor
    end: Tensor

    def __init__(self, task: Captioner, *, uint8: bool) -> None:
        super().__init__()
        self.pixels = Pixels(task.normalize, uint8=uint8)
        self.backbone, self.grid, self.decoder = task.backbone, task.grid, task.decoder
        self.special_tokens, self.max_length = task.special_tokens, task.decoding.max_length
        words = len(task.vocabulary)
        never = torch.zeros(words)
        never[self.special_tokens.never_generated] = float("-inf")
        bad = torch.zeros(words, dtype=torch.bool)
        bad[list(self.special_tokens.bad_endings)] = True
        end = torch.zeros(words, dtype=torch.bool)
        end[self.special_tokens.eos] = True
        self.register_buffer("never", never, persistent=False)
        self.register_buffer("bad", bad, persistent=False)
        self.register_buffer("end", end, persistent=False)
        self.outputs = ("tokens", "log_prob", *(("attention",) if task.decoder.attends else ()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return tokens, log-probabilities and perhaps attention of images `(B, 3, H, W)`."""
        grid, (height, width) = self.grid(self.backbone(self.pixels(images)))
        encoded, state = self.decoder.start(grid)
        special = self.special_tokens
        log_prob = grid[:, 0, 0] * 0  # (B,) zeros
        last = torch.full_like(log_prob, special.bos, dtype=torch.int64)
        ended = torch.zeros_like(last, dtype=torch.bool)
        words, maps = [], []
        for _ in range(self.max_length):
            log_probs, state, weights = self.decoder.step(last, state, encoded)
            allowed = log_probs + self.never
            if special.bad_endings:
                allowed = allowed.masked_fill(self.bad[last][:, None] & self.end, float("-inf"))
            word = allowed.argmax(dim=-1)
            log_prob = log_prob + log_probs.gather(1, word[:, None])[:, 0].masked_fill(ended, 0.0)
            word = word.masked_fill(ended, special.pad)
            words.append(word)
            if weights is not None:
                maps.append(weights.masked_fill(ended[:, None], 0.0).unflatten(1, (height, width)))
            ended = ended | (word == special.eos)
            last = word.masked_fill(ended, special.eos)
        tokens = torch.stack(words, dim=1)
        return (tokens, log_prob, torch.stack(maps, dim=1)) if maps else (tokens, log_prob)


def make_graph(task: TaskHooks, *, uint8: bool = False) -> Any:
    """Return a task's graph, in evaluation mode; its `outputs` are the names of what it returns.

    Args:
        task: A `Classifier`, `Detector`, `Segmenter`, `Captioner`, `Embedder` or
            `KeypointRegressor`.
        uint8: Whether images are uint8, and not float in [0, 1].
    """
    graph: nn.Module
    if isinstance(task, Classifier):
        graph = ClassificationGraph(task, uint8=uint8)
    elif isinstance(task, Segmenter):
        graph = SegmentationGraph(task, uint8=uint8)
    elif isinstance(task, Captioner):
        graph = CaptionGraph(task, uint8=uint8)
    elif isinstance(task, Embedder):
        graph = EmbeddingGraph(task, uint8=uint8)
    elif isinstance(task, KeypointRegressor):
        graph = KeypointGraph(task, uint8=uint8)
    elif isinstance(task, Detector):
        dense = isinstance(task.model, DenseDetector)
        graph = DenseGraph(task, uint8=uint8) if dense else RCNNGraph(task, uint8=uint8)
    return graph.eval()
