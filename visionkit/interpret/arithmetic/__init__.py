"""What layers do to sizes, and what they cost: formulas, and a table of any network by them."""

from __future__ import annotations

__all__: list[str] = []
