"""Transforms of torchvision and albumentations with keyed draws; batches; the data module of strings."""

from __future__ import annotations

import random
import warnings

import lightning
import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.transforms import v2

from visionkit import Classifier, FolderData, Keyed, OptimConfig
from visionkit.data import KeyedBatch, classification_train, open_dataset
from visionkit.errors import InputError
from visionkit.rng import keyed_generator

CLASSES = len(open_dataset("scenes", "classification").classes)


def scene():
    """An image of 24 x 32 with two boxes, their masks and a class map."""
    image = torch.arange(3 * 24 * 32).remainder(251).view(3, 24, 32).to(torch.uint8)
    boxes = torch.tensor([[2.0, 3, 10, 12], [16, 4, 30, 20]])
    masks = torch.zeros(2, 24, 32, dtype=torch.uint8)
    masks[0, 3:12, 2:10], masks[1, 4:20, 16:30] = 1, 1
    return {
        "image": image, "id": "a", "boxes": boxes, "labels": torch.tensor([4, 7]), "masks": masks,
        "iscrowd": torch.tensor([0, 1]), "area": torch.tensor([72.0, 224.0], dtype=torch.float64),
        "size": (24, 32), "truth": {},
    }  # fmt: skip


def box_of(mask):
    rows, columns = mask.nonzero().unbind(1)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


class Arrays:
    """Called as albumentations' transforms are; mirrors by a generator of its own, drops the first box."""

    available_keys = frozenset({"image", "bboxes", "mask", "masks"})

    def __init__(self, drop: bool = False):
        self.drop, self.rng = drop, np.random.default_rng()

    def set_random_seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, image, bboxes=None, labels=None, mask=None, masks=None):
        assert isinstance(image, np.ndarray)
        assert image.shape[-1] == 3
        out = {"image": image}
        if self.rng.random() < 0.5:
            out["image"] = image[:, ::-1]
        if bboxes is not None:
            out |= {"bboxes": bboxes[self.drop :], "labels": labels[self.drop :], "masks": masks}
        if mask is not None:
            out["mask"] = mask
        return out


class Everything:
    """Draws from torch, numpy and Python at once."""

    def __call__(self, image):
        draw = float(torch.rand(())) + np.random.rand() + random.random()
        return (image.float() * draw / 3).to(torch.uint8)


FLIP = v2.Compose(
    [v2.RandomHorizontalFlip(0.5), v2.RandomResizedCrop(20, scale=(0.5, 1)), v2.ColorJitter(0.4)]
)


@pytest.mark.parametrize(
    "transform",
    [FLIP, torch.nn.Sequential(*FLIP.transforms), Everything(), Arrays(), transforms.RandomCrop(16)],
    ids=["v2", "sequential", "callable", "arrays", "v1"],
)  # fmt: skip
def test_draws_follow_the_key_alone_and_the_global_generators_are_left(transform) -> None:
    keyed, sample = Keyed(transform), {"image": scene()["image"], "id": "a", "label": torch.tensor(3)}
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    made = [keyed(sample, keyed_generator(0, epoch, 1)) for epoch in range(8)]
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    torch.rand(7)
    random.random()
    again = [keyed(sample, keyed_generator(0, epoch, 1)) for epoch in reversed(range(8))][::-1]
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(made, again, strict=True))
    assert len({one["image"].numpy().tobytes() for one in made}) > 1
    assert all(
        one["id"] == "a" and int(one["label"]) == 3 and type(one["image"]) is torch.Tensor for one in made
    )


