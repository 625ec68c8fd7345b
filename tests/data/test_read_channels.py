"""Images of one, four and thirteen channels, from TIFF files and arrays."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data import read_channels
from visionkit.errors import DataError

RNG = np.random.default_rng(0)


def test_grey_images_have_one_channel(tmp_path):
    pixels = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "rgb.png")
    for name in ("grey.png", "rgb.png"):
        image = read_channels(tmp_path / name, channels=1)
        assert image.dtype == torch.uint8
        assert np.array_equal(image[0].numpy(), pixels)
    deep = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    image = read_channels(tmp_path / "deep.tif", channels=1)
    assert image.dtype == torch.float32
    assert np.allclose(image[0].numpy(), deep / 65535)


def test_four_samples_and_thirteen_pages(tmp_path):
    four = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    Image.fromarray(four, "RGBA").save(tmp_path / "four.tif")
    assert np.array_equal(read_channels(tmp_path / "four.tif", channels=4).numpy(), four.transpose(2, 0, 1))
    bands = RNG.integers(0, 12000, (13, 6, 8), dtype=np.uint16)
    first, *rest = [Image.fromarray(band) for band in bands]
    first.save(tmp_path / "bands.tif", save_all=True, append_images=rest)
    image = read_channels(tmp_path / "bands.tif", channels=13, white=10000)
    assert image.shape == (13, 6, 8)
    assert np.allclose(image.numpy(), (bands / 10000).clip(0, 1))


@pytest.mark.parametrize("shape", [(13, 6, 8), (6, 8, 13)])
def test_arrays_of_numpy(tmp_path, shape):
    bands = RNG.integers(0, 65536, shape, dtype=np.uint16)
    np.save(tmp_path / "bands.npy", bands)
    image = read_channels(tmp_path / "bands.npy", channels=13, root=tmp_path)
    assert image.shape == (13, 6, 8)
    first = bands if shape[0] == 13 else bands.transpose(2, 0, 1)
    assert np.allclose(image.numpy(), first / 65535)


def test_what_cannot_be_right_is_named(tmp_path):
    np.save(tmp_path / "four.npy", np.zeros((4, 6, 8), np.uint8))
    np.save(tmp_path / "long.npy", np.zeros((3, 6, 8), np.int64))
    np.save(tmp_path / "nan.npy", np.full((3, 6, 8), np.nan, np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.tif").write_bytes(b"II*\0 nothing")
    for name, channels, text in (
        ("four.npy", 13, "13 channels, but its shape is 4 x 6 x 8"),
        ("long.npy", 3, "they are int64"),
        ("nan.npy", 3, "holds NaN"),
        ("objects.npy", 1, "can be read"),
        ("missing.npy", 1, "none by this name"),
    ):
        with pytest.raises(DataError, match=text):
            read_channels(tmp_path / name, channels=channels)
    with pytest.raises(DataError, match="megapixels"):
        read_channels(tmp_path / "four.npy", channels=4, max_pixels=10)
    with pytest.raises(
        DataError, match="tifffile" if not importlib.util.find_spec("tifffile") else "broken.tif"
    ):
        read_channels(tmp_path / "broken.tif", channels=5)
