"""The style of every chart: one colour, line, marker and hatch for each arm, figures of fixed size.

Okabe and Ito's palette; arms can be distinguished without colour too. In a page the colours follow its theme.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from visionkit.compare.comparison import Comparison
from visionkit.printable import printable

__all__ = [
    "INK",
    "MUTED",
    "PAPER",
    "TEXT",
    "WIDTH",
    "ArmStyle",
    "add_legend",
    "arm_style",
    "chart",
    "data_title",
    "images_axis",
    "name_axes",
    "new_figure",
    "style_axes",
    "to_png",
    "to_svg",
]

DPI = 150
WIDTH = 4.2
"""Inches of a figure: on a phone (368 pixels of 400) text of `TEXT` points is 10 pixels high."""
TEXT = 8.5
_HANDLE = 3.4 * TEXT  # points of a legend's line and of the space up to its label
_MARGIN = 50.0  # points of the labels left of the axes
INK = "#24292f"
MUTED = "#57606a"
RULE = "#d0d7de"
PAPER = "#fffffe"  # what is white on paper and dark on a dark page
# What matplotlib writes, and what a page needs of it.
_PAGE_FORM = (
    (r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">'),
    (r"<metadata>.*?</metadata>|<style.*?</style>", ""),
    (r"xlink:href=", "href="),
    (r' id="[a-zA-Z0-9.]+_\d+"', ""),  # of groups, which other figures of the page have too
    (r"font-family: [^;\"]*(; )?", ""),
    (r'fill="(#[0-9a-f]{6})"', r'style="fill: \1"'),  # an attribute cannot hold a colour of the page
    (r"\s*\n\s*", " "),
)
_TITLE, _NOTE = 44, 60  # letters that fit in a line


class ArmStyle(NamedTuple):
    """How an arm is drawn in every chart."""

    color: str
    line: str
    marker: str
    hatch: str


KNOWN = {"pretrained": ArmStyle("#0072b2", "-", "o", ""), "scratch": ArmStyle("#d55e00", "--", "s", "///")}
OTHERS = (
    ArmStyle("#009e73", "-.", "^", "..."),
    ArmStyle("#cc79a7", ":", "D", "xxx"),
    ArmStyle("#56b4e9", (0, (5, 1)), "v", "\\\\\\"),  # type: ignore[arg-type]
    ArmStyle("#e69f00", (0, (1, 1)), "P", "++"),  # type: ignore[arg-type]
)
# Names of the page's colours, which it sets for light and dark.
_THEME = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--page", "#000000": "--ink"}
_THEME |= {KNOWN["pretrained"].color: "--pretrained", KNOWN["scratch"].color: "--scratch"}


def arm_style(arm: str, arms: Sequence[str]) -> ArmStyle:
    """Return the style of an arm: fixed for pretrained and scratch, by order for weights files."""
    if arm in KNOWN:
        return KNOWN[arm]
    return OTHERS[[name for name in arms if name not in KNOWN].index(arm) % len(OTHERS)]


def new_figure(*, width: float = WIDTH, height: float = 3.2) -> tuple[Figure, Any]:
    """Return a figure of fixed size (inches) with one pair of axes in the style of all charts."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style_axes(axes)
    return figure, axes


def chart(plot: Callable[[Any], None], *, height: float = 3.2) -> Figure:
    """Return a figure of one chart.

    Args:
        plot: Draws on the axes that it is given.
        height: Inches.
    """
    figure, axes = new_figure(height=height)
    plot(axes)
    return figure


def style_axes(axes: Any) -> None:
    """Give axes the style of all charts."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.patch.set_alpha(0)
    axes.grid(color=RULE, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=TEXT, length=3)


def name_axes(axes: Any, title: str, note: str, x: str, y: str) -> None:
    """Set the title, a note below it and the labels of axes, in the style of all charts."""
    notes = textwrap.wrap(note, _NOTE)
    lines = textwrap.wrap(title, _TITLE) + [""] * len(notes)
    axes.set_title("\n".join(lines), loc="left", fontsize=10, color=INK, fontweight="bold")
    text = "\n".join(notes)
    axes.text(0, 1.02, text, transform=axes.transAxes, fontsize=TEXT, color=MUTED, va="bottom")
    axes.set_xlabel(x, color=INK, fontsize=TEXT)
    axes.set_ylabel(y, color=INK, fontsize=TEXT)


def images_axis(axes: Any) -> None:
    """Let an axis of images seen begin at 0, with few, readable numbers."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def to_png(figure: Figure, path: str | Path | None = None, *, dpi: int = DPI) -> bytes:
    """Return a figure as PNG bytes, the same for the same figure; write them to `path` if there is one.

    Text is never parsed as a formula: names of classes, files and data sets may hold `$`.
    """
    png = _save(figure, format="png", dpi=dpi, metadata={"Software": None})
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(png)
    return png


def to_svg(figure: Figure, path: str | Path) -> str:
    """Write a figure as an SVG file, the same for the same figure, and return it as an element for a page.

    In both text stays text. In the page it has the page's font, colours are those that the page sets for
    light and dark, and the figure is as wide as the room that the page gives it.

    Args:
        figure: The figure.
        path: The file; in a page the names of two must differ.
    """
    path = Path(path)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        svg = _save(figure, format="svg", metadata={"Date": None, "Creator": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(svg)
    text = svg.decode()
    text = text[text.index("<svg") :].replace("fill: #ffffff", "fill: none", 1)  # the page behind the figure
    for pattern, with_ in _PAGE_FORM:
        text = re.sub(pattern, with_, text, flags=re.DOTALL)
    return re.sub("|".join(_THEME), lambda match: f"var({_THEME[match[0]]})", text)


def _save(figure: Figure, **options: Any) -> bytes:
    out = io.BytesIO()
    # Tick labels are made while drawing, and follow the setting.
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for text in figure.findobj(Text):
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        # Axes that a layout made smaller may get other, wider tick labels: a second one makes room for them.
        figure.draw_without_rendering()
        figure.savefig(out, **options)
    return out.getvalue()


def data_title(comparison: Comparison) -> str:
    """Return the title of a chart: the data and its number of validation images."""
    sizes = comparison.data.get("sizes") or {}
    val = f", {sizes['val']:,} validation images" if sizes.get("val") else ""
    return f"{comparison.data.get('name', 'data')}{val}"


def add_legend(axes: Any, *, where: str = "") -> None:
    """Add the legend, if anything that was drawn has a label: inside, or below the axes.

    Below them it has two columns where these fit. A label that does not fit alone is cut in its middle, since
    a legend that is too wide would squeeze the axes.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    style = {"frameon": False, "fontsize": TEXT, "labelcolor": INK, "handlelength": 2.6}
    room = 72 * axes.figure.get_figwidth() - _MARGIN
    labels = [_fitted(" ".join(printable(label).split()), room - _HANDLE) for label in labels]
    if where:
        axes.legend(handles, labels, loc=where, **style)
        return
    columns = 2 if 2 * (_HANDLE + max(map(_text_width, labels)) + TEXT) <= room else 1
    below = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.24), "borderaxespad": 0.0}
    axes.legend(handles, labels, ncols=columns, **below, **style)


def _text_width(text: str) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT), False)[0])


def _fitted(text: str, room: float) -> str:
    length, fitted = len(text), text
    while _text_width(fitted) > room and length > 2:
        length -= 1
        fitted = f"{text[: length - length // 2]}…{text[len(text) - length // 2 :]}"
    return fitted
