"""ROC curves and reliability diagrams: the numbers of torchmetrics and of the task's own metric."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_auroc, multilabel_auroc

from tests.run.make_runs import make_run
from visionkit.compare.comparison import compare
from visionkit.compare.report.figures.reliability import confidence_bins
from visionkit.compare.report.figures.roc import roc, scored_classes
from visionkit.compare.report.report import write_report
from visionkit.compare.report.run_curves import draw_run_curves
from visionkit.metrics.classification import SingleLabelScores
from visionkit.run.previews.classification import ClassPreview

CLASSES = ["a", "b", "c"]


def rows_of(logits: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    batch = {"images": logits, "labels": labels, "ids": [str(idx) for idx in range(len(logits))]}
    return ClassPreview(CLASSES).rows(None, batch, batch["images"])


def test_areas_are_those_of_torchmetrics_ties_included() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=generator).round(decimals=1)  # with ties
    labels = torch.randint(3, (200,), generator=generator)
    scored = scored_classes(rows_of(logits, labels), CLASSES)
    areas = [roc(scored.scores[:, k], scored.truth[:, k])[2] for k in range(3)]
    expected = multiclass_auroc(torch.from_numpy(scored.scores), labels, num_classes=3, average="none")
    assert areas == pytest.approx(expected.tolist(), abs=1e-5)
    several = torch.randint(2, (200, 3), generator=generator).float()
    scored = scored_classes(rows_of(logits, several), CLASSES)
    areas = [roc(scored.scores[:, k], scored.truth[:, k])[2] for k in range(3)]
    assert areas == pytest.approx(
        multilabel_auroc(torch.from_numpy(scored.scores), several.long(), 3, "none").tolist(), abs=1e-5
    )
    assert roc(np.array([0.5, 0.2]), np.array([1.0, 1.0])) is None


def test_bins_are_those_of_the_calibration_error() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(300, 3, generator=generator)
    labels = torch.randint(3, (300,), generator=generator)
    counts, confidence, accuracy = confidence_bins(rows_of(logits, labels), CLASSES)
    metric = SingleLabelScores(3)
    metric.update(logits, labels)
    error = (counts / counts.sum() * np.abs(accuracy - confidence)).sum()
    assert counts.sum() == 300
    assert error == pytest.approx(metric.compute_floats()["ece"], abs=1e-5)


def test_rows_without_probabilities_have_no_curves() -> None:
    assert scored_classes([{"truth": "a"}, {"truth": "a", "probabilities": [0.5]}], CLASSES) is None
    mixed = [{"truth": "a", "probabilities": [0.5, 0.3, 0.2]}, {"truth": "b"}]
    assert scored_classes(mixed[:1], CLASSES) is not None
    assert scored_classes(mixed, CLASSES) is None  # not those of some images alone
    odd = [{"truth": "a", "probabilities": [0.5, None, 0.1]}]
    assert scored_classes(odd, CLASSES) is None
    many = ClassPreview([str(idx) for idx in range(61)])
    batch = {"images": torch.zeros(1, 61), "labels": torch.tensor([3]), "ids": ["x"]}
    assert "probabilities" not in many.rows(None, batch, batch["images"])[0]


def test_curves_reach_the_report_and_the_run(tmp_path) -> None:
    labels = torch.arange(30) % 3
    for init, scale in (("pretrained", 3.0), ("scratch", 0.5)):
        logits = scale * torch.nn.functional.one_hot(labels, 3) + torch.randn(
            30, 3, generator=torch.Generator().manual_seed(2)
        )
        folder = make_run(tmp_path, init, classes=CLASSES, predictions=3)
        lines = [json.dumps(row) + "\n" for row in rows_of(logits, labels)]
        (folder / "predictions" / "val.jsonl").write_text("".join(lines))
        with (folder / "metrics.csv").open("a") as file:
            file.writelines(
                f"{n},0,{n},lr,{group},{rate}\n"
                for n in (100, 200)
                for group, rate in (("head", 0.1), ("backbone", 0.03))
            )
        assert draw_run_curves(folder).stat().st_size > 20_000
    text = write_report(compare([tmp_path]), tmp_path).read_text()
    rate = "its backbone learns at 0.3 of the rate"
    for words in ("AUROC", "calibration error", "Learning rate", "pretrained, training", "mean of the", rate):
        assert words in text, words
