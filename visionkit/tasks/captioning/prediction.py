"""Captions of one image as plain values on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from visionkit.nn.captioning.decoding import Decoded
from visionkit.text.vocabulary import Vocabulary

__all__ = ["CaptionPrediction", "caption_predictions"]


@dataclass
class CaptionPrediction:
    """A sentence.

    Args:
        caption: The words, joined.
        tokens: The words.
        log_prob: Log-probability of the sentence, its end included (with a length penalty, if one was set).
        n_best: The best sentences with their log-probabilities, this one first.
        attention: `(T, h, w)`, one map a word and one for the end; each sums to one. None for decoders that
            do not attend.
        id: The image's, if the batch names images.
    """

    caption: str
    tokens: tuple[str, ...]
    log_prob: float
    n_best: tuple[tuple[str, float], ...]
    attention: Tensor | None = None
    id: str | None = None


def caption_predictions(
    decoded: Decoded,
    vocabulary: Vocabulary,
    *,
    grid: tuple[int, int],
    ids: Sequence[str] | None,
    attention: bool = True,
) -> list[CaptionPrediction]:
    """Return one typed prediction an image.

    Args:
        decoded: Sentences of the batch, best first.
        vocabulary: Their words.
        grid: Height and width of the attention maps.
        ids: Names of the images.
        attention: Whether to keep the maps.
    """
    tokens, scores = decoded.tokens.cpu(), decoded.scores.float().cpu()
    weights = decoded.attention.float().cpu() if attention and decoded.attention is not None else None
    predictions = []
    for row in range(len(tokens)):
        captions = [
            (" ".join(vocabulary.decode(words)), score)
            for words, score in zip(tokens[row].tolist(), scores[row].tolist())
            if math.isfinite(score)
        ] or [("", scores[row, 0].item())]
        best, log_prob = captions[0]
        length = int((tokens[row, 0] != vocabulary.pad).sum())
        maps = None if weights is None else weights[row, 0, :length].reshape(length, *grid).clone()
        name = ids[row] if ids else None
        predictions.append(
            CaptionPrediction(best, tuple(best.split()), log_prob, tuple(captions), maps, name)
        )
    return predictions
