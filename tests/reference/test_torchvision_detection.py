"""With the same random weights our detectors and torchvision's give the same losses and detections."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import detection as reference
from torchvision.models.detection import keypoint_rcnn

from tests.nn.detectors import random_targets
from visionkit.backbones.level import Level
from visionkit.nn.detection.faster_rcnn import FasterRCNN
from visionkit.nn.detection.fcos import FCOS
from visionkit.nn.detection.retinanet import RetinaNet
from visionkit.nn.detection.torchvision_state_dict import (
    dense_from_torchvision_names,
    from_torchvision_names,
)
from visionkit.nn.fpn import PyramidSource
from visionkit.task_config import FCOSConfig, RCNNConfig, RetinaNetConfig

LOSSES = {
    "loss_classifier": "loss_class",
    "loss_box_reg": "loss_box",
    "loss_objectness": "loss_objectness",
    "loss_rpn_box_reg": "loss_proposal",
    "loss_mask": "loss_mask",
    "loss_keypoint": "loss_keypoint",
}
BOX_FIELDS = {"boxes", "scores", "labels"}
V2 = {"head": "four_conv", "rpn_convs": 2}
CASES: list[tuple[Callable[..., nn.Module], dict, bool]] = [
    (reference.fasterrcnn_resnet50_fpn, {}, False),
    (reference.fasterrcnn_resnet50_fpn_v2, V2, True),
    (reference.maskrcnn_resnet50_fpn, {"masks": True}, False),
    (reference.keypointrcnn_resnet50_fpn, {"keypoint_width": 32}, False),
]


class _Body(nn.Module):
    """torchvision's own ResNet body as a feature source."""

    def __init__(self, body: nn.Module, *, first: int = 0) -> None:
        super().__init__()
        self.body = body
        self.levels = tuple(Level(256 * 2**i, 4 * 2**i) for i in range(first, 4))

    def forward(self, images):
        return tuple(self.body(images).values())


def _pair(build, config: dict, normed: bool) -> tuple[nn.Module, FasterRCNN]:
    torch.manual_seed(0)
    options = {"rpn_pre_nms_top_n_train": 300, "rpn_post_nms_top_n_train": 300}
    options |= {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 200, "box_score_thresh": 0.0}
    options["box_detections_per_img"] = 30  # masks and points of each cost most
    theirs = build(weights=None, weights_backbone=None, num_classes=6, **options)
    if "keypoint_width" in config:  # with torchvision's 512 channels this takes 45 s
        heads = theirs.roi_heads
        heads.keypoint_head = keypoint_rcnn.KeypointRCNNHeads(256, [config["keypoint_width"]] * 8)
        heads.keypoint_predictor = keypoint_rcnn.KeypointRCNNPredictor(config["keypoint_width"], 17)
    norm = nn.BatchNorm2d if normed else None
    source = PyramidSource(_Body(theirs.backbone.body), norm=norm, extra="pool")
    settings = RCNNConfig(
        **config, anchor_spacing="grid", proposals_train=300, proposals_eval=200, score_threshold=0.0,
        detections_per_img=30,
    )  # fmt: skip
    points = 17 if "keypoint_width" in config else 0
    ours = FasterRCNN(source, num_classes=5, config=settings, norm=norm, num_keypoints=points)
    state = from_torchvision_names(theirs.state_dict())
    rest = {k: v for k, v in state.items() if not k.startswith("body.")}
    missing = ours.load_state_dict(rest, strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("source.source.") for key in missing.missing_keys)
    return theirs, ours


@pytest.mark.parametrize(
    ("build", "config", "normed"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (case[0].__name__ == "fasterrcnn_resnet50_fpn_v2"))
        for case in CASES
    ],
    ids=[case[0].__name__ for case in CASES],
)
def test_losses_and_detections_are_equal(build, config, normed):
    theirs, ours = _pair(build, config, normed)
    images = [torch.rand(3, 128, 160), torch.rand(3, 120, 128)]
    theirs.transform.min_size, theirs.transform.max_size = (96,), 160
    targets = random_targets([3, 0], size=120, classes=5)
    for target, image in zip(targets, images):
        height, width = image.shape[-2:]
        masks = torch.zeros(len(target["masks"]), height, width, dtype=torch.uint8)
        masks[:, :120, :120] = target["masks"]
        target["masks"] = masks
        spread = torch.rand(len(masks), 17, 2) * 1.2 - 0.1  # some outside their box
        corner, opposite = target["boxes"].split(2, dim=1)
        flags = torch.randint(3, (len(masks), 17, 1)).float()
        target["keypoints"] = torch.cat((corner[:, None] + spread * (opposite - corner)[:, None], flags), 2)
    shifted = [{**t, "labels": t["labels"] + 1} for t in targets]
    batch, resized = theirs.transform(images, shifted)
    features = theirs.backbone(batch.tensors)

    torch.manual_seed(1)
    proposals, first = theirs.rpn(batch, features, resized)
    _, second = theirs.roi_heads(features, proposals, batch.image_sizes, resized)
    torch.manual_seed(1)
    back = [{**t, "labels": t["labels"] - 1} for t in resized]
    _, losses = ours(batch.tensors, batch.image_sizes, back)
    want = {LOSSES[name]: value for name, value in {**first, **second}.items()}
    assert set(losses) == set(want)
    for name, value in want.items():
        assert losses[name].item() == pytest.approx(value.item(), abs=1e-5), name

    theirs.eval(), ours.eval()
    with torch.inference_mode():
        features = theirs.backbone(batch.tensors)
        proposals, _ = theirs.rpn(batch, features)
        expected, _ = theirs.roi_heads(features, proposals, batch.image_sizes)
        found, none = ours(batch.tensors, batch.image_sizes)
    assert not none
    for one, other in zip(found, expected, strict=True):
        assert len(one["boxes"]) == 30
        assert torch.equal(one["labels"] + 1, other["labels"])
        other["keypoint_scores"] = other.pop("keypoints_scores", None)
        if "keypoints" in other:
            other["keypoints"] = other["keypoints"][..., :2]
        further = [name for name in ("masks", "keypoints", "keypoint_scores") if name in one]
        assert set(further) == {name for name, value in other.items() if value is not None} - BOX_FIELDS
        for name in ("boxes", "scores", *further):
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=0)


