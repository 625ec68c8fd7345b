"""Collects what readers of caption files find: records, errors, and counts of what is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionkit.data.read_image import IMAGE_SUFFIXES, inside
from visionkit.errors import DataError, expected
from visionkit.notices import Notice, NoticeCounter
from visionkit.text.ptb_characters import COMBINING, DIGIT, LETTER, SYMBOL, shadow

__all__ = ["CaptionCollector", "CaptionFormat", "CaptionImages", "CaptionRecord", "CaptionRecords"]

CaptionFormat = Literal["karpathy", "coco", "flickr", "huggingface", "text"]

_MAX_CAPTION = 20_000  # characters: more is a page, or a file without line ends
_MAX_CASES = 1000  # of each kind that are kept to be listed
_WORD = re.compile(f"[A-Za-z0-9{LETTER}{DIGIT}{COMBINING}{SYMBOL}]")
_ENDS = re.compile(
    r"^(?:\s*(?:<(?:start|bos|s|sos|begin)>|\[(?:start|bos|cls)\]|startseq\b))+"
    r"|(?:(?:<(?:end|eos|/s|stop)>|<pad>|\[(?:end|eos|sep|pad)\]|\bendseq)\s*)+$",
    re.IGNORECASE,
)
_INNER = re.compile(r"<(?:unk|pad|bos|eos)>", re.IGNORECASE)
# Sentences of these scripts are written without spaces; words of them are shorter than this.
_UNSPACED = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{9}|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{25}"
)


@dataclass(frozen=True)
class CaptionRecord:
    """One image.

    Args:
        id: Its name in errors and predictions.
        image: Its file, from the root.
        captions: Every sentence.
        split: "train", "val", "test"; "" where the files say nothing of splits; "none" where they name the
            images of splits, but not this one.
    """

    id: str
    image: str
    captions: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class CaptionRecords:
    """What a set of caption files says.

    Args:
        root: The folder of the images.
        file: The file, or the folder of the files.
        format: What it was taken for.
        records: Every image that can be used.
        errors: Everything that must be put right.
        notices: What was left out, changed or assumed, counted.
        dropped: By the kind of a notice, the first thousand cases.
    """

    root: Path
    file: Path
    format: CaptionFormat
    records: tuple[CaptionRecord, ...]
    errors: tuple[DataError, ...]
    notices: tuple[Notice, ...] = ()
    dropped: tuple[tuple[str, tuple[DataError, ...]], ...] = ()


class CaptionImages:
    """Finds the files of images by the names that caption files have for them.

    Args:
        root: The folder.
        bases: Folders below it that are looked through first, in order.
    """

    def __init__(self, root: Path, bases: Iterable[str] = ("",)) -> None:
        self.root = root
        self.bases = list(dict.fromkeys(bases))
        self._stems: dict[str, list[str]] | None = None

    def find(self, name: str) -> str | None:
        r"""Return the file of an image from the root, or None.

        Slashes may be backslashes, the folder of the images may stand before the name, and the ending may be
        missing where only one image can be meant.

        Args:
            name: As the caption file has it.

        Raises:
            DataError: It leads out of the folder.
        """
        plain = name.replace("\\", "/").removeprefix("./")
        prefix = f"{self.root.name}/"
        for each in dict.fromkeys((name, plain, plain.removeprefix(prefix))):
            for base in self.bases:
                path = f"{base}/{each}" if base else each
                if "\0" not in path and inside(self.root, path).is_file():
                    return path
        if "/" in plain or os.path.splitext(plain)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
            return None
        matches = self._same_stem(plain)
        return matches[0] if len(matches) == 1 else None

    def _same_stem(self, stem: str) -> list[str]:
        if self._stems is None:
            self._stems = {}
            for base in self.bases:
                try:
                    names = sorted(entry.name for entry in os.scandir(self.root / base))
                except OSError:
                    continue
                for file in names:
                    key, ending = os.path.splitext(file)  # noqa: PTH122 (once for each file)
                    if ending.lower() in IMAGE_SUFFIXES:
                        self._stems.setdefault(key, []).append(f"{base}/{file}" if base else file)
        return self._stems.get(stem, [])


class CaptionCollector:
    """Gathers the records of caption files.

    Args:
        file: The file, or the folder of the files, that errors name where nothing nearer is known.
        max_dropped: Fraction of the images, and of the captions, that may be left out.
    """

    def __init__(self, file: Path, max_dropped: float) -> None:
        self.file = file
        self.max_dropped = max_dropped
        self.errors: list[DataError] = []
        self.records: list[CaptionRecord] = []
        self.images = NoticeCounter(max_fraction=max_dropped)
        self.captions = NoticeCounter(max_fraction=max_dropped)
        self.dropped: dict[str, list[DataError]] = {}
        self.seen = {"images": 0, "captions": 0}
        self.more: tuple[Notice, ...] = ()
        self._names: set[str] = set()

    def error(
        self, text: str, *, record: str | int | None, field: str | None = None, file: Path | None = None
    ) -> None:
        """Note something that must be put right."""
        self.errors.append(DataError(text, path=file or self.file, record=record, field=field))

    def drop(self, counter: NoticeCounter, what: str, case: DataError, *, harmless: bool = False) -> None:
        """Count something that is left out or changed.

        Args:
            counter: `images` or `captions`.
            what: The kind, in the plural.
            case: The case.
            harmless: Never a reason to refuse the data set.
        """
        counter.add(what, case, harmless=harmless)
        if not harmless and len(cases := self.dropped.setdefault(what, [])) < _MAX_CASES:
            cases.append(case)

    def caption(self, text: Any, *, record: str | int, file: Path | None = None) -> str | None:
        """Return a caption as one line, or None for what is none; both counted.

        Args:
            text: What stands in the file.
            record: The record it stands in.
            file: The file.
        """
        self.seen["captions"] += 1

        def case(message: str) -> DataError:
            return DataError(message, path=file or self.file, record=record, field="caption")

        if not isinstance(text, str) or not text.strip():
            error = case(expected("a caption", "text that is not empty", text))
            self.drop(self.captions, "captions that are empty or no text left out", error)
            return None
        if len(text) > _MAX_CAPTION:
            error = case(f"Expected a caption of at most {_MAX_CAPTION:,} characters, but got {len(text):,}.")
            self.drop(self.captions, "captions that are far too long left out", error)
            return None
        bare = _ENDS.sub(" ", text)
        if bare != text:
            error = case(f"{text[:80]!r} holds marks of begin and end.")
            what = "captions with marks of begin and end (<start>, startseq, <pad>) read without them"
            self.drop(self.captions, what, error, harmless=True)
        if inner := _INNER.search(bare):
            error = case(f"{inner[0]} is taught as an unknown word, and scored as one that is never said.")
            self.drop(self.captions, "captions with <unk> or another mark within", error, harmless=True)
        line = " ".join(bare.split())
        if not _WORD.search(shadow(line)):
            error = case(
                f"Expected a caption with words, but {line[:80]!r} has none that the tokenizer knows."
            )
            self.drop(self.captions, "captions without a word left out", error)
            return None
        if _UNSPACED.search(line):
            error = case(f"{line[:80]!r}. Words are found by spaces: put spaces between the words first.")
            what = "captions written without spaces, whose sentences become words"
            self.drop(self.captions, what, error, harmless=True)
        return line

    def add(
        self,
        name: str,
        image: str,
        captions: Sequence[tuple[Any, str | int]],
        split: str,
        folder: CaptionImages,
        *,
        file: Path | None = None,
    ) -> None:
        """Take an image with its captions; leave it out, counted, where it has none or its file is missing.

        Args:
            name: Its id.
            image: Its file, as the caption file names it.
            captions: What stands in the file, each with its record.
            split: As in `CaptionRecord`.
            folder: Where images are looked for.
            file: The caption file.
        """
        file = file or self.file
        self.seen["images"] += 1
        texts = [self.caption(text, record=record, file=file) for text, record in captions]
        good = tuple(text for text in texts if text is not None)
        if not good:
            case = DataError(
                "Expected at least one caption, but got none.", path=file, record=name, field="caption"
            )
            self.drop(self.images, "images without captions left out", case)
            return
        try:
            image_file = folder.find(image)
        except DataError as error:
            self.error(error.message, record=name, field="image", file=file)
            return
        if image_file is None:
            text = f"Expected the image {image!r} below {folder.root}, but there is none."
            case = DataError(text, path=file, record=name, field="image")
            self.drop(self.images, "images that are missing left out with their captions", case)
            return
        if name in self._names and image_file not in self._names:
            name = image_file  # numbers that begin again in another file
        if image_file in self._names:
            self.error(
                f"Expected each image once, but {image_file!r} comes twice.",
                record=name,
                field="id",
                file=file,
            )
            return
        self._names |= {image_file, name}
        self.records.append(CaptionRecord(name, image_file, good, split))

    def result(self, root: Path, kind: CaptionFormat) -> CaptionRecords:
        """Return everything that was gathered.

        Args:
            root: The folder of the images.
            kind: The format.
        """
        notices = self.images.notices(self.seen["images"]) + self.captions.notices(self.seen["captions"])
        dropped = tuple((what, tuple(cases)) for what, cases in self.dropped.items())
        notices += self.more
        return CaptionRecords(
            root, self.file, kind, tuple(self.records), tuple(self.errors), notices, dropped
        )
