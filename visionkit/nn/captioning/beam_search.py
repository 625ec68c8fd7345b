"""Beam search over all images and beams in one batch.

Shapes: B images whose search is not over, G groups of K beams, t words so far, L cells of the grid, V words
of the vocabulary. The rows of `state` are B * G * K sentences, those of an image next to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.nn.captioning.decoding import Decoded, SpecialTokens, StepFunction
from visionkit.nn.captioning.recurrent import State

__all__ = ["beam_search"]

_NEVER = float("-inf")


class _Beams(NamedTuple):
    """The open or the ended sentences of a group."""

    scores: Tensor  # (B, K)
    tokens: Tensor  # (B, K, t)
    attention: Tensor  # (B, K, t, L)


class _Options(NamedTuple):
    special_tokens: SpecialTokens
    beams: int
    groups: int
    max_length: int
    length_penalty: float
    block_trigrams: bool
    diversity: float


def beam_search(
    step: StepFunction,
    state: State,
    *,
    special_tokens: SpecialTokens,
    beams: int = 5,
    n_best: int = 1,
    max_length: int = 20,
    length_penalty: float = 0.0,
    block_trigrams: bool = False,
    groups: int = 1,
    diversity: float = 0.5,
    narrow: Callable[[Tensor], StepFunction] | None = None,
) -> Decoded:
    """Return the most likely sentences that the search finds.

    The result of an image does not depend on the images beside it: the search of an image is over when no
    open beam can still beat its worst ended sentence. Where a quarter of the images or more are done, the
    others go on without them, if `narrow` can make a step function for these alone.

    Args:
        step: The pure step function.
        state: One row for each image.
        special_tokens: Begin, end, padding, what is never generated, and what does not end a sentence.
        beams: Open sentences in each group.
        n_best: Sentences returned for each image, at most `beams * groups`.
        max_length: Maximum number of words, the end included; a sentence that has not ended by then counts
            as it is.
        length_penalty: Divide log-probabilities by `((5 + length) / 6) ** length_penalty` (Wu et al. 2016);
            above 0 favours long sentences.
        block_trigrams: Never repeat three words in a row (Paulus et al. 2018).
        groups: Groups of beams that are discouraged from the words of earlier groups at the same position.
        diversity: How strongly (Vijayakumar et al., "Diverse Beam Search", 2018).
        narrow: Returns the step function for the images with these indices of the batch `(b,)`, in this
            order.

    Raises:
        InputError: A setting is out of range.
    """
    if beams < 1 or groups < 1 or max_length < 1:
        got = (beams, groups, max_length)
        raise InputError(expected("beams, groups and max_length", "at least 1", got))
    if not 1 <= n_best <= beams * groups:
        raise InputError(expected("n_best", f"in 1 .. beams * groups = {beams * groups}", n_best))
    if length_penalty < 0:
        raise InputError(expected("length_penalty", "at least 0", length_penalty))
    options = _Options(special_tokens, beams, groups, max_length, length_penalty, block_trigrams, diversity)
    search = _Search(step, state, options, narrow)
    for position in range(max_length):
        sources = search.extend(position)
        if not search.drop_finished(sources):
            break
    return _best(search.results(), n_best, special_tokens)


class _Search:
    """The sentences of a batch while they are searched; `extend` adds one word to each."""

    def __init__(
        self,
        step: StepFunction,
        state: State,
        options: _Options,
        narrow: Callable[[Tensor], StepFunction] | None,
    ) -> None:
        self.step, self.state, self.options, self.narrow = step, state, options, narrow
        images, device, beams = state[0].shape[0], state[0].device, options.beams
        empty = _Beams(
            torch.full((images, beams), _NEVER, device=device),
            torch.empty(images, beams, 0, dtype=torch.int64, device=device),
            torch.empty(images, beams, 0, 0, device=device),
        )
        # One open beam to begin with: K equal ones would find each sentence K times.
        first = empty.scores.clone()
        first[:, 0] = 0
        self.opened = [empty._replace(scores=first)] * options.groups
        self.ended = [empty] * options.groups
        self.last = torch.full((images,), options.special_tokens.bos, device=device)
        self.searched = torch.arange(images, device=device)  # the images whose search is not over
        self.finished: list[tuple[Tensor, list[_Beams]]] = []

    def extend(self, position: int) -> Tensor:
        """Add a word to every open beam; return the beam that each one continues, `(B, G * K)`."""
        options, images = self.options, len(self.searched)
        # 1. Log-probabilities of the next word. At first every beam is alike: one row an image is enough.
        log_probs, self.state, attention = self.step(self.last, self.state)
        log_probs = options.special_tokens.mask(log_probs, self.last)
        if position == 0:
            width = options.groups * options.beams
            self.state, (log_probs,) = _widen(self.state, width), _widen((log_probs,), width)
            attention = None if attention is None else _widen((attention,), width)[0]
        shape = (images, options.groups, options.beams, -1)
        log_probs = log_probs.view(shape)  # (B, G, K, V)
        attention = None if attention is None else attention.view(shape)  # (B, G, K, L)
        # 2. Each group in turn, discouraged from the words that earlier groups chose at this position.
        counts = log_probs.new_zeros(images, log_probs.shape[-1]) if options.groups > 1 else None  # (B, V)
        sources: list[Tensor] = []
        for group in range(options.groups):
            scored = log_probs[:, group]  # (B, K, V)
            if options.block_trigrams:
                scored = _block_trigrams(scored, self.opened[group].tokens)
            self.opened[group], self.ended[group], source = _extend(
                self.opened[group],
                self.ended[group],
                scored,
                None if attention is None else attention[:, group],
                None if counts is None else counts * options.diversity,
                options.special_tokens,
                final=position == options.max_length - 1,
                penalty=_penalty(position + 1, options.length_penalty),
            )
            sources.append(source + group * options.beams)
            if counts is not None:
                open_beams = (self.opened[group].scores > _NEVER).to(counts.dtype)  # (B, K)
                counts = counts.scatter_add(1, self.opened[group].tokens[..., -1], open_beams)
        return torch.cat(sources, dim=1)

    def drop_finished(self, sources: Tensor) -> bool:
        """Reorder the state by `sources` `(B, G * K)`; return whether the search of any image goes on."""
        options, width = self.options, sources.shape[1]
        # 1. An image goes on while an open beam of a group could still beat the group's worst ended sentence.
        best_penalty = _penalty(options.max_length, options.length_penalty)
        bounds = torch.cat([o.scores.max(dim=1, keepdim=True).values for o in self.opened], dim=1)  # (B, G)
        worst = torch.cat([e.scores.min(dim=1, keepdim=True).values for e in self.ended], dim=1)  # (B, G)
        going = (bounds / best_penalty > worst).any(dim=1)  # (B,)
        count = int(going.sum())
        if not count:
            return False
        rows = torch.arange(len(self.searched), device=sources.device).view(-1, 1) * width
        chosen = sources + rows  # (B, G * K) rows of the state
        # 2. Finished images are put aside once they are a quarter of the batch.
        if self.narrow is not None and count * 4 <= len(self.searched) * 3:
            self.finished.append((self.searched[~going], [_some(group, ~going) for group in self.ended]))
            self.opened = [_some(group, going) for group in self.opened]
            self.ended = [_some(group, going) for group in self.ended]
            self.searched, chosen = self.searched[going], chosen[going]
            self.step = self.narrow(self.searched)
        # 3. The rows of the next step, (B * G * K,) of them.
        self.state = tuple(part[chosen.flatten()] for part in self.state)
        self.last = torch.cat(
            [group.tokens[..., -1] for group in self.opened], dim=1
        ).flatten()  # (B * G * K,)
        return True

    def results(self) -> list[_Beams]:
        """Return the ended sentences of each group, for all images in the order of the batch."""
        parts = [*self.finished, (self.searched, self.ended)]
        length, cells = self.ended[0].attention.shape[2:]
        order = torch.cat([images for images, _ in parts]).argsort()
        joined: list[_Beams] = []
        for groups in zip(*(groups for _, groups in parts), strict=True):
            even = [
                _pad(group, length - group.attention.shape[2], cells, self.options.special_tokens)
                for group in groups
            ]
            joined.append(_Beams(*(torch.cat(same)[order] for same in zip(*even, strict=True))))
        return joined


def _widen(parts: State, width: int) -> State:
    return tuple(part.repeat_interleave(width, dim=0) for part in parts)


def _penalty(length: int, strength: float) -> float:
    return float(((5 + length) / 6) ** strength)


def _extend(
    opened: _Beams,
    ended: _Beams,
    log_probs: Tensor,
    attention: Tensor | None,
    discouraged: Tensor | None,
    special_tokens: SpecialTokens,
    *,
    final: bool,
    penalty: float,
) -> tuple[_Beams, _Beams, Tensor]:
    """Add a word to every open beam of a group, and move what ended.

    Args:
        opened: Open sentences.
        ended: The K best ended sentences so far.
        log_probs: `(B, K, V)` of the next word.
        attention: `(B, K, L)` of the next word.
        discouraged: `(B, V)` what is taken off the score of a word when beams are chosen.
        special_tokens: Padding, end, bad endings.
        final: Whether this is the last position.
        penalty: The score of a sentence that ends here is divided by it.

    Returns:
        The open and the ended sentences, and the beam that each open one continues, `(B, K)`.
    """
    beams, words = log_probs.shape[1:]
    # 1. The best 2K continuations. At most K of them end, one for each beam, so K open ones remain.
    totals = opened.scores.unsqueeze(2) + log_probs.float()  # (B, K, V)
    ranked = (totals if discouraged is None else totals - discouraged.unsqueeze(1)).flatten(1)  # (B, K * V)
    rank_scores, best = ranked.topk(min(2 * beams, beams * words), dim=1)  # (B, 2K)
    scores = totals.flatten(1).gather(1, best)  # the scores stay log-probabilities
    source = best.div(words, rounding_mode="floor")
    word = best % words

    # 2. The sentences with the new word and its attention.
    grown = _pick(opened, source)
    tokens = torch.cat((grown.tokens, word.unsqueeze(2)), dim=2)  # (B, 2K, t)
    if attention is None:
        trail = F.pad(grown.attention, (0, 0, 0, 1))  # (B, 2K, t, 0)
    else:
        new = attention.gather(1, source.unsqueeze(2).expand(-1, -1, attention.shape[2])).unsqueeze(2)
        trail = new if tokens.shape[2] == 1 else torch.cat((grown.attention, new), dim=2)  # (B, 2K, t, L)
    grown = _Beams(scores, tokens, trail)

    # 3. Those that end now join the ended ones, of which the best K stay.
    over = word == special_tokens.eos
    closing = (scores / penalty).masked_fill(~(over | final), _NEVER)
    ended = _pad(ended, 1, trail.shape[3], special_tokens)
    pool = _Beams(*(torch.cat(pair, dim=1) for pair in zip(ended, (closing, tokens, trail), strict=True)))
    ranking = pool.scores
    if final:
        # At the last position even a bad ending counts, but after all others; its score stays what it is.
        bad_endings = torch.tensor(list(special_tokens.bad_endings), device=word.device, dtype=word.dtype)
        ranking = ranking - F.pad(1e4 * torch.isin(word, bad_endings), (beams, 0))
    ended = _pick(pool, ranking.topk(beams, dim=1).indices)

    # 4. The best K of the others stay open.
    going = rank_scores.masked_fill(over | final, _NEVER)
    best_going, stay = going.topk(beams, dim=1)  # (B, K)
    opened = _pick(grown, stay)
    closed = best_going == _NEVER
    return opened._replace(scores=opened.scores.masked_fill(closed, _NEVER)), ended, source.gather(1, stay)


def _pad(beams: _Beams, words: int, cells: int, special_tokens: SpecialTokens) -> _Beams:
    """Pad sentences by a number of `words`, and their attention to a number of `cells`."""
    return beams._replace(
        tokens=F.pad(beams.tokens, (0, words), value=special_tokens.pad),
        attention=F.pad(beams.attention, (0, cells - beams.attention.shape[3], 0, words)),
    )


def _some(beams: _Beams, images: Tensor) -> _Beams:
    """Return the sentences of some images; `images` is a mask `(B,)`."""
    return _Beams(*(part[images] for part in beams))


def _pick(beams: _Beams, index: Tensor) -> _Beams:
    """Return the sentences with these indices `(B, k)` of each image."""
    length, cells = beams.attention.shape[2:]
    index_of_words = index.unsqueeze(-1).expand(-1, -1, length)
    return _Beams(
        beams.scores.gather(1, index),
        beams.tokens.gather(1, index_of_words),
        beams.attention.gather(1, index_of_words.unsqueeze(-1).expand(-1, -1, -1, cells)),
    )


def _block_trigrams(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Bar words `(B, K, V)` that would repeat three words in a row of `tokens` `(B, K, t)`."""
    if tokens.shape[-1] < 3:
        return log_probs
    same = (tokens[..., :-2] == tokens[..., -2:-1]) & (tokens[..., 1:-1] == tokens[..., -1:])  # (B, K, t - 2)
    repeats = torch.zeros_like(log_probs).scatter_add(2, tokens[..., 2:], same.to(log_probs.dtype))
    return log_probs.masked_fill(repeats > 0, _NEVER)


def _best(ended: list[_Beams], n_best: int, special_tokens: SpecialTokens) -> Decoded:
    """Return the best sentences of all groups, each once."""
    pool = _Beams(*(torch.cat(parts, dim=1) for parts in zip(*ended, strict=True)))
    same = (pool.tokens.unsqueeze(1) == pool.tokens.unsqueeze(2)).all(dim=-1).tril(diagonal=-1)
    pool = pool._replace(scores=pool.scores.masked_fill(same.any(dim=2), _NEVER))  # two groups may agree
    pool = _pick(pool, pool.scores.topk(n_best, dim=1).indices)
    length = max(1, int((pool.tokens != special_tokens.pad).flatten(0, 1).any(dim=0).sum()))
    attention = pool.attention[:, :, :length] if pool.attention.shape[-1] else None
    # A vocabulary too small for n_best sentences leaves empty rows.
    tokens = pool.tokens[..., :length].masked_fill((pool.scores == _NEVER).unsqueeze(-1), special_tokens.pad)
    return Decoded(tokens, pool.scores, attention)
