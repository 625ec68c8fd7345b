"""See what a linear classifier, an MLP and a small CNN learn of images: their weights, drawn as images.

python recipes/apps/templates.py --data cifar10/            # three networks, one seed, three images
python recipes/apps/templates.py --data photos/ --epochs 30 --seeds 0 1

Each is a `Classifier` over a network of a few lines that is registered as a backbone. A linear classifier has
a template for each class, an MLP a bank of them, a CNN a bank of small ones. Beside the runs lie linear.png,
mlp.png and cnn.png.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from visionkit.config import OptimConfig
from visionkit.errors import InputError
from visionkit.run import RunConfig, launch, setting

SIDE, HIDDEN = 32, 64  # pixels; hidden units of the MLP
NETWORKS = tuple(f"templates/{name}" for name in ("linear", "mlp", "cnn"))


@dataclass
class Config(RunConfig):
    """The settings of `templates.py`."""

    data: str = setting("", "a folder of images in a folder a class (required)", group="data")
    image_size: int = setting(SIDE, f"side of the images: {SIDE}", group="data", min=SIDE, max=SIDE)
    backbone: str = setting(NETWORKS[0], "the networks of this file, one after the other", group="model")
    init: str = setting("scratch", "scratch: the networks have no other weights", group="model", role="arm")
    epochs: int = setting(10, "passes over the training split", group="training", min=1)
    batch_size: int = setting(64, "images a step on each device", group="training", min=1)
    lr: float = setting(2e-3, "peak learning rate", group="training", above=0)
    # Strong, so that what is left of a template is what the images gave it, and not its random start.
    optim: OptimConfig = setting(OptimConfig(weight_decay=1.5), "optimiser and schedule", group="training")
    seeds: list[int] = setting(
        [0], "one run for each", group="training", role="arm", min=0, max=2**32 - 1, unique=True
    )


@cache
def register_networks() -> None:
    """Register the three networks as backbones, whose last maps a `Classifier` takes the mean of."""
    from torch import Tensor, nn

    from visionkit.backbones import Level, register_backbone

    class Network(nn.Sequential):
        """Layers whose last maps are the only level."""

        mean, std, input_size = (0.5,) * 3, (0.25,) * 3, (SIDE, SIDE)

        def __init__(self, level: Level, *layers: nn.Module) -> None:
            super().__init__(*layers)
            self.levels = (level,)

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (super().forward(images),)

    @register_backbone(NETWORKS[0])
    def linear() -> nn.Module:
        # One position with all pixels: (B, 3, 32, 32) -> (B, 3072, 1, 1). The head is what learns.
        return Network(Level(3 * SIDE**2, SIDE), nn.PixelUnshuffle(SIDE))

    @register_backbone(NETWORKS[1])
    def mlp() -> nn.Module:
        # A convolution as large as the image is a linear layer.
        return Network(Level(HIDDEN, SIDE), nn.Conv2d(3, HIDDEN, SIDE, stride=SIDE), nn.ReLU())

    @register_backbone(NETWORKS[2])
    def cnn() -> nn.Module:
        layers: list[nn.Module] = []
        for channels, out_channels, side in ((3, 32, 7), (32, 64, 3), (64, 128, 3)):
            layers += [nn.Conv2d(channels, out_channels, side, padding=side // 2), nn.ReLU(), nn.MaxPool2d(2)]
        return Network(Level(128, 8), *layers)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one network in `folder` and return its result."""
    from visionkit.data import (
        CenterCrop,
        Compose,
        DataModule,
        OpenOptions,
        RandomHorizontalFlip,
        classification_eval,
        open_dataset,
        stack_batch,
    )
    from visionkit.run import fit
    from visionkit.tasks import Classifier

    splits = open_dataset(config.data, "classification", OpenOptions(**config.open_options()))
    data = DataModule(
        splits,
        **config.data_options(),
        # Neither crop nor zoom: a template sees each pixel at one position.
        train_transform=Compose((CenterCrop(SIDE), RandomHorizontalFlip())),
        eval_transform=classification_eval(SIDE),
        collate=stack_batch,
        eval_batch_size=256,
    )
    task = Classifier(
        config.backbone,
        **config.task_options(),
        num_classes=len(splits.classes),
        image_size=SIDE,
        class_names=splits.classes,
    )
    return fit(config, task, data, folder=folder)


def draw(out: Path, folders: dict[str, Path]) -> None:
    """Write what each network's first weights look like.

    Args:
        out: Where the images are written.
        folders: The run of each network.
    """
    from visionkit.interpret import open_subject, weight_sheet

    for name, folder in folders.items():
        subject = open_subject(folder)
        if name == NETWORKS[0]:
            weight = subject.task.head.weight.view(-1, 3, SIDE, SIDE)  # (classes, 3072) -> one image a class
            sheet = weight_sheet(weight, names=subject.class_names, side=96, columns=5)
        else:
            first = next(layer for layer in subject.network.modules() if hasattr(layer, "kernel_size"))
            sheet = weight_sheet(first.weight, side=64, columns=8)
        sheet.save(out / f"{name.rpartition('/')[2]}.png")


def main(config: Config) -> Path:
    """Train the three networks, print their accuracies, and draw their weights; return the folder."""
    from visionkit.compare import find_runs, read_run
    from visionkit.run import is_first, run_backbones, trains

    if not config.data:
        raise InputError("Expected --data with a folder of images, but got none: CIFAR-10, or your own.")
    config.out = config.out or "runs/templates"
    register_networks()
    out = run_backbones(config, NETWORKS, train, paths=("data",))
    if not is_first() or not trains():
        return out
    runs = {name: find_runs([out / name.replace("/", "-")]) for name in NETWORKS}
    for name, every in runs.items():
        for folder in every:
            metrics = read_run(folder).result["metrics"]
            scores = [f"{key} {value:.3f}" for key, value in metrics.items() if key.endswith("/top1")]
            print(f"{name}  {folder.name}  {', '.join(scores)}")
    draw(out, {name: every[0] for name, every in runs.items()})
    print(f"images  {out}")
    return out


if __name__ == "__main__":
    launch(main, Config, doc=__doc__, prog="templates.py")
