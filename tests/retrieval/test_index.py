"""`visionkit index` and `search`: resumable, appendable, checked; what cannot be searched is named."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit.retrieval.build as build
from visionkit import cli
from visionkit.errors import DataError, InputError, RunError
from visionkit.predict import load
from visionkit.retrieval import Index, build_index, load_encoder, load_index
from visionkit.retrieval.faiss_search import FaissSearch
from visionkit.retrieval.neighbors import take_rows
from visionkit.retrieval.search import search_images
from visionkit.tasks import Classifier, Embedder

NET = "timm/test_resnet"
COMMON = ["--backbone", NET, "--init", "scratch", "--image_size", "32"]


def write_images(folder: Path, count: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / f"{seed}-{number:03}.png")
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    for name, seed in (("cat", 1), ("dog", 2)):
        write_images(tmp_path / "photos" / "train" / name, 9, seed)
        write_images(tmp_path / "photos" / "val" / name, 3, seed + 10)
    return tmp_path / "photos"


def make(data, out, **settings):
    settings = {"backbone": NET, "init": "scratch", "image_size": 32, "device": "cpu"} | settings
    return build_index(data, out, **settings)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "run.lock"}


def test_index_and_search_a_data_set(photos, tmp_path, capsys) -> None:
    out, found = tmp_path / "index", tmp_path / "found"
    assert cli.main(["index", str(photos), *COMMON, "--out", str(out), "--split", "train"]) == 0
    assert "18 vectors of length" in capsys.readouterr().out
    index = load_index(out)
    assert len(index) == 18
    assert {row.split for row in index.rows} == {"train"}
    assert [row.label for row in index.rows] == ["cat"] * 9 + ["dog"] * 9
    query = photos / "train" / "dog" / "2-004.png"
    assert cli.main(["search", str(out), str(query), "--k", "3", "--out", str(found)]) == 0
    text = capsys.readouterr().out
    assert "1  0.000000  dog" in text
    line = json.loads((found / "neighbors.jsonl").read_text())
    assert line["query"] == str(query)
    assert [each["rank"] for each in line["neighbors"]] == [1, 2, 3]
    assert line["neighbors"][0]["path"] == str(query)
    distances = [each["distance"] for each in line["neighbors"]]
    assert distances == sorted(distances)
    page = (found / "index.html").read_text()
    assert page.count("<figure>") == 4
    assert page.count("data:image/jpeg") == 4
    # against all pairs, in float64, without anything of the search
    vectors = np.concatenate(index.parts).astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(1 - units @ units[13], kind="stable")[:3]
    assert [each["name"] for each in line["neighbors"]] == [index.rows[row].name for row in nearest]
    # a second search does not overwrite the first unasked
    again = ["search", str(out), str(query), "--k", "1", "--out", str(found)]
    assert cli.main(again) == 2
    assert cli.main([*again, "--overwrite"]) == 0


def test_the_vectors_are_the_encoders(photos, tmp_path) -> None:
    make(photos, tmp_path / "index", split=["val"])
    index = load_index(tmp_path / "index")
    encoder = load_encoder(NET, init="scratch", image_size=32, device="cpu")
    alone = encoder([row.path for row in index.rows], batch_size=1)
    for row, one in zip(np.concatenate(index.parts), alone, strict=True):
        np.testing.assert_allclose(row, one.prediction.vector.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_a_trained_task_gives_its_vectors(own, photos, tmp_path) -> None:
    settings = {"init": "scratch", "image_size": 32}
    task = (
        Embedder(NET, dim=7, loss="supcon", **settings) if own else Classifier(NET, num_classes=2, **settings)
    )
    task.save_pretrained(tmp_path / "run")
    report = make(photos, tmp_path / "index", backbone=tmp_path / "run", image_size=0)
    assert report.dim == (7 if own else task.backbone.dim)
    index = load_index(tmp_path / "index")
    vectors = np.concatenate(index.parts)
    if own:
        result = load(tmp_path / "run", device="cpu", precision="32-true")(index.rows[0].path)[0]
        np.testing.assert_allclose(vectors[0], result.prediction.vector.numpy(), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # moved, and altered
    shutil.move(tmp_path / "run", tmp_path / "moved")
    with pytest.raises(InputError, match="but it is gone"):
        list(search_images(index, index.rows[0].path, k=1))
    query = index.rows[3].path
    assert (
        cli.main(["search", str(tmp_path / "index"), query, "--k", "1", "--backbone", f"{tmp_path}/moved"])
        == 0
    )
    other = (
        Embedder(NET, dim=7, loss="supcon", **settings) if own else Classifier(NET, num_classes=2, **settings)
    )
    other.save_pretrained(tmp_path / "run")
    with pytest.raises(InputError, match="compared"):
        list(search_images(index, query, k=1))


def test_add_images_to_an_index(photos, tmp_path, capsys) -> None:
    out = tmp_path / "index"
    make(photos, out, split=["train"])
    first = content(out)
    shutil.copy(photos / "train" / "cat" / "1-000.png", photos / "val" / "dog" / "copy.png")
    assert cli.main(["index", str(photos), *COMMON, "--out", str(out)]) == 0
    text = capsys.readouterr()
    assert "7 new, 18 were there already" in text.out
    assert "1 images have the content of an earlier one" in text.err
    assert "copy.png is" in text.err
    second = content(out)
    assert first["vectors-00000.npy"] == second["vectors-00000.npy"]
    assert len(load_index(out)) == 25
    assert make(photos, out).added == 0
    assert content(out) == second
    # what was indexed must be what it was
    write_images(photos / "val" / "cat", 1, seed=11)
    Image.new("RGB", (40, 40)).save(photos / "val" / "cat" / "11-000.png")
    with pytest.raises(InputError, match=r"1 have changed since, the first is .*11-000\.png"):
        make(photos, out)
    for settings, what in (
        ({"image_size": 48}, "preprocessing"),
        ({"backbone": "timm/test_vit", "image_size": 0}, "weights"),
        ({"metric": "l2"}, "metric of the index"),
    ):
        with pytest.raises(InputError, match=what):
            make(photos, out, **settings)


def test_unreadable_images_are_named_and_left_out(tmp_path, capsys) -> None:
    photos = write_images(tmp_path / "photos", 6)
    (photos / "0-002.png").write_bytes((photos / "0-002.png").read_bytes()[:60])
    out = tmp_path / "index"
    assert cli.main(["index", f"{photos}/*.png", *COMMON, "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert "1 images could not be read and are left out" in told
    assert "0-002.png" in told
    assert len(load_index(out)) == 5
    assert cli.main(["search", str(out), str(photos), "--k", "2"]) == 1
    told = capsys.readouterr()
    assert "1 of 6 images could not be read" in told.err
    assert told.out.count("0.000000") == 5


KILLED = """
import sys, time
import visionkit.retrieval.build as build
from visionkit.retrieval import build_index
build.SHARD_ROWS = 8
def progress(done, total):
    print(done, flush=True)
    time.sleep(0.05)
