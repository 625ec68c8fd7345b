# ruff: noqa: E501
"""The comparison: right numbers from known curves, refusal of unlike runs, nothing dropped in silence."""

from __future__ import annotations

import json
import math

import pytest

from tests.run.make_runs import curve, make_comparison, make_run, write_metrics
from visionkit.compare.comparison import compare
from visionkit.compare.curves import Curve, images_to_reach, mean_curve, mean_lead
from visionkit.compare.low_data import low_data
from visionkit.compare.statistics import Difference, difference, seed_statistics
from visionkit.compare.summary import headline, low_data_rows, summary_rows, summary_text
from visionkit.errors import InputError

FAST = [(100, 0.2), (200, 0.6), (300, 0.8)]
SLOW = [(100, 0.1), (200, 0.3), (300, 0.5)]


def test_two_arms_two_seeds_by_hand(tmp_path) -> None:
    for seed, shift in ((0, 0.0), (1, 0.1)):
        make_run(tmp_path, "pretrained", seed, points=[(n, v + shift) for n, v in FAST])
        make_run(tmp_path, "scratch", seed, points=[(n, v + shift / 2) for n, v in SLOW])
    found = compare([tmp_path])
    assert found.arms == ("pretrained", "scratch")
    assert (found.monitor, found.mode, found.fractions) == ("val/top1", "max", (1.0,))
    ahead = found.cell("pretrained", 1.0)
    assert ahead is not None
    assert ahead.metrics["val/top1"].mean == pytest.approx(0.85)
    assert ahead.metrics["val/top1"].sd == pytest.approx(0.1 / math.sqrt(2))
    assert ahead.seconds is not None
    assert ahead.seconds.mean == pytest.approx(50.5)
    contrast = found.contrast("pretrained", 1.0)
    assert contrast is not None
    gap = contrast.metrics["val/top1"]
    # Paired differences 0.30 and 0.35: mean 0.325, sd 0.0354, half width 12.7062 * sd / sqrt(2).
    assert gap.mean == pytest.approx(0.325)
    assert gap.pairing == "paired"
    assert gap.low == pytest.approx(0.325 - 12.7062 * 0.025, abs=1e-4)
    # Scratch ends at 0.525; the mean pretrained curve is 0.25, 0.65 at 100, 200: crossed at 100 + 100 * 0.275 / 0.4.
    assert contrast.arm_reaches.images == pytest.approx(168.75)
    assert contrast.baseline_reaches.images is None
    assert contrast.baseline_reaches.bound == "not reached"
    # Mean gaps at the three points: 0.125, 0.325, 0.325; trapezoids over 200 images.
    assert contrast.lead == pytest.approx((0.225 * 100 + 0.325 * 100) / 200)


def test_plain_dict_goes_through_json(tmp_path) -> None:
    make_comparison(tmp_path, fractions=(0.1, 1.0))
    table = compare([tmp_path]).to_dict()
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert table["schema"] == 1
    assert len(table["runs"]) == 8
    assert {run["arm"] for run in table["runs"]} == {"pretrained", "scratch"}
    assert len(table["cells"]) == 4
    assert table["low_data"][0]["arm"] == "pretrained"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": {"lr": 0.01}}, "lr: 0.001 in pretrained-f1-s0, 0.01 in scratch-f1-s0"),
        (
            {"config": {"transfer": {"norm": "group"}}},
            'transfer.norm: null in pretrained-f1-s0, "group" in scratch',
        ),
        ({"data": {"classes": ["a", "b"], "fingerprint": "d41d8c"}}, 'data.classes: ["animals", "food"'),
        ({"data": {"fingerprint": {"val": "1", "train": "2"}}}, "data.fingerprint: "),
        ({"equal": {"norm": "group"}}, 'equal.norm: "batch" in pretrained-f1-s0, "group" in scratch-f1-s0'),
        ({"equal": {"norm": "batch", "schedule": "steps"}}, "equal.schedule: "),
        (
            {"equal": {"norm": "batch", "order": "other"}},
            'equal.order: "order-1.0-0" in pretrained-f1-s0, "other"',
        ),
        ({"images_seen": 17}, "images_seen: 6000 in pretrained-f1-s0, 17 in scratch-f1-s0"),
        ({"task": "Detector"}, 'task: "classification" in pretrained-f1-s0, "Detector" in scratch-f1-s0'),
    ],
)
def test_unlike_runs_are_refused_by_name_and_value(tmp_path, changes, named) -> None:
    make_run(tmp_path, "pretrained")
    config = changes.pop("config", None)
    make_run(tmp_path, "scratch", config=config, changes=changes)
    with pytest.raises(InputError, match="differ in more than init, seed and fraction") as caught:
        compare([tmp_path])
    assert named in str(caught.value)
    assert "--allow" in str(caught.value)


