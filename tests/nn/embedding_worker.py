"""One process of a test: a linear layer learns from vectors of all processes; its gradients by loss."""

from __future__ import annotations

import torch
from torch import nn

from tests.processes import together
from visionkit.distributed import gather_with_gradients
from visionkit.nn.embedding.losses import (
    batch_hard_triplet_loss,
    contrastive_loss,
    supervised_contrastive_loss,
)

LOSSES = {
    "triplet": batch_hard_triplet_loss,
    "contrastive": contrastive_loss,
    "supcon": supervised_contrastive_loss,
}


def gradients(rank: int = 0, world: int = 1) -> dict[str, list[float]]:
    """The loss and the gradients after one step of `DistributedDataParallel`, or of one process."""
    rng = torch.Generator().manual_seed(4)
    inputs, labels = torch.randn(12, 5, generator=rng), torch.arange(12) % 4
    size = 12 // world
    part = slice(rank * size, (rank + 1) * size)
    told = {}
    for name, loss in LOSSES.items():
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
        model = nn.parallel.DistributedDataParallel(net) if world > 1 else net
        vectors = nn.functional.normalize(model(inputs[part]), dim=1)
        of_all = torch.cat([gather_with_gradients(each) for each in (labels[part, None],)])[:, 0]
        value = loss(gather_with_gradients(vectors), of_all)
        value.backward()
        told[name] = [value.item(), *net.weight.grad.flatten().tolist(), *net.bias.grad.tolist()]
    return told


def main(rank: int, folder: str, world: int) -> dict[str, list[float]]:
    with together(folder, rank, world):
        return gradients(rank, world)
