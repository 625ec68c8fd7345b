"""The low-data curve: the final score of every arm over the fraction of the training data."""

from __future__ import annotations

from matplotlib.figure import Figure

from visionkit.compare.comparison import Comparison
from visionkit.compare.data_tables import Table
from visionkit.compare.report.plot_style import add_legend, arm_style, data_title, name_axes, new_figure
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section
from visionkit.compare.run_record import runs_of
from visionkit.compare.summary import low_data_rows, metric_label

__all__ = ["applies", "draw", "low_data_curve"]


def applies(data: ReportData) -> bool:
    """Return whether arms can be compared at more than one fraction."""
    return len(data.comparison.fractions) > 1 and bool(data.comparison.contrasts)


def draw(data: ReportData) -> Section:
    """Return the curve, and its values as a table."""
    comparison = data.comparison
    alt = f"{comparison.monitor} of every arm over the share of the training data"
    panel = Panel(lambda: low_data_curve(comparison), alt, file="low-data")
    return Section([panel], tables=[Table("", low_data_rows(comparison))])


def low_data_curve(comparison: Comparison) -> Figure:
    """Draw the final score of every arm over the fraction of the training data, on a logarithmic axis."""
    figure, axes = new_figure()
    for arm in comparison.arms:
        cells = [c for c in comparison.cells if c.arm == arm and comparison.monitor in c.metrics]
        style = arm_style(arm, comparison.arms)
        statistics = [cell.metrics[comparison.monitor] for cell in cells]
        percents = [100 * cell.fraction for cell in cells]
        means, bars = [s.mean for s in statistics], [s.sd or 0.0 for s in statistics]
        axes.errorbar(
            percents, means, yerr=bars, label=arm, color=style.color, linestyle=style.line,
            marker=style.marker, markersize=5, linewidth=1.8, capsize=4, elinewidth=1.2,
        )  # fmt: skip
        for cell, percent in zip(cells, percents, strict=True):
            scores = [run.score for run in runs_of(comparison.records, arm, cell.fraction)]
            axes.plot([percent] * len(scores), scores, ".", color=style.color, alpha=0.45, markersize=5)
    axes.set_xscale("log")
    axes.set_xticks([100 * fraction for fraction in comparison.fractions])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}%")
    counts = sorted({len(cell.seeds) for cell in comparison.cells} - {1})
    note = f"bars: sample sd over {'-'.join(map(str, counts))} seeds; dots: single runs"
    note = note if counts else "one run each: no bars"
    name_axes(
        axes,
        data_title(comparison),
        note,
        "share of the training data",
        metric_label(comparison, comparison.monitor),
    )
    add_legend(axes)
    return figure
