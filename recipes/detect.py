"""Detect objects, from pretrained weights and from scratch, and compare the two.

python recipes/detect.py                                          # embedded scenes, both arms, two seeds
python recipes/detect.py --data VOC2007/ --backbone timm/resnet50 --init both --image_size 600
python recipes/detect.py --data bccd/ --variant small              # a few hundred images, two CPU cores
python recipes/detect.py --data coco/ --variant he2019 --schedules 2 6 --init both
torchrun --nproc-per-node 8 recipes/detect.py --data VOC2007/ --devices 8
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from visionkit.config import OptimConfig, TransferConfig
from visionkit.run import RunConfig, launch, refuse_unused, setting
from visionkit.task_config import DETECTOR_SETTINGS, FCOSConfig, RCNNConfig, RetinaNetConfig, SceneConfig


@dataclass
class Config(RunConfig):
    """The settings of `detect.py`."""

    detector: str = setting(
        "faster_rcnn",
        "faster_rcnn | retinanet | fcos (--retinanet.NAME, --fcos.NAME)",
        choices=tuple(DETECTOR_SETTINGS),
    )
    rcnn: RCNNConfig = setting(
        RCNNConfig(anchor_scales=(4.0,), proposals_train=1000, proposals_eval=300),
        "Faster R-CNN and Mask R-CNN (anchor scales: 8 for COCO)",
    )
    retinanet: RetinaNetConfig = setting(
        RetinaNetConfig(norm="group", anchor_scales=(2.0, 2.52, 3.17), detections_per_img=100),
        "RetinaNet (anchor scales: twice as large for COCO)",
        rare=True,
    )
    fcos: FCOSConfig = setting(FCOSConfig(score_threshold=0.05), "FCOS", rare=True)
    pyramid_channels: int = setting(128, "channels of the pyramid's levels", min=1)
    augment: Literal["flip", "jitter", "lsj", "paste"] = setting(
        "flip", "flip | jitter | lsj (large-scale jitter) | paste (needs --rcnn.masks)"
    )
    tta_flip: bool = setting(False, "evaluation: average with the mirrored image", rare=True)
    tta_sizes: list[int] = setting([], "evaluation: average over these short sides", rare=True, min=8)
    backbones: list[str] = setting([], "a comparison for each of these, in one table", role="free")
    scenes: SceneConfig = setting(SceneConfig(1000, 200), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(masks=config.rcnn.masks, scenes=sizes, **config.open_options())
    return open_dataset(config.data, "detection", options)


def train_geometry(config: Config, reader: Any) -> Any:
    """Return the training geometry that `--augment` names; other images to paste come from `reader`."""
    from visionkit.data import Compose, CopyPaste, LargeScaleJitter, RandomHorizontalFlip, detection_train

    if config.augment in ("lsj", "paste"):
        square = Compose((LargeScaleJitter(config.image_size), RandomHorizontalFlip()))
        return square if config.augment == "lsj" else CopyPaste(reader, square)
    jitter = (0.8, 0.9, 1.0, 1.1, 1.2) if config.augment == "jitter" else (1.0,)
    return detection_train(config.image_size, jitter=jitter)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import DataModule, aspect_groups, detection_eval, list_batch, note_crowded
    from visionkit.run import BoxPreview, CurveFile, Preview, fit
    from visionkit.tasks import Detector

    chosen = DETECTOR_SETTINGS[config.detector]
    settings = getattr(config, chosen)
    splits = note_crowded(open_splits(config), settings.detections_per_img)
    data = DataModule(
        splits,
        **config.data_options(),
        train_transform=train_geometry(config, splits.train),
        eval_transform=detection_eval(config.image_size),
        collate=list_batch,
        eval_batch_size=config.batch_size,
    )
    sizes = getattr(data.train_reader, "sizes", None)
    if sizes and config.augment in ("flip", "jitter"):
        data.grouping = aspect_groups(sizes)
    # The longest side that the geometries above give: networks of fixed size are built for it.
    longest = round(config.image_size * 5 / 3 * (1.2 if config.augment == "jitter" else 1))
    task = Detector(
        config.backbone,
        **config.task_options(),
        num_classes=len(splits.classes),
        image_size=longest,
        detector=config.detector,
        **{chosen: settings},
        pyramid_channels=config.pyramid_channels,
        class_names=splits.classes,
        tta_flip=config.tta_flip,
        tta_sizes=config.tta_sizes,
    )
    callbacks = [Preview(folder, BoxPreview(splits.classes)), CurveFile(folder)]
    return fit(config, task, data, folder=folder, callbacks=callbacks)


def small(config: Config) -> Config:
    """Variant: a few hundred images on two CPU cores: 4,284 images of 320 px an arm.

    Target on 205 photographs of blood cells (BCCD, test list): above 0.55 AP pretrained, 0.50 from scratch.
    """
    config.image_size, config.batch_size, config.images, config.lr = 320, 4, config.images or 4284, 1e-3
    config.rcnn = replace(config.rcnn, box_samples=128, proposals_train=500, box_loss="giou")
    # Cells lie close: AP also counts what a low score finds, among more proposals.
    config.rcnn = replace(config.rcnn, proposals_eval=1000, score_threshold=0.01)
    config.retinanet = replace(config.retinanet, box_loss="giou", score_threshold=0.01)
    config.fcos = replace(config.fcos, score_threshold=0.01)
    config.optim, config.seeds = OptimConfig(ema=0.9, warmup=0.1), [0]
    return config


def low_data(config: Config) -> Config:
    """Variant: the low-data curve, every fraction trained for the same number of images.

    Target (He et al., COCO): from scratch is on par from a tenth of COCO on, and 6 to 7 AP behind at 3,500
    and 1,000 images. Cost: as many full runs as there are fractions.
    """
    config.images = config.images or 2448
    config = small(config)
    config.fractions = [0.1, 0.25, 1.0]
    return config


def architecture_matters(config: Config) -> Config:
    """Variant: one recipe, three backbones: AP, images a second, memory and parameters in one table and plot.

    Target: none; `architectures.md` is the result. Cost: three times `small`.
    """
    config = small(config)
    config.backbones = [f"packaged/efficientnet_lite{size}" for size in range(3)]
    return config


def lsj(config: Config) -> Config:
    """Variant: large-scale jitter, which asks for a schedule several times longer.

    Target: 44.6 box AP on COCO from scratch after 100 epochs at 1,024 px (Mask R-CNN R50-FPN, sync norms,
    Detectron2), within 1; its cost was not measured. The default length is for sets of a few hundred.
    """
    config.augment, config.images = "lsj", config.images or 20_000
    return config


def he2019(config: Config) -> Config:
    """Variant: "Rethinking ImageNet Pre-training": one trainable norm, nothing frozen, fixed last stages.

    1x is 1,440,000 images. The learning rate is cut for the last 960,000 and the last 320,000, whatever the
    total; longer `--schedules` (2 to 6) stretch only what comes before. Target: recipes/runs/he2019.sh,
    within 0.5 AP.
    """
    config.transfer = TransferConfig(norm="sync", freeze_through=0)
    config.rcnn = replace(config.rcnn, head="four_conv", anchor_scales=(8.0,))
    config.pyramid_channels = 256
    config.optim = OptimConfig(
        optimizer="sgd",
        schedule="steps",
        milestones_before_end=(960_000, 320_000),
        weight_decay=1e-4,
        batch=16,
        warmup=0.003,
    )
    config.lr, config.image_size = 0.02, 800
    config.images, config.schedules = config.images or 1_440_000, [2]  # 90,000 updates of 16
    return config


VARIANTS = (architecture_matters, he2019, low_data, lsj, small)
PATHS = ("data", "init")  # settings that name a file or a folder


def check(config: Config) -> None:
    """Refuse settings of a detector that is not the chosen one; `small` has those of all three."""
    unread = {group: f"--detector {n}" for n, group in DETECTOR_SETTINGS.items() if n != config.detector}
    refuse_unused(config, unread, usual=[Config(), small(Config())])


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import run_backbones, run_recipe

    check(config)
    config.out = config.out or "runs/detect"
    if config.backbones:
        one = replace(config, backbones=[])
        return run_backbones(one, config.backbones, train, paths=PATHS)
    return run_recipe(config, train, paths=PATHS)


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="detect.py")
