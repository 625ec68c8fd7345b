"""A non-finite number stops the run before the weights, with step, terms, images and the batch saved."""

from __future__ import annotations

import pytest
import torch

from tests.run.tiny import TinyTask, tiny_data
from visionkit.run.callbacks.finite_guard import FiniteGuard, NonFiniteError
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.config import RunConfig
from visionkit.run.training.trainer import build_trainer


class Faulty(TinyTask):
    def __init__(self, at: int, value: float):
        super().__init__()
        self.at, self.value, self.before = at, value, None

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.seen[-1][0] == self.at:
            self.before = {k: v.clone() for k, v in self.named_parameters()}
            loss = loss * self.value
            self.loss_terms = {"loss": loss.detach(), "classifier": loss.detach()}
        return loss


def run(task, folder, **kwargs):
    torch.manual_seed(0)
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False)
    callbacks = [
        FiniteGuard(folder / "faults", **kwargs),
        SaveCheckpoints(folder, monitor=task.monitor, every=1),
    ]
    trainer = build_trainer(config, folder=folder, callbacks=callbacks, max_epochs=2)
    trainer.fit(task, datamodule=tiny_data())
    return trainer


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [1, 6, 9])
def test_stops_before_the_update(tmp_path, value, at):
    task = Faulty(at, value)
    with pytest.raises(NonFiniteError) as caught:
        run(task, tmp_path)
    text = str(caught.value)
    ids = task.seen[-1][1]
    assert f"update {at - 1}" in text
    assert "classifier = " in text
    assert all(name in text for name in ids)
    assert all(torch.equal(v, task.before[k]) for k, v in task.named_parameters())
    kept = torch.load(tmp_path / "faults" / f"step-{at - 1}-rank-0.pt", weights_only=True)
    assert kept["batches"][0]["ids"] == ids
    last = tmp_path / "last.ckpt"
    if last.exists():
        state = torch.load(last, weights_only=True)["state_dict"]
        assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_skips_as_many_as_allowed(tmp_path):
    task = Faulty(4, float("nan"))
    with pytest.warns(UserWarning, match="left out"):
        trainer = run(task, tmp_path, skip=1)
    assert trainer.global_step == 14
    assert all(p.isfinite().all() for p in task.parameters())
