"""What images add to scores: a sample that draws images many times equals an evaluation of those images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).parent))

from detections import random_evaluation

from visionkit.compare.resampling.weighted_scores import weighted_scores
from visionkit.metrics import (
    CaptionScores,
    CocoAP,
    DocumentFrequency,
    MultiLabelScores,
    RegressionScores,
    SegmentationMetric,
    SingleLabelScores,
)

DRAWS = np.random.default_rng(3)


def draws(images: int, samples: int = 4) -> np.ndarray:
    """The images as they are, then some samples with replacement."""
    drawn = DRAWS.multinomial(images, np.full(images, 1 / images), size=samples)
    return np.concatenate([np.ones((1, images), dtype=np.int64), drawn])


def repeated(counts: np.ndarray) -> list[int]:
    return np.repeat(np.arange(len(counts)), counts).tolist()


def columns_of(rows: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in rows.items() if name != "ids"}


@pytest.mark.parametrize("masks", [False, True])
def test_average_precision_of_a_sample_is_that_of_its_images(masks: bool) -> None:
    preds, targets, _ = random_evaluation(5, images=12, masks=masks)
    for image in preds:  # equal scores within an image are ordered in another way when it comes twice
        image["scores"] = torch.from_numpy(DRAWS.random(len(image["scores"])))
    names = [f"{index:03}" for index in range(12)]

    def score(indices: list[int]) -> CocoAP:
        metric = CocoAP(list("abcd"), masks=masks)
        ids = [f"{position:03}" for position, _ in enumerate(indices)]
        metric.update([preds[i] for i in indices], [targets[i] for i in indices], ids)
        metric.compute_floats()
        return metric

    whole = score(list(range(12)))
    assert whole.image_rows["ids"].tolist() == names
    assert sum(int(target["iscrowd"].sum()) for target in targets) > 0
    counts = draws(12)
    scores = weighted_scores(columns_of(whole.image_rows), counts)
    wanted = [score(repeated(row)).result().values for row in counts]
    for name in ("map", "map50", "map75", *(("mask_map", "mask_map50") if masks else ())):
        expected = [max(each[name], 0.0) if each[name] >= 0 else np.nan for each in wanted]
        np.testing.assert_allclose(scores[name], expected, atol=1e-12, err_msg=name)


def test_classification_and_regression_of_a_sample() -> None:
    logits, labels = torch.from_numpy(DRAWS.normal(size=(9, 7))), torch.arange(9) % 7
    losses, counts = torch.from_numpy(DRAWS.random(9)), draws(9)
    several = torch.from_numpy((DRAWS.random((9, 7)) < 0.3).astype(np.float32))
    several[0] = 1
    logits[3] = logits[4]  # ties
    numbers = torch.from_numpy(DRAWS.normal(size=(9, 7)))
    cases = [
        (lambda: SingleLabelScores(7), labels, ("top1", "top5", "loss")),
        (lambda: MultiLabelScores(7), several, ("map", "loss")),
        (lambda: RegressionScores(7), numbers, ("mae", "rmse", "loss")),
    ]
    for make, target, names in cases:
        scores = weighted_scores(columns_of(make().image_rows(logits, target, losses)), counts)
        for sample, row in enumerate(counts):
            metric, chosen = make(), repeated(row)
            metric.update(logits[chosen], target[chosen], losses[chosen])
            values = metric.compute_floats()
            for name in names:
                assert scores[name][sample] == pytest.approx(values[name], rel=1e-6), name
    # scikit-learn weights images itself.
    scores = weighted_scores(columns_of(MultiLabelScores(7).image_rows(logits, several, losses)), counts)
    with np.errstate(invalid="ignore"):
        for value, row in zip(scores["map"], counts, strict=True):
            known = [k for k in range(7) if (several[:, k].numpy() * row).any()]
            truth, shown = several.numpy(), logits.float().numpy()
            each = [average_precision_score(truth[:, k], shown[:, k], sample_weight=row) for k in known]
            assert value == pytest.approx(np.mean(each), rel=1e-9)


def test_segmentation_of_a_sample() -> None:
    maps = torch.from_numpy(DRAWS.integers(0, 4, (2, 8, 6, 6)))
    maps[1, :, 0] = 255
    maps[:, 0, 1:] = 3  # the class is in one image only
    maps[:, 1:][maps[:, 1:] == 3] = 0
    preds, target, counts = maps[0], maps[1], draws(8)
    rows = SegmentationMetric(5).image_rows(preds, target)
    scores = weighted_scores(columns_of(rows), counts)
    for sample, row in enumerate(counts):
        metric, chosen = SegmentationMetric(5), repeated(row)
        metric.update(preds[chosen], target[chosen])
        values = metric.compute_floats()
        for name in ("miou", "pixel_accuracy", "mean_accuracy"):
            assert scores[name][sample] == pytest.approx(values[name], rel=1e-12), name


def test_captions_of_a_sample() -> None:
    captions = ["a dog runs on grass", "two men", "", "a red car in a street", "a cat"]
    references = ["a dog is running/dog on the grass", "two men talk", "a bird", "a red car", "a cat"]
    tokens = [[text.split() for text in texts.split("/")] for texts in references]
    frequency = DocumentFrequency.count(tokens)
    counts = draws(5)
    metric = CaptionScores(frequency)
    metric.update([text.split() for text in captions], tokens, ids=[f"{i}" for i in range(5)])
    values = metric.compute_floats()
    rows = metric.image_rows()
    assert rows["ids"].tolist() == ["0", "1", "2", "3", "4"]
    scores = weighted_scores(columns_of(rows), counts)
    for name, value in values.items():
        assert scores[name][0] == pytest.approx(value, rel=1e-9), name
    for sample, row in enumerate(counts):
        chosen, fixed = repeated(row), CaptionScores(frequency)
        fixed.update([captions[i].split() for i in chosen], [tokens[i] for i in chosen])
        values = fixed.compute_floats()
        # The frequencies of "cider" are those of all images, whatever the sample.
        for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"):
            assert scores[name][sample] == pytest.approx(values[name], rel=1e-9), name
