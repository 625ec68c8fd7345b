"""Memory format, precision and compilation, chosen for the device and the network."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from visionkit.compat import cpu_computes_bf16
from visionkit.errors import InputError, unknown_name
from visionkit.run.config import PRECISIONS, RunConfig
from visionkit.run.training.flops import count_multiply_adds

__all__ = ["Policy", "choose_policy", "cpu_is_faster_in_bf16"]

_MIN_GAIN = 1.1
"""How many times as fast as in float32 a CPU has to multiply in bf16 for a run to be in bf16.

Measured gains: 0.5 to 0.6 (Intel Xeon with avx512_bf16, whose AMX is hidden), 1.9 to 2.4 (AMD EPYC with
avx512_bf16), 7 (Intel Xeon with AMX). So the bound is a factor of 1.7 and more from each, and noise does not
decide.
"""

_MAX_DEPTHWISE = 0.05
"""Fraction of depthwise arithmetic above which a compiled network is slower in bf16 than in fp32 on CPUs.

Measured over eleven networks at two sizes (`tests/bench/precision_survey.py`): those at 8 to 9 percent took
1.3 to 1.9 times as long in bf16, those at 0 to 2.4 percent were 1.3 to 1.9 times faster. Depthwise
convolutions are bound by memory, and their CPU kernels convert inputs and outputs. A network that is not
compiled trains the slow ones in fp32 (`visionkit.run.training.precision`) and is faster in bf16.
"""


@dataclass(frozen=True)
class Policy:
    """How a run uses its device.

    Args:
        accelerator: "cpu", "gpu" (CUDA) or "mps" (Apple).
        precision: Lightning's name of it; bf16 only where the device computes in it natively.
        channels_last: Whether 4-D weights and images are in channels-last memory format.
        compile: Whether the model is compiled.
        reason: Reason for this precision.
    """

    accelerator: str
    precision: str
    channels_last: bool
    compile: bool
    reason: str = ""

    @property
    def device(self) -> str:
        """The name of the device in torch."""
        return "cuda" if self.accelerator == "gpu" else self.accelerator

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as plain values."""
        return asdict(self)


def choose_policy(config: RunConfig, module: nn.Module | None = None) -> Policy:
    """Return the policy for this machine: channels-last, compile when asked, bf16 where it is faster.

    bf16 is chosen on GPUs that compute in it and on CPUs that multiply faster in it
    (`cpu_is_faster_in_bf16`), except for a network that is compiled for a CPU and has more than 5% of its
    arithmetic in depthwise convolutions (not compiled, slow ones of these train in fp32). The choice depends
    on machine and network, so both arms and a resumed run get the same.

    Args:
        config: Accelerator, precision, compile, and the side of the images.
        module: The task, or a network `(B, 3, H, W)`; without it bf16 goes by the device alone.

    Raises:
        InputError: A precision is not known, an accelerator is named that is not here, or --compile where
            nothing compiles.
    """
    accelerator = _accelerator(config.accelerator)
    if config.compile:
        _check_compiler(accelerator)
    precision, reason = config.precision, "as asked"
    if precision != "auto" and precision not in PRECISIONS:
        raise unknown_name("precision", precision, ("auto", *PRECISIONS))
    if precision == "64-true" and accelerator == "mps":
        raise InputError("Expected --precision of at most 32 bits for --accelerator mps, but got 64-true.")
    if precision == "auto":
        precision, reason = _fastest(accelerator, module if config.compile else None, config.image_size)
    # FSDP's sharded parameters are row-major: torch would pair channels-last ones with gradients in another
    # order. On MPS nobody has measured it yet.
    layout = config.strategy != "fsdp" and accelerator != "mps"
    return Policy(accelerator, precision, channels_last=layout, compile=config.compile, reason=reason)


def _accelerator(requested: str) -> str:
    if requested not in ("auto", "cpu", "gpu", "mps"):
        raise InputError(f"Expected --accelerator to be auto, cpu, gpu or mps, but got {requested!r}.")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (requested == "gpu" and not cuda) or (requested == "mps" and not mps):
        what, other = ("a CUDA device", "mps") if requested == "gpu" else ("an Apple GPU (MPS)", "gpu")
        there = " or ".join(["cpu", *([other] if cuda or mps else [])])
        raise InputError(
            f"Expected {what} for --accelerator {requested}, but found none. Use --accelerator {there}."
        )
    if requested == "auto":
        return "gpu" if cuda else "cpu"
    return requested


def _check_compiler(accelerator: str) -> None:
    # torch would fail in the first step, minutes into a run, with a hundred lines of traceback.
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
    if accelerator == "cpu" and not cpu_is_faster_in_bf16():
        return "32-true", "this cpu multiplies faster in float32 than in bf16"
    if accelerator == "gpu" or module is None:
        return "bf16-mixed", f"this {accelerator} computes in bf16"
    fraction = _depthwise_fraction(getattr(module, "backbone", module), side)
    if fraction is None:
        return "bf16-mixed", f"this cpu computes in bf16; no arithmetic was counted for images of side {side}"
    if fraction > _MAX_DEPTHWISE:
        return (
            "32-true",
            f"depthwise convolutions are {fraction:.0%} of the arithmetic: bf16 is slower on a CPU",
        )
    return "bf16-mixed", f"this cpu computes in bf16, and depthwise convolutions are {fraction:.0%}"


def _depthwise_fraction(net: nn.Module, side: int) -> float | None:
    """Return the fraction of depthwise arithmetic; None for networks that do not run at this size."""
    size = getattr(net, "fixed_size", None) or (side, side)
    try:
        counts = count_multiply_adds(net, (3, *size))
    except Exception:
        return None  # it takes other inputs than images of this size
    return counts["depthwise"] / max(1, sum(counts.values()))


def _native_bf16(accelerator: str) -> bool:
    if accelerator == "gpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    return accelerator == "cpu" and cpu_computes_bf16()


def cpu_is_faster_in_bf16() -> bool:
    """Return whether this CPU multiplies in bf16 at least 1.1 times as fast as in float32."""
    return _bf16_gain() >= _MIN_GAIN


@cache
def _bf16_gain() -> float:
    """Return how many times as fast as in float32 this CPU multiplies in bf16.

    An instruction for bf16 says nothing about its rate, and a limit on the instructions that oneDNN may use
    takes it away. So products of 512 x 512 numbers are timed in both types in turn, once a process: 50 ms.
    The shortest time of each counts, since other work on the machine only makes one longer.
    """
    pairs = [(side, side.bfloat16()) for side in (torch.ones(512, 512), torch.ones(512, 512))]
    shortest = [float("inf"), float("inf")]
    for count in range(8):
        for which, (left, right) in enumerate(zip(*pairs, strict=True)):
            start = time.perf_counter()
            torch.mm(left, right)
            shortest[which] = min(shortest[which], time.perf_counter() - start)
        if count > 0 and shortest[1] > 8 * shortest[0]:
            break  # no fast code at all
    return shortest[0] / shortest[1]
