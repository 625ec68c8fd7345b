"""Signatures that can be read: settings by the name of their class, and a task's own arguments."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from sphinx.util.inspect import signature, stringify_signature

ANYTHING = "(*args: Any, **kwargs: Any)"


class Shown:
    """A default as it is shown."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def named(value: Any) -> str:
    """A value as it is written in code: of a dataclass its name, and what differs from its defaults."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    given = []
    for field in dataclasses.fields(value):
        mine = getattr(value, field.name)
        if mine != default_of(field):
            given.append(f"{field.name}={named(mine)}")
    return f"{type(value).__name__}({', '.join(given)})"


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field, made anew where it is made for each object."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def readable(cls: type) -> str:
    """The signature of a class with its defaults by name."""
    found = signature(cls.__init__, bound_method=True)  # type: ignore[misc]
    fields = {field.name: field for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    parameters = []
    for name, parameter in found.parameters.items():
        default = parameter.default
        if name in fields and default is not inspect.Parameter.empty:
            default = Shown(named(default_of(fields[name])))
        elif dataclasses.is_dataclass(default):
            default = Shown(named(default))
        parameters.append(parameter.replace(default=default))
    shown = found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return stringify_signature(shown, unqualified_typehints=True)


def process_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, text: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Replace the signature of a dataclass, and of a class whose base's `__new__` takes anything."""
    if (
        what == "class"
        and text
        and (dataclasses.is_dataclass(obj) or text.replace("~typing.", "") == ANYTHING)
    ):
        return readable(obj), None
    return None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-signature", process_signature)
    return {"parallel_read_safe": True}
