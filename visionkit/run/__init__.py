"""What trains: configuration, Trainer, callbacks, checkpoints and results. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.run.advice.advise import Advice, advise
    from visionkit.run.advice.advise_data import DataAdvice, advise_data
    from visionkit.run.callbacks.finite_guard import FiniteGuard
    from visionkit.run.callbacks.preempt import Preemption
    from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
    from visionkit.run.callbacks.step_seed import StepSeed
    from visionkit.run.callbacks.unfreeze import Unfreeze
    from visionkit.run.command_line import parse
    from visionkit.run.config import RunConfig, setting
    from visionkit.run.previews.callback import Preview
    from visionkit.run.previews.caption_grounding import CaptionGrounding
    from visionkit.run.previews.captioning import CaptionPreview
    from visionkit.run.previews.classification import ClassPreview
    from visionkit.run.previews.detection import BoxPreview, CurveFile
    from visionkit.run.previews.embedding import NeighborPreview
    from visionkit.run.previews.keypoints import KeypointPreview
    from visionkit.run.previews.segmentation import MaskPreview
    from visionkit.run.probing.page import write_probe
    from visionkit.run.probing.probe import probe
    from visionkit.run.probing.result import (
        ProbeCell,
        ProbeChoice,
        ProbeDifference,
        ProbeResult,
        ProbeScore,
    )
    from visionkit.run.processes.launcher import is_first
    from visionkit.run.processes.stop import request_stop
    from visionkit.run.requests import trains
    from visionkit.run.storage.checkpoint import load_checkpoint
    from visionkit.run.sweep.arms import run_recipe
    from visionkit.run.sweep.backbone_table import run_backbones
    from visionkit.run.sweep.launch import guard, launch
    from visionkit.run.sweep.search import Search, parse_range, run_search
    from visionkit.run.training.device_policy import choose_policy
    from visionkit.run.training.fit import fit
    from visionkit.run.training.trainer import build_trainer
    from visionkit.run.unused import refuse_unused
    from visionkit.run.usage import format_usage

__all__ = [
    "Advice",
    "BoxPreview",
    "CaptionGrounding",
    "CaptionPreview",
    "ClassPreview",
    "CurveFile",
    "DataAdvice",
    "FiniteGuard",
    "KeypointPreview",
    "MaskPreview",
    "NeighborPreview",
    "Preemption",
    "Preview",
    "ProbeCell",
    "ProbeChoice",
    "ProbeDifference",
    "ProbeResult",
    "ProbeScore",
    "RunConfig",
    "SaveCheckpoints",
    "Search",
    "StepSeed",
    "Unfreeze",
    "advise",
    "advise_data",
    "build_trainer",
    "choose_policy",
    "fit",
    "format_usage",
    "guard",
    "is_first",
    "launch",
    "load_checkpoint",
    "parse",
    "parse_range",
    "probe",
    "refuse_unused",
    "request_stop",
    "run_backbones",
    "run_recipe",
    "run_search",
    "setting",
    "trains",
    "write_probe",
]

_HOME = {
    "Advice": "advice.advise",
    "BoxPreview": "previews.detection",
    "CaptionGrounding": "previews.caption_grounding",
    "CaptionPreview": "previews.captioning",
    "ClassPreview": "previews.classification",
    "CurveFile": "previews.detection",
    "DataAdvice": "advice.advise_data",
    "FiniteGuard": "callbacks.finite_guard",
    "MaskPreview": "previews.segmentation",
    "KeypointPreview": "previews.keypoints",
    "NeighborPreview": "previews.embedding",
    "Preemption": "callbacks.preempt",
    "Preview": "previews.callback",
    "ProbeCell": "probing.result",
    "ProbeChoice": "probing.result",
    "ProbeDifference": "probing.result",
    "ProbeResult": "probing.result",
    "ProbeScore": "probing.result",
    "RunConfig": "config",
    "SaveCheckpoints": "callbacks.save_checkpoints",
    "Search": "sweep.search",
    "StepSeed": "callbacks.step_seed",
    "Unfreeze": "callbacks.unfreeze",
    "advise": "advice.advise",
    "advise_data": "advice.advise_data",
    "build_trainer": "training.trainer",
    "choose_policy": "training.device_policy",
    "fit": "training.fit",
    "format_usage": "usage",
    "guard": "sweep.launch",
    "is_first": "processes.launcher",
    "launch": "sweep.launch",
    "load_checkpoint": "storage.checkpoint",
    "parse": "command_line",
    "parse_range": "sweep.search",
    "probe": "probing.probe",
    "refuse_unused": "unused",
    "request_stop": "processes.stop",
    "run_backbones": "sweep.backbone_table",
    "run_recipe": "sweep.arms",
    "run_search": "sweep.search",
    "setting": "config",
    "trains": "requests",
    "write_probe": "probing.page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
