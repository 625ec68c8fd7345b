"""The report of a comparison: one self-contained HTML file with its figures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from visionkit import __version__
from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.report.figure_table import FIGURES
from visionkit.compare.report.first_screen import tiles
from visionkit.compare.report.held_equal import differing_sentences, equal_sentences
from visionkit.compare.report.pages import render
from visionkit.compare.report.plot_style import WIDTH, to_svg
from visionkit.compare.report.report_data import ReportData, one_run_each
from visionkit.compare.report.sections import Panel, ReportFigure, embed
from visionkit.compare.report.value_text import value_text
from visionkit.compare.run_record import RunRecord
from visionkit.compare.sentences.evidence_text import PAIRS_NOTE, evidence_label, pair_rows
from visionkit.compare.summary import WEIGHTS_NOTE, fraction_title, headline, metric_label, summary_rows
from visionkit.config import flatten
from visionkit.errors import RunError
from visionkit.files import new_folder, writing

__all__ = ["write_report"]

MAX_IMAGE_BYTES = 8 * 2**20
"""Bytes of images in a report, as text; what is more is left out, and the report says how much."""

T = TypeVar("T")


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Write `report.html`, `comparison.json` and `figures/` of a comparison.

    Args:
        comparison: The runs.
        folder: Where to write; made if it is not there.

    Returns:
        The path of `report.html`: self-contained, without scripts, links or external fonts.

    Raises:
        RunError: A figure could not be drawn: the rest is written, and the report names the figure. Or the
            folder cannot be written: nothing is.
    """
    problems: list[str] = []
    path = Path(folder) / "report.html"
    with writing(folder), new_folder(folder) as part:
        content = _content(comparison, part / "figures", problems)
        table = json.dumps(comparison.to_dict() | {"problems": problems}, indent=1, allow_nan=False)
        (part / "comparison.json").write_text(table + "\n", encoding="utf-8")
        (part / "report.html").write_text(render("report.html.j2", content), encoding="utf-8")
    if problems:
        lines = "\n".join(f"  {text}" for text in problems)
        raise RunError(f"{path} is written, but these parts could not be drawn:\n{lines}")
    return path


def _attempt(name: str, make: Callable[[], T], problems: list[str]) -> T | None:
    """Return what `make` returns; if it fails, None, with the error in `problems`."""
    try:
        return make()
    except OSError:  # the folder cannot be written
        raise
    except Exception as error:
        problems.append(f"{name}: {type(error).__name__}: {error}")
        return None


