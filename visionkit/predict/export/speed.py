"""How much processor time an exported graph and its task take for the same images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from visionkit.predict.export.check import reference
from visionkit.tasks.hooks import TaskHooks

__all__ = ["TURNS", "speed"]

TURNS = 7


def speed(run: Callable[[Tensor], Any], task: TaskHooks, images: Tensor) -> dict[str, float]:
    """Return milliseconds of processor time of a call of the file and of one of the task: medians.

    Both get the same images on one thread, one after the other in each of `TURNS` turns, after a turn that
    does not count. Time on the wall and more threads would tell what else the machine does: where its cores
    are busy, each layer of torch waits for its last thread, and the longer call is interrupted more often.

    Args:
        run: The file; on one thread, too.
        task: In evaluation mode, on the CPU.
        images: `(B, C, H, W)`, uint8 or float in [0, 1].
    """
    calls: dict[str, Callable[[], Any]] = {
        "file": lambda: run(images),
        "task": lambda: reference(task, images),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(1 + TURNS):
            for name, call in calls.items():
                start = time.process_time()
                call()
                if turn:
                    times[name].append(1000 * (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in times.items()}
