"""Embedding: neighbour sheets and the hardest pairs of each arm, ROC of pairs and recall by rank."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from visionkit.compare.report.plot_style import MUTED, add_legend, arm_style, chart, name_axes
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = [
    "draw_curves",
    "draw_pairs",
    "draw_sheets",
    "has_curves",
    "has_pairs",
    "has_sheets",
    "plot_pair_roc",
    "plot_recall",
    "read_pairs",
]

MAX_BYTES = 2**20
_LOWEST = 1e-3  # false accept rate at which the axis begins


def has_sheets(data: ReportData) -> bool:
    """Return whether a run drew its neighbour sheet."""
    return bool(_files(data, "neighbors.jpg"))


def draw_sheets(data: ReportData) -> Section:
    """Return the neighbour sheets, those of all arms one below the other."""
    note = (
        f"{data.samples_of}, validation images drawn at random, the same in every arm. On the left the "
        "image, then its nearest ones with their cosines: green of the same class, red of another."
    )
    sheets = _files(data, "neighbors.jpg").items()
    return Section(
        [Panel(path.read_bytes, "Images with their nearest neighbours", arm=arm) for arm, path in sheets],
        note=note,
    )


def has_curves(data: ReportData) -> bool:
    """Return whether a run wrote the curves of its pairs."""
    return any(read_pairs(run.folder) for run in data.runs.values())


def draw_curves(data: ReportData) -> Section:
    """Return the ROC of the pairs, and recall by rank."""
    known = {arm: read_pairs(run.folder) for arm, run in data.runs.items()}
    arms = {arm: curves for arm, curves in known.items() if curves}
    panels = [
        Panel(
            partial(chart, partial(plot_pair_roc, arms=arms, title=f"ROC of pairs, {data.name}"), height=3.5),
            "True accept rate over false accept rate of every arm",
            file="pair-roc",
        ),
        Panel(
            partial(chart, partial(plot_recall, arms=arms, title=f"Recall by rank, {data.name}"), height=3.5),
            "Recall over the number of neighbours of every arm",
            file="recall-by-rank",
        ),
    ]
    return Section(panels, note=f"{data.samples_of}, validation split.")


def has_pairs(data: ReportData) -> bool:
    """Return whether a run drew its hardest pairs."""
    return bool(_files(data, "pairs.jpg"))


def draw_pairs(data: ReportData) -> Section:
    """Return the hardest pairs of each arm."""
    note = (
        "The hardest pairs, with their cosines: on the left two of one class that are least alike, on the "
        "right two of different classes that are most."
    )
    sheets = _files(data, "pairs.jpg").items()
    return Section([Panel(path.read_bytes, "Hardest pairs", arm=arm) for arm, path in sheets], note=note)


def read_pairs(folder: str | Path) -> dict[str, Any]:
    """Return `far`, `tar` and `auc` of the pairs, and `recall` by rank, of a run; empty where there are none.

    Args:
        folder: The run's folder.
    """
    path = Path(folder) / "predictions" / "pairs.json"
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        curves: dict[str, Any] = {
            name: [float(value) for value in table.get(name, ())] for name in ("far", "tar", "recall")
        }
        curves["auc"] = float(table.get("auc", math.nan))
    except (ValueError, TypeError, AttributeError):
        return {}
    return curves if len(curves["far"]) == len(curves["tar"]) else {}


def plot_pair_roc(axes: Any, arms: Mapping[str, Mapping[str, Any]], *, title: str) -> None:
    """Draw the true accept rate over the false accept rate, on a logarithmic axis, a line for each arm.

    Args:
        axes: Where it is drawn.
        arms: Arm to what `read_pairs` returned.
        title: What was scored.
    """
    for arm, curves in arms.items():
        points = [(far, tar) for far, tar in zip(curves["far"], curves["tar"]) if far >= _LOWEST]
        if not points:
            continue
        style = arm_style(arm, list(arms))
        axes.plot(
            *zip(*points, strict=True),
            color=style.color,
            linestyle=style.line,
            linewidth=1.8,
            label=f"{arm}: AUC {curves['auc']:.3f}",
        )
    chance = [10 ** (-3 + step / 20) for step in range(61)]
    axes.plot(chance, chance, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlim(_LOWEST, 1.02)
    axes.set_ylim(0, 1.02)
    note = "pairs of one class accepted, over pairs of two classes accepted"
    name_axes(axes, title, note, "false accept rate", "true accept rate")
    add_legend(axes)


def plot_recall(axes: Any, arms: Mapping[str, Mapping[str, Any]], *, title: str) -> None:
    """Draw the fraction of images with one of their class among the first k neighbours, a line for each arm.

    Args:
        axes: Where it is drawn.
        arms: Arm to what `read_pairs` returned.
        title: What was scored.
    """
    for arm, curves in arms.items():
        style = arm_style(arm, list(arms))
        ranks = range(1, len(curves["recall"]) + 1)
        axes.plot(
            ranks, curves["recall"], color=style.color, linestyle=style.line, marker=style.marker,
            markersize=3, linewidth=1.5, label=arm,
        )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    name_axes(axes, title, "images with one of their class among the first k", "k", "recall at k")
    add_legend(axes, where="lower right")


def _files(data: ReportData, name: str) -> dict[str, Path]:
    paths = {arm: run.folder / "figures" / name for arm, run in data.runs.items()}
    return {arm: path for arm, path in paths.items() if path.is_file()}
