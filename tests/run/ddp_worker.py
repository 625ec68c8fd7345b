"""One process of a two-process run: several checks in one start, the outcome as JSON for the test to read.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/run/ddp_worker.py OUT
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.run.checkpoint import newest_good
from visionkit.run.config import RunConfig
from visionkit.run.guard import FiniteGuard, NonFiniteError
from visionkit.run.preempt import PreemptedError, Preemption
from visionkit.run.saver import SaveCheckpoints
from visionkit.run.step_seed import StepSeed
from visionkit.run.trainer import build_trainer

RANK = int(os.environ["RANK"])


def digest(task: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in task.state_dict().values())).hexdigest()


def build(folder: Path, *callbacks: Callback, epochs: int = 2) -> lightning.Trainer:
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False, devices="2", strategy="ddp")
    saver = SaveCheckpoints(folder, monitor=TinyTask.monitor, every=2)
    return build_trainer(
        config,
        folder=folder,
        callbacks=[
            StepSeed(5),
            FiniteGuard(folder / "faults"),
            *callbacks,
            Preemption(saver),
            saver,
        ],
        max_epochs=epochs,
    )


class SignalSelf(Callback):
    def __init__(self, rank: int, batch: int) -> None:
        self.rank, self.batch = rank, batch

    def on_train_batch_start(self, trainer, *_):
        ready = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if trainer.global_rank == self.rank and ready == self.batch:
            os.kill(os.getpid(), signal.SIGUSR1 if ready % 2 else signal.SIGTERM)


class Poisoned(TinyTask):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        bad = RANK == 1 and self.seen[-1][0] == 3
        return loss * float("nan") if bad else loss


def task(kind: type[TinyTask] = TinyTask) -> TinyTask:
    torch.manual_seed(0)
    return kind()


def main(out: Path) -> None:
    told: dict[str, object] = {}
    whole = task()
    calls = {"n": 0}
    counted = {name: getattr(dist, name) for name in ("all_reduce", "broadcast", "all_gather", "barrier")}
    trainer = build(out / "whole")

    class Count(Callback):
        def on_train_batch_start(self, *_):
            for name, function in counted.items():

                def wrapped(*args, _function=function, **kwargs):
                    calls["n"] += 1
                    return _function(*args, **kwargs)

                setattr(dist, name, wrapped)

        def on_train_batch_end(self, *_):
            for name, function in counted.items():
                setattr(dist, name, function)

    trainer.callbacks.insert(0, Count())
    trainer.fit(whole, datamodule=tiny_data())
    told["collectives"] = calls["n"]
    told["seen"] = [(ready, ids) for ready, ids, _ in whole.seen]
    told["digest"] = digest(whole)
    told["scores"] = [score for _, score in whole.validations]

    stops = {}
    for rank, batch in ((1, 1), (0, 2), (1, 3)):
        folder = out / f"stop-{rank}-{batch}"
        first = task()
        step = None
        try:
            build(folder, SignalSelf(rank, batch)).fit(first, datamodule=tiny_data())
        except PreemptedError as error:
            step = int(str(error).split("update ")[1].split()[0])
        resume = newest_good(folder, report=print)
        again = task()
        build(folder).fit(again, datamodule=tiny_data(), ckpt_path=resume)
        stops[f"{rank}-{batch}"] = (step, digest(again))
    told["stops"] = stops

    poisoned = task(Poisoned)
    try:
        build(out / "poisoned").fit(poisoned, datamodule=tiny_data())
        told["poisoned"] = "finished"
    except NonFiniteError as error:
        told["poisoned"] = str(error)
    told["clean"] = all(bool(p.isfinite().all()) for p in poisoned.parameters())
    (out / f"rank-{RANK}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
