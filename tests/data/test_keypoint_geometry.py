"""How transforms of images move keypoints."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data import (
    Compose,
    CopyPaste,
    Keyed,
    affine,
    crop_resize,
    flip,
    keypoint_batch,
    keypoint_eval,
    keypoint_train,
)
from visionkit.data.transforms import geometry
from visionkit.data.transforms import keypoints as transforms
from visionkit.data.transforms.batch import batch_transform
from visionkit.data.transforms.detection import LargeScaleJitter
from visionkit.data.transforms.saved import describe_transform, transform_from
from visionkit.errors import DataError, InputError


def sample_of(points, size=(40, 60)):
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=rng)
    boxes = torch.tensor([[4.0, 4, 50, 36]])
    return {
        "image": image, "id": "a", "boxes": boxes, "labels": torch.tensor([0]), "size": size,
        "keypoints": torch.tensor([points], dtype=torch.float32), "keypoint_flip": torch.tensor([0, 2, 1]),
    }  # fmt: skip


POINT = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(0, 2))


@settings(max_examples=40)
@given(points=st.lists(POINT, min_size=3, max_size=3), draws=st.tuples(*[st.integers(1, 30)] * 4))
def test_geometry_moves_points_as_it_moves_pixels(points, draws):
    sample = {**sample_of(points), "boxes": torch.tensor([[0.0, 0, 60, 40]])}
    twice = flip(flip(sample))
    assert torch.equal(twice["keypoints"], sample["keypoints"])
    mirrored = flip(sample)["keypoints"][0]
    assert mirrored[1].tolist() == [60 - points[2][0], *points[2][1:]]
    left, top, width, height = draws[0] % 20, draws[1] % 10, 10 + draws[2], 4 + draws[3] % 26
    cut = crop_resize(sample, (top, left, height, width), (2 * height, 3 * width), min_visibility=0)
    matrix = torch.tensor([[3.0, 0, -3 * left], [0, 2, -2 * top]], dtype=torch.float64)
    mapped = affine(sample, matrix, (2 * height, 3 * width), min_visibility=0)
    for out in (cut, mapped):
        for (x, y, flag), moved in zip(points, out["keypoints"][0].tolist(), strict=True):
            assert moved[:2] == pytest.approx([3 * (x - left), 2 * (y - top)], abs=1e-3)
            inside = left <= x <= left + width and top <= y <= top + height
            assert moved[2] == (flag if inside else 0)
    assert torch.allclose(cut["boxes"], mapped["boxes"], atol=1e-3)


def test_affine_is_the_identity_and_a_quarter_turn():
    sample = sample_of([[10, 5, 2], [30, 20, 1], [59, 39, 2]])
    sample["mask"] = torch.arange(2400).view(40, 60) % 7
    sample["masks"] = (sample["mask"] > 3)[None].to(torch.uint8)
    same = affine(sample, torch.eye(2, 3, dtype=torch.float64), (40, 60))
    for name in ("image", "mask", "masks", "boxes", "keypoints"):
        assert torch.allclose(same[name].float(), sample[name].float(), atol=1e-4), name
    quarter = torch.tensor([[0.0, -1, 40], [1, 0, 0]], dtype=torch.float64)  # x' = 40 - y, y' = x
    turned = affine(sample, quarter, (60, 40))
    assert torch.equal(turned["image"], sample["image"].rot90(-1, (1, 2)))
    assert torch.equal(turned["mask"], sample["mask"].rot90(-1, (0, 1)))
    assert turned["keypoints"][0].tolist() == [[35, 10, 2], [20, 30, 1], [1, 59, 2]]
    assert turned["boxes"].tolist() == [[4, 4, 36, 50]]
    away = affine(sample, torch.tensor([[1.0, 0, 100], [0, 1, 0]], dtype=torch.float64), (40, 60))
    assert (away["image"] == 114).all()
    assert (away["mask"] == 255).all()
    assert away["keypoints"].shape[0] == 0


def test_crops_of_an_object_lead_back_to_its_image():
    points = [[10, 6, 2], [45, 20, 1], [30, 33, 2]]
    crop = keypoint_eval((48, 32))
    out = crop(sample_of(points), torch.Generator())
    assert out["image"].shape == (3, 48, 32)
    region, size = out["region"], torch.tensor([32.0, 48.0])
    back = out["keypoints"][0, :, :2] / size * (region[2:] - region[:2]) + region[:2]
    assert torch.allclose(back, torch.tensor(points)[:, :2].float(), atol=1e-3)
    assert out["truth"]["keypoints"][0].tolist() == points
    assert transform_from(describe_transform(crop)) == crop
    whole = keypoint_eval(32, around="image")(sample_of(points), torch.Generator())
    assert whole["region"].tolist() == [0, -10, 60, 50]
    plain = crop({"image": sample_of(points)["image"], "id": "b"}, torch.Generator())
    assert "keypoints" not in plain
    batch = keypoint_batch([out, out])
    assert batch["keypoints"].shape == (2, 3, 3)
    assert batch["regions"].shape == (2, 4)
    assert len(batch["truths"]) == 2
    assert keypoint_batch([]) == {"ids": []}
    two = {**sample_of(points), "keypoints": torch.zeros(2, 3, 3)}
    with pytest.raises(DataError, match=r"but got those of 2"):
        keypoint_batch([two])
    with pytest.raises(InputError, match=r"per_object"):
        crop({**two, "boxes": torch.zeros(2, 4)}, torch.Generator())


def test_only_the_surroundings_of_an_object_are_resized(monkeypatch):
    """Averages of a ramp are the ramp: each pixel shows its own place, whatever part was resized."""
    draw = torch.Generator().manual_seed(0)
    sample = sample_of([[150, 120, 2], [190, 150, 2], [230, 190, 2]], size=(300, 400))
    across = ((torch.arange(400) + 0.5 - 115) * 1.7).clamp(0, 255).expand(300, 400)
    down = ((torch.arange(300) + 0.5 - 85) * 1.7).clamp(0, 255)[:, None].expand(300, 400)
    sample["image"] = torch.stack((across, down, (across + down) / 2)).round().byte()
    sample["boxes"] = torch.tensor([[140.0, 110, 240, 200]])
    seen = []

    def crop_resize(given, box, size, **more):
        seen.append(box)
        return geometry.crop_resize(given, box, size, **more)

    monkeypatch.setattr(transforms, "crop_resize", crop_resize)
    out = keypoint_eval(32)(sample, draw)
    turned = keypoint_train(32, photometric=0)(sample, draw)
    assert len(seen) == 2
    assert all(height * width < 300 * 400 / 2 for _, _, height, width in seen)
    # The same crop of the whole image, resized as a whole.
    monkeypatch.setattr(transforms, "_surroundings", lambda region, ratio, size: (0, 0, size[1], size[0]))
    whole = keypoint_eval(32)(sample, draw)
    left, top, right, bottom = out["region"].tolist()
    middles = (torch.arange(32) + 0.5) / 32
    columns = ((left + (right - left) * middles - 115) * 1.7).expand(32, 32)
    rows = ((top + (bottom - top) * middles - 85) * 1.7)[:, None].expand(32, 32)
    shown = torch.stack((columns, rows, (columns + rows) / 2))
    for made in (out, whole):  # rounded to whole numbers before, between and after two resamplings
        assert (made["image"].float() - shown).abs().max() <= 1.5 + 1e-3
    assert torch.allclose(out["keypoints"], whole["keypoints"], atol=1e-3)
    assert (turned["keypoints"][..., 2] == 2).all()


def test_training_crops_turn_around_their_points():
    """A white pixel at each point is where the moved point says, after every turn, scale and mirror."""
    sample = sample_of([[20, 20, 2], [27, 12, 2], [36, 28, 2]])
    sample["image"] = torch.zeros_like(sample["image"])
    for channel, (x, y, _) in enumerate(sample["keypoints"][0].long().tolist()):
        sample["image"][channel, y - 2 : y + 2, x - 2 : x + 2] = 255
    transform = keypoint_train(96, photometric=0)
    walked = 0
    for seed in range(12):
        out = transform(sample, torch.Generator().manual_seed(seed))
        again = transform(sample, torch.Generator().manual_seed(seed))
        assert torch.equal(out["image"], again["image"])
        order = [0, 1, 2]
        if out["keypoints"][0, 1, 1] > out["keypoints"][0, 2, 1]:
            order = [0, 2, 1]  # mirrored: the points of the two sides changed their names
        for channel, (x, y, flag) in zip(order, out["keypoints"][0].tolist(), strict=True):
            weight = out["image"][channel].double()
            weight = torch.where((out["image"] == 114).all(0), 0.0, weight)
            rows, columns = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
            near = (rows - y).hypot(columns - x) < 16
            total = (weight * near).sum()
            assert flag == 2
            assert float((weight * near * columns).sum() / total) == pytest.approx(x, abs=0.6)
            assert float((weight * near * rows).sum() / total) == pytest.approx(y, abs=0.6)
            walked += 1
    assert walked == 36


def test_what_would_move_pixels_alone_is_refused():
    sample = sample_of([[10, 5, 2], [30, 20, 1], [59, 39, 2]])
    with pytest.raises(InputError, match="swap left and right"):
        Keyed(lambda image: image)(sample, torch.Generator())
    with pytest.raises(InputError, match="without keypoints"):
        batch_transform("flip")({"images": sample["image"][None], "keypoints": 0}, torch.Generator())
    with pytest.raises(InputError, match="keypoint_flip"):
        flip({name: value for name, value in sample.items() if name != "keypoint_flip"})
    jitter = LargeScaleJitter(64, scale=(1.0, 1.0))
    out = jitter(sample, torch.Generator().manual_seed(1))
    assert out["keypoints"][0, 1].tolist() == pytest.approx([32, 20 * 43 / 40, 1], abs=0.1)
    for values in ({"scale": 2.0}, {"degrees": 400}, {"flip": 3}, {"padding": 0}, {"around": "x"}):
        with pytest.raises(InputError):
            keypoint_train(32, **values)


def test_pasted_objects_bring_their_points_and_hide_those_below():
    below, above = sample_of([[10, 10, 2], [40, 20, 2], [41, 21, 1]]), sample_of([[38, 18, 2]] * 3)
    for sample, (top, left, side) in ((below, (4, 4, 30)), (above, (14, 34, 12))):
        sample["masks"] = torch.zeros(1, 40, 60, dtype=torch.uint8)
        sample["masks"][0, top : top + side, left : left + side] = 1
        sample["boxes"] = torch.tensor([[left, top, left + side, top + side]]).float()
    paste = CopyPaste([above], Compose(()), probability=1.0)
    pasted = 0
    for seed in range(8):
        out = paste(below, torch.Generator().manual_seed(seed))
        flags = out["keypoints"][:, :, 2].tolist()
        assert len(out["keypoints"]) == len(out["boxes"])
        if len(flags) == 2:
            assert flags == [[2, 1, 1], [2, 2, 2]]
            pasted += 1
    assert pasted > 0
    assert below["keypoints"][0, 1, 2] == 2, "the sample itself stays"
