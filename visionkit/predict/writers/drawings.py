"""Each image with its prediction drawn on it."""

from __future__ import annotations

from visionkit.predict.writers.output_files import encoded, write_small
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["Drawings"]


class Drawings:
    """Writes `drawings/NAME.jpg`.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._folder = target.folder / "drawings"

    def add(self, entry: Entry) -> None:
        """Write the drawing of an image."""
        write_small(self._folder / f"{entry.name}.jpg", encoded(entry.drawing, "JPEG"))

    def close(self) -> list[str]:
        """Do nothing: each file is complete."""
        return []

    def abort(self) -> None:
        """Do nothing: each file is complete."""
