"""Training geometry of class maps: sizes, the cap, padding, and draws that come from the generator alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data.transforms.segmentation import (
    Photometric,
    ScaleCrop,
    segmentation_eval,
    segmentation_train,
)
from visionkit.errors import InputError
from visionkit.rng import keyed_generator


def _sample(height=40, width=60, classes=4):
    mask = torch.randint(0, classes, (height, width), generator=torch.Generator().manual_seed(0))
    mask[:2] = 255
    image = (mask % 255).to(torch.uint8).expand(3, -1, -1).contiguous()  # the image shows its own class
    return {"image": image, "mask": mask, "id": "a", "size": (height, width)}


@settings(max_examples=80)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    seed=st.integers(0, 10**6),
    cap=st.sampled_from([0.5, 1.0]),
)
def test_every_image_gives_a_window_of_the_size(height, width, rows, columns, seed, cap):
    out = ScaleCrop((rows, columns), max_class_ratio=cap)(_sample(height, width), keyed_generator(seed))
    assert out["image"].shape == (3, rows, columns)
    assert out["mask"].shape == (rows, columns)
    assert out["image"].dtype == torch.uint8
    assert set(out["mask"].unique().tolist()) <= {0, 1, 2, 3, 255}


def test_draws_are_a_function_of_the_generator():
    transform = segmentation_train((24, 32))
    torch.manual_seed(1)
    first = transform(_sample(), keyed_generator(3, 1))
    torch.manual_seed(2)
    again = transform(_sample(), keyed_generator(3, 1))
    other = transform(_sample(), keyed_generator(3, 2))
    assert (first["image"] == again["image"]).all()
    assert (first["mask"] == again["mask"]).all()
    assert (first["image"] != other["image"]).any()


def test_image_and_mask_move_together():
    for seed in range(10):
        out = ScaleCrop((20, 20), scale=(1.0, 1.0))(_sample(), keyed_generator(seed))
        counted = out["mask"] != 255
        assert counted.any()
        assert (out["image"][0][counted] == out["mask"][counted]).all()


def test_a_small_image_is_padded_and_the_padding_ignored():
    out = ScaleCrop((30, 30), scale=(0.5, 0.5))(_sample(40, 40), keyed_generator(0))
    assert (out["mask"][20:] == 255).all()
    assert (out["mask"][:, 20:] == 255).all()
    assert (out["image"][:, 20:] == 124).all()
    assert (out["mask"][2:20, :20] != 255).all()


def test_the_cap_avoids_windows_of_one_class():
    mask = torch.zeros(100, 100, dtype=torch.int64)
    mask[60:, 60:] = 1
    sample = {"image": torch.zeros(3, 100, 100, dtype=torch.uint8), "mask": mask}

    def mixed(cap):
        crops = [
            ScaleCrop((30, 30), scale=(1.0, 1.0), max_class_ratio=cap)(sample, keyed_generator(i))
            for i in range(60)
        ]
        return sum(float((crop["mask"] == 1).float().mean()) not in (0.0, 1.0) for crop in crops)

    assert mixed(0.75) > 1.5 * mixed(1.0)


def test_photometric_keeps_the_mask_and_the_type():
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    sample = {"image": image, "mask": torch.zeros(16, 16, dtype=torch.int64)}
    out = Photometric(0.5)(sample, keyed_generator(0))
    assert out["image"].dtype == torch.uint8
    assert (out["image"] != image).float().mean() > 0.5
    assert (Photometric(0.0)(sample, keyed_generator(0))["image"] == image).all()
    assert (sample["image"] == image).all()


def test_evaluation_changes_nothing():
    sample = _sample()
    out = segmentation_eval()(sample, keyed_generator(0))
    assert out["image"] is sample["image"]


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="size of the window"):
        segmentation_train((0, 5))
    with pytest.raises(InputError, match=r"scale to be \(smallest, largest\)"):
        segmentation_train((5, 5), scale=(2.0, 1.0))
    with pytest.raises(InputError, match="max_class_ratio to be above 0"):
        segmentation_train((5, 5), max_class_ratio=0.0)
    with pytest.raises(InputError, match="strength to be from 0 to 1"):
        segmentation_train((5, 5), photometric=2.0)
