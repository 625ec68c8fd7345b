"""COCO's average precision from flat arrays: match every image and class at once, then accumulate.

The rules are those of the reference evaluation (Lin et al., "Microsoft COCO", 2014; `pycocotools.COCOeval`),
to the order in which ties are broken. The reference loops over images, classes, areas, thresholds and
detections in Python; here pairs below the lowest threshold are dropped first, and the rest is matched rank by
rank over all groups together.

Letters of the shapes: D detections, G ground-truth objects, A = 4 area ranges, T = 10 IoU thresholds, K
classes, M limits of detections, R = 101 recall levels. A group is one class in one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AREAS",
    "IOUS",
    "MAX_DETS",
    "Accumulated",
    "Bools",
    "Floats",
    "Ints",
    "Objects",
    "Overlap",
    "accumulate",
    "box_overlaps",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Overlap = Callable[[Ints, Ints], Floats]  # IoU of pairs: positions of detections (P,), of truths (P,) -> (P,)

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
        value: Detections: the score. Truths: 1 for a crowd, 2 for another that is ignored, else 0.
    """

    image: Ints
    label: Ints
    area: Floats
    value: Floats


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall, the reference's `eval`; -1 where a class has no object.

    Args:
        precision: `(T, R, K, A)` at the last limit of detections (COCO: 100).
        recall: `(T, K, A, M)` at each limit of detections (COCO: 1, 10, 100).
        image_rows: What each image adds to the precision at all areas: image and label of each object that
            counts, "object_image" and "object_label" `(G,)`, and of each detection, in the order in which
            precision counts them, "image", "label", "hits" and "misses" `(D,)`: the thresholds at which it is
            one, a bit each, the lowest threshold in the lowest bit.
    """

    precision: Floats
    recall: Floats
    image_rows: dict[str, NDArray[Any]]


def box_overlaps(detections: Floats, truths: Floats, crowd: Bools) -> Overlap:
    """Return the function that gives the IoU of chosen pairs of boxes.

    Against a crowd the union is the detection's own area.

    Args:
        detections: `(D, 4)` x, y, width, height.
        truths: `(G, 4)` x, y, width, height.
        crowd: `(G,)`.
    """

    def overlap(d: Ints, g: Ints) -> Floats:
        box, truth = detections[d].T, truths[g].T  # (4, P)
        width = np.minimum(box[2] + box[0], truth[2] + truth[0]) - np.maximum(box[0], truth[0])
        height = np.minimum(box[3] + box[1], truth[3] + truth[1]) - np.maximum(box[1], truth[1])
        intersection = np.where((width > 0) & (height > 0), width * height, 0.0)
        area = box[2] * box[3]
        union = np.where(crowd[g], area, area + truth[2] * truth[3] - intersection)
        iou: Floats = np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
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
    # 1. Sort detections by class, image and falling score, and keep the first ones of each group.
    order = np.lexsort((-detections.value, detections.image, detections.label))  # (D,)
    group = detections.label[order] * images + detections.image[order]
    rank = _rank(group)
    within = rank < max_dets[-1]
    order, group, rank = order[within], group[within], rank[within]

    # 2. Objects outside an area range, and crowds, are ignored: neither missed nor counted as matches.
    ranges = np.array(list(AREAS.values()))  # (A, 2)
    outside = (truths.area[:, None] < ranges[:, 0]) | (truths.area[:, None] > ranges[:, 1])
    ignored_truth = outside | (truths.value[:, None] > 0)  # (G, A)
    area = detections.area[order]
    outside = (area[:, None] < ranges[:, 0]) | (area[:, None] > ranges[:, 1])  # (D, A)

    # 3. Match the pairs that overlap. An unmatched detection outside the range is ignored as well.
    pairs = _pairs(group, order, truths.label * images + truths.image, overlap)
    matched = np.zeros((len(order), len(AREAS), len(IOUS)), dtype=bool)  # (D, A, T)
    to_ignored = np.zeros_like(matched)
    _match(pairs, ignored_truth, truths.value == 1, matched, to_ignored)
    ignored = np.where(matched, to_ignored, outside[:, :, None])

    # 4. Accumulate hits and misses over the data set.
    present = np.zeros((classes, len(AREAS)), dtype=np.int64)  # (K, A) objects to detect
    np.add.at(present, truths.label, ~ignored_truth)
    hits, misses = matched & ~ignored, ~matched & ~ignored
    counted = np.flatnonzero(~ignored_truth[:, 0])
    return Accumulated(
        precision=_precision(detections, order, hits, misses, present),
        recall=_recall(detections.label[order], rank, hits, present, max_dets),
        image_rows={
            "object_image": truths.image[counted].astype(np.int32),
            "object_label": truths.label[counted].astype(np.int32),
            **_image_rows(detections, order, hits[:, 0], misses[:, 0]),
        },
    )


@dataclass(frozen=True)
class _Pairs:
    """Pairs that overlap enough to match at some threshold, by group, then detection, then truth."""

    group: Ints  # (P,)
    detection: Ints  # (P,) position among the sorted detections
    truth: Ints  # (P,)
    iou: Floats  # (P,)


def _rank(key: Ints) -> Ints:
    """Return the position of each entry within its run of equal keys."""
    if not len(key):
        return key
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    return np.arange(len(key)) - np.repeat(starts, np.diff(np.r_[starts, len(key)]))


def _pairs(group: Ints, order: Ints, truth_group: Ints, overlap: Overlap) -> _Pairs:
    """Return every pair of a group with IoU of at least the lowest threshold.

    Args:
        group: `(D,)`, of the sorted detections.
        order: `(D,)`, their positions as `overlap` counts them.
        truth_group: `(G,)`.
        overlap: IoU of pairs.
    """
    by_group = np.argsort(truth_group, kind="stable")
    sorted_group = truth_group[by_group]
    first = np.searchsorted(sorted_group, group, "left")  # (D,) first object of the detection's group
    count = np.searchsorted(sorted_group, group, "right") - first  # (D,) objects in it
    parts = []
    ends = np.cumsum(count)
    start = 0
    while start < len(group):  # a batch of detections with at most _PAIRS pairs
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS, "right")))
        counts = count[start:stop]
        d = np.repeat(np.arange(start, stop), counts)
        begin = np.repeat(np.cumsum(counts) - counts, counts)
        g = by_group[np.repeat(first[start:stop], counts) + np.arange(len(d)) - begin]
        iou = overlap(order[d], g)
        near = iou >= IOUS[0]
        parts.append((group[d[near]], d[near], g[near], iou[near]))
        start = stop
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return _Pairs(none, none, none, np.zeros(0))
    return _Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _match(pairs: _Pairs, ignored_truth: Bools, crowd: Bools, matched: Bools, to_ignored: Bools) -> None:
    """Fill `matched` and `to_ignored`, both `(D, A, T)`, from the pairs.

    Args:
        pairs: Of all groups.
        ignored_truth: `(G, A)`.
        crowd: `(G,)`.
        matched: Whether a detection has an object.
        to_ignored: Whether that object is ignored.
    """
    if not len(pairs.group):
        return
    # 1. Number groups, and the detections (rows) and objects (columns) within each group.
    groups, group = np.unique(pairs.group, return_inverse=True)
    detections, row = _compact(group, pairs.detection)
    truths, column = _compact(group, pairs.truth)
    height = np.bincount(detections[0], minlength=len(groups))
    width = np.bincount(truths[0], minlength=len(groups))
    # 2. Batches of groups of similar size, of about _CELLS cells each: padding stays small.
    order = np.lexsort((height, width))
    cells = np.cumsum((width * len(AREAS) * len(IOUS))[order])
    batch = np.empty(len(groups), dtype=np.int64)
    batch[order] = cells // _CELLS
    # 3. Scatter the pairs of a batch into padded tables (N, rows, columns), and match those.
    for number in np.unique(batch):
        chosen = batch == number
        table = np.cumsum(chosen) - 1  # the group's table within the batch
        pair = chosen[group]
        at = table[group[pair]]
        shape = (int(chosen.sum()), int(height[chosen].max()), int(width[chosen].max()))
        iou = np.zeros(shape)
        iou[at, row[pair], column[pair]] = pairs.iou[pair]
        detection = np.full(shape[:2], -1)
        detection[at, row[pair]] = pairs.detection[pair]
        truth = np.full((shape[0], shape[2]), -1)
        truth[at, column[pair]] = pairs.truth[pair]
        _match_groups(iou, detection, truth, ignored_truth, crowd, matched, to_ignored)


def _compact(group: Ints, member: Ints) -> tuple[tuple[Ints, Ints], Ints]:
    """Return the distinct `(groups, members)`, and the number from 0 of each pair's member in its group."""
    span = int(member.max()) + 1
    keys, inverse = np.unique(group * span + member, return_inverse=True)
    groups = keys // span
    return (groups, keys % span), _rank(groups)[inverse]


