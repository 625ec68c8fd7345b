"""What the device decides: memory layout, precision, and whether to compile."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import torch

from visionkit.errors import InputError
from visionkit.run.config import RunConfig

__all__ = ["Policy", "choose_policy"]


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
        InputError: An accelerator is named that is not here, or --compile where nothing compiles.
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
    if config.compile:
        _check_compiler(accelerator)
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if _native_bf16(accelerator) else "32-true"
    return Policy(accelerator, precision, channels_last=True, compile=config.compile)


def _check_compiler(accelerator: str) -> None:
    # torch finds out in the first step, minutes into a run, and says so in a hundred lines.
    if accelerator == "gpu":
        if find_spec("triton") is None:
            raise InputError("--compile on a GPU needs the package triton, which is absent. Leave it out.")
        return
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if not shutil.which(compiler):
        raise InputError(
            f"--compile on a CPU needs a C++ compiler, but {compiler} is not found. Install it, set CXX to "
            "another one, or leave --compile out."
        )


def _native_bf16(accelerator: str) -> bool:
    if accelerator == "gpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)
