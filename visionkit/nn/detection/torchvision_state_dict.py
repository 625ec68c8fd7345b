"""State dicts of torchvision's detectors under the parameter names of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from visionkit.errors import InputError

__all__ = ["dense_from_torchvision_names", "from_torchvision_names"]

_BACKBONE = (
    # Files written before torchvision 0.13 have no index of the convolution within its block.
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(weight|bias)", r"source.pyramid.lateral.\1.0.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(weight|bias)", r"source.pyramid.smooth.\1.0.\2"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(\d)\.(\w+)", r"source.pyramid.lateral.\1.\2.\3"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(\d)\.(\w+)", r"source.pyramid.smooth.\1.\2.\3"),
    (r"backbone\.body\.(.+)", r"body.\1"),
)
_RULES = (
    *_BACKBONE,
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"rpn\.head\.(.+)", r"rpn.head.\1"),
    (r"roi_heads\.box_head\.fc6\.(\w+)", r"heads.box_head.layers.0.\1"),
    (r"roi_heads\.box_head\.fc7\.(\w+)", r"heads.box_head.layers.1.\1"),
    (r"roi_heads\.box_head\.([0-3])\.(\d)\.(\w+)", r"heads.box_head.convs.\1.\2.\3"),
    (r"roi_heads\.box_head\.5\.(\w+)", r"heads.box_head.layers.0.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(\w+)", r"heads.box_head.classify.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(\w+)", r"heads.box_head.regress.\1"),
    (r"roi_heads\.mask_head\.(\d)\.(\d)\.(\w+)", r"heads.mask_head.convs.\1.\2.\3"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"heads.mask_head.upsample.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"heads.mask_head.predict.\1"),
    (r"roi_heads\.keypoint_predictor\.kps_score_lowres\.(\w+)", r"heads.keypoint_head.heatmaps.\1"),
)
_DENSE_RULES = (
    *_BACKBONE,
    (r"backbone\.fpn\.extra_blocks\.(p[67])\.(\w+)", r"source.pyramid.\1.\2"),
    (r"head\.classification_head\.conv\.(\d)\.(\d)\.(\w+)", r"head.class_convs.\1.\2.\3"),
    (r"head\.regression_head\.conv\.(\d)\.(\d)\.(\w+)", r"head.box_convs.\1.\2.\3"),
    (r"head\.classification_head\.cls_logits\.(\w+)", r"head.class_logits.\1"),
    (r"head\.regression_head\.bbox_reg\.(\w+)", r"head.box_offsets.\1"),
    (r"head\.regression_head\.bbox_ctrness\.(\w+)", r"head.centerness.\1"),
)
# Convolutions, norms and activations of the head in one row: three a block in FCOS, two in the files of
# RetinaNet that were written before torchvision 0.13.
_IN_A_ROW = re.compile(r"(head\.\w+_head\.conv)\.(\d+)\.(\w+)")
_POSITIONS = 49  # of a region, 7 x 7
_KEYPOINT_CONV = re.compile(r"roi_heads\.keypoint_head\.(\d+)\.(weight|bias)")  # an activation after each
_OLD_MASK = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)")


def from_torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a torchvision Faster, Mask or Keypoint R-CNN under the names of `FasterRCNN`.

    The network below the pyramid is under `body.`: its names depend on how it is built.

    Args:
        state: State dict of `fasterrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn_v2`,
            `maskrcnn_resnet50_fpn` (or `maskrcnn_resnet50_fpn_v2`) or `keypointrcnn_resnet50_fpn`, of any
            torchvision release.

    Raises:
        InputError: An entry belongs to no such model; the text names it.
    """
    renamed = {_rename(name): value for name, value in state.items()}
    if "heads.box_head.classify.weight" not in renamed:
        raise InputError(
            "Expected the state dict of a torchvision Faster, Mask or Keypoint R-CNN, but it has no entry "
            "'roi_heads.box_predictor.cls_score.weight'."
        )
    first = renamed.get("heads.box_head.layers.0.weight")
    if first is not None and first.dim() == 2 and first.shape[1] % _POSITIONS == 0:
        side = int(_POSITIONS**0.5)
        renamed["heads.box_head.layers.0.weight"] = first.unflatten(1, (-1, side, side))
    return renamed


def dense_from_torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a torchvision RetinaNet or FCOS under the names of `RetinaNet` and `FCOS`.

    The network below the pyramid is under `body.`: its names depend on how it is built.

    Args:
        state: State dict of `retinanet_resnet50_fpn`, `retinanet_resnet50_fpn_v2` or `fcos_resnet50_fpn`, of
            any torchvision release.

    Raises:
        InputError: An entry belongs to no such model; the text names it.
    """
    layers = 3 if "head.regression_head.bbox_ctrness.weight" in state else 2
    renamed = {}
    for name, value in state.items():
        row = _IN_A_ROW.fullmatch(name)
        block, layer = divmod(int(row[2]), layers) if row else (0, 0)
        renamed[_by_rules(f"{row[1]}.{block}.{layer}.{row[3]}" if row else name, _DENSE_RULES)] = value
    if "head.class_logits.weight" not in renamed:
        raise InputError(
            "Expected the state dict of a torchvision RetinaNet or FCOS, but it has no entry "
            "'head.classification_head.cls_logits.weight'."
        )
    return renamed


def _rename(name: str) -> str:
    old_mask = _OLD_MASK.fullmatch(name)
    if old_mask:
        return f"heads.mask_head.convs.{int(old_mask[1]) - 1}.0.{old_mask[2]}"
    keypoint = _KEYPOINT_CONV.fullmatch(name)
    if keypoint:
        return f"heads.keypoint_head.convs.{int(keypoint[1]) // 2}.0.{keypoint[2]}"
    return _by_rules(name, _RULES)


def _by_rules(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    if rules is _DENSE_RULES:
        models, full = "RetinaNet or FCOS", "retinanet_resnet50_fpn(_v2) or fcos_resnet50_fpn"
    else:
        models = "Faster, Mask or Keypoint R-CNN"
        full = "fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2, maskrcnn_resnet50_fpn or "
        full += "keypointrcnn_resnet50_fpn"
    raise InputError(
        f"Entry {name!r} belongs to no torchvision {models} with a feature pyramid. Give the state dict of "
        f"{full}."
    )
