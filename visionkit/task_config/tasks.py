"""Settings of all tasks but keypoints, and of data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from visionkit.config import limits

__all__ = [
    "DETECTOR_SETTINGS",
    "AttentionConfig",
    "CheckConfig",
    "Decoding",
    "DetectorName",
    "EmbeddingHead",
    "FCOSConfig",
    "RCNNConfig",
    "RNNConfig",
    "RetinaNetConfig",
    "RetrievalConfig",
    "SceneConfig",
    "SegmentationAugment",
    "SegmentationHead",
    "SegmentationViews",
    "SelfCritical",
    "SentenceConfig",
    "VectorFile",
]


DetectorName = Literal["faster_rcnn", "retinanet", "fcos"]
"""The detectors; "faster_rcnn" is Mask R-CNN too."""

DETECTOR_SETTINGS: dict[str, str] = {"faster_rcnn": "rcnn", "retinanet": "retinanet", "fcos": "fcos"}
"""The name of the setting that configures each detector."""


@dataclass(frozen=True)
class CheckConfig:
    """What happens to inputs and updates that cannot be used.

    Args:
        bad_input: raise | skip: what a sample that cannot be read does.
        bad_limit: With skip: the largest fraction of a split that may be left out.
        max_dropped: The largest fraction of the objects, captions, labels or queries that may be left out.
        skip_updates: Updates with a non-finite loss or gradient to leave out before the run stops.
    """

    bad_input: Literal["raise", "skip"] = "raise"
    bad_limit: float = field(default=0.001, metadata=limits(min=0, max=1))
    max_dropped: float = field(default=0.1, metadata=limits(min=0, max=1))
    skip_updates: int = field(default=0, metadata=limits(min=0))


@dataclass(frozen=True)
class SceneConfig:
    """How many of the embedded scenes are composed.

    Args:
        train_size: Images of the training split.
        val_size: Images of the validation split, and of the test split.
    """

    train_size: int = field(default=1000, metadata=limits(min=2))
    val_size: int = field(default=200, metadata=limits(min=1))


@dataclass(frozen=True)
class RCNNConfig:
    """The choices of a Faster R-CNN; the defaults are those of torchvision's `fasterrcnn_resnet50_fpn`.

    Args:
        masks: Add the mask head (Mask R-CNN); the data must have masks.
        keypoint_convs: Convolutions of the keypoint head (Keypoint R-CNN), where there is one.
        keypoint_width: Width of these convolutions; both are most of the cost of a small machine.
        head: "two_fc", or "four_conv" (four convolutions and one fully connected layer).
        head_width: Width of the fully connected layers.
        class_agnostic: One box a region instead of one for each class.
        box_loss: Loss of the box head; the proposal network keeps smooth L1.
        rpn_convs: Convolutions of the proposal network.
        anchor_scales: Side of the anchors of each level, in its own positions.
        anchor_ratios: Height over width of the anchors.
        anchor_spacing: "reduction", or "grid" as torchvision (see `LevelAnchors`).
        proposals_train: Proposals an image in training, before and after suppression.
        proposals_eval: Proposals an image in evaluation; 300 is about three times faster on small machines.
        proposal_samples: Anchors an image in the proposal network's loss.
        box_samples: Proposals an image in the box head's loss.
        score_threshold: Detections below it are dropped.
        nms_threshold: Overlap above which the lower of two detections of a class is dropped.
        detections_per_img: Maximum number of detections an image; above 100, AP counts as many too.
    """

    masks: bool = False
    keypoint_convs: int = field(default=8, metadata=limits(min=0))
    keypoint_width: int = field(default=512, metadata=limits(min=1))
    head: Literal["two_fc", "four_conv"] = "two_fc"
    head_width: int = field(default=1024, metadata=limits(min=1))
    class_agnostic: bool = False
    box_loss: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    rpn_convs: int = field(default=1, metadata=limits(min=1))
    anchor_scales: tuple[float, ...] = field(default=(8.0,), metadata=limits(above=0))
    anchor_ratios: tuple[float, ...] = field(default=(0.5, 1.0, 2.0), metadata=limits(above=0))
    anchor_spacing: Literal["reduction", "grid"] = "reduction"
    proposals_train: int = field(default=2000, metadata=limits(min=1))
    proposals_eval: int = field(default=1000, metadata=limits(min=1))
    proposal_samples: int = field(default=256, metadata=limits(min=1))
    box_samples: int = field(default=512, metadata=limits(min=1))
    score_threshold: float = field(default=0.05, metadata=limits(min=0, max=1))
    nms_threshold: float = field(default=0.5, metadata=limits(min=0, max=1))
    detections_per_img: int = field(default=100, metadata=limits(min=1))


@dataclass(frozen=True)
class RetinaNetConfig:
    """The choices of a RetinaNet; the defaults are those of torchvision's `retinanet_resnet50_fpn`.

    Args:
        convs: Convolutions before the classes, and before the boxes.
        norm: Norm after each of them; a group norm trains from scratch too.
        p6_from: The coarser levels are made from the pyramid's last level (p5) or the backbone's (c5).
        box_loss: Loss of the boxes.
        anchor_scales: Side of the anchors of each level, in its own positions.
        anchor_ratios: Height over width of the anchors.
        anchor_spacing: "reduction", or "grid" as torchvision (see `LevelAnchors`).
        score_threshold: Detections below it are dropped.
        topk_candidates: Detections a level before suppression.
        nms_threshold: Overlap above which the lower of two detections of a class is dropped.
        detections_per_img: Maximum number of detections an image; above 100, AP counts as many too.
    """

    convs: int = field(default=4, metadata=limits(min=0))
    norm: Literal["group", "none"] = "none"
    p6_from: Literal["p5", "c5"] = "p5"
    box_loss: Literal["l1", "smooth_l1", "giou"] = "l1"
    anchor_scales: tuple[float, ...] = field(
        default=(4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)), metadata=limits(above=0)
    )
    anchor_ratios: tuple[float, ...] = field(default=(0.5, 1.0, 2.0), metadata=limits(above=0))
    anchor_spacing: Literal["reduction", "grid"] = "reduction"
    score_threshold: float = field(default=0.05, metadata=limits(min=0, max=1))
    topk_candidates: int = field(default=1000, metadata=limits(min=1))
    nms_threshold: float = field(default=0.5, metadata=limits(min=0, max=1))
    detections_per_img: int = field(default=300, metadata=limits(min=1))


@dataclass(frozen=True)
class FCOSConfig:
    """The choices of an FCOS; the defaults are those of torchvision's `fcos_resnet50_fpn`.

    Args:
        convs: Convolutions before the classes, and before the boxes.
        norm: Norm after each of them.
        center_radius: How near the centre of an object a position must be to learn it, in reductions.
        anchor_spacing: Distance of positions: "reduction", or "grid" as torchvision (see `LevelAnchors`).
        score_threshold: Detections below it are dropped.
        topk_candidates: Detections a level before suppression.
        nms_threshold: Overlap above which the lower of two detections of a class is dropped.
        detections_per_img: Maximum number of detections an image; above 100, AP counts as many too.
    """

    convs: int = field(default=4, metadata=limits(min=0))
    norm: Literal["group", "none"] = "group"
    center_radius: float = field(default=1.5, metadata=limits(above=0))
    anchor_spacing: Literal["reduction", "grid"] = "reduction"
    score_threshold: float = field(default=0.2, metadata=limits(min=0, max=1))
    topk_candidates: int = field(default=1000, metadata=limits(min=1))
    nms_threshold: float = field(default=0.6, metadata=limits(min=0, max=1))
    detections_per_img: int = field(default=100, metadata=limits(min=1))


@dataclass(frozen=True)
class SegmentationHead:
    """Sizes of a segmentation network over its backbone.

    Args:
        channels: Width of the decoder; 0: its own.
        output_stride: Coarsest reduction, by dilation; 0: the decoder's own.
        aux_loss_weight: Weight of an FCN head on the second coarsest map; 0: none.
    """

    channels: int = field(default=0, metadata=limits(min=0))
    output_stride: int = field(default=0, metadata=limits(min=0))
    aux_loss_weight: float = field(default=0.0, metadata=limits(min=0))


@dataclass(frozen=True)
class SegmentationAugment:
    """How training windows are cut out of images and changed.

    Args:
        scale: Smallest and largest random scale of the windows.
        max_class_ratio: Largest fraction of one class in a window.
        photometric: Strength of the changes of colour.
    """

    scale: tuple[float, float] = field(default=(0.5, 2.0), metadata=limits(above=0))
    max_class_ratio: float = field(default=0.75, metadata=limits(above=0, max=1))
    photometric: float = field(default=0.4, metadata=limits(min=0, max=1))


@dataclass(frozen=True)
class SegmentationViews:
    """How images are evaluated: the views whose probabilities are averaged, and the boundary score.

    Args:
        scales: Scales of the views.
        flip: Whether each view is seen mirrored too.
        window: Side of the sliding windows of larger images; 0: the full image at once.
        boundary_tolerance: Tolerance of the boundary score, as a fraction of the diagonal (0.0075); 0: none.
    """

    scales: tuple[float, ...] = field(default=(1.0,), metadata=limits(above=0))
    flip: bool = False
    window: int = field(default=0, metadata=limits(min=0))
    boundary_tolerance: float = field(default=0.0, metadata=limits(min=0, max=1))


@dataclass(frozen=True)
class EmbeddingHead:
    """The vectors of an embedder, and the numbers of its loss.

    Args:
        dim: Length of the vectors, by a linear projection; 0: the backbone's features as they are.
        margin: Margin of the loss; null: that of its paper.
        scale: Factor of the cosines of arcface and cosface.
        temperature: Of supcon.
    """

    dim: int = field(default=128, metadata=limits(min=0))
    margin: float | None = field(default=None, metadata=limits(min=0))
    scale: float = field(default=32.0, metadata=limits(above=0))
    temperature: float = field(default=0.1, metadata=limits(above=0))


@dataclass(frozen=True)
class RetrievalConfig:
    """What images are searched among, and what is scored beside the runs.

    Args:
        gallery: split: the other images of the split | train: those of training.
        baselines: Also score the network off the shelf, eigenimages and pixels, which need no training.
        ways: Classes of a few-shot episode, told apart by a few known images of each; 0: no episodes.
        shots: Known images of each class; a score for each of these.
    """

    gallery: Literal["split", "train"] = "split"
    baselines: bool = field(default=False, metadata={"role": "free"})
    ways: int = field(default=0, metadata=limits(min=0))
    shots: tuple[int, ...] = field(default=(1, 5), metadata=limits(min=1))


@dataclass(frozen=True)
class RNNConfig:
    """The recurrent decoder of a captioner.

    Args:
        cell: lstm | gru.
        embed: Width of embedded words.
        hidden: Width of the decoder's state.
        dropout: Fraction of embedded words and outputs dropped.
    """

    cell: Literal["lstm", "gru"] = "lstm"
    embed: int = field(default=128, metadata=limits(min=1))
    hidden: int = field(default=256, metadata=limits(min=1))
    dropout: float = field(default=0.3, metadata=limits(min=0, below=1))


@dataclass(frozen=True)
class SentenceConfig:
    """What a captioner learns of its captions.

    Args:
        per_image: Captions trained on each time an image is seen.
        min_count: How often a word must occur in the training captions.
        label_smoothing: Mass moved from the true word to all.
        scheduled_sampling: Fraction of sampled input words at the end.
    """

    per_image: int = field(default=4, metadata=limits(min=1))
    min_count: int = field(default=5, metadata=limits(min=1))
    label_smoothing: float = field(default=0.0, metadata=limits(min=0, below=1))
    scheduled_sampling: float = field(default=0.0, metadata=limits(min=0, max=1))


@dataclass(frozen=True)
class AttentionConfig:
    """The map that a captioner attends to.

    Args:
        reduction: Input pixels per cell of the map; 0: the coarsest.
        output_stride: Dilate the backbone to this reduction; 0: as it is.
        positions: Add the position of each cell to its vector (not in the papers).
        coverage: Weight of the doubly stochastic term (Xu et al. 2015).
    """

    reduction: int = field(default=16, metadata=limits(min=0))
    output_stride: int = field(default=0, metadata=limits(min=0))
    positions: bool = True
    coverage: float = field(default=0.0, metadata=limits(min=0))


@dataclass(frozen=True)
class VectorFile:
    """Word vectors that embeddings start from. Which fraction of the vocabulary they cover is in each result.

    Args:
        file: GloVe, word2vec (text or binary) or fastText's .vec, compressed or not.
        use: random | pretrained | frozen, or all, one after another.
    """

    file: str = ""
    use: Literal["random", "pretrained", "frozen", "all"] = "random"


@dataclass(frozen=True)
class Decoding:
    """How captions are generated in evaluation and prediction.

    Args:
        beams: Beams an image; 1 takes the most likely word each time.
        n_best: Captions returned in prediction, the best first.
        max_length: Maximum length in words, the end token included.
        length_penalty: Above 0 favours long captions (Wu et al. 2016).
        block_trigrams: Never generate three words in a row twice.
        bad_endings: Whether a caption may end in "a", "of" and the like.
        groups: Groups of beams that are kept apart (diverse beam search).
        diversity: How strongly.
    """

    beams: int = field(default=3, metadata=limits(min=1))
    n_best: int = field(default=1, metadata=limits(min=1))
    max_length: int = field(default=20, metadata=limits(min=2))
    length_penalty: float = field(default=0.0, metadata=limits(min=0))
    block_trigrams: bool = False
    bad_endings: bool = False
    groups: int = field(default=1, metadata=limits(min=1))
    diversity: float = field(default=0.5, metadata=limits(min=0))


@dataclass(frozen=True)
class SelfCritical:
    """Self-critical training: sampled captions are rewarded with CIDEr-D over a baseline.

    Args:
        start_images: Images seen before it begins; until then the cross-entropy is trained. 0 begins at once,
            null never.
        baseline: "greedy": the most likely caption's reward (Rennie et al., CVPR 2017). "mean": that of the
            image's other samples (Luo, "A Better Variant of Self-Critical Sequence Training", 2020). "beam":
            the best beam's.
        samples: Captions sampled for each image; at least 2 for "mean".
        temperature: Of the samples.
        seed: Of the samples: they are a function of (seed, update, image), on any number of processes.
    """

    start_images: int | None = field(default=0, metadata=limits(min=0))
    baseline: Literal["greedy", "mean", "beam"] = "mean"
    samples: int = field(default=5, metadata=limits(min=1))
    temperature: float = field(default=1.0, metadata=limits(above=0))
    seed: int = field(default=0, metadata=limits(min=0))

    def begun(self, seen: float) -> bool:
        """Return whether a step after `seen` images is self-critical."""
        return self.start_images is not None and seen >= self.start_images
