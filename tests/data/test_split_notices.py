"""Images in two splits, and folders that look like splits: named in every format, by one rule."""

from __future__ import annotations

import ast
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import visionkit.data.formats
from tests.data import test_open as cases
from visionkit import cli
from visionkit.data import open_dataset
from visionkit.data.formats.split_notices import frame_notices, overlap_notices
from visionkit.data.splits import SPLIT_ALIASES, split_of
from visionkit.errors import DataError


def _exports(root):
    """COCO as Roboflow exports it: a file among the images of each split."""
    cases.coco(root)
    for split in ("train", "val"):
        (root / split).mkdir()
        content = json.loads((root / f"{split}.json").read_text())
        for each in content["images"]:
            shutil.move(root / "images" / each["file_name"], root / split)
        (root / f"{split}.json").rename(root / split / "_annotations.coco.json")
    (root / "images").rmdir()


def _voc_folders(root):
    cases.voc(root)
    for split, names in {"train": "ab", "val": "c"}.items():
        (root / split).mkdir()
        for name in names:
            shutil.move(root / f"JPEGImages/{name}.jpg", root / split)
            shutil.move(root / f"Annotations/{name}.xml", root / split)
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        shutil.rmtree(root / folder)


def _labelme_folders(root):
    for split in ("train", "val"):
        cases.labelme(root / split)


def _text_captions(root):
    for split in ("train", "val"):
        cases.draw(root / split, "1.jpg", "2.jpg")
        for name in "12":
            (root / split / f"{name}.txt").write_text("a dog runs\n")


def _huggingface_classes(root):
    for split in ("train", "validation"):
        cases.huggingface(root / "x")
        shutil.move(root / "x/train", root / split)


def _split_classes(root):
    for split in ("train", "val"):
        cases.class_folders(root / split)


def _cityscapes(root):
    for split in ("train", "val"):
        cases.draw(root / f"leftImg8bit/{split}/ulm", "ulm_1_1_leftImg8bit.png")
        cases.masks(root / "x", "train", "val")
        (root / f"gtFine/{split}/ulm").mkdir(parents=True)
        shutil.move(root / "x/train/masks/1.png", root / f"gtFine/{split}/ulm/ulm_1_1_gtFine_labelIds.png")
        shutil.rmtree(root / "x")
    (root / "classes.txt").write_text("background\nroad\n")


# How a set with folders of splits is made, its task, its validation folder, and where an odd one would stand.
FOLDERS = {
    "classes": (_split_classes, "classification", "val", "holdout"),
    "Hugging Face classes": (_huggingface_classes, "classification", "validation", "holdout"),
    "Hugging Face boxes": (cases.huggingface_boxes, "detection", "validation", "holdout"),
    "COCO exports": (_exports, "detection", "val", "holdout"),
    "VOC folders": (_voc_folders, "detection", "val", "holdout"),
    "YOLO": (cases.yolo, "detection", "images/val", "images/holdout"),
    "labelme": (_labelme_folders, "detection", "val", "holdout"),
    "masks": (cases.masks, "segmentation", "validation", "holdout"),
    "Cityscapes": (_cityscapes, "segmentation", "leftImg8bit/val", "leftImg8bit/holdout"),
    "captions": (_text_captions, "captioning", "val", "holdout"),
}


