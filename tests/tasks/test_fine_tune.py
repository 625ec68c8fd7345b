"""Tasks as shared folders, and tasks that begin from trained ones: what is kept, new and said."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.tasks.small_tasks import CUT, KINDS, NAMES, predictions_of, save_checkpoint, small_task
from visionkit import tasks
from visionkit.backbones import create_encoder
from visionkit.errors import DataError, InputError, RunError
from visionkit.tasks.fine_tune import take_heads

SAME = {"Captioner": "the same 3 words", "KeypointRegressor": "the same 3 points"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A published folder and a run of each task."""
    root = tmp_path_factory.mktemp("saved")
    made = {}
    for kind in KINDS:
        made[kind] = small_task(kind)
        made[kind].save_pretrained(root / kind)
        save_checkpoint(made[kind], root / "runs" / f"{kind}-run")
    return root, made


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return (
        one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
        if isinstance(one, dict)
        else one == other
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_task_predicts_the_same_to_the_last_bit(saved, tmp_path, kind):
    root, made = saved
    again = getattr(tasks, kind).from_pretrained(root / kind)
    assert not again.training
    state = made[kind].state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert _equal(predictions_of(again), predictions_of(made[kind]))
    facts = again.model_facts
    assert facts["task"] == kind
    assert {key: facts[key] for key in made[kind].model_facts} == made[kind].model_facts
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (root / kind / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


def test_what_is_no_published_task_is_refused_by_name(saved, tmp_path):
    root, _ = saved
    folder = tmp_path / "copy"
    shutil.copytree(root / "Classifier", folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    for use in (tasks.Classifier.from_pretrained, lambda path: small_task("Classifier", init=str(path))):
        with pytest.raises(InputError, match=r"pytorch_model\.bin: a pickle"):
            use(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"Expected a checkpoint of a Detector.*Load it with Classifier"):
        tasks.Detector.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for content, why in (
        ("{", "damaged"), ("[1]", "by name"), ('{"architecture": "resnet50"}', "another library"),
        (json.dumps(config | {"visionkit": config["visionkit"] | {"format": 9}}), "format 9"),
        (json.dumps(config | {"settings": config["settings"] | {"num_classes": 4}}), "class_names"),
    ):  # fmt: skip
        (folder / "config.json").write_text(content)
        with pytest.raises(InputError, match=why):
            tasks.Classifier.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-64])
    with pytest.raises(InputError, match="the file was altered"):
        tasks.Classifier.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"Expected model\.safetensors"):
        tasks.Classifier.from_pretrained(folder)
    with pytest.raises(InputError, match=r"no config\.json"):
        tasks.Classifier.from_pretrained(root / "runs")
    bad = small_task("Classifier")
    bad.head.bias.data[0] = torch.nan
    bad.save_pretrained(tmp_path / "nan")
    with pytest.raises(DataError, match=r"head\.bias.*not finite"):
        tasks.Classifier.from_pretrained(tmp_path / "nan")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="it is a file"):
        bad.save_pretrained(tmp_path / "file")


def test_nothing_is_left_of_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    task = small_task("Classifier")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("visionkit.tasks.hub.save", full)
    with pytest.raises(RunError, match=r"write into .*new, but: No space left on device .*Free some space"):
        task.save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_keeps_its_card_and_its_other_files(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "photo.txt").write_text("mine")
    small_task("Classifier").save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "photo.txt", "config.json", "model.safetensors",
    }  # fmt: skip
    assert (tmp_path / "README.md").read_text() == "mine"


ENCODED = ("Classifier", "Embedder")  # their networks keep the layers behind the last map


def test_every_task_gives_its_backbone_to_every_other(saved):
    """All 36 pairs, from published folders and from runs; the diagonal gives all the rest too."""
    root, made = saved
    counted = 0
    for source in KINDS:
        for target in KINDS:
            place = root / source if counted % 2 else root / "runs" / f"{source}-run"
            task = small_task(target, init=str(place))
            donor = made[source].backbone.state_dict()
            own = task.backbone.state_dict()
            common = [name for name in own if name in donor]
            assert len(common) > 50
            assert all(torch.equal(own[name], donor[name]) for name in common), (source, target)
            fresh = {name.rpartition(".")[0] for name in own if name not in donor}
            cut = target in ENCODED and source not in ENCODED
            assert bool(fresh) == cut, (source, target, fresh)
            assert ("conv_head, bn2 new" in task.init_note) == cut
            record = task.backbone.weights
            assert record.training_data == "ImageNet-1k then insects"
            assert (record.source, record.licence) == ("file", "apache-2.0")
            assert f"a {source}" in task.init_note
            if source == target:
                assert f"all the rest, with {SAME.get(source, 'the same 3 classes')}" in task.init_note
                assert _equal(predictions_of(task.eval()), predictions_of(made[source]))
            else:
                assert f"the rest is new: this is a {target}" in task.init_note
            assert str(root) not in repr(dict(task.hparams)) + task.init_note
            counted += 1
    assert counted == 36


