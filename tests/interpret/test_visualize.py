"""Images from noise to which layers, channels and classes respond strongly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.interpret.subjects import of_layers, of_task, textured
from visionkit.data.read_image import read_image
from visionkit.errors import InputError
from visionkit.interpret import visualize
from visionkit.interpret.synthesis import frequency_image
from visionkit.interpret.synthesis.frequency_image import image_in


@settings(max_examples=25)
@given(st.integers(2, 33), st.integers(2, 33), st.integers(0, 99))
def test_an_image_of_frequencies_is_real_of_its_size_and_of_a_spread_that_no_size_changes(
    height, width, seed
):
    made = image_in("frequency", 3, (height, width), torch.Generator().manual_seed(seed))
    image = made()
    assert image.shape == (1, 3, height, width)
    assert 0 < image.min() <= image.max() < 1
    # the spread of the values: the power of the scales, whatever the size
    assert float(made.scale.square().sum()) == pytest.approx(height * width, rel=1e-4)
    # each direction of colours by itself: a spectrum of the first alone is grey
    with torch.no_grad():
        made.spectrum[:, 1:] = 0
    grey = made()[0]
    assert (grey[0] - grey[1]).abs().max() < 1e-5
    assert (grey[1] - grey[2]).abs().max() < 1e-5
    # energy by frequency: the spectrum of the image is the parameters times the scale (Parseval)
    values = (made().detach()[0, 0].double()).logit()
    with torch.no_grad():
        spectrum = torch.fft.rfft2(values, norm="ortho")
    expected = torch.view_as_complex(made.spectrum[0, 0].detach()) * made.scale
    # inner columns hold each frequency once; the outer ones have to be mirrored for a real image
    inner = spectrum[:, 1 : (width - 1) // 2 + 1] * 3**0.5
    torch.testing.assert_close(
        inner.abs().float(), expected[:, 1 : (width - 1) // 2 + 1].abs(), rtol=1e-2, atol=1e-3
    )


def test_a_channel_responds_to_what_is_made_for_it():
    subject = textured()
    made = visualize(subject, layer="4", channel=3, steps=25, jitter=2)
    other = visualize(subject, layer="4", channel=5, steps=25, jitter=2)
    assert made.image.shape == (3, 32, 32)
    assert 0 <= made.image.min() <= made.image.max() <= 1
    assert made.name == "4, channel 3"
    assert len(made.responses) == 25
    assert made.responses[-1] > made.responses[0]

    def response(image, channel):
        return float(subject.network[:5](subject.inputs(image))[0, channel].mean())

    assert response(made.image, 3) > response(other.image, 3)
    again = visualize(subject, layer="4", channel=3, steps=25, jitter=2)
    assert torch.equal(again.image, made.image)
    assert visualize(subject, layer=4, steps=2).name == "7", "all channels of the last layer of reduction 4"


@pytest.mark.parametrize("space", ["frequency", "pixels"])
def test_a_class_is_made_of_what_it_is_told_by(space):
    """Class 1 is red: its image is red, in frequencies and in pixels."""
    head = nn.Linear(3, 2, bias=False)
    head.weight.data = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

    class Means(nn.Module):
        def forward(self, maps):
            return head(maps.mean((2, 3)))

    subject = of_layers(nn.AvgPool2d(2), head=Means())
    subject.class_names = ("blue", "red")
    made = visualize(subject, target="red", steps=60, space=space, size=24)
    assert made.image.shape == (3, 24, 24)
    assert made.name == "red"
    assert made.image[0].mean() > made.image[2].mean() + 0.05
    assert made.responses[-1] > made.responses[0]


def test_a_run_s_class_by_name_and_what_is_wrong():
    subject = of_task("classifier, single")
    subject.class_names = ("cat", "dog", "bird")
    assert visualize(subject, target="dog", steps=2).name == "dog"
    for arguments, words in (
        ({}, "a layer, or a target"),
        ({"layer": 4, "target": "dog"}, "a layer, or a target"),
        ({"target": "dog", "channel": 3}, "a layer with a channel"),
        ({"target": "dgo"}, "Did you mean 'dog'"),
        ({"layer": "layer44"}, "Did you mean 'layer4'"),
        ({"layer": 4, "channel": 9999}, "channel to be 0 to"),
        ({"layer": 4, "steps": 0}, "steps of at least 1"),
        ({"layer": 4, "scale": 1.0}, "scale in 0 to 1"),
        ({"layer": 4, "size": -1}, "size to be 1 or more"),
        ({"layer": 4, "space": "pixel"}, "Did you mean 'pixels'"),
    ):
        with pytest.raises(InputError, match=words):
            visualize(subject, **arguments)
    with pytest.raises(InputError, match="has no classes"):
        visualize(textured(), target=1)


def test_colours_deviate_as_in_photographs(shared_data):
    """The numbers of the source, measured: pixels in [0, 1] along unit directions."""
    files = sorted((shared_data / "cifar10" / "train").glob("*/*"))[::10]
    assert len(files) == 1000
    pixels = torch.stack([read_image(file) for file in files]).permute(1, 0, 2, 3).flatten(1).double() / 255
    turn = nn.functional.normalize(torch.tensor(frequency_image._DIRECTIONS, dtype=torch.float64), dim=1)
    along = turn @ pixels
    assert along.std(1).tolist() == pytest.approx(frequency_image._DEVIATIONS, abs=5e-4)
    apart = along.corrcoef().fill_diagonal_(0).abs().max()
    assert float(apart) < 0.15  # nearly independent, where red and blue themselves are not
    assert float(pixels.corrcoef()[0, 2]) > 0.7
