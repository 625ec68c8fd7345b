"""`export`: a trained task as one file that other programs run."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionkit.errors import InputError, RunError, first_line, unknown_name
from visionkit.files import local_path, unwritable, write_atomic
from visionkit.predict.export.check import check_graph
from visionkit.predict.export.check_images import check_batches, check_images
from visionkit.predict.export.graphs import make_graph
from visionkit.predict.export.metadata import KEY, install, task_metadata, to_json
from visionkit.predict.export.onnx_model import open_session, run_session
from visionkit.predict.export.onnx_writer import OPSET, to_onnx, to_program
from visionkit.predict.export.speed import speed
from visionkit.predict.export.state_file import write_state
from visionkit.predict.kinds import default_preprocess
from visionkit.predict.loaded import load_task
from visionkit.predict.trained_files import SUFFIXES
from visionkit.run.storage.disk import check_writable
from visionkit.tasks import Captioner, Classifier, Detector
from visionkit.tasks.hooks import TaskHooks

__all__ = ["Exported", "export"]

_MAX_BYTES = 2**31 - 2**24  # a protobuf holds 2 GiB


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Args:
        path: The file.
        metadata: What it says of itself; "check" holds the largest differences from the task.
        notes: What the user should know, in sentences.
        speed: Milliseconds of processor time of the "file" and of the "task" for one image, on one thread
            (see `visionkit.predict.export.speed`); empty without a graph.
    """

    path: Path
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()
    speed: dict[str, float] = field(default_factory=dict)


