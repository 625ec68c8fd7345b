"""Readers, order, geometry and batches: data know nothing of models."""

from visionkit.data.collate import caption_batch, list_batch, mask_batch, stack_batch
from visionkit.data.datamodule import DataModule, KeyedDataset
from visionkit.data.formats.captions.reader import (
    Captions,
    DrawCaptions,
    caption_data,
    captions_of,
    check_captions,
)
from visionkit.data.formats.coco.reader import CocoReader, check_coco, coco, coco_results
from visionkit.data.formats.csv.reader import Table, image_table
from visionkit.data.formats.dataset_report import DatasetReport, check_dataset
from visionkit.data.formats.folder.reader import ImageFolder, image_folder
from visionkit.data.formats.open import (
    FORMATS,
    TASKS,
    Format,
    Task,
    detect_formats,
    open_dataset,
)
from visionkit.data.formats.options import OpenOptions, SceneSizes
from visionkit.data.formats.validate import (
    SkipFaulty,
    check_folder,
    check_images,
    check_reader,
    check_table,
)
from visionkit.data.pack.layout import PackSettings
from visionkit.data.pack.reader import PackedReader, check_pack, is_pack, open_pack
from visionkit.data.pack.writer import pack
from visionkit.data.read_image import IMAGE_SUFFIXES, MAX_PIXELS, inside, read_image, read_size
from visionkit.data.samplers import EvalOrder, TrainOrder
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
    Flip,
    RandomResizedCrop,
    Resize,
    Transform,
    classification_eval,
    classification_train,
)
from visionkit.data.transforms.geometry import crop_resize, flip
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter, check_share
from visionkit.rng import keyed_generator, keyed_seed

__all__ = [
    "FORMATS",
    "HOLDOUT",
    "IMAGE_SUFFIXES",
    "MAX_DROPPED",
    "MAX_PIXELS",
    "SPLIT_ALIASES",
    "TASKS",
    "Augment",
    "BatchTransform",
    "Captions",
    "CenterCrop",
    "ChainBatch",
    "CocoReader",
    "Compose",
    "CutmixBatch",
    "DataModule",
    "DatasetReport",
    "DrawCaptions",
    "EraseBatch",
    "EvalOrder",
    "Flip",
    "FlipBatch",
    "Format",
    "ImageFolder",
    "KeyedDataset",
    "MixupBatch",
    "Notice",
    "NoticeCounter",
    "OneOfBatch",
    "OpenOptions",
    "PackSettings",
    "PackedReader",
    "RandomResizedCrop",
    "Resize",
    "Scene",
    "SceneObject",
    "SceneSizes",
    "Scenes",
    "SkipFaulty",
    "Splits",
    "Subset",
    "Table",
    "Task",
    "TrainOrder",
    "Transform",
    "batch_transform",
    "caption_batch",
    "caption_data",
    "captions_of",
    "check_captions",
    "check_coco",
    "check_dataset",
    "check_folder",
    "check_images",
    "check_pack",
    "check_reader",
    "check_share",
    "check_table",
    "classification_eval",
    "classification_train",
    "coco",
    "coco_results",
    "crop_resize",
    "detect_formats",
    "fingerprint",
    "flip",
    "holdout",
    "image_folder",
    "image_table",
    "inside",
    "is_pack",
    "keyed_generator",
    "keyed_seed",
    "list_batch",
    "mask_batch",
    "open_dataset",
    "open_pack",
    "pack",
    "read_image",
    "read_size",
    "scenes",
    "stack_batch",
    "subset",
]
