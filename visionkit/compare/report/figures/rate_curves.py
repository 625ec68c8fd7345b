"""The learning rates of every arm over images seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.curves import Curve
from visionkit.compare.report.figures.loss_curves import shorten
from visionkit.compare.report.plot_style import add_legend, arm_style, chart, images_axis, name_axes
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["applies", "draw", "plot_rates"]

PREFIX = "lr/"


def applies(data: ReportData) -> bool:
    """Return whether a run recorded its learning rates."""
    return any(name.startswith(PREFIX) for record in data.comparison.records for name in record.curves)


def draw(data: ReportData) -> Section:
    """Return the rates at the largest fraction."""
    comparison, fraction = data.comparison, data.comparison.fractions[-1]
    alt = "Learning rates of every arm over images seen"
    plot = partial(plot_rates, comparison=comparison, fraction=fraction)
    return Section([Panel(partial(chart, plot), alt, file=f"rate-f{fraction:g}")])


def plot_rates(axes: Any, comparison: Comparison, fraction: float) -> None:
    """Draw the learning rates of the first seed of every arm: of several the highest and the lowest.

    Args:
        axes: Where it is drawn.
        comparison: The runs.
        fraction: One of `comparison.fractions`.
    """
    note = "of the first seed"
    for arm in comparison.arms:
        style = arm_style(arm, comparison.arms)
        run = next(
            (r for r in comparison.records if arm_name(r.init) == arm and r.fraction == fraction), None
        )
        rates, count = ({}, 0) if run is None else _groups(run.curves)
        if count > len(rates):
            note = "of the first seed; of several rates the highest and the lowest"
        for idx, (name, curve) in enumerate(rates.items()):
            shown = shorten(curve)
            axes.plot(
                shown.images, shown.values, color=style.color, linestyle=style.line if idx == 0 else ":",
                linewidth=1.8 if idx == 0 else 1.2, label=f"{arm}, {name}",
            )  # fmt: skip
    name_axes(axes, "Learning rate", note, "images seen", "learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    images_axis(axes)
    add_legend(axes)


def _groups(curves: dict[str, Curve]) -> tuple[dict[str, Curve], int]:
    """Return the highest and the lowest rate by names of their groups, and how many rates differ."""
    named: dict[Curve, list[str]] = {}
    for name, curve in curves.items():
        if name.startswith(PREFIX) and curve.images:
            named.setdefault(curve, []).append(name.removeprefix(PREFIX))
    ordered = sorted(named, key=lambda curve: -max(curve.values))
    shown = ordered if len(ordered) <= 2 else [ordered[0], ordered[-1]]
    if len(ordered) == 1:
        return {"all": ordered[0]}, 1
    return {_names(named[curve]): curve for curve in shown}, len(ordered)


def _names(groups: Sequence[str]) -> str:
    return ", ".join(groups[:2]) + (f" and {len(groups) - 2} more" if len(groups) > 2 else "")
