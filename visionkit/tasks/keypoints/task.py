"""Keypoints as a `LightningModule`: maps, a head that gives points, scores in the original images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from visionkit.backbones.norms import make_norm
from visionkit.config import OptimConfig, TransferConfig, check_number, limits
from visionkit.data.formats.keypoints.skeleton import Skeleton, mirror_names
from visionkit.errors import InputError, unknown_name
from visionkit.metrics import KeypointAP, KeypointScores, RunningSums
from visionkit.nn.keypoints.deeppose import DeepPose
from visionkit.nn.keypoints.heatmap import HeatmapHead
from visionkit.rng import seeded_from_run
from visionkit.task_config import KEYPOINT_HEADS, DeepPoseConfig, HeatmapConfig
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_images
from visionkit.tasks.extra_metrics import Metrics
from visionkit.tasks.fine_tune import take_heads
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.image_spec import warn_other_size
from visionkit.tasks.keypoints.batch import original_truths, read_keypoints, regions_of, to_original
from visionkit.tasks.keypoints.boxes import crop_boxes
from visionkit.tasks.keypoints.prediction import KeypointPrediction, keypoint_predictions
from visionkit.tasks.saved_settings import config_from
from visionkit.transfer import apply_transfer
from visionkit.types import Init

__all__ = ["KeypointRegressor"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig()
_AP = {"oks_ap": "map", "oks_ap50": "map50", "oks_ap75": "map75"}  # what is logged of COCO's scores


class KeypointRegressor(TaskHooks):
    """Find the points of the one object that an image shows, such as the joints of a person.

    A batch is a dict with `images` `(B, 3, H, W)` uint8 or float in [0, 1], `keypoints` `(B, K, 3)` (x, y in
    pixels of these images, and a flag: 0 is not labelled) and, if images have names, `ids`; or a pair
    `(images, keypoints)`. `regions` `(B, 4)` say what each image shows of its original, and `truths` hold the
    object as its file has it: `visionkit.data.keypoint_batch` gives all of them. An image with many objects
    is cut by their boxes first: `visionkit.data.per_object` for data, `predict_boxes` for predictions.

    Points that are not labelled teach nothing, and a batch without any has the loss 0.

    Logged: `train/loss` every `log_every_n_steps` updates over the updates since the last such row, and over
    the full epoch at its end; for `val` and `test` the scores of `visionkit.metrics.KeypointScores`, in
    pixels of the original images: `pck`, `nme`, `oks`, `pcp` where the skeleton has edges, `pckh` where it
    has a head, `pck/POINT` and `pcp/POINT-POINT`; `unsized`, where there are any, is how many objects with
    labelled points had no size and count neither in `pck` nor in `nme`. With heat maps, whose points have
    scores, also COCO's average precision `oks_ap`, `oks_ap50` and `oks_ap75`, each object as an image of its
    own: boxes are given and not searched for.

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `levels`, giving
            maps. Only names can be built again by `load_from_checkpoint`.
        init: "pretrained", "scratch", other pretrained weights of the backbone by name
            ("timm/resnet50.tv_in1k"), or a path to weights (a file, a run, a published folder; a trained
            regressor of the same points gives its head too); for your own module, which of the two its
            weights are.
        skeleton: Names of the K points, and the edges between them; names alone will do.
        head: "deeppose": coordinates by regression, in stages (`visionkit.nn.keypoints.deeppose`); "heatmap":
            a heat map for each point (`visionkit.nn.keypoints.heatmap`).
        deeppose: Settings of the one.
        heatmap: Settings of the other.
        pck_threshold: Distance of a right point, as a fraction of the object's size.
        pck_size: The size of an object in `pck` and `nme`: "torso", "box", or None, the torso where there is
            one.
        sigmas: Tolerances of the points in `oks`, see `visionkit.metrics.keypoint_sigmas`.
        transfer: Initialisation and freezing.
        optim: Optimiser settings.
        lr: Peak learning rate of the head.
        in_channels: Channels of the images; trained input layers are adapted.
        image_size: Side, or `(H, W)`, of the images: a network of fixed size is built for it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        backbone_options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.
        tta_flip: When predicting and evaluating, average points (and their scores) with those of the mirrored
            image, whose left and right points are swapped by name. The mean of the points of two heat maps is
            the point of their mean.
        metrics: Metrics of your own, logged as `val/NAME` and `test/NAME` beside the task's; they get the
            labelled points as predicted, `(N, 2)`, and as they are, `(N, 2)`, in pixels of the originals. No
            checkpoint holds them.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together; the text says which.
    """

    scores: KeypointScores
    average_precision: KeypointAP | None
    truth = "keypoints"
    scored = ("scores", "average_precision")
    monitor = ("val/pck", "max")

    def __init__(
        self,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        skeleton: Skeleton | Mapping[str, Any] | Sequence[str],
        head: Literal["deeppose", "heatmap"] = "deeppose",
        deeppose: DeepPoseConfig | None = None,
        heatmap: HeatmapConfig | None = None,
        pck_threshold: float = 0.2,
        pck_size: Literal["torso", "box"] | None = None,
        sigmas: Sequence[float] | None = None,
        transfer: TransferConfig = _TRANSFER,
        optim: OptimConfig = _OPTIM,
        lr: float = 1e-3,
        in_channels: int = 3,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        tta_flip: bool = False,
        metrics: Metrics | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        check_number("lr", lr, limits(min=0))
        self.lr, self.head_name, self.skeleton = lr, head, Skeleton.of(skeleton, name="skeleton")
        self.tta_flip = _check_flip(tta_flip, self.skeleton)
        self.class_names = self.skeleton.names
        self.optim = config_from(OptimConfig, optim, name="optim")
        self.config = _head_config(head, {"deeppose": deeppose, "heatmap": heatmap})
        builder = BackboneBuilder.of("keypoints", arguments)
        self.image_size = builder.images.size
        self._take_backbone(builder, builder.keypoint_maps(4))
        self.head = self._new_head()
        apply_transfer(self.backbone, builder.init, self.transfer)
        self._score_settings: dict[str, Any] = {
            "threshold": pck_threshold,
            "size": pck_size,
            "sigmas": sigmas,
        }
        self.scores, self.average_precision = self._make_scores().values()
        self.loss_terms = {}
        self._take_metrics(metrics, self.class_names)
        self.train_sums = RunningSums({"loss": (), "count": ()})
        saved = {**builder.saved(self.backbone), "optim": self.optim, head: self.config}
        self._save_settings(arguments, skeleton=self.skeleton.as_dict(), **saved)
        self.init_note = take_heads(self, init)

    def forward(self, images: Any) -> Tensor:
        """Return points `(B, K, 2)`, x and y in pixels of these images.

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
        """
        stack = self._as_batch(images)
        return to_original(self._points(stack)[0], None, _size(stack))

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch, with its terms."""
        images, keypoints, _ = self._read(batch)
        stack = self._as_batch(images)
        size = _size(stack)
        target = keypoints[..., :2] / keypoints.new_tensor([size[1], size[0]])
        maps = self.backbone(self.normalize(stack))
        loss = self._sum_loss(self.head.losses(maps, size, target, keypoints[..., 2] > 0))
        self._log_training(loss=loss.detach() * len(stack), count=len(stack))
        return {**self.loss_terms, "loss": loss}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone and the layers of the head in place, with the arguments of `torch.compile`."""
        for part in (self.backbone, *self.head.layers_to_compile):
            part.compile(*args, **kwargs)

    def _evaluate(self, batch: Any) -> list[KeypointPrediction] | None:
        if is_empty(batch):
            return None
        images, keypoints, ids = self._read(batch)
        stack = self._as_batch(images)
        regions = regions_of(batch, images)
        fractions, scores = self._points(stack)
        points = to_original(fractions, regions, _size(stack))
        truths = original_truths(batch, keypoints, regions, _size(stack))
        self.scores.update(points, truths.keypoints, truths.boxes, truths.areas, ids)
        if self.average_precision is not None and scores is not None:
            detections = [
                {"keypoints": one[None], "scores": score.mean()[None], "labels": score.new_zeros(1)}
                for one, score in zip(points, scores, strict=True)
            ]
            self.average_precision.update(detections, truths.of_images(), ids)
        if self.save_image_rows:
            self._rows.add(ids, self.scores.image_rows())
        known = truths.keypoints[..., 2] > 0
        if bool(known.any()):
            self.extra.update(points[known], truths.keypoints[known][:, :2].to(points))
        return self._named(points, scores, ids)

    def predict_step(
        self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0
    ) -> list[KeypointPrediction]:
        """Return the points of each image, on the host.

        Args:
            batch: Images `(B, 3, H, W)`; one image or a list of images of one size, as tensors, numpy arrays
                or PIL images; or a batch as in training, with or without keypoints. Where it has `regions`,
                the points are in pixels of the original images.
            batch_index: Not used.
            dataloader_idx: Not used.

        Raises:
            InputError: The images differ in size, or their pixels are not what the task takes.
        """
        if is_empty(batch):
            return []
        images, ids = read_images(batch, self)
        regions = regions_of(batch, images)
        warn_other_size(self, images)
        with self._predicting():
            fractions, scores = self._points(images)
            points = to_original(fractions, regions, _size(images))
        return self._named(points, scores, ids)

    def predict_boxes(self, image: Any, boxes: Any, *, padding: float = 1.25) -> list[KeypointPrediction]:
        """Return the points of the object in each box of an image, in pixels of this image, on the host.

        Args:
            image: `(3, H, W)` uint8, a numpy array `(H, W, 3)` or a PIL image.
            boxes: `(N, 4)` xyxy, as a detector gives them.
            padding: Factor of a box's sides; that of the crops in training.

        Raises:
            InputError: A box is not finite, or has no area, or the task does not know the size of its images.
        """
        batch = crop_boxes(image, boxes, self.image_size, padding=padding, channels=self.channels)
        return self.predict_step(batch)

    def _named(
        self, points: Tensor, scores: Tensor | None, ids: Sequence[str] | None
    ) -> list[KeypointPrediction]:
        shown = None if scores is None else scores.float().cpu()
        return keypoint_predictions(points.float().cpu(), shown, self.skeleton, ids)

    def _points(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return points `(B, K, 2)` as fractions of the images' sides, and scores `(B, K)` if there are."""
        inputs = self.normalize(images)
        points, scores = self.head(self.backbone(inputs), _size(images))
        if not self.tta_flip:
            return points, scores
        order = list(self.skeleton.flip or ())
        mirrored, certain = self.head(self.backbone(inputs.flip(-1)), _size(images))
        mirrored = mirrored.new_tensor([1, 0]) + mirrored.new_tensor([-1, 1]) * mirrored[:, order]
        points = (points + mirrored) / 2
        return points, None if scores is None else (scores + certain[:, order]) / 2

    def _read(self, batch: Any) -> tuple[Any, Tensor, Sequence[str] | None]:
        return read_keypoints(batch, len(self.skeleton.names))

    def _probe(self, images: Any) -> Any:
        return self._points(self._as_batch(images))

    def _new_head(self) -> DeepPose | HeatmapHead:
        """Return the head, drawn from the run's seed alone."""
        count, levels = len(self.skeleton.names), self.backbone.levels
        norm = partial(make_norm, self.transfer.norm or "batch")
        with seeded_from_run():
            if isinstance(self.config, DeepPoseConfig):
                return DeepPose(levels, count, self.config, norm)
            return HeatmapHead(levels[-1], count, self.config, norm)

    def _make_scores(self) -> dict[str, Any]:
        settings, names = self._score_settings, self.skeleton.names
        return {
            "scores": KeypointScores(names, edges=self.skeleton.edges, **settings),
            "average_precision": KeypointAP(len(names), sigmas=settings["sigmas"])
            if self.head_name == "heatmap"
            else None,
        }

    def _compute_scores(self) -> dict[str, float]:
        values = super()._compute_scores()
        if self.scores.unsized:
            values["unsized"] = float(self.scores.unsized)
            rank_zero_warn(_unsized_text(self.scores))
        if self.average_precision is not None:
            precision = self.average_precision.compute_floats()
            self.average_precision.reset()
            if values:  # COCO's -1 says that there was nothing to score
                values |= {
                    name: precision[own] if precision[own] >= 0 else math.nan for name, own in _AP.items()
                }
        return values


