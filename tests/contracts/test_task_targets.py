"""What tasks take as targets, and what they say where there are none to learn from or to score."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision import tv_tensors

sys.path.insert(0, str(Path(__file__).parent))

from task_inputs import FLAT, KINDS, Mean, built, loader, trainer

from visionkit.config import TransferConfig
from visionkit.data import caption_batch, list_batch, mask_batch
from visionkit.data.boxes import plain_boxes
from visionkit.errors import InputError
from visionkit.metrics import MultiLabelScores
from visionkit.metrics.detection import CocoAP
from visionkit.nn import mixed_loss
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.tasks import Classifier


@pytest.mark.parametrize("lam", [None, 0.4])
@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_a_batch_whose_classes_weigh_nothing_teaches_nothing(kind, lam) -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.zeros(4, dtype=torch.int64)
    mixed = {} if lam is None else {"labels_b": labels, "lam": lam}
    loss = mixed_loss(logits, labels, kind=kind, weights=torch.tensor([0.0, 1.0, 1.0]), **mixed)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_boxes_of_torchvision_are_converted_by_their_format() -> None:
    case = next(case for case in KINDS if case.name == "detector")
    task, batch = built(case).train(), case.batch(0, 1)
    plain = batch["targets"][0]["boxes"]
    x1, y1, x2, y2 = plain.unbind(1)
    forms = {
        "XYXY": plain,
        "XYWH": torch.stack((x1, y1, x2 - x1, y2 - y1), 1),
        "CXCYWH": torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1),
    }
    for name, boxes in forms.items():
        wrapped = tv_tensors.BoundingBoxes(boxes, format=name, canvas_size=(64, 64))
        _, targets, _ = task._read({**batch, "targets": [{**batch["targets"][0], "boxes": wrapped}]})
        assert type(targets[0]["boxes"]) is torch.Tensor
        assert torch.equal(targets[0]["boxes"], plain), name
    wrapped = tv_tensors.BoundingBoxes(plain, format="XYXY", canvas_size=(32, 64))
    with pytest.raises(InputError, match="on the canvas of their image, 64 x 64"):
        task._read({**batch, "targets": [{**batch["targets"][0], "boxes": wrapped}]})
    if hasattr(tv_tensors.BoundingBoxFormat, "CXCYWHR"):
        with pytest.raises(InputError, match="rotated"):
            plain_boxes(tv_tensors.BoundingBoxes(torch.zeros(1, 5), format="CXCYWHR", canvas_size=(64, 64)))


def test_a_traced_detector_has_its_input_and_finds_the_same_boxes() -> None:
    case = next(case for case in KINDS if case.name == "detector")
    torch.manual_seed(0)
    task = case.build("scratch", TransferConfig(), FLAT).eval().requires_grad_(False)
    images = case.batch(0, 3)["images"]

    def found(image):
        return tuple(task([image])[0].values())

    warnings.simplefilter("ignore")  # the tracer names every number that it takes for fixed
    traced = torch.jit.trace(found, (images[0],), check_trace=False)
    for image in images:
        for one, other in zip(traced(image), found(image), strict=True):
            assert torch.allclose(one.float(), other.float(), atol=1e-4)
    assert len(found(images[1])[0])
    assert not torch.equal(traced(images[0])[1], traced(images[1])[1])


def test_masks_of_whole_numbers_of_any_type_are_class_maps() -> None:
    case = next(case for case in KINDS if case.name == "segmenter")
    task, batch = built(case), case.batch(0, 2)
    wanted = task.training_step(batch, 0)["loss"]
    masks = batch["masks"]
    for form in (
        masks.to(torch.uint8),
        masks[:, None],
        masks[:, None].to(torch.int32),
        tv_tensors.Mask(masks),
    ):
        assert torch.equal(task.training_step({**batch, "masks": form}, 0)["loss"], wanted)
    with pytest.raises(InputError, match=r"argmax\(1\)"):
        task.training_step({**batch, "masks": nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2)}, 0)
    with pytest.raises(InputError, match=r"mask\.long\(\)"):
        task.training_step({**batch, "masks": masks.float()}, 0)


def test_what_could_not_be_scored_is_nan_and_never_0() -> None:
    run = trainer()
    detector, segmenter = (
        built(next(c for c in KINDS if c.name == name)) for name in ("detector", "segmenter")
    )
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    values = run.validate(detector, loader({"images": image, "targets": [nothing]}), verbose=False)[0]
    assert list(values) == ["val/map"]
    assert np.isnan(values["val/map"])
    ignored = torch.full((1, 64, 64), 255)
    values = run.validate(segmenter, loader({"images": image, "masks": ignored}), verbose=False)[0]
    assert list(values) == ["val/miou"]
    assert np.isnan(values["val/miou"])
    scores = MultiLabelScores(2)
    scores.update(torch.full((3, 2), -1.0), torch.zeros(3, 2), torch.ones(3))
    assert all(np.isnan(value) for name, value in scores.compute_floats().items() if name != "loss")
    saver = SaveCheckpoints("unused", monitor=("val/map", "max"))
    assert saver._score(SimpleNamespace(callback_metrics={"val/map": torch.tensor(float("nan"))})) is None
    metric = CocoAP(("a",))
    metric.update([{**nothing, "scores": torch.zeros(0)}], [nothing], [1])
    assert metric.result().images == 1


def test_samples_to_predict_need_no_targets() -> None:
    sample = {"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "id": "a"}
    for collate in (mask_batch, list_batch, partial(caption_batch, encode=list)):
        batch = collate([sample, {**sample, "id": "b"}])
        assert len(batch["images"]) == 2
        assert batch["ids"] == ["a", "b"]
        assert "masks" not in batch
        assert "tokens" not in batch
    with pytest.raises(InputError, match="or none, but 1 of 2 lack it"):
        mask_batch([sample, {**sample, "mask": torch.zeros(8, 8, dtype=torch.int64)}])


class Stream(IterableDataset):
    def __iter__(self):
        yield from ((torch.zeros(3, 8, 8, dtype=torch.uint8), 0) for _ in range(4))


def test_a_stream_is_told_that_its_loader_has_no_length() -> None:
    task = Classifier(Mean(), init="scratch", num_classes=2)
    with pytest.raises(InputError, match="max_epochs is 1, but the training loader has no length"):
        trainer(max_epochs=1).fit(task, DataLoader(Stream(), batch_size=2))
