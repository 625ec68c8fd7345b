"""A table of a network, layer by layer, from one forward pass without weights or memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from torch.utils.weak import WeakTensorKeyDictionary

from visionkit.backbones.tracing import run_for_shapes
from visionkit.compat import DispatchMode
from visionkit.interpret.arithmetic.formulas import Field
from visionkit.interpret.arithmetic.positions import Positions, positions_after
from visionkit.interpret.arithmetic.resizing import RESIZES

__all__ = ["Geometry", "Layer", "LayerTable", "layer_table"]

_KINDS = {
    "convolution": "conv", "max_pool2d_with_indices": "max pool", "avg_pool2d": "mean pool",
    "_adaptive_avg_pool2d": "mean pool", "adaptive_max_pool2d": "max pool", "addmm": "linear", "mm": "linear",
    "bmm": "product", "baddbmm": "product", **dict.fromkeys(RESIZES, "resize"),
}  # fmt: skip
_POOLS = ("max_pool2d_with_indices", "avg_pool2d")


@dataclass(frozen=True)
class Geometry:
    """How a filter moves, as (height, width).

    Args:
        kernel_size: Sides of the filter.
        stride: Its steps.
        padding: Pixels before the first row and column, and after the last: `(top, bottom, left, right)`.
        dilation: Distances of its values.
        groups: Parts of the channels.
        transposed: Whether the convolution is turned round.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    transposed: bool = False


@dataclass
class Layer:
    """One row: an operation that has a geometry or costs multiply-adds, or a module with parameters.

    Args:
        name: The module; empty for the network itself.
        kind: "conv", "max pool", "mean pool", "linear", "product" (of two tensors, as in attention),
            "resize", or the class of another module with parameters.
        input: Shape of the input without the batch, `(C, H, W)` for maps.
        output: Shape of the output.
        geometry: How the filter moves; None without one.
        parameters: Of this module itself, at its first call; 0 after that.
        multiply_adds: Of one image.
        positions: What the output's values see; None if they do not depend on the image.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    geometry: Geometry | None = None
    parameters: int = 0
    multiply_adds: int = 0
    positions: Positions | None = None

    @property
    def receptive_field(self) -> tuple[Field, Field] | None:
        """What rows and columns of the output see; None after positions were mixed otherwise."""
        seen = self.positions
        return None if seen is None or seen.mixed else seen.fields


@dataclass
class LayerTable:
    """The layers of a network for one image size.

    Args:
        name: The network.
        size: `(height, width)` of the image.
        layers: In the order in which they run.
        parameters: Of the network.
        unused: Those that evaluation does not use (auxiliary heads).
        mixed: First operation after which no receptive field is given, and its layer; empty without one.
    """

    name: str
    size: tuple[int, int]
    layers: list[Layer] = field(default_factory=list)
    parameters: int = 0
    unused: int = 0
    mixed: tuple[str, str] = ("", "")

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image."""
        return sum(layer.multiply_adds for layer in self.layers)


def layer_table(
    network: nn.Module, *, size: int | tuple[int, int] = 224, in_channels: int = 3, name: str = ""
) -> LayerTable:
    """Run a network on an image without values, and return its layers.

    Sizes come from the network as built, receptive fields from the formulas of each operation that ran.

    Args:
        network: Takes images `(1, C, H, W)`. It is run in evaluation mode on torch's meta device, and left as
            it was.
        size: Side of the image, or `(height, width)`.
        in_channels: Its channels.
        name: Of the network, for the heading.
    """
    sides = (size, size) if isinstance(size, int) else size
    table = LayerTable(name, sides, parameters=sum(p.numel() for p in network.parameters()))
    watch = _Watch(network, table, sides)
    with ExitStack() as stack:
        for module_name, module in network.named_modules():
            stack.enter_context(_hooked(module, watch.before(module_name), watch.after(module_name)))
        stack.enter_context(_own_kernels())
        with watch:
            run_for_shapes(network, sides, in_channels)
    table.unused = table.parameters - sum(layer.parameters for layer in table.layers)
    return table


