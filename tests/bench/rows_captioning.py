"""Captioning beside loops of the kind that public tutorials have: a training step, and beam search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.bench.row import Row, Sides, Size, close, pick, same
from visionkit.nn.captioning.decoder import CaptionDecoder
from visionkit.nn.captioning.prepacked import packed
from visionkit.tasks import Decoding
from visionkit.tasks.captioning.generate import caption_cross_entropy, generate, special_tokens_of

BOS, EOS = 1, 2


def sizes(size: Size) -> dict[str, int]:
    """Vocabulary, width, places and channels of the grid; the full ones are those of COCO with ResNet-101."""
    return pick(
        size,
        tiny={"words": 50, "width": 16, "places": 9, "channels": 12, "batch": 4, "longest": 6},
        quick={"words": 4000, "width": 256, "places": 49, "channels": 512, "batch": 16, "longest": 20},
        full={"words": 10_000, "width": 512, "places": 196, "channels": 2048, "batch": 32, "longest": 20},
    )


def make(core: str, at: dict[str, int]) -> tuple[CaptionDecoder, Tensor, Tensor]:
    """A decoder without dropout, a grid and captions of 8 words up to the longest."""
    torch.manual_seed(0)
    width = at["width"]
    decoder = CaptionDecoder(
        core,
        channels=at["channels"],
        words=at["words"],
        embed=width,
        hidden=width,
        attention=width,
        dropout=0.0,
    )
    grid = torch.randn(at["batch"], at["places"] if decoder.attends else 1, at["channels"])
    tokens = torch.randint(4, at["words"], (at["batch"], at["longest"] + 2))
    tokens[:, 0] = BOS
    for row, length in enumerate(
        torch.linspace(min(8, at["longest"]), at["longest"], at["batch"]).int().tolist()
    ):
        tokens[row, length + 1] = EOS
        tokens[row, length + 2 :] = 0
    return decoder, grid, tokens


def cell_of(decoder: CaptionDecoder) -> nn.LSTMCell:
    """A cell with the decoder's own weights: both sides compute the same numbers."""
    net: Any = decoder.core.cell.net
    cell = nn.LSTMCell(net.input_size, net.hidden_size)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, getattr(net, f"{name}_l0"))
    return cell


def gradients(decoder: CaptionDecoder, loss: Tensor) -> list[Tensor]:
    decoder.zero_grad()
    loss.backward()
    net: Any = decoder.core.cell.net
    found = [decoder.output.weight.grad, decoder.words.weight.grad, net.weight_ih_l0.grad]
    return [loss.detach(), *(value.clone() for value in found)]


def tutorial_lstm(decoder: CaptionDecoder, cell: nn.LSTMCell, grid: Tensor, tokens: Tensor) -> Tensor:
    """A cell a word, the vocabulary a word, and the loss over every position, padding ignored."""
    image = decoder.core.image(grid.mean(1))
    hidden, memory = cell(image)
    scores = []
    for place in range(tokens.shape[1] - 1):
        hidden, memory = cell(decoder.words(tokens[:, place]), (hidden, memory))
        scores.append(decoder.output(hidden))
    logits = torch.stack(scores, dim=1)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0)


def tutorial_look(decoder: CaptionDecoder, grid: Tensor, hidden: Tensor) -> Tensor:
    """Soft attention with the grid projected again for every word."""
    core: Any = decoder.core
    asked = core.attention.key(grid) + core.attention.query(hidden).unsqueeze(1)
    weights = core.attention.score(asked.tanh()).squeeze(2).softmax(dim=1)
    seen = (grid * weights.unsqueeze(2)).sum(dim=1)
    return core.gate(hidden).sigmoid() * seen


def tutorial_attention(decoder: CaptionDecoder, cell: nn.LSTMCell, grid: Tensor, tokens: Tensor) -> Tensor:
    """Sentences sorted by length, so that the batch shrinks; projection, cell and vocabulary a word."""
    core: Any = decoder.core
    lengths, order = (tokens[:, 1:] != 0).sum(dim=1).sort(descending=True)
    grid, tokens = grid[order], tokens[order]
    hidden, memory = core.initial_state(grid.mean(1)).tanh().chunk(2, dim=1)
    words = decoder.words(tokens)
    scores = grid.new_zeros(len(tokens), int(lengths[0]), decoder.output.out_features)
    for place in range(int(lengths[0])):
        rows = int((lengths > place).sum())
        seen = tutorial_look(decoder, grid[:rows], hidden[:rows])
        joined = torch.cat((words[:rows, place], seen), dim=1)
        hidden, memory = cell(joined, (hidden[:rows], memory[:rows]))
        scores[:rows, place] = decoder.output(hidden)
    targets = tokens[:, 1 : int(lengths[0]) + 1]
    packed = nn.utils.rnn.pack_padded_sequence(scores, lengths, batch_first=True).data
    wanted = nn.utils.rnn.pack_padded_sequence(targets, lengths, batch_first=True).data
    return F.cross_entropy(packed, wanted)


