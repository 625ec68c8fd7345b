"""What was trained or exported, in words, without building its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionkit.backbones.sources.trained import WEIGHTS, checkpoint_of, choose_run, published_config
from visionkit.backbones.weights import checkpoint_record
from visionkit.errors import InputError
from visionkit.files import local_path
from visionkit.predict.export import describe_file

__all__ = ["EXPORTED", "describe_trained"]

EXPORTED = (".onnx", ".pt2", ".safetensors")


def describe_trained(path: str | Path, *, which: str = "best") -> dict[str, Any]:
    """Return what a trained or exported model is, by name; its network is not built.

    Args:
        path: A run's folder, a folder that holds runs (the best by their monitor is taken), a checkpoint, a
            published folder, or a file that `visionkit.predict.export.export` wrote.
        which: "best" (the checkpoint of the best validation) or "last".

    Returns:
        Of a run: "file", "task", "backbone", "init", "weights" (of the backbone before training, with their
        licence), "classes", "data", "preprocess", "trained" (images and precision) and "metrics", those that
        were recorded. Of an exported file: see `describe_file`.

    Raises:
        InputError: Nothing is there, no run in it has a checkpoint, or it is of no task.
    """
    location = local_path(path, "a run")
    if not location.exists():
        raise InputError(
            f"Expected a backbone's name, a run, a checkpoint or an exported file, but {location} is neither "
            "on this disk nor a backbone. `visionkit ls backbones` lists the names; runs are below --out."
        )
    if location.is_file() and location.suffix in EXPORTED and location.name != WEIGHTS:
        return describe_file(location)
    file, note = _trained_file(location, which)
    record = checkpoint_record(file)
    settings, entries = record["hyper_parameters"], record["visionkit"]
    if not entries.get("task"):
        raise InputError(
            f"Expected a checkpoint of a task, but {file} names none. Weights alone are for `--init FILE`."
        )
    facts = entries.get("facts") or {}
    policy, data = facts.get("policy") or {}, facts.get("data") or {}
    table: dict[str, Any] = {
        "file": f"{file}, {file.stat().st_size / 1e6:,.1f} MB",
        "chosen": note,
        "task": entries["task"],
        "backbone": settings.get("backbone", ""),
        "init": facts.get("init", settings.get("init", "")),
        "weights": facts.get("weights") or {},
        "classes": settings.get("class_names") or [],
        "data": data.get("name", ""),
        "preprocess": facts.get("preprocess") or {},
        "images seen": facts.get("images_seen", ""),
        "precision": policy.get("precision", ""),
        "metrics": facts.get("metrics") or {},
        "visionkit": facts.get("version", ""),
    }
    return {name: value for name, value in table.items() if value not in ("", [], {})}


def _trained_file(location: Path, which: str) -> tuple[Path, str]:
    """Return the file that holds the weights, and a note on which of several runs it is."""
    folder = location.parent if location.name == WEIGHTS else location
    if folder.is_dir() and published_config(folder) is not None:
        return folder / WEIGHTS, ""
    if location.is_dir():
        run, note = choose_run(location)
        return checkpoint_of(run, which), note
    return location, ""
