"""Detect objects, from pretrained weights and from scratch, and say what the weights were worth.

python recipes/detect.py                                          # embedded scenes, both arms, two seeds
python recipes/detect.py --data VOC2007/ --backbone timm/resnet50 --init both --image_size 600
python recipes/detect.py --data bccd/ --image_size 320 --images 2448 --batch_size 4 --lr 5e-4
torchrun --nproc-per-node 8 recipes/detect.py --data VOC2007/ --devices 8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionkit.config import OptimConfig, TransferConfig
from visionkit.run.config import RunConfig, setting
from visionkit.run.launch import launch


@dataclass
class Config(RunConfig):
    """What `detect.py` can be told."""

    masks: bool = setting(False, "also learn masks (Mask R-CNN); the data must have them")
    head: Literal["two_fc", "four_conv"] = setting("two_fc", "two_fc | four_conv")
    box_loss: Literal["smooth_l1", "l1", "giou"] = setting("smooth_l1", "smooth_l1 | l1 | giou")
    pyramid_channels: int = setting(128, "channels of the pyramid's levels")
    anchor_scale: float = setting(4.0, "side of the anchors of a level, in its positions (COCO: 8)")
    proposals: int = setting(1000, "proposals a picture in training; 3 of 10 of them in evaluation")
    box_samples: int = setting(512, "proposals a picture in the loss of the box head")
    augment: Literal["flip", "jitter", "lsj"] = setting("flip", "flip | jitter | lsj")
    train_size: int = setting(1000, "scenes only: pictures in the training split")
    val_size: int = setting(200, "scenes only: pictures in the validation split")


def main(config: Config) -> Path:
    """Run every arm, seed and fraction of `config`, then compare them; return the folder of it all."""
    from visionkit.run import run_recipe

    config.out = config.out or "runs/detect"
    return run_recipe(config, train)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import DataModule, list_batch
    from visionkit.data.detection_transforms import detection_eval
    from visionkit.nn.faster_rcnn import RCNNConfig
    from visionkit.run import fit
    from visionkit.tasks import Detector

    splits = open_splits(config)
    data = DataModule(
        splits,
        batch_size=config.batch_size,
        train_transform=train_geometry(config),
        eval_transform=detection_eval(config.image_size),
        collate=list_batch,
        seed=config.seeds[0],
        fraction=config.fractions[0],
        workers=config.workers,
        eval_batch_size=config.batch_size,
    )
    rcnn = RCNNConfig(
        masks=config.masks,
        head=config.head,
        box_loss=config.box_loss,
        anchor_scales=(config.anchor_scale,),
        box_samples=config.box_samples,
        proposals_train=config.proposals,
        proposals_eval=max(1, config.proposals * 3 // 10),
    )
    task = Detector(
        config.backbone,
        init=config.init,
        num_classes=len(splits.classes),
        rcnn=rcnn,
        pyramid_channels=config.pyramid_channels,
        class_names=splits.classes,
        transfer=config.transfer,
        optim=config.optim,
        lr=config.lr,
    )
    return fit(config, task, data, folder=folder)


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names: the embedded scenes, a pack, COCO files, or a Pascal VOC folder."""
    from visionkit.data.coco import coco, is_coco
    from visionkit.data.packed import is_pack, open_pack
    from visionkit.data.scenes import scenes
    from visionkit.data.voc import voc

    if config.data == "scenes":
        return scenes(
            "detection",
            size=config.image_size,
            train=config.train_size,
            val=config.val_size,
            test=config.val_size,
        )
    if is_pack(config.data):
        return open_pack(config.data, fields=("boxes", "masks") if config.masks else ("boxes",))
    if is_coco(config.data):
        return coco(config.data, masks=config.masks)
    return voc(config.data)


def train_geometry(config: Config) -> Any:
    """Return the training geometry that `--augment` names."""
    from visionkit.data import Compose, Flip
    from visionkit.data.detection_transforms import LargeScaleJitter, detection_train

    if config.augment == "lsj":
        return Compose((LargeScaleJitter(config.image_size), Flip()))
    jitter = (0.8, 0.9, 1.0, 1.1, 1.2) if config.augment == "jitter" else (1.0,)
    return detection_train(config.image_size, jitter=jitter)


def low_data(config: Config) -> Config:
    """Variant: the low-data curve, every fraction trained for the same number of images."""
    config.fractions, config.images = [0.1, 0.25, 1.0], config.images or 2448
    return config


def small(config: Config) -> Config:
    """Variant: a few hundred pictures on two CPU cores: 2,448 pictures of 320 px, ten minutes an arm."""
    config.image_size, config.batch_size, config.images, config.lr = 320, 4, config.images or 2448, 5e-4
    config.box_samples, config.proposals, config.box_loss = 128, 500, "giou"
    config.optim, config.seeds = OptimConfig(ema=0.9), [0]
    return config


def lsj(config: Config) -> Config:
    """Variant: large-scale jitter, which asks for a schedule several times longer."""
    config.augment, config.images = "lsj", config.images or 20_000
    return config


def he2019(config: Config) -> Config:
    """Variant: "Rethinking ImageNet Pre-training": one trainable norm, nothing frozen, fixed tails.

    The learning rate is cut for the last 960,000 and the last 320,000 images, whatever the total; more
    `--images` stretch only what comes before. The default, 2x, is 2,880,000 images.
    """
    config.transfer = TransferConfig(norm="sync", freeze_through=0)
    config.head, config.anchor_scale, config.pyramid_channels = "four_conv", 8.0, 256
    config.optim = OptimConfig(
        optimizer="sgd", schedule="steps", tails=(960_000, 320_000), weight_decay=1e-4, batch=16, warmup=0.003
    )
    config.lr, config.image_size, config.images = 0.02, 800, config.images or 2_880_000
    return config


VARIANTS = (he2019, low_data, lsj, small)

if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="detect.py")
