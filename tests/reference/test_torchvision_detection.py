"""With the same random weights our detectors and torchvision's give the same losses and detections."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import detection as reference

from tests.nn.detectors import random_targets
from visionkit.backbones.level import Level
from visionkit.nn.detection.faster_rcnn import FasterRCNN
from visionkit.nn.detection.torchvision_state_dict import from_torchvision_names
from visionkit.nn.fpn import PyramidSource
from visionkit.task_config import RCNNConfig

LOSSES = {
    "loss_classifier": "loss_class",
    "loss_box_reg": "loss_box",
    "loss_objectness": "loss_objectness",
    "loss_rpn_box_reg": "loss_proposal",
    "loss_mask": "loss_mask",
}
V2 = {"head": "four_conv", "rpn_convs": 2}
CASES: list[tuple[Callable[..., nn.Module], dict, bool]] = [
    (reference.fasterrcnn_resnet50_fpn, {}, False),
    (reference.fasterrcnn_resnet50_fpn_v2, V2, True),
    (reference.maskrcnn_resnet50_fpn, {"masks": True}, False),
]


class _Body(nn.Module):
    """torchvision's own ResNet body as a feature source."""

    levels = tuple(Level(256 * 2**i, 4 * 2**i) for i in range(4))

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images):
        return tuple(self.body(images).values())


def _pair(build, config: dict, normed: bool) -> tuple[nn.Module, FasterRCNN]:
    torch.manual_seed(0)
    options = {"rpn_pre_nms_top_n_train": 300, "rpn_post_nms_top_n_train": 300}
    options |= {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 200, "box_score_thresh": 0.0}
    theirs = build(weights=None, weights_backbone=None, num_classes=6, **options)
    norm = nn.BatchNorm2d if normed else None
    source = PyramidSource(_Body(theirs.backbone.body), norm=norm, extra="pool")
    settings = RCNNConfig(
        **config, anchor_spacing="grid", proposals_train=300, proposals_eval=200, score_threshold=0.0
    )
    ours = FasterRCNN(source, num_classes=5, config=settings, norm=norm)
    state = from_torchvision_names(theirs.state_dict())
    rest = {k: v for k, v in state.items() if not k.startswith("body.")}
    missing = ours.load_state_dict(rest, strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("source.source.") for key in missing.missing_keys)
    return theirs, ours


@pytest.mark.parametrize(("build", "config", "normed"), CASES, ids=[case[0].__name__ for case in CASES])
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
        assert len(one["boxes"]) == 100
        assert torch.equal(one["labels"] + 1, other["labels"])
        for name in ("boxes", "scores", *(["masks"] if "masks" in other else [])):
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=0)
