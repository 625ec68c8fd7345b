"""Five ways of saying what a grid shows, behind one step function.

A core knows neither words nor vocabularies: embedded words go in, one hidden vector a word comes out.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, unknown_name
from visionkit.nn.captioning.attention import AdditiveAttention
from visionkit.nn.captioning.recurrent import CellKind, MaxoutCell, RecurrentCell, State

__all__ = ["CORES", "Core", "Memory", "make_core", "widen"]


class Memory(NamedTuple):
    """What is known of the images before the first word; it does not change from word to word."""

    grid: Tensor  # (B, L, C)
    mean: Tensor  # (B, C)
    keys: Tensor  # (B, L, A); (B, L, 0) for cores that do not attend


@runtime_checkable
class Core(Protocol):
    """What a caption decoder asks of a core."""

    hidden: int
    attends: bool

    def memory(self, grid: Tensor) -> Memory:
        """Prepare images `(B, L, C)` once."""
        ...

    def begin(self, memory: Memory) -> State:
        """Return the state before the first word, one row an image."""
        ...

    def step(self, words: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        """Return hidden `(N, H)`, the next state and attention `(N, L)` for embedded words `(N, E)`."""
        ...

    def sequence(self, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Return hidden `(N, T, H)` and attention `(N, T, L)` for embedded words `(N, T, E)`."""
        ...


