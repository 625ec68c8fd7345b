"""The report of a comparison: one HTML file with everything in it, for people who were not there."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from visionkit import __version__
from visionkit.compare.comparison import Comparison, arm_name
from visionkit.compare.report.class_figures import class_bars, confusion_matrix
from visionkit.compare.report.class_scores import class_scores
from visionkit.compare.report.detection_figures import detection_figures, read_curves
from visionkit.compare.report.figures import gap_bars, learning_curves, low_data_curve, to_png
from visionkit.compare.report.predictions import confusion, read_predictions, thumbnail
from visionkit.compare.run_record import Record
from visionkit.compare.summary import (
    OF_WEIGHTS,
    fraction_title,
    headline,
    metric_label,
    share_rows,
    summary_rows,
)
from visionkit.config import flatten
from visionkit.errors import RunError
from visionkit.files import write_text
from visionkit.printable import printable

__all__ = ["write_report"]

WORST = 8
MOST_FRACTIONS = 6
MOST_CLASSES = 60
NOTHING = "(nothing)"
T = TypeVar("T")


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Write `report.html`, `comparison.json` and `figures/` of a comparison.

    Args:
        comparison: The runs side by side.
        folder: Where to write; made if it is not there.

    Returns:
        The path of `report.html`: self-contained, without scripts, links or fonts from elsewhere.

    Raises:
        RunError: A part could not be drawn. Everything is written all the same; the report names the part.
    """
    from jinja2 import Environment

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = _Parts()
    content = _content(comparison, folder / "figures", parts)
    table = json.dumps(comparison.to_dict() | {"problems": parts.problems}, indent=1, allow_nan=False)
    write_text(folder / "comparison.json", table + "\n")
    template = files("visionkit.compare.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    path = folder / "report.html"
    write_text(path, printable(environment.from_string(template).render(**content)))
    if parts.problems:
        lines = "\n".join(f"  {text}" for text in parts.problems)
        raise RunError(f"{path} is written, but these parts could not be drawn:\n{lines}")
    return path


class _Parts:
    """Makes the parts of a report; one that fails is named and left out, and loses no other."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def of(self, name: str, make: Callable[[], T]) -> T | None:
        """Return what `make` makes, or None where it fails."""
        try:
            return make()
        except Exception as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}")
            return None


def _content(comparison: Comparison, figures: Path, parts: _Parts) -> dict[str, Any]:
    shown = comparison.fractions[-MOST_FRACTIONS:][::-1]
    samples = _SampleRuns(comparison)
    sentences = headline(comparison)
    name = str(comparison.data.get("name", "data"))
    curves = [
        parts.of(
            f"learning curves of {f:g}",
            lambda f=f: _image(learning_curves(comparison, f), figures / f"learning-f{f:g}.png"),  # type: ignore[misc]
        )
        for f in shown
    ]
    low, gap = (lambda: low_data_curve(comparison)), (lambda: gap_bars(comparison))
    content = {
        "title": f"{' and '.join(comparison.arms)} on {name}",
        "task": comparison.task,
        "version": __version__,
        "answer": sentences[0].partition(": ")[0],
        "figures_line": sentences[0].partition(": ")[2],
        "rest": sentences[1:],
        "tables": [
            (fraction_title(comparison, f), summary_rows(comparison, f)) for f in comparison.fractions[::-1]
        ],
        "of_weights": OF_WEIGHTS,
        "shares": share_rows(comparison),
        "monitor": comparison.monitor,
        "monitor_row": metric_label(comparison, comparison.monitor),
        "curves": [curve for curve in curves if curve],
        "low_data": parts.of("low-data curve", lambda: _image(low(), figures / "low-data.png"))
        if len(comparison.fractions) > 1 and comparison.contrasts
        else "",
        "gaps": parts.of("gaps", lambda: _image(gap(), figures / "gaps.png")) if comparison.contrasts else "",
        "worst": parts.of("sample predictions", samples.worst) or [],
        "by_class": parts.of("scores by class", lambda: samples.by_class(figures)) or [],
        "confusion_of": samples.confusion_of,
        "looks": parts.of("attention", samples.looks) or [],
        "samples_of": samples.said,
        "equal": _rows(comparison.equal),
        "allowed": comparison.allowed,
        "skipped": comparison.skipped,
        "notes": comparison.notes,
        "notices": comparison.notices(),
        "config": _rows(comparison.records[-1].result["config"]),
        "environment": _rows(comparison.records[-1].result.get("env") or {}),
        "weights": [
            (arm, _rows(record.result.get("weights") or {})) for arm, record in _one_each(comparison)
        ],
        "data": _rows({k: v for k, v in comparison.data.items() if k not in ("facts", "notices")}),
        "data_facts": _rows(comparison.data.get("facts") or {}),
        "attribution": (comparison.data.get("facts") or {}).get("attribution"),
        "commands": _commands(comparison),
        "runs": [_run_row(record) for record in comparison.records],
        "arms": comparison.arms,
    }
    return content | {"problems": parts.problems}


class _SampleRuns:
    """One run of each arm, at the largest fraction that all arms have: where sample predictions come from."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.runs = {arm: record for arm, record in _one_each(comparison) if record.result.get("predictions")}
        self.rows = {
            arm: {
                str(row["id"]): row for row in read_predictions(record.folder, record.result["predictions"])
            }
            for arm, record in self.runs.items()
        }
        first = next(iter(self.runs.values()), None)
        self.confusion_of = ""
        self.said = (
            "" if first is None else f"seed {first.seed}, {100 * first.fraction:.3g}% of the training data"
        )

    def worst(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Return the worst images of each arm, with what every arm said of them."""
        sections = []
        for arm, rows in self.rows.items():
            ranked = sorted(rows.values(), key=lambda row: -_finite(row.get("loss")))
            cards: list[dict[str, Any]] = []
            for row in ranked:
                image = self._image(str(row["id"]), arm)
                if image is not None:
                    cards.append({"src": image, "id": row["id"], "truth": _answer(row.get("truth")),
                                  "wide": row.get("panels") in (2, 3, 4),
                                  "answers": self._answers(str(row["id"]))})  # fmt: skip
                if len(cards) == WORST:
                    break
            if cards:
                sections.append((arm, cards))
        return sections

    def by_class(self, figures: Path) -> list[str]:
        """Return confusions and recalls by class, or precision over recall and AP, as images."""
        data = str(self.comparison.data.get("name", "data"))
        curves = {arm: read_curves(record.folder) for arm, record in self.runs.items()}
        detected = detection_figures(curves, data=data)
        if detected:
            return [_image(figure, figures / f"{name}.png") for name, figure in detected]
        classes = [str(name) for name in self.comparison.data.get("classes") or ()]
        if not 1 < len(classes) <= MOST_CLASSES:
            return self._scores(figures)
        images, recalls = [], {}
        for arm, rows in self.rows.items():
            counts = confusion(list(rows.values()), classes)
            if counts is None:
                continue
            title = f"{arm}, {self.comparison.data.get('name', 'data')}, n = {int(counts.sum()):,}"
            path = figures / f"confusion-{printable(Path(arm).stem)}.png"
            images.append(_image(confusion_matrix(counts, classes, title=title), path))
            totals = counts.sum(axis=1)
            recalls[arm] = {c: float(counts[i, i] / totals[i]) for i, c in enumerate(classes) if totals[i]}
        if recalls:
            self.confusion_of = self.said
            title = f"Recall by class, {self.comparison.data.get('name', 'data')}"
            images.append(_image(class_bars(recalls, title=title, label="recall"), figures / "recall.png"))
        return [*images, *self._scores(figures)]

    def _scores(self, figures: Path) -> list[str]:
        """Return the IoU of each class in every arm as an image, where the runs give it."""
        found = class_scores(self.comparison)
        if found is None:
            return []
        title = f"{found.label} by class, {found.split} split, {self.comparison.data.get('name', 'data')}"
        note = "" if found.seeds == 1 else f"mean of {found.seeds} seeds"
        figure = class_bars(found.values, title=title, label=found.label, note=note)
        return [_image(figure, figures / f"{found.label.lower()}.png")]

    def looks(self) -> list[tuple[str, str]]:
        """Return where each arm looked, word by word, where its run drew that."""
        found = {arm: record.folder / "figures" / "attention.png" for arm, record in self.runs.items()}
        return [(arm, _embed(path.read_bytes())) for arm, path in found.items() if path.is_file()]

    def _image(self, name: str, first: str) -> str | None:
        """Return the image of a row, the one that `first` drew if it drew one."""
        for arm, rows in sorted(self.rows.items(), key=lambda item: item[0] != first):
            found = thumbnail(self.runs[arm].folder, rows[name]) if name in rows else None
            if found is not None:
                return _embed(found)
        return None

    def _answers(self, name: str) -> list[dict[str, Any]]:
        found = []
        for arm, rows in self.rows.items():
            row = rows.get(name)
            if row is not None:
                said = row.get("said")  # an answer that is more or less right brings its own words
                right = row.get("right", None if said else row.get("prediction") == row.get("truth"))
                if isinstance(right, list):  # of each box: the image is right if all are found
                    right = row.get("loss") == 0
                found.append({"arm": arm, "said": said or _answer(row.get("prediction")), "right": right,
                              "sure": _percent(row.get("confidence"))})  # fmt: skip
        return found


def _one_each(comparison: Comparison) -> list[tuple[str, Record]]:
    found = []
    for arm in comparison.arms:
        mine = [record for record in comparison.records if arm_name(record.init) == arm]
        largest = max(record.fraction for record in mine)
        found.append((arm, next(record for record in mine if record.fraction == largest)))
    return found


def _image(figure: Figure, path: Path) -> str:
    return _embed(to_png(figure, path))


def _embed(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _rows(table: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, _say(value)) for name, value in flatten(table).items()]


def _say(value: Any, limit: int = 400) -> str:
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        value = ", ".join(_say(item) for item in value)
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text):,} characters)"


def _answer(value: Any) -> str:
    """Return an answer in words: an empty caption is one, and says nothing."""
    if isinstance(value, list) and "" in value:
        value = [item if item != "" else NOTHING for item in value]
    return NOTHING if value == "" else _say(value)


def _percent(value: Any) -> str:
    return f"{100 * value:.0f}%" if isinstance(value, int | float) and math.isfinite(value) else ""


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else -math.inf


def _commands(comparison: Comparison) -> list[str]:
    found: dict[str, None] = {}
    for record in comparison.records:
        path = record.folder / "cmd.txt"
        if path.is_file() and path.stat().st_size < 65536:
            found.setdefault(path.read_text(encoding="utf-8", errors="replace").strip())
    return [command for command in found if command]


def _run_row(record: Record) -> list[str]:
    seconds = (record.result.get("seconds") or {}).get("fit")
    return [
        arm_name(record.init),
        f"{100 * record.fraction:.3g}%",
        str(record.seed),
        "nothing to score" if record.unscored else f"{record.score:.4f}",
        f"{record.result['images_seen']:,}",
        "" if seconds is None else f"{seconds:,.0f}",
        record.folder.name,
    ]
