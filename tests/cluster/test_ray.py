"""On a local Ray: the same bits as without it, after a wish to stop and after a lost worker."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.cluster.recipe import begin, finish, left_over, outcome, recipe, started, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
pytest.importorskip("ray.train", reason="the extra `cluster` is not installed")

# Nothing of the home folder is touched, nothing is sent anywhere.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def launch(place: Path) -> list[str]:
    return [
        *(sys.executable, "recipes/cluster/with_ray.py", "--workers", "2", "--storage", str(place / "ray")),
        *recipe(place / "out"),
    ]


def start(place: Path, log: Path):
    return begin(launch(place), log, RAY_TMPDIR=tempfile.mkdtemp(prefix="ray-", dir="/tmp"), **SETTINGS)


def workers(process) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [
        one for one in found if "RayTrainWorker" in one.name() or "RayTrainWorker" in " ".join(one.cmdline())
    ]


def test_a_wish_to_stop_saves_in_all_workers_and_the_same_command_continues(whole, tmp_path):
    log = tmp_path / "log"
    process = start(tmp_path, log)
    wait_for(lambda: started(tmp_path / "out"), 300, "the first validation")
    process.send_signal(signal.SIGTERM)
    assert finish(process, log, 180) == 75, log.read_text()[-5000:]
    assert "Asked to stop: saved after update" in log.read_text()
    process = start(tmp_path, log)
    assert finish(process, log) == 0, log.read_text()[-5000:]
    assert "continuing from last.ckpt" in log.read_text()
    assert outcome(tmp_path / "out") == whole
    wait_for(lambda: not left_over(str(tmp_path)), 60, "Ray's processes to end")


def test_a_lost_worker_comes_again_and_continues(whole, tmp_path):
    log = tmp_path / "log"
    process = start(tmp_path, log)
    wait_for(lambda: started(tmp_path / "out"), 300, "the first validation")
    found = workers(process)
    assert len(found) == 2, [one.cmdline() for one in psutil.Process(process.pid).children(recursive=True)]
    os.kill(found[-1].pid, signal.SIGKILL)
    assert finish(process, log) == 0, log.read_text()[-5000:]
    assert "continuing from last.ckpt" in log.read_text()
    assert outcome(tmp_path / "out") == whole
