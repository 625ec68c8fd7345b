"""The truth of an image is carried untouched beside the resized image, and scores are taken against it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from tests.nn.detectors import TinySource
from visionkit.config import TransferConfig
from visionkit.data.collate import list_batch
from visionkit.data.pack.record import decode_sample, encode_sample, npy_bytes, read_json
from visionkit.data.transforms.classification import CenterCrop, RandomHorizontalFlip
from visionkit.data.transforms.detection import CopyPaste, LargeScaleJitter, detection_eval
from visionkit.data.truth import encode_masks, make_truth, plain_truth, sample_truth, truth_from_plain
from visionkit.metrics.detection import CocoAP
from visionkit.rng import keyed_generator
from visionkit.task_config import RCNNConfig
from visionkit.tasks.detection.batch import in_original, original_size, read_batch
from visionkit.tasks.detection.task import Detector

RADII = (3, 4, 8, 16, 40)


def _sample():
    """Discs of small radii in an image of 480 x 640."""
    y, x = torch.meshgrid(torch.arange(480), torch.arange(640), indexing="ij")
    masks, boxes = [], []
    for place, radius in enumerate(RADII):
        middle = 60 + 100 * place
        masks.append((x - middle) ** 2 + (y - 100 - 31 * place) ** 2 <= radius**2)
        rows, columns = torch.where(masks[-1])
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return {
        "image": torch.zeros(3, 480, 640, dtype=torch.uint8),
        "id": "discs",
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.arange(len(RADII)) % 2,
        "masks": torch.stack(masks).to(torch.uint8),
        "size": (480, 640),
    }


@pytest.mark.parametrize("size", [32, 160, 320, 480, 800])
def test_the_truth_against_itself_is_one_at_every_size(size):
    sample = _sample()
    batch = list_batch([detection_eval(size)(_sample(), keyed_generator(0))])
    images, targets, ids = read_batch(batch, num_classes=2, masks=True)
    assert min(images[0].shape[1:]) == size
    truths = [in_original(t, i, original_size(t, i)) for t, i in zip(targets, images, strict=True)]
    found = {"boxes": sample["boxes"], "labels": sample["labels"], "masks": sample["masks"]}
    metric = CocoAP(("a", "b"), masks=True)
    metric.update([found | {"scores": torch.ones(len(RADII))}], truths, ids)
    values = metric.result().values
    checked = [name for name in values if name in ("map", "mask_map", "map_small", "mask_map_small", "ar100")]
    assert len(checked) == 5
    assert [values[name] for name in checked] == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("size", [32, 160, 320, 480, 800])
def test_a_detector_that_finds_the_truth_scores_one_at_every_size(size, monkeypatch):
    """Through the evaluation of the task: boxes from the network's frame, masks against untouched ones."""
    sample = _sample()
    task = Detector(
        TinySource(), init="scratch", num_classes=2, rcnn=RCNNConfig(masks=True, head_width=8),
        pyramid_channels=8, transfer=TransferConfig(norm="group"), resize=(size // 2, size),
    )  # fmt: skip
    detect = task._detect

    def find_boxes(images, sizes):
        scale = torch.tensor([sizes[0][1] / 640, sizes[0][0] / 480] * 2)
        scores = torch.ones(len(RADII))
        return [{"boxes": sample["boxes"] * scale, "labels": sample["labels"], "scores": scores}], {}

    def add_masks(images, originals):
        return [found | {"masks": sample["masks"].bool()} for found in detect(images, originals)]

    monkeypatch.setattr(task.model, "forward", find_boxes)
    monkeypatch.setattr(task, "_detect", add_masks)
    task.on_validation_epoch_start()
    task.validation_step(list_batch([detection_eval(size)(_sample(), keyed_generator(0))]), 0)
    values = task._compute_scores()
    checked = [name for name in values if name in ("map", "mask_map", "map_small", "mask_map_small", "ar100")]
    assert len(checked) == 5
    assert [values[name] for name in checked] == pytest.approx([1.0] * 5)


def test_the_truth_goes_where_it_no_longer_fits():
    sample = _sample() | {"truth": sample_truth(_sample())}
    assert "truth" in detection_eval(64)(sample, keyed_generator(0))
    paste = CopyPaste([sample], LargeScaleJitter(64), probability=1.0)
    left = [
        step(sample, keyed_generator(seed))
        for step in (CenterCrop(64, 0.5), LargeScaleJitter(64), paste)
        for seed in range(3)
    ]
    assert len(left) == 9
    assert not any("truth" in out for out in left)
    mirrored = [RandomHorizontalFlip()(sample, keyed_generator(seed)) for seed in range(8)]
    assert {"truth" in out for out in mirrored} == {True, False}
    for out in mirrored:
        assert ("truth" in out) == torch.equal(out["boxes"], sample["boxes"])


def test_a_truth_travels_and_is_packed_to_the_last_bit():
    masks = encode_masks(_sample()["masks"])
    truth = make_truth(
        [[0.1, 0.2, 1 / 3, 70.7]] * len(masks), range(len(masks)), area=[np.nan, 2.5, 3, 4, 5], masks=masks,
        image_id=17,
    )  # fmt: skip
    sample = _sample() | {"truth": truth}
    parts = encode_sample(sample, ("npy", npy_bytes(np.zeros((480, 640, 3), np.uint8))), compress=True)
    stored = {name: np.frombuffer(data, np.uint8) for name, data in parts.items()}
    packed = decode_sample(stored, read_json(stored), "discs")["truth"]
    for other in (packed, pickle.loads(pickle.dumps(truth)), truth_from_plain(plain_truth(truth))):
        assert set(other) == {"boxes", "labels", "iscrowd", "area", "masks", "image_id"}
        for name in ("boxes", "labels", "iscrowd", "area"):
            np.testing.assert_array_equal(other[name], truth[name])
        assert [(list(m["size"]), m["counts"]) for m in other["masks"]] == [
            (list(m["size"]), m["counts"]) for m in masks
        ]
        assert other["image_id"] == 17


def test_a_truth_shares_no_memory_with_the_tensors_of_its_sample():
    """A loader's process frees the memory of a tensor that it sends: arrays on it would hold garbage."""
    sample = {
        "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64),
        "labels": torch.tensor([5]),
        "iscrowd": torch.tensor([1]),
        "area": torch.tensor([6.0], dtype=torch.float64),
    }
    truth = sample_truth(sample)
    for name, tensor in sample.items():
        assert not np.shares_memory(truth[name], tensor.numpy()), name
        tensor.zero_()
    assert (truth["labels"], truth["iscrowd"], truth["area"]) == (5, 1, 6)
    assert truth["boxes"].tolist() == [[1, 2, 3, 4]]
