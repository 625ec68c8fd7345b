"""Captioned images as a data set: every image once, with all its sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from visionkit.data.formats.captions.records import CaptionRecords, is_captions, read_caption_records
from visionkit.data.read_image import read_image
from visionkit.data.splits import Splits, Subset, holdout
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, check_notices
from visionkit.types import Reader, Sample

__all__ = ["Captions", "DrawCaptions", "caption_data", "captions_of", "check_captions", "is_captions"]


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

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read the image of record `index`; raise `DataError` naming file and record when it cannot be."""
        record = self.table.records[index]
        try:
            image = read_image(record.image, root=self.table.root)
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
    """Move an image's captions into a drawn order, so that the first ones are what is taught. One draw."""

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample with its captions in another order."""
        captions = sample["captions"]
        order = torch.randperm(len(captions), generator=rng).tolist()
        out = sample.copy()
        out["captions"] = [captions[place] for place in order]
        return out


def caption_data(
    path: str | Path,
    *,
    images: str | Path | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of captioned images: Karpathy's json, COCO's, Flickr's lists, tables and others.

    Karpathy's "restval" images are training images. Where lists name the images of splits, those that none
    names are in no split. Where the files name no validation images, a seeded share of the training images
    is held out, and the facts say so. What is left out (missing images, empty captions) is counted in the
    notices.

    Args:
        path: A file or a folder, as `caption_format` takes it.
        images: The folder of the images, if it is not where the format has it.
        held_out: Share of the training images that is held out where none are for validation.
        seed: Seed of the hold-out.
        max_dropped: Share of the images, and of the captions, that may be left out.

    Raises:
        DataError: The first fault, by file and record, or too much would be left out; `check_captions` lists
            them all.
    """
    table = read_caption_records(path, images=images, max_dropped=max_dropped)
    if table.faults:
        first, more = table.faults[0], len(table.faults) - 1
        also = f" {more} more records are at fault; `visionkit check` lists them all." if more else ""
        raise DataError(first.message + also, path=first.path, record=first.record, field=first.field)
    check_notices(table.notices, path=str(table.file))
    whole = Captions(table)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": [], "none": []}
    for place, record in enumerate(table.records):
        parts[record.split or "train"].append(place)
    if not parts["train"]:
        fix = " Add the list of the training images (train.txt)." if parts["none"] else ""
        raise DataError(f"Expected images to train on, but none are for training.{fix}", path=table.file)
    facts: dict[str, object] = {"captions": str(table.file), "format": table.format}
    train: Reader = Subset(whole, parts["train"])
    if parts["val"]:
        val: Reader = Subset(whole, parts["val"])
    else:
        size = len(train)
        train, val = holdout(train, held_out, seed=seed, path=table.file)
        facts["held_out"] = (
            f"no image is for validation: {len(val)} of {size} are held out (share {held_out}, seed {seed})"
        )
    test = Subset(whole, parts["test"]) if parts["test"] else None
    return Splits(train, val, test, (), _name(table.file), facts, table.notices)


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
            several = captions_of(reader.reader)
            return [several[index] for index in reader.indices]
    known: Sequence[Sequence[str]] | None = getattr(reader, "captions", None)
    return known if known is not None else [reader[index]["captions"] for index in range(len(reader))]


def check_captions(
    path: str | Path, *, images: str | Path | None = None, max_dropped: float = MAX_DROPPED
) -> list[DataError]:
    """Return every fault of captioned images: files, records, captions, splits, and every image.

    What a reader leaves out and counts is a fault where it is more than it may leave out; then each case is
    listed (the first thousand of a kind).

    Args:
        path: A file or a folder, as `caption_format` takes it.
        images: The folder of the images, if it is not where the format has it.
        max_dropped: Share of the images, and of the captions, that may be left out.
    """
    try:
        table = read_caption_records(path, images=images, max_dropped=max_dropped)
    except DataError as fault:
        return [fault]
    reader = Captions(table)
    faults = list(table.faults)
    limits = {notice.what: notice for notice in table.notices}
    for what, cases in table.dropped:
        notice = limits[what]
        if notice.max_fraction is not None and notice.fraction > notice.max_fraction:
            faults += cases
    for index in range(len(reader)):
        try:
            reader[index]
        except DataError as fault:
            faults.append(fault)
    if not faults:
        try:
            caption_data(path, images=images, max_dropped=max_dropped)
        except InputError as fault:  # no images to train on, say
            faults.append(fault if isinstance(fault, DataError) else DataError(str(fault), path=table.file))
    return faults
