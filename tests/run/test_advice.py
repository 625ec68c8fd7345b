"""Advice by measurement: nearest neighbours by an independent count, the rule, its doubts, and the verb."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from visionkit import cli
from visionkit.advise import LITTLE, advise
from visionkit.errors import DataError
from visionkit.metrics.embedding.rows import unit_rows
from visionkit.run.advice import advise_data as module
from visionkit.run.advice.advise_data import advise_data
from visionkit.run.advice.similarity import (
    ENOUGH,
    SIMILAR,
    Accuracy,
    measure_similarity,
    nearest_correct,
)


@pytest.mark.parametrize("grouped", [False, True])
def test_neighbors_are_those_of_a_plain_search(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    vectors = unit_rows(torch.from_numpy(rng.normal(size=(60, 4))))
    vectors[30:33] = vectors[0]  # exact copies
    labels = rng.integers(0, 3, 60)
    groups = rng.integers(0, 9, 60) if grouped else np.arange(60)
    found = nearest_correct(vectors, labels, groups)
    rows = vectors.double().numpy()
    for index in range(60):
        others = [other for other in range(60) if groups[other] != groups[index]]
        best = max(others, key=lambda other: (rows[index] @ rows[other], -other))
        assert found[index] == (labels[best] == labels[index])


@pytest.mark.parametrize(("right", "total"), [(0, 12), (7, 12), (12, 12), (613, 1000)])
def test_the_interval_is_wilsons(right: int, total: int) -> None:
    made, known = Accuracy.of(right / total, total), binomtest(right, total).proportion_ci(method="wilson")
    assert (made.low, made.high) == pytest.approx((known.low, known.high), abs=1e-9)


def _vectors(labels: torch.Tensor, signal: float) -> torch.Tensor:
    noise = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(1))
    return unit_rows(noise + signal * torch.eye(8)[labels])


def test_weights_that_sort_the_classes_are_similar_and_others_not() -> None:
    labels = torch.arange(400) % 4
    noise, signs = _vectors(labels, 0.0), _vectors(labels, 9.0)
    found = measure_similarity({"pretrained": signs, "random": noise, "pixels": noise}, labels)
    assert (found.similarity, found.shown, found.sure) == ("similar", True, 1.0)
    assert found.errors_removed is not None
    assert SIMILAR < found.errors_removed <= 1.0
    errors = {name: 1 - each.value for name, each in found.accuracies.items()}
    assert found.errors_removed == pytest.approx(1 - errors["pretrained"] / errors["pixels"])
    alike = measure_similarity({"pretrained": noise, "random": noise, "pixels": noise}, labels)
    assert (alike.similarity, alike.errors_removed, alike.shown) == ("different", 0.0, True)
    few = torch.arange(ENOUGH - 2) % 4
    few_noise = noise[: len(few)]
    assert not measure_similarity({"pretrained": few_noise, "pixels": few_noise}, few).shown
    # where the pixels make no errors there is nothing to remove
    easy = measure_similarity({"pretrained": signs, "pixels": torch.eye(8)[labels]}, labels)
    assert (easy.errors_removed, easy.sure, easy.shown) == (None, 0.0, False)


def test_groups_are_the_units_and_an_image_alone_is_counted() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    vectors = {"pretrained": _vectors(labels, 9.0), "pixels": _vectors(labels, 0.0)}
    groups = ["a", "a", "b", "c", "d", "d", "e"]
    found = measure_similarity(vectors, labels, groups)
    assert (found.images, found.alone, found.units) == (6, 1, 4)
    assert found.largest_class == 0.5
    with pytest.raises(DataError, match="two classes or more"):
        measure_similarity(vectors, torch.zeros(7, dtype=torch.int64), groups)
    with pytest.raises(DataError, match="of 7 images only 0 have their class in another"):
        measure_similarity(vectors, labels, list("aaabbbc"))


def test_the_verb_on_a_folder(tmp_path, capsys, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        for split, first, count in (("train", 0, 12), ("val", 50, 2)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(first, first + count):
                pixels = rng.normal(level, 20, (32, 40, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index // 2}_{index}.png")
    small = ["--backbone", "packaged/efficientnet_lite0", "--image_size", "32", "--max_images", "20"]
    given = ["advise", str(tmp_path), *small, "--group_by", "([a-z]+/[0-9]+)_"]
    made = []
    monkeypatch.setattr(module, "advise_data", lambda *a, **k: made.append(advise_data(*a, **k)) or made[-1])
    assert cli.main([*given, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    measured = table["measured"]
    assert (table["classes"], table["train_images"], table["train_groups"]) == (2, 24, 12)
    assert measured["images"] + measured["alone"] == 20
    assert set(measured["accuracies"]) == {"pretrained", "random", "pixels"}
    assert "--group_by '([a-z]+/[0-9]+)_'" in table["command"]
    likely = advise(images=24, num_classes=2, similarity=measured["similarity"])
    assert table["advice"]["scratch"] == likely.scratch == "no"
    assert any("fewer than 250 images" in doubt for doubt in table["doubts"]) != (
        measured["sure"] >= 0.975 and measured["similarity"] == "similar"
    )
    monkeypatch.setattr(module, "advise_data", lambda *_, **__: made[0])  # measured once
    assert cli.main(given) == 0
    monkeypatch.undo()
    text = capsys.readouterr().out
    for said in ("24 training images in 12 groups", "trained on ImageNet-1k", "how sure", "largest class"):
        assert said in text
    assert cli.main(["advise", str(tmp_path), "--init", "scratch"]) == 2
    assert "trained weights" in capsys.readouterr().err
    assert cli.main(["advise", str(tmp_path), "--target", "multi"]) == 2
    assert "one class an image" in capsys.readouterr().err


def test_scratch_and_schedules_follow_the_amount() -> None:
    assert advise(images_per_class=LITTLE).schedules == (1,)
    much = [advise(images_per_class=LITTLE + 1, similarity=near) for near in ("similar", "different")]
    assert [each.scratch for each in much] == ["if trained longer", "yes"]
    assert {each.schedules for each in much} == {(1, 2, 4)}
