"""Sentences from a pure step function: the most likely word at each position, or a random draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from visionkit.distributed import widest_float
from visionkit.errors import InputError, expected
from visionkit.nn.captioning.recurrent import State

__all__ = ["Decoded", "SpecialTokens", "StepFunction", "decode_greedy", "decode_samples", "keep_likely"]

StepFunction: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State, Tensor | None]]
"""`(tokens (N,), state) -> (log-probabilities (N, V), next state, attention (N, L) or None)`; it is pure."""


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of a vocabulary that decoding treats specially.

    Args:
        bos: Begins a sentence.
        eos: Ends it.
        pad: Fills what follows the end.
        banned: Ids that are never generated; padding and begin never are.
        bad_endings: Ids after which a sentence must not end ("a", "of").
    """

    bos: int = 1
    eos: int = 2
    pad: int = 0
    banned: Sequence[int] = field(default=())
    bad_endings: Sequence[int] = field(default=())

    @property
    def never_generated(self) -> list[int]:
        """Ids that no sentence holds after its begin."""
        return [self.pad, self.bos, *self.banned]

    def mask(self, log_probs: Tensor, last: Tensor) -> Tensor:
        """Return log-probabilities `(N, V)` with minus infinity at what must not follow `last` `(N,)`."""
        masked = log_probs.clone()
        masked[:, self.never_generated] = float("-inf")
        if self.bad_endings:
            bad = torch.isin(last, torch.tensor(list(self.bad_endings), device=last.device))
            masked[:, self.eos] = masked[:, self.eos].masked_fill(bad, float("-inf"))
        return masked


class Decoded(NamedTuple):
    """Sentences of a batch of images, best first."""

    tokens: Tensor  # (B, n, T) ids; the end is there if the sentence ended; padding after it
    scores: Tensor  # (B, n) log-probability of the sentence (with a length penalty, if one was asked for)
    attention: Tensor | None  # (B, n, T, L)


def decode_greedy(
    step: StepFunction, state: State, *, special_tokens: SpecialTokens, max_length: int = 20
) -> Decoded:
    """Take the most likely word at each position, for all images at once, until every sentence has ended.

    Args:
        step: The pure step function.
        state: One row for each image.
        special_tokens: Begin, end, padding.
        max_length: Maximum number of words, the end included.
    """
    return _decode(step, state, special_tokens, max_length, 1, lambda log_probs: log_probs.argmax(dim=-1))


def decode_samples(
    step: StepFunction,
    state: State,
    *,
    special_tokens: SpecialTokens,
    count: int = 1,
    max_length: int = 20,
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
        special_tokens: Begin, end, padding.
        count: Sentences for each image.
        max_length: Maximum number of words, the end included.
        temperature: Below 1 draws likely words more often.
        top_k: Draw among the k most likely words; 0 for all.
        top_p: Draw among the most likely words that together have this probability; 1 for all (Holtzman et
            al., ICLR 2020).
        generator: Makes the draws repeatable; on the state's device.
        uniforms: `(B * count, max_length)` numbers in [0, 1), one a word, in place of the generator: what is
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

    shape = (len(state[0]) * count, max_length)
    if uniforms is not None and tuple(uniforms.shape) != shape:
        raise InputError(expected("uniforms", f"of shape {shape}", tuple(uniforms.shape)))
    numbers = None if uniforms is None else iter(uniforms.to(state[0].device).unbind(dim=1))

    def draw(log_probs: Tensor) -> Tensor:
        probabilities = keep_likely(log_probs / temperature, top_k=top_k, top_p=top_p).softmax(dim=-1)
        if numbers is None:
            return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
        return _invert_cdf(probabilities, next(numbers))

    state = tuple(part.repeat_interleave(count, dim=0) for part in state)
    return _decode(step, state, special_tokens, max_length, count, draw)


def _invert_cdf(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """Return the word `(N,)` at which the summed probabilities `(N, V)` pass a number `(N,)` in [0, 1)."""
    sums = probabilities.to(widest_float(probabilities.device)).cumsum(dim=-1)
    thresholds = numbers.to(sums).unsqueeze(1) * sums[:, -1:]
    return torch.searchsorted(sums, thresholds, right=True).squeeze(1).clamp_(max=sums.shape[1] - 1)


def keep_likely(log_probs: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set all but the likely words' log-probabilities `(N, V)` to minus infinity; see `decode_samples`."""
    if top_k:
        threshold = log_probs.topk(min(top_k, log_probs.shape[-1]), dim=-1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < threshold, float("-inf"))
    if top_p < 1:
        ordered, order = log_probs.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # the most likely word always stays
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        log_probs = log_probs.masked_fill(drop, float("-inf"))
    return log_probs


def _decode(
    step: StepFunction,
    state: State,
    special_tokens: SpecialTokens,
    max_length: int,
    count: int,
    choose: Callable[[Tensor], Tensor],
) -> Decoded:
    """Decode `N = B * count` sentences a word at a time; `choose` takes `(N, V)` to words `(N,)`."""
    if max_length < 1:
        raise InputError(expected("max_length", "at least 1", max_length))
    rows = state[0].shape[0]
    last = torch.full((rows,), special_tokens.bos, device=state[0].device)
    scores = torch.zeros(rows, device=last.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=last.device)
    words: list[Tensor] = []
    attention_weights: list[Tensor] = []
    for position in range(max_length):
        log_probs, state, weights = step(last, state)
        word = choose(special_tokens.mask(log_probs, last))
        scores = scores + log_probs.gather(1, word.unsqueeze(1)).squeeze(1).float() * ~ended
        word = word.masked_fill(ended, special_tokens.pad)
        words.append(word)
        if weights is not None:
            attention_weights.append(weights * ~ended.unsqueeze(1))
        ended = ended | (word == special_tokens.eos)
        # Asking the device whether all have ended waits for it; every fourth word is often enough.
        if (position % 4 == 3 or rows == 1) and bool(ended.all()):
            break
        last = torch.where(ended, special_tokens.eos, word)
    tokens = torch.stack(words, dim=1)  # (N, T)
    length = int((tokens != special_tokens.pad).any(dim=0).sum())
    attention = torch.stack(attention_weights, dim=1)[:, :length] if attention_weights else None  # (N, T, L)
    return Decoded(
        tokens[:, :length].reshape(-1, count, length),
        scores.view(-1, count),
        None if attention is None else attention.reshape(-1, count, length, attention.shape[-1]),
    )
