"""A wish to stop is never lost: it waits through imports, validations and ends of runs for an update."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.run.config import RunConfig
from visionkit.run.fitting import fit
from visionkit.run.launch import launch
from visionkit.run.preempt import PreemptedError
from visionkit.run.stop import listening, request_stop, stop_requested


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
