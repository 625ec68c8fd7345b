"""Detection: AP by class, and precision over recall of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.plot_style import add_legend, arm_style, name_axes, new_figure
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["applies", "detection_figures", "draw", "plot_precision_recall", "precision_recall"]

MAX_CURVES = 6  # classes with a chart of their own
NOTE = "validation split, IoU 0.5"


def applies(data: ReportData) -> bool:
    """Return whether runs wrote precision-recall curves."""
    return bool(data.curves)


def draw(data: ReportData) -> Section:
    """Return AP by class, then the curves of the classes whose AP differs most between arms."""
    charts = detection_figures(data.curves, data=data.name)
    panels = [
        Panel(lambda figure=figure: figure, "Scores by class", file=name)  # type: ignore[misc]
        for name, figure in charts
    ]
    return Section(panels)


def detection_figures(
    arms: Mapping[str, Mapping[str, Any]], *, data: str, note: str = NOTE
) -> list[tuple[str, Figure]]:
    """Return charts by name: AP by class, then precision over recall of the classes whose AP differs most.

    Args:
        arms: Arm to what `read_curves` returned; arms without curves are left out.
        data: What was scored.
        note: One line below the titles of the curves.
    """
    arms = {arm: table for arm, table in arms.items() if table}
    if not arms:
        return []
    ap = {arm: dict(table["ap"]) for arm, table in arms.items()}
    if not any(ap.values()):  # the split has no objects
        return []
    charts = [("ap", class_bars(ap, title=f"AP by class, {data}", label="AP (IoU 0.50 to 0.95)"))]
    first = next(iter(ap.values()))
    names = sorted(first, key=lambda name: -_range([values.get(name, 0.0) for values in ap.values()]))
    for idx, name in enumerate(names[:MAX_CURVES]):
        curves = {arm: table["curves"][name] for arm, table in arms.items() if name in table["curves"]}
        charts.append(
            (f"precision-recall-{idx}", precision_recall(curves, title=f"{name}, {data}", note=note))
        )
    return charts


def precision_recall(curves: Mapping[str, Sequence[float]], *, title: str, note: str = NOTE) -> Figure:
    """Draw precision over recall at IoU 0.5, a line for each arm.

    Args:
        curves: Arm to precision at recalls 0, 0.01 ... 1.
        title: What was scored.
        note: One line below the title.
    """
    figure, axes = new_figure()
    plot_precision_recall(axes, curves, title=title, note=note)
    return figure


def plot_precision_recall(
    axes: Any, curves: Mapping[str, Sequence[float]], *, title: str, note: str = NOTE
) -> None:
    """Draw `precision_recall` on axes."""
    arms = list(curves)
    recall = np.linspace(0, 1, 101)
    for arm in arms:
        style, values = arm_style(arm, arms), np.asarray(curves[arm], dtype=float)
        known = values >= 0
        axes.plot(
            recall[known], values[known], color=style.color, linestyle=style.line, linewidth=1.8, label=arm
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    name_axes(axes, title, note, "recall", "precision")
    add_legend(axes, where="lower left")


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)
