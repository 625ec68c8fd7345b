"""What every task does around its arithmetic: shared buffers, the callbacks it needs, plain settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning
import torch
import torch.distributed as dist
from torch import Tensor, nn

from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError, unknown_name

__all__ = [
    "check_callbacks",
    "keep_buffers_local",
    "optim_from",
    "plain_settings",
    "share_buffers",
    "unnamed",
]


def keep_buffers_local(module: nn.Module) -> None:
    """Have `DistributedDataParallel` leave buffers alone; call it in `setup`, before the module is wrapped.

    It would broadcast them at every forward: a message a step while training, and a dead lock in evaluation,
    where processes run different numbers of batches. `share_buffers` keeps them equal where it matters.
    """
    names = [name for name, _ in module.named_buffers()]
    module._ddp_params_and_buffers_to_ignore = names  # type: ignore[assignment]


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers (running statistics): one broadcast for each type."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
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


def check_callbacks(trainer: lightning.Trainer, optim: OptimConfig, transfer: TransferConfig) -> None:
    """Refuse settings that only a callback can carry out when the Trainer does not have it.

    Raises:
        InputError: A staged thaw without `Thaw`, or a moving average without `EMA`.
    """
    present = {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]
    needs = {
        "Thaw": (bool(transfer.thaw_at), "transfer.thaw_at", "visionkit.run.thaw.Thaw()"),
        "EMA": (optim.ema > 0, "optim.ema", f"visionkit.run.ema.EMA({optim.ema})"),
    }
    for name, (needed, setting, make) in needs.items():
        if needed and name not in present:
            raise InputError(f"{setting} is set, but the Trainer has no {name} callback. Give it {make}.")


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


def unnamed(first: int, count: int) -> list[str]:
    """Return names for pictures without: their places, which tell the process too where there are several."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    several = ready and torch.distributed.get_world_size() > 1
    share = f"{torch.distributed.get_rank()}/" if several else ""
    return [f"{share}{first + index}" for index in range(count)]
