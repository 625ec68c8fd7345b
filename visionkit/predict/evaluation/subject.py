"""What is evaluated: the samples of a split with the model's class indices, and what was assumed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from visionkit.data.datamodule import DataModule
from visionkit.data.formats.captions.reader import captions_of
from visionkit.data.formats.keypoints.per_object import per_object
from visionkit.data.formats.keypoints.skeleton import skeleton_of
from visionkit.data.formats.open import Task, open_dataset
from visionkit.data.splits import Splits, subset
from visionkit.data.transforms.saved import transform_from
from visionkit.errors import InputError
from visionkit.predict.evaluation.class_lists import (
    ClassMatch,
    CountUnknown,
    MatchedReader,
    known_images,
    match_classes,
)
from visionkit.predict.evaluation.run_data import (
    RunFiles,
    collate_of,
    join,
    open_own,
    own_options,
    split_parts,
)
from visionkit.predict.kinds import kind_of
from visionkit.predict.loaded import Loaded
from visionkit.tasks.captioning.self_critical import training_frequency
from visionkit.types import Reader

__all__ = ["Subject", "check_unknown", "evaluation_data", "open_subject", "take_frequency"]

EVAL_BATCH = 32  # of a checkpoint that does not say


@dataclass
class Subject:
    """The samples that are evaluated.

    Args:
        kind: The kind of the task.
        splits: The data set.
        root: Where it is.
        split: The split.
        match: Its classes and the model's; None for captions, which have none, and for vectors and points,
            which need none.
        original: The samples as the data have them.
        reader: The samples with the model's indices.
        max_dropped: Largest fraction that may be of classes that the model does not know.
        notes: What was matched or left out.
    """

    kind: str
    splits: Splits
    root: str
    split: str
    match: ClassMatch | None
    original: Reader
    reader: Reader
    max_dropped: float
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the model's classes."""
        return self.splits.classes if self.match is None else self.match.known


def open_subject(
    loaded: Loaded, run: RunFiles, data: str | Path | None, split: str, options: Mapping[str, Any]
) -> Subject:
    """Open the data, and match their classes with the model's.

    Args:
        loaded: The task.
        run: Its run.
        data: The data set; None: the run's own.
        split: The split; empty: see `visionkit.predict.evaluate`.
        options: Fields of `OpenOptions` that differ from the run's, of `stream` a dict of its fields.

    Raises:
        InputError: See `visionkit.predict.evaluate`.
    """
    kind = kind_of(type(loaded.task)).name
    own = own_options(loaded.facts, run.config)
    if "stream" in options:  # what is not given is that of the run
        options = {**options, "stream": replace(own.stream, **options["stream"])}
    if data is None:
        splits = open_own(loaded.facts, run.config, replace(own, **options))
    else:  # files and folders of the run's data say nothing of other data
        other = replace(own, classes="", images="", table=replace(own.table, root=""))
        splits = open_dataset(data, data_task(kind, loaded.task), replace(other, **options))
    skeleton = getattr(loaded.task, "skeleton", None)
    if skeleton is not None:
        _check_points(skeleton.names, splits)
    splits = per_object(splits) if kind == "keypoints" else splits
    assumed = not split and data is None and not splits.test
    split = split or ("val" if assumed else "test")
    parts = split_parts(splits, split, run=run, own=data is None)
    match, notes = _match(loaded.task, kind, splits)
    if assumed:
        notes.append(
            f"{splits.name} has no test split: these are the validation images, by which the best "
            "weights were chosen."
        )
    limit = float(options.get("max_dropped", own.max_dropped))
    subject = Subject(
        kind=kind,
        splits=splits,
        root=str(run.config.get("data") if data is None else data),
        split=split,
        match=match,
        original=join(parts),
        reader=join(parts),
        max_dropped=limit,
        notes=notes,
    )
    if match is not None and not match.identical:
        subject.reader = join([_matched(loaded.task, part, subject) for part in parts])
    return subject


def data_task(kind: str, task: Any) -> Task:
    """Return the task that the data of a kind of task are read for.

    Vectors are learnt from classes, and a detector with a keypoint head from keypoints.
    """
    if getattr(task, "skeleton", None) is not None:
        return "keypoints"
    return cast(Task, "classification" if kind == "embedding" else kind)


def _check_points(names: Sequence[str], splits: Splits) -> None:
    """Refuse data whose points are not the model's.

    Raises:
        InputError: They have other names, or another order.
    """
    given = skeleton_of(splits).names
    if given != tuple(names):
        raise InputError(
            f"Expected data with the model's points, {', '.join(names)}, but {splits.name} has "
            f"{', '.join(given)}. Evaluate a model of these points."
        )


