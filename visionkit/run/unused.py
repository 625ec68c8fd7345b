"""Nested settings that a run would not read: refused where somebody chose them. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from visionkit.errors import InputError

__all__ = ["refuse_unused"]


def refuse_unused(config: Any, unused: Mapping[str, str], *, usual: Iterable[Any]) -> None:
    """Refuse nested settings that a run would not read, unless they are as nobody chose them.

    Args:
        config: The settings of the run.
        unused: The nested settings by name, and the flag with which they would be read.
        usual: Settings that nobody chose: the defaults, and those of the variants.

    Raises:
        InputError: Some are others; the text names their flags.
    """
    bases = list(usual)
    for name, needed in unused.items():
        given = getattr(config, name)
        changed = min((_changed(given, getattr(base, name)) for base in bases), key=len)
        if changed:
            flags = ", ".join(f"--{name}.{field}" for field in changed)
            raise InputError(f"Nothing here would read {flags}. Leave it out, or use {needed}.")


def _changed(given: Any, usual: Any) -> list[str]:
    return [
        item.name
        for item in dataclasses.fields(given)
        if getattr(given, item.name) != getattr(usual, item.name)
    ]
