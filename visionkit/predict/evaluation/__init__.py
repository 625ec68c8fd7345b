"""Evaluate a trained model on any data set of its kind: its own data, its classes, its scores and figures."""

from __future__ import annotations

__all__: list[str] = []
