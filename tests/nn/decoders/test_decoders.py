"""Every decoder over made-up sources: sizes, gradients, one picture, odd pictures, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visionkit.backbones.level import Level
from visionkit.backbones.norms import make_norm
from visionkit.errors import InputError
from visionkit.nn.decoders import create_decoder, decoder_class, list_decoders
from visionkit.nn.decoders.block import ConvBlock

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
    maps = _maps(levels)
    logits = decoder(maps)
    finest = 0 if name in ("unet", "semantic_fpn", "upernet", "deeplabv3plus") else -1
    assert logits.shape == (2, 5, *maps[finest].shape[-2:])
    logits.square().sum().backward()
    named = dict(decoder.named_parameters())
    assert len(named) >= 3
    assert [key for key, value in named.items() if value.grad is None or not value.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", list_decoders())
@pytest.mark.parametrize("policy", ["batch", "sync"])
@pytest.mark.parametrize("size", [(97, 131), (33, 40), (31, 7), (1, 1)])
def test_one_picture_of_any_size_trains_and_evaluates(name, policy, size):
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
    with pytest.raises(InputError, match=r"dropout to be a share from 0 up to 1, but got 1\.5"):
        create_decoder("fcn", FINE, num_classes=2, dropout=1.5)
    with pytest.raises(InputError, match="gives none"):
        create_decoder("fcn", [], num_classes=2)
