"""Images to classes, labels or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.metrics import MultiLabelScores, RegressionScores, RunningSums, SingleLabelScores
from visionkit.nn import label_losses, mixed_loss
from visionkit.nn.standardize import Standardize
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_images
from visionkit.tasks.classification.head import make_head
from visionkit.tasks.classification.prediction import Prediction, predictions
from visionkit.tasks.classification.standard_units import fit_standard_units
from visionkit.tasks.classification.targets import (
    Target,
    check_settings,
    hard_labels,
    metric_inputs,
    mixed_labels,
    read_labels,
    shape_labels,
)
from visionkit.tasks.extra_metrics import Metrics
from visionkit.tasks.fine_tune import has_task, take_heads
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.image_spec import warn_other_size
from visionkit.tasks.saved_settings import config_from
from visionkit.transfer import apply_transfer
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
    second label in; soft labels `(B, K)` for "single" (v2.MixUp, timm's Mixup) are learnt as they are, and
    count as their largest in scores.

    Logged: `train/loss`, `train/top1` and `train/top5` (single; top5 above five classes) every
    `log_every_n_steps` updates over the updates since the last such row, and over the full epoch at its end;
    for `val` and `test`: `loss` (without smoothing and class weights), and `top1 top5 macro_f1 ece`,
    `map micro_f1 macro_f1` or `mae rmse r2`.

    Numbers are learnt in standard units: less the mean of the training targets, over their deviation.
    Both are found when a fit starts, unless they are given, and travel in the checkpoint; losses are in those
    units, scores and predictions in yours.

    Labels that cannot be right are named with their images before they reach the device; labels that a
    loader hands over on a GPU already are not checked, because every step would wait for it.

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `dim`, giving
            `(B, dim)`, or `levels`, giving maps. Only names can be built again by `load_from_checkpoint`.
        init: "pretrained", "scratch", other pretrained weights of the backbone by name
            ("timm/resnet50.tv_in1k"), or a path to weights (a file, a run, a published folder; a trained task
            of the same classes gives its head too); for your own module, which of the two its weights are.
        num_classes: Classes, labels or outputs.
        target: What is predicted.
        head: "new" starts the last layer afresh; "pretrained" keeps that of the weights with its classes.
        transfer: Initialisation and freezing.
        optim: Optimiser settings.
        lr: Peak learning rate of the head.
        class_weights: One weight a class; for "multi" the weight of each label's positives.
        label_smoothing: Fraction of the target spread over all classes.
        loss: Cross-entropy, or one binary cross-entropy a class, for "single".
        dropout: Fraction of features dropped before the head.
        class_names: Names of the classes, for predictions.
        in_channels: Channels of the images; trained input layers are adapted.
        image_size: Side, or `(H, W)`, of the images: a network of fixed size is built for it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        backbone_options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.
        target_mean: For "regression": mean of the training targets, one number or one an output.
        target_std: For "regression": their standard deviation.
        metrics: Metrics of your own (a `torchmetrics.MetricCollection`, or metrics by name), logged as
            `val/NAME` and `test/NAME` beside the task's; they get probabilities `(B, K)` (for regression:
            values) and labels. No checkpoint holds them.
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
        backbone_options: Mapping[str, Any] | None = None,
        target_mean: float | Sequence[float] | None = None,
        target_std: float | Sequence[float] | None = None,
        metrics: Metrics | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        class_weights = check_settings(
            num_classes, target, head, class_weights, label_smoothing, loss, class_names, lr, dropout
        )
        if target != "regression" and not (target_mean is None and target_std is None):
            raise InputError("target_mean and target_std are for target 'regression'. Leave them out.")
        self.num_classes, self.target, self.lr = num_classes, target, lr
        self.optim = config_from(OptimConfig, optim, name="optim")
        builder = BackboneBuilder.of("classification", arguments)
        self.image_size = builder.images.size
        self._take_backbone(builder, builder.encoder())
        self.dropout = nn.Dropout(dropout)
        kind = "new" if head == "pretrained" and has_task(init) else head
        self.head = make_head(self.backbone, num_classes, kind=kind, init=init)
        apply_transfer(self.backbone, builder.init, self.transfer)
        self.label_smoothing = label_smoothing
        self.loss = {"single": loss, "multi": "multi", "regression": "mse"}[target]
        self.class_names = None if class_names is None else tuple(class_names)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        regression = target == "regression"
        self.standardize = Standardize(num_classes, mean=target_mean, std=target_std) if regression else None
        scores = self.scores = self._make_scores()["scores"]
        self.monitor = (f"val/{scores.monitor[0]}", scores.monitor[1])
        self.confusion: Tensor | None = None
        self.loss_terms = {}
        self._depth = min(5, num_classes)
        self._take_metrics(metrics, class_names)
        self.train_sums = RunningSums({"loss": (), "count": (), "hits": (self._depth,)})
        saved = builder.saved(self.backbone)
        self._save_settings(arguments, optim=self.optim, class_weights=class_weights, head="new", **saved)
        self.init_note = take_heads(self, init, any_classes=head == "pretrained")

    def forward(self, images: Any, *, standard_units: bool = False) -> Tensor:
        """Return logits (for regression: values) `(B, K)`.

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
            standard_units: For regression: leave the values as they are learnt, and do not give them back in
                the units of the targets.
        """
        features = self.backbone(self.normalize(self._as_batch(images)))  # (B, dim)
        outputs = cast(Tensor, self.head(self.dropout(features)))
        return outputs if self.standardize is None or standard_units else self.standardize.restore(outputs)

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, labels, _ = self._read(batch)
        labels_b, lam = mixed_labels(batch, labels) if isinstance(batch, Mapping) else (None, 1.0)
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
        self.loss_terms = {"loss": loss.detach()}
        sums: dict[str, Tensor | float] = {"loss": loss.detach() * len(labels), "count": len(labels)}
        if self.target == "single":
            sums["hits"] = self._hits(logits.detach(), hard_labels(labels, self.target), labels_b, lam)
        self._log_training(**sums)
        return {"loss": loss}

    def _evaluate(self, batch: Any) -> Tensor | None:
        if is_empty(batch):
            return None
        images, labels, ids = self._read(batch)
        labels = hard_labels(labels, self.target)
        logits = self(images, standard_units=True)
        losses = label_losses(logits, self._units(labels), kind=self.loss)
        values = logits if self.standardize is None else self.standardize.restore(logits)
        self.scores.update(values, labels, losses)
        if self.save_image_rows:
            self._rows.add(ids, self.scores.image_rows(values, labels, losses))
        self.extra.update(*metric_inputs(values, labels, self.target))
        return values

    def _units(self, labels: Tensor) -> Tensor:
        """Return labels as they are learnt."""
        return labels if self.standardize is None else cast(Tensor, self.standardize(labels))

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
        images, ids = read_images(batch, self)
        warn_other_size(self, images)
        with self._predicting():
            values = self(images).float()
        return predictions(values.cpu(), self.target, names=self.class_names, ids=ids)

    def on_fit_start(self) -> None:
        """Refuse settings without their callback; find the units of numbers; begin with equal buffers."""
        if self.standardize is not None:
            fit_standard_units(self.standardize, self.trainer)
        super().on_fit_start()

    def _read(self, batch: Any) -> tuple[Any, Tensor, Sequence[str] | None]:
        return read_labels(batch, self.target, self.num_classes)

    @torch.no_grad()
    def _hits(self, logits: Tensor, labels: Tensor, labels_b: Tensor | None, lam: Tensor | float) -> Tensor:
        """Return how many labels are the first, second, ... of an image's classes, `(depth,)`."""
        best = logits.topk(self._depth, dim=1).indices
        hits = best == labels[:, None]  # (B, depth)
        if labels_b is not None:
            weight = lam[:, None] if isinstance(lam, Tensor) and lam.ndim else lam
            hits = weight * hits + (1 - weight) * (best == labels_b[:, None])
        return hits.sum(0)

    def _training_means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        means = super()._training_means(sums)
        if self.target == "single":
            means["train/top1"] = (sums["hits"][0] / sums["count"]).item()
        if self.target == "single" and self.num_classes > 5:
            means["train/top5"] = (sums["hits"].sum() / sums["count"]).item()
        return means

    def _make_scores(self) -> dict[str, Any]:
        return {"scores": _SCORES[self.target](self.num_classes)}

    def _compute_scores(self) -> dict[str, float]:
        values = super()._compute_scores()
        self.confusion = self.scores.confusion
        return values
