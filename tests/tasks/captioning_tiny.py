"""A small captioner over grey images whose captions say how bright they are: seconds, exact, no weights."""

from __future__ import annotations

import warnings
from functools import partial

import lightning
import torch
from torch import nn

from visionkit.backbones import Level
from visionkit.config import OptimConfig
from visionkit.data import DataModule, DrawCaptions, Splits, caption_batch
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.tasks import Captioner, Decoding
from visionkit.tasks.captioning.self_critical import training_frequency
from visionkit.text.vocabulary import Vocabulary

WORDS = Vocabulary(("a", "dark", "grey", "bright", "image", "it", "is"))
FLAT = OptimConfig(schedule="constant", warmup=0.0, weight_decay=0.0)


class Tiny(nn.Module):
    """A user's own source of maps; it has no statistics that would depend on the batch."""

    levels = (Level(6, 2), Level(8, 4))

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 2, stride=2)
        self.second = nn.Conv2d(6, 8, 2, stride=2)

    def forward(self, images):
        one = self.first(images).relu()
        return one, self.second(one).relu()


class Bright:
    """Images of three brightnesses, each with two captions."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.ids = [f"{seed}-{index}" for index in range(count)]
        kinds = [("dark", "grey", "bright")[index % 3] for index in range(count)]
        self.captions = [[f"a {kind} image", f"it is {kind}"] for kind in kinds]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        image = torch.randint(0, 60, (3, 8, 8), generator=generator) + 90 * (index % 3)
        return {
            "image": image.to(torch.uint8),
            "id": self.ids[index],
            "captions": list(self.captions[index]),
            "size": (8, 8),
        }


def keep(sample, rng):
    return sample


def data(*, batch_size: int = 4, several: int = 2, train: int = 24) -> DataModule:
    return DataModule(
        Splits(Bright(train, 1), Bright(7, 2), None, (), "bright"),
        batch_size=batch_size,
        train_transform=DrawCaptions(),
        eval_transform=keep,
        collate=partial(caption_batch, encode=WORDS.encode, captions_per_image=several),
        seed=3,
    )


def captioner(decoder: str = "show_attend_tell", backbone: nn.Module | None = None, **settings) -> Captioner:
    torch.manual_seed(0)
    given = {
        "init": "scratch", "vocabulary": WORDS, "embed": 8, "hidden": 16, "attention": 8, "dropout": 0.2,
        "optim": FLAT, "lr": 1e-2, "decoding": Decoding(beams=2, max_length=6),
        "frequency": training_frequency(Bright(24, 1).captions),
    }  # fmt: skip
    return Captioner(backbone or Tiny(), decoder=decoder, **{**given, **settings})


def trainer(**settings) -> lightning.Trainer:
    warnings.simplefilter("ignore")
    given = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False,
        "max_epochs": -1, "callbacks": [StepSeed(3)], "log_every_n_steps": 1,
    }  # fmt: skip
    return lightning.Trainer(**{**given, **settings})
