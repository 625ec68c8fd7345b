"""Classification: whether a probability can be believed, as accuracy over confidence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from visionkit.compare.report.figures.roc import Floats, applies, scored_classes
from visionkit.compare.report.plot_style import MUTED, add_legend, arm_style, chart, name_axes
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["Bins", "applies", "confidence_bins", "draw", "plot_reliability"]

Bins = tuple[Floats, Floats, Floats]
NUM_BINS = 15  # as in the calibration error that runs log


def draw(data: ReportData) -> Section:
    """Return the diagram."""
    arms = {
        arm: bins for arm, rows in data.rows.items() if (bins := confidence_bins(rows.values(), data.classes))
    }
    title = f"Reliability, {data.name}"
    panel = Panel(
        partial(chart, partial(plot_reliability, arms=arms, title=title), height=3.5),
        "Accuracy over confidence of every arm",
        file="reliability",
    )
    return Section([panel])


def confidence_bins(rows: Any, classes: list[str]) -> Bins | None:
    """Return the images, the mean confidence and the accuracy of 15 bins of confidence, `(15,)` each.

    The confidence is the highest probability of an image; where an image has several classes, every
    probability is one of that class.

    Args:
        rows: Rows of the predictions file.
        classes: The K names.
    """
    rows = list(rows)
    scored = scored_classes(rows, classes)
    if scored is None:
        return None
    if any(isinstance(row.get("truth"), list) for row in rows):
        confidence, right = scored.scores.ravel(), scored.truth.ravel()
    else:
        top = scored.scores.argmax(axis=1)
        picked = np.arange(len(top)), top
        confidence, right = scored.scores[picked], scored.truth[picked]
    index = np.clip(np.ceil(confidence * NUM_BINS).astype(int), 1, NUM_BINS) - 1
    counts = np.bincount(index, minlength=NUM_BINS).astype(float)
    known = np.maximum(counts, 1)
    return (
        counts,
        np.bincount(index, weights=confidence, minlength=NUM_BINS) / known,
        np.bincount(index, weights=right, minlength=NUM_BINS) / known,
    )


def plot_reliability(axes: Any, arms: Mapping[str, Bins], *, title: str) -> None:
    """Draw accuracy over confidence of every arm; the size of a point is its fraction of the images.

    Args:
        axes: Where it is drawn.
        arms: Arm to what `confidence_bins` returned.
        title: What was scored.
    """
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    for arm, (counts, confidence, accuracy) in arms.items():
        style, there = arm_style(arm, list(arms)), counts > 0
        weight = counts / counts.sum()
        error = float((weight * np.abs(accuracy - confidence)).sum())
        axes.plot(
            confidence[there], accuracy[there], color=style.color, linestyle=style.line, linewidth=1.4,
            label=f"{arm}: calibration error {error:.3f}",
        )  # fmt: skip
        axes.scatter(
            confidence[there], accuracy[there], s=8 + 160 * weight[there], color=style.color,
            marker=style.marker, alpha=0.8, linewidths=0,
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    note = "below the line: surer than right; large points: many images"
    name_axes(axes, title, note, "confidence", "accuracy")
    add_legend(axes, where="upper left")
