"""One recipe over several backbones: what each scores, how fast it trains, and what it needs."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

from matplotlib.figure import Figure

from visionkit.compare.report.plot_style import INK, arm_style, name_axes, new_figure, to_png
from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.files import write_text
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import is_first
from visionkit.run.requests import trains
from visionkit.run.storage.result import read_result
from visionkit.run.sweep.arms import run_recipe

__all__ = ["architecture_rows", "run_backbones", "write_architectures"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)
COLUMNS = (
    *("backbone", "init", "score", "best_score", "images_per_second", "peak_memory_mb", "parameters"),
    *("runs", "stopped_early"),
)


def run_backbones(
    config: ConfigT,
    backbones: Sequence[str],
    train: Callable[[ConfigT, Path], dict[str, Any]],
    *,
    paths: Sequence[str] = (),
) -> Path:
    """Run a recipe once for each backbone, each in its own folder, and write a table of all.

    Of several processes the first writes it.

    Args:
        config: The recipe's settings; only the backbone changes.
        backbones: Their names.
        train: Trains one run in a folder.
        paths: Settings that name a file or a folder, see `run_recipe`.

    Raises:
        InputError: A name comes twice, or a path does not exist.
        RunError: A run failed; the table is of what is finished.
    """
    if len(set(backbones)) < len(backbones):
        raise InputError(f"Expected each backbone once, but got {', '.join(backbones)}.")
    out = Path(config.out)
    failure: RunError | None = None
    for name in backbones:
        folder = out / re.sub(r"[^\w.-]+", "-", name)
        try:
            run_recipe(dataclasses.replace(config, backbone=name, out=str(folder)), train, paths=paths)
        except PreemptedError:
            raise
        except RunError as error:
            failure = failure or error
    if not trains():
        return out
    if is_first() and (failure is None or architecture_rows(out)):
        write_architectures(out)
    if failure is not None:
        raise failure
    return out


def architecture_rows(folder: str | Path) -> list[dict[str, Any]]:
    """Return a row for each backbone and init below a folder, means over seeds, the best score first.

    Of runs of different length those of the longest schedule count.

    Args:
        folder: Where runs lie, at any depth below it.

    Returns:
        "score" is the monitored metric of the last weights, "best_score" that of the best validation,
        "stopped_early" counts the runs that ended before their planned length.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path in sorted(Path(folder).rglob("result.json")):
        result = read_result(path.parent)
        if result is not None and result["fraction"] == 1.0:
            groups.setdefault((result["config"]["backbone"], result["init"]), []).append(result)
    rows = []
    for (backbone, init), every in groups.items():
        longest = max(result.get("schedule", 1) for result in every)
        results = [result for result in every if result.get("schedule", 1) == longest]
        given = [r["metrics"].get(r["monitor"][0]) for r in results]
        scores = [float(value) for value in given if value is not None] or [math.nan]
        row = {
            "backbone": backbone,
            "init": init,
            "score": mean(scores),
            "best_score": mean(_best_score(result) for result in results),
            "images_per_second": mean(r["images_per_second"] for r in results),
            "peak_memory_mb": max(r["peak_memory_mb"] for r in results),
            "parameters": results[0]["parameters"]["total"],
            "runs": len(results),
            "stopped_early": sum(bool(result.get("stopped_early")) for result in results),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: math.inf if math.isnan(row["score"]) else -row["score"])


def _best_score(result: Mapping[str, Any]) -> float:
    value = (result.get("best") or {}).get("value")
    return math.nan if value is None else float(value)


def write_architectures(folder: str | Path) -> Path:
    """Write `architectures.csv`, `architectures.md` and `figures/architectures.png`; return the Markdown.

    Args:
        folder: Where runs lie, at any depth below it.

    Raises:
        InputError: There is no finished run.
    """
    folder = Path(folder)
    rows = architecture_rows(folder)
    if not rows:
        raise InputError(f"Expected finished runs below {folder}, but there are none.")
    with (folder / "architectures.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        "| backbone | init | val (last) | val (best) | images/s | peak memory, MB | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = (
            f"{row['score']:.3f} | {row['best_score']:.3f} | {row['images_per_second']:.2f} | "
            f"{row['peak_memory_mb']:,.0f} | {row['parameters'] / 1e6:.1f} M"
        )
        early = f" ({row['stopped_early']} of {row['runs']} stopped early)" if row["stopped_early"] else ""
        lines.append(f"| {row['backbone']} | {row['init']}{early} | {numbers} |")
    path = folder / "architectures.md"
    write_text(path, "\n".join(lines) + "\n")
    to_png(_scatter(rows), folder / "figures" / "architectures.png")
    return path


def _scatter(rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = new_figure(width=7.2, height=4.0)
    arms = list(dict.fromkeys(row["init"] for row in rows))
    largest = max(row["parameters"] for row in rows)
    for arm in arms:
        mine = [row for row in rows if row["init"] == arm]
        speed, score = [row["images_per_second"] for row in mine], [row["score"] for row in mine]
        area = [40 + 260 * row["parameters"] / largest for row in mine]
        style = arm_style(arm, arms)
        axes.scatter(speed, score, s=area, color=style.color, marker=style.marker, alpha=0.7, label=arm)
        for row in mine:
            name = row["backbone"].rpartition("/")[2]
            point = (row["images_per_second"], row["score"])
            axes.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=8, color=INK)
    axes.margins(0.2)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    name_axes(
        axes, "Score and speed of each backbone", "area: parameters", "images a second", "score, val (last)"
    )
    return figure
