"""The last layer of a classifier."""

from __future__ import annotations

from typing import Any

from torch import nn

from visionkit.errors import InputError, expected
from visionkit.rng import seeded_from_run
from visionkit.types import Init

__all__ = ["make_head"]


def make_head(encoder: Any, num_classes: int, *, kind: str, init: Init) -> nn.Module:
    """Return the last layer: a new one, drawn from the run's seed alone, or that of the weights.

    Args:
        encoder: Has `dim`; for "pretrained" also `pretrained_head()`.
        num_classes: Outputs.
        kind: "new" or "pretrained".
        init: Where the weights come from.

    Raises:
        InputError: The weights have no head, or one with other classes.
    """
    if kind == "pretrained":
        return _pretrained_head(encoder, num_classes, init)
    head = nn.Linear(encoder.dim, num_classes)
    with seeded_from_run():
        nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def _pretrained_head(encoder: Any, num_classes: int, init: Init) -> nn.Module:
    get_head = getattr(encoder, "pretrained_head", None)
    head: nn.Linear | None = get_head() if callable(get_head) and init != "scratch" else None
    if head is None:
        raise InputError(
            f"head='pretrained' needs weights with a linear classifier, but {encoder.name!r} with "
            f"init={init!r} has none. Use head='new'."
        )
    if head.out_features != num_classes:
        fix = "Set num_classes to that, or use head='new'."
        have = f"{head.out_features}, as the weights have"
        raise InputError(expected("num_classes for head='pretrained'", have, num_classes, fix=fix))
    return head
