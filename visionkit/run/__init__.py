"""Runs: configuration, trainer, checkpoints, results and their comparison. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.run.arms import run_recipe
    from visionkit.run.caption_facts import CaptionFacts
    from visionkit.run.checkpoint import load_checkpoint
    from visionkit.run.comparison import compare
    from visionkit.run.config import RunConfig, parse, setting
    from visionkit.run.fitting import fit
    from visionkit.run.guard import FiniteGuard
    from visionkit.run.policy import choose_policy
    from visionkit.run.preempt import Preemption
    from visionkit.run.preview import Preview
    from visionkit.run.preview_boxes import BoxPreview, CurveFile
    from visionkit.run.preview_captions import CaptionPreview
    from visionkit.run.preview_classes import ClassPreview
    from visionkit.run.preview_masks import MaskPreview
    from visionkit.run.report import write_report
    from visionkit.run.saver import SaveCheckpoints
    from visionkit.run.step_seed import StepSeed
    from visionkit.run.trainer import build_trainer

__all__ = [
    "BoxPreview",
    "CaptionFacts",
    "CaptionPreview",
    "ClassPreview",
    "CurveFile",
    "FiniteGuard",
    "MaskPreview",
    "Preemption",
    "Preview",
    "RunConfig",
    "SaveCheckpoints",
    "StepSeed",
    "build_trainer",
    "choose_policy",
    "compare",
    "fit",
    "load_checkpoint",
    "parse",
    "run_recipe",
    "setting",
    "write_report",
]

_HOME = {
    "BoxPreview": "preview_boxes",
    "CaptionFacts": "caption_facts",
    "CaptionPreview": "preview_captions",
    "ClassPreview": "preview_classes",
    "CurveFile": "preview_boxes",
    "FiniteGuard": "guard",
    "MaskPreview": "preview_masks",
    "Preemption": "preempt",
    "Preview": "preview",
    "RunConfig": "config",
    "SaveCheckpoints": "saver",
    "StepSeed": "step_seed",
    "build_trainer": "trainer",
    "choose_policy": "policy",
    "compare": "comparison",
    "fit": "fitting",
    "load_checkpoint": "checkpoint",
    "parse": "config",
    "run_recipe": "arms",
    "setting": "config",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