def _match(task: Any, kind: str, splits: Splits) -> tuple[ClassMatch | None, list[str]]:
    if kind in ("captioning", "embedding", "keypoints"):
        return None, []
    names = task.class_names
    count = getattr(task, "mask_classes", None) or task.num_classes
    if names is not None:
        regression = getattr(task, "target", "") == "regression"
        match = match_classes(names, splits.classes, all_known=regression)
        return match, match.notes()
    if len(splits.classes) != count:
        raise InputError(
            f"Expected data with {count} classes, because the checkpoint has no names for them, but "
            f"{splits.name} has {len(splits.classes)}: {', '.join(splits.classes)}."
        )
    note = "The checkpoint has no names of classes: those of the data are taken, in their order."
    return ClassMatch(splits.classes, splits.classes, tuple(range(count))), [note]


def _matched(task: Any, part: Reader, subject: Subject) -> Reader:
    match = cast(ClassMatch, subject.match)
    if subject.kind == "classification" and task.target == "single":
        known, left_out = known_images(part, match)
        check_unknown(subject, left_out, len(part), "images")
        part = known
    ignored = getattr(task, "ignore_index", None)
    if subject.kind == "segmentation" and ignored is None and match.unknown:
        raise InputError(
            f"The model counts every pixel, so that none may be of a class that it does not know: "
            f"{match.lists()}."
        )
    return MatchedReader(part, match, ignore_index=255 if ignored is None else ignored)


def check_unknown(subject: Subject, unknown: int, total: int, what: str) -> None:
    """Note what was left out because the model does not know its class, and refuse too much of it.

    Args:
        subject: What is evaluated.
        unknown: How many were left out.
        total: Out of how many.
        what: What they are, in the plural.

    Raises:
        InputError: More than `max_dropped` are left out; the text has both lists.
    """
    if not unknown or subject.match is None:
        return
    text = (
        f"{unknown:,} of {total:,} {what} ({unknown / total:.1%}) are of classes that the model does not know"
    )
    if unknown > subject.max_dropped * total:
        raise InputError(
            f"Expected at most {subject.max_dropped:.1%} of the {what} to be of other classes than the "
            f"model's, but {text}: {subject.match.lists()}. Evaluate a model of these classes, or raise the "
            "limit (--max_dropped)."
        )
    subject.notes.append(f"{text} and were left out.")


def evaluation_data(
    loaded: Loaded, run: RunFiles, subject: Subject, reader: Reader, *, batch_size: int, workers: int
) -> DataModule:
    """Return the data module of the run, with the samples to evaluate as its validation split.

    Args:
        loaded: The task.
        run: Its run.
        subject: What is evaluated.
        reader: Its samples, or some of them.
        batch_size: Images a batch; 0: that of the run's evaluation.
        workers: Processes that read images.

    Raises:
        InputError: The checkpoint does not say how images are prepared.
    """
    facts, described = loaded.facts, loaded.facts.get("preprocess")
    if described is None:
        raise InputError(
            f"{loaded.checkpoint} does not say how images are prepared for it, which a run's does. "
            "Evaluate it with your own loaders: lightning.Trainer().test(task, loader)."
        )
    transform = transform_from(described)
    collate = collate_of(subject.kind, loaded.task, facts, run.config)
    size = batch_size or int(facts.get("eval_batch_size") or EVAL_BATCH)
    counts = subject.match is not None and not subject.match.identical
    gallery = facts.get("gallery", "split")
    if gallery == "train":
        among = len(subject.splits.train)
        gallery = gallery if subject.split in ("val", "test") else "split"
        text = f"among the {among:,} of training" if gallery == "train" else "among each other"
        subject.notes.append(f"Images are searched {text}.")
    module = DataModule(
        replace(subject.splits, val=reader, test=None),
        batch_size=size,
        train_transform=transform,
        eval_transform=transform,
        collate=CountUnknown(collate) if counts else collate,
        seed=run.seed,
        workers=workers,
        gallery=gallery,
    )
    checks = run.config.get("checks") or {}
    if checks.get("bad_input") == "skip":
        module.skip_unreadable(limit=float(checks.get("bad_limit", 0.001)))
    return module


def take_frequency(loaded: Loaded, run: RunFiles, subject: Subject) -> bool:
    """Give a captioner the document frequencies of its training captions, which a checkpoint does not hold.

    Args:
        loaded: The task.
        run: Its run.
        subject: What is evaluated.

    Returns:
        Whether `cider_d` can be scored: the run's own captions are here.
    """
    if subject.kind != "captioning":
        return True
    try:
        options = own_options(loaded.facts, run.config)
        train = open_own(loaded.facts, run.config, options).train
    except InputError:
        subject.notes.append("cider_d is left out: it needs the captions that the model was trained on.")
        return False
    train = train if run.fraction >= 1 else subset(train, run.fraction, seed=run.seed)
    task: Any = loaded.task
    task.frequency = training_frequency(captions_of(train))
    return True
