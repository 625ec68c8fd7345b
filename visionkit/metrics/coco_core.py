"""COCO's average precision from flat arrays: match every image and class at once, then accumulate.

The rules are those of the reference evaluation (Lin et al., "Microsoft COCO", 2014; `pycocotools.COCOeval`),
to the order in which ties are broken. The reference walks images, classes, areas, thresholds and detections
in Python; here pairs below the lowest threshold are dropped first, and the rest is matched rank by rank over
all groups (a class in an image) together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AREAS", "IOUS", "MAX_DETS", "Accumulated", "Objects", "accumulate", "box_overlaps"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Overlap = Callable[[Ints, Ints], Floats]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETS = (1, 10, 100)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}

_PAIRS = 2_000_000  # pairs of one batch of overlaps
_CELLS = 2_000_000  # cells of one batch of matching


@dataclass(frozen=True)
class Objects:
    """Objects of all images, in flat arrays of equal length; truths or detections.

    Args:
        image: Image of each, `0 .. images - 1` in the order that breaks ties.
        label: Class of each, from 0.
        area: Area that decides "small", "medium" or "large".
        value: Detections: the score. Truths: 1 for a crowd, else 0.
    """

    image: Ints
    label: Ints
    area: Floats
    value: Floats


@dataclass(frozen=True)
class Accumulated:
    """What the reference calls `eval`; -1 where a class has no object.

    Args:
        precision: `(T, 101, K, 4)` over IoU thresholds, recall levels, classes, areas, at the last limit of
            detections (COCO: 100).
        recall: `(T, K, 4, M)` over IoU thresholds, classes, areas, limits of detections (COCO: 1, 10, 100).
    """

    precision: Floats
    recall: Floats


def box_overlaps(detections: Floats, truths: Floats, crowd: Bools) -> Overlap:
    """Return the function that gives the IoU of chosen pairs of boxes.

    Against a crowd the union is the detection's own area.

    Args:
        detections: `(D, 4)` x, y, width, height.
        truths: `(G, 4)` x, y, width, height.
        crowd: `(G,)`.
    """

    def overlap(d: Ints, g: Ints) -> Floats:
        one, other = detections[d].T, truths[g].T
        wide = np.minimum(one[2] + one[0], other[2] + other[0]) - np.maximum(one[0], other[0])
        high = np.minimum(one[3] + one[1], other[3] + other[1]) - np.maximum(one[1], other[1])
        shared = np.where((wide > 0) & (high > 0), wide * high, 0.0)
        own = one[2] * one[3]
        union = np.where(crowd[g], own, own + other[2] * other[3] - shared)
        iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        return iou

    return overlap


def accumulate(
    detections: Objects,
    truths: Objects,
    overlap: Overlap,
    *,
    images: int,
    classes: int,
    max_dets: Sequence[int] = MAX_DETS,
) -> Accumulated:
    """Match detections to truths and return precision and recall.

    Args:
        detections: All detections; within an image in the order that breaks ties.
        truths: All annotated objects.
        overlap: IoU of pairs given as positions in `detections` and in `truths`.
        images: Number of images.
        classes: Number of classes K.
        max_dets: Limits of detections a class and image, rising; the last one is that of precision.
    """
    order = np.lexsort((-detections.value, detections.image, detections.label))
    key = detections.label[order] * images + detections.image[order]
    rank = _rank(key)
    kept = rank < max_dets[-1]
    order, key, rank = order[kept], key[kept], rank[kept]
    ranges = np.array(list(AREAS.values()))
    outside = (truths.area[:, None] < ranges[:, 0]) | (truths.area[:, None] > ranges[:, 1])
    ignored_truth = outside | (truths.value[:, None] > 0)  # (G, A)
    area = detections.area[order]
    beyond = (area[:, None] < ranges[:, 0]) | (area[:, None] > ranges[:, 1])  # (D, A)

    pairs = _pairs(key, order, truths.label * images + truths.image, overlap)
    matched = np.zeros((len(order), len(AREAS), len(IOUS)), dtype=bool)
    to_ignored = np.zeros_like(matched)
    _match(pairs, ignored_truth, truths.value > 0, matched, to_ignored)
    ignored = np.where(matched, to_ignored, beyond[:, :, None])

    present = np.zeros((classes, len(AREAS)), dtype=np.int64)
    np.add.at(present, truths.label, ~ignored_truth)
    hits = matched & ~ignored
    return Accumulated(
        precision=_precision(detections, order, hits, ~matched & ~ignored, present),
        recall=_recall(detections.label[order], rank, hits, present, max_dets),
    )


@dataclass(frozen=True)
class _Pairs:
    """Pairs that overlap enough to match at some threshold, by group, then detection, then truth."""

    group: Ints
    detection: Ints
    truth: Ints
    iou: Floats


def _rank(key: Ints) -> Ints:
    """Return the position of each entry within its run of equal keys."""
    if not len(key):
        return key
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    return np.arange(len(key)) - np.repeat(starts, np.diff(np.r_[starts, len(key)]))


def _pairs(key: Ints, order: Ints, truth_key: Ints, overlap: Overlap) -> _Pairs:
    """Return every pair of a group with IoU of at least the lowest threshold."""
    by_group = np.argsort(truth_key, kind="stable")
    sorted_key = truth_key[by_group]
    first = np.searchsorted(sorted_key, key, "left")
    count = np.searchsorted(sorted_key, key, "right") - first
    parts = []
    ends = np.cumsum(count)
    start = 0
    while start < len(key):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS, "right")))
        many = count[start:stop]
        d = np.repeat(np.arange(start, stop), many)
        begin = np.repeat(np.cumsum(many) - many, many)
        g = by_group[np.repeat(first[start:stop], many) + np.arange(len(d)) - begin]
        iou = overlap(order[d], g)
        near = iou >= IOUS[0]
        parts.append((key[d[near]], d[near], g[near], iou[near]))
        start = stop
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return _Pairs(none, none, none, np.zeros(0))
    return _Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _match(pairs: _Pairs, ignored_truth: Bools, crowd: Bools, matched: Bools, to_ignored: Bools) -> None:
    """Fill `matched` and `to_ignored`, both `(D, A, T)`, from the pairs."""
    if not len(pairs.group):
        return
    groups, group = np.unique(pairs.group, return_inverse=True)
    detections, row = _compact(group, pairs.detection)  # row: the detection's rank within its group
    truths, column = _compact(group, pairs.truth)
    height = np.bincount(detections[0], minlength=len(groups))
    width = np.bincount(truths[0], minlength=len(groups))
    order = np.lexsort((height, width))
    cells = np.cumsum((width * len(AREAS) * len(IOUS))[order])
    batch = np.empty(len(groups), dtype=np.int64)
    batch[order] = cells // _CELLS
    for number in np.unique(batch):
        chosen = batch == number
        place = np.cumsum(chosen) - 1
        here = chosen[group]
        shape = (int(chosen.sum()), int(height[chosen].max()), int(width[chosen].max()))
        iou = np.zeros(shape)
        iou[place[group[here]], row[here], column[here]] = pairs.iou[here]
        which = np.full(shape[:2], -1)
        which[place[group[here]], row[here]] = pairs.detection[here]
        truth = np.full((shape[0], shape[2]), -1)
        truth[place[group[here]], column[here]] = pairs.truth[here]
        _match_groups(iou, which, truth, ignored_truth, crowd, matched, to_ignored)


def _compact(group: Ints, member: Ints) -> tuple[tuple[Ints, Ints], Ints]:
    """Return the distinct `(groups, members)`, and the number from 0 of each pair's member in its group."""
    span = int(member.max()) + 1
    keys, inverse = np.unique(group * span + member, return_inverse=True)
    owner = keys // span
    return (owner, keys % span), _rank(owner)[inverse]


