"""What an evaluation found, and how it compares with what the run stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.errors import InputError
from visionkit.files import finite, is_free, local_path, to_plain
from visionkit.printable import printable, printable_values
from visionkit.run.storage.disk import write_file

__all__ = ["Evaluation", "computed", "free_folder", "stored_scores"]

SCHEMA = 1


@dataclass(frozen=True)
class Evaluation:
    """The scores of a trained model on one split of a data set.

    Args:
        checkpoint: The file that was evaluated.
        which: "best" or "last".
        task: Name of the task's class.
        init: Where the weights of its run came from.
        fraction: Fraction of the training data that its run trained on.
        schedule: How many times the base length its run trained.
        data: Name of the data set.
        root: Where it is, as given; "scenes" for the embedded one.
        split: "train", "val", "test" or "all".
        images: How many images were scored.
        metrics: Scores by name ("test/top1").
        stored: What the run's `result.json` has for the same images and weights, by the same names; None
            where it has nothing for them.
        how: Device, precision, batch size, threads and versions.
        stored_how: The same of the stored scores, as far as the run says.
        seconds: How long it took, without loading.
        notes: What was assumed, matched or left out, in sentences.
        figures: Files that were written.
    """

    checkpoint: Path
    which: str
    task: str
    init: str
    fraction: float
    schedule: int
    data: str
    root: str
    split: str
    images: int
    metrics: Mapping[str, float]
    stored: Mapping[str, float | None] | None
    how: Mapping[str, Any]
    stored_how: Mapping[str, Any]
    seconds: float
    notes: tuple[str, ...] = ()
    figures: tuple[Path, ...] = ()

    @property
    def differences(self) -> dict[str, tuple[float | None, float | None]]:
        """Return the scores that are not the stored ones to the last digit: stored and now, by name."""
        if self.stored is None:
            return {}
        names = dict.fromkeys([*self.stored, *self.metrics])
        pairs = {name: (self.stored.get(name), finite(self.metrics.get(name))) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; scores that are not finite are None."""
        plain = {
            "schema": SCHEMA,
            "checkpoint": str(self.checkpoint),
            "which": self.which,
            "task": self.task,
            "init": self.init,
            "fraction": self.fraction,
            "schedule": self.schedule,
            "data": {"name": self.data, "root": self.root, "split": self.split, "images": self.images},
            "metrics": dict(self.metrics),
            "stored": None if self.stored is None else dict(self.stored),
            "equal": None if self.stored is None else not self.differences,
            "how": dict(self.how),
            "stored_how": dict(self.stored_how),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "figures": [file.name for file in self.figures],
        }
        values: dict[str, Any] = printable_values(to_plain(plain, finite))
        return values

    def write(self, folder: str | Path) -> Path:
        """Write `evaluation.json` into a folder, atomically, and return its path."""
        path = Path(folder) / "evaluation.json"
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        write_file(path, lambda part: part.write_text(text, encoding="utf-8"), needed=len(text))
        return path

    def text(self) -> str:
        """Return the scores as a table, then the notes and how they compare with the stored ones."""
        how = ", ".join(str(self.how[name]) for name in ("accelerator", "precision") if name in self.how)
        lines = [
            f"{self.checkpoint} on {self.data}, {self.split} split: {self.images:,} images in "
            f"{self.seconds:.1f} s ({how}, batches of {self.how.get('batch_size')})",
            "",
        ]
        width = max((len(name) for name in self.metrics), default=0)
        lines += [f"  {name:<{width}}  {_number(value, 6)}" for name, value in self.metrics.items()]
        lines += ["", *(f"note: {note}" for note in self.notes), self.verdict()]
        return printable("\n".join(lines))

    def verdict(self) -> str:
        """Return whether the scores are the stored ones, in a sentence or a table."""
        if self.stored is None:
            return "No stored scores to compare with."
        different = self.differences
        if not different:
            count = len(self.stored)
            return f"Equal to result.json to the last digit ({count} score{'s' * (count != 1)})."
        gaps = [abs(b - a) for a, b in different.values() if a is not None and b is not None]
        largest = f", by {max(gaps):.3g} at most" if gaps else ""
        rows = [f"  {name}: {_number(a)} stored, {_number(b)} now" for name, (a, b) in different.items()]
        head = f"{len(different)} of {len(self.stored)} scores differ from result.json{largest}:"
        before = self.stored_how.items()
        otherwise = [
            f"{name} was {old}, is {self.how[name]}" for name, old in before if old != self.how[name]
        ]
        tail = f"Computed otherwise: {'; '.join(otherwise)}." if otherwise else ""
        return "\n".join([head, *rows, *([tail] * bool(tail))])


def free_folder(out: str | Path, *, overwrite: bool) -> Path:
    """Return a folder that an evaluation may write into; nothing is made.

    Args:
        out: The folder.
        overwrite: Whether it may hold files already.

    Raises:
        InputError: It holds files, is a file, or is no path of this machine.
    """
    folder = local_path(out, "a folder for --out")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected a folder for --out, but {folder} is a file. Choose another.")
    if not overwrite and not is_free(folder):
        raise InputError(
            f"Expected an empty or new folder for --out, but {folder} holds files. Choose another, or give "
            "--overwrite (overwrite=True)."
        )
    return folder


def computed(policy: Mapping[str, Any], batch_size: int | None, env: Mapping[str, Any]) -> dict[str, Any]:
    """Return how scores were computed, as far as it is known.

    Args:
        policy: A device policy as plain values.
        batch_size: Images a batch.
        env: What `environment` returned.
    """
    versions = env.get("versions") or {}
    values = {
        "accelerator": policy.get("accelerator"),
        "precision": policy.get("precision"),
        "batch_size": batch_size,
        "threads": env.get("threads"),
        "torch": versions.get("torch"),
        "visionkit": versions.get("visionkit"),
        "device": env.get("device"),
    }
    return {name: value for name, value in values.items() if value is not None}


def stored_scores(
    result: Mapping[str, Any], *, which: str, split: str, fingerprint: str
) -> tuple[dict[str, float | None] | None, str]:
    """Return what a result has for a split and weights, or None and the reason.

    Args:
        result: The content of `result.json`; empty where there is none.
        which: "best" or "last".
        split: The split.
        fingerprint: Of the images that are evaluated.
    """
    if not result:
        return None, "There is no result.json beside the checkpoint: nothing stored to compare with."
    known = ((result.get("data") or {}).get("fingerprint") or {}).get(split)
    if known != fingerprint:
        return None, f"These are not the {split} images that the run was scored on: nothing to compare with."
    metrics, of = result.get("metrics") or {}, result.get("metrics_of") or {}
    best = (result.get("best") or {}).get("metrics") or {}
    scores = metrics if of.get(split) == which else best if (split, which) == ("val", "best") else {}
    scored = {str(name): value for name, value in scores.items() if str(name).startswith(f"{split}/")}
    if not scored:
        return None, f"The run stored no {split} scores of its {which} weights."
    return scored, ""


def _number(value: float | None, digits: int = 10) -> str:
    return "none" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"
