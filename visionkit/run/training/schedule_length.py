"""The length of a run: epochs, batches an epoch, and epochs between validations."""

from __future__ import annotations

from dataclasses import dataclass

from visionkit.data.datamodule import DataModule
from visionkit.data.samplers import TrainBatchSampler
from visionkit.run.config import RunConfig

__all__ = ["ScheduleLength", "length_of", "schedule_length"]


@dataclass(frozen=True)
class ScheduleLength:
    """The length of a run in full epochs; it is validated every `validate_every` and after the last.

    Args:
        epochs: Passes over the training split.
        validate_every: Epochs between validations.
        batches: Batches of an epoch, each over all processes.
        images_per_batch: Images in such a batch.
    """

    epochs: int
    validate_every: int
    batches: int
    images_per_batch: int

    @property
    def images(self) -> int:
        """The images of the run, over all processes."""
        return self.epochs * self.batches * self.images_per_batch

    def describe(self, size: int) -> str:
        """Return the length in words, with the images of an epoch if full batches leave some out.

        Args:
            size: Images of the training split.
        """
        epochs, each = f"{self.epochs} epoch{'s' * (self.epochs != 1)}", self.batches * self.images_per_batch
        if each >= size:
            return f"{epochs} = {self.images} images"
        batches = f"full batches of {self.images_per_batch}"
        if self.epochs == 1:
            return f"{epochs} = {each} of {size} images ({batches})"
        return f"{epochs} = {self.images} images ({each} of {size} an epoch: {batches})"


def schedule_length(config: RunConfig, data: DataModule, world: int) -> ScheduleLength:
    """Return the length of a run over `data` in `world` processes.

    `config.images`, when set, is rounded up to full epochs, so that subsets train for the same number of
    images. `config.schedules`, of one run, multiplies that length: 2x is exactly twice 1x. A run is validated
    about twelve times, and always after the last epoch.
    """
    return length_of(config, len(data.train_data), batch_size=data.batch_size, world=world)


def length_of(config: RunConfig, size: int, *, batch_size: int, world: int) -> ScheduleLength:
    """Return the length of a run over `size` images, see `schedule_length`."""
    order = TrainBatchSampler(size, batch_size=batch_size, seed=0, world_size=world)
    batches, images_per_batch = len(order), order.batch_size * world
    epochs = config.epochs
    if config.images:
        epochs = max(1, -(-config.images // (batches * images_per_batch)))
        every = config.validate_every or max(1, epochs // 12)
        epochs = -(-epochs // every) * every
    epochs *= config.schedules[0]
    every = config.validate_every or max(1, epochs // 12)
    while epochs % every:
        every -= 1
    return ScheduleLength(epochs, every, batches, images_per_batch)
