"""Write predictions in a number of formats at once, image by image."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from visionkit.errors import DataError
from visionkit.files import unwritable
from visionkit.predict.result import Result
from visionkit.predict.writers.earlier import check_free, remove_earlier
from visionkit.predict.writers.formats import FORMATS, check_formats
from visionkit.predict.writers.output_files import GrowingFile
from visionkit.predict.writers.output_names import OutputNames
from visionkit.predict.writers.writer import Entry, Target, Writer
from visionkit.printable import printable
from visionkit.run.storage.disk import check_writable

__all__ = ["Writers", "open_writers"]


class Writers:
    """The writers of the chosen formats; `open_writers` makes it. Also a context that closes them.

    An image that cannot be written in one of the formats (a full disk) ends the work: what came before it is
    finished, and valid.

    Args:
        target: Where and what is written.
        names: Gives the files of each image their names.

    Attributes:
        count: How many images were written.
        errors: How many could not be read.
        folder: Where they are written.
        formats: Names of the formats.
    """

    def __init__(self, target: Target, names: OutputNames) -> None:
        self.count = self.errors = 0
        self.folder, self.formats = target.folder, target.formats
        self._target, self._names = target, names
        self._errors: GrowingFile | None = None
        self._writers: list[Writer] = []
        self._notes: list[str] | None = None
        try:
            # The line of an image comes last: what has a line is complete.
            for name in sorted(target.formats, key=lambda name: name == "jsonl"):
                module, made = FORMATS[name].home
                home = importlib.import_module(f"visionkit.predict.writers.{module}")
                self._writers.append(getattr(home, made)(target))
        except OSError as error:
            raise unwritable(target.folder, error) from error

    def add(self, result: Result) -> None:
        """Write the prediction of one image in all formats.

        Args:
            result: The prediction.

        Raises:
            RunError: The disk is full, or the folder cannot be written any more.
        """
        name = self._names.name(result.path or result.id)
        entry = Entry(result, name, self.count + 1, self._target.min_score)
        try:
            for writer in self._writers:
                writer.add(entry)
        except OSError as error:
            self._finish_or_abort()
            raise unwritable(self._target.folder, error) from error
        self.count += 1

    def add_error(self, name: str, error: DataError) -> None:
        """Write a line about an image that could not be read to errors.jsonl.

        Args:
            name: The image, as it was given.
            error: What is wrong with it.

        Raises:
            RunError: The disk is full.
        """
        self.errors += 1
        line = {"id": printable(name), "error": printable(error.message), "field": error.field}
        try:
            if self._errors is None:
                self._errors = GrowingFile(self._target.folder / "errors.jsonl")
            self._errors.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as failure:
            self._finish_or_abort()
            raise unwritable(self._target.folder, failure) from failure

    def close(self) -> list[str]:
        """Finish all files, and return what there is to say about them, in sentences.

        Raises:
            RunError: The disk is full.
        """
        if self._notes is not None:
            return self._notes
        notes: list[str] = []
        try:
            for writer in self._writers:
                notes += writer.close()
            if self._errors is not None:
                self._errors.close()
        except OSError as error:
            self._finish_or_abort()
            raise unwritable(self._target.folder, error) from error
        if self._names.changed:
            notes.append(
                f"{self._names.changed} of {self.count} images have files under another name than their own "
                '(two alike, no UTF-8, or very long): "name" in predictions.jsonl says which.'
            )
        self._notes = notes
        return notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._notes is None:
            self._finish_or_abort()

    def _finish_or_abort(self) -> None:
        """Finish what can be finished with the images so far, and leave no half file."""
        self._notes = []
        for writer in self._writers:
            try:
                writer.close()
            except OSError:
                writer.abort()
        if self._errors is not None:
            self._errors.abort()


def open_writers(
    formats: Sequence[str],
    folder: str | Path,
    *,
    kind: str,
    class_names: Sequence[str],
    facts: dict[str, Any],
    min_score: float = 0.5,
    roots: Sequence[str] = (),
    overwrite: bool = False,
) -> Writers:
    """Open the writers of formats below a folder.

    Args:
        formats: Names of `FORMATS`, or "all".
        folder: Where they write; it is made.
        kind: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints".
        class_names: Names of the classes; empty where they are not known.
        facts: The model's facts.
        min_score: Minimum score (0 to 1) of a detection that is drawn, or written where a format has no
            scores (voc, yolo).
        roots: The folders of the images: names of files are relative to the folder that holds them all.
            Without them names have no folders.
        overwrite: Remove the predictions that an earlier call has left in the folder.

    Raises:
        InputError: There is no such format, the kind cannot have it, or the folder already has predictions.
        RunError: The folder cannot be written.
    """
    chosen = check_formats(formats, kind)
    top = Path(folder)
    check_free(top, overwrite=overwrite)
    check_writable(top)
    if overwrite:
        remove_earlier(top)
    names = tuple(map(printable, class_names))
    target = Target(top, kind, names, dict(facts), min_score, chosen)
    return Writers(target, OutputNames(roots))
