"""What training a classifier costs beside the arithmetic: the whole run's Trainer against bare loops."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from tests.bench.row import Row, Sides, Size, close, pick
from visionkit.config import OptimConfig
from visionkit.run.callbacks.finite_guard import FiniteGuard
from visionkit.run.callbacks.preempt import Preemption
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import Policy
from visionkit.run.training.trainer import build_trainer
from visionkit.tasks import Classifier

BATCH, CLASSES = 32, 10


class Net(nn.Module):
    """A convolution and a batch norm: the arithmetic that overhead is measured against."""

    dim, mean, std = 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images))).mean((2, 3))


class Batches(Dataset):
    """Batches that are there already, so that no side pays for reading."""

    def __init__(self, count: int) -> None:
        rng = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (count, BATCH, 3, 16, 16), generator=rng, dtype=torch.uint8)
        self.labels = torch.randint(0, CLASSES, (count, BATCH), generator=rng)
        self.ids = [[f"{batch}-{image}" for image in range(BATCH)] for batch in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"images": self.images[index], "labels": self.labels[index], "ids": self.ids[index]}


class InOrder(Sampler[list[int]]):
    batch_size = BATCH

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[index] for index in range(self.count)])


def first(samples: list[Any]) -> Any:
    return samples[0]


def loader(data: Batches) -> DataLoader:
    return DataLoader(data, batch_sampler=InOrder(len(data)), collate_fn=first)


def begin() -> tuple[Net, nn.Linear]:
    """The network and the head, each from one seed."""
    torch.manual_seed(0)
    net, head = Net(), nn.Linear(8, CLASSES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=generator)
        head.bias.zero_()
    return net, head


@contextmanager
def without_lightnings_check() -> Iterator[None]:
    """As where Lightning is not imported: it has torch ask the driver for a GPU, slowly, at every step."""
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ[name] = before or "0"


def bare(data: Batches, device: str = "cpu") -> dict[str, float]:
    """The loop that people write: the same counters, no framework."""
    net, head = (part.to(device) for part in begin())
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.0)
    loss_sum, top1, top5 = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
    with without_lightnings_check():
        for batch in loader(data):
            images, labels = batch["images"].to(device), batch["labels"].to(device)
            logits = head(net((images.float() / 255 - 0.5) / 0.5))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                right = logits.topk(5, 1).indices == labels[:, None]
                loss_sum += loss * BATCH
                top1 += right[:, 0].sum()
                top5 += right.sum()
    count = len(data) * BATCH
    return {"loss": float(loss_sum) / count, "top1": float(top1) / count, "top5": float(top5) / count}


class Plain(lightning.LightningModule):
    """The module that tutorials write: torchmetrics, and `self.log` in the step."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = begin()
        self.top1 = torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES, average="micro")
        self.top5 = torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES, top_k=5, average="micro")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        logits = self.head(self.net((batch["images"].float() / 255 - 0.5) / 0.5))
        loss = F.cross_entropy(logits, batch["labels"])
        self.top1(logits, batch["labels"])
        self.top5(logits, batch["labels"])
        self.log("train/loss", loss, on_step=True, on_epoch=True, batch_size=BATCH)
        self.log("train/top1", self.top1, on_step=True, on_epoch=True, batch_size=BATCH)
        self.log("train/top5", self.top5, on_step=True, on_epoch=True, batch_size=BATCH)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.0)


def plain(data: Batches) -> dict[str, float]:
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Plain(), loader(data))
    found = trainer.callback_metrics
    return {name: float(found[f"train/{name}_epoch"]) for name in ("loss", "top1", "top5")}


def ours(data: Batches, folder: Path, *, run: bool, accelerator: str = "cpu") -> dict[str, float]:
    """Our task; with `run`, under everything that a run adds: seeds, guard, preemption, checkpoints."""
    net, _ = begin()
    optim = OptimConfig(schedule="constant", warmup=0.0, weight_decay=0.0)
    torch.manual_seed(0)
    task = Classifier(net, init="scratch", num_classes=CLASSES, optim=optim, lr=1e-3)
    callbacks: list[lightning.Callback] = []
    if run:
        saver = SaveCheckpoints(folder, monitor=("val/top1", "max"), every=10**6)
        callbacks = [StepSeed(0), FiniteGuard(folder / "faults"), Preemption(saver), saver]
    config = RunConfig(progress=False, accelerator=accelerator, devices="1", deterministic=run)
    policy = Policy(accelerator, "32-true", channels_last=False, compile=False)
    trainer = build_trainer(
        config, folder=folder, policy=policy, callbacks=callbacks, max_epochs=1, log_every=20
    )
    trainer.fit(task, loader(data))
    found = trainer.callback_metrics
    return {name: float(found[f"train/{name}"]) for name in ("loss", "top1", "top5")}


def building(peer: Callable[[Batches], dict[str, float]], *, run: bool) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        data = Batches(pick(size, tiny=8, quick=300, full=600))
        folder = Path(tempfile.mkdtemp())
        return Sides(
            ours=lambda: ours(data, folder, run=run),
            theirs=lambda: peer(data),
            equal=close(atol=1e-4),
            close=lambda: shutil.rmtree(folder, ignore_errors=True),
        )

    return build


FLOOR = "about 1.6 with Lightning's loop as it is"
ROWS = (
    Row("training step, task under a Trainer", "bare torch loop", building(bare, run=False), goal=1.7,
        limit=FLOOR, package="torch", at_most=True, rounds=11),
    Row("training step, whole run", "bare torch loop", building(bare, run=True), goal=1.7, limit=FLOOR,
        package="torch", at_most=True, rounds=11,
        note="With everything a run adds: seeds a step, the finite guard, preemption, the checkpointer."),
    Row("training step, logged", "LightningModule, torchmetrics, self.log", building(plain, run=True),
        goal=2.0, limit="the arithmetic of the step", package="lightning", rounds=11),
)  # fmt: skip
