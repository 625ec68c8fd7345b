"""What every recipe can be told: one dataclass is the Python call, the flags, the YAML file and the help.

No torch here: `--help` answers before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from visionkit.config import OptimConfig, TransferConfig, check_limits, limits
from visionkit.errors import InputError, expected, unknown_name
from visionkit.run.refusals import explain_refusal
from visionkit.run.usage import format_usage

__all__ = ["RunConfig", "parse", "read_config", "setting", "to_dict"]


def setting(
    default: Any,
    help: str,
    *,
    group: str = "task",
    rare: bool = False,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    unique: bool = False,
) -> Any:
    """Return a dataclass field that is a flag: its default, a line of help, and the values it takes.

    Args:
        default: What it is when it is not given.
        help: One line for `--help`.
        group: Where the help lists it.
        rare: Left out of `--help`; stands in `--help=all`.
        min: The smallest number, itself allowed (of each item of a list).
        max: The largest number, itself allowed.
        above: Numbers must be larger than this.
        below: Numbers must be smaller than this.
        choices: The words that are allowed.
        unique: Whether the items of a list must differ.
    """
    meta = limits(min=min, max=max, above=above, below=below, choices=choices, unique=unique)
    meta |= {"help": help, "group": group, "rare": rare}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=meta)
    if dataclasses.is_dataclass(default):
        return field(default_factory=lambda: dataclasses.replace(default), metadata=meta)  # type: ignore[type-var]
    return field(default=default, metadata=meta)


@dataclass
class RunConfig:
    """The settings that all recipes share; a recipe's own `Config` adds its task's.

    `init`, `seeds` and `fractions` span the runs: every combination is a run in a folder of its own below
    `out`, resumable and comparable. `images`, when not 0, is how long a run trains, whatever the fraction.
    """

    data: str = setting("scenes", "data set: a folder, a file, or 'scenes' (embedded)", group="data")
    image_size: int = setting(96, "side of the training images, in pixels", group="data", min=8)
    fractions: list[float] = setting(
        [1.0], "shares of the training split to train on", group="data", above=0, max=1, unique=True
    )
    workers: int = setting(0, "loader processes (order and draws do not depend on it)", group="data", min=0)
    bad_input: Literal["raise", "skip"] = setting(
        "raise", "raise | skip: what a sample that cannot be read does", group="data"
    )
    bad_limit: float = setting(
        0.001,
        "with skip: largest share of a split that may be left out",
        group="data",
        rare=True,
        min=0,
        max=1,
    )
    max_dropped: float = setting(
        0.1,
        "largest share of the objects, captions or labels that may be left out",
        group="data",
        rare=True,
        min=0,
        max=1,
    )
    backbone: str = setting("packaged/efficientnet_lite0", "see `visionkit ls backbones`", group="model")
    init: str = setting("both", "pretrained | scratch | both | a weights file", group="model")
    transfer: TransferConfig = setting(TransferConfig(), "what is done with the weights", group="model")
    epochs: int = setting(6, "passes over the training split", group="training", min=1)
    images: int = setting(0, "train for this many images instead of epochs", group="training", min=0)
    batch_size: int = setting(32, "images a step on each device", group="training", min=1)
    accumulate: int = setting(
        1, "steps whose gradients are added before an update", group="training", rare=True, min=1
    )
    lr: float = setting(1e-3, "peak learning rate of the head", group="training", above=0)
    optim: OptimConfig = setting(OptimConfig(), "how parameters move", group="training")
    skip_updates: int = setting(
        0,
        "updates with a non-finite loss or gradient to leave out before the run stops",
        group="training",
        rare=True,
        min=0,
    )
    seeds: list[int] = setting(
        [0, 1], "one run for each", group="training", min=0, max=2**32 - 1, unique=True
    )
    devices: str = setting("auto", "how many processes on this machine, or auto", group="machine")
    num_nodes: int = setting(0, "machines; 0 asks the environment", group="machine", min=0)
    accelerator: str = setting("auto", "cpu | gpu | auto", group="machine", choices=("cpu", "gpu", "auto"))
    strategy: str = setting("auto", "auto | ddp | fsdp", group="machine", choices=("auto", "ddp", "fsdp"))
    timeout: int = setting(
        300, "seconds a process waits for the others before it ends", group="machine", rare=True, min=1
    )
    precision: str = setting("auto", "auto | 32-true | bf16-mixed | 16-mixed", group="machine")
    jobs: int = setting(0, "runs at a time on a CPU; 0: one a thread, 4 at most", group="machine", min=0)
    compile: bool = setting(False, "compile the model (slow first step)", group="machine")
    recompute: bool = setting(
        False, "gradient checkpointing: less memory, more arithmetic", group="machine", rare=True
    )
    out: str = setting("", "where everything is written (default runs/RECIPE)", group="output")
    resume: Literal["auto", "require", "never"] = setting(
        "auto", "auto | require | never: continue the runs in --out", group="output"
    )
    checkpoint_every: int = setting(
        200, "updates between checkpoints within an epoch", group="output", rare=True, min=0
    )
    validate_every: int = setting(
        0, "epochs between validations; 0: about 12 a run", group="output", rare=True, min=0
    )
    logger: list[str] = setting(
        [],
        "besides csv: tensorboard wandb mlflow",
        group="output",
        choices=("tensorboard", "wandb", "mlflow"),
        unique=True,
    )
    deterministic: bool = setting(True, "only deterministic algorithms", group="output", rare=True)
    progress: bool = setting(True, "show a progress bar on a terminal", group="output", rare=True)

    def arms(self) -> tuple[str, ...]:
        """Return the values of `init` that are to be run."""
        return ("pretrained", "scratch") if self.init == "both" else (self.init,)


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
        print(yaml.safe_dump(to_dict(made), sort_keys=False), end="")  # noqa: T201
        raise SystemExit(0)
    return made


def _check_given(config: type[ConfigT], args: Sequence[str]) -> None:
    """Check the numbers among the flags against their limits.

    All is checked again once it is parsed. But the parser of types runs the imports that a recipe makes for
    its annotations, torch among them, and a wrong number is told before that.
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
    return [f"--{name}" for name in _keys(config)] + ["--config", "--variant"]


