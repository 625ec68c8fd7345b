"""Decoding: against an exhaustive search, for any batch split, and each constraint by itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.errors import InputError
from visionkit.nn.captioning.beam_search import beam_search
from visionkit.nn.captioning.decoding import SpecialTokens, decode_greedy, decode_samples, keep_likely

_SPECIAL = SpecialTokens()


class Toy:
    """A model whose next word depends on every word before it; one row of `state` a sentence."""

    def __init__(self, words: int, seed: int, sharpness: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.words = words + 3
        self.mix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        self.embed = torch.randn(self.words, 5, generator=generator, dtype=torch.float64)
        self.out = torch.randn(5, self.words, generator=generator, dtype=torch.float64) * sharpness
        self.generator = generator

    def start(self, images: int) -> tuple[torch.Tensor, ...]:
        return (torch.randn(images, 5, generator=self.generator, dtype=torch.float64),)

    def step(self, tokens, state):
        hidden = torch.tanh(state[0] @ self.mix + self.embed[tokens])
        attention = torch.softmax(hidden[:, :3], dim=1).float()
        return (hidden @ self.out).log_softmax(-1), (hidden,), attention

    def score(self, state, sentence):
        total, last = 0.0, torch.tensor([_SPECIAL.bos])
        for word in sentence:
            log_probs, state, _ = self.step(last, state)
            total += log_probs[0, word].item()
            last = torch.tensor([word])
        return total


def _every_sentence(words: int, max_length: int):
    inner = range(3, words + 3)
    for length in range(max_length):
        for body in itertools.product(inner, repeat=length):
            yield [*body, _SPECIAL.eos]
    yield from (list(body) for body in itertools.product(inner, repeat=max_length))


def _said(row: torch.Tensor) -> list[int]:
    return [w for w in row.tolist() if w != _SPECIAL.pad]


@settings(max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.7, 2.0]),
    st.integers(1, 4),
)
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(words, max_length, seed, length_penalty, n_best):
    toy = Toy(words, seed)
    state = toy.start(1)
    found = beam_search(
        toy.step,
        state,
        special_tokens=_SPECIAL,
        beams=max(4, words**max_length),
        n_best=n_best,
        max_length=max_length,
        length_penalty=length_penalty,
    )
    scored = []
    for sentence in _every_sentence(words, max_length):
        penalty = ((5 + len(sentence)) / 6) ** length_penalty
        scored.append((toy.score(state, sentence) / penalty, sentence))
    scored.sort(reverse=True)
    for rank, (score, sentence) in enumerate(scored[:n_best]):
        assert found.scores[0, rank].item() == pytest.approx(score, abs=1e-4)
        if (
            rank + 1 < len(scored)
            and score - scored[rank + 1][0] > 1e-4
            and (rank == 0 or scored[rank - 1][0] - score > 1e-4)
        ):
            assert _said(found.tokens[0, rank]) == sentence


@settings(max_examples=25)
@given(
    st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.0, 1.0]), st.booleans()
)
def test_an_image_is_told_alike_in_any_batch(seed, beams, groups, length_penalty, block):
    toy = Toy(6, seed)
    state = toy.start(5)
    options = {
        "special_tokens": _SPECIAL,
        "beams": beams,
        "n_best": beams,
        "max_length": 9,
        "groups": groups,
        "length_penalty": length_penalty,
        "block_trigrams": block,
    }
    together = beam_search(toy.step, state, **options)
    for part in (slice(0, 1), slice(1, 3), slice(3, 5)):
        alone = beam_search(toy.step, (state[0][part],), **options)
        width = alone.tokens.shape[-1]
        assert torch.equal(alone.tokens, together.tokens[part, :, :width])
        assert (together.tokens[part, :, width:] == _SPECIAL.pad).all()
        assert torch.allclose(alone.scores, together.scores[part])
        assert torch.allclose(alone.attention, together.attention[part, :, :width])


@settings(max_examples=25)
@given(
    st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 2), st.sampled_from([0.0, 1.0]), st.booleans()
)
def test_going_on_without_images_that_are_done_changes_nothing(seed, beams, groups, penalty, looking):
    """Each image has a memory of its own, so a step function for the wrong images would be seen."""
    toy = Toy(6, seed)
    state = toy.start(8)
    memory = torch.randn(8, 5, generator=toy.generator, dtype=torch.float64)
    memory[::2] -= 4.0 * toy.out[:, _SPECIAL.eos]  # some speak long, some soon end
    rows = []

    def step_for(places):
        def step(tokens, state):
            rows.append(len(tokens))
            known = memory[places].repeat_interleave(len(tokens) // len(places), dim=0)
            log_probs, state, attention = toy.step(tokens, (state[0] + known,))
            return log_probs, state, attention if looking else None

        return step

    options = {
        "special_tokens": _SPECIAL,
        "beams": beams,
        "n_best": beams,
        "max_length": 12,
        "groups": groups,
    }
    options["length_penalty"] = penalty
    whole = step_for(torch.arange(8))
    plain = beam_search(whole, state, **options)
    all_rows, most = sum(rows), len(rows)
    rows.clear()
    narrowed = beam_search(whole, state, narrow=step_for, **options)
    assert torch.equal(plain.tokens, narrowed.tokens)
    assert torch.allclose(plain.scores, narrowed.scores)
    assert (plain.attention is None) == (narrowed.attention is None) == (not looking)
    if looking:
        said = plain.tokens.unsqueeze(3) != _SPECIAL.pad  # beyond the end nothing was looked at
        assert torch.allclose(plain.attention * said, narrowed.attention * said)
    assert len(rows) == most
    assert sum(rows) <= all_rows


def test_the_last_images_are_searched_alone():
    rows = []

    def step_for(places):
        def step(tokens, state):
            rows.append(len(tokens))
            ends = places.repeat_interleave(len(tokens) // len(places)) <= state[0][:, 0]
            log_probs = torch.full((len(tokens), 5), -9.0)
            log_probs[:, 3:] = -1.0
            log_probs[ends, _SPECIAL.eos] = 0.0
            return log_probs, (state[0] + 1,), None

        return step

    found = beam_search(
        step_for(torch.arange(8)),
        (torch.zeros(8, 1),),
        special_tokens=_SPECIAL,
        beams=2,
        max_length=20,
        narrow=step_for,
    )
    assert [len(_said(row)) for row in found.tokens[:, 0]] == list(range(1, 9))
    assert rows[0] == 8
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] <= 4


def test_scores_and_attention_are_those_of_the_sentence():
    toy = Toy(6, 3)
    state = toy.start(4)
    found = beam_search(toy.step, state, special_tokens=_SPECIAL, beams=4, n_best=4, max_length=8)
    assert found.tokens.shape[:2] == (4, 4)
    for image in range(4):
        assert found.scores[image].diff().le(1e-6).all()
        assert len({tuple(_said(row)) for row in found.tokens[image]}) == 4
        for row, score, attention in zip(found.tokens[image], found.scores[image], found.attention[image]):
            own = (state[0][image : image + 1],)
            assert toy.score(own, _said(row)) == pytest.approx(score.item(), abs=1e-4)
            last = torch.tensor([_SPECIAL.bos])
            for place, word in enumerate(_said(row)):
                _, own, weights = toy.step(last, own)
                assert torch.allclose(attention[place], weights[0], atol=1e-6)
                last = torch.tensor([word])


def test_one_beam_is_greedy_and_more_beams_are_no_worse():
    toy = Toy(8, 1)
    state = toy.start(30)
    greedy = decode_greedy(toy.step, state, special_tokens=_SPECIAL, max_length=10)
    one = beam_search(toy.step, state, special_tokens=_SPECIAL, beams=1, max_length=10)
    agree = [_said(a[0]) == _said(b[0]) for a, b in zip(greedy.tokens, one.tokens)]
    assert sum(agree) >= 27  # one beam goes on after a good ending was found; greedy stops at the first
    five = beam_search(toy.step, state, special_tokens=_SPECIAL, beams=5, max_length=10)
    assert five.scores.mean() > greedy.scores.mean()
    assert greedy.attention.shape == (*greedy.tokens.shape, 3)


def test_three_words_in_a_row_are_not_said_twice():
    loop = torch.full((6, 6), -20.0)
    for word, following in ((1, 3), (3, 4), (4, 5), (5, 3)):
        loop[word, following] = 0.0

    def step(tokens, state):
        return loop[tokens].log_softmax(-1), state, None

    state = (torch.zeros(1, 1),)
    free = beam_search(step, state, special_tokens=_SPECIAL, beams=3, max_length=9)
    assert _said(free.tokens[0, 0]) == [3, 4, 5, 3, 4, 5, 3, 4, 5]
    blocked = _said(
        beam_search(step, state, special_tokens=_SPECIAL, beams=3, max_length=9, block_trigrams=True).tokens[
            0, 0
        ]
    )
    runs = [tuple(blocked[i : i + 3]) for i in range(len(blocked) - 2)]
    assert len(runs) == len(set(runs))


def test_bad_endings_and_banned_words_are_not_said():
    toy = Toy(5, 2)
    state = toy.start(20)
    special_tokens = SpecialTokens(banned=(3,), bad_endings=(4, 5))
    for found in (
        beam_search(toy.step, state, special_tokens=special_tokens, beams=4, n_best=4, max_length=12),
        decode_greedy(toy.step, state, special_tokens=special_tokens, max_length=12),
        decode_samples(toy.step, state, special_tokens=special_tokens, count=5, max_length=12),
    ):
        sentences = [_said(row) for row in found.tokens.flatten(0, 1)]
        assert not any(3 in s or 0 in s or 1 in s for s in sentences)
        assert not any(s[-1] == 2 and len(s) > 1 and s[-2] in (4, 5) for s in sentences)
        assert sum(s[-1] == 2 for s in sentences) > 2


def test_scores_are_log_probabilities_where_every_sentence_ends_badly():
    toy = Toy(3, 5)
    state = toy.start(4)
    special_tokens = SpecialTokens(bad_endings=(3, 4, 5))  # every word but the end
    rows = beam_search(toy.step, state, special_tokens=special_tokens, beams=3, n_best=3, max_length=4)
    count = 0
    for image, (tokens, scores) in enumerate(zip(rows.tokens, rows.scores)):
        for row, score in zip(tokens, scores):
            if score > float("-inf"):
                start = (state[0][image : image + 1],)
                assert score.item() == pytest.approx(toy.score(start, _said(row)), abs=1e-4)
                count += 1
    assert count >= 4


def test_groups_say_different_things():
    toy = Toy(8, 4, sharpness=4.0)
    state = toy.start(10)
    options = {"special_tokens": SpecialTokens(bad_endings=(1,)), "n_best": 3, "max_length": 8}
    plain = beam_search(toy.step, state, beams=3, **options)
    diverse = beam_search(toy.step, state, beams=1, groups=3, diversity=1000.0, **options)
    assert all(len(set(rows[:, 0].tolist())) == 3 for rows in diverse.tokens)
    assert sum(len(set(rows[:, 0].tolist())) for rows in plain.tokens) < 30


def test_groups_that_agree_give_the_sentence_once():
    toy = Toy(3, 7)
    found = beam_search(
        toy.step,
        toy.start(6),
        special_tokens=_SPECIAL,
        beams=3,
        groups=3,
        n_best=9,
        max_length=4,
        diversity=0.0,
    )
    for rows, scores in zip(found.tokens, found.scores):
        said = [tuple(_said(row)) for row, score in zip(rows, scores) if score > float("-inf")]
        assert len(said) == len(set(said)) == 3
        assert (rows[3:] == _SPECIAL.pad).all()


def test_draws_follow_the_probabilities_and_repeat_with_the_generator():
    toy = Toy(4, 5)
    state = toy.start(1)
    generator = torch.Generator().manual_seed(1)
    drawn = decode_samples(
        toy.step, state, special_tokens=_SPECIAL, count=20_000, max_length=1, generator=generator
    )
    assert drawn.tokens.shape == (1, 20_000, 1)
    share = torch.bincount(drawn.tokens.flatten(), minlength=7) / 20_000
    log_probs, _, _ = toy.step(torch.tensor([1]), state)
    wanted = _SPECIAL.mask(log_probs, torch.tensor([1])).softmax(-1)[0].float()
    assert torch.allclose(share, wanted, atol=0.015)
    generator.manual_seed(1)
    again = decode_samples(
        toy.step, state, special_tokens=_SPECIAL, count=20_000, max_length=1, generator=generator
    )
    assert torch.equal(drawn.tokens, again.tokens)
    cold = decode_samples(toy.step, state, special_tokens=_SPECIAL, count=50, max_length=6, temperature=1e-3)
    greedy = decode_greedy(toy.step, state, special_tokens=_SPECIAL, max_length=6)
    assert all(_said(row) == _said(greedy.tokens[0, 0]) for row in cold.tokens[0])


def test_only_likely_words_are_kept():
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert keep_likely(log_probs, top_k=2).isfinite().tolist() == [[True, True, False, False]]
    assert keep_likely(log_probs, top_p=0.6).isfinite().tolist() == [[True, True, False, False]]
    assert keep_likely(log_probs, top_p=0.49).isfinite().tolist() == [[True, False, False, False]]
    assert keep_likely(log_probs, top_k=9).isfinite().all()


def test_settings_out_of_range_are_refused():
    toy = Toy(3, 0)
    state = toy.start(1)
    with pytest.raises(InputError, match=r"n_best to be in 1 \.\. beams \* groups = 4, but got 5"):
        beam_search(toy.step, state, special_tokens=_SPECIAL, beams=2, groups=2, n_best=5)
    with pytest.raises(InputError, match="at least 1"):
        beam_search(toy.step, state, special_tokens=_SPECIAL, beams=0)
    with pytest.raises(InputError, match="length_penalty to be at least 0"):
        beam_search(toy.step, state, special_tokens=_SPECIAL, length_penalty=-1)
    with pytest.raises(InputError, match=r"above 0, but got 0\. For 0, use decode_greedy"):
        decode_samples(toy.step, state, special_tokens=_SPECIAL, temperature=0)
    with pytest.raises(InputError, match=r"top_p to be in \(0, 1\]"):
        decode_samples(toy.step, state, special_tokens=_SPECIAL, top_p=0.0)
    with pytest.raises(InputError, match="max_length to be at least 1"):
        decode_greedy(toy.step, state, special_tokens=_SPECIAL, max_length=0)


def test_draws_by_given_numbers_are_an_images_own():
    toy = Toy(6, seed=3, sharpness=0.7)
    state = toy.start(12)
    numbers = torch.rand(12, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = decode_samples(
        toy.step, state, special_tokens=_SPECIAL, count=1, max_length=7, uniforms=numbers
    )
    lengths = set()
    for row in range(12):
        alone = decode_samples(
            toy.step,
            (state[0][row : row + 1],),
            special_tokens=_SPECIAL,
            count=1,
            max_length=7,
            uniforms=numbers[row : row + 1],
        )
        kept = alone.tokens.shape[-1]
        assert torch.equal(alone.tokens[0], together.tokens[row, :, :kept])
        assert not together.tokens[row, :, kept:].any()
        lengths.add(kept)
    assert len(lengths) > 1
    first = decode_samples(
        toy.step, (state[0][:1],), special_tokens=_SPECIAL, count=4000, max_length=1,
        uniforms=(torch.arange(4000, dtype=torch.float64) / 4000).unsqueeze(1),
    )  # fmt: skip
    log_probs, _, _ = toy.step(torch.tensor([_SPECIAL.bos]), (state[0][:1],))
    chances = _SPECIAL.mask(log_probs, torch.tensor([_SPECIAL.bos]))[0].softmax(-1)
    counts = torch.bincount(first.tokens.flatten(), minlength=toy.words) / 4000
    assert torch.allclose(counts.double(), chances, atol=1e-3), (
        "even numbers give the probabilities themselves"
    )
    with pytest.raises(InputError, match=r"uniforms to be of shape \(12, 7\)"):
        decode_samples(
            toy.step, state, special_tokens=_SPECIAL, count=1, max_length=7, uniforms=numbers[:, :3]
        )


def test_the_first_step_is_made_once_an_image():
    toy = Toy(6, seed=1)
    rows = []

    def step(tokens, state):
        rows.append(len(tokens))
        return toy.step(tokens, state)

    beam_search(step, toy.start(3), special_tokens=_SPECIAL, beams=4, max_length=5)
    assert rows[0] == 3
    assert set(rows[1:]) == {12}
