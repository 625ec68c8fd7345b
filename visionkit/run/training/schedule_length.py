"""How long a run is: epochs, the batches in them, and when it is validated."""

from __future__ import annotations

from dataclasses import dataclass

from visionkit.data.datamodule import DataModule
from visionkit.data.samplers import TrainBatchSampler
from visionkit.run.config import RunConfig

__all__ = ["Length", "length"]


@dataclass(frozen=True)
class Length:
    """How long a run is: full epochs, validated every `validate_every` and after the last.

    Args:
        epochs: Passes over the training split.
        validate_every: Epochs between validations.
        batches: Batches of all processes together in an epoch.
        width: Images in such a batch.
    """

    epochs: int
    validate_every: int
    batches: int
    width: int

    @property
    def images(self) -> int:
        """The images of the run, over all processes."""
        return self.epochs * self.batches * self.width

    def describe(self, size: int) -> str:
        """Return the length in words; it names where full batches leave some images out of an epoch.

        Args:
            size: Images of the training split.
        """
        epochs, each = f"{self.epochs} epoch{'s' * (self.epochs != 1)}", self.batches * self.width
        if each >= size:
            return f"{epochs} = {self.images} images"
        if self.epochs == 1:
            return f"{epochs} = {each} of {size} images (full batches of {self.width})"
        return f"{epochs} = {self.images} images ({each} of {size} an epoch: full batches of {self.width})"


def length(config: RunConfig, data: DataModule, world: int) -> Length:
    """Return the length of a run over `data` in `world` processes.

    `config.images`, when set, is rounded up to full epochs, so that subsets train for the same number of
    images. Validation comes about twelve times a run, and always after the last epoch.
    """
    order = TrainBatchSampler(
        len(data.train_data), batch_size=data.batch_size, seed=data.seed, world_size=world
    )
    batches, width = len(order), order.batch_size * world
    epochs = config.epochs
    if config.images:
        epochs = max(1, -(-config.images // (batches * width)))
    every = config.validate_every or max(1, epochs // 12)
    if config.images:
        epochs = -(-epochs // every) * every
    while epochs % every:
        every -= 1
    return Length(epochs, every, batches, width)
