"""A sweep: every trial a run folder, poor ones end early, a killed one goes on, and the table of it all."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.compare import compare_by
from visionkit.errors import InputError
from visionkit.run.config import RunConfig, setting
from visionkit.run.sweep import search as searching
from visionkit.run.sweep.search import Search, SearchRange, parse_range, run_search
from visionkit.run.training.fit import fit

optuna = pytest.importorskip("optuna", reason="the extra `sweep` is not installed")


@dataclass
class Config(RunConfig):
    width: int = setting(4, "a whole number", min=1)


class Rated(TinyTask):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Interrupt(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 10:
            raise KeyboardInterrupt


FLAGS = [
    "--init", "scratch", "--seeds", "3", "--epochs", "3", "--accelerator", "cpu", "--precision", "32-true",
    "--progress", "false", "--checkpoint_every", "2", "--devices", "1",
]  # fmt: skip
RANGES = (SearchRange("lr", 1e-4, 1e-1), SearchRange("optim.schedule", choices=("cosine", "linear")))


def trainer_of(begun, kill_at=None):
    def train(config, folder):
        begun.append((folder.name, config.lr, config.optim.schedule))
        callbacks = [Interrupt()] if len(begun) == kill_at else []
        return fit(config, Rated(config.lr), tiny_data(seed=3), folder=folder, callbacks=callbacks)

    return train


@pytest.mark.slow  # four short trainings
def test_a_killed_search_goes_on_with_the_same_trial_in_its_folder(tmp_path):
    begun = []
    with pytest.raises(KeyboardInterrupt):
        run_search(Search(Config, trainer_of(begun, 2), FLAGS, RANGES, tmp_path), trials=3)
    assert [row[0] for row in begun] == ["trial-000", "trial-001"]
    again = []
    study = run_search(Search(Config, trainer_of(again), FLAGS, RANGES, tmp_path), trials=3)
    assert again[0] == begun[1], "the same values in the same folder"
    assert "continuing from last.ckpt" in (tmp_path / "trial-001/log.txt").read_text()
    assert [row[0] for row in again] == ["trial-001", "trial-003"], "trial 2 was trial 1, taken up again"
    assert len({row[1] for row in [*begun, *again]}) == 3, "a search that goes on proposes other values"
    assert "epoch 2/3" in (tmp_path / "trial-001/log.txt").read_text()
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")}
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(done) == 3
    assert {t.user_attrs["folder"]: t.value for t in done} == {
        name: result["best"]["value"] for name, result in results.items()
    }
    assert {t.params["lr"] for t in done} == {result["config"]["lr"] for result in results.values()}
    more = []
    run_search(Search(Config, trainer_of(more), FLAGS, RANGES, tmp_path), trials=3)
    assert more == [], "there are as many as were asked for"
    table = compare_by([tmp_path], ["lr", "optim.schedule"])
    assert (len(table.rows), table.by) == (3, ("lr", "optim.schedule"))
    scores = [row.best.mean for row in table.rows]
    assert scores == sorted(scores, reverse=True)
    assert study.best_value == scores[0]


def test_a_trial_below_the_others_ends_early_and_is_marked(tmp_path):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=1.5))
    trial, begun = study.ask(), []
    config = Search(Config, trainer_of(begun), FLAGS, RANGES, tmp_path).config_of(["0.01", "cosine"])
    searching._run_trial(study, trial, trainer_of(begun), config, tmp_path / "trial-000")
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert sorted(study.trials[0].intermediate_values) == [0]
    result = json.loads((tmp_path / "trial-000/result.json").read_text())
    assert result["stopped_early"] == {"images": 28, "planned_images": 84}
    assert compare_by([tmp_path], ["lr"]).rows[0].stopped_early == 1


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("lr=1e-4..1e-1", SearchRange("lr", 1e-4, 0.1)),
        ("optim.weight_decay=0..0.3", SearchRange("optim.weight_decay", 0.0, 0.3)),
        ("width=2..64", SearchRange("width", 2.0, 64.0, whole=True)),
        ("optim.schedule=cosine,linear", SearchRange("optim.schedule", choices=("cosine", "linear"))),
    ],
)
def test_ranges_are_read(text, made):
    assert parse_range(text, Config) == made
    assert made.log == (text.split("=")[0] in ("lr", "width"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("lr", "NAME=LOW..HIGH"),
        ("lrr=1..2", "'lr'"),
        ("lr=a..b", "two numbers"),
        ("lr=2..1", "rise from LOW to HIGH"),
        ("optim.schedule=cosine", "two or more different"),
        ("optim.schedule=cosine,cosine", "two or more different"),
    ],
)
def test_wrong_ranges_are_refused(text, error):
    with pytest.raises(InputError, match=error):
        parse_range(text, Config)


def test_values_and_flags_are_checked_before_a_study_is_made(tmp_path):
    for ranges, flags, error in (
        ([SearchRange("lr", 0.0, 1.0)], FLAGS, "--lr to be above 0"),
        ([SearchRange("optim.schedule", choices=("cosine", "cosin"))], FLAGS, "Did you mean 'cosine'"),
        (RANGES, [*FLAGS, "--seeds", "0", "1"], "they are for 2"),
        (RANGES, [*FLAGS, "--init", "both"], "they are for 2"),
        (RANGES, [*FLAGS, "--epoch", "1"], "'--epochs'"),
    ):
        with pytest.raises(InputError, match=error):
            run_search(Search(Config, trainer_of([]), flags, ranges, tmp_path / "x"), trials=2)
    assert not (tmp_path / "x").exists()