def test_formats_with_folders_of_splits_are_all_here():
    assert len(FOLDERS) == 10


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_with_the_name_of_no_split_is_named(name, tmp_path):
    make, task, val, odd = FOLDERS[name]
    make(tmp_path)
    before = open_dataset(tmp_path, task)
    assert before.notices == ()
    shutil.copytree(tmp_path / val, tmp_path / odd)
    if name == "classes":
        with pytest.raises(DataError, match=r"beside the splits ignored \(holdout\)"):
            open_dataset(tmp_path, task)
        return
    if name.startswith("Hugging Face"):
        (tmp_path / odd / "metadata.jsonl").unlink()
    options = cases.OpenOptions(max_dropped=0.5)
    after = open_dataset(tmp_path, task, options)
    assert (len(after.train), len(after.val)) == (len(before.train), len(before.val))
    assert any("holdout" in str(notice) for notice in after.notices)


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "classes"])
def test_an_empty_folder_of_a_split_is_named_when_images_are_held_out(name, tmp_path):
    make, task, val, _ = FOLDERS[name]
    make(tmp_path)
    files = [file for file in (tmp_path / val).rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.unlink()
    if name == "YOLO":
        (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    if name in ("masks", "Cityscapes"):
        for file in (tmp_path / val.replace("leftImg8bit", "gtFine")).rglob("*.png"):
            file.unlink()
    if name == "Cityscapes":
        cases.draw(tmp_path / "leftImg8bit/train/ulm", "ulm_2_2_leftImg8bit.png")
        folder = tmp_path / "gtFine/train/ulm"
        shutil.copy(folder / "ulm_1_1_gtFine_labelIds.png", folder / "ulm_2_2_gtFine_labelIds.png")
    splits = open_dataset(tmp_path, task)
    assert len(splits.val) >= 1
    named = [notice for notice in splits.notices if "val" in notice.first and "held out" in notice.first]
    assert len(named) == 1


def test_hugging_face_rows_of_no_split_leave_the_splits_as_they_are(tmp_path):
    rows = []
    for split in ("train", "validation", "holdout"):
        cases.draw(tmp_path / split, "1.jpg", "2.jpg")
        objects = {"bbox": [[2, 2, 8, 8]], "categories": [0]}
        rows += [{"file_name": f"{split}/{n}.jpg", "label": "ab"[n % 2], "objects": objects} for n in (1, 2)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for task in ("classification", "detection"):
        with pytest.raises(DataError, match="beside the splits ignored: 2 of 6"):
            open_dataset(tmp_path, task)
        splits = open_dataset(tmp_path, task, cases.OpenOptions(max_dropped=0.4))
        assert (len(splits.train), len(splits.val)) == (2, 2)


def _overlapping(name, root):
    """Let the validation split hold the training images, whole."""
    if name == "YOLO":
        cases.yolo(root)
        (root / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat]\n")
    elif name == "VOC lists":
        cases.voc(root)
        (root / "ImageSets/Main/val.txt").write_text("a\nb\n")
    elif name == "VOC mask lists":
        cases.masks(root)
        (root / "training/images").rename(root / "JPEGImages")
        (root / "training/masks").rename(root / "SegmentationClass")
        (root / "ImageSets/Segmentation").mkdir(parents=True)
        for split in ("train", "val"):
            (root / f"ImageSets/Segmentation/{split}.txt").write_text("1\n2\n")
    elif name.startswith("COCO"):
        cases.coco(root)
        shutil.copy(root / "train.json", root / "val.json")
    else:
        _split_classes(root)
        shutil.rmtree(root / "val")
        (root / "val").symlink_to(root / "train")


OVERLAPS = {
    "YOLO": "detection",
    "VOC lists": "detection",
    "COCO boxes": "detection",
    "COCO maps": "segmentation",
    "VOC mask lists": "segmentation",
    "class folders": "classification",
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_images_in_two_splits_are_counted_and_refused_above_the_fraction(name, tmp_path):
    _overlapping(name, tmp_path)
    words = r"val: images that are in train, too: (\d+) of \1 \(100.00%\).*is in train and in val.*held out"
    with pytest.raises(DataError, match=words):
        open_dataset(tmp_path, OVERLAPS[name])
    splits = open_dataset(tmp_path, OVERLAPS[name], cases.OpenOptions(max_dropped=1.0))
    assert len(splits.val) == len(splits.train)


def test_overlaps_are_counted_of_the_later_split():
    files = {"test": ["c", "d", "e"], "train": ["a", "b"], "val": ["b", "c"]}
    notices = [(each.what[:3], each.count, each.total) for each in overlap_notices(files)]
    assert notices == [("val", 1, 2), ("tes", 1, 3)]
    assert overlap_notices({"train": ["a/x"], "val": ["b/x"]}) == ()


def test_split_names_and_hold_outs_are_written_in_one_place_only():
    """No format has a table of its own: `SPLIT_ALIASES`, `split_of` and hold-outs are in data/splits.py."""
    other_names = {alias for names in SPLIT_ALIASES.values() for alias in names} - {"train", "val", "test"}
    modules = sorted(Path(visionkit.data.formats.__file__).parent.rglob("*.py"))
    found = []
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and node.value in other_names:
                found.append((module.name, node.value))
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found += [
                    (module.name, ast.unparse(t)) for t in targets if "holdout" in ast.unparse(t).lower()
                ]
    assert len(modules) >= 50
    assert found == []
    assert [split_of(name) for name in ("Training", "valid", "DEV", "holdout", "")] == [
        "train", "val", "val", None, None
    ]  # fmt: skip


def _animate(root):
    """Make the images of a data set animations of two frames, whatever their endings say."""
    first, second = Image.new("RGB", (24, 16), "red"), Image.new("RGB", (24, 16), "blue")
    for file in sorted(root.rglob("*.jpg")):
        first.save(file, "PNG", save_all=True, append_images=[second])
        file.rename(file.with_suffix(".png"))
    for file in [*root.rglob("*.json"), *root.rglob("*.jsonl"), *root.rglob("*.csv"), *root.rglob("*.txt")]:
        file.write_text(file.read_text().replace(".jpg", ".png"))
    for shard in root.rglob("*.tar"):
        with tarfile.open(shard) as read:
            contents = {member.name: read.extractfile(member).read() for member in read.getmembers()}
        with tarfile.open(shard, "w") as written:
            for name, data in contents.items():
                if name.endswith(".jpg"):
                    made = io.BytesIO()
                    first.save(made, "PNG", save_all=True, append_images=[second])
                    name, data = name.replace(".jpg", ".png"), made.getvalue()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                written.addfile(member, io.BytesIO(data))
    for file in root.rglob("*.jpg.json"):
        file.rename(file.with_name(file.name.replace(".jpg", ".png")))


@pytest.mark.parametrize(("name", "task"), cases.PAIRS)
def test_files_of_several_frames_are_named_in_every_format(name, task, tmp_path):
    cases.CASES[name](tmp_path)
    _animate(tmp_path)
    (notice,) = open_dataset(tmp_path, task).notices
    assert notice.what.startswith("files of several frames or pages, of which the first is read (all ")
    assert (notice.count > 1, notice.total, notice.first.endswith(".png")) == (True, 0, True)


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "avif", "apng"])
def test_frames_are_told_from_the_header_of_every_kind_of_file(suffix, tmp_path):
    kind = {"tif": "TIFF", "apng": "PNG"}.get(suffix, suffix.upper())
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / f"one.{suffix}", kind)
    assert frame_notices([str(tmp_path / f"one.{suffix}")]) == ()
    frames[0].save(tmp_path / f"three.{suffix}", kind, save_all=True, append_images=frames[1:])
    files = [str(tmp_path / f"{name}.{suffix}") for name in ("one", "three", "none")]
    (notice,) = frame_notices([*files, str(tmp_path)])
    assert (notice.count, notice.first) == (1, files[1])
    (notice,) = frame_notices(files[1:2] * 1000)
    assert (notice.count, "64 of 1,000 were looked at" in notice.what) == (64, True)


def test_a_file_that_leads_out_of_its_folder_is_not_looked_at(tmp_path):
    (tmp_path / "data").mkdir()
    first, second = Image.new("RGB", (24, 16), "red"), Image.new("RGB", (24, 16), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    (tmp_path / "data/a.gif").symlink_to(tmp_path / "a.gif")
    assert frame_notices([str(tmp_path / "data/a.gif")]) == ()


def test_classes_that_no_training_image_has_are_told(tmp_path, capsys) -> None:
    for name in ("cat", "dog", "eel"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (24, 16)).save(tmp_path / name / "1.png")
    splits = open_dataset(tmp_path, "classification")
    trained = {splits.classes[splits.train[i]["label"]] for i in range(len(splits.train))}
    (absent,) = {"cat", "dog", "eel"} - trained
    (notice,) = splits.notices
    text = f"classes without a training image, never predicted: 1 of 3 (33.33%). First: class '{absent}'"
    assert str(notice) == text
    packed = tmp_path.with_name("told.pack")
    assert cli.main(["pack", str(tmp_path), "--out", str(packed)]) == 0
    assert [str(each) for each in open_dataset(packed, "classification").notices] == [text]
    for folder in (tmp_path, packed):
        capsys.readouterr()
        cli.main(["check", str(folder)])
        assert capsys.readouterr().out.count("classes without a training image") == 1
