"""bf16 only where it is native and, in a network that is compiled, the arithmetic is dense enough."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.bench.precision_survey import moved_values
from tests.run.tiny import TinyTask, tiny_data
from visionkit.backbones import create_encoder
from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError
from visionkit.optim import build_optimizer
from visionkit.run.config import RunConfig
from visionkit.run.training import device_policy as rules
from visionkit.run.training import fit as fitting
from visionkit.run.training.flops import count_multiply_adds
from visionkit.tasks import Classifier


def test_arithmetic_is_counted_by_kind_and_leaves_the_network_as_it_was():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 4, 1, groups=2),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    net[3].eval()
    state = torch.random.get_rng_state()
    counts = count_multiply_adds(net, (3, 6, 7))
    pixels = 6 * 7
    dense, grouped, depthwise = pixels * 8 * 27 + 4 * 5, pixels * 4 * 4, pixels * 8 * 9
    assert counts == {"dense": dense, "grouped": grouped, "depthwise": depthwise}
    assert moved_values(net, (3, 6, 7)) == pixels * (8 + 8 + 8 + 4)
    assert [part.training for part in net] == [True] * 3 + [False] + [True] * 3
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(part._forward_hooks for part in net)


def test_precision_goes_by_device_and_network(monkeypatch):
    config = RunConfig(accelerator="cpu", image_size=96, compile=True)
    monkeypatch.setattr(rules, "_check_compiler", lambda accelerator: None)
    names = ("timm/resnet18", "packaged/efficientnet_lite0")
    nets = {name: create_encoder(name, init="scratch") for name in names}
    monkeypatch.setattr(rules, "_native_bf16", lambda accelerator: True)
    monkeypatch.setattr(rules, "_bf16_gain", lambda: 1.9)
    assert rules.choose_policy(config, nets["timm/resnet18"]).precision == "bf16-mixed"
    slow = rules.choose_policy(config, nets["packaged/efficientnet_lite0"])
    assert slow.precision == "32-true"
    assert "9% of the arithmetic" in slow.reason
    assert rules.choose_policy(config).precision == "bf16-mixed"
    unknown = rules.choose_policy(config, nn.Embedding(3, 3))
    assert unknown.precision == "bf16-mixed"
    assert "no arithmetic was counted for images of side 96" in unknown.reason
    plain = RunConfig(accelerator="cpu", image_size=96)  # its slow convolutions train in 32 bits
    assert rules.choose_policy(plain, nets["packaged/efficientnet_lite0"]).precision == "bf16-mixed"
    asked = RunConfig(accelerator="cpu", precision="bf16-mixed")
    assert rules.choose_policy(asked, nets["packaged/efficientnet_lite0"]).precision == "bf16-mixed"
    monkeypatch.setattr(rules, "_bf16_gain", lambda: 0.6)
    slower = rules.choose_policy(plain, nets["timm/resnet18"])
    assert slower.precision == "32-true"
    assert slower.reason == "this cpu multiplies faster in float32 than in bf16"
    assert rules.choose_policy(asked, nets["timm/resnet18"]).precision == "bf16-mixed"
    monkeypatch.setattr(rules, "_native_bf16", lambda accelerator: False)
    assert rules.choose_policy(config, nets["timm/resnet18"]).precision == "32-true"


def test_the_gain_of_bf16_is_measured_by_the_shortest_times(monkeypatch):
    """Noise on all but one call of each type changes nothing; slow products are not repeated."""
    for seconds, calls, gain in (
        ((0.004, 0.002), 16, 2.0),
        ((0.002, 0.004), 16, 0.5),
        ((0.001, 0.1), 4, 0.01),
    ):
        clock, count = [0.0], [0]

        def product(left, right, seconds=seconds, clock=clock, count=count):
            assert left.dtype == right.dtype
            count[0] += 1
            noise = 0.0 if count[0] in (7, 8) or seconds[1] == 0.1 else 0.05
            clock[0] += seconds[left.dtype == torch.bfloat16] + noise

        with monkeypatch.context() as patch:
            patch.setattr(rules.time, "perf_counter", lambda clock=clock: clock[0])
            patch.setattr(rules.torch, "mm", product)
            assert rules._bf16_gain.__wrapped__() == pytest.approx(gain)
        assert count[0] == calls
    assert rules._bf16_gain() > 0
    assert rules._bf16_gain() == rules._bf16_gain()


def test_sharded_parameters_keep_their_layout():
    for strategy, layout in (("auto", True), ("ddp", True), ("fsdp", False)):
        config = RunConfig(accelerator="cpu", strategy=strategy, precision="32-true")
        assert rules.choose_policy(config, nn.Conv2d(3, 3, 1)).channels_last is layout


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_optimizers_are_fused_unless_gradients_are_clipped_and_move_alike(clip):
    def moved(fused: bool) -> torch.Tensor:
        torch.manual_seed(0)
        net = nn.Linear(5, 7)
        config = OptimConfig(schedule="constant", warmup=0.0, clip_norm=clip)
        made = build_optimizer(net, None, config, TransferConfig(), 1e-2, total_images=100, global_batch=4)
        optimizer = made["optimizer"]
        if not fused:
            groups = [{**group, "fused": False} for group in optimizer.param_groups]
            optimizer = torch.optim.AdamW(groups)
        assert all(bool(group["fused"]) == (fused and not clip) for group in optimizer.param_groups)
        for _ in range(5):
            net(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return net.weight.detach()

    torch.testing.assert_close(moved(True), moved(False), atol=1e-6, rtol=0)


def test_recompute_reaches_the_network_or_is_refused_before_anything_is_written(tmp_path):
    task = Classifier("timm/test_convnext", init="scratch", num_classes=3)
    assert not any(getattr(part, "grad_checkpointing", False) for part in task.modules())
    fitting._recompute(task)
    assert any(getattr(part, "grad_checkpointing", False) for part in task.modules())
    config = RunConfig(recompute=True, accelerator="cpu", progress=False)
    with pytest.raises(InputError, match=r"--recompute .* backbone of TinyTask has no method"):
        fitting.fit(config, TinyTask(), tiny_data(), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
