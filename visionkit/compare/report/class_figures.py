"""The charts that go by class: a confusion matrix, and bars that serve recall, AP and IoU alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from visionkit.compare.report.figures import INK, arm_style, name_axes, new_figure
from visionkit.errors import InputError
from visionkit.printable import printable

__all__ = ["class_bars", "confusion_matrix"]

MOST = 40


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], *, title: str, note: str = "") -> Figure:
    """Draw how often each true class was taken for each class: colour by row share, numbers are counts.

    Args:
        counts: `(K, K)` counts, rows are the truth, columns the prediction.
        classes: The K names. Above 40, names and numbers are left out.
        title: What was scored.
        note: One line below the title.
    """
    size = len(classes)
    figure, axes = new_figure(
        width=max(4.6, min(8.0, 1.8 + 0.42 * size)), height=max(4.0, min(7.4, 1.2 + 0.42 * size))
    )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape, dtype=float), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    if size <= MOST:
        font = 8.5 if size <= 15 else 6
        names = [_short(name) for name in classes]
        axes.set_xticks(range(size), names, rotation=45, ha="right", fontsize=font)
        axes.set_yticks(range(size), names, fontsize=font)
    if size <= 15:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.55 else INK
            text = f"{int(counts[row, column])}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    name_axes(axes, title, note or "numbers: images, colour: share of the row", "prediction", "truth")
    return figure


def class_bars(
    values: Mapping[str, Mapping[str, float]], *, title: str, label: str, note: str = "", most: int = MOST
) -> Figure:
    """Draw one bar a class and arm, classes sorted by the first arm's value.

    Args:
        values: Arm to class to value (recall, AP, IoU).
        title: What was scored.
        label: What the value is, for the axis.
        note: One line below the title.
        most: Classes that are shown; of more, the lowest and the highest.

    Raises:
        InputError: No class has a value.
    """
    arms = list(values)
    first = values[arms[0]]
    classes = sorted(
        dict.fromkeys(name for table in values.values() for name in table), key=lambda n: -first.get(n, 0)
    )
    if len(classes) > most:
        classes = [*classes[: most // 2], *classes[-most // 2 :]]
        note = f"{note}{'; ' if note else ''}the {most // 2} highest and the {most // 2} lowest classes"
    if not classes:
        raise InputError("Expected at least one class with a value, but there is nothing to score.")
    figure, axes = new_figure(height=max(2.4, 1.3 + 0.2 * len(classes) * (len(arms) + 0.5)))
    thick = 0.8 / len(arms)
    for position, arm in enumerate(arms):
        style = arm_style(arm, arms)
        rows = [row + (position - (len(arms) - 1) / 2) * thick for row in range(len(classes))]
        lengths = [values[arm].get(name, 0.0) for name in classes]
        look = {"color": style.color, "hatch": style.hatch, "edgecolor": "white", "linewidth": 0.5}
        axes.barh(rows, lengths, height=thick, label=arm, **look)
    axes.set_yticks(range(len(classes)), [_short(name) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="lower left", bbox_to_anchor=(1.0, 0.0))
    name_axes(axes, title, note, label, "")
    return figure


def _short(name: str, limit: int = 22) -> str:
    name = printable(name)  # labels of ticks are set again while drawing: `to_png` cannot reach them
    return name if len(name) <= limit else f"{name[: limit - 3]}..."