def read_config(config: type[ConfigT], path: str | Path) -> ConfigT:
    """Return `config` as a YAML file says.

    Raises:
        InputError: The file cannot be read, or a key or value in it is not valid.
    """
    return _parse_typed(config, [f"--config={path}"], {})


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain values: what `config.yaml` and `result.json` hold."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def _keys(config: type, prefix: str = "") -> list[str]:
    names = []
    for item in dataclasses.fields(config):
        nested = _nested(item)
        names.append(prefix + item.name)
        if nested is not None:
            names += _keys(nested, f"{prefix}{item.name}.")
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
        if name not in lists or first.startswith("[") or nested:
            joined.append(arg)
            continue
        values = [first] if equals else []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        parts = [part for value in values for part in value.strip("[]").split(",") if part.strip()]
        joined.append(f"{name}=[{','.join(part.strip() for part in parts)}]")
    return joined


def _list_flags(config: type, prefix: str = "--") -> list[str]:
    """Return the flags that take several values, nested ones dotted."""
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
    for place, arg in enumerate(args):
        if arg == "--variant":
            if place + 1 == len(args):
                raise InputError("Expected a name after --variant.")
            name, rest = args[place + 1], args[:place] + args[place + 2 :]
        elif arg.startswith("--variant="):
            name, rest = arg.partition("=")[2], args[:place] + args[place + 1 :]
    return name, rest


def _vary(
    config: type[ConfigT], name: str, variants: dict[str, Callable[[ConfigT], ConfigT]]
) -> dict[str, Any]:
    if name not in variants:
        raise unknown_name("variant", name, variants, hint=f"Known: {', '.join(variants) or 'none'}.")
    return to_dict(variants[name](config()))


def _parse_typed(config: type[ConfigT], args: list[str], base_values: dict[str, Any]) -> ConfigT:
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    parser = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False)
    parser.add_class_arguments(config, fail_untyped=False)
    given: dict[str, Any] = dict(base_values)
    flags = []
    pending = list(args)
    while pending:
        arg = pending.pop(0)
        if arg == "--config" or arg.startswith("--config="):
            path = arg.partition("=")[2] or (pending.pop(0) if pending else "")
            given = _merge(given, _read_yaml(config, path))
        else:
            flags.append(arg)
    try:
        base: Namespace = parser.parse_object(given) if given else parser.get_defaults()
        made = parser.instantiate(parser.parse_args(flags, namespace=base))
    except (ArgumentError, TypeError, KeyError) as error:
        raise explain_refusal(config, error) from error
    typed = config(**{item.name: getattr(made, item.name) for item in dataclasses.fields(config)})
    check_limits(typed, prefix="--")
    return typed


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _read_yaml(config: type, path: str) -> dict[str, Any]:
    file = Path(path)
    if not path or not file.is_file():
        raise InputError(f"Expected --config to name a YAML file, but there is none at {path!r}.")
    if file.stat().st_size > 1_000_000:
        raise InputError(f"{file}: a config of more than 1 MB is not read.")
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a YAML file: {error}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{file}: {expected('the file', 'a mapping of settings', type(loaded).__name__)}")
    _check_keys(loaded, set(_keys(config)), file)
    return loaded


def _check_keys(loaded: dict[Any, Any], known: Iterable[str], file: Path, prefix: str = "") -> None:
    names = set(known)
    for key, value in loaded.items():
        dotted = f"{prefix}{key}"
        if dotted not in names:
            raise unknown_name("setting", dotted, names, hint=f"It stands in {file}.")
        if isinstance(value, dict):
            _check_keys(value, names, file, f"{dotted}.")
