"""Syntax trees of source files, each taken apart once for all the rules that ask."""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path

__all__ = ["dotted", "parse_file", "walk"]


@cache
def parse_file(path: Path) -> ast.Module:
    """The tree of a file, made without collections: of a tree nothing is garbage, and it is large."""
    text, enabled = path.read_text(encoding="utf-8"), gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if enabled:
            gc.enable()


@cache
def walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Every node of a tree, as `ast.walk` gives them."""
    return tuple(ast.walk(tree))


def dotted(node: ast.AST) -> str:
    """What `ast.unparse` gives for a node: for a name and its attributes without its machinery."""
    parts: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name):
        return ast.unparse(node)
    return ".".join([inner.id, *reversed(parts)])
