"""JPEGs decoded at 1/2, 1/4 or 1/8 show the crop that they show in full; others are read as before."""

from __future__ import annotations

import importlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionkit.data import (
    DataModule,
    DrawCaptions,
    FolderData,
    PackSettings,
    RandomHorizontalFlip,
    classification_eval,
    classification_train,
    image_folder,
    image_table,
    open_pack,
    pack,
    stack_batch,
)
from visionkit.data.keyed_dataset import KeyedDataset
from visionkit.data.transforms.classification import CenterCrop, Compose, RandomResizedCrop, Resize
from visionkit.data.transforms.reduced import (
    GAP,
    DeferredImage,
    deferred_decoding,
    load_image,
    map_box,
    reduction_of,
    transformed,
)
from visionkit.data.transforms.saved import describe_transform, transform_from
from visionkit.errors import DataError, InputError
from visionkit.predict.read_ahead import read_ahead
from visionkit.predict.sources import source_items
from visionkit.rng import keyed_generator

HEIGHT, WIDTH = 743, 1001  # no multiples of 8: the last reduced row and column are not whole
PERIOD, SLOPE = 160, 2.0  # of a wave, in pixels, and levels a pixel
ORIENTATION = 0x0112


@pytest.fixture(params=["pillow", "fast"])
def decoder(request, monkeypatch):
    """Both decoders of JPEGs, the second where it is installed."""
    if request.param == "fast":
        pytest.importorskip("simplejpeg")
    else:
        module = importlib.import_module("visionkit.data.read_image")
        monkeypatch.setattr(module, "_fast_decoder", lambda: None)
    return request.param


