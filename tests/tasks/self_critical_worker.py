"""Trains the small captioner self-critically in as many processes as there are, in 64 bits, by SGD."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tests.tasks.captioning_tiny import captioner, data, trainer
from visionkit.config import OptimConfig
from visionkit.tasks import SelfCritical

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def train(baseline: str) -> dict:
    plain = OptimConfig(optimizer="sgd", schedule="constant", warmup=0.0, weight_decay=0.0, clip_norm=0.0)
    task = captioner("att2in", self_critical=SelfCritical(0, baseline, 3), dropout=0.0, optim=plain, lr=0.1)
    strategy = "ddp" if WORLD > 1 else "auto"
    run = trainer(max_steps=3, devices=WORLD, strategy=strategy, precision="64-true")
    rewards, gradients = [], []
    task.on_before_optimizer_step = lambda optimizer: gradients.append(
        {name: value.grad.clone() for name, value in task.named_parameters() if value.grad is not None}
    )
    log = task.log_dict
    task.log_dict = lambda values, **given: (
        rewards.append(values["train/reward"]) if given.get("on_step") else None,
        log(values, **given),
    )
    run.fit(task, datamodule=data(batch_size=8 // WORLD, train=40))
    return {
        "rewards": rewards,
        "gradients": gradients,
        "weights": {name: value.clone() for name, value in task.state_dict().items()},
        "scores": {name: float(value) for name, value in run.callback_metrics.items() if "val/" in name},
    }


def main(folder: str) -> None:
    found = {baseline: train(baseline) for baseline in ("mean", "greedy")}
    torch.save(found, Path(folder, f"{WORLD}-{RANK}.pt"))
