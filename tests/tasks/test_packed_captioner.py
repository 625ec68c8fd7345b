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


def test_an_evaluation_packs_its_weights_and_frees_them(monkeypatch):
    """Packed for one evaluation, never for the next: weights that changed in between count."""
    task, run = captioner(embed=16, attention=16), trainer()
    copies: list[nn.Module] = []
    monkeypatch.setattr(
        "visionkit.nn.captioning.prepacked.packed",
        lambda *parts, **more: copies.append(packed(*parts, **more)) or copies[-1],
    )
    results = []
    for _ in range(2):
        (scores,) = run.validate(task, datamodule=data(), verbose=False)
        log_probs = [p.log_prob for p in run.predict(task, data().val_dataloader())[0]]
        assert log_probs == pytest.approx([p.log_prob for p in task.predict_step(batch(4))], rel=1e-5)
        results.append((scores["val/loss"], log_probs))
        with torch.no_grad():
            task.decoder.output.bias[WORDS.id("dark")] += 3
    assert len(copies) == 4, "one an evaluation, however many batches it has"
    assert all(copy is not task.decoder for copy in copies)
    assert results[0] != results[1]
    assert task._packed._copy is None
    assert not any(copy is part for copy in copies for part in task.modules())
    with torch.no_grad():
        task.decoder.output.bias[WORDS.id("bright")] += 9
    assert "bright" in task.predict_step(batch(1))[0].caption
    assert len(copies) == 4, "on its own a task uses its decoder"
