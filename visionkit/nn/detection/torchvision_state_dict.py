"""State dicts of torchvision's detectors under the parameter names of `FasterRCNN`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from visionkit.errors import InputError

__all__ = ["from_torchvision_names"]

_RULES = (
    # Files written before torchvision 0.13 have no index of the convolution within its block.
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(weight|bias)", r"source.pyramid.lateral.\1.0.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(weight|bias)", r"source.pyramid.smooth.\1.0.\2"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(\d)\.(\w+)", r"source.pyramid.lateral.\1.\2.\3"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(\d)\.(\w+)", r"source.pyramid.smooth.\1.\2.\3"),
    (r"backbone\.body\.(.+)", r"body.\1"),
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
)
_POSITIONS = 49  # of a region, 7 x 7
_OLD_MASK = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)")


def from_torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a torchvision Faster or Mask R-CNN under the names of `FasterRCNN`.

    The network below the pyramid is under `body.`: its names depend on how it is built.

    Args:
        state: State dict of `fasterrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn_v2` or
            `maskrcnn_resnet50_fpn` (or `maskrcnn_resnet50_fpn_v2`), of any torchvision release.

    Raises:
        InputError: An entry belongs to no such model; the text names it.
    """
    renamed = {_rename(name): value for name, value in state.items()}
    if "heads.box_head.classify.weight" not in renamed:
        raise InputError(
            "Expected the state dict of a torchvision Faster or Mask R-CNN, but it has no entry "
            "'roi_heads.box_predictor.cls_score.weight'."
        )
    first = renamed.get("heads.box_head.layers.0.weight")
    if first is not None and first.dim() == 2 and first.shape[1] % _POSITIONS == 0:
        side = int(_POSITIONS**0.5)
        renamed["heads.box_head.layers.0.weight"] = first.unflatten(1, (-1, side, side))
    return renamed


def _rename(name: str) -> str:
    old_mask = _OLD_MASK.fullmatch(name)
    if old_mask:
        return f"heads.mask_head.convs.{int(old_mask[1]) - 1}.0.{old_mask[2]}"
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    raise InputError(
        f"Entry {name!r} belongs to no torchvision Faster or Mask R-CNN with a feature pyramid. "
        "Give the state dict of fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2 or maskrcnn_resnet50_fpn."
    )
