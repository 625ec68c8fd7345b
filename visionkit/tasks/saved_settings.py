"""Settings of tasks as plain values in checkpoints, and the checkpoints that a task refuses."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from torch import Tensor

from visionkit.backbones.weights import check_file, checkpoint_record
from visionkit.config import check_limits
from visionkit.errors import InputError, expected, unknown_name
from visionkit.files import local_path, to_plain

__all__ = ["config_from", "plain_settings", "refuse_other_task", "refuse_unsafe", "task_name"]

ConfigT = TypeVar("ConfigT")


def plain_settings(value: Any) -> Any:
    """Return a config, or any nest of them, as plain values, which `weights_only=True` loads."""
    return to_plain(value, lambda item: item.tolist() if isinstance(item, Tensor) else item)


def config_from(kind: type[ConfigT], value: ConfigT | Mapping[str, Any], *, name: str) -> ConfigT:
    """Return a config from itself or from its plain dict, as checkpoints hold it; lists become tuples.

    Args:
        kind: A dataclass.
        value: An instance of it, or its fields by name.
        name: Name of the setting that holds it, for errors.

    Raises:
        InputError: A key is not known, or a value is outside its limits.
    """
    if isinstance(value, kind):
        check_limits(value, prefix=f"{name}.")
        return value
    known = [field.name for field in dataclasses.fields(cast(Any, kind))]
    given = cast("Mapping[str, Any]", value)
    for key in given:
        if key not in known:
            raise unknown_name(f"{name} setting", key, known)
    made = kind(**{key: tuple(item) if isinstance(item, list) else item for key, item in given.items()})
    check_limits(made, prefix=f"{name}.")
    return made


def refuse_unsafe(path: Any, weights_only: bool | None, hparams_file: Any = None) -> None:
    """Refuse a checkpoint by its address, its size or what it would unpack to, before it is loaded.

    Raises:
        InputError: The text names what to do.
    """
    local_path(path, "a checkpoint")
    if not weights_only or hparams_file is not None:
        fix = "A file with more than tensors and plain values is not loaded, and a checkpoint holds its own "
        fix += "settings (no hparams_file)."
        raise InputError(expected("a checkpoint", "loaded with weights_only", str(path), fix=fix))
    check_file(path)


def task_name(kind: type) -> str:
    """Return the name of the library's task that a class is, or is derived from."""
    ours = (base.__name__ for base in kind.__mro__ if base.__module__.startswith("visionkit.tasks."))
    return next(ours, kind.__name__)


def refuse_other_task(path: Any, kind: type) -> None:
    """Refuse a checkpoint of another task, before a network is built for it; its tensors are not read.

    Raises:
        InputError: Names the task that the checkpoint is of, or the settings that this one does not have.
    """
    record = checkpoint_record(path)
    given, expected_task = record["visionkit"].get("task"), task_name(kind)
    settings = record["hyper_parameters"]
    inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    known = {name for init in inits for name in inspect.signature(init).parameters}
    unexpected = sorted(set(settings) - known) if "origin" in settings else []
    if given == expected_task or (given is None and not unexpected):
        return
    whose = f"a {given}" if given else f"another task (its settings are {', '.join(unexpected[:4])}, ...)"
    load = f"Load it with {given}.load_from_checkpoint" if given else "Load it with its own task"
    raise InputError(
        f"Expected a checkpoint of a {expected_task}, but {path} is of {whose}. {load}; to begin a "
        f"{expected_task} from its backbone, give init={str(path)!r}."
    )
