"""The validation split of a data set of boxes: what it must hold, and the hold-out where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from visionkit.data.splits import HOLDOUT, holdout
from visionkit.errors import DataError
from visionkit.types import Reader, Sample

__all__ = ["Counted", "validation_split"]


class Counted(Protocol):
    """A reader that knows how many objects each image has."""

    @property
    def object_counts(self) -> list[int]:
        """How many objects each image has."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def validation_split(
    train: Reader,
    val: Counted | None,
    path: str | Path,
    *,
    seed: int,
    what: str = "split",
) -> tuple[Reader, Reader, dict[str, Any]]:
    """Return the training and the validation samples, and the fact of a hold-out where there is one.

    Args:
        train: The training samples.
        val: The validation samples of the data set; None: a fifth of the training images is held out.
        path: The file or folder that an error names.
        seed: Seed of the hold-out.
        what: What the validation samples would stand in ("split", "list", "file").

    Raises:
        DataError: The validation split is there but has no image, or no object to score; or there is none,
            and only one training image.
    """
    if val is not None:
        if not len(val):
            text = f"Expected images in the validation {what}, but it is empty. Fill it, or remove it: "
            raise DataError(f"{text}a share of the training images is then held out.", path=path)
        if not any(val.object_counts):
            text = f"Expected objects in the validation {what}, but none of its {len(val)} images has one: "
            raise DataError(f"{text}there is nothing to score.", path=path)
        return train, val, {}
    if len(train) < 2:
        text = f"Expected at least 2 training images, but got {len(train)}: there is no validation {what}, "
        raise DataError(f"{text}so that one is held out.", path=path)
    remaining, held = holdout(train, HOLDOUT, seed=seed, path=path)
    fact = f"there is no validation {what}: {len(held)} training images are held out"
    return remaining, held, {"held_out": fact}
