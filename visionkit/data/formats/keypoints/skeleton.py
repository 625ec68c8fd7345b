"""The points of an object by name: the lines between them, and what a mirror makes of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionkit.data.splits import Splits
from visionkit.errors import InputError, expected

__all__ = ["COCO_PERSON", "Skeleton", "mirror_names", "skeleton_of"]

_WORD = re.compile("left|right", re.IGNORECASE)
_LETTER = re.compile(
    r"(?:(?<=^)|(?<=[_\-. ]))[lr](?=$|[_\-. ])|^[LR](?=$|[A-Z_\-. ])|(?<=[_\-. ])[LR](?=$|[_\-. ])"
)
_SWAPPED = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True)
class Skeleton:
    """The points of an object.

    Args:
        names: Name of each of K points, all different.
        edges: Pairs of points, from 0, that a line joins.

    Raises:
        InputError: A name comes twice or is empty, or an edge leads to no point.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that cannot be told apart, and edges that lead nowhere."""
        if not self.names or not all(isinstance(name, str) and name.strip() for name in self.names):
            raise InputError(expected("names of keypoints", "at least one, none empty", list(self.names)))
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            fix = "Scores and mirrors go by the names: name each point once."
            raise InputError(expected("names of keypoints", "all different", twice[0], fix=fix))
        for edge in self.edges:
            if len(edge) != 2 or not all(0 <= end < len(self.names) for end in edge) or edge[0] == edge[1]:
                limit = f"two different points of 0 .. {len(self.names) - 1}"
                raise InputError(expected("an edge of the skeleton", limit, tuple(edge)))

    @property
    def flip(self) -> tuple[int, ...] | None:
        """The point that each one is in the mirrored image; None where a name has no partner."""
        order, alone = mirror_names(self.names)
        return None if alone else order

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as the facts of splits and checkpoints hold them."""
        return {"names": list(self.names), "edges": [list(edge) for edge in self.edges]}

    @classmethod
    def of(cls, given: Skeleton | Mapping[str, Any] | Sequence[str], *, name: str = "keypoints") -> Skeleton:
        """Return a skeleton from itself, from names alone, or from what `as_dict` gave.

        Args:
            given: Any of these.
            name: What the setting is called, for errors.

        Raises:
            InputError: It is none of these.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping) and set(given) == {"names", "edges"}:
            return cls.from_dict(given)
        if isinstance(given, Sequence) and not isinstance(given, str):
            return cls(tuple(given))
        fix = "Give visionkit.data.skeleton_of(splits), or a list of names."
        raise InputError(expected(name, "a Skeleton or the names of points", given, fix=fix))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Skeleton:
        """Return the skeleton that `as_dict` described.

        Args:
            plain: Its result.
        """
        return cls(tuple(plain["names"]), tuple((int(a), int(b)) for a, b in plain["edges"]))


COCO_PERSON = Skeleton(
    (
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    (
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9)),
        *((8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
)
"""The points of a person in COCO."""


def skeleton_of(splits: Splits) -> Skeleton:
    """Return the points of a data set that was opened for keypoints.

    Args:
        splits: Of `open_dataset(root, "keypoints")`.

    Raises:
        InputError: It was opened for another task.
    """
    if "keypoints" not in splits.facts:
        raise InputError(f"Expected a data set of keypoints, but {splits.name} was opened for another task.")
    return Skeleton.from_dict(splits.facts["keypoints"])


def mirror_names(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the point that each one is in the mirrored image, and the names without a partner.

    "left" and "right" anywhere in a name swap ("left_knee", "kneeRight", "leftear"), as do "l" and "r" that
    stand alone ("l_eye", "eye.R", "LAnkle"), where there is a point of the swapped name. Every other point
    stays itself. A name that begins a word with "left" or "right" but has no partner is one without.

    Args:
        names: Of the points.
    """
    index = {name: number for number, name in enumerate(names)}
    order, alone = [], []
    for number, name in enumerate(names):
        swapped = (_WORD.sub(_swap, name), _LETTER.sub(_swap, name))
        partner = next((index[other] for other in swapped if other != name and other in index), None)
        order.append(number if partner is None else partner)
        if partner is None and _has_side(name):
            alone.append(name)
    return tuple(order), tuple(alone)


def _has_side(name: str) -> bool:
    return any(
        match.start() == 0 or not name[match.start() - 1].isalpha() or match[0][0].isupper()
        for match in _WORD.finditer(name)
    )


def _swap(match: re.Match[str]) -> str:
    other = _SWAPPED[match[0].lower()]
    if match[0].isupper():
        return other.upper()
    return other.capitalize() if match[0][0].isupper() else other
