"""Two processes on one card: what synchronised batch norm gives each half, beside the whole batch's.

Usage: torchrun --nproc-per-node 2 sync_worker.py FOLDER. The processes talk over gloo, since NCCL takes one
process a card.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from visionkit.backbones import make_norm
from visionkit.config import OptimConfig, TransferConfig
from visionkit.run.processes.lifetime import destroy_group, destroy_group_at_exit
from visionkit.tasks import Segmenter


def worst(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))


def norms(rank: int, sizes: tuple[int, int]) -> dict[str, float]:
    torch.manual_seed(0)
    whole = torch.randn(sum(sizes), 8, 9, 7, device="cuda") * 3 + 1
    weigh = torch.randn_like(whole)
    mine = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], sum(sizes))
    reference, synced = nn.BatchNorm2d(8).cuda(), make_norm("sync", 8).cuda()
    full, half = whole.clone().requires_grad_(), whole[mine].clone().requires_grad_()
    wanted, got = reference(full), synced(half)
    (wanted * weigh).sum().backward()
    (got * weigh[mine]).sum().backward()
    weight = synced.weight.grad.clone()
    dist.all_reduce(weight)
    return {
        "output": worst(got, wanted[mine]),
        "gradient": worst(half.grad, full.grad[mine]),
        "weight": worst(weight, reference.weight.grad),
        "mean": worst(synced.running_mean, reference.running_mean),
        "variance": worst(synced.running_var, reference.running_var),
    }


def task(rank: int) -> dict[str, float]:
    """A whole network under DDP on two halves, beside plain batch norm on the whole batch."""
    torch.manual_seed(0)
    optim = OptimConfig(warmup=0.0, schedule="constant")
    made = {
        norm: Segmenter("timm/resnet10t", init="scratch", num_classes=3, channels=16, optim=optim,
                        transfer=TransferConfig(norm=norm)).cuda().train()
        for norm in ("sync", "batch")
    }  # fmt: skip
    for module in (*made["sync"].modules(), *made["batch"].modules()):
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    made["batch"].load_state_dict(made["sync"].state_dict())
    images, masks = torch.rand(8, 3, 64, 64, device="cuda"), torch.randint(0, 3, (8, 64, 64), device="cuda")
    half = slice(4 * rank, 4 * rank + 4)
    loss = made["sync"].training_step({"images": images[half], "masks": masks[half]}, 0)["loss"]
    loss.backward()
    whole = made["batch"].training_step({"images": images, "masks": masks}, 0)["loss"]
    whole.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    wrong = []
    for one, other in zip(made["sync"].parameters(), made["batch"].parameters(), strict=True):
        dist.all_reduce(one.grad)
        wrong.append(float((one.grad / 2 - other.grad).norm() / other.grad.norm().clamp(min=1e-4)))
    return {"loss": abs(float(mean) / 2 - float(whole)), "gradient": max(wrong)}


def main() -> None:
    torch.backends.cudnn.allow_tf32 = False
    destroy_group_at_exit()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.cuda.set_device(0)
    told = {"even": norms(rank, (4, 4)), "uneven": norms(rank, (5, 2)), "task": task(rank)}
    Path(sys.argv[1], f"rank-{rank}.json").write_text(json.dumps(told))
    destroy_group()


if __name__ == "__main__":
    main()
