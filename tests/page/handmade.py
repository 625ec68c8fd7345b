"""Small exported files of each kind, made node by node, and a runtime of a few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("red", "green", "blue")
CROP = {"name": "CenterCrop", "size": 8, "fraction": 0.875}


def describe(kind: str, outputs: list[str], **more: Any) -> dict[str, Any]:
    """What an exported file says of itself."""
    return {
        "format": 1,
        "kind": kind,
        "class_names": list(CLASSES),
        "preprocess": CROP,
        "input": {"name": "images", "dtype": "float32", "channels": 3},
        "outputs": outputs,
        "opset": 18,
        "version": "0.1.0",
        "weights": {"source": "timm", "name": "net", "tag": "a1", "training_data": "X", "licence": "mit"},
        "data": {"name": "some <b>data</b>", "options": {}},
        **more,
    }


def save(
    path: Path, metadata: dict[str, Any] | None, nodes: list, outputs: list, constants: list = ()
) -> Path:
    graph = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    if metadata is not None:
        model.metadata_props.add(key="visionkit", value=json.dumps(metadata))
    onnx.save(model, path)
    return path


def classifier(path: Path, *, metadata: bool = True, **more: Any) -> Path:
    """The mean of red, green and blue, over their sum."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "sides"], ["means"], keepdims=0),
        helper.make_node("ReduceSum", ["means", "last"], ["sum"], keepdims=1),
        helper.make_node("Div", ["means", "sum"], ["probabilities"]),
    ]
    said = describe("classification", ["probabilities"], **{"target": "single", **more}) if metadata else None
    outputs = [("probabilities", TensorProto.FLOAT, ["B", 3])]
    return save(path, said, nodes, outputs, [("sides", [2, 3]), ("last", [1])])


def segmenter(path: Path) -> Path:
    """The class of a pixel is its strongest colour."""
    said = describe("segmentation", ["logits"], preprocess={"name": "Native"})
    nodes = [helper.make_node("Identity", ["images"], ["logits"])]
    return save(path, said, nodes, [("logits", TensorProto.FLOAT, ["B", 3, "H", "W"])])


def detector(path: Path) -> Path:
    """Two boxes that do not depend on the image, and one behind the count, in a frame of 100 x 200."""
    resize = {"name": "DetectionEval", "resize": {"name": "Resize", "size": [100, 200], "max_size": 0}}
    said = describe("detection", ["boxes", "scores", "labels", "count"], preprocess=resize, max_detections=3)
    boxes = np.array([[[10, 20, 110, 60], [100, 10, 190, 90], [0, 0, 1, 1]]], np.float32)
    values = [
        ("the_boxes", boxes),
        ("the_scores", np.array([[0.9, 0.4, 0]], np.float32)),
        ("the_labels", np.array([[2, 0, 0]])),
        ("the_count", np.array([2])),
    ]
    nodes = [helper.make_node("Identity", [f"the_{name}"], [name]) for name in said["outputs"]]
    shapes = {"boxes": [1, 3, 4], "scores": [1, 3], "labels": [1, 3], "count": [1]}
    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT}
    outputs = [(name, kinds.get(name, TensorProto.INT64), shape) for name, shape in shapes.items()]
    return save(path, said, nodes, outputs, values)


def captioner(path: Path, words: list[str]) -> Path:
    """A sentence of all words."""
    from visionkit.text.vocabulary import Vocabulary

    vocabulary = Vocabulary(words)
    tokens = [*map(vocabulary.id, words), vocabulary.eos, vocabulary.pad]
    said = describe("captioning", ["tokens", "log_prob"], vocabulary=vocabulary.to_dict(), class_names=[])
    nodes = [helper.make_node("Identity", [f"the_{name}"], [name]) for name in said["outputs"]]
    outputs = [("tokens", TensorProto.INT64, [1, len(tokens)]), ("log_prob", TensorProto.FLOAT, [1])]
    values = [("the_tokens", np.array([tokens])), ("the_log_prob", np.array([-1.5], np.float32))]
    return save(path, said, nodes, outputs, values)


def fake_package(folder: Path, *, version: str = "1.30.0", name: str = "onnxruntime-web") -> Path:
    """What npm unpacks, with files of a few bytes."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": version}))
    (folder / "dist" / "ort.wasm.bundle.min.mjs").write_text("export {};")
    (folder / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    return folder
