"""Flags of a verb: argparse with errors that name the nearest valid flag."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from visionkit.config import StreamConfig, TableConfig
from visionkit.errors import InputError, unknown_name

__all__ = ["VerbParser", "add_stream", "add_table", "stream_config", "stream_values", "table_config"]


class VerbParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `InputError` instead of exiting.

    Args:
        verb: The verb's name.
        description: What it does.
        epilog: Examples.
        loads: Whether the verb imports torch next: a terminal is told so, for that takes seconds.
    """

    def __init__(self, verb: str, description: str, *, epilog: str = "", loads: bool = False) -> None:
        self._loads = loads
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
        values = self.parse_args(list(argv))
        if self._loads and sys.stderr.isatty():
            sys.stderr.write(f"{self.prog}: loading libraries.\n")
            sys.stderr.flush()
        return values

    def error(self, message: str) -> NoReturn:
        """Raise an error of argparse as an `InputError`."""
        raise InputError(f"{self.prog}: {message}. See {self.prog} --help.")


def add_table(parser: VerbParser, default: str) -> None:
    """Add the flags of how a table of images is read.

    Args:
        parser: The verb's flags.
        default: Kind of the targets without `--target`, for the help text.
    """
    parser.add_argument(
        "--target",
        default="",
        choices=("", "single", "multi", "regression"),
        metavar="KIND",
        help=f"tables: single | multi | regression (default: {default})",
    )
    parser.add_argument("--table.image", default="", metavar="NAME", help="tables: the column of paths")
    parser.add_argument(
        "--table.target", default=[], nargs="+", metavar="NAME", help="the columns of targets"
    )
    parser.add_argument("--table.separator", default="", metavar="TEXT", help="the text between names")
    parser.add_argument("--table.root", default="", metavar="FOLDER", help="the folder of the images")


def add_stream(parser: VerbParser) -> None:
    """Add the flags of how a pack at an address is read.

    Args:
        parser: The verb's flags.
    """
    parser.add_argument(
        "--stream.cache", default="", metavar="FOLDER", help="a pack at an address: where shards are kept"
    )
    parser.add_argument(
        "--stream.max_gb",
        type=float,
        metavar="GB",
        help=f"at most this much (default {StreamConfig.max_gb:g})",
    )


def stream_config(args: argparse.Namespace) -> StreamConfig:
    """Return the values of the flags of `add_stream`; what is read in order mixes no shards.

    Args:
        args: The verb's values.
    """
    return StreamConfig(**stream_values(args), window=1)


def stream_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `StreamConfig` that were given, and the folder: a bound alone is of no use.

    Args:
        args: The verb's values.
    """
    values = {"cache": vars(args)["stream.cache"], "max_gb": vars(args)["stream.max_gb"]}
    return {name: value for name, value in values.items() if value is not None}


def table_config(args: argparse.Namespace) -> TableConfig:
    """Return the values of the flags of `add_table`.

    Args:
        args: The verb's values.
    """
    values = vars(args)
    return TableConfig(
        image=values["table.image"],
        target=list(values["table.target"]),
        separator=values["table.separator"],
        root=values["table.root"],
    )
