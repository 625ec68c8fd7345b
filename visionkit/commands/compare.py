"""`visionkit compare`: compare finished runs."""

from __future__ import annotations

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
        "Refuses runs that differ in more than init, seed and fraction.",
        epilog="examples:\n  visionkit compare runs/compare\n  visionkit compare runs/a runs/b --out runs/ab",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="run folders, or folders that hold them")
    parser.add_argument("--out", help="write report.html, comparison.json and figures/ there")
    parser.add_argument(
        "--allow", nargs="+", default=[], metavar="NAME", help="what else may differ (lr, optim.schedule)"
    )
    args = parser.parse(argv)
    from visionkit.compare.comparison import compare
    from visionkit.compare.report.report import write_report
    from visionkit.compare.summary import print_summary

    comparison = compare(args.folders, allow=args.allow)
    print_summary(comparison)
    if args.out:
        sys.stdout.write(f"\nreport  {write_report(comparison, Path(args.out))}\n")
    else:
        sys.stdout.write("\nNothing was written; --out FOLDER writes the report.\n")
    return 0
