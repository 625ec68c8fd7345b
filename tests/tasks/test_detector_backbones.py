"""Detectors over the registry: one network of each family, and all of them in the slow suite."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.contracts.cases import BACKBONES, MORE_BACKBONES
from tests.contracts.quick_weights import quick_weights
from tests.tasks.detector_over import ASKED, detect_over
from visionkit.backbones import list_backbones

# More than 7 million parameters: for the slow suite.
LARGE = {
    "timm/hrnet_w18_small", "timm/legacy_seresnet18", "timm/levit_128s", "timm/poolformerv2_s12",
    "timm/resnest14d", "timm/resnetv2_18", "timm/skresnet18", "timm/swin_tiny_patch4_window7_224",
    "timm/vgg11", "torchvision/densenet121", "torchvision/maxvit_t", "torchvision/swin_t",
    "torchvision/vit_b_16",
}  # fmt: skip

# Too large for a machine of 24 GB: more than 2,500 million parameters, or images of 448 or 512 only.
TOO_LARGE = {
    "timm/aimv2_3b_patch14_224", "timm/aimv2_3b_patch14_336", "timm/aimv2_3b_patch14_448",
    "timm/cait_m48_448", "timm/eva02_enormous_patch14_clip_224", "timm/maxvit_xlarge_tf_512",
    "timm/swinv2_cr_giant_224", "timm/swinv2_cr_giant_384", "timm/vit_5b_patch16_sapiens2",
    "timm/vit_7b_patch16_dinov3",
}  # fmt: skip


def _hold(cases: dict[str, tuple[int, ...]], detector: str) -> list[dict]:
    asked = ASKED[detector]
    cases = {name: tuple(each for each in has if each in asked) or has for name, has in cases.items()}
    rows = [detect_over(name, reductions=has, detector=detector) for name, has in cases.items()]
    assert [row for row in rows if row["status"] == "crash"] == []
    for row in rows:
        assert tuple(row["reductions"]) == cases[row["name"]], row
        assert bool(row["reason"]) == (cases[row["name"]] != asked), row
    return rows


def test_a_keypoint_head_over_maps_at_four_sizes_at_one_and_at_none():
    names = ("timm/test_efficientnet", "timm/test_vit", "torchvision/alexnet")
    rows = _hold({name: BACKBONES[name] for name in names}, "keypoint_rcnn")
    assert [row["status"] for row in rows] == ["passes", "passes", "refused"]


@pytest.mark.slow
@pytest.mark.parametrize("detector", ASKED)
def test_a_step_over_one_small_network_of_each_family(detector):
    with quick_weights():
        rows = _hold({name: has for name, has in BACKBONES.items() if name not in LARGE}, detector)
    assert len(rows) >= 40
    assert sum(row["status"] == "passes" for row in rows) >= 38
    assert sum(row["status"] == "refused" for row in rows) >= 2
    assert sum(row["reductions"] == list(ASKED[detector]) for row in rows) >= 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("detector", ASKED)
def test_a_step_over_every_family(detector, tmp_path):
    """One network of each family; `VISIONKIT_FAMILIES` names a file for the rows."""
    rows = _hold({**BACKBONES, **MORE_BACKBONES}, detector)
    assert len(rows) >= 95
    table = Path(os.environ.get("VISIONKIT_FAMILIES", tmp_path / "families.jsonl"))
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_step_over_every_name(tmp_path):
    """Every name of the registry that fits; `VISIONKIT_TABLE` names a file to go on from, line by line."""
    table = Path(os.environ.get("VISIONKIT_TABLE", tmp_path / "detectors.jsonl"))
    done = {json.loads(line)["name"] for line in table.read_text().splitlines()} if table.exists() else set()
    names = set(list_backbones())
    assert names >= TOO_LARGE
    names -= TOO_LARGE
    with table.open("a") as out, quick_weights():
        for name in sorted(names - done):
            out.write(json.dumps(detect_over(name)) + "\n")
            out.flush()
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert {row["name"] for row in rows} >= names
    assert [row for row in rows if row["status"] == "crash"] == []
