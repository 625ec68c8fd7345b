"""Pages from templates: those of this folder share one head, with the style, and the same parts."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from visionkit.printable import printable

__all__ = ["render"]

HERE = "visionkit.compare.report"


def render(template: str, content: dict[str, Any], *, package: str = HERE) -> str:
    """Return a page, without the path of the user's home.

    Args:
        template: The name of a template.
        content: What it shows; text is escaped.
        package: The package that has the template; what it includes may be in this one as well.
    """
    from jinja2 import Environment, FunctionLoader

    def source(name: str) -> str | None:
        paths = [files(folder).joinpath(name) for folder in (package, HERE)]
        return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)

    environment = Environment(
        loader=FunctionLoader(source), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(template).render(**content)
    return printable(text.replace(f"{Path.home()}{os.sep}", f"~{os.sep}"))
