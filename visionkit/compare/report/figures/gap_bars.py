"""Bars of the final difference of every arm to the baseline."""

from __future__ import annotations

from matplotlib.figure import Figure

from visionkit.compare.comparison import Comparison
from visionkit.compare.report.plot_style import INK, PAPER, TEXT, arm_style, data_title, name_axes, new_figure
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section
from visionkit.compare.summary import metric_label
from visionkit.printable import printable

__all__ = ["applies", "draw", "gap_bars"]


def applies(data: ReportData) -> bool:
    """Return whether there is more to see than one number: an interval, or several differences."""
    gaps = [contrast.metrics[data.comparison.monitor] for contrast in data.comparison.contrasts]
    return len(gaps) > 1 or any(gap.low is not None for gap in gaps)


def draw(data: ReportData) -> Section:
    """Return the bars."""
    alt = "Final difference of every arm to the baseline"
    return Section([Panel(lambda: gap_bars(data.comparison), alt, file="gaps")])


def gap_bars(comparison: Comparison) -> Figure:
    """Draw the final gap of every arm to the baseline at each fraction, with its 95% interval."""
    figure, axes = new_figure(height=max(1.9, 1.2 + 0.4 * len(comparison.contrasts)))
    for row, contrast in enumerate(comparison.contrasts):
        gap, style = contrast.metrics[comparison.monitor], arm_style(contrast.arm, comparison.arms)
        axes.barh(
            row, gap.mean, height=0.55, color=style.color, alpha=0.85, hatch=style.hatch, edgecolor=PAPER
        )
        if gap.low is not None and gap.high is not None:
            reach = [[gap.mean - gap.low], [gap.high - gap.mean]]
            axes.errorbar(gap.mean, row, xerr=reach, color=INK, capsize=4, linewidth=1.2)
        end = max(gap.mean, gap.high or gap.mean, 0.0)
        axes.annotate(
            f"{gap.mean:+.3f}",
            (end, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=TEXT,
        )
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.15)
    axes.set_yticks(range(len(comparison.contrasts)))
    axes.set_yticklabels([printable(f"{c.arm}, {100 * c.fraction:.3g}%") for c in comparison.contrasts])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    unknown = sum(c.metrics[comparison.monitor].low is None for c in comparison.contrasts)
    note = "whiskers: 95% interval of the difference" + (
        "; none where an arm has one seed" if unknown else ""
    )
    if unknown == len(comparison.contrasts):
        note = "one seed an arm: no interval"
    what = f"{metric_label(comparison, comparison.monitor)}, arm less {comparison.arms[-1]}"
    name_axes(axes, data_title(comparison), note, what, "")
    return figure
