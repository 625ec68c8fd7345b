"""One of two processes that train detectors under plain DDP, with empty images in random places."""

from __future__ import annotations

import warnings

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.nn.detectors import TinySource, random_targets
from tests.processes import gloo_threads, together
from visionkit.config import TransferConfig
from visionkit.task_config import RCNNConfig
from visionkit.tasks import Detector

PATTERNS = {"boxes": 20, "masks": 20}


class Step(torch.nn.Module):
    def __init__(self, task: Detector) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch):
        return self.task.training_step(batch, 0)["loss"]


def train(rank: int, *, masks: bool) -> dict[str, object]:
    torch.manual_seed(0)
    small = {"head_width": 16, "proposals_train": 30, "box_samples": 16, "anchor_scales": (4.0,)}
    rcnn = RCNNConfig(**small, masks=masks, head="four_conv" if masks else "two_fc")
    task = Detector(
        TinySource(), init="scratch", num_classes=2, rcnn=rcnn, pyramid_channels=8,
        transfer=TransferConfig(norm="group"),
    )  # fmt: skip
    model = DistributedDataParallel(Step(task.train()), broadcast_buffers=False)
    draw = torch.Generator().manual_seed(5)
    empty, without, unequal = 0, 0, 0
    for pattern in range(PATTERNS["masks" if masks else "boxes"]):
        # Pattern 0: this process has no object at all and the other one has; 1: the other way; 2: nobody has.
        counts = torch.randint(0, 3, (2, 2), generator=draw) * (torch.rand(2, 2, generator=draw) < 0.5)
        if pattern < 3:
            counts = torch.tensor([[[0, 0], [2, 1]], [[1, 2], [0, 0]], [[0, 0], [0, 0]]][pattern])
        targets = random_targets(counts[rank].tolist(), size=32, classes=2, seed=2 * pattern + rank)
        images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in targets]
        task.zero_grad()
        loss = model({"images": images, "targets": targets})
        loss.backward()
        empty += int(counts[rank].sum() == 0)
        without += sum(p.grad is None or not bool(p.grad.isfinite().all()) for p in task.parameters())
        mine = torch.cat([p.grad.flatten() for p in task.parameters()])
        both = [torch.empty_like(mine) for _ in range(2)]
        distributed.all_gather(both, mine)
        unequal += int(not torch.equal(*both))
    return {"empty": empty, "without": without, "unequal": unequal}


def main(rank: int, folder: str) -> dict[str, object]:
    warnings.simplefilter("ignore")
    with together(folder, rank, 2):
        report = {name: train(rank, masks=name == "masks") for name in ("boxes", "masks")}
    return report | {"threads": gloo_threads()}
