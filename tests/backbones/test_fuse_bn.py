"""Norms fused into convolutions: the same outputs, the norms gone, and a refusal where that is not so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visionkit.backbones import convert_norms, create_backbone, fuse_norms
from visionkit.errors import RunError
from visionkit.tasks import Classifier, Segmenter


def drawn(module: nn.Module) -> nn.Module:
    """Statistics and affine parts that fusing could get wrong."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            with torch.no_grad():
                for value in (part.weight, part.running_var):
                    value.uniform_(0.5, 1.5, generator=generator)
                for value in (part.bias, part.running_mean):
                    value.normal_(0, 0.2, generator=generator)
    return module.eval()


def left(module: nn.Module) -> int:
    return sum("BatchNorm" in type(part).__name__ for part in module.modules())


# name: norms that stay, having no convolution right before them
CASES = {
    "packaged/efficientnet_lite0": 0,
    "torchvision/resnet18": 0,
    "timm/resnet18": 0,
    "timm/mobilenetv3_small_050": 0,
    "timm/densenet121": 58 + 3 + 1,
    "timm/convnext_atto": 0,
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_stay_and_norms_go(name):
    full = drawn(create_backbone(name, init="scratch"))
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    before = {key: value.clone() for key, value in full.state_dict().items()}
    fused = fuse_norms(full, images)
    other = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for ours, theirs in zip(fused(other), full(other), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)
    assert left(fused) == CASES[name]
    assert all(torch.equal(value, before[key]) for key, value in full.state_dict().items())


def test_frozen_norms_are_fused_too():
    full = drawn(create_backbone("torchvision/resnet18", init="scratch"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = full(images)
        frozen = convert_norms(full, "frozen", trained=True)
        fused = fuse_norms(frozen, images)
        for ours, theirs in zip(fused(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)
    assert left(frozen) == 20
    assert left(fused) == 0


def test_a_task_is_fused_too():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for task in (
        Classifier("packaged/efficientnet_lite0", init="scratch", num_classes=3),
        Segmenter("packaged/efficientnet_lite0", init="scratch", num_classes=4, decoder="unet", channels=16),
    ):
        full = drawn(task)
        fused = fuse_norms(full, images)
        assert left(full) >= 48
        assert left(fused) == 0
        with torch.no_grad():
            ours, theirs = fused(images), full(images)
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


def test_an_output_that_is_used_twice_is_found_out():
    with pytest.raises(RunError, match="used elsewhere"):
        fuse_norms(drawn(Twice()), torch.randn(1, 3, 8, 8))
