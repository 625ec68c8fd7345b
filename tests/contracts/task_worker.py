"""Evaluates every task in as many processes as there are, on uneven shares, one of them empty."""

from __future__ import annotations

import os
import warnings

import lightning
import torch

from tests.contracts.task_cases import TASKS
from visionkit.config import OptimConfig, TransferConfig
from visionkit.run.callbacks.step_seed import StepSeed

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Share(torch.utils.data.Dataset):
    """Batches of this process's share, one item each; their number differs between processes."""

    def __init__(self, case, size: int) -> None:
        mine = list(range(size))[RANK::WORLD]
        self.batches = [case.batch(i, 1) for i in mine] or [case.empty]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int):
        return self.batches[index]


def one(items):
    return items[0]


def evaluate(case, size: int) -> tuple[dict[str, float], dict[str, list]]:
    """Return the scores and, by column, what each image added to them."""
    torch.manual_seed(0)
    task = case.build(
        "scratch", TransferConfig(), OptimConfig(warmup=0.0, schedule="constant", optimizer="sgd")
    )
    task.lr = 0.0
    task.save_image_rows = True
    trainer = lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=WORLD,
        strategy="ddp" if WORLD > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[StepSeed(0)],  # crops of a keypoint regressor are drawn, and move statistics
    )
    # Training with rate 0 wraps the task in DDP and moves running statistics, each process its own.
    train = torch.utils.data.DataLoader([case.batch(64 + 8 * RANK, 8)], batch_size=1, collate_fn=one)
    val = torch.utils.data.DataLoader(Share(case, size), batch_size=1, collate_fn=one)
    trainer.fit(task, train, val)
    statistics = sum(float(b.double().sum()) for n, b in task.named_buffers() if "running" in n)
    values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    rows = {name: column.tolist() for name, column in task.image_rows.items()}
    return {**values, "statistics": statistics}, rows


def main() -> dict[str, tuple[dict[str, float], dict[str, list]]]:
    warnings.simplefilter("ignore")
    return {f"{case.name}, {size}": evaluate(case, size) for case in TASKS for size in (7, 1)}
