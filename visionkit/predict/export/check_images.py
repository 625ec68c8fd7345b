"""The images on which an exported file is compared with its task, in batches of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.data.transforms.saved import transform_from
from visionkit.errors import InputError
from visionkit.predict.sources import source_items
from visionkit.tasks.hooks import TaskHooks

__all__ = ["check_batches", "check_images"]

_COUNT = 3
Size = tuple[int, int]


def check_images(images: Any, run_folder: Path | None, *, channels: int) -> tuple[list[Tensor], str]:
    """Return images `(C, H, W)` uint8 to check on, and which they are, in words.

    Args:
        images: What the user gives (see `visionkit.predict.sources.source_items`), or None: then those that
            the run keeps of its training data, or else embedded scenes.
        run_folder: The run's folder, if there is one.
        channels: How many channels the network takes.

    Raises:
        InputError: Nothing given is an image, or the network takes images of other than three channels.
    """
    if images is not None:
        read = [item.read() for item, _ in zip(source_items(images), range(_COUNT))]
        return read, f"{len(read)} images given"
    of_run = sorted((run_folder / "figures" / "watch").glob("?.png")) if run_folder is not None else []
    if channels != 3:
        drawn = torch.rand(_COUNT, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        smooth = F.interpolate(drawn, size=(224, 224), mode="bicubic", align_corners=False).clamp(0, 1)
        return list((smooth * 255).byte()), f"{_COUNT} drawn images of {channels} channels"
    if of_run:
        read = [item.read() for item, _ in zip(source_items([str(file) for file in of_run]), range(_COUNT))]
        return read, f"{len(read)} training images of the run"
    from visionkit.data.scenes.scenes import scenes

    try:
        split = scenes("detection", size=320, train=1, val=_COUNT, test=1).val
        return [split[index]["image"] for index in range(_COUNT)], f"{_COUNT} embedded scenes"
    except InputError as error:
        raise InputError(f"Give images to check the file on: --images FOLDER. {error}") from error


def check_batches(
    task: TaskHooks, images: Sequence[Tensor], preprocess: Mapping[str, Any], *, size: Size | None
) -> list[Tensor]:
    """Return batches `(B, C, H, W)` uint8: one image, all of them in its size, and one or two in other sizes.

    Args:
        task: The task.
        images: See `check_images`.
        preprocess: How images are resized for it.
        size: The only size that the file takes; None for any.
    """
    transform = transform_from(preprocess)
    ready = []
    for image in images:
        sample: Any = {"image": image, "id": ""}
        ready.append(transform(sample, torch.Generator())["image"])
    first = size or _fitting(task, (int(ready[0].shape[-2]), int(ready[0].shape[-1])))
    batches = [_stack(ready[:1], first), _stack(ready, first)]
    if size is None:
        traced, third = _other_sizes(task, first)
        batches += [_stack(ready[:2], traced), _stack(ready[:1], third)]
    return batches


def _other_sizes(task: TaskHooks, size: Size) -> tuple[Size, Size]:
    """Return two more sizes that a task takes.

    A graph is traced with the first, whose sides are one more than a multiple of 64: whatever a network pads
    and crops, it does so then. Of the second, some of the maps are whole and others are not.
    """
    canvas = getattr(task.backbone, "fixed_size", None)
    if canvas is not None:
        return (max(1, canvas[0] * 3 // 4 | 1), max(1, canvas[1] * 7 // 8 | 1)), (canvas[0] // 2, canvas[1])
    height, width = (max(64, side // 64 * 64) for side in size)
    return (height + 1, width + 65), (height + 16, width + 36)


def _fitting(task: TaskHooks, size: Size) -> Size:
    canvas = getattr(task.backbone, "fixed_size", None)
    return size if canvas is None else (min(size[0], canvas[0]), min(size[1], canvas[1]))


def _stack(images: Sequence[Tensor], size: Size) -> Tensor:
    made = []
    for image in images:
        if tuple(image.shape[-2:]) != size:
            resized = F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)
            image = resized[0].round().clamp(0, 255).byte()
        made.append(image)
    return torch.stack(made)
