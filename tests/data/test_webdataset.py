"""WebDataset shards: its own readers read ours, we read what its writer wrote, and hostile ones are named."""

from __future__ import annotations

import importlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds
import wids
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data import coco_folder
from tests.data.test_pack import assert_same, captions, masks, photos
from visionkit import cli
from visionkit.data import (
    PackSettings,
    caption_data,
    coco,
    image_folder,
    mask_folder,
    open_dataset,
    open_pack,
    pack,
    webdataset,
)
from visionkit.data.pack.layout import list_name, shard_name
from visionkit.data.pack.record import decode_sample, encode_sample, npy_bytes, read_json
from visionkit.data.pack.tar import END, map_shard, members, scan_shard, tar_member
from visionkit.data.truth import encode_masks, make_truth
from visionkit.errors import DataError

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(image: torch.Tensor, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, kind)
    return stream.getvalue()


def read_by_webdataset(*files: Path) -> list[dict]:
    return list(wds.WebDataset([str(file) for file in files], shardshuffle=False))


def read_by_wids(file: Path, cache: Path) -> list[dict]:
    data = wids.ShardListDataset(str(file), cache_dir=str(cache), transformations=[], keep=True)
    return [
        {k.removeprefix("."): v.read() if hasattr(v, "read") else v for k, v in data[index].items()}
        for index in range(len(data))
    ]


