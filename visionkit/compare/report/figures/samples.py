"""Sample predictions: the worst and some random validation images, with what every arm predicted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from visionkit.compare.report.predictions import open_image, thumbnail
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import CardGroup, Section, embed
from visionkit.compare.report.value_text import value_text
from visionkit.drawing.class_colors import class_colors
from visionkit.drawing.row_panels import draw_prediction, draw_truth, draws_more

__all__ = ["applies", "draw"]

MAX_CARDS, MAX_DRAWN = 6, 3  # of a group; where several images are drawn side by side
SMALL = 200  # pixels of an image on which nothing is drawn
NOTHING = "(nothing)"
_DRAWN = {
    "true_labels": "Boxes: true ones are yellow, detections green if they are right (class, and IoU 0.5), "
    "else red, with their score.",
    "true_points": "Points: true ones are yellow, predicted ones green if they are right (as for PCK), red "
    "if not, grey if they are not scored; the error is the mean distance as a fraction of the object's size.",
}
_MAPS = "The worst are those of the images that every run kept; grey: not counted."
Row = dict[str, Any]


def applies(data: ReportData) -> bool:
    """Return whether a run wrote predictions that can be read."""
    return any(data.rows.values())


def draw(data: ReportData) -> Section:
    """Return the worst images of each arm, then some random ones, each with the predictions of all arms."""
    groups, shown = [], set()
    for arm, rows in data.rows.items():
        worst = sorted(rows, key=lambda name: (-_loss(rows[name]), name))
        cards = _cards(data, worst, arm)
        shown |= {str(card["id"]) for card in cards}
        groups.append(CardGroup("Most wrong:", arm, cards))
    common = set.intersection(*(set(rows) for rows in data.rows.values()))
    order = sorted(common - shown, key=lambda name: hashlib.sha256(name.encode("utf-8", "replace")).digest())
    groups.append(CardGroup("Drawn at random, the same in every arm", "", _cards(data, order, "")))
    groups = [group for group in groups if group.cards]
    note = f"{data.samples_of}. Each image with what is true of it, and what each arm predicted."
    if any(draws_more(row) for rows in data.rows.values() for row in rows.values()):
        keys = {key for rows in data.rows.values() for row in rows.values() for key in row}
        note += " " + next((text for key, text in _DRAWN.items() if key in keys), _MAPS)
    return Section(cards=groups, note=note, legend=_legend(data, groups))


def _cards(data: ReportData, names: Sequence[str], first: str) -> list[dict[str, Any]]:
    cards: list[dict[str, Any]] = []
    for name in names:
        if len(cards) == (MAX_DRAWN if cards and len(cards[0]["panels"]) > 1 else MAX_CARDS):
            break
        card = _card(data, name, first)
        if card is not None:
            cards.append(card)
    return cards


def _card(data: ReportData, name: str, first: str) -> dict[str, Any] | None:
    """Return a card, or None if no run has the image, or not every run has what is drawn on it."""
    rows = {arm: rows[name] for arm, rows in data.rows.items() if name in rows}
    arms = sorted(rows, key=lambda arm: arm != first)
    opened = (open_image(data.runs[arm].folder, rows[arm]) for arm in arms)
    image = next((each for each in opened if each is not None), None)
    if image is None:
        return None
    if draws_more(rows[arms[0]]):
        panels = _drawn(data, image, rows)
        if panels is None:
            return None
    else:
        panels = [{"title": "", "arm": "", "src": embed(thumbnail(image, SMALL))}]
    return {
        "id": name,
        "truth": _answer_text(rows[arms[0]].get("truth")),
        "panels": panels,
        "maps": "truth_map" in rows[arms[0]],
        "answers": [_answer(arm, row) for arm, row in rows.items()],
    }


def _drawn(data: ReportData, image: Image.Image, rows: dict[str, Row]) -> list[dict[str, str]] | None:
    """Return image, truth, and the prediction of every arm, side by side."""
    count = len(data.classes)
    first = next(iter(rows))
    truths, predictions = {}, {}
    for arm, row in rows.items():
        folder = data.runs[arm].folder
        truths[arm], predictions[arm] = (_map(folder, row, key) for key in ("truth_map", "prediction_map"))
        if not draws_more(row):
            return None
        if "truth_map" in row and (truths[arm] is None or predictions[arm] is None):
            return None
    panels = [("truth", "", draw_truth(image, rows[first], truths[first], classes=count))]
    if truths[first] is not None:  # boxes let the image be seen, masks cover it
        panels.insert(0, ("image", "", image))
    panels += [
        ("", arm, draw_prediction(image, row, predictions[arm], classes=count)) for arm, row in rows.items()
    ]
    return [{"title": title, "arm": arm, "src": embed(thumbnail(drawn))} for title, arm, drawn in panels]


def _map(folder: Any, row: Row, key: str) -> np.ndarray | None:
    image = open_image(folder, row, key)
    return None if image is None else np.asarray(image)


def _legend(data: ReportData, groups: Sequence[CardGroup]) -> list[tuple[str, str]]:
    """Return the colours of the classes that the cards show, where they show class maps."""
    names = set(_classes_of(data, groups))
    colors = zip(class_colors(len(data.classes)), data.classes, strict=True)
    return [(f"rgb{color}", name) for color, name in colors if name in names]


def _classes_of(data: ReportData, groups: Sequence[CardGroup]) -> Iterator[str]:
    for name in {card["id"] for group in groups for card in group.cards}:
        for rows in data.rows.values():
            row = rows.get(name, {})
            if "truth_map" in row:
                yield from (*row.get("truth", ()), *row.get("prediction", ()))


def _answer(arm: str, row: Row) -> dict[str, Any]:
    text = row.get("answer")  # in words, where a prediction is neither right nor wrong
    right = row.get("right", None if text else row.get("prediction") == row.get("truth"))
    if isinstance(right, list) and text:  # for each point: the error says more
        right = None
    elif isinstance(right, list):  # for each box: the image is right if all are matched
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


def _loss(row: Row) -> float:
    value = row.get("loss")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else -math.inf
