"""The hyper-parameters of a run for trackers, as one flat table, and the content of its `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning

from visionkit import __version__
from visionkit.backbones.weights import portable_init
from visionkit.config import flatten, roles
from visionkit.data.datamodule import DataModule
from visionkit.data.transforms.saved import describe_transform
from visionkit.printable import printable_values
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.storage.result import environment, peak_memory_mb
from visionkit.run.training.device_policy import Policy
from visionkit.run.training.schedule_length import ScheduleLength

__all__ = ["model_facts", "run_facts", "run_result"]


def model_facts(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, policy: Policy
) -> dict[str, Any]:
    """Return what a checkpoint carries of its run, for prediction and evaluation on another machine.

    Args:
        config: The run's settings.
        task: The task that is trained.
        data: Its data.
        policy: How it uses its device.

    Returns:
        Plain values, without a path of this machine: "preprocess", "eval_batch_size", for captions
        "captions_per_image", "data" (name, kind and options), for vectors "gallery" where it is not the
        split, "init", "weights", "policy", "version".
    """
    opened = data.splits.opened
    # Only a collate of captions has it: the sentences of each image that the loss is of.
    sentences = getattr(data.collate, "keywords", {}).get("captions_per_image")
    return {
        "preprocess": describe_transform(data.eval_transform),
        "eval_batch_size": data.eval_batch_size,
        **({} if sentences is None else {"captions_per_image": sentences}),
        "data": {
            "name": data.splits.name,
            "kind": opened.get("kind"),
            "options": dict(opened.get("options", {})),
        },
        **({} if data.gallery == "split" else {"gallery": data.gallery}),
        "init": portable_init(config.init),
        "weights": _weights(task),
        "policy": policy.as_dict(),
        "version": __version__,
    }


def run_facts(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, plan: ScheduleLength
) -> dict[str, Any]:
    """Return the settings of one run by dotted names, with its one init, seed and fraction.

    Args:
        config: One run's settings.
        task: The task that is trained.
        data: Its data.
        plan: Its length.
    """
    left_out = {name for name, role in roles(config).items() if role == "free"} | {
        "seeds",
        "fractions",
        "folds",
        "schedules",
    }
    settings = {name: v for name, v in flatten(to_dict(config)).items() if name not in left_out}
    facts = {
        "init": config.init,
        "seed": config.seeds[0],
        "fraction": config.fractions[0],
        "schedule": config.schedules[0],
        **({"fold": config.folds[1], "folds": config.folds[0]} if config.folds else {}),
        "task": type(task).__name__,
        "epochs": plan.epochs,
        "images": plan.images,
        "images_per_update": plan.images_per_batch * config.accumulate,
        "data": config.data,
        "data_name": data.splits.name,
        "train_size": len(data.train_data),
        "classes": len(data.splits.classes),
        "parameters": _parameters(task)["total"],
    }
    plain: dict[str, Any] = printable_values(settings | facts)
    return plain


def run_result(
    config: RunConfig,
    task: lightning.LightningModule,
    data: DataModule,
    *,
    plan: ScheduleLength,
    policy: Policy,
    precision: str,
    folder: Path,
    outcome: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of `result.json` of a finished run.

    Args:
        config: Its settings.
        task: The task that was trained.
        data: Its data.
        plan: Its planned length.
        policy: Its device policy.
        precision: The precision of the Trainer.
        folder: Its folder.
        outcome: What only the training knows: metrics, images seen, problems, seconds.
    """
    seen, predictions = outcome["images_seen"], "predictions/val.jsonl"
    return {
        "task": type(task).__name__,
        "init": config.init,
        "seed": config.seeds[0],
        "fraction": config.fractions[0],
        "fold": config.folds[1] if config.folds else None,
        "schedule": config.schedules[0],
        **outcome,
        "stopped_early": {"images": seen, "planned_images": plan.images} if seen < plan.images else None,
        "weights": _weights(task),
        "init_note": getattr(task, "init_note", ""),
        "config": to_dict(config),
        # For a comparison, which has no access to recipes. Settings that are not listed are "identity".
        "roles": {name: role for name, role in roles(config).items() if role != "identity"},
        "policy": policy.as_dict(),
        "env": environment(),
        "peak_memory_mb": peak_memory_mb(),
        "parameters": _parameters(task),
        "class_weights": _class_weights(task, data),
        "data": data.facts(),
        "equal": _equal(config, task, data, plan, precision),
        "predictions": predictions if (folder / predictions).exists() else None,
    }


def _equal(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, plan: ScheduleLength, precision: str
) -> dict[str, Any]:
    """Return what has to be equal between the arms, with its values in this run."""
    return {
        "norm": getattr(getattr(task, "transfer", None), "norm", None),
        "schedule": {
            "images": plan.images,
            "epochs": plan.epochs,
            "global_batch": plan.images_per_batch * config.accumulate,
            "shape": config.optim.schedule,
            "lr": config.lr,
        },
        "order": data.order_fingerprint(),
        "skipped_samples": data.skipped_counts(),
        "draws": {"seed": data.seed, "batch_transform": _name(data.batch_transform)},
        "precision": precision,
    }


def _name(transform: object | None) -> str:
    return "none" if transform is None else type(transform).__name__


def _weights(task: lightning.LightningModule) -> dict[str, Any]:
    record = getattr(getattr(task, "backbone", None), "weights", None)
    as_dict = getattr(record, "as_dict", None)
    return dict(as_dict()) if callable(as_dict) else {}


def _class_weights(task: lightning.LightningModule, data: DataModule) -> dict[str, float] | None:
    """Return the weight of each class in the loss, by name; None where all weigh the same."""
    weights = task.hparams.get("class_weights")
    return weights and dict(zip(data.splits.classes, weights, strict=False))


def _parameters(task: lightning.LightningModule) -> dict[str, int]:
    return {
        "total": sum(p.numel() for p in task.parameters()),
        "trainable": sum(p.numel() for p in task.parameters() if p.requires_grad),
    }
