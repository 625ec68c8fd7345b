"""Mixed precision on a CPU: which convolutions leave bfloat16, and that the Trainer has it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.run.tiny import TinyTask, tiny_data
from visionkit.run import RunConfig, build_trainer
from visionkit.run.training.device_policy import Policy
from visionkit.run.training.precision import CpuMixedPrecision, CpuPrecision

CASES = {
    "dense": (nn.Conv2d(8, 8, 5, stride=2, padding=2), False),
    "point": (nn.Conv2d(8, 8, 1), False),
    "grouped": (nn.Conv2d(8, 8, 5, groups=4, padding=2), False),
    "depthwise, small": (nn.Conv2d(8, 8, 3, groups=8, padding=1), False),
    "depthwise, strided": (nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1), True),
    "depthwise, wide": (nn.Conv2d(8, 8, 5, groups=8, padding=2, bias=False), True),
    "depthwise, multiplied": (nn.Conv2d(8, 16, 7, groups=8, padding=3), True),
    "depthwise, dilated": (nn.Conv2d(8, 8, (1, 5), groups=8, dilation=2, padding="same"), True),
}


@pytest.mark.parametrize("name", CASES)
def test_only_slow_gradients_leave_bfloat16(name):
    conv, slow = CASES[name]
    images = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(0))
    truth = conv(images.bfloat16().float())
    rounded = truth.bfloat16()
    with CpuMixedPrecision().forward_context():
        trained = conv(images.bfloat16())
        with torch.no_grad():
            evaluated = conv(images.bfloat16())
    assert trained.dtype == evaluated.dtype == torch.bfloat16
    # computed in float32 and rounded once; in bfloat16 the weights are rounded too
    assert bool((trained == rounded).all()) is slow
    torch.testing.assert_close(evaluated.float(), truth, atol=0.05, rtol=0.05)
    trained.float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32
    assert torch.isfinite(conv.weight.grad).all()
    conv.weight.grad = None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "groups"),
    [((1, 1), 3, 2, 1), ((2, 1), 5, 2, 1), ((1, 1), 3, 2, 16), ((3, 3), 7, 4, 1), ((1, 1), 1, 2, 1)],
)
def test_strided_convolutions_of_narrow_maps_have_their_gradient(side, kernel, stride, groups, layout):
    """In bfloat16 oneDNN leaves parts of it unwritten: memory full of NaN shows them."""
    conv = nn.Conv2d(16, 96, kernel, stride=stride, padding=kernel // 2, groups=groups).to(
        memory_format=layout
    )
    images = torch.randn(4, 16, *side).bfloat16().to(memory_format=layout)
    up = torch.randn_like(conv(images.float())).bfloat16()
    conv(images.float()).backward(up.float())
    truth, conv.weight.grad = conv.weight.grad, None
    for _ in range(4):
        with CpuMixedPrecision().forward_context():
            trained = conv(images)
        junk = [torch.full((2**power,), torch.nan) for power in (10, 12, 14, 16, 18)] * 2
        del junk
        trained.backward(up)
        torch.testing.assert_close(conv.weight.grad, truth, atol=0.05, rtol=0.05)
        conv.weight.grad = None


@pytest.mark.parametrize("plugin", [CpuPrecision, CpuMixedPrecision])
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "quick"),
    [
        (6, 5, 1, True),
        (6, (3, 5), 2, True),
        (6, (5, 3), 1, False),
        (6, 3, 2, False),
        (2, 3, 1, True),
        (1, 5, 1, True),
    ],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_wide_and_narrow_depthwise_convolutions_learn_by_the_quicker_gradient(
    plugin, side, kernel, stride, quick, layout
):
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    conv = nn.Conv2d(8, 8, kernel, stride=stride, padding=(rows // 2, columns // 2), groups=8)
    images = torch.randn(2, 8, side, side).to(memory_format=layout).requires_grad_()
    expected = torch.autograd.grad(conv(images).square().sum(), (images, *conv.parameters()))
    with plugin().forward_context():
        trained = conv(images)
    assert trained.dtype == (torch.float32 if plugin is CpuPrecision else torch.bfloat16)
    names = set()
    nodes = [trained.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [before for before, _ in node.next_functions if before is not None]
    # a map of one position has both memory formats
    assert ("_DepthwiseBackward" in names) is (quick and (layout == torch.channels_last or side == 1)), names
    # Sums of up to 72 products: a few roundings of 2^-24, or of 2^-9 of the images and what follows them.
    bound = 1e-5 if plugin is CpuPrecision else 0.03
    for one, other in zip(
        torch.autograd.grad(trained.float().square().sum(), (images, *conv.parameters())),
        expected,
        strict=True,
    ):
        assert float((one - other).norm() / other.norm()) < bound


def test_a_grouped_convolution_of_as_many_filters_as_groups_is_not_depthwise():
    conv = nn.Conv2d(16, 8, 5, groups=8, padding=2).to(memory_format=torch.channels_last)
    images = torch.randn(2, 16, 6, 6).to(memory_format=torch.channels_last)
    with CpuPrecision().forward_context():
        assert conv(images).grad_fn.name() == "ConvolutionBackward0"


POINTS = {
    "rows": (nn.Conv2d(16, 24, 1), True),
    "without bias": (nn.Conv2d(16, 24, (1, 1), bias=False, padding="same"), True),
    "strided": (nn.Conv2d(16, 24, 1, stride=2), False),
    "padded": (nn.Conv2d(16, 24, 1, padding=1), False),
    "grouped": (nn.Conv2d(16, 24, 1, groups=2), False),
    "wide": (nn.Conv2d(16, 24, 3), False),
}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_convolutions_of_one_position_train_as_matrix_products(name, layout):
    conv, product = POINTS[name]
    images = torch.randn(2, 16, 9, 7, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=layout).requires_grad_()
    wanted = conv(images)
    wanted.sum().backward()
    grads = [images.grad.clone(), conv.weight.grad.clone()]
    images.grad = conv.weight.grad = None
    with CpuMixedPrecision().forward_context():
        trained = conv(images)
        with torch.no_grad():
            evaluated = conv(images)
    assert evaluated.is_contiguous(memory_format=layout)
    assert trained.dtype == torch.bfloat16
    assert trained.is_contiguous(memory_format=layout)
    product = product and layout == torch.channels_last
    assert ("Permute" in trained.grad_fn.name()) is product, trained.grad_fn.name()
    torch.testing.assert_close(trained.float(), wanted, atol=0.05, rtol=0.05)
    trained.float().sum().backward()
    torch.testing.assert_close(images.grad, grads[0], atol=0.05, rtol=0.05)
    torch.testing.assert_close(conv.weight.grad, grads[1], atol=0.2, rtol=0.05)
    images.grad = conv.weight.grad = None


class Recomputed(TinyTask):
    """A network of every exception whose layers run forward again in the backward pass, or do not."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again
        self.net = nn.Sequential(
            nn.Conv2d(3, 256, 1), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 5, padding=2, groups=256), nn.Conv2d(256, 8, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip

    def training_step(self, batch, batch_idx):
        images = batch["images"].float().contiguous(memory_format=torch.channels_last).requires_grad_()
        run = partial(checkpoint, self.net, use_reentrant=False) if self.again else self.net
        out = run(F.interpolate(images, (20, 20)).contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(out.float(), batch["labels"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
def test_layers_that_run_again_in_the_backward_pass_run_the_same_way(tmp_path):
    weights = []
    for again in (False, True):
        torch.manual_seed(0)
        task = Recomputed(again).to(memory_format=torch.channels_last)
        trainer = build_trainer(
            RunConfig(progress=False, accelerator="cpu", precision="bf16-mixed"),
            folder=tmp_path / str(again), policy=Policy("cpu", "bf16-mixed", True, False), max_steps=3,
        )  # fmt: skip
        trainer.fit(task, datamodule=tiny_data())
        assert trainer.global_step == 3
        weights.append([value.clone() for value in task.state_dict().values()])
    assert len(weights[0]) == 10
    for one, other in zip(*weights, strict=True):
        assert float((one - other).norm() / one.norm()) < 0.005


def test_the_trainer_has_it_where_it_serves(tmp_path):
    config = RunConfig(progress=False, accelerator="cpu")
    for kind, compile, ours in (
        ("bf16-mixed", False, True),
        ("bf16-mixed", True, False),
        ("32-true", False, True),
        ("32-true", True, False),
    ):
        trainer = build_trainer(config, folder=tmp_path, policy=Policy("cpu", kind, True, compile))
        assert isinstance(trainer.precision_plugin, (CpuMixedPrecision, CpuPrecision)) is ours
        assert trainer.precision == kind
