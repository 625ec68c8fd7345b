"""The CPU's memory allocator, told to keep what it has: by a launcher, never by an import.

glibc hands every block above 32 MiB back to the kernel when it is freed, and takes it anew, page by page, in
the next step; on a CPU that costs more than the arithmetic on a batch. The thresholds are read once, when a
process starts, so they can only be set for a process that is about to start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

__all__ = ["RAISED", "is_tuned", "restart_tuned", "tuned_environment"]

RAISED: dict[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}
"""What is set: blocks up to 4 GiB come from the heap, which keeps up to 16 GiB of slack."""


def tuned_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which glibc keeps freed memory; what is set there already wins.

    Systems with another C library ignore it.

    Args:
        environment: What to add to; that of this process if not given.
    """
    return RAISED | dict(os.environ if environment is None else environment)


def is_tuned() -> bool:
    """Return whether this process was started with the thresholds raised."""
    return all(name in os.environ for name in RAISED)


def restart_tuned(arguments: Sequence[str]) -> None:
    """Start this interpreter anew with the thresholds raised, in place of this process; nothing if they are.

    Args:
        arguments: What follows the interpreter's name.
    """
    if not is_tuned():
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *arguments], tuned_environment())