def test_boxes_and_masks_move_with_the_image() -> None:
    sample = scene()
    made = Keyed(v2.RandomHorizontalFlip(1.0))(sample, keyed_generator(0))
    assert made["boxes"].tolist() == [[22, 3, 30, 12], [2, 4, 16, 20]]
    assert [box_of(mask) for mask in made["masks"]] == made["boxes"].tolist()
    assert torch.equal(made["image"], sample["image"].flip(-1))
    assert made["labels"].tolist() == [4, 7]
    assert type(made["boxes"]) is type(made["masks"]) is torch.Tensor
    assert "truth" not in made
    assert made["size"] == (24, 32)
    assert torch.equal(sample["boxes"], scene()["boxes"])
    left = v2.Compose([v2.CenterCrop((24, 14)), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    cut = Keyed(left)(sample, keyed_generator(0))
    assert cut["labels"].tolist() == [4, 7]
    assert cut["size"] == (24, 14)
    gone = Keyed(v2.Compose([v2.Lambda(lambda x: x), v2.Resize((12, 16))]))(sample, keyed_generator(0))
    assert gone["boxes"][0].tolist() == [1, 1.5, 5, 6]


def test_objects_are_dropped_from_every_field() -> None:
    crop = v2.Compose([_Right(), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    for transform in (crop, v2.Compose([_Right(), v2.ClampBoundingBoxes()]), Arrays(drop=True)):
        made = Keyed(transform)(scene(), keyed_generator(0))
        assert made["labels"].tolist() == [7]
        assert made["iscrowd"].tolist() == [1]
        assert made["area"].tolist() == [224]
        assert len(made["masks"]) == len(made["boxes"]) == 1


class _Right(v2.Transform):
    """Crops the right half."""

    def transform(self, inpt, params):
        return v2.functional.crop(inpt, 0, 14, 24, 18)


def test_class_maps_move_too() -> None:
    sample = {"image": scene()["image"], "mask": scene()["masks"].sum(0).long()}
    made = Keyed(v2.RandomHorizontalFlip(1.0))(sample, keyed_generator(0))
    assert torch.equal(made["mask"], sample["mask"].flip(-1))
    assert made["mask"].dtype == torch.int64
    assert Keyed(Arrays())(sample, keyed_generator(0))["mask"].dtype == torch.int64


def test_what_would_leave_boxes_behind_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes an image alone. Use torchvision.transforms.v2"):
        Keyed(Everything())(scene(), keyed_generator(0))
    with pytest.raises(InputError, match="a callable"):
        Keyed("flip")
    with pytest.raises(InputError, match="to give an image"):
        Keyed(lambda image: image.numpy())({"image": scene()["image"]}, keyed_generator(0))


def task():
    torch.manual_seed(0)
    return Classifier(
        "timm/test_resnet",
        init="scratch",
        num_classes=CLASSES,
        optim=OptimConfig(schedule="constant", warmup=0.0),
    )


def run(data, module, *, epochs, path=None, **settings):
    warnings.simplefilter("ignore")
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=path)
    return trainer


def scenes_with(transform, **settings):
    return FolderData(
        "scenes",
        task="classification",
        image_size=32,
        batch_size=8,
        scenes=(24, 8),
        train_transform=transform,
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["v2", "arrays"])
def test_a_resume_is_bit_identical_with_transforms_of_others(kind, tmp_path) -> None:
    transform = {"v2": v2.Compose([v2.RandomResizedCrop(32), v2.ColorJitter(0.3)]), "arrays": Arrays()}[kind]
    mix = KeyedBatch(v2.MixUp(num_classes=CLASSES))
    whole = task()
    run(scenes_with(transform, batch_transform=mix), whole, epochs=2)
    half = task()
    run(scenes_with(transform, batch_transform=mix), half, epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    torch.rand(11)
    np.random.rand(5)
    again = task()
    run(scenes_with(transform, batch_transform=mix), again, epochs=2, path=tmp_path / "half.ckpt")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    assert not torch.equal(whole.head.weight, half.head.weight)


def test_ours_are_not_wrapped() -> None:
    ours = classification_train(32)
    assert scenes_with(ours).train_data.transform is ours
    assert isinstance(scenes_with(v2.Identity()).train_data.transform, Keyed)
