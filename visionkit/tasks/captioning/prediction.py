"""What a captioner says about one image, as plain values on the host."""

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
    looks = decoded.attention.float().cpu() if attention and decoded.attention is not None else None
    made = []
    for row in range(len(tokens)):
        several = []
        for said, score in zip(tokens[row].tolist(), scores[row].tolist()):
            if math.isfinite(score):
                several.append((" ".join(vocabulary.decode(said)), score))
        several = several or [("", scores[row, 0].item())]
        best = tuple(several[0][0].split())
        length = int((tokens[row, 0] != vocabulary.pad).sum())
        maps = None if looks is None else looks[row, 0, :length].reshape(length, *grid).clone()
        made.append(
            CaptionPrediction(
                several[0][0], best, several[0][1], tuple(several), maps, ids[row] if ids else None
            )
        )
    return made
