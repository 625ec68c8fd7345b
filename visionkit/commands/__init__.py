"""One module for each verb of the command line: `main(argv) -> exit status`, with heavy imports inside."""

from __future__ import annotations

from visionkit.commands.arguments import VerbParser
from visionkit.commands.recipes import load_recipe

__all__ = ["VerbParser", "load_recipe"]
