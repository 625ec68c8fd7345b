"""Word vectors trained elsewhere: GloVe text, word2vec text and word2vec binary files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from visionkit.data.vocabulary import Vocabulary
from visionkit.errors import DataError, InputError, expected

__all__ = ["WordVectors", "read_word_vectors"]

_LONGEST_WORD = 4096
_WIDEST = 10_000


@dataclass(frozen=True)
class WordVectors:
    """A table of vectors for a vocabulary.

    Args:
        table: `(V, D)` float32; words that were not found have small random rows, `<pad>` has zeros.
        found: `(V,)` bool: whose vector came from the file.
        coverage: Share of the vocabulary's words (its marks apart) that were found.
        missing: The words that were not found, most frequent first.
    """

    table: Tensor
    found: Tensor
    coverage: float
    missing: tuple[str, ...]


def read_word_vectors(path: str | Path, vocabulary: Vocabulary, *, seed: int = 0) -> WordVectors:
    """Read the vectors of a vocabulary's words from a file of any size, a word at a time.

    The format is seen from the file: a first line of two numbers is word2vec's (binary if the name ends in
    `.bin`, text otherwise); anything else is GloVe's.

    Args:
        path: The file.
        vocabulary: Whose words to keep; a word's capitalised form serves where the word itself is absent.
        seed: Draws the rows of words that are not in the file, with the spread of those that are.

    Raises:
        DataError: The file is damaged: the line or word is named.
        InputError: It holds none of the words.
    """
    path = Path(path)
    rows: dict[int, np.ndarray] = {}
    exact: set[int] = set()
    with path.open("rb") as file:
        for word, vector in _records(file, path):
            place = vocabulary.id(word)
            same = place != vocabulary.unk
            if not same:
                place = vocabulary.id(word.lower())
            if place <= vocabulary.unk or place in exact or (place in rows and not same):
                continue
            rows[place] = vector
            if same:
                exact.add(place)
    if not rows:
        fix = "Is it a file of vectors for another language?"
        raise InputError(expected(f"vectors of the vocabulary's words in {path}", "at least one", 0, fix=fix))
    known = np.stack(list(rows.values()))
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(len(vocabulary), known.shape[1], generator=generator) * float(known.std())
    found = torch.zeros(len(vocabulary), dtype=torch.bool)
    for place, vector in rows.items():
        table[place], found[place] = torch.from_numpy(vector.copy()), True
    table[vocabulary.pad] = 0
    words = range(vocabulary.unk + 1, len(vocabulary))
    missing = tuple(vocabulary.words[i] for i in words if i not in rows)
    return WordVectors(table, found, len(rows) / len(words), missing)


def _records(file: BinaryIO, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    first = file.readline(_LONGEST_WORD * 64)
    head = first.split()
    if len(head) == 2 and all(part.isdigit() for part in head):
        count, width = int(head[0]), int(head[1])
        if not 1 <= width <= _WIDEST:
            raise DataError(
                expected("the width of the vectors", f"in 1 .. {_WIDEST}", width), path=path, record=1
            )
        if path.suffix == ".bin":
            yield from _binary(file, path, count, width)
            return
        lines, start = iter(file), 2
    else:
        file.seek(0)
        lines, start, width = iter(file), 1, 0
    for number, line in enumerate(lines, start):
        record = _text(line, path, number, width)
        if record is not None:
            width = len(record[1])
            yield record


def _text(line: bytes, path: Path, number: int, width: int) -> tuple[str, np.ndarray] | None:
    parts = line.decode("utf-8", errors="replace").rstrip().split(" ")
    if len(parts) < 2:
        if line.strip():
            raise DataError(
                "Expected a word and its numbers, but got a word alone.", path=path, record=number
            )
        return None
    # Some published files hold words with spaces in them: the numbers are the last `width` fields.
    cut = len(parts) - width if width else 1
    try:
        vector = np.array(parts[cut:], dtype=np.float32)
    except ValueError as error:
        raise DataError(f"Expected numbers after the word: {error}.", path=path, record=number) from error
    if cut < 1 or not np.isfinite(vector).all():
        wanted = f"{width} finite numbers" if width else "finite numbers"
        raise DataError(expected("the vector", wanted, len(parts) - 1), path=path, record=number)
    return " ".join(parts[:cut]), vector


def _binary(file: BinaryIO, path: Path, count: int, width: int) -> Iterator[tuple[str, np.ndarray]]:
    size = struct.calcsize("f") * width
    for number in range(1, count + 1):
        letters = bytearray()
        while (letter := file.read(1)) != b" ":
            if not letter or len(letters) > _LONGEST_WORD:
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
