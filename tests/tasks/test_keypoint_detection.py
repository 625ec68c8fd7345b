"""A detector with a keypoint head: trained, scored in the original frame, saved, refused by name."""

from __future__ import annotations

import lightning
import numpy as np
import pytest
import torch

from tests.nn.detectors import TinySource, random_targets
from tests.tasks.small_tasks import small_task
from visionkit.config import TransferConfig
from visionkit.data.collate import list_batch
from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.data.truth import make_truth
from visionkit.errors import DataError, InputError
from visionkit.metrics import KeypointAP
from visionkit.task_config import RCNNConfig
from visionkit.tasks.detection.task import Detector

POINTS = ("left_ear", "right_ear", "nose", "back", "tail")
SKELETON = Skeleton(POINTS, ((0, 2), (1, 2), (2, 3), (3, 4)))
SMALL = {
    "head_width": 32, "proposals_train": 100, "proposals_eval": 50, "anchor_scales": (4.0,),
    "score_threshold": 0.0, "detections_per_img": 10, "keypoint_convs": 1, "keypoint_width": 8,
}  # fmt: skip


def _detector(keypoints=SKELETON, **settings) -> Detector:
    torch.manual_seed(0)
    rcnn = RCNNConfig(**{**SMALL, **settings.pop("rcnn", {})})
    return Detector(
        TinySource(), init="scratch", num_classes=2, rcnn=rcnn, pyramid_channels=16, keypoints=keypoints,
        class_names=("mouse", "rat"), transfer=TransferConfig(norm="group"), **settings,
    )  # fmt: skip


def _samples(counts=(2, 1, 0), size=64):
    generator = torch.Generator().manual_seed(1)
    for index, target in enumerate(random_targets(list(counts), size=size, classes=2)):
        target["masks"] = torch.zeros(len(target["boxes"]), size, size + 8 * index, dtype=torch.uint8)
        shape = (3, size, size + 8 * index)
        image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        yield {"image": image, "id": f"p{index}", **target}


def test_it_fits_scores_points_in_the_frame_of_the_file_and_reloads_with_its_skeleton(tmp_path):
    task = _detector()
    samples = list(_samples())
    for sample in samples:  # as if each image had been shrunk to half
        sample["size"] = tuple(2 * side for side in sample["image"].shape[-2:])
        points = sample["keypoints"].numpy() * [2, 2, 1]
        sample["truth"] = make_truth(
            (sample["boxes"] * 2).numpy(), sample["labels"].numpy(), keypoints=points
        )
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=tmp_path, enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=list_batch)  # the second is empty
    trainer.fit(task, loader, loader)
    assert task.loss_terms["loss_keypoint"] == 0
    logged = trainer.callback_metrics
    assert {
        "train/loss_keypoint",
        "val/map",
        "val/keypoint_map",
        "val/keypoint_map50",
        "val/keypoint_ar",
    } <= {*logged}
    metric = KeypointAP(5, num_classes=2)
    batch = list_batch(samples)
    found = task.predict_step(batch)
    metric.update([vars(each) for each in found], [sample["truth"] for sample in samples], batch["ids"])
    want = metric.compute_floats()
    assert float(logged["val/keypoint_map"]) == pytest.approx(want["map"])
    rows = task._gather_rows()
    assert {"hits", "keypoint_hits", "keypoint_object_image"} <= {*rows}
    assert rows["ids"].tolist() == rows["keypoint_ids"].tolist() == ["p0", "p1", "p2"]

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Detector.load_from_checkpoint(tmp_path / "last.ckpt", backbone=TinySource())
    assert again.skeleton == SKELETON
    for one, other in zip(found, again.predict_step(batch), strict=True):
        assert one.keypoints.shape == (len(one.boxes), 5, 2)
        assert one.keypoint_scores.shape == (len(one.boxes), 5)
        assert torch.equal(one.keypoints, other.keypoints)
        assert one.skeleton == SKELETON


