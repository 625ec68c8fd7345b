"""Images made by following the gradient of a network's maps: dreams, style transfer."""

from __future__ import annotations

__all__: list[str] = []
