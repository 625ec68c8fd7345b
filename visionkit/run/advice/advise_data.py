"""`advise_data`: measure a data set, and say what to train on it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionkit.config import check_number, limits
from visionkit.data.folds import group_names
from visionkit.data.formats.open import open_dataset
from visionkit.data.formats.options import OpenOptions
from visionkit.data.splits import single_labels, subset
from visionkit.errors import DataError
from visionkit.run.advice.advise import LITTLE, PARITY_IMAGES, Advice, Similarity, advise
from visionkit.run.advice.similarity import MIN_IMAGES, SIMILAR, MeasuredSimilarity, measure_similarity
from visionkit.run.advice.vectors import FEATURES, PIXELS, image_vectors
from visionkit.run.probing.measured import MeasuredCase, nearest_case
from visionkit.types import Init

__all__ = ["DataAdvice", "advise_data"]

_OTHER: dict[Similarity, Similarity] = {"similar": "different", "different": "similar"}
_NAMES = {
    "pretrained": "trained weights",
    "random": "random weights",
    "pixels": f"pixels, {PIXELS}x{PIXELS}",
}


@dataclass(frozen=True)
class DataAdvice:
    """Advice on a data set, with what it rests on.

    Args:
        data: Where the data set is.
        backbone: The network.
        weights: Its trained weights, and what they were trained on, as far as that is known.
        classes: Number of classes.
        train_images: Images of the training split; the others were not looked at.
        train_groups: Groups of near copies among them; None: not given.
        smallest_class: Images of the smallest class.
        image_size: Side of the images that the networks saw.
        group_by: What kept near copies apart; empty: nothing.
        seed: Seed of the choice of images and of the random weights.
        measured: The similarity.
        advice: The advice.
        doubts: What it is not sure of; empty if nothing is near a limit.
        otherwise: The advice on the other sides of those limits, by what would then be so.
        probed: The measured probe of levels that is nearest to these data.
        notices: What was left out in reading the data set.
        seconds: How long it took.
    """

    data: str
    backbone: str
    weights: str
    classes: int
    train_images: int
    train_groups: int | None
    smallest_class: int
    image_size: int
    group_by: str
    seed: int
    measured: MeasuredSimilarity
    advice: Advice
    doubts: tuple[str, ...]
    otherwise: dict[str, Advice]
    probed: MeasuredCase
    notices: tuple[str, ...]
    seconds: float

    @property
    def command(self) -> str:
        """The recipe with the advised settings."""
        groups = f" --group_by {shlex.quote(self.group_by)}" if self.group_by else ""
        return (
            f"visionkit run classify --data {shlex.quote(self.data)}{groups} --backbone {self.backbone} "
            f"--image_size {self.image_size} {self.advice.flags}"
        )

    def __str__(self) -> str:
        measured = self.measured
        groups = "" if self.train_groups is None else f" in {self.train_groups:,} groups"
        lines = [
            f"{self.data}: {self.train_images:,} training images{groups}, {self.classes} classes, "
            f"{self.train_images / self.classes:.4g} images a class (the smallest {self.smallest_class})",
            *(f"note: {text}" for text in self.notices),
            f"measured on {measured.images:,} of them (seed {self.seed}) at {self.image_size} pixels with "
            f"{self.backbone}, {self.weights}"
            + (f"; {measured.unscored} more have no other of their class" if measured.unscored else ""),
            "",
            f"is the nearest other image {'(of another group) ' if groups else ''}of the same class?",
        ]
        for name in FEATURES:
            each = measured.accuracies[name]
            lines.append(f"  {_NAMES[name]:<16} {each.value:.3f}  95% {each.low:.3f} .. {each.high:.3f}")
        lines += [f"  {'largest class':<16} {measured.largest_class:.3f}", ""]
        if measured.errors_removed is None:
            lines.append("errors removed by the weights: there were none to remove")
        else:
            ends = "" if measured.low is None else f"  95% {measured.low:.3f} .. {measured.high:.3f}"
            lines.append(
                f"errors removed by the weights: {measured.errors_removed:.3f}{ends}; above {SIMILAR:.3f} "
                f"is similar"
            )
        agreement = f"{measured.agreement:.1%} of the bootstrap samples say so"
        lines += [
            f"similarity: {measured.similarity if measured.shown else 'cannot tell'}"
            + (f" ({agreement})" if measured.shown else f"; rather {measured.similarity} ({agreement})"),
            "",
            str(self.advice),
            f"- {self.probed}",
            self.command,
            "",
            "how sure: the table is a rule of thumb; " + ("; ".join(self.doubts) or "no limit is near"),
            *(f"  if {name}: {_summary(other)}" for name, other in self.otherwise.items()),
            f"took {self.seconds:.0f} s",
        ]
        return "\n".join(lines)


def advise_data(
    data: str | Path,
    *,
    backbone: str = "packaged/efficientnet_lite0",
    init: Init = "pretrained",
    max_images: int = 1000,
    image_size: int = 96,
    seed: int = 0,
    options: OpenOptions | None = None,
    progress: Callable[[int], Callable[[], None]] | None = None,
) -> DataAdvice:
    """Measure how similar a data set is to what weights were trained on, and say what to train.

    Of each image of the training split, or as many as `max_images` (chosen by the seed, each class with its
    fraction), the nearest other image is found: by vectors of the trained weights, by those of the same
    network with random weights, and by the pixels. `SIMILAR` says when the weights fit; `advise` holds the
    table of what then to do. Validation and test are not looked at.

    Args:
        data: A data set with one class an image, in any format of `open_dataset`.
        backbone: As in `visionkit ls backbones`.
        init: The trained weights: "pretrained", or a path.
        max_images: Most images that are measured.
        image_size: Side of the images that the networks see.
        seed: Seed of the choice of images, the hold-out and the random weights.
        options: How the data set is read; with `group_by`, images of a group are no neighbours.
        progress: Takes the number of images, returns what is called after each.

    Raises:
        InputError: The data are for another task, or a setting is wrong.
        DataError: An image cannot be read, or the classes are too few or too small to measure.
    """
    start = time.monotonic()
    check_number("max_images", max_images, limits(min=4), whole=True)
    check_number("image_size", image_size, limits(min=8), whole=True)
    options = options or OpenOptions(seed=seed)
    splits = open_dataset(data, "classification", options)
    train = splits.train
    labels = single_labels(train)
    if labels is None:
        raise DataError("Expected one class for each image, but the data set has other targets.")
    chosen = subset(train, min(1.0, max_images / len(train)), seed=seed)
    groups = group_names(chosen, options.group_by) if options.group_by else None
    advance = progress(len(chosen)) if progress else lambda: None
    vectors, targets, weights = image_vectors(
        chosen, backbone=backbone, init=init, image_size=image_size, seed=seed, advance=advance
    )
    measured = measure_similarity(vectors, targets, groups)
    classes, counts = len(splits.classes), np.bincount(labels, minlength=len(splits.classes))
    train_groups = len(set(group_names(train, options.group_by))) if options.group_by else None
    advice = advise(images=len(train), num_classes=classes, similarity=measured.similarity)
    doubts, otherwise = _doubts(len(train), train_groups or len(train), classes, measured)
    probed = nearest_case(len(train) / classes, measured.similarity, measured.errors_removed)
    return DataAdvice(
        str(data), backbone, weights, classes, len(train), train_groups, int(counts.min()), image_size,
        options.group_by, seed, measured, advice, doubts, otherwise, probed, tuple(map(str, splits.notices)),
        time.monotonic() - start,
    )  # fmt: skip


def _doubts(
    images: int, groups: int, classes: int, measured: MeasuredSimilarity
) -> tuple[tuple[str, ...], dict[str, Advice]]:
    """Return what is near a limit, and the advice on its other side."""
    doubts: list[str] = []
    otherwise: dict[str, Advice] = {}
    near, count = measured.similarity, images / classes
    if not measured.shown:
        why = f"{measured.agreement:.1%} of the bootstrap samples"
        if measured.images < MIN_IMAGES:
            why += f", of {measured.images}, fewer than {MIN_IMAGES} images"
        doubts.append(f"whether the data are similar is not shown ({why})")
        other = _OTHER[near]
        otherwise[other] = advise(images_per_class=count, similarity=other)
    little = count <= LITTLE
    if LITTLE / 2 < count <= 2 * LITTLE or (groups / classes <= LITTLE) != little:
        of_groups = f" ({groups / classes:.4g} groups)" if groups != images else ""
        doubts.append(f"{count:.4g} images a class{of_groups}: near the limit of little data, {LITTLE}")
        name, beyond = ("much", LITTLE + 1) if little else ("little", LITTLE)
        otherwise[name] = advise(images_per_class=beyond, similarity=near)
    if not little and images < PARITY_IMAGES:
        doubts.append(
            f"{images:,} training images: fewer than the {PARITY_IMAGES:,} from which the paper found parity"
        )
    return tuple(doubts), otherwise


def _summary(advice: Advice) -> str:
    return f"scratch {advice.scratch}; {advice.flags}"
