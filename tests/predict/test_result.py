"""Results as JSON values and in a line, for every kind."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from visionkit.predict import Result
from visionkit.predict.kinds import KINDS, kind_of
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.tasks.captioning.prediction import CaptionPrediction
from visionkit.tasks.classification.prediction import ClassPrediction, LabelsPrediction, ValuesPrediction
from visionkit.tasks.detection.image_batch import Detections
from visionkit.tasks.keypoints.prediction import KeypointPrediction
from visionkit.tasks.segmentation.prediction import SegmentationPrediction

NAMES = ("cat", "dog", "bird")


def make(kind, prediction, names=NAMES, size=(4, 6), name="a.png"):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    return Result(name, name, size, prediction, kind, names, image)


def test_the_table_has_every_task():
    tasks = (Classifier, Detector, Segmenter, Captioner, Embedder, KeypointRegressor)
    assert {kind_of(task).name for task in tasks} == set(KINDS)


def test_points():
    edges, names = ((0, 1), (1, 2)), ("a", "b", "c", "d")
    points = torch.tensor([[1.5, 2.0], [-3.0, 7.0], [0.0, math.nan], [4.0, 4.0]])
    plain = make("keypoints", KeypointPrediction(points, None, names, edges), names=names)
    assert plain.to_dict() == {
        "id": "a.png", "path": "a.png", "size": [4, 6], "kind": "keypoints",
        "points": [[1.5, 2.0], [-3.0, 7.0], [0.0, None], [4.0, 4.0]], "scores": None,
        "names": ["a", "b", "c", "d"], "edges": [[0, 1], [1, 2]],
    }  # fmt: skip
    assert plain.summary() == "4 points: a at 2, 2, b at -3, 7, c at 0, nan, ..."
    heat = make("keypoints", KeypointPrediction(points, torch.tensor([0.5, 0.25, 1.0, 0.0]), names, edges))
    assert heat.to_dict()["scores"] == [0.5, 0.25, 1.0, 0.0]


def test_classes():
    single = make("classification", ClassPrediction(torch.tensor([0.25, 0.125, 0.625]), 2, 0.625))
    assert single.to_dict() == {
        "id": "a.png",
        "path": "a.png",
        "size": [4, 6],
        "kind": "classification",
        "label": "bird",
        "index": 2,
        "confidence": 0.625,
        "top": [
            {"name": "bird", "index": 2, "probability": 0.625},
            {"name": "cat", "index": 0, "probability": 0.25},
            {"name": "dog", "index": 1, "probability": 0.125},
        ],
        "probabilities": [0.25, 0.125, 0.625],
    }
    assert single.summary() == "bird 62.5%"
    nameless = make("classification", single.prediction, names=())
    assert nameless.to_dict()["label"] == "class 2"
    multiple = make("classification", LabelsPrediction(torch.tensor([0.75, 0.125, 0.875]), (0, 2)))
    content = multiple.to_dict()
    assert (content["labels"], content["indices"]) == (["cat", "bird"], [0, 2])
    assert multiple.summary() == "bird 87.5%, cat 75.0%"
    assert make("classification", LabelsPrediction(torch.zeros(3), ())).summary() == "no label"
    numbers = make("classification", ValuesPrediction(torch.tensor([1.5, math.nan])))
    assert numbers.to_dict()["values"] == [1.5, None]
    assert numbers.summary() == "1.5, nan"


def test_objects():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    boxes = torch.tensor([[2.0, 1.0, 5.0, 3.0], [0.0, 0.0, 1.0, 1.0]])
    found = Detections(boxes, torch.tensor([0.75, 0.25]), torch.tensor([1, 0]), masks=masks)
    content = make("detection", found).to_dict()
    assert content["boxes"] == [[2, 1, 5, 3], [0, 0, 1, 1]]
    assert (content["scores"], content["labels"], content["names"]) == ([0.75, 0.25], [1, 0], ["dog", "cat"])
    again = coco_mask.decode(json.loads(json.dumps(content["masks"])))
    assert np.array_equal(again.transpose(2, 0, 1), masks.numpy())
    assert make("detection", found).summary() == "1 dog"
    found.keypoints, found.keypoint_scores = torch.ones(2, 3, 2), torch.zeros(2, 3)
    found.keypoint_names, found.edges = ("a", "b", "c"), ((0, 2),)
    content = make("detection", found).to_dict()
    assert content["keypoints"] == [[[1, 1]] * 3] * 2
    assert content["keypoint_scores"] == [[0, 0, 0]] * 2
    assert (content["keypoint_names"], content["edges"]) == (["a", "b", "c"], [[0, 2]])
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    content = make("detection", none).to_dict()
    assert content["boxes"] == content["names"] == []
    assert "masks" not in content
    assert make("detection", none).summary() == "nothing with a score of 0.5 or more"


def test_class_maps():
    mask = torch.zeros(4, 6, dtype=torch.int64)
    mask[:, :2] = 2
    result = make("segmentation", SegmentationPrediction(mask))
    first, second = result.to_dict()["classes"]
    assert (first["name"], first["index"], first["pixels"], first["fraction"]) == ("cat", 0, 16, 16 / 24)
    assert np.array_equal(coco_mask.decode(second["mask"]), (mask == 2).numpy())
    assert result.summary() == "cat 66.7%, bird 33.3%"


def test_sentences():
    words = CaptionPrediction("a dog", ("a", "dog"), -1.5, (("a dog", -1.5), ("a cat", -math.inf)))
    result = make("captioning", words, names=(), name="caf\udce9.png")
    content = result.to_dict()
    assert (content["caption"], content["log_prob"]) == ("a dog", -1.5)
    assert content["n_best"] == [["a dog", -1.5], ["a cat", None]]
    assert content["path"] == "caf\\xe9.png"
    assert result.summary() == "a dog"
    assert repr(result) == "Result('caf\\\\xe9.png', 6 x 4 pixels, captioning: a dog)"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_default_resize_is_a_transform(kind):
    from visionkit.data.transforms.saved import transform_from

    assert transform_from(kind.preprocess(64)) is not None
