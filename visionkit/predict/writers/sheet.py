"""The contact sheet: index.html and further pages of thumbnails, which open without a server or a network."""

from __future__ import annotations

import base64
import os
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from visionkit.files import write_text
from visionkit.predict.writers.output_files import GrowingFile, encoded
from visionkit.predict.writers.writer import Entry, Target
from visionkit.printable import printable

__all__ = ["PAGE", "Sheet"]

PAGE = 300
"""Images on a page."""

_SIDE = 240  # pixels of a thumbnail's longer side
_LINKS = "<!-- pages -->"  # where index.html gets the links to all pages at the end


class Sheet:
    """Writes `index.html` with the first 300 images, and `sheet/0002.html` and so on with the others.

    Thumbnails are inside the pages. Each leads to its drawing, where there are drawings, else to the image.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        from jinja2 import Environment

        text = files("visionkit.predict.writers").joinpath("sheet.html.j2").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self._parts: Any = environment.from_string(text).module
        self._target = target
        self._lead = f"Kind: {target.kind}"
        if target.kind == "detection":
            self._lead += f", scores of {target.min_score:g} or more"
        self._page: GrowingFile | None = None
        self._pages = self._count = 0

    def add(self, entry: Entry) -> None:
        """Write the card of an image; after each 300 a page is finished."""
        if self._page is None or self._count % PAGE == 0:
            self._finish(more=True)
            self._begin()
        link = self._link(entry)
        texts = (entry.result.summary(), entry.name, entry.values["id"])
        card = self._parts.card(link, _thumbnail(entry), *texts)
        if self._page is not None:
            self._page.write(printable(str(card)).lstrip())
        self._count += 1

    def close(self) -> list[str]:
        """Finish the last page, and write the number of images and the links to all pages into the first."""
        self._finish(more=False)
        if self._pages:
            index = self._target.folder / "index.html"
            pairs = [("", "1"), *((_address(page), str(page)) for page in range(2, self._pages + 1))]
            links = str(self._parts.links(pairs)) if self._pages > 1 else ""
            head, _, rest = index.read_text(encoding="utf-8").partition(_LINKS)
            head = head.replace(self._lead, f"{self._count:,} images. {self._lead}")
            write_text(index, head + links + rest)
        return []

    def abort(self) -> None:
        """Remove the page that is not finished."""
        if self._page is not None:
            self._page.abort()

    def _begin(self) -> None:
        number, first = self._pages + 1, self._pages * PAGE + 1
        page = GrowingFile(self._target.folder / _address(number), hidden=True)
        title = "Predictions" if number == 1 else f"Predictions from image {first:,}"
        top = _LINKS if number == 1 else self._neighbours(number, more=False)
        try:
            page.write(f'{str(self._parts.head(title, self._lead)).lstrip()}{top}\n<div class="cards">\n')
        except OSError:
            page.abort()
            raise
        self._page, self._pages = page, number

    def _finish(self, *, more: bool) -> None:
        if self._page is not None:
            self._page.write(f"</div>\n{self._neighbours(self._pages, more=more)}</main>\n</body>\n</html>\n")
            self._page.close()
            self._page = None

    def _neighbours(self, page: int, *, more: bool) -> str:
        """Return the links to the pages around one."""
        up = "" if page == 1 else "../"
        pairs = [(up + _address(1), "first page")] if page > 1 else []
        pairs += [(up + _address(page - 1), "page before")] if page > 1 else []
        pairs += [("", f"page {page}")] if page > 1 or more else []
        pairs += [(up + _address(page + 1), "next page")] if more else []
        return str(self._parts.links(pairs)) if pairs else ""

    def _link(self, entry: Entry) -> str:
        up = "" if self._pages == 1 else "../"
        if "drawings" in self._target.formats:
            return f"{up}drawings/{quote(entry.name)}.jpg"
        path = entry.result.path
        return "" if path is None else Path(os.path.abspath(path)).as_uri()  # noqa: PTH100


def _address(page: int) -> str:
    return "index.html" if page == 1 else f"sheet/{page:04}.html"


def _thumbnail(entry: Entry) -> str:
    """Return the drawing, small, as an address of data."""
    small = entry.drawing.copy()
    small.thumbnail((_SIDE, _SIDE))
    return f"data:image/jpeg;base64,{base64.b64encode(encoded(small, 'JPEG', quality=80)).decode('ascii')}"
