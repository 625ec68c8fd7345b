"""The segmenter: learns, scores at native size, reloads, refuses."""

from __future__ import annotations

import itertools
import re

import lightning
import pytest
import torch
from torch import nn

from visionkit.backbones import Level
from visionkit.config import OptimConfig
from visionkit.data import DataModule, Splits, mask_batch
from visionkit.data.transforms.segmentation import segmentation_eval, segmentation_train
from visionkit.errors import DataError, InputError
from visionkit.metrics.segmentation import SegmentationMetric
from visionkit.tasks.segmentation.task import Segmenter


class Tiny(nn.Module):
    """A user's own source of maps."""

    levels = (Level(8, 2), Level(12, 4), Level(16, 8))

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 12, 16)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in itertools.pairwise(widths)
        )

    def forward(self, images):
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return tuple(maps)


class Squares:
    """Images of uneven sizes whose bright pixels are class 1."""

    def __init__(self, count, seed):
        self.count, self.seed = count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.seed + index)
        height, width = 36 + 3 * (index % 4), 50 + 7 * (index % 3)
        mask = torch.zeros(height, width, dtype=torch.int64)
        top, left = (int(torch.randint(0, 20, (), generator=generator)) for _ in range(2))
        mask[top : top + 16, left : left + 20] = 1
        noise = torch.randint(0, 60, (3, height, width), generator=generator)
        image = (noise + 150 * mask).to(torch.uint8)
        mask[:1] = 255
        return {"image": image, "mask": mask, "id": f"{self.seed}-{index}", "size": (height, width)}


def _data(batch_size=4):
    return DataModule(
        Splits(Squares(16, 0), Squares(5, 100), None, ("ground", "square"), "squares"),
        batch_size=batch_size,
        train_transform=segmentation_train((32, 40), max_class_ratio=1.0, photometric=0.0),
        eval_transform=segmentation_eval(),
        collate=mask_batch,
    )


def _trainer(tmp_path, **settings):
    return lightning.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        | {"enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False}
        | {"default_root_dir": tmp_path, "num_sanity_val_steps": 0, "log_every_n_steps": 2}
        | settings
    )


def _tiny(**settings):
    optim = OptimConfig(schedule="poly", weight_decay=0.0)
    given = {"init": "scratch", "num_classes": 2, "channels": 16, "optim": optim, "lr": 0.02} | settings
    return Segmenter(Tiny(), **given)


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder": "unet", "loss": "ce+dice", "aux_loss_weight": 0.4, "class_names": ("ground", "square")},
        {"decoder": "fcn", "num_classes": 1, "loss": "ce+lovasz"},
        {"decoder": "deeplabv3plus", "loss": {"ohem": 1.0}, "class_weights": (1.0, 2.0)},
    ],
)
def test_learns_and_scores_at_native_size(tmp_path, settings):
    torch.manual_seed(0)
    task, data = _tiny(boundary_tolerance=0.02, **settings), _data()
    trainer = _trainer(tmp_path, max_epochs=8)
    trainer.fit(task, datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    names = settings.get("class_names", ("0", "1"))
    wanted = {"miou", "pixel_accuracy", "mean_accuracy", "boundary_f", "loss"} | {f"iou/{n}" for n in names}
    assert {f"val/{name}" for name in wanted} | {"train/loss"} <= set(logged)
    # a map of reduction 8 cannot draw a square of 16 pixels finely
    assert logged["val/miou"] > (0.7 if settings["decoder"] == "fcn" else 0.85)
    meter = SegmentationMetric(2)
    for index in range(5):
        sample = data.splits.val[index]
        (found,) = task.predict_step({"images": [sample["image"]], "ids": [sample["id"]]})
        assert found.mask.shape == sample["mask"].shape
        assert found.id == sample["id"]
        meter.update(found.mask, sample["mask"])
    assert meter.result().miou == pytest.approx(logged["val/miou"], abs=1e-6)


def test_terms_are_named_and_sum_to_the_loss():
    task = _tiny(loss="ce+0.5*dice", aux_loss_weight=0.4)
    out = task.training_step(mask_batch([_data().train_data[index] for index in range(2)]), 0)
    assert set(out) == {"loss", "ce", "dice", "auxiliary"}
    assert out["loss"].requires_grad
    assert not any(out[name].requires_grad for name in ("ce", "dice", "auxiliary"))
    assert out["loss"].item() == pytest.approx(
        sum(out[n].item() for n in ("ce", "dice", "auxiliary")), rel=1e-5
    )


def test_views_agree_where_they_must():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 64, 80), dtype=torch.uint8)
    plain = _tiny(decoder="fcn").eval()
    with torch.no_grad():
        whole = plain.views.labels(plain, image)
        for settings in ({"window": 48, "window_stride": 16, "window_margin": 16}, {"window": 200}):
            cut = _tiny(decoder="fcn", **settings).eval()
            cut.load_state_dict(plain.state_dict())
            assert (cut.views.labels(cut, image) == whole).float().mean() > 0.995
        both = _tiny(decoder="fcn", flip=True, scales=(0.75, 1.0, 1.5)).eval()
        both.load_state_dict(plain.state_dict())
        probabilities = both.views.probabilities(both, image)
        mirrored = both.views.probabilities(both, image.flip(-1)).flip(-1)
    assert probabilities.shape == (1, 2, 64, 80)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 64, 80))
    torch.testing.assert_close(probabilities, mirrored, atol=1e-5, rtol=1e-5)


