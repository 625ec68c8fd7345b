"""Loss over images seen: of training and of validation, where a run that only memorises is seen to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from visionkit.compare.comparison import Comparison
from visionkit.compare.curves import Curve, mean_curve
from visionkit.compare.report.plot_style import add_legend, arm_style, chart, images_axis, name_axes
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section
from visionkit.compare.run_record import runs_of

__all__ = ["applies", "curve_section", "draw", "lone_marker", "plot_loss", "shorten"]

TRAIN, VAL = "train/loss", "val/loss"
MAX_POINTS = 200


def applies(data: ReportData) -> bool:
    """Return whether runs logged a loss more than once."""
    return any(len(record.curves.get(TRAIN, Curve((), ())).images) > 1 for record in data.comparison.records)


def draw(data: ReportData) -> Section:
    """Return the losses at the largest fraction."""
    return curve_section(
        data, plot_loss, "Loss of every arm in training and validation over images seen", "loss"
    )


def curve_section(data: ReportData, plot: Callable[..., None], alt: str, name: str) -> Section:
    """Return a section of one chart, at the largest fraction.

    Args:
        data: What is reported.
        plot: Draws on axes, with the arguments `comparison` and `fraction`.
        alt: The chart in words.
        name: Begins the name of its file.
    """
    comparison, fraction = data.comparison, data.comparison.fractions[-1]
    drawn = partial(plot, comparison=comparison, fraction=fraction)
    return Section([Panel(partial(chart, drawn), alt, file=f"{name}-f{fraction:g}")])


def plot_loss(axes: Any, comparison: Comparison, fraction: float) -> None:
    """Draw the losses of every arm, mean over seeds: of validation with markers, of training thin.

    Args:
        axes: Where it is drawn.
        comparison: The runs.
        fraction: One of `comparison.fractions`.
    """
    validated = False
    for arm in comparison.arms:
        runs = runs_of(comparison.records, arm, fraction)
        style = arm_style(arm, comparison.arms)
        train = shorten(mean_curve([run.curves[TRAIN] for run in runs if TRAIN in run.curves]))
        val = mean_curve([run.curves[VAL] for run in runs if VAL in run.curves])
        if train.images:
            label = f"{arm}, training"
            axes.plot(
                train.images, train.values, color=style.color, marker=lone_marker(train),
                linewidth=0.9, alpha=0.75, label=label,
            )  # fmt: skip
        if val.images:
            validated = True
            axes.plot(
                val.images, val.values, color=style.color, linestyle=style.line, marker=style.marker,
                markersize=4, linewidth=1.8, label=f"{arm}, validation",
            )  # fmt: skip
    note = "mean over seeds; training: as it is minimised, with augmentation"
    name_axes(axes, "Loss", note if validated else f"{note}; none of validation", "images seen", "loss")
    images_axis(axes)
    add_legend(axes)


def lone_marker(curve: Curve) -> str:
    """Return the marker of a curve that is drawn as a line: one point makes none, and would not be seen.

    Args:
        curve: The points that are drawn.
    """
    return "." if len(curve.images) == 1 else ""


def shorten(curve: Curve) -> Curve:
    """Return a curve of at most 200 points, each the mean of as many neighbours."""
    if len(curve.images) <= MAX_POINTS:
        return curve
    parts = np.array_split(np.arange(len(curve.images)), MAX_POINTS)
    images, values = np.asarray(curve.images), np.asarray(curve.values)
    return Curve(
        tuple(int(images[part].mean()) for part in parts), tuple(float(values[part].mean()) for part in parts)
    )
