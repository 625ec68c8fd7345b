"""The contract every task passes; a new task adds one row to task_cases.py."""

from __future__ import annotations

import copy
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import lightning
import numpy as np
import pytest
import timm
import torch
from torchmetrics import Metric

sys.path.insert(0, str(Path(__file__).parent))

from task_cases import MORE_TASKS, TASKS, TaskCase

from visionkit.compare.resampling.weighted_scores import weighted_scores
from visionkit.config import OptimConfig, TransferConfig
from visionkit.metrics import RunningSums
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.step_seed import StepSeed

FLAT = OptimConfig(warmup=0.0, schedule="constant")
# One classifier stands for its other targets, which have the same network; those are tried in the slow suite.
SAME_NETWORK = ("classifier, multi", "classifier, regression")


def every(*slow: str, quick: str = "") -> pytest.MarkDecorator:
    """Return the mark that runs a test for each task; the named ones and all but one further are slow."""
    rows = []
    for case in (*TASKS, *MORE_TASKS):
        late = (case in MORE_TASKS and case.name != quick) or case.name in slow
        rows.append(pytest.param(case, id=case.name, marks=[pytest.mark.slow] * late))
    return pytest.mark.parametrize("case", rows)


EVERY, EVERY_NETWORK = every(), every(*SAME_NETWORK)


def first(items):
    return items[0]


def loader(*batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=1, collate_fn=first)


def trainer(**settings):
    warnings.simplefilter("ignore")
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for name in {case.backbone for case in TASKS}:
        made[name] = str(folder / f"{name.replace('/', '-')}.pt")
        torch.save(timm.create_model(name.removeprefix("timm/")).state_dict(), made[name])
    return made


def test_the_contract_covers_every_exported_task() -> None:
    import visionkit.tasks as tasks

    exported = {
        value for name in tasks.__all__
        if isinstance(value := getattr(tasks, name), type) and issubclass(value, lightning.LightningModule)
    }  # fmt: skip
    built = {type(case.build("scratch", TransferConfig(), FLAT)) for case in TASKS}
    assert built == exported, "every task in visionkit.tasks.__all__ has a row in task_cases.py"
    assert len(TASKS) == 8
    assert {case.name for case in TASKS} > set(SAME_NETWORK)


@EVERY
def test_the_loss_of_one_batch_falls_and_names_are_as_declared(case: TaskCase) -> None:
    task = case.build("scratch", TransferConfig(), FLAT)
    batch = case.batch(0, 6)
    run = trainer(max_steps=case.steps, max_epochs=-1, log_every_n_steps=1)
    with torch.no_grad():
        before = float(copy.deepcopy(task).training_step(batch, 0)["loss"])
    run.fit(task, loader(batch), loader(case.batch(0, 6)))
    after = float(task.training_step(batch, 0)["loss"])
    assert after < 0.5 * before
    values = {name.removeprefix("val/") for name in run.callback_metrics if name.startswith("val/")}
    assert values == case.logged
    assert "train/loss" in run.callback_metrics
    name, mode = task.monitor
    assert name.removeprefix("val/") in case.logged
    assert mode == ("max" if case.higher else "min")


@EVERY
def test_the_rows_of_images_give_the_scores_that_were_logged(case: TaskCase) -> None:
    task = case.build("scratch", TransferConfig(), FLAT)
    task.save_image_rows = True
    run = trainer()
    run.validate(task, loader(case.batch(0, 5), case.empty, case.batch(5, 4)), verbose=False)
    columns = dict(task.image_rows)
    if case.name == "embedder":  # scores are of pairs: an image drawn twice would be its own neighbour
        assert columns == {}
        return
    assert sorted(columns.pop("ids")) == sorted(f"image {i}" for i in range(9))
    scores = weighted_scores(columns, np.ones((1, 9), dtype=np.int64))
    logged = {name.removeprefix("val/"): float(value) for name, value in run.callback_metrics.items()}
    assert case.build.__name__ != "build" or "loss" in scores
    assert task.monitor[0].removeprefix("val/") in scores
    for name, value in scores.items():
        assert float(value[0]) == pytest.approx(logged[name], rel=1e-5, abs=1e-7), name


