"""Groups hold every trained parameter once; schedules are functions of images; the rate follows the batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from visionkit.backbones import create_encoder
from visionkit.config import OptimConfig, TransferConfig
from visionkit.optim import build_optimizer, describe_rate, parameter_groups, schedule_scale
from visionkit.transfer import resolve_transfer


class Task(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = create_encoder(name, init="scratch")
        self.head = nn.Linear(self.backbone.dim, 3)
        self.words = nn.Embedding(5, 4)


FAMILIES = (
    "timm/resnet10t",
    "timm/convnext_atto",
    "timm/mobilenetv3_small_050",
    "torchvision/shufflenet_v2_x0_5",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_trained_parameter_is_in_one_group_with_its_rate_and_decay(name: str) -> None:
    task = Task(name)
    transfer = resolve_transfer("classification", "pretrained", TransferConfig(layer_decay=0.5))
    groups = parameter_groups(task, task.backbone, OptimConfig(weight_decay=0.1), transfer, 1.0)
    result = [id(p) for group in groups for p in group["params"]]
    assert sorted(result) == sorted(id(p) for p in task.parameters())
    bare = {id(p) for p in task.parameters() if p.ndim <= 1} | {id(task.words.weight)}
    for group in groups:
        remaining = {id(p) in bare for p in group["params"]}
        assert remaining == {group["weight_decay"] == 0.0}
    rates = {group["name"].split("/no")[0]: group["lr"] for group in groups}
    reductions = [stage.reduction for stage in task.backbone.stages() if stage.parameters]
    assert len(reductions) >= 4
    assert rates["head"] == 1.0
    last = task.backbone.stages()[-1].reduction
    for stage in task.backbone.stages():
        depth = [s.reduction for s in task.backbone.stages()][::-1].index(stage.reduction)
        if stage.parameters:
            assert rates[f"backbone/{stage.reduction}"] == pytest.approx(0.3 * 0.5**depth)
    assert rates[f"backbone/{last}"] == pytest.approx(0.3)


def test_frozen_parameters_are_left_out_and_later_ones_are_in() -> None:
    task = Task("timm/resnet10t")
    stages = dict(task.backbone.stages())
    task.backbone.requires_grad_(False)
    transfer = resolve_transfer(
        "classification", "pretrained", TransferConfig(freeze_through="all", unfreeze_at=((10, 16), (20, 8)))
    )
    groups = parameter_groups(task, task.backbone, OptimConfig(), transfer, 1.0)
    names = {id(p): n for n, p in task.backbone.named_parameters()}
    inside = {names[id(p)] for group in groups for p in group["params"] if id(p) in names}
    assert inside == set(stages[16]) | set(stages[32])
    with pytest.raises(ValueError, match="every parameter is frozen"):
        parameter_groups(
            task.backbone, task.backbone, OptimConfig(), TransferConfig(freeze_through="all"), 1.0
        )


def test_shapes_of_schedules() -> None:
    def at(images: float, **settings: object) -> float:
        return schedule_scale(images, 1000, OptimConfig(**settings))

    for name in ("cosine", "linear", "poly", "steps", "constant"):
        assert at(50, schedule=name, warmup=0.1) == 0.5
        assert at(100, schedule=name, warmup=0.1) == 1.0
    assert at(550, schedule="cosine", warmup=0.1) == pytest.approx(0.5)
    assert at(1000, schedule="cosine", min_lr_ratio=0.1) == pytest.approx(0.1)
    assert at(775, schedule="linear", warmup=0.1) == pytest.approx(0.25)
    assert at(550, schedule="poly", warmup=0.1, power=2.0) == pytest.approx(0.25)
    steps = {"schedule": "steps", "warmup": 0.0}
    assert [at(i, **steps) for i in (600, 700, 950)] == pytest.approx([1, 0.1, 0.01])
    fixed = OptimConfig(**steps, milestones_before_end=(300, 100))
    for total in (1000, 9000):  # the milestones keep their distance from the end, the first stage stretches
        scales = [schedule_scale(total - left, total, fixed) for left in (301, 300, 101, 100)]
        assert scales == pytest.approx([1, 0.1, 0.1, 0.01])


def test_the_schedule_does_not_depend_on_the_batch() -> None:
    rates = {}
    for batch in (10, 50):
        module = nn.Linear(2, 2)
        made = build_optimizer(
            module, None, OptimConfig(batch=10), TransferConfig(), 0.1, total_images=1000, global_batch=batch
        )
        optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
        rates[batch] = []
        for _ in range(1000 // batch):
            rates[batch].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert min(rates[batch]) > 0, "no update at rate zero"
    # an update of 50 images has the middle of the third of five updates of 10, and five times the rate
    assert rates[50] == pytest.approx([5 * r for r in rates[10][2::5]])
    assert describe_rate(0.1, OptimConfig(batch=10), 50) == (
        "learning rate 0.5 = 0.1 x 50 / 10 (given for 10 images an update, running 50)"
    )
    assert describe_rate(0.1, OptimConfig(), 50) == (
        "learning rate 0.1, not scaled by the batch of 50 images an update"
    )


def test_what_does_not_fit_is_refused() -> None:
    none = TransferConfig()

    def build(total: float, transfer: TransferConfig = none, **settings: object) -> None:
        config = OptimConfig(**settings)
        build_optimizer(nn.Linear(1, 1), None, config, transfer, 0.1, total_images=total, global_batch=1)

    with pytest.raises(ValueError, match="no end"):
        build(math.inf)
    build(math.inf, schedule="constant", warmup=0.0)
    with pytest.raises(ValueError, match="first milestone"):
        build(100, schedule="steps", milestones_before_end=(200,))
    with pytest.raises(ValueError, match="largest first"):
        build(100, schedule="steps", milestones_before_end=(10, 20))
    with pytest.raises(ValueError, match="would never be unfrozen"):
        build(100, TransferConfig(freeze_through="all", unfreeze_at=((200, 0),)))
    with pytest.raises(ValueError, match="adamw"):
        build(100, optimizer="adamww")
    assert torch.is_grad_enabled()