DENSE: list[tuple[Callable[..., nn.Module], type[nn.Module], object, str]] = [
    (
        reference.retinanet_resnet50_fpn,
        RetinaNet,
        RetinaNetConfig(anchor_spacing="grid", score_threshold=0.0, topk_candidates=100),
        "p6p7_of_p5",
    ),
    (
        reference.retinanet_resnet50_fpn_v2,
        RetinaNet,
        RetinaNetConfig(
            anchor_spacing="grid", score_threshold=0.0, topk_candidates=100, norm="group", box_loss="giou"
        ),
        "p6p7",
    ),
    (
        reference.fcos_resnet50_fpn,
        FCOS,
        FCOSConfig(anchor_spacing="grid", score_threshold=0.0, topk_candidates=100),
        "p6p7_of_p5",
    ),
]
DENSE_LOSSES = {
    "classification": "loss_class",
    "bbox_regression": "loss_box",
    "bbox_ctrness": "loss_centerness",
}


def _spread(model: nn.Module) -> None:
    """Draw the last layers wider: at the beginning all scores are nearly equal, and the order is chance."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_ctrness.weight")):
                parameter.normal_(std=0.1)
            elif name.endswith("cls_logits.bias"):
                parameter.normal_(mean=-3.0)
            elif ".conv." in name and name.endswith("weight") and parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter)


@pytest.mark.parametrize(("build", "kind", "config", "extra"), DENSE, ids=[c[0].__name__ for c in DENSE])
def test_losses_and_detections_of_one_stage_are_equal(build, kind, config, extra):
    torch.manual_seed(0)
    options = {"score_thresh": 0.0, "topk_candidates": 100}
    theirs = build(weights=None, weights_backbone=None, num_classes=5, **options)
    _spread(theirs)
    source = PyramidSource(_Body(theirs.backbone.body, first=1), extra=extra)
    ours = kind(source, num_classes=5, config=config)
    state = dense_from_torchvision_names(theirs.state_dict())
    missing = ours.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("body.")}, strict=False
    )
    assert not missing.unexpected_keys
    assert all(key.startswith("source.source.") for key in missing.missing_keys)

    images = [torch.rand(3, 128, 160), torch.rand(3, 120, 128), torch.rand(3, 128, 128)]
    theirs.transform.min_size, theirs.transform.max_size = (64,), 96
    targets = random_targets([6, 0, 3], size=120, classes=5)
    batch, resized = theirs.transform(images, [{k: t[k] for k in ("boxes", "labels")} for t in targets])
    features = list(theirs.backbone(batch.tensors).values())
    heads, anchors = theirs.head(features), theirs.anchor_generator(batch, features)
    counts = [f.shape[-2] * f.shape[-1] for f in features]
    want = theirs.compute_loss(resized, heads, anchors, *([counts] if kind is FCOS else []))
    _, losses = ours(batch.tensors, batch.image_sizes, resized)
    assert set(losses) == {DENSE_LOSSES[name] for name in want}
    for name, value in want.items():
        assert value > 0.01
        assert losses[DENSE_LOSSES[name]].item() == pytest.approx(value.item(), rel=1e-5), name

    theirs.eval(), ours.eval()
    with torch.inference_mode():
        found, none = ours(batch.tensors, batch.image_sizes)
        theirs.transform.postprocess = lambda result, *_: result  # in the frame of the network
        theirs.transform.forward = lambda *_: (batch, None)
        expected = theirs(images)
    assert not none
    for one, other in zip(found, expected, strict=True):
        assert len(one["boxes"]) == len(other["boxes"]) > 50
        assert torch.equal(one["labels"], other["labels"])
        for name in ("boxes", "scores"):
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=0)


def test_files_of_older_releases_have_the_layers_of_a_retinanet_in_a_row():
    with torch.device("meta"):  # names only
        model = reference.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    new, old = model.state_dict(), {}
    for name, value in new.items():
        parts = name.split(".")
        if "_head.conv." in name:
            parts[3:5] = [str(2 * int(parts[3]))]
        old[".".join(parts)] = value
    assert "head.regression_head.conv.6.bias" in old
    assert dense_from_torchvision_names(old).keys() == dense_from_torchvision_names(new).keys()
