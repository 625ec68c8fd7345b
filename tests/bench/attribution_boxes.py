"""Does Grad-CAM lie in the true box? The table of docs/how-to/see-what-a-network-does.md.

python tests/bench/attribution_boxes.py runs/scenes/pretrained-f1-s0 runs/scenes/scratch-f1-s0 --images 100
python tests/bench/attribution_boxes.py runs/bccd/*-s0 --data bccd/ --layers 32 16 8 --images 40

Of a classifier of the embedded scenes: the map of the true class, and the box of the scene's object. Of a
detector: of each image the first true box of each class, and the map of that class for that box, in that box
and in all of the class. The images are the first of the test split. Maps without a value above zero are
counted, and left out of the means.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from visionkit.data import OpenOptions, open_dataset, scenes
from visionkit.interpret import (
    BoxFraction,
    Score,
    Subject,
    box_score,
    class_score,
    find_levels,
    grad_cam,
    open_subject,
    pointing_game,
)

# Boxes by what they are of, normalised image, what is explained.
Case = tuple[dict[str, Tensor], Tensor, Score]


def of_scenes(subject: Subject, count: int) -> Iterator[Case]:
    """The main object of each scene, and the score of its class."""
    split = scenes("classification", size=subject.image_size[0], test=count).test
    for index in range(count):
        item = split.scene(index).objects[-1]
        inputs = subject.inputs(subject.fit(split[index]["image"]))
        scale = inputs.shape[-1] / split.size
        box = torch.tensor(item.box, dtype=torch.float32) * scale
        yield {"object": box[None]}, inputs, class_score(subject, inputs, target=item.category)


def of_boxes(subject: Subject, data: str, count: int, size: int) -> Iterator[Case]:
    """The first true box of each class of an image, and the score of that class there."""
    splits = open_dataset(data, "detection", OpenOptions())
    assert splits.test is not None, f"{data} has no test split"
    for index in range(min(count, len(splits.test))):
        sample = splits.test[index]
        image = sample["image"]
        inputs = subject.inputs(subject.fit(image, size))
        scale = torch.tensor([inputs.shape[-1] / image.shape[-1], inputs.shape[-2] / image.shape[-2]]).repeat(
            2
        )
        for label in sample["labels"].unique().tolist():
            boxes = sample["boxes"][sample["labels"] == label] * scale
            name = splits.classes[label]
            named = {name: boxes[:1], f"all {name}": boxes}
            yield named, inputs, box_score(subject, inputs, box=boxes[0], label=label)


def measure(
    subject: Subject, cases: Iterator[Case], layers: Sequence[int]
) -> dict[tuple[str, int], list[BoxFraction]]:
    """The shares of each class and reduction."""
    found: dict[tuple[str, int], list[BoxFraction]] = {}
    for named, inputs, score in cases:
        levels = find_levels(subject.network, inputs)
        for reduction in layers or [max(levels)]:
            heat = grad_cam(subject.network, score.of, inputs, layer=levels[reduction])[0]
            for name, boxes in named.items():
                found.setdefault((name, reduction), []).append(pointing_game(heat, boxes))
    return found


def main(argv: Sequence[str]) -> None:
    """Print a row for each run, class and layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", default="scenes")
    parser.add_argument(
        "--layers", nargs="+", type=int, default=[], help="reductions (default: the coarsest)"
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=427, help="longer side of a detector's images")
    args = parser.parse_args(argv)
    print("| run | box of | reduction | maps | empty | share inside | chance | maximum inside |", flush=True)
    print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for run in args.runs:
        subject = open_subject(run)
        cases = (
            of_scenes(subject, args.images)
            if args.data == "scenes"
            else of_boxes(subject, args.data, args.images, args.size)
        )
        for (name, reduction), shares in measure(subject, cases, args.layers).items():
            # A map that is zero everywhere says nothing: counted, and not in the means.
            lit = [share for share in shares if not math.isnan(share.inside)]
            inside, chance, hits = (sum(values) / len(lit or shares) for values in zip(*lit or shares))
            row = (Path(run).name, name, reduction, len(shares), len(shares) - len(lit))
            row = (*row, *(f"{value:.3f}" for value in (inside, chance, hits)))
            print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