build_index(sys.argv[1], sys.argv[2], backbone="timm/test_resnet", init="scratch", image_size=32,
            device="cpu", progress=progress)
"""


@pytest.mark.slow
def test_a_killed_index_is_continued_to_the_same_bytes(tmp_path, monkeypatch, root) -> None:
    photos = write_images(tmp_path / "photos", 40)
    (photos / "0-011.png").write_bytes(b"no image")
    out = tmp_path / "index"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(photos), str(out)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    for line in process.stdout:
        if int(line) >= 20:  # in the third shard
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (out / "index.json").exists()
    with pytest.raises(DataError, match="unfinished: run the same"):
        load_index(out)
    monkeypatch.setattr(build, "SHARD_ROWS", 8)
    stamps = {file.name: file.stat().st_mtime_ns for file in out.glob("vectors-*.npy")}
    assert 2 <= len(stamps) < 5
    with pytest.raises(InputError, match="of other images or settings"):
        make(photos, out, metric="l2")
    report = make(photos, out)
    assert report.count == 39
    assert [name for name, _ in report.unread] == [str(photos / "0-011.png")]
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    make(photos, tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")


def test_what_is_no_index_is_named(photos, tmp_path) -> None:
    out = tmp_path / "index"
    make(photos, out)
    with pytest.raises(InputError, match="that `visionkit index` wrote"):
        load_index(tmp_path / "none")
    with pytest.raises(DataError, match=r"without index\.json"):
        load_index(photos)
    with pytest.raises(InputError, match="it holds train"):
        make(photos, photos)
    manifest = json.loads((out / "index.json").read_text())
    for change, what in (
        ({"format": 99}, "version of the index to be 1, but got 99"),
        ({"dim": 5}, "of length 5"),
        ({"count": 5}, "Expected 5 vectors"),
        ({"metric": "l3"}, "'l3'"),
        ({"shards": [{}]}, "damaged"),
    ):
        (out / "index.json").write_text(json.dumps(manifest | change))
        with pytest.raises(DataError, match=what):
            load_index(out)
    (out / "index.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load_index(out)
    (out / "index.json").write_text(json.dumps(manifest))
    file = out / "vectors-00000.npy"
    whole = file.read_bytes()
    for spoilt in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-4], b""):
        file.write_bytes(spoilt)
        with pytest.raises(DataError, match=r"vectors-00000\.npy.*as it was written"):
            load_index(out)
    file.write_bytes(whole)
    (out / "vectors-00000.jsonl").unlink()
    with pytest.raises(DataError, match="as it was written"):
        load_index(out)


def test_what_cannot_be_searched_is_named(photos, tmp_path) -> None:
    make(photos, tmp_path / "index", split=["val"])
    index = load_index(tmp_path / "index")
    vectors = np.ones((2, index.dim), np.float32)
    with pytest.raises(InputError, match="k to be 1 to 6"):
        index.search(vectors, k=7)
    with pytest.raises(InputError, match="to be 1 to 6, the images of the index, but got 7"):
        list(search_images(index, str(photos), k=7))
    with pytest.raises(InputError, match=rf"the queries to be \(N, {index.dim}\)"):
        index.search(vectors[:, 1:], k=1)
    vectors[1, 3] = np.nan
    with pytest.raises(InputError, match=r"the queries of finite numbers, but 1 of 2 .* row 1"):
        index.search(torch.from_numpy(vectors), k=1)
    with pytest.raises(InputError, match="nothing at"):
        list(search_images(index, "gone.png", k=1))
    other = load_encoder(NET, init="scratch", image_size=48, device="cpu")
    with pytest.raises(InputError, match="preprocessing"):
        list(search_images(index, str(photos), k=1, encoder=other))


def test_an_unfinished_index_is_continued_with_images_as_they_were(photos, tmp_path, monkeypatch) -> None:
    out, first = tmp_path / "index", photos / "train" / "cat" / "1-000.png"

    def stop(*given, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build, "_count_copies", lambda *given: None)
        write_text = build.write_text
        patched.setattr(
            build,
            "write_text",
            lambda path, text: stop() if path.name == build.MANIFEST else write_text(path, text),
        )
        with pytest.raises(KeyboardInterrupt):
            make(photos, out)
    Image.new("RGB", (40, 40), "red").save(first)
    with pytest.raises(InputError, match=r"1 have changed since, the first is .*1-000\.png"):
        make(photos, out)
    # An image that nobody could read, and that is repaired, is read.
    alone = tmp_path / "alone" / "a.png"
    alone.parent.mkdir()
    alone.write_bytes(first.read_bytes()[:60])
    with pytest.raises(DataError, match="of 1 none can"):
        make(alone.parent, tmp_path / "one")
    Image.new("RGB", (40, 40), "red").save(alone)
    assert make(alone.parent, tmp_path / "one").count == 1


def test_an_index_that_another_command_wrote_meanwhile_is_left_alone(photos, tmp_path, monkeypatch) -> None:
    out = tmp_path / "index"
    make(photos, out, split=["train"])
    load = build.load_encoder

    def slow(*given, **settings):
        monkeypatch.setattr(build, "load_encoder", load)
        make(photos, out)
        return load(*given, **settings)

    monkeypatch.setattr(build, "load_encoder", slow)
    with pytest.raises(InputError, match="another command has written it"):
        make(photos, out)
    assert len(load_index(out)) == 24


def test_what_was_assumed_and_taken_once_is_said(photos, tmp_path) -> None:
    files = str(photos / "train" / "cat" / "*.png")
    report = make([files, str(photos / "train" / "cat")], tmp_path / "index")
    assert (report.count, report.notes) == (9, ["9 files were named again, and are taken once"])
    task = Classifier(NET, init="scratch", num_classes=2)
    task.save_pretrained(tmp_path / "task")
    (said, *rest) = make(photos, tmp_path / "other", backbone=tmp_path / "task", image_size=32).notes[-2:]
    assert "does not say how images are resized" in said
    assert "cropped to a square of 32 pixels" in rest[0]


def test_a_vector_that_is_not_finite_names_its_image(photos, tmp_path, monkeypatch) -> None:
    encoder = load_encoder(NET, init="scratch", image_size=32, device="cpu")
    for parameter in encoder.model.net.parameters():
        parameter.data.fill_(float("nan"))
    monkeypatch.setattr(build, "load_encoder", lambda *given, **settings: encoder)
    with pytest.raises(DataError, match=r"1-000\.png.*finite numbers"):
        make(photos, tmp_path / "index")


def test_faiss_gives_near_rows_and_says_how_often(tmp_path) -> None:
    rng = np.random.default_rng(0)
    parts = [
        rng.standard_normal((2000, 8)).astype(np.float32),
        rng.standard_normal((500, 8)).astype(np.float32),
    ]
    for metric in ("cosine", "l2"):
        index = Index(tmp_path, parts, [None] * 2500, metric=metric, encoder={})
        with pytest.raises(InputError, match="at least 1,000,000 vectors for faiss, but it has 2,500"):
            FaissSearch(index)
        found = FaissSearch(index, min_vectors=1000)
        recall = found.recall(k=5)
        queries, others = found._sample(100), [0, 0]
        for query, exact in zip(queries, index.search(take_rows(parts, queries), k=6).rows, strict=True):
            own = set(found(take_rows(parts, np.array([query])), k=6).rows[0].tolist()) - {query}
            others[0] += len(own & (set(exact.tolist()) - {query}))
            others[1] += len(set(exact.tolist()) - {query})
        assert recall.fraction == others[0] / others[1]
        assert 0 < recall.fraction < 1, "0.02 of the cells do not hold all neighbours"
        assert recall.queries == 100
        near = found(parts[1][:4], k=5)
        assert near.rows[:, 0].tolist() == [2000, 2001, 2002, 2003]
        exact = index.search(parts[1][:4], k=2500)
        for row, distance, order, all_distances in zip(*near[::-1], exact.rows, exact.distances, strict=True):
            position = {int(one): place for place, one in enumerate(order)}
            np.testing.assert_array_equal(distance, [all_distances[position[int(one)]] for one in row])


def test_the_cells_of_faiss_are_made_once_and_again_where_something_changed(tmp_path, monkeypatch) -> None:
    part = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    made, make_cells = [], FaissSearch._made
    monkeypatch.setattr(FaissSearch, "_made", lambda *given: made.append(1) or make_cells(*given))
    (tmp_path / "index.json").write_text("one")

    def search(count: int) -> tuple[str, list[list[int]]]:
        index = Index(tmp_path, [part], [None] * 500, metric="cosine", encoder={})
        near = FaissSearch(index, min_vectors=1)
        assert len(made) == count
        return near.about, near(part[:3], k=2).rows.tolist()

    about, rows = search(1)
    assert f"kept in {tmp_path / 'faiss.ivf'}" in about
    again, same = search(1)
    assert f"read from {tmp_path / 'faiss.ivf'}" in again
    assert same == rows
    (tmp_path / "index.json").write_text("an image more")
    search(2)
    cells = tmp_path / "faiss.ivf"
    cells.write_bytes(cells.read_bytes()[:-1])
    search(3)
    (tmp_path / "faiss.json").write_text("[")
    assert search(4) == (about, rows)
    monkeypatch.setattr("visionkit.retrieval.faiss_search.write_file", _no_disk)
    cells.unlink()
    assert "could not be kept: full" in search(5)[0]


def _no_disk(*given: object, **settings: object) -> None:
    raise RunError("full")
