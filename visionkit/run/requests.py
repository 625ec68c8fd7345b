"""What the caller of a recipe asks of the runs inside it, beside their settings. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

__all__ = ["FINDERS", "Requests", "asking", "requests"]

FINDERS = ("batch_size", "lr")
"""What can be looked for before a training, in this order: `--find_batch_size`, `--find_lr`."""


@dataclass(frozen=True)
class Requests:
    """What is asked of every run that is started inside.

    Args:
        find: Instead of training, look for these: names of `FINDERS`.
        callbacks: Callbacks besides those of the recipe, such as a pruner's.
        command: The command line, to which a finding is added as a flag.
        test: Whether the test split is evaluated.
        measure: Instead of training, time some steps.
        dry_run: Print the plan of the command, and start nothing.
    """

    find: tuple[str, ...] = ()
    callbacks: tuple[Callback, ...] = ()
    command: tuple[str, ...] = ()
    test: bool = True
    measure: bool = False
    dry_run: bool = False


_NOW = [Requests()]


def requests() -> Requests:
    """Return what is asked of the runs of this process now."""
    return _NOW[-1]


def trains() -> bool:
    """Return whether the runs of this process train: --dry_run and --find_lr end without results."""
    now = requests()
    return not (now.dry_run or now.find or now.measure)


@contextmanager
def asking(
    *,
    find: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    command: Sequence[str] = (),
    test: bool | None = None,
    measure: bool = False,
    dry_run: bool = False,
) -> Iterator[None]:
    """Ask something of every run inside the block; what is not given stays as asked around it.

    Args:
        find: See `Requests`.
        callbacks: See `Requests`.
        command: See `Requests`.
        test: See `Requests`.
        measure: See `Requests`.
        dry_run: See `Requests`.
    """
    now = _NOW[-1]
    changed = dataclasses.replace(
        now,
        find=tuple(find) or now.find,
        callbacks=tuple(callbacks) or now.callbacks,
        command=tuple(command) or now.command,
        test=now.test if test is None else test,
        measure=measure or now.measure,
        dry_run=dry_run or now.dry_run,
    )
    _NOW.append(changed)
    try:
        yield
    finally:
        _NOW.pop()
