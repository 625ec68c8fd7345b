"""COCO's average precision over a data set, the same on any number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visionkit.config import check_numbers
from visionkit.distributed import widest_float
from visionkit.errors import InputError, expected
from visionkit.metrics.base import ScoreMetric, bytes_to_tensor
from visionkit.metrics.coco.masks import (
    encode_runs,
    mask_areas,
    mask_overlaps,
    runs_to_bytes,
)
from visionkit.metrics.coco.rows import ObjectRows, image_order, image_records, in_order, mean_score
from visionkit.metrics.coco_core import (
    AREAS,
    IOUS,
    MAX_DETS,
    Accumulated,
    Floats,
    Objects,
    Overlap,
    accumulate,
    box_overlaps,
)
from visionkit.types import as_ids

__all__ = ["CocoAP", "DetectionScores"]

_HOST_STATES = ("images", "ids", "detections", "truths", "detection_masks", "truth_masks")


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
            can be detected.
    """

    values: dict[str, float]
    per_class: dict[str, float]
    curves: dict[str, list[float]]
    images: int = 0
    mask_per_class: dict[str, float] = field(default_factory=dict)
    over_limit: int = 0

    def named(self) -> dict[str, float]:
        """Return `values`, then `ap/<class>` and `mask_ap/<class>` of each class."""
        values = self.values | {f"ap/{name}": value for name, value in self.per_class.items()}
        return values | {f"mask_ap/{name}": value for name, value in self.mask_per_class.items()}


