# ruff: noqa: E501
"""Trackers: told what a run truly is, one run of theirs for each of ours, and never in the way of the training."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests.run.tiny import TinyTask, tiny_data
from visionkit.errors import InputError
from visionkit.run.callbacks import trackers
from visionkit.run.callbacks.trackers import make_logger
from visionkit.run.config import RunConfig
from visionkit.run.training.fit import fit


class Saved(TinyTask):
    """A task that, like those of the library, is saved with init "scratch"."""

    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"init": "scratch"})


def trained(out, init, *loggers):
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False, epochs=1, init=init, lr=0.25)
    config.seeds, config.logger, config.out, config.fractions = [7], list(loggers), str(out), [0.5]
    torch.manual_seed(0)
    return fit(config, Saved(), tiny_data(), folder=out / f"{init}-s7")


TRUE = {
    "seed": 7,
    "fraction": 0.5,
    "lr": 0.25,
    "epochs": 1,
    "batch_size": 32,
    "image_size": 96,
    "data": "scenes",
}


def test_tensorboard_is_told_what_each_arm_truly_is(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `loggers` is not installed")
    for init in ("pretrained", "scratch"):
        assert trained(tmp_path, init, "tensorboard")["problems"] == []
        told = yaml.safe_load((tmp_path / f"{init}-s7/tensorboard/hparams.yaml").read_text())
        assert {name: told[name] for name in TRUE} == TRUE
        assert told["init"] == init


class Run:
    """What `wandb.init` returns, as far as Lightning and visionkit use it."""

    def __init__(self, settings):
        self.settings, self.finished, self.values = settings, None, []
        self.config = SimpleNamespace(update=lambda params, **_: self.told.update(params))
        self.told = {}

    def define_metric(self, *_, **__):
        pass

    def log(self, values, **_):
        self.values.append(values)

    def finish(self, exit_code=None):
        self.finished = exit_code


def test_wandb_gets_a_run_for_each_arm_and_each_is_finished(tmp_path, monkeypatch):
    from lightning.pytorch.loggers import wandb as lightning_wandb

    runs = []
    fake = SimpleNamespace(run=None, init=lambda **settings: runs.append(Run(settings)) or runs[-1])
    fake.sdk = SimpleNamespace(
        lib=SimpleNamespace(RunDisabled=type(None)), wandb_run=SimpleNamespace(Run=Run)
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib", fake.sdk.lib)
    monkeypatch.setitem(sys.modules, "wandb.wandb_run", fake.sdk.wandb_run)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for init in ("pretrained", "scratch"):
        trained(tmp_path, init, "wandb")
    assert [run.settings["name"] for run in runs] == ["pretrained-s7", "scratch-s7"]
    assert {run.settings["group"] for run in runs} == {tmp_path.name}
    assert {run.settings["project"] for run in runs} == {"visionkit"}
    assert [run.finished for run in runs] == [0, 0]
    assert [run.told["init"] for run in runs] == ["pretrained", "scratch"]
    assert all(any("val/top1" in values for values in run.values) for run in runs)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra `loggers` is not installed")
def test_mlflow_holds_both_arms_in_one_experiment(tmp_path):
    from mlflow import MlflowClient

    for init in ("pretrained", "scratch"):
        assert trained(tmp_path, init, "mlflow")["problems"] == []
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name(tmp_path.name)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["init"] for run in runs) == ["pretrained", "scratch"]
    assert all(
        {name: str(value) for name, value in TRUE.items()}.items() <= run.data.params.items() for run in runs
    )


def test_mlflow_takes_the_server_of_the_environment_or_the_folder_of_the_comparison(tmp_path, monkeypatch):
    made = []

    class Fake:
        experiment = None

        def __init__(self, **settings):
            made.append(settings)

    monkeypatch.setattr(trackers, "_MLflow", Fake)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_logger("mlflow", tmp_path / "x" / "run", root=tmp_path / "x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    make_logger("mlflow", tmp_path / "x" / "run", root=tmp_path / "x")
    assert made[0]["tracking_uri"] == f"sqlite:///{tmp_path}/x/mlflow.db"
    assert made[0]["artifact_location"] == f"file://{tmp_path}/x/mlartifacts"
    assert made[1]["tracking_uri"] == "http://tracker:5000"
    assert made[1]["artifact_location"] is None
    assert {one["experiment_name"] for one in made} == {"x"}


def test_a_tracker_that_fails_ends_no_run_and_is_named(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra `loggers` is not installed")
    from lightning.pytorch.loggers import TensorBoardLogger

    def broken(*_, **__):
        raise ConnectionError("no server")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", broken)
    with pytest.warns(RuntimeWarning, match="failed, the run goes on: ConnectionError: no server"):
        result = trained(tmp_path, "scratch", "tensorboard")
    assert result["problems"] == ["TensorBoard failed: ConnectionError: no server"]
    assert result["images_seen"] == 28
    monkeypatch.setattr(trackers, "_mlflow", broken)
    with pytest.raises(InputError, match="'mlflow' cannot be started: ConnectionError: no server"):
        make_logger("mlflow", tmp_path)
