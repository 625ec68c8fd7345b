"""Dataclasses of settings used by several packages, and their limits. No torch: `--help` must be fast."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from visionkit.errors import InputError, expected, unknown_name

__all__ = [
    "NormPolicy",
    "OptimConfig",
    "Role",
    "StreamConfig",
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
Optimizer = Literal[
    "adamw", "sgd", "adabelief", "adafactor", "adam", "adamp", "adan", "adopt", "lamb", "lars", "lion",
    "muon",
    "nadamw", "radam", "rmsprop",
]  # fmt: skip
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
_FREE: dict[str, Role] = {"role": "free"}


def limits(
    *,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    unique: bool = False,
) -> dict[str, Any]:
    """Return metadata of a dataclass field with its limits, which `check_limits` reads.

    For a list the limits are those of each item.

    Args:
        min: The smallest number, itself allowed.
        max: The largest number, itself allowed.
        above: Numbers must be larger than this.
        below: Numbers must be smaller than this.
        choices: The strings that are allowed.
        unique: Whether the items of a list must differ.
    """
    given = {"min": min, "max": max, "above": above, "below": below}
    metadata: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return metadata | ({"choices": tuple(choices)} if choices else {}) | ({"unique": True} if unique else {})


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
        prefix: Prefix of the names in messages ("--", "optim.").

    Raises:
        InputError: A value is not allowed; the text names the field, the limits and the nearest valid value.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, prefix=f"{prefix}{item.name}.")
            continue
        parts = list(value) if isinstance(value, list | tuple) else [value]
        for part in _flat(parts):
            _check_value(f"{prefix}{item.name}", part, item.metadata, _default(item))
        if item.metadata.get("unique") and len(set(parts)) < len(parts):
            twice = next(part for part in parts if parts.count(part) > 1)
            raise InputError(f"Expected each value of {prefix}{item.name} once, but {twice!r} comes twice.")


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        yield from _flat(value) if isinstance(value, list | tuple) else (value,)


def check_number(name: str, value: Any, limit: Mapping[str, Any] = _NO_LIMIT, *, whole: bool = False) -> None:
    """Check that a setting is a finite number within its limits.

    Args:
        name: Name of the setting.
        value: Its value; booleans and strings are no numbers.
        limit: Its limits, as `limits` returns them.
        whole: Whether only integers are allowed.

    Raises:
        InputError: It is none; the message has the setting, its limits and the value.
    """
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value):
        _check_value(name, value, limit, None)
        return
    allowed = _allowed(limit)
    expected_text = ("a whole number" if whole else "a finite number") + (f", {allowed}" if allowed else "")
    raise InputError(expected(name, expected_text, value))


def check_numbers(
    name: str,
    values: Any,
    limit: Mapping[str, Any] = _NO_LIMIT,
    *,
    count: int | None = None,
    whole: bool = False,
) -> list[Any]:
    """Return a list of Python numbers from a sequence, an array or a tensor, after checking them.

    Args:
        name: Name of the setting.
        values: The numbers.
        limit: Limits of each number, as `limits` returns them.
        count: How many there must be; any number if not given.
        whole: Whether only integers are allowed.

    Raises:
        InputError: A number is not allowed; the message has the setting and the first such number.
    """
    plain = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(plain, str) or not isinstance(plain, Sequence):
        expected_text = "a list of numbers" if count is None else f"a list of {count} numbers"
        raise InputError(expected(name, expected_text, values))
    if count is not None and len(plain) != count:
        raise InputError(expected(name, f"{count} numbers", list(plain)))
    for index, value in enumerate(plain):
        check_number(f"{name}[{index}]", value, limit, whole=whole)
    return [value.item() if hasattr(value, "item") else value for value in plain]


def _allowed(limit: Mapping[str, Any]) -> str:
    words = {"min": "at least", "above": "above", "max": "at most", "below": "below"}
    return " and ".join(f"{word} {limit[key]}" for key, word in words.items() if key in limit)


def _check_value(name: str, value: Any, limit: Mapping[str, Any], default: Any) -> None:
    if "choices" in limit and isinstance(value, str) and value not in limit["choices"]:
        if "min" not in limit:
            raise unknown_name(name.lstrip("-"), value, limit["choices"])
        if not value.lstrip("-").isdecimal():  # a word or a number, as in --devices
            text = f"{' or '.join(limit['choices'])}, or a whole number, {_allowed(limit)}"
            raise InputError(expected(name, text, value))
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    low, high = limit.get("min", limit.get("above")), limit.get("max", limit.get("below"))
    if low is None and high is None:
        return
    valid = math.isfinite(value)
    valid = valid and value >= limit.get("min", value) and value <= limit.get("max", value)
    valid = valid and value > limit.get("above", -math.inf) and value < limit.get("below", math.inf)
    if valid:
        return
    allowed = _allowed(limit)
    nearest = limit.get("min") if low is not None and not value > low else limit.get("max")
    close = f" The nearest valid value is {nearest}." if nearest is not None and value == value else ""
    usual = f" The default is {default}." if isinstance(default, int | float) else ""
    raise InputError(f"Expected {name} to be {allowed}, but got {value}.{close or usual}")


def _default(item: dataclasses.Field[Any]) -> Any:
    value = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return value[0] if isinstance(value, list) and value else value


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule. Lengths are in images, whatever the batch size.

    Args:
        optimizer: "adamw" or "sgd" (torch's, fused where they can be), or one of timm's by its name there.
        weight_decay: Decay of weights; norms, biases and embeddings are never decayed.
        momentum: Momentum of SGD.
        schedule: Shape of the learning rate after warm-up. "steps" multiplies it by `gamma` at each
            milestone.
        warmup: Fraction of all images over which the rate rises linearly from zero.
        milestones_before_end: For "steps": the milestones, in images before the end, largest first (He et al.
            keep these fixed and stretch only the first stage). Empty: at 2/3 and 8/9 of all images.
        gamma: For "steps": factor of the rate at each milestone.
        power: For "poly": the exponent.
        min_lr_ratio: The rate at the end as a fraction of its peak, for "cosine", "linear" and "poly".
        batch: The global batch that `lr` was chosen for: the rate is scaled linearly to the actual one. 0
            does not scale it.
        clip_norm: Maximum norm of the gradient; 0 is off.
        ema: Decay of the moving average of the weights per 32 images seen; 0 is off.

    Raises:
        InputError: A value is outside its limits.
    """

    optimizer: Optimizer = field(default="adamw", metadata=limits(choices=get_args(Optimizer)))
    weight_decay: float = field(default=0.05, metadata=limits(min=0))
    momentum: float = field(default=0.9, metadata=limits(min=0, below=1))
    schedule: Literal["cosine", "linear", "poly", "steps", "constant"] = "cosine"
    warmup: float = field(default=0.05, metadata=limits(min=0, below=1))
    milestones_before_end: tuple[int, ...] = field(default=(), metadata=limits(min=1))
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
    """Freezing, norms and learning rates of a backbone. `None` is the default of the task and the `init`.

    Args:
        freeze_through: Freeze every stage up to this reduction (parameters and running statistics).
            0 freezes nothing; "all" freezes the backbone (a linear probe). Where all blocks have one
            reduction (ViT, Mixer): the fraction of blocks to freeze, such as 0.5.
        norm: Norm layers of backbone and heads. Both arms of a comparison use the same.
        backbone_lr_scale: The backbone's learning rate as a fraction of the head's.
        layer_decay: The rate of each level as a fraction of the next coarser one's; 1 is off. Where all
            blocks have one reduction: of each block as a fraction of the next one's.
        unfreeze_at: Staged unfreezing: at `images` seen, everything coarser than `reduction` trains;
            pairs `(images, reduction)` (or `(images, fraction of blocks)`), 0 unfreezes all.
        probe_level: Pool the map of this reduction instead of the last one.

    Raises:
        InputError: A value is outside its limits.
    """

    freeze_through: int | float | Literal["all"] | None = field(default=None, metadata=_ARM | limits(min=0))
    norm: NormPolicy | None = None
    backbone_lr_scale: float | None = field(default=None, metadata=_ARM | limits(min=0))
    layer_decay: float = field(default=1.0, metadata=_ARM | limits(above=0, max=1))
    unfreeze_at: tuple[tuple[int, int | float], ...] = field(default=(), metadata=_ARM | limits(min=0))
    probe_level: int | None = field(default=None, metadata=_ARM | limits(min=1))

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        check_limits(self, prefix="transfer.")


