"""Suppression that looks at the best boxes first, beside torchvision's over all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms

from visionkit.nn.detection import suppress
from visionkit.nn.detection.suppress import best_after_nms


def draw(total: int, *, overlap: float, levels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes around few centres (much overlap) or many, scores of `levels` values, three groups."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(max(1, round(total * (1 - overlap))), 2, generator=generator) * 600
    corner = centres[torch.randint(len(centres), (total,), generator=generator)]
    corner = corner + torch.rand(total, 2, generator=generator) * 4
    sides = 20 + torch.rand(total, 2, generator=generator) * 10
    scores = torch.randint(1, levels + 1, (total,), generator=generator) / levels
    return torch.cat((corner, corner + sides), 1), scores, torch.randint(3, (total,), generator=generator)


@given(
    total=st.integers(1001, 2200),
    overlap=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    levels=st.sampled_from([1, 5, 300, 2**23]),
    count=st.sampled_from([1, 7, 100, 999, 2000, 5000]),
    seed=st.integers(0, 2**16),
)
def test_the_best_are_those_of_torchvision(total: int, overlap: float, levels: int, count: int, seed: int):
    boxes, scores, groups = draw(total, overlap=overlap, levels=levels, seed=seed)
    everything = batched_nms(boxes, scores, groups, 0.6)
    best = best_after_nms(boxes, scores, groups, 0.6, count)
    assert len(best) == min(count, len(everything))
    assert set(best.tolist()) <= set(everything.tolist())
    # Of one score torchvision's order depends on the processor, ours is that of the boxes.
    assert scores[best].tolist() == scores[everything[:count]].tolist()
    pairs = list(zip((-scores[best]).tolist(), best.tolist(), strict=True))
    assert pairs == sorted(pairs)
    if len(scores[everything].unique()) == len(everything):
        assert best.tolist() == everything[:count].tolist()


def test_few_boxes_go_to_torchvision_whole():
    boxes, scores, groups = draw(1000, overlap=0.5, levels=2**23, seed=0)
    expected = batched_nms(boxes, scores, groups, 0.6)[:50]
    assert best_after_nms(boxes, scores, groups, 0.6, 50).tolist() == expected.tolist()
    empty = best_after_nms(boxes[:0], scores[:0], groups[:0], 0.6, 50)
    assert (empty.shape, empty.dtype) == ((0,), torch.int64)


@pytest.mark.parametrize("overlap", [0.0, 0.9, 0.999])
def test_little_more_than_is_needed_is_looked_at(monkeypatch: pytest.MonkeyPatch, overlap: float):
    boxes, scores, groups = draw(6000, overlap=overlap, levels=2**23, seed=1)
    looked = []
    survivors = suppress._survivors

    def counted(*args: Tensor | float) -> Tensor:
        looked.append(len(args[0]))
        return survivors(*args)

    monkeypatch.setattr(suppress, "_survivors", counted)
    everything = batched_nms(boxes, scores, groups, 0.6)
    count = len(everything) // 4
    best = best_after_nms(boxes, scores, groups, 0.6, count)
    needed = int((scores >= scores[best[-1]]).sum())  # boxes as good as the last that is kept
    assert looked == sorted(set(looked))
    assert needed <= looked[-1] <= 2.5 * needed
    # The work, in comparisons of boxes, beside that of looking at all: the sum of squares.
    assert sum(number**2 for number in looked) < 0.6 * 6000**2
