"""One of two processes that train detectors under plain DDP, with empty images in random places."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.nn.detectors import TinySource, random_targets
from tests.processes import gloo_threads, together
from visionkit.config import TransferConfig
from visionkit.task_config import RCNNConfig
from visionkit.tasks import Detector

PATTERNS = {"boxes": 20, "masks": 20, "keypoints": 8}
POINTS = tuple("abcde")  # as many as `random_targets` has


class Step(torch.nn.Module):
    def __init__(self, task: Detector) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch):
        return self.task.training_step(batch, 0)["loss"]


def share(pattern: int, rank: int, counts: torch.Tensor) -> dict[str, Any]:
    """The batch of a process; what is drawn in its step is fixed as well."""
    torch.manual_seed(100 * pattern + rank)
    targets = random_targets(counts[rank].tolist(), size=32, classes=2, seed=2 * pattern + rank)
    images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in targets]
    return {"images": images, "targets": targets}


def gradients(task: Detector) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in task.parameters()])


def train(rank: int, kind: str) -> dict[str, object]:
    torch.manual_seed(0)
    small = {"head_width": 16, "proposals_train": 30, "box_samples": 16, "anchor_scales": (4.0,)}
    small |= {"keypoint_convs": 1, "keypoint_width": 8}
    masks = kind == "masks"
    rcnn = RCNNConfig(**small, masks=masks, head="four_conv" if masks else "two_fc")
    task = Detector(
        TinySource(), init="scratch", num_classes=2, rcnn=rcnn, pyramid_channels=8,
        keypoints=POINTS if kind == "keypoints" else None, transfer=TransferConfig(norm="group"),
    )  # fmt: skip
    alone = copy.deepcopy(task.train())
    model = DistributedDataParallel(Step(task), broadcast_buffers=False)
    draw = torch.Generator().manual_seed(5)
    empty, without, unequal, apart = 0, 0, 0, []
    for pattern in range(PATTERNS[kind]):
        # Pattern 0: this process has no object at all and the other one has; 1: the other way; 2: nobody has.
        counts = torch.randint(0, 3, (2, 2), generator=draw) * (torch.rand(2, 2, generator=draw) < 0.5)
        if pattern < 3:
            counts = torch.tensor([[[0, 0], [2, 1]], [[1, 2], [0, 0]], [[0, 0], [0, 0]]][pattern])
        task.zero_grad()
        loss = model(share(pattern, rank, counts))
        loss.backward()
        empty += int(counts[rank].sum() == 0)
        without += sum(p.grad is None or not bool(p.grad.isfinite().all()) for p in task.parameters())
        mine = gradients(task)
        both = [torch.empty_like(mine) for _ in range(2)]
        distributed.all_gather(both, mine)
        unequal += int(not torch.equal(*both))
        if kind == "keypoints":  # one process that takes both shares: the mean of their losses
            alone.zero_grad()
            for other in range(2):
                (alone.training_step(share(pattern, other, counts), 0)["loss"] / 2).backward()
            apart.append(float((gradients(alone) - mine).norm() / mine.norm()))
    return {"empty": empty, "without": without, "unequal": unequal, "apart": apart}


def main(rank: int, folder: str) -> dict[str, object]:
    warnings.simplefilter("ignore")
    with together(folder, rank, 2):
        report = {kind: train(rank, kind) for kind in PATTERNS}
    return report | {"threads": gloo_threads()}
