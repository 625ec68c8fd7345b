"""Images to boxes, and with further heads to masks and keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.config import NormPolicy, OptimConfig, TransferConfig
from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.errors import InputError
from visionkit.metrics import CocoAP, DetectionScores, KeypointAP, RunningSums
from visionkit.rng import seeded_from_run
from visionkit.task_config import DetectorName, FCOSConfig, RCNNConfig, RetinaNetConfig
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_parts
from visionkit.tasks.detection.batch import in_original, original_size, read_batch
from visionkit.tasks.detection.from_torchvision import read_detector
from visionkit.tasks.detection.image_batch import Detections, ImageBatch, merge_views, training_targets
from visionkit.tasks.detection.model import detector_reductions, loss_names, make_model
from visionkit.tasks.detection.settings import check_detector, detector_config, object_fields
from visionkit.tasks.extra_metrics import Metrics, box_targets
from visionkit.tasks.fine_tune import take_heads
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.image_inputs import check_images, image_list
from visionkit.tasks.saved_settings import config_from
from visionkit.transfer import apply_transfer, fit_default, transfer_from
from visionkit.types import Init

__all__ = ["Detector"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig()


class Detector(TaskHooks):
    """Find objects: Faster R-CNN, RetinaNet or FCOS over a feature pyramid, over any backbone with levels.

    A batch is a dict with `images`, a list of `(3, H, W)` uint8 or float in [0, 1] (or one tensor
    `(B, 3, H, W)`), `targets`, a list of dicts with `boxes` `(N, 4)` absolute xyxy (or torchvision's
    `BoundingBoxes` of any upright format), `labels` `(N,)` from 0, and perhaps `iscrowd`, `masks`,
    `keypoints` `(N, K, 3)` (x, y, and a flag: 0 is not labelled), `area` and `size` (`(H, W)` of the original
    image), and, if images have names, `ids` of any kind; or a pair `(images, targets)`.

    Logged: `train/loss` and its terms `train/loss_class`, `loss_box`, of Faster R-CNN `loss_objectness`,
    `loss_proposal` (`loss_mask`, `loss_keypoint`), of FCOS `loss_centerness`; for `val` and `test`: COCO's
    `map map50 map75 map_small ... ar1 ar10 ar100 ...`, `ap/<class>`, the same under `mask_` with a mask head
    (`mask_ap/<class>`), and with a keypoint head those of `visionkit.metrics.KeypointAP` under `keypoint_`
    (`keypoint_map`), all in the frame of the original images and against the objects of the file where a
    target carries them (`truth`). With more than 100 detections an image (`detections_per_img`) that
    limit takes the place of COCO's 100.
    Where there was no object to find `map` (and `keypoint_map`, by which weights are then chosen) is NaN, and
    the others are left out.

    Boxes and labels that cannot be right are named with their images before they reach compiled code.

    Ren et al., Faster R-CNN, 2015; Lin et al., Feature Pyramid Networks, 2017; He et al., Mask R-CNN, 2017;
    Lin et al., Focal Loss for Dense Object Detection, 2017; Tian et al., FCOS, 2020.

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `levels`. Only names
            can be built again by `load_from_checkpoint`.
        init: "pretrained", "scratch", other pretrained weights of the backbone by name
            ("timm/resnet50.tv_in1k"), or a path to weights (a file, a run, a published folder; a trained task
            of the same classes gives its head too); for your own module, which of the two its weights are.
        detector: "faster_rcnn" (with `rcnn.masks` Mask R-CNN, with `keypoints` Keypoint R-CNN), "retinanet"
            or "fcos".
        rcnn: Heads, proposals, thresholds and losses of Faster R-CNN.
        retinanet: Head, anchors, thresholds and losses of RetinaNet.
        fcos: Head, thresholds and centre sampling of FCOS.
        num_classes: Foreground classes; the background is added inside.
        class_names: Names of the classes, for predictions and scores.
        keypoints: The points of an object (`visionkit.data.skeleton_of`), or their names: adds a keypoint
            head; the data must have keypoints.
        pyramid_channels: Channels of the pyramid's levels.
        transfer: Initialisation and freezing.
        optim: Optimiser settings.
        lr: Peak learning rate of everything but the backbone.
        head_norm: Norm of the pyramid, and of Faster R-CNN's convolutional heads; that of `transfer` if None
            ("frozen": none). The heads of the others have that of their own settings.
        reductions: Which maps of the backbone the pyramid is built on; 4, 8, 16, 32 of Faster R-CNN and 8,
            16, 32 of the others, which put two coarser levels on top.
        in_channels: Channels of the images; trained input layers are adapted.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        backbone_options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.
        image_size: Side, or `(H, W)`, that no image exceeds: a network of fixed size is built for it.
        resize: `(short side, longest)`: resize images on the device; as they come if None.
        tta_flip: Also detect in the mirrored image when predicting and evaluating.
        tta_sizes: Detect in the image with each of these short sides instead.
        metrics: Metrics of your own (a `torchmetrics.MetricCollection`, or metrics by name), logged as
            `val/NAME` and `test/NAME` beside the task's; they get lists of dicts, as
            `torchmetrics.detection.MeanAveragePrecision` takes them, in the frame of the original
            images. No checkpoint holds them.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together; the text says which.
    """

    monitor = ("val/map", "max")
    truth = "targets"
    scored = ("metric", "keypoint_metric")
    metric: CocoAP
    keypoint_metric: KeypointAP | None

    def __init__(
        self,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        detector: DetectorName = "faster_rcnn",
        rcnn: RCNNConfig | Mapping[str, Any] | None = None,
        retinanet: RetinaNetConfig | Mapping[str, Any] | None = None,
        fcos: FCOSConfig | Mapping[str, Any] | None = None,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        keypoints: Skeleton | Mapping[str, Any] | Sequence[str] | None = None,
        pyramid_channels: int = 256,
        transfer: TransferConfig = _TRANSFER,
        optim: OptimConfig = _OPTIM,
        lr: float = 1e-3,
        head_norm: NormPolicy | None = None,
        reductions: Sequence[int] | None = None,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        image_size: int | Sequence[int] | None = None,
        resize: tuple[int, int] | None = None,
        tta_flip: bool = False,
        tta_sizes: Sequence[int] = (),
        metrics: Metrics | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self.num_classes, self.lr = num_classes, lr
        given = {"rcnn": rcnn, "retinanet": retinanet, "fcos": fcos}
        setting, self.config = detector_config(detector, given)
        self.detector = detector
        self.skeleton = None if keypoints is None else Skeleton.of(keypoints)
        self.object_fields = object_fields(self.config, self.skeleton)
        self.masks = "masks" in self.object_fields
        self.monitor = ("val/keypoint_map", "max") if self.skeleton else self.monitor
        self.optim = config_from(OptimConfig, optim, name="optim")
        check_detector(
            num_classes, class_names, single_view=[f"{name[:-1]} head" for name in self.object_fields],
            lr=lr, resize=resize, tta_flip=tta_flip, tta_sizes=tta_sizes, pyramid_channels=pyramid_channels,
        )  # fmt: skip
        builder = BackboneBuilder.of("detection", arguments)
        reductions = detector_reductions(detector) if reductions is None else tuple(reductions)
        self._take_backbone(builder, builder.maps(reductions))
        policy = head_norm or self.transfer.norm or "batch"
        with seeded_from_run():  # torch's seed alone: the arms of a comparison begin alike
            self.model = make_model(
                self.backbone, self.config, num_classes=num_classes, channels=pyramid_channels, policy=policy,
                num_keypoints=self.num_keypoints,
            )  # fmt: skip
        self.divisor = max(level.reduction for level in self.backbone.levels)
        self.transfer = fit_default(self.backbone, transfer_from(transfer), self.transfer)
        apply_transfer(self.backbone, builder.init, self.transfer)
        self.resize = None if resize is None else (int(resize[0]), int(resize[1]))
        self.tta_flip, self.tta_sizes = tta_flip, tuple(tta_sizes)
        self.class_names = None if class_names is None else tuple(class_names)
        self.metric, self.keypoint_metric = self._make_scores().values()
        self._take_metrics(metrics, class_names)
        self.detection_scores: DetectionScores | None = None
        self.terms, self.loss_terms = loss_names(self.config, self.model), {}
        self.train_sums = RunningSums(("loss", *self.terms, "count"))
        saved = builder.saved(self.backbone) | {"transfer": self.transfer, setting: self.config}
        saved |= {"keypoints": self.skeleton and self.skeleton.as_dict()}
        self._save_settings(arguments, optim=self.optim, reductions=reductions, resize=self.resize, **saved)
        self.init_note = take_heads(self, init)

    def forward(self, images: Any) -> list[dict[str, Tensor]]:
        """Return the detections of each image in its own frame: `boxes`, `scores`, `labels`.

        With further heads also `masks`, `keypoints` `(D, K, 2)` and `keypoint_scores` `(D, K)`.

        Args:
            images: Images `(3, H, W)` of any size, a batch `(B, 3, H, W)`, or one image
                (`visionkit.tasks.image_inputs`).

        Raises:
            InputError: Something is no image, or this is `torch.export`: how many boxes come out depends on
                the values, which it cannot follow.

        `torch.onnx.export(task.eval(), ([image],), path, dynamo=False)` and `torch.jit.trace` give the same
        boxes, for images of the traced size.
        """
        if torch.compiler.is_exporting():
            raise InputError(
                "torch.export cannot follow a detector, whose number of boxes depends on what it finds. Use "
                "torch.onnx.export(task.eval(), ([image],), path, dynamo=False), which gives the same boxes."
            )
        return self._detect(image_list(images, channels=self.channels, device=self.device), None)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile backbone and pyramid in place, with the arguments of `torch.compile`."""
        self.model.get_submodule("source").compile(*args, **kwargs)

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, targets, _ = self._read(batch)
        batch = self._image_batch(images, self.resize, flip=False)
        resized = training_targets(targets, batch, fields=self.object_fields)
        _, losses = self.model(batch.images, batch.sizes, resized)
        loss = self._sum_loss(losses)
        size = len(images)
        self._log_training(count=size, **{name: value * size for name, value in self.loss_terms.items()})
        return {"loss": loss}

    def _evaluate(self, batch: Any) -> list[dict[str, Tensor]] | None:
        if is_empty(batch):
            return None
        images, targets, ids = self._read(batch)
        originals = [original_size(target, image) for target, image in zip(targets, images, strict=True)]
        detections = self._detect(images, originals)
        truths = [in_original(t, i, o) for t, i, o in zip(targets, images, originals, strict=True)]
        self.metric.update(detections, truths, ids or None)
        if self.keypoint_metric is not None:
            self.keypoint_metric.update(detections, truths, ids or None)
        if self.metrics is not None:
            self.extra.update(detections, box_targets(truths, self.device, masks=self.masks))
        return detections

    def predict_step(self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0) -> list[Detections]:
        """Return the detections of each image in the frame of the original, on the host.

        Args:
            batch: Images `(3, H, W)` of any size or `(B, 3, H, W)`; one image; numpy arrays or PIL images;
                or a batch as in training, with or without targets. A target's `size` is that of the
                original image.
            batch_index: Not used.
            dataloader_idx: Not used.

        Raises:
            InputError: The images' pixels are not what the task takes.
        """
        if is_empty(batch):
            return []
        given, targets, ids = read_parts(batch, self.truth, needed=False)
        images = image_list(given, channels=self.channels)
        check_images(images, ids)
        images = [image.to(self.device) for image in images]
        originals = [original_size(t, i) for t, i in zip(targets, images, strict=True)] if targets else None
        with self._predicting():
            detections = self._detect(images, originals)
        names: Sequence[str | None] = ids or [None] * len(detections)
        return [
            Detections.on_host(each, class_names=self.class_names, name=name, skeleton=self.skeleton)
            for name, each in zip(names, detections, strict=True)
        ]

    @classmethod
    def from_torchvision(
        cls,
        weights: Mapping[str, Tensor] | str | Path,
        *,
        name: str,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        keypoints: Skeleton | Sequence[str] | None = None,
        optim: OptimConfig = _OPTIM,
        lr: float = 1e-3,
        frozen_eps: float | None = None,
    ) -> Detector:
        """Build torchvision's detector from its state dict: to start from, to evaluate, to fine-tune.

        Args:
            weights: A state dict, or a file that holds one.
            name: "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn",
                "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2" or
                "fcos_resnet50_fpn".
            num_classes: Foreground classes of a new last layer; None keeps that of the weights (90 for COCO:
                label i is the category with id i + 1). torchvision's RetinaNet and FCOS have a first class
                for the background, which nothing is trained to be; it is left out.
            class_names: Names of the classes.
            keypoints: Points of a new last layer of the keypoint head, where they are not as many as the
                weights have; None keeps those of the weights (COCO's 17 of a person).
            optim: Optimiser settings.
            lr: Peak learning rate.
            frozen_eps: Epsilon of frozen norms: None for torchvision's COCO weights (0, and 1e-5 of FCOS),
                1e-5 for a detector of your own that began from its classification weights.

        Raises:
            InputError: Another name, or weights of another model.
        """
        detector = read_detector(weights, name)
        task = cls(
            num_classes=detector.num_classes if num_classes is None else num_classes,
            class_names=class_names,
            optim=optim,
            lr=lr,
            **detector.settings(keypoints),
        )
        detector.fill(task, frozen_eps=frozen_eps)
        return task

    @property
    def num_keypoints(self) -> int:
        """How many points an object has; 0 without a keypoint head."""
        return 0 if self.skeleton is None else len(self.skeleton.names)

    def _read(self, batch: Any) -> Any:
        return read_batch(
            batch,
            num_classes=self.num_classes,
            masks=self.masks,
            num_keypoints=self.num_keypoints,
            channels=self.channels,
        )

    def _image_batch(self, images: list[Tensor], resize: tuple[int, int] | None, *, flip: bool) -> ImageBatch:
        canvas = getattr(self.backbone, "fixed_size", None)
        return ImageBatch.of(
            images, normalize=self.normalize, divisor=self.divisor, resize=resize, flip=flip, canvas=canvas
        )

    def _detect(
        self, images: list[Tensor], originals: Sequence[tuple[int, int]] | None
    ) -> list[dict[str, Tensor]]:
        max_side = 0 if self.resize is None else self.resize[1]
        sizes: list[tuple[int, int] | None] = [(size, max(max_side, 2 * size)) for size in self.tta_sizes]
        views = []
        for size in sizes or [self.resize]:
            for flip in (False, True) if self.tta_flip else (False,):
                batch = self._image_batch(images, size, flip=flip)
                detections, _ = self.model(batch.images, batch.sizes)
                views.append(batch.restore(detections, originals=originals, flip=flip))
        if len(views) == 1:
            return views[0]
        return merge_views(views, threshold=self.config.nms_threshold, limit=self.config.detections_per_img)

    def _training_means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {f"train/{name}": (sums[name] / sums["count"]).item() for name in ("loss", *self.terms)}

    def _probe(self, images: Any) -> Any:
        batch = self._image_batch(list(images), self.resize, flip=False)
        return self.model.get_submodule("source")(batch.images)

    def _make_scores(self) -> dict[str, Any]:
        names = self.class_names or [str(index) for index in range(self.num_classes)]
        limits = (1, 10, max(100, self.config.detections_per_img))
        made: dict[str, Any] = {"metric": CocoAP(names, masks=self.masks, max_dets=limits)}
        points = self.num_keypoints
        return made | {"keypoint_metric": KeypointAP(points, num_classes=len(names)) if points else None}

    def _gather_rows(self) -> Mapping[str, Any]:
        points = {} if self.keypoint_metric is None else self.keypoint_metric.image_rows
        return {**self.metric.image_rows, **{f"keypoint_{name}": rows for name, rows in points.items()}}

    def _compute_scores(self) -> dict[str, float]:
        scores = self.detection_scores = self.metric.result()
        if not scores.images:
            return {}
        # -1 stands for nothing to score; as a point of a curve it would mislead.
        named, monitored = scores.named(), self.monitor[0].partition("/")[2]
        if self.keypoint_metric is not None:
            points = self.keypoint_metric.compute_floats()
            named |= {f"keypoint_{name}": value for name, value in points.items()}
        return {"map": float("nan"), monitored: float("nan")} | {
            name: value for name, value in named.items() if value >= 0
        }
