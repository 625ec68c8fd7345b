"""YOLO: one text file an image, a line a box, relative to the image's sides."""

from __future__ import annotations

import json

from visionkit.files import write_text
from visionkit.predict.writers.output_files import write_small
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["Yolo"]


class Yolo:
    """Writes `yolo/labels/NAME.txt`: `class x y width height` of the detections with the minimum score.

    Centre and size are fractions of the image's sides, with six decimals. An image without detections has an
    empty file. `yolo/data.yaml` names the classes; the images belong into `yolo/images`.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._folder = target.folder / "yolo" / "labels"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._names = list(target.class_names)
        self._yaml = self._folder.parent / "data.yaml"
        self._write_names()

    def add(self, entry: Entry) -> None:
        """Write the file of an image."""
        height, width = entry.result.size
        lines = []
        for (x1, y1, x2, y2), label, _ in entry.detections:
            x1, x2 = max(x1, 0.0), min(x2, float(width))
            y1, y2 = max(y1, 0.0), min(y2, float(height))
            parts = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(" ".join((str(label), *(f"{part:.6f}" for part in parts))) + "\n")
            self._names += [f"class {index}" for index in range(len(self._names), label + 1)]
        file = self._folder / f"{entry.name}.txt"
        write_small(file, "".join(lines).encode("utf-8"))

    def close(self) -> list[str]:
        """Write the names of the classes."""
        self._write_names()
        return []

    def abort(self) -> None:
        """Do nothing: each file is complete."""

    def _write_names(self) -> None:
        # JSON's texts are YAML's, whatever a name holds.
        names = [f"  {index}: {json.dumps(name)}" for index, name in enumerate(self._names)]
        write_text(self._yaml, "\n".join(["path: .", "train: images", "names:", *names]) + "\n")
