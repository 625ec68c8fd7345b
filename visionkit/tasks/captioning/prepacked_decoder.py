"""A decoder's weights packed for as long as an evaluation lasts."""

from __future__ import annotations

from typing import Any

from visionkit.nn.captioning.decoder import CaptionDecoder
from visionkit.nn.captioning.prepacked import packed
from visionkit.task_config import Decoding
from visionkit.tasks.hooks import TaskHooks

__all__ = ["Speaker"]


class Speaker(TaskHooks):
    """A task whose `decoder` searches for sentences, as `decoding` says.

    While the Trainer validates, tests or predicts no weight changes, so they are packed once, at the first
    search (`visionkit.nn.captioning.prepacked`). Everywhere else the decoder speaks as it is.
    """

    decoder: CaptionDecoder
    decoding: Decoding
    _twin: CaptionDecoder | None = None

    def speaker(self, images: int) -> CaptionDecoder:
        """Return what is to search a batch of `images`: the decoder, or its packed twin."""
        trainer: Any = self._trainer
        if trainer is None or not (trainer.evaluating or trainer.sanity_checking or trainer.predicting):
            return self.decoder
        if self._twin is None:
            rows = images * self.decoding.beams * self.decoding.groups
            # Not a submodule: what Lightning saves, moves and counts has no twin.
            self.__dict__["_twin"] = packed(self.decoder, rows=rows)
        return self._twin or self.decoder

    def on_validation_start(self) -> None:
        """Forget weights of before."""
        super().on_validation_start()
        self.__dict__.pop("_twin", None)

    def on_validation_end(self) -> None:
        """Let the packed weights go."""
        self.__dict__.pop("_twin", None)

    def on_test_start(self) -> None:
        """Forget weights of before."""
        self.__dict__.pop("_twin", None)

    on_predict_start = on_test_start
    on_test_end = on_predict_end = on_validation_end
