"""Under torchrun: the same bits on one machine or several, after a drain and after a lost process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import psutil
import pytest

from tests.cluster.recipe import begin, finish, left_over, outcome, recipe, started, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

ONE = ["torchrun", "--standalone", "--nproc-per-node", "2"]


def free_port() -> str:
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def test_two_machines_give_the_weights_of_one(whole, tmp_path):
    out, port = tmp_path / "out", free_port()
    logs = [tmp_path / "log-0", tmp_path / "log-1"]
    # The machines of a TrainJob are told so in torchrun's own variables.
    processes = [
        begin(
            ["torchrun", *recipe(out)],
            log,
            PET_NNODES="2",
            PET_NPROC_PER_NODE="1",
            PET_NODE_RANK=str(rank),
            PET_MASTER_ADDR="127.0.0.1",
            PET_MASTER_PORT=port,
        )
        for rank, log in enumerate(logs)
    ]
    for process, log in zip(processes, logs, strict=True):
        assert finish(process, log) == 0, log.read_text()
    assert outcome(out) == whole


def test_sigterm_to_torchrun_saves_in_all_processes_and_the_same_command_continues(whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    command = [*ONE, *recipe(out)]
    process = begin(command, log)
    wait_for(lambda: started(out), 200, "the first validation")
    process.send_signal(signal.SIGTERM)
    assert finish(process, log, 60) != 0
    assert log.read_text().count("Asked to stop: saved after update") == 2, log.read_text()
    wait_for(lambda: not left_over(str(out)), 20, "its processes to end")
    assert finish(begin(command, log), log) == 0, log.read_text()
    assert "continuing from last.ckpt" in log.read_text()
    assert outcome(out) == whole


def test_torchrun_starts_lost_processes_again(whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    # Shared with the restarted processes, torchrun's store still holds the addresses of the lost ones.
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = begin([*ONE, "--max-restarts", "2", *recipe(out)], log, **fresh)
    wait_for(lambda: started(out), 200, "the first validation")
    workers = [
        child for child in psutil.Process(process.pid).children() if "classify.py" in str(child.cmdline())
    ]
    assert len(workers) == 2
    os.kill(workers[-1].pid, signal.SIGKILL)
    assert finish(process, log) == 0, log.read_text()
    assert "continuing from last.ckpt" in log.read_text()
    assert outcome(out) == whole


def test_machines_that_do_not_share_the_folder_are_refused_where_they_would_part(tmp_path):
    port, log = free_port(), tmp_path / "log"
    process = begin([*ONE, *recipe(tmp_path / "out")], log)
    wait_for(lambda: started(tmp_path / "out"), 200, "the first validation")
    process.send_signal(signal.SIGTERM)
    assert finish(process, log, 60) != 0
    logs, processes = [tmp_path / "log-0", tmp_path / "log-1"], []
    for rank, (place, told) in enumerate(zip(("out", "elsewhere"), logs, strict=True)):
        launch = ["torchrun", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)]
        launch += ["--master-addr", "127.0.0.1", "--master-port", port]
        processes.append(begin([*launch, *recipe(tmp_path / place)], told))
    for process, told in zip(processes, logs, strict=True):
        assert finish(process, told, 120) != 0, told.read_text()
        assert "do not continue from the same place" in told.read_text()
        assert "Give an --out that all machines share" in told.read_text()
