"""The decoder: every usual pixel type right, every fault named, no signal, no bomb."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data.read_image import inside, read_image, read_size
from visionkit.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def _decoded(path):
    return read_image(path).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_images_come_back_exactly(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(file)
    image = read_image(file)
    assert image.shape == (3, 20, 30)
    assert image.dtype == torch.uint8
    assert image.stride(0) == 1
    assert np.array_equal(_decoded(file), PIXELS)
    assert read_size(file) == (20, 30)


def _modes():
    grey = PIXELS[..., 0]
    alpha = PIXELS[..., 1:2].astype(np.uint32)
    over = (PIXELS.astype(np.uint32) * alpha + 255 * (255 - alpha) + 127) // 255
    grey_over = (grey.astype(np.uint32)[..., None] * alpha + 255 * (255 - alpha) + 127) // 255
    deep = RNG.integers(0, 65536, (20, 30)).astype(np.uint16)
    palette = Image.fromarray(PIXELS).quantize(16)
    cmyk = Image.fromarray(PIXELS).convert("CMYK")
    threes = lambda plane: np.repeat(plane[..., None], 3, axis=2)  # noqa: E731
    rgba = Image.fromarray(np.dstack([PIXELS, PIXELS[..., 1]]), "RGBA")
    return [
        ("L", "png", Image.fromarray(grey), threes(grey), 0),
        ("1", "png", Image.fromarray(grey > 99), threes((grey > 99) * 255), 0),
        ("LA", "png", Image.merge("LA", (Image.fromarray(grey), rgba.getchannel("A"))), grey_over, 0),
        ("P", "png", palette, np.asarray(palette.convert("RGB")), 0),
        ("P", "gif", palette, np.asarray(palette.convert("RGB")), 0),
        ("RGBA", "png", rgba, over, 0),
        ("I;16", "png", Image.fromarray(deep), threes(np.round(deep / 257.0)), 0),
        ("I;16", "tif", Image.fromarray(deep), threes(np.round(deep / 257.0)), 0),
        ("CMYK", "tif", cmyk, np.asarray(cmyk.convert("RGB")), 0),
        ("RGB", "jpg", Image.fromarray(np.full((20, 30, 3), 120, np.uint8)), np.full((20, 30, 3), 120), 1),
        ("CMYK", "jpg", Image.new("CMYK", (30, 20), (0, 255, 255, 0)), np.full((20, 30, 3), [255, 0, 0]), 3),
        ("RGB", "webp", Image.fromarray(np.full((20, 30, 3), 120, np.uint8)), np.full((20, 30, 3), 120), 2),
    ]


def test_every_pixel_type_equals_its_reference(tmp_path):
    cases = _modes()
    for number, (mode, suffix, image, reference, error) in enumerate(cases):
        file = tmp_path / f"{number}.{suffix}"
        assert image.mode == mode
        image.save(file)
        got = np.abs(_decoded(file).astype(int) - np.asarray(reference).astype(int)).max()
        assert got <= error, f"{mode} as {suffix}: off by {got}"
    assert len(cases) == 12


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png").float()
    assert abs(image.mean().item() - 127.5) < 1
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    flips = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.swapaxes(0, 1),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PIXELS, 1),
    }
    assert np.array_equal(_decoded(tmp_path / "a.png"), flips[orientation])
    assert read_size(tmp_path / "a.png") == flips[orientation].shape[:2]


def test_an_animation_gives_its_first_frame(tmp_path):
    first, second = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert _decoded(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def _bomb(path, side):
    """Write a PNG whose header says `side` x `side`, in a few bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
    )


