"""Norm policies: exact where they convert trained weights, refused where they would not be."""

from __future__ import annotations

import copy
import warnings

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tests.processes import together
from visionkit.backbones import convert_norms, create_backbone, create_encoder, make_norm
from visionkit.backbones.norms import FrozenBatchNorm, group_count, norm_kinds
from visionkit.errors import InputError

# plain norms, fused norms and activations, one-dimensional norms, dense connections
NETS = [
    "test_resnet",
    "test_efficientnet",
    "levit_128s",
    "ese_vovnet19b_slim_dw",
    "cs3darknet_focus_s",
    "hgnetv2_b0",
]


def _trained(name):
    torch.manual_seed(0)
    net = timm.create_model(name)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net


@pytest.mark.parametrize("name", NETS)
def test_frozen_is_what_evaluation_was(name):
    net = _trained(name).eval()
    size = net.pretrained_cfg["input_size"][1]
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        before = net(images)
        frozen = convert_norms(copy.deepcopy(net), "frozen", trained=True)
        assert "batch" not in norm_kinds(frozen)
        assert torch.equal(frozen(images), before)
    assert set(frozen.state_dict()) == set(net.state_dict())
    assert len(list(frozen.parameters())) < len(list(net.parameters()))


@pytest.mark.parametrize("name", NETS)
def test_sync_in_one_process_is_batch(name):
    net = _trained(name)
    size = net.pretrained_cfg["input_size"][1]
    sync = convert_norms(copy.deepcopy(net), "sync", trained=True)
    assert norm_kinds(sync).count("sync") == 1
    assert list(sync.state_dict()) == list(net.state_dict())
    images = torch.randn(2, 3, size, size)
    for mode in (False, True):
        torch.manual_seed(1)
        expected = net.train(mode)(images)
        torch.manual_seed(1)
        result = sync.train(mode)(images)
        pairs = zip(*([w] if isinstance(w, torch.Tensor) else w for w in (expected, result)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    for (name_a, a), (_, b) in zip(net.named_buffers(), sync.named_buffers(), strict=True):
        assert torch.equal(a, b), name_a


def test_fused_activation_and_dropout_are_kept():
    fused = BatchNormAct2d(8, act_layer=nn.SiLU, drop_layer=nn.Dropout).eval()
    x = torch.randn(2, 8, 4, 4)
    for policy, trained in (("frozen", True), ("sync", True), ("group", False)):
        new = convert_norms(copy.deepcopy(fused), policy, trained=trained)
        assert isinstance(new.act, nn.SiLU)
        assert isinstance(new.drop, nn.Dropout)
        assert new.training == fused.training
    y = convert_norms(copy.deepcopy(fused), "group", trained=False)(x)
    assert torch.allclose(y, nn.functional.silu(nn.functional.group_norm(x, 1)), atol=1e-5)


def test_frozen_never_moves():
    norm = FrozenBatchNorm(nn.BatchNorm2d(4)).train()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    norm(torch.randn(8, 4, 5, 5) * 3 + 1)
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())
    assert not list(norm.parameters())


def test_group_from_scratch_normalises_and_keeps_zero_gains():
    net = nn.Sequential(nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48), nn.Conv2d(48, 24, 1), nn.BatchNorm2d(24))
    nn.init.zeros_(net[3].weight)
    convert_norms(net, "group", trained=False)
    assert [m.num_groups for m in net if isinstance(m, nn.GroupNorm)] == [3, 1]
    assert net[1](torch.randn(2, 48, 9, 9) * 7).std().item() == pytest.approx(1, abs=0.05)
    assert not net[3].weight.any()


def test_refusals_name_what_is_valid():
    net = nn.Sequential(nn.BatchNorm2d(4))
    with pytest.raises(InputError, match="With trained weights the norms are 'batch', 'frozen' or 'sync'"):
        convert_norms(net, "group", trained=True)
    with pytest.raises(InputError, match="From scratch the norms are 'batch', 'sync' or 'group'"):
        convert_norms(net, "frozen", trained=False)
    with pytest.raises(InputError, match=r"Unknown norm policy 'frozn'\. Did you mean 'frozen'"):
        convert_norms(net, "frozn", trained=True)
    with pytest.raises(InputError, match="Unknown norm policy"):
        make_norm("layer", 8)


def test_nets_without_batch_norms_take_any_policy():
    for policy in ("batch", "frozen", "sync", "group"):
        assert norm_kinds(create_backbone("timm/test_convnext", init="scratch", norm=policy)) == ("layer",)


def test_make_norm():
    assert type(make_norm("batch", 8)) is nn.BatchNorm2d
    assert isinstance(make_norm("sync", 8), nn.SyncBatchNorm)
    assert isinstance(make_norm("frozen", 8), nn.Identity)


