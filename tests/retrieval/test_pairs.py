"""Lists of pairs: scored as the metric does, and what is wrong in them named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.errors import DataError
from visionkit.metrics import verification_scores
from visionkit.retrieval import load_encoder, read_pairs, score_pairs


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for person in range(4):
        face = rng.integers(0, 256, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
        for number in range(3):
            pixels = np.clip(face + rng.normal(0, 20, face.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{person}{number}.png")
    return tmp_path


def test_pairs_are_scored_by_the_cosines_of_their_vectors(folder) -> None:
    names = sorted(path.name for path in folder.glob("*.png"))
    rows = [
        (one, other, int(one[0] == other[0]), (int(one[0]) + int(other[0])) % 2)
        for i, one in enumerate(names)
        for other in names[:i]
    ]
    lines = [",".join(map(str, row)) for row in rows]
    (folder / "pairs.csv").write_text("\n".join(["first,second,same,fold", *lines]))
    pairs = read_pairs(folder / "pairs.csv")
    assert (len(pairs.files), len(pairs.same), int(pairs.same.sum())) == (12, 66, 12)
    encoder = load_encoder("timm/test_resnet", init="scratch", image_size=32, device="cpu")
    scores = score_pairs(encoder, pairs)
    vectors = {name: encoder(str(folder / name))[0].prediction.vector for name in names}
    cosines = [
        float(torch.cosine_similarity(vectors[a].double(), vectors[b].double(), dim=0)) for a, b, *_ in rows
    ]
    same, folds = (np.array([row[column] for row in rows]) for column in (2, 3))
    expected = verification_scores(np.array(cosines), same > 0, folds=folds)
    assert scores == pytest.approx(expected, abs=1e-6)
    assert scores["auc"] > 0.9


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("first,second\n00.png,01.png", "same is not among first, second"),
        (
            "first,second,same\n00.png,gone.png,1\nlost.png,01.png,0",
            r"2 of 4 are not there, the first is 'gone\.png'",
        ),
        ("first,second,same\n00.png,01.png,maybe", "line 2.*same.*0 or 1, but got 'maybe'"),
        ("first,second,same,fold\n00.png,01.png,1,-1", "line 2.*fold.*whole number"),
        ("first,second,same\n00.png,01.png,1\n00.png,00.png,1", "line 3.*two images, but 00.png comes twice"),
        ("first,second,same\n00.png,01.png", "line 2.*Expected 3 cells, but got 2"),
    ],
)
def test_what_is_wrong_in_a_list_of_pairs_is_named(folder, text, match) -> None:
    (folder / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=rf"(?s){match}") as caught:
        read_pairs(folder / "pairs.csv")
    assert "pairs.csv" in str(caught.value)


def test_images_may_lie_elsewhere(folder, tmp_path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "pairs.csv").write_text("first,second,same\n00.png,01.png,yes\n")
    with pytest.raises(DataError, match="2 of 2 are not there"):
        read_pairs(tmp_path / "lists" / "pairs.csv")
    pairs = read_pairs(tmp_path / "lists" / "pairs.csv", root=folder)
    assert pairs.files == (str(folder / "00.png"), str(folder / "01.png"))
    assert pairs.folds is None
