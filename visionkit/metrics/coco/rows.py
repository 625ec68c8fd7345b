"""Rows of the objects of images, in an order that no process count changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionkit.distributed import rank, world_size
from visionkit.metrics.base import bytes_to_tensor
from visionkit.metrics.coco.masks import runs_from_bytes
from visionkit.metrics.coco_core import Floats, Ints

__all__ = ["ObjectRows", "image_order", "image_records", "in_order", "mean_score"]


@dataclass(frozen=True)
class ObjectRows:
    """Annotated objects or detections of all images, ordered by image.

    Args:
        image: `(N,)` number of the image of each.
        rows: `(N, columns)` as the states have them.
        masks: N run lengths; empty without masks.
    """

    image: Ints
    rows: Floats
    masks: list[dict[str, Any]]


def image_records(
    target: Sequence[Mapping[str, Any]],
    names: Sequence[str | None],
    objects: Iterable[int],
    detections: Iterable[int],
) -> tuple[Tensor, Tensor]:
    """Return a row for each image, and their names as bytes, for two states that travel between processes.

    Args:
        target: The truth of each image, perhaps with `image_id`.
        names: Of the images; None: its process and position.
        objects: How many objects each has.
        detections: How many detections each has.

    Returns:
        `(I, 5)` int64: process (-1: the only one), whether it has a number, the number, objects, detections;
        and a line of JSON an image, text, or null for a position.
    """
    process = rank() if world_size() > 1 else -1
    numbers = [truth.get("image_id") for truth in target]
    records = [
        (process, number is not None, number or 0, count, size)
        for number, count, size in zip(numbers, objects, detections, strict=True)
    ]
    images = torch.tensor([[int(value) for value in record] for record in records])
    return images, bytes_to_tensor("".join(f"{json.dumps(name)}\n" for name in names).encode())


def image_order(records: Ints, ids: Tensor) -> tuple[Ints, list[str]]:
    """Return the number of each image in the order that breaks ties, and the names in this order.

    The number is -1 for an image that came before. The order is that of the files' own numbers where all
    images have one, else that of the names.

    Args:
        records: `(I, 5)` of `image_records`.
        ids: The bytes of it.
    """
    positions: Counter[int] = Counter()
    names = []
    for process, line in zip(records[:, 0].tolist(), ids.numpy().tobytes().splitlines(), strict=True):
        name, position = json.loads(line), str(positions[process])
        positions[process] += 1
        names.append(name if name is not None else position if process < 0 else f"{process}/{position}")
    entries = [(name, index) for index, name in enumerate(names)]
    if entries and records[:, 1].all():
        entries.sort(key=lambda entry: (int(records[entry[1], 2]), entry))
    elif all(name.isdecimal() for name in names):
        entries.sort(key=lambda entry: (int(entry[0]), entry))
    else:
        entries.sort()
    order = np.full(len(names), -1, dtype=np.int64)
    distinct: list[str] = []
    for name, index in entries:
        if not distinct or distinct[-1] != name:
            order[index] = len(distinct)
            distinct.append(name)
    return order, distinct


def in_order(order: Ints, counts: Ints, rows: Tensor, masks: Tensor | None) -> ObjectRows:
    """Return the objects of the images that count, by image, those of one image in their old order.

    Args:
        order: `(I,)` number of each image, -1 to leave it out.
        counts: `(I,)` objects of each image.
        rows: `(N, columns)` of all images, image after image.
        masks: Bytes of `runs_to_bytes` of all images, or None.
    """
    image = np.repeat(order, counts)  # (N,)
    chosen = np.argsort(image, kind="stable")
    chosen = chosen[image[chosen] >= 0]
    runs = [] if masks is None else runs_from_bytes(masks.numpy().tobytes())
    return ObjectRows(image[chosen], rows.numpy()[chosen], [runs[index] for index in chosen] if runs else [])


def mean_score(values: Floats) -> float:
    """Return the mean of the entries that are no -1; -1 where there is none."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
