"""For which networks bf16 autocast is faster than fp32 on this CPU: what the policy's rule rests on.

python -m tests.bench.precision_survey rows.jsonl          # 11 networks at two sizes, some minutes

Each row has the ratio of a training step (fp32 over bf16, CPU time, one thread, channels last, medians of
interleaved pairs) and what the rule looks at: the arithmetic of the layers and the share that depthwise and
grouped convolutions do.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

from visionkit.backbones import create_encoder
from visionkit.run.training.flops import count_multiply_adds

NAMES = (
    "packaged/efficientnet_lite0", "timm/resnet18", "timm/resnet50", "timm/mobilenetv3_large_100",
    "timm/efficientnet_b0", "timm/convnext_tiny", "timm/regnety_008", "timm/resnext50_32x4d",
    "timm/vit_small_patch16_224", "timm/swin_tiny_patch4_window7_224", "timm/densenet121",
)  # fmt: skip
SIZES = ((96, 16), (224, 4))  # side, batch
PAIRS = 3


def step(net: torch.nn.Module, images: torch.Tensor, *, bf16: bool) -> float:
    began = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = net(images).float().square().mean()
    loss.backward()
    net.zero_grad(set_to_none=True)
    return time.process_time() - began


def moved_values(net: torch.nn.Module, shape: tuple[int, int, int]) -> int:
    """Values that convolutions with groups read and write for one image: what bounds them."""
    moved = 0

    def count(module, inputs, output) -> None:
        nonlocal moved
        moved += (output[0].numel() + inputs[0][0].numel()) if module.groups > 1 else 0

    handles = [
        part.register_forward_hook(count) for part in net.modules() if isinstance(part, torch.nn.Conv2d)
    ]
    count_multiply_adds(net, shape)
    for handle in handles:
        handle.remove()
    return moved


def survey(name: str, side: int, batch: int) -> dict | None:
    torch.manual_seed(0)
    net = create_encoder(name, init="scratch").to(memory_format=torch.channels_last).train()
    if net.fixed_size not in (None, (side, side)):
        return None
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    for bf16 in (False, True):
        step(net, images, bf16=bf16)
    pairs = [(step(net, images, bf16=False), step(net, images, bf16=True)) for _ in range(PAIRS)]
    return {
        "name": name,
        "side": side,
        "batch": batch,
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "spread": [round(min(a / b for a, b in pairs), 3), round(max(a / b for a, b in pairs), 3)],
        "fp32_ms": round(statistics.median(a for a, _ in pairs) * 1e3, 1),
        **count_multiply_adds(net, (3, side, side)),
        "moved": moved_values(net, (3, side, side)),
    }


def main(out: str) -> None:
    torch.set_num_threads(1)
    with open(out, "a", encoding="utf-8") as file:  # noqa: PTH123
        for name in NAMES:
            for side, batch in SIZES:
                row = survey(name, side, batch)
                if row is not None:
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    print(row)


if __name__ == "__main__":
    main(sys.argv[1])
