"""Trains the small captioner self-critically in as many processes as torchrun started.

Usage: self_critical_worker.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from captioning_tiny import captioner, data, trainer

from visionkit.tasks import SelfCritical

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def train(baseline: str) -> dict:
    task = captioner("att2in", self_critical=SelfCritical(0, baseline, 3), dropout=0.0)
    run = trainer(max_steps=3, devices=WORLD, strategy="ddp" if WORLD > 1 else "auto")
    rewards = []
    log = task.log_dict
    task.log_dict = lambda values, **given: (
        rewards.append(values["train/reward"]) if given.get("on_step") else None,
        log(values, **given),
    )
    run.fit(task, datamodule=data(batch_size=8 // WORLD, train=40))
    return {
        "rewards": rewards,
        "weights": {name: value.clone() for name, value in task.state_dict().items()},
        "scores": {name: float(value) for name, value in run.callback_metrics.items() if "val/" in name},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {baseline: train(baseline) for baseline in ("mean", "greedy")}
    torch.save(found, Path(sys.argv[1], f"{WORLD}-{RANK}.pt"))
