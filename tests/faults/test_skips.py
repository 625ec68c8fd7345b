"""Samples that cannot be read: refused, or left out the same way whatever the cuts, processes and workers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from PIL import Image

from tests.faults.children import StopAt, digest
from tests.faults.children_data import skipping
from tests.run.tiny import Noise, keep, tiny_data
from visionkit.data.keyed_dataset import KeyedDataset
from visionkit.errors import DataError, InputError
from visionkit.rng import Salt, keyed_seed

BAD = (3, 7, 20)


class Broken(Noise):
    """A reader some of whose samples cannot be read."""

    def __init__(self, size: int, seed: int, bad: tuple[int, ...]) -> None:
        super().__init__(size, seed)
        self.bad = bad

    def __getitem__(self, index: int) -> dict:
        if index in self.bad:
            raise DataError("Expected a whole image.", path=self.ids[index])
        return super().__getitem__(index)


def test_the_stand_in_is_a_function_of_seed_epoch_and_index():
    data = KeyedDataset(Broken(30, 1, BAD), keep, seed=5, on_error="replace")
    again = KeyedDataset(Broken(30, 1, BAD), keep, seed=5, on_error="replace")
    chosen = set()
    for epoch in range(5):
        for index in BAD:
            one, other = data[(epoch, index)], again[(epoch, index)]
            assert one.index == index
            assert one.replacement["id"] == other.replacement["id"]
            first = keyed_seed(5, epoch, index, 0, Salt.RETRY) % 30
            if first not in BAD:
                assert one.replacement["id"] == f"noise-1-{first}"
            chosen.add(one.replacement["id"])
    assert len(chosen) > 5, "not one and the same for all"
    assert not chosen & {f"noise-1-{index}" for index in BAD}
    assert data[(0, 4)]["id"] == "noise-1-4"
    with pytest.raises(DataError, match="None of 16 others"):
        KeyedDataset(Broken(9, 1, tuple(range(9))), keep, seed=5, on_error="replace")[(0, 1)]
    with pytest.raises(DataError, match="whole image"):
        KeyedDataset(Broken(30, 1, BAD), keep, seed=5)[(0, 3)]
    assert KeyedDataset(Broken(30, 1, BAD), keep, seed=5, on_error="drop")[(0, 3)].replacement is None


def test_the_limit_is_kept_and_the_first_are_named():
    data = tiny_data()
    data.skip_unreadable(limit=0.1)
    data.note_skipped([("train", 3, "a.png: cut"), ("train", 3, "a.png: cut"), ("train", 7, "b.png: cut")])
    assert data.skipped_counts() == {"train": {"count": 2, "of": 30, "indices": [3, 7]}}
    data.note_skipped([("train", 20, "c.png: cut"), ("val", 1, "d.png: cut")])
    with pytest.raises(DataError, match=r"at most 10\.00% of the 30 train samples(.|\n)*4 are(.|\n)*a\.png"):
        data.note_skipped([("train", 21, "e.png: cut")])
    with pytest.raises(InputError, match="a fraction"):
        tiny_data().skip_unreadable(limit=1.5)


def test_an_evaluation_leaves_out_what_a_training_replaces():
    data = tiny_data()
    data.splits.val.__class__ = type("B", (Broken,), {})
    data.splits.val.bad = (0, 1, 2, 3)
    data.skip_unreadable(limit=1.0)
    batches = list(data.val_dataloader())
    assert [len(batch["ids"]) for batch in batches] == [0, 4, 3], "a batch may be left without samples"
    assert [fault[:2] for fault in batches[0]["skipped"]] == [("val", index) for index in (0, 1, 2, 3)]


@pytest.mark.dist
@pytest.mark.check("policy", "unreadable samples skipped alike for cuts, 1, 2 processes and 0, 2 workers")
def test_skips_do_not_depend_on_cuts_processes_or_workers(zygote, tmp_path, figure):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, counts = skipping(tmp_path / "whole", None, 1, 0)
        assert counts["train"]["indices"] == list(BAD)
        assert counts["val"]["indices"] == [2]
        cases = 0
        for batch in (1, 4, 7, 11):
            skipping(tmp_path / str(batch), StopAt("end", batch), 1, 0)
            again, found = skipping(tmp_path / str(batch), None, 1, 2 if batch == 4 else 0)
            assert digest(again) == digest(whole), batch
            assert found == counts, batch
            cases += 1
    ranks = zygote.world("skipping_on_ranks", 2, str(tmp_path / "ranks"))
    assert [rank.wait(120) for rank in ranks] == [0, 0], ranks[0].said()[-3000:]
    told = [rank.result() for rank in ranks]
    assert told[0] == told[1]
    assert told[0]["counts"] == counts
    # The two shares joined are the batches of one process: stand-ins too.
    assert told[0]["same order"]
    figure(cases + 1, 5)


@pytest.mark.check("policy", "the recipe: refused by default; skipped, counted in result.json, limited")
def test_the_recipe_takes_the_policy(zygote, tmp_path, figure):
    photos = tmp_path / "photos"
    for split, count in (("train", 12), ("val", 6)):
        for name in ("ant", "bee"):
            (photos / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 36), (20 * i, 0, 99)).save(photos / split / name / f"{i}.png")
    (photos / "train/bee/3.png").write_bytes(b"")
    (photos / "val/ant/2.png").write_bytes(b"<html>")
    words = ["--data", photos, "--backbone", "timm/test_resnet", "--init", "scratch", "--seeds", 0]
    words += [
        "--image_size",
        32,
        "--batch_size",
        4,
        "--epochs",
        2,
        "--accelerator",
        "cpu",
        "--progress",
        "false",
    ]
    words = [str(word) for word in words]

    def run(name: str, *more: str) -> tuple[int, str, Path]:
        out = tmp_path / name
        child = zygote.start("classify", [*words, "--out", str(out), *more], str(tmp_path / f"{name}.steps"))
        return child.wait(), child.said(), out

    code, said, _ = run("raise")
    assert code == 2
    assert "0 bytes" in said or "HTML" in said
    code, said, _ = run("few", "--checks.bad_input", "skip")
    assert code == 2
    assert "at most 0.10% of the" in said
    code, said, out = run("skip", "--checks.bad_input", "skip", "--checks.bad_limit", "0.1")
    assert code == 0, said[-3000:]
    result = json.loads((out / "scratch-f1-s0" / "result.json").read_text())
    assert {s: (v["count"], v["of"]) for s, v in result["skipped"]["samples"].items()} == {
        "train": (1, 24),
        "val": (1, 12),
    }
    assert result["skipped"]["updates"] == 0
    lines = (out / "scratch-f1-s0/faults/samples-rank-0.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert "train/bee/3.png" in "".join(lines)
    assert "left out" in said
    figure(3, 3)
