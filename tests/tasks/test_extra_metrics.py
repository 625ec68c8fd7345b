"""Metrics of the user's own beside a task's, in every task."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning
import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from tests.contracts.extra_metrics_worker import CASES, task_with
from visionkit import Classifier
from visionkit.errors import InputError
from visionkit.tasks.extra_metrics import box_targets


def first(items):
    return items[0]


def loader(*batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=1, collate_fn=first)


def trainer(**settings):
    warnings.simplefilter("ignore")
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_metrics_of_ones_own_equal_the_tasks_and_travel_in_no_checkpoint(name: str, tmp_path: Path) -> None:
    case, metrics, equal = CASES[name]
    task = task_with(case, metrics())
    run = trainer(max_steps=1, num_sanity_val_steps=1)
    run.fit(task, loader(case.batch(0, 4)), loader(case.batch(0, 4), case.batch(4, 3)))
    logged = {key: float(value) for key, value in run.callback_metrics.items()}
    for own, ours in equal.items():
        assert logged[f"val/{own}"] == pytest.approx(logged[f"val/{ours}"], abs=1e-6), own
    assert {key.removeprefix("val/") for key in logged} > case.logged
    run.save_checkpoint(tmp_path / "task.ckpt")
    assert "metrics" not in torch.load(tmp_path / "task.ckpt", weights_only=True)["hyper_parameters"]
    again = type(task).load_from_checkpoint(tmp_path / "task.ckpt")
    assert again.metrics is None
    assert again.state_dict().keys() == task.state_dict().keys()
    assert type(task).load_from_checkpoint(tmp_path / "task.ckpt", metrics=metrics()).metrics is not None


@pytest.mark.dist
def test_metrics_of_ones_own_are_the_same_on_two_processes(zygote) -> None:
    """Uneven numbers of batches, and in the second set a process without an image."""
    one = zygote.run("tests.contracts.extra_metrics_worker:main")
    left, right = zygote.ranks("tests.contracts.extra_metrics_worker:main", 2, torchrun=True)
    assert len(one) == 2 * len(CASES)
    assert str(left) == str(right)  # NaN differs from itself
    for name, values in one.items():
        # torchmetrics merges float32 variances of nearly constant outputs, whose correlations lose digits.
        slack = 1e-4 if name.startswith("regression") else 1e-6
        assert left[name] == pytest.approx(values, rel=1e-5, abs=slack, nan_ok=True), name
    exact = one["classifier, 7"]["val/MulticlassAccuracy"]
    assert left["classifier, 7"]["val/MulticlassAccuracy"] == exact


def classifier(metrics, **settings):
    return Classifier("timm/test_resnet", init="scratch", metrics=metrics, num_classes=3, **settings)


def test_names_of_the_task_are_refused() -> None:
    with pytest.raises(InputError, match=r"but got 'top1'. Name it otherwise"):
        classifier({"top1": MulticlassAccuracy(3)})
    with pytest.raises(InputError, match="a MetricCollection, or a dict of metrics"):
        classifier([3])
    assert classifier(MulticlassAccuracy(3)).metrics is not None


def test_one_number_a_class_is_logged_by_its_name_and_matrices_are_left_out() -> None:
    metrics = MetricCollection([MulticlassF1Score(3, average=None), MulticlassConfusionMatrix(3)])
    task = classifier(metrics, class_names=["a", "b", "c"])
    task.extra = task.extra.fresh(torch.device("cpu"))
    task.extra.update(torch.eye(3), torch.tensor([0, 1, 1]))
    assert sorted(task.extra.compute()) == [f"MulticlassF1Score/{name}" for name in "abc"]
    assert task.metrics["MulticlassConfusionMatrix"].compute().shape == (3, 3)


def test_each_loader_has_metrics_of_its_own() -> None:
    task = classifier(MetricCollection([MulticlassAccuracy(3, average="micro")], prefix="my_"))
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    right = int(task.eval()(images)[0].argmax())
    loaders = [loader((images, torch.full((4,), label))) for label in (right, (right + 1) % 3)]
    one, other = trainer().validate(task, loaders, verbose=False)
    assert one["val/my_MulticlassAccuracy/dataloader_idx_0"] == 1
    assert other["val/my_MulticlassAccuracy/dataloader_idx_1"] == 0
    assert not [name for name in task.state_dict() if "my_" in name or "extra" in name]


def test_objects_are_given_as_torchmetrics_takes_them() -> None:
    runs = {"size": [2, 2], "counts": b"04"}
    truth = {"boxes": [[0, 0, 2, 2]], "labels": [1], "iscrowd": [0], "area": [float("nan")], "masks": [runs]}
    (target,) = box_targets([truth], torch.device("cpu"), masks=True)
    assert target["boxes"].dtype == torch.float32
    assert "area" not in target
    assert target["masks"].tolist() == [[[True, True], [True, True]]]
