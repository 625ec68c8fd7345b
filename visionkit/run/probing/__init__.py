"""Probes: how well a linear classifier on the frozen features of each level does, by amount of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.run.probing.figure import measured_figure

__all__ = ["measured_figure"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from visionkit.run.probing.figure import measured_figure  # matplotlib, which advice does not need

    return measured_figure
