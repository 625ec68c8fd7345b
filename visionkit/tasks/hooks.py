"""What Lightning asks of every task, the same for all; the arithmetic of a task stands in its own file."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from visionkit.compat import ignore_buffers_in_ddp
from visionkit.config import OptimConfig, TransferConfig
from visionkit.nn import Normalize
from visionkit.optim import build_optimizer, describe_rate, images_per_step, total_images
from visionkit.tasks.batch_norm import least_batch, probe_one_image
from visionkit.tasks.batch_parts import is_empty, named_batch, read_parts
from visionkit.tasks.image_inputs import check_images
from visionkit.tasks.wiring import (
    check_callbacks,
    move_batch,
    refuse_foreign,
    refuse_other_task,
    share_buffers,
    task_name,
)

__all__ = ["TaskHooks"]


class TaskHooks(lightning.LightningModule):
    """A task under a Trainer: what happens around its steps.

    Several loaders may be evaluated at once. Each has running scores of its own, exact on any number of
    processes, and its names end in Lightning's `/dataloader_idx_N`; the monitored name is the first loader's
    too, so that checkpoints and early stopping find it.

    Attributes:
        truth: Name of what a batch tells of its images ("labels", "masks", "targets", "tokens").
        scored: Names of the attributes that hold an evaluation's running scores.
    """

    truth: ClassVar[str]
    scored: ClassVar[tuple[str, ...]]
    monitor: tuple[str, str]
    backbone: Any
    normalize: Normalize
    optim: OptimConfig
    transfer: TransferConfig
    lr: float
    _loader: int = 0
    _probed: bool = True

    def validation_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the scores of its loader."""
        self._use_loader(dataloader_idx)
        self._evaluate(batch)

    def test_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the scores of its loader."""
        self._use_loader(dataloader_idx)
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        """Begin with no image, in every loader."""
        self.__dict__["_parked"] = {}
        self.__dict__["_loader"] = 0
        for name, fresh in self._fresh_scores().items():
            setattr(self, name, fresh)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation split."""
        self._log_loaders("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test split."""
        self._log_loaders("test")

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        batch = images_per_step(self.trainer)
        rank_zero_info(describe_rate(self.lr, self.optim, batch))
        return build_optimizer(
            self,
            self.backbone,
            self.optim,
            self.transfer,
            self.lr,
            total_images=total_images(self.trainer),
            global_batch=batch,
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by `optim.clip_norm`, unless the Trainer was told otherwise."""
        value = gradient_clip_val or self.optim.clip_norm
        self.clip_gradients(optimizer, value, gradient_clip_algorithm)

    def setup(self, stage: str) -> None:
        """Keep running statistics out of the processes' messages."""
        ignore_buffers_in_ddp(self)  # `share_buffers` keeps them equal where it matters

    def on_fit_start(self) -> None:
        """Refuse settings without their callback; begin with equal buffers."""
        check_callbacks(self.trainer, self.optim, self.transfer)
        share_buffers(self)
        self._probed = False

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Before the first update: refuse norms that the smallest batch of an epoch would stop.

        Raises:
            InputError: That batch holds one image, and a norm would see one value a channel.
        """
        if self._probed:
            return
        self._probed = True
        if is_empty(batch):
            return
        images = read_parts(batch, self.truth).images
        if least_batch(self.trainer, len(images)) == 1:
            probe_one_image(self, lambda: self._probe(images[:1]), self.trainer)

    def on_validation_start(self) -> None:
        """Evaluate the same running statistics on every process."""
        share_buffers(self)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Give the fields of a batch their names, and look at it while it is still on the host."""
        batch = named_batch(batch, self.truth)
        if self.device.type != "cpu" and not is_empty(batch):
            predicts = self._trainer is not None and self._trainer.predicting
            images, _, ids = read_parts(batch, self.truth, needed=not predicts)
            check_images(images, ids)
            if not predicts:
                self._read(batch)
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch's tensors."""
        return move_batch(batch, device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is."""
        checkpoint.setdefault("visionkit", {})["task"] = task_name(type(self))

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """Build the task of a checkpoint and fill it; nothing is fetched, and no code in the file is run.

        Args:
            checkpoint_path: A file on this machine.
            map_location: Where the tensors go.
            hparams_file: Not needed: a checkpoint holds its settings.
            strict: Whether every key must fit.
            weights_only: Stays true.
            kwargs: Settings to use in place of the checkpoint's, such as `backbone=` for your own module.

        Raises:
            InputError: An address was given, the checkpoint is another task's, or the backbone is your own
                module and was not passed.
        """
        refuse_foreign(checkpoint_path, weights_only, hparams_file)
        refuse_other_task(checkpoint_path, cls)
        kwargs |= {"map_location": map_location, "strict": strict, "weights_only": True}
        return super().load_from_checkpoint(checkpoint_path, **kwargs)

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return int(self.normalize.mean.shape[0])

    def _use_loader(self, index: int) -> None:
        """Put the running scores of a loader in place; the first time, fresh ones."""
        if index == self._loader:
            return
        parked = self.__dict__.setdefault("_parked", {})
        parked[self._loader] = {name: getattr(self, name) for name in self.scored}
        held = parked.pop(index, None) or self._fresh_scores()
        for name, value in held.items():
            setattr(self, name, value)
        self._loader = index

    def _log_loaders(self, split: str) -> None:
        trainer: Any = self._trainer
        counts = []
        if trainer is not None:
            counts = trainer.num_test_batches if split == "test" else trainer.num_val_batches
            counts = trainer.num_sanity_val_batches if trainer.sanity_checking else counts
        # Every process takes part for every loader, and the first comes last: its scores stay at hand.
        several = isinstance(counts, list) and len(counts) > 1
        for index in reversed(range(len(counts) if several else 1)):
            self._use_loader(index)
            values = {f"{split}/{name}": value for name, value in self._scores_now().items()}
            if several:
                monitored = {
                    name: value for name, value in values.items() if name == self.monitor[0] and not index
                }
                values = {
                    f"{name}/dataloader_idx_{index}": value for name, value in values.items()
                } | monitored
            if values:
                self.log_dict(values, sync_dist=False, add_dataloader_idx=False)

    def _fresh_scores(self) -> dict[str, Any]:
        """Return new running scores by the names of `scored`, on this module's device."""
        # Tensors made in inference mode could not be added to outside of it.
        with torch.inference_mode(False):
            made = self._make_scores()
            for value in made.values():
                if isinstance(value, nn.Module):
                    value.to(self.device)
        return made

    def _make_scores(self) -> dict[str, Any]:
        raise NotImplementedError

    def _scores_now(self) -> dict[str, float]:
        """Return what an evaluation gave, by name without its split, and begin anew."""
        raise NotImplementedError

    def _evaluate(self, batch: Any) -> None:
        raise NotImplementedError

    def _read(self, batch: Any) -> Any:
        """Take a batch apart and refuse what cannot be right while it lies on the host."""
        raise NotImplementedError

    def _probe(self, images: Any) -> Tensor | Any:
        """Run what norms are in on one image."""
        return self.backbone(
            self.normalize(torch.stack(list(images)) if isinstance(images, list) else images)
        )
