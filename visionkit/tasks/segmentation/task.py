"""Images to class maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.backbones import make_norm
from visionkit.config import OptimConfig, TransferConfig, check_numbers, limits
from visionkit.errors import InputError
from visionkit.metrics import RunningSums, SegmentationMetric
from visionkit.nn.segmentation.decoders import create_decoder
from visionkit.nn.segmentation.losses import SegmentationLoss, cross_entropy_loss
from visionkit.nn.segmentation.sliding_window import Windows
from visionkit.rng import seeded_from_run
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import check_count, is_empty, read_parts
from visionkit.tasks.classification.targets import check_names, check_weights
from visionkit.tasks.extra_metrics import Metrics
from visionkit.tasks.fine_tune import take_heads
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.image_inputs import check_images, image_list
from visionkit.tasks.saved_settings import config_from
from visionkit.tasks.segmentation.batch import NUMBERS, check_segmenter, pad_to_size, shape_masks, stacks
from visionkit.tasks.segmentation.from_torchvision import DilatedResNet, read_network
from visionkit.tasks.segmentation.mask_check import MaskCheck
from visionkit.tasks.segmentation.prediction import SegmentationPrediction
from visionkit.tasks.segmentation.views import Views, decide
from visionkit.transfer import apply_transfer
from visionkit.types import Init

__all__ = ["Segmenter"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig(schedule="poly")


class Segmenter(TaskHooks):
    """Give every pixel a class.

    A batch is a dict with `images` `(B, 3, H, W)` uint8 or float in [0, 1], `masks` `(B, H, W)` (or
    `(B, 1, H, W)`) of whole numbers and, if images have names, `ids` of any kind; or a pair
    `(images, masks)`. In evaluation both may be lists of images and masks of any size. One class
    (`num_classes=1`) is the binary case: masks hold 0 and 1.

    Logged: `train/loss` every `log_every_n_steps` updates and at the end of an epoch; for `val` and `test`:
    `miou` of the data set at native size, `iou/<class>`, `pixel_accuracy`, `mean_accuracy`, `boundary_f` if
    it is asked for, and `loss` (cross-entropy) where each image is seen once, undivided. Where no
    pixel counts `miou` is NaN.

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `levels`.
        init: "pretrained", "scratch", other pretrained weights of the backbone by name
            ("timm/resnet50.tv_in1k"), or a path to weights (a file, a run, a published folder; a trained task
            of the same classes gives its head too); for your own module, which of the two its weights are.
        decoder: "fcn", "deeplabv3", "deeplabv3plus", "unet", "semantic_fpn", "psp" or "upernet".
        num_classes: Classes of the masks; 1 for foreground against background.
        class_names: Names of the classes, for scores and predictions.
        transfer: Initialisation and freezing.
        optim: Optimiser settings.
        lr: Peak learning rate of the decoder.
        loss: A weighted sum by name: "ce", "ohem + 0.5*dice"; terms ce, dice, focal, lovasz, ohem, tversky.
        class_weights: One weight a class (binary: background, foreground).
        ignore_index: Value of pixels that do not count; no class has it.
        aux_loss_weight: Weight of an FCN head's loss on the second coarsest map; 0 has none.
        output_stride: Coarsest reduction, by dilation where the backbone can; the decoder's own if not given.
        channels: Width of the decoder; its own if not given.
        dropout: Fraction dropped before the decoder's classifier; its own if not given.
        in_channels: Channels of the images; trained input layers are adapted.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        backbone_options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.
        image_size: Side, or `(H, W)`, of training windows: a network of fixed size is built for it.
        window: Side of the windows in which larger images are evaluated; 0: the full image at once.
        window_stride: Pixels between windows; two thirds of the window if 0.
        window_margin: Pixels along the inner borders of a window that do not count.
        scales: Scales of the views in evaluation, averaged.
        flip: Whether evaluation sees each view mirrored too.
        boundary_tolerance: Distance for the boundary score as a fraction of the diagonal (0.0075); 0 is off.
        metrics: Metrics of your own (a `torchmetrics.MetricCollection`, or metrics by name), logged as
            `val/NAME` and `test/NAME` beside the task's; they get class maps `(B, H, W)`
            of numbers, with the ignored value in the masks. No checkpoint holds them.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together, or a backbone that cannot serve the decoder.
    """

    monitor = ("val/miou", "max")
    truth = "masks"
    scored = ("scores", "eval_sums")
    eval_sums: RunningSums
    scores: SegmentationMetric

    def __init__(
        self,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        decoder: str = "unet",
        num_classes: int,
        class_names: Sequence[str] | None = None,
        transfer: TransferConfig = _TRANSFER,
        optim: OptimConfig = _OPTIM,
        lr: float = 1e-3,
        loss: str | Mapping[str, float] = "ce",
        class_weights: Sequence[float] | None = None,
        ignore_index: int = 255,
        aux_loss_weight: float = 0.0,
        output_stride: int | None = None,
        channels: int | None = None,
        dropout: float | None = None,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        image_size: int | Sequence[int] | None = None,
        window: int = 0,
        window_stride: int = 0,
        window_margin: int = 0,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        boundary_tolerance: float = 0.0,
        metrics: Metrics | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        check_segmenter({name: arguments[name] for name in NUMBERS}, ignore_index)
        mask_classes = max(2, num_classes)
        scales = check_numbers("scales", scales, limits(above=0))
        class_weights = check_weights(class_weights, mask_classes)
        check_names(class_names, mask_classes)
        self.num_classes, self.mask_classes, self.ignore_index = num_classes, mask_classes, ignore_index
        self.lr, self.aux_loss_weight = lr, aux_loss_weight
        self.check_mask = MaskCheck(mask_classes, ignore_index)
        self.optim = config_from(OptimConfig, optim, name="optim")
        builder = BackboneBuilder.of("segmentation", arguments)
        maps = builder.segmentation_maps(decoder, output_stride=output_stride, auxiliary=aux_loss_weight > 0)
        self._take_backbone(builder, maps)
        self.decoder, self.auxiliary_head = self._make_heads(decoder, channels, dropout)
        apply_transfer(self.backbone, builder.init, self.transfer)
        self.loss = SegmentationLoss(loss, ignore_index=ignore_index, class_weights=class_weights)
        self.class_names = None if class_names is None else tuple(class_names)
        self.views = Views(tuple(scales), flip, self._windows(window, window_stride, window_margin))
        self.boundary_tolerance = boundary_tolerance
        self.confusion: Tensor | None = None
        self.loss_terms = {}
        self.train_sums = RunningSums(("loss", "count"))
        self.scores, self.eval_sums = self._make_scores().values()
        self._take_metrics(metrics, class_names)
        saved = {**builder.saved(self.backbone), "optim": self.optim, "loss": self.loss.terms}
        self._save_settings(arguments, class_weights=class_weights, scales=scales, **saved)
        self.init_note = take_heads(self, init)

    def forward(self, images: Any) -> Tensor:
        """Return logits `(B, C, H, W)`.

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
        """
        return self._logits(self._as_batch(images))[0]

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch, with its terms."""
        images, masks, _ = self._read(batch)
        if not isinstance(images, Tensor) or not isinstance(masks, Tensor):
            raise InputError(
                "Expected training images of one size, but the batch holds more sizes. Cut windows of one "
                "size (visionkit.data.transforms.segmentation.segmentation_train)."
            )
        logits, auxiliary_logits = self._logits(images, auxiliary=True)
        terms = self.loss(logits, masks)
        if auxiliary_logits is not None:
            auxiliary = torch.stack(list(self.loss(auxiliary_logits, masks).values())).sum()
            terms["auxiliary"] = self.aux_loss_weight * auxiliary
        loss = self._sum_loss(terms)
        self._log_training(loss=loss.detach() * len(images), count=len(images))
        return {**self.loss_terms, "loss": loss}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile backbone and decoders in place, with the arguments of `torch.compile`."""
        for part in (self.backbone, self.decoder, self.auxiliary_head):
            if part is not None:
                part.compile(*args, **kwargs)

    def _evaluate(self, batch: Any) -> list[Tensor] | None:
        if is_empty(batch):
            return None
        images, masks, ids = self._read(batch)
        if not self.views.plain:  # clamping a resized view would hide what cannot be right
            check_images(images, ids)
        self.eval_sums.add(seen=len(images))
        maps: list[Tensor] = []
        for index, (stack, mask) in enumerate(stacks(images, masks)):
            if self.views.plain:
                logits = self(stack)
                loss = cross_entropy_loss(logits, mask, ignore_index=self.ignore_index)
                self.eval_sums.add(loss=loss * len(stack), count=len(stack))
                labels = decide(logits)
            else:
                labels = self.views.labels(self, stack)
            self.scores.update(labels, mask)
            if self.save_image_rows and ids:
                self._rows.add(ids[index : index + len(stack)], self.scores.image_rows(labels, mask))
            self.extra.update(labels, mask)
            maps += labels
        return maps

    def predict_step(
        self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0
    ) -> list[SegmentationPrediction]:
        """Return one class map an image, at its own size, on the host.

        Args:
            batch: Images `(B, 3, H, W)`; one image or a list of images of any size, as tensors, numpy arrays
                or PIL images; or a batch as in evaluation, with or without masks.
            batch_index: Not used.
            dataloader_idx: Not used.

        Raises:
            InputError: Something is no image, or its pixels are not what the task takes.
        """
        if is_empty(batch):
            return []
        given, _, ids = read_parts(batch, self.truth, needed=False)
        images = image_list(given, channels=self.channels)
        check_images(images, ids)
        with self._predicting():
            maps = [self.views.labels(self, image[None].to(self.device))[0].cpu() for image in images]
        names = self.class_names or ()
        labels: list[str] | list[None] = list(ids) if ids else [None] * len(maps)
        return [SegmentationPrediction(mask, names, label) for mask, label in zip(maps, labels)]

    @classmethod
    def from_torchvision(cls, weights: Mapping[str, Tensor] | str | Path, *, name: str) -> Segmenter:
        """Build the segmenter whose logits are those of a torchvision network.

        Args:
            weights: Its state dict, or a local file of it (safetensors, or tensors that load with
                `weights_only=True`), with or without the auxiliary classifier.
            name: "fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50" or "deeplabv3_resnet101".

        Returns:
            A `Segmenter` with the network's classes, and its auxiliary head at weight 0.5 if there is one.

        Raises:
            InputError: The name is not known, or the weights are not of that network; the keys are named.
        """
        network = read_network(weights, name)
        task = cls(
            DilatedResNet(network.architecture),
            init="pretrained",
            num_classes=network.num_classes,
            decoder=network.decoder,
            aux_loss_weight=0.5 if network.has_auxiliary else 0.0,
        )
        network.fill(task)
        return task

    def _make_heads(
        self, decoder: str, channels: int | None, dropout: float | None
    ) -> tuple[nn.Module, nn.Module | None]:
        """Make the decoder and the auxiliary head, drawn from torch's seed alone.

        They do not depend on how many numbers the backbone drew before them, so the arms of a comparison
        with one seed begin alike.
        """
        levels = self.backbone.levels
        norm = partial(make_norm, self.transfer.norm or "batch")
        with seeded_from_run():
            main = create_decoder(
                decoder, levels, num_classes=self.num_classes, channels=channels, norm=norm, dropout=dropout
            )
            if self.aux_loss_weight <= 0:
                return main, None
            if len(levels) < 2:
                raise InputError(
                    "The auxiliary head needs the second coarsest map, but this backbone gives one only. "
                    "Use aux_loss_weight=0."
                )
            return main, create_decoder("fcn", levels[:-1], num_classes=self.num_classes, norm=norm)

    def _windows(self, size: int, stride: int, margin: int) -> Windows | None:
        fixed = getattr(self.backbone, "fixed_size", None)
        size = min(size or min(fixed), *fixed) if fixed else size
        if size == 0:
            return None
        multiple = self.backbone.levels[-1].reduction
        return Windows(size, stride or max(multiple, min(size * 2 // 3, size - 2 * margin)), margin, multiple)

    def _logits(self, images: Tensor, *, auxiliary: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, C, H, W) of the decoder and, if asked for, of the auxiliary head."""
        padded = pad_to_size(self.normalize(images), getattr(self.backbone, "fixed_size", None))
        maps = self.backbone(padded)
        height, width = images.shape[-2:]
        second = None
        if auxiliary and self.auxiliary_head is not None:
            second = _resized(self.auxiliary_head(maps[:-1]), padded)[..., :height, :width]
        return _resized(self.decoder(maps), padded)[..., :height, :width], second

    def _read(self, batch: Any) -> tuple[Any, Any, Sequence[str] | None]:
        images, masks, ids = read_parts(batch, self.truth)
        masks = shape_masks(masks)
        check_count("masks", masks, images)
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            if not isinstance(mask, Tensor) or mask.device.type == "cpu":
                name = ids[index] if ids else f"image {index} of the batch"
                self.check_mask(image, mask, name)
        return images, masks, ids

    def _probe(self, images: Any) -> Any:
        return self._logits(images, auxiliary=True)

    def _make_scores(self) -> dict[str, Any]:
        metric = SegmentationMetric(
            self.mask_classes, ignore_index=self.ignore_index, boundary_tolerance=self.boundary_tolerance
        )
        return {"scores": metric, "eval_sums": RunningSums(("loss", "count", "seen"))}

    def _compute_scores(self) -> dict[str, float]:
        scores = self.scores.result()
        self.scores.reset()
        sums = self.eval_sums.reduce()
        self.eval_sums.reset()
        values = scores.named(self.class_names)
        if sums["seen"] and "miou" not in values:
            return {"miou": float("nan")}  # no pixel counts: a loss of 0 would be none
        if sums["count"]:
            values["loss"] = sums["loss"] / sums["count"]
        return values


def _resized(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
