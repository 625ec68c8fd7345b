"""Masks of objects as run lengths, in the form of pycocotools: encode, travel as bytes, measure, overlap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from visionkit.metrics.coco_core import Bools, Floats, Ints, Overlap

__all__ = ["encode_runs", "mask_areas", "mask_overlaps", "runs_from_bytes", "runs_to_bytes"]


def encode_runs(masks: Any) -> list[dict[str, Any]]:
    """Return the run lengths `{"size": [H, W], "counts": bytes}` of each mask.

    Args:
        masks: `(N, H, W)` 0/1, or a list of run lengths, which is returned as it is.
    """
    if isinstance(masks, list):
        return masks
    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.to(torch.uint8).permute(1, 2, 0).cpu().numpy())  # (H, W, N)
    runs: list[dict[str, Any]] = coco_mask.encode(stacked)
    return runs


def runs_to_bytes(runs: Sequence[dict[str, Any]]) -> bytes:
    """Return a line "height width counts" for each mask; counts are ASCII without spaces."""
    lines = []
    for run in runs:
        counts = run["counts"]
        counts = counts.encode() if isinstance(counts, str) else bytes(counts)
        lines.append(b"%d %d %s\n" % (*run["size"], counts))
    return b"".join(lines)


def runs_from_bytes(text: bytes) -> list[dict[str, Any]]:
    """Return the masks of `runs_to_bytes`."""
    fields = (line.split(b" ") for line in text.splitlines())
    return [{"size": [int(height), int(width)], "counts": counts} for height, width, counts in fields]


def mask_areas(masks: list[dict[str, Any]]) -> Floats:
    """Return the number of pixels of each mask `(N,)`."""
    return np.asarray(coco_mask.area(masks) if masks else [], dtype=np.float64)


def mask_overlaps(masks: list[dict[str, Any]], targets: list[dict[str, Any]], crowd: Bools) -> Overlap:
    """Return the function that gives the IoU of chosen pairs of masks; against a crowd, the detection's part.

    Args:
        masks: Of the detections.
        targets: Of the annotated objects.
        crowd: `(G,)`, of the annotated objects.
    """

    def overlap(d: Ints, g: Ints) -> Floats:
        # Pairs are ordered by detection: one call of pycocotools for each detection's run of pairs.
        out = np.zeros(len(d))
        edges = [0, *(np.flatnonzero(d[1:] != d[:-1]) + 1).tolist(), len(d)]
        for start, stop in itertools.pairwise(edges if len(d) else []):
            run: NDArray[np.int64] = g[start:stop]
            row = coco_mask.iou([masks[d[start]]], [targets[i] for i in run], crowd[run].astype(np.uint8))
            out[start:stop] = row[0]
        return out

    return overlap
