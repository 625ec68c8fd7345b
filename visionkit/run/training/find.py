"""Look for a learning rate or a batch size by Lightning's Tuner, with the data and the network of a run."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.tuner.tuning import Tuner

from visionkit.compare.report.plot_style import INK, MUTED, name_axes, new_figure, to_png
from visionkit.data.datamodule import DataModule
from visionkit.errors import InputError, RunError
from visionkit.files import write_text
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import find_processes, is_first
from visionkit.run.requests import requests
from visionkit.run.storage.result import environment, peak_memory_mb
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.schedule_length import schedule_length
from visionkit.run.training.trainer import build_trainer

__all__ = ["find_settings"]

STEPS, LOW, HIGH = 100, 1e-6, 1.0
TRIAL_STEPS = 3
SKIPPED = 10


def find_settings(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, *, folder: Path
) -> dict[str, Any]:
    """Look for what the command asks (`requests().find`); nothing is trained, the weights stay as they are.

    The learning rate: it rises from 1e-6 to 1 over 100 updates, and the suggestion is where the loss falls
    most steeply (Smith, WACV 2017, as Lightning's `Tuner.lr_find` has it). All layers move at the one rate.
    The batch size: doubled from the given one while three updates fit into the device's memory.

    Args:
        config: One run's settings.
        task: The task.
        data: Its data; with both, the rate is looked for at the batch size that was found.
        folder: The run's folder: `find_lr.csv`, `find_lr.png` and `find_batch_size.csv` go there.

    Returns:
        "batch_size" and "lr", as the flags of these names take them; those that were asked for.

    Raises:
        InputError: The batch size is looked for on a CPU, whose memory has no sharp end, or in several
            processes.
        RunError: No suggestion: the loss was not finite, or fell nowhere.
    """
    findings: dict[str, Any] = {}
    if "batch_size" in requests().find:
        data.batch_size = findings["batch_size"] = _find_batch_size(config, task, data, folder)
    if "lr" in requests().find:
        rate = _find_lr(config, task, data, folder)
        if config.optim.batch:  # --lr is for this batch, and scaled to the actual one
            processes = find_processes(config, accelerator=choose_policy(config, task).accelerator)
            plan = schedule_length(config, data, processes.world)
            rate *= config.optim.batch / (plan.images_per_batch * config.accumulate)
        findings["lr"] = float(f"{rate:.2g}")
    return findings


def _find_batch_size(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, folder: Path
) -> int:
    _refuse_cpu(config, task)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(config, task, data, Path(scratch))
        size = Tuner(trainer).scale_batch_size(
            task, datamodule=data, mode="power", steps_per_trial=TRIAL_STEPS, init_val=config.batch_size
        )
    size = min(int(size or 0), len(data.train_data))
    if not size:
        raise RunError("No batch size was found. Give --batch_size.")
    row = (size, environment()["device"], round(peak_memory_mb()))
    _write_rows(folder / "find_batch_size.csv", ("batch_size", "device", "peak_memory_mb"), [row])
    return size


def _refuse_cpu(config: RunConfig, task: lightning.LightningModule) -> None:
    policy = choose_policy(config, task)
    processes = find_processes(config, accelerator=policy.accelerator)
    if policy.accelerator == "cpu" or processes.world > 1:
        raise InputError(
            f"--find_batch_size fills the memory of one GPU, but this run has {processes.world} x "
            f"{policy.accelerator}. Use --accelerator gpu --devices 1; on a CPU, choose it by its speed."
        )


def _find_lr(config: RunConfig, task: lightning.LightningModule, data: DataModule, folder: Path) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(config, task, data, Path(scratch))
        with _no_bar_in_logs():
            finder = Tuner(trainer).lr_find(
                task, datamodule=data, min_lr=LOW, max_lr=HIGH, num_training=STEPS, update_attr=False
            )
    if finder is None:
        raise RunError("Lightning looked for no learning rate. Give --lr.")
    rates, losses, best = finder.results["lr"], finder.results["loss"], finder.suggestion(skip_begin=SKIPPED)
    if is_first():
        _write_rows(folder / "find_lr.csv", ("lr", "loss"), zip(rates, losses, strict=False))
        _draw(rates, losses, best, folder / "find_lr.png")
    if best is None or not math.isfinite(best):
        raise RunError(f"No learning rate can be suggested: see {folder / 'find_lr.csv'}. Give --lr.")
    return float(best)


@contextlib.contextmanager
def _no_bar_in_logs() -> Iterator[None]:
    """Show Lightning's bar on a terminal only: it writes a line an update, and has no setting for that."""
    if sys.stderr.isatty():
        yield
        return
    hidden = io.StringIO()
    try:
        with contextlib.redirect_stderr(hidden):
            yield
    finally:
        rest = [
            line for line in hidden.getvalue().replace("\r", "\n").splitlines() if "Finding best" not in line
        ]
        sys.stderr.write("".join(f"{line}\n" for line in rest if line.strip()))


def _trainer(
    config: RunConfig, task: lightning.LightningModule, data: DataModule, scratch: Path
) -> lightning.Trainer:
    """Return a Trainer that is long enough for the search and does not validate."""
    policy = choose_policy(config, task)
    processes = find_processes(config, accelerator=policy.accelerator)
    plan = schedule_length(config, data, processes.world)
    epochs = max(plan.epochs, -(-STEPS * config.accumulate // plan.batches) + 1)
    return build_trainer(
        config,
        folder=scratch,
        policy=policy,
        processes=processes,
        max_epochs=epochs,
        validate_every=epochs + 1,
        progress=False,
    )


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, table.getvalue())


def _draw(rates: Sequence[float], losses: Sequence[float], best: float | None, path: Path) -> None:
    figure, axes = new_figure()
    # The first updates are left out, as the suggestion does: their running mean is of hardly any batch.
    axes.plot(rates[SKIPPED:], losses[SKIPPED:], color=INK, linewidth=1.4)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    note = "smoothed loss of a batch while the rate rises; no weights are kept"
    if best is not None:
        axes.axvline(best, color=MUTED, linestyle="--", linewidth=1)
        note += f"; steepest at {best:.2g}"
    name_axes(axes, "Learning-rate range test", note, "learning rate of every layer", "train/loss")
    to_png(figure, path)
