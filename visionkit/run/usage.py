"""The help of a recipe: one line a flag, grouped, in under sixty lines, made from the config dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["format_usage"]

WIDTH = 110
_ARGUMENT = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def format_usage(
    config: type,
    *,
    doc: str = "",
    prog: str = "",
    variants: Sequence[Callable[..., Any]] = (),
    everything: bool = False,
) -> str:
    """Return the help text of a config dataclass.

    Args:
        config: Dataclass whose fields carry `help` and `group` metadata.
        doc: What the program does, with its launch lines.
        prog: Its name.
        variants: Named settings, listed with the first line of their docstrings.
        everything: List the rare settings and the nested ones too.
    """
    groups: dict[str, list[str]] = {}
    rare = 0
    for item in dataclasses.fields(config):
        if item.metadata.get("rare") and not everything:
            rare += 1
            continue
        value, text = _default(item), item.metadata.get("help", "")
        lines = groups.setdefault(item.metadata.get("group", "task"), [])
        if dataclasses.is_dataclass(value):
            names = ", ".join(inner.name for inner in dataclasses.fields(value))
            lines.append(_flag(item.name + ".NAME", f"{text}: {names}"))
            if everything:
                lines += _nested(item.name, value)
        else:
            lines.append(_flag(item.name, f"{text} [{_show(value)}]"))
    out = [doc.strip(), ""] if doc else []
    out.append(f"usage: {prog or 'recipe'} [--config FILE] [--FLAG VALUE ...]")
    for name, lines in groups.items():
        out += [f"{name}:", *lines]
    if variants:
        out.append("--variant NAME:")
        out += [_fold(f"  {v.__name__}".ljust(24) + _summary(v)) for v in variants]
    more = f"{rare} rarer, nested" if rare else "nested"
    out.append(
        "also: --config YAML, --print_config, --dry_run, --find_lr, --find_batch_size, --debug, "
        f"--help=all ({more})"
    )
    return "\n".join(out)


def _nested(group: str, value: Any) -> list[str]:
    """Return a line for each field of a nested dataclass; its help is the first sentence of the docstring."""
    help_texts = {
        name: re.split(r"(?<!al)\.(?:\s|$)", " ".join(text.split()))[0]
        for name, text in _ARGUMENT.findall(inspect.getdoc(type(value)) or "")
    }
    lines = []
    for inner in dataclasses.fields(value):
        text = f"{help_texts.get(inner.name, '')} [{_show(getattr(value, inner.name))}]"
        lines.append(_fold(f"    --{group}.{inner.name}".ljust(36) + text, indent=36))
    return lines


def _flag(name: str, text: str) -> str:
    return _fold(f"  --{name}".ljust(24) + text)


def _summary(variant: Callable[..., Any]) -> str:
    return (variant.__doc__ or "").strip().splitlines()[0].removeprefix("Variant: ")


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(str(part) for part in value) or "none"
    return "none" if value is None else str(value) or "none"


def _fold(line: str, *, indent: int = 24) -> str:
    lead = line[:indent]  # the flag, with the spaces after it
    rows = textwrap.wrap(line[indent:], WIDTH - indent, break_long_words=False)
    return lead + f"\n{' ' * indent}".join(rows)
