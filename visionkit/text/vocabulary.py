"""Words to numbers and back, from the training captions only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.errors import DataError, InputError, expected
from visionkit.notices import Notice
from visionkit.text.read_text import read_text
from visionkit.text.tokenize import tokenize

__all__ = ["Vocabulary"]

_SCHEMA = 1
_MARKS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class _Counted:
    """What was counted in the captions: words, those too rare, the most frequent of them, lengths."""

    words: int
    rare: int
    first: str
    lengths: Counter[int]


class Vocabulary:
    """The words a captioner knows.

    Ids 0 to 3 are `<pad>`, `<bos>` (begin), `<eos>` (end) and `<unk>` (a word that is not known); the words
    follow.

    Args:
        words: The words after the four marks, each once.

    Raises:
        InputError: A word stands twice, is empty, has a space in it, or is one of the marks.
    """

    pad, bos, eos, unk = range(4)

    def __init__(self, words: Sequence[str]) -> None:
        for word in words:
            if not isinstance(word, str) or not word or any(c.isspace() for c in word) or word in _MARKS:
                text = expected("a word of a vocabulary", "text without spaces that is no mark", word)
                raise InputError(text)
        self.words = (*_MARKS, *words)
        self.counted: _Counted | None = None
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = Counter(self.words).most_common(1)[0][0]
            raise InputError(f"Expected each word of a vocabulary once, but {twice!r} stands twice.")

    @classmethod
    def build(cls, captions: Iterable[str], *, least: int = 5, most: int | None = None) -> Vocabulary:
        """Count the words of training captions; keep the frequent ones, the most frequent first.

        Args:
            captions: Every caption of the training images, and of no others.
            least: How often a word must occur to be kept.
            most: Keep at most this many words.

        Raises:
            InputError: No word is left.
        """
        counts: Counter[str] = Counter()
        lengths: Counter[int] = Counter()
        for caption in captions:
            tokens = tokenize(caption)
            counts.update(tokens)
            lengths[len(tokens)] += 1
        for mark in _MARKS:
            counts.pop(mark, None)  # "<unk>" in a caption is taught as an unknown word
        kept = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))[:most]
        if not kept:
            longest = max(counts, key=len, default="")
            raise InputError(
                f"No word occurs {least} times or more in the training captions ({len(counts)} words seen, "
                f"such as {longest[:40]!r}). Set a smaller least number of occurrences. Words are found by "
                "spaces: captions that are written without need them first."
            )
        vocabulary = cls(kept)
        rare = {word: number for word, number in counts.items() if word not in vocabulary}
        first = min(rare, key=lambda word: (-rare[word], word), default="")
        vocabulary.counted = _Counted(sum(counts.values()), sum(rare.values()), first, lengths)
        return vocabulary

    def notices(self, *, longest: int | None = None) -> tuple[Notice, ...]:
        """Return what a vocabulary leaves of the captions that it was built from; none for another one.

        Args:
            longest: How many words a generated caption has at most.
        """
        if self.counted is None:
            return ()
        counted, notices = self.counted, []
        if counted.rare:
            what = "words too rare for the vocabulary, taught as unknown"
            notices.append(Notice(what, counted.rare, counted.words, repr(counted.first)))
        cut = {} if longest is None else {size: n for size, n in counted.lengths.items() if size > longest}
        if cut:
            what = f"captions longer than the {longest} words that are said at most"
            first = f"one of {max(cut)} words"
            notices.append(Notice(what, sum(cut.values()), sum(counted.lengths.values()), first))
        return tuple(notices)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def id(self, word: str) -> int:
        """Return the number of a word, or that of `<unk>`."""
        # Text that spells a mark is no mark: "<pad>" in a caption is not padding.
        return max(self._ids.get(word, self.unk), self.unk)

    def encode(self, sentence: str | Sequence[str], *, longest: int | None = None) -> list[int]:
        """Return `<bos> words <eos>` as ids.

        Args:
            sentence: Text, or tokens already cut.
            longest: Keep at most this many words.
        """
        tokens = tokenize(sentence) if isinstance(sentence, str) else sentence
        return [self.bos, *(self.id(token) for token in tokens[:longest]), self.eos]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the words up to the first `<eos>`, without `<bos>` and `<pad>`.

        Raises:
            InputError: An id is out of range.
        """
        words: list[str] = []
        for i in ids:
            if not 0 <= i < len(self.words):
                raise InputError(expected("a word id", f"in 0 .. {len(self.words) - 1}", i))
            if i == self.eos:
                break
            if i not in (self.pad, self.bos):
                words.append(self.words[i])
        return words

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict for JSON and checkpoints."""
        return {"schema": _SCHEMA, "words": list(self.words[len(_MARKS) :])}

    @classmethod
    def from_dict(cls, record: Any) -> Vocabulary:
        """Rebuild from `to_dict`'s record.

        Raises:
            InputError: The record is of another kind or schema.
        """
        if not isinstance(record, dict) or not isinstance(record.get("words"), list):
            raise InputError(
                expected("a vocabulary", "a dict with 'schema' and 'words'", type(record).__name__)
            )
        if record.get("schema") != _SCHEMA:
            raise InputError(expected("schema of the vocabulary", _SCHEMA, record.get("schema")))
        return cls(record["words"])

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON."""
        Path(path).write_text(
            json.dumps(self.to_dict(), ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            DataError: The file is no vocabulary.
        """
        try:
            return cls.from_dict(json.loads(read_text(path)))
        except (ValueError, OSError) as error:
            raise DataError(f"Cannot read a vocabulary here: {error}", path=path) from error
