"""`fuse_norms`: batch norms fused into the convolutions before them, for prediction."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle

from visionkit.backbones.norms import FrozenBatchNorm
from visionkit.compat import BatchNormBase
from visionkit.errors import RunError

__all__ = ["fuse_norms"]

_TOLERANCE = 1e-3


def fuse_norms(module: nn.Module, *example: Any) -> nn.Module:
    """Return a copy for prediction in which batch norms are fused into the convolutions before them.

    The pairs are found by running the example, and the outputs of both networks are compared on it. Batch
    norms that do not directly follow a convolution stay. The copy is in evaluation mode, has another state
    dict, and is not for training; in 16 bits it rounds differently.

    Args:
        module: A network or a task whose outputs are tensors, or lists or dicts of them. A detector's are
            not: fuse its `backbone`.
        example: Positional arguments of its `forward`; for a backbone normalised images `(B, C, H, W)`.

    Raises:
        RunError: The outputs differ by more than a thousandth of their largest value: a convolution's output
            is used elsewhere too. Use the module as it is.
    """
    fused = copy.deepcopy(module).eval()
    conv_of_norm, expected_outputs = _find_pairs(fused, example)
    for parent in [*fused.modules()]:
        for name, child in [*parent.named_children()]:
            if child in conv_of_norm:
                _fuse_into_conv(conv_of_norm[child], child)
                setattr(parent, name, nn.Sequential(*_fused_layers(child)))
    with torch.no_grad():
        outputs = _tensors(fused(*example))
    for ours, theirs in zip(outputs, expected_outputs, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        worst = float((ours - theirs).abs().max()) / scale
        if not worst <= _TOLERANCE:
            raise RunError(
                f"Expected the same outputs after fusing {len(conv_of_norm)} norms of "
                f"{type(module).__name__}, but they differ by {worst:.2g} of the largest value: a "
                "convolution's output is used elsewhere too. Predict with the module as it is."
            )
    return fused


def _find_pairs(
    module: nn.Module, example: tuple[Any, ...]
) -> tuple[dict[nn.Module, nn.Conv2d], list[Tensor]]:
    """Run once; return each norm whose input is the output of one convolution, with it, and the outputs."""
    from timm.layers.conv2d_same import Conv2dSame

    written: list[tuple[nn.Conv2d, Tensor]] = []
    read: list[tuple[nn.Module, Tensor]] = []

    def after(conv: Any, _: Any, output: Tensor) -> None:
        written.append((conv, output))

    def before(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        read.append((norm, inputs[0]))

    handles: list[RemovableHandle] = []
    for part in module.modules():
        # Other subclasses may change their weights in forward; Conv2dSame only pads.
        if type(part) in (nn.Conv2d, Conv2dSame):
            handles.append(part.register_forward_hook(after))
        elif isinstance(part, BatchNormBase | FrozenBatchNorm) and part.running_var is not None:
            handles.append(part.register_forward_pre_hook(before))
    with torch.no_grad():
        expected_outputs = _tensors(module(*example))
    for handle in handles:
        handle.remove()
    conv_of_norm: dict[nn.Module, nn.Conv2d] = {}
    for norm, value in read:
        writers = [conv for conv, output in written if output is value]
        alone = sum(other is norm for other, _ in read) == sum(v is value for _, v in read) == 1
        if writers and alone and sum(conv is writers[0] for conv, _ in written) == 1:
            conv_of_norm[norm] = writers[0]
    return conv_of_norm, expected_outputs


def _fuse_into_conv(conv: nn.Conv2d, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _fused_layers(norm: nn.Module) -> list[nn.Module]:
    """Return the layers that timm puts into a norm: dropout, activation, anti-aliasing pool."""
    parts = (getattr(norm, name, None) for name in ("drop", "act", "aa"))
    return [part for part in parts if isinstance(part, nn.Module)]


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs.float()]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in _tensors(value)]
