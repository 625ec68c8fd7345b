"""Small exported files of each kind, made node by node, and a runtime of a few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("red", "green", "blue")
VIEWS = {"scales": [1.0], "flip": False, "windows": None}
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


def segmenter(path: Path, **more: Any) -> Path:
    """The class of a pixel is its strongest colour."""
    said = describe("segmentation", ["logits"], **{"preprocess": {"name": "Native"}, "views": VIEWS, **more})
    nodes = [helper.make_node("Identity", ["images"], ["logits"])]
    return save(path, said, nodes, [("logits", TensorProto.FLOAT, ["B", 3, "H", "W"])])


def binary_segmenter(path: Path, names: list[str]) -> Path:
    """One logit: whether a pixel is brighter than grey."""
    said = describe("segmentation", ["logits"], preprocess={"name": "Native"}, views=VIEWS, class_names=names)
    nodes = [
        helper.make_node("ReduceMean", ["images", "channels"], ["grey"], keepdims=1),
        helper.make_node("Sub", ["grey", "half"], ["logits"]),
    ]
    constants = [("channels", [1]), ("half", np.float32(0.5))]
    return save(path, said, nodes, [("logits", TensorProto.FLOAT, ["B", 1, "H", "W"])], constants)


def detector(
    path: Path, *, masks: bool = False, skeleton: dict[str, Any] | None = None, resize_to: Any = None
) -> Path:
    """Two boxes that do not depend on the image, and one behind the count, in a frame of 100 x 200.

    With a skeleton each box has the heat map of point k in its k-th quarter from the left.
    """
    resize = {"name": "DetectionEval", "resize": {"name": "Resize", "size": [100, 200], "max_size": 0}}
    outputs = ["boxes", "scores", "labels", "count", *(["masks"] if masks else [])]
    outputs += [] if skeleton is None else ["heatmaps"]
    more = {} if skeleton is None else {"skeleton": skeleton, "resize": resize_to}
    said = describe("detection", outputs, preprocess=resize, max_detections=3, **more)
    boxes = np.array([[[10, 20, 110, 60], [100, 10, 190, 90], [0, 0, 1, 1]]], np.float32)
    values = [
        ("the_boxes", boxes),
        ("the_scores", np.array([[0.9, 0.4, 0]], np.float32)),
        ("the_labels", np.array([[2, 0, 0]])),
        ("the_count", np.array([2])),
    ]
    if masks:  # a disc and a slope within their boxes, and nothing
        y, x = np.mgrid[0:28, 0:28]
        shapes = [np.exp(-((x - 13.5) ** 2 + (y - 13.5) ** 2) / 120), np.minimum(x / 20, 1), 0 * x]
        values.append(("the_masks", np.array([shapes], np.float32)))
    if skeleton is not None:
        maps = np.zeros((1, 3, len(skeleton["names"]), 56, 56), np.float32)
        for index in range(maps.shape[2]):
            maps[:, :, index, 28, 7 + 14 * index] = 9
        values.append(("the_heatmaps", maps))
    nodes = [helper.make_node("Identity", [f"the_{name}"], [name]) for name in said["outputs"]]
    kinds = dict.fromkeys(("boxes", "scores", "masks", "heatmaps"), TensorProto.FLOAT)
    given = [
        (name, kinds.get(name, TensorProto.INT64), value.shape)
        for name, (_, value) in zip(outputs, values, strict=True)
    ]
    return save(path, said, nodes, given, values)


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
