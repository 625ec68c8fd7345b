"""Bars by class, for recall, AP and IoU."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from visionkit.compare.report.plot_style import INK, PAPER, TEXT, arm_style, name_axes, new_figure
from visionkit.errors import InputError
from visionkit.printable import printable

__all__ = ["MAX_CLASSES", "class_bars", "short_name"]

MAX_CLASSES = 40


def class_bars(
    values: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    label: str,
    note: str = "",
    max_classes: int = MAX_CLASSES,
) -> Figure:
    """Draw a bar for each class and arm, classes sorted by the first arm's value.

    Args:
        values: Arm to class to value (recall, AP, IoU).
        title: What was scored.
        label: What the value is, for the axis.
        note: One line below the title.
        max_classes: Classes that are drawn; of more, the highest and the lowest.

    Raises:
        InputError: No class has a value.
    """
    arms = list(values)
    first = values[arms[0]]
    classes = sorted(
        dict.fromkeys(name for table in values.values() for name in table), key=lambda n: -first.get(n, 0)
    )
    if len(classes) > max_classes:
        half = max_classes // 2
        classes = [*classes[:half], *classes[-half:]]
        note = f"{note}{'; ' if note else ''}the {half} highest and the {half} lowest classes"
    if not classes:
        raise InputError("Expected at least one class with a value, but there is nothing to score.")
    figure, axes = new_figure(height=max(2.2, 1.2 + 0.14 * len(classes) * (len(arms) + 0.4)))
    bar_height = 0.8 / len(arms)
    for idx, arm in enumerate(arms):
        style = arm_style(arm, arms)
        rows = [row + (idx - (len(arms) - 1) / 2) * bar_height for row in range(len(classes))]
        lengths = [values[arm].get(name, 0.0) for name in classes]
        bar = {"color": style.color, "hatch": style.hatch, "edgecolor": PAPER, "linewidth": 0.5}
        axes.barh(rows, lengths, height=bar_height, label=arm, **bar)
    axes.set_yticks(range(len(classes)), [short_name(name) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    name_axes(axes, title, note, label, "")
    if len(arms) > 1:  # below the axis: bars may be anywhere
        figure.legend(frameon=False, fontsize=TEXT, labelcolor=INK, loc="outside lower left", ncols=len(arms))
    return figure


def short_name(name: str, limit: int = 22) -> str:
    """Return a name for a tick, cut to `limit` characters."""
    name = printable(name)  # tick labels are set again while drawing, after `to_png` went over the texts
    return name if len(name) <= limit else f"{name[: limit - 3]}..."
