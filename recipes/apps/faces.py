"""Are two photographs of one person? Both arms on people that training never saw, beside eigenfaces.

python recipes/apps/faces.py --data orl/                       # a folder a person; each is once a test person
python recipes/apps/faces.py --data orl/ --folds 5 0 --seeds 0 1 2
python recipes/apps/faces.py --data lfw/ --image_size 112 --loss arcface --epochs 20

This is `embed.py` with folds of people, so that each is once a person of the test. Beside the scores of the
arms stand, in scores.md, those of what needs no training: the network off the shelf, eigenfaces, and pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visionkit.commands import load_recipe
from visionkit.errors import InputError
from visionkit.run import launch, setting
from visionkit.task_config import EmbeddingHead, RetrievalConfig

embed = load_recipe("embed", beside=__file__)  # the installed one where this file stands alone


@dataclass
class Config(embed.Config):
    """The settings of `faces.py`: those of `embed.py`, with other defaults."""

    data: str = setting("", "a folder of images in a folder a person (required)", group="data")
    image_size: int = setting(64, "side of the images, in pixels", group="data", min=8)
    unseen_classes: bool = setting(True, "validate and test on people that training never sees", group="data")
    folds: list[int] = setting(
        [5], "folds of people: K, or some of them (5 0 3)", group="data", role="arm", min=0
    )
    seeds: list[int] = setting(
        [0], "one run for each", group="training", role="arm", min=0, max=2**32 - 1, unique=True
    )
    head: EmbeddingHead = setting(EmbeddingHead(dim=0), "the vectors, and numbers of the loss")
    select_by: str = setting("pair_auc", "pair_auc recall_at_1 map_at_r ...: what weights are chosen by")
    retrieval: RetrievalConfig = setting(RetrievalConfig(baselines=True), "what images are searched among")


def main(config: Config) -> Path:
    """Train both arms on each fold of people, and score them and the baselines; return the folder."""
    if not config.data:
        raise InputError("Expected --data with a folder of images in a folder a person, but got none.")
    config.out = config.out or "runs/faces"
    return Path(embed.main(config))


if __name__ == "__main__":
    launch(main, Config, doc=__doc__, prog="faces.py")
