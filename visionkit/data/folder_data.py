"""A data module that a configuration file alone can describe: a path, a task and a size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from visionkit.config import StreamConfig
from visionkit.data.collate import caption_batch, keypoint_batch, list_batch, mask_batch, stack_batch
from visionkit.data.datamodule import BatchTransform, DataModule
from visionkit.data.formats.captions.reader import DrawCaptions, captions_of
from visionkit.data.formats.keypoints.per_object import per_object
from visionkit.data.formats.keypoints.skeleton import Skeleton, skeleton_of
from visionkit.data.formats.open import TASKS, Task, open_dataset
from visionkit.data.formats.options import OpenOptions, SceneSizes
from visionkit.data.keyed_dataset import Collate, Transform
from visionkit.data.splits import subset
from visionkit.data.transforms.classification import (
    Compose,
    Resize,
    classification_eval,
    classification_train,
)
from visionkit.data.transforms.detection import detection_eval, detection_train
from visionkit.data.transforms.keyed import Keyed
from visionkit.data.transforms.keypoints import keypoint_eval, keypoint_train
from visionkit.data.transforms.segmentation import segmentation_eval, segmentation_train
from visionkit.errors import InputError, expected, unknown_name
from visionkit.text.vocabulary import Vocabulary

__all__ = ["FolderData", "TrainingVocabulary"]


class FolderData(DataModule):
    """The data of a folder or a file, in any format that is read, with the usual transforms of a task.

    Every setting is a plain value, so `LightningCLI(Classifier, FolderData)` runs from a YAML file.

    Args:
        root: A folder, a file, or "scenes".
        task: "classification", "detection", "segmentation", "captioning" or "keypoints" (an object a
            sample, for a `KeypointRegressor`; see `whole_images`).
        image_size: Side of the training images in pixels; for detection the short side.
        batch_size: Samples a batch of one process.
        eval_batch_size: Samples an evaluation batch; `batch_size` if 0.
        seed: Seed of order, draws and the subset of `fraction`.
        fraction: Fraction of the training split that is used.
        workers: Worker processes of each loader.
        target: Classification: what the targets of a table are.
        masks: Detection: read the outlines of the objects too.
        whole_images: Keypoints: an image a sample with all its objects, for a `Detector` with keypoints.
        min_count: Captioning: how often a word must occur in the training captions.
        captions_per_image: Captioning: sentences trained on each time an image is seen.
        train_transform: In place of the usual one: of ours, or of torchvision or albumentations, which is
            keyed (`Keyed`).
        batch_transform: Runs over training batches on the device.
        reduced_jpegs: Classification and captioning: decode large JPEGs at 1/2, 1/4 or 1/8 (see
            `classification_train`), of training and evaluation.
        scenes: How many scenes are composed for "scenes": training, validation.
        stream: Where the shards are kept, if `root` is the address of a pack.

    Attributes:
        num_classes: How many classes there are; of a table of numbers, its columns.
        class_names: Their names.
        skeleton: Keypoints: names and edges of the points; else None.

    Raises:
        DataError: The data cannot be read.
        InputError: No such task, a number is out of range, or whole images or reduced JPEGs were asked for of
            a task that has none.
    """

    def __init__(
        self,
        root: str,
        *,
        task: Task,
        image_size: int = 224,
        batch_size: int = 32,
        eval_batch_size: int = 0,
        seed: int = 0,
        fraction: float = 1.0,
        workers: int = 0,
        target: Literal["single", "multi", "regression"] = "single",
        masks: bool = False,
        whole_images: bool = False,
        min_count: int = 5,
        captions_per_image: int = 1,
        train_transform: Callable[..., Any] | None = None,
        batch_transform: BatchTransform | None = None,
        reduced_jpegs: bool = False,
        scenes: tuple[int, int] = (1000, 200),
        stream: StreamConfig | None = None,
    ) -> None:
        if task not in TASKS:
            raise unknown_name("task", str(task), TASKS)
        if image_size < 1:
            raise InputError(f"Expected image_size to be at least 1 pixel, but got {image_size}.")
        if whole_images and task != "keypoints":
            raise InputError(f"whole_images belongs to task='keypoints', but this is {task!r}. Leave it out.")
        if reduced_jpegs and task not in ("classification", "captioning"):
            fix = "Leave it out: boxes, masks and points are of pixels."
            raise InputError(
                expected("the task with reduced_jpegs", "classification or captioning", task, fix=fix)
            )
        sizes = SceneSizes(image_size, scenes[0], scenes[1])
        options = OpenOptions(target=target, masks=masks, scenes=sizes, stream=stream or StreamConfig())
        splits = open_dataset(root, task, options)
        self.skeleton = skeleton_of(splits) if task == "keypoints" else None
        if task == "keypoints" and not whole_images:
            splits = per_object(splits)
        shown: Task = "detection" if whole_images else task
        train, evaluate = _geometry(shown, image_size, self.skeleton, reduced_jpegs)
        if train_transform is not None:
            train = _own(train_transform)
        self.vocabulary = (
            _vocabulary(splits.train, fraction, seed, min_count) if task == "captioning" else None
        )
        super().__init__(
            splits,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size or None,
            train_transform=train,
            eval_transform=evaluate,
            collate=_collate(shown, self.vocabulary, captions_per_image),
            batch_transform=batch_transform,
            seed=seed,
            fraction=fraction,
            workers=workers,
        )
        self.class_names = splits.classes
        self.num_classes = len(splits.classes)


class TrainingVocabulary(Vocabulary):
    """The words of a data set's training captions, as `FolderData` has them with the same settings.

    Args:
        root: The data set.
        min_count: How often a word must occur.
        fraction: Fraction of the training split that is used.
        seed: Seed of the subset.
        train: How many scenes are composed for "scenes".

    Raises:
        DataError: The data cannot be read.
        InputError: No word is left.
    """

    def __init__(
        self, root: str, *, min_count: int = 5, fraction: float = 1.0, seed: int = 0, train: int = 1000
    ) -> None:
        options = OpenOptions(scenes=SceneSizes(train=train))
        reader = open_dataset(root, "captioning", options).train
        super().__init__(_vocabulary(reader, fraction, seed, min_count).to_dict()["words"])


def _vocabulary(reader: Any, fraction: float, seed: int, min_count: int) -> Vocabulary:
    captions = captions_of(subset(reader, fraction, seed=seed))
    return Vocabulary.build((text for texts in captions for text in texts), min_count=min_count)


def _geometry(
    task: Task, size: int, skeleton: Skeleton | None, reduced_jpegs: bool
) -> tuple[Transform, Transform]:
    """Return the usual transforms of training and evaluation, as the recipes have them."""
    # Which points a mirror swaps may not be known: a notice of the data says so.
    flip = 0.5 if skeleton is None or skeleton.flip is not None else 0.0
    evaluate = classification_eval(size, reduced_jpegs=reduced_jpegs)
    if task == "classification":
        return classification_train(size, reduced_jpegs=reduced_jpegs), evaluate
    if task == "detection":
        return detection_train(size, flip=flip), detection_eval(size)
    if task == "segmentation":
        return segmentation_train((size, size)), segmentation_eval()
    if task == "keypoints":
        return keypoint_train(size, flip=flip), keypoint_eval(size)
    # never a mirror, which would make "left of" untrue
    return Compose((DrawCaptions(), Resize((size, size), reduced_jpegs=reduced_jpegs))), evaluate


def _own(transform: Callable[..., Any]) -> Transform:
    ours = type(transform).__module__.startswith("visionkit.")
    return transform if ours else Keyed(transform)


def _collate(task: Task, vocabulary: Vocabulary | None, captions_per_image: int) -> Collate:
    if vocabulary is not None:
        return partial(caption_batch, encode=vocabulary.encode, captions_per_image=captions_per_image)
    collates: dict[str, Collate] = {
        "classification": stack_batch, "detection": list_batch, "segmentation": mask_batch,
        "keypoints": keypoint_batch,
    }  # fmt: skip
    return collates[task]
