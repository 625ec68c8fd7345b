"""The command line of a recipe: flags, a YAML file and variants become its config. No torch."""

from __future__ import annotations

import copy
import dataclasses
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from visionkit.config import check_limits
from visionkit.errors import InputError, expected, unknown_name
from visionkit.run.config import DefaultList, RunConfig, to_dict
from visionkit.run.refusals import explain_refusal
from visionkit.run.usage import format_usage

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["flag_names", "from_settings", "parse", "read_config", "read_mapping", "setting_names"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def parse(
    config: type[ConfigT],
    argv: Sequence[str] | None = None,
    *,
    variants: Sequence[Callable[[ConfigT], ConfigT]] = (),
    doc: str = "",
    prog: str = "",
) -> ConfigT:
    """Return `config` filled from a variant, from YAML (`--config FILE`) and from flags; the later wins.

    Args:
        config: The recipe's dataclass.
        argv: The arguments; those of the process if not given.
        variants: Functions that turn the defaults into a named setting; `--variant NAME` picks one.
        doc: The recipe's module docstring, printed at the top of the help.
        prog: The name of the program in the help.

    Raises:
        InputError: A flag, a YAML key or a value is not valid; the text gives the nearest valid one.
        SystemExit: After `--help` or `--print_config`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if any(arg in ("-h", "--help", "--help=all") for arg in args):
        print(format_usage(config, doc=doc, prog=prog, variants=variants, everything="--help=all" in args))  # noqa: T201
        raise SystemExit(0)
    show = "--print_config" in args
    args = _join_lists(config, [arg for arg in args if arg != "--print_config"])
    known = flag_names(config)
    for arg in args:
        name = arg.split("=", 1)[0]
        if name.startswith("--") and name not in known:
            raise unknown_name("option", name, known, hint="See --help=all.")
    _check_given(config, args)
    variant, args = _take_variant(args)
    base = _vary(config, variant, {item.__name__: item for item in variants}) if variant else {}
    made = _parse_typed(config, args, base)
    if show:
        print(yaml.safe_dump(_shown(made), sort_keys=False), end="")  # noqa: T201
        raise SystemExit(0)
    return made


def _shown(made: RunConfig) -> dict[str, Any]:
    """Return the settings as a file has them: without the lists that are left to `--budget`."""
    left = [name for name, value in vars(made).items() if made.budget and isinstance(value, DefaultList)]
    return {name: value for name, value in to_dict(made).items() if name not in left}


def _check_given(config: type[ConfigT], args: Sequence[str]) -> None:
    """Check the numbers among the flags against their limits.

    The parsed config is checked again; this check comes before the parser's import of a recipe's annotations.
    """
    made: Any = config()
    words = [word for arg in args for word in arg.split("=", 1)]
    for flag, text in pairwise(words):
        group, _, name = flag.removeprefix("--").rpartition(".")
        owner: Any = getattr(made, group, None) if group else made
        default = getattr(owner, name, None)
        if not flag.startswith("--") or type(default) not in (int, float):
            continue
        try:
            value = float(text) if isinstance(default, float) else int(text)
        except ValueError:  # the parser says what it takes
            continue
        if group:
            setattr(made, group, dataclasses.replace(owner, **{name: value}))
        else:
            setattr(made, name, value)
    check_limits(made, prefix="--")


def flag_names(config: type) -> list[str]:
    """Return every flag of a config dataclass, nested ones dotted, `--config` and `--variant`."""
    return [f"--{name}" for name in setting_names(config)] + ["--config", "--variant"]


def read_config(config: type[ConfigT], path: str | Path) -> ConfigT:
    """Return `config` filled from a YAML file.

    Raises:
        InputError: The file cannot be read, or a key or value in it is not valid.
    """
    return _parse_typed(config, [f"--config={path}"], {})


def from_settings(
    config: type[ConfigT],
    settings: dict[str, Any],
    *,
    variant: str = "",
    variants: Sequence[Callable[[ConfigT], ConfigT]] = (),
) -> ConfigT:
    """Return `config` filled from a variant and from settings as YAML has them; the latter win.

    Args:
        config: The recipe's dataclass.
        settings: Values by name, nested ones as mappings.
        variant: The name of one of `variants`.
        variants: The recipe's named settings.

    Raises:
        InputError: There is no such variant, or a value is not valid.
    """
    base = _vary(config, variant, {item.__name__: item for item in variants}) if variant else {}
    return _parse_typed(config, [], _merge(base, settings), named=settings)


def setting_names(config: type, prefix: str = "") -> list[str]:
    """Return every setting of a config dataclass, nested ones dotted."""
    names = []
    for item in dataclasses.fields(config):
        nested = _nested(item)
        names.append(prefix + item.name)
        if nested is not None:
            names += setting_names(nested, f"{prefix}{item.name}.")
    return names


def _nested(item: dataclasses.Field[Any]) -> type | None:
    if item.default_factory is dataclasses.MISSING:
        return None
    value = item.default_factory()
    return type(value) if dataclasses.is_dataclass(value) else None


def _join_lists(config: type, args: list[str]) -> list[str]:
    # `--seeds 0 1` is what people type; the parser wants one value.
    lists = set(_list_flags(config))
    joined: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        name, equals, first = arg.partition("=")
        nested = bool(rest) and not equals and rest[0].startswith("[[")
        if name not in lists | {"--init"} or first.startswith("[") or nested:
            joined.append(arg)
            continue
        values = [first] if equals else []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if not values:
            raise InputError(f"Expected one or more values after {name}, but got none.")
        if name == "--init":  # arms: `--init pretrained scratch` is one text with commas
            joined.append(f"{name}={','.join(values)}")
            continue
        parts = [part for value in values for part in value.strip("[]").split(",") if part.strip()]
        joined.append(f"{name}=[{','.join(part.strip() for part in parts)}]")
    return joined


def _list_flags(config: type, prefix: str = "--") -> list[str]:
    """Return the flags that take a list, nested ones dotted."""
    names = []
    for item in dataclasses.fields(config):
        value = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if isinstance(value, list | tuple):
            names.append(f"{prefix}{item.name}")
        elif dataclasses.is_dataclass(value):
            names += _list_flags(type(value), f"{prefix}{item.name}.")
    return names


def _take_variant(args: list[str]) -> tuple[str, list[str]]:
    rest, name = list(args), ""
    for index, arg in enumerate(args):
        if arg == "--variant":
            if index + 1 == len(args):
                raise InputError("Expected a name after --variant.")
            name, rest = args[index + 1], args[:index] + args[index + 2 :]
        elif arg.startswith("--variant="):
            name, rest = arg.partition("=")[2], args[:index] + args[index + 1 :]
    return name, rest


def _vary(
    config: type[ConfigT], name: str, variants: dict[str, Callable[[ConfigT], ConfigT]]
) -> dict[str, Any]:
    if name not in variants:
        raise unknown_name("variant", name, variants, hint=f"Known: {', '.join(variants) or 'none'}.")
    return to_dict(variants[name](config()))


def _parse_typed(
    config: type[ConfigT], args: list[str], base_values: dict[str, Any], *, named: Iterable[str] = ()
) -> ConfigT:
    from jsonargparse import ArgumentError, Namespace

    _check_types(config)
    parser = _parser(config)  # type: ignore[arg-type]  # a class is hashable, whatever its instances are
    given: dict[str, Any] = dict(base_values)
    flags: list[str] = []
    named = set(named)
    pending = list(args)
    while pending:
        arg = pending.pop(0)
        if arg == "--config" or arg.startswith("--config="):
            path = arg.partition("=")[2] or (pending.pop(0) if pending else "")
            loaded = _read_yaml(config, path)
            given, named = _merge(given, loaded), named | set(loaded)
        else:
            flags.append(arg)
            named.add(arg.removeprefix("--").partition("=")[0])
    try:
        base: Namespace = copy.deepcopy(parser.parse_object(given) if given else parser.get_defaults())
        made = parser.instantiate(parser.parse_args(flags, namespace=base))
    except (ArgumentError, TypeError, KeyError) as error:
        raise explain_refusal(config, error) from error
    typed = config(**{item.name: getattr(made, item.name) for item in dataclasses.fields(config)})
    for name, default in vars(config()).items():  # a list that was not given stays known as that
        if isinstance(default, DefaultList) and name not in named and getattr(typed, name) == default:
            setattr(typed, name, default)
    check_limits(typed, prefix="--")
    return typed


@cache
def _parser(config: type) -> ArgumentParser:
    """Return the parser of a config: making one takes longer than parsing, and a search parses often."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False)
    parser.add_class_arguments(config, fail_untyped=False)
    return parser


def _check_types(config: type) -> None:
    """Refuse a config whose types cannot be found: the parser would take any value for those settings."""
    try:
        typing.get_type_hints(config)
    except NameError as error:
        raise InputError(
            f"Expected to find the type of every setting of {config.__qualname__}, but in the module "
            f"{config.__module__!r} {error}. Import it there when the module runs (not under TYPE_CHECKING), "
            f"and keep the recipe's module in sys.modules under the name {config.__module__!r}."
        ) from error


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def read_mapping(path: str | Path, *, what: str = "--config") -> dict[Any, Any]:
    """Return what a YAML file of settings holds.

    Args:
        path: The file.
        what: What names it, for errors.

    Raises:
        InputError: It cannot be read, or holds no mapping.
    """
    file = Path(path)
    if not str(path) or not file.is_file():
        raise InputError(f"Expected {what} to name a YAML file, but there is none at {str(path)!r}.")
    if file.stat().st_size > 1_000_000:
        raise InputError(f"{file}: a config of more than 1 MB is not read.")
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a YAML file: {error}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{file}: {expected('the file', 'a mapping of settings', type(loaded).__name__)}")
    return loaded


def _read_yaml(config: type, path: str) -> dict[str, Any]:
    loaded = read_mapping(path)
    _check_keys(loaded, set(setting_names(config)), Path(path))
    return loaded


def _check_keys(loaded: dict[Any, Any], known: Iterable[str], file: Path, prefix: str = "") -> None:
    names = set(known)
    for key, value in loaded.items():
        dotted = f"{prefix}{key}"
        if dotted not in names:
            raise unknown_name("setting", dotted, names, hint=f"It is in {file}.")
        if isinstance(value, dict):
            _check_keys(value, names, file, f"{dotted}.")
