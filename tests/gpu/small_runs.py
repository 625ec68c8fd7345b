"""Small runs of the four recipes on a card: whole, stopped at a batch, and continued."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import torch

from visionkit.run.callbacks import step_seed
from visionkit.run.storage.checkpoint import load_checkpoint
from visionkit.task_config import RNNConfig, SceneConfig, SegmentationHead, SentenceConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "classify": {"scenes": SceneConfig(64, 24), "image_size": 64},
    "detect": {"scenes": SceneConfig(64, 12), "image_size": 128},
    "segment": {
        "scenes": SceneConfig(64, 12), "image_size": 64, "loss": "ce + dice",
        "head": SegmentationHead(aux_loss_weight=0.4),
    },
    "caption": {
        "scenes": SceneConfig(64, 12), "image_size": 96, "rnn": RNNConfig(hidden=64),
        "sentences": SentenceConfig(min_count=1),
    },
}  # fmt: skip


class StopError(Exception):
    """What a stopped run raises."""


def run(root: Path, name: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Train one run of a recipe in `folder`, or continue it, and return its result."""
    sys.path.insert(0, str(root / "recipes"))
    recipe = importlib.import_module(name)
    settings = {**SETTINGS[name], "batch_size": 8, "epochs": 2, "seeds": [3], "progress": False}
    settings |= {"init": "scratch", "accelerator": "gpu", "checkpoint_every": 3, **more}
    torch.manual_seed(settings["seeds"][0])
    result: dict[str, Any] = recipe.train(recipe.Config(**settings), folder)
    return result


def stopped(monkeypatch: Any, batch: int, call: Any) -> None:
    """Call `call`, which is stopped as a kill would where its batch number `batch` begins."""
    whole = step_seed.keyed_seed

    def stop(seed: int, ready: int, *more: int) -> int:
        if ready == batch:
            raise StopError
        return whole(seed, ready, *more)

    monkeypatch.setattr(step_seed, "keyed_seed", stop)
    try:
        call()
    except StopError:
        return
    finally:
        monkeypatch.setattr(step_seed, "keyed_seed", whole)
    raise RuntimeError("the run was not stopped")


def digest(folder: Path) -> str:
    """Return a digest of the weights that a run ended with."""
    state = load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    raw = b"".join(state[name].contiguous().view(-1).numpy().tobytes() for name in sorted(state))
    return hashlib.sha256(raw).hexdigest()
