"""The data that a trained model is evaluated on: its run's own, or another data set of the same kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from torch.utils.data import ConcatDataset

from visionkit.config import StreamConfig, TableConfig, flatten
from visionkit.data.collate import caption_batch, keypoint_batch, list_batch, mask_batch, stack_batch
from visionkit.data.formats.open import TASKS, open_dataset
from visionkit.data.formats.options import OpenOptions, SceneSizes
from visionkit.data.splits import Splits, subset
from visionkit.errors import DataError, InputError, unknown_name
from visionkit.files import is_address
from visionkit.types import Reader, Sample

__all__ = ["SPLITS", "RunFiles", "collate_of", "open_own", "own_options", "read_run_files", "split_parts"]

SPLITS = ("train", "val", "test", "all")
MAX_BYTES = 64 * 2**20  # of config.yaml and result.json
Collate = Callable[[Sequence[Sample]], Mapping[str, Any]]


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder says of the run; a checkpoint that stands alone has neither.

    Args:
        config: `config.yaml`.
        result: `result.json`; empty for an unfinished run.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        return int((self.config.get("seeds") or [0])[0])

    @property
    def fraction(self) -> float:
        """Return the fraction of the training split that the run trained on."""
        return float((self.config.get("fractions") or [1.0])[0])

    @property
    def schedule(self) -> int:
        """Return how many times the base length the run trained."""
        return int((self.config.get("schedules") or [1])[0])


def read_run_files(folder: str | Path | None) -> RunFiles:
    """Return the settings and the result of a run.

    Args:
        folder: The run's folder; None for a checkpoint that stands alone.

    Raises:
        DataError: A file of it is damaged.
    """
    if folder is None:
        return RunFiles()
    config = _table(Path(folder) / "config.yaml", yaml.safe_load)
    return RunFiles(config, _table(Path(folder) / "result.json", json.loads))


def _table(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        loaded = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read: {error}. Move it away to go on without it.", path=file) from error
    if not isinstance(loaded, dict):
        raise DataError(
            f"Expected names and values, but got {type(loaded).__name__}. Move it away to go on without it.",
            path=file,
        )
    return loaded


def own_options(facts: Mapping[str, Any], config: Mapping[str, Any]) -> OpenOptions:
    """Return how the run's data were read.

    Args:
        facts: The model facts; they name files without their folders.
        config: The run's settings, which have the folders.
    """
    plain = dict((facts.get("data") or {}).get("options") or {})
    known = {name: value for name, value in plain.items() if name in OpenOptions.__dataclass_fields__}
    table = dict(known.pop("table", None) or {})
    stream = dict(known.pop("stream", None) or {})
    stream["cache"] = _full_path(stream.get("cache", ""), config)
    scenes = known.pop("scenes", None)
    for name in ("classes", "images"):
        known[name] = _full_path(known.get(name, ""), config)
    table["root"] = _full_path(table.get("root", ""), config)
    try:
        made = OpenOptions(**known, table=TableConfig(**table), stream=StreamConfig(**stream))
        return replace(made, scenes=SceneSizes(**scenes)) if scenes else made
    except TypeError as error:
        raise InputError(
            f"Expected the checkpoint to say how its data are read, but got {plain}: {error}."
        ) from error


def _full_path(name: str, config: Mapping[str, Any]) -> str:
    """Return the path among the settings that ends in a name; the name itself where none does."""
    values = [value for value in flatten(dict(config)).values() if isinstance(value, str) and name]
    return next((value for value in values if Path(value).name == name), name)


def open_own(facts: Mapping[str, Any], config: Mapping[str, Any], options: OpenOptions) -> Splits:
    """Open the data that a run was trained on.

    Args:
        facts: The model facts.
        config: The run's settings.
        options: How they are read.

    Raises:
        InputError: The data are not here, or it is not known where they are.
    """
    about = facts.get("data") or {}
    kind, location = about.get("kind"), str(config.get("data") or "")
    give = "Give data of the same kind: --data FOLDER (data=...)."
    if kind not in TASKS:
        raise InputError(
            f"The checkpoint does not say how its data{_called(about)} were read: they were not opened by "
            f"`open_dataset`. {give}"
        )
    if not location:
        raise InputError(
            f"The checkpoint does not say where its data{_called(about)} are: there is no config.yaml of its "
            f"run beside it. {give}"
        )
    here = location == "scenes" or is_address(location) or os.path.exists(location)  # noqa: PTH110 (any name)
    if not here:
        raise InputError(
            f"The data of the run{_called(about)} are gone: nothing is at {location}. Give where they are "
            "now, or other data of the same kind: --data FOLDER (data=...)."
        )
    return open_dataset(location, kind, options)


def _called(about: Mapping[str, Any]) -> str:
    name, kind = about.get("name"), about.get("kind")
    return f" ({name}, {kind})" if name and kind else f" ({name})" if name else ""


def split_parts(splits: Splits, split: str, *, run: RunFiles, own: bool) -> list[Reader]:
    """Return the readers of a split; of "all" each.

    Args:
        splits: The data.
        split: "train" (of the run's own data: what it trained on), "val", "test" or "all".
        run: The run.
        own: Whether these are the run's own data.

    Raises:
        InputError: There is no such split.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    train = splits.train
    if own and run.fraction < 1:
        train = subset(train, run.fraction, seed=run.seed)
    parts = {"train": train, "val": splits.val, "test": splits.test}
    if split == "all":
        return [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
    reader = parts[split]
    if reader is None or not len(reader):
        there = ", ".join(f"{name} ({len(each):,})" for name, each in parts.items() if each is not None)
        raise InputError(
            f"Expected a {split} split, but {splits.name} has none. It has {there}. Give --split val, or "
            "--split all for every image."
        )
    return [reader]


def join(parts: Sequence[Reader]) -> Reader:
    """Return one reader of all samples, in order."""
    return parts[0] if len(parts) == 1 else cast(Reader, ConcatDataset(cast(Any, parts)))


def collate_of(kind: str, task: Any, facts: Mapping[str, Any], config: Mapping[str, Any]) -> Collate:
    """Return the collate that the run's evaluation had.

    Args:
        kind: The kind of the task.
        task: The task; a captioner encodes with its own vocabulary.
        facts: The model facts.
        config: The run's settings.
    """
    if kind == "captioning":
        count = facts.get("captions_per_image") or config.get("captions_per_image") or 1
        return partial(caption_batch, encode=task.vocabulary.encode, captions_per_image=int(count))
    collates: dict[str, Collate] = {
        "detection": list_batch, "segmentation": mask_batch, "keypoints": keypoint_batch,
    }  # fmt: skip
    return collates.get(kind, stack_batch)
