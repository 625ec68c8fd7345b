"""What a run truly is, as one flat table: the hyper-parameters that trackers show."""

from __future__ import annotations

from typing import Any

import lightning

from visionkit.compare.compatibility import flatten
from visionkit.data.datamodule import DataModule
from visionkit.printable import printable_values
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.training.schedule_length import Length

__all__ = ["run_facts"]

# They say where and how a run is kept, not what it is.
LEFT_OUT = frozenset({"out", "resume", "logger", "progress", "jobs", "timeout", "seeds", "fractions"})


def run_facts(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, plan: Length
) -> dict[str, Any]:
    """Return the settings of one run by dotted names, with its init, seed and fraction as they are.

    Args:
        config: One run's settings.
        task: What is trained.
        data: What it is trained on.
        plan: How long.
    """
    settings = {name: value for name, value in to_dict(config).items() if name not in LEFT_OUT}
    facts = {
        "init": config.init,
        "seed": config.seeds[0],
        "fraction": config.fractions[0],
        "task": type(task).__name__,
        "epochs": plan.epochs,
        "images": plan.images,
        "images_per_update": plan.width * config.accumulate,
        "data": config.data,
        "data_name": data.splits.name,
        "train_size": len(data.train_data),
        "classes": len(data.splits.classes),
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
    }
    plain: dict[str, Any] = printable_values(flatten(settings) | facts)
    return plain
