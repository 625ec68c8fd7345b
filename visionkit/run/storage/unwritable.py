"""What to say of a folder that cannot be made or written: what is in the way, and what helps."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from visionkit.errors import RunError

__all__ = ["FULL", "unwritable"]

FULL = (errno.ENOSPC, errno.EDQUOT)


def unwritable(folder: Path, error: OSError) -> RunError:
    """Return the error for a folder that could not be written.

    Args:
        folder: What was to be written into.
        error: What the system said.
    """
    what = f"Expected to be able to write into {folder}, but"
    there = next((place for place in (folder, *folder.absolute().parents) if _exists(place)), Path("/"))
    if error.errno in FULL:
        free = shutil.disk_usage(there).free
        return RunError(
            f"{what}: {error.strerror} ({free} bytes are free). Free some space, or choose another --out."
        )
    if there.is_file():
        return RunError(f"{what} {there} is a file, not a folder. Choose another --out.")
    at = f" ({error.filename})" if error.filename else ""
    return RunError(f"{what}: {error.strerror or error}{at}. Choose another --out.")


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # in a folder that may not be entered
        return False
