"""What was predicted for one image."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from visionkit.files import finite, to_plain
from visionkit.predict.kinds import KINDS
from visionkit.printable import printable, printable_values

__all__ = ["Result"]

_QUALITY = 92  # JPEG: fine lines and text stay sharp


@dataclass(frozen=True, eq=False)
class Result:
    """The prediction of one image.

    Args:
        id: The path as given, or the position in the source.
        path: The file; None for an image in memory.
        size: `(H, W)` of the original, in pixels.
        prediction: The task's typed prediction: boxes and masks are in the frame of the original.
        kind: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints".
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

    def __repr__(self) -> str:
        height, width = self.size
        return f"Result({printable(self.id)!r}, {width} x {height} pixels, {self.kind}: {self.summary()})"

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as values for JSON.

        Always `id`, `path`, `size` ([H, W]) and `kind`; then by kind:

        - classification: `label`, `index`, `confidence`, `top` (up to 5 of `name`, `index`, `probability`)
          and `probabilities`; with multiple labels `labels`, `indices` and `probabilities`; of regression
          `values`;
        - detection: `boxes` ([[x1, y1, x2, y2]], absolute, in the original), `scores`, `labels` (indices of
          classes), `names`, of a network with masks `masks` (COCO run lengths), and with keypoints
          `keypoints` ([[[x, y]]], for each object), `keypoint_scores`, `keypoint_names` and `edges`;
        - segmentation: `classes`, the largest first: `name`, `index`, `pixels`, `fraction`, `mask` (COCO run
          lengths);
        - captioning: `caption`, `log_prob`, `n_best` ([[caption, log_prob]]);
        - embedding: `vector`, of length 1;
        - keypoints: `points` ([[x, y]], absolute, in the original), `scores` (None where the head has none),
          `names`, `edges` ([[point, point]]).

        A number that is not finite is None; bytes of a file name that are no UTF-8 are escaped.
        """
        head = {"id": self.id, "path": self.path, "size": [int(side) for side in self.size]}
        content = head | {"kind": self.kind} | KINDS[self.kind].to_dict(self.prediction, self.class_names)
        plain: dict[str, Any] = printable_values(to_plain(content, finite))
        return plain

    def summary(self) -> str:
        """Return the prediction in one line: "cat 97.2%", "3 car, 1 person", "road 41.0%, sky 20.3%"."""
        return printable(KINDS[self.kind].summary(self.prediction, self.class_names))

    def draw(self, *, min_score: float = 0.5) -> Image.Image:
        """Return the image with the prediction drawn on it or below it.

        Boxes have names and scores, masks are laid over the image, classes are named in a legend below it;
        captions, bars of the five likeliest classes and values are below it. An image smaller than 320 pixels
        is enlarged.

        Args:
            min_score: Minimum score, in 0 .. 1, of an object that is drawn. Only detection has scores.
        """
        return KINDS[self.kind].draw(self.prediction, self.class_names, self.image, min_score)

    def save(self, folder: str | Path, *, min_score: float = 0.5) -> Path:
        """Write the drawing into a folder, and return its file: the image's name, as a JPEG.

        Nothing is overwritten: a second `cat.jpg` becomes `cat-2.jpg`.

        Args:
            folder: It is made if it does not exist.
            min_score: As in `draw`.

        Raises:
            OSError: The folder or the file cannot be written.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        stem = printable(Path(self.path or self.id).stem) or "image"
        content = io.BytesIO()
        self.draw(min_score=min_score).save(content, format="JPEG", quality=_QUALITY)
        for number in itertools.count(1):
            file = Path(folder) / (f"{stem}.jpg" if number == 1 else f"{stem}-{number}.jpg")
            try:
                with file.open("xb") as stream:
                    stream.write(content.getvalue())
            except FileExistsError:
                continue
            except OSError:
                file.unlink(missing_ok=True)  # half of it
                raise
            return file
        raise AssertionError
