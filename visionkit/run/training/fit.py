"""One run: a task, its data and a folder in; a result out. Nothing here that could not be done by hand."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from visionkit import __version__
from visionkit.backbones.weights import portable_init
from visionkit.compat import batches_started
from visionkit.config import TransferConfig
from visionkit.data.datamodule import DataModule
from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.files import remove_parts
from visionkit.run.callbacks.finite_guard import FiniteGuard
from visionkit.run.callbacks.metrics_csv import TableLogger
from visionkit.run.callbacks.preempt import Preemption
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.skipped_samples import SkippedSamples
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.run.callbacks.trackers import Tracker, make_logger
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.processes.launcher import find_processes, is_first
from visionkit.run.processes.lifetime import RankWatchdog, keep_group_at_exit, lost_ranks, watch_ranks
from visionkit.run.processes.stop import interruptible
from visionkit.run.storage.checkpoint import newest_good
from visionkit.run.storage.disk import check_writable
from visionkit.run.storage.lock import hold
from visionkit.run.storage.result import TEST_FAILED, environment, peak_memory_mb, write_result
from visionkit.run.training.banner import print_banner
from visionkit.run.training.careful import problems_of
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.run_facts import run_facts
from visionkit.run.training.schedule_length import Length, length
from visionkit.run.training.trainer import build_trainer

__all__ = ["fit"]

LOG_EVERY = 20  # updates
SOFT = ("devices", "num_nodes", "workers", "strategy", "precision", "compile", "recompute", "accelerator")
FREE = (
    *("out", "resume", "logger", "progress", "checkpoint_every", "seeds", "fractions", "init"),
    *("jobs", "timeout"),
)


def fit(
    config: RunConfig,
    task: lightning.LightningModule,
    data: DataModule,
    *,
    folder: str | Path,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train `task` on `data`, continue where an earlier start stopped, evaluate, and write the result.

    Args:
        config: One run's settings: one init, one seed, one fraction.
        task: A task of `visionkit.tasks`, or any LightningModule with a `monitor`.
        data: Its data module.
        folder: The run's folder; everything is written below it.
        callbacks: More callbacks, before those of the run.

    Returns:
        What `result.json` holds.

    Raises:
        InputError: The folder holds another run, another process trains there, or the settings do not fit.
        RunError: The folder cannot be written, the disk is full, a number was not finite, or the run was
            preempted.
        KeyboardInterrupt: Ctrl-C: the first saves after the update and says where, a second ends at once.
    """
    place = Path(folder)
    with hold([place] if is_first() else []):
        return _fit(config, task, data, place, list(callbacks))


