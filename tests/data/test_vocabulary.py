"""Vocabularies: what is kept, what comes back, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionkit.errors import DataError, InputError
from visionkit.text.vocabulary import Vocabulary

_CAPTIONS = ["A red apple left of a dog face.", "A dog face below a red apple!", "a tree"]


def test_frequent_words_come_first_and_rare_ones_are_unknown():
    vocabulary = Vocabulary.build(_CAPTIONS, min_count=2)
    assert vocabulary.words == ("<pad>", "<bos>", "<eos>", "<unk>", "a", "apple", "dog", "face", "red")
    assert vocabulary.encode("A tree, a dog") == [1, 4, 3, 4, 6, 2]
    assert vocabulary.encode(["a", "dog", "face"], max_length=2) == [1, 4, 6, 2]
    assert vocabulary.decode([1, 4, 6, 2, 5, 0]) == ["a", "dog"]
    assert "dog" in vocabulary
    assert "tree" not in vocabulary
    assert len(Vocabulary.build(_CAPTIONS, min_count=1, max_words=3)) == 7


@given(st.lists(st.text("abcdefg", min_size=1, max_size=4), min_size=1, unique=True))
def test_known_words_come_back(words):
    vocabulary = Vocabulary(words)
    assert vocabulary.decode(vocabulary.encode(words)) == words
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary


def test_files_come_back_and_damaged_ones_are_named(tmp_path):
    vocabulary = Vocabulary.build(["ein süßer Hund"], min_count=1)
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == vocabulary
    (tmp_path / "bad.json").write_text('{"schema": 9, "words": []}')
    with pytest.raises(
        DataError, match=r"bad\.json: Cannot read a vocabulary here: .*schema.*to be 1, but got 9"
    ):
        Vocabulary.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("[1")
    with pytest.raises(DataError, match=r"bad\.json: Cannot read a vocabulary"):
        Vocabulary.load(tmp_path / "bad.json")


def test_refusals_say_what_to_do():
    with pytest.raises(InputError, match=r"No word occurs 9 times .* Set a smaller"):
        Vocabulary.build(_CAPTIONS, min_count=9)
    with pytest.raises(InputError, match="'dog' is repeated"):
        Vocabulary(["dog", "cat", "dog"])
    for bad in ("", "a b", "<eos>"):
        with pytest.raises(InputError, match="text without spaces"):
            Vocabulary([bad])
    with pytest.raises(InputError, match=r"word id to be in 0 \.\. 4, but got 5"):
        Vocabulary(["a"]).decode([5])
    with pytest.raises(InputError, match="a dict with 'schema' and 'words'"):
        Vocabulary.from_dict([])


def test_what_a_vocabulary_leaves_out_is_counted():
    vocabulary = Vocabulary.build([*_CAPTIONS, "a <unk> dog <pad>"], min_count=2)
    assert "tree" not in vocabulary
    rare, long = vocabulary.notices(max_length=7)
    assert (rare.count, rare.total, rare.first) == (4, 19, "'below'")
    assert (long.count, long.total, long.first) == (1, 4, "one of 8 words")
    assert rare.max_fraction is long.max_fraction is None
    assert vocabulary.notices(max_length=8) == (rare,)
    assert Vocabulary(["a"]).notices(max_length=1) == ()


def test_a_mark_that_a_caption_spells_is_an_unknown_word():
    vocabulary = Vocabulary.build(["a <unk> dog <pad>"], min_count=1)
    assert vocabulary.encode("a <unk> dog <pad> <eos>") == [1, 4, 3, 5, 3, 3, 2]


def test_a_byte_order_mark_is_no_part_of_a_vocabulary(tmp_path):
    (tmp_path / "words.json").write_text('{"schema": 1, "words": ["a"]}', encoding="utf-8-sig")
    assert Vocabulary.load(tmp_path / "words.json") == Vocabulary(["a"])
