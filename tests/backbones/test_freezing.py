"""Frozen is frozen: parameters and running statistics, through training steps, on several families."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.contracts.quick_weights import quick_weights
from visionkit.backbones import WeightsInfo, create_backbone, create_encoder, register_backbone
from visionkit.backbones.level import Level
from visionkit.errors import InputError

FAMILIES = (
    "timm/test_resnet",
    "timm/test_efficientnet",
    "timm/test_convnext",
    "timm/swin_tiny_patch4_window7_224",
    "torchvision/shufflenet_v2_x0_5",
    "packaged/efficientnet_lite0",
)


def _trained(module):
    # the hub is out of reach; what counts is that the weights are held to be trained
    module.weights = WeightsInfo(source="user")
    return module


def _steps(module, images, steps=2):
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        with torch.no_grad():
            module(images)
        return
    optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        out = module(images)
        loss = sum(o.square().mean() for o in (out if isinstance(out, tuple) else (out,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("make", [create_backbone, create_encoder])
@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_stages_stay_bit_for_bit(name, make):
    with quick_weights():
        module = _trained(make(name, init="scratch"))
    stages = module.stages()
    images = torch.randn(2, 3, 64, 96)
    middle = stages[len(stages) // 2].reduction
    frozen = {n for s in stages if s.reduction <= middle for n in s.parameters}
    module.freeze_through(middle)
    for _ in range(2):  # a trainer switches back and forth
        module.eval()
        module.train()
    before = _state(module)
    _steps(module, images)
    after = module.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert not moved & frozen
    # a norm whose weight is frozen keeps its statistics too
    statistics = {f"{n.rpartition('.')[0]}.running_mean" for n in frozen} & before.keys()
    assert not moved & statistics
    free = {n for n, p in module.named_parameters() if n not in frozen}
    assert free, "nothing was left to train"
    assert moved & free
    assert not any(p.requires_grad for n, p in module.named_parameters() if n in frozen)

    module.freeze_through("all")
    module.train()
    before = _state(module)
    _steps(module, images)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    with torch.no_grad():
        first, second = module(images), module(images)
    pairs = zip(first, second, strict=True) if isinstance(first, tuple) else [(first, second)]
    assert all(torch.equal(a, b) for a, b in pairs), "dropout is off in what is frozen"

    module.freeze_through(0)
    module.train()
    assert all(p.requires_grad for p in module.parameters())
    before = _state(module)
    _steps(module, images)
    assert sum(not torch.equal(before[k], v) for k, v in module.state_dict().items()) > len(before) // 2


def test_stages_partition_the_parameters():
    backbone = create_backbone("timm/test_resnet", init="scratch")
    assert [stage.reduction for stage in backbone.stages()] == [4, 8, 16, 32]
    names = [n for stage in backbone.stages() for n in stage.parameters]
    assert sorted(names) == sorted(n for n, _ in backbone.named_parameters())
    assert "net.model.conv1.0.weight" in backbone.stages()[0].parameters
    assert all("layer4" in n for n in backbone.stages()[-1].parameters)


def test_a_conv_head_is_the_stage_behind_the_last_level():
    encoder = create_encoder("packaged/efficientnet_lite0", init="scratch")
    reductions = [stage.reduction for stage in encoder.stages()]
    assert reductions == [2, 4, 8, 16, 32, 64]
    assert encoder.stages()[-1].parameters == [
        "net.model.conv_head.weight", "net.model.bn2.weight", "net.model.bn2.bias"
    ]  # fmt: skip


def test_what_cannot_be_frozen_is_refused():
    backbone = create_backbone("timm/test_resnet", init="scratch")
    with pytest.raises(InputError, match="starts from random weights: freezing them would keep them random"):
        backbone.freeze_through(4)
    backbone.freeze_through(0)
    with pytest.raises(InputError, match="0, 'all' or one of 4, 8, 16, 32, but got 5"):
        _trained(backbone).freeze_through(5)


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_copies_and_pickles_are_independent_and_equal(name):
    backbone = _trained(create_backbone(name, init="scratch"))
    backbone.freeze_through(8)
    images = torch.randn(1, 3, 64, 64)
    expected = backbone.eval()(images)
    for copied in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert all(torch.equal(a, b) for a, b in zip(copied(images), expected, strict=True))
        copied.train()
        assert [p.requires_grad for p in copied.parameters()] == [
            p.requires_grad for p in backbone.parameters()
        ]
        copied.freeze_through("all")
        assert not any(p.requires_grad for p in copied.parameters())
        copied.train()
        before = _state(copied)
        copied(images.repeat(2, 1, 1, 1))
        assert all(torch.equal(before[k], v) for k, v in copied.state_dict().items())
    assert any(p.requires_grad for p in backbone.parameters())
    encoder = copy.deepcopy(create_encoder(name, init="scratch"))
    assert encoder.stages()


class _Tiny(nn.Module):
    levels = (Level(8, 2), Level(16, 4))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, images):
        one = self.one(images)
        return one, self.two(one)


def test_a_network_of_ones_own(tmp_path, own_names):
    @register_backbone("mine/tiny-for-freezing")
    def tiny(*, pretrained: bool) -> nn.Module:
        return _Tiny()

    with pytest.raises(InputError, match="is taken"):
        register_backbone("mine/tiny-for-freezing")(tiny)
    with pytest.raises(InputError, match="is taken"):
        register_backbone("timm/resnet50")(tiny)
    backbone = create_backbone("mine/tiny-for-freezing", init="pretrained", reductions=(2, 4), norm="frozen")
    assert backbone.levels == _Tiny.levels
    assert backbone.mean == (0.1, 0.2, 0.3)
    assert backbone.weights.source == "user"
    backbone.freeze_through(2)
    assert [p.requires_grad for p in backbone.parameters()] == [False, False, True, True]
    encoder = create_encoder("mine/tiny-for-freezing", init="scratch")
    assert encoder(torch.randn(2, 3, 33, 20)).shape == (2, 16)
    torch.save(_Tiny().state_dict(), tmp_path / "w.pt")
    assert create_backbone(
        "mine/tiny-for-freezing", init=str(tmp_path / "w.pt"), reductions=(4,)
    ).weights.digest
    with pytest.raises(InputError, match="no map at reduction 8, 16, 32: its reductions are 2, 4"):
        create_backbone("mine/tiny-for-freezing", init="scratch")
    with pytest.raises(InputError, match="takes 3 channels"):
        create_backbone("mine/tiny-for-freezing", init="scratch", reductions=(2,), in_channels=1)
