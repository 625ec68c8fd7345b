"""The pointing game: how far heat lies in boxes, against even heat."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionkit.errors import InputError
from visionkit.interpret import pointing_game


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 999))
def test_it_is_the_sum_over_the_pixels_of_the_boxes(height, width, count, seed):
    generator = torch.Generator().manual_seed(seed)
    heat = torch.randn(height, width, generator=generator)
    corners = [
        torch.randint(0, side + 1, (count, 2), generator=generator).sort(1).values for side in (width, height)
    ]
    boxes = torch.stack([corners[0][:, 0], corners[1][:, 0], corners[0][:, 1], corners[1][:, 1]], 1)
    pixels = {
        (row, column)
        for left, top, right, bottom in boxes.tolist()
        for row in range(top, bottom)
        for column in range(left, right)
    }
    share = pointing_game(heat, boxes.float())
    positive = heat.clamp_min(0).double()
    inside = sum(float(positive[at]) for at in pixels)
    total = float(positive.sum())
    assert share.inside == pytest.approx(inside / total if total else math.nan, abs=1e-12, nan_ok=True)
    assert share.chance == pytest.approx(len(pixels) / (height * width), abs=1e-12)
    assert share.hit == (total > 0 and divmod(int(positive.argmax()), width) in pixels)
    even = pointing_game(torch.ones(height, width), boxes.float())
    assert even.inside == pytest.approx(even.chance, abs=1e-12)


def test_parts_of_pixels_count_as_parts_and_other_shapes_are_refused():
    heat = torch.zeros(4, 4)
    heat[1, 1] = 2.0
    share = pointing_game(heat, torch.tensor([[1.5, 0.0, 4.0, 4.0]]))
    assert (share.inside, share.chance, share.hit) == (0.5, 2.5 / 4, True)
    empty = pointing_game(-heat, torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
    assert math.isnan(empty.inside)
    assert empty[1:] == (1.0, False)
    for given_ in ((heat[None], torch.ones(1, 4)), (heat, torch.ones(4)), (heat, torch.ones(0, 4))):
        with pytest.raises(InputError, match="heat and boxes to be"):
            pointing_game(*given_)
