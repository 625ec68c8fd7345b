"""Prediction from files, folders and memory equals `task.predict_step`; what cannot be used is named."""

from __future__ import annotations

import pkgutil
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit import predict
from visionkit.data import CenterCrop, Compose, DetectionEval, Resize, read_image
from visionkit.data.transforms.saved import describe_transform, transform_from
from visionkit.errors import DataError, InputError
from visionkit.predict import read_ahead as read_ahead_module
from visionkit.predict.loaded import load_task
from visionkit.predict.predictor import load
from visionkit.predict.read_ahead import read_ahead
from visionkit.predict.sources import SourceItem
from visionkit.run.storage.checkpoint import AtomicCheckpointIO
from visionkit.tasks import Classifier

FACTS = {"preprocess": {"name": "CenterCrop", "size": 32, "fraction": 1.0}, "eval_batch_size": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    task = Classifier(
        "packaged/efficientnet_lite0",
        init="scratch",
        num_classes=3,
        image_size=32,
        class_names=("a", "b", "c"),
    )
    task.model_facts = FACTS
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content["pytorch-lightning_version"] = "2.6.0"
    task.on_save_checkpoint(content)
    folder = tmp_path_factory.mktemp("run")
    AtomicCheckpointIO().save_checkpoint(content, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    draw = np.random.default_rng(0)
    for index in range(7):
        file = folder / ("deep" if index % 2 else "") / f"{index}.png"
        Image.fromarray(draw.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)).save(file)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_every_source_gives_what_the_task_gives(run, photos):
    predictor = load(run, device="cpu", precision="32-true")
    assert predictor.kind == "classification"
    assert predictor.class_names == ("a", "b", "c")
    assert predictor.facts["task"] == "Classifier"
    assert predictor.facts["preprocess"] == FACTS["preprocess"]
    files = sorted(str(path) for path in photos.rglob("*.png"))
    results = predictor(photos)
    assert [each.path for each in results] == files
    crop = transform_from(FACTS["preprocess"])
    images = [crop({"image": read_image(file)}, torch.Generator())["image"] for file in files]
    truth = load_task(run).task.predict_step({"images": torch.stack(images)})
    expected = torch.stack([each.probabilities for each in truth])
    first = read_image(files[0])
    torch.testing.assert_close(torch.stack([r.prediction.probabilities for r in results]), expected)
    for source in (files[0], first, first.permute(1, 2, 0).numpy(), Image.open(files[0]), [first]):
        torch.testing.assert_close(predictor(source)[0].prediction.probabilities, expected[0])
    assert len(predictor(str(photos / "**" / "*.png"))) == 7
    assert results[0].size == tuple(first.shape[-2:])


def test_what_cannot_be_used_is_named(run, photos, tmp_path):
    predictor = load(run, device="cpu", precision="32-true")
    bad = tmp_path / "text.jpg"
    bad.write_text("text")
    with pytest.raises(DataError, match=r"text\.jpg"):
        predictor(bad)
    named = []
    good = sorted(photos.glob("*.png"))[0]
    results = list(predictor.stream([bad, good], on_error=lambda name, error: named.append(name)))
    assert named == [str(bad)]
    assert [each.path for each in results] == [str(good)]
    for source, why in (([], "empty"), (tmp_path / "none", "nothing at"), (3, "a path"), (run, "none of")):
        with pytest.raises(InputError, match=why):
            predictor(source)
    with pytest.raises(InputError, match="uint8"):
        predictor(torch.rand(3, 8, 8))
    with pytest.raises(InputError, match="there is nothing"):
        load(tmp_path / "none")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="unfinished"):
        load(tmp_path / "unfinished")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        load(tmp_path / "empty")
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"damaged\.ckpt"):
        load(damaged)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "visionkit": {"task": "X"}}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="'X'"):
        load(tmp_path / "x.ckpt")


def test_transforms_travel_as_plain_values():
    for transform in (CenterCrop(8, 0.5), Resize((4, 6)), DetectionEval(Resize(9, 15)), Compose(())):
        assert transform_from(describe_transform(transform)) == transform
    assert describe_transform(lambda sample, rng: sample) is None
    with pytest.raises(InputError, match="transform"):
        transform_from({"name": "Elastic"})


def test_no_module_hides_a_public_name():
    """`from visionkit.predict import load` is the function, whatever was imported before."""
    modules = {module.name for module in pkgutil.iter_modules(predict.__path__)}
    assert not modules & set(predict.__all__)
    assert predict.load is load


@pytest.mark.parametrize("limit", [1, 20_000, 10**9])
def test_large_images_are_not_read_far_ahead(photos, monkeypatch, limit):
    """Images are about 6 KB each. With any limit all come, in order; with a small one few are held."""
    monkeypatch.setattr(read_ahead_module, "MAX_BYTES", limit)
    file = sorted(photos.glob("*.png"))[0]
    read = []
    items = [SourceItem(str(n), None, lambda n=n: (read.append(n), read_image(file))[1]) for n in range(60)]
    threads, taken = 3, []
    for image in read_ahead(iter(items), Compose(()), count=40, threads=threads, on_error=None):
        taken.append(image.item.id)
        time.sleep(0.002)
        held = len(read) - len(taken)
        assert held <= 40
        if limit < 10**9:
            assert held <= limit // image.nbytes + 1 + threads
    assert taken == [str(n) for n in range(60)]


def test_a_stream_that_is_left_early_ends_its_threads(photos, monkeypatch):
    monkeypatch.setattr(read_ahead_module, "MAX_BYTES", 1)
    items = [SourceItem(str(n), None, lambda: torch.zeros(3, 8, 8).byte()) for n in range(30)]
    stream = read_ahead(iter(items), Compose(()), count=20, threads=3, on_error=None)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]
