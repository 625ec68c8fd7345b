"""One small run of the classification recipe in two processes, and what can be told of it to the last bit."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
RUN = "scratch-f1-s3"
UPDATES = 48
FLAGS = [
    *(
        "--scenes.train_size",
        "64",
        "--scenes.val_size",
        "21",
        "--image_size",
        "32",
        "--batch_size",
        "8",
        "--epochs",
        "12",
    ),
    *("--init", "scratch", "--seeds", "3", "--accelerator", "cpu", "--precision", "32-true"),
]


def environment(**more: str) -> dict[str, str]:
    """The environment of a start: this checkout, this Python, one thread, no launcher's variables."""
    starts = ("SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_", "WORLD_", "MASTER_", "RAY_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(starts)}
    kept |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
    }
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | more


def recipe(out: Path, *more: str) -> list[str]:
    """The recipe's file and flags."""
    return [str(ROOT / "recipes/classify.py"), *FLAGS, "--out", str(out), *more]


def outcome(out: Path) -> tuple[int, str, list[str]]:
    """The last update, a digest of the final weights, and every score of every validation."""
    saved = torch.load(out / RUN / "checkpoints/last.ckpt", weights_only=True)
    digest = hashlib.sha256()
    for name, value in sorted(saved["state_dict"].items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    assert (out / RUN / "result.json").is_file()
    table = (out / RUN / "metrics.csv").read_text().splitlines()
    return saved["global_step"], digest.hexdigest(), [row for row in table if ",val," in row]


def started(out: Path) -> bool:
    """Whether the run has validated and saved once, and is far from its end."""
    table = out / RUN / "metrics.csv"
    saved = (out / RUN / "checkpoints/last.ckpt").is_file()
    return saved and table.is_file() and ",val," in table.read_text()


def wait_for(what: Callable[[], bool], seconds: float, name: str) -> None:
    """Wait until `what` is so."""
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, f"waited {seconds:.0f} s for {name}"
        time.sleep(0.1)


def begin(command: list[str], log: Path, **more: str) -> subprocess.Popen:
    """Start a command in a group of its own."""
    with log.open("ab") as handle:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(**more), stdout=handle, stderr=handle, start_new_session=True
        )


def finish(process: subprocess.Popen, log: Path, seconds: float = 600) -> int:
    """Wait for a command; on a time-out end its whole group."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"did not end in {seconds:.0f} s:\n{log.read_text()[-3000:]}") from None


def left_over(word: str) -> list[str]:
    """Command lines of processes that still name `word`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if word in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(line)
    return found
