"""Scores that runs have for each class (IoU), point (PCK) or limb (PCP), averaged over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["ClassScores", "applies", "class_scores", "draw"]

# By the prefix of their names: what they are called, and what each is of.
_KINDS = {"iou": ("IoU", "class"), "pck": ("PCK", "point"), "pcp": ("PCP", "limb")}


def applies(data: ReportData) -> bool:
    """Return whether runs have scores for each class; detections have AP instead."""
    return not data.curves and any(class_scores(data.comparison, kind) is not None for kind in _KINDS)


def draw(data: ReportData) -> Section:
    """Return the scores as bars, a panel for each kind of them."""
    tables = {kind: class_scores(data.comparison, kind) for kind in _KINDS}
    return Section([_bars(scores, _KINDS[kind][1], data) for kind, scores in tables.items() if scores])


def _bars(scores: ClassScores, what: str, data: ReportData) -> Panel:
    title = f"{scores.label} by {what}, {scores.split} split, {data.name}"
    note = "" if scores.seeds == 1 else f"mean of {scores.seeds} seeds"
    return Panel(
        lambda: class_bars(scores.values, title=title, label=scores.label, note=note),
        f"Scores by {what}",
        file=scores.label.lower(),
    )


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


def class_scores(comparison: Comparison, kind: str = "iou") -> ClassScores | None:
    """Return the scores by class at the largest fraction that all arms have; None if there are none.

    They are of the test split if there is one.

    Args:
        comparison: The runs.
        kind: Which: "iou" by class, "pck" by point or "pcp" by limb.
    """
    shared = [
        f for f in comparison.fractions if all(comparison.cell(arm, f) is not None for arm in comparison.arms)
    ]
    if not shared:
        return None
    runs = [record for record in comparison.records if record.fraction == shared[-1]]
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
            return ClassScores(_KINDS[kind][0], split, min(counts.values()), means)
    return None
