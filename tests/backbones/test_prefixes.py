"""Weights under any prefix are found; where several networks are in a file, the user says which."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.backbones import create_backbone, create_encoder, read_state_dict
from visionkit.backbones.sources.state_dict import fill_missing, without_prefixes
from visionkit.backbones.weights import WeightsInfo, portable_init
from visionkit.errors import InputError

NAME = "timm/test_resnet"
PARTS = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8)


@pytest.fixture(scope="module")
def donor():
    return create_encoder(NAME, init="scratch").eval()


@pytest.fixture(scope="module")
def state(donor):
    return {k.removeprefix("net.model."): v for k, v in donor.state_dict().items()}


@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=2))
@settings(max_examples=60)
def test_a_prefix_may_be_called_anything(state, before, other):
    prefix = "".join(f"{part}." for part in before)
    saved = {f"{prefix}{key}": value for key, value in state.items()}
    if other != before[: len(other)] and before != other[: len(before)]:
        # what lies under another prefix is another network's
        saved |= {"".join(f"{part}." for part in other) + "head.weight": torch.zeros(2, 2)} if other else {}
    result = without_prefixes(saved, state)
    assert all(result[key] is value for key, value in state.items())
    assert fill_missing(result, state, state, name=NAME).keys() == state.keys()


@pytest.mark.parametrize(
    "prefix",
    ["", "_orig_mod.", "module._orig_mod.", "model.module.", "encoder.", "teacher.backbone.", "a.b.c.d.e."],
)
def test_encoders_and_backbones_start_from_prefixed_files(tmp_path, donor, state, prefix):
    file = tmp_path / "w.pt"
    torch.save({f"{prefix}{key}": value for key, value in state.items()}, file)
    images = torch.randn(1, 3, 64, 64)
    again = create_encoder(NAME, init=str(file)).eval()
    assert torch.equal(again(images), donor(images))
    assert create_backbone(NAME, init=str(file), reductions=(8,)).weights.file == "w.pt"


def _two(state):
    student = {f"student.backbone.{key}": value + 1 for key, value in state.items()}
    teacher = {f"teacher.backbone.{key}": value for key, value in state.items()}
    return {**student, "student.head.weight": torch.zeros(3, 3), **teacher}


def test_two_networks_in_a_file_are_told_apart_by_the_user(tmp_path, donor, state):
    file = tmp_path / "w.pt"
    torch.save(_two(state), file)
    with pytest.raises(InputError, match=r"'student\.backbone', 'teacher\.backbone'.*FILE#PREFIX"):
        create_encoder(NAME, init=str(file))
    images = torch.randn(1, 3, 64, 64)
    again = create_encoder(NAME, init=f"{file}#teacher.backbone").eval()
    assert torch.equal(again(images), donor(images))
    assert again.weights.tag == "teacher.backbone"
    assert again.weights.file == "w.pt"
    other = create_encoder(NAME, init=f"{file}#student").eval()
    assert not torch.equal(other(images), donor(images))
    with pytest.raises(
        InputError, match=r"no weights under the prefix 'teachr'.*begin with: student, teacher"
    ):
        create_encoder(NAME, init=f"{file}#teachr")


def test_equal_copies_are_one_network_and_unlike_sizes_tell_themselves_apart(state):
    twice = {f"{p}.{key}": value for p in ("net", "average") for key, value in state.items()}
    assert without_prefixes(twice, state).keys() == state.keys()
    small = {f"small.{key}": value[:1] if value.ndim else value for key, value in state.items()}
    result = without_prefixes({**small, **{f"large.{k}": v for k, v in state.items()}}, state)
    assert all(result[key] is value for key, value in state.items())


def test_networks_wrapped_side_by_side(tmp_path, state):
    file = tmp_path / "w.pt"
    torch.save({"student": dict(state), "teacher": dict(state), "epoch": 3}, file)
    assert {key.partition(".")[0] for key in read_state_dict(file)} == {"student", "teacher"}
    assert read_state_dict(file, prefix="teacher").keys() == state.keys()
    torch.save({"model": dict(state), "model_ema": {k: v + 1 for k, v in state.items()}}, file)
    first = next(iter(state))
    assert torch.equal(read_state_dict(file)[first], state[first])
    assert torch.equal(read_state_dict(file, prefix="model_ema")[first], state[first] + 1)


def test_a_file_whose_name_has_the_mark_is_taken_as_it_is(tmp_path, state):
    torch.save(state, tmp_path / "run#3.pt")
    assert create_encoder(NAME, init=str(tmp_path / "run#3.pt")).weights.file == "run#3.pt"


def test_another_architecture_under_a_prefix_is_still_another(tmp_path, state):
    cut = {f"module._orig_mod.{key}": value for key, value in state.items() if "layer3" not in key}
    torch.save(cut, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"another architecture.*names are missing \(first: layer3"):
        create_encoder(NAME, init=str(tmp_path / "w.pt"))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_file_of_other_channels_starts_the_same_channels(tmp_path, channels):
    donor = create_encoder(NAME, init="scratch", in_channels=channels).eval()
    torch.save({f"backbone.{key}": value for key, value in donor.state_dict().items()}, tmp_path / "w.pt")
    again = create_encoder(NAME, init=str(tmp_path / "w.pt"), in_channels=channels).eval()
    images = torch.randn(1, channels, 64, 64)
    assert torch.equal(again(images), donor(images))
    with pytest.raises(InputError, match=rf"shapes differ \(conv1\.0\.weight is \(\d+, {channels}, 3, 3\)"):
        create_encoder(NAME, init=str(tmp_path / "w.pt"))


def test_the_folder_of_a_weights_file_does_not_travel(tmp_path, state):
    file = tmp_path / "private" / "w.pt"
    file.parent.mkdir()
    torch.save(state, file)
    record = create_encoder(NAME, init=str(file)).weights
    assert str(tmp_path) not in str(record.as_dict())
    assert str(tmp_path) not in portable_init(str(file))
    assert portable_init(str(file)) == f"w.pt {record.digest[:16]}"
    assert portable_init("scratch") == "scratch"
    # checkpoints of before hold a path, of this system or of another
    for path in ("/home/me/w.pt", r"C:\Users\me\w.pt", "w.pt"):
        old = {**record.as_dict(), "path": path}
        del old["file"]
        assert WeightsInfo.from_dict(old) == record
    assert pickle.loads(pickle.dumps(record)) == record
