"""Fits every policy and says whether what it freezes stayed as it was."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from tests.tasks.offline import digest, frozen_state, weights_file
from visionkit.config import OptimConfig, TransferConfig
from visionkit.run.callbacks.unfreeze import Unfreeze
from visionkit.tasks import Classifier

RANK = os.environ.get("LOCAL_RANK", "0")

POLICIES = {
    "full": (TransferConfig(), 0),
    "linear probe": (TransferConfig(freeze_through="all"), "all"),
    "freeze through 8": (TransferConfig(freeze_through=8), 8),
    # 4 images an update and process: unfreezes after the second update; 8 stays frozen to the end
    "staged unfreezing": (TransferConfig(freeze_through="all", unfreeze_at=((8, 16), (16, 8))), 8),
    "layer decay": (TransferConfig(freeze_through=4, layer_decay=0.5), 4),
    "probe from 16": (TransferConfig(freeze_through="all", probe_level=16), "all"),
}


class Noise(Dataset):
    """Images that are a function of their index."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator), torch.tensor(
            index % 3
        )


def fit(
    name: str, init: str, transfer: TransferConfig, through: int | str, processes: int
) -> dict[str, object]:
    torch.manual_seed(0)
    task = Classifier(
        name, init=init, num_classes=3, transfer=transfer, lr=0.05, optim=OptimConfig(optimizer="sgd")
    )
    frozen = digest(frozen_state(task.backbone, through))
    before = {n: p.detach().clone() for n, p in task.named_parameters()}
    statistics = {n: b.clone() for n, b in task.backbone.named_buffers() if "running" in n}
    kept = set(frozen_state(task.backbone, through))
    trainer = lightning.Trainer(
        max_steps=5,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Unfreeze()],
        limit_val_batches=0,
    )
    batch = 4 // processes
    trainer.fit(task, DataLoader(Noise(40), batch_size=batch))
    moved = {n for n, p in task.named_parameters() if not torch.equal(p, before[n])}
    names = {f"backbone.{n}" for n in kept}
    # gains may get a gradient below rounding; filters do not
    still = {n for n, p in before.items() if n not in names and n not in moved and p.ndim > 1}
    walked = {
        n for n, b in task.backbone.named_buffers() if n in statistics and not torch.equal(b, statistics[n])
    }
    return {
        "frozen": len(kept),
        "unchanged": digest(frozen_state(task.backbone, through)) == frozen,
        "moved": len(moved),
        "stuck": sorted(still),
        "statistics moved": len(walked),
        "statistics that should": len(set(statistics) - kept),
        "weights": digest(dict(task.named_parameters())),
    }


def main(folder: str, processes: int, families: list[str]) -> dict[str, dict[str, object]]:
    warnings.simplefilter("ignore")
    report = {}
    for name in families:
        own = Path(folder, f"{name.replace('/', '-')}-{RANK}")
        own.mkdir(parents=True, exist_ok=True)
        init = weights_file(name, own)
        for policy, (transfer, through) in POLICIES.items():
            report[f"{name}: {policy}"] = fit(name, init, transfer, through, processes)
    return report
