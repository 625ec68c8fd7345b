"""Faulty COCO files: each kind named by record and field; a file of real size is affordable."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.coco_faults import FAULTS, HARMLESS, NAN, annotation, of, write_large
from tests.data.coco_folder import document, write
from visionkit import cli
from visionkit.data.formats.coco.boxes import check_coco, coco
from visionkit.data.formats.coco.json_stream import stream_records
from visionkit.data.formats.coco.reader import CocoReader
from visionkit.data.formats.coco.segmentations import OutlineBuilder, run_lengths
from visionkit.data.formats.coco.validate import scan_coco
from visionkit.errors import DataError


@pytest.mark.check("R16", "kinds of faulty COCO files: named with record and field, and nothing else is")
def test_every_kind_of_fault_is_named_with_its_record_and_nothing_else_is(tmp_path, figure):
    assert len(FAULTS) >= 57
    named = 0
    root = tmp_path / "data"
    write(root, document())
    os.mkfifo(root / "images/pipe.png")
    (root / "images/note.png").write_text("only text")
    Image.new("RGB", (50, 30)).save(tmp_path / "outside.png")
    (root / "images/link.png").symlink_to(tmp_path / "outside.png")
    assert check_coco(root) == (4, [])
    for name, (change, record, field, words) in FAULTS.items():
        content = document()
        made = change(content)
        path = write(root, made if isinstance(made, str) else content)
        _, faults = check_coco(root)
        text = "\n".join(map(str, faults))
        # A record that is left out may leave others without it; the first fault is the one that was made.
        assert faults, name
        first = faults[0]
        assert re.search(record, first.record or ""), (name, text)
        assert first.field == field, (name, text)
        assert re.search(words, str(first)), (name, text)
        assert first.path == str(path), name
        follows = "no image with id|none with id|annotations lack it|at least one category|boxes would be off"
        assert all(re.search(follows, str(fault)) for fault in faults[1:]), (name, text)
        if name in HARMLESS:
            assert len(CocoReader(path, root / "images")) == 3, name
        else:
            with pytest.raises(DataError):  # noqa: PT012 (each of the reader, and of its samples, may refuse)
                reader = CocoReader(path, root / "images", masks=True, bad_boxes="raise")
                for index in range(len(reader)):
                    reader[index]
        named += 1
    figure(named, len(FAULTS))


def test_the_command_names_all_faults_at_once(tmp_path, capsys):
    content = document()
    annotation(bbox=[1, 2, NAN, 4])(content)
    of("images", 2, file_name="../../etc/passwd")(content)
    of("categories", 0, name="")(content)
    path = write(tmp_path, content)
    assert cli.main(["check", str(path)]) == 2
    said = capsys.readouterr().out
    assert "COCO objects, not readable: " in said
    for words in ("(id 5), field 'bbox'", "(id 27), field 'file_name'", "(id 90), field 'name'"):
        assert words in said, said
    write(tmp_path, document())
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "no errors" in capsys.readouterr().out


def test_bad_boxes_are_left_out_and_kept_as_faults(tmp_path):
    content = document()
    annotation(bbox=[9, 9, 0, 5])(content)
    path = write(tmp_path, content)
    reader = CocoReader(path, tmp_path / "images", max_dropped=0.25)
    assert reader[0]["labels"].tolist() == [2, 0]
    assert [fault.record for fault in reader.dropped] == ["annotations[1] (id 5)"]
    (notice,) = coco(tmp_path, max_dropped=0.25).notices
    assert (notice.what, notice.count, notice.total) == ("train: boxes that cannot be right, left out", 1, 4)
    assert "annotations[1] (id 5), field 'bbox'" in notice.first
    with pytest.raises(DataError, match=r"at most 10\.0% .*: 1 of 4 \(25\.00%\)"):
        coco(tmp_path)
    with pytest.raises(DataError, match="with an area"):
        coco(tmp_path, bad_boxes="raise")
    annotation(segmentation=[])(content)
    path = write(tmp_path, content)
    with pytest.raises(DataError, match="Read the file without masks"):
        CocoReader(path, tmp_path / "images", masks=True)
    content = document()
    for each in content["annotations"]:
        each["image_id"] = 1
    with pytest.raises(DataError, match="lists all 4 errors"):
        CocoReader(write(tmp_path, content), tmp_path / "images", bad_boxes="raise")
    with pytest.raises(DataError, match=r"left out: 4 of 4 .* no image with id 1"):
        CocoReader(write(tmp_path, content), tmp_path / "images")


def test_a_flood_of_one_fault_is_counted(tmp_path):
    content = document()
    first = content["annotations"][1]
    content["annotations"] = [{**first, "id": i + 1, "bbox": [1, 2, -3, 4]} for i in range(1500)]
    _, faults = check_coco(write(tmp_path, content))
    assert len(faults) == 1001
    assert "And 500 more" in str(faults[-1])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150)
@given(value=values, section=st.sampled_from(["images", "annotations", "categories"]), data=st.data())
def test_no_value_of_any_field_gets_through_or_breaks_the_check(tmp_path_factory, value, section, data):
    """Whatever stands in a field: the file is read whole, or the fault is named."""
    content = document()
    index = data.draw(st.integers(0, len(content[section]) - 1))
    field = data.draw(st.sampled_from(sorted(content[section][index])))
    content[section][index][field] = value
    root = tmp_path_factory.mktemp("fuzz")
    (root / "train.json").write_text(json.dumps(content))
    try:
        reader = CocoReader(root / "train.json", root, masks=True)
    except DataError as fault:
        named = fault.path
    else:
        named = None
    if named is not None:
        assert named == str(root / "train.json")
        return
    assert np.isfinite(reader._boxes).all()
    assert (reader._boxes[:, 2:] > reader._boxes[:, :2]).all()
    assert reader._outlines is not None
    for index, size in enumerate(reader.sizes):
        for row in reader._row[reader._first[index] : reader._last[index]].tolist():
            assert reader._outlines.mask(row, size).shape == size


def _outline(draw: random.Random) -> object:
    """Draw run lengths or polygons: sound ones, and ones that lie about sizes, counts and numbers."""
    sides = [draw.choice((0, 1, 3, 40, 60, 10**6, -1, 2**31, 2**62)), draw.choice((0, 4, 40, 60, 10**9))]
    kind = draw.randrange(4)
    if kind == 0:
        return {
            "size": sides,
            "counts": "".join(chr(draw.randint(40, 120)) for _ in range(draw.randint(0, 40))),
        }
    if kind == 1:
        numbers = (0, 1, 12, 2400, -5, 2**31, 2**63, 1.5)
        return {"size": sides, "counts": [draw.choice(numbers) for _ in range(draw.randint(0, 9))]}
    edges = (0.0, -3.5, 60.0, 1e9, -1e300, NAN, float("inf"))
    return [
        [
            draw.uniform(-9, 70) if draw.random() < 0.9 else draw.choice(edges)
            for _ in range(draw.randint(0, 14))
        ]
        for _ in range(draw.randint(0, 3))
    ]


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.faults)])
@pytest.mark.check("R18", "drawn run lengths and polygons: a mask of the image's size, or named; no signal")
def test_drawn_outlines_are_masks_or_are_refused(figure, count):
    masks, refused = 0, 0
    for seed in range(count):
        outline, size = _outline(random.Random(seed)), (40, 60)
        builder = OutlineBuilder()
        try:
            builder.add(outline)
        except ValueError:
            refused += 1
            continue
        outlines = builder.done()
        if list(outlines.errors(np.array([size]))):
            refused += 1
            continue
        made = outlines.mask(0, size)
        assert made.shape == size
        assert set(np.unique(made)) <= {0, 1}
        masks += 1
    assert masks > count // 20
    assert refused > count // 20
    figure(masks + refused, count, f"{masks} masks, {refused} refused")


@settings(max_examples=300)
@given(text=st.text(alphabet=st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_compressed_run_lengths_are_refused_or_are_counts(text):
    try:
        counts = run_lengths(text)
    except ValueError:
        return
    assert min(counts, default=0) >= 0
    builder = OutlineBuilder()
    with contextlib.suppress(ValueError):
        builder.add({"size": [3, 4], "counts": text})
        assert builder.done().mask(0, (3, 4)).shape == (3, 4)


def test_a_file_is_read_by_pieces(tmp_path, monkeypatch):
    """Windows of a few characters, so that every token is cut somewhere, give the same records."""
    path = write(tmp_path, json.dumps(document(), indent=3))
    whole = list(stream_records(path, ("images", "annotations", "categories")))
    assert len(whole) == 3 + 4 + 3
    for step in (1, 2, 3, 7, 64):
        monkeypatch.setattr("visionkit.data.formats.coco.json_stream._STEP", step)
        assert list(stream_records(path, ("images", "annotations", "categories"))) == whole


def test_memory_grows_with_the_arrays_and_not_with_the_json(tmp_path):
    write_large(tmp_path / "large.json", 7000)
    size = (tmp_path / "large.json").stat().st_size
    tracemalloc.start()
    scan = scan_coco(tmp_path / "large.json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scan.records.ids) == 7000
    assert scan.errors == scan.dropped == scan.notes == ()
    # Parsed as one document it takes about 4 times the file.
    assert peak < 2 * size, (peak, size)


@pytest.mark.faults
@pytest.mark.check("R17", "a COCO file of 860,000 annotations with masks: read in 1.5 GB")
def test_a_file_of_860_000_annotations_takes_seconds(tmp_path, figure):
    write_large(tmp_path / "large.json", 860_000)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    scan = scan_coco(tmp_path / "large.json", masks=True)
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert scan.errors == scan.dropped == scan.notes == ()
    assert grown < 1500
    megabytes = (tmp_path / "large.json").stat().st_size / 1e6
    figure(
        len(scan.records.ids),
        860_000,
        f"{megabytes:.0f} MB, {seconds:.1f} s of CPU, {grown:.0f} MB of memory",
    )
