"""Scores of captions of two objects and their relation: are the objects right, and is the relation?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Relation", "parse_relation", "relation_scores"]

# Phrases and their relations; a longer phrase comes before its part.
_PHRASES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("to", "the", "left", "of"), "left of"),
    (("to", "the", "right", "of"), "right of"),
    (("placed", "above"), "above"),
    (("placed", "below"), "below"),
    (("left", "of"), "left of"),
    (("right", "of"), "right of"),
    (("above",), "above"),
    (("below",), "below"),
)
_OPPOSITE = {"right of": "left of", "below": "above"}
_ARTICLES = frozenset({"a", "an", "the"})


class Relation(NamedTuple):
    """Two objects and their relation in canonical form: "a right of b" is "b left of a"."""

    first: str
    relation: str  # "left of" or "above"
    second: str


def parse_relation(tokens: Sequence[str]) -> Relation | None:
    """Return the relation that a sentence states, or None where it has another form.

    Args:
        tokens: The words ("a red apple to the left of a dog face").
    """
    words = tuple(tokens)
    for start in range(1, len(words)):
        for phrase, meaning in _PHRASES:
            if words[start : start + len(phrase)] != phrase:
                continue
            first, second = _name(words[:start]), _name(words[start + len(phrase) :])
            if not first or not second:
                return None
            if meaning in _OPPOSITE:
                return Relation(second, _OPPOSITE[meaning], first)
            return Relation(first, meaning, second)
    return None


def relation_scores(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[tuple[float, float, float]]:
    """Score each caption: fraction of the true objects that it names, both named, and all of it true.

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image; the first one of the form "a RELATION b" is the
            truth. An image without one is left out.

    Returns:
        `(objects, both objects, relation too)` for each image that counts.
    """
    from visionkit.metrics.ngrams import check_caption_sets  # only scores need torchmetrics

    check_caption_sets(candidates, references)
    scores = []
    for candidate, image_references in zip(candidates, references):
        truth = next((relation for relation in map(parse_relation, image_references) if relation), None)
        if truth is None:
            continue
        stated = parse_relation(candidate)
        named = {_name(candidate)} if stated is None else {stated.first, stated.second}
        objects = [truth.first, truth.second]
        both = stated is not None and named == set(objects)
        correct = sum(name in named for name in objects)
        scores.append((correct / 2, float(both), float(stated == truth)))
    return scores


def _name(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word not in _ARTICLES)
