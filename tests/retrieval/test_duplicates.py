"""Near-duplicates: another compression, size or brightness is one, another photograph is none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from visionkit import cli
from visionkit.data import OpenOptions, open_dataset
from visionkit.errors import InputError
from visionkit.retrieval.duplicates import find_duplicates
from visionkit.retrieval.gallery import splits_items

CHANGES = {
    "compressed": lambda image: jpeg(image, 40),
    "smaller": lambda image: image.resize((40, 30), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def photograph(seed: int) -> Image.Image:
    """Smooth areas and edges, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 190, (5, 6, 3), np.uint8))
    return coarse.resize((80, 60), Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path):
    for split, seeds in (("train", range(12)), ("test", range(100, 106))):
        for seed in seeds:
            folder = tmp_path / "photos" / split / ("cat" if seed % 2 else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            photograph(seed).save(folder / f"{seed}.png")
    (tmp_path / "photos" / "val").mkdir()
    for seed in (200, 201):
        folder = tmp_path / "photos" / "val" / ("cat" if seed % 2 else "dog")
        folder.mkdir()
        photograph(seed).save(folder / f"{seed}.png")
    return tmp_path / "photos"


def report_of(data, **settings):
    return find_duplicates(splits_items(open_dataset(data, "classification", OpenOptions())), **settings)


def test_changed_copies_are_duplicates_and_others_are_not(data) -> None:
    clean = report_of(data)
    assert clean.counts == {"train": 12, "val": 2, "test": 6}
    assert len(clean.between) == len(clean.within) == 3
    assert not any([*clean.between.values(), *clean.within.values()])
    for number, (name, change) in enumerate(CHANGES.items()):
        change(photograph(number)).save(data / "test" / "cat" / f"{name}.png")
    photograph(5).save(data / "train" / "dog" / "copy.png")
    Image.new("RGB", (50, 50), "red").save(data / "train" / "dog" / "red.png")
    broken = data / "train" / "dog" / "broken.png"
    broken.write_bytes((data / "train" / "dog" / "copy.png").read_bytes()[:-200])
    report = report_of(data)
    leaked = report.between["train", "test"]
    pairs = {(pair.image.name.split("/")[-1], pair.other.name.split("/")[-1]) for pair in leaked}
    assert pairs == {(f"{name}.png", f"{number}.png") for number, name in enumerate(CHANGES)}
    assert not any(pair.same_content for pair in leaked)
    assert [pair.same_content for pair in report.within["train"]] == [True, True]
    assert report.flat == 1
    assert [name.split("/")[-1] for name, _ in report.unread] == ["broken.png"]
    assert "1 images could not be read and were not compared, the first:" in report.text()
    broken.unlink()
    assert "4 of 10 test images have one in train" in report.text()
    assert "... and" not in report.text()
    assert "\n    ... and 3 more pairs" in report.text(max_examples=1)
    within = report.text().split("train images have one within train")[1].split(" images ")[0]
    assert "2 of 13 train images have one within train" in report.text()
    assert within.count("is like") == 1  # two images, one pair
    assert not any(report_of(data, max_distance=1e-9).between.values())
    with pytest.raises(InputError, match="max_distance"):
        report_of(data, max_distance=2)


def test_check_names_and_shows_them(data, tmp_path, capsys) -> None:
    for alone in (["--out", "x.html"], ["--max_distance", "0.1"]):
        assert cli.main(["check", str(data), *alone]) == 2
        assert "Expected --duplicates with --out and --max_distance" in capsys.readouterr().err
    photograph(3).save(data / "test" / "cat" / "leak.png")
    page = tmp_path / "alike.html"
    assert cli.main(["check", str(data), "--duplicates", "--out", str(page)]) == 0
    text = capsys.readouterr().out
    assert "1 of 7 test images have one in train" in text
    assert "leak.png  is like" in text
    assert "the same content" in text
    assert page.read_text().count("<figure>") == 2
