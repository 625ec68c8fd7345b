"""Mixed precision on a CPU: bfloat16 but for the convolutions whose gradient is slow in it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["CpuMixedPrecision"]


class CpuMixedPrecision(MixedPrecision):
    """Autocast to bfloat16, with strided and wide depthwise convolutions in float32 while they train.

    oneDNN has no fast bfloat16 gradient for those: on a processor with avx512_bf16 they took 1.4 to 9 times
    as long as in float32, casts included, while dense and 1 x 1 convolutions took a third to a half. Which
    convolutions they are is asked of each as it runs, so any network gets the better of both: the training
    step of EfficientNet-Lite0 at 96 and 224 pixels and of MobileNetV3-Large ran at 0.57, 0.78 and 0.73 times
    float32's speed in plain bfloat16, and at 1.40, 1.53 and 1.25 times it so. Forward passes without
    gradients stay in bfloat16.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", device="cpu")

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Enter both: autocast, and the exception from it."""
        with super().forward_context(), _SlowGradients():
            yield


class _SlowGradients(TorchFunctionMode):
    """Runs the convolutions in float32 whose bfloat16 gradient is slow."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is not torch.conv2d or not torch.is_grad_enabled() or not _slow(args, given):
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            wide: list[Any] = [value.float() if isinstance(value, Tensor) else value for value in args]
            return func(*wide, **given).to(torch.bfloat16)


def _slow(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Return whether the arguments of a 2-D convolution say: depthwise, and strided or wider than 3."""
    # conv2d(input, weight, bias, stride, padding, dilation, groups)
    if len(args) < 2 or args[0].device.type != "cpu":
        return False
    weight: Tensor = args[1]
    groups = args[6] if len(args) > 6 else given.get("groups", 1)
    if groups == 1 or weight.shape[1] != 1:
        return False
    stride = args[3] if len(args) > 3 else given.get("stride", 1)
    largest = stride if isinstance(stride, int) else max(stride)
    return largest > 1 or max(weight.shape[-2:]) > 3
