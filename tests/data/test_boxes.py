"""Every fault of a detection target is named, and what is right passes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data.boxes import box_error, check_boxes

IMAGE = torch.zeros(3, 40, 60, dtype=torch.uint8)
GOOD = [5.0, 5.0, 20.0, 30.0]
NAN, INF = float("nan"), float("inf")


def _target(boxes=(GOOD,), labels=(0,), **more):
    return {
        "boxes": torch.tensor(boxes).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    } | more


def _without(name: str):
    target = _target()
    del target[name]
    return target


# The cases of the detectors' battery, with the field and the words that name each.
CASES = {
    "swapped x": (IMAGE, _target([[20.0, 5.0, 5.0, 30.0]]), "boxes", "corners are swapped"),
    "swapped y": (IMAGE, _target([[5.0, 30.0, 20.0, 5.0]]), "boxes", "corners are swapped"),
    "no width": (IMAGE, _target([[5.0, 5.0, 5.0, 30.0]]), "boxes", "with an area"),
    "nan": (IMAGE, _target([[NAN, 5.0, 20.0, 30.0]]), "boxes", "finite coordinates"),
    "infinite": (IMAGE, _target([[5.0, 5.0, INF, 30.0]]), "boxes", "finite coordinates"),
    "huge": (IMAGE, _target([[5.0, 5.0, 1e38, 30.0]]), "boxes", "reaches beyond"),
    "outside": (IMAGE, _target([[100.0, 5.0, 120.0, 30.0]]), "boxes", "lies outside"),
    "partly negative": (IMAGE, _target([[-9.0, 5.0, 20.0, 30.0]]), "boxes", "reaches beyond"),
    "shares": (IMAGE, _target([[0.1, 0.1, 0.5, 0.9]]), "boxes", "fractions of the image"),
    "flat": (IMAGE, {"boxes": torch.zeros(0), "labels": torch.zeros(0).long()}, "boxes", r"\(N, 4\)"),
    "a list": (IMAGE, {"boxes": [GOOD], "labels": torch.zeros(1).long()}, "boxes", "but got list"),
    "integers": (IMAGE, _target() | {"boxes": torch.tensor([[1, 1, 9, 9]])}, "boxes", r"boxes\.float"),
    "background": (IMAGE, _target(labels=(-1,)), "labels", r"0\.\.2, but got -1"),
    "ignored": (IMAGE, _target(labels=(-100,)), "labels", "but got -100"),
    "too large": (IMAGE, _target(labels=(3,)), "labels", r"0\.\.2, but got 3\. Labels begin at 0"),
    "more labels": (IMAGE, _target(labels=(0, 1)), "labels", "for each of 1 boxes, but got 2"),
    "fewer labels": (IMAGE, _target([GOOD, GOOD]), "labels", "for each of 2 boxes, but got 1"),
    "no boxes": (IMAGE, _without("boxes"), "boxes", "but got NoneType"),
    "no labels": (IMAGE, _without("labels"), "labels", "but got NoneType"),
    "float labels": (IMAGE, _target() | {"labels": torch.zeros(1)}, "labels", r"labels\.long"),
    "int32 labels": (IMAGE, _target() | {"labels": torch.zeros(1).int()}, "labels", "torch.int32"),
    "no target": (IMAGE, None, "target", "but got NoneType"),
    "grey": (IMAGE[:1], _target(), "image", r"\(1, 40, 60\). Make it RGB"),
    "rgba": (torch.zeros(4, 40, 60), _target(), "image", "Make it RGB"),
    "16 bits": (IMAGE.to(torch.uint16), _target(), "image", "but got torch.uint16"),
    "0 to 255": (torch.full((3, 40, 60), 200.0), _target(), "image", "divide by 255"),
    "nan pixels": (torch.full((3, 40, 60), NAN), _target(), "image", "finite pixels"),
    "no pixels": (torch.zeros(3, 0, 60), _target([], []), "image", "with pixels"),
    "crowd of 2": (IMAGE, _target(iscrowd=torch.tensor([2])), "iscrowd", "of 0 and 1"),
    "mask size": (IMAGE, _target(masks=torch.zeros(1, 4, 4)), "masks", r"\(1, 40, 60\), but got \(1, 4, 4\)"),
}


def test_there_are_at_least_as_many_cases_as_the_battery():
    assert len(CASES) >= 24


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fault_is_named_with_image_field_and_object(case):
    image, target, field, words = case
    faults = check_boxes(image, target, num_classes=3, name="cell_17")
    assert faults
    assert {fault.path for fault in faults} == {"cell_17"}
    found = [fault for fault in faults if fault.field == field]
    assert found
    with pytest.raises(type(found[0]), match=words):
        raise found[0]


def test_what_is_right_passes():
    right = [
        (IMAGE, _target()),
        (torch.rand(3, 40, 60), _target()),
        (IMAGE, _target([], [])),
        (IMAGE, _target([[-0.5, 0.0, 60.5, 40.0]])),
        (IMAGE, _target([GOOD, GOOD], (0, 2), iscrowd=torch.tensor([0, 1]))),
    ]
    assert [check_boxes(image, target, num_classes=3) for image, target in right] == [[]] * 5
    assert check_boxes(IMAGE, _target(masks=torch.zeros(1, 40, 60)), num_classes=3, masks=True) == []
    missing = check_boxes(IMAGE, _target(), num_classes=3, masks=True)
    assert [fault.field for fault in missing] == ["masks"]


def test_all_faults_of_an_image_come_at_once():
    target = _target([[NAN, 0.0, 1.0, 1.0], GOOD, [9.0, 9.0, 3.0, 20.0]], (7, 0, -1))
    faults = check_boxes(IMAGE, target, num_classes=3, name="p")
    assert [(fault.field, fault.record) for fault in faults] == [
        ("boxes", 0),
        ("boxes", 2),
        ("labels", 0),
        ("labels", 2),
    ]


@settings(max_examples=200)
@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_a_box_without_a_fault_is_finite_upright_and_inside(box):
    if box_error(box, (40, 60)) is None:
        x1, y1, x2, y2 = box
        assert -1 <= x1 < x2 <= 61
        assert -1 <= y1 < y2 <= 41


EDGES = [-INF, -1.5, -1.0, -0.0, 0.0, 5.0, 39.0, 40.0, 40.5, 41.0, 41.5, 60.0, 61.0, 61.5, INF, NAN]


def test_every_box_on_an_edge_is_judged_by_each_condition_in_turn():
    judged = 0
    for x1, x2, y in itertools.product(EDGES, EDGES, ((0.0, 40.0), (-1.0, 41.0), (-1.5, 3.0), (NAN, 3.0))):
        for size in (None, (40, 60)):
            right = all(map(math.isfinite, (x1, x2, *y))) and x1 < x2 and y[0] < y[1]
            if size:
                right = right and 0 < x2 <= 61 and -1 <= x1 < 60 and y[0] >= -1
            assert (box_error([x1, y[0], x2, y[1]], size) is None) == right
            judged += 1
    assert judged == len(EDGES) ** 2 * 8
