"""`visionkit search`: the nearest images of an index, as text, lines of JSON and a page."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.commands.arguments import VerbParser
from visionkit.commands.trained.index import add_device
from visionkit.errors import DataError, InputError, expected
from visionkit.files import local_path, writing
from visionkit.printable import for_terminal, printable

if TYPE_CHECKING:
    from visionkit.predict.writers.output_files import GrowingFile
    from visionkit.retrieval.index import Index
    from visionkit.retrieval.search import Match, Search

__all__ = ["main"]

_FILES = ("neighbors.jsonl", "index.html")
_ROWS = 100  # queries on the page
_NAMED = 5  # files that cannot be read and are named at the end


def main(argv: Sequence[str]) -> int:
    """Search, and return 0, or 1 if a file could not be read."""
    args = _parser().parse(argv)
    if args.batch_size < 0:
        raise InputError(expected("--batch_size", "0 or more", args.batch_size))
    out = _free(args.out, overwrite=args.overwrite) if args.out else None
    from visionkit.retrieval.encoder import encoder_from
    from visionkit.retrieval.index import load_index
    from visionkit.retrieval.search import search_images

    index = load_index(args.index)
    if not 1 <= args.k <= len(index):
        fix = "Ask for fewer neighbours, or add images to the index."
        raise InputError(expected("--k", f"1 to {len(index):,}, the images of the index", args.k, fix=fix))
    search = _approximate(index, args.k) if args.backend == "faiss" else None
    unread: list[DataError] = []
    matches = search_images(
        index,
        args.images,
        k=args.k,
        encoder=encoder_from(index.encoder, source=args.backbone, device=args.device),
        search=search,
        batch_size=args.batch_size,
        on_error=lambda name, error: unread.append(error),
    )
    count = _write(index, matches, out)
    if unread:
        _note(f"{len(unread):,} of {count + len(unread):,} images could not be read:")
        for error in unread[:_NAMED]:
            _note(f"  {error}")
    return 1 if unread else 0


def _approximate(index: Index, k: int) -> Search:
    """Return the search of faiss, and print how often it gives the neighbours that are nearest."""
    from visionkit.retrieval.faiss_search import FaissSearch

    search = FaissSearch(index)
    recall = search.recall(k=k)
    _note(
        f"faiss: {search.about}; of the {k} nearest others of {recall.queries} vectors of the index it gives "
        f"{recall.fraction:.2%}"
    )
    return search


def _write(index: Index, matches: Any, out: Path | None) -> int:
    """Print the neighbours of each image, write them into a folder if there is one, and count the images."""
    from visionkit.predict.writers.output_files import GrowingFile

    lines = None if out is None else GrowingFile(out / _FILES[0])
    sheet: list[Match] = []
    count = 0
    for match in matches:
        count += 1
        sys.stdout.write(for_terminal(_text(match)))
        if out is not None and lines is not None:
            with writing(out):
                if count == 1:
                    (out / _FILES[1]).unlink(missing_ok=True)  # the page of an earlier search
                _add(lines, out / _FILES[0], json.dumps(match.to_dict(), ensure_ascii=True) + "\n")
            sheet += [match] if len(sheet) < _ROWS else []
    if out is not None and lines is not None and count:
        with writing(out):
            lines.close()
            _write_page(out / _FILES[1], index, sheet, count)
        sys.stdout.write(for_terminal(f"written  {out}: {', '.join(_FILES)}\n"))
    return count


def _add(lines: GrowingFile, file: Path, record: str) -> None:
    """Write a record; leave no empty file where the first one does not fit."""
    try:
        lines.write(record)
    except OSError:
        if file.is_file() and not file.stat().st_size:
            file.unlink()
            with contextlib.suppress(OSError):
                file.parent.rmdir()  # only if it held nothing else
        raise


def _text(match: Match) -> str:
    rows = [printable(match.id)]
    width = max(len(row.label) for row in match.neighbors)
    for rank, (row, distance) in enumerate(zip(match.neighbors, match.distances, strict=True), 1):
        label = f"  {row.label:<{width}}" if width else ""
        rows.append(f"  {rank:>3}  {distance:.6f}{label}  {printable(row.name)}")
    return "\n".join(rows) + "\n"


def _write_page(file: Path, index: Index, matches: Sequence[Match], count: int) -> None:
    from visionkit.retrieval.sheet import Card, file_card, write_sheet

    shown = f"the first {len(matches):,} of {count:,} images" if count > len(matches) else f"{count:,} images"
    lead = (
        f"The nearest of {len(index):,} images of {index.folder} for {shown}, by {index.metric} distance of "
        f"the vectors of {index.encoder['source']}. The first of each row is the image that was searched for."
    )
    rows = (
        [
            Card(match.small, "searched", match.id, match.path or ""),
            *(
                file_card(row.path, f"{distance:.4f} {row.label}", row.name)
                for row, distance in zip(match.neighbors, match.distances, strict=True)
            ),
        ]
        for match in matches
    )
    write_sheet(file, "Nearest images", lead, rows)


def _free(name: str, *, overwrite: bool) -> Path:
    """Return the folder to write into; refuse one that has the results of another search."""
    out = local_path(name, "a folder to write into")
    if out.exists() and not out.is_dir():
        raise InputError(f"Expected a folder to write into, but {out} is a file. Choose another --out.")
    there = [file for file in _FILES if os.path.lexists(out / file)]
    if there and not overwrite:
        raise InputError(
            f"Expected a folder without results, but {out} has {', '.join(there)}. Choose another --out, or "
            "replace them with --overwrite."
        )
    return out


def _note(text: str) -> None:
    sys.stderr.write(f"{for_terminal(text)}\n")


def _parser() -> VerbParser:
    parser = VerbParser(
        "search",
        "Find the images of an index that are nearest to some images. The distances are exact, and of equal\n"
        "ones the image that was indexed first comes first.",
        epilog="examples:\n  visionkit search photos.index query.jpg\n"
        "  visionkit search photos.index new-photos/ --k 5 --out found",
        loads=True,
    )
    parser.add_argument("index", metavar="INDEX", help="a folder that `visionkit index` wrote")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders, globs")
    parser.add_argument("--k", type=int, default=10, help="neighbours of each image (default 10)")
    parser.add_argument(
        "--out", default="", metavar="DIR", help="also write neighbors.jsonl and a page, index.html, into DIR"
    )
    parser.add_argument(
        "--backbone", default="", metavar="RUN", help="where the run that made the index is now, if moved"
    )
    parser.add_argument(
        "--backend", default="exact", choices=("exact", "faiss"),
        help="exact (default) | faiss: approximate, above a million vectors; prints its recall",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the results that DIR has")
    return parser
