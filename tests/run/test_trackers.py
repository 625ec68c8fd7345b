# ruff: noqa: E501
"""Trackers: told what a run truly is, one run of theirs for each of ours, and never in the way of the training."""

from __future__ import annotations

import importlib.util
import json
import struct
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
    "optim.schedule": "cosine",
}


ABSENT = "the extra `loggers` is not installed"


def test_tensorboard_is_told_what_each_arm_truly_is(tmp_path):
    pytest.importorskip("tensorboard", reason=ABSENT)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for init in ("pretrained", "scratch"):
        result = trained(tmp_path, init, "tensorboard")
        assert result["problems"] == []
        told = yaml.safe_load((tmp_path / f"{init}-s7/tensorboard/hparams.yaml").read_text())
        assert {name: told[name] for name in TRUE} == TRUE
        assert told["init"] == init
        events = EventAccumulator(str(tmp_path / f"{init}-s7/tensorboard"))
        events.Reload()
        curve = events.Scalars("val/top1")
        assert [(event.step, pytest.approx(event.value)) for event in curve] == [
            (28, result["metrics"]["val/top1"])
        ], "over images seen"
        assert {"lr/0", "updates", "epoch"} <= set(events.Tags()["scalars"])
        assert events.Scalars("val_best/top1")[0].value == pytest.approx(result["best"]["value"])
        table = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        assert init.encode() in table
        assert b"batch_size" in table


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


def wandb_records(folder):
    """The records of the one run of Weights & Biases in a run's folder, from its log in LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, part, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # the end of a block
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(part))
            part = b""
        at += 7 + length
    return records


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason=ABSENT)
def test_wandb_itself_keeps_both_arms_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    values = {}
    for init in ("pretrained", "scratch"):
        result = trained(tmp_path, init, "wandb")
        assert result["problems"] == []
        values[init] = result["metrics"]["val/top1"]
    ids = set()
    for init in ("pretrained", "scratch"):
        records = wandb_records(tmp_path / f"{init}-s7")
        (run,) = [record.run for record in records if record.HasField("run")][:1]
        ids.add(run.run_id)
        assert (run.display_name, run.run_group, run.project) == (f"{init}-s7", tmp_path.name, "mine")
        told = {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for record in records
            for config in ([record.run.config] if record.HasField("run") else [record.config])
            for item in config.update
        }
        assert {name: told[name] for name in TRUE} == TRUE
        assert told["init"] == init
        rows = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]
        curve = [(row["images"], row["val/top1"]) for row in rows if "val/top1" in row]
        assert curve == [(28, pytest.approx(values[init]))], "one arm, over images seen"
        assert any("lr/0" in row for row in rows)
        assert any("val_best/top1" in row for row in rows)
        assert any(record.HasField("exit") and record.exit.exit_code == 0 for record in records), "finished"
    assert len(ids) == 2


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason=ABSENT)
def test_mlflow_holds_both_arms_in_one_experiment(tmp_path):
    from mlflow import MlflowClient

    results = {}
    for init in ("pretrained", "scratch"):
        results[init] = trained(tmp_path, init, "mlflow")
        assert results[init]["problems"] == []
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name(tmp_path.name)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["init"] for run in runs) == ["pretrained", "scratch"]
    for run in runs:
        assert {name: str(value) for name, value in TRUE.items()}.items() <= run.data.params.items()
        result = results[run.data.params["init"]]
        history = client.get_metric_history(run.info.run_id, "val/top1")
        assert [(item.step, item.value) for item in history] == [(28, result["metrics"]["val/top1"])]
        assert run.data.metrics["val_best/top1"] == result["best"]["value"]
        assert "lr/0" in run.data.metrics
        assert run.info.status == "FINISHED"
    (tmp_path / "scratch-s7" / "result.json").unlink()
    trained(tmp_path, "scratch", "mlflow")
    assert len(client.search_runs([experiment.experiment_id])) == 2, "it goes on in its run of before"


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
    pytest.importorskip("tensorboard", reason=ABSENT)
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
