"""Control of style transfer: regions, several styles, scales."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.interpret.subjects import textured
from visionkit.errors import InputError
from visionkit.interpret import Style, activation_maps, gram, mix_styles, transfer_style

LAYERS = ["1", "4", "7"]


def noise(side: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def stripes(width: int, color: tuple[float, float, float], side: int = 48) -> torch.Tensor:
    bright = (torch.arange(side) // width % 2).float().expand(3, side, side)
    return bright * torch.tensor(color)[:, None, None]


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_gram_matrix_of_a_region_is_that_of_its_positions(channels, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)
    inside = torch.rand(height, width, generator=generator) < 0.5
    inside[0, 0] = True
    by_hand = gram(maps[:, :, inside][..., None])  # the positions alone, in a column
    torch.testing.assert_close(gram(maps, inside.double()), by_hand)
    torch.testing.assert_close(gram(maps, inside), by_hand)  # a mask of any type
    everywhere = torch.ones(4 * height, 4 * width, dtype=torch.float64)
    torch.testing.assert_close(gram(maps, everywhere), gram(maps))
    # a matrix of products: symmetric, without a negative eigenvalue
    values = torch.linalg.eigvalsh(gram(maps, inside.double()))
    assert values.min() >= -1e-12 * channels * float(maps.square().max())


def test_each_region_gets_its_style():
    subject, content = textured(), noise() * 0.2 + 0.4
    red, blue = stripes(3, (1.0, 0.1, 0.1)), stripes(6, (0.1, 0.1, 1.0))
    left = torch.zeros(48, 48)
    left[:, :24] = 1
    styles = [Style(red, region=left), Style(blue, region=1 - left)]
    done = transfer_style(subject, content, styles, layers=LAYERS, steps=40, content_weight=0.0)
    assert done.style[-1] < done.style[0] / 4
    redness = done.image[0] - done.image[2]
    assert redness[:, :20].mean() > 0.1
    assert redness[:, 28:].mean() < -0.1


def test_a_style_is_taken_from_its_source():
    """The left half of the style is red, the right blue."""
    subject, content = textured(), noise() * 0.2 + 0.4
    both = torch.cat([stripes(3, (1.0, 0.1, 0.1))[..., :24], stripes(6, (0.1, 0.1, 1.0))[..., :24]], dim=2)
    left = torch.zeros(48, 48)
    left[:, :24] = 1
    means = []
    for source in (left, 1 - left):
        done = transfer_style(
            subject, content, [Style(both, source=source)], layers=LAYERS, steps=20, content_weight=0.0
        )
        means.append(float((done.image[0] - done.image[2]).mean()))
    assert means[0] > 0.1
    assert means[1] < -0.1


def test_one_style_everywhere_is_what_it_was():
    subject, content, style = textured(), noise(), stripes(4, (0.9, 0.3, 0.2))
    plain = transfer_style(subject, content, style, layers=LAYERS, steps=3)
    one = transfer_style(subject, content, [Style(style)], layers=LAYERS, steps=3)
    assert torch.equal(plain.image, one.image)
    whole = transfer_style(subject, content, [Style(style, torch.ones(48, 48))], layers=LAYERS, steps=3)
    torch.testing.assert_close(whole.style[0], plain.style[0], rtol=1e-4, atol=0)


def test_scales_are_mixed():
    """The fine layers become those of one image, the coarse ones stay nearer to the other's."""
    subject = textured()
    coarse, fine = stripes(12, (0.9, 0.8, 0.7)), stripes(2, (0.4, 0.5, 0.9))
    mixed = mix_styles(subject, coarse, fine, layers=["1"], steps=60)
    assert mixed.style[-2] < mixed.style[0] / 100  # the last is of the pixels cut to [0, 1]

    def distance(image, target, layer):
        grams = [gram(activation_maps(subject, x, layer=layer)[None]) for x in (image, target)]
        return float((grams[0] - grams[1]).norm() / grams[1].norm())

    assert distance(mixed.image, fine, "1") < 0.7 * distance(coarse, fine, "1")
    # what the coarse image had at a quarter of the size is still seen: light and dark bands
    columns = mixed.image.mean((0, 1))
    bands = coarse.mean((0, 1)) > 0.1
    assert columns[bands].mean() > columns[~bands].mean()
    assert mix_styles(subject, coarse, fine, steps=1).layers == ["1", "4", "7"], "reductions 1, 2 and 4"


@pytest.mark.parametrize(
    ("styles", "words"),
    [
        ([], "at least one style, but got none"),
        ([Style(noise(), region=torch.ones(8, 8))], "the region of a style to be of 48x48"),
        ([Style(noise(32), source=torch.ones(48, 48))], "the source of a style to be of 32x32"),
        ([Style(noise(), region=torch.zeros(48, 48))], "The region of a style is empty"),
    ],
)
def test_regions_that_do_not_fit_are_refused(styles, words):
    with pytest.raises(InputError, match=words):
        transfer_style(textured(), noise(), styles, steps=1)
