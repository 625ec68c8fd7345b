"""SIGTERM and SIGUSR1 at random times, to one process or to all: one update, one status, no bit changed."""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.zygote import Zygote
from visionkit.run.storage.checkpoint import load_checkpoint

pytestmark = pytest.mark.dist
BATCHES = 3 * 3  # three epochs of three global batches


def reached(place: Path) -> int:
    try:
        return int(place.read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def preempt(zygote: Zygote, folder: Path, world: int, rng: random.Random) -> str:
    """Signal a run somewhere, start it again, and return its weights; say where it stopped."""
    number = rng.choice([signal.SIGTERM, signal.SIGUSR1])
    whom = rng.choice([[0], [world - 1], list(range(world))])
    at, workers = rng.randrange(1, BATCHES * 2 // world - 1), rng.choice([0, 0, 2])
    ranks = zygote.world("train_until_told", world, str(folder), world, workers)
    while reached(folder / f"batch-{whom[0]}") < at and ranks[whom[0]].running():
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.02))
    for rank in whom:
        ranks[rank].kill(number)
    codes = [rank.wait(300) for rank in ranks]
    said = [rank.said() for rank in ranks]
    if (folder / "done-0").exists():  # the signal came when training was over
        assert set(codes) <= {0, -number}, (codes, said)
    else:
        assert codes == [75] * world, (codes, said)
        stops = {re.search(r"saved after update (\d+)", text).group(1) for text in said}
        assert len(stops) == 1, said
        assert load_checkpoint(folder / "last.ckpt")["global_step"] == int(stops.pop())
        again = zygote.world("train_until_told", world, str(folder), world, workers)
        assert [rank.wait(300) for rank in again] == [0] * world, again[0].said()
    weights = {(folder / f"done-{rank}").read_text() for rank in range(world)}
    assert len(weights) == 1
    return weights.pop()


@pytest.mark.parametrize("signals", [3, pytest.param(50, marks=pytest.mark.faults)])
@pytest.mark.check(
    "R09", "SIGTERM or SIGUSR1 at random times: same update everywhere, status 75, no bit lost"
)
def test_signals_at_random_times(zygote, tmp_path, figure, signals):
    rng, clean, count = random.Random(9), 0, Counter[str]()
    whole = {}
    for world in (1, 2):
        folder = tmp_path / f"whole-{world}"
        folder.mkdir()
        ranks = zygote.world("train_until_told", world, str(folder), world, 0)
        assert [rank.wait(300) for rank in ranks] == [0] * world, ranks[0].said()
        whole[world] = (folder / "done-0").read_text()
    for number in range(signals):
        world = 1 if number % 5 == 4 else 2
        folder = tmp_path / str(number)
        folder.mkdir()
        assert preempt(zygote, folder, world, rng) == whole[world]
        count[f"{world} process{'es' * (world > 1)}"] += 1
        clean += 1
    figure(clean, signals, ", ".join(f"{name} {n}" for name, n in sorted(count.items())))
