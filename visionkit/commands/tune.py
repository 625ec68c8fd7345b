"""`visionkit tune`: start a command with glibc's memory allocator set for training."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence

from visionkit.errors import InputError

__all__ = ["main"]

USAGE = """usage: visionkit tune COMMAND [its arguments]

Start a command, in place of this one, with glibc's memory allocator set to keep what it frees:
{settings}

Batches of floats above 32 MiB then cost no page faults, which on a CPU can outweigh the arithmetic on them;
the process keeps its peak memory instead. Variables that are set already are not changed.
On systems with another C library (macOS, Alpine) it prints that the settings have no effect.

example:
  visionkit tune python recipes/classify.py --data photos/
"""


def main(argv: Sequence[str]) -> int:
    """Replace this process by the command."""
    from visionkit.run.processes.malloc import RAISED, tuned_environment

    if not argv or argv[0] in ("-h", "--help"):
        settings = "\n".join(f"  {name}={value}" for name, value in RAISED.items())
        sys.stdout.write(USAGE.format(settings=settings))
        return 0
    program = shutil.which(argv[0])
    if program is None:
        text = f"Expected a command to start, but there is no {argv[0]!r}."
        raise InputError(f"{text} See visionkit tune --help.")
    if platform.libc_ver()[0] != "glibc":
        sys.stderr.write("visionkit tune: the C library is not glibc; the settings change nothing.\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, list(argv), tuned_environment())
