"""Detection geometry moves boxes and masks with the image, and draws from its generator only."""

from __future__ import annotations

import pytest
import torch

from visionkit.data.samplers import TrainBatchSampler
from visionkit.data.transforms.detection import (
    CopyPaste,
    LargeScaleJitter,
    aspect_groups,
    detection_eval,
    detection_train,
)
from visionkit.errors import InputError
from visionkit.rng import keyed_generator


def _sample(height=60, width=100, box=(20, 10, 60, 50), value=255):
    x1, y1, x2, y2 = box
    masks = torch.zeros(1, height, width, dtype=torch.uint8)
    masks[0, y1:y2, x1:x2] = 1
    return {
        "image": masks.repeat(3, 1, 1) * value,
        "id": "one",
        "boxes": torch.tensor([box], dtype=torch.float32),
        "labels": torch.tensor([1]),
        "iscrowd": torch.tensor([0]),
        "masks": masks,
        "size": (height, width),
    }


def _tight(mask):
    rows, columns = torch.where(mask > 0)
    return torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()


@pytest.mark.parametrize(
    "transform", [detection_train(48, jitter=(0.5, 1.0)), LargeScaleJitter(64, (0.5, 2.0))]
)
def test_boxes_and_masks_move_with_the_image_as_a_function_of_the_key(transform):
    shapes = set()
    for index in range(12):
        out = transform(_sample(), keyed_generator(0, 0, index))
        again = transform(_sample(), keyed_generator(0, 0, index))
        assert torch.equal(out["image"], again["image"])
        assert torch.equal(out["boxes"], again["boxes"])
        shapes.add(tuple(out["image"].shape))
        assert out["masks"].shape[1:] == out["image"].shape[1:]
        assert out["size"] == (60, 100)
        for box, mask in zip(out["boxes"], out["masks"]):
            assert (box - _tight(mask)).abs().max() <= 1.5
            assert (box - _tight((out["image"][0] > 160).byte())).abs().max() <= 2
    assert shapes == {(3, 64, 64)} if isinstance(transform, LargeScaleJitter) else len(shapes) == 2


def test_evaluation_keeps_the_shape_and_limits_the_long_side():
    out = detection_eval(30)(_sample(), keyed_generator(0))
    assert out["image"].shape == (3, 30, 50)
    assert out["boxes"].tolist() == [[10, 5, 30, 25]]
    assert detection_eval(30, max_size=40)(_sample(), keyed_generator(0))["image"].shape == (3, 24, 40)


def test_copy_paste_covers_what_lies_below_and_drops_what_is_hidden():
    hidden, partly = _sample(box=(22, 12, 30, 20), value=100), _sample(box=(10, 10, 40, 50), value=100)
    above = _sample(value=255)
    results = {}
    for name, below in (("hidden", hidden), ("partly", partly)):
        paste = CopyPaste([above], lambda sample, rng: sample, probability=1.0)
        outs = [paste(below, keyed_generator(0, 0, index)) for index in range(8)]
        pasted = [out for out in outs if bool((out["image"] == 255).any())]
        assert 0 < len(pasted) < 8
        results[name] = pasted[0]
    assert results["hidden"]["boxes"].tolist() == [[20, 10, 60, 50]]
    assert results["partly"]["boxes"].tolist() == [[10, 10, 20, 50], [20, 10, 60, 50]]
    assert results["partly"]["masks"].sum(dim=(1, 2)).tolist() == [400, 1600]
    assert results["partly"]["labels"].tolist() == [1, 1]
    bare = _sample()
    del bare["masks"]
    with pytest.raises(InputError, match="Read them with masks=True"):
        CopyPaste([bare], detection_eval(30))(bare, keyed_generator(0))
    other = CopyPaste([_sample(50, 80)], lambda sample, rng: sample, probability=1.0)
    with pytest.raises(InputError, match="images of one size"):
        other(partly, keyed_generator(0))


def test_aspect_groups_are_pure_and_keep_every_sample_and_the_keyed_order():
    sizes = [(40, 60) if index % 3 else (60, 40) for index in range(50)]
    group = aspect_groups(sizes)
    order = TrainBatchSampler(50, batch_size=4, seed=3, grouping=group)
    batches = order.global_batches(1)
    assert batches == order.global_batches(1)
    assert batches != order.global_batches(2)
    full = group(order.epoch_order(1), 4)
    assert sorted(index for batch in full for index in batch) == list(range(50))
    place = {index: at for at, index in enumerate(order.epoch_order(1))}
    kinds = [{index % 3 == 0 for index in batch} for batch in full]
    assert sum(len(kind) == 1 for kind in kinds) >= len(full) - 2
    for batch, kind in zip(full, kinds):
        if len(kind) == 1:
            assert [place[i] for i in batch] == sorted(place[i] for i in batch)


def test_refusals():
    with pytest.raises(InputError, match="size and jitter to be positive"):
        detection_train(0)
