"""Pipelines of albumentations itself under `Keyed`; `nox -s slow` installs it."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from tests.data.test_keyed import box_of, run, scene, scenes_with, task
from visionkit import Keyed
from visionkit.rng import keyed_generator

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version
A = pytest.importorskip("albumentations", reason="needs albumentations, which only this file needs")
pytestmark = pytest.mark.slow  # in the session that installs albumentations

STEPS = (
    A.HorizontalFlip(p=0.5),
    A.RandomResizedCrop(size=(20, 20), scale=(0.4, 1.0)),
    A.ColorJitter(p=0.8),
    A.OneOf([A.GaussNoise(), A.GaussianBlur()], p=0.5),
    A.CoarseDropout(p=0.3),
)


def states():
    python, numpy, at = random.getstate(), *np.random.get_state()[1:3]
    return python, numpy.tolist(), at, torch.get_rng_state().tolist()


def test_draws_follow_the_key_alone_and_the_global_generators_are_left():
    transform = Keyed(A.Compose(STEPS))
    image = scene()["image"]
    before = states()
    first = [transform({"image": image}, keyed_generator(0, 0, index))["image"] for index in range(12)]
    assert states() == before
    np.random.seed(7)
    random.seed(7)
    other = Keyed(A.Compose(STEPS, seed=99))  # the pipeline's own seed does not count either
    for index in reversed(range(12)):
        again = other({"image": image}, keyed_generator(0, 0, index))["image"]
        assert torch.equal(again, first[index]), index
    assert len({tuple(image.flatten().tolist()) for image in first}) == 12
    next_epoch = transform({"image": image}, keyed_generator(0, 1, 0))["image"]
    assert not torch.equal(next_epoch, first[0])


def test_boxes_masks_and_class_maps_move_with_the_image():
    boxes = A.BboxParams(format="pascal_voc", label_fields=["labels"])
    transform = Keyed(
        A.Compose([A.HorizontalFlip(p=0.5), A.RandomCrop(height=18, width=20)], bbox_params=boxes)
    )
    counts = set()
    for index in range(30):
        sample = transform(scene(), keyed_generator(0, 0, index))
        assert sample["size"] == (18, 20)
        counts.add(len(sample["boxes"]))
        assert len(sample["labels"]) == len(sample["masks"]) == len(sample["boxes"])
        for box, mask, label in zip(sample["boxes"].tolist(), sample["masks"], sample["labels"].tolist()):
            assert label in (4, 7)
            if mask.any():
                assert box == pytest.approx(box_of(mask), abs=1.0)
    assert counts >= {1, 2}, "some crops lose an object"
    plain = scene()
    mask = plain["masks"].sum(0).long()
    class_map = {"image": plain["image"], "mask": mask, "id": "a", "size": (24, 32)}
    image_of_mask = mask.to(torch.uint8).expand(3, -1, -1).contiguous()
    moves = Keyed(A.Compose([A.HorizontalFlip(p=0.5), A.RandomCrop(height=18, width=20)]))
    for index in range(10):
        moved = moves({**class_map, "image": image_of_mask}, keyed_generator(1, 0, index))
        assert torch.equal(moved["image"][0].long(), moved["mask"])


def test_a_resume_and_workers_change_no_bit(tmp_path):
    def data(workers: int = 0):
        return scenes_with(A.Compose([*STEPS[:3], A.Resize(32, 32)]), workers=workers)

    whole, half, again, worked = (task() for _ in range(4))
    run(data(), whole, epochs=2)
    run(data(), half, epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    np.random.rand(5)
    run(data(), again, epochs=2, path=tmp_path / "half.ckpt")
    run(data(workers=2), worked, epochs=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, worked.state_dict()[name]), name
    assert not torch.equal(whole.head.weight, half.head.weight)
