"""What an init implies, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from visionkit.backbones import create_encoder
from visionkit.config import TransferConfig
from visionkit.tasks import Classifier
from visionkit.transfer import freeze_at, resolve_transfer, scratch_arm, summary, transfer_from

TASKS = ("classification", "detection", "segmentation", "captioning")


@pytest.mark.parametrize("task", TASKS)
def test_both_arms_have_the_same_norm_and_nothing_is_left_open(task: str) -> None:
    pretrained = resolve_transfer(task, "pretrained", TransferConfig())
    scratch = resolve_transfer(task, "scratch", TransferConfig())
    assert pretrained.norm == scratch.norm is not None
    assert (scratch.freeze_through, scratch.backbone_lr_scale, scratch.layer_decay) == (0, 1.0, 1.0)
    assert None not in (pretrained.freeze_through, pretrained.backbone_lr_scale)
    assert resolve_transfer(task, "weights.pt", TransferConfig()) == pretrained


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (TransferConfig(freeze_through=4), "freeze random weights"),
        (TransferConfig(freeze_through="all"), "freeze random weights"),
        (TransferConfig(unfreeze_at=((5, 0),)), "freeze random weights"),
        (TransferConfig(norm="frozen"), "do not normalise"),
        (TransferConfig(backbone_lr_scale=0.1), "one learning rate"),
        (TransferConfig(layer_decay=0.7), "one learning rate"),
    ],
)
def test_scratch_refuses(asked: TransferConfig, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        resolve_transfer("classification", "scratch", asked)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"freeze_through": -1}, "freeze_through"),
        ({"freeze_through": 1.5}, "fraction of blocks"),
        ({"freeze_through": "half"}, "fraction of blocks"),
        ({"backbone_lr_scale": 0.0}, "freeze_through='all'"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"layer_decay": float("nan")}, "layer_decay"),
        ({"unfreeze_at": ((5, 8), (9, 16))}, "falling"),
        ({"unfreeze_at": ((9, 16), (5, 8))}, "rising"),
        ({"unfreeze_at": ((5, 0.25), (9, 0.5))}, "falling"),
        ({"norm": "bach"}, "Did you mean 'batch'"),
    ],
)
def test_what_is_not_in_order_is_refused(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        resolve_transfer("classification", "pretrained", TransferConfig(**asked))
    with pytest.raises(ValueError, match="Did you mean 'detection'"):
        resolve_transfer("detecton", "pretrained", TransferConfig())


def test_the_scratch_arm_keeps_what_belongs_to_the_network() -> None:
    asked = TransferConfig(
        freeze_through=8, norm="sync", layer_decay=0.5, unfreeze_at=((9, 0),), probe_level=16
    )
    assert scratch_arm(asked) == TransferConfig(norm="sync", probe_level=16)
    with pytest.raises(ValueError, match="do not normalise"):
        scratch_arm(TransferConfig(norm="frozen"))


def test_unfreezing_is_a_function_of_images() -> None:
    policy = resolve_transfer(
        "classification", "pretrained", TransferConfig(unfreeze_at=((100, 16), (200, 0)))
    )
    assert [freeze_at(policy, i) for i in (0, 99, 100, 199, 200, 900)] == ["all", "all", 16, 16, 0, 0]
    plain = {"unfreeze_at": [[100, 16], [200, 0]], "norm": "batch"}
    assert transfer_from(plain).unfreeze_at == policy.unfreeze_at
    with pytest.raises(ValueError, match="Did you mean 'norm'"):
        transfer_from({"nrm": "batch"})


def test_the_summary_counts_every_parameter_by_level() -> None:
    encoder_parameters = sum(p.numel() for p in create_encoder("timm/resnet10t", init="scratch").parameters())
    task = Classifier("timm/resnet10t", init="scratch", num_classes=3)
    rows = summary(task, task.backbone)
    assert [row.level for row in rows][-1] == "head"
    assert [row.level for row in rows][:2] == ["reduction 2", "reduction 4"]
    assert rows[-1].trainable == 3 * task.backbone.dim + 3
    assert sum(row.trainable for row in rows[:-1]) == encoder_parameters
    assert sum(row.frozen for row in rows) == 0