def _match_groups(
    iou: Floats,
    which: Ints,
    truth: Ints,
    ignored_truth: Bools,
    crowd: Bools,
    matched: Bools,
    to_ignored: Bools,
) -> None:
    """Match rank by rank: iou `(N, d, g)`, which `(N, d)` detection, truth `(N, g)`; -1 pads."""
    count, _, wide = iou.shape
    ignore = ignored_truth[truth].transpose(0, 2, 1)[:, :, None]  # (N, A, 1, g)
    reusable = crowd[truth][:, None, None]  # (N, 1, 1, g)
    taken = np.zeros((count, len(AREAS), len(IOUS), wide), dtype=bool)
    limit = np.minimum(IOUS, 1 - 1e-10)[:, None]
    backwards = np.arange(wide - 1, -1, -1)
    for rank in range(iou.shape[1]):
        rows = np.flatnonzero(which[:, rank] >= 0)
        value = iou[rows, rank][:, None, None]  # (n, 1, 1, g)
        free = (value >= limit) & (~taken[rows] | reusable[rows])
        real = free & ~ignore[rows]
        found = real.any(-1)
        pool = np.where(found[..., None], real, free)
        # Of equal overlaps the reference keeps the last: search from the back.
        best = backwards[np.where(pool, value, -1.0)[..., ::-1].argmax(-1)]  # (n, A, T)
        hit = pool.any(-1)
        n, a, t = np.nonzero(hit)
        g = best[n, a, t]
        taken[rows[n], a, t, g] = True
        detection = which[rows, rank]
        matched[detection] = hit
        to_ignored[detection[n], a, t] = ignore[rows[n], a, 0, g]


