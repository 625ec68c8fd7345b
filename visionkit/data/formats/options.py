"""What the caller knows of a data set beyond its path."""

from __future__ import annotations

from dataclasses import dataclass, field

from visionkit.config import StreamConfig, TableConfig
from visionkit.data.formats.csv.rows import TableKind
from visionkit.notices import MAX_DROPPED

__all__ = ["OpenOptions", "SceneSizes"]


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
        target: What the targets of a table are; None: detected from its cells.
        table: Which columns of a table are read.
        classes: A file that names the classes of mask values, or COCO categories.
        masks: Detection: read the outlines of the objects too.
        images: Captions: the folder of the images, if it is not where the format has it.
        seed: Seed of a held-out validation fraction.
        max_dropped: Largest fraction of objects, captions or labels that may be left out.
        scenes: The embedded data set's sizes.
        group_by: What keeps samples on one side of a hold-out: a column, or a pattern of the file names.
        folds: Number of folds of cross-validation; 0: none.
        fold: The fold that is for validation, from 0.
        unseen_classes: Classification: no class of validation and test occurs in training.
        check: The data set is read to be checked: outlines of COCO are looked at, too.
        stream: Where the shards of a pack at an address are kept.
    """

    target: TableKind | None = "single"
    table: TableConfig = field(default_factory=TableConfig)
    classes: str = ""
    masks: bool = False
    images: str = ""
    seed: int = 0
    max_dropped: float = MAX_DROPPED
    scenes: SceneSizes = SceneSizes()
    group_by: str = ""
    folds: int = 0
    fold: int = 0
    unseen_classes: bool = False
    check: bool = False
    stream: StreamConfig = StreamConfig()
