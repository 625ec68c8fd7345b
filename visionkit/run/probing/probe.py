"""`probe`: from which level of a frozen network a linear classifier is best, by amount of data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionkit.backbones import WeightsInfo
from visionkit.config import check_number, limits
from visionkit.data.folds import group_names
from visionkit.data.formats.open import open_dataset
from visionkit.data.formats.options import OpenOptions
from visionkit.errors import InputError
from visionkit.run.probing.draws import Draw, class_labels, draw_images
from visionkit.run.probing.networks import PIXEL_LEVEL, LevelNetwork, PixelNetwork, choose_levels
from visionkit.run.probing.outcomes import Arm, Outcome, run_probe
from visionkit.run.probing.result import ProbeResult
from visionkit.run.probing.stored_features import stored_features
from visionkit.run.probing.summarize import Summary
from visionkit.types import Init

__all__ = ["probe"]

Progress = Callable[[int], Callable[[], None]]


@dataclass(frozen=True)
class _Network:
    """A network to be built; with random weights it serves the draws of its seed alone."""

    backbone: str
    init: Init
    levels: tuple[str, ...]
    seed: int | None = None

    def build(self, image_size: int) -> LevelNetwork | PixelNetwork:
        if self.backbone == PIXEL_LEVEL:
            return PixelNetwork()
        return LevelNetwork(
            self.backbone, init=self.init, levels=self.levels, image_size=image_size, seed=self.seed or 0
        )

    def draws(self, draws: Sequence[Draw]) -> list[Draw]:
        return [draw for draw in draws if self.seed in (None, draw.seed)]


def probe(
    data: str | Path,
    *,
    out: str | Path,
    backbones: Sequence[str] = ("packaged/efficientnet_lite0",),
    init: Sequence[Init] = ("pretrained", "scratch"),
    levels: Sequence[str] = ("all",),
    fractions: Sequence[float] = (0.02, 0.1, 1.0),
    seeds: Sequence[int] = (0, 1, 2),
    image_size: int = 96,
    k: int = 5,
    options: OpenOptions | None = None,
    progress: Progress | None = None,
    fit_progress: Progress | None = None,
) -> ProbeResult:
    """Fit linear classifiers to the frozen features of each level, for some amounts of data, and score them.

    The features of a level are the average over its map; "pooled" are those that the network's own classifier
    takes. They are standardised by the training images, and the strength of regularisation is chosen by
    cross-validation on these alone. Scored is the test split, or the validation split where there is none.
    The training images of a fraction and seed are those that a recipe trains on with the same settings.
    Beside each classifier stands the vote of the nearest neighbours, and beside all networks the pixels.

    Args:
        data: A data set with one class an image, in any format of `open_dataset`.
        out: The folder of the features; what is stored there is not computed again.
        backbones: As in `visionkit ls backbones`.
        init: Weights of each: "pretrained", "scratch" (random, drawn for each seed), or a path.
        levels: Reductions as text, "pooled", or "all".
        fractions: Fractions of the training images.
        seeds: Seeds of the choice of images, the folds and the random weights.
        image_size: Side of the images that the networks see.
        k: Nearest neighbours that vote.
        options: How the data set is read; with `group_by`, images of a group are in one fold.
        progress: Takes the number of images of all networks, returns what is called after each.
        fit_progress: Takes the number of classifiers, returns what is called after each.

    Raises:
        InputError: The data are for another task, or a setting is wrong.
        DataError: An image cannot be read, its features are not finite, or a class has too few images.
        RunError: A stored file is damaged, a fit does not converge, or `out` cannot be written.
    """
    start = time.monotonic()
    check_number("image_size", image_size, limits(min=8), whole=True)
    check_number("k", k, limits(min=1), whole=True)
    for name, values in (("backbone", backbones), ("init", init), ("fractions", fractions), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"Expected {name} to be one or more different values, but got {list(values)}.")
    networks = _networks(backbones, init, levels, seeds)
    options = options or OpenOptions()
    splits = open_dataset(data, "classification", options)
    draws = draw_images(
        splits.train, classes=splits.classes, fractions=fractions, seeds=seeds, group_by=options.group_by
    )
    scored, split = (splits.val, "val") if splits.test is None else (splits.test, "test")
    truth = class_labels(scored, split)
    readers = splits.train, scored
    advance = progress(sum(map(len, readers)) * len(networks)) if progress else lambda: None
    weights: dict[str, str] = {}
    for network in networks:
        made = network.build(image_size)
        weights |= {f"{network.backbone} {network.init}": _weights_text(made.weights)} if network.init else {}
        for reader in readers:
            stored_features(out, reader, made, advance=advance)
    fits = sum(len(network.levels) * len(network.draws(draws)) for network in networks)
    advance = fit_progress(fits) if fit_progress else lambda: None
    outcomes: list[Outcome] = []
    for network in networks:
        made = network.build(image_size)  # again, so that one at a time is in memory
        features, of_scored = (stored_features(out, reader, made) for reader in readers)
        for draw in network.draws(draws):
            for level, rows in features.items():
                arm = Arm(network.backbone, network.init, level)
                outcomes.append(
                    run_probe(arm, draw, rows, of_scored[level], truth, num_classes=len(splits.classes), k=k)
                )
                advance()
    groups = group_names(scored, options.group_by, strict=False) if options.group_by else None
    summary = Summary(outcomes, groups)
    return ProbeResult(
        str(data), len(splits.classes), len(splits.train), len(scored), summary.units, split,
        float(np.bincount(truth).max() / len(truth)), image_size, options.group_by, k, tuple(seeds),
        tuple(fractions), weights, summary.cells(), summary.choices(), summary.differences(),
        tuple(map(str, splits.notices)), time.monotonic() - start,
    )  # fmt: skip


def _networks(
    backbones: Sequence[str], init: Sequence[Init], levels: Sequence[str], seeds: Sequence[int]
) -> list[_Network]:
    """Return every network, that of random weights once a seed, and the pixels at the end."""
    made = []
    for backbone in backbones:
        names = choose_levels(backbone, levels)
        for each in init:
            for seed in seeds if each == "scratch" else (None,):
                made.append(_Network(backbone, each, names, seed))
    return [*made, _Network(PIXEL_LEVEL, "", (PIXEL_LEVEL,))]


def _weights_text(info: WeightsInfo) -> str:
    if not info.trained:
        return "random weights, drawn for each seed"
    return (
        f"weights {info.tag or info.file or info.source}, trained on {info.training_data or 'not recorded'}"
    )
