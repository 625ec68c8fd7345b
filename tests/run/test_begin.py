"""A run that begins from another run: what the banner and the result say of it, and where nothing is said."""

from __future__ import annotations

import json

import pytest
import torch

from tests.run.tiny import tiny_data
from visionkit.errors import InputError
from visionkit.run import RunConfig, fit, run_recipe
from visionkit.tasks import Classifier


def _train(names):
    def train(config, folder):
        task = Classifier(
            "timm/test_resnet",
            init=config.init,
            num_classes=3,
            class_names=names,
            image_size=32,
            lr=config.lr,
        )
        data = tiny_data(size=8, valid=4)
        return fit(config, task, data, folder=folder)

    return train


def _config(init, out):
    return RunConfig(
        backbone="timm/test_resnet", init=str(init), out=str(out), seeds=[0], images=8, batch_size=4,
        accelerator="cpu", progress=False,
    )  # fmt: skip


def test_a_run_begins_from_a_run_and_says_so_without_its_place(tmp_path, capsys):
    first, second, third = (tmp_path / name for name in ("pets", "again", "other"))
    run_recipe(_config("scratch", first), _train(("a", "b", "c")), paths=("init",))
    assert "  begins " not in capsys.readouterr().out
    for init in (first, first / "scratch-f1-s0"):
        run_recipe(_config(init, second), _train(("a", "b", "c")), paths=("init",))
        said = capsys.readouterr().out
        kept = "and all the rest, with the same 3 classes"
        note = f"backbone from best.ckpt of scratch-f1-s0, a Classifier, {kept}"
        assert f"  begins    {note}\n" in said
        name = "pets-f1-s0" if init == first else "scratch-f1-s0-f1-s0"
        assert json.loads((second / name / "result.json").read_text())["init_note"] == note
    content = torch.load(second / "pets-f1-s0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert str(tmp_path) not in repr({key: value for key, value in content.items() if key != "state_dict"})
    assert content["visionkit"]["facts"]["weights"]["training_data"] == "noise"
    run_recipe(_config(first, third), _train(("a", "b", "d")), paths=("init",))
    assert "the rest is new: it has 3 classes, here are 3, 2 of them the same" in capsys.readouterr().out
    # the same command finds its run finished, and a changed one in its place is another init
    run_recipe(_config(first, third), _train(("a", "b", "d")), paths=("init",))
    assert "finished before" in capsys.readouterr().out


def test_weights_that_were_never_trained_are_doubted_on_the_screen_and_in_the_result(tmp_path, capsys):
    fresh = Classifier("timm/test_resnet", init="scratch", num_classes=3).backbone.net.model
    torch.save(fresh.state_dict(), tmp_path / "pretrained.pt")
    with pytest.warns(UserWarning, match=r"pretrained\.pt: these weights look freshly initialised"):
        run_recipe(
            _config(tmp_path / "pretrained.pt", tmp_path / "out"), _train(("a", "b", "c")), paths=("init",)
        )
    assert "  doubt     these weights look freshly initialised" in capsys.readouterr().out
    (folder,) = (tmp_path / "out").glob("*-f1-s0")
    assert "freshly initialised" in json.loads((folder / "result.json").read_text())["weights"]["doubt"]
    assert "look freshly initialised" in (tmp_path / "out" / "report.html").read_text()


def test_what_cannot_be_begun_from_is_refused_before_a_folder_is_made(tmp_path):
    for folder in ("empty", "out"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="is empty"):
        run_recipe(_config(tmp_path / "empty", tmp_path / "new"), _train(("a",)), paths=("init",))
    with pytest.raises(InputError, match="written into the folder that they begin from"):
        run_recipe(_config(tmp_path / "out", tmp_path / "out"), _train(("a",)), paths=("init",))
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "out").iterdir()) == []
