"""Segment images, from pretrained weights and from scratch, and compare the two.

python recipes/segment.py                                         # embedded scenes, both arms, two seeds
python recipes/segment.py --data camvid/ --crop 256 320 --images 16000 --batch_size 8 --seeds 0
python recipes/segment.py --data VOC2012/ --variant voc12aug_20k --decoder deeplabv3 --init pretrained
torchrun --nproc-per-node 4 recipes/segment.py --data cityscapes/ --variant cityscapes_80k --devices 4
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from visionkit.config import OptimConfig, TransferConfig
from visionkit.run import RunConfig, launch, setting
from visionkit.task_config import SceneConfig, SegmentationAugment, SegmentationHead, SegmentationViews


@dataclass
class Config(RunConfig):
    """The settings of `segment.py`."""

    decoder: Literal["unet", "semantic_fpn", "upernet", "fcn", "psp", "deeplabv3", "deeplabv3plus"] = setting(
        "unet", "unet semantic_fpn upernet fcn psp deeplabv3 deeplabv3plus"
    )
    loss: str = setting("ce", "a sum of ce ohem dice focal tversky lovasz: 'ce + 0.5*dice'")
    class_weights: Literal["none", "balanced"] | float = setting(
        "none",
        "none | balanced | 0 to 1: weight of a class, its fraction of pixels to minus this",
        min=0,
        max=1,
    )
    head: SegmentationHead = setting(SegmentationHead(), "sizes of the decoder")
    classes: str = setting("", "label map file, for folders of masks (default classes.txt)", group="data")
    crop: list[int] = setting(
        [], "height width of the training windows; empty: --image_size", group="data", min=8
    )
    augment: SegmentationAugment = setting(SegmentationAugment(), "training windows", group="data")
    views: SegmentationViews = setting(SegmentationViews(), "evaluation")
    backbones: list[str] = setting(
        [], "a comparison for each of these, in one table", group="model", role="free"
    )
    scenes: SceneConfig = setting(SceneConfig(1000, 200), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(classes=config.classes, scenes=sizes, **config.open_options())
    return open_dataset(config.data, "segmentation", options)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import (
        DataModule,
        balanced_weights,
        mask_batch,
        pixel_counts,
        segmentation_eval,
        segmentation_train,
    )
    from visionkit.run import MaskPreview, Preview, fit
    from visionkit.tasks import Segmenter

    splits = open_splits(config)
    height, width = config.crop or (config.image_size, config.image_size)
    data = DataModule(
        splits,
        **config.data_options(),
        train_transform=segmentation_train((height, width), **vars(config.augment)),
        eval_transform=segmentation_eval(),
        collate=mask_batch,
        eval_batch_size=max(1, config.batch_size // 4),
    )
    weights = None
    if config.class_weights != "none":
        counts = pixel_counts(data.train_reader, len(splits.classes))
        weights = balanced_weights(counts, power=config.class_weights)
    task = Segmenter(
        config.backbone,
        **config.task_options(),
        num_classes=len(splits.classes),
        image_size=(height, width),
        decoder=config.decoder,
        loss=config.loss,
        class_weights=weights,
        aux_loss_weight=config.head.aux_loss_weight,
        output_stride=config.head.output_stride or None,
        channels=config.head.channels or None,
        **vars(config.views),
        class_names=splits.classes,
    )
    return fit(config, task, data, folder=folder, callbacks=[Preview(folder, MaskPreview(splits.classes))])


def voc12aug_20k(config: Config) -> Config:
    """Variant: Pascal VOC 2012 with the extra masks, 20,000 updates of 16 images, over a dilated ResNet-50.

    Targets, single scale (MMSegmentation's published results of this schedule), mIoU on the 1,449 validation
    images: FCN 67.08 (the default here), DeepLabV3 76.17 (`--decoder deeplabv3`), DeepLabV3+ 75.93, PSPNet
    76.78. Theirs has a ResNet with a stem of three convolutions. torchvision's models, trained on COCO's
    images of these classes, read 60.5 (FCN) and 66.4 (DeepLabV3) on COCO. Cost: 320,000 windows of
    512 x 512; 3 to 4 hours on one data-centre GPU (an estimate), weeks on a CPU.
    """
    _published(config)
    config.data = config.data if config.data != "scenes" else "VOC2012"
    config.crop, config.batch_size, config.images = [512, 512], 16, config.images or 320_000
    # Theirs scales from a short side of 512, ours from the image's own: about 375 pixels.
    config.augment = replace(config.augment, scale=(0.68, 2.73))
    config.views = replace(config.views, scales=(1.365,))
    return config


def cityscapes_80k(config: Config) -> Config:
    """Variant: Cityscapes, 80,000 updates of 8 windows of 512 x 1024, over a dilated ResNet-50.

    Targets, single scale, whole images (MMSegmentation's published results of this schedule), mIoU on the
    500 validation images: FCN 73.61 (the default here), DeepLabV3 79.32, DeepLabV3+ 80.09, PSPNet 78.55.
    Cost: 640,000 windows; about 16 hours on one data-centre GPU (an estimate).
    """
    _published(config)
    config.data = config.data if config.data != "scenes" else "cityscapes"
    config.crop, config.batch_size, config.images = [512, 1024], 8, config.images or 640_000
    return config


def low_data(config: Config) -> Config:
    """Variant: the low-data curve, every fraction trained for the same number of images."""
    config.fractions, config.images = [0.1, 0.25, 1.0], config.images or 16_000
    return config


def architecture_matters(config: Config) -> Config:
    """Variant: one recipe, several backbones: a table of score, speed and memory besides the comparisons."""
    config.backbones = ["timm/resnet18", "timm/resnet50", "timm/convnext_tiny", "timm/mobilenetv3_large_100"]
    config.init, config.seeds = "pretrained", [0]
    return config


def _published(config: Config) -> None:
    """Set what the published schedules share: SGD, poly to a hundredth, auxiliary head, sync norms."""
    config.backbone, config.decoder, config.lr, config.seeds = "timm/resnet50", "fcn", 0.01, [0]
    config.head = SegmentationHead(output_stride=8, aux_loss_weight=0.4)
    config.transfer = TransferConfig(norm="sync", backbone_lr_scale=1.0)
    config.optim = OptimConfig(
        optimizer="sgd", schedule="poly", power=0.9, min_lr_ratio=0.01, weight_decay=5e-4, warmup=0.0
    )


VARIANTS = (architecture_matters, cityscapes_80k, low_data, voc12aug_20k)
PATHS = ("data", "init", "classes")  # settings that name a file or a folder


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import run_backbones, run_recipe

    config.out = config.out or "runs/segment"
    if config.backbones:
        one = replace(config, backbones=[])
        return run_backbones(one, config.backbones, train, paths=PATHS)
    return run_recipe(config, train, paths=PATHS)


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="segment.py")
