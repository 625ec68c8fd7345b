"""One run: train a task on its data in a folder, resume, evaluate, and write the result."""

from __future__ import annotations

import json
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from visionkit import __version__
from visionkit.backbones.weights import portable_init
from visionkit.data.datamodule import DataModule
from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.files import remove_parts, write_text, writing
from visionkit.run.callbacks.clock import Clock
from visionkit.run.callbacks.finite_guard import FiniteGuard
from visionkit.run.callbacks.image_scores import SaveImageScores
from visionkit.run.callbacks.live_progress import LiveProgress
from visionkit.run.callbacks.preempt import Preemption
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.skipped_samples import SkippedSamples
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.run.callbacks.trackers import Tracker, make_logger
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.feedback.board import Board
from visionkit.run.feedback.log_file import RunLog
from visionkit.run.feedback.state import audience, shown_to
from visionkit.run.previews.filters import FilterImage
from visionkit.run.processes.launcher import find_processes, is_first
from visionkit.run.processes.lifetime import RankWatchdog, keep_group_at_exit, lost_ranks, watch_ranks
from visionkit.run.processes.stop import interruptible
from visionkit.run.requests import requests
from visionkit.run.resume import fixed_settings, machine_changes
from visionkit.run.storage.checkpoint import newest_good
from visionkit.run.storage.disk import check_writable
from visionkit.run.storage.lock import hold
from visionkit.run.storage.result import TEST_FAILED, environment, named_scores
from visionkit.run.training.banner import banner_text
from visionkit.run.training.best_effort import problems_of
from visionkit.run.training.device_policy import Policy, choose_policy
from visionkit.run.training.find import find_settings
from visionkit.run.training.measure import measure_speed
from visionkit.run.training.reader_files import write_result_files
from visionkit.run.training.run_facts import model_facts, run_facts, run_result
from visionkit.run.training.schedule_length import ScheduleLength, schedule_length
from visionkit.run.training.task_callbacks import monitor_of, task_callbacks
from visionkit.run.training.trainer import build_trainer

__all__ = ["fit"]

LOG_EVERY = 20  # updates


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
    folder = Path(folder)
    if requests().find:
        return find_settings(config, task, data, folder=folder)
    if requests().measure:
        return measure_speed(config, task, data)
    callbacks = [*callbacks, *requests().callbacks]
    with (
        hold([folder] if is_first() else []),
        RunLog(folder, first=is_first()) as log,
        _watched(config, folder),
    ):
        return _fit(config, task, data, folder, callbacks, log)


def _fit(
    config: RunConfig,
    task: lightning.LightningModule,
    data: DataModule,
    folder: Path,
    callbacks: Sequence[Callback],
    log: RunLog,
) -> dict[str, Any]:
    began = time.time()
    policy = _prepare(config, task, data)
    parts, trainer, plan = _build(config, task, data, folder, callbacks, policy, log)
    problems: list[str] = []
    with _ending(parts.trackers):
        resume, changed = _open_folder(config, folder, parts.saver, plan)
        if policy.compile:
            task.compile()
        if trainer.is_global_zero:
            log.show(banner_text(config, task, data, trainer, policy, folder, plan, resume, changed))
        shown = run_facts(config, task, data, plan)
        for tracker in parts.trackers:
            tracker.follow(images=parts.clock.table.images, rates=parts.clock.rates)
            tracker.log_facts(shown)
        _train(trainer, task, data, resume, config.timeout, parts.watchdog)
        parts.clock.finish(plan.images)
        metrics, fitted = dict(parts.saver.metrics), time.time() - began
        best = folder / "checkpoints" / "best.ckpt"
        if data.splits.test is not None and requests().test:
            metrics |= _test(trainer, task, data, best if best.exists() else None, problems)
        # Which weights a split's metrics are of: those at the end, or those of the best validation.
        metrics_of = {"val": "last", "test": "best" if best.exists() else "last"}
        scores = named_scores(metrics, parts.saver.best_metrics, metrics_of)
        for tracker in parts.trackers:
            tracker.log_scores(shown, scores)
    outcome = {
        "metrics": metrics,
        "metrics_of": metrics_of,
        "scores": scores,
        "problems": problems + problems_of([*callbacks, *parts.first, *parts.trackers]),
        "seconds": {"fit": fitted, "total": time.time() - began},
    }
    result = run_result(
        config,
        task,
        data,
        plan=plan,
        policy=policy,
        precision=str(trainer.precision),
        folder=folder,
        outcome=parts.outcome(data) | outcome,
    )
    if trainer.is_global_zero:
        write_result_files(folder, result, data.splits)
    trainer.strategy.barrier("result")
    return result


def _build(
    config: RunConfig,
    task: lightning.LightningModule,
    data: DataModule,
    folder: Path,
    callbacks: Sequence[Callback],
    policy: Policy,
    log: RunLog,
) -> tuple[_Parts, lightning.Trainer, ScheduleLength]:
    processes = find_processes(config, accelerator=policy.accelerator)
    plan = schedule_length(config, data, processes.world)
    monitor = monitor_of(task)
    facts = model_facts(config, task, data, policy)
    parts = _Parts.of(config, data, plan, folder, monitor, facts, log)
    trainer = build_trainer(
        config,
        folder=folder,
        policy=policy,
        processes=processes,
        callbacks=parts.around([*callbacks, *task_callbacks(config, task)]),
        loggers=[parts.clock.table, *parts.trackers],
        max_epochs=plan.epochs,
        validate_every=plan.validate_every,
        log_every=max(1, min(LOG_EVERY, plan.batches)),
        progress=False,  # `LiveProgress` shows it
    )
    return parts, trainer, plan


