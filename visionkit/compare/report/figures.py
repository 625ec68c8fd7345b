"""The charts of a comparison: learning curves, the low-data curve, the gaps. Headless, deterministic.

One colour, line and marker an arm everywhere (Okabe and Ito's palette): they stay apart without colour too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from visionkit.compare.comparison import Cell, Comparison, arm_name
from visionkit.compare.curves import Curve
from visionkit.printable import printable

__all__ = [
    "ArmStyle",
    "arm_style",
    "gap_bars",
    "learning_curves",
    "low_data_curve",
    "name_axes",
    "new_figure",
    "to_png",
]

DPI = 120
INK, MUTED, RULE = "#24292f", "#57606a", "#d0d7de"


class ArmStyle(NamedTuple):
    """How an arm looks in every chart."""

    color: str
    line: str
    marker: str
    hatch: str


KNOWN = {"pretrained": ArmStyle("#0072B2", "-", "o", ""), "scratch": ArmStyle("#D55E00", "--", "s", "///")}
OTHERS = (
    ArmStyle("#009E73", "-.", "^", "..."),
    ArmStyle("#CC79A7", ":", "D", "xxx"),
    ArmStyle("#56B4E9", (0, (5, 1)), "v", "\\\\\\"),  # type: ignore[arg-type]
    ArmStyle("#E69F00", (0, (1, 1)), "P", "++"),  # type: ignore[arg-type]
)


def arm_style(arm: str, arms: Sequence[str]) -> ArmStyle:
    """Return the look of an arm: fixed for pretrained and scratch, by position for weights files."""
    if arm in KNOWN:
        return KNOWN[arm]
    return OTHERS[[name for name in arms if name not in KNOWN].index(arm) % len(OTHERS)]


def learning_curves(comparison: Comparison, fraction: float) -> Figure:
    """Draw the monitored metric of every arm over images seen: mean, band over seeds, thin single runs.

    Args:
        comparison: The runs side by side.
        fraction: One of `comparison.fractions`.
    """
    figure, axes = new_figure()
    cells = [cell for cell in comparison.cells if cell.fraction == fraction and cell.curve.images]
    for cell in cells:
        style = arm_style(cell.arm, comparison.arms)
        if 1 < len(cell.runs) < 5:
            for run in cell.runs:
                axes.plot(run.images, run.values, color=style.color, linewidth=0.7, alpha=0.5)
        band = _band(cell.runs, cell.curve)
        if band is not None:
            axes.fill_between(cell.curve.images, *band, color=style.color, alpha=0.16, linewidth=0)
        label = f"{cell.arm} (n = {len(cell.seeds)})"
        axes.plot(
            cell.curve.images, cell.curve.values, label=label, color=style.color, linestyle=style.line,
            marker=style.marker, markersize=5, linewidth=2,
        )  # fmt: skip
    title = f"{_where(comparison)}, {100 * fraction:.3g}% of the training data"
    name_axes(axes, title, _band_name(cells), "images seen", comparison.monitor)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(left=0)
    _legend(axes)
    return figure


def low_data_curve(comparison: Comparison) -> Figure:
    """Draw the final score of every arm over the share of the training data, on a logarithmic axis."""
    figure, axes = new_figure()
    for arm in comparison.arms:
        cells = [c for c in comparison.cells if c.arm == arm and comparison.monitor in c.metrics]
        style = arm_style(arm, comparison.arms)
        spreads = [cell.metrics[comparison.monitor] for cell in cells]
        shares = [100 * cell.fraction for cell in cells]
        means, bars = [s.mean for s in spreads], [s.sd or 0.0 for s in spreads]
        axes.errorbar(
            shares, means, yerr=bars, label=arm, color=style.color, linestyle=style.line, marker=style.marker,
            markersize=6, linewidth=2, capsize=4, elinewidth=1.2,
        )  # fmt: skip
        for cell, share in zip(cells, shares, strict=True):
            finals = [
                r.score for r in comparison.records if r.fraction == cell.fraction and arm_name(r.init) == arm
            ]
            axes.plot([share] * len(finals), finals, ".", color=style.color, alpha=0.45, markersize=5)
    axes.set_xscale("log")
    axes.set_xticks([100 * fraction for fraction in comparison.fractions])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}%")
    counts = sorted({len(cell.seeds) for cell in comparison.cells})
    note = f"bars: sample sd over {'-'.join(map(str, counts))} seeds; dots: single runs"
    name_axes(axes, _where(comparison), note, "share of the training data", comparison.monitor)
    _legend(axes)
    return figure


def gap_bars(comparison: Comparison) -> Figure:
    """Draw the final gap of every arm to the baseline at each fraction, with its 95% interval."""
    figure, axes = new_figure(height=max(2.2, 1.3 + 0.55 * len(comparison.contrasts)))
    for row, contrast in enumerate(comparison.contrasts):
        gap, style = contrast.metrics[comparison.monitor], arm_style(contrast.arm, comparison.arms)
        axes.barh(
            row, gap.mean, height=0.55, color=style.color, alpha=0.85, hatch=style.hatch, edgecolor="white"
        )
        if gap.low is not None and gap.high is not None:
            reach = [[gap.mean - gap.low], [gap.high - gap.mean]]
            axes.errorbar(gap.mean, row, xerr=reach, color=INK, capsize=4, linewidth=1.2)
        end = max(gap.mean, gap.high or gap.mean, 0.0)
        axes.annotate(
            f"{gap.mean:+.3f}", (end, row), xytext=(6, 0), textcoords="offset points", va="center", color=INK
        )
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.15)
    axes.set_yticks(range(len(comparison.contrasts)))
    axes.set_yticklabels([printable(f"{c.arm}, {100 * c.fraction:.3g}%") for c in comparison.contrasts])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    note = "whiskers: 95% interval of the difference"
    what = f"{comparison.monitor}, arm less {comparison.arms[-1]}"
    name_axes(axes, _where(comparison), note, what, "")
    return figure


def new_figure(*, width: float = 7.2, height: float = 4.0) -> tuple[Figure, Any]:
    """Return a figure of fixed size (inches) with one pair of axes in the house style."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.grid(color=RULE, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9, length=3)
    return figure, axes


