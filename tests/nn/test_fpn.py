"""The feature pyramid equals torchvision's, honours the levels it promises, and is a feature source."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from visionkit.backbones.level import FeatureSource, Level
from visionkit.errors import InputError
from visionkit.nn.fpn import FeaturePyramid, PyramidSource

LEVELS = (Level(3, 4), Level(5, 8), Level(7, 16))


def _maps(height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-height // level.reduction), -(-width // level.reduction)) for level in LEVELS]
    return [torch.randn(2, level.channels, *size, generator=generator) for level, size in zip(LEVELS, sizes)]


def test_equals_torchvision_with_the_same_weights():
    ours = FeaturePyramid(LEVELS, channels=6, extra="pool")
    theirs = FeaturePyramidNetwork([3, 5, 7], 6, extra_blocks=LastLevelMaxPool())
    for index in range(3):
        theirs.inner_blocks[index][0].load_state_dict(ours.lateral[index][0].state_dict())
        theirs.layer_blocks[index][0].load_state_dict(ours.smooth[index][0].state_dict())
    maps = _maps(50, 75)
    want = theirs(OrderedDict(enumerate(maps)))
    got = ours(maps)
    assert len(got) == len(want) == 4
    for one, other in zip(got, want.values()):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("extra", "count"), [("none", 3), ("pool", 4), ("p6p7", 5)])
def test_gives_the_levels_it_promises_for_odd_sizes(extra, count):
    pyramid = FeaturePyramid(LEVELS, channels=4, extra=extra)
    assert [level.reduction for level in pyramid.levels] == [4, 8, 16, 32, 64][:count]
    out = pyramid(_maps(67, 91))
    assert len(out) == count
    for level, features in zip(pyramid.levels, out):
        assert features.shape == (2, 4, -(-67 // level.reduction), -(-91 // level.reduction))
    sum(features.sum() for features in out).backward()
    assert all(p.grad is not None for p in pyramid.parameters())


def test_a_norm_takes_the_place_of_biases():
    pyramid = FeaturePyramid(LEVELS, channels=4, norm=lambda channels: nn.GroupNorm(2, channels))
    norms = [m for m in pyramid.modules() if isinstance(m, nn.GroupNorm)]
    convs = [m for m in pyramid.modules() if isinstance(m, nn.Conv2d)]
    assert len(norms) == len(convs) == 6
    assert all(conv.bias is None for conv in convs)


def test_a_source_with_a_pyramid_is_a_source():
    class Tiny(nn.Module):
        levels = (Level(2, 2), Level(4, 4))

        def forward(self, images):
            fine = nn.functional.avg_pool2d(images, 2)[:, :2]
            return fine, nn.functional.avg_pool2d(fine.repeat(1, 2, 1, 1), 2)

    source = PyramidSource(Tiny(), channels=8, extra="pool")
    assert isinstance(source, FeatureSource)
    shapes = [tuple(f.shape) for f in source(torch.rand(1, 3, 16, 24))]
    assert shapes == [(1, 8, 8, 12), (1, 8, 4, 6), (1, 8, 2, 3)]


def test_refusals_name_the_fault():
    with pytest.raises(InputError, match=r"from fine to coarse, but got reductions \[8, 4\]"):
        FeaturePyramid([Level(3, 8), Level(3, 4)])
    with pytest.raises(InputError, match="Unknown extra level 'p6'"):
        FeaturePyramid(LEVELS, extra="p6")
