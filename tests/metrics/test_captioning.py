"""Caption scores on one, two and three processes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.processes import together
from visionkit.errors import InputError
from visionkit.metrics.captioning import CaptionScores, caption_scores

_IMAGES = 25


def _corpus():
    rng = random.Random(0)

    def sentence():
        return [
            rng.choice(["a", "red", "dog", "left", "of", "the", "café", "日"])
            for _ in range(rng.randint(0, 9))
        ]

    return {f"p{i:02d}": (sentence(), [sentence() for _ in range(rng.randint(1, 4))]) for i in range(_IMAGES)}


def work(rank: int, world: int, folder: str) -> None:
    scores = CaptionScores()
    names = [name for i, name in enumerate(_corpus()) if i % world == rank] + ["p00"]  # one is seen by all
    if world == 3 and rank == 2:
        names = names[:0]  # a process without an image
    if world == 3 and rank == 0:
        names += [name for i, name in enumerate(_corpus()) if i % world == 2]
    for name in names:
        scores.update([_corpus()[name][0]], [_corpus()[name][1]], [name])
    with together(folder, rank, world):
        values = scores.compute_floats()
    Path(folder, f"{world}-{rank}").write_text(repr(sorted(values.items())))


def _alone():
    corpus = _corpus()
    scores = CaptionScores()
    scores.update([c for c, _ in corpus.values()], [r for _, r in corpus.values()], list(corpus))
    return scores


def test_the_shell_scores_what_the_core_scores():
    corpus = _corpus()
    wanted = caption_scores([c for c, _ in corpus.values()], [r for _, r in corpus.values()])
    scores = _alone()
    assert scores.compute_floats() == wanted
    scores.update([corpus["p00"][0]], [corpus["p00"][1]], ["p00"])  # seen again: counts once
    assert scores.compute_floats() == wanted
    scores.reset()
    assert scores.compute_floats() == {}
    with pytest.raises(InputError, match="at least one caption"):
        caption_scores([], [])
    with pytest.raises(InputError, match=r"equally many, but got \(1, 2, 1\)"):
        scores.update([["x"], ["y"]], [[["x"]]], ["a"])


@pytest.mark.dist
@pytest.mark.parametrize("world", [2, 3])
def test_every_process_gets_the_scores_of_one(zygote, tmp_path, world):
    zygote.ranks("tests.metrics.test_captioning:work", world, world, str(tmp_path))
    wanted = repr(sorted(_alone().compute_floats().items()))
    told = [(tmp_path / f"{world}-{rank}").read_text() for rank in range(world)]
    assert told == [wanted] * world
