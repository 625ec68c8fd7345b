"""A small COCO folder, sound in every field, to be read as it is or broken in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 60, 40


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def document() -> dict[str, Any]:
    """Three images, the last without objects; ids with gaps, categories out of order, one crowd."""
    sides = [(WIDTH, HEIGHT), (50, 30), (WIDTH, HEIGHT)]
    images = [
        {"id": 7 + 10 * i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(sides)
    ]
    crowd = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 10, HEIGHT * 20, HEIGHT * 30]}
    annotations = [
        {
            "id": 3,
            "image_id": 17,
            "category_id": 90,
            "bbox": [5, 5, 10, 10],
            "segmentation": square(5, 5, 10),
        },
        {"id": 5, "image_id": 7, "category_id": 2, "bbox": [1, 2, 20, 20], "segmentation": square(1, 2, 20)},
        {"id": 9, "image_id": 7, "category_id": 90, "bbox": [30, 4, 8, 8], "segmentation": square(30, 4, 8)},
        {"id": 11, "image_id": 7, "category_id": 2, "bbox": [10, 0, 20, HEIGHT], "segmentation": crowd},
    ]
    for each in annotations:
        each |= {"area": float(each["bbox"][2] * each["bbox"][3]), "iscrowd": int(each["id"] == 11)}
    categories = [{"id": 90, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 40, "name": "emu"}]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories}


def write(root: Path, content: Any, *, name: str = "train.json") -> Path:
    """Write a file and its images; return the file."""
    folder = root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate([(WIDTH, HEIGHT), (50, 30), (WIDTH, HEIGHT)]):
        Image.new("RGB", size, (9, 60 * i, 9)).save(folder / f"{i}.png")
    path = root / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
