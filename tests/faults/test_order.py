"""Order and score do not depend on cuts, processes or workers."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.children import digest, go_until
from tests.run.tiny import Noise
from visionkit.data.samplers import BalancedBatchSampler, EvalBatchSampler, TrainBatchSampler


def walk(order: TrainBatchSampler, position: list[int], until: int) -> list[list[tuple[int, int]]]:
    """Take batches as a Trainer does, a new iterator each epoch, and count them in `position`."""
    taken = []
    while position[0] < until:
        for batch in order:
            taken.append([tuple(key) for key in batch])
            position[0] += 1
            if position[0] == until:
                return taken
    return taken


@st.composite
def cut_runs(draw):
    world, batch = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = draw(st.integers(world, 60))
    epochs = draw(st.integers(1, 4))
    steps = TrainBatchSampler(size, batch_size=batch, seed=0, world_size=world).steps
    cuts = draw(st.lists(st.tuples(st.integers(0, epochs * steps), st.integers(0, 3)), max_size=6))
    return world, batch, size, epochs, steps, sorted(cuts), draw(st.integers(0, 10**6))


COUNT = {"runs": 0, "cuts": 0}


@settings(max_examples=300)
@given(cut_runs())
def _each_sample_once(run):
    world, batch, size, epochs, steps, cuts, seed = run
    # Each cut loses up to three batches: the run goes on from the checkpoint before.
    kept: list[dict[int, list]] = [{} for _ in range(world)]
    for rank in range(world):
        position = [0]
        order = TrainBatchSampler(
            size, batch_size=batch, seed=seed, rank=rank, world_size=world, position=lambda p=position: p[0]
        )
        for until, lost in [*cuts, (epochs * steps, 0)]:
            start = position[0]
            for place, taken in enumerate(walk(order, position, until), start):
                assert kept[rank].setdefault(place, taken) == taken
            position[0] = max(0, max(position[0], start) - lost)
        for place, taken in enumerate(walk(order, position, epochs * steps), position[0]):
            assert kept[rank].setdefault(place, taken) == taken
    width = order.batch_size * world
    for epoch in range(epochs):
        seen = Counter(
            index
            for rank in range(world)
            for place in range(epoch * steps, (epoch + 1) * steps)
            for at, index in kept[rank][place]
            if at == epoch
        )
        assert set(seen.values()) == {1}
        assert len(seen) == steps * width
        assert size - len(seen) < width
    COUNT["runs"] += 1
    COUNT["cuts"] += len(cuts)


@pytest.mark.check("R03", "each sample exactly once an epoch, whatever the cuts")
def test_each_sample_once_an_epoch(figure):
    COUNT.update(runs=0, cuts=0)
    _each_sample_once()
    figure(COUNT["runs"], COUNT["runs"], f"{COUNT['cuts']} cuts")


BOUNDARY = {"cases": 0}


@st.composite
def boundaries(draw):
    size, batch = draw(st.integers(5, 21)), draw(st.integers(2, 5))
    steps = max(1, size // batch)
    where = draw(st.sampled_from(["start", "end", "validation", "epoch"]))
    epochs = 3
    edges = [e * steps + d for e in range(epochs + 1) for d in (-1, 0, 1)]
    places = [place for place in edges if 1 <= place <= epochs * steps]
    at = draw(st.sampled_from(places) | st.integers(1, epochs * steps))
    if where in ("validation", "epoch"):
        at = -(-at // steps) * steps
    more = {
        "accumulate": draw(st.integers(1, 3)),
        "every": draw(st.integers(1, 4)),
        "ema": draw(st.booleans()),
        "workers": draw(st.sampled_from([0, 0, 0, 0, 0, 2])),
    }
    return size, batch, where, at, more


def _boundary(folder: Path):
    numbers = itertools.count()

    @given(boundaries())
    def check(case):
        size, batch, where, at, more = case
        number = next(numbers)
        settings_ = {"size": size, "batch": batch, **more}
        whole = go_until(folder / f"{number}-whole", None, **{**settings_, "workers": 0})
        first = go_until(folder / f"{number}-cut", (where, at), **settings_)
        again = go_until(folder / f"{number}-cut", None, **settings_)
        assert digest(again) == digest(whole)
        merged = {ready: (ids, loss) for ready, ids, loss in first.seen}
        for ready, ids, loss in again.seen:
            assert merged.setdefault(ready, (ids, loss)) == (ids, loss)
        assert merged == {ready: (ids, loss) for ready, ids, loss in whole.seen}, "lost or repeated steps"
        assert dict(first.validations) | dict(again.validations) == dict(whole.validations)
        BOUNDARY["cases"] += 1

    return check


@pytest.mark.parametrize("cases", [8, pytest.param(150, marks=pytest.mark.faults)])
@pytest.mark.check("R02", "stopped at epoch ends, middles, last and first batches, in validation: equal")
def test_every_boundary_resumes_exactly(tmp_path, figure, cases):
    BOUNDARY["cases"] = 0
    settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(_boundary(tmp_path))()
    figure(BOUNDARY["cases"], BOUNDARY["cases"], "accumulation, average and workers drawn")
    assert BOUNDARY["cases"] >= cases


# The 13 and the 12 leave a process without validation samples.
SIZES = [(36, 11, "shuffle"), (31, 7, "shuffle"), (13, 2, "shuffle"), (12, 1, "shuffle"), (33, 5, "balanced")]


@pytest.mark.parametrize(
    "grid",
    [
        [(1, 0), (2, 2), (3, 0)],
        pytest.param([(w, n) for w in (1, 2, 3) for n in (0, 1, 2, 4)], marks=pytest.mark.faults),
    ],
    ids=["short", "long"],
)
@pytest.mark.dist
@pytest.mark.check("R04", "1, 2, 3 processes and 0, 1, 2, 4 workers: one order, resumed too")
def test_order_is_that_of_one_process(zygote, tmp_path, figure, grid):
    same = 0
    for world, workers in grid:
        folder = tmp_path / f"{world}-{workers}"
        ranks = zygote.world("orders", world, str(folder), world, workers, SIZES)
        assert [rank.wait(240) for rank in ranks] == [0] * world, ranks[0].said()[-3000:]
        told = [rank.result() for rank in ranks]
        for size, valid, sampler in SIZES:
            reference = TrainBatchSampler(size, batch_size=12, seed=5)
            if sampler == "balanced":
                reference = BalancedBatchSampler(Noise(size, 1).labels, batch_size=12, seed=5)
            wanted = [sorted(b) for epoch in range(3) for b in reference.global_batches(epoch)]
            got = [part[str(size)]["train"] for part in told]
            assert [sorted(itertools.chain(*step)) for step in zip(*got, strict=True)] == wanted
            # Contiguous parts: joined in the order of the processes they are the very order of one.
            joined = [list(itertools.chain(*step)) for step in zip(*got, strict=True)]
            assert joined == [b for epoch in range(3) for b in reference.global_batches(epoch)]
            seen = sorted(index for part in told for index in part[str(size)]["val"])
            assert seen == list(range(valid))
            same += 1
        refused = {part["fewer"] for part in told}
        assert len(refused) == 1
        assert ("2 processes" in refused.pop()) if world == 2 else True
    figure(same, len(grid) * len(SIZES), f"{len(grid)} settings, {len(SIZES)} sizes")


@pytest.mark.parametrize(
    "grid",
    [
        [(1, 0), (2, 0), (3, 2)],
        pytest.param([(w, n) for w in (1, 2, 3) for n in (0, 1, 2, 4)], marks=pytest.mark.faults),
    ],
    ids=["short", "long"],
)
@pytest.mark.dist
@pytest.mark.check("R30", "scores of 1, 2, 3 processes and 0, 1, 2, 4 workers: difference 0")
def test_scores_are_those_of_one_process(zygote, figure, grid):
    told = {}
    sizes = [7, 1] if len(grid) < 12 else [11, 7, 2, 1]
    for world, workers in grid:
        ranks = zygote.world("scores", world, world, workers, sizes)
        assert [rank.wait(240) for rank in ranks] == [0] * world, ranks[0].said()[-3000:]
        results = [rank.result() for rank in ranks]
        assert all(result == results[0] for result in results), "every process knows the same score"
        told[(world, workers)] = results[0]
    reference = told[(1, 0)]
    assert len(reference) == 3 * len(sizes)
    worst = max(
        abs(values[name] - reference[case][name])
        for scores in told.values()
        for case, values in scores.items()
        for name in reference[case]
    )
    names = {name for values in reference.values() for name in values if name.count("/") == 1}
    equal = sum(scores[case] == reference[case] for scores in told.values() for case in reference)
    figure(equal, len(told) * len(reference), f"largest difference {worst:g}; {len(names)} scores of 3 tasks")


def test_a_share_may_be_empty():
    shares = [list(EvalBatchSampler(2, batch_size=4, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [1, 1, 1]
    assert shares[2] == [[]]
