"""COCO's results (`COCO.loadRes`), beside a COCO file of the images and categories that their ids mean."""

from __future__ import annotations

import json
from typing import Any

from visionkit.predict.writers.output_files import GrowingFile
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["Coco"]


class Coco:
    """Writes `coco/predictions.json` (a list of results) and `coco/images.json` (images and categories).

    Images are numbered from 1 in the order of the source, whatever they are called; the id of a category is
    the class's index plus 1, and that of an object of which points alone are known is 1. Every detection is
    written, whatever its score: AP needs the weak ones. Boxes are `[x, y, width, height]` in pixels, with
    three decimals; keypoints are x, y and 1 of each, and the score of points is the mean of theirs.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._results = _JsonList(target, "predictions.json", "[")
        self._images = _JsonList(target, "images.json", '{"images": [')
        self._names = ["object"] if target.kind == "keypoints" else list(target.class_names)
        self._points: dict[str, Any] = {}  # of a category: names and edges of its keypoints
        self._unscored = 0

    def add(self, entry: Entry) -> None:
        """Write the results of an image."""
        values = entry.values
        height, width = values["size"]
        image = {"id": entry.number, "file_name": values["id"], "width": width, "height": height}
        self._images.add([image])
        self._results.add([{"image_id": entry.number, **row} for row in _ROWS[values["kind"]](values)])
        names = values.get("keypoint_names", values["names"] if values["kind"] == "keypoints" else None)
        if names:
            edges = [[a + 1, b + 1] for a, b in values["edges"]]
            self._points = {"keypoints": names, "skeleton": edges}
        self._unscored += values["kind"] == "keypoints" and values["scores"] is None
        for label in values.get("labels", ()):
            self._names += [f"class {index}" for index in range(len(self._names), label + 1)]

    def close(self) -> list[str]:
        """Close both files."""
        names = enumerate(self._names, start=1)
        categories = [{"id": number, "name": name, **self._points} for number, name in names]
        self._images.close(f'],\n"annotations": [],\n"categories": {json.dumps(categories)}}}\n')
        self._results.close("]\n")
        notes = []
        if self._results.empty:
            notes.append("coco/predictions.json holds no result: pycocotools cannot load an empty list.")
        if self._unscored:
            text = "Results in coco/predictions.json that have the score 1, as points by regression have none"
            notes.append(f"{text}: {self._unscored}.")
        return notes

    def abort(self) -> None:
        """Remove both."""
        self._images.abort()
        self._results.abort()


class _JsonList:
    """A JSON file that ends in a list, written as the items come."""

    def __init__(self, target: Target, name: str, opening: str) -> None:
        self._file = GrowingFile(target.folder / "coco" / name, hidden=True)
        self._before = opening + "\n"  # what comes before the next item
        self.empty = True

    def add(self, items: list[dict[str, Any]]) -> None:
        lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in items]
        if lines:
            self._file.write(self._before + ",\n".join(lines))
            self._before, self.empty = ",\n", False

    def close(self, ending: str) -> None:
        self._file.write(f"{self._before if self.empty else ''}{ending}")
        self._file.close()

    def abort(self) -> None:
        self._file.abort()


def _boxes(values: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    masks = values.get("masks") or [None] * len(values["boxes"])
    points = values.get("keypoints") or [None] * len(values["boxes"])
    columns = (values["boxes"], values["labels"], values["scores"], masks, points)
    for (x1, y1, x2, y2), label, score, mask, pose in zip(*columns, strict=True):
        box = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
        row = {"category_id": label + 1, "bbox": box, "score": score}
        row |= {} if mask is None else {"segmentation": mask}
        rows.append(row if pose is None else row | {"keypoints": _flat(pose)})
    return rows


def _flat(points: list[list[float]]) -> list[float]:
    return [round(value, 3) for x, y in points for value in (x, y, 1)]


def _pose(values: dict[str, Any]) -> list[dict[str, Any]]:
    scores = values["scores"] or [1.0]
    return [{"category_id": 1, "keypoints": _flat(values["points"]), "score": sum(scores) / len(scores)}]


def _class_maps(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"category_id": each["index"] + 1, "segmentation": each["mask"]} for each in values["classes"]]


def _captions(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"caption": values["caption"]}]


_ROWS = {"detection": _boxes, "segmentation": _class_maps, "captioning": _captions, "keypoints": _pose}
