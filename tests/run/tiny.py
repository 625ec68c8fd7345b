"""A small task and data set on which exactness can be told to the last bit, in seconds."""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn

from visionkit.data.datamodule import DataModule
from visionkit.data.splits import Splits


class Noise:
    """A reader of fixed random images with learnable labels."""

    def __init__(self, size: int, seed: int, side: int = 8) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (size, 3, side, side), generator=rng, dtype=torch.uint8)
        self.labels = torch.randint(0, 3, (size,), generator=rng).tolist()
        self.ids = [f"noise-{seed}-{index}" for index in range(size)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "label": torch.tensor(self.labels[index]), "id": self.ids[index]}


def jitter(sample: dict, rng: torch.Generator) -> dict:
    """An augmentation that draws from its generator alone."""
    shift = int(torch.randint(0, 64, (), generator=rng))
    return {**sample, "image": (sample["image"].int() + shift).clamp(0, 255).to(torch.uint8)}


def keep(sample: dict, rng: torch.Generator) -> dict:
    return sample


def stack(samples: list[dict]) -> dict:
    if not samples:
        return {"ids": []}
    return {
        "images": torch.stack([s["image"] for s in samples]),
        "labels": torch.stack([s["label"] for s in samples]),
        "ids": [s["id"] for s in samples],
    }


def noisy_batch(batch: dict, rng: torch.Generator) -> dict:
    noise = torch.rand(batch["images"].shape, generator=rng)
    return {**batch, "images": batch["images"] / 255 + 0.1 * noise}


def tiny_data(
    size: int = 30,
    batch_size: int = 4,
    *,
    workers: int = 0,
    seed: int = 5,
    valid: int = 11,
    sampler: str = "shuffle",
) -> DataModule:
    splits = Splits(Noise(size, 1), Noise(valid, 2), None, ("a", "b", "c"), "noise", {})
    return DataModule(
        splits,
        batch_size=batch_size,
        train_transform=jitter,
        eval_transform=keep,
        collate=stack,
        batch_transform=noisy_batch,
        seed=seed,
        workers=workers,
        sampler=sampler,
        images_per_class=2,
    )


class TinyTask(lightning.LightningModule):
    """A convolution, dropout and a linear layer, with a record of everything that happened."""

    monitor = ("val/top1", "max")

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)
        )
        self.seen: list[tuple[int, list[str], float]] = []
        self.validations: list[tuple[int, float]] = []
        self.loss_terms: dict[str, Tensor] = {}
        self._right = self._count = 0

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.float() / 255 if images.dtype == torch.uint8 else images)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch["images"]), batch["labels"])
        self.loss_terms = {"loss": loss.detach()}
        self.seen.append(
            (self.trainer.fit_loop.epoch_loop.batch_progress.total.ready, batch["ids"], float(loss.detach()))
        )
        return loss

    def validation_step(self, batch: dict, batch_idx: int) -> dict:
        if not batch["ids"]:
            return {"preds": None}
        logits = self(batch["images"])
        self._right += int((logits.argmax(1) == batch["labels"]).sum())
        self._count += len(batch["ids"])
        return {"preds": logits}

    def on_validation_epoch_end(self) -> None:
        counts = torch.tensor([self._right, self._count], dtype=torch.float64)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        score = float(counts[0] / counts[1])
        self.validations.append((self.trainer.global_step, score))
        self._right = self._count = 0
        self.log("val/top1", score)

    def configure_optimizers(self) -> dict:
        # As schedules do: Lightning makes the loaders here, before it restores where the run stood.
        assert self.trainer.estimated_stepping_batches > 0
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
