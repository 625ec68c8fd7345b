"""What each verb says to what it cannot use, as commands: one test for a verb and a fault.

A refusal ends with status 2, names what is wrong, and leaves the disk as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnxscript", reason="needs onnxscript (the extra export)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (the extra export)")

from tests.page.handmade import fake_package
from tests.predict.exported_tasks import MAKE
from tests.predict.made_results import NAMES, photos
from tests.predict.test_predict_verb import FACTS, claimed_png
from visionkit import cli
from visionkit.run.storage.checkpoint import AtomicCheckpointIO
from visionkit.tasks import Classifier

# Words of a command; RUN and IMAGE stand for what is wrong, and PLACE for where something would be written.
OF_A_RUN = {
    "predict": "predict RUN photos --out PLACE",
    "evaluate": "evaluate RUN --data data --out PLACE",
    "export onnx": "export RUN --out PLACE.onnx",
    "export torch": "export RUN --format torch --out PLACE.pt2",
    "export safetensors": "export RUN --format safetensors --out PLACE.safetensors",
    "publish": "publish RUN PLACE",
    "page": "page RUN PLACE --runtime package",
    "describe": "describe RUN",
    "index": "index data --backbone RUN --out PLACE",
    "search": "search index photos --k 1 --backbone RUN --out PLACE",
    "inspect layers": "inspect layers RUN",
    "inspect filters": "inspect filters RUN --out PLACE.png",
    "inspect gradcam": "inspect gradcam RUN --image photos/a.png --out PLACE.png",
    "inspect dream": "inspect dream RUN --image photos/a.png --layer 4 --out PLACE.png",
    "--init": "run classify --data data --image_size 32 --backbone timm/test_resnet --init RUN --out PLACE",
}
RUNS = {
    "nowhere": "nowhere",
    "unfinished": "the run has none yet: it is unfinished",
    "empty": "it is empty and no run has a checkpoint",
    "other.ckpt": "is of 'Sorter'",
    "pickled": "pytorch_model.bin: a pickle",
    "text.ckpt": "not a checkpoint: the file begins with b'no c'",
    "cut.ckpt": "the file is cut or damaged",
}
ALLOWED = {
    ("describe", "other.ckpt"),  # the task of somebody else is described all the same
    ("--init", "other.ckpt"),  # weights are weights, whatever they were trained for
}
WEIGHTS = {
    "text.ckpt": "it begins with b'no check'",
    "cut.ckpt": "damaged or incomplete",
}  # as --init says it
OF_AN_IMAGE = {
    "predict": ("predict run IMAGE --out PLACE", 1),
    "search": ("search index IMAGE --k 1", 1),
    "index": ("index IMAGE --backbone run --out PLACE", 2),
    "inspect activations": ("inspect activations run --image IMAGE --layer 4 --out PLACE.png", 2),
    "inspect gradcam": ("inspect gradcam run --image IMAGE --out PLACE.png", 2),
    "inspect style": (
        "inspect style timm/test_resnet --init scratch --image photos/a.png --style IMAGE --out PLACE.png",
        2,
    ),
    "export": ("export run --images IMAGE --out PLACE.onnx", 2),
    "page": ("page run PLACE --runtime package --examples IMAGE", 2),
}
WRITES = (
    *("predict", "evaluate", "export safetensors", "publish", "index", "search", "inspect filters"),
    *("inspect gradcam", "--init"),
)
IMAGES = {
    "text.jpg": "starts with b'no image'",
    "huge.png": "Expected at most 64 megapixels, but it has 900",
    "gone.png": "gone.png",
    "empty": "empty",
}
OF_DATA = {
    "evaluate": "evaluate run --data DATA --split test --out PLACE",
    "check": "check DATA",
}
OTHERS = {
    "watch nowhere --no_browser": "nowhere does not exist",
    "watch text.ckpt --no_browser": "text.ckpt is not a folder",
    "search nowhere photos": "nowhere is not there",
    "search text.ckpt photos": "text.ckpt is a file",
    "search empty photos": "a folder without index.json",
    "probe nowhere --out PLACE": "there is nothing by this name",
    "probe empty --out PLACE": "an empty folder",
    "evaluate run --data empty --out PLACE": "an empty folder",
    "evaluate run --data nowhere --out PLACE": "there is nothing by this name",
    "export run --format coreml": "Unknown export format 'coreml'",
    "export detector --format torch --out PLACE.pt2": "Use onnx",
    "export run --format safetensors --images photos --out PLACE.safetensors": "Leave --images out",
    "predict run photos --formats masks --out PLACE": "'masks'",
    "predict detector photos --formats folders --out PLACE": "'folders'",
    "publish detector PLACE --timm PLACE.txt": "ends in .safetensors",
    "evaluate detector --data data --out PLACE": "for detection, but",
    "inspect gradcam detector --image photos/a.png --method occlusion --layer 4 --out PLACE.png": "layer",
}


def write_data(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in NAMES:
            for number in range(2):
                file = folder / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)


def save(task, folder: Path) -> None:
    """Write a checkpoint as a run does."""
    task.model_facts = FACTS
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content["pytorch-lightning_version"] = "2.6.0"
    task.on_save_checkpoint(content)
    AtomicCheckpointIO().save_checkpoint(content, folder / "checkpoints" / "best.ckpt")


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    """A folder, to work in, with two runs, an index, images, and everything that is wrong."""
    top = tmp_path_factory.mktemp("disk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        torch.manual_seed(0)
        save(Classifier("timm/test_resnet", init="scratch", num_classes=3, class_names=NAMES), top / "run")
        save(MAKE["detection"](), top / "detector")
        photos(top / "photos")
        write_data(top / "data")
        fake_package(top / "package")
        assert cli.main(["publish", "run", "pickled"]) == 0
        assert cli.main(["index", "photos/*.png", "--backbone", "run", "--out", "index"]) == 0
        (top / "pickled" / "pytorch_model.bin").write_bytes(b"x")
        (top / "unfinished" / "checkpoints").mkdir(parents=True)
        (top / "empty").mkdir()
        AtomicCheckpointIO().save_checkpoint(
            {"state_dict": {}, "visionkit": {"task": "Sorter"}}, top / "other.ckpt"
        )
        whole = (top / "run" / "checkpoints" / "best.ckpt").read_bytes()
        (top / "cut.ckpt").write_bytes(whole[:-100])
        (top / "text.ckpt").write_text("no checkpoint")
        (top / "text.jpg").write_text("no image")
        (top / "huge.png").write_bytes(claimed_png(30_000, 30_000))
        for name in ("text.jpg", "huge.png"):
            shutil.copytree(top / "data", top / f"data-{name}")
            shutil.copy(top / name, top / f"data-{name}" / "test" / NAMES[0])
        yield top


def everything(top: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in top.rglob("*") if path.is_file())


def call(words: str, top: Path, capsys) -> tuple[int, str, list[str]]:
    """Run a command; return its status, its errors, and the names of what is new or other on the disk."""
    folders, before = sorted(top.rglob("*")), everything(top)
    capsys.readouterr()
    status = cli.main(words.split())
    told = capsys.readouterr().err
    changed = [Path(path).name for path, time in everything(top) if (path, time) not in before]
    changed += [path.name for path in sorted(top.rglob("*")) if path.is_dir() and path not in folders]
    for path in top.glob("PLACE*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "Traceback" not in told
    assert "not foreseen" not in told
    return status, told, changed


@pytest.mark.parametrize(
    ("verb", "fault"), [(verb, fault) for verb in OF_A_RUN for fault in RUNS if (verb, fault) not in ALLOWED]
)
def test_a_run_that_cannot_be_used(disk, capsys, verb, fault):
    status, told, changed = call(OF_A_RUN[verb].replace("RUN", fault), disk, capsys)
    assert (status, changed) == (2, [])
    assert (WEIGHTS if verb == "--init" else RUNS).get(fault, RUNS[fault]) in told
    if fault == "nowhere" and verb in ("index", "describe", "inspect layers", "inspect gradcam"):
        assert "Nor is there a run" in told


@pytest.mark.parametrize("fault", IMAGES)
@pytest.mark.parametrize("verb", OF_AN_IMAGE)
def test_an_image_that_cannot_be_used(disk, capsys, verb, fault):
    words, status = OF_AN_IMAGE[verb]
    unread = fault in ("text.jpg", "huge.png") and status == 1  # named, counted, left out
    left = ["errors.jsonl", "predictions.jsonl", "PLACE"] if unread and verb == "predict" else []
    ended, told, changed = call(words.replace("IMAGE", fault), disk, capsys)
    assert (ended, changed) == (1 if unread else 2, left)
    assert IMAGES[fault] in told


@pytest.mark.parametrize("fault", ["text.jpg", "huge.png"])
@pytest.mark.parametrize("verb", OF_DATA)
def test_data_with_an_image_that_cannot_be_used(disk, capsys, verb, fault):
    words = OF_DATA[verb].replace("DATA", f"data-{fault}")
    before = everything(disk)
    assert cli.main(words.split()) == 2
    told = capsys.readouterr()
    assert f"{fault}, field 'header'" in told.out + told.err
    assert IMAGES[fault] in told.out + told.err
    assert everything(disk) == before


@pytest.mark.parametrize("words", OTHERS)
def test_what_a_verb_cannot_do_is_named(disk, capsys, words):
    status, told, changed = call(words, disk, capsys)
    assert (status, changed) == (2, [])
    assert OTHERS[words] in told


@pytest.mark.dist
def test_a_full_disk_is_named_by_every_verb_that_writes(disk, zygote, tmp_path):
    rooms = [0, 4096, 12_288]
    words = {verb: OF_A_RUN[verb].replace("RUN", "run").replace("PLACE", "{place}") for verb in WRITES}
    told = zygote.run("tests.predict.full_disk:verbs_on_a_full_disk", str(disk), str(tmp_path), words, rooms)
    assert len(told) == len(words) * len(rooms)
    for one in told:
        if one["status"] == 0:
            assert one["room"] > 4000, one  # a small image went in
            continue
        assert one["status"] == 1, one
        assert "Expected to be able to write into" in one["told"], one
        assert "Free some space" in one["told"], one
        assert one["broken"] == [], one
    assert {one["verb"] for one in told if one["status"] == 1} == set(words)


def test_the_same_commands_work_with_what_is_right(disk, capsys):
    """Else a fault in the commands above would pass for a refusal."""
    for verb in (
        "predict",
        "publish",
        "describe",
        "index",
        "search",
        "export safetensors",
        "inspect filters",
    ):
        status, told, changed = call(OF_A_RUN[verb].replace("RUN", "run"), disk, capsys)
        assert status == 0, (verb, told)
        assert changed or verb == "describe", verb
