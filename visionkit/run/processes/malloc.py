"""Settings with which glibc's malloc keeps freed memory: made by a launcher, never by an import.

glibc hands every block above 32 MiB back to the kernel when it is freed, and takes it anew, page by page, in
the next step; on a CPU that costs more than the arithmetic on a batch. The thresholds are read once, when a
process starts, so they can only be set for a process that is about to start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["RAISED", "tuned_environment"]

RAISED: dict[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Blocks up to 4 GiB come from the heap, which keeps up to 16 GiB of slack."""


def tuned_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which glibc keeps freed memory; what is set there already wins.

    Systems with another C library ignore it.

    Args:
        environment: The one to add to; that of this process if not given.
    """
    return RAISED | dict(os.environ if environment is None else environment)