def _match_groups(
    iou: Floats,
    detection: Ints,
    truth: Ints,
    ignored_truth: Bools,
    crowd: Bools,
    matched: Bools,
    to_ignored: Bools,
) -> None:
    """Match greedily, the best detection of every group first, then the second, and so on.

    Args:
        iou: `(N, d, g)` of N groups.
        detection: `(N, d)`, by falling score; -1 pads.
        truth: `(N, g)`; -1 pads.
        ignored_truth: `(G, A)`.
        crowd: `(G,)`: may be matched again and again.
        matched: `(D, A, T)`, filled.
        to_ignored: `(D, A, T)`, filled.
    """
    count, _, width = iou.shape
    ignore = ignored_truth[truth].transpose(0, 2, 1)[:, :, None]  # (N, A, 1, g)
    reusable = crowd[truth][:, None, None]  # (N, 1, 1, g)
    taken = np.zeros((count, len(AREAS), len(IOUS), width), dtype=bool)
    threshold = np.minimum(IOUS, 1 - 1e-10)[:, None]  # (T, 1)
    backwards = np.arange(width - 1, -1, -1)
    for rank in range(iou.shape[1]):
        rows = np.flatnonzero(detection[:, rank] >= 0)  # (n,) groups with so many detections
        value = iou[rows, rank][:, None, None]  # (n, 1, 1, g)
        free = (value >= threshold) & (~taken[rows] | reusable[rows])  # (n, A, T, g)
        # Objects that count come before ignored ones, whatever they overlap.
        counted = free & ~ignore[rows]
        pool = np.where(counted.any(-1)[..., None], counted, free)
        # Of equal overlaps the reference takes the last: search from the back.
        best = backwards[np.where(pool, value, -1.0)[..., ::-1].argmax(-1)]  # (n, A, T)
        hit = pool.any(-1)
        n, a, t = np.nonzero(hit)
        g = best[n, a, t]
        taken[rows[n], a, t, g] = True
        current = detection[rows, rank]  # (n,)
        matched[current] = hit
        to_ignored[current[n], a, t] = ignore[rows[n], a, 0, g]


