"""Open a data set: detect its format, and read it for a task."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from visionkit.data.folds import regroup
from visionkit.data.formats.captions.reader import read_captions
from visionkit.data.formats.captions.records import is_captions
from visionkit.data.formats.coco.boxes import read_coco
from visionkit.data.formats.coco.layout import is_coco
from visionkit.data.formats.csv.detect import read_table_source, table_file
from visionkit.data.formats.folder.reader import is_image_folder, tree
from visionkit.data.formats.huggingface.boxes import is_huggingface_boxes, read_huggingface_boxes
from visionkit.data.formats.huggingface.classes import is_huggingface_classes, read_huggingface_classes
from visionkit.data.formats.keypoints.coco import is_coco_keypoints, read_coco_keypoints, with_keypoint_errors
from visionkit.data.formats.keypoints.table import point_table_file, read_point_table
from visionkit.data.formats.labelme import is_labelme, read_labelme_boxes
from visionkit.data.formats.labelme_class_maps import read_labelme_class_maps
from visionkit.data.formats.masks.sources import is_masks
from visionkit.data.formats.masks.validate import read_masks
from visionkit.data.formats.options import OpenOptions
from visionkit.data.formats.packs import read_pack, read_stream
from visionkit.data.formats.source import Source
from visionkit.data.formats.split_notices import untrained_classes
from visionkit.data.formats.supervisely import is_supervisely, read_supervisely
from visionkit.data.formats.validate import read_folder
from visionkit.data.formats.voc.layout import is_voc
from visionkit.data.formats.voc.reader import read_voc
from visionkit.data.formats.webdataset.reader import is_webdataset, read_webdataset
from visionkit.data.formats.webdataset.scan import find_shards, first_task
from visionkit.data.formats.yolo.layout import is_yolo
from visionkit.data.formats.yolo.reader import read_yolo
from visionkit.data.pack.reader import is_pack
from visionkit.data.scenes.scenes import scenes
from visionkit.data.splits import Splits
from visionkit.data.unseen_classes import hold_out_classes
from visionkit.errors import DataError, InputError, expected, unknown_name
from visionkit.files import is_address, to_plain
from visionkit.notices import Notice

__all__ = [
    "FORMATS",
    "STREAM",
    "TASKS",
    "Format",
    "Task",
    "detect_formats",
    "open_dataset",
]

Task = Literal["classification", "detection", "segmentation", "captioning", "keypoints"]

TASKS: tuple[Task, ...] = get_args(Task)
TABLE, POINTS = "a table of images", "a table of points"


@dataclass(frozen=True)
class Format:
    """A format of data sets.

    Args:
        name: A word for it.
        layout: What lies where, in one line.
        tasks: The tasks it can be read for.
        detect: Whether a path holds it; cheap, never raises.
        read: Reads the annotation files for a task; of `STREAM`, what is at an address.
        resembles: Whether a path was probably meant to hold it; its own error then names what is missing.
        fallback: Taken only where no other format is detected.
    """

    name: str
    layout: str
    tasks: tuple[Task, ...]
    detect: Callable[[Path], bool]
    read: Callable[[Any, Task, OpenOptions], Source]
    resembles: Callable[[Path], bool] = lambda path: False
    fallback: bool = False


def open_dataset(root: str | Path, task: Task, options: OpenOptions = OpenOptions()) -> Splits:  # noqa: B008
    """Open a data set for a task, whatever its format.

    Args:
        root: "scenes" (the embedded data set), a folder, a file, or the address of a pack (`open_stream`).
        task: What it is read for.
        options: What the caller knows of it.

    Returns:
        The splits; their notices say what was left out, and which other formats the path could be.

    Raises:
        DataError: There is nothing by this name, no format fits, or a file is wrong.
        InputError: No such task, no path, or the data set is of a format that has nothing for this task.
    """
    if task not in TASKS:
        raise unknown_name("task", str(task), TASKS)
    if not isinstance(root, str | os.PathLike) or not str(root):
        raise InputError(expected("the data set", "the path of a folder or a file, or 'scenes'", root))
    if str(root) == "scenes":
        sizes = options.scenes
        made = scenes(task, size=sizes.size, train=sizes.train, val=sizes.val, test=sizes.val)
        return _finish(made, task, options)
    if is_address(root):
        source = STREAM.read(os.fspath(root), task, options)
        return _finish(source.splits(options.max_dropped), task, options)
    path = Path(root)
    if not os.path.exists(path):  # noqa: PTH110 (a name that the system cannot take is nothing, too)
        raise DataError(f"Expected a data set for {task}, but there is nothing by this name.", path=path)
    try:
        return _finish(_open_detected(path, task, options), task, options)
    except OSError as error:
        raise DataError(f"Expected a data set that can be read, but: {error}.", path=path) from error


def _finish(splits: Splits, task: Task, options: OpenOptions) -> Splits:
    """Cut folds, groups or unseen classes; keep how a data set was opened, without paths of this machine."""
    if options.unseen_classes:
        if options.group_by:
            raise InputError("Expected either unseen_classes or group_by: the classes are the groups.")
        splits = hold_out_classes(splits, folds=options.folds, fold=options.fold, seed=options.seed)
    else:
        splits = regroup(
            splits,
            group_by=options.group_by,
            folds=options.folds,
            fold=options.fold,
            seed=options.seed,
            max_dropped=options.max_dropped,
        )
        if task == "classification":
            splits = replace(splits, notices=(*splits.notices, *untrained_classes(splits)))
    plain = to_plain(options)
    plain |= {name: Path(plain[name]).name for name in ("classes", "images") if plain[name]}
    for group, name in (("table", "root"), ("stream", "cache")):
        plain[group][name] = Path(plain[group][name]).name
    return replace(splits, opened={"kind": task, "options": plain})


def _open_detected(path: Path, task: Task, options: OpenOptions) -> Splits:
    """Read what lies at a path, or say what was expected there."""
    formats = detect_formats(path)
    fitting = [each for each in formats if task in each.tasks]
    likely = [*fitting]
    if all(each.fallback for each in formats):
        likely += [each for each in FORMATS if task in each.tasks and each.resembles(path)]
    try:
        if likely:
            return _open(fitting or likely[:1], path, task, options)
    except DataError:
        if not likely[0].fallback or not _parquet_files(path):
            raise
    listed = "\n".join(f"  {each.layout}" for each in FORMATS if task in each.tasks)
    parquet = _parquet_files(path)
    if formats and not parquet:
        raise InputError(
            f"Expected a data set for {task}, but {path} holds {formats[0].name}, which is for "
            f"{' and '.join(formats[0].tasks)}. Formats for {task}:\n{listed}"
        )
    if parquet:
        raise DataError(
            f"Expected a data set for {task}, but Parquet files are not read. Write the images and a "
            "metadata.jsonl with `datasets`: save each image of the data set as a file, and `to_json` the "
            f"other columns with its name as file_name. Formats for {task}:\n{listed}",
            path=parquet[0],
        )
    inside = f"found\n{tree(path)}" if path.is_dir() else "it is a file of another kind."
    raise DataError(f"Expected one of these formats for {task}:\n{listed}\nbut {inside}", path=path)


def _parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files of a path: itself, or those in a folder and in the folders in it."""
    if path.suffix.lower() == ".parquet":
        return [path]
    return sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")])


