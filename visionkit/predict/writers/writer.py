"""What every writer has: where it writes, what it is given, what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from visionkit.predict.result import Result

__all__ = ["Entry", "Target", "Writer"]


@dataclass(frozen=True)
class Target:
    """Where and what is written.

    Args:
        folder: The folder of all formats.
        kind: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints".
        class_names: Names of the classes; empty where they are not known.
        facts: The model's facts.
        min_score: Minimum score of a detection that is drawn, or written where a format has no scores.
        formats: Names of all formats that are written.
    """

    folder: Path
    kind: str
    class_names: tuple[str, ...]
    facts: dict[str, Any]
    min_score: float
    formats: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Entry:
    """One image, as all writers get it; what more than one of them needs is made once.

    Args:
        result: The prediction.
        name: The name of its files, without ending; `/` stands between folders.
        number: Of the image, from 1.
        min_score: Minimum score of a detection that is drawn.
    """

    result: Result
    name: str
    number: int
    min_score: float

    @cached_property
    def values(self) -> dict[str, Any]:
        """The prediction as values for JSON."""
        return self.result.to_dict()

    @cached_property
    def drawing(self) -> Image.Image:
        """The image with its prediction drawn on it."""
        return self.result.draw(min_score=self.min_score)

    @cached_property
    def detections(self) -> list[tuple[list[float], int, float]]:
        """Box (absolute xyxy, pixels), label and score of each detection with the minimum score."""
        columns = (self.values[key] for key in ("boxes", "labels", "scores"))
        return [each for each in zip(*columns, strict=True) if each[2] >= self.min_score]


class Writer(Protocol):
    """Writes one format."""

    def __init__(self, target: Target) -> None: ...

    def add(self, entry: Entry) -> None:
        """Write the prediction of one image.

        Args:
            entry: The image.

        Raises:
            OSError: It cannot be written; what was written before is whole.
        """
        ...

    def close(self) -> Sequence[str]:
        """Finish the files, and return what there is to say about them, in sentences."""
        ...

    def abort(self) -> None:
        """Leave no half file behind; called where `close` fails or cannot be called."""
        ...
