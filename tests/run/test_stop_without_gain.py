"""`--patience`: the run ends where its score no longer rises, the schedule stays, and a resume is exact."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.config import OptimConfig
from visionkit.run.config import RunConfig
from visionkit.run.storage.checkpoint import load_checkpoint
from visionkit.run.training.fit import fit

SCORES = [0.1, 0.5, 0.4, float("nan"), 0.3, 0.9, 0.9, 0.9]  # patience 3 ends after the fifth
EPOCHS, IMAGES = 8, 28  # an epoch: seven full batches of 4


class Scripted(TinyTask):
    """A task whose scores are given."""

    def on_validation_epoch_end(self):
        self._right = self._count = 0
        self.log("val/top1", SCORES[self.trainer.current_epoch])


class KilledError(Exception):
    pass


class Kill(Callback):
    """Ends the run as a kill would, in a hook of an epoch."""

    def __init__(self, hook, epoch):
        self.epoch = epoch
        setattr(self, hook, self.end)

    def end(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            raise KilledError


class Planned(Callback):
    """The length that schedules are made for, noted at each update."""

    def __init__(self):
        self.updates = []

    def on_train_batch_start(self, trainer, *_):
        self.updates.append(trainer.estimated_stepping_batches)


def train(folder, *callbacks, patience=3, **more):
    config = RunConfig(
        accelerator="cpu", precision="32-true", progress=False, epochs=EPOCHS, validate_every=1,
        checkpoint_every=2, init="scratch", seeds=[5], patience=patience, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    task = Scripted()
    return task, fit(config, task, tiny_data(), folder=folder, callbacks=callbacks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patience")
    planned = Planned()
    _, result = train(folder / "run", planned)
    return folder / "run", result, planned.updates


def test_the_run_ends_marked_and_its_schedule_is_of_the_planned_length(whole):
    folder, result, planned = whole
    assert result["stopped_early"] == {"images": 5 * IMAGES, "planned_images": EPOCHS * IMAGES}
    assert result["images_seen"] == 5 * IMAGES
    assert (result["best"]["value"], result["config"]["patience"]) == (pytest.approx(0.5), 3)
    log = (folder / "log.txt").read_text()
    assert "at most: patience 3 validations" in log
    assert "stopped early, after 140 of 224 images" in log
    # The schedule is that of the planned length, of which 35 updates were made.
    assert planned == [EPOCHS * 7] * (5 * 7)


@pytest.mark.parametrize(
    ("hook", "epoch"),
    [
        pytest.param("on_train_epoch_start", 2, marks=pytest.mark.slow),
        pytest.param("on_train_epoch_end", 3, marks=pytest.mark.slow),
        ("on_validation_end", 4),
        ("on_train_end", 5),  # patience was at its end, and no result is written yet
    ],
)
def test_a_killed_run_ends_where_the_whole_one_did(whole, tmp_path, hook, epoch):
    folder, result, _ = whole
    with pytest.raises(KilledError):
        train(tmp_path, Kill(hook, epoch))
    again, second = train(tmp_path)
    assert second["stopped_early"] == result["stopped_early"]
    assert second["best"] == result["best"]
    if hook == "on_train_end":
        assert again.seen == [], "nothing was left to train"
    one, other = (load_checkpoint(place / "checkpoints/last.ckpt") for place in (folder, tmp_path))
    assert all(torch.equal(one["state_dict"][name], other["state_dict"][name]) for name in one["state_dict"])
    states = [
        next(value for name, value in made["callbacks"].items() if name.startswith("StopWithoutGain"))
        for made in (one, other)
    ]
    assert states[0] == states[1]
    assert states[0]["wait_count"] == 3


@pytest.mark.slow
def test_patience_with_averaged_weights(tmp_path):
    _, result = train(tmp_path, optim=OptimConfig(ema=0.9))
    assert result["images_seen"] == 5 * IMAGES
