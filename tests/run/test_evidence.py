"""How sure a difference of arms is: seeds, images, both, many pairs. Nothing is trained."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))

from make_runs import make_run

from visionkit.compare import compare, headline
from visionkit.compare.evidence import _p_value, half_width
from visionkit.compare.resampling.bootstrap import percentile_interval
from visionkit.compare.resampling.image_scores import read_image_scores, write_image_scores
from visionkit.compare.run_record import read_run
from visionkit.compare.sentences.evidence_text import needed_text, pair_rows, source_text
from visionkit.compare.statistics import SeedError, add_errors, difference, holm, seed_error, t_quantile
from visionkit.compare.summary import summary_text

IMAGES = 200


def arm(values: list[float]) -> dict[tuple[int, int], float]:
    return {(seed, -1): value for seed, value in enumerate(values)}


def images_run(
    folder: Path, init: str, seed: int, right: np.ndarray, *, groups: np.ndarray | None = None, first: int = 0
) -> Path:
    """A run whose images are right or wrong, with the file that says so."""
    top1 = float(right.mean())
    metrics = {"val/top1": top1, "test/top1": top1}
    run = make_run(folder, init, seed, points=[(500, top1 / 2), (1000, top1)], changes={"metrics": metrics})
    for split in ("val", "test"):
        columns = {"ids": np.array([f"{first + i:04}" for i in range(len(right))]), "mean.top1": right}
        columns |= {} if groups is None else {"groups": groups}
        (run / "predictions").mkdir(exist_ok=True)
        write_image_scores(run / "predictions" / f"{split}-scores.npz", columns)
    return run


def right(accuracy: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(IMAGES) < accuracy


def test_differences_over_seeds_are_those_of_scipy() -> None:
    first, second = [0.5, 0.55, 0.48], [0.4, 0.41, 0.43]
    paired, mine = stats.ttest_rel(first, second), difference(arm(first), arm(second))
    error = seed_error(arm(first), arm(second))
    assert error is not None
    assert (mine.low, mine.high) == pytest.approx(tuple(paired.confidence_interval()))
    assert _p_value(mine.mean, error) == pytest.approx(paired.pvalue)
    more = [*second, 0.39, 0.45]
    welch, error = stats.ttest_ind(first, more, equal_var=False), seed_error(arm(first), arm(more))
    assert error is not None
    assert error.freedom == pytest.approx(welch.df)
    assert _p_value(np.mean(first) - np.mean(more), error) == pytest.approx(welch.pvalue)
    assert seed_error(arm([0.5]), arm(second)) is None
    assert [round(t_quantile(n), 4) for n in (1, 2, 30)] == [12.7062, 4.3027, 2.0423]
    assert _p_value(0.1, SeedError(0.0, 2)) == 0.0
    assert _p_value(0.0, SeedError(0.0, 2)) == 1.0


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 4):
        p_values = list(rng.random(size) ** 3)
        subsets = [s for n in range(1, size + 1) for s in itertools.combinations(range(size), n)]
        closed = [
            max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s)
            for i in range(size)
        ]
        assert holm(p_values) == pytest.approx(closed)
    assert holm([]) == []


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_intervals_of_both_sources_hold_what_they_promise(seeds: int, ratio: float) -> None:
    # Draws of the difference of zero, of the seeds' estimated variance, with a known variance of images.
    rng, count = np.random.default_rng(1), 2000
    gaps = rng.normal(0, np.sqrt(1 + ratio), count)
    held = 0
    for gap, variance in zip(gaps, rng.chisquare(seeds - 1, count) / (seeds - 1), strict=True):
        error = SeedError(float(variance), seeds - 1)
        held += abs(gap) <= half_width(add_errors(error, SeedError(ratio, 199)), error)
    assert held / count > 0.95 - 4 * np.sqrt(0.05 * 0.95 / count)


def test_the_bootstrap_gives_the_error_of_a_mean_and_groups_are_drawn_whole(tmp_path: Path) -> None:
    first, second = right(0.7, 0), right(0.5, 1)
    images_run(tmp_path / "a", "pretrained", 0, first)
    images_run(tmp_path / "a", "scratch", 0, second)
    evidence = compare(tmp_path / "a").evidence[0]
    gaps = first.astype(float) - second
    # A standard deviation from 1,000 samples is within 4 of its own standard errors, 4 / sqrt(2000).
    assert evidence.image_variance == pytest.approx(gaps.var(ddof=1) / IMAGES, rel=0.2)
    half = t_quantile(IMAGES - 1) * np.sqrt(gaps.var(ddof=1) / IMAGES)
    assert (evidence.low, evidence.high) == pytest.approx(
        (gaps.mean() - half, gaps.mean() + half), abs=0.1 * half
    )
    assert evidence.image_interval == pytest.approx((evidence.low, evidence.high), abs=0.2 * half)
    assert evidence.seed_interval is None
    assert source_text(evidence) == "over 200 validation images, one seed"
    # Images of one group agree: 20 groups are worth 20 images.
    groups = np.repeat([f"drive {i:02}" for i in range(20)], 10)
    first, second = (np.repeat(right(0.7, seed)[:20], 10) for seed in (0, 1))
    images_run(tmp_path / "b", "pretrained", 0, first, groups=groups)
    images_run(tmp_path / "b", "scratch", 0, second, groups=groups)
    evidence = compare(tmp_path / "b").evidence[0]
    gaps = (first.astype(float) - second).reshape(20, 10).mean(1)
    assert evidence.units == 20
    assert evidence.image_variance == pytest.approx(gaps.var(ddof=1) / 20, rel=0.2)
    assert source_text(evidence) == "over 200 validation images in 20 groups, one seed"


def test_few_units_widen_the_percentiles() -> None:
    values = np.linspace(-1, 1, 1001)
    (low, high), wide = percentile_interval(values, 10_000), percentile_interval(values, 5)
    assert (low, high) == pytest.approx((-0.95, 0.95), abs=0.005)
    assert wide[0] < low < high < wide[1]


def test_seeds_and_images_together_and_the_sentences(tmp_path: Path) -> None:
    for seed in range(3):
        images_run(tmp_path, "pretrained", seed, right(0.8, seed))
        images_run(tmp_path, "scratch", seed, right(0.5, 10 + seed))
    comparison = compare(tmp_path)
    evidence, tested = comparison.evidence
    assert (evidence.metric, tested.metric) == ("val/top1", "test/top1")
    assert evidence.shown
    assert evidence.p_holm == evidence.p_value
    for part in (evidence.seed_interval, evidence.image_interval):
        assert evidence.high - evidence.low >= part[1] - part[0] - 0.01
    text = " ".join(headline(comparison))
    assert "Pretrained beats scratch" in text
    assert "over 3 seeds and 200 validation images" in text
    assert "Other seeds on these images" in text
    assert "% of the squared error" in text
    assert "On the test split, test/top1 (best)" in text
    assert "val/top1, seeds and images" in summary_text(comparison)
    content = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert content["evidence"][0]["p_value"] == evidence.p_value
    assert "Pairs of arms" not in summary_text(comparison)


def test_one_seed_has_an_interval_and_a_small_gap_is_cannot_tell(tmp_path: Path) -> None:
    images_run(tmp_path, "pretrained", 0, right(0.52, 4))
    images_run(tmp_path, "scratch", 0, right(0.5, 5))
    comparison = compare(tmp_path)
    evidence = comparison.evidence[0]
    text = " ".join(headline(comparison))
    assert not evidence.shown
    assert evidence.mean
    assert text.startswith("Cannot tell whether ")
    assert "over 200 validation images, one seed" in text
    assert "another seed may move it" in text
    # So many images would show it: the error falls with their root.
    assert evidence.needed_images is not None
    assert evidence.needed_images > IMAGES
    error = np.sqrt(evidence.image_variance * IMAGES / evidence.needed_images)
    assert abs(evidence.mean) >= (t_quantile(IMAGES - 1) + stats.norm.ppf(0.8)) * error
    assert "validation images (now 200) to show in 4 of 5 comparisons" in needed_text(evidence)
    assert evidence.needed_seeds is None


def test_pairs_of_more_than_two_arms(tmp_path: Path) -> None:
    frozen = {"transfer": {"freeze_through": "all", "norm": None}}
    for seed in range(3):
        images_run(tmp_path, "pretrained", seed, right(0.8, seed))
        images_run(tmp_path, "scratch", seed, right(0.4, 10 + seed))
        images_run(tmp_path, "weights.pt", seed, right(0.79, 20 + seed))
        run = images_run(tmp_path / "frozen", "pretrained", seed, right(0.6, 30 + seed))
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"config": result["config"] | frozen}))
    comparison = compare([tmp_path, tmp_path / "frozen"])
    assert comparison.arms == ("pretrained", "frozen", "weights.pt", "scratch")
    pairs = [each for each in comparison.evidence if each.metric == "val/top1"]
    assert len(pairs) == 6
    assert [each.p_holm for each in pairs] == pytest.approx(holm([each.p_value for each in pairs]))
    header, *rows = pair_rows(comparison)
    assert len(rows) == 12
    assert header[-1] == "differ"
    row = next(row for row in rows if row[:2] == ["pretrained - weights.pt", "val/top1"])
    assert row[-1] == "cannot tell"
    assert "Pairs of arms" in summary_text(comparison)
    assert any("of 6 pairs of arms differ" in sentence for sentence in headline(comparison))


def test_folds_are_paired_on_their_own_images(tmp_path: Path) -> None:
    for fold in range(2):
        for number, (init, accuracy) in enumerate((("pretrained", 0.8), ("scratch", 0.5))):
            values = right(accuracy, 10 * fold + number)
            run = images_run(tmp_path / f"k{fold}", init, 0, values, first=fold * IMAGES)
            result = json.loads((run / "result.json").read_text())
            settings = {"fold": fold, "config": result["config"] | {"folds": [2, fold]}}
            (run / "result.json").write_text(json.dumps(result | settings))
    evidence = compare([tmp_path / "k0", tmp_path / "k1"]).evidence[0]
    assert (evidence.images, evidence.units, evidence.seeds) == (2 * IMAGES, 2 * IMAGES, 2)
    # The mean of two scores on 200 images each: half of the variance of one.
    one = [right(0.8, 10 * fold).astype(float) - right(0.5, 10 * fold + 1) for fold in range(2)]
    expected = sum(gaps.var(ddof=1) / IMAGES for gaps in one) / 4
    assert evidence.image_variance == pytest.approx(expected, rel=0.2)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    run = images_run(tmp_path, "pretrained", 0, right(0.8, 0))
    other = images_run(tmp_path, "scratch", 0, right(0.5, 1))
    path = other / "predictions" / "val-scores.npz"
    content = path.read_bytes()

    def missing() -> str:
        return compare(tmp_path).evidence[0].missing

    assert missing() == ""
    for broken in (b"", content[: len(content) // 2], b"no archive"):
        path.write_bytes(broken)
        assert "val-scores.npz cannot be read" in missing()
    write_image_scores(path, {"ids": np.array(["a", "b"]), "mean.top1": np.array([1.0, 1.0])})
    assert "its result has" in missing()
    write_image_scores(path, {"ids": np.array(["a", "b"]), "mean.loss": np.array([1.0, 0.0])})
    assert "no score of single images" in missing()
    write_image_scores(path, {"ids": np.array(["a"])})
    assert "holds no rows" in missing()
    path.unlink()
    assert "there is no val-scores.npz" in missing()
    assert "too few seeds to tell from chance" in headline(compare(tmp_path))[0]
    rows = read_image_scores(run, "val")
    assert not isinstance(rows, str)
    assert rows.scores["top1"] == pytest.approx(read_run(run).score)
