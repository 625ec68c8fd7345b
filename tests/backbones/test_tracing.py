"""Norms in a trace are a product and a sum: the shapes, layouts and gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visionkit.backbones.tracing import ShapeNorms

CASES = {
    "batch": (nn.BatchNorm2d(6), (2, 6, 4, 5)),
    "batch of vectors": (nn.BatchNorm1d(6), (2, 6)),
    "batch without weights": (nn.BatchNorm2d(6, affine=False), (2, 6, 4, 5)),
    "layer": (nn.LayerNorm(5), (2, 6, 4, 5)),
    "layer over two dimensions": (nn.LayerNorm((4, 5)), (2, 6, 4, 5)),
    "layer without bias": (nn.LayerNorm(5, bias=False), (2, 6, 4, 5)),
}


def _facts(norm, x):
    y = norm(x)
    gradients = torch.autograd.grad(y.sum(), [x, *norm.parameters()], allow_unused=True)
    return y.shape, y.stride(), y.dtype, [g is not None and g.shape for g in gradients]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shapes_layouts_and_gradients_are_torchs(name, mode, layout):
    norm, shape = CASES[name]
    norm = norm.to("meta").train(mode)
    x = torch.empty(shape, device="meta")
    x = (x.to(memory_format=layout) if x.dim() == 4 else x).requires_grad_()
    expected = _facts(norm, x)
    with ShapeNorms():
        assert _facts(norm, x) == expected


def test_other_channels_are_refused_and_values_are_torchs():
    norm, images = nn.BatchNorm2d(6).eval(), torch.randn(2, 6, 4, 5)
    with torch.no_grad(), ShapeNorms():
        result = norm(images)
        for wrong, size in ((nn.BatchNorm2d(6), (2, 1, 4, 5)), (nn.LayerNorm(5), (2, 6, 4, 1))):
            with pytest.raises(RuntimeError):
                wrong.to("meta").eval()(torch.empty(size, device="meta"))
    assert torch.equal(result, norm(images))
