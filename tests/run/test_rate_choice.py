# ruff: noqa: E501
"""`--lrs`: every arm tries the same rates on validation, test images see the best one only, and it is shown."""

from __future__ import annotations

import json

import pytest

from tests.run.make_runs import make_run
from visionkit import cli
from visionkit.compare import compare, headline
from visionkit.compare.rate_choice import read_choices
from visionkit.compare.report.held_equal import differing_sentences, equal_sentences
from visionkit.compare.summary import summary_text
from visionkit.errors import InputError, RunError
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.requests import requests
from visionkit.run.sweep.arms import run_recipe

# The score of an arm by rate and fraction; None: the loss is no number.
SCORES = {
    "pretrained": {0.001: 0.7, 0.01: 0.6, 0.1: None},
    "scratch": {0.001: 0.3, 0.01: 0.4, 0.1: 0.5},
}


@pytest.fixture(autouse=True)
def _no_measure(monkeypatch):
    monkeypatch.setattr("visionkit.run.sweep.announce_plan.measure", lambda *_: None)


def settings(out, **changes):
    plain = {"accelerator": "cpu", "devices": "1", "jobs": 1, "seeds": [3, 4], "lrs": [0.01, 0.001, 0.1]}
    return RunConfig(**plain | changes, out=str(out))


def faked(calls):
    """A recipe's `train` that writes a finished run at once, and notes whether it may look at test images."""

    def train(one, folder):
        calls.append((folder.parent.name, folder.name, requests().test))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(json.dumps(to_dict(one)))
        score = SCORES[one.init][one.lr]
        if score is None:
            raise RunError("The loss was nan in update 3.")
        schedule = {"images": 100, "epochs": 6, "global_batch": 4, "shape": "cosine", "lr": one.lr}
        made = make_run(
            folder.parent / "made", one.init, one.seeds[0], one.fractions[0],
            points=[(50, score / 2), (100, score + 0.001 * one.seeds[0])], config=to_dict(one),
            changes={"schedule": one.schedules[0], "equal": {"norm": "batch", "schedule": schedule}},
        )  # fmt: skip
        for path in made.iterdir():
            if path.name != "config.yaml":
                path.rename(folder / path.name)
        return json.loads((folder / "result.json").read_text())

    return train


def test_each_arm_tries_every_rate_once_and_is_trained_at_its_best(tmp_path, capsys):
    calls = []
    run_recipe(settings(tmp_path / "out"), faked(calls))
    tried = [name for parent, name, _ in calls if parent == "lrs"]
    assert tried == [
        f"{arm}-f1-lr{lr}-s3" for lr in ("0.001", "0.01", "0.1") for arm in ("pretrained", "scratch")
    ]
    trained = [name for parent, name, _ in calls if parent == "out"]
    assert trained == [
        f"{arm}-s{seed}" for seed in (3, 4) for arm in ("pretrained-f1-lr0.001", "scratch-f1-lr0.1")
    ]
    assert {(parent, test) for parent, _, test in calls} == {("lrs", False), ("out", True)}
    text = " ".join(capsys.readouterr().out.split())
    assert "6 runs of schedule 1x choose the rates, in lrs/" in text
    assert (
        "rate of scratch, 100% of the data: best 0.1 (val/top1 by rate: 0.001: 0.3030, 0.01: 0.4030, 0.1: 0.5030)"
        in text
    )
    warning = "The best rate of scratch with 100% of the data, 0.1, is the highest that was tried: add higher ones to --lrs."
    assert text.count(warning) == 2  # when it is chosen, and beside the comparison
    # Again from the disk, where the differing rates are no fault.
    calls.clear()
    found = compare([tmp_path / "out"])
    assert headline(found)[0].startswith("Pretrained beats scratch")
    assert warning in summary_text(found, width=1000)
    assert dict(equal_sentences(found))["Learning"].startswith(
        "each arm at the best on validation of the rates 0.001, 0.01, 0.1, cosine schedule"
    )
    assert [text.rpartition("; ")[2] for _, text in differing_sentences(found)] == [
        "rate 0.001.",
        "rate 0.1.",
    ]
    report = (tmp_path / "out/report.html").read_text()
    assert "The learning rates" in report
    assert warning in report
    assert "failed: RunError: The loss was nan in update 3." in report
    table = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [(each["arm"], each["lr"]) for each in table["rates"]] == [("pretrained", 0.001), ("scratch", 0.1)]
    assert table["rates"][0]["rates"][2]["score"] is None
    assert cli.main(["compare", str(tmp_path / "out")]) == 0
    assert not calls


def test_more_rates_train_what_is_new_and_leave_out_what_was_trained_at_another(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(SCORES, "scratch", {0.001: 0.3, 0.01: 0.4, 0.1: 0.5, 1.0: 0.6})
    monkeypatch.setitem(SCORES, "pretrained", SCORES["pretrained"] | {1.0: 0.1, 0.1: 0.2})
    calls = []
    run_recipe(settings(tmp_path / "out"), faked(calls))
    calls.clear()
    run_recipe(settings(tmp_path / "out", lrs=[0.001, 0.01, 0.1, 1.0]), faked(calls))
    assert [name for _, name, _ in calls] == [
        "pretrained-f1-lr1-s3", "scratch-f1-lr1-s3", "scratch-f1-lr1-s3", "scratch-f1-lr1-s4",
    ]  # fmt: skip
    found = compare([tmp_path / "out"])
    assert len(found.records) == 4
    reasons = [item["reason"] for item in found.skipped]
    assert reasons == ["trained at the rate 0.1; the best of --lrs is now 1"] * 2


def test_no_rate_that_works_ends_the_command_and_a_wrong_setting_is_no_poor_rate(tmp_path):
    with pytest.raises(
        RunError, match=r"No rate of --lrs gave pretrained a score with 100% of the data.*lrs say why"
    ):
        run_recipe(settings(tmp_path / "a", lrs=[0.1]), faked([]))

    def refuse(one, folder):
        raise InputError("No such backbone.")

    with pytest.raises(InputError, match="No such backbone"):
        run_recipe(settings(tmp_path / "b"), refuse)


def test_rates_of_their_own_are_refused_without_a_choice(tmp_path):
    for init, lr in (("pretrained", 0.001), ("scratch", 0.1)):
        make_run(tmp_path, init, config={"lr": lr})
    with pytest.raises(InputError, match=r"lr: 0\.001 in"):
        compare([tmp_path])
    assert read_choices(tmp_path) == ()
