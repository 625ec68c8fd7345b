"""Packs: the same samples, order and draws as the files; whole or not at all; damage and change are named."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data import coco_folder
from visionkit import cli, data
from visionkit.data import (
    DataModule,
    PackSettings,
    Splits,
    Subset,
    caption_data,
    check_pack,
    classification_eval,
    classification_train,
    coco,
    image_folder,
    image_table,
    mask_folder,
    open_pack,
    pack,
    stack_batch,
    voc,
)
from visionkit.data.pack.layout import shard_name
from visionkit.data.pack.tar import END
from visionkit.data.pack.writer import _write_shard
from visionkit.data.truth import plain_truth
from visionkit.errors import DataError, InputError

SIDES = ((40, 52), (64, 48), (90, 120), (33, 31))


def smooth(height: int, width: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def photos(root: Path) -> Path:
    """A folder of JPEGs and PNGs, one turned by EXIF, in two classes and two splits."""
    for split, count in (("train", 7), ("val", 3)):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = SIDES[number % len(SIDES)]
                image = smooth(height, width, seed=number + 100 * (label == "dog"))
                exif = Image.Exif()
                if number == 1:
                    exif[0x0112] = 6
                suffix = "png" if number == 2 else "jpg"
                image.save(folder / f"{number}.{suffix}", exif=exif)
    return root


def table(root: Path) -> Path:
    lines = ["path,a,b,split"]
    for number in range(6):
        smooth(40, 50, number).save(root / f"{number}.jpg")
        lines.append(f"{number}.jpg,{number % 2},1,{'val' if number > 3 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root / "labels.csv"


def boxes(root: Path) -> Path:
    for place in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / place).mkdir(parents=True)
    for number in range(4):
        smooth(60, 80, number).save(root / "JPEGImages" / f"p{number}.jpg")
        (root / "Annotations" / f"p{number}.xml").write_text(
            "<annotation><size><width>80</width><height>60</height></size><object><name>cell</name><bndbox>"
            f"<xmin>{4 + number}</xmin><ymin>6</ymin><xmax>44</xmax><ymax>36</ymax></bndbox></object>"
            "</annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("p0\np1\np2\n")
    (root / "ImageSets/Main/val.txt").write_text("p3\n")
    return root


def masks(root: Path) -> Path:
    root.mkdir()
    (root / "classes.txt").write_text("ground\nroad\nsky\n")
    for split, count in (("train", 3), ("val", 2)):
        for place in ("images", "masks"):
            (root / split / place).mkdir(parents=True)
        for number in range(count):
            smooth(90, 100, number).save(root / split / "images" / f"{number}.jpg")
            classes = np.random.default_rng(number).integers(0, 3, (90, 100), dtype=np.uint8)
            classes[:5] = 255
            Image.fromarray(classes).save(root / split / "masks" / f"{number}.png")
    return root


def captions(root: Path) -> Path:
    root.mkdir()
    for number in range(4):
        smooth(40, 50, number).save(root / f"{number}.jpg")
    (root / "captions.txt").write_text(
        "".join(f"{n}.jpg,image {n}, näher\n{n}.jpg,no {n}\n" for n in range(4))
    )
    return root


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert ours[name].dtype == value.dtype, name
            assert torch.equal(ours[name], value), name
        elif name == "truth":
            assert plain_truth(ours[name]) == plain_truth(value)
        else:
            assert ours[name] == value, name


def batches(splits, size: int = 24) -> list[dict]:
    """Two epochs of training and all of validation."""
    data = DataModule(
        splits,
        batch_size=3,
        train_transform=classification_train(size),
        eval_transform=classification_eval(size),
        collate=stack_batch,
        seed=3,
    )
    loader = data.train_dataloader()
    return [*loader, *loader, *data.val_dataloader()]


@pytest.mark.parametrize("form", ["jpeg", "raw"])
def test_unshrunk_packs_give_the_same_samples_and_batches_for_every_kind_of_target(tmp_path, form):
    sources = {
        "folder": image_folder(photos(tmp_path / "folder")),
        "table": image_table(table(tmp_path), kind="multi"),
        "voc": voc(boxes(tmp_path / "voc")),
        "masks": mask_folder(masks(tmp_path / "masks")),
        "coco": coco(coco_folder.write(tmp_path / "coco", coco_folder.document()), masks=True),
        "captions": caption_data(captions(tmp_path / "captions"), held_out=0.25),
    }
    checked = 0
    for name, splits in sources.items():
        pack(splits, tmp_path / f"{name}.pack", settings=PackSettings(short=0, form=form, records=4))
        packed = open_pack(tmp_path / f"{name}.pack", source=splits)
        assert packed.classes == splits.classes
        for ours, theirs in ((packed.train, splits.train), (packed.val, splits.val)):
            assert len(ours) == len(theirs) > 0
            for index in range(len(theirs)):
                assert_same(ours[index], theirs[index])
                checked += 1
        assert check_pack(tmp_path / f"{name}.pack") == []
    assert checked == 20 + 6 + 4 + 5 + 3 + 4
    ours = open_pack(tmp_path / "folder.pack")
    assert ours.train.labels == sources["folder"].train.labels
    pairs = list(zip(batches(ours), batches(sources["folder"]), strict=True))
    assert len(pairs) == 2 * 4 + 2
    for one, other in pairs:
        assert_same(one, other)


def test_shrinking_moves_everything_together_and_changes_no_draw(tmp_path):
    splits = voc(boxes(tmp_path / "voc"))
    pack(splits, tmp_path / "boxes", settings=PackSettings(short=30))
    packed = open_pack(tmp_path / "boxes", fields=("boxes",))
    assert packed.train[1]["image"].shape == (3, 30, 40)
    assert packed.train[1]["size"] == (60, 80)
    assert torch.equal(packed.train[1]["boxes"], splits.train[1]["boxes"] / 2)
    assert plain_truth(packed.train[1]["truth"]) == plain_truth(splits.train[1]["truth"])
    splits = mask_folder(masks(tmp_path / "masks"))
    pack(splits, tmp_path / "maps", settings=PackSettings(short=45, form="raw"))
    packed = open_pack(tmp_path / "maps")
    assert packed.val[1]["mask"].shape == packed.val[1]["image"].shape[1:] == (45, 50)
    assert set(packed.val[1]["mask"].unique().tolist()) == {0, 1, 2, 255}

    # The draws: the same boxes of the image, up to the rounding of its smaller sides; the same order.
    splits = image_folder(photos(tmp_path / "folder"))
    pack(splits, tmp_path / "photos", settings=PackSettings(short=32, form="raw", records=5))
    packed = open_pack(tmp_path / "photos")
    pairs = list(zip(batches(packed), batches(splits), strict=True))
    assert len(pairs) == 10
    for ours, theirs in pairs:
        assert ours["ids"] == theirs["ids"]
        assert torch.equal(ours["labels"], theirs["labels"])
        assert (ours["images"].float() - theirs["images"].float()).abs().mean() < 12
    with pytest.raises(InputError, match="samples have boxes"):
        open_pack(tmp_path / "photos", fields=("boxes",))


def test_an_interrupted_pack_is_continued_and_a_damaged_one_mended(tmp_path, monkeypatch):
    splits = image_folder(photos(tmp_path / "folder"))
    place, settings = tmp_path / "pack", PackSettings(short=32, records=4)
    written = []

    def stops(job, number):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        return _write_shard(job, number)

    module = importlib.import_module("visionkit.data.pack.writer")
    monkeypatch.setattr(module, "_write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        pack(splits, place, settings=settings)
    with pytest.raises(DataError, match="a finished pack"):
        open_pack(place)
    assert written == [("train", 0), ("train", 1)]

    def counts(job, number):
        written.append(number)
        return _write_shard(job, number)

    monkeypatch.setattr(module, "_write_shard", counts)
    pack(splits, place, settings=settings)
    assert written == [("train", number) for number in range(4)] + [("val", 0), ("val", 1)]
    whole = [open_pack(place).train[index]["image"] for index in range(14)]
    assert not list(place.glob("*part"))

    def flip(file: Path, byte: int) -> None:
        data = bytearray(file.read_bytes())
        data[byte] ^= 16
        file.write_bytes(data)

    shard = place / shard_name("train", 1)
    flip(shard, 40)
    with pytest.raises(DataError, match=f"{shard.name}.*mends"):
        [open_pack(place).train[index] for index in range(14)]
    assert {fault.field for fault in check_pack(place)} == {"shard", "check"}
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"should have [\d,]+.*mends"):
        [open_pack(place).train[index] for index in range(14)]
    pack(splits, place, settings=settings)
    assert written[6:] == [("train", 1)]
    again = open_pack(place)
    assert all(torch.equal(again.train[index]["image"], image) for index, image in enumerate(whole))
    assert check_pack(place) == []


def test_every_flipped_byte_of_a_raw_pack_is_found(tmp_path):
    splits = image_folder(photos(tmp_path / "folder"))
    pack(splits, tmp_path / "pack", settings=PackSettings(short=12, form="raw"))
    shard = tmp_path / "pack" / shard_name("train", 0)
    sound = shard.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for place in rng.integers(0, len(sound) - len(END), 200):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        packed = open_pack(tmp_path / "pack")
        readers = [(packed.train, index) for index in range(14)] + [(packed.val, index) for index in range(6)]
        faults = 0
        for reader, index in readers:
            try:
                reader[index]
            except DataError:
                faults += 1
        found += faults == 1
    assert found == 200


def test_a_pack_that_is_out_of_date_is_refused_with_both_digests(tmp_path):
    folder = photos(tmp_path / "folder")
    place = tmp_path / "pack"
    pack(image_folder(folder), place)
    file = folder / "train" / "cat" / "0.jpg"
    data = file.read_bytes()
    os.utime(file, ns=(1, 1))  # touched, but the same: still good
    assert len(open_pack(place).train) == 14
    changed = bytearray(data)
    changed[-3] ^= 1
    file.write_bytes(changed)
    with pytest.raises(DataError, match=r"0\.jpg had the digest [0-9a-f]{32}, now it is [0-9a-f]{32}"):
        open_pack(place)
    file.write_bytes(data)
    smooth(20, 20, 9).save(folder / "train" / "cat" / "new.jpg")
    with pytest.raises(DataError, match=r"digest is [0-9a-f]{32}, that of 'folder' is [0-9a-f]{32} now"):
        open_pack(place, source=image_folder(folder))
    with pytest.raises(InputError, match=r"digest is [0-9a-f]{32}, that of 'folder' is [0-9a-f]{32} now"):
        pack(image_folder(folder), place)
    (folder / "train" / "cat" / "new.jpg").unlink()
    with pytest.raises(InputError, match="other data or settings"):
        pack(image_folder(folder), place, settings=PackSettings(short=16))
    with pytest.raises(InputError, match="holds other files"):
        pack(image_folder(folder), folder)
    (place / "pack.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        open_pack(place)


def test_a_shard_is_written_sample_by_sample(tmp_path):
    class Large:
        ids = [f"{index}" for index in range(16)]  # noqa: RUF012

        def __len__(self):
            return 16

        def __getitem__(self, index):
            image = torch.full((3, 256, 512), index, dtype=torch.uint8)
            return {"image": image, "id": self.ids[index], "size": (256, 512), "label": torch.tensor(0)}

    splits = Splits(Large(), Large(), None, ("one",), "large")
    tracemalloc.start()
    pack(splits, tmp_path / "pack", settings=PackSettings(form="raw", short=0))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    shard = (tmp_path / "pack" / shard_name("train", 0)).stat().st_size
    assert shard > 16 * 3 * 256 * 512
    assert most < shard
    assert open_pack(tmp_path / "pack").train[15]["image"].unique().tolist() == [15]


def test_a_folder_of_the_package_does_not_hide_the_function_of_its_name():
    for name, inside in (("pack", "pack.layout"), ("scenes", "scenes.scenes")):
        importlib.import_module(f"visionkit.data.{inside}")
        assert getattr(data, name).__name__ == name


def test_readers_travel_to_workers_without_their_bytes_and_workers_pack_the_same(tmp_path):
    splits = image_folder(photos(tmp_path / "folder"))
    settings = PackSettings(short=32, form="raw", records=6)
    pack(splits, tmp_path / "one", settings=settings)
    pack(splits, tmp_path / "two", settings=settings, workers=2)
    assert json.loads((tmp_path / "one/pack.json").read_text()) == json.loads(
        (tmp_path / "two/pack.json").read_text()
    )
    reader = open_pack(tmp_path / "one").train
    first = reader[0]
    sent = pickle.dumps(reader)
    assert len(sent) < 8000
    assert_same(pickle.loads(sent)[0], first)
    first["image"].zero_()  # a sample is its own: the next reader of the record sees what was packed
    assert reader[0]["image"].any()


def test_the_command_packs_checks_and_says_what_it_did(tmp_path, capsys):
    folder = photos(tmp_path / "folder")
    assert cli.main(["pack", str(folder), "--form", "raw", "--short", "16"]) == 0
    said = capsys.readouterr()
    assert "folder.pack: 20 samples" in said.out
    assert "shard 2 of 2" in said.err
    assert cli.main(["check", f"{folder}.pack"]) == 0
    assert "0 errors, 0 notices" in capsys.readouterr().out
    shard = tmp_path / "folder.pack" / shard_name("train", 0)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert cli.main(["check", f"{folder}.pack"]) == 2
    assert shard_name("train", 0) in capsys.readouterr().out
    assert cli.main(["pack", str(folder), "--form", "raw", "--short", "16"]) == 0
    assert cli.main(["check", f"{folder}.pack"]) == 0
    assert cli.main(["pack", str(tmp_path / "nothing")]) == 2


def test_a_pack_offers_the_targets_and_object_counts_of_its_source(tmp_path):
    numbers = image_table(table(tmp_path), kind="regression")
    numbers = replace(numbers, test=Subset(numbers.train, []))  # a split may be empty
    objects = voc(boxes(tmp_path / "b"))
    for name, source, lacks in (("targets", numbers, "labels"), ("object_counts", objects, "targets")):
        packed = open_pack(pack(source, tmp_path / f"pack-{name}"))
        for ours, theirs in ((packed.train, source.train), (packed.val, source.val)):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
            assert not hasattr(ours, lacks)
        assert packed.test is None if source.test is None else len(packed.test) == 0
