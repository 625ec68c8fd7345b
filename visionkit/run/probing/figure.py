"""Figures of probes: score over level, a line an amount of data, trained and random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visionkit.compare.report.plot_style import (
    DPI,
    MUTED,
    ArmStyle,
    add_legend,
    arm_style,
    name_axes,
    new_figure,
    style_axes,
    to_png,
)
from visionkit.compare.sentences.number_text import percent
from visionkit.run.probing.networks import PIXEL_LEVEL
from visionkit.run.probing.result import ProbeResult

__all__ = ["level_figure", "measured_figure"]

_AXIS = "level (input pixels per map pixel)"
_INITS = ("pretrained", "scratch")


def level_figure(result: ProbeResult, backbone: str) -> Figure:
    """Draw the top-1 of the linear classifier over the level of a backbone, of every init and fraction.

    Args:
        result: The result.
        backbone: One of its networks.
    """
    figure, axes = new_figure(height=3.6)
    inits = [init for name, init in result.arms if name == backbone]
    for init in inits:
        for index, fraction in enumerate(sorted(result.fractions)):
            cells = {
                cell.level: cell.linear
                for cell in result.cells
                if (cell.backbone, cell.init, cell.fraction) == (backbone, init, fraction)
            }
            halves = [s.seed_interval[1] - s.mean if s.seed_interval else 0.0 for s in cells.values()]
            means = [score.mean for score in cells.values()]
            _draw_line(
                axes,
                list(cells),
                means,
                halves,
                arm_style(init, inits),
                index,
                f"{init}, {percent(fraction)}",
            )
    for cell in result.cells:
        if cell.level == PIXEL_LEVEL:
            axes.axhline(cell.linear.mean, color=MUTED, linewidth=0.8, linestyle=":")
            axes.annotate(
                f"pixels, {percent(cell.fraction)}", (1, cell.linear.mean), fontsize=6.5, color=MUTED,
                xycoords=("axes fraction", "data"), ha="right", va="bottom",
            )  # fmt: skip
    note = "bars: 95% t interval over seeds" if len(result.seeds) > 1 else "one seed: no bars"
    title = f"{backbone}, {result.images:,} {result.split} images"
    name_axes(axes, title, f"{note}; dotted: pixels", _AXIS, "top-1")
    add_legend(axes)
    return figure


def measured_figure(sets: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the figure of measured probes as a PNG: a panel a data set.

    Args:
        sets: As `visionkit.run.probing.measured.measured_sets` returns them.
    """
    figure = Figure(figsize=(4 * len(sets), 3.6), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, each in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        style_axes(axes)
        probe = each["probe"]
        for index, fraction in enumerate(probe["fractions"]):
            for init in _INITS:
                cells = [c for c in probe["cells"] if (c["init"], c["fraction"]) == (init, fraction)]
                scores = [cell["linear"] for cell in cells]
                halves = [score["seed_interval"][1] - score["mean"] for score in scores]
                name = {"scratch": "random"}.get(init, init)
                label = f"{name}, {cells[0]['images'] / probe['classes']:.3g} a class"
                means = [score["mean"] for score in scores]
                levels = [cell["level"] for cell in cells]
                _draw_line(axes, levels, means, halves, arm_style(init, _INITS), index, label)
        axes.axhline(probe["largest_class"], color=MUTED, linewidth=0.8, linestyle=":")
        note = f"{each['similarity']}; dotted: the largest class"
        name_axes(axes, each["name"], note, _AXIS, f"top-1, {probe['split']}")
        axes.legend(frameon=False, fontsize=6.5, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return to_png(figure)


def _draw_line(
    axes: Any,
    levels: Sequence[str],
    means: Sequence[float],
    halves: Sequence[float],
    style: ArmStyle,
    index: int,
    label: str,
) -> None:
    """Draw one network at one amount of data; those of more data are stronger."""
    axes.errorbar(
        range(len(levels)), means, yerr=halves, color=style.color, linestyle=style.line, marker=style.marker,
        markersize=4 + index, linewidth=1 + 0.4 * index, capsize=3, elinewidth=1,
        alpha=min(1.0, 0.6 + 0.2 * index), label=label,
    )  # fmt: skip
    axes.set_xticks(range(len(levels)), levels)