def test_what_an_init_implies_may_differ_between_arms_only(tmp_path) -> None:
    frozen = {"transfer": {"freeze_through": 4, "norm": None}}
    make_run(tmp_path, "pretrained", 0, config=frozen)
    make_run(tmp_path, "scratch", 0)
    assert len(compare([tmp_path]).contrasts) == 1
    make_run(tmp_path, "pretrained", 1)
    with pytest.raises(
        InputError, match=r"transfer.freeze_through: 4 in pretrained-f1-s0, null in pretrained-f1-s1"
    ):
        compare([tmp_path])


def test_seed_order_and_schedule_by_fraction_may_differ(tmp_path) -> None:
    # The order of data is a function of the seed; the length of a schedule one of the fraction.
    for fraction in (0.5, 1.0):
        for init in ("pretrained", "scratch"):
            for seed in (0, 1):
                equal = {"norm": "batch", "schedule": fraction, "order": f"{seed}-{fraction}"}
                data = {
                    "name": "x",
                    "fingerprint": {"train": f"{seed}{fraction}", "val": "v"},
                    "classes": ["a"],
                }
                make_run(tmp_path, init, seed, fraction, changes={"equal": equal, "data": data})
    assert len(compare([tmp_path]).cells) == 4


def test_a_difference_can_be_allowed_and_is_recorded(tmp_path) -> None:
    make_run(tmp_path, "pretrained")
    make_run(tmp_path, "scratch", config={"lr": 0.01})
    found = compare([tmp_path], allow=["lr"])
    assert found.allowed == ("lr: 0.001 in pretrained-f1-s0, 0.01 in scratch-f1-s0",)
    assert "not held equal: lr" in summary_text(found)
    with pytest.raises(InputError, match=r"Nothing named 'batch_sise' is compared.*'batch_size'"):
        compare([tmp_path], allow=["batch_sise"])


def test_unfinished_and_damaged_runs_are_named(tmp_path) -> None:
    good = make_comparison(tmp_path)
    make_run(tmp_path, "scratch", 2).joinpath("result.json").unlink()
    make_run(tmp_path, "scratch", 3).joinpath("result.json").write_text('{"task": ')
    make_run(tmp_path, "scratch", 4, changes={"status": "running"})
    make_run(tmp_path, "scratch", 5, changes={"metrics": {"val/top1": None}})
    make_run(tmp_path, "scratch", 6, changes={"monitor": "val/top1"})
    lacking = make_run(tmp_path, "scratch", 7)
    text = json.loads((lacking / "result.json").read_text())
    del text["init"], text["seed"]
    (lacking / "result.json").write_text(json.dumps(text))
    (tmp_path / "not-a-run").mkdir()
    found = compare([tmp_path])
    assert len(found.records) == len(good) == 4
    reasons = {item["folder"].rpartition("-")[2]: item["reason"] for item in found.skipped}
    assert set(reasons) == {"s2", "s3", "s4", "s5", "s6", "s7"}
    assert "no result.json" in reasons["s2"]
    assert "damaged" in reasons["s3"]
    assert "'running'" in reasons["s4"]
    assert "not a finite number" in reasons["s5"]
    assert "monitor" in reasons["s6"]
    assert "lacks init, seed" in reasons["s7"]
    assert summary_text(found).count("left out:") == 6