@pytest.mark.parametrize("kind", KINDS)
def test_other_classes_have_a_new_head(saved, kind):
    root, made = saved
    names = ("ant", "bee", "dog")
    task = small_task(kind, init=str(root / kind), names=names)
    word = {"Captioner": "words", "KeypointRegressor": "points"}.get(kind, "classes")
    assert f"the rest is new: it has 3 {word}, here are 3, 2 of them the same" in task.init_note
    again = small_task(kind, init=str(root / kind), names=names)
    donor, state = made[kind].state_dict(), task.state_dict()
    last = {
        "Classifier": "head.weight",
        "Embedder": "head.weight",
        "KeypointRegressor": "head.last.weight",
        "Segmenter": "decoder.classifier.weight",
        "Detector": "model.heads.box_head.classify.weight",
        "Captioner": "decoder.words.weight",
    }[kind]
    assert not torch.equal(state[last], donor[last])
    assert torch.equal(state[last], again.state_dict()[last])


@pytest.mark.parametrize("kind", ["Classifier", "Detector", "Segmenter"])
def test_rows_of_the_head_follow_the_names(saved, kind):
    root, made = saved
    order = ("cat", "ant", "bee")
    task = small_task(kind, init=str(root / kind), names=order).eval()
    assert "with the same 3 classes, in the order of the data by their names" in task.init_note
    for ours, theirs in zip(predictions_of(task), predictions_of(made[kind]), strict=True):
        if kind == "Classifier":
            taken = theirs["probabilities"][[NAMES.index(name) for name in order]]
            torch.testing.assert_close(ours["probabilities"], taken)
        elif kind == "Segmenter":
            mine = torch.tensor([NAMES.index(name) for name in order])[ours["mask"].long()]
            assert torch.equal(mine, theirs["mask"].long())
        else:
            assert len(ours["boxes"]) == len(theirs["boxes"]) > 0
            mine = [order[index] for index in ours["labels"].tolist()]
            pairs = zip(mine, ours["boxes"].tolist(), strict=True)
            others = zip([NAMES[i] for i in theirs["labels"].tolist()], theirs["boxes"].tolist(), strict=True)
            assert sorted(name for name, _ in pairs) == sorted(name for name, _ in others)


def test_a_captioner_of_the_same_words_in_another_order_begins_anew(saved):
    task = small_task("Captioner", init=str(saved[0] / "Captioner"), names=("cat", "ant", "bee"))
    assert "the rest is new: it has 3 words, here are 3, 3 of them the same" in task.init_note


def test_settings_of_another_network_or_target_have_a_new_head(saved, tmp_path):
    root, _ = saved
    wide = small_task("Detector", init=str(root / "Detector"), pyramid_channels=16)
    assert "the rest is new: it is another network, first in model.heads.box_head" in wide.init_note
    multi = small_task("Classifier", init=str(root / "Classifier"), target="multi")
    assert "the rest is new: its target is 'single'" in multi.init_note
    unnamed = tasks.Classifier(CUT, init=str(root / "Classifier"), num_classes=3)
    assert "the names of its classes are not known" in unnamed.init_note
    kept = tasks.Classifier(CUT, init=str(root / "Classifier"), num_classes=3, head="pretrained")
    assert torch.equal(kept.head.weight, saved[1]["Classifier"].head.weight)
    with pytest.raises(InputError, match=r"head='pretrained' takes the head of.*num_classes"):
        tasks.Classifier(CUT, init=str(root / "Classifier"), num_classes=4, head="pretrained")
    with pytest.raises(InputError, match=f"weights of a Classifier over '{CUT}': give that as the backbone"):
        small_task("Segmenter", "timm/test_resnet", init=str(root / "Classifier"))
    group = small_task("Segmenter", transfer=tasks.segmentation.task.TransferConfig(norm="group"))
    group.save_pretrained(tmp_path / "group")
    with pytest.raises(InputError, match="trained with norm 'group'"):
        small_task("Detector", init=str(tmp_path / "group"))


def test_a_plain_weights_file_and_a_reload_say_what_they_are(saved, tmp_path):
    root, made = saved
    torch.save(create_encoder(CUT, init="scratch").state_dict(), tmp_path / "w.pt")
    assert small_task("Classifier", init=str(tmp_path / "w.pt")).init_note == (
        "backbone from w.pt; the rest is new"
    )
    again = tasks.Classifier.load_from_checkpoint(
        root / "runs" / "Classifier-run" / "checkpoints" / "best.ckpt"
    )
    assert again.init_note == small_task("Classifier").init_note == ""
    assert take_heads(made["Classifier"], "pretrained") == ""


def test_the_best_of_a_folder_of_runs_is_begun_from(saved, tmp_path):
    _, made = saved
    for name, score in (("low", 0.2), ("high", 0.9)):
        save_checkpoint(made["Classifier"], tmp_path / name)
        result = {"monitor": ["val/top1", "max"], "best": {"value": score}}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    task = small_task("Classifier", init=str(tmp_path))
    assert task.init_note.startswith("backbone from best.ckpt of high, a Classifier")
    assert str(tmp_path) not in task.init_note
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        small_task("Classifier", init=str(tmp_path / "empty"))
