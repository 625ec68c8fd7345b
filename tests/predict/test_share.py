"""A run is published, pushed to a hub on this machine and fetched again; its backbone loads in timm."""

from __future__ import annotations

import json
import runpy
import shutil
import sys

import pytest
import timm
import torch
from huggingface_hub import ModelCard, constants, file_download
from PIL import Image

from tests.predict.hub_server import hub
from tests.run.make_runs import make_run
from tests.tasks.small_tasks import CUT, KINDS, NAMES, predictions_of, save_checkpoint, small_task
from visionkit import cli, tasks
from visionkit.backbones import create_backbone
from visionkit.backbones.sources.trained import published_config
from visionkit.errors import DataError, InputError, RunError
from visionkit.predict import describe_trained, load, publish, timm_weights
from visionkit.tasks import Classifier

FILES = ("README.md", "config.json", "learning-curves.png", "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of two arms, of which the pretrained one is a classifier with a checkpoint."""
    root = tmp_path_factory.mktemp("runs")
    task = small_task("Classifier")
    for init in ("pretrained", "scratch"):
        made = make_run(root, init, classes=list(NAMES))
        result = json.loads((made / "result.json").read_text())
        value = result["metrics"]["val/top1"]
        result |= {"best": {"name": "val/top1", "value": value, "metrics": {"val/top1": value + 0.01}}}
        result["metrics_of"] = {"val": "last", "test": "best"}
        (made / "result.json").write_text(json.dumps(result))
        save_checkpoint(task if init == "pretrained" else small_task("Classifier"), made)
    return root, task


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "ants"
    return folder, publish(runs[0], folder, timm_file=folder / "timm.safetensors", name="Ants & bees")


def test_a_published_folder_holds_the_card_of_both_arms(runs, published):
    folder, done = published
    assert done.files == (*FILES, "timm.safetensors")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["ants"]
    assert "pretrained-f1-s0: the best of 2 finished runs" in done.notes[0]
    card = ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "visionkit")
    assert data.pipeline_tag == "image-classification"
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    record = json.loads((runs[0] / "pretrained-f1-s0" / "result.json").read_text())
    assert scores == {
        "val/top1": record["best"]["metrics"]["val/top1"], "test/top1": record["metrics"]["test/top1"],
    }  # fmt: skip
    text = card.text
    for part in (
        "# Ants & bees", "(learning-curves.png)", "| pretrained | scratch | pretrained - scratch |",
        "arm pretrained, seed 0, at the best validation", "OpenMoji, CC BY-SA 4.0", "ImageNet-1k",
        "ant, bee, cat", "timm.create_model('test_efficientnet', num_classes=3", "CenterCrop",
    ):  # fmt: skip
        assert part in text, part
    with Image.open(folder / "learning-curves.png") as figure:
        assert figure.size[0] > 600
    for file in folder.iterdir():
        content = file.read_bytes()
        assert str(runs[0]).encode() not in content
        assert str(folder.parent).encode() not in content


def test_a_published_folder_predicts_as_the_run_does(runs, published, tmp_path):
    folder, _ = published
    photo = tmp_path / "photo.png"
    Image.effect_noise((70, 80), 90).convert("RGB").save(photo)
    one, other = (load(place, device="cpu", precision="32-true")(photo)[0] for place in (runs[0], folder))
    assert torch.equal(one.prediction.probabilities, other.prediction.probabilities)
    assert load(folder / "model.safetensors").class_names == NAMES
    assert load(folder).facts["data"]["name"] == "insects"


