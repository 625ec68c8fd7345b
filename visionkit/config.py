"""The settings that cross package borders, as plain dataclasses. No torch: `--help` must not wait for it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from visionkit.errors import InputError, expected, unknown_name

__all__ = [
    "NormPolicy",
    "OptimConfig",
    "Role",
    "TableConfig",
    "TransferConfig",
    "check_limits",
    "check_number",
    "check_numbers",
    "flatten",
    "limits",
    "roles",
]

NormPolicy = Literal["batch", "frozen", "sync", "group"]
Role = Literal["identity", "machine", "free", "arm"]
"""What a setting means to a run that is continued or compared; a field without a role is "identity".

"identity": decides what is trained. It stays when a run is continued, and is equal in all compared runs.
"arm": what a comparison varies: init, seed, fraction, and what an init implies. It stays when a run is
continued; what an init implies is equal in all runs of that init.
"machine": how the same training is computed (devices, precision, workers). It may change when a run is
continued, which is reported; so is a difference between compared runs.
"free": where and how a run is kept (folders, loggers, checkpoints in between). It may change at any time.
"""
_NO_LIMIT: Mapping[str, Any] = {}
_ARM: dict[str, Role] = {"role": "arm"}


def limits(
    *,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    unique: bool = False,
) -> dict[str, Any]:
    """Return the metadata of a dataclass field that says which values it takes; `check_limits` reads it.

    For a list the limits are those of each item.

    Args:
        min: The smallest number, itself allowed.
        max: The largest number, itself allowed.
        above: Numbers must be larger than this.
        below: Numbers must be smaller than this.
        choices: The words that are allowed.
        unique: Whether the items of a list must differ.
    """
    given = {"min": min, "max": max, "above": above, "below": below}
    found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return found | ({"choices": tuple(choices)} if choices else {}) | ({"unique": True} if unique else {})


def roles(config: Any) -> dict[str, Role]:
    """Return the role of every setting of a dataclass, nested ones by dotted names.

    Args:
        config: A dataclass, or an instance of one; `metadata["role"]` of a field is its role.
    """
    table: dict[str, Role] = {}
    for item in dataclasses.fields(config):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if dataclasses.is_dataclass(default):
            table |= {f"{item.name}.{name}": role for name, role in roles(default).items()}
        else:
            table[item.name] = item.metadata.get("role", "identity")
    return table


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping of settings by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_limits(config: Any, *, prefix: str = "") -> None:
    """Check every value of a dataclass, nested ones included, against the limits of its fields.

    Args:
        config: An instance of a dataclass with fields made with `limits`.
        prefix: What stands before the names in messages ("--", "optim.").

    Raises:
        InputError: A value is not allowed; the text names the field, the limits and the nearest valid value.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, prefix=f"{prefix}{item.name}.")
            continue
        parts = list(value) if isinstance(value, list | tuple) else [value]
        for part in parts:
            _check_value(f"{prefix}{item.name}", part, item.metadata, _default(item))
        if item.metadata.get("unique") and len(set(parts)) < len(parts):
            twice = next(part for part in parts if parts.count(part) > 1)
            raise InputError(f"Expected each value of {prefix}{item.name} once, but {twice!r} comes twice.")


def check_number(name: str, value: Any, limit: Mapping[str, Any] = _NO_LIMIT, *, whole: bool = False) -> None:
    """Refuse a setting that is no finite number, or is outside its limits.

    Args:
        name: Of the setting.
        value: What came; a truth value or a text is no number.
        limit: What `limits` gives.
        whole: Whether only whole numbers are allowed.

    Raises:
        InputError: The text names the setting, its limits and what came.
    """
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value):
        _check_value(name, value, limit, None)
        return
    allowed = _allowed(limit)
    wanted = ("a whole number" if whole else "a finite number") + (f", {allowed}" if allowed else "")
    raise InputError(expected(name, wanted, value))


def check_numbers(
    name: str,
    values: Any,
    limit: Mapping[str, Any] = _NO_LIMIT,
    *,
    count: int | None = None,
    whole: bool = False,
) -> list[Any]:
    """Return a setting of several numbers as a list of plain ones, from a sequence, an array or a tensor.

    Args:
        name: Of the setting.
        values: What came.
        limit: Of each number, as `limits` gives it.
        count: How many there must be; any number if not given.
        whole: Whether only whole numbers are allowed.

    Raises:
        InputError: The text names the setting, and the first number that is not allowed.
    """
    plain = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(plain, str) or not isinstance(plain, Sequence):
        wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
        raise InputError(expected(name, wanted, values))
    if count is not None and len(plain) != count:
        raise InputError(expected(name, f"{count} numbers", list(plain)))
    for place, value in enumerate(plain):
        check_number(f"{name}[{place}]", value, limit, whole=whole)
    return [value.item() if hasattr(value, "item") else value for value in plain]


def _allowed(limit: Mapping[str, Any]) -> str:
    words = {"min": "at least", "above": "above", "max": "at most", "below": "below"}
    return " and ".join(f"{word} {limit[key]}" for key, word in words.items() if key in limit)


