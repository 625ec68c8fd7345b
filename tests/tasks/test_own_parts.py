"""Channels, statistics and options of a backbone in every task; soft labels; batches of other libraries."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from visionkit import Captioner, Classifier, Detector, OptimConfig, RCNNConfig, Segmenter, Vocabulary
from visionkit.backbones import create_backbone
from visionkit.errors import DataError, InputError

WORDS = Vocabulary(["a", "dark", "image"])
NAME = "timm/test_resnet"
BUILD = {
    "classification": lambda **kw: Classifier(NAME, init="scratch", num_classes=3, **kw),
    "detection": lambda **kw: Detector(
        NAME, init="scratch", num_classes=3, pyramid_channels=8,
        rcnn=RCNNConfig(head_width=8, proposals_train=20, proposals_eval=10, box_samples=8), **kw,
    ),
    "segmentation": lambda **kw: Segmenter(NAME, init="scratch", num_classes=3, channels=8, **kw),
    "captioning": lambda **kw: Captioner(
        NAME, init="scratch", vocabulary=WORDS, embed=8, hidden=8, attention=8, **kw
    ),
}  # fmt: skip


def batch(kind: str, channels: int):
    images = torch.randint(0, 256, (2, channels, 64, 64), dtype=torch.uint8)
    boxes = [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}] * 2
    return {
        "classification": {"images": images, "labels": torch.tensor([0, 2])},
        "detection": {"images": list(images), "targets": boxes},
        "segmentation": {"images": images, "masks": torch.randint(0, 3, (2, 64, 64))},
        "captioning": {
            "images": images,
            "tokens": torch.tensor([WORDS.encode("a dark image")] * 2),
            "references": [["a dark image"]] * 2,
        },
    }[kind]


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("kind", BUILD)
def test_images_of_any_channels_train_predict_and_reload(kind: str, channels: int, tmp_path) -> None:
    mean, std = [0.1 * (c % 5) for c in range(channels)], [0.2 + 0.01 * c for c in range(channels)]
    task = BUILD[kind](in_channels=channels, mean=mean, std=std, backbone_options={"drop_path_rate": 0.1})
    given = batch(kind, channels)
    loss = task.training_step(given, 0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert len(task.predict_step(given)) == 2
    checkpoint = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    checkpoint["pytorch-lightning_version"] = "2.6.0"
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "task.ckpt")
    saved = torch.load(tmp_path / "task.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["in_channels"] == channels
    assert saved["mean"] == mean
    assert saved["std"] == std
    assert saved["backbone_options"] == {"drop_path_rate": 0.1}
    again = type(task).load_from_checkpoint(tmp_path / "task.ckpt")
    assert again.channels == channels
    assert torch.equal(again.normalize.mean, task.normalize.mean)
    assert drop_rates(again) == drop_rates(task)
    assert max(drop_rates(task)) == pytest.approx(0.1)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in task.state_dict().items())


def drop_rates(task: nn.Module) -> list[float]:
    return [part.drop_prob for part in task.modules() if type(part).__name__ == "DropPath"]


def test_options_reach_timm_and_torchvision_and_wrong_ones_are_named() -> None:
    made = create_backbone(
        "torchvision/convnext_tiny", init="scratch", options={"stochastic_depth_prob": 0.0}
    )
    probabilities = {part.p for part in made.modules() if type(part).__name__ == "StochasticDepth"}
    assert probabilities == {0.0}
    assert made.made_by["options"] == {"stochastic_depth_prob": 0.0}
    with pytest.raises(
        InputError, match="backbone_options without 'in_chans', which follows from in_channels"
    ):
        Classifier(NAME, init="scratch", num_classes=3, backbone_options={"in_chans": 4})
    with pytest.raises(InputError, match=r"cannot be built with backbone_options drop_pth_rate=0.1"):
        Classifier(NAME, init="scratch", num_classes=3, backbone_options={"drop_pth_rate": 0.1})
    with pytest.raises(InputError, match="a number, text, true, false"):
        Classifier(NAME, init="scratch", num_classes=3, backbone_options={"act_layer": nn.ReLU})
    with pytest.raises(InputError, match="for a backbone that is named"):
        Classifier(made, init="scratch", num_classes=3, backbone_options={"drop_path_rate": 0.1})


def test_soft_labels_are_learnt_as_torch_has_them() -> None:
    torch.manual_seed(0)
    task = BUILD["classification"](class_weights=[1.0, 1.0, 1.0])
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    mixed, soft = v2.MixUp(num_classes=3)(images, labels)
    task.eval()
    loss = task.training_step({"images": mixed, "labels": soft}, 0)["loss"]
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(task(mixed), soft).item(), rel=1e-6)
    onehot = nn.functional.one_hot(labels, 3)
    hard = task.training_step({"images": images, "labels": labels}, 0)["loss"]
    assert task.training_step({"images": images, "labels": onehot}, 0)["loss"].item() == pytest.approx(
        hard.item()
    )
    task.validation_step({"images": images, "labels": onehot.half()}, 0)
    with pytest.raises(DataError, match="soft, each at least 0 and 1 in sum"):
        task.training_step({"images": images, "labels": torch.ones(4, 3)}, 0)


def test_timms_mixup_is_learnt() -> None:
    from timm.data import Mixup

    images, soft = Mixup(num_classes=3, label_smoothing=0.1)(
        torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    )
    for loss in ("ce", "bce"):
        assert BUILD["classification"](loss=loss).training_step((images, soft), 0)["loss"].isfinite()


def test_batches_of_torchgeo_and_hugging_face_are_taken() -> None:
    detector = BUILD["detection"]()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    box, labels = torch.tensor([[8.0, 16, 24, 48]]), torch.tensor([2])
    ours = detector._read({"images": list(images), "targets": [{"boxes": box, "labels": labels}] * 2})[1]
    geo = {"image": images, "bbox_xyxy": [box] * 2, "label": [labels] * 2}
    centre = torch.tensor([[0.25, 0.5, 0.25, 0.5]])
    faces = {
        "pixel_values": images,
        "labels": [{"class_labels": labels, "boxes": centre, "size": (64, 64)}] * 2,
    }
    for given in (geo, faces):
        read = detector._read(detector.on_before_batch_transfer(given, 0))[1]
        assert all(torch.equal(a["boxes"], b["boxes"]) and torch.equal(a["labels"], b["labels"])
                   for a, b in zip(read, ours, strict=True))  # fmt: skip
    segmenter = BUILD["segmentation"]()
    for keys in (("image", "mask"), ("pixel_values", "labels")):
        given = dict(zip(keys, (images, torch.zeros(2, 64, 64, dtype=torch.int64)), strict=True))
        assert segmenter.training_step(segmenter.on_before_batch_transfer(given, 0), 0)["loss"].isfinite()


@pytest.mark.parametrize("name", ["lamb", "lion", "adafactor"])
def test_optimizers_of_timm_are_taken_by_name(name: str) -> None:
    from visionkit.optim import build_optimizer

    task = BUILD["classification"](optim=OptimConfig(optimizer=name, schedule="constant", warmup=0.0))
    made = build_optimizer(
        task, task.backbone, task.optim, task.transfer, 1e-3, total_images=100.0, global_batch=4
    )["optimizer"]
    assert type(made).__name__.lower().startswith(name)
    assert {group["name"] for group in made.param_groups} >= {"head", "backbone", "backbone/no decay"}
    before = task.head.weight.clone()
    task.training_step(batch("classification", 3), 0)["loss"].backward()
    made.step()
    assert not torch.equal(before, task.head.weight)


def test_an_unknown_optimizer_is_refused_before_anything_is_built() -> None:
    with pytest.raises(InputError, match="Did you mean 'adamw'"):
        BUILD["classification"](optim={"optimizer": "adamww"})
