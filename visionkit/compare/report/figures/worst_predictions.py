"""Sample predictions: the validation images with the highest loss, with what every arm predicted."""

from __future__ import annotations

import math
from typing import Any

from visionkit.compare.report.predictions import thumbnail
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Section, embed
from visionkit.compare.report.value_text import value_text

__all__ = ["applies", "draw"]

MAX_CARDS = 8
NOTHING = "(nothing)"


def applies(data: ReportData) -> bool:
    """Return whether a run wrote predictions that can be read."""
    return any(data.rows.values())


def draw(data: ReportData) -> Section:
    """Return the worst images of each arm, each with the predictions of all arms."""
    groups = []
    for arm, rows in data.rows.items():
        cards: list[dict[str, Any]] = []
        for row in sorted(rows.values(), key=lambda row: -_loss(row)):
            image = _image(data, str(row["id"]), arm)
            if image is not None:
                cards.append(_card(data, row, image))
            if len(cards) == MAX_CARDS:
                break
        if cards:
            groups.append((arm, cards))
    note = f"{data.samples_of}. Under each image: what is true, and what each arm said of it."
    return Section(cards=groups, note=note)


def _card(data: ReportData, row: dict[str, Any], image: bytes) -> dict[str, Any]:
    return {
        "src": embed(image),
        "id": row["id"],
        "truth": _answer_text(row.get("truth")),
        "wide": row.get("panels") in (2, 3, 4),
        "answers": [
            _answer(arm, rows[str(row["id"])]) for arm, rows in data.rows.items() if str(row["id"]) in rows
        ],
    }


def _image(data: ReportData, name: str, first: str) -> bytes | None:
    """Return the thumbnail of an image, preferably the one that the arm `first` drew."""
    for arm, rows in sorted(data.rows.items(), key=lambda item: item[0] != first):
        image = thumbnail(data.runs[arm].folder, rows[name]) if name in rows else None
        if image is not None:
            return image
    return None


def _answer(arm: str, row: dict[str, Any]) -> dict[str, Any]:
    text = row.get("answer")  # in words, where a prediction is neither right nor wrong
    right = row.get("right", None if text else row.get("prediction") == row.get("truth"))
    if isinstance(right, list):  # for each box: the image is right if all are matched
        right = row.get("loss") == 0
    return {
        "arm": arm,
        "text": text or _answer_text(row.get("prediction")),
        "right": right,
        "confidence": _percent(row.get("confidence")),
    }


def _answer_text(value: Any) -> str:
    """Return a prediction as text; an empty caption is one too."""
    if isinstance(value, list) and "" in value:
        value = [item if item != "" else NOTHING for item in value]
    return NOTHING if value == "" else value_text(value)


def _percent(value: Any) -> str:
    return f"{100 * value:.0f}%" if isinstance(value, int | float) and math.isfinite(value) else ""


def _loss(row: dict[str, Any]) -> float:
    value = row.get("loss")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else -math.inf
