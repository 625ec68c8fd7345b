"""`visionkit predict`: what it writes, how it ends, and that wrong input is named before any work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from tests.predict.made_results import NAMES, photos
from visionkit import cli
from visionkit.commands import progress
from visionkit.commands.progress import ImageProgress
from visionkit.predict.predictor import Predictor
from visionkit.run.storage.checkpoint import AtomicCheckpointIO
from visionkit.tasks import Classifier

FACTS = {"preprocess": {"name": "CenterCrop", "size": 32, "fraction": 1.0}, "eval_batch_size": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    task = Classifier("timm/test_resnet", init="scratch", num_classes=3, image_size=32, class_names=NAMES)
    task.model_facts = FACTS
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content["pytorch-lightning_version"] = "2.6.0"
    task.on_save_checkpoint(content)
    folder = tmp_path_factory.mktemp("run")
    AtomicCheckpointIO().save_checkpoint(content, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture
def folder(tmp_path):
    photos(tmp_path / "photos")
    return tmp_path / "photos"


def predict(*words):
    return cli.main(["predict", *map(str, words), "--device", "cpu"])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_folder_a_glob_and_a_list_give_the_same(run, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, sources in enumerate((["photos"], ["photos/**/*.png"], sorted(folder.rglob("*.png")))):
        out = tmp_path / f"out{number}"
        assert predict(run, *sources, "--out", out) == 0
        assert [row["name"] for row in lines(out / "predictions.jsonl")] == ["a", "b", "deep/a"]
        assert names(out) == ["drawings", "index.html", "predictions.jsonl"]
    said = capsys.readouterr().out
    assert "3 images in" in said
    assert "index.html" in said
    # A folder that holds its own --out: what was written is no source.
    assert predict(run, tmp_path, "--out", tmp_path / "out0", "--overwrite", "--formats", "csv") == 0
    assert "images in" in capsys.readouterr().err
    assert names(tmp_path / "out0") == ["predictions.csv", "predictions.jsonl"]
    rows = lines(tmp_path / "out0" / "predictions.jsonl")
    assert len(rows) == 3 + 2 * 3  # the drawings of the other two


def test_files_that_cannot_be_read_are_named_counted_and_left_out(run, folder, tmp_path, capsys):
    (folder / "text.jpg").write_text("no image")
    (folder / "huge.png").write_bytes(claimed_png(30_000, 30_000))
    out = tmp_path / "out"
    assert predict(run, folder, "--out", out, "--formats", "all") == 1
    told = capsys.readouterr()
    assert "2 of 5 files could not be read; errors.jsonl names all" in told.err
    assert "huge.png" in told.err
    assert "text.jpg" in told.err
    assert "3 images in" in told.out
    assert [Path(row["id"]).name for row in lines(out / "errors.jsonl")] == ["huge.png", "text.jpg"]
    assert len(lines(out / "predictions.jsonl")) == 3
    assert predict(run, folder / "text.jpg", "--out", tmp_path / "none") == 1
    assert names(tmp_path / "none") == ["errors.jsonl", "predictions.jsonl"]


def claimed_png(width, height):
    """A PNG whose header claims a size that nobody has memory for."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    return start + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nowhere", "photos", "--out", "out"), "there is nothing"),
        (("unfinished", "photos", "--out", "out"), "unfinished"),
        (("RUN", "empty", "--out", "out"), "Expected images in the folder"),
        (("RUN", "nothing.jpg", "--out", "out"), "nothing at nothing.jpg"),
        (("RUN", "photos/*.tif", "--out", "out"), "Expected images in the glob"),
        (("RUN", "photos"), "--out"),
        (("RUN", "photos", "--out", "out", "--formats", "coco"), "Expected a format for classification"),
        (("RUN", "photos", "--out", "out", "--formats", "masks", "csv"), "'masks'"),
        (("RUN", "photos", "--out", "out", "--formats", "jsom"), "Did you mean 'jsonl'"),
        (("RUN", "photos", "--out", "out", "--min_score", "50"), "0 to 1"),
        (("RUN", "photos", "--out", "out", "--batch_size=-1"), "0 or more"),
        (("RUN", "photos", "--out", "photos/a.png"), "is a file"),
        (("RUN", "photos", "--out", "photos"), "outside of --out"),
        (("RUN", "photos", "--out", "out", "--which", "last"), "which='best'"),
        (("RUN", "photos", "--out", "out", "--precision", "bf61-mixed"), "Did you mean 'bf16-mixed'"),
        (("other.ckpt", "photos", "--out", "out"), "'Sorter'"),
        (("facts.ckpt", "photos", "--out", "out"), "facts.ckpt: cannot be built again"),
        (("resize.ckpt", "photos", "--out", "out"), "resize.ckpt, field 'preprocess': Unknown transform"),
    ],
)  # fmt: skip
def test_wrong_input_is_status_2_and_nothing_is_written(
    run, folder, tmp_path, capsys, monkeypatch, words, why
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    other = {"state_dict": {}, "visionkit": {"task": "Sorter"}}
    AtomicCheckpointIO().save_checkpoint(other, tmp_path / "other.ckpt")
    for name, facts in (("facts", "none"), ("resize", {"preprocess": {"name": "Shrink"}})):
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content["visionkit"]["facts"] = facts
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / f"{name}.ckpt")
    before = sorted(tmp_path.rglob("*"))
    assert predict(*(run if word == "RUN" else word for word in words)) == 2
    assert why in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_earlier_predictions_are_replaced_when_it_is_said(run, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(run, folder, "--out", out) == 0
    assert predict(run, folder, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    shutil.rmtree(folder / "deep")
    assert predict(run, folder, "--out", out, "--overwrite") == 0
    assert names(out / "drawings") == ["a.jpg", "b.jpg"]


def test_one_command_at_a_time_writes_into_a_folder(run, folder, tmp_path, capsys):
    out = tmp_path / "out"
    ready = f"from visionkit.run.storage.lock import hold\nwith hold([{str(out)!r}]): print(); input()"
    with subprocess.Popen([sys.executable, "-c", ready], stdin=-1, stdout=-1) as other:
        other.stdout.readline()
        assert predict(run, folder, "--out", out) == 2
        assert f"is being written by process {other.pid}" in capsys.readouterr().err
        assert names(out) == ["run.lock"]
        other.communicate(b"\n")
    assert predict(run, folder, "--out", out) == 0
    assert "run.lock" not in names(out)


def test_the_first_interrupt_stops_between_images(run, folder, tmp_path, capsys, monkeypatch):
    stream = Predictor.stream

    def interrupted(self, *args, **settings):
        for number, result in enumerate(stream(self, *args, **settings)):
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield result

    monkeypatch.setattr(Predictor, "stream", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert predict(run, folder, "--out", tmp_path / "out") == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "after 2 of 3 images" in capsys.readouterr().err
    assert len(lines(tmp_path / "out" / "predictions.jsonl")) == 2
    assert (tmp_path / "out" / "index.html").read_text().endswith("</html>\n")


def test_a_disk_that_fills_is_status_1(run, folder, tmp_path, capsys, monkeypatch):
    from visionkit.predict.writers.drawings import Drawings

    def full(self, entry):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Drawings, "add", full)
    assert predict(run, folder, "--out", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == ""


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with ImageProgress(10, terminal=False) as lines_of_text:
        for _ in range(10):
            lines_of_text.advance()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "2 of 10 images, 0.05 images/s, 2.7 min left"
    assert len(told) == 4
    with ImageProgress(3, terminal=True) as bar:
        for _ in range(3):
            bar.advance()
    assert "3/3" in capsys.readouterr().err
