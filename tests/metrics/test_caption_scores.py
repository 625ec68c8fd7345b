"""Caption scores: what they say of captions that are easy to judge, and what they refuse."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionkit.errors import InputError
from visionkit.metrics.captioning import caption_scores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.rouge import common_subsequence

_REFERENCES = [
    [s.split() for s in ("a red apple left of a dog face", "there is a dog face right of a red apple")],
    [["a", "green", "tree", "above", "a", "small", "car"]],
    [["two", "cats", "on", "a", "mat"]],
]
_words = st.lists(st.sampled_from("abcd"), max_size=70)


def test_the_references_themselves_score_full_marks():
    scores = caption_scores([several[0] for several in _REFERENCES], _REFERENCES)
    assert list(scores) == ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "cider_d"]
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"):
        assert scores[name] == pytest.approx(1.0, abs=1e-6)
    assert 6 < scores["cider"] < 10  # the first image's other reference differs
    single = CiderD.from_references([several[:1] for several in _REFERENCES])
    assert single([s[0] for s in _REFERENCES], [s[:1] for s in _REFERENCES]) == pytest.approx([10, 10, 10])


def test_a_worse_caption_scores_less_on_every_score():
    best = [several[0] for several in _REFERENCES]
    worse = [["a", "dog"], *best[1:]]
    worst = [["zebra"], *best[1:]]
    high, middle, low = (caption_scores(c, _REFERENCES) for c in (best, worse, worst))
    for name in high:
        assert high[name] > middle[name] > low[name]


def test_plain_cider_neither_clips_nor_penalises_length():
    frequency = DocumentFrequency.count(_REFERENCES)
    doubled = [_REFERENCES[1][0] * 2]
    clipped = CiderD(frequency)(doubled, [_REFERENCES[1]])[0]
    unclipped = CiderD(frequency, clip=False, sigma=None)(doubled, [_REFERENCES[1]])[0]
    assert unclipped > 9
    assert clipped < 0.6 * unclipped
    # Seven words longer, sigma 6: the penalty alone is exp(-49/72).
    no_penalty = CiderD(frequency, sigma=None)(doubled, [_REFERENCES[1]])[0]
    assert clipped == pytest.approx(no_penalty * math.exp(-49 / 72))


def test_frequencies_survive_json():
    frequency = DocumentFrequency.count(_REFERENCES)
    again = DocumentFrequency.from_dict(json.loads(json.dumps(frequency.to_dict())))
    assert again == frequency
    assert frequency.counts[("a",)] == 3
    assert frequency.counts[("red", "apple")] == 1
    with pytest.raises(InputError, match="schema of document frequencies to be 1, but got 7"):
        DocumentFrequency.from_dict({"schema": 7})


@given(_words, _words)
def test_the_common_subsequence_is_that_of_the_plain_table(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(a, b) == common_subsequence(b, a) == table[-1][-1]


@given(st.lists(st.tuples(_words, st.lists(_words, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_scores_stay_in_their_ranges(pairs):
    candidates, references = [c for c, _ in pairs], [r for _, r in pairs]
    scores = caption_scores(candidates, references)
    for name, value in scores.items():
        assert 0 <= value <= (10 if name.startswith("cider") else 1) + 1e-6


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match=r"references to be as many as candidates \(1\), but got 2"):
        caption_scores([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(InputError, match="at least one caption to score"):
        caption_scores([], [])
    with pytest.raises(InputError, match="image 1 to have at least one reference"):
        caption_scores([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(InputError, match=r"image 0 to be lists of tokens.*visionkit\.text\.tokenize"):
        caption_scores(["a dog"], [[["a"]]])
    with pytest.raises(InputError, match="image 0 to be lists of tokens"):
        caption_scores([["a"]], [["a dog"]])
