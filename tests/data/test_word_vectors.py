"""Word vectors in three formats, whole and damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pytest
import torch

from visionkit.errors import DataError, InputError
from visionkit.text.vocabulary import Vocabulary
from visionkit.text.word_vectors import check_word_vectors, read_word_vectors

_WORDS = {
    "dog": [1.0, 2.0, -3.5],
    "Paris": [0.5, 0.25, 4.0],
    "of sorts": [9.0, 9.0, 9.0],
    "café": [7.0, 0.0, 1.0],
}
_VOCABULARY = Vocabulary(["dog", "paris", "café", "zebra"])


def _write(path, kind):
    if kind == "binary":
        body = b"".join(
            word.encode() + b" " + np.array(v, dtype="<f4").tobytes() + b"\n"
            for word, v in _WORDS.items()
            if " " not in word
        )
        path.write_bytes(f"{len(_WORDS) - 1} 3\n".encode() + body)
        return
    lines = [f"{word} {' '.join(map(str, v))}" for word, v in _WORDS.items()]
    if kind == "word2vec":
        lines.insert(0, f"{len(_WORDS)} 3")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(("kind", "name"), [("glove", "g.txt"), ("word2vec", "w.txt"), ("binary", "w.bin")])
def test_every_format_gives_the_same_table(tmp_path, kind, name):
    _write(tmp_path / name, kind)
    vectors = read_word_vectors(tmp_path / name, _VOCABULARY)
    assert vectors.table.shape == (8, 3)
    assert vectors.table[4:7].tolist() == [_WORDS["dog"], _WORDS["Paris"], _WORDS["café"]]
    assert vectors.matched.tolist() == [False] * 4 + [True] * 3 + [False]
    assert vectors.coverage == 0.75
    assert vectors.missing == ("zebra",)
    assert vectors.table[0].tolist() == [0, 0, 0]
    assert vectors.table[7].abs().sum() > 0
    assert torch.equal(vectors.table, read_word_vectors(tmp_path / name, _VOCABULARY).table)


def test_the_word_itself_goes_before_its_capitalised_form(tmp_path):
    (tmp_path / "g.txt").write_text("Dog 1 1\ndog 2 2\nDOG 3 3\n")
    assert read_word_vectors(tmp_path / "g.txt", Vocabulary(["dog"])).table[4].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("g.txt", b"dog 1 2\ncat 1 x\n", r"g\.txt, record 2: Expected numbers after the word"),
        ("g.txt", b"dog 1 2\ncat 1\n", r"record 2: Expected (the vector|numbers)"),
        ("g.txt", b"dog nan 2\n", r"record 1: Expected the vector to be 2 finite numbers"),
        ("g.txt", b"dog 1\ncat\n", r"record 2: .* a word alone"),
        (
            "w.bin",
            b"2 2\ndog " + b"\0" * 8 + b"cat \0",
            r"record 2: .*to be 8, but got 1\. Is the file cut short",
        ),
        ("w.bin", b"3 2\ndog " + b"\0" * 8, r"record 2: Expected 3 words, but word 2 has no end"),
        ("w.bin", b"1 99999999\n", r"width of the vectors to be in 1 \.\. 10000"),
    ],
)
def test_damage_is_named(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_word_vectors(tmp_path / name, Vocabulary(["dog"]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.bin", b"2 4\ndog 1 2 3 4\ncat 5 6 7 8\n"),
        ("w.vec", b"2 4\r\ndog 1 2 3 4 \r\ncat 5 6 7 8 \r\n"),
        ("g.txt", b"\xef\xbb\xbfdog 1 2 3 4\ncat 5 6 7 8\n"),
        ("tabs.txt", b"dog\t1\t2\t3\t4\ncat\t5\t6\t7\t8\n"),
        ("one.txt", b"dog\t1 2 3 4\ncat\t5 6 7 8\n"),
        ("double.txt", b"dog  1 2  3 4\ncat  5 6  7 8\n"),
        ("spaced.txt", b"at name@x 9 9 9 9\n dog 1 2 3 4\ncat 5 6 7 8\n 1 1 1 1\n"),
        ("number.txt", b"7 9 9 9 9\ndog 1 2 3 4\ncat 5 6 7 8\n"),
    ],
)
@pytest.mark.parametrize("pack", ["", "gz", "bz2", "xz", "zip"])
def test_text_is_told_by_its_content_and_read_from_archives(tmp_path, name, content, pack):
    path = tmp_path / f"{name}{pack}"
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)
    else:
        packed = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[pack](content)
        path.write_bytes(packed)
    check_word_vectors(path)
    vectors = read_word_vectors(path, Vocabulary(["dog", "cat", "zebra"]))
    assert vectors.table[4:6].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    (notice,) = vectors.notices()
    assert (notice.count, notice.total, notice.first, notice.max_fraction) == (1, 3, "'zebra'", None)


def test_what_is_no_file_of_vectors_is_refused_with_the_reason(tmp_path):
    cases = {
        "wiki.bin": (b"\xba\x16\x4f\x2f" + b"\0" * 60, "fastText's own model"),
        "m.model": (b"\x80\x04\x95" + b"\0" * 60, "save_word2vec_format"),
        "a.npy": (b"\x93NUMPY\x01", "NumPy array"),
        "u.txt": ("dog 1 2".encode("utf-16"), "UTF-16"),
        "cut.gz": (gzip.compress(b"dog 1 2\n" * 9)[:-12], "readable file"),
        "empty.txt": (b"", "empty"),
    }
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("glove.50d.txt", "a 1")
        archive.writestr("glove.100d.txt", "a 1")
    for name, (content, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    reasons = {name: reason for name, (_, reason) in cases.items()}
    reasons |= {"two.zip": "Unpack it", "nope.txt": "none by this name", ".": "a folder"}
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason):
            check_word_vectors(tmp_path / name)
    assert len(reasons) == 9


def test_a_file_without_any_of_the_words_is_refused(tmp_path):
    (tmp_path / "g.txt").write_text("chien 1 2\n")
    with pytest.raises(InputError, match=r"to be at least one, but got 0\. Is it a file"):
        read_word_vectors(tmp_path / "g.txt", _VOCABULARY)
