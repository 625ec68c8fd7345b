"""Predict on images with a trained task: threads decode and resize while the network computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from visionkit.data.transforms.classification import Transform
from visionkit.data.transforms.saved import transform_from
from visionkit.errors import DataError, InputError, expected, unknown_name
from visionkit.predict.export.onnx_model import OnnxModel
from visionkit.predict.kinds import default_preprocess, kind_of
from visionkit.predict.loaded import load_task
from visionkit.predict.read_ahead import MAX_BYTES, Prepared, read_ahead
from visionkit.predict.result import Result
from visionkit.predict.sources import source_items
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import Policy, choose_policy
from visionkit.tasks.hooks import TaskHooks

__all__ = ["Model", "Predictor", "TaskModel", "load"]

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
MAX_BATCH = 32  # without a `batch_size`: more is no faster on a CPU


class Model(Protocol):
    """What a predictor runs."""

    def predict(
        self, images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str]
    ) -> list[Any]:  # pragma: no cover
        """Return one typed prediction an image.

        Args:
            images: `(3, H, W)` uint8, resized for the network, all of one size.
            sizes: `(H, W)` of the originals.
            ids: One name an image.
        """
        ...


class TaskModel:
    """A task as a model, on the device and in the precision that training would choose.

    Args:
        task: The task.
        policy: Device, precision and memory format.
    """

    def __init__(self, task: TaskHooks, policy: Policy) -> None:
        self.task = task.to(policy.device).eval()
        if policy.channels_last:
            self.task.to(memory_format=torch.channels_last)
        self.policy = policy
        self.kind = kind_of(type(task))

    def predict(self, images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str]) -> list[Any]:
        """Return one typed prediction an image, as the task's `predict_step` does.

        Args:
            images: `(3, H, W)` uint8, resized for the network, all of one size.
            sizes: `(H, W)` of the originals.
            ids: One name an image.
        """
        batch = self.kind.collate(images, sizes, ids, self.task.device)
        with self._autocast():
            predictions: list[Any] = self.task.predict_step(batch)
        return predictions

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = _AUTOCAST.get(self.policy.precision)
        return nullcontext() if dtype is None else torch.autocast(self.task.device.type, dtype=dtype)


class Predictor:
    """Predicts on files, folders and images in memory.

    Args:
        model: What predicts.
        facts: Its model facts.
        kind: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints".
        class_names: Names of the classes.
        transform: Resizes an image for the network.
        notes: What was chosen or assumed while loading, in sentences.
    """

    def __init__(
        self,
        model: Model,
        *,
        facts: dict[str, Any],
        kind: str,
        class_names: Sequence[str],
        transform: Transform,
        notes: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.facts = facts
        self.kind = kind
        self.class_names = tuple(class_names)
        self.transform = transform
        self.notes = tuple(notes)

    def __call__(self, source: Any, *, batch_size: int = 0) -> list[Result]:
        """Return the predictions of all images of a source, in its order.

        Args:
            source: See `visionkit.predict.sources.source_items`.
            batch_size: Images a batch; 0: that of the evaluation, 32 at most.

        Raises:
            InputError: The source is empty, missing, or nothing of it is an image.
            DataError: A file cannot be read.
        """
        return list(self.stream(source, batch_size=batch_size))

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = 0,
        threads: int = 0,
        on_error: Callable[[str, DataError], object] | None = None,
    ) -> Iterator[Result]:
        """Yield the predictions one by one, in the order of the source, in bounded memory.

        Args:
            source: See `visionkit.predict.sources.source_items`.
            batch_size: Images a batch; 0: that of the evaluation, 32 at most. Fewer where images are large;
                halved where the memory of a GPU does not suffice.
            threads: Threads that read and resize; 0: one a core, 8 at most.
            on_error: Called with the name and the error of a file that cannot be read, which is then left
                out; without it the error is raised.

        Raises:
            InputError: The source is empty, missing, or nothing of it is an image.
            DataError: A file cannot be read, and there is no `on_error`.
        """
        if batch_size < 0 or threads < 0:
            raise InputError(expected("batch_size and threads", "0 or more", (batch_size, threads)))
        size = batch_size or min(MAX_BATCH, int(self.facts.get("eval_batch_size") or MAX_BATCH))
        images = read_ahead(
            source_items(source),
            self.transform,
            count=2 * size,
            threads=threads or min(8, os.cpu_count() or 1),
            on_error=on_error,
        )
        batch: list[Prepared] = []
        for prepared in images:
            batch.append(prepared)
            if len(batch) == size or sum(each.nbytes for each in batch) >= MAX_BYTES:
                yield from self._predict(batch)
                batch = []
        yield from self._predict(batch)

    def _predict(self, batch: list[Prepared]) -> list[Result]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, each in enumerate(batch):
            groups.setdefault(tuple(each.resized.shape), []).append(index)
        predictions: dict[int, Any] = {}
        for indices in groups.values():
            predictions |= zip(indices, self._run([batch[index] for index in indices]), strict=True)
        return [
            Result(
                each.item.id,
                each.item.path,
                each.size,
                predictions[index],
                self.kind,
                self.class_names,
                each.original,
            )
            for index, each in enumerate(batch)
        ]

    def _run(self, group: list[Prepared]) -> list[Any]:
        """Run the model on images of one size, in halves where memory does not suffice."""
        try:
            images = [each.resized for each in group]
            return self.model.predict(images, [each.size for each in group], [each.item.id for each in group])
        except torch.cuda.OutOfMemoryError:
            if len(group) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(group) // 2
        return self._run(group[:half]) + self._run(group[half:])


def load(
    path: str | Path, *, device: str = "auto", precision: str = "auto", which: str = "best"
) -> Predictor:
    """Load a run folder, a folder of runs, a checkpoint or an exported file for prediction.

    Args:
        path: See `load_task`; or an ONNX file that `visionkit.predict.export.export` wrote.
        device: "auto", "cpu", "gpu" or "mps".
        precision: "auto" (as training chooses), "32-true", "bf16-mixed" or "16-mixed".
        which: "best" (the checkpoint of the best validation) or "last".

    Raises:
        InputError: Nothing is there, the run is unfinished, or the device is not.
        DataError: The checkpoint is damaged.
    """
    if Path(path).suffix == ".onnx":
        return _load_onnx(path, device, precision)
    if precision not in ("auto", "32-true", *_AUTOCAST):
        raise unknown_name("precision", precision, ("auto", "32-true", *_AUTOCAST))
    loaded = load_task(path, which=which)
    policy = choose_policy(RunConfig(accelerator=device, precision=precision), loaded.task)
    model = TaskModel(loaded.task, policy)
    described, notes = loaded.facts.get("preprocess"), [loaded.note] if loaded.note else []
    if described is None:
        described = default_preprocess(loaded.task)
        notes.append(f"The checkpoint does not say how images are resized; {described} is used.")
    return Predictor(
        model,
        facts=loaded.facts,
        kind=model.kind.name,
        class_names=tuple(getattr(loaded.task, "class_names", None) or ()),
        transform=_transform(described, loaded.checkpoint),
        notes=notes,
    )


def _load_onnx(path: str | Path, device: str, precision: str) -> Predictor:
    if precision not in ("auto", "32-true"):
        raise InputError(expected("precision of an exported file", "32-true", precision))
    model = OnnxModel(path, device=device)
    metadata = model.metadata
    return Predictor(
        model,
        facts=metadata,
        kind=metadata["kind"],
        class_names=metadata["class_names"],
        transform=_transform(metadata["preprocess"], path),
    )


def _transform(described: Any, path: str | Path) -> Transform:
    try:
        return transform_from(described)
    except InputError as error:
        raise DataError(str(error), path=path, field="preprocess") from error
