"""What the device decides: memory layout, precision, and whether to compile."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from visionkit.errors import InputError
from visionkit.run.config import RunConfig

__all__ = ["Policy", "choose_policy", "processes"]


@dataclass(frozen=True)
class Policy:
    """How a run uses its device.

    Args:
        accelerator: "cpu" or "gpu".
        precision: Lightning's name of it; bf16 only where the device computes in it natively.
        channels_last: Whether 2-D weights and pictures lie channels-last.
        compile: Whether the model is compiled.
    """

    accelerator: str
    precision: str
    channels_last: bool
    compile: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as plain values."""
        return asdict(self)


def choose_policy(config: RunConfig) -> Policy:
    """Return the policy for this machine: channels-last always, bf16 where native, compile when asked.

    Raises:
        InputError: The config names an accelerator that is not here.
    """
    cuda = torch.cuda.is_available()
    wanted = config.accelerator
    if wanted not in ("auto", "cpu", "gpu"):
        raise InputError(f"Expected --accelerator to be auto, cpu or gpu, but got {wanted!r}.")
    if wanted == "gpu" and not cuda:
        raise InputError(
            "Expected a CUDA device for --accelerator gpu, but found none. Use --accelerator cpu."
        )
    accelerator = "gpu" if cuda and wanted != "cpu" else "cpu"
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if _native_bf16(accelerator) else "32-true"
    return Policy(accelerator, precision, channels_last=True, compile=config.compile)


def processes(config: RunConfig) -> tuple[int | str, int]:
    """Return `(devices, num_nodes)` for the Trainer; SLURM's and torchrun's own numbers win over "auto".

    Raises:
        InputError: `devices` is no number.
    """
    env = os.environ
    devices: int | str = config.devices
    nodes = config.num_nodes
    torchrun = "TORCHELASTIC_RUN_ID" in env
    slurm = "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    if devices == "auto":
        if torchrun:
            devices = int(env["LOCAL_WORLD_SIZE"])
        elif slurm and "SLURM_NTASKS_PER_NODE" in env:
            devices = int(env["SLURM_NTASKS_PER_NODE"])
        elif choose_policy(config).accelerator == "cpu":
            devices = 1
    elif not str(devices).isdigit() or int(devices) < 1:
        raise InputError(f"Expected --devices to be a positive number or auto, but got {devices!r}.")
    else:
        devices = int(devices)
    if nodes == 0:
        if torchrun:
            nodes = max(1, int(env["WORLD_SIZE"]) // int(env["LOCAL_WORLD_SIZE"]))
        else:
            nodes = int(env.get("SLURM_NNODES", "1")) if slurm else 1
    return devices, nodes


def _native_bf16(accelerator: str) -> bool:
    if accelerator == "gpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)
