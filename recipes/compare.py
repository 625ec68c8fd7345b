"""Does pretrained init beat from-scratch here? Both arms, two seeds, one report, in minutes.

python recipes/compare.py                                   # the embedded scenes, 2 CPU cores, no network
python recipes/compare.py --data photos/ --backbone timm/resnet50 --image_size 224 --seeds 0 1 2
python recipes/compare.py --fractions 0.1 0.3 1.0           # with how little data?
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visionkit.commands import load_recipe
from visionkit.errors import InputError
from visionkit.run import launch

classify = load_recipe("classify", beside=__file__)  # the installed one where this file stands alone


@dataclass
class Config(classify.Config):
    """The settings of `classify.py`; `init` stays "both"."""


def main(config: Config) -> Path:
    """Run both arms and compare them; return the folder of it all."""
    if config.init != "both":
        raise InputError(f"Expected both arms, but got --init {config.init}. For one arm start classify.py.")
    config.out = config.out or "runs/compare"
    return classify.main(config)


if __name__ == "__main__":
    launch(main, Config, doc=__doc__, prog="compare.py")
