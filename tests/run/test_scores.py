"""Which weights a score is of, what is said where there is nothing to score, and what ended early."""

from __future__ import annotations

import json
import shlex
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.make_runs import make_run
from tests.run.tiny import Noise, TinyTask, keep, stack
from visionkit.compare.comparison import compare
from visionkit.compare.report.figures.class_bars import class_bars
from visionkit.compare.report.figures.precision_recall import detection_figures
from visionkit.compare.report.report import write_report
from visionkit.compare.summary import headline, summary_rows, summary_text
from visionkit.data import DataModule, Splits
from visionkit.errors import DataError, InputError
from visionkit.run.command_line import parse
from visionkit.run.config import RunConfig
from visionkit.run.requests import asking
from visionkit.run.resume import check_resume
from visionkit.run.storage.result import TEST_FAILED, named_scores, read_result, score_text
from visionkit.run.sweep.backbone_table import architecture_rows, write_architectures
from visionkit.run.training.fit import fit

MAP = ("val/map", "max")


def unscored(tmp_path, **kwargs):
    return make_run(
        tmp_path, monitor=MAP, points=[(10, 0.0)], changes={"metrics": {"val/map": None}}, **kwargs
    )


def test_nothing_to_score_is_said_and_the_report_is_there(tmp_path):
    for init in ("pretrained", "scratch"):
        unscored(tmp_path, init=init)
    found = compare([tmp_path])
    assert headline(found)[0] == "Nothing to score on scenes: no run has a val/map."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = write_report(found, tmp_path).read_text()
    assert text.count("nothing to score") >= 2
    assert "Could not be drawn" not in text
    assert "nothing to score: its val/map is None" in summary_text(found)


def test_an_arm_without_a_score_is_left_out_by_name(tmp_path):
    make_run(tmp_path, "scratch", monitor=MAP, points=[(10, 0.5)])
    unscored(tmp_path, init="pretrained")
    found = compare([tmp_path])
    assert found.arms == ("scratch",)
    assert "nothing to score: its val/map is None" in write_report(found, tmp_path).read_text()


def test_no_class_to_draw_is_no_figure():
    assert detection_figures({"a": {"curves": {}, "ap": {}}}, data="d") == []
    with pytest.raises(InputError, match="nothing to score"):
        class_bars({"a": {}}, title="t", label="l")


def test_rows_say_which_weights_they_are_of(tmp_path):
    for init, best in (("pretrained", 0.9), ("scratch", 0.7)):
        held = {"name": "val/top1", "value": best, "metrics": {"val/top1": best, "val/macro_f1": best}}
        make_run(tmp_path, init, changes={"best": held})
    found = compare([tmp_path])
    rows = {row[0]: row[1:] for row in summary_rows(found, 1.0)}
    assert {"val/top1 (last)", "val/top1 (best)", "test/top1 (best)"} <= set(rows)
    assert rows["val/top1 (best)"] == ["0.900", "0.700", "+0.200"]
    assert found.to_dict()["cells"][0]["best"]["val/macro_f1"]["mean"] == 0.9
    assert "(best): those of the best validation" in summary_text(found)
    assert 'class="monitor"><td>val/top1 (last)' in write_report(found, tmp_path).read_text()


def test_scores_are_named_by_split_and_weights():
    metrics = {"val/top1": 0.5, "val/loss": 1.0, "test/top1": 0.4}
    named = named_scores(metrics, {"val/top1": 0.6}, {"val": "last", "test": "best"})
    assert named == {
        "val (last)": {"top1": 0.5, "loss": 1.0},
        "val (best)": {"top1": 0.6},
        "test (best)": {"top1": 0.4},
    }
    result = {"monitor": ["val/top1", "max"], "scores": named, "metrics": metrics}
    assert score_text(result) == "val/top1 0.5000 (last), 0.6000 (best), test/top1 0.4000 (best)"
    older = {"monitor": ["val/top1", "max"], "metrics": metrics, "best": {"value": 0.6}}
    assert score_text(older) == "val/top1 0.5000 (last), test/top1 0.4000 (best)"
    assert score_text({**older, "metrics": {"val/top1": None}}) == "nothing to score"


class Broken(Noise):
    def __getitem__(self, index):
        raise DataError("cut off", path="b.png")


class Tested(TinyTask):
    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)


class StopsAfterOne(Callback):
    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = True


def trained(folder, *callbacks, test=None, **changes):
    settings = {"accelerator": "cpu", "precision": "32-true", "progress": False, "epochs": 3}
    config = RunConfig(**settings | changes, init="scratch", seeds=[5])
    torch.manual_seed(0)
    splits = Splits(Noise(30, 1), Noise(11, 2), test, ("a", "b", "c"), "noise", {})
    data = DataModule(splits, batch_size=4, train_transform=keep, eval_transform=keep, collate=stack, seed=5)
    return fit(config, Tested(), data, folder=folder, callbacks=callbacks)


class Watch(Callback):
    def __init__(self):
        self.scores = []

    def on_validation_end(self, trainer, module):
        self.scores.append(float(trainer.callback_metrics["val/top1"]))


