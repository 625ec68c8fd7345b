"""Recurrent cells behind one step function: LSTM, GRU, and the LSTM with a maxout candidate."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from visionkit.compat import onednn_computes_bf16

__all__ = ["CellKind", "MaxoutCell", "RecurrentCell", "State"]

State: TypeAlias = tuple[Tensor, ...]
"""What is carried from word to word: tensors with one row for each sentence."""

CellKind: TypeAlias = Literal["lstm", "gru"]


class RecurrentCell(nn.Module):
    """An LSTM or a GRU that runs a word at a time or over a full sequence, with the same weights.

    Args:
        inputs: Width of the input.
        hidden: Width of the output.
        kind: "lstm" carries `(h, c)`, "gru" `(h,)`.

    Hochreiter and Schmidhuber 1997; Cho et al., EMNLP 2014.
    """

    def __init__(self, inputs: int, hidden: int, *, kind: CellKind = "lstm") -> None:
        super().__init__()
        self.kind, self.hidden = kind, hidden
        self.net: nn.LSTM | nn.GRU = (nn.LSTM if kind == "lstm" else nn.GRU)(inputs, hidden, batch_first=True)
        if kind == "lstm":
            _, _, bias, other = self.weights()
            with torch.no_grad():  # forget gates begin open (Jozefowicz et al., ICML 2015)
                bias.zero_()
                other.zero_()
                bias[hidden : 2 * hidden] = 1

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the weights of the input and of the state, then the bias of each."""
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        first, second, third, fourth = (cast(Tensor, getattr(self.net, name)) for name in names)
        return first, second, third, fourth

    def zeros(self, like: Tensor) -> State:
        """Return the state before the first word, for as many rows as `like` has."""
        zero = like.new_zeros(like.shape[0], self.hidden)
        return (zero, zero) if self.kind == "lstm" else (zero,)

    def step(self, inputs: Tensor, state: State) -> State:
        """Run one word: `inputs` (N, E) and the state give the next state; its first tensor is the output."""
        if self.kind == "lstm":
            return tuple(torch.lstm_cell(inputs, state, *self.weights()))
        return (torch.gru_cell(inputs, state[0], *self.weights()),)

    def sequence(self, inputs: Tensor, state: State) -> Tensor:
        """Run a full sequence at once: `(B, T, E)` gives outputs `(B, T, H)`."""
        first = tuple(part.unsqueeze(0).contiguous() for part in state)  # (1, B, H)
        lowered = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if lowered and self.net.weight_ih_l0.dtype == torch.float32 and not onednn_computes_bf16():
            with torch.autocast("cpu", enabled=False):  # torch hands its LSTM to oneDNN, which then has none
                return self._run(inputs.float(), tuple(part.float() for part in first))
        return self._run(inputs, first)

    def _run(self, inputs: Tensor, state: State) -> Tensor:
        outputs, _ = self.net(inputs, state if self.kind == "lstm" else state[0])
        return outputs  # type: ignore[no-any-return]


class MaxoutCell(nn.Module):
    """An LSTM whose candidate is the larger of two projections, into which alone a context may enter.

    Args:
        inputs: Width of the input.
        hidden: Width of the output.
        context: Width of a context that enters only the candidate (Att2in); 0 for none (FC).

    Rennie et al., "Self-critical Sequence Training for Image Captioning", CVPR 2017, sections 2.1 and 2.2.
    """

    def __init__(self, inputs: int, hidden: int, *, context: int = 0) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Linear(inputs, 5 * hidden)
        self.from_hidden = nn.Linear(hidden, 5 * hidden)
        self.from_context = nn.Linear(context, 2 * hidden) if context else None

    def zeros(self, like: Tensor) -> State:
        """Return the state before the first word, for as many rows as `like` has."""
        zero = like.new_zeros(like.shape[0], self.hidden)
        return zero, zero

    def step(self, inputs: Tensor, state: State, context: Tensor | None = None) -> State:
        """Run one word: `inputs` (N, E), the state `(h, c)` and perhaps a context (N, C)."""
        hidden, cell = state
        sums = self.from_input(inputs) + self.from_hidden(hidden)
        gates, candidate = sums[:, : 3 * self.hidden].sigmoid(), sums[:, 3 * self.hidden :]
        if self.from_context is not None and context is not None:
            candidate = candidate + self.from_context(context)
        enter, forget, leave = gates.chunk(3, dim=1)
        first, second = candidate.chunk(2, dim=1)
        cell = forget * cell + enter * torch.maximum(first, second)
        return leave * cell.tanh(), cell
