"""The keypoints of a COCO file, by the position of each annotation; whatever cannot be right is named."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.data.boxes import SLACK
from visionkit.data.error_list import ErrorList
from visionkit.data.formats.coco.json_stream import stream_records
from visionkit.data.formats.keypoints.skeleton import Skeleton, mirror_names
from visionkit.errors import DataError, InputError
from visionkit.notices import Notice, NoticeCounter

__all__ = [
    "BAD_FLAGS",
    "ONE_SIDED",
    "OUTSIDE",
    "PointScan",
    "clean_points",
    "has_keypoints",
    "one_sided",
    "scan_points",
]

Floats = npt.NDArray[np.float64]
BAD_LISTS = "lists of keypoints that cannot be right, left out"
BAD_FLAGS = "keypoints of which the flag is none of 0, 1 and 2, left out"
OUTSIDE = "keypoints outside their images, left out"
WRONG_COUNT = "objects of which num_keypoints is not the number of labelled keypoints, which is taken"
ONE_SIDED = "keypoints of a side whose partner is missing: images cannot be mirrored"


@dataclass(frozen=True)
class PointScan:
    """The keypoints of a COCO file.

    Args:
        path: The file.
        skeleton: Names and edges.
        categories: Ids of the categories that have keypoints.
        points: `(A, K, 3)` by the position in the file's list: x, y, flag; what cannot be right has flag 0.
        full: `(A, K, 3)` as the file has them.
        dropped: What was left out.
        notes: What was read although it is not as it should be.
        counter: The same, counted.
    """

    path: Path
    skeleton: Skeleton
    categories: frozenset[int]
    points: Floats
    full: Floats
    dropped: tuple[DataError, ...]
    notes: tuple[DataError, ...]
    counter: NoticeCounter

    def notices(self, *, max_dropped: float) -> tuple[Notice, ...]:
        """Return what was counted.

        Args:
            max_dropped: The limit of what is left out.
        """
        labelled = int((self.full[..., 2] != 0).sum())
        totals = {BAD_LISTS: len(self.points), WRONG_COUNT: len(self.points), ONE_SIDED: 0}
        return tuple(
            Notice(
                each.what,
                each.count,
                totals.get(each.what, labelled),
                each.first,
                None if each.max_fraction is None else max_dropped,
            )
            for each in self.counter.notices(labelled)
        )


def has_keypoints(path: Path) -> bool:
    """Return whether a category of a COCO file names keypoints; it never raises.

    Args:
        path: The JSON file.
    """
    try:
        return any(
            isinstance(record, dict) and bool(record.get("keypoints"))
            for _, index, record in stream_records(path, ("categories",))
            if index >= 0
        )
    except DataError:
        return False


def scan_points(path: Path) -> PointScan:
    """Read the keypoints of a COCO file and find everything in them that cannot be right.

    Boxes, images and ids are those of `scan_coco`; this reads what that leaves.

    Args:
        path: The JSON file.

    Raises:
        DataError: It is no JSON, its categories name no keypoints, name one twice, or differ in them.
    """
    builder = _Builder()
    for section, index, record in stream_records(path, ("images", "annotations", "categories")):
        if index >= 0 and isinstance(record, dict):
            builder.take(section, index, record)
        elif index >= 0:
            builder.lists.append(None)
    skeleton, categories = _skeleton(path, builder.categories)
    counter = NoticeCounter()
    dropped, notes = (ErrorList(path, counter=counter) for _ in range(2))
    for text in one_sided(skeleton):
        notes.add(text, record="categories", field="keypoints", notice=ONE_SIDED, harmless=True)
    full = builder.points(len(skeleton.names), dropped)
    wheres = [builder.where(row) for row in range(len(full))]
    points = clean_points(full, builder.sides(), wheres, dropped)
    _check_counts(builder, (full[..., 2] > 0).sum(1), notes)
    return PointScan(
        path=path,
        skeleton=skeleton,
        categories=categories,
        points=points,
        full=full,
        dropped=tuple(dropped.all()),
        notes=tuple(notes.all()),
        counter=counter,
    )


def one_sided(skeleton: Skeleton) -> list[str]:
    """Return a sentence for each point of one side of an object whose partner is missing.

    Args:
        skeleton: The points.
    """
    given = ", ".join(skeleton.names)
    return [
        f"Expected a point for the other side of {name!r}, but there is none among {given}: images cannot be "
        "mirrored."
        for name in mirror_names(skeleton.names)[1]
    ]


def clean_points(full: Floats, sizes: Floats, where: Sequence[str], dropped: ErrorList) -> Floats:
    """Return points with flag 0 where they cannot be right: outside the image, or of another flag.

    Args:
        full: `(A, K, 3)` x, y, flag.
        sizes: `(A, 2)` height and width; infinite where they are not known.
        where: The record of each of A objects, for the errors.
        dropped: Takes what is left out.
    """
    points = full.copy()
    flags = ~np.isin(full[..., 2], (0, 1, 2))
    limit = sizes[:, None, ::-1]
    with np.errstate(invalid="ignore"):
        inside = ((full[..., :2] >= -SLACK) & (full[..., :2] <= limit + SLACK)).all(-1)
    outside = ~flags & (full[..., 2] > 0) & ~inside
    for row, point in np.argwhere(flags).tolist():
        text = f"Expected the flag of a keypoint, 0, 1 or 2, but that of point {point} is "
        text += f"{full[row, point, 2]:g}."
        dropped.add(text, record=where[row], field="keypoints", notice=BAD_FLAGS)
    for row, point in np.argwhere(outside).tolist():
        x, y = full[row, point, :2].tolist()
        height, width = sizes[row].tolist()
        text = f"Expected a keypoint inside the image of {width:g} x {height:g} pixels, but point {point} is "
        text += f"at ({x:g}, {y:g}). Give it the flag 0, or correct it."
        dropped.add(text, record=where[row], field="keypoints", notice=OUTSIDE)
    points[flags | outside] = 0
    points[points[..., 2] == 0] = 0
    return points


class _Builder:
    """What a file says of its keypoints, record by record."""

    def __init__(self) -> None:
        self.sizes: dict[int, tuple[int, int]] = {}
        self.categories: list[dict[str, Any]] = []
        self.lists: list[
            array[float] | str | None
        ] = []  # of each annotation: numbers, what is wrong, nothing
        self.images: list[Any] = []
        self.counts: list[Any] = []
        self.ids: list[Any] = []

    def take(self, section: str, index: int, record: dict[str, Any]) -> None:
        if section == "categories":
            self.categories.append(record)
        elif section == "images":
            sides = record.get("height"), record.get("width")
            if all(isinstance(side, int | float) for side in sides) and isinstance(record.get("id"), int):
                self.sizes[record["id"]] = sides  # type: ignore[assignment]
        else:
            self.lists.append(_numbers(record.get("keypoints")))
            self.images.append(record.get("image_id"))
            self.counts.append(record.get("num_keypoints"))
            self.ids.append(record.get("id"))

    def where(self, row: int) -> str:
        number = self.ids[row] if row < len(self.ids) else None
        return f"annotations[{row}]" if type(number) is not int else f"annotations[{row}] (id {number})"

    def points(self, count: int, dropped: ErrorList) -> Floats:
        points = np.zeros((len(self.lists), count, 3))
        for row, values in enumerate(self.lists):
            text = values if isinstance(values, str) else None
            if isinstance(values, array) and len(values) != 3 * count:
                text = f"Expected {3 * count} numbers, three for each of {count} keypoints, "
                text += f"but got {len(values)}."
            if text is not None:
                dropped.add(text, record=self.where(row), field="keypoints", notice=BAD_LISTS)
            elif isinstance(values, array):
                points[row] = np.array(values).reshape(count, 3)
        return points

    def sides(self) -> Floats:
        known = [self.sizes.get(image, (math.inf, math.inf)) for image in map(_key, self.images)]
        return np.array(known, dtype=np.float64).reshape(-1, 2)


def _key(value: Any) -> Any:
    return value if isinstance(value, int) else None


def _numbers(value: Any) -> array[float] | str | None:
    """Return a list of numbers, None where there is none, or what is wrong with it."""
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not {type(item) for item in value} <= {int, float}:
        return f"Expected keypoints x1, y1, flag1, x2 ..., but got {str(value)[:60]}."
    numbers = array("d", value)
    if not all(map(math.isfinite, numbers)):
        return f"Expected finite keypoints, but got {str(value)[:60]}."
    return numbers


def _skeleton(path: Path, categories: Sequence[Mapping[str, Any]]) -> tuple[Skeleton, frozenset[int]]:
    """Return names and edges of the categories that have keypoints, and their ids."""
    having = [record for record in categories if record.get("keypoints")]
    if not having:
        text = "Expected a category with a list of the names of its 'keypoints', but there is none."
        raise DataError(text, path=path, field="categories")
    first = having[0]
    for record in having:
        where = f"categories (id {record.get('id')})"
        names, edges = record["keypoints"], record.get("skeleton") or []
        if (names, edges) != (first["keypoints"], first.get("skeleton") or []):
            text = f"Expected the keypoints of category {first.get('name')!r} for all that have some, but "
            text += f"those of {record.get('name')!r} differ. Put them in a file of their own."
            raise DataError(text, path=path, record=where, field="keypoints")
        if not isinstance(names, list) or not isinstance(edges, list):
            got = type(names if not isinstance(names, list) else edges).__name__
            text = f"Expected lists of names and of pairs, but got a {got}."
            raise DataError(text, path=path, record=where, field="keypoints")
    try:
        pairs = tuple((int(a) - 1, int(b) - 1) for a, b in first.get("skeleton") or [])
        skeleton = Skeleton(tuple(first["keypoints"]), pairs)
    except (InputError, TypeError, ValueError) as error:
        text = f"{error}" if isinstance(error, InputError) else f"Expected pairs of points from 1: {error}."
        raise DataError(text, path=path, record="categories", field="keypoints") from error
    return skeleton, frozenset(record["id"] for record in having if isinstance(record.get("id"), int))


def _check_counts(builder: _Builder, labelled: npt.NDArray[np.int64], notes: ErrorList) -> None:
    """Compare `num_keypoints`, where it is given, with the number of labelled points."""
    for row, (count, values) in enumerate(zip(builder.counts, builder.lists, strict=True)):
        if count is not None and not isinstance(values, str) and count != int(labelled[row]):
            text = f"Expected num_keypoints to be {int(labelled[row])}, the keypoints with a flag above 0, "
            text += f"but got {count!r}: COCO's own evaluation goes by it."
            notes.add(
                text, record=builder.where(row), field="num_keypoints", notice=WRONG_COUNT, harmless=True
            )