def test_a_result_holds_the_scores_of_the_last_and_of_the_best_weights(tmp_path):
    watch = Watch()
    result = trained(tmp_path, watch)
    assert result["metrics"]["val/top1"] == watch.scores[-1]
    assert result["best"]["metrics"]["val/top1"] == result["best"]["value"] == max(watch.scores)
    assert result["metrics_of"] == {"val": "last", "test": "best"}
    assert {name: scores["top1"] for name, scores in result["scores"].items()} == {
        "val (last)": watch.scores[-1],
        "val (best)": max(watch.scores),
    }
    saved = read_result(tmp_path)
    assert saved is not None
    assert saved["scores"] == result["scores"]
    assert score_text(saved) == f"val/top1 {watch.scores[-1]:.4f} (last), {max(watch.scores):.4f} (best)"
    assert result["stopped_early"] is None
    assert result["problems"] == []


def test_a_run_that_ended_early_is_marked_and_compared(tmp_path):
    result = trained(tmp_path / "a", StopsAfterOne())
    assert result["stopped_early"] == {"images": 28, "planned_images": 84}
    make_run(
        tmp_path / "b",
        "pretrained",
        changes={"stopped_early": {"images": 3000, "planned_images": 6000}, "images_seen": 3000},
    )
    make_run(tmp_path / "b", "scratch")
    found = compare([tmp_path / "b"])
    assert "pretrained-f1-s0: stopped early, after 3,000 of 6,000 images" in found.notes
    assert "Stopped early, before the planned length: 1 of 2 runs (pretrained-f1-s0)." in headline(found)
    assert ["stopped early", "seed 0: 3,000 of 6,000 images", "", ""] in summary_rows(found, 1.0)
    assert [run["stopped_early"] is None for run in found.to_dict()["runs"]] == [False, True]
    text = write_report(found, tmp_path).read_text()
    assert ">3,000 (stopped early)</td>" in text
    assert "Stopped early, before the planned length" in text
    rows = {row["init"]: row for row in architecture_rows(tmp_path / "b")}
    assert (rows["pretrained"]["stopped_early"], rows["scratch"]["stopped_early"]) == (1, 0)
    write_architectures(tmp_path / "b")
    assert "| pretrained (1 of 1 stopped early) |" in (tmp_path / "b" / "architectures.md").read_text()


def test_a_test_split_that_cannot_be_read_loses_nothing(tmp_path):
    with pytest.warns(RuntimeWarning, match="The result is written without it"):
        result = trained(tmp_path, test=Broken(5, 3))
    assert result["problems"] == [f"{TEST_FAILED}: DataError: b.png: cut off"]
    assert "val/top1" in result["metrics"]
    saved = read_result(tmp_path)
    assert saved is not None
    assert json.loads(json.dumps(saved["problems"])) == result["problems"]


def test_more_epochs_are_refused_with_the_way_to_go_on(tmp_path):
    trained(tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"epochs was 1, is 2.*--init .*best\.ckpt --out OTHER_FOLDER"):
        trained(tmp_path, epochs=2)


def test_more_epochs_of_a_finished_run_are_a_command_to_copy(tmp_path):
    folder = tmp_path / "x" / "scratch-f1-s5"
    trained(folder, epochs=1, out=str(tmp_path / "x"))
    asked = ["python", "recipes/classify.py", "--epochs", "3", "--out", str(tmp_path / "x")]
    config = RunConfig(
        accelerator="cpu", precision="32-true", progress=False, init="scratch", seeds=[5], epochs=3,
        out=str(tmp_path / "x"),
    )  # fmt: skip
    with asking(command=asked), pytest.raises(InputError, match="epochs was 1, is 3") as caught:
        check_resume(config, folder)
    command = shlex.split(str(caught.value).splitlines()[-1])
    assert command[: len(asked)] == asked
    made = parse(RunConfig, command[2:])
    assert (made.epochs, made.seeds, made.out) == (2, [5], f"{tmp_path / 'x'}-longer")
    assert made.init == str(folder / "checkpoints/best.ckpt")
    assert Path(made.init).is_file()
    with asking(command=asked), pytest.raises(InputError, match=r"lr was 0\.001, is 0\.5.*OTHER_FOLDER"):
        check_resume(replace(config, epochs=1, lr=0.5), folder)


def test_a_run_goes_on_with_another_machine_and_names_what_changed(tmp_path, capsys):
    first = trained(tmp_path, epochs=2)
    capsys.readouterr()
    again = trained(tmp_path, epochs=2, validate_every=2, timeout=60, deterministic=True)
    text = " ".join(capsys.readouterr().out.split())
    assert f"{tmp_path.name} goes on with other machine settings: --validate_every was 0, is 2." in text
    assert again["metrics"] == first["metrics"]
    assert (again["roles"]["workers"], again["roles"]["init"]) == ("machine", "arm")
    assert "lr" not in again["roles"]


def test_a_setting_of_the_machine_that_changes_the_length_is_refused(tmp_path):
    trained(tmp_path, images=80)
    with pytest.raises(InputError, match=r"another one: images in all was 84, is 112\."):
        trained(tmp_path, images=80, validate_every=4)
