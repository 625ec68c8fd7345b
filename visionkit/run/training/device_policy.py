"""What the device and the network decide: memory layout, precision, TF32, and whether to compile."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from visionkit.compat import cpu_computes_bf16
from visionkit.errors import InputError
from visionkit.run.config import RunConfig
from visionkit.run.training.flops import count_multiply_adds

__all__ = ["Policy", "choose_policy"]

_MAX_DEPTHWISE = 0.05
"""Fraction of depthwise arithmetic above which a compiled network is slower in bf16 than in fp32 on CPUs.

Measured over eleven networks at two sizes (`tests/bench/precision_survey.py`): those at 8 to 9 percent took
1.3 to 1.9 times as long in bf16, those at 0 to 2.4 percent were 1.3 to 1.9 times faster. Depthwise
convolutions move values and hardly multiply them, and the CPU kernels for them convert at both ends. What
is not compiled trains the slow ones in fp32 (`visionkit.run.training.precision`) and is faster in bf16 all
the same.
"""


@dataclass(frozen=True)
class Policy:
    """How a run uses its device.

    Args:
        accelerator: "cpu" or "gpu".
        precision: Lightning's name of it; bf16 only where the device computes in it natively.
        channels_last: Whether 2-D weights and images lie channels-last.
        compile: Whether the model is compiled.
        reason: Why this precision.
    """

    accelerator: str
    precision: str
    channels_last: bool
    compile: bool
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as plain values."""
        return asdict(self)


def choose_policy(config: RunConfig, module: nn.Module | None = None) -> Policy:
    """Return the policy for this machine: channels-last, compile when asked, bf16 where it is faster.

    That is on GPUs and CPUs that compute in it, unless a network is compiled for a CPU whose depthwise
    convolutions have more than a twentieth of its arithmetic: not compiled, those train in 32 bits. It is a
    function of machine and network, not of a timing, so both arms and a resumed run get the same.

    Args:
        config: Accelerator, precision, compile, and the side of the images.
        module: The task, or a network `(B, 3, H, W)`; without it bf16 goes by the device alone.

    Raises:
        InputError: An accelerator is named that is not here, or --compile where nothing compiles.
    """
    cuda = torch.cuda.is_available()
    asked = config.accelerator
    if asked not in ("auto", "cpu", "gpu"):
        raise InputError(f"Expected --accelerator to be auto, cpu or gpu, but got {asked!r}.")
    if asked == "gpu" and not cuda:
        raise InputError(
            "Expected a CUDA device for --accelerator gpu, but found none. Use --accelerator cpu."
        )
    accelerator = "gpu" if cuda and asked != "cpu" else "cpu"
    if config.compile:
        _check_compiler(accelerator)
    precision, reason = config.precision, "as asked"
    if precision == "auto":
        precision, reason = _fastest(accelerator, module if config.compile else None, config.image_size)
    # Sharded parameters come back row by row: torch pairs channels-last ones with gradients in another order.
    layout = config.strategy != "fsdp"
    return Policy(accelerator, precision, channels_last=layout, compile=config.compile, reason=reason)


def _check_compiler(accelerator: str) -> None:
    # torch notices in the first step, minutes into a run, with an error of a hundred lines.
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


def _fastest(accelerator: str, module: nn.Module | None, side: int) -> tuple[str, str]:
    """Return the faster precision, and why; `module` is a network that is to be compiled."""
    if not _native_bf16(accelerator):
        return "32-true", f"this {accelerator} does not compute in bf16"
    if accelerator == "gpu" or module is None:
        return "bf16-mixed", f"this {accelerator} computes in bf16"
    fraction = _depthwise_fraction(getattr(module, "backbone", module), side)
    if fraction > _MAX_DEPTHWISE:
        return (
            "32-true",
            f"depthwise convolutions are {fraction:.0%} of the arithmetic: bf16 is slower on a CPU",
        )
    return "bf16-mixed", f"this cpu computes in bf16, and depthwise convolutions are {fraction:.0%}"


def _depthwise_fraction(net: nn.Module, side: int) -> float:
    """Return the fraction of depthwise arithmetic; 0 for networks that do not run at this size."""
    size = getattr(net, "fixed_size", None) or (side, side)
    try:
        counts = count_multiply_adds(net, (3, *size))
    except Exception:
        # It takes other inputs than images of this size: then it is not known to be slower.
        return 0.0
    return counts["depthwise"] / max(1, sum(counts.values()))


def _native_bf16(accelerator: str) -> bool:
    if accelerator == "gpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    return cpu_computes_bf16()
