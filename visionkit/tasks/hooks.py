"""The mixin of all tasks: their Lightning hooks. The arithmetic of a task is in its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Self

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MetricCollection

from visionkit import __version__
from visionkit.compat import ignore_buffers_in_ddp, trainer_of
from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.metrics import RunningSums
from visionkit.nn import Normalize
from visionkit.optim import build_optimizer, describe_rate, images_per_step, total_images
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import broadcast_buffers, min_batch, probe_one_image
from visionkit.tasks.batch_parts import is_empty, move_batch, named_batch, read_parts
from visionkit.tasks.extra_metrics import ExtraMetrics, Metrics
from visionkit.tasks.hub import HubMixin
from visionkit.tasks.image_inputs import check_images, image_stack
from visionkit.tasks.image_rows import ImageRows
from visionkit.tasks.saved_settings import plain_settings, refuse_other_task, refuse_unsafe, task_name

__all__ = ["TaskHooks"]

_NOT_SAVED = ("self", "__class__", "metrics")  # arguments that no checkpoint holds


class TaskHooks(HubMixin, lightning.LightningModule):
    """The Lightning hooks that all tasks share.

    Multiple loaders may be evaluated at once. Each has its own running scores, exact on any number of
    processes, and its names end in Lightning's `/dataloader_idx_N`; the monitored name is the first loader's
    too, so that checkpoints and early stopping find it.

    A task has `training_step`, `predict_step` and the methods that are declared here: `_evaluate(batch)` adds
    a batch to the scores, `_read(batch)` takes a batch apart and refuses what cannot be right while it is on
    the host, and `_make_scores()` returns new running scores by the names of `scored`. `_compute_scores()`
    returns the values of an evaluation, by name without its split, and resets the scores: those of `scores`,
    unless a task has others.

    Attributes:
        truth: Name of the targets in a batch ("labels", "masks", "targets", "tokens").
        scored: Names of the attributes that hold an evaluation's running scores.
        monitor: Logged name by which weights are chosen, and "min" or "max".
        train_sums: Sums over training images, with at least "loss" and "count".
        loss_terms: The loss of the last training step and its terms, detached.
        extra: Metrics of the user's own.
        save_image_rows: Whether an evaluation leaves what each image added in `image_rows`.
        image_rows: Columns of the last evaluation (`ImageRows`) of the first loader, the same everywhere.
        init_note: What was taken from the weights file that the task begins from, in one sentence.
    """

    truth: ClassVar[str]
    scored: ClassVar[tuple[str, ...]]
    monitor: tuple[str, str]
    backbone: Any
    scores: Any
    normalize: Normalize
    optim: OptimConfig
    transfer: TransferConfig
    lr: float
    train_sums: RunningSums
    loss_terms: dict[str, Tensor]
    extra = ExtraMetrics(None, taken=())
    model_facts: dict[str, Any]
    init_note: str = ""
    save_image_rows: bool = False
    image_rows: Mapping[str, Any] = MappingProxyType({})
    _rows: ImageRows
    _evaluate: Callable[[Any], Any]
    _read: Callable[[Any], Any]
    _make_scores: Callable[[], dict[str, Any]]
    _loader: int = 0
    _probed: bool = True

    def validation_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Add a batch to the scores of its loader.

        Returns:
            `preds`: what was scored, in the form that the task's metrics take, one an image; None of an empty
            batch. Callbacks receive it as `outputs`, so that nothing has to be predicted twice.
        """
        self._use_loader(dataloader_idx)
        return {"preds": self._evaluate(batch)}

    def test_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Add a batch to the scores of its loader; return what `validation_step` does."""
        self._use_loader(dataloader_idx)
        return {"preds": self._evaluate(batch)}

    def on_validation_epoch_start(self) -> None:
        """Begin new scores for every loader."""
        self.__dict__["_other_scores"] = {}
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
        """Clip by `optim.clip_norm`, unless the Trainer has a value of its own."""
        value = gradient_clip_val or self.optim.clip_norm
        self.clip_gradients(optimizer, value, gradient_clip_algorithm)

    def setup(self, stage: str) -> None:
        """Keep running statistics out of the processes' messages."""
        ignore_buffers_in_ddp(self)  # `broadcast_buffers` keeps them equal where it matters

    def on_fit_start(self) -> None:
        """Refuse settings without their callback; begin with equal buffers."""
        check_callbacks(self.trainer, self.optim, self.transfer)
        broadcast_buffers(self)
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
        if min_batch(self.trainer, len(images)) == 1:
            probe_one_image(self, lambda: self._probe(images[:1]), self.trainer)

    def on_validation_start(self) -> None:
        """Evaluate the same running statistics on every process."""
        broadcast_buffers(self)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch."""
        sums = self.train_sums.close_epoch()
        if sums["count"]:
            self.log_dict(self._training_means(sums), on_step=False, on_epoch=True)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Give the fields of a batch their names, and check it while it is still on the host."""
        batch = named_batch(batch, self.truth)
        if self.device.type != "cpu" and not is_empty(batch):
            trainer = trainer_of(self)
            predicts = trainer is not None and trainer.predicting
            images, _, ids = read_parts(batch, self.truth, needed=not predicts)
            check_images(images, ids)
            if not predicts:
                self._read(batch)
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch's tensors."""
        return move_batch(batch, device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the task in its checkpoint, with the facts that prediction and evaluation need."""
        record = checkpoint.setdefault("visionkit", {})
        record["task"] = task_name(type(self))
        record["facts"] = plain_settings({**self._known_facts(), "task": record["task"]})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the facts of the checkpoint."""
        self.model_facts = dict(checkpoint.get("visionkit", {}).get("facts", {}))

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
        refuse_unsafe(checkpoint_path, weights_only, hparams_file)
        refuse_other_task(checkpoint_path, cls)
        kwargs |= {"map_location": map_location, "strict": strict, "weights_only": True}
        return super().load_from_checkpoint(checkpoint_path, **kwargs)

    @property
    def metrics(self) -> MetricCollection | None:
        """The metrics that were given beside the task's own, as the last evaluation left them."""
        return self.extra.collection

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return int(self.normalize.mean.shape[0])

    def _take_metrics(self, metrics: Metrics | None, class_names: Sequence[str] | None = None) -> None:
        """Keep the metrics that are evaluated beside the task's own.

        Raises:
            InputError: Something is no metric, or a name is one that the task logs itself.
        """
        if metrics is None:
            return
        own = [name for score in self._make_scores().values() for name in getattr(score, "names", ())]
        self.extra = ExtraMetrics(metrics, taken=("loss", *own), class_names=class_names)

    def _take_backbone(self, builder: BackboneBuilder, backbone: Any) -> None:
        """Keep a backbone that a builder made, with the transfer settings that it was built by."""
        self.transfer, self.backbone = builder.transfer, backbone
        self.normalize = Normalize(backbone.mean, backbone.std)

    def _known_facts(self) -> dict[str, Any]:
        # A task without a run around it has none yet: what it knows itself.
        weights = getattr(self.backbone, "weights", None)
        known = {} if weights is None else weights.as_dict()
        return {"version": __version__, "weights": dict(known), **self.__dict__.get("model_facts", {})}

    def _save_settings(self, arguments: Mapping[str, Any], **changed: Any) -> None:
        """Keep what a checkpoint needs to build this task again.

        Args:
            arguments: The `locals()` at the beginning of `__init__`.
            changed: Arguments whose values differ from those given.
        """
        given = {name: arguments[name] for name in arguments if name not in _NOT_SAVED}
        self.save_hyperparameters(plain_settings({**given, **changed}))

    def _as_batch(self, images: Any) -> Tensor:
        """Return images of one size as `(B, C, H, W)` on this module's device, a batch as it comes."""
        if isinstance(images, Tensor) and images.ndim == 4:
            return images
        return image_stack(images, channels=self.channels, device=self.device)

    def _sum_loss(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of a training step's terms, and keep both in `loss_terms`."""
        loss = torch.stack(list(terms.values())).sum()
        self.loss_terms = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        return loss

    @torch.no_grad()
    def _log_training(self, **sums: Tensor | float) -> None:
        """Add to the sums of training, and log their means after every `log_every_n_steps` updates."""
        self.train_sums.add(**sums)
        trainer: Any = trainer_of(self)
        if trainer is None or not trainer.log_every_n_steps or trainer.is_last_batch:
            return
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            means = self._training_means(self.train_sums.close_window())
            self.log_dict(means, on_step=True, on_epoch=False)

    def _training_means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Return what is logged of the sums of training."""
        return {"train/loss": (sums["loss"] / sums["count"]).item()}

    @contextmanager
    def _predicting(self) -> Iterator[None]:
        """Evaluate inside the block, without gradients; the mode of before comes back after it."""
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.train(training)

    def _use_loader(self, index: int) -> None:
        """Switch to the running scores of a loader; the first time, new ones."""
        if index == self._loader:
            return
        others = self.__dict__.setdefault("_other_scores", {})
        others[self._loader] = {name: getattr(self, name) for name in (*self.scored, "extra", "_rows")}
        scores = others.pop(index, None) or self._fresh_scores()
        for name, value in scores.items():
            setattr(self, name, value)
        self._loader = index

    def _log_loaders(self, split: str) -> None:
        trainer: Any = trainer_of(self)
        counts = []
        if trainer is not None:
            counts = trainer.num_test_batches if split == "test" else trainer.num_val_batches
            counts = trainer.num_sanity_val_batches if trainer.sanity_checking else counts
        # Every process takes part for every loader, the first loader last: its scores stay in the attributes.
        multiple = isinstance(counts, list) and len(counts) > 1
        for index in reversed(range(len(counts) if multiple else 1)):
            self._use_loader(index)
            scores = self._compute_scores()
            if self.save_image_rows and not index:
                self.image_rows = self._gather_rows()
            scores |= self.extra.compute(scores)
            values = {f"{split}/{name}": value for name, value in scores.items()}
            if multiple:
                monitored = {
                    name: value for name, value in values.items() if name == self.monitor[0] and not index
                }
                values = {
                    f"{name}/dataloader_idx_{index}": value for name, value in values.items()
                } | monitored
            if values:
                self.log_dict(values, sync_dist=False, add_dataloader_idx=False)

    def _gather_rows(self) -> Mapping[str, Any]:
        """Return what each image added to the scores that were just computed, over all processes."""
        return self._rows.gather()

    def _fresh_scores(self) -> dict[str, Any]:
        """Return new running scores by the names of `scored`, on this module's device."""
        # Tensors made in inference mode could not be added to outside of it.
        with torch.inference_mode(False):
            made = self._make_scores()
            for value in made.values():
                if isinstance(value, nn.Module):
                    value.to(self.device)
            made["extra"] = self.extra.fresh(self.device)
            made["_rows"] = ImageRows()
        return made

    def _compute_scores(self) -> dict[str, float]:
        values: dict[str, float] = self.scores.compute_floats()
        self.scores.reset()
        return values

    def _probe(self, images: Any) -> Tensor | Any:
        """Run the layers that may hold norms on one image."""
        return self.backbone(
            self.normalize(torch.stack(list(images)) if isinstance(images, list) else images)
        )


def check_callbacks(trainer: lightning.Trainer, optim: OptimConfig, transfer: TransferConfig) -> None:
    """Refuse settings that only a callback can carry out when the Trainer does not have it.

    Raises:
        InputError: A staged unfreezing without `Unfreeze`, or a moving average without `EMA`.
    """
    # The callbacks are in a later layer: each names the setting that it carries out.
    present = {getattr(callback, "carries_out", None) for callback in trainer.callbacks}  # type: ignore[attr-defined]
    needs = {
        "transfer.unfreeze_at": (bool(transfer.unfreeze_at), "Unfreeze", "unfreeze.Unfreeze()"),
        "optim.ema": (optim.ema > 0, "EMA", f"ema.EMA({optim.ema})"),
    }
    for setting, (needed, name, make) in needs.items():
        if needed and setting not in present:
            fix = f"Give it visionkit.run.callbacks.{make}."
            raise InputError(f"{setting} is set, but the Trainer has no {name} callback. {fix}")
