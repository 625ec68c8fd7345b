"""An exported ONNX file as a model: onnxruntime computes, and the predictions are those of the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.data.transforms.keypoints import fit_region
from visionkit.errors import DataError, InputError, expected, first_line
from visionkit.nn.captioning.decoding import Decoded
from visionkit.nn.segmentation.sliding_window import Windows
from visionkit.predict.export.metadata import install, read_metadata
from visionkit.tasks.captioning.prediction import CaptionPrediction, caption_predictions
from visionkit.tasks.classification.prediction import (
    ClassPrediction,
    LabelsPrediction,
    Prediction,
    ValuesPrediction,
)
from visionkit.tasks.detection.image_batch import Detections, ImageBatch, resize_image
from visionkit.tasks.embedding.prediction import EmbeddingPrediction
from visionkit.tasks.keypoints.batch import to_original
from visionkit.tasks.keypoints.prediction import KeypointPrediction, keypoint_predictions
from visionkit.tasks.segmentation.prediction import SegmentationPrediction
from visionkit.tasks.segmentation.views import Views
from visionkit.text.vocabulary import Vocabulary

__all__ = ["OnnxModel", "open_session"]

Outputs = Mapping[str, Tensor]


class OnnxModel:
    """A model for `Predictor`.

    Args:
        path: A file that `export` wrote.
        device: "auto", "cpu" or "gpu"; auto takes a GPU if onnxruntime was built for one.

    Attributes:
        metadata: What the file says of itself.

    Raises:
        InputError: onnxruntime is not installed, or has no GPU.
        DataError: The file is damaged, or was not written by `export`.
    """

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        self.metadata = read_metadata(path)
        self.session = open_session(path, device=device)
        self.outputs = [output.name for output in self.session.get_outputs()]
        if self.outputs != self.metadata.get("outputs"):
            raise DataError(expected("its outputs", self.metadata.get("outputs"), self.outputs), path=path)
        given = [(each.name, len(each.shape or ())) for each in self.session.get_inputs()]
        if [axes for _, axes in given] != [4]:
            raise DataError(expected("its input", "images (B, C, H, W)", given), path=path)
        missing = {*_NEEDED[self.metadata["kind"]](self.metadata)} - {*self.outputs}
        if missing:
            raise DataError(expected("its outputs", f"with {sorted(missing)}", self.outputs), path=path)
        _check_names(self.session, self.metadata, path)
        self.views = _views(self.metadata, path)
        self.skeleton = _skeleton(self.metadata, path)
        self.resize = _resize(self.metadata, path)
        self._make = _MAKERS[self.metadata["kind"]]

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the graph by name.

        Args:
            images: `(B, C, H, W)` uint8 or float in [0, 1].

        Raises:
            InputError: The file takes another size or number of channels.
        """
        return run_session(self.session, self.metadata, images)

    def predict(self, images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str]) -> list[Any]:
        """Return one typed prediction an image, as the task's `predict_step` does.

        Args:
            images: `(3, H, W)` uint8, resized for the network, all of one size.
            sizes: `(H, W)` of the originals.
            ids: One name an image.
        """
        return self._make(self, torch.stack(images), sizes, ids)


def _check_names(session: Any, metadata: Mapping[str, Any], path: str | Path) -> None:
    """Refuse names of classes that are not as many as the graph gives values, where its shape says it."""
    names, given = metadata["class_names"], session.get_outputs()[0].shape
    kind, count = metadata["kind"], given[1] if len(given) > 1 else None
    if kind == "segmentation" and count == 1:  # one logit: the background and the class
        count = 2
    if (
        names
        and kind in ("classification", "segmentation")
        and isinstance(count, int)
        and len(names) != count
    ):
        raise DataError(expected("class_names", f"{count} names, one a class", names), path=path)


def _views(metadata: Mapping[str, Any], path: str | Path) -> Views:
    """Return the views that a segmenter joins; of other kinds the plain one."""
    settings = dict(metadata.get("views") or {})
    windows = settings.pop("windows", None)
    try:
        return Views(**settings, windows=None if windows is None else Windows(**windows))
    except (TypeError, InputError) as error:
        raise DataError(f"its views are not scales, flip and windows: {error}", path=path) from error