def test_points_come_in_the_frame_of_the_original_image_and_move_with_a_resize():
    task = _detector()
    (sample, *_) = _samples((1,))
    batch = {"images": [sample["image"]], "targets": [{"size": (640, 320)}], "ids": ["p"]}
    given, original = task.predict_step([sample["image"]])[0], task.predict_step(batch)[0]
    scale = torch.tensor([5.0, 10.0])
    torch.testing.assert_close(original.keypoints, given.keypoints * scale, rtol=1e-5, atol=1e-3)
    # In training they are moved with the image that is resized on the device.
    task.resize = (128, 200)
    seen = []
    task.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    task.training_step(list_batch([sample]), 0)
    (moved,) = seen[0][2]
    torch.testing.assert_close(moved["keypoints"][..., :2], sample["keypoints"][..., :2] * 2)
    assert torch.equal(moved["keypoints"][..., 2], sample["keypoints"][..., 2])


def test_a_trainer_predicts_points_too():
    """It copies predictions, part by part."""
    task = _detector()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(list(_samples((1,))), batch_size=1, collate_fn=list_batch)
    ((found,),) = trainer.predict(task, loader)
    assert found.skeleton == SKELETON
    assert found.keypoints.shape == (10, 5, 2)


def test_masks_and_points_are_learnt_together_and_a_crowd_is_no_object():
    task = _detector(rcnn={"masks": True})
    assert task.object_fields == ("masks", "keypoints")
    (sample, *_) = _samples((2,))
    sample["iscrowd"] = torch.tensor([1, 0])
    loss = task.training_step(list_batch([sample]), 0)["loss"]
    assert {"loss_mask", "loss_keypoint"} <= set(task.loss_terms)
    assert loss.isfinite()
    (found,) = task.predict_step([sample["image"]])
    assert len(found.masks) == len(found.keypoints) == len(found.boxes) == 10


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (None, r"Expected keypoints \(1, 5, 3\) for the keypoint head, but got NoneType.*for keypoints"),
        (torch.zeros(1, 4, 3), r"Expected keypoints \(1, 5, 3\).*but got \(1, 4, 3\)"),
        (torch.zeros(1, 5, 3, dtype=torch.int64), "Expected keypoints in floating point"),
        (torch.full((1, 5, 3), float("nan")), "Expected finite coordinates"),
        (torch.full((1, 5, 3), -1.0), "Expected finite coordinates"),
        (torch.full((1, 5, 3), 3.0), r"Expected finite coordinates and a flag of 1 \(hidden\) or 2 .*flag 3"),
        (torch.full((1, 5, 3), 0.5), r"Expected finite coordinates and a flag of 1 \(hidden\) or 2"),
        (
            torch.tensor([[[1.0, 2, 2], [float("nan"), 2, 0], [float("nan"), 4, 1], [3, 4, 2], [5, 6, -1]]]),
            r"Expected .* but point 2 of object 0 is at \(nan, 4\) with flag 1\. Give it the flag 0",
        ),
    ],
)
def test_points_that_cannot_be_right_are_named_with_their_image(points, words):
    (sample, *_) = _samples((1,))
    if points is None:
        del sample["keypoints"]
    else:
        sample["keypoints"] = points
    with pytest.raises(DataError, match=f"p0, field 'keypoints': {words}"):
        _detector().training_step(list_batch([sample]), 0)


