"""Every base dependency is imported by the library at run time; what only tests import is no dependency."""

from __future__ import annotations

import ast
import re
import tomllib

from tests.house_rules import PACKAGE, ROOT, parse

MODULES = {"pillow": "PIL", "pyyaml": "yaml"}


def test_every_base_dependency_is_imported_at_run_time() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]]
    assert len(names) >= 14
    modules = {MODULES.get(name, name.replace("-", "_")) for name in names}
    imported = {top for tree in parse(PACKAGE).values() for top in _imports(tree)}
    assert modules <= imported, f"not imported at run time: {sorted(modules - imported)}"


def _imports(tree: ast.AST) -> set[str]:
    """The top packages that a module imports, those for type checkers alone left out."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).split(".")[0])
        names |= _imports(node)
    return names
