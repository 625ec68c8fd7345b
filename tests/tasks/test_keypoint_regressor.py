"""The keypoint regressor: points in the frames of the originals, both heads, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from task_cases import HIPS, MORE_TASKS, POINTS, dots
from task_inputs import FLAT, loader, trainer

from visionkit.backbones import Level
from visionkit.config import TransferConfig
from visionkit.data import DataModule, Skeleton, keypoint_batch, keypoint_eval
from visionkit.data.transforms.keypoints import fit_region
from visionkit.errors import DataError, InputError
from visionkit.metrics import KeypointAP
from visionkit.task_config import DeepPoseConfig, HeatmapConfig
from visionkit.tasks import KeypointPrediction, KeypointRegressor

TINY = DeepPoseConfig(stages=1, cells=1, width=8, channels=8, stage_width=8)


def regressor(**more):
    torch.manual_seed(0)
    shared = {"skeleton": HIPS, "image_size": 32, "optim": FLAT}
    head = {} if "head" in more else {"deeppose": TINY}
    return KeypointRegressor("timm/test_resnet", init="scratch", **{**shared, **head, **more})


@pytest.mark.parametrize(
    "build",
    [lambda: regressor(), lambda: regressor(head="heatmap", heatmap=HeatmapConfig(channels=8))],
    ids=["deeppose", "heatmap"],
)
def test_a_batch_without_a_labelled_point_is_not_nan(build):
    task, batch = build(), dots(0, 4)
    batch["keypoints"][..., 2] = 0
    batch["keypoints"][0, 0, :2] = float("nan")
    loss = task.training_step(batch, 0)["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(bool((p.grad == 0).all()) for p in task.parameters())
    values = trainer().validate(task, loader(batch), verbose=False)[0]
    assert np.isnan(values["val/pck"])
    assert all(np.isnan(value) for value in values.values())


def test_heat_maps_learn_and_their_average_precision_is_that_of_the_metric():
    case = next(case for case in MORE_TASKS if case.name.endswith("heatmap"))
    torch.manual_seed(0)
    task, batch = case.build("scratch", TransferConfig(), FLAT), dots(0, 6)
    run = trainer(max_steps=60, max_epochs=-1)
    before = float(task.training_step(batch, 0)["loss"].detach())
    run.fit(task, loader(batch))
    assert float(task.training_step(batch, 0)["loss"].detach()) < 0.5 * before
    values = run.validate(task, loader(batch, dots(6, 3)), verbose=False)[0]
    metric = KeypointAP(3)
    for each in (batch, dots(6, 3)):
        for prediction, points in zip(task.predict_step(each), each["keypoints"], strict=True):
            known = points[points[:, 2] > 0, :2]
            box = torch.cat((known.amin(0), known.amax(0)))[None]
            metric.update(
                [{"keypoints": prediction.points[None], "scores": prediction.scores.mean()[None],
                  "labels": torch.zeros(1)}],
                [{"keypoints": points[None], "boxes": box, "labels": torch.zeros(1)}],
                [prediction.id],
            )  # fmt: skip
    found = metric.compute_floats()
    for ours, theirs in (("oks_ap", "map"), ("oks_ap50", "map50"), ("oks_ap75", "map75")):
        assert values[f"val/{ours}"] == pytest.approx(found[theirs])
    assert set(values) == {f"val/{name}" for name in case.logged}


def test_objects_without_a_size_are_counted_and_said():
    batch, names = dots(0, 4), ["left_shoulder", "right_hip", "head"]
    task, run = regressor(skeleton=names), trainer()
    batch["keypoints"][2] *= torch.tensor([1.0, 1, 0])  # nothing is labelled: nothing is left out of a score
    whole = run.validate(task, loader(batch), verbose=False)[0]
    assert "val/unsized" not in whole
    batch["keypoints"][0, 1, 2] = 0
    with pytest.warns(UserWarning, match=r"nor in nme: 1: an end of their torso.*--pck.size box"):
        values = run.validate(task, loader(batch), verbose=False)[0]
    assert values["val/unsized"] == 1
    assert values.keys() - whole.keys() == {"val/unsized"}
    by_box = run.validate(regressor(skeleton=names, pck_size="box"), loader(batch), verbose=False)[0]
    assert "val/unsized" not in by_box


class Knows(nn.Module):
    """A backbone for a head that knows the answer."""

    levels = (Level(4, 4), Level(4, 8))

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        maps = self.conv(images)
        return maps[..., ::4, ::4], maps[..., ::8, ::8]


class Reader:
    """Objects at the border of images and inside, of a shape unlike the crop's."""

    classes = ("thing",)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        low = torch.tensor([-2.0 + 9 * index, 5.0 + index])
        points = low + torch.tensor([[2.0, 3.0], [10.0, 1.0], [5.0, 20.0]])
        box = torch.cat((low, low + torch.tensor([12.0, 22.0])))[None]
        keypoints = torch.cat((points, torch.full((3, 1), 2.0)), dim=1)[None]
        return {
            "image": torch.full((3, 40, 50), 20 * index, dtype=torch.uint8), "id": f"{index}",
            "boxes": box, "labels": torch.zeros(1, dtype=torch.int64), "keypoints": keypoints,
        }  # fmt: skip


