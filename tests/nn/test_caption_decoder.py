"""Caption decoders: teaching and stepping agree, beams share an image, and nothing is multiplied twice."""

from __future__ import annotations

import pytest
import torch

from visionkit.errors import InputError
from visionkit.nn.captioning.attention import AdditiveAttention, doubly_stochastic
from visionkit.nn.captioning.decoder import CaptionDecoder
from visionkit.nn.captioning.rnn_cores import CORES, Core, make_core

_KINDS = [(name, "lstm") for name in CORES] + [
    (n, "gru") for n in ("show_and_tell", "show_attend_tell", "up_down")
]
_TOKENS = torch.tensor([[1, 4, 5, 6, 2], [1, 7, 2, 0, 0], [1, 2, 0, 0, 0]])


def _decoder(name: str, cell: str = "lstm", **settings) -> CaptionDecoder:
    torch.manual_seed(0)
    sizes = {"channels": 6, "words": 9, "embed": 8, "hidden": 10, "attention": 7, "dropout": 0.0} | settings
    return CaptionDecoder(name, cell=cell, **sizes)


def test_every_core_is_walked():
    assert len(_KINDS) == 8
    assert all(isinstance(make_core(n, channels=2, embed=2, hidden=2, attention=2), Core) for n in CORES)


@pytest.mark.parametrize(("name", "cell"), _KINDS)
def test_teaching_gives_what_stepping_gives(name, cell):
    decoder = _decoder(name, cell)
    grid = torch.randn(3, 4, 6)
    taught = decoder(grid, _TOKENS)
    assert taught.logits.shape == (7, 9)
    assert taught.targets.tolist() == [4, 5, 6, 2, 7, 2, 2]
    memory, state = decoder.start(grid)
    steps = []
    for place in range(4):
        log_probs, state, weights = decoder.step(_TOKENS[:, place], state, memory)
        steps.append(log_probs)
        assert (weights is not None) == decoder.attends
        if weights is not None:
            assert torch.allclose(weights, taught.attention[:, place], atol=1e-6)
            assert torch.allclose(weights.sum(1), torch.ones(3))
    stepped = torch.stack(steps, dim=1)[taught.valid]
    assert torch.allclose(stepped, taught.logits.log_softmax(-1), atol=1e-5)


@pytest.mark.parametrize(("name", "cell"), _KINDS)
def test_the_sentences_of_an_image_share_its_grid(name, cell):
    decoder = _decoder(name, cell)
    grid = torch.randn(2, 4, 6)
    words = torch.tensor([4, 5, 6, 7, 8, 4])  # three sentences an image
    memory, state = decoder.start(grid)
    wide = tuple(part.repeat_interleave(3, dim=0) for part in state)
    wide = tuple(part + 0.1 * torch.randn_like(part) for part in wide)
    shared, after, _ = decoder.step(words, wide, memory)
    copied, _ = decoder.start(grid.repeat_interleave(3, dim=0))
    alone, after_alone, _ = decoder.step(words, wide, copied)
    assert torch.allclose(shared, alone, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(after, after_alone))


@pytest.mark.parametrize(("name", "cell"), _KINDS)
def test_every_parameter_learns_and_mixed_precision_runs(name, cell):
    decoder = _decoder(name, cell)
    grid = torch.randn(3, 4, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taught = decoder(grid, _TOKENS)
        loss = torch.nn.functional.cross_entropy(taught.logits.float(), taught.targets)
    loss.backward()
    still = [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
    assert grid.grad.abs().sum() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory, state = decoder.start(grid)
        log_probs, _, _ = decoder.step(_TOKENS[:, 0], state, memory)
    assert torch.allclose(log_probs.exp().sum(1), torch.ones(3), atol=1e-3)


def test_the_vocabulary_is_multiplied_once_and_only_for_words_that_exist():
    decoder = _decoder("show_attend_tell")
    seen = []
    decoder.output.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    keys = []
    decoder.core.attention.key.register_forward_hook(lambda *parts: keys.append(1))
    decoder(torch.randn(3, 4, 6), _TOKENS)
    assert seen == [(7, 10)]
    assert len(keys) == 1


def test_scheduled_sampling_uses_own_words():
    decoder = _decoder("show_attend_tell")
    grid = torch.randn(3, 4, 6)
    truth = decoder(grid, _TOKENS)
    with torch.no_grad():
        decoder.output.bias[8] = 100  # now every own word is word 8
    own = decoder(grid, _TOKENS, sampled=1.0)
    told = _TOKENS.clone()
    told[0, 1:4] = 8
    told[1, 1:2] = 8
    memory, state = decoder.start(grid)
    for place, words in enumerate(told[:, :-1].unbind(1)):
        _, state, weights = decoder.step(words, state, memory)
        rows = own.valid[:, place]
        assert torch.allclose(weights[rows], own.attention[rows, place], atol=1e-6)
    assert truth.valid.equal(own.valid)


def test_word_vectors_begin_and_stay():
    vectors = torch.randn(9, 8)
    decoder = _decoder("fc", vectors=vectors, freeze_vectors=True)
    assert torch.equal(decoder.words.weight, vectors)
    assert not decoder.words.weight.requires_grad
    assert _decoder("fc", vectors=vectors).words.weight.requires_grad
    with pytest.raises(InputError, match=r"word vectors to be of shape \(9, 8\), but got \(9, 5\)"):
        _decoder("fc", vectors=torch.randn(9, 5))
    with pytest.raises(InputError, match="random ones would never learn"):
        _decoder("fc", freeze_vectors=True)


def test_unknown_cores_and_cells_are_refused():
    with pytest.raises(InputError, match=r"Unknown caption decoder 'up-down'\. Did you mean 'up_down'"):
        _decoder("up-down")
    with pytest.raises(InputError, match="'lstm' for decoder 'att2in'"):
        _decoder("att2in", "gru")
    with pytest.raises(InputError, match="Unknown cell 'rnn'"):
        _decoder("fc", "rnn")


def test_the_doubly_stochastic_term_is_zero_when_each_place_is_looked_at_once():
    even = torch.full((1, 4, 4), 0.25)
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert doubly_stochastic(even, valid).item() == pytest.approx(0)
    stare = torch.zeros(1, 4, 4)
    stare[..., 0] = 1
    assert doubly_stochastic(stare, valid).item() == pytest.approx(9 + 3)
    valid[:, 2:] = False
    assert doubly_stochastic(stare, valid).item() == pytest.approx(1 + 3)


def test_attention_looks_where_the_key_answers_the_query():
    torch.manual_seed(0)
    attention = AdditiveAttention(3, query=2, hidden=4)
    grid = torch.randn(2, 5, 3)
    context, weights = attention(torch.randn(6, 2), grid, attention.keys(grid))
    assert context.shape == (6, 3)
    assert weights.shape == (6, 5)
    assert torch.allclose(context[4], weights[4] @ grid[1], atol=1e-6)
