"""Logits equal to torchvision's four networks at the same random weights, output and auxiliary."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from visionkit.errors import InputError
from visionkit.tasks import Segmenter

NAMES = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101")


def _theirs(name, *, aux=True):
    model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, aux_loss=aux)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():  # running statistics of their own, so that a swap of two norms shows
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_equal(name):
    theirs = _theirs(name)
    ours = Segmenter.from_torchvision(theirs.state_dict(), name=name).eval()
    images = torch.rand(1, 3, 97, 131, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs(ours.normalize(images))
        logits, auxiliary = ours._logits(images, auxiliary=True)
    assert logits.shape == (1, 5, 97, 131)
    for mine, reference in ((logits, wanted["out"]), (auxiliary, wanted["aux"])):
        scale = reference.abs().max()
        assert scale > 0
        assert (mine - reference).abs().max() <= 1e-5 * max(1.0, float(scale))


def test_without_auxiliary_and_from_a_file(tmp_path):
    theirs = _theirs("fcn_resnet50", aux=False)
    torch.save(theirs.state_dict(), tmp_path / "fcn.pth")
    ours = Segmenter.from_torchvision(tmp_path / "fcn.pth", name="fcn_resnet50").eval()
    assert ours.auxiliary_head is None
    images = torch.rand(1, 3, 33, 41)
    with torch.no_grad():
        difference = ours(images) - theirs(ours.normalize(images))["out"]
    assert difference.abs().max() <= 1e-5


def test_other_weights_are_refused():
    state = _theirs("fcn_resnet50").state_dict()
    with pytest.raises(InputError, match=r"torchvision's deeplabv3_resnet50, but \d+ keys are missing"):
        Segmenter.from_torchvision(state, name="deeplabv3_resnet50")
    with pytest.raises(InputError, match=r"no key 'classifier.4.weight'"):
        Segmenter.from_torchvision({"a": torch.zeros(1)}, name="fcn_resnet50")
    with pytest.raises(InputError, match="Did you mean 'fcn_resnet50'"):
        Segmenter.from_torchvision(state, name="fcn_resnet5")
