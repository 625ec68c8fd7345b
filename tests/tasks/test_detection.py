"""The detector trains, scores, predicts in the original frame, reloads, and takes torchvision weights."""

from __future__ import annotations

import lightning
import pytest
import torch
from torchvision.models import detection as reference

from tests.nn.detectors import TinySource, random_targets
from visionkit.config import TransferConfig
from visionkit.data.collate import list_batch
from visionkit.errors import DataError, InputError
from visionkit.task_config import RCNNConfig
from visionkit.tasks.detection.task import Detector

SMALL = RCNNConfig(
    head_width=32, proposals_train=100, proposals_eval=50, anchor_scales=(4.0,), score_threshold=0.0
)


def _detector(rcnn: RCNNConfig = SMALL, **settings) -> Detector:
    torch.manual_seed(0)
    return Detector(
        TinySource(),
        init="scratch",
        num_classes=3,
        rcnn=rcnn,
        pyramid_channels=16,
        class_names=("cat", "dog", "cow"),
        transfer=TransferConfig(norm="group"),
        **settings,
    )


def _batch(counts=(2, 0), size=64, original=None):
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, size, size + 8 * i), dtype=torch.uint8, generator=generator)
        for i in range(len(counts))
    ]
    targets = random_targets(list(counts), size=size, classes=3)
    for target, image in zip(targets, images):
        target["masks"] = torch.zeros(len(target["boxes"]), *image.shape[1:], dtype=torch.uint8)
        if original:
            target["size"] = original
    return {"images": images, "targets": targets, "ids": [f"p{i}" for i in range(len(counts))]}


def test_training_step_gives_named_terms_and_finite_gradients_also_without_objects():
    task = _detector()
    for counts in ((2, 1), (0, 0)):
        task.zero_grad()
        out = task.training_step(_batch(counts), 0)
        names = {"loss", "loss_objectness", "loss_proposal", "loss_class", "loss_box"}
        assert set(task.loss_terms) == names
        terms = sum(value for name, value in task.loss_terms.items() if name != "loss")
        assert out["loss"].item() == pytest.approx(terms.item(), rel=1e-5)
        out["loss"].backward()
        gradients = [p.grad for p in task.parameters()]
        assert len(gradients) > 20
        assert all(g is not None and g.isfinite().all() for g in gradients)


def test_fit_validates_logs_and_the_checkpoint_reloads_to_the_same_predictions(tmp_path):
    task = _detector()
    batch = _batch((2, 1, 1, 0))
    parts = zip(batch["images"], batch["targets"], batch["ids"])
    samples = [{"image": image, "id": name, **target} for image, target, name in parts]
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=list_batch)
    trainer.fit(task, loader, loader)
    logged = set(trainer.callback_metrics)
    assert {"train/loss", "train/loss_box", "val/map", "val/map50", "val/ar100"} <= logged
    assert 0 <= trainer.callback_metrics["val/map"] <= 1
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="only you can build"):
        Detector.load_from_checkpoint(tmp_path / "last.ckpt")
    again = Detector.load_from_checkpoint(tmp_path / "last.ckpt", backbone=TinySource())
    images = batch["images"]
    for one, other in zip(task.predict_step(images), again.predict_step(images), strict=True):
        assert len(one.boxes) > 0
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert set(one.names) <= {"cat", "dog", "cow"}


def test_predictions_come_in_the_frame_of_the_original_image():
    task = _detector()
    batch = _batch((1,), original=(640, 320))
    given = task.predict_step(batch["images"])[0]
    original = task.predict_step(batch)[0]
    assert original.id == "p0"
    assert original.boxes.shape == given.boxes.shape
    scale = torch.tensor([5.0, 10.0, 5.0, 10.0])
    torch.testing.assert_close(original.boxes, given.boxes * scale, rtol=1e-5, atol=1e-3)


def test_a_mask_head_gives_masks_of_the_original_size():
    task = _detector(RCNNConfig(**{**SMALL.__dict__, "masks": True}))
    out = task.training_step(_batch((2, 0)), 0)
    assert "loss_mask" in task.loss_terms
    assert out["loss"].isfinite()
    found = task.predict_step(_batch((1,), original=(50, 70)))[0]
    assert found.masks.shape == (len(found.boxes), 50, 70)
    assert found.masks.dtype == torch.bool


