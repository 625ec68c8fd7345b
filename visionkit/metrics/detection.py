"""COCO's average precision over a data set, the same on any number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from visionkit.config import check_numbers
from visionkit.distributed import broadcast_object, gather_objects, world_size
from visionkit.errors import InputError, expected
from visionkit.metrics.coco_core import (
    AREAS,
    IOUS,
    MAX_DETS,
    Accumulated,
    Objects,
    accumulate,
    box_overlaps,
)
from visionkit.types import as_ids

__all__ = ["CocoAP", "DetectionScores"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DetectionScores:
    """The scores of one evaluation; -1, as in the reference, where there was nothing to score.

    Args:
        values: `map`, `map50`, `map75`, `map_small`, `map_medium`, `map_large`, `ar1`, `ar10`, `ar100` (as
            the limits of detections are), `ar_small`, `ar_medium`, `ar_large`; with masks the same again
            under `mask_`.
        per_class: `map` of each class, by name.
        curves: Precision at 101 recall levels, IoU 0.5, of each class, by name.
        images: How many images were scored, over all processes.
        mask_per_class: `map` of the masks of each class, by name; empty without masks.
        over_limit: Images with more objects of a class than the last limit of detections: not all of them
            can be found.
    """

    values: dict[str, float]
    per_class: dict[str, float]
    curves: dict[str, list[float]]
    images: int = 0
    mask_per_class: dict[str, float] = field(default_factory=dict)
    over_limit: int = 0


class CocoAP:
    """Collects detections and truths of an evaluation and scores them by COCO's rules.

    Everything is kept as flat arrays; `reduce` gathers once, scores on process 0 and tells the others. An
    image that comes twice (its id says so) counts once, and ties are broken in the order of ids, so the
    scores do not depend on how images were shared among processes.

    Args:
        classes: Names of the classes; labels are positions in it.
        masks: Also score masks.
        max_dets: Rising limits of detections a class and image: recall is given at each, precision at the
            last. COCO's are 1, 10 and 100; images with more objects than that need a higher one.

    Raises:
        InputError: No class, a class named twice, or limits that do not rise from 1.

    Lin et al., Microsoft COCO, 2014. Reference: `pycocotools.cocoeval.COCOeval`.
    """

    def __init__(
        self, classes: Sequence[str], *, masks: bool = False, max_dets: Sequence[int] = MAX_DETS
    ) -> None:
        if not classes:
            raise InputError("Expected at least one class name, but got none.")
        twice = sorted({name for name in classes if list(classes).count(name) > 1})
        if twice:
            fix = "Scores go by the names: name each class once."
            raise InputError(expected("class names", "all different", twice[0], fix=fix))
        rising = tuple(check_numbers("max_dets", max_dets, whole=True))
        if not rising or rising[0] < 1 or any(b <= a for a, b in itertools.pairwise(rising)):
            raise InputError(expected("max_dets", "rising limits from 1 up, such as (1, 10, 100)", rising))
        self.max_dets = rising
        self.classes = tuple(classes)
        self.masks = masks
        self._state = _State()

    @torch.no_grad()
    def update(
        self,
        predictions: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Any]],
        ids: Sequence[Any],
    ) -> None:
        """Add images.

        Args:
            predictions: For each image `boxes` `(D, 4)` xyxy, `scores` `(D,)`, `labels` `(D,)`, and with
                masks `masks` `(D, H, W)` 0/1.
            targets: For each image `boxes` `(N, 4)`, `labels` `(N,)`, in the same frame, and optionally
                `iscrowd` `(N,)`, `area` `(N,)` (the annotated area; NaN: the box's or mask's own) and, with
                masks, `masks`: `(N, H, W)`, or run lengths as pycocotools has them. Tensors or arrays. With
                `image_id`, the file's own number, ties are broken in the order of these, as COCO does.
            ids: What names each image: text or numbers.

        Raises:
            InputError: Lengths differ, or a label is not a class.
        """
        if not len(predictions) == len(targets) == len(ids):
            raise InputError(
                f"Expected as many predictions as targets and ids, but got "
                f"{len(predictions)}, {len(targets)} and {len(ids)}."
            )
        for found, target, name in zip(predictions, targets, as_ids(ids) or (), strict=True):
            index = len(self._state.ids)
            count, size = len(target["labels"]), len(found["labels"])
            for what, rows, known in (("target", target, count), ("prediction", found, size)):
                for key in ("boxes", "scores", "iscrowd", "area"):
                    if key in rows and len(rows[key]) != known and (what, key) != ("target", "scores"):
                        raise InputError(
                            f"Image {name!r}: expected one entry of '{key}' for each of {known} labels of "
                            f"the {what}, but got {len(rows[key])}."
                        )
            crowd = target.get("iscrowd", np.zeros(count))
            area = target.get("area", np.full(count, np.nan))
            truth = _truth_rows(index, target["boxes"], target["labels"], crowd, area)
            detection = _rows(index, found["boxes"], found["labels"], found["scores"], torch.zeros(size))
            for what, table in (("target", truth), ("prediction", detection)):
                if len(table) and not _within(table[:, 5], len(self.classes)):
                    raise InputError(
                        f"Image {name!r}: expected labels of the {what} in 0..{len(self.classes) - 1}, "
                        f"but got {int(table[:, 5].min())}..{int(table[:, 5].max())}."
                    )
            self._state.ids.append(name)
            number = target.get("image_id")
            self._state.numbers.append(None if number is None else int(number))
            self._state.truths.append(truth)
            self._state.detections.append(detection)
            if self.masks:
                self._state.truth_masks.append(_encode(target["masks"]))
                self._state.detection_masks.append(_encode(found["masks"]))

    def reduce(self) -> DetectionScores:
        """Return the scores over all processes; every process must call it."""
        if world_size() == 1:
            return self._score([self._state])
        parts = gather_objects(self._state.packed())
        scores: DetectionScores = broadcast_object(None if parts is None else self._score(parts))
        return scores

    def reset(self) -> None:
        """Forget every image."""
        self._state = _State()

    def _score(self, parts: Sequence[_State]) -> DetectionScores:
        state = _merge(parts)
        images, classes = len(state.ids), len(self.classes)
        truths, detections = _stack(state.truths), _stack(state.detections)
        crowd = truths[:, 6] > 0
        boxes, found = _xywh(truths), _xywh(detections)
        area = np.where(np.isnan(truths[:, 7]), boxes[:, 2] * boxes[:, 3], truths[:, 7])
        result = accumulate(
            _objects(detections, found[:, 2] * found[:, 3], detections[:, 6]),
            _objects(truths, area, crowd.astype(float)),
            box_overlaps(found, boxes, crowd),
            images=images,
            classes=classes,
            max_dets=self.max_dets,
        )
        values = _summary(result, self.max_dets)
        real = truths[~crowd]
        groups, counts = np.unique(real[:, 0] * classes + real[:, 5], return_counts=True)
        over = np.unique(groups[counts > self.max_dets[-1]] // classes)
        mask_per_class: dict[str, float] = {}
        per_class = {name: _mean(result.precision[:, :, k, 0]) for k, name in enumerate(self.classes)}
        curves = {name: result.precision[0, :, k, 0].tolist() for k, name in enumerate(self.classes)}
        if self.masks:
            truth_masks = [m for part in state.truth_masks for m in part]
            masks = [m for part in state.detection_masks for m in part]
            area = np.where(np.isnan(truths[:, 7]), _mask_areas(truth_masks), truths[:, 7])
            result = accumulate(
                _objects(detections, _mask_areas(masks), detections[:, 6]),
                _objects(truths, area, crowd.astype(float)),
                _mask_overlaps(masks, truth_masks, crowd),
                images=images,
                classes=classes,
                max_dets=self.max_dets,
            )
            values |= {f"mask_{name}": value for name, value in _summary(result, self.max_dets).items()}
            mask_per_class = {
                name: _mean(result.precision[:, :, k, 0]) for k, name in enumerate(self.classes)
            }
        return DetectionScores(values, per_class, curves, images, mask_per_class, len(over))


@dataclass
class _State:
    """Rows of `image, x1, y1, x2, y2, label, score or crowd, area`, one array an image (or one in all)."""

    ids: list[str] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    truths: list[Floats] = field(default_factory=list)
    detections: list[Floats] = field(default_factory=list)
    truth_masks: list[list[dict[str, Any]]] = field(default_factory=list)
    detection_masks: list[list[dict[str, Any]]] = field(default_factory=list)

    def packed(self) -> _State:
        """Return the state with its rows in one array each: what travels."""
        truths, detections = [_stack(self.truths)], [_stack(self.detections)]
        return _State(self.ids, self.numbers, truths, detections, self.truth_masks, self.detection_masks)


def _merge(parts: Sequence[_State]) -> _State:
    """Join the states, drop repeated images and number images in the order of their ids.

    The files' own numbers decide the order where all images have one.
    """
    names = [(name, rank, index) for rank, part in enumerate(parts) for index, name in enumerate(part.ids)]
    numbers = [number for part in parts for number in part.numbers]
    if numbers and all(number is not None for number in numbers):
        names.sort(key=lambda entry: (parts[entry[1]].numbers[entry[2]], entry))
    elif all(name.isdecimal() for name, _, _ in names):
        names.sort(key=lambda entry: (int(entry[0]), entry))
    else:
        names.sort()
    merged = _State()
    number = [np.full(len(part.ids), -1, dtype=np.int64) for part in parts]
    for position, (name, rank, index) in enumerate(names):
        if position and names[position - 1][0] == name:
            continue
        number[rank][index] = len(merged.ids)
        merged.ids.append(name)
        if parts[rank].truth_masks:
            merged.truth_masks.append(parts[rank].truth_masks[index])
            merged.detection_masks.append(parts[rank].detection_masks[index])
    merged.truths = [_renumber([(part.truths, n) for part, n in zip(parts, number, strict=True)])]
    merged.detections = [_renumber([(part.detections, n) for part, n in zip(parts, number, strict=True)])]
    return merged


def _renumber(parts: list[tuple[list[Floats], NDArray[np.int64]]]) -> Floats:
    """Return the rows of all parts with their new image numbers, by image, in their old order."""
    out = []
    for arrays, number in parts:
        rows = _stack(arrays).copy()
        rows[:, 0] = number[rows[:, 0].astype(np.int64)]
        out.append(rows[rows[:, 0] >= 0])
    joined = _stack(out)
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _rows(index: int, boxes: Tensor, labels: Tensor, value: Tensor, area: Tensor) -> Floats:
    columns = [boxes.double().view(-1, 4), labels.double()[:, None], value.double()[:, None]]
    rows = torch.cat(columns, dim=1).cpu().numpy()
    return np.column_stack((np.full(len(rows), float(index)), rows, area.double().cpu().numpy()))


def _truth_rows(index: int, boxes: Any, labels: Any, crowd: Any, area: Any) -> Floats:
    """Return rows of tensors or arrays; arrays keep what a file says to the last bit."""
    boxes, labels, crowd, area = (
        value.detach().double().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        for value in (boxes, labels, crowd, area)
    )
    first = np.full(len(labels), float(index))
    columns = (first, boxes.astype(np.float64).reshape(-1, 4), labels, crowd, area)
    return np.column_stack(columns).astype(np.float64, copy=False)


def _within(labels: Floats, classes: int) -> bool:
    return bool(labels.min() >= 0 and labels.max() < classes)


def _stack(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate(arrays) if arrays else np.zeros((0, 8))


def _xywh(rows: Floats) -> Floats:
    return np.concatenate((rows[:, 1:3], rows[:, 3:5] - rows[:, 1:3]), axis=1)


def _objects(rows: Floats, area: Floats, value: Floats) -> Objects:
    return Objects(rows[:, 0].astype(np.int64), rows[:, 5].astype(np.int64), area, value)


def _encode(masks: Any) -> list[dict[str, Any]]:
    """Return run lengths of masks `(N, H, W)`, or themselves if they are that."""
    if isinstance(masks, list):
        return masks
    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
    runs: list[dict[str, Any]] = coco_mask.encode(stacked)
    return runs


def _mask_areas(masks: list[dict[str, Any]]) -> Floats:
    return np.asarray(coco_mask.area(masks) if masks else [], dtype=np.float64)


def _mask_overlaps(
    masks: list[dict[str, Any]], truths: list[dict[str, Any]], crowd: NDArray[np.bool_]
) -> Any:
    def overlap(d: NDArray[np.int64], g: NDArray[np.int64]) -> Floats:
        # Pairs come detection by detection: one call for each run of a detection.
        out = np.zeros(len(d))
        edges = [0, *(np.flatnonzero(d[1:] != d[:-1]) + 1).tolist(), len(d)]
        for start, stop in itertools.pairwise(edges if len(d) else []):
            mine = g[start:stop]
            row = coco_mask.iou([masks[d[start]]], [truths[i] for i in mine], crowd[mine].astype(np.uint8))
            out[start:stop] = row[0]
        return out

    return overlap


def _mean(values: Floats) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def _summary(result: Accumulated, max_dets: Sequence[int]) -> dict[str, float]:
    names = list(AREAS)
    at = {round(float(iou), 2): index for index, iou in enumerate(IOUS)}
    out = {"map": _mean(result.precision[..., 0])}
    out |= {f"map{int(t * 100)}": _mean(result.precision[at[t], ..., 0]) for t in (0.5, 0.75)}
    out |= {f"map_{name}": _mean(result.precision[..., names.index(name)]) for name in names[1:]}
    out |= {f"ar{m}": _mean(result.recall[:, :, 0, i]) for i, m in enumerate(max_dets)}
    return out | {f"ar_{name}": _mean(result.recall[:, :, names.index(name), -1]) for name in names[1:]}
