"""Advice on what to train: a table of policies, and the similarity of a data set to look it up by."""

from __future__ import annotations

__all__: list[str] = []
