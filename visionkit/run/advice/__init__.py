"""Advice on a data set by measurement: how similar it is to what the weights were trained on."""

from __future__ import annotations

__all__: list[str] = []
