"""The one way to open a data set: tell its format by what lies there, and read it for a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from visionkit.config import TableConfig
from visionkit.data.caption_records import is_captions
from visionkit.data.captions import caption_data, check_captions
from visionkit.data.check import check_folder, check_table
from visionkit.data.check_masks import check_masks
from visionkit.data.coco import check_coco, coco, is_coco
from visionkit.data.folder import image_folder, is_image_folder, tree
from visionkit.data.formats.huggingface import METADATA_FILES
from visionkit.data.formats.huggingface_boxes import (
    check_huggingface_boxes,
    huggingface_boxes,
    is_huggingface_boxes,
)
from visionkit.data.formats.huggingface_classes import (
    check_huggingface_classes,
    huggingface_classes,
    is_huggingface_classes,
)
from visionkit.data.formats.labelme import check_labelme, is_labelme, labelme_boxes
from visionkit.data.formats.yolo import check_yolo, is_yolo, yolo
from visionkit.data.mask_sources import is_masks, open_masks
from visionkit.data.notices import MAX_DROPPED, Notice
from visionkit.data.packed import check_pack, is_pack, open_pack
from visionkit.data.scenes import scenes
from visionkit.data.splits import Splits
from visionkit.data.table import image_table
from visionkit.data.table_rows import TableKind, is_image_table, may_be_image_table
from visionkit.data.voc import check_voc, voc
from visionkit.data.voc_layout import is_voc
from visionkit.errors import DataError, InputError

__all__ = [
    "FORMATS",
    "TASKS",
    "Format",
    "OpenOptions",
    "SceneSizes",
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
class SceneSizes:
    """How many embedded scenes are composed, and how large.

    Args:
        size: Side of the images, in pixels.
        train: Images of the training split.
        val: Images of the validation split, and of the test split.
    """

    size: int = 96
    train: int = 1000
    val: int = 500


@dataclass(frozen=True)
class OpenOptions:
    """What the caller knows of a data set beyond its path; each format takes what concerns it.

    Args:
        target: What the targets of a table are; None: told by its cells.
        table: Which columns of a table are read.
        classes: A file that names the classes of mask values, or COCO categories.
        masks: Detection: read the outlines of the objects too.
        images: Captions: the folder of the images, if it is not where the format has it.
        seed: Seed of a held-out validation share.
        max_dropped: Largest share of objects, captions or labels that may be left out.
        scenes: The embedded data set's sizes.
    """

    target: TableKind | None = "single"
    table: TableConfig = field(default_factory=TableConfig)
    classes: str = ""
    masks: bool = False
    images: str = ""
    seed: int = 0
    max_dropped: float = MAX_DROPPED
    scenes: SceneSizes = SceneSizes()


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
    """

    name: str
    layout: str
    tasks: tuple[Task, ...]
    detect: Callable[[Path], bool]
    open: Callable[[Path, Task, OpenOptions], Splits]
    check: Callable[[Path, OpenOptions], Sequence[DataError]]
    resembles: Callable[[Path], bool] = lambda path: False
    fallback: bool = False


def open_dataset(root: str | Path, task: Task, options: OpenOptions = OpenOptions()) -> Splits:
    """Open a data set for a task, whatever its format.

    Args:
        root: "scenes" (the embedded data set), a folder or a file.
        task: What it is read for.
        options: What the caller knows of it.

    Returns:
        The splits; their notices say what was left out, and which other formats the path could be.

    Raises:
        DataError: There is nothing by this name, no format fits, or a file is at fault.
        InputError: The data set is of a format that has nothing for this task.
    """
    if str(root) == "scenes":
        sizes = options.scenes
        return scenes(task, size=sizes.size, train=sizes.train, val=sizes.val, test=sizes.val)
    path = Path(root)
    if not path.exists():
        raise DataError(f"Expected a data set for {task}, but there is nothing by this name.", path=path)
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
        len(fitting),
        f"{path} was read as {fitting[0].name}; it could also be {others}",
    )
    return Splits(
        splits.train, splits.val, splits.test, splits.classes, splits.name, splits.facts,
        (*splits.notices, notice),
    )  # fmt: skip


def detect_formats(root: str | Path) -> list[Format]:
    """Return the formats that a path holds, the more telling first.

    Args:
        root: A folder or a file.
    """
    path = Path(root)
    found = [each for each in FORMATS if each.detect(path)]
    return [each for each in found if not each.fallback] or found


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


def _open_table(path: Path, task: Task, options: OpenOptions) -> Splits:
    table = options.table
    return image_table(
        _table_file(path) or path,
        kind=options.target,
        image=table.image or None,
        target=table.target or None,
        separator=table.separator or None,
        root=table.root or None,
        seed=options.seed,
        max_dropped=options.max_dropped,
    )


def _check_table(path: Path, options: OpenOptions) -> Sequence[DataError]:
    table = options.table
    return check_table(
        _table_file(path) or path,
        kind=options.target,
        image=table.image or None,
        target=table.target or None,
        separator=table.separator or None,
        root=table.root or None,
    )


def _table_file(path: Path) -> Path | None:
    """Return the table that a path may be, or the only one of images in a folder without class folders."""
    if path.is_file():
        return path if may_be_image_table(path) else None
    if not path.is_dir() or is_image_folder(path):
        return None
    tables = [
        file for file in sorted(path.iterdir()) if is_image_table(file) and file.name not in METADATA_FILES
    ]
    return tables[0] if len(tables) == 1 else None


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
        lambda path, options: check_coco(path, masks=options.masks)[1],
        lambda path: path.is_dir() and any([*path.glob("*.json"), *path.glob("annotations/*.json")]),
    ),
    Format(
        "Pascal VOC boxes",
        "JPEGImages/, Annotations/ and ImageSets/Main/train.txt; or *.xml beside the images (labelImg)",
        ("detection",),
        is_voc,
        lambda path, task, options: voc(path, seed=options.seed, max_dropped=options.max_dropped),
        lambda path, options: check_voc(path),
    ),
    Format(
        "YOLO boxes",
        "data.yaml, images/train/ and labels/train/; or train/images/ and train/labels/",
        ("detection",),
        is_yolo,
        lambda path, task, options: yolo(
            path, masks=options.masks, seed=options.seed, max_dropped=options.max_dropped
        ),
        lambda path, options: check_yolo(path),
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
        lambda path: _table_file(path) is not None,
        _open_table,
        _check_table,
        lambda path: path.suffix.lower() in (".csv", ".tsv"),
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
