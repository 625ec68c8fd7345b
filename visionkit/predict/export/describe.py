"""An exported file in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionkit.predict.export.metadata import read_metadata

__all__ = ["describe_file"]

# The shapes of outputs: B images, K classes or values, N detections, T words.
_SHAPES = {
    "probabilities": "(B, K)",
    "values": "(B, K)",
    "logits": "(B, K, H, W)",
    "boxes": "(B, N, 4) xyxy",
    "scores": "(B, N)",
    "labels": "(B, N)",
    "count": "(B)",
    "masks": "(B, N, 28, 28)",
    "heatmaps": "(B, N, K, 56, 56)",
    "tokens": "(B, T)",
    "log_prob": "(B)",
    "attention": "(B, T, h, w)",
}


def describe_file(path: str | Path) -> dict[str, Any]:
    """Return what an exported file is, by name: task, inputs, outputs, classes, check, weights and licence.

    Args:
        path: A file that `export` wrote: .onnx, .pt2 or .safetensors.

    Raises:
        InputError: Nothing is there, or its ending is another.
        DataError: It is damaged, or was not written by `export`.
    """
    metadata = read_metadata(path)
    weights = metadata.get("weights") or {}
    table: dict[str, Any] = {
        "file": f"{path}, {Path(path).stat().st_size / 1e6:,.1f} MB",
        "kind": " ".join(filter(None, (metadata["kind"], metadata.get("target", metadata.get("detector"))))),
        "backbone": metadata.get("backbone", ""),
    }
    if "outputs" in metadata:
        table |= {"input": _input(metadata), "outputs": [_output(n, metadata) for n in metadata["outputs"]]}
    table["preprocess"] = metadata.get("preprocess", {})
    if "opset" in metadata:
        table["opset"] = f"{metadata['opset']} (ONNX, default domain)"
    table["classes"] = metadata.get("class_names", [])
    if "vocabulary" in metadata:
        table["vocabulary"] = f"{len(metadata['vocabulary'].get('words', ())):,} words"
    data = metadata.get("data") or {}  # its options are in the file; here they would hide the rest
    table |= {"weights": weights, "data": data.get("name", "") if isinstance(data, dict) else str(data)}
    if check := metadata.get("check"):
        table["checked on"] = check.get("images", "")
        table["largest difference"] = check.get("largest_difference", {})
    return table | {"visionkit": metadata.get("version", "")}


def _input(metadata: dict[str, Any]) -> str:
    given = metadata["input"]
    size = metadata.get("size")
    shape = f"(B, {given.get('channels')}, {f'{size[0]}, {size[1]}' if size else 'H, W'})"
    values = "0 .. 255" if given.get("dtype") == "uint8" else "in [0, 1]"
    return f"{given.get('name')} {shape} {given.get('dtype')} RGB {values}"


def _output(name: str, metadata: dict[str, Any]) -> str:
    shape = _SHAPES.get(name, "")
    if "max_detections" in metadata:
        shape = shape.replace("N", str(metadata["max_detections"]))
    if "max_length" in metadata:
        shape = shape.replace("T", str(metadata["max_length"]))
    return f"{name} {shape}"
