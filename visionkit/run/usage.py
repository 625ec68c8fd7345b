"""The help of a recipe: one line a flag, grouped, in under sixty lines, made from the config dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["format_usage"]

WIDTH = 110


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
        everything: List the nested settings one by one too.
    """
    groups: dict[str, list[str]] = {}
    rare = 0
    for item in dataclasses.fields(config):
        if item.metadata.get("rare") and not everything:
            rare += 1
            continue
        value = _default(item)
        lines = groups.setdefault(item.metadata.get("group", "task"), [])
        if dataclasses.is_dataclass(value):
            names = [inner.name for inner in dataclasses.fields(value)]
            lines.append(f"  --{item.name}.NAME".ljust(24) + f"{item.metadata['help']}: {', '.join(names)}")
            if everything:
                lines += [
                    f"    --{item.name}.{inner.name}".ljust(34) + _show(getattr(value, inner.name))
                    for inner in dataclasses.fields(value)
                ]
        else:
            text = item.metadata.get("help", "")
            lines.append(f"  --{item.name}".ljust(24) + f"{text} [{_show(value)}]")
    out = [doc.strip(), ""] if doc else []
    out.append(f"usage: {prog or 'recipe'} [--config FILE] [--FLAG VALUE ...]")
    for name, lines in groups.items():
        out += [f"{name}:", *(_fold(line) for line in lines)]
    if variants:
        out.append("--variant NAME:")
        out += [_fold(f"  {v.__name__}".ljust(24) + _summary(v)) for v in variants]
    more = f"{rare} rarer and the nested settings" if rare else "nested settings"
    out.append(f"also: --config FILE (YAML; flags win), --print_config, --debug, --help=all ({more})")
    return "\n".join(out)


def _summary(variant: Callable[..., Any]) -> str:
    return (variant.__doc__ or "").strip().splitlines()[0].removeprefix("Variant: ")


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(str(part) for part in value) or "none"
    return "none" if value is None else str(value) or "none"


def _fold(line: str) -> str:
    if len(line) <= WIDTH:
        return line
    cut = line.rfind(" ", 0, WIDTH)
    return f"{line[:cut]}\n{' ' * 24}{line[cut + 1 :]}"
