"""What needs no training: its vectors, what it refuses, and the rows that stand beside it."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import timm
import torch

from visionkit.errors import DataError, InputError
from visionkit.retrieval import baseline_encoder, check_baselines, compared_runs, trained_scores


class Images:
    """Images of noise, drawn when they are asked for; image `i` is that of the seed `i % different`."""

    def __init__(self, count: int, different: int, side: int = 32) -> None:
        self.count, self.different, self.side = count, different, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        draw = torch.Generator().manual_seed(index % self.different)
        shape = (3, self.side, self.side)
        return {"image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)}


def cosines(vectors: np.ndarray) -> np.ndarray:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units @ units.T


def test_eigenimages_of_images_that_repeat_are_as_many_as_they_differ() -> None:
    train = Images(20, 6)
    eigen, pixels = (
        baseline_encoder(name, train, backbone="", image_size=32)(train) for name in ("eigenimages", "pixels")
    )
    assert eigen.shape == (20, 5), "six images less their mean have five directions"
    assert pixels.shape == (20, 3 * 32 * 32)
    np.testing.assert_allclose(cosines(eigen), cosines(pixels), atol=1e-5)  # nothing of them is left out
    with pytest.raises(DataError, match="images that differ, but all 4 are alike"):
        baseline_encoder("eigenimages", Images(4, 1), backbone="", image_size=32)
    with pytest.raises(InputError, match="Did you mean 'pixels'"):
        baseline_encoder("pixel", train, backbone="", image_size=32)


def test_the_mean_of_the_training_images_is_taken_one_by_one() -> None:
    train = Images(200, 200, side=64)
    encode = baseline_encoder("pixels", Images(2, 2), backbone="", image_size=64)  # imports what it needs
    encode(Images(1, 1))
    tracemalloc.start()
    baseline_encoder("pixels", train, backbone="", image_size=64)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200 * 3 * 64 * 64 * 4 / 4


def test_a_backbone_without_pretrained_weights_is_refused_before_the_training() -> None:
    check_baselines("packaged/efficientnet_lite0")
    name = next(n for n in timm.list_models("resnet*") if not timm.models.get_pretrained_cfg(n).has_weights)
    with pytest.raises(InputError, match=rf"timm/{name} has none.*--retrieval\.baselines false"):
        check_baselines(f"timm/{name}")


def test_runs_of_other_data_and_schedules_are_rows_of_their_own(tmp_path) -> None:
    runs = [
        {"arm": "scratch", "fraction": fraction, "schedule": schedule, "metrics": metrics}
        for fraction, schedule, metrics in (
            (1.0, 1, {"val/map_at_r": 0.1, "test/map_at_r": 0.2, "train/loss": 1.0}),
            (1.0, 1, {"val/map_at_r": 0.3, "test/map_at_r": 0.4, "test/pair_auc": None}),
            (0.1, 1, {"val/map_at_r": 0.5}),
            (1.0, 4, {"val/map_at_r": 0.6}),
        )
    ]
    (tmp_path / "comparison.json").write_text(json.dumps({"runs": runs}))
    assert trained_scores(tmp_path) == {
        "scratch": [{"map_at_r": 0.2}, {"map_at_r": 0.4}],
        "scratch, 10% of the data": [{"map_at_r": 0.5}],
        "scratch, 4x": [{"map_at_r": 0.6}],
    }
    assert compared_runs(tmp_path)["scratch, 4x"] == [runs[3]]
