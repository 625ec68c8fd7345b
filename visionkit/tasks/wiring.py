"""What every task does around its arithmetic: shared buffers, the callbacks it needs, plain settings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import lightning
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from visionkit.backbones.weights import check_file, checkpoint_record
from visionkit.config import OptimConfig, TransferConfig
from visionkit.distributed import world_size
from visionkit.errors import InputError, expected, unknown_name
from visionkit.metrics import RunningSums

__all__ = [
    "check_callbacks",
    "move_batch",
    "optim_from",
    "plain_settings",
    "refuse_foreign",
    "refuse_other_task",
    "share_buffers",
    "task_name",
]


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers (running statistics): one broadcast for each type.

    Counters are no buffers, and a strategy that shards parameters moves those and buffers alone: they are
    brought to the module's device here.
    """
    device = getattr(module, "device", None)
    for part in module.modules():
        if isinstance(part, RunningSums | Metric) and device is not None:
            part.to(device)
    if world_size() == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        kinds.setdefault(buffer.dtype, []).append(buffer)
    with torch.no_grad():
        for buffers in kinds.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(flat, 0)
            for buffer, part in zip(buffers, flat.split([buffer.numel() for buffer in buffers])):
                buffer.copy_(part.view(buffer.shape))


def move_batch(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on `device`; names and other plain values are not looked into.

    Lightning's own way visits every string of a batch, which costs more than a small network's forward.

    Args:
        batch: A tensor, or dicts, lists and tuples of tensors and plain values.
        device: Where the tensors go.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=device.type != "cpu")
    if isinstance(batch, dict):
        return {name: move_batch(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple) and batch and not isinstance(batch[0], str):
        moved = [move_batch(item, device) for item in batch]
        return moved if isinstance(batch, list) else tuple(moved)
    return batch


def check_callbacks(trainer: lightning.Trainer, optim: OptimConfig, transfer: TransferConfig) -> None:
    """Refuse settings that only a callback can carry out when the Trainer does not have it.

    Raises:
        InputError: A staged unfreezing without `Unfreeze`, or a moving average without `EMA`.
    """
    # The callbacks stand in a later layer: each says itself which setting it carries out.
    present = {getattr(callback, "carries_out", None) for callback in trainer.callbacks}  # type: ignore[attr-defined]
    needs = {
        "transfer.unfreeze_at": (bool(transfer.unfreeze_at), "Unfreeze", "unfreeze.Unfreeze()"),
        "optim.ema": (optim.ema > 0, "EMA", f"ema.EMA({optim.ema})"),
    }
    for setting, (needed, name, make) in needs.items():
        if needed and setting not in present:
            fix = f"Give it visionkit.run.callbacks.{make}."
            raise InputError(f"{setting} is set, but the Trainer has no {name} callback. {fix}")


def plain_settings(value: Any) -> Any:
    """Return a config, or any nest of them, as plain values, which `weights_only=True` loads."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): plain_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_settings(item) for item in value]
    if isinstance(value, Tensor):
        return value.tolist()
    return value


def optim_from(value: OptimConfig | dict[str, Any]) -> OptimConfig:
    """Return a config from itself or from its plain dict, as checkpoints hold it.

    Raises:
        InputError: A key is not known.
    """
    if isinstance(value, OptimConfig):
        return value
    known = [field.name for field in dataclasses.fields(OptimConfig)]
    for name in value:
        if name not in known:
            raise unknown_name("optim setting", name, known)
    return OptimConfig(**{**value, "tails": tuple(value.get("tails", ()))})


def refuse_foreign(path: Any, weights_only: bool | None, hparams_file: Any = None) -> None:
    """Refuse a checkpoint that is not fit to be loaded: by its place, its size or what it would unpack to.

    Raises:
        InputError: Says what to do.
    """
    if "://" in str(path) or not weights_only or hparams_file is not None:
        fix = "Download it first; a file with more than tensors and plain values is not loaded, and a "
        fix += "checkpoint holds its own settings (no hparams_file)."
        raise InputError(expected("a checkpoint", "a file on this machine, weights_only", str(path), fix=fix))
    check_file(path)


def task_name(kind: type) -> str:
    """Return the name of the library's task that a class is, or is derived from."""
    own = (base.__name__ for base in kind.__mro__ if base.__module__.startswith("visionkit.tasks."))
    return next(own, kind.__name__)


def refuse_other_task(path: Any, kind: type) -> None:
    """Refuse a checkpoint of another task, before a network is built for it; its tensors are not read.

    Raises:
        InputError: Names the task that the checkpoint is of, or the settings that this one does not have.
    """
    record = checkpoint_record(path)
    held, wanted = record["visionkit"].get("task"), task_name(kind)
    settings = record["hyper_parameters"]
    inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    known = {name for init in inits for name in inspect.signature(init).parameters}
    strange = sorted(set(settings) - known) if "origin" in settings else []
    if held == wanted or (held is None and not strange):
        return
    whose = f"a {held}" if held else f"another task (its settings are {', '.join(strange[:4])}, ...)"
    load = f"Load it with {held}.load_from_checkpoint" if held else "Load it with its own task"
    raise InputError(
        f"Expected a checkpoint of a {wanted}, but {path} is of {whose}. {load}; to begin a {wanted} from "
        f"its backbone, give init={str(path)!r}."
    )
