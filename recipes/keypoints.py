"""Find the points of an object (the joints of a person), from pretrained weights and from scratch.

python recipes/keypoints.py                                        # embedded scenes, both arms, two seeds
python recipes/keypoints.py --data person_keypoints.json --variant heatmap --image_size 192
python recipes/keypoints.py --data points.csv --deeppose.stages 0  # a table: NAME_x, NAME_y for each point
python recipes/keypoints.py --data lsp/ --variant deeppose --fractions 0.1 0.3 1.0
torchrun --nproc-per-node 8 recipes/keypoints.py --data coco/ --devices 8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionkit.run import RunConfig, launch, refuse_unused, setting
from visionkit.task_config import KEYPOINT_HEADS, DeepPoseConfig, HeatmapConfig, KeypointAugment, SceneConfig


@dataclass
class Config(RunConfig):
    """The settings of `keypoints.py`."""

    head: str = setting("deeppose", "deeppose | heatmap", choices=tuple(KEYPOINT_HEADS))
    deeppose: DeepPoseConfig = setting(DeepPoseConfig(), "points by regression, in stages")
    heatmap: HeatmapConfig = setting(HeatmapConfig(), "points as the mean places of heat maps")
    around: Literal["box", "image"] = setting("box", "what an image shows: box (one object's) | image (all)")
    padding: float = setting(1.25, "with box: factor of its sides", above=0)
    augment: KeypointAugment = setting(KeypointAugment(), "how the crops of training vary")
    pck_threshold: float = setting(0.2, "distance of a right point, as a fraction of its object", above=0)
    pck_size: Literal["auto", "torso", "box"] = setting(
        "auto", "size of an object: torso | box | auto (the torso where there is one)"
    )
    scenes: SceneConfig = setting(SceneConfig(1000, 200), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names, one object a sample."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset, per_object

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(scenes=sizes, **config.open_options())
    return per_object(open_dataset(config.data, "keypoints", options))


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from dataclasses import asdict

    from visionkit.data import DataModule, keypoint_batch, keypoint_eval, keypoint_train, skeleton_of
    from visionkit.run import KeypointPreview, Preview, fit
    from visionkit.tasks import KeypointRegressor

    splits = open_splits(config)
    skeleton = skeleton_of(splits)
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
        pck_threshold=config.pck_threshold,
        pck_size=None if config.pck_size == "auto" else config.pck_size,
        image_size=config.image_size,
    )
    return fit(config, task, data, folder=folder, callbacks=[Preview(folder, KeypointPreview(skeleton))])


def deeppose(config: Config) -> Config:
    """Variant: coordinates by regression, refined in two stages on crops around each point.

    Target: none measured on the whole of LSP; the paper has a PCP of 0.61 there, with 11,000 images.
    """
    config.head = "deeppose"
    return config


def heatmap(config: Config) -> Config:
    """Variant: a heat map for each point; its mean place is the point. Slower, and the nearer."""
    config.head = "heatmap"
    return config


VARIANTS = (deeppose, heatmap)
PATHS = ("data", "init")  # settings that name a file or a folder


def check(config: Config) -> None:
    """Refuse settings of a head that is not the chosen one."""
    unread = {name: f"--head {name}" for name in KEYPOINT_HEADS if name != config.head}
    refuse_unused(config, unread, usual=[Config()])


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import run_recipe

    check(config)
    config.out = config.out or "runs/keypoints"
    return run_recipe(config, train, paths=PATHS)


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="keypoints.py")