def test_a_group_has_sixteen_channels_or_the_next_more_that_divide():
    named = {1: 1, 15: 1, 16: 1, 24: 1, 31: 1, 32: 2, 37: 1, 40: 2, 48: 3, 64: 4, 100: 5, 256: 16, 1028: 4}
    assert {channels: group_count(channels) for channels in named} == named
    for channels in range(1, 1025):
        count = group_count(channels)
        expected = [n for n in range(1, channels + 1) if channels % n == 0 and channels // n >= 16]
        assert count == max(expected, default=1), channels
        if channels in named:  # what is made and what is converted follow the one rule
            made = make_norm("group", channels)
            turned = convert_norms(nn.BatchNorm2d(channels), "group", trained=False)
            assert made.num_groups == turned.num_groups == count
            assert norm_kinds(made) == norm_kinds(turned) == ("group",)


def test_a_group_of_one_value_keeps_it():
    norm = make_norm("group", 1)
    nn.init.constant_(norm.weight, 3.0)
    nn.init.constant_(norm.bias, -1.0)
    for shape in ((1, 1, 1, 1), (2, 1, 1, 1)):  # the first of them torch's own refuses
        x = torch.randn(shape)
        assert torch.equal(norm(x), x * 3 - 1)
    assert not torch.equal(norm(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize("make", [create_backbone, create_encoder])
def test_policies_through_the_factories(make):
    name = "packaged/efficientnet_lite0"
    assert norm_kinds(make(name, init="scratch", norm="group")) == ("group",)
    assert norm_kinds(make(name, init="scratch", norm="sync")) == ("sync",)
    with pytest.raises(InputError, match="do not normalise"):
        make(name, init="scratch", norm="frozen")


def _case(dtype):
    """Return a norm and a batch whose mean is far from zero, as large as many groups of it."""
    torch.manual_seed(0)
    return nn.BatchNorm2d(3), (torch.randn(7, 3, 44, 61) * 2 + 9).to(dtype)


def across(rank, folder, world):
    warnings.simplefilter("ignore", FutureWarning)
    with together(folder, rank, world):
        result = {
            str(dtype): _one_of_several(dtype, rank, world) for dtype in (torch.float32, torch.bfloat16)
        }
        if world == 2:
            result["pooled"] = _pooled("sync", slice(0, 1) if rank == 0 else slice(1, 3))
    torch.save(result, f"{folder}/{rank}.pt")


def _one_of_several(dtype, rank, world):
    norm, everything = _case(dtype)
    norm = convert_norms(nn.Sequential(norm), "sync", trained=True).train()
    mine = everything if world == 1 else everything[:2] if rank == 0 else everything[2:]  # of unlike size
    mine = mine.clone().requires_grad_()
    out = norm(mine)
    (out * torch.arange(out[0].numel()).view(out[0].shape).remainder(7)).sum().backward()
    parts = (out.detach(), mine.grad, norm[0].running_mean, norm[0].running_var)
    return [part.clone() for part in parts]


def _pooled(policy, images):
    """Train a block over one position of some of three images."""
    from visionkit.nn.segmentation.decoders.block import ConvBlock

    torch.manual_seed(0)
    block = ConvBlock(5, 4, kernel=1, norm=lambda width: make_norm(policy, width), single_position=True)
    return block(torch.randn(3, 5, 1, 1)[images]).detach()


@pytest.mark.dist
@pytest.mark.parametrize("world", [1, 2])
def test_sync_over_processes_is_batch_over_all(zygote, tmp_path, world):
    zygote.ranks("tests.backbones.test_norms:across", world, str(tmp_path), world)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    if world == 2:
        pooled = torch.cat([one["pooled"] for one in results])
        torch.testing.assert_close(pooled, _pooled("batch", slice(None)), atol=1e-5, rtol=1e-5)
    for dtype, near in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        norm, everything = _case(dtype)
        everything.requires_grad_()
        out = norm.train()(everything)
        (out * torch.arange(out[0].numel()).view(out[0].shape).remainder(7)).sum().backward()
        parts = [one[str(dtype)] for one in results]
        assert all(part[0].dtype == dtype for part in parts)
        torch.testing.assert_close(torch.cat([p[0] for p in parts]), out, atol=near, rtol=near)
        torch.testing.assert_close(torch.cat([p[1] for p in parts]), everything.grad, atol=near, rtol=near)
        for part in parts:
            torch.testing.assert_close(part[2], norm.running_mean, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(part[3], norm.running_var, atol=1e-5, rtol=1e-5)
