"""Previews of keypoints: the true skeleton beside the predicted one: right points, wrong ones, not scored."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import lightning
from PIL import Image
from torch import Tensor

from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.drawing.panels import GAP, add_title, caption_panel, join_grid
from visionkit.drawing.row_panels import draw_prediction, draw_truth
from visionkit.run.previews.to_pil import to_pil
from visionkit.tasks.keypoints.batch import original_truths, regions_of
from visionkit.tasks.keypoints.prediction import KeypointPrediction
from visionkit.tasks.keypoints.task import KeypointRegressor

__all__ = ["KeypointPreview"]

SIDE = 224


class KeypointPreview:
    """Describes and draws the images of a `KeypointRegressor`; a `PreviewKind`.

    The "loss" of an image is the mean distance of its points as a fraction of the object's size, None where
    that is not known; a point is right within the threshold of `pck`, and neither right nor wrong where it is
    not labelled or the object has no size.

    Args:
        skeleton: The points and the lines between them.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first images of a training batch with their points."""
        panels = []
        for image, points in list(zip(batch["images"], batch["keypoints"], strict=True))[:count]:
            row = self._truth_row(image, points)
            labelled = sum(point is not None for point in row["true_points"])
            text = f"{labelled} of {len(points)} points"
            panels.append(caption_panel(draw_truth(to_pil(image, side=SIDE), row), [(text, None)], side=SIDE))
        return panels

    def rows(
        self, module: lightning.LightningModule, batch: dict[str, Any], preds: Sequence[KeypointPrediction]
    ) -> list[dict[str, Any]]:
        """Return the points of truth and prediction of each image, in pixels of the batch's images."""
        if not isinstance(module, KeypointRegressor):
            raise TypeError(type(module).__name__)
        images, keypoints = batch["images"], batch["keypoints"]
        size = int(images.shape[-2]), int(images.shape[-1])
        regions = regions_of(batch, images)
        truths = original_truths(batch, keypoints, regions, size)
        rows = []
        for index, prediction in enumerate(preds):
            given = prediction.points[None].double(), truths.keypoints[index : index + 1].cpu()
            box = truths.boxes[index : index + 1].cpu()
            errors = module.scores.distances(*given, box)[0]  # (K,)
            scored = errors[~errors.isnan()]
            mean = float(scored.mean()) if len(scored) else None
            of = f"{int((scored <= module.scores.threshold).sum())} of {len(scored)} points"
            labelled = bool((truths.keypoints[index, :, 2] > 0).any())
            unscored = "its size is not known" if labelled else "no point is labelled"
            seen = prediction.points
            if regions is not None:
                region = regions[index].cpu()
                shape = seen.new_tensor([size[1], size[0]])
                seen = (seen - region[:2]) / (region[2:] - region[:2]) * shape
            rows.append({
                **self._truth_row(images[index], keypoints[index]),
                "id": batch["ids"][index],
                "truth": f"{int((keypoints[index, :, 2] > 0).sum())} points",
                "prediction": of,
                "confidence": None if prediction.scores is None else float(prediction.scores.mean()),
                "loss": mean,
                "answer": unscored if mean is None else f"{of} right, mean error {mean:.2f}",
                "points": [[round(value, 1) for value in point] for point in seen.tolist()],
                "right": [None if isnan(e) else e <= module.scores.threshold for e in errors.tolist()],
            })  # fmt: skip
        return rows

    def images(self, batch: dict[str, Any], index: int, row: dict[str, Any]) -> dict[str, Image.Image]:
        """Return the image itself, small."""
        return {"image": to_pil(batch["images"][index], side=SIDE)}

    def panel(self, images: dict[str, Image.Image], row: dict[str, Any]) -> Image.Image:
        """Return the true skeleton beside the predicted one, with the mean error below."""
        image = images["image"]
        drawn = {"truth": draw_truth(image, row), "prediction": draw_prediction(image, row)}
        parts = [add_title(part, name) for name, part in drawn.items()]
        lines: list[tuple[str, bool | None]] = [(row["answer"], None), (str(row["id"]), None)]
        return caption_panel(join_grid(parts, columns=2, gap=GAP // 2), lines)

    def _truth_row(self, image: Tensor, points: Tensor) -> dict[str, Any]:
        places = [[round(x, 1), round(y, 1)] if flag > 0 else None for x, y, flag in points.tolist()]
        return {
            "size": [int(side) for side in image.shape[-2:]],
            "true_points": places,
            "edges": [list(edge) for edge in self.skeleton.edges],
        }
