"""Networks whose blocks share one reduction: rates and freezing go by block; others are left as they were."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict

import pytest
import torch
from torch import nn

from visionkit.backbones import Level, WeightsInfo, create_backbone, create_encoder, register_backbone
from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.optim import parameter_groups
from visionkit.tasks import Classifier
from visionkit.transfer import apply_transfer, fit_default, resolve_transfer

# name: its blocks
PLAIN = {
    "timm/test_vit": 6,
    "timm/vit_tiny_patch16_224": 12,
    "timm/deit_tiny_patch16_224": 12,
    "timm/mixer_s16_224": 8,
    "timm/convmixer_768_32": 32,
    "torchvision/vit_b_16": 12,
}
STAGED = ("timm/test_convnext", "timm/swin_tiny_patch4_window7_224", "timm/test_resnet")


@functools.cache
def _built(make, name, **options):
    with torch.device("meta"):
        made = make(name, init="scratch", **options)
    made.weights = WeightsInfo(source="user")
    made.stages()  # traced once, and copied with the network
    made.blocks()
    return made


def _empty(make, name, **options):
    return copy.deepcopy(_built(make, name, **options))


def _rates(module, decay):
    """Return the rate of each group, by its name without "/no decay", and the parameters in it."""
    transfer = TransferConfig(layer_decay=decay, backbone_lr_scale=1.0)
    rates, sizes = {}, defaultdict(int)
    for group in parameter_groups(module, module, OptimConfig(), transfer, 1.0):
        name = group["name"].removesuffix("/no decay")
        assert rates.setdefault(name, group["lr"]) == group["lr"]
        sizes[name] += sum(p.numel() for p in group["params"])
    assert sum(sizes.values()) == sum(p.numel() for p in module.parameters())
    return rates


@pytest.mark.parametrize("name", PLAIN)
def test_blocks_of_one_reduction_have_a_rate_each(name):
    encoder = _empty(create_encoder, name)
    blocks = encoder.blocks()
    count = PLAIN[name]
    assert len(blocks) == count + 2
    listed = [n for block in blocks for n in block.parameters]
    assert sorted(listed) == sorted(n for n, _ in encoder.named_parameters())
    assert [block.fraction for block in blocks] == sorted(block.fraction for block in blocks)
    rates = _rates(encoder, 0.5)
    behind = int(bool(blocks[-1].parameters))
    assert rates[f"backbone/block {count}"] == 0.5**behind
    assert rates["backbone/block 1"] == 0.5 ** (count - 1 + behind)
    assert rates["backbone/block 0"] == 0.5 ** (count + behind)


@pytest.mark.parametrize("name", STAGED)
def test_networks_with_levels_keep_their_rates(name):
    encoder = _empty(create_encoder, name)
    assert encoder.blocks() == []
    stages = [stage.reduction for stage in encoder.stages() if stage.parameters]
    expected = {f"backbone/{r}": 0.5**depth for depth, r in enumerate(reversed(stages))}
    assert _rates(encoder, 0.5) == expected
    assert len(expected) >= 4


def test_the_order_of_blocks_is_that_of_execution():
    encoder = _empty(create_encoder, "timm/vit_tiny_patch16_224")
    blocks = encoder.blocks()
    for place, block in enumerate(blocks[1:-1]):
        assert all(name.startswith(f"net.model.blocks.{place}.") for name in block.parameters)
    assert "net.model.pos_embed" in blocks[0].parameters
    assert blocks[-1].parameters == ["net.model.norm.weight", "net.model.norm.bias"]


@pytest.mark.parametrize("make", [create_encoder, create_backbone])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.75])
def test_a_fraction_of_the_blocks_is_frozen(make, fraction):
    options = {} if make is create_encoder else {"reductions": (16,)}
    module = _empty(make, "timm/vit_tiny_patch16_224", **options)
    module.freeze_through(fraction)
    module.train()
    frozen = {n for n, p in module.named_parameters() if not p.requires_grad}
    numbers = {int(n.split("blocks.")[1].split(".")[0]) for n in frozen if "blocks." in n}
    assert numbers == set(range(int(12 * fraction)))
    assert "net.model.patch_embed.proj.weight" in frozen
    frozen_modules = [m.training for n, m in module.named_modules() if n.startswith("net.model.blocks.")]
    assert all(frozen_modules) == (fraction < 1 / 12)
    assert any(frozen_modules)
    module.freeze_through(0)
    assert all(p.requires_grad for p in module.parameters())


def test_what_cannot_tell_blocks_apart_is_refused_with_the_way():
    vit, resnet = _empty(create_encoder, "timm/test_vit"), _empty(create_encoder, "timm/test_resnet")
    with pytest.raises(
        InputError, match=r"All 6 blocks of 'timm/test_vit' lie at reduction 16.*fraction of the"
    ):
        vit.freeze_through(16)
    with pytest.raises(InputError, match=r"'timm/test_resnet' has levels\. Give the reduction of one \(\d"):
        resnet.freeze_through(0.5)
    for wrong in (1.5, -1.0, 0.0):
        with pytest.raises(InputError):
            resolve_transfer("classification", "file.pt", TransferConfig(freeze_through=wrong or 1.0))


def test_the_default_of_a_task_freezes_nothing_where_it_names_no_level():
    vit, resnet = _empty(create_encoder, "timm/test_vit"), _empty(create_encoder, "timm/test_resnet")
    default, asked = TransferConfig(), TransferConfig(freeze_through=4)
    resolved = resolve_transfer("detection", "file.pt", default)
    assert resolved.freeze_through == 4
    assert fit_default(vit, default, resolved).freeze_through == 0
    assert fit_default(resnet, default, resolved) is resolved
    assert fit_default(vit, asked, resolved) is resolved  # what was asked for is refused, not dropped
    apply_transfer(vit, "file.pt", fit_default(vit, default, resolved))
    assert all(p.requires_grad for p in vit.parameters())
    with pytest.raises(InputError, match="fraction of the"):
        apply_transfer(vit, "file.pt", resolved)


def test_unfreezing_goes_by_fractions_too():
    vit = _empty(create_encoder, "timm/test_vit")
    for final, trained in ((0.25, range(2, 8)), (0, range(8))):
        asked = TransferConfig(freeze_through=0.5, layer_decay=0.9, unfreeze_at=((100, 0.4), (200, final)))
        transfer = resolve_transfer("classification", "file.pt", asked)
        apply_transfer(vit, "file.pt", transfer)
        assert not vit.net.model.blocks[2].attn.qkv.weight.requires_grad
        named = [g["name"] for g in parameter_groups(vit, vit, OptimConfig(), transfer, 1.0)]
        assert {name.removesuffix("/no decay") for name in named} == {f"backbone/block {i}" for i in trained}
    with pytest.raises(InputError, match="falling"):
        resolve_transfer(
            "classification", "file.pt", TransferConfig(freeze_through=0.2, unfreeze_at=((9, 0.5),))
        )


def test_a_decoder_of_one_level_knows_the_finer_ones():
    backbone = _empty(create_backbone, "timm/test_resnet", reductions=(32,))
    assert [stage.reduction for stage in backbone.stages()] == [4, 8, 16, 32]
    assert len(set(_rates(backbone, 0.5).values())) == 4
    backbone.freeze_through(8)
    assert {p.requires_grad for p in backbone.parameters()} == {True, False}


class _OneLevel(nn.Module):
    levels = (Level(8, 2),)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images):
        return (self.norm(self.conv(images)),)


def test_a_decay_that_would_do_nothing_is_refused(own_names):
    @register_backbone("mine/one-level")
    def one(*, pretrained: bool) -> nn.Module:
        return _OneLevel()

    encoder = create_encoder("mine/one-level", init="pretrained")
    assert encoder.blocks() == []
    with pytest.raises(InputError, match=r"layer_decay=0\.5 would do nothing.*one-level"):
        _rates(encoder, 0.5)
    encoder.freeze_through(2)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_a_classifier_of_a_transformer_takes_both(tmp_path):
    donor = create_encoder("timm/test_vit", init="scratch")
    torch.save(donor.state_dict(), tmp_path / "w.pt")
    task = Classifier(
        "timm/test_vit", init=str(tmp_path / "w.pt"), num_classes=3,
        transfer=TransferConfig(freeze_through=0.5, layer_decay=0.5),
    )  # fmt: skip
    groups = parameter_groups(task, task.backbone, task.optim, task.transfer, 1.0)
    assert {g["name"].removesuffix("/no decay") for g in groups} == {
        "head", *(f"backbone/block {i}" for i in (4, 5, 6, 7))
    }  # fmt: skip
