"""The learning rates of every arm: over images seen, and those that were tried, with the best."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from visionkit.compare.comparison import Comparison
from visionkit.compare.curves import Curve
from visionkit.compare.data_tables import Table
from visionkit.compare.report.figures.curves.loss_curves import curve_section, lone_marker, shorten
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
from visionkit.compare.sentences.number_text import percent

__all__ = ["applies", "draw", "draw_choices", "has_choices", "plot_choices", "plot_rates"]

PREFIX = "lr/"


def applies(data: ReportData) -> bool:
    """Return whether a run recorded its learning rates."""
    return any(name.startswith(PREFIX) for record in data.comparison.records for name in record.curves)


def draw(data: ReportData) -> Section:
    """Return the rates at the largest fraction."""
    return curve_section(data, plot_rates, "Learning rates of every arm over images seen", "rate")


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
        runs = runs_of(comparison.records, arm, fraction)
        rates, count = _groups(runs[0].curves) if runs else ({}, 0)
        if count > len(rates):
            note = "of the first seed; of several rates the highest and the lowest"
        for idx, (name, curve) in enumerate(rates.items()):
            shown = shorten(curve)
            axes.plot(
                shown.images, shown.values, color=style.color, linestyle=style.line if idx == 0 else ":",
                linewidth=1.8 if idx == 0 else 1.2, label=f"{arm}, {name}", marker=lone_marker(shown),
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


def has_choices(data: ReportData) -> bool:
    """Return whether arms chose their rates."""
    return bool(data.whole.rates)


def draw_choices(data: ReportData) -> Section:
    """Return a chart and a table for each fraction, and what is to be tried where the best is at an end."""
    comparison = data.whole
    fractions = sorted({choice.fraction for choice in comparison.rates}, reverse=True)
    panels = [
        Panel(
            partial(chart, partial(plot_choices, comparison=comparison, fraction=fraction)),
            f"{comparison.monitor} of every arm by learning rate",
            file=f"rates-f{fraction:g}",
            name=f"rates of {fraction:g}",
        )
        for fraction in fractions
    ]
    first = comparison.rates[0]
    note = (
        f"Every rate was tried for each arm with seed {first.seed} at schedule {first.schedule}x. All runs "
        "of an arm have its best on validation at the end of training; the test split took no part."
    )
    tables = [
        Table(f"{percent(fraction)} of the data", _rows(comparison, fraction)) for fraction in fractions
    ]
    lines = [choice.warning for choice in comparison.rates if choice.warning]
    return Section(panels, note=note, tables=tables, lines=lines)


def plot_choices(axes: Any, comparison: Comparison, fraction: float) -> None:
    """Draw the score of every arm over the learning rate; the best has a ring.

    Args:
        axes: Where to draw.
        comparison: The runs.
        fraction: Fraction of the training data.
    """
    choices = [choice for choice in comparison.rates if choice.fraction == fraction]
    arms = [*comparison.arms, *(c.arm for c in choices if c.arm not in comparison.arms)]
    for choice in choices:
        style = arm_style(choice.arm, arms)
        known = [(rate.lr, rate.score) for rate in choice.rates if rate.score is not None]
        rates, scores = [lr for lr, _ in known], [score for _, score in known]
        axes.plot(
            rates, scores, label=choice.arm, color=style.color, linestyle=style.line, marker=style.marker,
            markersize=5, linewidth=1.8,
        )  # fmt: skip
        best = [(lr, score) for lr, score in known if lr == choice.lr]
        axes.plot(
            [lr for lr, _ in best], [score for _, score in best], "o", markersize=12, fillstyle="none",
            color=style.color,
        )  # fmt: skip
    tried = sorted({rate.lr for choice in choices for rate in choice.rates})
    axes.set_xscale("log")
    axes.set_xticks(tried, [f"{lr:g}" for lr in tried])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12, y=0.18)
    title = f"{data_title(comparison)}, {percent(fraction)} of the training data"
    name_axes(axes, title, "ring: the best, which the arm is trained at", "learning rate", comparison.monitor)
    add_legend(axes)


def _rows(comparison: Comparison, fraction: float) -> list[list[str]]:
    choices = [choice for choice in comparison.rates if choice.fraction == fraction]
    rows = [["learning rate", *(choice.arm for choice in choices)]]
    for lr in sorted({rate.lr for choice in choices for rate in choice.rates}):
        cells = []
        for choice in choices:
            rate = next((rate for rate in choice.rates if rate.lr == lr), None)
            text = "-" if rate is None else rate.reason if rate.score is None else f"{rate.score:.4f}"
            cells.append(f"{text} (best)" if lr == choice.lr else text)
        rows.append([f"{lr:g}", *cells])
    return rows