def waves() -> Image.Image:
    """An image that becomes brighter and darker again along each row in red, and each column in green."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    wave = lambda at: np.abs(at % PERIOD - PERIOD / 2) * SLOPE  # noqa: E731
    pixels = np.stack([wave(columns), wave(rows), np.full(rows.shape, 90.0)], -1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def shift_of(reduced: torch.Tensor, full: torch.Tensor, crop: float, *, turned: bool = False) -> float:
    """How far the image lies off, in pixels of the whole one, by the slopes: a constant error is none."""
    worst = 0.0
    for channel, axis in ((0, 0), (1, 1)) if turned else ((0, 1), (1, 0)):
        one, other = reduced[channel].double(), full[channel].double()
        slope = torch.gradient(other, dim=axis)[0] / (crop / full.shape[-1])
        worst = max(worst, abs(float(((one - other) * slope).sum() / slope.square().sum())))
    return worst


def noise(side: int = 640) -> Image.Image:
    """An image with detail of some pixels."""
    small = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def both(file, geometry, key=0, **settings):
    """The sample by a geometry, in full and reduced."""
    return [
        transformed(
            lambda: {"image": load_image(str(file)), "id": "x"},
            geometry(**settings, reduced_jpegs=reduced),
            lambda: keyed_generator(0, 0, key),
        )["image"]
        for reduced in (False, True)
    ]


sides = st.integers(16, 5000)
fractions = st.floats(0, 1)


@given(sides, sides, st.integers(1, 8), st.sampled_from([1, 2, 4, 8]), st.tuples(*[fractions] * 4))
def test_a_box_is_mapped_to_the_pixels_of_the_file_that_show_it(height, width, orientation, reduction, at):
    high, wide = max(1, int(at[0] * height)), max(1, int(at[1] * width))
    box = (int(at[2] * (height - high)), int(at[3] * (width - wide)), high, wide)
    top, left, tall, broad = map_box(box, (height, width), orientation, reduction)
    # By the file: a pixel of it is at once in the reduced pixel of its number divided by the reduction.
    upward, leftward = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    for got, length, first, size, side, backward in (
        (top, tall, box[0], high, height, upward),
        (left, broad, box[1], wide, width, leftward),
    ):
        last = -(-side // reduction)  # reduced pixels of the side
        edges = (first, first + size)
        expected = [last - (side - edge) / reduction if backward else edge / reduction for edge in edges]
        assert [got, got + length] == pytest.approx(expected, abs=1e-9)
        assert got >= 0
        assert got + length <= last + 1e-9


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 512), st.integers(1, 512))
def test_the_reduction_is_the_largest_that_leaves_the_gap(high, wide, rows, columns):
    chosen = reduction_of((high, wide), (rows, columns))
    enough = [n for n in (1, 2, 4, 8) if high >= GAP * n * rows and wide >= GAP * n * columns]
    assert chosen == max(enough, default=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_same_crop_is_shown_for_each_orientation(tmp_path, decoder, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    waves().save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=exif)
    for side, reduction in ((160, 2), (80, 4), (40, 8)):
        assert reduction_of((HEIGHT, HEIGHT), (side, side)) == reduction
        full, reduced = both(tmp_path / "a.jpg", classification_eval, size=side)
        assert not torch.equal(full, reduced), "it was decoded in full"
        assert shift_of(reduced, full, HEIGHT, turned=orientation >= 5) < 0.1, side


def test_draws_and_crops_are_those_of_the_whole_image(tmp_path, decoder):
    waves().save(tmp_path / "a.jpg", quality=98, subsampling=0)
    for key in range(12):
        full, reduced = both(tmp_path / "a.jpg", classification_train, key, size=48)
        assert reduced.shape == (3, 48, 48)
        assert reduced.dtype == torch.uint8
        assert reduced.stride(0) == 1
        assert float((full.float() - reduced.float()).abs().mean()) < 1.5, "a mirror would differ by far more"
        assert shift_of(reduced, full, HEIGHT) < 0.2
    states = []
    for reduced in (False, True):
        rng = keyed_generator(3)
        transformed(
            lambda: {"image": load_image(str(tmp_path / "a.jpg"))},
            classification_train(48, reduced_jpegs=reduced),
            lambda rng=rng: rng,
        )
        states.append(rng.get_state())
    assert torch.equal(*states)


def saved_as(folder, kind: str):
    """The file of an image in one of the kinds that JPEGs come in."""
    image, file = noise(), folder / "a.jpg"
    if kind == "progressive":
        image.save(file, quality=92, progressive=True)
    elif kind == "mpo":  # of phones and stereo cameras: several JPEGs in one
        image.save(file, "MPO", quality=92, save_all=True, append_images=[image.resize((64, 64))])
    else:
        image.convert(kind).save(file, "JPEG", quality=92)
    return file


@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "progressive", "mpo"])
def test_every_kind_of_jpeg_is_reduced_to_nearly_the_same_pixels(tmp_path, decoder, kind):
    file = saved_as(tmp_path, kind)
    for key in range(4):
        full, reduced = both(file, classification_train, key, size=64)
        off = (full.float() - reduced.float()).abs()
        assert 0 < float(off.mean()) < (3 if kind == "CMYK" else 1.5)


def test_both_decoders_reduce_to_the_same_pixels(tmp_path, monkeypatch):
    pytest.importorskip("simplejpeg")
    module = importlib.import_module("visionkit.data.read_image")
    for kind in ("RGB", "L", "progressive"):
        file = saved_as(tmp_path, kind)
        fast = [both(file, classification_train, key, size=40)[1] for key in range(4)]
        with monkeypatch.context() as patch:
            patch.setattr(module, "_fast_decoder", lambda: None)
            slow = [both(file, classification_train, key, size=40)[1] for key in range(4)]
        assert all(map(torch.equal, fast, slow)), kind


def test_what_cannot_be_reduced_is_as_before(tmp_path, decoder):
    noise().save(tmp_path / "a.png")
    noise().save(tmp_path / "b.webp", lossless=True)
    noise(120).save(tmp_path / "small.jpg")
    noise(8).save(tmp_path / "tiny.jpg")
    for file in sorted(tmp_path.iterdir()):
        for key in range(3):
            assert torch.equal(*both(file, classification_train, key, size=64)), file.name
        assert torch.equal(*both(file, classification_eval, size=64)), file.name


def test_a_deferred_image_gives_any_number_of_crops(tmp_path):
    waves().save(tmp_path / "a.jpg", quality=98)
    with deferred_decoding():
        image = load_image(str(tmp_path / "a.jpg"))
    assert isinstance(image, DeferredImage)
    assert tuple(image.shape) == (3, HEIGHT, WIDTH)
    assert image.decode((0, 0, 400, 400), (50, 50))[0].shape == (3, -(-HEIGHT // 4), -(-WIDTH // 4))
    assert image.decode((0, 0, 400, 400), (300, 300))[0].shape == (3, HEIGHT, WIDTH)
    assert isinstance(load_image(str(tmp_path / "a.jpg")), torch.Tensor), "only within the context"
    with pytest.raises(DataError, match="begins as a JPEG"):
        DeferredImage(png_bytes(), name="a.png")


def png_bytes() -> bytes:
    stream = io.BytesIO()
    noise(16).save(stream, "PNG")
    return stream.getvalue()


def test_damage_is_named_as_without_the_setting(tmp_path):
    waves().save(tmp_path / "half.jpg")
    data = (tmp_path / "half.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "head.jpg").write_bytes(data[:40])
    waves().save(tmp_path / "v.jpg")
    (tmp_path / "t.csv").write_text("path,label,split\nhalf.jpg,x,train\nhead.jpg,x,train\nv.jpg,x,val\n")
    reader = image_table(tmp_path / "t.csv").train
    for index in range(2):
        told = []
        for reduced in (False, True):
            data = KeyedDataset(reader, classification_eval(64, reduced_jpegs=reduced), seed=0)
            with pytest.raises(DataError) as caught:
                data[index]
            told.append(str(caught.value))
        assert told[0] == told[1]
        assert f"line {index + 2}" in told[0]


def folder_of(root, count: int = 6):
    for split, number in (("train", count), ("val", 2)):
        for index in range(number):
            place = root / split / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            noise(400 + 8 * index).save(place / f"{index}.jpg", quality=90)
    return root


def module(splits, *, reduced: bool, workers: int = 0) -> DataModule:
    return DataModule(
        splits,
        batch_size=6,
        train_transform=classification_train(48, reduced_jpegs=reduced),
        eval_transform=classification_eval(48, reduced_jpegs=reduced),
        collate=stack_batch,
        workers=workers,
    )


def test_loaders_of_training_and_evaluation_reduce_for_any_number_of_workers(tmp_path):
    splits = image_folder(folder_of(tmp_path / "photos"))
    full, alone, helped = (
        module(splits, reduced=reduced, workers=workers)
        for reduced, workers in ((False, 0), (True, 0), (True, 2))
    )
    for name in ("train_dataloader", "val_dataloader"):
        one, two, three = (next(iter(getattr(data, name)())) for data in (full, alone, helped))
        assert one["ids"] == two["ids"] == three["ids"]
        assert torch.equal(two["images"], three["images"])
        off = (one["images"].float() - two["images"].float()).abs()
        assert 0 < float(off.mean()) < 1.5


def test_jpegs_of_packs_are_reduced_too(tmp_path):
    splits = image_folder(folder_of(tmp_path / "photos"))
    pack(splits, tmp_path / "pack", settings=PackSettings(form="jpeg", short=0))
    packed = open_pack(tmp_path / "pack")
    files, full, reduced = (
        next(iter(module(each, reduced=how).train_dataloader()))["images"]
        for each, how in ((splits, True), (packed, False), (packed, True))
    )
    assert not torch.equal(full, reduced)
    assert torch.equal(files, reduced), "the pack holds the same files"


def test_a_step_before_the_crop_that_takes_the_image_is_given_pixels(tmp_path):
    noise().save(tmp_path / "a.jpg")
    crop = CenterCrop(48, reduced_jpegs=True)
    assert not Compose((RandomHorizontalFlip(), crop)).reduced_jpegs
    assert Compose((crop, RandomHorizontalFlip())).reduced_jpegs
    assert Compose((DrawCaptions(), Resize((48, 48), reduced_jpegs=True))).reduced_jpegs
    assert not Compose((DrawCaptions(), RandomResizedCrop(48))).reduced_jpegs
    assert not Compose(()).reduced_jpegs
    read = lambda: {"image": load_image(str(tmp_path / "a.jpg")), "captions": ["a"]}  # noqa: E731
    mirrored = Compose((RandomHorizontalFlip(1.0), crop))
    plain = Compose((RandomHorizontalFlip(1.0), CenterCrop(48)))
    made = [transformed(read, each, lambda: keyed_generator(0))["image"] for each in (mirrored, plain)]
    assert torch.equal(*made)
    captioned = Compose((DrawCaptions(), crop))
    one = transformed(read, captioned, lambda: keyed_generator(0))["image"]
    assert torch.equal(one, transformed(read, crop, lambda: keyed_generator(0))["image"])
    assert not torch.equal(one, CenterCrop(48)(read(), keyed_generator(0))["image"])


def test_a_model_carries_it_and_predicts_on_what_it_is_evaluated_on(tmp_path):
    crop = CenterCrop(48, fraction=0.9, reduced_jpegs=True)
    for each in (crop, Resize((48, 32), reduced_jpegs=True), Resize(48, max_size=90)):
        assert transform_from(describe_transform(each)) == each
    # What was saved before it was there, and what is saved without it.
    assert describe_transform(CenterCrop(48)) == {"name": "CenterCrop", "size": 48, "fraction": 1.0}
    assert describe_transform(Resize(48)) == {"name": "Resize", "size": 48, "max_size": 0}
    noise().save(tmp_path / "a.jpg")
    noise().save(tmp_path / "b.png")
    names = [str(tmp_path / "a.jpg"), str(tmp_path / "b.png")]
    made = list(read_ahead(source_items(names), crop, count=2, threads=1, on_error=None))
    for name, prepared in zip(names, made, strict=True):
        read = lambda name=name: {"image": load_image(name)}  # noqa: E731
        evaluated = transformed(read, crop, lambda: keyed_generator(0))["image"]
        assert torch.equal(prepared.resized, evaluated)
        assert torch.equal(prepared.original, load_image(name)), "drawings are of the whole image"


def test_a_folder_of_whole_images_takes_it_and_boxes_do_not(tmp_path):
    root = str(folder_of(tmp_path / "photos"))
    settings = {"task": "classification", "image_size": 48, "batch_size": 6}
    full, reduced = (
        next(iter(FolderData(root, **settings, reduced_jpegs=how).train_dataloader()))["images"]
        for how in (False, True)
    )
    assert not torch.equal(full, reduced)
    with pytest.raises(InputError, match="classification or captioning, but got 'detection'"):
        FolderData("scenes", task="detection", reduced_jpegs=True)