class CocoAP(ScoreMetric):
    """Average precision and recall of boxes, and of masks, by COCO's rules.

    The states are flat arrays on the host. `compute` gathers them once and scores them on every process. An
    image that comes twice (its id shows it) counts once, and ties are broken in the order of ids, so the
    scores do not depend on how images were divided among processes. `compute` gives the scores by name (-1
    where there was nothing to score, as in the reference); `result` gives `DetectionScores`, with curves.
    After either, `image_rows` has what each image added: "ids" and the columns of `Accumulated.image_rows`,
    those of masks with the prefix ``mask_``.

    Args:
        classes: Names of the classes; labels are positions in it.
        masks: Also score masks.
        max_dets: Rising limits of detections a class and image: recall is given at each, precision at the
            last. COCO's are 1, 10 and 100; images with more objects than that need a higher one.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.

    Raises:
        InputError: No class, a class named twice, or limits that do not rise from 1.

    Lin et al., Microsoft COCO, 2014. Reference: `pycocotools.cocoeval.COCOeval`.
    """

    monitor = ("map", "max")
    images: list[Tensor]
    ids: list[Tensor]
    detections: list[Tensor]
    truths: list[Tensor]
    detection_masks: list[Tensor]
    truth_masks: list[Tensor]

    def __init__(
        self,
        classes: Sequence[str],
        *,
        masks: bool = False,
        max_dets: Sequence[int] = MAX_DETS,
        score: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not classes:
            raise InputError("Expected at least one class name, but got none.")
        repeated = sorted({name for name in classes if list(classes).count(name) > 1})
        if repeated:
            fix = "Scores go by the names: name each class once."
            raise InputError(expected("class names", "all different", repeated[0], fix=fix))
        rising = tuple(check_numbers("max_dets", max_dets, whole=True))
        if not rising or rising[0] < 1 or any(b <= a for a, b in itertools.pairwise(rising)):
            raise InputError(expected("max_dets", "rising limits from 1 up, such as (1, 10, 100)", rising))
        empty = dict.fromkeys(classes, -1.0)
        summary = dict.fromkeys(_summary_names(rising), -1.0)
        summary |= {f"mask_{name}": value for name, value in summary.items()} if masks else {}
        result = DetectionScores(summary, empty, {}, mask_per_class=empty if masks else {})
        super().__init__(list(result.named()), score=score, **kwargs)
        self.max_dets = rising
        self.classes = tuple(classes)
        self.masks = masks
        # images: process (-1: the only one), whether it has a number, the number, objects, detections.
        self._add_rows("images", 5, torch.int64)
        self._add_rows("ids", None, torch.uint8)  # a line of JSON each: text, or null for a position
        self._add_rows("truths", 7, torch.float64)  # x1, y1, x2, y2, label, crowd, area
        self._add_rows("detections", 6, torch.float64)  # x1, y1, x2, y2, label, score
        self._add_rows("truth_masks", None, torch.uint8)  # lines of `runs_to_bytes`
        self._add_rows("detection_masks", None, torch.uint8)
        self._result = result
        self.image_rows: dict[str, NDArray[Any]] = {}

    @torch.no_grad()
    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        target: Sequence[Mapping[str, Any]],
        ids: Sequence[Any] | None = None,
    ) -> None:
        """Add images.

        Args:
            preds: For each image `boxes` `(D, 4)` xyxy, `scores` `(D,)`, `labels` `(D,)`, and with masks
                `masks` `(D, H, W)` 0/1.
            target: For each image `boxes` `(N, 4)`, `labels` `(N,)`, in the same frame, and optionally
                `iscrowd` `(N,)`, `area` `(N,)` (the annotated area; NaN: the box's or mask's own) and, with
                masks, `masks`: `(N, H, W)`, or run lengths as pycocotools has them. Tensors or arrays. With
                `image_id`, the file's own number, ties are broken in the order of these, as COCO does.
            ids: The name of each image, text or a number; by default its process and position.

        Raises:
            InputError: Lengths differ, or a label is not a class.
        """
        names: Sequence[str | None] = [None] * len(preds) if ids is None else as_ids(ids) or []
        if not len(preds) == len(target) == len(names):
            raise InputError(
                f"Expected as many predictions as targets and ids, but got "
                f"{len(preds)}, {len(target)} and {len(names)}."
            )
        if not names:
            return
        labels = [index if name is None else name for index, name in enumerate(names)]  # for error texts
        for label, truth, detected in zip(labels, target, preds, strict=True):
            _check_lengths(label, truth, detected)
        truths = [_truth_rows(truth) for truth in target]
        sizes = [len(detected["labels"]) for detected in preds]
        detections = _detection_rows(preds).split(sizes)
        for label, truth_rows, rows in zip(labels, truths, detections, strict=True):
            self._check_classes(label, "target", truth_rows[:, 4])
            self._check_classes(label, "prediction", rows[:, 4].numpy())
        records, lines = image_records(target, names, map(len, truths), sizes)
        self.images.append(records)
        self.ids.append(lines)
        self.truths.append(torch.from_numpy(np.concatenate(truths)))
        self.detections.append(torch.cat(detections))
        if self.masks:
            for state, images in ((self.truth_masks, target), (self.detection_masks, preds)):
                text = b"".join(runs_to_bytes(encode_runs(image["masks"])) for image in images)
                state.append(bytes_to_tensor(text))

    def result(self) -> DetectionScores:
        """Return the scores over all processes as one object; every process must call it."""
        self.compute_floats()
        return self._result

    def _scores(self) -> dict[str, float]:
        records = self._rows("images").numpy()  # (I, 5)
        order, names = image_order(records, self._rows("ids"))  # (I,), and a name an image
        parts = [
            in_order(order, records[:, column], self._rows(rows), self._rows(masks) if self.masks else None)
            for column, rows, masks in ((3, "truths", "truth_masks"), (4, "detections", "detection_masks"))
        ]
        self.image_rows = {"ids": np.array(names, dtype=str)}
        self._result = self._score(len(names), *parts)
        return self._result.named()

    def _score(self, images: int, truths: ObjectRows, detections: ObjectRows) -> DetectionScores:
        # 1. Boxes. Where no area is annotated, the box's own decides whether an object is small.
        crowd = truths.rows[:, 5] > 0  # (G,)
        boxes, detected = _xywh(truths.rows), _xywh(detections.rows)  # (G, 4), (D, 4)
        overlap = box_overlaps(detected, boxes, crowd)
        areas = boxes[:, 2] * boxes[:, 3], detected[:, 2] * detected[:, 3]
        result = self._accumulate(images, truths, detections, areas, overlap)
        self.image_rows |= result.image_rows
        values = _summary(result, self.max_dets)
        per_class = self._per_class(result)
        curves = {name: result.precision[0, :, k, 0].tolist() for k, name in enumerate(self.classes)}
        # 2. Images with more objects of a class than detections are scored.
        groups = truths.image[~crowd] * len(self.classes) + truths.rows[~crowd, 4].astype(np.int64)
        groups, counts = np.unique(groups, return_counts=True)
        over_limit = np.unique(groups[counts > self.max_dets[-1]] // len(self.classes))
        # 3. Masks: the same with their overlaps and areas.
        mask_per_class: dict[str, float] = {}
        if self.masks:
            overlap = mask_overlaps(detections.masks, truths.masks, crowd)
            areas = mask_areas(truths.masks), mask_areas(detections.masks)
            result = self._accumulate(images, truths, detections, areas, overlap)
            self.image_rows |= {f"mask_{name}": column for name, column in result.image_rows.items()}
            values |= {f"mask_{name}": value for name, value in _summary(result, self.max_dets).items()}
            mask_per_class = self._per_class(result)
        return DetectionScores(values, per_class, curves, images, mask_per_class, len(over_limit))

    def _accumulate(
        self,
        images: int,
        truths: ObjectRows,
        detections: ObjectRows,
        areas: tuple[Floats, Floats],
        overlap: Overlap,
    ) -> Accumulated:
        annotated = truths.rows[:, 6]
        area = np.where(np.isnan(annotated), areas[0], annotated)
        crowd = (truths.rows[:, 5] > 0).astype(float)
        return accumulate(
            Objects(
                detections.image, detections.rows[:, 4].astype(np.int64), areas[1], detections.rows[:, 5]
            ),
            Objects(truths.image, truths.rows[:, 4].astype(np.int64), area, crowd),
            overlap,
            images=images,
            classes=len(self.classes),
            max_dets=self.max_dets,
        )

    def _per_class(self, result: Accumulated) -> dict[str, float]:
        return {name: mean_score(result.precision[:, :, k, 0]) for k, name in enumerate(self.classes)}

    def _check_classes(self, image: str | int, what: str, labels: Floats) -> None:
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise InputError(
                f"Image {image!r}: expected labels of the {what} in 0..{len(self.classes) - 1}, "
                f"but got {int(labels.min())}..{int(labels.max())}."
            )

    def _apply(self, fn: Any, exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(fn, exclude_state=_HOST_STATES)  # scored on the host


def _check_lengths(image: str | int, truth: Mapping[str, Any], detected: Mapping[str, Any]) -> None:
    keys = {"target": ("boxes", "iscrowd", "area"), "prediction": ("boxes", "scores", "iscrowd", "area")}
    for what, record in (("target", truth), ("prediction", detected)):
        count = len(record["labels"])
        for key in keys[what]:
            if key in record and len(record[key]) != count:
                raise InputError(
                    f"Image {image!r}: expected one entry of '{key}' for each of {count} labels of "
                    f"the {what}, but got {len(record[key])}."
                )


def _detection_rows(preds: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return `(D, 6)` float64 rows of all images on the host, in one copy."""
    parts = []
    for detected in preds:
        wide = widest_float(detected["boxes"].device)
        label, score = detected["labels"].to(wide)[:, None], detected["scores"].to(wide)[:, None]
        parts.append(torch.cat([detected["boxes"].to(wide).view(-1, 4), label, score], dim=1))
    return torch.cat(parts).cpu().double()


def _truth_rows(truth: Mapping[str, Any]) -> Floats:
    """Return `(N, 7)` rows of tensors or arrays; arrays keep their numbers to the last bit."""
    count = len(truth["labels"])
    columns = (
        truth["boxes"],
        truth["labels"],
        truth.get("iscrowd", np.zeros(count)),
        truth.get("area", np.full(count, np.nan)),
    )
    boxes, *others = (
        value.detach().cpu().double().numpy() if isinstance(value, Tensor) else np.asarray(value)
        for value in columns
    )
    return np.column_stack((boxes.astype(np.float64).reshape(-1, 4), *others)).astype(np.float64, copy=False)


def _xywh(rows: Floats) -> Floats:
    return np.concatenate((rows[:, :2], rows[:, 2:4] - rows[:, :2]), axis=1)


def _summary_names(max_dets: Sequence[int]) -> list[str]:
    sizes = list(AREAS)[1:]
    recalls = [f"ar{limit}" for limit in max_dets] + [f"ar_{size}" for size in sizes]
    return ["map", "map50", "map75", *(f"map_{size}" for size in sizes), *recalls]


def _summary(result: Accumulated, max_dets: Sequence[int]) -> dict[str, float]:
    thresholds = {round(float(iou), 2): index for index, iou in enumerate(IOUS)}
    sizes = range(1, len(AREAS))
    precisions = [result.precision[..., 0]]
    precisions += [result.precision[thresholds[t], ..., 0] for t in (0.5, 0.75)]
    precisions += [result.precision[..., size] for size in sizes]
    recalls = [result.recall[:, :, 0, limit] for limit in range(len(max_dets))]
    recalls += [result.recall[:, :, size, -1] for size in sizes]
    return dict(zip(_summary_names(max_dets), map(mean_score, precisions + recalls), strict=True))
