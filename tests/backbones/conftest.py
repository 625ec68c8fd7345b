"""Names that a test registers are given back after it."""

from __future__ import annotations

import pytest

from visionkit.backbones import registry


@pytest.fixture
def own_names(monkeypatch):
    """The registered functions, by name, as they are before the test and after it."""
    functions = dict(registry._USER.functions)
    monkeypatch.setattr(registry._USER, "functions", functions)
    return functions