def test_views_are_joined_and_the_mirror_of_an_image_gives_mirrored_boxes():
    plain, views = _detector(), _detector(tta_flip=True, tta_sizes=(64, 80))
    views.load_state_dict(plain.state_dict())
    image = _batch((1,))["images"][0]
    found = views.predict_step([image])[0]
    assert 0 < len(found.boxes) <= 100
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 64 + 1e-3
    mirror = _detector(tta_flip=True)
    mirror.load_state_dict(plain.state_dict())
    one, other = mirror.predict_step([image])[0], mirror.predict_step([image.flip(-1)])[0]
    flipped = torch.stack(
        (64 - other.boxes[:, 2], other.boxes[:, 1], 64 - other.boxes[:, 0], other.boxes[:, 3]), 1
    )
    assert one.scores[:5].tolist() == pytest.approx(other.scores[:5].tolist(), abs=1e-4)
    torch.testing.assert_close(one.boxes[:1], flipped[:1], atol=1e-2, rtol=0)
    with pytest.raises(InputError, match="leave tta_flip and tta_sizes out with a mask head"):
        _detector(RCNNConfig(masks=True), tta_flip=True)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("boxes", [[1.0, 1.0, float("inf"), 9.0]], "p0, record 0, field 'boxes': Expected finite"),
        ("boxes", [[9.0, 1.0, 2.0, 9.0]], "corners are swapped"),
        ("labels", [3], "p0, record 0, field 'labels': Expected a label in 0..2, but got 3"),
        ("labels", [-1], "but got -1"),
    ],
)
def test_faults_are_named_before_compiled_code_sees_them(field, value, words):
    batch = _batch((1,))
    batch["targets"][0][field] = torch.tensor(value)
    with pytest.raises(DataError) as caught:
        _detector().training_step(batch, 0)
    assert words in str(caught.value)


def test_an_empty_share_is_no_fault_and_bad_settings_are():
    task = _detector()
    assert task.validation_step({"ids": []}, 0) == {"preds": None}
    assert task.predict_step({"ids": []}) == []
    with pytest.raises(InputError, match=r"a batch with 'targets'.*its keys are 'images'"):
        task.training_step({"images": _batch((1,))["images"]}, 0)
    with pytest.raises(InputError, match=r"class_names to be 2 names, but got 1"):
        Detector("timm/resnet10t", init="scratch", num_classes=2, class_names=["a"])
    with pytest.raises(InputError, match="Unknown rcnn setting 'heads'"):
        Detector("timm/resnet10t", init="scratch", num_classes=2, rcnn={"heads": "two_fc"})


@pytest.mark.parametrize(
    "name", ["fasterrcnn_resnet50_fpn", pytest.param("maskrcnn_resnet50_fpn", marks=pytest.mark.slow)]
)
def test_torchvision_weights_give_torchvision_detections(name):
    build = getattr(reference, name)
    theirs = build(weights=None, weights_backbone=None, num_classes=4, box_score_thresh=0.0).eval()
    theirs.transform.min_size, theirs.transform.max_size = (96,), 160
    ours = Detector.from_torchvision(theirs.state_dict(), name=name)
    assert ours.num_classes == 3
    ours.resize = (96, 160)
    ours.model.heads.score_thresh = 0.0
    image = torch.rand(3, 60, 80)
    with torch.inference_mode():
        want = theirs([image])[0]
    found = ours.predict_step([image])[0]
    assert len(found.boxes) == len(want["boxes"]) == 100
    # Scores of drawn weights lie so close that rounding decides the order of some, and with it which of two
    # overlapping boxes stays. An error in the arithmetic moves all boxes.
    near = (found.boxes[:, None] - want["boxes"][None]).abs().amax(-1) < 0.01  # (100, 100), in pixels
    near &= (found.scores[:, None] - want["scores"][None]).abs() < 1e-4
    near &= (found.labels + 1)[:, None] == want["labels"][None]
    assert near.any(0).sum() >= 95
    assert near.any(1).sum() >= 95
    if "masks" in want:
        ours_at, theirs_at = near.nonzero()[:, 0], near.nonzero()[:, 1]
        same = (found.masks[ours_at] == (want["masks"][theirs_at, 0] >= 0.5)).float().mean()
        assert same > 0.999


def test_other_torchvision_weights_are_refused():
    with pytest.raises(
        InputError, match=r"Unknown torchvision detector 'fasterrcnn_resnet50'\. Did you mean"
    ):
        Detector.from_torchvision({}, name="fasterrcnn_resnet50")
    with pytest.raises(InputError, match=r"no entry 'roi_heads\.box_predictor"):
        Detector.from_torchvision({}, name="fasterrcnn_resnet50_fpn")