class _Plain(nn.Module):
    """Show and Tell: the image is the first word (Vinyals et al., CVPR 2015)."""

    attends = False

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__()
        self.hidden = hidden
        self.image = nn.Linear(channels, embed)
        self.cell = RecurrentCell(embed, hidden, kind=cell)

    def memory(self, grid: Tensor) -> Memory:
        return Memory(grid, grid.mean(dim=1), grid.new_zeros(*grid.shape[:2], 0))

    def begin(self, memory: Memory) -> State:
        image = self.image(memory.mean)
        return self.cell.step(image, self.cell.zeros(image))

    def step(self, words: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        state = self.cell.step(words, state)
        return state[0], state, None

    def sequence(self, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        return self.cell.sequence(words, widen(self.begin(memory), len(words))), None


class _Maxout(nn.Module):
    """FC: the image is the first word of a maxout LSTM (Rennie et al., CVPR 2017)."""

    attends = False

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__()
        self.hidden = hidden
        self.image = nn.Linear(channels, embed)
        self.cell = MaxoutCell(embed, hidden)

    def memory(self, grid: Tensor) -> Memory:
        return Memory(grid, grid.mean(dim=1), grid.new_zeros(*grid.shape[:2], 0))

    def begin(self, memory: Memory) -> State:
        image = self.image(memory.mean)
        return self.cell.step(image, self.cell.zeros(image))

    def step(self, words: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        state = self.cell.step(words, state)
        return state[0], state, None

    def sequence(self, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        return _unroll(self, words, memory)


class _Attend(nn.Module):
    """Show, Attend and Tell: gated soft attention joins each word (Xu et al., ICML 2015)."""

    attends = True

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__()
        self.hidden = hidden
        self.attention = AdditiveAttention(channels, query=hidden, hidden=attention)
        self.cell = RecurrentCell(embed + channels, hidden, kind=cell)
        self.first = nn.Linear(channels, hidden * (2 if cell == "lstm" else 1))
        self.gate = nn.Linear(hidden, channels)

    def memory(self, grid: Tensor) -> Memory:
        return Memory(grid, grid.mean(dim=1), self.attention.keys(grid))

    def begin(self, memory: Memory) -> State:
        return tuple(self.first(memory.mean).tanh().split(self.hidden, dim=1))

    def step(self, words: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        context, weights = self.attention(state[0], memory.grid, memory.keys)
        context = self.gate(state[0]).sigmoid() * context
        state = self.cell.step(torch.cat((words, context), dim=1), state)
        return state[0], state, weights

    def sequence(self, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        return _unroll(self, words, memory)


class _Att2in(nn.Module):
    """Att2in: attention enters only the candidate of a maxout LSTM (Rennie et al., CVPR 2017)."""

    attends = True

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__()
        self.hidden = hidden
        self.attention = AdditiveAttention(channels, query=hidden, hidden=attention)
        self.cell = MaxoutCell(embed, hidden, context=channels)

    def memory(self, grid: Tensor) -> Memory:
        return Memory(grid, grid.mean(dim=1), self.attention.keys(grid))

    def begin(self, memory: Memory) -> State:
        return self.cell.zeros(memory.mean)

    def step(self, words: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        context, weights = self.attention(state[0], memory.grid, memory.keys)
        state = self.cell.step(words, state, context)
        return state[0], state, weights

    def sequence(self, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        return _unroll(self, words, memory)


class _UpDown(nn.Module):
    """Two layers: one decides where to look, the other what to say (Anderson et al., CVPR 2018)."""

    attends = True

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__()
        self.hidden = hidden
        self.attention = AdditiveAttention(channels, query=hidden, hidden=attention)
        self.look = RecurrentCell(hidden + channels + embed, hidden, kind=cell)
        self.say = RecurrentCell(channels + hidden, hidden, kind=cell)

    def memory(self, grid: Tensor) -> Memory:
        return Memory(grid, grid.mean(dim=1), self.attention.keys(grid))

    def begin(self, memory: Memory) -> State:
        return (*self.look.zeros(memory.mean), *self.say.zeros(memory.mean))

    def step(self, words: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        half = len(state) // 2
        look, say = state[:half], state[half:]
        mean = memory.mean.repeat_interleave(words.shape[0] // memory.mean.shape[0], dim=0)
        look = self.look.step(torch.cat((say[0], mean, words), dim=1), look)
        context, weights = self.attention(look[0], memory.grid, memory.keys)
        say = self.say.step(torch.cat((context, look[0]), dim=1), say)
        return say[0], (*look, *say), weights

    def sequence(self, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        return _unroll(self, words, memory)


def widen(state: State, rows: int) -> State:
    """Return the state of every image once for each of its sentences, `rows` in all."""
    times = rows // len(state[0])
    return state if times == 1 else tuple(part.repeat_interleave(times, dim=0) for part in state)


def _unroll(core: Core, words: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
    state = widen(core.begin(memory), len(words))
    outputs: list[Tensor] = []
    looks: list[Tensor] = []
    for word in words.unbind(dim=1):
        hidden, state, weights = core.step(word, state, memory)
        outputs.append(hidden)
        if weights is not None:
            looks.append(weights)
    return torch.stack(outputs, dim=1), torch.stack(looks, dim=1) if looks else None


CORES = {
    "show_and_tell": _Plain,
    "fc": _Maxout,
    "show_attend_tell": _Attend,
    "att2in": _Att2in,
    "up_down": _UpDown,
}


def make_core(
    name: str, *, channels: int, embed: int, hidden: int, attention: int, cell: CellKind = "lstm"
) -> Core:
    """Build a core.

    Args:
        name: One of `CORES`.
        channels: Channels of the grid.
        embed: Width of embedded words.
        hidden: Width of the state.
        attention: Width in which grid and query meet.
        cell: LSTM or GRU; "fc" and "att2in" are LSTMs by definition.

    Raises:
        InputError: The name is not known, or a GRU is asked where there is none.
    """
    if name not in CORES:
        raise unknown_name("caption decoder", name, CORES)
    if cell not in ("lstm", "gru"):
        raise unknown_name("cell", cell, ("lstm", "gru"))
    if cell == "gru" and name in ("fc", "att2in"):
        raise InputError(
            f"Expected cell 'lstm' for decoder {name!r}: its maxout candidate is part of an LSTM."
        )
    return CORES[name](channels, embed=embed, hidden=hidden, attention=attention, cell=cell)  # type: ignore[return-value]
