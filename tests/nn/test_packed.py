"""Packed weights: every core says what it said before, in both precisions, and the module is untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visionkit.compat import onednn_computes_bf16
from visionkit.nn.captioning.attention import AdditiveAttention
from visionkit.nn.captioning.decoder import CaptionDecoder
from visionkit.nn.captioning.decoding import SpecialTokens
from visionkit.nn.captioning.prepacked import PackedCell, PackedLinear, packed
from visionkit.nn.captioning.recurrent import RecurrentCell
from visionkit.nn.captioning.rnn_cores import CORES
from visionkit.task_config import Decoding
from visionkit.tasks.captioning.generate import generate

_KINDS = [(name, "lstm") for name in CORES] + [
    (n, "gru") for n in ("show_and_tell", "show_attend_tell", "up_down")
]


def _decoder(name: str, cell: str) -> CaptionDecoder:
    torch.manual_seed(0)
    sizes = {"channels": 24, "words": 90, "embed": 32, "hidden": 40, "attention": 20}
    return CaptionDecoder(name, cell=cell, **sizes).eval()


@pytest.mark.parametrize(("name", "cell"), _KINDS)
def test_a_packed_decoder_says_what_the_decoder_says(name, cell):
    decoder = _decoder(name, cell)
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    grid, how = torch.randn(5, 9, 24), Decoding(beams=4, max_length=8)
    with torch.inference_mode():
        twin = packed(decoder, rows=20)
        assert sum(isinstance(part, (PackedLinear, PackedCell)) for part in twin.modules()) >= 2
        assert not any(isinstance(part, (nn.LSTM, nn.GRU)) for part in twin.modules())
        one, other = (generate(each, grid, SpecialTokens(), how, n_best=4) for each in (decoder, twin))
    assert torch.equal(one.tokens, other.tokens)
    assert torch.allclose(one.scores, other.scores, atol=1e-5)
    if one.attention is not None:
        assert torch.allclose(one.attention, other.attention, atol=1e-6)
    assert not any(isinstance(part, (PackedLinear, PackedCell)) for part in decoder.modules())
    after = decoder.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(("name", "cell"), _KINDS)
def test_under_autocast_weights_are_packed_in_its_type(name, cell):
    decoder = _decoder(name, cell)
    grid, words = torch.randn(5, 9, 24), torch.arange(4, 9)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        twin = packed(decoder, rows=5)
        assert (twin is not decoder) is onednn_computes_bf16()  # without it torch's own kernels go on
        assert all(part.dtype is torch.bfloat16 for part in twin.modules() if isinstance(part, PackedLinear))
        found = []
        for each in (decoder, twin):
            memory, state = each.start(grid)
            log_probs, state, _ = each.step(words, state, memory)
            found.append((log_probs, *each.step(words, state, memory)[1]))
    for one, other in zip(*found, strict=True):
        # Two kernels, two steps: each may round to the other side, 2^-8 of the value, some times in a row.
        assert torch.allclose(one.float(), other.float(), rtol=8 * 2**-8, atol=8 * 2**-8)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_packed_cell_steps_as_torch_does(kind):
    torch.manual_seed(1)
    cell = RecurrentCell(24, 20, kind=kind)
    twin = PackedCell(cell, dtype=torch.float32, rows=7)
    inputs = torch.randn(7, 24)
    state = tuple(torch.randn(7, 20) for _ in cell.zeros(inputs))
    with torch.no_grad():
        for one, other in zip(cell.step(inputs, state), twin.step(inputs, state), strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_what_gains_nothing_stays():
    narrow = nn.Sequential(nn.Linear(4, 15), nn.Linear(15, 16))
    twin = packed(narrow, rows=3)
    assert type(twin[0]) is nn.Linear
    assert isinstance(twin[1], PackedLinear)
    with torch.autocast("cpu", torch.float16):
        assert packed(narrow, rows=3) is narrow
    for other in (narrow.double(), nn.ReLU()):
        assert packed(other, rows=3) is other


@pytest.mark.parametrize("autocast", [False, True])
def test_attention_without_gradients_is_that_with_them(autocast):
    torch.manual_seed(2)
    attention = AdditiveAttention(24, query=20, hidden=512)
    query, grid = 3 * torch.randn(12, 20), torch.randn(4, 50, 24)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        keys = attention.keys(grid)
        taught, searched = attention(query, grid, keys), None
        with torch.no_grad():
            searched = attention(query, grid, keys)
    assert taught[1].requires_grad
    for one, other in zip(taught, searched, strict=True):
        assert torch.allclose(one.float(), other.float(), atol=0.02 if autocast else 1e-6)
