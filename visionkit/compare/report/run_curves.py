"""The curves of one run as one image in its folder: those of the report, of this run alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visionkit.compare.comparison import compare
from visionkit.compare.report.figures import reliability, roc
from visionkit.compare.report.figures.curves import learning_curves, loss_curves, rate_curves
from visionkit.compare.report.figures.precision_recall import plot_precision_recall
from visionkit.compare.report.plot_style import style_axes, to_png
from visionkit.compare.report.report_data import ReportData

__all__ = ["draw_run_curves"]

MAX_CLASSES = 3  # precision over recall of the commonest


def draw_run_curves(folder: str | Path) -> Path:
    """Write `figures/curves.png` of a finished run: score, loss and rate, and what its predictions give.

    Args:
        folder: The run's folder.
    """
    plots = _plots(ReportData(compare([folder])))
    columns = min(3, len(plots))
    rows = math.ceil(len(plots) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows), facecolor="white")
    FigureCanvasAgg(figure)
    # Fixed margins (inches): a layout that fits itself would take as long as the drawing.
    margins = {"left": 0.75 / figure.get_figwidth(), "right": 1 - 0.15 / figure.get_figwidth()}
    margins |= {"bottom": 0.95 / figure.get_figheight(), "top": 1 - 0.65 / figure.get_figheight()}
    figure.subplots_adjust(**margins, wspace=0.28, hspace=0.95)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, plot in zip(grid, plots, strict=False):
        style_axes(axes)
        plot(axes)
    for axes in grid[len(plots) :]:
        axes.set_visible(False)
    path = Path(folder) / "figures" / "curves.png"
    to_png(figure, path, dpi=100)
    return path


def _plots(data: ReportData) -> list[Callable[[Any], None]]:
    comparison, fraction = data.comparison, data.comparison.fractions[-1]
    plots: list[Callable[[Any], None]] = []
    for applies, plot in (
        (learning_curves.applies, learning_curves.plot_learning),
        (loss_curves.applies, loss_curves.plot_loss),
        (rate_curves.applies, rate_curves.plot_rates),
    ):
        if applies(data):
            plots.append(partial(plot, comparison=comparison, fraction=fraction))
    rows = {arm: list(table.values()) for arm, table in data.rows.items()}
    known = {arm: roc.scored_classes(of_arm, data.classes) for arm, of_arm in rows.items()}
    scored = {arm: each for arm, each in known.items() if each is not None}
    if scored:
        bins = {arm: b for arm in scored if (b := reliability.confidence_bins(rows[arm], data.classes))}
        plots.append(partial(roc.plot_roc, arms=scored, title="ROC"))
        plots.append(partial(reliability.plot_reliability, arms=bins, title="Reliability"))
    for arm, table in data.curves.items():
        for name in list(table["curves"])[:MAX_CLASSES]:
            curve = {arm: table["curves"][name]}
            plots.append(partial(plot_precision_recall, curves=curve, title=f"{name}: precision and recall"))
    return plots
