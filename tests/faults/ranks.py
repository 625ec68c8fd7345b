"""A run in two processes in which one of them fails in a given way at its third update.

python tests/faults/ranks.py OUT FAULT RANK TIMEOUT           two processes, started by Lightning
torchrun --nproc-per-node 2 tests/faults/ranks.py OUT ...     two processes, started by torchrun
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.errors import RunError
from visionkit.run.config import RunConfig
from visionkit.run.processes.lifetime import die_with_launcher
from visionkit.run.training.fit import fit

FAULTS = ("raise", "kill", "exit", "hang")
AT = 3


class Fault(Callback):
    """Fails on one process, and writes when."""

    def __init__(self, out: Path, fault: str, rank: int) -> None:
        self.out, self.fault, self.rank = out, fault, rank

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_rank != self.rank or trainer.global_step != AT:
            return
        (self.out / "when").write_text(str(time.time()))
        if self.fault == "raise":
            raise RuntimeError("the fault of this test")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            os._exit(0)
        while True:
            time.sleep(60)


def run(out: Path, fault: str, rank: int, timeout: int) -> int:
    """Run it as a recipe does, and return the status."""
    die_with_launcher()
    out.mkdir(parents=True, exist_ok=True)
    config = RunConfig(
        accelerator="cpu", precision="32-true", progress=False, devices="2", epochs=3, timeout=timeout
    )
    config.seeds, config.fractions, config.init = [5], [1.0], "scratch"
    torch.manual_seed(0)
    try:
        fit(config, TinyTask(), tiny_data(), folder=out / "run", callbacks=[Fault(out, fault, rank)])
    except RunError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def forked(out: Path, fault: str, rank: int, timeout: int) -> dict[str, object]:
    """Two forked processes: the one that does not fail has to end by itself, in time, with a reason."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    out.mkdir(parents=True)
    shared = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    pids = []
    for mine in (0, 1):
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                os.environ.update(shared, RANK=str(mine), LOCAL_RANK=str(mine))
                with (out / f"log-{mine}").open("w") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                status = run(out, fault, rank, timeout)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(status)
        pids.append(pid)
    survivor, limit = pids[1 - rank], time.time() + timeout + 60
    status = None
    while status is None and time.time() < limit:
        done, code = os.waitpid(survivor, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.02)
    ended = time.time()
    for pid in (pids[rank], *([] if status is not None else [survivor])):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    when = float((out / "when").read_text()) if (out / "when").exists() else None
    told = (out / f"log-{1 - rank}").read_text()
    return {
        "fault": fault,
        "rank": rank,
        "seconds": None if when is None else ended - when,
        "status": status,
        "named": f"Process {1 - rank} of 2 lost the others at update {AT}" in told,
        "told": told[-600:],
        "failed": (out / f"log-{rank}").read_text()[-300:],
    }


def each(folder: str, times: int, timeout: int) -> list[dict[str, object]]:
    """Each fault so many times in forked processes."""
    return [
        forked(Path(folder) / f"{fault}-{index}", fault, index % 2, timeout)
        for fault in FAULTS
        for index in range(1, times + 1)
    ]


if __name__ == "__main__":
    raise SystemExit(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
