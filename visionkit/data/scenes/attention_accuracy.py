"""Attention accuracy of a captioner: the fraction of attention inside the box of the object being named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visionkit.errors import InputError, expected

__all__ = ["AttentionSums", "attention_in_boxes", "box_cover", "words_of_things"]


class AttentionSums(NamedTuple):
    """Sums over the words that name an object."""

    inside: float  # attention inside the object's box
    chance: float  # attention there if spread evenly: the box's fraction of the image
    elsewhere: float  # attention inside the boxes of the other objects
    words: int


def attention_in_boxes(
    attention: Tensor,
    tokens: Sequence[str],
    boxes: Tensor,
    names: Sequence[str],
    *,
    size: tuple[int, int],
) -> AttentionSums:
    """Sum the attention of every word that names one object, inside that object's box.

    A cell that is partly in the box counts with that part. A word counts if the caption has the full name and
    only one object of the image has that name.

    Args:
        attention: `(T, h, w)`, each map summing to one.
        tokens: The words, at most T.
        boxes: `(N, 4)` xyxy in pixels.
        names: Of the N objects.
        size: `(H, W)` of the image.

    Raises:
        InputError: There are more words than maps, or more names than boxes.
    """
    if len(tokens) > len(attention):
        raise InputError(expected("attention", f"a map for each of {len(tokens)} words", len(attention)))
    if len(names) != len(boxes):
        raise InputError(expected("names", f"one for each of {len(boxes)} boxes", len(names)))
    cover = box_cover(boxes, attention.shape[-2:], size=size)  # (N, h, w)
    inside = chance = elsewhere = 0.0
    words = 0
    for position, index in words_of_things(tokens, names).items():
        in_boxes = (attention[position].double() * cover).flatten(1).sum(dim=1)  # (N,)
        inside += float(in_boxes[index])
        elsewhere += float(in_boxes.sum() - in_boxes[index])
        chance += float(cover[index].mean())
        words += 1
    return AttentionSums(inside, chance, elsewhere, words)


def box_cover(boxes: Tensor, grid: Sequence[int], *, size: tuple[int, int]) -> Tensor:
    """Return the fraction of every cell of a grid that is in each box: `(N, h, w)` in [0, 1].

    Args:
        boxes: `(N, 4)` xyxy in pixels.
        grid: `(h, w)`; its cells divide the image evenly.
        size: `(H, W)` of the image.
    """
    parts = []
    for low, high, cells, side in ((1, 3, grid[0], size[0]), (0, 2, grid[1], size[1])):
        edges = torch.linspace(0, side, int(cells) + 1, dtype=torch.float64)
        start = boxes[:, low, None].double().clamp(min=edges[:-1])
        stop = boxes[:, high, None].double().clamp(max=edges[1:])
        parts.append((stop - start).clamp(min=0) / (edges[1:] - edges[:-1]))  # (N, cells)
    return parts[0].unsqueeze(2) * parts[1].unsqueeze(1)


def words_of_things(tokens: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Return the index of the object that each word names, by the word's position.

    Args:
        tokens: The words.
        names: Of the objects, words joined by spaces; a name that two objects have counts for neither.
    """
    objects: dict[int, int] = {}
    # Long names first: a "dog face" must not be taken for a "dog".
    for index in sorted(range(len(names)), key=lambda number: -len(names[number].split())):
        words = names[index].split()
        if list(names).count(names[index]) > 1:
            continue
        for start in range(len(tokens) - len(words) + 1):
            span = range(start, start + len(words))
            if list(tokens[start : start + len(words)]) == words and not any(p in objects for p in span):
                objects.update(dict.fromkeys(span, index))
    return objects
