"""Batches in the forms that loaders give, taken apart into images, targets and ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionkit.distributed import widest_float
from visionkit.errors import InputError, expected
from visionkit.tasks.image_inputs import image_stack, is_image
from visionkit.types import as_ids

__all__ = ["Parts", "check_count", "is_empty", "move_batch", "named_batch", "read_images", "read_parts"]

# What others call the same field. The first is that of a sample, as torch's default collate leaves it;
# another name counts where the two of the field are missing and no second one fits.
_ALIASES = {
    "images": ("image", "pixel_values", "img"),
    "ids": ("id",),
    "labels": ("label", "targets", "target"),
    "masks": ("mask", "labels", "label", "segmentation"),
    "targets": ("target", "labels"),
    "tokens": ("token",),
    "keypoints": ("keypoint", "targets", "target"),
}


class Parts(NamedTuple):
    """A batch taken apart."""

    images: Any  # (B, C, H, W), or a list of (C, H, W)
    target: Any  # None where the batch has none
    ids: list[str] | None


def read_parts(batch: Any, target: str, *, needed: bool = True) -> Parts:
    """Take a batch apart.

    Args:
        batch: A dict (`images`, `target`, `ids`; or the names that torchgeo and Hugging Face use, where they
            are unambiguous; one image `(C, H, W)` is a batch of one); a pair `(images, target)`, tuple or
            list; or images alone.
        target: Name of the target: "labels", "masks", "targets", "tokens" or "keypoints".
        needed: Whether the batch must hold it. In prediction it need not, and a list of images is just that.

    Raises:
        InputError: A field is missing, comes under two names, or the ids are not one an image.
    """
    if isinstance(batch, Mapping):
        images, known, ids = (_field(batch, name) for name in ("images", target, "ids"))
        if images is None:
            raise InputError(_missing(batch, "images", target))
        if known is None and needed:
            raise InputError(_missing(batch, target, target))
        names = as_ids(ids)
        if is_image(images):  # a sample as a reader gives it: one image, and one of everything else
            if target == "targets":
                if "boxes" in batch and not isinstance(known, Mapping | list | tuple):
                    known = [batch]  # its "labels" are those of the boxes
                known = [known] if isinstance(known, Mapping) else known
            images = images[None] if isinstance(images, Tensor) else [images]
        if names is not None and len(names) != len(images):
            raise InputError(
                f"Expected one id for each of {len(images)} images, but got {len(names)}. Give 'ids' one "
                "entry an image, or leave them out."
            )
        return Parts(_sized(images), known, names)
    if _is_pair(batch, needed=needed):
        return Parts(_sized(batch[0]), batch[1], None)
    if needed:
        raise InputError(
            f"Expected a batch with '{target}', but got {_describe(batch)}: a dict with 'images' and "
            f"'{target}', or a pair (images, {target}). Use predict for images alone."
        )
    if isinstance(batch, tuple | list) and len(batch) == 1 and not is_image(batch[0]):
        return Parts(_sized(batch[0]), None, None)  # what a TensorDataset of images gives
    return Parts(_sized(batch), None, None)


def read_images(batch: Any, task: Any) -> tuple[Tensor, list[str] | None]:
    """Return the images `(B, C, H, W)` of a batch to predict on, on the task's device, and their ids.

    Args:
        batch: As for `read_parts`, with or without targets.
        task: Has `truth`, `channels` and `device`.

    Raises:
        InputError: The images differ in size or type, or something is no image.
    """
    images, _, ids = read_parts(batch, task.truth, needed=False)
    return image_stack(images, channels=task.channels, device=task.device), ids


def check_count(name: str, targets: Any, images: Any) -> None:
    """Refuse a batch without one target for each image.

    Args:
        name: What the targets are called.
        targets: They.
        images: The images.

    Raises:
        InputError: There are more, or fewer.
    """
    if len(targets) != len(images):
        raise InputError(expected(name, f"one for each of {len(images)} images", len(targets)))


def _sized(images: Any) -> Any:
    if isinstance(images, Tensor) and images.ndim == 4 and len(images) and 0 in images.shape[1:]:
        raise InputError(expected("images", "at least 1 pixel high and wide", tuple(images.shape)))
    return images


def is_empty(batch: Any) -> bool:
    """Return whether a batch holds no image (the part of a process that has none)."""
    if isinstance(batch, Mapping):
        images = _field(batch, "images")
        if images is None:
            ids = as_ids(_field(batch, "ids"))
            return ids is not None and not ids
        return not isinstance(images, Image.Image) and len(images) == 0
    if isinstance(batch, tuple | list):
        first = batch[0] if batch else batch
        return len(batch) == 0 or (isinstance(first, Tensor | list | tuple) and len(first) == 0)
    return isinstance(batch, Tensor | np.ndarray) and batch.ndim > 0 and len(batch) == 0


def named_batch(batch: Any, target: str) -> Any:
    """Return a dict batch with our names for its fields, and its ids as text; anything else as it came.

    What reads batches after the task (previews, guards) finds them by these names.
    """
    if not isinstance(batch, Mapping):
        return batch
    renamed = dict(batch)
    for name in ("images", target, "ids"):
        alias = _alias(batch, name)
        if name not in batch and alias is not None:
            renamed[name] = renamed.pop(alias)
    if renamed.get("ids") is not None:
        renamed["ids"] = as_ids(renamed["ids"])
    return renamed


def move_batch(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on `device`; names and other plain values are left as they are.

    Lightning's function visits every string of a batch, which costs more than a small network's forward.

    Args:
        batch: A tensor, or dicts, lists and tuples of tensors and plain values.
        device: Where the tensors go.
    """
    if isinstance(batch, Tensor):
        dtype = widest_float(device) if batch.dtype == torch.float64 else batch.dtype
        return batch.to(device, dtype, non_blocking=device.type != "cpu")
    if isinstance(batch, dict):
        return {name: move_batch(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple) and batch and not isinstance(batch[0], str):
        moved = [move_batch(item, device) for item in batch]
        return moved if isinstance(batch, list) else tuple(moved)
    return batch


def _field(batch: Mapping[str, Any], name: str) -> Any:
    if name in batch:
        return batch[name]
    alias = _alias(batch, name)
    return None if alias is None else batch[alias]


def _alias(batch: Mapping[str, Any], name: str) -> str | None:
    present = [alias for alias in _ALIASES[name] if alias in batch]
    if name not in batch and len(present) > 1 and present[0] != _ALIASES[name][0]:
        raise InputError(
            f"Expected the batch to hold '{name}', but it holds {' and '.join(map(repr, present))}, and "
            f"either may be meant. Call the right one '{name}'."
        )
    return present[0] if present else None


def _is_pair(batch: Any, *, needed: bool) -> bool:
    """Return whether a tuple or list is `(images, target)` and not a list of images."""
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        return False
    if needed:
        return True
    first, second = batch[0], batch[1]
    is_batch = isinstance(first, list | tuple) or (isinstance(first, Tensor | np.ndarray) and first.ndim == 4)
    if (
        is_batch
        and isinstance(second, Tensor | np.ndarray)
        and second.ndim == 4
        and second.shape == first.shape
    ):
        raise InputError(
            "Expected images, or a batch (images, targets), but got two batches of images of one shape. "
            "Join them with torch.cat, or give them one at a time."
        )
    return is_batch


def _missing(batch: Mapping[str, Any], name: str, target: str) -> str:
    present = ", ".join(repr(key) for key in batch) or "none"
    known = ", ".join(repr(alias) for alias in _ALIASES[name])
    use = " Use predict for images alone." if name == target else ""
    text = f"Expected a batch with '{name}' (or {known}), but its keys are {present}."
    return f"{text} Rename the key in the collate.{use}"


def _describe(batch: Any) -> str:
    if isinstance(batch, Tensor | np.ndarray):
        return f"images alone {tuple(batch.shape)}"
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"
