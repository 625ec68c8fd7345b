"""A page of rows of images: a query with its neighbours, or two images that are alike."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from visionkit.data.read_image import read_image
from visionkit.errors import DataError
from visionkit.files import write_text
from visionkit.predict.writers.output_files import encoded
from visionkit.printable import printable
from visionkit.retrieval.duplicates import Duplicate, DuplicateReport, distinct
from visionkit.retrieval.gallery import GalleryItem
from visionkit.retrieval.search import SIDE
from visionkit.run.previews.to_pil import to_pil

__all__ = ["Card", "file_card", "write_duplicates", "write_sheet"]

_ROWS = 100  # pairs of each two splits on a page


@dataclass(frozen=True)
class Card:
    """An image with words below it.

    Args:
        image: A small copy; None where the file is gone or is none.
        text: What is said of it.
        name: Its name, below that.
        path: Its file, which the card leads to; empty where it is none.
    """

    image: Image.Image | None
    text: str
    name: str
    path: str


def file_card(path: str, text: str, name: str) -> Card:
    """Return the card of an image file; one that cannot be read has no image and says so.

    Args:
        path: The file; empty where the image is none.
        text: What is said of it.
        name: Its name.
    """
    if not path:
        return Card(None, f"{text} (no file)", name, "")
    try:
        image = to_pil(read_image(path), side=SIDE)
    except DataError:
        return Card(None, f"{text} (the file cannot be read)", name, "")
    return Card(image, text, name, path)


def write_sheet(file: str | Path, title: str, lead: str, rows: Iterable[Sequence[Card]]) -> None:
    """Write a page with a line of images for each row; the images are inside it.

    Args:
        file: The .html file.
        title: Heading of the page.
        lead: A sentence below it.
        rows: The images, row by row.
    """
    from jinja2 import Environment

    text = files("visionkit.predict.writers").joinpath("sheet.html.j2").read_text(encoding="utf-8")
    parts: Any = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text).module
    content = [str(parts.head(title, lead)).lstrip()]
    for row in rows:
        cards = "".join(str(_card(parts, each)).lstrip() for each in row)
        content.append(f'<div class="cards">\n{cards}</div>\n<hr>\n')
    write_text(file, printable("".join(content)) + "</main>\n</body>\n</html>\n")


def write_duplicates(file: str | Path, report: DuplicateReport, name: str) -> None:
    """Write a page of near-duplicates side by side, the nearest first, those of two splits before others.

    Args:
        file: The .html file.
        report: What was found.
        name: The data set.
    """
    groups = [*report.between.values(), *map(distinct, report.within.values())]
    shown = [pair for pairs in groups for pair in pairs[:_ROWS]]
    total = sum(map(len, groups))
    which = f"{len(shown):,} of {total:,} pairs" if len(shown) < total else f"{total:,} pairs"
    lead = f"{which} of images of {name}, at most {report.max_distance:g} apart."
    write_sheet(
        file, "Near-duplicates", lead, ([_item_card(p.image, p), _item_card(p.other, p)] for p in shown)
    )


def _item_card(item: GalleryItem, pair: Duplicate) -> Card:
    how = "the same content" if pair.same_content else f"{pair.distance:.4f}"
    text = f"{item.split} {item.label}, {how}"
    try:
        return Card(to_pil(item.read(), side=SIDE), text, item.name, item.path)
    except DataError:
        return Card(None, f"{text} (cannot be read)", item.name, "")


def _card(parts: Any, card: Card) -> Any:
    image = card.image or Image.new("RGB", (SIDE, SIDE), "#d8dee4")
    data = base64.b64encode(encoded(image, "JPEG", quality=80)).decode("ascii")
    link = Path(card.path).absolute().as_uri() if card.path else ""
    return parts.card(link, f"data:image/jpeg;base64,{data}", card.text, card.name, card.path)
