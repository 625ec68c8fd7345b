"""Masks of two classes whose foreground is 255, the ignored value: training would see background alone."""

from __future__ import annotations

from torch import Tensor

from visionkit.errors import DataError

__all__ = ["ForegroundCheck"]

_MOST = 8  # masks of 0 and 255 before the first pixel of class 1
_IGNORED = 255


class ForegroundCheck:
    """Refuses masks of 0 and 255 where 255 is ignored.

    One such mask may be sound (nothing in the image but background and pixels that do not count), so eight
    are waited for, without a pixel of class 1 before. Rows and columns that are ignored from end to end are
    the padding of a crop and do not tell.

    Args:
        classes: Classes of the masks; others than two are not looked at.
        ignore_index: Value of pixels that do not count; others than 255 are not looked at.
    """

    def __init__(self, classes: int, ignore_index: int) -> None:
        self.active = classes == 2 and ignore_index == _IGNORED
        self.count = 0

    def add(self, mask: Tensor, name: str) -> None:
        """Look at a mask on the host.

        Args:
            mask: `(H, W)` int64.
            name: What its image is called.

        Raises:
            DataError: It is the eighth of 0 and 255, and none had class 1.
        """
        if not self.active:
            return
        if (mask == 1).any():
            self.active = False  # the foreground is 1: nothing more to look at
            return
        ignored = mask == _IGNORED
        inner = ignored[~ignored.all(1)][:, ~ignored.all(0)]
        self.count += int(bool(inner.any()))
        if self.count >= _MOST:
            raise DataError(
                f"Expected masks of 0 and 1, but {_MOST} of them hold 0 and 255 only, and none 1: 255 is "
                "ignored, so nothing but background would be learnt. Give (mask == 255).long() if 255 is the "
                "foreground; if these pixels are not to count, give them another value as ignore_index.",
                path=name,
                field="mask",
            )
