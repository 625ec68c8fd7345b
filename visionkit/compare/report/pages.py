"""Pages from templates: those of this folder share one head, with the style, and the same parts."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from visionkit.printable import printable

__all__ = ["render"]

FOLDERS = ("visionkit.compare.report", "visionkit.compare.map")


def render(template: str, content: dict[str, Any]) -> str:
    """Return a page, without the path of the user's home.

    Args:
        template: The name of a template in `visionkit.compare.report` or `visionkit.compare.map`.
        content: What it shows; text is escaped.
    """
    from jinja2 import Environment, FunctionLoader

    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(template).render(**content)
    return printable(text.replace(f"{Path.home()}{os.sep}", f"~{os.sep}"))


def _source(name: str) -> str | None:
    paths = [files(folder).joinpath(name) for folder in FOLDERS]
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)
