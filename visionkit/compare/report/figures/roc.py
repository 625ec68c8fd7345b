"""Classification: ROC curves of every arm, and the area below them for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from visionkit.compare.data_tables import Table
from visionkit.compare.report.plot_style import MUTED, add_legend, arm_style, chart, name_axes
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["Scored", "applies", "draw", "plot_roc", "roc", "scored_classes"]

Floats = npt.NDArray[np.float64]
MAX_ROWS = 20
_GRID = np.linspace(0, 1, 101)


class Scored(NamedTuple):
    """The probabilities of the classes of images, and what is true.

    Args:
        scores: `(N, K)` probabilities.
        truth: `(N, K)` 0 and 1.
    """

    scores: Floats
    truth: Floats


def applies(data: ReportData) -> bool:
    """Return whether a run wrote the probabilities of its classes."""
    return any(scored_classes(rows.values(), data.classes) is not None for rows in data.rows.values())


def draw(data: ReportData) -> Section:
    """Return the curves, and the areas of the classes whose areas differ most between arms."""
    known = {arm: scored_classes(rows.values(), data.classes) for arm, rows in data.rows.items()}
    scored = {arm: each for arm, each in known.items() if each is not None}
    areas = {arm: _areas(each, data.classes) for arm, each in scored.items()}
    names = [name for name in data.classes if any(name in table for table in areas.values())]
    names.sort(key=lambda name: -np.ptp([table.get(name, 0.5) for table in areas.values()]))
    rows = [["AUROC", *areas], ["mean of the classes", *(f"{_mean(table):.3f}" for table in areas.values())]]
    for name in names[:MAX_ROWS]:
        rows.append([name, *(f"{table[name]:.3f}" if name in table else "-" for table in areas.values())])
    more = f"the {MAX_ROWS} of {len(names)} classes that differ most" if len(names) > MAX_ROWS else ""
    title = f"ROC, {data.name}"
    panel = Panel(
        partial(chart, partial(plot_roc, arms=scored, title=title), height=3.5),
        "ROC curve of every arm",
        file="roc",
    )
    note = f"ROC and reliability: {data.samples_of}, validation split. Each class against the others."
    return Section([panel], note=note, tables=[Table("", rows, more)])


def scored_classes(rows: Any, classes: Sequence[str]) -> Scored | None:
    """Return what rows of the predictions file say of each class; None unless all of them have probabilities.

    Args:
        rows: Rows with "truth" (a name, or a list of names) and "probabilities", in the order of the classes.
        classes: The K names.
    """
    index = {name: idx for idx, name in enumerate(classes)}
    scores, truth = [], []
    for row in rows:
        values, true = row.get("probabilities"), row.get("truth")
        if not isinstance(values, list) or len(values) != len(classes) or len(classes) < 2:
            return None
        names = true if isinstance(true, list) else [true]
        target = np.zeros(len(classes))
        target[[index[name] for name in names if name in index]] = 1
        scores.append([float(value) if isinstance(value, int | float) else np.nan for value in values])
        truth.append(target)
    if not scores or not np.isfinite(scores).all():
        return None
    return Scored(np.asarray(scores), np.asarray(truth))


def roc(scores: Floats, truth: Floats) -> tuple[Floats, Floats, float] | None:
    """Return the ROC curve of one class: rates of false and of true positives, and the area below it.

    Args:
        scores: `(N,)`.
        truth: `(N,)` 0 and 1.

    Returns:
        None where all or none of the images are of the class. Equal scores are one step, so that the area is
        the probability that a positive has the higher score, ties counted half.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], truth[order]
    positives = positive.sum()
    if positives in (0, len(positive)):
        return None
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    hits = np.cumsum(positive)[last]
    true_rate = np.append(0, hits / positives)
    false_rate = np.append(0, (last + 1 - hits) / (len(positive) - positives))
    return false_rate, true_rate, float(np.trapezoid(true_rate, false_rate))


def plot_roc(axes: Any, arms: Mapping[str, Scored], *, title: str) -> None:
    """Draw the mean ROC curve of the classes of every arm.

    Args:
        axes: Where it is drawn.
        arms: Arm to scores and truth.
        title: What was scored.
    """
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    for arm, scored in arms.items():
        curves = [
            curve
            for k in range(scored.scores.shape[1])
            if (curve := roc(scored.scores[:, k], scored.truth[:, k]))
        ]
        if not curves:
            continue
        style = arm_style(arm, list(arms))
        mean = np.mean([np.interp(_GRID, false, true) for false, true, _ in curves], axis=0)
        mean[0] = 0.0
        area = np.mean([area for _, _, area in curves])
        label = f"{arm}: AUROC {area:.3f}"
        axes.plot(_GRID, mean, color=style.color, linestyle=style.line, linewidth=1.8, label=label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    name_axes(
        axes,
        title,
        "mean over the classes, each against the others",
        "false positive rate",
        "true positive rate",
    )
    add_legend(axes, where="lower right")


def _areas(scored: Scored, classes: Sequence[str]) -> dict[str, float]:
    curves = {name: roc(scored.scores[:, k], scored.truth[:, k]) for k, name in enumerate(classes)}
    return {name: curve[2] for name, curve in curves.items() if curve is not None}


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else float("nan")
