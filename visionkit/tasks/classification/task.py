"""Images to classes, labels or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError, expected
from visionkit.metrics import MultiLabelScores, RegressionScores, RunningSums, SingleLabelScores
from visionkit.nn import Normalize, label_losses, mixed_loss
from visionkit.nn.standardize import Standardize
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_parts
from visionkit.tasks.classification.encoder import build_encoder, make_head
from visionkit.tasks.classification.prediction import Prediction, predictions
from visionkit.tasks.classification.standard_units import fit_standard_units
from visionkit.tasks.classification.targets import (
    Target,
    check_labels,
    check_settings,
    mixed_share,
    shape_labels,
)
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.image_inputs import image_stack
from visionkit.tasks.image_spec import ImageSpec, saved_origin, warn_other_size
from visionkit.tasks.wiring import optim_from, plain_settings
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


class Classifier(TaskHooks):
    """Classify images: one class each, any number of labels, or numbers.

    A batch is a dict with `images` `(B, 3, H, W)` uint8 or float in [0, 1], `labels` and, if images have
    names, `ids` of any kind; or a pair `(images, labels)`. `labels` are `(B,)` whole numbers for "single",
    `(B, K)` of 0 and 1 for "multi", `(B, K)` or `(B,)` numbers for "regression". `labels_b` and `lam` mix a
    second label in.

    Logged: `train/loss`, `train/top1` and `train/top5` (single; top5 above five classes) every
    `log_every_n_steps` updates over the updates since the last such row, and over the whole epoch at its end;
    for `val` and `test`: `loss` (without smoothing and class weights), and `top1 top5 macro_f1 ece`,
    `map micro_f1 macro_f1` or `mae rmse r2`.

    Numbers are learnt in standard units: less the mean of the training targets, over their deviation.
    Both are found when a fit starts, unless they are given, and travel in the checkpoint; losses are in those
    units, scores and predictions in yours.

    Labels that cannot be right are named with their images before they reach the device; labels that a
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
        target_mean: For "regression": mean of the training targets, one number or one an output.
        target_std: For "regression": their standard deviation.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together; the text says which.
    """

    scores: Scores
    truth = "labels"
    scored = ("scores",)

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
        target_mean: float | Sequence[float] | None = None,
        target_std: float | Sequence[float] | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        class_weights = check_settings(
            num_classes, target, head, class_weights, label_smoothing, loss, class_names, lr, dropout
        )
        if target != "regression" and not (target_mean is None and target_std is None):
            raise InputError("target_mean and target_std are for target 'regression'. Leave them out.")
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
        regresses = target == "regression"
        self.standardize = Standardize(num_classes, mean=target_mean, std=target_std) if regresses else None
        scores = self.scores = self._make_scores()["scores"]
        self.monitor = (f"val/{scores.monitor[0]}", scores.monitor[1])
        self.confusion: Tensor | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self._depth = min(5, num_classes)
        self.tally = RunningSums({"loss": (), "count": (), "hits": (self._depth,)})
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
                    "target_mean": target_mean,
                    "target_std": target_std,
                    "origin": saved_origin(self.backbone, brought),
                }
            )
        )

    def forward(self, images: Any, *, standard_units: bool = False) -> Tensor:
        """Return logits (for regression: values) `(B, K)`.

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
            standard_units: For regression: leave the values as they are learnt, and do not give them back in
                the units of the targets.
        """
        if not isinstance(images, Tensor) or images.ndim != 4:
            images = image_stack(images, channels=self.channels, device=self.device)
        outputs = cast(Tensor, self.head(self.dropout(self.backbone(self.normalize(images)))))
        return outputs if self.standardize is None or standard_units else self.standardize.restore(outputs)

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, labels, _ = self._read(batch)
        labels_b, lam = mixed_share(batch, labels) if isinstance(batch, Mapping) else (None, 1.0)
        labels_b = None if labels_b is None else shape_labels(labels_b, self.target, self.num_classes)
        logits = self(images, standard_units=True)
        loss = mixed_loss(
            logits,
            self._units(labels),
            kind=self.loss,
            smoothing=self.label_smoothing,
            weights=cast("Tensor | None", self.class_weights),
            labels_b=None if labels_b is None else self._units(labels_b),
            lam=lam,
        )
        self._count(loss.detach(), logits.detach(), labels, labels_b, lam)
        self.loss_terms = {"loss": loss.detach()}
        return {"loss": loss}

    def _evaluate(self, batch: Any) -> None:
        if is_empty(batch):
            return
        images, labels, _ = self._read(batch)
        logits = self(images, standard_units=True)
        losses = label_losses(logits, self._units(labels), kind=self.loss)
        values = logits if self.standardize is None else self.standardize.restore(logits)
        self.scores.update(values, labels, losses)

    def _units(self, labels: Tensor) -> Tensor:
        """Return labels as they are learnt."""
        return labels if self.standardize is None else cast(Tensor, self.standardize(labels))

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        epoch = self.tally.close_epoch()
        if epoch["count"]:
            self.log_dict(self._means(epoch), on_step=False, on_epoch=True)

    def predict_step(self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0) -> list[Prediction]:
        """Return one typed prediction an image, on the host.

        Args:
            batch: Images `(B, 3, H, W)`; one image or a list of images of one size, as tensors, numpy arrays
                or PIL images; or a batch as in training, with or without labels.
            batch_index: Not used.
            dataloader_idx: Not used.

        Raises:
            InputError: The images differ in size, or their pixels are not what the task takes.
        """
        if is_empty(batch):
            return []
        images, _, ids = read_parts(batch, self.truth, needed=False)
        images = image_stack(images, channels=self.channels, device=self.device)
        warn_other_size(self, images)
        was = self.training
        with torch.inference_mode():
            values = self.eval()(images).float()
        self.train(was)
        return predictions(values.cpu(), self.target, names=self.class_names, ids=ids)

    def on_fit_start(self) -> None:
        """Refuse settings without their callback; find the units of numbers; begin with equal buffers."""
        if self.standardize is not None:
            fit_standard_units(self.standardize, self.trainer)
        super().on_fit_start()

    def _read(self, batch: Any) -> tuple[Any, Tensor, Sequence[str] | None]:
        images, labels, ids = read_parts(batch, self.truth)
        labels = shape_labels(labels, self.target, self.num_classes)
        if len(labels) != len(images):
            raise InputError(expected("labels", f"one for each of {len(images)} images", len(labels)))
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

    def _make_scores(self) -> dict[str, Any]:
        return {"scores": _SCORES[self.target](self.num_classes)}

    def _scores_now(self) -> dict[str, float]:
        values = self.scores.compute_floats()
        self.confusion = self.scores.confusion
        self.scores.reset()
        return values
