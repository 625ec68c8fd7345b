"""The vocabulary of a captioner: words to ids and back, built from the training captions only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.errors import DataError, InputError, expected
from visionkit.files import write_text
from visionkit.notices import Notice
from visionkit.text.read_text import read_text
from visionkit.text.tokenize import tokenize

__all__ = ["Vocabulary"]

_SCHEMA = 1
_SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class _CaptionCounts:
    """Counts of the captions a vocabulary was built from.

    Args:
        words: All words.
        rare: Words that are not in the vocabulary.
        first: The most frequent of those.
        lengths: Captions of each number of words.
    """

    words: int
    rare: int
    first: str
    lengths: Counter[int]


class Vocabulary:
    """The words a captioner knows.

    Ids 0 to 3 are the special tokens `<pad>`, `<bos>` (begin), `<eos>` (end) and `<unk>` (unknown word); the
    words follow.

    Args:
        words: The words after the special tokens, each once.

    Raises:
        InputError: A word is repeated, empty, has a space in it, or is a special token.
    """

    pad, bos, eos, unk = range(4)

    def __init__(self, words: Sequence[str]) -> None:
        for word in words:
            if (
                not isinstance(word, str)
                or not word
                or any(c.isspace() for c in word)
                or word in _SPECIAL_TOKENS
            ):
                text = expected(
                    "a word of a vocabulary", "text without spaces that is no special token", word
                )
                raise InputError(text)
        self.words = (*_SPECIAL_TOKENS, *words)
        self.counted: _CaptionCounts | None = None
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            repeated = Counter(self.words).most_common(1)[0][0]
            raise InputError(f"Expected each word of a vocabulary once, but {repeated!r} is repeated.")

    @classmethod
    def build(
        cls, captions: Iterable[str], *, min_count: int = 5, max_words: int | None = None
    ) -> Vocabulary:
        """Build the vocabulary of training captions: their frequent words, the most frequent first.

        Args:
            captions: Every caption of the training images, and of no others.
            min_count: Occurrences of a word below which it is left out.
            max_words: Largest number of words.

        Raises:
            InputError: No word is left.
        """
        counts: Counter[str] = Counter()
        lengths: Counter[int] = Counter()
        for caption in captions:
            tokens = tokenize(caption)
            counts.update(tokens)
            lengths[len(tokens)] += 1
        for token in _SPECIAL_TOKENS:
            counts.pop(token, None)  # "<unk>" in a caption is encoded as an unknown word
        frequent = (word for word, count in counts.items() if count >= min_count)
        words = sorted(frequent, key=lambda word: (-counts[word], word))[:max_words]
        if not words:
            longest = max(counts, key=len, default="")
            raise InputError(
                f"No word occurs {min_count} times or more in the training captions ({len(counts)} words, "
                f"such as {longest[:40]!r}). Set a smaller min_count. Words are found by "
                "spaces: captions that are written without need them first."
            )
        vocabulary = cls(words)
        rare = {word: number for word, number in counts.items() if word not in vocabulary}
        first = min(rare, key=lambda word: (-rare[word], word), default="")
        vocabulary.counted = _CaptionCounts(sum(counts.values()), sum(rare.values()), first, lengths)
        return vocabulary

    def notices(self, *, max_length: int | None = None) -> tuple[Notice, ...]:
        """Return what the vocabulary leaves out of the captions it was built from; nothing if it was loaded.

        Args:
            max_length: Largest number of words of a generated caption.
        """
        if self.counted is None:
            return ()
        counted, notices = self.counted, []
        if counted.rare:
            what = "words too rare for the vocabulary, trained as unknown"
            notices.append(Notice(what, counted.rare, counted.words, repr(counted.first)))
        long = {} if max_length is None else {n: k for n, k in counted.lengths.items() if n > max_length}
        if long:
            what = f"captions longer than the {max_length} words that are generated at most"
            first = f"one of {max(long)} words"
            notices.append(Notice(what, sum(long.values()), sum(counted.lengths.values()), first))
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
        # Text that spells a special token is none: "<pad>" in a caption is not padding.
        return max(self._ids.get(word, self.unk), self.unk)

    def encode(self, sentence: str | Sequence[str], *, max_length: int | None = None) -> list[int]:
        """Return `<bos> words <eos>` as ids.

        Args:
            sentence: Text, or tokens already cut.
            max_length: Words after this many are cut off.
        """
        tokens = tokenize(sentence) if isinstance(sentence, str) else sentence
        return [self.bos, *(self.id(token) for token in tokens[:max_length]), self.eos]

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
        return {"schema": _SCHEMA, "words": list(self.words[len(_SPECIAL_TOKENS) :])}

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
        """Write the vocabulary as JSON, atomically."""
        write_text(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=0) + "\n")

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
