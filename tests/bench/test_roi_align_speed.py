"""RoIAlign's training form against torchvision's CPU kernel: paired, equal first, process time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from visionkit.nn.detection.roi_align import RoIPool


def _seconds(pool: Callable[[], Tensor], weight: Tensor) -> float:
    start = time.process_time()
    pool().backward(weight)
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
def test_forward_and_backward_is_at_least_two_and_a_half_times_faster(layout):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 256, 320 // r, 320 // r, generator=generator) for r in (4, 8, 16, 32)]
    maps = [m.to(memory_format=layout).requires_grad_() for m in maps]
    corner = torch.rand(2, 512, 2, generator=generator) * 220
    boxes = list(torch.cat((corner, corner + torch.rand(2, 512, 2, generator=generator) * 100), 2))
    ours, theirs = RoIPool((4, 8, 16, 32), output_size=7), MultiScaleRoIAlign(list("0123"), 7, 2)
    named = {str(i): m for i, m in enumerate(maps)}
    sizes = [(320, 320)] * 2
    torch.testing.assert_close(ours(maps, boxes), theirs(named, boxes, sizes), atol=1e-4, rtol=0)
    weight = torch.randn(1024, 256, 7, 7, generator=generator)
    ratios = []
    for _ in range(7):
        slow = _seconds(lambda: theirs(named, boxes, sizes), weight)
        ratios.append(slow / _seconds(lambda: ours(maps, boxes), weight))
    torch.set_num_threads(threads)
    print(f"\nroi_align {layout}: {statistics.median(ratios):.2f}x [{min(ratios):.2f}..{max(ratios):.2f}]")
    assert statistics.median(ratios) >= 2.5