@dataclass(frozen=True)
class _Parts:
    """The callbacks and loggers of a run that its result is read from."""

    clock: Clock
    live: LiveProgress
    first: list[Callback]
    guard: FiniteGuard
    watchdog: RankWatchdog
    saver: SaveCheckpoints
    trackers: list[Tracker]

    @classmethod
    def of(
        cls,
        config: RunConfig,
        data: DataModule,
        plan: ScheduleLength,
        folder: Path,
        monitor: tuple[str, str],
        facts: dict[str, Any],
        log: RunLog,
    ) -> _Parts:
        clock = Clock(folder / "metrics.csv")
        saver = SaveCheckpoints(
            folder / "checkpoints",
            monitor=monitor,
            every=config.checkpoint_every,
            identity=_identity(config, data, plan),
            facts=lambda: {**facts, "images_seen": clock.images},
        )
        root = Path(config.out) if config.out and folder.parent == Path(config.out) else folder
        return cls(
            clock=clock,
            live=LiveProgress(folder.name, plan, table=clock.table, saver=saver, log=log),
            first=[
                StepSeed(data.seed),
                SkippedSamples(folder / "faults"),
                SaveImageScores(folder, group_by=config.group_by),
                FilterImage(folder),
            ],
            guard=FiniteGuard(folder / "faults", skip=config.checks.skip_updates),
            watchdog=RankWatchdog(),
            saver=saver,
            trackers=[make_logger(name, folder, root=root) for name in config.logger],
        )

    def around(self, callbacks: list[Callback]) -> list[Callback]:
        """Return all callbacks in their order: the saver writes last, after what it saves has changed."""
        last: list[Callback] = [self.guard, self.watchdog, Preemption(self.saver), self.saver]
        return [self.clock, self.live, *self.first, *callbacks, *last]

    def outcome(self, data: DataModule) -> dict[str, Any]:
        """Return what the parts know of the finished training."""
        name, mode = self.saver.monitor
        best = {"name": name, "value": self.saver.best_score, "metrics": dict(self.saver.best_metrics)}
        return {
            "best": best,
            "monitor": [name, mode],
            "images_seen": self.clock.images,
            "images_per_second": self.clock.speed,
            "skipped": {"updates": self.guard.skipped, "samples": data.skipped_counts()},
        }


def _prepare(config: RunConfig, task: lightning.LightningModule, data: DataModule) -> Policy:
    """Set task and data up as the settings ask, and return how the run uses its device."""
    if config.checks.bad_input == "skip":
        data.skip_unreadable(limit=config.checks.bad_limit)
    policy = choose_policy(config, task)
    if config.recompute:
        _recompute(task)
    if policy.channels_last:
        task.to(memory_format=torch.channels_last)
    return policy


@contextmanager
def _watched(config: RunConfig, folder: Path) -> Iterator[None]:
    """Show the run on the screen of this process, unless a command shows it with others."""
    if audience() is not None or not is_first():
        yield
        return
    with Board({folder.name: 1.0}, terminal=None if config.progress else False) as board, shown_to(board):
        board.begin(folder.name)
        yield


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
    """Return the metrics of the test split; an error there does not lose what was trained."""
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
            raise KeyboardInterrupt(str(error)) from error  # saved: no further run is started
        if lost is None:
            raise
        watchdog.give_up(trainer.global_rank)
        raise lost from error


def _open_folder(
    config: RunConfig, folder: Path, saver: SaveCheckpoints, plan: ScheduleLength
) -> tuple[str | None, str]:
    """Prepare the folder on the first process.

    Returns:
        The checkpoint to continue from, and a sentence on the machine settings that changed since it began.
    """
    checkpoint: Path | None = None
    changed = ""
    if config.resume != "never":
        report = rank_zero_only(lambda text: sys.stderr.write(text + "\n"))
        checkpoint = newest_good(saver.folder, report=report)
        if checkpoint is None and config.resume == "require":
            raise InputError(
                f"--resume require: expected a sound checkpoint in {saver.folder}, but found none. "
                "Use --resume auto to start afresh."
            )
    if getattr(rank_zero_only, "rank", 0) == 0:
        if checkpoint is not None:
            changed = machine_changes(config, folder)
        check_writable(folder)
        remove_parts(saver.folder)
        settings = yaml.safe_dump(to_dict(config), sort_keys=False)
        command = shlex.join([sys.executable, *sys.argv]) + "\n"
        ahead = {"images": plan.images, "epochs": plan.epochs, "monitor": list(saver.monitor)}
        with writing(folder):
            write_text(folder / "config.yaml", settings)
            write_text(folder / "cmd.txt", command, errors="surrogateescape")
            write_text(folder / "plan.json", json.dumps(ahead) + "\n")
            write_text(folder / "env.json", json.dumps(environment(), indent=1) + "\n")
    return None if checkpoint is None else str(checkpoint), changed


def _identity(config: RunConfig, data: DataModule, plan: ScheduleLength) -> dict[str, Any]:
    """Return what has to be the same when the run is continued, by name."""
    facts = data.facts()
    # After the settings, one of which is called "data" too: what counts is what lies there.
    return fixed_settings(config) | {
        "data": facts["fingerprint"],
        "seeds": config.seeds[:1],
        "fractions": config.fractions[:1],
        "folds": config.folds,
        "schedules": config.schedules[:1],
        "classes": facts["classes"],
        "images in all": plan.images,
        "init": portable_init(config.init),
        "code version": __version__,
    }


def _floats(metrics: Any, prefix: str) -> dict[str, float]:
    return {str(name): float(value) for name, value in metrics.items() if str(name).startswith(prefix)}
