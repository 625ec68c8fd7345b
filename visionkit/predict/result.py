"""What was predicted for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from visionkit.files import finite, to_plain
from visionkit.predict.kinds import KINDS
from visionkit.printable import printable, printable_values

__all__ = ["Result"]


@dataclass(frozen=True, eq=False)
class Result:
    """The prediction of one image.

    Args:
        id: The path as given, or the position in the source.
        path: The file; None for an image in memory.
        size: `(H, W)` of the original, in pixels.
        prediction: The task's typed prediction: boxes and masks are in the frame of the original.
        kind: "classification", "detection", "segmentation" or "captioning".
        class_names: Names of the classes.
        image: The original `(3, H, W)` uint8, upright.
    """

    id: str
    path: str | None
    size: tuple[int, int]
    prediction: Any
    kind: str
    class_names: tuple[str, ...]
    image: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as values for JSON.

        Always `id`, `path`, `size` ([H, W]) and `kind`; then by kind:

        - classification: `label`, `index`, `confidence`, `top` (up to 5 of `name`, `index`, `probability`)
          and `probabilities`; with multiple labels `labels`, `indices` and `probabilities`; of regression
          `values`;
        - detection: `boxes` ([[x1, y1, x2, y2]], absolute, in the original), `scores`, `labels` (indices of
          classes), `names`, and of a network with masks `masks` (COCO run lengths);
        - segmentation: `classes`, the largest first: `name`, `index`, `pixels`, `fraction`, `mask` (COCO run
          lengths);
        - captioning: `caption`, `log_prob`, `n_best` ([[caption, log_prob]]).

        A number that is not finite is None; bytes of a file name that are no UTF-8 are escaped.
        """
        head = {"id": self.id, "path": self.path, "size": [int(side) for side in self.size]}
        content = head | {"kind": self.kind} | KINDS[self.kind].to_dict(self.prediction, self.class_names)
        plain: dict[str, Any] = printable_values(to_plain(content, finite))
        return plain

    def summary(self) -> str:
        """Return the prediction in one line: "cat 97.2%", "3 car, 1 person", "road 41.0%, sky 20.3%"."""
        return printable(KINDS[self.kind].summary(self.prediction, self.class_names))
