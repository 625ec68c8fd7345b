"""Faster R-CNN: losses, gradients, refusals, anchors and options over a small source."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import generalized_box_iou_loss

from tests.nn.detectors import TinySource, random_targets
from visionkit.backbones.level import Level
from visionkit.errors import InputError
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.faster_rcnn import FasterRCNN
from visionkit.nn.detection.roi_heads import RegionLinear, box_loss
from visionkit.nn.fpn import PyramidSource
from visionkit.task_config import RCNNConfig

SMALL = {
    "head_width": 32, "proposals_train": 100, "proposals_eval": 50, "anchor_scales": (4.0,),
    "keypoint_convs": 2, "keypoint_width": 8,
}  # fmt: skip


def _detector(norm=None, *, num_keypoints=0, **options) -> FasterRCNN:
    torch.manual_seed(0)
    source = PyramidSource(TinySource(), channels=16, norm=norm, extra="pool")
    return FasterRCNN(
        source, num_classes=3, config=RCNNConfig(**SMALL, **options), norm=norm, region_levels=3,
        num_keypoints=num_keypoints,
    )  # fmt: skip


def _group(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


@pytest.mark.parametrize(
    ("norm", "options"),
    [
        (None, {}),
        (_group, {"head": "four_conv", "class_agnostic": True, "box_loss": "giou", "masks": True}),
        (_group, {"num_keypoints": 5}),
        (
            nn.BatchNorm2d,
            {"head": "four_conv", "box_loss": "l1", "rpn_convs": 2, "masks": True, "num_keypoints": 5},
        ),
    ],
)
@pytest.mark.parametrize("counts", [[3, 2], [0, 1], [0, 0]])
def test_every_parameter_gets_a_finite_gradient_with_or_without_objects(norm, options, counts):
    model = _detector(norm, **options)
    targets = random_targets(counts, size=64, classes=3)
    _, losses = model(torch.rand(2, 3, 64, 64), [(64, 64), (60, 50)], targets)
    names = {"loss_objectness", "loss_proposal", "loss_class", "loss_box"}
    names |= {"loss_mask"} if options.get("masks") else set()
    names |= {"loss_keypoint"} if options.get("num_keypoints") else set()
    assert set(losses) == names
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert len(gradients) > 20
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    if not sum(counts):
        assert losses["loss_box"] == losses["loss_proposal"] == losses.get("loss_mask", 0) == 0
        assert losses.get("loss_keypoint", 0) == 0


def test_a_few_steps_find_the_object():
    model = _detector(_group, class_agnostic=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    target = {"boxes": torch.tensor([[16.0, 16.0, 40.0, 40.0]]), "labels": torch.tensor([2])}
    image = torch.zeros(1, 3, 64, 64)
    image[..., 16:40, 16:40] = 1.0
    for _ in range(150):
        _, losses = model(image, [(64, 64)], [target])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        result, losses = model(image, [(64, 64)])
    assert losses == {}
    assert result[0]["labels"][0] == 2
    assert result[0]["scores"][0] > 0.5
    assert (result[0]["boxes"][0] - target["boxes"][0]).abs().max() < 6


def test_detections_lie_in_the_image_and_are_sorted_and_masks_are_small():
    model = _detector(masks=True, score_threshold=0.0).eval()
    with torch.inference_mode():
        result, _ = model(torch.rand(2, 3, 64, 64), [(64, 64), (40, 33)])
    assert len(result) == 2
    for each, (height, width) in zip(result, [(64, 64), (40, 33)]):
        boxes = each["boxes"]
        assert 0 < len(boxes) <= 100
        assert boxes.min() >= 0
        assert boxes[:, 0::2].max() <= width
        assert boxes[:, 1::2].max() <= height
        assert (each["scores"].diff() <= 0).all()
        assert set(each["labels"].tolist()) <= {0, 1, 2}
        assert each["masks"].shape == (len(boxes), 1, 28, 28)


def test_no_detection_gives_empty_tensors():
    model = _detector(masks=True, num_keypoints=5, score_threshold=1.0).eval()
    with torch.inference_mode():
        result, _ = model(torch.rand(1, 3, 32, 32), [(32, 32)])
    assert {name: tuple(v.shape) for name, v in result[0].items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
        "masks": (0, 1, 28, 28),
        "keypoints": (0, 5, 2),
        "keypoint_scores": (0, 5),
    }


def test_a_few_steps_find_the_points_of_the_object_and_only_labelled_ones_count():
    model = _detector(_group, num_keypoints=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    points = torch.tensor([[[17.0, 17.0, 2.0], [39.0, 39.0, 1.0], [30.0, 1000.0, 0.0]]])
    target = {"boxes": torch.tensor([[16.0, 16.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    image = torch.zeros(1, 3, 64, 64)
    image[..., 16:40, 16:40] = 1.0
    for _ in range(100):
        _, losses = model(image, [(64, 64)], [{**target, "keypoints": points}])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.inference_mode():
        best = model.eval()(image, [(64, 64)])[0][0]
        assert (best["keypoints"][0, :2] - points[0, :2, :2]).abs().max() < 4
        assert best["keypoint_scores"].shape == (len(best["boxes"]), 3)
        _, losses = model.train()(image, [(64, 64)], [{**target, "keypoints": points * 0}])
    assert losses["loss_keypoint"] == 0


def test_bfloat16_keeps_boxes_and_losses_in_32_bits():
    model = _detector(score_threshold=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, losses = model(torch.rand(1, 3, 64, 64), [(64, 64)], random_targets([2], size=64, classes=3))
        result, _ = model.eval()(torch.rand(1, 3, 64, 64), [(64, 64)])
    assert {v.dtype for v in losses.values()} == {torch.float32}
    assert result[0]["boxes"].dtype == torch.float32


def test_generalised_iou_of_offsets_is_that_of_the_boxes():
    generator = torch.Generator().manual_seed(0)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    proposals = random_targets([20], size=100, classes=2)[0]["boxes"]
    ours, theirs = torch.randn(2, 20, 4, generator=generator)
    want = generalized_box_iou_loss(
        coder.decode_single(ours, proposals), coder.decode_single(theirs, proposals), reduction="sum"
    )
    assert box_loss("giou", ours, theirs, coder=coder).item() == pytest.approx(10 * want.item(), rel=1e-4)


def test_regions_meet_the_weight_in_the_layout_of_either_without_a_copy():
    layer = RegionLinear(6, 7, 5)
    regions = torch.randn(4, 6, 7, 7, requires_grad=True)
    expected = nn.functional.conv2d(regions, layer.weight, layer.bias).flatten(1)
    expected_grads = torch.autograd.grad(expected.square().sum(), [regions, *layer.parameters()])
    for layout in (torch.contiguous_format, torch.channels_last):
        layer.to(memory_format=layout)
        given = regions.detach().contiguous(memory_format=layout).requires_grad_()
        result = layer(given)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
        for one, other in zip(
            torch.autograd.grad(result.square().sum(), [given, *layer.parameters()]),
            expected_grads,
            strict=True,
        ):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        with torch.profiler.profile() as profile:
            layer(given)
        assert "aten::clone" not in [event.name for event in profile.events()]


def test_anchors_follow_the_reductions_and_stay_32_bit():
    anchors = LevelAnchors([Level(8, 4), Level(8, 8)], scales=(2.0, 4.0), ratios=(1.0,))
    assert anchors.per_position == 2
    images = ImageList(torch.zeros(2, 3, 24, 40), [(24, 40), (20, 30)])
    maps = [torch.zeros(2, 8, 6, 10, dtype=torch.bfloat16), torch.zeros(2, 8, 3, 5, dtype=torch.bfloat16)]
    made = anchors(images, maps)
    assert made[0] is made[1]
    assert made[0].dtype == torch.float32
    assert len(made[0]) == 2 * (60 + 15)
    assert made[0][0].tolist() == [-4, -4, 4, 4]
    assert made[0][2].tolist() == [0, -4, 8, 4]
    assert made[0][120 + 3].tolist() == [8 - 16, -16, 8 + 16, 16]
    assert anchors(images, maps)[0] is made[0]


def test_refusals_say_what_to_do():
    with pytest.raises(InputError, match=r"equal channels, but got \[8, 12, 16\]. Put a pyramid"):
        FasterRCNN(TinySource(), num_classes=3)
    source = PyramidSource(TinySource(), channels=8)
    with pytest.raises(InputError, match="num_classes to be at least 1, but got 0"):
        FasterRCNN(source, num_classes=0)
    with pytest.raises(InputError, match=r"Unknown box head 'two_fx'\. Did you mean 'two_fc'"):
        FasterRCNN(source, num_classes=1, config=RCNNConfig(head="two_fx"))
    with pytest.raises(InputError, match=r"Unknown box loss 'l2'\. Did you mean 'l1'"):
        FasterRCNN(source, num_classes=1, config=RCNNConfig(box_loss="l2"))
    with pytest.raises(InputError, match="Expected targets in training"):
        FasterRCNN(source, num_classes=1)(torch.rand(1, 3, 32, 32), [(32, 32)])
    with pytest.raises(InputError, match="anchor scales and ratios above 0"):
        LevelAnchors([Level(8, 4)], scales=())
