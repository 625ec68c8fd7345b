"""`visionkit check`: read a data set end to end and list every error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser, add_stream, add_table, stream_config, table_config
from visionkit.commands.progress import ImageProgress
from visionkit.errors import InputError
from visionkit.files import is_address
from visionkit.printable import for_terminal

if TYPE_CHECKING:
    from visionkit.data.splits import Splits

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Check a data set; the status is 2 if anything is wrong in it."""
    args = _parser().parse(argv)
    if (args.out or args.max_distance is not None) and not args.duplicates:
        raise InputError(
            "Expected --duplicates with --out and --max_distance, which are about them. Add --duplicates."
        )
    from visionkit.data.formats.dataset_report import check_dataset, counted
    from visionkit.data.formats.options import OpenOptions

    options = OpenOptions(
        target=args.target or None,
        table=table_config(args),
        stream=stream_config(args),
        classes=args.classes,
        images=args.images,
        masks=args.masks,
    )
    here = args.data == "scenes" or is_address(args.data) or os.path.exists(args.data)  # noqa: PTH110 (any name)
    if not here:
        raise InputError(
            f"Expected a folder or a file of a data set, or 'scenes', but got {args.data!r}: nothing there."
        )
    total, looked = 0, False
    for report in check_dataset(args.data, options):
        total += len(report.errors)
        sys.stdout.write(for_terminal(report.text(args.max_errors)) + "\n")
        if args.stats and report.splits is not None and report.ok:
            sys.stdout.write(for_terminal(f"\n{_statistics(report.splits)}\n\n"))
        if args.duplicates and report.splits is not None and not looked:
            looked = True
            _duplicates(report.splits, args.max_distance, args.out)
    if total:
        raise InputError(f"{counted(total, 'error')}. Repair or remove what is named, and check again.")
    sys.stdout.write("no errors\n")
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "check",
        "Read every sample of a data set and name what is wrong (file, record, field) and what would be\n"
        "left out, changed or assumed in training. The format is detected.",
        epilog="examples:\n  visionkit check photos/\n  visionkit check annotations/instances_val2017.json\n"
        "  visionkit check tags.csv --target multi --table.separator '|'\n  visionkit check photos/ --stats\n"
        "  visionkit check photos/ --duplicates --out alike.html",
    )
    parser.add_argument("data", help="a folder or a file of any format of `visionkit ls data`, or scenes")
    parser.add_argument(
        "--stats",
        action="store_true",
        help="also print class counts, sizes, and files that are in two splits",
    )
    parser.add_argument("--max_errors", type=int, default=20, help="errors that are printed (default 20)")
    parser.add_argument(
        "--duplicates",
        action="store_true",
        help="also look for images that are alike: in two splits, and twice in one",
    )
    parser.add_argument(
        "--max_distance",
        type=float,
        metavar="X",
        help="of duplicates, 0 (equal) to 1 (default 0.01)",
    )
    parser.add_argument(
        "--out", default="", metavar="FILE", help="of duplicates: a page that shows them, .html"
    )
    add_table(parser, "detected from the cells")
    add_stream(parser)
    parser.add_argument("--classes", default="", help="masks: the label map file of their values")
    parser.add_argument("--masks", action="store_true", help="boxes: expect an outline of every object")
    parser.add_argument("--images", default="", help="captions: the folder of the images")
    return parser


def _duplicates(splits: Splits, max_distance: float | None, out: str) -> None:
    """Print the near-duplicates of a data set, and write the page that shows them."""
    from visionkit.retrieval.duplicates import MAX_DISTANCE, find_duplicates
    from visionkit.retrieval.gallery import splits_items
    from visionkit.retrieval.sheet import write_duplicates

    items, limit = splits_items(splits), MAX_DISTANCE if max_distance is None else max_distance
    with ImageProgress(len(items)) as progress:
        report = find_duplicates(items, max_distance=limit, progress=progress.advance)
    sys.stdout.write(for_terminal(report.text()) + "\n")
    if out:
        write_duplicates(out, report, splits.name)
        sys.stdout.write(for_terminal(f"written  {out}\n"))


def _statistics(splits: Splits) -> str:
    from visionkit.compare.data_tables import tables_text
    from visionkit.data.data_card import data_card

    return tables_text(data_card(splits, max_samples=0, max_digests=0))
