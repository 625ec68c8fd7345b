"""The data card of a run as tables of text, for the report and for `visionkit check --stats`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["CARD_FILE", "Table", "card_lines", "data_tables", "read_card", "tables_text"]

CARD_FILE = "data.json"
MAX_CLASSES = 60
_MAX_BYTES = 16 * 2**20
_RANGE = "smallest / median / largest"


class Table(NamedTuple):
    """A table of text.

    Args:
        title: What it is of.
        rows: A header, then rows.
        note: A line below it.
    """

    title: str
    rows: Sequence[Sequence[str]]
    note: str = ""


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return the data card that a run wrote; empty where there is none, or it cannot be read.

    Args:
        folder: The run's folder.
    """
    path = Path(folder) / CARD_FILE
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        data_tables(card), card_lines(card)  # raise where it is damaged
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, StopIteration):
        return {}
    return card if isinstance(card, dict) else {}


def data_tables(card: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a data card: images and boxes of each split, and its classes.

    Args:
        card: What `visionkit.data.data_card` returned.
    """
    splits = card["splits"]
    tables = [_size_table(splits)]
    if any("classes" in part for part in splits.values()):
        tables.append(_class_table(card["classes"], splits))
    return tables


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """Return sentences on the files that are in two splits, and on splits that could not be read."""
    unread = [f"The {_split_name(name)} split could not be read: {part['error']}"
              for name, part in card["splits"].items() if "error" in part]  # fmt: skip
    return [*unread, *_duplicate_lines(card["duplicates"])]


def _duplicate_lines(duplicates: Mapping[str, Any]) -> list[str]:
    looked = duplicates["looked"]
    lines = []
    for each in duplicates["pairs"]:
        first, second = map(_split_name, each["splits"])
        names = "; ".join(a if a == b else f"{b} is {a}" for a, b in each["examples"])
        lines.append(
            f"{each['images']:,} of {each['of']:,} {second} images are also {first} images, byte for byte: "
            f"{names}{' ...' if each['images'] > len(each['examples']) else ''}."
        )
    if looked.startswith("no"):
        return [f"Duplicates between splits were not looked for ({looked.removeprefix('no: ')})."]
    return [
        *lines,
        f"Looked at {looked}." if lines else f"No file is in two splits, byte for byte ({looked}).",
    ]


def tables_text(card: Mapping[str, Any]) -> str:
    """Return the data card for a terminal."""
    blocks = []
    for table in data_tables(card):
        widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) if idx == 0 else cell.rjust(width)
                      for idx, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in table.rows
        ]  # fmt: skip
        blocks.append(
            "\n".join(
                [table.title, *(f"  {line}" for line in lines), *([f"  {table.note}"] * bool(table.note))]
            )
        )
    return "\n".join([*blocks, *card_lines(card)])


def _size_table(splits: Mapping[str, Any]) -> Table:
    rows = [["", *map(_split_name, splits)]]

    def add(label: str, cell: Any) -> None:
        cells = [cell(part) for part in splits.values()]
        if any(cells):
            rows.append([label, *cells])

    add("images", lambda part: f"{part['images']:,}")
    add("width, px", lambda part: _range(part.get("sizes", {}).get("width")))
    add("height, px", lambda part: _range(part.get("sizes", {}).get("height")))
    add("most common size", lambda part: _common(part.get("sizes", {})))
    add("objects", lambda part: _count(part.get("boxes", {}).get("objects")))
    add("objects an image", lambda part: _range(part.get("boxes", {}).get("per_image")))
    add("box side, px (root of the area)", lambda part: _range(part.get("boxes", {}).get("side")))
    add("small, medium, large boxes", lambda part: _parts(part.get("boxes", {})))
    add("captions", lambda part: _count(part.get("captions", {}).get("sentences")))
    add("captions an image", lambda part: _range(part.get("captions", {}).get("per_image")))
    add("words a caption", lambda part: _range(part.get("captions", {}).get("words")))
    for name in dict.fromkeys(name for part in splits.values() for name in part.get("targets", {})):
        add(name, lambda part, name=name: _range(part.get("targets", {}).get(name)))
    note = f"Ranges: {_RANGE}"
    if any("boxes" in part for part in splits.values()):
        note += "; small boxes: area below 32 x 32 pixels, large ones: 96 x 96 and above"
    return Table("Images", rows, f"{note}.{_partly(splits, 'sizes')}")


def _class_table(classes: Sequence[str], splits: Mapping[str, Any]) -> Table:
    parts = {name: part["classes"] for name, part in splits.items() if "classes" in part}
    of = next(iter(parts.values()))["of"]
    first = next(iter(parts.values()))["counts"]
    ordered = sorted(classes, key=lambda name: -first.get(name, 0))
    shown = ordered[:MAX_CLASSES]
    rows = [["class", *map(_split_name, parts)]]
    for name in shown:
        rows.append([name, *(_class_cell(part, name) for part in parts.values())])
    rest = f"{len(ordered) - len(shown)} rarer classes are not listed." if len(ordered) > len(shown) else ""
    note = " ".join(filter(None, (rest, _partly(splits, "classes").strip())))
    return Table(f"{of[:1].upper()}{of[1:]} of each class", rows, note)


def _class_cell(part: Mapping[str, Any], name: str) -> str:
    count, total = part["counts"].get(name, 0), sum(part["counts"].values())
    percent = f"{100 * count / total:.1f}%" if total else ""
    return percent if part["of"] == "pixels" else f"{count:,} ({percent})" if percent else f"{count:,}"


def _partly(splits: Mapping[str, Any], field: str) -> str:
    """Return a sentence on splits of which only some images were opened."""
    texts = [
        f"{part[field]['read']:,} of {part['images']:,} {_split_name(name)} images"
        for name, part in splits.items()
        if field in part and part[field]["read"] < part["images"]
    ]
    return f" Measured on {', '.join(texts)}, evenly spread." if texts else ""


def _split_name(split: str) -> str:
    return {"train": "training", "val": "validation"}.get(split, split)


def _range(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    low, median, high = values[0], values[len(values) // 2], values[-1]
    return f"{low:,.4g}" if low == high else f"{low:,.4g} / {median:,.4g} / {high:,.4g}"


def _common(sizes: Mapping[str, Any]) -> str:
    if not sizes.get("common"):
        return ""
    top = sizes["common"][0]
    return f"{top['width']} x {top['height']} ({100 * top['images'] / sizes['read']:.0f}%)"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _parts(boxes: Mapping[str, Any]) -> str:
    return f"{boxes['small']:,}, {boxes['medium']:,}, {boxes['large']:,}" if "small" in boxes else ""
