"""Batch transforms against what one would write for one sample at a time."""

from __future__ import annotations

import pytest
import torch

from visionkit.data import (
    CutmixBatch,
    EraseBatch,
    FlipBatch,
    MixupBatch,
    batch_transform,
)
from visionkit.errors import InputError
from visionkit.rng import keyed_generator


def _batch(count=6, many=False):
    rng = torch.Generator().manual_seed(5)
    labels = torch.rand(count, 4, generator=rng) if many else torch.arange(count)
    images = torch.randint(0, 256, (count, 3, 24, 20), dtype=torch.uint8, generator=rng)
    return {"images": images, "labels": labels, "ids": [str(i) for i in range(count)]}


def test_flip_mirrors_the_drawn_samples():
    batch, out = _batch(), FlipBatch(0.5)(_batch(), keyed_generator(1))
    draws = torch.rand(6, generator=keyed_generator(1))
    assert 0 < (draws < 0.5).sum() < 6
    for i in range(6):
        wanted = batch["images"][i].flip(-1) if draws[i] < 0.5 else batch["images"][i]
        assert torch.equal(out["images"][i], wanted)
    assert out["images"].dtype == torch.uint8


@pytest.mark.parametrize("many", [False, True])
def test_mixup_blends_with_the_next_sample(many):
    batch, out = _batch(many=many), MixupBatch(0.8)(_batch(many=many), keyed_generator(2))
    lam = out["lam"]
    assert lam.shape == (6,)
    assert len(set(lam.tolist())) == 6
    for i in range(6):
        own, other = batch["images"][i] / 255, batch["images"][(i + 1) % 6] / 255
        assert torch.allclose(out["images"][i], lam[i] * own + (1 - lam[i]) * other, atol=1e-6)
        assert torch.equal(out["labels_b"][i], batch["labels"][(i + 1) % 6])
    assert torch.equal(out["labels"], batch["labels"])


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    batch, out = _batch(), CutmixBatch()(_batch(), keyed_generator(3))
    assert out["images"].dtype == torch.uint8
    for i in range(6):
        own, other = batch["images"][i], batch["images"][(i + 1) % 6]
        pasted = (out["images"][i] == other).all(0) & (own != other).any(0)
        rows, columns = pasted.any(1).nonzero()[:, 0], pasted.any(0).nonzero()[:, 0]
        area = 0
        if len(rows):
            box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
            assert torch.equal(out["images"][i][:, box[0], box[1]], other[:, box[0], box[1]])
            area = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
        assert torch.equal(out["images"][i][:, ~pasted], own[:, ~pasted])
        assert out["lam"][i].item() == pytest.approx(1 - area / 480, abs=1e-6)


def test_erasing_paints_one_grey_box():
    batch, out = _batch(), EraseBatch(1.0)(_batch(), keyed_generator(4))
    for i in range(6):
        changed = (out["images"][i] != batch["images"][i]).any(0)
        assert 0.01 < changed.float().mean() < 0.45
        assert (out["images"][i][:, changed] == 128).all()
    assert torch.equal(EraseBatch(0.0)(batch, keyed_generator(4))["images"], batch["images"])


def test_names_make_the_transform():
    assert batch_transform() is None
    transform = batch_transform("flip", "mixup", "cutmix", "erase")
    seen = {transform(_batch(), keyed_generator(key))["images"].dtype for key in range(12)}
    assert seen == {torch.uint8, torch.float32}
    one, two = (transform(_batch(), keyed_generator(7))["images"] for _ in range(2))
    assert torch.equal(one, two)
    with pytest.raises(InputError, match="Did you mean 'mixup'"):
        batch_transform("mixpu")
    with pytest.raises(InputError, match="between 0 and 1"):
        batch_transform("flip", flip=2)
    with pytest.raises(InputError, match="positive"):
        batch_transform("mixup", mixup_alpha=0)
    mixed = MixupBatch()(_batch(), keyed_generator(0))
    with pytest.raises(InputError, match="Mix once"):
        CutmixBatch()(mixed, keyed_generator(0))
