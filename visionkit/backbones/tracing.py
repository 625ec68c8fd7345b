"""Running a network for its shapes alone, and finding where a network can be tapped by watching it run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.compat import tensor_tables

__all__ = ["Call", "meta_parameters", "on_meta_device", "record_calls", "run_for_shapes", "trunk"]


@dataclass(frozen=True)
class Call:
    """One run of one module: its name, when it began and ended, and the shape it gave."""

    name: str
    begin: int
    end: int
    shape: tuple[int, ...] | None


def on_meta_device(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the meta device; one that computes while it is built is moved there afterwards."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:
        return build().to("meta")


@contextmanager
def meta_parameters(module: nn.Module, *, grad: bool = False) -> Iterator[dict[str, Tensor]]:
    """Put stand-ins without memory in the place of every parameter and buffer, for a while.

    Done by hand: `torch.func.functional_call` does not put everything back in networks that share modules.

    Args:
        module: The network.
        grad: Whether the stand-ins of parameters record gradients.

    Yields:
        The stand-ins by the names of the parameters.
    """
    modules = list(module.modules())
    pairs = [tensor_tables(child) for child in modules]
    tables = [(parameters, grad) for parameters, _ in pairs] + [(buffers, False) for _, buffers in pairs]
    held = [dict(table) for table, _ in tables]
    modes = [child.training for child in modules]
    stand_ins: dict[int, Tensor] = {}
    named = {name: id(p) for name, p in module.named_parameters()}

    def stand_in(value: Tensor, wants_grad: bool) -> Tensor:
        if id(value) not in stand_ins:
            stand_ins[id(value)] = torch.empty_like(value, device="meta").requires_grad_(wants_grad)
        return stand_ins[id(value)]

    for table, wants_grad in tables:
        table.update({n: stand_in(v, wants_grad) for n, v in table.items() if v is not None})
    module.eval()
    try:
        yield {name: stand_ins[key] for name, key in named.items()}
    finally:
        for (table, _), values in zip(tables, held, strict=True):
            table.update(values)
        for child, mode in zip(modules, modes, strict=True):
            child.training = mode


def run_for_shapes(module: nn.Module, size: tuple[int, int], channels: int, *, batch: int = 1) -> Any:
    """Run a network in evaluation mode on an image `(batch, channels, *size)`, for its shapes alone."""
    with torch.no_grad(), meta_parameters(module):
        return module(torch.empty(batch, channels, *size, device="meta"))


def record_calls(
    module: nn.Module, size: tuple[int, int], channels: int, run: Callable[..., Any] = run_for_shapes
) -> list[Call]:
    """Run a network for its shapes and return every module call in the order in which they ended."""
    clock = 0
    begun: dict[str, list[int]] = {}
    calls: list[Call] = []
    handles = []

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any) -> None:
            nonlocal clock
            clock += 1
            begun.setdefault(name, []).append(clock)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal clock
            clock += 1
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            calls.append(Call(name, begun[name].pop(), clock, shape))

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
    """Return the calls along the trunk; a module is opened where it shrinks by more than 2.

    Watching the top level keeps branches inside blocks out of sight: the last call of each reduction is then
    what the network itself hands on, not an inner activation of the next stage.
    """
    by_name = {call.name: call for call in calls}
    inside = [c for c in by_name.values() if c.name and _caller(c.name, by_name) == root]
    found: list[Call] = []
    shrunk = size[0]
    for call in sorted(inside, key=lambda c: c.end):
        side = _side(call.shape, size)
        if side and shrunk > 2 * side:
            found += trunk(calls, size, call.name)
        if side or (call.shape is not None and len(call.shape) == 3):
            found.append(call)
        elif call.shape is None:
            # gives several tensors: look inside
            found += trunk(calls, size, call.name)
        shrunk = side or shrunk
    return found


def _caller(name: str, by_name: Mapping[str, Call]) -> str:
    """Return the nearest module above that ran itself: a list of modules does not."""
    while name:
        name = name.rpartition(".")[0]
        if name in by_name:
            return name
    return ""


def _side(shape: tuple[int, ...] | None, size: tuple[int, int]) -> int:
    """Return the height of a map, whichever way its channels lie; 0 when the shape is no map."""
    if shape is None or len(shape) != 4:
        return 0
    for height, width in ((shape[2], shape[3]), (shape[1], shape[2])):
        if height > 1 and abs(height * size[1] - width * size[0]) <= max(size):
            return height
    return 0
