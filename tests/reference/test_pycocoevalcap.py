"""Caption scores against pycocoevalcap's own scorers, on the same tokens."""

from __future__ import annotations

import random

import pytest

from visionkit.metrics.bleu import bleu_scores
from visionkit.metrics.captioning import caption_scores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.rouge import rouge_l
from visionkit.text.tokenize import tokenize

bleu_module = pytest.importorskip("pycocoevalcap.bleu.bleu")
cider_module = pytest.importorskip("pycocoevalcap.cider.cider")
cider_scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
rouge_module = pytest.importorskip("pycocoevalcap.rouge.rouge")

_WORDS = [f"w{i}" for i in range(60)]


def _sentence(rng: random.Random, length: int) -> list[str]:
    # Squared, so that some words are common and runs of words repeat.
    return [_WORDS[int(rng.random() ** 2 * len(_WORDS))] for _ in range(length)]


def _corpus(rng: random.Random, images: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    candidates, references = [], []
    for _ in range(images):
        several = [_sentence(rng, rng.randint(4, 14)) for _ in range(rng.randint(1, 6))]
        kind = rng.random()
        if kind < 0.3:  # close to a reference
            candidate = [w if rng.random() < 0.8 else rng.choice(_WORDS) for w in rng.choice(several)]
        elif kind < 0.4:
            candidate = list(several[0])
        elif kind < 0.45:
            candidate = []
        elif kind < 0.5:
            candidate = _sentence(rng, 1)
        elif kind < 0.53:
            candidate = _sentence(rng, 150)
        else:
            candidate = _sentence(rng, rng.randint(2, 20))
        if rng.random() < 0.04:
            several[rng.randrange(len(several))] = []
        if rng.random() < 0.02:
            several[rng.randrange(len(several))] = _sentence(rng, 150)
        candidates.append(candidate)
        references.append(several)
    return candidates, references


def _theirs(candidates, references):
    found = {i: [" ".join(c)] for i, c in enumerate(candidates)}
    truth = {i: [" ".join(r) for r in several] for i, several in enumerate(references)}
    bleu, _ = bleu_module.Bleu(4).compute_score(truth, found, verbose=0)
    rouge, rouge_each = rouge_module.Rouge().compute_score(truth, found)
    cider, cider_each = cider_module.Cider().compute_score(truth, found)
    return bleu, (rouge, rouge_each), (cider, cider_each)


def test_2400_caption_sets_score_as_pycocoevalcap_scores_them():
    rng = random.Random(0)
    sets = 0
    # One large corpus and many small ones: a corpus of one image has CIDEr 0, and BLEU of few words hits
    # its guards.
    for size in [1000] + [100] * 10 + [1] * 100 + [3] * 100:
        candidates, references = _corpus(rng, size)
        bleu, (rouge, rouge_each), (cider, cider_each) = _theirs(candidates, references)
        ours = caption_scores(candidates, references)
        assert [ours[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx(bleu, abs=1e-9)
        assert ours["rouge_l"] == pytest.approx(rouge, abs=1e-9)
        assert rouge_l(candidates, references) == pytest.approx(list(rouge_each), abs=1e-9)
        assert ours["cider"] == pytest.approx(cider, abs=1e-9)
        assert ours["cider_d"] == pytest.approx(cider, abs=1e-9)
        assert CiderD.from_references(references)(candidates, references) == pytest.approx(
            list(cider_each), abs=1e-9
        )
        sets += size
    assert sets == 2400


def test_hindi_captions_score_as_officially():
    # The words are pycocoevalcap's own (its Java tokenizer's): cut at vowel signs, BLEU-4 would be 0.6.
    said = ["एक लड़की मैदान में खेल रही है", "दो कुत्ते पानी में हैं", "एक आदमी साइकिल चला रहा है"]
    true = ["एक लड़का मैदान में दौड़ रहा है", "दो कुत्ते घास पर हैं", "एक औरत साइकिल चला रही है"]
    candidates, references = [text.split() for text in said], [[text.split()] for text in true]
    bleu, _, (cider, _) = _theirs(candidates, references)
    ours = caption_scores([tokenize(text) for text in said], [[tokenize(text)] for text in true])
    assert ours["bleu4"] == pytest.approx(bleu[3], abs=1e-9)
    assert ours["bleu4"] < 0.01
    assert ours["cider"] == pytest.approx(cider, abs=1e-9)


@pytest.mark.parametrize(
    ("candidate", "several"),
    [
        ([], [[]]),
        ([], [["a"]]),
        (["a"], [[]]),
        (["a"], [["a"]]),
        (["a"] * 300, [["a"], ["a"] * 299]),
        (["a", "b", "c", "d"], [["a", "b"], ["a", "b", "c", "d", "e", "f"]]),
    ],
)
def test_the_edges_score_alike(candidate, several):
    # A second image, so that document frequencies are not all one.
    candidates, references = [candidate, ["x", "y"]], [several, [["x", "z"]]]
    bleu, (rouge, _), (cider, _) = _theirs(candidates, references)
    ours = caption_scores(candidates, references)
    assert [ours[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx(bleu, abs=1e-9)
    assert bleu_scores(candidates, references) == [ours[f"bleu{n}"] for n in (1, 2, 3, 4)]
    assert ours["rouge_l"] == pytest.approx(rouge, abs=1e-9)
    assert ours["cider"] == pytest.approx(cider, abs=1e-9)


def test_document_frequencies_of_another_corpus_score_as_theirs_do():
    rng = random.Random(1)
    _, training = _corpus(rng, 400)
    candidates, references = _corpus(rng, 100)
    scorer = cider_scorer.CiderScorer()
    for several in training:
        scorer.cook_append(None, [" ".join(r) for r in several])
    scorer.compute_doc_freq()
    # Their scorer knows one corpus only: count it first, then put the captions under test in its place.
    theirs = cider_scorer.CiderScorer()
    for candidate, several in zip(candidates, references):
        theirs.cook_append(" ".join(candidate), [" ".join(r) for r in several])
    theirs.document_frequency = scorer.document_frequency
    pad = [cider_scorer.cook_refs([""])] * (len(training) - len(candidates))
    theirs.crefs += pad  # its corpus size is the number of reference sets
    theirs.ctest += [cider_scorer.cook_test("")] * len(pad)
    wanted = theirs.compute_cider()[: len(candidates)]

    frequency = DocumentFrequency.count(training)
    assert CiderD(frequency)(candidates, references) == pytest.approx(wanted, abs=1e-9)
    ours = caption_scores(candidates, references, frequency=frequency)
    assert ours["cider_d"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-9)
    assert ours["cider"] == pytest.approx(_theirs(candidates, references)[2][0], abs=1e-9)
    assert abs(ours["cider"] - ours["cider_d"]) > 1e-3
