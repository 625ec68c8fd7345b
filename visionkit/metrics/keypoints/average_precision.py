"""COCO's average precision of poses over a data set, the same on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visionkit.distributed import widest_float
from visionkit.errors import InputError, expected
from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.coco.rows import image_order, image_records, in_order, mean_score
from visionkit.metrics.coco_core import IOUS, Accumulated, Floats, Objects, accumulate
from visionkit.metrics.keypoints.similarity import keypoint_overlaps, keypoint_sigmas
from visionkit.types import as_ids

__all__ = ["KeypointAP"]

_NAMES = ("map", "map50", "map75", "map_medium", "map_large")
_RECALLS = ("ar", "ar50", "ar75", "ar_medium", "ar_large")
_HOST_STATES = ("images", "ids", "detections", "truths")


class KeypointAP(ScoreMetric):
    """Average precision and recall of poses by COCO's rules, with object keypoint similarity as the overlap.

    `compute` gives `map`, `map50`, `map75`, `map_medium`, `map_large` and `ar`, `ar50`, `ar75`, `ar_medium`,
    `ar_large`, at the first 20 detections of an image and class; -1, as in the reference, where there was
    nothing to score. Objects without a labelled point, and crowds, are ignored. As with `CocoAP` an image
    that comes twice counts once, and ties are broken in the order of ids. After `compute`, `image_rows` has
    what each image added, as that of `CocoAP`.

    Args:
        num_keypoints: K points of an object.
        num_classes: Classes of objects; labels are from 0.
        sigmas: Tolerance of each point; see `keypoint_sigmas` for the default.
        max_dets: Detections of an image and class that are scored; COCO's is 20.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.

    Raises:
        InputError: A number is out of range.

    Lin et al., Microsoft COCO, 2014. Reference: `pycocotools.cocoeval.COCOeval(iouType="keypoints")`.
    """

    monitor = ("map", "max")
    images: list[Tensor]
    ids: list[Tensor]
    detections: list[Tensor]
    truths: list[Tensor]

    def __init__(
        self,
        num_keypoints: int,
        *,
        num_classes: int = 1,
        sigmas: Sequence[float] | None = None,
        max_dets: int = 20,
        score: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (
            ("num_keypoints", num_keypoints), ("num_classes", num_classes), ("max_dets", max_dets),
        ):  # fmt: skip
            if value < 1:
                raise InputError(expected(name, "at least 1", value))
        super().__init__([*_NAMES, *_RECALLS], score=score, **kwargs)
        self.num_keypoints, self.num_classes, self.max_dets = num_keypoints, num_classes, max_dets
        self.sigmas = keypoint_sigmas(num_keypoints, sigmas)
        self.image_rows: dict[str, NDArray[Any]] = {}
        self._add_rows("images", 5, torch.int64)
        self._add_rows("ids", None, torch.uint8)
        self._add_rows("truths", 7 + 3 * num_keypoints, torch.float64)  # xyxy, label, crowd, area, points
        self._add_rows("detections", 2 + 2 * num_keypoints, torch.float64)  # label, score, points

    @torch.no_grad()
    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        target: Sequence[Mapping[str, Any]],
        ids: Sequence[Any] | None = None,
    ) -> None:
        """Add images.

        Args:
            preds: For each image `keypoints` `(D, K, 2)` or `(D, K, 3)`, of which x and y count, `scores`
                `(D,)`, `labels` `(D,)`.
            target: For each image `keypoints` `(N, K, 3)`, `boxes` `(N, 4)` xyxy, `labels` `(N,)`, in the
                same frame, and optionally `iscrowd`, `area` (NaN: that of the box), `image_id`. Tensors or
                arrays.
            ids: The name of each image, text or a number; by default its process and position.

        Raises:
            InputError: Lengths or numbers of points differ, or a label is not a class.
        """
        names: Sequence[str | None] = [None] * len(preds) if ids is None else as_ids(ids) or []
        if not len(preds) == len(target) == len(names):
            raise InputError(
                "Expected as many predictions as targets and ids, but got "
                f"{len(preds)}, {len(target)} and {len(names)}."
            )
        if not names:
            return
        labels = [index if name is None else name for index, name in enumerate(names)]
        truths = [self._truth_rows(*pair) for pair in zip(labels, target, strict=True)]
        detections = [self._detection_rows(*pair) for pair in zip(labels, preds, strict=True)]
        images, lines = image_records(target, names, map(len, truths), map(len, detections))
        self.images.append(images)
        self.ids.append(lines)
        self.truths.append(torch.from_numpy(np.concatenate(truths)))
        self.detections.append(torch.cat(detections))

    def _truth_rows(self, image: str | int, truth: Mapping[str, Any]) -> Floats:
        count = len(truth["labels"])
        columns = [
            truth["boxes"],
            truth["labels"],
            truth.get("iscrowd", np.zeros(count)),
            truth.get("area", np.full(count, np.nan)),
            truth["keypoints"],
        ]
        widths = (4, 1, 1, 1, 3 * self.num_keypoints)
        rows = [
            (value.detach().cpu().double().numpy() if isinstance(value, Tensor) else np.asarray(value))
            for value in columns
        ]
        for name, value, width in zip(("boxes", "labels", "iscrowd", "area", "keypoints"), rows, widths):
            self._check_size(image, f"'{name}' of the target", value.size, count * width)
        self._check_classes(image, "target", rows[1])
        joined = [row.reshape(count, width) for row, width in zip(rows, widths, strict=True)]
        return np.concatenate(joined, axis=1).astype(np.float64)

    def _detection_rows(self, image: str | int, detected: Mapping[str, Tensor]) -> Tensor:
        points, labels, scores = (detected[name] for name in ("keypoints", "labels", "scores"))
        wide, count = widest_float(points.device), len(labels)
        width = points.shape[-1] if points.ndim == 3 else 2
        self._check_size(
            image, "'keypoints' of the prediction", points.numel(), count * width * self.num_keypoints
        )
        self._check_size(image, "'scores' of the prediction", scores.numel(), count)
        plain = points.to(wide).reshape(count, self.num_keypoints, width)[..., :2].flatten(1)
        rows = torch.cat((labels.to(wide)[:, None], scores.to(wide)[:, None], plain), 1).cpu().double()
        self._check_classes(image, "prediction", rows[:, 0].numpy())
        return rows

    def _check_size(self, image: str | int, what: str, got: int, count: int) -> None:
        if got != count:
            raise InputError(
                f"Image {image!r}: expected {count} numbers of {what}, for {self.num_keypoints} keypoints an "
                f"object and one entry a label, but got {got}."
            )

    def _check_classes(self, image: str | int, what: str, labels: Any) -> None:
        if len(labels) and not (labels.min() >= 0 and labels.max() < self.num_classes):
            raise InputError(
                f"Image {image!r}: expected labels of the {what} in 0..{self.num_classes - 1}, "
                f"but got {int(labels.min())}..{int(labels.max())}."
            )

    def _scores(self) -> dict[str, float]:
        records = self._rows("images").numpy()  # (I, 5)
        order, names = image_order(records, self._rows("ids"))
        truths = in_order(order, records[:, 3], self._rows("truths"), None)
        detections = in_order(order, records[:, 4], self._rows("detections"), None)
        # 1. Truths: crowds may be matched again and again, objects without a labelled point once.
        boxes = np.concatenate((truths.rows[:, :2], truths.rows[:, 2:4] - truths.rows[:, :2]), 1)
        points = truths.rows[:, 7:].reshape(-1, self.num_keypoints, 3)
        areas = np.where(np.isnan(truths.rows[:, 6]), boxes[:, 2] * boxes[:, 3], truths.rows[:, 6])
        unlabelled = ~(points[..., 2] > 0).any(1)
        ignored = np.where(truths.rows[:, 5] > 0, 1.0, np.where(unlabelled, 2.0, 0.0))
        # 2. Detections: the area is that which their points span.
        poses = detections.rows[:, 2:].reshape(-1, self.num_keypoints, 2)
        spans = (poses.max(1) - poses.min(1)).prod(1)
        result = accumulate(
            Objects(detections.image, detections.rows[:, 0].astype(np.int64), spans, detections.rows[:, 1]),
            Objects(truths.image, truths.rows[:, 4].astype(np.int64), areas, ignored),
            keypoint_overlaps(poses, points, boxes, areas, self.sigmas),
            images=len(names),
            classes=self.num_classes,
            max_dets=(self.max_dets,),
        )
        self.image_rows = {"ids": np.array(names, dtype=str), **result.image_rows}
        return dict(zip(self.names, _summary(result), strict=True))

    def _apply(self, fn: Any, exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(fn, exclude_state=_HOST_STATES)  # scored on the host


def _summary(result: Accumulated) -> list[float]:
    half, threequarters = (int(np.flatnonzero(np.isclose(IOUS, value))[0]) for value in (0.5, 0.75))
    scores = []
    for values in (result.precision, result.recall[..., 0][:, None]):  # (T, R, K, A)
        scores += [mean_score(values[..., 0])]
        scores += [mean_score(values[index, ..., 0]) for index in (half, threequarters)]
        scores += [mean_score(values[..., area]) for area in (2, 3)]
    return scores
