"""Where recipes are: in the installed package, or in the checkout that it is installed from."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import visionkit
from visionkit.errors import RunError, unknown_name

__all__ = [
    "find_file",
    "find_recipe",
    "list_applications",
    "list_cluster_files",
    "list_recipes",
    "load_recipe",
    "summary",
]


def list_recipes() -> dict[str, Path]:
    """Return every recipe by name.

    Raises:
        RunError: There is no folder of recipes: the installation is incomplete.
    """
    package = Path(visionkit.__file__).resolve().parent
    for folder in (package / "_recipes", package.parent / "recipes"):
        recipes = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
        if recipes:
            return recipes
    raise RunError(
        f"No recipes beside {package}: the installation is incomplete. Install visionkit again from its "
        "wheel or its checkout."
    )


def list_applications() -> dict[str, Path]:
    """Return the recipes of a single application, as "apps/NAME"."""
    folder = next(iter(list_recipes().values())).parent / "apps"
    return {f"apps/{path.stem}": path for path in sorted(folder.glob("*.py"))}


def list_cluster_files() -> dict[str, Path]:
    """Return what starts a recipe on a cluster: batch scripts, launchers, job files, as "cluster/NAME"."""
    folder = next(iter(list_recipes().values())).parent / "cluster"
    kinds = (".sbatch", ".yaml", ".py")
    return {f"cluster/{path.name}": path for path in sorted(folder.glob("*")) if path.suffix in kinds}


def find_file(name: str) -> Path:
    """Return the file of a recipe, or of what starts one on a cluster ("cluster/slurm.sbatch").

    Raises:
        InputError: There is no such file; names the nearest.
    """
    others = list_cluster_files()
    if name in others:
        return others[name]
    if name.startswith("cluster"):
        raise unknown_name("cluster file", name, others, hint="See `visionkit ls recipes`.")
    return find_recipe(name)


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, named as in `visionkit ls recipes` or by its path.

    Raises:
        InputError: There is no such recipe; names the nearest.
    """
    known = list_recipes() | list_applications()
    if name.endswith(".py") and Path(name).is_file():
        return Path(name).resolve()
    if name.removesuffix(".py") in known:
        return known[name.removesuffix(".py")]
    raise unknown_name(
        "recipe", name, known, hint="See `visionkit ls recipes`, or give the path of a .py file."
    )


def load_recipe(name: str, *, beside: str | Path) -> ModuleType:
    """Return a recipe as a module: the file of this name in the folder of `beside`, else the installed one.

    A recipe that builds on another one thus works as a copy alone, and uses the user's where it is there.

    Args:
        name: As in `visionkit ls recipes`.
        beside: The file that asks.

    Raises:
        InputError: There is no such recipe; names the nearest.
    """
    asking = Path(beside).resolve()
    path = asking.parent / f"{name}.py"
    if path == asking or not path.is_file():
        path = find_recipe(name)
    known = sys.modules.get(name)
    if known is not None and Path(known.__file__ or "").resolve() == path:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RunError(f"Expected {path} to be a Python file, but it cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def summary(path: Path) -> str:
    """Return the first line of a recipe's docstring, or of a job file's comment, without running it."""
    if path.suffix != ".py":
        lines = path.read_text(encoding="utf-8").splitlines()
        return next(line.removeprefix("# ") for line in lines if line.startswith("# "))
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
