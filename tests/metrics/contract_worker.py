"""One process of several that update, compute and go on, for every metric."""

from __future__ import annotations

from tests.metrics.metric_cases import CASES, IMAGES, hexes
from tests.processes import together


def main(rank: int, folder: str, world: int) -> dict[str, list[dict[str, str]]]:
    told = {}
    with together(folder, rank, world):
        for case in CASES:
            metric = case.build()
            if rank == 0:  # the other processes have no image yet
                metric.update(*case.batch(0))
            first = metric.compute()
            metric.update(*case.batch(*range(rank or world, IMAGES, world)))  # of two: 1 3 5 7, and 2 4 6 8
            both = metric.compute()
            gathering = case.build(process_group=_world())
            for position in range(rank, IMAGES, world):
                gathering.update(*case.batch(position))
            told[case.name] = [hexes(values) for values in (first, both, gathering.compute())]
    return told


def _world() -> object:
    import torch.distributed as dist

    return dist.group.WORLD