@dataclass
class TableConfig:
    """Columns of a table of images; recognised by their usual names where not given.

    Args:
        image: The column of paths.
        target: The column or columns of targets.
        separator: Separator of the labels in the column of a multi-label table, such as "|".
        root: The folder of the images; if empty that of the table, or the one below it with the images.
    """

    image: str = ""
    target: list[str] = field(default_factory=list)
    separator: str = ""
    root: str = ""


@dataclass(frozen=True)
class StreamConfig:
    """How a pack at an address, such as "https://host/photos.pack" or "s3://bucket/photos.pack", is read.

    Args:
        cache: The folder on this machine that shards are fetched into.
        max_gb: Bound on the shards in it, in 10^9 bytes.
        window: Shards whose samples a training order mixes; it is part of the order.

    Raises:
        InputError: A value is outside its limits.
    """

    cache: str = field(default="", metadata=_FREE)
    max_gb: float = field(default=20.0, metadata=_FREE | limits(above=0))
    window: int = field(default=8, metadata=limits(min=1))

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        check_limits(self, prefix="stream.")

    def folder(self, address: str) -> str:
        """Return the folder that shards are fetched into.

        Args:
            address: Of the pack, for the error.

        Raises:
            InputError: None is named.
        """
        if not self.cache:
            raise InputError(
                f"Expected a folder on this machine for up to {self.max_gb:g} GB of the shards of {address}. "
                "Name one: --stream.cache FOLDER, or stream=StreamConfig(cache=...)."
            )
        return self.cache
