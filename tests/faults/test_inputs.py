"""Bad images, targets and names: each named, none followed, no process lost; and no alarm on real files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.test_boxes import CASES
from tests.data.test_read_image import _faulty
from tests.data.test_voc import _object
from visionkit.data import image_folder, image_table
from visionkit.data.formats.coco.reader import CocoReader
from visionkit.data.formats.masks.reader import mask_folder
from visionkit.data.formats.masks.validate import check_masks
from visionkit.data.formats.open import detect_formats
from visionkit.data.formats.options import OpenOptions
from visionkit.data.formats.validate import check_folder
from visionkit.data.formats.voc.class_maps import voc_masks
from visionkit.data.formats.voc.reader import check_voc, voc
from visionkit.data.read_image import check_images, inside, read_image, read_size
from visionkit.errors import DataError


@pytest.mark.dist
@pytest.mark.check("R11", "faulty targets through the detector: named with image and field, nothing moved")
def test_the_detector_names_every_faulty_target(zygote, figure):
    named = 0
    for name, said, same in zygote.run("detect_faults"):
        field = CASES[name][2]
        assert "cell_17" in said, name
        assert f"field '{field}'" in said, (name, said)
        assert same, name
        named += 1
    assert named >= 24
    figure(named, len(CASES))


@pytest.mark.check("R12", "faulty images: named with file and field, alone and by `visionkit check`")
def test_every_faulty_image_is_named(tmp_path, figure):
    (tmp_path / "train/a").mkdir(parents=True)
    cases, named = _faulty(tmp_path / "train/a"), 0
    for path in (tmp_path / "train/a").glob("whole.*"):
        path.unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "train/a/good.png")
    for name, said in cases.items():
        with pytest.raises(DataError, match=said) as caught:
            read_image(tmp_path / "train/a" / name)
        assert caught.value.path.endswith(name)
        assert caught.value.field
        named += 1
    found = check_folder(tmp_path)
    # What is no file to a folder (a missing one, a folder of that name) is none of its images.
    listed = {Path(fault.path).name for fault in found}
    assert len(found) == len(listed)
    assert set(cases) - listed <= {"none.jpg", "folder.jpg", "dead.jpg"}
    assert "nowhere.jpg" in listed  # where the dead link leads
    assert "good.png" not in listed
    figure(named, len(cases), f"{len(listed)} found by one check")
    assert len(cases) == 26


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.faults)])
@pytest.mark.dist
@pytest.mark.check("R13", "images with changed bits, 6 formats: decoded or named, no signal, none slow")
def test_changed_bits_end_in_an_image_or_a_named_fault(zygote, tmp_path, figure, count):
    told, part = [], min(count, 1000)
    for seed in range(count // part):
        child = zygote.start("decode_mutants", str(tmp_path / str(seed)), seed, part)
        code = child.wait(280)
        assert code == 0, (seed, code, child.said()[-2000:])
        told.append(child.result())
    decoded, refused = (sum(one[key] for one in told) for key in ("decoded", "refused"))
    slowest, peak = (max(one[key] for one in told) for key in ("slowest", "megabytes"))
    assert decoded > count // 10
    assert refused > count // 20
    figure(decoded + refused, count, f"{decoded} decoded, {refused} named; slowest {slowest} ms, {peak} MB")


COCO_REST = {
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0}
    ],
    "categories": [{"id": 1, "name": "a"}],
}
TRICKS = (
    "../secret.png", "a/../../secret.png", "./../secret.png", "..//secret.png", "../data/../secret.png",
    "{top}/secret.png", "/etc/passwd", "/proc/self/mem", "/dev/zero", "link.png", "chain.png",
    "up/secret.png",
    "up/./secret.png", "loop/secret.png", "..\u2215secret.png", "\uff0e\uff0e/secret.png",
    "\u2024\u2024/secret.png", "..\u2044secret.png", "..\\secret.png", "..%2fsecret.png", "%2e%2e/secret.png",
    "file://{top}/secret.png", "http://127.0.0.1:9/x.png", "a\0b", "secret.png\0.jpg", "~/secret.png",
    "$HOME/secret.png", "../data-other/secret.png", "", " ", ".", "..", "/", "pipe.png", "C:\\secret.png",
    "\u202e../secret.png", "../secret.png ", "a/" * 2000 + "x.png",
)  # fmt: skip


def _root(tmp_path: Path) -> Path:
    """A data folder with ways out of it, beside an image that must not be read."""
    for other in ("", "data-other"):
        (tmp_path / other).mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), "red").save(tmp_path / other / "secret.png")
    root = tmp_path / "data"
    for place in ("", "a", "JPEGImages", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / place).mkdir(parents=True, exist_ok=True)
    for own in ("own.png", "own3.png"):
        Image.new("RGB", (6, 4), "blue").save(root / own)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "chain.png").symlink_to(root / "link.png")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe.png")
    return root


def _readers(root: Path, name: str):
    """Every reader, made to follow `name`, as functions that give an image."""
    text = name.replace('"', '""')
    table = root / "t.csv"
    table.write_text(f'path,label\n"{text}",a\nown.png,b\nown3.png,a\n', encoding="utf-8", errors="ignore")
    xml = "".join(c for c in name if c >= " ").replace("&", "&amp;").replace("<", "&lt;")
    note = f"<annotation><filename>{xml}</filename><size><width>6</width><height>4</height></size>"
    (root / "Annotations/x.xml").write_text(f"{note}{_object((1, 1, 3, 3))}</annotation>", encoding="utf-8")
    yield "image", lambda: read_image(name, root=root)
    yield "size", lambda: read_size(name, root=root)
    yield "table", lambda: _all(image_table(table, held_out=0.3))
    yield "voc", lambda: _all(_listed(root, "Main", "x", voc))
    yield "voc list", lambda: _all(_listed(root, "Main", name or ".", voc))
    yield "voc masks", lambda: _all(_listed(root, "Segmentation", name or ".", voc_masks))
    image = {"file_name": name, "width": 6, "height": 4, "id": 1}
    (root / "coco.json").write_text(json.dumps({**COCO_REST, "images": [image]}))
    yield "coco", lambda: [CocoReader(root / "coco.json", root)[0]["image"]]


def _listed(root: Path, kind: str, name: str, read):
    for split in ("train", "val"):
        (root / f"ImageSets/{kind}/{split}.txt").write_text(f"{name}\n", encoding="utf-8", errors="ignore")
    return read(root)


def _all(splits):
    return [reader[i]["image"] for reader in (splits.train, splits.val) for i in range(len(reader))]


def _red(value) -> bool:
    images = value if isinstance(value, list) else [value]
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)
    return any(torch.is_tensor(p) and bool((p[:, 0, 0] == red).all()) for p in images)


@pytest.mark.check("R20", "names that lead out of the data folder, in every reader: none followed")
def test_no_name_leads_out_of_the_data_folder(tmp_path, figure):
    root, tried, escapes = _root(tmp_path), 0, []
    for trick in TRICKS:
        name = trick.replace("{top}", str(tmp_path))
        for reader, read in _readers(root, name):
            tried += 1
            try:
                value = read()
            except DataError:
                continue
            except (ValueError, OSError):  # a name that no file system takes, in a list of them
                if reader == "image":
                    raise
                continue
            if _red(value) or isinstance(value, tuple):
                escapes.append((trick, reader))
    # Links inside folders: a class folder, a mask folder, and the lists themselves.
    laid = tmp_path / "laid"
    for split in ("train", "val"):
        for part in ("a", "b", "images", "masks"):
            (laid / split / part).mkdir(parents=True)
            Image.new("L", (6, 4)).save(laid / split / part / "x.png")
        (laid / split / "a" / "link.png").symlink_to(tmp_path / "secret.png")
        (laid / split / "images" / "y.png").symlink_to(tmp_path / "secret.png")
        Image.new("L", (6, 4)).save(laid / split / "masks" / "y.png")
    (laid / "train" / "c").symlink_to(tmp_path / "data-other")
    (laid / "val" / "c").symlink_to(tmp_path / "data-other")
    for reader in (
        image_folder(laid, max_dropped=1.0).train,
        mask_folder(laid, classes=("o", "p"), max_dropped=1.0).train,
    ):
        for index in range(len(reader)):
            tried += 1
            try:
                if _red(reader[index]["image"]):
                    escapes.append(("link in a folder", type(reader).__name__, reader.ids[index]))
            except DataError:
                continue
    assert sum("leads to" in str(fault) for fault in check_folder(laid)) == 6
    assert sum("leads to" in str(fault) for fault in check_masks(laid, classes=("o", "p"))) == 2
    (laid / "classes.txt").symlink_to("/etc/passwd")
    (root / "ImageSets/Main/train.txt").unlink()
    (root / "ImageSets/Main/train.txt").symlink_to("/etc/passwd")
    for read in (lambda: mask_folder(laid), lambda: voc(root)):
        tried += 1
        with pytest.raises(DataError, match="leads to") as caught:
            read()
        assert "root:" not in str(caught.value)
    figure(tried - len(escapes), tried, f"{len(TRICKS)} names; {escapes or 'no escape'}")


def test_what_lies_inside_is_read(tmp_path):
    root = _root(tmp_path)
    (root / "a" / "own2.png").symlink_to(root / "own.png")
    for name in ("own.png", "a/../own.png", "a/own2.png", str(root / "own.png")):
        assert read_image(name, root=root)[2, 0, 0] == 255
    through = tmp_path / "through"
    through.symlink_to(root)
    assert inside(through, "own.png") == root / "own.png"


def _check(data: str):
    form = detect_formats(data)[0]
    source = form.read(Path(data), form.tasks[0], OpenOptions(check=True))
    return form.name, source.errors(True)


@pytest.mark.check("check", "`visionkit check`: every planted fault of a data set at once, with its record")
def test_check_finds_all_faults_at_once(tmp_path, figure):
    from tests.data.test_voc import FAULTS, _folder

    planted = found = 0
    photos = tmp_path / "photos"
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (photos / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (9, 8), (i, 0, 0)).save(photos / split / name / f"{i}.png")
    broken = [photos / "train/ant/0.png", photos / "train/bee/2.png", photos / "val/ant/1.png"]
    for path, data in zip(broken, (b"", b"<html>", b"\x89PNG\r\n\x1a\n")):
        path.write_bytes(data)
    kind, faults = _check(str(photos))
    assert (kind, sorted(fault.path for fault in faults)) == (
        "a folder for each class",
        sorted(map(str, broken)),
    )
    planted, found = planted + 3, found + len(faults)
    rows = ["0.png,a", "none.png,a", "../x.png,a", "1.png,", "2.png,a"]
    (tmp_path / "t").mkdir()
    for i in range(3):
        Image.new("RGB", (9, 8)).save(tmp_path / "t" / f"{i}.png")
    (tmp_path / "t/2.png").write_bytes(b"")
    (tmp_path / "t/t.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    kind, faults = _check(str(tmp_path / "t/t.csv"))
    assert [fault.record for fault in faults] == ["line 3", "line 4", "line 5", "line 6"]
    planted, found = planted + 4, found + len(faults)
    cells = {name.replace(" ", "-"): text for name, (text, *_) in FAULTS.items()}
    _, faults = _check(str(_folder(tmp_path / "voc", {"good": _object((1, 1, 20, 30)), **cells})))
    assert len(faults) == len(FAULTS)
    planted, found = planted + len(FAULTS), found + len(faults)
    masks = tmp_path / "masks"
    for part in ("images", "masks"):
        (masks / part).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB" if part == "images" else "L", (9, 8)).save(masks / part / f"{i}.png")
    (masks / "classes.txt").write_text("o\np\n")
    (masks / "images/0.png").write_bytes(b"")
    Image.new("L", (9, 8), 77).save(masks / "masks/1.png")
    Image.new("L", (5, 8)).save(masks / "masks/2.png")
    (masks / "masks/3.png").unlink()
    _, faults = _check(str(masks))
    ends = sorted("/".join(Path(fault.path).parts[-2:]) for fault in faults)
    assert ends == ["images/0.png", "images/3.png", "masks/1.png", "masks/2.png"]
    planted, found = planted + 4, found + len(faults)
    figure(found, planted)


@pytest.mark.parametrize("share", [40, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.check("R11", "false alarms on real photographs, cells and street scenes")
def test_real_files_raise_no_alarm(shared_data, figure, share):
    images = sorted((shared_data / "cifar10").rglob("*.png")) + sorted(
        (shared_data / "cifar10").rglob("*.jpg")
    )
    looked = images[::share]
    alarms = [str(fault) for fault in check_images(looked, root=shared_data)]
    assert len(looked) >= 100
    if share == 1:
        boxes = check_voc(shared_data / "bccd")
        # Two boxes of the published files have no area: these are faults.
        assert [fault.field for fault in boxes] == ["bndbox", "bndbox"]
        camvid = _street(shared_data / "camvid")
        alarms += [str(fault) for fault in camvid[1]]
        looked = [*looked, *range(364), *range(camvid[0])]
    figure(len(looked) - len(alarms), len(looked), "; ".join(alarms[:2]))


def _street(root: Path) -> tuple[int, list[DataError]]:
    names = (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bike",
    )
    splits = mask_folder(root, classes=names, ignore=(11,))
    readers = [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
    return sum(map(len, readers)), check_masks(root, classes=names, ignore=(11,))