def _check_value(name: str, value: Any, limit: Mapping[str, Any], default: Any) -> None:
    if "choices" in limit and isinstance(value, str) and value not in limit["choices"]:
        raise unknown_name(name.lstrip("-"), value, limit["choices"])
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    low, high = limit.get("min", limit.get("above")), limit.get("max", limit.get("below"))
    if low is None and high is None:
        return
    right = math.isfinite(value)
    right = right and value >= limit.get("min", value) and value <= limit.get("max", value)
    right = right and value > limit.get("above", -math.inf) and value < limit.get("below", math.inf)
    if right:
        return
    allowed = _allowed(limit)
    near = limit.get("min") if low is not None and not value > low else limit.get("max")
    close = f" The nearest valid value is {near}." if near is not None and value == value else ""
    usual = f" The default is {default}." if isinstance(default, int | float) else ""
    raise InputError(f"Expected {name} to be {allowed}, but got {value}.{close or usual}")


def _default(item: dataclasses.Field[Any]) -> Any:
    value = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return value[0] if isinstance(value, list) and value else value


@dataclass(frozen=True)
class OptimConfig:
    """How the parameters move. Lengths are counted in images, so subsets and batch sizes compare.

    Args:
        optimizer: Which update rule.
        weight_decay: Decay of weights; norms, biases and embeddings are never decayed.
        momentum: SGD's momentum.
        schedule: Shape of the learning rate after warm-up. "steps" cuts by `gamma` where each tail begins.
        warmup: Share of all images over which the rate rises linearly from zero.
        tails: For "steps": the lengths, in images, of the low-rate tails counted back from the end, longest
            first (He et al. keep them fixed and stretch only the first stage). Empty: at 2/3 and 8/9 of all.
        gamma: For "steps": the factor of each cut.
        power: For "poly": the exponent.
        min_lr_ratio: The rate at the end as a share of its peak, for "cosine", "linear" and "poly".
        batch: The global batch that `lr` was chosen for: the rate is scaled linearly to the batch that runs.
            0 leaves the rate alone.
        clip_norm: Largest norm of the gradient; 0 is off.
        ema: Decay of the moving average of the weights per 32 images seen; 0 is off.

    Raises:
        InputError: A value is outside its limits.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = field(default=0.05, metadata=limits(min=0))
    momentum: float = field(default=0.9, metadata=limits(min=0, below=1))
    schedule: Literal["cosine", "linear", "poly", "steps", "constant"] = "cosine"
    warmup: float = field(default=0.05, metadata=limits(min=0, below=1))
    tails: tuple[int, ...] = field(default=(), metadata=limits(min=1))
    gamma: float = field(default=0.1, metadata=limits(above=0, max=1))
    power: float = field(default=0.9, metadata=limits(above=0))
    min_lr_ratio: float = field(default=0.0, metadata=limits(min=0, max=1))
    batch: int = field(default=0, metadata=limits(min=0))
    clip_norm: float = field(default=0.0, metadata=limits(min=0))
    ema: float = field(default=0.0, metadata=limits(min=0, below=1))

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        check_limits(self, prefix="optim.")


@dataclass(frozen=True)
class TransferConfig:
    """What is done with the weights that `init` brings. `None` asks for the task's own default.

    Args:
        freeze_through: Freeze every stage up to this reduction (parameters and running statistics).
            0 freezes nothing; "all" freezes the whole backbone: a linear probe. Where all blocks share one
            reduction (ViT, Mixer): the share of blocks to freeze, such as 0.5.
        norm: Normalisation of backbone and heads alike. Both arms of a comparison use the same one.
        backbone_lr_scale: The backbone's learning rate as a share of the head's.
        layer_decay: The rate of each level as a share of the next coarser one's; 1 is off. Where all blocks
            share one reduction: of each block as a share of the next one's.
        unfreeze_at: Staged unfreezing: at `images` seen, everything coarser than `reduction` trains;
            pairs `(images, reduction)` (or `(images, share of blocks)`), 0 unfreezes all.
        probe_level: Pool this reduction's map instead of the last one (a probe from a chosen level).

    Raises:
        InputError: A value is outside its limits.
    """

    freeze_through: int | float | Literal["all"] | None = field(default=None, metadata=_ARM | limits(min=0))
    norm: NormPolicy | None = None
    backbone_lr_scale: float | None = field(default=None, metadata=_ARM | limits(min=0))
    layer_decay: float = field(default=1.0, metadata=_ARM | limits(above=0, max=1))
    unfreeze_at: tuple[tuple[int, int | float], ...] = field(default=(), metadata=_ARM)
    probe_level: int | None = field(default=None, metadata=_ARM | limits(min=1))

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        check_limits(self, prefix="transfer.")


@dataclass
class TableConfig:
    """Which columns of a table of images are read, and how; found by their usual names where left out.

    Args:
        image: The column of paths.
        target: The column or columns of targets.
        separator: What stands between the names in the one column of a multi-label table, such as "|".
        root: The folder of the images; that of the table, or the one below it that holds them.
    """

    image: str = ""
    target: list[str] = field(default_factory=list)
    separator: str = ""
    root: str = ""
