"""Score over the length of training: every arm at the end of each schedule, a chart a fraction."""

from __future__ import annotations

from functools import partial
from typing import Any

from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.data_tables import Table
from visionkit.compare.report.plot_style import MUTED, add_legend, arm_style, chart, data_title, name_axes
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section
from visionkit.compare.sentences.number_text import percent
from visionkit.compare.sentences.schedule_text import schedule_rows
from visionkit.compare.summary import metric_label

__all__ = ["applies", "draw", "plot_schedules"]


def applies(data: ReportData) -> bool:
    """Return whether runs have more than one schedule."""
    return len(data.whole.schedules) > 1


def draw(data: ReportData) -> Section:
    """Return a chart and a table for each fraction, the largest fraction first."""
    comparison = data.whole
    panels = [
        Panel(
            partial(chart, partial(plot_schedules, comparison=comparison, fraction=fraction)),
            f"{comparison.monitor} of every arm at the end of each schedule, over images seen",
            file=f"schedules-f{fraction:g}",
            name=f"schedules of {fraction:g}",
        )
        for fraction in comparison.fractions[::-1]
    ]
    tables = [
        Table(
            f"{row.arm} and {row.baseline}, {percent(row.fraction)} of the data",
            schedule_rows(comparison, row),
        )
        for row in reversed(comparison.over_schedules)
    ]
    note = (
        "Each schedule is a training of its own, with its own warm-up and decay. Equal: the 90% interval of "
        "the paired difference lies within the margin (two one-sided tests at 5%). Differs: see the verdict."
    )
    return Section(panels, note=note, tables=tables)


def plot_schedules(axes: Any, comparison: Comparison, fraction: float) -> None:
    """Draw the score of every arm at the end of each schedule over images seen, on a logarithmic axis.

    Args:
        axes: Where to draw.
        comparison: The runs.
        fraction: One of `comparison.fractions`.
    """
    seen: dict[int, float] = {}
    for arm in comparison.arms:
        style = arm_style(arm, comparison.arms)
        cells = [
            cell
            for cell in comparison.cells
            if (cell.arm, cell.fraction) == (arm, fraction) and comparison.monitor in cell.metrics
        ]
        images, means, bars = [], [], []
        for cell in cells:
            runs = [
                run
                for run in comparison.records
                if (arm_name(run.init), run.fraction, run.schedule) == (arm, fraction, cell.schedule)
            ]
            counts = [float(run.result["images_seen"]) for run in runs]
            images.append(sum(counts) / len(counts))
            seen[cell.schedule] = images[-1]
            means.append(cell.metrics[comparison.monitor].mean)
            bars.append(cell.metrics[comparison.monitor].sd or 0.0)
            axes.plot(counts, [run.score for run in runs], ".", color=style.color, alpha=0.45, markersize=5)
        axes.errorbar(
            images, means, yerr=bars, label=arm, color=style.color, linestyle=style.line,
            marker=style.marker, markersize=5, linewidth=1.8, capsize=4, elinewidth=1.2,
        )  # fmt: skip
    targets = [
        row.catch_up.target for row in comparison.over_schedules if row.fraction == fraction and row.catch_up
    ]
    for target in targets:
        axes.axhline(target, color=MUTED, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(list(seen.values()), [f"{each:,.0f}" for each in seen.values()])
    axes.set_xticks([], minor=True)
    counts_of_seeds = sorted({len(cell.seeds) for cell in comparison.cells} - {1})
    bars_text = f"bars: sample sd over {'-'.join(map(str, counts_of_seeds))} seeds; dots: single runs"
    note = bars_text if counts_of_seeds else "one run each: no bars"
    note += f"; dotted: {comparison.arms[0]} at its shortest" if targets else ""
    title = f"{data_title(comparison)}, {percent(fraction)} of the training data"
    label = metric_label(comparison, comparison.monitor)
    lengths = ", ".join(f"{schedule}x" for schedule in sorted(seen))
    name_axes(axes, title, note, f"images seen at the end of each schedule ({lengths})", label)
    add_legend(axes)