def test_a_right_answer_in_the_crop_is_right_in_the_original(monkeypatch):
    task = KeypointRegressor(Knows(), init="scratch", skeleton=HIPS, image_size=(48, 32), deeppose=TINY)
    transform, reader = keypoint_eval((48, 32)), Reader()
    samples = [transform(reader[index], torch.Generator()) for index in range(4)]
    batch = keypoint_batch(samples)
    right = batch["keypoints"][..., :2] / torch.tensor([32.0, 48.0])
    # A point that the crop does not show is scored all the same: its place there is not known.
    shown = batch["keypoints"][..., 2] > 0
    assert shown.all()
    monkeypatch.setattr(task, "_points", lambda images: (right, None))
    values = trainer().validate(task, loader(batch), verbose=False)[0]
    assert values["val/pck"] == values["val/pcp"] == 1
    assert values["val/nme"] < 1e-5
    found = task.predict_step(batch)
    assert [each.id for each in found] == ["0", "1", "2", "3"]
    for index, each in enumerate(found):
        assert torch.allclose(each.points, reader[index]["keypoints"][0, :, :2], atol=1e-4)
        assert (each.names, each.edges, each.scores) == (POINTS, ((0, 1),), None)
    plain = task.predict_step({"images": batch["images"]})  # without regions: in pixels of the images
    expected = batch["keypoints"][..., :2]
    assert torch.allclose(torch.stack([each.points for each in plain]), expected, atol=1e-4)


