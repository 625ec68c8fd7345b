"""Advice by measurement: nearest neighbours by an independent count, the rule, its doubts, and the verb."""

from __future__ import annotations

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from visionkit import cli
from visionkit.errors import DataError
from visionkit.metrics.embedding.rows import unit_rows
from visionkit.run.advice import advise_data as module
from visionkit.run.advice.advise import LITTLE, advise
from visionkit.run.advice.advise_data import DataAdvice, advise_data
from visionkit.run.advice.similarity import (
    MIN_IMAGES,
    SIMILAR,
    Accuracy,
    measure_similarity,
    nearest_correct,
)
from visionkit.run.advice.vectors import FEATURES
from visionkit.run.command_line import parse
from visionkit.run.probing.measured import nearest_case


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
    assert (found.similarity, found.shown, found.agreement) == ("similar", True, 1.0)
    assert found.errors_removed is not None
    assert SIMILAR < found.errors_removed <= 1.0
    errors = {name: 1 - each.value for name, each in found.accuracies.items()}
    assert found.errors_removed == pytest.approx(1 - errors["pretrained"] / errors["pixels"])
    alike = measure_similarity({"pretrained": noise, "random": noise, "pixels": noise}, labels)
    assert (alike.similarity, alike.errors_removed, alike.shown) == ("different", 0.0, True)
    few = torch.arange(MIN_IMAGES - 2) % 4
    few_noise = noise[: len(few)]
    assert not measure_similarity({"pretrained": few_noise, "pixels": few_noise}, few).shown
    # where the pixels make no errors there is nothing to remove
    easy = measure_similarity({"pretrained": signs, "pixels": torch.eye(8)[labels]}, labels)
    assert (easy.errors_removed, easy.agreement, easy.shown) == (None, 0.0, False)


def test_groups_are_the_units_and_an_image_alone_is_counted() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    vectors = {"pretrained": _vectors(labels, 9.0), "pixels": _vectors(labels, 0.0)}
    groups = ["a", "a", "b", "c", "d", "d", "e"]
    found = measure_similarity(vectors, labels, groups)
    assert (found.images, found.unscored, found.units) == (6, 1, 4)
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
    assert measured["images"] + measured["unscored"] == 20
    assert set(measured["accuracies"]) == {"pretrained", "random", "pixels"}
    assert "--group_by '([a-z]+/[0-9]+)_'" in table["command"]
    likely = advise(images=24, num_classes=2, similarity=measured["similarity"])
    assert table["advice"]["scratch"] == likely.scratch == "no"
    assert any("fewer than 250 images" in doubt for doubt in table["doubts"]) != (
        measured["agreement"] >= 0.975 and measured["similarity"] == "similar"
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


def test_the_command_parses_for_every_row_of_the_table(root, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes"))
    config = __import__("classify").Config
    labels = torch.arange(40) % 4
    measured = measure_similarity({name: _vectors(labels, 1.0) for name in FEATURES}, labels)
    rows = [(count, near) for count in (LITTLE, LITTLE + 1) for near in ("similar", "different")]
    probed = nearest_case(10, "similar")
    for count, near in rows:
        advice = advise(images_per_class=count, similarity=near)
        told = DataAdvice(
            "my photos", "packaged/efficientnet_lite0", "", 4, 40, None, 10, 64, "(.*) [0-9]", 0, measured,
            advice, (), {}, probed, (), 0.0,
        )  # fmt: skip
        run, *flags = shlex.split(told.command)[1:3], *shlex.split(told.command)[3:]
        made = parse(config, flags)
        assert run == ["run", "classify"]
        assert (made.data, made.backbone, made.image_size) == (told.data, told.backbone, told.image_size)
        assert (made.group_by, tuple(made.schedules)) == (told.group_by, advice.schedules)
        assert made.transfer == advice.transfer
        assert made.init == ("pretrained" if advice.scratch == "no" else "both")
    assert len({dataclasses.astuple(advise(images_per_class=c, similarity=s)) for c, s in rows}) == 4


def test_scratch_and_schedules_follow_the_amount() -> None:
    assert advise(images_per_class=LITTLE).schedules == (1,)
    much = [advise(images_per_class=LITTLE + 1, similarity=near) for near in ("similar", "different")]
    assert [each.scratch for each in much] == ["if trained longer", "yes"]
    assert {each.schedules for each in much} == {(1, 2, 4)}
