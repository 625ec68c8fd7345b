"""`visionkit compare`: compare finished runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from visionkit.commands.arguments import VerbParser

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Compare finished runs: print the tables, write the report to --out."""
    parser = VerbParser(
        "compare",
        "Put finished runs side by side: who wins, by how much, how much sooner, how little data.\n"
        "Refuses runs that differ in more than init, seed, fold, fraction and schedule.",
        epilog="examples:\n  visionkit compare runs/compare\n  visionkit compare runs/a runs/b --out runs/ab"
        "\n  visionkit compare runs/sweep --by lr optim.weight_decay",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="run folders, or folders that hold them")
    parser.add_argument("--out", help="write report.html, comparison.json and figures/ there")
    parser.add_argument(
        "--allow", nargs="+", default=[], metavar="NAME", help="what else may differ (lr, optim.schedule)"
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="NAME",
        help="a table of runs that differ in it on purpose (lr)",
    )
    parser.add_argument(
        "--margin", type=float, help="scores as close as this are equal (default: that of the runs, 0.01)"
    )
    args = parser.parse(argv)
    if args.by:
        return _print_table(args.folders, args.by, args.allow, args.out)
    from visionkit.compare.comparison import compare
    from visionkit.compare.report.report import write_report
    from visionkit.compare.summary import print_summary

    comparison = compare(args.folders, allow=args.allow, margin=args.margin)
    print_summary(comparison)
    if args.out:
        sys.stdout.write(f"\nreport  {write_report(comparison, Path(args.out))}\n")
    else:
        sys.stdout.write("\nNothing was written; --out FOLDER writes the report.\n")
    return 0


def _print_table(folders: Sequence[str], by: Sequence[str], allow: Sequence[str], out: str | None) -> int:
    from visionkit.compare.by_setting import compare_by

    table = compare_by(folders, by, allow=allow)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 140
    sys.stdout.write(table.text(width=width))
    if out:
        sys.stdout.write(f"\ntable  {table.write(Path(out))}\n")
    return 0
