"""Scores that runs give by class (IoU), brought together by arm for a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from visionkit.compare.comparison import Comparison, arm_name

__all__ = ["ClassScores", "class_scores"]

_KINDS = {"iou": "IoU"}


@dataclass(frozen=True)
class ClassScores:
    """What every class scored in every arm.

    Args:
        label: What the score is.
        split: "test" or "val".
        seeds: How many runs the arms' means are of, the fewest.
        values: Arm to class to mean over seeds, in the arms' order.
    """

    label: str
    split: str
    seeds: int
    values: dict[str, dict[str, float]]


def class_scores(comparison: Comparison) -> ClassScores | None:
    """Return the scores by class at the largest fraction that all arms have; None where there are none.

    They are of the test split where there is one.

    Args:
        comparison: The runs side by side.
    """
    shared = [
        f for f in comparison.fractions if all(comparison.cell(arm, f) is not None for arm in comparison.arms)
    ]
    if not shared:
        return None
    runs = [record for record in comparison.records if record.fraction == shared[-1]]
    for kind, label in _KINDS.items():
        for split in ("test", "val"):
            prefix = f"{split}/{kind}/"
            found: dict[str, dict[str, list[float]]] = {arm: {} for arm in comparison.arms}
            counts = dict.fromkeys(comparison.arms, 0)
            for record in runs:
                arm = arm_name(record.init)
                named = {
                    name.removeprefix(prefix): float(value)
                    for name, value in record.result["metrics"].items()
                    if name.startswith(prefix) and isinstance(value, int | float) and math.isfinite(value)
                }
                counts[arm] += bool(named)
                for name, value in named.items():
                    found[arm].setdefault(name, []).append(value)
            if all(found.values()):
                means = {
                    arm: {name: sum(values) / len(values) for name, values in table.items()}
                    for arm, table in found.items()
                }
                return ClassScores(label, split, min(counts.values()), means)
    return None