@EVERY
def test_every_parameter_gets_a_gradient(case: TaskCase) -> None:
    task = case.build("scratch", TransferConfig(), FLAT)
    task.training_step(case.batch(0, 4), 0)["loss"].backward()
    assert [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


@EVERY
def test_frozen_stays_frozen(case: TaskCase, weights: dict[str, str]) -> None:
    task = case.build(weights[case.backbone], TransferConfig(freeze_through="all"), FLAT)
    before = {name: value.clone() for name, value in task.backbone.state_dict().items()}
    trainer(max_steps=2, max_epochs=-1).fit(task, loader(case.batch(0, 4)))
    assert len(before) > 10
    assert all(torch.equal(value, before[name]) for name, value in task.backbone.state_dict().items())
    assert not any(p.requires_grad for p in task.backbone.parameters())


@EVERY
def test_a_checkpoint_is_plain_and_reloads_without_its_weights_file(
    case: TaskCase, weights: dict[str, str], tmp_path: Path
) -> None:
    task = case.build(weights[case.backbone], TransferConfig(freeze_through=8, layer_decay=0.7), FLAT)
    run = trainer(max_steps=1, max_epochs=-1)
    run.fit(task, loader(case.batch(0, 4)))
    run.save_checkpoint(tmp_path / "task.ckpt")
    raw = torch.load(tmp_path / "task.ckpt", weights_only=True)
    assert raw["hyper_parameters"]["init"] == "scratch"
    assert weights[case.backbone] not in json.dumps({**raw["hyper_parameters"], "origin": None})
    again = type(task).load_from_checkpoint(tmp_path / "task.ckpt")
    filled = again.state_dict()
    assert filled.keys() == task.state_dict().keys()
    assert all(torch.equal(value, filled[name]) for name, value in task.state_dict().items())
    assert again.backbone.weights == task.backbone.weights
    frozen = [name for name, p in task.named_parameters() if not p.requires_grad]
    assert len(frozen) > 5
    assert [name for name, p in again.named_parameters() if not p.requires_grad] == frozen
    # and once more, from the reloaded one
    buffer = io.BytesIO()
    torch.save(dict(again.hparams), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["origin"] == dict(task.hparams)["origin"]


@every(*(case.name for case in TASKS), quick="detector, keypoints")
def test_a_run_that_is_resumed_ends_with_the_weights_of_one_that_was_not(case: TaskCase, tmp_path: Path):
    """What a step draws is a function of the run's seed and the step; the optimiser's state is saved."""
    ends = []
    for stops in ((3,), (1, 3)):
        path = None
        for number, steps in enumerate(stops):
            torch.manual_seed(number)  # the second begins from other weights, which the checkpoint replaces
            task = case.build("scratch", TransferConfig(), FLAT)
            run = trainer(max_steps=steps, max_epochs=-1, callbacks=[StepSeed(3)])
            run.fit(task, loader(case.batch(0, 4)), ckpt_path=path)
            path = tmp_path / f"{len(stops)}-{steps}.ckpt"
            run.save_checkpoint(path)
        ends.append(task.state_dict())
    straight, resumed = ends
    assert straight.keys() == resumed.keys()
    assert [name for name, value in straight.items() if not torch.equal(value, resumed[name])] == []


@EVERY
def test_an_empty_batch_is_passed_over(case: TaskCase) -> None:
    task = case.build("scratch", TransferConfig(), FLAT)
    run = trainer(max_steps=1, max_epochs=-1)
    values = run.validate(task, loader(case.empty, case.batch(0, 4)), verbose=False)[0]
    alone = run.validate(task, loader(case.batch(0, 4)), verbose=False)[0]
    assert values == pytest.approx(alone, rel=0, abs=0, nan_ok=True)
    assert run.validate(task, loader(case.empty), verbose=False) == [{}]
    assert task.predict_step(case.empty, 0) == []


@EVERY_NETWORK
@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_every_precision_of_the_trainer_trains_and_evaluates(case: TaskCase, precision: str) -> None:
    task = case.build("scratch", TransferConfig(), FLAT)
    run = trainer(max_steps=1, max_epochs=-1, precision=precision)
    run.fit(task, loader(case.batch(0, 4)), loader(case.batch(4, 2)))
    assert {name.removeprefix("val/") for name in run.callback_metrics if name.startswith("val/")}
    assert all(value.isfinite() for name, value in run.callback_metrics.items() if "loss" in name)
    assert len(run.predict(task, loader(case.batch(0, 4)))[0]) == 4


@EVERY
def test_a_loop_of_ones_own_needs_no_trainer(case: TaskCase) -> None:
    task = case.build("scratch", TransferConfig(), FLAT).train()
    update = torch.optim.SGD(task.parameters(), lr=1e-3)
    loss = task.training_step(case.batch(0, 4), 0)["loss"]
    loss.backward()
    update.step()
    found = task.eval().validation_step(case.batch(4, 2), 0)  # gradients may be on: scores keep none
    assert len(found["preds"]) == 2  # what callbacks show need not be predicted again
    assert task.validation_step(case.empty, 1) == {"preds": None}
    assert torch.isfinite(loss)


@EVERY
def test_the_trainer_predicts_what_the_task_predicts(case: TaskCase) -> None:
    """Lightning copies predictions and writes into the copies, so they cannot be frozen."""
    task = case.build("scratch", TransferConfig(), FLAT)
    batches = case.batch(0, 4), case.empty, case.batch(4, 2)
    found = trainer().predict(task, loader(*batches))
    assert [len(part) for part in found] == [4, 0, 2]
    for part, batch in zip(found, batches, strict=True):
        for one, other in zip(part, task.predict_step(batch, 0), strict=True):
            assert type(one) is type(other)
            assert vars(one).keys() == vars(other).keys()
            assert all(torch.allclose(value, vars(other)[name], atol=1e-5)
                       for name, value in vars(one).items() if isinstance(value, torch.Tensor))  # fmt: skip
            assert one.id == other.id


@pytest.mark.dist
def test_two_processes_agree_with_one(zygote) -> None:
    """Uneven shares, one of them empty; running statistics that each process moved its own way."""
    one = zygote.run("tests.contracts.task_worker:main")
    left, right = zygote.ranks("tests.contracts.task_worker:main", 2, torchrun=True)
    assert len(one) == 2 * len(TASKS)
    assert left == right
    leave_rows = set()
    for name, (scores, rows) in one.items():
        assert left[name][0] == pytest.approx(scores, rel=1e-12, abs=1e-15, nan_ok=True), name
        assert left[name][1].keys() == rows.keys(), name
        for column, values in rows.items():
            exact = not (values and isinstance(values[0], float))
            expected = values if exact else pytest.approx(values, rel=1e-12, abs=1e-15, nan_ok=True)
            assert left[name][1][column] == expected, (name, column)
        if rows:
            assert rows["ids"] == [f"image {i}" for i in range(int(name.rsplit(" ", 1)[1]))], name
            leave_rows.add(name.rsplit(",", 1)[0])
    assert len(leave_rows) == len(TASKS) - 1  # an embedder's scores are of pairs of images


@every(*SAME_NETWORK, "captioner", "embedder")
def test_compiling_a_task_compiles_the_network_it_trains(case: TaskCase) -> None:
    torch._dynamo.reset()
    task = case.build("scratch", TransferConfig(), FLAT)
    names, products = list(task.state_dict()), []

    def count(graph, inputs):
        products.append(sum("conv" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    torch.manual_seed(1)
    eager = copy.deepcopy(task).training_step(case.batch(0, 4), 0)["loss"]
    task.compile(backend=count)
    torch.manual_seed(1)
    loss = task.training_step(case.batch(0, 4), 0)["loss"]
    assert sum(products) >= sum(isinstance(m, torch.nn.Conv2d) for m in task.backbone.modules()) > 8
    assert loss.item() == pytest.approx(eager.item(), rel=1e-5)
    assert list(task.state_dict()) == names


@EVERY
def test_counters_come_to_a_device_that_parameters_alone_were_moved_to(case: TaskCase) -> None:
    """FSDP moves the parameters of the parts that it wraps, and nothing else."""
    task = case.build("scratch", TransferConfig(), FLAT)
    task._device = torch.device("meta")
    task.on_validation_start()
    counters = [part for part in task.modules() if isinstance(part, RunningSums | Metric)]
    assert counters
    for counter in counters:
        held = (
            [counter.sums] if isinstance(counter, RunningSums) else [counter, *counter.metric_state.values()]
        )
        assert {value.device.type for value in held if not isinstance(value, list)} == {"meta"}


@EVERY
def test_the_sums_of_training_are_in_a_checkpoint_and_restored(case: TaskCase) -> None:
    task = case.build("scratch", TransferConfig(), FLAT)
    task.train_sums.add(loss=torch.tensor(2.5), count=4)
    saver = SaveCheckpoints("unused", monitor=("val/loss", "min"))
    stub = mock.Mock(is_global_zero=True)
    stub.state.fn = "test"
    stub.fit_loop.epoch_loop.batch_progress.total.ready = 3
    checkpoint: dict[str, Any] = {}
    saver.on_save_checkpoint(stub, task, checkpoint)
    task.train_sums.reset()
    stub.state.fn = "fit"
    saver.on_load_checkpoint(stub, task, checkpoint)
    totals = task.train_sums.totals()
    assert (float(totals["loss"]), float(totals["count"])) == (2.5, 4.0)
