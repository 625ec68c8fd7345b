"""The recurrent cores of five caption decoders, behind one step function.

A core knows neither words nor vocabularies: embedded words go in, one hidden vector a word comes out.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, unknown_name
from visionkit.nn.captioning.attention import AdditiveAttention
from visionkit.nn.captioning.recurrent import CellKind, MaxoutCell, RecurrentCell, State

__all__ = ["CORES", "Core", "EncodedImages", "make_core", "widen"]


class EncodedImages(NamedTuple):
    """What a core computes of the images once, before the first word."""

    grid: Tensor  # (B, L, C)
    mean: Tensor  # (B, C)
    keys: Tensor  # (B, L, A); (B, L, 0) for cores that do not attend


@runtime_checkable
class Core(Protocol):
    """What a caption decoder asks of a core."""

    hidden: int
    attends: bool

    def encode(self, grid: Tensor) -> EncodedImages:
        """Prepare images `(B, L, C)` once."""
        ...

    def begin(self, images: EncodedImages) -> State:
        """Return the state before the first word, one row an image."""
        ...

    def step(self, words: Tensor, state: State, images: EncodedImages) -> tuple[Tensor, State, Tensor | None]:
        """Return hidden `(N, H)`, the next state and attention `(N, L)` for embedded words `(N, E)`."""
        ...

    def sequence(self, words: Tensor, images: EncodedImages) -> tuple[Tensor, Tensor | None]:
        """Return hidden `(N, T, H)` and attention `(N, T, L)` for embedded words `(N, T, E)`."""
        ...


class _ImageFirst(nn.Module):
    """A core whose first word is the image."""

    attends = False
    cell: RecurrentCell | MaxoutCell

    def __init__(self, channels: int, *, embed: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.image = nn.Linear(channels, embed)

    def encode(self, grid: Tensor) -> EncodedImages:
        return EncodedImages(grid, grid.mean(dim=1), grid.new_zeros(*grid.shape[:2], 0))

    def begin(self, images: EncodedImages) -> State:
        image = self.image(images.mean)
        return self.cell.step(image, self.cell.zeros(image))

    def step(self, words: Tensor, state: State, images: EncodedImages) -> tuple[Tensor, State, Tensor | None]:
        state = self.cell.step(words, state)
        return state[0], state, None


class _Plain(_ImageFirst):
    """Show and Tell (Vinyals et al., CVPR 2015)."""

    cell: RecurrentCell

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__(channels, embed=embed, hidden=hidden)
        self.cell = RecurrentCell(embed, hidden, kind=cell)

    def sequence(self, words: Tensor, images: EncodedImages) -> tuple[Tensor, Tensor | None]:
        return self.cell.sequence(words, widen(self.begin(images), len(words))), None


class _Maxout(_ImageFirst):
    """FC: a maxout LSTM (Rennie et al., CVPR 2017)."""

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__(channels, embed=embed, hidden=hidden)
        self.cell = MaxoutCell(embed, hidden)

    def sequence(self, words: Tensor, images: EncodedImages) -> tuple[Tensor, Tensor | None]:
        return _unroll(self, words, images)


class _Attending(nn.Module):
    """A core that attends to the cells of the grid at each word."""

    attends = True

    def __init__(self, channels: int, *, hidden: int, attention: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.attention = AdditiveAttention(channels, query=hidden, hidden=attention)

    def encode(self, grid: Tensor) -> EncodedImages:
        return EncodedImages(grid, grid.mean(dim=1), self.attention.keys(grid))

    def sequence(self, words: Tensor, images: EncodedImages) -> tuple[Tensor, Tensor | None]:
        return _unroll(cast(Core, self), words, images)


class _Attend(_Attending):
    """Show, Attend and Tell: gated soft attention joins each word (Xu et al., ICML 2015)."""

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__(channels, hidden=hidden, attention=attention)
        self.cell = RecurrentCell(embed + channels, hidden, kind=cell)
        self.initial_state = nn.Linear(channels, hidden * (2 if cell == "lstm" else 1))
        self.gate = nn.Linear(hidden, channels)

    def begin(self, images: EncodedImages) -> State:
        return tuple(self.initial_state(images.mean).tanh().split(self.hidden, dim=1))

    def step(self, words: Tensor, state: State, images: EncodedImages) -> tuple[Tensor, State, Tensor | None]:
        context, weights = self.attention(state[0], images.grid, images.keys)
        context = self.gate(state[0]).sigmoid() * context
        state = self.cell.step(torch.cat((words, context), dim=1), state)
        return state[0], state, weights


class _Att2in(_Attending):
    """Att2in: attention enters only the candidate of a maxout LSTM (Rennie et al., CVPR 2017)."""

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__(channels, hidden=hidden, attention=attention)
        self.cell = MaxoutCell(embed, hidden, context=channels)

    def begin(self, images: EncodedImages) -> State:
        return self.cell.zeros(images.mean)

    def step(self, words: Tensor, state: State, images: EncodedImages) -> tuple[Tensor, State, Tensor | None]:
        context, weights = self.attention(state[0], images.grid, images.keys)
        state = self.cell.step(words, state, context)
        return state[0], state, weights


class _UpDown(_Attending):
    """Two layers: one drives the attention, the other the words (Anderson et al., CVPR 2018)."""

    def __init__(self, channels: int, *, embed: int, hidden: int, attention: int, cell: CellKind) -> None:
        super().__init__(channels, hidden=hidden, attention=attention)
        self.attention_cell = RecurrentCell(hidden + channels + embed, hidden, kind=cell)
        self.language_cell = RecurrentCell(channels + hidden, hidden, kind=cell)

    def begin(self, images: EncodedImages) -> State:
        return (*self.attention_cell.zeros(images.mean), *self.language_cell.zeros(images.mean))

    def step(self, words: Tensor, state: State, images: EncodedImages) -> tuple[Tensor, State, Tensor | None]:
        half = len(state) // 2
        attending, speaking = state[:half], state[half:]
        mean = images.mean.repeat_interleave(words.shape[0] // images.mean.shape[0], dim=0)  # (N, C)
        attending = self.attention_cell.step(torch.cat((speaking[0], mean, words), dim=1), attending)
        context, weights = self.attention(attending[0], images.grid, images.keys)
        speaking = self.language_cell.step(torch.cat((context, attending[0]), dim=1), speaking)
        return speaking[0], (*attending, *speaking), weights


def widen(state: State, rows: int) -> State:
    """Return the state of every image once for each of its sentences, `rows` in all."""
    times = rows // len(state[0])
    return state if times == 1 else tuple(part.repeat_interleave(times, dim=0) for part in state)


def _unroll(core: Core, words: Tensor, images: EncodedImages) -> tuple[Tensor, Tensor | None]:
    state = widen(core.begin(images), len(words))
    outputs: list[Tensor] = []
    attention_weights: list[Tensor] = []
    for word in words.unbind(dim=1):
        hidden, state, weights = core.step(word, state, images)
        outputs.append(hidden)
        if weights is not None:
            attention_weights.append(weights)
    return torch.stack(outputs, dim=1), torch.stack(attention_weights, dim=1) if attention_weights else None


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
        attention: Hidden size of the attention.
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
