"""Plain values as text for the tables of the report."""

from __future__ import annotations

from typing import Any

__all__ = ["value_text"]


def value_text(value: Any, max_length: int = 400) -> str:
    """Return a value as text: "yes", "0.001", "a, b"; longer ones are cut."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        value = ", ".join(value_text(item) for item in value)
    text = str(value)
    return text if len(text) <= max_length else f"{text[:max_length]} ... ({len(text):,} characters)"
