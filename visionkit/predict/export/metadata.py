"""What an exported file says of itself: written when a task is exported, read before a file is used."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionkit import __version__
from visionkit.errors import DataError, InputError, expected, install_extra, unknown_name
from visionkit.files import finite, local_path, to_plain
from visionkit.predict.kinds import KINDS, kind_of
from visionkit.predict.trained_files import SUFFIXES
from visionkit.tasks import Captioner, Classifier, Detector, KeypointRegressor, Segmenter
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.saved_settings import plain_settings, task_name

__all__ = ["KEY", "install", "read_metadata", "task_metadata", "to_json"]

FORMAT = 1
KEY = "visionkit"
_PARTS: dict[str, dict[str, type]] = {
    "segmentation": {"views": dict},
    "captioning": {"vocabulary": dict},
    "keypoints": {"skeleton": dict},
}
_MAX_TEXT = 2**26  # bytes: the longest part is a vocabulary


def task_metadata(
    task: TaskHooks, facts: Mapping[str, Any], *, preprocess: Mapping[str, Any], uint8: bool
) -> dict[str, Any]:
    """Return what an exported file of a task says of it.

    Args:
        task: The task.
        facts: Its model facts.
        preprocess: How images are resized for it (`visionkit.data.transforms.saved`).
        uint8: Whether images are uint8, and not float in [0, 1].
    """
    known = {name: facts.get(name) for name in ("weights", "data", "metrics", "eval_batch_size")}
    made = {
        "format": FORMAT,
        "kind": kind_of(type(task)).name,
        "task": task_name(type(task)),
        "backbone": str(getattr(task.backbone, "name", type(task.backbone).__name__)),
        "class_names": list(getattr(task, "class_names", None) or ()),
        "preprocess": dict(preprocess),
        "input": {"name": "images", "dtype": "uint8" if uint8 else "float32", "channels": task.channels},
        "version": __version__,
        **{name: value for name, value in known.items() if value is not None},
    }
    if isinstance(task, Classifier):
        made["target"] = task.target
    elif isinstance(task, Detector):
        made["detector"] = task.detector
        made["max_detections"] = task.config.detections_per_img
        if task.skeleton is not None:
            made |= {"skeleton": task.skeleton.as_dict(), "resize": task.resize}
    elif isinstance(task, Segmenter):
        made["views"] = {"scales": task.views.scales, "flip": task.views.flip, "windows": task.views.windows}
    elif isinstance(task, KeypointRegressor):
        made["skeleton"] = task.skeleton.as_dict()
    elif isinstance(task, Captioner):
        words = task.vocabulary
        special = {"pad": words.pad, "bos": words.bos, "eos": words.eos, "unk": words.unk}
        made["vocabulary"] = {**words.to_dict(), **special, "first_word": len(special)}
        made["max_length"] = task.decoding.max_length
    plain: dict[str, Any] = to_plain(plain_settings(made), finite)
    return plain


def to_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata as the text that a file holds."""
    return json.dumps(metadata, ensure_ascii=False, allow_nan=False)


def install(package: str) -> Any:
    """Return a package of the extra `export`, imported.

    Args:
        package: "onnx", "onnxruntime" or "onnxscript".

    Raises:
        InputError: It is not installed; the text says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"ONNX files need the package {package}, which is not installed ({error}). Install the extra: "
            f"{install_extra('export')}."
        ) from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what an exported file says of itself; its network is not built.

    Args:
        path: A file that `export` wrote: .onnx, .pt2 or .safetensors.

    Raises:
        InputError: Nothing is there, or its ending is another.
        DataError: It is damaged, or was not written by `export`.
    """
    file = local_path(path, "an exported file")
    readers = dict(zip(SUFFIXES.values(), (_of_onnx, _of_program, _of_safetensors), strict=True))
    if file.suffix not in readers:
        raise unknown_name("ending of an exported file", file.suffix, readers)
    if not file.is_file():
        raise InputError(f"Expected an exported file at {file}, but there is none.")
    text = readers[file.suffix](file)
    if text is None:
        raise DataError(
            "Expected a file that visionkit exported, but this one says nothing of a task, its classes "
            "or its image size. Export the run with `visionkit export`; others have their own tools.",
            path=file,
        )
    return _parsed(text, file)


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        made = json.loads(text) if len(text) <= _MAX_TEXT else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"its metadata are no JSON: {error}", path=file) from error
    if not isinstance(made, dict) or made.get("kind") not in KINDS:
        raise DataError(f"Expected metadata of one of {', '.join(KINDS)}, but got others.", path=file)
    if made.get("format") != FORMAT:
        written = made.get("version", "another version")
        raise DataError(
            f"Expected format {FORMAT}, but it has {made.get('format')!r}: visionkit {written} wrote it, and "
            f"this is {__version__}. Export it again, or update visionkit.",
            path=file,
        )
    parts: dict[str, type] = {"preprocess": dict, "input": dict, "class_names": list}
    if file.suffix != SUFFIXES["safetensors"]:
        parts |= {"outputs": list, **_PARTS.get(made["kind"], {})}
    for name, kind in parts.items():
        if not isinstance(made.get(name), kind):
            got = type(made.get(name)).__name__
            raise DataError(expected(name, f"a {kind.__name__}", got), path=file, field=name)
    if not isinstance(made["input"].get("channels"), int):
        text = expected("the number of channels", "an integer", made["input"].get("channels"))
        raise DataError(text, path=file, field="input")
    if made["input"].get("dtype") not in ("uint8", "float32"):
        text = expected("the type of images", "uint8 or float32", made["input"].get("dtype"))
        raise DataError(text, path=file, field="input")
    return made


def _of_onnx(file: Path) -> str | None:
    onnx = install("onnx")
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's own, and onnx's
        raise DataError(f"is no ONNX file, or is damaged: {error}", path=file) from error
    texts = [entry.value for entry in model.metadata_props if entry.key == KEY]
    outside = onnx.TensorProto.EXTERNAL
    if texts and any(tensor.data_location == outside for tensor in model.graph.initializer):
        raise DataError("its weights are in another file; exported files hold theirs.", path=file)
    return texts[0] if texts else None


def _of_safetensors(file: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            header: dict[str, str] = content.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"is no safetensors file, or is damaged: {error}", path=file) from error
    return header.get(KEY)


def _of_program(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names: Sequence[zipfile.ZipInfo] = [
                info for info in archive.infolist() if info.filename.endswith(f"extra/{KEY}")
            ]
            if not names or names[0].file_size > _MAX_TEXT:
                return None
            return archive.read(names[0]).decode()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"is no exported program, or is damaged: {error}", path=file) from error