def test_nothing_is_published_over_something_or_by_halves(runs, published, tmp_path, monkeypatch):
    root, _ = runs
    folder, _ = published
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for target in (tmp_path / "full", tmp_path / "full" / "x"):
        with pytest.raises(InputError, match="new or an empty folder"):
            publish(root, target)
    for file, why in (("w.pth", r"ends in \.safetensors"), ("none/w.safetensors", "folder at")):
        with pytest.raises(InputError, match=why):
            publish(root, tmp_path / "new", timm_file=tmp_path / file)
    with pytest.raises(InputError, match="exists already"):
        publish(root, tmp_path / "new", timm_file=folder / "timm.safetensors")
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    (bad / "pytorch_model.bin").write_bytes(b"x")
    for use in (load, published_config, lambda path: publish(path, tmp_path / "new")):
        with pytest.raises(InputError, match=r"pytorch_model\.bin: a pickle"):
            use(bad)
    shutil.rmtree(bad)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("visionkit.tasks.hub.save", full)
    with pytest.raises(RunError, match="No space left"):
        publish(root, tmp_path / "new", timm_file=tmp_path / "w.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_altered_weights_and_facts_are_refused(published, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(published[0], copy)
    weights, config = copy / "model.safetensors", json.loads((copy / "config.json").read_text())
    whole = weights.read_bytes()
    for content in (whole[:-4] + b"\0\0\0\x3e", whole[: len(whole) // 2]):  # another number; cut
        weights.write_bytes(content)
        for use in (load, lambda path: create_backbone("timm/test_resnet", init=str(path))):
            with pytest.raises(DataError, match=r"model\.safetensors: Expected the SHA-256"):
                use(copy)
    weights.write_bytes(whole)
    config["visionkit"]["facts"] = "none"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="cannot be built again"):
        load(copy)
    del config["visionkit"]["sha256"], config["visionkit"]["facts"]  # of a folder of before
    (copy / "config.json").write_text(json.dumps(config))
    assert load(copy).kind == "classification"


def test_of_two_commands_with_one_folder_the_slower_one_is_refused(runs, tmp_path, monkeypatch):
    save = Classifier.save_pretrained

    def slowly(self, folder, *args, **kwargs):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "config.json").write_text("of the other")
        return save(self, folder, *args, **kwargs)

    monkeypatch.setattr(Classifier, "save_pretrained", slowly)
    with pytest.raises(InputError, match="new or an empty folder"):
        publish(runs[0], tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "config.json"]


def test_a_checkpoint_alone_and_a_published_folder_are_published_without_scores(runs, published, tmp_path):
    root, _ = runs
    shutil.copy(root / "pretrained-f1-s0" / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    for source in (tmp_path / "alone.ckpt", published[0]):
        target = tmp_path / f"of-{source.stem}"
        done = publish(source, target)
        assert done.files == ("README.md", "config.json", "model.safetensors")
        assert "no scores" in done.notes[0]
        assert (target / "model.safetensors").read_bytes() == (published[0] / FILES[3]).read_bytes()


def test_the_verb_says_what_it_wrote(runs, tmp_path, capsys):
    args = ["publish", str(runs[0]), str(tmp_path / "new"), "--timm", str(tmp_path / "w.safetensors")]
    assert cli.main(args) == 0
    said = capsys.readouterr().out
    assert "README.md, config.json, learning-curves.png, model.safetensors" in said
    assert "timm.create_model('test_efficientnet', num_classes=3, checkpoint_path='w.safetensors')" in said
    assert cli.main(args) == 2
    assert "new or an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_timm_loads_the_backbone_strictly_and_sees_the_same(kind, tmp_path):
    task = small_task(kind)
    made = timm_weights(task, tmp_path / "w.safetensors")
    call = made.call.replace("'w.safetensors'", repr(str(tmp_path / "w.safetensors")))
    assert f"num_classes={3 if kind == 'Classifier' else 0}" in call
    model = eval(call, {"timm": timm}).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        if kind == "Classifier":
            torch.testing.assert_close(model(task.normalize(images)), task(images), rtol=0, atol=0)
        elif kind == "Embedder":  # the backbone's vector; the projection is ours
            assert torch.equal(model(task.normalize(images)), task.backbone(task.normalize(images)))
        else:
            assert "conv_head" in made.notes[1]
            maps = model.forward_intermediates(task.normalize(images), intermediates_only=True)
            ours = task.backbone(task.normalize(images))
            by_size = {tuple(each.shape): each for each in maps}
            assert all(torch.equal(each, by_size[tuple(each.shape)]) for each in ours)
    again = small_task("Segmenter", init=str(tmp_path / "w.safetensors"))
    assert "backbone from w.safetensors; the rest is new" in again.init_note


def test_timm_gives_numbers_in_the_units_of_the_targets(tmp_path):
    units = {"target": "regression", "target_mean": [1900.0, -3.0, 0.5], "target_std": [50.0, 2.0, 0.1]}
    task = small_task("Classifier", **units)
    made = timm_weights(task, tmp_path / "w.safetensors")
    model = eval(made.call.replace("'w", f"'{tmp_path}/w"), {"timm": timm}).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(task.normalize(images)), task(images), rtol=1e-5, atol=1e-5)
    assert "Its numbers are in the units of the targets." in made.notes


def test_what_timm_cannot_have_is_refused_by_name(tmp_path):
    file = tmp_path / "w.safetensors"
    group = small_task("Segmenter", transfer=tasks.segmentation.task.TransferConfig(norm="group"))
    own = tasks.Classifier(_Own(), init="scratch", num_classes=2)
    for task, why in (
        (group, "norm='group'"), (own, "a module of your own"),
        (small_task("Classifier", "torchvision/squeezenet1_1"), "timm has no 'torchvision"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            timm_weights(task, file)
    assert list(tmp_path.iterdir()) == []


class _Own(torch.nn.Module):
    dim = 3

    def forward(self, images):
        return images.mean((2, 3))


def test_push_and_fetch_through_the_hub_of_the_library(tmp_path, monkeypatch):
    task = small_task("Detector")
    with hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # older releases read the second
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        address = task.push_to_hub("user/ants", token="hf_none")
        assert server.address in str(address)
        assert set(server.files) >= {"README.md", "config.json", "model.safetensors"}
        posts = [path for method, path in server.seen if method == "POST"]
        assert posts[0] == "/api/repos/create"
        assert any("/commit/" in path for path in posts)
        options = {"cache_dir": tmp_path / "cache", "token": False}
        again = tasks.Detector.from_pretrained("user/ants", **options)
        assert all(torch.equal(v, task.state_dict()[k]) for k, v in again.state_dict().items())
        for one, other in zip(predictions_of(again), predictions_of(task), strict=True):
            assert torch.equal(one["boxes"], other["boxes"])
        server.files["pytorch_model.bin"] = server.files.pop("model.safetensors")
        with pytest.raises(InputError, match="pickles are not loaded"):
            tasks.Detector.from_pretrained("user/other", cache_dir=tmp_path / "second", token=False)
        assert not any("pytorch_model.bin" in path for _, path in server.seen)


def test_init_backbone_is_the_same_network(published):
    task = small_task("Captioner", CUT, init=str(published[0]))
    assert "backbone from model.safetensors of ants, a Classifier" in task.init_note


def test_what_was_trained_is_described_without_its_network(runs, published, tmp_path, capsys, monkeypatch):
    checkpoint = runs[0] / "pretrained-f1-s0" / "checkpoints" / "best.ckpt"
    run, alone, folder = (describe_trained(path) for path in (runs[0], checkpoint, published[0]))
    assert run["chosen"].startswith("pretrained-f1-s0: the best of 2")
    for described in (run, alone, folder):
        assert (described["task"], described["backbone"]) == ("Classifier", runs[1].hparams["backbone"])
        assert described["classes"] == list(NAMES)
    monkeypatch.setattr(sys, "argv", ["visionkit", "describe", str(runs[0]), "--json"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("visionkit", run_name="__main__")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(run))
    assert cli.main(["describe", "runs/none"]) == 2
    assert "Nor is there a run or a file" in capsys.readouterr().err
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    for path, reason in (
        (tmp_path / "weights.ckpt", "names none"),
        (tmp_path / "no.ckpt", "neither on this disk"),
    ):
        with pytest.raises(InputError, match=reason):
            describe_trained(path)
