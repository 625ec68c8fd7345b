"""Small networks to look at: tasks over a network of the test size, and layers whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tests.contracts.task_cases import MORE_TASKS, TASKS
from visionkit.config import OptimConfig, TransferConfig
from visionkit.interpret import Subject
from visionkit.nn.normalize import Normalize

CASES = {case.name: case for case in (*TASKS, *MORE_TASKS)}


def of_task(name: str) -> Subject:
    """A task of the contract with random weights, as `open_subject` would give it from a run."""
    torch.manual_seed(1)
    task = CASES[name].build("scratch", TransferConfig(), OptimConfig()).eval().requires_grad_(False)
    if name in ("detector, retinanet", "detector, fcos"):
        task.model.config = replace(
            task.model.config, score_threshold=0.0
        )  # random weights are sure of nothing
    if name == "captioner":
        task.decoder.output.bias.data[task.vocabulary.eos] = -100  # a sentence of random words goes on
    names = tuple(getattr(task, "class_names", None) or ())
    return Subject(name, task.backbone, task.normalize, (64, 64), task=task, class_names=names)


def of_layers(*layers: nn.Module, head: nn.Module | None = None) -> Subject:
    """A sequence of layers that takes images in [0, 1] as they are."""
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    return Subject("layers", network, Normalize((0.0,) * 3, (1.0,) * 3), (32, 32), head=head)


def textured(seed: int = 0) -> Subject:
    """A small random network with three sizes of maps."""
    torch.manual_seed(seed)
    return of_layers(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(inplace=True),
    )  # fmt: skip
