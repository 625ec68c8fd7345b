"""Previews: written per contract, the same on every machine, and never in the way of the training."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from visionkit.drawing.panels import caption_panel, join_grid
from visionkit.run.previews.callback import Preview
from visionkit.run.previews.classification import ClassPreview
from visionkit.run.previews.to_pil import to_pil

CLASSES = ["red", "green", "blue"]


class Squares(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.zeros(3, 16, 16, dtype=torch.uint8)
        image[index % 3] = 200
        return {"image": image, "label": index % 3, "id": f"square/{index}"}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": torch.stack([s["image"] for s in samples]),
        "labels": torch.tensor([s["label"] for s in samples]),
        "ids": [s["id"] for s in samples],
    }


class MeanColour(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3)) / 255 * self.scale

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self(batch["images"]), batch["labels"])

    def validation_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return {"preds": self(batch["images"])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder, callback: Callback, epochs: int = 2) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[callback], max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    loader = DataLoader(Squares(), batch_size=8, collate_fn=collate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        trainer.fit(MeanColour(), loader, loader)
    return trainer


def test_writes_what_the_contract_names(tmp_path) -> None:
    train(tmp_path, Preview(tmp_path, ClassPreview(CLASSES), num_worst=4, num_random=3, num_saved=3))
    rows = [json.loads(line) for line in (tmp_path / "predictions/val.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert len({row["id"] for row in rows}) == 20
    assert set(rows[0]) == {"id", "image", "truth", "prediction", "confidence", "loss", "probabilities"}
    assert [row["loss"] for row in rows] == sorted((row["loss"] for row in rows), reverse=True)
    assert all(row["truth"] == row["prediction"] for row in rows)  # brightest channel wins
    named = [row["image"] for row in rows if row["image"]]
    assert 4 <= len(named) <= 7
    assert all(rows[i]["image"] for i in range(4)), "the worst have images"
    for name in named:
        assert Image.open(tmp_path / name).size == (128, 128)
    for name in ("train-batch", "val-worst", "val-random"):
        assert Image.open(tmp_path / f"figures/{name}.png").width > 128


def test_only_the_last_validation_is_written(tmp_path) -> None:
    preview = Preview(tmp_path, ClassPreview(CLASSES))
    calls = []
    rows = preview.kind.rows
    preview.kind = SimpleNamespace(  # type: ignore[assignment]
        rows=lambda module, batch, preds: calls.append(1) or rows(module, batch, preds),
        training=ClassPreview(CLASSES).training,
        images=ClassPreview(CLASSES).images,
        panel=ClassPreview(CLASSES).panel,
    )
    train(tmp_path, preview, epochs=3)
    assert len(calls) == 3  # three batches of the last epoch only, not nine


@pytest.mark.parametrize("kind", ["tensor", "bytes"])
def test_ids_that_are_numbers_or_no_utf8_are_written(tmp_path, kind) -> None:
    class Numbered(Preview):
        def on_validation_batch_end(
            self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0
        ) -> None:
            numbers = torch.arange(8 * batch_idx, 8 * batch_idx + len(batch["ids"]))
            names = [f"{index}-caf\udce9.jpg" for index in numbers.tolist()]
            odd = {**batch, "ids": numbers if kind == "tensor" else names}
            super().on_validation_batch_end(trainer, module, outputs, odd, batch_idx)

    preview = Numbered(tmp_path, ClassPreview(CLASSES))
    train(tmp_path, preview, epochs=1)
    assert preview.problem == ""
    text = (tmp_path / "predictions/val.jsonl").read_bytes().decode("utf-8")
    ids = {json.loads(line)["id"] for line in text.splitlines()}
    ending = "" if kind == "tensor" else "-caf\\xe9.jpg"
    assert ids == {f"{index}{ending}" for index in range(20)}


def test_a_fault_in_drawing_is_a_warning(tmp_path) -> None:
    class Broken(ClassPreview):
        def rows(self, module: Any, batch: Any, preds: Any) -> Any:
            raise RuntimeError("no ink")

    with pytest.warns(RuntimeWarning, match="Previews failed, the run goes on: RuntimeError: no ink"):
        trainer = train(tmp_path, Preview(tmp_path, Broken(CLASSES)))
    assert trainer.state.finished
    assert trainer.global_step == 6
    assert not (tmp_path / "predictions").exists()


def test_a_module_that_returns_no_preds_is_told_what_to_return(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(MeanColour, "validation_step", lambda self, batch, index: {"loss": torch.zeros(())})
    told = r"Previews failed.*with `preds`, but got the keys \['loss'\]\. Return"
    with pytest.warns(RuntimeWarning, match=told):
        trainer = train(tmp_path, Preview(tmp_path, ClassPreview(CLASSES)))
    assert trainer.state.finished


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path) -> None:
    (tmp_path / "figures").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="Previews failed"):
        assert train(tmp_path, Preview(tmp_path, ClassPreview(CLASSES))).state.finished


def test_rows_of_several_labels_and_of_numbers() -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    logits = torch.tensor([[9.0, -9.0, 9.0], [-9.0, -9.0, -9.0]])
    batch = {"images": images, "labels": torch.tensor([[1.0, 0, 1], [1, 0, 0]]), "ids": ["a", "b"]}
    first, second = ClassPreview(CLASSES).rows(None, batch, logits)
    assert first["prediction"] == first["truth"] == ["red", "blue"]
    assert second["prediction"] == []
    assert second["truth"] == ["red"]
    assert second["loss"] > first["loss"]
    numbers = ClassPreview([]).rows(None, batch | {"labels": torch.tensor([[1.5, 2, 3], [0, 0, 0]])}, logits)
    assert numbers[0]["truth"] == [1.5, 2.0, 3.0]
    assert numbers[0]["confidence"] is None
    assert numbers[0]["right"] is None  # near or far, not right or wrong
    assert numbers[0]["answer"].endswith(f"off by {9 - 1.5:g}, 11, 6")
    assert numbers[0]["loss"] == pytest.approx(((9 - 1.5) ** 2 + 11**2 + 6**2) / 3)


def test_mixed_labels_are_written_out() -> None:
    kind = ClassPreview(CLASSES)
    assert kind._name_target(torch.tensor([0.3, 0.0, 0.7])) == "0.70 blue + 0.30 red"
    batch = {
        "images": torch.zeros(2, 3, 8, 8), "labels": torch.tensor([0, 1]),
        "labels_b": torch.tensor([1, 1]), "lam": 0.25,
    }  # fmt: skip
    assert len(kind.training(batch, 8)) == 2


def test_images_keep_their_shape_and_range() -> None:
    wide = to_pil(torch.full((3, 10, 40), 0.5))
    assert wide.size == (128, 32)
    assert wide.getpixel((0, 0)) == (128, 128, 128)
    panel = caption_panel(wide, [("a text that is much longer than the image is wide", False)])
    grid = join_grid([panel] * 5, columns=3)
    assert grid.size == (3 * 134 + 6, 2 * (panel.height + 6) + 6)