def test_a_backbone_that_cannot_be_dilated_is_refused_with_what_works():
    with pytest.raises(InputError, match=r"reduction 8 or less.*'semantic_fpn' or 'unet' or 'upernet'"):
        Segmenter("torchvision/swin_t", init="scratch", num_classes=3, decoder="deeplabv3")


def test_bad_settings_and_masks_are_refused():
    with pytest.raises(InputError, match="num_classes to be at least 1"):
        _tiny(num_classes=0)
    with pytest.raises(InputError, match="class_names to be 2 names"):
        _tiny(class_names=("a",))
    with pytest.raises(InputError, match="class_weights to be 2 numbers"):
        _tiny(class_weights=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="loss term 'cee'"):
        _tiny(loss="cee")
    with pytest.raises(InputError, match=re.escape("'levels'")):
        Segmenter(nn.Linear(2, 2), init="scratch", num_classes=2)
    batch = mask_batch([_data().train_data[index] for index in range(2)])
    batch["masks"][1, 3, 3] = 9
    with pytest.raises(
        DataError, match=r"field 'mask'.*classes 0 to 1 or the ignored value 255, but got \[9\]"
    ) as caught:
        _tiny().training_step(batch, 0)
    assert caught.value.path == batch["ids"][1]
    batch["masks"] = batch["masks"][:, :-1]
    with pytest.raises(DataError, match="as its image"):
        _tiny().training_step(batch, 0)
    with pytest.raises(InputError, match="training images of one size"):
        _tiny().training_step(mask_batch([Squares(4, 0)[index] for index in range(3)]), 0)


def test_an_empty_shard_and_nothing_counted_are_survived(tmp_path):
    task = _tiny()
    task._evaluate(mask_batch([]))
    assert int(task.scores.confmat.sum()) == 0
    sample = Squares(1, 0)[0]
    task._evaluate(mask_batch([{**sample, "mask": torch.full_like(sample["mask"], 255)}]))
    assert task.predict_step(mask_batch([])) == []


def test_a_checkpoint_reloads_with_the_same_answers(tmp_path):
    torch.manual_seed(0)
    task = Segmenter(
        "timm/resnet18", init="scratch", num_classes=2, decoder="unet", channels=16, aux_loss_weight=0.4
    )
    trainer = _trainer(tmp_path, max_steps=1, limit_val_batches=1)
    trainer.fit(task, datamodule=_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Segmenter.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    with torch.no_grad():
        assert (task.eval()(image) == again.eval()(image)).all()
    assert again.hparams["init"] == "scratch"
    assert again.hparams["loss"] == {"ce": 1.0}


def test_both_arms_begin_with_the_same_decoder():
    heads = []
    for waste in (0, 1000):
        torch.manual_seed(3)
        torch.rand(waste)
        heads.append(torch.cat([value.flatten() for value in _tiny().decoder.parameters()]))
    assert (heads[0] == heads[1]).all()
