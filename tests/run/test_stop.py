"""A wish to stop is never lost: it waits through imports, validations and ends of runs for an update."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import threading
from unittest import mock

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import Noise, TinyTask, tiny_data
from visionkit import cli
from visionkit.data import DataModule, Splits, classification_eval, classification_train, stack_batch
from visionkit.errors import PreemptedError
from visionkit.run.config import RunConfig
from visionkit.run.processes.stop import (
    asked_by_keyboard,
    give_back,
    listen,
    listening,
    request_stop,
    stop_requested,
)
from visionkit.run.sweep.launch import launch
from visionkit.run.training.fit import fit
from visionkit.tasks import Classifier


@pytest.fixture(autouse=True)
def _no_wish():
    request_stop(False)
    yield
    request_stop(False)


def trained(folder, *callbacks, epochs=2):
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False, epochs=epochs, init="scratch")
    config.seeds = [5]
    torch.manual_seed(0)
    task = TinyTask()
    return fit(config, task, tiny_data(), folder=folder, callbacks=callbacks), task


def test_signals_are_requests_while_listening_and_what_they_were_after():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    for number in before:
        request_stop(False)
        with listening(), listening():
            os.kill(os.getpid(), number)
            assert stop_requested()
        assert stop_requested()
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_thread_that_cannot_take_signals_listens_all_the_same():
    said = []

    def work():
        with listening():
            request_stop()
            said.append(stop_requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [True]


def test_a_recipe_listens_from_the_moment_its_flags_are_read():
    seen = []

    def main(config):
        os.kill(os.getpid(), signal.SIGUSR1)
        seen.append(stop_requested())

    launch(main, RunConfig, argv=["--lr", "0.1"])
    assert seen == [True]


class AskInUpdate(Callback):
    def __init__(self, update):
        self.update = update

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step + 1 == self.update:
            request_stop()


def classified(folder, *callbacks):
    """A run of two epochs of 12 updates that is logged every 5; return the rows of its table."""
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False, epochs=2, init="scratch")
    config.seeds = [5]
    torch.manual_seed(0)
    data = DataModule(
        Splits(Noise(48, seed=1), Noise(11, seed=2), None, ("a", "b", "c"), "noise", {}),
        batch_size=4,
        train_transform=classification_train(32),
        eval_transform=classification_eval(32),
        collate=stack_batch,
        seed=5,
    )
    with mock.patch("visionkit.run.training.fit.LOG_EVERY", 5):
        fit(
            config,
            Classifier("timm/test_resnet", init="scratch", num_classes=3),
            data,
            folder=folder,
            callbacks=callbacks,
        )
    return (folder / "metrics.csv").read_text().splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return classified(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "update", [1, 13, *(pytest.param(update, marks=pytest.mark.slow) for update in (7, 12, 24))]
)
def test_the_table_of_a_stopped_run_is_that_of_a_whole_one(tmp_path, whole, update):
    windows = [row for row in whole if ",train,loss," in row]
    assert len(windows) == 2 * (2 + 1)  # two windows and the mean of each epoch
    with pytest.raises(PreemptedError, match=f"saved after update {update} "):
        classified(tmp_path / "cut", AskInUpdate(update))
    assert classified(tmp_path / "cut") == whole
    with (tmp_path / "cut" / "metrics_wide.csv").open(newline="") as file:
        wide = list(csv.DictReader(file))
    assert [(row["epoch"], row["images"]) for row in wide] == [("1", "48"), ("2", "96")]
    for row in wide:
        for name in ("val/top1", "val/loss", "train/loss"):
            split, _, score = name.partition("/")
            values = [line for line in whole if f",{row['images']},{split},{score}," in line]
            assert values[-1].endswith(f",{row[name]}"), name
        assert float(row["lr/head"]) > 0, "of the latest update"
    assert 0 <= float(wide[0]["seconds"]) <= float(wide[1]["seconds"])


class Interrupt(Callback):
    """The keyboard's signal, really sent, while something of a run goes on."""

    def __init__(self, where):
        setattr(self, where, lambda *_: os.kill(os.getpid(), signal.SIGINT))


@pytest.mark.parametrize("where", ["on_train_batch_start", "on_validation_start", "on_fit_start"])
def test_an_interrupt_says_how_to_go_on_and_is_status_130(tmp_path, capsys, where):
    def main(config):
        trained(tmp_path / "a", Interrupt(where))

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        launch(main, RunConfig, argv=["--lr", "0.1"], prog="classify.py")
    assert end.value.code == 130
    said = capsys.readouterr().err
    assert "classify.py: " in said
    assert "nterrupted by the keyboard" in said
    assert "Start the same command again" in said
    saved = re.search(r"saved after update (\d+) ", said)
    assert (saved is None) == (where == "on_fit_start"), "while it trains, nothing is lost"
    assert (tmp_path / "a/checkpoints/last.ckpt").exists() == (saved is not None)
    assert signal.getsignal(signal.SIGINT) is before
    assert trained(tmp_path / "a")[0]["images_seen"] == 56


def test_an_interrupt_before_anything_is_imported_is_status_130(capsys):
    def main(config):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as end:
        launch(main, RunConfig, argv=[])
    assert end.value.code == 130
    assert "Start the same command again" in capsys.readouterr().err
    with mock.patch.dict(cli.VERBS, {"ls": (main, "")}):
        assert cli.main(["ls"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_first_interrupt_asks_and_a_second_ends_at_once(monkeypatch):
    def press():
        os.kill(os.getpid(), signal.SIGINT)

    before = listen(keyboard=True)
    try:
        press()
        assert stop_requested()
        assert asked_by_keyboard()
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
        press()  # the same press, passed on by torchrun
        monkeypatch.delenv("TORCHELASTIC_RUN_ID")
        with pytest.raises(KeyboardInterrupt):
            press()
    finally:
        give_back(before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert signal.SIGINT not in listen(keyboard=True), "what is ignored stays so"
    finally:
        give_back(before)


class AskInTheLastValidation(Callback):
    def on_validation_end(self, trainer, module):
        if trainer.current_epoch == trainer.max_epochs - 1:
            request_stop()


def test_a_wish_of_before_the_first_update_stops_after_it_and_is_then_granted(tmp_path):
    request_stop()
    with pytest.raises(PreemptedError, match="saved after update 1 "):
        trained(tmp_path / "a")
    assert not stop_requested()
    _, again = trained(tmp_path / "a")
    _, whole = trained(tmp_path / "b")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_wish_in_the_last_validation_ends_no_run_and_stops_the_next(tmp_path):
    result, _ = trained(tmp_path / "a", AskInTheLastValidation())
    assert result["images_seen"] == 56
    assert stop_requested()
    with pytest.raises(PreemptedError, match="saved after update 1 "):
        trained(tmp_path / "b")


def test_a_run_that_lost_only_its_result_gives_the_same_one(tmp_path):
    first, _ = trained(tmp_path / "a")
    (tmp_path / "a/result.json").unlink()
    table = (tmp_path / "a/metrics.csv").read_text()
    again, _ = trained(tmp_path / "a")
    saved = json.loads((tmp_path / "a/result.json").read_text())
    assert (tmp_path / "a/metrics.csv").read_text().startswith(table)
    for name in ("metrics", "images_seen", "best", "equal", "config"):
        assert again[name] == first[name], name
        assert saved[name] == json.loads(json.dumps(first[name])), name
