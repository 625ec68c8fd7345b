"""Embedding as a `LightningModule`: an encoder, perhaps a projection, and vectors of length 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.config import OptimConfig, TransferConfig, check_number, limits
from visionkit.errors import InputError, unknown_name
from visionkit.metrics import EmbeddingScores, RunningSums
from visionkit.rng import seeded_from_run
from visionkit.tasks.backbones import BackboneBuilder
from visionkit.tasks.batch_norm import explained
from visionkit.tasks.batch_parts import is_empty, read_images
from visionkit.tasks.classification.targets import check_names, read_labels
from visionkit.tasks.embedding.loss import EmbeddingLoss, LossName
from visionkit.tasks.embedding.prediction import EmbeddingPrediction
from visionkit.tasks.extra_metrics import Metrics
from visionkit.tasks.fine_tune import take_heads
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.image_spec import warn_other_size
from visionkit.tasks.saved_settings import config_from
from visionkit.transfer import apply_transfer
from visionkit.types import Init

__all__ = ["Embedder"]

_TRANSFER = TransferConfig()
_OPTIM = OptimConfig()


class Embedder(TaskHooks):
    """Give images vectors of length 1 that lie near each other where the class (a person, say) is the same.

    A batch is a dict with `images` `(B, 3, H, W)` uint8 or float in [0, 1], `labels` `(B,)` whole numbers
    and, if images have names, `ids`; or a pair `(images, labels)`. In evaluation `gallery` `(B,)` bool may
    say which images the others are searched among. Training labels are below `num_classes` where the loss has
    a vector for each class; those of evaluation may be any: the classes of validation and test need not occur
    in training.

    The losses of pairs and triplets learn from all vectors of a batch over all processes, so every process
    must have as many images, and batches must hold several images of a class (`IdentityBatchSampler`).

    Logged: `train/loss` every `log_every_n_steps` updates over the updates since the last such row, and over
    the full epoch at its end; for `val` and `test` the scores of `visionkit.metrics.EmbeddingScores`:
    `recall_at_1` (which is also precision at 1), `recall_at_5`, `recall_at_10`, `map_at_r`, each image
    against all others of the split or against the gallery, and `pair_auc`, `pair_eer`,
    `pair_tar_at_far_0.01`, `pair_tar_at_far_0.001`, `pair_accuracy`; `unmatched`, where there are any, is how
    many images have no other one of their class and are no queries.

    Args:
        backbone: A name (`visionkit.backbones.list_backbones`), or your own module with `dim`, giving
            `(B, dim)`, or `levels`, giving maps. Only names can be built again by `load_from_checkpoint`.
        init: "pretrained", "scratch", other pretrained weights of the backbone by name
            ("timm/resnet50.tv_in1k"), or a path to weights (a file, a run, a published folder; a trained
            embedder of the same classes gives its projection too); for your own module, which of the two its
            weights are.
        dim: Length of the vectors, by a linear projection; None: the backbone's features as they are.
        loss: "arcface" or "cosface": a learnt vector for each class, and a margin. "triplet": batch-hard
            triplets. "contrastive": pairs. "supcon": supervised contrastive. See
            `visionkit.nn.embedding.losses`.
        num_classes: Classes of training, for "arcface" and "cosface".
        margin: Margin of the loss; if not given 0.5 (arcface), 0.35 (cosface), 0.2 (triplet) or 1
            (contrastive).
        scale: Factor of the cosines for "arcface" and "cosface".
        temperature: For "supcon".
        select_by: The score by which weights are chosen.
        ways: Classes of few-shot episodes, logged as `Nway_Kshot` beside the other scores; 0: none.
        shots: The Ks: known images of each class of an episode.
        transfer: Initialisation and freezing.
        optim: Optimiser settings.
        lr: Peak learning rate of the projection and of the classes' vectors.
        class_names: Names of the training classes.
        in_channels: Channels of the images; trained input layers are adapted.
        image_size: Side, or `(H, W)`, of the images: a network of fixed size is built for it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel, likewise.
        backbone_options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.
        metrics: Metrics of your own, logged as `val/NAME` and `test/NAME` beside the task's; they get vectors
            `(B, D)` and labels `(B,)`. No checkpoint holds them.
        origin: Where the weights came from, as a checkpoint remembers it; leave it out.

    Raises:
        InputError: Settings that do not fit together; the text says which.
    """

    scores: EmbeddingScores
    truth = "labels"
    scored = ("scores",)

    def __init__(
        self,
        backbone: str | nn.Module | Mapping[str, Any],
        *,
        init: Init,
        dim: int | None = None,
        loss: LossName = "arcface",
        num_classes: int | None = None,
        margin: float | None = None,
        scale: float = 32.0,
        temperature: float = 0.1,
        select_by: str = "recall_at_1",
        ways: int = 0,
        shots: Sequence[int] = (1, 5),
        transfer: TransferConfig = _TRANSFER,
        optim: OptimConfig = _OPTIM,
        lr: float = 1e-3,
        class_names: Sequence[str] | None = None,
        in_channels: int = 3,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        metrics: Metrics | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self.loss = EmbeddingLoss(loss, margin=margin, scale=scale, temperature=temperature)
        if dim is not None:
            check_number("dim", dim, limits(min=1), whole=True)
        if num_classes is not None:
            check_number("num_classes", num_classes, limits(min=2), whole=True)
            check_names(class_names, num_classes)
        if self.loss.of_classes and num_classes is None:
            raise InputError(f"Loss {loss!r} learns a vector for each training class: give num_classes.")
        self.num_classes, self.lr = num_classes, lr
        self.optim = config_from(OptimConfig, optim, name="optim")
        builder = BackboneBuilder.of("embedding", arguments)
        self.image_size = builder.images.size
        self._take_backbone(builder, builder.encoder())
        self.dim = int(dim or self.backbone.dim)
        self.projection, self.head = self._new_layers(dim)
        apply_transfer(self.backbone, builder.init, self.transfer)
        self.class_names = None if class_names is None else tuple(class_names)
        self._episodes = ways, tuple(shots)
        self.scores = self._make_scores()["scores"]
        if select_by not in self.scores.names:
            raise unknown_name("select_by", select_by, self.scores.names)
        self.monitor = (f"val/{select_by}", "min" if select_by == "pair_eer" else "max")
        self.loss_terms = {}
        self._take_metrics(metrics, class_names)
        self.train_sums = RunningSums({"loss": (), "count": ()})
        self._save_settings(arguments, optim=self.optim, **builder.saved(self.backbone))
        self.init_note = take_heads(self, init)

    def forward(self, images: Any) -> Tensor:
        """Return vectors `(B, D)` of length 1, in float32.

        Args:
            images: `(B, 3, H, W)` uint8 or float in [0, 1]; or one image, or a list of images of one size
                (`visionkit.tasks.image_inputs`).
        """
        features = self.backbone(self.normalize(self._as_batch(images)))  # (B, dim)
        vectors = features if self.projection is None else self.projection(features)
        return F.normalize(vectors.float(), dim=1)

    @explained
    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, labels, _ = self._read(batch)
        loss = self.loss(self(images), labels, None if self.head is None else self.head.weight)
        self.loss_terms = {"loss": loss.detach()}
        self._log_training(loss=loss.detach() * len(labels), count=len(labels))
        return {"loss": loss}

    def _evaluate(self, batch: Any) -> Tensor | None:
        if is_empty(batch):
            return None
        images, labels, ids = self._read(batch)
        vectors: Tensor = self(images)
        gallery = batch.get("gallery") if isinstance(batch, Mapping) else None
        self.scores.update(vectors, labels, ids, gallery)
        if gallery is None:
            self.extra.update(vectors, labels)
        elif not bool(gallery.all()):
            self.extra.update(vectors[~gallery], labels[~gallery])
        return vectors

    def predict_step(
        self, batch: Any, batch_index: int = 0, dataloader_idx: int = 0
    ) -> list[EmbeddingPrediction]:
        """Return the vector of each image, on the host.

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
            vectors = self(images).cpu()
        names: Sequence[str | None] = ids or [None] * len(vectors)
        return [EmbeddingPrediction(row, name) for row, name in zip(vectors, names, strict=True)]

    def _read(self, batch: Any) -> tuple[Any, Tensor, Sequence[str] | None]:
        return read_labels(batch, "single", self._label_limit(), soft=False)

    def _label_limit(self) -> int:
        """Return what labels must be below: classes that training has not seen are evaluated too."""
        learns = self.training and self.loss.of_classes
        return cast(int, self.num_classes) if learns else torch.iinfo(torch.int64).max

    def _new_layers(self, dim: int | None) -> tuple[nn.Linear | None, nn.Linear | None]:
        """Return the projection and the vectors of the classes, drawn from the run's seed alone."""
        projection = None if dim is None else nn.Linear(self.backbone.dim, dim)
        classes = self.num_classes if self.loss.of_classes else None
        head = None if classes is None else nn.Linear(self.dim, classes, bias=False)
        with seeded_from_run():
            if projection is not None:
                nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
                nn.init.zeros_(projection.bias)
            if head is not None:
                nn.init.normal_(head.weight, std=0.01)
        return projection, head

    def _compute_scores(self) -> dict[str, float]:
        values, result = super()._compute_scores(), self.scores.result
        if values and result is not None and result.alone:
            values["unmatched"] = float(result.alone)
        return values

    def _make_scores(self) -> dict[str, Any]:
        ways, shots = self._episodes
        return {"scores": EmbeddingScores(ways=ways, shots=shots)}
