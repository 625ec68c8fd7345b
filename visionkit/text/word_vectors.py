"""Reading of pretrained word vectors: GloVe text, word2vec text and word2vec binary files."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from visionkit.errors import DataError, InputError, expected
from visionkit.notices import Notice
from visionkit.text.vocabulary import Vocabulary

__all__ = ["WordVectors", "check_word_vectors", "read_word_vectors"]

_MAX_WORD_BYTES = 4096
_MAX_WIDTH = 10_000
_OTHER_FORMATS = {
    b"\xba\x16\x4f\x2f": "fastText's own model. Give the .vec file that lies beside it.",
    b"\x80": "a pickle (gensim's?). Write the vectors with `save_word2vec_format`.",
    b"\x93NUMPY": "a NumPy array, which has no words.",
    b"\x89HDF": "an HDF5 file. Write the vectors as text.",
    b"\xff\xfe": "text in UTF-16. Save it as UTF-8.",
    b"\xfe\xff": "text in UTF-16. Save it as UTF-8.",
}


@dataclass(frozen=True)
class WordVectors:
    """A table of vectors for a vocabulary.

    Args:
        table: `(V, D)` float32; words without a vector in the file have small random rows, `<pad>` has zeros.
        matched: `(V,)` bool: whether a word's vector came from the file.
        coverage: Fraction of the vocabulary's words, without special tokens, whose vector is in the file.
        missing: The other words, most frequent first.
    """

    table: Tensor
    matched: Tensor
    coverage: float
    missing: tuple[str, ...]

    def notices(self) -> tuple[Notice, ...]:
        """Return how many words have no vector, where some have none."""
        if not self.missing:
            return ()
        words = len(self.table) - (Vocabulary.unk + 1)
        what = "words of the vocabulary without a vector, initialised at random"
        return (Notice(what, len(self.missing), words, repr(self.missing[0])),)


def read_word_vectors(path: str | Path, vocabulary: Vocabulary, *, seed: int = 0) -> WordVectors:
    """Read the vectors of a vocabulary's words from a file of any size, one word at a time.

    The format is detected from the content: a first line of two numbers is word2vec's (text or binary) or
    fastText's .vec, anything else is GloVe's. Spaces and tabs separate; .gz, .bz2, .xz and .zip are read.

    Args:
        path: The file.
        vocabulary: The words to read; where a word is absent, its capitalised form is used.
        seed: Draws the rows of words that are not in the file, with the spread of those that are.

    Raises:
        DataError: The file is missing, of another kind, or damaged: the line or word is named.
        InputError: It holds none of the words.
    """
    path = Path(path)
    rows: dict[int, np.ndarray] = {}
    exact: set[int] = set()
    with _opened(path) as file:
        for word, vector in _records(file, path):
            index = vocabulary.id(word)
            same = index != vocabulary.unk
            if not same:
                index = vocabulary.id(word.lower())
            if index <= vocabulary.unk or index in exact or (index in rows and not same):
                continue
            rows[index] = vector
            if same:
                exact.add(index)
    if not rows:
        fix = "Is it a file of vectors for another language?"
        raise InputError(expected(f"vectors of the vocabulary's words in {path}", "at least one", 0, fix=fix))
    known = np.stack(list(rows.values()))
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(len(vocabulary), known.shape[1], generator=generator) * float(known.std())
    matched = torch.zeros(len(vocabulary), dtype=torch.bool)
    for index, vector in rows.items():
        table[index], matched[index] = torch.from_numpy(vector.copy()), True
    table[vocabulary.pad] = 0
    words = range(vocabulary.unk + 1, len(vocabulary))
    missing = tuple(vocabulary.words[i] for i in words if i not in rows)
    return WordVectors(table, matched, len(rows) / len(words), missing)


def check_word_vectors(path: str | Path) -> None:
    """Read the first vectors of a file, so that any other file is refused before training.

    Args:
        path: As `read_word_vectors` takes it.

    Raises:
        DataError: The file is missing, of another kind, or its first lines are damaged.
    """
    with _opened(Path(path)) as file:
        if not list(islice(_records(file, Path(path)), 3)):
            raise DataError("Expected word vectors, but the file is empty.", path=path)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of vectors, compressed or not; errors while it is read name the file."""
    if path.is_dir():
        names = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        raise DataError(f"Expected a file of word vectors, but it is a folder (with {names}).", path=path)
    try:
        with path.open("rb") as plain:
            start = plain.read(8)
            plain.seek(0)
            if start.startswith(b"\x1f\x8b"):
                with gzip.open(plain) as file:
                    yield cast("BinaryIO", file)
            elif start.startswith(b"BZh"):
                with bz2.open(plain) as file:
                    yield cast("BinaryIO", file)
            elif start.startswith(b"\xfd7zXZ"):
                with lzma.open(plain) as file:
                    yield cast("BinaryIO", file)
            elif start.startswith(b"PK"):
                with zipfile.ZipFile(plain) as archive, archive.open(_member(archive, path)) as file:
                    yield cast("BinaryIO", file)
            else:
                yield plain
    except FileNotFoundError as error:
        raise DataError(
            "Expected a file of word vectors, but there is none by this name.", path=path
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise DataError(f"Expected a readable file of word vectors: {error}.", path=path) from error


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if any(name.endswith("data.pkl") for name in names):
        raise DataError(
            "Expected word vectors, but it is a file of torch.save. Give the text file.", path=path
        )
    if len(names) != 1:
        text = f"Expected an archive of one file, but it holds {len(names)}: {', '.join(sorted(names)[:5])}."
        raise DataError(f"{text} Unpack it, and give one of them.", path=path)
    return names[0]


def _records(file: BinaryIO, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    first = file.readline(_MAX_WORD_BYTES * 64)
    for magic, what in _OTHER_FORMATS.items():
        if first.startswith(magic):
            raise DataError(
                f"Expected word vectors as text, or word2vec's binary file, but it is {what}", path=path
            )
    first = first.removeprefix(codecs.BOM_UTF8)
    head = first.split()
    lines: Iterator[bytes]
    if len(head) == 2 and all(part.isdigit() for part in head):
        count, width = int(head[0]), int(head[1])
        if not 1 <= width <= _MAX_WIDTH:
            raise DataError(
                expected("the width of the vectors", f"in 1 .. {_MAX_WIDTH}", width), path=path, record=1
            )
        second = file.readline(_MAX_WORD_BYTES * 64)
        if not _is_text(second, width):
            yield from _binary(_Joined(second, file), path, count, width)
            return
        lines, start = chain([second], file), 2
    else:
        lines, start = chain([first], file), 1
        width = _width(head)
    for number, line in enumerate(lines, start):
        record = _text(line, path, number, width)
        if record is not None:
            width = len(record[1])
            yield record


class _Joined:
    """A stream that begins with bytes that were read from the file already."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self.start, self.file = start, file

    def read(self, size: int) -> bytes:
        taken, self.start = self.start[:size], self.start[size:]
        return taken if len(taken) == size else taken + self.file.read(size - len(taken))


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _is_text(line: bytes, width: int) -> bool:
    """Return whether the line after word2vec's header is a word and `width` numbers as text."""
    parts = line.split()
    return len(parts) > width and all(_is_number(part) for part in parts[-width:])


def _width(parts: list[bytes]) -> int:
    """Return how many numbers end the first line; its word may contain spaces or be a number."""
    numbers = next(
        (index for index, part in enumerate(reversed(parts)) if not _is_number(part)), len(parts) - 1
    )
    return max(numbers, 0)


def _text(line: bytes, path: Path, number: int, width: int) -> tuple[str, np.ndarray] | None:
    parts = line.split()  # at spaces and tabs only: words may hold other kinds of space
    if len(parts) < 2:
        if parts:
            raise DataError(
                "Expected a word and its numbers, but got a word alone.", path=path, record=number
            )
        return None
    if len(parts) == width and all(_is_number(part) for part in parts):
        return None  # the word is a space
    # Some published files hold words with spaces in them: the numbers are the last `width` fields.
    cut = len(parts) - width if width else 1
    try:
        vector = np.array([float(part) for part in parts[cut:]], dtype=np.float32)
    except ValueError as error:
        raise DataError(f"Expected numbers after the word: {error}.", path=path, record=number) from error
    if cut < 1 or not np.isfinite(vector).all():
        needed = f"{width} finite numbers" if width else "finite numbers"
        raise DataError(expected("the vector", needed, len(parts) - 1), path=path, record=number)
    return b" ".join(parts[:cut]).decode("utf-8", errors="replace"), vector


def _binary(file: _Joined, path: Path, count: int, width: int) -> Iterator[tuple[str, np.ndarray]]:
    size = struct.calcsize("f") * width
    for number in range(1, count + 1):
        letters = bytearray()
        while (letter := file.read(1)) != b" ":
            if not letter or len(letters) > _MAX_WORD_BYTES:
                raise DataError(
                    f"Expected {count} words, but word {number} has no end.", path=path, record=number
                )
            if letter != b"\n":  # some writers end each record with a line break
                letters += letter
        raw = file.read(size)
        if len(raw) != size:
            text = expected("the bytes of the vector", size, len(raw), fix="Is the file cut short?")
            raise DataError(text, path=path, record=number)
        vector = np.frombuffer(raw, dtype="<f4")
        if not np.isfinite(vector).all():
            raise DataError("Expected finite numbers.", path=path, record=number)
        yield letters.decode("utf-8", errors="replace"), vector
