"""Trained tasks as files that other programs run. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.predict.export.describe import describe_file
    from visionkit.predict.export.exporter import Exported, export
    from visionkit.predict.export.metadata import read_metadata

__all__ = ["Exported", "describe_file", "export", "read_metadata"]

_HOME = {
    "Exported": "exporter",
    "describe_file": "describe",
    "export": "exporter",
    "read_metadata": "metadata",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