def _open(fitting: Sequence[Format], path: Path, task: Task, options: OpenOptions) -> Splits:
    """Read the first of the formats; a notice names the others."""
    splits = fitting[0].read(path, task, options).splits(options.max_dropped)
    if len(fitting) == 1:
        return splits
    others = ", ".join(each.name for each in fitting[1:])
    notice = Notice(
        "formats that fit as well but were not read",
        len(fitting) - 1,
        0,
        f"{path} was read as {fitting[0].name}; it could also be {others}",
    )
    return replace(splits, notices=(*splits.notices, notice))


def detect_formats(root: str | Path) -> list[Format]:
    """Return the formats that a path holds, the more specific first; it never raises.

    Args:
        root: A folder, a file or an address.
    """
    if not isinstance(root, str | os.PathLike) or not str(root):
        return []
    if is_address(root):
        return [STREAM]
    path = Path(root)
    formats = [each for each in FORMATS if _holds(each, path)]
    return [each for each in formats if not each.fallback] or formats


def _holds(each: Format, path: Path) -> bool:
    """Return whether a path holds a format; what cannot be looked at holds none."""
    try:
        return each.detect(path)
    except (OSError, ValueError):  # a name that the system cannot take, a folder that may not be listed
        return False


def _read_webdataset(path: Path, task: Task, options: OpenOptions) -> Source:
    if options.check:  # the samples themselves say what they are for
        task = first_task([file for files in find_shards(path).values() for file in files])
    masks = options.masks and task == "detection"
    return read_webdataset(path, task, masks=masks, classes=options.classes, seed=options.seed)  # type: ignore[arg-type]


def _read_coco(path: Path, task: Task, options: OpenOptions) -> Source:
    if task == "segmentation":
        return read_masks(path, classes=options.classes or None, seed=options.seed)
    if task == "keypoints":
        return read_coco_keypoints(path, seed=options.seed, outlines=options.check)
    boxes = read_coco(path, masks=options.masks, seed=options.seed, outlines=options.check)
    return with_keypoint_errors(boxes, path) if options.check and is_coco_keypoints(path) else boxes


