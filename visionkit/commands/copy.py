"""`visionkit cp`: a recipe, or what starts one on a cluster, as a file of your own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.recipes import find_file
from visionkit.errors import InputError
from visionkit.files import local_path, write_text, writing

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Copy a recipe."""
    parser = VerbParser(
        "cp",
        "Copy a recipe into a file of your own, to change it. Nothing is overwritten.",
        epilog="examples:\n  visionkit cp classify my_classify.py && python my_classify.py --help\n"
        "  visionkit cp cluster/slurm.sbatch .",
    )
    parser.add_argument("recipe", help="as in `visionkit ls recipes`: classify, cluster/slurm.sbatch")
    parser.add_argument("file", help="where to write it")
    args = parser.parse(argv)
    source, target = find_file(args.recipe), local_path(args.file, "a file to write")
    if target.is_dir():
        target = target / source.name
    if not target.parent.is_dir():
        raise InputError(f"Expected {target.parent} to be a folder, but there is none. Make it first.")
    if os.path.lexists(target):
        raise InputError(f"{target} is there already, and nothing is overwritten. Give another name.")
    with writing(target.parent):
        write_text(target, source.read_text(encoding="utf-8"))
    sys.stdout.write(f"{target}\n")
    return 0
