"""COCO's average precision of poses equals pycocotools' to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import Params

from tests.metrics.poses import NAMES, random_poses, reference_scores
from visionkit.metrics import COCO_SIGMAS, KeypointAP, keypoint_sigmas


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 6),
    most=st.integers(0, 7),
    points=st.sampled_from([1, 3, 17]),
)
def test_poses_equal_the_reference(seed, images, most, points):
    predictions, targets = random_poses(seed, images=images, most=most, points=points)
    metric = KeypointAP(points, num_classes=2)
    order = np.random.default_rng(seed).permutation(images).tolist()
    for index in order:
        metric.update([predictions[index]], [targets[index]], [str(index)])
    scores = metric.compute_floats()
    expected = reference_scores(predictions, targets, classes=2, sigmas=keypoint_sigmas(points))
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name
    assert tuple(scores) == NAMES


def test_the_tolerances_are_the_references():
    assert pytest.approx(Params("keypoints").kpt_oks_sigmas.tolist(), abs=1e-12) == list(COCO_SIGMAS)
    assert keypoint_sigmas(17).tolist() == list(COCO_SIGMAS)
    assert keypoint_sigmas(4).tolist() == pytest.approx([float(np.mean(COCO_SIGMAS))] * 4)
    assert keypoint_sigmas(2, [0.1, 0.2]).tolist() == [0.1, 0.2]
