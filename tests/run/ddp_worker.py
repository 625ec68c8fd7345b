"""One process of a run in two or three: several checks in one start, the outcome as JSON for the test.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/run/ddp_worker.py OUT
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from tests.processes import gloo_threads
from tests.run.tiny import Noise, TinyTask, jitter, keep, tiny_data
from visionkit.data import DataModule, stack_batch
from visionkit.data.splits import Splits
from visionkit.errors import PreemptedError
from visionkit.run.callbacks.finite_guard import FiniteGuard, NonFiniteError
from visionkit.run.callbacks.preempt import Preemption
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.run.config import RunConfig
from visionkit.run.storage.checkpoint import newest_good
from visionkit.run.training.trainer import build_trainer
from visionkit.tasks import Classifier

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def digest(task: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in task.state_dict().values())).hexdigest()


def build(
    folder: Path, *callbacks: Callback, epochs: int = 2, every: int = 2, log_every: int = 20
) -> lightning.Trainer:
    config = RunConfig(
        accelerator="cpu", precision="32-true", progress=False, devices=str(WORLD), strategy="ddp"
    )
    saver = SaveCheckpoints(folder, monitor=TinyTask.monitor, every=every)
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
        log_every=log_every,
    )


class SignalSelf(Callback):
    def __init__(self, rank: int, batch: int) -> None:
        self.rank, self.batch = rank, batch

    def on_train_batch_start(self, trainer, *_):
        ready = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if trainer.global_rank == self.rank and ready == self.batch:
            os.kill(os.getpid(), signal.SIGUSR1 if ready % 2 else signal.SIGTERM)


class SignalInTurn(Callback):
    """Rank 0 is signalled in one update and rank 1 in the next, having looked into the store too early."""

    def on_train_batch_end(self, trainer, *_):
        if RANK == 0 and trainer.global_step == 2:
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_train_batch_start(self, trainer, *_):
        if RANK == 1 and trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


class Count(Callback):
    """Everything that leaves the process in four updates: operations of the process group, wherever in
    Python or C++ they are called, and calls of the key-value store."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.store: Counter[str] = Counter()
        self.buckets = 0
        self.kept: dict[str, object] = {}
        self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 0 and batch_idx == 4:
            for name in ("set", "get", "check", "add", "wait", "compare_set", "multi_get", "multi_set"):
                self.kept[name] = getattr(dist.PrefixStore, name)
                setattr(dist.PrefixStore, name, self.counted(name, self.kept[name]))
            self.profile.__enter__()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == 0 and batch_idx == 7:
            self.profile.__exit__(None, None, None)
            for name, method in self.kept.items():
                setattr(dist.PrefixStore, name, method)
            for event in self.profile.key_averages():
                if event.key.startswith("c10d::"):
                    self.operations[event.key] += event.count
            sizes = trainer.strategy.model._get_ddp_logging_data()["rebuilt_bucket_sizes"]
            self.buckets = len(str(sizes).split(","))

    def counted(self, name, method):
        def call(*args, **kwargs):
            self.store[name] += 1
            return method(*args, **kwargs)

        return call


class Poisoned(TinyTask):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        bad = RANK == 1 and self.seen[-1][0] == 3
        return loss * float("nan") if bad else loss


def task(kind: type[TinyTask] = TinyTask) -> TinyTask:
    torch.manual_seed(0)
    return kind()


def count(folder: Path, log_every: int) -> dict[str, object]:
    """Train the library's classifier over a small network and count what four of its updates send."""
    splits = Splits(Noise(72, 1, 32), Noise(8, 2, 32), None, ("a", "b", "c"), "noise", {})
    data = DataModule(
        splits, batch_size=4, train_transform=jitter, eval_transform=keep, collate=stack_batch, seed=5
    )
    torch.manual_seed(0)
    module = Classifier("timm/test_resnet", init="scratch", num_classes=3)
    trainer = build(folder, epochs=1, every=0, log_every=log_every)
    counter = Count()
    trainer.callbacks.append(counter)
    trainer.fit(module, datamodule=data)
    return {
        "operations": dict(counter.operations),
        "store": dict(counter.store),
        "buckets": counter.buckets,
    }


def main(out: Path) -> None:
    told: dict[str, object] = {}
    whole = task()
    trainer = build(out / "whole")
    trainer.fit(whole, datamodule=tiny_data())
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

    folder, in_turn, steps = out / "in-turn", task(), []
    try:
        build(folder, SignalInTurn()).fit(in_turn, datamodule=tiny_data())
    except PreemptedError as error:
        steps.append(int(str(error).split("update ")[1].split()[0]))
    told["in_turn"] = (steps, digest(in_turn))

    if WORLD > 2:
        (out / f"rank-{RANK}.json").write_text(json.dumps(told))
        return

    told["counted"] = count(out / "counted", log_every=100)
    told["logged"] = count(out / "logged", log_every=2)

    poisoned = task(Poisoned)
    try:
        build(out / "poisoned").fit(poisoned, datamodule=tiny_data())
        told["poisoned"] = "finished"
    except NonFiniteError as error:
        told["poisoned"] = str(error)
    told["clean"] = all(bool(p.isfinite().all()) for p in poisoned.parameters())
    (out / f"rank-{RANK}.json").write_text(json.dumps(told))


def end(out: Path) -> None:
    (out / f"end-{RANK}.json").write_text(json.dumps(gloo_threads()))


def start(folder: str) -> None:
    """Be one process of the run."""
    out = Path(folder)
    atexit.register(end, out)  # before the first Trainer, so it is called after all of its own
    main(out)


if __name__ == "__main__":
    start(sys.argv[1])