def test_nothing_to_compare_says_why(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        compare([tmp_path / "no"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run"):
        compare([tmp_path / "empty"])
    make_run(tmp_path, "scratch", 0).joinpath("result.json").unlink()
    with pytest.raises(InputError, match=r"No finished run to compare.\n.*unfinished"):
        compare([tmp_path / "scratch-f1-s0"])


def test_a_seed_counts_once(tmp_path) -> None:
    first = make_run(tmp_path / "a", "scratch", 0)
    second = make_run(tmp_path / "b", "scratch", 0)
    with pytest.raises(InputError, match=r"A seed counts once: .*--by lr"):
        compare([first, second])
    assert len(compare([first, first]).records) == 1  # the same folder twice is one run


def test_curves_survive_a_torn_and_a_repeated_row(tmp_path) -> None:
    folder = make_run(tmp_path, "scratch", points=SLOW)
    with (folder / "metrics.csv").open("a") as file:
        file.write("9,2,300,val,top1,0.55\n9,2,400,val,top1,nan\n9,3,50")
    found = compare([folder])
    assert found.cells[0].curve == Curve((100, 200, 300), (0.1, 0.3, 0.55))
    assert found.notes == ("scratch-f1-s0: metrics.csv: 2 unreadable or non-finite rows left out",)
    (folder / "metrics.csv").write_text("a,b\n1,2\n")
    assert compare([folder]).cells[0].curve.images == ()
    (folder / "metrics.csv").unlink()
    assert "no learning curve" in compare([folder]).notes[0]


def test_lower_is_better_where_the_monitor_says_so(tmp_path) -> None:
    monitor = ("val/mae", "min")
    make_run(tmp_path, "pretrained", points=[(10, 5.0), (20, 2.0)], monitor=monitor)
    make_run(tmp_path, "scratch", points=[(10, 8.0), (20, 4.0)], monitor=monitor)
    found = compare([tmp_path])
    assert found.contrasts[0].arm_reaches.images == pytest.approx(10 + 10 / 3)
    assert found.contrasts[0].baseline_reaches.images is None
    assert headline(found)[0].startswith(
        "Pretrained is ahead of scratch on scenes, though with too few seeds"
    )
    assert "val/mae (last) 2.000 against 4.000, by 2.000." in headline(found)[0]


def test_the_headline_is_honest_when_scratch_wins_or_nothing_is_shown(tmp_path) -> None:
    for seed in range(3):
        make_run(tmp_path / "a", "scratch", seed, points=[(n, v + seed / 100) for n, v in FAST])
        make_run(tmp_path / "a", "pretrained", seed, points=[(n, v + seed / 90) for n, v in SLOW])
        make_run(tmp_path / "b", "scratch", seed, points=[(10, 0.5 + 0.1 * (seed % 2))])
        make_run(tmp_path / "b", "pretrained", seed, points=[(10, 0.52 - 0.1 * (seed % 2))])
    assert headline(compare([tmp_path / "a"]))[0].startswith(
        "Scratch beats pretrained on scenes: val/top1 (last) 0.810"
    )
    assert "(95% interval 0.29" in headline(compare([tmp_path / "a"]))[0]
    assert "these seeds do not show that it is better" in headline(compare([tmp_path / "b"]))[0]


def test_one_arm_and_three_arms(tmp_path) -> None:
    make_run(tmp_path, "pretrained")
    assert headline(compare([tmp_path]))[0].startswith("One arm only: pretrained reads val/top1")
    make_run(tmp_path, "scratch")
    make_run(tmp_path, "/weights/mine.safetensors")
    found = compare([tmp_path])
    assert found.arms == ("pretrained", "mine.safetensors", "scratch")
    assert [c.baseline for c in found.contrasts] == ["scratch", "scratch"]
    assert summary_rows(found, 1.0)[0] == [
        "",
        *found.arms,
        "pretrained - scratch",
        "mine.safetensors - scratch",
    ]


def test_low_data_reads_the_curve() -> None:
    def gap(mean: float, half: float) -> Difference:
        return Difference(mean, mean - half, mean + half, "paired", 3)

    gaps = [(0.01, gap(0.3, 0.1)), (0.1, gap(0.2, 0.1)), (0.5, gap(0.05, 0.1)), (1.0, gap(-0.01, 0.1))]
    found = low_data("p", "s", [(0.01, 0.4), (0.1, 0.6), (1.0, 0.8)], 0.7, gaps)
    assert found.meets == 0.5
    assert found.matches == pytest.approx(10**-0.5)
    assert not found.is_upper_bound
    assert low_data("p", "s", [(0.01, 0.9)], 0.7, gaps[:2]).is_upper_bound
    assert low_data("p", "s", [(0.01, 0.9)], 0.7, gaps[:2]).meets is None
    noisy = low_data(
        "p", "s", [(0.01, 0.9)], 0.7, [(0.01, gap(0.1, 0.2)), (0.1, gap(0.2, 0.1)), (1.0, gap(0.2, 0.1))]
    )
    assert noisy.meets is None
    assert noisy.unshown == (0.01,)
    assert low_data("p", "s", [(0.1, 0.5)], 0.7, [(0.1, gap(-0.2, 0.1)), (1.0, gap(0.0, 0.1))]).meets == 0.1
    assert low_data("p", "s", [(0.1, 0.2), (1.0, 0.3)], 0.7, gaps).matches is None


def test_text_is_plain_away_from_a_terminal(tmp_path) -> None:
    make_comparison(tmp_path, seeds=(0, 1, 2), fractions=(0.1, 1.0))
    found = compare([tmp_path])
    text = summary_text(found, width=100)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    for word in (
        "val/top1",
        "images to reach the other's score",
        "seconds of training",
        "peak memory, MB",
        "±",
    ):
        assert word in text
    assert "\x1b" in summary_text(found, color=True)
    assert len(low_data_rows(found)) == 3


@pytest.mark.parametrize(("points", "rows"), [(3, 1), (1, 0)])
def test_one_evaluation_has_no_lead_and_no_row_of_it(tmp_path, points, rows) -> None:
    make_run(tmp_path, "pretrained", points=FAST[-points:])
    make_run(tmp_path, "scratch", points=SLOW[-points:])
    names = [row[0] for row in summary_rows(compare([tmp_path]), 1.0)]
    assert names.count("mean lead over training") == rows
    assert "seconds of training" in names


def test_curve_arithmetic() -> None:
    one, two = Curve.of({100: 0.0, 200: 1.0}), Curve.of({150: 0.5, 250: 0.9})
    assert mean_curve([one, two]) == Curve((150, 200), (0.5, pytest.approx(0.85)))
    assert mean_curve([]) == mean_curve([Curve((), ())]) == Curve((), ())
    assert mean_curve([Curve.of({1: 1.0}), Curve.of({5: 1.0})]) == Curve((), ())
    assert images_to_reach(one, 0.25).images == pytest.approx(125)
    assert images_to_reach(one, -1).bound == "at most"
    assert images_to_reach(Curve((), ()), 1.0).images is None
    assert mean_lead(one, two) == pytest.approx((0 + 0.3) / 2)
    assert mean_lead(one, Curve.of({300: 1.0})) is None


def test_spread_and_difference_against_known_values() -> None:
    assert seed_statistics([1.0]).sd is None
    assert seed_statistics([1.0, 2.0, 4.0]).sd == pytest.approx(1.5275252)
    welch = difference({0: 1.0, 1: 2.0, 2: 3.0}, {5: 2.0, 6: 4.0, 7: 6.0})
    assert welch.pairing == "unpaired"
    # Welch: variances 1 and 4, n = 3: standard error 1.29099, 2.94 degrees of freedom, rounded down to 2.
    assert welch.high == pytest.approx(-2 + 4.3027 * 1.2909944, abs=1e-3)
    assert not welch.shown
    single = difference({0: 1.0}, {0: 0.5})
    assert (single.mean, single.low, single.pairing, single.shown) == (0.5, None, "single", False)
    wide = difference(dict.fromkeys(range(40), 1.0) | {0: 1.1}, dict.fromkeys(range(40), 0.0))
    assert wide.shown


def test_helper_writes_the_contract(tmp_path) -> None:
    write_metrics(tmp_path, curve("scratch", 0, 1.0), "val/top1")
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step,epoch,images,split,name,value"
