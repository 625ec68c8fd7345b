"""Does a captioner look at what it is saying? The share of attention inside the box of the word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visionkit.errors import InputError, expected

__all__ = ["LookedAt", "attention_in_boxes", "box_cover", "words_of_things"]


class LookedAt(NamedTuple):
    """Sums over the words that name a thing."""

    inside: float  # attention inside the thing's box
    chance: float  # what attention spread evenly would have there: the box's share of the image
    elsewhere: float  # attention inside the boxes of the other things
    words: int


def attention_in_boxes(
    attention: Tensor,
    tokens: Sequence[str],
    boxes: Tensor,
    names: Sequence[str],
    *,
    size: tuple[int, int],
) -> LookedAt:
    """Sum the attention of every word that names one thing, inside that thing's box.

    A cell of the map that lies partly in the box counts with the part that does. A word counts if the whole
    name is said and only one thing of the image has that name.

    Args:
        attention: `(T, h, w)`, each map summing to one.
        tokens: The words, at most T.
        boxes: `(N, 4)` xyxy in pixels.
        names: Of the N things.
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
    for place, thing in words_of_things(tokens, names).items():
        shares = (attention[place].double() * cover).flatten(1).sum(dim=1)
        inside += float(shares[thing])
        elsewhere += float(shares.sum() - shares[thing])
        chance += float(cover[thing].mean())
        words += 1
    return LookedAt(inside, chance, elsewhere, words)


def box_cover(boxes: Tensor, grid: Sequence[int], *, size: tuple[int, int]) -> Tensor:
    """Return which part of every cell of a grid lies in each box: `(N, h, w)` in [0, 1].

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
    """Return which thing the word at each place names.

    Args:
        tokens: The words.
        names: Of the things, words joined by spaces; a name that two things have is no thing's.
    """
    found: dict[int, int] = {}
    # Long names first: "dog face" must not be taken for a "dog".
    for thing in sorted(range(len(names)), key=lambda number: -len(names[number].split())):
        words = names[thing].split()
        if list(names).count(names[thing]) > 1:
            continue
        for place in range(len(tokens) - len(words) + 1):
            run = range(place, place + len(words))
            if list(tokens[place : place + len(words)]) == words and not any(p in found for p in run):
                found.update(dict.fromkeys(run, thing))
    return found
