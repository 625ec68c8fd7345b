"""Two processes: same order, same weights, exact scores, one decision, one step to stop at."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.run.tiny import TinyTask, tiny_data
from visionkit.data.samplers import TrainBatchSampler

pytestmark = pytest.mark.dist


def launched(out, root, world):
    """What the processes tell that torchrun starts."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "tests/run/ddp_worker.py", str(out)],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-30_000:]
    return collected(out, world)


def collected(out, world):
    # A thread that is left over may abort the process while Python ends.
    assert [json.loads((out / f"end-{rank}.json").read_text()) for rank in range(world)] == [[]] * world
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def told(tmp_path_factory, zygote):
    """What two forked processes tell; in the slow suite torchrun starts them."""
    out = tmp_path_factory.mktemp("ddp")
    ranks = zygote.world("tests.run.ddp_worker:start", 2, str(out), whole_end=True)
    assert [rank.wait(280) for rank in ranks] == [0, 0], "\n".join(rank.said()[-15_000:] for rank in ranks)
    return collected(out, 2)


def test_the_shares_make_the_global_order(told):
    order = TrainBatchSampler(30, batch_size=8, seed=5)
    alone = [[f"noise-1-{i}" for i in batch] for epoch in (0, 1) for batch in order.global_batches(epoch)]
    both = [a[1] + b[1] for a, b in zip(told[0]["seen"], told[1]["seen"], strict=True)]
    assert both == alone
    assert len(both) == 6


def test_weights_and_scores_agree(told):
    assert told[0]["digest"] == told[1]["digest"]
    assert told[0]["scores"] == told[1]["scores"]
    assert len(told[0]["scores"]) == 2


def test_score_is_that_of_one_process(told):
    # 11 validation images: 6 on one process, 5 on the other, none twice.
    assert all(abs(score * 11 - round(score * 11)) < 1e-9 for score in told[0]["scores"])


def test_a_step_makes_no_collective_but_the_gradients(told):
    for rank in told:
        counted, logged = rank["counted"], rank["logged"]
        assert counted["buckets"] > 1
        # Four updates: one all-reduce for each bucket of gradients and nothing else, in Python or in C++.
        assert counted["operations"] == {"c10d::allreduce_": 4 * counted["buckets"]}
        # Beside it, one question to the key-value store an update (was anybody asked to stop?), no answer.
        assert counted["store"] == {"check": 4}
        # An update that is logged adds one all-reduce of the sums since the last.
        assert logged["operations"] == {"c10d::allreduce_": 4 * logged["buckets"] + 2}
        assert logged["store"] == {"check": 4}


def test_a_signal_to_one_process_stops_both_at_the_same_update_and_resumes_exactly(told):
    assert len(told[0]["stops"]) == 3
    for name, (step, weights) in told[0]["stops"].items():
        assert told[1]["stops"][name] == [step, weights], name
        assert step is not None, name
        assert weights == told[0]["digest"], name


@pytest.mark.slow
def test_two_processes_of_torchrun_tell_the_same(told, tmp_path, root):
    for one, other in zip(launched(tmp_path, root, 2), told, strict=True):
        assert one.keys() == other.keys()
        differ = {name for name in one if one[name] != other[name]}
        assert differ <= {"poisoned"}, "the error names the folder of the run"
        assert one["poisoned"].partition("/")[0] == other["poisoned"].partition("/")[0]


@pytest.mark.slow
def test_three_processes_resume_with_the_same_bits(tmp_path, root):
    three = launched(tmp_path, root, 3)
    whole = three[0]["digest"]
    for told in three:
        assert told["digest"] == whole
        assert len(told["stops"]) == 3
        for name, (step, weights) in told["stops"].items():
            assert step is not None, name
            assert weights == whole, name


def test_signals_that_come_in_turn_stop_both_at_the_same_update(told):
    assert told[0]["in_turn"] == told[1]["in_turn"]
    assert told[0]["in_turn"][0] == [3]


def test_a_nan_on_one_process_stops_both(told):
    for rank, other in enumerate(told):
        assert "not finite at update 2" in other["poisoned"], rank
        assert f"(process {rank})" in other["poisoned"]
        assert other["clean"]


def test_empty_shards_and_fewer_samples_than_processes():
    from visionkit.data.samplers import EvalBatchSampler

    for size in (0, 1, 2, 5, 11):
        for world in (1, 2, 3, 4):
            shares = [
                list(EvalBatchSampler(size, batch_size=2, rank=r, world_size=world)) for r in range(world)
            ]
            got = sorted(key.index for share in shares for batch in share for key in batch)
            assert got == list(range(size))
            assert all(len(share) >= 1 for share in shares)


def test_one_process_reference_runs(tmp_path):
    # The helper itself is sound: a batch of it trains alone.
    torch.manual_seed(0)
    assert len(tiny_data().train_order()) == 7
    assert TinyTask.monitor == ("val/top1", "max")