def training(core: str, peer: Callable[..., Tensor]) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        decoder, grid, tokens = make(core, sizes(size))
        cell = cell_of(decoder)
        return Sides(
            ours=lambda: gradients(decoder, caption_cross_entropy(decoder(grid, tokens))),
            theirs=lambda: gradients(decoder, peer(decoder, cell, grid, tokens)),
            equal=close(atol=1e-5, rtol=1e-4),
        )

    return build


def tutorial_beam(
    decoder: CaptionDecoder, cell: nn.LSTMCell, grid: Tensor, beams: int, longest: int
) -> list[int]:
    """One image: its grid copied for every beam, projected for every word, sentences kept in lists."""
    core: Any = decoder.core
    grid = grid.expand(beams, -1, -1)
    hidden, memory = core.initial_state(grid.mean(1)).tanh().chunk(2, dim=1)
    alive: list[tuple[float, list[int]]] = [(0.0, [BOS])]
    ended: list[tuple[float, list[int]]] = []
    for place in range(longest):
        words = torch.tensor([decoded[-1] for _, decoded in alive])
        seen = tutorial_look(decoder, grid[: len(alive)], hidden[: len(alive)])
        joined = torch.cat((decoder.words(words), seen), dim=1)
        hidden, memory = cell(joined, (hidden[: len(alive)], memory[: len(alive)]))
        scores = F.log_softmax(decoder.output(hidden), dim=1)
        scores[:, [0, BOS, 3]] = float("-inf")
        totals = scores + torch.tensor([total for total, _ in alive]).unsqueeze(1)
        best, where = totals.flatten().topk(2 * beams)
        grown, sources = [], []
        for total, flat in zip(best.tolist(), where.tolist(), strict=True):
            source, word = divmod(flat, scores.shape[1])
            decoded = [*alive[source][1], word]
            if word == EOS or place == longest - 1:
                ended.append((total, decoded))
            elif len(grown) < beams:
                grown.append((total, decoded))
                sources.append(source)
        ended = sorted(ended, key=lambda pair: -pair[0])[:beams]
        if not grown or (len(ended) == beams and grown[0][0] <= ended[-1][0]):
            break
        alive = grown
        hidden, memory = hidden[sources], memory[sources]
    return ended[0][1][1:]


@torch.no_grad()
def speak_like_a_trained_one(decoder: CaptionDecoder) -> None:
    """Have sentences of 7 to 10 words that differ: the first unit counts words until the end is likely."""
    core: Any = decoder.core
    width, cell = core.hidden, core.cell.net
    decoder.words.weight *= 20
    decoder.output.weight *= 8
    for gate, bias in enumerate((8.0, 8.0, 0.1, 8.0)):  # input, forget, candidate, output
        row = gate * width
        cell.weight_ih_l0[row], cell.weight_hh_l0[row] = 0, 0
        cell.bias_ih_l0[row], cell.bias_hh_l0[row] = bias, 0
    decoder.output.weight[:, 0] = 0
    decoder.output.weight[EOS], decoder.output.bias[EOS] = 0, -25
    decoder.output.weight[EOS, 0] = 45


def searching(size: Size) -> Sides:
    at = {**sizes(size), "batch": pick(size, tiny=3, quick=8, full=8)}
    decoder, grid, _ = make("show_attend_tell", at)
    speak_like_a_trained_one(decoder)
    cell = cell_of(decoder.eval())
    longest = at["longest"]
    from visionkit.text.vocabulary import Vocabulary

    special_tokens = special_tokens_of(
        Vocabulary([f"w{i}" for i in range(at["words"] - 4)]), bad_endings=True
    )
    speaker = packed(decoder, rows=5 * len(grid))  # as a task does, once for all batches of an evaluation

    @torch.no_grad()
    def ours() -> list[list[int]]:
        decoded = generate(speaker, grid, special_tokens, Decoding(beams=5, max_length=longest))
        return [[word for word in row if word] for row in decoded.tokens[:, 0].tolist()]

    @torch.no_grad()
    def theirs() -> list[list[int]]:
        return [tutorial_beam(decoder, cell, image[None], 5, longest) for image in grid]

    return Sides(ours, theirs, same)


ROWS = (
    Row(
        "caption training step, LSTM",
        peer="tutorial loop (own code): a cell and a vocabulary product for every word",
        build=training("show_and_tell", tutorial_lstm),
        goal=2.0,
        limit="the vocabulary product of the words that exist",
    ),
    Row(
        "caption training step, attention",
        peer="tutorial loop (own code): grid projected and vocabulary multiplied for every word",
        build=training("show_attend_tell", tutorial_attention),
        goal=3.5,
        limit="tanh over grid and words, and the vocabulary product",
    ),
    Row(
        "beam search, 8 images x 5 beams, attention",
        peer="tutorial loop (own code): one image at a time",
        build=searching,
        goal=10.0,
        limit="20 decoder steps of 40 rows",
        note="The captions are the same, word for word. Weights are packed before, as an evaluation does.",
    ),
)
