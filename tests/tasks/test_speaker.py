"""Packed weights last for one evaluation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from captioning_tiny import WORDS, captioner, data, trainer

from visionkit.nn.captioning.prepacked import packed


def batch(count: int):
    module = data(batch_size=count)
    return module.collate([module.splits.val[index] for index in range(count)])


def test_an_evaluation_packs_its_weights_and_lets_them_go(monkeypatch):
    """Packed for one evaluation, never for the next: weights changed in between are the ones that speak."""
    task, run = captioner(embed=16, attention=16), trainer()
    twins: list[nn.Module] = []
    monkeypatch.setattr(
        "visionkit.tasks.captioning.prepacked_decoder.packed",
        lambda *parts, **more: twins.append(packed(*parts, **more)) or twins[-1],
    )
    found = []
    for evaluate in (run.validate, run.validate):
        (scores,) = evaluate(task, datamodule=data(), verbose=False)
        said = [p.log_prob for p in run.predict(task, data().val_dataloader())[0]]
        assert said == pytest.approx([p.log_prob for p in task.predict_step(batch(4))], rel=1e-5)
        found.append((scores["val/loss"], said))
        with torch.no_grad():
            task.decoder.output.bias[WORDS.id("dark")] += 3
    assert len(twins) == 4, "one an evaluation, however many batches it has"
    assert all(twin is not task.decoder for twin in twins)
    assert found[0] != found[1]
    assert "_twin" not in vars(task)
    with torch.no_grad():
        task.decoder.output.bias[WORDS.id("bright")] += 9
    assert "bright" in task.predict_step(batch(1))[0].caption
    assert len(twins) == 4, "on its own a task speaks with its decoder"
