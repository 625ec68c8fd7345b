"""What the library declares is what it imports: nothing unused is installed, nothing used is missing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

import pytest

from tests.house_rules import PACKAGE, ROOT, parse

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The import name of a distribution, where it is another.
MODULES = {"faiss-cpu": "faiss", "pillow": "PIL", "pyyaml": "yaml"}


def modules(requirements):
    names = [re.match(r"[\w-]+", text).group().lower() for text in requirements]
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def run_time_imports(node):
    """Top packages that code imports when it runs, also in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module.split(".")[0]
        else:
            yield from run_time_imports(child)


@pytest.fixture(scope="module")
def imported():
    return {name for tree in parse(PACKAGE).values() for name in run_time_imports(tree)}


def test_each_base_dependency_is_imported_by_the_library(imported):
    base = modules(PROJECT["dependencies"])
    assert len(base) == len(PROJECT["dependencies"]) == 20
    assert base - imported == set()


def test_each_imported_package_is_declared(imported):
    extras = modules(text for extra in PROJECT["optional-dependencies"].values() for text in extra)
    others = imported - sys.stdlib_module_names - {"visionkit", "recipes"}
    assert len(others) >= 17
    assert others - modules(PROJECT["dependencies"]) - extras == set()


@pytest.mark.parametrize(("name", "bound"), [("torch", "<3"), ("lightning", "<3"), ("torchmetrics", "<2")])
def test_libraries_whose_private_parts_are_used_end_before_their_next_major_version(name, bound):
    text = next(text for text in PROJECT["dependencies"] if re.match(rf"{name}\b", text))
    assert bound in text.split(">=")[1].split(",")
