"""Pictures to classes, labels or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from visionkit.config import OptimConfig, TransferConfig
from visionkit.metrics import MultiLabelScores, RegressionScores, SingleLabelScores, Tally
from visionkit.nn import Normalize, label_losses, mixed_loss
from visionkit.optim import build_optimizer, describe_rate, images_per_step, total_images
from visionkit.tasks.encode import build_encoder, make_head
from visionkit.tasks.image_spec import ImageSpec, saved_origin, warn_other_size
from visionkit.tasks.labels import Target, check_labels, check_settings, mixed_share, shape_labels
from visionkit.tasks.prediction import Prediction, predictions
from visionkit.tasks.wiring import (
    check_callbacks,
    keep_buffers_local,
    move_batch,
    optim_from,
    plain_settings,
    refuse_foreign,
    share_buffers,
)
from visionkit.transfer import apply_transfer, resolve_transfer, transfer_from
from visionkit.types import Init

__all__ = ["Classifier"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig()
Scores = SingleLabelScores | MultiLabelScores | RegressionScores
_SCORES: dict[str, type[Scores]] = {
    "single": SingleLabelScores,
    "multi": MultiLabelScores,
    "regression": RegressionScores,
}


class Classifier(lightning.LightningModule):
    """Classify pictures: one class each, any number of labels, or numbers.

    A batch is a dict with `images` `(B, 3, H, W)` uint8 or float in [0, 1], `labels` and, if pictures have
    names, `ids`; or a tuple `(images, labels)`. `labels` are `(B,)` whole numbers for "single", `(B, K)` of
    0 and 1 for "multi", `(B, K)` or `(B,)` numbers for "regression". `labels_b` and `lam` mix a second
    label in.

    Logged: `train/loss`, `train/top1` and `train/top5` (single; top5 above five classes) every
    `log_every_n_steps` updates over the updates since the last such row, and over the whole epoch at its end;
    for `val` and `test`: `loss` (without smoothing and class weights), and `top1 top5 macro_f1 ece`,
    `map micro_f1 macro_f1` or `mae rmse r2`.

    Labels that cannot be right are named with their pictures before they reach the device; labels that a
    loader hands over on a GPU already are not looked at, because that would make every step wait for it.

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `dim`, giving
            `(B, dim)`, or `levels`, giving maps. Only names can be built again by `load_from_checkpoint`.
        init: "pretrained", "scratch", or a path to weights; for your own module, which of the two its
            weights are.
        num_classes: Classes, labels or outputs.
        target: What is predicted.
        head: "new" starts the last layer afresh; "pretrained" keeps that of the weights with its classes.
        transfer: What is done with the weights.
        optim: How parameters move.
        lr: Peak learning rate of the head.
        class_weights: One weight a class; for "multi" the weight of each label's positives.
        label_smoothing: Share of the target spread over all classes.
        loss: Cross-entropy, or one binary cross-entropy a class, for "single".
        dropout: Share of features dropped before the head.
        class_names: Names of the classes, for predictions.
        in_channels: Channels of the images; trained input layers are adapted.
        image_size: Side, or `(H, W)`, of the images: a network of fixed size is built for it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together; the text says which.
    """

    scores: Scores

    def __init__(
        self,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        num_classes: int,
        target: Target = "single",
        head: Literal["new", "pretrained"] = "new",
        transfer: TransferConfig = _TRANSFER,
        optim: OptimConfig = _OPTIM,
        lr: float = 1e-3,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        loss: Literal["ce", "bce"] = "ce",
        dropout: float = 0.0,
        class_names: Sequence[str] | None = None,
        in_channels: int = 3,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_settings(num_classes, target, head, class_weights, label_smoothing, loss, class_names)
        self.num_classes, self.target, self.lr = num_classes, target, lr
        self.optim = optim_from(optim)
        brought = origin["init"] if origin else init
        spec = ImageSpec(in_channels, image_size, mean, std)
        self.image_size = spec.size
        self.transfer = resolve_transfer("classification", brought, transfer_from(transfer))
        self.backbone = build_encoder(backbone, init=init, transfer=self.transfer, images=spec, origin=origin)
        self.normalize = Normalize(self.backbone.mean, self.backbone.std)
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(self.backbone, num_classes, kind=head, init=init)
        apply_transfer(self.backbone, brought, self.transfer)
        self.label_smoothing = label_smoothing
        self.loss = {"single": loss, "multi": "multi", "regression": "mse"}[target]
        self.class_names = None if class_names is None else tuple(class_names)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        scores = self.scores = _SCORES[target](num_classes)
        self.monitor = (f"val/{scores.monitor[0]}", scores.monitor[1])
        self.confusion: Tensor | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self._depth = min(5, num_classes)
        self.tally = Tally({"loss": (), "count": (), "hits": (self._depth,)})
        self.save_hyperparameters(
            plain_settings(
                {
                    **spec.settings(backbone),
                    "init": "scratch",
                    "num_classes": num_classes,
                    "target": target,
                    "head": "new",
                    "transfer": self.transfer,
                    "optim": self.optim,
                    "lr": lr,
                    "class_weights": class_weights,
                    "label_smoothing": label_smoothing,
                    "loss": loss,
                    "dropout": dropout,
                    "class_names": class_names,
                    "origin": saved_origin(self.backbone, brought),
                }
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (for regression: values) `(B, K)` for `(B, 3, H, W)` uint8 or float in [0, 1]."""
        return cast(Tensor, self.head(self.dropout(self.backbone(self.normalize(images)))))

    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, labels, _ = self._read(batch)
        labels_b, lam = mixed_share(batch, labels) if isinstance(batch, dict) else (None, 1.0)
        logits = self(images)
        loss = mixed_loss(
            logits,
            labels,
            kind=self.loss,
            smoothing=self.label_smoothing,
            weights=cast("Tensor | None", self.class_weights),
            labels_b=labels_b,
            lam=lam,
        )
        self._count(loss.detach(), logits.detach(), labels, labels_b, lam)
        self.loss_terms = {"loss": loss.detach()}
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Add a batch to the scores."""
        self._evaluate(batch)

    def test_step(self, batch: Any, batch_index: int) -> None:
        """Add a batch to the scores."""
        self._evaluate(batch)

    def _evaluate(self, batch: Any) -> None:
        if _empty(batch):
            return
        images, labels, _ = self._read(batch)
        logits = self(images)
        self.scores.update(logits, labels, label_losses(logits, labels, kind=self.loss))

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        epoch = self.tally.close_epoch()
        if epoch["count"]:
            self.log_dict(self._means(epoch), on_step=False, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test split."""
        self._log_scores("test")

    def predict_step(self, batch: Any, batch_index: int = 0) -> list[Prediction]:
        """Return one typed prediction a picture, on the host.

        Args:
            batch: Pictures `(B, 3, H, W)`, or a batch as in training, with or without labels.
            batch_index: Not used.
        """
        if _empty(batch):
            return []
        images, ids = _pictures(batch)
        warn_other_size(self, images)
        was = self.training
        with torch.inference_mode():
            logits = self.eval()(images).float()
        self.train(was)
        return predictions(logits.cpu(), self.target, names=self.class_names, ids=ids)

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
        keep_buffers_local(self)

    def on_fit_start(self) -> None:
        """Refuse settings without their callback; begin with equal buffers."""
        check_callbacks(self.trainer, self.optim, self.transfer)
        share_buffers(self)

    def on_validation_start(self) -> None:
        """Evaluate the same running statistics on every process."""
        share_buffers(self)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Look at the labels while they are still on the host."""
        if self.device.type != "cpu" and not _empty(batch):
            self._read(batch)
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch's tensors."""
        return move_batch(batch, device)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Classifier:
        """Build the task of a checkpoint and fill it; nothing is fetched, and no code in the file is run.

        Args:
            checkpoint_path: A file on this machine.
            map_location: Where the tensors go.
            hparams_file: Not needed: a checkpoint holds its settings.
            strict: Whether every key must fit.
            weights_only: Stays true.
            kwargs: Settings to use in place of the checkpoint's, such as `backbone=` for your own module.

        Raises:
            InputError: An address was given, or the backbone is your own module and was not passed.
        """
        refuse_foreign(checkpoint_path, weights_only, hparams_file)
        loaded = super().load_from_checkpoint(
            checkpoint_path, map_location, None, strict, weights_only=True, **kwargs
        )
        return loaded

    def _read(self, batch: Any) -> tuple[Tensor, Tensor, Sequence[str] | None]:
        images, ids = _pictures(batch)
        labels = batch["labels"] if isinstance(batch, dict) else batch[1]
        labels = shape_labels(labels, self.target, self.num_classes)
        if labels.device.type == "cpu":
            check_labels(labels, self.target, self.num_classes, ids)
        return images, labels, ids

    @torch.no_grad()
    def _count(
        self, loss: Tensor, logits: Tensor, labels: Tensor, labels_b: Tensor | None, lam: Tensor | float
    ) -> None:
        self.tally.add(loss=loss * len(labels), count=len(labels))
        if self.target == "single":
            best = logits.topk(self._depth, dim=1).indices
            right = best == labels[:, None]  # (B, 5)
            if labels_b is not None:
                share = lam[:, None] if isinstance(lam, Tensor) and lam.ndim else lam
                right = share * right + (1 - share) * (best == labels_b[:, None])
            self.tally.add(hits=right.sum(0))
        trainer: Any = self._trainer
        if trainer is None or not trainer.log_every_n_steps or trainer.is_last_batch:
            return
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            self.log_dict(self._means(self.tally.close_window()), on_step=True, on_epoch=False)

    def _means(self, totals: dict[str, Tensor]) -> dict[str, float]:
        count, hits = totals["count"].item(), totals["hits"]
        sums = {"loss": totals["loss"], "top1": hits[0], "top5": hits.sum()}
        names = ["loss", "top1", "top5"] if self.target == "single" else ["loss"]
        names = names[:2] if self.num_classes <= 5 else names
        return {f"train/{name}": sums[name].item() / count for name in names}

    def _log_scores(self, split: str) -> None:
        values = self.scores.compute()
        self.confusion = self.scores.confusion
        self.log_dict({f"{split}/{name}": value for name, value in values.items()}, sync_dist=False)


def _pictures(batch: Any) -> tuple[Tensor, Sequence[str] | None]:
    if isinstance(batch, dict):
        return batch["images"], batch.get("ids")
    return (batch, None) if isinstance(batch, Tensor) else (batch[0], None)


def _empty(batch: Any) -> bool:
    if isinstance(batch, dict) and "ids" in batch:
        return not batch["ids"]
    return len(_pictures(batch)[0]) == 0
