"""Caption decoder: word embedding, a recurrent core, and one product with the vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected
from visionkit.nn.captioning.recurrent import CellKind, State
from visionkit.nn.captioning.rnn_cores import EncodedImages, make_core, widen

__all__ = ["CaptionDecoder", "TeacherForcingOutput"]


class TeacherForcingOutput(NamedTuple):
    """Logits of every word given the true words before it."""

    logits: Tensor  # (M, V) for the M words that are not padding
    targets: Tensor  # (M,)
    valid: Tensor  # (B, T) bool: the positions of those words
    attention: Tensor | None  # (B, T, L)


class CaptionDecoder(nn.Module):
    """Predict the words of a caption from a grid of image features.

    Teacher forcing runs the full sentence and then multiplies by the vocabulary once, over the words that
    exist. `step` is pure: it changes nothing, so greedy search, sampling and beams all use it.

    Args:
        core: "show_and_tell", "fc", "show_attend_tell", "att2in" or "up_down".
        channels: Channels of the grid.
        words: Size of the vocabulary; id 0 is padding.
        embed: Width of embedded words.
        hidden: Width of the state.
        attention: Hidden size of the attention.
        cell: LSTM or GRU.
        dropout: Fraction of embedded words' and outputs' entries dropped while training.
        vectors: `(words, embed)` word vectors to begin with; None draws them.
        freeze_vectors: Keep the word vectors as they are.

    Raises:
        InputError: Word vectors of another size, or frozen ones that were not given.
    """

    def __init__(
        self,
        core: str,
        *,
        channels: int,
        words: int,
        embed: int = 512,
        hidden: int = 512,
        attention: int = 512,
        cell: CellKind = "lstm",
        dropout: float = 0.5,
        vectors: Tensor | None = None,
        freeze_vectors: bool = False,
    ) -> None:
        super().__init__()
        if vectors is not None and tuple(vectors.shape) != (words, embed):
            text = expected("word vectors", f"of shape {(words, embed)}", tuple(vectors.shape))
            raise InputError(f"{text} Set embed to the width of the vectors.")
        if freeze_vectors and vectors is None:
            raise InputError("Frozen word vectors must be given: random ones would never learn.")
        self.core = make_core(
            core, channels=channels, embed=embed, hidden=hidden, attention=attention, cell=cell
        )
        self.words = nn.Embedding(words, embed, padding_idx=0)
        nn.init.uniform_(self.words.weight, -0.1, 0.1)
        if vectors is not None:
            with torch.no_grad():
                self.words.weight.copy_(vectors)
        self.words.weight.requires_grad_(not freeze_vectors)
        self.output = nn.Linear(hidden, words)
        self.dropout = nn.Dropout(dropout)

    @property
    def attends(self) -> bool:
        """Whether there are attention maps."""
        return self.core.attends

    def forward(self, grid: Tensor, tokens: Tensor, *, sampled: float = 0.0) -> TeacherForcingOutput:
        """Predict each word from the true words before it (teacher forcing).

        Args:
            grid: `(B, L, C)`.
            tokens: `(B * K, T + 1)` ids: begin, words, end, padding (0); the K sentences of an image next to
                each other. The grid is projected once an image.
            sampled: Fraction of input words that are drawn from the model (scheduled sampling, Bengio et al.
                2015).
        """
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        images = self.core.encode(grid)
        if sampled > 0:
            hidden, attention = self._scheduled_sampling(inputs, images, sampled)
        else:
            hidden, attention = self.core.sequence(self._embed(inputs), images)
        valid = targets != 0
        return TeacherForcingOutput(
            self.output(self.dropout(hidden[valid])), targets[valid], valid, attention
        )

    def start(self, grid: Tensor) -> tuple[EncodedImages, State]:
        """Prepare images `(B, L, C)` for `step`: what does not change, and the first state."""
        images = self.core.encode(grid)
        return images, self.core.begin(images)

    def step(
        self, tokens: Tensor, state: State, images: EncodedImages
    ) -> tuple[Tensor, State, Tensor | None]:
        """Predict the next word.

        Args:
            tokens: `(B * K,)` the words before, the K sentences of an image next to each other.
            state: One row for each sentence.
            images: From `start`, one row for each image.

        Returns:
            Log-probabilities `(B * K, V)`, the next state, and attention `(B * K, L)` if the core attends.
        """
        hidden, state, weights = self.core.step(self._embed(tokens), state, images)
        return self.output(self.dropout(hidden)).float().log_softmax(dim=-1), state, weights

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.words(tokens))  # type: ignore[no-any-return]

    def _scheduled_sampling(
        self, inputs: Tensor, images: EncodedImages, fraction: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return hidden `(N, T, H)` and attention `(N, T, L)`, with a `fraction` of drawn inputs."""
        state = widen(self.core.begin(images), len(inputs))
        outputs: list[Tensor] = []
        attention_weights: list[Tensor] = []
        for position, truth in enumerate(inputs.unbind(dim=1)):
            word = truth
            if position:
                with torch.no_grad():
                    drawn = torch.multinomial(self.output(outputs[-1]).float().softmax(-1), 1).squeeze(1)
                    replaced = (torch.rand_like(truth, dtype=torch.float32) < fraction) & (truth != 0)
                    word = torch.where(replaced, drawn, truth)
            hidden, state, weights = self.core.step(self._embed(word), state, images)
            outputs.append(hidden)
            if weights is not None:
                attention_weights.append(weights)
        attention = torch.stack(attention_weights, dim=1) if attention_weights else None
        return torch.stack(outputs, dim=1), attention
