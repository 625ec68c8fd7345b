"""The processor that the rows are measured on: its kind, which heads a column, and how fast it multiplies."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from visionkit.run.training.device_policy import cpu_is_faster_in_bf16

__all__ = ["KINDS", "bf16_gain", "cpu_flags", "cpu_name", "goal_here", "measure_rates", "processor_kind"]

KINDS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bf16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""What a processor is called, by the first of these instructions that it has."""


def _cpu_info(key: str) -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def cpu_name() -> str:
    """Return the processor's name."""
    return _cpu_info("model name") or platform.processor()


def cpu_flags() -> set[str]:
    """Return what instructions it says to have, without those for bf16 where the library takes float32.

    Empty where the system does not tell.
    """
    flags = set((_cpu_info("flags") or _cpu_info("Features")).split())
    return flags if cpu_is_faster_in_bf16() else {flag for flag in flags if "bf16" not in flag}


def processor_kind(*, gpu: bool = False) -> str:
    """Return the kind of the processor, or of the GPU.

    Args:
        gpu: Whether the rows are for the GPU; others are measured on the processor beside it.
    """
    if gpu and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return next((name for flag, name in KINDS.items() if flag in cpu_flags()), platform.machine())


def goal_here(**goals: float) -> float:
    """Return the goal for this processor: of the best instruction of `KINDS` that it has and a goal names.

    Args:
        goals: A goal by instruction, `avx2` (for what has none of the others) among them.
    """
    return next(
        (goals[flag] for flag in KINDS if flag in goals and flag in cpu_flags()),
        goals["avx2"],
    )


def measure_rates() -> dict[str, float]:
    """Measure what one thread multiplies: GFLOP/s of products and of 3 x 3 convolutions, in fp32 and bf16.

    The best of five calls each, since other work on the machine only ever slows one down.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(1024, 1024, generator=generator) for _ in range(2))
    maps = torch.randn(4, 128, 28, 28, generator=generator).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b, x, w = (value.to(dtype) for value in (left, right, maps, kernel))
        rates[f"products, {name}"] = _rate(lambda a=a, b=b: a @ b, 2 * 1024**3)
        rates[f"convolutions, {name}"] = _rate(
            lambda x=x, w=w: F.conv2d(x, w, padding=1), 2 * 4 * 28 * 28 * 128 * 128 * 9
        )
    return rates


def bf16_gain(rates: dict[str, float], work: str) -> float:
    """Return how many times as fast as fp32 the better type computes: the bound of a step that chooses it.

    Args:
        rates: What `measure_rates` returns.
        work: "products" or "convolutions".
    """
    return max(1.0, rates[f"{work}, bf16"] / rates[f"{work}, fp32"])


def _rate(call: Callable[[], object], operations: int) -> float:
    call()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return round(operations / min(seconds) / 1e9, 1)
