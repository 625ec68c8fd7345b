# ruff: noqa: E501
"""Schedules as an axis: runs, comparison, how much longer scratch trains, parity, report."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.run.make_runs import make_run
from visionkit import cli
from visionkit.compare import compare, headline
from visionkit.compare.report.report import write_report
from visionkit.compare.schedules import ScheduleScores, catch_up, parity
from visionkit.compare.summary import summary_text
from visionkit.config import roles
from visionkit.errors import InputError
from visionkit.run.config import RunConfig
from visionkit.run.resume import check_resume
from visionkit.run.sweep.runs import each_run
from visionkit.run.training.schedule_length import length_of

# At the end of each schedule, by arm; seeds differ by a hundredth.
FINAL = {"pretrained": {1: 0.70, 2: 0.72, 4: 0.73}, "scratch": {1: 0.40, 2: 0.60, 4: 0.725}}


def schedule_runs(root, *, seeds=(0, 1, 2), fractions=(1.0,), final=FINAL, config=None):
    """Both arms at every schedule, fraction and seed; the seeds of an arm differ alike."""
    for fraction in fractions:
        for init, scores in final.items():
            for schedule, score in scores.items():
                for seed in seeds:
                    end = (
                        score * (0.5 + 0.5 * fraction)
                        + 0.01 * seed
                        + 0.001 * (seed == 1) * (init == "scratch")
                    )
                    length = 1000 * schedule
                    made = make_run(
                        root / f"x{schedule}", init, seed, fraction, points=[(length // 2, end / 2), (length, end)],
                        config={"schedules": [schedule], **(config or {})},
                        changes={"schedule": schedule, "equal": {"norm": "batch", "schedule": f"{length} images"}},
                    )  # fmt: skip
                    made.rename(root / f"{made.name}-x{schedule}")
    for schedule in {k for scores in final.values() for k in scores}:
        (root / f"x{schedule}").rmdir()
    return root


def test_every_schedule_is_a_run_of_its_own_and_the_shortest_keeps_its_name(tmp_path):
    config = RunConfig(out=str(tmp_path), seeds=[0], init="scratch", fractions=[0.1], schedules=[4, 1])
    runs = {folder.name: one for one, folder in each_run(config)}
    assert list(runs) == ["scratch-f0.1-s0", "scratch-f0.1-x4-s0"]
    assert [one.schedules for one in runs.values()] == [[1], [4]]
    assert len(list(each_run(RunConfig(out=str(tmp_path), schedules=[1, 2, 4], fractions=[0.1, 1.0])))) == 24
    assert roles(RunConfig)["schedules"] == "arm"
    for wrong, text in (
        ([], "at least one seed, fraction and schedule"),
        ([0], "at least 1"),
        ([2, 2], "once"),
    ):
        with pytest.raises(InputError, match=text):
            list(each_run(RunConfig(out=str(tmp_path), schedules=wrong)))
    # The run of a version that had no schedules is one of schedule 1.
    (tmp_path / "config.yaml").write_text("epochs: 6\nlr: 0.001\n")
    check_resume(RunConfig(seeds=[0, 1]), tmp_path)
    with pytest.raises(InputError, match=r"--schedules was \[1\], is \[2\]"):
        check_resume(RunConfig(seeds=[0, 1], schedules=[2]), tmp_path)


def test_how_many_times_as_many_images_by_hand_and_by_brute_force():
    """Straight lines over the logarithm of images, each seed its own; the crossing is known."""
    images, draws = (1000, 2000, 8000), [(seed, -1) for seed in range(4)]
    offsets, slopes = np.array([-0.02, 0.0, 0.01, 0.03]), np.array([0.098, 0.1, 0.102, 0.11])
    target = {draw: 0.5 + 0.4 * offset for draw, offset in zip(draws, offsets, strict=True)}

    def score(i, n):
        return 0.35 + offsets[i] + slopes[i] * math.log(n / 1000)

    base = [ScheduleScores(n // 1000, n, {d: score(i, n) for i, d in enumerate(draws)}) for n in images]
    found = catch_up(ScheduleScores(1, 1000, target), base)
    crossing = 1000 * math.exp((0.5 + 0.4 * offsets.mean() - 0.35 - offsets.mean()) / slopes.mean())
    assert (found.bound, found.pairing) == ("exact", "paired")
    assert found.images == pytest.approx(crossing, rel=1e-6)
    assert found.times == pytest.approx(crossing / 1000, rel=1e-6)
    stats = pytest.importorskip("scipy.stats")
    inside = []
    for n in np.geomspace(1000, 8000, 4001):
        gaps = [score(i, n) - target[draw] for i, draw in enumerate(draws)]
        if stats.ttest_1samp(gaps, 0).pvalue >= 0.05:
            inside.append(n / 1000)
    # Between points of the grid the interval is a straight line.
    assert (found.low, found.high) == (
        pytest.approx(inside[0], rel=2e-3),
        pytest.approx(inside[-1], rel=2e-3),
    )
    # Lower is better: the same with every sign turned.
    mirrored = [ScheduleScores(b.schedule, b.images, {d: -v for d, v in b.scores.items()}) for b in base]
    down = catch_up(ScheduleScores(1, 1000, {d: -v for d, v in target.items()}), mirrored, mode="min")
    assert (down.images, down.low, down.high) == (found.images, found.low, found.high)


def test_an_arm_that_never_gets_there_or_is_there_at_once():
    def base(*scores):
        return [
            ScheduleScores(2**i, 1000 * 2**i, {(0, -1): s, (1, -1): s + 0.01}) for i, s in enumerate(scores)
        ]

    arm = ScheduleScores(1, 1000, {(0, -1): 0.7, (1, -1): 0.712})
    never = catch_up(arm, base(0.2, 0.3, 0.4))
    assert (never.images, never.times, never.bound, never.low, never.high) == (
        None,
        None,
        "not reached",
        None,
        None,
    )
    assert never.max_images == 4000
    once = catch_up(arm, base(0.8, 0.9))
    assert once.bound == "at most"
    assert [once.times, once.low, once.high] == pytest.approx([1, 1, 1])
    # Two seeds tell little: the mean crosses, and the interval has no upper end within what was run.
    wide = [
        ScheduleScores(1, 1000, {(0, -1): 0.5, (1, -1): 0.6}),
        ScheduleScores(4, 4000, {(0, -1): 0.7, (1, -1): 0.8}),
    ]
    found = catch_up(arm, wide)
    assert found.bound == "exact"
    assert (found.low, found.high) == (pytest.approx(1), None)
    single = catch_up(ScheduleScores(1, 1000, {(0, -1): 0.65}), [
        ScheduleScores(e.schedule, e.images, {(0, -1): e.scores[0, -1]}) for e in wide
    ])  # fmt: skip
    assert (single.pairing, single.low, single.high) == ("single", None, None)
    assert single.images == pytest.approx(4000**0.75 * 1000**0.25)


def test_parity_is_two_one_sided_tests():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    answers = set()
    for n in (2, 3, 5, 12, 40):
        for shift, spread in ((0.0, 0.002), (0.002, 0.004), (0.006, 0.004), (0.05, 0.004), (0.005, 0.03)):
            first = {(seed, -1): float(v) for seed, v in enumerate(rng.normal(0.5, 0.1, n))}
            second = {draw: v + float(rng.normal(shift, spread)) for draw, v in first.items()}
            made = parity(first, second, margin=0.01)
            gaps = np.array([first[draw] - second[draw] for draw in first])
            above = stats.ttest_1samp(gaps, -0.01, alternative="greater").pvalue
            below = stats.ttest_1samp(gaps, 0.01, alternative="less").pvalue
            shown = stats.ttest_1samp(gaps, 0).pvalue < 0.05
            equal = max(above, below) < 0.05
            assert made.answer == ("equal" if equal else "differ" if shown else "cannot tell"), (
                n,
                shift,
                spread,
            )
            answers.add(made.answer)
    assert answers == {"equal", "differ", "cannot tell"}
    one = parity({(0, -1): 0.5}, {(0, -1): 0.5}, margin=0.01)
    assert (one.answer, one.low, one.text) == ("cannot tell", None, "cannot tell")


def test_a_comparison_over_schedules_says_it_in_the_text_the_file_and_the_report(tmp_path, capsys):
    schedule_runs(tmp_path, fractions=(0.5, 1.0))
    found = compare([tmp_path])
    assert (found.schedules, found.longest, len(found.cells), len(found.contrasts)) == ((1, 2, 4), 4, 12, 6)
    row = next(row for row in found.over_schedules if row.fraction == 1)
    assert [step.schedule for step in row.steps] == [1, 2, 4]
    assert [step.images for step in row.steps] == [1000, 2000, 4000]
    assert row.steps[0].parity.answer == "differ"
    assert row.steps[2].parity.answer == "equal"
    # 0.7 lies 0.1 of 0.125 above the score at 2x, in logarithms of images (a seed is a thousandth better).
    assert row.catch_up.images == pytest.approx(2000 * 2 ** ((0.1 - 0.001 / 3) / 0.125), rel=1e-6)
    said = headline(found)
    assert said[0].startswith("Pretrained beats scratch on scenes")
    text = "Scratch needs 3.5 times as many images (95% interval 3.4 to 3.5 times) to reach pretrained's score at 1x, 0.710 after 1,000 images."
    assert text in said
    assert (
        "The scores of pretrained and scratch (margin 0.01): differs at 1x, differs at 2x, equal within 0.01 at 4x."
        in said
    )
    assert any(sentence.startswith("With 50% of the data scratch needs") for sentence in said)
    printed = summary_text(found)
    assert "100% of the training data, 1,000 training images, schedule 4x" in " ".join(printed.split())
    assert "Score over schedules, 50% of the training data" in printed
    plain = write_report(found, tmp_path / "out").read_text()
    assert "With longer training" in plain
    assert "(schedule 1x; also 2x, 4x)" not in plain  # these records name their schedules in words
    assert (tmp_path / "out/figures/schedules-f0.5.svg").exists()
    table = json.loads((tmp_path / "out/comparison.json").read_text())
    assert {run["schedule"] for run in table["runs"]} == {1, 2, 4}
    assert table["over_schedules"][1]["catch_up"]["max_images"] == 4000
    for none in ("0", "-0.01", "nan"):
        assert cli.main(["compare", str(tmp_path), f"--margin={none}"]) == 2
        assert "above 0" in capsys.readouterr().err
    assert cli.main(["compare", str(tmp_path), "--margin", "0.2"]) == 0
    assert "equal within 0.2 at 2x" in " ".join(capsys.readouterr().out.split())


def test_the_margin_is_that_of_the_runs_and_schedules_of_one_arm_alone_are_no_fault(tmp_path):
    final = {"pretrained": {1: 0.7}, "scratch": {1: 0.4, 2: 0.6}}
    schedule_runs(tmp_path, final=final, config={"margin": 0.5})
    found = compare([tmp_path])
    (row,) = found.over_schedules
    assert (row.steps[0].parity.margin, row.steps[0].parity.answer) == (0.5, "equal")
    assert (row.steps[1].arm, row.steps[1].difference, row.steps[1].parity) == (None, None, None)
    assert row.catch_up.bound == "not reached"
    assert found.longest == 1
    assert "scratch does not reach" in " ".join(headline(found)).lower()
    write_report(found, tmp_path / "out")


def test_a_repeated_schedule_is_refused_and_runs_of_one_length_must_be_alike(tmp_path):
    schedule_runs(tmp_path, seeds=(0,))
    twin = make_run(tmp_path / "more", "scratch", 0, points=[(2000, 0.5)], changes={"schedule": 2})
    with pytest.raises(InputError, match="Two runs have init scratch, seed 0"):
        compare([tmp_path, twin])
    shutil_target = tmp_path / "scratch-f1-s0-x2" / "result.json"
    result = json.loads(shutil_target.read_text())
    shutil_target.write_text(json.dumps(result | {"images_seen": 1234}))
    with pytest.raises(InputError, match=r"images_seen: "):
        compare([tmp_path])


@given(
    images=st.integers(0, 20_000),
    size=st.integers(8, 4000),
    schedule=st.integers(1, 16),
    every=st.integers(0, 5),
    world=st.integers(1, 3),
)
def test_a_schedule_is_so_many_times_the_shortest_to_the_image(images, size, schedule, every, world):
    """Rounding up to full epochs comes before the factor: 4,000 of 3,104 an epoch are 2, 4 and 8 epochs."""

    def planned(times):
        one = RunConfig(images=images, schedules=[times], validate_every=every)
        return length_of(one, size, batch_size=8, world=world)

    once, longer = planned(1), planned(schedule)
    assert longer.images == schedule * once.images
    assert once.images >= images
    assert longer.epochs % longer.validate_every == 0