def _precision(detections: Objects, order: Ints, hits: Bools, misses: Bools, present: Ints) -> Floats:
    """Return `(T, 101, K, A)` interpolated precision at each recall level."""
    classes = len(present)
    out = np.full((len(IOUS), len(RECALLS), classes, len(AREAS)), -1.0)
    label, score = detections.label[order], detections.value[order]
    bounds = np.searchsorted(label, np.arange(classes + 1))
    for index in np.flatnonzero(present.any(1)):
        mine = np.arange(bounds[index], bounds[index + 1])
        mine = mine[np.argsort(-score[mine], kind="stable")]
        hit = hits[mine].transpose(1, 2, 0).cumsum(-1, dtype=np.float64)  # (A, T, n)
        miss = misses[mine].transpose(1, 2, 0).cumsum(-1, dtype=np.float64)
        precision = hit / (miss + hit + np.spacing(1))
        precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        for area in np.flatnonzero(present[index]):
            for threshold in range(len(IOUS)):
                recall = hit[area, threshold] / present[index, area]
                at = np.searchsorted(recall, RECALLS, side="left")
                inside = at < len(mine)
                out[threshold, :, index, area] = 0.0
                out[threshold, inside, index, area] = precision[area, threshold, at[inside]]
    return out


def _recall(label: Ints, rank: Ints, hits: Bools, present: Ints, max_dets: Sequence[int]) -> Floats:
    """Return `(T, K, A, M)` recall among the first detections of each image, by limit."""
    out = np.full((len(IOUS), *present.shape, len(max_dets)), -1.0)
    shape = (*present.shape, len(IOUS))
    detection, area, threshold = np.nonzero(hits)  # few: most detections are no hit
    cell = np.ravel_multi_index((label[detection], area, threshold), shape)
    for place, limit in enumerate(max_dets):
        counts = np.bincount(cell[rank[detection] < limit], minlength=int(np.prod(shape)))
        found = counts.reshape(shape)
        share = found / np.maximum(present, 1)[:, :, None]
        out[..., place] = np.where(present[:, :, None] > 0, share, -1.0).transpose(2, 0, 1)
    return out
