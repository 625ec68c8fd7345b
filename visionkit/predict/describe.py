"""What was trained or exported, in words, without building its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionkit.backbones.weights import checkpoint_record
from visionkit.errors import InputError
from visionkit.files import local_path
from visionkit.predict.export import describe_file
from visionkit.predict.trained_files import find_trained
from visionkit.run.storage.checkpoint import load_checkpoint

__all__ = ["describe_trained"]


def describe_trained(path: str | Path, *, which: str = "best") -> dict[str, Any]:
    """Return what a trained or exported model is, by name; its network is not built.

    Args:
        path: A run's folder, a folder that holds runs (the best by their monitor is taken), a checkpoint, a
            published folder, or a file that `visionkit.predict.export.export` wrote.
        which: "best" (the checkpoint of the best validation) or "last".

    Returns:
        Of a run, of these what was recorded: "file", "chosen" (of several runs), "task", "backbone", "init",
        "weights" (of the backbone before training, with their licence), "classes", "data", "preprocess",
        "images seen", "precision", "metrics" and "visionkit" (the version). Of an exported file: see
        `describe_file`.

    Raises:
        InputError: Nothing is there, no run in it has a checkpoint, or it is of no task.
    """
    location = local_path(path, "a run")
    if not location.exists():
        raise InputError(
            f"Expected a backbone's name, a run, a checkpoint or an exported file, but {location} is neither "
            "on this disk nor a backbone. `visionkit ls backbones` lists the names; runs are below --out."
        )
    form, file, _, note = find_trained(location, which=which)
    if form == "exported":
        return describe_file(file)
    record = checkpoint_record(file)
    settings, entries = record["hyper_parameters"], record["visionkit"]
    if not entries.get("task"):
        if file.suffix == ".ckpt":
            load_checkpoint(file)  # names what is damaged, or no checkpoint at all
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
