"""Captions of two things and how they stand: are the things right, and is the relation?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from visionkit.metrics.ngrams import check_caption_sets

__all__ = ["Relation", "parse_relation", "relation_scores"]

# What is said, and what it means; the longest phrase that fits is taken.
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
    """Two things and how they stand, in one form: "a right of b" is "b left of a"."""

    first: str
    relation: str  # "left of" or "above"
    second: str


def parse_relation(tokens: Sequence[str]) -> Relation | None:
    """Return what a sentence says of two things, or None where it is of another form.

    Args:
        tokens: The words ("a red apple to the left of a dog face").
    """
    words = tuple(tokens)
    for place in range(1, len(words)):
        for phrase, meaning in _PHRASES:
            if words[place : place + len(phrase)] != phrase:
                continue
            first, second = _name(words[:place]), _name(words[place + len(phrase) :])
            if not first or not second:
                return None
            if meaning in _OPPOSITE:
                return Relation(second, _OPPOSITE[meaning], first)
            return Relation(first, meaning, second)
    return None


def relation_scores(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[tuple[float, float, float]]:
    """Mark each caption: share of the true things that it names, both named, and all of it true.

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image; the first one of the form "a RELATION b" is the
            truth. An image without one is left out.

    Returns:
        `(things, both things, relation too)` for each image that counts.
    """
    check_caption_sets(candidates, references)
    marks = []
    for candidate, several in zip(candidates, references):
        truth = next((found for found in map(parse_relation, several) if found), None)
        if truth is None:
            continue
        said = parse_relation(candidate)
        named = _named(candidate, said)
        things = [truth.first, truth.second]
        found = sum(thing in named for thing in things)
        both = said is not None and {said.first, said.second} == set(things)
        marks.append((found / 2, float(both), float(said == truth)))
    return marks


def _name(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word not in _ARTICLES)


def _named(candidate: Sequence[str], said: Relation | None) -> set[str]:
    return {_name(candidate)} if said is None else {said.first, said.second}
