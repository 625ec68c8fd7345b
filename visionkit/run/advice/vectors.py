"""Vectors of images three ways: trained weights, random weights, and the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from visionkit.backbones import Encoder, create_encoder
from visionkit.data.transforms.classification import classification_eval
from visionkit.errors import InputError, expected
from visionkit.metrics.embedding.rows import unit_rows
from visionkit.nn.normalize import Normalize
from visionkit.rng import seeded
from visionkit.tasks.image_spec import ImageSpec
from visionkit.types import Init, Reader, Sample

__all__ = ["FEATURES", "PIXELS", "image_batches", "image_vectors", "resized"]

FEATURES = ("pretrained", "random", "pixels")
PIXELS = 16  # side of the images whose pixels are compared
_BATCH = 32


def image_vectors(
    reader: Reader,
    *,
    backbone: str,
    init: Init = "pretrained",
    image_size: int = 96,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Tensor], Tensor, str]:
    """Return the vectors of all images by each of `FEATURES`, their labels, and what the weights are.

    Every image is read once, and one batch of images is held at a time. The network with random weights is
    as it was created, its batch norms included: statistics of these
    images in their place made its vectors worse.

    Args:
        reader: Images with one class each.
        backbone: As in `visionkit ls backbones`.
        init: The trained weights: "pretrained", or a path.
        image_size: Side that images are resized to for the networks; pixels are compared at 16.
        seed: Seed of the random weights.
        advance: Called after each image.

    Returns:
        Vectors `(N, D)` of length 1 by the name of the features, labels `(N,)`, and the weights in words.

    Raises:
        InputError: `init` is "scratch", or the backbone or its weights cannot be had.
        DataError: An image cannot be read.
    """
    if init == "scratch":
        raise InputError(expected("init", "trained weights: 'pretrained' or a path", init))
    trained, random = (_encoder(backbone, each, image_size, seed) for each in (init, "scratch"))
    normalize = Normalize(trained.mean, trained.std)
    parts: dict[str, list[Tensor]] = {name: [] for name in FEATURES}
    labels: list[Tensor] = []
    for batch in image_batches(reader, advance):
        images = normalize(resized(batch, image_size)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            made = trained(images), random(images), resized(batch, PIXELS).flatten(1)
        for name, vectors in zip(FEATURES, made, strict=True):
            parts[name].append(unit_rows(vectors, [sample["id"] for sample in batch]))
        labels += [sample["label"] for sample in batch]
    info = trained.weights
    about = (
        f"weights {info.tag or info.file or info.source}, trained on {info.training_data or 'not recorded'}"
    )
    return {name: torch.cat(rows) for name, rows in parts.items()}, torch.stack(labels), about


def _encoder(backbone: str, init: Init, image_size: int, seed: int) -> Encoder:
    with seeded(seed):
        built_for = ImageSpec(3, image_size).size_to_build(backbone)
        encoder = create_encoder(backbone, init=init, image_size=built_for)
    return encoder.eval().to(memory_format=torch.channels_last)


def image_batches(reader: Reader, advance: Callable[[], None]) -> Iterator[list[Sample]]:
    """Yield the samples in batches, in order; `advance` is called after each image."""
    for start in range(0, len(reader), _BATCH):
        batch = []
        for index in range(start, min(start + _BATCH, len(reader))):
            batch.append(reader[index])
            advance()
        yield batch


def resized(batch: list[Sample], side: int) -> Tensor:
    """Return the images `(B, 3, side, side)`, uint8, in the geometry of training's evaluation."""
    transform, rng = classification_eval(side), torch.Generator()
    return torch.stack([transform({"image": sample["image"]}, rng)["image"] for sample in batch])
