"""RetinaNet and FCOS over a small source: gradients, learning, matching, empty images, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.detectors import TinySource, random_targets
from visionkit.backbones.level import Level
from visionkit.errors import InputError
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.dense_head import DenseHead
from visionkit.nn.detection.fcos import FCOS
from visionkit.nn.detection.matching import anchor_sides, match_anchors, match_points
from visionkit.nn.detection.retinanet import RetinaNet
from visionkit.nn.fpn import FeaturePyramid, PyramidSource
from visionkit.task_config import FCOSConfig, RetinaNetConfig

SMALL = {"convs": 1, "topk_candidates": 50, "score_threshold": 0.0}
KINDS = {
    "retinanet": (RetinaNet, RetinaNetConfig(**SMALL, norm="group", anchor_scales=(2.0, 3.0))),
    "retinanet, plain": (RetinaNet, RetinaNetConfig(**SMALL, box_loss="giou")),
    "retinanet, smooth": (RetinaNet, RetinaNetConfig(**SMALL, box_loss="smooth_l1", p6_from="c5")),
    "fcos": (FCOS, FCOSConfig(**SMALL)),
}


def _detector(kind, **changes):
    torch.manual_seed(0)
    make, config = KINDS[kind]
    config = type(config)(**{**vars(config), **changes})
    c5 = getattr(config, "p6_from", "p5") == "c5"
    source = PyramidSource(TinySource(), channels=16, extra="p6p7" if c5 else "p6p7_of_p5")
    return make(source, num_classes=3, config=config)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_finite_gradient_with_or_without_objects(kind):
    for counts in ([3, 2], [0, 1], [0, 0]):
        model = _detector(kind)
        _, losses = model(torch.rand(2, 3, 64, 64), [(64, 64), (60, 50)],
                          random_targets(counts, size=64, classes=3))  # fmt: skip
        names = {"loss_class", "loss_box"} | ({"loss_centerness"} if kind == "fcos" else set())
        assert set(losses) == names
        sum(losses.values()).backward()
        gradients = [p.grad for p in model.parameters()]
        assert len(gradients) > 20
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert bool(losses["loss_box"] == 0) == (not sum(counts))


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_a_few_steps_find_the_object(kind):
    model = _detector(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    target = {"boxes": torch.tensor([[16.0, 16.0, 40.0, 40.0]]), "labels": torch.tensor([2])}
    image = torch.zeros(1, 3, 64, 64)
    image[..., 16:40, 16:40] = 1.0
    for _ in range(120):
        _, losses = model(image, [(64, 64)], [target])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.inference_mode():
        result, losses = model.eval()(image, [(64, 64)])
    assert losses == {}
    assert result[0]["labels"][0] == 2
    assert result[0]["scores"][0] > 0.5
    assert (result[0]["boxes"][0] - target["boxes"][0]).abs().max() < 6


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_detections_lie_in_the_image_best_first_and_none_is_empty_tensors(kind):
    sizes = [(64, 64), (40, 33)]
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        result, _ = _detector(kind, detections_per_img=20).eval()(images, sizes)
        none, _ = _detector(kind, score_threshold=1.0).eval()(images, sizes)
    for each, (height, width) in zip(result, sizes, strict=True):
        assert len(each["boxes"]) == 20
        assert each["boxes"].min() >= 0
        assert each["boxes"][:, 0::2].max() <= width
        assert each["boxes"][:, 1::2].max() <= height
        assert (each["scores"].diff() <= 0).all()
        assert set(each["labels"].tolist()) <= {0, 1, 2}
    assert {name: tuple(v.shape) for name, v in none[0].items()} == {
        "boxes": (0, 4), "scores": (0,), "labels": (0,),
    }  # fmt: skip


def test_what_is_padded_to_a_fixed_number_begins_with_the_same():
    model = _detector("fcos", topk_candidates=30).eval()
    outputs = model.head([torch.rand(2, 16, 2, 2)])[0]
    anchors = torch.rand(4, 4) * 9
    anchors[:, 2:] += 9
    plain, padded = model.top_boxes(outputs, anchors), model.top_boxes(outputs, anchors, padded=True)
    assert [tuple(part.shape) for part in padded] == [(2, 30, 4), (2, 30), (2, 30)]
    for one, other in zip(plain, padded, strict=True):
        assert torch.equal(one, other[:, :12])
    assert (padded[1][:, 12:] == 0).all()


def test_bfloat16_keeps_boxes_and_losses_in_32_bits():
    for kind in ("retinanet", "fcos"):
        model = _detector(kind)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, losses = model(torch.rand(1, 3, 64, 64), [(64, 64)], random_targets([2], size=64, classes=3))
            result, _ = model.eval()(torch.rand(1, 3, 64, 64), [(64, 64)])
        assert {value.dtype for value in losses.values()} == {torch.float32}
        assert result[0]["boxes"].dtype == torch.float32


def test_all_classes_begin_with_the_prior_probability():
    head = DenseHead(32, num_classes=5, anchors=9, norm="group", centerness=True)
    outputs = head([torch.randn(1, 32, 7, 7)])[0]
    assert outputs.logits.shape == (1, 49 * 9, 5)
    assert outputs.logits.sigmoid().mean().item() == pytest.approx(0.01, abs=0.002)
    assert head.class_logits.bias.tolist() == pytest.approx([-math.log(99)] * 45)
    norms = [module.num_groups for module in head.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert norms == [8] * 8  # of four channels


def _matched_by_hand(box, other, point, size, first, last, radius):
    """The rules of FCOS for one position and two boxes, one after another."""
    best, least = -1, math.inf
    for index, (x1, y1, x2, y2) in enumerate((box, other)):
        near = max(abs(point[0] - (x1 + x2) / 2), abs(point[1] - (y1 + y2) / 2)) < radius * size
        sides = (point[0] - x1, point[1] - y1, x2 - point[0], y2 - point[1])
        low, high = (0 if first else 4 * size), (math.inf if last else 8 * size)
        area = (x2 - x1) * (y2 - y1)
        if near and min(sides) > 0 and low < max(sides) < high and area < least:
            best, least = index, area
    return best


_BOX = st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(4, 120), st.integers(4, 120))


@settings(max_examples=100, deadline=None)
@given(_BOX, _BOX, st.sampled_from([0.5, 1.5, 3.0]))
def test_positions_learn_the_smallest_object_of_their_level_near_its_centre(one, two, radius):
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (one, two)]
    sizes, anchors, counts = (8, 16, 32), [], []
    for size in sizes:
        grid = [(x, y) for y in range(0, 128, size) for x in range(0, 128, size)]
        anchors += [(x - size / 2, y - size / 2, x + size / 2, y + size / 2) for x, y in grid]
        counts.append(len(grid))
    anchors = torch.tensor(anchors)
    match = match_points(torch.tensor(boxes, dtype=torch.float32), anchors, counts, radius=radius)
    level = [index for index, count in enumerate(counts) for _ in range(count)]
    expected = [
        _matched_by_hand(*boxes, ((a[0] + a[2]) / 2, (a[1] + a[3]) / 2), sizes[of], of == 0, of == 2, radius)
        for a, of in zip(anchors.tolist(), level, strict=True)
    ]
    assert match.tolist() == expected


def test_an_object_that_overlaps_little_has_its_best_anchors():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 12, 10], [50, 50, 60, 60], [0, 0, 20, 12]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [55, 55, 80, 80]])
    label, match = match_anchors(boxes, anchor_sides(anchors), foreground=0.8, background=0.4)
    assert label.tolist() == [1, 1, 1, -1]
    assert match.tolist() == [0, 0, 1, 0]


def test_the_coarser_levels_come_from_the_last_input_or_the_last_output():
    levels, maps = [Level(8, 8), Level(12, 16)], [torch.rand(1, 8, 10, 6), torch.rand(1, 12, 5, 3)]
    for extra, inputs in (("p6p7", 12), ("p6p7_of_p5", 4)):
        pyramid = FeaturePyramid(levels, channels=4, extra=extra)
        assert pyramid.p6.in_channels == inputs
        assert [level.reduction for level in pyramid.levels] == [8, 16, 32, 64]
        out = pyramid(maps)
        assert [tuple(m.shape[-2:]) for m in out] == [(10, 6), (5, 3), (3, 2), (2, 1)]
        assert torch.equal(out[2], pyramid.p6(maps[-1] if extra == "p6p7" else out[1]))
        assert torch.equal(out[3], pyramid.p7(out[2].relu()))


def test_sides_of_anchors_are_cut_to_integers_where_asked():
    levels, scales = [Level(4, 8)], (4 * 2 ** (1 / 3),)
    sides = [
        LevelAnchors(levels, scales=scales, ratios=(1.0,), round_down=cut).sizes[0][0]
        for cut in (True, False)
    ]
    assert sides == [40, pytest.approx(40.317, abs=1e-3)]


def test_refusals_say_what_to_do():
    source = PyramidSource(TinySource(), channels=8, extra="p6p7")
    for make in (RetinaNet, FCOS):
        with pytest.raises(InputError, match=r"equal channels, but got \[8, 12, 16\]. Put a pyramid"):
            make(TinySource(), num_classes=3)
        with pytest.raises(InputError, match="num_classes to be at least 1, but got 0"):
            make(source, num_classes=0)
        with pytest.raises(InputError, match="Expected targets in training"):
            make(source, num_classes=1)(torch.rand(1, 3, 32, 32), [(32, 32)])
    with pytest.raises(InputError, match=r"Unknown box loss 'iou'\. Did you mean 'giou'"):
        RetinaNet(source, num_classes=1, config=RetinaNetConfig(box_loss="iou"))
    with pytest.raises(InputError, match=r"Unknown norm of the head 'grup'\. Did you mean 'group'"):
        FCOS(source, num_classes=1, config=FCOSConfig(norm="grup"))