def export(
    source: str | Path | TaskHooks,
    file: str | Path,
    *,
    format: str = "onnx",
    uint8: bool = False,
    images: Any = None,
    which: str = "best",
    preprocess: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a trained task as one file, and compare it with the task before the file gets its name.

    Args:
        source: A task, or what `load_task` takes: a run folder, a folder of runs, a checkpoint.
        file: Where it goes; its ending is that of the format.
        format: "onnx" (.onnx), "torch" (a program of `torch.export`, .pt2; no detectors) or "safetensors"
            (weights and settings, .safetensors).
        uint8: Take uint8 images `(B, C, H, W)`, and not float in [0, 1].
        images: Images to compare on (see `visionkit.predict.sources.source_items`); those that the run keeps
            of its training data if not given, or else embedded scenes. For graphs: tensors are compared
            as they are.
        which: "best" or "last" checkpoint of a run.
        preprocess: How images are resized, in place of what the checkpoint says (see
            `visionkit.data.transforms.saved`).

    Raises:
        InputError: The source, the format or the ending is wrong, a package is not installed, or the task
            cannot be exported in this format; the text says why.
        RunError: The file differs from the task, or cannot be written: nothing is left.
    """
    if format not in SUFFIXES:
        raise unknown_name("export format", format, SUFFIXES)
    target = local_path(file, "a file to write")
    if target.suffix != SUFFIXES[format]:
        raise InputError(f"Expected a file that ends in {SUFFIXES[format]} for {format}, but got {target}.")
    if not target.parent.is_dir():
        raise InputError(f"Expected a folder at {target.parent}, but there is none. Make it first.")
    if target.is_dir():
        raise InputError(f"Expected a file to write at {target}, but it is a folder. Name another.")
    check_writable(target.parent)
    if format == "onnx":
        for package in ("onnxscript", "onnx", "onnxruntime"):
            install(package)
    task, facts, run_folder, chosen = _task_of(source, which)
    if format == "torch" and isinstance(task, Detector):
        raise InputError(
            "A detector is not exported as a program of torch.export: it would need an operator of visionkit "
            "to run. Use onnx, which has proposals and suppression inside, or safetensors."
        )
    described = preprocess or facts.get("preprocess") or default_preprocess(task)
    metadata = task_metadata(task, facts, preprocess=described, uint8=uint8)
    with _ready(task):
        if format == "safetensors":
            metadata = write_state(task, target, metadata)
            made = Exported(target, metadata, ("Every tensor was read back and is equal.",))
        else:
            checked_on, whose = check_images(images, run_folder, channels=task.channels)
            made = _export_graph(task, target, format, metadata, checked_on, whose)
    return replace(made, notes=(*filter(None, [chosen]), *made.notes))


@dataclass(frozen=True)
class _Plan:
    """How a graph is traced: the example, whether its size is free, and the batches it is checked on."""

    example: Tensor
    dynamic_size: bool
    batches: list[Tensor]


def _export_graph(
    task: TaskHooks, target: Path, format: str, metadata: dict[str, Any], images: list[Tensor], whose: str
) -> Exported:
    uint8 = metadata["input"]["dtype"] == "uint8"
    graph = make_graph(task, uint8=uint8)
    metadata["outputs"] = list(graph.outputs)
    if format == "onnx":
        metadata["opset"] = OPSET
    failures: list[Exception] = []
    for plan in _plans(task, images, metadata["preprocess"], uint8=uint8):
        try:
            content, run = _traced(graph, plan, format, metadata)
            checked = check_graph(run, task, plan.batches, what=f"{format} file")
        except Exception as error:  # the exporters raise everything
            failures.append(error)
            continue
        free = {"batch": True, "size": plan.dynamic_size}
        metadata |= {"dynamic": free, "check": {"images": whose, **checked}}
        if not plan.dynamic_size:
            metadata["size"] = [int(side) for side in plan.example.shape[-2:]]
        times = speed(run, task, plan.batches[0] if uint8 else plan.batches[0].float() / 255)
        try:
            write_atomic(target, partial(_WRITERS[format], content, metadata))
        except OSError as error:
            raise unwritable(target.parent, error) from error
        return Exported(target, metadata, tuple(_notes(task, metadata, failures)), times)
    raise _refused(task, failures[-1], format) from failures[-1]


def _plans(
    task: TaskHooks, images: list[Tensor], preprocess: Mapping[str, Any], *, uint8: bool
) -> Iterator[_Plan]:
    """Yield the ways to trace a task, the freest first."""
    dtype = torch.uint8 if uint8 else torch.float32
    fixed = getattr(task.backbone, "fixed_size", None)
    whole = isinstance(task, Classifier | Captioner)
    # Symbols for sizes cost minutes in some networks: only where images do come in any size.
    if not _fixes_size(preprocess) and (fixed is None or not whole):
        batches = check_batches(task, images, preprocess, size=None)
        yield _Plan(torch.zeros(2, *batches[2].shape[1:], dtype=dtype), True, batches)
    size = tuple(fixed) if fixed is not None and whole else None
    batches = check_batches(task, images, preprocess, size=size)[:2]
    yield _Plan(torch.zeros(2, *batches[0].shape[1:], dtype=dtype), False, batches)


def _fixes_size(preprocess: Mapping[str, Any]) -> bool:
    """Return whether images have one size after it."""
    return preprocess["name"] == "CenterCrop" or isinstance(preprocess.get("size"), list | tuple)


def _traced(
    graph: Any, plan: _Plan, format: str, metadata: Mapping[str, Any]
) -> tuple[Any, Callable[[Tensor], Mapping[str, Tensor]]]:
    """Return what a file will hold, and a function that runs it."""
    program = to_program(graph, plan.example, dynamic_size=plan.dynamic_size)
    if format == "onnx":
        model = to_onnx(program, graph.outputs, dynamic_size=plan.dynamic_size)
        if model.ByteSize() > _MAX_BYTES:
            size = model.ByteSize() / 1e9
            raise InputError(f"An ONNX file holds at most 2 GB, and this would have {size:.1f}. Use torch.")
        session = open_session(model.SerializeToString(), device="cpu", threads=1)
        return model, partial(run_session, session, metadata)
    torch.export.save(program, io.BytesIO())  # not every operator on sizes can be written
    module, uint8 = program.module(), metadata["input"]["dtype"] == "uint8"

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            values = module(images if uint8 or images.is_floating_point() else images.float() / 255)
        return dict(zip(graph.outputs, values if isinstance(values, tuple) else (values,), strict=True))

    return program, run


def _write_onnx(model: Any, metadata: Mapping[str, Any], path: Path) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, to_json(metadata)
    path.write_bytes(model.SerializeToString())


def _write_program(program: Any, metadata: Mapping[str, Any], path: Path) -> None:
    content = io.BytesIO()  # torch's writer raises errors of its own on a disk that is full
    torch.export.save(program, content, extra_files={KEY: to_json(metadata)})
    path.write_bytes(content.getbuffer())


_WRITERS: dict[str, Callable[[Any, Mapping[str, Any], Path], None]] = {
    "onnx": _write_onnx,
    "torch": _write_program,
}


def _task_of(
    source: str | Path | TaskHooks, which: str
) -> tuple[TaskHooks, dict[str, Any], Path | None, str]:
    """Return the task, its facts, its run's folder, and which run was chosen where there were several."""
    if isinstance(source, TaskHooks):
        saved: dict[str, Any] = {}
        source.on_save_checkpoint(saved)
        return source, dict(saved["visionkit"]["facts"]), None, ""
    loaded = load_task(source, which=which)
    return loaded.task, loaded.facts, loaded.run_folder, loaded.note


@contextmanager
def _ready(task: TaskHooks) -> Iterator[None]:
    """Evaluate on the CPU inside the block; mode and device of before come back after it."""
    training, device = task.training, task.device
    task.to("cpu").eval()
    try:
        yield
    finally:
        task.to(device).train(training)


def _notes(task: TaskHooks, metadata: Mapping[str, Any], failures: list[Exception]) -> Iterator[str]:
    if failures:
        size = " x ".join(map(str, metadata["size"]))
        reason = _cause(failures[0])
        yield f"The file takes images of {size} (height x width) only; with any size it failed: {reason}"
    if isinstance(task, Captioner) and (task.decoding.beams > 1 or task.decoding.groups > 1):
        yield (
            f"The file takes the likeliest word each time; the task itself searches with "
            f"{task.decoding.beams} beams, so its captions may be others."
        )
    views = [name for name in ("tta_flip", "tta_sizes") if getattr(task, name, False)]
    if views:
        yield f"The file sees an image once, without the other views of the task ({', '.join(views)})."


def _refused(task: TaskHooks, error: Exception, format: str) -> Exception:
    if isinstance(error, RunError):
        return RunError(f"{error} Nothing was written.")
    name = getattr(task.backbone, "name", type(task.backbone).__name__)
    return InputError(
        f"{type(task).__name__} over {name!r} cannot be exported as {format}: {_cause(error).rstrip('. ')}. "
        "Use --format safetensors, or another backbone."
    )


def _cause(error: BaseException) -> str:
    """Return what an exporter failed at: the first line of the innermost error that it wraps."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    text = first_line(error)
    return text if isinstance(error, InputError | RunError) else f"{type(error).__name__}: {text}"
