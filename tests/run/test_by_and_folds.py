"""Tables of runs that differ on purpose, and folds that count as seeds do."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from tests.run.make_runs import make_run
from visionkit import cli
from visionkit.compare import compare, compare_by, headline
from visionkit.compare.report.first_screen import tiles
from visionkit.compare.report.held_equal import equal_sentences
from visionkit.compare.sentences.evidence_text import (
    evidence_label,
    needed_text,
    source_text,
    sources_text,
)
from visionkit.compare.summary import summary_rows
from visionkit.errors import InputError


def fold_runs(root, folds=5, gap=0.1):
    """Both arms over folds, the pretrained one ahead by about `gap` in each."""
    for fold in range(folds):
        for init in ("pretrained", "scratch"):
            score = 0.5 + 0.05 * fold + (gap + 0.001 * fold if init == "pretrained" else 0)
            prints = {"train": f"t{fold}", "val": f"v{fold}", "test": "same"}
            data = {"name": "cells", "sizes": {"train": 80}, "classes": ["a", "b"], "fingerprint": prints}
            make_run(
                root / f"k{fold}", init, points=[(100, score / 2), (200, score)],
                config={"folds": [folds, fold]}, changes={"fold": fold, "data": data},
            )  # fmt: skip
    return sorted(root.glob("k*"))


def test_folds_are_paired_as_seeds_are_and_it_is_said(tmp_path):
    found = compare(fold_runs(tmp_path))
    gap = found.contrasts[0].metrics["val/top1"]
    assert (gap.pairing, gap.n, gap.shown) == ("paired", 5, True)
    assert gap.mean == pytest.approx(0.102)
    assert gap.high - gap.low < 0.01, "what the folds differ in, both arms share"
    said = headline(found)
    assert "paired over 5 folds" in said[0]
    assert said[-1].startswith("Folds count as seeds do: runs are paired by seed and fold.")
    assert "too narrow" in said[-1]
    rows = {row[0]: row[1:] for row in summary_rows(found, 1.0)}
    assert (rows["seeds"][:2], rows["folds"][:2]) == (["0", "0"], ["0 1 2 3 4"] * 2)
    assert found.to_dict()["cells"][0]["folds"] == [0, 1, 2, 3, 4]
    assert [run["fold"] for run in found.to_dict()["runs"]] == [0, 1, 2, 3, 4] * 2


def test_texts_count_folds_where_folds_repeat(tmp_path):
    found = compare(fold_runs(tmp_path))
    notes = " ".join(tile.note for tile in tiles(found))
    assert notes.count("5 folds") == 3, "both arms, and the pairs"
    assert "seed" not in notes
    assert "Runs of one seed and fold see" in dict(equal_sentences(found))["Order and augmentation"]
    evidence = found.evidence[0]
    assert (evidence.repeat, source_text(evidence)) == ("fold", "over 5 folds")
    known = replace(
        evidence, images=90, image_interval=(0.0, 0.2), image_variance=3 * evidence.seed_variance,
        p_value=0.2, p_holm=0.2, needed_seeds=12,
    )  # fmt: skip
    assert sources_text(known).startswith("Other folds: 0.10")
    assert sources_text(known).endswith("The folds are 25% of the squared error.")
    assert "about 12 pairs of seed and fold (now 5)" in needed_text(known)
    assert evidence_label(found, "val/top1") == "val/top1, folds and images"
    # Two seeds of each fold: what repeats is the pair.
    for number, run in enumerate(fold_runs(tmp_path / "again", folds=2)):
        for init in ("pretrained", "scratch"):
            path = run / f"{init}-f1-s0" / "result.json"
            result = json.loads(path.read_text())
            path.write_text(json.dumps(result | {"seed": number}))
    pairs = compare(sorted((tmp_path / "again").glob("k*")))
    assert "2 pairs of seed and fold" in " ".join(tile.note for tile in tiles(pairs))


def test_without_folds_nothing_is_said_of_them(tmp_path):
    for seed in (0, 1):
        for init in ("pretrained", "scratch"):
            make_run(tmp_path, init, seed)
    found = compare([tmp_path])
    assert "old" not in " ".join(headline(found))
    assert "folds" not in {row[0] for row in summary_rows(found, 1.0)}
    assert "paired over 2 seeds" in headline(found)[0]


def test_folds_of_another_cut_and_the_same_fold_twice_are_refused(tmp_path):
    fold_runs(tmp_path / "five", 5)
    fold_runs(tmp_path / "two", 2)
    with pytest.raises(InputError, match=r"folds: \d in .*, \d in "):
        compare([tmp_path / "five/k4", tmp_path / "two/k0"])
    fold_runs(tmp_path / "again", 5)
    with pytest.raises(InputError, match="seed 0, fold 0 and fraction 1"):
        compare([tmp_path / "five/k0", tmp_path / "again/k0"])


@pytest.fixture
def rates(tmp_path):
    """Two rates over two seeds; the schedule and its rate are held equal in the records."""
    for lr, top in ((0.001, 0.4), (0.01, 0.6)):
        for seed in (0, 1):
            score = top + 0.02 * seed
            held = {"name": "val/top1", "value": score + 0.1, "metrics": {"val/top1": score + 0.1}}
            make_run(
                tmp_path / f"lr{lr}", "scratch", seed, points=[(100, score)], config={"lr": lr},
                changes={"best": held, "equal": {"schedule": {"lr": lr}}},
            )  # fmt: skip
    return tmp_path


def test_runs_that_differ_on_purpose_are_a_table(rates, capsys):
    folders = sorted(rates.glob("lr*"))
    with pytest.raises(InputError, match="Two runs have init scratch, seed 0 and fraction 1"):
        compare(folders)
    table = compare_by(folders, ["lr"])
    assert [(row.values, row.runs, round(row.best.mean, 3)) for row in table.rows] == [
        (("0.01",), 2, 0.71),
        (("0.001",), 2, 0.51),
    ]
    assert any(note.startswith("follows from it: equal.schedule") for note in table.notes)
    assert cli.main(["compare", *map(str, folders), "--by", "lr", "--out", str(rates / "table")]) == 0
    said = capsys.readouterr().out
    assert "val/top1 (best)" in said
    assert "0.710 ± 0.014" in said
    rows = list(csv.reader((rates / "table/by.csv").open()))
    assert rows[0][:2] == ["lr", "arm"]
    assert [row[0] for row in rows[1:]] == ["0.01", "0.001"]
    assert (rates / "table/by.md").read_text().count("\n") == 4


def test_values_of_the_same_digits_stay_apart_and_unscored_runs_are_named(tmp_path):
    for number, lr in enumerate((0.00100001, 0.00100002)):
        changes = {
            "equal": {"schedule": {"lr": lr}},
            "best": {"name": "val/top1", "value": None, "metrics": {}},
        }
        make_run(tmp_path / str(number), "scratch", points=[(100, 0.5)], config={"lr": lr}, changes=changes)
    table = compare_by(sorted(tmp_path.iterdir()), ["lr"])
    assert [(row.values, row.runs, row.best) for row in table.rows] == [(("0.001",), 1, None)] * 2
    assert sum(note.startswith("without a score") and "scratch-f1-s0" in note for note in table.notes) == 2


def test_what_else_differs_is_refused_by_name(rates):
    folders = sorted(rates.glob("lr*"))
    make_run(
        rates / "lr0.01", "scratch", 2, points=[(100, 0.5)], config={"lr": 0.01, "batch_size": 64},
        changes={"equal": {"schedule": {"lr": 0.01}}},
    )  # fmt: skip
    with pytest.raises(
        InputError, match=r"batch_size: \d+ in [^$]*--by lr batch_size, or .*--allow batch_size"
    ):
        compare_by(folders, ["lr"])
    assert len(compare_by(folders, ["lr", "batch_size"]).rows) == 3
    noted = compare_by(folders, ["lr"], allow=["batch_size"])
    assert any("not held equal: batch_size" in note for note in noted.notes)
    for name, text in (("lrr", "'lr'"), ("seeds", "told apart by it anyway")):
        with pytest.raises(InputError, match=text):
            compare_by(folders, [name])


def test_a_run_twice_counts_once_and_unfinished_ones_are_named(rates):
    same = {"equal": {"schedule": {"lr": 0.001}}}
    copy = make_run(rates / "copy", "scratch", 1, points=[(100, 0.42)], config={"lr": 0.001}, changes=same)
    twice = compare_by([rates / "lr0.001", rates / "copy"], ["lr"])
    assert twice.rows[0].runs == 2
    assert "has the settings and the seed of scratch-f1-s1" in twice.text(width=400)
    (copy / "result.json").write_text(json.dumps({"status": "no"}))
    with pytest.raises(InputError, match="No finished run"):
        compare_by([rates / "copy"], ["lr"])
    assert any("unfinished" in note for note in compare_by([rates / "lr0.001", rates / "copy"], ["lr"]).notes)
