"""The real onnxruntime-web, where npm has left it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from visionkit.predict.page import Runtime, find_runtime


@pytest.fixture(scope="session")
def ort(root: Path) -> Runtime:
    """Tests that run a page skip where onnxruntime-web is absent; `nox -s page` installs it."""
    place = Path(os.environ.get("VISIONKIT_ORT_WEB", root / ".nox" / "page" / "node_modules"))
    if not place.exists():
        pytest.skip(f"onnxruntime-web is absent: {place} (nox -s page, or set VISIONKIT_ORT_WEB)")
    return find_runtime(place)
