"""Where recipes are: in the installed package, or in the checkout that it is installed from."""

from __future__ import annotations

import ast
from pathlib import Path

import visionkit
from visionkit.errors import RunError, unknown_name

__all__ = ["find_recipe", "list_recipes", "summary"]


def list_recipes() -> dict[str, Path]:
    """Return every recipe by name.

    Raises:
        RunError: There is no folder of recipes: the installation is incomplete.
    """
    package = Path(visionkit.__file__).resolve().parent
    for folder in (package / "_recipes", package.parent / "recipes"):
        found = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
        if found:
            return found
    raise RunError(
        f"No recipes beside {package}: the installation is incomplete. Install visionkit again from its "
        "wheel or its checkout."
    )


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, named as in `visionkit ls recipes` or by its path.

    Raises:
        InputError: There is no such recipe; names the nearest.
    """
    known = list_recipes()
    if name.endswith(".py") and Path(name).is_file():
        return Path(name).resolve()
    if name.removesuffix(".py") in known:
        return known[name.removesuffix(".py")]
    raise unknown_name(
        "recipe", name, known, hint="See `visionkit ls recipes`, or give the path of a .py file."
    )


def summary(path: Path) -> str:
    """Return the first line of a recipe's docstring, without running it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
