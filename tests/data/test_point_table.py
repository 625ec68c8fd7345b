"""Tables of points: what is left out of one is counted among what it is a part of, and named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from visionkit.data import check_dataset, read_image
from visionkit.data.formats.keypoints import table as table_module
from visionkit.data.formats.keypoints.per_object import per_object
from visionkit.data.formats.keypoints.table import point_table
from visionkit.errors import DataError

HEADER = "path,split,nose_x,nose_y,tail_x,tail_y,x1,y1,x2,y2"
GOOD = "{}.png,{},5,9,20,12,2,3,30,20"


def write(root, lines, header=HEADER):
    for index in range(8):
        pixels = np.full((30, 40, 3), 20 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{index}.png")
    rows = [GOOD.format(index, "val" if index > 5 else "train") for index in range(8)]
    (root / "points.csv").write_text("\n".join([header, *rows, *lines]))
    return root / "points.csv"


def notice_of(splits, words):
    (found,) = [notice for notice in splits.notices if words in notice.what]
    return found


def test_rows_are_counted_among_rows_and_points_among_points(tmp_path):
    file = write(tmp_path, ["0.png,train,x,9,20,12,2,3,30,20", "1.png,train,5,9,500,12,2,3,30,20"])
    splits = point_table(file, max_dropped=0.11)
    rows, points = notice_of(splits, "rows that cannot"), notice_of(splits, "outside their images")
    assert (rows.count, rows.total) == (1, 10)
    assert (points.count, points.total) == (1, 18)
    for limit, what in ((0.06, "rows that cannot be right"), (0.05, "rows that cannot be right")):
        with pytest.raises(DataError, match=what):
            point_table(file, max_dropped=limit)
    only_points = write(tmp_path, ["1.png,train,5,9,500,12,2,3,30,20"])
    with pytest.raises(DataError, match="keypoints outside their images"):
        point_table(only_points, max_dropped=0.05)


def test_rows_without_a_point_are_counted_among_rows(tmp_path):
    splits = point_table(write(tmp_path, ["0.png,train,,,,,2,3,30,20"] * 3))
    empty = notice_of(splits, "without a labelled point")
    assert (empty.count, empty.total) == (3, 11)


def test_a_flag_below_zero_is_counted_among_the_points_that_have_a_flag(tmp_path):
    header = "path,split,nose_x,nose_y,nose_v,tail_x,tail_y"
    write(tmp_path, [], header)
    rows = [f"{index}.png,{'val' if index > 5 else 'train'},5,9,{-(index < 2)},20,12" for index in range(8)]
    (tmp_path / "points.csv").write_text("\n".join([header, *rows]))
    flags = notice_of(point_table(tmp_path / "points.csv", max_dropped=0.2), "flag")
    assert (flags.count, flags.total) == (2, 10)  # 8 tails and 2 noses: a flag of 0 is no label


def test_a_side_without_its_partner_is_named(tmp_path):
    header = "path,split,left_ear_x,left_ear_y,tail_x,tail_y,x1,y1,x2,y2"
    splits = point_table(write(tmp_path, [], header))
    sided = notice_of(splits, "images cannot be mirrored")
    assert (sided.count, sided.total) == (1, 0)
    assert "the other side of 'left_ear'" in sided.first
    assert "keypoint_flip" not in splits.train[0]
    assert "images cannot be mirrored" in check_dataset(tmp_path / "points.csv")[0].text()
    assert not [each for each in point_table(write(tmp_path, [])).notices if "mirrored" in each.what]


def test_an_image_that_cannot_be_read_is_named_and_hides_no_other(tmp_path, monkeypatch):
    file = write(tmp_path, [GOOD.format(0, "train"), GOOD.format(2, "train")])
    (tmp_path / "2.png").write_bytes(b"no image")
    opened = []
    read_size = table_module.read_size
    monkeypatch.setattr(
        table_module, "read_size", lambda name, **k: (opened.append(name), read_size(name, **k))[1]
    )
    splits = point_table(file)
    assert sorted(opened) == sorted(set(opened))  # once an image, however many rows it has
    assert len(splits.train) == 6
    with pytest.raises(DataError, match=r"2\.png"):
        splits.train[2]
    assert splits.train[0]["boxes"].shape == (2, 4)
    assert "2.png" in check_dataset(file)[0].text()


def test_boxes_are_cut_or_left_out_and_said_so(tmp_path):
    file = write(
        tmp_path,
        [
            "0.png,train,5,9,20,12,-9,3,30,20",  # over the border
            "1.png,train,5,9,20,12,50,3,70,20",  # outside
            "2.png,train,5,9,20,12,30,3,2,20",  # corners swapped
        ],
    )
    splits = point_table(file, max_dropped=0.2)
    cut = notice_of(splits, "over the border")
    assert (cut.count, cut.total) == (1, 11)
    assert notice_of(splits, "boxes that cannot be right").count == 1
    assert notice_of(splits, "rows that cannot be right").count == 1
    sample = splits.train[0]
    assert sample["boxes"].tolist() == [[2, 3, 30, 20], [0, 3, 30, 20]]
    assert sample["truth"]["boxes"].tolist() == [[2, 3, 30, 20], [-9, 3, 30, 20]]
    assert len(splits.train[1]["boxes"]) == 1
    text = check_dataset(file)[0].text()
    assert "lies outside" in text


def test_a_row_without_a_point_that_can_be_right_has_no_box_made_up(tmp_path):
    header = "path,split,nose_x,nose_y,tail_x,tail_y"
    file = write(tmp_path, [], header)
    lines = [header, *(f"{index}.png,{'val' if index > 5 else 'train'},5,9,20,12" for index in range(8))]
    lines += ["0.png,train,900,900,,", "1.png,train,40,30,40,30"]
    file.write_text("\n".join(lines))
    splits = point_table(file, max_dropped=0.2)
    gone = notice_of(splits, "no point can be right")
    assert (gone.count, gone.total) == (1, 10)
    assert splits.train[0]["boxes"].tolist() == [[5, 9, 20, 12]]
    assert splits.train[1]["boxes"].tolist() == [
        [5, 9, 20, 12],
        [39, 29, 40, 30],
    ]  # in the corner of the image
    single = per_object(splits).train
    assert len(single) == 7
    assert not any("truth" in single[index] for index in range(7))


def test_columns_of_a_part_of_a_box_are_named(tmp_path):
    header = "path,split,nose_x,nose_y,tail_x,tail_y,x1,Y1,width,height"
    splits = point_table(write(tmp_path, [], header))
    notice = notice_of(splits, "columns of a box")
    assert (notice.count, notice.total) == (2, 0)
    assert notice.first.endswith("points.csv: x1, Y1")
    assert splits.train[0]["boxes"].tolist() == [[5, 9, 20, 12]]  # around the points


def test_columns_of_one_axis_are_named(tmp_path):
    header = "path,split,nose_x,nose_y,tail_x,back_v"
    write(tmp_path, [], header)
    rows = [f"{index}.png,{'val' if index > 5 else 'train'},5,9,20,2" for index in range(8)]
    (tmp_path / "points.csv").write_text("\n".join([header, *rows]))
    splits = point_table(tmp_path / "points.csv")
    notice = notice_of(splits, "without its x or its y")
    assert notice.count == 2
    assert "tail_x of 'tail'" in notice.first
    assert read_image("0.png", root=tmp_path).shape == (3, 30, 40)
