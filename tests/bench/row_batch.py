"""What happens to a batch before the network: mirror, mixup, normalise; beside v2 and `v2.MixUp`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms import v2

from tests.bench.row import Row, Sides, Size, close, pick
from visionkit.data.transforms.batch import batch_transform
from visionkit.nn import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(size: Size) -> Sides:
    count = pick(size, tiny=4, quick=32, full=64)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 224, 224), generator=rng, dtype=torch.uint8)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (count,), generator=rng)
    augment, normalize = batch_transform("flip", "mixup"), Normalize(MEAN, STD)
    each = v2.Compose(
        [v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    mix = v2.MixUp(alpha=0.2, num_classes=10)

    def ours(batch: dict[str, Any] | None = None) -> Tensor:
        made = augment(batch or {"images": images, "labels": labels}, rng)  # type: ignore[misc]
        return normalize(made["images"])

    def theirs(given: Tensor = images) -> Tensor:
        mixed, _ = mix(*default_collate([(each(image), label) for image, label in zip(given, labels)]))
        return mixed

    def equal(_: Any, __: Any) -> None:
        """With one share for all and no mirror both give the same; ours pairs with the next, not the last."""
        half = torch.full((count,), 0.3)
        still = mock.patch("torch.rand", lambda *shape, **settings: torch.ones(*shape))
        with mock.patch("visionkit.data.transforms.batch._beta", return_value=half), still:
            one = ours()
        mix.make_params = lambda flat: {"lam": 0.3}  # type: ignore
        with still:
            other = theirs(images.flip(0)).flip(0)
        del mix.make_params
        close(atol=1e-4)(one, other)

    return Sides(ours, theirs, equal)


ROWS = (
    Row("batch stage: mirror, mixup, normalise", "v2 an image, collate, v2.MixUp", build, goal=2.5,
        limit="one read and one write of the batch", package="torchvision"),
)  # fmt: skip