def test_no_object_and_no_labelled_point_cost_nothing():
    task = _detector()
    samples = list(_samples((0, 1)))
    samples[0]["keypoints"] = torch.zeros(0, 0, 3)
    samples[1]["keypoints"] = torch.full((1, 5, 3), float("nan"))
    samples[1]["keypoints"][..., 2] = 0
    task.training_step(list_batch(samples), 0)["loss"].backward()
    assert task.loss_terms["loss_keypoint"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(InputError, match=r"Keypoint R-CNN is detector='faster_rcnn'"):
        Detector("timm/test_resnet", init="scratch", num_classes=2, detector="fcos", keypoints=POINTS)
    with pytest.raises(InputError, match="leave tta_flip and tta_sizes out with a keypoint head"):
        _detector(tta_flip=True)
    with pytest.raises(InputError, match="with a mask head and a keypoint head"):
        _detector(rcnn={"masks": True}, tta_sizes=(64,))
    for wrong in ("nose", 5, {"names": ["nose"]}):
        with pytest.raises(InputError, match="Expected keypoints to be a Skeleton or the names of points"):
            _detector(keypoints=wrong)
    with pytest.raises(InputError, match="all different, but got 'nose'"):
        _detector(keypoints=["nose", "nose"])
    with pytest.raises(InputError, match=r"Expected no keypoints of fasterrcnn_resnet50_fpn"):
        _torchvision_settings("fasterrcnn_resnet50_fpn")


def _torchvision_settings(name):
    from torchvision.models import detection as reference

    from visionkit.tasks.detection.from_torchvision import read_detector

    with torch.device("meta"):
        state = getattr(reference, name)(weights=None, weights_backbone=None, num_classes=2).state_dict()
    return read_detector(state, name).settings(POINTS)


def test_a_head_is_taken_from_a_detector_of_the_same_points_alone(tmp_path):
    settings = {"rcnn": RCNNConfig(**SMALL), "keypoints": SKELETON}
    donor = small_task("Detector", **settings)
    donor.save_pretrained(tmp_path / "donor")
    begin = {"init": str(tmp_path / "donor"), "rcnn": RCNNConfig(**SMALL)}
    same = small_task("Detector", keypoints=POINTS, **begin)
    ours, theirs = (each.model.heads.keypoint_head.heatmaps.weight for each in (same, donor))
    assert torch.equal(ours, theirs)
    other = small_task("Detector", keypoints=POINTS[::-1], **begin)
    assert f"its keypoints are {', '.join(POINTS)}" in other.init_note
    plain = small_task("Detector", **begin)
    assert "its keypoints are left_ear" in plain.init_note


@pytest.mark.slow  # eight convolutions of 512 channels
def test_torchvision_weights_give_torchvision_losses_and_points(tmp_path):
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    torch.manual_seed(0)
    theirs = keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0, box_detections_per_img=10
    )
    theirs.transform.min_size, theirs.transform.max_size = (96,), 160
    ours = Detector.from_torchvision(theirs.state_dict(), name="keypointrcnn_resnet50_fpn")
    assert (ours.num_classes, ours.num_keypoints) == (1, 17)
    assert ours.skeleton.names[:3] == ("nose", "left_eye", "right_eye")
    ours.resize = (96, 160)
    ours.model.heads.score_thresh, ours.model.heads.detections_per_img = 0.0, 10
    image, boxes = torch.rand(3, 60, 80), torch.tensor([[5.0, 8.0, 40.0, 50.0], [30.0, 2.0, 77.0, 30.0]])
    points = torch.cat((torch.rand(2, 17, 2) * 40, torch.ones(2, 17, 1)), 2)

    theirs.train(), ours.train()
    theirs.backbone.eval(), ours.model.source.eval()  # the same running statistics on both sides
    torch.manual_seed(1)
    want = theirs([image], [{"boxes": boxes, "labels": torch.ones(2).long(), "keypoints": points}])
    torch.manual_seed(1)
    target = {"boxes": boxes, "labels": torch.zeros(2).long(), "keypoints": points}
    ours.training_step({"images": [image], "targets": [target]}, 0)
    assert ours.loss_terms["loss_keypoint"].item() == pytest.approx(want["loss_keypoint"].item(), rel=1e-5)

    with torch.inference_mode():
        want = theirs.eval()([image])[0]
    found = ours.predict_step([image])[0]
    near = (found.boxes[:, None] - want["boxes"][None]).abs().amax(-1) < 0.01  # (10, 10), in pixels
    assert near.any(0).sum() >= 9  # rounding may decide which of two overlapping boxes stays
    apart = (found.keypoints[:, None] - want["keypoints"][None, ..., :2]).abs().amax((-1, -2))[near]
    # The peaks of drawn weights lie so close that rounding may choose another one.
    assert np.quantile(apart.numpy(), 0.8) < 0.01


@pytest.mark.slow
def test_fewer_points_and_other_classes_replace_the_last_layers_alone():
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    state = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    task = Detector.from_torchvision(
        state, name="keypointrcnn_resnet50_fpn", keypoints=POINTS, num_classes=3, class_names=("a", "b", "c")
    )
    heads = task.model.heads
    assert heads.keypoint_head.heatmaps.weight.shape[1] == 5
    first = state["roi_heads.keypoint_head.0.weight"]
    assert torch.equal(heads.keypoint_head.convs[0][0].weight, first)
    assert torch.equal(heads.box_head.layers[1].weight, state["roi_heads.box_head.fc7.weight"])
