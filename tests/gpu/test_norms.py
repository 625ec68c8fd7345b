"""Batch norm over two processes on a card is that of the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def test_synchronised_batch_norm_is_that_of_the_whole_batch(root, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "tests/gpu/sync_worker.py", str(tmp_path)],
        cwd=root, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    for rank in range(2):
        told = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        for sizes in ("even", "uneven"):
            assert len(told[sizes]) == 5
            assert max(told[sizes].values()) < 1e-4, (rank, sizes, told)
        assert told["task"]["loss"] < 1e-4, told
        assert told["task"]["gradient"] < 2e-2, told
