"""What a path of something trained is: published, a run, an exported file or a checkpoint. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from visionkit.errors import InputError

__all__ = ["SUFFIXES", "TrainedFile", "check_backbone", "find_trained"]

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
"""Endings of exported files, by the format."""


class TrainedFile(NamedTuple):
    """The file of something trained.

    Args:
        form: What it is.
        file: Holds the weights.
        run: The run's folder, for a run or a checkpoint in one.
        note: Says which of several runs was taken; empty where there was no choice.
    """

    form: Literal["published", "run", "exported", "checkpoint"]
    file: Path
    run: Path | None = None
    note: str = ""


def find_trained(location: Path, *, which: str = "best") -> TrainedFile:
    """Return what a path is, and its file; that is not read.

    Args:
        location: A folder or a file that exists.
        which: "best" or "last": the checkpoint of a run.

    Raises:
        InputError: A folder holds no run with a checkpoint, or none of several is the best; or a published
            folder holds a pickle.
    """
    from visionkit.backbones.sources.trained import WEIGHTS, checkpoint_of, choose_run, published_config

    folder = location.parent if location.name == WEIGHTS and location.is_file() else location
    if folder.is_dir() and published_config(folder) is not None:
        return TrainedFile("published", folder / WEIGHTS)
    if location.is_dir():
        run, note = choose_run(location)
        return TrainedFile("run", checkpoint_of(run, which), run, note)
    if location.suffix in SUFFIXES.values():
        return TrainedFile("exported", location)
    inside = location.parent.name == "checkpoints"
    return TrainedFile("checkpoint", location, location.parent.parent if inside else None)


def check_backbone(name: str) -> None:
    """Refuse a name that is no backbone's, where something trained could have been named as well.

    Args:
        name: What was given, and is not on this disk.

    Raises:
        InputError: There is no such backbone; the text names the nearest, and says what else was looked for.
    """
    from visionkit.backbones.registry import resolve
    from visionkit.backbones.sources.base import ModelSpec

    try:
        resolve(name, ModelSpec(""))
    except InputError as error:
        raise InputError(f"{error} Nor is there a run or a file of this name on this disk.") from None