def _size(images: Tensor) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


def _check_flip(tta_flip: bool, skeleton: Skeleton) -> bool:
    """Return whether mirrored images are seen too; refuse it where it is not known what a mirror swaps."""
    if tta_flip and skeleton.flip is None:
        alone = ", ".join(mirror_names(skeleton.names)[1])
        raise InputError(
            f"tta_flip swaps left and right points by name, but of {alone} there is no other side. Leave it "
            "out."
        )
    return tta_flip


def _unsized_text(scores: KeypointScores) -> str:
    why = "their boxes have no extent"
    if scores.size == "torso":
        why = "an end of their torso is not labelled. pck_size='box' (--pck.size box) counts them"
    return f"Objects with labelled points that count neither in pck nor in nme: {scores.unsized:,}: {why}."


def _head_config(head: str, given: Mapping[str, Any]) -> DeepPoseConfig | HeatmapConfig:
    """Return the settings of a head.

    Raises:
        InputError: There is no such head, or settings of the other were given.
    """
    if head not in KEYPOINT_HEADS:
        raise unknown_name("head", head, KEYPOINT_HEADS)
    for name, value in given.items():
        if name != head and value is not None:
            raise InputError(
                f"{name}= has the settings of head={name!r}, but this is head={head!r}. Leave it out, or "
                f"give {head}= instead."
            )
    kind, value = KEYPOINT_HEADS[head], given[head]
    return kind() if value is None else config_from(kind, value, name=head)
