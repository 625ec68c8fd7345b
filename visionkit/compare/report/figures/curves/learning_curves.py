"""Learning curves: the monitored metric of every arm over images seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visionkit.compare.comparison import Cell, Comparison
from visionkit.compare.curves import Curve
from visionkit.compare.report.plot_style import (
    add_legend,
    arm_style,
    chart,
    data_title,
    images_axis,
    name_axes,
)
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section
from visionkit.compare.run_record import runs_of

__all__ = ["applies", "draw", "learning_curves", "plot_learning"]

MAX_FRACTIONS = 6


def applies(data: ReportData) -> bool:
    """Return True: every comparison has learning curves."""
    return True


def draw(data: ReportData) -> Section:
    """Return a chart for each fraction, the largest fraction first and largest."""
    comparison = data.comparison
    fractions = comparison.fractions[-MAX_FRACTIONS:][::-1]
    panels = [
        Panel(
            lambda fraction=fraction: learning_curves(comparison, fraction),  # type: ignore[misc]
            f"{comparison.monitor} of every arm over images seen",
            file=f"learning-f{fraction:g}",
            name=f"learning curves of {fraction:g}",
        )
        for fraction in fractions
    ]
    return Section(panels)


def learning_curves(comparison: Comparison, fraction: float) -> Figure:
    """Draw the monitored metric of every arm over images seen: mean, band over seeds, thin single runs.

    Args:
        comparison: The runs.
        fraction: One of `comparison.fractions`.
    """
    return chart(partial(plot_learning, comparison=comparison, fraction=fraction))


def plot_learning(axes: Any, comparison: Comparison, fraction: float) -> None:
    """Draw `learning_curves` on axes; a run that ended early has a cross at its end."""
    cells = [cell for cell in comparison.cells if cell.fraction == fraction and cell.curve.images]
    for cell in cells:
        style = arm_style(cell.arm, comparison.arms)
        if 1 < len(cell.runs) < 5:
            for run in cell.runs:
                axes.plot(run.images, run.values, color=style.color, linewidth=0.7, alpha=0.5)
        band = _band(cell.runs, cell.curve)
        if band is not None:
            axes.fill_between(cell.curve.images, *band, color=style.color, alpha=0.16, linewidth=0)
        ended = _stopped(comparison, cell)
        label = f"{cell.arm} (n = {len(cell.seeds)}{', stopped early' if ended else ''})"
        for run in ended:
            axes.plot(run.images[-1:], run.values[-1:], "X", color=style.color, markersize=9)
        axes.plot(
            cell.curve.images, cell.curve.values, label=label, color=style.color, linestyle=style.line,
            marker=style.marker, markersize=4, linewidth=1.8,
        )  # fmt: skip
    title = f"{data_title(comparison)}, {100 * fraction:.3g}% of the training data"
    name_axes(axes, title, _band_name(cells), "images seen", comparison.monitor)
    images_axis(axes)
    add_legend(axes)


def _stopped(comparison: Comparison, cell: Cell) -> list[Curve]:
    """Return the curves of the seeds of a cell that ended before their planned length."""
    early = {r.seed for r in runs_of(comparison.records, cell.arm, cell.fraction) if r.stopped_early}
    return [run for seed, run in zip(cell.seeds, cell.runs, strict=True) if seed in early and run.images]


def _band(runs: Sequence[Curve], mean: Curve) -> tuple[np.ndarray, np.ndarray] | None:
    known = [run for run in runs if run.images]
    if len(known) < 2:
        return None
    values = np.stack([run.at(mean.images) for run in known])
    if len(known) == 2:
        return values.min(axis=0), values.max(axis=0)
    sd = values.std(axis=0, ddof=1)
    return np.asarray(mean.values) - sd, np.asarray(mean.values) + sd


def _band_name(cells: Sequence[Cell]) -> str:
    counts = {len(cell.runs) for cell in cells}
    if counts <= {0, 1}:
        return "one run an arm: no band"
    thin = ", thin: single runs" if min(counts) < 5 else ""
    band = "min to max of 2 seeds" if counts <= {1, 2} else "± sample sd over seeds"
    if 2 in counts and max(counts) > 2:
        band += " (min to max where n = 2)"
    return f"line: mean, band: {band}{thin}"
