"""Self-critical training: sentences are drawn, rewarded with CIDEr-D, and the better ones made likelier."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.errors import InputError
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.nn.captioning.decoder import CaptionDecoder
from visionkit.nn.captioning.decoding import Decoded, SpecialTokens, decode_samples
from visionkit.rng import keyed_seed
from visionkit.task_config import Decoding, SelfCritical
from visionkit.tasks.captioning.generate import generate, special_tokens_of
from visionkit.text.tokenize import tokenize
from visionkit.text.vocabulary import Vocabulary

__all__ = [
    "SelfCritic",
    "SelfCriticLoss",
    "keyed_uniforms",
    "make_critic",
    "require_critic",
    "training_frequency",
]

_END = "<eos>"
_MAX_CACHED = 500_000  # references whose words are remembered


class SelfCriticLoss(NamedTuple):
    """The loss of a step of self-critical training, and its rewards."""

    loss: Tensor  # ()
    reward: float  # mean CIDEr-D of the drawn sentences
    baseline: float  # mean of what was taken off the rewards


class SelfCritic:
    """Rewards sentences against references.

    The end of a sentence is a word like others, in candidates, references and document frequencies: without
    it sentences that break off ("a dog on a") are rewarded.

    Args:
        vocabulary: What token ids stand for.
        frequency: Document frequencies of the training captions (`training_frequency`).
        settings: Baseline, number of draws.
        special_tokens: Begin, end, padding.
        max_length: Maximum number of words of a sentence.

    Rennie et al., "Self-critical Sequence Training for Image Captioning", CVPR 2017.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        frequency: DocumentFrequency,
        settings: SelfCritical,
        *,
        special_tokens: SpecialTokens,
        max_length: int,
    ) -> None:
        self.vocabulary, self.settings, self.special_tokens, self.max_length = (
            vocabulary,
            settings,
            special_tokens,
            max_length,
        )
        self.cider = CiderD(frequency)
        self._reference_words: dict[str, list[str]] = {}

    def loss(
        self,
        decoder: CaptionDecoder,
        grid: Tensor,
        references: Sequence[Sequence[str]],
        *,
        update: int,
        ids: Sequence[str],
    ) -> SelfCriticLoss:
        """Return the loss of a batch: minus the mean over draws of advantage times log-probability.

        Every draw counts alike, whatever its length, so the mean over processes is that of one process.
        Dropout is off both when sentences are drawn and when they are learnt from.

        Args:
            decoder: Generates sentences.
            grid: `(B, L, C)`; gradients flow into it.
            references: Sentences of each image.
            update: The update's number, a key of the draws.
            ids: Names of the images, a key of the draws.
        """
        training = decoder.training
        decoder.eval()
        samples = self.settings.samples
        with torch.no_grad():
            encoded, state = decoder.start(grid.detach())
            numbers = keyed_uniforms(self.settings.seed, update, ids, samples, self.max_length)
            drawn = decode_samples(
                lambda words, now: decoder.step(words, now, encoded),
                state,
                special_tokens=self.special_tokens,
                count=samples,
                max_length=self.max_length,
                temperature=self.settings.temperature,
                uniforms=numbers,
            )
            rewards = torch.tensor(self.rewards(drawn, references), dtype=torch.float64)  # (B, K)
            baseline = self._baseline(decoder, grid.detach(), references, rewards)
        advantage = (rewards - baseline).to(grid.device, torch.float32).flatten()  # (B * K,)
        tokens = drawn.tokens.flatten(0, 1)
        begin = tokens.new_full((len(tokens), 1), self.special_tokens.bos)
        output = decoder(grid, torch.cat((begin, tokens), dim=1))
        decoder.train(training)
        chosen = -F.cross_entropy(self._masked(output.logits), output.targets, reduction="none")
        weights = advantage.unsqueeze(1).expand(-1, tokens.shape[1])[output.valid]
        loss = -(weights * chosen).sum() / len(tokens)
        return SelfCriticLoss(loss, float(rewards.mean()), float(baseline.mean()))

    def rewards(self, decoded: Decoded, references: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the CIDEr-D of every sentence `(B, K)` against its image's references."""
        images, count, _ = decoded.tokens.shape
        rows = decoded.tokens.flatten(0, 1).tolist()
        candidates = [self._words(row) for row in rows]
        words = [[self._reference(sentence) for sentence in sentences] for sentences in references]
        scores = self.cider(candidates, [words[row // count] for row in range(len(rows))])
        return [scores[row * count : (row + 1) * count] for row in range(images)]

    def _baseline(
        self, decoder: CaptionDecoder, grid: Tensor, references: Sequence[Sequence[str]], rewards: Tensor
    ) -> Tensor:
        """Return what is taken off the reward of every draw, `(B, K)` or `(B, 1)`."""
        if self.settings.baseline == "mean":
            others = rewards.shape[1] - 1
            return (rewards.sum(dim=1, keepdim=True) - rewards) / others
        beams = 1 if self.settings.baseline == "greedy" else 3
        best = generate(decoder, grid, self.special_tokens, Decoding(beams=beams, max_length=self.max_length))
        return torch.tensor(self.rewards(best, references), dtype=torch.float64)

    def _masked(self, logits: Tensor) -> Tensor:
        """Return the logits that were drawn from: what is never generated is out, the temperature is in."""
        out = logits.float() / self.settings.temperature
        never = torch.tensor(self.special_tokens.never_generated, device=out.device)
        return out.index_fill(1, never, float("-inf"))

    def _words(self, row: list[int]) -> list[str]:
        words = self.vocabulary.decode(row)
        return [*words, _END] if self.special_tokens.eos in row else words

    def _reference(self, sentence: str) -> list[str]:
        known = self._reference_words.get(sentence)
        if known is None:
            if len(self._reference_words) >= _MAX_CACHED:
                self._reference_words.clear()
            known = self._reference_words[sentence] = [*tokenize(sentence), _END]
        return known


def make_critic(
    vocabulary: Vocabulary,
    frequency: DocumentFrequency | None,
    settings: SelfCritical | None,
    *,
    max_length: int,
) -> SelfCritic | None:
    """Return a task's critic, or None where it has no settings or no document frequencies."""
    if settings is None or frequency is None:
        return None
    # Bad endings are for the reward to judge: draws and probabilities are then of one distribution.
    special_tokens = special_tokens_of(vocabulary, bad_endings=True)
    return SelfCritic(vocabulary, frequency, settings, special_tokens=special_tokens, max_length=max_length)


def require_critic(critic: SelfCritic | None) -> SelfCritic:
    """Return a critic that is needed.

    Raises:
        InputError: There is none, because the task was built without document frequencies.
    """
    if critic is None:
        raise InputError(
            "Self-critical training needs the document frequencies of the training captions. Build the task "
            "with frequency=visionkit.tasks.captioning.self_critical.training_frequency(captions)."
        )
    return critic


def training_frequency(captions: Sequence[Sequence[str]]) -> DocumentFrequency:
    """Count the document frequencies of training captions, the ends of sentences included.

    Runs of words without an end have the counts that they have without it, so the same table serves CIDEr-D
    of captions whose ends are not counted.

    Args:
        captions: Every caption of each training image, and of no others.
    """
    return DocumentFrequency.count([[[*tokenize(text), _END] for text in texts] for texts in captions])


def keyed_uniforms(seed: int, update: int, ids: Sequence[str], samples: int, max_length: int) -> Tensor:
    """Return `(B * samples, max_length)` numbers in [0, 1) that are a function of (seed, update, image).

    Args:
        seed: Of all draws.
        update: The update's number.
        ids: Names of the images.
        samples: Sentences an image.
        max_length: Words a sentence.
    """
    rows = []
    for name in ids:
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1
        rng = np.random.default_rng(keyed_seed(seed, update, key))
        rows.append(rng.random((samples, max_length)))
    return torch.from_numpy(np.concatenate(rows))
