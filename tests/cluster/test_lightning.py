"""Processes that Lightning starts on one machine: they stop with the first, and none outlives it."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.recipe import begin, finish, left_over, outcome, recipe, started, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_a_signal_to_the_program_reaches_all_and_the_same_command_continues(whole, tmp_path, number):
    out, log = tmp_path / "out", tmp_path / "log"
    command = ["python", *recipe(out, "--devices", "2", "--checkpoint_every", "2")]
    process = begin(command, log)
    wait_for(lambda: started(out), 200, "the first validation")
    os.kill(process.pid, number)
    asked = number == signal.SIGTERM
    assert finish(process, log, 90) == (75 if asked else -signal.SIGKILL), log.read_text()
    assert log.read_text().count("Asked to stop: saved after update") == (2 if asked else 0)
    wait_for(lambda: not left_over(str(out)), 15, "its processes to end")
    assert finish(begin(command, log), log) == 0, log.read_text()
    assert "continuing from last.ckpt" in log.read_text()
    assert outcome(out) == whole
