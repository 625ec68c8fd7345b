"""Caption files: every format read, every fault named with its record, nothing read from outside."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from visionkit.commands.check import main as check
from visionkit.data import DrawCaptions, Subset, caption_batch, caption_data, captions_of, check_captions
from visionkit.data.formats.captions.records import caption_format, is_captions, read_caption_records
from visionkit.errors import DataError, InputError
from visionkit.text.vocabulary import Vocabulary


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (12, 10), (20 * number, 0, 0)).save(folder / name)


def karpathy(root, *, broken=False):
    write_images(root / "val2014", *(f"{i}.jpg" for i in range(5)))
    splits = ["train", "restval", "train", "val", "test"]
    images = [
        {"filepath": "val2014", "filename": f"{i}.jpg", "split": splits[i],
         "sentences": [{"raw": f"A dog, number {i}. "}, {"raw": "one more"}]}
        for i in range(5)
    ]  # fmt: skip
    if broken:
        images[0]["sentences"] = [{"raw": ""}, {"raw": 7}, {"tokens": ["no", "raw"]}, "fine"]
        images[1]["split"] = "other"
        images[2]["sentences"] = []
        images.append({**images[3]})
        images.append({**images[3], "filename": "gone.jpg"})
        images.append({**images[3], "filepath": "..", "filename": "../outside.jpg"})
        images.append({**images[3], "filename": None})
        write_images(root.parent, "outside.jpg")
        (root / "val2014" / "4.jpg").write_bytes(b"no image")
    (root / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    return root


def coco(root, *, broken=False):
    for split, ids in (("train", (1, 2, 3)), ("val", (7, 8))):
        write_images(root / f"{split}2017", *(f"{i:012d}.jpg" for i in ids))
        images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids]
        notes = [{"id": 10 * i + k, "image_id": i, "caption": f"a {i} {k}"} for i in ids for k in range(2)]
        if broken and split == "train":
            notes[0]["caption"] = None
            notes[2]["id"] = notes[3]["id"]
            notes.append({"id": 99, "image_id": 55, "caption": "of nobody"})
            images.append({"id": 3, "file_name": "again.jpg"})
            images.append({"id": 4, "file_name": "silent.jpg"})
        (root / "annotations").mkdir(exist_ok=True)
        path = root / "annotations" / f"captions_{split}2017.json"
        path.write_text(json.dumps({"images": images, "annotations": notes}))
    return root


def flickr(root, *, kind="kaggle", broken=False):
    write_images(root / "Images", *(f"{i}.jpg" for i in range(6)))
    if kind == "kaggle":
        lines = ["image,caption", *(f'{i}.jpg,"A man, with ""{i}"" dogs ."' for i in range(6))]
        lines += ["0.jpg,plain , with commas"]
        lines += ["7.jpg", "8.jpg,nowhere", "1.jpg, "] if broken else []
        (root / "captions.txt").write_text("\n".join(lines) + "\n")
        return root
    lines = [f"{i}.jpg#{k}\tsentence {k} of {i} ." for i in range(6) for k in range(2)]
    lines += ["0.jpg#1\tagain"] if broken else []
    (root / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (root / "Flickr_8k.trainImages.txt").write_text("0.jpg\n1.jpg\n2.jpg\n")
    (root / "Flickr_8k.devImages.txt").write_text("3.jpg\n" + ("0.jpg\nunknown.jpg\n" if broken else ""))
    (root / "Flickr_8k.testImages.txt").write_text("4.jpg\n5.jpg\n")
    return root


def test_karpathys_json(tmp_path):
    splits = caption_data(karpathy(tmp_path))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [3, 1, 1]
    sample = splits.train[0]
    assert sample["captions"] == ["A dog, number 0.", "one more"]
    assert sample["id"] == "val2014/0.jpg"
    assert sample["image"].shape == (3, 10, 12)
    assert captions_of(splits.train)[1] == ("A dog, number 1.", "one more")
    assert captions_of(Subset(splits.train, [2])) == [("A dog, number 2.", "one more")]
    apart = tmp_path / "elsewhere"
    apart.mkdir()
    (tmp_path / "dataset_coco.json").rename(apart / "dataset_coco.json")
    assert len(caption_data(apart, images=tmp_path).train) == 3
    assert caption_format(tmp_path) is None


def test_cocos_captions(tmp_path):
    splits = caption_data(coco(tmp_path))
    assert [len(splits.train), len(splits.val), splits.test] == [3, 2, None]
    assert splits.val[0]["captions"] == ["a 7 0", "a 7 1"]
    assert splits.val[0]["id"] == "7"
    one = caption_data(tmp_path / "annotations" / "captions_train2017.json", held_out=0.34)
    assert (len(one.train), len(one.val)) == (2, 1)
    assert "held out" in one.facts["held_out"]


def test_flickrs_lists(tmp_path):
    kaggle = caption_data(flickr(tmp_path / "a"), held_out=0.5)
    assert (len(kaggle.train), len(kaggle.val)) == (3, 3)
    assert kaggle.name == "a", "captions.txt is the format's name"
    every = {
        s["id"]: s["captions"] for part in (kaggle.train, kaggle.val) for s in (part[i] for i in range(3))
    }
    assert every["0.jpg"] == ['A man, with "0" dogs .', "plain , with commas"]
    token = caption_data(flickr(tmp_path / "b", kind="token"))
    assert [len(part) for part in (token.train, token.val, token.test)] == [3, 1, 2]
    assert token.val[0]["captions"] == ["sentence 0 of 3 .", "sentence 1 of 3 ."]


def named(path):
    return {(fault.record, fault.field) for fault in check_captions(path, max_dropped=0)}


def test_every_fault_of_karpathys_json_is_named_at_once(tmp_path):
    root = karpathy(tmp_path / "data", broken=True)
    assert named(root) == {
        ("val2014/0.jpg", "caption"), ("1.jpg", "split"), ("val2014/2.jpg", "caption"),
        ("val2014/3.jpg", "id"), ("val2014/gone.jpg", "image"), ("../../outside.jpg", "image"),
        (8, "filename"), ("val2014/4.jpg", "image"),
    }  # fmt: skip
    faults = check_captions(root, max_dropped=0)
    assert sum(fault.record == "val2014/0.jpg" for fault in faults) == 2
    assert all(str(root) in str(fault.path) for fault in faults)
    assert any("inside" in str(fault) and "outside.jpg" in str(fault) for fault in faults)
    with pytest.raises(DataError, match="3 more records are at fault; `visionkit check` lists them all"):
        caption_data(root)


def test_every_fault_of_cocos_captions_is_named_at_once(tmp_path):
    assert named(coco(tmp_path, broken=True)) == {
        ("1", "caption"), (21, "id"), (99, "image_id"), ("again.jpg", "id"), ("4", "caption")
    }  # fmt: skip


def test_every_fault_of_flickrs_lists_is_named_at_once(tmp_path):
    assert named(flickr(tmp_path / "a", broken=True)) == {
        ("line 9", None), ("8.jpg", "image"), ("line 11", "caption")
    }  # fmt: skip
    assert named(flickr(tmp_path / "b", kind="token", broken=True)) == {
        ("line 13", "id"), ("line 1", "split"), ("line 3", "split")
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"images": 3}', '{"images": [3]}', "[" * 100_000, "\ud800"],
)  # fmt: skip
def test_files_that_are_no_captions_are_named(tmp_path, text):
    (tmp_path / "dataset.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    (fault,) = check_captions(tmp_path / "dataset.json")
    assert fault.path.endswith("dataset.json")
    for place in (tmp_path, tmp_path / "nowhere"):  # in a folder, nothing says that it was meant for captions
        assert not is_captions(place)
        with pytest.raises(DataError, match=r"Flickr8k\.token\.txt"):
            read_caption_records(place)


def test_the_command_checks_captions(tmp_path, capsys):
    assert check([str(coco(tmp_path / "good"))]) == 0
    assert "captions, 3 train, 2 val, 0 test: 0 errors" in capsys.readouterr().out
    with pytest.raises(InputError, match="9 errors"):
        check([str(karpathy(tmp_path / "bad", broken=True))])
    assert "record val2014/gone.jpg, field 'image'" in capsys.readouterr().out


def test_captions_are_drawn_and_taught_several_at_a_time(tmp_path):
    reader = caption_data(karpathy(tmp_path)).train
    words = Vocabulary.build(["a dog number one more 0 1 2"], min_count=1)
    draws = [
        DrawCaptions()(reader[0], torch.Generator().manual_seed(seed))["captions"][0] for seed in range(20)
    ]
    assert set(draws) == {"A dog, number 0.", "one more"}
    batch = caption_batch([reader[0], reader[1]], encode=words.encode, captions_per_image=3)
    assert batch["tokens"].shape == (2, 3, 6)
    assert words.decode(batch["tokens"][1, 0].tolist()) == ["a", "dog", "number", "1"]
    assert torch.equal(batch["tokens"][0, 2], batch["tokens"][0, 0])  # two captions: the first comes again
    assert caption_batch([reader[0]], encode=words.encode)["tokens"].shape == (1, 6)
