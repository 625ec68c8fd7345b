"""Write one page of reference a package, from what the package exports."""

from __future__ import annotations

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "errors": "Errors",
    "types": "Samples, batches and predictions",
    "config": "Settings",
    "task_config": "Settings of tasks, as recipes nest them",
    "backbones": "Backbones",
    "nn": "Parts of networks",
    "data": "Data",
    "metrics": "Metrics",
    "optim": "Optimisers and schedules",
    "transfer": "What an init implies",
    "text": "Words",
    "tasks": "Tasks",
    "run": "Runs",
    "predict": "Predictions",
    "retrieval": "Search of images",
    "interpret": "What a network does",
    "compare": "Comparisons of finished runs",
}


STEPS = ROOT / "docs" / "explanation" / "what-happens-when-you-run-a-recipe.md"


def linked_functions(page: Path) -> list[str]:
    """The full names of the functions that a page links to."""
    return re.findall(r"{py:func}`([\w.]+)`", page.read_text(encoding="utf-8"))


def write_reference(folder: Path) -> list[Path]:
    """Write the pages that changed; return all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for name, title in PACKAGES.items():
        names = exported(name)
        if name == "task_config":  # what a task takes is described with the tasks
            names = [item for item in names if item not in exported("tasks")]
        if not names:
            continue
        text = f"{title}\n{'=' * len(title)}\n\n.. py:currentmodule:: visionkit.{name}\n\n"
        text += f"``from visionkit.{name} import ...``\n\n"
        text += "".join(directive(name, item) for item in names)
        page = folder / f"{name}.rst"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
        pages.append(page)
    title = "Functions between a recipe and a step"
    text = f"{title}\n{'=' * len(title)}\n\n"
    text += "".join(f".. autofunction:: {name}\n\n" for name in linked_functions(STEPS))
    page = folder / "steps.rst"
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
    return [*pages, page]


def exported(name: str) -> list[str]:
    """What `visionkit.<name>` puts into `__all__`."""
    path = ROOT / "visionkit" / name / "__init__.py"
    path = path if path.exists() else ROOT / "visionkit" / f"{name}.py"
    if not path.exists():
        return []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return list(ast.literal_eval(node.value))
    return []


def directive(package: str, item: str) -> str:
    """The autodoc directive for one name, by what it is."""
    import importlib

    value = getattr(importlib.import_module(f"visionkit.{package}"), item)
    if inspect.isclass(value):
        return f".. autoclass:: {item}\n   :members:\n\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {item}\n\n"
    text = described(package, item).replace("\n", "\n   ")
    return f".. py:data:: {item}\n\n   {text}\n\n"


def described(package: str, item: str) -> str:
    """The text below a constant where it is assigned: Python keeps none at run time."""
    folder = ROOT / "visionkit" / package
    module = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and item in {alias.name for alias in node.names}:
            module = ROOT / f"{(node.module or '').replace('.', '/')}.py"
    body = ast.parse(module.read_text(encoding="utf-8")).body
    for node, after in pairwise(body):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == item for target in targets):
            value = getattr(after, "value", None)
            return inspect.cleandoc(value.value) if isinstance(value, ast.Constant) else ""
    return ""