def _precision(detections: Objects, order: Ints, hits: Bools, misses: Bools, present: Ints) -> Floats:
    """Return `(T, R, K, A)` interpolated precision at each recall level.

    Args:
        detections: All of them.
        order: `(D,)`, positions of those that count, by class.
        hits: `(D, A, T)`.
        misses: `(D, A, T)`.
        present: `(K, A)` objects to detect.
    """
    classes = len(present)
    out = np.full((len(IOUS), len(RECALLS), classes, len(AREAS)), -1.0)
    label, score = detections.label[order], detections.value[order]
    bounds = np.searchsorted(label, np.arange(classes + 1))
    for index in np.flatnonzero(present.any(1)):
        rows = np.arange(bounds[index], bounds[index + 1])  # (n,) detections of the class
        rows = rows[np.argsort(-score[rows], kind="stable")]
        hit = hits[rows].transpose(1, 2, 0).cumsum(-1, dtype=np.float64)  # (A, T, n)
        miss = misses[rows].transpose(1, 2, 0).cumsum(-1, dtype=np.float64)
        precision = hit / (miss + hit + np.spacing(1))
        # The envelope: the highest precision at this recall or beyond.
        precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        for area in np.flatnonzero(present[index]):
            for threshold in range(len(IOUS)):
                recall = hit[area, threshold] / present[index, area]
                position = np.searchsorted(recall, RECALLS, side="left")  # (R,)
                reached = position < len(rows)
                out[threshold, :, index, area] = 0.0
                out[threshold, reached, index, area] = precision[area, threshold, position[reached]]
    return out


def _image_rows(detections: Objects, order: Ints, hits: Bools, misses: Bools) -> dict[str, NDArray[Any]]:
    """Return the columns of the detections, by class and falling score.

    Args:
        detections: All of them.
        order: `(D,)`, positions of those that count, by class.
        hits: `(D, T)`.
        misses: `(D, T)`.
    """
    rows = np.lexsort((-detections.value[order], detections.label[order]))
    bits = 1 << np.arange(len(IOUS))
    return {
        "image": detections.image[order][rows].astype(np.int32),
        "label": detections.label[order][rows].astype(np.int32),
        "hits": (hits[rows] @ bits).astype(np.uint16),
        "misses": (misses[rows] @ bits).astype(np.uint16),
    }


def _recall(label: Ints, rank: Ints, hits: Bools, present: Ints, max_dets: Sequence[int]) -> Floats:
    """Return `(T, K, A, M)` recall among the first detections of each image, by limit.

    Args:
        label: `(D,)`, class of each detection.
        rank: `(D,)`, its number within its group.
        hits: `(D, A, T)`.
        present: `(K, A)` objects to detect.
        max_dets: M limits.
    """
    out = np.full((len(IOUS), *present.shape, len(max_dets)), -1.0)
    shape = (*present.shape, len(IOUS))
    detection, area, threshold = np.nonzero(hits)  # few: most detections are no hit
    cell = np.ravel_multi_index((label[detection], area, threshold), shape)
    for index, limit in enumerate(max_dets):
        counts = np.bincount(cell[rank[detection] < limit], minlength=int(np.prod(shape)))
        recall = counts.reshape(shape) / np.maximum(present, 1)[:, :, None]  # (K, A, T)
        out[..., index] = np.where(present[:, :, None] > 0, recall, -1.0).transpose(2, 0, 1)
    return out
