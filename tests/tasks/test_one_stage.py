"""RetinaNet and FCOS as tasks: trained, saved, refused, fine-tuned, and with torchvision's weights."""

from __future__ import annotations

import lightning
import pytest
import torch
from torchvision.models import detection as reference

from tests.nn.detectors import TinySource, random_targets
from tests.tasks.small_tasks import small_task
from visionkit.config import TransferConfig
from visionkit.data.collate import list_batch
from visionkit.errors import InputError
from visionkit.task_config import FCOSConfig, RCNNConfig, RetinaNetConfig
from visionkit.tasks.detection.task import Detector

DENSE = {"convs": 1, "score_threshold": 0.0, "topk_candidates": 60, "detections_per_img": 20}
CONFIGS = {
    "retinanet": RetinaNetConfig(norm="group", anchor_scales=(2.0, 3.0), **DENSE),
    "fcos": FCOSConfig(**DENSE),
}
BOTH = pytest.mark.parametrize("detector", CONFIGS)


def _detector(detector: str, **settings) -> Detector:
    torch.manual_seed(0)
    return Detector(
        TinySource(), init="scratch", num_classes=3, detector=detector, pyramid_channels=16,
        class_names=("cat", "dog", "cow"), transfer=TransferConfig(norm="group"),
        **{detector: CONFIGS[detector], **settings},
    )  # fmt: skip


def _batch(counts=(2, 0), size=64):
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, size, size + 8 * i), dtype=torch.uint8, generator=generator)
        for i in range(len(counts))
    ]
    targets = [
        {name: target[name] for name in ("boxes", "labels")}
        for target in random_targets(list(counts), size=size, classes=3)
    ]
    return {"images": images, "targets": targets, "ids": [f"p{i}" for i in range(len(counts))]}


