"""Evaluate a trained model: every score of its training on a split of any data set of its kind, exactly."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from visionkit.compare.comparison import arm_name
from visionkit.compare.run_record import named_init
from visionkit.data.datamodule import DataModule
from visionkit.data.splits import fingerprint, subset
from visionkit.errors import InputError, expected
from visionkit.files import new_folder, writing
from visionkit.predict.evaluation.figures import draw_scores, image_callbacks
from visionkit.predict.evaluation.result import Evaluation, computed, free_folder, stored_scores
from visionkit.predict.evaluation.run_data import RunFiles, read_run_files
from visionkit.predict.evaluation.subject import (
    Subject,
    check_unknown,
    evaluation_data,
    open_subject,
    take_frequency,
)
from visionkit.predict.loaded import Loaded, load_task
from visionkit.run.config import RunConfig
from visionkit.run.previews.caption_grounding import CaptionGrounding
from visionkit.run.processes.stop import interruptible
from visionkit.run.storage.lock import hold
from visionkit.run.storage.result import environment
from visionkit.run.training.best_effort import problems_of
from visionkit.run.training.device_policy import Policy, choose_policy
from visionkit.run.training.trainer import build_trainer
from visionkit.tasks.saved_settings import task_name

__all__ = ["evaluate"]

COUNTED = {"classification": "labels", "detection": "objects", "segmentation": "pixels"}


def evaluate(
    path: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "",
    which: str = "best",
    options: Mapping[str, Any] | None = None,
    limit: int = 0,
    batch_size: int = 0,
    workers: int = 0,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a trained model; on its run's own data the scores are those of its `result.json`.

    It needs neither the recipe nor a network. The images are prepared, batched and scored as in training, on
    the device and in the precision of the run where the machine has them.

    Args:
        path: A run's folder, a folder of runs (the best is taken) or a checkpoint.
        data: A data set of the same kind, in any format of `open_dataset`; None: the run's own. Classes are
            matched by name; objects, labels, pixels and images of classes that the model does not know are
            left out and counted.
        split: "train" (of the run's own data: what it trained on), "val", "test", or "all" images. Empty:
            test; of the run's own data, where they have no test split, val, with a note.
        which: "best" (the checkpoint of the best validation) or "last".
        options: Fields of `OpenOptions` that differ from those of the run, of `stream` a dict of its fields;
            `max_dropped` also limits the fraction that is of unknown classes.
        limit: Evaluate so many images, drawn with a fixed seed; 0: all.
        batch_size: Images a batch; 0: that of the run's evaluation. Another one may change last digits.
        workers: Processes that read images; 0: this one.
        device: "auto" (that of the run, if it is here), "cpu", "gpu" or "mps".
        precision: "auto" (that of the run on its device), "32-true", "bf16-mixed" or "16-mixed".
        out: A folder for `evaluation.json`, figures and predictions; None: nothing is written.
        overwrite: Whether `out` may hold files already.
        progress: Whether a terminal shows a progress bar.

    Raises:
        InputError: Nothing is at `path`, the data are gone or of another kind, there is no such split, the
            class lists have no common name, too much is of classes that the model does not know, or `out`
            is not empty.
        DataError: The checkpoint or a file of the data is damaged.
        RunError: `out` cannot be written.
    """
    for name, value in (("limit", limit), ("batch_size", batch_size), ("workers", workers)):
        if value < 0:
            raise InputError(expected(name, "0 or more", value))
    folder = None if out is None else free_folder(out, overwrite=overwrite)
    loaded = load_task(path, which=which)
    run = read_run_files(loaded.run_folder)
    subject = open_subject(loaded, run, data, split, options or {})
    subject.notes[:0] = [loaded.note] if loaded.note else []
    reader = subject.reader
    if limit and limit < len(reader):
        reader = subset(reader, limit / len(reader))
        subject.notes.append(f"{limit:,} of {len(subject.reader):,} images, drawn with a fixed seed.")
    module = evaluation_data(loaded, run, subject, reader, batch_size=batch_size, workers=workers)
    policy = _policy(loaded, run, device, precision)
    work = _Work(loaded, run, subject, module, policy)
    scored = take_frequency(loaded, run, subject)
    with nullcontext() if folder is None else _filled(folder) as part:
        work.run(part, progress=progress)
        if not scored:
            work.metrics.pop(f"{subject.split}/cider_d", None)
        evaluation = work.evaluation(complete=len(reader) == len(subject.original), folder=folder)
        if part is not None:
            evaluation.write(part)
    return evaluation


@contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files are in `folder` once the evaluation is complete, or nowhere."""
    with writing(folder), hold([folder]), new_folder(folder) as part:
        yield part


@dataclass
class _Work:
    """One evaluation."""

    loaded: Loaded
    files: RunFiles
    subject: Subject
    module: DataModule
    policy: Policy
    counts: _Counts = field(default_factory=lambda: _Counts())
    metrics: dict[str, float] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, folder: Path | None, *, progress: bool) -> None:
        """Evaluate; with a folder, draw too."""
        with tempfile.TemporaryDirectory() as scratch:
            callbacks = self._callbacks(folder, scratch)
            trainer = self._trainer(callbacks, scratch, progress=progress)
            began = time.perf_counter()
            with interruptible():
                trainer.validate(self.loaded.task, datamodule=self.module, verbose=False)
            self.seconds = time.perf_counter() - began
        split, subject = self.subject.split, self.subject
        self.metrics = {
            f"{split}/{str(name).removeprefix('val/')}": float(value)
            for name, value in trainer.callback_metrics.items()
            if str(name).startswith("val/")
        }
        check_unknown(subject, self.counts.unknown, self.counts.total, COUNTED.get(subject.kind, ""))
        result: Any = getattr(getattr(self.loaded.task, "scores", None), "result", None)
        left_out: str = getattr(result, "left_out", "")  # of retrieval; elsewhere `result` is a method
        subject.notes += [left_out] if left_out else []
        for _, skipped in self.module.skipped_counts().items():
            subject.notes.append(f"{skipped['count']:,} of {skipped['of']:,} images could not be read.")
        if folder is not None:
            title, task = f"{subject.splits.name}, {split} split", self.loaded.task
            draw_scores(
                task,
                self.metrics,
                subject.classes,
                folder / "figures",
                title=title,
                arm=arm_name(self.init) or "model",
            )
            subject.notes += problems_of(callbacks)
            self.figures = sorted(file.name for file in (folder / "figures").glob("*.png"))

    @property
    def init(self) -> str:
        """Return where the weights of the run came from."""
        init = str(self.files.config.get("init") or self.loaded.facts.get("init") or "")
        return named_init(init, self.files.config)

    def evaluation(self, *, complete: bool, folder: Path | None) -> Evaluation:
        """Return the scores, beside the stored ones where all images of a split were evaluated."""
        loaded, subject, result = self.loaded, self.subject, self.files.result
        weights, split, stored = loaded.checkpoint.stem, subject.split, None
        if complete and split != "all":
            digest = fingerprint(subject.original)
            stored, reason = stored_scores(result, which=weights, split=split, fingerprint=digest)
            subject.notes += [reason] if reason else []
        before = _known_policy(loaded, self.files), loaded.facts.get("eval_batch_size")
        return Evaluation(
            checkpoint=loaded.checkpoint,
            which=weights,
            task=task_name(type(loaded.task)),
            init=self.init,
            fraction=self.files.fraction,
            schedule=self.files.schedule,
            data=subject.splits.name,
            root=subject.root,
            split=split,
            images=self.counts.images,
            metrics=self.metrics,
            stored=stored,
            how=computed(self.policy.as_dict(), self.module.eval_batch_size, environment()),
            stored_how=computed(*before, result.get("env") or {}),
            seconds=self.seconds,
            notes=tuple(subject.notes),
            figures=tuple(folder / "figures" / name for name in self.figures) if folder else (),
        )

    def _callbacks(self, folder: Path | None, scratch: str) -> list[Callback]:
        subject, task = self.subject, self.loaded.task
        made: list[Callback] = [self.counts]
        if subject.kind == "captioning":
            made.append(CaptionGrounding(folder or scratch, subject.splits.classes))
        if folder is not None:
            made += image_callbacks(subject.kind, task, subject.classes, folder, split=subject.split)
        return made

    def _trainer(self, callbacks: list[Callback], scratch: str, *, progress: bool) -> lightning.Trainer:
        policy, task = self.policy, self.loaded.task
        if policy.channels_last:
            task.to(memory_format=torch.channels_last)
        if policy.compile:
            task.compile()
        config = RunConfig(
            devices="1",
            num_nodes=1,
            accelerator=policy.accelerator,
            precision=policy.precision,
            deterministic=bool(self.files.config.get("deterministic", True)),
            progress=progress,
        )
        return build_trainer(config, folder=scratch, policy=policy, callbacks=callbacks)


class _Counts(Callback):
    """Counts images, and what a `MatchedReader` left out."""

    def __init__(self) -> None:
        self.images = self.unknown = self.total = 0

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        gallery = batch.get("gallery")
        self.images += len(batch["ids"]) - (0 if gallery is None else int(gallery.sum()))
        unknown, total = batch.get("unknown") or (0, 0)
        self.unknown, self.total = self.unknown + unknown, self.total + total


def _known_policy(loaded: Loaded, run: RunFiles) -> dict[str, Any]:
    return dict(loaded.facts.get("policy") or run.result.get("policy") or {})


def _policy(loaded: Loaded, run: RunFiles, device: str, precision: str) -> Policy:
    """Return the policy of the run where this machine has its device; else the one for this machine."""
    known = _known_policy(loaded, run)
    present = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if known and present.get(known.get("accelerator", "")) and device in ("auto", known.get("accelerator")):
        device = str(known["accelerator"])
        precision = str(known["precision"]) if precision == "auto" else precision
    else:
        known = {}
    config = RunConfig(accelerator=device, precision=precision, compile=bool(known.get("compile")))
    policy = choose_policy(config, loaded.task)
    return replace(policy, channels_last=bool(known.get("channels_last", policy.channels_last)))
