"""A gallery apart from the images that are searched with: what loaders give, and what a task scores of it."""

from __future__ import annotations

import lightning
import pytest
import torch

from tests.run.tiny import Noise, keep
from visionkit.data import DataModule, Splits, stack_batch
from visionkit.data.splits import WithGallery
from visionkit.errors import InputError
from visionkit.metrics import RetrievalScores
from visionkit.tasks import Embedder


def data(**settings: object) -> DataModule:
    splits = Splits(Noise(21, 1, side=32), Noise(9, 1, side=32), None, ("a", "b", "c"), "noise")
    common = {"batch_size": 4, "train_transform": keep, "eval_transform": keep, "collate": stack_batch}
    return DataModule(splits, **common, **settings)


def test_loaders_read_the_gallery_behind_the_split() -> None:
    module = data(gallery="train")
    batches = list(module.val_dataloader())
    gallery = torch.cat([batch["gallery"] for batch in batches])
    assert gallery.tolist() == [False] * 9 + [True] * 21
    names = [name for batch in batches for name in batch["ids"]]
    assert len(set(names)) == 30, "the two readers call their images alike"
    assert names[9] == "gallery: noise-1-0"
    assert list(module.eval_reader("val").ids) == names
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == module.eval_reader("val").labels
    assert module.facts()["sizes"]["val"] == 9
    assert "21 of training" in module.facts()["facts"]["gallery"]
    assert "gallery" not in next(iter(data().val_dataloader()))
    assert "gallery" not in data().facts()["facts"]
    with pytest.raises(InputError, match="Unknown gallery 'val'"):
        data(gallery="val")


def test_a_gallery_of_a_stream_is_refused_by_its_name() -> None:
    splits = data().splits
    splits.train.shard_numbers = [0] * 21
    with pytest.raises(InputError, match="a gallery of training images"):
        WithGallery(splits.val, splits.train)


def test_a_task_searches_the_gallery() -> None:
    task = Embedder(
        "timm/test_resnet",
        init="scratch",
        loss="supcon",
        image_size=32,
        metrics={"r": RetrievalScores(score="map_at_r")},
    )
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    module = data(gallery="train")
    (values,) = trainer.validate(task, module, verbose=False)
    expected, own = RetrievalScores(), RetrievalScores()
    with torch.no_grad():
        for batch in module.val_dataloader():
            vectors = task.eval()(batch["images"])
            expected.update(vectors, batch["labels"], batch["ids"], batch["gallery"])
            mine = ~batch["gallery"]
            own.update(vectors[mine], batch["labels"][mine])
    scores = expected.compute_floats()
    assert {name: values[f"val/{name}"] for name in scores} == pytest.approx(scores)
    assert values["val/r"] == pytest.approx(own.compute_floats()["map_at_r"]), "your metrics see the split"
    assert expected.result is not None
    assert expected.result.queries == 9
