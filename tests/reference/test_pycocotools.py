"""COCO's average precision equals pycocotools' to 1e-9, for boxes and for masks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.detections import NAMES, random_evaluation, reference_scores, shuffled, to_coco
from visionkit.metrics.detection import CocoAP

CATEGORIES = [3, 17, 18, 90]


def _compare(seed: int, *, masks: bool, images: int, most: int) -> int:
    evaluation = random_evaluation(seed, masks=masks, images=images, most=most)
    truth, results = to_coco(*evaluation, categories=CATEGORIES, masks=masks)
    metric = CocoAP([str(c) for c in CATEGORIES], masks=masks)
    metric.update(*shuffled(evaluation, seed))
    scores = metric.result()
    want, per_class = reference_scores(truth, results, "segm" if masks else "bbox")
    prefix = "mask_" if masks else ""
    for name in NAMES:
        assert scores.values[prefix + name] == pytest.approx(want[name], abs=1e-9), name
    got = [(scores.mask_per_class if masks else scores.per_class)[str(c)] for c in CATEGORIES]
    assert got == pytest.approx(per_class, abs=1e-9)
    return len(want)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**31), images=st.integers(1, 8), most=st.integers(0, 12))
def test_boxes_equal_the_reference(seed, images, most):
    assert _compare(seed, masks=False, images=images, most=most) == 12


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), images=st.integers(1, 4), most=st.integers(0, 6))
def test_masks_equal_the_reference(seed, images, most):
    assert _compare(seed, masks=True, images=images, most=most) == 12


def test_more_than_a_hundred_detections_and_crowded_images():
    assert _compare(1, masks=False, images=6, most=150) == 12