def _read_labelme(path: Path, task: Task, options: OpenOptions) -> Source:
    if task == "segmentation":
        return read_labelme_class_maps(path, classes=options.classes or None, seed=options.seed)
    return read_labelme_boxes(path, masks=options.masks, seed=options.seed)


def _read_huggingface_classes(path: Path, task: Task, options: OpenOptions) -> Source:
    table = options.table
    return read_huggingface_classes(
        path,
        kind=options.target,
        target=table.target or None,
        separator=table.separator or None,
        seed=options.seed,
    )


STREAM = Format(
    "a pack at an address",
    "https://host/photos.pack, s3://bucket/photos.pack: the folder of a pack, copied there",
    ("classification", "detection", "segmentation", "captioning", "keypoints"),
    is_address,
    read_stream,
)
"""What is read of an address."""

FORMATS: tuple[Format, ...] = (
    Format(
        "a pack",
        "a folder written by `visionkit pack`",
        ("classification", "detection", "segmentation", "captioning", "keypoints"),
        is_pack,
        read_pack,
    ),
    Format(
        "WebDataset shards",
        "train-000.tar, val-000.tar ..., or *.tar in train/ and val/; 1.jpg, 1.cls, 1.json ... in each",
        ("classification", "detection", "segmentation", "captioning"),
        lambda path: is_webdataset(path) and not is_pack(path),
        _read_webdataset,
        lambda path: path.suffix.lower() == ".tar",
    ),
    Format(
        "captions",
        "captions.txt or .csv, Flickr's token file, Karpathy's or COCO's json, a .txt an image",
        ("captioning",),
        is_captions,
        lambda path, task, options: read_captions(
            path, images=options.images or None, seed=options.seed, max_dropped=options.max_dropped
        ),
    ),
    Format(
        "COCO objects",
        "annotations/instances_train*.json, train/_annotations.coco.json, train.json or one .json file",
        ("detection", "segmentation", "keypoints"),
        is_coco,
        _read_coco,
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
        lambda path, task, options: read_voc(path, seed=options.seed),
    ),
    Format(
        "YOLO boxes",
        "data.yaml, images/train/ and labels/train/; or train/images/ and train/labels/",
        ("detection",),
        is_yolo,
        lambda path, task, options: read_yolo(path, masks=options.masks, seed=options.seed),
    ),
    Format(
        "a Supervisely project",
        "meta.json, and ann/*.json beside img/",
        ("detection",),
        is_supervisely,
        lambda path, task, options: read_supervisely(path, masks=options.masks, seed=options.seed),
    ),
    Format(
        "a Hugging Face folder of boxes",
        "metadata.jsonl with columns file_name and objects",
        ("detection",),
        is_huggingface_boxes,
        lambda path, task, options: read_huggingface_boxes(path, seed=options.seed),
    ),
    Format(
        "images and masks",
        "<split>/images/ and <split>/masks/ with classes.txt; Pascal VOC's, Cityscapes', ADE20K's",
        ("segmentation",),
        is_masks,
        lambda path, task, options: read_masks(path, classes=options.classes or None, seed=options.seed),
    ),
    Format(
        "labelme shapes",
        "a .json of labelme beside each image",
        ("detection", "segmentation"),
        is_labelme,
        _read_labelme,
    ),
    Format(
        "a Hugging Face folder of classes",
        "metadata.jsonl or metadata.csv with columns file_name and label, beside the images or in train/ ...",
        ("classification",),
        is_huggingface_classes,
        _read_huggingface_classes,
    ),
    Format(
        POINTS,
        "points.csv: a column of image paths, and NAME_x and NAME_y of each point",
        ("keypoints",),
        lambda path: point_table_file(path) is not None,
        lambda path, task, options: read_point_table(path, seed=options.seed),
        lambda path: path.suffix.lower() in (".csv", ".tsv"),
    ),
    Format(
        TABLE,
        "labels.csv: a column of image paths, and one or more of labels or numbers",
        ("classification",),
        lambda path: table_file(path) is not None,
        lambda path, task, options: read_table_source(path, options),
        lambda path: path.suffix.lower() in (".csv", ".tsv"),
    ),
    Format(
        "a folder for each class",
        "train/<class>/*.jpg and val/<class>/*.jpg, or <class>/*.jpg",
        ("classification",),
        is_image_folder,
        lambda path, task, options: read_folder(
            path, seed=options.seed, unseen_classes=options.unseen_classes
        ),
        lambda path: path.is_dir(),
        fallback=True,
    ),
)
"""Every format that is read, the more specific first: to add one, add a module beside this and a row here."""
