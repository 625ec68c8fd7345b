"""Caption files as people have them: read as meant, left out with a count, or refused with the reason."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from visionkit.data.formats.captions.reader import caption_data, captions_of, check_captions
from visionkit.data.formats.captions.records import caption_format, is_captions
from visionkit.data.formats.dataset_report import check_dataset
from visionkit.data.formats.options import OpenOptions
from visionkit.errors import DataError


def images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (4, 3), (number % 255, 0, 0)).save(folder / name)


def many(root, count=12, *, lines=None):
    """Make `count` images with a caption each; `lines` replace those of the first images."""
    images(root / "Images", *(f"p{i}.jpg" for i in range(count)))
    written = ["image,caption", *(f"p{i}.jpg,a dog {i}" for i in range(count))]
    for place, line in (lines or {}).items():
        written[place + 1] = line
    (root / "captions.txt").write_text("\n".join(written) + "\n", encoding="utf-8")
    return root


def every(root, **options):
    """Return the captions by image."""
    splits = caption_data(root, **options)
    table = splits.train.reader
    while not hasattr(table, "table"):
        table = table.reader
    return {record.image: record.captions for record in table.table.records}


def notices(root, **options):
    return {notice.what: notice for notice in caption_data(root, **options).notices}


def test_images_that_no_list_names_are_in_no_split(tmp_path):
    many(tmp_path)
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("".join(f"p{i}.jpg\n" for i in range(6)))
    (tmp_path / "Flickr_8k.devImages.txt").write_text("p6.jpg\np7.jpg\n")
    splits = caption_data(tmp_path)
    assert [len(splits.train), len(splits.val), splits.test] == [6, 2, None]
    (notice,) = splits.notices
    assert (notice.count, notice.total, notice.max_fraction) == (4, 12, None)
    assert "no list" in notice.what
    (tmp_path / "Flickr_8k.trainImages.txt").unlink()
    with pytest.raises(DataError, match="Add the list of the training images"):
        caption_data(tmp_path)
    assert check_captions(tmp_path)


def test_the_captions_are_taken_and_not_their_base_forms(tmp_path):
    images(tmp_path, *(f"{i}.jpg" for i in range(4)))
    for kind, verb in (("", "runs"), (".lemma", "run")):
        lines = [f"{i}.jpg#0\ta dog {verb}" for i in range(4)]
        (tmp_path / f"Flickr8k{kind}.token.txt").write_text("\n".join(lines))
    splits = caption_data(tmp_path)
    assert splits.facts["captions"].endswith("Flickr8k.token.txt")
    assert captions_of(splits.train)[0] == ("a dog runs",)
    assert "Flickr8k.lemma.token.txt" in splits.notices[0].first


def test_a_byte_order_mark_is_no_part_of_a_caption_file(tmp_path):
    many(tmp_path / "lines")
    for name in ("captions.txt", "train.txt", "val.txt"):
        path = tmp_path / "lines" / name
        text = path.read_text() if name == "captions.txt" else f"p{len(name)}.jpg\n"
        path.write_text(text, encoding="utf-16" if name == "val.txt" else "utf-8-sig")
    splits = caption_data(tmp_path / "lines", max_dropped=0)
    assert (len(splits.train), len(splits.val)) == (1, 1)
    images(tmp_path / "k", "a.jpg", "b.jpg")
    items = [
        {"filename": f, "split": s, "sentences": [{"raw": "a b"}]}
        for f, s in (("a.jpg", "train"), ("b.jpg", "valid"))
    ]
    (tmp_path / "k" / "dataset.json").write_text(json.dumps({"images": items}), encoding="utf-8-sig")
    assert len(caption_data(tmp_path / "k").val) == 1
    assert check_captions(tmp_path / "k") == []


@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("captions.txt", "", "{},{},a dog runs ."),
        ("results.csv", "image_name| comment_number| comment", "{}| {}| a dog runs ."),
        ("results.csv", "", "{}| {}| a dog runs ."),
        ("results.csv", '"image_name","comment_number","comment"', '{},{},"a dog runs ."'),
        ("captions.csv", "image,caption", "{},a dog runs ."),
        ("mine.csv", '"image","caption"', '"{}","a dog runs ."'),
        ("captions.csv", "image_name;comment", "{};a dog runs ."),
        ("captions.txt", "image\tcaption", "{}\ta dog runs ."),
        ("captions.txt", "", "Images/{},a dog runs ."),
        ("captions.txt", "", "Images\\{},a dog runs ."),
        ("captions.csv", "caption,split,file_name", '"a dog runs .",train,{}'),
        ("results_20130124.token", "", "{}#{}\ta dog runs ."),
        ("metadata.csv", "file_name,text", "Images/{},a dog runs ."),
        ("metadata.jsonl", "", '{{"file_name": "Images/{}", "caption": ["a dog runs ."]}}'),
    ],
)  # fmt: skip
def test_tables_of_every_layout_are_read(tmp_path, name, header, line):
    images(tmp_path / "Images", *(f"{i}.jpg" for i in range(4)))
    lines = [
        line.format(f"{i}.jpg", k) for i in range(4) for k in (range(2) if line.count("{}") == 2 else [0])
    ]
    (tmp_path / name).write_text("\n".join([header] * bool(header) + lines) + "\n")
    captions = every(tmp_path)
    assert len(captions) == 4
    assert {text for several in captions.values() for text in several} == {"a dog runs ."}
    assert caption_data(tmp_path).notices == ()
    assert check_captions(tmp_path) == []


def test_a_caption_goes_over_lines_only_in_quotes(tmp_path):
    odd = {
        0: 'p0.jpg,"a dog,\nand a\n""cat"""',
        1: "p1.jpg,a dog\u2028with a\x85ball\x0band, a\tcat",
        2: 'p2.jpg,"an open mark',
        3: 'p3.jpg,"STOP" says a sign',
        4: "p4.jpg,a\tdog",
    }
    captions = every(many(tmp_path, lines=odd))
    assert [captions[f"p{i}.jpg"][0] for i in range(5)] == [
        'a dog, and a "cat"', "a dog with a ball and, a cat", "an open mark", "STOP says a sign", "a dog"
    ]  # fmt: skip
    assert len(captions) == 12
    assert check_captions(tmp_path) == []


