"""Detectors under plain DDP: images without objects on one process, on both, or nowhere."""

from __future__ import annotations

import pytest


@pytest.mark.dist
def test_empty_images_anywhere_leave_no_parameter_unused_and_gradients_equal(zygote, tmp_path):
    reports = zygote.ranks("tests.tasks.detector_worker:main", 2, str(tmp_path))
    for report in reports:
        assert report["threads"] == []  # one that is left over may abort the process while Python ends
        for kind, least in (("boxes", 6), ("masks", 6), ("keypoints", 2)):
            assert report[kind]["empty"] >= least
            assert report[kind]["without"] == 0
            assert report[kind]["unequal"] == 0
        # The update of a keypoint detector is that of one process: sums in another order, in 32 bits.
        assert len(report["keypoints"]["apart"]) == 8
        assert max(report["keypoints"]["apart"]) < 1e-5
