"""The reader of weights files runs nothing, allocates nothing it was not told of, and says what is wrong."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from visionkit.backbones import WeightsInfo, create_backbone, create_encoder, read_state_dict
from visionkit.errors import InputError
from visionkit.files import file_digest


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.fixture
def tensors():
    return OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(4, dtype=torch.int64))


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_round_trip(tmp_path, tensors, legacy):
    torch.save(tensors, tmp_path / "w.bin", _use_new_zipfile_serialization=not legacy)
    result = read_state_dict(tmp_path / "w.bin")
    assert list(result) == ["a", "b"]
    assert all(torch.equal(result[k], tensors[k]) for k in tensors)


def test_safetensors_are_told_by_content_not_by_name(tmp_path, tensors):
    save_file(dict(tensors), tmp_path / "w.pth")
    result = read_state_dict(tmp_path / "w.pth")
    assert all(torch.equal(result[k], tensors[k]) for k in tensors)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema"])
def test_containers_and_prefixes_are_unwrapped(tmp_path, tensors, wrapper):
    torch.save({wrapper: {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["a", "b"]


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, kind):
    marker, file = tmp_path / "ran", tmp_path / "w.pt"
    if kind == "plain pickle":
        file.write_bytes(pickle.dumps({"a": _Hostile(marker)}))
    else:
        torch.save({"a": _Hostile(marker)}, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match=r"w\.pt: (Refused to read|The weights file is damaged)"):
        read_state_dict(file)
    assert not marker.exists()


def test_code_is_named_as_such(tmp_path):
    torch.save({"a": _Hostile(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"could run code .*mkdir"):
        read_state_dict(tmp_path / "w.pt")


def test_what_a_zip_unpacks_to_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", b"\0" * 5_000_000)
    assert (tmp_path / "w.pt").stat().st_size < 100_000
    with pytest.raises(InputError, match="unpacks to 5,000,"):
        read_state_dict(tmp_path / "w.pt", max_bytes=1_000_000)


def test_a_storage_larger_than_the_file_is_refused_before_allocation(tmp_path, tensors):
    torch.save(tensors, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        entries = {e.filename: archive.read(e) for e in archive.infolist()}
    pickled = next(k for k in entries if k.endswith("data.pkl"))
    # the element count 6 of "a" stands behind its device; make it 2**40
    oversized = entries[pickled].replace(b"K\x06tq", b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"tq")
    assert oversized != entries[pickled]
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, oversized if name == pickled else data)
    with pytest.raises(InputError, match="claims a tensor of 1,099,511,627,776 elements"):
        read_state_dict(tmp_path / "w.pt")


def test_bad_paths_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="downloaded first"):
        read_state_dict("https://example.org/w.pt")
    with pytest.raises(InputError, match="There is no such weights file"):
        read_state_dict(tmp_path / "none.pt")
    with pytest.raises(InputError, match="regular weights file, but it is a folder"):
        read_state_dict(tmp_path)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(InputError, match="is empty"):
        read_state_dict(tmp_path / "empty.pt")
    (tmp_path / "text.pt").write_text("hello, world")
    with pytest.raises(InputError, match="Expected a safetensors file"):
        read_state_dict(tmp_path / "text.pt")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="regular weights file"):
        read_state_dict(tmp_path / "pipe")
    (tmp_path / "big.pt").write_bytes(b"0" * 100)
    with pytest.raises(InputError, match="holds 100 bytes; the limit is 10"):
        read_state_dict(tmp_path / "big.pt", max_bytes=10)


def test_damage_is_named(tmp_path, tensors):
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    (tmp_path / "cut.pt").write_bytes(buffer.getvalue()[:-200])
    with pytest.raises(InputError, match=r"cut\.pt: The weights file is damaged"):
        read_state_dict(tmp_path / "cut.pt")


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {}, {"a": "text"}])
def test_other_values_than_tensors_are_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(InputError, match="Expected named tensors"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5"])
@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_init_from_a_file_of_the_same_architecture(tmp_path, name, form):
    donor = create_encoder(name, init="scratch").eval()
    # a file of one's own: the whole network, with 7 classes
    state = {k.removeprefix("net.model."): v.clone() for k, v in donor.state_dict().items()}
    head = donor.pretrained_head()
    prefix = "fc"
    state[f"{prefix}.weight"], state[f"{prefix}.bias"] = torch.randn(7, head.in_features), torch.randn(7)
    file = tmp_path / "w"
    save_file(state, file) if form == "safetensors" else torch.save(state, file)
    images = torch.randn(2, 3, 64, 96)
    encoder = create_encoder(name, init=str(file)).eval()
    assert torch.equal(encoder(images), donor(images))
    assert torch.equal(encoder.pretrained_head().weight, state[f"{prefix}.weight"])
    assert "freshly initialised" in encoder.weights.doubt
    assert replace(encoder.weights, doubt="") == WeightsInfo(
        "file", name.partition("/")[2], "", "not stated", "not stated", file_digest(file), file.name
    )
    assert file_digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    backbone = create_backbone(name, init=str(file)).eval()
    conv = next(k for k, v in backbone.state_dict().items() if v.dim() == 4)
    assert torch.equal(backbone.state_dict()[conv], state[conv.removeprefix("net.model.")])


def test_a_backbone_takes_its_own_saved_state_but_an_encoder_needs_all(tmp_path):
    name = "packaged/efficientnet_lite0"
    donor = create_backbone(name, init="scratch").eval()
    torch.save(donor.state_dict(), tmp_path / "w.pt")
    again = create_backbone(name, init=str(tmp_path / "w.pt")).eval()
    images = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(donor(images), again(images), strict=True))
    with pytest.raises(
        InputError, match=r"another architecture.*names are missing \(first: conv_head\.weight"
    ):
        create_encoder(name, init=str(tmp_path / "w.pt"))


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/resnet18", "packaged/efficientnet_lite0"])
def test_weights_of_another_architecture_are_named(tmp_path, name):
    torch.save(create_encoder("timm/resnet34", init="scratch").net.model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="weights are of another architecture than") as caught:
        create_backbone(name, init=str(tmp_path / "w.pt"))
    assert "layer" in str(caught.value) or "conv1" in str(caught.value)


def test_first_differing_shapes_are_named(tmp_path):
    state = create_encoder("torchvision/resnet18", init="scratch").net.model.state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(65, 64, 3, 3)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"layer1\.0\.conv1\.weight is \(65, 64, 3, 3\), not \(64, 64, 3, 3\)"
    ):
        create_backbone("torchvision/resnet18", init=str(tmp_path / "w.pt"))


def test_the_record_is_a_plain_dict():
    record = create_backbone("timm/test_resnet", init="scratch").weights
    assert not record.trained
    assert record.as_dict() == {
        "source": "none", "name": "test_resnet", "tag": "", "training_data": "", "licence": "", "digest": "",
        "file": "", "adapted": "", "doubt": "",
    }  # fmt: skip
