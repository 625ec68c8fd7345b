"""`--find_lr` and `--find_batch_size` look with the run's data, say what to do, and train nothing."""

from __future__ import annotations

import csv
import shlex

import pytest
import torch

from tests.run.tiny import TinyTask, tiny_data
from visionkit.config import OptimConfig
from visionkit.errors import InputError
from visionkit.run.command_line import parse
from visionkit.run.config import RunConfig
from visionkit.run.requests import Requests, asking, requests
from visionkit.run.sweep.arms import run_recipe
from visionkit.run.sweep.launch import launch
from visionkit.run.training import find as finding
from visionkit.run.training.fit import fit

SAID = "Nothing was trained. To train with it, the smallest of the arms for all of them:"


@pytest.fixture(autouse=True)
def _few_updates(monkeypatch):
    monkeypatch.setattr(finding, "STEPS", 30)


def settings(out, **more):
    plain = {"accelerator": "cpu", "precision": "32-true", "progress": False, "epochs": 2, "devices": "1"}
    return RunConfig(**plain | more, out=str(out))


def test_the_rate_is_looked_for_and_no_weight_changes(tmp_path):
    torch.manual_seed(0)
    task = TinyTask()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with asking(find=["lr"]):
        found = fit(settings(tmp_path), task, tiny_data(), folder=tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run/find_lr.csv").open()))
    rates = [float(row["lr"]) for row in rows]
    assert 20 < len(rates) <= 30
    assert rates == sorted(rates)
    assert 1e-6 <= rates[0] < found["lr"] < 1
    assert (tmp_path / "run/find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["find_lr.csv", "find_lr.png"]
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_a_command_looks_once_an_arm_and_says_how_to_use_it(tmp_path, capsys):
    def train(config, folder):
        return fit(config, TinyTask(), tiny_data(seed=config.seeds[0]), folder=folder)

    argv = ["--out", str(tmp_path / "x"), "--accelerator", "cpu", "--fractions", "0.5", "1", "--find_lr"]
    launch(lambda config: run_recipe(config, train), RunConfig, argv=argv, prog="classify.py")
    said = capsys.readouterr()
    assert "Finding best" not in said.err, "no bar in a log"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["pretrained-f1-s0", "scratch-f1-s0"]
    lines = said.out.splitlines()
    command = shlex.split(lines[lines.index(SAID) + 1])
    found = [float(line.split(": lr ")[1].split(",")[0]) for line in lines if ": lr " in line]
    assert len(found) == 2
    made = parse(RunConfig, command[1:])
    assert (made.lr, made.fractions) == (min(found), [0.5, 1.0])
    assert requests() == Requests()


def test_the_rate_that_is_found_is_of_the_batch_that_the_flag_is_for(tmp_path):
    def found(folder, optim):
        torch.manual_seed(0)
        with asking(find=["lr"]):
            return fit(settings(tmp_path, optim=optim), TinyTask(), tiny_data(), folder=folder)["lr"]

    plain, scaled = found(tmp_path / "a", OptimConfig()), found(tmp_path / "b", OptimConfig(batch=8))
    assert scaled == pytest.approx(2 * plain, rel=0.06), "an update is of 4 images"


def test_a_batch_size_is_not_looked_for_where_memory_has_no_sharp_end(tmp_path):
    with asking(find=["batch_size"]), pytest.raises(InputError, match=r"1 x cpu.*--accelerator gpu"):
        fit(settings(tmp_path), TinyTask(), tiny_data(), folder=tmp_path / "run")


class Memory(TinyTask):
    """A task for which a batch above 100 images is too large, as a full device says it."""

    def training_step(self, batch, batch_idx):
        if len(batch["ids"]) > 100:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().training_step(batch, batch_idx)


@pytest.mark.slow
def test_the_largest_batch_that_fits_by_doubling(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "_refuse_cpu", lambda config, task: None)
    with asking(find=["batch_size"]):
        found = fit(
            settings(tmp_path, batch_size=8), Memory(), tiny_data(4000, 8, valid=4), folder=tmp_path / "run"
        )
    assert found == {"batch_size": 64}
    ((size, *_),) = list(csv.reader((tmp_path / "run/find_batch_size.csv").open()))[1:]
    assert size == "64"


@pytest.mark.gpu
def test_the_batch_size_that_fits_a_gpu(tmp_path):
    with asking(find=["batch_size", "lr"]):
        found = fit(
            settings(tmp_path, accelerator="gpu"), TinyTask(), tiny_data(4096, 64), folder=tmp_path / "run"
        )
    assert 64 < found["batch_size"] <= 4096
    assert (tmp_path / "run/find_batch_size.csv").is_file()
    assert 1e-6 < found["lr"] < 1
