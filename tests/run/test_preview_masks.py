"""Mask previews: what is said of an image, what is drawn; scores by class in the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.run.make_runs import make_run
from visionkit.compare.comparison import compare
from visionkit.compare.report.figures.class_scores import class_scores
from visionkit.compare.report.report import write_report
from visionkit.drawing.class_colors import class_colors, paint
from visionkit.drawing.panels import join_grid
from visionkit.run.previews.segmentation import MaskPreview
from visionkit.run.previews.to_pil import to_pil

CLASSES = ["sky", "road", "car"]


def _batch():
    truth = torch.zeros(2, 20, 30, dtype=torch.int64)
    truth[:, 10:] = 1
    truth[0, 12:16, 4:9] = 2
    truth[1] = 255
    return {
        "images": torch.full((2, 3, 20, 30), 90, dtype=torch.uint8),
        "masks": truth,
        "ids": ["a", "b"],
    }


def test_rows_say_what_is_there_and_how_well_it_was_found():
    batch, preview = _batch(), MaskPreview(CLASSES)
    guess = batch["masks"].clone().clamp(max=2)
    guess[0][guess[0] == 2] = 1
    first, second = preview.rows(None, batch, list(guess))
    assert first["truth"] == ["sky", "road", "car"]
    assert first["prediction"] == ["sky", "road"]
    # IoU: sky 1, road 280 / 300, car 0
    assert first["loss"] == pytest.approx(1 - (1 + 280 / 300) / 3)
    assert first["answer"] == "mIoU 0.64, 97% of the pixels"
    assert (second["loss"], second["answer"], second["truth"]) == (None, "nothing counts here", [])
    json.dumps([first, second])
    images = preview.images(batch, 0, first)
    one = to_pil(batch["images"][0], side=256)
    assert {image.size for image in images.values()} == {one.size}
    assert set(np.unique(np.asarray(images["truth_map"]))) == {0, 1, 2}
    ignored = preview.images(batch, 1, second)["truth_map"]
    assert set(np.unique(np.asarray(ignored))) == {255}
    panel = preview.panel(images, first)
    assert panel.width > 3 * one.width
    assert one.height + 40 < panel.height < 2 * one.height
    assert len(preview.training(batch, 2)) == 1


def test_colours_are_apart_and_ignored_pixels_grey():
    colours = np.array(class_colors(40), dtype=float)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(40)
    assert apart.min() > 12
    assert class_colors(3) == class_colors(21)[:3]
    plain = to_pil(torch.zeros(3, 2, 4, dtype=torch.uint8), side=4)
    mask = torch.tensor([[0, 1, 2, 255], [0, 1, 2, 9]])
    drawn = np.asarray(paint(plain, mask.numpy(), 3))
    assert (drawn[0, 3] == drawn[1, 3]).all()
    assert len({tuple(pixel) for pixel in drawn[0].tolist()}) == 4
    assert len(set(drawn[0, 3].tolist())) == 1


def test_grids_keep_wide_panels_whole():
    wide = to_pil(torch.zeros(3, 10, 40, dtype=torch.uint8), side=700)
    assert join_grid([wide] * 3).height > 3 * wide.height
    small = to_pil(torch.zeros(3, 10, 10, dtype=torch.uint8))
    assert join_grid([small] * 8).height < 2 * small.height


def test_scores_by_class_reach_the_report(tmp_path):
    runs = []
    for init, gain in (("pretrained", 0.2), ("scratch", 0.0)):
        for seed in (0, 1):
            scores = {f"test/iou/{name}": 0.3 + gain + 0.1 * seed for name in CLASSES[:2]}
            more = {"val/top1": 0.5, "val/iou/sky": 0.1} | scores
            runs.append(make_run(tmp_path, init, seed, classes=CLASSES, changes={"metrics": more}))
    comparison = compare(runs)
    found = class_scores(comparison)
    assert found is not None
    assert (found.label, found.split, found.seeds) == ("IoU", "test", 2)
    assert found.values["pretrained"] == pytest.approx({"sky": 0.55, "road": 0.55})
    assert found.values["scratch"] == pytest.approx({"sky": 0.35, "road": 0.35})
    html = write_report(comparison, tmp_path / "out").read_text()
    assert (tmp_path / "out" / "figures" / "iou.svg").is_file()
    assert "By class" in html
    assert "Confusion and recall" not in html
