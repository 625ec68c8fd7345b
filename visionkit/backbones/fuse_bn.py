"""Batch norms folded into the convolutions before them, for prediction."""

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
    """Return a copy for prediction in which convolutions do the work of the batch norms that follow them.

    Which follow which is seen in a run on the example, and the outputs with and without are compared on it.
    What has no batch norm right behind a convolution is copied as it is. The copy stands in evaluation mode,
    has another state dict, and is not for training; in 16 bits its roundings are others too.

    Args:
        module: A network or a task whose outputs are tensors, or lists or dicts of them. A detector's are
            not: fold its `backbone`.
        example: Positional arguments of its `forward`; for a backbone normalised images `(B, C, H, W)`.

    Raises:
        RunError: The outputs differ by more than a thousandth of their largest value: a convolution's output
            is used elsewhere too. Use the module as it is.
    """
    folded = copy.deepcopy(module).eval()
    pairs, wanted = _watch(folded, example)
    for parent in [*folded.modules()]:
        for name, child in [*parent.named_children()]:
            if child in pairs:
                _fold(pairs[child], child)
                setattr(parent, name, nn.Sequential(*_fused(child)))
    with torch.no_grad():
        got = _tensors(folded(*example))
    for ours, theirs in zip(got, wanted, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        worst = float((ours - theirs).abs().max()) / scale
        if not worst <= _TOLERANCE:
            raise RunError(
                f"Expected the same outputs after folding {len(pairs)} norms of {type(module).__name__}, but "
                f"they differ by {worst:.2g} of the largest value: a convolution's output is used elsewhere "
                "too. Predict with the module as it is."
            )
    return folded


def _watch(module: nn.Module, example: tuple[Any, ...]) -> tuple[dict[nn.Module, nn.Conv2d], list[Tensor]]:
    """Run once; return the norms that read what one convolution wrote, with it, and the outputs."""
    from timm.layers.conv2d_same import Conv2dSame

    written: list[tuple[nn.Conv2d, Tensor]] = []
    read: list[tuple[nn.Module, Tensor]] = []

    def after(conv: Any, _: Any, output: Tensor) -> None:
        written.append((conv, output))

    def before(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        read.append((norm, inputs[0]))

    handles: list[RemovableHandle] = []
    for part in module.modules():
        # A subclass may change its weights as it runs; those that only pad are known.
        if type(part) in (nn.Conv2d, Conv2dSame):
            handles.append(part.register_forward_hook(after))
        elif isinstance(part, BatchNormBase | FrozenBatchNorm) and part.running_var is not None:
            handles.append(part.register_forward_pre_hook(before))
    with torch.no_grad():
        wanted = _tensors(module(*example))
    for handle in handles:
        handle.remove()
    pairs: dict[nn.Module, nn.Conv2d] = {}
    for norm, value in read:
        writers = [conv for conv, output in written if output is value]
        alone = sum(other is norm for other, _ in read) == sum(v is value for _, v in read) == 1
        if writers and alone and sum(conv is writers[0] for conv, _ in written) == 1:
            pairs[norm] = writers[0]
    return pairs, wanted


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _fused(norm: nn.Module) -> list[nn.Module]:
    """Return what timm has fused into a norm: dropout, activation, anti-aliasing pool."""
    parts = (getattr(norm, name, None) for name in ("drop", "act", "aa"))
    return [part for part in parts if isinstance(part, nn.Module)]


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs.float()]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in _tensors(value)]