def _skeleton(metadata: Mapping[str, Any], path: str | Path) -> Skeleton | None:
    """Return the points of an object, where the model finds them."""
    if "skeleton" not in metadata:
        return None
    try:
        return Skeleton.from_dict(metadata["skeleton"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise DataError(f"its skeleton is not names and edges: {error}", path=path) from error


def _resize(metadata: Mapping[str, Any], path: str | Path) -> tuple[int, int] | None:
    """Return the short side and the longest to which a detector with keypoints resizes images, if it does."""
    given = metadata.get("resize")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2 or not all(type(n) is int and n > 0 for n in given):
        text = expected("its resize", "a short and a longest side, or null", given)
        raise DataError(text, path=path, field="resize")
    return given[0], given[1]


def open_session(model: str | Path | bytes, *, device: str = "auto", threads: int | None = None) -> Any:
    """Return an `onnxruntime.InferenceSession` of a file, or of its bytes.

    Args:
        model: The file; its metadata are checked by `read_metadata`.
        device: "auto", "cpu" or "gpu".
        threads: On a CPU; as many as torch has if not given.

    Raises:
        InputError: onnxruntime is not installed, or has no GPU.
        DataError: onnxruntime cannot read it.
    """
    runtime = install("onnxruntime")
    has_gpu = "CUDAExecutionProvider" in runtime.get_available_providers()
    if device == "mps" or (device == "gpu" and not has_gpu):
        fix = "Install onnxruntime-gpu, or use device='cpu'."
        raise InputError(expected("device", "'cpu': this onnxruntime has no GPU", device, fix=fix))
    providers = ["CUDAExecutionProvider"] if has_gpu and device != "cpu" else []
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or torch.get_num_threads()
    given = model if isinstance(model, bytes) else str(model)
    try:
        return runtime.InferenceSession(given, options, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # each of onnxruntime's is a class of its own
        where = None if isinstance(model, bytes) else model
        raise DataError(f"onnxruntime cannot read it: {first_line(error)}", path=where) from error


def run_session(session: Any, metadata: Mapping[str, Any], images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of a session by name.

    Args:
        session: See `open_session`.
        metadata: What its file says of itself.
        images: `(B, C, H, W)` uint8 or float in [0, 1].

    Raises:
        InputError: The file takes another size or number of channels.
    """
    wants_bytes = metadata["input"]["dtype"] == "uint8"
    if images.dtype == torch.uint8 and not wants_bytes:
        images = images.float() / 255
    elif images.dtype != torch.uint8 and wants_bytes:
        images = (images * 255).round().to(torch.uint8)
    given = session.get_inputs()[0]
    for axis, side in enumerate(given.shape):
        if isinstance(side, int) and side != images.shape[axis]:
            shape = tuple(given.shape)
            raise InputError(expected("images for this file", shape, tuple(images.shape), fix="Resize them."))
    values = session.run(None, {given.name: images.numpy()})
    names = [output.name for output in session.get_outputs()]
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def _classes(
    model: OnnxModel, images: Tensor, sizes: list[tuple[int, int]], ids: Sequence[str]
) -> list[Prediction]:
    outputs, target = model.run(images), model.metadata.get("target")
    if target == "regression":
        return [ValuesPrediction(row, name) for row, name in zip(outputs["values"], ids, strict=True)]
    names, made = model.metadata["class_names"], list[Prediction]()
    for row, name in zip(outputs["probabilities"], ids, strict=True):
        if target == "multi":
            held = tuple((row > 0.5).nonzero().flatten().tolist())
            made.append(LabelsPrediction(row, held, tuple(names[i] for i in held) if names else (), name))
            continue
        index = int(row.argmax())
        made.append(ClassPrediction(row, index, float(row[index]), names[index] if names else None, name))
    return made


def _detections(
    model: OnnxModel, images: Tensor, sizes: list[tuple[int, int]], ids: Sequence[str]
) -> list[Detections]:
    outputs, scale = model.run(images), _scale(images, model.resize)
    of_images = []
    for row, count in enumerate(outputs["count"].tolist()):
        one = {name: outputs[name][row, :count] for name in ("boxes", "scores", "labels")}
        if "masks" in outputs:
            one["masks"] = outputs["masks"][row, :count, None]
        if model.skeleton is not None:
            one |= _peaks(outputs["heatmaps"][row, :count], one["boxes"], scale)
        of_images.append(one)
    given = [(int(images.shape[-2]), int(images.shape[-1]))] * len(images)
    restored = ImageBatch(images, given, given).restore(of_images, originals=sizes)
    names = model.metadata["class_names"] or None
    if names and any((one["labels"] >= len(names)).any() for one in of_images):
        raise InputError(
            f"The file gives labels beyond its {len(names)} class names ({', '.join(names[:20])}). Export "
            "the run again."
        )
    return [
        Detections.on_host(one, class_names=names, name=name, skeleton=model.skeleton)
        for one, name in zip(restored, ids, strict=True)
    ]


def _scale(images: Tensor, resize: tuple[int, int] | None) -> Tensor:
    """Return the factors of width and height by which the network resizes images, `(2,)`."""
    seen = resize_image(torch.empty(images.shape[1:], device="meta"), resize)  # its size alone
    return torch.tensor([seen.shape[-1] / images.shape[-1], seen.shape[-2] / images.shape[-2]])


def _peaks(heatmaps: Tensor, boxes: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """Return keypoints in the frame of the images, found at the size that the network sees."""
    points, scores = heatmaps_to_keypoints(heatmaps, boxes * scale.repeat(2))
    return {"keypoints": points[..., :2] / scale, "keypoint_scores": scores}


def _masks(
    model: OnnxModel, images: Tensor, sizes: list[tuple[int, int]], ids: Sequence[str]
) -> list[SegmentationPrediction]:
    masks = model.views.labels(lambda view: model.run(view)["logits"], images)
    names = tuple(model.metadata["class_names"])
    return [SegmentationPrediction(mask, names, name) for mask, name in zip(masks, ids, strict=True)]


def _captions(
    model: OnnxModel, images: Tensor, sizes: list[tuple[int, int]], ids: Sequence[str]
) -> list[CaptionPrediction]:
    outputs = model.run(images)
    vocabulary = Vocabulary.from_dict(model.metadata["vocabulary"])
    attention = outputs.get("attention")  # (B, T, h, w)
    decoded = Decoded(
        outputs["tokens"][:, None],
        outputs["log_prob"][:, None],
        None if attention is None else attention.flatten(2)[:, None],
    )
    grid = (1, 1) if attention is None else (int(attention.shape[2]), int(attention.shape[3]))
    return caption_predictions(decoded, vocabulary, grid=grid, ids=ids)


def _vectors(
    model: OnnxModel, images: Tensor, sizes: list[tuple[int, int]], ids: Sequence[str]
) -> list[EmbeddingPrediction]:
    rows = model.run(images)["vectors"]
    return [EmbeddingPrediction(row, name) for row, name in zip(rows, ids, strict=True)]


def _points(
    model: OnnxModel, images: Tensor, sizes: list[tuple[int, int]], ids: Sequence[str]
) -> list[KeypointPrediction]:
    outputs, size = model.run(images), (int(images.shape[-2]), int(images.shape[-1]))
    regions = torch.stack([fit_region(torch.tensor([0, 0, width, height]), size) for height, width in sizes])
    points = to_original(outputs["points"], regions.float(), size)
    skeleton = cast(Skeleton, model.skeleton)  # read_metadata refuses a file without one
    return keypoint_predictions(points, outputs.get("scores"), skeleton, ids)


_MAKERS: dict[str, Callable[[OnnxModel, Tensor, list[tuple[int, int]], Sequence[str]], list[Any]]] = {
    "classification": _classes,
    "detection": _detections,
    "segmentation": _masks,
    "captioning": _captions,
    "embedding": _vectors,
    "keypoints": _points,
}
_NEEDED: dict[str, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {
    "classification": lambda made: ("values" if made.get("target") == "regression" else "probabilities",),
    "detection": lambda made: (
        *("boxes", "scores", "labels", "count"),
        *(("heatmaps",) if "skeleton" in made else ()),
    ),
    "segmentation": lambda made: ("logits",),
    "captioning": lambda made: ("tokens", "log_prob"),
    "embedding": lambda made: ("vectors",),
    "keypoints": lambda made: ("points",),
}
