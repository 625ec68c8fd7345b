"""Geometry: a function of sample and generator, and everything in a sample moves together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data import (
    Augment,
    CenterCrop,
    RandomResizedCrop,
    Resize,
    classification_eval,
    classification_train,
    crop_resize,
    flip,
)
from visionkit.errors import InputError
from visionkit.rng import keyed_generator


def _sample(height=40, width=60):
    """One bright box on a dark ground, described in every way there is."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, 10:30, 15:45] = 255
    plane = (image[0] > 0).to(torch.uint8)
    return {
        "image": image,
        "id": "one",
        "boxes": torch.tensor([[15.0, 10.0, 45.0, 30.0], [0.0, 0.0, 4.0, 4.0]]),
        "labels": torch.tensor([3, 5]),
        "masks": torch.stack([plane, torch.zeros_like(plane)]),
        "iscrowd": torch.zeros(2, dtype=torch.int64),
        "mask": plane.long() * 7,
        "size": (height, width),
    }


@settings(max_examples=60)
@given(st.integers(0, 10), st.integers(0, 15), st.integers(20, 30), st.integers(30, 45), st.booleans())
def test_image_boxes_masks_and_class_map_move_together(top, left, height, width, mirrored):
    out = crop_resize(_sample(), (top, left, height, width), (2 * height, 2 * width))
    out = flip(out) if mirrored else out
    assert out["image"].shape == (3, 2 * height, 2 * width)
    assert out["size"] == (40, 60)
    assert len(out["labels"]) == len(out["boxes"]) == len(out["masks"]) == len(out["iscrowd"])
    assert out["labels"][0] == 3
    rows, columns = np.nonzero(out["masks"][0].numpy())
    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(out["boxes"][0].numpy() - tight).max() <= 1e-3
    assert torch.equal(out["mask"] == 7, out["masks"][0] > 0)
    bright = out["image"][0] > 127
    assert (bright != (out["mask"] == 7)).float().mean() < 0.05


def test_an_object_that_is_cut_away_is_dropped_from_every_list():
    out = crop_resize(_sample(), (8, 8, 30, 50), (30, 50))
    assert out["labels"].tolist() == [3]
    assert [len(out[name]) for name in ("boxes", "masks", "iscrowd")] == [1, 1, 1]


def test_two_mirrors_are_none():
    sample = _sample()
    twice = flip(flip(sample))
    for name in ("image", "boxes", "masks", "mask"):
        assert torch.equal(twice[name], sample[name])


@pytest.mark.parametrize("augment", ["basic", "randaugment", "trivial"])
def test_draws_come_from_the_generator_alone(augment):
    sample = {"image": torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)}
    transform = classification_train(32, augment=augment)
    before = torch.get_rng_state()
    one = transform(sample, keyed_generator(1, 2, 3))["image"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(one, transform(sample, keyed_generator(1, 2, 3))["image"])
    others = [transform(sample, keyed_generator(1, 2, key))["image"] for key in range(4, 10)]
    assert sum(not torch.equal(one, other) for other in others) == 6
    assert one.shape == (3, 32, 32)
    assert one.dtype == torch.uint8


def test_unknown_augmentation_and_size_are_named():
    with pytest.raises(InputError, match="randaugment"):
        classification_train(32, augment="randaugmnt")
    with pytest.raises(InputError, match="at least 1 pixel"):
        classification_eval(0)
    with pytest.raises(InputError, match="boxes, masks, mask"):
        Augment("trivial")(_sample(), keyed_generator(0))


def test_evaluation_takes_the_middle():
    image = torch.arange(60, dtype=torch.uint8).repeat(3, 40, 1)
    rng = keyed_generator(0)
    assert torch.equal(CenterCrop(40)({"image": image}, rng)["image"], image[:, :, 10:50])
    assert classification_eval(20, fraction=0.5)({"image": image}, rng)["image"].shape == (3, 20, 20)
    assert Resize(20)({"image": image}, rng)["image"].shape == (3, 20, 30)
    assert Resize(80, max_size=90)({"image": image}, rng)["image"].shape == (3, 60, 90)


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 999))
def test_a_random_crop_fits_any_image(height, width, key):
    sample = {"image": torch.zeros(3, height, width, dtype=torch.uint8)}
    assert RandomResizedCrop(16)(sample, keyed_generator(key))["image"].shape == (3, 16, 16)
