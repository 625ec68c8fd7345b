"""Checks of the masks that a segmenter is given, each alone and over the first ones."""

from __future__ import annotations

from torch import Tensor

from visionkit.errors import DataError
from visionkit.tasks.segmentation.batch import check_mask

__all__ = ["MaskCheck"]

_MAX_MASKS = 8  # masks of 0 and 255 before the first pixel of class 1
_IGNORED = 255


class MaskCheck:
    """Refuses masks that do not fit, and masks of two classes of 0 and 255 only, where 255 is ignored.

    One of the latter may be sound (background and pixels that do not count), so eight are waited for,
    without a pixel of class 1 before. Rows and columns that are ignored from end to end are the padding of a
    crop and do not count.

    Args:
        classes: Classes of the masks.
        ignore_index: Value of pixels that do not count.
    """

    def __init__(self, classes: int, ignore_index: int) -> None:
        self.classes, self.ignore_index = classes, ignore_index
        self.active = classes == 2 and ignore_index == _IGNORED
        self.count = 0

    def __call__(self, image: Tensor, mask: Tensor, name: str) -> None:
        """Look at a mask on the host.

        Args:
            image: `(3, H, W)`.
            mask: `(H, W)` int64.
            name: What its image is called.

        Raises:
            DataError: It does not fit (see `check_mask`), or is the eighth of 0 and 255 and none had class 1.
        """
        check_mask(image, mask, name, self.classes, self.ignore_index)
        if not self.active:
            return
        if (mask == 1).any():
            self.active = False  # the foreground is 1: nothing more to check
            return
        ignored = mask == _IGNORED
        inner = ignored[~ignored.all(1)][:, ~ignored.all(0)]
        self.count += int(bool(inner.any()))
        if self.count >= _MAX_MASKS:
            raise DataError(
                f"Expected masks of 0 and 1, but {_MAX_MASKS} of them hold 0 and 255 only, and none 1: 255 "
                "is ignored, so nothing but background would be learnt. Give (mask == 255).long() if 255 is "
                "the foreground; if these pixels are not to count, give them another value as ignore_index.",
                path=name,
                field="mask",
            )