def test_boxes_of_an_image_are_predicted_as_crops_of_it():
    task = regressor().eval()
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[10.0, 10, 40, 50], [-5, 0, 90, 60]])
    found = task.predict_boxes(image, boxes)
    assert len(found) == 2
    for box, one in zip(boxes, found, strict=True):
        sample = {"image": image, "boxes": box[None], "labels": torch.zeros(1, dtype=torch.int64)}
        crop = keypoint_eval(32)(sample, torch.Generator())
        (alone,) = task.predict_step({"images": crop["image"][None]})
        region = fit_region(box, (32, 32), padding=1.25).float()
        mapped = region[:2] + alone.points / 32 * (region[2:] - region[:2])
        assert torch.allclose(one.points, mapped, atol=1e-3)
    assert task.predict_boxes(image, torch.zeros(0, 4)) == []
    assert task.predict_boxes(image, []) == []
    assert len(task.predict_boxes(image.permute(1, 2, 0).numpy(), boxes[:1].tolist())) == 1
    for bad, words in (
        ([[5.0, 5, 5, 9]], "with an area"), ([[0, 0, float("nan"), 9]], "finite"), ([1.0, 2], "xyxy"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            task.predict_boxes(image, bad)
    with pytest.raises(InputError, match="padding"):
        task.predict_boxes(image, boxes, padding=0)
    with pytest.raises(InputError, match="image_size="):
        regressor(image_size=None).predict_boxes(image, boxes)


def test_the_skeleton_travels_in_the_checkpoint(tmp_path):
    task, run = regressor(), trainer()
    run.strategy.connect(task)
    run.save_checkpoint(tmp_path / "task.ckpt")
    again = KeypointRegressor.load_from_checkpoint(tmp_path / "task.ckpt")
    assert again.skeleton == task.skeleton == Skeleton(POINTS, ((0, 1),))
    assert again.skeleton.flip == (1, 0, 2)
    assert again.class_names == POINTS
    assert again.config == TINY
    named = regressor(skeleton=["a", "b"])
    assert named.skeleton == Skeleton(("a", "b"))
    assert "pcp" not in named.scores.names


def test_settings_that_do_not_fit_are_refused():
    for more, words in (
        ({"head": "heatmap", "deeppose": TINY}, "settings of head='deeppose'"),
        ({"head": "boxes"}, "heatmap"),
        ({"skeleton": "nose"}, "list of names"),
        ({"skeleton": ["a", "a"]}, "all different"),
        ({"skeleton": {"names": ["a"], "edges": [[0, 1]]}}, "edge"),
        ({"deeppose": {"stage": 1}}, "stage"),
        ({"deeppose": {"crop": 2.0}}, "crop"),
        ({"pck_size": "torso"}, "left_shoulder"),
        ({"lr": -1.0}, "lr"),
    ):
        with pytest.raises(InputError, match=words):
            regressor(**more)
    with pytest.raises(InputError, match="has no maps"):
        _no_maps()


def _no_maps():
    from visionkit.tasks.backbones import BackboneBuilder

    builder = BackboneBuilder.__new__(BackboneBuilder)
    builder._name, builder._reductions = "x/flat", lambda name: []
    return builder.keypoint_maps(4)


def test_points_that_cannot_be_right_are_refused_with_their_images():
    task, batch = regressor(), dots(0, 3)
    points = batch["keypoints"].clone()
    points[1, 0, 0] = float("nan")
    with pytest.raises(DataError, match="1 images: image 1"):
        task.training_step({**batch, "keypoints": points}, 0)
    for flag in (3.0, 0.5, -1.0):  # the flags of COCO are 0, 1 and 2, in files and in batches
        flagged = batch["keypoints"].clone()
        flagged[2, 1, 2] = flag
        with pytest.raises(DataError, match=r"1 \(hidden\) or 2 \(visible\).*1 images: image 2"):
            task.training_step({**batch, "keypoints": flagged}, 0)
    for bad, words in (
        (points[:, :2], r"\(B, 3, 3\)"), (points[:2], "one for each of 3"), ("no", "a tensor"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            task.training_step({**batch, "keypoints": bad}, 0)
    for shape in (batch["keypoints"][:, None], batch["keypoints"].tolist()):
        assert torch.isfinite(task.training_step({**batch, "keypoints": shape}, 0)["loss"])
    labelled = batch["keypoints"].clone()
    labelled[..., 2] = 2
    torch.manual_seed(0)
    flags = task.training_step({**batch, "keypoints": labelled}, 0)["loss"]
    torch.manual_seed(0)
    assert torch.equal(task.training_step({**batch, "keypoints": labelled[..., :2]}, 0)["loss"], flags)
    with pytest.raises(InputError, match="regions"):
        task.predict_step({**batch, "regions": torch.zeros(2, 4)})
    two = {"boxes": np.zeros((2, 4)), "labels": np.zeros(2), "keypoints": np.zeros((2, 3, 3))}
    with pytest.raises(InputError, match="per_object"):
        task.validation_step({**batch, "truths": [two] * 3}, 0)


@pytest.mark.parametrize("head", ["deeppose", "heatmap"])
def test_the_points_of_a_mirrored_image_are_averaged_with_its_own(head):
    given = {"head": "heatmap", "heatmap": HeatmapConfig(channels=8)} if head == "heatmap" else {}
    plain, views = (regressor(**given, tta_flip=flip).eval() for flip in (False, True))
    images = dots(0, 3)["images"]
    both = [plain.predict_step(shown) for shown in (images, images.flip(-1))]
    for own, mirrored, one in zip(*both, views.predict_step(images), strict=True):
        back = mirrored.points[[1, 0, 2]] * torch.tensor([-1.0, 1]) + torch.tensor([32.0, 0])
        assert torch.allclose(one.points, (own.points + back) / 2, atol=1e-4)
        if head == "heatmap":
            assert torch.allclose(one.scores, (own.scores + mirrored.scores[[1, 0, 2]]) / 2, atol=1e-6)
    # What is seen twice is the same for an image and its mirror, but for the side and the names.
    for one, other in zip(views.predict_step(images), views.predict_step(images.flip(-1)), strict=True):
        back = other.points[[1, 0, 2]] * torch.tensor([-1.0, 1]) + torch.tensor([32.0, 0])
        assert torch.allclose(one.points, back, atol=1e-4)
    assert views.hparams["tta_flip"] is True
    with pytest.raises(InputError, match="but of left_hip there is no other side"):
        regressor(skeleton=["left_hip", "head"], tta_flip=True)


def test_distances_are_measured_once_a_batch(monkeypatch):
    task, seen = regressor(), []
    measure = type(task.scores)._measure
    monkeypatch.setattr(
        type(task.scores), "_measure", lambda self, *given: seen.append(1) or measure(self, *given)
    )
    task.save_image_rows = True
    trainer().validate(task, loader(dots(0, 4), dots(4, 3)), verbose=False)
    assert len(seen) == 2
    assert len(task.image_rows["sum.pck"]) == 7


def test_a_prediction_is_plain():
    (one, _) = regressor().predict_step(dots(0, 2))
    assert isinstance(one, KeypointPrediction)
    assert one.points.shape == (3, 2)
    assert one.points.dtype == torch.float32
    assert not one.points.requires_grad
    heat = regressor(head="heatmap", heatmap=HeatmapConfig(channels=8)).predict_step(dots(0, 1))[0]
    assert heat.scores.shape == (3,)
    assert bool(((heat.scores > 0) & (heat.scores <= 1)).all())


def test_data_modules_of_keypoints_feed_it():
    from visionkit.data.splits import Splits

    splits = Splits(Reader(), Reader(), None, ("thing",), "things")
    module = DataModule(
        splits, batch_size=2, train_transform=keypoint_eval(32), eval_transform=keypoint_eval(32),
        collate=keypoint_batch, seed=0,
    )  # fmt: skip
    run = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.fit(regressor(), datamodule=module)
    assert 0 <= float(run.callback_metrics["val/pck"]) <= 1
