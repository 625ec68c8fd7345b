"""Distances of predicted points as fractions of an object's size: PCK, PCKh, PCP and the normalised error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from visionkit.config import check_number, limits
from visionkit.distributed import widest_float
from visionkit.errors import InputError, expected, unknown_name
from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.coco_core import Floats
from visionkit.metrics.embedding.rows import image_keys
from visionkit.metrics.keypoints.similarity import keypoint_sigmas, keypoint_similarity

__all__ = ["KeypointScores", "limb_ratios", "point_distances"]

Size = Literal["torso", "box"]
_TORSO = ("left_shoulder", "right_hip")
_HEAD = ("head_top", "neck")
_NO_ID = -1  # of `image_keys`


def point_distances(preds: Floats, target: Floats, sizes: Floats) -> Floats:
    """Return the distance of each predicted point to its target as a fraction of its object's size.

    Args:
        preds: `(B, K, 2)` x, y.
        target: `(B, K, 3)` x, y, flag; above 0 is labelled.
        sizes: `(B,)`; NaN or 0 where an object has none.

    Returns:
        `(B, K)`; NaN where the point is not labelled, or the object has no size.
    """
    distance = np.hypot(*np.moveaxis(preds - target[..., :2], -1, 0))
    known = (target[..., 2] > 0) & (sizes > 0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction: Floats = np.where(known, distance / sizes[:, None], np.nan)
    return fraction


def limb_ratios(preds: Floats, target: Floats, edges: Sequence[tuple[int, int]]) -> Floats:
    """Return for each limb the larger distance of its two ends as a fraction of its length.

    Args:
        preds: `(B, K, 2)`.
        target: `(B, K, 3)`.
        edges: E pairs of points.

    Returns:
        `(B, E)`; NaN where an end is not labelled, or both lie at one point.

    Ferrari et al., Progressive Search Space Reduction, 2008: a limb is right where this is at most 0.5.
    """
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    first, second = target[:, ends[:, 0]], target[:, ends[:, 1]]  # (B, E, 3)
    length = np.hypot(*np.moveaxis((first - second)[..., :2], -1, 0))
    errors = [
        np.hypot(*np.moveaxis(preds[:, ends[:, k]] - (first, second)[k][..., :2], -1, 0)) for k in (0, 1)
    ]
    known = (first[..., 2] > 0) & (second[..., 2] > 0) & (length > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(known, np.maximum(*errors) / length, np.nan)
    return ratio


class KeypointScores(ScoreMetric):
    """Scores of one pose an object, in the frame of the original images, exact on any number of processes.

    `compute` gives `pck` (the fraction of labelled points whose distance is at most `threshold` of the
    object's size; Yang and Ramanan 2013), `nme` (the mean distance as a fraction of that size), `oks` (the
    mean object keypoint similarity), with edges `pcp` (the fraction of limbs both of whose ends lie within
    half its length; Ferrari et al. 2008), with a head `pckh` (points within half the head's length;
    Andriluka et al. 2014, whose head is the diagonal of a box), and `pck/<point>` and `pcp/<limb>`. Points
    that are not labelled do not count. A score of which nothing could be measured is NaN.

    Rows of the objects are gathered and summed exactly, so the order of the objects changes nothing; an
    object whose id comes twice counts once.

    Args:
        names: Names of the points.
        edges: The limbs, pairs of points.
        threshold: Of `pck`.
        size: "torso": the distance from `torso[0]` to `torso[1]`; "box": the longer side of the box; None:
            the torso where there are points of these names, else the box. An object whose size is not known
            (a point of the torso is not labelled) counts in `unsized`, and neither in `pck` nor in `nme`.
        torso: Names of its ends.
        head: Names of the ends of the head; the score is left out where there are no such points.
        sigmas: Of `oks`; see `keypoint_sigmas`.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.

    Attributes:
        unsized: After `compute`, how many objects with a labelled point had no size.

    Raises:
        InputError: There are no such points, or a number is out of range.
    """

    monitor = ("pck", "max")
    objects: list[Tensor]
    keys: list[Tensor]

    def __init__(
        self,
        names: Sequence[str],
        *,
        edges: Sequence[tuple[int, int]] = (),
        threshold: float = 0.2,
        size: Size | None = None,
        torso: tuple[str, str] = _TORSO,
        head: tuple[str, str] = _HEAD,
        sigmas: Sequence[float] | None = None,
        score: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_number("threshold", threshold, limits(above=0))
        self.points, self.edges = tuple(names), tuple((int(a), int(b)) for a, b in edges)
        if len(set(self.points)) < len(self.points) or not self.points:
            raise InputError(expected("names of keypoints", "at least one, all different", list(names)))
        index = {name: number for number, name in enumerate(self.points)}
        for edge in self.edges:
            if not all(0 <= end < len(self.points) for end in edge):
                raise InputError(expected("an edge", f"two points of 0 .. {len(self.points) - 1}", edge))
        if size not in (None, *get_args(Size)):
            raise unknown_name("size", str(size), get_args(Size))
        self.size: Size = size or ("torso" if set(torso) <= index.keys() else "box")
        for name in torso if self.size == "torso" else ():
            if name not in index:
                raise unknown_name("keypoint", name, self.points)
        self._torso = tuple(index[name] for name in torso) if self.size == "torso" else ()
        self._head = tuple(index[name] for name in head) if set(head) <= index.keys() else ()
        self.limbs = tuple(f"{self.points[a]}-{self.points[b]}" for a, b in self.edges)
        self.threshold = threshold
        self.sigmas = keypoint_sigmas(len(self.points), sigmas)
        named = ["pck", "nme", "oks", *(["pcp"] if self.edges else []), *(["pckh"] if self._head else [])]
        named += [f"pck/{name}" for name in self.points] + [f"pcp/{name}" for name in self.limbs]
        super().__init__(named, score=score, **kwargs)
        width = 2 * len(self.points) + len(self.edges) + 2
        self._add_rows("objects", width, torch.float64)  # the columns of `_table`
        self._add_rows("keys", None, torch.int64)
        self.unsized = 0
        self._latest: Floats = np.zeros((0, width))

    @torch.no_grad()
    def update(
        self,
        preds: Tensor,
        target: Tensor,
        boxes: Tensor,
        areas: Tensor | None = None,
        ids: Sequence[Any] | None = None,
    ) -> None:
        """Add objects.

        Args:
            preds: `(B, K, 2)` x, y, or with a third column that does not count.
            target: `(B, K, 3)` x, y, flag, in the same frame.
            boxes: `(B, 4)` xyxy of the objects.
            areas: `(B,)` their annotated areas, for `oks`; NaN, or not given: those of the boxes.
            ids: The name of each object.

        Raises:
            InputError: Shapes differ, or there are more ids than objects, or fewer.
        """
        count = len(self.points)
        for name, value, shape in (
            ("preds", preds[..., :2], (len(preds), count, 2)), ("target", target, (len(preds), count, 3)),
            ("boxes", boxes, (len(preds), 4)), *([] if areas is None else [("areas", areas, (len(preds),))]),
        ):  # fmt: skip
            if tuple(value.shape) != shape:
                raise InputError(expected(name, f"of shape {shape}", tuple(value.shape)))
        if ids is not None and len(ids) != len(preds):
            raise InputError(expected("ids", f"one for each of {len(preds)} objects", len(ids)))
        self._latest = self._latest[:0]
        if len(preds):
            self._latest = rows = self._table(preds, target, boxes, areas)
            self.objects.append(torch.from_numpy(rows).to(self.device, widest_float(self.device)))
            self.keys.append(image_keys(ids, len(rows)).to(self.device))

    def distances(self, preds: Tensor, target: Tensor, boxes: Tensor) -> Tensor:
        """Return the distance of each point as a fraction of its object's size, `(B, K)`, NaN if unknown.

        Args:
            preds: As for `update`.
            target: As for `update`.
            boxes: As for `update`.
        """
        return torch.from_numpy(self._table(preds, target, boxes, None)[:, : len(self.points)])

    def image_rows(self) -> dict[str, Tensor]:
        """Return what each object of the last `update` adds to the scores; a score is the quotient of sums.

        Returns:
            Columns "sum.SCORE" and "count.SCORE", `(B,)`.
        """
        columns = {}
        for name, values in self._parts(self._latest).items():
            if name in self.names:
                columns[f"sum.{name}"] = torch.from_numpy(np.nansum(values, axis=1))
                columns[f"count.{name}"] = torch.from_numpy((~np.isnan(values)).sum(1).astype(np.float64))
        return columns

    def _table(self, preds: Tensor, target: Tensor, boxes: Tensor, areas: Tensor | None) -> Floats:
        """Return a row an object: distances, those by the head, limbs, OKS, whether it has a size."""
        box = _host(boxes)
        plain = box[:, 2:] - box[:, :2]
        area = np.full(len(box), np.nan) if areas is None else _host(areas)
        area = np.where(np.isnan(area), plain.prod(1), area)
        return self._measure(
            _host(preds[..., :2]), _host(target), np.concatenate((box[:, :2], plain), 1), area
        )

    def _measure(self, preds: Floats, target: Floats, boxes: Floats, areas: Floats) -> Floats:
        sizes = _length(target, self._torso) if self._torso else boxes[:, 2:].max(1)
        heads = _length(target, self._head) if self._head else np.full(len(preds), np.nan)
        labelled = (target[..., 2] > 0).any(1)
        similarity = keypoint_similarity(preds, target, boxes, areas, self.sigmas)
        parts = (
            point_distances(preds, target, sizes),
            point_distances(preds, target, heads),
            limb_ratios(preds, target, self.edges),
            np.where(labelled, similarity, np.nan)[:, None],
            (sizes > 0)[:, None].astype(np.float64),
        )
        return np.concatenate(parts, axis=1)

    def _scores(self) -> dict[str, float]:
        rows, keys = self._rows("objects").double().numpy(), self._rows("keys").numpy()
        _, first = np.unique(np.where(keys == _NO_ID, -2 - np.arange(len(keys)), keys), return_index=True)
        rows = rows[first]
        self.unsized = int(((rows[:, -1] == 0) & ~np.isnan(rows[:, -2])).sum())
        if not len(rows):
            return {}
        parts = self._parts(rows)
        values = {name: _mean(part) for name, part in parts.items()}
        values |= {f"pck/{name}": _mean(parts["pck"][:, k]) for k, name in enumerate(self.points)}
        values |= {f"pcp/{name}": _mean(parts["pcp"][:, k]) for k, name in enumerate(self.limbs)}
        return {name: values[name] for name in self.names}

    def _parts(self, rows: Floats) -> dict[str, Floats]:
        """Return what each score is the mean of, a row an object; NaN where nothing could be measured."""
        count = len(self.points)
        near, by_head, limbs = np.split(rows[:, :-2], (count, 2 * count), axis=1)
        return {
            "pck": _within(near, self.threshold),
            "nme": near,
            "oks": rows[:, -2:-1],
            "pcp": _within(limbs, 0.5),
            "pckh": _within(by_head, 0.5),
        }


def _host(value: Tensor) -> Floats:
    array: Floats = value.detach().cpu().double().numpy()
    return array


def _length(target: Floats, ends: Sequence[int]) -> Floats:
    """Return the distance of two labelled points of each object, NaN without, `(B,)`."""
    first, second = (target[:, end] for end in ends)
    length: Floats = np.where(
        (first[:, 2] > 0) & (second[:, 2] > 0),
        np.hypot(first[:, 0] - second[:, 0], first[:, 1] - second[:, 1]),
        np.nan,
    )
    return length


def _within(values: Floats, limit: float) -> Floats:
    """Return 1 where a value is at most a limit, else 0; NaN stays."""
    return np.where(np.isnan(values), np.nan, values <= limit)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)].tolist()
    return math.fsum(known) / len(known) if known else math.nan
