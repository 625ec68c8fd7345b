"""Captioned images as a data set: every image once, with all its sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from visionkit.data.formats.captions.records import CaptionRecords, is_captions, read_caption_records
from visionkit.data.formats.source import Source, with_limit
from visionkit.data.formats.split_notices import frame_notices, unread_folder_notices
from visionkit.data.formats.split_records import raise_first, split_records
from visionkit.data.splits import HOLDOUT, Splits, Subset
from visionkit.data.transforms.reduced import load_image
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, check_notices
from visionkit.types import Reader, Sample

__all__ = [
    "Captions",
    "DrawCaptions",
    "caption_data",
    "captions_of",
    "check_captions",
    "is_captions",
    "read_captions",
]


class Captions:
    """A reader of captioned images.

    It offers `captions`: every sentence of each image, without reading an image.

    Args:
        table: The records, as `read_caption_records` understands them.
    """

    def __init__(self, table: CaptionRecords) -> None:
        self.table = table
        self.ids: Sequence[str] = [record.id for record in table.records]
        self.captions: Sequence[Sequence[str]] = [record.captions for record in table.records]
        digest = hashlib.sha256()
        for record in table.records:
            digest.update("\n".join((record.image, *record.captions, "")).encode("utf-8", "surrogatepass"))
        self.recipe = f"captions {digest.hexdigest()}"

    @property
    def files(self) -> list[str]:
        """The image of each record."""
        return [str(self.table.root / record.image) for record in self.table.records]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read the image of record `index`; raise `DataError` naming file and record when it cannot be."""
        record = self.table.records[index]
        try:
            image = load_image(record.image, root=self.table.root)
        except DataError as error:
            text = f"The image cannot be read. {error}"
            raise DataError(text, path=self.table.file, record=record.id, field="image") from error
        return {
            "image": image,
            "id": record.id,
            "captions": list(record.captions),
            "size": (image.shape[1], image.shape[2]),
        }


@dataclass(frozen=True)
class DrawCaptions:
    """Move an image's captions into a drawn order, so that the first ones are trained on. One draw."""

    leaves_image = True  # it takes no image that is to be decoded

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample with its captions in another order."""
        captions = sample["captions"]
        order = torch.randperm(len(captions), generator=rng).tolist()
        out = sample.copy()
        out["captions"] = [captions[index] for index in order]
        return out


def caption_data(
    path: str | Path,
    *,
    images: str | Path | None = None,
    held_out: float = HOLDOUT,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of captioned images: Karpathy's json, COCO's, Flickr's lists, tables and others.

    Karpathy's "restval" images are training images. Where lists name the images of splits, those that none
    names are in no split. Where the files name no validation images, a seeded fraction of the training images
    is held out, and the facts say so. What is left out (missing images, empty captions) is counted in the
    notices.

    Args:
        path: A file or a folder, as `caption_format` takes it.
        images: The folder of the images, if it is not where the format has it.
        held_out: Fraction of the training images that is held out where none are for validation.
        seed: Seed of the hold-out.
        max_dropped: Fraction of the images, and of the captions, that may be left out.

    Raises:
        DataError: The first error, by file and record, or too much would be left out; `check_captions` lists
            them all.
    """
    table = read_caption_records(path, images=images, max_dropped=max_dropped)
    return _splits(table, held_out, seed)


def read_captions(
    path: str | Path,
    *,
    images: str | Path | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Source:
    """Read the files of captioned images; the arguments are those of `caption_data`.

    Args:
        path: A file or a folder.
        images: The folder of the images, if it is not where the format has it.
        seed: Seed of the hold-out.
        max_dropped: Of a kind that is more than this fraction, each case is an error.

    Raises:
        DataError: There are no captions, or a file cannot be read at all.
    """
    table = read_caption_records(path, images=images, max_dropped=max_dropped)
    return Source(
        lambda max_dropped: _splits(
            replace(table, notices=with_limit(table.notices, max_dropped)), HOLDOUT, seed
        ),
        lambda left_out: _errors(table),
    )


def _splits(table: CaptionRecords, held_out: float, seed: int) -> Splits:
    raise_first(table.errors, "records")
    check_notices(table.notices, path=str(table.file))
    full = Captions(table)
    splits = [record.split or "train" for record in table.records]
    fix = " Add the list of the training images (train.txt)." if "none" in splits else ""
    train, val, test, held = split_records(
        full,
        splits,
        [record.image for record in table.records],
        unit="image",
        missing=f"Expected images to train on, but none are for training.{fix}",
        path=table.file,
        held_out=held_out,
        seed=seed,
    )
    notices = table.notices + frame_notices(full.files)
    if table.format in ("text", "huggingface"):
        files: dict[str, list[str]] = {}
        for split, file in zip(splits, full.files, strict=True):
            files.setdefault(split, []).append(file)
        notices += unread_folder_notices(table.root, files)
    facts: dict[str, object] = {"captions": str(table.file), "format": table.format, **held}
    return Splits(train, val, test, (), _name(table.file), facts, notices)


def _name(file: Path) -> str:
    """Return the name of a data set: its folder's where the file has the format's name alone."""
    return file.resolve().parent.name if file.stem.lower() == "captions" and file.is_file() else file.stem


def captions_of(reader: Reader) -> Sequence[Sequence[str]]:
    """Return every sentence of each image of a reader; images are read only where that is the only way.

    Args:
        reader: Any reader whose samples have `captions`.
    """
    if isinstance(reader, Subset):
        inner = captions_of(reader.reader) if hasattr(reader.reader, "captions") else None
        if inner is not None:
            return [inner[index] for index in reader.indices]
        if isinstance(reader.reader, Subset):
            captions = captions_of(reader.reader)
            return [captions[index] for index in reader.indices]
    known: Sequence[Sequence[str]] | None = getattr(reader, "captions", None)
    return known if known is not None else [reader[index]["captions"] for index in range(len(reader))]


def check_captions(
    path: str | Path, *, images: str | Path | None = None, max_dropped: float = MAX_DROPPED
) -> list[DataError]:
    """Return every error of captioned images: files, records, captions, splits, and every image.

    What a reader leaves out and counts is an error where it is more than it may leave out; then each case is
    listed (the first thousand of a kind).

    Args:
        path: A file or a folder, as `caption_format` takes it.
        images: The folder of the images, if it is not where the format has it.
        max_dropped: Fraction of the images, and of the captions, that may be left out.
    """
    try:
        table = read_caption_records(path, images=images, max_dropped=max_dropped)
    except DataError as error:
        return [error]
    errors = _errors(table)
    if not errors:
        try:
            _splits(table, HOLDOUT, 0)
        except InputError as error:  # no images to train on, say
            errors.append(error if isinstance(error, DataError) else DataError(str(error), path=table.file))
    return errors


def _errors(table: CaptionRecords) -> list[DataError]:
    """Return everything that is wrong with records and images, and what is left out above its limit."""
    reader = Captions(table)
    errors = list(table.errors)
    limits = {notice.what: notice for notice in table.notices}
    for what, cases in table.dropped:
        notice = limits[what]
        if notice.max_fraction is not None and notice.fraction > notice.max_fraction:
            errors += cases
    for index in range(len(reader)):
        try:
            reader[index]
        except DataError as error:
            errors.append(error)
    return errors
