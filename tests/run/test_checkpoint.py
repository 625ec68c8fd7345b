"""Checkpoints: whole or not at all, damage named, nothing executed, the previous good one used."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
import torch

from visionkit.errors import DataError, InputError, RunError
from visionkit.files import PART, remove_parts
from visionkit.run.storage.checkpoint import (
    MANIFEST,
    AtomicCheckpointIO,
    load_checkpoint,
    newest_good,
)
from visionkit.run.storage.disk import write_file


def content(**more):
    state = {"net.weight": torch.randn(64, 64), "net.steps": torch.tensor(3)}
    return {"state_dict": state, "visionkit": {"format": 1}, "pytorch-lightning_version": "2.6.6", **more}


@pytest.fixture
def saved(tmp_path) -> Path:
    place = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(), place)
    return place


def test_round_trip(saved):
    loaded = AtomicCheckpointIO().load_checkpoint(saved, weights_only=False)
    assert loaded["state_dict"]["net.weight"].shape == (64, 64)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["last.ckpt", MANIFEST]


def _empty(path):
    path.write_bytes(b"")


def _half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _cut_tail(path):
    path.write_bytes(path.read_bytes()[:-100])


def _html(path):
    path.write_text("<!DOCTYPE html><html>404</html>")


def _json(path):
    path.write_text(json.dumps({"error": "not found"}))


def _bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _zeros(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def _rewrite(**more):
    def change(path):
        made = {**content(), **more}
        made = {key: value for key, value in made.items() if value is not None}
        (path.parent / MANIFEST).unlink()
        torch.save(made, path)

    return change


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


def _legacy(path):
    (path.parent / MANIFEST).unlink()
    path.write_bytes(pickle.dumps(Bomb(str(path.parent / "marker"))))


def _code(path):
    (path.parent / MANIFEST).unlink()
    torch.save({"state_dict": {}, "x": Bomb(str(path.parent / "marker"))}, path)


def _inflated(path):
    (path.parent / MANIFEST).unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)


DAMAGE = {
    "empty": (_empty, "empty"),
    "half": (_half, "cut or damaged"),
    "cut tail": (_cut_tail, "cut or damaged"),
    "html": (_html, "not a checkpoint"),
    "json": (_json, "not a checkpoint"),
    "zeros": (_zeros, "not a checkpoint"),
    "one bit": (_bit, "altered|damaged"),
    "nan": (_rewrite(state_dict={"a": torch.tensor([float("nan")])}), "not finite"),
    "no state_dict": (_rewrite(state_dict=None), "state_dict"),
    "newer format": (_rewrite(visionkit={"format": 99}), "newer"),
    "newer lightning": (_rewrite(**{"pytorch-lightning_version": "99.0"}), "99.0"),
    "legacy pickle": (_legacy, "not a checkpoint"),
    "code": (_code, "more than tensors and plain values"),
    "inflated": (_inflated, "unpack"),
}


def test_every_damage_is_named_and_the_previous_one_used(tmp_path):
    walked = 0
    for name, (damage, text) in DAMAGE.items():
        place = tmp_path / name.replace(" ", "-") / "last.ckpt"
        for step in (1, 2):
            AtomicCheckpointIO().save_checkpoint(content(global_step=step), place)
        damage(place)
        with pytest.raises(DataError, match=text) as caught:
            load_checkpoint(place)
        assert str(place) in str(caught.value), name
        told: list[str] = []
        found = newest_good(place.parent, report=told.append)
        assert found is not None, name
        assert found.name == "previous.ckpt", name
        assert load_checkpoint(found)["global_step"] == 1
        assert len(told) == 1, name
        assert "Damaged" in told[0], name
        assert not (place.parent / "marker").exists(), name
        walked += 1
    assert walked == len(DAMAGE) == 14


def test_environment_switch_does_not_weaken_it(saved, monkeypatch):
    _code(saved)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    link = saved.with_name("link.ckpt")
    link.symlink_to(saved)
    for path in (saved, link):
        with pytest.raises(DataError):
            load_checkpoint(path)
    assert not (saved.parent / "marker").exists()


def test_addresses_folders_and_missing_files_are_refused(tmp_path):
    for path, text in (
        ("https://example.org/a.ckpt", "on this machine, but got the address"),
        (tmp_path, "regular file"),
        (tmp_path / "none.ckpt", "no such file"),
    ):
        with pytest.raises(InputError, match=text):
            load_checkpoint(path)


def test_too_large_is_refused_before_it_is_read(saved):
    with pytest.raises(DataError, match="limit"):
        load_checkpoint(saved, max_bytes=100)


def test_sweep_takes_the_dead_and_leaves_the_living(tmp_path):
    dead = tmp_path / f"last.ckpt.999999999{PART}"
    dead.write_bytes(b"x" * 10)
    living = tmp_path / f"last.ckpt.{os.getppid()}{PART}"
    living.write_bytes(b"x")
    other = tmp_path / "notes.part"
    other.write_bytes(b"x")
    assert remove_parts(tmp_path) == 10
    assert living.exists()
    assert other.exists()
    assert not dead.exists()


def test_disk_full_leaves_the_old_file_and_says_bytes(saved, monkeypatch):
    before = saved.read_bytes()

    def full(part: Path) -> None:
        part.write_bytes(b"x" * 1000)
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RunError, match=r"last.ckpt.*No space left.*1000 bytes are needed and \d+ bytes are free"
    ):
        write_file(saved, full)
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob(f"*{PART}"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
    with pytest.raises(RunError, match="10 bytes are free"):
        write_file(saved, lambda part: pytest.fail("written"), needed=11)


def save_for_ever(place):
    io, made = AtomicCheckpointIO(), {"state_dict": {"w": torch.ones(2_000_000)}, "visionkit": {"format": 1}}
    while True:
        io.save_checkpoint(made, place)


def test_kills_while_saving_leave_a_sound_checkpoint(zygote, tmp_path):
    import random
    import time

    rng = random.Random(3)
    place = tmp_path / "last.ckpt"
    for _ in range(3):
        child = zygote.start("tests.run.test_checkpoint:save_for_ever", str(place))
        while child.running() and not place.exists():
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        child.kill()
        assert child.wait() == -signal.SIGKILL, child.said()
        found = newest_good(tmp_path, report=pytest.fail)
        assert found is not None
    remove_parts(tmp_path)
    assert not list(tmp_path.glob(f"*{PART}"))
