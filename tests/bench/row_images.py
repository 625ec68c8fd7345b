"""From JPEG files, a pack or raw pixels to uint8 batches, beside torchvision's reference pipeline."""

from __future__ import annotations

import importlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from tests.bench.images import write_folder
from tests.bench.row import Row, Sides, Size, pick
from visionkit.data import (
    DataModule,
    PackSettings,
    classification_eval,
    classification_train,
    image_folder,
    open_pack,
    pack,
    stack_batch,
)  # fmt: skip
from visionkit.nn import Normalize
from visionkit.rng import keyed_generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SIDE, SEED = 224, 0
LARGE = (3000, 4000)


def no_decoder() -> None:
    """Stand for a decoder that is not installed; a Mock's call would be in what is timed."""


@contextmanager
def decoding_with(name: str) -> Iterator[None]:
    """Decode JPEGs with Pillow alone, or with whatever is installed."""
    if name == "pillow":
        module = importlib.import_module("visionkit.data.read_image")
        with mock.patch.object(module, "_fast_decoder", no_decoder):
            yield
    else:
        yield


class SameBox(v2.RandomResizedCrop):
    """The reference's crop, made to cut the boxes that ours cuts: it draws, then takes the next."""

    boxes: list[tuple[int, int, int, int]]
    place = 0

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        super().make_params(flat_inputs)
        top, left, height, width = self.boxes[self.place % len(self.boxes)]
        self.place += 1
        return {"top": top, "left": left, "height": height, "width": width}


class SameFlip(v2.RandomHorizontalFlip):
    """The reference's mirror, made to follow ours."""

    flips: list[bool]
    place = 0

    def forward(self, *inputs: Any) -> Any:
        torch.rand(1)
        self.place += 1
        turned = self.flips[(self.place - 1) % len(self.flips)]
        return v2.functional.horizontal_flip(*inputs) if turned else inputs[0]


def draws(order: list[int], size: tuple[int, int]) -> tuple[list[tuple[int, int, int, int]], list[bool]]:
    """The boxes and mirrors that our transform draws for these images of `(height, width)` in epoch 0."""
    height, width = size
    boxes, flips = [], []
    for index in order:
        rng = keyed_generator(SEED, 0, index)
        area, shape, across, down, turn = (float(torch.rand((), generator=rng)) for _ in range(5))
        area = height * width * (0.35 + 0.65 * area)
        shape = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * shape)
        high, wide = math.sqrt(area / shape), math.sqrt(area * shape)
        shrink = min(1.0, height / high, width / wide)
        high, wide = max(1, round(high * shrink)), max(1, round(wide * shrink))
        left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
        boxes.append((top, left, high, wide))
        flips.append(turn < 0.5)
    return boxes, flips


def building(
    form: str, decoder: str, *, large: bool = False, reduced: bool = False
) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        place = Path(tempfile.mkdtemp())
        count = pick(size, tiny=2 if large else 4, quick=8 if large else 32, full=16 if large else 64)
        photo = pick(size, tiny=(1500, 2000), quick=LARGE, full=LARGE) if large else (375, 500)
        root = write_folder(place / "photos", count, height=photo[0], width=photo[1])
        splits = image_folder(root)
        if form != "files":
            pack(splits, place / "pack", settings=PackSettings(form=form))
            splits = open_pack(place / "pack")
        data = DataModule(
            splits,
            batch_size=count,
            train_transform=classification_train(SIDE, reduced_jpegs=reduced),
            eval_transform=classification_eval(SIDE, reduced_jpegs=reduced),
            collate=stack_batch,
            seed=SEED,
        )
        order = data.train_order().epoch_order(0)
        boxes, flips = draws(order, photo)
        crop = SameBox(SIDE, scale=(0.35, 1.0), antialias=True)
        turn = SameFlip()
        crop.boxes, turn.flips = boxes, flips
        steps = [crop, turn, v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD)]
        theirs = TorchvisionFolder(str(root / "train"), v2.Compose(steps))
        loader = DataLoader(theirs, batch_size=count, sampler=order)

        keys = [[(0, index) for index in order]]

        def ours_once() -> Tensor:
            with decoding_with(decoder):
                batch = next(iter(DataLoader(data.train_data, batch_sampler=keys, collate_fn=stack_batch)))
            images: Tensor = batch["images"]
            return images

        def theirs_once() -> Tensor:
            for images, _ in loader:
                last: Tensor = images
            return last

        def equal(one: Tensor, other: Tensor) -> None:
            assert one.dtype == torch.uint8
            off = (Normalize(MEAN, STD)(one) - other).abs() * 0.226 * 255
            limit = 3.0 if form == "files" else 12.0  # a pack is shrunk first: other rounding, another JPEG
            assert off.mean() < limit, f"{off.mean():.2f} of 255 levels apart"

        return Sides(ours_once, theirs_once, equal, close=lambda: shutil.rmtree(place, ignore_errors=True))

    return build


REFERENCE = "torchvision ImageFolder, PIL, v2 (references)"
NOTE = "Ours ends in uint8, theirs in normalised floats; ours are normalised as a batch, on the device."
REDUCED = f"{NOTE} Ours with `--reduced_jpegs true`: 3 of 255 levels apart at most, in the mean."
ROWS = (
    Row("JPEG folder to uint8 batch, Pillow", REFERENCE, building("files", "pillow"), goal=1.8,
        limit="decoding alone", package="torchvision", note=NOTE),
    Row("JPEG folder to uint8 batch, simplejpeg", REFERENCE, building("files", "fast"), goal=2.2,
        limit="decoding alone", package="torchvision", needs=("simplejpeg",), note=NOTE),
    Row("JPEGs of 12 megapixels to uint8 batch, reduced, Pillow", REFERENCE,
        building("files", "pillow", large=True, reduced=True), goal=1.8, limit="Huffman decoding",
        package="torchvision", note=REDUCED),
    Row("JPEGs of 12 megapixels to uint8 batch, reduced, simplejpeg", REFERENCE,
        building("files", "fast", large=True, reduced=True), goal=1.8, limit="Huffman decoding",
        package="torchvision", needs=("simplejpeg",), note=REDUCED),
    Row("packed JPEG to uint8 batch, Pillow", REFERENCE, building("jpeg", "pillow"), goal=4.5,
        limit="decoding 256 x 341", package="torchvision", note=NOTE),
    Row("packed JPEG to uint8 batch, simplejpeg", REFERENCE, building("jpeg", "fast"), goal=4.5,
        limit="decoding 256 x 341", package="torchvision", needs=("simplejpeg",), note=NOTE),
    Row("packed raw to uint8 batch", REFERENCE, building("raw", "pillow"), goal=15.0,
        limit="one antialiased resize", package="torchvision", note=NOTE),
)  # fmt: skip
