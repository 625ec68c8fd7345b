"""Images and masks of a few pixels, written where a test wants them."""

from __future__ import annotations

import numpy as np
from PIL import Image


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (seed, 90, 30)).save(path)


def mask(path, values=(0, 1), save_as=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.full((6, 8), values[0], np.uint8)
    for place, value in enumerate(values[1:], start=1):
        grid[place] = value
    Image.fromarray(grid).save(path, format=save_as)


def names(root, text="road\ncar\n", file="classes.txt"):
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    return root


def ids(splits):
    return [
        [] if reader is None else [reader[i]["id"] for i in range(len(reader))]
        for reader in (splits.train, splits.val, splits.test)
    ]
