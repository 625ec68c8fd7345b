"""Write predictions: one module a format, one row in the table. The table is read without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visionkit.predict.writers.formats import FORMATS, Format, check_formats

if TYPE_CHECKING:
    from visionkit.predict.writers.writers import Writers, open_writers

__all__ = ["FORMATS", "Format", "Writers", "check_formats", "open_writers"]

_HOME = {"Writers": "writers", "open_writers": "writers"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
