"""One recipe over several backbones: a comparison for each, and a table of score, speed and memory."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visionkit.errors import InputError
from visionkit.run.arms import run_recipe
from visionkit.run.config import RunConfig
from visionkit.run.record import Record, find_runs, read_record

__all__ = ["backbone_rows", "run_backbones"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def run_backbones(
    config: ConfigT, backbones: Sequence[str], train: Callable[[ConfigT, Path], dict[str, Any]]
) -> Path:
    """Run the recipe once for each backbone, in a folder of its own.

    The same command continues where it stopped, as with one backbone. Written besides: `backbones.json`, and
    the table on standard output.

    Args:
        config: The recipe's settings; `out` must be set.
        backbones: Their names, at least one.
        train: Trains one run in a folder.

    Returns:
        The folder that holds everything.

    Raises:
        InputError: A backbone is named twice, or as `run_recipe`.
    """
    twice = sorted({name for name in backbones if list(backbones).count(name) > 1})
    if twice:
        raise InputError(f"Expected each backbone once, but got {', '.join(twice)} more than once.")
    out = Path(config.out)
    rows: list[dict[str, Any]] = []
    for name in backbones:
        folder = out / name.replace("/", "-")
        run_recipe(dataclasses.replace(config, backbone=name, out=str(folder)), train)
        rows += backbone_rows(name, [read_record(run) for run in find_runs([folder])])
    (out / "backbones.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(_table(rows))
    return out


def backbone_rows(name: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each arm of a backbone: its score, parameters, images a second and peak memory.

    Args:
        name: The backbone.
        records: Its finished runs; those of one arm are averaged at the largest fraction.
    """
    rows = []
    for init in dict.fromkeys(record.init for record in records):
        mine = [record for record in records if record.init == init]
        mine = [record for record in mine if record.fraction == max(r.fraction for r in mine)]
        first = mine[0].result
        rows.append({
            "backbone": name,
            "init": init,
            "metric": first["monitor"][0],
            "score": _mean([record.score for record in mine]),
            "seeds": len(mine),
            "parameters": (first.get("parameters") or {}).get("total"),
            "images_per_second": _mean([record.result.get("images_per_second") or 0.0 for record in mine]),
            "peak_memory_mb": _mean([record.result.get("peak_memory_mb") or 0.0 for record in mine]),
        })  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    metric = rows[0]["metric"]
    lines = [f"\n{'backbone':34}{'init':12}{metric:>12}{'parameters':>13}{'images/s':>10}{'MB':>8}"]
    for row in sorted(rows, key=lambda row: -row["score"]):
        millions = "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f} M"
        lines.append(
            f"{row['backbone'][:33]:34}{Path(row['init']).name[:11]:12}{row['score']:>12.4f}{millions:>13}"
            f"{row['images_per_second']:>10.1f}{row['peak_memory_mb']:>8.0f}"
        )
    return "\n".join(lines) + "\n"
