"""What every task takes from people's loaders, and what it refuses; its rows are in task_cases.py."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import tv_tensors

sys.path.insert(0, str(Path(__file__).parent))

from task_cases import TaskCase
from task_inputs import EVERY, FLAT, KINDS, Mean, built, loader, parts, step, trainer, values

from visionkit.config import TransferConfig
from visionkit.data.formats.csv.target_statistics import target_statistics
from visionkit.errors import InputError
from visionkit.nn.standardize import Standardize
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.types import as_ids


@EVERY
def test_ids_of_any_kind_name_images_and_0_is_one_of_them(case: TaskCase) -> None:
    assert len(KINDS) == 6
    task, found = built(case), []
    for make in (lambda i: [f"{i}"], lambda i: torch.tensor([i]), lambda i: [i], lambda i: [np.int64(i)]):
        batches = [{**case.batch(i, 1), "ids": make(i)} for i in range(3)]
        found.append(trainer().validate(task, loader(*batches), verbose=False)[0])
        assert [p.id for batch in batches for p in task.predict_step(batch)] == ["0", "1", "2"]
        several = {**case.batch(0, 3), "ids": torch.arange(3)}
        assert [p.id for p in task.predict_step(several)] == ["0", "1", "2"]
    assert found[0]
    assert found == [pytest.approx(found[0], nan_ok=True)] * 4
    with pytest.raises(InputError, match="one id for each of 2 images, but got 3"):
        task.predict_step({**case.batch(0, 2), "ids": [1, 2, 3]})
    assert as_ids(None) is None
    assert as_ids(b"a") == ["a"]


@EVERY
def test_images_come_in_the_forms_that_people_have_them_in(case: TaskCase) -> None:
    task = built(case)
    images = [torch.as_tensor(image) for image in case.batch(0, 2)["images"]]
    wanted = values(task.predict_step(torch.stack(images)))
    assert wanted
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    forms = {
        "a list": images,
        "arrays": arrays,
        "one array": np.stack(arrays),
        "PIL": [Image.fromarray(array) for array in arrays],
        "float64": torch.stack(images).double() / 255,
        "float32": [image.float() / 255 for image in images],
        "torchvision": [tv_tensors.Image(image) for image in images],
        "a dict": {"image": torch.stack(images)},
        "a tuple": (torch.stack(images),),
    }
    for name, form in forms.items():
        got = values(task.predict_step(form))
        assert len(got) == len(wanted), name
        assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(got, wanted)), name
    assert len(task.predict_step(torch.stack(images).half() / 255)) == 2
    assert len(task.predict_step(images[0])) == len(task.predict_step(arrays[0])) == 1
    with pytest.raises(InputError, match=r"read_image"):
        task.predict_step(["a.jpg"])
    with pytest.raises(
        InputError, match=r"Image 1: Expected an image to be \(3, H, W\), but got \(1, 32, 32\)"
    ):
        task.predict_step([images[0], torch.zeros(1, 32, 32)])
    others = [images[0], torch.zeros(3, 96, 64, dtype=torch.uint8)]
    if isinstance(task, Segmenter | Detector):
        assert len(task.predict_step(others)) == 2
    else:
        with pytest.raises(InputError, match="of one size"):
            task.predict_step(others)


@EVERY
def test_pixels_that_are_no_shares_are_refused_wherever_they_come_in(case: TaskCase) -> None:
    task = built(case)
    batch, _ = parts(case, 0, 2)
    images = torch.stack([torch.as_tensor(image) for image in batch["images"]])
    floats = images.float() / 255
    broken = floats.clone()
    broken[1, 0, 3, 4] = float("nan")
    steps = (
        lambda given: task.predict_step(given["images"]),
        lambda given: step(task, given),
        lambda given: task.eval().validation_step(given, 0),
        lambda given: task.eval()(
            given["images"], *([given["tokens"].flatten(0, 1)] if "tokens" in given else [])
        ),
    )
    for bad, words in (
        (images.float(), r"from 0 to [12]\d\d\. Give uint8 pixels as they are, or divide by 255"),
        ((floats - 0.45) / 0.22, "look normalised already"),
        (broken, "NaN or infinity"),
    ):
        for take in steps:
            with pytest.raises(InputError, match=words):
                take({**batch, "images": bad})
    for take in steps:  # what sharp resampling leaves
        take({**batch, "images": floats * 1.2 - 0.1})


@EVERY
def test_two_loaders_have_scores_of_their_own(case: TaskCase) -> None:
    task, run = built(case), trainer()
    alone = [run.validate(task, loader(case.batch(first, 2)), verbose=False)[0] for first in (0, 10)]
    both = run.validate(task, [loader(case.batch(0, 2)), loader(case.batch(10, 2))], verbose=False)
    merged = {name: value for part in both for name, value in part.items()}
    named = {f"{name}/dataloader_idx_{i}": value for i in (0, 1) for name, value in alone[i].items()}
    assert merged == pytest.approx({**named, task.monitor[0]: alone[0][task.monitor[0]]}, nan_ok=True)
    assert run.test(task, [loader(case.batch(0, 2))] * 2, verbose=False)


@EVERY
def test_other_names_of_fields_are_taken_and_missing_ones_are_listed(case: TaskCase) -> None:
    task = built(case)
    batch, truth = parts(case, 0, 2)
    rest = {name: value for name, value in batch.items() if name not in ("images", truth, "ids")}
    wanted = step(task, batch)
    for image in ("image", "pixel_values"):
        other = {image: batch["images"], truth.rstrip("s"): batch[truth], **rest}
        assert torch.equal(step(task, other), wanted)
    if not rest:
        assert torch.equal(step(task, [batch["images"], batch[truth]]), wanted)
    with pytest.raises(InputError, match=rf"with '{truth}'.*its keys are 'images', 'x'"):
        task.training_step({"images": batch["images"], "x": 1}, 0)
    with pytest.raises(InputError, match=r"with 'images' \(or 'image'.*its keys are 'x'"):
        task.predict_step({"x": batch["images"]})
    with pytest.raises(InputError, match="'pixel_values' and 'img'"):
        task.predict_step({"pixel_values": batch["images"], "img": batch["images"]})
    with pytest.raises(InputError, match=r"images alone|a list of"):
        task.training_step(batch["images"][:1], 0)


@EVERY
def test_a_checkpoint_of_another_task_says_whose_it_is(case: TaskCase, tmp_path: Path) -> None:
    task, path, run = built(case), tmp_path / "a.ckpt", trainer()
    run.strategy.connect(task)
    run.save_checkpoint(path)
    kinds = (Classifier, Detector, Segmenter, Captioner, Embedder, KeypointRegressor)
    others = [kind for kind in kinds if not isinstance(task, kind)]
    assert len(others) == 5
    old = torch.load(path, weights_only=True)
    assert old["visionkit"].pop("task") == type(task).__name__
    torch.save(old, tmp_path / "old.ckpt")
    for kind in others:
        with pytest.raises(InputError, match=rf"{type(task).__name__}\.load_from_checkpoint.*init='"):
            kind.load_from_checkpoint(path)
        with pytest.raises(InputError, match="another task"):
            kind.load_from_checkpoint(tmp_path / "old.ckpt")
    assert type(type(task).load_from_checkpoint(tmp_path / "old.ckpt")) is type(task)


class Lonely(nn.Module):
    """Batch norm over a map of one pixel."""

    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten())

    def forward(self, images):
        return self.net(images)


def test_one_image_under_batch_norm_is_refused_before_training() -> None:
    task = Classifier(Lonely(), init="scratch", num_classes=2, optim=FLAT)
    data = TensorDataset(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), torch.arange(9) % 2)
    with pytest.raises(InputError, match=r"smallest batch of an epoch holds one image.*norm='group'"):
        trainer(max_epochs=1).fit(task, DataLoader(data, batch_size=4))
    assert int(task.backbone.net.net[1].num_batches_tracked) == 0
    with pytest.raises(InputError, match="drop_last=True"):
        trainer(max_epochs=1).fit(task, DataLoader(data, batch_size=1))
    for settings, given in (({"drop_last": True}, {}), ({}, {"max_steps": 2})):
        trainer(**{"max_epochs": 1, **given}).fit(task, DataLoader(data, batch_size=4, **settings))
    refused = 0
    for case in KINDS:
        made = case.build("scratch", TransferConfig(), FLAT).train()
        if isinstance(made, Detector):
            continue
        with pytest.raises(InputError, match="this batch holds one image"):
            made.training_step(case.batch(0, 1), 0)
        refused += 1
    assert refused == 5


def test_class_names_come_once() -> None:
    for make in (
        partial(Classifier, Lonely(), init="scratch"),
        partial(Segmenter, "timm/resnet10t", init="scratch"),
        partial(Detector, "timm/resnet10t", init="scratch"),
    ):
        with pytest.raises(InputError, match="'a' comes twice"):
            make(num_classes=2, class_names=["a", "a"])
        with pytest.raises(InputError, match="2 names, but got 3"):
            make(num_classes=2, class_names=["a", "b", "c"])


class Grey(Dataset):
    """A data set of one's own: grey images, and numbers far from 0."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((3, 8, 8), 6 * index, dtype=torch.uint8), torch.tensor([1900 + 3.0 * index])


