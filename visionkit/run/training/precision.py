"""Precision on a CPU: convolutions whose gradient is slow or wrong are computed in another way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import Tensor
from torch.overrides import TorchFunctionMode

from visionkit.compat import has_saved_tensor_hooks
from visionkit.nn.depthwise import depthwise_conv2d

__all__ = ["CpuMixedPrecision", "CpuPrecision"]


class CpuPrecision(Precision):
    """Float32; depthwise convolutions of wide kernels or over small maps have a quicker gradient.

    `visionkit.nn.depthwise` is how.
    """

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Enter the context in which convolutions are computed so."""
        with super().forward_context(), _FastGradients(mixed=False):
            yield


class CpuMixedPrecision(MixedPrecision):
    """Autocast to bfloat16, with strided and wide depthwise convolutions in float32 while they train.

    oneDNN has no fast bfloat16 gradient for these: on a processor with avx512_bf16 they took 1.4 to 9 times
    as long as in float32, casts included, while dense and 1 x 1 convolutions took a third to a half. The
    training step of EfficientNet-Lite0 at 96 and 224 pixels and of MobileNetV3-Large ran at 0.57, 0.78 and
    0.73 times the speed of float32 in plain bfloat16, and at 1.40, 1.53 and 1.25 times with this exception.
    With AMX plain bfloat16 took 2.0 (EfficientNet-Lite0), 1.6 to 1.8 (MobileNetV3-Large) and 1.4 times as
    long (ConvNeXt-Tiny).

    The weights of wide ones, and of those over maps smaller than the kernel, learn by a quicker gradient
    (`visionkit.nn.depthwise`); `docs/explanation/speed.md` has what that gains.

    1 x 1 convolutions over channels-last maps are computed as matrix products: the gradient of their weight
    is then up to twice as fast (2048 to 512 channels, 10 x 10 positions). Time of a training step without
    this over with it, at 96 and 224 pixels, one thread, medians of pairs: with AMX ResNet-50 1.08 and 1.09,
    EfficientNet-Lite0 1.11 and 1.07, MobileNetV3-Large 1.14 and 1.09, ConvNeXt-Tiny, which has none, 0.99 and
    0.98; with avx512_bf16 only 0.98 and 1.01, 1.05 and 1.03, 1.11 and 1.01, 1.00.

    Strided convolutions over a map narrower than their stride are computed in float32, too: oneDNN leaves
    parts of their weight's bfloat16 gradient unwritten, so that they hold whatever was in memory, often
    numbers that are not finite (torch 2.15 on a processor with avx512_bf16; kernels of 2 to 7, dense and
    grouped, of any memory format; the last stage of a ResNet over images of 32 pixels and less).

    Forward passes without gradients are not changed, nor those of gradient checkpointing: they run again in
    the backward pass, outside of this context, and have to run the same way.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", device="cpu")

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Enter autocast and its exceptions."""
        with super().forward_context(), _FastGradients(mixed=True):
            yield


class _FastGradients(TorchFunctionMode):
    """Computes convolutions in another way where their gradient is slow or wrong.

    Args:
        mixed: Whether autocast to bfloat16 is on.
    """

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.mixed = mixed

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
        call = _Conv2dCall(**dict(zip(_NAMES, args, strict=False)), **given)
        if call.input.device.type != "cpu":
            return func(*args, **given)
        if not self.mixed:
            return call.run()
        if call.is_product():
            rows = call.input.permute(0, 2, 3, 1)  # (B, H, W, C), no copy
            return F.linear(rows, call.weight.flatten(1), call.bias).permute(0, 3, 1, 2)  # (B, C', H, W)
        if not (call.is_slow() or call.is_narrow() or call.has_slow_weights()):
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            return call.float().run().to(torch.bfloat16)


@dataclass(frozen=True)
class _Conv2dCall:
    """The arguments of `torch.conv2d`."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: int | Sequence[int] = 1
    padding: str | int | Sequence[int] = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1

    def run(self) -> Tensor:
        """Return the convolution, with the quicker gradient where it has one."""
        if isinstance(self.padding, str) or not self.has_slow_weights():
            return torch.conv2d(*(getattr(self, name) for name in _NAMES))
        return depthwise_conv2d(self.input, self.weight, self.bias, _pair(self.stride), _pair(self.padding))

    def float(self) -> _Conv2dCall:
        """Return the same call in float32."""
        bias = None if self.bias is None else self.bias.float()
        return replace(self, input=self.input.float(), weight=self.weight.float(), bias=bias)

    def has_slow_weights(self) -> bool:
        """Return whether it is depthwise, with a kernel of more than three columns or larger than the map."""
        if self.groups == 1 or self.weight.shape[:2] != (self.groups, 1) or self.input.dim() != 4:
            return False
        (height, width), (rows, columns) = self.input.shape[2:], self.weight.shape[2:]
        if columns <= 3 and rows <= height and columns <= width:
            return False
        return _largest(self.dilation) == 1 and self.input.is_contiguous(memory_format=torch.channels_last)

    def is_slow(self) -> bool:
        """Return whether it is depthwise, and strided or of a kernel larger than 3."""
        if self.groups == 1 or self.weight.shape[1] != 1:
            return False
        return _largest(self.stride) > 1 or max(self.weight.shape[-2:]) > 3

    def is_narrow(self) -> bool:
        """Return whether its stride is larger than a side of the map."""
        return _largest(self.stride) > min(self.input.shape[-2:])

    def is_product(self) -> bool:
        """Return whether it is a plain 1 x 1 convolution over channels-last maps: a product a position."""
        if self.groups != 1 or self.weight.shape[-2:] != (1, 1) or self.input.dim() != 4:
            return False
        padded = not isinstance(self.padding, str) and _largest(self.padding) > 0
        if padded or _largest(self.stride) > 1:
            return False
        return self.input.is_contiguous(memory_format=torch.channels_last)


_NAMES = tuple(part.name for part in fields(_Conv2dCall))


def _largest(sizes: int | Sequence[int]) -> int:
    return sizes if isinstance(sizes, int) else max(sizes)


def _pair(sizes: int | Sequence[int]) -> tuple[int, int]:
    rows, columns = (sizes, sizes) if isinstance(sizes, int) else (sizes[0], sizes[-1])
    return rows, columns
