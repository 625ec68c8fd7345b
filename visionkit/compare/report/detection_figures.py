"""The charts of a detection comparison: precision over recall of each class, and AP by class."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visionkit.compare.report.class_figures import class_bars
from visionkit.compare.report.figures import INK, arm_style, name_axes, new_figure

__all__ = ["detection_figures", "precision_recall", "read_curves"]

LARGEST_FILE = 16 * 2**20
MOST = 6  # classes with a chart of their own


def read_curves(folder: str | Path) -> dict[str, Any]:
    """Return `curves` (class to 101 precisions) and `ap` (class to AP) of a run; empty where there are none.

    Args:
        folder: The run's folder.
    """
    path = Path(folder) / "predictions" / "curves.json"
    if not path.is_file() or path.stat().st_size > LARGEST_FILE:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        curves = {str(name): _numbers(values) for name, values in found["curves"].items()}
        ap = {str(name): float(value) for name, value in found["ap"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    sound = all(len(values) == 101 for values in curves.values())
    return {"curves": curves, "ap": ap} if sound and all(map(math.isfinite, ap.values())) else {}


def detection_figures(arms: Mapping[str, Mapping[str, Any]], *, data: str) -> list[tuple[str, Figure]]:
    """Return the charts by name: AP by class, then precision over recall of the classes with most to tell.

    Args:
        arms: Arm to what `read_curves` returned; arms without curves are left out.
        data: What was scored.
    """
    arms = {arm: found for arm, found in arms.items() if found}
    if not arms:
        return []
    ap = {arm: dict(found["ap"]) for arm, found in arms.items()}
    if not any(ap.values()):  # no object to find in the split
        return []
    charts = [("ap", class_bars(ap, title=f"AP by class, {data}", label="AP (IoU 0.50 to 0.95)"))]
    first = next(iter(ap.values()))
    names = sorted(first, key=lambda name: -_spread([table.get(name, 0.0) for table in ap.values()]))
    for number, name in enumerate(names[:MOST]):
        curves = {arm: found["curves"][name] for arm, found in arms.items() if name in found["curves"]}
        charts.append((f"precision-recall-{number}", precision_recall(curves, title=f"{name}, {data}")))
    return charts


def precision_recall(curves: Mapping[str, Sequence[float]], *, title: str) -> Figure:
    """Draw precision over recall at IoU 0.5, a line an arm.

    Args:
        curves: Arm to precision at recalls 0, 0.01 ... 1.
        title: What was scored.
    """
    figure, axes = new_figure(width=4.6, height=3.6)
    arms = list(curves)
    recall = np.linspace(0, 1, 101)
    for arm in arms:
        style, values = arm_style(arm, arms), np.asarray(curves[arm], dtype=float)
        known = values >= 0
        axes.plot(recall[known], values[known], color=style.color, linestyle=style.line, label=arm)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    name_axes(axes, title, "validation split, IoU 0.5", "recall", "precision")
    return figure


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)
