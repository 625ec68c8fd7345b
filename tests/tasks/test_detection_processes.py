"""Detectors under plain DDP: pictures without objects on one process, on both, or nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.dist
def test_empty_pictures_anywhere_leave_no_parameter_unused_and_gradients_equal(tmp_path, root):
    command = [sys.executable, "-m", "tests.tasks.detector_worker"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root, env=env, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=240)
        assert rank.returncode == 0, said.decode()[-3000:]
    reports = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for report in reports:
        assert report["threads"] == []  # one that is left over may abort the process while Python ends
        for kind in ("boxes", "masks"):
            assert report[kind]["empty"] >= 6
            assert report[kind]["without"] == 0
            assert report[kind]["unequal"] == 0
