"""Class maps as palette PNGs, as VOC and our reader of masks have them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from visionkit.drawing.class_colors import class_colors
from visionkit.files import write_text
from visionkit.predict.kinds.kind import class_name
from visionkit.predict.writers.output_files import encoded, write_small
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["Masks"]

_PALETTE_SIZE = 256


class Masks:
    """Writes `masks/masks/NAME.png` at the original's size: each pixel is the number of its class.

    The numbers are those of training, in the order of the task's class names; `masks/classes.txt` lists them
    with their colours, those of the drawings, as readers of masks take it (`--data masks/` with the images in
    `masks/images`). More than 256 classes are written as 16-bit grey.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._folder = target.folder / "masks" / "masks"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._names, self._count = target.class_names, len(target.class_names)
        self._palette = class_colors(_PALETTE_SIZE)
        self._write_names()

    def add(self, entry: Entry) -> None:
        """Write the mask of an image."""
        mask = entry.result.prediction.mask.numpy()
        self._count = max(self._count, int(mask.max(initial=0)) + 1)
        if self._count > _PALETTE_SIZE:
            image = Image.fromarray(mask.astype(np.uint16))
        else:
            image = Image.fromarray(mask.astype(np.uint8), "P")
            image.putpalette([part for color in self._palette for part in color])
        write_small(self._folder / f"{entry.name}.png", encoded(image, "PNG"))

    def close(self) -> list[str]:
        """Write the names of the classes."""
        self._write_names()
        return []

    def abort(self) -> None:
        """Do nothing: each file is complete."""

    def _write_names(self) -> None:
        lines = []
        for index in range(self._count):
            name = " ".join(class_name(index, self._names).split())
            color = self._palette[index] if self._count <= _PALETTE_SIZE else []
            lines.append(" ".join(map(str, (index, name, *color))) + "\n")
        write_text(self._folder.parent / "classes.txt", "".join(lines))
