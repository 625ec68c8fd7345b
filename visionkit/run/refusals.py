"""Errors for values that the parser of flags and files refused: the setting, its type and the value."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any, Literal, Union

from visionkit.errors import InputError, nearest

__all__ = ["describe_type", "explain_refusal"]

KEY = re.compile(r'(?:Parser key "|argument --)([\w.]+)')
VALUE = re.compile(r"(?:Got value|Given value): (.*)")
PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def explain_refusal(config: type, error: Exception) -> InputError:
    """Return the error for a value that the parser refused: the setting, what it takes, what came.

    Args:
        config: The dataclass whose setting it is.
        error: What the parser raised; it names the setting and the value.
    """
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    keys, values = KEY.findall(text), VALUE.findall(text)
    hint = _find(config, keys[-1]) if keys else None
    if hint is None:
        return InputError(f"A setting is not valid: {text[:600]} See --help.")
    name = keys[-1]
    if dataclasses.is_dataclass(hint):
        inner = [f"--{name}.{item.name}" for item in dataclasses.fields(hint)]
        return InputError(f"Expected --{name} to be given part by part: {', '.join(inner)}.")
    allowed = describe_type(hint)
    if not values:
        return InputError(f"Expected a value after --{name}: {allowed}. See --help.")
    got = values[-1].removesuffix(" See --help.").strip()
    close = nearest(got, _words(hint))
    near = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return InputError(f"Expected --{name} to be {allowed}, but got {got!r}.{near} See --help.")


def describe_type(hint: Any) -> str:
    """Return the values that a type annotation allows, in words: "a whole number, 'all' or null"."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _join([repr(word) for word in inside])
    if origin in (Union, types.UnionType):
        return _join([describe_type(part) for part in inside])
    if origin in (list, tuple):
        parts = [part for part in inside if part is not Ellipsis]
        if len(parts) > 1:
            return f"a list [{', '.join(describe_type(part) for part in parts)}]"
        return f"a list [...] with {describe_type(parts[0])} in each place"
    return getattr(hint, "__name__", str(hint))


def _find(config: type, name: str) -> Any:
    hint: Any = config
    for part in name.split("."):
        if not dataclasses.is_dataclass(hint):
            return None
        hint = typing.get_type_hints(hint).get(part)
    return hint


def _words(hint: Any) -> list[str]:
    if typing.get_origin(hint) is Literal:
        return [str(word) for word in typing.get_args(hint)]
    return [word for part in typing.get_args(hint) for word in _words(part)]


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