@BOTH
def test_it_fits_images_without_objects_too_and_its_checkpoint_gives_the_same(detector, tmp_path):
    task, batch = _detector(detector), _batch((2, 1, 0, 0))
    parts = zip(batch["images"], batch["targets"], batch["ids"], strict=True)
    samples = [{"image": image, "id": name, **target} for image, target, name in parts]
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=tmp_path, enable_checkpointing=False, num_sanity_val_steps=0, precision="bf16-mixed",
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=list_batch)  # the second is empty
    trainer.fit(task, loader, loader)
    terms = {"loss", "loss_class", "loss_box"} | ({"loss_centerness"} if detector == "fcos" else set())
    logged = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    assert set(logged) == {f"train/{name}" for name in terms}
    assert all(value.isfinite() for value in logged.values())
    assert task.loss_terms["loss_box"] == 0
    assert {"val/map", "val/map50", "val/ar100"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Detector.load_from_checkpoint(tmp_path / "last.ckpt", backbone=TinySource())
    assert (again.detector, again.config) == (detector, CONFIGS[detector])
    assert again.hparams["rcnn"] is None
    for one, other in zip(task.predict_step(batch), again.predict_step(batch), strict=True):
        assert len(one.boxes) == 20
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert set(one.names) <= {"cat", "dog", "cow"}


@BOTH
def test_two_views_of_an_image_are_joined(detector):
    views = _detector(detector, tta_flip=True, tta_sizes=(64, 80))
    detections = views.predict_step(_batch((1,)))[0]
    assert 0 < len(detections.boxes) <= 20
    assert detections.boxes.min() >= 0
    assert detections.boxes.max() <= 64 + 1e-3


def test_settings_of_another_detector_are_refused_by_name():
    build = {"backbone": "timm/resnet10t", "init": "scratch", "num_classes": 2}
    with pytest.raises(InputError, match=r"Unknown detector 'fcoss'\. Did you mean 'fcos'"):
        Detector(**build, detector="fcoss")
    with pytest.raises(
        InputError, match=r"rcnn= has the settings of detector='faster_rcnn'.*retinanet=.*Masks need"
    ):
        Detector(**build, detector="retinanet", rcnn=RCNNConfig(masks=True))
    with pytest.raises(InputError, match=r"fcos= has the settings of detector='fcos'.*'faster_rcnn'.*rcnn="):
        Detector(**build, fcos=FCOSConfig())
    with pytest.raises(InputError, match="Unknown retinanet setting 'center_radius'"):
        Detector(**build, detector="retinanet", retinanet={"center_radius": 1.5})
    with pytest.raises(InputError, match=r"fcos\.center_radius"):
        Detector(**build, detector="fcos", fcos={"center_radius": 0.0})


def test_the_levels_begin_at_8_and_norms_are_those_of_the_settings():
    task = Detector("timm/test_resnet", init="scratch", num_classes=2, detector="fcos", pyramid_channels=16)
    assert [level.reduction for level in task.model.source.levels] == [8, 16, 32, 64, 128]
    assert task.hparams["reductions"] == [8, 16, 32]
    kinds = {type(module).__name__ for module in task.model.head.modules()}
    assert "GroupNorm" in kinds
    plain = Detector(
        "packaged/efficientnet_lite0", init="pretrained", num_classes=2, detector="retinanet",
        pyramid_channels=16, transfer=TransferConfig(norm="frozen", freeze_through="all"),
    )  # fmt: skip
    norms = [name for name, m in plain.model.named_modules() if "Norm" in type(m).__name__]
    assert norms
    assert all(name.startswith("source.source.") for name in norms)
    assert not any(p.requires_grad for p in plain.backbone.parameters())
    assert all(p.requires_grad for p in plain.model.head.parameters())


def test_rows_of_each_anchor_follow_the_names_of_the_classes(tmp_path):
    settings = {"detector": "retinanet", "retinanet": CONFIGS["retinanet"], "rcnn": None}
    donor = small_task("Detector", **settings)
    torch.nn.init.normal_(donor.model.head.class_logits.bias)
    donor.save_pretrained(tmp_path / "donor")
    order = ("cat", "ant", "bee")
    task = small_task("Detector", init=str(tmp_path / "donor"), names=order, **settings)
    assert "with the same 3 classes, in the order of the data by their names" in task.init_note
    ours, theirs = (each.model.head.class_logits.bias.view(6, 3) for each in (task, donor))
    assert torch.equal(ours, theirs[:, [2, 0, 1]])
    assert torch.equal(task.model.head.box_offsets.weight, donor.model.head.box_offsets.weight)
    other = small_task("Detector", init=str(tmp_path / "donor"))
    assert "it is another network, first in model.head" in other.init_note


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("retinanet_resnet50_fpn", id="retinanet"),
        pytest.param("retinanet_resnet50_fpn_v2", id="retinanet_v2", marks=pytest.mark.slow),
        pytest.param("fcos_resnet50_fpn", id="fcos"),
    ],
)
def test_torchvision_weights_give_torchvision_losses_and_detections(name, tmp_path):
    torch.manual_seed(0)
    theirs = getattr(reference, name)(weights=None, weights_backbone=None, num_classes=4, score_thresh=0.0)
    theirs.transform.min_size, theirs.transform.max_size = (96,), 160
    head = theirs.head.classification_head.cls_logits
    with torch.no_grad():
        torch.nn.init.normal_(head.weight, std=0.3)
        # Of each anchor the first class is the background, which ours does not have: never likely here.
        head.weight.unflatten(0, (-1, 4))[:, 0] = 0
        head.bias.unflatten(0, (-1, 4))[:, 0] = -100
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = Detector.from_torchvision(tmp_path / "weights.pth", name=name)
    assert (ours.num_classes, ours.detector) == (3, name.partition("_")[0])
    ours.resize = (96, 160)
    ours.model.config = type(ours.config)(**{**vars(ours.config), "score_threshold": 0.0})
    image, boxes = torch.rand(3, 60, 80), torch.tensor([[5.0, 8.0, 40.0, 50.0], [30.0, 2.0, 77.0, 30.0]])

    # The same running statistics on both sides: only the losses of training are compared.
    theirs.train(), ours.train()
    theirs.backbone.eval(), ours.model.source.eval()
    want = theirs([image], [{"boxes": boxes, "labels": torch.tensor([1, 3])}])
    batch = {"images": [image], "targets": [{"boxes": boxes, "labels": torch.tensor([0, 2])}]}
    ours.training_step(batch, 0)
    names = {"classification": "class", "bbox_regression": "box", "bbox_ctrness": "centerness"}
    for key, value in want.items():
        loss = ours.loss_terms[f"loss_{names[key]}"].item()
        assert loss == pytest.approx(value.item(), rel=1e-5), key

    with torch.inference_mode():
        want = theirs.eval()([image])[0]
    detections = ours.predict_step([image])[0]
    assert len(detections.boxes) == len(want["boxes"]) >= 100
    near = (detections.boxes[:, None] - want["boxes"][None]).abs().amax(-1) < 1e-2  # pixels
    near &= (detections.scores[:, None] - want["scores"][None]).abs() < 1e-4
    near &= (detections.labels + 1)[:, None] == want["labels"][None]
    assert near.any(0).float().mean() >= 0.95  # rounding may decide which of two overlapping boxes stays
    assert near.any(1).float().mean() >= 0.95


def test_other_torchvision_weights_of_one_stage_are_refused():
    with pytest.raises(InputError, match=r"no entry 'head\.classification_head\.cls_logits"):
        Detector.from_torchvision({}, name="fcos_resnet50_fpn")
    with pytest.raises(InputError, match=r"'rpn\.x' belongs to no torchvision RetinaNet or FCOS"):
        Detector.from_torchvision({"rpn.x": torch.zeros(1)}, name="retinanet_resnet50_fpn")
