"""Beam search over all images and beams in one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.nn.captioning.decoding import Decoded, Marks, StepFunction
from visionkit.nn.captioning.recurrent import State

__all__ = ["beam_search"]

_NEVER = float("-inf")


class _Beams(NamedTuple):
    """The open or the ended sentences of a group."""

    scores: Tensor  # (B, K)
    tokens: Tensor  # (B, K, t)
    looks: Tensor  # (B, K, t, L)


def beam_search(
    step: StepFunction,
    state: State,
    *,
    marks: Marks,
    beams: int = 5,
    n_best: int = 1,
    longest: int = 20,
    length_penalty: float = 0.0,
    block_trigrams: bool = False,
    groups: int = 1,
    diversity: float = 0.5,
    narrow: Callable[[Tensor], StepFunction] | None = None,
) -> Decoded:
    """Find the most likely sentences.

    What is found for an image does not depend on the images beside it: the search of an image is over
    when no open beam can still beat its worst kept sentence. Where a quarter of the images or more are
    done, the others go on without them, if `narrow` can make a step function for these alone.

    Args:
        step: The pure step function.
        state: One row for each image.
        marks: Begin, end, padding, what is never said, and what does not end a sentence.
        beams: Open sentences in each group.
        n_best: Sentences returned for each image, at most `beams * groups`.
        longest: Most words, the end included; a sentence that has not ended by then counts as it stands.
        length_penalty: Divide log-probabilities by `((5 + length) / 6) ** length_penalty` (Wu et al. 2016);
            above 0 favours long sentences.
        block_trigrams: Never say three words in a row twice (Paulus et al. 2018).
        groups: Groups of beams that are discouraged from saying, at the same place, what earlier groups say.
        diversity: How strongly (Vijayakumar et al., "Diverse Beam Search", 2018).
        narrow: Returns the step function for the images at these places of the batch `(b,)`, in this order.

    Raises:
        InputError: A setting is out of range.
    """
    if beams < 1 or groups < 1 or longest < 1:
        raise InputError(expected("beams, groups and longest", "at least 1", (beams, groups, longest)))
    if not 1 <= n_best <= beams * groups:
        raise InputError(expected("n_best", f"in 1 .. beams * groups = {beams * groups}", n_best))
    if length_penalty < 0:
        raise InputError(expected("length_penalty", "at least 0", length_penalty))
    images, device = state[0].shape[0], state[0].device
    width = beams * groups
    empty = _Beams(
        torch.full((images, beams), _NEVER, device=device),
        torch.empty(images, beams, 0, dtype=torch.int64, device=device),
        torch.empty(images, beams, 0, 0, device=device),
    )
    # One open beam to begin with: K equal ones would find each sentence K times.
    first = empty.scores.clone()
    first[:, 0] = 0
    opened = [empty._replace(scores=first)] * groups
    ended = [empty] * groups
    last = torch.full((images,), marks.bos, device=device)
    best_penalty = _penalty(longest, length_penalty)
    searched = torch.arange(images, device=device)  # the images whose search is not over
    left: list[tuple[Tensor, list[_Beams]]] = []

    for place in range(longest):
        log_probs, state, looks = step(last, state)
        log_probs = marks.bar(log_probs, last)
        if place == 0:  # every beam begins alike: the first step is made once an image
            state = _widen(state, width)
            log_probs, *seen = _widen((log_probs,) if looks is None else (log_probs, looks), width)
            looks = seen[0] if seen else None
        log_probs = log_probs.view(len(searched), groups, beams, -1)
        views = None if looks is None else looks.view(len(searched), groups, beams, -1)
        said = log_probs.new_zeros(len(searched), log_probs.shape[-1]) if groups > 1 else None
        sources: list[Tensor] = []
        for group in range(groups):
            scored = log_probs[:, group]
            if block_trigrams:
                scored = _block_trigrams(scored, opened[group].tokens)
            opened[group], ended[group], source = _extend(
                opened[group],
                ended[group],
                scored,
                None if views is None else views[:, group],
                None if said is None else said * diversity,
                marks,
                final=place == longest - 1,
                penalty=_penalty(place + 1, length_penalty),
            )
            sources.append(source + group * beams)
            if said is not None:
                open_ = (opened[group].scores > _NEVER).to(said.dtype)
                said = said.scatter_add(1, opened[group].tokens[..., -1], open_)
        bounds = torch.cat([o.scores.max(dim=1, keepdim=True).values for o in opened], dim=1) / best_penalty
        worst = torch.cat([e.scores.min(dim=1, keepdim=True).values for e in ended], dim=1)
        going = (bounds > worst).any(dim=1)
        count = int(going.sum())
        if not count:
            break
        rows = torch.arange(len(searched), device=device).view(-1, 1) * width
        chosen = torch.cat(sources, dim=1) + rows  # (B, G * K)
        if narrow is not None and count * 4 <= len(searched) * 3:
            left.append((searched[~going], [_some(group, ~going) for group in ended]))
            opened, ended = ([_some(group, going) for group in part] for part in (opened, ended))
            searched, chosen = searched[going], chosen[going]
            step = narrow(searched)
        state = tuple(part[chosen.flatten()] for part in state)
        last = torch.cat([group.tokens[..., -1] for group in opened], dim=1).flatten()
    return _best(_gathered([*left, (searched, ended)], marks), n_best, marks)


def _widen(parts: State, width: int) -> State:
    return tuple(part.repeat_interleave(width, dim=0) for part in parts)


def _penalty(length: int, strength: float) -> float:
    return float(((5 + length) / 6) ** strength)


def _extend(
    opened: _Beams,
    ended: _Beams,
    log_probs: Tensor,
    looks: Tensor | None,
    discouraged: Tensor | None,
    marks: Marks,
    *,
    final: bool,
    penalty: float,
) -> tuple[_Beams, _Beams, Tensor]:
    """Add a word `(B, K, V)` to every open beam and move what ended; return also each beam's source."""
    beams, words = log_probs.shape[1:]
    totals = opened.scores.unsqueeze(2) + log_probs.float()  # (B, K, V)
    # What is chosen by; the scores stay log-probabilities.
    wanted = (totals if discouraged is None else totals - discouraged.unsqueeze(1)).flatten(1)
    # Of the best 2K at most K end, one for each beam, so K open ones remain.
    liked, best = wanted.topk(min(2 * beams, beams * words), dim=1)
    scores = totals.flatten(1).gather(1, best)
    source = best.div(words, rounding_mode="floor")
    word = best % words
    grown = _pick(opened, source)
    tokens = torch.cat((grown.tokens, word.unsqueeze(2)), dim=2)
    if looks is None:
        trail = F.pad(grown.looks, (0, 0, 0, 1))
    else:
        look = looks.gather(1, source.unsqueeze(2).expand(-1, -1, looks.shape[2])).unsqueeze(2)
        trail = look if tokens.shape[2] == 1 else torch.cat((grown.looks, look), dim=2)
    grown = _Beams(scores, tokens, trail)

    over = word == marks.eos
    if final:
        weak = torch.tensor(list(marks.weak), device=word.device, dtype=word.dtype)
        # At the end of room even a bad ending counts, but last of all.
        closing = (scores - 1e4 * torch.isin(word, weak)) / penalty
    else:
        closing = (scores / penalty).masked_fill(~over, _NEVER)
    ended = _longer(ended, 1, trail.shape[3], marks)
    pool = _Beams(*(torch.cat(pair, dim=1) for pair in zip(ended, (closing, tokens, trail), strict=True)))
    ended = _pick(pool, pool.scores.topk(beams, dim=1).indices)
    going = liked.masked_fill(over | final, _NEVER)
    left, stay = going.topk(beams, dim=1)
    opened = _pick(grown, stay)
    closed = left == _NEVER
    return opened._replace(scores=opened.scores.masked_fill(closed, _NEVER)), ended, source.gather(1, stay)


