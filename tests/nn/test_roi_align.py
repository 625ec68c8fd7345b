"""RoIAlign as one embedding_bag equals torchvision's kernel, forward and backward, and pools by level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as reference

from visionkit.nn.detection import roi_align as module
from visionkit.nn.detection.roi_align import RoIPool, roi_align, roi_align_kernel


def _boxes(count: int, side: float, generator: torch.Generator, *, outside: bool = False) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * side
    size = torch.rand(count, 2, generator=generator) * side
    boxes = torch.cat((corner, corner + size), 1)
    return boxes - side / 2 if outside else boxes.clamp(max=side)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    samples=st.integers(1, 3),
    bins=st.integers(1, 7),
    aligned=st.booleans(),
    outside=st.booleans(),
)
def test_equals_torchvision_forward_and_backward(seed, height, width, samples, bins, aligned, outside):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, height, width, generator=generator)
    boxes = _boxes(5, 4.0 * max(height, width), generator, outside=outside)
    rois = torch.cat((torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0]]), boxes), 1)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    got = roi_align(ours, rois, output_size=bins, spatial_scale=0.25, sampling_ratio=samples, aligned=aligned)
    want = reference(theirs, rois, (bins, bins), 0.25, samples, aligned)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    weight = torch.randn(want.shape, generator=generator)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=0)


@pytest.mark.parametrize("train", [True, False])
def test_pool_equals_torchvision_over_levels(train):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4, 512 // r, 512 // r, generator=generator) for r in (4, 8, 16, 32)]
    boxes = [_boxes(40, 512.0, generator), torch.zeros(0, 4)]
    theirs = MultiScaleRoIAlign([str(i) for i in range(4)], 7, 2)
    want = theirs({str(i): m for i, m in enumerate(maps)}, boxes, [(512, 512)] * 2)
    pool = RoIPool((4, 8, 16, 32), output_size=7)
    assert len(pool.assign(boxes[0]).unique()) >= 3
    got = pool([m.clone().requires_grad_(train) for m in maps], boxes)
    assert (got.grad_fn is not None) is train
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("reductions", [(4,), (4, 8)])
def test_an_aligned_pool_has_the_value_of_a_position_at_its_middle(train, reductions):
    """A map of its own middles, pooled: the middle bin of a box has the box's centre."""
    maps = []
    for reduction in reductions:
        across = (torch.arange(96 // reduction) + 0.5) * reduction
        maps.append(across.expand(1, 1, 96 // reduction, -1).clone().requires_grad_(train))
    boxes = torch.tensor([[20.0, 16.0, 50.0, 70.0], [30.0, 30.0, 60.0, 66.0]])
    for aligned, shift in ((True, 0.0), (False, 0.5 * reductions[0])):
        pool = RoIPool(reductions, output_size=7, aligned=aligned)
        middle = pool(maps, [boxes])[:, 0, 3, 3]
        torch.testing.assert_close(middle, torch.tensor([35.0, 45.0]) + shift, atol=1e-4, rtol=0)


def test_pool_keeps_the_type_of_bfloat16_maps_and_takes_no_boxes():
    maps = [torch.randn(1, 2, 8, 8, dtype=torch.bfloat16, requires_grad=True)]
    pool = RoIPool((8,), output_size=3)
    got = pool(maps, [torch.tensor([[0.0, 0.0, 60.0, 40.0]])])
    assert got.dtype == torch.bfloat16
    assert got.shape == (1, 2, 3, 3)
    empty = pool(maps, [torch.zeros(0, 4)])
    assert empty.shape == (0, 2, 3, 3)
    empty.sum().backward()
    assert maps[0].grad is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_box_that_is_not_finite_reads_nothing_outside_the_map(value):
    maps = torch.ones(1, 1, 4, 4, requires_grad=True)
    got = roi_align(maps, torch.tensor([[0.0, 0.0, 0.0, value, 4.0]]), output_size=2, spatial_scale=1.0)
    assert got.shape == (1, 1, 2, 2)


def test_a_sampling_ratio_below_one_is_refused():
    with pytest.raises(ValueError, match="Expected sampling_ratio to be at least 1, but got 0"):
        roi_align(
            torch.ones(1, 1, 4, 4), torch.zeros(1, 5), output_size=2, spatial_scale=1.0, sampling_ratio=0
        )


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_the_table_serves_where_the_kernel_is_slow_or_its_gradient_in_no_order(device, deterministic, train):
    pool, maps = RoIPool((4,), output_size=2), torch.zeros(1, 3, 8, 8, device=device, requires_grad=train)
    taken = []
    pool._pool_bags = lambda *parts: taken.append("table")
    pool._pool_parts = lambda *parts: taken.append("parts")
    pool._pool_native = lambda *parts: taken.append("kernel")
    torch.use_deterministic_algorithms(deterministic)
    try:
        pool([maps], [torch.tensor([[0.0, 0.0, 9.0, 9.0]], device=device)])
    finally:
        torch.use_deterministic_algorithms(False)
    if device == "cpu":
        assert taken == ["table" if train else "parts"]
    else:
        assert taken == ["table" if train and deterministic else "kernel"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_regions_pooled_in_parts_are_those_of_the_table_to_the_bit(monkeypatch, dtype, layout):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 5, 128 // r, 160 // r, generator=generator) for r in (4, 8, 16)]
    maps = [m.to(dtype).to(memory_format=layout) for m in maps]
    boxes = [_boxes(23, 160.0, generator, outside=True), _boxes(4, 120.0, generator)]
    pool = RoIPool((4, 8, 16), output_size=3)
    want = pool([m.clone().requires_grad_() for m in maps], boxes)
    for part in (1, 10, 27, 500):
        monkeypatch.setattr(module, "_PART", part)
        got = pool(maps, boxes)
        assert got.dtype == dtype
        assert torch.equal(got, want)
    assert pool(maps, [torch.zeros(0, 4)] * 2).shape == (0, 5, 3, 3)


def test_a_traced_graph_holds_the_kernel_for_any_number_of_regions():
    maps, boxes = torch.randn(1, 2, 8, 8), torch.tensor([[0.0, 0.0, 9.0, 9.0], [2.0, 3.0, 20.0, 30.0]])
    traced = torch.jit.trace(
        lambda one, given: RoIPool((4,), output_size=2)([one], [given]), (maps, boxes[:1])
    )
    assert "torchvision::roi_align" in str(traced.inlined_graph)
    want = RoIPool((4,), output_size=2)([maps], [boxes])
    torch.testing.assert_close(traced(maps, boxes), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [-1, 2])
def test_the_kernel_is_torchvisions(samples):
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(2, 3, 20, 30, generator=generator)
    rois = torch.cat((torch.randint(0, 2, (30, 1), generator=generator), _boxes(30, 80.0, generator)), 1)
    want = reference(maps, rois, (5, 5), 0.25, samples)
    assert torch.equal(roi_align_kernel(maps, rois, 5, 0.25, samples), want)
