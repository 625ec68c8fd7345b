"""Pretrained weights that are on this machine already: found without a network, read safely, recorded."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from tests.contracts.quick_weights import quick_weights
from visionkit.backbones import create_backbone, create_encoder, describe_backbone
from visionkit.backbones.registry import _shipped
from visionkit.backbones.weights import portable_init
from visionkit.errors import InputError
from visionkit.files import file_digest
from visionkit.tasks import Classifier
from visionkit.types import SOURCES


def _hub_cache(folder: Path, repository: str, filename: str) -> Path:
    """Lay a file out as the hub's client keeps it, and return where it must be written."""
    root = folder / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    (root / "snapshots" / "abc").mkdir(parents=True)
    return root / "snapshots" / "abc" / filename


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_timm_weights_in_the_hubs_cache(hub, name):
    donor = timm.create_model(name).eval()
    cfg = donor.pretrained_cfg
    file = _hub_cache(hub / "hub", cfg["hf_hub_id"], "model.safetensors")
    assert not describe_backbone(f"timm/{name}").weights_here
    save_file(donor.state_dict(), file)
    facts = describe_backbone(f"timm/{name}")
    assert (facts.weights_here, Path(facts.weights_path)) == (True, file)
    encoder = create_encoder(f"timm/{name}", init="pretrained").eval()
    side = cfg["input_size"][1]
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(encoder.pretrained_head()(encoder(images)), donor(images))
    record = encoder.weights
    assert (record.source, record.name, record.tag) == ("timm", name, cfg["tag"])
    assert (record.digest, record.file) == (file_digest(file), file.name)
    assert record.training_data == "ImageNet-1k"
    backbone = create_backbone(f"timm/{name}", init="pretrained", reductions=(16,), in_channels=1).eval()
    assert backbone(images[:, :1])[0].shape[0] == 2


def test_other_weights_of_the_same_architecture_are_an_init(hub):
    donor = timm.create_model("resnet18").eval()
    cfg = timm.models.get_pretrained_cfg("resnet18.tv_in1k")
    save_file(donor.state_dict(), _hub_cache(hub / "hub", cfg.hf_hub_id, "model.safetensors"))
    init = "timm/resnet18.tv_in1k"
    encoder = create_encoder("timm/resnet18", init=init).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder.pretrained_head()(encoder(images)), donor(images))
    assert (encoder.weights.tag, encoder.name) == ("tv_in1k", "timm/resnet18")
    assert portable_init(init) == init, "nothing of it is of this machine"
    task = Classifier("timm/resnet18", init=init, num_classes=3)
    assert task.hparams["origin"]["init"] == init
    assert task.hparams["origin"]["weights"]["tag"] == "tv_in1k"
    with pytest.raises(
        InputError, match=r"the backbone's own architecture, 'timm/resnet18'.*resnet18\.a1_in1k"
    ):
        create_backbone("timm/resnet18", init="timm/resnet34.tv_in1k")
    with pytest.raises(InputError, match=r"Unknown tag 'tv_in2k'.*Did you mean 'timm/resnet18.tv_in1k'"):
        create_backbone("timm/resnet18", init="timm/resnet18.tv_in2k")
    assert set(SOURCES) == set(_shipped())


def test_a_damaged_file_in_the_cache_is_named(hub):
    cfg = timm.create_model("test_resnet").pretrained_cfg
    file = _hub_cache(hub / "hub", cfg["hf_hub_id"], "model.safetensors")
    file.write_bytes(b"PK not really")
    with pytest.raises(InputError, match=r"model\.safetensors: The weights file is damaged"):
        create_encoder("timm/test_resnet", init="pretrained")


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_torchvision_weights_in_torchs_cache(hub, name):
    # googlenet's weights hold auxiliary classifiers, which no task uses
    options = {"aux_logits": True, "init_weights": True} if name == "googlenet" else {}
    with quick_weights():
        donor = models.get_model(name, weights=None, **options).eval()
    if name == "googlenet":
        donor.transform_input = True
    weights = models.get_model_weights(name).DEFAULT
    file = hub / "torch" / "checkpoints" / Path(urlsplit(weights.url).path).name
    file.parent.mkdir(parents=True)
    torch.save(donor.state_dict(), file)
    with quick_weights():
        encoder = create_encoder(f"torchvision/{name}", init="pretrained").eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = donor(images)
        assert torch.equal(encoder.pretrained_head()(encoder(images)), expected)
    assert (encoder.weights.tag, encoder.weights.training_data) == ("IMAGENET1K_V1", "ImageNet-1K")
    assert describe_backbone(f"torchvision/{name}").weights_path == str(file)


def test_no_weights_exist_at_all():
    name = next(n for n in timm.list_models("resnet*") if not timm.models.get_pretrained_cfg(n).has_weights)
    assert describe_backbone(f"timm/{name}").pretrained is False
    with pytest.raises(InputError, match="has no pretrained weights for"):
        create_backbone(f"timm/{name}", init="pretrained")
