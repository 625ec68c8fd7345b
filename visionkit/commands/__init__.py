"""One module a verb of the command line: `main(argv) -> exit status`, importing what it needs late."""

from __future__ import annotations

from visionkit.commands.recipes import load_recipe

__all__ = ["load_recipe"]