@contextmanager
def _own_kernels() -> Iterator[None]:
    """Take resizes as one operation: deterministic ones, which a run leaves on, are made of many."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def _hooked(module: nn.Module, before: Callable[..., None], after: Callable[..., None]) -> Iterator[None]:
    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(DispatchMode):
    """Sees each operation of a forward pass, and writes the rows."""

    def __init__(self, network: nn.Module, table: LayerTable, size: tuple[int, int]) -> None:
        super().__init__()
        self.table, self.size = table, size
        self.modules = dict(network.named_modules())
        self.seen: Any = WeakTensorKeyDictionary()
        self.open: list[tuple[str, int]] = []  # the modules that run, and the rows before each
        self.counted: set[str] = set()
        self.owners: dict[int, str] = {}  # parameter: its module

    def before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.owners:
                named = dict(module.named_parameters())  # those that stand in for the real ones
                self.owners = {id(p): path.rpartition(".")[0] for path, p in named.items()}
                self.seen[args[0]] = Positions((-2, -1), self.size, (Field(), Field()))
            self.open.append((name, len(self.table.layers)))

        return hook

    def after(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            begin = self.open.pop()[1]
            count = sum(p.numel() for p in module.parameters(recurse=False))
            if not count or name in self.counted:
                return
            self.counted.add(name)
            own = [row for row in self.table.layers[begin:] if row.name == name]
            if not own:
                own = [Layer(name, type(module).__name__, _shape(args), _shape((output,)))]
                own[0].positions = self.seen.get(_first(output))
                self.table.layers += own
            own[0].parameters += count

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note what it did."""
        output = func(*args, **(kwargs or {}))
        self._note(str(func).split(".")[1], args, kwargs or {}, func, output)
        return output

    def _note(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], func: Any, output: Any
    ) -> None:
        tensors = [each for each in _flat(args) if isinstance(each, Tensor)]
        self._count_uncalled(tensors)
        inputs = [(each, self.seen[each]) for each in tensors if each in self.seen]
        results = [each for each in _flat([output]) if isinstance(each, Tensor)]
        after = None
        if inputs and results:
            pointwise = torch.Tag.pointwise in func.tags
            after = positions_after(name, inputs, args, results[0], pointwise=pointwise)
            if after.mixed and not self.table.mixed[0]:
                self.table.mixed = (after.mixed, self.open[-1][0] if self.open else "")
            for result in results:
                self.seen[result] = after
        if name in _KINDS and results:
            pad = inputs[0][1].pad if inputs else (0, 0, 0, 0)
            self._add(name, args, kwargs, results[0], pad, after)

    def _count_uncalled(self, tensors: Sequence[Tensor]) -> None:
        """Add a row for a module whose parameters are used, although it is not called itself."""
        for owner in {self.owners[id(each)] for each in tensors if id(each) in self.owners} - self.counted:
            if owner not in (name for name, _ in self.open):
                self.counted.add(owner)
                module = self.modules[owner]
                count = sum(p.numel() for p in module.parameters(recurse=False))
                self.table.layers.append(Layer(owner, type(module).__name__, (), (), parameters=count))

    def _add(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        output: Tensor,
        pad: tuple[int, int, int, int],
        after: Positions | None,
    ) -> None:
        count = flop_counter.flop_registry.get(getattr(torch.ops.aten, name))
        adds = count(*args, **kwargs, out_val=output) // 2 if count else 0
        x = args[1] if name in ("addmm", "baddbmm") else args[0]
        row = Layer(self.open[-1][0] if self.open else "", _KINDS[name], _shape((x,)), _shape((output,)))
        row.geometry, row.multiply_adds, row.positions = _geometry(name, args, pad), adds, after
        if row.geometry is not None and any(pad):  # an operation of its own, shown as padding of this one
            left, right, top, bottom = pad
            row.input = (row.input[0], row.input[1] - top - bottom, row.input[2] - left - right)
        self.table.layers.append(row)


def _geometry(name: str, args: Sequence[Any], pad: tuple[int, int, int, int]) -> Geometry | None:
    if name == "convolution" and args[1].ndim == 4:
        kernel, pads, dilation = args[1].shape[-2:], args[4], args[5]
        stride, groups, transposed = args[3], int(args[8]), bool(args[6])
    elif name in _POOLS:
        kernel, pads, dilation, groups, transposed = args[1], (0, 0), (1, 1), 1, False
        stride = args[2] if len(args) > 2 and args[2] else kernel
        pads = args[3] if len(args) > 3 else pads
        dilation = args[4] if name == "max_pool2d_with_indices" and len(args) > 4 else dilation
    else:
        return None
    left, right, top, bottom = pad
    height, width = (int(pads[0]), int(pads[-1]))
    return Geometry(
        (int(kernel[0]), int(kernel[-1])),
        (int(stride[0]), int(stride[-1])),
        (height + top, height + bottom, width + left, width + right),
        (int(dilation[0]), int(dilation[-1])),
        groups,
        transposed,
    )


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _first(output: Any) -> Any:
    return next((each for each in _flat([output]) if isinstance(each, Tensor)), None)


def _shape(values: Sequence[Any]) -> tuple[int, ...]:
    """Return the shape of the first tensor without the batch."""
    first = _first(values)
    return () if first is None else tuple(first.shape[1:]) or (math.prod(first.shape),)
