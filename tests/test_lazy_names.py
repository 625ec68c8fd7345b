"""Packages that import their names when they are used: each name is there, and no other."""

from __future__ import annotations

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_name_of_a_lazy_package_is_there():
    walked = 0
    for file in sorted((ROOT / "visionkit").rglob("__init__.py")):
        if "def __getattr__" not in file.read_text(encoding="utf-8"):
            continue
        package = importlib.import_module(".".join(file.parent.relative_to(ROOT).parts))
        missing = [name for name in package.__all__ if not hasattr(package, name)]
        assert missing == [], package.__name__
        assert set(getattr(package, "_HOME", ())) <= set(package.__all__), package.__name__
        walked += 1
    assert walked == 11
