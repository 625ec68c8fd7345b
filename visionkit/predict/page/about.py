"""What a page knows of its model: what its scripts need, and the rows that a visitor reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionkit.drawing.class_colors import class_colors
from visionkit.errors import InputError, printable
from visionkit.text.vocabulary import Vocabulary

__all__ = ["make_about"]

_TITLES = {
    "classification": "What does this image show?",
    "detection": "Which objects are in this image?",
    "segmentation": "Which class has each pixel?",
    "captioning": "What is this image about?",
}
_NAMED = 200  # classes that are listed
_COLORS = 1000  # colours that the page knows; further classes begin again
_UNNAMED = 256  # colours for classes without names, of which the page does not know how many there are


def make_about(metadata: Mapping[str, Any], *, size: int, title: str = "") -> dict[str, Any]:
    """Return what the page knows of a model, as values for JSON.

    Args:
        metadata: What the exported file says of itself.
        size: Bytes of the file.
        title: Heading of the page; a question by the kind of the model, if not given.

    Raises:
        InputError: The model is of a kind, or takes input, that the page does not know.
    """
    kind = str(metadata.get("kind"))
    if kind not in _TITLES:
        raise InputError(f"Expected a model of one of {', '.join(_TITLES)}, but it is of {kind!r}.")
    if metadata["input"]["channels"] != 3:
        raise InputError(
            f"Expected a model of images with 3 channels, but it takes {metadata['input']['channels']}: "
            "a browser gives red, green and blue."
        )
    if kind == "detection" and "skeleton" in metadata:
        raise InputError(
            "Expected a detector of boxes and masks, but this one finds keypoints, which the page does not "
            "draw. Use `visionkit predict`."
        )
    names = [printable(str(name)) for name in metadata.get("class_names") or ()]
    about = {
        "title": printable(title) or _TITLES[kind],
        "kind": kind,
        "class_names": names,
        "colors": class_colors(min(len(names) or _UNNAMED, _COLORS)),
        "preprocess": metadata["preprocess"],
        "input": metadata["input"],
        "target": metadata.get("target", "single"),
        "size": metadata.get("size"),
        "rows": _rows(metadata, names, size),
    }
    if kind == "captioning":
        vocabulary = Vocabulary.from_dict(metadata["vocabulary"])
        special = {"pad": vocabulary.pad, "bos": vocabulary.bos, "eos": vocabulary.eos}
        about["vocabulary"] = {"words": list(vocabulary.words), "special": special}
    return about


def _rows(metadata: Mapping[str, Any], names: Sequence[str], size: int) -> list[tuple[str, str]]:
    """Return what a visitor is told of the model, name and value."""
    rows = []
    if names:
        rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        rows.append(("Classes", f"{len(names)}: {', '.join(names[:_NAMED])}{rest}"))
    if metadata.get("vocabulary"):
        rows.append(("Vocabulary", f"{len(Vocabulary.from_dict(metadata['vocabulary']))} words"))
    rows.append(("Trained on", _data_text(metadata.get("data"))))
    rows += _weights_rows(metadata.get("weights") or {})
    rows.append(("The network sees", _resize_text(metadata["preprocess"])))
    made_by = f"visionkit {metadata.get('version', '?')}"
    rows.append(("Model", f"ONNX opset {metadata.get('opset', '?')}, {size / 1e6:.1f} MB, {made_by}"))
    return [(name, printable(value)) for name, value in rows]


def _data_text(data: Any) -> str:
    return str(data["name"]) if isinstance(data, Mapping) and data.get("name") else "not stated"


def _weights_rows(weights: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where the backbone's weights came from before the training, and under which licence."""
    if weights.get("source", "none") == "none":
        return [("Started from", "random weights")]
    named = " ".join(str(weights[key]) for key in ("source", "name", "tag") if weights.get(key))
    data = f", trained on {weights['training_data']}" if weights.get("training_data") else ""
    rows = [
        ("Started from", f"{named}{data}"),
        ("Their licence", str(weights.get("licence") or "not stated")),
    ]
    if weights.get("digest"):
        rows.append(("Their file", f"{weights.get('file', '')} SHA-256 {weights['digest']}".strip()))
    return rows


def _resize_text(preprocess: Mapping[str, Any]) -> str:
    """Return in words what of an image the network receives."""
    name, size = preprocess["name"], preprocess.get("size")
    if name == "DetectionEval":
        return _resize_text(preprocess["resize"])
    if name == "CenterCrop":
        fraction = preprocess["fraction"]
        part = "" if fraction == 1 else f" with {fraction:.4g} of the short side"
        return f"the centre square{part}, resized to {size} x {size} pixels"
    if name == "Resize" and isinstance(size, Sequence):
        return f"the whole image, resized to {size[1]} x {size[0]} pixels"
    if name == "Resize":
        limit = f", the long one at most {preprocess['max_size']}" if preprocess.get("max_size") else ""
        return f"the whole image, its short side resized to {size} pixels{limit}"
    return "the whole image at its own size"
