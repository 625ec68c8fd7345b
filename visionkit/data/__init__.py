"""Data sets, samplers, transforms, packs and the `DataModule`; nothing here knows of models.

Names are imported when used: reading and checking files needs no Lightning.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.data.class_balance import balanced_weights, image_counts, pixel_counts
    from visionkit.data.collate import caption_batch, keypoint_batch, list_batch, mask_batch, stack_batch
    from visionkit.data.data_card import data_card
    from visionkit.data.datamodule import DataModule
    from visionkit.data.folder_data import FolderData, TrainingVocabulary
    from visionkit.data.formats.box_records import note_crowded
    from visionkit.data.formats.captions.reader import (
        Captions,
        DrawCaptions,
        caption_data,
        captions_of,
        check_captions,
    )
    from visionkit.data.formats.coco.boxes import check_coco, coco
    from visionkit.data.formats.coco.reader import CocoReader, coco_results
    from visionkit.data.formats.csv.reader import Table, image_table
    from visionkit.data.formats.dataset_report import DatasetReport, check_dataset
    from visionkit.data.formats.folder.reader import ImageFolder, image_folder
    from visionkit.data.formats.huggingface.boxes import huggingface_boxes
    from visionkit.data.formats.huggingface.classes import huggingface_classes
    from visionkit.data.formats.keypoints.coco import CocoKeypoints, coco_keypoints
    from visionkit.data.formats.keypoints.per_object import ObjectReader, per_object
    from visionkit.data.formats.keypoints.skeleton import Skeleton, skeleton_of
    from visionkit.data.formats.keypoints.table import PointTable, point_table
    from visionkit.data.formats.labelme import labelme_boxes
    from visionkit.data.formats.labelme_class_maps import labelme_class_maps
    from visionkit.data.formats.masks.reader import mask_folder
    from visionkit.data.formats.masks.sources import open_masks
    from visionkit.data.formats.masks.validate import check_masks
    from visionkit.data.formats.open import FORMATS, TASKS, Format, Task, detect_formats, open_dataset
    from visionkit.data.formats.options import OpenOptions, SceneSizes
    from visionkit.data.formats.source import check_reader
    from visionkit.data.formats.supervisely import supervisely_boxes
    from visionkit.data.formats.validate import check_folder, check_table
    from visionkit.data.formats.voc.reader import check_voc, voc
    from visionkit.data.formats.webdataset.reader import webdataset
    from visionkit.data.formats.yolo.reader import check_yolo, yolo
    from visionkit.data.keyed_dataset import KeyedDataset, drop_unreadable
    from visionkit.data.pack.layout import PackSettings
    from visionkit.data.pack.reader import PackedReader, check_pack, open_pack
    from visionkit.data.pack.shard_sampler import ShardBatchSampler
    from visionkit.data.pack.stream import StreamedReader, open_stream
    from visionkit.data.pack.writer import pack
    from visionkit.data.read_channels import read_channels
    from visionkit.data.read_image import check_images, read_image, read_size
    from visionkit.data.samplers import (
        BalancedBatchSampler,
        EvalBatchSampler,
        IdentityBatchSampler,
        TrainBatchSampler,
    )
    from visionkit.data.scenes.scenes import Scene, SceneObject, Scenes, scenes
    from visionkit.data.splits import HOLDOUT, SPLIT_ALIASES, Splits, Subset, fingerprint, holdout, subset
    from visionkit.data.transforms.batch import (
        BatchTransform,
        ChainBatch,
        CutmixBatch,
        EraseBatch,
        FlipBatch,
        MixupBatch,
        OneOfBatch,
        batch_transform,
    )
    from visionkit.data.transforms.classification import (
        Augment,
        CenterCrop,
        Compose,
        RandomHorizontalFlip,
        RandomResizedCrop,
        Resize,
        Transform,
        classification_eval,
        classification_train,
    )
    from visionkit.data.transforms.detection import (
        CopyPaste,
        DetectionEval,
        LargeScaleJitter,
        ScaleJitter,
        aspect_groups,
        detection_eval,
        detection_train,
    )
    from visionkit.data.transforms.geometry import affine, crop_resize, flip
    from visionkit.data.transforms.keyed import Keyed, KeyedBatch
    from visionkit.data.transforms.keypoints import (
        KeypointCrop,
        KeypointJitter,
        keypoint_eval,
        keypoint_train,
    )
    from visionkit.data.transforms.segmentation import (
        Photometric,
        ScaleCrop,
        segmentation_eval,
        segmentation_train,
    )
    from visionkit.data.unseen_classes import hold_out_classes, require_pairs, training_classes
    from visionkit.notices import Notice

__all__ = [
    "FORMATS",
    "HOLDOUT",
    "SPLIT_ALIASES",
    "TASKS",
    "Augment",
    "BalancedBatchSampler",
    "BatchTransform",
    "Captions",
    "CenterCrop",
    "ChainBatch",
    "CocoKeypoints",
    "CocoReader",
    "Compose",
    "CopyPaste",
    "CutmixBatch",
    "DataModule",
    "DatasetReport",
    "DetectionEval",
    "DrawCaptions",
    "EraseBatch",
    "EvalBatchSampler",
    "FlipBatch",
    "FolderData",
    "Format",
    "IdentityBatchSampler",
    "ImageFolder",
    "Keyed",
    "KeyedBatch",
    "KeyedDataset",
    "KeypointCrop",
    "KeypointJitter",
    "LargeScaleJitter",
    "MixupBatch",
    "Notice",
    "ObjectReader",
    "OneOfBatch",
    "OpenOptions",
    "PackSettings",
    "PackedReader",
    "Photometric",
    "PointTable",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "ScaleCrop",
    "ScaleJitter",
    "Scene",
    "SceneObject",
    "SceneSizes",
    "Scenes",
    "ShardBatchSampler",
    "Skeleton",
    "Splits",
    "StreamedReader",
    "Subset",
    "Table",
    "Task",
    "TrainBatchSampler",
    "TrainingVocabulary",
    "Transform",
    "affine",
    "aspect_groups",
    "balanced_weights",
    "batch_transform",
    "caption_batch",
    "caption_data",
    "captions_of",
    "check_captions",
    "check_coco",
    "check_dataset",
    "check_folder",
    "check_images",
    "check_masks",
    "check_pack",
    "check_reader",
    "check_table",
    "check_voc",
    "check_yolo",
    "classification_eval",
    "classification_train",
    "coco",
    "coco_keypoints",
    "coco_results",
    "crop_resize",
    "data_card",
    "detect_formats",
    "detection_eval",
    "detection_train",
    "drop_unreadable",
    "fingerprint",
    "flip",
    "hold_out_classes",
    "holdout",
    "huggingface_boxes",
    "huggingface_classes",
    "image_counts",
    "image_folder",
    "image_table",
    "keypoint_batch",
    "keypoint_eval",
    "keypoint_train",
    "labelme_boxes",
    "labelme_class_maps",
    "list_batch",
    "mask_batch",
    "mask_folder",
    "note_crowded",
    "open_dataset",
    "open_masks",
    "open_pack",
    "open_stream",
    "pack",
    "per_object",
    "pixel_counts",
    "point_table",
    "read_channels",
    "read_image",
    "read_size",
    "require_pairs",
    "scenes",
    "segmentation_eval",
    "segmentation_train",
    "skeleton_of",
    "stack_batch",
    "subset",
    "supervisely_boxes",
    "training_classes",
    "voc",
    "webdataset",
    "yolo",
]

_HOMES = {
    "data.class_balance": ("balanced_weights", "image_counts", "pixel_counts"),
    "data.collate": ("caption_batch", "keypoint_batch", "list_batch", "mask_batch", "stack_batch"),
    "data.data_card": ("data_card",),
    "data.datamodule": ("DataModule",),
    "data.folder_data": ("FolderData", "TrainingVocabulary"),
    "data.formats.box_records": ("note_crowded",),
    "data.formats.captions.reader": (
        "Captions",
        "DrawCaptions",
        "caption_data",
        "captions_of",
        "check_captions",
    ),
    "data.formats.coco.boxes": ("check_coco", "coco"),
    "data.formats.coco.reader": ("CocoReader", "coco_results"),
    "data.formats.csv.reader": ("Table", "image_table"),
    "data.formats.dataset_report": ("DatasetReport", "check_dataset"),
    "data.formats.folder.reader": ("ImageFolder", "image_folder"),
    "data.formats.huggingface.boxes": ("huggingface_boxes",),
    "data.formats.huggingface.classes": ("huggingface_classes",),
    "data.formats.keypoints.coco": ("CocoKeypoints", "coco_keypoints"),
    "data.formats.keypoints.per_object": ("ObjectReader", "per_object"),
    "data.formats.keypoints.skeleton": ("Skeleton", "skeleton_of"),
    "data.formats.keypoints.table": ("PointTable", "point_table"),
    "data.formats.labelme": ("labelme_boxes",),
    "data.formats.labelme_class_maps": ("labelme_class_maps",),
    "data.formats.masks.reader": ("mask_folder",),
    "data.formats.masks.sources": ("open_masks",),
    "data.formats.masks.validate": ("check_masks",),
    "data.formats.open": ("FORMATS", "TASKS", "Format", "Task", "detect_formats", "open_dataset"),
    "data.formats.options": ("OpenOptions", "SceneSizes"),
    "data.formats.source": ("check_reader",),
    "data.formats.supervisely": ("supervisely_boxes",),
    "data.formats.validate": ("check_folder", "check_table"),
    "data.formats.voc.reader": ("check_voc", "voc"),
    "data.formats.webdataset.reader": ("webdataset",),
    "data.formats.yolo.reader": ("check_yolo", "yolo"),
    "data.keyed_dataset": ("KeyedDataset", "drop_unreadable"),
    "data.pack.layout": ("PackSettings",),
    "data.pack.reader": ("PackedReader", "check_pack", "open_pack"),
    "data.pack.shard_sampler": ("ShardBatchSampler",),
    "data.pack.stream": ("StreamedReader", "open_stream"),
    "data.pack.writer": ("pack",),
    "data.read_channels": ("read_channels",),
    "data.read_image": ("check_images", "read_image", "read_size"),
    "data.samplers": (
        "BalancedBatchSampler",
        "EvalBatchSampler",
        "IdentityBatchSampler",
        "TrainBatchSampler",
    ),
    "data.scenes.scenes": ("Scene", "SceneObject", "Scenes", "scenes"),
    "data.splits": ("HOLDOUT", "SPLIT_ALIASES", "Splits", "Subset", "fingerprint", "holdout", "subset"),
    "data.transforms.batch": (
        "BatchTransform",
        "ChainBatch",
        "CutmixBatch",
        "EraseBatch",
        "FlipBatch",
        "MixupBatch",
        "OneOfBatch",
        "batch_transform",
    ),
    "data.transforms.classification": (
        "Augment",
        "CenterCrop",
        "Compose",
        "RandomHorizontalFlip",
        "RandomResizedCrop",
        "Resize",
        "Transform",
        "classification_eval",
        "classification_train",
    ),
    "data.transforms.detection": (
        "CopyPaste",
        "DetectionEval",
        "LargeScaleJitter",
        "ScaleJitter",
        "aspect_groups",
        "detection_eval",
        "detection_train",
    ),
    "data.transforms.geometry": ("affine", "crop_resize", "flip"),
    "data.transforms.keyed": ("Keyed", "KeyedBatch"),
    "data.transforms.keypoints": ("KeypointCrop", "KeypointJitter", "keypoint_eval", "keypoint_train"),
    "data.transforms.segmentation": ("Photometric", "ScaleCrop", "segmentation_eval", "segmentation_train"),
    "data.unseen_classes": ("hold_out_classes", "require_pairs", "training_classes"),
    "notices": ("Notice",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """The package, of which functions such as `pack` and `read_image` have the names of modules in it."""

    def __setattr__(self, name: str, value: Any) -> None:
        # An import of such a module would otherwise put it where the function is looked for.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"visionkit.{_HOME[name]}"), name)
