"""The one way to open a data set: tell its format by what lies there, and read it for a task."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from visionkit.data.formats.captions.reader import caption_data, check_captions
from visionkit.data.formats.captions.records import is_captions
from visionkit.data.formats.coco.reader import check_coco, coco, is_coco
from visionkit.data.formats.csv.detect import check_table_of, open_table, table_file, told_reading
from visionkit.data.formats.folder.reader import image_folder, is_image_folder, tree
from visionkit.data.formats.huggingface.boxes import (
    check_huggingface_boxes,
    huggingface_boxes,
    is_huggingface_boxes,
)
from visionkit.data.formats.huggingface.classes import (
    check_huggingface_classes,
    huggingface_classes,
    is_huggingface_classes,
)
from visionkit.data.formats.labelme import check_labelme, is_labelme, labelme_boxes
from visionkit.data.formats.masks.sources import is_masks, open_masks
from visionkit.data.formats.masks.validate import check_masks
from visionkit.data.formats.options import OpenOptions
from visionkit.data.formats.validate import check_folder
from visionkit.data.formats.voc.layout import is_voc
from visionkit.data.formats.voc.reader import check_voc, voc
from visionkit.data.formats.yolo.reader import check_yolo, is_yolo, yolo
from visionkit.data.pack.reader import check_pack, is_pack, open_pack
from visionkit.data.scenes.scenes import scenes
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError, expected, unknown_name
from visionkit.notices import Notice

__all__ = [
    "FORMATS",
    "TASKS",
    "Format",
    "Task",
    "detect_formats",
    "open_dataset",
]

Task = Literal["classification", "detection", "segmentation", "captioning"]

TASKS: tuple[Task, ...] = get_args(Task)
PACK_FIELDS: dict[Task, tuple[str, ...]] = {
    "classification": ("label",),
    "detection": ("boxes",),
    "segmentation": ("mask",),
    "captioning": ("captions",),
}


@dataclass(frozen=True)
class Format:
    """A format of data sets.

    Args:
        name: A word for it.
        layout: What lies where, in one line.
        tasks: The tasks it can be read for.
        detect: Whether a path holds it; cheap, never raises.
        open: Reads it for a task.
        check: Returns every fault.
        resembles: Whether a path was probably meant to hold it; its own error then says what is missing.
        fallback: Taken only where nothing more telling is found.
        told: How the targets were read where `open` fails, as `table_reading` says it; never raises.
    """

    name: str
    layout: str
    tasks: tuple[Task, ...]
    detect: Callable[[Path], bool]
    open: Callable[[Path, Task, OpenOptions], Splits]
    check: Callable[[Path, OpenOptions], Sequence[DataError]]
    resembles: Callable[[Path], bool] = lambda path: False
    fallback: bool = False
    told: Callable[[Path, OpenOptions], str] = lambda path, options: ""


def open_dataset(root: str | Path, task: Task, options: OpenOptions = OpenOptions()) -> Splits:  # noqa: B008
    """Open a data set for a task, whatever its format.

    Args:
        root: "scenes" (the embedded data set), a folder or a file.
        task: What it is read for.
        options: What the caller knows of it.

    Returns:
        The splits; their notices say what was left out, and which other formats the path could be.

    Raises:
        DataError: There is nothing by this name, no format fits, or a file is at fault.
        InputError: No such task, no path, or the data set is of a format that has nothing for this task.
    """
    if task not in TASKS:
        raise unknown_name("task", str(task), TASKS)
    if not isinstance(root, str | os.PathLike) or not str(root):
        raise InputError(expected("the data set", "the path of a folder or a file, or 'scenes'", root))
    if str(root) == "scenes":
        sizes = options.scenes
        return scenes(task, size=sizes.size, train=sizes.train, val=sizes.val, test=sizes.val)
    path = Path(root)
    if not os.path.exists(path):  # noqa: PTH110 (a name that the system cannot take is nothing, too)
        raise DataError(f"Expected a data set for {task}, but there is nothing by this name.", path=path)
    try:
        return _open_found(path, task, options)
    except OSError as error:
        raise DataError(f"Expected a data set that can be read, but: {error}.", path=path) from error


def _open_found(path: Path, task: Task, options: OpenOptions) -> Splits:
    """Read what lies at a path, or say what was expected there."""
    found = detect_formats(path)
    fitting = [each for each in found if task in each.tasks]
    if fitting:
        return _open(fitting, path, task, options)
    for each in FORMATS if all(each.fallback for each in found) else ():
        if task in each.tasks and each.resembles(path):
            return each.open(path, task, options)
    listed = "\n".join(f"  {each.layout}" for each in FORMATS if task in each.tasks)
    if found:
        raise InputError(
            f"Expected a data set for {task}, but {path} holds {found[0].name}, which is for "
            f"{' and '.join(found[0].tasks)}. Formats for {task}:\n{listed}"
        )
    inside = f"found\n{tree(path)}" if path.is_dir() else "it is a file of another kind."
    raise DataError(f"Expected one of these formats for {task}:\n{listed}\nbut {inside}", path=path)


def _open(fitting: Sequence[Format], path: Path, task: Task, options: OpenOptions) -> Splits:
    """Read the first of the formats; a notice names the others."""
    splits = fitting[0].open(path, task, options)
    if len(fitting) == 1:
        return splits
    others = ", ".join(each.name for each in fitting[1:])
    notice = Notice(
        "formats that fit as well but were not read",
        len(fitting) - 1,
        0,
        f"{path} was read as {fitting[0].name}; it could also be {others}",
    )
    return Splits(
        splits.train, splits.val, splits.test, splits.classes, splits.name, splits.facts,
        (*splits.notices, notice),
    )  # fmt: skip


def detect_formats(root: str | Path) -> list[Format]:
    """Return the formats that a path holds, the more telling first; it never raises.

    Args:
        root: A folder or a file.
    """
    if not isinstance(root, str | os.PathLike) or not str(root):
        return []
    path = Path(root)
    found = [each for each in FORMATS if _holds(each, path)]
    return [each for each in found if not each.fallback] or found


def _holds(each: Format, path: Path) -> bool:
    """Return whether a path holds a format; what cannot be looked at holds none."""
    try:
        return each.detect(path)
    except (OSError, ValueError):  # a name that the system cannot take, a folder that may not be listed
        return False


def _open_pack(path: Path, task: Task, options: OpenOptions) -> Splits:
    fields = PACK_FIELDS[task]
    return open_pack(path, fields=(*fields, "masks") if task == "detection" and options.masks else fields)


def _open_captions(path: Path, task: Task, options: OpenOptions) -> Splits:
    return caption_data(
        path, images=options.images or None, seed=options.seed, max_dropped=options.max_dropped
    )


def _open_coco(path: Path, task: Task, options: OpenOptions) -> Splits:
    if task == "segmentation":
        return _open_masks(path, task, options)
    return coco(path, masks=options.masks, seed=options.seed, max_dropped=options.max_dropped)


def _open_masks(path: Path, task: Task, options: OpenOptions) -> Splits:
    classes = options.classes or None
    return open_masks(path, classes=classes, seed=options.seed, max_dropped=options.max_dropped)


def _open_huggingface_classes(path: Path, task: Task, options: OpenOptions) -> Splits:
    return huggingface_classes(
        path,
        kind=options.target,
        target=options.table.target or None,
        separator=options.table.separator or None,
        seed=options.seed,
        max_dropped=options.max_dropped,
    )


FORMATS: tuple[Format, ...] = (
    Format(
        "a pack",
        "a folder written by `visionkit pack`",
        ("classification", "detection", "segmentation", "captioning"),
        is_pack,
        _open_pack,
        lambda path, options: check_pack(path),
    ),
    Format(
        "captions",
        "captions.txt or .csv, Flickr's token file, Karpathy's or COCO's json, a .txt an image",
        ("captioning",),
        is_captions,
        _open_captions,
        lambda path, options: check_captions(path, images=options.images or None),
    ),
    Format(
        "COCO objects",
        "annotations/instances_train*.json, train/_annotations.coco.json, train.json or one .json file",
        ("detection", "segmentation"),
        is_coco,
        _open_coco,
        lambda path, options: check_coco(path, masks=options.masks, left_out=options.left_out)[1],
        lambda path: (
            path.suffix.lower() == ".json"
            or (path.is_dir() and any([*path.glob("*.json"), *path.glob("annotations/*.json")]))
        ),
    ),
    Format(
        "Pascal VOC boxes",
        "JPEGImages/, Annotations/ and ImageSets/Main/train.txt; or *.xml beside the images (labelImg)",
        ("detection",),
        is_voc,
        lambda path, task, options: voc(path, seed=options.seed, max_dropped=options.max_dropped),
        lambda path, options: check_voc(path, left_out=options.left_out),
    ),
    Format(
        "YOLO boxes",
        "data.yaml, images/train/ and labels/train/; or train/images/ and train/labels/",
        ("detection",),
        is_yolo,
        lambda path, task, options: yolo(
            path, masks=options.masks, seed=options.seed, max_dropped=options.max_dropped
        ),
        lambda path, options: check_yolo(path, left_out=options.left_out),
    ),
    Format(
        "labelme shapes",
        "a .json of labelme beside each image",
        ("detection",),
        is_labelme,
        lambda path, task, options: labelme_boxes(
            path, masks=options.masks, seed=options.seed, max_dropped=options.max_dropped
        ),
        lambda path, options: check_labelme(path),
    ),
    Format(
        "a Hugging Face folder of boxes",
        "metadata.jsonl with columns file_name and objects",
        ("detection",),
        is_huggingface_boxes,
        lambda path, task, options: huggingface_boxes(
            path, seed=options.seed, max_dropped=options.max_dropped
        ),
        lambda path, options: check_huggingface_boxes(path),
    ),
    Format(
        "images and masks",
        "<split>/images/ and <split>/masks/ with classes.txt; Pascal VOC's, Cityscapes', ADE20K's",
        ("segmentation",),
        is_masks,
        _open_masks,
        lambda path, options: check_masks(path, classes=options.classes or None),
    ),
    Format(
        "a Hugging Face folder of classes",
        "metadata.jsonl or metadata.csv with columns file_name and label, beside the images or in train/ ...",
        ("classification",),
        is_huggingface_classes,
        _open_huggingface_classes,
        lambda path, options: check_huggingface_classes(path, kind=options.target),
    ),
    Format(
        "a table of images",
        "labels.csv: a column of image paths, and one or more of labels or numbers",
        ("classification",),
        lambda path: table_file(path) is not None,
        open_table,
        check_table_of,
        lambda path: path.suffix.lower() in (".csv", ".tsv"),
        told=told_reading,
    ),
    Format(
        "a folder for each class",
        "train/<class>/*.jpg and val/<class>/*.jpg, or <class>/*.jpg",
        ("classification",),
        is_image_folder,
        lambda path, task, options: image_folder(path, seed=options.seed, max_dropped=options.max_dropped),
        lambda path, options: check_folder(path),
        lambda path: path.is_dir(),
        fallback=True,
    ),
)
"""Every format that is read, the more telling first: to add one, add a module beside this and a row here."""