def _sections(data: ReportData, figures: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Draw every figure that applies, each section once."""
    sections = []
    for title, rows in groupby(FIGURES, key=lambda row: row.title):
        section: dict[str, Any] = {"title": title, "legend": ()}
        section |= {name: [] for name in ("notes", "figures", "strips", "images", "tables", "lines", "cards")}
        for row in rows:
            _add_figure(section, row, data, figures, problems)
        if any(section[name] for name in ("figures", "strips", "images", "tables", "cards")):
            sections.append(section)
    return sections


def _add_figure(
    section: dict[str, Any], row: ReportFigure, data: ReportData, figures: Path, problems: list[str]
) -> None:
    drawn = _attempt(row.title, lambda: row.draw(data) if row.applies(data) else None, problems)
    if drawn is None:
        return
    for panel in drawn.panels:
        name = panel.name or row.title
        _attempt(name, lambda panel=panel: _add_panel(section, panel, figures), problems)  # type: ignore[misc]
    section["notes"] += [drawn.note] if drawn.note else []
    section["tables"] += drawn.tables
    section["lines"] += drawn.lines
    section["cards"] += drawn.cards
    section["images"] += map(embed, drawn.images)
    section["legend"] = drawn.legend or section["legend"]


def _add_panel(section: dict[str, Any], panel: Panel, figures: Path) -> None:
    drawn = panel.draw()
    if isinstance(drawn, bytes):
        section["strips"].append({"src": embed(drawn), "alt": panel.alt, "arm": panel.arm})
        return
    width = drawn.get_figwidth()
    # What is broader than a phone keeps its size there, and can be moved sideways.
    broad = round(width * 96) if width > WIDTH else 0
    svg = to_svg(drawn, figures / f"{panel.file}.svg")
    section["figures"].append({"svg": svg, "alt": panel.alt, "broad": broad})


def _limit_images(sections: list[dict[str, Any]]) -> list[str]:
    """Leave images out where all of them are more than a report may hold; return a note on it."""
    total = left_out = 0

    def fits(*sources: str) -> bool:
        nonlocal total, left_out
        size = sum(map(len, sources))
        if total + size > MAX_IMAGE_BYTES:
            left_out += len(sources)
            return False
        total += size
        return True

    for section in sections:
        section["strips"] = [image for image in section["strips"] if fits(image["src"])]
        section["images"] = [src for src in section["images"] if fits(src)]
        groups = [
            replace(g, cards=[c for c in g.cards if fits(*(panel["src"] for panel in c["panels"]))])
            for g in section["cards"]
        ]
        section["cards"] = [group for group in groups if group.cards]
    if not left_out:
        return []
    return [f"{left_out} images are left out, to keep the report below {MAX_IMAGE_BYTES >> 20} MiB of images"]


def _content(comparison: Comparison, figures: Path, problems: list[str]) -> dict[str, Any]:
    sentences = headline(comparison)
    data, longest = ReportData(comparison), comparison.at(comparison.longest)
    sections = _sections(data, figures, problems)
    limited = _limit_images(sections)
    last = comparison.records[-1].result
    facts = comparison.data.get("facts") or {}
    return {
        "title": f"{' and '.join(comparison.arms)} on {comparison.data.get('name', 'data')}",
        "task": comparison.task,
        "version": __version__,
        "answer": sentences[0].partition(": ")[0],
        "tiles": tiles(longest),
        "rest": sentences[1:],
        "tables": [
            (fraction_title(longest, f), *_split_rows(longest, summary_rows(longest, f)))
            for f in longest.fractions[::-1]
        ],
        "weights_note": WEIGHTS_NOTE,
        "pairs": pair_rows(comparison),
        "pairs_note": PAIRS_NOTE,
        "monitor": comparison.monitor,
        "monitor_row": metric_label(comparison, comparison.monitor),
        "sections": sections,
        "problems": problems,
        "equal": equal_sentences(comparison),
        "differing": differing_sentences(comparison),
        "allowed": comparison.allowed,
        "skipped": [item | {"folder": Path(item["folder"]).name} for item in comparison.skipped],
        "notes": (*comparison.notes, *data.notes, *limited),
        "notices": comparison.notices(),
        "config": _rows(last["config"]),
        "environment": _rows(last.get("env") or {}),
        "weights": [
            (arm, _rows(record.result.get("weights") or {})) for arm, record in one_run_each(longest)
        ],
        "data": _rows({k: v for k, v in comparison.data.items() if k not in ("facts", "notices")}),
        "data_facts": _rows(facts),
        "attribution": facts.get("attribution"),
        "commands": _commands(comparison),
        "runs": [_run_header(comparison), *map(_run_row, comparison.records)],
        "arms": comparison.arms,
    }


def _rows(table: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value_text(value)) for name, value in flatten(table).items()]


def _split_rows(comparison: Comparison, rows: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows that answer the question, and all others, each with the header."""
    name = comparison.monitor
    test = f"test/{name.partition('/')[2]}"
    first = {metric_label(comparison, name), f"{name} (best)", metric_label(comparison, test)}
    first |= {evidence_label(comparison, name), evidence_label(comparison, test)}
    first |= {"images to reach the other's score", "mean lead over training", "seconds of training", "seeds"}
    first |= {"folds", "stopped early"}
    return (
        [rows[0], *(row for row in rows[1:] if row[0] in first)],
        [rows[0], *(row for row in rows[1:] if row[0] not in first)],
    )


def _commands(comparison: Comparison) -> list[str]:
    commands: dict[str, None] = {}
    for record in comparison.records:
        path = record.folder / "cmd.txt"
        if path.is_file() and path.stat().st_size < 65536:
            commands.setdefault(_as_typed(path.read_text(encoding="utf-8", errors="replace").strip()))
    return [command for command in commands if command]


def _as_typed(command: str) -> str:
    """Return a command without the paths of the interpreter and of the installed `visionkit`."""
    try:
        interpreter, script, *more = shlex.split(command)
    except ValueError:  # no quotes that match, or no script
        return command
    path = Path(script)
    if path.name == "visionkit":
        return shlex.join(["visionkit", *more])
    if "_recipes" in path.parts:  # of the package, where `visionkit run` has its recipes
        name = "/".join(path.with_suffix("").parts[path.parts.index("_recipes") + 1 :])
        return shlex.join(["visionkit", "run", name, *more])
    return shlex.join([Path(interpreter).name, script, *more])


def _run_header(comparison: Comparison) -> list[str]:
    label = metric_label(comparison, comparison.monitor)
    return [
        "arm",
        "data",
        "schedule",
        "seed",
        label,
        f"{comparison.monitor} (best)",
        "images",
        "seconds",
        "folder",
    ]


def _run_row(record: RunRecord) -> list[str]:
    seconds = (record.result.get("seconds") or {}).get("fit")
    return [
        arm_name(record.init),
        f"{100 * record.fraction:.3g}%",
        f"{record.schedule}x",
        str(record.seed),
        "nothing to score" if record.unscored else f"{record.score:.4f}",
        f"{record.best[record.monitor[0]]:.4f}" if record.monitor[0] in record.best else "",
        f"{record.result['images_seen']:,}" + (" (stopped early)" if record.stopped_early else ""),
        "" if seconds is None else f"{seconds:,.0f}",
        record.folder.name,
    ]
