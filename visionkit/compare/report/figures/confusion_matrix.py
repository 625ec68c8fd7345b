"""Confusion matrices of each arm, and recall by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from visionkit.compare.report.figures.class_bars import MAX_CLASSES, class_bars, short_name
from visionkit.compare.report.plot_style import INK, KNOWN, TEXT, WIDTH, arm_style, name_axes, new_figure
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section
from visionkit.printable import printable

__all__ = ["applies", "confusion", "confusion_matrix", "draw"]

MAX_SIZE = 60
BLUE = KNOWN["pretrained"].color


def applies(data: ReportData) -> bool:
    """Return whether the classes are few enough for a matrix; detections have curves instead."""
    return 1 < len(data.classes) <= MAX_SIZE and not data.curves


def draw(data: ReportData) -> Section:
    """Return the matrix of each arm whose predictions are single classes, then recall by class."""
    classes, panels, recalls = data.classes, [], {}
    for arm, rows in data.rows.items():
        counts = confusion(list(rows.values()), classes)
        if counts is None:
            continue
        title = f"{arm}, {data.name}, n = {int(counts.sum()):,}"
        panels.append(
            Panel(
                lambda counts=counts, title=title, arm=arm: confusion_matrix(  # type: ignore[misc]
                    counts, classes, title=title, color=arm_style(arm, list(data.rows)).color
                ),
                f"Confusion matrix of {arm}",
                file=f"confusion-{printable(Path(arm).stem)}",
            )
        )
        totals = counts.sum(axis=1)
        recalls[arm] = {name: float(counts[i, i] / totals[i]) for i, name in enumerate(classes) if totals[i]}
    if not recalls:
        return Section()
    title = f"Recall by class, {data.name}"
    bars = Panel(
        lambda: class_bars(recalls, title=title, label="recall"),
        "Scores by class",
        file="recall",
    )
    return Section([*panels, bars], note=f"Confusion and recall: {data.samples_of}, validation split.")


def confusion(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> np.ndarray | None:
    """Return the confusion matrix of predictions of one class an image.

    Args:
        rows: Rows with "truth" and "prediction", each the name of one class.
        classes: The K names.

    Returns:
        `(K, K)` int64, rows are the truth; None if no row has one class.
    """
    index = {name: idx for idx, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for row in rows:
        truth, prediction = row.get("truth"), row.get("prediction")
        if isinstance(truth, str) and isinstance(prediction, str) and truth in index and prediction in index:
            counts[index[truth], index[prediction]] += 1
    return counts if counts.any() else None


def confusion_matrix(
    counts: np.ndarray, classes: Sequence[str], *, title: str, note: str = "", color: str = BLUE
) -> Figure:
    """Draw a confusion matrix: numbers are counts, colours the fraction of the row.

    Args:
        counts: `(K, K)` counts, rows are the truth, columns the prediction.
        classes: The K names. Above 40, names and numbers are left out.
        title: What was scored.
        note: One line below the title.
        color: Of a cell that holds all of its row.
    """
    size = len(classes)
    figure, axes = new_figure(
        width=max(WIDTH, min(8.0, 1.8 + 0.42 * size)), height=max(3.5, min(7.4, 1.2 + 0.42 * size))
    )
    totals = counts.sum(axis=1, keepdims=True)
    fractions = np.divide(counts, totals, out=np.zeros(counts.shape, dtype=float), where=totals > 0)
    # The colour is laid over the page, light or dark.
    shaded = np.concatenate(
        [np.broadcast_to(to_rgb(color), (*fractions.shape, 3)), fractions[..., None]], axis=2
    )
    axes.imshow(shaded, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    if size <= MAX_CLASSES:
        font = TEXT if size <= 15 else 6
        names = [short_name(name) for name in classes]
        axes.set_xticks(range(size), names, rotation=45, ha="right", fontsize=font)
        axes.set_yticks(range(size), names, fontsize=font)
    if size <= 15:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if fractions[row, column] > 0.55 else INK
            text = f"{int(counts[row, column])}"
            axes.text(column, row, text, ha="center", va="center", fontsize=TEXT, color=ink)
    name_axes(axes, title, note or "numbers: images, colour: share of the row", "prediction", "truth")
    return figure