def _fit(
    config: RunConfig,
    task: lightning.LightningModule,
    data: DataModule,
    place: Path,
    callbacks: list[Callback],
) -> dict[str, Any]:
    began, watchdog = time.time(), RankWatchdog()
    if config.bad_input == "skip":
        data.skip_unreadable(limit=config.bad_limit)
    policy = choose_policy(config, task)
    if config.recompute:
        _recompute(task)
    if policy.channels_last:
        task = task.to(memory_format=torch.channels_last)
    monitor: tuple[str, str] = getattr(task, "monitor", ("val/loss", "min"))
    saver = SaveCheckpoints(
        place / "checkpoints",
        monitor=monitor,
        every=config.checkpoint_every,
        identity=_identity(config, data),
    )
    guard = FiniteGuard(place / "faults", skip=config.skip_updates)
    counter = _Clock(place / "metrics.csv")
    root = Path(config.out) if config.out and place.parent == Path(config.out) else place
    trackers = [make_logger(name, place, root=root) for name in config.logger]
    plan = length(config, data, find_processes(config, accelerator=policy.accelerator).world)
    last: list[Callback] = [guard, watchdog, Preemption(saver), saver]
    own = [StepSeed(data.seed), SkippedSamples(place / "faults"), *callbacks, *_task_callbacks(config, task)]
    trainer = build_trainer(
        config,
        folder=place,
        policy=policy,
        callbacks=[counter, *own, *last],
        loggers=[counter.table, *trackers],
        max_epochs=plan.epochs,
        validate_every=plan.validate_every,
        log_every=max(1, min(LOG_EVERY, plan.batches)),
    )
    problems: list[str] = []
    with _ending(trackers):
        resume = _open_folder(config, place, saver)
        if policy.compile:
            task.compile()
        print_banner(config, task, data, trainer, policy, place, plan, resume)
        for tracker in trackers:
            tracker.log_facts(run_facts(config, task, data, plan))
        _train(trainer, task, data, resume, config.timeout, watchdog)
        if not counter.images:  # it had ended before, and only its result was missing
            counter.images = plan.images
            counter.table.rewind(counter.images)
        metrics, fitted = dict(saver.metrics), time.time() - began
        best = place / "checkpoints" / "best.ckpt"
        if data.splits.test is not None:
            metrics |= _test(trainer, task, data, best if best.exists() else None, problems)
    problems += problems_of([*callbacks, *trackers])
    planned = {"images": counter.images, "planned_images": plan.images}
    result = {
        "task": type(task).__name__,
        "metrics": metrics,
        # Which weights a split's metrics are of: those at the end, or those of the best validation.
        "metrics_of": {"val": "last", "test": "best" if best.exists() else "last"},
        "best": {"name": monitor[0], "value": saver.best_score, "metrics": dict(saver.best_metrics)},
        "monitor": list(monitor),
        "init": config.init,
        "seed": config.seeds[0],
        "fraction": config.fractions[0],
        "images_seen": counter.images,
        "stopped_early": planned if counter.images < plan.images else None,
        "problems": problems,
        "skipped": {"updates": guard.skipped, "samples": data.skipped_counts()},
        "weights": _weights(task),
        "config": to_dict(config),
        "policy": policy.as_dict(),
        "env": environment(),
        "seconds": {"fit": fitted, "total": time.time() - began},
        "images_per_second": counter.speed,
        "peak_memory_mb": peak_memory_mb(),
        "parameters": _parameters(task),
        "data": data.facts(),
        "equal": _equal(task, data, plan, trainer, config),
        "predictions": "predictions/val.jsonl" if (place / "predictions/val.jsonl").exists() else None,
    }
    if trainer.is_global_zero:
        write_result(place, result)
    trainer.strategy.barrier("result")
    return result


@contextmanager
def _ending(trackers: Sequence[Tracker]) -> Iterator[None]:
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for tracker in trackers:
            tracker.end(status)


def _test(
    trainer: lightning.Trainer,
    task: lightning.LightningModule,
    data: DataModule,
    best: Path | None,
    problems: list[str],
) -> dict[str, float]:
    """Return the metrics of the test split; a fault there does not lose what was trained."""
    try:
        with interruptible():
            trainer.test(task, datamodule=data, ckpt_path=best and str(best), verbose=False)
    except Exception as error:
        if trainer.world_size > 1 or isinstance(error, PreemptedError):
            raise  # others wait in a collective: they must end too
        problems.append(f"{TEST_FAILED}: {type(error).__name__}: {error}")
        warnings.warn(f"{problems[-1]} The result is written without it.", RuntimeWarning, stacklevel=2)
        return {}
    return _floats(trainer.callback_metrics, "test/")


def _recompute(task: lightning.LightningModule) -> None:
    switch = getattr(getattr(task, "backbone", None), "set_gradient_checkpointing", None)
    if not callable(switch):
        raise InputError(
            f"--recompute asks for gradient checkpointing, but the backbone of {type(task).__name__} has "
            "no method set_gradient_checkpointing(). Name a registered backbone, or leave --recompute out."
        )
    switch()


def _train(
    trainer: lightning.Trainer,
    task: lightning.LightningModule,
    data: DataModule,
    resume: str | None,
    timeout: int,
    watchdog: RankWatchdog,
) -> None:
    watch_ranks(trainer)
    try:
        with interruptible():
            trainer.fit(task, datamodule=data, ckpt_path=resume)
    except BaseException as error:
        if not isinstance(error, RunError):  # those are agreed on: every process ends in good order
            keep_group_at_exit()
        lost = lost_ranks(error, trainer, timeout=timeout)
        if isinstance(error, PreemptedError) and error.by_keyboard:
            raise KeyboardInterrupt(str(error)) from error  # saved: what follows is no longer wanted
        if lost is None:
            raise
        watchdog.give_up(trainer.global_rank)
        raise lost from error


