"""How a caption decoder's sentences are found, and how its words are judged."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from visionkit.nn.captioning.beam_search import beam_search
from visionkit.nn.captioning.decoder import CaptionDecoder, TeacherForcingOutput
from visionkit.nn.captioning.decoding import Decoded, Marks, StepFunction, decode_greedy
from visionkit.nn.captioning.rnn_cores import Memory
from visionkit.task_config import Decoding
from visionkit.text.vocabulary import Vocabulary

__all__ = ["caption_cross_entropy", "marks_of", "say"]

# Words after which no caption ends; only those that a vocabulary has count.
_WEAK = ("a", "an", "the", "of", "in", "on", "at", "with", "and", "to", "for", "is", "are", "by")


def marks_of(vocabulary: Vocabulary, *, bad_endings: bool) -> Marks:
    """Return what a decoder must know of a vocabulary; `<unk>` is never said.

    Args:
        vocabulary: The words.
        bad_endings: Whether a sentence may end in "a", "of" and the like.
    """
    weak = () if bad_endings else tuple(vocabulary.id(word) for word in _WEAK if word in vocabulary)
    return Marks(
        bos=vocabulary.bos, eos=vocabulary.eos, pad=vocabulary.pad, banned=(vocabulary.unk,), weak=weak
    )


def say(decoder: CaptionDecoder, grid: Tensor, marks: Marks, how: Decoding, *, n_best: int = 1) -> Decoded:
    """Find the sentences of a batch.

    Args:
        decoder: Says words.
        grid: `(B, L, C)`.
        marks: Begin, end, padding, bad endings.
        how: Beams, lengths, penalties.
        n_best: Sentences an image.
    """
    memory, state = decoder.start(grid)

    def narrow(images: Tensor) -> StepFunction:
        return partial(decoder.step, memory=Memory(*(part[images] for part in memory)))

    step = partial(decoder.step, memory=memory)
    if how.beams == 1 and how.groups == 1 and not how.block_trigrams:
        return decode_greedy(step, state, marks=marks, longest=how.longest)
    return beam_search(
        step, state, marks=marks, beams=how.beams, n_best=n_best, longest=how.longest,
        length_penalty=how.length_penalty, block_trigrams=how.block_trigrams, groups=how.groups,
        diversity=how.diversity, narrow=narrow,
    )  # fmt: skip


def caption_cross_entropy(taught: TeacherForcingOutput, *, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of the words that exist."""
    return F.cross_entropy(taught.logits.float(), taught.targets, label_smoothing=smoothing)
