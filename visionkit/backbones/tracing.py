"""Shapes of a network on the meta device, its module calls, and the nodes along its trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from visionkit.compat import tensor_tables

__all__ = [
    "Call",
    "ShapeNorms",
    "meta_parameters",
    "on_meta_device",
    "record_calls",
    "run_for_shapes",
    "trunk",
]


@dataclass(frozen=True)
class Call:
    """One call of one module.

    Args:
        name: Name of the module.
        begin: Clock when the call began; the clock counts begins and ends of calls.
        end: Clock when it ended.
        shape: Shape of its output; None when that is not one tensor.
    """

    name: str
    begin: int
    end: int
    shape: tuple[int, ...] | None


def on_meta_device(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the meta device; one whose constructor computes values is moved there afterwards."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:
        return build().to("meta")


class ShapeNorms(TorchFunctionMode):
    """Within a `with` block, norms on the meta device are one product and one sum.

    Shapes and the parameters that get a gradient are the same. torch's own kernels for norms on the meta
    device are written in Python, and take half of the time of a trace.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        weight, bias = given.get("weight"), given.get("bias")
        if func not in (F.batch_norm, F.layer_norm) or weight is None or bias is None or not args[0].is_meta:
            return func(*args, **given)
        x: Tensor = args[0]
        if func is F.layer_norm and x.shape[-weight.dim() :] == weight.shape:
            return x.contiguous() * weight + bias  # torch's result is contiguous, too
        if func is F.batch_norm and x.shape[1] == len(weight):
            shape = [1, -1] + [1] * (x.dim() - 2)
            return x * weight.view(shape) + bias.view(shape)
        return func(*args, **given)  # its error


@contextmanager
def meta_parameters(module: nn.Module, *, grad: bool = False) -> Iterator[dict[str, Tensor]]:
    """Replace every parameter and buffer by a tensor on the meta device within a `with` block.

    `torch.func.functional_call` does not restore everything in networks that share modules.

    Args:
        module: The network.
        grad: Whether the replaced parameters record gradients.

    Yields:
        The replacements by the names of the parameters.
    """
    modules = list(module.modules())
    pairs = [tensor_tables(child) for child in modules]
    tables = [(parameters, grad) for parameters, _ in pairs] + [(buffers, False) for _, buffers in pairs]
    originals = [dict(table) for table, _ in tables]
    modes = [child.training for child in modules]
    replacements: dict[int, Tensor] = {}
    named = {name: id(p) for name, p in module.named_parameters()}

    # Shared parameters get one replacement.
    def replace(value: Tensor, wants_grad: bool) -> Tensor:
        if id(value) not in replacements:
            replacements[id(value)] = torch.empty_like(value, device="meta").requires_grad_(wants_grad)
        return replacements[id(value)]

    for table, wants_grad in tables:
        table.update({n: replace(v, wants_grad) for n, v in table.items() if v is not None})
    module.eval()
    try:
        with ShapeNorms():
            yield {name: replacements[key] for name, key in named.items()}
    finally:
        for (table, _), values in zip(tables, originals, strict=True):
            table.update(values)
        for child, mode in zip(modules, modes, strict=True):
            child.training = mode


def run_for_shapes(module: nn.Module, size: tuple[int, int], channels: int, *, batch: int = 1) -> Any:
    """Run a network in evaluation mode on meta images `(batch, channels, *size)`; return its outputs."""
    with torch.no_grad(), meta_parameters(module):
        return module(torch.empty(batch, channels, *size, device="meta"))


def record_calls(
    module: nn.Module, size: tuple[int, int], channels: int, run: Callable[..., Any] = run_for_shapes
) -> list[Call]:
    """Run a network and return all calls of its modules, in the order in which they ended.

    Args:
        module: The network.
        size: `(height, width)` of the image.
        channels: Channels of the image.
        run: Called as `run(module, size, channels)`.
    """
    clock = 0
    started: dict[str, list[int]] = {}
    calls: list[Call] = []
    handles = []

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any) -> None:
            nonlocal clock
            clock += 1
            started.setdefault(name, []).append(clock)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal clock
            clock += 1
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            calls.append(Call(name, started[name].pop(), clock, shape))

        return hook

    for name, child in module.named_modules():
        handles += [child.register_forward_pre_hook(before(name)), child.register_forward_hook(after(name))]
    try:
        run(module, size, channels)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def trunk(calls: Sequence[Call], size: tuple[int, int], root: str = "") -> list[Call]:
    """Return the calls along the trunk of a network, whose outputs may be feature maps.

    Children of the root are listed; a child is descended into only where it reduces the map by more than 2,
    or returns several tensors. So branches inside blocks are not listed: the last call of each reduction is
    the output of a stage, not an inner activation of the next stage.

    Args:
        calls: All calls of the network, as `record_calls` returns them.
        size: `(height, width)` of the image.
        root: Module whose children are listed; "" for the network.
    """
    # Step 1: the last call of each child that is called itself (a ModuleList is not).
    by_name = {call.name: call for call in calls}
    children = [c for c in by_name.values() if c.name and _parent_call(c.name, by_name) == root]
    # Step 2: in the order in which they ended, with the trunk of those that hold several stages.
    nodes: list[Call] = []
    previous = size[0]  # height of the map so far
    for call in sorted(children, key=lambda c: c.end):
        height = _map_height(call.shape, size)  # of (1, C, h, w) or (1, h, w, C); 0: no map
        if height and previous > 2 * height:
            nodes += trunk(calls, size, call.name)
        if height or (call.shape is not None and len(call.shape) == 3):  # a map, or tokens (1, N, C)
            nodes.append(call)
        elif call.shape is None:  # several tensors
            nodes += trunk(calls, size, call.name)
        previous = height or previous
    return nodes


def _parent_call(name: str, by_name: Mapping[str, Call]) -> str:
    """Return the nearest enclosing module that is called itself: a ModuleList is not."""
    while name:
        name = name.rpartition(".")[0]
        if name in by_name:
            return name
    return ""


def _map_height(shape: tuple[int, ...] | None, size: tuple[int, int]) -> int:
    """Return the height of a map `(1, C, h, w)` or `(1, h, w, C)`; 0 for other shapes.

    A map has the aspect ratio of the image, up to rounding: that tells its sides from its channels.
    """
    if shape is None or len(shape) != 4:
        return 0
    for height, width in ((shape[2], shape[3]), (shape[1], shape[2])):
        if height > 1 and abs(height * size[1] - width * size[0]) <= max(size):
            return height
    return 0
