"""Evaluates every task with metrics of torchmetrics beside its own, in as many processes as there are."""

from __future__ import annotations

import warnings

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.regression import MeanAbsoluteError, PearsonCorrCoef
from torchmetrics.text import BLEUScore, ROUGEScore

from tests.contracts.task_cases import TASKS
from tests.contracts.task_worker import evaluate
from visionkit.metrics import RetrievalScores
from visionkit.tasks.extra_metrics import ExtraMetrics

BY_NAME = {case.name: case for case in TASKS}


def single():
    return MetricCollection([MulticlassAccuracy(3, average="micro"), MulticlassAUROC(3, thresholds=None)])


def vectors():
    return {"retrieval": RetrievalScores(ks=(1,), score="recall_at_1")}


def boxes():
    return MeanAveragePrecision()


CASES = {
    "classifier": (BY_NAME["classifier, single"], single, {"MulticlassAccuracy": "top1"}),
    "regression": (BY_NAME["classifier, regression"], lambda: {"r": PearsonCorrCoef(num_outputs=3)}, {}),
    "embedder": (BY_NAME["embedder"], vectors, {"retrieval": "recall_at_1"}),
    "regressor": (BY_NAME["keypoint regressor"], lambda: {"pixels": MeanAbsoluteError()}, {}),
    "segmenter": (
        BY_NAME["segmenter"],
        lambda: {"jaccard": MulticlassJaccardIndex(3, ignore_index=255)},
        {"jaccard": "miou"},
    ),
    "detector": (
        BY_NAME["detector"],
        lambda: MetricCollection({"coco": boxes()}, prefix="tm_"),
        {"tm_map": "map"},
    ),
    "captioner": (
        BY_NAME["captioner"],
        lambda: MetricCollection({"bleu": BLEUScore(), "rouge": ROUGEScore(rouge_keys="rougeL")}),
        {},
    ),
}


def task_with(case, metrics):
    """A task of a contract case, with metrics as its argument gives them."""
    from visionkit.config import OptimConfig, TransferConfig

    task = case.build("scratch", TransferConfig(), OptimConfig(warmup=0.0, schedule="constant"))
    assert isinstance(task.extra, ExtraMetrics)
    torch.manual_seed(0)
    task._take_metrics(metrics, getattr(task, "class_names", None))
    return task


def main() -> dict[str, dict[str, float]]:
    warnings.simplefilter("ignore")
    found = {}
    for name, (case, metrics, _) in CASES.items():
        with_metrics = type(case)(**{**vars(case), "build": built(case, metrics)})
        found |= {f"{name}, {size}": evaluate(with_metrics, size)[0] for size in (7, 1)}
    return found


def built(case, metrics):
    def build(init, transfer, optim):
        task = case.build(init, transfer, optim)
        task._take_metrics(metrics(), getattr(task, "class_names", None))
        return task

    return build
