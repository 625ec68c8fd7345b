"""A non-finite number never reaches the weights: 40 ways to bring one in, and the same on two processes."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.faults.children import fit_faulty
from tests.faults.faulty_task import KINDS, Case
from visionkit.run.storage.checkpoint import load_checkpoint

CASES = [
    *(Case(kind, (at,)) for kind in KINDS for at in (1, 4, 7)),
    *(Case(kind, (at,), accumulate=2) for kind in KINDS for at in (3, 10)),
    *(Case(kind, (5,), precision="bf16-mixed") for kind in ("nan loss", "inf beside the loss")),
    *(Case(kind, (9,), precision="bf16-mixed", accumulate=2) for kind in ("nan gradient", "nan image")),
    Case("inf gradient", (12,)),
]


@pytest.mark.check("R21", "non-finite losses, gradients and images: stopped, named, kept, checkpoint clean")
def test_every_fault_stops_the_run_before_the_weights(tmp_path, figure):
    caught = 0
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        task, _, text = fit_faulty(case, folder, 1)
        assert f"not finite at update {case.update} " in text, (case, text)
        assert all(name in text for name in task.faulty_ids), case
        assert all(torch.equal(v, task.before[k]) for k, v in task.named_parameters()), case
        kept = torch.load(folder / "faults" / f"step-{case.update}-rank-0.pt", weights_only=True)
        assert task.faulty_ids in [batch["ids"] for batch in kept["batches"]], case
        last = folder / "last.ckpt"
        if case.update:
            assert load_checkpoint(last)["global_step"] == case.update, case  # which refuses non-finite ones
        else:
            assert not last.exists()
        caught += 1
    figure(caught, len(CASES))
    assert len(CASES) == 40


@pytest.mark.check("R21", "left out k times, then stopped; weights and running statistics stay finite")
def test_as_many_are_left_out_as_allowed(tmp_path, figure):
    good = 0
    for number, kind in enumerate(KINDS):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            task, guard, text = fit_faulty(Case(kind, (3, 6), skip=2), tmp_path / f"{number}-a", 1)
        assert text == "", kind
        assert guard.skipped == 2
        assert sum("left out" in str(warning.message) for warning in said) == 2
        assert all(v.isfinite().all() for v in task.state_dict().values()), kind
        assert load_checkpoint(tmp_path / f"{number}-a" / "last.ckpt")["global_step"] == 14
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, guard, text = fit_faulty(Case(kind, (3, 6, 8), skip=2), tmp_path / f"{number}-b", 1)
        assert "at update 7 " in text, kind
        assert guard.skipped == 2
        assert load_checkpoint(tmp_path / f"{number}-b" / "last.ckpt")["global_step"] == 7
        good += 1
    figure(good, len(KINDS))


def test_a_skipped_update_is_as_if_it_had_not_been(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task, _, _ = fit_faulty(Case("nan image", (14,), skip=1), tmp_path, 1)
    # The last update of all was left out: what is left is the checkpoint before it.
    before = load_checkpoint(tmp_path / "previous.ckpt")
    assert before["global_step"] == 13
    for name, value in task.state_dict().items():
        assert torch.equal(value, before["state_dict"][name]), name


def test_a_loss_scale_may_overflow_a_few_times_but_not_for_ever(tmp_path, monkeypatch):
    from visionkit.run.callbacks import finite_guard as guard

    monkeypatch.setattr(guard, "_scaled", lambda trainer: True)
    case = Case("inf gradient", (2, 3, 4))
    _, made, text = fit_faulty(case, tmp_path / "a", 1)
    assert text == ""
    assert made.skipped == 0
    monkeypatch.setattr(guard, "OVERFLOWS", 2)
    assert "at update 3 " in fit_faulty(case, tmp_path / "b", 1)[2]


RANKS = [
    *(Case(kind, (at,), rank=rank) for kind in KINDS for at, rank in ((2, 1), (3, 0))),
    *(Case(kind, (1, 2), skip=2, rank=1) for kind in ("nan loss", "inf beside the loss", "nan gradient")),
    *(Case(kind, (1, 2), skip=1, rank=1) for kind in ("nan loss", "inf beside the loss", "nan gradient")),
]


@pytest.mark.dist
@pytest.mark.check("R22", "a non-finite number on one of two processes: both decide the same")
def test_two_processes_decide_the_same(zygote, tmp_path, figure):
    assert len(RANKS) == 20
    cases = [[c.kind, c.at, c.accumulate, c.precision, c.skip, c.rank] for c in RANKS]
    ranks = zygote.world("guard_on_ranks", 2, cases, str(tmp_path))
    codes = [rank.wait(240) for rank in ranks]
    assert codes == [0, 0], ranks[0].said()[-3000:] + ranks[1].said()[-3000:]
    same = 0
    for number, (case, first, second) in enumerate(zip(RANKS, *(r.result() for r in ranks), strict=True)):
        assert first == second, case
        assert first["finite"], case
        allowed = case.skip >= len(case.at)
        update = case.at[case.skip] - 1 if not allowed else None
        assert first["stopped"] == ("" if allowed else f"A loss or gradient is not finite at update {update}")
        assert first["skipped"] == min(case.skip, len(case.at))
        kept = list((tmp_path / str(number) / "faults").glob("*.pt"))
        assert len(kept) == 2 * (first["skipped"] + (not allowed)), "each process keeps its batch"
        same += 1
    figure(same, len(RANKS))
