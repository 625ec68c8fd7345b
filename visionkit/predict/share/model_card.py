"""The model card of a run: the scores of all arms beside it, the comparison's figure, the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from visionkit.compare.comparison import Comparison, compare
from visionkit.compare.report.figures.curves.learning_curves import learning_curves
from visionkit.compare.report.plot_style import to_png
from visionkit.compare.run_record import RunRecord, read_run, runs_inside
from visionkit.compare.summary import WEIGHTS_NOTE, fraction_title, headline, summary_rows
from visionkit.errors import InputError, RunError, first_line
from visionkit.predict.loaded import Loaded
from visionkit.predict.share.timm_weights import TimmWeights
from visionkit.tasks.model_card import HUB_TASKS, cell, make_card, table
from visionkit.tasks.saved_settings import task_name

__all__ = ["card_of"]

FIGURE = "learning-curves.png"
_MAX_ROWS = 60
_TEXT_FACTS = ("attribution", "licence", "license", "source", "citation", "homepage")


def card_of(
    loaded: Loaded, *, name: str = "", timm: TimmWeights | None = None
) -> tuple[ModelCard, dict[str, bytes], tuple[str, ...]]:
    """Return the model card of a loaded task, the figures beside it by name, and what is missing from it.

    Args:
        loaded: The task. Of a run's checkpoint the card has the scores of every comparable run beside it.
        name: Of the model; made of task, backbone and data if empty.
        timm: The backbone's weights in timm's format, if there are some.
    """
    in_timm = [("In timm", f"```python\n{timm.call}\n```\n\n{cell(' '.join(timm.notes))}")] if timm else []
    record, notes = _record(loaded)
    if record is None:
        return make_card(loaded.task, name=name, facts=loaded.facts, sections=in_timm), {}, notes
    comparison = compare([record.folder], others=runs_inside(record.folder.parent))
    comparison = comparison.at(record.schedule)
    figures = {FIGURE: to_png(learning_curves(comparison, record.fraction))}
    sections = [
        ("Scores", _scores(comparison, record, loaded.checkpoint.stem)),
        ("Data", _data(comparison.data)),
        *in_timm,
    ]
    results = _results(record, loaded)
    card = make_card(loaded.task, name=name, facts=loaded.facts, results=results, sections=sections)
    return card, figures, notes


def _record(loaded: Loaded) -> tuple[RunRecord | None, tuple[str, ...]]:
    if loaded.run_folder is None:
        return None, ("The card has no scores: only a run's folder has them.",)
    try:
        return read_run(loaded.run_folder), ()
    except (RunError, InputError) as error:
        return None, (f"The card has no scores: {first_line(error)}",)


def _scores(comparison: Comparison, record: RunRecord, checkpoint: str) -> str:
    curves = f"![{cell(comparison.monitor)} of every arm over images seen]({FIGURE})"
    this = (
        f"arm {record.init if record.init in comparison.arms else Path(record.init).name}, seed {record.seed}"
    )
    weights = "the best validation" if checkpoint == "best" else "the end of training"
    rows = summary_rows(comparison, record.fraction)
    more = f"\n\n{len(rows) - _MAX_ROWS - 1} more rows are left out." if len(rows) > _MAX_ROWS + 1 else ""
    parts = [
        " ".join(cell(sentence) for sentence in headline(comparison)),
        curves,
        table(rows[: _MAX_ROWS + 1]) + more,
        f"{fraction_title(comparison, record.fraction)}; {WEIGHTS_NOTE}. The weights in this folder are of "
        f"{cell(this)}, at {weights}.",
    ]
    return "\n\n".join(parts)


def _data(data: Mapping[str, Any]) -> str:
    sizes = data.get("sizes") or {}
    facts = data.get("facts") or {}
    rows = [("data", data.get("name", ""))]
    rows += [(f"{split} images", f"{sizes[split]:,}") for split in ("train", "val", "test") if split in sizes]
    rows += [(key, facts[key]) for key in _TEXT_FACTS if isinstance(facts.get(key), str) and facts[key]]
    if not any("licen" in key for key in facts):
        rows.append(("licence of the data", "not recorded: add it here before you share the model"))
    return table([("", ""), *rows])


def _results(record: RunRecord, loaded: Loaded) -> list[EvalResult]:
    """Return the scores that are of the published weights; those of single classes are in the table alone."""
    kind = task_name(type(loaded.task))
    best = loaded.checkpoint.stem == "best"
    metrics = record.result["metrics"]
    of = {"val": "last", "test": "best"} | dict(record.result.get("metrics_of") or {})
    weights = "best" if best else "last"
    scores = {name: value for name, value in metrics.items() if of.get(name.partition("/")[0]) == weights}
    if best:
        scores |= record.best
    data = str(record.result["data"].get("name") or "data")
    made = []
    for name, value in scores.items():
        split, _, metric = name.partition("/")
        if metric and "/" not in metric and isinstance(value, int | float) and math.isfinite(value):
            made.append(
                EvalResult(
                    task_type=HUB_TASKS[kind], dataset_type=data, dataset_name=data, dataset_split=split,
                    metric_type=metric, metric_name=name, metric_value=float(value),
                )
            )  # fmt: skip
    return made
