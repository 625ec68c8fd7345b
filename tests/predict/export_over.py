"""One export of each task over a backbone, on small images: a row of the table of `reference/export.md`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from visionkit.errors import InputError
from visionkit.predict.export import export
from visionkit.task_config import Decoding, RCNNConfig
from visionkit.tasks import Captioner, Classifier, Detector, Segmenter
from visionkit.text.vocabulary import Vocabulary

ALL = (4, 8, 16, 32)
RCNN = RCNNConfig(proposals_eval=30, detections_per_img=10, score_threshold=0.01, head_width=16)
WORDS = {"vocabulary": Vocabulary(["a", "b", "c", "d"]), "embed": 8, "hidden": 8, "attention": 8}
GREEDY = Decoding(beams=1, max_length=3)


def task_over(kind: str, name: str, reductions: tuple[int, ...]) -> Any:
    """Build a small task over a backbone; one of fixed size for the smallest images that it takes."""
    torch.manual_seed(0)
    base = {"backbone": name, "init": "scratch", **decoder_for(kind, reductions)}
    for size in ({}, {"image_size": 64}, {"image_size": 96}, {"image_size": 224}):
        try:
            if kind == "classification":
                return Classifier(**base, **size, num_classes=3)
            if kind == "captioning":
                return Captioner(**base, **size, **WORDS, decoding=GREEDY)
            if kind == "segmentation":
                return Segmenter(**base, **size, num_classes=3)
            return Detector(
                **base, **size, num_classes=3, rcnn=RCNN, pyramid_channels=8, reductions=reductions or ALL
            )
        except InputError as error:
            if "size" not in str(error):
                raise
            refused = error
    raise refused


def decoder_for(kind: str, reductions: tuple[int, ...]) -> dict[str, Any]:
    """Return the decoder of a task over a backbone: the default, or what its refusal names in its place."""
    if kind == "captioning":
        return {"decoder": "show_attend_tell" if reductions else "show_and_tell"}
    if kind == "segmentation":
        one = {"decoder": "fcn", "output_stride": max(reductions, default=None)}
        return one if len(reductions) == 1 else {"decoder": "unet"}
    return {}


def export_over(kind: str, name: str, reductions: tuple[int, ...]) -> dict[str, Any]:
    """Export a small task over a backbone, and say what came of it."""
    row: dict[str, Any] = {"name": name, "kind": kind, "status": "passes", "reason": ""}
    try:
        task = task_over(kind, name, reductions)
        draw = torch.Generator().manual_seed(0)
        fixed = getattr(task.backbone, "fixed_size", None) or (64, 64)
        coarse = torch.rand(2, 3, 4, 4, generator=draw)
        images = torch.nn.functional.interpolate(coarse, size=tuple(fixed), mode="bilinear")
        whole = kind in ("classification", "captioning")
        resize = {"name": "CenterCrop", "size": fixed[0], "fraction": 1.0} if whole else {"name": "Native"}
        with tempfile.TemporaryDirectory() as folder:
            made = export(
                task, Path(folder) / "x.onnx", images=list((images * 255).byte()), preprocess=resize
            )
        row |= decoder_for(kind, reductions)
        row |= {"dynamic": made.metadata["dynamic"], "opset": made.metadata["opset"]}
        row |= {"difference": made.metadata["check"]["largest_difference"], "notes": list(made.notes)}
    except InputError as error:
        row |= {"status": "refused", "reason": str(error)[:300]}
    except Exception as error:  # a row of the table
        row |= {"status": "crash", "reason": f"{type(error).__name__}: {error}"[:400]}
    return row
