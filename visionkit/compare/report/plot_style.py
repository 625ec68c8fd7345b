"""The style of every chart: one colour, line, marker and hatch for each arm, figures of fixed size.

Okabe and Ito's palette; arms can be distinguished without colour too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from visionkit.compare.comparison import Comparison
from visionkit.printable import printable

__all__ = [
    "INK",
    "ArmStyle",
    "add_legend",
    "arm_style",
    "data_title",
    "name_axes",
    "new_figure",
    "to_png",
]

DPI = 120
INK = "#24292f"
MUTED = "#57606a"
RULE = "#d0d7de"


class ArmStyle(NamedTuple):
    """How an arm is drawn in every chart."""

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
    """Return the style of an arm: fixed for pretrained and scratch, by order for weights files."""
    if arm in KNOWN:
        return KNOWN[arm]
    return OTHERS[[name for name in arms if name not in KNOWN].index(arm) % len(OTHERS)]


def new_figure(*, width: float = 7.2, height: float = 4.0) -> tuple[Figure, Any]:
    """Return a figure of fixed size (inches) with one pair of axes in the style of all charts."""
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
    """Set the title, a note below it and the labels of axes, in the style of all charts."""
    axes.set_title(f"{title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8.5, color=MUTED, va="bottom")
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)


def to_png(figure: Figure, path: str | Path | None = None) -> bytes:
    """Return a figure as PNG bytes, the same for the same figure; write them to `path` if there is one.

    Text is never parsed as a formula: names of classes, files and data sets may hold `$`.
    """
    out = io.BytesIO()
    # Tick labels are made while drawing, and follow the setting.
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


def data_title(comparison: Comparison) -> str:
    """Return the title of a chart: the data and its number of validation images."""
    sizes = comparison.data.get("sizes") or {}
    val = f", {sizes['val']:,} validation images" if sizes.get("val") else ""
    return f"{comparison.data.get('name', 'data')}{val}"


def add_legend(axes: Any) -> None:
    """Add the legend, if anything that was drawn has a label."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, handlelength=3)