def test_a_hash_is_part_of_a_name_but_in_token_files(tmp_path):
    images(tmp_path / "a", "img#1.jpg", "img#2.jpg", "x.jpg")
    (tmp_path / "a" / "captions.txt").write_text(
        "img#1.jpg,a dog\nimg#1.jpg,one dog\nimg#2.jpg,a cat\nx.jpg,a cow\n"
    )
    assert every(tmp_path / "a")["img#1.jpg"] == ("a dog", "one dog")
    images(tmp_path / "b", "img#1.jpg", "x.jpg")
    (tmp_path / "b" / "my.token.txt").write_text("img#1.jpg#0\ta dog\nimg#1.jpg#1\tone dog\nx.jpg#0\ta cow\n")
    assert every(tmp_path / "b")["img#1.jpg"] == ("a dog", "one dog")


def test_what_is_left_out_is_counted_and_refused_above_a_share(tmp_path):
    lines = {
        0: "gone.jpg,a dog",
        1: "p1.jpg,",
        2: "no caption here",
        3: "p3.jpg," + "a dog " * 40_000,
        4: "p4.jpg,😀 !",
    }
    root = many(tmp_path, 60, lines=lines)
    found = notices(root)
    assert {what.split(" left")[0]: (notice.count, notice.total) for what, notice in found.items()} == {
        "images that are missing": (1, 58), "images without captions": (2, 58),
        "captions that are empty or no text": (1, 60), "lines that are no image and caption": (1, 60),
        "captions that are far too long": (1, 60), "captions without a word": (1, 60),
    }  # fmt: skip
    assert "captions.txt, record line 5" in found["captions that are far too long left out"].first
    assert check_captions(root) == []
    with pytest.raises(DataError, match=r"at most 1\.0% .*raise the limit|at most 1\.0%"):
        caption_data(root, max_dropped=0.01)
    strict = check_captions(root, max_dropped=0)
    assert {"gone.jpg", "line 3", "line 4", "line 5", "line 6"} <= {fault.record for fault in strict}


def test_only_lists_of_images_are_taken_for_splits(tmp_path):
    many(tmp_path)
    (tmp_path / "latest.txt").write_text("v3\n")
    (tmp_path / "train_log.txt").write_text("epoch 1\nepoch 2\n")
    (tmp_path / "captions_train.txt").write_text("p0.jpg,a dog\n")
    splits = caption_data(tmp_path)
    assert len(splits.train) + len(splits.val) == 12
    (notice,) = splits.notices
    assert (notice.count, notice.max_fraction) == (2, None)
    (tmp_path / "trainImages.txt").write_text("Images/p0.jpg\np1\n./p2.jpg\n")
    (tmp_path / "VALID.txt").write_text("p3.jpg#0\n")
    splits = caption_data(tmp_path)
    assert (len(splits.train), len(splits.val)) == (3, 1)
    (tmp_path / "test.txt").write_text("q1.jpg\nq2.jpg\n")
    assert "images that have captions" in str(check_captions(tmp_path)[0])


def test_json_that_is_of_something_else_is_no_captions(tmp_path):
    for name, content in (
        ("dataset-metadata.json", {"title": "cats and dogs"}),
        ("dataset.json", {"labels": {"0": "background"}, "training": [{"image": "a.nii", "label": "b.nii"}]}),
        (
            "instances.json",
            {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"bbox": [1, 2, 3, 4]}]},
        ),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    assert not is_captions(tmp_path)
    (tmp_path / "labels.csv").write_text("image,label,text\na.jpg,cat,a cat\n")  # classes, also described
    assert not is_captions(tmp_path)
    for name in ("a.jpg", "a.txt"):
        (tmp_path / name).write_text("0 0.5 0.5 0.1 0.1\n")  # YOLO's boxes
    assert not is_captions(tmp_path)


