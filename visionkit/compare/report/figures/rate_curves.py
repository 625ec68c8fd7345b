"""The learning rates of every arm over images seen."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.curves import Curve
from visionkit.compare.report.figures.loss_curves import shorten
from visionkit.compare.report.plot_style import add_legend, arm_style, images_axis, name_axes, new_figure
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["applies", "draw", "plot_rates", "rate_curves"]

PREFIX = "lr/"


def applies(data: ReportData) -> bool:
    """Return whether a run recorded its learning rates."""
    return any(name.startswith(PREFIX) for record in data.comparison.records for name in record.curves)


def draw(data: ReportData) -> Section:
    """Return the rates at the largest fraction."""
    comparison, fraction = data.comparison, data.comparison.fractions[-1]
    alt = "Learning rates of every arm over images seen"
    return Section([Panel(lambda: rate_curves(comparison, fraction), alt, file=f"rate-f{fraction:g}")])


def rate_curves(comparison: Comparison, fraction: float) -> Figure:
    """Draw the learning rates of the first seed of every arm.

    Args:
        comparison: The runs.
        fraction: One of `comparison.fractions`.
    """
    figure, axes = new_figure()
    plot_rates(axes, comparison, fraction)
    return figure


def plot_rates(axes: Any, comparison: Comparison, fraction: float) -> None:
    """Draw `rate_curves` on axes: of many groups of parameters the highest and the lowest rate."""
    for arm in comparison.arms:
        style = arm_style(arm, comparison.arms)
        run = next(
            (r for r in comparison.records if arm_name(r.init) == arm and r.fraction == fraction), None
        )
        rates = {} if run is None else _groups(run.curves)
        for idx, (name, curve) in enumerate(rates.items()):
            shown = shorten(curve)
            axes.plot(
                shown.images, shown.values, color=style.color, linestyle=style.line if idx == 0 else ":",
                linewidth=1.8 if idx == 0 else 1.2, label=f"{arm}, {name}",
            )  # fmt: skip
    name_axes(axes, "Learning rate", "of the first seed", "images seen", "learning rate")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    images_axis(axes)
    add_legend(axes)


def _groups(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Return the rates that differ, by their groups; of more than two the highest and the lowest."""
    named: dict[Curve, list[str]] = {}
    for name, curve in curves.items():
        if name.startswith(PREFIX) and curve.images:
            named.setdefault(curve, []).append(name.removeprefix(PREFIX))
    ordered = sorted(named, key=lambda curve: -max(curve.values))
    shown = ordered if len(ordered) <= 2 else [ordered[0], ordered[-1]]
    if len(ordered) == 1:
        return {"all": ordered[0]}
    return {", ".join(named[curve][:2]): curve for curve in shown}