def _longer(beams: _Beams, more: int, places: int, marks: Marks) -> _Beams:
    """Pad sentences by some words, and their views to `places`."""
    return beams._replace(
        tokens=F.pad(beams.tokens, (0, more), value=marks.pad),
        looks=F.pad(beams.looks, (0, places - beams.looks.shape[3], 0, more)),
    )


def _some(beams: _Beams, images: Tensor) -> _Beams:
    return _Beams(*(part[images] for part in beams))


def _gathered(parts: list[tuple[Tensor, list[_Beams]]], marks: Marks) -> list[_Beams]:
    """Join the groups of images whose searches ended at different times, in the order of the batch."""
    last = parts[-1][1][0]
    length, places = last.looks.shape[2:]
    order = torch.cat([images for images, _ in parts]).argsort()
    whole: list[_Beams] = []
    for groups in zip(*(groups for _, groups in parts), strict=True):
        even = [_longer(group, length - group.looks.shape[2], places, marks) for group in groups]
        whole.append(_Beams(*(torch.cat(same)[order] for same in zip(*even, strict=True))))
    return whole


def _pick(beams: _Beams, index: Tensor) -> _Beams:
    length, places = beams.looks.shape[2:]
    wide = index.unsqueeze(-1).expand(-1, -1, length)
    return _Beams(
        beams.scores.gather(1, index),
        beams.tokens.gather(1, wide),
        beams.looks.gather(1, wide.unsqueeze(-1).expand(-1, -1, -1, places)),
    )


def _block_trigrams(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Bar words `(B, K, V)` that would repeat three words in a row of `tokens` `(B, K, t)`."""
    if tokens.shape[-1] < 3:
        return log_probs
    same = (tokens[..., :-2] == tokens[..., -2:-1]) & (tokens[..., 1:-1] == tokens[..., -1:])  # (B, K, t - 2)
    repeats = torch.zeros_like(log_probs).scatter_add(2, tokens[..., 2:], same.to(log_probs.dtype))
    return log_probs.masked_fill(repeats > 0, _NEVER)


def _best(ended: list[_Beams], n_best: int, marks: Marks) -> Decoded:
    pool = _Beams(*(torch.cat(parts, dim=1) for parts in zip(*ended, strict=True)))
    same = (pool.tokens.unsqueeze(1) == pool.tokens.unsqueeze(2)).all(dim=-1).tril(diagonal=-1)
    pool = pool._replace(scores=pool.scores.masked_fill(same.any(dim=2), _NEVER))  # two groups may agree
    pool = _pick(pool, pool.scores.topk(n_best, dim=1).indices)
    kept = max(1, int((pool.tokens != marks.pad).flatten(0, 1).any(dim=0).sum()))
    attention = pool.looks[:, :, :kept] if pool.looks.shape[-1] else None
    # A vocabulary too small for n_best sentences leaves rows that were never said.
    tokens = pool.tokens[..., :kept].masked_fill((pool.scores == _NEVER).unsqueeze(-1), marks.pad)
    return Decoded(tokens, pool.scores, attention)
