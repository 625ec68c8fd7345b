"""Sentences from a caption decoder, and the loss of its words."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from visionkit.nn.captioning.beam_search import beam_search
from visionkit.nn.captioning.decoder import CaptionDecoder, TeacherForcingOutput
from visionkit.nn.captioning.decoding import Decoded, SpecialTokens, StepFunction, decode_greedy
from visionkit.nn.captioning.rnn_cores import EncodedImages
from visionkit.task_config import Decoding
from visionkit.text.vocabulary import Vocabulary

__all__ = ["caption_cross_entropy", "generate", "special_tokens_of"]

# Words after which no caption ends; only those that a vocabulary has count.
_BAD_ENDINGS = ("a", "an", "the", "of", "in", "on", "at", "with", "and", "to", "for", "is", "are", "by")


def special_tokens_of(vocabulary: Vocabulary, *, bad_endings: bool) -> SpecialTokens:
    """Return the ids of a vocabulary that decoding treats specially; `<unk>` is never generated.

    Args:
        vocabulary: The words.
        bad_endings: Whether a sentence may end in "a", "of" and the like.
    """
    known = tuple(vocabulary.id(word) for word in _BAD_ENDINGS if word in vocabulary)
    return SpecialTokens(
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        pad=vocabulary.pad,
        banned=(vocabulary.unk,),
        bad_endings=() if bad_endings else known,
    )


def generate(
    decoder: CaptionDecoder,
    grid: Tensor,
    special_tokens: SpecialTokens,
    decoding: Decoding,
    *,
    n_best: int = 1,
) -> Decoded:
    """Return the sentences of a batch.

    Args:
        decoder: Predicts words.
        grid: `(B, L, C)`.
        special_tokens: Begin, end, padding, bad endings.
        decoding: Beams, lengths, penalties.
        n_best: Sentences an image.
    """
    encoded, state = decoder.start(grid)

    def narrow(images: Tensor) -> StepFunction:
        return partial(decoder.step, images=EncodedImages(*(part[images] for part in encoded)))

    step = partial(decoder.step, images=encoded)
    if decoding.beams == 1 and decoding.groups == 1 and not decoding.block_trigrams:
        return decode_greedy(step, state, special_tokens=special_tokens, max_length=decoding.max_length)
    return beam_search(
        step, state, special_tokens=special_tokens, beams=decoding.beams, n_best=n_best,
        max_length=decoding.max_length, length_penalty=decoding.length_penalty,
        block_trigrams=decoding.block_trigrams, groups=decoding.groups, diversity=decoding.diversity,
        narrow=narrow,
    )  # fmt: skip


def caption_cross_entropy(output: TeacherForcingOutput, *, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of the words that are not padding."""
    return F.cross_entropy(output.logits.float(), output.targets, label_smoothing=smoothing)