def test_karpathys_tokens_and_splits_of_other_names(tmp_path):
    images(tmp_path / "Images", "a.jpg", "b.jpg", "c.jpg")
    splits = {"a.jpg": "TRAIN", "b.jpg": "valid", "c.jpg": "restval"}
    items = [{"filename": f, "split": s, "sentences": [{"tokens": ["a", "dog"]}]} for f, s in splits.items()]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": items}))
    read = caption_data(tmp_path)
    assert (len(read.train), len(read.val)) == (2, 1)
    assert captions_of(read.train) == [("a dog",), ("a dog",)]


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_cocos_captions_by_another_name_with_folders_in_the_names(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    for split in ("train", "valid"):
        images(tmp_path / split, *(f"{i}.jpg" for i in range(3)))
        listed = [{"id": i, "file_name": f"{split}{'/' if i else chr(92)}{i}.jpg"} for i in range(3)]
        notes = [{"id": i, "image_id": str(i), "caption": f"a dog {i}"} for i in range(3)]
        path = tmp_path / folder / f"{split}_text.json"
        path.write_text(json.dumps({"images": listed, "annotations": notes}))
    read = caption_data(tmp_path)
    assert (len(read.train), len(read.val)) == (3, 3)
    assert read.notices == ()
    assert check_captions(tmp_path) == []


def test_a_text_file_for_each_image(tmp_path):
    for split in ("train", "val"):
        images(tmp_path / split / "images", *(f"{i}.png" for i in range(12)))
        (tmp_path / split / "captions").mkdir()
        for i in range(12):
            (tmp_path / split / "captions" / f"{i}.txt").write_text(f"a dog {i}\n\none dog\n")
    (tmp_path / "val" / "captions" / "3.txt").unlink()
    read = caption_data(tmp_path)
    assert read.facts["format"] == "text"
    assert (len(read.train), len(read.val)) == (12, 11)
    assert captions_of(read.train)[2] == ("a dog 10", "one dog")
    assert [(notice.what.split()[0], notice.count, notice.total) for notice in read.notices] == [
        ("images", 1, 24)
    ]
    images(tmp_path / "flat", "a.jpg", "b.jpg")
    for name in "ab":
        (tmp_path / "flat" / f"{name}.txt").write_text("a dog")
    assert caption_format(tmp_path / "flat") == ("text", tmp_path / "flat")


def test_marks_in_captions_are_taken_off_or_named(tmp_path):
    lines = {
        0: "p0.jpg,<start> a dog <end> <pad> <pad>", 1: "p1.jpg,startseq a dog endseq",
        2: "p2.jpg,<s>a dog</s>",
        3: "p3.jpg,a <unk> dog", 4: "p4.jpg,a dog at the start of an end",
    }  # fmt: skip
    root = many(tmp_path, lines=lines)
    captions = every(root)
    assert [captions[f"p{i}.jpg"][0] for i in range(5)] == [*["a dog"] * 3, "a <unk> dog", lines[4][7:]]
    found = list(caption_data(root).notices)
    assert [(notice.count, notice.max_fraction) for notice in found] == [(3, None), (1, None)]
    assert "captions.txt, record line 5" in found[1].first


def test_sentences_without_spaces_are_named(tmp_path):
    lines = {
        0: "p0.jpg,一只棕色的狗在草地上奔跑",
        1: "p1.jpg,一只 狗 在 草地 上",
        2: "p2.jpg,สุนัขตัวหนึ่งกำลังวิ่งอยู่บนสนามหญ้า",
    }
    (notice,) = caption_data(many(tmp_path, lines=lines)).notices
    assert (notice.count, notice.total) == (2, 12)
    assert "put spaces between the words" in notice.first


def test_lists_and_captions_that_contradict_themselves_are_refused(tmp_path):
    many(tmp_path)
    (tmp_path / "train.txt").write_text("p0.jpg\np1.jpg\n")
    (tmp_path / "test.txt").write_text("p0.jpg\n")
    with pytest.raises(DataError, match="in one split, but test has it too"):
        caption_data(tmp_path)
    with pytest.raises(DataError, match="folder of the images"):
        caption_data(tmp_path, images=tmp_path / "nowhere")


def test_the_limit_given_is_the_limit_of_every_notice_and_of_check(tmp_path):
    root = many(tmp_path / "lines", lines={0: "gone.jpg,a dog", 1: "lost.jpg,a dog"})
    (report,) = check_dataset(root, OpenOptions(max_dropped=0.5))
    assert (report.errors, [notice.count for notice in report.notices]) == ((), [2])
    (report,) = check_dataset(root, OpenOptions(max_dropped=0.01))
    assert {"gone.jpg", "lost.jpg"} <= {error.record for error in report.errors}
    rows = [
        {"file_name": f"{split}/{i}.jpg", "text": "a dog"} for split in ("train", "other") for i in range(3)
    ]
    for split in ("train", "other"):
        images(tmp_path / "rows" / split, *(f"{i}.jpg" for i in range(3)))
    (tmp_path / "rows/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="beside the splits ignored: 3 of 6"):
        caption_data(tmp_path / "rows", max_dropped=0)
    assert len(caption_data(tmp_path / "rows", max_dropped=0.5).train) == 2