class _Clock(Callback):
    """Counts images seen, exactly, and the images a second of the training steps; keeps the table by them."""

    def __init__(self, path: Path) -> None:
        self.table = TableLogger(path, images=lambda: self.images)
        self.images = 0
        self.speed = 0.0
        self._spent = 0.0
        self._timed = 0
        self._since: float | None = None
        self._width = 0

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        order = trainer.datamodule.train_order()  # type: ignore[attr-defined]
        self._width = order.batch_size * order.world_size
        self._count(trainer)
        self.table.rewind(self.images)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._count(trainer)
        self._timed += self._width
        self._tick()

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._tick()
        self._since = None

    def _count(self, trainer: lightning.Trainer) -> None:
        self.images = batches_started(trainer) * self._width

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self._spent += now - self._since
        self._since = now
        self.speed = self._timed / self._spent if self._spent else 0.0


def _open_folder(config: RunConfig, place: Path, saver: SaveCheckpoints) -> str | None:
    """Prepare the folder on the first process; return the checkpoint to continue from."""
    found: Path | None = None
    if config.resume != "never":
        found = newest_good(saver.folder, report=rank_zero_only(lambda text: sys.stderr.write(text + "\n")))
        if found is None and config.resume == "require":
            raise InputError(
                f"--resume require: expected a sound checkpoint in {saver.folder}, but found none. "
                "Use --resume auto to start afresh."
            )
    if getattr(rank_zero_only, "rank", 0) == 0:
        check_writable(place)
        remove_parts(saver.folder)
        (place / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
        command = shlex.join([sys.executable, *sys.argv]) + "\n"
        (place / "cmd.txt").write_text(command, encoding="utf-8", errors="surrogateescape")
        (place / "env.json").write_text(_json(environment()), encoding="utf-8")
    return None if found is None else str(found)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=1) + "\n"


def _identity(config: RunConfig, data: DataModule) -> dict[str, Any]:
    identity: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        if name not in FREE:
            identity[f"soft:{name}" if name in SOFT else name] = value
    facts = data.facts()
    # After the settings, one of which is called "data" too: what counts is what lies there.
    return identity | {
        "data": facts["fingerprint"],
        "classes": facts["classes"],
        "seed": config.seeds[0],
        "fraction": config.fractions[0],
        "init": portable_init(config.init),
        "code version": __version__,
    }


def _task_callbacks(config: RunConfig, task: lightning.LightningModule) -> list[Callback]:
    from visionkit.run.callbacks.ema import EMA
    from visionkit.run.callbacks.unfreeze import Unfreeze

    made: list[Callback] = []
    if config.optim.ema:
        made.append(EMA(config.optim.ema))
    transfer = getattr(task, "transfer", None)
    if isinstance(transfer, TransferConfig) and transfer.unfreeze_at:
        made.append(Unfreeze())
    return made


def _floats(metrics: Any, prefix: str) -> dict[str, float]:
    return {str(name): float(value) for name, value in metrics.items() if str(name).startswith(prefix)}


def _weights(task: lightning.LightningModule) -> dict[str, Any]:
    record = getattr(getattr(task, "backbone", None), "weights", None)
    as_dict = getattr(record, "as_dict", None)
    return dict(as_dict()) if callable(as_dict) else {}


def _parameters(task: lightning.LightningModule) -> dict[str, int]:
    return {
        "total": sum(p.numel() for p in task.parameters()),
        "trainable": sum(p.numel() for p in task.parameters() if p.requires_grad),
    }


def _equal(
    task: lightning.LightningModule,
    data: DataModule,
    plan: Length,
    trainer: lightning.Trainer,
    config: RunConfig,
) -> dict[str, Any]:
    transfer = getattr(task, "transfer", None)
    return {
        "norm": getattr(transfer, "norm", None),
        "schedule": {
            "images": plan.images,
            "epochs": plan.epochs,
            "global_batch": plan.width * config.accumulate,
            "shape": config.optim.schedule,
            "lr": config.lr,
        },
        "order": data.order_fingerprint(),
        "skipped_samples": data.skipped_counts(),
        "draws": {"seed": data.seed, "batch_transform": type(data.batch_transform).__name__},
        "precision": str(trainer.precision),
    }
