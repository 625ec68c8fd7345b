"""CIDEr and CIDEr-D: similarity of a caption and its references, with more weight for rare words.

Three numbers go by these names:

* what the COCO caption evaluation and published tables since 2015 call **CIDEr** is CIDEr-D's arithmetic
  (clipped counts, Gaussian penalty on the difference in length) with document frequencies from the
  references under evaluation. `CiderD.from_references(references)` is that number: pycocoevalcap's `Cider`;
* **CIDEr-D** is the same arithmetic with document frequencies from any corpus. Self-critical training takes
  them from the training captions: `CiderD(DocumentFrequency.count(training_references))`;
* the **plain CIDEr** of the paper's first sections has neither clipping nor penalty:
  `CiderD(frequency, clip=False, sigma=None)`. The original package calls this "CIDEr"; it is not reported
  on COCO.

All three are means over n = 1..4 and references, times ten.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from visionkit.errors import InputError, expected
from visionkit.metrics.ngrams import NGram, check_caption_sets, count_ngrams

__all__ = ["CiderD", "DocumentFrequency"]

_MAX_N = 4
_CACHE_SIZE = 200_000
_SCHEMA = 1


@dataclass(frozen=True)
class DocumentFrequency:
    """Document frequencies of n-grams: in how many images' references each occurs.

    Args:
        documents: How many images were counted.
        counts: For each n-gram of 1 to 4 words, the number of images with a reference that has it.
    """

    documents: int
    counts: dict[NGram, int]

    @classmethod
    def count(cls, references: Sequence[Sequence[Sequence[str]]]) -> DocumentFrequency:
        """Count the references of a corpus: one or more token lists for each image."""
        counts: Counter[NGram] = Counter()
        for image_references in references:
            counts.update(
                {ngram for reference in image_references for ngram in count_ngrams(reference, _MAX_N)}
            )
        return cls(len(references), dict(counts))

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict for JSON; the words of an n-gram are joined with spaces."""
        counts = {" ".join(ngram): count for ngram, count in sorted(self.counts.items())}
        return {"schema": _SCHEMA, "documents": self.documents, "counts": counts}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> DocumentFrequency:
        """Rebuild from `to_dict`'s record.

        Raises:
            InputError: The record has another schema.
        """
        if record.get("schema") != _SCHEMA:
            raise InputError(expected("schema of document frequencies", _SCHEMA, record.get("schema")))
        return cls(record["documents"], {tuple(k.split(" ")): v for k, v in record["counts"].items()})


class _Vector(NamedTuple):
    weights: tuple[dict[NGram, float], ...]  # one dict for each n
    norms: tuple[float, ...]
    length: int  # pairs of words, as the reference implementation counts it


class CiderD:
    """Score captions against references with fixed document frequencies.

    Vectors of references are cached, because self-critical training scores thousands of captions against the
    same ones.

    Args:
        frequency: Document frequencies of a corpus.
        clip: Count an n-gram no more often than the reference has it.
        sigma: Width, in words, of the Gaussian penalty on the difference in length; None for no penalty.

    Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015; arithmetic of
    pycocoevalcap's `CiderScorer`.
    """

    def __init__(self, frequency: DocumentFrequency, *, clip: bool = True, sigma: float | None = 6.0) -> None:
        self.frequency = frequency
        self.clip = clip
        self.sigma = sigma
        self._log_documents = math.log(max(1, frequency.documents))
        self._cache: dict[tuple[str, ...], _Vector] = {}

    @classmethod
    def from_references(cls, references: Sequence[Sequence[Sequence[str]]]) -> CiderD:
        """Take the document frequencies from the references under evaluation (the leaderboards' CIDEr)."""
        return cls(DocumentFrequency.count(references))

    def __call__(
        self, candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
    ) -> list[float]:
        """Score each caption.

        Args:
            candidates: One token list for each image.
            references: One or more token lists for each image.

        Returns:
            One score in [0, 10] for each image; the corpus score is their mean.

        Raises:
            InputError: The captions cannot be scored (see `check_caption_sets`).
        """
        check_caption_sets(candidates, references)
        scores = []
        for candidate, image_references in zip(candidates, references):
            vector = self._vector(candidate)
            total = sum(self._similarity(vector, self._cached_vector(r)) for r in image_references)
            scores.append(10.0 * total / (_MAX_N * len(image_references)))
        return scores

    def _cached_vector(self, reference: Sequence[str]) -> _Vector:
        key = tuple(reference)
        vector = self._cache.get(key)
        if vector is None:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            vector = self._cache[key] = self._vector(key)
        return vector

    def _vector(self, tokens: Sequence[str]) -> _Vector:
        weights: tuple[dict[NGram, float], ...] = tuple({} for _ in range(_MAX_N))
        squares = [0.0] * _MAX_N
        for ngram, count in count_ngrams(tokens, _MAX_N).items():
            n = len(ngram) - 1
            idf = self._log_documents - math.log(max(1, self.frequency.counts.get(ngram, 0)))
            weight = weights[n][ngram] = count * idf
            squares[n] += weight * weight
        return _Vector(weights, tuple(math.sqrt(s) for s in squares), max(0, len(tokens) - 1))

    def _similarity(self, candidate: _Vector, reference: _Vector) -> float:
        total = 0.0
        for n in range(_MAX_N):
            norm = candidate.norms[n] * reference.norms[n]
            if norm == 0:
                continue
            reference_weights = reference.weights[n]
            dot = 0.0
            for ngram, weight in candidate.weights[n].items():
                reference_weight = reference_weights.get(ngram)
                if reference_weight is not None:
                    dot += (min(weight, reference_weight) if self.clip else weight) * reference_weight
            total += dot / norm
        if self.sigma is None:
            return total
        return total * math.exp(-((candidate.length - reference.length) ** 2) / (2 * self.sigma**2))
