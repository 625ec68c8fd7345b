"""`visionkit check`: read a data set end to end, name every fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser
from visionkit.errors import DataError, InputError

if TYPE_CHECKING:
    from visionkit.data import Splits
    from visionkit.types import Reader

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Check a data set; the status is 2 if anything is wrong in it."""
    parser = VerbParser(
        "check",
        "Read every sample of a data set and name what is wrong: file, record, field.",
        epilog="examples:\n  visionkit check photos/\n  visionkit check labels.csv --most 100",
    )
    parser.add_argument("data", help="a folder with a folder a class, a .csv table, or scenes")
    parser.add_argument("--most", type=int, default=20, help="faults that are printed (default 20)")
    args = parser.parse(argv)
    splits = _open(args.data)
    faults = 0
    sys.stdout.write(f"{splits.name}: {len(splits.classes)} classes: {_few(splits.classes)}\n")
    for name, reader in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        if reader is None:
            continue
        found = _faults(reader)
        sys.stdout.write(f"{name}: {len(reader):,} samples, {len(found):,} faults\n")
        for fault in found[: max(0, args.most - faults)]:
            sys.stdout.write(f"  {fault}\n")
        faults += len(found)
    if faults:
        raise InputError(f"{faults:,} of the samples cannot be used. Repair or remove them, and check again.")
    sys.stdout.write("no faults\n")
    return 0


def _open(data: str) -> Splits:
    from visionkit.data.folder import image_folder
    from visionkit.data.scenes import scenes
    from visionkit.data.table import image_table

    if data == "scenes":
        return scenes("classification", train=100, val=50, test=50)
    path = Path(data)
    if path.is_dir():
        return image_folder(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return image_table(path)
    what = "a file of another kind" if path.exists() else "nothing there"
    raise InputError(f"Expected a folder of pictures, a .csv table or 'scenes', but got {data!r}: {what}.")


def _faults(reader: Reader) -> list[str]:
    found = []
    for index in range(len(reader)):
        try:
            reader[index]
        except DataError as error:
            found.append(str(error))
    return found


def _few(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
