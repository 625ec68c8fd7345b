"""Every decoder over made-up sources: sizes, gradients, one image, odd images, refusals."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from visionkit.backbones.level import Level
from visionkit.backbones.norms import make_norm
from visionkit.errors import InputError
from visionkit.nn.segmentation.decoders import create_decoder, decoder_class, list_decoders
from visionkit.nn.segmentation.decoders.block import ConvBlock, PooledBlock

FINE = tuple(
    Level(channels, reduction) for channels, reduction in ((6, 2), (8, 4), (10, 8), (12, 16), (14, 32))
)
DILATED = (Level(8, 4), Level(10, 8), Level(14, 8))
SINGLE = (Level(12, 16),)


def _maps(levels, height=97, width=131, batch=2):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(
            batch,
            level.channels,
            -(-height // level.reduction),
            -(-width // level.reduction),
            generator=generator,
        )
        for level in levels
    )


def _levels_for(name):
    return DILATED if decoder_class(name).output_stride else FINE


def test_there_are_seven():
    assert list_decoders() == ["deeplabv3", "deeplabv3plus", "fcn", "psp", "semantic_fpn", "unet", "upernet"]


@pytest.mark.parametrize("name", list_decoders())
@pytest.mark.parametrize("policy", ["batch", "frozen", "sync", "group"])
def test_every_parameter_learns_under_every_norm(name, policy):
    torch.manual_seed(0)
    levels = _levels_for(name)
    decoder = create_decoder(
        name, levels, num_classes=5, channels=16, norm=lambda width: make_norm(policy, width)
    )
    maps = _maps(levels, batch=4)
    logits = decoder(maps)
    finest = 0 if name in ("unet", "semantic_fpn", "upernet", "deeplabv3plus") else -1
    assert logits.shape == (4, 5, *maps[finest].shape[-2:])
    logits.square().sum().backward()
    assert all(value.grad is not None for value in decoder.parameters())
    largest = {key: float(value.grad.abs().max()) for key, value in decoder.named_parameters()}
    assert len(largest) >= 3
    # Rounding alone would leave about 1e-9 of the largest: 2^-24 of a gradient some layers below it.
    assert [key for key, value in largest.items() if value < 1e-6 * max(largest.values())] == []


@pytest.mark.parametrize("policy", ["batch", "frozen", "sync", "group"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_pooled_branch_tells_images_apart_and_learns(policy, dtype):
    with_pools, walked = set(), 0
    for width in (1, 6, 16, 24, 40, 64):
        generator = torch.Generator().manual_seed(width)
        for name in list_decoders():
            torch.manual_seed(0)
            levels = [*_levels_for(name)[:-1], Level(4 * width, _levels_for(name)[-1].reduction)]
            norm = partial(make_norm, policy)
            decoder = create_decoder(name, levels, num_classes=2, channels=width, norm=norm).to(dtype)
            branches = {key: part for key, part in decoder.named_modules() if isinstance(part, PooledBlock)}
            for key, branch in branches.items():
                results = (width, name, key)
                # Images that differ as a whole and in each position.
                maps = torch.randn(8, 4 * width, 1, 1, generator=generator) * 3
                maps = (
                    (maps + torch.randn(8, 4 * width, 6, 7, generator=generator)).to(dtype).requires_grad_()
                )
                out = branch(maps)
                assert out.shape == (8, width, 6, 7), results
                assert float(out.detach().float().std(0).max()) > 0.1, results
                out.float().mul(torch.randn(out.shape, generator=generator)).sum().backward()
                learns = {"maps": maps, **dict(branch.named_parameters())}
                grads = {each: float(value.grad.float().abs().max()) for each, value in learns.items()}
                assert [each for each, grad in grads.items() if grad < 1e-2] == [], results
                walked += 1
            with_pools |= {name} if branches else set()
    assert with_pools == {"deeplabv3", "deeplabv3plus", "psp", "upernet"}
    assert walked == 6 * (1 + 1 + 4 + 4)


@pytest.mark.parametrize("name", list_decoders())
@pytest.mark.parametrize("policy", ["batch", "frozen", "sync", "group"])
@pytest.mark.parametrize("size", [(97, 131), (33, 40), (31, 7), (1, 1)])
def test_one_image_of_any_size_trains_and_evaluates(name, policy, size):
    levels = _levels_for(name)
    decoder = create_decoder(
        name, levels, num_classes=3, channels=8, norm=lambda width: make_norm(policy, width)
    )
    assert torch.isfinite(decoder.train()(_maps(levels, *size, batch=1))).all()
    assert torch.isfinite(decoder.eval()(_maps(levels, *size, batch=1))).all()


@pytest.mark.parametrize("name", list_decoders())
def test_default_widths_and_classes(name):
    levels = tuple(Level(level.channels * 16, level.reduction) for level in _levels_for(name))
    decoder = create_decoder(name, levels, num_classes=1, dropout=0.0)
    assert decoder.classifier.out_channels == 1
    assert all(
        module.bias is None
        for block in decoder.modules()
        if isinstance(block, ConvBlock)
        for module in [block.conv]
    )


def test_dilation_follows_the_reduction():
    rates = {}
    for reduction in (4, 8, 16):
        decoder = create_decoder("deeplabv3", [Level(4, reduction)], num_classes=2, channels=4)
        rates[reduction] = [
            m.dilation[0] for m in decoder.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1
        ]
    assert rates == {4: [12, 24, 36], 8: [12, 24, 36], 16: [6, 12, 18]}


@pytest.mark.parametrize("name", ["unet", "semantic_fpn", "upernet", "deeplabv3plus"])
def test_a_single_level_is_refused_with_what_would_work(name):
    with pytest.raises(
        InputError, match=rf"'{name}' joins maps of at least 2 reductions.*gives 16.*'fcn', 'psp'"
    ):
        create_decoder(name, SINGLE, num_classes=2)


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_a_coarse_map_is_refused_with_what_would_work(name):
    with pytest.raises(
        InputError, match=r"reduction 16 or less.*2, 4, 8, 16, 32.*output_stride=8 or 16.*'unet'"
    ):
        create_decoder(name, FINE, num_classes=2)


@pytest.mark.parametrize("name", ["fcn", "psp", "deeplabv3"])
def test_a_single_level_is_enough_for_the_rest(name):
    maps = _maps(SINGLE)
    assert create_decoder(name, SINGLE, num_classes=2)(maps).shape == (2, 2, 7, 9)


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match=r"Unknown decoder 'deeplab3'. Did you mean 'deeplabv3'"):
        create_decoder("deeplab3", FINE, num_classes=2)
    with pytest.raises(InputError, match="num_classes to be at least 1, but got 0"):
        create_decoder("fcn", FINE, num_classes=0)
    with pytest.raises(InputError, match="channels to be at least 1, but got -4"):
        create_decoder("fcn", FINE, num_classes=2, channels=-4)
    with pytest.raises(InputError, match=r"dropout to be from 0 up to 1, but got 1\.5"):
        create_decoder("fcn", FINE, num_classes=2, dropout=1.5)
    with pytest.raises(InputError, match="gives none"):
        create_decoder("fcn", [], num_classes=2)
