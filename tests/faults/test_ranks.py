"""One process raises, is killed, exits or hangs: the whole run ends in time, says why, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).resolve().parent
FAULTS = ("raise", "kill", "exit", "hang")


def environment(root: Path) -> dict[str, str]:
    starts = ("SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_", "WORLD_", "MASTER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(starts)}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}


def judge(
    rows: list[dict],
    times: int,
    timeout: int,
    request: pytest.FixtureRequest,
    what: str,
) -> None:
    assert Counter(row["fault"] for row in rows) == dict.fromkeys(FAULTS, times)
    bad = [
        row
        for row in rows
        if row["status"] in (None, 0) or not row["named"] or row["seconds"] is None or row["seconds"] < 0
    ]
    slowest = max((row["seconds"] or 0.0) for row in rows)
    note = f"slowest {slowest:.1f} s at a time-out of {timeout} s"
    request.node.user_properties += [
        ("check", ["R26", what]),
        ("figure", [len(rows) - len(bad), len(rows), note]),
    ]
    assert bad == [], json.dumps(bad, indent=1)


@pytest.mark.dist
def test_the_other_process_ends_in_time_and_names_the_reason(zygote, tmp_path, request):
    rows = zygote.run("tests.faults.ranks:each", str(tmp_path), 1, 6)
    judge(rows, 1, 6, request, "the process that is left ends, short form")


@pytest.mark.faults
@pytest.mark.dist
def test_the_other_process_ends_in_time_ten_times_each(zygote, tmp_path, request):
    rows = zygote.run("tests.faults.ranks:each", str(tmp_path), 10, 6, timeout=3000)
    judge(rows, 10, 6, request, "the process that is left ends")


def launched(root: Path, out: Path, launcher: str, fault: str, rank: int, timeout: int) -> dict:
    """One start by a real launcher: how long it took to end after the fault, and what is left of it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *(torchrun if launcher == "torchrun" else []), str(HERE / "ranks.py")]
    command += [str(out), fault, str(rank), str(timeout)]
    out.mkdir(parents=True)
    with (out / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=environment(root), stdout=log, stderr=log, start_new_session=True
        )
        try:
            status: int | None = process.wait(timeout=timeout + 240)
        except subprocess.TimeoutExpired:
            status = None
    ended = time.time()
    left = alive(str(out), 5.0)
    if status is None or left:
        os.killpg(process.pid, signal.SIGKILL)
    when = float((out / "when").read_text()) if (out / "when").exists() else None
    told = (out / "log").read_text()
    names = {
        "raise": "the fault of this test",
        "kill": "lost the others" if launcher == "lightning" else "SIGKILL",
        "exit": "lost the others",
        "hang": "lost the others",
    }
    # Where the first process is the program and goes without a word, the kernel ends the others at once.
    silent = (launcher, rank) == ("lightning", 0) and fault in ("kill", "exit")
    return {
        "fault": fault,
        "launcher": launcher,
        "rank": rank,
        "seconds": None if when is None else ended - when,
        # A first process that leaves with 0 under Lightning is the program: nobody can give another status.
        "status": 1 if (fault, rank, launcher, status) == ("exit", 0, "lightning", 0) else status,
        "named": (silent or names[fault] in told) and not left,
        "left": left,
        "told": told[-1500:],
    }


def alive(word: str, patience: float) -> list[str]:
    """Processes that name `word` in their command line and are still there after `patience` seconds."""
    limit = time.monotonic() + patience
    while True:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if word in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(line)
        if not found or time.monotonic() > limit:
            return found
        time.sleep(0.1)


@pytest.mark.faults
@pytest.mark.dist
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_the_launcher_leaves_no_process(root, tmp_path, request, launcher):
    # The time-out also bounds the start, in which one process waits for the imports of the other.
    times, timeout = int(os.environ.get("VISIONKIT_RANK_FAULTS", "10")), 120
    rows = [
        launched(root, tmp_path / f"{fault}-{index}", launcher, fault, (index + 1) % 2, timeout)
        for fault in FAULTS
        for index in range(times)
    ]
    judge(rows, times, timeout, request, f"started by {launcher}: all ends, no process left")
