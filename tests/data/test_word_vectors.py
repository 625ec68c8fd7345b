"""Word vectors in three formats, whole and damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visionkit.data.vocabulary import Vocabulary
from visionkit.data.word_vectors import read_word_vectors
from visionkit.errors import DataError, InputError

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
    assert vectors.found.tolist() == [False] * 4 + [True] * 3 + [False]
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
        ("g.txt", b"dog nan 2\n", r"record 1: Expected the vector to be finite numbers"),
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


def test_a_file_without_any_of_the_words_is_refused(tmp_path):
    (tmp_path / "g.txt").write_text("chien 1 2\n")
    with pytest.raises(InputError, match=r"to be at least one, but got 0\. Is it a file"):
        read_word_vectors(tmp_path / "g.txt", _VOCABULARY)
