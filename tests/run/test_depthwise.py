"""Depthwise convolutions stay in 32 bits under mixed precision on a CPU; nothing else changes."""

from __future__ import annotations

import copy

import timm
import torch
from torch import nn

from visionkit.run.depthwise import widen_depthwise


def test_depthwise_layers_alone_compute_in_32_bits_and_give_the_same_in_32_bits():
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0").eval()  # its strided layers pad by hand
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, names = model(images), list(model.state_dict())
        assert widen_depthwise(model) == 16
        assert widen_depthwise(model) == 0
        assert torch.equal(model(images), before)
        assert list(model.state_dict()) == names
        assert torch.equal(copy.deepcopy(model)(images), before)
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            deep = module.groups > 1
            module.register_forward_hook(lambda m, i, o, deep=deep: kinds[deep].add(o.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(images)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
