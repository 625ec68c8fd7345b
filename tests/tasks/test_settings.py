"""What every task refuses by name before anything is built, and one sample as a batch."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from visionkit.errors import InputError
from visionkit.tasks import Classifier, Detector, RCNNConfig, Segmenter
from visionkit.tasks.batch_parts import read_parts


class Small(nn.Module):
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.filters(images).relu().mean((2, 3))


NAN = float("nan")
ODD_SETTINGS = [
    *({"class_weights": weights} for weights in ([NAN, 1, 1], [float("inf"), 1, 1], [0, 0, 0], 1.0)),
    *({"lr": rate} for rate in (-1, NAN, "1")),
    *({"dropout": share} for share in (NAN, 2.0)),
    *({"image_size": size} for size in (True, 3.5, "64")),
    *({"in_channels": True}, {"num_classes": 2.5}, {"num_classes": "3"}),
    *(
        {"mean": [NAN] * 3, "std": [1] * 3},
        {"std": [NAN] * 3, "mean": [0] * 3},
        {"mean": 0.5, "std": [1] * 3},
    ),
]


@pytest.mark.parametrize("odd", ODD_SETTINGS, ids=str)
def test_a_setting_that_is_no_number_is_refused_by_name(odd) -> None:
    for task in (Classifier, Segmenter, Detector):
        if next(iter(odd)) in inspect.signature(task).parameters:
            with pytest.raises(InputError, match=f"Expected {next(iter(odd))}"):
                task("timm/resnet10t", init="scratch", **{"num_classes": 3} | odd)


@pytest.mark.parametrize(
    ("task", "odd"),
    [
        (Classifier, {"label_smoothing": "0.1"}),
        (Segmenter, {"boundary_tolerance": NAN}),
        (Segmenter, {"ignore_index": 1}),
        (Detector, {"resize": (-5, 0)}),
        (Detector, {"resize": 5}),
        (Detector, {"tta_sizes": (0,)}),
        (Detector, {"tta_sizes": "64"}),
        (Detector, {"rcnn": RCNNConfig(nms_threshold=1.5)}),
        (Detector, {"rcnn": {"anchor_scales": [8.0, 0.0]}}),
    ],
)
def test_a_setting_of_one_task_is_refused_by_name(task, odd) -> None:
    with pytest.raises(InputError, match=f"Expected {next(iter(odd))}"):
        task("timm/resnet10t", init="scratch", num_classes=3, **odd)


def test_an_array_of_class_weights_is_taken() -> None:
    task = Classifier(Small(), init="scratch", num_classes=3, class_weights=np.array([1.0, 2, 3]))
    assert task.hparams["class_weights"] == [1, 2, 3]


def test_a_sample_of_a_reader_is_a_batch_of_one() -> None:
    task = Classifier(Small(), init="scratch", num_classes=3)
    image = torch.rand(3, 32, 32)
    alone = task.predict_step({"image": image, "id": "x", "label": torch.tensor(1), "size": (32, 32)})
    assert [found.id for found in alone] == ["x"]
    with pytest.raises(InputError, match="one id for each of 1 images, but got 3"):
        task.predict_step({"image": image, "ids": ["x", "y", "z"]})
    with pytest.raises(InputError, match="one for each of 1 images"):
        task.training_step({"images": image, "labels": torch.tensor([0, 1, 2])}, 0)
    with pytest.raises(InputError, match="at least 1 pixel"):
        task.predict_step(torch.zeros(1, 3, 0, 32))
    boxes = {"boxes": torch.ones(1, 4), "labels": torch.ones(1).long(), "size": (64, 64)}
    parts = read_parts({"image": image, "id": "x", **boxes}, "targets", needed=False)
    assert parts.images.shape == (1, 3, 32, 32)
    assert parts.target[0]["size"] == (64, 64)