@pytest.mark.parametrize("form", ["jpeg", "raw"])
def test_webdataset_and_wids_read_what_was_packed(tmp_path, form):
    sources = {
        "folder": image_folder(photos(tmp_path / "folder")),
        "masks": mask_folder(masks(tmp_path / "masks")),
        "coco": coco(coco_folder.write(tmp_path / "coco", coco_folder.document()), masks=True),
        "captions": caption_data(captions(tmp_path / "captions"), held_out=0.25),
    }
    checked = 0
    for name, splits in sources.items():
        place = pack(splits, tmp_path / f"{name}.pack", settings=PackSettings(short=0, form=form, records=4))
        packed = open_pack(place)
        shards = [
            place / each["url"] for each in json.loads((place / list_name("train")).read_text())["shardlist"]
        ]
        assert len(shards) == -(-len(splits.train) // 4)
        theirs = read_by_webdataset(*shards)
        listed = read_by_wids(place / list_name("train"), tmp_path / f"{name} cache")
        assert len(theirs) == len(listed) == len(packed.train)
        for index, (one, other) in enumerate(zip(theirs, listed, strict=True)):
            sample = splits.train[index]
            assert {k: v for k, v in one.items() if not k.startswith("__")} == {
                k: v for k, v in other.items() if not k.startswith("__")
            }
            facts = json.loads(one["json"])
            assert (facts["id"], tuple(facts["size"])) == (sample["id"], sample["size"])
            if form == "raw":
                pixels = np.load(io.BytesIO(one["npy"]), allow_pickle=False)
                assert np.array_equal(pixels, sample["image"].permute(1, 2, 0).numpy())
            if "label" in sample:
                assert int(one["cls"]) == int(sample["label"])
            if "mask" in sample:
                assert np.array_equal(Image.open(io.BytesIO(one["mask.png"])), sample["mask"].numpy())
            if "boxes" in sample:
                assert facts["boxes"] == sample["boxes"].tolist()
                runs = [{**run, "counts": run["counts"].encode()} for run in facts["masks"]]
                assert runs == encode_masks(sample["masks"])
            assert facts.get("captions") == sample.get("captions")
            checked += 1
    assert checked == 14 + 3 + 2 + 3


names = st.text(st.sampled_from("aB.é漢 -_/"), min_size=1, max_size=12)
endings = st.lists(
    st.sampled_from(["jpg", "cls", "json", "Seg.PNG", "txt", "tar.gz"]), min_size=1, unique=True
)


@FEW
@given(st.lists(st.tuples(names, endings), min_size=1, max_size=8), st.booleans())
@example([("B.__", ["jpg"])], False)
def test_samples_are_what_webdataset_says_they_are(tmp_path, described, long):
    file = tmp_path / "x.tar"
    keys = [f"{'d' * 120 if long else 'd'}/{name}{number}" for number, (name, _) in enumerate(described)]
    # Hidden files, such as a Mac's, are samples to webdataset where they lie in a folder; here they are not.
    assume(not any(part.startswith(".") for key in keys for part in key.split("/")))
    stems = [key[: key.index(".", key.rindex("/"))] for key in (f"{key}." for key in keys)]
    assume(len(set(stems)) == len(stems))  # a dot may cut two names to one
    form = {"format": tarfile.PAX_FORMAT}
    with file.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", **form) as archive:
        for key, (_, each) in zip(keys, described):
            for ending in each:
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(key)
                archive.addfile(info, io.BytesIO(bytes(len(key))))
    spans, _ = scan_shard(file)
    content = map_shard(file)
    ours = [
        (
            span.key,
            {k: v.tobytes() for k, v in members(content[span.offset : span.offset + span.length]).items()},
        )
        for span in spans
    ]
    theirs = read_by_webdataset(file)
    # What webdataset adds begins and ends so; the ending of a file may begin so, too.
    added = re.compile(r"__\w+__")
    assert ours == [
        (each["__key__"], {k: v for k, v in each.items() if not added.fullmatch(k)}) for each in theirs
    ]
    assert [set(span.extensions) for span in spans] == [set(parts) for _, parts in ours]


floats = st.floats(width=32, allow_infinity=False, allow_nan=False)
texts = st.text(st.characters(codec="utf-8"), max_size=9)


@st.composite
def samples(draw):
    height, width, count = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    sample = {
        "image": torch.from_numpy(rng.integers(0, 256, (height, width, 3), np.uint8)).permute(2, 0, 1),
        "id": draw(texts),
        "size": (draw(st.integers(1, 9999)), 7),
    }
    if draw(st.booleans()):
        boxes = torch.tensor(draw(st.lists(floats, min_size=4 * count, max_size=4 * count))).reshape(-1, 4)
        found = torch.from_numpy(rng.integers(0, 2, (count, height, width), np.uint8))
        area = np.array(draw(st.lists(st.floats(allow_infinity=False), min_size=count, max_size=count)))
        sample |= {
            "boxes": boxes,
            "labels": torch.arange(count) * 2**40,
            "masks": found,
            "iscrowd": torch.zeros(count, dtype=torch.int64),
            "area": torch.from_numpy(area),
            "keypoints": torch.rand(count, 3, 3),
            "truth": make_truth(
                boxes.numpy(), range(count), area=area, masks=encode_masks(found), image_id=3
            ),
        }
    if draw(st.booleans()):
        sample["captions"] = draw(st.lists(texts, max_size=3))
    if draw(st.booleans()):
        sample["mask"] = torch.from_numpy(
            rng.integers(0, draw(st.sampled_from([2, 256, 2**16, 2**40])), (height, width))
        )
    sample["label"] = draw(
        st.sampled_from([torch.tensor(-3), torch.tensor(2**40), torch.tensor([0.5, float("nan")]),
                         torch.tensor([]), torch.tensor(0.25, dtype=torch.float64)])
    )  # fmt: skip
    sample["extra"] = torch.tensor(draw(st.lists(st.integers(0, 1), max_size=4)), dtype=torch.bool)
    return sample


def same(ours, theirs):
    nan = {
        k: torch.nan_to_num(v, 7.5)
        for k, v in theirs.items()
        if isinstance(v, torch.Tensor) and v.is_floating_point()
    }
    assert_same({**ours, **{k: torch.nan_to_num(ours[k], 7.5) for k in nan}}, {**theirs, **nan})


@FEW
@given(st.lists(samples(), min_size=1, max_size=4), st.booleans())
def test_any_sample_comes_back_to_the_last_bit_and_is_read_by_webdataset(tmp_path, given_samples, raw):
    file = tmp_path / "s.tar"
    record = b""
    for number, sample in enumerate(given_samples):
        pixels = sample["image"].permute(1, 2, 0).contiguous().numpy()
        image = ("npy", npy_bytes(pixels)) if raw else ("png", encoded(sample["image"]))
        parts = encode_sample(sample, image, compress=not raw)
        record += b"".join(tar_member(f"{number:09d}.{name}", data) for name, data in parts.items())
    file.write_bytes(record + END)
    theirs = read_by_webdataset(file)
    content = map_shard(file)
    for span, sample, other in zip(scan_shard(file)[0], given_samples, theirs, strict=True):
        parts = members(content[span.offset : span.offset + span.length])
        same(decode_sample(parts, read_json(parts), "x"), sample)
        assert {k: v.tobytes() for k, v in parts.items()} == {
            k: v for k, v in other.items() if not k.startswith("__")
        }
        assert json.loads(other["json"])["id"] == sample["id"]


def others(root: Path, *, extra: dict | None = None, splits=("train", "val")) -> Path:
    """Shards as their writer writes them: every kind of annotation, in one sample."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in splits:
        for shard in range(2):
            with wds.TarWriter(str(root / f"{split}-{shard}.tar")) as sink:
                for number in range(3):
                    pixels = rng.integers(0, 256, (8, 10, 3), np.uint8)
                    box = [1.0, 2.0, 5.5, 6.0]
                    runs = encode_masks(torch.ones(1, 8, 10, dtype=torch.uint8))[0]
                    facts = {"boxes": [box], "labels": [1], "size": "large", "caption": "not this one",
                             "masks": [{"size": [8, 10], "counts": runs["counts"].decode()}]}  # fmt: skip
                    sink.write(
                        {"__key__": f"d/{shard}{number}", "jpg": pixels, "cls": number % 2, "json": facts,
                         "txt": "a dog, näher", "mask.png": Image.fromarray(pixels[..., 0] // 128),
                         **(extra or {})}
                    )  # fmt: skip
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def test_what_webdataset_wrote_is_opened_for_every_task_checked_and_packed(tmp_path, capsys):
    root = others(tmp_path / "data")
    tasks = {
        "classification": "label",
        "detection": "boxes",
        "segmentation": "mask",
        "captioning": "captions",
    }
    for task, name in tasks.items():
        splits = open_dataset(root, task)
        theirs = read_by_webdataset(root / "train-0.tar", root / "train-1.tar")
        assert (len(splits.train), len(splits.val), splits.notices) == (6, 6, ())
        assert splits.classes == (() if task == "captioning" else ("cat", "dog"))
        for index, other in enumerate(theirs):
            sample = splits.train[index]
            assert sample["id"] == other["__key__"]
            image = np.array(Image.open(io.BytesIO(other["jpg"])))
            assert np.array_equal(sample["image"].permute(1, 2, 0), image)
            want = {
                "label": torch.tensor(int(other["cls"])),
                "boxes": torch.tensor(json.loads(other["json"])["boxes"]),
                "mask": torch.from_numpy(
                    np.array(Image.open(io.BytesIO(other["mask.png"]))).astype(np.int64)
                ),
                "captions": [other["txt"].decode()],
            }[name]
            assert torch.equal(sample[name], want) if isinstance(want, torch.Tensor) else sample[name] == want
        assert cli.main(["pack", str(root), "--task", task, "--out", str(tmp_path / task)]) == 0
        assert_same(open_dataset(tmp_path / task, task).train[5], splits.train[5])
    assert webdataset(root, "detection", masks=True).train[0]["masks"].sum() == 80
    assert cli.main(["check", str(root)]) == 0
    assert "WebDataset shards, 6 train, 6 val" in capsys.readouterr().out
    alone = webdataset(root / "train-0.tar", "classification")
    assert (len(alone.train), len(alone.val)) == (2, 1)
    assert "held out" in alone.facts["held_out"]


def test_shards_are_mapped_once_and_samples_of_one_name_are_told_apart(tmp_path, monkeypatch):
    root = others(tmp_path / "data", splits=("train",))
    (root / "train").mkdir()
    (root / "train" / "train-0.tar").write_bytes((root / "train-0.tar").read_bytes())
    mapped = []
    module = importlib.import_module("visionkit.data.formats.webdataset.reader")
    monkeypatch.setattr(module, "map_shard", lambda file: mapped.append(file) or map_shard(file))
    splits = webdataset(root, "classification")
    assert len(mapped) == len(set(mapped)) == 3
    ids = [*splits.train.ids, *splits.val.ids]
    assert len(ids) == len(set(ids)) == 9


def test_packs_and_shards_of_every_task_are_checked_without_naming_it(tmp_path, capsys):
    sources = {
        "masks": mask_folder(masks(tmp_path / "masks")),
        "coco": coco(coco_folder.write(tmp_path / "coco", coco_folder.document())),
        "captions": caption_data(captions(tmp_path / "captions"), held_out=0.25),
    }
    tasks = {"masks": "segmentation", "coco": "detection", "captions": "captioning"}
    for name, splits in sources.items():
        place = pack(splits, tmp_path / f"{name}.pack", settings=PackSettings(short=0))
        notices = open_dataset(place, tasks[name]).notices
        assert [each.what for each in notices] == [each.what for each in splits.notices]
        assert cli.main(["check", str(place)]) == 0, capsys.readouterr()
        for file in place.iterdir():  # what is left are shards as anybody writes them
            if file.suffix != ".tar":
                file.unlink()
        if name == "masks":
            (place / "classes.txt").write_text("\n".join(splits.classes))
        assert cli.main(["check", str(place)]) == 0, capsys.readouterr()
    assert capsys.readouterr().out.count("0 errors") == 6


class Bomb:
    def __reduce__(self):
        return (open, ("/nonexistent/executed", "w"))


def test_pickles_are_counted_and_never_opened(tmp_path):
    root = others(tmp_path / "data", extra={"meta.pyd": Bomb(), "note.bin": b"x"})
    (first, second) = webdataset(root, "classification").notices
    assert (first.what, first.count) == ("pickles, never opened", 12)
    assert second.count == 12
    only = tmp_path / "only.tar"
    with wds.TarWriter(str(only)) as sink:
        sink.write({"__key__": "a", "pyd": Bomb(), "cls": 1})
        sink.write({"__key__": "b", "pyd": Bomb(), "cls": 1})
    with pytest.raises(DataError, match=r"no image, only cls, pyd"):
        webdataset(only, "classification")


def test_lists_and_indices_of_other_shards_are_named_and_a_missing_index_is_made_again(tmp_path):
    source = image_folder(photos(tmp_path / "folder"))
    one = pack(source, tmp_path / "one", settings=PackSettings(short=16, records=5))
    two = pack(source, tmp_path / "two", settings=PackSettings(short=24, records=5))
    index = (one / "index.npz").read_bytes()
    want = [open_pack(one).train[number] for number in range(14)]
    (one / "index.npz").unlink()
    again = open_pack(one)
    assert any("made again" in notice.what for notice in again.notices)
    assert again.train.labels == source.train.labels
    for number, sample in enumerate(want):
        assert_same(again.train[number], sample)
    assert (one / "index.npz").is_file()
    assert open_pack(one).notices == ()
    (one / "index.npz").write_bytes((two / "index.npz").read_bytes())
    with pytest.raises(DataError, match="of others") as caught:
        open_pack(one)
    assert caught.value.field == "shards"
    (one / "index.npz").write_bytes(index)
    first, second = one / shard_name("train", 0), one / shard_name("train", 1)
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match=r"should have|damaged"):
        open_pack(one).train[0]
    (one / "index.npz").unlink()
    with pytest.raises(DataError, match="or another one") as caught:
        open_pack(one)
    assert caught.value.field == "md5sum"
    first.write_bytes(data)
    listed = one / list_name("train")
    text = listed.read_text()
    for wrong, field in (("../two/train-00000.tar", "url"), ("/etc/passwd", "url"), ("missing.tar", "shard")):
        listed.write_text(text.replace("train-00000.tar", wrong))
        with pytest.raises(DataError) as caught:
            open_pack(one)
        assert caught.value.field == field
    listed.write_text(text.replace('"nsamples": 5', '"nsamples": 6'))
    with pytest.raises(DataError, match="names others"):
        open_pack(one)
    root = others(tmp_path / "others", splits=("train",))
    (root / "train.json").write_text(text)
    with pytest.raises(DataError, match="list of wids names"):
        webdataset(root, "classification")
