"""Scores that runs have for each class (IoU), averaged over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["ClassScores", "applies", "class_scores", "draw"]

_KINDS = {"iou": "IoU"}


def applies(data: ReportData) -> bool:
    """Return whether runs have scores for each class; detections have AP instead."""
    return class_scores(data.comparison) is not None and not data.curves


def draw(data: ReportData) -> Section:
    """Return the scores as bars."""
    scores = class_scores(data.comparison)
    if scores is None:
        return Section()
    title = f"{scores.label} by class, {scores.split} split, {data.name}"
    note = "" if scores.seeds == 1 else f"mean of {scores.seeds} seeds"
    bars = Panel(
        lambda: class_bars(scores.values, title=title, label=scores.label, note=note),
        "Scores by class",
        file=scores.label.lower(),
    )
    return Section([bars])


@dataclass(frozen=True)
class ClassScores:
    """The score of every class in every arm.

    Args:
        label: Name of the score.
        split: "test" or "val".
        seeds: Runs that an arm's mean is of, of the arm with the fewest.
        values: Arm to class to mean over seeds, in the arms' order.
    """

    label: str
    split: str
    seeds: int
    values: dict[str, dict[str, float]]


def class_scores(comparison: Comparison) -> ClassScores | None:
    """Return the scores by class at the largest fraction that all arms have; None if there are none.

    They are of the test split if there is one.

    Args:
        comparison: The runs.
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
            values: dict[str, dict[str, list[float]]] = {arm: {} for arm in comparison.arms}
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
                    values[arm].setdefault(name, []).append(value)
            if all(values.values()):
                means = {
                    arm: {name: sum(scores) / len(scores) for name, scores in table.items()}
                    for arm, table in values.items()
                }
                return ClassScores(label, split, min(counts.values()), means)
    return None
