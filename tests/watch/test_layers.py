"""The drawings of `visionkit watch`: every task, networks of several kinds, and checkpoints that change."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from tests.contracts.task_cases import TASKS
from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.run.storage.checkpoint import AtomicCheckpointIO
from visionkit.tasks import Classifier
from visionkit.watch.draw import draw
from visionkit.watch.drawing import Drawing
from visionkit.watch.layers import filter_part, find_layers
from visionkit.watch.run_folder import RunFolder

NOISE = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]


def save(task: nn.Module, path: Path, *, step: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "global_step": step,
        "visionkit": {"update": 8},
    }
    task.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)


@pytest.mark.parametrize("case", TASKS, ids=lambda case: case.name)
def test_every_task_shows_its_filters_and_maps_from_a_checkpoint(tmp_path: Path, case) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    save(case.build("scratch", TransferConfig(), OptimConfig()), path)
    images = []
    for number in range(2):
        images.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 48), (200, 40 * number, 10)).save(images[-1])
    drawn = draw(path, images)
    assert drawn["images_seen"] == 24
    assert drawn["note"] == ""
    first, *maps = drawn["parts"]
    assert "First convolution" in first["title"]
    assert int(first["rows"]["inputs"]) == 3
    assert [part["title"].split(":")[0] for part in maps][:3] == ["Reduction 2", "Reduction 4", "Reduction 8"]
    assert "16x12" in maps[1]["title"] or "12x16" in maps[1]["title"]
    for part in drawn["parts"]:
        assert Image.open(io.BytesIO(base64.b64decode(part["png"]))).width > 100
        assert part["about"]


def test_networks_of_other_kinds_are_asked_not_known_by_name() -> None:
    vit = find_layers(
        Classifier("timm/vit_tiny_patch16_224", init="scratch", num_classes=2).eval(),
        [torch.rand(3, 224, 224)],
    )
    assert tuple(vit.convolution.kernel_size) == (16, 16)
    assert [(level.reduction, level.maps[0].shape) for level in vit.maps] == [(16, (192, 14, 14))]
    swin = find_layers(
        Classifier("timm/swin_tiny_patch4_window7_224", init="scratch", num_classes=2).eval(),
        [torch.rand(3, 224, 224)],
    )
    assert [level.reduction for level in swin.maps] == [4, 8, 16, 32]
    assert swin.maps[-1].maps[0].shape == (768, 7, 7)

    class Flat(nn.Module):
        dim = 6

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 6)

        def forward(self, images):
            return self.layer(images.mean((2, 3)))

    flat = find_layers(Classifier(Flat(), init="scratch", num_classes=2).eval(), NOISE)
    assert flat.convolution is None
    assert flat.maps == []
    deep = nn.Conv2d(12, 100, 3)
    part = filter_part(deep, 3)
    assert "64 of 100" in part["title"]
    assert "mean over its inputs" in part["about"]


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    with pytest.raises(InputError, match="no such file"):
        draw(path, [])
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "hyper_parameters": {}}, path)
    with pytest.raises(InputError, match="Expected a task of visionkit"):
        draw(path, [])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"damaged|altered"):
        draw(path, [])


@pytest.mark.slow  # starts a process that imports torch at the lowest priority
def test_a_process_of_low_priority_draws_each_new_checkpoint_while_somebody_looks(tmp_path: Path) -> None:
    run, drawing = RunFolder(tmp_path), Drawing()
    task = Classifier("timm/resnet10t", init="scratch", num_classes=2)

    def frames(count: int, of: RunFolder = run) -> dict:
        for _ in range(1200):
            shown = drawing.look(of)
            if len(shown["frames"]) >= count:
                return shown
            time.sleep(0.1)
        raise TimeoutError(shown)

    try:
        assert drawing.pid is None
        drawing.look(run)
        time.sleep(1.5)
        assert "No checkpoint yet" in drawing.look(run)["note"]
        assert drawing.pid is None  # nothing to draw, nothing started
        save(task, run.checkpoint, step=1)
        first = frames(1)["frames"][0]
        priority = Path(f"/proc/{drawing.pid}/stat")
        if priority.exists():
            assert int(priority.read_text().rpartition(")")[2].split()[16]) == 19
        group = Path(f"/proc/{drawing.pid}/autogroup")
        if group.exists() and group.read_text() != "\n":  # of the process's own session, not of this one
            assert group.read_text().split()[-1] == "19"
            assert group.read_text().split()[0] != Path("/proc/self/autogroup").read_text().split()[0]
        assert first["images"] == 8
        assert "grey noise" in drawing.look(run)["note"]
        assert drawing.png(run.key, first["parts"][0]["png"])[:4] == b"\x89PNG"
        pid = drawing.pid
        save(task, run.checkpoint, step=2)
        drawing._rest_until = 0.0
        assert [frame["images"] for frame in frames(2)["frames"]] == [8, 16]
        assert drawing.pid == pid
        assert drawing.png(run.key, "9-0.png") is None
        drawing._rest_until = time.monotonic() + 3600.0  # as after a drawing that took three minutes
        save(task, run.checkpoint, step=3)
        time.sleep(2.5)
        assert len(drawing.look(run)["frames"]) == 2
        other = RunFolder(tmp_path / "other")
        other.checkpoint.parent.mkdir(parents=True)
        save(task, other.checkpoint, step=1)
        assert len(frames(1, other)["frames"]) == 1  # the first drawing of a run does not wait
        drawing._rest_until = 0.0
        assert len(frames(3)["frames"]) == 3
    finally:
        drawing.close()
    assert drawing.pid is None
