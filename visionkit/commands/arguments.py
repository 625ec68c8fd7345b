"""Flags of a verb: argparse with the house's error texts, so that a typo gets the nearest valid flag."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from visionkit.errors import InputError, unknown_name

__all__ = ["VerbParser"]


class VerbParser(argparse.ArgumentParser):
    """A parser that raises `InputError` instead of printing usage and leaving."""

    def __init__(self, verb: str, description: str, *, epilog: str = "") -> None:
        super().__init__(
            prog=f"visionkit {verb}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the values of `argv`.

        Raises:
            InputError: A flag is unknown (the nearest is named), a value is missing or wrong.
            SystemExit: After `--help`.
        """
        flags = [flag for action in self._actions for flag in action.option_strings]
        for arg in argv:
            if arg == "--":
                break
            name = arg.split("=", 1)[0]
            if name.startswith("-") and name != "-" and name not in flags:
                raise unknown_name("option", name, flags, hint=f"See {self.prog} --help.")
        return self.parse_args(list(argv))

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        raise InputError(f"{self.prog}: {message}. See {self.prog} --help.")
