"""Weights packed once for the many small products of a beam search on a CPU."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from visionkit.compat import (
    has_packed_linear,
    onednn_computes_bf16,
    pack_linear_weight,
    packed_linear,
    with_children,
)
from visionkit.nn.captioning.recurrent import CellKind, RecurrentCell, State

__all__ = ["PackedCell", "PackedCopy", "PackedLinear", "packed"]

_Module = TypeVar("_Module", bound=nn.Module)

_MIN_OUTPUTS = 16  # a product with fewer gains nothing


def packed(module: _Module, *, rows: int) -> _Module:
    """Return a copy of a module whose linear layers and recurrent cells hold packed copies of their weights.

    torch multiplies by a matrix as it lies in memory, and lays it out anew for the processor each time. For
    the few rows of a beam search that costs as much as the product. Inductor's frozen graphs pack weights
    once with the same operators of oneDNN (`torch/_inductor/fx_passes/mkldnn_fusion.py`).

    The copy does not follow later changes of the weights: make it for one evaluation. It gives no gradients.
    Everything that is not packed is shared. Under autocast weights are packed in its type.

    Args:
        module: On a CPU; elsewhere, and where torch has no oneDNN or it has no bfloat16, it is returned as
            it is.
        rows: How many rows a product will have, about.
    """
    first = next(module.parameters(), None)
    if first is None or first.device.type != "cpu" or first.dtype != torch.float32 or not has_packed_linear():
        return module
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    if dtype not in (torch.float32, torch.bfloat16):
        return module
    if dtype == torch.bfloat16 and not onednn_computes_bf16():
        return module
    return _packed(module, dtype, rows)  # type: ignore[return-value]


class PackedCopy:
    """The packed copy of a module for as long as its weights do not change, such as one evaluation.

    It is no module: what is saved, moved and counted of its owner does not include the copy.
    """

    def __init__(self) -> None:
        self._copy: nn.Module | None = None

    def of(self, module: _Module, *, rows: int) -> _Module:
        """Return the packed copy of a module, made at the first call after `clear`.

        Args:
            module: The same one at each call.
            rows: How many rows a product will have, about.
        """
        if self._copy is None:
            self._copy = packed(module, rows=rows)
        return self._copy  # type: ignore[return-value]

    def clear(self) -> None:
        """Forget the copy: the weights are about to change."""
        self._copy = None


class PackedLinear(nn.Module):
    """A linear layer with a packed weight.

    Args:
        weight: `(outputs, inputs)`, float32.
        bias: `(outputs,)`, or None.
        dtype: Of the product: float32 or bfloat16.
        rows: How many rows it will have, about.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, dtype: torch.dtype, rows: int) -> None:
        super().__init__()
        self.dtype = dtype
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._packed = pack_linear_weight(weight.detach().to(dtype), rows=rows)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply `(..., inputs)`."""
        return packed_linear(inputs.to(self.dtype), self._packed, self._bias)


class PackedCell(nn.Module):
    """The step of an LSTM or a GRU with packed weights.

    Args:
        cell: The cell whose weights are copied.
        dtype: Of the products.
        rows: How many rows they will have, about.
    """

    def __init__(self, cell: RecurrentCell, *, dtype: torch.dtype, rows: int) -> None:
        super().__init__()
        self.kind: CellKind = cell.kind
        self.zeros = cell.zeros
        of_input, of_hidden, bias, other = cell.weights()
        self.of_input = PackedLinear(of_input, bias, dtype=dtype, rows=rows)
        self.of_hidden = PackedLinear(of_hidden, other, dtype=dtype, rows=rows)

    def step(self, inputs: Tensor, state: State) -> State:
        """Run one word, as `RecurrentCell.step` does."""
        new, old = self.of_input(inputs), self.of_hidden(state[0])
        if self.kind == "lstm":
            enter, forget, candidate, leave = new.add_(old).chunk(4, dim=1)
            memory = forget.sigmoid() * state[1] + enter.sigmoid() * candidate.tanh()
            return leave.sigmoid() * memory.tanh(), memory
        reset, update, candidate = new.chunk(3, dim=1)
        old_reset, old_update, old_candidate = old.chunk(3, dim=1)
        candidate = (candidate + (reset + old_reset).sigmoid() * old_candidate).tanh()
        return (candidate + (update + old_update).sigmoid() * (state[0] - candidate),)


def _packed(module: nn.Module, dtype: torch.dtype, rows: int) -> nn.Module:
    if isinstance(module, nn.Linear) and module.out_features >= _MIN_OUTPUTS:
        return PackedLinear(module.weight, module.bias, dtype=dtype, rows=rows)
    if isinstance(module, RecurrentCell):
        return PackedCell(module, dtype=dtype, rows=rows)
    children = {name: _packed(child, dtype, rows) for name, child in module.named_children()}
    return with_children(module, children)
