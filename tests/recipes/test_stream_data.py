"""A recipe trained from the address of a pack: stopped and continued it is the same run, then evaluated."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys

import pytest
from lightning.pytorch.callbacks import Callback

from tests.data.shard_server import ShardServer, make_pack
from visionkit import cli
from visionkit.data.formats import packs as opener
from visionkit.errors import InputError
from visionkit.run import load_checkpoint
from visionkit.run.command_line import parse
from visionkit.run.training import fit as fitting

FLAGS = (
    "--backbone timm/test_resnet --init scratch --seeds 0 --image_size 32 --batch_size 5 --epochs 2 --jobs 1 "
    "--accelerator cpu --precision 32-true --checkpoint_every 2 --stream.window 2 --stream.max_gb 0.001"
)


@pytest.fixture(scope="module")
def classify(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("classify")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = make_pack(tmp_path_factory.mktemp("recipe"), count=26, records=4)
    with ShardServer(folder).running() as server:
        yield server


class Record(Callback):
    """Notes every training batch by its number; stops before one of them."""

    def __init__(self, seen: dict[int, str], stop: int | None) -> None:
        self.seen, self.stop = seen, stop

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        number = int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        if number == self.stop:
            raise ConnectionError("the machine went away")
        content = batch["images"].numpy().tobytes() + batch["labels"].numpy().tobytes()
        self.seen[number] = hashlib.sha256(content + "".join(batch["ids"]).encode()).hexdigest()


def weights(folder) -> list[bytes]:
    (file,) = folder.glob("*/checkpoints/last.ckpt")
    return [value.numpy().tobytes() for value in load_checkpoint(file)["state_dict"].values()]


def test_a_run_from_an_address_is_stopped_continued_and_evaluated(
    classify, server, tmp_path, monkeypatch, capsys
):
    fit, seen = fitting.fit, {}
    stops = {"whole": None, "parts": 7}

    def start(name):
        seen.setdefault(name, {})

        def recorded(*args, callbacks=(), **kwargs):
            return fit(*args, callbacks=[*callbacks, Record(seen[name], stops[name])], **kwargs)

        monkeypatch.setattr(fitting, "fit", recorded)
        flags = [*FLAGS.split(), "--data", server.address, "--stream.cache", str(tmp_path / f"{name}-cache")]
        config = parse(classify.Config, [*flags, "--out", str(tmp_path / name), "--progress", "false"])
        return classify.main(config)

    start("whole")
    with pytest.raises(ConnectionError):
        start("parts")
    stops["parts"] = None
    start("parts")
    assert sorted(seen["whole"]) == list(range(1, 11))
    assert seen["parts"] == seen["whole"]
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    (run,) = (file.parent for file in (tmp_path / "parts").glob("*/result.json"))
    facts = json.loads((run / "result.json").read_text())
    assert facts["config"]["data"] == server.address
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--split", "val"]) == 0
    assert "8 images" in capsys.readouterr().out
    bounds, store = [], opener.open_stream
    monkeypatch.setattr(
        opener, "open_stream", lambda *a, **k: bounds.append(k["max_bytes"]) or store(*a, **k)
    )
    assert cli.main(["evaluate", str(run), "--split", "val", "--stream.cache", str(tmp_path / "other")]) == 0
    assert set(bounds) == {1_000_000}, "that of the run"
    assert any((tmp_path / "other").rglob("*.tar"))
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--split", "val", "--stream.max_gb", "1"]) == 2
    assert "up to 1 GB" in (text := capsys.readouterr().err)
    assert "--stream.cache FOLDER" in text


def test_an_address_without_a_folder_for_its_shards_is_refused_before_anything_begins(classify, tmp_path):
    config = parse(classify.Config, ["--data", "s3://bucket/a.pack", "--out", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"20 GB of the shards of s3://bucket/a\.pack.*--stream\.cache"):
        classify.main(config)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"stream\.max_gb"):
        parse(classify.Config, ["--stream.max_gb", "0"])
