"""Types that several packages use: keys, samples, batches, readers, with their shapes.

torch is imported for type checkers only, so that configuration can use `Init` without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypedDict, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "CaptionBatch",
    "ClassificationBatch",
    "DetectionBatch",
    "DetectionTarget",
    "Init",
    "Key",
    "KeypointBatch",
    "Reader",
    "Sample",
    "SegmentationBatch",
    "Truth",
    "as_ids",
    "init_is_path",
]

Init: TypeAlias = str
"""Where the backbone's weights come from: "pretrained", "scratch", other pretrained weights of the same
architecture by name ("timm/resnet50.tv_in1k"), or a path to a weights file."""

SOURCES = ("packaged", "timm", "torchvision")
"""The prefixes of names in the registry of backbones."""


def init_is_path(init: Init) -> bool:
    """Return whether an `init` is a path: neither a word nor the name of weights in the registry.

    A path that exists is one, whatever it is called.
    """
    if init in ("pretrained", "scratch"):
        return False
    return init.partition("/")[0] not in SOURCES or Path(init).expanduser().exists()


class Key(NamedTuple):
    """What a sampler yields and a data set takes; the draws of augmentation are a function of both."""

    epoch: int
    index: int  # type: ignore[assignment]  # a field, as samplers call it; tuple.index is not used


class Truth(TypedDict, total=False):
    """The objects of one image as the annotation file has them: nothing is cut, resized or left out.

    Training boxes are cut at the border of the image and resized with it; metrics compare with these.
    """

    boxes: NDArray[np.float64]  # (N, 4) absolute xyxy in the frame of the original image
    labels: NDArray[np.int64]  # (N,)
    iscrowd: NDArray[np.int64]  # (N,) 0/1
    area: NDArray[np.float64]  # (N,) annotated area; NaN: that of the box, or of the mask
    masks: list[dict[str, Any]]  # N run lengths {"size": [H, W], "counts": bytes}, of pycocotools
    keypoints: NDArray[np.float64]  # (N, K, 3) x, y and the file's flag: above 0 is labelled
    image_id: int  # the id of the image in the file, where it has one


class Sample(TypedDict, total=False):
    """One image with its annotations. Geometry changes all spatial fields together."""

    image: Tensor  # (3, H, W) uint8, RGB
    id: str  # name of the image in errors and predictions
    label: Tensor  # () int64 class; (K,) float32 multi-label 0/1; (K,) float32 regression targets
    boxes: Tensor  # (N, 4) float32, absolute xyxy
    labels: Tensor  # (N,) int64, 0 .. num_classes-1 (foreground only; the detector adds background)
    masks: Tensor  # (N, H, W) uint8 0/1, one a box
    iscrowd: Tensor  # (N,) int64 0/1
    area: Tensor  # (N,) float64, annotated area in the original image: small, medium or large
    mask: Tensor  # (H, W) int64 class map
    keypoints: Tensor  # (N, K, 3) float32 x, y, flag: 0 not labelled, 1 hidden, 2 visible; one row a box
    keypoint_flip: Tensor  # (K,) int64 the point that each one is in the mirrored image
    region: Tensor  # (4,) float32 xyxy: what `image` shows of the original image, for one object a sample
    truth: Truth  # the objects as the annotation file has them, for metrics
    captions: list[str]  # every reference sentence
    gallery: Tensor  # () bool, whether others are searched for among such images, and none with it
    size: tuple[int, int]  # (H, W) of the original image, before any geometry


class ClassificationBatch(TypedDict):
    """A batch for `Classifier`."""

    images: Tensor  # (B, 3, H, W) uint8 (or float in [0, 1])
    labels: Tensor  # (B,) int64, or (B, K) float32
    ids: list[str]


class DetectionTarget(TypedDict, total=False):
    """The objects of one image for `Detector`."""

    boxes: Tensor  # (N, 4) float32, absolute xyxy in the frame of the batch's image
    labels: Tensor  # (N,) int64, 0 .. num_classes-1
    masks: Tensor  # (N, H, W) uint8
    iscrowd: Tensor  # (N,) int64
    area: Tensor  # (N,) float64, in the original image
    size: tuple[int, int]  # (H, W) of the original image
    truth: Truth  # the objects in the original image, unchanged; metrics compare with it


class DetectionBatch(TypedDict):
    """A batch for `Detector`: images may differ in size."""

    images: list[Tensor]  # each (3, H, W) uint8 (or float in [0, 1])
    targets: list[DetectionTarget]
    ids: list[str]


class KeypointBatch(TypedDict):
    """A batch of `keypoint_batch`: one object an image."""

    images: Tensor  # (B, 3, H, W) uint8 (or float in [0, 1])
    keypoints: Tensor  # (B, K, 3) float32 x, y in pixels of the batch's images, flag
    regions: Tensor  # (B, 4) float32 xyxy: what each image shows of its original
    truths: list[Truth]  # the object in the original image; metrics compare with it
    ids: list[str]


class SegmentationBatch(TypedDict):
    """A batch for `Segmenter`. In evaluation images have their native sizes: lists instead of stacks."""

    images: Tensor | list[Tensor]  # (B, 3, H, W) uint8, or a list of (3, H, W)
    masks: Tensor | list[Tensor]  # (B, H, W) int64, or a list of (H, W)
    ids: list[str]


class CaptionBatch(TypedDict):
    """A batch for `Captioner`."""

    images: Tensor  # (B, 3, H, W) uint8 (or float in [0, 1])
    tokens: Tensor  # (B, L) int64, <bos> w1 .. wn <eos> <pad> ...; (B, K, L) for K sentences an image
    references: list[list[str]]  # every reference sentence of each image, raw text
    ids: list[str]


@runtime_checkable
class Reader(Protocol):
    """A data set without augmentation: a sequence of samples."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`; raise `DataError` naming file and field when it cannot be read."""
        ...


def as_ids(value: Any) -> list[str] | None:
    """Return the ids of a batch as text, whatever their type; None where the batch has none.

    Args:
        value: None, one id, or a sequence of them: text, integers, paths, a tensor or an array of numbers, as
            torch's default collate makes them.

    Returns:
        One text an image; an empty list for an empty batch. The number 0 is an id as any other.
    """
    if value is None:
        return None
    if hasattr(value, "tolist"):  # a tensor or an array
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_id(item.tolist() if hasattr(item, "tolist") else item) for item in value]
    return [_as_id(value)]


def _as_id(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
