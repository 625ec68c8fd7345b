"""predictions.jsonl: every value of every prediction, one line an image."""

from __future__ import annotations

import json

from visionkit.predict.writers.output_files import GrowingFile
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["JsonLines"]


class JsonLines:
    """Writes `Result.to_dict()`, and first `name`: that of the image's files in the other formats.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._file = GrowingFile(target.folder / "predictions.jsonl")

    def add(self, entry: Entry) -> None:
        """Write a line."""
        values = {"name": entry.name, **entry.values}
        self._file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> list[str]:
        """Close the file."""
        self._file.close()
        return []

    def abort(self) -> None:
        """Close the file; its lines are whole."""
        self._file.abort()
