"""Checkpoints under kills, on full disks, and damaged: a sound one is always there, and faults are named."""

from __future__ import annotations

import random
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.test_kills import EPOCHS, STEPS, Whole, command, outcome, steps_of
from tests.run.test_checkpoint import DAMAGE, content
from visionkit.errors import DataError
from visionkit.files import PART, remove_parts
from visionkit.run.storage.checkpoint import (
    MANIFEST,
    AtomicCheckpointIO,
    load_checkpoint,
    newest_good,
)

pytestmark = pytest.mark.dist
FULL = r"could not be written: .*About (\d+) bytes are needed and (\d+) bytes are free"


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.faults)])
@pytest.mark.check("R05", "killed while writing, temporary folder on another file system: none corrupt")
def test_kills_while_writing_leave_no_corrupt_file(zygote, tmp_path, figure, kills):
    elsewhere = Path("/dev/shm")
    env = {}
    if elsewhere.is_dir() and elsewhere.stat().st_dev != tmp_path.stat().st_dev:
        env["TMPDIR"] = tempfile.mkdtemp(dir=elsewhere)
    rng, sound, where, newest = random.Random(5), 0, Counter[str](), 0
    for number in range(kills):
        child = zygote.start("keep_saving", str(tmp_path), rng.choice([0.5, 4.0, 16.0]), env=env)
        limit = rng.uniform(0.01, 0.25)
        while child.cpu() < limit:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        child.kill()
        assert child.wait() == -9, child.said()
        parts = list(tmp_path.glob(f"*{PART}"))
        where["in the file"] += any(MANIFEST not in part.name for part in parts)
        where["in the manifest"] += any(MANIFEST in part.name for part in parts)
        where["elsewhere"] += not parts
        found = [tmp_path / name for name in ("last.ckpt", "previous.ckpt") if (tmp_path / name).exists()]
        loaded = [load_checkpoint(path) for path in found]  # every file under a final name is whole
        if number >= kills // 4:
            assert found
            assert newest_good(tmp_path, report=pytest.fail) == found[0]
        newest = max(newest, *(part["number"] for part in loaded), 0)
        sound += 1
        remove_parts(tmp_path)
        assert not list(tmp_path.glob(f"*{PART}"))
    assert newest >= 2
    if kills >= 100:
        assert where["in the file"] >= kills // 10, where
    other = "another file system" if env else "the same file system"
    figure(sound, kills, f"{other}; killed " + ", ".join(f"{k} {n}" for k, n in sorted(where.items())))
    if env:
        assert not list(Path(env["TMPDIR"]).iterdir()), "nothing is written to the temporary folder"


@pytest.mark.check("R07", "damaged checkpoints: each named, none executed, the previous one used")
def test_every_damage_is_named(tmp_path, figure):
    named = 0
    for name, (damage, text) in DAMAGE.items():
        place = tmp_path / name.replace(" ", "-") / "last.ckpt"
        for step in (1, 2):
            AtomicCheckpointIO().save_checkpoint(content(global_step=step), place)
        damage(place)
        with pytest.raises(DataError, match=text):
            load_checkpoint(place)
        told: list[str] = []
        found = newest_good(place.parent, report=told.append)
        assert found is not None
        assert (found.name, load_checkpoint(found)["global_step"]) == ("previous.ckpt", 1)
        assert str(place) in told[0]
        assert not (place.parent / "marker").exists()
        named += 1
    figure(named, len(DAMAGE))
    assert named >= 12


def test_the_best_checkpoint_is_known_however_old_it_is(tmp_path):
    door = AtomicCheckpointIO()
    door.save_checkpoint({"state_dict": {}, "best": True}, tmp_path / "best.ckpt")
    for number in range(100):
        door.save_checkpoint({"state_dict": {}, "number": number}, tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path / "best.ckpt")["best"]
    assert load_checkpoint(tmp_path / "previous.ckpt")["number"] == 98
    assert (tmp_path / MANIFEST).stat().st_size < 10_000


@pytest.mark.parametrize("points", [6, pytest.param(30, marks=pytest.mark.faults)])
@pytest.mark.check("R37", "disk full at random points of a checkpoint: the old one intact, bytes named")
def test_a_full_disk_leaves_the_old_checkpoint(zygote, tmp_path, figure, points):
    folder, rng = tmp_path / "disk", random.Random(7)
    folder.mkdir()
    limits = [rng.randrange(1, 2_000_000) for _ in range(points)]
    *told, room = zygote.run("save_on_a_full_disk", str(folder), limits, 2.0)
    good = 0
    for limit, one in zip(limits, told, strict=True):
        numbers = re.search(FULL, one["said"])
        assert numbers is not None, (limit, one)
        assert str(folder / "last.ckpt") in one["said"]
        if room["kind"] == "tmpfs":
            assert int(numbers.group(2)) <= limit + 8192, (limit, one)
        good += one["intact"] and one["again"]
    figure(good, points, room["kind"])


@pytest.mark.parametrize("points", [pytest.param(12, marks=pytest.mark.faults)])
@pytest.mark.check("R37", "disk full somewhere in the recipe: named, and the same command finishes it")
def test_a_recipe_on_a_full_disk_goes_on_when_there_is_room(zygote, tmp_path, figure, points):
    whole, rng = Whole(zygote, tmp_path / "whole"), random.Random(8)
    good, kinds = 0, set()
    for number in range(points):
        folder = tmp_path / f"disk-{number}"
        folder.mkdir()
        words = command(folder / "run")[:-2]
        room = rng.randrange(1, 20_000_000) if number % 3 else rng.randrange(1, 20_000)
        told = zygote.run("recipe_on_a_full_disk", str(folder), words, room)
        assert told["full"] == 1, told
        assert re.search(r"write|written", told["full said"]), told["full said"]
        assert re.search(r"\d+ bytes are free", told["full said"]), told["full said"]
        assert "Traceback" not in told["full said"]
        assert str(folder) in told["full said"]
        assert told["free"] == 0, told["free said"]
        steps = steps_of(tmp_path / f"disk-{number}.steps")
        assert steps == whole.steps
        assert len(steps) == EPOCHS * STEPS
        assert outcome(tmp_path / f"disk-{number}-run") == whole.outcome
        kinds.add(told["kind"])
        good += 1
    figure(good, points, ", ".join(sorted(kinds)))
