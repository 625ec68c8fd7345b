# ruff: noqa: E501
"""The plan of a command, and what fits into a budget: by made-up speeds, and once by measured steps."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.run.make_runs import make_run
from tests.run.tiny import TinyTask, tiny_data
from visionkit.compare import compare
from visionkit.errors import InputError
from visionkit.run.command_line import parse
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.feedback.pace import parse_duration
from visionkit.run.sweep import announce_plan as announcing
from visionkit.run.sweep.arms import run_recipe
from visionkit.run.sweep.budget import LADDER, Axes, choose_axes, requested_axes, within
from visionkit.run.sweep.jobs import Placement
from visionkit.run.sweep.launch import launch
from visionkit.run.sweep.plan import Speed, estimate, plan_lines, total_seconds
from visionkit.run.sweep.runs import each_run
from visionkit.run.training.fit import fit

# 10 seconds to start; 100 images a second; 1,000 training, 500 validation, 250 test images.
SPEED = Speed(100.0, 500.0, 10.0, 1000, 500, 250)
SPEEDS = {"pretrained": SPEED, "scratch": SPEED}


def settings(out, **changes):
    plain = {
        "accelerator": "cpu",
        "devices": "1",
        "jobs": 1,
        "batch_size": 10,
        "images": 1000,
    }
    return RunConfig(**plain | changes, out=str(out))


def test_the_seconds_of_a_run_are_start_training_and_scoring(tmp_path):
    one = settings(tmp_path, schedules=[1])
    assert estimate(one, SPEED) == (1000, 10 + 10 + 1 + 0.5)  # one epoch, validated once, tested once
    assert estimate(one, SPEED, test=False) == (1000, 21)
    images, seconds = estimate(dataclasses.replace(one, fractions=[0.1], schedules=[4]), SPEED)
    # 4 times 10 epochs of 100 images, validated every second epoch: 40 / 12, down to what divides 40.
    assert (images, seconds) == (4000, 10 + 40 + 20 + 0.5)
    assert estimate(dataclasses.replace(one, images=0, epochs=2, schedules=[3]), SPEED)[0] == 6000
    runs = list(each_run(settings(tmp_path, seeds=[0, 1], init="scratch")))
    assert total_seconds([runs], SPEEDS, 1) == 43
    assert total_seconds([runs], SPEEDS, 2) == 21.5
    assert total_seconds([runs, runs], SPEEDS, 2) == 21 + 21.5, "the first of two stages has no test"
    (head, row) = plan_lines([runs], SPEEDS, Placement(2, 1, True))
    assert head == "plan: 2 runs, 2,000 images, about 22 s here, 2 at a time"
    assert row == "  100% of the data, schedule 1x: 2 runs of 1,000 images, 22 s each"
    assert plan_lines([runs], None, Placement(1, 1, True))[0] == "plan: 2 runs"
    made = make_run(tmp_path, "scratch", 0)
    assert made == runs[0][1]
    assert plan_lines([runs], SPEEDS, Placement(1, 1, True))[0].startswith(
        "plan: 1 runs (1 more are finished), 1,000 images"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90min", 5400), ("1h30m", 5400), ("1.5 h", 5400), ("45s", 45), ("1d", 86400)],
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_duration(text) == seconds


def test_what_is_no_time_is_refused():
    for text in ("", "2", "h", "2 hours", "-1h", "2h x"):
        with pytest.raises(InputError, match="--budget"):
            parse_duration(text)


def test_axes_grow_by_the_rule_and_what_does_not_fit_ends_its_axis():
    """The cost of a combination is its schedule."""

    def cost(axes):
        return sum(axes.schedules) * len(axes.fractions) * len(axes.seeds)

    assert choose_axes(LADDER, 1, cost) == Axes((1,), (1.0,), (0,))
    assert choose_axes(LADDER, 3, cost) == Axes((1,), (1.0,), (0, 1, 2))
    assert choose_axes(LADDER, 9, cost) == Axes((1, 2), (1.0,), (0, 1, 2))
    assert choose_axes(LADDER, 18, cost) == Axes((1, 2), (0.1, 1.0), (0, 1, 2))
    # 4x for both shares would be 42; a further seed does fit.
    assert choose_axes(LADDER, 41, cost) == Axes((1, 2), (0.1, 1.0), (0, 1, 2, 3, 4))
    assert choose_axes(LADDER, 42, cost) == Axes((1, 2, 4), (0.1, 1.0), (0, 1, 2))
    assert choose_axes(LADDER, 1e9, cost) == LADDER
    with pytest.raises(InputError, match=r"enough for one seed of each arm, which takes about 1.0 s here"):
        choose_axes(LADDER, 0.5, cost)
    # Whatever the budget: within it, and with more of it no fewer runs.
    before = 0
    for seconds in range(1, 200):
        chosen = choose_axes(LADDER, seconds, cost)
        assert cost(chosen) <= seconds
        assert set(chosen.seeds) <= set(LADDER.seeds)
        assert cost(chosen) >= before or seconds < 42
        before = cost(chosen)


def test_lists_that_are_given_are_what_is_chosen_from(tmp_path, capsys):
    config = settings(tmp_path, schedules=[1, 3], budget="1h")
    assert requested_axes(config) == Axes((1, 3), LADDER.fractions, LADDER.seeds)
    kept = settings(tmp_path, seeds=[0, 1], fractions=[1.0], budget="1h")  # as the defaults, but given
    assert requested_axes(kept) == Axes(LADDER.schedules, (1.0,), (0, 1))
    assert within(kept, SPEEDS, 1)[0].seeds == (0, 1)
    file = tmp_path / "given.yaml"
    file.write_text("seeds: [0, 1]\nbudget: 1h\n")
    for argv in (["--seeds", "0", "1", "--budget", "1h"], ["--config", str(file)]):
        assert requested_axes(parse(RunConfig, argv)) == Axes(LADDER.schedules, LADDER.fractions, (0, 1))
    with pytest.raises(SystemExit):
        parse(RunConfig, ["--budget", "1h", "--fractions", "1", "--print_config"])
    file.write_text(capsys.readouterr().out)
    printed = parse(RunConfig, ["--config", str(file)])
    assert requested_axes(printed) == Axes(LADDER.schedules, (1.0,), LADDER.seeds)
    axes, seconds = within(config, SPEEDS, 1)
    assert axes == requested_axes(config)
    assert seconds < 3600
    axes, seconds = within(dataclasses.replace(config, budget="140s"), SPEEDS, 1)
    assert axes == Axes((1,), (1.0,), (0, 1, 2))
    assert seconds == 6 * 21.5
    # The runs that choose the rates count too, without a test.
    tried = dataclasses.replace(config, budget="140s", lrs=[0.1, 0.01])
    assert within(tried, SPEEDS, 1) == (Axes((1,), (1.0,), (0,)), 4 * 21 + 2 * 21.5)


def faked(calls):
    def train(one, folder):
        calls.append(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        made = make_run(
            folder.parent / "made", one.init, one.seeds[0], one.fractions[0], points=[(one.schedules[0] * 50, 0.5)],
            config=to_dict(one), changes={"schedule": one.schedules[0], "equal": {"schedule": one.schedules[0]}},
        )  # fmt: skip
        for path in made.iterdir():
            path.rename(folder / path.name)
        (folder / "config.yaml").write_text(json.dumps(to_dict(one)))
        return json.loads((folder / "result.json").read_text())

    return train


def test_a_budget_is_chosen_once_recorded_and_in_the_comparison(tmp_path, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(announcing, "measure", lambda *args: measured.append(args) or SPEEDS)
    out, calls = tmp_path / "out", []
    config = settings(out, budget="140s")
    run_recipe(config, faked(calls))
    assert len(calls) == 6
    text = capsys.readouterr().out
    assert "budget 140s: schedules 1, fractions 1.0, seeds 0 1 2" in text
    assert "left out, for the budget: schedules 2 4 8, fractions 0.1, seeds 3 4" in text
    assert "plan: 6 runs, 6,000 images, about 2.1 min here" in text
    found = compare([out])
    assert found.budget["chosen"] == {"schedules": [1], "fractions": [1.0], "seeds": [0, 1, 2]}
    assert json.loads((out / "comparison.json").read_text())["budget"]["left_out"]["seeds"] == [3, 4]
    assert any("left out, for the budget" in note for note in found.notes)
    # Started again it keeps to it, without measuring; another budget is chosen anew, and finished runs stay.
    run_recipe(config, faked(calls))
    assert (len(calls), len(measured)) == (6, 1)
    run_recipe(settings(out, budget="400s"), faked(calls))
    assert len(measured) == 2
    assert sorted(calls[6:]) == sorted(
        f"{arm}-f1-x2-s{seed}" for arm in ("pretrained", "scratch") for seed in (0, 1, 2)
    )
    with pytest.raises(InputError, match="enough for one seed"):
        run_recipe(settings(tmp_path / "small", budget="10s"), faked(calls))
    assert not (tmp_path / "small").exists()


def test_a_dry_run_measures_some_steps_prints_the_plan_and_leaves_nothing(tmp_path, capsys):
    def train(config, folder):
        return fit(config, TinyTask(), tiny_data(300, 4, seed=config.seeds[0]), folder=folder)

    flags = [
        "--out",
        str(tmp_path / "x"),
        "--accelerator",
        "cpu",
        "--devices",
        "1",
        "--jobs",
        "1",
        "--precision",
        "32-true",
    ]
    flags += [
        "--schedules",
        "1",
        "2",
        "--batch_size",
        "4",
        "--epochs",
        "1",
        "--lrs",
        "0.1",
        "0.01",
        "--dry_run",
    ]
    launch(lambda config: run_recipe(config, train), RunConfig, argv=flags, prog="classify.py")
    text = capsys.readouterr().out
    # Of 300 images: both arms at 300 and 600 with two seeds, and at 300 for each rate.
    assert "plan: 12 runs, 4,800 images, about " in text
    assert "to choose the rates, 100% of the data, schedule 1x: 4 runs of 300 images" in text
    assert "100% of the data, schedule 2x: 4 runs of 600 images" in text
    assert text.rstrip().endswith("Nothing was started.")
    assert not (tmp_path / "x").exists()
