"""The report of a comparison: one self-contained HTML file with its figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from visionkit import __version__
from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.report.figure_table import FIGURES
from visionkit.compare.report.plot_style import to_png
from visionkit.compare.report.report_data import ReportData, one_run_each
from visionkit.compare.report.sections import Panel, ReportFigure, embed
from visionkit.compare.report.value_text import value_text
from visionkit.compare.run_record import RunRecord
from visionkit.compare.summary import WEIGHTS_NOTE, fraction_title, headline, metric_label, summary_rows
from visionkit.config import flatten
from visionkit.errors import RunError
from visionkit.files import new_folder, writing
from visionkit.printable import printable

__all__ = ["write_report"]

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
    from jinja2 import Environment

    problems: list[str] = []
    template = files("visionkit.compare.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    path = Path(folder) / "report.html"
    with writing(folder), new_folder(folder) as part:
        content = _content(comparison, part / "figures", problems)
        table = json.dumps(comparison.to_dict() | {"problems": problems}, indent=1, allow_nan=False)
        (part / "comparison.json").write_text(table + "\n", encoding="utf-8")
        text = printable(environment.from_string(template).render(**content))
        (part / "report.html").write_text(text, encoding="utf-8")
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
        section: dict[str, Any] = {"title": title, "notes": [], "images": [], "table": (), "cards": []}
        for row in rows:
            _add_figure(section, row, data, figures, problems)
        if section["images"] or section["cards"]:
            sections.append(section)
    return sections


def _add_figure(
    section: dict[str, Any], row: ReportFigure, data: ReportData, figures: Path, problems: list[str]
) -> None:
    drawn = _attempt(row.title, lambda: row.draw(data) if row.applies(data) else None, problems)
    if drawn is None:
        return
    for panel in drawn.panels:
        src = _attempt(panel.name or row.title, lambda panel=panel: _image(panel, figures), problems)  # type: ignore[misc]
        if src is not None:
            section["images"].append({"src": src, "alt": panel.alt, "arm": panel.arm, "large": panel.large})
    section["notes"] += [drawn.note] if drawn.note else []
    section["table"] = section["table"] or drawn.table
    section["cards"] += drawn.cards
    section["alike"] = drawn.alike


def _image(panel: Panel, figures: Path) -> str:
    drawn = panel.draw()
    return embed(drawn if isinstance(drawn, bytes) else to_png(drawn, figures / f"{panel.file}.png"))


def _content(comparison: Comparison, figures: Path, problems: list[str]) -> dict[str, Any]:
    sentences = headline(comparison)
    data = ReportData(comparison)
    last = comparison.records[-1].result
    facts = comparison.data.get("facts") or {}
    return {
        "title": f"{' and '.join(comparison.arms)} on {comparison.data.get('name', 'data')}",
        "task": comparison.task,
        "version": __version__,
        "answer": sentences[0].partition(": ")[0],
        "figures_line": sentences[0].partition(": ")[2],
        "rest": sentences[1:],
        "tables": [
            (fraction_title(comparison, f), summary_rows(comparison, f)) for f in comparison.fractions[::-1]
        ],
        "weights_note": WEIGHTS_NOTE,
        "monitor": comparison.monitor,
        "monitor_row": metric_label(comparison, comparison.monitor),
        "sections": _sections(data, figures, problems),
        "problems": problems,
        "equal": _rows(comparison.equal),
        "allowed": comparison.allowed,
        "skipped": comparison.skipped,
        "notes": (*comparison.notes, *data.notes),
        "notices": comparison.notices(),
        "config": _rows(last["config"]),
        "environment": _rows(last.get("env") or {}),
        "weights": [
            (arm, _rows(record.result.get("weights") or {})) for arm, record in one_run_each(comparison)
        ],
        "data": _rows({k: v for k, v in comparison.data.items() if k not in ("facts", "notices")}),
        "data_facts": _rows(facts),
        "attribution": facts.get("attribution"),
        "commands": _commands(comparison),
        "runs": [_run_row(record) for record in comparison.records],
        "arms": comparison.arms,
    }


def _rows(table: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value_text(value)) for name, value in flatten(table).items()]


def _commands(comparison: Comparison) -> list[str]:
    commands: dict[str, None] = {}
    for record in comparison.records:
        path = record.folder / "cmd.txt"
        if path.is_file() and path.stat().st_size < 65536:
            commands.setdefault(path.read_text(encoding="utf-8", errors="replace").strip())
    return [command for command in commands if command]


def _run_row(record: RunRecord) -> list[str]:
    seconds = (record.result.get("seconds") or {}).get("fit")
    return [
        arm_name(record.init),
        f"{100 * record.fraction:.3g}%",
        str(record.seed),
        "nothing to score" if record.unscored else f"{record.score:.4f}",
        f"{record.best[record.monitor[0]]:.4f}" if record.monitor[0] in record.best else "",
        f"{record.result['images_seen']:,}" + (" (stopped early)" if record.stopped_early else ""),
        "" if seconds is None else f"{seconds:,.0f}",
        record.folder.name,
    ]