def name_axes(axes: Any, title: str, note: str, x: str, y: str) -> None:
    """Give axes their title, a line on what is drawn, and their labels, in the house style."""
    axes.set_title(f"{title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8.5, color=MUTED, va="bottom")
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)


def to_png(figure: Figure, path: str | Path | None = None) -> bytes:
    """Return a figure as PNG bytes, the same for the same figure; write them to `path` if there is one.

    All text is drawn as it stands: names of classes, files and data sets may hold `$`, which is no formula.
    """
    out = io.BytesIO()
    # Text that is made while drawing (the labels of ticks) goes by the setting.
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for text in figure.findobj(Text):
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(out.getvalue())
    return out.getvalue()


def _band(runs: Sequence[Curve], mean: Curve) -> tuple[np.ndarray, np.ndarray] | None:
    known = [run for run in runs if run.images]
    if len(known) < 2:
        return None
    values = np.stack([run.at(mean.images) for run in known])
    if len(known) == 2:
        return values.min(axis=0), values.max(axis=0)
    sd = values.std(axis=0, ddof=1)
    return np.asarray(mean.values) - sd, np.asarray(mean.values) + sd


def _band_name(cells: Sequence[Cell]) -> str:
    counts = {len(cell.runs) for cell in cells}
    if counts <= {0, 1}:
        return "one run an arm: no band"
    thin = ", thin: single runs" if min(counts) < 5 else ""
    band = "min to max of 2 seeds" if counts <= {1, 2} else "± sample sd over seeds"
    if 2 in counts and max(counts) > 2:
        band += " (min to max where n = 2)"
    return f"line: mean, band: {band}{thin}"


def _where(comparison: Comparison) -> str:
    sizes = comparison.data.get("sizes") or {}
    val = f", {sizes['val']:,} validation images" if sizes.get("val") else ""
    return f"{comparison.data.get('name', 'data')}{val}"


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, handlelength=3)
