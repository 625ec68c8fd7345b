"""Which pixels a score comes from."""

from __future__ import annotations

__all__: list[str] = []
