"""The heat map of a transfer map: one panel for each fraction of the data, all on one scale of colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from visionkit.compare.map.transfer_map import Gap, MapCell, TransferMap
from visionkit.compare.report.plot_style import INK, MUTED, TEXT, WIDTH, arm_style, name_axes, new_figure
from visionkit.compare.sentences.number_text import percent
from visionkit.printable import printable

__all__ = ["color_range", "heat_map"]

STEPS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
DEEPEST = 0.55
"""Opacity of the deepest colour: text over it stays legible on a light and on a dark page."""
SMALL = 7.6
COLUMNS = 4  # as many fit a phone


def color_range(whole: TransferMap) -> float:
    """Return the relative gap that has the deepest colour: the largest of the map, rounded up to a step."""
    gaps = [abs(gap.relative) for cell in whole.cells for gap in cell.gaps if gap.relative is not None]
    return next(step for step in STEPS if step >= min(max(gaps, default=0.0), 1.0))


def heat_map(whole: TransferMap, panel: tuple[str, str, float]) -> Figure:
    """Draw the differences of an arm to the baseline: rows are backbones, columns data sets.

    The number is the difference in points of the cell's own score; the colour its fraction of the better
    score, in the colour of the arm that is ahead, at one scale for all panels of the map.

    Args:
        whole: The map.
        panel: Arm, baseline and fraction.
    """
    arm, baseline, fraction = panel
    rows, columns = whole.backbones, whole.data
    width = max(WIDTH, WIDTH + 0.75 * (len(columns) - COLUMNS))
    figure, axes = new_figure(width=width, height=0.6 + 0.56 * (len(rows) + 1.4))
    deepest = color_range(whole)
    for y, backbone in enumerate(rows):
        for x, data in enumerate(columns):
            cell = whole.cell(backbone, data)
            _draw_cell(axes, (x, y), cell, cell.gap(*panel) if cell else None, panel, deepest)
    for x, data in enumerate(columns):
        name = _column_name(whole, data)
        axes.text(x, len(rows) - 0.45, name, fontsize=TEXT, color=MUTED, ha="center", va="top")
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) + 0.9, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), [_row_name(name, rows) for name in rows], fontsize=TEXT)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _draw_scale(axes, panel, deepest, len(columns), len(rows))
    title = f"{arm} - {baseline}, {percent(fraction)} of the data"
    name_axes(axes, title, "in points of each score, with its 95% interval", "", "")
    return figure


def _draw_cell(
    axes: Any,
    at: tuple[int, int],
    cell: MapCell | None,
    gap: Gap | None,
    panel: tuple[str, str, float],
    deepest: float,
) -> None:
    x, y = at
    box: dict[str, Any] = {"xy": (x - 0.48, y - 0.46), "width": 0.96, "height": 0.92, "linewidth": 0.8}
    style: dict[str, Any] = {"ha": "center", "va": "center"}
    if gap is None:
        axes.add_patch(Rectangle(**box, facecolor="none", edgecolor=MUTED, linestyle=":"))
        axes.text(x, y, _missing(cell, panel[2]), fontsize=SMALL, color=MUTED, **style)
        return
    color = arm_style(gap.ahead or panel[0], [gap.ahead or panel[0]]).color
    depth = DEEPEST * min(1.0, abs(gap.relative or 0.0) / deepest)
    axes.add_patch(Rectangle(**box, facecolor=color, alpha=depth, edgecolor="none"))
    axes.add_patch(Rectangle(**box, facecolor="none", edgecolor=MUTED, linestyle="-" if gap.shown else ":"))
    lines = [] if gap.low is None or gap.high is None else [f"{_short(gap.low)} to {_short(gap.high)}"]
    lines += [] if gap.shown else [gap.answer]
    lines += [f"{cell.finished} of {cell.planned} runs"] if cell and cell.status != "finished" else []
    weight = "bold" if gap.shown else "normal"
    top = 0.2 if lines else 0.0
    axes.text(x, y - top, f"{gap.mean:+.3f}", fontsize=TEXT, color=INK, fontweight=weight, **style)
    axes.text(x, y + 0.16, "\n".join(lines), fontsize=SMALL, color=INK, linespacing=1.05, **style)


def _draw_scale(axes: Any, panel: tuple[str, str, float], deepest: float, columns: int, rows: int) -> None:
    """Draw the scale of colour below the cells: from the baseline ahead to the arm ahead."""
    arm, baseline, _ = panel
    center, width, top = (columns - 1) / 2, 0.09 * columns, rows + 0.3
    for step in range(-4, 5):
        color = arm_style(arm if step > 0 else baseline, [arm, baseline]).color
        box = Rectangle(
            (center + (step - 0.5) * width, top), width, 0.16, facecolor=color, edgecolor="none",
            alpha=DEEPEST * abs(step) / 4,
        )  # fmt: skip
        axes.add_patch(box)
    end = f"ahead {100 * deepest:.0f}%"
    style: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "va": "top"}
    axes.text(center - 4.5 * width, top + 0.2, f"{baseline} {end}", ha="left", **style)
    axes.text(center + 4.5 * width, top + 0.2, f"{arm} {end}", ha="right", **style)


def _short(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _missing(cell: MapCell | None, fraction: float) -> str:
    if cell is None or fraction not in cell.fractions:
        return "not asked"
    if cell.status == "finished":
        return "no score"
    count = f"\n{cell.finished} of {cell.planned} runs" if cell.finished else ""
    return f"{cell.status}{count}"


def _row_name(name: str, names: Sequence[str]) -> str:
    short = name.rpartition("/")[2]
    twice = sum(other.rpartition("/")[2] == short for other in names) > 1
    words = textwrap.wrap((name if twice else short).replace("_", "_ "), 14)
    return printable("\n".join(words).replace("_ ", "_"))


def _column_name(whole: TransferMap, data: str) -> str:
    tasks = [cell.task for cell in whole.cells if cell.data == data and cell.task]
    score = tasks[0]["monitor"].partition("/")[2] if tasks else ""
    return printable("\n".join(textwrap.wrap(data, 12)) + f"\n{score}")
