"""A run is not continued as another one: data, classes, batch, processes and code are what they were."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.faults.children import StopAt, StopError, tiny_trainer
from tests.run.tiny import TinyTask, tiny_data
from visionkit import __version__
from visionkit.errors import InputError


def photos(root: Path) -> Path:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (40, 36), (20 * i, 0, 99)).save(root / split / name / f"{i}.png")
    return root


@pytest.mark.dist
@pytest.mark.check("R10", "resume with other data, classes, batch or code: refused, both values shown")
def test_another_run_is_refused_with_both_values(zygote, tmp_path, figure):
    data, out = photos(tmp_path / "photos"), tmp_path / "run"
    words = [
        "--data",
        data,
        "--backbone",
        "timm/test_resnet",
        "--init",
        "scratch",
        "--seeds",
        0,
        "--out",
        out,
    ]
    words += ["--image_size", 32, "--batch_size", 4, "--epochs", 3, "--checkpoint_every", 1]
    words = [str(word) for word in (*words, "--accelerator", "cpu", "--progress", "false")]
    child = zygote.start("classify", words, str(tmp_path / "steps"))
    while child.running() and not list(out.glob("*/checkpoints/previous.ckpt")):
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -9, child.said()
    saved = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in (".ckpt", ".yaml")}
    assert len(saved) >= 3

    def resumed(*more: str, version: str = __version__) -> str:
        ended = zygote.start("classify_as", version, [*words, *more], str(tmp_path / "steps"))
        assert ended.wait() == 2, ended.said()
        assert {path: path.read_bytes() for path in saved} == saved, "a refusal changes nothing"
        text = ended.said()
        assert "Traceback" not in text
        return re.sub(r"\s+", " ", text)

    refused = 0
    assert "batch_size was 4, is 8" in resumed("--batch_size", "8")
    assert f"code version was {__version__}, is 99.0" in resumed(version="99.0")
    Image.new("RGB", (400, 360)).save(data / "train/ant/3.png")
    shown = re.search(r"data was ({.*?}), is ({.*?})", resumed())
    assert shown is not None
    assert shown.group(1) != shown.group(2)
    Image.new("RGB", (40, 36), (60, 0, 99)).save(data / "train/ant/3.png")
    for split in ("train", "val"):
        (data / split / "bee").rename(data / split / "wasp")
    assert "classes was ['ant', 'bee'], is ['ant', 'wasp']" in resumed()
    for split in ("train", "val"):
        (data / split / "wasp").rename(data / split / "bee")
    refused += 4
    assert "expected a sound checkpoint" in _require(zygote, words, out, tmp_path)
    ended = zygote.start("classify", words, str(tmp_path / "steps"))
    assert ended.wait() == 0, ended.said()  # and with everything as it was it goes on
    figure(refused, 4)


def _require(zygote, words: list[str], out: Path, folder: Path) -> str:
    bare = folder / "bare"
    shutil.copytree(out, bare)
    for path in bare.rglob("*.ckpt"):
        path.unlink()
    more = [str(bare) if word == str(out) else word for word in words]
    child = zygote.start("classify", [*more, "--resume", "require"], str(folder / "bare-steps"))
    assert child.wait() == 2, child.said()
    return child.said()


@pytest.mark.check("R10", "resume with another number of images an update: refused, both values shown")
def test_other_processes_or_batches_are_refused(tmp_path, figure):
    refused = 0
    for number, (batch, accumulate, shown) in enumerate(((8, 1, "of 4 .*is of 8"), (4, 2, "of 4 .*is of 8"))):
        folder = tmp_path / str(number)
        with pytest.raises(StopError):
            tiny_trainer(folder, StopAt("end", 3), every=1).fit(
                TinyTask(), datamodule=tiny_data(batch_size=4)
            )
        torch.manual_seed(0)
        trainer = tiny_trainer(folder, every=1, accumulate=accumulate)
        data = tiny_data(batch_size=batch)
        with pytest.raises(InputError, match=shown):
            trainer.fit(TinyTask(), datamodule=data, ckpt_path=folder / "last.ckpt")
        refused += 1
    figure(refused, 2)
