"""A task's weights and settings as one safetensors file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionkit import tasks
from visionkit.errors import DataError, InputError, RunError
from visionkit.files import unwritable, write_atomic
from visionkit.predict.export.metadata import KEY, read_metadata, to_json
from visionkit.predict.kinds import KINDS
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.saved_settings import plain_settings

__all__ = ["read_state", "write_state"]


def write_state(task: TaskHooks, path: str | Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Write the state dict of a task, with its settings and its metadata in the header.

    Args:
        task: The task.
        path: The file.
        metadata: See `task_metadata`.

    Returns:
        The metadata as written.

    Raises:
        RunError: It cannot be written, or what was read back is not equal; nothing is left at `path`.
    """
    from safetensors.torch import load_file, save

    written = {**metadata, "settings": plain_settings(dict(task.hparams))}
    state = {name: value.detach().cpu().clone().contiguous() for name, value in task.state_dict().items()}

    def equal(part: Path) -> None:
        back = load_file(part)
        if back.keys() != state.keys() or not all(_same(back[name], state[name]) for name in state):
            raise RunError(f"What was written to {path} is not what was read back. Nothing is left there.")

    content = save(state, metadata={KEY: to_json(written)})
    try:
        write_atomic(path, lambda part: part.write_bytes(content), before_rename=equal)
    except OSError as error:
        raise unwritable(Path(path).parent, error) from error
    return written


def read_state(path: str | Path) -> tuple[TaskHooks, dict[str, Any]]:
    """Return the task of a file that `write_state` wrote, in evaluation mode on the CPU, and its metadata.

    Args:
        path: The file.

    Raises:
        DataError: It is damaged, or its task cannot be built again.
    """
    from safetensors.torch import load_file

    metadata = read_metadata(path)
    settings = metadata.get("settings")
    if Path(path).suffix != ".safetensors" or not isinstance(settings, dict):
        raise DataError("Expected weights with the settings of a task, but there are none.", path=path)
    kind: type[TaskHooks] = getattr(tasks, KINDS[metadata["kind"]].task)
    try:
        task = kind(**settings)
        task.load_state_dict(load_file(path))
    except InputError:
        raise
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"cannot be built again: {type(error).__name__}: {error}", path=path) from error
    return task.eval(), metadata


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.nan_to_num(), second.nan_to_num()) and first.dtype == second.dtype
