"""Private names of other libraries in the code of this one."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.syntax import dotted, walk

__all__ = ["names_of_others"]

# Those that any module may use, each with its reason.
ALLOWED = {
    "_apply": "modules override it to move what is no buffer; torchmetrics does too",
    "_load_from_state_dict": "modules override it to read older state dicts; torch documents it",
    "_replace": "public: a named tuple's",
    "_asdict": "public: a named tuple's",
    "_exit": "public: os._exit",
    "_actions": "argparse lists its flags nowhere else",
}
# Where torch's modules keep their parts: no name of ours, also where it is set through __dict__.
MODULE_TABLES = {"_parameters", "_buffers", "_modules"}


def names_of_others(tree: dict[str, ast.Module]) -> list[str]:
    """Private names that no module of the package defines are another library's: for compat.py only."""
    usable = {name for module in tree.values() for node in walk(module) for name in defined(node)}
    usable |= ALLOWED.keys()
    return [
        f"{path}:{node.lineno}: {name} is another library's: only compat.py may use it"
        for path, module in tree.items()
        if path != "compat.py"
        for node in walk(module)
        for name in used(node)
        if name.startswith("_") and not name.startswith("__") and name not in usable
    ]


def defined(node: ast.AST) -> Iterator[str]:
    """Names of a function or class, of a variable, of an attribute of `self`, or set through `__dict__`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield from [node.attr] if dotted(node.value) == "self" else []
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        yield from set(key_of_dict(node)) - MODULE_TABLES


def used(node: ast.AST) -> Iterator[str]:
    """Names of an attribute, also by `getattr` and `__dict__`, and the parts of an import from elsewhere."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Subscript):
        yield from key_of_dict(node)
    elif isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "setattr", "hasattr"):
        yield from (str(item.value) for item in node.args[1:2] if isinstance(item, ast.Constant))
    elif isinstance(node, ast.Import):
        yield from (part for alias in node.names for part in alias.name.split("."))
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        names = [*node.module.split("."), *(alias.name for alias in node.names)]
        yield from names if names[0] != "visionkit" else []


def key_of_dict(node: ast.Subscript) -> list[str]:
    """The constant in `x.__dict__["name"]`."""
    inside = isinstance(node.slice, ast.Constant) and dotted(node.value).endswith("__dict__")
    return [str(node.slice.value)] if inside else []
