"""One run of a recipe: seeded, and with the reason in its folder where it has no result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from visionkit.errors import PreemptedError
from visionkit.files import write_text
from visionkit.printable import printable
from visionkit.run.config import RunConfig
from visionkit.run.processes.stop import listening

__all__ = ["train_one"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def train_one(train: Callable[[ConfigT, Path], dict[str, Any]], one: ConfigT, folder: Path) -> dict[str, Any]:
    """Seed, and train one run; the reason why it has no result goes into its folder.

    Args:
        train: Trains one run in a folder and returns its result.
        one: Its settings: one init, seed, fraction and fold.
        folder: Its folder.
    """
    import lightning

    from visionkit.run.processes.launcher import is_first

    if is_first():
        (folder / "error.txt").unlink(missing_ok=True)  # of an earlier start
    lightning.seed_everything(one.seeds[0], workers=False, verbose=False)
    try:
        with listening():  # also in a child process
            return train(one, folder)
    except Exception as error:
        # A comparison reads it.
        if is_first() and not isinstance(error, PreemptedError) and (folder / "config.yaml").exists():
            with contextlib.suppress(OSError):
                text = printable(f"{type(error).__name__}: {error}\n")
                write_text(folder / "error.txt", text)
        raise
