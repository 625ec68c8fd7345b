"""Find the points of an object (the joints of a person), from pretrained weights and from scratch.

python recipes/keypoints.py                                        # embedded scenes, both arms, two seeds
python recipes/keypoints.py --data person_keypoints.json --variant heatmap --image_size 192
python recipes/keypoints.py --data points.csv --deeppose.stages 0  # a table: NAME_x, NAME_y for each point
python recipes/keypoints.py --data lsp/ --variant deeppose --fractions 0.1 0.3 1.0
python recipes/keypoints.py --data coco/ --variant keypoint_rcnn   # objects first, then the points of each
torchrun --nproc-per-node 8 recipes/keypoints.py --data coco/ --devices 8
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from visionkit.config import OptimConfig
from visionkit.errors import InputError
from visionkit.run import RunConfig, launch, refuse_unused, setting
from visionkit.task_config import (
    KEYPOINT_HEADS,
    DeepPoseConfig,
    HeatmapConfig,
    KeypointAugment,
    PCKConfig,
    RCNNConfig,
    SceneConfig,
)

HEADS = (*KEYPOINT_HEADS, "keypoint_rcnn")
# What only the regressors read: their images are crops, and they are scored object by object.
OF_CROPS = ("around", "padding", "pck")


@dataclass
class Config(RunConfig):
    """The settings of `keypoints.py`."""

    head: str = setting("deeppose", "deeppose | heatmap | keypoint_rcnn (finds the objects)", choices=HEADS)
    deeppose: DeepPoseConfig = setting(DeepPoseConfig(), "points by regression, in stages")
    heatmap: HeatmapConfig = setting(HeatmapConfig(), "points as the mean places of heat maps")
    rcnn: RCNNConfig = setting(
        RCNNConfig(anchor_scales=(4.0,), proposals_train=1000, proposals_eval=300, keypoint_convs=4),
        "Keypoint R-CNN (anchor scales: 8 for COCO)",
        rare=True,
    )
    pyramid_channels: int = setting(128, "keypoint_rcnn: channels of the pyramid's levels", rare=True, min=1)
    around: Literal["box", "image"] = setting("box", "what an image shows: box (one object's) | image (all)")
    padding: float = setting(1.25, "with box: factor of its sides", above=0)
    augment: KeypointAugment = setting(KeypointAugment(), "how images vary in training")
    pck: PCKConfig = setting(PCKConfig(), "which points are right")
    scenes: SceneConfig = setting(SceneConfig(1000, 200), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names, one object a sample for the regressors."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset, per_object

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(scenes=sizes, **config.open_options())
    splits = open_dataset(config.data, "keypoints", options)
    return splits if config.head == "keypoint_rcnn" else per_object(splits)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from dataclasses import asdict

    from visionkit.data import DataModule, keypoint_batch, keypoint_eval, keypoint_train, skeleton_of
    from visionkit.run import KeypointPreview, Preview, fit
    from visionkit.tasks import KeypointRegressor

    splits = open_splits(config)
    skeleton = skeleton_of(splits)
    if config.head == "keypoint_rcnn":
        return train_detector(config, folder, splits, skeleton)
    augment = asdict(config.augment)
    if skeleton.flip is None:
        augment["flip"] = 0.0  # which points a mirror swaps is not known: a notice of the data says so
    crop = {"around": config.around, "padding": config.padding}
    data = DataModule(
        splits,
        **config.data_options(),
        train_transform=keypoint_train(config.image_size, **crop, **augment),
        eval_transform=keypoint_eval(config.image_size, **crop),
        collate=keypoint_batch,
        eval_batch_size=4 * config.batch_size,
    )
    task = KeypointRegressor(
        config.backbone,
        **config.task_options(),
        skeleton=skeleton,
        head=config.head,
        **{config.head: getattr(config, config.head)},
        pck_threshold=config.pck.threshold,
        pck_size=None if config.pck.size == "auto" else config.pck.size,
        image_size=config.image_size,
    )
    return fit(config, task, data, folder=folder, callbacks=[Preview(folder, KeypointPreview(skeleton))])


def train_detector(config: Config, folder: Path, splits: Any, skeleton: Any) -> dict[str, Any]:
    """Train one Keypoint R-CNN in `folder` and return its result."""
    from visionkit.data import Compose, DataModule, Photometric, detection_eval, detection_train, list_batch
    from visionkit.run import BoxPreview, CurveFile, Preview, fit
    from visionkit.tasks import Detector

    flip = 0.0 if skeleton.flip is None else config.augment.flip
    scale = config.augment.scale
    jitter = (1 - scale, 1 - scale / 2, 1.0, 1 + scale / 2, 1 + scale) if scale else (1.0,)
    geometry = detection_train(config.image_size, jitter=jitter, flip=flip)
    colors = Photometric(config.augment.photometric)
    data = DataModule(
        splits,
        **config.data_options(),
        train_transform=Compose((geometry, colors)) if config.augment.photometric else geometry,
        eval_transform=detection_eval(config.image_size),
        collate=list_batch,
        eval_batch_size=config.batch_size,
    )
    task = Detector(
        config.backbone,
        **config.task_options(),
        num_classes=len(splits.classes),
        class_names=splits.classes,
        keypoints=skeleton,
        rcnn=config.rcnn,
        pyramid_channels=config.pyramid_channels,
        image_size=round(config.image_size * 5 / 3 * (1 + scale)),  # no side is longer
    )
    preview = Preview(folder, BoxPreview(splits.classes, edges=skeleton.edges))
    return fit(config, task, data, folder=folder, callbacks=[preview, CurveFile(folder)])


def deeppose(config: Config) -> Config:
    """Variant: coordinates by regression, refined in two stages on crops around each point.

    Target: none measured on the whole of LSP; the paper has a PCP of 0.61 there, with 11,000 images.
    """
    config.head = "deeppose"
    return config


def heatmap(config: Config) -> Config:
    """Variant: a heat map for each point, whose mean place is the point; for long schedules."""
    config.head = "heatmap"
    return config


def keypoint_rcnn(config: Config) -> Config:
    """Variant: any number of objects an image: boxes first, then the points of each (Keypoint R-CNN).

    Sized for a hundred images of 224 px on two cores. For COCO: --rcnn.keypoint_convs 8
    --rcnn.keypoint_width 512 --rcnn.box_samples 512 --rcnn.anchor_scales 8 --image_size 800.
    """
    config.head, config.image_size, config.batch_size, config.lr = "keypoint_rcnn", 224, 4, 1e-3
    config.rcnn = replace(config.rcnn, keypoint_width=64, box_samples=64, box_loss="giou")
    config.rcnn = replace(config.rcnn, proposals_train=300, proposals_eval=100, detections_per_img=20)
    config.pyramid_channels, config.images, config.seeds = 64, config.images or 1480, [0]
    config.optim = OptimConfig(ema=0.9, warmup=0.1)
    return config


VARIANTS = (deeppose, heatmap, keypoint_rcnn)
PATHS = ("data", "init")  # settings that name a file or a folder


def check(config: Config) -> None:
    """Refuse settings of a head that is not the chosen one."""
    usual, finds_boxes = Config(), config.head == "keypoint_rcnn"
    unread = {name: f"--head {name}" for name in KEYPOINT_HEADS if name != config.head}
    unread |= {} if finds_boxes else {"rcnn": "--head keypoint_rcnn"}
    refuse_unused(config, unread, usual=[usual, keypoint_rcnn(Config())])
    names = OF_CROPS if finds_boxes else ("pyramid_channels",)
    given = [f"--{name}" for name in names if getattr(config, name) != getattr(usual, name)]
    turns = [(name, getattr(config.augment, name)) for name in ("shift", "degrees")] if finds_boxes else []
    given += [f"--augment.{n}" for n, value in turns if value not in (0, getattr(usual.augment, n))]
    if given:
        raise InputError(f"--head {config.head} would not read {', '.join(given)}. Leave it out.")


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import run_recipe

    check(config)
    config.out = config.out or "runs/keypoints"
    return run_recipe(config, train, paths=PATHS)


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="keypoints.py")
