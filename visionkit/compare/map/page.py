"""The page of a transfer map: `map.html`, `map.json`, `map_cost.json` and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visionkit import __version__
from visionkit.compare.map.heat_map import color_range, heat_map
from visionkit.compare.map.read_map import read_map
from visionkit.compare.map.transfer_map import MapCell, TransferMap
from visionkit.compare.report.pages import render
from visionkit.compare.report.plot_style import WIDTH, to_svg
from visionkit.compare.report.value_text import value_text
from visionkit.compare.sentences.number_text import percent
from visionkit.config import flatten
from visionkit.files import finite, new_folder, to_plain, writing
from visionkit.printable import printable_values

__all__ = ["write_map"]

SCALE = (
    "The number in a cell is the difference in points of that cell's own score: accuracy, AP and IoU have no "
    "common unit, and no number adds them up. The colour is the difference as a fraction of the better score "
    "of the two, how much of it the other arm lacks, which has no unit and only changes its sign where the "
    "arms change places. {blue} is {arm} ahead, {orange} is {baseline}; the deepest colour, in all panels, "
    "is {range}% of the better score. What chance alone would score is not taken off, so that the same "
    "colour means less on data of two classes than on data of forty. A cell with a dotted frame is one where "
    "the runs cannot tell: p, adjusted for all {count} differences of the map (Holm, 1979), is 0.05 or more. "
    "The interval is of each cell alone, over seeds and scored images where both are known."
)


def write_map(folder: str | Path) -> tuple[Path, TransferMap]:
    """Write the page of a map, and what it is made of as JSON; cells that are not finished are in it as such.

    Args:
        folder: The folder that `visionkit map` writes to.

    Returns:
        The path of `map.html`, self-contained but for its links to the reports of the cells, and the map.

    Raises:
        InputError: There is no map in the folder.
        RunError: The folder cannot be written.
    """
    folder = Path(folder)
    made = read_map(folder)
    with writing(folder), new_folder(folder) as part:
        for name, table in (("map.json", made.to_dict()), ("map_cost.json", _cost(made))):
            text = json.dumps(table, indent=1, allow_nan=False)
            (part / name).write_text(text + "\n", encoding="utf-8")
        content = _content(made, folder, part / "figures")
        (part / "map.html").write_text(
            render("map.html.j2", content, package="visionkit.compare.map"), encoding="utf-8"
        )
    return folder / "map.html", made


def _cost(made: TransferMap) -> dict[str, Any]:
    """Return what was measured: the content of `map_cost.json`."""
    table = {"schema": 1, "seconds": sum(cell["seconds"] for cell in made.cost), "cells": list(made.cost)}
    plain: dict[str, Any] = printable_values(to_plain(table, finite))
    return plain


def _content(made: TransferMap, folder: Path, figures: Path) -> dict[str, Any]:
    panels = made.panels
    arm, baseline, _ = panels[0] if panels else ("pretrained", "scratch", 1.0)
    count = sum(len(cell.gaps) for cell in made.cells)
    scale = SCALE.format(
        blue="Blue" if arm == "pretrained" else "The colour of the other arm",
        orange="orange" if baseline == "scratch" else "the second colour",
        arm=arm,
        baseline=baseline,
        range=f"{100 * color_range(made):.0f}",
        count=count,
    )
    return {
        "title": f"{len(made.backbones)} backbones on {len(made.data)} data sets",
        "version": __version__,
        "answer": made.biggest(),
        "sentences": made.sentences(),
        "figures": [_figure(made, panel, figures) for panel in panels],
        "scale": scale,
        "arms": list(dict.fromkeys(score.arm for cell in made.cells for score in cell.scores)),
        "missing": [(cell.name, cell.state) for cell in made.cells if cell.status != "finished"],
        "not_asked": [
            f"{data}, {backbone}" for data in made.data for backbone in made.backbones
            if made.cell(backbone, data) is None
        ],
        "differences": _differences(made),
        "cost": _cost_rows(made),
        "hours": sum(cell["seconds"] for cell in made.cost) / 3600,
        "equal": _equal(made),
        "reports": [_link(cell, folder) for cell in made.cells],
    }  # fmt: skip


def _figure(made: TransferMap, panel: tuple[str, str, float], figures: Path) -> dict[str, Any]:
    drawn = heat_map(made, panel)
    width = drawn.get_figwidth()
    name = f"map-{'-'.join(map(str, panel[:2]))}-{panel[2]:g}".replace("/", "-")
    svg = to_svg(drawn, figures / f"{name}.svg")
    alt = f"{panel[0]} less {panel[1]} with {percent(panel[2])} of the data, by backbone and data set"
    return {"svg": svg, "alt": alt, "broad": round(width * 96) if width > WIDTH else 0}


def _differences(made: TransferMap) -> list[list[str]]:
    """Return the table of differences: a header, then a row for each cell, arm and fraction."""
    rows = [["cell", "data", "score", "arm", "baseline", "difference", "of the better", "p (map)", "answer",
             "on test"]]  # fmt: skip
    for cell in made.cells:
        for gap in cell.gaps:
            first, second = cell.score(gap.arm, gap.fraction), cell.score(gap.baseline, gap.fraction)
            size = first.train_size if first else None
            known = gap.low is not None and gap.high is not None
            rows.append([
                cell.name,
                percent(gap.fraction) + (f", {size:,} images" if size else ""),
                str(cell.task["monitor"]),
                f"{gap.arm} {first.mean:.3f}" if first else "-",
                f"{gap.baseline} {second.mean:.3f}" if second else "-",
                f"{gap.mean:+.3f}" + (f" [{gap.low:+.3f}, {gap.high:+.3f}]" if known else ""),
                "-" if gap.relative is None else f"{100 * gap.relative:+.0f}%",
                "-" if gap.p_map is None else "< 0.001" if gap.p_map < 0.001 else f"{gap.p_map:.3f}",
                gap.answer,
                "-" if gap.test is None else f"{gap.test:+.3f}",
            ])  # fmt: skip
    return rows


def _cost_rows(made: TransferMap) -> list[list[str]]:
    """Return the table of what the runs took: a header, then a row for each cell, arm and fraction."""
    rows = [["cell", "arm", "data", "schedule", "runs", "hours", "images/s", "memory, MB"]]
    for cell in made.cost:
        for row in cell["rows"]:
            seconds = (row["seconds"] or 0.0) * row["runs"]
            rows.append([
                f"{cell['data']}, {cell['backbone']}",
                str(row["arm"]),
                percent(row["fraction"]),
                f"{row['schedule']}x",
                str(row["runs"]),
                f"{seconds / 3600:.3f}",
                _number(row["images_per_second"], 1),
                _number(row["peak_memory_mb"], 0),
            ])  # fmt: skip
    return rows


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _equal(made: TransferMap) -> list[tuple[str, str]]:
    """Return what was held equal between the arms of each cell, as the comparisons recorded it."""
    rows = []
    for cell in made.cells:
        if cell.task:
            facts = [f"{name} {value_text(value)}" for name, value in flatten(cell.task["equal"]).items()]
            facts += [f"not held equal: {text}" for text in cell.task["allowed"]]
            rows.append((cell.name, "; ".join(facts) or "nothing recorded"))
    return rows


def _link(cell: MapCell, folder: Path) -> tuple[str, str, str]:
    """Return the name of a cell, the address of its report from the page, and its progress."""
    report = f"{cell.folder}/report.html"
    return cell.name, report if (folder / report).is_file() else "", cell.progress
