"""The facts that a run prints before it starts: versions, device, batch, data, what is frozen, folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning

from visionkit.config import TransferConfig
from visionkit.data.datamodule import DataModule
from visionkit.run.config import RunConfig
from visionkit.run.storage.result import environment
from visionkit.run.sweep.announce import announce, notice_lines
from visionkit.run.training.device_policy import Policy
from visionkit.run.training.schedule_length import ScheduleLength

__all__ = ["banner_text"]


def banner_text(
    config: RunConfig,
    task: lightning.LightningModule,
    data: DataModule,
    trainer: lightning.Trainer,
    policy: Policy,
    folder: Path,
    plan: ScheduleLength,
    resume: str | None,
    changed: str = "",
) -> str:
    """Return the facts of one run; `changed` says which settings are not as before."""
    from visionkit.optim import describe_rate

    env, world = environment(), trainer.world_size
    versions = env["versions"]
    local_batch, update = plan.images_per_batch // world, plan.images_per_batch * config.accumulate
    sizes = data.facts()["sizes"]
    total = sum(p.numel() for p in task.parameters())
    trainable = sum(p.numel() for p in task.parameters() if p.requires_grad)
    transfer = getattr(task, "transfer", None)
    norm = transfer.norm if isinstance(transfer, TransferConfig) else None
    frozen = transfer.freeze_through if isinstance(transfer, TransferConfig) else None
    rows = {
        "run": f"{folder.name}: init {config.init}, seed {config.seeds[0]}, fraction {config.fractions[0]:g}"
        + (f", fold {config.folds[1]} of {config.folds[0]}" if config.folds else "")
        + (f", schedule {config.schedules[0]}x" if config.schedules[0] > 1 else ""),
        "versions": ", ".join(
            f"{name} {versions[name]}" for name in ("visionkit", "torch", "lightning", "timm")
        ),
        "device": f"{world} x {policy.accelerator} ({env['device']}), {policy.precision}"
        + (", channels-last" if policy.channels_last else "")
        + (", compiled" if policy.compile else ""),
        "batch": f"{local_batch} x {world} process(es) x {config.accumulate} accumulated = {update}",
        "rate": describe_rate(config.lr, config.optim, update),
        "data": f"{data.splits.name}: {sizes['train']} of {sizes['train_full']} train, {sizes['val']} val, "
        f"{sizes['test']} test" + _targets(task, data.splits.classes),
        "length": plan.describe(sizes["train"])
        + (f"; at most: patience {config.patience} validations" if config.patience else ""),
        "model": f"{type(task).__name__} over {config.backbone}: {total / 1e6:.2f} M parameters, "
        f"{trainable / 1e6:.2f} M trained; norm {norm}, "
        + (f"frozen through {frozen}" if frozen else "nothing frozen"),
        **({"begins": note} if (note := getattr(task, "init_note", "")) else {}),
        **({"doubt": doubt} if (doubt := weights_doubt(task)) else {}),
        "out": str(folder) + (f" (continuing from {Path(resume).name})" if resume else ""),
    }
    lines = notice_lines(data.splits.notices)
    new = announce(lines)
    shown = [("notice", line) for line in (*announce([changed]), *new)]
    if len(new) < len(lines):
        shown.append(("notices", f"{len(lines) - len(new)} more of the data, as above"))
    return "\n".join(f"  {name:<9} {value}" for name, value in [*rows.items(), *shown])


def weights_doubt(task: lightning.LightningModule) -> str:
    """Return why the weights that a task begins from look as if they were never trained; empty if not."""
    return getattr(getattr(getattr(task, "backbone", None), "weights", None), "doubt", "")


def _targets(task: lightning.LightningModule, classes: Sequence[str]) -> str:
    """Return what is learnt, where it is classes or numbers; captions have neither."""
    if not classes:
        return ""
    word = ("number", "s") if getattr(task, "target", "") == "regression" else ("class", "es")
    return f", {len(classes)} {word[0]}{word[1] * (len(classes) != 1)}"
