"""The classifier as users meet it: twelve lines, LightningCLI, mixing, bad labels, predictions."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from visionkit.config import OptimConfig, TransferConfig
from visionkit.nn import Normalize, mixed_loss
from visionkit.tasks import Classifier

QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


class Small(nn.Module):
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.filters(images)).relu().mean((2, 3))


def data(size: int = 24) -> TensorDataset:
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8)
    return TensorDataset(images, torch.arange(size) % 3)


class Images(lightning.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(data(), batch_size=8)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(data(), batch_size=8)


@pytest.fixture(autouse=True)
def _quiet():
    warnings.simplefilter("ignore")


def test_a_users_twelve_lines(tmp_path: Path) -> None:
    train, val = DataLoader(data(), batch_size=8, shuffle=True), DataLoader(data(), batch_size=8)
    task = Classifier("timm/resnet10t", init="scratch", num_classes=3, class_names=("a", "b", "c"))
    trainer = lightning.Trainer(max_epochs=1, **QUIET)
    trainer.fit(task, train, val)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    assert set(trainer.callback_metrics) == {
        "train/loss", "train/top1", "val/loss", "val/top1", "val/macro_f1", "val/ece",
    }  # fmt: skip
    assert task.confusion.sum() == 24
    again = Classifier.load_from_checkpoint(tmp_path / "task.ckpt")
    found = again.predict_step(data()[:5][0])
    assert len(found) == 5
    assert found[0].name in ("a", "b", "c")
    assert float(found[0].probabilities.sum()) == pytest.approx(1, abs=1e-6)
    assert found[0].confidence == pytest.approx(float(found[0].probabilities[found[0].index]))
    with pytest.raises(ValueError, match="on this machine, but got the address"):
        Classifier.load_from_checkpoint("http://example.org/task.ckpt")


def test_lightning_cli_builds_it() -> None:
    made = LightningCLI(
        Classifier, Images, run=False, save_config_callback=None,
        args=[
            "--model.backbone=timm/resnet10t", "--model.init=scratch", "--model.num_classes=3",
            "--model.optim.schedule=linear", "--model.transfer.norm=group", "--trainer.accelerator=cpu",
            "--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_checkpointing=false",
            "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        ],
    )  # fmt: skip
    assert made.model.optim.schedule == "linear"
    assert made.model.transfer.norm == "group"
    assert any(isinstance(m, nn.GroupNorm) for m in made.model.backbone.modules())
    made.trainer.fit(made.model, made.datamodule)
    assert "val/top1" in made.trainer.callback_metrics


def test_your_own_module_is_a_backbone_and_the_reload_asks_for_it(tmp_path: Path) -> None:
    task = Classifier(
        Small(), init="pretrained", num_classes=3, transfer=TransferConfig(freeze_through="all")
    )
    before = {n: v.clone() for n, v in task.backbone.state_dict().items()}
    trainer = lightning.Trainer(max_steps=2, **QUIET)
    trainer.fit(task, DataLoader(data(), batch_size=8))
    assert all(torch.equal(v, before[n]) for n, v in task.backbone.state_dict().items())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match=r"own module Small.*backbone=Small"):
        Classifier.load_from_checkpoint(tmp_path / "own.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "own.ckpt", backbone=Small())
    assert torch.equal(again.head.weight, task.head.weight)
    with pytest.raises(ValueError, match="'dim'"):
        Classifier(nn.Linear(1, 1), init="scratch", num_classes=3)


def test_rows_of_training_tile_the_run_and_are_few() -> None:
    task = Classifier(Small(), init="scratch", num_classes=3)
    rows: list[tuple[str, float]] = []
    log_dict = task.log_dict

    def spy(values, **settings):
        rows.append(("step" if settings.get("on_step") else "epoch", len(values)))
        return log_dict(values, **settings)

    task.log_dict = spy
    lightning.Trainer(max_epochs=2, log_every_n_steps=3, **QUIET).fit(
        task, DataLoader(data(80), batch_size=8)
    )
    # updates 3 6 9, epoch at 10, 12 15 18, epoch at 20
    assert [kind for kind, _ in rows] == ["step"] * 3 + ["epoch"] + ["step"] * 3 + ["epoch"]


@pytest.mark.parametrize("lam", [0.3, torch.tensor([0.1, 0.5, 0.9, 1.0])])
def test_mixed_labels_are_honoured(lam) -> None:
    logits, a, b = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    share = torch.as_tensor(lam).expand(4)[:, None]
    soft = share * nn.functional.one_hot(a, 3) + (1 - share) * nn.functional.one_hot(b, 3)
    wanted = nn.functional.cross_entropy(logits, soft)
    assert mixed_loss(logits, a, kind="ce", labels_b=b, lam=lam) == pytest.approx(wanted.item(), abs=1e-6)
    task = Classifier(Small(), init="scratch", num_classes=3)
    batch = {
        "images": data(4)[:][0],
        "labels": a,
        "labels_b": b,
        "lam": torch.tensor(0.0),
        "ids": list("abcd"),
    }
    other = {"images": batch["images"], "labels": b, "ids": list("abcd")}
    assert torch.equal(task.training_step(batch, 0)["loss"], task.training_step(other, 0)["loss"])


def test_weights_and_smoothing_are_torchs() -> None:
    logits, labels, weights = torch.randn(6, 3), torch.arange(6) % 3, torch.tensor([1.0, 2.0, 0.5])
    wanted = nn.functional.cross_entropy(logits, labels, weight=weights)
    assert torch.allclose(mixed_loss(logits, labels, kind="ce", weights=weights), wanted)
    smooth = nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    assert torch.allclose(mixed_loss(logits, labels, kind="ce", smoothing=0.2), smooth)


def test_labels_that_cannot_be_right_are_named() -> None:
    images = data(3)[:][0]
    task = Classifier(Small(), init="scratch", num_classes=3)
    with pytest.raises(ValueError, match=r"0 \.\. 2, but 'cat\.png' has 7"):
        task.training_step(
            {"images": images, "labels": torch.tensor([0, 7, 1]), "ids": ["a", "cat.png", "b"]}, 0
        )
    with pytest.raises(ValueError, match="image 2 of the batch has -1"):
        task.training_step((images, torch.tensor([0, 1, -1])), 0)
    task = Classifier(Small(), init="scratch", num_classes=2, target="regression")
    labels = torch.zeros(3, 2)
    labels[1, 1] = float("nan")
    with pytest.raises(ValueError, match="'b' column 1 has nan"):
        task.validation_step({"images": images, "labels": labels, "ids": ["a", "b", "c"]}, 0)
    with pytest.raises(ValueError, match="target='multi'"):
        Classifier(Small(), init="scratch", num_classes=2).training_step((images, labels), 0)


def test_settings_that_do_not_fit_are_refused() -> None:
    for settings, text in (
        ({"num_classes": 1}, "at least 2"),
        ({"target": "multy"}, "Did you mean 'multi'"),
        ({"class_weights": [1.0]}, "class_weights to be 3 numbers"),
        ({"target": "regression", "label_smoothing": 0.1}, "label_smoothing"),
        ({"head": "pretrained"}, "Use head='new'"),
        ({"transfer": TransferConfig(freeze_through="all")}, "freeze random weights"),
    ):
        with pytest.raises(ValueError, match=text):
            Classifier(Small(), init="scratch", **{"num_classes": 3, **settings})


def test_settings_without_their_callback_are_refused() -> None:
    task = Classifier(Small(), init="scratch", num_classes=3, optim=OptimConfig(ema=0.99))
    with pytest.raises(ValueError, match=r"no EMA callback.*EMA\(0.99\)"):
        lightning.Trainer(max_steps=1, **QUIET).fit(task, DataLoader(data(), batch_size=8))


def test_the_arms_begin_with_the_same_head() -> None:
    heads = []
    for backbone in ("timm/resnet10t", "timm/resnet10t"):
        torch.manual_seed(3)
        torch.randn(len(heads) * 10)  # one arm may draw more numbers than the other
        heads.append(Classifier(backbone, init="scratch", num_classes=3).head.weight)
    assert torch.equal(*heads)


def test_uint8_and_float_images_are_the_same_and_others_are_refused() -> None:
    normalize = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    images = data(2)[:][0]
    assert torch.allclose(normalize(images), normalize(images.float() / 255), atol=1e-5)
    with pytest.raises(ValueError, match="uint8, or float"):
        normalize(images.long())
    with pytest.raises(ValueError, match="Channels come before"):
        normalize(images.permute(0, 2, 3, 1))
