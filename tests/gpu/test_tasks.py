"""Every task on a card against the same task on the CPU, compiled against eager, and no waits for it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.modules.dropout import _DropoutNd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from task_cases import MORE_TASKS, TASKS

from visionkit.config import OptimConfig, TransferConfig
from visionkit.nn.detection.roi_align import roi_align
from visionkit.tasks.batch_parts import move_batch

EVERY = pytest.mark.parametrize("case", [*TASKS, *MORE_TASKS], ids=lambda case: case.name)
CARD = torch.device("cuda")
# The detector asks how many boxes were found, and the captioner how long the longest caption is.
WITHOUT_WAITS = {"classifier, single", "classifier, multi", "classifier, regression", "segmenter"}


@pytest.fixture(autouse=True)
def _whole_floats():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(before)


def build(case):
    torch.manual_seed(0)
    return case.build("scratch", TransferConfig(), OptimConfig(warmup=0.0, schedule="constant"))


@EVERY
def test_losses_are_those_of_the_cpu(case):
    here = build(case)
    for module in here.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    there = copy.deepcopy(here).to(CARD)
    batch = case.batch(0, 6)
    if case.name == "detector":  # boxes are drawn for the losses: all of them are taken instead
        for task in (here, there):
            task.model.rpn.samples = task.model.heads.fg_bg_sampler.batch_size_per_image = 10**6
    one = here.train().training_step(batch, 0)["loss"]
    other = there.train().training_step(move_batch(batch, CARD), 0)["loss"]
    assert other.device.type == "cuda"
    assert float(other) == pytest.approx(float(one), rel=2e-3)


@EVERY
def test_predictions_are_those_of_the_cpu(case):
    here = build(case).eval()
    there = copy.deepcopy(here).to(CARD)
    batch = case.batch(0, 4)
    found = there.predict_step(move_batch(batch, CARD), 0)
    wanted = here.predict_step(batch, 0)
    assert len(found) == len(wanted) == 4
    compared = 0
    for one, other in zip(found, wanted, strict=True):
        for name, value in vars(other).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                got = vars(one)[name]
                assert got.device.type == "cpu"
                assert got.shape == value.shape, name
                torch.testing.assert_close(got, value, atol=1e-3, rtol=1e-3)
                compared += 1
    assert compared or case.name in ("segmenter", "captioner")


@EVERY
def test_a_compiled_step_is_the_eager_one(case):
    eager = build(case).to(CARD).train()
    compiled = copy.deepcopy(eager)
    compiled.compile()
    batch = move_batch(case.batch(0, 6), CARD)
    losses = []
    for task in (eager, compiled):
        torch.manual_seed(1)
        loss = task.training_step(batch, 0)["loss"]
        loss.backward()
        losses.append(float(loss))
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


@EVERY
def test_a_training_step_does_not_wait_for_the_card(case):
    task = build(case).to(CARD).train()
    batch = move_batch(case.batch(0, 6), CARD)
    task.training_step(batch, 0)["loss"].backward()  # what is made once is made
    torch.cuda.set_sync_debug_mode("error")
    try:
        task.training_step(batch, 0)["loss"].backward()
        waits = False
    except RuntimeError as error:
        assert "synchroniz" in str(error)  # noqa: PT017
        waits = True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert waits == (case.name not in WITHOUT_WAITS)


def test_both_forms_of_roi_align_agree_on_the_card():
    from torchvision.ops import roi_align as native

    maps = torch.randn(2, 16, 40, 50, device=CARD, requires_grad=True)
    corner = torch.rand(300, 2, device=CARD) * 300
    boxes = torch.cat((corner, corner + 4 + torch.rand(300, 2, device=CARD) * 200), 1)
    rois = torch.cat((torch.randint(0, 2, (300, 1), device=CARD).float(), boxes), 1)
    one = roi_align(maps, rois, output_size=7, spatial_scale=0.125)
    other = native(maps, rois, (7, 7), 0.125, 2)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    grads = [torch.autograd.grad(value.square().sum(), maps)[0] for value in (one, other)]
    torch.testing.assert_close(grads[0], grads[1], atol=1e-3, rtol=1e-3)
