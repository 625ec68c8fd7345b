"""Readers, order, geometry and batches: data know nothing of models."""

from visionkit.data.collate import caption_batch, list_batch, mask_batch, stack_batch
from visionkit.data.datamodule import DataModule, KeyedDataset
from visionkit.data.geometry import crop_resize, flip
from visionkit.data.order import EvalOrder, TrainOrder, keyed_generator, keyed_seed
from visionkit.data.read_image import MAX_PIXELS, PICTURE_SUFFIXES, inside, read_image, read_size
from visionkit.data.scenes import Scene, SceneObject, Scenes, scenes
from visionkit.data.splits import Splits, Subset, fingerprint, holdout, subset
from visionkit.data.transforms import (
    Augment,
    CenterCrop,
    Compose,
    Flip,
    RandomResizedCrop,
    Resize,
    Transform,
    classification_eval,
    classification_train,
)

__all__ = [
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "Augment",
    "CenterCrop",
    "Compose",
    "DataModule",
    "EvalOrder",
    "Flip",
    "KeyedDataset",
    "RandomResizedCrop",
    "Resize",
    "Scene",
    "SceneObject",
    "Scenes",
    "Splits",
    "Subset",
    "TrainOrder",
    "Transform",
    "caption_batch",
    "classification_eval",
    "classification_train",
    "crop_resize",
    "fingerprint",
    "flip",
    "holdout",
    "inside",
    "keyed_generator",
    "keyed_seed",
    "list_batch",
    "mask_batch",
    "read_image",
    "read_size",
    "scenes",
    "stack_batch",
    "subset",
]
