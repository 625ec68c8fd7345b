"""Faster R-CNN beside torchvision: a training step, the first stage alone, pooling, and COCO's scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign

from tests.bench.processor import goal_here
from tests.bench.row import Row, Sides, Size, close, pick
from visionkit.backbones.level import Level
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.roi_align import RoIPool
from visionkit.nn.detection.rpn import ProposalNetwork
from visionkit.predict.predictor import TaskModel
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.precision import CpuMixedPrecision
from visionkit.tasks import Detector


def _targets(count: int, size: int, *, objects: int = 8) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    out = []
    for _ in range(count):
        corner = torch.rand(objects, 2, generator=draw) * size * 0.6
        side = size * (0.05 + 0.3 * torch.rand(objects, 2, generator=draw))
        labels = torch.randint(5, (objects,), generator=draw)
        out.append({"boxes": torch.cat((corner, corner + side), 1), "labels": labels})
    return out


def _step(size: Size, precision: str) -> Sides:
    """Forward, backward and gradients away; every layer trains, with batch norms, on both sides."""
    side, batch = pick(size, tiny=(64, 2), quick=(320, 4), full=(320, 4))
    torch.manual_seed(0)
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=6, trainable_backbone_layers=5,
        min_size=side, max_size=2 * side,
    )  # fmt: skip
    ours = Detector.from_torchvision(theirs.state_dict(), name="fasterrcnn_resnet50_fpn")
    ours.backbone.freeze_through(0)
    ours.resize = None
    ours = ours.to(memory_format=torch.channels_last)
    theirs.train(), ours.train()
    images = [torch.rand(3, side, side) for _ in range(batch)]
    targets = _targets(batch, side)
    shifted = [{**target, "labels": target["labels"] + 1} for target in targets]

    policy = CpuMixedPrecision().forward_context if precision == "bf16-mixed" else contextlib.nullcontext

    def our_step() -> Tensor:
        torch.manual_seed(1)
        with policy():
            loss = ours.training_step({"images": images, "targets": targets}, 0)["loss"]
        loss.backward()
        ours.zero_grad(set_to_none=True)
        return loss.detach()

    def their_step() -> Tensor:
        torch.manual_seed(1)
        loss: Tensor = torch.stack(list(theirs(images, shifted).values())).sum()
        loss.backward()
        theirs.zero_grad(set_to_none=True)
        return loss.detach()

    # Rounding (another layout, 16 bits) lets a few other proposals be drawn: other samples, another loss.
    tolerance = 0.1 if precision == "bf16-mixed" else 5e-3
    return Sides(our_step, their_step, close(atol=tolerance, rtol=tolerance))


class _Given(nn.Module):
    """A head whose outputs are given, so that all but the network is timed."""

    def __init__(self, logits: list[Tensor], offsets: list[Tensor]) -> None:
        super().__init__()
        self.outputs = logits, offsets

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return self.outputs


def _first_stage(size: Size, proposals: int) -> Sides:
    batch, high, wide = pick(size, tiny=(2, 96, 128), quick=(4, 800, 1088), full=(16, 800, 1088))
    draw = torch.Generator().manual_seed(0)
    reductions = (4, 8, 16, 32, 64)
    shapes = [(-(-high // r), -(-wide // r)) for r in reductions]
    logits = [torch.randn(batch, 3, h, w, generator=draw).requires_grad_() for h, w in shapes]
    offsets = [(torch.randn(batch, 12, h, w, generator=draw) * 0.2).requires_grad_() for h, w in shapes]
    maps = {str(i): torch.zeros(batch, 8, h, w) for i, (h, w) in enumerate(shapes)}
    images = ImageList(torch.zeros(batch, 3, high, wide), [(high, wide - 20)] * batch)
    targets = _targets(batch, high)
    levels = [Level(8, r) for r in reductions]
    ours = ProposalNetwork(
        LevelAnchors(levels, spacing="grid"), 8, convs=1, proposals=(proposals, proposals), samples=256
    )
    anchors = AnchorGenerator(tuple((8 * r,) for r in reductions), ((0.5, 1.0, 2.0),) * len(reductions))
    count = {"training": proposals, "testing": proposals}
    theirs = RegionProposalNetwork(anchors, nn.Identity(), 0.7, 0.3, 256, 0.5, count, dict(count), 0.7)
    ours.head, theirs.head = _Given(logits, offsets), _Given(logits, offsets)

    def run(network: nn.Module) -> Callable[[], Any]:
        def once() -> Any:
            torch.manual_seed(1)
            boxes, losses = network(images, maps, targets)
            return torch.cat(boxes), losses

        return once

    return Sides(run(ours), run(theirs), _same_boxes)


def _same_boxes(ours: Any, theirs: Any) -> None:
    """Equal losses, and the same boxes: those of one score come in an order that depends on the processor."""
    close(atol=1e-5)(ours[1], theirs[1])
    close(atol=1e-5)(ours[0].unique(dim=0), theirs[0].unique(dim=0))


def _detect(size: Size, precision: str) -> Sides:
    """From uint8 images to boxes; ours in the layout and policy of `visionkit predict`."""
    high, wide, count = pick(size, tiny=(96, 128, 1), quick=(480, 640, 1), full=(480, 640, 4))
    torch.manual_seed(0)
    theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=high, max_size=wide).eval()
    task = Detector.from_torchvision(theirs.state_dict(), name="fasterrcnn_resnet50_fpn")
    task.resize = None
    model = TaskModel(task, choose_policy(RunConfig(accelerator="cpu", precision=precision), task))
    images = [torch.randint(256, (3, high, wide), dtype=torch.uint8) for _ in range(count)]

    def ours() -> list[list[Tensor]]:
        with torch.inference_mode():
            made = model.predict(images, [(high, wide)] * count, [str(number) for number in range(count)])
        return [[one.boxes, one.scores] for one in made]

    def peer() -> list[list[Tensor]]:
        with torch.inference_mode():
            made = theirs([image / 255 for image in images])
        return [[one["boxes"], one["scores"]] for one in made]

    return Sides(ours, peer, _matched)


def _matched(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> None:
    """As many detections of the same scores, and one on each of theirs; rounding may exchange two of 100."""
    for (boxes, scores), (their_boxes, their_scores) in zip(ours, theirs, strict=True):
        assert len(boxes) == len(their_boxes) > 0
        close(atol=5e-3)(scores, their_scores)
        apart = (boxes[None] - their_boxes[:, None]).abs().amax(2).amin(1)
        assert (apart < 0.05).float().mean() >= 0.98, apart


def _pooling(size: Size) -> Sides:
    count, channels = pick(size, tiny=(20, 16), quick=(512, 256), full=(512, 256))
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, 320 // r, 320 // r, generator=draw) for r in (4, 8, 16, 32)]
    maps = [m.to(memory_format=torch.channels_last).requires_grad_() for m in maps]
    corner = torch.rand(2, count, 2, generator=draw) * 220
    boxes = list(torch.cat((corner, corner + torch.rand(2, count, 2, generator=draw) * 100), 2))
    weight = torch.randn(2 * count, channels, 7, 7, generator=draw)
    ours, theirs = RoIPool((4, 8, 16, 32), output_size=7), MultiScaleRoIAlign(list("0123"), 7, 2)
    named = {str(i): m for i, m in enumerate(maps)}

    def run(pool: Callable[[], Tensor]) -> Callable[[], Any]:
        def once() -> Any:
            for m in maps:
                m.grad = None
            out = pool()
            out.backward(weight)
            return out.detach(), [m.grad for m in maps]

        return once

    sides = run(lambda: ours(maps, boxes)), run(lambda: theirs(named, boxes, [(320, 320)] * 2))
    return Sides(*sides, close(atol=1e-3, rtol=1e-4))


def _pooling_to_predict(size: Size) -> Sides:
    """The regions of four images of 320 x 427, as the variant `small` predicts with them."""
    count, channels = pick(size, tiny=(20, 16), quick=(250, 128), full=(1000, 128))
    draw = torch.Generator().manual_seed(0)
    shapes = [(-(-320 // r), -(-427 // r)) for r in (4, 8, 16, 32)]
    maps = [torch.randn(4, channels, *shape, generator=draw) for shape in shapes]
    maps = [m.to(memory_format=torch.channels_last) for m in maps]
    corner = torch.rand(4, count, 2, generator=draw) * torch.tensor([300.0, 200.0])
    boxes = list(torch.cat((corner, corner + 10 + torch.rand(4, count, 2, generator=draw) * 200), 2))
    ours, theirs = RoIPool((4, 8, 16, 32), output_size=7), MultiScaleRoIAlign(list("0123"), 7, 2)
    named = {str(i): m for i, m in enumerate(maps)}

    def run(pool: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return torch.inference_mode()(pool)

    return Sides(
        run(lambda: ours(maps, boxes)), run(lambda: theirs(named, boxes, [(320, 427)] * 4)),
        close(atol=1e-4),
    )  # fmt: skip


ROWS = (
    Row(
        "RoIAlign without gradients",
        peer="torchvision's kernel",
        package="torchvision",
        build=_pooling_to_predict,
        goal=2.0,
        limit="reading the taps and writing the regions",
        note="4,000 regions of four images, channels-last maps.",
    ),
    Row(
        "RoIAlign, forward and backward",
        peer="torchvision's kernel",
        package="torchvision",
        build=_pooling,
        goal=2.5,
        limit="copying the taps",
    ),
    Row(
        "Faster R-CNN step, 32 bits, 320 px, batch 4",
        peer="torchvision, eager",
        package="torchvision",
        build=lambda size: _step(size, "32-true"),
        goal=1.2,
        rounds=5,
        quick=False,
        limit="the convolutions and the box head",
    ),
    Row(
        "Faster R-CNN step, default policy, 320 px, batch 4",
        peer="torchvision, eager, 32 bits",
        package="torchvision",
        build=lambda size: _step(size, choose_policy(RunConfig(accelerator="cpu")).precision),
        goal=goal_here(avx2=1.2, avx512_bf16=2.7, amx_bf16=3.5),
        bf16="convolutions",
        rounds=5,
        quick=False,
        limit="the convolutions and the box head",
        note="bfloat16 where the CPU has it natively.",
    ),
    Row(
        "proposals and targets, batch 16, 800 px, 1,000 proposals",
        peer="torchvision's proposal network",
        package="torchvision",
        build=lambda size: _first_stage(size, 1000),
        goal=2.0,
        rounds=5,
        quick=False,
        limit="matching of all anchors, and suppression",
    ),
    Row(
        "proposals and targets, batch 16, 800 px, 2,000 proposals",
        peer="torchvision's proposal network",
        package="torchvision",
        build=lambda size: _first_stage(size, 2000),
        goal=2.0,
        rounds=5,
        quick=False,
        limit="matching of all anchors, and suppression",
    ),
    Row(
        "detector inference, 480 x 640, 32 bits",
        peer="torchvision, eager",
        package="torchvision",
        build=lambda size: _detect(size, "32-true"),
        goal=1.5,
        rounds=5,
        quick=False,
        limit="the convolutions",
        note="Faster R-CNN, ResNet-50 and a pyramid, from uint8 images to boxes.",
    ),
)