@pytest.mark.parametrize(
    ("side", "said"), [(10_000, "100 megapixels"), (14_000, "pixels"), (30_000, "pixels")]
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_from_its_header(tmp_path, side, said):
    _bomb(tmp_path / "bomb.png", side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="at most 64 megapixels") as caught:
        read_image(tmp_path / "bomb.png")
    assert said in str(caught.value)
    assert caught.value.field == "header"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def _faulty(folder):
    """Write the faulty files and say what each error must tell."""
    whole = {}
    for kind in ("jpg", "png", "webp", "bmp", "gif", "tif"):
        Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"whole.{kind}")
        whole[kind] = (folder / f"whole.{kind}").read_bytes()
    cases = {}
    for kind, data in whole.items():
        (folder / f"half.{kind}").write_bytes(data[: len(data) // 2])
        cases[f"half.{kind}"] = "damaged|truncated|starts with"
        (folder / f"head.{kind}").write_bytes(data[:10])
        cases[f"head.{kind}"] = "damaged|truncated|starts with"
    texts = {
        "zero.jpg": (b"", "empty"),
        "page.jpg": (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        "text.png": (b"hello, I am no image at all", "starts with"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "noise.png": (RNG.bytes(2000), "starts with"),
        "vector.jpg": (b"%PDF-1.4 and so on", "starts with"),
        "psd.png": (b"8BPS\0\1" + b"\0" * 50, "starts with"),
    }
    for name, (data, said) in texts.items():
        (folder / name).write_bytes(data)
        cases[name] = said
    Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "float.tif")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(folder / "wide.tif")
    cases |= {"float.tif": "8-bit or 16-bit", "wide.tif": "8-bit or 16-bit", "none.jpg": "none by this name"}
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "dead.jpg").symlink_to(folder / "nowhere.jpg")
    return cases | {
        "folder.jpg": "a folder",
        "pipe.jpg": "no regular file",
        "loop.jpg": "cannot be reached",
        "dead.jpg": "none by this name",
    }


def test_every_faulty_image_is_named(tmp_path):
    cases = _faulty(tmp_path)
    for name, said in cases.items():
        with pytest.raises(DataError, match=said) as caught:
            read_image(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)
        assert caught.value.field
    assert len(cases) == 26


def test_nothing_outside_the_root_is_opened(tmp_path):
    top = tmp_path / "data"
    (top / "deep").mkdir(parents=True)
    Image.fromarray(PIXELS).save(tmp_path / "secret.png")
    Image.fromarray(PIXELS).save(top / "deep" / "own.png")
    (top / "link.png").symlink_to(tmp_path / "secret.png")
    (top / "up").symlink_to(tmp_path)
    assert read_image("deep/own.png", root=top).shape == (3, 20, 30)
    assert inside(top, "deep/../deep/own.png") == (top / "deep" / "own.png").resolve()
    names = [
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "up/secret.png",
        "deep/../../secret.png",
    ]
    names += ["", "a\0b", "/etc/passwd", "../data-other/x.png"]
    for name in names:
        with pytest.raises(DataError) as caught:
            read_image(name, root=top)
        assert caught.value.field == "path"
    assert len(names) == 9


def decode_changed(folder, seed, count):
    rng = np.random.default_rng(seed)
    whole = [Path(folder, f"whole.{kind}").read_bytes() for kind in ("png", "jpg", "webp", "gif")]
    target, decoded, refused = Path(folder, "mutant"), 0, 0
    for number in range(count):
        data = bytearray(whole[number % 4])
        for place in rng.integers(0, len(data), 1 if number % 2 else 16):
            data[place] ^= 1 << int(rng.integers(8))
        target.write_bytes(data)
        try:
            read_image(target)
            decoded += 1
        except DataError:
            refused += 1
    return decoded, refused


def _fuzz(zygote, folder, seed, count):
    for kind in ("png", "jpg", "webp", "gif"):
        Image.fromarray(RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / f"whole.{kind}")
    # In a process of its own: a decoder that crashes ends it with a signal.
    assert sum(zygote.run("tests.data.test_read_image:decode_changed", str(folder), seed, count)) == count


def test_mutated_images_end_in_an_image_or_a_named_fault(zygote, tmp_path):
    _fuzz(zygote, tmp_path, 0, 300)
