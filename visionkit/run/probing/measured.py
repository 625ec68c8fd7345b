"""Probes that were measured for this project: what `visionkit advise` cites, and the page on levels shows."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from visionkit.run.advice.advise import Similarity

__all__ = ["MeasuredCase", "measured_sets", "nearest_case"]


@dataclass(frozen=True)
class MeasuredCase:
    """One data set at one amount of data.

    Args:
        name: The data set.
        similarity: How similar it is to what the weights were trained on, as `visionkit advise` measured it.
        images_per_class: Training images a class.
        backbone: The network.
        image_size: Side of the images.
        levels: The levels that the training images chose, one a seed.
        chosen: Top-1 of a linear classifier of these.
        pooled: Top-1 of one of the pooled vector.
        random: Top-1 of one of the pooled vector of random weights.
        gap: `chosen` minus `pooled`, its 95% interval behind it.
    """

    name: str
    similarity: Similarity
    images_per_class: float
    backbone: str
    image_size: int
    levels: tuple[str, ...]
    chosen: float
    pooled: float
    random: float
    gap: tuple[float, float, float]

    def __str__(self) -> str:
        mean, low, high = self.gap
        levels = ", ".join(dict.fromkeys(self.levels))
        shown = "shown" if low > 0 or high < 0 else "not shown"
        return (
            f"nearest measured probe: {self.name} ({self.similarity}), {self.images_per_class:.3g} images a "
            f"class, {self.backbone}: pooled vector {self.pooled:.3f}, random weights {self.random:.3f}; "
            f"level {levels}, chosen on training images, {self.chosen:.3f}: {mean:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] against pooled, {shown}"
        )


@cache
def measured_sets() -> tuple[dict[str, Any], ...]:
    """Return the table: a data set each, with its similarity and the plain values of its `ProbeResult`."""
    text = files("visionkit.run.probing").joinpath("measured.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["sets"])


def nearest_case(
    images_per_class: float, similarity: Similarity, errors_removed: float | None = None
) -> MeasuredCase:
    """Return the measured case nearest to a user's: first by similarity, then by images a class.

    Args:
        images_per_class: Of the user's training split.
        similarity: "similar" or "different".
        errors_removed: What it was measured by; chooses among data sets of the same similarity.
    """
    same = [each for each in measured_sets() if each["similarity"] == similarity]
    if errors_removed is not None:
        same = [min(same, key=lambda each: abs(each["errors_removed"] - errors_removed))]
    cases = [case for each in same for case in _cases(each)]
    return min(cases, key=lambda case: abs(math.log(case.images_per_class / images_per_class)))


def _cases(measured: dict[str, Any]) -> list[MeasuredCase]:
    """Return a case a fraction, of the first network with trained weights."""
    probe = measured["probe"]
    cells = {(c["backbone"], c["init"], c["level"], c["fraction"]): c for c in probe["cells"]}
    backbone = probe["choices"][0]["backbone"]
    made = []
    for choice in probe["choices"]:
        if (choice["backbone"], choice["init"]) != (backbone, "pretrained"):
            continue
        fraction, gap = choice["fraction"], choice["minus_pooled"]
        pooled, random = (cells[backbone, init, "pooled", fraction] for init in ("pretrained", "scratch"))
        made.append(
            MeasuredCase(
                measured["name"], measured["similarity"], pooled["images"] / probe["classes"], backbone,
                probe["image_size"], tuple(choice["levels"]), choice["linear"]["mean"],
                pooled["linear"]["mean"], random["linear"]["mean"], (gap["mean"], gap["low"], gap["high"]),
            )
        )  # fmt: skip
    return made
