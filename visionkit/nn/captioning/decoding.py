"""Sentences from a pure step function: the most likely word each time, or a draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.nn.captioning.recurrent import State

__all__ = ["Decoded", "Marks", "StepFunction", "decode_greedy", "decode_samples", "keep_likely"]

StepFunction: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State, Tensor | None]]
"""`(tokens (N,), state) -> (log-probabilities (N, V), next state, attention (N, L) or None)`; it is pure."""


@dataclass(frozen=True)
class Marks:
    """Which ids a decoder must know.

    Args:
        bos: Begins a sentence.
        eos: Ends it.
        pad: Fills what follows the end.
        banned: Ids that are never said; padding and begin never are.
        weak: Ids after which a sentence must not end ("a", "of"): bad endings.
    """

    bos: int = 1
    eos: int = 2
    pad: int = 0
    banned: Sequence[int] = field(default=())
    weak: Sequence[int] = field(default=())

    def bar(self, log_probs: Tensor, last: Tensor) -> Tensor:
        """Return log-probabilities `(N, V)` with minus infinity at what must not follow `last` `(N,)`."""
        barred = log_probs.clone()
        barred[:, [self.pad, self.bos, *self.banned]] = float("-inf")
        if self.weak:
            weak = torch.isin(last, torch.tensor(list(self.weak), device=last.device))
            barred[:, self.eos] = barred[:, self.eos].masked_fill(weak, float("-inf"))
        return barred


class Decoded(NamedTuple):
    """Sentences of a batch of images, best first."""

    tokens: Tensor  # (B, n, T) ids; the end is there if the sentence ended; padding after it
    scores: Tensor  # (B, n) log-probability of the sentence (with a length penalty, if one was asked for)
    attention: Tensor | None  # (B, n, T, L)


def decode_greedy(step: StepFunction, state: State, *, marks: Marks, longest: int = 20) -> Decoded:
    """Say the most likely word each time, all images at once, until every sentence has ended.

    Args:
        step: The pure step function.
        state: One row for each image.
        marks: Begin, end, padding.
        longest: Most words, the end included.
    """
    return _decode(step, state, marks, longest, 1, lambda log_probs: log_probs.argmax(dim=-1))


def decode_samples(
    step: StepFunction,
    state: State,
    *,
    marks: Marks,
    count: int = 1,
    longest: int = 20,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
) -> Decoded:
    """Draw sentences.

    Args:
        step: The pure step function.
        state: One row for each image.
        marks: Begin, end, padding.
        count: Sentences for each image.
        longest: Most words, the end included.
        temperature: Below 1 draws likely words more often.
        top_k: Draw among the k most likely words; 0 for all.
        top_p: Draw among the most likely words that together have this probability; 1 for all (Holtzman et
            al., ICLR 2020).
        generator: Makes the draws repeatable; on the state's device.
        uniforms: `(B * count, longest)` numbers in [0, 1), one a word, in place of the generator: what is
            drawn for an image then depends on its own numbers alone, in any batch and on any process.

    Raises:
        InputError: A setting is out of range.
    """
    if temperature <= 0:
        raise InputError(expected("temperature", "above 0", temperature, fix="For 0, use decode_greedy."))
    if not 0 < top_p <= 1:
        raise InputError(expected("top_p", "in (0, 1]", top_p))
    if top_k < 0 or count < 1:
        raise InputError(expected("top_k and count", "at least 0 and 1", (top_k, count)))

    if uniforms is not None and tuple(uniforms.shape) != (len(state[0]) * count, longest):
        raise InputError(
            expected("uniforms", f"of shape {(len(state[0]) * count, longest)}", tuple(uniforms.shape))
        )
    numbers = None if uniforms is None else iter(uniforms.to(state[0].device).unbind(dim=1))

    def draw(log_probs: Tensor) -> Tensor:
        kept = keep_likely(log_probs / temperature, top_k=top_k, top_p=top_p).softmax(dim=-1)
        if numbers is None:
            return torch.multinomial(kept, 1, generator=generator).squeeze(1)
        return _at(kept, next(numbers))

    state = tuple(part.repeat_interleave(count, dim=0) for part in state)
    return _decode(step, state, marks, longest, count, draw)


def _at(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """Return the word `(N,)` at which the summed probabilities `(N, V)` pass a number `(N,)` in [0, 1)."""
    sums = probabilities.double().cumsum(dim=-1)
    marks = numbers.to(sums).unsqueeze(1) * sums[:, -1:]
    return torch.searchsorted(sums, marks, right=True).squeeze(1).clamp_(max=sums.shape[1] - 1)


def keep_likely(log_probs: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set all but the likely words' log-probabilities `(N, V)` to minus infinity; see `decode_samples`."""
    if top_k:
        least = log_probs.topk(min(top_k, log_probs.shape[-1]), dim=-1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < least, float("-inf"))
    if top_p < 1:
        ordered, order = log_probs.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # the most likely word always stays
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        log_probs = log_probs.masked_fill(drop, float("-inf"))
    return log_probs


def _decode(
    step: StepFunction,
    state: State,
    marks: Marks,
    longest: int,
    count: int,
    choose: Callable[[Tensor], Tensor],
) -> Decoded:
    if longest < 1:
        raise InputError(expected("longest", "at least 1", longest))
    rows = state[0].shape[0]
    last = torch.full((rows,), marks.bos, device=state[0].device)
    scores = torch.zeros(rows, device=last.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=last.device)
    words: list[Tensor] = []
    looks: list[Tensor] = []
    for place in range(longest):
        log_probs, state, weights = step(last, state)
        barred = marks.bar(log_probs, last)
        word = choose(barred)
        scores = scores + log_probs.gather(1, word.unsqueeze(1)).squeeze(1).float() * ~ended
        word = word.masked_fill(ended, marks.pad)
        words.append(word)
        if weights is not None:
            looks.append(weights * ~ended.unsqueeze(1))
        ended = ended | (word == marks.eos)
        # Asking the device whether all have ended waits for it; every fourth word is often enough.
        if (place % 4 == 3 or rows == 1) and bool(ended.all()):
            break
        last = torch.where(ended, marks.eos, word)
    tokens = torch.stack(words, dim=1)
    kept = int((tokens != marks.pad).any(dim=0).sum())
    attention = torch.stack(looks, dim=1)[:, :kept] if looks else None
    return Decoded(
        tokens[:, :kept].reshape(-1, count, kept),
        scores.view(-1, count),
        None if attention is None else attention.reshape(-1, count, kept, attention.shape[-1]),
    )
