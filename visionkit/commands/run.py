"""`visionkit run`: start a recipe with its flags, as `python recipe.py` would."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from visionkit.commands.recipes import find_recipe, list_applications, list_recipes, summary
from visionkit.errors import InputError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run a recipe."""
    if not argv or argv[0] in ("-h", "--help"):
        known = list_recipes() | list_applications()
        width = max(map(len, known)) + 2
        rows = "".join(f"  {name:<{width}}{summary(path)}\n" for name, path in known.items())
        sys.stdout.write(
            "usage: visionkit run RECIPE [flags of the recipe]\n\n"
            f"recipes, or the path of a .py file:\n{rows}\n"
            "`visionkit run RECIPE --help` lists its flags.\n"
        )
        return 0
    if argv[0].startswith("-"):
        raise InputError(
            f"Expected a recipe first, but got {argv[0]!r}. Use: visionkit run RECIPE {argv[0]} ..."
        )
    path = str(find_recipe(argv[0]))
    before = sys.argv
    # The other processes of a run are started from sys.argv, which must name a script as with python.
    sys.argv = [path, *argv[1:]]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return _status(end)
    finally:
        sys.argv = before
    return 0


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return int(end.code or 0)
    sys.stderr.write(f"{end.code}\n")
    return 1
