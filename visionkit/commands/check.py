"""`visionkit check`: read a data set end to end, name every fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser, add_table, table_config
from visionkit.errors import DataError, InputError

if TYPE_CHECKING:
    from visionkit.data.formats.open import Format, OpenOptions
    from visionkit.data.splits import Splits

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Check a data set; the status is 2 if anything is wrong in it."""
    parser = VerbParser(
        "check",
        "Read every sample of a data set and name what is wrong (file, record, field) and what would be\n"
        "left out, changed or assumed in training. The format is told by what lies there.",
        epilog="examples:\n  visionkit check photos/\n  visionkit check annotations/instances_val2017.json\n"
        "  visionkit check tags.csv --target multi --table.separator '|'",
    )
    parser.add_argument("data", help="a folder or a file of any format of `visionkit ls data`, or scenes")
    parser.add_argument("--most", type=int, default=20, help="faults that are printed (default 20)")
    add_table(parser, "told by the cells")
    parser.add_argument("--classes", default="", help="masks: a file that says what their values mean")
    parser.add_argument("--images", default="", help="captions: the folder of the images")
    args = parser.parse(argv)
    from visionkit.data.formats.open import OpenOptions, detect_formats

    options = OpenOptions(
        target=args.target or None,
        table=table_config(args),
        classes=args.classes,
        images=args.images,
        max_dropped=1.0,
    )
    if args.data == "scenes":
        return _report("scenes", [("embedded scenes", *_scenes())], args.most)
    path = Path(args.data)
    if not path.exists():
        raise InputError(
            f"Expected a folder or a file of a data set, or 'scenes', but got {args.data!r}: nothing there."
        )
    found = detect_formats(path)
    if not found:
        from visionkit.data.formats.open import open_dataset

        open_dataset(path, "classification", options)  # raises the list of formats
    return _report(args.data, [(each.name, *_look(each, path, options)) for each in found], args.most)


def _look(each: Format, path: Path, options: OpenOptions) -> tuple[str, list[DataError], list[str]]:
    """Return what was looked at, every fault, and every notice of a data set read as one format."""
    faults = list(each.check(path, options))
    try:
        splits = each.open(path, each.tasks[0], options)
    except DataError as fault:
        # The reader stops at the first fault, which the check lists; what only the reader refuses is added.
        return "not readable", faults or [fault], []
    return _sizes(splits), faults, [str(notice) for notice in splits.notices]


def _scenes() -> tuple[str, list[DataError], list[str]]:
    from visionkit.data.check import check_reader
    from visionkit.data.scenes import scenes

    splits = scenes("classification", train=100, val=50, test=50)
    readers = [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
    return _sizes(splits), [fault for reader in readers for fault in check_reader(reader)], []


def _sizes(splits: Splits) -> str:
    test = 0 if splits.test is None else len(splits.test)
    return f"{len(splits.train):,} train, {len(splits.val):,} val, {test:,} test"


def _report(data: str, looked: Sequence[tuple[str, str, list[DataError], list[str]]], most: int) -> int:
    """Print what was found; raise if there are faults."""
    total = 0
    for name, sizes, faults, notices in looked:
        total += len(faults)
        sys.stdout.write(f"{data}: {name}, {sizes}: {len(faults):,} faults, {len(notices):,} notices\n")
        for notice in notices:
            sys.stdout.write(f"  notice: {notice}\n")
        for fault in faults[:most]:
            sys.stdout.write(f"  {fault}\n")
        if len(faults) > most:
            sys.stdout.write(f"  and {len(faults) - most:,} more (--most {len(faults)})\n")
    if total:
        raise InputError(f"{total:,} faults. Repair or remove what is named, and check again.")
    sys.stdout.write("no faults\n")
    return 0
