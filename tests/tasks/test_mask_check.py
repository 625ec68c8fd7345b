"""Two classes and masks of 0 and 255: refused, unless it may be padding or the foreground was seen."""

from __future__ import annotations

import pytest
import torch

from visionkit.errors import DataError
from visionkit.tasks import Segmenter
from visionkit.tasks.segmentation.mask_check import MaskCheck

IMAGE = torch.zeros(3, 32, 32)


def mask(lesion=255, rows=0):
    made = torch.zeros(32, 32, dtype=torch.int64)
    made[10:20, 5:9] = lesion
    made[:rows] = 255
    return made


def test_a_binary_segmenter_refuses_masks_of_0_and_255():
    task = Segmenter("timm/test_resnet", init="scratch", num_classes=1, channels=8)
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"0 and 255 only, and none 1.*\(mask == 255\)\.long"):
        task.training_step((images, mask().expand(8, 32, 32)), 0)


def test_sound_masks_are_never_refused():
    check = MaskCheck(2, 255)
    for _ in range(20):
        check(IMAGE, mask(lesion=0, rows=7), "padded crops of background")
    for _ in range(7):
        check(IMAGE, mask(), "no foreground in these")
    check(IMAGE, mask(lesion=1), "here it is")
    for _ in range(20):
        check(IMAGE, mask(), "more")
    for classes, ignore in ((3, 255), (2, 254)):
        other = MaskCheck(classes, ignore)
        for _ in range(20):
            other(IMAGE, mask(lesion=ignore), "x")
