"""The tasks that take every kind of input, and how the tests of inputs run them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))

from task_cases import TASKS, TaskCase

from visionkit.config import OptimConfig, TransferConfig
from visionkit.tasks import Detector

FLAT = OptimConfig(warmup=0.0, schedule="constant")
KINDS = [case for case in TASKS if case.name not in ("classifier, multi", "classifier, regression")]
EVERY = pytest.mark.parametrize("case", KINDS, ids=[case.name for case in KINDS])
BUILT = {}


def built(case: TaskCase) -> lightning.LightningModule:
    """One task a row, in evaluation; tests that train make their own."""
    if case.name not in BUILT:
        torch.manual_seed(0)
        BUILT[case.name] = case.build("scratch", TransferConfig(), FLAT)
    return BUILT[case.name].eval()


def trainer(**settings):
    warnings.simplefilter("ignore")
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip


def loader(*batches):
    return DataLoader(list(batches), batch_size=1, collate_fn=lambda items: items[0])


def step(task, batch) -> torch.Tensor:
    """The loss of a batch; a detector has one in training only, and draws what it looks at."""
    torch.manual_seed(0)
    return task.train(isinstance(task, Detector)).training_step(batch, 0)["loss"]


def parts(case: TaskCase, first: int, size: int):
    batch = case.batch(first, size)
    return batch, next(
        name for name in ("labels", "masks", "targets", "tokens", "keypoints") if name in batch
    )


def values(predictions) -> list[torch.Tensor]:
    return [
        value.float()
        for each in predictions
        for value in vars(each).values()
        if isinstance(value, torch.Tensor)
    ]


class Mean(nn.Module):
    dim = 3

    def forward(self, images):
        return images.mean((2, 3))
