"""Mask files of every kind give the numbers they store: bit depths, colours, alpha, EXIF, label lists."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from visionkit.data.formats.masks.label_map import LabelMap, read_label_map
from visionkit.data.formats.masks.read_mask import read_mask
from visionkit.data.formats.masks.reader import mask_folder
from visionkit.data.formats.masks.validate import check_masks
from visionkit.data.read_image import read_image
from visionkit.errors import DataError

TWENTY = LabelMap.of([f"c{i}" for i in range(20)])


def png(path, values, bits, colour=0):
    """Write a PNG of one channel with so many bits, or of several in 8 or 16."""
    rows = np.asarray(values)
    height, width = rows.shape[:2]
    flat = rows.reshape(height, -1)
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in flat]
    else:
        packed = [np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :] for row in flat]
        lines = [np.packbits(row.ravel()).tobytes() for row in packed]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_files_of_every_bit_depth_give_their_numbers(tmp_path, bits):
    values = np.arange(2 * 17).reshape(2, 17) % min(2**bits, 20)
    png(tmp_path / "m.png", values, bits)
    assert (read_mask(tmp_path / "m.png", TWENTY).numpy() == values).all()
    png(tmp_path / "n.png", values * 0 + min(2**bits, 256) - 1, bits)
    known = LabelMap(("top",), {min(2**bits, 256) - 1: 0})
    assert (read_mask(tmp_path / "n.png", known).numpy() == 0).all()


def test_channels_of_16_bits_are_refused_not_cut(tmp_path):
    png(tmp_path / "m.png", np.full((2, 3, 3), 7), 16, colour=2)
    with pytest.raises(DataError, match="16 bits in each of 3 channels"):
        read_mask(tmp_path / "m.png", TWENTY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_every_exif_orientation_turns_mask_and_image_alike(tmp_path, suffix):
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for turn in range(1, 9):
        tag = Image.Exif()
        tag[0x0112] = turn
        for name, grey in (("m", values), ("i", values * 40)):
            Image.fromarray(grey).save(tmp_path / f"{name}.{suffix}", exif=tag)
        image = read_image(tmp_path / f"i.{suffix}")[0].numpy() // 40
        assert (read_mask(tmp_path / f"m.{suffix}", TWENTY).numpy() == image).all(), turn


def _pair(root, name="a", size=(4, 4), turn=1, own=1, value=1):
    for folder, mode, which in (("images", "RGB", turn), ("masks", "L", own)):
        (root / "train" / folder).mkdir(parents=True, exist_ok=True)
        tag = Image.Exif()
        if which > 1:
            tag[0x0112] = which
        made = Image.new(mode, size, 0)
        made.paste(value if mode == "L" else (255, 255, 255), (0, 0, 2, 2))
        made.save(root / "train" / folder / f"{name}.png", exif=tag)
    (root / "classes.txt").write_text("dark\nlight\n")


def test_check_says_where_only_the_image_is_turned(tmp_path):
    _pair(tmp_path / "both", turn=3, own=3)
    _pair(tmp_path / "both", "b")
    sample = mask_folder(tmp_path / "both").train[0]
    assert (sample["image"][0][sample["mask"] == 1] == 255).all()
    assert check_masks(tmp_path / "both") == []
    _pair(tmp_path / "one", turn=3)
    (fault,) = check_masks(tmp_path / "one")
    assert (fault.field, fault.path) == ("orientation", "train/masks/a.png")
    assert "train/images/a.png (3), but the mask has none" in str(fault)
    _pair(tmp_path / "drawn", size=(6, 4), turn=6)
    (fault,) = check_masks(tmp_path / "drawn")
    assert fault.field == "size"
    assert "EXIF orientation is 6, the mask's 1" in str(fault)
    Image.open(tmp_path / "drawn/train/masks/a.png").transpose(Image.Transpose.ROTATE_270).save(
        tmp_path / "drawn/train/masks/a.png"
    )
    assert check_masks(tmp_path / "drawn") == []  # drawn on the upright image: the sizes say so


def test_transparent_pixels_do_not_count(tmp_path):
    colours = LabelMap(("road", "sky"), {0: 0, 1: 1}, {(9, 9, 90): 0, (0, 0, 200): 1})
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 2], rgba[..., 3] = 200, 255
    rgba[0, 0] = (9, 9, 90, 0)
    rgba[0, 1] = (77, 0, 0, 0)  # what is erased may have any colour
    Image.fromarray(rgba).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", colours).tolist() == [[255, 255, 1], [1, 1, 1]]
    grey = np.array([[[1, 255], [0, 0], [1, 0]]], np.uint8)
    Image.fromarray(grey, "LA").save(tmp_path / "la.png")
    assert read_mask(tmp_path / "la.png", colours).tolist() == [[1, 255, 255]]
    rgba[1, 1, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="1 are half transparent"):
        read_mask(tmp_path / "m.png", colours)


def test_a_transparent_entry_of_a_palette_is_a_number(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette(bytes(range(9)))
    image.save(tmp_path / "m.png", transparency=0)
    assert read_mask(tmp_path / "m.png", TWENTY).tolist() == [[0, 1, 2]]


def test_equal_channels_are_numbers_unless_they_are_listed_colours(tmp_path):
    values = np.array([[0, 1, 2, 255]], np.uint8)
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(tmp_path / "m.png")
    expected = [[0, 1, 2, 255]]
    assert read_mask(tmp_path / "m.png", TWENTY).tolist() == expected
    listed = LabelMap(("a", "b", "c"), {0: 0, 1: 1, 2: 2, 255: 255}, {(0, 0, 0): 0, (128, 64, 128): 1})
    assert read_mask(tmp_path / "m.png", listed).tolist() == expected
    greys = LabelMap(("a", "b"), {0: 0, 1: 1}, {(0, 0, 0): 1, (255, 255, 255): 0})
    Image.fromarray(np.repeat(values[..., ::3, None], 3, 2)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", greys).tolist() == [[1, 0]]


def test_a_lossy_tiff_is_refused(tmp_path):
    Image.new("L", (16, 16), 1).save(tmp_path / "m.tif", compression="jpeg")
    with pytest.raises(DataError, match="lossless format, but it is JPEG in a TIFF"):
        read_mask(tmp_path / "m.tif", TWENTY)


ROADS = (("void", "road", "car"), {(0, 0, 0): 0, (128, 64, 128): 1, (64, 0, 128): 2})
LISTS = {
    "plain.txt": "void 0 0 0\nroad 128 64 128\ncar 64 0 128\n",
    "with values.txt": "0 void 0 0 0\n1 road 128 64 128\n2 car 64 0 128\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nvoid:0,0,0::\nroad:128,64,128::\ncar:64,0,128:a,b:\n",
    "class_dict.csv": " name , r,g, b\nvoid,0,0,0\nroad,128, 64,128\ncar,64,0,128\n",
    "label_colors.txt": "0 0 0\tvoid\n128 64 128\troad\n64 0 128 car\n",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_colours_of_every_tool(tmp_path, name, encoding):
    (tmp_path / name).write_text(LISTS[name], encoding=encoding)
    labels = read_label_map(tmp_path / name)
    ignores = name in ("class_dict.csv", "label_colors.txt")  # CamVid's Void does not count
    classes, colours = ROADS
    assert labels.classes == classes[ignores:]
    shift = {0: 255, 1: 0, 2: 1} if ignores else {0: 0, 1: 1, 2: 2}
    assert labels.colours == {colour: shift[number] for colour, number in colours.items()}
    assert labels.values == {**shift, 255: 255}
    pixels = np.array([[[0, 0, 0], [64, 0, 128], [128, 64, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", labels).tolist() == [[shift[0], shift[2], shift[1]]]


def test_palettes_are_read_by_colour_where_the_list_gives_no_values(tmp_path):
    (tmp_path / "labelmap.txt").write_text(LISTS["labelmap.txt"])
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 64, 0, 128, 128, 64, 128])  # car before road
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", read_label_map(tmp_path / "labelmap.txt")).tolist() == [[0, 2, 1]]
    (tmp_path / "valued.txt").write_text(LISTS["with values.txt"])
    assert read_mask(tmp_path / "m.png", read_label_map(tmp_path / "valued.txt")).tolist() == [[0, 1, 2]]


def test_a_byte_order_mark_shifts_no_class(tmp_path):
    for text in ("# mine\nbackground\nroad\n", "background\nroad\n", "0 background\n1 road\n"):
        (tmp_path / "c.txt").write_text(text, encoding="utf-8-sig")
        assert read_label_map(tmp_path / "c.txt").classes == ("background", "road")


def test_a_name_may_have_several_values_and_a_hash_inside(tmp_path):
    (tmp_path / "c.txt").write_text("0 back\n1 C#3\n255 C#3  # saved by another tool\n")
    labels = read_label_map(tmp_path / "c.txt")
    assert labels.classes == ("back", "C#3")
    assert labels.values == {0: 0, 1: 1, 255: 1}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("name,r,g,b\nroad,1,2\n", 2, "columns name, red, green, blue"),
        ("road 1 2 3\nsky 1 2 3\n", 2, "repeats one: 'sky 1 2 3'"),
        ("a:300,0,0::\n", 1, "colour from 0 to 255"),
    ],
)
def test_faults_of_lists_name_the_line(tmp_path, text, line, said):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_label_map(tmp_path / "c.txt")
    assert caught.value.record == line