def test_numbers_are_learnt_in_standard_units_and_told_in_the_users() -> None:
    targets = torch.stack([Grey()[i][1] for i in range(40)])
    torch.manual_seed(0)
    task = Classifier(Mean(), init="scratch", num_classes=1, target="regression", optim=FLAT, lr=0.1)
    run = trainer(max_epochs=25)
    draw = torch.get_rng_state()
    run.fit(task, DataLoader(Grey(), batch_size=8), DataLoader(Grey(), batch_size=8))
    assert task.standardize.mean.item() == pytest.approx(targets.mean().item())
    assert task.standardize.std.item() == pytest.approx(targets.std(correction=0).item())
    assert run.callback_metrics["val/r2"] > 0.9
    assert run.callback_metrics["val/mae"] < 12
    assert run.callback_metrics["val/loss"] < 0.1  # in standard units
    assert task.predict_step(Grey()[30][0])[0].values.item() == pytest.approx(1990, abs=15)
    assert task.bfloat16().standardize.mean.item() == pytest.approx(1958.5)
    again = Classifier(
        Mean(), init="scratch", num_classes=1, target="regression", target_mean=5.0, target_std=0
    )
    assert again.standardize.std.item() == 1.0  # constant targets are shifted only
    again.load_state_dict({n: v for n, v in again.state_dict().items() if not n.startswith("standardize")})
    assert again.standardize.mean.item() == 0.0  # a checkpoint from before learnt them as they were
    assert bool(again.standardize.fitted)
    with pytest.raises(InputError, match="together"):
        Standardize(2, mean=[1.0, 2.0])
    torch.set_rng_state(draw)
    whole = target_statistics(TensorDataset(targets, targets), 1)
    read = target_statistics(Grey(), 1)
    assert torch.equal(torch.get_rng_state(), draw)
    assert (whole.mean, whole.std) == (read.mean, read.std)
    assert target_statistics(iter([]), 1) is None
    # mixed numbers of shape (B,) pair up by image
    image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    mixed = {
        "images": image,
        "labels": targets[:2, 0],
        "labels_b": targets[:2, 0].flip(0),
        "lam": torch.tensor([1.0, 1.0]),
    }
    plain = task.float().training_step({"images": image, "labels": targets[:2, 0]}, 0)["loss"]
    assert torch.equal(task.training_step(mixed, 0)["loss"], plain)
