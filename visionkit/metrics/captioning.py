"""Caption scores over an evaluation on any number of processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.distributed import gather_rows
from visionkit.errors import InputError, expected
from visionkit.metrics.caption_scores import caption_scores
from visionkit.metrics.cider import DocumentFrequency
from visionkit.types import as_ids

__all__ = ["CaptionScores"]


class CaptionScores:
    """Collect captions on every process; score them once, by image.

    CIDEr needs the document frequencies of all references, so no running sum can give it: the captions
    themselves are gathered (as text, not as pickled objects), an image that two processes saw counts once,
    and the order of images is that of their names. So the scores do not depend on the number of processes.

    Args:
        frequency: Document frequencies for `cider_d`; None takes them from the references.
    """

    monitor = ("cider", "max")

    def __init__(self, frequency: DocumentFrequency | None = None) -> None:
        self.frequency = frequency
        self._captions: dict[str, tuple[list[str], list[list[str]]]] = {}

    def __len__(self) -> int:
        return len(self._captions)

    def update(
        self,
        ids: Sequence[Any],
        candidates: Sequence[Sequence[str]],
        references: Sequence[Sequence[Sequence[str]]],
    ) -> None:
        """Add a batch.

        Args:
            ids: One name for each image: text or a number.
            candidates: One token list for each image.
            references: One or more token lists for each image.

        Raises:
            InputError: The three differ in length.
        """
        if not len(ids) == len(candidates) == len(references):
            lengths = (len(ids), len(candidates), len(references))
            raise InputError(expected("ids, candidates and references", "equally many", lengths))
        for name, candidate, several in zip(as_ids(ids) or (), candidates, references):
            self._captions[name] = (list(candidate), [list(reference) for reference in several])

    def captions(self, device: torch.device | str = "cpu") -> dict[str, tuple[list[str], list[list[str]]]]:
        """Return candidate and references of every image of every process, ordered by name.

        Args:
            device: Where the processes exchange tensors: the task's device.
        """
        text = json.dumps(self._captions).encode()
        # One row a byte: the gather pads rows, and a length in front would be one more collective.
        letters: Tensor = torch.frombuffer(bytearray(text + b"\n"), dtype=torch.uint8).to(device)
        lines = bytes(gather_rows(letters.unsqueeze(1)).flatten().tolist()).decode().splitlines()
        merged = {name: (pair[0], pair[1]) for line in lines for name, pair in json.loads(line).items()}
        return dict(sorted(merged.items()))

    def compute(self, device: torch.device | str = "cpu") -> dict[str, float]:
        """Return `caption_scores` of all images, equal on every process.

        Args:
            device: Where the processes exchange tensors: the task's device.

        Raises:
            InputError: No process has a caption.
        """
        captions = self.captions(device)
        candidates = [candidate for candidate, _ in captions.values()]
        references = [several for _, several in captions.values()]
        return caption_scores(candidates, references, frequency=self.frequency)

    def reset(self) -> None:
        """Forget every caption."""
        self._captions.clear()
