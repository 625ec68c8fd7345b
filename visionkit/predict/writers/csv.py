"""predictions.csv: a table for spreadsheets and for our own reader of tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from visionkit.predict.writers.output_files import GrowingFile
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["Csv"]

_HEADERS: dict[str, tuple[str, ...]] = {
    "single": ("image", "label", "index", "confidence"),
    "multi": ("image", "labels", "probabilities"),
    "detection": ("image", "label", "index", "score", "x1", "y1", "x2", "y2"),
    "segmentation": ("image", "class", "index", "pixels", "fraction"),
    "captioning": ("image", "caption", "log_prob"),
    "keypoints": ("image", "point", "x", "y", "score"),
}


class Csv:
    """Writes a row an image, a box, a class or a point; an image without boxes has a row with its path alone.

    Boxes are absolute `x1, y1, x2, y2` in pixels; labels of one image are joined by `;`. The header comes
    with the first image.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._file = GrowingFile(target.folder / "predictions.csv")
        self._names = target.class_names
        self._empty = True

    def add(self, entry: Entry) -> None:
        """Write the rows of an image."""
        values = entry.values
        rows: list[Sequence[Any]] = []
        if self._empty:
            rows.append(self._header(values))
        rows += ([values["id"], *row] for row in _rows(values))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue())
        self._empty = False

    def close(self) -> list[str]:
        """Close the file."""
        self._file.close()
        return []

    def abort(self) -> None:
        """Close the file; its rows are whole."""
        self._file.abort()

    def _header(self, values: dict[str, Any]) -> tuple[str, ...]:
        if values["kind"] == "embedding":
            return ("image", *(f"v{index}" for index in range(len(values["vector"]))))
        if values["kind"] != "classification":
            return _HEADERS[values["kind"]]
        if "values" in values:
            named = len(self._names) == len(values["values"])
            return (
                "image",
                *(self._names if named else [f"value {i}" for i in range(len(values["values"]))]),
            )
        return _HEADERS["multi" if "labels" in values else "single"]


def _rows(values: dict[str, Any]) -> Iterable[Sequence[Any]]:
    """Return the rows of an image, without its path."""
    kind = values["kind"]
    if kind == "embedding":
        return [values["vector"]]
    if kind == "keypoints":
        scores = values["scores"] or [""] * len(values["names"])
        rows = zip(values["names"], values["points"], scores, strict=True)
        return [(name, *point, score) for name, point, score in rows]
    if kind == "captioning":
        return [(values["caption"], values["log_prob"])]
    if kind == "segmentation":
        return [(c["name"], c["index"], c["pixels"], round(c["fraction"], 6)) for c in values["classes"]]
    if kind == "detection":
        columns = (values[key] for key in ("names", "labels", "scores", "boxes"))
        boxes = [(name, label, score, *box) for name, label, score, box in zip(*columns, strict=True)]
        return boxes or [("",) * (len(_HEADERS[kind]) - 1)]
    if "values" in values:
        return [values["values"]]
    if "labels" in values:
        chosen = [f"{values['probabilities'][index]:.6g}" for index in values["indices"]]
        return [(";".join(values["labels"]), ";".join(chosen))]
    return [(values["label"], values["index"], values["confidence"])]
